/* parse.h - between parse.c (blocks, and what both need) and pipe.c (what is inside of {{ }}).
 * Every parse_x() that fails leaves the message in tmpl.err and the place in tmpl.fail_pos. */
#pragma once
#include "tmpl.h"

struct parser {
	struct tmpl *t;
	struct lexer lex;
	struct token tok, ahead; /* the next one; the one after it if has_ahead */
	bool has_ahead;
	unsigned depth, ranges; /* how many {{range}} a {{break}} could leave */
	struct span vars[VARS_MAX];
	size_t vars_from, n_vars, n_parts;
};

/* parse.c */
void parse_advance(struct parser *p);
const struct token *parse_ahead(struct parser *p);
/* The message is set. */
int parse_fail_at(struct parser *p, size_t pos);
#define parse_fail(p, ...) ((void)tmpl_fail((p)->t, __VA_ARGS__), parse_fail_at(p, (p)->tok.pos))
/* The token that stands where @context expected another one. */
int parse_unexpected(struct parser *p, const char *context);
struct node *parse_node_new(struct parser *p, enum nkind kind, size_t pos);
/* One level more; undone by p->depth--, on failure too. */
int parse_deeper(struct parser *p);
bool parse_var_known(const struct parser *p, struct span name);
int parse_var_declare(struct parser *p, struct span name);

/* pipe.c: up to and with the @end token */
int parse_pipe(struct parser *p, const char *context, enum tok end, struct node **ret);
