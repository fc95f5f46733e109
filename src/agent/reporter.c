/* One entry per task: its newest status that the manager has not got. One request at a time takes
 * up to REPORT_MAX of them, ends of tasks first; what was not delivered goes back unless something
 * newer came meanwhile.
 *
 * A manager refuses a whole request for one task that is not (any more) this node's, and does not
 * say which. The entries of such a request become suspects and are sent in halves of halves until
 * the one stands alone; that one is dropped. */
#include "reporter.h"
#include <errno.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <uthash.h>
#include <utlist.h>

#define GRPC_PERMISSION_DENIED 7
#define QUIET_NS               sw_s(60) /* between two complaints */

enum queue { Q_SUSPECT, Q_FINAL, Q_OTHER, N_QUEUES };

struct entry {
	UT_hash_handle hh;
	struct entry *prev, *next; /* in its queue, while there is something pending */
	struct status *pending, *sent;
	enum queue queue;
	bool queued, suspect, forgotten;
	char id[];
};

struct reporter {
	struct sw_loop *loop;
	struct source *src;
	struct reporter_events ev;
	void *arg;
	struct entry *entries; /* hash */
	struct entry *queues[N_QUEUES];
	size_t n_pending;
	bool registered;
	struct request *request; /* in flight */
	size_t suspects_at_once;
	struct sw_backoff backoff;
	struct sw_timer timer; /* the next request */
	uint64_t complained_ns;
};

struct request {
	struct reporter *r;
	size_t n;
	struct entry **entries;
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate *updates, **list;
	struct status **statuses; /* references, for the sake of the source's borrowing */
	char **ids;
};

static void on_timer(void *arg);

struct reporter *reporter_new(
	struct sw_loop *l, struct source *src, const struct reporter_events *ev, void *arg)
{
	struct reporter *r = xcalloc(1, sizeof(*r));

	r->loop = l;
	r->src = src;
	r->ev = *ev;
	r->arg = arg;
	r->suspects_at_once = 1;
	r->backoff = (struct sw_backoff){.base_ns = sw_ms(500), .factor = 2, .max_ns = sw_s(8)};
	sw_timer_init(&r->timer, l, on_timer, r);
	return r;
}

static void request_free(struct request *q)
{
	for (size_t i = 0; i < q->n; i++) {
		status_unref(q->statuses[i]);
		free(q->ids[i]);
	}
	free(q->entries);
	free(q->updates);
	free(q->list);
	free(q->statuses);
	free(q->ids);
	free(q);
}

static void dequeue(struct reporter *r, struct entry *e)
{
	if (!e->queued)
		return;
	DL_DELETE(r->queues[e->queue], e);
	e->queued = false;
	r->n_pending--;
}

static void enqueue(struct reporter *r, struct entry *e)
{
	enum queue q = e->suspect                               ? Q_SUSPECT
		       : api_state_final(e->pending->pb->state) ? Q_FINAL
								: Q_OTHER;

	if (e->queued && e->queue == q)
		return;
	dequeue(r, e);
	e->queue = q;
	e->queued = true;
	DL_APPEND(r->queues[q], e);
	r->n_pending++;
}

static void entry_free(struct reporter *r, struct entry *e)
{
	dequeue(r, e);
	HASH_DEL(r->entries, e);
	status_unref(e->pending);
	status_unref(e->sent);
	free(e);
}

void reporter_free(struct reporter *r)
{
	struct entry *e, *next;

	if (!r)
		return;
	if (r->request)
		request_free(r->request);
	HASH_ITER (hh, r->entries, e, next)
		entry_free(r, e);
	sw_timer_stop(&r->timer);
	free(r);
}

size_t reporter_pending(const struct reporter *r)
{
	return r->n_pending + (r->request ? r->request->n : 0);
}

static void rearm(struct reporter *r)
{
	if (r->registered && !r->request && r->n_pending && !sw_timer_armed(&r->timer))
		sw_timer_arm(&r->timer, 0);
}

void reporter_put(struct reporter *r, const char *task_id, struct status *s)
{
	struct entry *e;

	HASH_FIND_STR(r->entries, task_id, e);
	if (!e) {
		size_t len = strlen(task_id);

		e = xcalloc(1, sizeof(*e) + len + 1);
		memcpy(e->id, task_id, len + 1);
		HASH_ADD_KEYPTR(hh, r->entries, e->id, len, e);
	}
	e->forgotten = false;
	if (e->pending && (e->pending == s || e->pending->pb->state > s->pb->state))
		return;
	/* the very status that is on its way: if it fails it comes back by itself */
	if (!e->pending && e->sent == s)
		return;
	status_unref(e->pending);
	e->pending = status_ref(s);
	enqueue(r, e);
	rearm(r);
}

void reporter_forget(struct reporter *r, const char *task_id)
{
	struct entry *e;

	HASH_FIND_STR(r->entries, task_id, e);
	if (!e)
		return;
	if (e->sent) { /* freed when the request ends */
		dequeue(r, e);
		status_unref(take(e->pending));
		e->forgotten = true;
	} else {
		entry_free(r, e);
	}
	if (!reporter_pending(r) && r->ev.idle)
		r->ev.idle(r->arg);
}

void reporter_registered(struct reporter *r, bool yes)
{
	r->registered = yes;
	if (!yes) {
		sw_timer_stop(&r->timer);
		return;
	}
	sw_backoff_reset(&r->backoff);
	rearm(r);
}

/* ---- one request */

static void complain(struct reporter *r, const struct sw_err *err)
{
	uint64_t now = sw_now(r->loop);

	if (r->complained_ns && now - r->complained_ns < QUIET_NS)
		return;
	r->complained_ns = now ? now : 1;
	log_warning(
		"statuses not delivered, they are kept", KU("pending", r->n_pending), KERR(err));
}

/* Back to pending, unless something newer is. */
static void put_back(struct reporter *r, struct entry *e, struct status *s)
{
	if (e->pending) {
		enqueue(r, e); /* perhaps as a suspect now */
		return;
	}
	e->pending = status_ref(s);
	enqueue(r, e);
}

static void delivered(struct reporter *r, struct entry *e, const struct status *s)
{
	e->suspect = false;
	r->ev.acked(r->arg, e->id, s);
	if (e->pending)
		enqueue(r, e);
	else
		entry_free(r, e);
}

/* "cannot update a task not assigned this node" (swarmkit manager/dispatcher); the other refusal of
 * this code, "was removed from swarm", says nothing about tasks. */
static bool is_foreign_task(const struct sw_err *err)
{
	return err && err->domain == SW_E_GRPC && err->code == GRPC_PERMISSION_DENIED &&
	       strstr(err->msg, "not assigned");
}

static void on_answer(void *arg, const struct sw_err *err)
{
	struct request *q = arg;
	struct reporter *r = q->r;
	bool foreign = is_foreign_task(err);

	r->request = NULL;
	if (!err)
		sw_backoff_reset(&r->backoff);
	else if (!foreign)
		complain(r, err);
	if (foreign && q->n > 1)
		r->suspects_at_once = q->n / 2;
	else if (r->suspects_at_once < REPORT_MAX)
		r->suspects_at_once *= 2; /* one is found: the others in bigger portions again */
	for (size_t i = 0; i < q->n; i++) {
		struct entry *e = q->entries[i];

		status_unref(take(e->sent));
		if (e->forgotten) {
			entry_free(r, e);
		} else if (!err) {
			delivered(r, e, q->statuses[i]);
		} else if (foreign && q->n == 1) {
			log_warning("status dropped: the manager says the task is not this node's",
				KS("task", e->id),
				KS("state", api_state_name(q->statuses[i]->pb->state)));
			status_unref(take(e->pending));
			delivered(r, e, q->statuses[i]);
		} else {
			e->suspect |= foreign;
			put_back(r, e, q->statuses[i]);
		}
	}
	request_free(q);
	if (err && !foreign && r->registered) {
		/* the source loses its registration over most of these and a new one follows; if
		 * not, this is the pace */
		sw_backoff_fail(&r->backoff);
		sw_timer_arm(&r->timer, sw_ms(100) + sw_backoff_delay(&r->backoff));
	}
	rearm(r);
	if (!reporter_pending(r) && r->ev.idle)
		r->ev.idle(r->arg);
}

static size_t update_size(const struct entry *e)
{
	/* tags and lengths around it: at most 6 bytes each */
	return protobuf_c_message_get_packed_size(&e->pending->pb->base) + strlen(e->id) + 24;
}

/* Takes entries off @queue into @q while there is room. */
static void fill(struct reporter *r, struct request *q, enum queue queue, size_t max, size_t *bytes)
{
	struct entry *e, *tmp;

	DL_FOREACH_SAFE (r->queues[queue], e, tmp) {
		size_t size = update_size(e);
		Pb__UpdateTaskStatusRequest__TaskStatusUpdate *u = &q->updates[q->n];

		if (q->n == max || (q->n && *bytes + size > REPORT_MAX_BYTES))
			return;
		*bytes += size;
		dequeue(r, e);
		e->sent = take(e->pending);
		pb__update_task_status_request__task_status_update__init(u);
		q->ids[q->n] = u->task_id = xstrdup(e->id);
		q->statuses[q->n] = status_ref(e->sent);
		u->status = e->sent->pb;
		q->entries[q->n] = e;
		q->list[q->n++] = u;
	}
}

static void on_timer(void *arg)
{
	struct reporter *r = arg;
	struct request *q;
	size_t bytes = 0, max;

	if (!r->registered || r->request || !r->n_pending)
		return;
	max = r->n_pending < REPORT_MAX ? r->n_pending : REPORT_MAX;
	q = xcalloc(1, sizeof(*q));
	q->r = r;
	q->entries = xcalloc(max, sizeof(struct entry *));
	q->updates = xcalloc(max, sizeof(*q->updates));
	q->list = xcalloc(max, sizeof(*q->list));
	q->statuses = xcalloc(max, sizeof(*q->statuses));
	q->ids = xcalloc(max, sizeof(*q->ids));
	if (r->queues[Q_SUSPECT]) {
		fill(r, q, Q_SUSPECT, r->suspects_at_once < max ? r->suspects_at_once : max,
			&bytes);
	} else {
		fill(r, q, Q_FINAL, max, &bytes);
		fill(r, q, Q_OTHER, max, &bytes);
	}
	r->request = q;
	r->src->ops->update_status(r->src, q->list, q->n, on_answer, q);
}
