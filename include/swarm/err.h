/* err.h - errors are values with a class. Any thread. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>

/* The class decides what happens next, the message explains it to a person. */
enum sw_errclass {
	SW_OK = 0,
	SW_TEMPORARY = 1, /* worth another try */
	SW_REJECTED,      /* can never work with this input */
	SW_FATAL,         /* can never work in this process or state */
	SW_CANCELLED,     /* somebody asked for it */
};

/* What @code of an error means. */
enum sw_errdomain {
	SW_E_ERRNO = 0, /* -errno */
	SW_E_HTTP,      /* HTTP status of the engine, 100..599 */
	SW_E_GRPC,      /* gRPC status code, 0..16 */
	SW_E_SQLITE,    /* extended result code */
	SW_E_TLS,       /* X509_V_ERR_* or an OpenSSL reason */
};

#define SW_ERR_MSG_MAX 1024

/* No heap inside: copies across threads. A message that does not fit ends in "...". */
struct sw_err {
	enum sw_errclass cls; /* SW_OK: no error */
	enum sw_errdomain domain;
	int code;
	char msg[SW_ERR_MSG_MAX];
};

#define SW_ERR_NONE ((struct sw_err){.cls = SW_OK})

/* Fills @err (NULL is fine) in domain SW_E_ERRNO and returns @code, so that
 * "return sw_err_set(err, SW_REJECTED, -EINVAL, ...)" reads as one line. */
int sw_err_set(struct sw_err *err, enum sw_errclass cls, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* As sw_err_set() with a domain; returns -EIO when @code is not negative, else @code. */
int sw_err_setd(struct sw_err *err, enum sw_errclass cls, enum sw_errdomain domain, int code,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Puts "<text>: " before the message; class, domain and code stay. Returns the code, negative. */
int sw_err_wrap(struct sw_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* @src NULL clears. */
void sw_err_copy(struct sw_err *dst, const struct sw_err *src);

static inline bool sw_err_is(const struct sw_err *err, enum sw_errclass cls)
{
	return err && err->cls == cls;
}
/* "temporary", "rejected", "fatal", "cancelled", "ok". */
const char *sw_errclass_name(enum sw_errclass cls);
