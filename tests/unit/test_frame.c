/* Frames, statuses, texts: the pure parts of gRPC. */
#include "test.h"
#include "wire/frame.h"
#include "wire/status.h"
#include <string.h>
#include <swarm/chain.h>
#include <swarm/grpc.h>
#include <swarm/mem.h>

static void put(struct chain *c, const void *p, size_t n)
{
	assert_int_equal(chain_append(c, p, n), 0);
}

/* Three messages, one of them empty, cut at every possible place. */
static void frames_may_be_cut_anywhere(void **state)
{
	static const uint8_t wire[] = "\0\0\0\0\3abc"
				      "\0\0\0\0\0"
				      "\0\0\0\0\5hello";
	static const char *const want[] = {"abc", "", "hello"};
	size_t total = sizeof(wire) - 1;

	(void)state;
	for (size_t cut = 1; cut <= total; cut++) {
		struct frame_reader r = {0};
		struct chain in = {0};
		size_t n = 0, len;

		for (size_t off = 0; off < total; off += cut) {
			put(&in, wire + off, cut < total - off ? cut : total - off);
			while (frame_feed(&r, &in, 100) == FRAME_READY) {
				uint8_t *m = frame_take(&r, &len);

				assert_true(n < 3);
				assert_int_equal(len, strlen(want[n]));
				assert_memory_equal(m, want[n], len);
				free(m);
				n++;
			}
			assert_int_equal(chain_len(&in), 0);
		}
		assert_int_equal(n, 3);
		assert_false(frame_is_partial(&r));
		frame_done(&r);
		chain_done(&in);
	}
}

static void a_message_waits_to_be_taken(void **state)
{
	struct frame_reader r = {0};
	struct chain in = {0};
	size_t len;

	(void)state;
	put(&in, "\0\0\0\0\1a\0\0\0\0\1b", 12);
	assert_int_equal(frame_feed(&r, &in, 1), FRAME_READY);
	assert_int_equal(
		chain_len(&in), 6); /* the rest stays: it is not given back to the window */
	free(frame_take(&r, &len));
	assert_int_equal(frame_feed(&r, &in, 1), FRAME_READY);
	free(frame_take(&r, &len));
	assert_int_equal(frame_feed(&r, &in, 1), FRAME_MORE);
	frame_done(&r);
	chain_done(&in);
}

static void promises_cost_nothing(void **state)
{
	struct frame_reader r = {0};
	struct chain in = {0};

	(void)state;
	put(&in,
		"\0\x1f\xff\xff\xff"
		"only this",
		14);
	assert_int_equal(frame_feed(&r, &in, GRPC_MAX_RECEIVE), FRAME_MORE);
	assert_int_equal(r.len, 0x1fffffff);
	assert_in_range(r.room, 9, 1 << 20);
	assert_true(frame_is_partial(&r));
	frame_done(&r);
	chain_done(&in);
}

static void bad_frames_are_told_apart(void **state)
{
	struct frame_reader r = {0};
	struct chain in = {0};

	(void)state;
	put(&in, "\1\0\0\0\1a", 6);
	assert_int_equal(frame_feed(&r, &in, 100), FRAME_COMPRESSED);
	frame_done(&r);
	chain_done(&in);
	put(&in, "\0\0\0\0\145", 5);
	assert_int_equal(frame_feed(&r, &in, 100), FRAME_TOO_LONG);
	assert_int_equal(r.len, 101);
	frame_done(&r);
	chain_done(&in);
	put(&in, "\0\xff\xff\xff\xff", 5);
	assert_int_equal(frame_feed(&r, &in, GRPC_MAX_RECEIVE), FRAME_TOO_LONG);
	frame_done(&r);
	chain_done(&in);
}

static void prefix_is_big_endian(void **state)
{
	uint8_t p[5];

	(void)state;
	frame_prefix(p, 0x01020304);
	assert_memory_equal(p, "\0\1\2\3\4", 5);
}

static void messages_are_decoded_leniently(void **state)
{
	static const struct {
		const char *in, *out;
	} t[] = {
		{"", ""},
		{"plain text", "plain text"},
		{"100%25 sure", "100% sure"},
		{"gr%C3%BC%c3%9fe", "gr\xc3\xbc\xc3\x9f"
				    "e"},
		{"%", "%"},
		{"%4", "%4"},
		{"%zz%41", "%zzA"},
		{"a%00b%0Ac", "a b c"},
		{"%25%32%35", "%25"},
	};
	char buf[64], small[4];

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(t); i++) {
		grpc_message_decode(buf, sizeof(buf), t[i].in);
		assert_string_equal(buf, t[i].out);
	}
	grpc_message_decode(small, sizeof(small), "%41%42%43%44");
	assert_string_equal(small, "ABC");
}

static void statuses_are_numbers(void **state)
{
	(void)state;
	assert_int_equal(grpc_status_parse("0"), 0);
	assert_int_equal(grpc_status_parse("00"), 0);
	assert_int_equal(grpc_status_parse("7"), 7);
	assert_int_equal(grpc_status_parse("16"), 16);
	assert_int_equal(grpc_status_parse("17"), GRPC_UNKNOWN);
	assert_int_equal(grpc_status_parse(""), GRPC_UNKNOWN);
	assert_int_equal(grpc_status_parse("-1"), GRPC_UNKNOWN);
	assert_int_equal(grpc_status_parse(" 0"), GRPC_UNKNOWN);
	assert_int_equal(grpc_status_parse("99999999999999999999"), GRPC_UNKNOWN);
	assert_string_equal(grpc_code_name(GRPC_UNAVAILABLE), "UNAVAILABLE");
	assert_string_equal(grpc_code_name(17), "?");
	assert_string_equal(grpc_code_name(-1), "?");
}

/* HTTP status and RST_STREAM codes as gRPC codes. */
static void answers_without_status_are_mapped(void **state)
{
	static const int http[][2] = {{400, 13}, {401, 16}, {403, 7}, {404, 12}, {429, 14},
		{502, 14}, {503, 14}, {504, 14}, {500, 2}, {200, 2}, {302, 2}, {0, 2}};
	static const int reset[][2] = {{0, 13}, {1, 13}, {2, 13}, {3, 8}, {4, 13}, {5, 13}, {6, 13},
		{7, 14}, {8, 1}, {9, 13}, {10, 13}, {11, 8}, {12, 7}, {13, 13}, {4711, 13}};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(http); i++)
		assert_int_equal(grpc_code_from_http(http[i][0]), http[i][1]);
	for (size_t i = 0; i < SW_ARRAY_LEN(reset); i++)
		assert_int_equal(grpc_code_from_reset((uint32_t)reset[i][0]), reset[i][1]);
}

static void codes_have_classes(void **state)
{
	(void)state;
	assert_int_equal(grpc_code_class(GRPC_UNAVAILABLE), SW_TEMPORARY);
	assert_int_equal(grpc_code_class(GRPC_DEADLINE_EXCEEDED), SW_TEMPORARY);
	assert_int_equal(grpc_code_class(GRPC_UNKNOWN), SW_TEMPORARY);
	assert_int_equal(grpc_code_class(GRPC_PERMISSION_DENIED), SW_REJECTED);
	assert_int_equal(grpc_code_class(GRPC_INVALID_ARGUMENT), SW_REJECTED);
	assert_int_equal(grpc_code_class(GRPC_NOT_FOUND), SW_REJECTED);
}

static void timeouts_have_at_most_eight_digits(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} t[] = {
		{5000000000, "5S"},
		{1500000000, "1500m"},
		{1, "1n"},
		{60000000000, "1M"},
		{3600000000000, "1H"},
		{123456789123, "123457m"}, /* rounded up: never shorter than asked */
		{99999998, "99999998n"},
		{UINT64_MAX, "5124096H"},
	};
	char buf[16];

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(t); i++) {
		grpc_timeout_format(buf, t[i].ns);
		assert_string_equal(buf, t[i].text);
		assert_in_range(strlen(buf), 2, 9);
	}
}

static void content_types_are_checked(void **state)
{
	(void)state;
	assert_true(grpc_content_type_ok("application/grpc"));
	assert_true(grpc_content_type_ok("application/grpc+proto"));
	assert_true(grpc_content_type_ok("Application/GRPC;charset=utf-8"));
	assert_false(grpc_content_type_ok("application/grpc-web"));
	assert_false(grpc_content_type_ok("text/html"));
	assert_false(grpc_content_type_ok(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_may_be_cut_anywhere),
		cmocka_unit_test(a_message_waits_to_be_taken),
		cmocka_unit_test(promises_cost_nothing),
		cmocka_unit_test(bad_frames_are_told_apart),
		cmocka_unit_test(prefix_is_big_endian),
		cmocka_unit_test(messages_are_decoded_leniently),
		cmocka_unit_test(statuses_are_numbers),
		cmocka_unit_test(answers_without_status_are_mapped),
		cmocka_unit_test(codes_have_classes),
		cmocka_unit_test(timeouts_have_at_most_eight_digits),
		cmocka_unit_test(content_types_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
