/* One subscription: the streams of all matching tasks, gathered into one publisher.
 *
 *   controller logs --msg--> batch (64 KiB or one loop round) --> publisher --> manager
 *          ^                                                         |
 *          +---- resume <--- writable() <--- "wait" -----------------+
 *
 * While the publisher wants to wait every stream is paused at its next line, so a stalled
 * subscriber costs a batch and a line per task. A subscription ends with an answer always: without
 * a matching task (and nothing to follow) at once. */
#include "logs.h"
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <utlist.h>

#define BATCH_BYTES (64 * 1024)
#define SUBSCRIPTIONS_MAX                                                                          \
	256 /* a manager has as many as people are typing "docker service logs"                    \
	     */

struct stream {
	struct stream *prev, *next;
	struct subscription *sub;
	struct task *task;
	const struct controller_ops *ops;
	struct controller_logs *logs;
	bool paused;
};

struct subscription {
	struct subscription *prev, *next;
	struct logs *l;
	char *id;
	Pb__SubscriptionMessage *pb;
	Pb__LogSubscriptionOptions *options; /* of @pb, or ours */
	Pb__LogSubscriptionOptions defaults;
	struct source_logs *out; /* NULL: over */
	struct stream *streams;
	Pb__LogMessage **batch;
	size_t n_batch, room, bytes;
	uint64_t n_lines;
	bool wait, finished;
	struct sw_timer timer;
};

struct logs {
	struct sw_loop *loop;
	struct source *src;
	struct worker *worker;
	char *node_id;
	struct subscription *subs;
	size_t n_subs;
};

struct logs *logs_new(
	struct sw_loop *loop, struct source *src, struct worker *w, const char *node_id)
{
	struct logs *l = xcalloc(1, sizeof(*l));

	l->loop = loop;
	l->src = src;
	l->worker = w;
	l->node_id = xstrdup(node_id);
	return l;
}

size_t logs_count(const struct logs *l)
{
	return l->n_subs;
}

static void stream_free(struct stream *st)
{
	DL_DELETE(st->sub->streams, st);
	free(st);
}

static void drop_batch(struct subscription *s)
{
	for (size_t i = 0; i < s->n_batch; i++)
		api_free(s->batch[i]);
	s->n_batch = s->bytes = 0;
}

/* Silence on all sides. */
static void sub_free(struct subscription *s)
{
	struct stream *st, *next;

	DL_FOREACH_SAFE (s->streams, st, next) {
		st->ops->logs_cancel(st->logs);
		stream_free(st);
	}
	s->l->src->ops->logs_cancel(s->out);
	sw_timer_stop(&s->timer);
	drop_batch(s);
	free(s->batch);
	api_free(s->pb);
	DL_DELETE(s->l->subs, s);
	s->l->n_subs--;
	log_debug("log subscription over", KS("subscription", s->id), KU("lines", s->n_lines));
	free(s->id);
	free(s);
}

void logs_lost(struct logs *l)
{
	struct subscription *s, *next;

	DL_FOREACH_SAFE (l->subs, s, next)
		sub_free(s);
}

void logs_free(struct logs *l)
{
	if (!l)
		return;
	logs_lost(l);
	free(l->node_id);
	free(l);
}

/* ---- towards the manager */

/* What is gathered goes, and the end if there is nothing more to come. */
static void flush(struct subscription *s)
{
	const struct source_ops *ops = s->l->src->ops;

	if (s->wait || s->finished || !s->out)
		return;
	if (s->n_batch) {
		s->wait = !ops->logs_send(s->out, s->batch, s->n_batch);
		drop_batch(s);
	}
	if (!s->wait && !s->streams && !s->options->follow) {
		s->finished = true;
		ops->logs_finish(s->out);
	}
}

static void on_timer(void *arg)
{
	flush(arg);
}

static void soon(struct subscription *s)
{
	if (!sw_timer_armed(&s->timer))
		sw_timer_arm(&s->timer, 0);
}

static void on_writable(void *arg)
{
	struct subscription *s = arg;
	struct stream *st, *next;

	s->wait = false;
	flush(s);
	DL_FOREACH_SAFE (s->streams, st, next) {
		if (s->wait)
			break;
		if (!st->paused)
			continue;
		st->paused = false;
		st->ops->logs_resume(st->logs);
	}
}

static void on_out_ended(void *arg, const struct sw_err *err)
{
	struct subscription *s = arg;

	s->out = NULL;
	if (err)
		log_debug("log subscription ended", KS("subscription", s->id), KERR(err));
	sub_free(s);
}

/* ---- from the controllers */

/* The manager refuses lines whose context is not of this node; the controller need not know. */
static Pb__LogMessage *with_context(const struct stream *st, Pb__LogMessage *m)
{
	Pb__LogMessage tmp = *m;
	Pb__LogContext ctx = PB__LOG_CONTEXT__INIT;

	ctx.service_id = st->task->pb->pb->service_id;
	ctx.task_id = st->task->id;
	ctx.node_id = st->sub->l->node_id;
	tmp.context = &ctx;
	return (Pb__LogMessage *)(void *)api_dup(&tmp.base);
}

static bool on_line(void *arg, Pb__LogMessage *m)
{
	struct stream *st = arg;
	struct subscription *s = st->sub;

	if (s->n_batch == s->room) {
		s->room = s->room ? 2 * s->room : 16;
		s->batch = xrealloc(s->batch, s->room, sizeof(Pb__LogMessage *));
	}
	s->n_lines++;
	s->batch[s->n_batch++] = with_context(st, m);
	s->bytes += m->data.len + 128;
	if (s->bytes >= BATCH_BYTES)
		flush(s);
	else
		soon(s);
	if (s->wait)
		st->paused = true;
	return !s->wait;
}

static void on_stream_ended(void *arg, const struct sw_err *err)
{
	struct stream *st = arg;
	struct subscription *s = st->sub;

	if (err)
		log_info("task's logs ended early", KS("task", st->task->id), KERR(err));
	stream_free(st);
	soon(s);
}

static bool lists(char *const *ids, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(ids[i], id) == 0)
			return true;
	return false;
}

static bool matches(const struct subscription *s, const struct task *t)
{
	const Pb__LogSelector *sel = s->pb->selector;

	if (!sel)
		return false;
	return lists(sel->task_ids, sel->n_task_ids, t->id) ||
	       lists(sel->service_ids, sel->n_service_ids, t->pb->pb->service_id) ||
	       lists(sel->node_ids, sel->n_node_ids, s->l->node_id);
}

static void add_task(void *arg, struct task *t)
{
	struct subscription *s = arg;
	struct stream *st;

	if (!t->ctl || !t->ctl->ops->logs || !matches(s, t))
		return;
	st = xcalloc(1, sizeof(*st));
	st->sub = s;
	st->task = t;
	st->ops = t->ctl->ops;
	DL_APPEND(s->streams, st);
	st->logs = st->ops->logs(t->ctl, s->options, on_line, on_stream_ended, st);
	if (!st->logs)
		stream_free(st);
}

void logs_task_opened(struct logs *l, struct task *t)
{
	struct subscription *s;

	DL_FOREACH (l->subs, s)
		if (s->options->follow)
			add_task(s, t);
}

void logs_task_closing(struct logs *l, struct task *t)
{
	struct subscription *s;
	struct stream *st, *next;

	DL_FOREACH (l->subs, s)
		DL_FOREACH_SAFE (s->streams, st, next)
			if (st->task == t) {
				st->ops->logs_cancel(st->logs);
				stream_free(st);
				soon(s);
			}
}

/* ---- subscriptions */

static struct subscription *find(const struct logs *l, const char *id)
{
	struct subscription *s;

	DL_FOREACH (l->subs, s)
		if (strcmp(s->id, id) == 0)
			return s;
	return NULL;
}

static void subscribe(struct logs *l, const Pb__SubscriptionMessage *m)
{
	struct subscription *s;

	if (l->n_subs >= SUBSCRIPTIONS_MAX) {
		log_warning("log subscription refused: too many are open",
			KS("subscription", m->id), KU("max", SUBSCRIPTIONS_MAX));
		return;
	}
	s = xcalloc(1, sizeof(*s));
	s->l = l;
	s->id = xstrdup(m->id);
	s->pb = (Pb__SubscriptionMessage *)(void *)api_dup(&m->base);
	pb__log_subscription_options__init(&s->defaults);
	s->options = s->pb->options ? s->pb->options : &s->defaults;
	sw_timer_init(&s->timer, l->loop, on_timer, s);
	DL_APPEND(l->subs, s);
	l->n_subs++;
	log_debug("log subscription opened", KS("subscription", s->id),
		KB("follow", s->options->follow));
	s->out = l->src->ops->publish_logs(l->src, s->id, on_writable, on_out_ended, s);
	if (!s->out) { /* the registration has just ended: it will be sent again */
		sub_free(s);
		return;
	}
	worker_each(l->worker, add_task, s);
	soon(s); /* without a matching task that is the answer */
}

void logs_subscription(struct logs *l, const Pb__SubscriptionMessage *m)
{
	struct subscription *s = find(l, m->id);

	if (m->close) {
		if (s)
			sub_free(s);
	} else if (!s) {
		subscribe(l, m);
	}
}
