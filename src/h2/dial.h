/* dial.h - "host:port" becomes a connected socket. Loop thread. */
#pragma once
#include <stdint.h>
#include <uv.h>

struct sw_err;
struct sw_loop;
struct dial;

/* Once, from the loop, never inside dial_new(): @tcp on the heap, the receiver's to close and
 * free, or @err. The dial is freed when it returns. */
typedef void dial_cb(void *arg, uv_tcp_t *tcp, const struct sw_err *err);

/* Tries one address after the other, @timeout_ns for all of them together, names included. Fails
 * at once only for an @addr that is none (SW_REJECTED). */
int dial_new(struct dial **ret, struct sw_loop *l, const char *addr, uint64_t timeout_ns,
	dial_cb *cb, void *arg, struct sw_err *err);
/* Silence afterwards. NULL is fine. */
void dial_cancel(struct dial *d);
