/* The messages that managers send: what unpacks packs, unpacks again and is equal. */
#include <stdlib.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/err.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool cond)
{
	if (!cond)
		abort();
}

/* What the rooms above ask a message. */
static void use(const ProtobufCMessage *m)
{
	const Pb__AssignmentsMessage *a = (const void *)m;

	if (m->descriptor != &pb__assignments_message__descriptor)
		return;
	for (size_t i = 0; i < a->n_changes; i++) {
		const Pb__Assignment *as = a->changes[i]->assignment;

		if (as && as->item_case == PB__ASSIGNMENT__ITEM_TASK && as->task) {
			free(api_task_name(as->task));
			(void)api_id_valid(as->task->id);
			must(api_state_name((int)as->task->desired_state) != NULL);
			if (as->task->status)
				(void)api_time_ns(as->task->status->timestamp);
			must(api_task_equal(as->task, as->task));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const ProtobufCMessageDescriptor *const types[] = {
		&pb__assignments_message__descriptor,
		&pb__session_message__descriptor,
		&pb__subscription_message__descriptor,
		&pb__publish_logs_message__descriptor,
		&pb__update_task_status_request__descriptor,
		&pb__issue_node_certificate_response__descriptor,
	};
	struct sw_err err = SW_ERR_NONE;
	ProtobufCMessage *m, *copy;
	uint8_t *p, *again;
	size_t len, len_again;

	if (size == 0)
		return 0;
	m = api_unpack(types[data[0] % 6], data + 1, size - 1, &err);
	must(m ? err.cls == SW_OK : err.cls == SW_REJECTED);
	if (!m)
		return 0;
	use(m);
	copy = api_dup(m);
	must(api_equal(m, copy) && api_equal(copy, m));
	p = api_pack(m, &len);
	again = api_pack(copy, &len_again);
	must(len == len_again && memcmp(p, again, len) == 0);
	free(p);
	free(again);
	api_free(copy);
	api_free(m);
	return 0;
}
