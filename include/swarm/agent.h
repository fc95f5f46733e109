/* agent.h - the run loop: assignments become controllers at work, their statuses become reports.
 * Loop thread. Knows neither HTTP nor JSON nor Docker, and the manager only as a source. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>

struct sw_loop;
struct store;
struct executor;
struct source;
struct agent;

struct agent_config {
	struct sw_loop *loop;
	struct store *store; /* borrowed, and the executor too; they outlive the agent */
	struct executor *executor;
	struct source *source; /* taken by a successful agent_new(): closed by agent_stop() */
	const char *node_id, *cluster_id, *role; /* copied */
	uint64_t describe_period_ns;             /* 0: 20 s */
	uint64_t orphan_grace_ns;                /* 0: 5 min */
};
struct agent_events {
	/* First registration; once. */
	void (*ready)(void *arg);
	/* Permanent: removed from the swarm, or no attempt makes sense. The process decides. */
	void (*failed)(void *arg, const struct sw_err *err, bool removed);
};
/* @ev is copied; NULL members are fine. */
int agent_new(struct agent **ret, const struct agent_config *cfg, const struct agent_events *ev,
	void *arg, struct sw_err *err);
/* Loads the stored tasks (blocks shortly), resumes them, registers. Before sw_loop_run() or in it.
 */
int agent_start(struct agent *a, struct sw_err *err);
/* Credentials or trust root changed: the manager has to hear of it now. */
void agent_identity_changed(struct agent *a);
/* Ends without touching containers: waits, starts and pulls are cancelled, stops and removals may
 * finish within @flush_ns, statuses are committed and the last ones reported within @flush_ns, the
 * source is closed. Then @done from the loop; free with agent_free(). Also for an agent that never
 * started. Once. */
void agent_stop(struct agent *a, uint64_t flush_ns, void (*done)(void *arg), void *arg);
/* Drops all assignments: every container is stopped and removed (at most @limit_ns), then as stop.
 * @err of @done: what was still there at the limit. Instead of agent_stop(). */
void agent_leave(struct agent *a, uint64_t limit_ns,
	void (*done)(void *arg, const struct sw_err *err), void *arg);
/* After done(), or if agent_start() failed and agent_stop() was done. NULL is fine. */
void agent_free(struct agent *a);

struct agent_stats {
	size_t tasks, running, removing, pending_reports;
	bool registered;
	bool store_trouble; /* the last commit failed; it is retried */
	const char *manager_addr;
};
void agent_stats(const struct agent *a, struct agent_stats *ret);
