#include "causes.h"
#include "ctl.h"
#include <ctype.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

#define PROBE_MAX 300 /* bytes of a probe's output in a status */

/* ---- the end of a container */

/* One line of @s: its end, because that is where programs say what went wrong. malloc'd. */
static char *one_line(const char *s, size_t max)
{
	size_t len = strlen(s), n = 0;
	char *ret, *tail;

	ret = xcalloc(1, len + 1);
	for (size_t i = 0; i < len; i++) {
		unsigned char ch = (unsigned char)s[i];

		if (ch > ' ' && ch != 0x7f)
			ret[n++] = (char)ch;
		else if (n && ret[n - 1] != ' ')
			ret[n++] = ' ';
	}
	while (n && ret[n - 1] == ' ')
		n--;
	ret[n] = '\0';
	if (n <= max)
		return ret;
	for (tail = ret + n - max; ((unsigned char)*tail & 0xc0) == 0x80; tail++)
		; /* not into a character */
	tail = xasprintf("...%s", tail);
	free(ret);
	return tail;
}

void causes_see(struct ctl *c, const struct engine_container *k)
{
	if (!c->unhealthy || sw_str_empty(k->health_output))
		return;
	free(c->probe);
	c->probe = one_line(k->health_output, PROBE_MAX);
}

char *causes_exit(const struct ctl *c, int code, bool oom, const char *engine_text)
{
	const char *name;

	if (c->unhealthy)
		return xasprintf("dockerexec: unhealthy container%s%s",
			sw_str_empty(c->probe) ? "" : ": ", c->probe ? c->probe : "");
	if (oom)
		/* the flag is about all processes of the container */
		return xstrdup(code == 137 ? "OOM killed" : "a process in it was OOM killed");
	if (!sw_str_empty(engine_text))
		return xstrdup(engine_text);
	name = code > 128 ? sigabbrev_np(code - 128) : NULL;
	if (name)
		return xasprintf("killed by signal %d SIG%s", code - 128, name);
	return xstrdup("");
}

/* ---- a pull that failed */

static bool says(const struct sw_err *e, const char *const *texts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcasestr(e->msg, texts[i]))
			return true;
	return false;
}

void causes_pull(struct sw_err *e, const char *image, const char *auth)
{
	static const char *const away[] = {"dial tcp", "no such host", "connection refused",
		"connection reset", "timeout", "timed out", "deadline exceeded", "unreachable",
		"server misbehaving", "x509:", "tls:", "TLS handshake", "HTTP response to HTTPS"};
	static const char *const either[] = {"repository does not exist or may require"};
	static const char *const denied[] = {
		"unauthorized", "denied", "no basic auth", "authentication required", "forbidden"};
	static const char *const missing[] = {
		"manifest unknown", "not found", "name unknown", "no such image"};
	static const char *const platform[] = {"no matching manifest"};
	const char *creds = sw_str_empty(auth) ? "no credentials were given (--with-registry-auth)"
					       : "the registry refused the credentials";

	if (says(e, away, SW_ARRAY_LEN(away)))
		sw_err_wrap(e, "the registry cannot be reached");
	else if (says(e, platform, SW_ARRAY_LEN(platform)))
		sw_err_wrap(e, "not there for this node's platform");
	else if (says(e, either, SW_ARRAY_LEN(either)))
		sw_err_wrap(e, "image not found, or not authorised: %s", creds);
	else if (says(e, denied, SW_ARRAY_LEN(denied)))
		sw_err_wrap(e, "not authorised: %s", creds);
	else if (says(e, missing, SW_ARRAY_LEN(missing)))
		sw_err_wrap(e, "image not found");
	sw_err_wrap(e, "pull image %s", image);
}

/* ---- a port that is taken */

static const char *protocol_name(const Pb__PortConfig *p)
{
	switch (p->protocol) {
	case PB__PORT_CONFIG__PROTOCOL__UDP:
		return "udp";
	case PB__PORT_CONFIG__PROTOCOL__SCTP:
		return "sctp";
	default:
		return "tcp";
	}
}

/* ":18080" in @text, and not ":180801". */
static bool names_port(const char *text, uint32_t port)
{
	char want[16];
	size_t len = (size_t)snprintf(want, sizeof(want), ":%" PRIu32, port);

	for (const char *p = text; (p = strstr(p, want)); p += len)
		if (!isdigit((unsigned char)p[len]))
			return true;
	return false;
}

/* The port of the task that the engine's text is about. */
static const Pb__PortConfig *port_of(const Pb__Task *t, const char *text)
{
	for (size_t i = 0; t->endpoint && i < t->endpoint->n_ports; i++)
		if (t->endpoint->ports[i]->published_port &&
			names_port(text, t->endpoint->ports[i]->published_port))
			return t->endpoint->ports[i];
	return NULL;
}

static bool has_port(const struct engine_container *k, const Pb__PortConfig *want)
{
	struct json_object *ports, *v;

	if (!json_object_object_get_ex(k->json, "Ports", &ports) ||
		!json_object_is_type(ports, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(ports); i++) {
		struct json_object *p = json_object_array_get_idx(ports, i);

		if (!json_object_object_get_ex(p, "PublicPort", &v) ||
			json_object_get_int64(v) != want->published_port)
			continue;
		if (json_object_object_get_ex(p, "Type", &v) &&
			sw_streq(json_object_get_string(v), protocol_name(want)))
			return true;
	}
	return false;
}

static char *holder(const struct ctl *c, const Pb__PortConfig *port,
	const struct engine_container *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *task = engine_container_label(&list[i], SPEC_LABEL_TASK_ID);
		const char *service = engine_container_label(&list[i], SPEC_LABEL_SERVICE_NAME);

		if (sw_streq(list[i].id, c->id) || !has_port(&list[i], port))
			continue;
		if (task && service)
			return xasprintf(" by task %s of service %s (container %s)", task, service,
				list[i].name);
		return xasprintf(" by container %s (%.12s)", list[i].name, list[i].id);
	}
	/* the engine keeps a book of its own ports, the kernel knows everybody's */
	return xstrdup(fault_text(&c->blame.err, "address already in use")
			       ? " by a process outside this engine's containers"
			       : "");
}

static void on_list(
	void *arg, const struct engine_container *list, size_t n, const struct sw_err *err)
{
	struct ctl *c = arg;
	const Pb__PortConfig *port = port_of(c->task->pb, c->blame.err.msg);
	sw_auto_free char *who = NULL;

	c->call = NULL;
	who = err && err->cls ? xstrdup("") : holder(c, port, list, n);
	sw_err_wrap(&c->blame.err, "port %" PRIu32 "/%s is already in use on this node%s",
		port->published_port, protocol_name(port), who);
	c->blame.cb(c, &c->blame.err);
}

bool causes_port(struct ctl *c, const struct sw_err *err,
	void (*cb)(struct ctl *c, const struct sw_err *err))
{
	if (err->domain != SW_E_HTTP || (!fault_text(err, "port is already allocated") &&
						!fault_text(err, "address already in use")))
		return false;
	if (!port_of(c->task->pb, err->msg))
		return false;
	c->blame.err = *err;
	c->blame.cb = cb;
	c->call = engine_container_list(c->d->engine, NULL, 0, on_list, c);
	return true;
}
