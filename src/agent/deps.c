/* Secrets from drivers that must not be reused arrive once per task, under "SECRETID.TASKID"; the
 * task asks for SECRETID (swarmkit agent/secrets). Each entry therefore keeps a view of the object
 * under its plain id, so that the shared object itself is never renamed. */
#include "deps.h"
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <uthash.h>

struct dep {
	UT_hash_handle hh;
	char *id;    /* as it arrived */
	char *plain; /* without ".TASKID" */
	Pb__Secret *secret, secret_view;
	Pb__Config *config, config_view;
};

struct deps {
	struct dep *secrets, *configs;
	const Pb__Task *(*task)(void *arg, const char *task_id);
	void *task_arg;
};

struct deps *deps_new(const Pb__Task *(*task)(void *arg, const char *task_id), void *arg)
{
	struct deps *d = xcalloc(1, sizeof(*d));

	d->task = task;
	d->task_arg = arg;
	return d;
}

static void wipe_bytes(ProtobufCBinaryData *b)
{
	sw_wipe(b->data, b->len);
}

static void dep_free(struct dep *e)
{
	if (e->secret && e->secret->spec)
		wipe_bytes(&e->secret->spec->data);
	if (e->config && e->config->spec)
		wipe_bytes(&e->config->spec->data);
	api_free(e->secret);
	api_free(e->config);
	free(e->id);
	free(e->plain);
	free(e);
}

static void set_clear(struct dep **set)
{
	struct dep *e = *set, *next;

	HASH_CLEAR(hh, *set); /* the elements stay linked */
	for (; e; e = next) {
		next = e->hh.next;
		dep_free(e);
	}
}

void deps_free(struct deps *d)
{
	if (!d)
		return;
	set_clear(&d->secrets);
	set_clear(&d->configs);
	free(d);
}

size_t deps_count(const struct deps *d)
{
	return HASH_COUNT(d->secrets) + HASH_COUNT(d->configs);
}

static struct dep *find(struct dep *set, const char *id)
{
	struct dep *e;

	HASH_FIND_STR(set, id, e);
	return e;
}

static void set_remove(struct dep **set, const char *id)
{
	struct dep *e = find(*set, id);

	if (!e)
		return;
	HASH_DEL(*set, e);
	dep_free(e);
}

/* "ID" or "ID.TASKID"; gives the plain part. */
static char *plain_id(const char *id)
{
	const char *dot = strchr(id, '.');
	char *plain = dot ? xstrndup(id, (size_t)(dot - id)) : xstrdup(id);

	if (api_id_valid(plain) && (!dot || api_id_valid(dot + 1)))
		return plain;
	free(plain);
	return NULL;
}

static bool set_add(struct dep **set, const char *id, Pb__Secret *secret, Pb__Config *config)
{
	struct dep *e = xcalloc(1, sizeof(*e));

	e->secret = secret;
	e->config = config;
	e->plain = plain_id(id);
	if (!e->plain) {
		log_warning("assigned secret or config ignored: its id is no id");
		dep_free(e);
		return false;
	}
	e->id = xstrdup(id);
	if (secret) {
		e->secret_view = *secret;
		e->secret_view.id = e->plain;
	} else {
		e->config_view = *config;
		e->config_view.id = e->plain;
	}
	set_remove(set, id);
	HASH_ADD_KEYPTR(hh, *set, e->id, strlen(e->id), e);
	return true;
}

bool deps_apply(struct deps *d, Pb__AssignmentsMessage *m)
{
	bool complete = m->type == PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE, added = false;

	if (complete) {
		set_clear(&d->secrets);
		set_clear(&d->configs);
	}
	for (size_t i = 0; i < m->n_changes && !complete; i++) {
		const Pb__Assignment *a = m->changes[i]->assignment;

		if (!a || m->changes[i]->action != PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__REMOVE)
			continue;
		if (a->item_case == PB__ASSIGNMENT__ITEM_SECRET && a->secret)
			set_remove(&d->secrets, a->secret->id);
		else if (a->item_case == PB__ASSIGNMENT__ITEM_CONFIG && a->config)
			set_remove(&d->configs, a->config->id);
	}
	for (size_t i = 0; i < m->n_changes; i++) {
		Pb__Assignment *a = m->changes[i]->assignment;

		if (!a || m->changes[i]->action != PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__UPDATE)
			continue;
		if (a->item_case == PB__ASSIGNMENT__ITEM_SECRET && a->secret) {
			Pb__Secret *s = take(a->secret);

			a->item_case = PB__ASSIGNMENT__ITEM__NOT_SET;
			added |= set_add(&d->secrets, s->id, s, NULL);
		} else if (a->item_case == PB__ASSIGNMENT__ITEM_CONFIG && a->config) {
			Pb__Config *c = take(a->config);

			a->item_case = PB__ASSIGNMENT__ITEM__NOT_SET;
			added |= set_add(&d->configs, c->id, NULL, c);
		}
	}
	return added;
}

void deps_wipe_message(Pb__AssignmentsMessage *m)
{
	for (size_t i = 0; i < m->n_changes; i++) {
		Pb__Assignment *a = m->changes[i]->assignment;

		if (!a)
			continue;
		if (a->item_case == PB__ASSIGNMENT__ITEM_SECRET && a->secret && a->secret->spec)
			wipe_bytes(&a->secret->spec->data);
		else if (a->item_case == PB__ASSIGNMENT__ITEM_CONFIG && a->config &&
			 a->config->spec)
			wipe_bytes(&a->config->spec->data);
	}
}

static const Pb__ContainerSpec *container_of(const struct deps *d, const char *task_id)
{
	const Pb__Task *t = d->task(d->task_arg, task_id);

	if (!t || !t->spec || t->spec->runtime_case != PB__TASK_SPEC__RUNTIME_CONTAINER)
		return NULL;
	return t->spec->container;
}

static struct dep *lookup(struct dep *set, const char *task_id, const char *id)
{
	char *own = xasprintf("%s.%s", id, task_id);
	struct dep *e = find(set, own);

	free(own);
	return e ? e : find(set, id);
}

static const Pb__Secret *get_secret(void *arg, const char *task_id, const char *id)
{
	struct deps *d = arg;
	const Pb__ContainerSpec *spec = container_of(d, task_id);

	for (size_t i = 0; spec && i < spec->n_secrets; i++)
		if (strcmp(spec->secrets[i]->secret_id, id) == 0) {
			struct dep *e = strchr(id, '.') ? NULL : lookup(d->secrets, task_id, id);

			return e ? &e->secret_view : NULL;
		}
	return NULL;
}

static const Pb__Config *get_config(void *arg, const char *task_id, const char *id)
{
	struct deps *d = arg;
	const Pb__ContainerSpec *spec = container_of(d, task_id);

	for (size_t i = 0; spec && i < spec->n_configs; i++)
		if (strcmp(spec->configs[i]->config_id, id) == 0) {
			struct dep *e = strchr(id, '.') ? NULL : lookup(d->configs, task_id, id);

			return e ? &e->config_view : NULL;
		}
	return NULL;
}

static bool knows_task(void *arg, const char *task_id)
{
	struct deps *d = arg;

	return d->task(d->task_arg, task_id) != NULL;
}

void deps_getters(struct deps *d, struct executor_deps *ret)
{
	*ret = (struct executor_deps){
		.secret = get_secret, .config = get_config, .knows_task = knows_task, .arg = d};
}
