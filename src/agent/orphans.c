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

static bool has_named_one(const struct executor_found *f, size_t n, size_t self,
	const char *task_id, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (i != self && sw_streq(f[i].task_id, task_id) && sw_streq(f[i].name, name))
			return true;
	return false;
}

/* Nobody's, or the second one of a task. */
static bool is_orphan(
	const struct orphans *o, const struct executor_found *f, size_t n, size_t i, bool *doubled)
{
	sw_auto_free char *name = NULL;

	*doubled = false;
	if (sw_str_empty(f[i].task_id))
		return false;
	name = o->cfg.task_name(o->cfg.arg, f[i].task_id);
	if (!name)
		return true;
	*doubled = !sw_streq(name, f[i].name) && has_named_one(f, n, i, f[i].task_id, name);
	return *doubled;
}

static void on_list(void *arg, const struct executor_found *f, size_t n, const struct sw_err *err)
{
	struct orphans *o = ticket_end(arg);
	struct suspect *s, *next;
	uint64_t now;

	if (!o)
		return;
	o->listing = NULL;
	if (err) {
		log_debug("containers not listed", KERR(err));
		sw_timer_arm(&o->timer, PERIOD);
		return;
	}
	now = sw_now(o->cfg.loop);
	for (s = o->suspects; s; s = s->hh.next)
		s->seen = false;
	for (size_t i = 0; i < n; i++) {
		bool doubled;

		if (!is_orphan(o, f, n, i, &doubled))
			continue;
		HASH_FIND_STR(o->suspects, f[i].container_id, s);
		if (!s) {
			size_t len = strlen(f[i].container_id);

			s = xcalloc(1, sizeof(*s) + len + 1);
			memcpy(s->container_id, f[i].container_id, len + 1);
			s->task_id = xstrdup(f[i].task_id);
			s->since_ns = now;
			HASH_ADD_KEYPTR(hh, o->suspects, s->container_id, len, s);
			log_notice("container without a task found",
				KS("container", s->container_id), KS("name", f[i].name),
				KS("task", s->task_id),
				KU("grace_s", o->cfg.grace_ns / SW_NS_PER_S));
		}
		s->seen = true;
		s->doubled = doubled;
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
