/* gate.h - a semaphore that serves in the order of arrival. Loop thread. */
#pragma once
#include <stdbool.h>
#include <swarm/loop.h>
#include <sys/queue.h>

struct gate_ticket;
struct gate {
	unsigned free;
	struct sw_timer kick;
	TAILQ_HEAD(, gate_ticket) waiting;
};
struct gate_ticket { /* embedded, zero-initialised */
	struct gate *gate;
	bool held; /* else it waits */
	void (*entered)(void *arg);
	void *arg;
	TAILQ_ENTRY(gate_ticket) link;
};

void gate_init(struct gate *g, struct sw_loop *l, unsigned places);
void gate_done(struct gate *g);
/* @entered comes from the loop, never inside this call. */
void gate_enter(struct gate *g, struct gate_ticket *t, void (*entered)(void *arg), void *arg);
/* Gives the place back or stops waiting; nothing if neither. */
void gate_leave(struct gate_ticket *t);
