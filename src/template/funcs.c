/* The functions a template can call. */
#include "tmpl.h"

#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

/* --- comparing -------------------------------------------------------------------------------- */

static bool is_number(const struct value *v)
{
	return v->kind == V_INT || v->kind == V_BYTE;
}

static int not_comparable(struct tmpl *t, const struct value *v)
{
	return tmpl_fail(t, "non-comparable type %s", value_type(t, v));
}

/* Maps and structs are of no kind, like nil: Go compares only what is of the same one. */
enum kind { KIND_NONE, KIND_BOOL, KIND_NUMBER, KIND_TEXT };

static enum kind basic_kind(const struct value *v)
{
	return is_number(v)        ? KIND_NUMBER
	       : v->kind == V_STR  ? KIND_TEXT
	       : v->kind == V_BOOL ? KIND_BOOL
				   : KIND_NONE;
}

static bool comparable(const struct value *v)
{
	return v->kind != V_MAP && !(v->kind == V_STRUCT && v->st == S_SERVICE);
}

static int compare_eq(struct tmpl *t, const struct value *a, const struct value *b, bool *ret)
{
	enum kind kind = basic_kind(a);

	*ret = false;
	if (kind != basic_kind(b)) {
		if (a->kind == V_NIL || b->kind == V_NIL)
			return 0;
		return tmpl_fail(t, "incompatible types for comparison");
	}
	switch (kind) {
	case KIND_BOOL:
		*ret = a->b == b->b;
		break;
	case KIND_NUMBER:
		*ret = a->i == b->i;
		break;
	case KIND_TEXT:
		*ret = span_eq(a->s, b->s);
		return tmpl_charge(t, a->s.n == b->s.n ? a->s.n : 0);
	case KIND_NONE:
		if (!comparable(b))
			return not_comparable(t, b);
		*ret = a->kind == b->kind && (a->kind == V_NIL || a->st == b->st);
		break;
	}
	return 0;
}

static int call_eq(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	bool equal = false;
	int r = 0;

	if (!comparable(&args[0]))
		return not_comparable(t, &args[0]);
	if (n < 2)
		return tmpl_fail(t, "missing argument for comparison");
	for (size_t i = 1; i < n && r == 0 && !equal; i++)
		r = compare_eq(t, &args[0], &args[i], &equal);
	*ret = VAL_BOOL(equal);
	return r;
}

static int call_ne(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	int r = call_eq(t, args, n, ret);

	ret->b = !ret->b;
	return r;
}

/* -1, 0, 1 in @ret */
static int compare_order(struct tmpl *t, const struct value *args, int *ret)
{
	const struct value *a = &args[0], *b = &args[1];
	enum kind kind = basic_kind(a), other = basic_kind(b);

	if (kind != other && kind != KIND_NONE && other != KIND_NONE)
		return tmpl_fail(t, "incompatible types for comparison");
	if (kind == KIND_NUMBER && other == KIND_NUMBER) {
		*ret = (a->i > b->i) - (a->i < b->i);
		return 0;
	}
	if (kind != KIND_TEXT || other != KIND_TEXT)
		return tmpl_fail(t, "invalid type for comparison");
	*ret = span_cmp(a->s, b->s);
	return tmpl_charge(t, a->s.n < b->s.n ? a->s.n : b->s.n);
}

static int call_lt(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	int order = 0, r = compare_order(t, args, &order);

	(void)n;
	*ret = VAL_BOOL(order < 0);
	return r;
}

static int call_le(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	int order = 0, r = compare_order(t, args, &order);

	(void)n;
	*ret = VAL_BOOL(order <= 0);
	return r;
}

static int call_gt(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	int order = 0, r = compare_order(t, args, &order);

	(void)n;
	*ret = VAL_BOOL(order > 0);
	return r;
}

static int call_ge(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	int order = 0, r = compare_order(t, args, &order);

	(void)n;
	*ret = VAL_BOOL(order >= 0);
	return r;
}

static int call_not(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	(void)n;
	*ret = VAL_BOOL(!value_truth(t, &args[0]));
	return 0;
}

/* --- looking into ----------------------------------------------------------------------------- */

static int call_len(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	int r = 0;

	(void)n;
	if (args[0].kind == V_STR) {
		*ret = VAL_INT((int64_t)args[0].s.n);
	} else if (args[0].kind == V_MAP) {
		r = data_labels(t);
		*ret = VAL_INT((int64_t)t->n_labels);
	} else {
		r = tmpl_fail(t, "len of type %s", value_type(t, &args[0]));
	}
	return r;
}

/* Of a text of @max bytes. */
static int place(struct tmpl *t, const struct value *v, size_t max, size_t *ret)
{
	if (v->kind == V_NIL)
		return tmpl_fail(t, "cannot index slice/array with nil");
	if (!is_number(v))
		return tmpl_fail(t, "cannot index slice/array with type %s", value_type(t, v));
	if (v->i < 0 || (uint64_t)v->i > max) {
		if (v->tainted)
			return tmpl_fail(t, "index out of range");
		return tmpl_fail(t, "index out of range: %lld", (long long)v->i);
	}
	*ret = (size_t)v->i;
	return 0;
}

static int index_map(struct tmpl *t, const struct value *key, struct value *ret)
{
	int r = data_labels(t);

	if (r < 0)
		return r;
	if (key->kind == V_NIL)
		return tmpl_fail(t, "value is nil; should be of type string");
	if (key->kind != V_STR)
		return tmpl_fail(t, "value has type %s; should be string", value_type(t, key));
	if (!data_label(t, key->s, ret))
		*ret = VAL_STR(SPAN("")); /* whatever missingkey says: that is for .field */
	return tmpl_charge(t, key->s.n);
}

static int call_index(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	struct value item = args[0];

	if (item.kind == V_NIL)
		return tmpl_fail(t, "index of untyped nil");
	for (size_t i = 1; i < n; i++) {
		struct value in = item;
		size_t at = 0;
		int r;

		if (in.kind == V_MAP) {
			r = index_map(t, &args[i], &item);
		} else if (in.kind == V_STR) {
			r = place(t, &args[i], in.s.n, &at);
			if (r == 0 && at == in.s.n)
				r = tmpl_fail(t, "string index out of range");
			if (r == 0)
				item = (struct value){
					.kind = V_BYTE, .i = (unsigned char)in.s.p[at]};
		} else {
			r = tmpl_fail(t, "can't index item of type %s", value_type(t, &in));
		}
		if (r < 0)
			return r;
	}
	*ret = item;
	return 0;
}

static int call_slice(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	size_t at[2];
	int r;

	if (args[0].kind == V_NIL)
		return tmpl_fail(t, "slice of untyped nil");
	if (n > 4)
		return tmpl_fail(t, "too many slice indexes: %zu", n - 1);
	if (args[0].kind != V_STR)
		return tmpl_fail(t, "can't slice item of type %s", value_type(t, &args[0]));
	if (n == 4)
		return tmpl_fail(t, "cannot 3-index slice a string");
	at[0] = 0;
	at[1] = args[0].s.n;
	for (size_t i = 1; i < n; i++) {
		r = place(t, &args[i], args[0].s.n, &at[i - 1]);
		if (r < 0)
			return r;
	}
	if (at[0] > at[1])
		return args[1].tainted || args[2].tainted
			       ? tmpl_fail(t, "invalid slice index")
			       : tmpl_fail(t, "invalid slice index: %zu > %zu", at[0], at[1]);
	*ret = VAL_STR(((struct span){args[0].s.p + at[0], at[1] - at[0]}));
	return 0;
}

/* --- making text ------------------------------------------------------------------------------ */

static int finish(struct buf *b, int r, struct value *ret)
{
	if (r == 0)
		return buf_take(b, ret);
	buf_done(b);
	return r;
}

static int call_print(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	struct buf b = {.t = t};

	return finish(&b, print_all(&b, args, n), ret);
}

static int call_println(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	struct buf b = {.t = t};

	return finish(&b, print_line(&b, args, n), ret);
}

static int call_printf(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	struct buf b = {.t = t};

	return finish(&b, print_format(&b, &args[0], args + 1, n - 1), ret);
}

static int call_join(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	struct buf b = {.t = t};
	int r = 0;

	if (n == 0)
		return tmpl_fail(t, "a separator is missing");
	for (size_t i = 1; i < n && r == 0; i++) {
		if (i > 1)
			r = buf_add(&b, args[0].s);
		if (r == 0)
			r = buf_add(&b, args[i].s);
	}
	return finish(&b, r, ret);
}

/* One text as it is, anything else as print would show it. */
static int escaped(struct tmpl *t, const struct value *args, size_t n,
	int (*escape)(struct buf *b, struct span s), struct value *ret)
{
	struct buf plain = {.t = t}, b = {.t = t};
	int r = 0;

	if (n == 1 && args[0].kind == V_STR) {
		r = escape(&b, args[0].s);
		return finish(&b, r, ret);
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		/* to these functions nothing is the text "<no value>", which wants no spaces */
		bool text = args[i].kind == V_STR || args[i].kind == V_NIL;
		bool text_before = i && (args[i - 1].kind == V_STR || args[i - 1].kind == V_NIL);

		if (i && !text && !text_before)
			r = buf_byte(&plain, ' ');
		if (r == 0)
			r = print_value(&plain, &args[i]);
	}
	if (r == 0)
		r = escape(&b, buf_span(&plain));
	buf_done(&plain);
	return finish(&b, r, ret);
}

static int call_html(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	return escaped(t, args, n, escape_html, ret);
}

static int call_js(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	return escaped(t, args, n, escape_js, ret);
}

static int call_urlquery(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	return escaped(t, args, n, escape_query, ret);
}

/* --- payloads --------------------------------------------------------------------------------- */

static int unknown(struct tmpl *t, enum template_fn fn, const struct value *name)
{
	const char *what = fn == TEMPLATE_SECRET ? "secret" : "config";
	char text[256];

	if (name->tainted)
		return tmpl_fail(t, "%s target not found (its name comes from a payload)", what);
	return tmpl_fail(
		t, "%s target %s not found", what, show_bytes(name->s, text, sizeof(text)));
}

static int payload(struct tmpl *t, enum template_fn fn, const struct value *name, struct value *ret)
{
	const struct template_data *d = t->data;
	struct sw_err err = SW_ERR_NONE;
	struct span value = SPAN("");
	char *c_name;
	int r = -ENOENT;

	if (fn == TEMPLATE_SECRET && d->sensitive)
		*d->sensitive = true;
	if (!name->s.n || !memchr(name->s.p, '\0', name->s.n)) {
		c_name = tmpl_alloc(t, name->s.n + 1);
		if (!c_name)
			return tmpl_code(t);
		if (name->s.n)
			memcpy(c_name, name->s.p, name->s.n);
		r = d->lookup(d->lookup_arg, fn, c_name, &value.p, &value.n, &err);
	}
	if (r == -ENOENT && fn != TEMPLATE_ENV)
		return unknown(t, fn, name);
	if (r < 0 && r != -ENOENT) {
		t->err = err;
		if (t->err.cls == SW_OK)
			sw_err_set(&t->err, SW_TEMPORARY, r, "%s", strerror(-r));
		return r;
	}
	*ret = VAL_STR(r == 0 && value.p ? value : SPAN(""));
	ret->tainted = true;
	return tmpl_charge(t, name->s.n);
}

static int call_secret(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	(void)n;
	return payload(t, TEMPLATE_SECRET, &args[0], ret);
}

static int call_config(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	(void)n;
	return payload(t, TEMPLATE_CONFIG, &args[0], ret);
}

static int call_env(struct tmpl *t, const struct value *args, size_t n, struct value *ret)
{
	(void)n;
	return payload(t, TEMPLATE_ENV, &args[0], ret);
}

const struct fn *fn_find(struct span name)
{
	static const struct fn fns[] = {
		/* name, kind, min, max, leading texts, function */
		{"and", FN_AND, 1, -1, 0, NULL},
		{"or", FN_OR, 1, -1, 0, NULL},
		{"not", FN_PLAIN, 1, 1, 0, call_not},
		{"eq", FN_PLAIN, 1, -1, 0, call_eq},
		{"ne", FN_PLAIN, 2, 2, 0, call_ne},
		{"lt", FN_PLAIN, 2, 2, 0, call_lt},
		{"le", FN_PLAIN, 2, 2, 0, call_le},
		{"gt", FN_PLAIN, 2, 2, 0, call_gt},
		{"ge", FN_PLAIN, 2, 2, 0, call_ge},
		{"len", FN_PLAIN, 1, 1, 0, call_len},
		{"index", FN_PLAIN, 1, -1, 0, call_index},
		{"slice", FN_PLAIN, 1, -1, 0, call_slice},
		{"print", FN_PLAIN, 0, -1, 0, call_print},
		{"printf", FN_PLAIN, 1, -1, 1, call_printf},
		{"println", FN_PLAIN, 0, -1, 0, call_println},
		{"html", FN_PLAIN, 0, -1, 0, call_html},
		{"js", FN_PLAIN, 0, -1, 0, call_js},
		{"urlquery", FN_PLAIN, 0, -1, 0, call_urlquery},
		{"join", FN_PLAIN, 0, -1, -1, call_join},
		{"secret", FN_PAYLOAD, 1, 1, 1, call_secret},
		{"config", FN_PAYLOAD, 1, 1, 1, call_config},
		{"env", FN_PAYLOAD, 1, 1, 1, call_env},
		{"call", FN_REFUSED, 0, -1, 0, NULL},
	};

	for (size_t i = 0; i < SW_ARRAY_LEN(fns); i++) {
		if (span_eq(name, span_of(fns[i].name)))
			return &fns[i];
	}
	return NULL;
}
