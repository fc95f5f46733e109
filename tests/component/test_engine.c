/* The engine client against an engine that is older, newer, gone, broken or hostile. */
#include "test.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

#include "await.h"
#include "testengine.h"

struct env {
	struct sw_loop *loop;
	struct testengine *te;
	struct engine *e;
	char *path;
	unsigned closed;
};

static void on_closed(void *arg)
{
	(*(unsigned *)arg)++;
}

static struct env *env_new(bool podman, bool te)
{
	struct env *e = xcalloc(1, sizeof(*e));
	char dir[] = "/tmp/sw-engine-XXXXXX";
	sw_auto_free char *host = NULL;
	struct testengine_config tc = {.podman = podman};
	struct engine_config ec = {0};

	assert_non_null(mkdtemp(dir));
	e->path = xasprintf("%s/sock", dir);
	assert_int_equal(sw_loop_new(&e->loop, NULL), 0);
	tc.socket_path = e->path;
	if (te)
		assert_int_equal(testengine_new(&e->te, e->loop, &tc, NULL), 0);
	ec.host = host = xasprintf("unix://%s", e->path);
	assert_int_equal(engine_new(&e->e, e->loop, &ec, NULL), 0);
	return e;
}

static int setup(void **state)
{
	*state = env_new(false, true);
	return 0;
}

static int setup_podman(void **state)
{
	*state = env_new(true, true);
	return 0;
}

static int setup_alone(void **state)
{
	*state = env_new(false, false);
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;
	unsigned want = (e->e ? 1 : 0) + (e->te ? 1 : 0);

	e->closed = 0;
	engine_close(e->e, on_closed, &e->closed);
	testengine_close(e->te, on_closed, &e->closed);
	AWAIT(e->loop, e->closed == want);
	assert_int_equal(sw_loop_free(e->loop), 0);
	assert_int_equal(block_count(), 0);
	unlink(e->path);
	*strrchr(e->path, '/') = '\0';
	assert_int_equal(rmdir(e->path), 0);
	free(e->path);
	free(e);
	return 0;
}

/* ---- one callback for each shape */

struct got {
	int n;
	struct sw_err err;
	char id[128], text[256], status[32], name[128];
	size_t count;
	struct engine_port ports[8];
	size_t n_ports;
	int exit_code;
	bool running, oom, has_healthcheck, live_restore;
	int64_t num;
};

static void got(struct got *g, const struct sw_err *err)
{
	g->n++;
	g->err = SW_ERR_NONE;
	sw_err_copy(&g->err, err);
}

static void on_plain(void *arg, const struct sw_err *err)
{
	got(arg, err);
}

static void on_id(void *arg, const char *id, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	snprintf(g->id, sizeof(g->id), "%s", id ? id : "");
}

static void on_container(void *arg, const struct engine_container *c, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	if (err)
		return;
	snprintf(g->id, sizeof(g->id), "%s", c->id);
	snprintf(g->name, sizeof(g->name), "%s", c->name);
	snprintf(g->status, sizeof(g->status), "%s", c->status);
	snprintf(g->text, sizeof(g->text), "%s", c->error);
	g->running = c->running;
	g->oom = c->oom_killed;
	g->exit_code = c->exit_code;
	g->has_healthcheck = c->has_healthcheck;
	g->num = c->pid;
	g->n_ports = c->n_ports;
	for (size_t i = 0; i < c->n_ports && i < 8; i++) {
		g->ports[i] = c->ports[i];
		g->ports[i].protocol = strcmp(c->ports[i].protocol, "udp") == 0 ? "udp" : "tcp";
	}
	if (engine_container_label(c, "color"))
		snprintf(g->text, sizeof(g->text), "%s", engine_container_label(c, "color"));
}

static void on_list(void *arg, const struct engine_container *c, size_t n, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	g->count = n;
	if (n) {
		snprintf(g->name, sizeof(g->name), "%s", c[0].name);
		snprintf(g->status, sizeof(g->status), "%s", c[0].status);
	}
}

static void on_info(void *arg, const struct engine_info *i, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	if (err)
		return;
	snprintf(g->name, sizeof(g->name), "%s", i->name);
	g->num = i->mem_total;
	g->text[0] = '\0';
	for (size_t k = 0; k < i->n_labels; k++)
		snprintf(g->text + strlen(g->text), sizeof(g->text) - strlen(g->text), "%s:%s;",
			i->labels[k].key, i->labels[k].value);
	for (size_t k = 0; k < i->n_network_plugins; k++)
		snprintf(g->text + strlen(g->text), sizeof(g->text) - strlen(g->text), "%s,",
			i->network_plugins[k]);
	g->count = i->n_authorization_plugins;
	g->live_restore = i->live_restore;
}

static void on_plugins(void *arg, const struct engine_pair *p, size_t n, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	g->count = n;
	g->text[0] = '\0';
	for (size_t k = 0; k < n; k++)
		snprintf(g->text + strlen(g->text), sizeof(g->text) - strlen(g->text), "%s=%s;",
			p[k].key, p[k].value);
}

static void on_image(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	snprintf(g->id, sizeof(g->id), "%s", img ? img->id : "");
	g->count = img ? img->n_repo_digests : 0;
}

static void on_json(void *arg, struct json_object *o, const struct sw_err *err)
{
	struct got *g = arg;
	struct json_object *v;

	got(g, err);
	if (o && json_object_object_get_ex(o, "Name", &v))
		snprintf(g->name, sizeof(g->name), "%s", json_object_get_string(v));
}

/* The call must not call back from inside, and exactly once from the loop. */
#define CALL(g, expr)                                                                              \
	do {                                                                                       \
		memset((g), 0, sizeof(*(g)));                                                      \
		(void)(expr);                                                                      \
		assert_int_equal((g)->n, 0);                                                       \
		AWAIT(e->loop, (g)->n);                                                            \
		assert_int_equal((g)->n, 1);                                                       \
	} while (0)
#define OK(g, expr)                                                                                \
	do {                                                                                       \
		CALL(g, expr);                                                                     \
		if ((g)->err.cls != SW_OK)                                                         \
			fail_msg("%s", (g)->err.msg);                                              \
	} while (0)

static struct json_object *body_of(const char *cmd)
{
	struct json_object *o = json_object_new_object(), *c = json_object_new_array(),
			   *l = json_object_new_object();

	json_object_array_add(c, json_object_new_string(cmd));
	json_object_object_add(o, "Image", json_object_new_string("bb:1"));
	json_object_object_add(o, "Cmd", c);
	json_object_object_add(l, "color", json_object_new_string("blue"));
	json_object_object_add(o, "Labels", l);
	return o;
}

static void create(struct env *e, const char *name, const char *cmd)
{
	struct json_object *o = body_of(cmd);
	struct got g;

	OK(&g, engine_container_create(e->e, name, o, on_id, &g));
	assert_int_equal(strlen(g.id), 64);
	json_object_put(o);
}

static void rounds(struct env *e, int n)
{
	while (n--)
		sw_loop_once(e->loop, false);
}

/* ---- calls */

static void test_life(void **state)
{
	struct env *e = *state;
	const char *labels[] = {"color=blue"}, *other[] = {"color=red"};
	struct json_object *o = body_of("x");
	struct got g;

	create(e, "one", "term-exit 7");
	CALL(&g, engine_container_create(e->e, "one", o, on_id, &g));
	assert_int_equal(g.err.domain, SW_E_HTTP);
	assert_int_equal(g.err.code, 409);
	assert_int_equal(g.err.cls, SW_REJECTED);
	assert_non_null(strstr(g.err.msg, "Conflict. The container name \"/one\""));
	json_object_put(o);
	OK(&g, engine_container_inspect(e->e, "one", on_container, &g));
	assert_string_equal(g.name, "one");
	assert_string_equal(g.status, "created");
	assert_string_equal(g.text, "blue");
	OK(&g, engine_container_start(e->e, "one", on_plain, &g));
	OK(&g, engine_container_start(e->e, "one", on_plain, &g)); /* 304 */
	OK(&g, engine_container_inspect(e->e, "one", on_container, &g));
	assert_true(g.running);
	assert_true(g.num > 0);
	OK(&g, engine_container_list(e->e, labels, 1, on_list, &g));
	assert_int_equal(g.count, 1);
	assert_string_equal(g.name, "one");
	assert_string_equal(g.status, "running");
	OK(&g, engine_container_list(e->e, other, 1, on_list, &g));
	assert_int_equal(g.count, 0);
	OK(&g, engine_container_stop(e->e, "one", 3, on_plain, &g));
	OK(&g, engine_container_stop(e->e, "one", -1, on_plain, &g)); /* 304 */
	assert_int_equal(testengine_n_requests(e->te, "POST /containers/one/stop?t=3"), 1);
	assert_int_equal(testengine_n_requests(e->te, "POST /containers/one/stop"), 1);
	OK(&g, engine_container_inspect(e->e, "one", on_container, &g));
	assert_int_equal(g.exit_code, 7);
	CALL(&g, engine_container_kill(e->e, "one", "SIGKILL", on_plain, &g));
	assert_int_equal(g.err.code, 409);
	OK(&g, engine_container_remove(e->e, "one", true, on_plain, &g));
	assert_int_equal(testengine_n_requests(e->te, "DELETE /containers/one?force=1&v=1"), 1);
	CALL(&g, engine_container_inspect(e->e, "one", on_container, &g));
	assert_int_equal(g.err.code, 404);
	assert_string_equal(g.err.msg, "No such container: one");
	/* X01: one negotiation for all of it */
	assert_int_equal(testengine_n_requests(e->te, "* /_ping"), 1);
	assert_string_equal(engine_api_version(e->e), "1.41");
	for (size_t i = 1; testengine_request_at(e->te, i); i++)
		assert_non_null(strstr(testengine_request_at(e->te, i), " /v1.41/"));
}

static void test_info(void **state)
{
	struct env *e = *state;
	struct json_object *i = testengine_info(e->te);
	struct got g;

	json_object_object_add(i, "Labels",
		json_tokener_parse("[\"a=1=2\",\"none\",\"b=\",\"a=3\",\"=x\",null,7]"));
	json_object_object_add(i, "MemTotal", json_object_new_int64(9007199254740993));
	OK(&g, engine_info(e->e, on_info, &g));
	assert_string_equal(g.name, "testengine");
	assert_string_equal(g.text, "a:3;b:;bridge,host,ipvlan,macvlan,null,overlay,");
	assert_int_equal(g.count, 0);
	assert_true(g.num == 9007199254740993); /* 2^53 + 1: not through a double */
	OK(&g, engine_plugins(e->e, on_plugins, &g));
	assert_int_equal(g.count, 0);
	testengine_plugins_set(e->te,
		json_tokener_parse(
			"[{\"Name\":\"v/sshfs:latest\",\"Enabled\":true,\"Config\":{\"Interface\":"
			"{\"Types\":[\"docker.volumedriver/1.0\",\"docker.authz/1.0\"]}}},"
			"{\"Name\":\"off:1\",\"Enabled\":false,\"Config\":{\"Interface\":"
			"{\"Types\":[\"docker.logdriver/1.0\"]}}},"
			"{\"Name\":\"l:1\",\"Enabled\":true,\"Config\":{\"Interface\":{\"Types\":["
			"{\"Prefix\":\"docker\",\"Capability\":\"logdriver\",\"Version\":\"1.0\"},"
			"{\"Prefix\":\"other\",\"Capability\":\"logdriver\"},\"x.logdriver/"
			"1.0\"]}}},"
			"null,5]"));
	OK(&g, engine_plugins(e->e, on_plugins, &g));
	assert_string_equal(g.text, "Volume=v/sshfs:latest;authz=v/sshfs:latest;Log=l:1;");
	OK(&g, engine_ping(e->e, on_plain, &g));
	assert_true(engine_is_local(e->e));
	assert_false(engine_is_podman(e->e));
}

static void test_networks_volumes(void **state)
{
	struct env *e = *state;
	struct json_object *n = json_tokener_parse("{\"Name\":\"n 1\",\"Driver\":\"bridge\"}");
	struct json_object *v = json_tokener_parse("{\"Name\":\"vol\"}");
	struct json_object *bad = json_tokener_parse("{\"Name\":\"vol2\",\"Driver\":\"nfs\"}");
	struct got g;

	OK(&g, engine_network_create(e->e, n, on_id, &g));
	assert_int_equal(strlen(g.id), 64);
	CALL(&g, engine_network_create(e->e, n, on_id, &g));
	assert_int_equal(g.err.code, 409);
	OK(&g, engine_network_inspect(e->e, "bridge", on_json, &g));
	assert_string_equal(g.name, "bridge");
	CALL(&g, engine_network_inspect(e->e, "nope", on_json, &g));
	assert_int_equal(g.err.code, 404);
	create(e, "c", "x");
	OK(&g, engine_network_connect(e->e, "bridge", "c", NULL, on_plain, &g));
	CALL(&g, engine_network_connect(e->e, "bridge", "c", NULL, on_plain, &g));
	assert_int_equal(g.err.code, 403);
	OK(&g, engine_volume_create(e->e, v, on_json, &g));
	assert_string_equal(g.name, "vol");
	CALL(&g, engine_volume_create(e->e, bad, on_json, &g));
	assert_int_equal(g.err.code, 404);
	CALL(&g, engine_network_remove(e->e, "nope", on_plain, &g));
	assert_int_equal(g.err.code, 404);
	json_object_put(n);
	json_object_put(v);
	json_object_put(bad);
}

static void test_ports(void **state)
{
	struct env *e = *state;
	struct json_object *o = body_of("x");
	struct got g;

	json_object_object_add(o, "HostConfig",
		json_tokener_parse("{\"PortBindings\":{\"80/tcp\":[{\"HostPort\":\"8081\"},"
				   "{\"HostPort\":\"8080\"}],\"53/udp\":[{\"HostPort\":\"5353\"}],"
				   "\"99999/tcp\":[{\"HostPort\":\"1\"}],\"1/tcp\":null}}"));
	OK(&g, engine_container_create(e->e, "p", o, on_id, &g));
	OK(&g, engine_container_start(e->e, "p", on_plain, &g));
	OK(&g, engine_container_inspect(e->e, "p", on_container, &g));
	assert_int_equal(g.n_ports, 3); /* the engine lists each twice */
	assert_int_equal(g.ports[0].target, 80);
	assert_int_equal(g.ports[0].published, 8080);
	assert_int_equal(g.ports[1].published, 8081);
	assert_string_equal(g.ports[2].protocol, "udp");
	assert_int_equal(g.ports[2].published, 5353);
	json_object_put(o);
}

static void test_empty_names(void **state)
{
	struct env *e = *state;
	struct got g;

	CALL(&g, engine_container_inspect(e->e, "", on_container, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	CALL(&g, engine_container_remove(e->e, NULL, true, on_plain, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	CALL(&g, engine_image_inspect(e->e, "", on_image, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	CALL(&g, engine_network_inspect(e->e, "", on_json, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	assert_int_equal(testengine_n_requests(e->te, "*"), 0);
	/* X09 */
	CALL(&g, engine_container_inspect(e->e, "a b/\xc3\xbc", on_container, &g));
	assert_int_equal(g.err.code, 404);
	assert_non_null(strstr(g.err.msg, "a b/\xc3\xbc"));
	assert_int_equal(testengine_n_requests(e->te, "GET /containers/a%20b%2F%C3%BC/json"), 1);
}

/* ---- negotiation */

static void test_head_refused(void **state) /* X02 */
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "HEAD /_ping", .status = 405};
	struct got g;

	testengine_fault_add(e->te, &f);
	OK(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(testengine_n_requests(e->te, "GET /_ping"), 1);
	assert_int_equal(testengine_n_requests(e->te, "GET /info"), 1);
}

static void test_too_old(void **state) /* X03 */
{
	struct env *e = *state;
	struct got g;

	testengine_version_set(e->te, "1.24", NULL);
	CALL(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(g.err.cls, SW_TEMPORARY);
	assert_non_null(strstr(g.err.msg, "1.24"));
	assert_non_null(strstr(g.err.msg, "1.41"));
	testengine_version_set(e->te, "1.9", NULL); /* numbers, not text */
	CALL(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(g.err.cls, SW_TEMPORARY);
	testengine_version_set(e->te, "nonsense", NULL);
	CALL(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(g.err.cls, SW_TEMPORARY);
	testengine_version_set(e->te, "1.44", NULL);
	OK(&g, engine_info(e->e, on_info, &g));
	assert_string_equal(engine_api_version(e->e), "1.44");
	assert_true(engine_api_at_least(e->e, 1, 44));
	assert_true(engine_api_at_least(e->e, 1, 9));
	assert_false(engine_api_at_least(e->e, 1, 45));
}

static void test_no_version(void **state)
{
	struct env *e = *state;
	struct got g;

	testengine_version_set(e->te, "", NULL);
	OK(&g, engine_info(e->e, on_info, &g));
	assert_string_equal(engine_api_version(e->e), ENGINE_API_MIN);
}

static void test_newer_than_us(void **state)
{
	struct env *e = *state;
	struct got g;

	testengine_version_set(e->te, "1.99", NULL);
	OK(&g, engine_info(e->e, on_info, &g));
	assert_string_equal(engine_api_version(e->e), ENGINE_API_MAX);
}

static void test_renegotiates(void **state) /* X04 */
{
	struct env *e = *state;
	struct got g;

	testengine_version_set(e->te, "1.44", "Docker/25.0.0 (linux)");
	OK(&g, engine_info(e->e, on_info, &g));
	assert_string_equal(engine_api_version(e->e), "1.44");
	/* downgraded by a restart: the next call finds nobody, the one after that asks again */
	testengine_stop(e->te, true, false);
	CALL(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(g.err.cls, SW_TEMPORARY);
	testengine_version_set(e->te, "1.41", "Docker/20.10.24 (linux)");
	assert_int_equal(testengine_start(e->te, NULL), 0);
	OK(&g, engine_info(e->e, on_info, &g));
	assert_string_equal(engine_api_version(e->e), "1.41");
	/* replaced without our noticing: our version is refused, asked again, tried again */
	testengine_version_set(e->te, "1.44", "Docker/25.0.0 (linux)");
	OK(&g, engine_info(e->e, on_info, &g)); /* sees the other Server header */
	OK(&g, engine_info(e->e, on_info, &g));
	assert_string_equal(engine_api_version(e->e), "1.44");
	testengine_version_set(e->te, "1.42", NULL);
	create(e, "again", "x"); /* with its body */
	assert_string_equal(engine_api_version(e->e), "1.42");
	assert_int_equal(testengine_n_requests(e->te, "POST /containers/create*"), 2);
	assert_int_equal(testengine_n_containers(e->te), 1);
}

static void test_pinned(void **state)
{
	struct env *e = *state;
	sw_auto_free char *host = xasprintf("unix://%s", e->path);
	struct engine_config ec = {.host = host, .api_version = "1.41"};
	struct engine *pinned, *keep = e->e;
	struct sw_err err;
	struct got g;
	unsigned closed = 0;

	assert_int_equal(engine_new(&pinned, e->loop, &ec, NULL), 0);
	e->e = pinned;
	OK(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(testengine_n_requests(e->te, "* /_ping"), 0);
	testengine_version_set(e->te, "1.40", NULL);
	CALL(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(g.err.code, 400);
	assert_int_equal(testengine_n_requests(e->te, "* /_ping"), 0);
	engine_close(pinned, on_closed, &closed);
	AWAIT(e->loop, closed);
	e->e = keep;
	ec.api_version = "1.24";
	assert_int_equal(engine_new(&pinned, e->loop, &ec, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "1.24"));
}

static void test_queue_while_negotiating(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "HEAD /_ping", .cut = TE_CUT_STALL};
	struct got g[20] = {{0}};
	struct engine_call *c[20];

	testengine_fault_add(e->te, &f);
	for (int i = 0; i < 20; i++)
		c[i] = engine_info(e->e, on_info, &g[i]);
	AWAIT(e->loop, testengine_n_requests(e->te, "HEAD /_ping") == 1);
	for (int i = 0; i < 10; i++)
		engine_call_cancel(c[i]);
	testengine_fault_clear(e->te);
	testengine_drop_connections(e->te); /* the ping fails, all that wait with it */
	AWAIT(e->loop, g[19].n);
	for (int i = 0; i < 20; i++)
		assert_int_equal(g[i].n, i >= 10);
	assert_int_equal(g[19].err.cls, SW_TEMPORARY);
	assert_int_equal(testengine_n_requests(e->te, "GET /info"), 0);
	OK(&g[0], engine_info(e->e, on_info, &g[0]));
}

static void test_absent(void **state) /* X08 */
{
	struct env *e = *state;
	struct testengine_config tc = {.socket_path = e->path};
	struct got g;

	CALL(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(g.err.cls, SW_TEMPORARY);
	assert_int_equal(g.err.domain, SW_E_ERRNO);
	assert_int_equal(g.err.code, -ENOENT);
	assert_non_null(strstr(g.err.msg, e->path));
	assert_null(engine_api_version(e->e));
	assert_int_equal(testengine_new(&e->te, e->loop, &tc, NULL), 0);
	OK(&g, engine_info(e->e, on_info, &g));
}

static void test_podman(void **state)
{
	struct env *e = *state;
	struct json_object *o = body_of("x");
	struct got g;

	OK(&g, engine_info(e->e, on_info, &g));
	assert_true(engine_is_podman(e->e));
	OK(&g, engine_plugins(e->e, on_plugins, &g)); /* 404 */
	assert_int_equal(g.count, 0);
	create(e, "one", "x");
	CALL(&g, engine_container_create(e->e, "one", o, on_id, &g));
	assert_int_equal(g.err.code, 500);
	assert_non_null(strstr(g.err.msg, "that name is already in use"));
	json_object_put(o);
}

/* ---- errors */

static void test_error_bodies(void **state) /* X05 */
{
	enum { HUGE = 5 << 20 };
	static const struct {
		int status;
		const char *body;
		enum sw_errclass cls;
		const char *msg;
	} cases[] = {
		{404, "{\"message\":\"No such container: x\"}\n", SW_REJECTED,
			"No such container: x"},
		{500, "{\"cause\":\"c\",\"message\":\"m: c\",\"response\":500}", SW_REJECTED,
			"m: c"},
		{500, "  plain text\r\n", SW_REJECTED, "plain text"},
		{500, "", SW_REJECTED, "the engine answered with status 500 and no message"},
		{500, "{\"message\":\"\"}", SW_REJECTED,
			"the engine answered with status 500 and no message"},
		{500, "{\"message\":", SW_REJECTED, "{\"message\":"},
		{500, "bad \xff\xfe utf-8 \xc3", SW_REJECTED,
			"bad \xef\xbf\xbd\xef\xbf\xbd utf-8 \xef\xbf\xbd"},
		{500, "{\"message\":\"two\\nlines\\u0007\"}", SW_REJECTED, "two lines "},
		{500, "{\"message\":\"rpc error: code = Unavailable desc = x\"}", SW_TEMPORARY,
			NULL},
		{500, "{\"message\":\"write: no space left on device\"}", SW_TEMPORARY, NULL},
		{400, "{\"message\":\"connection reset\"}", SW_REJECTED, NULL},
		{502, "<html>Bad Gateway</html>", SW_TEMPORARY, "<html>Bad Gateway</html>"},
		{503, "{\"message\":\"busy\"}", SW_TEMPORARY, NULL},
		{503, "{\"message\":\"This node is not a swarm manager. x\"}", SW_REJECTED, NULL},
		{504, "", SW_TEMPORARY, NULL},
		{429, "", SW_TEMPORARY, NULL},
		{501, "{\"message\":\"configured logging driver does not support reading\"}",
			SW_REJECTED, NULL},
	};
	struct env *e = *state;
	char *huge = xcalloc(1, HUGE);
	struct testengine_fault f = {.match = "GET /info", .status = 500};
	struct got g;

	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		f.status = cases[i].status;
		f.body = cases[i].body;
		testengine_fault_add(e->te, &f);
		CALL(&g, engine_info(e->e, on_info, &g));
		assert_int_equal(g.err.domain, SW_E_HTTP);
		assert_int_equal(g.err.code, cases[i].status);
		assert_int_equal(g.err.cls, cases[i].cls);
		if (cases[i].msg)
			assert_string_equal(g.err.msg, cases[i].msg);
		testengine_fault_clear(e->te);
	}
	memset(huge, 'h', HUGE);
	f = (struct testengine_fault){
		.match = "GET /info", .status = 500, .body = huge, .body_len = HUGE};
	testengine_fault_add(e->te, &f);
	CALL(&g, engine_info(e->e, on_info, &g));
	assert_int_equal(g.err.code, 500);
	assert_int_equal(strncmp(g.err.msg, "hhhh", 4), 0);
	assert_string_equal(g.err.msg + strlen(g.err.msg) - 3, "...");
	free(huge);
}

static void test_redirect(void **state) /* X10 */
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "POST *",
		.status = 301,
		.headers = "Location: /somewhere\r\n",
		.body = ""};
	struct got g;

	testengine_fault_add(e->te, &f);
	CALL(&g, engine_container_start(e->e, "x", on_plain, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	assert_int_equal(g.err.code, 301);
	assert_non_null(strstr(g.err.msg, "/somewhere"));
	assert_int_equal(testengine_n_requests(e->te, "* /somewhere"), 0);
}

static void test_bad_answers(void **state)
{
	static const char *const bodies[] = {"", "{", "[1,2", "nope", "{\"Id\":}", "{}{}", "[]",
		"null", "{\"Id\":5,\"State\":[]}", "{\"State\":{\"Status\":\"running\"}}"};
	struct env *e = *state;
	char deep[2001];
	struct got g;

	memset(deep, '[', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	for (size_t i = 0; i <= SW_ARRAY_LEN(bodies); i++) {
		struct testengine_fault f = {.match = "GET /containers/*", .status = 200};

		f.body = i < SW_ARRAY_LEN(bodies) ? bodies[i] : deep;
		testengine_fault_add(e->te, &f);
		CALL(&g, engine_container_inspect(e->e, "x", on_container, &g));
		assert_int_equal(g.err.cls, SW_TEMPORARY);
		assert_int_equal(g.err.code, -EPROTO);
		testengine_fault_clear(e->te);
	}
}

/* ---- cancelling, load */

static void test_cancel(void **state)
{
	struct env *e = *state;

	for (int n = 0; n < 40; n++) {
		struct got g = {0};
		struct engine_call *c;

		if (n % 2) /* half of them with a version to be found first */
			testengine_drop_connections(e->te);
		c = engine_info(e->e, on_info, &g);
		rounds(e, n);
		if (!g.n) {
			engine_call_cancel(c);
			rounds(e, 20);
			assert_int_equal(g.n, 0);
		}
	}
}

struct chain_call {
	struct env *e;
	struct engine_call *self, *other;
	int n;
};

static void on_cancel_self(void *arg, const struct engine_info *i, const struct sw_err *err)
{
	struct chain_call *c = arg;

	(void)i;
	assert_null(err);
	c->n++;
	engine_call_cancel(c->self);
	engine_call_cancel(c->other);
	engine_close(take(c->e->e), on_closed, &c->e->closed);
}

static void test_cancel_inside(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "GET /plugins", .cut = TE_CUT_STALL};
	struct chain_call c = {.e = e};
	struct got g = {0};

	testengine_fault_add(e->te, &f);
	c.other = engine_plugins(e->e, on_plugins, &g);
	c.self = engine_info(e->e, on_cancel_self, &c);
	AWAIT(e->loop, e->closed == 1);
	assert_int_equal(c.n, 1);
	assert_int_equal(g.n, 0);
}

static void test_parallel(void **state)
{
	enum { N = 300 };
	struct env *e = *state;
	struct got *g = xcalloc(N, sizeof(*g));
	int n;

	create(e, "one", "x");
	for (int i = 0; i < N; i++)
		engine_container_inspect(e->e, "one", on_container, &g[i]);
	do {
		sw_loop_once(e->loop, true);
		n = 0;
		for (int i = 0; i < N; i++)
			n += g[i].n;
	} while (n < N);
	for (int i = 0; i < N; i++)
		assert_string_equal(g[i].name, "one");
	free(g);
}

static void test_lost_after_execution(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {
		.match = "POST /containers/create*", .cut = TE_CUT_AFTER_EXEC, .times = 1};
	struct json_object *o = body_of("x");
	struct got g;

	testengine_fault_add(e->te, &f);
	CALL(&g, engine_container_create(e->e, "one", o, on_id, &g));
	assert_int_equal(g.err.cls, SW_TEMPORARY);
	assert_int_equal(g.err.domain, SW_E_ERRNO);
	assert_int_equal(testengine_n_containers(e->te), 1);
	CALL(&g, engine_container_create(e->e, "one", o, on_id, &g));
	assert_int_equal(g.err.code, 409);
	json_object_put(o);
}

/* ---- images */

struct pulling {
	struct got g;
	char progress[2048];
};

static void on_progress(void *arg, const char *status)
{
	struct pulling *p = arg;

	snprintf(p->progress + strlen(p->progress), sizeof(p->progress) - strlen(p->progress),
		"%s|", status);
}

static void on_pulled(void *arg, const struct sw_err *err)
{
	got(&((struct pulling *)arg)->g, err);
}

static void pull(struct env *e, struct pulling *p, const char *ref, const char *auth)
{
	memset(p, 0, sizeof(*p));
	engine_image_pull(e->e, ref, auth, on_progress, on_pulled, p);
	assert_int_equal(p->g.n, 0);
	AWAIT(e->loop, p->g.n);
}

static void test_images(void **state)
{
	struct env *e = *state;
	struct testengine_fault bytes = {.match = "POST /images/create*", .split = 1};
	struct pulling p;
	struct got g;

	OK(&g, engine_image_inspect(e->e, "docker.io/library/bb:1", on_image, &g));
	assert_int_equal(g.count, 1);
	CALL(&g, engine_image_inspect(e->e, "nope", on_image, &g));
	assert_int_equal(g.err.code, 404);
	pull(e, &p, "docker.io/library/redis", NULL);
	assert_int_equal(p.g.err.code, 404);
	assert_int_equal(p.g.err.cls, SW_REJECTED);
	assert_non_null(strstr(p.g.err.msg, "pull access denied"));
	testengine_registry_add(e->te, "redis", 0, NULL);
	pull(e, &p, "docker.io/library/redis", "c2VjcmV0");
	assert_int_equal(p.g.err.cls, SW_OK);
	assert_string_equal(testengine_last_auth(e->te), "c2VjcmV0");
	assert_int_equal(
		testengine_n_requests(e->te,
			"POST /images/create?fromImage=docker.io%2Flibrary%2Fredis&tag=latest"),
		2);
	assert_string_equal(p.progress, "Pulling|Downloading 0/1 layers|Downloading 0/2 layers|"
					"Downloading 1/2 layers|Pulled 2 layers|");
	OK(&g, engine_image_inspect(e->e, "redis:latest", on_image, &g));
	/* an error in the stream is an error, in whatever pieces it comes */
	testengine_fault_add(e->te, &bytes);
	testengine_registry_add(
		e->te, "broken:2", 0, "filesystem layer verification failed for digest sha256:1");
	pull(e, &p, "broken:2", "");
	assert_int_equal(p.g.err.cls, SW_REJECTED);
	assert_string_equal(
		p.g.err.msg, "filesystem layer verification failed for digest sha256:1");
	CALL(&g, engine_image_inspect(e->e, "broken:2", on_image, &g));
	assert_int_equal(g.err.code, 404);
	pull(e, &p, "x:1", "a\r\nEvil: yes");
	assert_int_equal(p.g.err.cls, SW_REJECTED);
	pull(e, &p, "x@", NULL);
	assert_int_equal(p.g.err.cls, SW_REJECTED);
}

static void test_pull_cut(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {
		.match = "POST /images/create*", .cut = TE_CUT_BODY, .body_bytes = 60, .times = 1};
	struct testengine_fault part = {.match = "POST /images/create*",
		.status = 200,
		.body = "{\"status\":\"x\"}\r\n{\"stat",
		.times = 1};
	struct testengine_fault empty = {
		.match = "POST /images/create*", .status = 200, .body = "", .times = 1};
	struct engine_call *c;
	struct pulling p;

	testengine_registry_add(e->te, "slow", sw_s(3600), NULL);
	testengine_fault_add(e->te, &f);
	testengine_fault_add(e->te, &part);
	testengine_fault_add(e->te, &empty);
	pull(e, &p, "slow", NULL);
	assert_int_equal(p.g.err.cls, SW_TEMPORARY);
	assert_int_equal(p.g.err.code, -ECONNRESET);
	pull(e, &p, "slow", NULL);
	assert_int_equal(p.g.err.code, -EPROTO);
	pull(e, &p, "slow", NULL); /* an empty stream is a success */
	assert_int_equal(p.g.err.cls, SW_OK);
	/* cancelling closes the connection: that is what stops the engine's pull */
	memset(&p, 0, sizeof(p));
	c = engine_image_pull(e->e, "slow", NULL, on_progress, on_pulled, &p);
	AWAIT(e->loop, strstr(p.progress, "Downloading 0/2"));
	engine_call_cancel(c);
	AWAIT(e->loop, testengine_n_connections(e->te) == 0);
	assert_int_equal(p.g.n, 0);
}

/* ---- address */

static void test_addresses(void **state) /* X11 */
{
	static const char *const bad[] = {"foo", "npipe://x", "ssh://h", "fd://", "unix://",
		"unix://relative", "tcp://", "tcp://host", "tcp://host:", "tcp://host:0",
		"tcp://host:70000", "tcp://host:1x", "tcp://:1", "tcp://a:b:c", "http://x:1", "",
		"tcp://h:1/?x", "tcp://u@h:1"};
	struct env *e = *state;
	struct engine *eng;
	struct sw_err err;

	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		struct engine_config ec = {.host = bad[i]};

		assert_true(engine_new(&eng, e->loop, &ec, &err) < 0);
		assert_int_equal(err.cls, SW_REJECTED);
		assert_non_null(strstr(err.msg, bad[i]));
		assert_true(strstr(err.msg, "unix:///PATH") || strstr(err.msg, "tcp://HOST:PORT"));
	}
	for (int i = 0; i < 3; i++) {
		static const char *const good[] = {
			"tcp://127.0.0.1:2375", "tcp://[::1]:2375/base", "tcp://h:1"};
		struct engine_config ec = {.host = good[i]};
		unsigned closed = 0;

		assert_int_equal(engine_new(&eng, e->loop, &ec, &err), 0);
		assert_false(engine_is_local(eng));
		engine_close(eng, on_closed, &closed);
		AWAIT(e->loop, closed);
	}
	{
		struct engine_config ec = {
			.host = "tcp://h:1", .cert_path = "/nonexistent", .tls_verify = true};

		assert_int_equal(engine_new(&eng, e->loop, &ec, &err), -ENOENT);
		assert_non_null(strstr(err.msg, "/nonexistent/ca.pem"));
	}
}

#define T(f)     cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TW(f, s) cmocka_unit_test_setup_teardown(f, s, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_life),
		T(test_info),
		T(test_networks_volumes),
		T(test_ports),
		T(test_empty_names),
		T(test_head_refused),
		T(test_too_old),
		T(test_no_version),
		T(test_newer_than_us),
		T(test_renegotiates),
		T(test_pinned),
		T(test_queue_while_negotiating),
		TW(test_absent, setup_alone),
		TW(test_podman, setup_podman),
		T(test_error_bodies),
		T(test_redirect),
		T(test_bad_answers),
		T(test_cancel),
		T(test_cancel_inside),
		T(test_parallel),
		T(test_lost_after_execution),
		T(test_images),
		T(test_pull_cut),
		T(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
