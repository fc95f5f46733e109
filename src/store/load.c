/* load.c - reading everything back at start. Caller's thread, against a running job by the lock. */
#include "store_int.h"
#include <errno.h>
#include <swarm/mem.h>

static const char *text(sqlite3_stmt *st, int col)
{
	return (const char *)sqlite3_column_text(st, col);
}

static const void *blob(sqlite3_stmt *st, int col, size_t *ret_len)
{
	const void *p = sqlite3_column_blob(st, col); /* before bytes: the order sqlite asks for */

	*ret_len = (size_t)sqlite3_column_bytes(st, col);
	return p;
}

static int begin(struct store *s, const char *sql, sqlite3_stmt **ret, struct sw_err *err)
{
	int rc;

	if (!s->db.sql)
		return sw_err_set(err, SW_CANCELLED, -ECANCELED, "the store is closed");
	rc = sqlite3_prepare_v2(s->db.sql, sql, -1, ret, NULL);
	return rc == SQLITE_OK ? 0 : store_err_sqlite(err, &s->db, rc, "read");
}

/* @rc of the last step, @r of the callbacks. */
static int end(struct store *s, sqlite3_stmt *st, int rc, int r, struct sw_err *err)
{
	if (r == 0 && rc != SQLITE_DONE)
		r = store_err_sqlite(err, &s->db, rc, "read");
	sqlite3_finalize(st);
	return r;
}

static void read_task(sqlite3_stmt *st, struct store_task *t)
{
	*t = (struct store_task){
		.task_id = text(st, 0),
		.phase = sw_streq(text(st, 2), "removing") ? STORE_REMOVING : STORE_ASSIGNED,
		.desired_state = sqlite3_column_int(st, 3),
		.service_id = text(st, 4),
		.service_name = text(st, 5),
		.slot = (uint64_t)sqlite3_column_int64(st, 6),
		.name = text(st, 7),
		.image = text(st, 8),
		.runtime = text(st, 9),
		.node_id = text(st, 10),
		.spec_version = (uint64_t)sqlite3_column_int64(st, 11),
		.has_status = sqlite3_column_type(st, 12) != SQLITE_NULL,
	};
	t->data = blob(st, 1, &t->data_len);
	if (!t->has_status)
		return;
	t->status = (struct store_status){
		.state = sqlite3_column_int(st, 12),
		.message = text(st, 13),
		.err = text(st, 14),
		.at_ns = sqlite3_column_int64(st, 15),
		.container_id = text(st, 16),
		.pid = sqlite3_column_int64(st, 17),
		.has_exit_code = sqlite3_column_type(st, 18) != SQLITE_NULL,
		.exit_code = sqlite3_column_int(st, 18),
		.ports = text(st, 19),
	};
	t->status.data = blob(st, 20, &t->status.data_len);
	t->status_seq = (uint64_t)sqlite3_column_int64(st, 21);
	t->acked_seq = (uint64_t)sqlite3_column_int64(st, 22);
}

int store_load_tasks(struct store *s, int (*cb)(void *arg, const struct store_task *t), void *arg,
	struct sw_err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = SQLITE_DONE, r;

	pthread_mutex_lock(&s->lock);
	r = begin(s,
		"SELECT t.task_id, t.data, t.phase, t.desired_state, t.service_id, t.service_name,"
		" t.slot, t.name, t.image, t.runtime, t.node_id, t.spec_version,"
		" ts.state, ts.message, ts.err, ts.at, ts.container_id, ts.pid, ts.exit_code, "
		"ts.ports,"
		" ts.data, ts.seq, ts.acked_seq"
		" FROM tasks t LEFT JOIN task_status ts ON ts.task_id = t.task_id ORDER BY t.rowid",
		&st, err);
	while (r == 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_task t;

		read_task(st, &t);
		r = cb(arg, &t);
		if (r > 0)
			r = 0;
	}
	r = end(s, st, rc, r, err);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int store_load_managers(struct store *s, int (*cb)(void *arg, const struct store_manager *m),
	void *arg, struct sw_err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = SQLITE_DONE, r;

	pthread_mutex_lock(&s->lock);
	r = begin(s,
		"SELECT node_id, addr, weight, last_ok, last_error FROM managers"
		" ORDER BY weight DESC, node_id, addr",
		&st, err);
	while (r == 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_manager m = {
			.node_id = text(st, 0),
			.addr = text(st, 1),
			.weight = sqlite3_column_int64(st, 2),
			.last_ok_ns = sqlite3_column_int64(st, 3),
			.last_error = text(st, 4),
		};

		r = cb(arg, &m);
		if (r > 0)
			r = 0;
	}
	r = end(s, st, rc, r, err);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int store_load_node(struct store *s, void (*cb)(void *arg, const struct store_node *n), void *arg,
	struct sw_err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = SQLITE_DONE, r;

	pthread_mutex_lock(&s->lock);
	r = begin(s,
		"SELECT node_id, cluster_id, role, state, hostname, availability, session_state, "
		"object"
		" FROM node WHERE state <> 'new'",
		&st, err);
	while (r == 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_node n = {
			.node_id = text(st, 0),
			.cluster_id = text(st, 1),
			.role = text(st, 2),
			.state = text(st, 3),
			.hostname = text(st, 4),
			.availability = text(st, 5),
			.session_state = text(st, 6),
		};

		n.object = blob(st, 7, &n.object_len);
		cb(arg, &n);
	}
	r = end(s, st, rc, r, err);
	pthread_mutex_unlock(&s->lock);
	return r;
}
