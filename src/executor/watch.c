#include "watch.h"
#include "spec.h"
#include <json-c/json.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define SWEEP_NS       sw_s(60)
#define SWEEP_RETRY_NS sw_s(5)

static void sweep(struct watch *w);

/* ---- events */

static void on_event(void *arg, const struct engine_event *ev)
{
	struct watch *w = arg;
	const char *task = engine_event_attr(ev, SPEC_LABEL_TASK_ID);
	const char *name = engine_event_attr(ev, "name");
	struct watcher *x = NULL, *next;

	if (task) {
		HASH_FIND_STR(w->watchers, task, x);
	} else if (name) {
		HASH_ITER (hh, w->watchers, x, next)
			if (sw_streq(*x->name, name))
				break;
	}
	log_debug("container event", KS("action", ev->action), KS("container", ev->id),
		KS("task", task ? task : ""));
	if (x)
		x->event(x, ev);
}

static void on_plugin_event(void *arg, const struct engine_event *ev)
{
	struct watch *w = arg;

	log_debug("plugin event", KS("action", ev->action), KS("plugin", ev->id));
	if (sw_streq(ev->action, "enable") || sw_streq(ev->action, "disable") ||
		sw_streq(ev->action, "remove"))
		w->changed(w->changed_arg);
}

static void on_plugins_up(void *arg)
{
	(void)arg;
}

static void on_plugins_lost(void *arg, const struct sw_err *err)
{
	(void)arg;
	(void)err; /* the containers' stream says it already */
}

static void add_filter(
	struct json_object *filters, const char *key, const char *const *values, size_t n)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < n; i++)
		json_object_array_add(a, json_object_new_string(values[i]));
	json_object_object_add(filters, key, a);
}

/* A stream of its own: the label filter of the other one applies to all types of events and
 * plugins have no labels. */
static void open_plugins(struct watch *w)
{
	static const struct engine_events_handler handler = {
		.event = on_plugin_event, .connected = on_plugins_up, .lost = on_plugins_lost};
	static const char *const type[] = {"plugin"};
	struct json_object *filters;

	if (w->plugins || engine_is_podman(w->engine))
		return;
	filters = json_object_new_object();
	add_filter(filters, "type", type, 1);
	w->plugins = engine_events(w->engine, filters, &handler, w);
	json_object_put(filters);
}

static void on_connected(void *arg)
{
	struct watch *w = arg;

	open_plugins(w);
	sweep(w);
	if (w->was_lost) {
		w->was_lost = false;
		w->changed(w->changed_arg);
	}
}

static void on_lost(void *arg, const struct sw_err *err)
{
	struct watch *w = arg;

	if (!w->was_lost)
		log_warning("engine's event stream lost, tasks stay as they are", KERR(err));
	w->was_lost = true;
}

/* ---- the safety net */

static void on_list(void *arg, const struct engine_container *c, size_t n, const struct sw_err *err)
{
	struct watch *w = arg;
	struct watcher *x, *next;

	w->list = NULL;
	if (err && err->cls) {
		log_debug("containers not listed", KERR(err));
		sw_timer_arm(&w->sweep, SWEEP_RETRY_NS);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const char *task = engine_container_label(&c[i], SPEC_LABEL_TASK_ID);

		x = NULL;
		if (task)
			HASH_FIND_STR(w->watchers, task, x);
		if (x)
			x->listed_running =
				sw_streq(c[i].status, "running") || sw_streq(c[i].status, "paused");
	}
	HASH_ITER (hh, w->watchers, x, next) {
		if (x->waiting && (!x->listed_running || x->wants_look))
			x->recheck(x);
		x->listed_running = false;
	}
	sw_timer_arm(&w->sweep, SWEEP_NS);
	if (w->again)
		sweep(w);
}

static void sweep(struct watch *w)
{
	sw_timer_arm(&w->sweep, SWEEP_NS);
	w->again = w->list != NULL;
	if (w->list || !w->watchers)
		return;

	sw_auto_free char *label = xasprintf(SPEC_LABEL_NODE_ID "=%s", w->node_id);
	const char *const labels[] = {label};

	w->list = engine_container_list(w->engine, labels, 1, on_list, w);
}

static void on_sweep(void *arg)
{
	sweep(arg);
}

/* ---- door */

void watch_init(
	struct watch *w, struct sw_loop *l, struct engine *e, void (*changed)(void *arg), void *arg)
{
	memset(w, 0, sizeof(*w));
	w->loop = l;
	w->engine = e;
	w->changed = changed;
	w->changed_arg = arg;
	sw_timer_init(&w->sweep, l, on_sweep, w);
}

void watch_done(struct watch *w)
{
	engine_call_cancel(w->containers);
	engine_call_cancel(w->plugins);
	engine_call_cancel(w->list);
	sw_timer_stop(&w->sweep);
	free(w->node_id);
}

void watch_open(struct watch *w, const char *node_id)
{
	static const struct engine_events_handler handler = {
		.event = on_event, .connected = on_connected, .lost = on_lost};
	static const char *const type[] = {"container"};
	/* without exec_*, which health probes make three times each */
	static const char *const events[] = {"create", "start", "die", "oom", "destroy",
		"health_status", "pause", "unpause",
		/* podman's names for die and destroy */
		"died", "remove"};
	sw_auto_free char *label = xasprintf(SPEC_LABEL_NODE_ID "=%s", node_id);
	const char *const labels[] = {label};
	struct json_object *filters;

	if (w->containers && sw_streq(w->node_id, node_id))
		return;
	engine_call_cancel(w->containers);
	free(w->node_id);
	w->node_id = xstrdup(node_id);
	filters = json_object_new_object();
	add_filter(filters, "type", type, 1);
	add_filter(filters, "label", labels, 1);
	add_filter(filters, "event", events, SW_ARRAY_LEN(events));
	w->containers = engine_events(w->engine, filters, &handler, w);
	json_object_put(filters);
	sw_timer_arm(&w->sweep, SWEEP_NS);
}

void watch_add(struct watch *w, struct watcher *x)
{
	HASH_ADD_KEYPTR(hh, w->watchers, x->task_id, strlen(x->task_id), x);
}

void watch_remove(struct watch *w, struct watcher *x)
{
	HASH_DELETE(hh, w->watchers, x);
}
