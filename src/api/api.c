#include <errno.h>
#include <limits.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/err.h>
#include <swarm/mem.h>

/* Two bytes on the wire can ask for a struct of a hundred: what a message may cost is bounded by
 * its length. Tasks as managers send them need about five times their length. */
enum { COST_BASE = 1 << 20, COST_FACTOR = 32 };

/* Field numbers have 29 bits. */
enum { TAG_MAX = (1 << 29) - 1 };

struct budget {
	size_t left;
	bool used_up;
};

static void *budget_alloc(void *arg, size_t size)
{
	struct budget *b = arg;

	if (size > b->left) {
		b->used_up = true;
		return NULL;
	}
	b->left -= size;
	return malloc(size);
}

static void budget_free(void *arg, void *p)
{
	(void)arg; /* scratch memory counts too: it is small */
	free(p);
}

/* protobuf-c takes a field of number 0 when its tag is spelled in two bytes, and packs it to one
 * that it does not take: such a message could be stored and never be read again. Go refuses them
 * too. */
static bool tags_valid(const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;

	for (unsigned i = 0; i < m->n_unknown_fields; i++) {
		if (m->unknown_fields[i].tag == 0 || m->unknown_fields[i].tag > TAG_MAX)
			return false;
	}
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const void *member = (const char *)m + f->offset;
		const void *quantifier = (const char *)m + f->quantifier_offset;
		ProtobufCMessage *const *sub = member;
		size_t n = 1;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			sub = *(ProtobufCMessage *const *const *)member;
			n = *(const size_t *)quantifier;
		} else if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
			   *(const int *)quantifier != (int)f->id) {
			continue; /* the union holds another arm */
		}
		for (size_t k = 0; k < n; k++) {
			if (sub[k] && !tags_valid(sub[k]))
				return false;
		}
	}
	return true;
}

ProtobufCMessage *api_unpack(
	const ProtobufCMessageDescriptor *desc, const void *data, size_t len, struct sw_err *err)
{
	struct budget budget = {.left = SIZE_MAX};
	ProtobufCAllocator alloc = {budget_alloc, budget_free, &budget};
	ProtobufCMessage *m;

	if (len < (SIZE_MAX - COST_BASE) / COST_FACTOR)
		budget.left = COST_BASE + COST_FACTOR * len;
	/* what the allocator gives is plain malloc: api_free() needs no budget */
	m = protobuf_c_message_unpack(desc, &alloc, len, len ? data : (const void *)"");
	if (m && !tags_valid(m)) {
		api_free(m);
		m = NULL;
	}
	if (!m && budget.used_up)
		sw_err_set(err, SW_REJECTED, -E2BIG,
			"a %s message of %zu bytes that unpacks to more than %d times its size",
			desc->short_name, len, COST_FACTOR);
	else if (!m)
		sw_err_set(err, SW_REJECTED, -EBADMSG, "%zu bytes are no %s message", len,
			desc->short_name);
	return m;
}

uint8_t *api_pack(const ProtobufCMessage *m, size_t *len)
{
	uint8_t *data = xcalloc(protobuf_c_message_get_packed_size(m) + 1, 1);

	*len = protobuf_c_message_pack(m, data);
	return data;
}

ProtobufCMessage *api_dup(const ProtobufCMessage *m)
{
	ProtobufCMessage *copy;
	size_t len;
	uint8_t *data = api_pack(m, &len);

	/* no budget: what there is may be larger than its shortest encoding allows */
	copy = protobuf_c_message_unpack(m->descriptor, NULL, len, data);
	free(data);
	if (!copy)
		abort(); /* what was packed from a valid message unpacks, or memory is gone */
	return copy;
}

void api_free(void *m)
{
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
}

const char *api_state_name(int state)
{
	const ProtobufCEnumValue *v =
		protobuf_c_enum_descriptor_get_value(&pb__task_state__descriptor, state);

	return v ? v->name : "?";
}

char *api_task_name(const Pb__Task *t)
{
	if (t->annotations && *t->annotations->name)
		return xstrdup(t->annotations->name);

	const char *service = t->service_annotations ? t->service_annotations->name : "";

	if (t->slot)
		return xasprintf("%s.%llu.%s", service, (unsigned long long)t->slot, t->id);
	return xasprintf("%s.%s.%s", service, t->node_id, t->id);
}

const char *api_map_get(Pb__StringPair **map, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(map[i]->key, key) == 0)
			return map[i]->value;
	return NULL;
}

int64_t api_time_ns(const Pb__Timestamp *t)
{
	int64_t ns;

	if (!t)
		return 0;
	if (__builtin_mul_overflow(t->seconds, (int64_t)1000000000, &ns) ||
		__builtin_add_overflow(ns, (int64_t)t->nanos, &ns))
		return t->seconds < 0 ? 0 : INT64_MAX;
	return ns;
}

void api_time_set(Pb__Timestamp *t, int64_t ns)
{
	t->seconds = ns / 1000000000;
	t->nanos = (int32_t)(ns % 1000000000);
	if (t->nanos < 0) {
		t->nanos += 1000000000;
		t->seconds--;
	}
}

uint64_t api_duration_ns(const Pb__Duration *d)
{
	int64_t ns;

	if (!d || d->seconds < 0)
		return 0;
	if (__builtin_mul_overflow(d->seconds, (int64_t)1000000000, &ns) ||
		__builtin_add_overflow(ns, (int64_t)d->nanos, &ns))
		return INT64_MAX;
	return ns < 0 ? 0 : (uint64_t)ns;
}

bool api_id_valid(const char *id)
{
	size_t n = 0;

	for (; id && id[n]; n++)
		if (n >= 64 || !((id[n] >= '0' && id[n] <= '9') || (id[n] >= 'a' && id[n] <= 'z')))
			return false;
	return n > 0;
}

struct api_task *api_task_new(Pb__Task *pb)
{
	struct api_task *t = xcalloc(1, sizeof(*t));

	t->refs = 1;
	t->pb = pb;
	return t;
}

struct api_task *api_task_ref(struct api_task *t)
{
	t->refs++;
	return t;
}

void api_task_unref(struct api_task *t)
{
	if (!t || --t->refs)
		return;
	api_free((void *)t->pb);
	free(t);
}
