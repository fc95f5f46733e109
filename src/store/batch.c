/* batch.c - building a batch: every input is copied into the batch's own memory.
 *
 * The sizes come from a manager, so allocations are checked; a batch that could not be built
 * remembers why and fails as a whole at commit, which spares every caller a check per row. */
#include "store_int.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

#define CHUNK_MIN 2048
#define CHUNK_MAX 65536

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(max_align_t) unsigned char mem[];
};

struct store_batch *store_batch_new(void)
{
	struct store_batch *b = xcalloc(1, sizeof(*b));

	STAILQ_INIT(&b->ops);
	return b;
}

void store_batch_free(struct store_batch *b)
{
	if (!b)
		return;
	while (b->chunks) {
		struct chunk *c = b->chunks;

		b->chunks = c->next;
		free(c);
	}
	free(b);
}

/* Aligned and zeroed, or NULL with the batch's error set. */
static void *get(struct store_batch *b, size_t n)
{
	struct chunk *c = b->chunks;
	const size_t align = _Alignof(max_align_t);

	if (n > SIZE_MAX / 2)
		goto oom;
	n = (n + align - 1) / align * align;
	if (!c || c->size - c->used < n) {
		size_t size = c ? 2 * c->size : CHUNK_MIN;

		if (size > CHUNK_MAX)
			size = CHUNK_MAX;
		if (size < n)
			size = n;
		c = malloc(sizeof(*c) + size);
		if (!c)
			goto oom;
		c->used = 0;
		c->size = size;
		c->next = b->chunks;
		b->chunks = c;
	}
	c->used += n;
	return memset(c->mem + c->used - n, 0, n);
oom:
	if (b->err.cls == SW_OK)
		sw_err_set(&b->err, SW_TEMPORARY, -ENOMEM, "store: no memory for %zu bytes", n);
	return NULL;
}

static const void *copy(struct store_batch *b, const void *p, size_t n)
{
	void *to;

	if (!p)
		return NULL;
	to = get(b, n ? n : 1);
	if (to && n)
		memcpy(to, p, n);
	return to;
}

static const char *copy_str(struct store_batch *b, const char *s)
{
	return s ? copy(b, s, strlen(s) + 1) : NULL;
}

static struct op *add(struct store_batch *b, enum op_kind kind, const char *task_id)
{
	struct op *op;

	if (kind <= OP_ACKED && sw_str_empty(task_id)) {
		if (b->err.cls == SW_OK)
			sw_err_set(&b->err, SW_REJECTED, -EINVAL, "store: a row without a task id");
		return NULL;
	}
	op = get(b, sizeof(*op));
	if (!op)
		return NULL;
	op->kind = kind;
	op->task_id = copy_str(b, task_id);
	STAILQ_INSERT_TAIL(&b->ops, op, next);
	return op;
}

void store_batch_task(struct store_batch *b, const struct store_task *t)
{
	struct op *op = add(b, OP_TASK, t->task_id);

	if (!op)
		return;
	op->task = *t;
	op->task.task_id = op->task_id;
	op->task.data = copy(b, t->data ? t->data : "", t->data ? t->data_len : 0);
	op->task.data_len = t->data ? t->data_len : 0;
	op->task.service_id = copy_str(b, t->service_id);
	op->task.service_name = copy_str(b, t->service_name);
	op->task.name = copy_str(b, t->name ? t->name : "");
	op->task.image = copy_str(b, t->image);
	op->task.runtime = copy_str(b, t->runtime ? t->runtime : "");
	op->task.node_id = copy_str(b, t->node_id);
	op->task.has_status = false;
	memset(&op->task.status, 0, sizeof(op->task.status));
}

void store_batch_status(struct store_batch *b, const char *task_id, const struct store_status *st,
	const char *cause)
{
	struct op *op = add(b, OP_STATUS, task_id);

	if (!op)
		return;
	op->status.st = *st;
	op->status.st.data = copy(b, st->data ? st->data : "", st->data ? st->data_len : 0);
	op->status.st.data_len = st->data ? st->data_len : 0;
	op->status.st.message = copy_str(b, st->message ? st->message : "");
	op->status.st.err = copy_str(b, st->err ? st->err : "");
	op->status.st.container_id = copy_str(b, st->container_id);
	op->status.st.ports = copy_str(b, st->ports);
	op->status.cause = copy_str(b, cause);
}

void store_batch_removing(struct store_batch *b, const char *task_id)
{
	add(b, OP_REMOVING, task_id);
}

void store_batch_delete(struct store_batch *b, const char *task_id)
{
	add(b, OP_DELETE, task_id);
}

void store_batch_acked(struct store_batch *b, const char *task_id, int64_t at_ns)
{
	struct op *op = add(b, OP_ACKED, task_id);

	if (op)
		op->at_ns = at_ns;
}

void store_batch_node(struct store_batch *b, const struct store_node *n)
{
	struct op *op = add(b, OP_NODE, NULL);

	if (!op)
		return;
	op->node = (struct store_node){
		.node_id = copy_str(b, n->node_id),
		.cluster_id = copy_str(b, n->cluster_id),
		.role = copy_str(b, n->role),
		.state = copy_str(b, n->state),
		.hostname = copy_str(b, n->hostname),
		.availability = copy_str(b, n->availability),
		.session_state = copy_str(b, n->session_state),
		.object = copy(b, n->object, n->object_len),
		.object_len = n->object_len,
	};
}

void store_batch_managers(struct store_batch *b, const struct store_manager *m, size_t n)
{
	struct op *op = add(b, OP_MANAGERS, NULL);
	size_t bytes;

	if (!op)
		return;
	if (__builtin_mul_overflow(n, sizeof(*m), &bytes))
		bytes = SIZE_MAX;
	op->managers.m = get(b, bytes);
	if (!op->managers.m)
		return; /* the batch fails */
	op->managers.n = n;
	for (size_t i = 0; i < n; i++) {
		op->managers.m[i] = m[i];
		op->managers.m[i].node_id = copy_str(b, m[i].node_id ? m[i].node_id : "");
		op->managers.m[i].addr = copy_str(b, m[i].addr);
		op->managers.m[i].last_error = copy_str(b, m[i].last_error);
	}
}

/* One JSON string. Bytes above ASCII pass as they are. */
static void put_json_str(FILE *f, const char *s)
{
	putc('"', f);
	for (; s && *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			fprintf(f, "\\%c", c);
		else if (c < ' ')
			fprintf(f, "\\u%04x", c);
		else
			putc(c, f);
	}
	putc('"', f);
}

char *store_ports_json(const struct store_port *p, size_t n)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f;

	if (!n)
		return NULL;
	f = open_memstream(&text, &len);
	if (!f)
		return NULL;
	putc('[', f);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? ",{\"protocol\":" : "{\"protocol\":", f);
		put_json_str(f, p[i].protocol);
		fprintf(f, ",\"target\":%u,\"published\":%u}", p[i].target, p[i].published);
	}
	putc(']', f);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
