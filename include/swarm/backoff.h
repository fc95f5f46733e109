/* backoff.h - growing, randomised delays. Loop thread. */
#pragma once
#include <stdint.h>

/* bound' = min(@base + @factor * bound, @max); the delay is uniform in [0, bound').
 * Session failures: base 100 ms, factor 2, max 8 s give bounds 100 300 700 1500 3100 6300 8000
 * (moby/swarmkit agent/agent.go). All in ns. */
struct sw_backoff {
	uint64_t base_ns, max_ns;
	uint32_t factor;
	uint64_t bound_ns; /* 0: no failure yet */
};
/* One more failure; returns the new bound. */
uint64_t sw_backoff_fail(struct sw_backoff *b);
/* Uniform in [0, bound); 0 while there was no failure. */
uint64_t sw_backoff_delay(const struct sw_backoff *b);
void sw_backoff_reset(struct sw_backoff *b);

/* Uniform in [0, bound), from the kernel's generator; 0 for bound 0. Any thread. */
uint64_t sw_random(uint64_t bound);
/* Uniform in [0, 1). */
double sw_random_unit(void);
/* Tests: replaces the generator (returns 64 random bits); NULL restores. */
void sw_random_source(uint64_t (*next)(void *arg), void *arg);
