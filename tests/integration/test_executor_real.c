/* The life of some thirty tasks on a real engine: SWARM_TEST_ENGINE=unix:///...,
 * SWARM_TEST_IMAGE=an image with a busybox. Every task goes through the controller's operations as
 * the agent calls them; what the container sees is checked from inside it, by its exit code. */
#include "test.h"

#include "await.h"
#include "tasks.h"
#include <json-c/json.h>
#include <json-c/json_pointer.h>
#include <stdio.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/err.h>
#include <swarm/executor.h>
#include <swarm/loop.h>
#include <unistd.h>

#define AWAIT_LONG(cond) AWAIT_WITHIN(loop, 90, cond)

static struct sw_loop *loop;
static struct engine *engine;
static struct executor *executor;
static const char *image, *host;
static char run_id[32]; /* of this run: names do not meet those of an earlier one */
static unsigned n_tasks;

struct job {
	struct test_task x;
	struct api_task *t;
	struct controller *c;
	char id[64];
	bool done;
	struct sw_err err;
	bool already, has_exit;
	int exit_code;
	int64_t pid;
	char container[80];
	size_t n_ports;
	Pb__PortConfig ports[4];
};

static void on_result(void *arg, const struct controller_result *r)
{
	struct job *j = arg;

	j->done = true;
	j->err = r->err;
	j->already = r->already;
	j->has_exit = r->has_exit;
	j->exit_code = r->exit_code;
	j->pid = r->pid;
	snprintf(j->container, sizeof(j->container), "%s", r->container_id ? r->container_id : "");
	j->n_ports = r->n_ports;
	for (size_t i = 0; i < r->n_ports && i < 4; i++)
		j->ports[i] = *r->ports[i];
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

static void open_executor(void)
{
	struct docker_executor_config cfg = {.loop = loop, .pull_policy = DOCKER_PULL_MISSING};
	struct engine_config ec = {.host = host};
	struct sw_err err = SW_ERR_NONE;

	if (engine_new(&engine, loop, &ec, &err) < 0)
		fail_msg("%s", err.msg);
	cfg.engine = engine;
	if (docker_executor_new(&executor, &cfg, &err) < 0)
		fail_msg("%s", err.msg);
	executor->ops->set_node(executor, "realnode", run_id);
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
	struct sw_err err;

	(void)state;
	if (sw_loop_new(&loop, &err) < 0)
		return -1;
	open_executor();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close_executor();
	assert_int_equal(sw_loop_free(loop), 0);
	return 0;
}

/* ---- a job: sh -c SCRIPT */

/* The image need not have a link for every applet. */
#define PRELUDE                                                                                    \
	"touch() { busybox touch \"$@\"; }; grep() { busybox grep \"$@\"; };"                      \
	"stat() { busybox stat \"$@\"; }; mount() { busybox mount \"$@\"; };"                      \
	"cp() { busybox cp \"$@\"; }; chmod() { busybox chmod \"$@\"; };"                          \
	"tail() { busybox tail \"$@\"; }; tr() { busybox tr \"$@\"; }; rm() { busybox rm \"$@\"; " \
	"};"

static void job_init(struct job *j, const char *script)
{
	sw_auto_free char *text = xasprintf("%s%s", PRELUDE, script);
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", xmemdup_keep(text, strlen(text) + 1)};

	memset(j, 0, sizeof(*j));
	snprintf(j->id, sizeof(j->id), "%s%u", run_id, n_tasks++);
	test_task_init(&j->x, j->id);
	j->x.t.node_id = (char *)"realnode";
	j->x.c.image = (char *)image;
	j->x.c.command = xmemdup_keep(argv, sizeof(argv));
	j->x.c.n_command = 3;
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
}

#define BEGIN(j, op)                                                                               \
	do {                                                                                       \
		(j)->done = false;                                                                 \
		(j)->c->ops->op((j)->c, on_result, (j));                                           \
	} while (0)
#define RUN(j, op)                                                                                 \
	do {                                                                                       \
		BEGIN(j, op);                                                                      \
		AWAIT_LONG((j)->done);                                                             \
	} while (0)
#define OK(j, op)                                                                                  \
	do {                                                                                       \
		RUN(j, op);                                                                        \
		if ((j)->err.cls)                                                                  \
			fail_msg("line %d: %s: %s", __LINE__, #op, (j)->err.msg);                  \
	} while (0)
static void failed_at(struct job *j, enum sw_errclass cls, const char *text, int line)
{
	if (j->err.cls != cls || !strstr(j->err.msg, text))
		fail_msg("line %d: %s \"%s\", want %s \"%s\"", line, sw_errclass_name(j->err.cls),
			j->err.msg, sw_errclass_name(cls), text);
}
#define FAILED(j, cls, text) failed_at(j, cls, text, __LINE__)

static void finish(struct job *j)
{
	OK(j, remove);
	job_close(j);
}

/* Runs to the end; the script's exit code says what is wrong. */
static void runs_well(struct job *j, int line)
{
	job_open(j);
	OK(j, prepare);
	OK(j, start);
	RUN(j, wait);
	if (j->err.cls)
		fail_msg("line %d: %s", line, j->err.msg);
	assert_true(j->has_exit);
	finish(j);
}
#define RUNS_WELL(j) runs_well(j, __LINE__)

/* ---- inspect */

struct inspected {
	bool done;
	struct json_object *json;
};

static void on_inspect(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct inspected *x = arg;

	(void)err;
	x->done = true;
	x->json = k ? json_object_get(k->json) : NULL;
}

static struct json_object *inspect(const char *id)
{
	struct inspected x = {0};

	engine_container_inspect(engine, id, on_inspect, &x);
	AWAIT(loop, x.done);
	return x.json;
}

static void expect_at(struct json_object *o, const char *path, const char *json, int line)
{
	struct json_object *have = NULL, *want = json_tokener_parse(json);

	if (json_pointer_get(o, path, &have) != 0 || !json_object_equal(have, want))
		fail_msg("line %d: %s is %s, want %s", line, path, json_object_to_json_string(have),
			json);
	json_object_put(want);
}
#define EXPECT(o, path, json) expect_at(o, path, json, __LINE__)

/* ---- the tasks */

static void test_describe_done(void *arg, const Pb__NodeDescription *n, const struct sw_err *err)
{
	bool overlay = false;

	if (!n)
		fail_msg("%s", err->msg);
	assert_true(*n->hostname && n->resources->nano_cpus > 0 && n->resources->memory_bytes > 0);
	assert_string_equal(n->platform->os, "linux");
	for (size_t i = 0; i < n->engine->n_plugins; i++)
		overlay |= strcmp(n->engine->plugins[i]->name, "overlay") == 0;
	assert_false(overlay);
	assert_true(n->engine->n_plugins > 3);
	*(bool *)arg = true;
}

static void test_describe(void **state)
{
	bool done = false;

	(void)state;
	executor->ops->describe(executor, test_describe_done, &done);
	AWAIT(loop, done);
}

static void test_exits(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "exit 0");
	RUNS_WELL(&j);
	job_init(&j, "exit 3");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, prepare);
	assert_true(j.already);
	OK(&j, start);
	RUN(&j, wait);
	assert_int_equal(j.err.cls, SW_FATAL);
	assert_string_equal(j.err.msg, "task: non-zero exit (3)");
	assert_int_equal(j.exit_code, 3);
	OK(&j, start);
	assert_true(j.already);
	finish(&j);
}

static void test_shutdown(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "sleep 600"); /* process 1 without a handler: the whole grace, then SIGKILL */
	job_open(&j);
	OK(&j, shutdown);
	OK(&j, prepare);
	OK(&j, start);
	assert_true(j.pid > 0);
	OK(&j, shutdown);
	assert_int_equal(j.exit_code, 137);
	OK(&j, shutdown);
	finish(&j);

	job_init(&j, "trap 'exit 5' INT; while :; do sleep 0.1; done");
	j.x.c.stop_signal = (char *)"SIGINT";
	test_task_grace(&j.x, 10);
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	for (int i = 0; i < 20; i++)
		sw_loop_once(loop, false);
	j.c->ops->cancel(j.c);
	AWAIT(loop, j.done);
	assert_int_equal(j.err.cls, SW_CANCELLED);
	OK(&j, shutdown);
	assert_int_equal(j.exit_code, 5);
	finish(&j);
}

static void test_killed_from_outside(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "sleep 600");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	OK(&j, terminate);
	assert_int_equal(j.exit_code, 137);
	RUN(&j, wait);
	FAILED(&j, SW_FATAL, "task: non-zero exit (137)");
	finish(&j);
}

static void on_removed(void *arg, const struct sw_err *err)
{
	(void)err;
	*(bool *)arg = true;
}

static void test_removed_from_outside(void **state)
{
	struct job j;
	bool removed = false;

	(void)state;
	job_init(&j, "sleep 600");
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	BEGIN(&j, wait);
	engine_container_remove(engine, j.container, true, on_removed, &removed);
	AWAIT_LONG(removed && j.done);
	FAILED(&j, SW_FATAL, "task: non-zero exit (137)");
	OK(&j, shutdown);
	finish(&j);
}

static void test_inside(void **state)
{
	Pb__BoolValue init = PB__BOOL_VALUE__INIT;
	Pb__ContainerSpec__Ulimit u = PB__CONTAINER_SPEC__ULIMIT__INIT;
	Pb__ContainerSpec__DNSConfig dns = PB__CONTAINER_SPEC__DNSCONFIG__INIT;
	struct job j;

	(void)state;
	job_init(&j,
		"[ \"$A\" = 1 ] || exit 10; [ \"$(hostname)\" = h-one ] || exit 11;"
		"[ \"$(id -u):$(id -g)\" = 1000:5 ] || exit 12; [ \"$PWD\" = /tmp ] || exit 13;"
		"[ \"$1\" = x ] || exit 14; [ \"$DOCKER_RESOURCE_GPU\" = U1 ] || exit 15;"
		"id -G | grep -q '\\<7\\>' || exit 16");
	TEST_STRS(j.x.c.args, j.x.c.n_args, (char *)"sh", (char *)"x");
	TEST_STRS(j.x.c.env, j.x.c.n_env, (char *)"A=1", (char *)"DOCKER_RESOURCE_GPU=U1");
	TEST_STRS(j.x.c.groups, j.x.c.n_groups, (char *)"7");
	j.x.c.hostname = (char *)"h-one";
	j.x.c.user = (char *)"1000:5";
	j.x.c.dir = (char *)"/tmp";
	RUNS_WELL(&j);

	job_init(&j, "touch /x 2>/dev/null && exit 10; [ $$ != 1 ] || exit 11;"
		     "[ \"$(ulimit -n)\" = 99 ] || exit 12; grep -q 1.2.3.4.*alias /etc/hosts || "
		     "exit 13;"
		     "grep -q 5.6.7.8 /etc/resolv.conf || exit 14;"
		     "[ \"$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)\" = 42 ] || exit 15;"
		     "grep -q 'CapBnd:.0000000000000000' /proc/self/status || exit 16;"
		     "grep -q 'NoNewPrivs:.1' /proc/self/status || exit 17;"
		     "[ \"$(cat /proc/self/oom_score_adj)\" = 500 ] || exit 18");
	j.x.c.read_only = true;
	init.value = 1;
	j.x.c.init = &init;
	u.name = (char *)"nofile";
	u.soft = u.hard = 99;
	TEST_PTRS(j.x.c.ulimits, j.x.c.n_ulimits, Pb__ContainerSpec__Ulimit, &u);
	TEST_STRS(j.x.c.hosts, j.x.c.n_hosts, (char *)"1.2.3.4 name alias");
	j.x.c.dns_config = &dns;
	TEST_STRS(dns.nameservers, dns.n_nameservers, (char *)"5.6.7.8");
	TEST_PTRS(j.x.c.sysctls, j.x.c.n_sysctls, Pb__StringPair,
		test_pair("net.ipv4.ip_unprivileged_port_start", "42"));
	TEST_STRS(j.x.c.capability_drop, j.x.c.n_capability_drop, (char *)"ALL");
	j.x.c.oom_score_adj = 500;
	j.x.c.privileges = &(Pb__Privileges)PB__PRIVILEGES__INIT;
	j.x.c.privileges->no_new_privileges = true;
	RUNS_WELL(&j);
}

static void mount(Pb__Mount *m, Pb__Mount__Type type, const char *source, const char *target)
{
	pb__mount__init(m);
	m->type = type;
	m->source = (char *)source;
	m->target = (char *)target;
}

static void test_mounts(void **state)
{
	Pb__Mount bind, create, tmpfs, plain, volume, driver;
	Pb__Mount__TmpfsOptions t = PB__MOUNT__TMPFS_OPTIONS__INIT;
	Pb__Mount__BindOptions b = PB__MOUNT__BIND_OPTIONS__INIT;
	Pb__Mount__VolumeOptions v = PB__MOUNT__VOLUME_OPTIONS__INIT;
	Pb__Driver d = PB__DRIVER__INIT;
	sw_auto_free char *made = xasprintf("/tmp/%s-made", run_id);
	sw_auto_free char *name = xasprintf("%s-vol", run_id);
	struct job j;

	(void)state;
	job_init(&j, "touch /b/x 2>/dev/null && exit 10; [ -d /c ] || exit 11;"
		     "cp /bin/busybox /t/busybox && /t/busybox true || exit 12;"
		     "[ \"$(stat -c %a /t)\" = 1770 ] || exit 13;"
		     "mount | grep ' /t ' | grep -q size=2048k || exit 14;"
		     "mount | grep ' /p ' | grep -q noexec || exit 15; touch /v/x /d/x || exit 16;"
		     "mount | grep -q ' /d type tmpfs' || exit 17");
	mount(&bind, PB__MOUNT__TYPE__BIND, "/etc", "/b");
	bind.readonly = true;
	mount(&create, PB__MOUNT__TYPE__BIND, made, "/c");
	create.bind_options = &b;
	b.createmountpoint = true;
	mount(&tmpfs, PB__MOUNT__TYPE__TMPFS, "", "/t");
	tmpfs.tmpfs_options = &t;
	t.size_bytes = 2 << 20;
	t.mode = 01770;
	t.options = (char *)"[[\"exec\"]]";
	mount(&plain, PB__MOUNT__TYPE__TMPFS, "", "/p");
	mount(&volume, PB__MOUNT__TYPE__VOLUME, "", "/v");
	mount(&driver, PB__MOUNT__TYPE__VOLUME, name, "/d");
	driver.volume_options = &v;
	v.driver_config = &d;
	d.name = (char *)"local";
	TEST_PTRS(d.options, d.n_options, Pb__StringPair, test_pair("type", "tmpfs"),
		test_pair("device", "tmpfs"));
	TEST_PTRS(j.x.c.mounts, j.x.c.n_mounts, Pb__Mount, &bind, &create, &tmpfs, &plain, &volume,
		&driver);
	RUNS_WELL(&j);
	assert_int_equal(rmdir(made), 0); /* the engine made it */

	job_init(&j, "true");
	mount(&bind, PB__MOUNT__TYPE__BIND, "/no/such", "/b");
	TEST_PTRS(j.x.c.mounts, j.x.c.n_mounts, Pb__Mount, &bind);
	job_open(&j);
	RUN(&j, prepare);
	assert_int_equal(j.err.cls, SW_REJECTED);
	assert_string_equal(j.err.msg, "invalid mount config for type \"bind\": bind source path "
				       "does not exist: /no/such");
	finish(&j);
}

static void limits(struct job *j, int64_t memory, int64_t cpus)
{
	j->x.spec.resources = &j->x.res;
	j->x.res.limits = &j->x.limits;
	j->x.limits.memory_bytes = memory;
	j->x.limits.nano_cpus = cpus;
}

static void test_resources(void **state)
{
	Pb__Int64Value swap = PB__INT64_VALUE__INIT;
	struct json_object *o;
	struct job j;

	(void)state;
	job_init(&j, "sleep 600");
	limits(&j, 20 << 20, 500000000);
	j.x.res.swap_bytes = &swap;
	swap.value = 1 << 20;
	j.x.c.pidslimit = 50;
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	o = inspect(j.container);
	EXPECT(o, "/HostConfig/Memory", "20971520");
	EXPECT(o, "/HostConfig/MemorySwap", "22020096");
	EXPECT(o, "/HostConfig/NanoCpus", "500000000");
	EXPECT(o, "/HostConfig/PidsLimit", "50");
	EXPECT(o, "/HostConfig/RestartPolicy/MaximumRetryCount", "0");
	EXPECT(o, "/Config/StopTimeout", "1");
	json_object_put(o);
	OK(&j, terminate);
	finish(&j);

	job_init(&j, "true");
	limits(&j, 4 << 20, 0);
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "inimum memory limit allowed is 6MB");
	finish(&j);

	job_init(&j, "true");
	limits(&j, 0, 64000000000);
	job_open(&j);
	RUN(&j, prepare);
	FAILED(&j, SW_REJECTED, "ange of CPUs is from 0.01");
	finish(&j);

	job_init(&j, "exec busybox tail /dev/zero"); /* one endless line */
	limits(&j, 16 << 20, 0);
	swap.value = 0;
	j.x.res.swap_bytes = &swap;
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	RUN(&j, wait);
	FAILED(&j, SW_FATAL, "OOM killed");
	finish(&j);
}

static void test_start_refused(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "");
	TEST_STRS(j.x.c.command, j.x.c.n_command, (char *)"no-such-command");
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "starting container failed: ");
	FAILED(&j, SW_FATAL, "executable file not found");
	assert_true(j.has_exit);
	assert_int_equal(j.exit_code, 127);
	finish(&j);

	job_init(&j, "");
	TEST_STRS(j.x.c.command, j.x.c.n_command, (char *)"/etc/passwd");
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "starting container failed: ");
	assert_int_equal(j.exit_code, 126);
	finish(&j);

	job_init(&j, "true");
	j.x.c.user = (char *)"nobody-here";
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "starting container failed: ");
	assert_int_equal(j.exit_code, 128);
	finish(&j);

	job_init(&j, "true");
	TEST_PTRS(j.x.c.sysctls, j.x.c.n_sysctls, Pb__StringPair, test_pair("kernel.nope", "1"));
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "starting container failed: ");
	finish(&j);
}

static void test_image_missing(void **state)
{
	struct job j;

	(void)state;
	job_init(&j, "true");
	j.x.c.image = (char *)"localhost:1/no/such:1";
	job_open(&j);
	RUN(&j, prepare);
	assert_int_equal(j.err.cls, SW_REJECTED);
	assert_null(strstr(j.err.msg, "No such image"));
	finish(&j);
}

static void health(struct job *j, Pb__HealthConfig *h, Pb__Duration *d, const char *probe)
{
	pb__health_config__init(h);
	pb__duration__init(d);
	d->nanos = 200000000;
	h->interval = d;
	h->retries = 2;
	TEST_STRS(h->test, h->n_test, (char *)"CMD-SHELL", NULL);
	h->test[1] = (char *)probe;
	j->x.c.healthcheck = h;
}

static void test_health(void **state)
{
	Pb__HealthConfig h;
	Pb__Duration d;
	struct job j;

	(void)state;
	job_init(&j, "sleep 0.7; touch /ok; sleep 600");
	health(&j, &h, &d, "test -f /ok");
	h.retries = 50;
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	OK(&j, terminate);
	finish(&j);

	job_init(&j, "trap 'exit 5' TERM; while :; do sleep 0.1; done");
	health(&j, &h, &d, "false");
	test_task_grace(&j.x, 10);
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	FAILED(&j, SW_FATAL, "task: non-zero exit (5): dockerexec: unhealthy container");
	finish(&j);

	/* healthy first, then not; ends well on the signal */
	job_init(&j, "trap 'exit 0' TERM; touch /ok; sleep 1; rm /ok; while :; do sleep 0.1; done");
	health(&j, &h, &d, "test -f /ok");
	test_task_grace(&j.x, 10);
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	RUN(&j, wait);
	assert_int_equal(j.err.cls, SW_FATAL);
	if (!sw_starts_with(j.err.msg, "dockerexec: unhealthy container"))
		fail_msg("%s", j.err.msg);
	assert_true(j.has_exit);
	assert_int_equal(j.exit_code, 0);
	finish(&j);
}

static void test_ports(void **state)
{
	Pb__PortConfig a = PB__PORT_CONFIG__INIT, b = PB__PORT_CONFIG__INIT;
	struct job j, k;

	(void)state;
	job_init(&j, "sleep 600");
	a.publish_mode = b.publish_mode = PB__PORT_CONFIG__PUBLISH_MODE__HOST;
	a.target_port = 80;
	b.target_port = 53;
	b.published_port = 18953;
	b.protocol = PB__PORT_CONFIG__PROTOCOL__UDP;
	j.x.t.endpoint = &j.x.endpoint;
	TEST_PTRS(j.x.endpoint.ports, j.x.endpoint.n_ports, Pb__PortConfig, &a, &b);
	job_open(&j);
	OK(&j, prepare);
	RUN(&j, start);
	if (j.err.cls && strstr(j.err.msg, "iptables")) {
		print_message("no published ports here: %s\n", j.err.msg);
		finish(&j);
		return;
	}
	assert_int_equal(j.err.cls, SW_OK);
	assert_int_equal(j.n_ports, 2);
	for (int i = 0; i < 2; i++) {
		if (j.ports[i].target_port == 53) {
			assert_int_equal(j.ports[i].published_port, 18953);
			assert_int_equal(j.ports[i].protocol, PB__PORT_CONFIG__PROTOCOL__UDP);
		} else {
			assert_int_equal(j.ports[i].target_port, 80);
			assert_true(j.ports[i].published_port > 0);
		}
	}
	job_init(&k, "sleep 600"); /* the same port again */
	k.x.t.endpoint = &k.x.endpoint;
	TEST_PTRS(k.x.endpoint.ports, k.x.endpoint.n_ports, Pb__PortConfig, &b);
	job_open(&k);
	OK(&k, prepare);
	RUN(&k, start);
	FAILED(&k, SW_FATAL, "starting container failed: ");
	assert_int_equal(k.exit_code, 128);
	finish(&k);
	OK(&j, terminate);
	assert_int_equal(j.n_ports, 0);
	finish(&j);
}

static void test_host_network(void **state)
{
	Pb__NetworkAttachment a = PB__NETWORK_ATTACHMENT__INIT;
	Pb__Network n = PB__NETWORK__INIT;
	Pb__NetworkSpec s = PB__NETWORK_SPEC__INIT;
	Pb__Annotations ann = PB__ANNOTATIONS__INIT;
	struct json_object *o;
	struct job j;

	(void)state;
	job_init(&j, "sleep 600");
	a.network = &n;
	n.spec = &s;
	s.annotations = &ann;
	ann.name = (char *)"host";
	TEST_PTRS(ann.labels, ann.n_labels, Pb__StringPair,
		test_pair("com.docker.swarm.predefined", "true"));
	TEST_PTRS(j.x.t.networks, j.x.t.n_networks, Pb__NetworkAttachment, &a);
	job_open(&j);
	OK(&j, prepare);
	OK(&j, start);
	o = inspect(j.container);
	EXPECT(o, "/HostConfig/NetworkMode", "\"host\"");
	json_object_put(o);
	OK(&j, terminate);
	finish(&j);
}

/* The agent dies and comes back: the same container, its true end. */
static void test_adoption(void **state)
{
	char id[80];
	struct job j;

	(void)state;
	job_init(&j, "sleep 600");
	job_open(&j);
	OK(&j, prepare);
	strcpy(id, j.container);
	job_close(&j);
	close_executor();
	open_executor();
	job_open(&j);
	OK(&j, prepare);
	assert_true(j.already);
	OK(&j, start);
	job_close(&j);
	close_executor();
	open_executor();
	job_open(&j);
	OK(&j, start);
	assert_true(j.already);
	assert_string_equal(j.container, id);
	BEGIN(&j, wait);
	for (int i = 0; i < 20; i++)
		sw_loop_once(loop, false);
	assert_false(j.done);
	j.c->ops->cancel(j.c);
	AWAIT(loop, j.done);
	OK(&j, terminate);
	job_close(&j);
	close_executor();
	open_executor();
	job_open(&j);
	RUN(&j, wait);
	FAILED(&j, SW_FATAL, "task: non-zero exit (137)");
	assert_string_equal(j.container, id);
	finish(&j);
}

/* ---- many at once, and nothing left behind */

static void on_list(void *arg, const struct executor_found *f, size_t n, const struct sw_err *err)
{
	(void)f;
	assert_null(err);
	*(int *)arg = (int)n;
}

static void test_many(void **state)
{
	enum { N = 20 };
	static struct job j[N];
	int left = -1;

	(void)state;
	for (int i = 0; i < N; i++) {
		job_init(&j[i], i % 2 ? "exit 4" : "exit 0");
		job_open(&j[i]);
		BEGIN(&j[i], prepare);
	}
#define ALL(op)                                                                                    \
	for (int i = 0; i < N; i++) {                                                              \
		AWAIT_LONG(j[i].done);                                                             \
		if (j[i].err.cls)                                                                  \
			fail_msg("%s", j[i].err.msg);                                              \
		BEGIN(&j[i], op);                                                                  \
	}
	ALL(start)
	ALL(wait)
	for (int i = 0; i < N; i++) {
		AWAIT_LONG(j[i].done);
		assert_true(j[i].has_exit);
		assert_int_equal(j[i].exit_code, i % 2 ? 4 : 0);
		BEGIN(&j[i], remove);
	}
	for (int i = 0; i < N; i++) {
		AWAIT_LONG(j[i].done);
		assert_int_equal(j[i].err.cls, SW_OK);
		job_close(&j[i]);
	}
	executor->ops->list(executor, on_list, &left);
	AWAIT(loop, left >= 0);
	assert_int_equal(left, 0); /* of all tests before, too */
}

/* ---- logs */

struct logged {
	char text[1024];
	bool ended;
	struct sw_err err;
};

static bool on_msg(void *arg, Pb__LogMessage *m)
{
	struct logged *x = arg;
	size_t len = strlen(x->text);

	snprintf(x->text + len, sizeof(x->text) - len, "%d:%.*s", (int)m->stream, (int)m->data.len,
		(const char *)m->data.data);
	return true;
}

static void on_logs_end(void *arg, const struct sw_err *err)
{
	struct logged *x = arg;

	x->ended = true;
	sw_err_copy(&x->err, err);
}

static void test_logs(void **state)
{
	Pb__LogSubscriptionOptions o = PB__LOG_SUBSCRIPTION_OPTIONS__INIT;
	struct logged x = {0};
	struct job j;

	(void)state;
	job_init(&j, "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three");
	job_open(&j);
	OK(&j, prepare);
	o.follow = true;
	j.c->ops->logs(j.c, &o, on_msg, on_logs_end, &x);
	OK(&j, start);
	AWAIT(loop, x.ended);
	assert_int_equal(x.err.cls, SW_OK);
	assert_string_equal(x.text, "1:one\n2:two\n1:three\n");
	memset(&x, 0, sizeof(x));
	o.follow = false;
	o.tail = -2;
	j.c->ops->logs(j.c, &o, on_msg, on_logs_end, &x);
	AWAIT(loop, x.ended);
	assert_string_equal(x.text, "1:three\n");
	finish(&j);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_describe),
		T(test_exits),
		T(test_shutdown),
		T(test_killed_from_outside),
		T(test_removed_from_outside),
		T(test_inside),
		T(test_mounts),
		T(test_resources),
		T(test_start_refused),
		T(test_image_missing),
		T(test_health),
		T(test_ports),
		T(test_host_network),
		T(test_adoption),
		T(test_logs),
		T(test_many),
	};

	host = getenv("SWARM_TEST_ENGINE");
	image = getenv("SWARM_TEST_IMAGE");
	if (!host || !image) {
		printf("skipped: SWARM_TEST_ENGINE and SWARM_TEST_IMAGE name no engine and "
		       "image\n");
		return 77;
	}
	snprintf(run_id, sizeof(run_id), "real%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
