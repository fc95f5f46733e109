#include "ingress.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

/* Networks of Swarm's own making, as in swarmkit manager/allocator/networkallocator. */
#define INTERNAL_LABEL "com.docker.swarm.internal"

static const Pb__Annotations *annotations(const Pb__NetworkAttachment *a)
{
	return a->network && a->network->spec ? a->network->spec->annotations : NULL;
}

bool ingress_is_network(const Pb__NetworkAttachment *a)
{
	const Pb__Annotations *n = annotations(a);

	if (!n)
		return false;
	/* clusters made before the field was there know it by name and label */
	return a->network->spec->ingress ||
	       (sw_streq(n->name, "ingress") &&
		       api_map_get(n->labels, n->n_labels, INTERNAL_LABEL));
}

static bool is_ingress_port(const Pb__PortConfig *p)
{
	return p->publish_mode == PB__PORT_CONFIG__PUBLISH_MODE__INGRESS;
}

static bool concerns(const Pb__Task *t)
{
	for (size_t i = 0; i < t->n_networks; i++)
		if (ingress_is_network(t->networks[i]))
			return true;
	for (size_t i = 0; t->endpoint && i < t->endpoint->n_ports; i++)
		if (is_ingress_port(t->endpoint->ports[i]))
			return true;
	return false;
}

static int check(const Pb__Task *t, struct sw_err *err)
{
	const Pb__PortConfig *port = NULL;

	for (size_t i = 0; t->endpoint && i < t->endpoint->n_ports; i++) {
		const Pb__PortConfig *p = t->endpoint->ports[i];

		if (!is_ingress_port(p))
			continue;
		port = p;
		if (!p->published_port)
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"target port %" PRIu32
				" is published in ingress mode, but the manager gave it no number",
				p->target_port);
	}
	for (size_t i = 0; port && i < t->n_networks; i++) {
		const Pb__Annotations *n = annotations(t->networks[i]);

		if (n && sw_streq(n->name, "host"))
			return sw_err_set(err, SW_REJECTED, -ENOTSUP,
				"service publishes port %" PRIu32
				" in ingress mode and is attached to network \"host\", where no "
				"port can be published",
				port->published_port);
	}
	return 0;
}

int ingress_task(
	struct api_task *t, enum docker_ingress mode, struct api_task **ret, struct sw_err *err)
{
	Pb__Task *pb;
	size_t n = 0;
	int r;

	if (mode != DOCKER_INGRESS_HOST_PORT || !concerns(t->pb)) {
		*ret = api_task_ref(t);
		return 0;
	}
	if ((r = check(t->pb, err)))
		return r;
	pb = (Pb__Task *)(void *)api_dup(&t->pb->base);
	for (size_t i = 0; i < pb->n_networks; i++) {
		if (ingress_is_network(pb->networks[i]))
			api_free(pb->networks[i]);
		else
			pb->networks[n++] = pb->networks[i];
	}
	pb->n_networks = n;
	if (!n)
		free(take(pb->networks));
	for (size_t i = 0; pb->endpoint && i < pb->endpoint->n_ports; i++)
		if (is_ingress_port(pb->endpoint->ports[i]))
			pb->endpoint->ports[i]->publish_mode = PB__PORT_CONFIG__PUBLISH_MODE__HOST;
	*ret = api_task_new(pb);
	return 0;
}
