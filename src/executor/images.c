#include "images.h"
#include "fault.h"
#include "ref.h"
#include <assert.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/steps.h>
#include <uthash.h>

#define PULL_TRIES 3

struct pull {
	struct images *im;
	char *key, *image, *ref, *auth;
	struct steps steps;
	struct engine_call *call;
	struct gate_ticket slot;
	struct sw_timer pause;
	struct sw_err err; /* of the last try */
	unsigned tries;
	TAILQ_HEAD(, image_want) wants;
	UT_hash_handle hh;
};

enum { FIND, SLOT, PULL, LOCAL, PAUSE };

static void start_find(struct steps *s);
static void start_slot(struct steps *s);
static void start_pull(struct steps *s);
static void start_local(struct steps *s);
static void start_pause(struct steps *s);
static void cancel_step(struct steps *s);

/* clang-format off */
static const struct step table[] = {
	/*           name                  start        next      on error  cancel */
	[FIND]   = { "find image",         start_find,  STEP_END, STEP_END, cancel_step },
	[SLOT]   = { "wait for a place",   start_slot,  PULL,     STEP_END, cancel_step },
	[PULL]   = { "pull",               start_pull,  STEP_END, STEP_END, cancel_step },
	[LOCAL]  = { "look for local image", start_local, STEP_END, STEP_END, cancel_step },
	[PAUSE]  = { "pause",              start_pause, SLOT,     STEP_END, cancel_step },
};
/* clang-format on */

static void cancel_step(struct steps *s)
{
	struct pull *p = steps_arg(s);

	engine_call_cancel(take(p->call));
	sw_timer_stop(&p->pause);
	gate_leave(&p->slot);
}

static void done_with(struct pull *p, const struct sw_err *err, enum fault_step step)
{
	struct sw_err e;

	sw_err_copy(&e, err);
	fault_classify(&e, step);
	steps_done(&p->steps, &e);
}

/* An id, a digest that is here, or the operator's policy make a registry needless. */
static void on_found(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	struct pull *p = arg;

	p->call = NULL;
	if (img)
		steps_done(&p->steps, NULL);
	else if (!fault_http(err, 404))
		done_with(p, err, FAULT_READ);
	else if (ref_is_id(p->image) || p->im->policy == DOCKER_PULL_NEVER)
		done_with(p, err, FAULT_PREPARE);
	else
		steps_jump(&p->steps, SLOT);
}

static void start_find(struct steps *s)
{
	struct pull *p = steps_arg(s);

	if (p->im->policy == DOCKER_PULL_ALWAYS && !ref_is_id(p->image) &&
		!ref_has_digest(p->image)) {
		steps_jump(s, SLOT);
		return;
	}
	p->call = engine_image_inspect(p->im->engine, p->image, on_found, p);
}

static void on_slot(void *arg)
{
	struct pull *p = arg;

	steps_done(&p->steps, NULL);
}

static void start_slot(struct steps *s)
{
	struct pull *p = steps_arg(s);

	gate_enter(&p->im->gate, &p->slot, on_slot, p);
}

static void on_pulled(void *arg, const struct sw_err *err)
{
	struct pull *p = arg;

	p->call = NULL;
	gate_leave(&p->slot);
	if (!err || !err->cls) {
		log_info("image pulled", KS("image", p->image));
		steps_done(&p->steps, NULL);
		return;
	}
	p->err = *err;
	if (err->domain == SW_E_ERRNO && err->cls == SW_TEMPORARY)
		steps_done(&p->steps, err); /* the engine is away, not the registry */
	else
		steps_jump(&p->steps, LOCAL);
}

static void on_progress(void *arg, const char *status)
{
	struct pull *p = arg;

	log_debug("pulling", KS("image", p->image), KS("status", status));
}

static void start_pull(struct steps *s)
{
	struct pull *p = steps_arg(s);

	p->tries++;
	p->call = engine_image_pull(p->im->engine, p->ref, p->auth, on_progress, on_pulled, p);
}

/* A registry that is away does not matter to an image that is here. */
static void on_local(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	struct pull *p = arg;

	p->call = NULL;
	if (img) {
		log_warning("pull failed, the local image is used", KS("image", p->image),
			KERR(&p->err));
		steps_done(&p->steps, NULL);
	} else if (!fault_http(err, 404)) {
		done_with(p, err, FAULT_READ);
	} else if (p->tries < PULL_TRIES && fault_pull_retry(&p->err)) {
		log_info("pull failed, trying again", KS("image", p->image), KERR(&p->err));
		steps_jump(&p->steps, PAUSE);
	} else {
		p->err.cls = SW_REJECTED; /* the registry's own words, not "No such image" */
		sw_err_wrap(&p->err, "pull image %s", p->image); /* some of them do not name it */
		steps_done(&p->steps, &p->err);
	}
}

static void start_local(struct steps *s)
{
	struct pull *p = steps_arg(s);

	p->call = engine_image_inspect(p->im->engine, p->image, on_local, p);
}

static void on_pause(void *arg)
{
	struct pull *p = arg;

	steps_done(&p->steps, NULL);
}

static void start_pause(struct steps *s)
{
	struct pull *p = steps_arg(s);

	sw_timer_arm(&p->pause, p->tries == 1 ? sw_s(1) : sw_s(4));
}

static void pull_free(struct pull *p)
{
	HASH_DELETE(hh, p->im->pulls, p);
	steps_kill(&p->steps);
	engine_call_cancel(p->call);
	gate_leave(&p->slot);
	sw_timer_stop(&p->pause);
	sw_wipe_str(p->key);
	sw_wipe_str(p->auth);
	free(p->image);
	free(p->ref);
	free(p);
}

static void on_end(void *arg, const struct sw_err *err)
{
	struct pull *p = arg;
	struct sw_err e = SW_ERR_NONE;
	struct image_want *w;

	sw_err_copy(&e, err);
	while ((w = TAILQ_FIRST(&p->wants))) {
		TAILQ_REMOVE(&p->wants, w, link);
		w->pull = NULL;
		w->have = !e.cls && !w->waiting; /* for the next image_want() */
		if (w->waiting) {
			w->waiting = false;
			w->cb(w->arg, e.cls ? &e : NULL);
		}
	}
	pull_free(p);
}

static struct pull *pull_new(struct images *im, char *key, const char *image, const char *auth)
{
	struct pull *p = xcalloc(1, sizeof(*p));

	p->im = im;
	p->key = key;
	p->image = ref_familiar(image);
	p->ref = ref_canonical(image);
	p->auth = xstrdup(auth);
	TAILQ_INIT(&p->wants);
	sw_timer_init(&p->pause, im->loop, on_pause, p);
	steps_init(&p->steps, im->loop, "image", p->image, table, p);
	HASH_ADD_KEYPTR(hh, im->pulls, p->key, strlen(p->key), p);
	steps_run(&p->steps, FIND, 0, on_end);
	return p;
}

/* ---- door */

void images_init(struct images *im, struct sw_loop *l, struct engine *e,
	enum docker_pull_policy policy, unsigned max_pulls)
{
	im->loop = l;
	im->engine = e;
	im->policy = policy;
	im->pulls = NULL;
	gate_init(&im->gate, l, max_pulls);
}

void images_done(struct images *im)
{
	struct pull *p, *next;

	HASH_ITER (hh, im->pulls, p, next)
		pull_free(p);
	gate_done(&im->gate);
}

void image_want(struct images *im, struct image_want *w, const char *image, const char *auth,
	image_cb *cb, void *arg)
{
	struct pull *p;
	char *key;

	assert(!w->waiting);
	w->cb = cb;
	w->arg = arg;
	w->have = false;
	if (!w->pull) {
		key = xasprintf("%s\n%s", image, auth ? auth : "");
		HASH_FIND_STR(im->pulls, key, p);
		if (p)
			sw_wipe_str(key);
		else
			p = pull_new(im, key, image, auth ? auth : "");
		w->pull = p;
		TAILQ_INSERT_TAIL(&p->wants, w, link);
	}
	w->waiting = true;
}

void image_leave(struct image_want *w)
{
	w->waiting = false;
}

void image_drop(struct image_want *w)
{
	struct pull *p = w->pull;

	w->pull = NULL;
	w->waiting = w->have = false;
	if (!p)
		return;
	TAILQ_REMOVE(&p->wants, w, link);
	if (TAILQ_EMPTY(&p->wants)) {
		log_debug("pull stopped, nobody wants it", KS("image", p->image));
		pull_free(p);
	}
}
