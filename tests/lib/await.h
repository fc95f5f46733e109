/* await.h - runs a loop until something is true; a test that waits in vain fails with its line
 * instead of hanging.
 *
 * One round of libuv runs the timers and then waits for an event. If it was a timer that made the
 * condition true, nothing else may ever happen: the tick makes us look again. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <swarm/loop.h>

struct await {
	struct sw_timer tick;
	uint64_t left;
};

static inline void await_tick(void *arg)
{
	struct await *a = arg;

	if (a->left && --a->left)
		sw_timer_arm(&a->tick, sw_ms(5));
}

/* For timers of a test's own: *arg becomes true. */
static inline void await_late(void *arg)
{
	*(bool *)arg = true;
}

#define AWAIT_WITHIN(loop, seconds, cond)                                                          \
	do {                                                                                       \
		struct await a_ = {.left = (seconds)*200u};                                        \
		sw_timer_init(&a_.tick, (loop), await_tick, &a_);                                  \
		sw_timer_arm(&a_.tick, sw_ms(5));                                                  \
		while (!(cond) && a_.left)                                                         \
			sw_loop_once((loop), true);                                                \
		sw_timer_stop(&a_.tick);                                                           \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: waited in vain for %s\n", __FILE__, __LINE__,      \
				#cond);                                                            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)
#define AWAIT(loop, cond) AWAIT_WITHIN(loop, 30, cond)
