/* store.c - the loop's side: open and close, the queue, one job at a time, callbacks in order.
 *
 * store_commit() queues; the job starts at the end of the loop's round (a prepare handle), so that
 * what one round produces is one transaction; while it runs, the next group gathers.
 * close: what is queued is committed first, then the database is closed on the pool, then the
 * handle, then the owner is told. Batches that come after that are cancelled. */
#include "store_int.h"
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

static void on_start(uv_prepare_t *h);

/* Journal pages since the last checkpoint. Only while no job runs. A smaller number than then means
 * that the journal started anew. */
static bool checkpoint_due(struct store *s)
{
	if (s->db.wal_pages < s->ckpt_base)
		s->ckpt_base = 0;
	return s->db.wal_pages - s->ckpt_base >= STORE_CKPT_PAGES;
}

/* Level-triggered: called after every change; the prepare handle starts the job from the loop. */
static void store_work(struct store *s)
{
	if (s->closed_db)
		return; /* the handle closes, or is closed */
	if (s->job != JOB_NONE) {
		uv_prepare_stop(&s->start);
		return;
	}
	if (!STAILQ_EMPTY(&s->queue) || s->closing || checkpoint_due(s))
		uv_prepare_start(&s->start, on_start); /* no-op when active */
}

/* Callbacks in commit order. They may commit and close; the store lives on until on_handle_closed.
 */
static void deliver(struct store *s, struct store_batches *done)
{
	struct store_batch *b;

	while ((b = STAILQ_FIRST(done))) {
		STAILQ_REMOVE_HEAD(done, next);
		if (b->err.cls != SW_OK)
			s->stats.failed++;
		if (b->cb)
			b->cb(b->arg, b->err.cls != SW_OK ? &b->err : NULL);
		store_batch_free(b);
	}
}

static void cancel_queue(struct store *s)
{
	struct store_batches late = STAILQ_HEAD_INITIALIZER(late);
	struct store_batch *b;

	STAILQ_CONCAT(&late, &s->queue);
	s->stats.queued = 0;
	STAILQ_FOREACH (b, &late, next)
		sw_err_set(&b->err, SW_CANCELLED, -ECANCELED, "the store is closed");
	deliver(s, &late);
}

static void on_handle_closed(uv_handle_t *h)
{
	struct store *s = h->data;
	void (*closed)(void *arg) = s->closed;
	void *arg = s->closed_arg;

	while (!STAILQ_EMPTY(&s->queue)) /* committed by the callbacks of the last ones */
		cancel_queue(s);
	pthread_mutex_destroy(&s->lock);
	close(s->lock_fd); /* last: now another agent may have it */
	free(s);
	if (closed)
		closed(arg);
}

static void after_commit(struct store *s)
{
	struct store_batches done = STAILQ_HEAD_INITIALIZER(done);

	s->stats.last_commit_ns = s->commit_ns;
	if (s->committed)
		s->stats.commits++;
	STAILQ_CONCAT(&done, &s->group);
	deliver(s, &done);
}

static void after_checkpoint(struct store *s)
{
	bool alarm = s->stats.journal_bytes > STORE_JOURNAL_ALARM;

	s->ckpt_base = s->db.wal_pages;
	if (alarm && !s->journal_alarm)
		log_warning("journal keeps growing: a reader holds an old snapshot, end its "
			    "transaction",
			KS("path", s->db.path), KU("journal_bytes", s->stats.journal_bytes));
	s->journal_alarm = alarm;
	if (s->ckpt_rc == SQLITE_OK || s->ckpt_rc == SQLITE_BUSY || s->ckpt_rc == SQLITE_LOCKED)
		return;
	/* Nothing is lost: the journal has it all and the next checkpoint tries again. */
	struct sw_err err = SW_ERR_NONE;

	store_err_sqlite(&err, &s->db, s->ckpt_rc, "checkpoint");
	log_warning("checkpoint failed, the journal keeps the data", KERR(&err));
}

static void on_job_done(void *arg, bool dropped)
{
	struct store *s = arg;
	enum store_job job = s->job;

	(void)dropped; /* never: a job is waited for */
	s->job = JOB_NONE;
	if (job != JOB_CLOSE)
		s->stats.journal_bytes = (uint64_t)s->db.wal_pages * (uint64_t)s->db.page_bytes;
	switch (job) {
	case JOB_COMMIT:
		after_commit(s);
		break;
	case JOB_CHECKPOINT:
		after_checkpoint(s);
		break;
	case JOB_CLOSE:
		s->closed_db = true;
		cancel_queue(s);
		uv_close((uv_handle_t *)&s->start, on_handle_closed);
		break;
	case JOB_NONE:
		break;
	}
	store_work(s);
}

static void on_start(uv_prepare_t *h)
{
	struct store *s = h->data;
	struct store_batch *b;

	uv_prepare_stop(h);
	if (!s->closing && checkpoint_due(s)) {
		/* before the queue: under load it is never empty */
		s->job = JOB_CHECKPOINT;
	} else if (!STAILQ_EMPTY(&s->queue)) {
		s->job = JOB_COMMIT;
		s->committed = false;
		for (int n = 0; n < STORE_GROUP_MAX && (b = STAILQ_FIRST(&s->queue)); n++) {
			STAILQ_REMOVE_HEAD(&s->queue, next);
			STAILQ_INSERT_TAIL(&s->group, b, next);
			s->stats.queued--;
		}
	} else if (s->closing) {
		s->job = JOB_CLOSE;
	} else {
		return;
	}
	sw_work(s->loop, store_job_run, on_job_done, s);
}

int store_open(struct store **ret, struct sw_loop *l, const char *path, struct sw_err *err)
{
	struct store *s;
	int fd = -1, r;

	r = store_lock(path, &fd, err);
	if (r < 0)
		return r;
	s = xcalloc(1, sizeof(*s));
	s->loop = l;
	s->lock_fd = fd;
	STAILQ_INIT(&s->queue);
	STAILQ_INIT(&s->group);
	pthread_mutex_init(&s->lock, NULL);
	r = store_db_open(&s->db, path, err);
	if (r < 0) {
		pthread_mutex_destroy(&s->lock);
		close(fd);
		free(s);
		return r;
	}
	uv_prepare_init(sw_loop_uv(l), &s->start);
	s->start.data = s;
	log_info("store open", KS("path", path), KI("schema", STORE_SCHEMA));
	*ret = s;
	return 0;
}

void store_close(struct store *s, void (*closed)(void *arg), void *arg)
{
	if (!s || s->closing)
		return;
	s->closing = true;
	s->closed = closed;
	s->closed_arg = arg;
	store_work(s);
}

void store_commit(struct store *s, struct store_batch *b, store_commit_cb *cb, void *arg)
{
	b->cb = cb;
	b->arg = arg;
	STAILQ_INSERT_TAIL(&s->queue, b, next);
	s->stats.batches++;
	s->stats.queued++;
	store_work(s);
}

void store_set_history(struct store *s, uint64_t max_rows, uint64_t max_age_ns)
{
	pthread_mutex_lock(&s->lock);
	s->db.history_rows = max_rows < 1           ? 1
			     : max_rows > INT32_MAX ? INT32_MAX
						    : (int64_t)max_rows;
	s->db.history_age_ns = max_age_ns > INT64_MAX ? INT64_MAX : (int64_t)max_age_ns;
	pthread_mutex_unlock(&s->lock);
}

void store_stats(const struct store *s, struct store_stats *ret)
{
	*ret = s->stats;
}
