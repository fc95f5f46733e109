/* The managers we may ask and how well they did. A handful of entries: an array, searched from the
 * front. Facts: swarmkit remotes/remotes.go (weights smoothed by one half, clipped to +-256). */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/session.h>

#define WEIGHT_MAX 256
/* Keeps every manager selectable: upstream's remoteWeightBias. */
#define BIAS 0.001
/* A swarm has some 3 to 7 managers. More than this is nonsense from a peer. */
#define PEERS_MAX 256

struct peer {
	char *node_id, *addr;
	int weight;
};

struct remotes {
	struct peer *peers;
	size_t n, room;
	void (*changed)(void *arg);
	void *changed_arg;
};

struct remotes *remotes_new(void)
{
	return xcalloc(1, sizeof(struct remotes));
}

void remotes_free(struct remotes *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++) {
		free(r->peers[i].node_id);
		free(r->peers[i].addr);
	}
	free(r->peers);
	free(r);
}

void remotes_on_change(struct remotes *r, void (*changed)(void *arg), void *arg)
{
	r->changed = changed;
	r->changed_arg = arg;
}

static void notify(struct remotes *r)
{
	if (r->changed)
		r->changed(r->changed_arg);
}

static struct peer *find(struct remotes *r, const char *node_id, const char *addr)
{
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->peers[i].addr, addr) == 0 &&
			strcmp(r->peers[i].node_id, node_id ? node_id : "") == 0)
			return &r->peers[i];
	return NULL;
}

static struct peer *add(struct remotes *r, const char *node_id, const char *addr)
{
	struct peer *p;

	if (r->n >= PEERS_MAX) {
		log_warning("too many managers, one is left out", KS("addr", addr),
			KU("limit", PEERS_MAX));
		return NULL;
	}
	if (r->n == r->room) {
		r->room = r->room ? 2 * r->room : 8;
		r->peers = xrealloc(r->peers, r->room, sizeof(*r->peers));
	}
	p = &r->peers[r->n++];
	*p = (struct peer){.node_id = xstrdup(node_id ? node_id : ""), .addr = xstrdup(addr)};
	return p;
}

static int clip(int w)
{
	return w > WEIGHT_MAX ? WEIGHT_MAX : w < -WEIGHT_MAX ? -WEIGHT_MAX : w;
}

/* ceil((obs + w) / 2): C's division truncates towards zero, which already is the ceiling of a
 * negative sum. */
static int smooth(int w, int observation)
{
	int sum = clip(observation) + w;

	return clip(sum > 0 ? (sum + 1) / 2 : sum / 2);
}

static void observe(struct remotes *r, struct peer *p, bool fresh, int observation)
{
	int old = p->weight;

	p->weight = smooth(old, observation);
	if (fresh || p->weight != old)
		notify(r);
}

void remotes_observe(struct remotes *r, const char *node_id, const char *addr, int observation)
{
	struct peer *p;
	bool fresh;

	if (sw_str_empty(addr))
		return;
	p = find(r, node_id, addr);
	fresh = !p;
	if (!p && !(p = add(r, node_id, addr)))
		return;
	observe(r, p, fresh, observation);
}

void remotes_observe_if_exists(
	struct remotes *r, const char *node_id, const char *addr, int observation)
{
	struct peer *p = sw_str_empty(addr) ? NULL : find(r, node_id, addr);

	if (p)
		observe(r, p, false, observation);
}

void remotes_add(struct remotes *r, const char *node_id, const char *addr, int weight)
{
	struct peer *p;

	if (sw_str_empty(addr))
		return;
	if (!(p = find(r, node_id, addr)) && !(p = add(r, node_id, addr)))
		return;
	p->weight = clip(weight);
	notify(r);
}

void remotes_remove(struct remotes *r, const char *node_id, const char *addr)
{
	struct peer *p = sw_str_empty(addr) ? NULL : find(r, node_id, addr);

	if (!p)
		return;
	free(p->node_id);
	free(p->addr);
	memmove(p, p + 1, (size_t)(&r->peers[--r->n] - p) * sizeof(*p));
	notify(r);
}

size_t remotes_count(const struct remotes *r)
{
	return r->n;
}

static struct remote view(const struct peer *p)
{
	return (struct remote){.node_id = p->node_id, .addr = p->addr, .weight = p->weight};
}

size_t remotes_list(const struct remotes *r, struct remote *out, size_t max)
{
	for (size_t i = 0; i < r->n && i < max; i++)
		out[i] = view(&r->peers[i]);
	return r->n < max ? r->n : max;
}

static bool avoided(const struct peer *p, const char *avoid)
{
	return avoid && *avoid && (strcmp(p->addr, avoid) == 0 || strcmp(p->node_id, avoid) == 0);
}

static double share(const struct peer *p)
{
	return (p->weight > 0 ? p->weight : 0) + BIAS;
}

int remotes_select(struct remotes *r, const char *avoid, struct remote *ret, struct sw_err *err)
{
	const struct peer *last = NULL;
	double total = 0, x;

	for (size_t i = 0; i < r->n; i++)
		if (!avoided(&r->peers[i], avoid))
			total += share(&r->peers[i]);
	x = sw_random_unit() * total;
	for (size_t i = 0; i < r->n; i++) {
		if (avoided(&r->peers[i], avoid))
			continue;
		last = &r->peers[i];
		if (x < share(last))
			break;
		x -= share(last); /* rounding may leave a rest: then it is the last one */
	}
	if (!last)
		return sw_err_set(err, SW_TEMPORARY, -ENOENT, "no remote hosts provided");
	*ret = view(last);
	return 0;
}
