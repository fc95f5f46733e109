/* Join tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <swarm/session.h>

/* A root certificate and its digest as a real cluster printed it. */
static const char root[] = "-----BEGIN CERTIFICATE-----\n"
			   "MIIBazCCARCgAwIBAgIUX6+6KxRiv6oB3QWz9wYcoliBR68wCgYIKoZIzj0EAwIw\n"
			   "EzERMA8GA1UEAxMIc3dhcm0tY2EwHhcNMjYxMTIzMDk0MzAwWhcNNDYxMTE4MDk0\n"
			   "MzAwWjATMREwDwYDVQQDEwhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH\n"
			   "A0IABC1jKJ4W++vp7zGXqfOdGnIxtV5mLyhoQugFPQd/7r9mNO57vDTL14TSZEnj\n"
			   "C8Ai6l6qazV8QGGbpOiCX0cgmaKjQjBAMA4GA1UdDwEB/wQEAwIBBjAPBgNVHRMB\n"
			   "Af8EBTADAQH/MB0GA1UdDgQWBBTjqc5zWCu2C5OX6c4JybdUYh/F0DAKBggqhkjO\n"
			   "PQQDAgNJADBGAiEAmE3vrqTNVOmm5pf+Fj5D2R/ZZF00aXUaCVCUy6CSAHYCIQCa\n"
			   "N1M0qR92yucouEoEATH1EBUhTTpcB+0I8fe6LWRLPA==\n"
			   "-----END CERTIFICATE-----\n";
#define DIGEST "2q1qd5kuaiasiy2n2ju2zwrz5i4xn3542xhia681n3hkv66dm7"
#define MAX36  "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof" /* 2^256 - 1 */
#define OVER36 "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtog" /* 2^256 */
#define SECRET "0123456789abcdefghijklmno"

static void real_digest_matches(void **state)
{
	struct join_token t;
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	assert_int_equal(join_token_parse("SWMTKN-1-" DIGEST "-" SECRET, &t, &err), 0);
	assert_int_equal(t.version, 1);
	assert_false(t.fips);
	assert_int_equal(sizeof(root) - 1, 554);
	assert_int_equal(join_token_check(&t, root, sizeof(root) - 1, &err), 0);
}

static void every_byte_of_the_bundle_counts(void **state)
{
	struct join_token t;
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	assert_int_equal(join_token_parse("SWMTKN-1-" DIGEST "-" SECRET, &t, &err), 0);
	assert_true(join_token_check(&t, root, sizeof(root) - 2, &err) < 0); /* no final newline */
	assert_int_equal(err.cls, SW_REJECTED);
	assert_null(strstr(err.msg, DIGEST));
	assert_null(strstr(err.msg, SECRET));
	assert_true(join_token_check(&t, root, sizeof(root), &err) < 0);
	assert_true(join_token_check(&t, "", 0, &err) < 0);
}

static void version_2(void **state)
{
	struct join_token t;

	(void)state;
	assert_int_equal(join_token_parse("SWMTKN-2-1-" DIGEST "-" SECRET, &t, NULL), 0);
	assert_true(t.fips);
	assert_int_equal(join_token_parse("SWMTKN-2-0-" DIGEST "-" SECRET, &t, NULL), 0);
	assert_false(t.fips);
	assert_int_equal(t.version, 2);
}

static void malformed(void **state)
{
	static const char *const bad[] = {
		"",
		"-",
		"----------------",
		"SWMTKN",
		"SWMTKN-",
		"SWMTKN-1",
		"SWMTKN-1-" DIGEST,
		"SWMTKN-1-" DIGEST "-",
		"SWMTKN-1-" DIGEST "-" SECRET "-",
		"SWMTKN-1-" DIGEST "-" SECRET "\n",
		" SWMTKN-1-" DIGEST "-" SECRET,
		"swmtkn-1-" DIGEST "-" SECRET,
		"SWMTKN-0-" DIGEST "-" SECRET,
		"SWMTKN-3-" DIGEST "-" SECRET,
		"SWMTKN-11-" DIGEST "-" SECRET,
		"SWMTKN-2-" DIGEST "-" SECRET,
		"SWMTKN-2-2-" DIGEST "-" SECRET,
		"SWMTKN-2--" DIGEST "-" SECRET,
		"SWMTKN-1-1-" DIGEST "-" SECRET,
		"SWMTKN-1-" DIGEST "0-" SECRET,
		"SWMTKN-1-" DIGEST "-" SECRET "0",
		"SWMTKN-1-" DIGEST "-0123456789ABCDEFGHIJKLMNO",
		"SWMTKN-1-2Q1qd5kuaiasiy2n2ju2zwrz5i4xn3542xhia681n3hkv66dm7-" SECRET,
		"SWMTKN-1-2\xc3\xa4qd5kuaiasiy2n2ju2zwrz5i4xn3542xhia681n3hkv66dm7-" SECRET,
		"SWMTKN-1-zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-" SECRET,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct join_token t = {.version = 77};
		struct sw_err err = SW_ERR_NONE;

		if (join_token_parse(bad[i], &t, &err) == 0)
			fail_msg("accepted: %s", bad[i]);
		assert_int_equal(err.cls, SW_REJECTED);
		assert_int_equal(t.version, 77);
		assert_null(strstr(err.msg, SECRET));
		assert_non_null(strstr(err.msg, "docker swarm join-token worker"));
	}
	assert_true(join_token_parse(NULL, &(struct join_token){0}, NULL) < 0);
}

/* 2^256 - 1 fits, 2^256 does not. */
static void largest_number(void **state)
{
	struct join_token t;

	(void)state;
	assert_int_equal(join_token_parse("SWMTKN-1-" MAX36 "-" SECRET, &t, NULL), 0);
	for (int i = 0; i < 32; i++)
		assert_int_equal(t.digest[i], 0xff);
	assert_true(join_token_parse("SWMTKN-1-" OVER36 "-" SECRET, &t, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_digest_matches),
		cmocka_unit_test(every_byte_of_the_bundle_counts),
		cmocka_unit_test(version_2),
		cmocka_unit_test(malformed),
		cmocka_unit_test(largest_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
