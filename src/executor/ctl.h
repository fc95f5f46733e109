/* ctl.h - one task's controller, shared by the files that hold its operations. */
#pragma once
#include "docker.h"
#include "fault.h"
#include "localnet.h"
#include <swarm/backoff.h>
#include <swarm/controller.h>
#include <swarm/steps.h>
#include <sys/queue.h>

enum observe_goal {
	OBSERVE_NONE,
	OBSERVE_STARTED, /* running, healthy where there is a health check, or ended well */
	OBSERVE_EXIT,    /* the exit is the operation's result */
	OBSERVE_ENDED,   /* over in whatever way */
	OBSERVE_GONE,    /* removed */
};

struct ctl {
	struct controller base; /* first */
	struct docker *d;
	struct api_task *task;
	char *task_id, *name;
	struct watcher watcher;
	TAILQ_HEAD(, controller_logs) logs;

	/* the container, as it was last seen */
	char *id; /* NULL: not known, or there is none */
	int64_t pid;
	struct engine_port *ports;
	size_t n_ports;
	char *probe; /* what the health check said when it failed; NULL: not known */
	int exit_code, died_code;
	bool has_exit;
	bool died; /* by an event; inspect may lag behind it */
	bool oom, unhealthy;
	bool fresh; /* created by us, nobody has tried to start it */

	/* the operation that runs */
	struct steps op;
	const struct step *table;
	controller_cb *cb;
	void *cb_arg;
	struct engine_call *call; /* of the step that runs */
	struct gate_ticket slot;
	size_t at;      /* volumes, networks: which one is next */
	unsigned tries; /* creates */
	bool already;
	bool pulled_again;
	bool start_failed;
	bool no_space; /* one retry after a full disk */
	bool files_dropped;
	struct { /* causes.c */
		struct sw_err err;
		void (*cb)(struct ctl *c, const struct sw_err *err);
	} blame;

	struct localnet **nets; /* node-local networks, NULL for others, in the task's order */
	size_t n_nets;
	struct gate_ticket net_turn;

	struct image_want image;
	struct secrets_job *files; /* of the step that runs */
	/* Stopping outlives the operation that asked for it: nobody takes a signal back. */
	struct engine_call *stop_call;
	unsigned stop_failures;
	bool stop_awaited; /* by the step that runs */

	struct { /* wait.c */
		enum observe_goal goal;
		struct engine_call *call;
		bool again, first;
		unsigned stale; /* looks that still said "running" after the die event */
		uint64_t since_ns;
		struct sw_backoff backoff;
		struct sw_timer timer;
	} observe;
};

static inline struct ctl *ctl_of(struct controller *c)
{
	return (struct ctl *)(void *)c;
}

/* ---- controller.c */
void ctl_run(struct ctl *c, const char *op, const struct step *table, controller_cb *cb, void *arg);
/* Ends the step with @err, classified for @step; NULL is fine. */
void ctl_fail(struct ctl *c, const struct sw_err *err, enum fault_step step);
void ctl_cancel_call(struct steps *s);
/* Steps: a place among the creates and starts that the node runs at once. */
void ctl_start_slot(struct steps *s);
void ctl_cancel_slot(struct steps *s);
/* What to ask the engine for: the id once it is known, the name before. */
const char *ctl_ref(const struct ctl *c);
bool ctl_is_ours(const struct ctl *c, const struct engine_container *k);
/* Takes down what @k tells; NULL: there is no container. */
void ctl_see(struct ctl *c, const struct engine_container *k);
/* Tells the event stream whether anybody waits here. */
void ctl_watching(struct ctl *c);
/* It has run and is over. */
bool ctl_ended(const struct engine_container *k);

/* files of secrets and configs: step functions, prepare.c */
void ctl_start_files(struct steps *s);
void ctl_cancel_files(struct steps *s);

/* ---- prepare.c, start.c, wait.c, remove.c: the operations */
void ctl_prepare(struct controller *c, controller_cb *cb, void *arg);
void ctl_start(struct controller *c, controller_cb *cb, void *arg);
void ctl_wait(struct controller *c, controller_cb *cb, void *arg);
void ctl_shutdown(struct controller *c, controller_cb *cb, void *arg);
void ctl_terminate(struct controller *c, controller_cb *cb, void *arg);
void ctl_remove(struct controller *c, controller_cb *cb, void *arg);

/* remove.c: stops with the task's grace period unless that runs already */
void ctl_stop(struct ctl *c);

/* ---- wait.c */
void observe_init(struct ctl *c);
/* Ends the step that runs when @goal is reached. */
void observe_begin(struct ctl *c, enum observe_goal goal);
void observe_end(struct ctl *c);
void ctl_cancel_observe(struct steps *s);
/* Look again in a while. */
void observe_later(struct ctl *c);
/* Something happened: look again. */
void observe_poke(struct ctl *c);
void observe_event(struct ctl *c, const struct engine_event *ev);

/* ---- tasklogs.c */
struct controller_logs *ctl_logs(struct controller *c, const Pb__LogSubscriptionOptions *opt,
	bool (*msg)(void *arg, Pb__LogMessage *m), void (*end)(void *arg, const struct sw_err *err),
	void *arg);
void ctl_logs_resume(struct controller_logs *l);
void ctl_logs_cancel(struct controller_logs *l);
bool ctl_logs_waiting(const struct ctl *c);
/* An event of the container, or a moment when one may have been missed. */
void ctl_logs_poke(struct ctl *c);
/* The controller goes: streams end with an error, later, from the loop. */
void ctl_logs_orphan(struct ctl *c);
