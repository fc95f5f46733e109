/* The reporter against a manager played by hand (agent-cases G). */
#include "agent/reporter.h"
#include "fakesource.h"
#include "test.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

struct env {
	struct sw_loop *loop;
	struct fakesource *src;
	struct reporter *r;
	unsigned acked, idle;
};

static void on_acked(void *arg, const char *task_id, const struct status *s)
{
	struct env *e = arg;

	(void)task_id;
	(void)s;
	e->acked++;
}

static void on_idle(void *arg)
{
	struct env *e = arg;

	e->idle++;
}

static void on_registered(void *arg, const char *sid, const char *addr)
{
	struct env *e = arg;

	(void)sid;
	(void)addr;
	reporter_registered(e->r, true);
}

static void on_lost(void *arg, const struct sw_err *err)
{
	struct env *e = arg;

	(void)err;
	reporter_registered(e->r, false);
}

static int setup(void **state)
{
	static const struct reporter_events ev = {.acked = on_acked, .idle = on_idle};
	static const struct source_events sev = {.registered = on_registered, .lost = on_lost};
	struct env *e = xcalloc(1, sizeof(*e));
	struct source *s;

	log_set_level(LOG_L_ERR);
	sw_loop_new(&e->loop, NULL);
	sw_fake_clock(e->loop, sw_s(1000));
	e->src = fakesource_new(e->loop);
	s = fakesource_source(e->src);
	s->ops->open(s, &sev, e, NULL);
	e->r = reporter_new(e->loop, s, &ev, e);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	assert_int_equal(fakesource_went_back(e->src), 0);
	reporter_free(e->r);
	fakesource_free(e->src);
	assert_int_equal(sw_loop_free(e->loop), 0);
	free(e);
	return 0;
}

static struct status *make(int st, const char *message)
{
	static int64_t at = 1000;
	Pb__TaskStatus s = PB__TASK_STATUS__INIT;

	s.state = (Pb__TaskState)st;
	s.message = (char *)(uintptr_t)message;
	return status_new((Pb__TaskStatus *)(void *)api_dup(&s.base), at++);
}

static void put(struct env *e, const char *id, int st, const char *message)
{
	struct status *s = make(st, message);

	reporter_put(e->r, id, s);
	status_unref(s);
}

static void settle(struct env *e)
{
	sw_fake_advance(e->loop, sw_s(60));
}

static void test_waits_for_registration(void **state)
{
	struct env *e = *state;

	put(e, "t1", 512, "started");
	settle(e);
	assert_int_equal(fakesource_requests(e->src), 0);
	assert_int_equal(reporter_pending(e->r), 1);
	fakesource_register(e->src);
	settle(e);
	assert_string_equal(fakesource_states(e->src, "t1"), "RUNNING");
	assert_int_equal(reporter_pending(e->r), 0);
	assert_int_equal(e->acked, 1);
	assert_true(e->idle >= 1);
}

static void test_newest_wins(void **state)
{
	struct env *e = *state;

	put(e, "t1", 512, "started");
	put(e, "t1", 448, "starting"); /* lower: ignored */
	fakesource_register(e->src);
	settle(e);
	assert_string_equal(fakesource_states(e->src, "t1"), "RUNNING");
	put(e, "t2", 512, "started");
	put(e, "t2", 512, "with ports");
	settle(e);
	assert_string_equal(fakesource_states(e->src, "t2"), "RUNNING");
	assert_string_equal(fakesource_status(e->src, "t2")->message, "with ports");
}

static void test_one_in_flight_per_task(void **state)
{
	struct env *e = *state;

	fakesource_register(e->src);
	fakesource_hold(e->src, true);
	put(e, "t1", 512, "started");
	settle(e);
	assert_int_equal(fakesource_requests(e->src), 1);
	put(e, "t1", 704, "started");
	put(e, "t2", 512, "started");
	settle(e);
	assert_int_equal(fakesource_requests(e->src), 1);
	fakesource_hold(e->src, false);
	settle(e);
	assert_int_equal(fakesource_requests(e->src), 2);
	assert_string_equal(fakesource_states(e->src, "t1"), "RUNNING FAILED");
	assert_int_equal(fakesource_max_in_flight(e->src), 1);
}

static void test_failure_keeps(void **state)
{
	struct env *e = *state;
	struct sw_err err;

	/* NOTFOUND "node not registered" is a lost session, not a delivery */
	sw_err_setd(&err, SW_TEMPORARY, SW_E_GRPC, 5, "node not registered");
	fakesource_register(e->src);
	fakesource_fail(e->src, 2, &err);
	put(e, "t1", 512, "started");
	settle(e);
	assert_int_equal(fakesource_requests(e->src), 3);
	assert_string_equal(fakesource_states(e->src, "t1"), "RUNNING");
}

static void test_failure_gives_way_to_newer(void **state)
{
	struct env *e = *state;
	struct sw_err err;

	sw_err_setd(&err, SW_TEMPORARY, SW_E_GRPC, 14, "unavailable");
	fakesource_register(e->src);
	fakesource_hold(e->src, true);
	fakesource_fail(e->src, 1, &err);
	put(e, "t1", 512, "started");
	settle(e);
	put(e, "t1", 704, "started");
	fakesource_hold(e->src, false);
	settle(e);
	assert_string_equal(fakesource_states(e->src, "t1"), "FAILED");
}

static void test_lost_while_in_flight(void **state)
{
	struct env *e = *state;

	fakesource_register(e->src);
	fakesource_hold(e->src, true);
	put(e, "t1", 704, "started");
	settle(e);
	fakesource_lose(e->src);
	settle(e);
	assert_int_equal(reporter_pending(e->r), 1);
	fakesource_hold(e->src, false);
	fakesource_register(e->src);
	settle(e);
	assert_string_equal(fakesource_states(e->src, "t1"), "FAILED");
}

static void test_batches(void **state)
{
	struct env *e = *state;
	unsigned total = 0;

	for (int i = 0; i < 3000; i++) {
		char id[32];

		snprintf(id, sizeof(id), "t%d", i);
		put(e, id, i % 3 ? 512 : 704, "x");
	}
	fakesource_register(e->src);
	settle(e);
	assert_int_equal(fakesource_requests(e->src), 3);
	for (unsigned i = 0; i < 3; i++) {
		const struct fake_request *q = fakesource_request(e->src, i);

		assert_true(q->n <= REPORT_MAX);
		total += (unsigned)q->n;
		if (i == 0) /* ends of tasks first: 1000 of them */
			for (size_t j = 0; j < 1000; j++)
				assert_int_equal(q->statuses[j]->state, 704);
	}
	assert_int_equal(total, 3000);
	assert_int_equal(e->acked, 3000);
}

static void test_bytes_bound(void **state)
{
	struct env *e = *state;
	char *big = xcalloc(1, 4001);

	memset(big, 'x', 4000);
	for (int i = 0; i < 600; i++) {
		char id[32];

		snprintf(id, sizeof(id), "t%d", i);
		put(e, id, 704, big);
	}
	free(big);
	fakesource_register(e->src);
	settle(e);
	assert_int_equal(fakesource_requests(e->src), 3);
	for (unsigned i = 0; i < 3; i++) {
		const struct fake_request *q = fakesource_request(e->src, i);
		size_t bytes = 0;

		for (size_t j = 0; j < q->n; j++)
			bytes += protobuf_c_message_get_packed_size(&q->statuses[j]->base);
		assert_true(bytes <= REPORT_MAX_BYTES);
	}
}

static void test_foreign_task_is_isolated(void **state)
{
	struct env *e = *state;

	for (int i = 0; i < 1000; i++) {
		char id[32];

		snprintf(id, sizeof(id), "t%d", i);
		put(e, id, 512, "started");
	}
	fakesource_foreign(e->src, "t333");
	fakesource_foreign(e->src, "t777");
	fakesource_register(e->src);
	settle(e);
	assert_int_equal(reporter_pending(e->r), 0);
	assert_null(fakesource_status(e->src, "t333"));
	assert_null(fakesource_status(e->src, "t777"));
	for (int i = 0; i < 1000; i++) {
		char id[32];

		snprintf(id, sizeof(id), "t%d", i);
		if (i != 333 && i != 777)
			assert_string_equal(fakesource_states(e->src, id), "RUNNING");
	}
	assert_true(fakesource_requests(e->src) < 100); /* halves, not one by one */
	/* a later one is sent with the others again */
	put(e, "t1", 704, "started");
	settle(e);
	assert_string_equal(fakesource_states(e->src, "t1"), "RUNNING FAILED");
}

static void test_removed_node_is_no_foreign_task(void **state)
{
	struct env *e = *state;
	struct sw_err err;

	sw_err_setd(&err, SW_REJECTED, SW_E_GRPC, 7, "node was removed from swarm");
	fakesource_register(e->src);
	fakesource_fail(e->src, 1, &err);
	put(e, "t1", 704, "started");
	settle(e);
	assert_string_equal(fakesource_states(e->src, "t1"), "FAILED"); /* kept and sent again */
}

static void test_forget(void **state)
{
	struct env *e = *state;

	put(e, "t1", 512, "started");
	put(e, "t2", 512, "started");
	reporter_forget(e->r, "t1");
	reporter_forget(e->r, "unknown");
	assert_int_equal(reporter_pending(e->r), 1);
	fakesource_register(e->src);
	fakesource_hold(e->src, true);
	settle(e);
	reporter_forget(e->r, "t2"); /* on its way */
	fakesource_lose(e->src);
	settle(e);
	assert_int_equal(reporter_pending(e->r), 0);
}

static void test_bounded_by_tasks(void **state)
{
	struct env *e = *state;

	for (int round = 0; round < 100; round++)
		for (int i = 0; i < 1000; i++) {
			char id[32];

			snprintf(id, sizeof(id), "t%d", i);
			put(e, id, 512, round % 2 ? "a" : "b");
		}
	assert_int_equal(reporter_pending(e->r), 1000);
	fakesource_register(e->src);
	settle(e);
	assert_int_equal(reporter_pending(e->r), 0);
	assert_string_equal(fakesource_status(e->src, "t0")->message, "a");
}

/* 100 tasks, 4 ascending states in random order of tasks, every tenth send fails: each ends at its
 * highest state. */
static void test_storm(void **state)
{
	static const int ladder[] = {320, 448, 512, 704};
	struct env *e = *state;
	int at[100] = {0};
	struct sw_err err;
	bool more = true;

	srand(7); /* NOLINT: repeatable on purpose */
	sw_err_setd(&err, SW_TEMPORARY, SW_E_GRPC, 14, "unavailable");
	fakesource_register(e->src);
	while (more) {
		more = false;
		for (int i = 0; i < 100; i++) {
			char id[32];

			more |= at[i] < 4;
			if (at[i] == 4 || rand() % 3) /* NOLINT */
				continue;
			snprintf(id, sizeof(id), "t%d", i);
			put(e, id, ladder[at[i]++], "x");
		}
		if (rand() % 10 == 0) /* NOLINT */
			fakesource_fail(e->src, 1, &err);
		if (rand() % 10 == 0) { /* NOLINT */
			fakesource_lose(e->src);
			fakesource_register(e->src);
		}
		sw_fake_advance(e->loop, sw_ms((unsigned)rand() % 50)); /* NOLINT */
	}
	settle(e);
	for (int i = 0; i < 100; i++) {
		char id[32];

		snprintf(id, sizeof(id), "t%d", i);
		assert_int_equal(fakesource_status(e->src, id)->state, 704);
	}
	assert_int_equal(fakesource_max_in_flight(e->src), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_waits_for_registration),
		T(test_newest_wins),
		T(test_one_in_flight_per_task),
		T(test_failure_keeps),
		T(test_failure_gives_way_to_newer),
		T(test_lost_while_in_flight),
		T(test_batches),
		T(test_bytes_bound),
		T(test_foreign_task_is_isolated),
		T(test_removed_node_is_no_foreign_task),
		T(test_forget),
		T(test_bounded_by_tasks),
		T(test_storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
