/* journal.h - what the tasks want written: statuses, deletions, acknowledgements. One batch is on
 * its way at a time, whatever comes meanwhile shares the next one, and a failed one is written
 * again until it is durable. Loop thread. */
#pragma once
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sw_loop;
struct store;
struct journal;

/* Embedded in a task: its place in the journal. */
struct journal_slot {
	struct jentry *last; /* waiting and not yet in a batch */
	unsigned n;          /* entries that are not durable */
};
struct journal_events {
	/* Durable. @slot is the one that was given. */
	void (*status)(void *arg, struct journal_slot *slot, struct status *s);
	void (*deleted)(void *arg, struct journal_slot *slot);
};
struct journal *journal_new(
	struct sw_loop *l, struct store *s, const struct journal_events *ev, void *arg);
/* Writes what waits without awaiting it. No event comes from now on. */
void journal_free(struct journal *j);

/* @task_id is borrowed until the slot is empty again; @cause is constant. */
void journal_status(struct journal *j, struct journal_slot *slot, const char *task_id,
	struct status *s, const char *cause);
/* The row of a removed task. Nothing else may be waiting in @slot. */
void journal_delete(struct journal *j, struct journal_slot *slot, const char *task_id);
/* Lazily: with the next batch, or in a second. */
void journal_acked(struct journal *j, const char *task_id, int64_t at_ns);
/* What waits goes into a batch now (up to a bound) and not a loop round later. Does nothing while
 * a batch is on its way or failed. */
void journal_flush(struct journal *j);
bool journal_idle(const struct journal *j);
bool journal_trouble(const struct journal *j); /* the last commit failed */
