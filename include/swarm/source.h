/* source.h - where assignments come from and statuses go to: the seam between the agent and the
 * manager side. The dispatcher of session.h is one source; a folder of task files could be another.
 * Loop thread. Callbacks come from the loop, never from inside the call that causes them. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/err.h>

struct source;
struct source_logs;

struct source_events {
	/* There is a registration: every stored status is wanted again. */
	void (*registered)(void *arg, const char *session_id, const char *manager_addr);
	/* The node object is new or differs functionally. Borrowed. */
	void (*node)(void *arg, const Pb__Node *node);
	/* The complete set of network keys. Borrowed, secret. */
	void (*keys)(void *arg, Pb__EncryptionKey **keys, size_t n);
	/* COMPLETE, or INCREMENTAL on top of the last one. The receiver takes @m (api_free()). The
	 * next message, of this registration or a later one, comes only after assignments_done().
	 */
	void (*assignments)(void *arg, Pb__AssignmentsMessage *m);
	/* Log subscriptions; they die with the registration. Borrowed. */
	void (*subscription)(void *arg, const Pb__SubscriptionMessage *m);
	/* The registration is over, another one follows by itself. @err NULL: on purpose. */
	void (*lost)(void *arg, const struct sw_err *err);
	/* This node is no longer part of the swarm; no further attempt is made. */
	void (*removed)(void *arg, const struct sw_err *err);
	/* No further attempt makes sense. */
	void (*failed)(void *arg, const struct sw_err *err);
};

struct source_stats {
	bool registered;
	const char *manager_addr; /* "" while unregistered; borrowed until the next loop round */
	uint64_t sessions, failures;
};

typedef void source_update_cb(void *arg, const struct sw_err *err);

struct source_ops {
	/* Before anything else, once. @ev is copied. */
	int (*open)(
		struct source *s, const struct source_events *ev, void *arg, struct sw_err *err);
	/* Starts registering as the node that @desc (borrowed) describes. Once. */
	void (*start)(struct source *s, const Pb__NodeDescription *desc);
	/* A newer description, or new credentials under the same one. */
	void (*describe)(struct source *s, const Pb__NodeDescription *desc);
	/* The last message is durable and applied. */
	void (*assignments_done)(struct source *s);
	/* One call at a time; @cb once, always. -ENOTCONN (temporary) while unregistered.
	 * @updates are borrowed until @cb. */
	void (*update_status)(struct source *s,
		Pb__UpdateTaskStatusRequest__TaskStatusUpdate **updates, size_t n,
		source_update_cb *cb, void *arg);
	/* As dispatcher_publish_logs() and log_publisher_*() in session.h. */
	struct source_logs *(*publish_logs)(struct source *s, const char *subscription_id,
		void (*writable)(void *arg), void (*ended)(void *arg, const struct sw_err *err),
		void *arg);
	bool (*logs_send)(struct source_logs *l, Pb__LogMessage **msgs, size_t n);
	void (*logs_finish)(struct source_logs *l);
	void (*logs_cancel)(struct source_logs *l);
	void (*stats)(const struct source *s, struct source_stats *ret);
	/* Silence from here on, but for @closed, which comes from the loop; @s is gone then. */
	void (*close)(struct source *s, void (*closed)(void *arg), void *arg);
};
/* Embedded first in an implementation's struct. */
struct source {
	const struct source_ops *ops;
};

/* ---- the dispatcher of a real manager */
struct sw_loop;
struct store;
struct remotes;
struct identity;

struct source_dispatcher_config {
	struct sw_loop *loop; /* borrowed, all of them; they outlive the source */
	struct store *store;
	struct remotes *remotes;
	struct identity *identity; /* ready when the source starts */
	bool join_addr_given;
};
/* Merges the stored managers into the remotes and keeps them in the store from then on. */
int source_dispatcher_new(
	struct source **ret, const struct source_dispatcher_config *cfg, struct sw_err *err);
/* The first half of that alone: for who needs a manager before there is an agent. Blocks, so before
 * the loop runs. Managers that are known already keep their weight. */
int source_managers_load(struct store *s, struct remotes *r, struct sw_err *err);
