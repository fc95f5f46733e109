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

static int check_network(const Pb__NetworkAttachment *a, struct sw_err *err)
{
	const Pb__NetworkSpec *s = network_spec(a);
	const char *name = network_name(a), *driver = "";

	if (!s || !*name)
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "network attachment without a network name");
	if (is_predefined(a))
		return 0;
	if (a->network->driver_state && *a->network->driver_state->name)
		driver = a->network->driver_state->name;
	else if (s->driver_config)
		driver = s->driver_config->name;
	if (s->config_from_case == PB__NETWORK_SPEC__CONFIG_FROM_NETWORK ||
		sw_streq(driver, "bridge") || sw_streq(driver, "macvlan") ||
		sw_streq(driver, "ipvlan"))
		return sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"network \"%s\" (driver %s): node-local networks are not supported by this "
			"agent; attach the service to host or bridge",
			name, *driver ? driver : "unknown");
	return sw_err_set(err, SW_REJECTED, -ENOTSUP,
		"network \"%s\" (driver %s) cannot be provided on this node: the agent runs "
		"outside the engine's swarm mode; publish ports with mode=host or attach the "
		"service to host, bridge or a node-local network",
		name, *driver ? driver : "overlay");
}

int spec_networks_check(const Pb__Task *t, struct sw_err *err)
{
	/* ports first: a port in ingress mode is the cause, the ingress network its consequence */
	int r = check_ports(t->endpoint, err);

	for (size_t i = 0; i < t->n_networks && !r; i++)
		r = check_network(t->networks[i], err);
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

struct json_object *spec_endpoint(const Pb__Task *t, size_t i)
{
	const Pb__NetworkAttachment *a = t->networks[i];
	struct json_object *o = json_object_new_object();

	/* no addresses and no network id: the engine's own network of that name is meant */
	spec_put_strs(o, "Aliases", a->aliases, a->n_aliases);
	if (a->n_driver_attachment_opts)
		json_object_object_add(o, "DriverOpts",
			spec_map(a->driver_attachment_opts, a->n_driver_attachment_opts));
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
