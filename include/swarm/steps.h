/* steps.h - operations of many asynchronous steps, readable as a table. Loop thread.
 *
 * A step's start function starts one thing; when that ends it calls steps_done(). The machine
 * follows `next` on success and `on_error` otherwise, keeps the first error through the steps
 * that undo, and ends once, always from the loop, never inside the call that caused it. */
#pragma once
#include <swarm/err.h>
#include <swarm/loop.h>

#define STEP_END (-1)

struct steps;

struct step {
	const char *name;
	void (*start)(struct steps *s);
	int next;
	int on_error;
	/* Stops what start() began, silently (no steps_done() afterwards). NULL: the step cannot
	 * be interrupted; cancel and deadline take effect when it ends. */
	void (*cancel)(struct steps *s);
};

/* @err: NULL on success, the first error otherwise (SW_CANCELLED after steps_cancel(), a
 * temporary -ETIMEDOUT after the deadline). Valid during the call. */
typedef void steps_end_cb(void *arg, const struct sw_err *err);

struct steps { /* embedded by the operation; private to steps.c */
	struct sw_loop *loop;
	const char *op; /* "prepare" */
	const char *id; /* what it works on, for the log; borrowed */
	const struct step *table;
	void *arg;
	steps_end_cb *end;
	struct sw_timer defer, deadline;
	struct sw_err err, step_err;
	int at;
	bool running, in_step, cancelled, timed_out, have_result;
	uint64_t started_ns;
};

/* @op and @id are borrowed and must outlive the run. */
void steps_init(struct steps *s, struct sw_loop *l, const char *op, const char *id,
	const struct step *table, void *arg);
/* Starts with step @first, on the loop's next round. @limit_ns 0: no deadline. */
void steps_run(struct steps *s, int first, uint64_t limit_ns, steps_end_cb *end);
/* The step that runs has ended; NULL: well. */
void steps_done(struct steps *s, const struct sw_err *err);
/* As steps_done(NULL), but goes to step @next (or STEP_END) instead of the table's. */
void steps_jump(struct steps *s, int next);
/* Asks the running operation to stop: its end callback comes, with SW_CANCELLED, after undo
 * steps have run. What had happened before keeps its result: an earlier error stays the first one,
 * undo steps (reached by on_error) are not cancelled, and an operation whose last step went well
 * is a success. Nothing if not running. */
void steps_cancel(struct steps *s);
/* Drops everything without a callback: only for the end of the owner. Calls the step's cancel. */
void steps_kill(struct steps *s);
static inline void *steps_arg(struct steps *s)
{
	return s->arg;
}
static inline bool steps_running(const struct steps *s)
{
	return s->running;
}
