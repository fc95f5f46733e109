/* What an engine streams: any split of the bytes gives the same objects, and none of them upsets
 * the parser or the readers of its fields. The first byte says how to split. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine/engine-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
	uint64_t hash;
	size_t n;
};

static bool on_object(void *arg, const char *p, size_t n)
{
	struct sum *s = arg;
	struct json_object *o = NULL;
	struct sw_err err;
	size_t k;

	for (size_t i = 0; i < n; i++)
		s->hash = (s->hash ^ (uint8_t)p[i]) * 0x100000001b3ull;
	s->n++;
	if (json_parse_text(p, n, &o, &err) == 0) {
		free(js_pairs(js_obj(js_obj(o, "Actor"), "Attributes"), &k));
		free(js_strings(js_arr(o, "RepoDigests"), &k));
		(void)js_str(o, "Action");
		(void)js_int(o, "timeNano");
		(void)js_bool(js_obj(o, "State"), "Running");
		json_object_put(o);
	}
	engine_error(&err, 500, p, n);
	return true;
}

static int feed(const uint8_t *data, size_t size, size_t piece, struct sum *sum)
{
	struct jsplit s = {0};
	struct sw_err err;
	int r = 0;

	for (size_t off = 0; off < size && r == 0; off += piece) {
		size_t n = size - off < piece ? size - off : piece;

		r = jsplit_feed(&s, (const char *)data + off, n, on_object, sum, &err);
	}
	jsplit_done(&s);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sum whole = {0}, pieces = {0};
	int a, b;

	if (!size)
		return 0;
	a = feed(data + 1, size - 1, size, &whole);
	b = feed(data + 1, size - 1, 1u + data[0] % 31u, &pieces);
	if (a != b || whole.n != pieces.n || whole.hash != pieces.hash)
		abort();
	return 0;
}
