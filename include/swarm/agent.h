/* agent.h - the run loop: assignments become controllers at work, their statuses become reports.
 * Loop thread. Knows neither HTTP nor JSON nor Docker. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>

struct sw_loop;
struct store;
struct executor;
struct remotes;
struct identity;
struct agent;

struct agent_config {
	struct sw_loop *loop;
	struct store *store;	   /* borrowed, all of them; they outlive the agent */
	struct executor *executor;
	struct remotes *remotes;
	struct identity *identity; /* ready */
	bool join_addr_given;
	uint64_t describe_period_ns; /* 0: 20 s */
};
struct agent_events {
	/* First registration; once. */
	void (*ready)(void *arg);
	/* Permanent: removed from the swarm, or no attempt makes sense. The process decides. */
	void (*failed)(void *arg, const struct sw_err *err, bool removed);
};
int agent_new(struct agent **ret, const struct agent_config *cfg, const struct agent_events *ev, void *arg,
	struct sw_err *err);
/* Loads the stored tasks (blocks shortly), resumes them, registers. Before sw_loop_run() or in it. */
int agent_start(struct agent *a, struct sw_err *err);
/* Ends without touching containers: operations cancelled, statuses committed, the last ones
 * reported within @flush_ns, session closed. Then @done from the loop; free with agent_free(). */
void agent_stop(struct agent *a, uint64_t flush_ns, void (*done)(void *arg), void *arg);
/* Drops all assignments: every container is stopped and removed (at most @limit_ns), then as stop.
 * @err of @done: what was still there at the limit. */
void agent_leave(struct agent *a, uint64_t limit_ns, void (*done)(void *arg, const struct sw_err *err), void *arg);
void agent_free(struct agent *a);

struct agent_stats {
	size_t tasks, running, removing, pending_reports;
	bool registered;
	const char *manager_addr;
};
void agent_stats(const struct agent *a, struct agent_stats *ret);
