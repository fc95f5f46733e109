#include "generic.h"
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

#define KEY "generic-resources"

struct term {
	char *kind, *value;
	bool is_count;
	int64_t count;
};

static bool parse_count(const char *s, int64_t *ret)
{
	int64_t n = 0;

	if (!*s)
		return false;
	for (; *s; s++)
		if (!isdigit((unsigned char)*s) || __builtin_mul_overflow(n, 10, &n) ||
			__builtin_add_overflow(n, *s - '0', &n))
			return false;
	*ret = n;
	return true;
}

static bool is_word(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == 0x7f || *s == '=' || *s == ',')
			return false;
	return true;
}

static int parse_term(struct term *t, const char *word, struct sw_err *err)
{
	const char *eq = strchr(word, '=');

	t->kind = xstrndup(word, eq ? (size_t)(eq - word) : strlen(word));
	t->value = xstrdup(eq ? eq + 1 : "");
	if (!is_word(t->kind) || !is_word(t->value))
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			KEY ": \"%s\" is not possible; use KIND=NAME or KIND=NUMBER", word);
	t->is_count = parse_count(t->value, &t->count);
	return 0;
}

/* A kind is either one count or a set of different names. */
static int check_kinds(const struct term *t, size_t n, struct sw_err *err)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < i; k++) {
			if (!sw_streq(t[i].kind, t[k].kind))
				continue;
			if (t[i].is_count || t[k].is_count)
				return sw_err_set(err, SW_REJECTED, -EINVAL,
					KEY ": \"%s\" is a number and something else; a kind is "
					    "either one number or a set of names",
					t[i].kind);
			if (sw_streq(t[i].value, t[k].value))
				return sw_err_set(err, SW_REJECTED, -EINVAL,
					KEY ": \"%s=%s\" is there twice", t[i].kind, t[i].value);
		}
	}
	return 0;
}

static Pb__GenericResource *resource(struct term *t)
{
	Pb__GenericResource *g = xcalloc(1, sizeof(*g));

	pb__generic_resource__init(g);
	if (t->is_count) {
		Pb__DiscreteGenericResource *r = xcalloc(1, sizeof(*r));

		pb__discrete_generic_resource__init(r);
		r->kind = take(t->kind);
		r->value = t->count;
		g->resource_case = PB__GENERIC_RESOURCE__RESOURCE_DISCRETE_RESOURCE_SPEC;
		g->discrete_resource_spec = r;
	} else {
		Pb__NamedGenericResource *r = xcalloc(1, sizeof(*r));

		pb__named_generic_resource__init(r);
		r->kind = take(t->kind);
		r->value = take(t->value);
		g->resource_case = PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC;
		g->named_resource_spec = r;
	}
	return g;
}

int generic_parse(Pb__Resources **ret, const struct docker_words *words, struct sw_err *err)
{
	struct term *t = xcalloc(words->n + 1, sizeof(*t));
	int r = 0;

	for (size_t i = 0; i < words->n && !r; i++)
		r = parse_term(&t[i], words->v[i], err);
	if (!r)
		r = check_kinds(t, words->n, err);
	if (!r) {
		Pb__Resources *res = xcalloc(1, sizeof(*res));

		pb__resources__init(res);
		res->generic = xcalloc(words->n + 1, sizeof(*res->generic));
		for (; res->n_generic < words->n; res->n_generic++)
			res->generic[res->n_generic] = resource(&t[res->n_generic]);
		*ret = res;
	}
	for (size_t i = 0; i < words->n; i++) {
		free(t[i].kind);
		free(t[i].value);
	}
	free(t);
	return r;
}
