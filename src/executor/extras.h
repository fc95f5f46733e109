/* extras.h - what dockerd's workers cannot give to a service: devices, privileged, GPUs and the
 * like, asked for with container labels ("docker service create --container-label
 * io.swarm-agentd.devices=/dev/fuse"), each as far as the node's policy allows it. The names follow
 * "docker run". Pure. */
#pragma once
#include "spec.h"

#define EXTRAS_PREFIX "io.swarm-agentd."

/* SW_REJECTED names label, value, and what is wrong or which key of the configuration allows it. A
 * label of our prefix that means nothing is refused too. */
int extras_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err);
/* Into HostConfig; after a good extras_check(). */
void extras_add(const Pb__Task *t, const struct spec_env *env, struct json_object *host);
