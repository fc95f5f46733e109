/* One task's life: at most one controller operation at a time, status steps in between.
 *
 *            +-------- update, gate, retry timer, operation ended --------+
 *            v                                                            |
 *   task_work(): what does (state, desired) ask for? -- nothing: sleep    |
 *            |-- a step without the controller: new status, look again    |
 *            `-- an operation: start it ----------------------------------+
 *
 *   dropped: cancel, await the operation, await the journal, remove (with retries until the
 *   engine confirmed), close the controller, delete the row.
 *
 * An update cancels the running operation only if the new desired state asks for another one: a
 * start that waits for its health check must not be begun again, where it would end as "already
 * started". Wait is always cancelled, it is cheap and the controller gets the new metadata. */
#include "worker.h"
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define RETRY_FIRST sw_s(1)
#define RETRY_MAX   sw_s(30)
/* Progress is for people who wait: none for what is quick, and no storm of statuses. */
#define NOTE_FIRST sw_s(1)
#define NOTE_EVERY sw_s(2)

static void on_timer(void *arg);
static void on_noting(void *arg);
static void task_work(struct task *t);
static bool resolve(struct task *t, struct sw_err *err);

struct task *task_new(struct worker *w, struct api_task *pb, struct status *st, bool durable)
{
	struct task *t = xcalloc(1, sizeof(*t));

	t->w = w;
	t->id = xstrdup(pb->pb->id);
	t->pb = pb;
	t->st = st;
	t->durable = durable ? status_ref(st) : NULL;
	t->since_ns = sw_now(worker_loop(w));
	sw_timer_init(&t->timer, worker_loop(w), on_timer, t);
	sw_timer_init(&t->noting, worker_loop(w), on_noting, t);
	return t;
}

static void drop_note(struct task *t)
{
	sw_timer_stop(&t->noting);
	free(take(t->note));
}

static void close_controller(struct task *t)
{
	void *arg;
	const struct worker_events *ev = worker_ev(t->w, &arg);

	if (!t->ctl)
		return;
	ev->closing(arg, t);
	t->ctl->ops->close(t->ctl);
	t->ctl = NULL;
}

void task_free(struct task *t)
{
	close_controller(t);
	sw_timer_stop(&t->timer);
	drop_note(t);
	api_task_unref(t->pb);
	status_unref(t->st);
	status_unref(t->durable);
	api_free(t->again);
	free(t->container_id);
	free(t->id);
	free(t);
}

bool task_needs_deps(const struct api_task *pb)
{
	const Pb__TaskSpec *s = pb->pb->spec;

	if (pb->pb->n_volumes)
		return true;
	return s && s->runtime_case == PB__TASK_SPEC__RUNTIME_CONTAINER && s->container &&
	       (s->container->n_secrets || s->container->n_configs);
}

/* ---- statuses */

static void log_progress(const struct task *t, int before)
{
	const Pb__TaskStatus *pb = t->st->pb;
	uint64_t took = (sw_now(worker_loop(t->w)) - t->since_ns) / SW_NS_PER_MS;
	const char *cid = pb->runtime_status_case == PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER
				  ? pb->container->container_id
				  : "";

	if ((int)pb->state == before)
		return;
	if (pb->state == PB__TASK_STATE__RUNNING)
		log_info("task started", KS("task", t->id), KS("container", cid),
			KU("took_ms", took));
	else if (api_state_final(pb->state) && *cid)
		log_info("task finished", KS("task", t->id), KS("state", api_state_name(pb->state)),
			KI("exit_code", pb->container->exit_code), KS("reason", pb->err),
			KS("container", cid));
	else if (api_state_final(pb->state)) /* it never came to a container */
		log_info("task finished", KS("task", t->id), KS("state", api_state_name(pb->state)),
			KS("reason", pb->err));
	else
		log_debug(
			"task goes on", KS("task", t->id), KS("state", api_state_name(pb->state)));
}

/* The only way a status changes. */
static void take_step(struct task *t, const struct do_result *step, const char *text,
	const struct controller_result *res, const char *cause)
{
	int before = task_state(t);
	struct status *s;

	if (step->state < before) {
		log_err("status would go back, refused", KS("task", t->id),
			KS("state", api_state_name(before)), KS("to", api_state_name(step->state)));
		return;
	}
	s = status_next(t->st, step, text, res, t->container_id, (int64_t)sw_wall_ns());
	if (s == t->st) {
		status_unref(s);
		return;
	}
	status_unref(t->st);
	t->st = s;
	journal_status(worker_journal(t->w), &t->slot, t->id, s, cause);
	log_progress(t, before);
}

void task_durable(struct task *t, struct status *s)
{
	void *arg;
	const struct worker_events *ev = worker_ev(t->w, &arg);

	status_unref(t->durable);
	t->durable = status_ref(s);
	if (!t->removing)
		ev->durable(arg, t, s);
	else
		task_work(t); /* the removal waits for the last one */
}

/* ---- retries */

static void retry_later(struct task *t)
{
	uint64_t d = !t->retry_ns ? RETRY_FIRST : 2 * t->retry_ns;

	t->retry_ns = d < RETRY_MAX ? d : RETRY_MAX;
	/* +-20 % */
	d = t->retry_ns - t->retry_ns / 5 + sw_random(t->retry_ns / 5 * 2 + 1);
	sw_timer_arm(&t->timer, d);
}

static void on_timer(void *arg)
{
	task_start(arg);
}

void task_retry_soon(struct task *t, uint64_t within_ns)
{
	uint64_t now = sw_now(worker_loop(t->w)), d = sw_random(within_ns);

	if (sw_timer_armed(&t->timer) && t->timer.at_ns > now + d)
		sw_timer_arm(&t->timer, d);
}

/* ---- operations */

static void cancel(struct task *t)
{
	if (!t->busy || t->cancelled)
		return;
	t->cancelled = true;
	drop_note(t);
	t->ctl->ops->cancel(t->ctl);
}

static void progress(struct task *t)
{
	void *arg;
	const struct worker_events *ev = worker_ev(t->w, &arg);

	ev->progress(arg);
}

/* What a preparation is busy with becomes the status's message; the state stays. */
static void on_noting(void *arg)
{
	struct task *t = arg;
	sw_auto_free char *text = take(t->note);
	sw_auto_free char *message = xasprintf("%s: %s", do_name(DO_PREPARING), text);
	struct do_result step = {.state = task_state(t), .message = message, .err = DO_ERR_KEEP};

	t->note_at_ns = sw_now(worker_loop(t->w)) + NOTE_EVERY;
	take_step(t, &step, NULL, NULL, "progress");
}

static void on_controller_progress(void *arg, const char *text)
{
	struct task *t = arg;

	if (!t->busy || t->op != DO_PREPARE || t->cancelled || t->removing || t->stopping)
		return;
	free(t->note);
	t->note = xstrdup(text);
	if (!sw_timer_armed(&t->noting))
		sw_timer_arm_at(&t->noting, t->note_at_ns);
}

static void remember_container(struct task *t, const struct controller_result *r)
{
	if (sw_str_empty(r->container_id) || sw_streq(r->container_id, t->container_id))
		return;
	free(t->container_id);
	t->container_id = xstrdup(r->container_id);
}

static void on_operation(void *arg, const struct controller_result *r)
{
	struct task *t = arg;
	enum do_action op = t->op;
	bool ours = t->cancelled;

	t->busy = t->cancelled = false;
	t->op = DO_NOOP;
	drop_note(t);
	remember_container(t, r);
	if (t->removing) {
		log_debug("operation of a removed task ended, its status is dropped",
			KS("task", t->id), KS("op", do_name(op)));
	} else {
		struct do_result step = do_outcome(op, task_state(t), r->err.cls);
		int before = task_state(t);

		if (op == DO_PREPARE && !step.message && r->err.cls != SW_CANCELLED)
			step.message = do_name(DO_PREPARING); /* progress is over */
		take_step(t, &step, r->err.msg, r, do_name(op));
		if (task_state(t) != before)
			t->retry_ns = 0;
		if (step.retry && !ours && !t->stopping) {
			log_debug("operation is tried again", KS("task", t->id),
				KS("op", do_name(op)), KERR(&r->err));
			retry_later(t);
		}
	}
	task_work(t);
	progress(t);
}

static void start_operation(struct task *t, enum do_action op)
{
	const struct controller_ops *ops = t->ctl->ops;

	t->busy = true;
	t->cancelled = false;
	t->op = op;
	t->note_at_ns = sw_now(worker_loop(t->w)) + NOTE_FIRST;
	switch (op) {
	case DO_PREPARE:
		ops->prepare(t->ctl, on_operation, t);
		break;
	case DO_START:
		ops->start(t->ctl, on_operation, t);
		break;
	case DO_WAIT:
		ops->wait(t->ctl, on_operation, t);
		break;
	default:
		ops->shutdown(t->ctl, on_operation, t);
		break;
	}
}

static void tell_controller(struct task *t)
{
	struct sw_err err = SW_ERR_NONE;

	if (!t->updated)
		return;
	t->updated = false;
	if (t->ctl->ops->update(t->ctl, t->pb, &err) < 0)
		log_warning("update refused by the controller, going on with the task as it is",
			KS("task", t->id), KERR(&err));
}

/* ---- removal */

static void on_removed(void *arg, const struct controller_result *r)
{
	struct task *t = arg;

	t->busy = t->cancelled = t->removing_op = false;
	if (r->err.cls == SW_OK) {
		log_info("task removed", KS("task", t->id));
		close_controller(t);
		t->gone = true;
	} else if (!t->stopping) {
		if (!t->retry_ns)
			log_warning("container not removed, trying again until it is",
				KS("task", t->id), KERR(&r->err));
		retry_later(t);
	}
	task_work(t);
	progress(t);
}

static void remove_work(struct task *t)
{
	struct sw_err err = SW_ERR_NONE;

	if (t->slot.n || sw_timer_armed(&t->timer))
		return; /* the end of what it did must be on disk before the container goes */
	if (t->gone) {
		journal_delete(worker_journal(t->w), &t->slot, t->id);
		return;
	}
	if (t->stopping)
		return;
	if (!t->ctl && !resolve(t, &err)) {
		if (err.cls == SW_TEMPORARY) {
			retry_later(t);
			return;
		}
		/* nothing can be made of this spec; a container of earlier days is an orphan now */
		void *arg;
		const struct worker_events *ev = worker_ev(t->w, &arg);

		ev->leftover(arg);
		t->gone = true;
		journal_delete(worker_journal(t->w), &t->slot, t->id);
		return;
	}
	t->busy = t->removing_op = true;
	t->cancelled = false;
	t->ctl->ops->remove(t->ctl, on_removed, t);
}

void task_remove(struct task *t)
{
	void *arg;
	const struct worker_events *ev = worker_ev(t->w, &arg);

	if (t->removing)
		return;
	t->removing = true;
	t->gated = false;
	t->retry_ns = 0;
	sw_timer_stop(&t->timer);
	ev->dropped(arg, t);
	cancel(t);
	task_work(t);
}

/* ---- what comes next */

static void task_work(struct task *t)
{
	if (t->busy || t->queued)
		return;
	if (t->removing) {
		remove_work(t);
		return;
	}
	if (t->stopping || t->gated || !t->ctl || sw_timer_armed(&t->timer))
		return;
	tell_controller(t);
	for (;;) {
		enum do_action a = do_next(task_state(t), t->pb->pb->desired_state);
		struct do_result step;

		if (a == DO_NOOP)
			return;
		if (do_is_operation(a)) {
			start_operation(t, a);
			return;
		}
		step = do_outcome(a, task_state(t), SW_OK);
		take_step(t, &step, NULL, NULL, do_name(a));
	}
}

static bool resolve(struct task *t, struct sw_err *err)
{
	struct executor *x = worker_executor(t->w);
	void *arg;
	const struct worker_events *ev = worker_ev(t->w, &arg);

	if (x->ops->controller(x, t->pb, &t->ctl, err) < 0) {
		t->ctl = NULL;
		return false;
	}
	t->updated = false;
	t->ctl->progress = on_controller_progress;
	t->ctl->progress_arg = t;
	if (!t->removing)
		ev->opened(arg, t);
	return true;
}

void task_start(struct task *t)
{
	if (!t->ctl && !t->removing && !t->stopping) {
		struct sw_err err = SW_ERR_NONE;
		bool ok = resolve(t, &err);

		if (!ok && err.cls == SW_TEMPORARY) {
			log_debug("no controller yet", KS("task", t->id), KERR(&err));
			retry_later(t);
			return;
		}
		struct do_result step = do_resolved(task_state(t), ok);

		take_step(t, &step, err.msg, NULL, "resolve");
		if (!ok)
			log_warning("task refused", KS("task", t->id), KERR(&err));
	}
	task_work(t);
}

void task_update(struct task *t, struct api_task *pb)
{
	enum do_action next;

	api_task_unref(t->pb);
	t->pb = api_task_ref(pb);
	t->updated = true;
	t->retry_ns = 0;
	sw_timer_stop(&t->timer);
	next = do_next(task_state(t), pb->pb->desired_state);
	if (t->busy && (t->op == DO_WAIT || next != t->op))
		cancel(t);
	if (!t->queued)
		task_start(t);
}

void task_open_gate(struct task *t)
{
	if (!t->gated)
		return;
	t->gated = false;
	task_work(t);
}

void task_stop(struct task *t)
{
	t->stopping = true;
	sw_timer_stop(&t->timer);
	/* what ends a container may go on for a while, it would be begun again at the next start */
	if (t->busy && !t->removing_op && t->op != DO_SHUTDOWN)
		cancel(t);
}

void task_hurry(struct task *t)
{
	t->stopping = true;
	cancel(t);
}
