/* store.h - what must survive: node, managers, tasks, statuses, history, in sqlite (WAL).
 * Loop thread; sqlite itself works on the pool, one job at a time.
 *
 * Writes are batches: a batch is atomic, batches are applied in the order of store_commit(), and
 * its callback says that it is durable (fsynced). Batches that wait while a sync runs share the next
 * transaction (group commit). The store knows no protobuf: it gets bytes and readable columns. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>

struct sw_loop;
struct store;
struct store_batch;

#define STORE_SCHEMA 1

/* Opens or creates DIR/agent.db (0600), takes the lock, checks (application_id, quick_check,
 * user_version), migrates. Blocks: call before the loop runs. Errors are SW_FATAL and name file
 * and remedy: locked by another agent (its pid), not ours, newer schema, corrupt, read-only. */
int store_open(struct store **ret, struct sw_loop *l, const char *path, struct sw_err *err);
/* Commits what is queued, checkpoints, closes; then calls @closed from the loop and frees. */
void store_close(struct store *s, void (*closed)(void *arg), void *arg);

enum store_phase { STORE_ASSIGNED, STORE_REMOVING };

struct store_port {
	const char *protocol;
	uint32_t target, published;
};
/* A status as columns and as bytes. */
struct store_status {
	const void *data; /* packed TaskStatus, as reported */
	size_t data_len;
	int state;
	const char *message, *err;
	int64_t at_ns; /* wall clock */
	const char *container_id; /* NULL: none */
	int64_t pid;
	bool has_exit_code;
	int exit_code;
	const char *ports; /* JSON array or NULL */
};
struct store_task {
	const char *task_id;
	const void *data; /* packed Task, status cut out, unknown fields kept */
	size_t data_len;
	enum store_phase phase;
	int desired_state;
	const char *service_id, *service_name, *name, *image, *runtime, *node_id;
	uint64_t slot, spec_version;
	/* Filled on load only: */
	bool has_status;
	struct store_status status;
	uint64_t status_seq, acked_seq;
};

struct store_batch *store_batch_new(void);
void store_batch_free(struct store_batch *b); /* only if never committed */
/* Adds or replaces the task row; an existing status row stays. All inputs are copied. */
void store_batch_task(struct store_batch *b, const struct store_task *t);
/* Sets the current status and appends to the history (@cause: short text for people, may be NULL).
 * A state lower than the stored one is refused at commit (logged as our bug, batch goes on); an
 * unknown task is ignored. */
void store_batch_status(struct store_batch *b, const char *task_id, const struct store_status *st,
	const char *cause);
/* phase = removing: the removal record; survives until store_batch_delete(). */
void store_batch_removing(struct store_batch *b, const char *task_id);
void store_batch_delete(struct store_batch *b, const char *task_id);
/* The manager has acknowledged the status that was the @at_ns one (or a later one was acknowledged). */
void store_batch_acked(struct store_batch *b, const char *task_id, int64_t at_ns);
/* The one node row. NULL strings leave the column as it is. */
struct store_node {
	const char *node_id, *cluster_id, *role, *state; /* state: new joined removed left */
	const char *hostname, *availability, *session_state;
	const void *object; /* packed Node, NULL: as it is */
	size_t object_len;
};
void store_batch_node(struct store_batch *b, const struct store_node *n);
struct store_manager {
	const char *node_id, *addr; /* node_id "" for a join address */
	int64_t weight;
	int64_t last_ok_ns; /* 0: never */
	const char *last_error;
};
/* Replaces the whole list. */
void store_batch_managers(struct store_batch *b, const struct store_manager *m, size_t n);

/* @err NULL: durable. Else nothing of the batch is in the database; the class says whether trying
 * again makes sense (full disk: temporary). */
typedef void store_commit_cb(void *arg, const struct sw_err *err);
/* Takes @b. @cb may be NULL. */
void store_commit(struct store *s, struct store_batch *b, store_commit_cb *cb, void *arg);

/* Everything, once at start, on the caller's thread (before the loop runs). Each task borrowed during
 * the call; both phases. Returns 0 or the first negative result of a callback. */
int store_load_tasks(struct store *s, int (*cb)(void *arg, const struct store_task *t), void *arg,
	struct sw_err *err);
int store_load_managers(struct store *s, int (*cb)(void *arg, const struct store_manager *m), void *arg,
	struct sw_err *err);
/* Borrowed during the call; @cb is not called while the node row is new. */
int store_load_node(struct store *s, void (*cb)(void *arg, const struct store_node *n), void *arg,
	struct sw_err *err);

struct store_stats {
	uint64_t batches, commits, failed; /* commits < batches: grouping works */
	size_t queued;
	uint64_t last_commit_ns;
};
void store_stats(const struct store *s, struct store_stats *ret);
