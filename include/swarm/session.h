/* session.h - the manager side of a node: who we are (identity), whom we may ask (remotes), and a
 * registration that is kept alive (dispatcher). Loop thread. Knows gRPC, not sqlite, not Docker. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/err.h>

struct sw_loop;
struct tls_creds;

/* ---- remotes: managers and their weights (swarmkit remotes/remotes.go) */
struct remotes;
struct remotes *remotes_new(void);
void remotes_free(struct remotes *r);
/* Weight moves half way to @observation, clipped to [-256, 256], rounded up. Adds unknown peers
 * with weight 0 first. The key is the pair; @node_id "" for a join address. */
void remotes_observe(struct remotes *r, const char *node_id, const char *addr, int observation);
void remotes_observe_if_exists(
	struct remotes *r, const char *node_id, const char *addr, int observation);
void remotes_remove(struct remotes *r, const char *node_id, const char *addr);
/* Starts at @weight without an observation (loading from the store). */
void remotes_add(struct remotes *r, const char *node_id, const char *addr, int weight);
struct remote {
	const char *node_id, *addr; /* borrowed until the next change */
	int weight;
};
size_t remotes_count(const struct remotes *r);
size_t remotes_list(const struct remotes *r, struct remote *out, size_t max);
/* Random, proportional to max(weight, 0) + 0.001, never one whose id or address is @avoid (NULL:
 * any). -ENOENT "no remote hosts provided" when there is nobody. */
int remotes_select(struct remotes *r, const char *avoid, struct remote *ret, struct sw_err *err);
/* Called after the set or a weight changed; one listener. */
void remotes_on_change(struct remotes *r, void (*changed)(void *arg), void *arg);

/* ---- join tokens */
struct join_token {
	int version;
	bool fips;
	uint8_t digest[32]; /* SHA-256 of the root bundle's exact bytes */
};
/* SW_REJECTED naming what is wrong (never the token itself). */
int join_token_parse(const char *token, struct join_token *ret, struct sw_err *err);
/* SW_REJECTED when the bundle's SHA-256 is not the token's. */
int join_token_check(
	const struct join_token *t, const void *bundle, size_t len, struct sw_err *err);

/* Makes @path (mode 0700; its parent must exist) or checks that the one there is ours alone:
 * SW_FATAL naming the remedy. Blocks for a moment: before the loop runs, or on the pool. */
int state_dir_prepare(const char *path, struct sw_err *err);

/* ---- identity: key, certificate, trust root in DIR/certificates, joining and renewal */
struct identity;
struct identity_config {
	struct sw_loop *loop;
	struct remotes *remotes; /* borrowed */
	const char *state_dir;
	const char *join_token;   /* copied, wiped after use; NULL: credentials must be on disk */
	const char *availability; /* "active" "pause" "drain" for a new node; NULL: active */
};
struct identity_events {
	/* Credentials are usable, for the first time. */
	void (*ready)(void *arg);
	/* New certificate or trust root: new connections use it, the description changes. */
	void (*changed)(void *arg);
	/* Permanent: wrong token, digest, FIPS, broken files ... The process should end with it.
	 * Temporary trouble is retried with backoff and only logged (see identity_trouble()). */
	void (*failed)(void *arg, const struct sw_err *err);
};
int identity_new(struct identity **ret, const struct identity_config *cfg,
	const struct identity_events *ev, void *arg, struct sw_err *err);
/* Loads what is on disk or joins; one of the events follows from the loop. */
void identity_start(struct identity *id);
void identity_close(struct identity *id, void (*closed)(void *arg), void *arg);
/* Valid from ready() on; borrowed until closed. */
const char *identity_node_id(const struct identity *id);
const char *identity_cluster_id(const struct identity *id);
/* "swarm-worker"; borrowed until the next changed(). */
const char *identity_role(const struct identity *id);
/* Credentials for a new connection; a reference for the caller. */
struct tls_creds *identity_creds(struct identity *id);
/* Fills @ret (initialised) with fields the identity owns. */
void identity_tls_info(const struct identity *id, Pb__NodeTLSInfo *ret);
/* A manager asked for it (ROTATE, role change to worker): renews after 500 ms, coalesced. */
void identity_renew(struct identity *id, const char *why);
/* SessionMessage.RootCA: equal -> nothing; taken only if every certificate is self-signed and valid
 * and our own chain verifies against it. */
void identity_set_root(struct identity *id, const void *pem, size_t len);
/* Why joining or renewal does not progress right now; "" if all is well. */
const char *identity_trouble(const struct identity *id);

/* ---- dispatcher: one registration with one manager at a time, rebuilt with backoff for ever */
struct dispatcher;
struct dispatcher_config {
	struct sw_loop *loop;
	struct remotes *remotes;   /* borrowed */
	struct identity *identity; /* borrowed, ready */
	bool join_addr_given; /* a TLS verification failure before the first registration is then
				 final */
};
struct dispatcher_events {
	/* Registered (first SessionMessage seen). Every stored status must be reported again. */
	void (*registered)(void *arg, const char *session_id, const char *manager_addr);
	/* The node object is new or differs functionally from the last one. Borrowed. */
	void (*node)(void *arg, const Pb__Node *node);
	/* A key with an unknown lamport time arrived: the complete set. Borrowed, secret. */
	void (*keys)(void *arg, Pb__EncryptionKey **keys, size_t n);
	/* Assignments, in sequence (COMPLETE, or INCREMENTAL that applies to the last one). Takes
	 * @m: the callee frees it with api_free(). The next message is read only after
	 * dispatcher_assignments_done(), in this registration or a later one. */
	void (*assignments)(void *arg, Pb__AssignmentsMessage *m);
	/* Log subscriptions; they die with the registration. Borrowed. */
	void (*subscription)(void *arg, const Pb__SubscriptionMessage *m);
	/* The registration is over; another one follows by itself. @err NULL: on purpose
	 * (description changed). */
	void (*lost)(void *arg, const struct sw_err *err);
	/* This node was removed from the swarm: no further attempt is made. */
	void (*removed)(void *arg, const struct sw_err *err);
	/* No further attempt makes sense (TLS verification failed before the first registration).
	 */
	void (*failed)(void *arg, const struct sw_err *err);
};
int dispatcher_new(struct dispatcher **ret, const struct dispatcher_config *cfg,
	const struct dispatcher_events *ev, void *arg, struct sw_err *err);
/* Starts registering. @desc is copied; tls_info is stamped on it here. */
void dispatcher_start(struct dispatcher *d, const Pb__NodeDescription *desc);
/* A newer description (or changed credentials): if it differs from what was sent the session is
 * rebuilt at once under the same session id, without counting as a failure. */
void dispatcher_describe(struct dispatcher *d, const Pb__NodeDescription *desc);
/* The last assignments message is durable: read on. Nothing if there is none outstanding. */
void dispatcher_assignments_done(struct dispatcher *d);
bool dispatcher_registered(const struct dispatcher *d);
/* One UpdateTaskStatus call; callers keep one in flight. @err: -ENOTCONN (temporary) while there is
 * no registration; PERMISSION_DENIED leaves the session alone, any other error ends it. */
typedef void dispatcher_update_cb(void *arg, const struct sw_err *err);
void dispatcher_update_status(struct dispatcher *d,
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate **updates, size_t n, dispatcher_update_cb *cb,
	void *arg);
/* Log lines of one subscription: a PublishLogs stream. */
struct log_publisher;
/* NULL while there is no registration. @writable: room again; @ended: the stream is over (once; the
 * handle is dead), @err NULL if the manager took everything. */
struct log_publisher *dispatcher_publish_logs(struct dispatcher *d, const char *subscription_id,
	void (*writable)(void *arg), void (*ended)(void *arg, const struct sw_err *err), void *arg);
/* Queues all of @msgs (borrowed; may be none). Returns false when the caller should wait for
 * writable() before it sends more. */
bool log_publisher_send(struct log_publisher *p, Pb__LogMessage **msgs, size_t n);
void log_publisher_finish(struct log_publisher *p); /* all sent; ended() follows */
void log_publisher_cancel(struct log_publisher *p); /* silence; NULL is fine */
struct dispatcher_stats {
	uint64_t sessions, heartbeats, failures;
	const char *manager_addr, *session_id; /* "" while unregistered */
	const char *last_error;
};
void dispatcher_stats(const struct dispatcher *d, struct dispatcher_stats *ret);
void dispatcher_close(struct dispatcher *d, void (*closed)(void *arg), void *arg);
