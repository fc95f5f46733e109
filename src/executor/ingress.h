/* ingress.h - services published through the routing mesh, on a node that has none. With
 * "ingress = host-port" such a task loses its ingress network and gets its ports on this node, as
 * if they had been published with mode=host. Pure. */
#pragma once
#include <stdbool.h>
#include <swarm/api.h>
#include <swarm/executor.h>

struct sw_err;

bool ingress_is_network(const Pb__NetworkAttachment *a);
/* The task as it runs here, in *@ret with a reference for the caller: @t itself, or a changed copy.
 * SW_REJECTED names the port that cannot be published. */
int ingress_task(
	struct api_task *t, enum docker_ingress mode, struct api_task **ret, struct sw_err *err);
