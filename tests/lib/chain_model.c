/* Three chains and three flat buffers go through the same operations. After each one the chains
 * must hold what the buffers hold, and at the end no block may be alive. */
#include <chain_model.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/chain.h>

enum { N = 3, LIMIT = 150000, MAX_OPS = 2000, STATIC_MAX = 5000, MAX_IOV = 4096 };

struct flat {
	uint8_t *p;
	size_t len;
};

struct model {
	const uint8_t *in, *end;
	struct chain c[N];
	struct flat f[N];
	struct sw_block *shared; /* appended in pieces */
	uint32_t seed;
};

static uint8_t constant[STATIC_MAX];
static struct iovec vec[MAX_IOV];

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static size_t byte(struct model *m)
{
	return m->in < m->end ? *m->in++ : 0;
}

/* Mostly small, sometimes larger than a block. */
static size_t length(struct model *m)
{
	size_t n = byte(m);

	if (n >= 0xf0)
		return (n - 0xef) * 4500 + byte(m);
	if (n >= 0xc0)
		return (n - 0xc0) * 256 + byte(m);
	return n;
}

static void fill(struct model *m, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		m->seed = m->seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(m->seed >> 24);
	}
}

static void flat_append(struct flat *f, const void *p, size_t n)
{
	if (n == 0)
		return;
	f->p = realloc(f->p, f->len + n);
	CHECK(f->p);
	memcpy(f->p + f->len, p, n);
	f->len += n;
}

static void flat_drain(struct flat *f, size_t n)
{
	if (n == 0)
		return;
	memmove(f->p, f->p + n, f->len - n);
	f->len -= n;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void compare(const struct chain *c, const struct flat *f)
{
	size_t sum, at = 0, walked = 0;
	int n = chain_iov(c, vec, MAX_IOV, &sum);

	CHECK(c->len == f->len && chain_len(c) == f->len);
	CHECK(n < MAX_IOV && sum == f->len);
	for (int i = 0; i < n; i++) {
		CHECK(vec[i].iov_len > 0);
		CHECK(memcmp(vec[i].iov_base, f->p + at, vec[i].iov_len) == 0);
		at += vec[i].iov_len;
		walked++;
	}
	CHECK(at == f->len);
	CHECK((c->first == NULL) == (c->last == NULL));
	CHECK(walked == 0 || c->first);
}

static void released(void *arg)
{
	free(arg);
}

static void op_wrap(struct model *m, struct chain *c, struct flat *f, size_t n)
{
	uint8_t *p = malloc(n ? n : 1);
	struct sw_block *b;

	CHECK(p);
	fill(m, p, n);
	b = block_wrap(p, n, released, p);
	CHECK(b);
	chain_append_block(c, b, n / 4, n - n / 4);
	flat_append(f, p + n / 4, n - n / 4);
	block_unref(b);
}

static void op_reserve(struct model *m, struct chain *c, struct flat *f, size_t n)
{
	size_t avail = 0, used;
	uint8_t *p = chain_reserve(c, n, &avail);

	CHECK(p && avail >= n && avail > 0);
	/* all of it must be ours: anybody else's bytes in there would be found by compare() */
	memset(p, (int)(m->seed & 0xff), avail);
	used = min_size(avail, length(m));
	fill(m, p, used);
	chain_commit(c, used);
	flat_append(f, p, used);
}

static void op_uiomove(struct model *m, struct chain *c, struct flat *f, size_t n)
{
	size_t room = length(m), a = room / 3, moved = min_size(min_size(n, room), f->len);
	uint8_t *p = calloc(1, room + 1);
	struct iovec iov[3] = {{p, a}, {NULL, 0}, {p + a, room - a}};
	struct uio uio;

	CHECK(p && uio_init_sys(&uio, iov, 3, UIO_READ) == 0);
	CHECK(chain_uiomove(c, n, &uio) == 0);
	CHECK((size_t)uio.uio_resid == room - moved && (size_t)uio.uio_offset == moved);
	CHECK(moved == 0 || memcmp(p, f->p, moved) == 0);
	CHECK(p[moved] == 0);
	flat_drain(f, moved);
	free(p);
}

static void op_peek(struct chain *c, const struct flat *f, size_t off, size_t n)
{
	uint8_t *p = malloc(n + 1);
	size_t want = off < f->len ? min_size(n, f->len - off) : 0;

	CHECK(p);
	CHECK(chain_peek(c, off, p, n) == want);
	CHECK(want == 0 || memcmp(p, f->p + off, want) == 0);
	free(p);
}

static void op_find(struct chain *c, const struct flat *f, size_t from, uint8_t what)
{
	const uint8_t *hit = from < f->len ? memchr(f->p + from, what, f->len - from) : NULL;

	CHECK(chain_find(c, from, what) == (hit ? hit - f->p : -1));
}

static void op(struct model *m)
{
	size_t code = byte(m), i = byte(m), n;
	struct chain *c = &m->c[i % N], *d = &m->c[i / N % N];
	struct flat *f = &m->f[i % N], *g = &m->f[i / N % N];
	const uint8_t *p;
	uint8_t *copy;

	n = length(m);
	/* bounded memory: what grows a chain is skipped when it is large */
	if (f->len > LIMIT) {
		chain_drain(c, n * 2);
		flat_drain(f, min_size(n * 2, f->len));
		return;
	}
	switch (code % 16) {
	case 0:
	case 1:
		copy = malloc(n + 1);
		CHECK(copy);
		fill(m, copy, n);
		CHECK(chain_append(c, copy, n) == 0);
		flat_append(f, copy, n);
		free(copy);
		break;
	case 2:
		n %= STATIC_MAX;
		chain_append_static(c, constant + n / 2, n - n / 2);
		flat_append(f, constant + n / 2, n - n / 2);
		break;
	case 3:
		n %= block_size(m->shared);
		chain_append_block(c, m->shared, n / 2, n - n / 2);
		flat_append(f, block_data(m->shared) + n / 2, n - n / 2);
		break;
	case 4:
		op_wrap(m, c, f, n);
		break;
	case 5:
		chain_append_chain(c, d);
		if (c != d) {
			flat_append(f, g->p, g->len);
			g->len = 0;
		}
		break;
	case 6:
	case 7:
		if (c == d)
			break;
		CHECK(chain_move(c, d, n) == min_size(n, g->len));
		n = min_size(n, g->len);
		flat_append(f, g->p, n);
		flat_drain(g, n);
		break;
	case 8: {
		size_t off = length(m), len = g->len;

		chain_share(c, d, off, n);
		if (off < len) {
			n = min_size(n, len - off);
			copy = malloc(n + 1);
			CHECK(copy);
			memcpy(copy, g->p + off, n);
			flat_append(f, copy, n);
			free(copy);
		}
		break;
	}
	case 9:
		chain_drain(c, n);
		flat_drain(f, min_size(n, f->len));
		break;
	case 10:
	case 11:
		op_reserve(m, c, f, n);
		break;
	case 12:
		op_uiomove(m, c, f, n);
		break;
	case 13:
		op_peek(c, f, n, length(m));
		op_find(c, f, n, (uint8_t)byte(m));
		break;
	case 14:
		p = chain_pullup(c, n);
		CHECK((p != NULL) == (n <= f->len));
		CHECK(!p || n == 0 || memcmp(p, f->p, n) == 0);
		break;
	default:
		if (byte(m) % 8)
			break;
		chain_done(c);
		f->len = 0;
		break;
	}
}

void chain_model_run(const uint8_t *program, size_t size)
{
	size_t before = block_count();
	struct model m = {.in = program, .end = program + size, .seed = 1};

	m.shared = block_new(2000);
	CHECK(m.shared);
	fill(&m, block_data(m.shared), 2000);
	fill(&m, constant, sizeof(constant));
	for (int ops = 0; m.in < m.end && ops < MAX_OPS; ops++) {
		op(&m);
		for (int i = 0; i < N; i++)
			compare(&m.c[i], &m.f[i]);
	}
	for (int i = 0; i < N; i++) {
		chain_done(&m.c[i]);
		CHECK(m.c[i].len == 0 && !m.c[i].first && !m.c[i].last);
		free(m.f[i].p);
	}
	CHECK(block_count() == before + 1);
	block_unref(m.shared);
	CHECK(block_count() == before);
}
