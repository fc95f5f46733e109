/* Every field of a task in the create body, and every refusal's text. */
#include "test.h"

#include "executor/ref.h"
#include "executor/spec.h"
#include "tasks.h"
#include <errno.h>
#include <json-c/json.h>
#include <json-c/json_pointer.h>
#include <string.h>
#include <swarm/err.h>

static struct test_task x;
static struct spec_env env;
static struct json_object *body;

static int setup(void **state)
{
	(void)state;
	memset(&x, 0, sizeof(x));
	test_task_init(&x, "task1");
	env = (struct spec_env){.cluster_id = "cluster1", .api = 41};
	body = NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	json_object_put(body);
	body = NULL;
	return 0;
}

static void make(void)
{
	struct sw_err err = SW_ERR_NONE;
	sw_auto_free char *name = api_task_name(&x.t);

	json_object_put(body);
	body = NULL;
	if (spec_body(&x.t, name, &env, &body, &err) < 0)
		fail_msg("refused: %s", err.msg);
}

/* @json NULL: the field is not there. */
static void expect_at(const char *path, const char *json, int line)
{
	struct json_object *o = NULL, *want;
	bool found = json_pointer_get(body, path, &o) == 0;

	if (!json) {
		if (found)
			fail_msg("line %d: %s is %s, want nothing", line, path,
				json_object_to_json_string(o));
		return;
	}
	if (!found)
		fail_msg("line %d: %s is missing in %s", line, path,
			json_object_to_json_string(body));
	want = json_tokener_parse(json);
	if (!json_object_equal(o, want))
		fail_msg("line %d: %s is %s, want %s", line, path, json_object_to_json_string(o),
			json);
	json_object_put(want);
}
#define expect(path, json) expect_at(path, json, __LINE__)
#define absent(path)       expect_at(path, NULL, __LINE__)

static void refused_at(const char *text, int line)
{
	struct sw_err err = SW_ERR_NONE;

	if (spec_check(&x.t, &env, &err) == 0)
		fail_msg("line %d: accepted, want \"%s\"", line, text);
	assert_int_equal(err.cls, SW_REJECTED);
	if (strcmp(err.msg, text) != 0)
		fail_msg("line %d: \"%s\", want \"%s\"", line, err.msg, text);
}
#define refused(text) refused_at(text, __LINE__)

static void accepted(void)
{
	struct sw_err err = SW_ERR_NONE;

	if (spec_check(&x.t, &env, &err) < 0)
		fail_msg("refused: %s", err.msg);
}

/* ---- names, labels, plain fields */

static void test_minimal(void **state)
{
	(void)state;
	make();
	expect("",
		"{\"Image\":\"bb:1\",\"Tty\":false,\"OpenStdin\":false,"
		"\"Labels\":{\"com.docker.swarm.task\":\"\",\"com.docker.swarm.task.id\":\"task1\","
		"\"com.docker.swarm.task.name\":\"web.1.task1\",\"com.docker.swarm.node.id\":"
		"\"node1\","
		"\"com.docker.swarm.service.id\":\"service1\",\"com.docker.swarm.service.name\":"
		"\"web\","
		"\"io.swarm-agentd.cluster\":\"cluster1\"},"
		"\"HostConfig\":{\"NetworkMode\":\"default\","
		"\"ReadonlyRootfs\":false,\"Isolation\":\"default\"}}");
}

static void test_labels_cannot_be_spoofed(void **state)
{
	(void)state;
	x.t.annotations = &x.annotations;
	TEST_PTRS(x.c.labels, x.c.n_labels, Pb__StringPair,
		test_pair("com.docker.swarm.task.id", "spoof"), test_pair("a", "container"),
		test_pair("b", "container"), test_pair("io.swarm-agentd.cluster", "spoof"));
	TEST_PTRS(x.annotations.labels, x.annotations.n_labels, Pb__StringPair,
		test_pair("com.docker.swarm.node.id", "spoof"), test_pair("b", "task"));
	make();
	expect("/Labels/com.docker.swarm.task.id", "\"task1\"");
	expect("/Labels/com.docker.swarm.node.id", "\"node1\"");
	expect("/Labels/io.swarm-agentd.cluster", "\"cluster1\"");
	expect("/Labels/a", "\"container\"");
	expect("/Labels/b", "\"task\"");
}

static void test_names(void **state)
{
	(void)state;
	x.t.slot = 0;
	make();
	expect("/Labels/com.docker.swarm.task.name", "\"web.node1.task1\"");
	x.t.annotations = &x.annotations;
	x.annotations.name = (char *)"given";
	make();
	expect("/Labels/com.docker.swarm.task.name", "\"given\"");
	x.annotations.name = (char *)"a";
	refused("container name \"a\" is not possible: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are "
		"allowed");
	x.annotations.name = (char *)"a/../b";
	refused("container name \"a/../b\" is not possible: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are "
		"allowed");
	x.annotations.name = (char *)".ab";
	refused("container name \".ab\" is not possible: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are "
		"allowed");
}

static void test_command_and_args(void **state)
{
	(void)state;
	TEST_STRS(x.c.command, x.c.n_command, (char *)"sh", (char *)"-c");
	make();
	expect("/Entrypoint", "[\"sh\",\"-c\"]");
	expect("/Cmd", "[]");
	TEST_STRS(x.c.args, x.c.n_args, (char *)"run", (char *)"it");
	make();
	expect("/Entrypoint", "[\"sh\",\"-c\"]");
	expect("/Cmd", "[\"run\",\"it\"]");
	x.c.n_command = 0;
	make();
	absent("/Entrypoint");
	expect("/Cmd", "[\"run\",\"it\"]");
	x.c.n_args = 0;
	make();
	absent("/Entrypoint");
	absent("/Cmd");
}

static void test_plain_fields(void **state)
{
	Pb__BoolValue init = PB__BOOL_VALUE__INIT;

	(void)state;
	TEST_STRS(x.c.env, x.c.n_env, (char *)"A=1", (char *)"NOVAL", (char *)"E=");
	x.c.hostname = (char *)"h1";
	x.c.user = (char *)"1000:5";
	x.c.dir = (char *)"/work";
	x.c.tty = x.c.open_stdin = x.c.read_only = true;
	x.c.stop_signal = (char *)"SIGINT";
	x.c.init = &init;
	TEST_STRS(x.c.groups, x.c.n_groups, (char *)"audio", (char *)"7");
	TEST_STRS(x.c.capability_add, x.c.n_capability_add, (char *)"CAP_NET_ADMIN");
	TEST_STRS(x.c.capability_drop, x.c.n_capability_drop, (char *)"ALL");
	x.c.oom_score_adj = -500;
	x.c.isolation = PB__CONTAINER_SPEC__ISOLATION__ISOLATION_HYPERV;
	make();
	expect("/Env", "[\"A=1\",\"NOVAL\",\"E=\"]");
	expect("/Hostname", "\"h1\"");
	expect("/User", "\"1000:5\"");
	expect("/WorkingDir", "\"/work\"");
	expect("/Tty", "true");
	expect("/OpenStdin", "true");
	expect("/StopSignal", "\"SIGINT\"");
	expect("/HostConfig/ReadonlyRootfs", "true");
	expect("/HostConfig/Init", "false");
	expect("/HostConfig/GroupAdd", "[\"audio\",\"7\"]");
	expect("/HostConfig/CapAdd", "[\"CAP_NET_ADMIN\"]");
	expect("/HostConfig/CapDrop", "[\"ALL\"]");
	expect("/HostConfig/OomScoreAdj", "-500");
	expect("/HostConfig/Isolation", "\"hyperv\"");
	init.value = 1;
	make();
	expect("/HostConfig/Init", "true");
}

static void test_stop_timeout_is_rounded_up(void **state)
{
	static const struct {
		double s;
		const char *want;
	} cases[] = {{0, "0"}, {0.5, "1"}, {1.5, "2"}, {10, "10"}};

	(void)state;
	make();
	absent("/StopTimeout");
	assert_int_equal(spec_grace_s(&x.t), -1);
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		test_task_grace(&x, cases[i].s);
		make();
		expect("/StopTimeout", cases[i].want);
	}
}

static Pb__GenericResource *named(const char *kind, const char *value)
{
	Pb__NamedGenericResource r = PB__NAMED_GENERIC_RESOURCE__INIT;
	Pb__GenericResource g = PB__GENERIC_RESOURCE__INIT;

	r.kind = (char *)kind;
	r.value = (char *)value;
	g.resource_case = PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC;
	g.named_resource_spec = xmemdup_keep(&r, sizeof(r));
	return xmemdup_keep(&g, sizeof(g));
}

static void test_generic_resources(void **state)
{
	Pb__DiscreteGenericResource ssd = PB__DISCRETE_GENERIC_RESOURCE__INIT;
	Pb__GenericResource discrete = PB__GENERIC_RESOURCE__INIT;

	(void)state;
	ssd.kind = (char *)"ssd";
	ssd.value = 2;
	discrete.resource_case = PB__GENERIC_RESOURCE__RESOURCE_DISCRETE_RESOURCE_SPEC;
	discrete.discrete_resource_spec = &ssd;
	TEST_STRS(x.c.env, x.c.n_env, (char *)"A=1");
	TEST_PTRS(x.t.assigned_generic_resources, x.t.n_assigned_generic_resources,
		Pb__GenericResource, &discrete, named("gpu", "UUID2"), named("gpu", "UUID1"));
	make();
	expect("/Env", "[\"A=1\",\"DOCKER_RESOURCE_GPU=UUID2,UUID1\",\"DOCKER_RESOURCE_SSD=2\"]");
}

static void test_healthcheck(void **state)
{
	Pb__HealthConfig h = PB__HEALTH_CONFIG__INIT;
	Pb__Duration interval = PB__DURATION__INIT, start = PB__DURATION__INIT;

	(void)state;
	interval.seconds = 5;
	start.nanos = 500000000;
	x.c.healthcheck = &h;
	TEST_STRS(h.test, h.n_test, (char *)"CMD", (char *)"true");
	h.interval = &interval;
	h.timeout = &interval;
	h.start_period = &interval;
	h.start_interval = &start;
	h.retries = 3;
	make();
	expect("/Healthcheck", "{\"Test\":[\"CMD\",\"true\"],\"Interval\":5000000000,"
			       "\"Timeout\":5000000000,\"StartPeriod\":5000000000,\"Retries\":3}");
	env.api = 44;
	make();
	expect("/Healthcheck/StartInterval", "500000000");
	pb__health_config__init(&h);
	TEST_STRS(h.test, h.n_test, (char *)"NONE");
	make();
	expect("/Healthcheck", "{\"Test\":[\"NONE\"]}");
}

static void test_dns_hosts_sysctls_log(void **state)
{
	Pb__ContainerSpec__DNSConfig dns = PB__CONTAINER_SPEC__DNSCONFIG__INIT;
	Pb__Driver log = PB__DRIVER__INIT;

	(void)state;
	x.c.dns_config = &dns;
	TEST_STRS(dns.nameservers, dns.n_nameservers, (char *)"1.2.3.4", (char *)"fd00::1");
	TEST_STRS(dns.search, dns.n_search, (char *)"a.b");
	TEST_STRS(dns.options, dns.n_options, (char *)"ndots:1");
	TEST_STRS(x.c.hosts, x.c.n_hosts, (char *)"1.2.3.4 h1 alias1", (char *)"host-gateway  h2",
		(char *)"fd00::1\th3");
	TEST_PTRS(x.c.sysctls, x.c.n_sysctls, Pb__StringPair,
		test_pair("net.core.somaxconn", "100"),
		test_pair("net.ipv4.conf.eth0.log_martians", "1"));
	x.t.log_driver = &log;
	log.name = (char *)"json-file";
	TEST_PTRS(log.options, log.n_options, Pb__StringPair, test_pair("max-size", "1m"));
	make();
	expect("/HostConfig/Dns", "[\"1.2.3.4\",\"fd00::1\"]");
	expect("/HostConfig/DnsSearch", "[\"a.b\"]");
	expect("/HostConfig/DnsOptions", "[\"ndots:1\"]");
	expect("/HostConfig/ExtraHosts",
		"[\"h1:1.2.3.4\",\"alias1:1.2.3.4\",\"h2:host-gateway\",\"h3:fd00::1\"]");
	expect("/HostConfig/Sysctls",
		"{\"net.core.somaxconn\":\"100\",\"net.ipv4.conf.eth0.log_martians\":\"1\"}");
	expect("/HostConfig/LogConfig",
		"{\"Type\":\"json-file\",\"Config\":{\"max-size\":\"1m\"}}");
	absent("/NetworkingConfig");

	env.api = 48; /* such sysctls belong to the endpoint now */
	make();
	expect("/HostConfig/Sysctls", "{\"net.core.somaxconn\":\"100\"}");
	expect("/NetworkingConfig/EndpointsConfig/default/DriverOpts",
		"{\"com.docker.network.endpoint.sysctls\":\"net.ipv4.conf.IFNAME.log_martians="
		"1\"}");
	TEST_PTRS(x.c.sysctls, x.c.n_sysctls, Pb__StringPair,
		test_pair("net.ipv4.conf.eth1.log_martians", "1"));
	refused("sysctl \"net.ipv4.conf.eth1.log_martians\": only eth0 can be named, the order of "
		"other interfaces is not known");
	x.c.n_sysctls = 0;

	TEST_STRS(dns.nameservers, dns.n_nameservers, (char *)"not-an-address");
	refused("dns_config.nameservers: \"not-an-address\" is no IP address");
	dns.n_nameservers = 0;
	TEST_STRS(x.c.hosts, x.c.n_hosts, (char *)"bad");
	refused("hosts: \"bad\" is not of the form \"IP NAME [ALIAS...]\"");
}

static void test_resources(void **state)
{
	Pb__Int64Value swap = PB__INT64_VALUE__INIT, swappiness = PB__INT64_VALUE__INIT;
	Pb__ContainerSpec__Ulimit u = PB__CONTAINER_SPEC__ULIMIT__INIT;
	Pb__Resources reservations = PB__RESOURCES__INIT;

	(void)state;
	x.spec.resources = &x.res;
	x.res.memory_swappiness = &swappiness;
	reservations.memory_bytes = 5;
	x.res.reservations = &reservations;
	make(); /* no limits: nothing at all */
	absent("/HostConfig/Memory");
	absent("/HostConfig/MemorySwappiness");
	absent("/HostConfig/PidsLimit");
	absent("/HostConfig/MemoryReservation");

	x.res.limits = &x.limits;
	x.limits.memory_bytes = 20 << 20;
	x.limits.nano_cpus = 500000000;
	x.c.pidslimit = 50;
	u.name = (char *)"nofile";
	u.soft = 100;
	u.hard = 200;
	TEST_PTRS(x.c.ulimits, x.c.n_ulimits, Pb__ContainerSpec__Ulimit, &u);
	make();
	expect("/HostConfig/Memory", "20971520");
	absent("/HostConfig/MemorySwap");
	expect("/HostConfig/MemorySwappiness", "0");
	expect("/HostConfig/NanoCpus", "500000000");
	expect("/HostConfig/PidsLimit", "50");
	expect("/HostConfig/Ulimits", "[{\"Name\":\"nofile\",\"Soft\":100,\"Hard\":200}]");

	x.res.swap_bytes = &swap;
	make();
	expect("/HostConfig/MemorySwap", "20971520");
	swap.value = 1 << 20;
	swappiness.value = 28;
	make();
	expect("/HostConfig/MemorySwap", "22020096");
	expect("/HostConfig/MemorySwappiness", "28");
	swap.value = -1;
	x.res.memory_swappiness = NULL;
	make();
	expect("/HostConfig/MemorySwap", "-1");
	absent("/HostConfig/MemorySwappiness");
	swap.value = INT64_MAX;
	make();
	expect("/HostConfig/MemorySwap", "9223372036854775807");
	x.limits.memory_bytes = 0;
	make(); /* swap counts only with a memory limit */
	absent("/HostConfig/MemorySwap");
}

static void test_privileges(void **state)
{
	Pb__Privileges p = PB__PRIVILEGES__INIT;
	Pb__Privileges__SELinuxContext se = PB__PRIVILEGES__SELINUX_CONTEXT__INIT;
	Pb__Privileges__SeccompOpts sec = PB__PRIVILEGES__SECCOMP_OPTS__INIT;
	Pb__Privileges__AppArmorOpts aa = PB__PRIVILEGES__APP_ARMOR_OPTS__INIT;
	Pb__Privileges__CredentialSpec cred = PB__PRIVILEGES__CREDENTIAL_SPEC__INIT;

	(void)state;
	x.c.privileges = &p;
	make();
	absent("/HostConfig/SecurityOpt");
	p.selinux_context = &se;
	p.seccomp = &sec;
	p.apparmor = &aa;
	p.no_new_privileges = true;
	se.disable = true;
	se.user = (char *)"U";
	se.role = (char *)"R";
	se.type = (char *)"T";
	se.level = (char *)"L";
	sec.mode = PB__PRIVILEGES__SECCOMP_OPTS__SECCOMP_MODE__CUSTOM;
	sec.profile.data = (uint8_t *)"{\"a\":1}";
	sec.profile.len = 7;
	aa.mode = PB__PRIVILEGES__APP_ARMOR_OPTS__APP_ARMOR_MODE__DISABLED;
	make();
	expect("/HostConfig/SecurityOpt",
		"[\"label=disable\",\"label=user:U\",\"label=role:R\",\"label=level:L\",\"label="
		"type:T\","
		"\"seccomp={\\\"a\\\":1}\",\"apparmor=unconfined\",\"no-new-privileges=true\"]");
	p.selinux_context = NULL;
	p.no_new_privileges = false;
	aa.mode = PB__PRIVILEGES__APP_ARMOR_OPTS__APP_ARMOR_MODE__DEFAULT;
	sec.mode = PB__PRIVILEGES__SECCOMP_OPTS__SECCOMP_MODE__UNCONFINED;
	make();
	expect("/HostConfig/SecurityOpt", "[\"seccomp=unconfined\"]");
	p.credential_spec = &cred;
	refused("credential specs are for Windows nodes");
	p.credential_spec = NULL;
	sec.mode = (Pb__Privileges__SeccompOpts__SeccompMode)9;
	refused("privileges.seccomp: unknown mode 9");
	p.seccomp = NULL;
	aa.mode = (Pb__Privileges__AppArmorOpts__AppArmorMode)9;
	refused("privileges.apparmor: unknown mode 9");
}

/* ---- mounts */

static void one_mount(Pb__Mount *m, Pb__Mount__Type type, const char *source, const char *target)
{
	pb__mount__init(m);
	m->type = type;
	m->source = (char *)source;
	m->target = (char *)target;
	TEST_PTRS(x.c.mounts, x.c.n_mounts, Pb__Mount, m);
}

static void test_bind(void **state)
{
	Pb__Mount m;
	Pb__Mount__BindOptions b = PB__MOUNT__BIND_OPTIONS__INIT;

	(void)state;
	one_mount(&m, PB__MOUNT__TYPE__BIND, "/src", "/dst");
	make();
	expect("/HostConfig/Mounts",
		"[{\"Type\":\"bind\",\"Source\":\"/src\",\"Target\":\"/dst\"}]");
	m.readonly = true;
	m.bind_options = &b;
	make();
	expect("/HostConfig/Mounts/0",
		"{\"Type\":\"bind\",\"Source\":\"/src\",\"Target\":\"/dst\","
		"\"ReadOnly\":true,\"BindOptions\":{\"Propagation\":\"rprivate\"}}");
	b.propagation = PB__MOUNT__BIND_OPTIONS__PROPAGATION__RSLAVE;
	b.nonrecursive = true;
	b.readonlynonrecursive = true;
	make(); /* before 1.44 read-only binds are not recursive anyway */
	expect("/HostConfig/Mounts/0/BindOptions",
		"{\"Propagation\":\"rslave\",\"NonRecursive\":true}");
	b.readonlyforcerecursive = true;
	refused("mount \"/dst\": readonlyforcerecursive needs engine API 1.44, this engine has "
		"1.41");
	env.api = 0; /* not known when the controller is made: said at prepare */
	accepted();
	env.api = 44;
	make();
	expect("/HostConfig/Mounts/0/BindOptions",
		"{\"Propagation\":\"rslave\",\"NonRecursive\":true,\"ReadOnlyNonRecursive\":true,"
		"\"ReadOnlyForceRecursive\":true}");

	b = (Pb__Mount__BindOptions)PB__MOUNT__BIND_OPTIONS__INIT;
	b.createmountpoint = true;
	make();
	expect("/HostConfig/Mounts/0/BindOptions",
		"{\"Propagation\":\"rprivate\",\"CreateMountpoint\":true}");
	env.api = 41;
	make();
	absent("/HostConfig/Mounts");
	expect("/HostConfig/Binds", "[\"/src:/dst:ro,rprivate\"]");
	m.readonly = false;
	b.propagation = PB__MOUNT__BIND_OPTIONS__PROPAGATION__SHARED;
	make();
	expect("/HostConfig/Binds", "[\"/src:/dst:shared\"]");
	m.source = (char *)"/a:b";
	refused("mount \"/dst\": createmountpoint of a path with a colon needs engine API 1.42, "
		"this "
		"engine has 1.41");
	m.source = (char *)"/src";
	b.nonrecursive = true;
	refused("mount \"/dst\": createmountpoint with nonrecursive needs engine API 1.42, this "
		"engine "
		"has 1.41");
	b.propagation = (Pb__Mount__BindOptions__Propagation)17;
	refused("mount \"/dst\": unknown bind propagation 17");
}

static void test_volume(void **state)
{
	Pb__Mount m;
	Pb__Mount__VolumeOptions v = PB__MOUNT__VOLUME_OPTIONS__INIT;
	Pb__Driver d = PB__DRIVER__INIT;
	struct json_object *o, *want;

	(void)state;
	one_mount(&m, PB__MOUNT__TYPE__VOLUME, "data", "/dst");
	make();
	expect("/HostConfig/Mounts",
		"[{\"Type\":\"volume\",\"Source\":\"data\",\"Target\":\"/dst\"}]");
	assert_null(spec_volume_body(&x.t, 0));
	m.volume_options = &v;
	v.nocopy = true;
	TEST_PTRS(v.labels, v.n_labels, Pb__StringPair, test_pair("l", "1"));
	v.driver_config = &d;
	d.name = (char *)"local";
	TEST_PTRS(d.options, d.n_options, Pb__StringPair, test_pair("type", "tmpfs"));
	make();
	expect("/HostConfig/Mounts/0/VolumeOptions",
		"{\"NoCopy\":true,\"Labels\":{\"l\":\"1\"},\"DriverConfig\":{\"Name\":\"local\","
		"\"Options\":{\"type\":\"tmpfs\"}}}");
	o = spec_volume_body(&x.t, 0);
	want = json_tokener_parse(
		"{\"Name\":\"data\",\"Driver\":\"local\",\"DriverOpts\":{\"type\":"
		"\"tmpfs\"},\"Labels\":{\"l\":\"1\"}}");
	assert_true(json_object_equal(o, want));
	json_object_put(o);
	json_object_put(want);
	m.source = (char *)""; /* anonymous: the engine makes it with the container */
	make();
	absent("/HostConfig/Mounts/0/Source");
	assert_null(spec_volume_body(&x.t, 0));
	v.subpath = (char *)"sub";
	refused("mount \"/dst\": volume subpath needs engine API 1.45, this engine has 1.41");
	env.api = 45;
	make();
	expect("/HostConfig/Mounts/0/VolumeOptions/Subpath", "\"sub\"");
}

static void test_tmpfs(void **state)
{
	Pb__Mount m;
	Pb__Mount__TmpfsOptions t = PB__MOUNT__TMPFS_OPTIONS__INIT;

	(void)state;
	one_mount(&m, PB__MOUNT__TYPE__TMPFS, "", "/t");
	make();
	expect("/HostConfig/Mounts", "[{\"Type\":\"tmpfs\",\"Target\":\"/t\"}]");
	m.tmpfs_options = &t;
	t.size_bytes = 1 << 20;
	t.mode = 01770;
	make();
	expect("/HostConfig/Mounts/0/TmpfsOptions", "{\"SizeBytes\":1048576,\"Mode\":1016}");
	t.options = (char *)"[[\"exec\"],[\"uid\",\"5\"]]";
	make(); /* 1.41 would drop the options in silence */
	absent("/HostConfig/Mounts");
	expect("/HostConfig/Tmpfs", "{\"/t\":\"exec,uid=5,size=1048576,mode=1770\"}");
	m.readonly = true;
	make();
	expect("/HostConfig/Tmpfs", "{\"/t\":\"ro,exec,uid=5,size=1048576,mode=1770\"}");
	env.api = 46;
	make();
	absent("/HostConfig/Tmpfs");
	expect("/HostConfig/Mounts/0/TmpfsOptions",
		"{\"SizeBytes\":1048576,\"Mode\":1016,\"Options\":[[\"exec\"],[\"uid\",\"5\"]]}");
	t.options = (char *)"exec,uid=5";
	refused("mount \"/t\": tmpfs options are no list of [\"name\"] or [\"name\",\"value\"]: "
		"exec,uid=5");
	t.options = (char *)"[[\"exec,size=5\"]]";
	refused("mount \"/t\": tmpfs options are no list of [\"name\"] or [\"name\",\"value\"]: "
		"[[\"exec,size=5\"]]");
	t.options = (char *)"[[[[[[[[\"exec\"]]]]]]]]";
	refused("mount \"/t\": tmpfs options are no list of [\"name\"] or [\"name\",\"value\"]: "
		"[[[[[[[[\"exec\"]]]]]]]]");
}

static void test_mount_refusals(void **state)
{
	Pb__Mount m;

	(void)state;
	/* podman would make the folder */
	env.podman = true;
	one_mount(&m, PB__MOUNT__TYPE__BIND, "/no/such/folder", "/dst");
	refused("invalid mount config for type \"bind\": bind source path does not exist: "
		"/no/such/folder");
	env.remote = true; /* another host's folder */
	make();
	env.remote = false;
	one_mount(&m, PB__MOUNT__TYPE__BIND, "/", "/dst");
	make();
	env.podman = false;
	one_mount(&m, PB__MOUNT__TYPE__BIND, "/src", "rel");
	refused("invalid mount target, must be an absolute path: rel");
	one_mount(&m, PB__MOUNT__TYPE__BIND, "rel", "/dst");
	refused("invalid bind mount source, must be an absolute path: rel");
	one_mount(&m, PB__MOUNT__TYPE__VOLUME, "/abs", "/dst");
	refused("invalid volume mount source, must not be an absolute path: /abs");
	one_mount(&m, PB__MOUNT__TYPE__TMPFS, "src", "/dst");
	refused("invalid tmpfs source, source must be empty");
	one_mount(&m, PB__MOUNT__TYPE__NPIPE, "", "/dst");
	refused("invalid npipe source, source must not be empty");
	one_mount(&m, PB__MOUNT__TYPE__NPIPE, "\\\\.\\pipe", "x");
	refused("mount \"x\": named pipes are for Windows nodes");
	one_mount(&m, PB__MOUNT__TYPE__CLUSTER, "vol", "/dst");
	refused("cluster volume \"vol\": this node runs no CSI plugin");
	one_mount(&m, (Pb__Mount__Type)99, "", "/dst");
	refused("invalid mount type: 99");
}

/* ---- ports and networks */

static void port(
	Pb__PortConfig *p, Pb__PortConfig__Protocol proto, uint32_t target, uint32_t published)
{
	pb__port_config__init(p);
	p->protocol = proto;
	p->target_port = target;
	p->published_port = published;
	p->publish_mode = PB__PORT_CONFIG__PUBLISH_MODE__HOST;
}

static void test_ports(void **state)
{
	Pb__PortConfig p[4];

	(void)state;
	port(&p[0], PB__PORT_CONFIG__PROTOCOL__TCP, 80, 8080);
	port(&p[1], PB__PORT_CONFIG__PROTOCOL__TCP, 80, 8081);
	port(&p[2], PB__PORT_CONFIG__PROTOCOL__UDP, 53, 0);
	port(&p[3], PB__PORT_CONFIG__PROTOCOL__SCTP, 7, 7);
	x.t.endpoint = &x.endpoint;
	TEST_PTRS(x.endpoint.ports, x.endpoint.n_ports, Pb__PortConfig, &p[0], &p[1], &p[2], &p[3]);
	make();
	expect("/ExposedPorts", "{\"80/tcp\":{},\"53/udp\":{},\"7/sctp\":{}}");
	expect("/HostConfig/PortBindings",
		"{\"80/tcp\":[{\"HostPort\":\"8080\"},{\"HostPort\":\"8081\"}],\"53/udp\":[{}],"
		"\"7/sctp\":[{\"HostPort\":\"7\"}]}");
	p[3].published_port = 65536;
	refused("published port 65536 for target port 7: ports are 1 to 65535");
	p[3].published_port = 7;
	p[3].target_port = 0;
	refused("published port 7 for target port 0: ports are 1 to 65535");
	p[3].protocol = (Pb__PortConfig__Protocol)5;
	refused("published port 7: unknown protocol 5");
	p[0].publish_mode = PB__PORT_CONFIG__PUBLISH_MODE__INGRESS;
	refused("service publishes port 8080 in ingress mode: the agent runs outside the engine's "
		"swarm "
		"mode and has no routing mesh; use mode=host");
}

struct net {
	Pb__NetworkAttachment a;
	Pb__Network n;
	Pb__NetworkSpec s;
	Pb__Annotations ann;
	Pb__Driver d;
};

static void network(struct net *n, const char *name, const char *driver, bool predefined)
{
	pb__network_attachment__init(&n->a);
	pb__network__init(&n->n);
	pb__network_spec__init(&n->s);
	pb__annotations__init(&n->ann);
	pb__driver__init(&n->d);
	n->a.network = &n->n;
	n->n.spec = &n->s;
	n->n.driver_state = &n->d;
	n->s.annotations = &n->ann;
	n->ann.name = (char *)name;
	n->d.name = (char *)driver;
	if (predefined)
		TEST_PTRS(n->ann.labels, n->ann.n_labels, Pb__StringPair,
			test_pair("com.docker.swarm.predefined", "true"));
}

static void test_networks(void **state)
{
	struct net a, b;

	(void)state;
	network(&a, "host", "host", true);
	network(&b, "bridge", "bridge", true);
	TEST_PTRS(x.t.networks, x.t.n_networks, Pb__NetworkAttachment, &a.a);
	/* names mean nothing there: the engine would refuse the start */
	TEST_STRS(a.a.aliases, a.a.n_aliases, (char *)"other");
	make();
	expect("/HostConfig/NetworkMode", "\"host\"");
	expect("/NetworkingConfig", "{\"EndpointsConfig\":{\"host\":{}}}");
	env.podman = true;
	make();
	expect("/HostConfig/NetworkMode", "\"host\"");
	absent("/NetworkingConfig");
	env.podman = false;
	TEST_PTRS(x.t.networks, x.t.n_networks, Pb__NetworkAttachment, &b.a, &a.a);
	make(); /* the second one is connected before the start */
	expect("/HostConfig/NetworkMode", "\"bridge\"");
	expect("/NetworkingConfig", "{\"EndpointsConfig\":{\"bridge\":{}}}");
	assert_int_equal(spec_networks_at_create(&x.t, &env), 1);
	env.api = 44;
	make();
	expect("/NetworkingConfig", "{\"EndpointsConfig\":{\"bridge\":{},\"host\":{}}}");

	network(&a, "net", "overlay", false);
	refused("network \"net\" (driver overlay) cannot be provided on this node: the agent runs "
		"outside "
		"the engine's swarm mode; publish ports with mode=host or attach the service to "
		"host, "
		"bridge or a node-local network");
	a.n.spec = NULL;
	refused("network attachment without a network name");
}

static void expect_network(size_t i, const char *want)
{
	struct json_object *o = spec_network_body(&x.t, i, &env), *w = json_tokener_parse(want);

	if (!json_object_equal(o, w))
		fail_msg("%s, want %s", json_object_to_json_string(o), want);
	json_object_put(o);
	json_object_put(w);
}

static void test_local_networks(void **state)
{
	struct net a, b;
	Pb__IPAMOptions ipam = PB__IPAMOPTIONS__INIT;
	Pb__IPAMConfig range = PB__IPAMCONFIG__INIT;

	(void)state;
	network(&a, "lan", "macvlan", false);
	network(&b, "host", "host", true);
	a.n.id = (char *)"swarmnet1";
	TEST_PTRS(x.t.networks, x.t.n_networks, Pb__NetworkAttachment, &a.a, &b.a);
	TEST_STRS(a.a.aliases, a.a.n_aliases, (char *)"other");
	TEST_STRS(a.a.addresses, a.a.n_addresses, (char *)"10.1.0.5/24", (char *)"fd00::5/64");
	make();
	expect("/HostConfig/NetworkMode", "\"lan\"");
	expect("/NetworkingConfig",
		"{\"EndpointsConfig\":{\"lan\":{\"Aliases\":[\"other\",\"web\",\"tasks.web\"],"
		"\"IPAMConfig\":{\"IPv4Address\":\"10.1.0.5\",\"IPv6Address\":\"fd00::5\"}}}}");
	assert_true(spec_network_is_local(&x.t, 0));
	assert_false(spec_network_is_local(&x.t, 1));

	TEST_PTRS(a.n.spec->annotations->labels, a.n.spec->annotations->n_labels, Pb__StringPair,
		test_pair("k", "v"), test_pair("io.swarm-agentd.network", "spoof"));
	TEST_PTRS(a.d.options, a.d.n_options, Pb__StringPair, test_pair("parent", "eth1"));
	a.n.ipam = &ipam;
	range.subnet = (char *)"10.1.0.0/24";
	range.gateway = (char *)"10.1.0.1";
	TEST_PTRS(ipam.configs, ipam.n_configs, Pb__IPAMConfig, &range);
	a.s.internal = true;
	expect_network(0,
		"{\"Name\":\"lan\",\"Driver\":\"macvlan\",\"Internal\":true,\"Attachable\":false,"
		"\"CheckDuplicate\":true,\"EnableIPv6\":false,\"Options\":{\"parent\":\"eth1\"},"
		"\"Labels\":{\"k\":\"v\",\"io.swarm-agentd.network\":\"swarmnet1\"},"
		"\"IPAM\":{\"Config\":[{\"Subnet\":\"10.1.0.0/24\",\"Gateway\":\"10.1.0.1\"}]}}");
	/* with a configuration network the engine takes nothing else, not even labels */
	a.s.config_from_case = PB__NETWORK_SPEC__CONFIG_FROM_NETWORK;
	a.s.network = (char *)"cfg";
	env.api = 44;
	expect_network(0,
		"{\"Name\":\"lan\",\"Driver\":\"macvlan\",\"Internal\":true,\"Attachable\":false,"
		"\"ConfigFrom\":{\"Network\":\"cfg\"}}");
	env.podman = true;
	refused("network \"lan\" takes its configuration from network \"cfg\": podman has no such "
		"networks");
}

/* ---- refusals of the whole */

static void test_refusals(void **state)
{
	Pb__GenericRuntimeSpec generic = PB__GENERIC_RUNTIME_SPEC__INIT;
	Pb__NetworkAttachmentSpec attachment = PB__NETWORK_ATTACHMENT_SPEC__INIT;
	Pb__ContainerSpec__PullOptions pull = PB__CONTAINER_SPEC__PULL_OPTIONS__INIT;

	(void)state;
	x.c.image = (char *)"";
	refused("dockerexec: image required");
	x.c.image = (char *)"bb:1";
	x.c.pull_options = &pull;
	pull.registry_auth = (char *)"a\r\nX-Evil: 1";
	refused("pull_options.registry_auth contains a line break");
	x.c.pull_options = NULL;
	x.c.isolation = (Pb__ContainerSpec__Isolation)7;
	refused("isolation: unknown value 7");

	x.spec.runtime_case = PB__TASK_SPEC__RUNTIME_GENERIC;
	x.spec.generic = &generic;
	generic.kind = (char *)"Plugin";
	refused("unsupported runtime type: \"plugin\"");
	generic.kind = (char *)"other";
	refused("unsupported runtime type: \"other\"");
	x.spec.runtime_case = PB__TASK_SPEC__RUNTIME_ATTACHMENT;
	x.spec.attachment = &attachment;
	refused("exec: unsupported runtime");
	x.spec.runtime_case = PB__TASK_SPEC__RUNTIME__NOT_SET;
	refused("exec: unsupported runtime");
	x.t.spec = NULL;
	refused("exec: unsupported runtime");
}

/* ---- references */

static void test_references(void **state)
{
#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	static const struct {
		const char *in, *familiar, *canonical;
	} cases[] = {
		{"redis", "redis:latest", "docker.io/library/redis:latest"},
		{"docker.io/library/redis", "redis:latest", "docker.io/library/redis:latest"},
		{"redis:7", "redis:7", "docker.io/library/redis:7"},
		{"user/app:1", "user/app:1", "docker.io/user/app:1"},
		{"index.docker.io/user/app", "user/app:latest", "docker.io/user/app:latest"},
		{"reg:5000/a", "reg:5000/a:latest", "reg:5000/a:latest"},
		{"localhost/a:x", "localhost/a:x", "localhost/a:x"},
		{"r.example/a/b@sha256:" HEX64, "r.example/a/b@sha256:" HEX64,
			"r.example/a/b@sha256:" HEX64},
		{"nginx:1.27@sha256:" HEX64, "nginx:1.27@sha256:" HEX64,
			"docker.io/library/nginx:1.27@sha256:" HEX64},
		{"sha256:" HEX64, "sha256:" HEX64, "sha256:" HEX64},
		{HEX64, HEX64, HEX64},
		{"UPPER", "UPPER", "UPPER"},
		{"a//b", "a//b", "a//b"},
		{"a:", "a:", "a:"},
		{"a@sha256:12", "a@sha256:12", "a@sha256:12"},
		{"docker.io/library/a/b", "library/a/b:latest", "docker.io/library/a/b:latest"},
		{"", "", ""},
		{":", ":", ":"},
		{"@", "@", "@"},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		sw_auto_free char *f = ref_familiar(cases[i].in), *c = ref_canonical(cases[i].in);

		assert_string_equal(f, cases[i].familiar);
		assert_string_equal(c, cases[i].canonical);
	}
	assert_true(ref_is_id("sha256:" HEX64));
	assert_false(ref_is_id("sha256:12"));
	assert_true(ref_has_digest("a@sha256:" HEX64));
	env.podman = true;
	make();
	expect("/Image", "\"docker.io/library/bb:1\"");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_minimal),
		T(test_labels_cannot_be_spoofed),
		T(test_names),
		T(test_command_and_args),
		T(test_plain_fields),
		T(test_stop_timeout_is_rounded_up),
		T(test_generic_resources),
		T(test_healthcheck),
		T(test_dns_hosts_sysctls_log),
		T(test_resources),
		T(test_privileges),
		T(test_bind),
		T(test_volume),
		T(test_tmpfs),
		T(test_mount_refusals),
		T(test_ports),
		T(test_networks),
		T(test_local_networks),
		T(test_refusals),
		T(test_references),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
