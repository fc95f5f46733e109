/* loop.h - the one loop thread: timers, deferred calls, work for the pool.
 * Everything here is for the loop thread except where it says otherwise. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct sw_err;
struct sw_loop;

#define SW_NS_PER_MS 1000000ull
#define SW_NS_PER_S  1000000000ull
#define sw_ms(n)     ((uint64_t)(n)*SW_NS_PER_MS)
#define sw_s(n)      ((uint64_t)(n)*SW_NS_PER_S)

/* A loop of its own (not uv_default_loop): two agents in one process are possible. */
int sw_loop_new(struct sw_loop **ret, struct sw_err *err);
/* Closes the loop's own handles, waits for work and close callbacks that are under way, and frees
 * it. Every other handle must be closed already: returns -EBUSY (and frees nothing) while one is
 * left, which is a bug of its owner. */
int sw_loop_free(struct sw_loop *l);
uv_loop_t *sw_loop_uv(struct sw_loop *l);
/* Runs until sw_loop_stop() or until no live handle, timer or work is left. */
void sw_loop_run(struct sw_loop *l);
/* One round: waits for at most one event when @wait. Returns false when nothing is left alive. */
bool sw_loop_once(struct sw_loop *l, bool wait);
void sw_loop_stop(struct sw_loop *l);

/* Monotonic time in ns; with a fake clock, the fake time. */
uint64_t sw_now(struct sw_loop *l);
/* Wall clock, ns since 1970 UTC. Any thread. For timestamps that people or managers read. */
uint64_t sw_wall_ns(void);

/* Tests: from now on time stands still until sw_fake_advance(), which fires what becomes due,
 * in order, running the loop (without waiting) after each. */
void sw_fake_clock(struct sw_loop *l, uint64_t now_ns);
void sw_fake_advance(struct sw_loop *l, uint64_t by_ns);

/* Timers: embedded, no handle to close, stopping is immediate. All of them share one uv_timer_t;
 * ties fire in the order they were armed. A stopped timer never fires. Zero-initialise or
 * sw_timer_init() before use. */
typedef void sw_timer_cb(void *arg);
struct sw_timer {
	struct sw_loop *loop;
	sw_timer_cb *cb;
	void *arg;
	uint64_t at_ns, seq;
	size_t pos; /* 1-based place in the heap, 0: not armed */
};
void sw_timer_init(struct sw_timer *t, struct sw_loop *l, sw_timer_cb *cb, void *arg);
/* Arms or re-arms; fires once, from the loop, never from inside this call. Delay 0 means "after
 * what runs now": the way to defer. */
void sw_timer_arm(struct sw_timer *t, uint64_t delay_ns);
/* Absolute, on sw_now()'s clock. */
void sw_timer_arm_at(struct sw_timer *t, uint64_t at_ns);
void sw_timer_stop(struct sw_timer *t);
static inline bool sw_timer_armed(const struct sw_timer *t)
{
	return t->pos != 0;
}

/* Work on libuv's thread pool. @fn(arg) runs on a pool thread and may touch only @arg, a struct
 * that owns copies of its inputs. @done(arg, dropped) runs on the loop, exactly once, always:
 * it owns @arg from then on. @dropped: the owner called sw_work_drop() meanwhile, so the only
 * thing left to do is to free @arg. The handle is dead once @done has run. */
struct sw_work;
typedef void sw_work_fn(void *arg);
typedef void sw_work_done(void *arg, bool dropped);
struct sw_work *sw_work(struct sw_loop *l, sw_work_fn *fn, sw_work_done *done, void *arg);
/* Forget the result. NULL is fine. */
void sw_work_drop(struct sw_work *w);
