/* watch.h - the one event stream of the executor, handed out to whoever watches a task's container.
 * Events can be missed (engine restarts, a full buffer in the engine): after each (re)connect, and
 * every minute, the list of containers says who has to look again. Loop thread. */
#pragma once
#include <stdbool.h>
#include <swarm/loop.h>
#include <uthash.h>

struct engine;
struct engine_call;
struct engine_event;
struct json_object;

struct watcher {                 /* embedded */
	const char *task_id;     /* borrowed; what the events' label is compared with */
	const char *const *name; /* the container's, where a label is missing */
	void (*event)(struct watcher *w, const struct engine_event *ev);
	/* Look at the container: something may have been missed. Only while @waiting. */
	void (*recheck)(struct watcher *w);
	bool waiting;
	bool wants_look; /* recheck even if the list says running */
	bool listed_running;
	UT_hash_handle hh;
};

struct watch {
	struct sw_loop *loop;
	struct engine *engine;
	char *node_id;
	struct watcher *watchers;
	struct engine_call *containers, *plugins; /* streams */
	struct engine_call *list;
	bool again; /* sweep once more when @list has ended */
	bool was_lost;
	struct sw_timer sweep;
	/* The engine is back, or its plugins changed. */
	void (*changed)(void *arg);
	void *changed_arg;
};

void watch_init(struct watch *w, struct sw_loop *l, struct engine *e, void (*changed)(void *arg),
	void *arg);
void watch_done(struct watch *w);
/* Opens the stream for containers of this node; nothing if it is open for the same one. */
void watch_open(struct watch *w, const char *node_id);
void watch_add(struct watch *w, struct watcher *x);
void watch_remove(struct watch *w, struct watcher *x);
