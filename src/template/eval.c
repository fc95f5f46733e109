/* Tree -> output. tmpl.fail_at follows what is being evaluated, so that a failure anywhere below
 * finds its place there; nobody touches it after a failure. */
#include "tmpl.h"

#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

struct var {
	struct span name;
	struct value v;
};

struct eval {
	struct tmpl *t;
	struct buf *out;
	unsigned depth;
	struct var vars[VARS_MAX];
	size_t vars_from, n_vars; /* those of the part that runs */
	struct value *args;       /* a stack: of all calls that run */
	size_t n_args, args_cap;
};

/* How a list ended; errors are negative. */
enum { WENT_ON, BROKE_OFF, CONTINUES };

static int deeper(struct eval *e)
{
	if (++e->depth > TEMPLATE_DEPTH_MAX)
		return sw_err_set(&e->t->err, SW_REJECTED, -E2BIG, "nests deeper than %d",
			TEMPLATE_DEPTH_MAX);
	return 0;
}

/* --- variables -------------------------------------------------------------------------------- */

/* NULL with the error set. */
static struct var *var_find(struct eval *e, struct span name)
{
	char word[128];

	for (size_t i = e->n_vars; i > e->vars_from; i--) {
		if (span_eq(e->vars[i - 1].name, name))
			return tmpl_charge(e->t, (e->n_vars - i) * 4) < 0 ? NULL : &e->vars[i - 1];
	}
	(void)tmpl_fail(e->t, "undefined variable: %s", show_word(e->t, name, word, sizeof(word)));
	return NULL;
}

static int var_set(struct eval *e, struct span name, const struct value *v)
{
	struct var *var = var_find(e, name);

	if (!var)
		return tmpl_code(e->t);
	var->v = *v;
	return 0;
}

/* @scope: where the innermost block's variables begin; a second declaration there replaces. */
static int var_push(struct eval *e, struct span name, const struct value *v, size_t scope)
{
	for (size_t i = scope; i < e->n_vars; i++) {
		if (span_eq(e->vars[i].name, name)) {
			e->vars[i].v = *v;
			return tmpl_charge(e->t, i - scope);
		}
	}
	if (e->n_vars == VARS_MAX)
		return tmpl_fail(e->t, "more than %d variables at one place", VARS_MAX);
	e->vars[e->n_vars++] = (struct var){name, *v};
	return 0;
}

/* --- terms ------------------------------------------------------------------------------------ */

static int eval_pipe(struct eval *e, const struct value *dot, const struct node *pipe, size_t scope,
	struct value *ret);

/* ".A.B" from @v on. */
static int eval_path(
	struct eval *e, const struct value *v, struct span path, bool has_args, struct value *ret)
{
	struct value at = *v;
	char word[128];

	for (size_t i = 0, n; i < path.n; i += n) {
		struct span name;
		struct value from = at;
		int r = tmpl_charge(e->t, 0);

		for (n = 1; i + n < path.n && path.p[i + n] != '.'; n++)
			continue;
		name = (struct span){path.p + i + 1, n - 1};
		if (r == 0)
			r = data_field(e->t, &from, name, &at);
		if (r < 0)
			return r;
		at.tainted |= from.tainted;
		if (has_args && i + n == path.n)
			return tmpl_fail(e->t, "%s has arguments but cannot be invoked as function",
				show_word(e->t, name, word, sizeof(word)));
	}
	*ret = at;
	return 0;
}

static int eval_var(
	struct eval *e, const struct node *n, bool has_args, bool *takes_args, struct value *ret)
{
	const char *dot = memchr(n->s.p, '.', n->s.n);
	size_t len = dot ? (size_t)(dot - n->s.p) : n->s.n;
	const struct var *var = var_find(e, (struct span){n->s.p, len});

	*takes_args = dot != NULL; /* eval_path() refuses them, with its own words */
	if (!var)
		return tmpl_code(e->t);
	return eval_path(e, &var->v, (struct span){n->s.p + len, n->s.n - len}, has_args, ret);
}

static int eval_call(struct eval *e, const struct value *dot, const struct node *cmd,
	const struct node *ident, const struct node *args, const struct value *final,
	struct value *ret);

/* A term in whatever place. @args and @final: what a function among them is given. */
static int eval_term(struct eval *e, const struct value *dot, const struct node *n,
	const struct node *cmd, const struct node *args, const struct value *final,
	struct value *ret)
{
	bool has_args = args || final, takes_args = false;
	char word[128];
	int r = tmpl_charge(e->t, 0);

	if (r < 0)
		return r;
	e->t->fail_at = n;
	switch ((enum nkind)n->kind) {
	case N_IDENT:
		return eval_call(e, dot, cmd, n, args, final, ret);
	case N_FIELD:
		return eval_path(e, dot, n->s, has_args, ret);
	case N_CHAIN: {
		struct value from;

		r = eval_term(e, dot, n->a, n->a, NULL, NULL, &from);
		if (r < 0)
			return r;
		e->t->fail_at = n;
		return eval_path(e, &from, n->s, has_args, ret);
	}
	case N_VAR:
		r = eval_var(e, n, has_args, &takes_args, ret);
		break;
	case N_PIPE:
		r = deeper(e);
		if (r == 0)
			r = eval_pipe(e, dot, n, e->n_vars, ret);
		e->depth--;
		break;
	case N_DOT:
		*ret = *dot;
		break;
	case N_NIL:
		*ret = VAL_NIL;
		break;
	case N_BOOL:
		*ret = VAL_BOOL(n->i != 0);
		break;
	case N_INT:
		*ret = VAL_INT(n->i);
		ret->tainted = e->t->data->secret_text;
		break;
	case N_STR:
		*ret = VAL_STR(n->s);
		ret->tainted = e->t->data->secret_text;
		break;
	default:
		return tmpl_fail(e->t, "not a value");
	}
	if (r == 0 && has_args && !takes_args) {
		show_node(e->t, n, word, sizeof(word));
		return tmpl_fail(e->t, "can't give argument to non-function %s", word);
	}
	return r;
}

/* --- calls ------------------------------------------------------------------------------------ */

static int push_arg(struct eval *e, const struct value *v)
{
	if (e->n_args == e->args_cap) {
		size_t cap = e->args_cap ? e->args_cap * 2 : 64;
		struct value *args = tmpl_alloc(e->t, cap * sizeof(*args));

		if (!args)
			return tmpl_code(e->t);
		if (e->n_args)
			memcpy(args, e->args, e->n_args * sizeof(*args));
		e->args = args;
		e->args_cap = cap;
	}
	e->args[e->n_args++] = *v;
	return 0;
}

/* @n: the source of the argument, NULL for the one from the pipeline. */
static int want_string(struct eval *e, const struct node *n, const struct value *v)
{
	char word[128];

	if (v->kind == V_STR)
		return 0;
	if (n && n->kind == N_NIL)
		return tmpl_fail(e->t, "cannot assign nil to string");
	if (n && (n->kind == N_INT || n->kind == N_BOOL)) {
		show_node(e->t, n, word, sizeof(word));
		return tmpl_fail(e->t, "expected string; found %s", word);
	}
	if (v->kind == V_NIL)
		return tmpl_fail(e->t, "invalid value; expected string");
	return tmpl_fail(
		e->t, "wrong type for value; expected string; got %s", value_type(e->t, v));
}

/* Stops at the argument that decides. */
static int eval_and_or(struct eval *e, const struct value *dot, bool is_or, const struct node *args,
	const struct value *final, struct value *ret)
{
	for (; args; args = args->next) {
		int r = eval_term(e, dot, args, args, NULL, NULL, ret);

		if (r < 0 || value_truth(e->t, ret) == is_or)
			return r;
	}
	if (final)
		*ret = *final;
	return 0;
}

static int count_args(struct eval *e, const struct fn *fn, const struct node *args, bool final)
{
	size_t n = final;

	for (; args; args = args->next)
		n++;
	if (fn->max >= 0 && (n < fn->min || n > (size_t)fn->max))
		return tmpl_fail(
			e->t, "wrong number of args for %s: want %d got %zu", fn->name, fn->max, n);
	if (n < fn->min)
		return tmpl_fail(e->t, "wrong number of args for %s: want at least %u got %zu",
			fn->name, fn->min, n);
	return tmpl_charge(e->t, n);
}

static int eval_args(struct eval *e, const struct value *dot, const struct fn *fn,
	const struct node *args, const struct value *final)
{
	int left = fn->n_strings, r = 0;
	struct value v = VAL_NIL;

	for (; args && r == 0; args = args->next) {
		r = eval_term(e, dot, args, args, NULL, NULL, &v);
		if (r == 0 && left && left-- != 0)
			r = want_string(e, args, &v);
		if (fn->kind == FN_PAYLOAD && args->kind == N_STR)
			v.tainted = false; /* names something, and is there for errors to name it */
		if (r == 0)
			r = push_arg(e, &v);
	}
	if (r == 0 && final) {
		if (left)
			r = want_string(e, NULL, final);
		if (r == 0)
			r = push_arg(e, final);
	}
	return r;
}

static int eval_call(struct eval *e, const struct value *dot, const struct node *cmd,
	const struct node *ident, const struct node *args, const struct value *final,
	struct value *ret)
{
	const struct fn *fn = ident->fn;
	size_t base = e->n_args, n;
	bool tainted = false;
	int r = count_args(e, fn, args, final);

	if (r < 0)
		return r;
	if (fn->kind == FN_AND || fn->kind == FN_OR)
		return eval_and_or(e, dot, fn->kind == FN_OR, args, final, ret);
	r = eval_args(e, dot, fn, args, final);
	if (r < 0)
		return r;
	e->t->fail_at = cmd;
	n = e->n_args - base;
	for (size_t i = base; i < e->n_args; i++)
		tainted |= e->args[i].tainted;
	r = fn->call(e->t, n ? e->args + base : NULL, n, ret);
	if (r < 0) {
		(void)sw_err_wrap(&e->t->err, "error calling %s", fn->name);
		return r;
	}
	ret->tainted |= tainted;
	e->n_args = base;
	return 0;
}

/* --- pipelines -------------------------------------------------------------------------------- */

static int eval_command(struct eval *e, const struct value *dot, const struct node *cmd,
	const struct value *final, struct value *ret)
{
	const struct node *first = cmd->a;

	e->t->fail_at = first;
	if (first->kind == N_NIL)
		return tmpl_fail(e->t, "nil is not a command");
	return eval_term(e, dot, first, cmd, first->next, final, ret);
}

/* @scope: of the variables it declares. */
static int eval_pipe(struct eval *e, const struct value *dot, const struct node *pipe, size_t scope,
	struct value *ret)
{
	struct value v = VAL_NIL, in;
	int r = 0;

	e->t->fail_at = pipe;
	for (const struct node *cmd = pipe->a; cmd && r == 0; cmd = cmd->next) {
		in = v;
		r = eval_command(e, dot, cmd, cmd == pipe->a ? NULL : &in, &v);
	}
	for (const struct node *d = pipe->b; d && r == 0; d = d->next)
		r = pipe->assign ? var_set(e, d->s, &v) : var_push(e, d->s, &v, scope);
	if (r == 0)
		*ret = v;
	return r;
}

/* --- lists ------------------------------------------------------------------------------------ */

static int eval_list(
	struct eval *e, const struct value *dot, const struct node *list, size_t scope);

/* {{if}} and {{with}}, with all of their chain. */
static int eval_choice(struct eval *e, const struct value *dot, const struct node *n)
{
	size_t scope = e->n_vars;
	int r = 0;

	for (;;) {
		struct value v;

		r = eval_pipe(e, dot, n->a, scope, &v);
		if (r < 0)
			break;
		if (value_truth(e->t, &v)) {
			r = eval_list(e, n->kind == N_WITH ? &v : dot, n->b, scope);
			break;
		}
		if (!n->chain) {
			r = eval_list(e, dot, n->c, scope);
			break;
		}
		n = n->c;
		r = tmpl_charge(e->t, 0);
		if (r < 0)
			break;
	}
	e->n_vars = scope;
	return r;
}

/* One round: the variables of the range, then its list. */
static int eval_round(
	struct eval *e, const struct node *n, const struct value *key, const struct value *elem)
{
	const struct node *last = n->a->b;
	size_t inner;
	int r = tmpl_charge(e->t, 0);

	if (r == 0 && last && last->next) {
		r = var_set(e, last->s, key);
		last = last->next;
	}
	if (r == 0 && last)
		r = var_set(e, last->s, elem);
	inner = e->n_vars;
	if (r == 0)
		r = eval_list(e, elem, n->b, inner);
	e->n_vars = inner;
	return r;
}

static int eval_range(struct eval *e, const struct value *dot, const struct node *n)
{
	size_t scope = e->n_vars;
	struct value v;
	int r = eval_pipe(e, dot, n->a, scope, &v);

	if (r == 0 && v.kind != V_MAP && v.kind != V_NIL)
		r = v.kind == V_INT || v.kind == V_BYTE
			    ? tmpl_fail(e->t, "range over integers is not supported")
			    : tmpl_fail(e->t, "range can't iterate over %s", value_type(e->t, &v));
	if (r == 0)
		r = data_labels(e->t);
	if (r == 0 && (v.kind == V_NIL || e->t->n_labels == 0)) {
		r = eval_list(e, dot, n->c, scope);
		e->n_vars = scope;
		return r;
	}
	for (size_t i = 0; r >= 0 && i < e->t->n_labels; i++) {
		struct value key = VAL_STR(span_of(e->t->labels[i]->key));
		struct value elem = VAL_STR(span_of(e->t->labels[i]->value));

		r = eval_round(e, n, &key, &elem);
		if (r == BROKE_OFF)
			break;
	}
	e->n_vars = scope;
	return r < 0 ? r : WENT_ON;
}

static int eval_template(struct eval *e, const struct value *dot, const struct node *n)
{
	size_t from = e->vars_from, n_vars = e->n_vars;
	struct span part = e->t->part;
	struct value inner = VAL_NIL;
	struct part *found;
	char word[128];
	int r = 0;

	e->t->fail_at = n;
	if (!part_find(e->t, n->s, &found))
		return tmpl_fail(e->t, "template \"%s\" not defined",
			show_word(e->t, n->s, word, sizeof(word)));
	if (n->a)
		r = eval_pipe(e, dot, n->a, e->n_vars, &inner);
	if (r < 0)
		return r;
	e->t->fail_at = n;
	e->vars_from = e->n_vars;
	r = var_push(e, SPAN("$"), &inner, e->n_vars);
	if (r < 0)
		return r;
	if (e->depth == TEMPLATE_DEPTH_MAX) /* said here, for the message's place */
		return tmpl_fail(e->t, "exceeded maximum template depth (%d)", TEMPLATE_DEPTH_MAX);
	e->t->part = found->name;
	r = eval_list(e, &inner, found->list, e->n_vars);
	if (r < 0)
		return r;
	e->t->part = part;
	e->vars_from = from;
	e->n_vars = n_vars;
	return 0;
}

static int eval_list(struct eval *e, const struct value *dot, const struct node *list, size_t scope)
{
	int r = list ? deeper(e) : 0;
	struct value v;

	if (!list)
		return WENT_ON;
	for (const struct node *n = list; n && r == 0; n = n->next) {
		e->t->fail_at = n;
		r = tmpl_charge(e->t, 0);
		if (r < 0)
			break;
		switch ((enum nkind)n->kind) {
		case N_TEXT:
			r = buf_add(e->out, n->s);
			break;
		case N_ACTION:
			r = eval_pipe(e, dot, n->a, scope, &v);
			if (r == 0 && !n->a->b)
				r = print_value(e->out, &v);
			break;
		case N_IF:
		case N_WITH:
			r = eval_choice(e, dot, n);
			break;
		case N_RANGE:
			r = eval_range(e, dot, n);
			break;
		case N_TEMPLATE:
			r = eval_template(e, dot, n);
			break;
		case N_BREAK:
			r = BROKE_OFF;
			break;
		case N_CONTINUE:
			r = CONTINUES;
			break;
		default:
			r = tmpl_fail(e->t, "not an action");
		}
	}
	e->depth--;
	return r;
}

int tmpl_eval(struct tmpl *t, struct buf *out)
{
	struct value root = VAL_STRUCT(S_ROOT);
	struct eval *e = tmpl_alloc(t, sizeof(*e));
	struct part *main;
	int r;

	if (!e)
		return tmpl_code(t);
	*e = (struct eval){.t = t, .out = out};
	t->part = SPAN("expansion");
	if (!part_find(t, t->part, &main))
		return -EINVAL;
	r = var_push(e, SPAN("$"), &root, 0);
	return r < 0 ? r : eval_list(e, &root, main->list, 0);
}
