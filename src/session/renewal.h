/* renewal.h - when certificates are renewed. Pure arithmetic. Private to the session room. */
#pragma once
#include <stdint.h>

/* A random whole minute in [50 %, 80 %) of the validity, counted from its start; the interval's
 * start if it is shorter than a minute. Seconds since 1970. */
int64_t renewal_time(int64_t not_before_s, int64_t not_after_s);
/* After the @failures-th failure in a row: uniform in [0, min(5 s + 5 s * 2^(n-1), 1 h)). */
uint64_t renewal_delay(unsigned failures);
uint64_t renewal_delay_bound(unsigned failures);
