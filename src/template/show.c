/* Tree -> text, for the <EXPR> of errors. Errors travel to the manager in a protobuf string, so
 * what is shown is valid UTF-8 without control characters. */
#include "tmpl.h"

#include <string.h>

struct shown {
	const struct tmpl *t;
	char *out;
	size_t size, len;
	bool full;
};

/* Up to the last whole character that leaves room for "...". */
static void put(struct shown *s, struct span text)
{
	for (size_t i = 0; i < text.n && !s->full;) {
		uint32_t r;
		size_t n = utf8_get(text.p + i, text.n - i, &r);
		bool plain = rune_is_print(r) && !(r == 0xfffd && n == 1);

		if (s->len + (plain ? n : 1) + 4 > s->size) {
			memcpy(s->out + s->len, "...", 4);
			s->len += 3;
			s->full = true;
			return;
		}
		if (plain)
			memcpy(s->out + s->len, text.p + i, n);
		else
			s->out[s->len] = r == '\n' || r == '\t' ? ' ' : '?';
		s->len += plain ? n : 1;
		s->out[s->len] = '\0';
		i += n;
	}
}

static void put_word(struct shown *s, struct span text)
{
	put(s, s->t->data->secret_text ? SPAN("...") : text);
}

/* ".A.B", "$x.A": of a secret text the names that everybody knows. */
static void put_path(struct shown *s, struct span path)
{
	size_t i = 0;

	while (i < path.n) {
		size_t n = 1;
		struct span name;

		while (i + n < path.n && path.p[i + n] != '.')
			n++;
		name = (struct span){path.p + i + 1, n - 1};
		put(s, (struct span){path.p + i, 1});
		if (name.n && path.p[i] == '.' && data_knows(name))
			put(s, name);
		else if (name.n)
			put_word(s, name);
		i += n;
	}
}

static void put_node(struct shown *s, const struct node *n, bool open);

static void put_list(struct shown *s, const struct node *n, struct span between, bool open)
{
	for (bool first = true; n && !s->full; n = n->next, first = false) {
		if (!first)
			put(s, between);
		put_node(s, n, open);
	}
}

/* @open: literals are arguments of a payload function, which names things, not contents */
static void put_node(struct shown *s, const struct node *n, bool open)
{
	struct span src = {s->t->text + n->src_pos, n->src_len};

	switch ((enum nkind)n->kind) {
	case N_DOT:
		put(s, SPAN("."));
		break;
	case N_NIL:
		put(s, SPAN("nil"));
		break;
	case N_BOOL:
		put(s, n->i ? SPAN("true") : SPAN("false"));
		break;
	case N_INT:
		put_word(s, src);
		break;
	case N_STR:
		put(s, !open && s->t->data->secret_text ? SPAN("\"...\"") : src);
		break;
	case N_FIELD:
	case N_VAR:
		put_path(s, n->s);
		break;
	case N_IDENT:
		put(s, span_of(n->fn->name));
		break;
	case N_CHAIN:
		put(s, n->a->kind == N_PIPE ? SPAN("(") : SPAN(""));
		put_node(s, n->a, false);
		put(s, n->a->kind == N_PIPE ? SPAN(")") : SPAN(""));
		put_path(s, n->s);
		break;
	case N_CMD:
		for (const struct node *arg = n->a; arg && !s->full; arg = arg->next) {
			if (arg != n->a)
				put(s, SPAN(" "));
			if (arg->kind == N_PIPE)
				put(s, SPAN("("));
			put_node(s, arg, n->a->kind == N_IDENT && n->a->fn->kind == FN_PAYLOAD);
			if (arg->kind == N_PIPE)
				put(s, SPAN(")"));
		}
		break;
	case N_PIPE:
		put_list(s, n->b, SPAN(", "), false);
		if (n->b)
			put(s, n->assign ? SPAN(" = ") : SPAN(" := "));
		put_list(s, n->a, SPAN(" | "), false);
		break;
	case N_TEMPLATE:
		put(s, SPAN("{{template \""));
		put_word(s, n->s);
		put(s, SPAN("\""));
		if (n->a) {
			put(s, SPAN(" "));
			put_node(s, n->a, false);
		}
		put(s, SPAN("}}"));
		break;
	case N_BREAK:
		put(s, SPAN("{{break}}"));
		break;
	case N_CONTINUE:
		put(s, SPAN("{{continue}}"));
		break;
	case N_TEXT:
	case N_ACTION:
	case N_IF:
	case N_WITH:
	case N_RANGE:
		put(s, SPAN("..."));
		break;
	}
}

void show_node(const struct tmpl *t, const struct node *n, char *out, size_t size)
{
	struct shown s = {.t = t, .out = out, .size = size};

	out[0] = '\0';
	put_node(&s, n, false);
}

const char *show_word(const struct tmpl *t, struct span text, char *out, size_t size)
{
	struct shown s = {.t = t, .out = out, .size = size};

	out[0] = '\0';
	put_word(&s, text);
	return out;
}

const char *show_bytes(struct span text, char *out, size_t size)
{
	struct shown s = {.out = out, .size = size};

	out[0] = '\0';
	put(&s, text);
	return out;
}
