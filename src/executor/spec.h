/* spec.h - a task as the body of POST /containers/create. Pure: no engine, no
 * loop. What cannot be done is refused with a message that names the field; nothing is left out in
 * silence. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <swarm/api.h>

struct sw_err;
struct json_object;
struct policy;

#define SPEC_LABEL_TASK         "com.docker.swarm.task"
#define SPEC_LABEL_TASK_ID      "com.docker.swarm.task.id"
#define SPEC_LABEL_TASK_NAME    "com.docker.swarm.task.name"
#define SPEC_LABEL_NODE_ID      "com.docker.swarm.node.id"
#define SPEC_LABEL_SERVICE_ID   "com.docker.swarm.service.id"
#define SPEC_LABEL_SERVICE_NAME "com.docker.swarm.service.name"
/* Ours: tells our containers from those of an engine that is itself in a swarm. */
#define SPEC_LABEL_CLUSTER "io.swarm-agentd.cluster"
/* Of a network that was made for a task: its id in the swarm. */
#define SPEC_LABEL_NETWORK "io.swarm-agentd.network"

struct spec_env {
	const char *cluster_id;
	int api; /* minor number of the engine's API 1.x; 0: not known yet, checks by version wait
		  */
	bool podman;
	bool remote;                 /* the engine does not see our files */
	const char *run_dir;         /* NULL: none */
	const struct policy *policy; /* of extras.h; NULL: nothing is allowed */
};

/* Everything that can be known without the engine. 0, or SW_REJECTED. */
int spec_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err);
/* A new object for the caller. @env's version must be known. 0, or SW_REJECTED. */
int spec_body(const Pb__Task *t, const char *name, const struct spec_env *env,
	struct json_object **ret, struct sw_err *err);

/* Of a task with a container runtime: */
const Pb__ContainerSpec *spec_container(const Pb__Task *t);
/* Body of POST /volumes/create for mount @i, NULL if it needs none (it names no driver). */
struct json_object *spec_volume_body(const Pb__Task *t, size_t i);
/* Networks in the task's order; the first is the network mode. */
size_t spec_n_networks(const Pb__Task *t);
const char *spec_network_name(const Pb__Task *t, size_t i);
struct json_object *spec_endpoint(const Pb__Task *t, size_t i);
/* Node-local ones (bridge, macvlan, ipvlan) are made here: the body of POST /networks/create, and
 * what tells such a network from somebody else's of that name. "" if it has no such source. */
bool spec_network_is_local(const Pb__Task *t, size_t i);
struct json_object *spec_network_body(const Pb__Task *t, size_t i, const struct spec_env *env);
const char *spec_network_id(const Pb__Task *t, size_t i);
const char *spec_network_driver(const Pb__Task *t, size_t i);
const char *spec_network_config_from(const Pb__Task *t, size_t i);
/* How many of them the create body carries (API below 1.44: one). */
size_t spec_networks_at_create(const Pb__Task *t, const struct spec_env *env);
/* Whole seconds, rounded up; -1 if the spec has none. */
int64_t spec_grace_s(const Pb__Task *t);

/* ---- parts, each in a file of its own */
int spec_mounts_check(const Pb__ContainerSpec *c, const struct spec_env *env, struct sw_err *err);
int spec_mounts_add(const Pb__ContainerSpec *c, const struct spec_env *env,
	struct json_object *host, struct sw_err *err);
/* files.c: secrets and configs */
int spec_files_check(const Pb__ContainerSpec *c, const struct spec_env *env, struct sw_err *err);
int spec_files_add(const Pb__Task *t, const struct spec_env *env, struct json_object *host,
	struct sw_err *err);
/* And ports. */
int spec_networks_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err);
/* NetworkMode into @host, NetworkingConfig into @body. */
void spec_networks_add(const Pb__Task *t, const struct spec_env *env, struct json_object *body,
	struct json_object *host);
/* Host-mode ports: ExposedPorts into @body, PortBindings into @host. */
void spec_ports_add(const Pb__Task *t, struct json_object *body, struct json_object *host);
/* The rest of HostConfig; sysctls of an interface go into @body's endpoint. */
int spec_host_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err);
void spec_host_add(const Pb__Task *t, const struct spec_env *env, struct json_object *body,
	struct json_object *host);

/* ---- json helpers: nothing is added for empty input */
void spec_put_str(struct json_object *o, const char *key, const char *s);
void spec_put_strs(struct json_object *o, const char *key, char *const *v, size_t n);
/* The list @key of @host, made when it is first needed; borrowed. */
struct json_object *spec_list(struct json_object *host, const char *key);
struct json_object *spec_map(Pb__StringPair *const *map, size_t n);
