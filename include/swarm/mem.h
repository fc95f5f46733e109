/* mem.h - allocation, ownership, text and descriptor helpers. Any thread.
 * The x-functions abort when memory is gone: they are for our own small structs, never for
 * sizes that a peer chose (a restart adopts the running tasks). */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t n, size_t size) __attribute__((returns_nonnull));
/* NULL stays NULL. */
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
void *xmemdup(const void *p, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2), returns_nonnull));
char *xvasprintf(const char *fmt, va_list ap)
	__attribute__((format(printf, 1, 0), returns_nonnull));

/* Overwrites with zeros in a way that is not optimised away. */
void sw_wipe(void *p, size_t n);
/* Wipes and frees a string; NULL is fine. */
void sw_wipe_str(char *s);

/* Writes all of @p, whatever write(2) takes at a time. 0, or -errno (errno is set too). */
int sw_write_all(int fd, const void *p, size_t n);

/* Scope-bound owners: "sw_auto_free char *s = ...;" and take() on hand-over. */
static inline void sw_freep(void *p)
{
	free(*(void **)p);
}
static inline void sw_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define sw_auto_free  __attribute__((cleanup(sw_freep)))
#define sw_auto_close __attribute__((cleanup(sw_closep)))
#define take(p)                                                                                    \
	__extension__({                                                                            \
		__auto_type take_ = (p);                                                           \
		(p) = NULL;                                                                        \
		take_;                                                                             \
	})

#define SW_ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define sw_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline bool sw_streq(const char *a, const char *b)
{
	return a == b || (a && b && __builtin_strcmp(a, b) == 0);
}
static inline bool sw_str_empty(const char *s)
{
	return !s || !*s;
}
bool sw_starts_with(const char *s, const char *prefix);
