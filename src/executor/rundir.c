/* rundir.c - what is secret never touches a disk: everything here happens below folders that are
 * held open, looked at before use, and left by no name (openat() without following links).
 *
 *   RUNDIR 0711, on a tmpfs, ours    tasks 0711, ours    TASKID 0700, ours    0 1 2 ... by
 * reference
 *
 * The folder of a task keeps other users of the host out, whatever mode a file has. With user
 * namespaces it is 0710 with the group of the containers' root, whose runtime walks through it;
 * giving it away instead would need more capabilities to get rid of it. */
#include "rundir.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NAMES_MAX   100000 /* in tasks/ */
#define DIR_FLAGS   (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define SELINUX_CTX "system_u:object_r:container_file_t:s0"

struct rundir {
	char *path;
	int (*mount)(const char *path, const char *options);
	int root, tasks;
};

static int mount_tmpfs(const char *path, const char *options)
{
	return mount("tmpfs", path, "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, options);
}

struct rundir *rundir_new(const char *path, int (*mount_fn)(const char *path, const char *options))
{
	struct rundir *r = xcalloc(1, sizeof(*r));

	r->path = xstrdup(path);
	r->mount = mount_fn ? mount_fn : mount_tmpfs;
	r->root = r->tasks = -1;
	return r;
}

static void close_fds(struct rundir *r)
{
	if (r->root >= 0)
		close(r->root);
	if (r->tasks >= 0)
		close(r->tasks);
	r->root = r->tasks = -1;
}

void rundir_free(struct rundir *r)
{
	if (!r)
		return;
	close_fds(r);
	free(r->path);
	free(r);
}

static int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* ---- open */

static int failed(const struct rundir *r, const char *what, int e, struct sw_err *err)
{
	return sw_err_set(
		err, SW_TEMPORARY, -e, "run directory %s: %s: %s", r->path, what, strerror(e));
}

/* The folder and its missing parents. */
static int make_dirs(const struct rundir *r, struct sw_err *err)
{
	sw_auto_free char *path = xstrdup(r->path);

	for (char *p = path + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST && errno != EROFS)
			return failed(r, "mkdir", errno, err);
	}
	if (mkdir(path, 0711) < 0 && errno != EEXIST)
		return failed(r, "mkdir", errno, err);
	return 0;
}

static bool in_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Ours alone, and with a mode that no umask has changed. */
static int claim(const struct rundir *r, int fd, mode_t mode, struct sw_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return failed(r, "stat", errno, err);
	if (st.st_uid != geteuid())
		return sw_err_set(err, SW_REJECTED, -EPERM,
			"run directory %s belongs to user %u and not to the agent; remove it, or "
			"give another --run-dir",
			r->path, (unsigned)st.st_uid);
	if ((st.st_mode & 07777) != mode && fchmod(fd, mode) < 0)
		return failed(r, "chmod", errno, err);
	return 0;
}

/* @mounted: by us, a moment ago. */
static int open_root(const struct rundir *r, bool mounted, int *ret, struct sw_err *err)
{
	sw_auto_close int fd = open(r->path, DIR_FLAGS);
	int res;

	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return sw_err_set(err, SW_REJECTED, -ENOTDIR,
			"run directory %s is no directory; remove it, or give another --run-dir",
			r->path);
	if (fd < 0)
		return failed(r, "open", errno, err);
	if ((res = claim(r, fd, 0711, err)) < 0)
		return res;
	if (mounted && !in_memory(fd))
		return sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"run directory %s: a tmpfs was mounted there, but does not show; give a "
			"--run-dir on a tmpfs",
			r->path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return sw_err_set(err, SW_TEMPORARY, -EBUSY,
			"run directory %s is used by another agent; give each a --run-dir of its "
			"own",
			r->path);
	*ret = take_fd(&fd);
	return 0;
}

static int mount_here(const struct rundir *r, struct sw_err *err)
{
	/* memory that may be swapped out is a file on a disk; kernels before 6.4 do not know how
	 * to forbid it */
	if (r->mount(r->path, "mode=0711,noswap") == 0 ||
		(errno == EINVAL && r->mount(r->path, "mode=0711") == 0))
		return 0;
	return sw_err_set(err, SW_REJECTED, -errno,
		"run directory %s is not on a tmpfs, and none can be mounted there (%s); secrets "
		"and configs are not written to a disk. Mount a tmpfs there, or give a --run-dir "
		"on one",
		r->path, strerror(errno));
}

static bool still_there(const struct rundir *r)
{
	struct stat held, named;

	return r->root >= 0 && fstat(r->root, &held) == 0 && lstat(r->path, &named) == 0 &&
	       held.st_dev == named.st_dev && held.st_ino == named.st_ino && in_memory(r->root);
}

static int open_anew(struct rundir *r, struct sw_err *err)
{
	int below, res = make_dirs(r, err);

	if (res < 0 || (res = open_root(r, false, &r->root, err)) < 0)
		return res;
	if (in_memory(r->root))
		return 0;
	below = take_fd(&r->root); /* its lock is held until we have the one of the new root */
	if ((res = mount_here(r, err)) == 0)
		res = open_root(r, true, &r->root, err);
	close(below);
	return res;
}

int rundir_open(struct rundir *r, struct sw_err *err)
{
	int res;

	if (!still_there(r)) {
		close_fds(r);
		if ((res = open_anew(r, err)) < 0)
			return res;
	}
	if (r->tasks >= 0)
		close(r->tasks);
	if (mkdirat(r->root, "tasks", 0711) < 0 && errno != EEXIST)
		return failed(r, "mkdir tasks", errno, err);
	r->tasks = openat(r->root, "tasks", DIR_FLAGS);
	if (r->tasks < 0)
		return failed(r, "tasks", errno, err);
	/* a file system mounted on tasks would be another one */
	if (!in_memory(r->tasks))
		return sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"run directory %s: tasks is not on a tmpfs; unmount what is there",
			r->path);
	return claim(r, r->tasks, 0711, err);
}

/* ---- away with them */

static int empty_folder(int fd)
{
	DIR *d;
	struct dirent *e;
	int copy = openat(fd, ".", DIR_FLAGS), res = 0;

	if (copy < 0)
		return -errno;
	d = fdopendir(copy);
	if (!d) {
		res = -errno;
		close(copy);
		return res;
	}
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		/* we make no folders here, but one must not keep the rest alive */
		if (unlinkat(fd, e->d_name, 0) < 0 && unlinkat(fd, e->d_name, AT_REMOVEDIR) < 0 &&
			errno != ENOENT)
			res = -errno;
	}
	closedir(d);
	return res;
}

int rundir_drop(struct rundir *r, const char *task, bool folder, struct sw_err *err)
{
	sw_auto_close int fd = -1;
	int res = 0;

	/* any name but those that lead elsewhere: the sweep removes what it found */
	if (!*task || strchr(task, '/') || strcmp(task, ".") == 0 || strcmp(task, "..") == 0)
		return sw_err_set(err, SW_REJECTED, -EINVAL, "\"%s\" is no task id", task);
	fd = openat(r->tasks, task, DIR_FLAGS);
	if (fd >= 0)
		res = empty_folder(fd);
	else if (errno == ENOENT)
		return 0;
	else if (errno == ENOTDIR || errno == ELOOP)
		folder = true; /* something that is no folder: a name to take away */
	else
		res = -errno;
	if (res == 0 && folder && unlinkat(r->tasks, task, fd >= 0 ? AT_REMOVEDIR : 0) < 0 &&
		errno != ENOENT)
		res = -errno;
	return res < 0 ? failed(r, task, -res, err) : 0;
}

int rundir_list(struct rundir *r, char ***names, size_t *n, struct sw_err *err)
{
	int fd = openat(r->tasks, ".", DIR_FLAGS);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;
	char **v = NULL;
	size_t k = 0;

	if (!d) {
		int code = errno;

		if (fd >= 0)
			close(fd);
		return failed(r, "tasks", code, err);
	}
	while ((e = readdir(d)) && k < NAMES_MAX) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		v = xrealloc(v, k + 1, sizeof(*v));
		v[k++] = xstrdup(e->d_name);
	}
	closedir(d);
	*names = v;
	*n = k;
	return 0;
}

/* ---- write */

/* Under a name of its own until it is complete. */
static int write_file(int dir, size_t i, const struct rundir_owner *o, const struct rundir_file *f)
{
	char name[24], tmp[25];
	sw_auto_close int fd = -1;
	int res;

	snprintf(name, sizeof(name), "%zu", i);
	snprintf(tmp, sizeof(tmp), ".%zu", i);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if ((res = sw_write_all(fd, f->data, f->len)) < 0)
		return res;
	if (o->selinux &&
		fsetxattr(fd, "security.selinux", SELINUX_CTX, sizeof(SELINUX_CTX), 0) < 0)
		return -errno;
	/* the mode first, while it is ours: afterwards that would take another capability */
	if (fchmod(fd, f->mode & 0777) < 0 ||
		fchown(fd, (uid_t)(o->uid + f->uid), (gid_t)(o->gid + f->gid)) < 0 ||
		renameat2(dir, tmp, dir, name, RENAME_NOREPLACE) < 0)
		return -errno;
	return 0;
}

static int open_folder(struct rundir *r, const char *task, const struct rundir_owner *o, int *ret)
{
	sw_auto_close int fd = -1;
	struct stat st;
	mode_t mode = o->gid ? 0710 : 0700;

	if (mkdirat(r->tasks, task, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(r->tasks, task, DIR_FLAGS);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() || !in_memory(fd))
		return -EPERM;
	if (o->gid && fchown(fd, (uid_t)-1, (gid_t)o->gid) < 0)
		return -errno;
	if (o->selinux &&
		fsetxattr(fd, "security.selinux", SELINUX_CTX, sizeof(SELINUX_CTX), 0) < 0)
		return -errno;
	if (fchmod(fd, mode) < 0)
		return -errno;
	*ret = take_fd(&fd);
	return 0;
}

int rundir_write(struct rundir *r, const char *task, const struct rundir_owner *o,
	const struct rundir_file *f, size_t n, struct sw_err *err)
{
	sw_auto_close int fd = -1;
	int res;

	if (!api_id_valid(task))
		return sw_err_set(err, SW_REJECTED, -EINVAL, "\"%s\" is no task id", task);
	for (size_t i = 0; i < n; i++) {
		uint32_t sum;

		if (__builtin_add_overflow(o->uid, f[i].uid, &sum) || sum > INT_MAX ||
			__builtin_add_overflow(o->gid, f[i].gid, &sum) || sum > INT_MAX)
			return sw_err_set(err, SW_REJECTED, -ERANGE,
				"owner %u:%u is outside of the engine's user namespace", f[i].uid,
				f[i].gid);
	}
	if ((res = rundir_drop(r, task, false, err)) < 0)
		return res;
	res = open_folder(r, task, o, &fd);
	for (size_t i = 0; i < n && res == 0; i++)
		res = write_file(fd, i, o, &f[i]);
	if (res == 0)
		return 0;
	rundir_drop(r, task, true, NULL);
	if (res == -EPERM)
		return sw_err_set(err, SW_REJECTED, res,
			"run directory %s: files cannot be given to their owners; the agent needs "
			"CAP_CHOWN",
			r->path);
	return failed(r, "write", -res, err);
}

bool rundir_has(struct rundir *r, const char *task, size_t n)
{
	sw_auto_close int fd = api_id_valid(task) ? openat(r->tasks, task, DIR_FLAGS) : -1;
	char name[24];
	struct stat st;

	for (size_t i = 0; fd >= 0 && i < n; i++) {
		snprintf(name, sizeof(name), "%zu", i);
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			return false;
	}
	return fd >= 0;
}
