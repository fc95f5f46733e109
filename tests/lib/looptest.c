#include "looptest.h"
#include "test.h"
#include <swarm/loop.h>

static void on_guard(void *arg)
{
	*(bool *)arg = true;
}

void loop_until_fn(struct sw_loop *l, loop_test *fn, void *arg, unsigned ms)
{
	bool late = false;
	struct sw_timer guard;

	sw_timer_init(&guard, l, on_guard, &late);
	sw_timer_arm(&guard, sw_ms(ms));
	while (!late && !fn(arg))
		sw_loop_once(l, true);
	sw_timer_stop(&guard);
	if (late)
		fail_msg("nothing happened within %u ms", ms);
}

static bool is_set(void *arg)
{
	return *(const bool *)arg;
}

void loop_until(struct sw_loop *l, const bool *flag, unsigned ms)
{
	loop_until_fn(l, is_set, (void *)(uintptr_t)flag, ms);
}

void loop_for(struct sw_loop *l, unsigned ms)
{
	bool over = false;
	struct sw_timer t;

	sw_timer_init(&t, l, on_guard, &over);
	sw_timer_arm(&t, sw_ms(ms));
	while (!over)
		sw_loop_once(l, true);
}
