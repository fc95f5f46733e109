/* deps.h - the secrets and configs that were assigned with the tasks. In memory only, wiped when
 * withdrawn. Loop thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <swarm/api.h>
#include <swarm/executor.h>

struct deps;
/* @task finds an assigned task by id, or NULL: its spec says what it may see. */
struct deps *deps_new(const Pb__Task *(*task)(void *arg, const char *task_id), void *arg);
void deps_free(struct deps *d);
/* Moves secrets and configs out of @m; a COMPLETE replaces all there is, an INCREMENTAL removes
 * first and adds then. True if something was added. */
bool deps_apply(struct deps *d, Pb__AssignmentsMessage *m);
/* The getters for executors; what they return is valid until the next deps_apply(). */
void deps_getters(struct deps *d, struct executor_deps *ret);
size_t deps_count(const struct deps *d);
/* Wipes the payloads of the secrets and configs that are still in @m. */
void deps_wipe_message(Pb__AssignmentsMessage *m);
