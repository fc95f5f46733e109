#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>

/* Ends a message that did not fit in "...", without half a UTF-8 character before it: errors
 * travel as protobuf strings, and a Go peer refuses those that are not UTF-8. */
static void cut(struct sw_err *err)
{
	size_t at = sizeof(err->msg) - 4;

	while (at > sizeof(err->msg) - 7 && ((unsigned char)err->msg[at] & 0xc0) == 0x80)
		at--;
	memcpy(err->msg + at, "...", 4);
}

__attribute__((format(printf, 2, 0))) static void set_msg(
	struct sw_err *err, const char *fmt, va_list ap)
{
	int n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);

	if (n < 0)
		err->msg[0] = '\0';
	else if ((size_t)n >= sizeof(err->msg))
		cut(err);
}

int sw_err_set(struct sw_err *err, enum sw_errclass cls, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;

		err->cls = cls;
		err->domain = SW_E_ERRNO;
		err->code = code;
		va_start(ap, fmt);
		set_msg(err, fmt, ap);
		va_end(ap);
	}
	return code < 0 ? code : -EIO;
}

int sw_err_setd(struct sw_err *err, enum sw_errclass cls, enum sw_errdomain domain, int code,
	const char *fmt, ...)
{
	if (err) {
		va_list ap;

		err->cls = cls;
		err->domain = domain;
		err->code = code;
		va_start(ap, fmt);
		set_msg(err, fmt, ap);
		va_end(ap);
	}
	return code < 0 ? code : -EIO;
}

int sw_err_wrap(struct sw_err *err, const char *fmt, ...)
{
	char old[SW_ERR_MSG_MAX];
	va_list ap;
	size_t len;

	if (!err)
		return -EIO;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	set_msg(err, fmt, ap);
	va_end(ap);
	len = strlen(err->msg);
	if ((size_t)snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", old) >=
		sizeof(err->msg) - len)
		cut(err);
	return err->code < 0 ? err->code : -EIO;
}

void sw_err_copy(struct sw_err *dst, const struct sw_err *src)
{
	if (src)
		*dst = *src;
	else
		*dst = SW_ERR_NONE;
}

const char *sw_errclass_name(enum sw_errclass cls)
{
	switch (cls) {
	case SW_OK:
		return "ok";
	case SW_TEMPORARY:
		return "temporary";
	case SW_REJECTED:
		return "rejected";
	case SW_FATAL:
		return "fatal";
	case SW_CANCELLED:
		return "cancelled";
	}
	return "?";
}
