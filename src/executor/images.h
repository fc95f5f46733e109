/* images.h - makes an image present: one pull per reference and credentials, however many tasks
 * want it; a few at once on the node. Loop thread.
 *
 * Credentials are the task's; where it has none, or the registry refuses them, the node's own
 * (regauth.h). A registry that is away does not hold up tasks whose image is here (breaker.h). */
#pragma once
#include "breaker.h"
#include "gate.h"
#include <stdbool.h>
#include <swarm/err.h>
#include <swarm/executor.h>
#include <sys/queue.h>

struct engine;
struct pull;
struct regauth;

struct images {
	struct sw_loop *loop;
	struct engine *engine;
	struct regauth *auth; /* NULL: the node has no credentials */
	enum docker_pull_policy policy;
	struct gate gate;
	struct breakers breakers;
	struct pull *pulls; /* hash by reference and credentials */
};
/* @docker_config: folder of the node's config.json, NULL: none. */
void images_init(struct images *im, struct sw_loop *l, struct engine *e,
	enum docker_pull_policy policy, unsigned max_pulls, const char *docker_config);
/* Stops all pulls, silently; then calls @closed from the loop. */
void images_close(struct images *im, void (*closed)(void *arg), void *arg);

/* NULL: the image is there. SW_REJECTED carries the registry's own words. */
typedef void image_cb(void *arg, const struct sw_err *err);
struct image_want { /* embedded, zero-initialised */
	struct pull *pull;
	bool waiting, have;
	image_cb *cb;
	/* What goes on, for people: "pulling nginx:1.27: downloading 3/5 layers". Never inside
	 * image_want(); must not call back. May be NULL. */
	void (*progress)(void *arg, const char *text);
	void *arg;
	char digest[128]; /* once there: what the registry calls it, "" if it is a local build */
	TAILQ_ENTRY(image_want) link;
};
/* Joins the pull of @image that runs, or starts one. @cb from the loop, once, unless left. */
void image_want(struct images *im, struct image_want *w, const char *image, const char *auth,
	image_cb *cb, void *arg);
/* No callback any more, but the pull goes on: the next image_want() joins it or finds it done. */
void image_leave(struct image_want *w);
/* Not wanted any more: a pull that nobody else wants is stopped. */
void image_drop(struct image_want *w);
