/* Random histories: updates, drops, re-assignments, exits, failing operations, a failing disk, lost
 * registrations, kills. Whatever happens, the invariants of agentkit.h hold, and when the storm is
 * over manager, store and executor agree. Repeatable: each seed is one history; STORM_SEED=n runs
 * one. */
#include "agentkit.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/mem.h>

#define N_TASKS 12
#define STEPS   150

static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % below;
}

static uint64_t repeatable(void *arg)
{
	(void)arg;
	return rnd(UINT32_MAX) << 31 ^ rnd(UINT32_MAX);
}

static bool one_in(unsigned n)
{
	return rnd(n) == 0;
}

/* What the manager wants: desired state per task, 0: not assigned. */
struct wish {
	int desired[N_TASKS];
	bool outstanding; /* a message was not acknowledged yet */
	unsigned done;
};

static const char *id_of(unsigned i)
{
	static char id[4][16];
	static unsigned turn;
	char *p = id[turn++ % 4];

	snprintf(p, sizeof(id[0]), "t%u", i);
	return p;
}

static int status_of(struct kit *k, const char *id)
{
	const Pb__TaskStatus *st = fakesource_status(k->src, id);

	return st ? (int)st->state : 192;
}

static Pb__AssignmentsMessage *complete_of(struct kit *k, const struct wish *w)
{
	Pb__AssignmentsMessage *m = fake_message(true);

	for (unsigned i = 0; i < N_TASKS; i++)
		if (w->desired[i])
			fake_add_task(m, fake_task(id_of(i), w->desired[i], status_of(k, id_of(i))),
				false);
	return m;
}

/* The manager's next message, if the last one is done. */
static void manage(struct kit *k, struct wish *w)
{
	static const int desired[] = {384, 512, 512, 512, 640, 800};
	Pb__AssignmentsMessage *m;
	unsigned n = (unsigned)rnd(5);

	if (fakesource_done(k->src) < w->done)
		return;
	if (one_in(6)) {
		for (unsigned i = 0; i < N_TASKS; i++)
			if (one_in(4))
				w->desired[i] = 0;
		m = complete_of(k, w);
	} else {
		m = fake_message(false);
		while (n--) {
			unsigned i = (unsigned)rnd(N_TASKS);
			int to = desired[rnd(6)];
			bool named = false;

			for (size_t j = 0; j < m->n_changes; j++)
				named |= strcmp(m->changes[j]->assignment->task->id, id_of(i)) == 0;
			if (named)
				continue;
			if (one_in(4)) {
				fake_add_task(m, fake_task(id_of(i), 512, 192), true);
				w->desired[i] = 0;
			} else {
				if (to > w->desired[i] || !w->desired[i])
					w->desired[i] = to;
				fake_add_task(m, fake_task(id_of(i), w->desired[i], 192), false);
			}
		}
	}
	w->done++;
	fakesource_send(k->src, m);
}

static struct fake_script random_script(void)
{
	struct fake_script s = {.delay_ns = sw_ms(rnd(3000)), .cancel_delay_ns = sw_ms(rnd(500))};

	switch (rnd(8)) {
	case 0:
		s.cls = SW_TEMPORARY;
		s.text = one_in(2) ? "engine away" : "engine busy";
		break;
	case 1:
		s.cls = SW_FATAL;
		s.text = "broken";
		s.has_exit = one_in(2);
		s.exit_code = 9;
		break;
	case 2:
		s.hang = true;
		break;
	case 3:
		s.deaf = true;
		break;
	case 4:
		s.cls = SW_CANCELLED;
		break;
	default:
		break;
	}
	return s;
}

static void enrol(struct kit *k, struct wish *w)
{
	fakesource_register(k->src);
	w->done = fakesource_done(k->src) + 1;
	fakesource_send(k->src, complete_of(k, w));
}

static void storm_step(struct kit *k, struct wish *w, bool *registered)
{
	struct sw_err err;
	struct fake_script s;

	switch (rnd(12)) {
	case 0:
	case 1:
	case 2:
	case 3:
		if (*registered)
			manage(k, w);
		break;
	case 4:
	case 5:
		s = random_script();
		fakeexec_script(k->x, one_in(2) ? NULL : id_of((unsigned)rnd(N_TASKS)),
			(enum fake_op)rnd(F_N_OPS), &s);
		break;
	case 6:
		fakeexec_exit(k->x, id_of((unsigned)rnd(N_TASKS)), (int)rnd(3));
		break;
	case 7:
		memstore_fail(k->store, (unsigned)rnd(4), SW_TEMPORARY);
		break;
	case 8:
		memstore_hold(k->store, true);
		sw_fake_advance(k->loop, sw_ms(rnd(200)));
		memstore_hold(k->store, false);
		break;
	case 9:
		if (*registered && one_in(2)) {
			fakesource_lose(k->src);
			*registered = false;
		} else if (!*registered) {
			/* a manager sends nothing new before the last message is done */
			if (fakesource_done(k->src) >= w->done) {
				enrol(k, w);
				*registered = true;
			}
		}
		break;
	case 10:
		sw_err_setd(&err, SW_TEMPORARY, SW_E_GRPC, 14, "unavailable");
		fakesource_fail(k->src, (unsigned)rnd(3), &err);
		break;
	default:
		if (one_in(6)) {
			kit_kill(k);
			kit_boot(k);
			w->done = 0;
			*registered = false;
		}
		break;
	}
	sw_fake_advance(k->loop, one_in(3) ? sw_s(rnd(4)) : sw_ms(rnd(50)));
	kit_check(k);
}

static void calm_down(struct kit *k, struct wish *w, bool registered)
{
	struct sw_err none = SW_ERR_NONE;

	memstore_fail(k->store, 0, SW_TEMPORARY);
	fakesource_fail(k->src, 0, &none);
	sw_fake_advance(k->loop, sw_s(120));
	if (registered)
		fakesource_lose(k->src);
	enrol(k, w);
	/* hanging operations are the executor's: a second life begins without them */
	sw_fake_advance(k->loop, sw_s(120));
	kit_kill(k);
	fakeexec_default(k->x, F_PREPARE, NULL);
	kit_boot(k);
	for (int i = 0; i < 6; i++) { /* scripts that are left over are used up by the retries */
		sw_fake_advance(k->loop, sw_s(120));
		if (i == 0)
			enrol(k, w);
	}
}

static void run_one(struct kit *k)
{
	struct wish w = {0};
	bool registered = true;

	kit_boot(k);
	kit_ms(k, 100);
	enrol(k, &w);
	for (int i = 0; i < STEPS; i++)
		storm_step(k, &w, &registered);
	calm_down(k, &w, registered);
	kit_check(k);
	for (unsigned i = 0; i < N_TASKS; i++) {
		const char *id = id_of(i);
		const struct memrow *row = memstore_row(k->store, id);
		const Pb__TaskStatus *st = fakesource_status(k->src, id);
		const struct fake_record *r = fakeexec_record(k->x, id);

		if (!w.desired[i]) {
			/* an operation that hangs can only be a removal nobody can help */
			if (row && (row->phase != STORE_REMOVING || !fakeexec_busy(k->x)))
				fail_msg("task %s was dropped and is still there", id);
			if (!row && r->container != FC_NONE)
				fail_msg("container of dropped task %s is still there", id);
			continue;
		}
		if (!row)
			fail_msg("task %s is lost", id);
		if (row->phase == STORE_REMOVING)
			continue; /* assigned again, and the removal hangs */
		if (row->desired_state != w.desired[i])
			fail_msg("task %s: desired %d stored, %d wanted", id, row->desired_state,
				w.desired[i]);
		if (!st || (int)st->state != row->state)
			fail_msg("task %s: manager knows %d, store %d", id,
				st ? (int)st->state : -1, row->state);
		if (row->acked_at_ns != row->at_ns)
			fail_msg("task %s: delivered, but not marked", id);
	}
}

static void test_storm(void **state)
{
	const char *one = getenv("STORM_SEED");
	unsigned from = one ? (unsigned)strtoul(one, NULL, 10) : 1, n = one ? 1 : 150;

	(void)state;
	sw_random_source(repeatable, NULL);
	for (unsigned i = from; i < from + n; i++) {
		void *k;

		seed = i * 7919u;
		kit_setup(&k);
		if (getenv("STORM_VERBOSE"))
			print_message("seed %u\n", i);
		run_one(k);
		kit_teardown(&k);
	}
	sw_random_source(NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_storm)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
