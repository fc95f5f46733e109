/* images.h - makes an image present: one pull per reference and credentials, however many tasks
 * want it; a few at once on the node (executor.md 6.3). Loop thread. */
#pragma once
#include "gate.h"
#include <stdbool.h>
#include <swarm/err.h>
#include <swarm/executor.h>
#include <sys/queue.h>

struct engine;
struct pull;

struct images {
	struct sw_loop *loop;
	struct engine *engine;
	enum docker_pull_policy policy;
	struct gate gate;
	struct pull *pulls; /* hash by reference and credentials */
};
void images_init(struct images *im, struct sw_loop *l, struct engine *e,
	enum docker_pull_policy policy, unsigned max_pulls);
void images_done(struct images *im);

/* NULL: the image is there. SW_REJECTED carries the registry's own words. */
typedef void image_cb(void *arg, const struct sw_err *err);
struct image_want { /* embedded, zero-initialised */
	struct pull *pull;
	bool waiting, have;
	image_cb *cb;
	void *arg;
	TAILQ_ENTRY(image_want) link;
};
/* Joins the pull of @image that runs, or starts one. @cb from the loop, once, unless left. */
void image_want(struct images *im, struct image_want *w, const char *image, const char *auth,
	image_cb *cb, void *arg);
/* No callback any more, but the pull goes on: the next image_want() joins it or finds it done. */
void image_leave(struct image_want *w);
/* Not wanted any more: a pull that nobody else wants is stopped. */
void image_drop(struct image_want *w);
