/* What the image part of the executor decides without an engine: whether a registry may be asked,
 * and what docker's config.json and credential helpers say. */
#include "test.h"

#include "executor/breaker.h"
#include "executor/fault.h"
#include "executor/ref.h"
#include "executor/regauth.h"
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

/* ---- breaker */

static void test_breaker(void **state)
{
	struct breakers b = {0};
	uint64_t now = sw_s(1000), want = 30;
	bool probe = true;

	(void)state;
	assert_true(breaker_ask(&b, "reg", now, &probe));
	assert_false(probe); /* nothing is known against it: everybody may */
	assert_false(breaker_answered(&b, "reg"));
	for (int i = 0; i < 6; i++) {
		assert_int_equal(breaker_failed(&b, "reg", now), sw_s(want));
		assert_int_equal(breaker_failed(&b, "reg", now + 1), 0);
		assert_false(breaker_ask(&b, "reg", now + sw_s(want) - 1, &probe));
		assert_true(breaker_ask(&b, "other", now, &probe));
		now += sw_s(want);
		assert_true(breaker_ask(&b, "reg", now, &probe));
		assert_true(probe);
		assert_false(breaker_ask(&b, "reg", now + sw_s(900), &probe)); /* one at a time */
		assert_false(probe);
		want = want * 2 > 300 ? 300 : want * 2;
	}
	/* a probe that ends without a result leaves its place to the next one */
	breaker_left(&b, "reg");
	breaker_left(&b, "unknown");
	assert_true(breaker_ask(&b, "reg", now, &probe));
	assert_true(probe);
	assert_true(breaker_answered(&b, "reg"));
	assert_true(breaker_ask(&b, "reg", now, &probe));
	assert_false(probe);
	assert_int_equal(breaker_failed(&b, "reg", now), sw_s(30)); /* from the start */
	/* forgotten after a while */
	assert_int_equal(breaker_failed(&b, "other", now + sw_s(7200)), sw_s(30));
	assert_false(breaker_answered(&b, "reg"));
	breakers_done(&b);
}

static void test_faults(void **state)
{
	static const struct {
		const char *text;
		int http;
		bool away, refused;
	} cases[] = {
		{"Get \"https://r/v2/\": dial tcp: lookup r on 10.0.0.1:53: read udp 10.0.0.2:1->"
		 "10.0.0.1:53: i/o timeout",
			500, true, false},
		{"Get \"https://r/v2/\": dial tcp: lookup r: Temporary failure in name resolution",
			500, true, false},
		{"Get \"http://r/v2/\": dial tcp 10.0.0.1:80: connect: connection refused", 500,
			true, false},
		{"Get \"https://r/v2/\": net/http: request canceled while waiting for connection "
		 "(Client.Timeout exceeded while awaiting headers)",
			500, true, false},
		{"net/http: TLS handshake timeout", 500, true, false},
		{"dial unix /run/containerd.sock: connect: connection refused", 500, false, false},
		{"received unexpected HTTP status: 503 Service Unavailable", 500, false, false},
		{"manifest for r:1 not found: manifest unknown", 404, false, false},
		{"unauthorized: authentication required", 500, false, true},
		{"no basic auth credentials", 500, false, true},
		{"pull access denied for x, repository does not exist or may require 'docker "
		 "login': denied: requested access to the resource is denied",
			404, false, true},
		{"x", 401, false, true},
		{"filesystem layer verification failed", 500, false, false},
	};
	struct sw_err e;

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		sw_err_setd(&e, SW_REJECTED, SW_E_HTTP, cases[i].http, "%s", cases[i].text);
		if (fault_registry_away(&e) != cases[i].away ||
			fault_pull_refused(&e) != cases[i].refused)
			fail_msg("%s", cases[i].text);
	}
	sw_err_set(&e, SW_TEMPORARY, -111, "connection refused"); /* that is the engine */
	assert_false(fault_registry_away(&e));
	assert_false(fault_registry_away(NULL));
	assert_false(fault_pull_refused(NULL));
}

static void test_domain(void **state)
{
	static const char *const cases[][2] = {
		{"redis", "docker.io"},
		{"me/app:1", "docker.io"},
		{"reg:5000/app", "reg:5000"},
		{"localhost/a", "localhost"},
		{"index.docker.io/a/b", "docker.io"},
		{"A B", NULL},
		{"sha256:0123456789012345678901234567890123456789012345678901234567890123", NULL},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		sw_auto_free char *d = ref_domain(cases[i][0]);

		if (!sw_streq(d, cases[i][1]))
			fail_msg("%s: %s", cases[i][0], d);
	}
}

/* ---- config.json */

/* The header as text. */
static char *plain(const char *header)
{
	static const char abc[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char *out = xcalloc(1, strlen(header) + 1);
	size_t n = 0;
	unsigned bits = 0, have = 0;

	assert_int_equal(strlen(header) % 4, 0); /* padded: the engine ignores it otherwise */
	for (const char *p = header; *p && *p != '='; p++) {
		const char *at = strchr(abc, *p);

		assert_non_null(at);
		bits = bits << 6 | (unsigned)(at - abc);
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[n++] = (char)(bits >> have & 0xff);
		}
	}
	return out;
}

static void test_config(void **state)
{
	static const struct {
		const char *text, *host, *helper, *server, *header;
	} cases[] = {
		{"{}", "reg:5000", NULL, "reg:5000", NULL},
		/* "me:pw?>~" holds characters that differ between the alphabets once encoded */
		{"{\"auths\":{\"reg:5000\":{\"auth\":\"bWU6cHc/Pn4=\"}}}", "reg:5000", NULL,
			"reg:5000",
			"{\"username\":\"me\",\"password\":\"pw?>~\",\"serveraddress\":\"reg:"
			"5000\"}"},
		{"{\"auths\":{\"https://Reg:5000/v2/"
		 "\":{\"username\":\"me\",\"password\":\"a:b\"}}}",
			"reg:5000", NULL, "reg:5000",
			"{\"username\":\"me\",\"password\":\"a:b\",\"serveraddress\":\"reg:"
			"5000\"}"},
		{"{\"auths\":{\"reg:5000\":{\"auth\":\"bWU6cHc=\"}}}", "reg:5001", NULL, "reg:5001",
			NULL},
		{"{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"bWU6cHc=\"}}}",
			"docker.io", NULL, "https://index.docker.io/v1/",
			"{\"username\":\"me\",\"password\":\"pw\",\"serveraddress\":\"https:\\/\\/"
			"index.docker.io\\/v1\\/\"}"},
		{"{\"auths\":{\"r\":{\"identitytoken\":\"t\"}}}", "r", NULL, "r",
			"{\"identitytoken\":\"t\",\"serveraddress\":\"r\"}"},
		{"{\"auths\":{\"r\":{}},\"credsStore\":\"pass\"}", "r", "pass", "r", NULL},
		{"{\"credsStore\":\"pass\",\"credHelpers\":{\"r\":\"ecr-login\"}}", "r",
			"ecr-login", "r", NULL},
		{"{\"credsStore\":\"pass\",\"credHelpers\":{\"r\":\"ecr-login\"}}", "docker.io",
			"pass", "https://index.docker.io/v1/", NULL},
		{"{\"auths\":7,\"credHelpers\":[],\"credsStore\":{}}", "r", NULL, "r", NULL},
		{"{\"auths\":{\"r\":null}}", "r", NULL, "r", NULL},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		struct regconf c;
		struct sw_err err = SW_ERR_NONE;
		sw_auto_free char *text = NULL;

		if (regconf_parse(&c, cases[i].text, strlen(cases[i].text), cases[i].host, &err) <
			0)
			fail_msg("%s: %s", cases[i].text, err.msg);
		text = c.header ? plain(c.header) : NULL;
		if (!sw_streq(c.helper, cases[i].helper) || !sw_streq(c.server, cases[i].server) ||
			!sw_streq(text, cases[i].header))
			fail_msg("%s: helper %s server %s header %s", cases[i].text, c.helper,
				c.server, text);
		regconf_done(&c);
	}
}

static void test_config_refused(void **state)
{
	static const char *const cases[][2] = {
		{"", "JSON"}, {"[]", "JSON"}, {"{\"auths\":{", "JSON"}, {"null", "JSON"},
		{"{\"auths\":{\"r\":{\"auth\":\"%%%%\"}}}", "auths: \"r\": auth"},
		{"{\"auths\":{\"r\":{\"auth\":\"bWU=\"}}}", "auths: \"r\": auth"}, /* no colon */
		{"{\"auths\":{\"r\":{\"auth\":\"bWU6c\"}}}", "auths: \"r\": auth"},
		{"{\"credsStore\":\"../../bin/sh\"}", "credential helper \"../../bin/sh\""},
		{"{\"credHelpers\":{\"r\":\"a b\"}}", "credential helper \"a b\""},
		{"{\"credsStore\":\"x\\u0000y;\"}", NULL}, /* cut at the NUL, as everywhere */
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		struct regconf c;
		struct sw_err err = SW_ERR_NONE;
		int r = regconf_parse(&c, cases[i][0], strlen(cases[i][0]), "r", &err);

		if (!cases[i][1]) {
			assert_int_equal(r, 0);
			assert_string_equal(c.helper, "x");
			regconf_done(&c);
		} else if (r >= 0 || !strstr(err.msg, cases[i][1])) {
			fail_msg("%s: %s", cases[i][0], err.msg);
		}
	}
}

static void test_helper_answers(void **state)
{
	static const struct {
		int code;
		const char *text, *header, *err;
	} cases[] = {
		{0, "{\"ServerURL\":\"r\",\"Username\":\"me\",\"Secret\":\"pw\"}\n",
			"{\"username\":\"me\",\"password\":\"pw\",\"serveraddress\":\"r\"}", NULL},
		{0, "{\"Username\":\"<token>\",\"Secret\":\"t\"}",
			"{\"identitytoken\":\"t\",\"serveraddress\":\"r\"}", NULL},
		{1, "credentials not found in native keychain\n", NULL, NULL},
		{1, "pass is locked\nsecond line", NULL, "exit code 1: pass is locked"},
		{3, "", NULL, "exit code 3"},
		{0, "", NULL, "JSON"},
		{0, "the secret is pw", NULL, "JSON"},
		{0, "{\"Username\":\"me\"}", NULL, "no Secret"},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		struct sw_err err = SW_ERR_NONE;
		sw_auto_free char *header = NULL, *text = NULL;
		int r = regconf_helper(
			&header, cases[i].code, cases[i].text, strlen(cases[i].text), "r", &err);

		text = header ? plain(header) : NULL;
		if ((r < 0) != (cases[i].err != NULL) || !sw_streq(text, cases[i].header) ||
			(r < 0 && !strstr(err.msg, cases[i].err)))
			fail_msg("%s: %s %s", cases[i].text, text, err.msg);
		assert_null(strstr(err.msg, "secret is")); /* what it printed stays with us */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_breaker),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_domain),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_config_refused),
		cmocka_unit_test(test_helper_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
