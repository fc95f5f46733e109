/* The timers are a binary heap over one uv_timer_t: stopping one is immediate and needs no close
 * callback, ties keep the order of arming, and a test can put a clock of its own under it.
 *
 * What is due already waits on a uv_idle_t: libuv before 1.45 runs timers until none is due, so a
 * uv_timer_t that is started with 0 by its own callback would run for ever and no socket would be
 * looked at (uv__run_timers). An idle handle runs once in each round. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <time.h>

struct sw_loop {
	uv_loop_t uv;
	uv_timer_t wake;
	uv_idle_t soon;
	struct sw_timer **heap; /* heap[1..n] */
	size_t n, room;
	uint64_t seq;
	bool fake;
	uint64_t fake_now;
	size_t n_work; /* whose result has not come */
};

uint64_t sw_wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t sw_now(struct sw_loop *l)
{
	return l->fake ? l->fake_now : uv_hrtime();
}

uv_loop_t *sw_loop_uv(struct sw_loop *l)
{
	return &l->uv;
}

static bool before(const struct sw_timer *a, const struct sw_timer *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void place(struct sw_loop *l, size_t pos, struct sw_timer *t)
{
	l->heap[pos] = t;
	t->pos = pos;
}

static void sift_up(struct sw_loop *l, size_t pos)
{
	struct sw_timer *t = l->heap[pos];

	for (; pos > 1 && before(t, l->heap[pos / 2]); pos /= 2)
		place(l, pos, l->heap[pos / 2]);
	place(l, pos, t);
}

static void sift_down(struct sw_loop *l, size_t pos)
{
	struct sw_timer *t = l->heap[pos];

	for (;;) {
		size_t child = 2 * pos;

		if (child > l->n)
			break;
		if (child < l->n && before(l->heap[child + 1], l->heap[child]))
			child++;
		if (!before(l->heap[child], t))
			break;
		place(l, pos, l->heap[child]);
		pos = child;
	}
	place(l, pos, t);
}

static void on_wake(uv_timer_t *h);
static void on_soon(uv_idle_t *h);

static void rearm(struct sw_loop *l)
{
	uint64_t now;

	if (l->fake)
		return; /* sw_fake_advance() fires them */
	if (l->n == 0) {
		uv_timer_stop(&l->wake);
		uv_idle_stop(&l->soon);
		return;
	}
	now = uv_hrtime();
	if (l->heap[1]->at_ns <= now) {
		uv_timer_stop(&l->wake);
		uv_idle_start(&l->soon, on_soon);
	} else {
		uint64_t left = l->heap[1]->at_ns - now;

		uv_idle_stop(&l->soon);
		uv_update_time(&l->uv);
		/* up, and never 0: early is seen and waited for again, late is late */
		uv_timer_start(&l->wake, on_wake, (left - 1) / SW_NS_PER_MS + 1, 0);
	}
}

/* Fires what is due at @now. Timers armed by a callback wait for the next round, so a timer that
 * re-arms itself with delay 0 cannot starve the loop. */
static void fire_due(struct sw_loop *l, uint64_t now)
{
	uint64_t last = l->seq;

	while (l->n && l->heap[1]->at_ns <= now && l->heap[1]->seq <= last) {
		struct sw_timer *t = l->heap[1];

		sw_timer_stop(t);
		t->cb(t->arg);
	}
}

static void on_wake(uv_timer_t *h)
{
	struct sw_loop *l = h->data;

	fire_due(l, uv_hrtime());
	rearm(l);
}

static void on_soon(uv_idle_t *h)
{
	struct sw_loop *l = h->data;

	fire_due(l, uv_hrtime());
	rearm(l);
}

void sw_timer_init(struct sw_timer *t, struct sw_loop *l, sw_timer_cb *cb, void *arg)
{
	*t = (struct sw_timer){.loop = l, .cb = cb, .arg = arg};
}

void sw_timer_stop(struct sw_timer *t)
{
	struct sw_loop *l = t->loop;
	size_t pos = t->pos;

	if (!pos)
		return;
	t->pos = 0;
	if (pos != l->n) {
		place(l, pos, l->heap[l->n--]);
		sift_down(l, pos);
		sift_up(l, pos);
	} else {
		l->n--;
	}
	if (pos == 1)
		rearm(l);
}

void sw_timer_arm_at(struct sw_timer *t, uint64_t at_ns)
{
	struct sw_loop *l = t->loop;

	sw_timer_stop(t);
	if (l->n + 2 > l->room) {
		l->room = l->room ? 2 * l->room : 64;
		/* of pointers: NOLINTNEXTLINE(bugprone-sizeof-expression) */
		l->heap = xrealloc(l->heap, l->room, sizeof(*l->heap));
	}
	t->at_ns = at_ns;
	t->seq = ++l->seq;
	place(l, ++l->n, t);
	sift_up(l, l->n);
	if (t->pos == 1)
		rearm(l);
}

void sw_timer_arm(struct sw_timer *t, uint64_t delay_ns)
{
	uint64_t at;

	if (__builtin_add_overflow(sw_now(t->loop), delay_ns, &at))
		at = UINT64_MAX;
	sw_timer_arm_at(t, at);
}

int sw_loop_new(struct sw_loop **ret, struct sw_err *err)
{
	struct sw_loop *l = xcalloc(1, sizeof(*l));
	int r = uv_loop_init(&l->uv);

	if (r < 0) {
		free(l);
		return sw_err_set(err, SW_FATAL, r, "event loop: %s", uv_strerror(r));
	}
	uv_timer_init(&l->uv, &l->wake);
	uv_idle_init(&l->uv, &l->soon);
	l->wake.data = l;
	l->soon.data = l;
	l->uv.data = l;
	*ret = l;
	return 0;
}

static void on_walk(uv_handle_t *h, void *arg)
{
	if (!uv_is_closing(h))
		(*(size_t *)arg)++;
}

int sw_loop_free(struct sw_loop *l)
{
	if (!l)
		return 0;
	if (!uv_is_closing((uv_handle_t *)&l->wake)) {
		uv_close((uv_handle_t *)&l->wake, NULL);
		uv_close((uv_handle_t *)&l->soon, NULL);
	}
	/* close callbacks and results of work are waited for, an open handle is not: it would never
	 * end */
	while (uv_run(&l->uv, UV_RUN_NOWAIT)) {
		size_t n_open = 0;

		uv_walk(&l->uv, on_walk, &n_open);
		if (n_open > 0 && l->n_work == 0)
			return -EBUSY;
		uv_run(&l->uv, UV_RUN_ONCE);
	}
	if (uv_loop_close(&l->uv) < 0)
		return -EBUSY;
	free(l->heap);
	free(l);
	return 0;
}

void sw_loop_run(struct sw_loop *l)
{
	uv_run(&l->uv, UV_RUN_DEFAULT);
}

bool sw_loop_once(struct sw_loop *l, bool wait)
{
	return uv_run(&l->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT) != 0;
}

void sw_loop_stop(struct sw_loop *l)
{
	uv_stop(&l->uv);
}

void sw_fake_clock(struct sw_loop *l, uint64_t now_ns)
{
	l->fake = true;
	l->fake_now = now_ns;
	uv_timer_stop(&l->wake);
	uv_idle_stop(&l->soon);
}

void sw_fake_advance(struct sw_loop *l, uint64_t by_ns)
{
	uint64_t until;

	assert(l->fake);
	if (__builtin_add_overflow(l->fake_now, by_ns, &until))
		until = UINT64_MAX;
	for (;;) {
		uv_run(&l->uv, UV_RUN_NOWAIT);
		if (!l->n || l->heap[1]->at_ns > until)
			break;
		if (l->heap[1]->at_ns > l->fake_now)
			l->fake_now = l->heap[1]->at_ns;
		fire_due(l, l->fake_now);
	}
	l->fake_now = until;
}

struct sw_work {
	uv_work_t req;
	struct sw_loop *loop;
	sw_work_fn *fn;
	sw_work_done *done;
	void *arg;
	bool dropped;
};

static void work_run(uv_work_t *req)
{
	struct sw_work *w = req->data;

	w->fn(w->arg);
}

static void work_done(uv_work_t *req, int status)
{
	struct sw_work *w = req->data;

	(void)status; /* never cancelled: sw_work_drop() lets it run and drops the result */
	w->loop->n_work--;
	w->done(w->arg, w->dropped);
	free(w);
}

struct sw_work *sw_work(struct sw_loop *l, sw_work_fn *fn, sw_work_done *done, void *arg)
{
	struct sw_work *w = xcalloc(1, sizeof(*w));

	w->req.data = w;
	w->fn = fn;
	w->done = done;
	w->arg = arg;
	w->loop = l;
	l->n_work++;
	uv_queue_work(&l->uv, &w->req, work_run, work_done); /* fails only for a NULL function */
	return w;
}

void sw_work_drop(struct sw_work *w)
{
	if (w)
		w->dropped = true;
}
