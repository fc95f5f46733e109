/* Containers: create, look, start, stop, kill, remove, list. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#include "engine-internal.h"

/* Limits by call: an engine may be slow at some things, but not at all of them. */
#define CREATE_LIMIT sw_s(120)
#define START_LIMIT  sw_s(300)
#define LOOK_LIMIT   sw_s(30)
#define REMOVE_LIMIT sw_s(60)
#define KILL_LIMIT   sw_s(60)
#define STOP_EXTRA_S 30
#define MAX_GRACE_S  (10ll * 365 * 86400)
#define MAX_PORTS    65536

/* ---- what inspect says */

const char *engine_container_label(const struct engine_container *c, const char *key)
{
	for (size_t i = 0; i < c->n_labels; i++)
		if (strcmp(c->labels[i].key, key) == 0)
			return c->labels[i].value;
	return NULL;
}

static int port_cmp(const void *va, const void *vb)
{
	const struct engine_port *a = va, *b = vb;
	int r = strcmp(a->protocol, b->protocol);

	if (r == 0)
		r = a->target - b->target;
	return r ? r : a->published - b->published;
}

static uint16_t port_number(const char *s, size_t n)
{
	unsigned v = 0;

	if (!n || n > 5)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return 0;
		v = v * 10 + (unsigned)(s[i] - '0');
	}
	return v > 65535 ? 0 : (uint16_t)v;
}

/* {"80/tcp":[{"HostIp","HostPort"}],"81/tcp":null}; engines with IPv6 list every port twice. */
static struct engine_port *ports(struct json_object *map, size_t *n)
{
	struct engine_port *p = NULL;
	size_t len = 0, k = 0;

	*n = 0;
	if (!map)
		return NULL;
	json_object_object_foreach(map, key, list)
	{
		const char *slash = strchr(key, '/');
		uint16_t target = port_number(key, slash ? (size_t)(slash - key) : strlen(key));

		if (!json_object_is_type(list, json_type_array) || !target)
			continue;
		for (size_t i = 0; i < js_len(list) && len < MAX_PORTS; i++) {
			const char *host = js_str(json_object_array_get_idx(list, i), "HostPort");
			uint16_t published = port_number(host, strlen(host));

			if (!published)
				continue;
			p = xrealloc(p, len + 1, sizeof(*p));
			p[len++] =
				(struct engine_port){slash ? slash + 1 : "tcp", target, published};
		}
	}
	if (len)
		qsort(p, len, sizeof(*p), port_cmp);
	for (size_t i = 0; i < len; i++)
		if (!k || port_cmp(&p[k - 1], &p[i]) != 0)
			p[k++] = p[i];
	*n = k;
	return p;
}

static const char *failed_probe(struct json_object *health)
{
	struct json_object *log = js_arr(health, "Log");

	for (size_t i = js_len(log); i-- > 0;) {
		struct json_object *probe = json_object_array_get_idx(log, i);

		if (js_int(probe, "ExitCode") != 0)
			return js_str(probe, "Output");
	}
	return "";
}

static const char *plain_name(const char *name)
{
	return *name == '/' ? name + 1 : name;
}

static void finish_inspect(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	struct json_object *state = js_obj(o, "State"), *config = js_obj(o, "Config");
	struct json_object *health = js_obj(state, "Health");
	struct json_object *test = js_arr(js_obj(config, "Healthcheck"), "Test");
	struct engine_container c = {
		.id = js_str(o, "Id"),
		.name = plain_name(js_str(o, "Name")),
		.status = js_str(state, "Status"),
		.running = js_bool(state, "Running"),
		.paused = js_bool(state, "Paused"),
		.oom_killed = js_bool(state, "OOMKilled"),
		.has_healthcheck = js_len(test) && *js_str_at(test, 0) &&
				   strcmp(js_str_at(test, 0), "NONE") != 0,
		.health = js_str(health, "Status"),
		.health_output = failed_probe(health),
		.pid = js_int(state, "Pid"),
		.exit_code = (int)js_int(state, "ExitCode"),
		.error = js_str(state, "Error"),
		.started_at = js_str(state, "StartedAt"),
		.finished_at = js_str(state, "FinishedAt"),
		.json = o,
	};
	struct sw_err bad;

	(void)status;
	if (!err && (!*c.id || !*c.status)) {
		sw_err_set(&bad, SW_TEMPORARY, -EPROTO,
			"the engine's answer to inspect has no Id or no State.Status");
		err = &bad;
	}
	if (err) {
		cb.container(arg, NULL, err);
		return;
	}
	c.labels = js_pairs(js_obj(config, "Labels"), &c.n_labels);
	c.ports = ports(js_obj(js_obj(o, "NetworkSettings"), "Ports"), &c.n_ports);
	cb.container(arg, &c, NULL);
	free(c.labels);
	free(c.ports);
}

/* ---- calls on one container */

static char *path_of(const char *id, const char *tail)
{
	sw_auto_free char *name = http_escape(id ? id : "", false);

	return xasprintf("/containers/%s%s", name, tail);
}

struct engine_call *engine_container_inspect(
	struct engine *e, const char *id, engine_container_cb *cb, void *arg)
{
	struct exchange_spec s = {
		.method = "GET", .path = path_of(id, "/json"), .total_ns = LOOK_LIMIT};
	struct sw_err early;

	return unary_start(e, &s, true, finish_inspect, (union unary_cb){.container = cb}, arg,
		engine_check_name("container inspect", id, &early));
}

static struct engine_call *simple(struct engine *e, const char *what, const char *id,
	struct exchange_spec *s, engine_done_cb *cb, void *arg)
{
	struct sw_err early;

	return unary_start(e, s, false, unary_finish_done, (union unary_cb){.done = cb}, arg,
		engine_check_name(what, id, &early));
}

struct engine_call *engine_container_start(
	struct engine *e, const char *id, engine_done_cb *cb, void *arg)
{
	struct exchange_spec s = {.method = "POST",
		.path = path_of(id, "/start"),
		.total_ns = START_LIMIT,
		.own_connection = true};

	return simple(e, "container start", id, &s, cb, arg);
}

struct engine_call *engine_container_stop(
	struct engine *e, const char *id, int64_t grace_s, engine_done_cb *cb, void *arg)
{
	struct exchange_spec s = {.method = "POST", .own_connection = true};
	sw_auto_free char *tail = NULL;

	if (grace_s > MAX_GRACE_S)
		grace_s = MAX_GRACE_S;
	/* Without a grace period of ours only the engine knows how long it takes. */
	tail = grace_s < 0 ? xstrdup("/stop") : xasprintf("/stop?t=%" PRId64, grace_s);
	s.path = path_of(id, tail);
	if (grace_s >= 0)
		s.total_ns = sw_s((uint64_t)grace_s + STOP_EXTRA_S);
	return simple(e, "container stop", id, &s, cb, arg);
}

struct engine_call *engine_container_kill(
	struct engine *e, const char *id, const char *signal, engine_done_cb *cb, void *arg)
{
	sw_auto_free char *sig = http_escape(signal, false);
	sw_auto_free char *tail = xasprintf("/kill?signal=%s", sig);
	struct exchange_spec s = {
		.method = "POST", .path = path_of(id, tail), .total_ns = KILL_LIMIT};

	return simple(e, "container kill", id, &s, cb, arg);
}

struct engine_call *engine_container_remove(
	struct engine *e, const char *id, bool volumes, engine_done_cb *cb, void *arg)
{
	struct exchange_spec s = {.method = "DELETE",
		.path = path_of(id, volumes ? "?force=1&v=1" : "?force=1"),
		.total_ns = REMOVE_LIMIT};

	return simple(e, "container remove", id, &s, cb, arg);
}

/* ---- create */

static void finish_create(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	struct json_object *warnings = js_arr(o, "Warnings");
	const char *id = js_str(o, "Id");
	struct sw_err bad;

	(void)status;
	if (!err && !*id) {
		sw_err_set(&bad, SW_TEMPORARY, -EPROTO, "the engine's answer to create has no Id");
		err = &bad;
	}
	for (size_t i = 0; !err && i < js_len(warnings); i++)
		log_warning("engine warns about a container", KS("container", id),
			KS("warning", js_str_at(warnings, i)));
	cb.id(arg, err ? NULL : id, err);
}

struct engine_call *engine_container_create(
	struct engine *e, const char *name, struct json_object *body, engine_id_cb *cb, void *arg)
{
	sw_auto_free char *esc = http_escape(name ? name : "", false);
	struct chain json = {0};
	struct exchange_spec s = {.method = "POST",
		.path = xasprintf("/containers/create?name=%s", esc),
		.body = &json,
		.total_ns = CREATE_LIMIT,
		.own_connection = true};
	struct sw_err early;

	json_to_chain(body, &json);
	return unary_start(e, &s, true, finish_create, (union unary_cb){.id = cb}, arg,
		engine_check_name("container create", name, &early));
}

/* ---- list */

static void finish_list(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	struct engine_container *c;
	struct sw_err bad;
	size_t n;

	(void)status;
	if (!err && o && !json_object_is_type(o, json_type_array)) {
		sw_err_set(&bad, SW_TEMPORARY, -EPROTO, "the engine's container list is no list");
		err = &bad;
	}
	if (err) {
		cb.list(arg, NULL, 0, err);
		return;
	}
	n = js_len(o);
	c = calloc(n + 1, sizeof(*c));
	if (!c) {
		sw_err_set(&bad, SW_TEMPORARY, -ENOMEM, "no memory for %zu containers", n);
		cb.list(arg, NULL, 0, &bad);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		struct json_object *it = json_object_array_get_idx(o, i);
		struct json_object *names = js_arr(it, "Names");

		c[i] = (struct engine_container){.id = js_str(it, "Id"),
			.name = js_len(names) ? plain_name(js_str_at(names, 0)) : "",
			.status = js_str(it, "State"),
			.health = "",
			.health_output = "",
			.error = "",
			.started_at = "",
			.finished_at = "",
			.json = it};
		c[i].running =
			strcmp(c[i].status, "running") == 0 || strcmp(c[i].status, "paused") == 0;
		c[i].paused = strcmp(c[i].status, "paused") == 0;
		c[i].labels = js_pairs(js_obj(it, "Labels"), &c[i].n_labels);
	}
	cb.list(arg, c, n, NULL);
	for (size_t i = 0; i < n; i++)
		free(c[i].labels);
	free(c);
}

struct engine_call *engine_container_list(
	struct engine *e, const char *const *labels, size_t n_labels, engine_list_cb *cb, void *arg)
{
	struct json_object *filters = json_object_new_object(), *arr = json_object_new_array();
	sw_auto_free char *esc = NULL;
	struct exchange_spec s = {.method = "GET", .total_ns = LOOK_LIMIT};

	for (size_t i = 0; i < n_labels; i++)
		json_object_array_add(arr, json_object_new_string(labels[i]));
	json_object_object_add(filters, "label", arr);
	esc = http_escape(json_object_to_json_string_ext(filters, JSON_C_TO_STRING_PLAIN), false);
	json_object_put(filters);
	s.path = xasprintf("/containers/json?all=1&filters=%s", esc);
	return unary_start(e, &s, true, finish_list, (union unary_cb){.list = cb}, arg, NULL);
}
