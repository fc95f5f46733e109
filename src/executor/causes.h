/* causes.h - what really happened to a task, in the words that "docker service ps" shows. The texts
 * that managers and people know ("task: non-zero exit (137)", "dockerexec: unhealthy container")
 * stay in front, the cause follows. */
#pragma once
#include <stdbool.h>

struct ctl;
struct engine_container;
struct sw_err;

/* Remembers the output of the probe that made the container unhealthy. */
void causes_see(struct ctl *c, const struct engine_container *k);
/* Of the end of @c's container: "OOM killed", or "". malloc'd. */
char *causes_exit(const struct ctl *c, int code, bool oom, const char *engine_text);

/* "pull image X: " and what kind of failure it is before the registry's own text. @auth: what the
 * task brought, "" or NULL: nothing. */
void causes_pull(struct sw_err *e, const char *image, const char *auth);

/* If @err is about a port that is taken: asks the engine who has it, then calls @cb with the error
 * that names both; c->call is the question. False: it is about something else. */
bool causes_port(struct ctl *c, const struct sw_err *err,
	void (*cb)(struct ctl *c, const struct sw_err *err));
