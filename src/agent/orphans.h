/* orphans.h - containers that carry our node id and that no task owns. Loop thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <swarm/executor.h>

struct sw_loop;
struct orphans;

struct orphans_config {
	struct sw_loop *loop;
	struct executor *executor;
	uint64_t grace_ns;
	/* Container name of a task of ours (malloc'd), or NULL if there is no such task. */
	char *(*task_name)(void *arg, const char *task_id);
	void *arg;
};
struct orphans *orphans_new(const struct orphans_config *cfg);
void orphans_free(struct orphans *o);
/* A COMPLETE was applied: from the first one on it is known what belongs here. Looks now. */
void orphans_complete(struct orphans *o);
/* There may be a new one. Looks soon, if a COMPLETE was seen. */
void orphans_look(struct orphans *o);
