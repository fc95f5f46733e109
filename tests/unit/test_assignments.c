/* The order of assignment messages and the times of
 * renewals (B 26, 27). */
#include <string.h>

#include <test.h>

#include <session/assignments.h>
#include <session/renewal.h>
#include <swarm/backoff.h>
#include <swarm/loop.h>

enum {
	COMPLETE = PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE,
	INCREMENTAL = PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL
};

static bool feed(struct assignments_seq *s, int type, const char *applies, const char *results)
{
	Pb__AssignmentsMessage m = PB__ASSIGNMENTS_MESSAGE__INIT;

	m.type = (Pb__AssignmentsMessage__Type)type;
	m.applies_to = (char *)applies;
	m.results_in = (char *)results;
	return assignments_in_order(s, &m);
}

static void in_order(void **state)
{
	struct assignments_seq s = {0};

	(void)state;
	assert_true(feed(&s, COMPLETE, "", "1"));
	assert_true(feed(&s, INCREMENTAL, "1", "2"));
	assert_true(feed(&s, INCREMENTAL, "2", "3"));
}

static void incremental_before_complete(void **state)
{
	struct assignments_seq s = {0};

	(void)state;
	assert_false(feed(&s, INCREMENTAL, "", "1"));
	assert_false(feed(&s, INCREMENTAL, "1", "2"));
	assert_true(feed(&s, COMPLETE, "", "1"));
	assert_true(feed(&s, INCREMENTAL, "1", "2"));
}

static void gap(void **state)
{
	struct assignments_seq s = {0};

	(void)state;
	assert_true(feed(&s, COMPLETE, "", "1"));
	assert_false(feed(&s, INCREMENTAL, "2", "3"));
	/* nothing counts any more, not even what would have followed */
	assert_false(feed(&s, INCREMENTAL, "1", "2"));
	assert_false(feed(&s, INCREMENTAL, "3", "4"));
	assert_true(feed(&s, COMPLETE, "", "1"));
	assert_true(feed(&s, INCREMENTAL, "1", "2"));
	assert_false(feed(&s, INCREMENTAL, "1", "2")); /* twice the same */
}

static void complete_is_always_a_base(void **state)
{
	struct assignments_seq s = {0};

	(void)state;
	assert_true(feed(&s, COMPLETE, "", "1"));
	assert_true(feed(&s, INCREMENTAL, "1", "2"));
	assert_true(feed(&s, COMPLETE, "77", "9"));
	assert_true(feed(&s, INCREMENTAL, "9", "10"));
	assert_false(feed(&s, INCREMENTAL, "010", "11")); /* text, not numbers */
}

static void nonsense(void **state)
{
	struct assignments_seq s = {0};
	char longest[300];

	(void)state;
	memset(longest, '1', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_false(feed(&s, COMPLETE, "", longest));
	assert_false(feed(&s, 7, "", "1"));
	assert_true(feed(&s, COMPLETE, "", "1"));
	assert_false(feed(&s, 7, "1", "2"));
}

static void renewal_window(void **state)
{
	int64_t from = 1000000000, whole = 90 * 86400 + 3600;
	bool early = false, late = false;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		int64_t t = renewal_time(from, from + whole);

		assert_true(t >= from + whole / 2 && t < from + whole * 8 / 10);
		assert_int_equal((t - from) % 60, 0);
		early |= t < from + whole * 55 / 100;
		late |= t > from + whole * 75 / 100;
	}
	assert_true(early && late);
	/* less than a minute between 50 and 80 %: its start */
	assert_int_equal(renewal_time(from, from + 120), from + 60);
	assert_int_equal(renewal_time(from, from + 59), from);
	assert_int_equal(renewal_time(from, from - 1000), from);
}

static void renewal_backoff(void **state)
{
	static const unsigned expect_s[] = {
		0, 10, 15, 25, 45, 85, 165, 325, 645, 1285, 2565, 3600, 3600};

	(void)state;
	for (unsigned n = 0; n < sizeof(expect_s) / sizeof(*expect_s); n++)
		assert_int_equal(renewal_delay_bound(n), sw_s(expect_s[n]));
	assert_int_equal(renewal_delay_bound(4000000000u), sw_s(3600));
	for (int i = 0; i < 200; i++)
		assert_true(renewal_delay(1) < sw_s(10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),
		cmocka_unit_test(incremental_before_complete),
		cmocka_unit_test(gap),
		cmocka_unit_test(complete_is_always_a_base),
		cmocka_unit_test(nonsense),
		cmocka_unit_test(renewal_window),
		cmocka_unit_test(renewal_backoff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
