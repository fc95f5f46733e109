/* The agent with the real dispatcher and the real store against the test manager; only the
 * containers are fakes. */
#include "fakeexec.h"
#include "nodekit.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <test.h>

#include <swarm/agent.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/source.h>
#include <swarm/store.h>

struct env {
	struct nodekit k;
	struct store *store;
	struct fakeexec *x;
	struct agent *agent;
	unsigned ready;
	bool done, removed;
};

static struct env e;

static int setup(void **state)
{
	(void)state;
	memset(&e, 0, sizeof(e));
	log_set_level(getenv("KIT_LOG") ? LOG_L_DEBUG : (enum log_level)0);
	nk_setup(&e.k, &(struct nk_config){.orchestrate = true});
	e.x = fakeexec_new(e.k.loop);
	return 0;
}

static void on_done(void *arg)
{
	(void)arg;
	e.done = true;
}

static void on_ready(void *arg)
{
	(void)arg;
	e.ready++;
}

static void on_failed(void *arg, const struct sw_err *err, bool removed)
{
	(void)arg;
	(void)err;
	e.removed = removed;
}

static void boot(void)
{
	static const struct agent_events ev = {.ready = on_ready, .failed = on_failed};
	struct agent_config cfg = {.loop = e.k.loop, .executor = fakeexec_executor(e.x)};
	struct sw_err err = SW_ERR_NONE;
	char path[128];

	snprintf(path, sizeof(path), "%s/agent.db", e.k.dir);
	assert_int_equal(store_open(&e.store, e.k.loop, path, &err), 0);
	assert_int_equal(source_dispatcher_new(&cfg.source,
				 &(struct source_dispatcher_config){.loop = e.k.loop,
					 .store = e.store,
					 .remotes = e.k.remotes,
					 .identity = e.k.identity},
				 &err),
		0);
	cfg.store = e.store;
	cfg.node_id = identity_node_id(e.k.identity);
	cfg.cluster_id = identity_cluster_id(e.k.identity);
	cfg.role = identity_role(e.k.identity);
	assert_int_equal(agent_new(&e.agent, &cfg, &ev, NULL, &err), 0);
	assert_int_equal(agent_start(e.agent, &err), 0);
}

static void halt(void)
{
	e.done = false;
	agent_stop(e.agent, sw_s(2), on_done, NULL);
	nk_wait_flag(&e.k, &e.done);
	sw_loop_once(e.k.loop, false);
	agent_free(take(e.agent));
	e.done = false;
	store_close(take(e.store), on_done, NULL);
	nk_wait_flag(&e.k, &e.done);
}

static void remove_db(void)
{
	DIR *d = opendir(e.k.dir);
	const struct dirent *f;

	while (d && (f = readdir(d)))
		if (sw_starts_with(f->d_name, "agent.db"))
			unlinkat(dirfd(d), f->d_name, 0);
	if (d)
		closedir(d);
}

static int teardown(void **state)
{
	(void)state;
	if (e.agent)
		halt();
	assert_int_equal(tm_report_faults(e.k.tm), 0);
	assert_int_equal(fakeexec_violations(e.x), 0);
	fakeexec_free(e.x);
	remove_db(); /* the kit wants to find its own files only */
	nk_teardown(&e.k);
	return 0;
}

static void up(void)
{
	nk_join(&e.k);
	boot();
	NK_UNTIL(&e.k, e.ready);
}

static struct agent_stats stats(void)
{
	struct agent_stats st;

	agent_stats(e.agent, &st);
	return st;
}

static void create(unsigned replicas)
{
	static const char *const args[] = {"sleep", "1000"};

	assert_non_null(tm_service_create(e.k.tm, "web",
		&(struct tm_service){.image = "busybox",
			.args = args,
			.n_args = 2,
			.replicas = replicas,
			.restart_delay_ns = sw_ms(10)}));
}

static void scale_up_and_down(void **state)
{
	(void)state;
	up();
	assert_true(stats().registered);
	assert_string_equal(stats().manager_addr, tm_addr(e.k.tm, 0));
	create(5);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 5);
	tm_service_scale(e.k.tm, "web", 30);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 30);
	assert_int_equal(stats().running, 30);
	tm_service_scale(e.k.tm, "web", 0);
	NK_UNTIL(&e.k, fakeexec_containers(e.x) == 0 && stats().tasks + stats().removing == 0);
}

static void failed_task_is_replaced(void **state)
{
	struct tm_task t;
	char id[80];

	(void)state;
	up();
	create(1);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 1);
	assert_int_equal(tm_tasks(e.k.tm, NULL, &t, 1), 1);
	snprintf(id, sizeof(id), "%s", t.id);
	fakeexec_exit(e.x, id, 7);
	NK_UNTIL(&e.k,
		tm_status(e.k.tm, id) && tm_status(e.k.tm, id)->state == PB__TASK_STATE__FAILED);
	assert_int_equal(tm_status(e.k.tm, id)->container->exit_code, 7);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 1);
}

static void reports_survive_a_bad_manager(void **state)
{
	(void)state;
	up();
	tm_inject(e.k.tm, TM_UPDATE_STATUS,
		&(struct tm_fault_spec){
			.fault = TM_ERROR, .n = 2, .code = 14, .text = "unavailable"});
	create(10);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 10);
	tm_inject(e.k.tm, TM_UPDATE_STATUS, &(struct tm_fault_spec){.fault = TM_CUT, .n = 2});
	tm_service_scale(e.k.tm, "web", 20);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 20);
	/* refusals of that kind say nothing about the session, and one task's is not the others' */
	tm_inject(e.k.tm, TM_UPDATE_STATUS,
		&(struct tm_fault_spec){.fault = TM_ERROR,
			.n = 1,
			.code = 7,
			.text = "cannot update a task not assigned this node"});
	tm_service_scale(e.k.tm, "web", 25);
	NK_UNTIL(&e.k, stats().running == 25 && !stats().pending_reports);
}

static void manager_away(void **state)
{
	struct tm_task t;
	char id[80];

	(void)state;
	up();
	create(3);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 3);
	tm_tasks(e.k.tm, NULL, &t, 1);
	snprintf(id, sizeof(id), "%s", t.id);
	tm_manager_stop(e.k.tm, 0);
	NK_UNTIL(&e.k, !stats().registered);
	fakeexec_exit(e.x, id, 5); /* nobody is told now */
	NK_UNTIL(&e.k, stats().pending_reports >= 1);
	tm_manager_start(e.k.tm, 0);
	NK_UNTIL(&e.k, tm_status(e.k.tm, id)->state == PB__TASK_STATE__FAILED);
	assert_int_equal(tm_status(e.k.tm, id)->container->exit_code, 5);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 3);
}

static void restart_adopts(void **state)
{
	struct tm_task t[3];

	(void)state;
	up();
	create(3);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 3);
	halt();
	/* the managers come from the store */
	remotes_remove(e.k.remotes, tm_manager_id(e.k.tm, 0), tm_addr(e.k.tm, 0));
	assert_int_equal(remotes_count(e.k.remotes), 0);
	e.ready = 0;
	boot();
	assert_int_equal(remotes_count(e.k.remotes), 1);
	NK_UNTIL(&e.k, e.ready && stats().running == 3 && !stats().pending_reports);
	assert_int_equal(tm_service_running(e.k.tm, "web"), 3);
	assert_int_equal(tm_tasks(e.k.tm, NULL, t, 3), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fakeexec_record(e.x, t[i].id)->n_containers, 1);
		assert_int_equal(fakeexec_record(e.x, t[i].id)->n[F_START], 1);
	}
}

static void node_removed(void **state)
{
	(void)state;
	up();
	create(2);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 2);
	tm_node_remove(e.k.tm, identity_node_id(e.k.identity));
	NK_UNTIL(&e.k, e.removed);
}

static void service_logs(void **state)
{
	struct tm_task t;
	struct tm_logs l;
	const char *sub, *none;
	char id[80];

	(void)state;
	up();
	create(1);
	NK_UNTIL(&e.k, tm_service_running(e.k.tm, "web") == 1);
	tm_tasks(e.k.tm, NULL, &t, 1);
	snprintf(id, sizeof(id), "%s", t.id);
	sub = tm_logs_open(e.k.tm, NULL, id, NULL, true, -1);
	NK_UNTIL(&e.k, fakeexec_log_streams(e.x, id) == 1);
	fakeexec_log_line(e.x, id, "hello\n");
	fakeexec_log_line(e.x, id, "world\n");
	NK_UNTIL(&e.k, tm_logs(e.k.tm, sub, &l) && l.messages == 2);
	assert_string_equal(tm_logs_text(e.k.tm, sub), "hello\nworld\n");
	tm_logs_close(e.k.tm, sub);
	NK_UNTIL(&e.k, fakeexec_log_streams(e.x, id) == 0);
	/* nothing here for it: answered all the same */
	none = tm_logs_open(e.k.tm, NULL, "nosuchtask", identity_node_id(e.k.identity), false, -1);
	NK_UNTIL(&e.k, fakeexec_log_streams(e.x, id) == 1);
	fakeexec_log_end(e.x, id);
	NK_UNTIL(&e.k, tm_logs(e.k.tm, none, &l) && l.closed_by_node);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(scale_up_and_down),
		T(failed_task_is_replaced),
		T(reports_survive_a_bad_manager),
		T(manager_away),
		T(restart_adopts),
		T(node_removed),
		T(service_logs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
