/* Calls: the three shapes share one struct and one way to end.
 *
 *   open -> head -> messages ... -> closed -> (everything delivered) -> end
 *
 * call_read() is the level-triggered heart: it eats what is in the chain `in` as long as the
 * consumer wants it (not paused) and no message is being unpacked on the pool, and ends the call
 * when the stream is over and nothing is left. What it eats goes back to the window.
 *
 * What can happen at any moment: the server ends first (the status is in its trailers, what we
 * still send is dropped), the stream is reset, the connection goes, the deadline passes, the caller
 * cancels
 * - in each case the stream and a running unpack are let go, and the end is told once, or not at
 * all after a cancel. Callbacks may cancel their own call: `depth` delays the free until they
 * return. */
#include "frame.h"
#include "status.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/chain.h>
#include <swarm/grpc.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

/* From here on messages are unpacked and freed on the pool: some milliseconds on the loop thread.
 */
#define POOL_FROM (256u << 10)
enum kind { UNARY, SERVER_STREAM, CLIENT_STREAM };

struct unpack {
	struct grpc_call *call; /* loop thread only */
	const ProtobufCMessageDescriptor *type;
	uint8_t *buf;
	size_t len;
	ProtobufCMessage *m;
	struct sw_err err; /* when there is none */
};

struct grpc_call {
	enum kind kind;
	struct sw_loop *loop;
	struct h2_stream *s; /* NULL: over or never opened */
	const ProtobufCMessageDescriptor *type;
	grpc_unary_cb *unary_cb;
	struct grpc_stream_events ev;
	void *arg;

	struct chain in;
	struct frame_reader frame;
	struct sw_work *work;         /* a message on the pool */
	ProtobufCMessage *answer;     /* unary: kept until the status is there */
	ProtobufCMessage *delivering; /* during message(), unless taken */
	struct sw_timer deadline;
	struct sw_timer later; /* call_read() from the loop */

	bool have_status;
	int status, http_status;
	char text[SW_ERR_MSG_MAX];

	bool paused;
	bool closed; /* nothing comes any more; `result` says how it was */
	bool sent_end;
	struct sw_err result; /* cls 0: OK */
	int depth;            /* callbacks of ours that are running */
	bool dead;
};

static void call_read(struct grpc_call *c);

/* --- messages ----------------------------------------------------------------------------------
 */

static void free_run(void *arg)
{
	api_free(arg);
}

static void free_done(void *arg, bool dropped)
{
	(void)arg;
	(void)dropped;
}

static void free_on_pool(struct sw_loop *l, ProtobufCMessage *m)
{
	if (m)
		sw_work(l, free_run, free_done, m);
}

/* --- ends --------------------------------------------------------------------------------------
 */

static void call_free(struct grpc_call *c)
{
	chain_done(&c->in);
	frame_done(&c->frame);
	api_free(c->answer);
	free(c);
}

/* Lets go of everything that could call back. */
static void call_release(struct grpc_call *c)
{
	struct h2_stream *s = take(c->s);

	h2_stream_cancel(s);
	sw_work_drop(c->work);
	c->work = NULL;
	sw_timer_stop(&c->deadline);
	sw_timer_stop(&c->later);
	c->dead = true;
}

/* False: the call is gone. */
static bool call_leave(struct grpc_call *c)
{
	bool dead = c->dead;

	if (--c->depth == 0 && dead)
		call_free(c);
	return !dead;
}

static void call_end(struct grpc_call *c)
{
	const struct sw_err *err = c->result.cls == SW_OK ? NULL : &c->result;

	call_release(c);
	c->depth++;
	if (c->kind == UNARY)
		c->unary_cb(c->arg, err ? NULL : c->answer, err);
	else if (c->ev.end)
		c->ev.end(c->arg, err);
	call_leave(c);
}

static void set_result(struct grpc_call *c, int code, const char *text)
{
	c->closed = true;
	if (code == GRPC_OK)
		c->result = SW_ERR_NONE;
	else
		sw_err_setd(&c->result, grpc_code_class(code), SW_E_GRPC, code, "%s", text);
}

/* Something is wrong on our side of the wire: reset the stream, drop what was not delivered. */
static void call_abort(struct grpc_call *c, int code, const char *text)
{
	struct h2_stream *s = take(c->s);

	h2_stream_cancel(s);
	chain_done(&c->in);
	frame_done(&c->frame);
	sw_work_drop(c->work);
	c->work = NULL;
	c->paused = false;
	set_result(c, code, text);
}

static void on_deadline(void *arg)
{
	struct grpc_call *c = arg;

	call_abort(c, GRPC_DEADLINE_EXCEEDED, "no answer in time");
	call_end(c);
}

static void on_later(void *arg)
{
	call_read(arg);
}

/* --- reading -----------------------------------------------------------------------------------
 */

/* Takes @m, which came from @len bytes; NULL: they were none, as @err says. */
static void deliver(struct grpc_call *c, ProtobufCMessage *m, size_t len, const struct sw_err *err)
{
	struct sw_loop *l = c->loop;

	if (!m) {
		call_abort(c, GRPC_INTERNAL, err->msg);
		return;
	}
	if (c->kind == UNARY && !c->answer) {
		c->answer = m;
		return;
	}
	if (c->kind == UNARY) {
		call_abort(c, GRPC_INTERNAL, "more than one message in the answer");
	} else {
		c->depth++; /* our caller holds one too: nothing is freed here */
		c->delivering = m;
		if (c->ev.message && !c->ev.message(c->arg, m))
			c->paused = true;
		m = take(c->delivering);
		c->depth--;
	}
	if (len >= POOL_FROM)
		free_on_pool(l, m);
	else
		api_free(m);
}

static void unpack_run(void *arg)
{
	struct unpack *u = arg;

	u->m = api_unpack(u->type, u->buf, u->len, &u->err);
	free(u->buf);
}

static void unpack_done(void *arg, bool dropped)
{
	struct unpack u = *(struct unpack *)arg;
	struct grpc_call *c = u.call;

	free(arg);
	if (dropped) {
		api_free(u.m);
		return;
	}
	c->work = NULL;
	c->depth++;
	deliver(c, u.m, u.len, &u.err);
	if (!c->dead)
		call_read(c);
	call_leave(c);
}

static void unpack_on_pool(struct grpc_call *c, uint8_t *buf, size_t len)
{
	struct unpack *u = xcalloc(1, sizeof(*u));

	u->call = c;
	u->type = c->type;
	u->buf = buf;
	u->len = len;
	c->work = sw_work(c->loop, unpack_run, unpack_done, u);
}

static void read_message(struct grpc_call *c)
{
	size_t len;
	uint8_t *buf = frame_take(&c->frame, &len);

	if (len >= POOL_FROM) {
		unpack_on_pool(c, buf, len);
	} else {
		struct sw_err err;
		ProtobufCMessage *m = api_unpack(c->type, buf, len, &err);

		free(buf);
		deliver(c, m, len, &err);
	}
}

static void read_frames(struct grpc_call *c)
{
	char text[128];

	while (!c->dead && !c->paused && !c->work) {
		switch (frame_feed(&c->frame, &c->in, GRPC_MAX_RECEIVE)) {
		case FRAME_READY:
			read_message(c);
			break;
		case FRAME_MORE:
			return;
		case FRAME_COMPRESSED:
			call_abort(c, GRPC_INTERNAL,
				"the answer is compressed without having been asked");
			return;
		case FRAME_TOO_LONG:
			snprintf(text, sizeof(text), "a message of %zu bytes, limit %u",
				c->frame.len, GRPC_MAX_RECEIVE);
			call_abort(c, GRPC_RESOURCE_EXHAUSTED, text);
			return;
		case FRAME_NO_MEMORY:
			snprintf(text, sizeof(text), "no memory for a message of %zu bytes",
				c->frame.len);
			call_abort(c, GRPC_RESOURCE_EXHAUSTED, text);
			return;
		}
	}
}

static void call_read(struct grpc_call *c)
{
	size_t before = chain_len(&c->in);

	c->depth++;
	read_frames(c);
	if (!c->dead && c->s)
		h2_stream_consumed(c->s, before - chain_len(&c->in));
	if (!c->dead && c->closed && !c->paused && !c->work) {
		if (c->result.cls == SW_OK && frame_is_partial(&c->frame))
			set_result(c, GRPC_INTERNAL, "the answer ends inside a message");
		else if (c->result.cls == SW_OK && c->kind == UNARY && !c->answer)
			set_result(c, GRPC_INTERNAL, "status 0 without a message");
		call_end(c);
	}
	call_leave(c);
}

/* --- what the stream says ----------------------------------------------------------------------
 */

static void on_headers(void *arg, const struct h2_header *h, size_t n, bool trailers, bool end)
{
	struct grpc_call *c = arg;
	const char *type = NULL;
	char text[160];

	for (size_t i = 0; i < n; i++) {
		if (sw_streq(h[i].name, ":status"))
			c->http_status = (int)strtol(
				h[i].value, NULL, 10); /* three digits, nghttp2 checks */
		else if (sw_streq(h[i].name, "content-type"))
			type = h[i].value;
		else if (sw_streq(h[i].name, "grpc-status")) {
			c->have_status = true;
			c->status = grpc_status_parse(h[i].value);
		} else if (sw_streq(h[i].name, "grpc-message"))
			grpc_message_decode(c->text, sizeof(c->text), h[i].value);
	}
	if (trailers || (end && c->have_status))
		return;
	if (c->http_status != 200) {
		snprintf(text, sizeof(text), "HTTP status %d", c->http_status);
		call_abort(c, grpc_code_from_http(c->http_status), text);
		call_read(c);
	} else if (!end && (!type || !grpc_content_type_ok(type))) {
		snprintf(text, sizeof(text), "this is no gRPC answer: content-type %.100s",
			type ? type : "missing");
		call_abort(c, GRPC_UNKNOWN, text);
		call_read(c);
	}
}

static void on_data(void *arg, struct chain *data, bool end)
{
	struct grpc_call *c = arg;

	(void)end;
	chain_append_chain(&c->in, data);
	call_read(c);
}

static void on_writable(void *arg)
{
	struct grpc_call *c = arg;

	c->depth++;
	if (c->ev.writable)
		c->ev.writable(c->arg);
	call_leave(c);
}

static void on_closed(void *arg, uint32_t h2_code, const struct sw_err *err)
{
	struct grpc_call *c = arg;
	char text[64];

	c->s = NULL;
	if (c->have_status)
		set_result(c, c->status, c->text[0] ? c->text : grpc_code_name(c->status));
	else if (!err) {
		snprintf(text, sizeof(text), "the call ended without a status (HTTP %d)",
			c->http_status);
		set_result(c, grpc_code_from_http(c->http_status), text);
	} else if (err->cls == SW_CANCELLED) {
		set_result(c, GRPC_CANCELLED, err->msg);
		c->result.cls = SW_CANCELLED;
	} else if (h2_code) {
		set_result(c, grpc_code_from_reset(h2_code), err->msg);
	} else {
		set_result(c, GRPC_UNAVAILABLE, err->msg);
	}
	call_read(c);
}

/* --- the door ----------------------------------------------------------------------------------
 */

static const struct h2_stream_events stream_events = {
	.headers = on_headers,
	.data = on_data,
	.writable = on_writable,
	.closed = on_closed,
};

/* Appends prefix and message, packed into one block. The size is ours: limited by the caller. */
static bool pack(struct chain *out, const ProtobufCMessage *m, size_t size)
{
	struct sw_block *b = block_new(5 + size);

	if (!b)
		return false;
	frame_prefix(block_data(b), size);
	protobuf_c_message_pack(m, block_data(b) + 5);
	chain_append_block(out, b, 0, 5 + size);
	block_unref(b);
	return true;
}

/* False: the call has ended (a caller that runs learns it from the loop). */
static bool pack_limited(struct grpc_call *c, struct chain *out, const ProtobufCMessage *m)
{
	size_t size = protobuf_c_message_get_packed_size(m);
	char text[128];

	if (size <= GRPC_MAX_SEND && pack(out, m, size))
		return true;
	if (size > GRPC_MAX_SEND)
		snprintf(text, sizeof(text), "the request has %zu bytes, limit %u", size,
			GRPC_MAX_SEND);
	else
		snprintf(text, sizeof(text), "no memory for a request of %zu bytes", size);
	call_abort(c, GRPC_RESOURCE_EXHAUSTED, text);
	sw_timer_arm(&c->later, 0);
	return false;
}

static void call_open(struct grpc_call *c, struct h2_conn *conn, const char *path,
	const ProtobufCMessage *req, uint64_t timeout_ns)
{
	struct h2_header h[4] = {
		{"content-type", "application/grpc"},
		{"te", "trailers"},
		{"user-agent", "swarm-agentd/" SWARM_VERSION},
	};
	size_t n = 3;
	char timeout[16];
	struct chain body = {0};

	c->loop = h2_conn_loop(conn);
	sw_timer_init(&c->deadline, c->loop, on_deadline, c);
	sw_timer_init(&c->later, c->loop, on_later, c);
	if (timeout_ns) {
		grpc_timeout_format(timeout, timeout_ns);
		h[n++] = (struct h2_header){"grpc-timeout", timeout};
		sw_timer_arm(&c->deadline, timeout_ns);
	}
	if (req && !pack_limited(c, &body, req))
		return;
	c->sent_end = req != NULL;
	c->s = h2_stream_open(conn, path, h, n, req ? &body : NULL, &stream_events, c);
	chain_done(&body);
	if (!c->s) {
		set_result(c, GRPC_UNAVAILABLE, "the connection takes no new calls");
		sw_timer_arm(&c->later, 0);
	}
}

struct grpc_call *grpc_unary(struct h2_conn *c, const char *path, const ProtobufCMessage *req,
	const ProtobufCMessageDescriptor *resp_type, uint64_t timeout_ns, grpc_unary_cb *cb,
	void *arg)
{
	struct grpc_call *call = xcalloc(1, sizeof(*call));

	call->kind = UNARY;
	call->type = resp_type;
	call->unary_cb = cb;
	call->arg = arg;
	call_open(call, c, path, req, timeout_ns);
	return call;
}

struct grpc_call *grpc_server_stream(struct h2_conn *c, const char *path,
	const ProtobufCMessage *req, const ProtobufCMessageDescriptor *msg_type,
	const struct grpc_stream_events *ev, void *arg)
{
	struct grpc_call *call = xcalloc(1, sizeof(*call));

	call->kind = SERVER_STREAM;
	call->type = msg_type;
	call->ev = *ev;
	call->arg = arg;
	call_open(call, c, path, req, 0);
	return call;
}

struct grpc_call *grpc_client_stream(struct h2_conn *c, const char *path,
	const ProtobufCMessageDescriptor *resp_type, const struct grpc_stream_events *ev, void *arg)
{
	struct grpc_call *call = xcalloc(1, sizeof(*call));

	call->kind = CLIENT_STREAM;
	call->type = resp_type;
	call->ev = *ev;
	call->arg = arg;
	call_open(call, c, path, NULL, 0);
	return call;
}

void grpc_resume(struct grpc_call *c)
{
	if (c->dead || !c->paused)
		return;
	c->paused = false;
	sw_timer_arm(&c->later, 0);
}

bool grpc_send(struct grpc_call *c, const ProtobufCMessage *m)
{
	struct chain out = {0};

	assert(c->kind == CLIENT_STREAM);
	if (!c->s || c->sent_end)
		return true;
	if (!pack_limited(c, &out, m))
		return false;
	return h2_stream_send(c->s, &out, false);
}

void grpc_finish(struct grpc_call *c)
{
	struct chain none = {0};

	if (!c->s || c->sent_end)
		return;
	c->sent_end = true;
	h2_stream_send(c->s, &none, true);
}

ProtobufCMessage *grpc_take(struct grpc_call *c)
{
	return take(c->delivering);
}

void grpc_cancel(struct grpc_call *c)
{
	if (!c || c->dead)
		return;
	call_release(c);
	if (c->depth == 0)
		call_free(c);
}
