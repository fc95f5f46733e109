/* session_priv.h - one registration with one manager: a connection, the Session stream, and on top
 * of it heartbeats, assignments, log subscriptions. The end of any of them ends all.
 * Private to the session room. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/err.h>
#include <swarm/session.h>

struct h2_conn;
struct sw_loop;
struct tls_creds;
struct session;

struct session_events {
	/* Every SessionMessage; for the first one session_registered() is true already. */
	void (*message)(void *arg, const Pb__SessionMessage *m);
	void (*heartbeat)(void *arg);                              /* one was answered well */
	void (*assignments)(void *arg, Pb__AssignmentsMessage *m); /* takes @m */
	void (*subscription)(void *arg, const Pb__SubscriptionMessage *m);
	/* The connection is gone, every call has ended; once, then the session is freed. @err NULL
	 * after session_end(). */
	void (*ended)(void *arg, const struct sw_err *err);
};
struct session_config {
	struct sw_loop *loop;
	const char *addr;
	struct tls_creds *creds; /* referenced */
	const char *session_id;  /* of the registration before, "" if none */
	const Pb__NodeDescription *description;
	bool hold_assignments; /* a message of an earlier session is still being worked on */
};
/* Never fails at once: what is wrong comes by ended(). */
struct session *session_new(
	const struct session_config *cfg, const struct session_events *ev, void *arg);
void session_end(struct session *s);
bool session_registered(const struct session *s);
const char *session_id(const struct session *s); /* "" before the first message */
/* The last assignments message is done with. */
void session_assignments_done(struct session *s);
void session_update_status(struct session *s,
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate **updates, size_t n, dispatcher_update_cb *cb,
	void *arg);
/* For publishers; only while registered. */
struct h2_conn *session_conn(struct session *s);

/* logbroker.c */
struct log_publisher *log_publisher_new(struct h2_conn *c, const char *subscription_id,
	void (*writable)(void *arg), void (*ended)(void *arg, const struct sw_err *err), void *arg);
