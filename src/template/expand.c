/* One expansion: parse, evaluate, say where it failed, wipe. */
#include "tmpl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

static size_t line_of(const struct tmpl *t, size_t pos, size_t *column)
{
	size_t line = 1, start = 0;

	for (size_t i = 0; i < pos && i < t->len; i++) {
		if (t->text[i] == '\n') {
			line++;
			start = i + 1;
		}
	}
	*column = pos - start;
	return line;
}

static void place_syntax(struct tmpl *t)
{
	size_t column;

	(void)sw_err_wrap(&t->err, "template: expansion:%zu", line_of(t, t->fail_pos, &column));
}

/* Columns count from 0, in bytes: as in Go. */
static void place_eval(struct tmpl *t)
{
	char expr[200], part[64];
	size_t column, line;

	if (!t->fail_at) {
		(void)sw_err_wrap(&t->err, "template: expansion");
		return;
	}
	line = line_of(t, t->fail_at->pos, &column);
	show_node(t, t->fail_at, expr, sizeof(expr));
	if (span_eq(t->part, SPAN("expansion")))
		show_bytes(t->part, part, sizeof(part));
	else
		show_word(t, t->part, part, sizeof(part));
	(void)sw_err_wrap(&t->err, "template: expansion:%zu:%zu: executing \"%s\" at <%s>", line,
		column, part, expr);
}

static int copy_plain(const char *text, size_t len, char **ret, size_t *ret_len, struct sw_err *err)
{
	char *p = malloc(len + 1);

	if (!p)
		return sw_err_set(err, SW_TEMPORARY, -ENOMEM, "out of memory for %zu bytes", len);
	if (len)
		memcpy(p, text, len);
	p[len] = '\0';
	*ret = p;
	*ret_len = len;
	return 0;
}

int template_expand(const char *text, size_t len, const struct template_data *d, char **ret,
	size_t *ret_len, struct sw_err *err)
{
	struct tmpl t = {.text = text, .len = len, .data = d};
	struct buf out = {.t = &t};
	int r;

	if (d->sensitive)
		*d->sensitive = false;
	if (len > TEMPLATE_TEXT_MAX)
		return sw_err_set(err, SW_REJECTED, -E2BIG, "template: %zu bytes, limit %u", len,
			TEMPLATE_TEXT_MAX);
	if (len == 0 || !memmem(text, len, "{{", 2))
		return copy_plain(text, len, ret, ret_len, err);
	r = tmpl_parse(&t);
	if (r < 0) {
		place_syntax(&t);
	} else {
		r = tmpl_eval(&t, &out);
		if (r < 0)
			place_eval(&t);
	}
	if (r >= 0 && !out.p) {
		r = copy_plain("", 0, ret, ret_len, &t.err);
	} else if (r >= 0) {
		out.p[out.len] = '\0';
		*ret_len = out.len;
		*ret = take(out.p);
	}
	if (r < 0) {
		if (err)
			sw_err_copy(err, &t.err);
		r = tmpl_code(&t);
	}
	buf_done(&out);
	tmpl_wipe(&t);
	return r;
}

int template_expand_str(
	const char *text, const struct template_data *d, char **ret, struct sw_err *err)
{
	char *s = NULL;
	size_t len = 0;
	int r = template_expand(text ? text : "", text ? strlen(text) : 0, d, &s, &len, err);

	if (r < 0 || !s)
		return r;
	if (strlen(s) != len) {
		sw_wipe(s, len);
		free(s);
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"template: the result has a NUL byte in it, which cannot be used here");
	}
	*ret = s;
	return 0;
}
