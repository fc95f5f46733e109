#include <errno.h>
#include <swarm/backoff.h>
#include <sys/random.h>

static uint64_t (*source)(void *arg);
static void *source_arg;

void sw_random_source(uint64_t (*next)(void *arg), void *arg)
{
	source = next;
	source_arg = arg;
}

static uint64_t random64(void)
{
	uint64_t r = 0;

	if (source)
		return source(source_arg);
	/* up to 256 bytes come whole once the pool is ready (getrandom(2)) */
	while (getrandom(&r, sizeof(r), 0) < 0 && errno == EINTR)
		;
	return r;
}

uint64_t sw_random(uint64_t bound)
{
	uint64_t r, limit;

	if (!bound)
		return 0;
	limit = UINT64_MAX - UINT64_MAX % bound; /* the last incomplete range would be biased */
	do
		r = random64();
	while (r >= limit && !source);
	return r % bound;
}

double sw_random_unit(void)
{
	return (double)(random64() >> 11) * 0x1.0p-53;
}

uint64_t sw_backoff_fail(struct sw_backoff *b)
{
	uint64_t grown;

	if (__builtin_mul_overflow(b->bound_ns, (uint64_t)b->factor, &grown) ||
		__builtin_add_overflow(grown, b->base_ns, &grown) || grown > b->max_ns)
		grown = b->max_ns;
	b->bound_ns = grown;
	return grown;
}

uint64_t sw_backoff_delay(const struct sw_backoff *b)
{
	return sw_random(b->bound_ns);
}

void sw_backoff_reset(struct sw_backoff *b)
{
	b->bound_ns = 0;
}
