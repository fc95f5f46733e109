/* Secrets and configs of tasks, executor against the test engine: the files are there before the
 * container, again before it starts, and gone when it is over. */
#include "test.h"

#include "await.h"
#include "tasks.h"
#include "testengine.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <swarm/engine.h>
#include <swarm/err.h>
#include <swarm/executor.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define PAYLOAD "pAyLoAd-of-the-secret"

static struct sw_loop *loop;
static struct testengine *te;
static struct engine *engine;
static struct executor *executor;
static char base[64], socket_path[96], run_dir[96];

struct res {
	bool done;
	struct sw_err err;
	bool already;
};

static void on_result(void *arg, const struct controller_result *r)
{
	struct res *x = arg;

	x->done = true;
	x->err = r->err;
	x->already = r->already;
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

/* ---- what the agent has got: by id */

static bool have_secret, have_config, known;
static Pb__Secret secret_obj;
static Pb__SecretSpec secret_spec;
static Pb__Config config_obj;
static Pb__ConfigSpec config_spec;
static Pb__Driver driver;

static const Pb__Secret *get_secret(void *arg, const char *task_id, const char *id)
{
	(void)arg;
	assert_true(strncmp(task_id, "task", 4) == 0);
	return have_secret && strcmp(id, "s1") == 0 ? &secret_obj : NULL;
}

static const Pb__Config *get_config(void *arg, const char *task_id, const char *id)
{
	(void)arg;
	assert_true(strncmp(task_id, "task", 4) == 0);
	return have_config && strcmp(id, "c1") == 0 ? &config_obj : NULL;
}

static bool knows_task(void *arg, const char *task_id)
{
	(void)arg;
	return known && strcmp(task_id, "task1") == 0;
}

static void set_bytes(ProtobufCBinaryData *b, const char *text)
{
	b->data = (uint8_t *)text;
	b->len = strlen(text);
}

static void init_deps(void)
{
	pb__secret__init(&secret_obj);
	pb__secret_spec__init(&secret_spec);
	pb__config__init(&config_obj);
	pb__config_spec__init(&config_spec);
	pb__driver__init(&driver);
	secret_obj.spec = &secret_spec;
	config_obj.spec = &config_spec;
	set_bytes(&secret_spec.data, PAYLOAD);
	set_bytes(&config_spec.data, "plain");
	have_secret = have_config = known = true;
}

/* ---- fixture */

static void open_executor(const char *dir)
{
	struct engine_config ec = {.host = testengine_host(te)};
	struct docker_executor_config cfg = {.loop = loop, .run_dir = dir};
	const struct executor_deps deps = {
		.secret = get_secret, .config = get_config, .knows_task = knows_task};
	struct sw_err err = SW_ERR_NONE;

	if (engine_new(&engine, loop, &ec, &err) < 0)
		fail_msg("%s", err.msg);
	cfg.engine = engine;
	if (docker_executor_new(&executor, &cfg, &err) < 0)
		fail_msg("%s", err.msg);
	executor->ops->set_deps(executor, &deps);
	executor->ops->set_node(executor, "node1", "cluster1");
	AWAIT(loop, testengine_n_event_streams(te) >= 1);
}

static void close_executor(void)
{
	bool closed = false;

	if (!executor)
		return;
	executor->ops->close(executor, set_true, &closed);
	AWAIT(loop, closed);
	executor = NULL;
	closed = false;
	engine_close(engine, set_true, &closed);
	AWAIT(loop, closed);
	engine = NULL;
}

static int setup(void **state)
{
	struct testengine_config tc = {.socket_path = socket_path};
	struct sw_err err = SW_ERR_NONE;
	struct statfs fs;

	(void)state;
	strcpy(base, "/dev/shm/test-secrets-XXXXXX");
	if (!mkdtemp(base) || statfs(base, &fs) < 0 || fs.f_type != 0x01021994)
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/sock", base);
	snprintf(run_dir, sizeof(run_dir), "%s/run", base);
	init_deps();
	if (sw_loop_new(&loop, &err) < 0 || testengine_new(&te, loop, &tc, &err) < 0)
		fail_msg("%s", err.msg);
	open_executor(run_dir);
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];
	bool closed = false;

	(void)state;
	close_executor();
	testengine_close(te, set_true, &closed);
	AWAIT(loop, closed);
	assert_int_equal(sw_loop_free(loop), 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", base);
	return system(cmd);
}

/* ---- tasks */

struct job {
	struct test_task x;
	struct api_task *t;
	struct controller *c;
	struct res r;
};

/* One secret, for the test's own user, and one config. */
static void job_init(struct job *j, const char *id, const char *command)
{
	memset(j, 0, sizeof(*j));
	test_task_init(&j->x, id);
	j->x.c.args = xmemdup_keep(&command, sizeof(command));
	j->x.c.n_args = 1;
	test_task_grace(&j->x, 1);
	test_secret(&j->x, "s1", "db", test_file("db", geteuid(), getegid(), 0440));
	test_config(&j->x, "c1", "conf", test_file("conf", geteuid(), getegid(), 0444));
}

static void job_open(struct job *j)
{
	struct sw_err err = SW_ERR_NONE;

	j->t = test_task_make(&j->x);
	if (executor->ops->controller(executor, j->t, &j->c, &err) < 0)
		fail_msg("%s", err.msg);
}

static void job_close(struct job *j)
{
	j->c->ops->close(j->c);
	api_task_unref(j->t);
}

#define BEGIN(j, op)                                                                               \
	do {                                                                                       \
		memset(&(j)->r, 0, sizeof((j)->r));                                                \
		(j)->c->ops->op((j)->c, on_result, &(j)->r);                                       \
		assert_false((j)->r.done);                                                         \
	} while (0)
#define RUN(j, op)                                                                                 \
	do {                                                                                       \
		BEGIN(j, op);                                                                      \
		AWAIT(loop, (j)->r.done);                                                          \
	} while (0)
#define OK(j, op)                                                                                  \
	do {                                                                                       \
		RUN(j, op);                                                                        \
		if ((j)->r.err.cls)                                                                \
			fail_msg("line %d: %s: %s", __LINE__, #op, (j)->r.err.msg);                \
	} while (0)
#define FAILED(j, class, text)                                                                     \
	do {                                                                                       \
		if ((j)->r.err.cls != (class) || !strstr((j)->r.err.msg, text))                    \
			fail_msg("line %d: %s \"%s\"", __LINE__, sw_errclass_name((j)->r.err.cls), \
				(j)->r.err.msg);                                                   \
	} while (0)

static bool there(const char *rest)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/tasks/%s", run_dir, rest);
	return access(path, F_OK) == 0;
}

static void holds_at(const char *rest, const char *want, int line)
{
	char path[256], buf[256] = "";
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/tasks/%s", run_dir, rest);
	fd = open(path, O_RDONLY | O_NOFOLLOW);
	if (fd < 0)
		fail_msg("line %d: %s: %s", line, rest, strerror(errno));
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n < 0 || strcmp(buf, want) != 0)
		fail_msg("line %d: %s holds \"%s\"", line, rest, buf);
}
#define holds(rest, want) holds_at(rest, want, __LINE__)

static void empty_run_dir(void)
{
	char cmd[160];

	snprintf(cmd, sizeof(cmd), "rm -rf %s/*", run_dir);
	assert_int_equal(system(cmd), 0);
}

/* ---- tests */

static void test_from_create_to_removal(void **state)
{
	struct testengine_container k;
	struct job j;

	(void)state;
	job_init(&j, "task1", "exit 0 after 30ms");
	job_open(&j);
	OK(&j, prepare);
	holds("task1/0", PAYLOAD);
	holds("task1/1", "plain");
	assert_true(testengine_container_at(te, 0, &k));
	assert_null(strstr(json_object_to_json_string(k.body), "pAyLoAd"));
	assert_non_null(strstr(json_object_to_json_string(k.body), "task1\\/0"));
	OK(&j, start);
	holds("task1/0", PAYLOAD);
	OK(&j, wait);
	/* over: the payload goes at once, the folder with the task */
	AWAIT(loop, !there("task1/0"));
	assert_true(there("task1"));
	OK(&j, remove);
	assert_false(there("task1"));
	job_close(&j);
}

static void test_not_arrived_yet(void **state)
{
	struct job j;

	(void)state;
	have_config = false;
	job_init(&j, "task1", "sleep 60");
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_TEMPORARY, "dependency not ready: config \"conf\" has not arrived");
	assert_false(there("task1"));
	assert_int_equal(testengine_n_containers(te), 0);
	have_config = true;
	have_secret = false;
	RUN(&j, prepare);
	FAILED(&j, SW_TEMPORARY, "dependency not ready: secret \"db\" has not arrived");
	have_secret = true;
	OK(&j, prepare);
	holds("task1/0", PAYLOAD);
	/* what is there already needs nobody to send it again */
	have_secret = have_config = false;
	OK(&j, start);
	OK(&j, remove);
	assert_false(there("task1"));
	job_close(&j);
}

/* The machine was started anew: the created container is there, the files are not. */
static void test_made_again_before_the_start(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60");
	job_open(&j);
	OK(&j, prepare);
	job_close(&j);
	close_executor();
	empty_run_dir();
	open_executor(run_dir);
	job_open(&j);
	have_secret = false;
	OK(&j, prepare);
	assert_true(j.r.already);
	RUN(&j, start);
	FAILED(&j, SW_TEMPORARY, "dependency not ready: secret \"db\"");
	have_secret = true;
	OK(&j, start);
	holds("task1/0", PAYLOAD);
	holds("task1/1", "plain");
	OK(&j, shutdown);
	AWAIT(loop, !there("task1/0"));
	OK(&j, remove);
	assert_false(there("task1"));
	job_close(&j);
}

/* Half of it, as a crash leaves it. */
static void test_written_anew_after_a_crash(void **state)
{
	char path[256];
	int fd;
	struct job j;

	(void)state;
	snprintf(path, sizeof(path), "%s/tasks/task1", run_dir);
	assert_int_equal(mkdir(run_dir, 0711), 0);
	snprintf(path, sizeof(path), "%s/tasks", run_dir);
	assert_int_equal(mkdir(path, 0711), 0);
	snprintf(path, sizeof(path), "%s/tasks/task1", run_dir);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/tasks/task1/.0", run_dir);
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	assert_true(fd >= 0);
	close(fd);
	job_init(&j, "task1", "sleep 60");
	job_open(&j);
	OK(&j, prepare);
	holds("task1/0", PAYLOAD);
	assert_false(there("task1/.0"));
	OK(&j, remove);
	job_close(&j);
}

static void test_sweep(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60");
	job_open(&j);
	OK(&j, prepare);
	job_close(&j);
	job_init(&j, "task2", "sleep 60");
	job_open(&j);
	OK(&j, prepare);
	job_close(&j);
	close_executor();
	assert_true(there("task1/0") && there("task2/0"));
	open_executor(run_dir);
	executor->ops->sweep(executor);
	AWAIT(loop, !there("task2"));
	assert_true(there("task1/0"));
	known = false;
	executor->ops->sweep(executor);
	AWAIT(loop, !there("task1"));
}

/* Closed in the middle of everything: nothing is lost, nothing leaks. */
static void test_cancel_and_close(void **state)
{
	struct job j[8];

	(void)state;
	for (int i = 0; i < 8; i++) {
		static const char *const ids[] = {
			"task1", "task2", "task3", "task4", "task5", "task6", "task7", "task8"};

		job_init(&j[i], ids[i], "sleep 60");
		job_open(&j[i]);
		BEGIN(&j[i], prepare);
	}
	for (int i = 0; i < 8; i++) {
		for (int k = 0; k < i * 4; k++)
			sw_loop_once(loop, false);
		j[i].c->ops->cancel(j[i].c);
	}
	for (int i = 0; i < 8; i++) {
		AWAIT(loop, j[i].r.done);
		assert_true(j[i].r.err.cls == SW_CANCELLED || j[i].r.err.cls == SW_OK);
		BEGIN(&j[i], remove);
	}
	for (int i = 0; i < 8; i++) {
		char folder[16];

		AWAIT(loop, j[i].r.done);
		assert_int_equal(j[i].r.err.cls, SW_OK);
		snprintf(folder, sizeof(folder), "task%d", i + 1);
		assert_false(there(folder));
		job_close(&j[i]);
	}
	executor->ops->sweep(executor);
	close_executor();
}

static void test_not_in_memory(void **state)
{
	char disk[] = "/var/tmp/test-secrets-XXXXXX", where[64];
	struct statfs fs;
	struct job j;

	(void)state;
	if (geteuid() == 0 || !mkdtemp(disk) || statfs(disk, &fs) < 0 || fs.f_type == 0x01021994)
		skip(); /* root can mount one: tests/integration/test_secrets.sh takes that away */
	close_executor();
	snprintf(where, sizeof(where), "%s/run", disk);
	open_executor(where);
	job_init(&j, "task1", "sleep 60");
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "is not on a tmpfs");
	OK(&j, remove);
	job_close(&j);
	rmdir(where);
	rmdir(disk);
}

/* User namespaces: what the engine says of itself decides who owns the files. */
static void describe_cb(void *arg, const Pb__NodeDescription *n, const struct sw_err *err)
{
	assert_non_null(n);
	(void)err;
	*(bool *)arg = true;
}

static void add_templates(struct job *j)
{
	static Pb__Mount m;

	pb__mount__init(&m);
	m.type = PB__MOUNT__TYPE__VOLUME;
	m.source = (char *)"v-{{.Service.Name}}-{{.Task.Slot}}";
	m.target = (char *)"/data/{{.Task.Slot}}";
	TEST_PTRS(j->x.c.mounts, j->x.c.n_mounts, Pb__Mount, &m);
	TEST_STRS(j->x.c.env, j->x.c.n_env, (char *)"WHERE={{.Node.Hostname}}/{{.Node.ID}}",
		(char *)"{{plain}}=1", (char *)"{{novalue}}");
	j->x.c.hostname = (char *)"{{.Service.Name}}-{{.Task.Slot}}";
}

static void in_body(const char *part, int line)
{
	struct testengine_container k;

	assert_true(testengine_container_at(te, 0, &k));
	if (!strstr(json_object_to_json_string_ext(k.body, JSON_C_TO_STRING_NOSLASHESCAPE), part))
		fail_msg("line %d: %s not in %s", line, part, json_object_to_json_string(k.body));
}
#define IN_BODY(part) in_body(part, __LINE__)

static void test_templates(void **state)
{
	struct sw_err err = SW_ERR_NONE;
	bool described = false;
	struct job j;

	(void)state;
	driver.name = (char *)"golang";
	secret_spec.templating = config_spec.templating = &driver;
	set_bytes(&secret_spec.data, PAYLOAD "{{.Task.Slot}}");
	set_bytes(&config_spec.data,
		"{{.Node.Hostname}} {{env \"WHERE\"}} {{secret \"db\"}} {{config \"conf\" | len}}");
	job_init(&j, "task1", "sleep 60");
	add_templates(&j);
	/* nothing is known of the node yet: later */
	j.t = test_task_make(&j.x);
	assert_true(executor->ops->controller(executor, j.t, &j.c, &err) < 0);
	assert_int_equal(err.cls, SW_TEMPORARY);
	api_task_unref(j.t);
	executor->ops->describe(executor, describe_cb, &described);
	AWAIT(loop, described);
	job_open(&j);
	OK(&j, prepare);
	IN_BODY("\"WHERE=testengine/node1\",\"{{plain}}=1\",\"{{novalue}}\"");
	IN_BODY("\"Hostname\":\"web-1\"");
	IN_BODY("\"Source\":\"v-web-1\",\"Target\":\"/data/1\"");
	holds("task1/0", PAYLOAD "1");
	/* what a payload refers to is taken raw */
	holds("task1/1", "testengine testengine/node1 " PAYLOAD "{{.Task.Slot}} 74");
	OK(&j, remove);
	job_close(&j);
}

/* The manager's word for the node counts, not ours. */
static void test_node_as_the_manager_has_it(void **state)
{
	Pb__Node n = PB__NODE__INIT;
	Pb__NodeDescription desc = PB__NODE_DESCRIPTION__INIT;
	bool described = false;
	struct job j;

	(void)state;
	n.description = &desc;
	desc.hostname = (char *)"given"; /* and no platform */
	executor->ops->configure(executor, &n);
	executor->ops->describe(executor, describe_cb, &described);
	AWAIT(loop, described);
	job_init(&j, "task1", "sleep 60");
	add_templates(&j);
	job_open(&j);
	OK(&j, prepare);
	IN_BODY("\"WHERE=given/node1\"");
	OK(&j, remove);
	job_close(&j);
}

static void test_bad_templates(void **state)
{
	struct sw_err err = SW_ERR_NONE;
	Pb__Node n = PB__NODE__INIT;
	Pb__NodeDescription desc = PB__NODE_DESCRIPTION__INIT;
	struct job j;

	(void)state;
	n.description = &desc;
	executor->ops->configure(executor, &n);
#define REFUSED(text)                                                                              \
	do {                                                                                       \
		j.t = test_task_make(&j.x);                                                        \
		assert_true(executor->ops->controller(executor, j.t, &j.c, &err) < 0);             \
		api_task_unref(j.t);                                                               \
		if (err.cls != SW_REJECTED || strncmp(err.msg, text, strlen(text)) != 0)           \
			fail_msg("line %d: %s", __LINE__, err.msg);                                \
	} while (0)
	job_init(&j, "task1", "sleep 60");
	add_templates(&j);
	TEST_STRS(j.x.c.env, j.x.c.n_env, (char *)"PASS=hush{{.Nope}}");
	REFUSED("expanding env failed: expanding env \"PASS\": template: ");
	assert_null(strstr(err.msg, "hush"));
	j.x.c.n_env = 0;
	j.x.c.hostname = (char *)"{{";
	REFUSED("expanding hostname failed: template: ");
	j.x.c.hostname = (char *)"";
	j.x.c.mounts[0]->target = (char *)"{{secret \"db\"}}"; /* payloads only */
	REFUSED("expanding mounts failed: expanding mount target \"{{secret \"db\"}}\": ");
	/* what comes out is checked like what comes in */
	j.x.c.mounts[0]->target = (char *)"x{{.Task.Slot}}";
	REFUSED("invalid mount target, must be an absolute path: x1");
	j.x.c.n_mounts = 0;

	driver.name = (char *)"golang";
	config_spec.templating = &driver;
	set_bytes(&config_spec.data, "{{secret \"other\"}}");
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "failed to expand templated config c1: template: ");
	FAILED(&j, SW_REJECTED, "secret target other not found");
	assert_false(there("task1"));
	driver.name = (char *)"jinja";
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "config \"conf\": unrecognized template type \"jinja\"");
	config_spec.templating = NULL;
	secret_spec.templating = &driver;
	driver.name = (char *)"golang";
	set_bytes(&secret_spec.data, "pAyLoAd{{.pAyLoAd}}");
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "failed to expand templated secret s1: ");
	assert_null(strstr(j.r.err.msg, "pAyLoAd"));
	job_close(&j);
}

static void test_user_namespaces(void **state)
{
	struct stat st;
	char path[256];
	struct job j;

	(void)state;
	if (geteuid() != 0)
		skip();
	json_object_object_add(testengine_info(te), "SecurityOptions",
		json_tokener_parse("[\"name=seccomp,profile=default\",\"name=userns\"]"));
	json_object_object_add(testengine_info(te), "DockerRootDir",
		json_object_new_string("/var/lib/docker/231072.331072"));
	job_init(&j, "task1", "sleep 60");
	job_open(&j);
	OK(&j, prepare);
	snprintf(path, sizeof(path), "%s/tasks/task1/0", run_dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 231072);
	assert_int_equal(st.st_gid, 331072);
	OK(&j, remove);
	assert_false(there("task1"));
	job_close(&j);
}

static bool seen_payload, seen_task;

static void on_line(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	seen_payload |= strstr(line, "pAyLoAd") != NULL;
	seen_task |= strstr(line, "task1") != NULL;
}

static void test_nothing_in_the_log(void **state)
{
	struct job j;

	(void)state;
	log_set_level(LOG_L_DEBUG);
	log_set_sink(on_line, NULL);
	job_init(&j, "task1", "exit 1 after 10ms");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	RUN(&j, wait);
	OK(&j, remove);
	job_close(&j);
	executor->ops->sweep(executor);
	close_executor();
	log_set_sink(NULL, NULL);
	log_set_level(LOG_L_WARNING);
	assert_false(seen_payload);
	assert_true(seen_task);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_from_create_to_removal),
		TEST(test_not_arrived_yet),
		TEST(test_made_again_before_the_start),
		TEST(test_written_anew_after_a_crash),
		TEST(test_sweep),
		TEST(test_cancel_and_close),
		TEST(test_not_in_memory),
		TEST(test_templates),
		TEST(test_node_as_the_manager_has_it),
		TEST(test_bad_templates),
		TEST(test_user_namespaces),
		TEST(test_nothing_in_the_log),
	};

	log_set_level(LOG_L_WARNING);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
