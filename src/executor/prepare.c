/* prepare.c - everything so that start is immediate.
 *
 * Every step may be repeated after a crash: the container's name is all that is needed to find out
 * what was done. A container of the task that is there already, in whatever state, is the result;
 * one of that name that is not the task's stays untouched.
 *
 * Failures: before the create nothing is left behind but volumes; an answer lost during the create
 * is temporary, and the next prepare finds the container. A create that is under way is not
 * interrupted. Cancelled while pulling, the pull goes on and is joined by the next prepare. */
#include "ctl.h"
#include "extras.h"
#include "files.h"
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#define CREATE_TRIES 3

enum { LOOK, NET_TURN, LOCALNETS, VOLUMES, IMAGE, FILES, SLOT, CREATE, ADOPT, NETWORKS, UNDO };

static const Pb__ContainerSpec *spec(const struct ctl *c)
{
	return spec_container(c->task->pb);
}

/* ---- look: was it created before? */

static void adopt(struct ctl *c, const struct engine_container *k)
{
	struct sw_err err;

	if (!ctl_is_ours(c, k)) {
		sw_err_set(&err, SW_REJECTED, -EEXIST,
			"container name \"%s\" is taken by container %.12s, which does not belong "
			"to this task",
			c->name, k->id);
		steps_done(&c->op, &err);
		return;
	}
	ctl_see(c, k);
	c->already = true;
	log_info("container of this task found", KS("task", c->task_id), KS("container", k->id),
		KS("status", k->status));
	steps_jump(&c->op, sw_streq(k->status, "created") ? NETWORKS : STEP_END);
}

static void on_look(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct ctl *c = arg;
	struct spec_env env = docker_env(c->d);
	struct sw_err refused = SW_ERR_NONE;

	c->call = NULL;
	if (k) {
		adopt(c, k);
	} else if (fault_http(err, 404)) {
		/* Here and not at the task's arrival: a container that is there stays, whatever the
		 * operator changed meanwhile. */
		extras_check(c->task->pb, &env, &refused);
		steps_done(&c->op, &refused);
	} else {
		ctl_fail(c, err, FAULT_READ);
	}
}

static void start_look(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	ctl_see(c, NULL);
	c->call = engine_container_inspect(c->d->engine, c->name, on_look, c);
}

/* ---- volumes that name a driver, one by one */

static void next_volume(struct ctl *c);

static void on_volume(void *arg, struct json_object *o, const struct sw_err *err)
{
	struct ctl *c = arg;

	(void)o;
	c->call = NULL;
	if (err && err->cls)
		ctl_fail(c, err, FAULT_PREPARE);
	else
		next_volume(c);
}

static void next_volume(struct ctl *c)
{
	while (c->at < spec(c)->n_mounts) {
		struct json_object *body = spec_volume_body(c->task->pb, c->at++);

		if (!body)
			continue;
		c->call = engine_volume_create(c->d->engine, body, on_volume, c);
		json_object_put(body);
		return;
	}
	steps_done(&c->op, NULL);
}

static void start_volumes(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->at = 0;
	next_volume(c);
}

/* ---- image */

static void on_image(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;

	steps_done(&c->op, err); /* classified by images.c */
}

static void on_image_progress(void *arg, const char *text)
{
	struct ctl *c = arg;

	if (c->base.progress)
		c->base.progress(c->base.progress_arg, text);
}

static void start_image(struct steps *s)
{
	struct ctl *c = steps_arg(s);
	const Pb__ContainerSpec__PullOptions *p = spec(c)->pull_options;

	if (c->image.have) { /* came while nobody listened */
		c->image.have = false;
		steps_done(s, NULL);
		return;
	}
	c->image.progress = on_image_progress;
	image_want(
		&c->d->images, &c->image, spec(c)->image, p ? p->registry_auth : NULL, on_image, c);
}

static void cancel_image(struct steps *s)
{
	image_leave(&((struct ctl *)steps_arg(s))->image);
}

/* ---- files of secrets and configs: late, so that they live short, and before the create, which
 * wants to see what it mounts */

static void on_files(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->files = NULL;
	steps_done(&c->op, err);
}

static void begin_files(struct ctl *c)
{
	struct secrets *s = &c->d->secrets;

	c->files_dropped = false;
	if (sw_streq(c->op.op, "start")) /* made by prepare, maybe long ago */
		c->files = secrets_ensure(s, c, on_files, c);
	else
		c->files = secrets_write(s, c, on_files, c);
}

static void on_engine(void *arg, const struct engine_info *info, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	if (!info) {
		ctl_fail(c, err, FAULT_READ);
		return;
	}
	secrets_engine(&c->d->secrets, info);
	begin_files(c);
}

void ctl_start_files(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	if (!files_wanted(spec(c)))
		steps_done(s, NULL);
	else if (c->d->secrets.owner_known)
		begin_files(c);
	else
		c->call = engine_info(c->d->engine, on_engine, c);
}

void ctl_cancel_files(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	ctl_cancel_call(s);
	secrets_forget(take(c->files));
}

/* ---- create, a few at once on the node */

static void create_failed(struct ctl *c, const struct sw_err *err)
{
	struct sw_err e = *err;

	if (c->d->run_dir && fault_text(&e, c->d->run_dir) && fault_text(&e, "does not exist"))
		sw_err_wrap(&e,
			"the engine does not see the agent's run directory %s (another mount "
			"namespace?); give a --run-dir on a tmpfs that both see",
			c->d->run_dir);
	ctl_fail(c, &e, FAULT_PREPARE);
}

static void on_created(void *arg, const char *id, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	gate_leave(&c->slot);
	if (id) {
		c->id = xstrdup(id);
		c->fresh = true;
		log_info("container created", KS("task", c->task_id), KS("container", id),
			KS("image", spec(c)->image), KS("digest", c->image.digest));
		steps_jump(&c->op, NETWORKS);
	} else if (fault_name_taken(err)) {
		steps_jump(&c->op, ADOPT);
	} else if (fault_no_image(err) && !c->pulled_again) {
		c->pulled_again = true; /* removed between the pull and now */
		steps_jump(&c->op, IMAGE);
	} else {
		create_failed(c, err);
	}
}

static void start_create(struct steps *s)
{
	struct ctl *c = steps_arg(s);
	struct spec_env env = docker_env(c->d);
	struct json_object *body;
	struct sw_err err;

	if (!env.api) { /* it went away since we looked: what it can do is open again */
		gate_leave(&c->slot);
		sw_err_set(&err, SW_TEMPORARY, -EAGAIN, "the engine's API version is not known");
		steps_done(s, &err);
		return;
	}
	if (spec_body(c->task->pb, c->name, &env, &body, &err) < 0) {
		gate_leave(&c->slot);
		steps_done(s, &err);
		return;
	}
	c->tries++;
	c->died = c->oom = c->unhealthy = false;
	c->call = engine_container_create(c->d->engine, c->name, body, on_created, c);
	json_object_put(body);
}

/* ---- adopt: the name is taken, by an earlier try of ours or by somebody else */

static void on_adopt(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct ctl *c = arg;
	struct sw_err e;

	c->call = NULL;
	if (k) {
		adopt(c, k);
	} else if (!fault_http(err, 404)) {
		ctl_fail(c, err, FAULT_READ);
	} else if (c->tries < CREATE_TRIES) {
		steps_jump(&c->op, SLOT); /* gone meanwhile */
	} else {
		sw_err_set(&e, SW_TEMPORARY, -EAGAIN,
			"container name \"%s\" is taken, but no such container is found", c->name);
		steps_done(&c->op, &e);
	}
}

static void start_adopt(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->call = engine_container_inspect(c->d->engine, c->name, on_adopt, c);
}

/* ---- networks that an old engine does not take at create */

static void next_network(struct ctl *c);

static void on_network(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	if (err && err->cls && !fault_text(err, "already exists in network"))
		ctl_fail(c, err, FAULT_PREPARE);
	else
		next_network(c);
}

static void next_network(struct ctl *c)
{
	const Pb__Task *t = c->task->pb;
	struct json_object *endpoint;

	if (c->at >= spec_n_networks(t)) {
		steps_done(&c->op, NULL);
		return;
	}
	endpoint = spec_endpoint(t, c->at);
	c->call = engine_network_connect(
		c->d->engine, spec_network_name(t, c->at), c->id, endpoint, on_network, c);
	c->at++;
	json_object_put(endpoint);
}

static void start_networks(struct steps *s)
{
	struct ctl *c = steps_arg(s);
	struct spec_env env = docker_env(c->d);

	c->at = spec_networks_at_create(c->task->pb, &env);
	next_network(c);
}

/* ---- undo: a container that lacks a network must never be started */

static void on_undone(void *arg, const struct sw_err *err)
{
	struct ctl *c = arg;

	c->call = NULL;
	if (!err || !err->cls || fault_http(err, 404))
		ctl_see(c, NULL);
	steps_done(&c->op, NULL);
}

static void start_undo(struct steps *s)
{
	struct ctl *c = steps_arg(s);

	c->fresh = false;
	c->call = engine_container_remove(c->d->engine, c->id, true, on_undone, c);
}

/* clang-format off */
static const struct step prepare[] = {
	/*              name             start               next       on error  cancel */
	[LOOK]      = { "look",          start_look,         NET_TURN,  STEP_END, ctl_cancel_call },
	[NET_TURN]  = { "network turn",  ctl_start_net_turn, LOCALNETS, STEP_END, ctl_cancel_net_turn },
	[LOCALNETS] = { "make networks", ctl_make_networks,  VOLUMES,   STEP_END, NULL },
	[VOLUMES]   = { "volumes",       start_volumes,      IMAGE,     STEP_END, ctl_cancel_call },
	[IMAGE]     = { "image",         start_image,        FILES,     STEP_END, cancel_image },
	[FILES]     = { "files",         ctl_start_files,    SLOT,      STEP_END, ctl_cancel_files },
	[SLOT]      = { "slot",          ctl_start_slot,         CREATE,    STEP_END, ctl_cancel_slot },
	[CREATE]    = { "create",        start_create,       NETWORKS,  STEP_END, NULL },
	[ADOPT]     = { "adopt",         start_adopt,        STEP_END,  STEP_END, ctl_cancel_call },
	[NETWORKS]  = { "networks",      start_networks,     STEP_END,  UNDO,     NULL },
	[UNDO]      = { "undo",          start_undo,         STEP_END,  STEP_END, NULL },
};
/* clang-format on */

void ctl_prepare(struct controller *base, controller_cb *cb, void *arg)
{
	ctl_run(ctl_of(base), "prepare", prepare, cb, arg);
}
