/* reporter.h - statuses reach a manager at least once, newest wins, never backwards, whatever the
 * registrations do. Loop thread. */
#pragma once
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <swarm/source.h>

struct sw_loop;
struct reporter;

#define REPORT_MAX       1024          /* updates in one request */
#define REPORT_MAX_BYTES (1024 * 1024) /* of updates in one request */

struct reporter_events {
	/* The manager has this status (or refused it for good). */
	void (*acked)(void *arg, const char *task_id, const struct status *s);
	void (*idle)(void *arg); /* nothing is pending any more; may be NULL */
};
struct reporter *reporter_new(
	struct sw_loop *l, struct source *src, const struct reporter_events *ev, void *arg);
/* When the source is closed: no answer comes any more. */
void reporter_free(struct reporter *r);
/* A durable status. Never fails, never blocks; equal or lower than what is pending: ignored. */
void reporter_put(struct reporter *r, const char *task_id, struct status *s);
/* The task is no longer ours to report. */
void reporter_forget(struct reporter *r, const char *task_id);
/* Sends only while registered. After "lost" the caller puts every stored status again. */
void reporter_registered(struct reporter *r, bool yes);
size_t reporter_pending(const struct reporter *r);
