/* executor.c - the Docker executor: its life, and what the agent tells it about this node.
 * Controllers are in controller.c, describing in describe.c, orphans in orphans.c. */
#include "docker.h"
#include "generic.h"
#include "policy.h"
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define DEFAULT_STARTS 8
#define DEFAULT_PULLS  4

struct spec_env docker_env(const struct docker *d)
{
	struct spec_env env = {.cluster_id = d->cluster_id, .policy = d->policy};
	const char *v = engine_api_version(d->engine);

	/* versions count 1.41, 1.42 ...; a 2.0 would be newer than all that is compared here */
	if (v)
		env.api = sw_starts_with(v, "1.") ? (int)strtol(v + 2, NULL, 10) : INT_MAX;
	env.remote = !engine_is_local(d->engine);
	env.run_dir = d->run_dir;
	env.podman = v && engine_is_podman(d->engine);
	return env;
}

static void on_changed(void *arg)
{
	struct docker *d = arg;

	if (d->base.changed)
		d->base.changed(d->base.changed_arg);
}

static void docker_configure(struct executor *x, const Pb__Node *node)
{
	struct docker *d = docker_of(x);

	/* kept for what needs the node's labels and attachments; no engine calls */
	api_free(d->node);
	d->node = (Pb__Node *)(void *)api_dup(&node->base);
	if (d->node->description) {
		expand_node_set(&d->node_texts, d->node->description);
		d->node_known = true;
	}
}

static void drop_keys(struct docker *d)
{
	for (size_t i = 0; i < d->n_keys; i++) {
		if (d->keys[i]->key.len)
			sw_wipe(d->keys[i]->key.data, d->keys[i]->key.len);
		api_free(d->keys[i]);
	}
	free(d->keys);
	d->keys = NULL;
	d->n_keys = 0;
}

static int docker_set_keys(
	struct executor *x, Pb__EncryptionKey **keys, size_t n, struct sw_err *err)
{
	struct docker *d = docker_of(x);

	(void)err;
	drop_keys(d);
	if (!n)
		return 0;
	d->keys = xcalloc(n, sizeof(void *));
	for (size_t i = 0; i < n; i++)
		d->keys[i] = (Pb__EncryptionKey *)(void *)api_dup(&keys[i]->base);
	d->n_keys = n;
	return 0;
}

static void docker_set_node(struct executor *x, const char *node_id, const char *cluster_id)
{
	struct docker *d = docker_of(x);
	char *node = xstrdup(node_id), *cluster = xstrdup(cluster_id ? cluster_id : "");

	free(d->node_id);
	free(d->cluster_id);
	d->node_id = node;
	d->cluster_id = cluster;
	watch_open(&d->watch, d->node_id);
}

static void docker_set_deps(struct executor *x, const struct executor_deps *deps)
{
	docker_of(x)->deps = *deps;
}

static void docker_sweep(struct executor *x)
{
	secrets_sweep(&docker_of(x)->secrets);
}

static void on_images_closed(void *arg)
{
	struct docker *d = arg;
	void (*closed)(void *) = d->closed;
	void *closed_arg = d->closed_arg;

	free(d);
	closed(closed_arg);
}

static void on_closing(void *arg)
{
	struct docker *d = arg;

	docker_describe_done(d);
	docker_requests_done(d);
	drop_keys(d);
	api_free(d->node);
	expand_node_done(&d->node_texts);
	gate_done(&d->starts);
	gate_done(&d->net_turn);
	secrets_done(&d->secrets);
	free(d->run_dir);
	policy_free(d->policy);
	api_free(d->generic);
	free(d->hostname);
	free(d->node_id);
	free(d->cluster_id);
	images_close(&d->images, on_images_closed, d);
}

void docker_maybe_closed(struct docker *d)
{
	if (d->closed && !d->n_controllers && !d->n_logs && secrets_idle(&d->secrets))
		sw_timer_arm(&d->closing, 0);
}

static void docker_close(struct executor *x, void (*closed)(void *arg), void *arg)
{
	struct docker *d = docker_of(x);

	assert(!d->n_controllers && !d->closed);
	d->closed = closed;
	d->closed_arg = arg;
	watch_done(&d->watch);
	docker_maybe_closed(d);
}

int docker_executor_new(
	struct executor **ret, const struct docker_executor_config *cfg, struct sw_err *err)
{
	static const struct executor_ops ops = {
		.describe = docker_describe,
		.configure = docker_configure,
		.controller = docker_controller,
		.set_network_bootstrap_keys = docker_set_keys,
		.set_node = docker_set_node,
		.set_deps = docker_set_deps,
		.sweep = docker_sweep,
		.list = docker_list,
		.remove_orphan = docker_remove_orphan,
		.close = docker_close,
	};
	struct policy *policy;
	Pb__Resources *generic = NULL;
	struct docker *d;
	int r;

	if ((unsigned)cfg->pull_policy > DOCKER_PULL_NEVER)
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "unknown pull policy %d", (int)cfg->pull_policy);
	if (cfg->reserve_memory < 0)
		return sw_err_set(err, SW_REJECTED, -EINVAL, "reserve_memory %lld is negative",
			(long long)cfg->reserve_memory);
	if (!sw_str_empty(cfg->run_dir) && *cfg->run_dir != '/')
		return sw_err_set(err, SW_REJECTED, -EINVAL, "run_dir \"%s\" is no absolute path",
			cfg->run_dir);
	if (cfg->generic_resources.n && (r = generic_parse(&generic, &cfg->generic_resources, err)))
		return r;
	if ((r = policy_new(&policy, &cfg->policy, err))) {
		api_free(generic);
		return r;
	}
	d = xcalloc(1, sizeof(*d));
	d->base.ops = &ops;
	d->loop = cfg->loop;
	d->engine = cfg->engine;
	d->hostname = sw_str_empty(cfg->hostname) ? NULL : xstrdup(cfg->hostname);
	d->reserve_memory = cfg->reserve_memory;
	d->policy = policy;
	d->ingress = cfg->ingress;
	d->generic = generic;
	gate_init(&d->starts, d->loop, cfg->max_starts ? cfg->max_starts : DEFAULT_STARTS);
	gate_init(&d->net_turn, cfg->loop, 1);
	images_init(&d->images, d->loop, d->engine, cfg->pull_policy,
		cfg->max_pulls ? cfg->max_pulls : DEFAULT_PULLS, cfg->docker_config);
	watch_init(&d->watch, d->loop, d->engine, on_changed, d);
	d->run_dir = sw_str_empty(cfg->run_dir) ? NULL : xstrdup(cfg->run_dir);
	secrets_init(&d->secrets, d, d->run_dir);
	TAILQ_INIT(&d->requests);
	sw_timer_init(&d->closing, d->loop, on_closing, d);
	*ret = &d->base;
	return 0;
}
