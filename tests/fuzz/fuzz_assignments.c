/* The sequence checker, fed with a list of messages: each one a length byte and that many bytes of
 * protobuf. Whatever comes, an INCREMENTAL is taken only if it follows the message taken last. */
#include <session/assignments.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct assignments_seq seq = {0};
	char last[SEQ_TEXT_MAX] = "";
	bool based = false;

	while (size) {
		size_t len = data[0];
		Pb__AssignmentsMessage *m;
		bool ok;

		data++;
		size--;
		len = len < size ? len : size;
		m = (Pb__AssignmentsMessage *)api_unpack(
			&pb__assignments_message__descriptor, data, len, NULL);
		data += len;
		size -= len;
		if (!m)
			continue;
		ok = assignments_in_order(&seq, m);
		if (ok && m->type == PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL &&
			(!based || strcmp(m->applies_to, last) != 0))
			abort();
		if (ok && strlen(m->results_in) >= sizeof(last))
			abort();
		based = ok;
		if (ok)
			strcpy(last, m->results_in);
		api_free(m);
	}
	return 0;
}
