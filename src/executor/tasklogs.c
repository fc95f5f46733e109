/* tasklogs.c - a task's log lines as the manager wants them: one LogMessage per record.
 *
 * A stream waits until the container has been started (an engine ends a follow of a created one at
 * once), survives an engine that goes away while following (it continues at the last line's time
 * and skips what was delivered with that very time) or that ends a running container's follow, and
 * reads no faster than 10 MiB/s: nothing is buffered here, the engine's connection is what waits.
 */
#include "ctl.h"
#include <assert.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <time.h>

#define RATE_BYTES_PER_S (10ll * 1024 * 1024)
#define RETRY_NS         sw_s(1)

struct controller_logs {
	struct docker *d;
	struct ctl *c;          /* NULL: closed, only the end is still to come */
	Pb__LogContext context; /* texts of our own */
	struct engine_log_options opt;
	bool (*msg)(void *arg, Pb__LogMessage *m);
	void (*end)(void *arg, const struct sw_err *err);
	void *arg;

	struct engine_call *look, *call;
	bool waiting; /* for the start of the container */
	bool again;   /* poked while looking */
	bool ended;   /* it had, when the stream was opened */
	bool confirm; /* the engine ended a follow: has the container? */
	bool paused;  /* by the subscriber */
	bool throttled, ending;
	bool *gone;        /* set by logs_cancel() under a callback */
	int64_t opened_ns; /* wall clock */
	int64_t last_ns;
	uint64_t n_last, skip; /* records with that time: delivered, still to be skipped */
	int64_t tokens;
	uint64_t refilled_ns;
	struct sw_timer timer; /* unthrottle, try again, or end */
	struct sw_err err;
	TAILQ_ENTRY(controller_logs) link;
};

static void look(struct controller_logs *l);

static void logs_free(struct controller_logs *l)
{
	struct docker *d = l->d;

	if (l->gone)
		*l->gone = true;
	if (l->c) {
		TAILQ_REMOVE(&l->c->logs, l, link);
		ctl_watching(l->c);
	}
	engine_call_cancel(l->look);
	engine_call_cancel(l->call);
	sw_timer_stop(&l->timer);
	free(l->context.service_id);
	free(l->context.node_id);
	free(l->context.task_id);
	free(l);
	d->n_logs--;
	docker_maybe_closed(d);
}

/* From the loop only. */
static void finish(struct controller_logs *l, const char *what, const struct sw_err *err)
{
	void (*end)(void *, const struct sw_err *) = l->end;
	void *arg = l->arg;
	struct sw_err e = SW_ERR_NONE;

	sw_err_copy(&e, err);
	if (e.cls && what)
		sw_err_wrap(&e, "%s", what);
	logs_free(l);
	end(arg, e.cls ? &e : NULL);
}

/* ---- records */

static Pb__LogStream stream_of(int stream)
{
	switch (stream) {
	case 1:
		return PB__LOG_STREAM__LOG_STREAM_STDOUT;
	case 2:
		return PB__LOG_STREAM__LOG_STREAM_STDERR;
	default:
		return PB__LOG_STREAM__LOG_STREAM_UNKNOWN;
	}
}

/* The message is a view of the record: nothing is copied. False: no memory for it. */
static bool hand_out(struct controller_logs *l, struct engine_log_record *rec, bool *more)
{
	Pb__LogMessage m = PB__LOG_MESSAGE__INIT;
	Pb__Timestamp t = PB__TIMESTAMP__INIT;
	size_t n = rec->n_attrs, len = chain_len(rec->data);
	sw_auto_free Pb__LogAttr *attrs = xcalloc(n + 1, sizeof(*attrs));
	sw_auto_free Pb__LogAttr **list = xcalloc(n + 1, sizeof(Pb__LogAttr *));
	const uint8_t *bytes = chain_pullup(rec->data, len);

	if (!bytes)
		return false;
	for (size_t i = 0; i < n; i++) {
		pb__log_attr__init(&attrs[i]);
		attrs[i].key = (char *)rec->attrs[i].key;
		attrs[i].value = (char *)rec->attrs[i].value;
		list[i] = &attrs[i];
	}
	api_time_set(&t, rec->time_ns);
	m.context = &l->context;
	m.timestamp = &t;
	m.stream = stream_of(rec->stream);
	m.data.data = (uint8_t *)bytes;
	m.data.len = len;
	m.attrs = list;
	m.n_attrs = n;
	*more = l->msg(l->arg, &m);
	return true;
}

/* True: this one was delivered before the connection broke. */
static bool is_repeated(struct controller_logs *l, int64_t time_ns)
{
	if (l->skip && time_ns == l->last_ns) {
		l->skip--;
		return true;
	}
	l->skip = 0;
	if (time_ns != l->last_ns) {
		l->last_ns = time_ns;
		l->n_last = 0;
	}
	l->n_last++;
	return false;
}

/* A bucket of a second's worth; what overdraws it is paid by waiting. */
static bool throttle(struct controller_logs *l, size_t len)
{
	uint64_t now = sw_now(l->d->loop), passed = now - l->refilled_ns;

	if (passed >= SW_NS_PER_S)
		l->tokens = RATE_BYTES_PER_S;
	else
		l->tokens += (int64_t)((double)passed / SW_NS_PER_S * RATE_BYTES_PER_S);
	if (l->tokens > RATE_BYTES_PER_S)
		l->tokens = RATE_BYTES_PER_S;
	l->refilled_ns = now;
	l->tokens -= (int64_t)len;
	if (l->tokens >= 0)
		return false;
	sw_timer_arm(&l->timer, (uint64_t)-l->tokens * SW_NS_PER_S / RATE_BYTES_PER_S + 1);
	return true;
}

static bool on_record(void *arg, struct engine_log_record *rec)
{
	struct controller_logs *l = arg;
	size_t len = chain_len(rec->data);
	bool gone = false, more = false, done;

	if (is_repeated(l, rec->time_ns))
		return true;
	l->gone = &gone;
	done = hand_out(l, rec, &more);
	if (gone)
		return false;
	l->gone = NULL;
	if (!done) {
		sw_err_set(&l->err, SW_TEMPORARY, -ENOMEM, "no memory for a log line of %zu bytes",
			len);
		l->ending = true;
		sw_timer_arm(&l->timer, 0);
		return false;
	}
	l->paused = !more;
	l->throttled = throttle(l, len);
	return !l->paused && !l->throttled;
}

/* What comes next begins with the line after the last one delivered. */
static void after_last(struct controller_logs *l)
{
	if (l->n_last) {
		l->opt.since_ns = l->last_ns;
		l->opt.tail = -1;
		l->skip = l->n_last;
	} else if (l->opt.tail == 0 && engine_is_local(l->d->engine)) {
		/* "only new lines", and those from now on are not all of them */
		if (l->opened_ns > l->opt.since_ns)
			l->opt.since_ns = l->opened_ns;
		l->opt.tail = -1;
	}
}

static void on_logs_end(void *arg, const struct sw_err *err)
{
	struct controller_logs *l = arg;

	l->call = NULL;
	l->paused = l->throttled = false;
	sw_timer_stop(&l->timer);
	if (!l->opt.follow || (err && err->cls != SW_TEMPORARY) || (!err && l->ended)) {
		finish(l, "failed getting container logs", err);
		return;
	}
	after_last(l);
	if (!err) {
		l->confirm = true;
		look(l);
		return;
	}
	log_debug("log stream lost, continuing soon", KS("task", l->context.task_id), KERR(err));
	sw_timer_arm(&l->timer, RETRY_NS);
}

/* ---- until it has started */

static bool is_tty(const struct engine_container *k)
{
	struct json_object *config, *tty;

	return json_object_object_get_ex(k->json, "Config", &config) &&
	       json_object_object_get_ex(config, "Tty", &tty) && json_object_get_boolean(tty);
}

static void open_stream(struct controller_logs *l, const struct engine_container *k)
{
	struct timespec now;

	if (!l->opened_ns) {
		clock_gettime(CLOCK_REALTIME, &now);
		l->opened_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	}
	l->ended = !k->running && !k->paused;
	l->opt.tty = is_tty(k);
	l->call = engine_logs(l->d->engine, k->id, &l->opt, on_record, on_logs_end, l);
}

static void on_look(void *arg, const struct engine_container *k, const struct sw_err *err)
{
	struct controller_logs *l = arg;
	struct ctl *c = l->c;

	l->look = NULL;
	if (!k && !fault_http(err, 404)) {
		if (!l->opt.follow) {
			finish(l, "container not ready for logs", err);
			return;
		}
		sw_timer_arm(&l->timer, RETRY_NS);
		return;
	}
	if (l->confirm) {
		l->confirm = false;
		/* the engine may show an ended container as running for a moment */
		if (k && ctl_is_ours(c, k) && (k->running || k->paused))
			sw_timer_arm(&l->timer, RETRY_NS);
		else
			finish(l, NULL, NULL);
		return;
	}
	if (k && ctl_is_ours(c, k) && (k->running || k->paused || ctl_ended(k))) {
		l->waiting = false;
		ctl_watching(c);
		open_stream(l, k);
		return;
	}
	if (!l->opt.follow) {
		finish(l, "container not ready for logs", k ? NULL : err);
		return;
	}
	l->waiting = true;
	ctl_watching(c);
	if (l->again)
		look(l);
}

static void look(struct controller_logs *l)
{
	l->again = l->look != NULL;
	if (!l->look)
		l->look = engine_container_inspect(l->d->engine, ctl_ref(l->c), on_look, l);
}

static void on_timer(void *arg)
{
	struct controller_logs *l = arg;

	if (l->ending) {
		finish(l, NULL, &l->err);
	} else if (l->call) {
		l->throttled = false;
		if (!l->paused)
			engine_logs_resume(l->call);
	} else {
		look(l);
	}
}

/* ---- for the controller */

bool ctl_logs_waiting(const struct ctl *c)
{
	const struct controller_logs *l;

	TAILQ_FOREACH (l, &c->logs, link)
		if (l->waiting)
			return true;
	return false;
}

void ctl_logs_poke(struct ctl *c)
{
	struct controller_logs *l;

	TAILQ_FOREACH (l, &c->logs, link)
		if (l->waiting)
			look(l);
}

void ctl_logs_orphan(struct ctl *c)
{
	struct controller_logs *l;

	while ((l = TAILQ_FIRST(&c->logs))) {
		TAILQ_REMOVE(&c->logs, l, link);
		l->c = NULL;
		engine_call_cancel(take(l->look));
		engine_call_cancel(take(l->call));
		sw_err_set(&l->err, SW_CANCELLED, -ECANCELED, "exec: controller closed");
		l->ending = true;
		sw_timer_arm(&l->timer, 0);
	}
}

/* ---- door */

static void options(struct controller_logs *l, const Pb__LogSubscriptionOptions *o)
{
	l->opt.tail = -1;
	l->opt.out = l->opt.err = !o || !o->n_streams;
	if (!o)
		return;
	for (size_t i = 0; i < o->n_streams; i++) {
		l->opt.out |= o->streams[i] == PB__LOG_STREAM__LOG_STREAM_STDOUT;
		l->opt.err |= o->streams[i] == PB__LOG_STREAM__LOG_STREAM_STDERR;
	}
	l->opt.follow = o->follow;
	l->opt.since_ns = api_time_ns(o->since);
	/* -1 is "no lines", -11 is "the last ten" */
	if (o->tail < 0)
		l->opt.tail = -(o->tail + 1);
	else if (o->tail > 0)
		sw_err_set(&l->err, SW_REJECTED, -EINVAL,
			"tail relative to start of logs not supported via docker API");
	if (!l->opt.out && !l->opt.err && !l->err.cls)
		sw_err_set(&l->err, SW_REJECTED, -EINVAL, "streams: neither stdout nor stderr");
}

struct controller_logs *ctl_logs(struct controller *base, const Pb__LogSubscriptionOptions *opt,
	bool (*msg)(void *arg, Pb__LogMessage *m), void (*end)(void *arg, const struct sw_err *err),
	void *arg)
{
	struct ctl *c = ctl_of(base);
	struct controller_logs *l = xcalloc(1, sizeof(*l));

	l->d = c->d;
	l->c = c;
	l->msg = msg;
	l->end = end;
	l->arg = arg;
	l->tokens = RATE_BYTES_PER_S;
	l->refilled_ns = sw_now(c->d->loop);
	pb__log_context__init(&l->context);
	l->context.service_id = xstrdup(c->task->pb->service_id);
	l->context.node_id = xstrdup(c->task->pb->node_id);
	l->context.task_id = xstrdup(c->task_id);
	sw_timer_init(&l->timer, c->d->loop, on_timer, l);
	TAILQ_INSERT_TAIL(&c->logs, l, link);
	c->d->n_logs++;
	options(l, opt);
	l->ending = l->err.cls != SW_OK;
	sw_timer_arm(&l->timer, 0);
	return l;
}

void ctl_logs_resume(struct controller_logs *l)
{
	if (!l->paused)
		return;
	l->paused = false;
	if (l->call && !l->throttled && !l->ending)
		engine_logs_resume(l->call);
}

void ctl_logs_cancel(struct controller_logs *l)
{
	if (l)
		logs_free(l);
}
