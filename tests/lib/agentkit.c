#include "agentkit.h"
#include <stdlib.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/log.h>
#include <swarm/mem.h>

static void on_update(void *arg, const char *task_id, const Pb__TaskStatus *st)
{
	struct kit *k = arg;
	const struct memrow *row = memstore_row(k->store, task_id);

	/* a row that is gone: the request was on its way already */
	if (row && (!row->has_status || row->state < (int)st->state ||
			   row->at_ns < api_time_ns(st->timestamp)))
		k->reported_early++;
}

int kit_setup(void **state)
{
	struct kit *k = xcalloc(1, sizeof(*k));

	log_set_level(getenv("KIT_LOG") ? LOG_L_DEBUG : (enum log_level)0);
	sw_loop_new(&k->loop, NULL);
	sw_fake_clock(k->loop, sw_s(1000));
	k->store = memstore_new(k->loop);
	k->x = fakeexec_new(k->loop);
	*state = k;
	return 0;
}

void kit_check(struct kit *k)
{
	if (fakeexec_violations(k->x))
		fail_msg("%u violations, first: %s", fakeexec_violations(k->x),
			fakeexec_violation(k->x));
	assert_int_equal(memstore_lower(k->store), 0);
	assert_int_equal(k->reported_early, 0);
	if (k->src) {
		assert_int_equal(fakesource_went_back(k->src), 0);
		assert_true(fakesource_max_in_flight(k->src) <= 1);
	}
}

static void on_ready(void *arg)
{
	((struct kit *)arg)->ready++;
}

static void on_failed(void *arg, const struct sw_err *err, bool removed)
{
	struct kit *k = arg;

	(void)err;
	k->failed++;
	k->removed = removed;
}

void kit_boot(struct kit *k)
{
	static const struct agent_events ev = {.ready = on_ready, .failed = on_failed};
	struct agent_config cfg = {.loop = k->loop,
		.store = k->store,
		.executor = fakeexec_executor(k->x),
		.node_id = FAKE_NODE,
		.cluster_id = "cluster1",
		.role = "swarm-worker"};
	struct sw_err err = SW_ERR_NONE;

	k->src = fakesource_new(k->loop);
	cfg.source = fakesource_source(k->src);
	fakesource_watch(k->src, on_update, k);
	assert_int_equal(agent_new(&k->agent, &cfg, &ev, k, &err), 0);
	assert_int_equal(agent_start(k->agent, &err), 0);
}

void kit_up(struct kit *k)
{
	kit_boot(k);
	kit_ms(k, 100);
	fakesource_register(k->src);
	kit_ms(k, 1);
}

static void on_stopped(void *arg)
{
	((struct kit *)arg)->stopped = true;
}

static void free_agent(struct kit *k)
{
	assert_true(fakesource_closed(k->src));
	agent_free(k->agent);
	k->agent = NULL;
	assert_int_equal(fakeexec_open_controllers(k->x), 0);
	kit_check(k);
	fakesource_free(k->src);
	k->src = NULL;
}

void kit_stop(struct kit *k, uint64_t flush_ns)
{
	k->stopped = false;
	agent_stop(k->agent, flush_ns, on_stopped, k);
	assert_false(k->stopped);
	sw_fake_advance(k->loop, flush_ns + sw_s(20));
	assert_true(k->stopped);
	free_agent(k);
}

void kit_kill(struct kit *k)
{
	struct sw_err gone = {.cls = SW_TEMPORARY, .msg = "killed"};

	/* from here on nothing gets out: not to the disk, not to the manager */
	memstore_freeze(k->store);
	fakesource_fail(k->src, 1000000, &gone);
	kit_stop(k, 0);
	memstore_thaw(k->store);
}

int kit_teardown(void **state)
{
	struct kit *k = *state;

	if (k->agent) {
		memstore_thaw(k->store);
		kit_stop(k, sw_s(1));
	}
	kit_check(k);
	memstore_free(k->store);
	fakeexec_free(k->x);
	assert_int_equal(sw_loop_free(k->loop), 0);
	free(k);
	return 0;
}

void kit_settle(struct kit *k)
{
	sw_fake_advance(k->loop, sw_s(5));
}

void kit_ms(struct kit *k, unsigned ms)
{
	sw_fake_advance(k->loop, sw_ms(ms));
}

void kit_assign(struct kit *k, bool complete, const char *id, int desired, int state)
{
	Pb__AssignmentsMessage *m = fake_message(complete);

	fake_add_task(m, fake_task(id, desired, state), false);
	fakesource_send(k->src, m);
	kit_ms(k, 10);
}

void kit_remove(struct kit *k, const char *id)
{
	Pb__AssignmentsMessage *m = fake_message(false);

	fake_add_task(m, fake_task(id, 512, 192), true);
	fakesource_send(k->src, m);
	kit_ms(k, 10);
}

int kit_state(struct kit *k, const char *id)
{
	const struct memrow *r = memstore_row(k->store, id);

	return r && r->has_status ? r->state : -1;
}
