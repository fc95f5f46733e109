/* executor.h - makes controllers and describes the node. Loop thread. Knows no gRPC. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <swarm/api.h>
#include <swarm/controller.h>
#include <swarm/err.h>

struct sw_loop;
struct executor;
struct engine;

/* @desc borrowed, without tls_info; NULL with @err: keep the last one. */
typedef void executor_describe_cb(
	void *arg, const Pb__NodeDescription *desc, const struct sw_err *err);
typedef void executor_done_cb(void *arg, const struct sw_err *err);

struct executor_found {
	const char *container_id, *name, *task_id, *status;
	bool running;
};
typedef void executor_list_cb(
	void *arg, const struct executor_found *f, size_t n, const struct sw_err *err);

/* Secrets and configs that arrived, by id; the getter is the agent's. NULL: not (yet) there. */
struct executor_deps {
	const Pb__Secret *(*secret)(void *arg, const char *task_id, const char *secret_id);
	const Pb__Config *(*config)(void *arg, const char *task_id, const char *config_id);
	/* Whether the agent has a task of that id, in whatever state. May be NULL: not known. */
	bool (*knows_task)(void *arg, const char *task_id);
	void *arg;
};

struct executor_ops {
	/* Asynchronous, one at a time; may take as long as the engine wants. Deterministic order.
	 */
	void (*describe)(struct executor *x, executor_describe_cb *cb, void *arg);
	/* A new node object. Must not block; the node id is known from here on. */
	void (*configure)(struct executor *x, const Pb__Node *node);
	/* Validates the spec, no engine calls. SW_REJECTED: message is the status's err text. */
	int (*controller)(struct executor *x, struct api_task *t, struct controller **ret,
		struct sw_err *err);
	/* Keys are secret: kept in memory only. */
	int (*set_network_bootstrap_keys)(
		struct executor *x, Pb__EncryptionKey **keys, size_t n, struct sw_err *err);
	/* Who we are, before the first controller: labels of our containers, event stream. */
	void (*set_node)(struct executor *x, const char *node_id, const char *cluster_id);
	void (*set_deps)(struct executor *x, const struct executor_deps *deps);
	/* The stored tasks are loaded: what belongs to none of them (deps.knows_task) can go, as
	 * far as it is the executor's own. May be NULL. */
	void (*sweep)(struct executor *x);
	/* All containers on the engine that carry our node id, running or not. */
	void (*list)(struct executor *x, executor_list_cb *cb, void *arg);
	/* Stops and removes a container that no task owns. */
	void (*remove_orphan)(
		struct executor *x, const char *container_id, executor_done_cb *cb, void *arg);
	/* All controllers are closed already. Calls @closed from the loop; what is outstanding is
	 * called with SW_CANCELLED before that. */
	void (*close)(struct executor *x, void (*closed)(void *arg), void *arg);
};
struct executor {
	const struct executor_ops *ops;
	/* Set by the agent; called when describe() would give something new (engine back, plugin
	 * events). May be NULL. */
	void (*changed)(void *arg);
	void *changed_arg;
};

/* ---- the Docker executor */
enum docker_pull_policy { DOCKER_PULL_ALWAYS, DOCKER_PULL_MISSING, DOCKER_PULL_NEVER };
/* What becomes of services that publish ports through the routing mesh, which is not here. */
enum docker_ingress {
	DOCKER_INGRESS_REJECT,
	DOCKER_INGRESS_HOST_PORT, /* "overlay" is offered to the scheduler, the ports are published
				     on this node alone */
};
struct docker_words {
	char *const *v;
	size_t n;
};
/* What a service may ask for beyond what dockerd's workers give (extras.h). All zero: nothing. A
 * list that is the one word "no" is empty. Names in comments: the configuration's. */
struct docker_policy {
	bool privileged;                   /* allow-privileged */
	uint64_t max_shm_size;             /* allow-shm-size, bytes */
	struct docker_words devices;       /* allow-devices: PATTERN[:PERMS] of fnmatch(3) */
	struct docker_words cgroup_rules;  /* allow-device-cgroup-rules: "c 189:* rwm" */
	struct docker_words security_opts; /* allow-security-opt: patterns */
	struct docker_words gpus;     /* allow-gpus: "all", "assigned", patterns of device ids */
	struct docker_words ipc, pid; /* allow-ipc, allow-pid: modes */
};
struct docker_executor_config {
	struct sw_loop *loop;
	struct engine *engine; /* borrowed */
	const char *hostname;  /* NULL: the engine's */
	enum docker_pull_policy pull_policy;
	int64_t reserve_memory;         /* subtracted from what Describe reports, bytes */
	unsigned max_starts, max_pulls; /* at once; 0: 8 and 4 */
	/* Absolute; secrets and configs lie below it, on a tmpfs that is mounted there if need be.
	 * NULL: tasks with secrets or configs are rejected. */
	const char *run_dir;
	/* Folder with the node's own registry credentials (config.json), for tasks that bring none
	 * or whose own are refused. NULL or "": none. */
	const char *docker_config;
	struct docker_policy policy; /* copied */
	enum docker_ingress ingress;
	/* "gpu=UUID1", "ssd=5": instead of what the engine names. Copied. None: the engine's. */
	struct docker_words generic_resources;
};
int docker_executor_new(
	struct executor **ret, const struct docker_executor_config *cfg, struct sw_err *err);
