/* logs.h - log subscriptions of the manager, served from the tasks' controllers. Loop thread. */
#pragma once
#include "worker.h"
#include <swarm/source.h>

struct logs;
struct logs *logs_new(struct sw_loop *l, struct source *src, struct worker *w, const char *node_id);
void logs_free(struct logs *l);
void logs_subscription(struct logs *l, const Pb__SubscriptionMessage *m);
/* A task got its controller: followers want it. / It is about to lose it. */
void logs_task_opened(struct logs *l, struct task *t);
void logs_task_closing(struct logs *l, struct task *t);
/* The registration is over and every subscription with it; the manager sends them again. */
void logs_lost(struct logs *l);
size_t logs_count(const struct logs *l);
