/* controller.h - what stands behind one task. Loop thread. Executors implement it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/err.h>

struct controller;
struct controller_log_options;

/* What an operation found out about the container, valid during the callback. Filled by every
 * operation as far as it is known, on success and failure. */
struct controller_result {
	/* SW_OK: done. SW_TEMPORARY: try again later, state unchanged. SW_CANCELLED:
	 * controller_cancel() took effect. SW_REJECTED, SW_FATAL: final for this task. */
	struct sw_err err;
	bool already;  /* prepare: was prepared before; start: was started before */
	bool has_exit; /* @exit_code is the end of the container (0 included) */
	int exit_code;
	const char *container_id; /* full id; NULL: there is no container */
	int64_t pid;              /* 0: not running */
	Pb__PortConfig **ports;   /* host-mode ports really bound */
	size_t n_ports;
};
typedef void controller_cb(void *arg, const struct controller_result *r);

/* One operation (prepare start wait shutdown terminate remove) at a time per controller; its
 * callback comes exactly once, from the loop. All can be repeated: a restarted agent finds what is
 * there by the task's name and label. */
struct controller_ops {
	/* Metadata changed (desired state, labels). 0, or SW_REJECTED for what cannot change. Sync.
	 */
	int (*update)(struct controller *c, struct api_task *t, struct sw_err *err);
	/* Everything so that start is immediate: networks, volumes, image, container. */
	void (*prepare)(struct controller *c, controller_cb *cb, void *arg);
	/* Until started, and healthy where there is a health check. */
	void (*start)(struct controller *c, controller_cb *cb, void *arg);
	/* Until the container has exited: exit code 0 is SW_OK, another one SW_FATAL with has_exit.
	 */
	void (*wait)(struct controller *c, controller_cb *cb, void *arg);
	/* Stops within the grace period; absent or stopped is fine. */
	void (*shutdown)(struct controller *c, controller_cb *cb, void *arg);
	void (*terminate)(struct controller *c, controller_cb *cb, void *arg);
	/* Container and all that the task owns are gone afterwards. */
	void (*remove)(struct controller *c, controller_cb *cb, void *arg);
	/* The running operation ends soon, its callback says SW_CANCELLED (or what it had become
	 * before). A pull goes on in the background and is joined by the next prepare. */
	void (*cancel)(struct controller *c);
	/* Log lines, independent of the other operations. @msg borrows the message and returns
	 * false to pause until logs_resume() (the message counts as delivered). @end once unless
	 * logs_cancel(), also when the controller is closed first. NULL: no logs. */
	struct controller_logs *(*logs)(struct controller *c, const Pb__LogSubscriptionOptions *opt,
		bool (*msg)(void *arg, Pb__LogMessage *m),
		void (*end)(void *arg, const struct sw_err *err), void *arg);
	void (*logs_resume)(struct controller_logs *l);
	void (*logs_cancel)(struct controller_logs *l);
	/* Frees. No operation may be running (cancel and await it first); silence afterwards. */
	void (*close)(struct controller *c);
};
/* Embedded first in an implementation's struct. */
struct controller {
	const struct controller_ops *ops;
	/* Set by the agent after the controller was made, may be NULL: what the operation that runs
	 * is busy with, a line for people ("pulling nginx:1.27: downloading 3/5 layers"). As often
	 * as it changes; from the loop, only while an operation runs and has not been cancelled. It
	 * does not call the controller. */
	void (*progress)(void *arg, const char *text);
	void *progress_arg;
};
