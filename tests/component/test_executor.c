/* The Docker executor against the test engine: describe, the life of a task, and every way in which
 * an engine can spoil it. */
#include "test.h"

#include "await.h"
#include "tasks.h"
#include "testengine.h"
#include <json-c/json.h>
#include <json-c/json_pointer.h>
#include <stdio.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/err.h>
#include <swarm/executor.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <unistd.h>

static struct sw_loop *loop;
static struct testengine *te;
static struct engine *engine;
static struct executor *executor;
static struct docker_executor_config cfg;
static char dir[] = "/tmp/test-executor-XXXXXX";
static char socket_path[64];
static bool faked;

/* What an operation said. */
struct res {
	bool done;
	struct sw_err err;
	bool already, has_exit;
	int exit_code;
	char id[80];
	int64_t pid;
	size_t n_ports;
	struct {
		uint32_t target, published;
		int protocol;
	} ports[8];
};

static void on_result(void *arg, const struct controller_result *r)
{
	struct res *x = arg;

	assert_false(x->done);
	x->done = true;
	x->err = r->err;
	x->already = r->already;
	x->has_exit = r->has_exit;
	x->exit_code = r->exit_code;
	snprintf(x->id, sizeof(x->id), "%s", r->container_id ? r->container_id : "");
	x->pid = r->pid;
	x->n_ports = r->n_ports;
	for (size_t i = 0; i < r->n_ports && i < 8; i++) {
		x->ports[i].target = r->ports[i]->target_port;
		x->ports[i].published = r->ports[i]->published_port;
		x->ports[i].protocol = (int)r->ports[i]->protocol;
		assert_int_equal(r->ports[i]->publish_mode, PB__PORT_CONFIG__PUBLISH_MODE__HOST);
	}
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

/* With the fake clock time runs as fast as the loop can; else it waits. */
static void await_(const bool *cond, int line)
{
	if (!faked) {
		AWAIT(loop, *cond);
	} else {
		for (int i = 0; i < 100000 && !*cond; i++)
			sw_fake_advance(loop, sw_ms(10));
	}
	if (!*cond)
		fail_msg("line %d: waited in vain", line);
}

/* Some rounds of the loop: for things that must not happen. */
static void rounds(int n)
{
	for (int i = 0; i < n; i++) {
		if (faked)
			sw_fake_advance(loop, sw_ms(1));
		else
			sw_loop_once(loop, false);
	}
}
#define UNTIL(cond)                                                                                \
	do {                                                                                       \
		int i_ = 0;                                                                        \
		if (!faked)                                                                        \
			AWAIT(loop, cond);                                                         \
		for (; i_ < 100000 && !(cond); i_++)                                               \
			sw_fake_advance(loop, sw_ms(10));                                          \
		assert_true(cond);                                                                 \
	} while (0)

/* ---- fixture */

static void open_executor(void)
{
	struct engine_config ec = {.host = testengine_host(te)};
	struct sw_err err = SW_ERR_NONE;

	if (engine_new(&engine, loop, &ec, &err) < 0)
		fail_msg("%s", err.msg);
	cfg.loop = loop;
	cfg.engine = engine;
	if (docker_executor_new(&executor, &cfg, &err) < 0)
		fail_msg("%s", err.msg);
	executor->ops->set_node(executor, "node1", "cluster1");
	UNTIL(testengine_n_event_streams(te) >= 1);
}

static void close_executor(void)
{
	bool closed = false;

	if (executor) {
		executor->ops->close(executor, set_true, &closed);
		await_(&closed, __LINE__);
		executor = NULL;
	}
	closed = false;
	if (engine) {
		engine_close(engine, set_true, &closed);
		await_(&closed, __LINE__);
		engine = NULL;
	}
}

static int setup_with(const char *api, bool podman)
{
	struct testengine_config tc = {
		.socket_path = socket_path, .api_version = api, .podman = podman};
	struct sw_err err = SW_ERR_NONE;

	if (!mkdtemp(dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/sock", dir);
	faked = false;
	memset(&cfg, 0, sizeof(cfg));
	if (sw_loop_new(&loop, &err) < 0 || testengine_new(&te, loop, &tc, &err) < 0)
		fail_msg("%s", err.msg);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	setup_with(NULL, false);
	open_executor();
	return 0;
}

static int teardown(void **state)
{
	bool closed = false;

	(void)state;
	close_executor();
	testengine_close(te, set_true, &closed);
	await_(&closed, __LINE__);
	assert_int_equal(sw_loop_free(loop), 0);
	unlink(socket_path);
	rmdir(dir);
	strcpy(strrchr(dir, '-') + 1, "XXXXXX");
	return 0;
}

static void fake_time(void)
{
	sw_fake_clock(loop, sw_now(loop));
	faked = true;
}

/* ---- tasks */

struct job {
	struct test_task x;
	struct api_task *t;
	struct controller *c;
	struct res r;
};

/* Image bb:1 and a command for the test engine's containers. */
static void job_init(struct job *j, const char *id, const char *command)
{
	memset(j, 0, sizeof(*j));
	test_task_init(&j->x, id);
	j->x.c.args = xmemdup_keep(&command, sizeof(command));
	j->x.c.n_args = *command ? 1 : 0;
	test_task_grace(&j->x, 1);
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
	j->c = NULL;
	j->t = NULL;
}

#define BEGIN(j, op)                                                                               \
	do {                                                                                       \
		memset(&(j)->r, 0, sizeof((j)->r));                                                \
		(j)->c->ops->op((j)->c, on_result, &(j)->r);                                       \
		assert_false((j)->r.done);                                                         \
	} while (0)
#define END(j) await_(&(j)->r.done, __LINE__)
#define RUN(j, op)                                                                                 \
	do {                                                                                       \
		BEGIN(j, op);                                                                      \
		END(j);                                                                            \
	} while (0)
#define OK(j, op)                                                                                  \
	do {                                                                                       \
		RUN(j, op);                                                                        \
		if ((j)->r.err.cls)                                                                \
			fail_msg("line %d: %s: %s", __LINE__, #op, (j)->r.err.msg);                \
	} while (0)
static void failed_at(const struct res *r, enum sw_errclass cls, const char *text, int line)
{
	if (r->err.cls != cls || !strstr(r->err.msg, text))
		fail_msg("line %d: %s \"%s\", want %s \"%s\"", line, sw_errclass_name(r->err.cls),
			r->err.msg, sw_errclass_name(cls), text);
}
#define FAILED(j, cls, text) failed_at(&(j)->r, cls, text, __LINE__)

static void fault(const char *match, int status, const char *message, unsigned times)
{
	sw_auto_free char *body = xasprintf("{\"message\":\"%s\"}", message);
	struct testengine_fault f = {
		.match = match, .status = status, .body = body, .times = times};

	testengine_fault_add(te, &f);
}

static void cut(const char *match, enum testengine_cut how, unsigned times)
{
	struct testengine_fault f = {.match = match, .cut = how, .times = times};

	testengine_fault_add(te, &f);
}

static void delay(const char *match, uint64_t ns, unsigned times)
{
	struct testengine_fault f = {.match = match, .delay_ns = ns, .times = times};

	testengine_fault_add(te, &f);
}

static size_t count(const char *pattern)
{
	return testengine_n_requests(te, pattern);
}

/* ---- describe */

struct described {
	bool done, ok;
	struct sw_err err;
	char text[4096];
};

static void on_described(void *arg, const Pb__NodeDescription *n, const struct sw_err *err)
{
	struct described *d = arg;
	size_t len = 0;

	d->done = true;
	d->ok = n != NULL;
	sw_err_copy(&d->err, err);
	if (!n)
		return;
#define ADD(...) len += (size_t)snprintf(d->text + len, sizeof(d->text) - len, __VA_ARGS__)
	ADD("%s %s/%s cpu=%lld mem=%lld v=%s", n->hostname, n->platform->architecture,
		n->platform->os, (long long)n->resources->nano_cpus,
		(long long)n->resources->memory_bytes, n->engine->engine_version);
	for (size_t i = 0; i < n->engine->n_labels; i++)
		ADD(" label:%s=%s", n->engine->labels[i]->key, n->engine->labels[i]->value);
	for (size_t i = 0; i < n->resources->n_generic; i++) {
		const Pb__GenericResource *g = n->resources->generic[i];

		if (g->resource_case == PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC)
			ADD(" named:%s=%s", g->named_resource_spec->kind,
				g->named_resource_spec->value);
		else
			ADD(" discrete:%s=%lld", g->discrete_resource_spec->kind,
				(long long)g->discrete_resource_spec->value);
	}
	for (size_t i = 0; i < n->engine->n_plugins; i++)
		ADD(" %s/%s", n->engine->plugins[i]->type, n->engine->plugins[i]->name);
}

static void describe(struct described *d)
{
	memset(d, 0, sizeof(*d));
	executor->ops->describe(executor, on_described, d);
	assert_false(d->done);
	await_(&d->done, __LINE__);
}

static void info(const char *key, const char *json)
{
	json_object_object_add(testengine_info(te), key, json_tokener_parse(json));
}

static void plain_info(void)
{
	info("Name", "\"host1\"");
	info("Architecture", "\"x86_64\"");
	info("OSType", "\"linux\"");
	info("NCPU", "2");
	info("MemTotal", "1000");
	info("ServerVersion", "\"20.10.24\"");
	info("Labels", "[\"k=v=w\",\"a=1\",\"novalue\",\"a=2\"]");
	info("Plugins",
		"{\"Volume\":[\"local\"],\"Network\":[\"overlay\",\"host\",\"bridge\",\"host\"],"
		"\"Authorization\":null,\"Log\":[\"syslog\",\"json-file\"]}");
	info("GenericResources",
		"[{\"NamedResourceSpec\":{\"Kind\":\"gpu\",\"Value\":\"UUID2\"}},"
		"{\"DiscreteResourceSpec\":{\"Kind\":\"ssd\",\"Value\":5}},{\"x\":1},"
		"{\"NamedResourceSpec\":{\"Kind\":\"gpu\",\"Value\":\"UUID1\"}}]");
}

static void test_describe(void **state)
{
	struct described d;

	(void)state;
	plain_info();
	testengine_plugins_set(
		te, json_tokener_parse("[{\"Name\":\"vieux/"
				       "sshfs:latest\",\"Enabled\":true,\"Config\":{\"Interface\":"
				       "{\"Types\":[{\"Prefix\":\"docker\",\"Capability\":"
				       "\"volumedriver\",\"Version\":"
				       "\"1.0\"}]}}},{\"Name\":\"off:1\",\"Enabled\":false,"
				       "\"Config\":{\"Interface\":"
				       "{\"Types\":[{\"Prefix\":\"docker\",\"Capability\":"
				       "\"volumedriver\",\"Version\":"
				       "\"1.0\"}]}}}]"));
	describe(&d);
	assert_string_equal(d.text,
		"host1 x86_64/linux cpu=2000000000 mem=1000 v=20.10.24 label:a=2 label:k=v=w "
		"named:gpu=UUID1 named:gpu=UUID2 discrete:ssd=5 Log/json-file Log/syslog "
		"Network/bridge "
		"Network/host Volume/local Volume/vieux/sshfs:latest");
}

static void test_describe_options_and_failures(void **state)
{
	struct described d;

	(void)state;
	close_executor();
	cfg.hostname = "mine";
	cfg.reserve_memory = 300;
	open_executor();
	plain_info();
	fault("GET /plugins*", 404, "page not found", 1);
	fault("GET /plugins*", 500, "broken", 1);
	for (int i = 0; i < 3; i++) {
		describe(&d);
		assert_non_null(strstr(d.text, "mine x86_64/linux cpu=2000000000 mem=700 "));
	}
	fault("GET /info*", 500, "no info", 1);
	describe(&d);
	assert_false(d.ok);
	assert_non_null(strstr(d.err.msg, "no info"));
	cfg.hostname = NULL;
}

/* /info may take its time: tasks go on meanwhile. */
static void test_slow_describe_blocks_nothing(void **state)
{
	struct described d = {0};
	struct job j;

	(void)state;
	delay("GET /info*", sw_s(60), 0);
	executor->ops->describe(executor, on_described, &d);
	job_init(&j, "task1", "exit 0 after 10ms");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	OK(&j, wait);
	assert_false(d.done);
	job_close(&j);
	close_executor(); /* what is outstanding is called, as cancelled */
	assert_true(d.done);
	assert_int_equal(d.err.cls, SW_CANCELLED);
}

static void count_change(void *arg)
{
	++*(int *)arg;
}

static void test_changed(void **state)
{
	struct sw_err err;
	int n = 0;

	(void)state;
	executor->changed = count_change;
	executor->changed_arg = &n;
	UNTIL(testengine_n_event_streams(te) == 2);
	testengine_event(te, "plugin", "enable", "vieux/sshfs:latest", NULL);
	UNTIL(n == 1);
	testengine_stop(te, true, false);
	rounds(50);
	assert_int_equal(testengine_start(te, &err), 0);
	UNTIL(n == 2);
}

static void test_configure_and_keys(void **state)
{
	Pb__Node node;
	Pb__EncryptionKey key = PB__ENCRYPTION_KEY__INIT, *keys[] = {&key};
	struct sw_err err;
	size_t before;

	(void)state;
	UNTIL(testengine_n_event_streams(te) == 2);
	rounds(20);
	before = count("*");
	pb__node__init(&node);
	node.id = (char *)"node1";
	key.key.data = (uint8_t *)"0123456789abcdef";
	key.key.len = 16;
	executor->ops->configure(executor, &node);
	executor->ops->configure(executor, &node);
	assert_int_equal(executor->ops->set_network_bootstrap_keys(executor, keys, 1, &err), 0);
	assert_int_equal(executor->ops->set_network_bootstrap_keys(executor, keys, 1, &err), 0);
	assert_int_equal(executor->ops->set_network_bootstrap_keys(executor, NULL, 0, &err), 0);
	assert_int_equal(executor->ops->set_network_bootstrap_keys(executor, keys, 1, &err), 0);
	rounds(5);
	assert_int_equal(count("*"), before);
}

/* ---- happy paths */

static void test_life(void **state)
{
	Pb__PortConfig web = PB__PORT_CONFIG__INIT, dns = PB__PORT_CONFIG__INIT;
	struct testengine_container k;
	struct json_object *o;
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	web.publish_mode = dns.publish_mode = PB__PORT_CONFIG__PUBLISH_MODE__HOST;
	web.target_port = 80;
	dns.target_port = 53;
	dns.published_port = 18953;
	dns.protocol = PB__PORT_CONFIG__PROTOCOL__UDP;
	j.x.t.endpoint = &j.x.endpoint;
	TEST_PTRS(j.x.endpoint.ports, j.x.endpoint.n_ports, Pb__PortConfig, &web, &dns);
	job_open(&j);

	OK(&j, prepare);
	assert_false(j.r.already);
	assert_true(testengine_container_at(te, 0, &k));
	assert_string_equal(k.id, j.r.id);
	assert_string_equal(k.name, "web.1.task1");
	assert_string_equal(k.status, "created");
	assert_int_equal(json_pointer_get(k.body, "/StopTimeout", &o), 0);
	assert_int_equal(json_object_get_int(o), 1);

	OK(&j, prepare);
	assert_true(j.r.already);
	assert_int_equal(testengine_n_containers(te), 1);

	OK(&j, start);
	assert_false(j.r.already);
	assert_true(j.r.pid > 0);
	assert_false(j.r.has_exit);
	assert_int_equal(j.r.n_ports, 2);
	for (int i = 0; i < 2; i++) {
		bool is_dns = j.r.ports[i].target == 53;

		assert_int_equal(j.r.ports[i].protocol,
			is_dns ? PB__PORT_CONFIG__PROTOCOL__UDP : PB__PORT_CONFIG__PROTOCOL__TCP);
		if (is_dns)
			assert_int_equal(j.r.ports[i].published, 18953);
		else
			assert_true(j.r.ports[i].published > 0);
	}
	OK(&j, start);
	assert_true(j.r.already);
	assert_true(testengine_container_at(te, 0, &k));
	assert_int_equal(k.n_starts, 1);

	BEGIN(&j, wait);
	rounds(20);
	assert_false(j.r.done);
	j.c->ops->cancel(j.c);
	END(&j);
	FAILED(&j, SW_CANCELLED, "");
	assert_false(j.r.has_exit);

	OK(&j, shutdown);
	assert_true(j.r.has_exit);
	assert_int_equal(j.r.exit_code, 143);
	assert_int_equal(j.r.n_ports, 0);
	assert_int_equal(j.r.pid, 0);
	assert_int_equal(count("POST /containers/*/stop?t=1"), 1);
	OK(&j, shutdown);
	assert_int_equal(count("POST /containers/*/stop*"), 1);

	OK(&j, remove);
	assert_int_equal(testengine_n_containers(te), 0);
	assert_string_equal(j.r.id, "");
	assert_int_equal(count("DELETE /containers/*"), 1);
	assert_int_equal(count("DELETE /containers/*v=1*"), 1);
	OK(&j, remove);
	OK(&j, shutdown);
	job_close(&j);
}

static void test_exits(void **state)
{
	static const struct {
		const char *command;
		int code;
		const char *text; /* NULL: well */
	} cases[] = {
		{"exit 0", 0, NULL},
		{"exit 3", 3, "task: non-zero exit (3)"},
		{"exit 3 after 30ms", 3, "task: non-zero exit (3)"},
		{"oom", 137, "task: non-zero exit (137): OOM killed"},
	};
	struct job j;

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		char id[16];

		snprintf(id, sizeof(id), "task%zu", i);
		job_init(&j, id, cases[i].command);
		job_open(&j);
		OK(&j, prepare);
		OK(&j, start);
		RUN(&j, wait);
		assert_true(j.r.has_exit);
		assert_int_equal(j.r.exit_code, cases[i].code);
		if (cases[i].text) {
			assert_int_equal(j.r.err.cls, SW_FATAL);
			assert_string_equal(j.r.err.msg, cases[i].text);
		} else {
			assert_int_equal(j.r.err.cls, SW_OK);
		}
		RUN(&j, wait); /* again: at once, the same */
		assert_int_equal(j.r.exit_code, cases[i].code);
		OK(&j, remove);
		job_close(&j);
	}
}

static void test_killed_from_outside(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	testengine_container_exit(te, j.c ? "web.1.task1" : "", 137, false);
	END(&j);
	FAILED(&j, SW_FATAL, "task: non-zero exit (137)");
	OK(&j, remove);
	job_close(&j);

	job_init(&j, "task2", "sleep 60s"); /* docker rm -f */
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	rounds(20);
	testengine_container_remove(te, "web.1.task2");
	END(&j);
	FAILED(&j, SW_FATAL, "task: non-zero exit (137)");
	assert_true(j.r.has_exit);
	RUN(&j, wait);
	assert_int_equal(j.r.err.cls, SW_FATAL);
	OK(&j, remove);
	job_close(&j);

	job_init(&j, "task3", "");
	job_open(&j);
	RUN(&j, wait); /* never was there */
	FAILED(&j, SW_FATAL, "No such container: web.1.task3");
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "No such container: web.1.task3");
	OK(&j, terminate);
	job_close(&j);
}

static void test_terminate(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "ignore-term");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, terminate); /* created: nothing to kill */
	OK(&j, start);
	OK(&j, terminate);
	assert_int_equal(j.r.exit_code, 137);
	OK(&j, terminate);
	OK(&j, remove);
	job_close(&j);
}

static void test_refused_spec(void **state)
{
	struct controller *c = NULL;
	struct sw_err err;
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"";
	j.t = test_task_make(&j.x);
	assert_true(executor->ops->controller(executor, j.t, &c, &err) < 0);
	assert_string_equal(err.msg, "dockerexec: image required");
	assert_int_equal(err.cls, SW_REJECTED);
	api_task_unref(j.t);
}

static void test_update(void **state)
{
	struct api_task *other;
	struct sw_err err;
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	job_open(&j);
	j.x.t.desired_state = PB__TASK_STATE__SHUTDOWN;
	other = test_task_make(&j.x);
	assert_int_equal(j.c->ops->update(j.c, other, &err), 0);
	api_task_unref(other);
	j.x.t.id = (char *)"task2";
	other = test_task_make(&j.x);
	assert_true(j.c->ops->update(j.c, other, &err) < 0);
	api_task_unref(other);
	job_close(&j);
}

/* ---- images */

static void test_pull(void **state)
{
	struct testengine_container k;
	struct job j;

	(void)state;
	testengine_registry_add(te, "docker.io/library/redis:7", sw_ms(10), NULL);
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"redis:7";
	job_open(&j);
	OK(&j, prepare);
	assert_int_equal(count("POST /images/create*tag=7*"), 1);
	assert_int_equal(count("POST /images/create*"), 1);
	assert_true(testengine_container_at(te, 0, &k));
	OK(&j, remove);
	job_close(&j);
}

static void test_pull_auth(void **state)
{
	Pb__ContainerSpec__PullOptions p = PB__CONTAINER_SPEC__PULL_OPTIONS__INIT;
	struct job j;

	(void)state;
	testengine_registry_add(te, "reg:5000/app:1", 0, NULL);
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"reg:5000/app:1";
	j.x.c.pull_options = &p;
	p.registry_auth = (char *)"eyJ1c2VyIjoiYSJ9";
	job_open(&j);
	OK(&j, prepare);
	assert_string_equal(testengine_last_auth(te), "eyJ1c2VyIjoiYSJ9");
	job_close(&j);
}

/* The registry's own words reach the task, not "No such image". */
static void test_pull_refused(void **state)
{
	struct job j;

	(void)state;
	fault("POST /images/create*", 404,
		"manifest for nosuch:1 not found: manifest unknown: manifest unknown", 0);
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"nosuch:1";
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "manifest for nosuch:1 not found");
	assert_int_equal(count("POST /images/create*"), 1);
	assert_int_equal(testengine_n_containers(te), 0);
	job_close(&j);
	testengine_fault_clear(te);

	testengine_registry_add(te, "docker.io/library/corrupt:1", 0,
		"filesystem layer verification failed for digest sha256:12");
	job_init(&j, "task2", "");
	j.x.c.image = (char *)"corrupt:1";
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "filesystem layer verification failed");
	job_close(&j);
}

static void test_pull_retried(void **state)
{
	struct job j;

	(void)state;
	fake_time();
	fault("POST /images/create*", 500,
		"Get https://reg/v2/: dial tcp 1.2.3.4:443: connect: connection refused", 0);
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"reg:5000/app:1";
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "connect: connection refused");
	assert_int_equal(count("POST /images/create*"), 3);
	job_close(&j);
}

static void test_pull_policies(void **state)
{
	struct job j;

	(void)state;
	/* always: a registry that is away does not matter to an image that is here */
	fault("POST /images/create*", 500, "dial tcp: lookup reg: no such host", 0);
	job_init(&j, "task1", "");
	job_open(&j);
	OK(&j, prepare);
	assert_int_equal(count("POST /images/create*"), 1);
	job_close(&j);

	close_executor();
	cfg.pull_policy = DOCKER_PULL_MISSING;
	open_executor();
	job_init(&j, "task2", "");
	job_open(&j);
	OK(&j, prepare);
	assert_int_equal(count("POST /images/create*"), 1);
	job_close(&j);

	close_executor();
	cfg.pull_policy = DOCKER_PULL_NEVER;
	open_executor();
	job_init(&j, "task3", "");
	job_open(&j);
	OK(&j, prepare);
	job_close(&j);
	job_init(&j, "task4", "");
	j.x.c.image = (char *)"redis:7";
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "o such image");
	assert_int_equal(count("POST /images/create*"), 1);
	job_close(&j);
}

static void test_digest_needs_no_registry(void **state)
{
#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	struct job j;

	(void)state;
	testengine_image_add(te, "app:1@" DIGEST);
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"app:1@" DIGEST;
	job_open(&j);
	OK(&j, prepare);
	assert_int_equal(count("POST /images/create*"), 0);
	job_close(&j);
}

static void test_one_pull_for_all(void **state)
{
	struct job j[3];

	(void)state;
	testengine_registry_add(te, "docker.io/library/redis:7", sw_ms(50), NULL);
	for (int i = 0; i < 3; i++) {
		job_init(&j[i], i == 0 ? "task0" : i == 1 ? "task1" : "task2", "");
		j[i].x.c.image = (char *)"redis:7";
		job_open(&j[i]);
		BEGIN(&j[i], prepare);
	}
	for (int i = 0; i < 3; i++) {
		END(&j[i]);
		assert_int_equal(j[i].r.err.cls, SW_OK);
	}
	assert_int_equal(count("POST /images/create*"), 1);
	for (int i = 0; i < 3; i++)
		job_close(&j[i]);
}

static int pulls_logged;

static void on_log(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (sw_starts_with(line, "image pulled"))
		pulls_logged++;
}

static void test_cancelled_prepare_joins_its_pull(void **state)
{
	struct job j;

	(void)state;
	pulls_logged = 0;
	log_set_sink(on_log, NULL);
	testengine_registry_add(te, "docker.io/library/redis:7", sw_ms(50), NULL);
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"redis:7";
	job_open(&j);
	BEGIN(&j, prepare);
	UNTIL(count("POST /images/create*") == 1);
	j.c->ops->cancel(j.c);
	END(&j);
	FAILED(&j, SW_CANCELLED, "");
	OK(&j, prepare);
	assert_int_equal(count("POST /images/create*"), 1);
	OK(&j, remove);

	/* cancelled and finished meanwhile: no second pull either */
	testengine_image_remove(te, "redis:7");
	testengine_image_remove(te, "docker.io/library/redis:7");
	job_close(&j);
	job_init(&j, "task2", "");
	j.x.c.image = (char *)"redis:7";
	job_open(&j);
	BEGIN(&j, prepare);
	UNTIL(count("POST /images/create*") == 2);
	j.c->ops->cancel(j.c);
	END(&j);
	UNTIL(pulls_logged == 2);
	OK(&j, prepare);
	assert_int_equal(count("POST /images/create*"), 2);
	log_set_sink(NULL, NULL);
	job_close(&j);
}

static void on_image(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	(void)err;
	*(int *)arg = img ? 1 : 0;
}

static void test_shutdown_stops_a_pull(void **state)
{
	int there = -1;
	struct job j;

	(void)state;
	testengine_registry_add(te, "docker.io/library/redis:7", sw_s(60), NULL);
	fake_time();
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"redis:7";
	job_open(&j);
	BEGIN(&j, prepare);
	UNTIL(count("POST /images/create*") == 1);
	j.c->ops->cancel(j.c);
	END(&j);
	OK(&j, shutdown);
	assert_int_equal(testengine_n_containers(te), 0);
	for (int i = 0; i < 9000; i++)
		sw_fake_advance(loop, sw_ms(10));
	engine_image_inspect(engine, "redis:7", on_image, &there);
	UNTIL(there >= 0);
	assert_int_equal(there, 0);
	job_close(&j);
}

static void test_image_gone_between_pull_and_create(void **state)
{
	struct job j;

	(void)state;
	testengine_registry_add(te, "docker.io/library/redis:7", 0, NULL);
	fault("POST /containers/create*", 404, "No such image: redis:7", 1);
	job_init(&j, "task1", "");
	j.x.c.image = (char *)"redis:7";
	job_open(&j);
	OK(&j, prepare);
	assert_int_equal(count("POST /images/create*"), 2);
	job_close(&j);
	fault("POST /containers/create*", 404, "No such image: redis:7", 0);
	job_init(&j, "task2", "");
	j.x.c.image = (char *)"redis:7";
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "No such image: redis:7");
	job_close(&j);
}

/* ---- prepare: names, lost answers, classes */

static void test_create_answer_lost(void **state)
{
	struct job j;

	(void)state;
	cut("POST /containers/create*", TE_CUT_AFTER_EXEC, 1);
	job_init(&j, "task1", "");
	job_open(&j);
	RUN(&j, prepare);
	assert_int_equal(j.r.err.cls, SW_TEMPORARY);
	OK(&j, prepare);
	assert_true(j.r.already);
	assert_int_equal(testengine_n_containers(te), 1);
	OK(&j, start);
	job_close(&j);
}

static void test_foreign_container_of_that_name(void **state)
{
	struct json_object *body = json_tokener_parse("{\"Image\":\"bb:1\",\"Labels\":{}}");
	struct testengine_container k;
	struct job j;

	(void)state;
	testengine_container_make(te, "web.1.task1", body, true);
	json_object_put(body);
	job_init(&j, "task1", "");
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "container name \"web.1.task1\" is taken by container ");
	FAILED(&j, SW_REJECTED, ", which does not belong to this task");
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "No such container");
	RUN(&j, wait);
	FAILED(&j, SW_FATAL, "No such container");
	OK(&j, shutdown);
	OK(&j, terminate);
	OK(&j, remove);
	assert_true(testengine_container_at(te, 0, &k));
	assert_true(k.running);
	job_close(&j);
}

/* The name conflict shows only at the create, as in a race with an earlier try. */
static void test_conflict_at_create(void **state)
{
	struct job j;

	(void)state;
	cut("POST /containers/create*", TE_CUT_AFTER_EXEC, 1);
	job_init(&j, "task1", "");
	job_open(&j);
	RUN(&j, prepare);
	assert_int_equal(j.r.err.cls, SW_TEMPORARY);
	fault("GET /containers/*/json*", 404, "No such container: web.1.task1", 1);
	OK(&j, prepare);
	assert_true(j.r.already);
	assert_int_equal(testengine_n_containers(te), 1);
	job_close(&j);

	job_init(&j, "task2", "");
	job_open(&j);
	fault("POST /containers/create*", 409, "Conflict. The container name is already in use", 0);
	RUN(&j, prepare);
	FAILED(&j, SW_TEMPORARY, "is taken, but no such container is found");
	assert_int_equal(count("POST /containers/create*"), 5);
	job_close(&j);
}

static void test_prepare_error_classes(void **state)
{
	static const struct {
		int status;
		const char *text;
		enum sw_errclass cls;
	} cases[] = {
		{400,
			"invalid mount config for type \\\"bind\\\": bind source path does not "
			"exist: /no/such",
			SW_REJECTED},
		{400, "Minimum memory limit allowed is 6MB", SW_REJECTED},
		{500, "some fault of the spec", SW_REJECTED},
		{500, "transport is closing", SW_TEMPORARY},
		{503, "proxy", SW_TEMPORARY},
		{500, "no space left on device", SW_TEMPORARY},
		{500, "no space left on device", SW_REJECTED},
	};
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	job_open(&j);
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		fault("POST /containers/create*", cases[i].status, cases[i].text, 1);
		RUN(&j, prepare);
		FAILED(&j, cases[i].cls,
			i ? cases[i].text : "bind source path does not exist: /no/such");
		assert_string_equal(j.r.id, "");
	}
	job_close(&j);
}

static void test_engine_away_is_temporary(void **state)
{
	struct sw_err err;
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	job_open(&j);
	testengine_stop(te, true, false);
	RUN(&j, prepare);
	assert_int_equal(j.r.err.cls, SW_TEMPORARY);
	RUN(&j, start);
	assert_int_equal(j.r.err.cls, SW_TEMPORARY);
	RUN(&j, shutdown);
	assert_int_equal(j.r.err.cls, SW_TEMPORARY);
	RUN(&j, remove);
	assert_int_equal(j.r.err.cls, SW_TEMPORARY);
	assert_int_equal(testengine_start(te, &err), 0);
	OK(&j, prepare);
	OK(&j, start);
	OK(&j, shutdown);
	OK(&j, remove);
	job_close(&j);
}

static void test_volumes_with_a_driver(void **state)
{
	Pb__Mount m = PB__MOUNT__INIT;
	Pb__Mount__VolumeOptions v = PB__MOUNT__VOLUME_OPTIONS__INIT;
	Pb__Driver d = PB__DRIVER__INIT;
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	m.type = PB__MOUNT__TYPE__VOLUME;
	m.source = (char *)"data";
	m.target = (char *)"/data";
	m.volume_options = &v;
	v.driver_config = &d;
	d.name = (char *)"local";
	TEST_PTRS(j.x.c.mounts, j.x.c.n_mounts, Pb__Mount, &m);
	job_open(&j);
	fault("POST /volumes/create*", 404, "plugin \\\"nope\\\" not found", 1);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "plugin \"nope\" not found");
	OK(&j, prepare);
	assert_int_equal(count("POST /volumes/create*"), 2);
	job_close(&j);
}

struct net {
	Pb__NetworkAttachment a;
	Pb__Network n;
	Pb__NetworkSpec s;
	Pb__Annotations ann;
	Pb__Driver d;
};

static void network(struct net *n, const char *name)
{
	pb__network_attachment__init(&n->a);
	pb__network__init(&n->n);
	pb__network_spec__init(&n->s);
	pb__annotations__init(&n->ann);
	n->a.network = &n->n;
	n->n.spec = &n->s;
	n->s.annotations = &n->ann;
	n->ann.name = (char *)name;
	TEST_PTRS(n->ann.labels, n->ann.n_labels, Pb__StringPair,
		test_pair("com.docker.swarm.predefined", "true"));
}

/* Below API 1.44 the create takes one network; a container that lacks one must not stay. */
static void test_further_networks(void **state)
{
	struct net a, b;
	struct job j;

	(void)state;
	network(&a, "bridge");
	network(&b, "other");
	testengine_network_add(te, "other", "bridge");
	job_init(&j, "task1", "");
	TEST_PTRS(j.x.t.networks, j.x.t.n_networks, Pb__NetworkAttachment, &a.a, &b.a);
	job_open(&j);
	fault("POST /networks/other/connect*", 500, "cannot connect", 1);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "cannot connect");
	assert_int_equal(testengine_n_containers(te), 0);
	fault("POST /networks/other/connect*", 403,
		"endpoint with name web.1.task1 already exists in network other", 1);
	OK(&j, prepare);
	OK(&j, prepare);
	assert_true(j.r.already);
	assert_int_equal(count("POST /networks/other/connect*"), 3);
	job_close(&j);
}

static void local_network(struct net *n, const char *name, const char *id, const char *config)
{
	network(n, name);
	n->ann.n_labels = 0;
	pb__driver__init(&n->d);
	n->d.name = (char *)"bridge";
	n->n.driver_state = &n->d;
	n->n.id = (char *)id;
	if (config) {
		n->s.config_from_case = PB__NETWORK_SPEC__CONFIG_FROM_NETWORK;
		n->s.network = (char *)config;
	}
}

static void open_with(struct job *j, const char *id, struct net *n)
{
	job_init(j, id, "");
	TEST_PTRS(j->x.t.networks, j->x.t.n_networks, Pb__NetworkAttachment, &n->a);
	job_open(j);
}

/* Made for the first task that needs it, removed with the last one's container. */
static void test_local_network_counted(void **state)
{
	struct net n;
	struct job a, b;

	(void)state;
	testengine_network_add(te, "cfg", "bridge");
	local_network(&n, "lan", "swarmnet1", "cfg");
	open_with(&a, "task1", &n);
	open_with(&b, "task2", &n);
	BEGIN(&a, prepare); /* at once: the engine itself would make two of one name */
	BEGIN(&b, prepare);
	END(&a);
	END(&b);
	assert_int_equal(a.r.err.cls, SW_OK);
	assert_int_equal(b.r.err.cls, SW_OK);
	assert_int_equal(count("POST /networks/create*"), 1);
	OK(&a, remove);
	assert_int_equal(count("DELETE /networks/*"), 0);
	job_close(&a);
	OK(&b, remove);
	assert_int_equal(count("DELETE /networks/*"), 1);
	job_close(&b);

	/* after a restart: one from a configuration could be the operator's and stays */
	open_with(&a, "task3", &n);
	OK(&a, prepare);
	job_close(&a);
	open_with(&a, "task3", &n);
	OK(&a, prepare);
	OK(&a, remove);
	assert_int_equal(count("DELETE /networks/*"), 1);
	job_close(&a);
}

/* Its label tells after a restart that it was made for tasks. */
static void test_local_network_after_restart(void **state)
{
	struct net n;
	struct job j;

	(void)state;
	local_network(&n, "lan2", "swarmnet2", NULL);
	open_with(&j, "task1", &n);
	OK(&j, prepare);
	job_close(&j);
	open_with(&j, "task1", &n);
	OK(&j, prepare);
	assert_int_equal(count("POST /networks/create*"), 1);
	fault("DELETE /networks/*", 500, "busy", 1);
	RUN(&j, remove);
	FAILED(&j, SW_TEMPORARY, "busy");
	OK(&j, remove);
	assert_int_equal(count("DELETE /networks/*"), 2);
	OK(&j, remove); /* nothing left to remove */
	assert_int_equal(count("DELETE /networks/*"), 2);
	job_close(&j);
}

static void test_local_network_refused(void **state)
{
	struct net n;
	struct job j;

	(void)state;
	local_network(&n, "lan3", "swarmnet3", "nocfg");
	open_with(&j, "task1", &n);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED,
		"network \"lan3\": configuration network \"nocfg\" does not exist on this node; "
		"make it "
		"here with \"docker network create --config-only\"");
	job_close(&j);
	testengine_network_add(te, "lan4", "bridge"); /* somebody else's */
	local_network(&n, "lan4", "swarmnet4", NULL);
	open_with(&j, "task2", &n);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED,
		"network \"lan4\" exists on this node but was not made for Swarm network "
		"swarmnet4; "
		"rename or remove it");
	OK(&j, remove);
	assert_int_equal(count("DELETE /networks/*"), 0);
	job_close(&j);
	/* two tasks at once: the slower one takes what the faster one made */
	local_network(&n, "lan5", "swarmnet5", NULL);
	open_with(&j, "task3", &n);
	fault("POST /networks/create*", 409, "network with name lan5 already exists", 1);
	OK(&j, prepare);
	assert_int_equal(count("POST /networks/create*"), 3);
	job_close(&j);
}

/* ---- start */

static void test_start_refused(void **state)
{
	static const struct {
		const char *command;
		int code;
	} cases[] = {{"not-found", 127}, {"not-executable", 126}, {"bad-user", 128}};
	struct job j;

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		char id[16];

		snprintf(id, sizeof(id), "task%zu", i);
		job_init(&j, id, cases[i].command);
		job_open(&j);
		OK(&j, prepare);
		RUN(&j, start);
		FAILED(&j, SW_FATAL, "starting container failed: ");
		assert_true(j.r.has_exit);
		assert_int_equal(j.r.exit_code, cases[i].code);
		assert_true(*j.r.id);
		OK(&j, remove);
		job_close(&j);
	}
}

static void test_start_answers(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	job_open(&j);
	OK(&j, prepare);
	fault("POST /containers/*/start*", 500, "transport is closing", 1);
	RUN(&j, start);
	FAILED(&j, SW_TEMPORARY, "transport is closing");
	cut("POST /containers/*/start*", TE_CUT_AFTER_EXEC, 1);
	RUN(&j, start);
	assert_int_equal(j.r.err.cls, SW_TEMPORARY);
	OK(&j, start);
	assert_true(j.r.already);
	testengine_container_pause(te, "web.1.task1", true);
	OK(&j, start);
	assert_true(j.r.already);
	OK(&j, remove);
	job_close(&j);

	job_init(&j, "task2", "");
	job_open(&j);
	OK(&j, prepare);
	fault("POST /containers/*/start*", 304, "", 1);
	testengine_container_remove(te, "web.1.task2");
	RUN(&j, start);
	assert_int_equal(j.r.err.cls, SW_FATAL);
	job_close(&j);
}

static void with_health(struct job *j)
{
	Pb__HealthConfig h = PB__HEALTH_CONFIG__INIT;

	TEST_STRS(h.test, h.n_test, (char *)"CMD", (char *)"true");
	j->x.c.healthcheck = xmemdup_keep(&h, sizeof(h));
}

static void test_healthy_after_a_while(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "healthy-after 80ms");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	BEGIN(&j, start);
	UNTIL(testengine_n_running(te) == 1);
	assert_false(j.r.done);
	/* interrupted, it goes on where it was: found running is not healthy yet */
	j.c->ops->cancel(j.c);
	END(&j);
	FAILED(&j, SW_CANCELLED, "");
	OK(&j, start);
	assert_true(j.r.already);
	assert_true(j.r.pid > 0);
	job_close(&j);

	/* the event is lost: the reconnect looks again */
	job_init(&j, "task2", "healthy-after 50ms");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	testengine_drop_events(te, "health_status", 10);
	BEGIN(&j, start);
	UNTIL(testengine_n_running(te) == 2);
	rounds(20);
	testengine_container_health(te, "web.1.task2", "healthy");
	testengine_drop_connections(te);
	END(&j);
	assert_int_equal(j.r.err.cls, SW_OK);
	job_close(&j);
}

static void test_unhealthy(void **state)
{
	struct job j;

	(void)state;
	/* before it was ever healthy */
	job_init(&j, "task1", "unhealthy-after 30ms term-exit 5");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "task: non-zero exit (5): dockerexec: unhealthy container");
	assert_int_equal(j.r.exit_code, 5);
	assert_int_equal(count("POST /containers/*/stop?t=1"), 1);
	job_close(&j);

	/* while running; ends well on the signal, and is a failure all the same */
	job_init(&j, "task2", "healthy-after 10ms term-exit 0");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	rounds(20);
	testengine_container_health(te, "web.1.task2", "unhealthy");
	END(&j);
	assert_int_equal(j.r.err.cls, SW_FATAL);
	assert_string_equal(j.r.err.msg, "dockerexec: unhealthy container: probe says no");
	assert_true(j.r.has_exit);
	assert_int_equal(j.r.exit_code, 0);
	job_close(&j);

	/* an engine that refuses the stop at first */
	job_init(&j, "task3", "healthy-after 10ms");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	fault("POST /containers/*/stop*", 500, "cannot stop container", 1);
	BEGIN(&j, wait);
	rounds(20);
	testengine_container_health(te, "web.1.task3", "unhealthy");
	END(&j);
	FAILED(&j, SW_FATAL, "task: non-zero exit (143): dockerexec: unhealthy container");
	job_close(&j);
}

static void test_ends_while_waiting_for_health(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "exit 0 after 30ms");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	OK(&j, wait);
	job_close(&j);
	job_init(&j, "task2", "exit 4 after 30ms");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "task: non-zero exit (4)");
	assert_int_equal(j.r.exit_code, 4);
	job_close(&j);
	job_init(&j, "task3", "sleep 60s");
	with_health(&j);
	job_open(&j);
	OK(&j, prepare);
	testengine_drop_events(te, "die", 1);
	BEGIN(&j, start);
	UNTIL(testengine_n_running(te) == 1);
	rounds(20);
	testengine_container_remove(te, "web.1.task3");
	END(&j);
	FAILED(&j, SW_FATAL, "dockerexec: container destroyed");
	job_close(&j);
}

/* ---- wait: nothing is missed, nothing is invented */

static void test_lost_connection_is_no_exit(void **state)
{
	struct sw_err err;
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	rounds(20);
	testengine_drop_connections(te);
	rounds(50);
	assert_false(j.r.done);
	testengine_stop(te, true, false);
	rounds(50);
	assert_false(j.r.done);
	assert_int_equal(testengine_start(te, &err), 0);
	UNTIL(testengine_n_event_streams(te) >= 1);
	rounds(50);
	assert_false(j.r.done);
	/* live-restore: it ends while nobody sees it, without an event ever after */
	testengine_stop(te, true, false);
	testengine_container_exit(te, "web.1.task1", 6, false);
	rounds(50);
	assert_false(j.r.done);
	assert_int_equal(testengine_start(te, &err), 0);
	END(&j);
	FAILED(&j, SW_FATAL, "task: non-zero exit (6)");
	job_close(&j);
}

static void test_engine_killed(void **state)
{
	struct sw_err err;
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	rounds(20);
	testengine_stop(te, false, true);
	rounds(50);
	assert_false(j.r.done);
	assert_int_equal(testengine_start(te, &err), 0);
	END(&j);
	FAILED(&j, SW_FATAL, "task: non-zero exit (137)");
	job_close(&j);
}

static void test_dropped_die_event(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60m");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	rounds(20);
	testengine_drop_events(te, "die", 1);
	testengine_container_exit(te, "web.1.task1", 9, false);
	rounds(50);
	assert_false(j.r.done);
	fake_time(); /* within a minute of it */
	for (int i = 0; i < 6100 && !j.r.done; i++)
		sw_fake_advance(loop, sw_ms(10));
	assert_true(j.r.done);
	FAILED(&j, SW_FATAL, "task: non-zero exit (9)");
	job_close(&j);
}

static void test_inspect_trouble_is_no_exit(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	fault("GET /containers/*/json*", 500, "database is locked", 3);
	BEGIN(&j, wait);
	UNTIL(count("GET /containers/*/json*") >= 6);
	assert_false(j.r.done);
	testengine_container_exit(te, "web.1.task1", 2, false);
	END(&j);
	FAILED(&j, SW_FATAL, "task: non-zero exit (2)");
	job_close(&j);
}

/* ---- adoption: the agent dies in each state and comes back */

static void restart_agent(struct job *j)
{
	job_close(j);
	close_executor();
	open_executor();
	job_open(j);
}

static void test_adoption(void **state)
{
	struct testengine_container k;
	char id[80];
	struct job j;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	strcpy(id, j.r.id);
	restart_agent(&j); /* created */
	OK(&j, prepare);
	assert_true(j.r.already);
	assert_string_equal(j.r.id, id);
	OK(&j, start);
	assert_false(j.r.already);
	restart_agent(&j); /* running, any of the three states before */
	OK(&j, prepare);
	assert_true(j.r.already);
	OK(&j, start);
	assert_true(j.r.already);
	assert_string_equal(j.r.id, id);
	BEGIN(&j, wait);
	rounds(20);
	assert_false(j.r.done);
	j.c->ops->cancel(j.c);
	END(&j);
	testengine_container_exit(te, id, 7, false);
	restart_agent(&j); /* exited meanwhile */
	OK(&j, prepare);
	assert_true(j.r.already);
	OK(&j, start);
	assert_true(j.r.already);
	RUN(&j, wait);
	FAILED(&j, SW_FATAL, "task: non-zero exit (7)");
	restart_agent(&j);
	RUN(&j, wait);
	FAILED(&j, SW_FATAL, "task: non-zero exit (7)");
	assert_string_equal(j.r.id, id);
	assert_int_equal(testengine_n_containers(te), 1);
	assert_true(testengine_container_at(te, 0, &k));
	assert_int_equal(k.n_starts, 1);
	restart_agent(&j);
	OK(&j, shutdown);
	assert_int_equal(j.r.exit_code, 7);
	restart_agent(&j);
	OK(&j, remove);
	assert_int_equal(testengine_n_containers(te), 0);
	job_close(&j);
}

/* ---- shutdown and remove */

static void test_shutdown_grace(void **state)
{
	static const struct {
		double grace; /* negative: none */
		const char *request;
	} cases[] = {{0, "POST /containers/*/stop?t=0"}, {0.5, "POST /containers/*/stop?t=1"},
		{1.5, "POST /containers/*/stop?t=2"}, {-1, "POST /containers/*/stop"}};
	struct job j;

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		char id[16];

		snprintf(id, sizeof(id), "task%zu", i);
		job_init(&j, id, "sleep 60s");
		j.x.c.stop_grace_period = NULL;
		if (cases[i].grace >= 0)
			test_task_grace(&j.x, cases[i].grace);
		job_open(&j);
		OK(&j, prepare);
		OK(&j, start);
		OK(&j, shutdown);
		assert_int_equal(count(cases[i].request), 1);
		job_close(&j);
	}
}

static void test_shutdown_edges(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	job_open(&j);
	OK(&j, shutdown); /* never prepared */
	assert_string_equal(j.r.id, "");
	OK(&j, prepare);
	OK(&j, shutdown); /* never started */
	assert_int_equal(testengine_n_containers(te), 1);
	assert_false(j.r.has_exit);
	OK(&j, start);
	fault("POST /containers/*/stop*", 500, "cannot stop container: tried to kill container", 5);
	for (int i = 0; i < 4; i++) {
		RUN(&j, shutdown);
		FAILED(&j, SW_TEMPORARY, "cannot stop container");
	}
	RUN(&j, shutdown);
	FAILED(&j, SW_FATAL, "cannot stop container");
	OK(&j, shutdown);
	OK(&j, remove);
	job_close(&j);
}

static void test_cancelled_shutdown_goes_on(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "ignore-term");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, shutdown);
	UNTIL(count("POST /containers/*/stop*") == 1);
	j.c->ops->cancel(j.c);
	END(&j);
	FAILED(&j, SW_CANCELLED, "");
	assert_false(j.r.has_exit);
	OK(&j, shutdown); /* joins */
	assert_int_equal(j.r.exit_code, 137);
	assert_int_equal(count("POST /containers/*/stop*"), 1);
	OK(&j, remove);
	job_close(&j);
}

static void test_remove(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	job_open(&j);
	OK(&j, remove); /* absent */
	OK(&j, prepare);
	OK(&j, start);
	fault("POST /containers/*/stop*", 500, "cannot stop container", 1);
	OK(&j, remove); /* running, the stop fails: the removal kills */
	assert_int_equal(testengine_n_containers(te), 0);

	OK(&j, prepare);
	fault("DELETE /containers/*", 500,
		"driver failed to remove root filesystem: device or resource busy", 1);
	RUN(&j, remove);
	FAILED(&j, SW_TEMPORARY, "device or resource busy");
	fault("DELETE /containers/*", 409, "removal of container x is already in progress", 1);
	BEGIN(&j, remove);
	UNTIL(count("DELETE /containers/*") == 3);
	rounds(30);
	assert_false(j.r.done);
	testengine_container_remove(te, "web.1.task1");
	END(&j);
	assert_int_equal(j.r.err.cls, SW_OK);
	job_close(&j);
}

static void test_removal_that_never_ends(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "task1", "");
	job_open(&j);
	OK(&j, prepare);
	fault("DELETE /containers/*", 409, "removal of container x is already in progress", 1);
	fake_time();
	RUN(&j, remove);
	FAILED(&j, SW_TEMPORARY, "its removal does not end");
	OK(&j, remove);
	job_close(&j);
}

/* ---- orphans */

struct listed {
	bool done;
	struct sw_err err;
	size_t n;
	char text[1024];
	char id[80];
};

static void on_list(void *arg, const struct executor_found *f, size_t n, const struct sw_err *err)
{
	struct listed *l = arg;
	size_t len = 0;

	l->done = true;
	l->n = n;
	sw_err_copy(&l->err, err);
	for (size_t i = 0; i < n; i++) {
		len += (size_t)snprintf(l->text + len, sizeof(l->text) - len, "%s %s %s %d;",
			f[i].name, f[i].task_id, f[i].status, f[i].running);
		snprintf(l->id, sizeof(l->id), "%s", f[i].container_id);
	}
}

struct done {
	bool done;
	struct sw_err err;
};

static void on_done(void *arg, const struct sw_err *err)
{
	struct done *d = arg;

	d->done = true;
	sw_err_copy(&d->err, err);
}

static void test_orphans(void **state)
{
	struct json_object *body;
	struct listed l = {0};
	struct done d = {0};
	const char *foreign;
	struct job j;

	(void)state;
	body = json_tokener_parse(
		"{\"Image\":\"bb:1\",\"Labels\":{\"com.docker.swarm.node.id\":\"node1\","
		"\"io.swarm-agentd.cluster\":\"other\"}}");
	foreign = testengine_container_make(te, "foreign", body, true);
	json_object_put(body);
	body = json_tokener_parse(
		"{\"Image\":\"bb:1\",\"Labels\":{\"com.docker.swarm.node.id\":\"node1\"}}");
	testengine_container_make(te, "dockerds", body, true);
	json_object_put(body);
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	job_close(&j);

	executor->ops->list(executor, on_list, &l);
	await_(&l.done, __LINE__);
	assert_string_equal(l.text, "web.1.task1 task1 running 1;");

	executor->ops->remove_orphan(executor, foreign, on_done, &d);
	await_(&d.done, __LINE__);
	assert_int_equal(d.err.cls, SW_REJECTED);
	assert_int_equal(testengine_n_running(te), 3);

	d.done = false;
	executor->ops->remove_orphan(executor, l.id, on_done, &d);
	await_(&d.done, __LINE__);
	assert_int_equal(d.err.cls, SW_OK);
	assert_int_equal(count("POST /containers/*/stop"), 1); /* its own timeout */
	assert_int_equal(testengine_n_containers(te), 2);

	d.done = false; /* gone already: fine */
	executor->ops->remove_orphan(executor, l.id, on_done, &d);
	await_(&d.done, __LINE__);
	assert_int_equal(d.err.cls, SW_OK);

	l.done = false;
	fault("GET /containers/json*", 500, "busy", 1);
	executor->ops->list(executor, on_list, &l);
	await_(&l.done, __LINE__);
	assert_int_equal(l.err.cls, SW_TEMPORARY);

	l.done = d.done = false; /* outstanding at the end: cancelled */
	delay("GET /containers/*", sw_s(3600), 0);
	executor->ops->list(executor, on_list, &l);
	executor->ops->remove_orphan(executor, l.id, on_done, &d);
	close_executor();
	assert_true(l.done && d.done);
	assert_int_equal(l.err.cls, SW_CANCELLED);
	assert_int_equal(d.err.cls, SW_CANCELLED);
}

/* ---- limits */

static void test_creates_are_limited(void **state)
{
	enum { N = 12 };
	struct job j[N];
	size_t base, most = 0;
	bool all = false;

	(void)state;
	close_executor();
	cfg.max_starts = 2;
	cfg.pull_policy = DOCKER_PULL_MISSING;
	open_executor();
	base = testengine_n_connections(te);
	delay("POST /containers/create*", sw_ms(20), 0);
	for (int i = 0; i < N; i++) {
		char *id = xasprintf("task%d", i);

		job_init(&j[i], xmemdup_keep(id, strlen(id) + 1), "");
		free(id);
		job_open(&j[i]);
		BEGIN(&j[i], prepare);
	}
	while (!all) {
		size_t sent = count("POST /containers/create*"), made = testengine_n_containers(te);

		if (sent - made > most)
			most = sent - made;
		sw_loop_once(loop, true);
		all = true;
		for (int i = 0; i < N; i++)
			all = all && j[i].r.done;
	}
	assert_int_equal(most, 2);
	(void)base;
	for (int i = 0; i < N; i++) {
		assert_int_equal(j[i].r.err.cls, SW_OK);
		job_close(&j[i]);
	}
	cfg.max_starts = 0;
}

/* ---- logs */

struct logged {
	size_t n, pause_after;
	char text[4096];
	bool ended;
	struct sw_err err;
	struct controller_logs *l;
};

static bool on_msg(void *arg, Pb__LogMessage *m)
{
	struct logged *x = arg;
	size_t len = strlen(x->text);

	assert_string_equal(m->context->task_id, "task1");
	assert_string_equal(m->context->node_id, "node1");
	assert_string_equal(m->context->service_id, "service1");
	assert_true(api_time_ns(m->timestamp) > 0);
	snprintf(x->text + len, sizeof(x->text) - len, "%d:%.*s", (int)m->stream, (int)m->data.len,
		(const char *)m->data.data);
	x->n++;
	return x->n != x->pause_after;
}

static void on_logs_end(void *arg, const struct sw_err *err)
{
	struct logged *x = arg;

	assert_false(x->ended);
	x->ended = true;
	sw_err_copy(&x->err, err);
}

static void logs(struct logged *x, struct job *j, bool follow, int64_t tail)
{
	Pb__LogSubscriptionOptions o = PB__LOG_SUBSCRIPTION_OPTIONS__INIT;

	memset(x, 0, sizeof(*x));
	o.follow = follow;
	o.tail = tail;
	x->l = j->c->ops->logs(j->c, &o, on_msg, on_logs_end, x);
	assert_false(x->ended);
}

static void test_logs(void **state)
{
	struct logged x;
	struct job j;

	(void)state;
	job_init(&j, "task1", "echo one; echo two >&2; echo three; exit 0");
	job_open(&j);
	logs(&x, &j, false, 0);
	await_(&x.ended, __LINE__);
	FAILED(&(struct job){.r = {.err = x.err}}, SW_REJECTED, "container not ready for logs: ");
	OK(&j, prepare);
	logs(&x, &j, false, 0);
	await_(&x.ended, __LINE__);
	assert_int_equal(x.err.cls, SW_OK);
	assert_int_equal(x.n, 0);

	logs(&x, &j, true, 0); /* waits until it has started */
	rounds(20);
	assert_false(x.ended);
	OK(&j, start);
	await_(&x.ended, __LINE__);
	assert_int_equal(x.err.cls, SW_OK);
	assert_string_equal(x.text, "1:one\n2:two\n1:three\n");
	assert_int_equal(count("GET /containers/*/logs?*follow=1*"), 1);

	logs(&x, &j, false, -3);
	await_(&x.ended, __LINE__);
	assert_int_equal(count("GET /containers/*/logs?*tail=2*"), 1);
	logs(&x, &j, false, -1);
	await_(&x.ended, __LINE__);
	assert_int_equal(count("GET /containers/*/logs?*tail=0*"), 1);
	logs(&x, &j, false, 1);
	await_(&x.ended, __LINE__);
	assert_string_equal(
		x.err.msg, "tail relative to start of logs not supported via docker API");
	fault("GET /containers/*/logs*", 501, "configured logging driver does not support reading",
		1);
	logs(&x, &j, false, 0);
	await_(&x.ended, __LINE__);
	assert_string_equal(x.err.msg,
		"failed getting container logs: configured logging driver does "
		"not support reading");
	logs(&x, &j, false, 0);
	j.c->ops->logs_cancel(x.l);
	rounds(20);
	assert_false(x.ended);
	job_close(&j);
}

static void test_follow_survives_the_engine(void **state)
{
	struct logged x;
	struct job j;
	struct sw_err err;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	logs(&x, &j, true, 0);
	x.pause_after = 2;
	UNTIL(count("GET /containers/*/logs*") == 1);
	testengine_log(te, "web.1.task1", 1, "a\n", 2);
	testengine_log(te, "web.1.task1", 1, "b\n", 2);
	testengine_log(te, "web.1.task1", 1, "c\n", 2);
	UNTIL(x.n >= 2);
	rounds(30);
	assert_int_equal(x.n, 2);
	j.c->ops->logs_resume(x.l);
	UNTIL(x.n == 3);
	testengine_stop(te, true, false);
	testengine_log(te, "web.1.task1", 1, "d\n", 2);
	rounds(20);
	assert_int_equal(testengine_start(te, &err), 0);
	UNTIL(x.n == 4);
	assert_string_equal(x.text, "1:a\n1:b\n1:c\n1:d\n");
	assert_false(x.ended);
	job_close(&j); /* the stream ends, from the loop */
	assert_false(x.ended);
	await_(&x.ended, __LINE__);
	assert_string_equal(x.err.msg, "exec: controller closed");
}

/* Whatever ends a follow, a running container may still say something. */
static void test_follow_goes_on(void **state)
{
	struct logged x;
	struct job j;
	struct sw_err err;

	(void)state;
	job_init(&j, "task1", "sleep 60s");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	fault("GET /containers/*/logs*", 200, "", 1);
	logs(&x, &j, true, 0);
	UNTIL(count("GET /containers/*/logs*") == 2);
	testengine_log(te, "web.1.task1", 1, "a\n", 2);
	UNTIL(x.n == 1);
	j.c->ops->logs_cancel(x.l);

	logs(&x, &j, true, -1); /* only new lines, also those while the engine is away */
	UNTIL(count("GET /containers/*/logs?*tail=0*") == 1);
	rounds(20);
	testengine_stop(te, true, false);
	testengine_log(te, "web.1.task1", 1, "b\n", 2);
	assert_int_equal(testengine_start(te, &err), 0);
	UNTIL(x.n == 1);
	assert_string_equal(x.text, "1:b\n");
	assert_int_equal(count("GET /containers/*/logs?*tail=0*"), 1);
	j.c->ops->logs_cancel(x.l);
	job_close(&j);
}

/* A fast log is read no faster than 10 MiB/s after the first 10 MiB. */
static void test_log_rate(void **state)
{
	enum { LINE = 16384, LINES = 1000 };
	char *line = xcalloc(1, LINE);
	struct logged x;
	struct job j;
	uint64_t before;

	(void)state;
	memset(line, 'x', LINE - 1);
	line[LINE - 1] = '\n';
	job_init(&j, "task1", "sleep 60m");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	for (int i = 0; i < LINES; i++)
		testengine_log(te, "web.1.task1", 1, line, LINE);
	fake_time();
	before = sw_now(loop);
	logs(&x, &j, false, 0);
	await_(&x.ended, __LINE__);
	assert_int_equal(x.n, LINES);
	/* 15.6 MiB: 5.6 of them wait */
	assert_true(sw_now(loop) - before > sw_ms(500));
	free(line);
	job_close(&j);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_describe),
		T(test_describe_options_and_failures),
		T(test_slow_describe_blocks_nothing),
		T(test_changed),
		T(test_configure_and_keys),
		T(test_life),
		T(test_exits),
		T(test_killed_from_outside),
		T(test_terminate),
		T(test_refused_spec),
		T(test_update),
		T(test_pull),
		T(test_pull_auth),
		T(test_pull_refused),
		T(test_pull_retried),
		T(test_pull_policies),
		T(test_digest_needs_no_registry),
		T(test_one_pull_for_all),
		T(test_cancelled_prepare_joins_its_pull),
		T(test_shutdown_stops_a_pull),
		T(test_image_gone_between_pull_and_create),
		T(test_create_answer_lost),
		T(test_foreign_container_of_that_name),
		T(test_conflict_at_create),
		T(test_prepare_error_classes),
		T(test_engine_away_is_temporary),
		T(test_volumes_with_a_driver),
		T(test_further_networks),
		T(test_local_network_counted),
		T(test_local_network_after_restart),
		T(test_local_network_refused),
		T(test_start_refused),
		T(test_start_answers),
		T(test_healthy_after_a_while),
		T(test_unhealthy),
		T(test_ends_while_waiting_for_health),
		T(test_lost_connection_is_no_exit),
		T(test_engine_killed),
		T(test_dropped_die_event),
		T(test_inspect_trouble_is_no_exit),
		T(test_adoption),
		T(test_shutdown_grace),
		T(test_shutdown_edges),
		T(test_cancelled_shutdown_goes_on),
		T(test_remove),
		T(test_removal_that_never_ends),
		T(test_orphans),
		T(test_creates_are_limited),
		T(test_logs),
		T(test_follow_survives_the_engine),
		T(test_follow_goes_on),
		T(test_log_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
