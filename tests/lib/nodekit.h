/* nodekit.h - a node as far as the session room goes (remotes, identity, dispatcher) with every
 * event recorded, on a loop of its own, next to a test manager. */
#pragma once
#include "looptest.h"
#include "testmanager.h"
#include <stdbool.h>
#include <swarm/loop.h>
#include <swarm/session.h>

#define NK_LOG_MAX 256

struct nodekit {
	struct sw_loop *loop;
	struct testmanager *tm;
	char dir[64];
	struct remotes *remotes;
	struct identity *identity;
	struct dispatcher *dispatcher;
	Pb__NodeDescription *desc;
	/* identity */
	bool ready, id_failed;
	unsigned changed;
	struct sw_err id_err;
	/* dispatcher */
	unsigned registered, lost, nodes, keys, subscriptions, n_removed, n_failed;
	bool removed, failed, have_lost_err;
	struct sw_err lost_err, end_err;
	char session_id[64];
	char order[NK_LOG_MAX]; /* r registered, n node, k keys, a assignments, l lost */
	uint64_t key_lamport;   /* of the first key last handed up */
	char subscription[64];
	bool subscription_close;
	/* assignments: kept */
	Pb__AssignmentsMessage *messages[NK_LOG_MAX];
	unsigned n_messages, n_done;
	bool auto_done;   /* acknowledges each one at once */
	uint64_t step_ns; /* with a fake clock: what passes with each look at a condition */
};

struct nk_config {
	unsigned n_managers;
	uint64_t heartbeat_ns; /* 0: 200 ms */
	bool orchestrate;
};
/* A swarm and an empty state directory; nothing started. */
void nk_setup(struct nodekit *k, const struct nk_config *cfg);
/* Ends everything; fails the test when something is left open on the loop. */
void nk_teardown(struct nodekit *k);

/* Remotes with manager @manager as join address (-1: an address where nobody listens), then
 * identity_start(). @token NULL: none. */
void nk_identity(struct nodekit *k, int manager, const char *token);
void nk_identity_close(struct nodekit *k); /* a restart begins with this; the directory stays */
/* Joins with a worker token and waits until ready. */
void nk_join(struct nodekit *k);
/* Starts a dispatcher with a small description. */
void nk_dispatch(struct nodekit *k, bool join_addr_given);
void nk_dispatcher_close(struct nodekit *k);
/* nk_join(), nk_dispatch(), waits for the registration and the first COMPLETE. */
void nk_up(struct nodekit *k);

/* Run the loop until *@n has reached @at_least; 20 s are the guard. */
void nk_wait(struct nodekit *k, const unsigned *n, unsigned at_least);
void nk_wait_flag(struct nodekit *k, const bool *flag);
void nk_wait_calls(struct nodekit *k, enum tm_method method, unsigned at_least);
/* Loop with a condition: the body runs after each event. */
#define NK_UNTIL(k, cond)                                                                          \
	do {                                                                                       \
		nk_guard_start(k);                                                                 \
		while (!(cond))                                                                    \
			nk_once(k, #cond);                                                         \
	} while (0)
/* From now on time is what NK_UNTIL() makes of it: @step_ns per look. */
void nk_fake_clock(struct nodekit *k, uint64_t step_ns);
void nk_guard_start(struct nodekit *k);
void nk_once(struct nodekit *k, const char *what);

/* malloc'd content of a file below the state directory, NULL if it is not there. */
char *nk_file(const struct nodekit *k, const char *name);
void nk_put_file(const struct nodekit *k, const char *name, const char *text, unsigned mode);
/* The only node that the manager knows (fails if there are more or none). */
struct tm_node nk_node(const struct nodekit *k);
/* A task for this node in state ASSIGNED, desired RUNNING. */
void nk_task(struct nodekit *k, const char *id);
