/* What is inside of {{ }}: pipelines of commands, commands of terms, terms with fields. */
#include "parse.h"

#include <string.h>
#include <swarm/mem.h>

/* --- numbers ---------------------------------------------------------------------------------- */

static int parse_number(struct parser *p, struct node *n)
{
	struct span s = p->tok.s;
	char word[64];
	bool hex = memchr(s.p, 'x', s.n) || memchr(s.p, 'X', s.n);
	enum number is = read_int(s, &n->i);

	if (is == NUM_OK)
		return 0;
	show_word(p->t, s, word, sizeof(word));
	if (is == NUM_TOO_BIG)
		return parse_fail(p, "%s overflows int", word);
	if (s.p[s.n - 1] == 'i')
		return parse_fail(p, "complex numbers are not supported: %s", word);
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '.' || (!hex && (s.p[i] | 0x20) == 'e') ||
			(hex && (s.p[i] | 0x20) == 'p'))
			return parse_fail(p, "floating point numbers are not supported: %s", word);
	}
	return parse_fail(p, "illegal number syntax: \"%s\"", word);
}

/* --- terms ------------------------------------------------------------------------------------ */

static int parse_paren(struct parser *p, struct node **ret)
{
	int r = parse_deeper(p);

	parse_advance(p);
	if (r == 0)
		r = parse_pipe(p, "parenthesized pipeline", T_RPAREN, ret);
	p->depth--;
	return r;
}

static int parse_literal(struct parser *p, struct node *n)
{
	struct span s = p->tok.s;
	uint32_t c = 0;
	int r;

	n->src_pos = (uint32_t)p->tok.pos;
	n->src_len = (uint32_t)s.n;
	switch (p->tok.kind) {
	case T_BOOL:
		n->i = s.p[0] == 't';
		return 0;
	case T_NUM:
		return parse_number(p, n);
	case T_CHAR:
		if (!unquote_char((struct span){s.p + 1, s.n - 2}, &c))
			return parse_fail(p, "malformed character constant");
		n->i = c;
		return 0;
	default:
		r = unquote(p->t, s, &n->s);
		return r < 0 ? parse_fail_at(p, p->tok.pos) : 0;
	}
}

static int parse_ident(struct parser *p, struct node *n)
{
	const struct fn *fn = fn_find(p->tok.s);
	char word[128];

	show_word(p->t, p->tok.s, word, sizeof(word));
	if (!fn || (fn->kind == FN_PAYLOAD && !p->t->data->lookup))
		return parse_fail(p, "function \"%s\" not defined", word);
	if (fn->kind == FN_REFUSED)
		return parse_fail(p, "function \"%s\" is not supported", fn->name);
	n->fn = fn;
	return 0;
}

/* NULL in @ret and nothing taken: the next token starts no term. */
static int parse_term(struct parser *p, struct node **ret)
{
	static const uint8_t kinds[T_CONTINUE + 1] = {
		[T_DOT] = N_DOT,
		[T_NIL] = N_NIL,
		[T_BOOL] = N_BOOL,
		[T_NUM] = N_INT,
		[T_CHAR] = N_INT,
		[T_STR] = N_STR,
		[T_RAW] = N_STR,
		[T_FIELD] = N_FIELD,
		[T_VAR] = N_VAR,
		[T_IDENT] = N_IDENT,
	};
	enum nkind kind = kinds[p->tok.kind];
	struct node *n;
	char word[128];
	int r = 0;

	*ret = NULL;
	if (p->tok.kind == T_LPAREN)
		return parse_paren(p, ret);
	if (kind == N_TEXT)
		return 0;
	n = parse_node_new(p, kind, p->tok.pos);
	if (!n)
		return tmpl_code(p->t);
	n->s = p->tok.s;
	if (kind == N_IDENT)
		r = parse_ident(p, n);
	else if (kind == N_BOOL || kind == N_INT || kind == N_STR)
		r = parse_literal(p, n);
	else if (kind == N_VAR && !parse_var_known(p, n->s))
		r = parse_fail(
			p, "undefined variable \"%s\"", show_word(p->t, n->s, word, sizeof(word)));
	if (r < 0)
		return r;
	parse_advance(p);
	*ret = n;
	return 0;
}

/* A term with the fields that follow it without space. */
static int parse_operand(struct parser *p, struct node **ret)
{
	struct node *n;
	struct span path;
	size_t pos;
	int r = parse_term(p, ret);

	n = *ret;
	if (r < 0 || !n || p->tok.kind != T_FIELD || p->tok.space)
		return r;
	if (n->kind != N_FIELD && n->kind != N_VAR && n->kind != N_IDENT && n->kind != N_PIPE) {
		char word[64];

		show_node(p->t, n, word, sizeof(word));
		return parse_fail(p, "unexpected . after term %s", word);
	}
	path = p->tok.s;
	pos = p->tok.pos;
	for (parse_advance(p); p->tok.kind == T_FIELD && !p->tok.space; parse_advance(p))
		path.n += p->tok.s.n;
	if (n->kind == N_FIELD || n->kind == N_VAR) {
		n->s.n += path.n;
	} else {
		struct node *chain = parse_node_new(p, N_CHAIN, pos);

		if (!chain)
			return tmpl_code(p->t);
		chain->a = n;
		chain->s = path;
		*ret = n = chain;
	}
	n->pos = (uint32_t)pos; /* as in Go: where the second field is */
	return 0;
}

/* --- pipelines -------------------------------------------------------------------------------- */

static int parse_command(struct parser *p, struct node **ret)
{
	struct node *cmd = parse_node_new(p, N_CMD, p->tok.pos), **next;

	if (!cmd)
		return tmpl_code(p->t);
	for (next = &cmd->a;; next = &(*next)->next) {
		int r = parse_operand(p, next);

		if (r < 0)
			return r;
		if (p->tok.kind == T_RDELIM || p->tok.kind == T_RPAREN || p->tok.kind == T_PIPE)
			break;
		if (!*next || !p->tok.space)
			return parse_unexpected(p, "operand");
	}
	if (p->tok.kind == T_PIPE)
		parse_advance(p);
	*ret = cmd;
	return 0;
}

static int parse_declaration(struct parser *p, const char *context, struct node *pipe)
{
	struct node **next = &pipe->b;
	int n = 0;

	while (p->tok.kind == T_VAR) {
		enum tok after = parse_ahead(p)->kind;
		bool comma = after == T_PUNCT && p->ahead.s.p[0] == ',';
		int r;

		if (after != T_DECLARE && after != T_ASSIGN && !comma)
			return n == 0 ? 0 : parse_fail(p, "range can only initialize variables");
		*next = parse_node_new(p, N_VAR, p->tok.pos);
		if (!*next)
			return tmpl_code(p->t);
		(*next)->s = p->tok.s;
		next = &(*next)->next;
		r = parse_var_declare(p, p->tok.s);
		if (r < 0)
			return r;
		parse_advance(p);
		parse_advance(p);
		if (!comma) {
			pipe->assign = after == T_ASSIGN;
			return 0;
		}
		if (strcmp(context, "range") != 0 || ++n == 2)
			return parse_fail(p, "too many declarations in %s", context);
	}
	return n ? parse_fail(p, "range can only initialize variables") : 0;
}

static int check_pipe(struct parser *p, const struct node *pipe, const char *context)
{
	int stage = 2;

	if (!pipe->a)
		return parse_fail(p, "missing value for %s", context);
	for (const struct node *cmd = pipe->a->next; cmd; cmd = cmd->next, stage++) {
		enum nkind first = cmd->a->kind;

		if (first == N_BOOL || first == N_DOT || first == N_NIL || first == N_INT ||
			first == N_STR)
			return parse_fail(p, "non executable command in pipeline stage %d", stage);
	}
	return 0;
}

int parse_pipe(struct parser *p, const char *context, enum tok end, struct node **ret)
{
	struct node *pipe = parse_node_new(p, N_PIPE, p->tok.pos), **next;
	int r;

	if (!pipe)
		return tmpl_code(p->t);
	r = parse_declaration(p, context, pipe);
	next = &pipe->a;
	while (r == 0 && p->tok.kind != end) {
		switch (p->tok.kind) {
		case T_BOOL:
		case T_CHAR:
		case T_DOT:
		case T_FIELD:
		case T_IDENT:
		case T_NUM:
		case T_NIL:
		case T_RAW:
		case T_STR:
		case T_VAR:
		case T_LPAREN:
			r = parse_command(p, next);
			next = r == 0 ? &(*next)->next : NULL;
			break;
		default:
			return parse_unexpected(p, context);
		}
	}
	if (r == 0)
		r = check_pipe(p, pipe, context);
	if (r < 0)
		return r;
	parse_advance(p);
	*ret = pipe;
	return 0;
}
