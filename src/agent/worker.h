/* worker.h - the tasks of this node: assignments applied to them (worker.c), and the life of each
 * (task.c). Internal to the room. Loop thread. */
#pragma once
#include "deps.h"
#include "do.h"
#include "journal.h"
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/controller.h>
#include <swarm/executor.h>
#include <swarm/loop.h>
#include <uthash.h>

struct store;
struct store_batch;
struct worker;
struct task;

struct worker_events {
	/* A status of a live task is durable: report it. */
	void (*durable)(void *arg, struct task *t, struct status *s);
	/* The task is no longer the manager's: nothing of it is reported any more. */
	void (*dropped)(void *arg, struct task *t);
	/* The task has a controller (followers of its logs want to know) / is about to lose it. */
	void (*opened)(void *arg, struct task *t);
	void (*closing)(void *arg, struct task *t);
	/* A message is durable and applied. @token as given to worker_apply(). */
	void (*applied)(void *arg, uint64_t token, bool complete);
	/* A task went, or an operation ended, or the journal emptied: who waits for quiet looks. */
	void (*progress)(void *arg);
	/* A task went without a controller that could remove its container. */
	void (*leftover)(void *arg);
};

struct worker_config {
	struct sw_loop *loop;
	struct store *store;
	struct executor *executor;
	const char *node_id; /* copied */
};
struct worker *worker_new(
	const struct worker_config *cfg, const struct worker_events *ev, void *arg);
/* Loads and resumes what is stored. Blocks. */
int worker_load(struct worker *w, struct sw_err *err);
/* Takes @m; messages are applied one after the other. @token 0: no applied() wanted. */
void worker_apply(struct worker *w, Pb__AssignmentsMessage *m, uint64_t token);
/* As a COMPLETE without tasks. */
void worker_drop_all(struct worker *w);
/* No new work from here on: waits, starts and preparations are cancelled. */
void worker_stop(struct worker *w);
/* Cancels the stops and removals too. */
void worker_hurry(struct worker *w);
bool worker_quiet(const struct worker *w);   /* no operation is running */
bool worker_durable(const struct worker *w); /* nothing waits for the disk */
bool worker_trouble(const struct worker *w);
/* The engine is back: nobody sits out the delay of a failure before. */
void worker_retry(struct worker *w);
void worker_free(struct worker *w); /* quiet */

struct task *worker_find(const struct worker *w, const char *task_id);
/* Calls @cb for every task that has not been dropped. */
void worker_each(struct worker *w, void (*cb)(void *arg, struct task *t), void *arg);
struct worker_stats {
	size_t tasks, running, removing;
};
void worker_stats(const struct worker *w, struct worker_stats *ret);
struct journal *worker_journal(struct worker *w);

/* ---- for task.c */

struct task {
	UT_hash_handle hh;
	struct task *prev, *next; /* in the start queue */
	struct worker *w;
	char *id;
	struct api_task *pb;    /* as accepted last, never expanded */
	struct status *st;      /* newest */
	struct status *durable; /* newest on disk, NULL: none yet */
	struct controller *ctl; /* NULL: not resolved (yet) */
	struct journal_slot slot;
	Pb__Task *again;       /* assigned again while it is being removed */
	char *container_id;    /* found so far */
	struct sw_timer timer; /* retry */
	uint64_t retry_ns;     /* last delay, 0: none since progress */
	uint64_t since_ns;     /* taken on, for took_ms */
	char *note;            /* what the preparation is busy with, not yet in a status */
	uint64_t note_at_ns;   /* not before */
	struct sw_timer noting;
	enum do_action op; /* running, if busy and not removing_op */
	bool busy, cancelled, removing_op;
	bool queued;  /* in the start queue */
	bool updated; /* the controller has not seen @pb */
	bool gated;   /* resumed; needs secrets or configs that come with the first COMPLETE */
	bool removing, gone; /* dropped; its container is confirmed away */
	bool stopping;
};

/* Adopts references to @pb and @st; the caller puts it into the table. */
struct task *task_new(struct worker *w, struct api_task *pb, struct status *st, bool durable);
/* Makes the controller if there is none, then works. */
void task_start(struct task *t);
/* Takes a reference: an update that is accepted and durable. */
void task_update(struct task *t, struct api_task *pb);
void task_open_gate(struct task *t);
/* The removing mark is durable: the container goes, then the row. */
void task_remove(struct task *t);
/* A reason to hope: what waits for its next try has it within @within_ns. */
void task_retry_soon(struct task *t, uint64_t within_ns);
void task_stop(struct task *t);
void task_hurry(struct task *t);
void task_durable(struct task *t, struct status *s);
bool task_needs_deps(const struct api_task *pb);
void task_free(struct task *t);
static inline int task_state(const struct task *t)
{
	return t->st->pb->state;
}

const struct worker_events *worker_ev(const struct worker *w, void **arg);
struct executor *worker_executor(const struct worker *w);
struct sw_loop *worker_loop(const struct worker *w);
