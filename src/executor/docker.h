/* docker.h - the Docker executor's own state, shared by the files of this room. */
#pragma once
#include "expand.h"
#include "gate.h"
#include "images.h"
#include "localnet.h"
#include "secrets.h"
#include "spec.h"
#include "watch.h"
#include <swarm/engine.h>
#include <swarm/executor.h>
#include <swarm/loop.h>
#include <sys/queue.h>

struct request;

struct docker {
	struct executor base; /* first */
	struct sw_loop *loop;
	struct engine *engine;
	char *hostname; /* NULL: the engine's */
	int64_t reserve_memory;
	struct policy *policy;
	enum docker_ingress ingress;
	Pb__Resources *generic; /* NULL: the engine's */
	char *node_id, *cluster_id;
	Pb__Node *node; /* the last one */
	/* For templates: as the manager has them, until it has said so as we describe ourselves. */
	struct expand_node node_texts;
	bool node_known;
	Pb__EncryptionKey **keys;
	size_t n_keys;
	struct executor_deps deps;
	struct gate starts; /* creates and starts */
	struct images images;
	struct watch watch;
	struct localnets localnets;
	struct gate net_turn; /* of making and removing them */
	struct secrets secrets;
	char *run_dir;
	unsigned n_controllers, n_logs;

	struct { /* describe.c */
		struct engine_call *call;
		Pb__NodeDescription *desc;
		executor_describe_cb *cb;
		void *arg;
		bool plugins_failed; /* logged already */
	} describe;

	TAILQ_HEAD(, request) requests;
	struct sw_timer closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

static inline struct docker *docker_of(struct executor *x)
{
	return (struct docker *)(void *)x;
}
/* What spec.h needs to know about us and the engine. */
struct spec_env docker_env(const struct docker *d);

/* describe.c */
void docker_describe(struct executor *x, executor_describe_cb *cb, void *arg);
void docker_describe_done(struct docker *d);

/* controller.c */
int docker_controller(
	struct executor *x, struct api_task *t, struct controller **ret, struct sw_err *err);
/* The last controller, log stream or job has gone. */
void docker_maybe_closed(struct docker *d);

/* orphans.c */
void docker_list(struct executor *x, executor_list_cb *cb, void *arg);
void docker_remove_orphan(struct executor *x, const char *id, executor_done_cb *cb, void *arg);
void docker_requests_done(struct docker *d);
