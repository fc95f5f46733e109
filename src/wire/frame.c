#include "frame.h"
#include <stdlib.h>
#include <string.h>
#include <swarm/mem.h>
#include <swarm/uio.h>

#define FIRST_ROOM 65536u

/* Room for what is there, doubling up to what was promised: a peer that promises 512 MiB and sends
 * nothing costs 64 KiB. */
static bool grow(struct frame_reader *r)
{
	size_t room = r->room ? r->room * 2 : FIRST_ROOM;
	uint8_t *p;

	if (room > r->len)
		room = r->len;
	p = realloc(r->buf, room ? room : 1);
	if (!p)
		return false;
	r->buf = p;
	r->room = room;
	return true;
}

enum frame_result frame_feed(struct frame_reader *r, struct chain *in, size_t limit)
{
	if (r->n_prefix < sizeof(r->prefix)) {
		size_t n =
			chain_peek(in, 0, r->prefix + r->n_prefix, sizeof(r->prefix) - r->n_prefix);

		chain_drain(in, n);
		r->n_prefix += (unsigned)n;
		if (r->n_prefix < sizeof(r->prefix))
			return FRAME_MORE;
		r->len = (size_t)r->prefix[1] << 24 | (size_t)r->prefix[2] << 16 |
			 (size_t)r->prefix[3] << 8 | r->prefix[4];
		if (r->prefix[0] & 1)
			return FRAME_COMPRESSED;
		if (r->len > limit)
			return FRAME_TOO_LONG;
		if (!grow(r))
			return FRAME_NO_MEMORY;
	}
	while (r->have < r->len) {
		size_t n = chain_len(in);
		struct iovec iov;
		struct uio uio;

		if (n == 0)
			return FRAME_MORE;
		if (r->have == r->room && !grow(r))
			return FRAME_NO_MEMORY;
		if (n > r->room - r->have)
			n = r->room - r->have;
		iov = (struct iovec){r->buf + r->have, n};
		if (uio_init_sys(&uio, &iov, 1, UIO_READ) != 0 || chain_uiomove(in, n, &uio) != 0)
			return FRAME_NO_MEMORY;
		r->have += n;
	}
	return FRAME_READY;
}

uint8_t *frame_take(struct frame_reader *r, size_t *len)
{
	uint8_t *p = r->buf;

	*len = r->len;
	*r = (struct frame_reader){0};
	return p;
}

bool frame_is_partial(const struct frame_reader *r)
{
	return r->n_prefix > 0;
}

void frame_done(struct frame_reader *r)
{
	free(r->buf);
	*r = (struct frame_reader){0};
}

void frame_prefix(uint8_t dst[5], size_t len)
{
	dst[0] = 0;
	dst[1] = (uint8_t)(len >> 24);
	dst[2] = (uint8_t)(len >> 16);
	dst[3] = (uint8_t)(len >> 8);
	dst[4] = (uint8_t)len;
}
