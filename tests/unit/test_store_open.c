/* What store_open() makes of the files it finds: new, ours, locked, foreign, newer, damaged, moved.
 */
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

#include "store/store_int.h"
#include "store_help.h"

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

static void must_open(void)
{
	struct sw_err err = SW_ERR_NONE;

	if (sh_open(&h, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Refused with a message that has @a and @b, as fatal. */
static void must_refuse(const char *a, const char *b)
{
	struct sw_err err = SW_ERR_NONE;

	assert_true(sh_open(&h, &err) < 0);
	assert_null(h.store);
	assert_int_equal(err.cls, SW_FATAL);
	if (!strstr(err.msg, a) || (b && !strstr(err.msg, b)))
		fail_msg("message \"%s\" lacks \"%s\" or \"%s\"", err.msg, a, b ? b : "");
}

static void assert_mode(const char *suffix, mode_t mode)
{
	char path[400];
	struct stat st;

	snprintf(path, sizeof(path), "%s%s", h.path, suffix);
	if (stat(path, &st) < 0)
		fail_msg("%s: %s", path, strerror(errno));
	assert_int_equal(st.st_mode & 07777, mode);
}

static void write_sql(const char *sql)
{
	const char *out = sh_sql_mode(h.path, sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);

	if (strncmp(out, "error", 5) == 0)
		fail_msg("%s", out);
}

static void test_new(void **state)
{
	mode_t old = umask(0);

	(void)state;
	must_open();
	sh_put(&h, "t");
	assert_mode("", 0600);
	assert_mode("-wal", 0600);
	assert_mode("-shm", 0600);
	assert_mode(".lock", 0600);
	umask(old);
	assert_string_equal(sh_sql(h.path, "PRAGMA application_id; PRAGMA user_version;"
					   "PRAGMA journal_mode; PRAGMA integrity_check"),
		"1398227271\n1\nwal\nok");
	assert_string_equal(sh_sql(h.path, "SELECT name FROM sqlite_schema WHERE type = 'view'"
					   " ORDER BY 1"),
		"managers_now\nnode_now\ntask_history\ntasks_now");
	sh_close(&h);
	/* closed clean: all of it in one file */
	char wal[400];

	snprintf(wal, sizeof(wal), "%s-wal", h.path);
	assert_int_equal(access(wal, F_OK), -1);
	assert_string_equal(sh_sql(h.path, "SELECT task_id FROM tasks"), "t");
}

/* Modes of a restored backup are put right; an empty file counts as new. */
static void test_loose_modes_and_empty_file(void **state)
{
	(void)state;
	sh_write(h.path, "", 0);
	assert_int_equal(chmod(h.path, 0644), 0);
	must_open();
	assert_mode("", 0600);
	assert_mode("-wal", 0600);
	sh_put(&h, "t");
	assert_string_equal(sh_sql(h.path, "PRAGMA user_version"), "1");
}

static void test_reopen_writes_nothing(void **state)
{
	size_t n1, n2;
	char *a, *b;

	(void)state;
	must_open();
	sh_put(&h, "t");
	sh_close(&h);
	a = sh_slurp(h.path, &n1);
	must_open();
	sh_close(&h);
	b = sh_slurp(h.path, &n2);
	assert_int_equal(n1, n2);
	assert_memory_equal(a, b, n1);
	free(a);
	free(b);
}

static void test_views_come_back(void **state)
{
	(void)state;
	must_open();
	sh_close(&h);
	write_sql("DROP VIEW tasks_now; DROP VIEW node_now; CREATE VIEW node_now AS SELECT 1 AS x");
	must_open();
	sh_put(&h, "t");
	assert_string_equal(sh_sql(h.path, "SELECT task_id FROM tasks_now"), "t");
	assert_string_equal(sh_sql(h.path, "SELECT state FROM node_now"), "new");
}

/* The pid of the holder, be it this process or another; free again when the holder is gone, even by
 * kill -9. */
static void test_lock(void **state)
{
	struct sh other = h;
	struct sw_err err = SW_ERR_NONE;
	char pid[64];
	int ready[2], status;
	pid_t child;
	char c;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct store *s = NULL;

		alarm(60);
		if (store_open(&s, h.loop, h.path, NULL) < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	snprintf(pid, sizeof(pid), "(pid %d)", (int)child);
	must_refuse(pid, "used by another swarm-agentd");
	/* people may look all the same */
	assert_string_equal(sh_sql(h.path, "SELECT count(*) FROM tasks_now"), "0");
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	close(ready[0]);

	must_open();
	snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	assert_true(store_open(&other.store, other.loop, other.path, &err) < 0);
	assert_non_null(strstr(err.msg, pid));
}

static void refuse_untouched(const char *a, const char *b)
{
	size_t n1, n2;
	char *before = sh_slurp(h.path, &n1), *after;

	must_refuse(a, b);
	must_refuse(a, b); /* the lock of the first try is gone */
	after = sh_slurp(h.path, &n2);
	assert_int_equal(n1, n2);
	assert_memory_equal(before, after, n1);
	free(before);
	free(after);
}

static void test_foreign(void **state)
{
	(void)state;
	write_sql("PRAGMA application_id = 77; CREATE TABLE bookmarks (x)");
	refuse_untouched(
		"database of another program (application_id 77", "another state directory");
	unlink(h.path);
	write_sql("CREATE TABLE bookmarks (x)"); /* no application_id at all */
	refuse_untouched("database of another program", NULL);
}

static void test_newer(void **state)
{
	(void)state;
	must_open();
	sh_close(&h);
	write_sql("PRAGMA user_version = 41");
	refuse_untouched("schema version 41", "knows versions up to 1");
	write_sql("PRAGMA user_version = 0");
	refuse_untouched("schema version 0", NULL);
	write_sql("PRAGMA user_version = -3");
	refuse_untouched("schema version -3", NULL);
}

static void fill(int n)
{
	struct store_batch *b = store_batch_new();

	for (int i = 0; i < n; i++) {
		char id[16] = "";
		struct store_task t = sh_task(id);
		struct store_status st = sh_status(512, i);

		snprintf(id, sizeof(id), "t%d", i);
		store_batch_task(b, &t);
		store_batch_status(b, id, &st, "fill");
	}
	sh_must_commit(&h, b);
}

static void test_corrupt(void **state)
{
	const size_t page = 4096;
	size_t n;
	char *p;

	(void)state;
	must_open();
	fill(500);
	sh_close(&h);
	p = sh_slurp(h.path, &n);
	assert_true(n > 20 * page);
	/* a page in the middle overwritten: what quick_check is for */
	memset(p + 9 * page, 0xa5, page);
	sh_write(h.path, p, n);
	refuse_untouched(h.path, "aside");
	free(p);
}

/* Cut at every page and in the middle of some: refused, never a crash, never half the rows as if
 * they were all. */
static void test_truncated(void **state)
{
	size_t n;
	char *p;

	(void)state;
	must_open();
	fill(100);
	sh_close(&h);
	p = sh_slurp(h.path, &n);
	for (size_t cut = 1; cut < n; cut += cut < 200 ? 33 : 2048) {
		struct sw_err err = SW_ERR_NONE;

		sh_write(h.path, p, cut);
		if (sh_open(&h, &err) == 0)
			fail_msg("cut at %zu of %zu accepted", cut, n);
		assert_int_equal(err.cls, SW_FATAL);
		assert_non_null(strstr(err.msg, h.path));
	}
	sh_write(h.path, p, n);
	must_open();
	free(p);
}

/* A journal without its database would be thrown away by sqlite: start empty, run blind. */
static void test_emptied_or_missing_with_journal(void **state)
{
	char wal[400], keep[400];

	(void)state;
	snprintf(wal, sizeof(wal), "%s-wal", h.path);
	snprintf(keep, sizeof(keep), "%s/keep", h.dir);
	must_open();
	fill(3);
	assert_int_equal(link(wal, keep), 0);
	size_t n;
	char *p = sh_slurp(keep, &n);

	assert_true(n > 0);
	sh_close(&h);
	sh_write(wal, p, n);
	free(p);
	assert_int_equal(truncate(h.path, 0), 0);
	must_refuse("is empty but its journal", "restore");
	unlink(h.path);
	must_refuse("is missing but its journal", "restore");
	assert_int_equal(access(h.path, F_OK), -1);
}

static void test_not_a_database(void **state)
{
	(void)state;
	sh_write(h.path, "# my notes\nnothing to see here, really nothing\n", 47);
	refuse_untouched("is not a sqlite database", "move it away");
	sh_write(h.path, "SQLite", 6);
	refuse_untouched("is not a sqlite database", NULL);
	sh_write(h.path, "SQLite format 3\0garbage garbage garbage", 40);
	refuse_untouched("not a database", NULL);
	unlink(h.path);
	assert_int_equal(mkdir(h.path, 0700), 0);
	must_refuse("is not a regular file", NULL);
	rmdir(h.path);
	assert_int_equal(mkfifo(h.path, 0600), 0);
	must_refuse("is not a regular file", NULL);
}

static void test_no_directory(void **state)
{
	(void)state;
	snprintf(h.path, sizeof(h.path), "%s/nowhere/agent.db", h.dir);
	must_refuse("nowhere/agent.db.lock", "create the state directory");
}

/* ---- migrations: the machinery, with steps that are ahead of the real ones */

static const struct store_migration ahead[] = {
	{1, "CREATE TABLE never (x)"},
	{2, "ALTER TABLE tasks ADD COLUMN note TEXT; UPDATE tasks SET note = 'was v1'"},
	{3, "CREATE TABLE extra (x); INSERT INTO extra VALUES (3)"},
};
static const struct store_migration broken[] = {
	{1, "CREATE TABLE never (x)"},
	{2, "ALTER TABLE tasks ADD COLUMN note TEXT"},
	{3, "CREATE TABLE half (x); INSERT INTO nowhere VALUES (3)"},
};

static int migrate(const struct store_migration *steps, size_t n, struct sw_err *err)
{
	struct store_db db = {.path = h.path};
	int version = -1, r;

	assert_int_equal(sqlite3_open_v2(h.path, &db.sql, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	sqlite3_extended_result_codes(db.sql, 1);
	r = store_identify(&db, steps[n - 1].to, &version, err);
	if (r == 0)
		r = store_migrate(&db, version, steps, n, err);
	sqlite3_close(db.sql);
	return r;
}

static void test_migrate(void **state)
{
	char copy[400];

	(void)state;
	snprintf(copy, sizeof(copy), "%s.v1", h.path);
	must_open();
	fill(2);
	sh_close(&h);
	assert_int_equal(migrate(ahead, 1, NULL), 0); /* nothing to do: no copy */
	assert_int_equal(access(copy, F_OK), -1);
	assert_int_equal(migrate(ahead, 3, NULL), 0);
	assert_string_equal(sh_sql(h.path, "PRAGMA user_version; SELECT DISTINCT note FROM tasks;"
					   "SELECT x FROM extra"),
		"3\nwas v1\n3");
	assert_mode(".v1", 0600);
	assert_string_equal(
		sh_sql(copy, "PRAGMA user_version; PRAGMA application_id; PRAGMA integrity_check;"
			     "SELECT task_id FROM tasks ORDER BY 1"),
		"1\n1398227271\nok\nt0\nt1");
	must_refuse("schema version 3", copy);
}

/* Steps that went well stay, the one that failed leaves nothing; the copy is there and is replaced
 * by the next try. */
static void test_migrate_fails(void **state)
{
	struct sw_err err = SW_ERR_NONE;
	char copy[400];

	(void)state;
	snprintf(copy, sizeof(copy), "%s.v1", h.path);
	must_open();
	fill(2);
	sh_close(&h);
	sh_write(copy, "old", 3);
	assert_true(migrate(broken, 3, &err) < 0);
	assert_non_null(strstr(err.msg, "upgrade to schema 3"));
	assert_non_null(strstr(err.msg, "nowhere"));
	assert_string_equal(
		sh_sql(h.path, "PRAGMA user_version; SELECT count(note) FROM tasks;"
			       "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"),
		"2\n0\n0");
	assert_string_equal(sh_sql(copy, "SELECT count(*) FROM tasks"), "2");
	assert_int_equal(migrate(ahead, 3, NULL), 0); /* the fixed version goes on from 2 */
	assert_string_equal(sh_sql(h.path, "SELECT x FROM extra"), "3");
}

/* ---- files that change under the running agent */

static void moved(const char *suffix)
{
	char from[400], to[400];
	struct store_batch *b;
	struct store_task t = sh_task("x");
	struct sw_err err;

	must_open();
	sh_put(&h, "t");
	snprintf(from, sizeof(from), "%s%s", h.path, suffix);
	snprintf(to, sizeof(to), "%s/aside", h.dir);
	assert_int_equal(rename(from, to), 0);
	b = store_batch_new();
	store_batch_task(b, &t);
	err = sh_commit(&h, b);
	assert_int_equal(err.cls, SW_FATAL);
	assert_non_null(strstr(err.msg, "moved, removed or replaced"));
	assert_non_null(strstr(err.msg, from));
	assert_int_equal(rename(to, from), 0);
	sh_put(&h, "x"); /* put back in time: as if nothing had been */
	sh_close(&h);
	assert_string_equal(sh_sql(h.path, "SELECT count(*) FROM tasks"), "2");
}

static void test_database_moved(void **state)
{
	(void)state;
	moved("");
}

static void test_journal_moved(void **state)
{
	(void)state;
	moved("-wal");
}

/* Somebody drops a table: our statement's own error, with the name. */
static void test_table_dropped(void **state)
{
	struct store_batch *b = store_batch_new();
	struct store_task t = sh_task("x");
	struct sw_err err;

	(void)state;
	must_open();
	write_sql("DROP TABLE managers");
	store_batch_task(b, &t);
	store_batch_managers(b, NULL, 0);
	err = sh_commit(&h, b);
	assert_int_equal(err.cls, SW_FATAL);
	assert_non_null(strstr(err.msg, "no such table: managers"));
	assert_string_equal(sh_sql(h.path, "SELECT count(*) FROM tasks"), "0");
	sh_put(&h, "x");
}

/* Damage that shows only while running: fatal, with the remedy. */
static void test_damaged_while_running(void **state)
{
	struct store_batch *b;
	struct store_task t = sh_task("t250");
	struct sw_err err;
	int status;
	pid_t pid;

	(void)state;
	must_open();
	fill(500);
	sh_close(&h);
	must_open();
	/* what the check read is still in memory: a change by somebody else makes us read again */
	write_sql("UPDATE node SET hostname = 'changed'");
	/* in a child: closing a descriptor of the file here would drop sqlite's locks */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		static char junk[4096];
		int fd = open(h.path, O_WRONLY | O_CLOEXEC);
		struct stat st;

		memset(junk, 0xa5, sizeof(junk));
		if (fd < 0 || fstat(fd, &st) < 0)
			_exit(1);
		for (off_t at = 8192; at < st.st_size; at += 4096)
			if (pwrite(fd, junk, 4096, at) != 4096)
				_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	b = store_batch_new();
	store_batch_task(b, &t);
	err = sh_commit(&h, b);
	assert_int_equal(err.cls, SW_FATAL);
	assert_non_null(strstr(err.msg, "task=t250"));
	assert_non_null(strstr(err.msg, "damaged: stop the agent"));
	assert_non_null(strstr(err.msg, h.path));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_new),
		T(test_loose_modes_and_empty_file),
		T(test_reopen_writes_nothing),
		T(test_views_come_back),
		T(test_lock),
		T(test_foreign),
		T(test_newer),
		T(test_corrupt),
		T(test_truncated),
		T(test_emptied_or_missing_with_journal),
		T(test_not_a_database),
		T(test_no_directory),
		T(test_migrate),
		T(test_migrate_fails),
		T(test_database_moved),
		T(test_journal_moved),
		T(test_table_dropped),
		T(test_damaged_while_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
