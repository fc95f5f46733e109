/* fault.h - what an engine's error means at which step. The engine answers
 * 500 for faults of the spec too, so its status alone decides nothing. Pure. */
#pragma once
#include <stdbool.h>

struct sw_err;

enum fault_step {
	FAULT_READ,    /* inspect, list: worth another try unless the engine says 4xx */
	FAULT_PREPARE, /* final faults are rejections */
	FAULT_START,   /* final faults are failures */
	FAULT_STOP,
	FAULT_REMOVE, /* nothing is final */
};
void fault_classify(struct sw_err *e, enum fault_step step);

/* The engine answered with this status. NULL is no error. */
bool fault_http(const struct sw_err *e, int status);
bool fault_text(const struct sw_err *e, const char *part);
/* A failed pull that another try may cure: the registry or the way to it, not its answer. */
bool fault_pull_retry(const struct sw_err *e);
/* A failed pull whose registry could not be reached at all: name look-up, connection, timeout. */
bool fault_registry_away(const struct sw_err *e);
/* A failed pull that other credentials may cure. Registries hide private images behind "denied". */
bool fault_pull_refused(const struct sw_err *e);
/* The image is not there, as a create answers it. */
bool fault_no_image(const struct sw_err *e);
/* The name of a new container is taken: 409, on podman a 500. */
bool fault_name_taken(const struct sw_err *e);
