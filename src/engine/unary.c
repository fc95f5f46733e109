/* One request, one answer, one callback. */
#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

#include "engine-internal.h"

struct unary {
	struct engine_call c;
	struct exchange *x;
	struct sw_timer later; /* reports @early */
	struct sw_err early;
	bool json;
	unary_finish *finish;
	union unary_cb cb;
	void *arg;
};

static void unary_cancel(struct engine_call *c)
{
	struct unary *u = sw_container_of(c, struct unary, c);

	if (!u->finish) /* inside its own last callback */
		return;
	engine_call_del(c);
	sw_timer_stop(&u->later);
	exchange_cancel(u->x);
	free(u);
}

static void report(struct unary *u, int status, struct json_object *o, const struct sw_err *err)
{
	unary_finish *finish = u->finish;

	engine_call_del(&u->c);
	u->finish = NULL;
	finish(u->cb, u->arg, status, o, err);
	free(u);
}

static void on_later(void *arg)
{
	struct unary *u = arg;

	report(u, 0, NULL, &u->early);
}

static void on_done(void *arg, int status, struct chain *body, const struct sw_err *err)
{
	struct unary *u = arg;
	struct json_object *o = NULL;
	struct sw_err bad;

	u->x = NULL;
	if (!err && u->json && json_parse_chain(body, &o, &bad) < 0)
		err = &bad;
	report(u, status, o, err);
	json_object_put(o);
}

struct engine_call *unary_start(struct engine *e, struct exchange_spec *spec, bool json,
	unary_finish *finish, union unary_cb cb, void *arg, const struct sw_err *early)
{
	static const struct exchange_handler h = {.done = on_done};
	struct unary *u = xcalloc(1, sizeof(*u));

	engine_call_add(e, &u->c, unary_cancel);
	u->json = json;
	u->finish = finish;
	u->cb = cb;
	u->arg = arg;
	sw_timer_init(&u->later, engine_loop(e), on_later, u);
	if (early) {
		u->early = *early;
		free(take(spec->path));
		if (spec->body)
			chain_done(spec->body);
		sw_timer_arm(&u->later, 0);
	} else {
		u->x = exchange_start(e, spec, &h, u);
	}
	return &u->c;
}

void unary_finish_done(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	(void)status;
	(void)o;
	if (cb.done)
		cb.done(arg, err);
}

const struct sw_err *engine_check_name(const char *what, const char *name, struct sw_err *early)
{
	if (!sw_str_empty(name))
		return NULL;
	sw_err_set(early, SW_REJECTED, -EINVAL, "%s: the name is empty", what);
	return early;
}

struct engine_call *engine_fail_later(
	struct engine *e, const struct sw_err *err, engine_done_cb *cb, void *arg)
{
	struct exchange_spec none = {0};

	return unary_start(
		e, &none, false, unary_finish_done, (union unary_cb){.done = cb}, arg, err);
}
