/* networks.c - networks and published ports of a task. */
#include "spec.h"
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

#define PREDEFINED_LABEL "com.docker.swarm.predefined"

static const char *const protocols[] = {
	[PB__PORT_CONFIG__PROTOCOL__TCP] = "tcp",
	[PB__PORT_CONFIG__PROTOCOL__UDP] = "udp",
	[PB__PORT_CONFIG__PROTOCOL__SCTP] = "sctp",
};

static const Pb__NetworkSpec *network_spec(const Pb__NetworkAttachment *a)
{
	return a->network ? a->network->spec : NULL;
}

static const char *network_name(const Pb__NetworkAttachment *a)
{
	const Pb__NetworkSpec *s = network_spec(a);

	return s && s->annotations ? s->annotations->name : "";
}

/* "host" and "bridge": managers make these so that services may name them. */
static bool is_predefined(const Pb__NetworkAttachment *a)
{
	const Pb__NetworkSpec *s = network_spec(a);
	const char *v = s && s->annotations ? api_map_get(s->annotations->labels,
						      s->annotations->n_labels, PREDEFINED_LABEL)
					    : NULL;

	return sw_streq(v, "true");
}

/* ---- checks */

static int check_ports(const Pb__Endpoint *e, struct sw_err *err)
{
	for (size_t i = 0; e && i < e->n_ports; i++) {
		const Pb__PortConfig *p = e->ports[i];

		if (p->publish_mode != PB__PORT_CONFIG__PUBLISH_MODE__HOST)
			return sw_err_set(err, SW_REJECTED, -ENOTSUP,
				"service publishes port %" PRIu32
				" in ingress mode: the agent runs outside the engine's swarm mode "
				"and has no routing mesh; use mode=host",
				p->published_port ? p->published_port : p->target_port);
		if ((size_t)p->protocol >= SW_ARRAY_LEN(protocols))
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"published port %" PRIu32 ": unknown protocol %d",
				p->published_port, (int)p->protocol);
		if (!p->target_port || p->target_port > 65535 || p->published_port > 65535)
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"published port %" PRIu32 " for target port %" PRIu32
				": ports are 1 to 65535",
				p->published_port, p->target_port);
	}
	return 0;
}

static const char *driver_of(const Pb__NetworkAttachment *a)
{
	const Pb__NetworkSpec *s = network_spec(a);

	if (a->network->driver_state && *a->network->driver_state->name)
		return a->network->driver_state->name;
	return s->driver_config ? s->driver_config->name : "";
}

static const char *config_from(const Pb__NetworkSpec *s)
{
	return s->config_from_case == PB__NETWORK_SPEC__CONFIG_FROM_NETWORK ? s->network : "";
}

static bool is_local(const Pb__NetworkAttachment *a)
{
	static const char *const drivers[] = {"bridge", "macvlan", "ipvlan"};

	if (is_predefined(a))
		return false;
	for (size_t i = 0; i < SW_ARRAY_LEN(drivers); i++)
		if (sw_streq(driver_of(a), drivers[i]))
			return true;
	return false;
}

static int check_network(
	const Pb__NetworkAttachment *a, const struct spec_env *env, struct sw_err *err)
{
	const Pb__NetworkSpec *s = network_spec(a);
	const char *name = network_name(a);

	if (!s || !*name)
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "network attachment without a network name");
	if (is_predefined(a))
		return 0;
	if (!is_local(a))
		return sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"network \"%s\" (driver %s) cannot be provided on this node: the agent "
			"runs "
			"outside the engine's swarm mode; publish ports with mode=host or attach "
			"the service to host, bridge or a node-local network",
			name, *driver_of(a) ? driver_of(a) : "overlay");
	if (env->podman && *config_from(s))
		return sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"network \"%s\" takes its configuration from network \"%s\": podman has no "
			"such networks",
			name, config_from(s));
	return 0;
}

int spec_networks_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err)
{
	/* ports first: a port in ingress mode is the cause, the ingress network its consequence */
	int r = check_ports(t->endpoint, err);

	for (size_t i = 0; i < t->n_networks && !r; i++)
		r = check_network(t->networks[i], env, err);
	return r;
}

/* ---- into the body */

size_t spec_n_networks(const Pb__Task *t)
{
	return t->n_networks;
}

const char *spec_network_name(const Pb__Task *t, size_t i)
{
	return network_name(t->networks[i]);
}

/* The engine has no record of services: names of this task, for its neighbours on the network. */
static struct json_object *aliases(const Pb__Task *t, const Pb__NetworkAttachment *a)
{
	struct json_object *list = json_object_new_array();
	const char *service = t->service_annotations ? t->service_annotations->name : "";

	for (size_t i = 0; i < a->n_aliases; i++)
		json_object_array_add(list, json_object_new_string(a->aliases[i]));
	if (*service) {
		sw_auto_free char *tasks = xasprintf("tasks.%s", service);

		json_object_array_add(list, json_object_new_string(service));
		json_object_array_add(list, json_object_new_string(tasks));
	}
	return list;
}

/* "10.0.0.5/24" of either family; of several the last. */
static struct json_object *addresses(const Pb__NetworkAttachment *a)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < a->n_addresses; i++) {
		sw_auto_free char *s = xstrndup(a->addresses[i], strcspn(a->addresses[i], "/"));

		spec_put_str(o, strchr(s, ':') ? "IPv6Address" : "IPv4Address", s);
	}
	return o;
}

struct json_object *spec_endpoint(const Pb__Task *t, size_t i)
{
	const Pb__NetworkAttachment *a = t->networks[i];
	struct json_object *o = json_object_new_object();

	/* On "host" and "bridge" nothing has a name or an address of its choice: the engine refuses
	 * both at start, dockerd's worker keeps them to itself. */
	if (!is_predefined(a)) {
		json_object_object_add(o, "Aliases", aliases(t, a));
		if (a->n_addresses)
			json_object_object_add(o, "IPAMConfig", addresses(a));
	}
	if (a->n_driver_attachment_opts)
		json_object_object_add(o, "DriverOpts",
			spec_map(a->driver_attachment_opts, a->n_driver_attachment_opts));
	return o;
}

/* ---- node-local networks: made on this engine when a task first needs them */

bool spec_network_is_local(const Pb__Task *t, size_t i)
{
	return is_local(t->networks[i]);
}

const char *spec_network_id(const Pb__Task *t, size_t i)
{
	return t->networks[i]->network->id;
}

const char *spec_network_config_from(const Pb__Task *t, size_t i)
{
	return config_from(network_spec(t->networks[i]));
}

const char *spec_network_driver(const Pb__Task *t, size_t i)
{
	return driver_of(t->networks[i]);
}

/* What the manager allocated; it leaves node-local networks to the node's engine. */
static void add_ipam(const Pb__IPAMOptions *ipam, struct json_object *body)
{
	struct json_object *o, *configs;

	if (!ipam || !ipam->n_configs)
		return;
	o = json_object_new_object();
	configs = json_object_new_array();
	for (size_t i = 0; i < ipam->n_configs; i++) {
		const Pb__IPAMConfig *c = ipam->configs[i];
		struct json_object *e = json_object_new_object();

		spec_put_str(e, "Subnet", c->subnet);
		spec_put_str(e, "IPRange", c->range);
		spec_put_str(e, "Gateway", c->gateway);
		json_object_array_add(configs, e);
	}
	if (ipam->driver) {
		spec_put_str(o, "Driver", ipam->driver->name);
		if (ipam->driver->n_options)
			json_object_object_add(o, "Options",
				spec_map(ipam->driver->options, ipam->driver->n_options));
	}
	json_object_object_add(o, "Config", configs);
	json_object_object_add(body, "IPAM", o);
}

struct json_object *spec_network_body(const Pb__Task *t, size_t i, const struct spec_env *env)
{
	const Pb__Network *n = t->networks[i]->network;
	const Pb__NetworkSpec *s = n->spec;
	struct json_object *o = json_object_new_object(), *from, *labels;

	spec_put_str(o, "Name", s->annotations->name);
	spec_put_str(o, "Driver", driver_of(t->networks[i]));
	json_object_object_add(o, "Internal", json_object_new_boolean(s->internal));
	json_object_object_add(o, "Attachable", json_object_new_boolean(s->attachable));
	if (env->api < 44) /* or there would be two of one name */
		json_object_object_add(o, "CheckDuplicate", json_object_new_boolean(1));
	if (*config_from(s)) {
		/* then the engine takes nothing else from us, not even labels */
		from = json_object_new_object();
		spec_put_str(from, "Network", config_from(s));
		json_object_object_add(o, "ConfigFrom", from);
		return o;
	}
	json_object_object_add(o, "EnableIPv6", json_object_new_boolean(s->ipv6_enabled));
	labels = spec_map(s->annotations->labels, s->annotations->n_labels);
	json_object_object_add(labels, SPEC_LABEL_NETWORK, json_object_new_string(n->id));
	json_object_object_add(o, "Labels", labels);
	if (n->driver_state && n->driver_state->n_options)
		json_object_object_add(o, "Options",
			spec_map(n->driver_state->options, n->driver_state->n_options));
	add_ipam(n->ipam, o);
	return o;
}

size_t spec_networks_at_create(const Pb__Task *t, const struct spec_env *env)
{
	return t->n_networks > 1 && env->api < 44 ? 1 : t->n_networks;
}

void spec_networks_add(const Pb__Task *t, const struct spec_env *env, struct json_object *body,
	struct json_object *host)
{
	struct json_object *config, *endpoints;

	spec_put_str(host, "NetworkMode", t->n_networks ? spec_network_name(t, 0) : "default");
	if (!t->n_networks)
		return;
	if (env->podman && t->n_networks == 1)
		return; /* podman refuses endpoints next to network mode "host" */
	config = json_object_new_object();
	endpoints = json_object_new_object();
	for (size_t i = 0; i < spec_networks_at_create(t, env); i++)
		json_object_object_add(endpoints, spec_network_name(t, i), spec_endpoint(t, i));
	json_object_object_add(config, "EndpointsConfig", endpoints);
	json_object_object_add(body, "NetworkingConfig", config);
}

void spec_ports_add(const Pb__Task *t, struct json_object *body, struct json_object *host)
{
	const Pb__Endpoint *e = t->endpoint;
	struct json_object *exposed, *bindings;

	if (!e || !e->n_ports)
		return;
	exposed = json_object_new_object();
	bindings = json_object_new_object();
	for (size_t i = 0; i < e->n_ports; i++) {
		const Pb__PortConfig *p = e->ports[i];
		struct json_object *list, *b = json_object_new_object();
		char key[32], port[16];

		snprintf(
			key, sizeof(key), "%" PRIu32 "/%s", p->target_port, protocols[p->protocol]);
		if (!json_object_object_get_ex(bindings, key, &list)) {
			list = json_object_new_array();
			json_object_object_add(bindings, key, list);
			json_object_object_add(exposed, key, json_object_new_object());
		}
		/* {} is a port of the engine's choice; an empty list would be none at all */
		if (p->published_port) {
			snprintf(port, sizeof(port), "%" PRIu32, p->published_port);
			spec_put_str(b, "HostPort", port);
		}
		json_object_array_add(list, b);
	}
	json_object_object_add(body, "ExposedPorts", exposed);
	json_object_object_add(host, "PortBindings", bindings);
}
