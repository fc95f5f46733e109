/* store_int.h - what the files of this room share. Not a door. */
#pragma once
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/store.h>
#include <sys/queue.h>
#include <sys/types.h>

#define STORE_APP_ID         0x53574147 /* "SWAG" in the file header: this file is ours */
#define STORE_BUSY_MS        5000       /* a person's open write transaction: wait that long */
#define STORE_CKPT_PAGES     1000       /* journal pages between two checkpoints */
#define STORE_JOURNAL_LIMIT  16777216   /* bytes; above it a checkpoint also waits for readers */
#define STORE_JOURNAL_ALARM  67108864   /* bytes; above it people are told */
#define STORE_GROUP_MAX      4096       /* batches in one transaction */
#define STORE_HISTORY_ROWS   50000
#define STORE_HISTORY_AGE_NS (30ll * 86400 * 1000000000)

/* ---- statements, prepared on first use and kept */
enum store_q {
	Q_BEGIN,
	Q_COMMIT,
	Q_ROLLBACK,
	Q_SAVE,
	Q_SAVE_UNDO,
	Q_SAVE_RELEASE,
	Q_TASK,
	Q_STATUS,
	Q_STATUS_WHY,
	Q_HISTORY,
	Q_HISTORY_ENDS,
	Q_HISTORY_DROP,
	Q_HISTORY_DROP_OLD,
	Q_REMOVING,
	Q_DELETE,
	Q_ACKED,
	Q_NODE,
	Q_MANAGERS_CLEAR,
	Q_MANAGER,
	Q_N
};

struct store_file_id {
	dev_t dev;
	ino_t ino;
};

/* What sqlite works on. One thread at a time: store.lock. */
struct store_db {
	sqlite3 *sql;
	char *path, *wal_path;
	sqlite3_stmt *stmt[Q_N];
	struct store_file_id id, wal_id;
	int page_bytes;
	int wal_pages; /* after the last commit */
	int64_t history_rows, history_age_ns;
	bool history_grew; /* in the open transaction */
};

/* ---- batches */
enum op_kind { OP_TASK, OP_STATUS, OP_REMOVING, OP_DELETE, OP_ACKED, OP_NODE, OP_MANAGERS };

struct op {
	STAILQ_ENTRY(op) next;
	enum op_kind kind;
	const char *task_id;
	union {
		struct store_task task;
		struct {
			struct store_status st;
			const char *cause;
		} status;
		int64_t at_ns;
		struct store_node node;
		struct {
			struct store_manager *m;
			size_t n;
		} managers;
	};
};

STAILQ_HEAD(ops, op);

struct chunk; /* of a batch's memory */

struct store_batch {
	STAILQ_ENTRY(store_batch) next;
	struct ops ops;
	struct chunk *chunks;
	struct sw_err
		err; /* set while building: nothing of it is tried; set by commit: the result */
	store_commit_cb *cb;
	void *arg;
};
STAILQ_HEAD(store_batches, store_batch);

/* ---- the store */
enum store_job { JOB_NONE, JOB_COMMIT, JOB_CHECKPOINT, JOB_CLOSE };

struct store {
	struct sw_loop *loop;
	int lock_fd;
	struct store_batches queue;
	uv_prepare_t start; /* active: something to do, the job starts when this round is over */
	bool closing;
	bool closed_db; /* the close job is done */
	void (*closed)(void *arg);
	void *closed_arg;
	struct store_stats stats;
	bool journal_alarm;
	int ckpt_base; /* journal pages at the last checkpoint */

	/* The job: written by the loop before it starts and read after it ended. */
	enum store_job job;
	struct store_batches group;
	bool committed;
	uint64_t commit_ns;
	int ckpt_rc;

	pthread_mutex_t lock; /* db: the job against store_load_*() */
	struct store_db db;
};

/* ---- error.c */
/* Classifies sqlite's result @rc; the text has @what, the file, sqlite's words and a remedy. */
int store_err_sqlite(struct sw_err *err, const struct store_db *db, int rc, const char *what);
/* True: the transaction cannot go on (disk, lock, memory, corruption); false: this statement's
 * own fault. */
bool store_err_is_common(int rc);

/* ---- open.c: connection */
int store_db_open(struct store_db *db, const char *path, struct sw_err *err);
void store_db_close(struct store_db *db, bool leave_journal);
/* Still the files that were opened? A commit into an unlinked file would be lost in silence. */
int store_db_intact(const struct store_db *db, struct sw_err *err);
/* A new name survives a power cut only once its directory is synced. */
int store_sync_dir(const char *path, struct sw_err *err);
int store_lock(const char *path, int *ret_fd, struct sw_err *err);

/* ---- schema.c */
struct store_migration {
	int to;          /* user_version after it */
	const char *sql; /* may be several statements; runs in one transaction */
};
/* Whose file is it: *@ret_version 0 for an empty one; another program's and a newer one's are
 * refused. Writes nothing. */
int store_identify(struct store_db *db, int latest, int *ret_version, struct sw_err *err);
/* Copies the file to PATH.v<N> if there is something to upgrade, runs the steps above @version. */
int store_migrate(struct store_db *db, int version, const struct store_migration *steps, size_t n,
	struct sw_err *err);
int store_views(struct store_db *db, struct sw_err *err);
extern const struct store_migration store_migrations[];
extern const size_t store_n_migrations;
int store_pragma_int(struct store_db *db, const char *pragma, int64_t *ret, struct sw_err *err);

/* ---- rows.c */
/* A sqlite result code. @err is set for our own refusals as well. */
int store_apply(struct store_db *db, struct store_batch *b, struct sw_err *err);
int store_history_prune(struct store_db *db);
int store_run(struct store_db *db, enum store_q q); /* a statement without parameters */
int store_stmt(struct store_db *db, enum store_q q, sqlite3_stmt **ret);

/* ---- commit.c */
void store_job_run(void *arg);
