/* What labels ask for and what the operator allows: every form, every refusal. */
#include "test.h"

#include "executor/extras.h"
#include "executor/generic.h"
#include "executor/ingress.h"
#include "executor/policy.h"
#include "tasks.h"
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/executor.h>

#define WORDS(...)                                                                                 \
	((struct docker_words){                                                                    \
		(char *[]){__VA_ARGS__}, sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)})

static struct test_task x;
static struct spec_env env;
static struct policy *policy;

static int setup(void **state)
{
	(void)state;
	memset(&x, 0, sizeof(x));
	test_task_init(&x, "task1");
	env = (struct spec_env){.cluster_id = "cluster1", .api = 41};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	policy_free(policy);
	policy = NULL;
	return 0;
}

static void allow(const struct docker_policy *cfg)
{
	struct sw_err err = SW_ERR_NONE;

	policy_free(policy);
	policy = NULL;
	if (policy_new(&policy, cfg, &err) < 0)
		fail_msg("%s", err.msg);
	env.policy = policy;
}

static void label(const char *name, const char *value)
{
	sw_auto_free char *key = xasprintf("io.swarm-agentd.%s", name);

	TEST_PTRS(x.c.labels, x.c.n_labels, Pb__StringPair,
		test_pair(xmemdup_keep(key, strlen(key) + 1), value));
}

/* HostConfig's field @key for the label; @json NULL: it is not there. */
static void gives_at(
	const char *name, const char *value, const char *key, const char *json, int line)
{
	struct sw_err err = SW_ERR_NONE;
	struct json_object *body, *host, *o = NULL, *want = json ? json_tokener_parse(json) : NULL;
	struct json_object *labels, *kept;
	sw_auto_free char *full = xasprintf("io.swarm-agentd.%s", name);

	label(name, value);
	if (spec_body(&x.t, "web.1.task1", &env, &body, &err) < 0)
		fail_msg("line %d: %s", line, err.msg);
	assert_true(json_object_object_get_ex(body, "HostConfig", &host));
	json_object_object_get_ex(host, key, &o);
	if (!json_object_equal(o, want))
		fail_msg("line %d: %s is %s", line, key, json_object_to_json_string(o));
	assert_true(json_object_object_get_ex(body, "Labels", &labels));
	assert_true(json_object_object_get_ex(labels, full, &kept));
	assert_string_equal(json_object_get_string(kept), value);
	json_object_put(want);
	json_object_put(body);
}
#define gives(name, value, key, json) gives_at(name, value, key, json, __LINE__)

/* All of @...: parts that the message must have. */
static void refused_at(const char *name, const char *value, const char *part, int line)
{
	struct sw_err err = SW_ERR_NONE;
	struct json_object *body;
	sw_auto_free char *full = xasprintf("label \"io.swarm-agentd.%s=%s\"", name, value);

	label(name, value);
	if (extras_check(&x.t, &env, &err) >= 0)
		fail_msg("line %d: %s=%s is accepted", line, name, value);
	assert_int_equal(err.cls, SW_REJECTED);
	if (!sw_starts_with(err.msg, full) || !strstr(err.msg, part))
		fail_msg("line %d: %s", line, err.msg);
	assert_true(spec_body(&x.t, "web.1.task1", &env, &body, &err) < 0);
}
#define refused(name, value, part) refused_at(name, value, part, __LINE__)
#define NOT_UNDERSTOOD             "is not understood; use"

static void test_nothing_is_allowed_by_default(void **state)
{
	const struct docker_policy none = {0}, no = {.devices = WORDS((char *)"no")};
	const struct docker_policy *const both[] = {&none, &no};

	(void)state;
	for (int i = -1; i < 2; i++) {
		if (i >= 0)
			allow(both[i]);
		refused("devices", "/dev/fuse",
			"device /dev/fuse with rwm is not allowed on this node; its operator can "
			"allow it with \"allow-devices = /dev/fuse\" in the agent's configuration");
		refused("privileged", "true", "\"allow-privileged = yes\"");
		refused("shm-size", "64m", "\"allow-shm-size = 64m\"");
		refused("security-opt", "apparmor=unconfined",
			"\"allow-security-opt = apparmor=unconfined\"");
		refused("gpus", "all", "\"allow-gpus = all\"");
		refused("gpus", "2", "\"allow-gpus = all\"");
		refused("gpus", "device=GPU-1", "\"allow-gpus = GPU-1\"");
		refused("device-cgroup-rules", "c 1:3 r",
			"\"allow-device-cgroup-rules = c 1:3 r\"");
		refused("ipc", "host", "\"allow-ipc = host\"");
		refused("pid", "host", "\"allow-pid = host\"");
	}
	gives("privileged", "false", "Privileged", NULL);
}

static void test_unknown_labels(void **state)
{
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	label("privilegd", "true");
	assert_int_equal(extras_check(&x.t, &env, &err), -EINVAL);
	assert_string_equal(err.msg,
		"label \"io.swarm-agentd.privilegd\": labels that begin with io.swarm-agentd. are "
		"reserved and this agent knows none of that name");
	label("", "");
	assert_int_equal(extras_check(&x.t, &env, &err), -EINVAL);
	label("cluster", "spoof"); /* ours, and overwritten */
	assert_int_equal(extras_check(&x.t, &env, &err), 0);
	TEST_PTRS(x.c.labels, x.c.n_labels, Pb__StringPair,
		test_pair("io.swarm-agentdx.privileged", "true"), test_pair("privileged", "true"));
	assert_int_equal(extras_check(&x.t, &env, &err), 0);
}

static void test_devices(void **state)
{
	static const char *const bad[] = {"", "fuse", "/dev/fuse,", "/dev/dri/../mem", "/dev//mem",
		"/dev/./mem", "/dev/fuse/", "/dev/fuse:x:rwm", "/dev/fuse:/dev/x:rwx",
		"/dev/fuse:/dev/x:rr", "/dev/fuse:/dev/x:rwm:y", "/dev/fuse:rwmr", "/"};

	(void)state;
	allow(&(struct docker_policy){
		.devices = WORDS((char *)"/dev/fuse", (char *)"/dev/dri/*", (char *)"/dev/sda:r")});
	gives("devices", "/dev/fuse", "Devices",
		"[{\"PathOnHost\":\"/dev/fuse\",\"PathInContainer\":\"/dev/fuse\","
		"\"CgroupPermissions\":\"rwm\"}]");
	gives("devices", "/dev/fuse:/dev/f:rw, /dev/dri/card0:r,/dev/sda:/dev/xvda:r", "Devices",
		"[{\"PathOnHost\":\"/dev/fuse\",\"PathInContainer\":\"/dev/f\","
		"\"CgroupPermissions\":\"rw\"},"
		"{\"PathOnHost\":\"/dev/dri/card0\",\"PathInContainer\":\"/dev/dri/card0\","
		"\"CgroupPermissions\":\"r\"},"
		"{\"PathOnHost\":\"/dev/sda\",\"PathInContainer\":\"/dev/xvda\","
		"\"CgroupPermissions\":\"r\"}]");
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++)
		refused("devices", bad[i], NOT_UNDERSTOOD);
	refused("devices", "/dev/fuse,/dev/mem", "device /dev/mem with rwm");
	refused("devices", "/dev/dri/by-path/card0", "allow-devices");
	refused("devices", "/dev/sda", "device /dev/sda with rwm");
	refused("devices", "/dev/sda:rw", "\"allow-devices = /dev/sda:rw\"");
}

static void test_cgroup_rules(void **state)
{
	static const char *const bad[] = {"", "c 1:3", "d 1:3 r", "c 1:3 rx", "c  1:3 r", "c 1 r",
		"c 12345678901:3 r", "c 1:3 r\n", "c :3 r", "c 1*:3 r"};

	(void)state;
	allow(&(struct docker_policy){
		.cgroup_rules = WORDS((char *)"c 189:* rw", (char *)"a 1:3 rwm")});
	gives("device-cgroup-rules", "c 189:7 wr,c 189:* r, b 1:3 m", "DeviceCgroupRules",
		"[\"c 189:7 wr\",\"c 189:* r\",\"b 1:3 m\"]");
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++)
		refused("device-cgroup-rules", bad[i], NOT_UNDERSTOOD);
	refused("device-cgroup-rules", "c 189:7 rwm", "allow-device-cgroup-rules");
	refused("device-cgroup-rules", "b 189:7 r", "allow-device-cgroup-rules");
	refused("device-cgroup-rules", "c *:* r", "allow-device-cgroup-rules");
	refused("device-cgroup-rules", "c 1:* r", "allow-device-cgroup-rules");
}

static void test_flags_and_sizes(void **state)
{
	static const char *const bad[] = {"", "0", "m", "12q", "1mm", "-1", "9223372036854775807k",
		"99999999999999999999", "1 m"};

	(void)state;
	allow(&(struct docker_policy){.privileged = true,
		.max_shm_size = 64 << 20,
		.ipc = WORDS((char *)"host"),
		.pid = WORDS((char *)"host")});
	gives("privileged", "true", "Privileged", "true");
	refused("privileged", "yes", NOT_UNDERSTOOD);
	gives("shm-size", "64m", "ShmSize", "67108864");
	gives("shm-size", "65536K", "ShmSize", "67108864");
	gives("shm-size", "1", "ShmSize", "1");
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++)
		refused("shm-size", bad[i], NOT_UNDERSTOOD);
	refused("shm-size", "67108865", "more than 67108864 bytes");
	refused("shm-size", "1g", "\"allow-shm-size = 1g\"");
	gives("ipc", "host", "IpcMode", "\"host\"");
	refused("ipc", "shareable", "\"allow-ipc = shareable\"");
	refused("ipc", "container:x", NOT_UNDERSTOOD);
	gives("pid", "host", "PidMode", "\"host\"");
	refused("pid", "container:x", NOT_UNDERSTOOD);
}

static void test_security_opt(void **state)
{
	Pb__Privileges p = PB__PRIVILEGES__INIT;

	(void)state;
	allow(&(struct docker_policy){
		.security_opts = WORDS((char *)"apparmor=*", (char *)"systempaths=unconfined",
			(char *)"label=disable")});
	gives("security-opt", "apparmor=unconfined, label=disable", "SecurityOpt",
		"[\"apparmor=unconfined\",\"label=disable\"]");
	gives("security-opt", "systempaths=unconfined", "MaskedPaths", "[]");
	gives("security-opt", "systempaths=unconfined", "ReadonlyPaths", "[]");
	gives("security-opt", "systempaths=unconfined", "SecurityOpt", NULL);
	refused("security-opt", "seccomp=unconfined", "allow-security-opt");
	refused("security-opt", "label:disable", "allow-security-opt");
	refused("security-opt", "", NOT_UNDERSTOOD);
	p.no_new_privileges = 1;
	x.c.privileges = &p;
	gives("security-opt", "apparmor=x", "SecurityOpt",
		"[\"no-new-privileges=true\",\"apparmor=x\"]");
}

static void assign(void)
{
	static Pb__NamedGenericResource named[2];
	static Pb__GenericResource g[2];

	for (int i = 0; i < 2; i++) {
		pb__named_generic_resource__init(&named[i]);
		pb__generic_resource__init(&g[i]);
		named[i].kind = (char *)"gpu";
		named[i].value = (char *)(i ? "GPU-2" : "GPU-1");
		g[i].resource_case = PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC;
		g[i].named_resource_spec = &named[i];
	}
	TEST_PTRS(x.t.assigned_generic_resources, x.t.n_assigned_generic_resources,
		Pb__GenericResource, &g[0], &g[1]);
}

static void test_gpus(void **state)
{
	static const char *const bad[] = {"", "0", "some", "device=", "device=a b", "device=a,,b",
		"assigned=", "99999", "-1"};

	(void)state;
	allow(&(struct docker_policy){.gpus = WORDS((char *)"all")});
	gives("gpus", "all", "DeviceRequests", "[{\"Count\":-1,\"Capabilities\":[[\"gpu\"]]}]");
	gives("gpus", "2", "DeviceRequests", "[{\"Count\":2,\"Capabilities\":[[\"gpu\"]]}]");
	gives("gpus", "device=GPU-1,0", "DeviceRequests",
		"[{\"DeviceIDs\":[\"GPU-1\",\"0\"],\"Capabilities\":[[\"gpu\"]]}]");
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++)
		refused("gpus", bad[i], NOT_UNDERSTOOD);
	refused("gpus", "assigned", "assigned no named resource \"gpu\" to this task");

	assign();
	allow(&(struct docker_policy){.gpus = WORDS((char *)"assigned")});
	gives("gpus", "assigned", "DeviceRequests",
		"[{\"DeviceIDs\":[\"GPU-1\",\"GPU-2\"],\"Capabilities\":[[\"gpu\"]]}]");
	gives("gpus", "assigned=gpu", "DeviceRequests",
		"[{\"DeviceIDs\":[\"GPU-1\",\"GPU-2\"],\"Capabilities\":[[\"gpu\"]]}]");
	refused("gpus", "assigned=tpu", "reserve some with --generic-resource tpu=1");
	refused("gpus", "all", "\"allow-gpus = all\"");
	refused("gpus", "device=GPU-1", "\"allow-gpus = GPU-1\"");

	allow(&(struct docker_policy){.gpus = WORDS((char *)"GPU-1*")});
	gives("gpus", "device=GPU-1", "DeviceRequests",
		"[{\"DeviceIDs\":[\"GPU-1\"],\"Capabilities\":[[\"gpu\"]]}]");
	refused("gpus", "assigned", "GPU GPU-2 is not allowed");
	refused("gpus", "device=GPU-1,GPU-2", "GPU GPU-2");
	env.podman = true;
	refused("gpus", "device=GPU-1", "podman");
}

static void test_policies_that_are_wrong(void **state)
{
	const struct {
		struct docker_policy p;
		const char *text;
	} bad[] = {
		{{.devices = WORDS((char *)"fuse")}, "allow-devices: \"fuse\" is not possible"},
		{{.devices = WORDS((char *)"/dev/fuse:q")}, "allow-devices: \"/dev/fuse:q\""},
		{{.devices = WORDS((char *)"no", (char *)"/dev/fuse")}, "allow-devices: \"no\""},
		{{.cgroup_rules = WORDS((char *)"c 1:3")}, "allow-device-cgroup-rules: \"c 1:3\""},
		{{.security_opts = WORDS((char *)"")}, "allow-security-opt: \"\""},
		{{.gpus = WORDS((char *)"all", (char *)"no")}, "allow-gpus: \"no\""},
		{{.ipc = WORDS((char *)"hostt")}, "allow-ipc: \"hostt\""},
		{{.pid = WORDS((char *)"private")}, "allow-pid: \"private\""},
	};
	struct policy *p = NULL;

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		struct sw_err err = SW_ERR_NONE;

		assert_int_equal(policy_new(&p, &bad[i].p, &err), -EINVAL);
		assert_int_equal(err.cls, SW_REJECTED);
		if (!strstr(err.msg, bad[i].text))
			fail_msg("%s", err.msg);
	}
	assert_null(p);
}

/* ---- generic resources */

static void test_generic_resources(void **state)
{
	const struct {
		struct docker_words w;
		const char *text;
	} bad[] = {
		{WORDS((char *)"gpu"), "generic-resources: \"gpu\" is not possible"},
		{WORDS((char *)"gpu="), "\"gpu=\" is not possible"},
		{WORDS((char *)"=1"), "\"=1\" is not possible"},
		{WORDS((char *)"a=b=c"), "\"a=b=c\" is not possible"},
		{WORDS((char *)"a=b c"), "\"a=b c\" is not possible"},
		{WORDS((char *)"ssd=5", (char *)"ssd=a"), "\"ssd\" is a number and something else"},
		{WORDS((char *)"ssd=5", (char *)"ssd=5"), "\"ssd\" is a number and something else"},
		{WORDS((char *)"gpu=a", (char *)"gpu=a"), "\"gpu=a\" is there twice"},
	};
	struct docker_words good = WORDS((char *)"gpu=UUID1", (char *)"gpu=UUID2", (char *)"ssd=5",
		(char *)"big=99999999999999999999");
	struct sw_err err = SW_ERR_NONE;
	Pb__Resources *r = NULL;

	(void)state;
	assert_int_equal(generic_parse(&r, &good, &err), 0);
	assert_int_equal(r->n_generic, 4);
	assert_string_equal(r->generic[0]->named_resource_spec->kind, "gpu");
	assert_string_equal(r->generic[1]->named_resource_spec->value, "UUID2");
	assert_string_equal(r->generic[2]->discrete_resource_spec->kind, "ssd");
	assert_int_equal(r->generic[2]->discrete_resource_spec->value, 5);
	assert_string_equal(r->generic[3]->named_resource_spec->kind, "big");
	api_free(r);
	r = NULL;
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		assert_int_equal(generic_parse(&r, &bad[i].w, &err), -EINVAL);
		if (!strstr(err.msg, bad[i].text))
			fail_msg("%s", err.msg);
	}
	assert_null(r);
}

/* ---- ingress */

struct net {
	Pb__NetworkAttachment a;
	Pb__Network n;
	Pb__NetworkSpec s;
	Pb__Annotations ann;
};

static Pb__NetworkAttachment *net_init(struct net *n, const char *name, const char *driver)
{
	static Pb__Driver drivers[8];
	static size_t used;
	Pb__Driver *d = &drivers[used++ % 8];

	memset(n, 0, sizeof(*n));
	pb__network_attachment__init(&n->a);
	pb__network__init(&n->n);
	pb__network_spec__init(&n->s);
	pb__annotations__init(&n->ann);
	pb__driver__init(d);
	d->name = (char *)driver;
	n->ann.name = (char *)name;
	n->s.annotations = &n->ann;
	n->s.driver_config = d;
	n->n.spec = &n->s;
	n->a.network = &n->n;
	return &n->a;
}

static void publish(Pb__PortConfig *p, uint32_t target, uint32_t published)
{
	pb__port_config__init(p);
	p->target_port = target;
	p->published_port = published;
	p->publish_mode = PB__PORT_CONFIG__PUBLISH_MODE__INGRESS;
	TEST_PTRS(x.endpoint.ports, x.endpoint.n_ports, Pb__PortConfig, p);
	x.t.endpoint = &x.endpoint;
}

static void test_ingress(void **state)
{
	struct sw_err err = SW_ERR_NONE;
	struct api_task *t, *here = NULL;
	struct net ingress, other;
	struct json_object *body, *host, *o;
	Pb__PortConfig port;

	(void)state;
	net_init(&ingress, "my-ingress", "overlay");
	assert_false(ingress_is_network(&ingress.a));
	ingress.s.ingress = 1;
	assert_true(ingress_is_network(&ingress.a));
	publish(&port, 80, 18080);
	TEST_PTRS(x.t.networks, x.t.n_networks, Pb__NetworkAttachment, &ingress.a);

	t = test_task_make(&x);
	assert_int_equal(ingress_task(t, DOCKER_INGRESS_REJECT, &here, &err), 0);
	assert_ptr_equal(here, t);
	assert_true(spec_check(here->pb, &env, &err) < 0);
	assert_non_null(strstr(err.msg, "port 18080 in ingress mode"));
	api_task_unref(here);

	assert_int_equal(ingress_task(t, DOCKER_INGRESS_HOST_PORT, &here, &err), 0);
	assert_ptr_not_equal(here, t);
	if (spec_body(here->pb, "web.1.task1", &env, &body, &err) < 0)
		fail_msg("%s", err.msg);
	json_object_object_get_ex(body, "HostConfig", &host);
	json_object_object_get_ex(host, "NetworkMode", &o);
	assert_string_equal(json_object_get_string(o), "default");
	json_object_object_get_ex(host, "PortBindings", &o);
	assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
		"{\"80\\/tcp\":[{\"HostPort\":\"18080\"}]}");
	json_object_put(body);
	api_task_unref(here);
	api_task_unref(t);

	/* another overlay next to it stays refused, by its name */
	TEST_PTRS(x.t.networks, x.t.n_networks, Pb__NetworkAttachment, &ingress.a,
		net_init(&other, "backend", "overlay"));
	t = test_task_make(&x);
	assert_int_equal(ingress_task(t, DOCKER_INGRESS_HOST_PORT, &here, &err), 0);
	assert_int_equal(here->pb->n_networks, 1);
	assert_true(spec_check(here->pb, &env, &err) < 0);
	assert_non_null(strstr(err.msg, "network \"backend\" (driver overlay)"));
	api_task_unref(here);
	api_task_unref(t);
}

static void test_ingress_by_name_and_refusals(void **state)
{
	struct sw_err err = SW_ERR_NONE;
	struct api_task *t, *here = NULL;
	struct net ingress, host;
	Pb__PortConfig port;

	(void)state;
	net_init(&ingress, "ingress", "overlay");
	assert_false(ingress_is_network(&ingress.a)); /* anybody's network of that name */
	TEST_PTRS(ingress.ann.labels, ingress.ann.n_labels, Pb__StringPair,
		test_pair("com.docker.swarm.internal", "true"));
	assert_true(ingress_is_network(&ingress.a));
	ingress.n.spec = NULL;
	assert_false(ingress_is_network(&ingress.a));
	ingress.n.spec = &ingress.s;

	publish(&port, 80, 18080);
	TEST_PTRS(x.t.networks, x.t.n_networks, Pb__NetworkAttachment, &ingress.a,
		net_init(&host, "host", "host"));
	t = test_task_make(&x);
	assert_int_equal(ingress_task(t, DOCKER_INGRESS_HOST_PORT, &here, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "port 18080 in ingress mode and is attached to network"));
	api_task_unref(t);

	publish(&port, 80, 0);
	t = test_task_make(&x);
	assert_int_equal(ingress_task(t, DOCKER_INGRESS_HOST_PORT, &here, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "target port 80"));
	api_task_unref(t);
	assert_null(here);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_nothing_is_allowed_by_default),
		T(test_unknown_labels),
		T(test_devices),
		T(test_cgroup_rules),
		T(test_flags_and_sizes),
		T(test_security_opt),
		T(test_gpus),
		T(test_policies_that_are_wrong),
		T(test_generic_resources),
		T(test_ingress),
		T(test_ingress_by_name_and_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
