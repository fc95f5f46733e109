/* Secrets and configs: which files they become, and the run directory that holds them. */
#include "test.h"

#include "executor/files.h"
#include "executor/rundir.h"
#include "executor/spec.h"
#include "tasks.h"
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/magic.h>
#include <stdio.h>
#include <swarm/err.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

/* ---- references */

static struct test_task x;
static struct spec_env env;

static int setup_task(void **state)
{
	(void)state;
	memset(&x, 0, sizeof(x));
	test_task_init(&x, "task1");
	env = (struct spec_env){.cluster_id = "cluster1", .api = 41, .run_dir = "/run/x"};
	return 0;
}

static void refused_at(const char *text, int line)
{
	struct sw_err err = SW_ERR_NONE;

	if (spec_check(&x.t, &env, &err) == 0)
		fail_msg("line %d: accepted, want \"%s\"", line, text);
	assert_int_equal(err.cls, SW_REJECTED);
	if (strcmp(err.msg, text) != 0)
		fail_msg("line %d: \"%s\", want \"%s\"", line, err.msg, text);
	x.c.n_secrets = x.c.n_configs = x.c.n_mounts = 0;
}
#define refused(text) refused_at(text, __LINE__)

static void accepted(void)
{
	struct sw_err err = SW_ERR_NONE;

	if (spec_check(&x.t, &env, &err) < 0)
		fail_msg("refused: %s", err.msg);
}

static void test_targets_owners_modes(void **state)
{
	struct file_ref *f;
	size_t n;
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	test_secret(&x, "s1", "db", test_file("db", 5, 6, 0400));
	test_secret(&x, "s2", "sub", test_file("sub//./s2", 0, 0, 04777));
	test_secret(&x, "s1", "abs", test_file("/abs/x", 0, 2147483647, 0));
	test_config(&x, "c1", "rel", test_file("c2", 0, 0, 0444));
	test_config(&x, "c2", "runtime", NULL);
	test_config(&x, "c3", "deep", test_file("/etc/app/app.conf", 0, 0, 0644));
	test_secret(&x, "s3", "nowhere", NULL);
	accepted();
	assert_int_equal(files_list(&x.c, &f, &n, &err), 0);
	assert_int_equal(n, 5);
	assert_int_equal(files_count(&x.c), 5);
	assert_string_equal(f[0].target, "/run/secrets/db");
	assert_true(f[0].secret && f[0].uid == 5 && f[0].gid == 6 && f[0].mode == 0400);
	assert_string_equal(f[1].target, "/run/secrets/sub/s2");
	assert_string_equal(f[1].asked, "sub//./s2");
	assert_int_equal(f[1].mode, 0777);
	assert_string_equal(f[2].target, "/abs/x");
	assert_int_equal(f[2].mode, 0);
	assert_string_equal(f[3].target, "/c2");
	assert_false(f[3].secret);
	assert_string_equal(f[4].target, "/etc/app/app.conf");
	files_free(f, n);
}

static void test_mounts_of_files(void **state)
{
	struct json_object *body, *host, *mounts, *want;
	struct sw_err err = SW_ERR_NONE;
	Pb__Mount m = PB__MOUNT__INIT;

	(void)state;
	m.type = PB__MOUNT__TYPE__TMPFS;
	m.target = (char *)"/run";
	TEST_PTRS(x.c.mounts, x.c.n_mounts, Pb__Mount, &m);
	test_secret(&x, "s1", "db", test_file("db", 0, 0, 0400));
	test_config(&x, "c1", "c", test_file("c", 0, 0, 0400));
	assert_int_equal(spec_body(&x.t, "n1", &env, &body, &err), 0);
	assert_true(json_object_object_get_ex(body, "HostConfig", &host));
	assert_true(json_object_object_get_ex(host, "Mounts", &mounts));
	want = json_tokener_parse(
		"[{\"Type\":\"tmpfs\",\"Target\":\"/run\"},"
		"{\"Type\":\"bind\",\"Source\":\"/run/x/tasks/task1/0\",\"Target\":"
		"\"/run/secrets/db\",\"ReadOnly\":true,\"BindOptions\":{\"Propagation\":"
		"\"rprivate\"}},"
		"{\"Type\":\"bind\",\"Source\":\"/run/x/tasks/task1/1\",\"Target\":\"/c\","
		"\"ReadOnly\":true,\"BindOptions\":{\"Propagation\":\"rprivate\"}}]");
	if (!json_object_equal(mounts, want))
		fail_msg("%s", json_object_to_json_string(mounts));
	json_object_put(want);
	json_object_put(body);
}

static void bad_target(bool secret, const char *target)
{
	sw_auto_free char *text = xasprintf(
		"%s \"n\": target \"%s\" is not possible; use a file name, or a path without "
		"\"..\"",
		secret ? "secret" : "config", target);

	if (secret)
		test_secret(&x, "s1", "n", test_file(target, 0, 0, 0444));
	else
		test_config(&x, "s1", "n", test_file(target, 0, 0, 0444));
	refused(text);
}

static void test_paths_that_lead_elsewhere(void **state)
{
	static const char *const bad[] = {"", "/", "..", "../x", "a/../b", "a/..", "/../etc/passwd",
		"/a/../../etc/shadow", "a/", ".", "./", "/."};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		bad_target(true, bad[i]);
		bad_target(false, bad[i]);
	}
	test_secret(&x, "s1", "n", test_file("..a", 0, 0, 0));
	test_secret(&x, "s1", "n", test_file("a..", 0, 0, 0));
	test_secret(&x, "s1", "n", test_file("...", 0, 0, 0));
	accepted();
}

static void test_refusals(void **state)
{
	Pb__Mount m = PB__MOUNT__INIT;
	Pb__FileTarget *f = test_file("n", 0, 0, 0);

	(void)state;
	m.type = PB__MOUNT__TYPE__TMPFS;
	m.target = (char *)"/run/secrets/n/";

	f->uid = (char *)"root";
	test_secret(&x, "s1", "n", f);
	refused("secret \"n\": uid \"root\" is no number from 0 to 2147483647");
	f = test_file("n", 0, 0, 0);
	f->gid = (char *)"2147483648";
	test_config(&x, "s1", "n", f);
	refused("config \"n\": gid \"2147483648\" is no number from 0 to 2147483647");
	f->gid = (char *)"-1";
	test_config(&x, "s1", "n", f);
	refused("config \"n\": gid \"-1\" is no number from 0 to 2147483647");
	f->gid = (char *)"";
	test_config(&x, "s1", "n", f);
	refused("config \"n\": gid \"\" is no number from 0 to 2147483647");

	test_secret(&x, "s1.task2", "n", test_file("n", 0, 0, 0));
	refused("task not authorized to access secret s1.task2");
	test_config(&x, "../c", "n", test_file("n", 0, 0, 0));
	refused("task not authorized to access config ../c");

	test_secret(&x, "s1", "n", test_file("n", 0, 0, 0));
	test_secret(&x, "s2", "m", test_file("/run/secrets/./n", 0, 0, 0));
	refused("secret \"n\": target \"/run/secrets/n\" is taken by another secret; each needs a "
		"target of its own");
	test_secret(&x, "s1", "n", test_file("/n", 0, 0, 0));
	test_config(&x, "c1", "c", test_file("n", 0, 0, 0));
	refused("secret \"n\": target \"/n\" is taken by another config; each needs a target of "
		"its own");
	test_secret(&x, "s1", "n", test_file("n", 0, 0, 0));
	TEST_PTRS(x.c.mounts, x.c.n_mounts, Pb__Mount, &m);
	refused("secret \"n\": target \"/run/secrets/n\" is taken by a mount; each needs a target "
		"of its own");
	/* "n-" sorts between "n" and "n/" in plain byte order */
	test_secret(&x, "s1", "n", test_file("n", 0, 0, 0));
	test_secret(&x, "s1", "o", test_file("n-", 0, 0, 0));
	test_secret(&x, "s1", "m", test_file("n/m", 0, 0, 0));
	refused("secret \"n\": target \"/run/secrets/n\" is a file, nothing can be put below it "
		"(\"/run/secrets/n/m\")");

	test_secret(&x, "s1", "n", test_file("n", 0, 0, 0));
	env.remote = true;
	refused("secret \"n\": secrets and configs need an engine on this host (--engine "
		"unix:///PATH), this one is remote");
	env.remote = false;
	env.run_dir = NULL;
	test_config(&x, "s1", "n", test_file("n", 0, 0, 0));
	refused("config \"n\": secrets and configs need a run directory, none is set (--run-dir)");
	test_config(&x, "s1", "n", NULL);
	accepted(); /* nothing to be mounted */
}

/* ---- the run directory */

static char base[64], path[96];
static struct rundir *dir;
static int mounts;
static int mount_errno;

static int no_mount(const char *at, const char *options)
{
	(void)at;
	(void)options;
	mounts++;
	errno = mount_errno;
	return mount_errno ? -1 : 0;
}

static bool in_memory(const char *at)
{
	struct statfs fs;

	return statfs(at, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static int setup_dir(void **state)
{
	(void)state;
	strcpy(base, "/dev/shm/test-rundir-XXXXXX");
	if (!in_memory("/dev/shm") || !mkdtemp(base))
		return -1;
	snprintf(path, sizeof(path), "%s/a/run", base);
	mounts = 0;
	mount_errno = EPERM;
	dir = rundir_new(path, no_mount);
	return 0;
}

static int teardown_dir(void **state)
{
	char cmd[128];

	(void)state;
	rundir_free(dir);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", base);
	return system(cmd);
}

static void opened(void)
{
	struct sw_err err = SW_ERR_NONE;

	if (rundir_open(dir, &err) < 0)
		fail_msg("%s", err.msg);
}

static char *at(const char *rest)
{
	static char text[256];

	snprintf(text, sizeof(text), "%s/%s", path, rest);
	return text;
}

static void is_at(
	const char *rest, mode_t mode, uid_t uid, gid_t gid, const char *content, int line)
{
	struct stat st;
	char buf[64] = "";
	int fd;

	if (lstat(at(rest), &st) < 0)
		fail_msg("line %d: %s: %s", line, rest, strerror(errno));
	if ((st.st_mode & 07777) != mode || st.st_uid != uid || st.st_gid != gid)
		fail_msg("line %d: %s: %o %u:%u", line, rest, st.st_mode, st.st_uid, st.st_gid);
	if (!content)
		return;
	fd = open(at(rest), O_RDONLY | O_NOFOLLOW);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), (ssize_t)strlen(content));
	close(fd);
	assert_string_equal(buf, content);
}
#define is(rest, mode, uid, gid, content) is_at(rest, mode, uid, gid, content, __LINE__)

static void gone(const char *rest)
{
	struct stat st;

	if (lstat(at(rest), &st) == 0)
		fail_msg("%s is there", rest);
}

static int put(const char *task, const struct rundir_file *f, size_t n, struct sw_err *err)
{
	return rundir_write(dir, task, &(struct rundir_owner){0}, f, n, err);
}

#define FILE_OF(text, m)                                                                           \
	{                                                                                          \
		.data = (text), .len = strlen(text), .mode = (m), .uid = geteuid(),                \
		.gid = getegid()                                                                   \
	}

static void test_write_and_drop(void **state)
{
	const struct rundir_file f[] = {FILE_OF("one", 0400), FILE_OF("", 04777), FILE_OF("3", 0)};
	const struct rundir_file again[] = {FILE_OF("other", 0444)};
	struct sw_err err = SW_ERR_NONE;
	mode_t old = umask(0077);

	(void)state;
	opened();
	assert_false(rundir_has(dir, "t1", 3));
	assert_int_equal(put("t1", f, 3, &err), 0);
	is("", 0711, geteuid(), getegid(), NULL);
	is("tasks", 0711, geteuid(), getegid(), NULL);
	is("tasks/t1", 0700, geteuid(), getegid(), NULL);
	is("tasks/t1/0", 0400, geteuid(), getegid(), "one");
	is("tasks/t1/1", 0777, geteuid(), getegid(), "");
	is("tasks/t1/2", 0, geteuid(), getegid(), geteuid() ? NULL : "3");
	assert_true(rundir_has(dir, "t1", 3));
	assert_false(rundir_has(dir, "t1", 4));
	assert_int_equal(put("t1", again, 1, &err), 0);
	is("tasks/t1/0", 0444, geteuid(), getegid(), "other");
	gone("tasks/t1/1");
	assert_int_equal(put("t2", f, 1, &err), 0);
	assert_int_equal(rundir_drop(dir, "t1", false, &err), 0);
	gone("tasks/t1/0");
	is("tasks/t1", 0700, geteuid(), getegid(), NULL);
	assert_false(rundir_has(dir, "t1", 1));
	assert_int_equal(rundir_drop(dir, "t1", true, &err), 0);
	gone("tasks/t1");
	is("tasks/t2/0", 0400, geteuid(), getegid(), "one");
	assert_int_equal(rundir_drop(dir, "t1", true, &err), 0);
	assert_int_equal(rundir_drop(dir, "nothing", false, &err), 0);
	umask(old);
}

static void test_owners(void **state)
{
	const struct rundir_file f = {.data = "x", .len = 1, .mode = 0440, .uid = 5, .gid = 6};
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	if (geteuid() != 0)
		skip();
	opened();
	assert_int_equal(rundir_write(dir, "t1", &(struct rundir_owner){0}, &f, 1, &err), 0);
	is("tasks/t1/0", 0440, 5, 6, "x");
	/* user namespaces: root in there is somebody else, who has to get through */
	assert_int_equal(rundir_write(dir, "t2", &(struct rundir_owner){.uid = 1000, .gid = 2000},
				 &f, 1, &err),
		0);
	is("tasks/t2", 0710, 0, 2000, NULL);
	is("tasks/t2/0", 0440, 1005, 2006, "x");
	assert_int_equal(rundir_drop(dir, "t2", true, &err), 0);
	gone("tasks/t2");
	assert_int_equal(rundir_write(dir, "t3",
				 &(struct rundir_owner){.uid = 0x7fffffff, .gid = 0}, &f, 1, &err),
		-ERANGE);
	assert_int_equal(err.cls, SW_REJECTED);
	gone("tasks/t3");
}

static void test_names_that_are_no_task(void **state)
{
	const struct rundir_file f = FILE_OF("x", 0400);
	static const char *const bad[] = {"", ".", "..", "../x", "a/b", "/", "A", "a b"};
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	opened();
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		assert_true(put(bad[i], &f, 1, &err) < 0);
		assert_int_equal(err.cls, SW_REJECTED);
		assert_false(rundir_has(dir, bad[i], 0));
	}
	for (size_t i = 0; i < 6; i++)
		assert_true(rundir_drop(dir, bad[i], true, &err) < 0);
	is("tasks", 0711, geteuid(), getegid(), NULL);
}

/* Links that somebody has put there lead nowhere. */
static void test_links(void **state)
{
	const struct rundir_file f = FILE_OF("x", 0400);
	char outside[96], victim[128];
	struct sw_err err = SW_ERR_NONE;
	int fd;

	(void)state;
	opened();
	snprintf(outside, sizeof(outside), "%s/outside", base);
	snprintf(victim, sizeof(victim), "%s/outside/0", base);
	assert_int_equal(mkdir(outside, 0700), 0);
	fd = open(victim, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	/* in place of a task's folder: the link goes, what it points to stays */
	assert_int_equal(symlink(outside, at("tasks/t1")), 0);
	assert_false(rundir_has(dir, "t1", 1));
	assert_int_equal(put("t1", &f, 1, &err), 0);
	is("tasks/t1", 0700, geteuid(), getegid(), NULL);
	is("tasks/t1/0", 0400, geteuid(), getegid(), "x");
	assert_int_equal(access(victim, F_OK), 0);
	/* in place of a file */
	assert_int_equal(unlink(at("tasks/t1/0")), 0);
	assert_int_equal(symlink(victim, at("tasks/t1/0")), 0);
	assert_false(rundir_has(dir, "t1", 1));
	assert_int_equal(put("t1", &f, 1, &err), 0);
	is("tasks/t1/0", 0400, geteuid(), getegid(), "x");
	assert_int_equal(rundir_drop(dir, "t1", true, &err), 0);
	assert_int_equal(access(victim, F_OK), 0);
	/* in place of tasks and of the whole */
	rundir_free(dir);
	dir = rundir_new(path, no_mount);
	assert_int_equal(rmdir(at("tasks")), 0);
	assert_int_equal(symlink(outside, at("tasks")), 0);
	assert_true(rundir_open(dir, &err) < 0);
	unlink(at("tasks"));
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink(outside, path), 0);
	assert_true(rundir_open(dir, &err) < 0);
	assert_int_equal(err.cls, SW_REJECTED);
	assert_non_null(strstr(err.msg, "is no directory"));
}

static void test_list(void **state)
{
	const struct rundir_file f = FILE_OF("x", 0400);
	struct sw_err err = SW_ERR_NONE;
	char **names;
	size_t n, seen = 0;

	(void)state;
	opened();
	assert_int_equal(put("t1", &f, 1, &err), 0);
	assert_int_equal(put("t2", &f, 1, &err), 0);
	assert_int_equal(mkdir(at("tasks/not an id"), 0700), 0);
	assert_int_equal(mkdir(at("tasks/not an id/sub"), 0700), 0);
	assert_int_equal(rundir_list(dir, &names, &n, &err), 0);
	assert_int_equal(n, 3);
	for (size_t i = 0; i < n; i++) {
		seen += !strcmp(names[i], "t1") + !strcmp(names[i], "t2") +
			!strcmp(names[i], "not an id");
		assert_int_equal(rundir_drop(dir, names[i], true, &err), 0);
		free(names[i]);
	}
	free(names);
	assert_int_equal(seen, 3);
	assert_int_equal(rundir_list(dir, &names, &n, &err), 0);
	assert_int_equal(n, 0);
	free(names);
}

static void test_emptied_and_replaced(void **state)
{
	const struct rundir_file f = FILE_OF("x", 0400);
	struct sw_err err = SW_ERR_NONE;
	char moved[128];

	(void)state;
	opened();
	assert_int_equal(put("t1", &f, 1, &err), 0);
	assert_int_equal(unlink(at("tasks/t1/0")), 0);
	assert_int_equal(rmdir(at("tasks/t1")), 0);
	assert_int_equal(rmdir(at("tasks")), 0);
	opened();
	assert_false(rundir_has(dir, "t1", 1));
	assert_int_equal(put("t1", &f, 1, &err), 0);
	is("tasks/t1/0", 0400, geteuid(), getegid(), "x");
	/* another folder has the name now */
	snprintf(moved, sizeof(moved), "%s/moved", base);
	assert_int_equal(rename(path, moved), 0);
	opened();
	assert_false(rundir_has(dir, "t1", 1));
	assert_int_equal(put("t1", &f, 1, &err), 0);
	is("tasks/t1/0", 0400, geteuid(), getegid(), "x");
}

static void test_one_agent_at_a_time(void **state)
{
	struct rundir *other = rundir_new(path, no_mount);
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	opened();
	opened();
	assert_int_equal(rundir_open(other, &err), -EBUSY);
	assert_int_equal(err.cls, SW_TEMPORARY);
	rundir_free(dir);
	dir = NULL;
	assert_int_equal(rundir_open(other, &err), 0);
	rundir_free(other);
}

static void test_somebody_elses(void **state)
{
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	if (geteuid() != 0)
		skip();
	opened();
	rundir_free(dir);
	dir = rundir_new(path, no_mount);
	assert_int_equal(chown(path, 1, 1), 0);
	assert_int_equal(rundir_open(dir, &err), -EPERM);
	assert_int_equal(err.cls, SW_REJECTED);
	assert_non_null(strstr(err.msg, "belongs to user 1"));
}

/* Not in memory, and no mount possible: refused, and nothing was written. */
static void test_on_a_disk(void **state)
{
	char disk[] = "/var/tmp/test-rundir-XXXXXX", where[64], tasks[80];
	struct sw_err err = SW_ERR_NONE;
	struct rundir *r;

	(void)state;
	if (!mkdtemp(disk) || in_memory(disk))
		skip();
	snprintf(where, sizeof(where), "%s/run", disk);
	snprintf(tasks, sizeof(tasks), "%s/tasks", where);
	r = rundir_new(where, no_mount);
	assert_int_equal(rundir_open(r, &err), -EPERM);
	assert_int_equal(err.cls, SW_REJECTED);
	assert_non_null(strstr(err.msg, "is not on a tmpfs, and none can be mounted there "
					"(Operation not permitted)"));
	assert_non_null(strstr(err.msg, "--run-dir"));
	assert_int_equal(mounts, 1);
	/* a mount that says yes and does nothing */
	mount_errno = 0;
	assert_int_equal(rundir_open(r, &err), -ENOTSUP);
	assert_int_equal(err.cls, SW_REJECTED);
	/* an old kernel: once more without the option */
	mount_errno = EINVAL;
	mounts = 0;
	assert_int_equal(rundir_open(r, &err), -EINVAL);
	assert_int_equal(mounts, 2);
	assert_true(access(tasks, F_OK) < 0);
	rundir_free(r);
	rmdir(where);
	rmdir(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_targets_owners_modes, setup_task),
		cmocka_unit_test_setup(test_mounts_of_files, setup_task),
		cmocka_unit_test_setup(test_paths_that_lead_elsewhere, setup_task),
		cmocka_unit_test_setup(test_refusals, setup_task),
#define DIR_TEST(f) cmocka_unit_test_setup_teardown(f, setup_dir, teardown_dir)
		DIR_TEST(test_write_and_drop),
		DIR_TEST(test_owners),
		DIR_TEST(test_names_that_are_no_task),
		DIR_TEST(test_links),
		DIR_TEST(test_list),
		DIR_TEST(test_emptied_and_replaced),
		DIR_TEST(test_one_agent_at_a_time),
		DIR_TEST(test_somebody_elses),
		DIR_TEST(test_on_a_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
