/* The store with a disk that fails and a process that dies, at every single write of a scenario.
 *
 * The scenario runs once undisturbed and leaves a dump of the database after each batch. Then it
 * runs again and again in a child, with the n-th write (sync, truncation, deletion) going wrong,
 * for all n. After a death: the dump is the one after the last batch that was reported as durable
 * or the one after it, never anything between or before. After errors: everything is tried again
 * and ends in the last dump. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "faultvfs.h"
#include "store_help.h"
#include <swarm/log.h>
#include <swarm/mem.h>

#define N_BATCHES   6
#define REOPEN_AT   3 /* closed and opened again before this batch */
#define TRIES       20
#define EXIT_BROKEN 3

static struct sh h;
static char *dumps[N_BATCHES + 1]; /* [i]: after i batches */
static int n_ops;

static struct store_batch *batch(int i)
{
	static char big[5000];
	struct store_batch *b = store_batch_new();
	struct store_manager m[] = {
		{.addr = "10.0.0.1:2377", .weight = i}, {.node_id = "m", .addr = "x:1"}};
	struct store_node n = {
		.node_id = "n1", .state = "joined", .object = &i, .object_len = sizeof(i)};
	char id[2][16];

	memset(big, 'a' + i, sizeof(big));
	for (int k = 0; k < 2; k++) {
		struct store_task t;
		struct store_status st = sh_status(256 + 64 * k, 1000 + i);

		snprintf(id[k], sizeof(id[k]), "t%d%c", i, 'a' + k);
		t = sh_task(id[k]);
		t.data = big;
		t.data_len = sizeof(big) - (size_t)k * 3000;
		store_batch_task(b, &t);
		store_batch_status(b, id[k], &st, "first");
	}
	if (i > 0) {
		struct store_status st = sh_status(512, 2000 + i);
		char old[16];

		snprintf(old, sizeof(old), "t%da", i - 1);
		store_batch_status(b, old, &st, "started");
		store_batch_acked(b, old, st.at_ns);
		old[strlen(old) - 1] = 'b';
		store_batch_removing(b, old);
	}
	if (i > 1) {
		char old[16];

		snprintf(old, sizeof(old), "t%db", i - 2);
		store_batch_delete(b, old);
	}
	if (i % 2)
		store_batch_managers(b, m, 1 + (size_t)(i % 4 == 1));
	store_batch_node(b, &n);
	return b;
}

static char *dump(void)
{
	const char *out = sh_sql(h.path,
		"PRAGMA integrity_check; PRAGMA foreign_key_check;"
		"SELECT task_id, length(data), hex(substr(data, 1, 4)), phase, image FROM tasks;"
		"SELECT task_id, state, message, at, seq, acked_seq FROM task_status;"
		"SELECT seq, task_id, state, cause FROM status_history;"
		"SELECT node_id, state, hex(object) FROM node; SELECT node_id, addr, weight FROM "
		"managers;"
		"SELECT count(*) FROM tasks_now");

	if (strncmp(out, "ok\n", 3) != 0)
		fail_msg("dump: %s", out);
	return xstrdup(out);
}

static void quiet(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

struct wait {
	bool done;
	struct sw_err err;
};

static void on_commit(void *arg, const struct sw_err *err)
{
	struct wait *w = arg;

	w->done = true;
	sw_err_copy(&w->err, err);
}

static void on_closed(void *arg)
{
	((struct wait *)arg)->done = true;
}

/* In the child, no cmocka: the scenario, writing a byte to @fd after each durable batch. With
 * @retry errors are taken and the step is done again. */
static int scenario(int fd, bool retry)
{
	struct sw_err err = SW_ERR_NONE;
	struct sw_loop *loop;
	struct store *s = NULL;
	struct wait w;
	bool reopened = false;
	int tries = 0;

	log_set_sink(quiet, NULL);
	if (sw_loop_new(&loop, NULL) < 0)
		return EXIT_BROKEN;
	for (int i = 0; i < N_BATCHES;) {
		if (i == REOPEN_AT && !reopened) {
			reopened = true;
			w.done = false;
			store_close(s, on_closed, &w);
			while (!w.done)
				sw_loop_once(loop, true);
			s = NULL;
		}
		while (!s && store_open(&s, loop, h.path, &err) < 0)
			if (err.cls != SW_FATAL || !retry || ++tries > TRIES)
				goto broken;
		do {
			w.done = false;
			store_commit(s, batch(i), on_commit, &w);
			while (!w.done)
				sw_loop_once(loop, true);
			if (w.err.cls == SW_OK)
				break;
			err = w.err;
		} while (retry && err.cls == SW_TEMPORARY && ++tries < TRIES);
		if (w.err.cls != SW_OK)
			goto broken;
		if (write(fd, "+", 1) != 1)
			goto broken;
		i++;
	}
	w.done = false;
	store_close(s, on_closed, &w);
	while (!w.done)
		sw_loop_once(loop, true);
	return sw_loop_free(loop) == 0 ? 0 : EXIT_BROKEN;
broken:
	dprintf(STDERR_FILENO, "scenario: %s\n", err.msg);
	return EXIT_BROKEN;
}

static void fresh(void)
{
	sh_rm_rf(h.dir);
	assert_int_equal(mkdir(h.dir, 0700), 0);
}

/* Runs the scenario in a child; returns its exit code and how many batches were durable. */
static int run(enum fault what, int n, int times, int *ret_durable, int *ret_ops)
{
	char buf[N_BATCHES + 8];
	int fd[2], ops[2], status, got = 0, r;
	pid_t pid;

	assert_int_equal(pipe(fd), 0);
	assert_int_equal(pipe(ops), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int count;

		alarm(60);
		faultvfs_install(what, n, times, (unsigned)n);
		r = scenario(fd[1], what == FAULT_IOERR || what == FAULT_FULL);
		count = faultvfs_count();
		if (write(ops[1], &count, sizeof(count)) != sizeof(count))
			r = EXIT_BROKEN;
		_exit(r);
	}
	close(fd[1]);
	close(ops[1]);
	while ((r = (int)read(fd[0], buf, sizeof(buf))) > 0)
		got += r;
	if (ret_ops && read(ops[0], ret_ops, sizeof(*ret_ops)) != sizeof(*ret_ops))
		*ret_ops = -1;
	close(fd[0]);
	close(ops[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status))
		fail_msg("fault %d at %d: signal %d", (int)what, n, WTERMSIG(status));
	*ret_durable = got;
	return WEXITSTATUS(status);
}

/* The agent starts again: in a child as well, the pool must not live in the process that forks. */
static void restart(enum fault what, int n)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct sw_err err = SW_ERR_NONE;
		struct wait w = {false, SW_ERR_NONE};

		alarm(60);
		log_set_sink(quiet, NULL);
		if (sh_open(&h, &err) < 0) {
			dprintf(STDERR_FILENO, "fault %d at %d: %s\n", (int)what, n, err.msg);
			_exit(1);
		}
		store_close(h.store, on_closed, &w);
		while (!w.done)
			sw_loop_once(h.loop, true);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("fault %d at %d: the store does not open again", (int)what, n);
}

static void expect(const char *is, int from, int to, enum fault what, int n)
{
	for (int i = from; i <= to && i <= N_BATCHES; i++)
		if (strcmp(is, dumps[i]) == 0)
			return;
	fail_msg("fault %d at %d: %d batches were durable, the database is\n%s\nnot\n%s", (int)what,
		n, from, is, dumps[from]);
}

/* The reference, one batch at a time. */
static int group_setup(void **state)
{
	int durable = 0, ops = 0;

	(void)state;
	/* in memory: what a sync is worth is the VFS's business here, not the disk's */
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	sh_init(&h);
	for (int i = 0; i <= N_BATCHES; i++) {
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			log_set_sink(quiet, NULL);
			if (sh_open(&h, NULL) < 0)
				_exit(1);
			if (i)
				sh_must_commit(&h, batch(i - 1));
			sh_close(&h);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		dumps[i] = dump();
		if (i)
			assert_string_not_equal(dumps[i], dumps[i - 1]);
	}
	fresh();
	assert_int_equal(run(FAULT_NONE, 0, 0, &durable, &ops), 0);
	assert_int_equal(durable, N_BATCHES);
	char *d = dump();

	assert_string_equal(d, dumps[N_BATCHES]);
	free(d);
	assert_true(ops > 50);
	n_ops = ops;
	print_message("           %d writes, syncs, truncations, deletions\n", ops);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	for (int i = 0; i <= N_BATCHES; i++)
		free(dumps[i]);
	sh_done(&h);
	return 0;
}

static void dies(enum fault what)
{
	int n, code;

	for (n = 1;; n++) {
		int durable = 0;
		char *d;

		fresh();
		code = run(what, n, 0, &durable, NULL);
		if (code == 0)
			break;
		assert_int_equal(code, FAULT_EXIT);
		restart(what, n);
		d = dump();
		expect(d, durable, durable + 1, what, n);
		free(d);
	}
	assert_true(
		n > n_ops); /* it ended because there was no n-th, and every one before was had */
}

static void fails(enum fault what, int times)
{
	for (int n = 1; n <= n_ops; n++) {
		int durable = 0;
		char *d;

		fresh();
		if (run(what, n, times, &durable, NULL) != 0)
			fail_msg("fault %d at %d, %d times: not overcome", (int)what, n, times);
		assert_int_equal(durable, N_BATCHES);
		d = dump();
		expect(d, N_BATCHES, N_BATCHES, what, n);
		free(d);
	}
}

static void test_killed_at_every_write(void **state)
{
	(void)state;
	dies(FAULT_KILL);
}

static void test_killed_within_every_write(void **state)
{
	(void)state;
	dies(FAULT_TORN);
}

static void test_power_lost_at_every_write(void **state)
{
	(void)state;
	dies(FAULT_POWER);
}

static void test_power_lost_with_disorder(void **state)
{
	(void)state;
	dies(FAULT_MIXED);
}

static void test_io_error_at_every_write(void **state)
{
	(void)state;
	fails(FAULT_IOERR, 1);
}

static void test_disk_full_at_every_write(void **state)
{
	(void)state;
	fails(FAULT_FULL, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_at_every_write),
		cmocka_unit_test(test_killed_within_every_write),
		cmocka_unit_test(test_power_lost_at_every_write),
		cmocka_unit_test(test_power_lost_with_disorder),
		cmocka_unit_test(test_io_error_at_every_write),
		cmocka_unit_test(test_disk_full_at_every_write),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
