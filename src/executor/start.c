/* start.c - started, and healthy where there is a health check.
 *
 * What was ever started is not started again: found running, it counts as started (its health gate
 * goes on if it was still open), found ended, too: wait tells how. A refused start is final and its
 * exit code (126, 127, 128) is read from the container; an engine that went away during the start
 * is temporary, and the next start sees what became of it. A start under way is not interrupted,
 * waiting for health is. */
#include "causes.h"
#include "ctl.h"
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

enum { LOOK, FILES, SLOT, START, WATCH, DIAGNOSE };

static void on_look(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct ctl *c = arg;
	struct sw_err e;

	c->call = NULL;
	if (!k) {
		if (fault_http(err, 404))
			ctl_see(c, NULL);
		ctl_fail(c, err, FAULT_READ);
		return;
	}
	if (!ctl_is_ours(c, k)) {
		ctl_see(c, NULL);
		sw_err_set(&e, SW_FATAL, -ENOENT, "No such container: %s", c->name);
		steps_done(&c->op, &e);
		return;
	}
	ctl_see(c, k);
	if (sw_streq(k->status, "created")) {
		steps_jump(&c->op, FILES);
		return;
	}
	c->already = true;
	steps_jump(&c->op, k->running && k->has_healthcheck && sw_streq(k->health, "starting")
				   ? WATCH
				   : STEP_END);
}

static void start_look(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	if (c->fresh) { /* made a moment ago by prepare: no need to ask */
		steps_jump(s, FILES);
		return;
	}
	c->call = engine_container_inspect(c->d->engine, ctl_ref(c), on_look, c);
}

static void start_refused(struct ctl *c, const struct sw_err *err)
{
	struct sw_err e = *err;

	if (e.domain == SW_E_HTTP && !(fault_http(&e, 404) && fault_text(&e, "No such container")))
		sw_err_wrap(&e, "starting container failed");
	ctl_fail(c, &e, FAULT_START);
}

static void on_started(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	gate_leave(&c->slot);
	if (!err || !err->cls || (fault_http(err, 409) && fault_text(err, "paused"))) {
		log_info("container started", KS("task", c->task_id), KS("container", c->id));
		steps_done(&c->op, NULL);
		return;
	}
	c->start_failed = true;
	if (!causes_port(c, err, start_refused))
		start_refused(c, err);
}

static void start_start(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->fresh = false;
	c->call = engine_container_start(c->d->engine, ctl_ref(c), on_started, c);
}

static void start_watch(struct steps *s)
{
	observe_begin(steps_arg(s), OBSERVE_STARTED);
}

/* ---- diagnose: a refused start leaves its exit code in the container */

static void on_diagnosed(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	if (k)
		ctl_see(c, k);
	else if (fault_http(err, 404))
		ctl_see(c, NULL);
	steps_done(&c->op, NULL);
}

static void start_diagnose(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	if (!c->start_failed) {
		steps_done(s, NULL);
		return;
	}
	c->call = engine_container_inspect(c->d->engine, ctl_ref(c), on_diagnosed, c);
}

/* clang-format off */
static const struct step start[] = {
	/*             name         start           next      on error  cancel */
	[LOOK]     = { "look",      start_look,     FILES,    STEP_END, ctl_cancel_call },
	[FILES]    = { "files",     ctl_start_files, SLOT,    STEP_END, ctl_cancel_files },
	[SLOT]     = { "slot",      ctl_start_slot,     START,    STEP_END, ctl_cancel_slot },
	[START]    = { "start",     start_start,    WATCH,    DIAGNOSE, NULL },
	[WATCH]    = { "watch",     start_watch,    STEP_END, STEP_END, ctl_cancel_observe },
	[DIAGNOSE] = { "diagnose",  start_diagnose, STEP_END, STEP_END, NULL },
};
/* clang-format on */

void ctl_start(struct controller *base, controller_cb *cb, void *arg)
{
	ctl_run(ctl_of(base), "start", start, cb, arg);
}
