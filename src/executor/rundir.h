/* rundir.h - folders for the files of tasks in memory: RUNDIR/tasks/TASKID/0, 1, 2 ... on a tmpfs.
 *
 * Blocking: for the thread pool, one call at a time. Whoever holds a struct rundir that is open has
 * the folder for himself (a lock that ends with the process). Files are complete or not there, and
 * are never changed: a bind mount holds on to the file it was made of. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sw_err;
struct rundir;

struct rundir_file {
	uint32_t uid, gid, mode; /* of the container */
	const void *data;
	size_t len;
};
/* What the engine needs to read them. */
struct rundir_owner {
	uint32_t uid, gid; /* of the containers' root on this host; 0 without user namespaces */
	bool selinux;
};

/* Copies @path. @mount NULL: mount(2) (tests give another one). Does nothing yet. */
struct rundir *rundir_new(const char *path, int (*mount)(const char *path, const char *options));
void rundir_free(struct rundir *r); /* what was written stays */

/* Makes the folder and, where it lies on a disk, mounts a tmpfs on it. Every call checks all of
 * that again: somebody may have emptied or unmounted it. SW_REJECTED with what to do about it, or
 * SW_TEMPORARY. */
int rundir_open(struct rundir *r, struct sw_err *err);

/* These work on an open one. @task: as api_id_valid(). */
/* All files of @task anew, those of an earlier call are gone. On failure nothing is left. */
int rundir_write(struct rundir *r, const char *task, const struct rundir_owner *o,
	const struct rundir_file *f, size_t n, struct sw_err *err);
/* Whether files 0 to n-1 are there. */
bool rundir_has(struct rundir *r, const char *task, size_t n);
/* Removes the files, and the folder too if @folder. What is not there is fine. */
int rundir_drop(struct rundir *r, const char *task, bool folder, struct sw_err *err);
/* Names in tasks/, malloc'd, also of what is no folder. */
int rundir_list(struct rundir *r, char ***names, size_t *n, struct sw_err *err);
