#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <test.h>
#include <unistd.h>

static struct sw_loop *loop;

static int setup(void **state)
{
	(void)state;
	loop = NULL;
	return sw_loop_new(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	return sw_loop_free(loop);
}

static void nothing(void *arg)
{
	(void)arg;
}

/* --- timers ----------------------------------------------------------------------------------- */

static char order[64];

struct named {
	struct sw_timer t;
	char name;
	struct named *other;
	void (*then)(struct named *n);
};

static void on_named(void *arg)
{
	struct named *n = arg;
	size_t len = strlen(order);

	assert_false(sw_timer_armed(&n->t));
	order[len] = n->name;
	order[len + 1] = '\0';
	if (n->then)
		n->then(n);
}

static void named_init(struct named *n, char name)
{
	*n = (struct named){.name = name};
	sw_timer_init(&n->t, loop, on_named, n);
	order[0] = '\0';
}

static void timers_in_order(void **state)
{
	struct named a, b, c, d;

	(void)state;
	sw_fake_clock(loop, 1000);
	named_init(&a, 'a');
	named_init(&b, 'b');
	named_init(&c, 'c');
	named_init(&d, 'd');
	sw_timer_arm(&c.t, 30);
	sw_timer_arm(&a.t, 10);
	sw_timer_arm(&b.t, 20);
	sw_timer_arm(&d.t, 20); /* tie: as armed */
	assert_string_equal(order, "");
	sw_fake_advance(loop, 9);
	assert_string_equal(order, "");
	assert_true(sw_now(loop) == 1009);
	sw_fake_advance(loop, 1);
	assert_string_equal(order, "a");
	sw_fake_advance(loop, 100);
	assert_string_equal(order, "abdc");
	assert_true(sw_now(loop) == 1110);
	/* in the past is now */
	sw_timer_arm_at(&a.t, 5);
	sw_fake_advance(loop, 0);
	assert_string_equal(order, "abdca");
}

static void arming_again_moves(void **state)
{
	struct named a, b;

	(void)state;
	sw_fake_clock(loop, 0);
	named_init(&a, 'a');
	named_init(&b, 'b');
	sw_timer_arm(&a.t, 10);
	sw_timer_arm(&b.t, 10);
	sw_timer_arm(&a.t, 10); /* to the end of the tie */
	sw_fake_advance(loop, 10);
	assert_string_equal(order, "ba");
	sw_timer_arm(&a.t, 10);
	sw_timer_arm(&a.t, 50);
	sw_fake_advance(loop, 49);
	assert_string_equal(order, "ba");
	sw_timer_arm(&a.t, UINT64_MAX); /* saturates */
	assert_true(a.t.at_ns == UINT64_MAX);
	sw_fake_advance(loop, sw_s(1000000));
	assert_string_equal(order, "ba");
	sw_timer_stop(&a.t);
	sw_timer_stop(&a.t);
	memset(&a.t, 0, sizeof(a.t));
	sw_timer_stop(&a.t); /* zero-initialised */
}

static void stop_other(struct named *n)
{
	sw_timer_stop(&n->other->t);
}

static void stopped_never_fires(void **state)
{
	struct named a, b, c;

	(void)state;
	sw_fake_clock(loop, 0);
	named_init(&a, 'a');
	named_init(&b, 'b');
	named_init(&c, 'c');
	a.then = stop_other;
	a.other = &b;
	/* b is due at the same time, and stopped by a */
	sw_timer_arm(&a.t, 1);
	sw_timer_arm(&b.t, 1);
	sw_timer_arm(&c.t, 1);
	sw_fake_advance(loop, 5);
	assert_string_equal(order, "ac");
	assert_false(sw_timer_armed(&b.t));
}

static int n_left;

static void again(struct named *n)
{
	if (--n_left > 0)
		sw_timer_arm(&n->t, 5);
}

static void arming_inside_the_callback(void **state)
{
	struct named a, b;

	(void)state;
	sw_fake_clock(loop, 0);
	named_init(&a, 'a');
	named_init(&b, 'b');
	a.then = again;
	n_left = 3;
	sw_timer_arm(&a.t, 5);
	sw_timer_arm(&b.t, 12);
	sw_fake_advance(loop, 100); /* 5, 10, 12, 15: time stops at each */
	assert_string_equal(order, "aaba");
}

static void never_inside_the_call(void **state)
{
	struct named a;

	(void)state;
	named_init(&a, 'a');
	sw_timer_arm(&a.t, 0);
	sw_timer_arm_at(&a.t, 0);
	assert_string_equal(order, "");
	assert_true(sw_timer_armed(&a.t));
	sw_loop_run(loop); /* ends: nothing is left */
	assert_string_equal(order, "a");
	assert_false(sw_loop_once(loop, true));
}

static void defer_again(struct named *n)
{
	sw_timer_arm(&n->t, 0);
}

static void on_readable(uv_poll_t *h, int status, int events)
{
	struct named *n = h->data;

	assert_int_equal(status, 0);
	assert_true(events & UV_READABLE);
	sw_timer_stop(&n->t);
	uv_close((uv_handle_t *)h, NULL);
}

/* A timer that defers itself again and again does not keep sockets from being served. */
static void deferring_does_not_starve(void **state)
{
	struct named a;
	uv_poll_t poll;
	int fd[2];

	(void)state;
	named_init(&a, 'a');
	a.then = NULL;
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(write(fd[1], "x", 1), 1);
	assert_int_equal(uv_poll_init(sw_loop_uv(loop), &poll, fd[0]), 0);
	poll.data = &a;
	uv_poll_start(&poll, UV_READABLE, on_readable);
	a.then = defer_again;
	a.name = '\0'; /* it may be many */
	sw_timer_arm(&a.t, 0);
	sw_loop_run(loop);
	close(fd[0]);
	close(fd[1]);
}

static void stop_the_loop(void *arg)
{
	(void)arg;
	sw_loop_stop(loop);
}

static void real_clock(void **state)
{
	struct sw_timer far, near;
	uint64_t start;

	(void)state;
	sw_timer_init(&far, loop, nothing, NULL);
	sw_timer_init(&near, loop, stop_the_loop, NULL);
	start = sw_now(loop);
	sw_timer_arm(&far, UINT64_MAX);
	sw_timer_arm(&near, sw_ms(3));
	sw_loop_run(loop);
	/* never early */
	assert_true(sw_now(loop) - start >= sw_ms(3));
	assert_false(sw_timer_armed(&near));
	assert_true(sw_timer_armed(&far));
	assert_true(sw_loop_once(loop, false));
	sw_timer_stop(&far);
	assert_false(sw_loop_once(loop, false));
	assert_true(sw_wall_ns() > 1700000000ull * SW_NS_PER_S);
}

/* Many timers, armed, moved and stopped at random, against a plain list. */
enum { MANY = 700 };

struct many {
	struct sw_timer t;
	uint64_t at, seq;
	bool armed;
};

static struct many many[MANY];
static uint64_t many_seq, fired;
static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static void many_arm(struct many *m)
{
	uint64_t delay = rnd(4) ? rnd(50) : rnd(5000);

	m->at = sw_now(loop) + delay;
	m->seq = ++many_seq;
	m->armed = true;
	sw_timer_arm(&m->t, delay);
}

static void on_many(void *arg)
{
	struct many *m = arg;

	assert_true(m->armed);
	assert_true(sw_now(loop) == m->at);
	/* nobody should have come before */
	for (int i = 0; i < MANY; i++) {
		if (many[i].armed && many[i].at == m->at)
			assert_true(many[i].seq >= m->seq);
		assert_true(!many[i].armed || many[i].at >= m->at);
	}
	m->armed = false;
	fired++;
	if (rnd(2))
		many_arm(m);
	if (rnd(3) == 0) {
		struct many *other = &many[rnd(MANY)];

		sw_timer_stop(&other->t);
		other->armed = false;
	}
}

static void many_timers(void **state)
{
	(void)state;
	sw_fake_clock(loop, 7);
	seed = 12345;
	many_seq = fired = 0;
	for (int i = 0; i < MANY; i++) {
		many[i] = (struct many){0};
		sw_timer_init(&many[i].t, loop, on_many, &many[i]);
		many_arm(&many[i]);
	}
	for (int round = 0; round < 2000; round++) {
		struct many *m = &many[rnd(MANY)];

		if (rnd(3)) {
			many_arm(m);
		} else {
			sw_timer_stop(&m->t);
			m->armed = false;
		}
		sw_fake_advance(loop, rnd(8));
		for (int i = 0; i < MANY; i += 50)
			assert_int_equal(sw_timer_armed(&many[i].t), many[i].armed);
	}
	sw_fake_advance(loop, 100);
	for (int i = 0; i < MANY; i++) {
		assert_true(!many[i].armed || many[i].at > sw_now(loop));
		sw_timer_stop(&many[i].t);
	}
	assert_true(fired > 2000);
}

/* --- work ------------------------------------------------------------------------------------- */

struct job {
	int in, out;
	int n_done;
	bool dropped;
	pid_t thread;
	struct sw_work *work, *drop_other;
};

static void run_job(void *arg)
{
	struct job *j = arg;

	j->out = j->in * 2;
	j->thread = gettid();
}

static void job_done(void *arg, bool dropped)
{
	struct job *j = arg;

	assert_int_equal(gettid(), getpid());
	j->n_done++;
	j->dropped = dropped;
}

static void work_is_done_once(void **state)
{
	struct job jobs[50] = {0};

	(void)state;
	for (int i = 0; i < 50; i++) {
		jobs[i].in = i;
		jobs[i].work = sw_work(loop, run_job, job_done, &jobs[i]);
		assert_non_null(jobs[i].work);
		assert_int_equal(jobs[i].n_done, 0);
	}
	for (int i = 0; i < 50; i += 2)
		sw_work_drop(jobs[i].work);
	sw_work_drop(NULL);
	sw_loop_run(loop);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(jobs[i].n_done, 1);
		assert_int_equal(jobs[i].dropped, i % 2 == 0);
		assert_int_equal(jobs[i].out, 2 * i); /* dropped work runs all the same */
		assert_int_not_equal(jobs[i].thread, getpid());
	}
}

static int pipe_fd[2];

static void run_wait(void *arg)
{
	struct job *j = arg;
	char c;

	j->out = (int)read(pipe_fd[0], &c, 1);
}

/* Freeing the loop waits for the result of work that still runs. */
static void free_waits_for_work(void **state)
{
	struct job j = {0};

	(void)state;
	assert_int_equal(pipe(pipe_fd), 0);
	sw_work(loop, run_wait, job_done, &j);
	sw_loop_once(loop, false);
	assert_int_equal(j.n_done, 0);
	assert_int_equal(write(pipe_fd[1], "x", 1), 1);
	assert_int_equal(sw_loop_free(loop), 0);
	assert_int_equal(j.n_done, 1);
	assert_int_equal(j.out, 1);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	loop = NULL;
}

static void free_refuses_open_handles(void **state)
{
	uv_timer_t active;
	uv_async_t idle;

	(void)state;
	assert_int_equal(sw_loop_free(NULL), 0);
	uv_timer_init(sw_loop_uv(loop), &active);
	uv_timer_start(&active, (uv_timer_cb)(void (*)(void))nothing, 1000000, 1000000);
	assert_int_equal(sw_loop_free(loop), -EBUSY);
	uv_close((uv_handle_t *)&active, NULL);
	uv_async_init(sw_loop_uv(loop), &idle, NULL);
	uv_unref((uv_handle_t *)&idle); /* does not keep the loop running, but it is open */
	assert_int_equal(sw_loop_free(loop), -EBUSY);
	uv_close((uv_handle_t *)&idle, NULL);
	assert_int_equal(sw_loop_free(loop), 0);
	loop = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(timers_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(arming_again_moves, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_never_fires, setup, teardown),
		cmocka_unit_test_setup_teardown(arming_inside_the_callback, setup, teardown),
		cmocka_unit_test_setup_teardown(never_inside_the_call, setup, teardown),
		cmocka_unit_test_setup_teardown(deferring_does_not_starve, setup, teardown),
		cmocka_unit_test_setup_teardown(real_clock, setup, teardown),
		cmocka_unit_test_setup_teardown(many_timers, setup, teardown),
		cmocka_unit_test_setup_teardown(work_is_done_once, setup, teardown),
		cmocka_unit_test_setup_teardown(free_waits_for_work, setup, teardown),
		cmocka_unit_test_setup_teardown(free_refuses_open_handles, setup, teardown),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
