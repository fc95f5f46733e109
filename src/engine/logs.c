/* One container's log. Back-pressure goes all the way: the reader says "not now", the exchange is
 * paused, the engine's writes wait in the socket. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

struct logs {
	struct engine_call c;
	struct exchange *x;
	struct logdemux demux;
	struct chain pending; /* not yet taken apart */
	bool paused, ended;
	struct sw_err err; /* of the end */
	struct sw_timer again;
	engine_log_cb *record;
	engine_done_cb *end;
	void *arg;
	bool *gone;
};

static void logs_cancel(struct engine_call *c)
{
	struct logs *l = sw_container_of(c, struct logs, c);

	if (l->gone)
		*l->gone = true;
	engine_call_del(c);
	exchange_cancel(l->x);
	sw_timer_stop(&l->again);
	logdemux_done(&l->demux);
	chain_done(&l->pending);
	free(l);
}

static void finish(struct logs *l, const struct sw_err *err)
{
	engine_done_cb *end = l->end;
	void *arg = l->arg;

	logs_cancel(&l->c);
	if (end)
		end(arg, err);
}

/* Hands out what is there until the reader has enough. @l may be gone afterwards. */
static void run(struct logs *l)
{
	struct sw_err err = SW_ERR_NONE;
	struct engine_log_record rec = {0};
	bool gone = false;
	int r = 0;

	while (!l->paused) {
		bool more;

		r = logdemux_next(
			&l->demux, &l->pending, l->ended && l->err.cls == SW_OK, &rec, &err);
		if (r != 1)
			break;
		l->gone = &gone;
		more = l->record(l->arg, &rec);
		free(rec.attrs ? (char *)rec.attrs[rec.n_attrs].key : NULL);
		free(rec.attrs);
		if (gone)
			return;
		l->gone = NULL;
		l->paused = !more;
	}
	if (r < 0) {
		finish(l, &err);
	} else if (l->paused) {
		if (l->x)
			exchange_pause(l->x);
	} else if (l->ended) {
		err = l->err;
		finish(l, err.cls == SW_OK ? NULL : &err);
	}
}

static void on_data(void *arg, struct chain *data)
{
	struct logs *l = arg;

	chain_append_chain(&l->pending, data);
	run(l);
}

static void on_done(void *arg, int status, struct chain *body, const struct sw_err *err)
{
	struct logs *l = arg;

	(void)status;
	(void)body;
	l->x = NULL;
	l->ended = true;
	sw_err_copy(&l->err, err);
	run(l);
}

static void on_again(void *arg)
{
	struct logs *l = arg;

	if (l->paused)
		return;
	if (l->x)
		exchange_resume(l->x);
	run(l);
}

void engine_logs_resume(struct engine_call *c)
{
	struct logs *l = sw_container_of(c, struct logs, c);

	if (!c || c->cancel != logs_cancel) /* refused before it was sent */
		return;
	l->paused = false;
	sw_timer_arm(&l->again, 0);
}

struct engine_call *engine_logs(struct engine *e, const char *id,
	const struct engine_log_options *opt, engine_log_cb *record, engine_done_cb *end, void *arg)
{
	static const struct exchange_handler h = {.data = on_data, .done = on_done};
	struct exchange_spec s = {.method = "GET", .stream = true};
	sw_auto_free char *name = http_escape(id ? id : "", false);
	char since[64] = "", tail[32] = "";
	struct sw_err early;
	struct logs *l;

	if (engine_check_name("container logs", id, &early))
		return engine_fail_later(e, &early, end, arg);
	if (!opt->out && !opt->err) {
		sw_err_set(&early, SW_REJECTED, -EINVAL,
			"container logs: neither stdout nor stderr is asked for");
		return engine_fail_later(e, &early, end, arg);
	}
	if (opt->since_ns > 0)
		snprintf(since, sizeof(since), "&since=%" PRId64 ".%09" PRId64,
			opt->since_ns / 1000000000, opt->since_ns % 1000000000);
	if (opt->tail >= 0)
		snprintf(tail, sizeof(tail), "&tail=%" PRId64, opt->tail);
	s.path = xasprintf("/containers/%s/logs?stdout=%d&stderr=%d&timestamps=1&details=1%s%s%s",
		name, opt->out, opt->err, opt->follow ? "&follow=1" : "", since, tail);
	l = xcalloc(1, sizeof(*l));
	logdemux_init(&l->demux, opt->tty, !engine_is_podman(e));
	l->record = record;
	l->end = end;
	l->arg = arg;
	sw_timer_init(&l->again, engine_loop(e), on_again, l);
	engine_call_add(e, &l->c, logs_cancel);
	l->x = exchange_start(e, &s, &h, l);
	return &l->c;
}
