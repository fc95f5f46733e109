#include "memstore.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>
#include <uthash.h>
#include <utlist.h>

enum kind { TASK, STATUS, REMOVING, DELETE, ACKED, NODE };

struct op {
	struct op *next;
	enum kind kind;
	char *id;
	struct memrow row; /* owned texts below */
	void *data, *st_data;
	size_t data_len, st_len;
	char *message, *err, *cid, *text;
	int64_t at_ns;
};
struct store_batch {
	struct store_batch *prev, *next;
	struct op *ops;
	store_commit_cb *cb;
	void *arg;
};
struct row {
	UT_hash_handle hh;
	char *id, *message, *err, *cid;
	void *data, *st_data;
	size_t data_len, st_len;
	struct memrow pub;
};
struct store {
	struct sw_loop *loop;
	struct row *rows;
	struct store_batch *queue; /* DL */
	struct sw_timer timer;
	unsigned fail, commits, lower;
	enum sw_errclass fail_cls;
	bool hold, frozen;
	char node_state[32];
};

static struct op *op_new(struct store_batch *b, enum kind kind, const char *id)
{
	struct op *o = xcalloc(1, sizeof(*o));

	o->kind = kind;
	o->id = xstrdup(id ? id : "");
	LL_APPEND(b->ops, o);
	return o;
}

static void op_free(struct op *o)
{
	free(o->id);
	free(o->data);
	free(o->st_data);
	free(o->message);
	free(o->err);
	free(o->cid);
	free(o->text);
	free(o);
}

struct store_batch *store_batch_new(void)
{
	return xcalloc(1, sizeof(struct store_batch));
}

void store_batch_free(struct store_batch *b)
{
	struct op *o, *next;

	if (!b)
		return;
	LL_FOREACH_SAFE(b->ops, o, next)
	op_free(o);
	free(b);
}

void store_batch_task(struct store_batch *b, const struct store_task *t)
{
	struct op *o = op_new(b, TASK, t->task_id);

	o->data = xmemdup(t->data, t->data_len);
	o->data_len = t->data_len;
	o->row.phase = t->phase;
	o->row.desired_state = t->desired_state;
}

void store_batch_status(struct store_batch *b, const char *task_id, const struct store_status *st,
	const char *cause)
{
	struct op *o = op_new(b, STATUS, task_id);

	(void)cause;
	o->st_data = xmemdup(st->data, st->data_len);
	o->st_len = st->data_len;
	o->message = xstrdup(st->message);
	o->err = xstrdup(st->err);
	o->cid = xstrdup(st->container_id);
	o->row.state = st->state;
	o->row.at_ns = st->at_ns;
	o->row.has_exit_code = st->has_exit_code;
	o->row.exit_code = st->exit_code;
}

void store_batch_removing(struct store_batch *b, const char *task_id)
{
	op_new(b, REMOVING, task_id);
}

void store_batch_delete(struct store_batch *b, const char *task_id)
{
	op_new(b, DELETE, task_id);
}

void store_batch_acked(struct store_batch *b, const char *task_id, int64_t at_ns)
{
	op_new(b, ACKED, task_id)->at_ns = at_ns;
}

void store_batch_node(struct store_batch *b, const struct store_node *n)
{
	op_new(b, NODE, "")->text = xstrdup(n->state);
}

void store_batch_managers(struct store_batch *b, const struct store_manager *m, size_t n)
{
	(void)b;
	(void)m;
	(void)n;
}

static struct row *find(struct store *s, const char *id)
{
	struct row *r;

	HASH_FIND_STR(s->rows, id, r);
	return r;
}

static void row_free(struct store *s, struct row *r)
{
	HASH_DEL(s->rows, r);
	free(r->id);
	free(r->message);
	free(r->err);
	free(r->cid);
	free(r->data);
	free(r->st_data);
	free(r);
}

static void apply(struct store *s, struct op *o)
{
	struct row *r = find(s, o->id);

	switch (o->kind) {
	case TASK:
		if (!r) {
			r = xcalloc(1, sizeof(*r));
			r->id = xstrdup(o->id);
			HASH_ADD_KEYPTR(hh, s->rows, r->id, strlen(r->id), r);
		}
		free(r->data);
		r->data = take(o->data);
		r->data_len = o->data_len;
		r->pub.phase = o->row.phase;
		r->pub.desired_state = o->row.desired_state;
		break;
	case STATUS:
		if (!r)
			break;
		if (r->pub.has_status && o->row.state < r->pub.state) {
			s->lower++;
			break;
		}
		free(r->st_data);
		free(r->message);
		free(r->err);
		free(r->cid);
		r->st_data = take(o->st_data);
		r->st_len = o->st_len;
		r->message = take(o->message);
		r->err = take(o->err);
		r->cid = take(o->cid);
		r->pub.has_status = true;
		r->pub.state = o->row.state;
		r->pub.at_ns = o->row.at_ns;
		r->pub.has_exit_code = o->row.has_exit_code;
		r->pub.exit_code = o->row.exit_code;
		r->pub.n_statuses++;
		break;
	case REMOVING:
		if (r)
			r->pub.phase = STORE_REMOVING;
		break;
	case DELETE:
		if (r)
			row_free(s, r);
		break;
	case ACKED:
		if (r)
			r->pub.acked_at_ns = o->at_ns;
		break;
	case NODE:
		if (o->text)
			snprintf(s->node_state, sizeof(s->node_state), "%s", o->text);
		break;
	}
}

static void on_timer(void *arg)
{
	struct store *s = arg;
	struct store_batch *list = take(s->queue), *b, *next;

	DL_FOREACH_SAFE (list, b, next) {
		struct op *o;
		store_commit_cb *cb = b->cb;
		void *cb_arg = b->arg;
		struct sw_err err = SW_ERR_NONE;

		s->commits++;
		if (s->fail) {
			s->fail--;
			sw_err_set(&err, s->fail_cls, -ENOSPC, "store: disk full");
		} else {
			LL_FOREACH (b->ops, o)
				apply(s, o);
		}
		store_batch_free(b);
		if (cb)
			cb(cb_arg, err.cls ? &err : NULL);
	}
}

void store_commit(struct store *s, struct store_batch *b, store_commit_cb *cb, void *arg)
{
	b->cb = cb;
	b->arg = arg;
	DL_APPEND(s->queue, b);
	if (!s->hold && !s->frozen)
		sw_timer_arm(&s->timer, 0);
}

struct store *memstore_new(struct sw_loop *l)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->loop = l;
	sw_timer_init(&s->timer, l, on_timer, s);
	return s;
}

static void drop_queue(struct store *s)
{
	static const struct sw_err lost = {.cls = SW_FATAL, .code = -EIO, .msg = "killed"};
	struct store_batch *list = take(s->queue), *b, *next;

	DL_FOREACH_SAFE (list, b, next) {
		store_commit_cb *cb = b->cb;
		void *arg = b->arg;

		store_batch_free(b);
		if (cb)
			cb(arg, &lost);
	}
}

void memstore_free(struct store *s)
{
	struct row *r, *next;

	drop_queue(s);
	sw_timer_stop(&s->timer);
	HASH_ITER (hh, s->rows, r, next)
		row_free(s, r);
	free(s);
}

void memstore_fail(struct store *s, unsigned n, enum sw_errclass cls)
{
	s->fail = n;
	s->fail_cls = cls;
}

void memstore_hold(struct store *s, bool hold)
{
	s->hold = hold;
	if (!hold && s->queue)
		sw_timer_arm(&s->timer, 0);
}

void memstore_freeze(struct store *s)
{
	s->frozen = true;
	sw_timer_stop(&s->timer);
}

void memstore_thaw(struct store *s)
{
	drop_queue(s);
	s->frozen = s->hold = false;
	s->fail = 0;
}

const struct memrow *memstore_row(struct store *s, const char *task_id)
{
	struct row *r = find(s, task_id);

	if (!r)
		return NULL;
	r->pub.message = r->message;
	r->pub.err = r->err;
	r->pub.container_id = r->cid;
	r->pub.data = r->data;
	r->pub.data_len = r->data_len;
	return &r->pub;
}

size_t memstore_count(struct store *s)
{
	return HASH_COUNT(s->rows);
}

unsigned memstore_commits(struct store *s)
{
	return s->commits;
}

unsigned memstore_lower(struct store *s)
{
	return s->lower;
}

const char *memstore_node_state(struct store *s)
{
	return s->node_state;
}

void memstore_corrupt(struct store *s, const char *task_id)
{
	struct row *r = find(s, task_id);

	memset(r->data, 0xff, r->data_len);
}

int store_load_tasks(struct store *s, int (*cb)(void *arg, const struct store_task *t), void *arg,
	struct sw_err *err)
{
	struct row *r, *next;

	(void)err;
	HASH_ITER (hh, s->rows, r, next) {
		struct store_task t = {.task_id = r->id,
			.data = r->data,
			.data_len = r->data_len,
			.phase = r->pub.phase,
			.desired_state = r->pub.desired_state,
			.has_status = r->pub.has_status,
			.status = {.data = r->st_data,
				.data_len = r->st_len,
				.state = r->pub.state,
				.at_ns = r->pub.at_ns}};
		int rc = cb(arg, &t);

		if (rc < 0)
			return rc;
	}
	return 0;
}

int store_load_managers(struct store *s, int (*cb)(void *arg, const struct store_manager *m),
	void *arg, struct sw_err *err)
{
	(void)s;
	(void)cb;
	(void)arg;
	(void)err;
	return 0;
}

int store_load_node(struct store *s, void (*cb)(void *arg, const struct store_node *n), void *arg,
	struct sw_err *err)
{
	(void)s;
	(void)cb;
	(void)arg;
	(void)err;
	return 0;
}
