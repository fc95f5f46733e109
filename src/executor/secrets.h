/* secrets.h - puts the secrets and configs of tasks where their containers find them: in files of
 * the run directory, made before the container, gone with it. Loop thread; the files themselves
 * are the pool's business (rundir.h), one job at a time. */
#pragma once
#include "rundir.h"
#include <stdbool.h>
#include <swarm/err.h>
#include <sys/queue.h>

struct docker;
struct ctl;
struct engine_info;
struct sw_loop;
struct secrets_job;

typedef void secrets_cb(void *arg, const struct sw_err *err); /* NULL: well */

struct secrets {
	struct docker *d;
	struct rundir *dir; /* NULL: none configured */
	struct rundir_owner owner;
	bool owner_known; /* the engine has told */
	bool complained;  /* about the run directory, in the log */
	TAILQ_HEAD(secrets_queue, secrets_job) queue;
	struct secrets_job *running;
};

void secrets_init(struct secrets *s, struct docker *d, const char *run_dir);
void secrets_done(struct secrets *s);
/* No job is left: the executor may go. */
bool secrets_idle(const struct secrets *s);
/* User namespaces and labels of the engine, from what it says of itself. */
void secrets_engine(struct secrets *s, const struct engine_info *info);

/* The jobs. @cb comes once, from the loop, unless secrets_forget() was called. */
/* All files of the task anew. SW_TEMPORARY while a secret or config has not arrived. */
struct secrets_job *secrets_write(struct secrets *s, struct ctl *c, secrets_cb *cb, void *arg);
/* As secrets_write(), if one of them is missing. */
struct secrets_job *secrets_ensure(struct secrets *s, struct ctl *c, secrets_cb *cb, void *arg);
/* The task is over: no container will read them again. */
void secrets_drop(struct secrets *s, const char *task_id);
/* Nothing is left of the task. @cb may be NULL. */
struct secrets_job *secrets_remove(
	struct secrets *s, const char *task_id, secrets_cb *cb, void *arg);
/* Folders of tasks that the agent does not know go. */
void secrets_sweep(struct secrets *s);
/* The job goes on, @cb will not be called. NULL is fine. */
void secrets_forget(struct secrets_job *j);
