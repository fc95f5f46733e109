/* controller.c - what stands behind one container task: its life, its operations' common end, and
 * what was last seen of the container. The operations are tables of steps in files of their own. */
#include "ctl.h"
#include "files.h"
#include "ingress.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

/* ---- what is known of the container */

const char *ctl_ref(const struct ctl *c)
{
	return c->id ? c->id : c->name;
}

bool ctl_is_ours(const struct ctl *c, const struct engine_container *k)
{
	return sw_streq(engine_container_label(k, SPEC_LABEL_TASK_ID), c->task_id);
}

static bool is_one_of(const char *s, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (sw_streq(s, list[i]))
			return true;
	return false;
}

bool ctl_ended(const struct engine_container *k)
{
	/* podman has more words for "not yet" than Docker */
	static const char *const before[] = {"created", "initialized", "configured", "restarting"};

	return !k->running && !k->paused && !is_one_of(k->status, before, SW_ARRAY_LEN(before));
}

static void forget_ports(struct ctl *c)
{
	for (size_t i = 0; i < c->n_ports; i++)
		free((char *)c->ports[i].protocol);
	free(c->ports);
	c->ports = NULL;
	c->n_ports = 0;
}

void ctl_see(struct ctl *c, const struct engine_container *k)
{
	forget_ports(c);
	c->has_exit = false;
	c->exit_code = 0;
	c->pid = 0;
	if (!k) {
		free(c->id);
		c->id = NULL;
		return;
	}
	if (!sw_streq(c->id, k->id)) {
		free(c->id);
		c->id = xstrdup(k->id);
	}
	if (k->running || k->paused) {
		c->pid = k->pid;
		c->ports = xcalloc(k->n_ports + 1, sizeof(*c->ports));
		for (; c->n_ports < k->n_ports; c->n_ports++) {
			c->ports[c->n_ports] = k->ports[c->n_ports];
			c->ports[c->n_ports].protocol = xstrdup(k->ports[c->n_ports].protocol);
		}
	} else if (ctl_ended(k) || k->exit_code) {
		/* a refused start leaves "created" with 126, 127 or 128 */
		c->has_exit = true;
		c->exit_code = k->exit_code;
	}
}

void ctl_watching(struct ctl *c)
{
	bool logs = ctl_logs_waiting(c);

	c->watcher.waiting = c->observe.goal != OBSERVE_NONE || logs;
	c->watcher.wants_look = c->observe.goal == OBSERVE_STARTED || logs;
}

/* ---- one operation at a time */

static Pb__PortConfig__Protocol protocol_of(const char *name)
{
	if (sw_streq(name, "udp"))
		return PB__PORT_CONFIG__PROTOCOL__UDP;
	if (sw_streq(name, "sctp"))
		return PB__PORT_CONFIG__PROTOCOL__SCTP;
	return PB__PORT_CONFIG__PROTOCOL__TCP;
}

/* Copies of all that is handed out: the callback may start the next operation or close us. */
static void on_op_end(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;
	controller_cb *cb = take(c->cb);
	sw_auto_free char *id = xstrdup(c->id);
	size_t n = c->n_ports;
	sw_auto_free Pb__PortConfig *ports = xcalloc(n + 1, sizeof(*ports));
	sw_auto_free Pb__PortConfig **list = xcalloc(n + 1, sizeof(void *));
	struct controller_result r = {
		.already = c->already,
		.has_exit = c->has_exit,
		.exit_code = c->exit_code,
		.container_id = id,
		.pid = c->pid,
		.ports = list,
		.n_ports = n,
	};

	gate_leave(&c->slot);
	gate_leave(&c->net_turn);
	image_leave(&c->image);
	if (c->has_exit && !c->files_dropped && files_wanted(spec_container(c->task->pb))) {
		c->files_dropped = true; /* it never starts again */
		secrets_drop(&c->d->secrets, c->task_id);
	}
	observe_end(c);
	c->stop_awaited = false;
	sw_err_copy(&r.err, err);
	if (r.err.cls == SW_CANCELLED) /* nothing an interrupted operation saw is an end */
		r.has_exit = false, r.exit_code = 0;
	for (size_t i = 0; i < n; i++) {
		pb__port_config__init(&ports[i]);
		ports[i].protocol = protocol_of(c->ports[i].protocol);
		ports[i].target_port = c->ports[i].target;
		ports[i].published_port = c->ports[i].published;
		ports[i].publish_mode = PB__PORT_CONFIG__PUBLISH_MODE__HOST;
		list[i] = &ports[i];
	}
	if (r.err.cls == SW_FATAL && sw_streq(c->op.op, "prepare"))
		r.err.cls = SW_REJECTED; /* nothing has run yet */
	cb(c->cb_arg, &r);
}

void ctl_run(struct ctl *c, const char *op, const struct step *table, controller_cb *cb, void *arg)
{
	assert(!c->cb);
	c->cb = cb;
	c->cb_arg = arg;
	c->already = c->start_failed = c->pulled_again = false;
	c->at = 0;
	c->tries = 0;
	steps_init(&c->op, c->d->loop, op, c->task_id, table, c);
	steps_run(&c->op, 0, 0, on_op_end);
}

void ctl_fail(struct ctl *c, const struct sw_err *err, enum fault_step step)
{
	struct sw_err e = SW_ERR_NONE;

	sw_err_copy(&e, err);
	if (fault_text(&e, "no space left on device") && !c->no_space) {
		c->no_space = true; /* somebody may make room; a second time it is final */
		e.cls = SW_TEMPORARY;
	} else {
		fault_classify(&e, step);
	}
	steps_done(&c->op, &e);
}

void ctl_cancel_call(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	engine_call_cancel(take(c->call));
}

static void on_slot(void *arg)
{
	steps_done(&((struct ctl *)arg)->op, NULL);
}

void ctl_start_slot(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	gate_enter(&c->d->starts, &c->slot, on_slot, c);
}

void ctl_cancel_slot(struct steps *s)
{
	gate_leave(&((struct ctl *)steps_arg(s))->slot);
}

static void ctl_cancel(struct controller *base)
{
	steps_cancel(&ctl_of(base)->op);
}

/* ---- events */

static void on_event(struct watcher *w, const struct engine_event *ev)
{
	struct ctl *c = sw_container_of(w, struct ctl, watcher);
	const char *name = engine_event_attr(ev, "name");

	/* a second container with our label is no business of this task */
	if (c->id ? !sw_streq(c->id, ev->id) : name && !sw_streq(c->name, name))
		return;
	if (sw_streq(ev->action, "die") || sw_streq(ev->action, "died")) {
		const char *code = engine_event_attr(ev, "exitCode");

		if (!code)
			code = engine_event_attr(ev, "containerExitCode");
		c->died = true;
		c->died_code = code ? (int)strtol(code, NULL, 10) : 0;
	} else if (sw_streq(ev->action, "oom")) {
		c->oom = true;
	} else if (sw_streq(ev->action, "start")) {
		c->died = c->oom = false;
	}
	observe_event(c, ev);
	ctl_logs_poke(c);
}

static void on_recheck(struct watcher *w)
{
	struct ctl *c = sw_container_of(w, struct ctl, watcher);

	observe_poke(c);
	ctl_logs_poke(c);
}

/* ---- life */

/* @t as the container gets it: its ports where they are published here, its templates expanded. A
 * new reference. */
static int resolve(struct docker *d, struct api_task *t, struct api_task **ret, struct sw_err *err)
{
	struct api_task *here = NULL;
	Pb__Task *expanded = NULL;
	int r = ingress_task(t, d->ingress, &here, err);

	if (r)
		return r;
	if (!expand_wanted(here->pb)) {
		*ret = here;
		return 0;
	}
	if (d->node_texts.hostname)
		r = expand_task(here->pb, &d->node_texts, &expanded, err);
	else
		r = sw_err_set(err, SW_TEMPORARY, -EAGAIN,
			"templates wait for the engine's description of this node");
	if (r == 0)
		*ret = api_task_new(expanded);
	api_task_unref(here);
	return r;
}

static int ctl_update(struct controller *base, struct api_task *t, struct sw_err *err)
{
	struct ctl *c = ctl_of(base);
	struct api_task *resolved = NULL;
	int r;

	if (!sw_streq(t->pb->id, c->task_id))
		return sw_err_set(err, SW_REJECTED, -EINVAL, "task %s cannot become task %s",
			c->task_id, t->pb->id);
	if ((r = resolve(c->d, t, &resolved, err)))
		return r;
	api_task_unref(c->task);
	c->task = resolved;
	return 0;
}

static void ctl_close(struct controller *base)
{
	struct ctl *c = ctl_of(base);
	struct docker *d = c->d;

	assert(!c->cb);
	ctl_logs_orphan(c);
	observe_end(c);
	image_drop(&c->image);
	engine_call_cancel(c->stop_call);
	watch_remove(&d->watch, &c->watcher);
	forget_ports(c);
	ctl_release_networks(c);
	api_task_unref(c->task);
	free(c->task_id);
	free(c->name);
	free(c->probe);
	free(c->id);
	free(c);
	d->n_controllers--;
}

int docker_controller(
	struct executor *x, struct api_task *t, struct controller **ret, struct sw_err *err)
{
	static const struct controller_ops ops = {
		.update = ctl_update,
		.prepare = ctl_prepare,
		.start = ctl_start,
		.wait = ctl_wait,
		.shutdown = ctl_shutdown,
		.terminate = ctl_terminate,
		.remove = ctl_remove,
		.cancel = ctl_cancel,
		.logs = ctl_logs,
		.logs_resume = ctl_logs_resume,
		.logs_cancel = ctl_logs_cancel,
		.close = ctl_close,
	};
	struct docker *d = docker_of(x);
	struct spec_env env = docker_env(d);
	struct ctl *c;
	struct api_task *resolved = NULL;
	int r = resolve(d, t, &resolved, err);

	if (r)
		return r;
	r = spec_check(resolved->pb, &env, err);
	if (r < 0) {
		api_task_unref(resolved);
		return r;
	}
	c = xcalloc(1, sizeof(*c));
	c->base.ops = &ops;
	c->d = d;
	c->task = resolved;
	c->task_id = xstrdup(t->pb->id);
	c->name = api_task_name(t->pb);
	ctl_hold_networks(c);
	TAILQ_INIT(&c->logs);
	observe_init(c);
	c->watcher.task_id = c->task_id;
	c->watcher.name = (const char *const *)&c->name;
	c->watcher.event = on_event;
	c->watcher.recheck = on_recheck;
	watch_add(&d->watch, &c->watcher);
	d->n_controllers++;
	*ret = &c->base;
	return 0;
}
