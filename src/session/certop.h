/* certop.h - getting a certificate from a manager: fetch the root, make a key, have it signed,
 * store it. One operation at a time; what a manager already did for us (a node object made, a
 * request taken) is kept between runs, so that a retry goes on instead of polluting the swarm.
 * Private to the session room. */
#pragma once
#include "pki.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/err.h>
#include <swarm/steps.h>

struct remotes;
struct tls_creds;
struct ca_call;

/* ---- one call on a connection of its own (ca_call.c) */
typedef void ca_call_cb(void *arg, const ProtobufCMessage *resp, const struct sw_err *err);
/* @cb comes once, from the loop, when the connection is gone again. References @creds. */
struct ca_call *ca_call(struct sw_loop *l, const char *addr, struct tls_creds *creds,
	const char *path, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *resp_type,
	ca_call_cb *cb, void *arg);
/* Instead of @cb comes @gone, when the connection is closed; NULL: nothing. */
void ca_call_cancel(struct ca_call *c, void (*gone)(void *arg), void *arg);

/* ---- the operation (certop.c) */
enum certop_mode {
	CERTOP_JOIN,  /* with a token; the root too if there is none yet */
	CERTOP_RENEW, /* over mutual TLS */
	CERTOP_ROOT,  /* only: is there a newer root that our certificate belongs to? */
};

struct certop {
	/* set by the owner before a run; borrowed */
	struct sw_loop *loop;
	struct remotes *remotes;
	const char *state_dir;
	const char *token;
	Pb__NodeSpec__Availability availability;
	const char *root;                 /* the bundle in force, NULL: none */
	const char *cert, *key;           /* the pair in force, NULL: none */
	const char *node_id, *cluster_id; /* of that pair */
	/* results; the owner takes what is not NULL. A root may be there after a failure too: it is
	 * already on disk then */
	struct {
		char *root, *cert, *key;
		bool pair_is_good; /* the pair on disk fits the fetched root: no request needed */
	} out;
	/* private */
	struct steps steps;
	enum certop_mode mode;
	steps_end_cb *end;
	void *end_arg;
	struct {
		char *key, *csr, *node_id; /* a request that is under way */
		char *cert;                /* its answer */
		unsigned polls;
	} pending;
	char *manager_id, *manager_addr;
	char *new_root;
	bool rerooted;
	struct sw_err why_reroot;
	struct ca_call *call;
	struct sw_work *work;
	struct sw_timer poll_timer;
	void (*gone)(void *arg); /* being closed */
	void *gone_arg;
};

void certop_init(struct certop *op, struct sw_loop *l);
void certop_run(struct certop *op, enum certop_mode mode, steps_end_cb *end, void *arg);
static inline bool certop_running(const struct certop *op)
{
	return steps_running(&op->steps);
}
/* Stops a run silently, forgets and wipes everything; @gone (from the loop) when no connection and
 * no work on the pool is left. */
void certop_done(struct certop *op, void (*gone)(void *arg), void *arg);
/* The error of the last run's end tells more with this: the manager that was asked, "" if none. */
const char *certop_manager(const struct certop *op);
