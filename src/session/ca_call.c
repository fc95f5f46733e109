/* Calls to a CA are rare and each one counts (a repeated IssueNodeCertificate makes a second node
 * object), so each gets a connection of its own: nothing can be replayed on a stale one. */
#include "certop.h"
#include <errno.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/grpc.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/tls.h>

#define TIMEOUT_NS sw_s(5) /* dial, and the call: each */

struct ca_call {
	struct h2_conn *conn;
	struct grpc_call *call;
	char *path;
	ProtobufCMessage *req;
	const ProtobufCMessageDescriptor *resp_type;
	ProtobufCMessage *resp;
	struct sw_err err;
	bool answered;
	struct sw_timer defer;
	ca_call_cb *cb;
	void (*gone)(void *arg);
	void *arg;
};

/* Our copy of the join token; the transport's packed bytes are gone by now. */
static void wipe_token(ProtobufCMessage *req)
{
	if (req->descriptor == &pb__issue_node_certificate_request__descriptor) {
		char *token = ((Pb__IssueNodeCertificateRequest *)(void *)req)->token;

		sw_wipe(token, strlen(token));
	}
}

static void finish(struct ca_call *c)
{
	bool ok = c->answered && !c->err.cls;

	if (c->cb)
		c->cb(c->arg, ok ? c->resp : NULL, ok ? NULL : &c->err);
	else if (c->gone)
		c->gone(c->arg);
	sw_timer_stop(&c->defer);
	wipe_token(c->req);
	api_free(c->req);
	api_free(c->resp);
	free(c->path);
	free(c);
}

static void on_answer(void *arg, const ProtobufCMessage *resp, const struct sw_err *err)
{
	struct ca_call *c = arg;

	c->call = NULL;
	c->answered = true;
	sw_err_copy(&c->err, err);
	if (resp)
		c->resp = api_dup(resp);
	h2_conn_close(c->conn);
}

static void on_ready(void *arg)
{
	struct ca_call *c = arg;

	if (c->cb)
		c->call = grpc_unary(
			c->conn, c->path, c->req, c->resp_type, TIMEOUT_NS, on_answer, c);
}

static void on_closed(void *arg, const struct sw_err *err)
{
	struct ca_call *c = arg;

	c->conn = NULL;
	/* why a connection was lost says more than that it was lost */
	if (err && (!c->answered || c->err.cls))
		c->err = *err;
	else if (!c->answered)
		sw_err_set(&c->err, SW_TEMPORARY, -ECONNRESET, "connection closed");
	finish(c);
}

static void on_defer(void *arg)
{
	finish(arg);
}

struct ca_call *ca_call(struct sw_loop *l, const char *addr, struct tls_creds *creds,
	const char *path, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *resp_type,
	ca_call_cb *cb, void *arg)
{
	static const struct h2_conn_events events = {.ready = on_ready, .closed = on_closed};
	struct ca_call *c = xcalloc(1, sizeof(*c));

	c->path = xstrdup(path);
	c->req = api_dup(req);
	c->resp_type = resp_type;
	c->cb = cb;
	c->arg = arg;
	sw_timer_init(&c->defer, l, on_defer, c);
	if (h2_conn_new(&c->conn, l, addr, creds, TIMEOUT_NS, &events, c, &c->err) < 0)
		sw_timer_arm(&c->defer, 0);
	return c;
}

void ca_call_cancel(struct ca_call *c, void (*gone)(void *arg), void *arg)
{
	if (!c)
		return;
	c->cb = NULL;
	c->gone = gone;
	c->arg = arg;
	grpc_cancel(take(c->call));
	if (c->conn)
		h2_conn_close(c->conn);
}
