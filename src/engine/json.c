/* json-c with the engine's habits: null, absent and empty are the same. Integers stay 64 bit wide:
 * json-c makes a double only of what is written with a fraction or an exponent. */
#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

static struct json_object *member(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	if (!o || !json_object_is_type(o, json_type_object) ||
		!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, type))
		return NULL;
	return v;
}

const char *js_str(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key, json_type_string);

	return v ? json_object_get_string(v) : "";
}

int64_t js_int(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key, json_type_int);

	return v ? json_object_get_int64(v) : 0;
}

bool js_bool(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key, json_type_boolean);

	return v && json_object_get_boolean(v);
}

struct json_object *js_obj(struct json_object *o, const char *key)
{
	return member(o, key, json_type_object);
}

struct json_object *js_arr(struct json_object *o, const char *key)
{
	return member(o, key, json_type_array);
}

size_t js_len(struct json_object *arr)
{
	return arr ? json_object_array_length(arr) : 0;
}

const char *js_str_at(struct json_object *arr, size_t i)
{
	struct json_object *v = json_object_array_get_idx(arr, i);

	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

struct engine_pair *js_pairs(struct json_object *o, size_t *n)
{
	struct engine_pair *p =
		xcalloc((o ? (size_t)json_object_object_length(o) : 0) + 1, sizeof(*p));
	size_t i = 0;

	if (o) {
		json_object_object_foreach(o, key, val)
		{
			p[i++] =
				(struct engine_pair){key, json_object_is_type(val, json_type_string)
								  ? json_object_get_string(val)
								  : ""};
		}
	}
	*n = i;
	return p;
}

const char **js_strings(struct json_object *arr, size_t *n)
{
	const char **s = xcalloc(js_len(arr) + 1, sizeof(*s));

	*n = 0;
	for (size_t i = 0; i < js_len(arr); i++)
		if (*js_str_at(arr, i))
			s[(*n)++] = js_str_at(arr, i);
	return s;
}

static int malformed(struct sw_err *err, const char *what)
{
	return sw_err_set(err, SW_TEMPORARY, -EPROTO, "malformed JSON from the engine: %s", what);
}

/* @next gives the pieces one after the other; NULL at the end. */
static int parse(const struct iovec *iov, size_t n, struct json_object **ret, struct sw_err *err)
{
	struct json_tokener *tok = json_tokener_new_ex(ENGINE_JSON_DEPTH);
	struct json_object *o = NULL;
	bool complete = false;
	int r = 0;

	if (!tok)
		return sw_err_set(err, SW_TEMPORARY, -ENOMEM, "no memory for a JSON answer");
	for (size_t i = 0; i < n && r == 0; i++) {
		const char *p = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		if (left && !complete) {
			enum json_tokener_error e;

			o = json_tokener_parse_ex(tok, p, (int)left);
			e = json_tokener_get_error(tok);
			if (e == json_tokener_continue)
				continue;
			if (e != json_tokener_success) {
				r = malformed(err, json_tokener_error_desc(e));
				break;
			}
			complete = true;
			p += json_tokener_get_parse_end(tok);
			left -= json_tokener_get_parse_end(tok);
		}
		for (; left && r == 0; p++, left--)
			if (!strchr(" \t\r\n", *p) || !*p)
				r = malformed(err, "bytes behind its end");
	}
	if (r == 0 && !complete)
		r = malformed(err, "it ends too early");
	json_tokener_free(tok);
	if (r < 0)
		json_object_put(o);
	else
		*ret = o;
	return r;
}

int json_parse_text(const char *p, size_t n, struct json_object **ret, struct sw_err *err)
{
	struct iovec iov = {(void *)p, n};

	if (n > ENGINE_MAX_ANSWER)
		return sw_err_set(err, SW_TEMPORARY, -E2BIG, "JSON of %zu bytes", n);
	return parse(&iov, 1, ret, err);
}

int json_parse_chain(struct chain *c, struct json_object **ret, struct sw_err *err)
{
	const size_t step = 64;
	struct iovec *iov = NULL;
	size_t n = 0;
	size_t bytes;
	int r;

	for (;;) { /* as many pieces as there are */
		iov = xrealloc(iov, n + step, sizeof(*iov));
		n += step;
		r = chain_iov(c, iov, (int)n, &bytes);
		if (bytes == chain_len(c))
			break;
	}
	r = parse(iov, (size_t)r, ret, err);
	free(iov);
	return r;
}

void json_to_chain(struct json_object *o, struct chain *c)
{
	const char *text = json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

	if (chain_append(c, text, strlen(text)) < 0)
		abort(); /* our own request: as xcalloc() */
}
