/* do.h - what to do next for a task, and what it becomes afterwards (swarmkit agent/exec). Pure. */
#pragma once
#include <stdbool.h>
#include <swarm/err.h>

enum do_action {
	DO_NOOP,
	/* one step without the controller */
	DO_ACCEPTED,
	DO_PREPARING,
	DO_STARTING,
	/* one controller operation */
	DO_PREPARE,
	DO_START,
	DO_WAIT,
	DO_SHUTDOWN,
};
/* @state and @desired are Pb__TaskState numbers. */
enum do_action do_next(int state, int desired);
const char *do_name(enum do_action a);
static inline bool do_is_operation(enum do_action a)
{
	return a >= DO_PREPARE;
}

struct do_result {
	int state;
	const char *message; /* borrowed; NULL: as it was */
	enum { DO_ERR_KEEP, DO_ERR_CLEAR, DO_ERR_SET } err;
	bool retry; /* the same action again, later */
};
/* What @action ending with class @cls (SW_OK for those without the controller) makes of @state. */
struct do_result do_outcome(enum do_action action, int state, enum sw_errclass cls);
/* Making the controller worked or not. */
struct do_result do_resolved(int state, bool ok);
