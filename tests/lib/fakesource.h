/* fakesource.h - a manager that a test plays by hand: registrations, assignments, answers to status
 * updates; and it remembers all it was told. Also builders of assignments. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/loop.h>
#include <swarm/source.h>

struct fakesource;
struct fakesource *fakesource_new(struct sw_loop *l);
/* After the agent closed it. */
void fakesource_free(struct fakesource *s);
struct source *fakesource_source(struct fakesource *s);

bool fakesource_started(struct fakesource *s);
bool fakesource_closed(struct fakesource *s);
unsigned fakesource_describes(struct fakesource *s);
const char *fakesource_hostname(struct fakesource *s); /* as described last */
void fakesource_register(struct fakesource *s);
void fakesource_lose(struct fakesource *s);
void fakesource_remove_node(struct fakesource *s);
void fakesource_node(struct fakesource *s, const char *hostname);
void fakesource_keys(struct fakesource *s, uint64_t lamport);
/* Takes @m. */
void fakesource_send(struct fakesource *s, Pb__AssignmentsMessage *m);
unsigned fakesource_done(struct fakesource *s); /* assignments_done() calls */

/* Updates are answered one loop round later with success unless: */
void fakesource_fail(struct fakesource *s, unsigned n, const struct sw_err *err); /* the next n */
void fakesource_foreign(
	struct fakesource *s, const char *task_id); /* requests with it are refused */
void fakesource_hold(struct fakesource *s, bool hold);
/* Looks at every update on its way in. */
void fakesource_watch(struct fakesource *s,
	void (*cb)(void *arg, const char *task_id, const Pb__TaskStatus *st), void *arg);

struct fake_request {
	size_t n;
	const Pb__TaskStatus *const *statuses; /* copies */
	const char *const *ids;
};
unsigned fakesource_requests(struct fakesource *s); /* sent so far */
const struct fake_request *fakesource_request(struct fakesource *s, unsigned i);
void fakesource_forget_requests(struct fakesource *s); /* none may be on its way */
unsigned fakesource_max_in_flight(struct fakesource *s);
/* What the manager knows: the last accepted status; NULL: none. */
const Pb__TaskStatus *fakesource_status(struct fakesource *s, const char *task_id);
/* All accepted states of a task, "RUNNING FAILED"; repeats included. Static buffer. */
const char *fakesource_states(struct fakesource *s, const char *task_id);
unsigned fakesource_went_back(struct fakesource *s); /* states lower than before */

/* Log subscriptions. */
void fakesource_subscribe(struct fakesource *s, const Pb__SubscriptionMessage *m);
struct fake_publisher {
	char id[64];
	unsigned n_messages, n_sends, max_batch_bytes;
	bool finished, cancelled;
	char text[4096];     /* data of all messages */
	char contexts[4096]; /* "service/node/task " of all messages */
};
const struct fake_publisher *fakesource_publisher(
	struct fakesource *s, const char *id); /* the last */
void fakesource_stall_logs(struct fakesource *s, bool stall);

/* ---- builders */
#define FAKE_NODE "node1"
Pb__Task *fake_task(const char *id, int desired, int state);
/* The task wants this secret. */
Pb__Task *fake_task_secret(const char *id, int desired, int state, const char *secret_id);
Pb__Secret *fake_secret(const char *id, const char *data);
Pb__Config *fake_config(const char *id, const char *data);
Pb__AssignmentsMessage *fake_message(bool complete);
/* All take what they add. */
void fake_add_task(Pb__AssignmentsMessage *m, Pb__Task *t, bool remove);
void fake_add_secret(Pb__AssignmentsMessage *m, Pb__Secret *x, bool remove);
void fake_add_config(Pb__AssignmentsMessage *m, Pb__Config *x, bool remove);
