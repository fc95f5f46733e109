#include <assert.h>
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/steps.h>

static void on_defer(void *arg);
static void on_deadline(void *arg);

void steps_init(struct steps *s, struct sw_loop *l, const char *op, const char *id,
	const struct step *table, void *arg)
{
	memset(s, 0, sizeof(*s));
	s->loop = l;
	s->op = op;
	s->id = id;
	s->table = table;
	s->arg = arg;
	sw_timer_init(&s->defer, l, on_defer, s);
	sw_timer_init(&s->deadline, l, on_deadline, s);
}

void steps_run(struct steps *s, int first, uint64_t limit_ns, steps_end_cb *end)
{
	assert(!s->running);
	s->end = end;
	s->at = first;
	s->err = SW_ERR_NONE;
	s->running = true;
	s->in_step = s->cancelled = s->timed_out = s->have_result = false;
	s->started_ns = sw_now(s->loop);
	if (limit_ns)
		sw_timer_arm(&s->deadline, limit_ns);
	sw_timer_arm(&s->defer, 0);
}

static void finish(struct steps *s)
{
	struct sw_err copy = s->err; /* the callback may free s or run it again */
	const struct sw_err *err = copy.cls ? &copy : NULL;

	sw_timer_stop(&s->deadline);
	s->running = false;
	log_debug("operation ended", KS("op", s->op), KS("id", s->id),
		KU("took_ms", (sw_now(s->loop) - s->started_ns) / SW_NS_PER_MS), KERR(err));
	s->end(s->arg, err);
}

/* The first error is the one that counts. */
static void keep(struct steps *s, const struct sw_err *err)
{
	if (err && err->cls && !s->err.cls)
		s->err = *err;
}

/* An interruption counts only while nothing has failed: after that the steps undo. */
static bool interrupted(const struct steps *s)
{
	return (s->cancelled || s->timed_out) && !s->err.cls;
}

static void interrupt_err(struct steps *s)
{
	if (s->cancelled)
		sw_err_set(&s->err, SW_CANCELLED, -ECANCELED, "%s cancelled", s->op);
	else
		sw_err_set(&s->err, SW_TEMPORARY, -ETIMEDOUT, "%s: timed out in step %s", s->op,
			s->at == STEP_END ? "end" : s->table[s->at].name);
}

/* Everything that moves the machine happens here, from the loop. */
static void on_defer(void *arg)
{
	struct steps *s = arg;

	if (s->have_result) {
		const struct step *st = &s->table[s->at];

		s->have_result = false;
		if (s->step_err.cls) {
			log_debug("step failed", KS("op", s->op), KS("id", s->id),
				KS("step", st->name), KERR(&s->step_err));
			if (s->cancelled && !s->err.cls)
				interrupt_err(s); /* asked for: how the step took it is no news */
			keep(s, &s->step_err);
			s->at = st->on_error;
		}
	}
	if (s->at != STEP_END && interrupted(s)) {
		interrupt_err(s);
		s->at = s->table[s->at].on_error;
	}
	if (s->at == STEP_END) {
		finish(s);
		return;
	}
	log_debug("step", KS("op", s->op), KS("id", s->id), KS("step", s->table[s->at].name));
	s->in_step = true;
	s->table[s->at].start(s);
}

static void result(struct steps *s, const struct sw_err *err, bool jump, int next)
{
	assert(s->running && s->in_step);
	s->in_step = false;
	sw_err_copy(&s->step_err, err);
	if (s->step_err.cls) {
		s->have_result = true;
	} else {
		s->at = jump ? next : s->table[s->at].next;
	}
	sw_timer_arm(&s->defer, 0);
}

void steps_done(struct steps *s, const struct sw_err *err)
{
	result(s, err, false, 0);
}

void steps_jump(struct steps *s, int next)
{
	result(s, NULL, true, next);
}

static void interrupt(struct steps *s)
{
	if (s->in_step && interrupted(s) && s->table[s->at].cancel) {
		s->table[s->at].cancel(s);
		s->in_step = false;
		interrupt_err(s);
		s->at = s->table[s->at].on_error;
		sw_timer_arm(&s->defer, 0);
	}
	/* else: the step ends by itself, or none is running and on_defer() will see it */
}

static void on_deadline(void *arg)
{
	struct steps *s = arg;

	s->timed_out = true;
	interrupt(s);
}

void steps_cancel(struct steps *s)
{
	if (!s->running || s->cancelled)
		return;
	s->cancelled = true;
	interrupt(s);
}

void steps_kill(struct steps *s)
{
	if (!s->running)
		return;
	if (s->in_step && s->table[s->at].cancel)
		s->table[s->at].cancel(s);
	sw_timer_stop(&s->defer);
	sw_timer_stop(&s->deadline);
	s->running = s->in_step = false;
}
