/* Text -> tokens. Outside of {{ }} there is one token per stretch of text, with the white space
 * that trim markers take already gone; inside, white space is no token but a mark on the one after
 * it. */
#include "tmpl.h"

#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

static size_t left(const struct lexer *l)
{
	return l->t->len - l->pos;
}

/* The byte @i after the next one; NUL past the end, which no rule below mistakes for its own. */
static char peek(const struct lexer *l, size_t i)
{
	return i < left(l) ? l->t->text[l->pos + i] : '\0';
}

static bool starts(const struct lexer *l, const char *s)
{
	size_t n = strlen(s);

	return left(l) >= n && memcmp(l->t->text + l->pos, s, n) == 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* "}}" or " -}}" comes next. */
static bool at_right(const struct lexer *l, bool *trim)
{
	*trim = is_blank(peek(l, 0)) && peek(l, 1) == '-' && peek(l, 2) == '}' && peek(l, 3) == '}';
	return *trim || starts(l, "}}");
}

static void emit(struct lexer *l, struct token *tok, enum tok kind, size_t n)
{
	tok->kind = kind;
	tok->pos = l->pos;
	tok->s = (struct span){l->t->text + l->pos, n};
	l->pos += n;
}

static void error_here(const struct lexer *l, struct token *tok)
{
	tok->kind = T_ERROR;
	tok->pos = l->pos;
}
#define error(l, tok, ...)                                                                         \
	((void)snprintf((l)->msg, sizeof((l)->msg), __VA_ARGS__), error_here(l, tok))

/* --- outside ---------------------------------------------------------------------------------- */

/* At "{{" with "/" and "*" after it. False with the error set. */
static bool skip_comment(struct lexer *l, struct token *tok)
{
	const char *end = memmem(l->t->text + l->pos, left(l), "*/", 2);

	if (!end) {
		error(l, tok, "unclosed comment");
		return false;
	}
	l->pos = (size_t)(end - l->t->text) + 2;
	if (!at_right(l, &l->trim)) {
		error(l, tok, "comment ends before closing delimiter");
		return false;
	}
	l->pos += l->trim ? 4 : 2;
	return true;
}

static void lex_outside(struct lexer *l, struct token *tok)
{
	for (;;) {
		const char *open;
		size_t end, cut;
		bool trim;

		while (l->trim && left(l) && is_blank(peek(l, 0)))
			l->pos++;
		l->trim = false;
		open = left(l) ? memmem(l->t->text + l->pos, left(l), "{{", 2) : NULL;
		end = open ? (size_t)(open - l->t->text) : l->t->len;
		cut = end;
		trim = end + 3 < l->t->len && l->t->text[end + 2] == '-' &&
		       is_blank(l->t->text[end + 3]);
		while (trim && cut > l->pos && is_blank(l->t->text[cut - 1]))
			cut--;
		if (cut > l->pos) {
			emit(l, tok, T_TEXT, cut - l->pos);
			l->pos = end;
			return;
		}
		l->pos = end;
		if (!open) {
			emit(l, tok, T_EOF, 0);
			return;
		}
		l->action = l->pos;
		if (peek(l, trim ? 4 : 2) != '/' || peek(l, trim ? 5 : 3) != '*') {
			emit(l, tok, T_LDELIM, trim ? 4 : 2);
			l->inside = true;
			l->parens = 0;
			return;
		}
		l->pos += trim ? 6 : 4;
		if (!skip_comment(l, tok))
			return;
	}
}

/* --- inside ----------------------------------------------------------------------------------- */

/* Letters and digits end here, or the name goes on with something that is not of one. */
static bool at_end_of_word(struct lexer *l, struct token *tok)
{
	char word[16];
	uint32_t r;
	size_t n;

	if (!left(l) || is_blank(peek(l, 0)) || strchr(".,|:()}", peek(l, 0)))
		return true;
	n = utf8_get(l->t->text + l->pos, left(l), &r);
	if (r >= 0x80 && r != 0xfffd)
		error(l, tok,
			"names are of ASCII letters, digits and _ (for other keys there is index)");
	else if (l->t->data->secret_text)
		error(l, tok, "bad character");
	else
		error(l, tok, "bad character U+%04X '%s'", (unsigned)r,
			show_bytes((struct span){l->t->text + l->pos, n}, word, sizeof(word)));
	return false;
}

static enum tok keyword(struct span s)
{
	static const struct {
		const char *word;
		enum tok kind;
	} words[] = {
		{"true", T_BOOL},
		{"false", T_BOOL},
		{"nil", T_NIL},
		{"if", T_IF},
		{"else", T_ELSE},
		{"end", T_END},
		{"range", T_RANGE},
		{"with", T_WITH},
		{"define", T_DEFINE},
		{"template", T_TEMPLATE},
		{"block", T_BLOCK},
		{"break", T_BREAK},
		{"continue", T_CONTINUE},
	};

	for (size_t i = 0; i < SW_ARRAY_LEN(words); i++) {
		if (span_eq(s, span_of(words[i].word)))
			return words[i].kind;
	}
	return T_IDENT;
}

/* A name after @skip bytes that belong to it ("." or "$" or nothing). */
static void lex_word(struct lexer *l, struct token *tok, enum tok kind, size_t skip)
{
	size_t start = l->pos;

	l->pos += skip;
	while (is_word(peek(l, 0)))
		l->pos++;
	if (!at_end_of_word(l, tok))
		return;
	skip = l->pos - start;
	l->pos = start;
	emit(l, tok, kind, skip);
	if (kind == T_FIELD && skip == 1)
		tok->kind = T_DOT;
	else if (kind == T_IDENT)
		tok->kind = keyword(tok->s);
}

static void lex_quoted(struct lexer *l, struct token *tok, enum tok kind, const char *what)
{
	char quote = peek(l, 0);
	size_t i = 1;

	for (; i < left(l) && peek(l, i) != quote; i++) {
		if (kind == T_RAW)
			continue;
		if (peek(l, i) == '\\' && i + 1 < left(l))
			i++;
		if (peek(l, i) == '\n')
			break;
	}
	if (i >= left(l) || peek(l, i) != quote)
		error(l, tok, "unterminated %s", what);
	else
		emit(l, tok, kind, i + 1);
}

static bool take_one(const struct lexer *l, size_t *i, const char *set)
{
	char c = peek(l, *i);
	bool found = c && strchr(set, c);

	*i += found;
	return found;
}

/* As far as it looks like a number; what it is, if one, is the parser's to say. */
static size_t number_length(const struct lexer *l, size_t i)
{
	const char *digits = "0123456789_", *exponent = "eE";

	take_one(l, &i, "+-");
	if (take_one(l, &i, "0")) {
		if (take_one(l, &i, "xX")) {
			digits = "0123456789abcdefABCDEF_";
			exponent = "pP";
		} else if (take_one(l, &i, "oO")) {
			digits = "01234567_";
			exponent = "";
		} else if (take_one(l, &i, "bB")) {
			digits = "01_";
			exponent = "";
		}
	}
	while (take_one(l, &i, digits))
		continue;
	if (take_one(l, &i, ".")) {
		while (take_one(l, &i, digits))
			continue;
	}
	if (take_one(l, &i, exponent)) {
		take_one(l, &i, "+-");
		while (take_one(l, &i, "0123456789_"))
			continue;
	}
	take_one(l, &i, "i");
	return i;
}

static void lex_number(struct lexer *l, struct token *tok)
{
	size_t n = number_length(l, 0);
	char word[24];

	if (peek(l, n) == '+' || peek(l, n) == '-')
		n = number_length(l, n); /* 1+2i: complex, to be refused as a whole */
	if (is_word(peek(l, n)) || (peek(l, n) & 0x80)) {
		struct span s = {l->t->text + l->pos, n + 1};

		error(l, tok, "bad number syntax: \"%s\"", show_word(l->t, s, word, sizeof(word)));
	} else {
		emit(l, tok, T_NUM, n);
	}
}

static void lex_other(struct lexer *l, struct token *tok)
{
	char word[16];
	uint32_t r;
	size_t n = utf8_get(l->t->text + l->pos, left(l), &r);

	if (r >= 0x21 && r < 0x7f)
		emit(l, tok, T_PUNCT, 1);
	else if (r >= 0x80 && r != 0xfffd)
		error(l, tok,
			"names are of ASCII letters, digits and _ (for other keys there is index)");
	else if (l->t->data->secret_text)
		error(l, tok, "unrecognized character in action");
	else
		error(l, tok, "unrecognized character in action: U+%04X '%s'", (unsigned)r,
			show_bytes((struct span){l->t->text + l->pos, n}, word, sizeof(word)));
}

static void lex_inside(struct lexer *l, struct token *tok)
{
	bool trim = false;
	char c;

	while (!at_right(l, &trim) && is_blank(peek(l, 0))) {
		tok->space = true;
		l->pos++;
	}
	c = peek(l, 0);
	if (!left(l)) {
		error(l, tok, "unclosed action");
	} else if (trim || starts(l, "}}")) {
		if (l->parens) {
			error(l, tok, "unclosed left paren");
			return;
		}
		emit(l, tok, T_RDELIM, trim ? 4 : 2);
		l->inside = false;
		l->trim = trim;
	} else if (is_digit(c) || c == '+' || c == '-' || (c == '.' && is_digit(peek(l, 1)))) {
		lex_number(l, tok);
	} else if (is_word(c)) {
		lex_word(l, tok, T_IDENT, 0);
	} else if (c == '.') {
		lex_word(l, tok, T_FIELD, 1);
	} else if (c == '$') {
		lex_word(l, tok, T_VAR, 1);
	} else if (c == '"') {
		lex_quoted(l, tok, T_STR, "quoted string");
	} else if (c == '\'') {
		lex_quoted(l, tok, T_CHAR, "character constant");
	} else if (c == '`') {
		lex_quoted(l, tok, T_RAW, "raw quoted string");
	} else if (c == '|') {
		emit(l, tok, T_PIPE, 1);
	} else if (c == '=') {
		emit(l, tok, T_ASSIGN, 1);
	} else if (starts(l, ":=")) {
		emit(l, tok, T_DECLARE, 2);
	} else if (c == ':') {
		error(l, tok, "expected :=");
	} else if (c == '(') {
		emit(l, tok, T_LPAREN, 1);
		l->parens++;
	} else if (c == ')' && l->parens == 0) {
		error(l, tok, "unexpected right paren");
	} else if (c == ')') {
		emit(l, tok, T_RPAREN, 1);
		l->parens--;
	} else {
		lex_other(l, tok);
	}
}

void lex_next(struct lexer *l, struct token *tok)
{
	*tok = (struct token){.pos = l->pos};
	if (l->inside)
		lex_inside(l, tok);
	else
		lex_outside(l, tok);
}
