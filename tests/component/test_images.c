/* Images against the test engine: whose credentials are used, how a registry that is away is borne,
 * and what is told meanwhile. */
#include "test.h"

#include "await.h"
#include "executor/images.h"
#include "testengine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <sys/stat.h>
#include <unistd.h>

#define AWAY "Get \"https://reg:5000/v2/\": dial tcp: lookup reg: i/o timeout"

static struct sw_loop *loop;
static struct testengine *te;
static struct engine *engine;
static struct images im;
static char dir[] = "/tmp/test-images-XXXXXX";
static char *old_path;
static bool faked, opened;
static char logged[65536];

struct want {
	struct image_want w;
	bool done;
	uint64_t at_ns;
	struct sw_err err;
	char notes[4096];
};

static void on_there(void *arg, const struct sw_err *err)
{
	struct want *x = arg;

	assert_false(x->done);
	x->done = true;
	x->at_ns = sw_now(loop);
	sw_err_copy(&x->err, err);
}

static void on_note(void *arg, const char *text)
{
	struct want *x = arg;
	size_t n = strlen(x->notes);

	snprintf(x->notes + n, sizeof(x->notes) - n, "%s\n", text);
}

static void want(struct want *x, const char *image, const char *auth)
{
	memset(x, 0, sizeof(*x));
	x->w.progress = on_note;
	image_want(&im, &x->w, image, auth, on_there, x);
}

/* With the fake clock time runs as fast as the loop can; else it waits. */
#define UNTIL(cond)                                                                                \
	do {                                                                                       \
		if (!faked)                                                                        \
			AWAIT(loop, cond);                                                         \
		for (int i_ = 0; faked && i_ < 20000 && !(cond); i_++)                             \
			sw_fake_advance(loop, sw_ms(20));                                          \
		assert_true(cond);                                                                 \
	} while (0)

/* Real processes end in real time, whatever the clock says; time stands still meanwhile. */
#define UNTIL_REALLY(cond)                                                                         \
	do {                                                                                       \
		for (int i_ = 0; i_ < 30000 && !(cond); i_++) {                                    \
			sw_fake_advance(loop, 0);                                                  \
			usleep(1000); /* lint-ok: processes know no fake clock */                  \
		}                                                                                  \
		assert_true(cond);                                                                 \
	} while (0)

static void get(struct want *x, const char *image, const char *auth)
{
	want(x, image, auth);
	UNTIL(x->done);
}

#define OK(x, image, auth)                                                                         \
	do {                                                                                       \
		get(x, image, auth);                                                               \
		if ((x)->err.cls)                                                                  \
			fail_msg("line %d: %s", __LINE__, (x)->err.msg);                           \
	} while (0)

static size_t pulls(void)
{
	return testengine_n_requests(te, "POST /images/create*");
}

static void fault(int status, const char *text, uint64_t delay_ns, unsigned times)
{
	sw_auto_free char *body = xasprintf("{\"message\":\"%s\"}", text);
	struct testengine_fault f = {.match = "POST /images/create*",
		.status = status,
		.body = body,
		.delay_ns = delay_ns,
		.times = times};

	testengine_fault_add(te, &f);
}

static void put_file(const char *name, const char *text, mode_t mode)
{
	sw_auto_free char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, mode);
}

static void on_log(void *arg, enum log_level level, const char *line)
{
	size_t n = strlen(logged);

	(void)arg;
	(void)level;
	snprintf(logged + n, sizeof(logged) - n, "%s\n", line);
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

static void open_images(enum docker_pull_policy policy, bool config)
{
	images_init(&im, loop, engine, policy, 4, config ? dir : NULL);
	opened = true;
}

static void close_images(void)
{
	bool closed = false;

	opened = false;
	images_close(&im, set_true, &closed);
	if (faked)
		UNTIL_REALLY(closed);
	else
		UNTIL(closed);
}

static int setup(void **state)
{
	struct testengine_config tc = {0};
	struct engine_config ec = {0};
	sw_auto_free char *path = NULL, *sock = NULL;
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	assert_non_null(mkdtemp(dir));
	sock = xasprintf("%s/sock", dir);
	tc.socket_path = sock;
	old_path = xstrdup(getenv("PATH"));
	path = xasprintf("%s:%s", dir, old_path);
	setenv("PATH", path, 1);
	faked = false;
	logged[0] = '\0';
	log_set_sink(on_log, NULL);
	log_set_level(LOG_L_DEBUG);
	if (sw_loop_new(&loop, &err) < 0 || testengine_new(&te, loop, &tc, &err) < 0)
		fail_msg("%s", err.msg);
	ec.host = testengine_host(te);
	if (engine_new(&engine, loop, &ec, &err) < 0)
		fail_msg("%s", err.msg);
	return 0;
}

static int teardown(void **state)
{
	sw_auto_free char *rm = xasprintf("rm -rf %s", dir);
	bool closed = false;

	(void)state;
	if (opened)
		close_images();
	engine_close(engine, set_true, &closed);
	UNTIL(closed);
	closed = false;
	testengine_close(te, set_true, &closed);
	UNTIL(closed);
	assert_int_equal(sw_loop_free(loop), 0);
	log_set_sink(NULL, NULL);
	setenv("PATH", old_path, 1);
	free(old_path);
	assert_int_equal(system(rm), 0);
	strcpy(strrchr(dir, '-') + 1, "XXXXXX");
	return 0;
}

static void fake_time(void)
{
	sw_fake_clock(loop, sw_now(loop));
	faked = true;
}

/* ---- credentials */

/* {"username":"me","password":"hidden","serveraddress":"reg:5000"} */
#define OWN                                                                                        \
	"eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJoaWRkZW4iLCJzZXJ2ZXJhZGRyZXNzIjoicmVnOjUwMDAifQ=="
#define AUTHS "{\"auths\":{\"reg:5000\":{\"auth\":\"bWU6aGlkZGVu\"}}}"

static void private_image(void)
{
	testengine_registry_add(te, "reg:5000/app:1", 0, NULL);
	testengine_registry_auth(te, "reg:5000/app:1", OWN);
}

static void assert_nothing_leaked(void)
{
	assert_null(strstr(logged, "hidden"));
	assert_null(strstr(logged, "bWU6aGlkZGVu"));
	assert_null(strstr(logged, OWN));
	assert_null(strstr(logged, "stale-token"));
}

static void test_own_credentials(void **state)
{
	struct want x;

	(void)state;
	private_image();
	open_images(DOCKER_PULL_ALWAYS, true);
	/* nobody has logged in yet: the registry's own words */
	get(&x, "reg:5000/app:1", NULL);
	assert_int_equal(x.err.cls, SW_REJECTED);
	assert_non_null(strstr(x.err.msg, "unauthorized"));
	put_file("config.json", AUTHS, 0600);
	OK(&x, "reg:5000/app:1", NULL); /* without a restart */
	assert_string_equal(testengine_last_auth(te), OWN);
	/* not for another registry */
	testengine_registry_add(te, "other:1/app:1", 0, NULL);
	testengine_registry_auth(te, "other:1/app:1", OWN);
	get(&x, "other:1/app:1", NULL);
	assert_non_null(strstr(x.err.msg, "unauthorized"));
	assert_nothing_leaked();
}

static void test_expired_token(void **state)
{
	struct want x;

	(void)state;
	private_image();
	put_file("config.json", AUTHS, 0600);
	open_images(DOCKER_PULL_ALWAYS, true);
	OK(&x, "reg:5000/app:1", "stale-token");
	assert_int_equal(pulls(), 2); /* the task's first, then the node's own */
	assert_nothing_leaked();
	/* both refused: the end, without a third try */
	testengine_image_remove(te, "reg:5000/app:1");
	put_file("config.json", "{\"auths\":{\"reg:5000\":{\"auth\":\"bWU6eA==\"}}}", 0600);
	get(&x, "reg:5000/app:1", "stale-token");
	assert_int_equal(x.err.cls, SW_REJECTED);
	assert_non_null(strstr(x.err.msg, "unauthorized"));
	assert_int_equal(pulls(), 4);
	/* no others there: one try, no anonymous one */
	put_file("config.json", "{}", 0600);
	get(&x, "reg:5000/app:1", "stale-token");
	assert_non_null(strstr(x.err.msg, "unauthorized"));
	assert_int_equal(pulls(), 5);
	close_images();
	open_images(DOCKER_PULL_ALWAYS, false);
	get(&x, "reg:5000/app:1", "stale-token");
	assert_non_null(strstr(x.err.msg, "unauthorized"));
	assert_int_equal(pulls(), 6);
}

static void test_task_credentials_first(void **state)
{
	struct want x;

	(void)state;
	private_image();
	put_file("config.json", "not JSON", 0600);
	open_images(DOCKER_PULL_ALWAYS, true);
	OK(&x, "reg:5000/app:1", OWN);
	assert_int_equal(pulls(), 1);
	assert_null(strstr(logged, "config.json"));
	/* a broken file: said in the log, and in the error where it may be the cause */
	testengine_image_remove(te, "reg:5000/app:1");
	get(&x, "reg:5000/app:1", NULL);
	assert_non_null(strstr(x.err.msg, "unauthorized"));
	assert_non_null(strstr(x.err.msg, "config.json: not a JSON object"));
	testengine_registry_add(te, "open:1/app:1", 0, NULL);
	OK(&x, "open:1/app:1", NULL);
	assert_non_null(strstr(logged, "config.json: not a JSON object"));
}

#define HELPER "{\"credsStore\":\"test\"}"
#define SAYS   "#!/bin/sh\nread server\n"

static void test_helper(void **state)
{
	struct want x;

	(void)state;
	private_image();
	open_images(DOCKER_PULL_ALWAYS, true);
	put_file("config.json", HELPER, 0600);
	put_file("docker-credential-test",
		SAYS "[ \"$1 $server\" = \"get reg:5000\" ] || exit 7\n"
		     "echo '{\"Username\":\"me\",\"Secret\":\"hidden\"}'",
		0755);
	OK(&x, "reg:5000/app:1", NULL);
	assert_string_equal(testengine_last_auth(te), OWN);
	assert_nothing_leaked();

	/* what goes wrong: the pull goes on without, and the error says why */
	testengine_image_remove(te, "reg:5000/app:1");
	put_file("docker-credential-test", SAYS "echo locked; exit 1", 0755);
	get(&x, "reg:5000/app:1", NULL);
	assert_non_null(strstr(x.err.msg, "unauthorized"));
	assert_non_null(strstr(x.err.msg, "docker-credential-test: exit code 1: locked"));
	put_file("docker-credential-test", SAYS "kill -9 $$", 0755);
	get(&x, "reg:5000/app:1", NULL);
	assert_non_null(strstr(x.err.msg, "docker-credential-test: exit code 137"));
	put_file("docker-credential-test", "#!/bin/sh\nexec yes", 0755);
	get(&x, "reg:5000/app:1", NULL);
	assert_non_null(strstr(x.err.msg, "too long"));
	put_file("docker-credential-test", "#!/bin/sh\nexit 0", 0755); /* reads nothing */
	get(&x, "reg:5000/app:1", NULL);
	assert_non_null(strstr(x.err.msg, "not a JSON object"));
	put_file("config.json", "{\"credsStore\":\"nowhere\"}", 0600);
	get(&x, "reg:5000/app:1", NULL);
	assert_non_null(strstr(x.err.msg, "docker-credential-nowhere: no such file"));

	/* it knows nothing, or fails: what the file holds is used */
	put_file("config.json",
		"{\"credsStore\":\"test\",\"auths\":{\"reg:5000\":{\"auth\":\"bWU6aGlkZGVu\"}}}",
		0600);
	put_file("docker-credential-test",
		SAYS "echo credentials not found in native keychain; exit 1", 0755);
	OK(&x, "reg:5000/app:1", NULL);
	assert_string_equal(testengine_last_auth(te), OWN);
	assert_nothing_leaked();
}

/* Killed with its children, and nobody waits for it longer than the limit. */
static void test_helper_hangs(void **state)
{
	sw_auto_free char *pid_file = xasprintf("%s/pid", dir), *script = NULL;
	struct want x, y;

	(void)state;
	private_image();
	script = xasprintf("#!/bin/sh\nsleep 1000 &\necho $! >%s.new\nmv %s.new %s\nwait", pid_file,
		pid_file, pid_file);
	put_file("config.json", HELPER, 0600);
	put_file("docker-credential-test", script, 0755);
	open_images(DOCKER_PULL_ALWAYS, true);
	want(&x, "reg:5000/app:1", NULL);
	AWAIT(loop, access(pid_file, F_OK) == 0);
	fake_time();
	sw_fake_advance(loop, sw_s(11));
	UNTIL_REALLY(testengine_n_requests(te, "POST*") == 1);
	UNTIL(x.done);
	assert_non_null(strstr(x.err.msg, "no answer within 10 s"));
	/* dropped by its task, and by the end of us: silence, nothing left open */
	want(&y, "reg:5000/app:1", NULL);
	image_drop(&y.w);
	want(&y, "reg:5000/app:1", NULL);
	unlink(pid_file);
	UNTIL_REALLY(access(pid_file, F_OK) == 0);
	close_images();
	assert_false(y.done);
}

/* ---- a registry that is away */

#define N 50

/* Fifty images that are here, a registry whose name look-up takes 10 s to fail: one look-up's time,
 * and then no time at all. */
static void test_local_images_wait_for_one_lookup(void **state)
{
	static struct want x[N];
	char name[64];
	uint64_t start;
	size_t n;

	(void)state;
	open_images(DOCKER_PULL_ALWAYS, false);
	fake_time();
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "reg:5000/app%d:1", i);
		testengine_image_add(te, name);
	}
	testengine_image_add(te, "bb:1");
	testengine_registry_add(te, "bb:1", 0, NULL);
	fault(500, AWAY, sw_s(8), 4);
	fault(500, AWAY, sw_s(8), 1);
	start = sw_now(loop);
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "reg:5000/app%d:1", i);
		want(&x[i], name, NULL);
	}
	for (int i = 0; i < N; i++) {
		UNTIL(x[i].done);
		assert_int_equal(x[i].err.cls, SW_OK);
		assert_in_range(x[i].at_ns - start, 0, sw_s(9));
	}
	assert_int_equal(pulls(), 4); /* those that were allowed at once */
	/* within the cool-down: at once, nobody asks */
	start = sw_now(loop);
	OK(&x[0], "reg:5000/app7:1", NULL);
	assert_in_range(sw_now(loop) - start, 0, sw_s(1));
	assert_int_equal(pulls(), 4);
	/* another registry is another matter */
	testengine_fault_clear(te);
	OK(&x[0], "bb:1", NULL);
	assert_int_equal(pulls(), 5);

	/* afterwards one asks, the others do not wait for it */
	sw_fake_advance(loop, sw_s(31));
	fault(500, AWAY, sw_s(8), 1);
	start = sw_now(loop);
	want(&x[0], "reg:5000/app0:1", NULL);
	UNTIL(pulls() == 6);
	OK(&x[1], "reg:5000/app1:1", NULL);
	assert_in_range(sw_now(loop) - start, 0, sw_s(2));
	assert_false(x[0].done);
	UNTIL(x[0].done);
	assert_int_equal(x[0].err.cls, SW_OK);
	/* still away: twice as long now */
	sw_fake_advance(loop, sw_s(40));
	OK(&x[1], "reg:5000/app1:1", NULL);
	assert_int_equal(pulls(), 6);
	/* a probe whose task goes leaves its place to the next one */
	sw_fake_advance(loop, sw_s(25));
	fault(500, AWAY, sw_s(1000), 1);
	want(&x[0], "reg:5000/app0:1", NULL);
	UNTIL(pulls() == 7);
	image_drop(&x[0].w);
	/* back again, and everybody asks as before */
	testengine_fault_clear(te);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "reg:5000/app%d:1", i);
		testengine_registry_add(te, name, 0, NULL);
		n = pulls();
		OK(&x[0], name, NULL);
		assert_int_equal(pulls(), n + 1);
	}
	assert_non_null(strstr(logged, "registry is back"));
}

/* It does not refuse, it says nothing. */
static void test_patience(void **state)
{
	struct testengine_fault f = {
		.match = "POST /images/create*", .cut = TE_CUT_STALL, .times = 1, .status = 200};
	struct want x, y;
	uint64_t start;

	(void)state;
	open_images(DOCKER_PULL_ALWAYS, false);
	fake_time();
	testengine_image_add(te, "reg:5000/app:1");
	testengine_image_add(te, "reg:5000/app:2");
	testengine_fault_add(te, &f);
	start = sw_now(loop);
	OK(&x, "reg:5000/app:1", NULL);
	assert_in_range(sw_now(loop) - start, sw_s(10), sw_s(11));
	OK(&x, "reg:5000/app:2", NULL);
	assert_in_range(sw_now(loop) - start, sw_s(10), sw_s(12));
	/* an image that is not here is worth any wait, also while the registry counts as away */
	testengine_registry_add(te, "reg:5000/new:1", sw_s(200), NULL);
	start = sw_now(loop);
	OK(&y, "reg:5000/new:1", NULL);
	assert_in_range(sw_now(loop) - start, sw_s(200), sw_s(202));
	assert_non_null(strstr(logged, "registry is back"));
	/* slow, but it talks: awaited although an old image is here */
	testengine_registry_add(te, "reg:5000/app:1", sw_s(100), NULL);
	start = sw_now(loop);
	OK(&x, "reg:5000/app:1", NULL);
	assert_in_range(sw_now(loop) - start, sw_s(100), sw_s(102));
}

static void test_absent_image(void **state)
{
	struct want x;
	uint64_t start;

	(void)state;
	open_images(DOCKER_PULL_ALWAYS, false);
	fake_time();
	fault(500, AWAY, sw_s(1), 0);
	start = sw_now(loop);
	get(&x, "reg:5000/app:1", NULL);
	assert_int_equal(x.err.cls, SW_REJECTED);
	assert_non_null(strstr(x.err.msg, "lookup reg: i/o timeout"));
	assert_int_equal(pulls(), 3);
	assert_in_range(sw_now(loop) - start, sw_s(8), sw_s(9)); /* 3 tries, 1 s and 4 s apart */
	assert_non_null(strstr(x.notes, "trying again: "));
	/* it dies in the middle of a layer, comes back for the next try */
	testengine_fault_clear(te);
	testengine_registry_add(te, "reg:5000/app:2", sw_s(2), "unexpected EOF");
	want(&x, "reg:5000/app:2", NULL);
	UNTIL(strstr(x.notes, "trying again: unexpected EOF"));
	testengine_registry_add(te, "reg:5000/app:2", sw_s(2), NULL);
	UNTIL(x.done);
	assert_int_equal(x.err.cls, SW_OK);
}

/* ---- what is told */

static void test_notes(void **state)
{
	struct want x, y;

	(void)state;
	open_images(DOCKER_PULL_ALWAYS, false);
	fake_time();
	testengine_registry_add(te, "reg:5000/app:1", sw_s(20), NULL);
	want(&x, "reg:5000/app:1", NULL);
	UNTIL(strstr(x.notes, "pulling reg:5000/app:1: downloading 0/2 layers\n"));
	want(&y, "reg:5000/app:1", NULL); /* comes late, hears it at once */
	sw_fake_advance(loop, sw_ms(1));
	assert_string_equal(y.notes, "pulling reg:5000/app:1: downloading 0/2 layers\n");
	image_leave(&y.w);
	UNTIL(x.done);
	assert_non_null(strstr(x.notes, "pulling reg:5000/app:1: downloading 1/2 layers\n"));
	assert_string_equal(y.notes, "pulling reg:5000/app:1: downloading 0/2 layers\n");
	assert_int_equal(pulls(), 1);
	assert_int_equal(strlen(x.w.digest), strlen("sha256:") + 64);
	assert_non_null(strstr(logged, x.w.digest));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_own_credentials),
		T(test_expired_token),
		T(test_task_credentials_first),
		T(test_helper),
		T(test_helper_hangs),
		T(test_local_images_wait_for_one_lookup),
		T(test_patience),
		T(test_absent_image),
		T(test_notes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
