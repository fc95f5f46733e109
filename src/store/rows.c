/* rows.c - a batch's operations as SQL. Pool thread, inside a transaction. */
#include "store_int.h"
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define HISTORY_DROP_MAX                                                                           \
	2000 /* rows per transaction: after long idle the backlog goes in steps                    \
	      */

/* clang-format off */
static const char *const texts[Q_N] = {
	/* IMMEDIATE: the write lock now, under busy_timeout. A read that becomes a write later would
	 * fail at once (SQLITE_BUSY_SNAPSHOT) if somebody else wrote in between. */
	[Q_BEGIN] = "BEGIN IMMEDIATE",
	[Q_COMMIT] = "COMMIT",
	[Q_ROLLBACK] = "ROLLBACK",
	[Q_SAVE] = "SAVEPOINT batch",
	[Q_SAVE_UNDO] = "ROLLBACK TO batch",
	[Q_SAVE_RELEASE] = "RELEASE batch",
	[Q_TASK] =
		"INSERT INTO tasks (task_id, data, phase, desired_state, service_id, service_name, slot,"
		"  name, image, runtime, node_id, spec_version, assigned_at, updated_at, removed_at)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13,"
		"  CASE ?3 WHEN 'removing' THEN ?13 END)"
		" ON CONFLICT (task_id) DO UPDATE SET data = excluded.data, phase = excluded.phase,"
		"  desired_state = excluded.desired_state, service_id = excluded.service_id,"
		"  service_name = excluded.service_name, slot = excluded.slot, name = excluded.name,"
		"  image = excluded.image, runtime = excluded.runtime, node_id = excluded.node_id,"
		"  spec_version = excluded.spec_version, updated_at = excluded.updated_at,"
		"  removed_at = CASE excluded.phase WHEN 'removing' THEN"
		"    coalesce(removed_at, excluded.removed_at) END",
	/* "FROM tasks": no row for an unknown task. The last WHERE: states never go back. */
	[Q_STATUS] =
		"INSERT INTO task_status (task_id, state, message, err, at, container_id, pid, exit_code,"
		"  ports, data, seq)"
		" SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1 FROM tasks WHERE task_id = ?1"
		" ON CONFLICT (task_id) DO UPDATE SET state = excluded.state,"
		"  message = excluded.message, err = excluded.err, at = excluded.at,"
		"  container_id = excluded.container_id, pid = excluded.pid,"
		"  exit_code = excluded.exit_code, ports = excluded.ports, data = excluded.data,"
		"  seq = seq + 1 WHERE excluded.state >= state",
	[Q_STATUS_WHY] = "SELECT state FROM task_status WHERE task_id = ?1",
	[Q_HISTORY] =
		"INSERT INTO status_history (task_id, service_name, slot, name, state, desired_state,"
		"  message, err, exit_code, container_id, at, stored_at, cause)"
		" SELECT ts.task_id, coalesce(nullif(t.service_name, ''), t.service_id), t.slot, t.name,"
		"  ts.state, t.desired_state, ts.message, ts.err, ts.exit_code, ts.container_id, ts.at, ?3, ?2"
		" FROM task_status ts JOIN tasks t ON t.task_id = ts.task_id WHERE ts.task_id = ?1",
	[Q_HISTORY_ENDS] =
		"SELECT seq, stored_at, (SELECT max(seq) FROM status_history)"
		" FROM status_history ORDER BY seq LIMIT 1",
	[Q_HISTORY_DROP] = "DELETE FROM status_history WHERE seq <= ?1",
	/* From the front up to the first row that is young enough; looks at no more rows than it may
	 * drop, and never drops the last one, so that the numbers are never used again. */
	[Q_HISTORY_DROP_OLD] =
		"WITH front AS MATERIALIZED"
		"  (SELECT seq, stored_at FROM status_history ORDER BY seq LIMIT ?2)"
		" DELETE FROM status_history WHERE seq < coalesce("
		"  (SELECT min(seq) FROM front WHERE stored_at >= ?1), (SELECT max(seq) FROM front))",
	[Q_REMOVING] =
		"UPDATE tasks SET phase = 'removing', removed_at = coalesce(removed_at, ?2),"
		"  updated_at = ?2 WHERE task_id = ?1",
	[Q_DELETE] = "DELETE FROM tasks WHERE task_id = ?1",
	[Q_ACKED] =
		"UPDATE task_status SET acked_seq = seq"
		" WHERE task_id = ?1 AND at = ?2 AND acked_seq < seq",
	[Q_NODE] =
		"INSERT INTO node (id, node_id, cluster_id, role, state, hostname, availability,"
		"  session_state, object, created_at, updated_at)"
		" VALUES (1, ?1, ?2, ?3, coalesce(?4, 'new'), ?5, ?6, ?7, ?8, ?9, ?9)"
		" ON CONFLICT (id) DO UPDATE SET node_id = coalesce(?1, node_id),"
		"  cluster_id = coalesce(?2, cluster_id), role = coalesce(?3, role),"
		"  state = coalesce(?4, state), hostname = coalesce(?5, hostname),"
		"  availability = coalesce(?6, availability),"
		"  session_state = coalesce(?7, session_state), object = coalesce(?8, object),"
		"  updated_at = ?9",
	[Q_MANAGERS_CLEAR] = "DELETE FROM managers",
	[Q_MANAGER] =
		"INSERT INTO managers (node_id, addr, weight, last_ok, last_error, updated_at)"
		" VALUES (?1, ?2, ?3, nullif(?4, 0), ?5, ?6)"
		" ON CONFLICT (node_id, addr) DO UPDATE SET weight = excluded.weight,"
		"  last_ok = excluded.last_ok, last_error = excluded.last_error",
};
/* clang-format on */

int store_stmt(struct store_db *db, enum store_q q, sqlite3_stmt **ret)
{
	if (!db->stmt[q]) {
		int rc = sqlite3_prepare_v3(
			db->sql, texts[q], -1, SQLITE_PREPARE_PERSISTENT, &db->stmt[q], NULL);

		if (rc != SQLITE_OK)
			return rc;
	}
	*ret = db->stmt[q];
	return SQLITE_OK;
}

/* Runs it and lets go of what was bound. Rows are none of our business here. */
static int finish(sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

int store_run(struct store_db *db, enum store_q q)
{
	sqlite3_stmt *st;
	int rc = store_stmt(db, q, &st);

	return rc == SQLITE_OK ? finish(st) : rc;
}

/* Binding: the batch's memory outlives the step, so nothing is copied. The first failure stays. */
struct bind {
	sqlite3_stmt *st;
	int n, rc;
};

static struct bind bind_begin(struct store_db *db, enum store_q q)
{
	struct bind b = {0};

	b.rc = store_stmt(db, q, &b.st);
	return b;
}

static void b_rc(struct bind *b, int rc)
{
	if (b->rc == SQLITE_OK)
		b->rc = rc;
}

static void b_text(struct bind *b, const char *s)
{
	b->n++;
	if (b->rc == SQLITE_OK && s)
		b_rc(b, sqlite3_bind_text64(b->st, b->n, s, strlen(s), SQLITE_STATIC, SQLITE_UTF8));
}

static void b_blob(struct bind *b, const void *p, size_t n)
{
	b->n++;
	if (b->rc == SQLITE_OK && p)
		b_rc(b, sqlite3_bind_blob64(b->st, b->n, p, n, SQLITE_STATIC));
}

static void b_int(struct bind *b, int64_t v)
{
	b->n++;
	if (b->rc == SQLITE_OK)
		b_rc(b, sqlite3_bind_int64(b->st, b->n, v));
}

static void b_null(struct bind *b)
{
	b->n++;
}

static int b_run(struct bind *b)
{
	if (b->rc == SQLITE_OK)
		return finish(b->st);
	if (b->st) {
		sqlite3_reset(b->st);
		sqlite3_clear_bindings(b->st);
	}
	return b->rc;
}

static int apply_task(struct store_db *db, const struct store_task *t)
{
	struct bind b = bind_begin(db, Q_TASK);

	b_text(&b, t->task_id);
	b_blob(&b, t->data, t->data_len);
	b_text(&b, t->phase == STORE_REMOVING ? "removing" : "assigned");
	b_int(&b, t->desired_state);
	b_text(&b, t->service_id);
	b_text(&b, t->service_name);
	b_int(&b, (int64_t)t->slot);
	b_text(&b, t->name);
	b_text(&b, t->image);
	b_text(&b, t->runtime);
	b_text(&b, t->node_id);
	b_int(&b, (int64_t)t->spec_version);
	b_int(&b, (int64_t)sw_wall_ns());
	return b_run(&b);
}

/* A status that was not taken: unknown task (fine, it may be gone by now), or a bug of ours. */
static int not_taken(struct store_db *db, const struct op *op)
{
	sqlite3_stmt *st;
	int rc = store_stmt(db, Q_STATUS_WHY, &st);

	if (rc == SQLITE_OK)
		rc = sqlite3_bind_text(st, 1, op->task_id, -1, SQLITE_STATIC);
	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		log_err("bug: status lower than the stored one refused", KS("task", op->task_id),
			KI("stored", sqlite3_column_int(st, 0)), KI("state", op->status.st.state),
			KS("message", op->status.st.message));
	else if (rc == SQLITE_DONE)
		log_debug("status of an unknown task ignored", KS("task", op->task_id),
			KI("state", op->status.st.state));
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int apply_status(struct store_db *db, const struct op *op)
{
	const struct store_status *s = &op->status.st;
	struct bind b = bind_begin(db, Q_STATUS);
	int rc;

	b_text(&b, op->task_id);
	b_int(&b, s->state);
	b_text(&b, s->message);
	b_text(&b, s->err);
	b_int(&b, s->at_ns);
	b_text(&b, s->container_id);
	if (s->pid)
		b_int(&b, s->pid);
	else
		b_null(&b);
	if (s->has_exit_code)
		b_int(&b, s->exit_code);
	else
		b_null(&b);
	b_text(&b, s->ports);
	b_blob(&b, s->data, s->data_len);
	rc = b_run(&b);
	if (rc != SQLITE_OK)
		return rc;
	if (sqlite3_changes(db->sql) == 0)
		return not_taken(db, op);

	b = bind_begin(db, Q_HISTORY);
	b_text(&b, op->task_id);
	b_text(&b, op->status.cause);
	b_int(&b, (int64_t)sw_wall_ns());
	db->history_grew = true;
	return b_run(&b);
}

static int apply_id_time(struct store_db *db, enum store_q q, const char *task_id, int64_t ns)
{
	struct bind b = bind_begin(db, q);

	b_text(&b, task_id);
	b_int(&b, ns);
	return b_run(&b);
}

static int apply_delete(struct store_db *db, const char *task_id)
{
	struct bind b = bind_begin(db, Q_DELETE);

	b_text(&b, task_id);
	return b_run(&b);
}

static int apply_node(struct store_db *db, const struct store_node *n)
{
	struct bind b = bind_begin(db, Q_NODE);

	b_text(&b, n->node_id);
	b_text(&b, n->cluster_id);
	b_text(&b, n->role);
	b_text(&b, n->state);
	b_text(&b, n->hostname);
	b_text(&b, n->availability);
	b_text(&b, n->session_state);
	b_blob(&b, n->object, n->object_len);
	b_int(&b, (int64_t)sw_wall_ns());
	return b_run(&b);
}

static int apply_managers(struct store_db *db, const struct op *op)
{
	int rc = store_run(db, Q_MANAGERS_CLEAR);

	for (size_t i = 0; rc == SQLITE_OK && i < op->managers.n; i++) {
		const struct store_manager *m = &op->managers.m[i];
		struct bind b = bind_begin(db, Q_MANAGER);

		b_text(&b, m->node_id);
		b_text(&b, m->addr);
		b_int(&b, m->weight);
		b_int(&b, m->last_ok_ns);
		b_text(&b, m->last_error);
		b_int(&b, (int64_t)sw_wall_ns());
		rc = b_run(&b);
	}
	return rc;
}

static int apply_op(struct store_db *db, const struct op *op)
{
	switch (op->kind) {
	case OP_TASK:
		return apply_task(db, &op->task);
	case OP_STATUS:
		return apply_status(db, op);
	case OP_REMOVING:
		return apply_id_time(db, Q_REMOVING, op->task_id, (int64_t)sw_wall_ns());
	case OP_DELETE:
		return apply_delete(db, op->task_id);
	case OP_ACKED:
		return apply_id_time(db, Q_ACKED, op->task_id, op->at_ns);
	case OP_NODE:
		return apply_node(db, &op->node);
	case OP_MANAGERS:
		return apply_managers(db, op);
	}
	return SQLITE_MISUSE;
}

static const char *op_name(enum op_kind k)
{
	static const char *const names[] = {"store task", "store status", "mark task as removing",
		"delete task", "mark status as reported", "store node", "store managers"};

	return names[k];
}

int store_apply(struct store_db *db, struct store_batch *b, struct sw_err *err)
{
	struct op *op;

	STAILQ_FOREACH (op, &b->ops, next) {
		int rc = apply_op(db, op);

		if (rc != SQLITE_OK) {
			store_err_sqlite(err, db, rc, op_name(op->kind));
			if (op->task_id)
				sw_err_wrap(err, "task=%s", op->task_id);
			return rc;
		}
	}
	return SQLITE_OK;
}

/* By age means: since it was stored. A status may carry an old time for good reasons. */
int store_history_prune(struct store_db *db)
{
	int64_t first, last, keep = db->history_rows, oldest, limit;
	sqlite3_stmt *st;
	struct bind b;
	int rc;

	if (!db->history_grew)
		return SQLITE_OK;
	rc = store_stmt(db, Q_HISTORY_ENDS, &st);
	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(st);
	first = sqlite3_column_int64(st, 0);
	oldest = sqlite3_column_int64(st, 1);
	last = sqlite3_column_int64(st, 2);
	sqlite3_reset(st);
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_OK : rc;

	/* some slack, so that not every commit touches the far end of the table */
	if (last - first >= keep + keep / 64) {
		limit = last - keep;
		if (limit > first + HISTORY_DROP_MAX)
			limit = first + HISTORY_DROP_MAX;
		b = bind_begin(db, Q_HISTORY_DROP);
		b_int(&b, limit);
		rc = b_run(&b);
		if (rc != SQLITE_OK)
			return rc;
	}
	limit = (int64_t)sw_wall_ns() - db->history_age_ns;
	if (oldest >= limit)
		return SQLITE_OK;
	b = bind_begin(db, Q_HISTORY_DROP_OLD);
	b_int(&b, limit);
	b_int(&b, HISTORY_DROP_MAX);
	return b_run(&b);
}
