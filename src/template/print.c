/* print, println, printf. What Go writes into the text for a verb that does not fit its value
 * ("%!d(string=hi)") is written here too; a verb or flag outside of the subset is an error. */
#include "tmpl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

enum { WIDTH_MAX = 1000000 }; /* Go's */

struct verb {
	char c; /* s q v d x */
	bool minus, zero;
	size_t width;
};

/* @n_chars: of @s as people count */
static int pad(struct buf *b, const struct verb *f, struct span s, size_t n_chars)
{
	size_t n = f->width > n_chars ? f->width - n_chars : 0;
	int r = 0;

	if (n && !f->minus)
		r = buf_fill(b, f->zero ? '0' : ' ', n);
	if (r == 0)
		r = buf_add(b, s);
	if (r == 0 && n && f->minus)
		r = buf_fill(b, ' ', n);
	return r;
}

static int pad_text(struct buf *b, const struct verb *f, struct span s)
{
	return f->width ? pad(b, f, s, utf8_count(s)) : buf_add(b, s);
}

static int format_one(struct buf *b, const struct verb *f, const struct value *v, bool inner);

static int format_bad(struct buf *b, const struct verb *f, const struct value *v)
{
	struct verb plain = *f;
	char head[] = {'%', '!', f->c, '('};
	int r = buf_add(b, (struct span){head, sizeof(head)});

	plain.c = 'v';
	if (r == 0 && v->kind == V_NIL)
		r = buf_add(b, SPAN("<nil>"));
	else if (r == 0 && (r = buf_add(b, span_of(value_type(b->t, v)))) == 0 &&
		 (r = buf_byte(b, '=')) == 0)
		r = format_one(b, &plain, v, true);
	return r < 0 ? r : buf_byte(b, ')');
}

static int format_hex(struct buf *b, const struct verb *f, struct span s)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = f->width > 2 * s.n ? f->width - 2 * s.n : 0;
	int r = n && !f->minus ? buf_fill(b, f->zero ? '0' : ' ', n) : tmpl_charge(b->t, s.n);

	for (size_t i = 0; i < s.n && r == 0; i++) {
		r = buf_byte(b, hex[(unsigned char)s.p[i] >> 4]);
		if (r == 0)
			r = buf_byte(b, hex[s.p[i] & 15]);
	}
	if (r == 0 && n && f->minus)
		r = buf_fill(b, ' ', n);
	return r;
}

/* Quoted first: the width counts the quotes and escapes. */
static int format_quoted(struct buf *b, const struct verb *f, const struct value *v)
{
	struct buf q = {.t = b->t};
	uint32_t c = v->kind == V_STR || v->i < 0 || v->i > 0x10ffff ? 0xfffd : (uint32_t)v->i;
	int r = v->kind == V_STR ? escape_quote(&q, v->s) : escape_quote_rune(&q, c);

	if (r == 0)
		r = pad_text(b, f, buf_span(&q));
	buf_done(&q);
	return r;
}

static int format_int(struct buf *b, const struct verb *f, int64_t i)
{
	uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
	char digits[24];
	size_t n =
		(size_t)snprintf(digits, sizeof(digits), f->c == 'x' ? "%" PRIx64 : "%" PRIu64, u);
	struct verb rest = *f;
	int r = 0;

	if (i < 0 && f->zero && !f->minus) { /* the sign goes before the zeros */
		r = buf_byte(b, '-');
		rest.width -= rest.width > 0;
	} else if (i < 0) {
		memmove(digits + 1, digits, n++);
		digits[0] = '-';
	}
	return r < 0 ? r : pad(b, &rest, (struct span){digits, n}, n);
}

static int format_map(struct buf *b, const struct verb *f)
{
	struct tmpl *t = b->t;
	int r = data_labels(t);

	if (r == 0)
		r = buf_add(b, SPAN("map["));
	for (size_t i = 0; i < t->n_labels && r == 0; i++) {
		struct value key = VAL_STR(span_of(t->labels[i]->key));
		struct value val = VAL_STR(span_of(t->labels[i]->value));

		if (i)
			r = buf_byte(b, ' ');
		if (r == 0)
			r = format_one(b, f, &key, true);
		if (r == 0)
			r = buf_byte(b, ':');
		if (r == 0)
			r = format_one(b, f, &val, true);
	}
	return r < 0 ? r : buf_byte(b, ']');
}

static int format_struct(struct buf *b, const struct verb *f, enum vstruct st, bool inner)
{
	struct value v;
	int r;

	/* with payloads Go's value has more in it than the subset knows, pointers among it */
	if (st == S_ROOT && b->t->data->lookup)
		return tmpl_fail(b->t, "printing the top level (.) as a whole is not supported");
	/* a pointer in Go, which print shows and {{.}} does not */
	r = buf_add(b, st == S_ROOT && !inner ? SPAN("&{") : SPAN("{"));
	for (size_t i = 0; r == 0 && data_nth(b->t, st, i, &v); i++) {
		if (i)
			r = buf_byte(b, ' ');
		if (r == 0)
			r = format_one(b, f, &v, true);
	}
	return r < 0 ? r : buf_byte(b, '}');
}

static int format_one(struct buf *b, const struct verb *f, const struct value *v, bool inner)
{
	switch (v->kind) {
	case V_NIL:
		return f->c == 'v' ? pad_text(b, f, SPAN("<nil>")) : format_bad(b, f, v);
	case V_BOOL:
		if (f->c != 'v')
			return format_bad(b, f, v);
		return pad_text(b, f, v->b ? SPAN("true") : SPAN("false"));
	case V_INT:
	case V_BYTE:
		if (f->c == 's')
			return format_bad(b, f, v);
		return f->c == 'q' ? format_quoted(b, f, v) : format_int(b, f, v->i);
	case V_STR:
		if (f->c == 'd')
			return format_bad(b, f, v);
		return f->c == 'q'   ? format_quoted(b, f, v)
		       : f->c == 'x' ? format_hex(b, f, v->s)
				     : pad_text(b, f, v->s);
	case V_MAP:
		return format_map(b, f);
	case V_STRUCT:
		return format_struct(b, f, v->st, inner);
	}
	return -EINVAL;
}

static const struct verb plain_verb = {.c = 'v'};

/* What {{x}} puts into the output. */
int print_value(struct buf *b, const struct value *v)
{
	return v->kind == V_NIL ? buf_add(b, SPAN("<no value>"))
				: format_one(b, &plain_verb, v, true);
}

/* Spaces only between two that are not text. */
int print_all(struct buf *b, const struct value *v, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		if (i && v[i].kind != V_STR && v[i - 1].kind != V_STR)
			r = buf_byte(b, ' ');
		if (r == 0)
			r = format_one(b, &plain_verb, &v[i], false);
	}
	return r;
}

int print_line(struct buf *b, const struct value *v, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		if (i)
			r = buf_byte(b, ' ');
		if (r == 0)
			r = format_one(b, &plain_verb, &v[i], false);
	}
	return r < 0 ? r : buf_byte(b, '\n');
}

/* --- printf ----------------------------------------------------------------------------------- */

static int unsupported(struct buf *b, const struct value *format, struct span what)
{
	char word[16];

	if (format->tainted)
		return tmpl_fail(b->t, "a verb or flag in the format is not supported");
	return tmpl_fail(b->t,
		"%%%s is not supported (supported are %%s %%q %%v %%d %%x %%%% with flags - 0 and "
		"a width)",
		show_word(b->t, what, word, sizeof(word)));
}

/* Flags and width after a "%"; @i ends at the verb. */
static int parse_verb(struct buf *b, const struct value *format, size_t *i, struct verb *f)
{
	struct span s = format->s;

	*f = (struct verb){0};
	for (; *i < s.n && (s.p[*i] == '-' || s.p[*i] == '0'); (*i)++) {
		f->minus |= s.p[*i] == '-';
		f->zero |= s.p[*i] == '0';
	}
	for (; *i < s.n && s.p[*i] >= '0' && s.p[*i] <= '9'; (*i)++) {
		f->width = f->width * 10 + (size_t)(s.p[*i] - '0');
		if (f->width > WIDTH_MAX)
			return tmpl_fail(b->t, "width in the format is above %d", WIDTH_MAX);
	}
	if (f->minus)
		f->zero = false;
	return 0;
}

static int format_extra(struct buf *b, const struct value *v, size_t n)
{
	int r = buf_add(b, SPAN("%!(EXTRA "));

	for (size_t i = 0; i < n && r == 0; i++) {
		if (i)
			r = buf_add(b, SPAN(", "));
		if (r == 0 && v[i].kind != V_NIL) {
			r = buf_add(b, span_of(value_type(b->t, &v[i])));
			if (r == 0)
				r = buf_byte(b, '=');
		}
		if (r == 0)
			r = format_one(b, &plain_verb, &v[i], false);
	}
	return r < 0 ? r : buf_byte(b, ')');
}

/* One verb at @i; @next is the argument it may take. */
static int format_verb(struct buf *b, const struct value *format, size_t *i,
	const struct value **next, const struct value *end)
{
	struct span s = format->s;
	struct verb f;
	int r = parse_verb(b, format, i, &f);
	uint32_t c;
	size_t n;

	if (r < 0)
		return r;
	if (*i >= s.n)
		return buf_add(b, SPAN("%!(NOVERB)"));
	n = utf8_get(s.p + *i, s.n - *i, &c);
	if (c == '%') {
		(*i)++;
		return buf_byte(b, '%');
	}
	if (c == 0 || c >= 0x80 || !strchr("sqvdx", (int)c))
		return unsupported(b, format, (struct span){s.p + *i, n});
	(*i)++;
	f.c = (char)c;
	if (*next == end) {
		char text[] = "%!v(MISSING)";

		text[2] = f.c;
		return buf_add(b, (struct span){text, sizeof(text) - 1});
	}
	return format_one(b, &f, (*next)++, false);
}

int print_format(struct buf *b, const struct value *format, const struct value *v, size_t n)
{
	const struct value *end = v + n;
	struct span s = format->s;
	size_t i = 0;
	int r = 0;

	while (i < s.n && r == 0) {
		const char *percent = memchr(s.p + i, '%', s.n - i);
		size_t text = percent ? (size_t)(percent - (s.p + i)) : s.n - i;

		r = buf_add(b, (struct span){s.p + i, text});
		i += text + 1;
		if (r == 0 && percent)
			r = format_verb(b, format, &i, &v, end);
	}
	if (r == 0 && v < end)
		r = format_extra(b, v, (size_t)(end - v));
	return r;
}
