/* generic.h - generic resources that the operator declares instead of the engine's. Pure. */
#pragma once
#include <swarm/api.h>
#include <swarm/executor.h>

struct sw_err;

/* "gpu=UUID1" "gpu=UUID2" "ssd=5": one whole number for a kind is a count, anything else a set of
 * names, as "node-generic-resources" of dockerd. A new object with only @generic filled, unsorted;
 * SW_REJECTED names the entry. */
int generic_parse(Pb__Resources **ret, const struct docker_words *words, struct sw_err *err);
