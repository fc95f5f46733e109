/* describe.c - the node as the manager's scheduler sees it. The order of every list
 * is part of the contract: an equal description must be an equal message. */
#include "docker.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define GENERIC_MAX 4096

static char *pb_str(const char *s)
{
	/* what protobuf-c would free: an empty text is its own constant */
	return sw_str_empty(s) ? (char *)protobuf_c_empty_string : xstrdup(s);
}

/* The constraint node.platform.arch compares text, and dockerd speaks like uname. */
static const char *architecture(const char *arch, bool podman)
{
	if (!podman)
		return arch;
	if (sw_streq(arch, "amd64"))
		return "x86_64";
	if (sw_streq(arch, "arm64"))
		return "aarch64";
	return sw_streq(arch, "386") ? "i686" : arch;
}

/* ---- generic resources */

static const char *kind_of(const Pb__GenericResource *g)
{
	return g->resource_case == PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC
		       ? g->named_resource_spec->kind
		       : g->discrete_resource_spec->kind;
}

static int by_kind(const void *pa, const void *pb)
{
	const Pb__GenericResource *a = *(Pb__GenericResource *const *)pa;
	const Pb__GenericResource *b = *(Pb__GenericResource *const *)pb;
	int r = strcmp(kind_of(a), kind_of(b));

	if (r)
		return r;
	if (a->resource_case != b->resource_case)
		return a->resource_case < b->resource_case ? -1 : 1;
	if (a->resource_case == PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC)
		return strcmp(a->named_resource_spec->value, b->named_resource_spec->value);
	return (a->discrete_resource_spec->value > b->discrete_resource_spec->value) -
	       (a->discrete_resource_spec->value < b->discrete_resource_spec->value);
}

/* {"NamedResourceSpec":{"Kind","Value"}} or {"DiscreteResourceSpec":{...}}; NULL: neither. */
static Pb__GenericResource *generic_resource(struct json_object *o)
{
	Pb__GenericResource *g;
	struct json_object *spec, *kind, *value;
	bool named = json_object_object_get_ex(o, "NamedResourceSpec", &spec) && spec;

	if (!named && (!json_object_object_get_ex(o, "DiscreteResourceSpec", &spec) || !spec))
		return NULL;
	if (!json_object_object_get_ex(spec, "Kind", &kind) ||
		!json_object_object_get_ex(spec, "Value", &value))
		return NULL;
	g = xcalloc(1, sizeof(*g));
	pb__generic_resource__init(g);
	if (named) {
		Pb__NamedGenericResource *r = xcalloc(1, sizeof(*r));

		pb__named_generic_resource__init(r);
		r->kind = pb_str(json_object_get_string(kind));
		r->value = pb_str(json_object_get_string(value));
		g->resource_case = PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC;
		g->named_resource_spec = r;
	} else {
		Pb__DiscreteGenericResource *r = xcalloc(1, sizeof(*r));

		pb__discrete_generic_resource__init(r);
		r->kind = pb_str(json_object_get_string(kind));
		r->value = json_object_get_int64(value);
		g->resource_case = PB__GENERIC_RESOURCE__RESOURCE_DISCRETE_RESOURCE_SPEC;
		g->discrete_resource_spec = r;
	}
	return g;
}

/* What the operator says wins over what the engine says. */
static void add_own_generic(Pb__Resources *r, const Pb__Resources *own)
{
	r->n_generic = own->n_generic;
	r->generic = xcalloc(r->n_generic + 1, sizeof(void *));
	for (size_t i = 0; i < r->n_generic; i++)
		r->generic[i] = (Pb__GenericResource *)(void *)api_dup(&own->generic[i]->base);
	qsort(r->generic, r->n_generic, sizeof(void *), by_kind);
}

static void add_generic(Pb__Resources *r, struct json_object *list)
{
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

	if (n > GENERIC_MAX) {
		log_warning("the engine lists too many generic resources, the rest is left out",
			KU("listed", n), KU("kept", GENERIC_MAX));
		n = GENERIC_MAX;
	}
	if (!n)
		return;
	r->generic = xcalloc(n, sizeof(void *));
	for (size_t i = 0; i < n; i++)
		if ((r->generic[r->n_generic] =
				    generic_resource(json_object_array_get_idx(list, i))))
			r->n_generic++;
	/* the engine's order changes from start to start */
	qsort(r->generic, r->n_generic, sizeof(void *), by_kind);
}

/* ---- plugins */

static void put_plugin(Pb__EngineDescription *e, const char *type, const char *name)
{
	Pb__PluginDescription *p = xcalloc(1, sizeof(*p));

	pb__plugin_description__init(p);
	p->type = pb_str(type);
	p->name = pb_str(name);
	e->plugins = xrealloc(e->plugins, e->n_plugins + 1, sizeof(void *));
	e->plugins[e->n_plugins++] = p;
}

static void add_plugin(Pb__EngineDescription *e, const char *type, const char *name)
{
	/* The scheduler sends a task only where all its networks' drivers are listed: without
	 * "overlay" it keeps the tasks away that could not run here. */
	if (!sw_streq(type, "Network") || !sw_streq(name, "overlay"))
		put_plugin(e, type, name);
}

static void add_plugins(
	Pb__EngineDescription *e, const char *type, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add_plugin(e, type, names[i]);
}

static int by_type(const void *pa, const void *pb)
{
	const Pb__PluginDescription *a = *(Pb__PluginDescription *const *)pa;
	const Pb__PluginDescription *b = *(Pb__PluginDescription *const *)pb;
	int r = strcmp(a->type, b->type);

	return r ? r : strcmp(a->name, b->name);
}

static void sort_plugins(Pb__EngineDescription *e)
{
	size_t n = 0;

	if (!e->n_plugins)
		return;
	qsort(e->plugins, e->n_plugins, sizeof(void *), by_type);
	for (size_t i = 0; i < e->n_plugins; i++) {
		if (n && by_type(&e->plugins[n - 1], &e->plugins[i]) == 0)
			api_free(e->plugins[i]);
		else
			e->plugins[n++] = e->plugins[i];
	}
	e->n_plugins = n;
}

/* ---- labels: the last value of a key wins */

static int by_key(const void *pa, const void *pb)
{
	const Pb__StringPair *a = *(Pb__StringPair *const *)pa, *b = *(Pb__StringPair *const *)pb;

	return strcmp(a->key, b->key);
}

static void add_labels(Pb__EngineDescription *e, const struct engine_pair *labels, size_t n)
{
	if (!n)
		return;
	e->labels = xcalloc(n, sizeof(void *));
	for (size_t i = 0; i < n; i++) {
		Pb__StringPair *p;
		bool later = false;

		for (size_t k = i + 1; k < n && !later; k++)
			later = sw_streq(labels[i].key, labels[k].key);
		if (later)
			continue;
		p = xcalloc(1, sizeof(*p));
		pb__string_pair__init(p);
		p->key = pb_str(labels[i].key);
		p->value = pb_str(labels[i].value);
		e->labels[e->n_labels++] = p;
	}
	qsort(e->labels, e->n_labels, sizeof(void *), by_key);
}

/* ---- the calls */

static Pb__NodeDescription *description(const struct docker *d, const struct engine_info *info)
{
	Pb__NodeDescription *n = xcalloc(1, sizeof(*n));
	Pb__Platform *p = xcalloc(1, sizeof(*p));
	Pb__Resources *r = xcalloc(1, sizeof(*r));
	Pb__EngineDescription *e = xcalloc(1, sizeof(*e));
	bool podman = engine_is_podman(d->engine);
	int64_t memory = info->mem_total - d->reserve_memory;

	pb__node_description__init(n);
	pb__platform__init(p);
	pb__resources__init(r);
	pb__engine_description__init(e);
	n->hostname = pb_str(d->hostname ? d->hostname : info->name);
	n->platform = p;
	n->resources = r;
	n->engine = e;
	p->architecture = pb_str(architecture(info->architecture, podman));
	p->os = pb_str(info->os_type);
	if (__builtin_mul_overflow(info->ncpu, (int64_t)1000000000, &r->nano_cpus))
		r->nano_cpus = INT64_MAX;
	r->memory_bytes = memory > 0 ? memory : 0;
	if (d->generic)
		add_own_generic(r, d->generic);
	else
		add_generic(r, info->generic_resources);
	e->engine_version = pb_str(info->server_version);
	add_labels(e, info->labels, info->n_labels);
	add_plugins(e, "Volume", info->volume_plugins, info->n_volume_plugins);
	add_plugins(e, "Network", info->network_plugins, info->n_network_plugins);
	if (d->ingress == DOCKER_INGRESS_HOST_PORT)
		put_plugin(e, "Network", "overlay"); /* the ingress network is one */
	add_plugins(e, "Authorization", info->authorization_plugins, info->n_authorization_plugins);
	add_plugins(e, "Log", info->log_plugins, info->n_log_plugins);
	if (podman) { /* accepted, but not in its lists; schedulers go by them */
		add_plugin(e, "Log", "json-file");
		add_plugin(e, "Network", "host");
		add_plugin(e, "Network", "null");
	}
	return n;
}

static void finish(struct docker *d, const struct sw_err *err)
{
	executor_describe_cb *cb = take(d->describe.cb);
	Pb__NodeDescription *desc = take(d->describe.desc);

	cb(d->describe.arg, err ? NULL : desc, err);
	api_free(desc);
}

static void on_plugins(void *arg, const struct engine_pair *p, size_t n, const struct sw_err *err)
{
	struct docker *d = arg;
	Pb__EngineDescription *e = d->describe.desc->engine;

	d->describe.call = NULL;
	if (err && err->cls) {
		/* not worth losing the node for */
		if (!d->describe.plugins_failed)
			log_warning(
				"managed plugins are not known, described without them", KERR(err));
		d->describe.plugins_failed = true;
	} else {
		d->describe.plugins_failed = false;
		for (size_t i = 0; i < n; i++)
			add_plugin(e, p[i].key, p[i].value);
	}
	sort_plugins(e);
	finish(d, NULL);
}

static void on_info(void *arg, const struct engine_info *info, const struct sw_err *err)
{
	struct docker *d = arg;

	d->describe.call = NULL;
	if (!info) {
		finish(d, err);
		return;
	}
	secrets_engine(&d->secrets, info);
	d->describe.desc = description(d, info);
	if (!d->node_known)
		expand_node_set(&d->node_texts, d->describe.desc);
	d->describe.call = engine_plugins(d->engine, on_plugins, d);
}

void docker_describe(struct executor *x, executor_describe_cb *cb, void *arg)
{
	struct docker *d = docker_of(x);

	assert(!d->describe.cb);
	d->describe.cb = cb;
	d->describe.arg = arg;
	d->describe.call = engine_info(d->engine, on_info, d);
}

void docker_describe_done(struct docker *d)
{
	struct sw_err err;

	engine_call_cancel(take(d->describe.call));
	if (!d->describe.cb)
		return;
	sw_err_set(&err, SW_CANCELLED, -ECANCELED, "executor closed");
	finish(d, &err);
}
