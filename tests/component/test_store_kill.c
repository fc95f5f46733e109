/* A writer that is killed again and again at random moments (kill -9). */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "store_help.h"
#include <sqlite3.h>

static struct sh h;

struct writer {
	int first, started, out;
};

static void more(struct writer *w);

struct entry {
	struct writer *w;
	int i;
};

static void on_durable(void *arg, const struct sw_err *err)
{
	struct entry *e = arg;

	if (err || write(e->w->out, &e->i, sizeof(e->i)) != sizeof(e->i))
		_exit(4);
	e->w->started--;
	more(e->w);
	free(e);
}

/* Batch i: task a<i> and b<i> with a status each, and the end of those of i - 5. */
static void more(struct writer *w)
{
	for (; w->started < 8; w->started++) {
		struct store_batch *b = store_batch_new();
		struct entry *e = malloc(sizeof(*e));
		char id[32] = "";

		e->w = w;
		e->i = w->first++;
		for (int k = 0; k < 2; k++) {
			struct store_status st = sh_status(512, e->i);
			struct store_task t;

			snprintf(id, sizeof(id), "%c%d", 'a' + k, e->i);
			t = sh_task(id);
			store_batch_task(b, &t);
			store_batch_status(b, id, &st, id);
		}
		for (int k = 0; k < 2; k++) {
			snprintf(id, sizeof(id), "%c%d", 'a' + k, e->i - 5);
			store_batch_delete(b, id);
		}
		store_commit(h.store, b, on_durable, e);
	}
}

static int write_for_ever(int first, int out)
{
	struct writer w = {.first = first, .out = out};
	struct sw_err err = SW_ERR_NONE;

	alarm(120);
	if (sh_open(&h, &err) < 0) {
		dprintf(STDERR_FILENO, "%s\n", err.msg);
		return 1;
	}
	more(&w);
	sw_loop_run(h.loop);
	return 2;
}

/* 30 writers one after the other, each killed after some reports: what was reported is there, each
 * batch is there wholly or not at all, and in order. */
static void test_kill_9(void **state)
{
	const char *given = getenv("SWARM_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	int durable = -1;

	(void)state;
	print_message("           SWARM_SEED=%u\n", seed);
	for (int round = 0; round < 30; round++) {
		int wait_for = rand_r(&seed) % 60, fd[2], i, status, last, n = 0;
		char out[256];
		pid_t pid;

		assert_int_equal(pipe(fd), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			_exit(write_for_ever(durable + 1, fd[1]));
		close(fd[1]);
		for (int k = 0; k <= wait_for; k++) {
			assert_int_equal(read(fd[0], &i, sizeof(i)), sizeof(i));
			assert_int_equal(i, durable + 1);
			durable = i;
		}
		assert_int_equal(kill(pid, SIGKILL), 0);
		while (read(fd[0], &i, sizeof(i)) == sizeof(i)) { /* said before it died */
			assert_int_equal(i, durable + 1);
			durable = i;
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		close(fd[0]);

		/* sqlite recovers the journal for any first visitor; the next writer opens with
		 * ours */
		assert_string_equal(
			sh_sql_mode(h.path, "PRAGMA integrity_check", SQLITE_OPEN_READWRITE), "ok");
		last = (int)strtol(
			sh_sql(h.path,
				"SELECT max(CAST(substr(task_id, 2) AS INTEGER)) FROM tasks"),
			NULL, 10);
		if (last < durable)
			fail_msg("%d was reported as durable, the last one there is %d", durable,
				last);
		assert_true(last <= durable + 8);
		/* exactly the last five, both halves with status, and all of the history */
		for (int k = last < 5 ? 0 : last - 4; k <= last; k++)
			n += 2;
		snprintf(out, sizeof(out), "%d|%d|%d|%d", n, n, 2 * (last + 1),
			last < 5 ? 0 : last - 4);
		assert_string_equal(
			sh_sql(h.path,
				"SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM"
				" task_status), (SELECT count(*) FROM status_history),"
				" (SELECT min(CAST(substr(task_id, 2) AS INTEGER)) FROM tasks)"),
			out);
		durable = last;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill_9)};
	int r;

	sh_init(&h);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	sh_done(&h);
	return r;
}
