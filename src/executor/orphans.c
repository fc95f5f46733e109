/* orphans.c - our containers on the engine, and the end of those that no task owns. */
#include "docker.h"
#include "fault.h"
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/steps.h>

struct request {
	struct docker *d;
	struct engine_call *call;
	executor_list_cb *list;
	executor_done_cb *done;
	void *arg;
	char *id; /* of the orphan */
	struct steps steps;
	TAILQ_ENTRY(request) link;
};

static struct request *request_new(struct docker *d, void *arg)
{
	struct request *q = xcalloc(1, sizeof(*q));

	q->d = d;
	q->arg = arg;
	TAILQ_INSERT_TAIL(&d->requests, q, link);
	return q;
}

static void request_free(struct request *q)
{
	TAILQ_REMOVE(&q->d->requests, q, link);
	free(q->id);
	free(q);
}

void docker_requests_done(struct docker *d)
{
	struct sw_err err;
	struct request *q;

	sw_err_set(&err, SW_CANCELLED, -ECANCELED, "executor closed");
	while ((q = TAILQ_FIRST(&d->requests))) {
		/* request_free() took the last one off the list:
		 * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		executor_list_cb *list = q->list;
		executor_done_cb *done = q->done;
		void *arg = q->arg;

		if (done)
			steps_kill(&q->steps);
		engine_call_cancel(q->call);
		request_free(q);
		if (done)
			done(arg, &err);
		else
			list(arg, NULL, 0, &err);
	}
}

/* ---- list */

static void on_list(void *arg, const struct engine_container *c, size_t n, const struct sw_err *err)
{
	struct request *q = arg;
	sw_auto_free struct executor_found *f = NULL;
	struct sw_err e = SW_ERR_NONE;
	executor_list_cb *cb = q->list;
	void *cb_arg = q->arg;

	request_free(q);
	if (err && err->cls) {
		e = *err;
		fault_classify(&e, FAULT_READ);
		cb(cb_arg, NULL, 0, &e);
		return;
	}
	f = xcalloc(n + 1, sizeof(*f));
	for (size_t i = 0; i < n; i++) {
		const char *task = engine_container_label(&c[i], SPEC_LABEL_TASK_ID);

		f[i] = (struct executor_found){
			.container_id = c[i].id,
			.name = c[i].name,
			.task_id = task ? task : "",
			.status = c[i].status,
			.running = sw_streq(c[i].status, "running") ||
				   sw_streq(c[i].status, "paused") ||
				   sw_streq(c[i].status, "restarting"),
		};
	}
	cb(cb_arg, f, n, NULL);
}

void docker_list(struct executor *x, executor_list_cb *cb, void *arg)
{
	struct docker *d = docker_of(x);
	struct request *q = request_new(d, arg);
	sw_auto_free char *node = xasprintf(SPEC_LABEL_NODE_ID "=%s", d->node_id);
	/* with the marker: a container of another cluster, or of an engine's own swarm, is not ours
	 */
	sw_auto_free char *cluster = *d->cluster_id
					     ? xasprintf(SPEC_LABEL_CLUSTER "=%s", d->cluster_id)
					     : xstrdup(SPEC_LABEL_CLUSTER);
	const char *const labels[2] = {node, cluster};

	q->list = cb;
	q->call = engine_container_list(d->engine, labels, 2, on_list, q);
}

/* ---- the end of an orphan */

enum { LOOK, STOP, REMOVE };

static void on_orphan_done(void *arg, const struct sw_err *err)
{
	struct request *q = arg;
	struct sw_err e = SW_ERR_NONE;

	q->call = NULL;
	sw_err_copy(&e, err);
	if (fault_http(&e, 404))
		e = SW_ERR_NONE;
	fault_classify(&e, FAULT_REMOVE);
	steps_done(&q->steps, &e);
}

static void on_orphan(void *arg, const struct engine_container *c, const struct sw_err *err)
{
	struct request *q = arg;
	const char *node = c ? engine_container_label(c, SPEC_LABEL_NODE_ID) : NULL;
	const char *cluster = c ? engine_container_label(c, SPEC_LABEL_CLUSTER) : NULL;
	struct sw_err e;

	q->call = NULL;
	if (!c) {
		if (fault_http(err, 404)) {
			steps_jump(&q->steps, STEP_END);
			return;
		}
		e = *err;
		fault_classify(&e, FAULT_REMOVE);
		steps_done(&q->steps, &e);
	} else if (!sw_streq(node, q->d->node_id) || !cluster ||
		   (*q->d->cluster_id && !sw_streq(cluster, q->d->cluster_id))) {
		sw_err_set(&e, SW_REJECTED, -EPERM, "container %.12s is not ours, it stays", c->id);
		steps_done(&q->steps, &e);
	} else {
		steps_jump(&q->steps, c->running || c->paused ? STOP : REMOVE);
	}
}

static void start_look(struct steps *s)
{
	struct request *q = steps_arg(s);

	q->call = engine_container_inspect(q->d->engine, q->id, on_orphan, q);
}

static void start_stop(struct steps *s)
{
	struct request *q = steps_arg(s);

	q->call = engine_container_stop(q->d->engine, q->id, -1, on_orphan_done, q);
}

static void start_remove(struct steps *s)
{
	struct request *q = steps_arg(s);

	q->call = engine_container_remove(q->d->engine, q->id, true, on_orphan_done, q);
}

/* clang-format off */
static const struct step orphan[] = {
	/*           name      start         next      on error */
	[LOOK]   = { "look",   start_look,   STOP,     STEP_END },
	[STOP]   = { "stop",   start_stop,   REMOVE,   STEP_END },
	[REMOVE] = { "remove", start_remove, STEP_END, STEP_END },
};
/* clang-format on */

static void on_end(void *arg, const struct sw_err *err)
{
	struct request *q = arg;
	executor_done_cb *cb = q->done;
	void *cb_arg = q->arg;
	struct sw_err e = SW_ERR_NONE;

	sw_err_copy(&e, err);
	if (!e.cls)
		log_info("orphaned container removed", KS("container", q->id));
	request_free(q);
	cb(cb_arg, e.cls ? &e : NULL);
}

void docker_remove_orphan(struct executor *x, const char *id, executor_done_cb *cb, void *arg)
{
	struct docker *d = docker_of(x);
	struct request *q = request_new(d, arg);

	q->done = cb;
	q->id = xstrdup(id);
	steps_init(&q->steps, d->loop, "remove orphan", q->id, orphan, q);
	steps_run(&q->steps, LOOK, 0, on_end);
}
