/* The decision tables of exec.Do and exec.Resolve (swarmkit agent/exec/controller.go). */
#include "do.h"
#include <swarm/api.h>

enum do_action do_next(int state, int desired)
{
	if (desired >= PB__TASK_STATE__SHUTDOWN)
		return state >= PB__TASK_STATE__COMPLETE ? DO_NOOP : DO_SHUTDOWN;
	if (state > desired)
		return DO_NOOP;
	/* these finish what is begun, so they come before "as far as desired" and may overshoot */
	switch (state) {
	case PB__TASK_STATE__PREPARING:
		return DO_PREPARE;
	case PB__TASK_STATE__STARTING:
		return DO_START;
	case PB__TASK_STATE__RUNNING:
		return DO_WAIT;
	default:
		break;
	}
	if (state == desired)
		return DO_NOOP;
	switch (state) {
	case PB__TASK_STATE__NEW:
	case PB__TASK_STATE__PENDING:
	case PB__TASK_STATE__ASSIGNED:
		return DO_ACCEPTED;
	case PB__TASK_STATE__ACCEPTED:
		return DO_PREPARING;
	case PB__TASK_STATE__READY:
		return DO_STARTING;
	default:
		return DO_NOOP;
	}
}

/* clang-format off */
static const struct {
	const char *name;
	int state;
	const char *message;
} on_success[] = {
	/*                 name         becomes                     message     */
	[DO_NOOP]      = { "noop",      -1,                         NULL        },
	[DO_ACCEPTED]  = { "accepted",  PB__TASK_STATE__ACCEPTED,   "accepted"  },
	[DO_PREPARING] = { "preparing", PB__TASK_STATE__PREPARING,  "preparing" },
	[DO_STARTING]  = { "starting",  PB__TASK_STATE__STARTING,   "starting"  },
	[DO_PREPARE]   = { "prepare",   PB__TASK_STATE__READY,      "prepared"  },
	[DO_START]     = { "start",     PB__TASK_STATE__RUNNING,    "started"   },
	[DO_WAIT]      = { "wait",      PB__TASK_STATE__COMPLETE,   "finished"  },
	[DO_SHUTDOWN]  = { "shutdown",  PB__TASK_STATE__SHUTDOWN,   "shutdown"  },
};
/* clang-format on */

const char *do_name(enum do_action a)
{
	return on_success[a].name;
}

struct do_result do_outcome(enum do_action action, int state, enum sw_errclass cls)
{
	struct do_result r = {.state = state, .err = DO_ERR_KEEP};

	if (action == DO_NOOP)
		return r;
	switch (cls) {
	case SW_OK:
		r.state = on_success[action].state;
		r.message = on_success[action].message;
		r.err = DO_ERR_CLEAR;
		break;
	case SW_CANCELLED:
		r.retry = true;
		break;
	case SW_TEMPORARY:
		r.retry = true;
		r.err = DO_ERR_SET;
		break;
	case SW_REJECTED:
	case SW_FATAL:
		r.state = state < PB__TASK_STATE__STARTING ? PB__TASK_STATE__REJECTED
							   : PB__TASK_STATE__FAILED;
		r.err = DO_ERR_SET;
		break;
	}
	return r;
}

struct do_result do_resolved(int state, bool ok)
{
	struct do_result r = {.state = state, .err = DO_ERR_KEEP};

	if (ok) {
		if (state < PB__TASK_STATE__ACCEPTED) {
			r.state = PB__TASK_STATE__ACCEPTED;
			r.message = "accepted";
			r.err = DO_ERR_CLEAR;
		}
		return r;
	}
	r.message = "resolving controller failed";
	r.err = DO_ERR_SET;
	if (state < PB__TASK_STATE__STARTING)
		r.state = PB__TASK_STATE__REJECTED;
	else if (state <= PB__TASK_STATE__RUNNING)
		r.state = PB__TASK_STATE__FAILED;
	return r;
}
