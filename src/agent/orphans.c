/* A container without a task: its row was lost (a restored backup, a store set aside). Nobody knows
 * before the first COMPLETE whether the manager still wants it; if it does, the task adopts it by
 * name. If not, it is stopped and removed once it was seen without an owner for the grace time.
 * Of two containers of one task the one with the task's name is the task's. */
#include "orphans.h"
#include <string.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <uthash.h>

#define PERIOD sw_s(300)

struct suspect {
	UT_hash_handle hh;
	uint64_t since_ns;
	bool seen;    /* in this listing */
	bool doubled; /* a second one of a task that has its own */
	char *task_id;
	char container_id[];
};

/* The executor's answer may come when nobody asks any more. */
struct ticket {
	struct orphans *o;
	char *container_id;
};

struct orphans {
	struct orphans_config cfg;
	struct suspect *suspects;
	struct ticket *listing, *removing;
	struct sw_timer timer;
	bool known;      /* a COMPLETE was seen */
	bool look_again; /* asked for while one runs */
};

static void on_timer(void *arg);
static void work(struct orphans *o);

struct orphans *orphans_new(const struct orphans_config *cfg)
{
	struct orphans *o = xcalloc(1, sizeof(*o));

	o->cfg = *cfg;
	sw_timer_init(&o->timer, cfg->loop, on_timer, o);
	return o;
}

static void forget(struct orphans *o, struct suspect *s)
{
	HASH_DEL(o->suspects, s);
	free(s->task_id);
	free(s);
}

void orphans_free(struct orphans *o)
{
	struct suspect *s, *next;

	if (!o)
		return;
	sw_timer_stop(&o->timer);
	HASH_ITER (hh, o->suspects, s, next)
		forget(o, s);
	if (o->listing)
		o->listing->o = NULL;
	if (o->removing)
		o->removing->o = NULL;
	free(o);
}

static struct ticket *ticket_new(struct orphans *o, const char *container_id)
{
	struct ticket *t = xcalloc(1, sizeof(*t));

	t->o = o;
	t->container_id = xstrdup(container_id);
	return t;
}

/* Frees @t; NULL if the owner is gone. */
static struct orphans *ticket_end(struct ticket *t)
{
	struct orphans *o = t->o;

	free(t->container_id);
	free(t);
	return o;
}

/* ---- the listing */

enum relation { OWN, OTHER_NAME, NO_TASK, UNLABELLED };

static enum relation relation(const struct orphans *o, const struct executor_found *f)
{
	sw_auto_free char *name = NULL;

	if (sw_str_empty(f->task_id))
		return UNLABELLED;
	name = o->cfg.task_name(o->cfg.arg, f->task_id);
	return !name ? NO_TASK : sw_streq(name, f->name) ? OWN : OTHER_NAME;
}

/* Tasks that have a container of their own name. */
struct own {
	UT_hash_handle hh;
	const char *task_id;
};

static struct own *find_own(const struct orphans *o, const struct executor_found *f, size_t n)
{
	struct own *set = NULL, *e;

	for (size_t i = 0; i < n; i++) {
		if (relation(o, &f[i]) != OWN)
			continue;
		HASH_FIND_STR(set, f[i].task_id, e);
		if (e)
			continue;
		e = xcalloc(1, sizeof(*e));
		e->task_id = f[i].task_id;
		HASH_ADD_KEYPTR(hh, set, e->task_id, strlen(e->task_id), e);
	}
	return set;
}

static void own_free(struct own *set)
{
	struct own *e = set, *next;

	HASH_CLEAR(hh, set); /* the elements stay linked */
	for (; e; e = next) {
		next = e->hh.next;
		free(e);
	}
}

static void suspect(struct orphans *o, const struct executor_found *f, bool doubled)
{
	struct suspect *s;

	HASH_FIND_STR(o->suspects, f->container_id, s);
	if (!s) {
		size_t len = strlen(f->container_id);

		s = xcalloc(1, sizeof(*s) + len + 1);
		memcpy(s->container_id, f->container_id, len + 1);
		s->task_id = xstrdup(f->task_id);
		s->since_ns = sw_now(o->cfg.loop);
		HASH_ADD_KEYPTR(hh, o->suspects, s->container_id, len, s);
		log_notice("container without a task found", KS("container", s->container_id),
			KS("name", f->name), KS("task", s->task_id),
			KU("grace_s", o->cfg.grace_ns / SW_NS_PER_S));
	}
	s->seen = true;
	s->doubled = doubled;
}

static void on_list(void *arg, const struct executor_found *f, size_t n, const struct sw_err *err)
{
	struct orphans *o = ticket_end(arg);
	struct suspect *s, *next;
	bool others = false;

	if (!o)
		return;
	o->listing = NULL;
	if (err) {
		log_debug("containers not listed", KERR(err));
		sw_timer_arm(&o->timer, PERIOD);
		return;
	}
	for (s = o->suspects; s; s = s->hh.next)
		s->seen = false;
	for (size_t i = 0; i < n; i++) {
		enum relation rel = relation(o, &f[i]);

		if (rel == NO_TASK)
			suspect(o, &f[i], false);
		others |= rel == OTHER_NAME;
	}
	if (others) { /* rare, so only then: whose task has its own container too? */
		struct own *own = find_own(o, f, n), *e;

		for (size_t i = 0; i < n; i++) {
			if (relation(o, &f[i]) != OTHER_NAME)
				continue;
			HASH_FIND_STR(own, f[i].task_id, e);
			if (e)
				suspect(o, &f[i], true);
		}
		own_free(own);
	}
	HASH_ITER (hh, o->suspects, s, next)
		if (!s->seen)
			forget(o, s);
	work(o);
}

static void look(struct orphans *o)
{
	if (o->listing) {
		o->look_again = true;
		return;
	}
	o->look_again = false;
	o->listing = ticket_new(o, NULL);
	o->cfg.executor->ops->list(o->cfg.executor, on_list, o->listing);
}

/* ---- the end of an orphan */

static void on_removed(void *arg, const struct sw_err *err)
{
	struct ticket *t = arg;
	char *id = take(t->container_id);
	struct orphans *o = ticket_end(t);
	struct suspect *s;

	if (!o) {
		free(id);
		return;
	}
	o->removing = NULL;
	HASH_FIND_STR(o->suspects, id, s);
	if (s && err) {
		log_warning("orphaned container not removed, trying again later",
			KS("container", id), KERR(err));
		s->since_ns = sw_now(o->cfg.loop);
	} else if (s) {
		log_notice("orphaned container removed", KS("container", id));
		forget(o, s);
	}
	free(id);
	work(o);
}

/* Takes the next one whose time has come, or waits for it. */
static void work(struct orphans *o)
{
	uint64_t now = sw_now(o->cfg.loop), at = now + PERIOD;
	struct suspect *s, *next;

	if (o->removing || o->listing)
		return;
	if (o->look_again) {
		look(o);
		return;
	}
	HASH_ITER (hh, o->suspects, s, next) {
		uint64_t due = s->since_ns + o->cfg.grace_ns;
		sw_auto_free char *name = NULL;

		if (due > now) {
			at = due < at ? due : at;
			continue;
		}
		name = o->cfg.task_name(o->cfg.arg, s->task_id);
		if (name && !s->doubled) { /* assigned meanwhile */
			forget(o, s);
			continue;
		}
		o->removing = ticket_new(o, s->container_id);
		o->cfg.executor->ops->remove_orphan(
			o->cfg.executor, s->container_id, on_removed, o->removing);
		return;
	}
	sw_timer_arm_at(&o->timer, at);
}

static void on_timer(void *arg)
{
	struct orphans *o = arg;

	if (!o->removing)
		look(o); /* once more before anything is removed: it may be gone or owned by now */
}

void orphans_complete(struct orphans *o)
{
	o->known = true;
	look(o);
}

void orphans_look(struct orphans *o)
{
	if (o->known)
		sw_timer_arm(&o->timer, sw_s(1));
}
