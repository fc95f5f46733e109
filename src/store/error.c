/* error.c - what sqlite's result codes mean for the agent: class and remedy, one table. */
#include "store_int.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct meaning {
	int code; /* primary result code */
	enum sw_errclass cls;
	bool common; /* the whole transaction is lost, not one statement */
	const char *remedy;
} meanings[] = {
	{SQLITE_FULL, SW_TEMPORARY, true, "the disk is full: free some space"},
	{SQLITE_IOERR, SW_TEMPORARY, true, "check disk and file system"},
	{SQLITE_BUSY, SW_TEMPORARY, true,
		"another program keeps a write transaction open: end it (readers do not block)"},
	{SQLITE_LOCKED, SW_TEMPORARY, true, "another program keeps the database locked: end it"},
	{SQLITE_PROTOCOL, SW_TEMPORARY, true, "another program keeps the database locked: end it"},
	{SQLITE_NOMEM, SW_TEMPORARY, true, "out of memory"},
	{SQLITE_READONLY, SW_TEMPORARY, true,
		"the file or its file system is read-only: make it writable"},
	{SQLITE_PERM, SW_TEMPORARY, true, "check owner and mode of the state directory"},
	{SQLITE_CANTOPEN, SW_TEMPORARY, true,
		"check owner, mode and free space of the state directory"},
	{SQLITE_CORRUPT, SW_FATAL, true,
		"the file is damaged: stop the agent, move the file and its -wal aside (keep them) "
		"and "
		"start again, or restore a copy; running containers are left alone"},
	{SQLITE_NOTADB, SW_FATAL, true,
		"the file is not a database: move it aside and start again, or restore a copy"},
	{SQLITE_CONSTRAINT, SW_REJECTED, false, NULL},
	{SQLITE_TOOBIG, SW_REJECTED, false, NULL},
	{SQLITE_MISMATCH, SW_REJECTED, false, NULL},
};

static const struct meaning *meaning_of(int rc)
{
	static const struct meaning other = {SQLITE_ERROR, SW_FATAL, false, NULL};

	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (meanings[i].code == (rc & 0xff))
			return &meanings[i];
	return &other;
}

bool store_err_is_common(int rc)
{
	return meaning_of(rc)->common;
}

int store_err_sqlite(struct sw_err *err, const struct store_db *db, int rc, const char *what)
{
	const struct meaning *m = meaning_of(rc);
	const char *msg = sqlite3_errstr(rc), *own = NULL;
	int sys = db->sql ? sqlite3_system_errno(db->sql) : 0;
	char os[128] = "";

	/* sqlite's long text belongs to the last call only; a rollback in between replaces it */
	if (db->sql && sqlite3_extended_errcode(db->sql) == rc)
		own = sqlite3_errmsg(db->sql);
	if (own && strcmp(own, msg) != 0)
		msg = own;
	/* only for these codes is the system's error the cause and not an older one */
	if (sys && ((rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN))
		snprintf(os, sizeof(os), ", %s", strerror(sys));
	return sw_err_setd(err, m->cls, SW_E_SQLITE, rc, "%s: %s: %s (sqlite %d%s)%s%s", what,
		db->path, msg, rc, os, m->remedy ? "; " : "",
		(rc & 0xff) == SQLITE_IOERR && sys == ENOSPC ? meanings[0].remedy
							     : (m->remedy ? m->remedy : ""));
}
