/* Equality by descriptor. Maps arrive in random order, so lists of StringPair are compared as sets
 * of pairs; every other list is ordered. */
#include <string.h>
#include <swarm/api.h>
#include <swarm/mem.h>

static bool msg_equal(
	const ProtobufCMessage *a, const ProtobufCMessage *b, const char *const *skip);

static size_t size_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_ENUM:
		return 4;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	}
	return 0;
}

static const char *text(const char *s)
{
	return s ? s : "";
}

static bool value_equal(ProtobufCType type, const void *a, const void *b)
{
	if (type == PROTOBUF_C_TYPE_STRING)
		return strcmp(text(*(char *const *)a), text(*(char *const *)b)) == 0;
	if (type == PROTOBUF_C_TYPE_MESSAGE) {
		const ProtobufCMessage *ma = *(ProtobufCMessage *const *)a;
		const ProtobufCMessage *mb = *(ProtobufCMessage *const *)b;

		return ma && mb ? msg_equal(ma, mb, NULL) : ma == mb;
	}
	if (type == PROTOBUF_C_TYPE_BYTES) {
		const ProtobufCBinaryData *x = a, *y = b;

		return x->len == y->len && (!x->len || memcmp(x->data, y->data, x->len) == 0);
	}
	return memcmp(a, b, size_of(type)) == 0;
}

static int pair_order(const void *a, const void *b)
{
	const Pb__StringPair *x = *(Pb__StringPair *const *)a, *y = *(Pb__StringPair *const *)b;
	int r = strcmp(text(x->key), text(y->key));

	return r ? r : strcmp(text(x->value), text(y->value));
}

/* The pairs of a map from @from on, in order. */
static Pb__StringPair **sorted(Pb__StringPair **map, size_t from, size_t n)
{
	/* pointers are what is sorted: NOLINTBEGIN(bugprone-sizeof-expression) */
	Pb__StringPair **copy = xmemdup(map + from, (n - from) * sizeof(*map));

	qsort(copy, n - from, sizeof(*copy), pair_order);
	/* NOLINTEND(bugprone-sizeof-expression) */
	return copy;
}

/* Sorted, because the peer chooses how many pairs there are and in which order. A key that a
 * malformed map repeats counts as often as it is there. */
static bool map_equal(Pb__StringPair **a, Pb__StringPair **b, size_t n)
{
	Pb__StringPair **x, **y;
	size_t from = 0, i;

	while (from < n && pair_order(&a[from], &b[from]) == 0)
		from++;
	if (from == n)
		return true;
	x = sorted(a, from, n);
	y = sorted(b, from, n);
	for (i = 0; i < n - from && pair_order(&x[i], &y[i]) == 0; i++)
		;
	free(x);
	free(y);
	return i == n - from;
}

static bool field_equal(
	const ProtobufCFieldDescriptor *f, const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	const char *pa = (const char *)a + f->offset, *pb = (const char *)b + f->offset;

	if (f->label == PROTOBUF_C_LABEL_REPEATED) {
		size_t na = *(const size_t *)(const void *)((const char *)a + f->quantifier_offset);
		size_t nb = *(const size_t *)(const void *)((const char *)b + f->quantifier_offset);
		const char *la = *(const char *const *)(const void *)pa;
		const char *lb = *(const char *const *)(const void *)pb;
		size_t size = size_of(f->type);

		if (na != nb)
			return false;
		if (f->type == PROTOBUF_C_TYPE_MESSAGE &&
			f->descriptor == &pb__string_pair__descriptor)
			return map_equal(
				(Pb__StringPair **)(void *)la, (Pb__StringPair **)(void *)lb, na);
		for (size_t i = 0; i < na; i++)
			if (!value_equal(f->type, la + i * size, lb + i * size))
				return false;
		return true;
	}
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		int ca = *(const int *)(const void *)((const char *)a + f->quantifier_offset);
		int cb = *(const int *)(const void *)((const char *)b + f->quantifier_offset);

		if (ca != cb)
			return false;
		if (ca != (int)f->id)
			return true;
	}
	return value_equal(f->type, pa, pb);
}

static bool unknown_equal(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	if (a->n_unknown_fields != b->n_unknown_fields)
		return false;
	for (unsigned i = 0; i < a->n_unknown_fields; i++) {
		const ProtobufCMessageUnknownField *x = &a->unknown_fields[i];
		const ProtobufCMessageUnknownField *y = &b->unknown_fields[i];

		if (x->tag != y->tag || x->len != y->len || memcmp(x->data, y->data, x->len) != 0)
			return false;
	}
	return true;
}

static bool msg_equal(const ProtobufCMessage *a, const ProtobufCMessage *b, const char *const *skip)
{
	const ProtobufCMessageDescriptor *d = a->descriptor;

	if (d != b->descriptor)
		return false;
	for (unsigned i = 0; i < d->n_fields; i++) {
		bool skipped = false;

		for (const char *const *s = skip; s && *s && !skipped; s++)
			skipped = strcmp(*s, d->fields[i].name) == 0;
		if (!skipped && !field_equal(&d->fields[i], a, b))
			return false;
	}
	return unknown_equal(a, b);
}

bool api_equal(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	return a && b ? msg_equal(a, b, NULL) : a == b;
}

static const char *const status_and_meta[] = {"status", "meta", NULL};

bool api_task_equal(const Pb__Task *a, const Pb__Task *b)
{
	return msg_equal(&a->base, &b->base, status_and_meta);
}

bool api_node_equal(const Pb__Node *a, const Pb__Node *b)
{
	return msg_equal(&a->base, &b->base, status_and_meta);
}
