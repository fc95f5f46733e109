/* The agent as a whole between fakes: worker, task and agent cases (E, H, I, M,
 * Q). */
#include "agentkit.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/mem.h>

enum {
	ASSIGNED = 192,
	ACCEPTED = 256,
	PREPARING = 320,
	READY = 384,
	STARTING = 448,
	RUNNING = 512,
	COMPLETE = 576,
	SHUTDOWN = 640,
	FAILED = 704,
	REJECTED = 768,
	REMOVE = 800,
};

#define CALLS(k, id) (fakeexec_record((k)->x, id)->calls)

/* What the manager was told, without the steps on the way to RUNNING. */
static const char *reported(struct kit *k, const char *id)
{
	const char *all = fakesource_states(k->src, id), *p = strstr(all, "RUNNING");

	return p ? p : all;
}

/* ---- one task */

static void test_happy_path(void **state)
{
	struct kit *k = *state;
	const Pb__TaskStatus *st;

	kit_up(k);
	assert_int_equal(k->ready, 1);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller prepare start wait");
	assert_int_equal(fakesource_done(k->src), 1);
	st = fakesource_status(k->src, "t1");
	assert_int_equal(st->state, RUNNING);
	assert_string_equal(st->message, "started");
	assert_string_equal(st->container->container_id, "c-t1-1");
	assert_int_equal(st->container->pid, 4711);
	fakeexec_exit(k->x, "t1", 0);
	kit_settle(k);
	st = fakesource_status(k->src, "t1");
	assert_int_equal(st->state, COMPLETE);
	assert_string_equal(st->message, "finished");
	assert_int_equal(st->container->exit_code, 0);
	assert_string_equal(CALLS(k, "t1"), "controller prepare start wait"); /* and then silence */
	/* acknowledged in the store */
	assert_int_equal(
		memstore_row(k->store, "t1")->acked_at_ns, memstore_row(k->store, "t1")->at_ns);
	/* every step is in the history: assigned .. complete */
	assert_int_equal(memstore_row(k->store, "t1")->n_statuses, 7);
	kit_remove(k, "t1");
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller prepare start wait remove close");
	assert_int_equal(memstore_count(k->store), 0);
	assert_int_equal(fakeexec_containers(k->x), 0);
}

static void test_bad_exit(void **state)
{
	struct kit *k = *state;
	const Pb__TaskStatus *st;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	fakeexec_exit(k->x, "t1", 3);
	kit_settle(k);
	st = fakesource_status(k->src, "t1");
	assert_int_equal(st->state, FAILED);
	assert_string_equal(st->message, "started");
	assert_string_equal(st->err, "task: non-zero exit (3)");
	assert_int_equal(st->container->exit_code, 3);
	assert_true(memstore_row(k->store, "t1")->has_exit_code);
	assert_int_equal(memstore_row(k->store, "t1")->exit_code, 3);
}

static void test_desired_in_steps(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", ACCEPTED, ASSIGNED);
	kit_settle(k);
	assert_int_equal(kit_state(k, "t1"), ACCEPTED);
	kit_assign(k, false, "t1", READY, ASSIGNED);
	kit_settle(k);
	assert_int_equal(kit_state(k, "t1"), READY);
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_START], 0);
	kit_assign(k, false, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	assert_int_equal(kit_state(k, "t1"), RUNNING);
	assert_string_equal(CALLS(k, "t1"), "controller update prepare update start wait");
}

static void test_prepare_fails(void **state)
{
	struct kit *k = *state;
	const Pb__TaskStatus *st;

	kit_up(k);
	fakeexec_script(k->x, "t1", F_PREPARE,
		&(struct fake_script){.cls = SW_REJECTED, .text = "no such image"});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	st = fakesource_status(k->src, "t1");
	assert_int_equal(st->state, REJECTED);
	assert_string_equal(st->message, "preparing");
	assert_string_equal(st->err, "no such image");
}

static void test_start_fails(void **state)
{
	struct kit *k = *state;
	const Pb__TaskStatus *st;

	kit_up(k);
	fakeexec_script(k->x, "t1", F_START,
		&(struct fake_script){.cls = SW_FATAL,
			.text = "exec: not found",
			.has_exit = true,
			.exit_code = 127});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	st = fakesource_status(k->src, "t1");
	assert_int_equal(st->state, FAILED);
	assert_string_equal(st->message, "starting");
	assert_string_equal(st->err, "exec: not found");
	assert_int_equal(st->container->exit_code, 127);
}

static void test_shutdown_without_pause(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	kit_assign(k, false, "t1", SHUTDOWN, RUNNING);
	kit_ms(k, 20); /* not the second that a retry would take */
	assert_string_equal(CALLS(k, "t1"), "controller prepare start wait update shutdown");
	assert_int_equal(kit_state(k, "t1"), SHUTDOWN);
	assert_int_equal(fakeexec_record(k->x, "t1")->last_desired, SHUTDOWN);
	kit_settle(k);
	assert_string_equal(reported(k, "t1"), "RUNNING SHUTDOWN");
}

static void test_shutdown_of_a_new_task(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", REMOVE, ASSIGNED);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller shutdown");
	assert_int_equal(kit_state(k, "t1"), SHUTDOWN);
}

static void test_update_leaves_the_same_operation_alone(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakeexec_script(k->x, "t1", F_PREPARE, &(struct fake_script){.delay_ns = sw_s(2)});
	kit_assign(k, true, "t1", READY, ASSIGNED);
	kit_ms(k, 500);
	kit_assign(k, false, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller prepare update start wait");
	assert_int_equal(fakeexec_record(k->x, "t1")->n_cancels, 0);
	/* a shutdown cancels */
	fakeexec_script(k->x, "t2", F_PREPARE, &(struct fake_script){.hang = true});
	kit_assign(k, false, "t2", RUNNING, ASSIGNED);
	kit_settle(k);
	kit_assign(k, false, "t2", SHUTDOWN, ASSIGNED);
	kit_ms(k, 20);
	assert_string_equal(CALLS(k, "t2"), "controller prepare update shutdown");
}

static void test_same_update_disturbs_nothing(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	kit_assign(k, true, "t1", RUNNING, ACCEPTED); /* another status, an old one: ours wins */
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller prepare start wait");
	assert_int_equal(kit_state(k, "t1"), RUNNING);
}

static void test_lower_desired_is_not_even_stored(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", SHUTDOWN, ASSIGNED);
	kit_settle(k);
	kit_assign(k, false, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	assert_int_equal(memstore_row(k->store, "t1")->desired_state, SHUTDOWN);
	assert_int_equal(kit_state(k, "t1"), SHUTDOWN);
	assert_int_equal(fakesource_done(k->src), 2);
}

static void test_retry_backoff(void **state)
{
	struct kit *k = *state;
	const struct fake_record *r = fakeexec_record(k->x, "t1");
	unsigned requests;

	kit_up(k);
	fakeexec_default(
		k->x, F_PREPARE, &(struct fake_script){.cls = SW_TEMPORARY, .text = "engine away"});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_ms(k, 700);
	assert_int_equal(r->n[F_PREPARE], 1);
	assert_int_equal(kit_state(k, "t1"), PREPARING);
	assert_string_equal(memstore_row(k->store, "t1")->err, "engine away");
	kit_ms(k, 600); /* 1.3 s: the first retry is due at 0.8 .. 1.2 */
	assert_int_equal(r->n[F_PREPARE], 2);
	requests = fakesource_requests(k->src);
	/* 2 4 8 16 30 30 30 ... +-20 %: in 300 s between 10 and 17 */
	sw_fake_advance(k->loop, sw_s(300));
	assert_in_range(r->n[F_PREPARE], 10, 17);
	assert_int_equal(fakesource_requests(k->src), requests); /* nothing new, nothing said */
	/* progress resets */
	fakeexec_default(k->x, F_PREPARE, NULL);
	sw_fake_advance(k->loop, sw_s(40));
	assert_int_equal(kit_state(k, "t1"), RUNNING);
	assert_string_equal(memstore_row(k->store, "t1")->err, "");
}

/* ---- progress */

static const char *told(struct kit *k)
{
	return fakesource_status(k->src, "t1")->message;
}

static void test_progress(void **state)
{
	struct kit *k = *state;
	int n;

	kit_up(k);
	fakeexec_script(k->x, "t1", F_PREPARE, &(struct fake_script){.delay_ns = sw_s(60)});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_ms(k, 300);
	n = memstore_row(k->store, "t1")->n_statuses;
	fakeexec_progress(k->x, "t1", "pulling a: 1/3 layers");
	fakeexec_progress(k->x, "t1", "pulling a: 2/3 layers");
	kit_ms(k, 300);
	assert_string_equal(told(k), "preparing"); /* what is quick is not told */
	kit_ms(k, 1000);
	assert_string_equal(told(k), "preparing: pulling a: 2/3 layers"); /* the newest */
	assert_int_equal(kit_state(k, "t1"), PREPARING);
	assert_int_equal(memstore_row(k->store, "t1")->n_statuses, n + 1);
	/* a hundred lines within 1.9 s are two statuses, the next one due and the last one */
	for (int i = 0; i < 95; i++) {
		char line[32];

		snprintf(line, sizeof(line), "line %d", i);
		fakeexec_progress(k->x, "t1", line);
		kit_ms(k, 20);
	}
	kit_ms(k, 2500);
	assert_int_equal(memstore_row(k->store, "t1")->n_statuses, n + 3);
	assert_string_equal(told(k), "preparing: line 94");
	/* the same again is no news; bytes that are no UTF-8 do not spoil the report */
	fakeexec_progress(k->x, "t1", "line 94");
	kit_ms(k, 2500);
	assert_int_equal(memstore_row(k->store, "t1")->n_statuses, n + 3);
	fakeexec_progress(k->x, "t1", "bad \xff");
	kit_ms(k, 2500);
	assert_string_equal(told(k), "preparing: bad ?");
	/* what is not told when it ends never is */
	fakeexec_progress(k->x, "t1", "late");
	kit_ms(k, 10);
	fakeexec_progress(k->x, "t1", "later");
	sw_fake_advance(k->loop, sw_s(60));
	assert_string_equal(told(k), "started");
	assert_string_equal(reported(k, "t1"), "RUNNING");
}

/* A cancelled or failed preparation leaves no progress behind, and none comes after it. */
static void test_progress_ends(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakeexec_script(k->x, "t1", F_PREPARE,
		&(struct fake_script){
			.cls = SW_REJECTED, .text = "manifest unknown", .delay_ns = sw_s(5)});
	fakeexec_script(k->x, "t2", F_PREPARE,
		&(struct fake_script){.hang = true, .cancel_delay_ns = sw_s(5)});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_assign(k, false, "t2", RUNNING, ASSIGNED);
	kit_ms(k, 1500);
	fakeexec_progress(k->x, "t1", "pulling");
	fakeexec_progress(k->x, "t2", "pulling");
	kit_ms(k, 100);
	assert_string_equal(told(k), "preparing: pulling");
	fakeexec_progress(k->x, "t2", "pulling on");
	kit_assign(k, false, "t2", SHUTDOWN, ASSIGNED); /* with a line that waits */
	kit_ms(k, 4000);
	assert_string_equal(fakesource_status(k->src, "t2")->message, "preparing: pulling");
	kit_settle(k);
	assert_int_equal(kit_state(k, "t2"), SHUTDOWN);
	assert_int_equal(kit_state(k, "t1"), REJECTED);
	assert_string_equal(told(k), "preparing");
	assert_string_equal(fakesource_status(k->src, "t1")->err, "manifest unknown");
	/* a removal with a line that waits */
	fakeexec_script(k->x, "t3", F_PREPARE, &(struct fake_script){.hang = true});
	kit_assign(k, false, "t3", RUNNING, ASSIGNED);
	kit_ms(k, 100);
	fakeexec_progress(k->x, "t3", "pulling");
	kit_remove(k, "t3");
	kit_settle(k);
	assert_null(memstore_row(k->store, "t3"));
}

/* The message outlives a kill, and the next life goes on from there. */
static void test_progress_and_kill(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakeexec_default(k->x, F_PREPARE, &(struct fake_script){.delay_ns = sw_s(20)});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_ms(k, 1500);
	fakeexec_progress(k->x, "t1", "pulling");
	kit_ms(k, 100);
	assert_string_equal(told(k), "preparing: pulling");
	fakeexec_progress(k->x, "t1", "pulling on");
	kit_kill(k);
	kit_up(k);
	sw_fake_advance(k->loop, sw_s(30));
	assert_int_equal(kit_state(k, "t1"), RUNNING);
	assert_string_equal(told(k), "started");
}

static void test_update_during_the_retry_wait(void **state)
{
	struct kit *k = *state;
	const struct fake_record *r = fakeexec_record(k->x, "t1");

	kit_up(k);
	fakeexec_script(k->x, "t1", F_PREPARE, &(struct fake_script){.cls = SW_TEMPORARY});
	fakeexec_script(k->x, "t1", F_PREPARE, &(struct fake_script){.hang = true});
	kit_assign(k, true, "t1", READY, ASSIGNED);
	kit_ms(k, 100);
	kit_assign(k, false, "t1", RUNNING, ASSIGNED);
	kit_ms(k, 10);
	assert_int_equal(r->n[F_PREPARE], 2); /* at once */
	kit_settle(k);
	assert_int_equal(r->n[F_PREPARE], 2); /* and the old timer started nothing */
}

static void test_engine_is_back(void **state)
{
	struct kit *k = *state;
	struct executor *x = fakeexec_executor(k->x);

	kit_up(k);
	fakeexec_default(
		k->x, F_PREPARE, &(struct fake_script){.cls = SW_TEMPORARY, .text = "engine away"});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	sw_fake_advance(k->loop, sw_s(200)); /* the delay is at its 30 s */
	fakeexec_default(k->x, F_PREPARE, NULL);
	x->changed(x->changed_arg);
	kit_ms(k, 600);
	assert_int_equal(kit_state(k, "t1"), RUNNING);
}

static void test_controller_refused(void **state)
{
	struct kit *k = *state;
	const Pb__TaskStatus *st;

	kit_up(k);
	fakeexec_refuse(k->x, "t1", 1, SW_REJECTED, "mounts: cluster volumes are not supported");
	Pb__AssignmentsMessage *m = fake_message(true);
	fake_add_task(m, fake_task("t1", RUNNING, ASSIGNED), false);
	fake_add_task(m, fake_task("t2", RUNNING, ASSIGNED), false);
	fakesource_send(k->src, m);
	kit_settle(k);
	st = fakesource_status(k->src, "t1");
	assert_int_equal(st->state, REJECTED);
	assert_string_equal(st->message, "resolving controller failed");
	assert_string_equal(st->err, "mounts: cluster volumes are not supported");
	assert_int_equal(kit_state(k, "t2"), RUNNING);
	/* the next message that names it tries again; the end it had stays */
	m = fake_message(true);
	fake_add_task(m, fake_task("t1", RUNNING, ASSIGNED), false);
	fake_add_task(m, fake_task("t2", RUNNING, ASSIGNED), false);
	fakesource_send(k->src, m);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller controller");
	assert_int_equal(kit_state(k, "t1"), REJECTED);
}

static void test_controller_not_yet(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakeexec_refuse(k->x, "t1", 2, SW_TEMPORARY, "not yet");
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	assert_int_equal(kit_state(k, "t1"), RUNNING);
	assert_int_equal(fakeexec_record(k->x, "t1")->n_controllers, 3);
}

/* ---- sets of tasks */

static void send3(struct kit *k, bool complete, const char *a, const char *b, const char *c)
{
	Pb__AssignmentsMessage *m = fake_message(complete);
	const char *ids[] = {a, b, c};

	for (int i = 0; i < 3; i++)
		if (ids[i])
			fake_add_task(m, fake_task(ids[i], RUNNING, ASSIGNED), false);
	fakesource_send(k->src, m);
	kit_settle(k);
}

static void test_empty_messages(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakesource_send(k->src, fake_message(true));
	kit_settle(k);
	fakesource_send(k->src, fake_message(false));
	kit_settle(k);
	kit_remove(k, "unknown");
	kit_settle(k);
	assert_int_equal(fakesource_done(k->src), 3);
	assert_int_equal(memstore_count(k->store), 0);
}

static void test_complete_replaces(void **state)
{
	struct kit *k = *state;
	Pb__AssignmentsMessage *m;

	kit_up(k);
	send3(k, true, "t1", "t2", NULL);
	assert_int_equal(memstore_count(k->store), 2);
	/* REMOVEs in a COMPLETE are ignored; what is not in it goes */
	m = fake_message(true);
	fake_add_task(m, fake_task("t2", RUNNING, ASSIGNED), false);
	fake_add_task(m, fake_task("t3", RUNNING, ASSIGNED), false);
	fake_add_task(m, fake_task("t3", RUNNING, ASSIGNED), true);
	fakesource_send(k->src, m);
	kit_settle(k);
	assert_null(memstore_row(k->store, "t1"));
	assert_int_equal(kit_state(k, "t2"), RUNNING);
	assert_int_equal(kit_state(k, "t3"), RUNNING);
	assert_string_equal(CALLS(k, "t1"), "controller prepare start wait remove close");
	assert_string_equal(CALLS(k, "t2"), "controller prepare start wait");
	/* no final status of t1: the manager does not know it any more */
	assert_string_equal(reported(k, "t1"), "RUNNING");
	fakesource_send(k->src, fake_message(true));
	kit_settle(k);
	assert_int_equal(memstore_count(k->store), 0);
	assert_int_equal(fakeexec_containers(k->x), 0);
}

static void test_incremental(void **state)
{
	struct kit *k = *state;
	Pb__AssignmentsMessage *m;

	kit_up(k);
	send3(k, true, "t1", "t2", NULL);
	m = fake_message(false);
	fake_add_task(m, fake_task("t3", RUNNING, ASSIGNED), false);
	fake_add_task(m, fake_task("t1", RUNNING, ASSIGNED), true);
	fake_add_task(m, fake_task("t2", SHUTDOWN, ASSIGNED), false);
	fakesource_send(k->src, m);
	kit_settle(k);
	assert_null(memstore_row(k->store, "t1"));
	assert_int_equal(kit_state(k, "t2"), SHUTDOWN);
	assert_int_equal(kit_state(k, "t3"), RUNNING);
}

static void test_task_without_controller_goes(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakeexec_refuse(k->x, "t1", 9, SW_REJECTED, "no");
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	fakesource_send(k->src, fake_message(true));
	kit_settle(k);
	assert_int_equal(memstore_count(k->store), 0);
	/* and is not reported any more */
	fakesource_lose(k->src);
	fakesource_register(k->src);
	kit_settle(k);
	assert_string_equal(reported(k, "t1"), "REJECTED");
}

static void test_unknown_task_running_at_the_manager(void **state)
{
	struct kit *k = *state;
	const Pb__TaskStatus *st;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, RUNNING);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller wait");
	st = fakesource_status(k->src, "t1");
	assert_int_equal(st->state, FAILED);
	assert_string_equal(st->err, "no such container");
}

static void test_bad_ids_are_ignored(void **state)
{
	struct kit *k = *state;
	Pb__AssignmentsMessage *m = fake_message(true);
	Pb__Task *foreign = fake_task("t2", RUNNING, ASSIGNED);

	free(foreign->node_id);
	foreign->node_id = strdup("othernode");
	kit_up(k);
	fake_add_task(m, fake_task("../../etc", RUNNING, ASSIGNED), false);
	fake_add_task(m, fake_task("", RUNNING, ASSIGNED), false);
	fake_add_task(m, foreign, false);
	fake_add_task(m, fake_task("t3", RUNNING, ASSIGNED), false);
	fake_add_task(m, NULL, false);
	fakesource_send(k->src, m);
	kit_settle(k);
	assert_int_equal(memstore_count(k->store), 1);
	assert_int_equal(kit_state(k, "t3"), RUNNING);
	assert_int_equal(fakesource_done(k->src), 1);
}

/* ---- removal */

static void test_removal_is_retried(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	fakeexec_script(
		k->x, "t1", F_REMOVE, &(struct fake_script){.cls = SW_TEMPORARY, .text = "busy"});
	fakeexec_script(
		k->x, "t1", F_REMOVE, &(struct fake_script){.cls = SW_FATAL, .text = "dead"});
	kit_remove(k, "t1");
	assert_int_equal(memstore_row(k->store, "t1")->phase, STORE_REMOVING);
	kit_settle(k);
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_REMOVE], 3);
	assert_int_equal(fakeexec_record(k->x, "t1")->n_closes, 1);
	assert_null(memstore_row(k->store, "t1"));
}

static void test_removal_awaits_the_operation(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakeexec_script(k->x, "t1", F_START,
		&(struct fake_script){.hang = true, .cancel_delay_ns = sw_s(3)});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	kit_remove(k, "t1");
	kit_ms(k, 2000);
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_REMOVE], 0);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "controller prepare start remove close");
	assert_null(memstore_row(k->store, "t1"));
}

static void test_assigned_again_during_the_removal(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	fakeexec_script(k->x, "t1", F_REMOVE, &(struct fake_script){.delay_ns = sw_s(3)});
	kit_remove(k, "t1");
	kit_assign(k, false, "t1", RUNNING, ASSIGNED);
	kit_ms(k, 1000);
	assert_int_equal(memstore_row(k->store, "t1")->phase, STORE_REMOVING);
	assert_int_equal(fakeexec_record(k->x, "t1")->n_controllers, 1);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"),
		"controller prepare start wait remove close controller prepare start wait");
	assert_int_equal(memstore_row(k->store, "t1")->phase, STORE_ASSIGNED);
	assert_int_equal(kit_state(k, "t1"), RUNNING);
	/* and dropped again before it came to it */
	fakeexec_script(k->x, "t1", F_REMOVE, &(struct fake_script){.delay_ns = sw_s(3)});
	kit_remove(k, "t1");
	kit_assign(k, false, "t1", RUNNING, ASSIGNED);
	fakesource_send(k->src, fake_message(true));
	kit_settle(k);
	assert_int_equal(memstore_count(k->store), 0);
	assert_int_equal(fakeexec_record(k->x, "t1")->n_controllers, 2);
}

static void test_end_is_durable_before_the_container_goes(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	/* the status fails and waits for its retry, the removing mark gets through */
	memstore_fail(k->store, 1, SW_TEMPORARY);
	fakeexec_exit(k->x, "t1", 7);
	kit_ms(k, 5);
	kit_remove(k, "t1");
	kit_ms(k, 300);
	assert_int_equal(memstore_row(k->store, "t1")->phase, STORE_REMOVING);
	assert_int_equal(memstore_row(k->store, "t1")->state, RUNNING);
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_REMOVE], 0);
	kit_settle(k);
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_REMOVE], 1);
	assert_null(memstore_row(k->store, "t1"));
}

/* ---- the disk */

static void test_full_disk_assignment(void **state)
{
	struct kit *k = *state;
	struct agent_stats st;

	kit_up(k);
	memstore_fail(k->store, 3, SW_TEMPORARY);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_ms(k, 100);
	assert_string_equal(CALLS(k, "t1"), ""); /* nothing of it is visible */
	assert_int_equal(fakesource_done(k->src), 0);
	agent_stats(k->agent, &st);
	assert_true(st.store_trouble);
	kit_settle(k);
	assert_int_equal(kit_state(k, "t1"), RUNNING);
	assert_int_equal(fakesource_done(k->src), 1);
	agent_stats(k->agent, &st);
	assert_false(st.store_trouble);
}

static void test_full_disk_status(void **state)
{
	struct kit *k = *state;
	struct agent_stats st;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	memstore_fail(k->store, 4, SW_TEMPORARY);
	fakeexec_exit(k->x, "t1", 7);
	kit_ms(k, 300);
	assert_string_equal(reported(k, "t1"), "RUNNING");
	agent_stats(k->agent, &st);
	assert_true(st.store_trouble);
	sw_fake_advance(k->loop, sw_s(30));
	assert_string_equal(reported(k, "t1"), "RUNNING FAILED");
	assert_int_equal(fakesource_status(k->src, "t1")->container->exit_code, 7);
	agent_stats(k->agent, &st);
	assert_false(st.store_trouble);
}

/* A commit that carries nothing but acknowledgements is the one that fails. */
static void test_full_disk_acknowledgement(void **state)
{
	struct kit *k = *state;
	struct agent_stats st;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_ms(k, 500);
	assert_string_equal(reported(k, "t1"), "RUNNING");
	assert_int_not_equal(
		memstore_row(k->store, "t1")->acked_at_ns, memstore_row(k->store, "t1")->at_ns);
	memstore_fail(k->store, 1, SW_TEMPORARY);
	kit_ms(k, 800);
	agent_stats(k->agent, &st);
	assert_true(st.store_trouble);
	kit_settle(k);
	agent_stats(k->agent, &st);
	assert_false(st.store_trouble);
	assert_int_equal(
		memstore_row(k->store, "t1")->acked_at_ns, memstore_row(k->store, "t1")->at_ns);
	fakeexec_exit(k->x, "t1", 7);
	kit_settle(k);
	assert_string_equal(reported(k, "t1"), "RUNNING FAILED");
	assert_int_equal(
		memstore_row(k->store, "t1")->acked_at_ns, memstore_row(k->store, "t1")->at_ns);
}

/* ---- secrets */

static void test_secret_in_the_same_message(void **state)
{
	struct kit *k = *state;
	Pb__AssignmentsMessage *m = fake_message(true);

	kit_up(k);
	fake_add_task(m, fake_task_secret("t1", RUNNING, ASSIGNED, "s1"), false);
	fake_add_secret(m, fake_secret("s1", "geheim"), false);
	fakesource_send(k->src, m);
	kit_settle(k);
	assert_true(fakeexec_record(k->x, "t1")->had_secret);
	assert_int_equal(kit_state(k, "t1"), RUNNING);
}

static void test_restart_waits_for_secrets(void **state)
{
	struct kit *k = *state;
	Pb__AssignmentsMessage *m = fake_message(true);

	kit_up(k);
	fakeexec_script(k->x, "t1", F_PREPARE, &(struct fake_script){.hang = true});
	fake_add_task(m, fake_task_secret("t1", RUNNING, ASSIGNED, "s1"), false);
	fake_add_secret(m, fake_secret("s1", "geheim"), false);
	fakesource_send(k->src, m);
	kit_settle(k);
	kit_kill(k);
	kit_up(k);
	kit_settle(k);
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_PREPARE], 1); /* not yet again */
	m = fake_message(true);
	fake_add_task(m, fake_task_secret("t1", RUNNING, ASSIGNED, "s1"), false);
	fake_add_secret(m, fake_secret("s1", "geheim"), false);
	fakesource_send(k->src, m);
	kit_settle(k);
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_PREPARE], 2);
	assert_true(fakeexec_record(k->x, "t1")->had_secret);
	assert_int_equal(kit_state(k, "t1"), RUNNING);
}

/* ---- registrations */

static void test_reports_again_after_registration(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	send3(k, true, "t1", "t2", "t3");
	fakesource_lose(k->src);
	fakeexec_exit(k->x, "t2", 1);
	kit_settle(k);
	fakesource_register(k->src);
	kit_settle(k);
	assert_string_equal(reported(k, "t1"), "RUNNING RUNNING");
	assert_string_equal(reported(k, "t2"), "RUNNING FAILED");
	assert_int_equal(k->ready, 1);
}

static void test_no_description_no_registration(void **state)
{
	struct kit *k = *state;

	fakeexec_describe(k->x, NULL, false);
	kit_boot(k);
	sw_fake_advance(k->loop, sw_s(60));
	assert_false(fakesource_started(k->src));
	assert_in_range(fakeexec_described(k->x), 8, 200); /* backoff, no storm */
	fakeexec_describe(k->x, "late", false);
	sw_fake_advance(k->loop, sw_s(10));
	assert_true(fakesource_started(k->src));
	assert_string_equal(fakesource_hostname(k->src), "late");
}

static void test_slow_describe(void **state)
{
	struct kit *k = *state;
	unsigned before;

	kit_up(k);
	fakeexec_describe(k->x, "slow", true);
	sw_fake_advance(k->loop, sw_s(21));
	before = fakeexec_described(k->x);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	sw_fake_advance(k->loop, sw_s(120));
	assert_int_equal(fakeexec_described(k->x), before); /* one at a time */
	assert_int_equal(kit_state(k, "t1"), RUNNING);      /* and nobody waits for it */
	assert_string_equal(fakesource_hostname(k->src), "fake");
	fakeexec_describe(k->x, "slow", false);
	kit_ms(k, 10);
	assert_string_equal(fakesource_hostname(k->src), "slow");
}

static void test_failed_describe_keeps_the_last(void **state)
{
	struct kit *k = *state;
	unsigned n;

	kit_up(k);
	n = fakesource_describes(k->src);
	fakeexec_describe(k->x, NULL, false);
	sw_fake_advance(k->loop, sw_s(100));
	assert_int_equal(fakesource_describes(k->src), n);
	agent_identity_changed(k->agent); /* goes out without the engine */
	assert_int_equal(fakesource_describes(k->src), n + 1);
	assert_string_equal(fakesource_hostname(k->src), "fake");
}

static void test_executor_changed(void **state)
{
	struct kit *k = *state;
	struct executor *x = fakeexec_executor(k->x);

	kit_up(k);
	fakeexec_describe(k->x, "new", false);
	x->changed(x->changed_arg);
	kit_ms(k, 1);
	assert_string_equal(fakesource_hostname(k->src), "new");
}

static void test_node_and_keys(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	fakesource_node(k->src, "w1");
	fakesource_keys(k->src, 1);
	kit_settle(k);
	assert_int_equal(fakeexec_configured(k->x), 1);
	assert_int_equal(fakeexec_key_calls(k->x), 1);
	fakeexec_refuse_keys(k->x, 2);
	fakesource_keys(k->src, 2);
	sw_fake_advance(k->loop, sw_s(60));
	assert_int_equal(fakeexec_key_calls(k->x), 4); /* refused twice, taken at the third */
	assert_string_equal(memstore_node_state(k->store), "joined");
}

static void test_removed_from_swarm(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	fakesource_remove_node(k->src);
	kit_settle(k);
	assert_int_equal(k->failed, 1);
	assert_true(k->removed);
	assert_string_equal(memstore_node_state(k->store), "removed");
	assert_int_equal(fakeexec_record(k->x, "t1")->container, FC_RUNNING);
}

/* ---- restart */

static void test_kill_at_every_state(void **state)
{
	static const struct {
		enum fake_op hang; /* where the first life is killed */
		const char *calls; /* of the second life */
		int stored;
	} rows[] = {
		{F_PREPARE, "controller prepare start wait", PREPARING},
		{F_START, "controller start wait", STARTING},
		{F_WAIT, "controller wait", RUNNING},
	};
	struct kit *k = *state;

	for (size_t i = 0; i < 3; i++) {
		char id[16];
		size_t before;

		snprintf(id, sizeof(id), "t%zu", i);
		fakeexec_script(k->x, id, rows[i].hang, &(struct fake_script){.hang = true});
		kit_up(k);
		kit_assign(k, false, id, RUNNING, ASSIGNED);
		kit_settle(k);
		kit_kill(k);
		assert_int_equal(kit_state(k, id), rows[i].stored);
		before = strlen(CALLS(k, id));
		kit_boot(k); /* no manager needed */
		kit_settle(k);
		assert_string_equal(CALLS(k, id) + before + 1, rows[i].calls);
		assert_int_equal(kit_state(k, id), RUNNING);
		assert_int_equal(fakeexec_record(k->x, id)->n_containers, 1);
		fakesource_register(k->src);
		kit_settle(k);
		assert_int_equal(fakesource_status(k->src, id)->state, RUNNING);
		kit_stop(k, sw_s(1));
	}
}

static void test_restart_after_exit(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	send3(k, true, "t1", "t2", "t3");
	kit_kill(k);
	fakeexec_exit(k->x, "t1", 5);
	fakeexec_exit(k->x, "t2", 0);
	fakeexec_lose_container(k->x, "t3");
	kit_up(k);
	kit_settle(k);
	assert_int_equal(fakesource_status(k->src, "t1")->state, FAILED);
	assert_int_equal(fakesource_status(k->src, "t1")->container->exit_code, 5);
	assert_int_equal(fakesource_status(k->src, "t2")->state, COMPLETE);
	assert_int_equal(fakesource_status(k->src, "t3")->state, FAILED);
	assert_string_equal(fakesource_status(k->src, "t3")->err, "no such container");
	kit_kill(k);
	/* ends are told again, containers are not touched */
	kit_up(k);
	kit_settle(k);
	assert_string_equal(reported(k, "t1"), "FAILED");
	assert_int_equal(fakeexec_record(k->x, "t1")->n[F_START], 1);
}

static void test_removal_survives_a_kill(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	fakeexec_default(k->x, F_REMOVE, &(struct fake_script){.hang = true});
	kit_remove(k, "t1");
	kit_settle(k);
	kit_kill(k);
	assert_int_equal(memstore_row(k->store, "t1")->phase, STORE_REMOVING);
	fakeexec_default(k->x, F_REMOVE, NULL);
	kit_up(k);
	kit_settle(k);
	assert_null(memstore_row(k->store, "t1"));
	assert_int_equal(fakeexec_containers(k->x), 0);
	assert_null(fakesource_status(k->src, "t1")); /* never reported again */
}

static void test_kill_before_the_commit(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	memstore_hold(k->store, true);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	assert_string_equal(CALLS(k, "t1"), "");
	kit_kill(k);
	kit_up(k);
	kit_settle(k);
	assert_int_equal(memstore_count(k->store), 0);
	assert_int_equal(fakeexec_containers(k->x), 0);
}

static void test_stored_nonsense_ends_the_start(void **state)
{
	struct kit *k = *state;
	struct agent_config cfg = {.loop = k->loop,
		.store = k->store,
		.executor = fakeexec_executor(k->x),
		.node_id = FAKE_NODE};
	struct sw_err err = SW_ERR_NONE;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	kit_stop(k, sw_s(1));
	memstore_corrupt(k->store, "t1");
	k->src = fakesource_new(k->loop);
	cfg.source = fakesource_source(k->src);
	assert_int_equal(agent_new(&k->agent, &cfg, NULL, NULL, &err), 0);
	assert_true(agent_start(k->agent, &err) < 0);
	assert_non_null(strstr(err.msg, "t1"));
	kit_stop(k, 0);
}

static void test_config_is_checked(void **state)
{
	struct kit *k = *state;
	struct agent_config cfg = {
		.loop = k->loop, .store = k->store, .executor = fakeexec_executor(k->x)};
	struct sw_err err = SW_ERR_NONE;
	struct agent *a = NULL;

	assert_true(agent_new(&a, &cfg, NULL, NULL, &err) < 0);
	assert_non_null(strstr(err.msg, "source"));
	k->src = fakesource_new(k->loop);
	cfg.source = fakesource_source(k->src);
	assert_true(agent_new(&a, &cfg, NULL, NULL, &err) < 0);
	assert_non_null(strstr(err.msg, "node id"));
	assert_null(a);
	fakesource_free(k->src);
	k->src = NULL;
}

/* ---- stop and leave */

static void test_stop_touches_no_container(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	send3(k, true, "t1", "t2", "t3");
	fakeexec_script(k->x, "t4", F_PREPARE, &(struct fake_script){.hang = true});
	kit_assign(k, false, "t4", RUNNING, ASSIGNED);
	kit_settle(k);
	kit_stop(k, sw_s(5));
	assert_int_equal(fakeexec_containers(k->x), 3);
	assert_int_equal(fakeexec_record(k->x, "t1")->container, FC_RUNNING);
	assert_int_equal(kit_state(k, "t4"), PREPARING);
	assert_int_equal(memstore_count(k->store), 4);
}

static void test_stop_flushes(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	memstore_hold(k->store, true);
	fakeexec_exit(k->x, "t1", 9);
	kit_ms(k, 10);
	k->stopped = false;
	agent_stop(k->agent, sw_s(5), NULL, NULL);
	kit_ms(k, 1000);
	assert_false(fakesource_closed(k->src));
	memstore_hold(k->store, false);
	kit_ms(k, 100);
	assert_true(fakesource_closed(k->src)); /* long before the deadline */
	assert_int_equal(fakesource_status(k->src, "t1")->state, FAILED);
	agent_free(k->agent);
	k->agent = NULL;
	fakesource_free(k->src);
	k->src = NULL;
}

static void test_stop_deadline(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	fakeexec_script(k->x, "t1", F_SHUTDOWN, &(struct fake_script){.delay_ns = sw_s(60)});
	kit_assign(k, false, "t1", SHUTDOWN, ASSIGNED);
	kit_settle(k);
	agent_stop(k->agent, sw_s(5), NULL, NULL);
	kit_ms(k, 4900);
	assert_int_equal(
		fakeexec_record(k->x, "t1")->n_cancels, 1); /* the wait; the stop goes on */
	assert_int_equal(fakeexec_busy(k->x), 1);
	kit_ms(k, 200);
	assert_int_equal(fakeexec_busy(k->x), 0);
	assert_true(fakesource_closed(k->src));
	agent_free(k->agent);
	k->agent = NULL;
	fakesource_free(k->src);
	k->src = NULL;
}

static void on_left(void *arg, const struct sw_err *err)
{
	struct kit *k = arg;

	k->left = true;
	sw_err_copy(&k->left_err, err);
}

static void test_leave(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	send3(k, true, "t1", "t2", "t3");
	agent_leave(k->agent, sw_s(30), on_left, k);
	kit_assign(k, false, "t4", RUNNING, ASSIGNED); /* discarded */
	kit_settle(k);
	assert_true(k->left);
	assert_int_equal(k->left_err.cls, SW_OK);
	assert_int_equal(fakeexec_containers(k->x), 0);
	assert_int_equal(memstore_count(k->store), 0);
	assert_string_equal(reported(k, "t1"), "RUNNING"); /* no last words */
	assert_string_equal(memstore_node_state(k->store), "left");
	agent_free(k->agent);
	k->agent = NULL;
	fakesource_free(k->src);
	k->src = NULL;
}

static void test_leave_limit(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	send3(k, true, "t1", "t2", "t3");
	fakeexec_default(k->x, F_REMOVE, &(struct fake_script){.hang = true});
	agent_leave(k->agent, sw_s(10), on_left, k);
	kit_ms(k, 9000);
	assert_false(k->left);
	kit_settle(k);
	assert_true(k->left);
	assert_int_equal(k->left_err.cls, SW_TEMPORARY);
	assert_non_null(strstr(k->left_err.msg, "3 tasks"));
	assert_int_equal(memstore_row(k->store, "t1")->phase,
		STORE_REMOVING); /* goes on at the next start */
	agent_free(k->agent);
	k->agent = NULL;
	fakesource_free(k->src);
	k->src = NULL;
}

/* ---- orphans */

static void test_orphans(void **state)
{
	struct kit *k = *state;

	fakeexec_add_orphan(k->x, "c-lost", "web.1.lost", "lost");
	fakeexec_add_orphan(k->x, "c-t1", "web.1.t1", "t1");
	fakeexec_add_orphan(k->x, "c-unlabelled", "x", "");
	kit_up(k);
	sw_fake_advance(k->loop, sw_s(3600)); /* without a COMPLETE nobody knows */
	assert_true(fakeexec_has_container(k->x, "c-lost"));
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	sw_fake_advance(k->loop, sw_s(290));
	assert_true(fakeexec_has_container(k->x, "c-lost")); /* grace */
	sw_fake_advance(k->loop, sw_s(330));
	assert_false(fakeexec_has_container(k->x, "c-lost"));
	assert_true(fakeexec_has_container(k->x, "c-t1"));
	assert_true(fakeexec_has_container(k->x, "c-unlabelled"));
}

static void test_double_container(void **state)
{
	struct kit *k = *state;

	fakeexec_add_orphan(k->x, "c-mine", "web.1.t1", "t1");
	fakeexec_add_orphan(k->x, "c-second", "web.1.t1-old", "t1");
	kit_up(k);
	fakeexec_script(k->x, "t1", F_PREPARE, &(struct fake_script){.hang = true});
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	sw_fake_advance(k->loop, sw_s(700));
	assert_true(fakeexec_has_container(k->x, "c-mine"));
	assert_false(fakeexec_has_container(k->x, "c-second"));
}

/* ---- logs */

static void subscribe(struct kit *k, const char *id, const char *task, const char *service,
	bool follow, bool close)
{
	Pb__SubscriptionMessage m = PB__SUBSCRIPTION_MESSAGE__INIT;
	Pb__LogSelector sel = PB__LOG_SELECTOR__INIT;
	Pb__LogSubscriptionOptions opt = PB__LOG_SUBSCRIPTION_OPTIONS__INIT;
	char *t = (char *)(uintptr_t)task, *s = (char *)(uintptr_t)service;

	m.id = (char *)(uintptr_t)id;
	m.selector = &sel;
	m.close = close;
	if (task) {
		sel.task_ids = &t;
		sel.n_task_ids = 1;
	}
	if (service) {
		sel.service_ids = &s;
		sel.n_service_ids = 1;
	}
	opt.follow = follow;
	if (follow)
		m.options = &opt; /* without: the defaults */
	fakesource_subscribe(k->src, &m);
	kit_ms(k, 1);
}

static void test_logs(void **state)
{
	struct kit *k = *state;
	const struct fake_publisher *p;

	kit_up(k);
	send3(k, true, "t1", "t2", NULL);
	subscribe(k, "sub1", "t1", NULL, false, false);
	subscribe(k, "sub1", "t1", NULL, false, false); /* twice: ignored */
	assert_int_equal(fakeexec_log_streams(k->x, "t1"), 1);
	assert_int_equal(fakeexec_log_streams(k->x, "t2"), 0);
	fakeexec_log_line(k->x, "t1", "one\n");
	fakeexec_log_line(k->x, "t1", "two\n");
	fakeexec_log_end(k->x, "t1");
	kit_ms(k, 10);
	p = fakesource_publisher(k->src, "sub1");
	assert_string_equal(p->text, "one\ntwo\n");
	assert_string_equal(p->contexts, "service1/node1/t1 service1/node1/t1 ");
	assert_int_equal(p->n_sends, 1);
	assert_true(p->finished);
	/* no match: an answer all the same */
	subscribe(k, "sub2", "nobody", NULL, false, false);
	kit_ms(k, 10);
	assert_true(fakesource_publisher(k->src, "sub2")->finished);
}

static void test_logs_follow(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	subscribe(k, "sub1", NULL, "service1", true, false);
	kit_assign(k, false, "t2", RUNNING, ASSIGNED);
	kit_settle(k);
	assert_int_equal(fakeexec_log_streams(k->x, "t2"), 1);
	fakeexec_log_line(k->x, "t2", "later\n");
	fakeexec_log_end(k->x, "t1");
	fakeexec_log_end(k->x, "t2");
	kit_settle(k);
	assert_string_equal(fakesource_publisher(k->src, "sub1")->text, "later\n");
	assert_false(fakesource_publisher(k->src, "sub1")->finished);
	kit_assign(k, false, "t3", RUNNING, ASSIGNED);
	kit_settle(k);
	kit_remove(k, "t3"); /* its stream ends with its controller */
	kit_settle(k);
	subscribe(k, "sub1", NULL, NULL, false, true);
	assert_true(fakesource_publisher(k->src, "sub1")->cancelled);
	subscribe(k, "unknown", NULL, NULL, false, true); /* harmless */
}

static void test_logs_die_with_the_registration(void **state)
{
	struct kit *k = *state;

	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	subscribe(k, "sub1", "t1", NULL, true, false);
	fakesource_lose(k->src);
	assert_int_equal(fakeexec_log_streams(k->x, "t1"), 0);
	fakesource_register(k->src);
	subscribe(k, "sub1", "t1", NULL, true, false); /* sent again by the manager */
	assert_int_equal(fakeexec_log_streams(k->x, "t1"), 1);
	fakeexec_log_line(k->x, "t1", "again\n");
	kit_ms(k, 10);
	assert_string_equal(fakesource_publisher(k->src, "sub1")->text, "again\n");
}

static void test_logs_back_pressure(void **state)
{
	struct kit *k = *state;
	char line[1025];
	int n = 0;

	memset(line, 'x', 1024);
	line[1024] = '\0';
	kit_up(k);
	kit_assign(k, true, "t1", RUNNING, ASSIGNED);
	kit_settle(k);
	subscribe(k, "sub1", "t1", NULL, true, false);
	fakesource_stall_logs(k->src, true);
	while (n < 1000 && fakeexec_log_line(k->x, "t1", line))
		n++;
	assert_in_range(n, 10, 64); /* 64 KiB, then a pause */
	kit_settle(k);
	assert_true(fakeexec_log_paused(k->x, "t1"));
	fakesource_stall_logs(k->src, false);
	kit_ms(k, 10);
	assert_false(fakeexec_log_paused(k->x, "t1"));
	assert_true(fakesource_publisher(k->src, "sub1")->max_batch_bytes <= 64 * 1024);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
	const struct CMUnitTest tests[] = {
		T(test_happy_path),
		T(test_bad_exit),
		T(test_desired_in_steps),
		T(test_prepare_fails),
		T(test_start_fails),
		T(test_shutdown_without_pause),
		T(test_shutdown_of_a_new_task),
		T(test_update_leaves_the_same_operation_alone),
		T(test_same_update_disturbs_nothing),
		T(test_lower_desired_is_not_even_stored),
		T(test_retry_backoff),
		T(test_progress),
		T(test_progress_ends),
		T(test_progress_and_kill),
		T(test_update_during_the_retry_wait),
		T(test_engine_is_back),
		T(test_controller_refused),
		T(test_controller_not_yet),
		T(test_empty_messages),
		T(test_complete_replaces),
		T(test_incremental),
		T(test_task_without_controller_goes),
		T(test_unknown_task_running_at_the_manager),
		T(test_bad_ids_are_ignored),
		T(test_removal_is_retried),
		T(test_removal_awaits_the_operation),
		T(test_assigned_again_during_the_removal),
		T(test_end_is_durable_before_the_container_goes),
		T(test_full_disk_assignment),
		T(test_full_disk_status),
		T(test_full_disk_acknowledgement),
		T(test_secret_in_the_same_message),
		T(test_restart_waits_for_secrets),
		T(test_reports_again_after_registration),
		T(test_no_description_no_registration),
		T(test_slow_describe),
		T(test_failed_describe_keeps_the_last),
		T(test_executor_changed),
		T(test_node_and_keys),
		T(test_removed_from_swarm),
		T(test_kill_at_every_state),
		T(test_restart_after_exit),
		T(test_removal_survives_a_kill),
		T(test_kill_before_the_commit),
		T(test_stored_nonsense_ends_the_start),
		T(test_config_is_checked),
		T(test_stop_touches_no_container),
		T(test_stop_flushes),
		T(test_stop_deadline),
		T(test_leave),
		T(test_leave_limit),
		T(test_orphans),
		T(test_double_container),
		T(test_logs),
		T(test_logs_follow),
		T(test_logs_die_with_the_registration),
		T(test_logs_back_pressure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
