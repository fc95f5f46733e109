/* Finds the ends of JSON objects in a stream of bytes: engines put "\n", "\r\n", RS (0x1e, RFC
 * 7464) or nothing between them. Only braces and strings matter for that; what is inside an object
 * is for the parser to judge. An object that lies in one piece is handed out without a copy. */
#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

static int keep(struct jsplit *s, const char *p, size_t n, struct sw_err *err)
{
	if (s->len + n > ENGINE_MAX_OBJECT)
		return sw_err_set(err, SW_TEMPORARY, -E2BIG,
			"an object of the engine's stream is longer than %u bytes",
			ENGINE_MAX_OBJECT);
	if (s->len + n > s->room) {
		size_t room = s->room ? 2 * s->room : 1024;
		char *buf;

		while (room < s->len + n)
			room *= 2;
		buf = realloc(s->buf, room);
		if (!buf)
			return sw_err_set(err, SW_TEMPORARY, -ENOMEM, "no memory for the stream");
		s->buf = buf;
		s->room = room;
	}
	memcpy(s->buf + s->len, p, n);
	s->len += n;
	return 0;
}

/* True if @ch ends the object. */
static bool step(struct jsplit *s, char ch)
{
	if (s->in_string) {
		if (s->escaped)
			s->escaped = false;
		else if (ch == '\\')
			s->escaped = true;
		else if (ch == '"')
			s->in_string = false;
		return false;
	}
	if (ch == '"')
		s->in_string = true;
	else if (ch == '{')
		s->depth++;
	else if (ch == '}')
		return --s->depth == 0;
	return false;
}

int jsplit_feed(
	struct jsplit *s, const char *p, size_t n, jsplit_cb *cb, void *arg, struct sw_err *err)
{
	size_t start = 0, i = 0;
	int r;

	while (i < n) {
		if (!s->depth) {
			if (p[i] != '{') {
				if (!p[i] || !strchr(" \t\r\n\x1e", p[i]))
					return sw_err_set(err, SW_TEMPORARY, -EPROTO,
						"byte 0x%02x between the objects of the engine's "
						"stream",
						(unsigned char)p[i]);
				i++;
				continue;
			}
			start = i;
		}
		if (!step(s, p[i++]))
			continue;
		if (!s->len && i - start <= ENGINE_MAX_OBJECT) {
			if (!cb(arg, p + start, i - start))
				return 1;
		} else {
			char *whole;
			size_t len;
			bool go;

			r = keep(s, p + start, i - start, err);
			if (r < 0)
				return r;
			whole = take(s->buf);
			len = s->len;
			s->len = s->room = 0;
			go = cb(arg, whole, len);
			free(whole);
			if (!go)
				return 1;
		}
		start = i;
	}
	return s->depth ? keep(s, p + start, n - start, err) : 0;
}

int jsplit_feed_chain(
	struct jsplit *s, struct chain *c, jsplit_cb *cb, void *arg, struct sw_err *err)
{
	while (chain_len(c)) {
		struct iovec iov;
		size_t bytes;
		int r;

		chain_iov(c, &iov, 1, &bytes);
		r = jsplit_feed(s, iov.iov_base, bytes, cb, arg, err);
		if (r != 0)
			return r;
		chain_drain(c, bytes);
	}
	return 0;
}

void jsplit_done(struct jsplit *s)
{
	free(s->buf);
	*s = (struct jsplit){0};
}
