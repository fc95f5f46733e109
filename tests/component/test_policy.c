/* The executor with an operator's policy, ports instead of the routing mesh, and the true causes of
 * what goes wrong, against the test engine. */
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
#include <swarm/loop.h>
#include <unistd.h>

static struct sw_loop *loop;
static struct testengine *te;
static struct engine *engine;
static struct executor *executor;
static struct docker_executor_config cfg;
static char dir[] = "/tmp/test-policy-XXXXXX";
static char socket_path[64];

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

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
	AWAIT(loop, testengine_n_event_streams(te) >= 1);
}

static void close_executor(void)
{
	bool closed = false;

	executor->ops->close(executor, set_true, &closed);
	AWAIT(loop, closed);
	closed = false;
	engine_close(engine, set_true, &closed);
	AWAIT(loop, closed);
}

static int setup(void **state)
{
	struct testengine_config tc = {.socket_path = socket_path};
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/sock", dir);
	memset(&cfg, 0, sizeof(cfg));
	if (sw_loop_new(&loop, &err) < 0 || testengine_new(&te, loop, &tc, &err) < 0)
		fail_msg("%s", err.msg);
	return 0;
}

static int teardown(void **state)
{
	bool closed = false;

	(void)state;
	close_executor();
	testengine_close(te, set_true, &closed);
	AWAIT(loop, closed);
	assert_int_equal(sw_loop_free(loop), 0);
	unlink(socket_path);
	rmdir(dir);
	strcpy(strrchr(dir, '-') + 1, "XXXXXX");
	return 0;
}

/* ---- tasks */

struct job {
	struct test_task x;
	struct api_task *t;
	struct controller *c;
	bool done, already;
	struct sw_err err;
	size_t n_ports;
	Pb__PortConfig port; /* the first one */
};

static void on_result(void *arg, const struct controller_result *r)
{
	struct job *j = arg;

	j->done = true;
	j->err = r->err;
	j->already = r->already;
	j->n_ports = r->n_ports;
	if (r->n_ports)
		j->port = *r->ports[0];
}

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
	j->t = test_task_make(&j->x);
	if (executor->ops->controller(executor, j->t, &j->c, &j->err) < 0)
		fail_msg("%s", j->err.msg);
}

static void job_close(struct job *j)
{
	j->c->ops->close(j->c);
	api_task_unref(j->t);
}

#define RUN(j, op)                                                                                 \
	do {                                                                                       \
		(j)->done = false;                                                                 \
		(j)->c->ops->op((j)->c, on_result, (j));                                           \
		AWAIT(loop, (j)->done);                                                            \
	} while (0)
#define OK(j, op)                                                                                  \
	do {                                                                                       \
		RUN(j, op);                                                                        \
		if ((j)->err.cls)                                                                  \
			fail_msg("line %d: %s: %s", __LINE__, #op, (j)->err.msg);                  \
	} while (0)
static void failed_at(const struct job *j, enum sw_errclass cls, const char *text, int line)
{
	if (j->err.cls != cls || strcmp(j->err.msg, text) != 0)
		fail_msg("line %d: %s \"%s\", want %s \"%s\"", line, sw_errclass_name(j->err.cls),
			j->err.msg, sw_errclass_name(cls), text);
}
#define FAILED(j, cls, text) failed_at(j, cls, text, __LINE__)

static void fault(const char *match, int status, const char *message)
{
	sw_auto_free char *body = xasprintf("{\"message\":\"%s\"}", message);
	struct testengine_fault f = {.match = match, .status = status, .body = body, .times = 1};

	testengine_fault_add(te, &f);
}

static void publish(struct job *j, uint32_t target, uint32_t published, bool ingress)
{
	Pb__PortConfig p = PB__PORT_CONFIG__INIT;

	p.target_port = target;
	p.published_port = published;
	p.publish_mode = ingress ? PB__PORT_CONFIG__PUBLISH_MODE__INGRESS
				 : PB__PORT_CONFIG__PUBLISH_MODE__HOST;
	TEST_PTRS(j->x.endpoint.ports, j->x.endpoint.n_ports, Pb__PortConfig,
		xmemdup_keep(&p, sizeof(p)));
	j->x.t.endpoint = &j->x.endpoint;
}

static void attach_ingress(struct job *j)
{
	Pb__Annotations ann = PB__ANNOTATIONS__INIT;
	Pb__NetworkSpec s = PB__NETWORK_SPEC__INIT;
	Pb__Network n = PB__NETWORK__INIT;
	Pb__NetworkAttachment a = PB__NETWORK_ATTACHMENT__INIT;

	ann.name = (char *)"ingress";
	s.annotations = xmemdup_keep(&ann, sizeof(ann));
	s.ingress = 1;
	n.spec = xmemdup_keep(&s, sizeof(s));
	a.network = xmemdup_keep(&n, sizeof(n));
	TEST_PTRS(j->x.t.networks, j->x.t.n_networks, Pb__NetworkAttachment,
		xmemdup_keep(&a, sizeof(a)));
}

/* ---- policy */

static void want_fuse(struct job *j, const char *id)
{
	job_init(j, id, "");
	TEST_PTRS(j->x.c.labels, j->x.c.n_labels, Pb__StringPair,
		test_pair("io.swarm-agentd.devices", "/dev/fuse"));
}

static void test_policy(void **state)
{
	char *allowed[] = {(char *)"/dev/fuse"};
	struct testengine_container k;
	struct json_object *o;
	struct job j;

	(void)state;
	open_executor();
	want_fuse(&j, "task1");
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED,
		"label \"io.swarm-agentd.devices=/dev/fuse\": device /dev/fuse with rwm is not "
		"allowed on this node; its operator can allow it with \"allow-devices = "
		"/dev/fuse\" in the agent's configuration");
	assert_int_equal(testengine_n_containers(te), 0);
	assert_int_equal(testengine_n_requests(te, "POST *"), 0); /* no pull for nothing */
	job_close(&j);
	close_executor();

	cfg.policy.devices = (struct docker_words){allowed, 1};
	open_executor();
	job_open(&j);
	OK(&j, prepare);
	assert_true(testengine_container_at(te, 0, &k));
	assert_int_equal(json_pointer_get(k.body, "/HostConfig/Devices/0/PathOnHost", &o), 0);
	assert_string_equal(json_object_get_string(o), "/dev/fuse");
	OK(&j, start);
	job_close(&j);
	close_executor();

	/* a stricter operator: what runs goes on, what is new is refused */
	memset(&cfg.policy, 0, sizeof(cfg.policy));
	open_executor();
	job_open(&j);
	OK(&j, prepare);
	assert_true(j.already);
	OK(&j, start);
	assert_int_equal(testengine_n_running(te), 1);
	job_close(&j);
	want_fuse(&j, "task2");
	job_open(&j);
	RUN(&j, prepare);
	assert_int_equal(j.err.cls, SW_REJECTED);
	job_close(&j);
}

static void test_bad_configuration(void **state)
{
	char *bad[] = {(char *)"fuse"}, *count[] = {(char *)"ssd=5", (char *)"ssd=6"};
	struct executor *x = NULL;
	struct sw_err err;

	(void)state;
	open_executor();
	cfg.policy.devices = (struct docker_words){bad, 1};
	assert_true(docker_executor_new(&x, &cfg, &err) < 0);
	assert_int_equal(err.cls, SW_REJECTED);
	assert_non_null(strstr(err.msg, "allow-devices"));
	cfg.policy.devices.n = 0;
	cfg.generic_resources = (struct docker_words){count, 2};
	assert_true(docker_executor_new(&x, &cfg, &err) < 0);
	assert_non_null(strstr(err.msg, "generic-resources"));
	assert_null(x);
}

/* ---- describe */

struct described {
	bool done;
	bool overlay;
	char generic[256];
};

static void on_described(void *arg, const Pb__NodeDescription *n, const struct sw_err *err)
{
	struct described *d = arg;

	d->done = true;
	if (!n)
		fail_msg("%s", err->msg);
	for (size_t i = 0; i < n->engine->n_plugins; i++)
		if (sw_streq(n->engine->plugins[i]->type, "Network") &&
			sw_streq(n->engine->plugins[i]->name, "overlay"))
			d->overlay = true;
	for (size_t i = 0, at = 0; i < n->resources->n_generic; i++) {
		const Pb__GenericResource *g = n->resources->generic[i];
		bool named = g->resource_case == PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC;

		if (named)
			at += (size_t)snprintf(d->generic + at, sizeof(d->generic) - at, "%s=%s ",
				g->named_resource_spec->kind, g->named_resource_spec->value);
		else
			at += (size_t)snprintf(d->generic + at, sizeof(d->generic) - at, "%s#%d ",
				g->discrete_resource_spec->kind,
				(int)g->discrete_resource_spec->value);
	}
}

static void test_describe(void **state)
{
	char *own[] = {(char *)"ssd=5", (char *)"gpu=B", (char *)"gpu=A"};
	struct described d = {0};

	(void)state;
	json_object_object_add(testengine_info(te), "Plugins",
		json_tokener_parse("{\"Network\":[\"bridge\",\"overlay\"]}"));
	json_object_object_add(testengine_info(te), "GenericResources",
		json_tokener_parse("[{\"DiscreteResourceSpec\":{\"Kind\":\"cam\",\"Value\":1}}]"));
	open_executor();
	executor->ops->describe(executor, on_described, &d);
	AWAIT(loop, d.done);
	assert_false(d.overlay);
	assert_string_equal(d.generic, "cam#1 ");
	close_executor();

	cfg.ingress = DOCKER_INGRESS_HOST_PORT;
	cfg.generic_resources = (struct docker_words){own, 3};
	open_executor();
	d = (struct described){0};
	executor->ops->describe(executor, on_described, &d);
	AWAIT(loop, d.done);
	assert_true(d.overlay);
	assert_string_equal(d.generic, "gpu=A gpu=B ssd#5 ");
}

/* ---- ports */

static void test_ingress_as_host_port(void **state)
{
	struct job a, b;

	(void)state;
	cfg.ingress = DOCKER_INGRESS_HOST_PORT;
	open_executor();
	job_init(&a, "task1", "");
	publish(&a, 80, 18080, true);
	attach_ingress(&a);
	job_open(&a);
	OK(&a, prepare);
	OK(&a, start);
	assert_int_equal(a.n_ports, 1);
	assert_int_equal(a.port.target_port, 80);
	assert_int_equal(a.port.published_port, 18080);
	assert_int_equal(a.port.publish_mode, PB__PORT_CONFIG__PUBLISH_MODE__HOST);
	/* an update of the task is seen with the same eyes */
	assert_int_equal(a.c->ops->update(a.c, a.t, &a.err), 0);
	OK(&a, shutdown);
	OK(&a, remove);
	job_close(&a);

	job_init(&a, "task2", "");
	publish(&a, 80, 18080, true);
	attach_ingress(&a);
	job_open(&a);
	OK(&a, prepare);
	OK(&a, start);
	job_init(&b, "task3", "");
	publish(&b, 81, 18080, true);
	attach_ingress(&b);
	job_open(&b);
	OK(&b, prepare);
	RUN(&b, start);
	assert_int_equal(b.err.cls, SW_FATAL);
	assert_true(sw_starts_with(b.err.msg,
		"starting container failed: port 18080/tcp is already in use on this node by task "
		"task2 of service web (container web.1.task2): "));
	job_close(&a);
	job_close(&b);
}

static void test_port_taken_by_others(void **state)
{
	struct json_object *body = json_tokener_parse(
		"{\"Image\":\"bb:1\",\"HostConfig\":{\"PortBindings\":{\"53/udp\":[{\"HostPort\":"
		"\"8080\"}],\"80/tcp\":[{\"HostPort\":\"8080\"}]}}}");
	struct job j;

	(void)state;
	open_executor();
	testengine_container_make(te, "proxy", body, true);
	json_object_put(body);
	job_init(&j, "task1", "");
	publish(&j, 80, 8080, false);
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	assert_non_null(strstr(
		j.err.msg, "port 8080/tcp is already in use on this node by container proxy ("));
	job_close(&j);

	/* a process that the engine does not know */
	job_init(&j, "task2", "");
	publish(&j, 80, 8081, false);
	job_open(&j);
	OK(&j, prepare);
	fault("POST /containers/*/start*", 500,
		"listen tcp4 0.0.0.0:8081: bind: address already in use");
	RUN(&j, start);
	FAILED(&j, SW_FATAL,
		"starting container failed: port 8081/tcp is already in use on this node by a "
		"process "
		"outside this engine's containers: listen tcp4 0.0.0.0:8081: bind: address already "
		"in use");
	/* the engine has the last word if it cannot be asked */
	fault("POST /containers/*/start*", 500,
		"Bind for 0.0.0.0:8081 failed: port is already allocated");
	fault("GET /containers/json*", 500, "no list");
	RUN(&j, start);
	FAILED(&j, SW_FATAL,
		"starting container failed: port 8081/tcp is already in use on this node: Bind for "
		"0.0.0.0:8081 failed: port is already allocated");
	/* somebody else's port is none of ours */
	fault("POST /containers/*/start*", 500,
		"listen tcp4 0.0.0.0:80812: bind: address already in use");
	RUN(&j, start);
	FAILED(&j, SW_FATAL,
		"starting container failed: listen tcp4 0.0.0.0:80812: bind: address already in "
		"use");
	job_close(&j);
}

/* ---- causes */

static void test_signals(void **state)
{
	static const struct {
		const char *command, *text;
	} cases[] = {
		{"exit 139", "task: non-zero exit (139): killed by signal 11 SIGSEGV"},
		{"exit 134", "task: non-zero exit (134): killed by signal 6 SIGABRT"},
		{"exit 137", "task: non-zero exit (137): killed by signal 9 SIGKILL"},
		{"exit 128", "task: non-zero exit (128)"},
		{"exit 255", "task: non-zero exit (255)"},
		{"exit 3", "task: non-zero exit (3)"},
		{"oom", "task: non-zero exit (137): OOM killed"},
	};
	struct job j;

	(void)state;
	open_executor();
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		char id[16];

		snprintf(id, sizeof(id), "task%zu", i);
		job_init(&j, id, cases[i].command);
		job_open(&j);
		OK(&j, prepare);
		OK(&j, start);
		RUN(&j, wait);
		FAILED(&j, SW_FATAL, cases[i].text);
		job_close(&j);
	}
	job_init(&j, "task9", "");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	testengine_container_exit(te, "web.1.task9", 1, true);
	RUN(&j, wait);
	FAILED(&j, SW_FATAL, "task: non-zero exit (1): a process in it was OOM killed");
	job_close(&j);
}

static void test_probe_output(void **state)
{
	Pb__HealthConfig h = PB__HEALTH_CONFIG__INIT;
	struct job j;

	(void)state;
	open_executor();
	TEST_STRS(h.test, h.n_test, (char *)"CMD", (char *)"true");
	job_init(&j, "task1", "unhealthy-after 10ms term-exit 5");
	j.x.c.healthcheck = &h;
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL,
		"task: non-zero exit (5): dockerexec: unhealthy container: probe says no");
	job_close(&j);
}

static void test_pulls(void **state)
{
	static const struct {
		int status;
		const char *auth, *engine, *kind;
	} cases[] = {
		{404, "", "manifest for x not found: manifest unknown", "image not found: "},
		{500, "", "Head https://r/v2/x: unauthorized: authentication required",
			"not authorised: no credentials were given (--with-registry-auth): "},
		{500, "eyJ9", "Head https://r/v2/x: unauthorized: incorrect password",
			"not authorised: the registry refused the credentials: "},
		{404, "",
			"pull access denied for x, repository does not exist or may require "
			"'docker "
			"login': denied: requested access to the resource is denied",
			"image not found, or not authorised: no credentials were given "
			"(--with-registry-auth): "},
		{404, "", "no matching manifest for linux/arm64 in the manifest list entries",
			"not there for this node's platform: "},
		{500, "", "Get https://r/v2/: x509: certificate signed by unknown authority",
			"the registry cannot be reached: "},
		{500, "", "something else", ""},
	};
	Pb__ContainerSpec__PullOptions opts = PB__CONTAINER_SPEC__PULL_OPTIONS__INIT;
	struct job j;

	(void)state;
	open_executor();
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		sw_auto_free char *want =
			xasprintf("pull image r/x:1: %s%s", cases[i].kind, cases[i].engine);
		char id[16];

		snprintf(id, sizeof(id), "task%zu", i);
		job_init(&j, id, "");
		j.x.c.image = (char *)"r/x:1";
		opts.registry_auth = (char *)cases[i].auth;
		j.x.c.pull_options = &opts;
		job_open(&j);
		fault("POST /images/create*", cases[i].status, cases[i].engine);
		RUN(&j, prepare);
		FAILED(&j, SW_REJECTED, want);
		job_close(&j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_policy),
		T(test_bad_configuration),
		T(test_describe),
		T(test_ingress_as_host_port),
		T(test_port_taken_by_others),
		T(test_signals),
		T(test_probe_output),
		T(test_pulls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
