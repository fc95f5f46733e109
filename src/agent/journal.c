/* Durable before visible: an event says that the disk has it; what tells the manager waits for
 * that.
 *
 *   put -> [waiting] -> one batch -> durable -> event
 *             ^             |
 *             +--- failed, backoff: only the newest status of each task is kept
 *
 * Acknowledgements go along; those of a failed batch go with the next one. */
#include "journal.h"
#include <string.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/store.h>
#include <uthash.h>
#include <utlist.h>

#define BATCH_MAX   1024 /* entries, and acknowledgements: some ms of packing */
#define ACK_DELAY   sw_s(1)
#define RETRY_FIRST sw_ms(500)
#define RETRY_MAX   sw_s(30)

struct jentry {
	struct jentry *prev, *next;
	struct journal_slot *slot;
	const char *task_id;
	const char *cause;
	struct status *status; /* NULL: delete */
};

struct ack { /* the newest of a task */
	UT_hash_handle hh;
	int64_t at_ns;
	char task_id[];
};

/* Survives the journal if that ends while the store still works. */
struct batch {
	struct journal *j;
	struct jentry *entries;
	struct ack *acks;
};

struct journal {
	struct sw_loop *loop;
	struct store *store;
	struct journal_events ev;
	void *arg;
	struct jentry *waiting; /* DL */
	struct ack *acks;       /* hash */
	struct batch *batch;    /* on its way */
	struct sw_timer timer;
	uint64_t retry_ns; /* 0: all is well */
};

static void on_timer(void *arg);

struct journal *journal_new(
	struct sw_loop *l, struct store *s, const struct journal_events *ev, void *arg)
{
	struct journal *j = xcalloc(1, sizeof(*j));

	j->loop = l;
	j->store = s;
	j->ev = *ev;
	j->arg = arg;
	sw_timer_init(&j->timer, l, on_timer, j);
	return j;
}

static void entries_free(struct jentry *list)
{
	struct jentry *e, *tmp;

	DL_FOREACH_SAFE (list, e, tmp) {
		status_unref(e->status);
		free(e);
	}
}

static void acks_free(struct ack *list)
{
	struct ack *a = list, *next;

	HASH_CLEAR(hh, list); /* the elements stay linked */
	for (; a; a = next) {
		next = a->hh.next;
		free(a);
	}
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	for (;;) {
		if (j->batch) {
			j->batch->j = NULL;
			j->batch = NULL;
		}
		journal_flush(j);
		if (!j->batch)
			break;
	}
	sw_timer_stop(&j->timer);
	entries_free(j->waiting);
	acks_free(j->acks);
	free(j);
}

bool journal_idle(const struct journal *j)
{
	return !j->batch && !j->waiting;
}

bool journal_trouble(const struct journal *j)
{
	return j->retry_ns != 0;
}

/* The one place that decides when the next batch goes. */
static void rearm(struct journal *j)
{
	if (j->batch || j->retry_ns)
		return; /* on_committed() or the running retry timer goes on */
	if (j->waiting || HASH_COUNT(j->acks) >= BATCH_MAX)
		sw_timer_arm(&j->timer, 0);
	else if (j->acks && !sw_timer_armed(&j->timer))
		sw_timer_arm(&j->timer, ACK_DELAY);
}

static void entry_add(struct journal *j, struct journal_slot *slot, const char *task_id,
	struct status *s, const char *cause)
{
	struct jentry *e = xcalloc(1, sizeof(*e));

	e->slot = slot;
	e->task_id = task_id;
	e->status = s ? status_ref(s) : NULL;
	e->cause = cause;
	slot->last = e;
	slot->n++;
	DL_APPEND(j->waiting, e);
	rearm(j);
}

void journal_status(struct journal *j, struct journal_slot *slot, const char *task_id,
	struct status *s, const char *cause)
{
	struct jentry *e = slot->last;

	/* while the disk is in trouble memory must not grow with every step */
	if (e && j->retry_ns && e->status) {
		status_unref(e->status);
		e->status = status_ref(s);
		e->cause = cause;
		return;
	}
	entry_add(j, slot, task_id, s, cause);
}

void journal_delete(struct journal *j, struct journal_slot *slot, const char *task_id)
{
	entry_add(j, slot, task_id, NULL, NULL);
}

void journal_acked(struct journal *j, const char *task_id, int64_t at_ns)
{
	struct ack *a;

	HASH_FIND_STR(j->acks, task_id, a);
	if (a) {
		if (a->at_ns < at_ns)
			a->at_ns = at_ns;
		return;
	}
	size_t len = strlen(task_id);

	a = xcalloc(1, sizeof(*a) + len + 1);
	a->at_ns = at_ns;
	memcpy(a->task_id, task_id, len);
	HASH_ADD_KEYPTR(hh, j->acks, a->task_id, len, a);
	rearm(j);
}

/* Back in front of what waits; of each task only the newest status is worth another try. */
static void put_back(struct journal *j, struct jentry *failed)
{
	struct jentry *e, *tmp;

	DL_CONCAT(failed, j->waiting);
	j->waiting = failed;
	for (e = j->waiting ? j->waiting->prev : NULL; e; e = tmp) {
		tmp = e == j->waiting ? NULL : e->prev;
		if (!e->slot->last)
			e->slot->last = e;
		if (e->slot->last == e)
			continue;
		/* the analyzer does not know that a DL list is never torn */
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
		DL_DELETE(j->waiting, e);
		e->slot->n--;
		status_unref(e->status);
		free(e);
	}
}

static void on_committed(void *arg, const struct sw_err *err)
{
	struct batch *b = arg;
	struct journal *j = b->j;
	struct jentry *list = b->entries, *e, *tmp;
	struct ack *acks = b->acks;

	free(b);
	if (!j) {
		entries_free(list);
		acks_free(acks);
		return;
	}
	j->batch = NULL;
	if (err) {
		j->retry_ns = !j->retry_ns                  ? RETRY_FIRST
			      : 2 * j->retry_ns < RETRY_MAX ? 2 * j->retry_ns
							    : RETRY_MAX;
		log_err("statuses not stored, nothing is reported until they are", KERR(err),
			KU("retry_ms", j->retry_ns / SW_NS_PER_MS));
		put_back(j, list);
		for (const struct ack *a = acks; a; a = a->hh.next)
			journal_acked(j, a->task_id, a->at_ns);
		acks_free(acks);
		sw_timer_arm(&j->timer, j->retry_ns);
		return;
	}
	acks_free(acks);
	if (j->retry_ns)
		log_notice("statuses are stored again");
	j->retry_ns = 0;
	DL_FOREACH_SAFE (list, e, tmp) {
		struct journal_slot *slot = e->slot;
		struct status *s = e->status;

		free(e);
		slot->n--;
		if (s)
			j->ev.status(j->arg, slot, s);
		else
			j->ev.deleted(j->arg, slot);
		status_unref(s);
	}
	rearm(j);
}

static void write_entry(struct store_batch *sb, const struct jentry *e)
{
	struct store_status row;
	uint8_t *data;
	char *ports;

	if (!e->status) {
		store_batch_delete(sb, e->task_id);
		return;
	}
	status_row(e->status, &row, &data, &ports);
	store_batch_status(sb, e->task_id, &row, e->cause);
	free(data);
	free(ports);
}

void journal_flush(struct journal *j)
{
	struct store_batch *sb;
	struct jentry *e;
	struct ack *a;

	if (j->batch || (j->retry_ns && sw_timer_armed(&j->timer)) || (!j->waiting && !j->acks))
		return;
	sw_timer_stop(&j->timer);
	sb = store_batch_new();
	j->batch = xcalloc(1, sizeof(*j->batch));
	j->batch->j = j;
	for (int n = 0; n < BATCH_MAX && (e = j->waiting); n++) {
		DL_DELETE(j->waiting, e);
		DL_APPEND(j->batch->entries, e);
		write_entry(sb, e);
		if (e->slot->last == e)
			e->slot->last = NULL;
	}
	for (int n = 0; n < BATCH_MAX && (a = j->acks); n++) {
		HASH_DEL(j->acks, a);
		HASH_ADD_KEYPTR(hh, j->batch->acks, a->task_id, strlen(a->task_id), a);
		store_batch_acked(sb, a->task_id, a->at_ns);
	}
	store_commit(j->store, sb, on_committed, j->batch);
}

static void on_timer(void *arg)
{
	journal_flush(arg);
}
