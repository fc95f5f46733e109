#include "complete.h"
#include <stdio.h>
#include <stdlib.h>
#include <swarm/api.h>
#include <swarm/mem.h>

/* protobuf-c has no const strings */
#define TEXT(s) ((char *)(uintptr_t)(s))

enum { ENVS = 40, LABELS = 10 };

uint8_t *complete_encoded(size_t n, size_t *len)
{
	char *env[ENVS], task_id[26], id[] = "x3kq0v1p8t7r5s6u9w2y4z0a1", name[64];
	Pb__StringPair label[LABELS], *labels[LABELS];
	Pb__ContainerSpec cs = PB__CONTAINER_SPEC__INIT;
	Pb__TaskSpec spec = PB__TASK_SPEC__INIT;
	Pb__Annotations ann = PB__ANNOTATIONS__INIT, sann = PB__ANNOTATIONS__INIT;
	Pb__TaskStatus st = PB__TASK_STATUS__INIT;
	Pb__Meta meta = PB__META__INIT;
	Pb__Timestamp at = PB__TIMESTAMP__INIT;
	Pb__Version v = PB__VERSION__INIT;
	Pb__Task task = PB__TASK__INIT;
	Pb__Assignment a = PB__ASSIGNMENT__INIT;
	Pb__AssignmentChange change = PB__ASSIGNMENT_CHANGE__INIT;
	Pb__AssignmentsMessage m = PB__ASSIGNMENTS_MESSAGE__INIT;
	size_t size, room;
	uint8_t *out, *p;

	for (int i = 0; i < ENVS; i++)
		env[i] = xasprintf(
			"VARIABLE_NUMBER_%d=some value of ordinary length %d", i, i * 7919);
	for (int i = 0; i < LABELS; i++) {
		pb__string_pair__init(&label[i]);
		label[i].key = xasprintf("com.example.label.%d", i);
		label[i].value = TEXT("a value");
		labels[i] = &label[i];
	}
	cs.image = TEXT("registry.example.com/team/service:1.2.3@sha256:"
			"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
	cs.env = env;
	cs.n_env = ENVS;
	cs.labels = labels;
	cs.n_labels = LABELS;
	spec.runtime_case = PB__TASK_SPEC__RUNTIME_CONTAINER;
	spec.container = &cs;
	sann.name = TEXT("service");
	sann.labels = labels;
	sann.n_labels = LABELS;
	at.seconds = 1700000000;
	meta.created_at = meta.updated_at = &at;
	meta.version = &v;
	v.index = 12345;
	st.timestamp = &at;
	st.state = PB__TASK_STATE__ASSIGNED;
	st.message = TEXT("scheduler assigned task to node");
	task.id = task_id;
	task.meta = &meta;
	task.spec = &spec;
	task.service_id = task.node_id = id;
	task.annotations = &ann;
	ann.name = name;
	task.service_annotations = &sann;
	task.status = &st;
	task.desired_state = PB__TASK_STATE__RUNNING;
	a.item_case = PB__ASSIGNMENT__ITEM_TASK;
	a.task = &task;
	change.assignment = &a;
	/* a repeated field is the concatenation of its elements: no need to hold n tasks */
	m.applies_to = TEXT("");
	m.results_in = TEXT("1");
	room = 4096;
	out = p = xcalloc(1, room + 64);
	p += protobuf_c_message_pack(&m.base, p);
	for (size_t i = 0; i < n; i++) {
		Pb__AssignmentChange *one[] = {&change};
		Pb__AssignmentsMessage part = PB__ASSIGNMENTS_MESSAGE__INIT;

		snprintf(task_id, sizeof(task_id), "task%021zu", i);
		snprintf(name, sizeof(name), "service.%zu.%s", i, task_id);
		task.slot = i + 1;
		part.n_changes = 1;
		part.changes = one;
		size = protobuf_c_message_get_packed_size(&part.base);
		if ((size_t)(p - out) + size > room) {
			size_t used = (size_t)(p - out);

			room = 2 * room + size;
			out = xrealloc(out, room, 1);
			p = out + used;
		}
		p += protobuf_c_message_pack(&part.base, p);
	}
	for (int i = 0; i < ENVS; i++)
		free(env[i]);
	for (int i = 0; i < LABELS; i++)
		free(label[i].key);
	*len = (size_t)(p - out);
	return out;
}
