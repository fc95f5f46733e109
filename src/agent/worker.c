/* Assignments applied: one message after the other, each in phases, each phase in slices so that a
 * COMPLETE of 10,000 tasks leaves room for heartbeats between them.
 *
 *   SCAN    message against table -> a plan; what is wrong, equal or goes backwards is left out
 *   BUILD   plan -> one batch of the store
 *   COMMIT  until it is durable (a full disk: again and again, nothing of it visible)
 *   ACT     dependencies first, then the tasks; new ones go into the start queue
 *
 * A task that is assigned again while its removal runs waits in the task, and when the row is gone
 * as a message of our own at the head of the queue. */
#include "worker.h"
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/store.h>
#include <utlist.h>

#define SLICE       128 /* tasks per loop round: some ms */
#define RETRY_FIRST sw_ms(500)
#define RETRY_MAX   sw_s(30)
#define RETRY_SOON  sw_ms(500)

enum plan_kind { PLAN_NONE, PLAN_ADD, PLAN_UPDATE, PLAN_RESOLVE, PLAN_READD, PLAN_REMOVE };

struct plan {
	UT_hash_handle hh; /* by id */
	enum plan_kind kind;
	char *id;
	Pb__Task *pb;          /* until it becomes @task; READD keeps it */
	struct api_task *task; /* ADD, UPDATE */
	struct status *status; /* ADD */
};

struct apply {
	struct worker *w; /* NULL: the worker is gone, only the commit's answer was awaited */
	Pb__AssignmentsMessage *m;
	uint64_t token;
	bool complete;
	enum { SCAN, SCAN_ABSENT, BUILD, COMMIT, DEPS, ACT } phase;
	size_t at;         /* SCAN: in m->changes */
	struct plan *plan; /* hash; in order */
	struct plan *next; /* BUILD, ACT: cursor */
	struct store_batch *batch;
	size_t n_writes;
	uint64_t retry_ns;
};

struct message {
	struct message *prev, *next;
	Pb__AssignmentsMessage *m;
	uint64_t token;
};

struct worker {
	struct sw_loop *loop;
	struct store *store;
	struct executor *executor;
	char *node_id;
	struct worker_events ev;
	void *arg;
	struct journal *journal;
	struct deps *deps;
	struct task *tasks;    /* hash */
	struct task *starting; /* DL */
	struct sw_timer start_timer, apply_timer;
	struct message *queue; /* DL */
	struct apply *apply;
	struct again {
		UT_hash_handle hh;
		Pb__Task *pb;
	} * again; /* removed completely, assigned again: added before the next message */
	bool stopping, complete_seen, warned_volumes;
};

static void on_start_timer(void *arg);
static void on_apply_timer(void *arg);
static void on_status(void *arg, struct journal_slot *slot, struct status *s);
static void on_deleted(void *arg, struct journal_slot *slot);

struct task *worker_find(const struct worker *w, const char *task_id)
{
	struct task *t;

	HASH_FIND_STR(w->tasks, task_id, t);
	return t;
}

static const Pb__Task *task_of(void *arg, const char *task_id)
{
	const struct task *t = worker_find(arg, task_id);

	return t ? t->pb->pb : NULL;
}

struct worker *worker_new(
	const struct worker_config *cfg, const struct worker_events *ev, void *arg)
{
	static const struct journal_events je = {.status = on_status, .deleted = on_deleted};
	struct worker *w = xcalloc(1, sizeof(*w));
	struct executor_deps getters;

	w->loop = cfg->loop;
	w->store = cfg->store;
	w->executor = cfg->executor;
	w->node_id = xstrdup(cfg->node_id);
	w->ev = *ev;
	w->arg = arg;
	w->journal = journal_new(cfg->loop, cfg->store, &je, w);
	w->deps = deps_new(task_of, w);
	sw_timer_init(&w->start_timer, cfg->loop, on_start_timer, w);
	sw_timer_init(&w->apply_timer, cfg->loop, on_apply_timer, w);
	deps_getters(w->deps, &getters);
	w->executor->ops->set_deps(w->executor, &getters);
	return w;
}

const struct worker_events *worker_ev(const struct worker *w, void **arg)
{
	*arg = w->arg;
	return &w->ev;
}

struct executor *worker_executor(const struct worker *w)
{
	return w->executor;
}

struct sw_loop *worker_loop(const struct worker *w)
{
	return w->loop;
}

struct journal *worker_journal(struct worker *w)
{
	return w->journal;
}

/* ---- start queue: controllers are made a slice at a time */

static void enqueue_start(struct worker *w, struct task *t)
{
	if (t->queued)
		return;
	t->queued = true;
	DL_APPEND(w->starting, t);
	if (!sw_timer_armed(&w->start_timer))
		sw_timer_arm(&w->start_timer, 0);
}

static void on_start_timer(void *arg)
{
	struct worker *w = arg;

	for (int n = 0; n < SLICE && w->starting; n++) {
		struct task *t = w->starting;

		DL_DELETE(w->starting, t);
		t->queued = false;
		task_start(t);
	}
	if (w->starting)
		sw_timer_arm(&w->start_timer, 0);
}

static void add_task(struct worker *w, struct task *t)
{
	HASH_ADD_KEYPTR(hh, w->tasks, t->id, strlen(t->id), t);
}

/* ---- what the journal says */

static void on_status(void *arg, struct journal_slot *slot, struct status *s)
{
	struct worker *w = arg;

	task_durable(sw_container_of(slot, struct task, slot), s);
	w->ev.progress(w->arg);
}

static void set_again(struct worker *w, Pb__Task *pb);
static void apply_next(struct worker *w);

static void on_deleted(void *arg, struct journal_slot *slot)
{
	struct worker *w = arg;
	struct task *t = sw_container_of(slot, struct task, slot);
	Pb__Task *again = take(t->again);

	HASH_DEL(w->tasks, t);
	task_free(t);
	if (again) {
		set_again(w, again);
		apply_next(w);
	}
	w->ev.progress(w->arg);
}

/* ---- rows */

static void fill_row(struct store_task *row, const Pb__Task *pb, uint8_t **data, char **name)
{
	Pb__Task bare = *pb;
	const Pb__TaskSpec *s = pb->spec;
	const char *runtime = "";

	bare.status = NULL; /* it has a row of its own */
	if (s)
		switch (s->runtime_case) {
		case PB__TASK_SPEC__RUNTIME_CONTAINER:
			runtime = "container";
			break;
		case PB__TASK_SPEC__RUNTIME_ATTACHMENT:
			runtime = "attachment";
			break;
		case PB__TASK_SPEC__RUNTIME_GENERIC:
			runtime = s->generic ? s->generic->kind : "generic";
			break;
		default:
			break;
		}
	*row = (struct store_task){.task_id = pb->id,
		.phase = STORE_ASSIGNED,
		.desired_state = pb->desired_state,
		.service_id = pb->service_id,
		.service_name = pb->service_annotations ? pb->service_annotations->name : "",
		.image = s && s->runtime_case == PB__TASK_SPEC__RUNTIME_CONTAINER && s->container
				 ? s->container->image
				 : "",
		.runtime = runtime,
		.node_id = pb->node_id,
		.slot = pb->slot,
		.spec_version = pb->spec_version ? pb->spec_version->index : 0};
	*data = api_pack(&bare.base, &row->data_len);
	row->data = *data;
	*name = api_task_name(pb);
	row->name = *name;
}

static void write_task(struct store_batch *b, const Pb__Task *pb)
{
	struct store_task row;
	uint8_t *data;
	char *name;

	fill_row(&row, pb, &data, &name);
	store_batch_task(b, &row);
	free(data);
	free(name);
}

/* ---- start: the stored tasks */

static Pb__TaskStatus *blank_status(int state)
{
	Pb__TaskStatus *pb = xcalloc(1, sizeof(*pb));

	pb__task_status__init(pb);
	pb->state = (Pb__TaskState)state;
	return pb;
}

struct load {
	struct worker *w;
	struct sw_err *err;
};

static int load_task(void *arg, const struct store_task *row)
{
	struct load *l = arg;
	struct worker *w = l->w;
	Pb__Task *pb = (Pb__Task *)(void *)api_unpack(
		&pb__task__descriptor, row->data, row->data_len, l->err);
	Pb__TaskStatus *st;
	struct api_task *shared;
	struct task *t;

	if (!pb)
		return sw_err_wrap(l->err, "stored task %s", row->task_id);
	if (strcmp(pb->id, row->task_id) != 0) {
		api_free(pb);
		return sw_err_set(l->err, SW_FATAL, -EBADMSG,
			"stored task %s holds another task's data", row->task_id);
	}
	if (row->has_status) {
		st = (Pb__TaskStatus *)(void *)api_unpack(&pb__task_status__descriptor,
			row->status.data, row->status.data_len, l->err);
		if (!st) {
			api_free(pb);
			return sw_err_wrap(l->err, "status of stored task %s", row->task_id);
		}
	} else {
		st = blank_status(PB__TASK_STATE__ASSIGNED);
	}
	shared = api_task_new(pb);
	t = task_new(w, shared,
		status_new(st, row->has_status ? row->status.at_ns : (int64_t)sw_wall_ns()),
		row->has_status);
	if (st->runtime_status_case == PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER &&
		*st->container->container_id)
		t->container_id = xstrdup(st->container->container_id);
	add_task(w, t);
	if (row->phase == STORE_REMOVING) {
		t->removing = true;
	} else if (st->state < PB__TASK_STATE__RUNNING && task_needs_deps(shared) &&
		   pb->desired_state < PB__TASK_STATE__SHUTDOWN) {
		/* its secrets come with the first COMPLETE; without them it would fail */
		t->gated = true;
	}
	enqueue_start(w, t);
	return 0;
}

int worker_load(struct worker *w, struct sw_err *err)
{
	struct load l = {w, err};
	struct worker_stats st;
	int r = store_load_tasks(w->store, load_task, &l, err);

	if (r < 0)
		return r;
	worker_stats(w, &st);
	if (HASH_COUNT(w->tasks))
		log_notice(
			"stored tasks resumed", KU("tasks", st.tasks), KU("removing", st.removing));
	return 0;
}

/* ---- applying: the queue */

static void message_free(Pb__AssignmentsMessage *m)
{
	if (!m)
		return;
	deps_wipe_message(m);
	api_free(m);
}

void worker_apply(struct worker *w, Pb__AssignmentsMessage *m, uint64_t token)
{
	struct message *q;

	if (w->stopping) {
		message_free(m);
		return;
	}
	q = xcalloc(1, sizeof(*q));
	q->m = m;
	q->token = token;
	DL_APPEND(w->queue, q);
	apply_next(w);
}

void worker_drop_all(struct worker *w)
{
	Pb__AssignmentsMessage *m = xcalloc(1, sizeof(*m));

	pb__assignments_message__init(m);
	m->type = PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE;
	worker_apply(w, m, 0);
}

static void set_again(struct worker *w, Pb__Task *pb)
{
	struct again *a;

	HASH_FIND_STR(w->again, pb->id, a);
	if (a) {
		Pb__Task *old = a->pb;

		HASH_DEL(w->again, a);
		api_free(old);
	} else {
		a = xcalloc(1, sizeof(*a));
	}
	a->pb = pb;
	HASH_ADD_KEYPTR(hh, w->again, a->pb->id, strlen(a->pb->id), a);
}

static void forget_again(struct worker *w, const char *id)
{
	struct again *a;

	HASH_FIND_STR(w->again, id, a);
	if (!a)
		return;
	HASH_DEL(w->again, a);
	api_free(a->pb);
	free(a);
}

static Pb__AssignmentsMessage *message_of_again(struct worker *w)
{
	Pb__AssignmentsMessage *m = xcalloc(1, sizeof(*m));
	struct again *a = w->again, *next;

	pb__assignments_message__init(m);
	m->type = PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL;
	m->changes = xcalloc(HASH_COUNT(w->again), sizeof(Pb__AssignmentChange *));
	HASH_CLEAR(hh, w->again); /* the elements stay linked */
	for (; a; a = next) {
		Pb__AssignmentChange *c = xcalloc(1, sizeof(*c));
		Pb__Assignment *as = xcalloc(1, sizeof(*as));

		pb__assignment_change__init(c);
		pb__assignment__init(as);
		c->action = PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__UPDATE;
		c->assignment = as;
		as->item_case = PB__ASSIGNMENT__ITEM_TASK;
		as->task = a->pb;
		m->changes[m->n_changes++] = c;
		next = a->hh.next;
		free(a);
	}
	return m;
}

static void apply_next(struct worker *w)
{
	struct apply *a;

	if (w->apply || w->stopping)
		return;
	if (!w->again && !w->queue)
		return;
	a = xcalloc(1, sizeof(*a));
	a->w = w;
	if (w->again) {
		a->m = message_of_again(w);
	} else {
		struct message *q = w->queue;

		DL_DELETE(w->queue, q);
		a->m = q->m;
		a->token = q->token;
		free(q);
	}
	a->complete = a->m->type == PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE;
	w->apply = a;
	sw_timer_arm(&w->apply_timer, 0);
}

static void plan_free(struct plan *p)
{
	api_free(p->pb);
	api_task_unref(p->task);
	status_unref(p->status);
	free(p->id);
	free(p);
}

static void apply_free(struct apply *a)
{
	struct plan *p = a->plan, *next;

	HASH_CLEAR(hh, a->plan); /* the elements stay linked */
	for (; p; p = next) {
		next = p->hh.next;
		plan_free(p);
	}
	store_batch_free(a->batch);
	message_free(a->m);
	free(a);
}

/* ---- SCAN */

static struct plan *plan_add(struct apply *a, const char *id, enum plan_kind kind)
{
	struct plan *p;

	HASH_FIND_STR(a->plan, id, p);
	if (p) { /* twice in one message: the last one counts */
		HASH_DEL(a->plan, p);
		plan_free(p);
	}
	p = xcalloc(1, sizeof(*p));
	p->kind = kind;
	p->id = xstrdup(id);
	HASH_ADD_KEYPTR(hh, a->plan, p->id, strlen(p->id), p);
	return p;
}

static bool acceptable(const struct worker *w, const Pb__Task *pb)
{
	if (!api_id_valid(pb->id)) {
		log_warning("assigned task ignored: its id is no id", KS("id", pb->id));
		return false;
	}
	if (strcmp(pb->node_id, w->node_id) != 0) {
		log_warning("assigned task ignored: it is another node's", KS("task", pb->id),
			KS("node", pb->node_id));
		return false;
	}
	return true;
}

/* Takes @pb. */
static void scan_update(struct apply *a, Pb__Task *pb)
{
	struct worker *w = a->w;
	const struct task *t;
	struct plan *p;

	if (!acceptable(w, pb)) {
		api_free(pb);
		return;
	}
	t = worker_find(w, pb->id);
	if (t && t->removing) {
		p = plan_add(a, pb->id, PLAN_READD);
		p->pb = pb;
	} else if (!t) {
		Pb__TaskStatus *st = take(pb->status);

		p = plan_add(a, pb->id, PLAN_ADD);
		p->status = status_new(
			st ? st : blank_status(PB__TASK_STATE__NEW), (int64_t)sw_wall_ns());
		p->task = api_task_new(pb);
	} else if (api_task_equal(t->pb->pb, pb)) {
		plan_add(a, pb->id, t->ctl || t->queued ? PLAN_NONE : PLAN_RESOLVE);
		api_free(pb);
	} else if (pb->desired_state < t->pb->pb->desired_state) {
		log_warning("assignment ignored: desired state goes back", KS("task", pb->id),
			KS("desired", api_state_name(t->pb->pb->desired_state)),
			KS("to", api_state_name(pb->desired_state)));
		plan_add(a, pb->id, PLAN_NONE);
		api_free(pb);
	} else {
		p = plan_add(a, pb->id, PLAN_UPDATE);
		api_free(take(pb->status)); /* ours is the one that counts */
		p->task = api_task_new(pb);
	}
}

static void scan_change(struct apply *a, Pb__AssignmentChange *c)
{
	Pb__Assignment *as = c->assignment;
	bool update = c->action == PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__UPDATE;

	if (!as)
		return;
	if (as->item_case == PB__ASSIGNMENT__ITEM_VOLUME && !a->w->warned_volumes) {
		a->w->warned_volumes = true;
		log_warning("cluster volumes are assigned, which this agent cannot mount: ignored");
	}
	if (as->item_case != PB__ASSIGNMENT__ITEM_TASK || !as->task)
		return;
	if (update) {
		Pb__Task *pb = take(as->task);

		as->item_case = PB__ASSIGNMENT__ITEM__NOT_SET;
		scan_update(a, pb);
	} else if (c->action == PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__REMOVE && !a->complete) {
		plan_add(a, as->task->id, PLAN_REMOVE);
	}
}

/* COMPLETE: what is not in it goes. */
static void scan_absent(struct apply *a)
{
	struct task *t, *next;

	HASH_ITER (hh, a->w->tasks, t, next) {
		const struct plan *p;

		HASH_FIND_STR(a->plan, t->id, p);
		if (!p)
			plan_add(a, t->id, PLAN_REMOVE);
	}
}

/* ---- BUILD, COMMIT */

static void build(struct apply *a, const struct plan *p)
{
	const struct task *t;

	switch (p->kind) {
	case PLAN_ADD: {
		struct store_status row;
		uint8_t *data;
		char *ports;

		write_task(a->batch, p->task->pb);
		status_row(p->status, &row, &data, &ports);
		store_batch_status(a->batch, p->id, &row, "assigned");
		free(data);
		free(ports);
		a->n_writes++;
		break;
	}
	case PLAN_UPDATE:
		write_task(a->batch, p->task->pb);
		a->n_writes++;
		break;
	case PLAN_REMOVE:
		t = worker_find(a->w, p->id);
		if (t && !t->removing) {
			store_batch_removing(a->batch, p->id);
			a->n_writes++;
		}
		break;
	default:
		break;
	}
}

static void on_committed(void *arg, const struct sw_err *err)
{
	struct apply *a = arg;
	struct worker *w = a->w;

	if (!w) {
		apply_free(a);
		return;
	}
	if (err) {
		a->retry_ns = !a->retry_ns                  ? RETRY_FIRST
			      : 2 * a->retry_ns < RETRY_MAX ? 2 * a->retry_ns
							    : RETRY_MAX;
		log_err("assignments not stored, nothing of them is acted on until they are",
			KERR(err), KU("retry_ms", a->retry_ns / SW_NS_PER_MS));
		a->phase = BUILD;
		a->next = a->plan;
		sw_timer_arm(&w->apply_timer, a->retry_ns);
		return;
	}
	a->retry_ns = 0;
	a->phase = DEPS;
	on_apply_timer(w);
}

/* ---- ACT */

static void act(struct apply *a, struct plan *p)
{
	struct worker *w = a->w;
	struct task *t = worker_find(w, p->id);

	if (p->kind != PLAN_READD)
		forget_again(w, p->id);
	switch (p->kind) {
	case PLAN_ADD:
		t = task_new(w, take(p->task), take(p->status), true);
		add_task(w, t);
		enqueue_start(w, t);
		break;
	case PLAN_UPDATE:
		task_update(t, p->task);
		task_open_gate(t);
		break;
	case PLAN_RESOLVE:
		task_start(t);
		break;
	case PLAN_READD:
		if (t) {
			api_free(t->again);
			t->again = take(p->pb);
		} else {
			set_again(w, take(p->pb));
		}
		break;
	case PLAN_REMOVE:
		if (!t)
			break;
		api_free(take(t->again));
		task_remove(t);
		break;
	case PLAN_NONE:
		break;
	}
}

static void finish(struct worker *w)
{
	struct apply *a = take(w->apply);
	struct again *g, *gnext;
	struct task *t, *tnext;

	if (a->complete) {
		HASH_ITER (hh, w->again, g, gnext) {
			const struct plan *p;

			HASH_FIND_STR(a->plan, g->pb->id, p);
			if (!p)
				forget_again(w, g->pb->id);
		}
		if (!w->complete_seen) {
			w->complete_seen = true;
			HASH_ITER (hh, w->tasks, t, tnext)
				task_open_gate(t);
		}
	}
	log_debug("assignments applied", KB("complete", a->complete),
		KU("named", HASH_COUNT(a->plan)), KU("written", a->n_writes));
	if (a->token)
		w->ev.applied(w->arg, a->token, a->complete);
	apply_free(a);
	apply_next(w);
	w->ev.progress(w->arg);
}

static void apply_deps(struct worker *w, struct apply *a)
{
	struct task *t, *next;

	if (a->m && deps_apply(w->deps, a->m))
		HASH_ITER (hh, w->tasks, t, next)
			if (task_needs_deps(t->pb))
				task_retry_soon(t, 0);
	message_free(take(a->m));
}

/* One slice. */
static void on_apply_timer(void *arg)
{
	struct worker *w = arg;
	struct apply *a = w->apply;
	int n = 0;

	if (!a)
		return;
	switch (a->phase) {
	case SCAN:
		while (a->at < a->m->n_changes && n++ < SLICE)
			scan_change(a, a->m->changes[a->at++]);
		if (a->at == a->m->n_changes)
			a->phase = SCAN_ABSENT;
		break;
	case SCAN_ABSENT:
		if (a->complete)
			scan_absent(a);
		a->phase = BUILD;
		a->next = a->plan;
		break;
	case BUILD:
		if (!a->batch) {
			a->batch = store_batch_new();
			a->n_writes = 0;
		}
		for (; a->next && n < SLICE; n++) {
			build(a, a->next);
			a->next = a->next->hh.next;
		}
		if (a->next)
			break;
		if (!a->n_writes) {
			store_batch_free(take(a->batch));
			a->phase = DEPS;
			break;
		}
		a->phase = COMMIT;
		journal_flush(w->journal); /* shares the sync */
		store_commit(w->store, take(a->batch), on_committed, a);
		return;
	case COMMIT:
		return;
	case DEPS:
		apply_deps(w, a);
		a->phase = ACT;
		a->next = a->plan;
		break;
	case ACT:
		for (; a->next && n < SLICE; n++) {
			struct plan *p = a->next;

			a->next = p->hh.next;
			act(a, p);
		}
		if (a->next)
			break;
		finish(w);
		return;
	}
	sw_timer_arm(&w->apply_timer, 0);
}

/* ---- end */

void worker_stop(struct worker *w)
{
	struct task *t, *next;
	struct message *q, *qnext;

	w->stopping = true;
	DL_FOREACH_SAFE (w->queue, q, qnext) {
		message_free(q->m);
		free(q);
	}
	w->queue = NULL;
	sw_timer_stop(&w->apply_timer);
	if (w->apply && w->apply->phase == COMMIT)
		w->apply->w = NULL;
	else if (w->apply)
		apply_free(w->apply);
	w->apply = NULL;
	HASH_ITER (hh, w->tasks, t, next)
		task_stop(t);
}

void worker_hurry(struct worker *w)
{
	struct task *t, *next;

	HASH_ITER (hh, w->tasks, t, next)
		task_hurry(t);
}

bool worker_quiet(const struct worker *w)
{
	const struct task *t;

	for (t = w->tasks; t; t = t->hh.next)
		if (t->busy)
			return false;
	return true;
}

bool worker_durable(const struct worker *w)
{
	return journal_idle(w->journal);
}

bool worker_trouble(const struct worker *w)
{
	return journal_trouble(w->journal) || (w->apply && w->apply->retry_ns);
}

void worker_retry(struct worker *w)
{
	struct task *t, *next;

	HASH_ITER (hh, w->tasks, t, next)
		task_retry_soon(t, RETRY_SOON);
}

void worker_free(struct worker *w)
{
	struct task *t, *next;
	struct again *g, *gnext;

	if (!w)
		return;
	if (!w->stopping)
		worker_stop(w);
	sw_timer_stop(&w->start_timer);
	journal_free(w->journal);
	HASH_ITER (hh, w->again, g, gnext)
		forget_again(w, g->pb->id);
	HASH_ITER (hh, w->tasks, t, next) {
		HASH_DEL(w->tasks, t);
		task_free(t);
	}
	w->executor->ops->set_deps(w->executor, &(struct executor_deps){0});
	deps_free(w->deps);
	free(w->node_id);
	free(w);
}

void worker_each(struct worker *w, void (*cb)(void *arg, struct task *t), void *arg)
{
	struct task *t, *next;

	HASH_ITER (hh, w->tasks, t, next)
		if (!t->removing)
			cb(arg, t);
}

void worker_stats(const struct worker *w, struct worker_stats *ret)
{
	const struct task *t;

	*ret = (struct worker_stats){0};
	for (t = w->tasks; t; t = t->hh.next) {
		if (t->removing) {
			ret->removing++;
			continue;
		}
		ret->tasks++;
		ret->running += task_state(t) == PB__TASK_STATE__RUNNING;
	}
}
