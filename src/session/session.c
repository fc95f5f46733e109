/*   connecting --> waiting for the first message --> registered --> ending --> (freed)
 *
 * Happy path: the connection is ready, the Session stream is opened, its first message brings the
 * session id; then heartbeats, assignments and log subscriptions run side by side for weeks.
 * Failures: whatever ends first says why; everything else is reset and the connection closed. Only
 * when it is gone the owner hears of it, so that a next ListenSubscriptions cannot overlap with
 * this one (the manager would forget the newer one, seen on Docker 20.10).
 * Close: session_end(), the same without an error. */
#include "assignments.h"
#include "session_priv.h"
#include <errno.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/grpc.h>
#include <swarm/h2.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <sys/queue.h>

#define DISPATCHER        "/docker.swarmkit.v1.Dispatcher/"
#define LOGBROKER         "/docker.swarmkit.v1.LogBroker/"
#define RPC_TIMEOUT_NS    sw_s(5)
#define UPDATE_TIMEOUT_NS sw_s(10)
/* Against nonsense in HeartbeatResponse.period. */
#define HEARTBEAT_MIN_NS sw_ms(100)
#define HEARTBEAT_MAX_NS sw_s(60)
#define SESSION_ID_MAX   256

struct session {
	struct sw_loop *loop;
	struct session_events ev;
	void *arg;
	char *addr;
	Pb__SessionRequest *request;
	struct h2_conn *conn;
	struct grpc_call *stream, *heartbeat, *assignments, *listen;
	struct sw_timer timer;  /* first message, then the next heartbeat */
	struct sw_timer reopen; /* assignments after a gap */
	struct sw_backoff reopen_backoff;
	struct assignments_seq seq;
	bool busy; /* an assignments message is being worked on */
	bool registered, ending, on_purpose;
	LIST_HEAD(, update) updates;
	char id[SESSION_ID_MAX];
	struct sw_err err;
};

/* A status call. */
struct update {
	LIST_ENTRY(update) entry;
	struct session *s;
	struct grpc_call *call;
	dispatcher_update_cb *cb;
	void *arg;
};

static void update_end(struct update *u, const struct sw_err *err);
static void start_heartbeat(struct session *s);
static void open_assignments(struct session *s);

/* ---- the end */

static void drop_calls(struct session *s)
{
	grpc_cancel(take(s->stream));
	grpc_cancel(take(s->heartbeat));
	grpc_cancel(take(s->assignments));
	grpc_cancel(take(s->listen));
}

static void shut(struct session *s)
{
	s->ending = true;
	sw_timer_stop(&s->timer);
	sw_timer_stop(&s->reopen);
	drop_calls(s);
	if (s->conn)
		h2_conn_close(s->conn); /* status calls and publishers end with it */
	else
		sw_timer_arm(&s->timer, 0);
}

/* The first error counts. */
static void fail(struct session *s, const struct sw_err *err, const char *what)
{
	if (s->ending)
		return;
	s->err = *err;
	sw_err_wrap(&s->err, "%s", what);
	shut(s);
}

static void finish(struct session *s)
{
	struct session_events ev = s->ev;
	void *arg = s->arg;
	struct sw_err err = s->err;
	bool on_purpose = s->on_purpose;
	struct update *u;

	if (!err.cls)
		sw_err_set(&err, SW_TEMPORARY, -ENOTCONN, "the session was ended");
	while ((u = LIST_FIRST(&s->updates)))
		update_end(u, &err);
	sw_timer_stop(&s->timer);
	sw_timer_stop(&s->reopen);
	api_free(s->request);
	free(s->addr);
	free(s);
	ev.ended(arg, on_purpose ? NULL : &err);
}

static void on_closed(void *arg, const struct sw_err *err)
{
	struct session *s = arg;

	s->conn = NULL;
	drop_calls(s); /* those that could not even start */
	/* a stream only knows that its connection was lost, this says why */
	if (err && (!s->err.cls || (s->err.domain == SW_E_GRPC && s->err.code == GRPC_UNAVAILABLE)))
		s->err = *err;
	else if (!s->err.cls)
		sw_err_set(&s->err, SW_TEMPORARY, -ECONNRESET, "connection closed");
	finish(s);
}

void session_end(struct session *s)
{
	if (s->ending)
		return;
	s->on_purpose = true;
	shut(s);
}

/* ---- heartbeats */

static void on_heartbeat(void *arg, const ProtobufCMessage *resp, const struct sw_err *err)
{
	struct session *s = arg;
	const Pb__HeartbeatResponse *m = (const void *)resp;
	uint64_t period;

	s->heartbeat = NULL;
	if (s->ending)
		return;
	if (err) {
		fail(s, err, "heartbeat");
		return;
	}
	period = api_duration_ns(m->period);
	if (period < HEARTBEAT_MIN_NS)
		period = HEARTBEAT_MIN_NS;
	if (period > HEARTBEAT_MAX_NS)
		period = HEARTBEAT_MAX_NS;
	sw_timer_arm(&s->timer, period);
	s->ev.heartbeat(s->arg);
}

static void start_heartbeat(struct session *s)
{
	Pb__HeartbeatRequest req = PB__HEARTBEAT_REQUEST__INIT;

	req.session_id = s->id;
	s->heartbeat = grpc_unary(s->conn, DISPATCHER "Heartbeat", &req.base,
		&pb__heartbeat_response__descriptor, RPC_TIMEOUT_NS, on_heartbeat, s);
}

/* ---- assignments */

static void on_gap(struct session *s, const Pb__AssignmentsMessage *m)
{
	uint64_t delay = sw_backoff_fail(&s->reopen_backoff);

	log_warning("assignments out of sequence, asking for all of them again",
		KS("manager", s->addr), KS("applies_to", m->applies_to), KS("have", s->seq.last));
	grpc_cancel(take(s->assignments));
	sw_timer_arm(&s->reopen, delay);
}

static bool on_assignments(void *arg, const ProtobufCMessage *msg)
{
	struct session *s = arg;
	const Pb__AssignmentsMessage *m = (const void *)msg;

	if (s->ending)
		return false;
	if (!assignments_in_order(&s->seq, m)) {
		on_gap(s, m);
		return false;
	}
	if (m->type == PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL)
		sw_backoff_reset(&s->reopen_backoff);
	s->busy = true;
	s->ev.assignments(s->arg, (Pb__AssignmentsMessage *)grpc_take(s->assignments));
	return !s->busy; /* read on when it is done with, which may be already */
}

static void on_assignments_end(void *arg, const struct sw_err *err)
{
	struct session *s = arg;
	struct sw_err e;

	s->assignments = NULL;
	if (!err)
		sw_err_set(&e, SW_TEMPORARY, -EPIPE, "ended by the manager");
	fail(s, err ? err : &e, "assignments");
}

static void open_assignments(struct session *s)
{
	static const struct grpc_stream_events events = {
		.message = on_assignments, .end = on_assignments_end};
	Pb__AssignmentsRequest req = PB__ASSIGNMENTS_REQUEST__INIT;

	if (s->ending || !s->registered || s->assignments || s->busy || sw_timer_armed(&s->reopen))
		return;
	s->seq = (struct assignments_seq){0};
	req.session_id = s->id;
	s->assignments = grpc_server_stream(s->conn, DISPATCHER "Assignments", &req.base,
		&pb__assignments_message__descriptor, &events, s);
}

static void on_reopen(void *arg)
{
	open_assignments(arg);
}

void session_assignments_done(struct session *s)
{
	if (!s->busy)
		return;
	s->busy = false;
	if (s->ending)
		return;
	if (s->assignments)
		grpc_resume(s->assignments);
	else
		open_assignments(s);
}

/* ---- log subscriptions */

static bool on_subscription(void *arg, const ProtobufCMessage *msg)
{
	struct session *s = arg;

	if (!s->ending)
		s->ev.subscription(s->arg, (const Pb__SubscriptionMessage *)(const void *)msg);
	return !s->ending;
}

static void on_listen_end(void *arg, const struct sw_err *err)
{
	struct session *s = arg;
	struct sw_err e;

	s->listen = NULL;
	if (err && err->domain == SW_E_GRPC && err->code == GRPC_UNIMPLEMENTED) {
		log_warning("the manager has no log broker: no service logs from this node",
			KS("manager", s->addr));
		return;
	}
	if (!err) /* what a stopping manager does: the registration is over all the same */
		sw_err_set(&e, SW_TEMPORARY, -EPIPE, "ended by the manager");
	fail(s, err ? err : &e, "log subscriptions");
}

static void open_listen(struct session *s)
{
	static const struct grpc_stream_events events = {
		.message = on_subscription, .end = on_listen_end};
	Pb__ListenSubscriptionsRequest req = PB__LISTEN_SUBSCRIPTIONS_REQUEST__INIT;

	s->listen = grpc_server_stream(s->conn, LOGBROKER "ListenSubscriptions", &req.base,
		&pb__subscription_message__descriptor, &events, s);
}

/* ---- the Session stream */

static bool on_message(void *arg, const ProtobufCMessage *msg)
{
	struct session *s = arg;
	const Pb__SessionMessage *m = (const void *)msg;
	bool first = !s->registered;
	struct sw_err err;

	if (s->ending)
		return false;
	if (first) {
		if (!*m->session_id || strlen(m->session_id) >= sizeof(s->id)) {
			sw_err_set(&err, SW_TEMPORARY, -EBADMSG, "a session id of %zu characters",
				strlen(m->session_id));
			fail(s, &err, "session");
			return false;
		}
		memcpy(s->id, m->session_id, strlen(m->session_id) + 1);
		s->registered = true;
		sw_timer_stop(&s->timer);
	}
	s->ev.message(s->arg, m);
	if (s->ending || !first)
		return !s->ending;
	start_heartbeat(s);
	open_assignments(s);
	open_listen(s);
	return true;
}

static void on_stream_end(void *arg, const struct sw_err *err)
{
	struct session *s = arg;
	struct sw_err e;

	s->stream = NULL;
	if (!err)
		sw_err_set(&e, SW_TEMPORARY, -EPIPE, "ended by the manager");
	fail(s, err ? err : &e, "session");
}

static void on_ready(void *arg)
{
	static const struct grpc_stream_events events = {
		.message = on_message, .end = on_stream_end};
	struct session *s = arg;

	if (s->ending)
		return;
	sw_timer_arm(&s->timer, RPC_TIMEOUT_NS);
	s->stream = grpc_server_stream(s->conn, DISPATCHER "Session", &s->request->base,
		&pb__session_message__descriptor, &events, s);
}

static void on_timer(void *arg)
{
	struct session *s = arg;
	struct sw_err err;

	if (s->ending) { /* there never was a connection */
		finish(s);
	} else if (s->registered) {
		start_heartbeat(s);
	} else {
		sw_err_set(&err, SW_TEMPORARY, -ETIMEDOUT, "session initiation timed out");
		fail(s, &err, "session");
	}
}

/* ---- statuses */

static void update_end(struct update *u, const struct sw_err *err)
{
	dispatcher_update_cb *cb = u->cb;
	void *arg = u->arg;

	LIST_REMOVE(u, entry);
	grpc_cancel(u->call);
	free(u);
	cb(arg, err);
}

static void on_updated(void *arg, const ProtobufCMessage *resp, const struct sw_err *err)
{
	struct update *u = arg;

	struct sw_err gone;

	(void)resp;
	u->call = NULL;
	if (err && u->s->ending &&
		err->cls == SW_CANCELLED) { /* we closed the connection under it */
		sw_err_set(&gone, SW_TEMPORARY, -ENOTCONN, "the session with the manager was lost");
		err = &gone;
	}
	/* a status of a foreign task concerns that status only; else first mark the session, so
	 * that the caller's next try does not go into it */
	if (err && !(err->domain == SW_E_GRPC && err->code == GRPC_PERMISSION_DENIED &&
			   !strstr(err->msg, "was removed from swarm")))
		fail(u->s, err, "task status");
	update_end(u, err);
}

void session_update_status(struct session *s,
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate **updates, size_t n, dispatcher_update_cb *cb,
	void *arg)
{
	Pb__UpdateTaskStatusRequest req = PB__UPDATE_TASK_STATUS_REQUEST__INIT;
	struct update *u = xcalloc(1, sizeof(*u));

	*u = (struct update){.s = s, .cb = cb, .arg = arg};
	LIST_INSERT_HEAD(&s->updates, u, entry);
	req.session_id = s->id;
	req.updates = updates;
	req.n_updates = n;
	u->call = grpc_unary(s->conn, DISPATCHER "UpdateTaskStatus", &req.base,
		&pb__update_task_status_response__descriptor, UPDATE_TIMEOUT_NS, on_updated, u);
}

/* ---- the door */

struct session *session_new(
	const struct session_config *cfg, const struct session_events *ev, void *arg)
{
	static const struct h2_conn_events events = {.ready = on_ready, .closed = on_closed};
	Pb__SessionRequest req = PB__SESSION_REQUEST__INIT;
	struct session *s = xcalloc(1, sizeof(*s));

	s->loop = cfg->loop;
	s->ev = *ev;
	s->arg = arg;
	s->addr = xstrdup(cfg->addr);
	s->busy = cfg->hold_assignments;
	s->reopen_backoff =
		(struct sw_backoff){.base_ns = sw_ms(100), .factor = 2, .max_ns = sw_s(8)};
	sw_timer_init(&s->timer, s->loop, on_timer, s);
	sw_timer_init(&s->reopen, s->loop, on_reopen, s);
	req.session_id = (char *)cfg->session_id;
	req.description = (Pb__NodeDescription *)cfg->description;
	s->request = (Pb__SessionRequest *)api_dup(&req.base);
	if (h2_conn_new(&s->conn, s->loop, cfg->addr, cfg->creds, RPC_TIMEOUT_NS, &events, s,
		    &s->err) < 0)
		shut(s); /* ended() follows from the loop */
	return s;
}

bool session_registered(const struct session *s)
{
	return s->registered && !s->ending;
}

const char *session_id(const struct session *s)
{
	return s->id;
}

struct h2_conn *session_conn(struct session *s)
{
	return s->conn;
}
