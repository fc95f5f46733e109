/* looptest.h - running a loop in a test until something is true. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct sw_loop;

/* Runs the loop until *@flag, or fails the test after @ms (a guard, not a measure). */
void loop_until(struct sw_loop *l, const bool *flag, unsigned ms);
/* The same for a question. */
typedef bool loop_test(void *arg);
void loop_until_fn(struct sw_loop *l, loop_test *fn, void *arg, unsigned ms);
/* Lets @ms pass, events being served: only to see that something does NOT happen. */
void loop_for(struct sw_loop *l, unsigned ms);
