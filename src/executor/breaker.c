#include "breaker.h"
#include <stdlib.h>
#include <string.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <uthash.h>

#define COOL_FIRST sw_s(30)
#define COOL_MAX   sw_s(300)
#define FORGET     sw_s(3600) /* hosts come from tasks: the table must not grow for ever */

struct breaker {
	uint64_t until_ns, cool_ns;
	bool probing;
	UT_hash_handle hh;
	char host[];
};

static struct breaker *find(const struct breakers *b, const char *host)
{
	struct breaker *x;

	HASH_FIND_STR(b->hosts, host, x);
	return x;
}

static void drop(struct breakers *b, struct breaker *x)
{
	/* the analyzer follows uthash into cases that its counters exclude:
	 * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
	HASH_DEL(b->hosts, x);
	free(x);
}

void breakers_done(struct breakers *b)
{
	struct breaker *x, *next;

	HASH_ITER (hh, b->hosts, x, next)
		drop(b, x);
}

bool breaker_ask(struct breakers *b, const char *host, uint64_t now_ns, bool *probe)
{
	struct breaker *x = find(b, host);

	*probe = false;
	if (!x)
		return true;
	if (x->probing || now_ns < x->until_ns)
		return false;
	*probe = x->probing = true;
	return true;
}

static struct breaker *add(struct breakers *b, const char *host, uint64_t now_ns)
{
	struct breaker *x, *next;

	HASH_ITER (hh, b->hosts, x, next)
		if (!x->probing && now_ns > x->until_ns + FORGET)
			drop(b, x);
	x = xcalloc(1, sizeof(*x) + strlen(host) + 1);
	memcpy(x->host, host, strlen(host) + 1);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): as above */
	HASH_ADD_STR(b->hosts, host, x);
	return x;
}

uint64_t breaker_failed(struct breakers *b, const char *host, uint64_t now_ns)
{
	struct breaker *x = find(b, host);

	if (x && now_ns < x->until_ns)
		return 0; /* one of those that were under way when the first one failed */
	if (!x)
		x = add(b, host, now_ns);
	x->probing = false;
	x->cool_ns = !x->cool_ns ? COOL_FIRST : 2 * x->cool_ns;
	if (x->cool_ns > COOL_MAX)
		x->cool_ns = COOL_MAX;
	x->until_ns = now_ns + x->cool_ns;
	return x->cool_ns;
}

bool breaker_answered(struct breakers *b, const char *host)
{
	struct breaker *x = find(b, host);

	if (!x)
		return false;
	drop(b, x);
	return true;
}

void breaker_left(struct breakers *b, const char *host)
{
	struct breaker *x = find(b, host);

	if (x)
		x->probing = false;
}
