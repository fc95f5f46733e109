/* Networks and volumes. */
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#include "engine-internal.h"

#define LOOK_LIMIT   sw_s(30)
#define CREATE_LIMIT sw_s(45) /* an unknown driver makes the engine look for a plugin for 15 s */
#define REMOVE_LIMIT sw_s(60)

static char *path_of(const char *name, const char *tail)
{
	sw_auto_free char *esc = http_escape(name ? name : "", false);

	return xasprintf("/networks/%s%s", esc, tail);
}

static void finish_json(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	struct sw_err bad;

	(void)status;
	if (!err && !json_object_is_type(o, json_type_object)) {
		sw_err_set(&bad, SW_TEMPORARY, -EPROTO, "the engine's answer is no JSON object");
		err = &bad;
	}
	cb.json(arg, err ? NULL : o, err);
}

struct engine_call *engine_network_inspect(
	struct engine *e, const char *name, engine_json_cb *cb, void *arg)
{
	struct exchange_spec s = {
		.method = "GET", .path = path_of(name, ""), .total_ns = LOOK_LIMIT};
	struct sw_err early;

	return unary_start(e, &s, true, finish_json, (union unary_cb){.json = cb}, arg,
		engine_check_name("network inspect", name, &early));
}

static void finish_create(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	const char *id = js_str(o, "Id");
	struct sw_err bad;

	(void)status;
	if (!err && !*id) {
		sw_err_set(&bad, SW_TEMPORARY, -EPROTO,
			"the engine's answer to network create has no Id");
		err = &bad;
	}
	if (!err && *js_str(o, "Warning"))
		log_warning("engine warns about a network", KS("network", id),
			KS("warning", js_str(o, "Warning")));
	cb.id(arg, err ? NULL : id, err);
}

struct engine_call *engine_network_create(
	struct engine *e, struct json_object *body, engine_id_cb *cb, void *arg)
{
	struct chain json = {0};
	struct exchange_spec s = {.method = "POST",
		.path = xstrdup("/networks/create"),
		.body = &json,
		.total_ns = CREATE_LIMIT,
		.own_connection = true};

	json_to_chain(body, &json);
	return unary_start(e, &s, true, finish_create, (union unary_cb){.id = cb}, arg, NULL);
}

struct engine_call *engine_network_remove(
	struct engine *e, const char *id, engine_done_cb *cb, void *arg)
{
	struct exchange_spec s = {
		.method = "DELETE", .path = path_of(id, ""), .total_ns = REMOVE_LIMIT};
	struct sw_err early;

	return unary_start(e, &s, false, unary_finish_done, (union unary_cb){.done = cb}, arg,
		engine_check_name("network remove", id, &early));
}

struct engine_call *engine_network_connect(struct engine *e, const char *network,
	const char *container, struct json_object *endpoint, engine_done_cb *cb, void *arg)
{
	struct json_object *o = json_object_new_object();
	struct chain json = {0};
	struct exchange_spec s = {.method = "POST",
		.path = path_of(network, "/connect"),
		.body = &json,
		.total_ns = LOOK_LIMIT};
	struct sw_err early;
	const struct sw_err *bad = engine_check_name("network connect", network, &early);

	json_object_object_add(o, "Container", json_object_new_string(container));
	if (endpoint)
		json_object_object_add(o, "EndpointConfig", json_object_get(endpoint));
	json_to_chain(o, &json);
	json_object_put(o);
	if (!bad)
		bad = engine_check_name("network connect", container, &early);
	return unary_start(e, &s, false, unary_finish_done, (union unary_cb){.done = cb}, arg, bad);
}

struct engine_call *engine_volume_create(
	struct engine *e, struct json_object *body, engine_json_cb *cb, void *arg)
{
	struct chain json = {0};
	struct exchange_spec s = {.method = "POST",
		.path = xstrdup("/volumes/create"),
		.body = &json,
		.total_ns = CREATE_LIMIT,
		.own_connection = true};

	json_to_chain(body, &json);
	return unary_start(e, &s, true, finish_json, (union unary_cb){.json = cb}, arg, NULL);
}
