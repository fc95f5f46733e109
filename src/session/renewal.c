#include "renewal.h"
#include <swarm/backoff.h>
#include <swarm/loop.h>

int64_t renewal_time(int64_t not_before_s, int64_t not_after_s)
{
	int64_t minutes = not_after_s > not_before_s ? (not_after_s - not_before_s) / 60 : 0;
	int64_t from = minutes / 2, to = minutes * 8 / 10;

	if (to > from)
		from += (int64_t)sw_random((uint64_t)(to - from));
	return not_before_s + from * 60;
}

uint64_t renewal_delay_bound(unsigned failures)
{
	if (failures == 0)
		return 0;
	/* 5 s * 2^9 is above the hour already */
	return failures > 10 ? sw_s(3600) : sw_s(5) + (sw_s(5) << (failures - 1));
}

uint64_t renewal_delay(unsigned failures)
{
	return sw_random(renewal_delay_bound(failures));
}
