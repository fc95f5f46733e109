/* A disk that is really full, one that is really read-only, a directory we may not write. Needs
 * root: small file systems in a mount namespace of its own; skipped (77) without. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "store_help.h"
#include <sqlite3.h>
#include <swarm/log.h>

static struct sh h;
static char junk[300];

static int setup(void **state)
{
	(void)state;
	sh_init(&h);
	assert_int_equal(
		mount("tmpfs", h.dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=3m,mode=700"), 0);
	snprintf(junk, sizeof(junk), "%s/junk", h.dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sh_close(&h);
	umount2(h.dir, MNT_DETACH);
	sh_done(&h);
	return 0;
}

static void fill_disk(void)
{
	int fd = open(junk, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	static char block[4096];

	assert_true(fd >= 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	assert_int_equal(errno, ENOSPC);
	close(fd);
}

static struct store_batch *some(int i)
{
	static char data[20000];
	struct store_batch *b = store_batch_new();
	char id[16] = "";
	struct store_task t;
	struct store_status st = sh_status(512, i);

	snprintf(id, sizeof(id), "t%d", i);
	t = sh_task(id);
	t.data = data;
	t.data_len = sizeof(data);
	store_batch_task(b, &t);
	store_batch_status(b, id, &st, "x");
	return b;
}

static const char *state_of(void)
{
	return sh_sql(h.path, "PRAGMA integrity_check; SELECT count(*) FROM tasks_now;"
			      "SELECT count(*) FROM task_history");
}

/* Full while running: every batch fails as temporary, what was there stays readable; space comes
 * back and so do we, without a restart. */
static void test_full_while_running(void **state)
{
	struct sw_err err = SW_ERR_NONE;
	char expect[64];
	int n = 0;

	(void)state;
	assert_int_equal(sh_open(&h, NULL), 0);
	sh_must_commit(&h, some(n++));
	fill_disk();
	for (int full = 0; full < 5;) { /* the journal may have some room left */
		err = sh_commit(&h, some(n));
		if (err.cls == SW_OK) {
			n++;
			assert_true(n < 400);
			continue;
		}
		full++;
		assert_int_equal(err.cls, SW_TEMPORARY);
		assert_non_null(strstr(err.msg, "the disk is full"));
		assert_non_null(strstr(err.msg, h.path));
	}
	snprintf(expect, sizeof(expect), "ok\n%d\n%d", n, n);
	assert_string_equal(state_of(), expect);
	unlink(junk);
	sh_must_commit(&h, some(n++));
	snprintf(expect, sizeof(expect), "ok\n%d\n%d", n, n);
	assert_string_equal(state_of(), expect);
	fill_disk();
	sh_close(&h); /* closing on a full disk loses nothing either */
	unlink(junk);
	assert_int_equal(sh_open(&h, &err), 0);
	assert_string_equal(state_of(), expect);
}

static void must_refuse(const char *a, const char *b)
{
	struct sw_err err = SW_ERR_NONE;

	assert_true(sh_open(&h, &err) < 0);
	assert_int_equal(err.cls, SW_FATAL);
	if (!strstr(err.msg, a) || !strstr(err.msg, b))
		fail_msg("message \"%s\" lacks \"%s\" or \"%s\"", err.msg, a, b);
}

/* Full at the first start of all, and full at a later one. */
static void test_full_at_start(void **state)
{
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	fill_disk();
	must_refuse("agent.db", "the disk is full: free some space");
	unlink(junk);
	assert_int_equal(sh_open(&h, &err), 0);
	sh_must_commit(&h, some(1));
	sh_close(&h);
	fill_disk();
	/* reading needs room for the index of the journal: refused with the reason, or it works */
	if (sh_open(&h, &err) < 0) {
		assert_int_equal(err.cls, SW_FATAL);
		if (!strstr(err.msg, "the disk is full"))
			fail_msg("%s", err.msg);
	}
	sh_close(&h);
	unlink(junk);
	if (sh_open(&h, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(state_of(), "ok\n1\n1");
}

static void test_read_only(void **state)
{
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	assert_int_equal(sh_open(&h, &err), 0);
	sh_must_commit(&h, some(1));
	sh_close(&h);
	assert_int_equal(mount(NULL, h.dir, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
	must_refuse("agent.db", "read-only");
	assert_int_equal(mount(NULL, h.dir, NULL, MS_REMOUNT | MS_BIND, NULL), 0);
	assert_int_equal(sh_open(&h, &err), 0);
	assert_string_equal(state_of(), "ok\n1\n1");
}

/* As somebody who may not write there; in a child, there is no way back to root. */
static void test_not_permitted(void **state)
{
	struct sw_err err = SW_ERR_NONE;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(chmod(h.dir, 0555), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(1);
		_exit(sh_open(&h, &err) < 0 && err.cls == SW_FATAL && strstr(err.msg, "agent.db") &&
					strstr(err.msg, "check owner and mode")
				? 0
				: 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_not_permitted), /* forks: before the pool is there */
		T(test_full_while_running),
		T(test_full_at_start),
		T(test_read_only),
	};

	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		fprintf(stderr, "skipped: needs root and a mount namespace\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
