/* The decision tables, pair by pair. */
#include "agent/do.h"
#include "test.h"
#include <string.h>
#include <swarm/api.h>

static const int states[] = {0, 64, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 800, 832};
#define N_STATES (sizeof(states) / sizeof(states[0]))

/* rows: state; columns: desired, in the order above.
 * . noop  A accepted  P preparing  s starting  p prepare  S start  W wait  x shutdown */
static const char *const table[] = {
	/*                N P A a p r s r c S F J M O   */
	/* NEW       */ ".AAAAAAAAxxxxx",
	/* PENDING   */ "..AAAAAAAxxxxx",
	/* ASSIGNED  */ "...AAAAAAxxxxx",
	/* ACCEPTED  */ "....PPPPPxxxxx",
	/* PREPARING */ "....pppppxxxxx",
	/* READY     */ "......sssxxxxx",
	/* STARTING  */ "......SSSxxxxx",
	/* RUNNING   */ ".......WWxxxxx",
	/* COMPLETE  */ "..............",
	/* SHUTDOWN  */ "..............",
	/* FAILED    */ "..............",
	/* REJECTED  */ "..............",
	/* REMOVE    */ "..............",
	/* ORPHANED  */ "..............",
};

static enum do_action action_of(char c)
{
	switch (c) {
	case 'A':
		return DO_ACCEPTED;
	case 'P':
		return DO_PREPARING;
	case 's':
		return DO_STARTING;
	case 'p':
		return DO_PREPARE;
	case 'S':
		return DO_START;
	case 'W':
		return DO_WAIT;
	case 'x':
		return DO_SHUTDOWN;
	default:
		return DO_NOOP;
	}
}

static void test_every_pair(void **state)
{
	(void)state;
	for (size_t s = 0; s < N_STATES; s++)
		for (size_t d = 0; d < N_STATES; d++)
			if (do_next(states[s], states[d]) != action_of(table[s][d]))
				fail_msg("state %s desired %s: %s", api_state_name(states[s]),
					api_state_name(states[d]),
					do_name(do_next(states[s], states[d])));
}

static void test_success(void **state)
{
	static const struct {
		enum do_action a;
		int from, to;
		const char *message;
	} rows[] = {
		{DO_ACCEPTED, 192, 256, "accepted"},
		{DO_PREPARING, 256, 320, "preparing"},
		{DO_PREPARE, 320, 384, "prepared"},
		{DO_STARTING, 384, 448, "starting"},
		{DO_START, 448, 512, "started"},
		{DO_WAIT, 512, 576, "finished"},
		{DO_SHUTDOWN, 512, 640, "shutdown"},
		{DO_SHUTDOWN, 0, 640, "shutdown"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct do_result r = do_outcome(rows[i].a, rows[i].from, SW_OK);

		assert_int_equal(r.state, rows[i].to);
		assert_string_equal(r.message, rows[i].message);
		assert_int_equal(r.err, DO_ERR_CLEAR);
		assert_false(r.retry);
	}
}

static void test_failure(void **state)
{
	struct do_result r;

	(void)state;
	for (size_t s = 0; s < N_STATES; s++)
		for (int cls = SW_REJECTED; cls <= SW_FATAL; cls++) {
			r = do_outcome(DO_SHUTDOWN, states[s], (enum sw_errclass)cls);
			assert_int_equal(r.state, states[s] < 448 ? 768 : 704);
			assert_null(r.message);
			assert_int_equal(r.err, DO_ERR_SET);
			assert_false(r.retry);
		}
	r = do_outcome(DO_PREPARE, 320, SW_TEMPORARY);
	assert_int_equal(r.state, 320);
	assert_null(r.message);
	assert_int_equal(r.err, DO_ERR_SET);
	assert_true(r.retry);
	r = do_outcome(DO_WAIT, 512, SW_CANCELLED);
	assert_int_equal(r.state, 512);
	assert_null(r.message);
	assert_int_equal(r.err, DO_ERR_KEEP);
	assert_true(r.retry);
	r = do_outcome(DO_NOOP, 512, SW_OK);
	assert_int_equal(r.state, 512);
	assert_int_equal(r.err, DO_ERR_KEEP);
	assert_false(r.retry);
}

static void test_resolve(void **state)
{
	(void)state;
	for (size_t s = 0; s < N_STATES; s++) {
		int st = states[s];
		struct do_result ok = do_resolved(st, true), bad = do_resolved(st, false);

		assert_int_equal(ok.state, st < 256 ? 256 : st);
		if (st < 256)
			assert_string_equal(ok.message, "accepted");
		else
			assert_null(ok.message);
		assert_int_equal(bad.state, st < 448 ? 768 : st <= 512 ? 704 : st);
		assert_string_equal(bad.message, "resolving controller failed");
		assert_int_equal(bad.err, DO_ERR_SET);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair),
		cmocka_unit_test(test_success),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_resolve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
