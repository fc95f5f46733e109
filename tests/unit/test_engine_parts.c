/* The pure parts of the engine room: object splitter, log records, references, addresses, texts. */
#include "test.h"

#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine/engine-internal.h"

/* ---- jsplit */

struct objects {
	char all[4096];
	int n, stop_at;
};

static bool on_object(void *arg, const char *p, size_t n)
{
	struct objects *o = arg;

	snprintf(o->all + strlen(o->all), sizeof(o->all) - strlen(o->all), "<%.*s>", (int)n, p);
	return ++o->n != o->stop_at;
}

static void test_split(void **state)
{
	static const struct {
		const char *in, *out;
		int r;
		bool partial;
	} cases[] = {
		{"", "", 0, false},
		{"{}", "<{}>", 0, false},
		{"{}{}", "<{}><{}>", 0, false},
		{" \r\n\t\x1e{}\n\n\x1e{\"a\":1}\n", "<{}><{\"a\":1}>", 0, false},
		{"{\"a\":{\"b\":[{}]}}", "<{\"a\":{\"b\":[{}]}}>", 0, false},
		{"{\"}\":\"{\\\"}\\\\\"}{}", "<{\"}\":\"{\\\"}\\\\\"}><{}>", 0, false},
		{"{\"a\\\\\":\"\\\\\"}", "<{\"a\\\\\":\"\\\\\"}>", 0, false},
		{"{}{\"a\":", "<{}>", 0, true},
		{"{", "", 0, true},
		{"{\"", "", 0, true},
		{"[]", "", -EPROTO, false},
		{"{},{}", "<{}>", -EPROTO, false},
		{"5", "", -EPROTO, false},
		{"}", "", -EPROTO, false},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		size_t len = strlen(cases[i].in);

		for (size_t piece = 1; piece <= len + 1; piece++) {
			struct objects o = {0};
			struct jsplit s = {0};
			struct sw_err err;
			int r = 0;

			for (size_t off = 0; off < len && r == 0; off += piece) {
				size_t n = len - off < piece ? len - off : piece;
				char *copy = xmemdup(cases[i].in + off, n); /* exact end for ASan */

				r = jsplit_feed(&s, copy, n, on_object, &o, &err);
				free(copy);
			}
			assert_int_equal(r, cases[i].r);
			assert_string_equal(o.all, cases[i].out);
			if (r == 0)
				assert_int_equal(jsplit_partial(&s), cases[i].partial);
			jsplit_done(&s);
		}
	}
}

static void test_split_limits(void **state)
{
	struct jsplit s = {0};
	struct objects o = {.stop_at = 2};
	struct sw_err err;
	char *big = xcalloc(1, 4096);
	int r = 0, n = 0;

	(void)state;
	assert_int_equal(jsplit_feed(&s, "{}{}{}", 6, on_object, &o, &err), 1);
	assert_int_equal(o.n, 2);
	memset(big, 'x', 4096);
	r = jsplit_feed(&s, "{\"", 2, on_object, &o, &err);
	for (; r == 0 && n < 1000; n++)
		r = jsplit_feed(&s, big, 4096, on_object, &o, &err);
	assert_int_equal(r, -E2BIG);
	assert_int_equal(n, 256); /* 1 MiB */
	assert_true(s.room <= 2 * ENGINE_MAX_OBJECT);
	jsplit_done(&s);
	free(big);
}

/* ---- JSON */

static void test_json(void **state)
{
	struct json_object *o = NULL;
	struct sw_err err;
	static const char text[] = "{\"big\":9223372036854775807,\"min\":-9223372036854775808,"
				   "\"odd\":9007199254740993,\"f\":1.5,\"s\":\"x\",\"null\":null,"
				   "\"arr\":[\"a\",5,\"b\"],\"obj\":{\"k\":\"v\",\"n\":1}}";
	size_t n;

	(void)state;
	assert_int_equal(json_parse_text(text, sizeof(text) - 1, &o, &err), 0);
	assert_true(js_int(o, "big") == INT64_MAX);
	assert_true(js_int(o, "min") == INT64_MIN);
	assert_true(js_int(o, "odd") == 9007199254740993);
	assert_int_equal(js_int(o, "f"), 0);
	assert_int_equal(js_int(o, "s"), 0);
	assert_string_equal(js_str(o, "null"), "");
	assert_string_equal(js_str(o, "absent"), "");
	assert_string_equal(js_str(o, "big"), "");
	assert_string_equal(js_str(NULL, "x"), "");
	assert_null(js_obj(o, "arr"));
	assert_int_equal(js_len(js_arr(o, "arr")), 3);
	{
		const char **s = js_strings(js_arr(o, "arr"), &n);
		struct engine_pair *p;

		assert_int_equal(n, 2);
		assert_string_equal(s[1], "b");
		free(s);
		p = js_pairs(js_obj(o, "obj"), &n);
		assert_int_equal(n, 2);
		assert_string_equal(p[0].value, "v");
		assert_string_equal(p[1].value, "");
		free(p);
	}
	json_object_put(o);
	/* in pieces */
	for (size_t cut = 0; cut <= sizeof(text) - 1; cut++) {
		struct chain c = {0};

		chain_append_static(&c, text, cut);
		chain_append_static(&c, text + cut, sizeof(text) - 1 - cut);
		o = NULL;
		assert_int_equal(json_parse_chain(&c, &o, &err), 0);
		assert_true(js_int(o, "odd") == 9007199254740993);
		json_object_put(o);
		chain_done(&c);
	}
	for (size_t cut = 0; cut < sizeof(text) - 1; cut++) {
		o = NULL;
		assert_int_equal(json_parse_text(text, cut, &o, &err), -EPROTO);
		assert_null(o);
	}
}

/* ---- references */

static void test_refs(void **state)
{
	static const struct {
		const char *ref, *name, *tag;
	} cases[] = {
		{"redis", "redis", "latest"},
		{"redis:7", "redis", "7"},
		{"host:5000/redis", "host:5000/redis", "latest"},
		{"host:5000/a/b:1.2", "host:5000/a/b", "1.2"},
		{"a/b@sha256:aa", "a/b", "sha256:aa"},
		{"host:5000/a/b:tag@sha256:aa", "host:5000/a/b", "sha256:aa"},
		{"", NULL, NULL},
		{":7", NULL, NULL},
		{"a:", NULL, NULL},
		{"a@", NULL, NULL},
		{"@sha256:aa", NULL, NULL},
		{"a/", NULL, NULL},
		{"a/:7", NULL, NULL},
		{NULL, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		char *name = NULL, *tag = NULL;
		struct sw_err err;
		int r = engine_ref_split(cases[i].ref, &name, &tag, &err);

		assert_int_equal(r, cases[i].name ? 0 : -EINVAL);
		if (cases[i].name) {
			assert_string_equal(name, cases[i].name);
			assert_string_equal(tag, cases[i].tag);
		} else {
			assert_int_equal(err.cls, SW_REJECTED);
		}
		free(name);
		free(tag);
	}
}

/* ---- addresses */

static void test_address(void **state)
{
	struct engine_address a;
	struct sw_err err;

	(void)state;
	assert_int_equal(engine_address_parse("unix:///var/run/docker.sock", false, &a, &err), 0);
	assert_string_equal(a.unix_path, "/var/run/docker.sock");
	assert_string_equal(a.base_url, "http://localhost");
	engine_address_done(&a);
	assert_int_equal(engine_address_parse("tcp://h:2376/b/c", true, &a, &err), 0);
	assert_null(a.unix_path);
	assert_string_equal(a.base_url, "https://h:2376/b/c");
	engine_address_done(&a);
	assert_int_equal(engine_address_parse("ssh://x", false, &a, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.msg, "ssh"));
	assert_int_equal(engine_address_parse(NULL, false, &a, &err), -EINVAL);
}

/* ---- texts */

static void test_clean(void **state)
{
	char out[16];

	(void)state;
	engine_clean_text(out, sizeof(out), " a\tb\n", 5);
	assert_string_equal(out, "a b");
	engine_clean_text(out, sizeof(out), "a\0b", 3);
	assert_string_equal(out, "a b");
	engine_clean_text(out, sizeof(out), "\xed\xa0\x80", 3); /* a surrogate */
	assert_string_equal(out, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	engine_clean_text(out, sizeof(out), "\xc0\x80", 2); /* overlong */
	assert_string_equal(out, "\xef\xbf\xbd\xef\xbf\xbd");
	engine_clean_text(out, sizeof(out), "\xf0\x9f\x98\x80", 4);
	assert_string_equal(out, "\xf0\x9f\x98\x80");
	engine_clean_text(out, sizeof(out),
		"\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0"
		"\x9f\x98\x80",
		16);
	assert_string_equal(out, "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80...");
	engine_clean_text(out, sizeof(out), "", 0);
	assert_string_equal(out, "");
}

static void test_time(void **state)
{
	static const struct {
		const char *s;
		int64_t ns;
	} cases[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"1970-01-01T00:00:01.5Z", 1500000000},
		{"2000-02-29T12:00:00.000000001Z", 951825600000000001},
		{"2026-01-02T03:04:05.123456789Z", 1767323045123456789},
		{"2026-01-02T05:04:05+02:00", 1767323045000000000},
		{"2026-01-02T01:34:05-01:30", 1767323045000000000},
		{"2026-01-02T03:04:05.1234567891Z", 1767323045123456789},
		{"2026-01-02T03:04:05", -1},
		{"2026-01-02T03:04:05.Z", -1},
		{"2026-01-02T03:04:05Zx", -1},
		{"2026-13-02T03:04:05Z", -1},
		{"2026-01-02 03:04:05Z", -1},
		{"9999-01-02T03:04:05Z", -1},
		{"1969-12-31T23:59:59Z", -1},
		{"", -1},
		{"x", -1},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		char *exact = xmemdup(cases[i].s, strlen(cases[i].s) + 1);

		assert_true(engine_time_parse(exact, strlen(exact)) == cases[i].ns);
		free(exact);
	}
}

/* ---- log records */

struct demux {
	char all[8192];
	int r, n;
	struct sw_err err;
};

/* Feeds @in in pieces of @piece and writes "stream@ns:text|" for each record. */
static void demux(struct demux *o, const char *in, size_t len, size_t piece, bool tty, bool details)
{
	struct logdemux d;
	struct chain c = {0};
	struct engine_log_record rec;

	memset(o, 0, sizeof(*o));
	logdemux_init(&d, tty, details);
	for (size_t off = 0; off <= len && o->r >= 0; off += piece) {
		size_t n = len - off < piece ? len - off : piece;
		bool end = off + piece > len;

		chain_append_static(&c, in + off, n);
		while ((o->r = logdemux_next(&d, &c, end, &rec, &o->err)) == 1) {
			char text[200] = "";

			chain_peek(rec.data, 0, text, sizeof(text) - 1);
			for (size_t i = 0; i < rec.n_attrs; i++)
				snprintf(o->all + strlen(o->all), sizeof(o->all) - strlen(o->all),
					"%s=%s,", rec.attrs[i].key, rec.attrs[i].value);
			snprintf(o->all + strlen(o->all), sizeof(o->all) - strlen(o->all),
				"%d@%lld:%s|", rec.stream, (long long)rec.time_ns, text);
			logdemux_release(&rec);
			o->n++;
		}
	}
	chain_done(&c);
	logdemux_done(&d);
}

static void test_frames(void **state)
{
	static const char in[] = "\x01\0\0\0\0\0\0\x1a"
				 "1970-01-01T00:00:00.5Z  a\n"
				 "\x02\0\0\0\0\0\0\x1f"
				 "1970-01-01T00:00:01Z k=a%3D+b c"
				 "\0\0\0\0\0\0\0\x16"
				 "1970-01-01T00:00:02Z  ";
	struct demux o;

	(void)state;
	for (size_t piece = 1; piece <= sizeof(in); piece++) {
		demux(&o, in, sizeof(in) - 1, piece, false, true);
		assert_int_equal(o.r, 0);
		assert_string_equal(o.all, "1@500000000:a\n|k=a= b,2@1000000000:c|1@2000000000:|");
	}
	demux(&o,
		"\x01\0\0\0\0\0\0\x16"
		"1970-01-01T00:00:02Z a",
		30, 100, false, false);
	assert_string_equal(o.all, "1@2000000000:a|");
	/* a frame that is only claimed waits without memory of that size; 1 MiB and a byte is none
	 */
	demux(&o, "\x01\0\0\0\0\x10\0\x01", 8, 8, false, true);
	assert_int_equal(o.r, -EPROTO);
}

static void test_lines(void **state)
{
	static const char in[] = "1970-01-01T00:00:00.5Z  a b\r\n"
				 "1970-01-01T00:00:01Z k=v,x= c\n"
				 "1970-01-01T00:00:02Z  no end";
	struct demux o;

	(void)state;
	for (size_t piece = 1; piece <= sizeof(in); piece++) {
		demux(&o, in, sizeof(in) - 1, piece, true, true);
		assert_int_equal(o.r, 0);
		assert_string_equal(o.all, "1@500000000:a b\r\n|k=v,x=,1@1000000000:c\n|"
					   "1@2000000000:no end|");
	}
	demux(&o, "hello\n", 6, 6, true, true);
	assert_int_equal(o.r, -EPROTO);
}

/* A long line of a TTY: parts of 16 KiB with a stamp each, or without where another driver split.
 */
static void test_long_lines(void **state)
{
	enum { PART = 16384 };
	static const char stamp[] = "1970-01-01T00:00:01Z  ";
	size_t n = 0;
	char *in = xcalloc(1, 3 * (PART + 64));
	struct demux o;

	(void)state;
	for (int i = 0; i < 2; i++) {
		memcpy(in + n, stamp, sizeof(stamp) - 1);
		n += sizeof(stamp) - 1;
		memset(in + n, 'x', PART);
		n += PART;
	}
	memcpy(in + n, stamp, sizeof(stamp) - 1);
	n += sizeof(stamp) - 1;
	in[n++] = '\n';
	for (size_t piece = 1; piece < 20000; piece = piece * 5 + 1) {
		demux(&o, in, n, piece, true, true);
		assert_int_equal(o.r, 0);
		assert_int_equal(o.n, 3);
	}
	/* the same line without stamps inside */
	n = 0;
	memcpy(in + n, stamp, sizeof(stamp) - 1);
	n += sizeof(stamp) - 1;
	memset(in + n, 'x', 2 * PART);
	n += 2 * PART;
	in[n++] = '\n';
	demux(&o, in, n, 1000, true, true);
	assert_int_equal(o.r, 0);
	assert_int_equal(o.n, 3);
	free(in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_split_limits),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_refs),
		cmocka_unit_test(test_address),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_long_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
