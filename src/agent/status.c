/* Composition of statuses: what a step or an operation makes of a TaskStatus (swarmkit agent/exec
 * Do). */
#include "status.h"
#include <string.h>
#include <swarm/mem.h>
#include <swarm/store.h>

#define TEXT_MAX 4096 /* of a status's message or err */

/* protobuf-c frees a string unless it is the field's default, which is this very pointer */
static char *pb_str(const char *s)
{
	return sw_str_empty(s) ? (char *)(uintptr_t)protobuf_c_empty_string : xstrndup(s, TEXT_MAX);
}

/* Length of the UTF-8 character at @p, 0 if there is none. */
static size_t utf8_len(const unsigned char *p)
{
	size_t n = *p < 0x80   ? 1
		   : *p < 0xc2 ? 0
		   : *p < 0xe0 ? 2
		   : *p < 0xf0 ? 3
		   : *p < 0xf5 ? 4
			       : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* Texts of engines may hold anything; a protobuf string with bytes that are no UTF-8 would make
 * the manager refuse the whole request. */
static void make_utf8(char *s)
{
	unsigned char *p = (unsigned char *)s;

	while (*p) {
		size_t n = utf8_len(p);

		if (n == 0) {
			*p = '?';
			n = 1;
		}
		p += n;
	}
}

static char *pb_text(const char *s)
{
	char *copy = pb_str(s);

	if (copy != protobuf_c_empty_string)
		make_utf8(copy);
	return copy;
}

static Pb__Timestamp *pb_time(int64_t ns)
{
	Pb__Timestamp *t = xcalloc(1, sizeof(*t));

	pb__timestamp__init(t);
	api_time_set(t, ns);
	return t;
}

struct status *status_new(Pb__TaskStatus *pb, int64_t now_ns)
{
	struct status *s = xcalloc(1, sizeof(*s));

	s->refs = 1;
	s->pb = pb;
	s->at_ns = api_time_ns(pb->timestamp);
	if (!s->at_ns) {
		api_free(pb->timestamp);
		pb->timestamp = pb_time(now_ns);
		s->at_ns = now_ns;
	}
	return s;
}

struct status *status_ref(struct status *s)
{
	s->refs++;
	return s;
}

void status_unref(struct status *s)
{
	if (!s || --s->refs)
		return;
	api_free(s->pb);
	free(s);
}

bool status_same(const struct status *a, const struct status *b)
{
	Pb__TaskStatus x = *a->pb, y = *b->pb;

	x.timestamp = y.timestamp = NULL;
	return api_equal(&x.base, &y.base);
}

static Pb__ContainerStatus *container_status(const Pb__TaskStatus *prev, int state,
	const struct controller_result *res, const char *container_id)
{
	const Pb__ContainerStatus *old =
		prev->runtime_status_case == PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER
			? prev->container
			: NULL;
	Pb__ContainerStatus *c = xcalloc(1, sizeof(*c));

	pb__container_status__init(c);
	if (res && !sw_str_empty(res->container_id)) {
		c->container_id = pb_str(res->container_id);
		c->pid = (int32_t)res->pid;
	} else if (old) {
		c->container_id = pb_str(old->container_id);
		c->pid = api_state_final(state) ? 0 : old->pid;
	} else {
		c->container_id = pb_str(container_id);
	}
	if (old)
		c->exit_code = old->exit_code;
	/* an exit code belongs to an end: a cancelled wait must not invent one */
	if (res && res->has_exit && api_state_final(state))
		c->exit_code = res->exit_code;
	return c;
}

static Pb__PortStatus *port_status(Pb__PortConfig *const *ports, size_t n)
{
	Pb__PortStatus *s = xcalloc(1, sizeof(*s));

	pb__port_status__init(s);
	s->ports = xcalloc(n, sizeof(*s->ports));
	s->n_ports = n;
	for (size_t i = 0; i < n; i++)
		s->ports[i] = (Pb__PortConfig *)(void *)api_dup(&ports[i]->base);
	return s;
}

struct status *status_next(struct status *prev, const struct do_result *step, const char *text,
	const struct controller_result *res, const char *container_id, int64_t now_ns)
{
	Pb__TaskStatus *pb = xcalloc(1, sizeof(*pb));
	struct status *s;

	pb__task_status__init(pb);
	pb->state = (Pb__TaskState)step->state;
	pb->message = pb_text(step->message ? step->message : prev->pb->message);
	if (step->err == DO_ERR_SET)
		pb->err = pb_text(text);
	else if (step->err == DO_ERR_KEEP)
		pb->err = pb_str(prev->pb->err);
	if (step->state >= PB__TASK_STATE__STARTING) {
		const Pb__PortStatus *old = prev->pb->port_status;

		/* dockerd, too, has none where no controller could be made */
		if (res || container_id ||
			prev->pb->runtime_status_case ==
				PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER) {
			pb->runtime_status_case = PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER;
			pb->container = container_status(prev->pb, step->state, res, container_id);
		}
		if (res && res->n_ports)
			pb->port_status = port_status(res->ports, res->n_ports);
		else if (!api_state_final(step->state) && old)
			pb->port_status = port_status(old->ports, old->n_ports);
	}
	/* clocks jump, statuses do not: the acknowledgement in the store goes by the time too */
	pb->timestamp = pb_time(now_ns > prev->at_ns ? now_ns : prev->at_ns + 1);
	s = status_new(pb, now_ns);
	if (status_same(s, prev)) {
		status_unref(s);
		return status_ref(prev);
	}
	return s;
}

static char *ports_json(const Pb__PortStatus *p)
{
	char *s = xstrdup("[");

	for (size_t i = 0; i < p->n_ports; i++) {
		const Pb__PortConfig *c = p->ports[i];
		const char *proto = c->protocol == PB__PORT_CONFIG__PROTOCOL__UDP    ? "udp"
				    : c->protocol == PB__PORT_CONFIG__PROTOCOL__SCTP ? "sctp"
										     : "tcp";
		char *more = xasprintf("%s%s{\"protocol\":\"%s\",\"target\":%u,\"published\":%u}",
			s, i ? "," : "", proto, c->target_port, c->published_port);

		free(s);
		s = more;
	}
	char *all = xasprintf("%s]", s);

	free(s);
	return all;
}

void status_row(const struct status *s, struct store_status *ret, uint8_t **data, char **ports)
{
	const Pb__TaskStatus *pb = s->pb;

	*ret = (struct store_status){
		.state = pb->state, .message = pb->message, .err = pb->err, .at_ns = s->at_ns};
	*data = api_pack(&pb->base, &ret->data_len);
	ret->data = *data;
	if (pb->runtime_status_case == PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER) {
		const Pb__ContainerStatus *c = pb->container;

		ret->container_id = sw_str_empty(c->container_id) ? NULL : c->container_id;
		ret->pid = c->pid;
		/* TaskStatus cannot tell "code 0" from "no code": only COMPLETE surely means the
		 * former */
		ret->has_exit_code = pb->state == PB__TASK_STATE__COMPLETE ||
				     (api_state_final(pb->state) && c->exit_code != 0);
		ret->exit_code = c->exit_code;
	}
	*ports = pb->port_status && pb->port_status->n_ports ? ports_json(pb->port_status) : NULL;
	ret->ports = *ports;
}
