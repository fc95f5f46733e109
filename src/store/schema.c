/* schema.c - tables, views and how older files get there.
 *
 * Tables change only by a migration; views are for people, carry no data and are made anew by
 * every version that wants them different. Blobs are the truth, the columns next to them are
 * written in the same statement and exist to be read with sqlite3. */
#include "store_int.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/stat.h>

/* clang-format off */
static const char schema_1[] =
	"CREATE TABLE states (" /* of tasks, for the views */
	"  state INTEGER PRIMARY KEY, name TEXT NOT NULL);"
	"INSERT INTO states VALUES (0,'NEW'),(64,'PENDING'),(192,'ASSIGNED'),(256,'ACCEPTED'),"
	"  (320,'PREPARING'),(384,'READY'),(448,'STARTING'),(512,'RUNNING'),(576,'COMPLETE'),"
	"  (640,'SHUTDOWN'),(704,'FAILED'),(768,'REJECTED'),(800,'REMOVE'),(832,'ORPHANED');"

	"CREATE TABLE node (" /* exactly one row */
	"  id INTEGER PRIMARY KEY CHECK (id = 1),"
	"  node_id TEXT, cluster_id TEXT, role TEXT,"
	"  state TEXT NOT NULL CHECK (state IN ('new','joined','removed','left')),"
	"  hostname TEXT, availability TEXT, session_state TEXT,"
	"  object BLOB,"
	"  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL);" /* ns since 1970, UTC */
	"INSERT INTO node (id, state, created_at, updated_at) VALUES (1, 'new',"
	"  CAST(strftime('%s','now') AS INTEGER) * 1000000000,"
	"  CAST(strftime('%s','now') AS INTEGER) * 1000000000);"

	"CREATE TABLE managers ("
	"  node_id TEXT NOT NULL DEFAULT '', addr TEXT NOT NULL CHECK (addr <> ''),"
	"  weight INTEGER NOT NULL DEFAULT 0, last_ok INTEGER, last_error TEXT,"
	"  updated_at INTEGER NOT NULL,"
	"  PRIMARY KEY (node_id, addr)) WITHOUT ROWID;"

	"CREATE TABLE tasks ("
	"  task_id TEXT PRIMARY KEY NOT NULL,"
	"  data BLOB NOT NULL," /* Task as received, status cut out, unknown fields kept */
	"  phase TEXT NOT NULL CHECK (phase IN ('assigned','removing')),"
	"  desired_state INTEGER NOT NULL,"
	"  service_id TEXT, service_name TEXT, slot INTEGER, name TEXT NOT NULL, image TEXT,"
	"  runtime TEXT NOT NULL, node_id TEXT, spec_version INTEGER,"
	"  assigned_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, removed_at INTEGER);"

	"CREATE TABLE task_status (" /* the current one */
	"  task_id TEXT PRIMARY KEY NOT NULL REFERENCES tasks ON DELETE CASCADE,"
	"  state INTEGER NOT NULL, message TEXT NOT NULL DEFAULT '', err TEXT NOT NULL DEFAULT '',"
	"  at INTEGER NOT NULL, container_id TEXT, pid INTEGER, exit_code INTEGER,"
	"  ports TEXT," /* JSON: [{"protocol","target","published"}...] */
	"  data BLOB NOT NULL," /* TaskStatus as reported */
	"  seq INTEGER NOT NULL, acked_seq INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"

	/* Bounded by count and age, dropped from the front. Keeps the name, because it outlives the
	 * task's row. No index: people may wait for a scan, every commit would pay for one. */
	"CREATE TABLE status_history ("
	"  seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL,"
	"  service_name TEXT, slot INTEGER, name TEXT,"
	"  state INTEGER NOT NULL, desired_state INTEGER, message TEXT, err TEXT, exit_code INTEGER,"
	"  container_id TEXT, at INTEGER NOT NULL, stored_at INTEGER NOT NULL, cause TEXT);";

#define UTC(col)    "strftime('%Y-%m-%d %H:%M:%SZ', " col " / 1000000000, 'unixepoch')"
#define UTC_MS(col) "strftime('%Y-%m-%d %H:%M:%fZ', " col " / 1e9, 'unixepoch')"

static const struct {
	const char *name, *sql;
} views[] = {
	{"tasks_now",
		"CREATE VIEW tasks_now AS SELECT"
		" coalesce(nullif(t.service_name, ''), t.service_id) AS service,"
		" nullif(t.slot, 0) AS slot, t.name AS name, t.image AS image,"
		" coalesce(d.name, t.desired_state) AS desired,"
		" coalesce(s.name, ts.state) AS state,"
		" ts.message AS message, ts.err AS err, ts.exit_code AS exit_code,"
		" substr(ts.container_id, 1, 12) AS container,"
		" CASE WHEN json_valid(ts.ports) THEN (SELECT group_concat("
		"   coalesce(p.value ->> 'published', '?') || '->' || coalesce(p.value ->> 'target', '?')"
		"   || '/' || coalesce(p.value ->> 'protocol', '?'), ' ')"
		"   FROM json_each(ts.ports) p WHERE p.type = 'object') ELSE ts.ports END AS ports,"
		" " UTC("ts.at") " AS at, " UTC("t.assigned_at") " AS assigned, t.phase AS phase,"
		" CASE WHEN ts.acked_seq >= ts.seq THEN 'yes' ELSE 'no' END AS reported,"
		" t.task_id AS task_id"
		" FROM tasks t LEFT JOIN task_status ts ON ts.task_id = t.task_id"
		" LEFT JOIN states s ON s.state = ts.state LEFT JOIN states d ON d.state = t.desired_state"
		" ORDER BY 1, 2, 3"},
	{"task_history",
		"CREATE VIEW task_history AS SELECT h.seq AS seq, " UTC_MS("h.at") " AS at,"
		" h.service_name AS service, nullif(h.slot, 0) AS slot, h.name AS name,"
		" coalesce(s.name, h.state) AS state, coalesce(d.name, h.desired_state) AS desired,"
		" h.message AS message, h.err AS err, h.exit_code AS exit_code,"
		" substr(h.container_id, 1, 12) AS container, h.cause AS cause, h.task_id AS task_id"
		" FROM status_history h LEFT JOIN states s ON s.state = h.state"
		" LEFT JOIN states d ON d.state = h.desired_state ORDER BY h.seq"},
	{"node_now",
		"CREATE VIEW node_now AS SELECT node_id, cluster_id, role, state, hostname, availability,"
		" session_state AS session, " UTC("created_at") " AS created,"
		" " UTC("updated_at") " AS updated FROM node"},
	{"managers_now",
		"CREATE VIEW managers_now AS SELECT nullif(node_id, '') AS node_id, addr, weight,"
		" " UTC("last_ok") " AS last_ok, last_error, " UTC("updated_at") " AS updated"
		" FROM managers ORDER BY weight DESC, addr"},
};
/* clang-format on */

const struct store_migration store_migrations[] = {
	{1, schema_1},
};
const size_t store_n_migrations = SW_ARRAY_LEN(store_migrations);
_Static_assert(SW_ARRAY_LEN(store_migrations) == STORE_SCHEMA, "one step per schema version");

int store_pragma_int(struct store_db *db, const char *pragma, int64_t *ret, struct sw_err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db->sql, pragma, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		*ret = sqlite3_column_int64(st, 0);
		rc = SQLITE_OK;
	} else if (rc == SQLITE_DONE) {
		rc = SQLITE_ERROR;
	}
	if (rc != SQLITE_OK)
		store_err_sqlite(err, db, rc, "cannot read");
	sqlite3_finalize(st);
	return rc == SQLITE_OK ? 0 : -EIO;
}

/* The file as it is now, journal included, next to it. An older copy of the same name comes from an
 * upgrade that failed and is replaced. */
static int keep_copy(struct store_db *db, int64_t version, struct sw_err *err)
{
	sw_auto_free char *to = xasprintf("%s.v%" PRId64, db->path, version);
	sw_auto_free char *tmp = xasprintf("%s.tmp", to);
	sqlite3 *copy = NULL;
	sqlite3_backup *bk;
	int rc, fd;

	if (unlink(tmp) < 0 && errno != ENOENT)
		return sw_err_set(err, SW_FATAL, -errno, "copy before upgrade: remove %s: %s", tmp,
			strerror(errno));
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sw_err_set(
			err, SW_FATAL, -errno, "copy before upgrade: %s: %s", tmp, strerror(errno));
	close(fd);
	rc = sqlite3_open_v2(tmp, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_OK) {
		bk = sqlite3_backup_init(copy, "main", db->sql, "main");
		if (bk) {
			while (sqlite3_backup_step(bk, 1024) == SQLITE_OK)
				;
			rc = sqlite3_backup_finish(bk); /* with the error of the steps */
		} else {
			rc = sqlite3_errcode(copy);
		}
	}
	if (rc != SQLITE_OK)
		sw_err_setd(err, SW_FATAL, SW_E_SQLITE, rc,
			"copy before upgrade: %s: %s; free some space and start again", tmp,
			copy ? sqlite3_errmsg(copy) : sqlite3_errstr(rc));
	if (sqlite3_close(copy) != SQLITE_OK && rc == SQLITE_OK)
		rc = sw_err_set(err, SW_FATAL, -EIO, "copy before upgrade: close %s", tmp);
	if (rc == SQLITE_OK && rename(tmp, to) < 0)
		rc = sw_err_set(err, SW_FATAL, -errno, "copy before upgrade: rename %s to %s: %s",
			tmp, to, strerror(errno));
	if (rc != SQLITE_OK) {
		unlink(tmp);
		return -EIO;
	}
	if (store_sync_dir(to, err) < 0)
		return -EIO;
	log_notice("database copied before upgrade", KS("copy", to), KI("schema", version));
	return 0;
}

static int exec(struct store_db *db, const char *sql)
{
	return sqlite3_exec(db->sql, sql, NULL, NULL, NULL);
}

static int migrate_one(struct store_db *db, const struct store_migration *m, struct sw_err *err)
{
	char what[64], version[64];
	int rc;

	snprintf(what, sizeof(what), "upgrade to schema %d", m->to);
	snprintf(version, sizeof(version), "PRAGMA user_version = %d", m->to);
	rc = exec(db, "BEGIN IMMEDIATE");
	if (rc == SQLITE_OK)
		rc = exec(db, m->sql);
	if (rc == SQLITE_OK && m->to == 1) {
		char id[64];

		snprintf(id, sizeof(id), "PRAGMA application_id = %d", STORE_APP_ID);
		rc = exec(db, id);
	}
	if (rc == SQLITE_OK)
		rc = exec(db, version);
	if (rc == SQLITE_OK)
		rc = exec(db, "COMMIT");
	if (rc == SQLITE_OK)
		return 0;
	rc = sqlite3_extended_errcode(db->sql);
	store_err_sqlite(err, db, rc, what);
	if (!sqlite3_get_autocommit(db->sql))
		exec(db, "ROLLBACK");
	return -EIO;
}

int store_identify(struct store_db *db, int latest, int *ret_version, struct sw_err *err)
{
	int64_t app = 0, version = 0, objects = 0;
	int r;

	r = store_pragma_int(db, "PRAGMA application_id", &app, err);
	if (r == 0)
		r = store_pragma_int(db, "PRAGMA user_version", &version, err);
	if (r == 0)
		r = store_pragma_int(db, "SELECT count(*) FROM sqlite_schema", &objects, err);
	if (r < 0)
		return r;
	if (app == 0 && version == 0 && objects == 0) {
		*ret_version = 0;
		return 0;
	}
	if (app != STORE_APP_ID)
		return sw_err_set(err, SW_FATAL, -EEXIST,
			"%s is a database of another program (application_id %" PRId64
			", ours is %d): move it away or use another state directory",
			db->path, app, STORE_APP_ID);
	if (version > latest)
		return sw_err_set(err, SW_FATAL, -EPROTONOSUPPORT,
			"%s has schema version %" PRId64
			", this swarm-agentd knows versions up to %d: "
			"run the newer swarm-agentd, or move the file away (%s.v%d, if there, is "
			"the copy "
			"from before the upgrade)",
			db->path, version, latest, db->path, latest);
	if (version < 1)
		return sw_err_set(err, SW_FATAL, -EINVAL,
			"%s has our application_id but schema version %" PRId64
			": move the file away or restore a copy",
			db->path, version);
	*ret_version = (int)version;
	return 0;
}

int store_migrate(struct store_db *db, int version, const struct store_migration *steps, size_t n,
	struct sw_err *err)
{
	int r = 0;

	if (version > 0 && n && version < steps[n - 1].to)
		r = keep_copy(db, version, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (steps[i].to <= version)
			continue;
		r = migrate_one(db, &steps[i], err);
		if (r == 0 && version > 0)
			log_notice("database upgraded", KS("path", db->path),
				KI("schema", steps[i].to));
	}
	return r;
}

/* Written only when different: a start should not cost a sync for nothing. */
static bool view_is_current(struct store_db *db, const char *name, const char *sql)
{
	sqlite3_stmt *st = NULL;
	bool same = false;

	if (sqlite3_prepare_v2(db->sql,
		    "SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = ?1", -1, &st,
		    NULL) == SQLITE_OK &&
		sqlite3_bind_text(st, 1, name, -1, SQLITE_STATIC) == SQLITE_OK &&
		sqlite3_step(st) == SQLITE_ROW)
		same = sw_streq((const char *)sqlite3_column_text(st, 0), sql);
	sqlite3_finalize(st);
	return same;
}

int store_views(struct store_db *db, struct sw_err *err)
{
	bool all = true;
	int rc;

	for (size_t i = 0; i < SW_ARRAY_LEN(views); i++)
		all = all && view_is_current(db, views[i].name, views[i].sql);
	if (all)
		return 0;
	rc = exec(db, "BEGIN IMMEDIATE");
	for (size_t i = 0; rc == SQLITE_OK && i < SW_ARRAY_LEN(views); i++) {
		sw_auto_free char *drop = xasprintf("DROP VIEW IF EXISTS %s", views[i].name);

		rc = exec(db, drop);
		if (rc == SQLITE_OK)
			rc = exec(db, views[i].sql);
	}
	if (rc == SQLITE_OK)
		rc = exec(db, "COMMIT");
	if (rc == SQLITE_OK)
		return 0;
	rc = sqlite3_extended_errcode(db->sql);
	store_err_sqlite(err, db, rc, "create views");
	if (!sqlite3_get_autocommit(db->sql))
		exec(db, "ROLLBACK");
	return -EIO;
}
