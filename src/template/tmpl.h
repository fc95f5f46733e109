/* tmpl.h - what the files of this room share.
 *
 *   expand.c   the door: one expansion from start to end
 *   lex.c      text -> tokens
 *   parse.c    tokens -> tree: blocks
 *   pipe.c     tokens -> tree: what is inside of {{ }}
 *   literal.c  what numbers and quoted texts say
 *   eval.c     tree -> output
 *   data.c     the values behind the dot
 *   funcs.c    the functions
 *   print.c    print, println, printf
 *   escape.c   html, js, urlquery, %q
 *   show.c     tree -> text, for errors
 *   text.c     memory, buffers, UTF-8
 *
 * Errors: a function that fails returns -errno and leaves a message in tmpl.err; expand.c puts the
 * place in front of it, once. So messages here say what, never where. */
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>
#include <swarm/template.h>

enum {
	MEM_MAX = 32 * 1024 * 1024, /* bytes held by one expansion */
	VARS_MAX = 256,             /* variables visible at one place */
	PARTS_MAX = 256,            /* {{define}} and {{block}} */
	LABELS_MAX = 65536,
	BYTES_PER_STEP = 64, /* moving bytes costs steps too */
};

struct span {
	const char *p;
	size_t n;
};

#define SPAN(literal) ((struct span){"" literal, sizeof(literal) - 1})

/* --- values ----------------------------------------------------------------------------------- */

enum vkind { V_NIL, V_BOOL, V_INT, V_BYTE, V_STR, V_MAP, V_STRUCT };
enum vstruct { S_ROOT, S_SERVICE, S_NODE, S_PLATFORM, S_TASK, N_STRUCTS };

struct value {
	enum vkind kind;
	bool tainted; /* derived from a payload: not to be shown in errors */
	union {
		bool b;
		int64_t i;
		struct span s;
		enum vstruct st;
	};
};

#define VAL_NIL       ((struct value){.kind = V_NIL})
#define VAL_BOOL(x)   ((struct value){.kind = V_BOOL, .b = (x)})
#define VAL_INT(x)    ((struct value){.kind = V_INT, .i = (x)})
#define VAL_STR(x)    ((struct value){.kind = V_STR, .s = (x)})
#define VAL_STRUCT(x) ((struct value){.kind = V_STRUCT, .st = (x)})

/* --- the tree --------------------------------------------------------------------------------- */

enum nkind {
	/* what a list is made of */
	N_TEXT,     /* s */
	N_ACTION,   /* a: pipe */
	N_IF,       /* a: pipe, b: list, c: else list (another N_IF alone where chain is set) */
	N_WITH,     /* as N_IF */
	N_RANGE,    /* as N_IF */
	N_TEMPLATE, /* s: name, a: pipe or NULL */
	N_BREAK,
	N_CONTINUE,
	/* what an action is made of */
	N_PIPE, /* a: commands, b: declared variables, assign: of "=" */
	N_CMD,  /* a: arguments */
	N_DOT,
	N_NIL,
	N_BOOL,  /* i */
	N_INT,   /* i */
	N_STR,   /* s */
	N_FIELD, /* s: ".A.B" */
	N_VAR,   /* s: "$x.A.B" */
	N_IDENT, /* fn */
	N_CHAIN, /* a: node, s: ".A.B" */
};

struct node {
	uint8_t kind;
	bool chain, assign;
	uint32_t pos;     /* what errors point at */
	uint32_t src_len; /* of the source of a literal at src_pos */
	uint32_t src_pos;
	struct node *next;
	struct span s;
	union {
		struct {
			struct node *a, *b, *c;
		};
		int64_t i;
		const struct fn *fn;
	};
};

/* {{define}} and {{block}}; the whole text is the one named "expansion". */
struct part {
	struct part *next;
	struct span name;
	struct node *list;
};

/* --- one expansion ---------------------------------------------------------------------------- */

struct tmpl {
	const char *text;
	size_t len;
	const struct template_data *data;
	struct sw_err err;

	struct chunk *chunks; /* all small memory, wiped and freed at the end */
	size_t mem, steps;
	struct part *parts;
	const struct template_label **labels; /* sorted; once asked for */
	size_t n_labels;

	size_t fail_pos;            /* of a syntax error */
	const struct node *fail_at; /* what is being evaluated */
	struct span part;           /* in which part */
};

/* text.c */
#define tmpl_fail(t, ...) ((void)sw_err_set(&(t)->err, SW_REJECTED, -EINVAL, __VA_ARGS__), -EINVAL)
/* The negative code of the error that is set. */
static inline int tmpl_code(const struct tmpl *t)
{
	return t->err.code < 0 ? t->err.code : -EIO;
}
/* -E2BIG when the expansion has used up its steps. */
int tmpl_charge(struct tmpl *t, size_t n_bytes);
/* Zeroed, of @t until its end. NULL with the error set. */
void *tmpl_alloc(struct tmpl *t, size_t n);
void tmpl_wipe(struct tmpl *t);
bool span_eq(struct span a, struct span b);
int span_cmp(struct span a, struct span b);
struct span span_of(const char *s);
bool is_blank(char c);
/* Bytes of the character at @p (@n > 0); 1 with U+FFFD where there is none. */
size_t utf8_get(const char *p, size_t n, uint32_t *rune);
size_t utf8_put(char *out, uint32_t rune); /* @out: 4 bytes */
size_t utf8_count(struct span s);
bool rune_is_print(uint32_t r);

/* Grows up to TEMPLATE_OUT_MAX; what it leaves behind is wiped. */
struct buf {
	struct tmpl *t;
	char *p;
	size_t len, cap;
};
int buf_add(struct buf *b, struct span s);
int buf_byte(struct buf *b, char c);
int buf_fill(struct buf *b, char c, size_t n);
struct span buf_span(const struct buf *b);
/* Turns what was built into a value; @b is done after it, as after buf_done(). */
int buf_take(struct buf *b, struct value *ret);
void buf_done(struct buf *b);

/* lex.c */
enum tok {
	T_EOF,
	T_ERROR, /* message in lexer.msg */
	T_TEXT,
	T_LDELIM,
	T_RDELIM,
	T_DOT,
	T_FIELD,
	T_VAR,
	T_IDENT,
	T_STR,
	T_RAW,
	T_CHAR,
	T_NUM,
	T_BOOL,
	T_NIL,
	T_PIPE,
	T_DECLARE,
	T_ASSIGN,
	T_LPAREN,
	T_RPAREN,
	T_PUNCT,
	T_IF,
	T_ELSE,
	T_END,
	T_RANGE,
	T_WITH,
	T_DEFINE,
	T_TEMPLATE,
	T_BLOCK,
	T_BREAK,
	T_CONTINUE,
};

struct token {
	enum tok kind;
	bool space; /* white space before it */
	size_t pos;
	struct span s;
};

struct lexer {
	const struct tmpl *t;
	size_t pos, action;
	unsigned parens;
	bool inside, trim;
	char msg[160];
};

void lex_next(struct lexer *l, struct token *tok);

/* parse.c, with parse.h between it and pipe.c */
int tmpl_parse(struct tmpl *t);
bool part_find(const struct tmpl *t, struct span name, struct part **ret);

/* show.c: cut with "..." where it does not fit, and valid UTF-8 without control characters */
void show_node(const struct tmpl *t, const struct node *n, char *out, size_t size);
/* A word of the template's text: "..." when that is a secret. Returns @out. */
const char *show_word(const struct tmpl *t, struct span s, char *out, size_t size);
const char *show_bytes(struct span s, char *out, size_t size);

/* eval.c */
int tmpl_eval(struct tmpl *t, struct buf *out);

/* data.c */
int data_field(struct tmpl *t, const struct value *of, struct span name, struct value *ret);
bool data_knows(struct span name);
/* The @i-th field, false after the last. */
bool data_nth(const struct tmpl *t, enum vstruct st, size_t i, struct value *ret);
int data_labels(struct tmpl *t);
bool data_label(const struct tmpl *t, struct span key, struct value *ret);
const char *value_type(const struct tmpl *t, const struct value *v);
bool value_truth(struct tmpl *t, const struct value *v);

/* funcs.c */
typedef int fn_call(struct tmpl *t, const struct value *args, size_t n, struct value *ret);

enum fn_kind { FN_PLAIN, FN_AND, FN_OR, FN_PAYLOAD, FN_REFUSED };
struct fn {
	const char *name;
	enum fn_kind kind;
	unsigned min;
	int max;       /* -1: any number */
	int n_strings; /* leading arguments that must be text; -1: all */
	fn_call *call;
};
const struct fn *fn_find(struct span name);

/* print.c */
int print_value(struct buf *b, const struct value *v);
int print_all(struct buf *b, const struct value *v, size_t n);
int print_line(struct buf *b, const struct value *v, size_t n);
int print_format(struct buf *b, const struct value *format, const struct value *v, size_t n);

/* escape.c */
int escape_html(struct buf *b, struct span s);
int escape_js(struct buf *b, struct span s);
int escape_query(struct buf *b, struct span s);
int escape_quote(struct buf *b, struct span s);
int escape_quote_rune(struct buf *b, uint32_t r);

/* literal.c */
enum number { NUM_OK, NUM_BAD, NUM_TOO_BIG };
enum number read_int(struct span s, int64_t *ret);
/* What a literal in quotes or backquotes says; false: it is not one. Goes to memory of @t. */
int unquote(struct tmpl *t, struct span s, struct span *ret);
/* What stands between the quotes of a character literal. */
bool unquote_char(struct span s, uint32_t *ret);
