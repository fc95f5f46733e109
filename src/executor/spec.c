#include "spec.h"
#include "extras.h"
#include "ref.h"
#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <strings.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <unistd.h>

/* ---- helpers */

void spec_put_str(struct json_object *o, const char *key, const char *s)
{
	if (!sw_str_empty(s))
		json_object_object_add(o, key, json_object_new_string(s));
}

void spec_put_strs(struct json_object *o, const char *key, char *const *v, size_t n)
{
	struct json_object *a;

	if (!n)
		return;
	a = json_object_new_array_ext((int)n);
	for (size_t i = 0; i < n; i++)
		json_object_array_add(a, json_object_new_string(v[i]));
	json_object_object_add(o, key, a);
}

struct json_object *spec_list(struct json_object *host, const char *key)
{
	struct json_object *a = NULL;

	if (!json_object_object_get_ex(host, key, &a)) {
		a = json_object_new_array();
		json_object_object_add(host, key, a);
	}
	return a;
}

struct json_object *spec_map(Pb__StringPair *const *map, size_t n)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < n; i++)
		json_object_object_add(o, map[i]->key, json_object_new_string(map[i]->value));
	return o;
}

const Pb__ContainerSpec *spec_container(const Pb__Task *t)
{
	if (!t->spec || t->spec->runtime_case != PB__TASK_SPEC__RUNTIME_CONTAINER)
		return NULL;
	return t->spec->container;
}

int64_t spec_grace_s(const Pb__Task *t)
{
	const Pb__ContainerSpec *c = spec_container(t);
	uint64_t ns;

	if (!c || !c->stop_grace_period)
		return -1;
	ns = api_duration_ns(c->stop_grace_period);
	/* up: a process that was promised 1.5 s gets them (dockerd cuts to 1) */
	return (int64_t)(ns / 1000000000u + (ns % 1000000000u != 0));
}

/* ---- checks */

static int check_runtime(const Pb__Task *t, struct sw_err *err)
{
	const Pb__TaskSpec *s = t->spec;

	if (s && s->runtime_case == PB__TASK_SPEC__RUNTIME_GENERIC && s->generic) {
		bool plugin = strcasecmp(s->generic->kind, "plugin") == 0;

		return sw_err_set(err, SW_REJECTED, -ENOTSUP, "unsupported runtime type: \"%s\"",
			plugin ? "plugin" : s->generic->kind);
	}
	if (!spec_container(t))
		return sw_err_set(err, SW_REJECTED, -ENOTSUP, "exec: unsupported runtime");
	return 0;
}

/* What the engine accepts; anything else would come back as an error about a name that no user
 * has ever typed. */
static int check_name(const Pb__Task *t, struct sw_err *err)
{
	sw_auto_free char *name = api_task_name(t);
	bool ok = isalnum((unsigned char)name[0]) && name[1];

	for (const char *p = name; *p; p++)
		ok = ok && (isalnum((unsigned char)*p) || strchr("_.-", *p));
	if (!ok)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"container name \"%.200s\" is not possible: only "
			"[a-zA-Z0-9][a-zA-Z0-9_.-]+ are allowed",
			name);
	return 0;
}

static int check_container(const Pb__ContainerSpec *c, struct sw_err *err)
{
	if (!*c->image)
		return sw_err_set(err, SW_REJECTED, -EINVAL, "dockerexec: image required");
	if (c->pull_options && strpbrk(c->pull_options->registry_auth, "\r\n"))
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"pull_options.registry_auth contains a line break");
	return 0;
}

/* Elsewhere podman's health checks never run, and the task would be "starting" for ever. */
static int check_health(const Pb__ContainerSpec *c, const struct spec_env *env, struct sw_err *err)
{
	const Pb__HealthConfig *h = c->healthcheck;

	if (!env->podman || env->remote || !h || !h->n_test || strcmp(h->test[0], "NONE") == 0 ||
		access("/run/systemd/system", F_OK) == 0)
		return 0;
	return sw_err_set(err, SW_REJECTED, -ENOTSUP,
		"healthcheck: podman runs health checks by systemd timers and this host has no "
		"systemd; use --no-healthcheck, or another engine");
}

int spec_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err)
{
	const Pb__ContainerSpec *c = spec_container(t);
	int r;

	if ((r = check_runtime(t, err)) || (r = check_container(c, err)) ||
		(r = check_name(t, err)) || (r = spec_mounts_check(c, env, err)) ||
		(r = spec_files_check(c, env, err)) || (r = spec_networks_check(t, env, err)) ||
		(r = spec_host_check(t, env, err)) || (r = check_health(c, env, err)))
		return r;
	return 0;
}

/* ---- the body */

static void put_map(struct json_object *o, Pb__StringPair *const *map, size_t n)
{
	for (size_t i = 0; i < n; i++)
		json_object_object_add(o, map[i]->key, json_object_new_string(map[i]->value));
}

/* Later ones win: nobody can spoof what the agent finds its containers by. */
static struct json_object *make_labels(
	const Pb__Task *t, const char *name, const struct spec_env *env)
{
	const Pb__ContainerSpec *c = spec_container(t);
	struct json_object *o = spec_map(c->labels, c->n_labels);
	const struct {
		const char *key, *value;
	} own[] = {
		{SPEC_LABEL_TASK, ""},
		{SPEC_LABEL_TASK_ID, t->id},
		{SPEC_LABEL_TASK_NAME, name},
		{SPEC_LABEL_NODE_ID, t->node_id},
		{SPEC_LABEL_SERVICE_ID, t->service_id},
		{SPEC_LABEL_SERVICE_NAME,
			t->service_annotations ? t->service_annotations->name : ""},
		{SPEC_LABEL_CLUSTER, env->cluster_id ? env->cluster_id : ""},
	};

	if (t->annotations)
		put_map(o, t->annotations->labels, t->annotations->n_labels);
	for (size_t i = 0; i < SW_ARRAY_LEN(own); i++)
		json_object_object_add(o, own[i].key, json_object_new_string(own[i].value));
	return o;
}

static const char *generic_kind(const Pb__GenericResource *g)
{
	switch (g->resource_case) {
	case PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC:
		return g->named_resource_spec->kind;
	case PB__GENERIC_RESOURCE__RESOURCE_DISCRETE_RESOURCE_SPEC:
		return g->discrete_resource_spec->kind;
	default:
		return NULL;
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* DOCKER_RESOURCE_GPU=UUID1,UUID2: one variable per kind, kinds sorted. */
static void add_generic_env(const Pb__Task *t, struct json_object *env)
{
	size_t n = t->n_assigned_generic_resources, n_kinds = 0;
	sw_auto_free const char **kinds = NULL;

	if (!n)
		return;
	kinds = xcalloc(n, sizeof(*kinds));
	for (size_t i = 0; i < n; i++)
		if ((kinds[n_kinds] = generic_kind(t->assigned_generic_resources[i])))
			n_kinds++;
	qsort(kinds, n_kinds, sizeof(*kinds), by_name);
	for (size_t k = 0; k < n_kinds; k++) {
		sw_auto_free char *text = NULL;

		if (k && strcmp(kinds[k], kinds[k - 1]) == 0)
			continue;
		text = xasprintf("DOCKER_RESOURCE_%s=", kinds[k]);
		for (char *p = text; *p; p++)
			*p = (char)toupper((unsigned char)*p);
		for (size_t i = 0, used = 0; i < n; i++) {
			const Pb__GenericResource *g = t->assigned_generic_resources[i];
			const char *kind = generic_kind(g);
			char *more;

			if (!kind || strcmp(kind, kinds[k]) != 0)
				continue;
			if (g->resource_case == PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC)
				more = xasprintf("%s%s%s", text, used ? "," : "",
					g->named_resource_spec->value);
			else
				more = xasprintf("%s%s%lld", text, used ? "," : "",
					(long long)g->discrete_resource_spec->value);
			free(text);
			text = more;
			used++;
		}
		json_object_array_add(env, json_object_new_string(text));
	}
}

static void add_env(const Pb__Task *t, struct json_object *body)
{
	const Pb__ContainerSpec *c = spec_container(t);
	struct json_object *env = json_object_new_array();

	/* an entry without '=' removes the image's variable: it must get there as it is */
	for (size_t i = 0; i < c->n_env; i++)
		json_object_array_add(env, json_object_new_string(c->env[i]));
	add_generic_env(t, env);
	if (json_object_array_length(env))
		json_object_object_add(body, "Env", env);
	else
		json_object_put(env);
}

static void put_ns(struct json_object *o, const char *key, const Pb__Duration *d)
{
	uint64_t ns = api_duration_ns(d);

	if (ns)
		json_object_object_add(o, key, json_object_new_int64((int64_t)ns));
}

static void add_healthcheck(
	const Pb__ContainerSpec *c, const struct spec_env *env, struct json_object *body)
{
	const Pb__HealthConfig *h = c->healthcheck;
	struct json_object *o;

	if (!h)
		return;
	o = json_object_new_object();
	spec_put_strs(o, "Test", h->test, h->n_test);
	put_ns(o, "Interval", h->interval);
	put_ns(o, "Timeout", h->timeout);
	put_ns(o, "StartPeriod", h->start_period);
	if (env->api >= 44)
		put_ns(o, "StartInterval", h->start_interval);
	else if (api_duration_ns(h->start_interval))
		log_warning("health check's start interval needs API 1.44, the interval is used");
	if (h->retries)
		json_object_object_add(o, "Retries", json_object_new_int(h->retries));
	json_object_object_add(body, "Healthcheck", o);
}

/* A command replaces the image's entrypoint, args alone keep it. */
static void add_command(const Pb__ContainerSpec *c, struct json_object *body)
{
	if (c->n_command) {
		spec_put_strs(body, "Entrypoint", c->command, c->n_command);
		if (!c->n_args)
			json_object_object_add(body, "Cmd", json_object_new_array());
	}
	spec_put_strs(body, "Cmd", c->args, c->n_args);
}

int spec_body(const Pb__Task *t, const char *name, const struct spec_env *env,
	struct json_object **ret, struct sw_err *err)
{
	const Pb__ContainerSpec *c = spec_container(t);
	struct json_object *body, *host;
	int64_t grace = spec_grace_s(t);
	sw_auto_free char *image = NULL;
	int r = spec_check(t, env, err);

	if (r || (r = extras_check(t, env, err)))
		return r;
	body = json_object_new_object();
	host = json_object_new_object();
	json_object_object_add(body, "HostConfig", host);
	image = env->podman ? ref_canonical(c->image) : ref_familiar(c->image);
	spec_put_str(body, "Image", image);
	json_object_object_add(body, "Labels", make_labels(t, name, env));
	add_command(c, body);
	add_env(t, body);
	spec_put_str(body, "Hostname", c->hostname);
	spec_put_str(body, "User", c->user);
	spec_put_str(body, "WorkingDir", c->dir);
	json_object_object_add(body, "Tty", json_object_new_boolean(c->tty));
	json_object_object_add(body, "OpenStdin", json_object_new_boolean(c->open_stdin));
	spec_put_str(body, "StopSignal", c->stop_signal);
	if (grace >= 0) /* so that an engine going down keeps the promise too */
		json_object_object_add(body, "StopTimeout", json_object_new_int64(grace));
	add_healthcheck(c, env, body);
	spec_ports_add(t, body, host);
	spec_networks_add(t, env, body, host);
	spec_host_add(t, env, body, host);
	extras_add(t, env, host);
	if ((r = spec_mounts_add(c, env, host, err)) < 0 ||
		(r = spec_files_add(t, env, host, err)) < 0) {
		json_object_put(body);
		return r;
	}
	*ret = body;
	return 0;
}
