/* Every call of the engine's door once, against the real engine at SWARM_TEST_ENGINE (with the
 * image SWARM_TEST_IMAGE, which has a shell). Skipped without. Also the figure that matters for a
 * worker: 300 inspects at once. */
#include "test.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

#include "await.h"

static struct sw_loop *loop;
static struct engine *eng;
static const char *image;

struct got {
	int n;
	struct sw_err err;
	char id[128], status[32], text[512];
	int exit_code;
	int64_t num;
	size_t count, n_ports;
	struct engine_port port;
};

static void got(struct got *g, const struct sw_err *err)
{
	g->n++;
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
	snprintf(g->status, sizeof(g->status), "%s", c->status);
	snprintf(g->text, sizeof(g->text), "%s", c->error);
	g->exit_code = c->exit_code;
	g->num = c->pid;
	g->n_ports = c->n_ports;
	if (c->n_ports)
		g->port = c->ports[0];
}

static void on_list(void *arg, const struct engine_container *c, size_t n, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	g->count = n;
	if (n)
		snprintf(g->text, sizeof(g->text), "%s %s %s", c[0].name, c[0].status,
			engine_container_label(&c[0], "sw.test"));
}

static void on_info(void *arg, const struct engine_info *i, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	if (err)
		return;
	g->num = i->mem_total;
	g->count = i->n_network_plugins;
	snprintf(g->text, sizeof(g->text), "%s", i->os_type);
}

static void on_plugins(void *arg, const struct engine_pair *p, size_t n, const struct sw_err *err)
{
	(void)p;
	(void)n;
	got(arg, err);
}

static void on_image(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	struct got *g = arg;

	got(g, err);
	snprintf(g->id, sizeof(g->id), "%s", img ? img->id : "");
}

static void on_json(void *arg, struct json_object *o, const struct sw_err *err)
{
	struct got *g = arg;
	struct json_object *v;

	got(g, err);
	if (o && json_object_object_get_ex(o, "Name", &v))
		snprintf(g->text, sizeof(g->text), "%s", json_object_get_string(v));
}

#define CALL(g, expr)                                                                              \
	do {                                                                                       \
		memset((g), 0, sizeof(*(g)));                                                      \
		(void)(expr);                                                                      \
		assert_int_equal((g)->n, 0);                                                       \
		AWAIT_WITHIN(loop, 60, (g)->n);                                                    \
		assert_int_equal((g)->n, 1);                                                       \
	} while (0)
#define OK(g, expr)                                                                                \
	do {                                                                                       \
		CALL(g, expr);                                                                     \
		if ((g)->err.cls != SW_OK)                                                         \
			fail_msg("%s", (g)->err.msg);                                              \
	} while (0)

/* ---- events, for all tests */

static struct {
	char all[65536];
	int n_connected;
} heard;

static void on_event(void *arg, const struct engine_event *ev)
{
	const char *name = engine_event_attr(ev, "name"), *code = engine_event_attr(ev, "exitCode");
	size_t len = strlen(heard.all);

	(void)arg;
	assert_true(ev->time_ns > 0);
	snprintf(heard.all + len, sizeof(heard.all) - len, "%s %s%s%s;", ev->action,
		name ? name : "", code ? " " : "", code ? code : "");
}

static void on_connected(void *arg)
{
	(void)arg;
	heard.n_connected++;
}

static void on_lost(void *arg, const struct sw_err *err)
{
	(void)arg;
	print_message("event stream lost: %s\n", err->msg);
}

/* ---- helpers */

static void create(const char *name, const char *script, const char *more)
{
	sw_auto_free char *text = xasprintf("{\"Image\":\"%s\",\"Cmd\":[\"sh\",\"-c\",\"%s\"],"
					    "\"Labels\":{\"sw.test\":\"1\"}%s}",
		image, script, more ? more : "");
	struct json_object *o = json_tokener_parse(text);
	struct got g;

	assert_non_null(o);
	OK(&g, engine_container_create(eng, name, o, on_id, &g));
	assert_int_equal(strlen(g.id), 64);
	json_object_put(o);
}

static void removed(const char *name)
{
	struct got g;

	OK(&g, engine_container_remove(eng, name, true, on_plain, &g));
}

/* ---- */

static void test_node(void **state)
{
	struct got g;

	(void)state;
	OK(&g, engine_ping(eng, on_plain, &g));
	OK(&g, engine_info(eng, on_info, &g));
	assert_true(g.num > 0);
	assert_true(g.count > 0);
	assert_string_equal(g.text, "linux");
	OK(&g, engine_plugins(eng, on_plugins, &g));
	assert_non_null(engine_api_version(eng));
	print_message(
		"API %s%s\n", engine_api_version(eng), engine_is_podman(eng) ? " podman" : "");
}

static void test_life(void **state)
{
	static const char *const label[] = {"sw.test=1"};
	struct json_object *o;
	struct got g;

	(void)state;
	create("sw-life", "trap 'exit 7' TERM; while :; do sleep 0.1; done", NULL);
	o = json_tokener_parse("{\"Image\":\"nope\"}");
	CALL(&g, engine_container_create(eng, "sw-other", o, on_id, &g));
	assert_int_equal(g.err.code, 404);
	assert_int_equal(g.err.cls, SW_REJECTED);
	json_object_object_add(o, "Image", json_object_new_string(image));
	json_object_object_add(o, "Cmd", json_tokener_parse("[\"true\"]"));
	CALL(&g, engine_container_create(eng, "sw-life", o, on_id, &g));
	assert_int_equal(g.err.code, engine_is_podman(eng) ? 500 : 409);
	json_object_put(o);
	OK(&g, engine_container_inspect(eng, "sw-life", on_container, &g));
	assert_string_equal(g.status, "created");
	OK(&g, engine_container_start(eng, "sw-life", on_plain, &g));
	OK(&g, engine_container_start(eng, "sw-life", on_plain, &g));
	OK(&g, engine_container_inspect(eng, "sw-life", on_container, &g));
	assert_string_equal(g.status, "running");
	assert_true(g.num > 1);
	OK(&g, engine_container_list(eng, label, 1, on_list, &g));
	assert_int_equal(g.count, 1);
	assert_string_equal(g.text, "sw-life running 1");
	OK(&g, engine_container_stop(eng, "sw-life", 10, on_plain, &g));
	OK(&g, engine_container_stop(eng, "sw-life", -1, on_plain, &g));
	OK(&g, engine_container_inspect(eng, "sw-life", on_container, &g));
	assert_string_equal(g.status, "exited");
	assert_int_equal(g.exit_code, 7);
	CALL(&g, engine_container_kill(eng, "sw-life", "SIGKILL", on_plain, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	OK(&g, engine_container_start(eng, "sw-life", on_plain, &g));
	OK(&g, engine_container_kill(eng, "sw-life", "SIGKILL", on_plain, &g));
	AWAIT(loop, strstr(heard.all, "die sw-life 137;"));
	removed("sw-life");
	AWAIT(loop, strstr(heard.all, "destroy sw-life;"));
	assert_non_null(strstr(heard.all, "create sw-life;start sw-life;"));
	assert_non_null(strstr(heard.all, "die sw-life 7;"));
	CALL(&g, engine_container_inspect(eng, "sw-life", on_container, &g));
	assert_int_equal(g.err.code, 404);
}

static void test_start_fails(void **state)
{
	struct json_object *o = json_tokener_parse("{\"Cmd\":[\"/no/such/thing\"]}");
	struct got g;

	(void)state;
	json_object_object_add(o, "Image", json_object_new_string(image));
	OK(&g, engine_container_create(eng, "sw-bad", o, on_id, &g));
	CALL(&g, engine_container_start(eng, "sw-bad", on_plain, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	assert_non_null(strstr(g.err.msg, "no such file or directory"));
	OK(&g, engine_container_inspect(eng, "sw-bad", on_container, &g));
	assert_string_equal(g.status, "created");
	if (!engine_is_podman(eng)) {
		assert_int_equal(g.exit_code, 127);
		assert_true(*g.text);
	}
	removed("sw-bad");
	json_object_put(o);
	/* a bind source that is missing */
	if (!engine_is_podman(eng)) {
		o = json_tokener_parse("{\"HostConfig\":{\"Mounts\":[{\"Type\":\"bind\","
				       "\"Source\":\"/no/such\",\"Target\":\"/x\"}]}}");
		json_object_object_add(o, "Image", json_object_new_string(image));
		CALL(&g, engine_container_create(eng, "sw-bind", o, on_id, &g));
		assert_int_equal(g.err.code, 400);
		assert_non_null(strstr(g.err.msg, "bind source path does not exist: /no/such"));
		json_object_put(o);
	}
}

static void test_networks_volumes(void **state)
{
	struct json_object *n = json_tokener_parse(
		"{\"Name\":\"sw-net\",\"Driver\":\"bridge\",\"CheckDuplicate\":true}");
	struct json_object *v = json_tokener_parse("{\"Name\":\"sw-vol\",\"Driver\":\"local\"}");
	struct got g, net;

	(void)state;
	OK(&net, engine_network_create(eng, n, on_id, &net));
	CALL(&g, engine_network_create(eng, n, on_id, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	OK(&g, engine_network_inspect(eng, "sw-net", on_json, &g));
	assert_string_equal(g.text, "sw-net");
	create("sw-connected", "sleep 60",
		",\"ExposedPorts\":{\"80/tcp\":{}},\"HostConfig\":"
		"{\"PortBindings\":{\"80/tcp\":[{\"HostPort\":\"18080\"}]}}");
	OK(&g, engine_network_connect(eng, "sw-net", "sw-connected", NULL, on_plain, &g));
	OK(&g, engine_container_start(eng, "sw-connected", on_plain, &g));
	OK(&g, engine_container_inspect(eng, "sw-connected", on_container, &g));
	assert_int_equal(g.n_ports, 1);
	assert_int_equal(g.port.target, 80);
	assert_int_equal(g.port.published, 18080);
	CALL(&g, engine_network_remove(eng, "sw-net", on_plain, &g));
	assert_non_null(strstr(g.err.msg, "active endpoints"));
	removed("sw-connected");
	OK(&g, engine_network_remove(eng, net.id, on_plain, &g));
	CALL(&g, engine_network_inspect(eng, "sw-net", on_json, &g));
	assert_int_equal(g.err.code, 404);
	OK(&g, engine_volume_create(eng, v, on_json, &g));
	assert_string_equal(g.text, "sw-vol");
	json_object_put(n);
	json_object_put(v);
}

static void test_images(void **state)
{
	struct engine_call *c;
	struct got g;

	(void)state;
	OK(&g, engine_image_inspect(eng, image, on_image, &g));
	assert_int_equal(strncmp(g.id, "sha256:", 7), 0);
	CALL(&g, engine_image_inspect(eng, "no/such:image", on_image, &g));
	assert_int_equal(g.err.code, 404);
	/* a registry that is not there */
	CALL(&g, engine_image_pull(eng, "127.0.0.1:1/no/such:image", "e30=", NULL, on_plain, &g));
	assert_int_equal(g.err.domain, SW_E_HTTP);
	assert_non_null(strstr(g.err.msg, "127.0.0.1:1"));
	CALL(&g, engine_image_pull(eng, "no such image", NULL, NULL, on_plain, &g));
	assert_int_equal(g.err.cls, SW_REJECTED);
	memset(&g, 0, sizeof(g));
	c = engine_image_pull(eng, "127.0.0.1:1/x:1", NULL, NULL, on_plain, &g);
	engine_call_cancel(c);
	CALL(&g, engine_container_inspect(eng, "a b/\xc3\xbc", on_container, &g));
	assert_int_equal(g.err.code, 404);
}

/* ---- logs */

struct reader {
	struct got g;
	char text[4096];
	size_t bytes;
	int n, pauses, every;
	int64_t first_ns, last_ns;
};

static bool on_record(void *arg, struct engine_log_record *rec)
{
	struct reader *r = arg;
	size_t len = strlen(r->text);

	r->n++;
	r->bytes += chain_len(rec->data);
	r->first_ns = r->first_ns ? r->first_ns : rec->time_ns;
	r->last_ns = rec->time_ns;
	if (len + chain_len(rec->data) + 4 < sizeof(r->text)) {
		len += (size_t)sprintf(r->text + len, "%d:", rec->stream);
		r->text[len + chain_peek(rec->data, 0, r->text + len, sizeof(r->text) - len - 1)] =
			'\0';
	}
	if (r->every && r->n % r->every == 0) {
		r->pauses++;
		return false;
	}
	return true;
}

static void on_log_end(void *arg, const struct sw_err *err)
{
	got(&((struct reader *)arg)->g, err);
}

static void wait_exit(const char *name)
{
	struct got g;

	do
		OK(&g, engine_container_inspect(eng, name, on_container, &g));
	while (strcmp(g.status, "running") == 0);
}

static void read_log(struct reader *r, const char *name, struct engine_log_options opt)
{
	opt.out = opt.err = true;
	memset(r, 0, sizeof(*r));
	engine_logs(eng, name, &opt, on_record, on_log_end, r);
	AWAIT_WITHIN(loop, 60, r->g.n);
	if (r->g.err.cls != SW_OK)
		fail_msg("%s", r->g.err.msg);
}

static void test_logs(void **state)
{
	struct engine_log_options all = {.tail = -1};
	struct reader r, s;
	struct got g;

	(void)state;
	create("sw-logs", "echo one; echo two; sleep 0.2; echo three >&2; printf tail",
		",\"HostConfig\":{\"LogConfig\":{\"Type\":\"json-file\",\"Config\":"
		"{\"labels\":\"sw.test\"}}}");
	OK(&g, engine_container_start(eng, "sw-logs", on_plain, &g));
	read_log(&r, "sw-logs", (struct engine_log_options){.tail = -1, .follow = true});
	assert_non_null(strstr(r.text, "1:one\n1:two\n"));
	assert_non_null(strstr(r.text, "2:three\n"));
	assert_true(r.n >= 3); /* 20.10 ends a follow before a last line without newline */
	wait_exit("sw-logs");
	read_log(&r, "sw-logs", all);
	assert_int_equal(r.n, 4);
	read_log(&s, "sw-logs", (struct engine_log_options){.tail = -1, .since_ns = r.last_ns});
	assert_true(s.n >= 1 && s.n < 4); /* inclusive */
	read_log(&s, "sw-logs", (struct engine_log_options){.tail = 1});
	assert_int_equal(s.n, 1);
	removed("sw-logs");
	/* a long line: parts of 16 KiB */
	create("sw-long", "head -c 40000 /dev/zero | tr '\\\\\\\\0' x; echo", NULL);
	OK(&g, engine_container_start(eng, "sw-long", on_plain, &g));
	wait_exit("sw-long");
	read_log(&r, "sw-long", all);
	assert_int_equal(r.bytes, 40001);
	assert_int_equal(r.n, 3);
	removed("sw-long");
	create("sw-tty", "echo one; head -c 20000 /dev/zero | tr '\\\\\\\\0' x; echo; echo two",
		",\"Tty\":true");
	OK(&g, engine_container_start(eng, "sw-tty", on_plain, &g));
	wait_exit("sw-tty");
	read_log(&r, "sw-tty", (struct engine_log_options){.tail = -1, .tty = true});
	assert_int_equal(r.bytes, 5 + 20002 + 5);
	assert_int_equal(r.n, 4);
	removed("sw-tty");
}

static void test_log_pressure(void **state)
{
	enum { LINES = 20000 };
	struct engine_log_options opt = {.tail = -1, .out = true, .follow = true};
	struct engine_call *c;
	struct reader r = {.every = 500};
	struct got g;
	size_t most = 0;
	int resumed = 0;

	(void)state;
	create("sw-much", "yes abcdefghijklmnopqrstuvwxyz | head -n 20000", NULL);
	OK(&g, engine_container_start(eng, "sw-much", on_plain, &g));
	c = engine_logs(eng, "sw-much", &opt, on_record, on_log_end, &r);
	while (!r.g.n) {
		AWAIT(loop, r.pauses > resumed || r.g.n);
		if (block_count() > most)
			most = block_count();
		if (!r.g.n) {
			resumed++;
			engine_logs_resume(c);
		}
	}
	assert_int_equal(r.n, LINES);
	assert_int_equal(r.bytes, 27 * LINES);
	assert_true(most < 16);
	removed("sw-much");
}

static void test_parallel(void **state)
{
	enum { N = 300 };
	struct got *g = xcalloc(N, sizeof(*g));
	uint64_t start = uv_hrtime();
	int n;

	(void)state;
	create("sw-many", "sleep 60", NULL);
	for (int i = 0; i < N; i++)
		engine_container_inspect(eng, "sw-many", on_container, &g[i]);
	do {
		sw_loop_once(loop, true);
		n = 0;
		for (int i = 0; i < N; i++)
			n += g[i].n;
	} while (n < N);
	print_message("%d inspects: %llu ms\n", N,
		(unsigned long long)((uv_hrtime() - start) / SW_NS_PER_MS));
	for (int i = 0; i < N; i++)
		assert_int_equal(g[i].err.cls, SW_OK);
	free(g);
	removed("sw-many");
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_start_fails),
		cmocka_unit_test(test_networks_volumes),
		cmocka_unit_test(test_images),
		cmocka_unit_test(test_logs),
		cmocka_unit_test(test_log_pressure),
		cmocka_unit_test(test_parallel),
	};
	static const struct engine_events_handler h = {on_event, on_connected, on_lost};
	struct engine_config cfg = {.host = getenv("SWARM_TEST_ENGINE")};
	struct json_object *filters = json_tokener_parse("{\"type\":[\"container\"]}");
	struct sw_err err;
	bool closed = false;
	int r;

	image = getenv("SWARM_TEST_IMAGE");
	if (!cfg.host || !image) {
		printf("SKIPPED: SWARM_TEST_ENGINE and SWARM_TEST_IMAGE are not set\n");
		json_object_put(filters);
		return 77;
	}
	if (sw_loop_new(&loop, &err) < 0 || engine_new(&eng, loop, &cfg, &err) < 0) {
		printf("%s\n", err.msg);
		return 1;
	}
	engine_events(eng, filters, &h, NULL);
	json_object_put(filters);
	AWAIT(loop, heard.n_connected);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	engine_close(eng, on_closed, &closed);
	AWAIT(loop, closed);
	if (sw_loop_free(loop) != 0 || block_count() != 0) {
		printf("something was not closed\n");
		return 1;
	}
	return r;
}
