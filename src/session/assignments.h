/* assignments.h - the order of assignment messages on one stream. Private to the session room. */
#pragma once
#include <stdbool.h>
#include <swarm/api.h>

#define SEQ_TEXT_MAX 128 /* "1", "2", ... in practice */

/* Zero-initialised: a fresh stream. */
struct assignments_seq {
	bool based; /* a COMPLETE came */
	char last[SEQ_TEXT_MAX];
};
/* May @m be applied? A COMPLETE is always a new base; an INCREMENTAL must follow the last message.
 * False: a gap (or nonsense); nothing may be applied until a fresh stream brings a COMPLETE. */
bool assignments_in_order(struct assignments_seq *seq, const Pb__AssignmentsMessage *m);
