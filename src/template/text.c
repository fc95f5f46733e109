/* Memory that is counted and wiped, buffers with a limit, UTF-8. */
#include "tmpl.h"

#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

int tmpl_charge(struct tmpl *t, size_t n_bytes)
{
	t->steps += 1 + n_bytes / BYTES_PER_STEP;
	if (t->steps > TEMPLATE_STEPS_MAX)
		return sw_err_set(&t->err, SW_REJECTED, -E2BIG,
			"takes more than %d steps: make the template do less", TEMPLATE_STEPS_MAX);
	return 0;
}

/* --- memory ----------------------------------------------------------------------------------- */

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(max_align_t) char data[];
};

enum { CHUNK_FIRST = 2048, CHUNK_MAX = 65536 };

static void *counted(struct tmpl *t, size_t n)
{
	void *p;

	if (n > MEM_MAX - t->mem) {
		sw_err_set(&t->err, SW_REJECTED, -E2BIG,
			"needs more than %d bytes of memory: make the template smaller", MEM_MAX);
		return NULL;
	}
	p = malloc(n);
	if (!p) {
		sw_err_set(&t->err, SW_TEMPORARY, -ENOMEM, "out of memory for %zu bytes", n);
		return NULL;
	}
	t->mem += n;
	return p;
}

void *tmpl_alloc(struct tmpl *t, size_t n)
{
	size_t align = _Alignof(max_align_t);
	struct chunk *c = t->chunks;

	n = (n + align - 1) & ~(align - 1); /* no caller comes near SIZE_MAX: all below MEM_MAX */
	if (!c || c->size - c->used < n) {
		size_t size = c ? c->size * 2 : CHUNK_FIRST;

		if (size > CHUNK_MAX)
			size = CHUNK_MAX;
		if (size < n)
			size = n;
		c = counted(t, sizeof(*c) + size);
		if (!c)
			return NULL;
		*c = (struct chunk){.next = t->chunks, .size = size};
		t->chunks = c;
	}
	c->used += n;
	return memset(c->data + c->used - n, 0, n);
}

void tmpl_wipe(struct tmpl *t)
{
	struct chunk *c = t->chunks;

	while (c) {
		struct chunk *next = c->next;

		sw_wipe(c->data, c->used);
		free(c);
		c = next;
	}
	t->chunks = NULL;
}

/* --- buffers ---------------------------------------------------------------------------------- */

/* Room for @n more, and for a NUL after them. */
static int buf_room(struct buf *b, size_t n)
{
	size_t cap = b->cap ? b->cap : 256;
	char *p;

	if (n > TEMPLATE_OUT_MAX - b->len)
		return sw_err_set(&b->t->err, SW_REJECTED, -E2BIG,
			"makes a text of more than %u bytes", TEMPLATE_OUT_MAX);
	if (b->len + n < b->cap)
		return 0;
	while (cap <= b->len + n)
		cap *= 2;
	p = counted(b->t, cap);
	if (!p)
		return tmpl_code(b->t);
	if (b->len)
		memcpy(p, b->p, b->len); /* not realloc: it may leave a copy behind */
	sw_wipe(b->p, b->len);
	free(b->p);
	b->t->mem -= b->cap;
	b->p = p;
	b->cap = cap;
	return 0;
}

int buf_add(struct buf *b, struct span s)
{
	int r = tmpl_charge(b->t, s.n);

	if (r == 0)
		r = buf_room(b, s.n);
	if (r == 0 && s.n) {
		memcpy(b->p + b->len, s.p, s.n);
		b->len += s.n;
	}
	return r;
}

int buf_byte(struct buf *b, char c)
{
	int r = buf_room(b, 1);

	if (r == 0)
		b->p[b->len++] = c;
	return r;
}

int buf_fill(struct buf *b, char c, size_t n)
{
	int r = tmpl_charge(b->t, n);

	if (r == 0)
		r = buf_room(b, n);
	if (r == 0 && n) {
		memset(b->p + b->len, c, n);
		b->len += n;
	}
	return r;
}

struct span buf_span(const struct buf *b)
{
	return b->p ? (struct span){b->p, b->len} : SPAN("");
}

int buf_take(struct buf *b, struct value *ret)
{
	char *p = tmpl_alloc(b->t, b->len + 1);
	int r = p ? 0 : tmpl_code(b->t);

	if (p) {
		if (b->len)
			memcpy(p, b->p, b->len);
		*ret = VAL_STR(((struct span){p, b->len}));
	}
	buf_done(b);
	return r;
}

void buf_done(struct buf *b)
{
	if (b->p) {
		sw_wipe(b->p, b->len);
		free(b->p);
		b->t->mem -= b->cap;
	}
	b->p = NULL;
	b->len = b->cap = 0;
}

/* --- text ------------------------------------------------------------------------------------- */

bool span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

int span_cmp(struct span a, struct span b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int r = n ? memcmp(a.p, b.p, n) : 0;

	return r ? r : (a.n > b.n) - (a.n < b.n);
}

struct span span_of(const char *s)
{
	return s ? (struct span){s, strlen(s)} : SPAN("");
}

bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

size_t utf8_get(const char *p, size_t n, uint32_t *rune)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char c = (unsigned char)p[0];
	size_t len = c < 0x80                ? 1
		     : c >= 0xc2 && c < 0xe0 ? 2
		     : c >= 0xe0 && c < 0xf0 ? 3
		     : c >= 0xf0 && c < 0xf5 ? 4
					     : 0;
	uint32_t r = len == 1 ? c : len ? c & (0x7fu >> len) : 0;

	*rune = 0xfffd;
	if (len == 0 || len > n)
		return 1;
	for (size_t i = 1; i < len; i++) {
		if (((unsigned char)p[i] & 0xc0) != 0x80)
			return 1;
		r = r << 6 | ((unsigned char)p[i] & 0x3f);
	}
	if (r < least[len] || r > 0x10ffff || (r >= 0xd800 && r < 0xe000))
		return 1;
	*rune = r;
	return len;
}

size_t utf8_put(char *out, uint32_t r)
{
	size_t n;

	if (r > 0x10ffff || (r >= 0xd800 && r < 0xe000))
		r = 0xfffd;
	if (r < 0x80) {
		out[0] = (char)r;
		return 1;
	}
	n = r < 0x800 ? 2 : r < 0x10000 ? 3 : 4;
	for (size_t i = n; --i > 0; r >>= 6)
		out[i] = (char)(0x80 | (r & 0x3f));
	out[0] = (char)((0xf00u >> n & 0xf0) | r);
	return n;
}

size_t utf8_count(struct span s)
{
	size_t n = 0;
	uint32_t r;

	for (size_t i = 0; i < s.n; n++)
		i += utf8_get(s.p + i, s.n - i, &r);
	return n;
}

/* What Go's %q and js escape: everything but letters, marks, numbers, punctuation, symbols and the
 * plain space. The rows are the other categories (Z*, Cc, Cf, Cs, Co) of Unicode. Code points that
 * Unicode has not assigned are printable here; for Go that depends on the version it was built
 * with. */
bool rune_is_print(uint32_t r)
{
	static const struct {
		uint32_t from, to;
	} not_print[] = {
		{0x0, 0x1f},
		{0x7f, 0xa0},
		{0xad, 0xad},
		{0x600, 0x605},
		{0x61c, 0x61c},
		{0x6dd, 0x6dd},
		{0x70f, 0x70f},
		{0x890, 0x891},
		{0x8e2, 0x8e2},
		{0x1680, 0x1680},
		{0x180e, 0x180e},
		{0x2000, 0x200f},
		{0x2028, 0x202f},
		{0x205f, 0x206f},
		{0x3000, 0x3000},
		{0xd800, 0xf8ff},
		{0xfeff, 0xfeff},
		{0xfff9, 0xfffb},
		{0xfffe, 0xffff},
		{0x110bd, 0x110bd},
		{0x110cd, 0x110cd},
		{0x13430, 0x13438},
		{0x1bca0, 0x1bca3},
		{0x1d173, 0x1d17a},
		{0xe0000, 0xe00ff},
		{0xf0000, UINT32_MAX},
	};

	for (size_t i = 0; i < SW_ARRAY_LEN(not_print); i++) {
		if (r < not_print[i].from)
			return true;
		if (r <= not_print[i].to)
			return false;
	}
	return true;
}
