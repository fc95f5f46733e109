#include "gate.h"
#include <assert.h>

static void on_kick(void *arg)
{
	struct gate *g = arg;
	struct gate_ticket *t;

	while (g->free && (t = TAILQ_FIRST(&g->waiting))) {
		TAILQ_REMOVE(&g->waiting, t, link);
		g->free--;
		t->held = true;
		t->entered(t->arg); /* may leave again, which arms the kick anew */
	}
}

void gate_init(struct gate *g, struct sw_loop *l, unsigned places)
{
	g->free = places;
	TAILQ_INIT(&g->waiting);
	sw_timer_init(&g->kick, l, on_kick, g);
}

void gate_done(struct gate *g)
{
	assert(TAILQ_EMPTY(&g->waiting));
	sw_timer_stop(&g->kick);
}

void gate_enter(struct gate *g, struct gate_ticket *t, void (*entered)(void *arg), void *arg)
{
	assert(!t->gate);
	t->gate = g;
	t->held = false;
	t->entered = entered;
	t->arg = arg;
	TAILQ_INSERT_TAIL(&g->waiting, t, link);
	sw_timer_arm(&g->kick, 0);
}

void gate_leave(struct gate_ticket *t)
{
	struct gate *g = t->gate;

	if (!g)
		return;
	t->gate = NULL;
	if (t->held) {
		g->free++;
		if (!TAILQ_EMPTY(&g->waiting))
			sw_timer_arm(&g->kick, 0);
	} else {
		TAILQ_REMOVE(&g->waiting, t, link);
	}
}
