/* breaker.h - which registries are away at the moment, so that tasks whose image is here need not
 * wait for them. One circuit breaker per registry host:
 *
 *   closed --failed--> open for 30 s --time over: the next one asks--> half-open
 *     ^                 ^------------- failed, twice as long, at most 5 min --'|
 *     '--------------------------- answered -----------------------------------'
 *
 * Pure; the caller brings the time. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct breaker;
struct breakers {
	struct breaker *hosts; /* only those that failed */
};

void breakers_done(struct breakers *b);
/* May @host be asked by somebody who can do without? *probe: this is the one try of the half-open
 * state, to be ended by breaker_failed(), breaker_answered() or breaker_left(). */
bool breaker_ask(struct breakers *b, const char *host, uint64_t now_ns, bool *probe);
/* It could not be reached. Returns for how long it is left alone from now on, 0: it was left alone
 * already. */
uint64_t breaker_failed(struct breakers *b, const char *host, uint64_t now_ns);
/* Returns true if it was away before. */
bool breaker_answered(struct breakers *b, const char *host);
/* The probe was given up without a result. */
void breaker_left(struct breakers *b, const char *host);
