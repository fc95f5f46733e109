/* swarmkit's agent applies the message after a gap, keeps its stale reference and then reopens the
 * stream for ever (agent/session.go watch). Here a gap is never applied and a COMPLETE always
 * counts. */
#include "assignments.h"
#include <string.h>

bool assignments_in_order(struct assignments_seq *seq, const Pb__AssignmentsMessage *m)
{
	size_t len = strlen(m->results_in);

	switch (m->type) {
	case PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE:
		break;
	case PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL:
		if (!seq->based || strcmp(m->applies_to, seq->last) != 0)
			goto gap;
		break;
	default: /* from a newer manager: a new stream starts with what we know */
		goto gap;
	}
	if (len >= sizeof(seq->last))
		goto gap;
	memcpy(seq->last, m->results_in, len + 1);
	seq->based = true;
	return true;
gap:
	seq->based = false;
	return false;
}
