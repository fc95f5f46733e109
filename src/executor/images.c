/* images.c - one pull from the first look at the engine to the image being there.
 *
 *   FIND --here, and no registry needed or registry away--> end
 *    '--> AUTH --> SLOT --> PULL --ok--> DIGEST --> end
 *           ^                '--failed--> LOCAL --here--> end
 *           |'--refused, the node's own--'   '--worth another try--> PAUSE --> SLOT
 *           '---------------------------------------------------------------'
 *
 * A pull whose image is here is a courtesy: it gets no second try, no more than PATIENCE until the
 * registry's first word, and is given up with all others of its kind as soon as one of them finds
 * the registry away. */
#include "images.h"
#include "causes.h"
#include "fault.h"
#include "ref.h"
#include "regauth.h"
#include <assert.h>
#include <ctype.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/steps.h>
#include <uthash.h>

#define PULL_TRIES 3
#define PATIENCE   sw_s(10)
#define NOTE_MAX   512

enum { FIND, AUTH, SLOT, PULL, DIGEST, LOCAL, PAUSE };
#define NOWHERE (-1)

struct pull {
	struct images *im;
	char *key, *image, *ref, *host;
	char *auth; /* the header in use: "" none */
	struct steps steps;
	int at; /* AUTH, SLOT, PULL, PAUSE: this runs and may be given up */
	struct engine_call *call;
	struct regauth_call *auth_call;
	struct gate_ticket slot;
	struct sw_timer pause, patience, tell;
	struct sw_err err;      /* of the last try */
	struct sw_err auth_err; /* why there are no credentials of the node */
	unsigned tries;
	bool here;     /* an image of that name is */
	bool progress; /* of this try: the registry has answered */
	bool own;      /* the node's credentials were looked up */
	bool probe;    /* of a registry that was away */
	bool given_up; /* the local image will do */
	char note[NOTE_MAX];
	char digest[sizeof(((struct image_want *)0)->digest)];
	TAILQ_HEAD(, image_want) wants;
	UT_hash_handle hh;
};

static void start_find(struct steps *s);
static void start_auth(struct steps *s);
static void start_slot(struct steps *s);
static void start_pull(struct steps *s);
static void start_digest(struct steps *s);
static void start_local(struct steps *s);
static void start_pause(struct steps *s);
static void cancel_step(struct steps *s);

/* clang-format off */
static const struct step table[] = {
	/*           name                    start         next      on error  cancel */
	[FIND]   = { "find image",           start_find,   AUTH,     STEP_END, cancel_step },
	[AUTH]   = { "look up credentials",  start_auth,   SLOT,     STEP_END, cancel_step },
	[SLOT]   = { "wait for a place",     start_slot,   PULL,     STEP_END, cancel_step },
	[PULL]   = { "pull",                 start_pull,   DIGEST,   STEP_END, cancel_step },
	[DIGEST] = { "look at the image",    start_digest, STEP_END, STEP_END, cancel_step },
	[LOCAL]  = { "look for local image", start_local,  STEP_END, STEP_END, cancel_step },
	[PAUSE]  = { "pause",                start_pause,  SLOT,     STEP_END, cancel_step },
};
/* clang-format on */

static void cancel_step(struct steps *s)
{
	struct pull *p = steps_arg(s);

	p->at = NOWHERE;
	engine_call_cancel(take(p->call));
	regauth_cancel(take(p->auth_call));
	sw_timer_stop(&p->pause);
	sw_timer_stop(&p->patience);
	gate_leave(&p->slot);
}

static void done_with(struct pull *p, const struct sw_err *err, enum fault_step step)
{
	struct sw_err e;

	sw_err_copy(&e, err);
	fault_classify(&e, step);
	steps_done(&p->steps, &e);
}

/* ---- what goes on, for people */

static void on_tell(void *arg)
{
	struct pull *p = arg;
	struct image_want *w;

	TAILQ_FOREACH (w, &p->wants, link)
		if (w->waiting && w->progress)
			w->progress(w->arg, p->note);
}

static void note(struct pull *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct pull *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->note, sizeof(p->note), fmt, ap);
	va_end(ap);
	sw_timer_arm(&p->tell, 0);
}

/* "name@sha256:..." of this name, else the first one. */
static void keep_digest(struct pull *p, const struct engine_image *img)
{
	size_t name = strcspn(p->image, "@");
	const char *slash = memrchr(p->image, '/', name);
	const char *colon = memchr(
		slash ? slash : p->image, ':', name - (size_t)(slash ? slash - p->image : 0));

	if (colon)
		name = (size_t)(colon - p->image);
	p->digest[0] = '\0';
	for (size_t i = 0; i < img->n_repo_digests; i++) {
		const char *d = img->repo_digests[i], *at = strchr(d, '@');
		bool same;

		if (!at)
			continue;
		same = (size_t)(at - d) == name && strncmp(d, p->image, name) == 0;
		if (same || !p->digest[0])
			snprintf(p->digest, sizeof(p->digest), "%s", at + 1);
		if (same)
			break;
	}
}

/* ---- find */

static bool registry_needed(const struct pull *p)
{
	return p->im->policy == DOCKER_PULL_ALWAYS && !ref_is_id(p->image) &&
	       !ref_has_digest(p->image);
}

/* An id, a digest that is here, or the operator's policy make a registry needless. */
static void on_found(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	struct pull *p = arg;
	uint64_t now = sw_now(p->im->loop);

	p->call = NULL;
	p->here = img != NULL;
	if (img) {
		keep_digest(p, img);
		if (!registry_needed(p)) {
			steps_jump(&p->steps, STEP_END);
		} else if (!breaker_ask(&p->im->breakers, p->host, now, &p->probe)) {
			log_info("registry is away, the local image is used", KS("image", p->image),
				KS("registry", p->host));
			steps_jump(&p->steps, STEP_END);
		} else {
			steps_done(&p->steps, NULL);
		}
	} else if (fault_http(err, 404) ? ref_is_id(p->image) || p->im->policy == DOCKER_PULL_NEVER
					: !fault_http(err, 400) || !registry_needed(p)) {
		/* with 400 the pull says better what is wrong with the name */
		done_with(p, err, fault_http(err, 404) ? FAULT_PREPARE : FAULT_READ);
	} else {
		steps_done(&p->steps, NULL);
	}
}

static void start_find(struct steps *s)
{
	struct pull *p = steps_arg(s);

	p->call = engine_image_inspect(p->im->engine, p->image, on_found, p);
}

/* ---- the registry is away: whoever can do without starts from what is here */

static void give_up(struct pull *p)
{
	int at = p->at;

	p->given_up = true;
	log_info("registry is away, the local image is used", KS("image", p->image),
		KS("registry", p->host));
	if (at == NOWHERE)
		return; /* the next step sees it */
	cancel_step(&p->steps);
	steps_jump(&p->steps, STEP_END);
}

/* Before a step that a given up pull does not need. */
static bool over(struct pull *p, int step)
{
	if (p->given_up) {
		steps_jump(&p->steps, STEP_END);
		return true;
	}
	p->at = step;
	return false;
}

static void registry_away(struct pull *p)
{
	struct images *im = p->im;
	struct pull *x, *next;
	uint64_t cool = breaker_failed(&im->breakers, p->host, sw_now(im->loop));

	p->probe = false;
	if (cool)
		log_warning("registry is away, local images are used without asking it",
			KS("registry", p->host), KU("for_s", cool / SW_NS_PER_S));
	HASH_ITER (hh, im->pulls, x, next)
		if (x != p && x->here && !x->progress && !x->given_up &&
			sw_streq(x->host, p->host) && (x->at != NOWHERE || !x->tries))
			give_up(x);
}

static void registry_answered(struct pull *p)
{
	p->probe = false;
	if (breaker_answered(&p->im->breakers, p->host))
		log_notice("registry is back", KS("registry", p->host));
}

/* ---- credentials */

static void on_auth(void *arg, const char *header, const struct sw_err *err)
{
	struct pull *p = arg;

	p->auth_call = NULL;
	p->at = NOWHERE;
	if (err) {
		p->auth_err = *err;
		log_warning("the node's registry credentials are not to be had",
			KS("registry", p->host), KERR(err));
	}
	if (header) {
		log_debug("the node's own registry credentials are used", KS("image", p->image));
		sw_wipe_str(p->auth);
		p->auth = xstrdup(header);
	}
	if (!header && *p->auth) /* the task's were refused, there are no others */
		steps_jump(&p->steps, LOCAL);
	else
		steps_done(&p->steps, NULL);
}

static void start_auth(struct steps *s)
{
	struct pull *p = steps_arg(s);

	if (over(p, AUTH))
		return;
	if ((*p->auth && !p->tries) || !p->im->auth || p->own) {
		p->at = NOWHERE;
		steps_done(s, NULL);
		return;
	}
	p->own = true;
	p->auth_call = regauth_get(p->im->auth, p->host, on_auth, p);
}

/* ---- a place among the few that pull */

static void on_slot(void *arg)
{
	struct pull *p = arg;

	p->at = NOWHERE;
	steps_done(&p->steps, NULL);
}

static void start_slot(struct steps *s)
{
	struct pull *p = steps_arg(s);

	if (over(p, SLOT))
		return;
	note(p, "waiting to pull %s", p->image);
	gate_enter(&p->im->gate, &p->slot, on_slot, p);
}

/* ---- pull */

static void on_pulled(void *arg, const struct sw_err *err)
{
	struct pull *p = arg;

	p->call = NULL;
	p->at = NOWHERE;
	sw_timer_stop(&p->patience);
	gate_leave(&p->slot);
	if (!err || !err->cls) {
		registry_answered(p);
		steps_done(&p->steps, NULL);
		return;
	}
	p->err = *err;
	if (err->domain == SW_E_ERRNO && err->cls == SW_TEMPORARY) {
		steps_done(&p->steps, err); /* the engine is away, not the registry */
		return;
	}
	if (fault_registry_away(err))
		registry_away(p);
	else if (err->domain == SW_E_HTTP)
		registry_answered(p);
	if (fault_pull_refused(err) && *p->auth && p->im->auth && !p->own) {
		log_info("the task's registry credentials are refused, trying the node's own",
			KS("image", p->image), KERR(err));
		steps_jump(&p->steps, AUTH);
	} else {
		steps_jump(&p->steps, LOCAL);
	}
}

static void on_progress(void *arg, const char *status)
{
	struct pull *p = arg;

	p->progress = true;
	sw_timer_stop(&p->patience);
	log_debug("pulling", KS("image", p->image), KS("status", status));
	note(p, "pulling %s: %c%s", p->image, tolower((unsigned char)*status), status + 1);
}

static void on_patience(void *arg)
{
	struct pull *p = arg;

	registry_away(p);
	give_up(p);
}

static void start_pull(struct steps *s)
{
	struct pull *p = steps_arg(s);

	if (over(p, PULL)) {
		gate_leave(&p->slot);
		return;
	}
	p->tries++;
	p->progress = false;
	if (p->here)
		sw_timer_arm(&p->patience, PATIENCE);
	note(p, "pulling %s", p->image);
	p->call = engine_image_pull(p->im->engine, p->ref, p->auth, on_progress, on_pulled, p);
}

/* ---- what came */

static void on_digest(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	struct pull *p = arg;

	(void)err; /* the create will say it */
	p->call = NULL;
	if (img)
		keep_digest(p, img);
	log_info("image pulled", KS("image", p->image), KS("digest", p->digest),
		KS("id", img ? img->id : ""));
	steps_done(&p->steps, NULL);
}

static void start_digest(struct steps *s)
{
	struct pull *p = steps_arg(s);

	p->call = engine_image_inspect(p->im->engine, p->image, on_digest, p);
}

/* ---- a registry that fails does not matter to an image that is here */

static void on_local(void *arg, const struct engine_image *img, const struct sw_err *err)
{
	struct pull *p = arg;

	p->call = NULL;
	if (img) {
		keep_digest(p, img);
		log_warning("pull failed, the local image is used", KS("image", p->image),
			KERR(&p->err));
		steps_done(&p->steps, NULL);
	} else if (!fault_http(err, 404)) {
		done_with(p, err, FAULT_READ);
	} else if (p->tries < PULL_TRIES && fault_pull_retry(&p->err)) {
		p->here = false;
		log_info("pull failed, trying again", KS("image", p->image), KERR(&p->err));
		note(p, "pulling %s failed, trying again: %s", p->image, p->err.msg);
		steps_jump(&p->steps, PAUSE);
	} else {
		bool refused = fault_pull_refused(&p->err);

		p->err.cls = SW_REJECTED; /* the registry's own words, not "No such image" */
		causes_pull(&p->err, p->image, p->auth);
		if (p->auth_err.cls && refused) {
			struct sw_err e = p->err;

			sw_err_setd(&p->err, e.cls, e.domain, e.code,
				"%.700s (the node's own credentials: %.200s)", e.msg,
				p->auth_err.msg);
		}
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

	p->at = NOWHERE;
	steps_done(&p->steps, NULL);
}

static void start_pause(struct steps *s)
{
	struct pull *p = steps_arg(s);

	if (!over(p, PAUSE))
		sw_timer_arm(&p->pause, p->tries == 1 ? sw_s(1) : sw_s(4));
}

/* ---- life of a pull */

static void pull_free(struct pull *p)
{
	HASH_DELETE(hh, p->im->pulls, p);
	steps_kill(&p->steps);
	cancel_step(&p->steps);
	sw_timer_stop(&p->tell);
	if (p->probe)
		breaker_left(&p->im->breakers, p->host);
	sw_wipe_str(p->key);
	sw_wipe_str(p->auth);
	free(p->image);
	free(p->ref);
	free(p->host);
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
		memcpy(w->digest, p->digest, sizeof(w->digest));
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
	p->host = ref_domain(image);
	if (!p->host)
		p->host = xstrdup("");
	p->auth = xstrdup(auth);
	p->at = NOWHERE;
	TAILQ_INIT(&p->wants);
	sw_timer_init(&p->pause, im->loop, on_pause, p);
	sw_timer_init(&p->patience, im->loop, on_patience, p);
	sw_timer_init(&p->tell, im->loop, on_tell, p);
	steps_init(&p->steps, im->loop, "image", p->image, table, p);
	HASH_ADD_KEYPTR(hh, im->pulls, p->key, strlen(p->key), p);
	steps_run(&p->steps, FIND, 0, on_end);
	return p;
}

/* ---- door */

void images_init(struct images *im, struct sw_loop *l, struct engine *e,
	enum docker_pull_policy policy, unsigned max_pulls, const char *docker_config)
{
	*im = (struct images){.loop = l, .engine = e, .policy = policy};
	if (!sw_str_empty(docker_config))
		im->auth = regauth_new(l, docker_config);
	gate_init(&im->gate, l, max_pulls);
}

void images_close(struct images *im, void (*closed)(void *arg), void *arg)
{
	struct pull *p, *next;

	HASH_ITER (hh, im->pulls, p, next)
		pull_free(p);
	gate_done(&im->gate);
	breakers_done(&im->breakers);
	if (im->auth)
		regauth_close(take(im->auth), closed, arg);
	else
		closed(arg);
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
	if (w->pull->note[0]) /* one that comes late hears it too */
		sw_timer_arm(&w->pull->tell, 0);
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
