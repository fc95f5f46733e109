/* Tokens -> tree. Blocks and parentheses nest through recursion, bounded by TEMPLATE_DEPTH_MAX; a
 * chain of {{else if}} does not nest, however long. */
#include "parse.h"

#include <errno.h>
#include <string.h>

void parse_advance(struct parser *p)
{
	if (p->has_ahead)
		p->tok = p->ahead;
	else
		lex_next(&p->lex, &p->tok);
	p->has_ahead = false;
}

const struct token *parse_ahead(struct parser *p)
{
	if (!p->has_ahead)
		lex_next(&p->lex, &p->ahead);
	p->has_ahead = true;
	return &p->ahead;
}

int parse_fail_at(struct parser *p, size_t pos)
{
	p->t->fail_pos = pos;
	return -EINVAL;
}

int parse_unexpected(struct parser *p, const char *context)
{
	char word[32];

	switch (p->tok.kind) {
	case T_ERROR:
		return parse_fail(p, "%s", p->lex.msg);
	case T_EOF:
		return parse_fail(p, "unexpected EOF");
	case T_STR:
	case T_RAW:
	case T_CHAR: /* have their own quotes */
		return parse_fail(p, "unexpected %s in %s",
			show_word(p->t, p->tok.s, word, sizeof(word)), context);
	case T_NUM:
	case T_IDENT:
	case T_FIELD:
	case T_VAR:
		return parse_fail(p, "unexpected \"%s\" in %s",
			show_word(p->t, p->tok.s, word, sizeof(word)), context);
	default:
		break;
	}
	show_bytes(p->tok.s, word, sizeof(word));
	if (p->tok.kind == T_DOT || p->tok.kind == T_NIL || p->tok.kind >= T_IF)
		return parse_fail(p, "unexpected <%s> in %s", word, context);
	return parse_fail(p, "unexpected \"%s\" in %s", word, context);
}

struct node *parse_node_new(struct parser *p, enum nkind kind, size_t pos)
{
	struct node *n = tmpl_alloc(p->t, sizeof(*n));

	if (n) {
		n->kind = (uint8_t)kind;
		n->pos = (uint32_t)pos;
	} else {
		p->t->fail_pos = pos;
	}
	return n;
}

int parse_deeper(struct parser *p)
{
	if (++p->depth > TEMPLATE_DEPTH_MAX)
		return parse_fail(p, "nests deeper than %d", TEMPLATE_DEPTH_MAX);
	return 0;
}

/* --- variables -------------------------------------------------------------------------------- */

bool parse_var_known(const struct parser *p, struct span name)
{
	for (size_t i = p->n_vars; i > p->vars_from; i--) {
		if (span_eq(p->vars[i - 1], name))
			return true;
	}
	return false;
}

/* Here a name is known or not; a second declaration in an inner block needs no second entry. */
int parse_var_declare(struct parser *p, struct span name)
{
	if (parse_var_known(p, name))
		return 0;
	if (p->n_vars == VARS_MAX)
		return parse_fail(p, "more than %d variables at one place", VARS_MAX);
	p->vars[p->n_vars++] = name;
	return 0;
}

/* --- lists ------------------------------------------------------------------------------------ */

static int parse_list(struct parser *p, struct node **first, enum tok *stop);

static int expect_right(struct parser *p, const char *context)
{
	if (p->tok.kind != T_RDELIM)
		return parse_unexpected(p, context);
	parse_advance(p);
	return 0;
}

/* Up to the {{end}} or {{else}} that the block needs. */
static int parse_body(struct parser *p, struct node **first, enum tok *stop)
{
	int r = parse_list(p, first, stop);

	return r == 0 && *stop == T_EOF ? parse_fail(p, "unexpected EOF") : r;
}

static const char *keyword_name(enum tok kw)
{
	return kw == T_IF ? "if" : kw == T_WITH ? "with" : "range";
}

/* After {{if PIPE}} LIST {{else. @n: the block so far; set to the next of a chain, NULL at its end.
 */
static int parse_else(struct parser *p, enum tok kw, struct node **n)
{
	struct node *block = *n;
	enum tok stop = T_EOF;
	int r;

	*n = NULL;
	if (p->tok.kind == kw && kw != T_RANGE) {
		*n = block->c = parse_node_new(p, block->kind, p->tok.pos);
		block->chain = true;
		parse_advance(p);
		return *n ? 0 : tmpl_code(p->t);
	}
	if (p->tok.kind == T_IF || p->tok.kind == T_WITH)
		return parse_fail(p, "unexpected {{else %s}} in %s", keyword_name(p->tok.kind),
			keyword_name(kw));
	r = expect_right(p, "else");
	if (r == 0)
		r = parse_body(p, &block->c, &stop);
	return r == 0 && stop == T_ELSE ? parse_fail(p, "expected end; found {{else}}") : r;
}

static int parse_control(struct parser *p, enum tok kw, struct node **ret)
{
	enum nkind kind = kw == T_IF ? N_IF : kw == T_WITH ? N_WITH : N_RANGE;
	struct node *n = *ret = parse_node_new(p, kind, p->tok.pos);
	size_t vars = p->n_vars;
	int r = n ? 0 : tmpl_code(p->t);

	parse_advance(p);
	while (r == 0 && n) {
		enum tok stop = T_END;

		r = parse_pipe(p, keyword_name(kw), T_RDELIM, &n->a);
		p->ranges += kw == T_RANGE;
		if (r == 0)
			r = parse_body(p, &n->b, &stop);
		p->ranges -= kw == T_RANGE;
		if (r == 0 && stop == T_ELSE)
			r = parse_else(p, kw, &n);
		else
			n = NULL;
	}
	p->n_vars = vars;
	return r;
}

static int parse_leave(struct parser *p, enum nkind kind, struct node **ret)
{
	const char *word = kind == N_BREAK ? "{{break}}" : "{{continue}}";

	*ret = parse_node_new(p, kind, p->tok.pos);
	if (!*ret)
		return tmpl_code(p->t);
	if (p->ranges == 0)
		return parse_fail(p, "%s outside {{range}}", word);
	parse_advance(p);
	return expect_right(p, word);
}

static int parse_name(struct parser *p, const char *context, struct span *ret)
{
	int r;

	if (p->tok.kind != T_STR && p->tok.kind != T_RAW)
		return parse_unexpected(p, context);
	r = unquote(p->t, p->tok.s, ret);
	if (r < 0)
		return parse_fail_at(p, p->tok.pos);
	parse_advance(p);
	return 0;
}

static int parse_template(struct parser *p, struct node **ret)
{
	struct node *n;
	int r;

	parse_advance(p);
	n = *ret = parse_node_new(p, N_TEMPLATE, p->tok.pos);
	r = n ? parse_name(p, "template clause", &n->s) : tmpl_code(p->t);
	if (r < 0)
		return r;
	if (p->tok.kind == T_RDELIM) {
		parse_advance(p);
		return 0;
	}
	return parse_pipe(p, "template clause", T_RDELIM, &n->a);
}

/* --- named parts ------------------------------------------------------------------------------ */

static bool is_empty(const struct node *list)
{
	for (; list; list = list->next) {
		if (list->kind != N_TEXT)
			return false;
		for (size_t i = 0; i < list->s.n; i++) {
			if (!is_blank(list->s.p[i]))
				return false;
		}
	}
	return true;
}

bool part_find(const struct tmpl *t, struct span name, struct part **ret)
{
	for (*ret = t->parts; *ret; *ret = (*ret)->next) {
		if (span_eq((*ret)->name, name))
			return true;
	}
	return false;
}

/* One without content gives way to another one of the same name. */
static int add_part(struct parser *p, struct span name, struct node *list)
{
	struct part *part;
	char word[128];

	if (part_find(p->t, name, &part)) {
		if (is_empty(part->list))
			part->list = list;
		else if (!is_empty(list))
			return parse_fail(p, "multiple definition of template \"%s\"",
				show_word(p->t, name, word, sizeof(word)));
		return 0;
	}
	if (p->n_parts++ == PARTS_MAX)
		return parse_fail(p, "more than %d named templates", PARTS_MAX);
	part = tmpl_alloc(p->t, sizeof(*part));
	if (!part)
		return parse_fail_at(p, p->tok.pos);
	*part = (struct part){.next = p->t->parts, .name = name, .list = list};
	p->t->parts = part;
	return 0;
}

/* A body that sees nothing of what is around it but $. */
static int parse_part(struct parser *p, struct span name, const char *context)
{
	size_t from = p->vars_from, n = p->n_vars;
	unsigned ranges = p->ranges;
	struct node *list = NULL;
	enum tok stop = T_EOF;
	int r;

	p->vars_from = p->n_vars;
	p->ranges = 0;
	r = parse_var_declare(p, SPAN("$"));
	if (r == 0)
		r = parse_body(p, &list, &stop);
	if (r == 0 && stop == T_ELSE)
		r = parse_fail(p, "unexpected {{else}} in %s", context);
	if (r == 0)
		r = add_part(p, name, list);
	p->vars_from = from;
	p->n_vars = n;
	p->ranges = ranges;
	return r;
}

static int parse_define(struct parser *p)
{
	struct span name;
	int r;

	parse_advance(p);
	r = parse_name(p, "define clause", &name);
	if (r == 0)
		r = expect_right(p, "define clause");
	return r == 0 ? parse_part(p, name, "define clause") : r;
}

static int parse_block(struct parser *p, struct node **ret)
{
	struct node *n;
	int r;

	parse_advance(p);
	n = *ret = parse_node_new(p, N_TEMPLATE, p->tok.pos);
	r = n ? parse_name(p, "block clause", &n->s) : tmpl_code(p->t);
	if (r == 0)
		r = parse_pipe(p, "block clause", T_RDELIM, &n->a);
	return r == 0 ? parse_part(p, n->s, "block clause") : r;
}

/* --- all of it -------------------------------------------------------------------------------- */

/* After "{{". NULL in @ret: nothing to evaluate here. @stop: {{end}} or {{else ends the list. */
static int parse_action(struct parser *p, struct node **ret, enum tok *stop)
{
	enum tok kw = p->tok.kind;

	switch (kw) {
	case T_IF:
	case T_WITH:
	case T_RANGE:
		return parse_control(p, kw, ret);
	case T_BREAK:
	case T_CONTINUE:
		return parse_leave(p, kw == T_BREAK ? N_BREAK : N_CONTINUE, ret);
	case T_TEMPLATE:
		return parse_template(p, ret);
	case T_BLOCK:
		return parse_block(p, ret);
	case T_DEFINE:
		if (p->depth > 1)
			return parse_fail(p, "unexpected {{define}} inside of another block");
		return parse_define(p);
	case T_END:
	case T_ELSE:
		*stop = kw;
		if (p->depth == 1)
			return parse_fail(p, "unexpected %s", kw == T_END ? "{{end}}" : "{{else}}");
		parse_advance(p);
		return kw == T_END ? expect_right(p, "end") : 0;
	default:
		*ret = parse_node_new(p, N_ACTION, p->tok.pos);
		if (!*ret)
			return tmpl_code(p->t);
		return parse_pipe(p, "command", T_RDELIM, &(*ret)->a);
	}
}

/* Up to what ended it, which is taken: {{end}}, "{{else" or T_EOF. */
static int parse_list(struct parser *p, struct node **first, enum tok *stop)
{
	int r = parse_deeper(p);

	*stop = T_EOF;
	while (r == 0 && *stop == T_EOF && p->tok.kind != T_EOF) {
		if (p->tok.kind == T_TEXT) {
			*first = parse_node_new(p, N_TEXT, p->tok.pos);
			if (!*first)
				return tmpl_code(p->t);
			(*first)->s = p->tok.s;
			parse_advance(p);
		} else if (p->tok.kind == T_LDELIM) {
			parse_advance(p);
			r = parse_action(p, first, stop);
		} else {
			r = parse_unexpected(p, "input");
		}
		if (*first)
			first = &(*first)->next;
	}
	p->depth--;
	return r;
}

int tmpl_parse(struct tmpl *t)
{
	struct parser *p = tmpl_alloc(t, sizeof(*p));
	struct node *list = NULL;
	enum tok stop = T_EOF;
	int r;

	if (!p)
		return tmpl_code(t);
	*p = (struct parser){.t = t, .lex.t = t};
	p->vars[p->n_vars++] = SPAN("$");
	parse_advance(p);
	r = parse_list(p, &list, &stop);
	return r == 0 ? add_part(p, SPAN("expansion"), list) : r;
}
