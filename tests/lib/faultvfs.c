#include "faultvfs.h"
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A write or truncation that no sync has covered yet: how to take it back. */
struct undo {
	struct undo *older;
	sqlite3_file *real;
	sqlite3_int64 off, old_size;
	int len; /* bytes of old content, from off */
	char old[];
};

struct fault_file {
	sqlite3_file base;
	sqlite3_file *real; /* behind this struct, in the same memory */
};

static struct {
	sqlite3_vfs vfs, *sys;
	enum fault what;
	int n, times, count;
	unsigned seed;
	struct undo *undo; /* newest first */
} f;

static sqlite3_file *real(sqlite3_file *file)
{
	return ((struct fault_file *)(void *)file)->real;
}

static void lose_unsynced(void)
{
	for (struct undo *u = f.undo; u; u = u->older) {
		if (f.what == FAULT_MIXED && rand_r(&f.seed) % 2)
			continue;
		if (u->len)
			u->real->pMethods->xWrite(u->real, u->old, u->len, u->off);
		if (u->old_size >= 0)
			u->real->pMethods->xTruncate(u->real, u->old_size);
	}
}

static void remember(sqlite3_file *r, sqlite3_int64 off, sqlite3_int64 len)
{
	sqlite3_int64 size = 0;
	struct undo *u;
	int have;

	if (f.what != FAULT_POWER && f.what != FAULT_MIXED)
		return;
	r->pMethods->xFileSize(r, &size);
	have = off >= size ? 0 : (int)(off + len > size ? size - off : len);
	u = malloc(sizeof(*u) + (size_t)have);
	if (!u)
		abort();
	*u = (struct undo){.older = f.undo,
		.real = r,
		.off = off,
		.len = have,
		.old_size = off + len > size || len == 0 ? size : -1};
	if (have && r->pMethods->xRead(r, u->old, have, off) != SQLITE_OK)
		abort();
	f.undo = u;
}

static void forget(sqlite3_file *r)
{
	for (struct undo **p = &f.undo; *p;) {
		struct undo *u = *p;

		if (u->real == r) {
			*p = u->older;
			free(u);
		} else {
			p = &u->older;
		}
	}
}

/* One more operation. True: it is to fail now. Does not come back where the process is to end. */
static bool now(void)
{
	f.count++;
	if (f.what == FAULT_NONE || f.count < f.n)
		return false;
	if (f.what == FAULT_IOERR || f.what == FAULT_FULL)
		return f.count < f.n + f.times;
	if (f.what == FAULT_POWER || f.what == FAULT_MIXED)
		lose_unsynced();
	_exit(FAULT_EXIT);
}

static int x_close(sqlite3_file *file)
{
	forget(real(file));
	return real(file)->pMethods->xClose(real(file));
}

static int x_read(sqlite3_file *file, void *p, int n, sqlite3_int64 off)
{
	return real(file)->pMethods->xRead(real(file), p, n, off);
}

static int x_write(sqlite3_file *file, const void *p, int n, sqlite3_int64 off)
{
	sqlite3_file *r = real(file);

	if (f.what == FAULT_TORN && f.count + 1 == f.n)
		r->pMethods->xWrite(r, p, n / 2, off);
	if (now())
		return f.what == FAULT_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	remember(r, off, n);
	return r->pMethods->xWrite(r, p, n, off);
}

static int x_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	sqlite3_file *r = real(file);
	sqlite3_int64 had = 0;

	if (now())
		return SQLITE_IOERR_TRUNCATE;
	r->pMethods->xFileSize(r, &had);
	if (had > size) {
		remember(r, size, had - size);
	} else {
		remember(r, size, 0);
	}
	return r->pMethods->xTruncate(r, size);
}

static int x_sync(sqlite3_file *file, int flags)
{
	int rc;

	if (now())
		return SQLITE_IOERR_FSYNC;
	rc = real(file)->pMethods->xSync(real(file), flags);
	if (rc == SQLITE_OK)
		forget(real(file));
	return rc;
}

static int x_size(sqlite3_file *file, sqlite3_int64 *ret)
{
	return real(file)->pMethods->xFileSize(real(file), ret);
}

static int x_lock(sqlite3_file *file, int how)
{
	return real(file)->pMethods->xLock(real(file), how);
}

static int x_unlock(sqlite3_file *file, int how)
{
	return real(file)->pMethods->xUnlock(real(file), how);
}

static int x_check_lock(sqlite3_file *file, int *ret)
{
	return real(file)->pMethods->xCheckReservedLock(real(file), ret);
}

static int x_control(sqlite3_file *file, int op, void *arg)
{
	return real(file)->pMethods->xFileControl(real(file), op, arg);
}

static int x_sector(sqlite3_file *file)
{
	return real(file)->pMethods->xSectorSize(real(file));
}

static int x_traits(sqlite3_file *file)
{
	return real(file)->pMethods->xDeviceCharacteristics(real(file));
}

static int x_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret)
{
	return real(file)->pMethods->xShmMap(real(file), page, size, extend, ret);
}

static int x_shm_lock(sqlite3_file *file, int off, int n, int flags)
{
	return real(file)->pMethods->xShmLock(real(file), off, n, flags);
}

static void x_shm_barrier(sqlite3_file *file)
{
	real(file)->pMethods->xShmBarrier(real(file));
}

static int x_shm_unmap(sqlite3_file *file, int delete)
{
	return real(file)->pMethods->xShmUnmap(real(file), delete);
}

static const sqlite3_io_methods methods = {2, x_close, x_read, x_write, x_truncate, x_sync, x_size,
	x_lock, x_unlock, x_check_lock, x_control, x_sector, x_traits, x_shm_map, x_shm_lock,
	x_shm_barrier, x_shm_unmap, NULL, NULL};

static int v_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	struct fault_file *ff = (struct fault_file *)(void *)file;
	int rc;

	(void)vfs;
	ff->real = (sqlite3_file *)(void *)(ff + 1);
	ff->base.pMethods = NULL;
	rc = f.sys->xOpen(f.sys, name, ff->real, flags, ret_flags);
	if (ff->real->pMethods)
		ff->base.pMethods = &methods;
	return rc;
}

static int v_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	(void)vfs;
	if (now())
		return SQLITE_IOERR_DELETE;
	return f.sys->xDelete(f.sys, name, sync);
}

void faultvfs_install(enum fault what, int n, int times, unsigned seed)
{
	f.sys = sqlite3_vfs_find(NULL);
	f.vfs = *f.sys; /* all that has no file in it is the system's */
	f.vfs.zName = "fault";
	f.vfs.szOsFile = (int)sizeof(struct fault_file) + f.sys->szOsFile;
	f.vfs.xOpen = v_open;
	f.vfs.xDelete = v_delete;
	f.vfs.pNext = NULL;
	f.what = what;
	f.n = n;
	f.times = times;
	f.seed = seed;
	sqlite3_vfs_register(&f.vfs, 1);
}

int faultvfs_count(void)
{
	return f.count;
}
