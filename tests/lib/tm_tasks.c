/* The test manager's dispatcher as far as tasks go: assignments, reports. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "tm_priv.h"

struct ttask *tm_find_task(const struct testmanager *m, const char *id)
{
	struct ttask *t;

	TAILQ_FOREACH (t, &m->tasks, entry)
		if (strcmp(t->pb->id, id) == 0)
			return t;
	return NULL;
}

struct ttask *tm_task_new(struct testmanager *m, const Pb__Task *pb)
{
	struct ttask *t = xcalloc(1, sizeof(*t));

	t->pb = (Pb__Task *)api_dup(&pb->base);
	TAILQ_INSERT_TAIL(&m->tasks, t, entry);
	return t;
}

void tm_task_free(struct testmanager *m, struct ttask *t)
{
	TAILQ_REMOVE(&m->tasks, t, entry);
	api_free(t->pb);
	api_free(t->status);
	free(t);
}

/* ---- changes on their way to a node */

void tm_changes_free(struct tnode *n)
{
	for (size_t i = 0; i < n->n_changes; i++)
		api_free(n->changes[i]);
	free(take(n->changes));
	n->n_changes = 0;
}

static void change(struct tnode *n, Pb__Assignment *a, bool remove)
{
	Pb__AssignmentChange c = PB__ASSIGNMENT_CHANGE__INIT;

	c.assignment = a;
	c.action = remove ? PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__REMOVE
			  : PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__UPDATE;
	n->changes = xrealloc(n->changes, n->n_changes + 1, sizeof(*n->changes));
	n->changes[n->n_changes++] = (Pb__AssignmentChange *)api_dup(&c.base);
}

/* As the store has it: with the status that it knows. */
static void task_item(const struct ttask *t, Pb__Assignment *a, Pb__Task *copy)
{
	*copy = *t->pb;
	if (t->status)
		copy->status = t->status;
	a->item_case = PB__ASSIGNMENT__ITEM_TASK;
	a->task = copy;
}

void tm_task_change(struct testmanager *m, struct ttask *t, bool remove)
{
	struct tnode *n = tm_find_node(m, t->pb->node_id);
	Pb__Assignment a = PB__ASSIGNMENT__INIT;
	Pb__Task copy = PB__TASK__INIT;

	if (!n || n->removed)
		return;
	if (remove) { /* only the id is filled in */
		copy.id = t->pb->id;
		a.item_case = PB__ASSIGNMENT__ITEM_TASK;
		a.task = &copy;
	} else {
		task_item(t, &a, &copy);
	}
	change(n, &a, remove);
	if (!m->batch)
		tm_flush(m);
}

static void send_changes(struct tstream *s, Pb__AssignmentChange **changes, size_t n, bool complete)
{
	Pb__AssignmentsMessage msg = PB__ASSIGNMENTS_MESSAGE__INIT;
	char applies[16] = "", results[16];

	msg.type = complete ? PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE
			    : PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL;
	if (s->seq)
		snprintf(applies, sizeof(applies), "%u", s->gap ? s->seq + 17 : s->seq);
	s->gap = false;
	snprintf(results, sizeof(results), "%u", ++s->seq);
	msg.applies_to = applies;
	msg.results_in = results;
	msg.changes = changes;
	msg.n_changes = n;
	tm_send(s->st, &msg.base);
}

void tm_flush(struct testmanager *m)
{
	struct tnode *n;
	struct tstream *s;

	LIST_FOREACH(n, &m->nodes, entry)
	{
		if (!n->n_changes)
			continue;
		LIST_FOREACH(s, &n->streams, entry)
		if (s->method == TM_ASSIGNMENTS) {
			s->gap |= m->gap;
			m->gap = false;
			send_changes(s, n->changes, n->n_changes, false);
		}
		tm_changes_free(n);
	}
}

void tm_batch(struct testmanager *m, bool on)
{
	m->batch = on;
	if (!on)
		tm_flush(m);
}

void tm_gap(struct testmanager *m)
{
	m->gap = true;
}

void tm_incremental_first(struct testmanager *m)
{
	m->incremental_first = true;
}

/* ---- the stream */

static void send_complete(struct testmanager *m, struct tstream *s)
{
	struct tnode *n = s->node;
	struct ttask *t;
	struct tdep *d;

	tm_changes_free(n); /* contained in what follows */
	LIST_FOREACH(d, &m->deps, entry)
	{
		Pb__Assignment a = PB__ASSIGNMENT__INIT;

		if (d->node != n)
			continue;
		a.item_case = d->secret ? PB__ASSIGNMENT__ITEM_SECRET : PB__ASSIGNMENT__ITEM_CONFIG;
		if (d->secret)
			a.secret = d->secret;
		else
			a.config = d->config;
		change(n, &a, false);
	}
	TAILQ_FOREACH (t, &m->tasks, entry) {
		Pb__Assignment a = PB__ASSIGNMENT__INIT;
		Pb__Task copy = PB__TASK__INIT;

		if (strcmp(t->pb->node_id, n->id) != 0)
			continue;
		task_item(t, &a, &copy);
		change(n, &a, false);
	}
	send_changes(s, n->changes, n->n_changes, true);
	tm_changes_free(n);
}

void tm_on_assignments(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	struct testmanager *m = mgr->m;
	Pb__AssignmentsRequest *req = (Pb__AssignmentsRequest *)api_unpack(
		&pb__assignments_request__descriptor, msg, len, NULL);
	struct tnode *n = req ? tm_session_caller(mgr, st, req->session_id) : NULL;
	struct tstream *s;

	api_free(req);
	if (!n)
		return;
	s = tm_stream_add(mgr, n, TM_ASSIGNMENTS, st);
	if (m->incremental_first) {
		m->incremental_first = false;
		s->seq = 4;
		send_changes(s, NULL, 0, false);
		s->seq = 0;
		return;
	}
	send_complete(m, s);
}

void tm_complete_again(struct testmanager *m)
{
	struct tnode *n;
	struct tstream *s;

	LIST_FOREACH(n, &m->nodes, entry)
	LIST_FOREACH(s, &n->streams, entry)
	if (s->method == TM_ASSIGNMENTS)
		send_complete(m, s);
}

/* ---- reports */

static void record(struct testmanager *m, const char *id, const Pb__TaskStatus *s)
{
	struct tm_report *r = &m->reports[m->n_reports++ % TM_REPORTS_MAX];

	memset(r, 0, sizeof(*r));
	snprintf(r->task_id, sizeof(r->task_id), "%s", id);
	r->state = (int)s->state;
	snprintf(r->message, sizeof(r->message), "%s", s->message);
	snprintf(r->err, sizeof(r->err), "%s", s->err);
	if (s->runtime_status_case == PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER) {
		snprintf(
			r->container_id, sizeof(r->container_id), "%s", s->container->container_id);
		r->exit_code = s->container->exit_code;
		r->pid = s->container->pid;
	}
}

static void update(struct tmgr *mgr, struct h2s_stream *st, const Pb__UpdateTaskStatusRequest *req)
{
	struct testmanager *m = mgr->m;
	struct tnode *n = tm_session_caller(mgr, st, req->session_id);
	Pb__UpdateTaskStatusResponse r = PB__UPDATE_TASK_STATUS_RESPONSE__INIT;

	if (!n)
		return;
	for (size_t i = 0; i < req->n_updates; i++) {
		struct ttask *t = tm_find_task(m, req->updates[i]->task_id);

		if (t && strcmp(t->pb->node_id, n->id) != 0) {
			h2s_end(st, DENIED, "cannot update a task not assigned this node");
			return;
		}
	}
	for (size_t i = 0; i < req->n_updates; i++) {
		struct ttask *t = tm_find_task(m, req->updates[i]->task_id);
		const Pb__TaskStatus *s = req->updates[i]->status;

		if (!s)
			continue;
		record(m, req->updates[i]->task_id, s);
		if (!t)
			continue;
		if (t->status && s->state < t->status->state) {
			m->report_faults++;
			continue;
		}
		api_free(t->status);
		t->status = (Pb__TaskStatus *)api_dup(&s->base);
	}
	tm_reply(st, &r.base);
	tm_reconcile(m);
}

void tm_on_update_status(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	Pb__UpdateTaskStatusRequest *req = (Pb__UpdateTaskStatusRequest *)api_unpack(
		&pb__update_task_status_request__descriptor, msg, len, NULL);

	if (req)
		update(mgr, st, req);
	else
		h2s_end(st, 13, "grpc: error unmarshalling request");
	api_free(req);
}

const Pb__TaskStatus *tm_status(const struct testmanager *m, const char *task_id)
{
	struct ttask *t = tm_find_task(m, task_id);

	return t ? t->status : NULL;
}

size_t tm_reports(
	const struct testmanager *m, const char *task_id, struct tm_report *out, size_t max)
{
	size_t first = m->n_reports > TM_REPORTS_MAX ? m->n_reports - TM_REPORTS_MAX : 0, n = 0;

	for (size_t i = first; i < m->n_reports && n < max; i++) {
		const struct tm_report *r = &m->reports[i % TM_REPORTS_MAX];

		if (!task_id || strcmp(r->task_id, task_id) == 0)
			out[n++] = *r;
	}
	return n;
}

unsigned tm_report_faults(const struct testmanager *m)
{
	return m->report_faults;
}

/* ---- by hand */

void tm_task_put(struct testmanager *m, const Pb__Task *pb)
{
	struct ttask *t = tm_find_task(m, pb->id);

	if (t) {
		api_free(t->pb);
		t->pb = (Pb__Task *)api_dup(&pb->base);
	} else {
		t = tm_task_new(m, pb);
	}
	tm_task_change(m, t, false);
}

void tm_task_desired(struct testmanager *m, const char *task_id, int state)
{
	struct ttask *t = tm_find_task(m, task_id);

	assert(t);
	t->pb->desired_state = (Pb__TaskState)state;
	tm_task_change(m, t, false);
}

void tm_task_delete(struct testmanager *m, const char *task_id)
{
	struct ttask *t = tm_find_task(m, task_id);

	assert(t);
	tm_task_change(m, t, true);
	tm_task_free(m, t);
}

static void dep_put(
	struct testmanager *m, const char *node_id, const Pb__Secret *s, const Pb__Config *c)
{
	struct tdep *d = xcalloc(1, sizeof(*d));
	Pb__Assignment a = PB__ASSIGNMENT__INIT;

	d->node = tm_find_node(m, node_id);
	assert(d->node);
	if (s) {
		d->secret = (Pb__Secret *)api_dup(&s->base);
		a.item_case = PB__ASSIGNMENT__ITEM_SECRET;
		a.secret = d->secret;
	} else {
		d->config = (Pb__Config *)api_dup(&c->base);
		a.item_case = PB__ASSIGNMENT__ITEM_CONFIG;
		a.config = d->config;
	}
	LIST_INSERT_HEAD(&m->deps, d, entry);
	change(d->node, &a, false);
	if (!m->batch)
		tm_flush(m);
}

void tm_secret_put(struct testmanager *m, const char *node_id, const Pb__Secret *s)
{
	dep_put(m, node_id, s, NULL);
}

void tm_config_put(struct testmanager *m, const char *node_id, const Pb__Config *c)
{
	dep_put(m, node_id, NULL, c);
}

size_t tm_tasks(const struct testmanager *m, const char *service, struct tm_task *out, size_t max)
{
	struct ttask *t;
	size_t n = 0;

	TAILQ_FOREACH (t, &m->tasks, entry) {
		const char *name = t->service ? t->service->name : "";

		if (n == max || (service && strcmp(service, name) != 0))
			continue;
		out[n++] = (struct tm_task){
			.id = t->pb->id,
			.service = name,
			.node_id = t->pb->node_id,
			.message = t->status ? t->status->message : "",
			.err = t->status ? t->status->err : "",
			.slot = t->pb->slot,
			.state = t->status ? (int)t->status->state : PB__TASK_STATE__ASSIGNED,
			.desired = (int)t->pb->desired_state,
			.task = t->pb,
		};
	}
	return n;
}

void tm_tasks_of_node_gone(struct testmanager *m, struct tnode *n)
{
	struct ttask *t, *next;
	struct tdep *d, *dnext;

	for (t = TAILQ_FIRST(&m->tasks); t; t = next) {
		next = TAILQ_NEXT(t, entry);
		if (strcmp(t->pb->node_id, n->id) == 0)
			tm_task_free(m, t);
	}
	for (d = LIST_FIRST(&m->deps); d; d = dnext) {
		dnext = LIST_NEXT(d, entry);
		if (d->node == n) {
			LIST_REMOVE(d, entry);
			api_free(d->secret);
			api_free(d->config);
			free(d);
		}
	}
}
