/* localnet.c - node-local networks of tasks: bridge, macvlan, ipvlan.
 *
 * They are made under their Swarm name when a task first needs them and removed with the last
 * task's container. The engine's id of such a network is its own, so a label tells for which Swarm
 * network it was made; one made from a configuration network can carry no label, there the name of
 * that configuration has to agree.
 *
 * Failures: somebody else's network of the name stays untouched and the task is rejected. A network
 * that still has endpoints is left alone. One made from a configuration before the agent was
 * restarted is used again but not removed: it could be the operator's. */
#include "localnet.h"
#include "ctl.h"
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define MAKE_TRIES 3

/* ---- counting */

static struct localnet *hold(struct docker *d, const Pb__Task *t, size_t i)
{
	struct localnet *n;

	LIST_FOREACH(n, &d->localnets, link)
	if (sw_streq(n->swarm_id, spec_network_id(t, i)))
		break;
	if (!n) {
		n = xcalloc(1, sizeof(*n));
		n->name = xstrdup(spec_network_name(t, i));
		n->swarm_id = xstrdup(spec_network_id(t, i));
		n->from_config = *spec_network_config_from(t, i) != '\0';
		LIST_INSERT_HEAD(&d->localnets, n, link);
	}
	n->refs++;
	return n;
}

static void release(struct localnet *n)
{
	if (!n || --n->refs)
		return;
	LIST_REMOVE(n, link);
	free(n->name);
	free(n->swarm_id);
	free(n->made);
	free(n);
}

void ctl_hold_networks(struct ctl *c)
{
	const Pb__Task *t = c->task->pb;

	c->n_nets = spec_n_networks(t);
	c->nets = xcalloc(c->n_nets + 1, sizeof(*c->nets));
	for (size_t i = 0; i < c->n_nets; i++)
		if (spec_network_is_local(t, i))
			c->nets[i] = hold(c->d, t, i);
}

void ctl_release_networks(struct ctl *c)
{
	for (size_t i = 0; i < c->n_nets; i++)
		release(take(c->nets[i]));
	free(take(c->nets));
	c->n_nets = 0;
}

/* ---- the turn */

static void on_turn(void *arg)
{
	steps_done(&((struct ctl *)arg)->op, NULL);
}

void ctl_start_net_turn(struct steps *s)
{
	struct ctl *c = steps_arg(s);
	bool any = false;

	for (size_t i = 0; i < c->n_nets; i++)
		any |= c->nets[i] != NULL;
	if (any)
		gate_enter(&c->d->net_turn, &c->net_turn, on_turn, c);
	else
		steps_done(s, NULL);
}

void ctl_cancel_net_turn(struct steps *s)
{
	gate_leave(&((struct ctl *)steps_arg(s))->net_turn);
}

/* ---- what the engine shows of a network */

static const char *text_at(struct json_object *o, const char *key, const char *sub)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !v)
		return "";
	if (sub)
		return json_object_is_type(v, json_type_object) ? text_at(v, sub, NULL) : "";
	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

static bool is_made_for(struct json_object *o, const char *swarm_id)
{
	return sw_streq(text_at(o, "Labels", SPEC_LABEL_NETWORK), swarm_id);
}

static bool is_the_one(struct json_object *o, const Pb__Task *t, size_t i)
{
	const char *from = spec_network_config_from(t, i);

	return sw_streq(text_at(o, "Name", NULL), spec_network_name(t, i)) &&
	       sw_streq(text_at(o, "Driver", NULL), spec_network_driver(t, i)) &&
	       (*from ? sw_streq(text_at(o, "ConfigFrom", "Network"), from)
		      : is_made_for(o, spec_network_id(t, i)));
}

/* ---- make */

static void make_next(struct ctl *c);

static void on_made(void *arg, const char *id, const struct sw_err *err)
{
	struct ctl *c = arg;
	const Pb__Task *t = c->task->pb;
	struct localnet *n = c->nets[c->at];
	struct sw_err e = SW_ERR_NONE;

	c->call = NULL;
	if (id) {
		log_info("network made", KS("network", n->name), KS("id", id),
			KS("swarm_network", n->swarm_id));
		free(n->made);
		n->made = xstrdup(id);
		c->at++;
		c->tries = 0;
		make_next(c);
	} else if (fault_text(err, "already exists") && ++c->tries < MAKE_TRIES) {
		make_next(c); /* another task was faster: look at it */
	} else if (fault_text(err, "configuration network")) {
		sw_err_set(&e, SW_REJECTED, -ENOENT,
			"network \"%s\": configuration network \"%s\" does not exist on this node; "
			"make it here with \"docker network create --config-only\"",
			n->name, spec_network_config_from(t, c->at));
		steps_done(&c->op, &e);
	} else {
		sw_err_copy(&e, err);
		sw_err_wrap(&e, "network \"%s\"", n->name);
		ctl_fail(c, &e, FAULT_PREPARE);
	}
}

static void on_seen(void *arg, struct json_object *o, const struct sw_err *err)
{
	struct ctl *c = arg;
	const Pb__Task *t = c->task->pb;
	struct spec_env env = docker_env(c->d);
	struct json_object *body;
	struct sw_err e;

	c->call = NULL;
	if (o && is_the_one(o, t, c->at)) {
		c->at++;
		make_next(c);
	} else if (o) {
		sw_err_set(&e, SW_REJECTED, -EEXIST,
			"network \"%s\" exists on this node but was not made for Swarm network %s; "
			"rename or remove it",
			spec_network_name(t, c->at), spec_network_id(t, c->at));
		steps_done(&c->op, &e);
	} else if (!fault_http(err, 404)) {
		ctl_fail(c, err, FAULT_READ);
	} else if (!env.api) {
		sw_err_set(&e, SW_TEMPORARY, -EAGAIN, "the engine's API version is not known");
		steps_done(&c->op, &e);
	} else {
		body = spec_network_body(t, c->at, &env);
		c->call = engine_network_create(c->d->engine, body, on_made, c);
		json_object_put(body);
	}
}

static void make_next(struct ctl *c)
{
	const Pb__Task *t = c->task->pb;

	while (c->at < c->n_nets && !c->nets[c->at])
		c->at++;
	if (c->at >= c->n_nets || c->at >= spec_n_networks(t)) {
		c->tries = 0;
		gate_leave(&c->net_turn);
		steps_done(&c->op, NULL);
	} else {
		c->call = engine_network_inspect(c->d->engine, c->nets[c->at]->name, on_seen, c);
	}
}

void ctl_make_networks(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->at = 0;
	c->tries = 0;
	make_next(c);
}

/* ---- remove */

static void remove_next(struct ctl *c);

static void on_gone(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;
	struct localnet *n = c->nets[c->at];

	c->call = NULL;
	if (err && err->cls && !fault_http(err, 404) && !fault_http(err, 403)) {
		ctl_fail(c, err, FAULT_REMOVE);
		return;
	}
	if (!err || !err->cls)
		log_info("network removed", KS("network", n->name));
	free(take(n->made));
	release(take(c->nets[c->at]));
	c->at++;
	remove_next(c);
}

static void remove_id(struct ctl *c, const char *id)
{
	c->call = engine_network_remove(c->d->engine, id, on_gone, c);
}

static void on_looked(void *arg, struct json_object *o, const struct sw_err *err)
{
	struct ctl *c = arg;
	struct localnet *n = c->nets[c->at];

	c->call = NULL;
	if (!o && !fault_http(err, 404)) {
		ctl_fail(c, err, FAULT_REMOVE);
	} else if (o && is_made_for(o, n->swarm_id)) {
		remove_id(c, text_at(o, "Id", NULL));
	} else {
		release(take(c->nets[c->at]));
		c->at++;
		remove_next(c);
	}
}

static void remove_next(struct ctl *c)
{
	for (; c->at < c->n_nets; c->at++) {
		struct localnet *n = c->nets[c->at];

		if (!n)
			continue;
		if (n->refs > 1 || (n->from_config && !n->made)) {
			release(take(c->nets[c->at]));
			continue;
		}
		if (n->made)
			remove_id(c, n->made);
		else
			c->call = engine_network_inspect(c->d->engine, n->name, on_looked, c);
		return;
	}
	steps_done(&c->op, NULL);
}

void ctl_remove_networks(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->at = 0;
	remove_next(c);
}
