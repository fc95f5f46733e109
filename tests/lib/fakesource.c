#include "fakesource.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>
#include <uthash.h>
#include <utlist.h>

struct known {
	UT_hash_handle hh;
	char id[80];
	Pb__TaskStatus *st;
	int highest;
	bool assigned, dropped, named;
	char *states;
};

struct foreign {
	struct foreign *next;
	char id[80];
};

struct source_logs {
	struct source_logs *prev, *next;
	struct fakesource *s;
	struct fake_publisher pub;
	void (*writable)(void *arg);
	void (*ended)(void *arg, const struct sw_err *err);
	void *arg;
	struct sw_timer timer;
	bool over, wait;
};

struct fakesource {
	struct source base;
	struct sw_loop *loop;
	struct source_events ev;
	void *arg;
	bool started, closed, registered, hold;
	unsigned describes, done, fail, n_requests, room, in_flight, max_in_flight, went_back;
	struct sw_err fail_err;
	struct foreign *foreign;
	char hostname[64];
	struct fake_request *requests;
	struct known *known;
	source_update_cb *cb;
	void *cb_arg;
	struct sw_timer answer, close;
	void (*closed_cb)(void *arg);
	void *closed_arg;
	void (*watch)(void *arg, const char *task_id, const Pb__TaskStatus *st);
	void *watch_arg;
	struct source_logs *logs;
	bool stall;
};

static struct fakesource *of(struct source *s)
{
	return sw_container_of(s, struct fakesource, base);
}

static int op_open(struct source *s, const struct source_events *ev, void *arg, struct sw_err *err)
{
	(void)err;
	of(s)->ev = *ev;
	of(s)->arg = arg;
	return 0;
}

static void op_describe(struct source *s, const Pb__NodeDescription *desc)
{
	of(s)->describes++;
	snprintf(of(s)->hostname, sizeof(of(s)->hostname), "%s", desc->hostname);
}

static void op_start(struct source *s, const Pb__NodeDescription *desc)
{
	of(s)->started = true;
	op_describe(s, desc);
}

static void op_done(struct source *s)
{
	of(s)->done++;
}

static struct known *known(struct fakesource *s, const char *id)
{
	struct known *k;

	HASH_FIND_STR(s->known, id, k);
	if (!k) {
		k = xcalloc(1, sizeof(*k));
		snprintf(k->id, sizeof(k->id), "%s", id);
		HASH_ADD_STR(s->known, id, k);
	}
	return k;
}

static void learn(struct fakesource *s, const char *id, const Pb__TaskStatus *st)
{
	struct known *k = known(s, id);
	char *states;

	k->dropped |= !k->assigned;
	if ((int)st->state < k->highest && !k->dropped)
		s->went_back++;
	else
		k->highest = st->state;
	api_free(k->st);
	k->st = (Pb__TaskStatus *)(void *)api_dup(&st->base);
	states = xasprintf("%s%s%s", k->states ? k->states : "", k->states ? " " : "",
		api_state_name(st->state));
	free(k->states);
	k->states = states;
}

static void on_answer(void *arg)
{
	struct fakesource *s = arg;
	const struct fake_request *q = &s->requests[s->n_requests - 1];
	struct sw_err err = SW_ERR_NONE;
	struct foreign *f;
	source_update_cb *cb = take(s->cb);

	s->in_flight--;
	if (!s->registered) {
		sw_err_set(&err, SW_TEMPORARY, -ENOTCONN, "not registered");
	} else if (s->fail) {
		s->fail--;
		err = s->fail_err;
	}
	for (size_t i = 0; i < q->n && !err.cls; i++)
		LL_FOREACH (s->foreign, f)
			if (strcmp(f->id, q->ids[i]) == 0)
				sw_err_setd(&err, SW_REJECTED, SW_E_GRPC, 7,
					"cannot update a task not assigned this node");
	if (!err.cls)
		for (size_t i = 0; i < q->n; i++)
			learn(s, q->ids[i], q->statuses[i]);
	cb(s->cb_arg, err.cls ? &err : NULL);
}

static void op_update(struct source *src, Pb__UpdateTaskStatusRequest__TaskStatusUpdate **updates,
	size_t n, source_update_cb *cb, void *arg)
{
	struct fakesource *s = of(src);
	const Pb__TaskStatus **sts = xcalloc(n, sizeof(*sts));
	const char **ids = xcalloc(n, sizeof(*ids));

	if (s->n_requests == s->room) {
		s->room = s->room ? 2 * s->room : 64;
		s->requests = xrealloc(s->requests, s->room, sizeof(*s->requests));
	}
	for (size_t i = 0; i < n; i++) {
		sts[i] = (Pb__TaskStatus *)(void *)api_dup(&updates[i]->status->base);
		ids[i] = xstrdup(updates[i]->task_id);
		if (s->watch)
			s->watch(s->watch_arg, ids[i], sts[i]);
	}
	s->requests[s->n_requests++] =
		(struct fake_request){.n = n, .statuses = sts, .ids = (const char *const *)ids};
	if (++s->in_flight > s->max_in_flight)
		s->max_in_flight = s->in_flight;
	s->cb = cb;
	s->cb_arg = arg;
	if (!s->hold)
		sw_timer_arm(&s->answer, 0);
}

/* ---- logs */

static void on_log_timer(void *arg)
{
	struct source_logs *l = arg;

	if (l->pub.finished) {
		l->over = true;
		l->ended(l->arg, NULL);
	} else if (l->wait && !l->s->stall) {
		l->wait = false;
		l->writable(l->arg);
	}
}

static struct source_logs *op_publish(struct source *src, const char *id,
	void (*writable)(void *arg), void (*ended)(void *arg, const struct sw_err *err), void *arg)
{
	struct fakesource *s = of(src);
	struct source_logs *l;

	if (!s->registered)
		return NULL;
	l = xcalloc(1, sizeof(*l));
	l->s = s;
	snprintf(l->pub.id, sizeof(l->pub.id), "%s", id);
	l->writable = writable;
	l->ended = ended;
	l->arg = arg;
	sw_timer_init(&l->timer, s->loop, on_log_timer, l);
	DL_PREPEND(s->logs, l);
	return l;
}

static bool op_logs_send(struct source_logs *l, Pb__LogMessage **msgs, size_t n)
{
	unsigned bytes = 0;

	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(l->pub.text), clen = strlen(l->pub.contexts);

		bytes += (unsigned)msgs[i]->data.len;
		snprintf(l->pub.text + len, sizeof(l->pub.text) - len, "%.*s",
			(int)msgs[i]->data.len, (const char *)msgs[i]->data.data);
		snprintf(l->pub.contexts + clen, sizeof(l->pub.contexts) - clen, "%s/%s/%s ",
			msgs[i]->context->service_id, msgs[i]->context->node_id,
			msgs[i]->context->task_id);
	}
	l->pub.n_messages += (unsigned)n;
	l->pub.n_sends++;
	if (bytes > l->pub.max_batch_bytes)
		l->pub.max_batch_bytes = bytes;
	l->wait = l->s->stall;
	return !l->wait;
}

static void op_logs_finish(struct source_logs *l)
{
	l->pub.finished = true;
	sw_timer_arm(&l->timer, 0);
}

static void op_logs_cancel(struct source_logs *l)
{
	if (!l)
		return;
	l->pub.cancelled = true;
	l->over = true;
	sw_timer_stop(&l->timer);
}

void fakesource_stall_logs(struct fakesource *s, bool stall)
{
	struct source_logs *l;

	s->stall = stall;
	DL_FOREACH (s->logs, l)
		if (!stall && l->wait && !l->over)
			sw_timer_arm(&l->timer, 0);
}

const struct fake_publisher *fakesource_publisher(struct fakesource *s, const char *id)
{
	struct source_logs *l;

	DL_FOREACH (s->logs, l)
		if (strcmp(l->pub.id, id) == 0)
			return &l->pub;
	return NULL;
}

void fakesource_subscribe(struct fakesource *s, const Pb__SubscriptionMessage *m)
{
	s->ev.subscription(s->arg, m);
}

/* ---- */

static void op_stats(const struct source *src, struct source_stats *ret)
{
	const struct fakesource *s = sw_container_of(src, const struct fakesource, base);

	*ret = (struct source_stats){
		.registered = s->registered, .manager_addr = s->registered ? "fake:2377" : ""};
}

static void on_close(void *arg)
{
	struct fakesource *s = arg;

	s->closed = true;
	s->closed_cb(s->closed_arg);
}

static void op_close(struct source *src, void (*closed)(void *arg), void *arg)
{
	struct fakesource *s = of(src);

	s->registered = false;
	sw_timer_stop(&s->answer);
	s->closed_cb = closed;
	s->closed_arg = arg;
	sw_timer_arm(&s->close, 0);
}

struct fakesource *fakesource_new(struct sw_loop *l)
{
	static const struct source_ops ops = {
		.open = op_open,
		.start = op_start,
		.describe = op_describe,
		.assignments_done = op_done,
		.update_status = op_update,
		.publish_logs = op_publish,
		.logs_send = op_logs_send,
		.logs_finish = op_logs_finish,
		.logs_cancel = op_logs_cancel,
		.stats = op_stats,
		.close = op_close,
	};
	struct fakesource *s = xcalloc(1, sizeof(*s));

	s->base.ops = &ops;
	s->loop = l;
	sw_timer_init(&s->answer, l, on_answer, s);
	sw_timer_init(&s->close, l, on_close, s);
	return s;
}

void fakesource_forget_requests(struct fakesource *s)
{
	for (unsigned i = 0; i < s->n_requests; i++) {
		for (size_t j = 0; j < s->requests[i].n; j++) {
			api_free((void *)(uintptr_t)s->requests[i].statuses[j]);
			free((void *)(uintptr_t)s->requests[i].ids[j]);
		}
		free((void *)(uintptr_t)s->requests[i].statuses);
		free((void *)(uintptr_t)s->requests[i].ids);
	}
	s->n_requests = 0;
}

void fakesource_free(struct fakesource *s)
{
	struct known *k, *knext;
	struct foreign *f, *fnext;
	struct source_logs *l, *lnext;

	if (!s)
		return;
	sw_timer_stop(&s->answer);
	sw_timer_stop(&s->close);
	fakesource_forget_requests(s);
	free(s->requests);
	HASH_ITER (hh, s->known, k, knext) {
		HASH_DEL(s->known, k);
		api_free(k->st);
		free(k->states);
		free(k);
	}
	LL_FOREACH_SAFE(s->foreign, f, fnext)
	free(f);
	DL_FOREACH_SAFE (s->logs, l, lnext) {
		sw_timer_stop(&l->timer);
		free(l);
	}
	free(s);
}

struct source *fakesource_source(struct fakesource *s)
{
	return &s->base;
}

bool fakesource_started(struct fakesource *s)
{
	return s->started;
}

bool fakesource_closed(struct fakesource *s)
{
	return s->closed;
}

unsigned fakesource_describes(struct fakesource *s)
{
	return s->describes;
}

const char *fakesource_hostname(struct fakesource *s)
{
	return s->hostname;
}

void fakesource_register(struct fakesource *s)
{
	s->registered = true;
	s->ev.registered(s->arg, "session1", "fake:2377");
}

void fakesource_lose(struct fakesource *s)
{
	struct sw_err err;

	sw_err_set(&err, SW_TEMPORARY, -ECONNRESET, "lost");
	s->registered = false;
	if (s->cb && s->hold)
		sw_timer_arm(&s->answer, 0); /* the call in flight fails with the registration */
	s->ev.lost(s->arg, &err);
}

void fakesource_remove_node(struct fakesource *s)
{
	struct sw_err err;

	sw_err_setd(&err, SW_FATAL, SW_E_GRPC, 7, "node was removed from swarm");
	s->registered = false;
	s->ev.lost(s->arg, &err);
	s->ev.removed(s->arg, &err);
}

void fakesource_node(struct fakesource *s, const char *hostname)
{
	Pb__Node n = PB__NODE__INIT;
	Pb__NodeDescription d = PB__NODE_DESCRIPTION__INIT;

	n.id = (char *)(uintptr_t)FAKE_NODE;
	d.hostname = (char *)(uintptr_t)hostname;
	n.description = &d;
	s->ev.node(s->arg, &n);
}

void fakesource_keys(struct fakesource *s, uint64_t lamport)
{
	Pb__EncryptionKey k = PB__ENCRYPTION_KEY__INIT, *list[] = {&k};
	uint8_t key[] = "0123456789abcdef";

	k.subsystem = (char *)(uintptr_t) "networking:gossip";
	k.key.data = key;
	k.key.len = 16;
	k.lamport_time = lamport;
	s->ev.keys(s->arg, list, 1);
}

void fakesource_send(struct fakesource *s, Pb__AssignmentsMessage *m)
{
	struct known *k, *next;
	bool complete = m->type == PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE;

	HASH_ITER (hh, s->known, k, next)
		k->named = false;
	for (size_t i = 0; i < m->n_changes; i++) {
		const Pb__Assignment *a = m->changes[i]->assignment;
		bool remove =
			m->changes[i]->action == PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__REMOVE;

		if (a->item_case != PB__ASSIGNMENT__ITEM_TASK || !a->task || (complete && remove))
			continue;
		k = known(s, a->task->id);
		k->named = k->assigned = !remove;
		k->dropped |= remove;
	}
	/* a task that is dropped and assigned again begins anew, and words of its first life may
	 * still be on their way: nothing can be said about its order any more */
	HASH_ITER (hh, s->known, k, next)
		if (complete && !k->named) {
			k->dropped = true;
			k->assigned = false;
		}
	s->ev.assignments(s->arg, m);
}

unsigned fakesource_done(struct fakesource *s)
{
	return s->done;
}

void fakesource_fail(struct fakesource *s, unsigned n, const struct sw_err *err)
{
	s->fail = n;
	s->fail_err = *err;
}

void fakesource_foreign(struct fakesource *s, const char *task_id)
{
	struct foreign *f = xcalloc(1, sizeof(*f));

	snprintf(f->id, sizeof(f->id), "%s", task_id);
	LL_PREPEND(s->foreign, f);
}

void fakesource_hold(struct fakesource *s, bool hold)
{
	s->hold = hold;
	if (!hold && s->cb)
		sw_timer_arm(&s->answer, 0);
}

void fakesource_watch(struct fakesource *s,
	void (*cb)(void *arg, const char *task_id, const Pb__TaskStatus *st), void *arg)
{
	s->watch = cb;
	s->watch_arg = arg;
}

unsigned fakesource_requests(struct fakesource *s)
{
	return s->n_requests;
}

const struct fake_request *fakesource_request(struct fakesource *s, unsigned i)
{
	return i < s->n_requests ? &s->requests[i] : NULL;
}

unsigned fakesource_max_in_flight(struct fakesource *s)
{
	return s->max_in_flight;
}

const Pb__TaskStatus *fakesource_status(struct fakesource *s, const char *task_id)
{
	struct known *k;

	HASH_FIND_STR(s->known, task_id, k);
	return k ? k->st : NULL;
}

const char *fakesource_states(struct fakesource *s, const char *task_id)
{
	struct known *k;

	HASH_FIND_STR(s->known, task_id, k);
	return k && k->states ? k->states : "";
}

unsigned fakesource_went_back(struct fakesource *s)
{
	return s->went_back;
}

/* ---- builders */

Pb__Task *fake_task(const char *id, int desired, int state)
{
	Pb__Task t = PB__TASK__INIT;
	Pb__TaskSpec spec = PB__TASK_SPEC__INIT;
	Pb__ContainerSpec c = PB__CONTAINER_SPEC__INIT;
	Pb__Annotations service = PB__ANNOTATIONS__INIT;
	Pb__TaskStatus st = PB__TASK_STATUS__INIT;
	Pb__Timestamp at = PB__TIMESTAMP__INIT;
	char *args[] = {(char *)(uintptr_t) "sleep", (char *)(uintptr_t) "1000"};

	t.id = (char *)(uintptr_t)id;
	t.node_id = (char *)(uintptr_t)FAKE_NODE;
	t.service_id = (char *)(uintptr_t) "service1";
	t.slot = 1;
	t.desired_state = (Pb__TaskState)desired;
	service.name = (char *)(uintptr_t) "web";
	t.service_annotations = &service;
	c.image = (char *)(uintptr_t) "busybox:latest";
	c.args = args;
	c.n_args = 2;
	spec.runtime_case = PB__TASK_SPEC__RUNTIME_CONTAINER;
	spec.container = &c;
	t.spec = &spec;
	st.state = (Pb__TaskState)state;
	at.seconds = (int64_t)(sw_wall_ns() / SW_NS_PER_S) - 1;
	st.timestamp = &at;
	t.status = &st;
	return (Pb__Task *)(void *)api_dup(&t.base);
}

Pb__Task *fake_task_secret(const char *id, int desired, int state, const char *secret_id)
{
	Pb__Task *t = fake_task(id, desired, state);
	Pb__SecretReference ref = PB__SECRET_REFERENCE__INIT, *refs[] = {&ref};
	Pb__Task *ret;

	ref.secret_id = (char *)(uintptr_t)secret_id;
	ref.secret_name = (char *)(uintptr_t) "s";
	t->spec->container->secrets = refs;
	t->spec->container->n_secrets = 1;
	ret = (Pb__Task *)(void *)api_dup(&t->base);
	t->spec->container->secrets = NULL;
	t->spec->container->n_secrets = 0;
	api_free(t);
	return ret;
}

Pb__Secret *fake_secret(const char *id, const char *data)
{
	Pb__Secret s = PB__SECRET__INIT;
	Pb__SecretSpec spec = PB__SECRET_SPEC__INIT;

	s.id = (char *)(uintptr_t)id;
	spec.data.data = (uint8_t *)(uintptr_t)data;
	spec.data.len = strlen(data);
	s.spec = &spec;
	return (Pb__Secret *)(void *)api_dup(&s.base);
}

Pb__Config *fake_config(const char *id, const char *data)
{
	Pb__Config c = PB__CONFIG__INIT;
	Pb__ConfigSpec spec = PB__CONFIG_SPEC__INIT;

	c.id = (char *)(uintptr_t)id;
	spec.data.data = (uint8_t *)(uintptr_t)data;
	spec.data.len = strlen(data);
	c.spec = &spec;
	return (Pb__Config *)(void *)api_dup(&c.base);
}

Pb__AssignmentsMessage *fake_message(bool complete)
{
	Pb__AssignmentsMessage *m = xcalloc(1, sizeof(*m));

	pb__assignments_message__init(m);
	m->type = complete ? PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE
			   : PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL;
	return m;
}

static Pb__Assignment *add(Pb__AssignmentsMessage *m, bool remove)
{
	Pb__AssignmentChange *c = xcalloc(1, sizeof(*c));
	Pb__Assignment *a = xcalloc(1, sizeof(*a));

	pb__assignment_change__init(c);
	pb__assignment__init(a);
	c->action = remove ? PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__REMOVE
			   : PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__UPDATE;
	c->assignment = a;
	m->changes = xrealloc(m->changes, m->n_changes + 1, sizeof(*m->changes));
	m->changes[m->n_changes++] = c;
	return a;
}

void fake_add_task(Pb__AssignmentsMessage *m, Pb__Task *t, bool remove)
{
	Pb__Assignment *a = add(m, remove);

	a->item_case = PB__ASSIGNMENT__ITEM_TASK;
	a->task = t;
}

void fake_add_secret(Pb__AssignmentsMessage *m, Pb__Secret *x, bool remove)
{
	Pb__Assignment *a = add(m, remove);

	a->item_case = PB__ASSIGNMENT__ITEM_SECRET;
	a->secret = x;
}

void fake_add_config(Pb__AssignmentsMessage *m, Pb__Config *x, bool remove)
{
	Pb__Assignment *a = add(m, remove);

	a->item_case = PB__ASSIGNMENT__ITEM_CONFIG;
	a->config = x;
}
