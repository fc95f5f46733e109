/* The engine itself: /info, /plugins, ping. */
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

#define INFO_LIMIT sw_s(120) /* probes run times and disks; nobody waits for it */
#define PING_LIMIT sw_s(5)
#define LIST_LIMIT sw_s(30)

struct engine_call *engine_ping(struct engine *e, engine_done_cb *cb, void *arg)
{
	struct exchange_spec s = {.method = "GET",
		.path = xstrdup("/_ping"),
		.total_ns = PING_LIMIT,
		.own_connection = true,
		.bare = true};

	return unary_start(
		e, &s, false, unary_finish_done, (union unary_cb){.done = cb}, arg, NULL);
}

/* ---- info */

/* "k=v" entries as an object; a repeated key: the last one counts. */
static struct json_object *split_labels(struct json_object *arr)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < js_len(arr); i++) {
		const char *s = js_str_at(arr, i), *eq = strchr(s, '=');
		sw_auto_free char *key = NULL;

		if (!eq || eq == s)
			continue;
		key = xstrndup(s, (size_t)(eq - s));
		json_object_object_add(o, key, json_object_new_string(eq + 1));
	}
	return o;
}

static void finish_info(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	struct json_object *plugins = js_obj(o, "Plugins");
	struct json_object *labels;
	struct engine_info i = {
		.name = js_str(o, "Name"),
		.architecture = js_str(o, "Architecture"),
		.os_type = js_str(o, "OSType"),
		.server_version = js_str(o, "ServerVersion"),
		.id = js_str(o, "ID"),
		.ncpu = js_int(o, "NCPU"),
		.mem_total = js_int(o, "MemTotal"),
		.swarm_state = js_str(js_obj(o, "Swarm"), "LocalNodeState"),
		.generic_resources = js_arr(o, "GenericResources"),
		.live_restore = js_bool(o, "LiveRestoreEnabled"),
		.json = o,
	};

	(void)status;
	if (err) {
		cb.info(arg, NULL, err);
		return;
	}
	labels = split_labels(js_arr(o, "Labels"));
	i.labels = js_pairs(labels, &i.n_labels);
	i.volume_plugins = js_strings(js_arr(plugins, "Volume"), &i.n_volume_plugins);
	i.network_plugins = js_strings(js_arr(plugins, "Network"), &i.n_network_plugins);
	i.authorization_plugins =
		js_strings(js_arr(plugins, "Authorization"), &i.n_authorization_plugins);
	i.log_plugins = js_strings(js_arr(plugins, "Log"), &i.n_log_plugins);
	cb.info(arg, &i, NULL);
	free(i.labels);
	json_object_put(labels);
	free(i.volume_plugins);
	free(i.network_plugins);
	free(i.authorization_plugins);
	free(i.log_plugins);
}

struct engine_call *engine_info(struct engine *e, engine_info_cb *cb, void *arg)
{
	struct exchange_spec s = {.method = "GET",
		.path = xstrdup("/info"),
		.total_ns = INFO_LIMIT,
		.own_connection = true};

	return unary_start(e, &s, true, finish_info, (union unary_cb){.info = cb}, arg, NULL);
}

/* ---- managed plugins */

static const char *plugin_type(const char *capability)
{
	if (strcmp(capability, "volumedriver") == 0)
		return "Volume";
	if (strcmp(capability, "networkdriver") == 0)
		return "Network";
	if (strcmp(capability, "logdriver") == 0)
		return "Log";
	return capability;
}

/* Types are {"Prefix":"docker","Capability":"x","Version":"1.0"} in the documentation and
 * "docker.x/1.0" on the wire. Malloc'd, NULL if it is none of docker's. */
static char *capability(struct json_object *type)
{
	const char *s;

	if (json_object_is_type(type, json_type_object))
		return strcmp(js_str(type, "Prefix"), "docker") == 0
			       ? xstrdup(js_str(type, "Capability"))
			       : NULL;
	if (!json_object_is_type(type, json_type_string))
		return NULL;
	s = json_object_get_string(type);
	if (!sw_starts_with(s, "docker."))
		return NULL;
	s += strlen("docker.");
	return xstrndup(s, strcspn(s, "/"));
}

static void finish_plugins(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	struct engine_pair *p = NULL;
	char **caps = NULL;
	size_t n = 0;

	if (err && status != 404) { /* podman has no such thing */
		cb.plugins(arg, NULL, 0, err);
		return;
	}
	if (!json_object_is_type(o, json_type_array))
		o = NULL;
	for (size_t i = 0; i < js_len(o); i++) {
		struct json_object *pl = json_object_array_get_idx(o, i);
		struct json_object *types =
			js_arr(js_obj(js_obj(pl, "Config"), "Interface"), "Types");

		for (size_t k = 0; js_bool(pl, "Enabled") && k < js_len(types); k++) {
			char *cap = capability(json_object_array_get_idx(types, k));

			if (!cap)
				continue;
			p = xrealloc(p, n + 1, sizeof(*p));
			caps = xrealloc(caps, n + 1, sizeof(*caps));
			caps[n] = cap;
			p[n++] = (struct engine_pair){plugin_type(cap), js_str(pl, "Name")};
		}
	}
	cb.plugins(arg, p, n, NULL);
	for (size_t i = 0; i < n; i++)
		free(caps[i]);
	free(caps);
	free(p);
}

struct engine_call *engine_plugins(struct engine *e, engine_plugins_cb *cb, void *arg)
{
	struct exchange_spec s = {
		.method = "GET", .path = xstrdup("/plugins"), .total_ns = LIST_LIMIT};

	return unary_start(e, &s, true, finish_plugins, (union unary_cb){.plugins = cb}, arg, NULL);
}
