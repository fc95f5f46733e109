/* wait.c - observing the container until what is waited for has come.
 *
 * Level-triggered: events, reconnects and the minute's list only say "look"; inspect says what is.
 * So nothing is lost with an event, and a lost connection is never an exit. The one thing an event
 * knows better is the exit code of a container that is gone, or whose state lags behind.
 *
 * An unhealthy container is stopped here, with the task's grace period, and its end carries that
 * cause. Health counts only while the container runs: the engine shows "unhealthy" for paused and
 * ended ones too. */
#include "causes.h"
#include "ctl.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define STALE_LOOKS 5
#define STALE_NS    sw_ms(100)
#define GONE_NS     sw_s(1)
#define GONE_MAX_NS sw_s(30)

static void look(struct ctl *c);

static void finish(struct ctl *c, const struct sw_err *err)
{
	observe_end(c);
	steps_done(&c->op, err);
}

/* The end of a container as the task's error; no error for a good end. */
static void finish_exit(struct ctl *c, int code, bool oom, const char *text)
{
	struct sw_err err = SW_ERR_NONE;
	sw_auto_free char *cause = causes_exit(c, code, oom, text);

	c->has_exit = true;
	c->exit_code = code;
	c->pid = 0;
	if (c->observe.goal != OBSERVE_ENDED) { /* else the end was the purpose */
		if (code)
			sw_err_set(&err, SW_FATAL, -ECHILD, "task: non-zero exit (%d)%s%s", code,
				*cause ? ": " : "", cause);
		else if (c->unhealthy)
			/* dockerd says COMPLETE here, and "on-failure" never restarts it */
			sw_err_set(&err, SW_FATAL, -ECHILD, "%s", cause);
	}
	log_info("container ended", KS("task", c->task_id), KS("container", c->id ? c->id : ""),
		KI("exit_code", code), KERR(err.cls ? &err : NULL));
	finish(c, err.cls ? &err : NULL);
}

/* ---- what an inspect means */

static void seen_running(struct ctl *c, const struct engine_container *k)
{
	bool checked = k->has_healthcheck && k->running && !k->paused;

	if (c->died) {
		/* the event is ahead of the engine's own state by some 50 ms */
		if (c->observe.stale++ < STALE_LOOKS)
			sw_timer_arm(&c->observe.timer, STALE_NS);
		else
			finish_exit(c, c->died_code, c->oom, "");
		return;
	}
	if (checked && sw_streq(k->health, "unhealthy") && !c->unhealthy) {
		log_warning("container is unhealthy, stopping it", KS("task", c->task_id),
			KS("container", k->id), KS("probe", k->health_output));
		c->unhealthy = true;
	}
	causes_see(c, k);
	if (c->unhealthy && c->observe.goal != OBSERVE_ENDED) {
		ctl_stop(c);
		return;
	}
	if (c->observe.goal == OBSERVE_STARTED && (!checked || !sw_streq(k->health, "starting")))
		finish(c, NULL);
}

static void seen_container(struct ctl *c, const struct engine_container *k)
{
	struct sw_err err;

	if (c->observe.goal == OBSERVE_GONE) {
		if (sw_now(c->d->loop) - c->observe.since_ns >= GONE_MAX_NS) {
			sw_err_set(&err, SW_TEMPORARY, -ETIMEDOUT,
				"container %.12s: its removal does not end", k->id);
			finish(c, &err);
		} else {
			sw_timer_arm(&c->observe.timer, GONE_NS);
		}
		return;
	}
	ctl_see(c, k);
	if (k->running || k->paused || sw_streq(k->status, "restarting")) {
		seen_running(c, k);
	} else if (ctl_ended(k)) {
		if (c->observe.goal == OBSERVE_STARTED && !k->has_healthcheck)
			finish(c, NULL); /* it did start; wait tells the end */
		else {
			causes_see(c, k);
			finish_exit(c, k->exit_code, k->oom_killed, k->error);
		}
	} else if (c->died || k->exit_code) {
		finish_exit(c, k->exit_code ? k->exit_code : c->died_code, c->oom, k->error);
	} else if (c->observe.goal == OBSERVE_EXIT || c->observe.goal == OBSERVE_ENDED) {
		sw_err_set(&err, SW_FATAL, -ECHILD, "container %.12s was never started", k->id);
		finish(c, &err);
	} else if (c->observe.stale++ < STALE_LOOKS) {
		sw_timer_arm(&c->observe.timer, STALE_NS);
	} else {
		sw_err_set(&err, SW_TEMPORARY, -EAGAIN, "container %.12s did not start", k->id);
		finish(c, &err);
	}
}

static void seen_nothing(struct ctl *c, const struct sw_err *answer)
{
	bool first = c->observe.first;
	struct sw_err err;

	if (c->observe.goal == OBSERVE_GONE || c->observe.goal == OBSERVE_ENDED) {
		ctl_see(c, NULL);
		finish(c, NULL);
	} else if (c->died) { /* removed by hand: the event is all there is */
		finish_exit(c, c->died_code, c->oom, "");
	} else {
		ctl_see(c, NULL);
		if (first && c->observe.goal == OBSERVE_EXIT)
			sw_err_set(&err, SW_FATAL, -ENOENT, "%s", answer->msg);
		else
			sw_err_set(&err, SW_FATAL, -ENOENT, "dockerexec: container destroyed");
		finish(c, &err);
	}
}

static void on_look(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->observe.call = NULL;
	if (k && !ctl_is_ours(c, k)) {
		struct sw_err gone;

		/* somebody else's container got the name */
		sw_err_setd(&gone, SW_REJECTED, SW_E_HTTP, 404, "No such container: %s", c->name);
		seen_nothing(c, &gone);
	} else if (k) {
		sw_backoff_reset(&c->observe.backoff);
		c->observe.first = false;
		seen_container(c, k);
	} else if (fault_http(err, 404)) {
		seen_nothing(c, err);
	} else {
		/* The engine is away or in trouble: that says nothing about the task. The stream's
		 * reconnect pokes us as well. */
		log_debug("cannot look at the container, later", KS("task", c->task_id), KERR(err));
		sw_backoff_fail(&c->observe.backoff);
		sw_timer_arm(&c->observe.timer, sw_ms(100) + sw_backoff_delay(&c->observe.backoff));
	}
	if (c->observe.goal && c->observe.again)
		look(c);
}

static void look(struct ctl *c)
{
	c->observe.again = c->observe.call != NULL;
	if (c->observe.call)
		return;
	sw_timer_stop(&c->observe.timer);
	c->observe.call = engine_container_inspect(c->d->engine, ctl_ref(c), on_look, c);
}

static void on_timer(void *arg)
{
	look(arg);
}

/* ---- for the operations */

void observe_init(struct ctl *c)
{
	sw_timer_init(&c->observe.timer, c->d->loop, on_timer, c);
}

void observe_begin(struct ctl *c, enum observe_goal goal)
{
	c->observe.goal = goal;
	c->observe.first = true;
	c->observe.again = false;
	c->observe.stale = 0;
	c->observe.since_ns = sw_now(c->d->loop);
	c->observe.backoff =
		(struct sw_backoff){.base_ns = sw_ms(100), .factor = 2, .max_ns = sw_s(30)};
	ctl_watching(c);
	look(c);
}

void observe_end(struct ctl *c)
{
	c->observe.goal = OBSERVE_NONE;
	c->observe.again = false;
	engine_call_cancel(take(c->observe.call));
	sw_timer_stop(&c->observe.timer);
	ctl_watching(c);
}

void ctl_cancel_observe(struct steps *s)
{
	observe_end(steps_arg(s));
}

void observe_later(struct ctl *c)
{
	if (c->observe.goal && !c->observe.call)
		sw_timer_arm(&c->observe.timer, sw_s(1));
}

void observe_poke(struct ctl *c)
{
	if (c->observe.goal)
		look(c);
}

void observe_event(struct ctl *c, const struct engine_event *ev)
{
	/* said once per change on Docker, and over again by the time we look */
	if (c->observe.goal && c->observe.goal != OBSERVE_GONE &&
		sw_streq(ev->action, "health_status: unhealthy"))
		c->unhealthy = true;
	observe_poke(c);
}

/* ---- wait: until the container has exited */

static void start_exit(struct steps *s)
{
	observe_begin(steps_arg(s), OBSERVE_EXIT);
}

/* clang-format off */
static const struct step wait_steps[] = {
	{ "exit", start_exit, STEP_END, STEP_END, ctl_cancel_observe },
};
/* clang-format on */

void ctl_wait(struct controller *base, controller_cb *cb, void *arg)
{
	ctl_run(ctl_of(base), "wait", wait_steps, cb, arg);
}
