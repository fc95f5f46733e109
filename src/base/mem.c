#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

static void *must(void *p)
{
	if (!p) {
		static const char msg[] = "<2>out of memory\n";

		(void)!write(STDERR_FILENO, msg, sizeof(msg) - 1);
		abort();
	}
	return p;
}

void *xcalloc(size_t n, size_t size)
{
	return must(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t n, size_t size)
{
	return must(reallocarray(p, n ? n : 1, size ? size : 1));
}

char *xstrdup(const char *s)
{
	return s ? must(strdup(s)) : NULL;
}

char *xstrndup(const char *s, size_t n)
{
	return s ? must(strndup(s, n)) : NULL;
}

void *xmemdup(const void *p, size_t n)
{
	void *copy = must(malloc(n ? n : 1));

	if (n)
		memcpy(copy, p, n);
	return copy;
}

char *xvasprintf(const char *fmt, va_list ap)
{
	char *s = NULL;

	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	return must(s);
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	s = xvasprintf(fmt, ap);
	va_end(ap);
	return s;
}

void sw_wipe(void *p, size_t n)
{
	if (p && n)
		explicit_bzero(p, n);
}

void sw_wipe_str(char *s)
{
	if (s)
		sw_wipe(s, strlen(s));
	free(s);
}

bool sw_starts_with(const char *s, const char *prefix)
{
	return s && strncmp(s, prefix, strlen(prefix)) == 0;
}

int sw_write_all(int fd, const void *p, size_t n)
{
	const char *from = p;

	while (n > 0) {
		ssize_t w = write(fd, from, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w == 0)
			errno = EIO; /* no progress and no reason: do not try for ever */
		if (w <= 0)
			return -errno;
		from += w;
		n -= (size_t)w;
	}
	return 0;
}
