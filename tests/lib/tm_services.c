/* A small orchestrator: keeps N tasks of each service running on the nodes that are ready. What it
 * leaves out (placement, update order, resources) no test of a worker needs. */
#include <string.h>

#include "tm_priv.h"

#define HISTORY 4 /* finished tasks kept per slot */

static int state_of(const struct ttask *t)
{
	return t->status ? (int)t->status->state : PB__TASK_STATE__ASSIGNED;
}

static bool final(const struct ttask *t)
{
	return api_state_final(state_of(t));
}

static struct tservice *find_service(const struct testmanager *m, const char *name)
{
	struct tservice *s;

	TAILQ_FOREACH (s, &m->services, entry)
		if (strcmp(s->name, name) == 0)
			return s;
	return NULL;
}

static void desire(struct testmanager *m, struct ttask *t, int state)
{
	if ((int)t->pb->desired_state >= state)
		return;
	t->pb->desired_state = (Pb__TaskState)state;
	tm_task_change(m, t, false);
}

/* The ready node with the fewest tasks. */
static struct tnode *place(const struct testmanager *m)
{
	struct tnode *n, *best = NULL;
	unsigned best_count = 0;

	LIST_FOREACH(n, &m->nodes, entry)
	{
		unsigned count = 0;
		struct ttask *t;

		if (!n->ready || n->removed ||
			n->availability != PB__NODE_SPEC__AVAILABILITY__ACTIVE)
			continue;
		TAILQ_FOREACH (t, &m->tasks, entry)
			count += strcmp(t->pb->node_id, n->id) == 0 && !final(t);
		if (!best || count < best_count) {
			best = n;
			best_count = count;
		}
	}
	return best;
}

static void create(struct testmanager *m, struct tservice *s, uint64_t slot)
{
	struct tnode *n = place(m);
	Pb__Task t = PB__TASK__INIT;
	Pb__Annotations none = PB__ANNOTATIONS__INIT, ann = PB__ANNOTATIONS__INIT;
	Pb__TaskStatus status = PB__TASK_STATUS__INIT;
	Pb__Timestamp now = PB__TIMESTAMP__INIT;
	Pb__Meta meta = PB__META__INIT;
	Pb__Version version = PB__VERSION__INIT;
	struct ttask *tt;
	char id[26];

	if (!n)
		return;
	tm_new_id(id);
	api_time_set(&now, (int64_t)sw_wall_ns());
	version.index = ++n->version;
	meta.version = &version;
	meta.created_at = meta.updated_at = &now;
	ann.name = s->name;
	status.timestamp = &now;
	status.state = PB__TASK_STATE__ASSIGNED;
	status.message = (char *)"scheduler assigned task to node";
	t.id = id;
	t.meta = &meta;
	t.spec = s->spec;
	t.service_id = s->id;
	t.slot = slot;
	t.node_id = n->id;
	t.annotations = &none;
	t.service_annotations = &ann;
	t.status = &status;
	t.desired_state = PB__TASK_STATE__RUNNING;
	tt = tm_task_new(m, &t);
	tt->service = s;
	tt->spec_version = s->spec_version;
	tm_task_change(m, tt, false);
}

/* Finished tasks beyond the history go; a task that was to be removed goes when it has ended. */
static void reap(struct testmanager *m, struct tservice *s)
{
	struct ttask *t, *next, *o;

	for (t = TAILQ_FIRST(&m->tasks); t; t = next) {
		unsigned younger = 0;

		next = TAILQ_NEXT(t, entry);
		if (t->service != s || !final(t))
			continue;
		for (o = next; o; o = TAILQ_NEXT(o, entry))
			younger += o->service == s && o->pb->slot == t->pb->slot;
		if (t->pb->desired_state < PB__TASK_STATE__REMOVE && younger <= HISTORY)
			continue;
		tm_task_change(m, t, true);
		tm_task_free(m, t);
	}
}

static bool on_dead_node(const struct testmanager *m, const struct ttask *t)
{
	struct tnode *n = tm_find_node(m, t->pb->node_id);

	return !n || n->removed || !n->ready;
}

/* Is there a task that fills the slot? Old specs and dead nodes' tasks are told to go. */
static bool filled(struct testmanager *m, struct tservice *s, uint64_t slot)
{
	struct ttask *t;
	bool alive = false;

	TAILQ_FOREACH (t, &m->tasks, entry) {
		if (t->service != s || t->pb->slot != slot ||
			t->pb->desired_state > PB__TASK_STATE__RUNNING)
			continue;
		if (t->spec_version != s->spec_version || on_dead_node(m, t)) {
			desire(m, t, PB__TASK_STATE__SHUTDOWN);
		} else if (!final(t)) {
			alive = true;
		} else if (s->no_restart) {
			alive = true; /* stays as it ended */
		} else {
			desire(m, t, PB__TASK_STATE__SHUTDOWN);
			sw_timer_arm(&s->restart, s->restart_delay_ns);
		}
	}
	return alive || sw_timer_armed(&s->restart);
}

static void reconcile(struct testmanager *m, struct tservice *s)
{
	struct ttask *t;

	TAILQ_FOREACH (t, &m->tasks, entry)
		if (t->service == s && (s->removed || t->pb->slot > s->replicas))
			desire(m, t, PB__TASK_STATE__REMOVE);
	for (uint64_t slot = 1; !s->removed && slot <= s->replicas; slot++)
		if (!filled(m, s, slot))
			create(m, s, slot);
	reap(m, s);
}

static bool has_tasks(const struct testmanager *m, const struct tservice *s)
{
	struct ttask *t;

	TAILQ_FOREACH (t, &m->tasks, entry)
		if (t->service == s)
			return true;
	return false;
}

void tm_reconcile(struct testmanager *m)
{
	struct tservice *s, *next;
	bool batch = m->batch;

	if (!m->orchestrate || m->closing)
		return;
	m->batch = true; /* as managers gather changes */
	for (s = TAILQ_FIRST(&m->services); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		reconcile(m, s);
		if (s->removed && !has_tasks(m, s))
			tm_service_free(s);
	}
	m->batch = batch;
	if (!batch)
		tm_flush(m);
}

static void on_restart(void *arg)
{
	tm_reconcile(((struct tservice *)arg)->m);
}

void tm_service_free(struct tservice *s)
{
	sw_timer_stop(&s->restart);
	TAILQ_REMOVE(&s->m->services, s, entry);
	free(s->name);
	api_free(s->spec);
	free(s);
}

static void set_spec(struct tservice *s, const struct tm_service *from)
{
	Pb__TaskSpec spec = PB__TASK_SPEC__INIT;
	Pb__ContainerSpec c = PB__CONTAINER_SPEC__INIT;

	api_free(s->spec);
	s->spec_version++;
	s->restart_delay_ns = from->restart_delay_ns ? from->restart_delay_ns : sw_s(5);
	s->no_restart = from->no_restart;
	c.image = (char *)from->image;
	c.args = (char **)from->args;
	c.n_args = from->n_args;
	c.env = (char **)from->env;
	c.n_env = from->n_env;
	spec.runtime_case = PB__TASK_SPEC__RUNTIME_CONTAINER;
	spec.container = &c;
	s->spec = (Pb__TaskSpec *)api_dup(from->spec ? &from->spec->base : &spec.base);
}

const char *tm_service_create(
	struct testmanager *m, const char *name, const struct tm_service *from)
{
	struct tservice *s;

	if (find_service(m, name))
		return NULL;
	s = xcalloc(1, sizeof(*s));
	s->m = m;
	tm_new_id(s->id);
	s->name = xstrdup(name);
	s->replicas = from->replicas;
	set_spec(s, from);
	sw_timer_init(&s->restart, m->loop, on_restart, s);
	TAILQ_INSERT_TAIL(&m->services, s, entry);
	tm_reconcile(m);
	return s->id;
}

bool tm_service_scale(struct testmanager *m, const char *name, unsigned replicas)
{
	struct tservice *s = find_service(m, name);

	if (!s || s->removed)
		return false;
	s->replicas = replicas;
	tm_reconcile(m);
	return true;
}

bool tm_service_update(struct testmanager *m, const char *name, const struct tm_service *from)
{
	struct tservice *s = find_service(m, name);

	if (!s || s->removed)
		return false;
	s->replicas = from->replicas;
	set_spec(s, from);
	tm_reconcile(m);
	return true;
}

bool tm_service_remove(struct testmanager *m, const char *name)
{
	struct tservice *s = find_service(m, name);

	if (!s)
		return false;
	s->removed = true;
	sw_timer_stop(&s->restart);
	tm_reconcile(m);
	return true;
}

unsigned tm_service_running(const struct testmanager *m, const char *name)
{
	struct ttask *t;
	unsigned n = 0;

	TAILQ_FOREACH (t, &m->tasks, entry)
		n += t->service && strcmp(t->service->name, name) == 0 &&
		     state_of(t) == PB__TASK_STATE__RUNNING &&
		     t->pb->desired_state == PB__TASK_STATE__RUNNING;
	return n;
}
