/* open.c - the lock, the checks before we trust a file, the connection.
 *
 * The order: lock; look at the file with plain reads (size, magic, mode); open with sqlite; ours
 * and not newer; whole; journal mode; upgrade; views. A file that is refused is left as it was. */
#include "store_int.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/stat.h>

static int file_err(struct sw_err *err, const char *what, const char *path)
{
	int e = errno;
	const char *remedy = "";

	switch (e) {
	case ENOENT:
		remedy = "; create the state directory";
		break;
	case EROFS:
		remedy =
			"; the file system is read-only: remount it or use another state directory";
		break;
	case EACCES:
	case EPERM:
		remedy = "; check owner and mode of the state directory";
		break;
	case ENOSPC:
	case EDQUOT:
		remedy = "; the disk is full: free some space";
		break;
	default:
		break;
	}
	return sw_err_set(err, SW_FATAL, -e, "%s %s: %s%s", what, path, strerror(e), remedy);
}

/* A file of its own: sqlite's locks on the database are for readers and writers, and a lock of ours
 * there would go with the first close() of any descriptor of it. OFD locks belong to the
 * descriptor, so they also keep two stores of one process apart; kill -9 drops them. The file
 * stays: removing a lock file is a race. */
int store_lock(const char *path, int *ret_fd, struct sw_err *err)
{
	sw_auto_free char *name = xasprintf("%s.lock", path);
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char pid[32] = "";
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	ssize_t n;

	if (fd < 0)
		return file_err(err, "cannot open lock file", name);
	if (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
		if (errno != EAGAIN && errno != EACCES) {
			file_err(err, "cannot lock", name);
			goto fail;
		}
		n = pread(fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
		sw_err_set(err, SW_FATAL, -EBUSY,
			"%s is used by another swarm-agentd (pid %s): stop it or use another state "
			"directory",
			path, pid[0] ? pid : "unknown");
		goto fail;
	}
	/* The text only serves the message above; a full disk must not keep us from working. */
	n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
		log_warning("lock file without pid", KS("path", name));
	*ret_fd = fd;
	return 0;
fail:
	close(fd);
	return -EBUSY;
}

/* 0600, also for what an older umask or a restored backup left behind. */
static int tighten(const char *path, struct sw_err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : file_err(err, "cannot stat", path);
	if ((st.st_mode & 07777) != 0600 && chmod(path, 0600) < 0)
		return file_err(err, "cannot set mode 0600 on", path);
	return 0;
}

/* Before sqlite touches anything. */
static int look(const struct store_db *db, bool *ret_created, struct sw_err *err)
{
	sw_auto_free char *shm = xasprintf("%s-shm", db->path);
	struct stat st, wal;
	char magic[16] = "";
	ssize_t n;
	int fd, r = 0;

	bool had_wal = stat(db->wal_path, &wal) == 0 && wal.st_size > 0;
	bool existed = stat(db->path, &st) == 0;

	if (existed && !S_ISREG(st.st_mode))
		return sw_err_set(err, SW_FATAL, -EINVAL, "%s is not a regular file", db->path);
	/* sqlite would throw such a journal away and start empty */
	if (had_wal && (!existed || st.st_size == 0))
		return sw_err_set(err, SW_FATAL, -ENOENT,
			"%s is %s but its journal %s is not: restore the database, or move the "
			"journal "
			"away to start empty",
			db->path, existed ? "empty" : "missing", db->wal_path);

	fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
	if (fd < 0)
		return file_err(err, "cannot open database", db->path);
	n = pread(fd, magic, sizeof(magic), 0);
	if (n < 0)
		r = file_err(err, "cannot read", db->path);
	else if (n > 0 && (n < 16 || memcmp(magic, "SQLite format 3", 16) != 0))
		r = sw_err_set(err, SW_FATAL, -EINVAL,
			"%s is not a sqlite database: move it away or use another state directory",
			db->path);
	close(fd); /* before sqlite has locks on it: a close drops them */
	if (r == 0)
		r = tighten(db->path, err);
	if (r == 0)
		r = tighten(db->wal_path, err);
	if (r == 0)
		r = tighten(shm, err);
	*ret_created = !existed;
	return r;
}

int store_sync_dir(const char *path, struct sw_err *err)
{
	sw_auto_free char *copy = xstrdup(path);
	const char *dir = dirname(copy);
	sw_auto_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return file_err(err, "cannot sync directory", dir);
	return 0;
}

static int check_whole(struct store_db *db, struct sw_err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db->sql, "PRAGMA quick_check(1)", -1, &st, NULL);
	int r = 0;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc != SQLITE_ROW) {
		r = store_err_sqlite(err, db, rc, "check");
	} else if (!sw_streq((const char *)sqlite3_column_text(st, 0), "ok")) {
		sw_err_setd(err, SW_FATAL, SW_E_SQLITE, SQLITE_CORRUPT,
			"%s is damaged (%.200s): move it and its -wal aside (keep them) and start "
			"again, "
			"or restore a copy; running containers are left alone",
			db->path, (const char *)sqlite3_column_text(st, 0));
		r = -EIO;
	}
	sqlite3_finalize(st);
	return r;
}

static int set_pragmas(struct store_db *db, struct sw_err *err)
{
	static const char per_connection[] =
		"PRAGMA synchronous = FULL;" /* a commit is a sync, also through a power cut */
		"PRAGMA foreign_keys = ON;"
		"PRAGMA trusted_schema = OFF;"
		"PRAGMA cell_size_check = ON;"
		"PRAGMA wal_autocheckpoint = 0;"; /* commit.c: after the callbacks, not before */
	char limit[64];
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db->sql, "PRAGMA journal_mode = WAL", -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW &&
		sqlite3_stricmp((const char *)sqlite3_column_text(st, 0), "wal") != 0) {
		int r = sw_err_set(err, SW_FATAL, -ENOTSUP,
			"%s: journal mode stays \"%s\", WAL is needed: the file system has no "
			"shared "
			"memory (network?) or another program is in the file",
			db->path, (const char *)sqlite3_column_text(st, 0));

		sqlite3_finalize(st);
		return r;
	}
	sqlite3_finalize(st);
	snprintf(limit, sizeof(limit), "PRAGMA journal_size_limit = %d", STORE_JOURNAL_LIMIT);
	if (rc == SQLITE_ROW)
		rc = sqlite3_exec(db->sql, per_connection, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db->sql, limit, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_db_config(db->sql, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	return rc == SQLITE_OK ? 0 : store_err_sqlite(err, db, rc, "set up");
}

static int on_wal(void *arg, sqlite3 *sql, const char *name, int pages)
{
	struct store_db *db = arg;

	(void)sql;
	(void)name;
	db->wal_pages = pages;
	return SQLITE_OK;
}

static int file_id(const char *path, struct store_file_id *ret)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
	return 0;
}

static bool same_file(const char *path, const struct store_file_id *id)
{
	struct store_file_id now = {0};

	return file_id(path, &now) == 0 && now.dev == id->dev && now.ino == id->ino;
}

int store_db_intact(const struct store_db *db, struct sw_err *err)
{
	const char *gone = !same_file(db->path, &db->id)           ? db->path
			   : !same_file(db->wal_path, &db->wal_id) ? db->wal_path
								   : NULL;

	if (!gone)
		return 0;
	return sw_err_set(err, SW_FATAL, -ESTALE,
		"%s was moved, removed or replaced under the running agent: nothing can be stored "
		"safely; stop the agent, put the file back and start again",
		gone);
}

int store_db_open(struct store_db *db, const char *path, struct sw_err *err)
{
	bool created = false, accepted = false;
	int version = 0, rc, r;
	int64_t page = 0;

	*db = (struct store_db){
		.path = xstrdup(path),
		.wal_path = xasprintf("%s-wal", path),
		.history_rows = STORE_HISTORY_ROWS,
		.history_age_ns = STORE_HISTORY_AGE_NS,
	};
	r = look(db, &created, err);
	if (r < 0)
		goto fail;
	/* NOMUTEX: one thread at a time, by the store's own lock */
	rc = sqlite3_open_v2(path, &db->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc != SQLITE_OK) {
		r = store_err_sqlite(err, db, rc, "open");
		goto fail;
	}
	sqlite3_extended_result_codes(db->sql, 1);
	sqlite3_busy_timeout(db->sql, STORE_BUSY_MS);

	r = store_identify(db, STORE_SCHEMA, &version, err);
	if (r == 0)
		r = check_whole(db, err);
	accepted = r == 0;
	if (r == 0)
		r = set_pragmas(db, err);
	if (r == 0)
		sqlite3_wal_hook(db->sql, on_wal, db); /* wal_autocheckpoint takes a hook away */
	if (r == 0)
		r = store_migrate(db, version, store_migrations, store_n_migrations, err);
	if (r == 0)
		r = store_views(db, err);
	if (r == 0)
		r = store_pragma_int(db, "PRAGMA page_size", &page, err);
	if (r == 0 && created)
		r = store_sync_dir(path, err);
	if (r < 0)
		goto fail;
	db->page_bytes = (int)page;
	if (file_id(db->path, &db->id) < 0 || file_id(db->wal_path, &db->wal_id) < 0) {
		r = file_err(err, "cannot stat the journal of", db->path);
		goto fail;
	}
	return 0;
fail:
	if (err)
		err->cls = SW_FATAL; /* whatever it is, somebody has to act before the next start */
	store_db_close(db, !accepted);
	return r < 0 ? r : -EIO;
}

void store_db_close(struct store_db *db, bool leave_journal)
{
	int rc;

	for (int i = 0; i < Q_N; i++)
		sqlite3_finalize(db->stmt[i]);
	if (db->sql) {
		if (leave_journal) {
			sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		} else {
			/* a reader that stays costs a moment; what is left is recovered next time
			 */
			sqlite3_busy_timeout(db->sql, 100);
			sqlite3_wal_checkpoint_v2(
				db->sql, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
		}
		rc = sqlite3_close(db->sql);
		if (rc != SQLITE_OK)
			log_err("database not closed", KS("path", db->path), KI("sqlite", rc));
	}
	free(db->path);
	free(db->wal_path);
	*db = (struct store_db){.sql = NULL};
}
