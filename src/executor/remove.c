/* remove.c - the ways to end a container: shutdown, terminate, remove.
 *
 * All of them work for tasks that were never prepared, and leave a container alone that has the
 * task's name but is not the task's. A stop outlives the operation that asked for it: cancelled,
 * the operation ends, the grace period goes on, and the next shutdown or remove joins it.
 *
 * Failures: a stop that fails is temporary (a task must not be called dead while its process
 * lives), five answers of the engine later final; nothing about a removal is final. */
#include "ctl.h"
#include "files.h"
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define STOP_FAILURES_MAX 5

/* ---- stop */

static bool is_remove(const struct ctl *c)
{
	return sw_streq(c->op.op, "remove");
}

static void on_stopped(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;
	bool awaited = c->stop_awaited;
	struct sw_err e = SW_ERR_NONE;

	c->stop_call = NULL;
	c->stop_awaited = false;
	sw_err_copy(&e, err);
	if (fault_http(&e, 404))
		e = SW_ERR_NONE;
	if (e.cls) {
		log_warning("container not stopped", KS("task", c->task_id), KERR(&e));
		fault_classify(&e, FAULT_STOP);
		if (e.domain == SW_E_HTTP && ++c->stop_failures >= STOP_FAILURES_MAX)
			e.cls = SW_FATAL;
		observe_later(c); /* whoever observes an unhealthy one stops it again */
	} else {
		c->stop_failures = 0;
		observe_poke(c);
	}
	if (!awaited)
		return;
	if (is_remove(c)) /* the removal itself kills what is left */
		steps_done(&c->op, NULL);
	else
		steps_done(&c->op, &e);
}

void ctl_stop(struct ctl *c)
{
	int64_t grace = spec_grace_s(c->task->pb);

	if (!c->stop_call)
		c->stop_call =
			engine_container_stop(c->d->engine, ctl_ref(c), grace, on_stopped, c);
}

static void start_stop(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->stop_awaited = true;
	ctl_stop(c);
}

static void cancel_stop(struct steps *s)
{
	((struct ctl *)steps_arg(s))->stop_awaited = false;
}

/* ---- look: is there anything of ours, and does it run? */

enum { LOOK, STOP, VERIFY };
enum { T_LOOK, T_KILL, T_VERIFY };
enum { R_LOOK, R_STOP, R_REMOVE, R_GONE, R_FILES, R_NET_TURN, R_NETWORKS };

static void on_look(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	if (!k && !fault_http(err, 404)) {
		ctl_fail(c, err, is_remove(c) ? FAULT_REMOVE : FAULT_READ);
		return;
	}
	if (k && !ctl_is_ours(c, k))
		k = NULL;
	ctl_see(c, k);
	if (!k)
		steps_jump(&c->op, is_remove(c) ? R_FILES : STEP_END);
	else if (k->running || k->paused || sw_streq(k->status, "restarting"))
		steps_done(&c->op, NULL);
	else
		steps_jump(&c->op, is_remove(c) ? R_REMOVE : STEP_END);
}

static void start_look(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	image_drop(&c->image);
	c->fresh = false;
	c->call = engine_container_inspect(c->d->engine, ctl_ref(c), on_look, c);
}

/* ---- verify: the exit code, and that nothing lives */

static void on_verified(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct ctl *c = arg;
	struct sw_err e;

	c->call = NULL;
	if (!k && !fault_http(err, 404)) {
		ctl_fail(c, err, FAULT_READ);
		return;
	}
	ctl_see(c, k);
	if (k && k->running) {
		sw_err_set(&e, SW_TEMPORARY, -EAGAIN, "container %.12s still runs", k->id);
		steps_done(&c->op, &e);
		return;
	}
	steps_done(&c->op, NULL);
}

static void start_verify(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->call = engine_container_inspect(c->d->engine, ctl_ref(c), on_verified, c);
}

/* clang-format off */
static const struct step shutdown_steps[] = {
	/*             name       start         next      on error  cancel */
	[LOOK]     = { "look",    start_look,   STOP,     STEP_END, ctl_cancel_call },
	[STOP]     = { "stop",    start_stop,   VERIFY,   STEP_END, cancel_stop },
	[VERIFY]   = { "verify",  start_verify, STEP_END, STEP_END, ctl_cancel_call },
};
/* clang-format on */

void ctl_shutdown(struct controller *base, controller_cb *cb, void *arg)
{
	ctl_run(ctl_of(base), "shutdown", shutdown_steps, cb, arg);
}

/* ---- terminate */

static void on_killed(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	/* not running or not there: what was wanted. podman's word for it is "improper" */
	if (fault_http(err, 404) || fault_http(err, 409) || fault_text(err, "state improper"))
		err = NULL;
	ctl_fail(c, err, FAULT_STOP);
}

static void start_kill(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->call = engine_container_kill(c->d->engine, ctl_ref(c), "SIGKILL", on_killed, c);
}

static void start_ended(struct steps *s)
{
	observe_begin(steps_arg(s), OBSERVE_ENDED);
}

/* clang-format off */
static const struct step terminate_steps[] = {
	/*             name       start         next      on error  cancel */
	[T_LOOK]   = { "look",    start_look,   T_KILL,   STEP_END, ctl_cancel_call },
	[T_KILL]   = { "kill",    start_kill,   T_VERIFY, STEP_END, ctl_cancel_call },
	[T_VERIFY] = { "ended",   start_ended,  STEP_END, STEP_END, ctl_cancel_observe },
};
/* clang-format on */

void ctl_terminate(struct controller *base, controller_cb *cb, void *arg)
{
	ctl_run(ctl_of(base), "terminate", terminate_steps, cb, arg);
}

/* ---- remove */

static void on_removed(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	if (err && err->cls && !fault_http(err, 404)) {
		if (fault_http(err, 409) && fault_text(err, "already in progress"))
			steps_jump(&c->op, R_GONE);
		else
			ctl_fail(c, err, FAULT_REMOVE);
		return;
	}
	log_info("container removed", KS("task", c->task_id), KS("container", ctl_ref(c)));
	ctl_see(c, NULL);
	steps_jump(&c->op, R_FILES);
}

static void start_remove(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->call = engine_container_remove(c->d->engine, ctl_ref(c), true, on_removed, c);
}

static void start_gone(struct steps *s)
{
	observe_begin(steps_arg(s), OBSERVE_GONE);
}

/* ---- files: its secrets and configs */

static void on_files(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;
	struct sw_err e = SW_ERR_NONE;

	c->files = NULL;
	sw_err_copy(&e, err);
	fault_classify(&e, FAULT_REMOVE);
	steps_done(&c->op, &e);
}

static void start_files(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	if (files_wanted(spec_container(c->task->pb)))
		c->files = secrets_remove(&c->d->secrets, c->task_id, on_files, c);
	else
		steps_done(s, NULL);
}

/* clang-format off */
static const struct step remove_steps[] = {
	/*               name            start                next        on error  cancel */
	[R_LOOK]     = { "look",         start_look,          R_STOP,     STEP_END, ctl_cancel_call },
	[R_STOP]     = { "stop",         start_stop,          R_REMOVE,   STEP_END, cancel_stop },
	[R_REMOVE]   = { "remove",       start_remove,        R_FILES,    STEP_END, NULL },
	[R_GONE]     = { "gone",         start_gone,          R_FILES,    STEP_END, ctl_cancel_observe },
	[R_FILES]    = { "files",        start_files,         R_NET_TURN, STEP_END, ctl_cancel_files },
	[R_NET_TURN] = { "network turn", ctl_start_net_turn,  R_NETWORKS, STEP_END, ctl_cancel_net_turn },
	[R_NETWORKS] = { "networks",     ctl_remove_networks, STEP_END,   STEP_END, NULL },
};
/* clang-format on */

void ctl_remove(struct controller *base, controller_cb *cb, void *arg)
{
	ctl_run(ctl_of(base), "remove", remove_steps, cb, arg);
}
