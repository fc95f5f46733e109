/* Chains of slices of counted blocks.
 *
 *   chain: first -> slice -> slice -> last       slice: bytes [data, data+len) of a block
 *                     |        |
 *                   block    block               block: memory, how many slices and owners hold it
 *
 * Two invariants keep it small and linear:
 * - Only the last slice may be empty, and only as the room that chain_reserve() made.
 * - The unused end of a block belongs to exactly one slice (block->tail), so that slice may grow
 *   into it even while other chains share the bytes before; no one else can be handed that room.
 * Growing the last slice instead of adding one also keeps a chain short when a peer sends one byte
 * at a time: the number of slices is bounded by bytes, not by reads. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <swarm/chain.h>
#include <swarm/mem.h>

struct sw_block {
	size_t refs;
	size_t size;
	uint8_t *data;
	struct sw_slice *tail; /* the slice that owns what follows it in the block */
	void (*release)(void *arg);
	void *arg;
	uint8_t mem[];
};

struct sw_slice {
	struct sw_slice *next;
	struct sw_block *block; /* NULL: constant memory */
	uint8_t *data;
	size_t len;
};

enum {
	APPEND_MIN = 1024, /* the first block of copies; then as large as the chain is, up to */
	BLOCK_MAX = 65536,
	RESERVE_MIN = 16384, /* a TLS record */
	KEEP_MAX = 8         /* unused blocks of either size that a thread keeps */
};

static atomic_size_t n_blocks; /* two loops in two threads may count */

/* --- blocks ----------------------------------------------------------------------------------- */

/* Blocks of the two usual sizes are kept for the next user: malloc gives freed memory of this size
 * back to the kernel again and again, and the page faults cost ten times the copy (bench_uio).
 * Per thread, because a block belongs to its loop's thread. Sanitizers must see each free. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NO_KEEPING
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define NO_KEEPING
#endif

static _Thread_local struct {
	struct sw_block *block[KEEP_MAX];
	size_t n;
} kept[2];
static pthread_key_t kept_key;
static pthread_once_t kept_once = PTHREAD_ONCE_INIT;

/* The end of a thread. */
static void free_kept(void *arg)
{
	(void)arg;
	for (int i = 0; i < 2; i++) {
		while (kept[i].n > 0)
			free(kept[i].block[--kept[i].n]);
	}
}

static void make_kept_key(void)
{
	(void)pthread_key_create(&kept_key, free_kept);
}

/* Which of the two sizes, or -1. */
static int kept_index(size_t size)
{
	return size == RESERVE_MIN ? 0 : size == BLOCK_MAX ? 1 : -1;
}

static struct sw_block *reuse(size_t size)
{
	int i = kept_index(size);

	return i >= 0 && kept[i].n > 0 ? kept[i].block[--kept[i].n] : NULL;
}

static bool keep(struct sw_block *b)
{
	int i = b->data == b->mem ? kept_index(b->size) : -1;

#ifdef NO_KEEPING
	i = -1;
#endif
	if (i < 0 || kept[i].n == KEEP_MAX)
		return false;
	(void)pthread_once(&kept_once, make_kept_key);
	(void)pthread_setspecific(kept_key, kept); /* any value: the destructor must run */
	kept[i].block[kept[i].n++] = b;
	return true;
}

static struct sw_block *block_make(size_t inline_size)
{
	struct sw_block *b = reuse(inline_size);
	size_t total;

	if (__builtin_add_overflow(sizeof(*b), inline_size, &total))
		return NULL;
	if (!b)
		b = malloc(total);
	if (!b)
		return NULL;
	*b = (struct sw_block){.refs = 1, .size = inline_size};
	b->data = b->mem;
	atomic_fetch_add_explicit(&n_blocks, 1, memory_order_relaxed);
	return b;
}

struct sw_block *block_new(size_t size)
{
	return block_make(size);
}

struct sw_block *block_wrap(void *mem, size_t size, void (*release)(void *arg), void *arg)
{
	struct sw_block *b = block_make(0);

	if (!b)
		return NULL;
	b->data = mem;
	b->size = size;
	b->release = release;
	b->arg = arg;
	return b;
}

struct sw_block *block_ref(struct sw_block *b)
{
	b->refs++;
	return b;
}

void block_unref(struct sw_block *b)
{
	if (!b)
		return;
	assert(b->refs > 0);
	if (--b->refs > 0)
		return;
	atomic_fetch_sub_explicit(&n_blocks, 1, memory_order_relaxed);
	if (b->release)
		b->release(b->arg);
	if (!keep(b))
		free(b);
}

uint8_t *block_data(struct sw_block *b)
{
	return b->data;
}

size_t block_size(const struct sw_block *b)
{
	return b->size;
}

size_t block_count(void)
{
	return atomic_load_explicit(&n_blocks, memory_order_relaxed);
}

/* --- slices ----------------------------------------------------------------------------------- */

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

static bool owns_tail(const struct sw_slice *s)
{
	return s->block && s->block->tail == s;
}

/* Bytes @s may still grow by. */
static size_t room(const struct sw_slice *s)
{
	return s && owns_tail(s) ? s->block->size - (size_t)(s->data - s->block->data) - s->len : 0;
}

static void slice_drop_block(struct sw_slice *s)
{
	if (owns_tail(s))
		s->block->tail = NULL;
	block_unref(s->block);
	s->block = NULL;
}

static void slice_free(struct sw_slice *s)
{
	slice_drop_block(s);
	free(s);
}

/* Contents of @from become those of @to, which holds nothing. */
static void slice_take(struct sw_slice *to, struct sw_slice *from)
{
	to->block = from->block;
	to->data = from->data;
	to->len = from->len;
	if (owns_tail(from))
		from->block->tail = to;
	from->block = NULL;
}

/* Puts @s (takes it) at the end. */
static void push(struct chain *c, struct sw_slice *s)
{
	struct sw_slice *last = c->last;

	s->next = NULL;
	c->len += s->len;
	if (last && last->len == 0) {
		/* room that was reserved and not used */
		slice_drop_block(last);
		slice_take(last, s);
		free(s);
		return;
	}
	if (last && s->len > 0 && s->block && s->block == last->block &&
		last->data + last->len == s->data) {
		/* the two halves of what was split */
		last->len += s->len;
		if (owns_tail(s))
			s->block->tail = last;
		slice_free(s);
		return;
	}
	if (last)
		last->next = s;
	else
		c->first = s;
	c->last = s;
}

static struct sw_slice *unlink_first(struct chain *c)
{
	struct sw_slice *s = c->first;

	c->first = s->next;
	if (!c->first)
		c->last = NULL;
	c->len -= s->len;
	s->next = NULL;
	return s;
}

/* A new slice of @block with a reference of its own. */
static struct sw_slice *slice_new(struct sw_block *block, uint8_t *data, size_t len)
{
	struct sw_slice *s = xcalloc(1, sizeof(*s));

	s->block = block ? block_ref(block) : NULL;
	s->data = data;
	s->len = len;
	return s;
}

/* --- chains ----------------------------------------------------------------------------------- */

void chain_init(struct chain *c)
{
	*c = (struct chain){0};
}

void chain_done(struct chain *c)
{
	if (!c)
		return;
	while (c->first)
		slice_free(unlink_first(c));
}

void chain_append_block(struct chain *c, struct sw_block *b, size_t off, size_t len)
{
	assert(off <= b->size && len <= b->size - off);
	if (len > 0)
		push(c, slice_new(b, b->data + off, len));
}

void chain_append_static(struct chain *c, const void *p, size_t len)
{
	/* never written to: only slices that own the tail of a block are */
	if (len > 0)
		push(c, slice_new(NULL, (uint8_t *)p, len));
}

/* A new block as an empty slice that owns all of it as room; NULL when memory is gone. */
static struct sw_slice *slice_room(size_t size)
{
	struct sw_block *b;
	struct sw_slice *s;

	/* to the next size that is kept, where that is not far */
	if (size > RESERVE_MIN / 4 && size <= BLOCK_MAX)
		size = size <= RESERVE_MIN ? RESERVE_MIN : BLOCK_MAX;
	b = block_new(size);
	if (!b)
		return NULL;
	s = xcalloc(1, sizeof(*s));
	s->block = b;
	s->data = b->data;
	b->tail = s;
	return s;
}

/* Copies into the room of the last slice. */
static void fill(struct chain *c, const uint8_t *p, size_t len)
{
	struct sw_slice *s = c->last;
	struct iovec iov = {(void *)p, len};
	struct uio uio;

	(void)uio_init_sys(&uio, &iov, 1, UIO_WRITE);
	(void)uiomove(s->data + s->len, len, &uio); /* SYSSPACE: cannot fail */
	chain_commit(c, len);
}

int chain_append(struct chain *c, const void *p, size_t len)
{
	const uint8_t *from = p;
	size_t fits = min_size(room(c->last), len);
	struct sw_slice *extra = NULL;

	if (len == 0)
		return 0;
	if (len > SSIZE_MAX || c->len > SSIZE_MAX - len)
		return -ENOMEM;
	if (fits < len) {
		size_t size = max_size(min_size(c->len, BLOCK_MAX), APPEND_MIN);

		size = max_size(size, len - fits);
		/* first the memory: without it nothing is appended */
		extra = slice_room(size);
		if (!extra)
			return -ENOMEM;
	}
	if (fits > 0)
		fill(c, from, fits);
	if (extra) {
		push(c, extra);
		fill(c, from + fits, len - fits);
	}
	return 0;
}

void chain_append_chain(struct chain *dst, struct chain *src)
{
	struct sw_slice *s;

	if (dst == src)
		return;
	if (src->len == 0) {
		chain_done(src);
		return;
	}
	s = unlink_first(src);
	push(dst, s); /* may join it with the last one */
	if (src->first) {
		dst->last->next = src->first;
		dst->last = src->last;
		dst->len += src->len;
	}
	chain_init(src);
}

size_t chain_move(struct chain *dst, struct chain *src, size_t n)
{
	size_t left;

	n = min_size(n, src->len);
	if (n == src->len) {
		chain_append_chain(dst, src);
		return n;
	}
	for (left = n; left > 0;) {
		struct sw_slice *s = src->first;

		if (s->len <= left) {
			left -= s->len;
			push(dst, unlink_first(src));
		} else {
			struct sw_slice *head = slice_new(s->block, s->data, left);

			s->data += left;
			s->len -= left;
			src->len -= left;
			left = 0;
			push(dst, head);
		}
	}
	return n;
}

void chain_share(struct chain *dst, const struct chain *src, size_t off, size_t n)
{
	const struct sw_slice *s = src->first;

	off = min_size(off, src->len);
	n = min_size(n, src->len - off);
	while (n > 0) {
		size_t len = s->len, piece;

		if (off >= len) {
			off -= len;
			s = s->next;
			continue;
		}
		piece = min_size(len - off, n);
		n -= piece;
		/* dst may be src: s is left alone or grows at its end, n says when to stop */
		push(dst, slice_new(s->block, s->data + off, piece));
		off = 0;
		s = s->next;
	}
}

void chain_drain(struct chain *c, size_t n)
{
	if (n >= c->len) {
		chain_done(c);
		return;
	}
	while (n > 0) {
		struct sw_slice *s = c->first;

		if (s->len <= n) {
			n -= s->len;
			slice_free(unlink_first(c));
		} else {
			s->data += n;
			s->len -= n;
			c->len -= n;
			n = 0;
		}
	}
}

/* --- receiving and sending -------------------------------------------------------------------- */

uint8_t *chain_reserve(struct chain *c, size_t min, size_t *avail)
{
	size_t size = c->len >= BLOCK_MAX ? BLOCK_MAX : RESERVE_MIN;

	if (min == 0)
		min = 1;
	if (room(c->last) < min) {
		/* A block is given up when less than min is left of it. Twice min makes sure that
		 * half of it is in use by then, so that a peer who sends single bytes does not make
		 * us hold a block for each. Large wishes are meant to be filled. */
		struct sw_slice *s = slice_room(max_size(size, min <= BLOCK_MAX ? 2 * min : min));

		if (!s)
			return NULL;
		push(c, s);
	}
	*avail = room(c->last);
	return c->last->data + c->last->len;
}

void chain_commit(struct chain *c, size_t n)
{
	if (n == 0)
		return;
	assert(c->last && n <= room(c->last));
	c->last->len += n;
	c->len += n;
}

int chain_iov(const struct chain *c, struct iovec *iov, int max, size_t *bytes)
{
	size_t sum = 0;
	int n = 0;

	for (const struct sw_slice *s = c->first; s && n < max; s = s->next) {
		if (s->len == 0)
			continue;
		iov[n++] = (struct iovec){s->data, s->len};
		sum += s->len;
	}
	if (bytes)
		*bytes = sum;
	return n;
}

/* --- reading ---------------------------------------------------------------------------------- */

int chain_uiomove(struct chain *c, size_t n, struct uio *uio)
{
	if (uio->uio_rw != UIO_READ || uio->uio_resid < 0)
		return EINVAL;
	n = min_size(min_size(n, c->len), (size_t)uio->uio_resid);
	while (n > 0) {
		size_t piece = min_size(n, c->first->len), moved;
		ssize_t before = uio->uio_resid;
		int r = uiomove(c->first->data, piece, uio);

		moved = (size_t)(before - uio->uio_resid);
		chain_drain(c, moved);
		n -= moved;
		if (r)
			return r;
	}
	return 0;
}

/* Copies [off, off+n), which exists, to @dst. */
static void copy_out(const struct chain *c, size_t off, uint8_t *dst, size_t n)
{
	const struct sw_slice *s = c->first;
	struct iovec iov = {dst, n};
	struct uio uio;

	(void)uio_init_sys(&uio, &iov, 1, UIO_READ);
	while (uio.uio_resid > 0) {
		if (off < s->len) {
			(void)uiomove(s->data + off, s->len - off, &uio); /* as much as resid */
			off = 0;
		} else {
			off -= s->len;
		}
		s = s->next;
	}
}

size_t chain_peek(const struct chain *c, size_t off, void *dst, size_t n)
{
	if (off >= c->len)
		return 0;
	n = min_size(n, c->len - off);
	copy_out(c, off, dst, n);
	return n;
}

const uint8_t *chain_pullup(struct chain *c, size_t n)
{
	static const uint8_t nothing;
	struct sw_slice *s;
	struct sw_block *b;

	if (n > c->len)
		return NULL;
	if (n == 0)
		return c->first ? c->first->data : &nothing;
	if (c->first->len >= n)
		return c->first->data;
	b = block_new(n);
	if (!b)
		return NULL;
	copy_out(c, 0, b->data, n);
	chain_drain(c, n);
	s = xcalloc(1, sizeof(*s));
	s->block = b;
	s->data = b->data;
	s->len = n;
	s->next = c->first;
	c->first = s;
	if (!c->last)
		c->last = s;
	c->len += n;
	return s->data;
}

ssize_t chain_find(const struct chain *c, size_t from, uint8_t byte)
{
	size_t at = 0;

	for (const struct sw_slice *s = c->first; s; at += s->len, s = s->next) {
		size_t skip = from > at ? from - at : 0;
		const uint8_t *hit;

		if (skip >= s->len)
			continue;
		hit = memchr(s->data + skip, byte, s->len - skip);
		if (hit)
			return (ssize_t)(at + (size_t)(hit - s->data));
	}
	return -1;
}
