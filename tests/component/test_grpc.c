/* The three call shapes against the test server, and everything a server can do to them. */
#include "complete.h"
#include "h2pair.h"
#include "test.h"
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/grpc.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

#define HEARTBEAT "/docker.swarmkit.v1.Dispatcher/Heartbeat"
#define ASSIGN    "/docker.swarmkit.v1.Dispatcher/Assignments"
#define PUBLISH   "/docker.swarmkit.v1.LogBroker/PublishLogs"

/* --- the client's side --------------------------------------------------------------------------
 */

struct answer {
	bool done, ok;
	char session[64];
	struct sw_err err;
	bool close_conn;
	struct env *e;
};

static void on_answer(void *arg, const ProtobufCMessage *m, const struct sw_err *err)
{
	struct answer *a = arg;

	assert_false(a->done);
	a->done = true;
	a->ok = err == NULL;
	sw_err_copy(&a->err, err);
	assert_true((m != NULL) == a->ok);
	if (m) /* the answers of these tests are HeartbeatRequests sent back */
		snprintf(a->session, sizeof(a->session), "%s",
			((const Pb__HeartbeatRequest *)(const void *)m)->session_id);
	if (a->close_conn)
		h2_conn_close(a->e->cl.c);
}

static struct grpc_call *heartbeat(
	struct env *e, struct answer *a, const char *id, uint64_t timeout)
{
	Pb__HeartbeatRequest req = PB__HEARTBEAT_REQUEST__INIT;

	req.session_id = (char *)(uintptr_t)id;
	return grpc_unary(e->cl.c, HEARTBEAT, &req.base, &pb__heartbeat_request__descriptor,
		timeout, on_answer, a);
}

struct flow {
	struct grpc_call *call;
	unsigned n, want, n_writable, pause_at;
	bool ended, ok, take, cancel_at_once;
	struct sw_err err;
	size_t n_changes;
	char last[64];
	ProtobufCMessage *taken;
};

static bool on_message(void *arg, const ProtobufCMessage *m)
{
	struct flow *f = arg;

	assert_false(f->ended);
	f->n++;
	if (m->descriptor == &pb__assignments_message__descriptor) {
		const Pb__AssignmentsMessage *am = (const void *)m;

		f->n_changes += am->n_changes;
		snprintf(f->last, sizeof(f->last), "%s", am->results_in);
	} else if (m->descriptor == &pb__heartbeat_request__descriptor) {
		snprintf(f->last, sizeof(f->last), "%s",
			((const Pb__HeartbeatRequest *)(const void *)m)->session_id);
	}
	if (f->take) { /* the first only */
		f->take = false;
		f->taken = grpc_take(f->call);
		assert_ptr_equal(f->taken, m);
		assert_null(grpc_take(f->call));
	}
	if (f->cancel_at_once)
		grpc_cancel(f->call);
	return f->n != f->pause_at;
}

static void on_end(void *arg, const struct sw_err *err)
{
	struct flow *f = arg;

	assert_false(f->ended);
	f->ended = true;
	f->ok = err == NULL;
	f->call = NULL;
	sw_err_copy(&f->err, err);
}

static void on_writable(void *arg)
{
	((struct flow *)arg)->n_writable++;
}

static const struct grpc_stream_events flow_events = {on_message, on_end, on_writable};

static void assignments(struct env *e, struct flow *f)
{
	Pb__AssignmentsRequest req = PB__ASSIGNMENTS_REQUEST__INIT;

	req.session_id = (char *)(uintptr_t) "session";
	f->call = grpc_server_stream(
		e->cl.c, ASSIGN, &req.base, &pb__assignments_message__descriptor, &flow_events, f);
}

static void publish(struct env *e, struct flow *f)
{
	f->call = grpc_client_stream(
		e->cl.c, PUBLISH, &pb__heartbeat_request__descriptor, &flow_events, f);
}

static bool send_one(struct flow *f, size_t n)
{
	Pb__PublishLogsMessage m = PB__PUBLISH_LOGS_MESSAGE__INIT;
	char *id = xcalloc(1, n + 1);
	bool go;

	memset(id, 'l', n);
	m.subscription_id = id;
	go = grpc_send(f->call, &m.base);
	free(id);
	return go;
}

/* --- the server's side --------------------------------------------------------------------------
 */

static void echo_message(void *arg, struct h2s_stream *st, const uint8_t *m, size_t n)
{
	(void)arg;
	h2s_reply(st, m, n);
}

static const struct h2s_handler echo = {.message = echo_message};

struct script {
	void (*run)(struct h2s_stream *st, void *arg);
	void *arg;
	unsigned n_open, n_messages, n_ended, n_closed;
	uint32_t code;
	size_t bytes;
	struct h2s_stream *st;
	char timeout[16], te[16], type[32], cn[32];
};

static void script_open(void *arg, struct h2s_stream *st)
{
	struct script *s = arg;

	s->n_open++;
	s->st = st;
	snprintf(s->te, sizeof(s->te), "%s", h2s_header(st, "te") ? h2s_header(st, "te") : "");
	snprintf(s->type, sizeof(s->type), "%s", h2s_header(st, "content-type"));
	snprintf(s->timeout, sizeof(s->timeout), "%s",
		h2s_header(st, "grpc-timeout") ? h2s_header(st, "grpc-timeout") : "");
	snprintf(s->cn, sizeof(s->cn), "%s", h2s_peer(st, "CN") ? h2s_peer(st, "CN") : "");
}

static void script_message(void *arg, struct h2s_stream *st, const uint8_t *m, size_t n)
{
	struct script *s = arg;

	(void)st;
	(void)m;
	s->n_messages++;
	s->bytes += n;
}

static void script_end(void *arg, struct h2s_stream *st)
{
	struct script *s = arg;

	s->n_ended++;
	if (s->run)
		s->run(st, s->arg);
}

static void script_closed(void *arg, struct h2s_stream *st, uint32_t code)
{
	struct script *s = arg;

	(void)st;
	s->n_closed++;
	s->code = code;
	s->st = NULL;
}

static const struct h2s_handler scripted = {script_open, script_message, script_end, script_closed};

static void up(struct env *e, struct script *s)
{
	server(e);
	h2server_handle(e->srv, NULL, &scripted, s);
	dial_up(e);
}

/* --- unary --------------------------------------------------------------------------------------
 */

static void unary_call_answers(void **state)
{
	struct env *e = *state;
	struct answer a = {0};

	server(e);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	dial_up(e);
	heartbeat(e, &a, "s1", sw_s(5));
	assert_false(a.done);
	loop_until(e->l, &a.done, GUARD_MS);
	assert_true(a.ok);
	assert_string_equal(a.session, "s1");
}

static void run_reply(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_reply(st, "", 0);
}

static void request_looks_as_managers_want_it(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_reply};
	struct answer a = {0};

	up(e, &s);
	heartbeat(e, &a, "s1", sw_s(5));
	loop_until(e->l, &a.done, GUARD_MS);
	assert_true(a.ok);
	assert_string_equal(s.type, "application/grpc");
	assert_string_equal(s.te, "trailers");
	assert_string_equal(s.timeout, "5S");
	assert_string_equal(s.cn, "w1");
	assert_int_equal(s.n_messages, 1);
	assert_int_equal(s.n_ended, 1);
	/* END_STREAM on HEADERS is checked by teardown() */
}

static void unknown_method_is_a_rejection(void **state)
{
	struct env *e = *state;
	struct answer a = {0};

	server(e);
	dial_up(e);
	heartbeat(e, &a, "s1", 0);
	loop_until(e->l, &a.done, GUARD_MS);
	assert_false(a.ok);
	assert_int_equal(a.err.domain, SW_E_GRPC);
	assert_int_equal(a.err.code, GRPC_UNIMPLEMENTED);
	assert_true(sw_err_is(&a.err, SW_REJECTED));
	assert_string_equal(a.err.msg, "unknown method");
}

static void many_calls_on_one_connection(void **state)
{
	struct env *e = *state;
	enum { N = 200 };
	struct answer *a = xcalloc(N, sizeof(*a));
	char id[16];

	server(e);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	dial_to(e, h2server_addr(e->srv), GUARD_MS); /* calls made before it is up are queued */
	for (int i = 0; i < N; i++) {
		snprintf(id, sizeof(id), "s%d", i);
		heartbeat(e, &a[i], id, 0);
	}
	for (int i = 0; i < N; i++) {
		loop_until(e->l, &a[i].done, GUARD_MS);
		assert_true(a[i].ok);
		snprintf(id, sizeof(id), "s%d", i);
		assert_string_equal(a[i].session, id);
	}
	assert_int_equal(h2server_stats(e->srv)->accepted, 1);
	free(a);
}

static void deadline_ends_the_call(void **state)
{
	struct env *e = *state;
	struct script s = {0};
	struct answer a = {0}, b = {0};

	up(e, &s);
	heartbeat(e, &a, "s1", sw_ms(50));
	loop_until(e->l, &a.done, GUARD_MS);
	assert_int_equal(a.err.code, GRPC_DEADLINE_EXCEEDED);
	assert_true(sw_err_is(&a.err, SW_TEMPORARY));
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	assert_int_equal(s.n_closed, 1);
	assert_int_equal(s.code, 8); /* CANCEL */
	/* the connection serves on */
	s.run = run_reply;
	heartbeat(e, &b, "s2", sw_s(20));
	loop_until(e->l, &b.done, GUARD_MS);
	assert_true(b.ok);
}

static void deadline_counts_while_dialling_too(void **state)
{
	struct env *e = *state;
	struct answer a = {0};

	e->cfg.accept_nothing = true;
	server(e);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	heartbeat(e, &a, "s1", sw_ms(50));
	loop_until(e->l, &a.done, GUARD_MS);
	assert_int_equal(a.err.code, GRPC_DEADLINE_EXCEEDED);
}

static void too_large_request_is_not_sent(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_reply};
	struct answer a = {0}, b = {0};
	char *id = xcalloc(1, GRPC_MAX_SEND + 1);

	up(e, &s);
	/* tag and length: 5 bytes */
	memset(id, 's', GRPC_MAX_SEND - 5);
	heartbeat(e, &b, id, 0);
	loop_until(e->l, &b.done, GUARD_MS);
	assert_true(b.ok);
	assert_int_equal(s.bytes, GRPC_MAX_SEND);
	memset(id, 's', GRPC_MAX_SEND - 4);
	heartbeat(e, &a, id, 0);
	assert_false(a.done);
	loop_until(e->l, &a.done, GUARD_MS);
	assert_int_equal(a.err.code, GRPC_RESOURCE_EXHAUSTED);
	assert_non_null(strstr(a.err.msg, "4194305"));
	assert_int_equal(s.n_open, 1);
	free(id);
}

/* --- answers that are not as they should be -----------------------------------------------------
 */

struct odd {
	const char *what;
	void (*run)(struct h2s_stream *st, void *arg);
	int code;
	const char *text; /* part of the message */
};

static void odd_error(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_end(st, 7, "Permission denied: node 100% gone\nr\xc3\xa9moved");
}
static void odd_error_after_message(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send(st, "", 0);
	h2s_end(st, 13, NULL);
}
static void odd_no_status(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send(st, "", 0);
	h2s_end_no_status(st);
}
static void odd_no_status_at_all(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_end_no_status(st);
}
static void odd_end_data(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send(st, "", 0);
	h2s_end_data(st);
}
static void odd_no_message(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_end(st, 0, NULL);
}
static void odd_two_messages(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send(st, "", 0);
	h2s_send(st, "", 0);
	h2s_end(st, 0, NULL);
}
static void odd_compressed(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send_raw(st, "\1\0\0\0\1x", 6);
	h2s_end(st, 0, NULL);
}
static void odd_length(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send_raw(st, "\0\377\377\377\377xxxx", 9);
}
static void odd_partial(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send_raw(st, "\0\0\0\0\11xxxx", 9);
	h2s_end(st, 0, NULL);
}
static void odd_rubbish(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_reply(st, "\xff\xff\xff\xff", 4);
}
static void odd_http_503(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send_head(st, "503", "text/html");
	h2s_send_raw(st, "<html>", 6);
}
static void odd_http_401(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_end_with(st, (const char *const[]){":status", "401", NULL});
}
static void odd_html(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send_head(st, "200", "text/html");
	h2s_send_raw(st, "<html>", 6);
}
static void odd_no_type(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send_head(st, "200", NULL);
	h2s_send(st, "", 0);
}
static void odd_status_text(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_end_with(st, (const char *const[]){":status", "200", "grpc-status", "fine",
				 "grpc-message", "x", NULL});
}
static void odd_http_error_with_status(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_end_with(st, (const char *const[]){":status", "405", "grpc-status", "13",
				 "grpc-message", "method%20not allowed", NULL});
}
static void odd_refused(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_reset(st, 7);
}
static void odd_reset(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_send(st, "", 0);
	h2s_reset(st, 1);
}
static void odd_cancel(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_reset(st, 8);
}

static void odd_answers_have_codes_and_texts(void **state)
{
	static const struct odd t[] = {
		{"error", odd_error, GRPC_PERMISSION_DENIED,
			"Permission denied: node 100% gone r\xc3\xa9moved"},
		{"error after a message", odd_error_after_message, GRPC_INTERNAL, "INTERNAL"},
		{"no grpc-status in the trailers", odd_no_status, GRPC_UNKNOWN, "without a status"},
		{"no grpc-status in the head", odd_no_status_at_all, GRPC_UNKNOWN,
			"without a status"},
		{"END_STREAM on DATA", odd_end_data, GRPC_UNKNOWN, "without a status"},
		{"status 0, no message", odd_no_message, GRPC_INTERNAL, "without a message"},
		{"two messages", odd_two_messages, GRPC_INTERNAL, "more than one"},
		{"compressed", odd_compressed, GRPC_INTERNAL, "compressed"},
		{"length", odd_length, GRPC_RESOURCE_EXHAUSTED, "4294967295"},
		{"half a message", odd_partial, GRPC_INTERNAL, "inside a message"},
		{"no protobuf", odd_rubbish, GRPC_INTERNAL, "HeartbeatRequest"},
		{"HTTP 503", odd_http_503, GRPC_UNAVAILABLE, "503"},
		{"HTTP 401", odd_http_401, GRPC_UNAUTHENTICATED, "401"},
		{"HTML", odd_html, GRPC_UNKNOWN, "text/html"},
		{"no content-type", odd_no_type, GRPC_UNKNOWN, "missing"},
		{"status text", odd_status_text, GRPC_UNKNOWN, "x"},
		{"HTTP 405 with status", odd_http_error_with_status, GRPC_INTERNAL,
			"method not allowed"},
		{"refused", odd_refused, GRPC_UNAVAILABLE, "REFUSED_STREAM"},
		{"reset after a message", odd_reset, GRPC_INTERNAL, "PROTOCOL_ERROR"},
		{"cancelled by the server", odd_cancel, GRPC_CANCELLED, "CANCEL"},
	};
	struct env *e = *state;
	struct script s = {0};

	up(e, &s);
	for (size_t i = 0; i < SW_ARRAY_LEN(t); i++) {
		struct answer a = {0};

		s.run = t[i].run;
		heartbeat(e, &a, "s1", 0);
		loop_until(e->l, &a.done, GUARD_MS);
		if (a.ok || a.err.domain != SW_E_GRPC || a.err.code != t[i].code ||
			!strstr(a.err.msg, t[i].text))
			fail_msg("%s: ok %d, code %d, \"%s\"", t[i].what, a.ok, a.err.code,
				a.err.msg);
		loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	}
	assert_int_equal(h2server_stats(e->srv)->accepted, 1);
	assert_false(e->cl.closed);
}

static void lost_connection_is_unavailable(void **state)
{
	struct env *e = *state;
	struct script s = {0};
	struct answer a = {0};
	struct flow f = {0}, p = {0};

	up(e, &s);
	heartbeat(e, &a, "s1", 0);
	assignments(e, &f);
	publish(e, &p);
	send_one(&p, 10);
	while (s.n_open < 3)
		sw_loop_once(e->l, true);
	h2server_drop_all(e->srv);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(a.done && f.ended && p.ended);
	assert_int_equal(a.err.code, GRPC_UNAVAILABLE);
	assert_int_equal(f.err.code, GRPC_UNAVAILABLE);
	assert_int_equal(p.err.code, GRPC_UNAVAILABLE);
	assert_true(sw_err_is(&f.err, SW_TEMPORARY));
	assert_true(e->cl.failed);
}

static void calls_end_before_the_connection_they_are_on(void **state)
{
	struct env *e = *state;
	struct script s = {0};
	struct answer a = {0}, b = {0};

	up(e, &s);
	heartbeat(e, &a, "s1", 0);
	h2_conn_close(e->cl.c);
	heartbeat(e, &b, "too late", 0);
	assert_false(a.done || b.done);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(a.done);
	assert_true(sw_err_is(&a.err, SW_CANCELLED));
	loop_until(e->l, &b.done, GUARD_MS);
	assert_int_equal(b.err.code, GRPC_UNAVAILABLE);
}

static void connection_may_be_closed_by_an_answer(void **state)
{
	struct env *e = *state;
	struct answer a = {.close_conn = true, .e = e}, b = {.e = e};

	server(e);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	dial_up(e);
	heartbeat(e, &a, "s1", 0);
	heartbeat(e, &b, "s2", 0);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(a.done && b.done && a.ok);
}

static void run_goaway(struct h2s_stream *st, void *arg)
{
	(void)arg;
	h2s_conn_goaway(h2s_conn_of(st), 0, "bye");
	h2s_reply(st, "", 0);
}

static void goaway_refuses_new_calls_only(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_goaway};
	struct answer a = {0}, b = {0};
	struct flow p = {0};

	up(e, &s);
	publish(e, &p); /* keeps the connection alive */
	heartbeat(e, &a, "s1", 0);
	loop_until(e->l, &a.done, GUARD_MS);
	assert_true(a.ok);
	loop_until(e->l, &e->cl.goaway, GUARD_MS);
	heartbeat(e, &b, "s2", 0);
	loop_until(e->l, &b.done, GUARD_MS);
	assert_int_equal(b.err.code, GRPC_UNAVAILABLE);
	assert_false(p.ended);
	hang_up(e);
	assert_true(p.ended);
}

/* --- server streams -----------------------------------------------------------------------------
 */

static void run_nothing(struct h2s_stream *st, void *arg)
{
	(void)st;
	(void)arg;
}

static void push(struct script *s, unsigned from, unsigned to)
{
	for (unsigned i = from; i <= to; i++) {
		Pb__AssignmentsMessage m = PB__ASSIGNMENTS_MESSAGE__INIT;
		char text[16];
		uint8_t *p;
		size_t len;

		snprintf(text, sizeof(text), "%u", i);
		m.results_in = text;
		p = api_pack(&m.base, &len);
		h2s_send(s->st, p, len);
		free(p);
	}
}

static bool flow_has(void *arg)
{
	struct flow *f = arg;

	return f->n >= f->want;
}

/* Waits for @n messages. */
static void wait_for(struct env *e, struct flow *f, unsigned n)
{
	f->want = n;
	loop_until_fn(e->l, flow_has, f, GUARD_MS);
}

/* Traps 7 and 8: nothing at all comes before the first message; status 0 is an end as well. */
static void silent_stream_lives_and_ends_with_status_0(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {0};
	struct answer a = {0};

	up(e, &s);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	assignments(e, &f);
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	for (int i = 0; i < 5; i++) { /* life goes on around it */
		a = (struct answer){0};
		heartbeat(e, &a, "s", 0);
		loop_until(e->l, &a.done, GUARD_MS);
		assert_true(a.ok);
	}
	assert_int_equal(f.n, 0);
	assert_false(f.ended);
	push(&s, 1, 1);
	wait_for(e, &f, 1);
	assert_false(f.ended);
	h2s_end(s.st, 0, NULL);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_true(f.ok);
	assert_int_equal(f.n, 1);
}

static void stream_error_without_message(void **state)
{
	struct env *e = *state;
	struct script s = {.run = odd_error};
	struct flow f = {0};

	up(e, &s);
	assignments(e, &f);
	assert_false(f.ended);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_int_equal(f.err.code, GRPC_PERMISSION_DENIED);
	assert_int_equal(f.n, 0);
}

static void messages_come_in_order(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {0};

	e->cfg.split_bytes = true;
	up(e, &s);
	assignments(e, &f);
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	push(&s, 1, 300);
	h2s_end(s.st, 14, "manager stops");
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_int_equal(f.n, 300);
	assert_string_equal(f.last, "300");
	assert_int_equal(f.err.code, GRPC_UNAVAILABLE);
	assert_string_equal(f.err.msg, "manager stops");
}

static void paused_stream_waits_even_with_its_end(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {.pause_at = 2};
	struct answer a = {0};

	up(e, &s);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	assignments(e, &f);
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	push(&s, 1, 4);
	h2s_end(s.st, 0, NULL);
	wait_for(e, &f, 2);
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	heartbeat(e, &a, "s", 0);
	loop_until(e->l, &a.done, GUARD_MS);
	assert_int_equal(f.n, 2);
	assert_false(f.ended);
	grpc_resume(f.call);
	assert_int_equal(f.n, 2); /* never inside the call */
	grpc_resume(f.call);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_true(f.ok);
	assert_int_equal(f.n, 4);
}

/* A consumer that does not read: the server keeps the rest, other calls are not touched. */
static void paused_stream_holds_a_window_at_most(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {.pause_at = 1};
	size_t len, held;
	uint8_t *p = complete_encoded(100, &len);

	up(e, &s);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	assignments(e, &f);
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	push(&s, 1, 1);
	for (int i = 0; i < 40; i++)
		h2s_send(s.st, p, len);
	wait_for(e, &f, 1);
	for (int i = 0; i < 50; i++) {
		struct answer a = {0};

		heartbeat(e, &a, "s", 0);
		loop_until(e->l, &a.done, GUARD_MS);
		assert_true(a.ok);
	}
	held = 40 * len - h2s_queued(s.st);
	assert_in_range(held, 1, 1u << 20);
	assert_int_equal(f.n, 1);
	grpc_resume(f.call);
	wait_for(e, &f, 41);
	grpc_cancel(f.call);
	free(p);
}

/* The real size: everything in one message, unpacked on the pool while heartbeats go on. */
static void complete_of_10000_tasks(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {.take = true};
	struct answer a = {0};
	size_t len;
	uint8_t *p = complete_encoded(10000, &len);

	assert_true(len > 20u << 20);
	up(e, &s);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	assignments(e, &f);
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	h2s_send(s.st, p, len);
	push(&s, 2, 2); /* must not overtake it */
	heartbeat(e, &a, "s", 0);
	loop_until(e->l, &a.done, GUARD_MS);
	assert_true(a.ok);
	while (f.n < 1)
		sw_loop_once(e->l, true);
	assert_int_equal(f.n_changes, 10000);
	api_free(f.taken);
	while (f.n < 2)
		sw_loop_once(e->l, true);
	assert_string_equal(f.last, "2");
	/* and again, not taken, cancelled while it is being unpacked or before */
	h2s_send(s.st, p, len);
	h2s_send(s.st, p, len);
	while (f.n < 3)
		sw_loop_once(e->l, true);
	grpc_cancel(f.call);
	assert_false(f.ended);
	free(p);
}

static void message_of_64_mib(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {0};
	size_t n = 64u << 20, len;
	Pb__AssignmentsMessage m = PB__ASSIGNMENTS_MESSAGE__INIT;
	char *text = xcalloc(1, n + 1);
	uint8_t *p;

	memset(text, 'r', n);
	m.results_in = text;
	p = api_pack(&m.base, &len);
	up(e, &s);
	assignments(e, &f);
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	h2s_send(s.st, p, len);
	h2s_end(s.st, 0, NULL);
	free(p);
	free(text);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_true(f.ok);
	assert_int_equal(f.n, 1);
}

/* Two bytes of an empty change become a struct: a peer cannot make that without bound. */
static void blown_up_message_is_refused(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {0};
	size_t len = 32u << 20;
	uint8_t *p = xcalloc(1, len);

	for (size_t i = 0; i < len; i += 2)
		p[i] = 0x22; /* changes, length 0 */
	up(e, &s);
	assignments(e, &f);
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	h2s_send(s.st, p, len);
	free(p);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_int_equal(f.err.code, GRPC_INTERNAL);
}

static void cancel_in_every_phase_is_silent(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_nothing};
	struct flow f = {0};
	size_t len;
	uint8_t *big = complete_encoded(2000, &len);

	server(e);
	h2server_handle(e->srv, NULL, &scripted, &s);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	assignments(e, &f); /* not connected */
	grpc_cancel(f.call);
	loop_until(e->l, &e->cl.ready, GUARD_MS);
	assignments(e, &f); /* not sent */
	grpc_cancel(f.call);
	assignments(e, &f); /* silent */
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	grpc_cancel(f.call);
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	assert_int_equal(s.code, 8);
	s.n_ended = 0;
	f.cancel_at_once = true;
	assignments(e, &f); /* inside its own callback */
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	push(&s, 1, 5);
	wait_for(e, &f, 1);
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	s.n_ended = 0;
	assignments(e, &f); /* while the pool works on its message, or shortly before or after */
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	h2s_send(s.st, big, len);
	while (s.st && h2s_queued(s.st) > 0)
		sw_loop_once(e->l, true);
	if (f.n == 1)
		grpc_cancel(f.call);
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	s.n_ended = 0;
	f = (struct flow){.pause_at = 1};
	assignments(e, &f); /* paused, the stream over */
	while (s.n_ended == 0)
		sw_loop_once(e->l, true);
	push(&s, 1, 3);
	h2s_end(s.st, 0, NULL);
	wait_for(e, &f, 1);
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	grpc_resume(f.call);
	grpc_cancel(f.call);
	loop_for(e->l, 10);
	assert_false(f.ended);
	assert_int_equal(f.n, 1);
	grpc_cancel(NULL);
	free(big);
}

/* --- client streams -----------------------------------------------------------------------------
 */

static void client_stream_sends_and_gets_its_answer(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_reply};
	struct flow f = {0};

	up(e, &s);
	publish(e, &f);
	for (int i = 0; i < 100; i++)
		send_one(&f, 100);
	assert_int_equal(s.n_ended, 0);
	grpc_finish(f.call);
	grpc_finish(f.call);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_true(f.ok);
	assert_int_equal(f.n, 1);
	assert_int_equal(s.n_messages, 100);
}

static void client_stream_may_end_without_an_answer(void **state)
{
	struct env *e = *state;
	struct script s = {.run = odd_no_message};
	struct flow f = {0};

	up(e, &s);
	publish(e, &f);
	send_one(&f, 1);
	grpc_finish(f.call);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_true(f.ok);
	assert_int_equal(f.n, 0);
}

static void early_message(void *arg, struct h2s_stream *st, const uint8_t *m, size_t n)
{
	int status = *(int *)arg;

	(void)m;
	(void)n;
	if (status == 0)
		h2s_reply(st, "", 0);
	else
		h2s_end(st, status, "enough");
}

/* Trap 10: the answer comes while we are still sending; the connection and its calls live on. */
static void server_may_answer_before_the_upload_ends(void **state)
{
	struct env *e = *state;
	int status = 0;
	struct h2s_handler h = {.message = early_message};
	struct answer a = {0};

	server(e);
	h2server_handle(e->srv, PUBLISH, &h, &status);
	h2server_handle(e->srv, HEARTBEAT, &echo, NULL);
	dial_up(e);
	for (status = 0; status <= 8; status += 8) {
		for (int flood = 0; flood <= 1; flood++) {
			struct flow f = {0};

			publish(e, &f);
			send_one(&f, 10);
			while (!f.ended) {
				if (flood)
					send_one(&f, 30000); /* never stops */
				sw_loop_once(e->l, !flood);
			}
			assert_int_equal(f.ok, status == 0);
			if (status) {
				assert_int_equal(f.err.code, status);
				assert_string_equal(f.err.msg, "enough");
			}
		}
	}
	heartbeat(e, &a, "s", 0);
	loop_until(e->l, &a.done, GUARD_MS);
	assert_true(a.ok);
	assert_int_equal(h2server_stats(e->srv)->accepted, 1);
}

static void blocked_sender_is_told_and_woken(void **state)
{
	struct env *e = *state;
	struct script s = {.run = run_reply};
	struct flow f = {0};
	unsigned sent = 0, waits = 0;

	up(e, &s);
	publish(e, &f);
	while (sent < 500) {
		unsigned before = f.n_writable;

		sent++;
		if (!send_one(&f, 10000)) {
			waits++;
			while (f.n_writable == before)
				sw_loop_once(e->l, true);
		}
	}
	assert_in_range(waits, 1, 499);
	grpc_finish(f.call);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_true(f.ok);
	assert_int_equal(s.n_messages, 500);
}

static void blocked_sender_waits_for_the_window(void **state)
{
	struct env *e = *state;
	struct script s = {0};
	struct flow f = {0};
	struct answer a = {0};
	struct h2s_stream *st;
	bool go = true;

	e->cfg.hold_windows = true;
	up(e, &s);
	publish(e, &f);
	for (int i = 0; i < 150; i++) /* one window goes out, more than the limit stays */
		go = send_one(&f, 1000);
	assert_false(go);
	while (s.bytes < 60000)
		sw_loop_once(e->l, true);
	loop_for(e->l, 20);
	assert_int_equal(f.n_writable, 0);
	st = s.st;
	/* the connection's window is used up too: a call waits, and is ended by its deadline */
	heartbeat(e, &a, "s", sw_ms(50));
	loop_until(e->l, &a.done, GUARD_MS);
	assert_int_equal(a.err.code, GRPC_DEADLINE_EXCEEDED);
	h2s_end(st, 0, NULL);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_true(f.ok);
}

static void too_large_message_ends_the_stream(void **state)
{
	struct env *e = *state;
	struct script s = {0};
	struct flow f = {0};

	up(e, &s);
	publish(e, &f);
	assert_false(send_one(&f, GRPC_MAX_SEND));
	assert_false(f.ended);
	loop_until(e->l, &f.ended, GUARD_MS);
	assert_int_equal(f.err.code, GRPC_RESOURCE_EXHAUSTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(unary_call_answers),
		T(request_looks_as_managers_want_it),
		T(unknown_method_is_a_rejection),
		T(many_calls_on_one_connection),
		T(deadline_ends_the_call),
		T(deadline_counts_while_dialling_too),
		T(too_large_request_is_not_sent),
		T(odd_answers_have_codes_and_texts),
		T(lost_connection_is_unavailable),
		T(calls_end_before_the_connection_they_are_on),
		T(connection_may_be_closed_by_an_answer),
		T(goaway_refuses_new_calls_only),
		T(silent_stream_lives_and_ends_with_status_0),
		T(stream_error_without_message),
		T(messages_come_in_order),
		T(paused_stream_waits_even_with_its_end),
		T(paused_stream_holds_a_window_at_most),
		T(complete_of_10000_tasks),
		T(message_of_64_mib),
		T(blown_up_message_is_refused),
		T(cancel_in_every_phase_is_silent),
		T(client_stream_sends_and_gets_its_answer),
		T(client_stream_may_end_without_an_answer),
		T(server_may_answer_before_the_upload_ends),
		T(blocked_sender_is_told_and_woken),
		T(blocked_sender_waits_for_the_window),
		T(too_large_message_ends_the_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
