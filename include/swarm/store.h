/* store.h - what must survive: node, managers, tasks, statuses, history, in sqlite (WAL).
 * Loop thread; sqlite itself works on the pool, one job at a time.
 *
 * Writes are batches: a batch is atomic, batches are applied in the order of store_commit(), and
 * its callback says that it is durable (fsynced). Batches that wait while a sync runs share the
 * next transaction (group commit). The store knows no protobuf: it gets bytes and readable columns.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>

struct sw_loop;
struct store;
struct store_batch;

#define STORE_SCHEMA 1

/* Opens or creates DIR/agent.db (0600), takes the lock (DIR/agent.db.lock), checks (application_id,
 * quick_check, user_version), migrates (copy kept as DIR/agent.db.v<N>). Blocks: call before the
 * loop runs. Errors are SW_FATAL and name file and remedy: locked by another agent (its pid), not
 * ours, newer schema, corrupt, not a database, read-only, full. A refused file is left as it was.
 */
int store_open(struct store **ret, struct sw_loop *l, const char *path, struct sw_err *err);
/* Commits what is queued, checkpoints, closes; then calls @closed from the loop and frees. Batches
 * that are committed after the queue ran empty get SW_CANCELLED. NULL: nothing happens, @closed
 * does not run. */
void store_close(struct store *s, void (*closed)(void *arg), void *arg);

enum store_phase { STORE_ASSIGNED, STORE_REMOVING };

struct store_port {
	const char *protocol;
	uint32_t target, published;
};
/* [{"protocol":"tcp","target":80,"published":8080},...]: what store_status.ports is and the views
 * understand. NULL for none. Caller frees. */
char *store_ports_json(const struct store_port *p, size_t n);
/* A status as columns and as bytes. */
struct store_status {
	const void *data; /* packed TaskStatus, as reported */
	size_t data_len;
	int state;
	const char *message, *err;
	int64_t at_ns; /* wall clock; also tells the statuses of one task apart: store_batch_acked()
			*/
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

/* Building never fails: an impossible input (no task id, no memory) fails the batch at commit.
 * All inputs are copied, borrowed during the call. */
struct store_batch *store_batch_new(void);
void store_batch_free(struct store_batch *b); /* only if never committed */
/* Adds or replaces the task row; an existing status row stays (a task id that starts a second life
 * needs store_batch_delete() first). NULL strings are fine. */
void store_batch_task(struct store_batch *b, const struct store_task *t);
/* Sets the current status and appends to the history (@cause: short text for people, may be NULL).
 * A state lower than the stored one is refused at commit (logged as our bug, batch goes on); an
 * unknown task is ignored. */
void store_batch_status(struct store_batch *b, const char *task_id, const struct store_status *st,
	const char *cause);
/* phase = removing: the removal record; survives until store_batch_delete(). Unknown: ignored. */
void store_batch_removing(struct store_batch *b, const char *task_id);
void store_batch_delete(struct store_batch *b, const char *task_id);
/* The manager has acknowledged the status whose at_ns this is. It counts if that still is the
 * current one; if a newer one is stored by now, that one is not reported yet and nothing changes.
 * Equality and not "<=", so that a clock that was set back cannot mark a status that nobody has
 * seen. */
void store_batch_acked(struct store_batch *b, const char *task_id, int64_t at_ns);
/* The one node row, there from the start as "new". NULL strings leave the column as it is. */
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
/* Replaces the whole list. Same address with and without node id: two rows; an exact repetition:
 * the last one counts. An empty address is refused. */
void store_batch_managers(struct store_batch *b, const struct store_manager *m, size_t n);

/* @err NULL: durable. Else nothing of the batch is in the database; the class says whether trying
 * again makes sense: SW_TEMPORARY full disk, I/O, locked (build it again, with backoff; everything
 * else in that transaction failed as well), SW_REJECTED this batch is wrong in itself, SW_FATAL the
 * file is damaged or was moved away, SW_CANCELLED closed. In commit order, from the loop. */
typedef void store_commit_cb(void *arg, const struct sw_err *err);
/* Takes @b. @cb may be NULL. */
void store_commit(struct store *s, struct store_batch *b, store_commit_cb *cb, void *arg);

/* Everything, once at start, on the caller's thread; waits for a running commit. Each task borrowed
 * during the call; both phases, in the order of their first assignment. No store call from inside
 * @cb. Returns 0 or the first negative result of a callback. */
int store_load_tasks(struct store *s, int (*cb)(void *arg, const struct store_task *t), void *arg,
	struct sw_err *err);
int store_load_managers(struct store *s, int (*cb)(void *arg, const struct store_manager *m),
	void *arg, struct sw_err *err);
/* Borrowed during the call; @cb is not called while the node row is new. */
int store_load_node(struct store *s, void (*cb)(void *arg, const struct store_node *n), void *arg,
	struct sw_err *err);

struct store_stats {
	uint64_t batches, commits, failed; /* commits < batches: grouping works */
	size_t queued;
	uint64_t last_commit_ns; /* how long the last transaction took */
	uint64_t journal_bytes;  /* grows while a reader keeps a transaction open */
};
void store_stats(const struct store *s, struct store_stats *ret);

/* How much history is kept, both bounds at once; default 50,000 rows, stored within 30 days. Holds
 * from the next status on: the oldest rows go, some at a time, the newest one stays; up to 1/64
 * more rows than asked for may be there. */
void store_set_history(struct store *s, uint64_t max_rows, uint64_t max_age_ns);
