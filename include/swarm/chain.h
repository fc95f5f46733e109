/* chain.h - chains of reference-counted memory, on top of uio: the one buffer type that sockets,
 * framing, compression of copies and consumers share. Loop thread (blocks may be freed there only).
 *
 * A block is memory with a count; a chain is a queue of slices of blocks. Moving, splitting and
 * sharing slices copies nothing. A chain is embedded in its owner: zero-initialised is empty. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/uio.h>

struct sw_block;
struct sw_slice;

struct chain {
	struct sw_slice *first, *last;
	size_t len; /* bytes in all slices */
};

void chain_init(struct chain *c);
/* Drops everything; the chain is empty and usable afterwards. NULL is fine. */
void chain_done(struct chain *c);
static inline size_t chain_len(const struct chain *c)
{
	return c->len;
}

/* A block of @size bytes, one reference, owned by the caller; NULL when memory is gone. */
struct sw_block *block_new(size_t size);
/* Foreign memory as a block: @release(arg) runs when the last reference goes. */
struct sw_block *block_wrap(void *mem, size_t size, void (*release)(void *arg), void *arg);
struct sw_block *block_ref(struct sw_block *b);
void block_unref(struct sw_block *b); /* NULL is fine */
uint8_t *block_data(struct sw_block *b);
size_t block_size(const struct sw_block *b);
/* Blocks alive in this process: leak checks of tests. */
size_t block_count(void);

/* Appends the slice [off, off+len) of @b, which must lie within it; takes a reference of its own.
 */
void chain_append_block(struct chain *c, struct sw_block *b, size_t off, size_t len);
/* Appends a copy (through uiomove). 0, or -ENOMEM and nothing is appended. */
int chain_append(struct chain *c, const void *p, size_t len);
/* Appends constant memory that outlives every user of the chain; no copy. */
void chain_append_static(struct chain *c, const void *p, size_t len);
/* Moves all of @src to the end of @dst; @src is empty afterwards. */
void chain_append_chain(struct chain *dst, struct chain *src);
/* Moves the first min(@n, len) bytes of @src to the end of @dst without copying. Returns how many.
 */
size_t chain_move(struct chain *dst, struct chain *src, size_t n);
/* Shares the bytes [off, off+n) of @src: appends slices to @dst, copies nothing. */
void chain_share(struct chain *dst, const struct chain *src, size_t off, size_t n);
/* Drops the first min(@n, len) bytes. */
void chain_drain(struct chain *c, size_t n);

/* Receiving: room of at least @min (0 counts as 1) bytes at the end, *@avail long; fill it and say
 * how much with chain_commit() before anything else happens to the chain (0 is fine, and leaving it
 * out too: the next reserve gives the same room). Blocks are 16-64 KiB whatever @min is, so ask for
 * the least that makes a read worth while, not for the most. A chain that was reserved from needs
 * chain_done() even when it is empty. NULL when memory is gone. */
uint8_t *chain_reserve(struct chain *c, size_t min, size_t *avail);
void chain_commit(struct chain *c, size_t n);

/* Sending: up to @max iovecs from the front; returns how many, *@bytes their sum. Valid until the
 * chain changes. */
int chain_iov(const struct chain *c, struct iovec *iov, int max, size_t *bytes);

/* Reading as a uio: moves min(@n, len, resid) bytes from the front into @uio and drains them. 0 or
 * what uiomove() returns (what was moved is drained); EINVAL if @uio is not UIO_READ. */
int chain_uiomove(struct chain *c, size_t n, struct uio *uio);
/* Copies [off, off+n) into @dst, without draining. Returns how many there were. */
size_t chain_peek(const struct chain *c, size_t off, void *dst, size_t n);
/* The first @n bytes in one piece (copies only if they are not already). NULL if there are fewer
 * than @n or memory is gone. @n 0 gives a valid pointer. */
const uint8_t *chain_pullup(struct chain *c, size_t n);
/* Offset of the first @byte at or after @from, or -1. */
ssize_t chain_find(const struct chain *c, size_t from, uint8_t byte);
