/* agentkit.h - an agent between a fake manager, a fake executor and a store in memory, on a fake
 * clock; kills and restarts; and the checks that hold in every history:
 *   one operation of a task at a time, one container per task,
 *   states never lower, in the store and towards the manager,
 *   nothing is reported that is not in the store. */
#pragma once
#include "fakeexec.h"
#include "fakesource.h"
#include "memstore.h"
#include "test.h"
#include <swarm/agent.h>

struct kit {
	struct sw_loop *loop;
	struct store *store;
	struct fakeexec *x;
	struct fakesource *src;
	struct agent *agent;
	unsigned ready, failed;
	bool removed, stopped, left;
	struct sw_err left_err;
	unsigned reported_early; /* statuses that were reported before they were stored */
};

int kit_setup(void **state);
/* Stops what runs, checks the invariants and that nothing is left. */
int kit_teardown(void **state);
/* A new agent on the present store and executor, not registered. */
void kit_boot(struct kit *k);
/* kit_boot() and registered. */
void kit_up(struct kit *k);
/* kill -9. */
void kit_kill(struct kit *k);
/* SIGTERM. */
void kit_stop(struct kit *k, uint64_t flush_ns);
void kit_settle(struct kit *k); /* some seconds pass */
void kit_ms(struct kit *k, unsigned ms);
void kit_check(struct kit *k);
/* A message with one task; what is often needed. */
void kit_assign(struct kit *k, bool complete, const char *id, int desired, int state);
void kit_remove(struct kit *k, const char *id);
int kit_state(struct kit *k, const char *id); /* as stored, -1: no row */
