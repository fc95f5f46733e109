/* Resolving and connecting.
 *
 *   dial_new -> (numeric?) ---------------------> try_next -> connected: hand out
 *                  no -> getaddrinfo on the pool ----^  |
 *                                                   |   +-> refused, timed out, unreachable
 *                                                   +---------+  until no address is left
 *
 * Each address gets an equal share of the time that is left, so that one black hole among several
 * managers' addresses does not eat all of it. What libuv still owes a callback for (getaddrinfo, a
 * connect under way) outlives dial_cancel(); the struct goes with the last of them. */
#include "dial.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

#define MAX_ADDRS 8
#define MAX_HOST  255

struct dial {
	struct sw_loop *loop;
	dial_cb *cb;
	void *arg;
	char *addr; /* as given, for messages */
	struct sockaddr_storage addrs[MAX_ADDRS];
	int n_addrs, next;
	uint64_t deadline;
	struct sw_timer timer;
	uv_getaddrinfo_t gai;
	uv_connect_t connect;
	uv_tcp_t *tcp;
	bool resolving, connecting, timed_out, over;
	struct sw_err err; /* of the last try */
};

static void try_next(struct dial *d);

/* "host:port", "[v6]:port". */
static int split_addr(const char *addr, char *host, size_t room, char *port, struct sw_err *err)
{
	const char *colon = strrchr(addr, ':'), *from = addr, *to;
	unsigned long n = 0;

	if (!colon)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"address \"%.300s\": the port is missing, write host:port", addr);
	for (const char *p = colon + 1; *p; p++) {
		if (!isdigit((unsigned char)*p) || n > 65535) {
			n = 0;
			break;
		}
		n = n * 10 + (unsigned long)(*p - '0');
	}
	if (n < 1 || n > 65535)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"address \"%.300s\": the port is not in 1..65535", addr);
	to = colon;
	if (*from == '[') {
		from++;
		if (to - from < 2 || to[-1] != ']')
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"address \"%.300s\": write IPv6 as [address]:port", addr);
		to--;
	} else if (memchr(from, ':', (size_t)(to - from))) {
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"address \"%.300s\": write IPv6 as [address]:port", addr);
	}
	if (from == to || (size_t)(to - from) >= room)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"address \"%.300s\": the host is empty or longer than %d", addr, MAX_HOST);
	for (const char *p = from; p < to; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '/')
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"address \"%.300s\": this is no host name", addr);
	memcpy(host, from, (size_t)(to - from));
	host[to - from] = 0;
	snprintf(port, 8, "%lu", n);
	return 0;
}

static void maybe_free(struct dial *d)
{
	if (!d->over || d->resolving || d->connecting)
		return;
	free(d->addr);
	free(d);
}

static void on_tcp_closed(uv_handle_t *h)
{
	free(h);
}

static void drop_tcp(struct dial *d)
{
	if (d->tcp)
		uv_close((uv_handle_t *)d->tcp, on_tcp_closed);
	d->tcp = NULL;
}

static void finish(struct dial *d, uv_tcp_t *tcp)
{
	sw_timer_stop(&d->timer);
	d->over = true;
	d->cb(d->arg, tcp, tcp ? NULL : &d->err);
	maybe_free(d);
}

static void failed(struct dial *d, int r)
{
	sw_err_set(&d->err, SW_TEMPORARY, r, "connect to %.300s: %s", d->addr,
		r == UV_ETIMEDOUT ? "no answer in time" : uv_strerror(r));
}

static void on_timer(void *arg)
{
	struct dial *d = arg;

	if (d->resolving) {
		sw_err_set(&d->err, SW_TEMPORARY, -ETIMEDOUT,
			"connect to %.300s: the name was not resolved in time", d->addr);
		finish(d, NULL);
	} else if (d->connecting) {
		d->timed_out = true;
		drop_tcp(d); /* on_connect() goes on */
	} else {
		finish(d, NULL); /* a failure that had to wait for the loop */
	}
}

static void on_connect(uv_connect_t *req, int status)
{
	struct dial *d = req->data;
	uv_tcp_t *tcp = d->tcp;

	d->connecting = false;
	if (d->over) {
		maybe_free(d);
		return;
	}
	if (status == 0 && tcp) {
		d->tcp = NULL;
		finish(d, tcp);
		return;
	}
	failed(d, d->timed_out ? UV_ETIMEDOUT : status);
	drop_tcp(d);
	try_next(d);
}

static void try_next(struct dial *d)
{
	uint64_t now = sw_now(d->loop);
	uint64_t left = d->deadline > now ? d->deadline - now : 0;

	while (d->next < d->n_addrs && left > 0) {
		uint64_t share = left / (uint64_t)(d->n_addrs - d->next);
		const struct sockaddr *sa = (struct sockaddr *)&d->addrs[d->next++];
		int r;

		d->timed_out = false;
		d->connect.data = d;
		d->tcp = xcalloc(1, sizeof(*d->tcp));
		r = uv_tcp_init(sw_loop_uv(d->loop), d->tcp);
		if (r < 0) { /* no handle yet */
			free(d->tcp);
			d->tcp = NULL;
			failed(d, r);
			continue;
		}
		r = uv_tcp_connect(&d->connect, d->tcp, sa, on_connect);
		if (r == 0) {
			d->connecting = true;
			sw_timer_arm(&d->timer, share);
			return;
		}
		failed(d, r);
		drop_tcp(d);
	}
	if (d->err.cls == SW_OK)
		failed(d, UV_ETIMEDOUT);
	sw_timer_arm(&d->timer, 0);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
	struct dial *d = req->data;

	d->resolving = false;
	for (const struct addrinfo *a = res; a && d->n_addrs < MAX_ADDRS; a = a->ai_next)
		if (a->ai_addrlen <= sizeof(d->addrs[0]))
			memcpy(&d->addrs[d->n_addrs++], a->ai_addr, a->ai_addrlen);
	uv_freeaddrinfo(res);
	if (d->over) {
		maybe_free(d);
		return;
	}
	if (status < 0 || d->n_addrs == 0) {
		sw_err_set(&d->err, SW_TEMPORARY, status < 0 ? status : -ENOENT,
			"connect to %.300s: the name cannot be resolved: %s", d->addr,
			status < 0 ? uv_strerror(status) : "no address");
		finish(d, NULL);
		return;
	}
	try_next(d);
}

int dial_new(struct dial **ret, struct sw_loop *l, const char *addr, uint64_t timeout_ns,
	dial_cb *cb, void *arg, struct sw_err *err)
{
	char host[MAX_HOST + 1], port[8];
	struct dial *d;
	int r = split_addr(addr, host, sizeof(host), port, err), number;

	if (r < 0)
		return r;
	d = xcalloc(1, sizeof(*d));
	d->loop = l;
	d->cb = cb;
	d->arg = arg;
	d->addr = xstrdup(addr);
	if (__builtin_add_overflow(sw_now(l), timeout_ns, &d->deadline))
		d->deadline = UINT64_MAX;
	sw_timer_init(&d->timer, l, on_timer, d);
	*ret = d;
	number = (int)strtol(port, NULL, 10); /* digits, checked above */
	if (uv_ip4_addr(host, number, (struct sockaddr_in *)&d->addrs[0]) == 0 ||
		uv_ip6_addr(host, number, (struct sockaddr_in6 *)&d->addrs[0]) == 0) {
		d->n_addrs = 1;
		try_next(d);
		return 0;
	}
	d->gai.data = d;
	r = uv_getaddrinfo(sw_loop_uv(l), &d->gai, on_resolved, host, port,
		/* no AI_ADDRCONFIG: it would not find localhost on a host that has nothing else */
		&(struct addrinfo){.ai_socktype = SOCK_STREAM});
	if (r < 0) {
		failed(d, r);
		sw_timer_arm(&d->timer, 0);
		return 0;
	}
	d->resolving = true;
	sw_timer_arm(&d->timer, timeout_ns);
	return 0;
}

void dial_cancel(struct dial *d)
{
	if (!d)
		return;
	d->over = true;
	sw_timer_stop(&d->timer);
	if (d->resolving)
		uv_cancel((uv_req_t *)&d->gai); /* if it still waits for a thread */
	drop_tcp(d);
	maybe_free(d);
}
