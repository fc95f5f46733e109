/* The store while others are in the same file: readers, one that stays, one that writes. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "store_help.h"
#include <sqlite3.h>
#include <swarm/log.h>

static struct sh h;

static int setup(void **state)
{
	(void)state;
	sh_init(&h);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sh_done(&h);
	return 0;
}

/* A helper process: @to it and @from it, one byte each for "go on" and "here I am". Started before
 * the store is open, because sqlite's state must not be carried across a fork; begins when told. */
struct person {
	pid_t pid;
	int to, from;
};

static struct person start(int (*body)(int in, int out))
{
	int in[2], out[2];
	struct person p;

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	p.pid = fork();
	assert_true(p.pid >= 0);
	if (p.pid == 0) {
		char c;

		alarm(120);
		close(in[1]);
		close(out[0]);
		_exit(read(in[0], &c, 1) == 1 ? body(in[0], out[1]) : 9);
	}
	close(in[0]);
	close(out[1]);
	p.to = in[1];
	p.from = out[0];
	return p;
}

static void hear(struct person *p)
{
	char c;

	assert_int_equal(read(p->from, &c, 1), 1);
}

static void tell(struct person *p)
{
	assert_int_equal(write(p->to, "x", 1), 1);
}

static void end(struct person *p)
{
	int status;

	(void)!write(p->to, "x", 1); /* it may have gone already */
	close(p->to);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	close(p->from);
	assert_int_equal(status, 0);
}

static bool told(int in)
{
	struct pollfd pfd = {.fd = in, .events = POLLIN};

	return poll(&pfd, 1, 0) > 0; /* a closed pipe too */
}

/* ---- many short readers */

/* What people do with sqlite3, with no patience at all: a lock is a failure. */
static int curious(int in, int out)
{
	static const char *const looks[] = {
		"SELECT count(*), max(at) FROM tasks_now",
		"SELECT state, count(*) FROM tasks_now GROUP BY 1",
		"SELECT * FROM task_history ORDER BY seq DESC LIMIT 50",
		"SELECT * FROM node_now",
	};

	for (unsigned n = 0; !told(in); n++) {
		const char *r = sh_sql(h.path, looks[n % 4]);

		if (strncmp(r, "error", 5) == 0) {
			dprintf(STDERR_FILENO, "reader: %s\n", r);
			return 1;
		}
		if (n % 4 == 3 && n < 40 && write(out, "x", 1) != 1)
			return 1;
	}
	return 0;
}

struct load {
	int started, done, failed, total, in_flight;
	size_t blob;
	char *mem;
};

static void next(struct load *l);

static void on_load(void *arg, const struct sw_err *err)
{
	struct load *l = arg;

	l->done++;
	if (err) {
		l->failed++;
		dprintf(STDERR_FILENO, "commit: %s\n", err->msg);
	}
	next(l);
}

/* New tasks, their statuses, and the end of old ones. */
static void next(struct load *l)
{
	while (l->started < l->total && l->started - l->done < l->in_flight) {
		struct store_batch *b = store_batch_new();
		int i = l->started++;
		char id[16] = "";
		struct store_task t;
		struct store_status st = sh_status(512, i);

		snprintf(id, sizeof(id), "t%d", i % 300);
		t = sh_task(id);
		if (l->blob) {
			t.data = l->mem;
			t.data_len = l->blob;
		}
		store_batch_task(b, &t);
		store_batch_status(b, id, &st, "load");
		snprintf(id, sizeof(id), "t%d", (i + 150) % 300);
		store_batch_delete(b, id);
		store_commit(h.store, b, on_load, l);
	}
}

static void run_load(struct load *l)
{
	next(l);
	while (l->done < l->total)
		sw_loop_once(h.loop, true);
	assert_int_equal(l->failed, 0);
}

static void test_readers_and_5000_writes(void **state)
{
	struct load l = {.total = 5000, .in_flight = 32};
	struct person a, b;

	(void)state;
	a = start(curious);
	b = start(curious);
	assert_int_equal(sh_open(&h, NULL), 0);
	sh_put(&h, "t0");
	tell(&a);
	tell(&b);
	hear(&a); /* both are in their round */
	hear(&b);
	run_load(&l);
	for (int i = 0; i < 5; i++) { /* and got on meanwhile or at least now */
		hear(&a);
		hear(&b);
	}
	end(&a);
	end(&b);
	sh_close(&h);
	assert_string_equal(
		sh_sql(h.path, "PRAGMA integrity_check; SELECT count(*) FROM tasks"), "ok\n150");
}

/* ---- a reader that stays */

static int ask(sqlite3 *db)
{
	sqlite3_stmt *st = NULL;
	int n = -1;

	if (sqlite3_prepare_v2(db, "SELECT count(*) FROM status_history", -1, &st, NULL) ==
			SQLITE_OK &&
		sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return n;
}

static int patient(int in, int out)
{
	sqlite3 *db;
	char c;
	int first;

	if (sqlite3_open_v2(h.path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
		sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
		return 1;
	first = ask(db);
	if (first < 0 || write(out, "x", 1) != 1 || read(in, &c, 1) != 1)
		return 1;
	if (ask(db) != first) /* one snapshot, for as long as it takes */
		return 2;
	if (sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK || write(out, "x", 1) != 1 ||
		read(in, &c, 1) < 0)
		return 1;
	return ask(db) > first ? 0 : 3;
}

static off_t size_of(const char *suffix)
{
	char path[400];
	struct stat st;

	snprintf(path, sizeof(path), "%s%s", h.path, suffix);
	return stat(path, &st) == 0 ? st.st_size : -1;
}

/* The journal grows under a reader that stays, people are told, nobody fails; when the reader is
 * gone the journal starts anew and the file shrinks to its limit. */
static void test_long_reader(void **state)
{
	static const int64_t MIB = 1 << 20;
	struct load l = {.total = 80, .in_flight = 4, .blob = (size_t)MIB};
	struct load after = {.total = 40, .in_flight = 1, .blob = (size_t)MIB / 4};
	struct store_stats st;
	struct person p;
	const char *log;

	(void)state;
	l.mem = after.mem = calloc(1, (size_t)MIB);
	assert_non_null(l.mem);
	p = start(patient);
	assert_int_equal(sh_open(&h, NULL), 0);
	sh_put(&h, "x");
	tell(&p);
	hear(&p);
	sh_log_begin();
	run_load(&l);
	log = sh_log_end();
	assert_non_null(strstr(log, "journal keeps growing"));
	assert_null(strstr(strstr(log, "journal keeps growing") + 1, "journal keeps growing"));
	store_stats(h.store, &st);
	assert_true((int64_t)st.journal_bytes > 64 * MIB);
	tell(&p);
	hear(&p);
	run_load(&after);
	store_stats(h.store, &st);
	assert_true((int64_t)st.journal_bytes < 24 * MIB);
	assert_true(size_of("-wal") <= 24 * MIB);
	end(&p);
	free(l.mem);
}

/* With nobody in the way the journal goes round. */
static void test_journal_is_bounded(void **state)
{
	struct load l = {.total = 400, .in_flight = 1, .blob = 100000};
	struct store_stats st;

	(void)state;
	l.mem = calloc(1, l.blob);
	assert_non_null(l.mem);
	assert_int_equal(sh_open(&h, NULL), 0);
	run_load(&l); /* 40 MB */
	store_stats(h.store, &st);
	assert_true(st.journal_bytes > 0);
	assert_true(st.journal_bytes < 6000000);
	assert_true(size_of("-wal") < 6000000);
	free(l.mem);
}

/* Closing does not wait for a reader; the next start reads what the journal kept. */
static void test_close_under_reader(void **state)
{
	struct person p;

	(void)state;
	p = start(patient);
	assert_int_equal(sh_open(&h, NULL), 0);
	sh_put_status(&h, "nobody", 1, 1, NULL);
	tell(&p);
	hear(&p);
	sh_put(&h, "kept");
	sh_put_status(&h, "kept", 512, 1, NULL);
	sh_close(&h);
	assert_true(size_of("-wal") > 0);
	assert_int_equal(sh_open(&h, NULL), 0);
	assert_string_equal(sh_sql(h.path, "SELECT task_id, state FROM tasks_now"), "kept|RUNNING");
	tell(&p);
	hear(&p);
	end(&p);
}

/* ---- somebody who writes */

static int meddling(int in, int out)
{
	sqlite3 *db;
	char c;

	if (sqlite3_open_v2(h.path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
		sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return 1;
	if (write(out, "x", 1) != 1 || read(in, &c, 1) != 1)
		return 1;
	return sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK ||
	       sqlite3_close(db) != SQLITE_OK;
}

static void on_flag(void *arg, const struct sw_err *err)
{
	*(int *)arg = err ? (int)err->cls : -1;
}

static void test_open_write_transaction(void **state)
{
	struct store_batch *b = store_batch_new();
	struct store_task t = sh_task("later");
	struct person p, q;
	struct sw_err err;
	int flag = 0;

	(void)state;
	p = start(meddling);
	q = start(meddling);
	assert_int_equal(sh_open(&h, NULL), 0);
	tell(&p);
	hear(&p);
	store_batch_task(b, &t);
	store_commit(h.store, b, on_flag, &flag);
	sw_loop_once(h.loop, false); /* the job is on its way and waits */
	tell(&p);
	while (!flag)
		sw_loop_once(h.loop, true);
	assert_int_equal(flag, -1);
	end(&p);

	/* too long: temporary, with the cause; then as before */
	tell(&q);
	hear(&q);
	b = store_batch_new();
	t = sh_task("never");
	store_batch_task(b, &t);
	err = sh_commit(&h, b);
	assert_int_equal(err.cls, SW_TEMPORARY);
	assert_non_null(strstr(err.msg, "keeps a write transaction open"));
	tell(&q);
	end(&q);
	assert_string_equal(sh_sql(h.path, "SELECT task_id FROM tasks"), "later");
	sh_put(&h, "again");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_readers_and_5000_writes),
		T(test_long_reader),
		T(test_journal_is_bounded),
		T(test_close_under_reader),
		T(test_open_write_transaction),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
