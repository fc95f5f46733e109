/* status.h - statuses as values: made once, shared by task, journal and reporter, never changed.
 * Loop thread. */
#pragma once
#include "do.h"
#include <stdbool.h>
#include <stdint.h>
#include <swarm/api.h>
#include <swarm/controller.h>

struct store_status;

struct status {
	unsigned refs;
	int64_t at_ns; /* of its timestamp; later for every newer status of a task */
	Pb__TaskStatus *pb;
};
/* Takes @pb; a missing timestamp becomes @now_ns. */
struct status *status_new(Pb__TaskStatus *pb, int64_t now_ns);
struct status *status_ref(struct status *s);
void status_unref(struct status *s); /* NULL is fine */
/* Equal but for the timestamp. */
bool status_same(const struct status *a, const struct status *b);

/* What follows @prev after @step. @text: the error's text where the step sets one. @res: what the
 * operation found, NULL if there was none. @container_id: what earlier ones had found, may be NULL.
 * A reference to @prev itself if nothing but the timestamp would differ. */
struct status *status_next(struct status *prev, const struct do_result *step, const char *text,
	const struct controller_result *res, const char *container_id, int64_t now_ns);

/* As the store wants it; @ret borrows from @s and from *@data and *@ports, which the caller frees.
 */
void status_row(const struct status *s, struct store_status *ret, uint8_t **data, char **ports);
