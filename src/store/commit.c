/* commit.c - group commit: the part that runs on the pool.
 *
 *   queue (loop) -> group -> BEGIN -> { SAVEPOINT, rows, RELEASE } per batch -> COMMIT -> callbacks
 *
 * A batch that is wrong in itself is undone to its savepoint and fails alone. What concerns all of
 * them (disk, memory, a foreign write lock, damage) ends the transaction, and every batch in it
 * gets that error. Checkpoints are jobs of their own, after the callbacks: a commit waits for one
 * sync, not for the journal's way home. */
#include "store_int.h"
#include <string.h>

static void fail_all(struct store *s, const struct sw_err *err)
{
	struct store_batch *b;

	STAILQ_FOREACH (b, &s->group, next)
		if (b->err.cls == SW_OK)
			b->err = *err;
}

/* Applies one batch; true: the transaction can go on (the batch itself may have failed). */
static bool apply_one(struct store_db *db, struct store_batch *b, struct sw_err *common)
{
	struct sw_err err = SW_ERR_NONE;
	int rc;

	rc = store_run(db, Q_SAVE);
	if (rc != SQLITE_OK) {
		store_err_sqlite(common, db, rc, "begin batch");
		return false;
	}
	rc = store_apply(db, b, &err);
	if (rc == SQLITE_OK) {
		rc = store_run(db, Q_SAVE_RELEASE);
		if (rc != SQLITE_OK)
			store_err_sqlite(common, db, rc, "end batch");
		return rc == SQLITE_OK;
	}
	/* sqlite has rolled back by itself after some errors: no savepoint to go back to */
	if (store_err_is_common(rc) || sqlite3_get_autocommit(db->sql)) {
		*common = err;
		return false;
	}
	rc = store_run(db, Q_SAVE_UNDO);
	if (rc == SQLITE_OK)
		rc = store_run(db, Q_SAVE_RELEASE);
	if (rc != SQLITE_OK) {
		store_err_sqlite(common, db, rc, "undo batch");
		return false;
	}
	b->err = err;
	return true;
}

static bool commit_group(struct store *s, struct sw_err *common)
{
	struct store_db *db = &s->db;
	struct store_batch *b;
	int rc;

	if (store_db_intact(db, common) < 0)
		return false;
	rc = store_run(db, Q_BEGIN);
	if (rc != SQLITE_OK) {
		store_err_sqlite(common, db, rc, "begin");
		return false;
	}
	db->history_grew = false;
	STAILQ_FOREACH (b, &s->group, next)
		if (b->err.cls == SW_OK && !apply_one(db, b, common))
			return false;
	rc = store_history_prune(db);
	if (rc != SQLITE_OK) {
		store_err_sqlite(common, db, rc, "shorten history");
		return false;
	}
	rc = store_run(db, Q_COMMIT);
	if (rc != SQLITE_OK) {
		store_err_sqlite(common, db, rc, "commit");
		return false;
	}
	return true;
}

static void checkpoint(struct store *s)
{
	struct store_db *db = &s->db;
	int pages = 0, done = 0;
	/* Beyond the limit also wait a moment for readers: many short ones that overlap would
	 * otherwise keep the journal from ever starting anew. New readers are not held up by it. */
	bool wait = (int64_t)db->wal_pages * db->page_bytes > STORE_JOURNAL_LIMIT;

	if (wait)
		sqlite3_busy_timeout(db->sql, 100);
	s->ckpt_rc = sqlite3_wal_checkpoint_v2(db->sql, NULL,
		wait ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE, &pages, &done);
	if (wait)
		sqlite3_busy_timeout(db->sql, STORE_BUSY_MS);
}

void store_job_run(void *arg)
{
	struct store *s = arg;
	struct sw_err common = SW_ERR_NONE;

	pthread_mutex_lock(&s->lock);
	switch (s->job) {
	case JOB_COMMIT:
		s->commit_ns = uv_hrtime();
		s->committed = commit_group(s, &common);
		s->commit_ns = uv_hrtime() - s->commit_ns;
		if (!s->committed) {
			if (!sqlite3_get_autocommit(s->db.sql))
				store_run(&s->db, Q_ROLLBACK);
			fail_all(s, &common);
		}
		break;
	case JOB_CHECKPOINT:
		checkpoint(s);
		break;
	case JOB_CLOSE:
		store_db_close(&s->db, false);
		break;
	case JOB_NONE:
		break;
	}
	pthread_mutex_unlock(&s->lock);
}
