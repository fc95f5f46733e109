/* The agent on the real store: what people read with sqlite3, and restarts from the file. */
#include "fakeexec.h"
#include "fakesource.h"
#include "store_help.h"
#include "test.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/agent.h>
#include <swarm/log.h>
#include <swarm/mem.h>

struct env {
	struct sh sh;
	struct fakeexec *x;
	struct fakesource *src;
	struct agent *agent;
	bool stopped;
};

/* Fake time passes, but commits take their real time on the pool and are awaited. */
static void pass(struct env *e, unsigned ms)
{
	for (unsigned i = 0; i < 20; i++) {
		sw_fake_advance(e->sh.loop, sw_ms(ms) / 20);
		/* batches are durable in order: an empty one after all others */
		sh_must_commit(&e->sh, store_batch_new());
	}
}

static void boot(struct env *e)
{
	struct agent_config cfg = {.loop = e->sh.loop,
		.executor = fakeexec_executor(e->x),
		.node_id = FAKE_NODE,
		.cluster_id = "cluster1",
		.role = "swarm-worker"};
	struct sw_err err = SW_ERR_NONE;

	assert_int_equal(sh_open(&e->sh, &err), 0);
	e->src = fakesource_new(e->sh.loop);
	cfg.store = e->sh.store;
	cfg.source = fakesource_source(e->src);
	assert_int_equal(agent_new(&e->agent, &cfg, NULL, NULL, &err), 0);
	assert_int_equal(agent_start(e->agent, &err), 0);
	pass(e, 100);
	fakesource_register(e->src);
	pass(e, 100);
}

static void on_stopped(void *arg)
{
	((struct env *)arg)->stopped = true;
}

static void halt(struct env *e)
{
	e->stopped = false;
	agent_stop(e->agent, sw_s(2), on_stopped, e);
	pass(e, 10000);
	assert_true(e->stopped);
	agent_free(e->agent);
	e->agent = NULL;
	assert_int_equal(fakesource_went_back(e->src), 0);
	fakesource_free(e->src);
	e->src = NULL;
	sh_close(&e->sh);
}

static int setup(void **state)
{
	struct env *e = xcalloc(1, sizeof(*e));

	log_set_level((enum log_level)0);
	sh_init(&e->sh);
	sw_fake_clock(e->sh.loop, sw_s(1000));
	e->x = fakeexec_new(e->sh.loop);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	if (e->agent)
		halt(e);
	assert_int_equal(fakeexec_violations(e->x), 0);
	assert_int_equal(fakeexec_open_controllers(e->x), 0);
	fakeexec_free(e->x);
	sh_done(&e->sh);
	free(e);
	return 0;
}

static void assign(struct env *e, bool complete, const char *id, int desired)
{
	Pb__AssignmentsMessage *m = fake_message(complete);

	fake_add_task(m, fake_task(id, desired, 192), false);
	fakesource_send(e->src, m);
	pass(e, 200);
}

static void test_rows_for_people(void **state)
{
	struct env *e = *state;
	Pb__AssignmentsMessage *m;

	boot(e);
	fakesource_node(e->src, "w1");
	assign(e, true, "t1", 512);
	fakeexec_exit(e->x, "t1", 3);
	pass(e, 3000);
	assert_string_equal(
		sh_sql(e->sh.path,
			"SELECT task_id, name, image, desired, state, err, exit_code, reported"
			" FROM tasks_now"),
		"t1|web.1.t1|busybox:latest|RUNNING|FAILED|task: non-zero exit (3)|3|yes");
	assert_string_equal(sh_sql(e->sh.path, "SELECT group_concat(state, ' ') FROM"
					       " (SELECT state FROM task_history ORDER BY seq)"),
		"ASSIGNED ACCEPTED PREPARING READY STARTING RUNNING FAILED");
	assert_string_equal(sh_sql(e->sh.path, "SELECT state, hostname, session_state FROM node"),
		"joined|w1|registered");
	m = fake_message(false);
	fake_add_task(m, fake_task("t1", 512, 192), true);
	fakesource_send(e->src, m);
	pass(e, 1000);
	assert_string_equal(sh_sql(e->sh.path, "SELECT count(*) FROM tasks"), "0");
}

static void test_restart(void **state)
{
	struct env *e = *state;

	boot(e);
	assign(e, true, "t1", 512);
	assign(e, false, "t2", 512);
	fakeexec_script(e->x, "t3", F_PREPARE, &(struct fake_script){.hang = true});
	assign(e, false, "t3", 512);
	fakeexec_default(e->x, F_REMOVE, &(struct fake_script){.hang = true});
	assign(e, false, "t4", 512);
	Pb__AssignmentsMessage *m = fake_message(false);
	fake_add_task(m, fake_task("t4", 512, 192), true);
	fakesource_send(e->src, m);
	pass(e, 500);
	assert_string_equal(
		sh_sql(e->sh.path, "SELECT task_id FROM tasks WHERE phase = 'removing'"), "t4");
	halt(e);
	fakeexec_default(e->x, F_REMOVE, NULL);
	fakeexec_exit(e->x, "t2", 4);
	boot(e);
	pass(e, 1000);
	assert_string_equal(
		sh_sql(e->sh.path, "SELECT task_id, state, exit_code FROM tasks_now ORDER BY 1"),
		"t1|RUNNING|\nt2|FAILED|4\nt3|RUNNING|");
	assert_int_equal(fakesource_status(e->src, "t2")->container->exit_code, 4);
	assert_int_equal(fakeexec_record(e->x, "t1")->n_containers, 1);
	assert_int_equal(fakeexec_record(e->x, "t4")->container, FC_NONE);
	/* unknown fields and all: the same task again is the same task */
	assign(e, true, "t1", 512);
	assert_string_equal(
		sh_sql(e->sh.path, "SELECT group_concat(task_id) FROM tasks_now"), "t1");
	assert_string_equal(fakeexec_record(e->x, "t1")->calls,
		"controller prepare start wait close controller wait");
}

/* A field that this agent does not know comes back from the store as it was. */
static void test_unknown_fields_survive(void **state)
{
	static uint8_t extra[] = {0xf2, 0x3f, 3, 'x', 'y', 'z'}; /* field 1022, bytes */
	struct env *e = *state;
	Pb__AssignmentsMessage *m = fake_message(true);
	Pb__Task *bare = fake_task("t1", 512, 192), *t;
	size_t len;
	uint8_t *data = api_pack(&bare->base, &len);

	api_free(bare);
	data = xrealloc(data, len + sizeof(extra), 1);
	memcpy(data + len, extra, sizeof(extra));
	t = (Pb__Task *)(void *)api_unpack(&pb__task__descriptor, data, len + sizeof(extra), NULL);
	assert_int_equal(t->base.n_unknown_fields, 1);
	free(data);
	boot(e);
	fake_add_task(m, t, false);
	fakesource_send(e->src, m);
	pass(e, 500);
	assert_string_equal(
		sh_sql(e->sh.path,
			"SELECT instr(data, x'f23f0378797a') > 0, typeof(data) FROM tasks"),
		"1|blob");
	halt(e);
	boot(e);
	/* without the field it is another task spec: an update */
	assign(e, true, "t1", 512);
	assert_int_equal(fakeexec_record(e->x, "t1")->n_updates, 1);
}

/* No secret ever reaches the file. */
static void test_no_secret_on_disk(void **state)
{
	struct env *e = *state;
	Pb__AssignmentsMessage *m = fake_message(true);
	char *bytes;
	char path[320];
	size_t len;

	boot(e);
	fake_add_secret(m, fake_secret("s1", "topsecretpayload"), false);
	fake_add_task(m, fake_task_secret("t1", 512, 192, "s1"), false);
	fakesource_send(e->src, m);
	pass(e, 500);
	assert_true(fakeexec_record(e->x, "t1")->had_secret);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s%s", e->sh.path, i ? "-wal" : "");
		bytes = sh_slurp(path, &len);
		assert_null(memmem(bytes, len, "topsecretpayload", 16));
		free(bytes);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_rows_for_people),
		T(test_restart),
		T(test_unknown_fields_survive),
		T(test_no_secret_on_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
