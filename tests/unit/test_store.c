/* Every operation of a batch, grouping, isolation, order, history, views, closing. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store_help.h"
#include <sqlite3.h>
#include <swarm/mem.h>

static struct sh h;

static int setup(void **state)
{
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	sh_init(&h);
	if (sh_open(&h, &err) < 0)
		fail_msg("%s", err.msg);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sh_done(&h);
	return 0;
}

#define sql(text)             sh_sql(h.path, text)
#define assert_sql(text, out) assert_string_equal(sql(text), out)

/* ---- rows */

struct seen {
	int n;
	char ids[16][32];
	struct store_task last; /* pointers are dead; plain values only */
};

static int on_full(void *arg, const struct store_task *t)
{
	struct seen *seen = arg;
	static const unsigned char data[] = "\x0a\x02id\xfa\xff\xff\xff\x0f\x03new\0tail";

	assert_string_equal(t->task_id, "t1");
	assert_int_equal(t->data_len, sizeof(data));
	assert_memory_equal(t->data, data, sizeof(data));
	assert_int_equal(t->phase, STORE_ASSIGNED);
	assert_int_equal(t->desired_state, 512);
	assert_string_equal(t->service_id, "svc1");
	assert_string_equal(t->service_name, "w\303\244b");
	assert_string_equal(t->name, "web.3.t1");
	assert_string_equal(t->image, "reg/bb:1@sha256:00");
	assert_string_equal(t->runtime, "container");
	assert_string_equal(t->node_id, "node1");
	assert_true(t->slot == UINT64_MAX);
	assert_true(t->spec_version == 1ull << 63);
	assert_true(t->has_status);
	assert_int_equal(t->status.data_len, 5);
	assert_memory_equal(t->status.data, "st\0at", 5);
	assert_int_equal(t->status.state, 576);
	assert_string_equal(t->status.message, "finished");
	assert_string_equal(t->status.err, "non-zero exit (3)");
	assert_true(t->status.at_ns == 1700000000123456789);
	assert_string_equal(t->status.container_id, "0123456789abcdef0123");
	assert_int_equal(t->status.pid, 4242);
	assert_true(t->status.has_exit_code);
	assert_int_equal(t->status.exit_code, 3);
	assert_string_equal(t->status.ports, "[]");
	assert_int_equal(t->status_seq, 1);
	assert_int_equal(t->acked_seq, 0);
	seen->n++;
	return 0;
}

/* Everything a task row has comes back byte by byte, after a restart too; inputs were copied. */
static void test_round_trip(void **state)
{
	static const unsigned char data[] = "\x0a\x02id\xfa\xff\xff\xff\x0f\x03new\0tail";
	char *mem = xmemdup(data, sizeof(data)), *id = xstrdup("t1"), *name = xstrdup("web.3.t1");
	struct store_task t = {.task_id = id,
		.data = mem,
		.data_len = sizeof(data),
		.desired_state = 512,
		.service_id = "svc1",
		.service_name = "w\303\244b",
		.name = name,
		.image = "reg/bb:1@sha256:00",
		.runtime = "container",
		.node_id = "node1",
		.slot = UINT64_MAX,
		.spec_version = 1ull << 63};
	struct store_status st = {.data = "st\0at",
		.data_len = 5,
		.state = 576,
		.message = "finished",
		.err = "non-zero exit (3)",
		.at_ns = 1700000000123456789,
		.container_id = "0123456789abcdef0123",
		.pid = 4242,
		.has_exit_code = true,
		.exit_code = 3,
		.ports = "[]"};
	struct store_batch *b = store_batch_new();
	struct seen seen = {0};

	(void)state;
	store_batch_task(b, &t);
	store_batch_status(b, id, &st, "exit");
	memset(mem, 'x', sizeof(data));
	memset(id, 'x', 2);
	memset(name, 'x', 8);
	free(mem);
	free(id);
	free(name);
	sh_must_commit(&h, b);
	assert_int_equal(store_load_tasks(h.store, on_full, &seen, NULL), 0);
	sh_close(&h);
	assert_int_equal(sh_open(&h, NULL), 0);
	assert_int_equal(store_load_tasks(h.store, on_full, &seen, NULL), 0);
	assert_int_equal(seen.n, 2);
}

static int on_bare(void *arg, const struct store_task *t)
{
	assert_string_equal(t->task_id, "bare");
	assert_int_equal(t->data_len, 0);
	assert_string_equal(t->name, "");
	assert_null(t->image);
	assert_null(t->service_id);
	assert_false(t->has_status);
	++*(int *)arg;
	return 0;
}

static void test_bare_task(void **state)
{
	struct store_task t = {.task_id = "bare"};
	struct store_batch *b = store_batch_new();
	int n = 0;

	(void)state;
	store_batch_task(b, &t);
	sh_must_commit(&h, b);
	assert_int_equal(store_load_tasks(h.store, on_bare, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_sql("SELECT name, state, message, reported FROM tasks_now", "|||no");
}

static int on_seen(void *arg, const struct store_task *t)
{
	struct seen *seen = arg;

	snprintf(seen->ids[seen->n++], sizeof(seen->ids[0]), "%s", t->task_id);
	seen->last = *t;
	return 0;
}

static int on_stop(void *arg, const struct store_task *t)
{
	(void)t;
	return ++*(int *)arg == 2 ? -77 : 1; /* positive: goes on */
}

/* Replacing keeps status and order; removing keeps everything; delete takes status along, not
 * history. */
static void test_life(void **state)
{
	struct store_task t = sh_task("a");
	struct store_batch *b;
	struct seen seen = {0};
	int n = 0;

	(void)state;
	sh_put(&h, "a");
	sh_put(&h, "b");
	sh_put(&h, "c");
	sh_put_status(&h, "a", 512, 5, "started");
	t.image = "bb:2";
	t.desired_state = 640;
	b = store_batch_new();
	store_batch_task(b, &t);
	sh_must_commit(&h, b);
	assert_sql("SELECT image, desired, state, phase FROM tasks_now WHERE task_id = 'a'",
		"bb:2|SHUTDOWN|RUNNING|assigned");

	b = store_batch_new();
	store_batch_removing(b, "a");
	store_batch_removing(b, "unknown");
	sh_must_commit(&h, b);
	assert_sql("SELECT phase, removed_at > 0 FROM tasks WHERE task_id = 'a'", "removing|1");
	assert_int_equal(store_load_tasks(h.store, on_seen, &seen, NULL), 0);
	assert_int_equal(seen.n, 3);
	assert_string_equal(seen.ids[0], "a");
	assert_string_equal(seen.ids[2], "c");
	assert_int_equal(store_load_tasks(h.store, on_stop, &n, NULL), -77);
	assert_int_equal(n, 2);

	/* assigned again under the same id */
	b = store_batch_new();
	store_batch_task(b, &t);
	sh_must_commit(&h, b);
	assert_sql("SELECT phase, removed_at IS NULL FROM tasks WHERE task_id = 'a'", "assigned|1");
	t.phase = STORE_REMOVING;
	b = store_batch_new();
	store_batch_task(b, &t);
	sh_must_commit(&h, b);
	assert_sql("SELECT phase, removed_at > 0 FROM tasks WHERE task_id = 'a'", "removing|1");

	b = store_batch_new();
	store_batch_delete(b, "a");
	store_batch_delete(b, "unknown");
	sh_must_commit(&h, b);
	assert_sql("SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM task_status),"
		   " (SELECT count(*) FROM status_history)",
		"2|0|1");
	assert_sql("SELECT service, slot, name, state, cause FROM task_history",
		"web|1|web.1|RUNNING|started");
	sh_put(&h, "a");
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(store_load_tasks(h.store, on_seen, &seen, NULL), 0);
	assert_string_equal(seen.ids[2], "a");
	assert_false(seen.last.has_status);
}

static void test_unknown_task_has_no_status(void **state)
{
	(void)state;
	sh_put_status(&h, "nobody", 512, 1, NULL);
	assert_sql(
		"SELECT (SELECT count(*) FROM task_status), (SELECT count(*) FROM status_history)",
		"0|0");
}

/* A lower state is refused and said, the rest of its batch goes on; the same state is fine. */
static void test_states_never_go_back(void **state)
{
	struct store_batch *b = store_batch_new();
	struct store_status low = sh_status(320, 20), same = sh_status(512, 30);
	const char *log;

	(void)state;
	sh_put(&h, "t");
	sh_put_status(&h, "t", 512, 10, "started");
	same.message = "still";
	store_batch_status(b, "t", &low, "bad");
	store_batch_status(b, "t", &same, "good");
	sh_log_begin();
	sh_must_commit(&h, b);
	log = sh_log_end();
	assert_non_null(strstr(log, "bug: status lower"));
	assert_non_null(strstr(log, "task=t stored=512 state=320"));
	assert_sql("SELECT state, message, at, seq FROM task_status", "512|still|30|2");
	assert_sql("SELECT state, cause FROM task_history", "RUNNING|started\nRUNNING|good");
}

/* Order inside a batch and between batches is the order of the calls. */
static void test_order(void **state)
{
	struct store_batch *b = store_batch_new();
	struct store_task t = sh_task("t");
	struct store_status st = sh_status(192, 1);

	(void)state;
	store_batch_status(b, "t", &st, "too early"); /* not there yet: ignored */
	store_batch_task(b, &t);
	store_batch_status(b, "t", &st, "first");
	st = sh_status(320, 2);
	store_batch_status(b, "t", &st, "second");
	store_batch_delete(b, "t");
	store_batch_task(b, &t);
	st = sh_status(256, 3);
	store_batch_status(b, "t", &st, "second life");
	sh_must_commit(&h, b);
	assert_sql("SELECT state, seq FROM task_status", "256|1");
	assert_sql("SELECT cause FROM task_history", "first\nsecond\nsecond life");
}

static void ack(const char *id, int64_t at)
{
	struct store_batch *b = store_batch_new();

	store_batch_acked(b, id, at);
	sh_must_commit(&h, b);
}

static void test_ack(void **state)
{
	struct store_batch *b = store_batch_new();
	struct store_status next = sh_status(512, 200);
	struct seen seen = {0};

	(void)state;
	ack("unknown", 1);
	sh_put(&h, "t");
	sh_put_status(&h, "t", 320, 100, NULL);
	assert_sql("SELECT reported FROM tasks_now", "no");
	ack("t", 99);
	ack("t", 101); /* a later clock does not stand for an earlier status */
	assert_sql("SELECT reported FROM tasks_now", "no");
	ack("t", 100);
	assert_sql("SELECT reported FROM tasks_now", "yes");
	sh_put_status(&h, "t", 448, 150, NULL);
	assert_sql("SELECT reported, state FROM tasks_now", "no|STARTING");
	/* the ack of a status that is no longer the current one */
	store_batch_status(b, "t", &next, NULL);
	store_batch_acked(b, "t", 150);
	sh_must_commit(&h, b);
	assert_sql("SELECT seq, acked_seq FROM task_status", "3|1");
	ack("t", 200);
	assert_int_equal(store_load_tasks(h.store, on_seen, &seen, NULL), 0);
	assert_int_equal(seen.last.status_seq, 3);
	assert_int_equal(seen.last.acked_seq, 3);
}

/* ---- node and managers */

static void on_node(void *arg, const struct store_node *n)
{
	++*(int *)arg;
	assert_string_equal(n->node_id, "n1");
	assert_string_equal(n->cluster_id, "c1");
	assert_string_equal(n->role, "worker");
	assert_string_equal(n->state, "joined");
	assert_string_equal(n->hostname, "box");
	assert_string_equal(n->availability, "drain");
	assert_null(n->session_state);
	assert_int_equal(n->object_len, 3);
	assert_memory_equal(n->object, "o\0b", 3);
}

static void test_node(void **state)
{
	struct store_node first = {.hostname = "box"};
	struct store_node second = {.node_id = "n1",
		.cluster_id = "c1",
		.role = "worker",
		.state = "joined",
		.availability = "active",
		.object = "o\0b",
		.object_len = 3};
	struct store_node third = {.availability = "drain"};
	struct store_node bad = {.state = "promoted"};
	struct store_batch *b;
	struct sw_err err;
	int n = 0;

	(void)state;
	assert_int_equal(store_load_node(h.store, on_node, &n, NULL), 0);
	b = store_batch_new();
	store_batch_node(b, &first);
	sh_must_commit(&h, b);
	assert_int_equal(store_load_node(h.store, on_node, &n, NULL), 0);
	assert_int_equal(n, 0); /* still new */
	assert_sql("SELECT state, hostname FROM node_now", "new|box");
	b = store_batch_new();
	store_batch_node(b, &second);
	store_batch_node(b, &third);
	sh_must_commit(&h, b);
	b = store_batch_new();
	store_batch_node(b, &bad);
	err = sh_commit(&h, b);
	assert_int_equal(err.cls, SW_REJECTED);
	assert_non_null(strstr(err.msg, "store node"));
	sh_close(&h);
	assert_int_equal(sh_open(&h, NULL), 0);
	assert_int_equal(store_load_node(h.store, on_node, &n, NULL), 0);
	assert_int_equal(n, 1);
}

static int on_manager(void *arg, const struct store_manager *m)
{
	char *text = arg;
	size_t n = strlen(text);

	snprintf(text + n, 512 - n, "%s,%s,%lld,%lld,%s;", m->node_id, m->addr,
		(long long)m->weight, (long long)m->last_ok_ns,
		m->last_error ? m->last_error : "-");
	return 0;
}

static void test_managers(void **state)
{
	struct store_manager m[] = {
		{.addr = "10.0.0.1:2377", .weight = -5},
		{.node_id = "m1",
			.addr = "10.0.0.1:2377",
			.weight = 10,
			.last_ok_ns = 1700000000000000000},
		{.node_id = "m2", .addr = "10.0.0.2:2377", .weight = 10, .last_error = "refused"},
		{.node_id = "m2", .addr = "10.0.0.2:2377", .weight = 7},
	};
	struct store_manager bad[] = {{.addr = "1:1"}, {.addr = ""}};
	struct store_batch *b = store_batch_new();
	char text[512] = "";
	struct sw_err err;

	(void)state;
	store_batch_managers(b, m, 4);
	sh_must_commit(&h, b);
	assert_int_equal(store_load_managers(h.store, on_manager, text, NULL), 0);
	assert_string_equal(text, "m1,10.0.0.1:2377,10,1700000000000000000,-;"
				  "m2,10.0.0.2:2377,7,0,-;,10.0.0.1:2377,-5,0,-;");
	assert_sql("SELECT node_id, addr, last_ok FROM managers_now WHERE weight = 10",
		"m1|10.0.0.1:2377|2023-11-14 22:13:20Z");
	b = store_batch_new();
	store_batch_managers(b, bad, 2);
	err = sh_commit(&h, b);
	assert_int_equal(err.cls, SW_REJECTED);
	assert_sql("SELECT count(*) FROM managers", "3"); /* the old list is back */
	b = store_batch_new();
	store_batch_managers(b, NULL, 0);
	sh_must_commit(&h, b);
	assert_sql("SELECT count(*) FROM managers", "0");
}

/* ---- grouping, isolation */

struct order {
	int n, next, failed;
	enum sw_errclass cls[64];
};
struct slot {
	struct order *o;
	int i;
};

static void on_ordered(void *arg, const struct sw_err *err)
{
	struct slot *s = arg;

	assert_int_equal(s->i, s->o->next);
	s->o->next++;
	s->o->cls[s->i % 64] = err ? err->cls : SW_OK;
	s->o->failed += err != NULL;
}

static void test_grouping(void **state)
{
	enum { N = 500 };
	static struct slot slots[N];
	struct order o = {.n = N};
	struct store_stats st0, st;
	char id[16] = "";

	(void)state;
	store_stats(h.store, &st0);
	for (int i = 0; i < N; i++) {
		struct store_batch *b = store_batch_new();
		struct store_task t = sh_task(id);

		snprintf(id, sizeof(id), "t%d", i);
		store_batch_task(b, &t);
		slots[i] = (struct slot){&o, i};
		store_commit(h.store, b, on_ordered, &slots[i]);
		store_stats(h.store, &st);
		assert_true(st.queued > 0);
		if (i % 50 == 49)
			sw_loop_once(h.loop, false); /* a job is on its way meanwhile */
	}
	while (o.next < N)
		sw_loop_once(h.loop, true);
	store_stats(h.store, &st);
	assert_int_equal(o.failed, 0);
	assert_int_equal(st.batches - st0.batches, N);
	assert_true(st.commits > st0.commits);
	assert_true(st.commits - st0.commits <= 12); /* one per round at most */
	assert_int_equal(st.queued, 0);
	assert_true(st.last_commit_ns > 0);
	assert_sql("SELECT count(*) FROM tasks", "500");
}

/* One bad batch among good ones of the same transaction: it alone fails, and all of it. */
static void test_bad_batch_fails_alone(void **state)
{
	static struct slot slots[5];
	struct order o = {.n = 5};
	struct store_manager none = {.addr = ""};
	struct store_stats st0, st;

	(void)state;
	store_stats(h.store, &st0);
	for (int i = 0; i < 5; i++) {
		struct store_batch *b = store_batch_new();
		char id[16] = "";
		struct store_task t = sh_task(id);

		snprintf(id, sizeof(id), "t%d", i);
		store_batch_task(b, &t);
		if (i == 2)
			store_batch_managers(b, &none, 1); /* breaks a constraint, late */
		if (i == 3)
			store_batch_removing(b, ""); /* never tried */
		slots[i] = (struct slot){&o, i};
		store_commit(h.store, b, on_ordered, &slots[i]);
	}
	while (o.next < 5)
		sw_loop_once(h.loop, true);
	store_stats(h.store, &st);
	assert_int_equal(st.commits - st0.commits, 1);
	assert_int_equal(st.failed - st0.failed, 2);
	assert_int_equal(o.cls[2], SW_REJECTED);
	assert_int_equal(o.cls[3], SW_REJECTED);
	assert_int_equal(o.failed, 2);
	assert_sql("SELECT group_concat(task_id) FROM (SELECT task_id FROM tasks ORDER BY 1)",
		"t0,t1,t4");
}

/* A batch whose memory cannot be had fails as temporary; nothing is read beyond what was given. */
static void test_no_memory(void **state)
{
	struct store_batch *b = store_batch_new();
	struct store_manager m = {.addr = "x"};
	struct sw_err err;

	(void)state;
	store_batch_managers(b, &m, SIZE_MAX / 2);
	err = sh_commit(&h, b);
	assert_int_equal(err.cls, SW_TEMPORARY);
	store_batch_free(NULL);
	b = store_batch_new();
	store_batch_delete(b, "x");
	store_batch_free(b);
}

static void test_empty_batch_and_no_callback(void **state)
{
	struct store_batch *b = store_batch_new();
	struct store_task t = sh_task("quiet");

	(void)state;
	store_batch_task(b, &t);
	store_commit(h.store, b, NULL, NULL);
	sh_must_commit(&h, store_batch_new()); /* durable behind the one before it */
	assert_sql("SELECT task_id FROM tasks", "quiet");
}

/* ---- history */

static void stored_days_ago(int seq, int days)
{
	char text[200];

	snprintf(text, sizeof(text),
		"UPDATE status_history SET stored_at = stored_at - %d * 86400000000000 WHERE seq = "
		"%d",
		days, seq);
	assert_string_equal(sh_sql_mode(h.path, text, SQLITE_OPEN_READWRITE), "");
}

static void test_history_by_count(void **state)
{
	(void)state;
	sh_put(&h, "t");
	store_set_history(h.store, 3, UINT64_MAX);
	for (int i = 0; i < 10; i++)
		sh_put_status(&h, "t", 512, i, NULL);
	assert_sql("SELECT min(seq), max(seq), count(*) FROM status_history", "8|10|3");
	store_set_history(h.store, 128, UINT64_MAX);
	for (int i = 0; i < 126; i++)
		sh_put_status(&h, "t", 512, 100 + i, NULL);
	assert_sql("SELECT min(seq), count(*) FROM status_history", "8|129"); /* within the slack */
	sh_put_status(&h, "t", 512, 1000, NULL);
	assert_sql("SELECT min(seq), count(*) FROM status_history", "8|130");
	sh_put_status(&h, "t", 512, 1001, NULL);
	assert_sql("SELECT min(seq), count(*) FROM status_history", "11|128");
	store_set_history(h.store, 0, UINT64_MAX);
	sh_put_status(&h, "t", 512, 1002, "last");
	assert_sql("SELECT cause FROM task_history", "last");
}

static void test_history_by_age(void **state)
{
	uint64_t day = 86400ull * 1000000000;

	(void)state;
	sh_put(&h, "t");
	for (int i = 1; i <= 5; i++)
		sh_put_status(&h, "t", 512, i, NULL); /* their own times are from 1970: no matter */
	assert_sql("SELECT count(*) FROM status_history", "5");
	store_set_history(h.store, UINT64_MAX, 5 * day);
	stored_days_ago(1, 8);
	stored_days_ago(2, 6);
	stored_days_ago(3, 4);
	stored_days_ago(4, 9); /* never from the middle */
	sh_put_status(&h, "t", 512, 6, NULL);
	assert_sql("SELECT group_concat(seq) FROM status_history", "3,4,5,6");
	store_set_history(h.store, 1000, 0);
	sh_put_status(&h, "t", 512, 7, "last");
	assert_sql("SELECT seq, cause FROM task_history", "7|last");
}

/* A backlog goes in steps: no commit pays for all of it. */
static void test_history_backlog(void **state)
{
	(void)state;
	sh_put(&h, "t");
	assert_string_equal(
		sh_sql_mode(h.path,
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
			"5000)"
			" INSERT INTO status_history (seq, task_id, state, at, stored_at)"
			" SELECT i, 't', 512, i, i FROM n",
			SQLITE_OPEN_READWRITE),
		"");
	store_set_history(h.store, 4000, UINT64_MAX);
	sh_put_status(&h, "t", 512, 1, NULL);
	assert_sql("SELECT count(*) FROM status_history", "4000");
	store_set_history(h.store, 10, UINT64_MAX);
	sh_put_status(&h, "t", 512, 2, NULL);
	assert_sql("SELECT count(*) FROM status_history", "2000");
	store_set_history(h.store, 10000, 86400);
	sh_put_status(&h, "t", 512, 3, NULL);
	assert_sql("SELECT count(*) < 3 FROM status_history", "1");
}

/* ---- what people see */

static void test_views(void **state)
{
	static const struct store_port ports[] = {{"tcp", 80, 8080}, {"udp", 53, 0}};
	struct store_task t = sh_task("zzz1"), g = sh_task("aaa2");
	struct store_status st = sh_status(512, 1700000000123456789);
	struct store_batch *b = store_batch_new();
	char *json = store_ports_json(ports, 2);

	(void)state;
	assert_string_equal(json, "[{\"protocol\":\"tcp\",\"target\":80,\"published\":8080},"
				  "{\"protocol\":\"udp\",\"target\":53,\"published\":0}]");
	assert_null(store_ports_json(ports, 0));
	g.slot = 0;
	g.service_name = "";
	g.service_id = "globalsvc";
	g.name = "agent.node1";
	st.container_id = "0123456789abcdef";
	st.ports = json;
	store_batch_task(b, &t);
	store_batch_task(b, &g);
	store_batch_status(b, "zzz1", &st, "container started");
	st.state = 704;
	st.err = "task: non-zero exit (3)";
	st.has_exit_code = true;
	st.exit_code = 3;
	st.ports = "not json";
	st.at_ns++;
	store_batch_status(b, "aaa2", &st, NULL);
	sh_must_commit(&h, b);
	free(json);
	assert_sql("SELECT service, slot, name, image, desired, state, message, err, exit_code,"
		   " container, ports, at, phase, reported, task_id FROM tasks_now",
		"globalsvc||agent.node1|bb:1|RUNNING|FAILED|msg|task: non-zero exit "
		"(3)|3|0123456789ab|"
		"not json|2023-11-14 22:13:20Z|assigned|no|aaa2\n"
		"web|1|web.1|bb:1|RUNNING|RUNNING|msg|||0123456789ab|8080->80/tcp 0->53/udp|"
		"2023-11-14 22:13:20Z|assigned|no|zzz1");
	assert_sql("SELECT * FROM task_history",
		"1|2023-11-14 22:13:20.123Z|web|1|web.1|RUNNING|RUNNING|msg|||0123456789ab|"
		"container started|zzz1\n"
		"2|2023-11-14 22:13:20.123Z|globalsvc||agent.node1|FAILED|RUNNING|msg|"
		"task: non-zero exit (3)|3|0123456789ab||aaa2");
	assert_sql("SELECT count(*) FROM task_history h JOIN tasks_now t USING (task_id)", "2");

	/* a state that this version has no name for; odd JSON breaks nothing */
	b = store_batch_new();
	st = sh_status(900, 1);
	st.ports = "[1,\"x\",null,{}]";
	store_batch_status(b, "zzz1", &st, NULL);
	sh_must_commit(&h, b);
	assert_sql("SELECT state, ports FROM tasks_now WHERE task_id = 'zzz1'", "900|?->?/?");
}

static void test_ports_escape(void **state)
{
	static const struct store_port odd = {"a\"\\\n", 1, 2};
	char *json = store_ports_json(&odd, 1);

	(void)state;
	assert_string_equal(
		json, "[{\"protocol\":\"a\\\"\\\\\\u000a\",\"target\":1,\"published\":2}]");
	free(json);
}

/* ---- closing */

struct chain {
	struct sh *h;
	int left, done, cancelled;
	bool close_first;
};

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void on_chain(void *arg, const struct sw_err *err)
{
	struct chain *c = arg;
	struct store_batch *b;
	char id[16] = "";
	struct store_task t = sh_task(id);

	c->done++;
	if (err) {
		assert_int_equal(err->cls, SW_CANCELLED);
		c->cancelled++;
		return;
	}
	if (c->left-- <= 0)
		return;
	snprintf(id, sizeof(id), "c%d", c->left);
	b = store_batch_new();
	store_batch_task(b, &t);
	store_commit(c->h->store, b, on_chain, c);
}

/* Queued work, and what its callbacks add, is committed before the end. */
static void test_close_flushes(void **state)
{
	struct chain c = {.h = &h, .left = 5};
	struct store_batch *b = store_batch_new();
	struct store_task t = sh_task("first");
	bool closed = false;

	(void)state;
	store_batch_task(b, &t);
	store_commit(h.store, b, on_chain, &c);
	store_close(h.store, on_closed, &closed);
	while (!closed)
		sw_loop_once(h.loop, true);
	h.store = NULL;
	assert_int_equal(c.done, 6);
	assert_int_equal(c.cancelled, 0);
	assert_sql("SELECT count(*) FROM tasks", "6");
	store_close(NULL, NULL, NULL);
}

static struct chain *late;

static void commit_late(void *arg)
{
	struct store_batch *b = store_batch_new();
	struct store_task t = sh_task("late");

	(void)arg;
	store_batch_task(b, &t);
	store_commit(h.store, b, on_chain, late);
}

/* After the queue ran empty the database closes; a batch from then on is cancelled, not lost in
 * silence. */
static void test_commit_while_closing(void **state)
{
	struct chain c = {.h = &h};
	bool closed = false;

	(void)state;
	late = &c;
	store_close(h.store, on_closed, &closed);
	sw_loop_once(h.loop, false); /* the job that closes the database is on its way */
	commit_late(NULL);
	while (!closed)
		sw_loop_once(h.loop, true);
	h.store = NULL;
	assert_int_equal(c.done, 1);
	assert_int_equal(c.cancelled, 1);
	assert_sql("SELECT count(*) FROM tasks", "0");
}

/* Loading waits for the commit that runs instead of disturbing it. */
static void test_load_while_busy(void **state)
{
	struct chain c = {.h = &h};
	struct seen seen = {0};

	(void)state;
	late = &c;
	commit_late(NULL);
	sw_loop_once(h.loop, false);
	assert_int_equal(store_load_tasks(h.store, on_seen, &seen, NULL), 0);
	while (!c.done)
		sw_loop_once(h.loop, true);
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(store_load_tasks(h.store, on_seen, &seen, NULL), 0);
	assert_int_equal(seen.n, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_round_trip),
		T(test_bare_task),
		T(test_life),
		T(test_unknown_task_has_no_status),
		T(test_states_never_go_back),
		T(test_order),
		T(test_ack),
		T(test_node),
		T(test_managers),
		T(test_grouping),
		T(test_bad_batch_fails_alone),
		T(test_no_memory),
		T(test_empty_batch_and_no_callback),
		T(test_history_by_count),
		T(test_history_by_age),
		T(test_history_backlog),
		T(test_views),
		T(test_ports_escape),
		T(test_close_flushes),
		T(test_commit_while_closing),
		T(test_load_while_busy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
