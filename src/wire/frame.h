/* frame.h - gRPC's message frames: flags(1) length(4, big endian) message. Loop thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/chain.h>

/* Zero-initialised is ready. */
struct frame_reader {
	uint8_t prefix[5];
	unsigned n_prefix;
	uint8_t *buf; /* the message so far; grows with what has arrived, not with what is promised
		       */
	size_t have, room, len;
};

enum frame_result {
	FRAME_MORE,       /* all of @in is eaten, the message is not complete */
	FRAME_READY,      /* a message is complete: take it before going on */
	FRAME_COMPRESSED, /* the peer compressed without having been asked: cannot be read */
	FRAME_TOO_LONG,   /* its length is above @limit */
	FRAME_NO_MEMORY,
};

/* Eats from @in until a message is complete. After an error only frame_done() makes sense. */
enum frame_result frame_feed(struct frame_reader *r, struct chain *in, size_t limit);
/* After FRAME_READY: the message, malloc'd (never NULL), and the reader is ready for the next. */
uint8_t *frame_take(struct frame_reader *r, size_t *len);
/* Bytes of an unfinished message are there. */
bool frame_is_partial(const struct frame_reader *r);
void frame_done(struct frame_reader *r);

void frame_prefix(uint8_t dst[5], size_t len);
