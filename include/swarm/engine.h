/* engine.h - typed Docker Engine API calls. Loop thread only. Knows no tasks.
 *
 * The API version is negotiated before the first call and after every reconnect to an engine whose
 * Server header changed. Errors: domain SW_E_HTTP with the engine's status and its own message
 * ({"message": ...}, without any prefix), or SW_TEMPORARY in domain errno when the engine cannot be
 * reached. The class is a default (408, 429, 5xx of proxies, transport texts: temporary; the rest
 * rejected); the executor refines it by step. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/chain.h>
#include <swarm/err.h>

struct sw_loop;
struct engine;
struct engine_call;
struct json_object;

#define ENGINE_API_MIN "1.41"
#define ENGINE_API_MAX "1.51"

struct engine_config {
	const char *host;      /* as DOCKER_HOST: unix:///path, tcp://host:port[/base]; others are
				  refused by name */
	const char *cert_path; /* folder with ca.pem cert.pem key.pem; NULL: plain */
	bool tls_verify;
	const char *api_version; /* pins the version; NULL: negotiate */
};
/* Copies @cfg. Does not connect yet. SW_REJECTED names the value and the allowed schemes. */
int engine_new(struct engine **ret, struct sw_loop *l, const struct engine_config *cfg,
	struct sw_err *err);
/* Cancels what runs, silently; frees @e, then calls @closed from the loop. */
void engine_close(struct engine *e, void (*closed)(void *arg), void *arg);
/* Negotiated "1.41", or NULL before. */
const char *engine_api_version(const struct engine *e);
/* True if the negotiated version is at least @major.@minor. */
bool engine_api_at_least(const struct engine *e, int major, int minor);
bool engine_is_podman(const struct engine *e);
/* The engine runs on this host (unix socket): its paths and pids are ours. */
bool engine_is_local(const struct engine *e);

/* After this no callback of the call comes. NULL is fine. Every call frees itself after its last
 * callback: forget the pointer there. Callbacks never run inside the function that starts a call.
 */
void engine_call_cancel(struct engine_call *c);

/* ---- node */
struct engine_pair {
	const char *key, *value;
};
struct engine_info {
	const char *name, *architecture, *os_type, *server_version, *id;
	int64_t ncpu, mem_total;
	struct engine_pair *labels; /* split at the first '='; entries without one are left out */
	size_t n_labels;
	const char **volume_plugins, **network_plugins, **authorization_plugins, **log_plugins;
	size_t n_volume_plugins, n_network_plugins, n_authorization_plugins, n_log_plugins;
	const char *swarm_state;               /* LocalNodeState, "" if unknown */
	struct json_object *generic_resources; /* array as the engine gives it, or NULL */
	bool live_restore;
	struct json_object *json; /* the whole answer */
};
/* All pointers borrowed during the callback. */
typedef void engine_info_cb(void *arg, const struct engine_info *info, const struct sw_err *err);
struct engine_call *engine_info(struct engine *e, engine_info_cb *cb, void *arg);
/* Enabled managed (v2) plugins as (type, name:tag) pairs with the type names of a node description;
 * engines without the endpoint (404) give an empty list, no error. */
typedef void engine_plugins_cb(
	void *arg, const struct engine_pair *p, size_t n, const struct sw_err *err);
struct engine_call *engine_plugins(struct engine *e, engine_plugins_cb *cb, void *arg);
typedef void engine_done_cb(void *arg, const struct sw_err *err);
struct engine_call *engine_ping(struct engine *e, engine_done_cb *cb, void *arg);

/* ---- containers */
struct engine_port {
	const char *protocol; /* "tcp" */
	uint16_t target, published;
};
struct engine_container {
	const char *id, *name; /* name without the leading '/' */
	const char *status;    /* created running paused restarting removing exited dead ... */
	bool running, paused, oom_killed, has_healthcheck;
	const char *health;        /* "", "starting", "healthy", "unhealthy" */
	const char *health_output; /* of the last failed probe, "" if none */
	int64_t pid;
	int exit_code;
	const char *error;                    /* State.Error */
	const char *started_at, *finished_at; /* RFC 3339 as given */
	struct engine_pair *labels;
	size_t n_labels;
	struct engine_port *ports; /* bound ones, one per (protocol, target, published), sorted */
	size_t n_ports;
	struct json_object *json; /* the whole answer */
};
const char *engine_container_label(const struct engine_container *c, const char *key);
typedef void engine_id_cb(void *arg, const char *id, const struct sw_err *err);
/* POST /containers/create?name=@name with @body (borrowed, serialised at once). Warnings are
 * logged. */
struct engine_call *engine_container_create(
	struct engine *e, const char *name, struct json_object *body, engine_id_cb *cb, void *arg);
typedef void engine_container_cb(
	void *arg, const struct engine_container *c, const struct sw_err *err);
struct engine_call *engine_container_inspect(
	struct engine *e, const char *id, engine_container_cb *cb, void *arg);
/* 204 and 304 are success. */
struct engine_call *engine_container_start(
	struct engine *e, const char *id, engine_done_cb *cb, void *arg);
/* @grace_s seconds until SIGKILL, -1: the container's own. 204 and 304 are success. */
struct engine_call *engine_container_stop(
	struct engine *e, const char *id, int64_t grace_s, engine_done_cb *cb, void *arg);
struct engine_call *engine_container_kill(
	struct engine *e, const char *id, const char *signal, engine_done_cb *cb, void *arg);
/* DELETE with force=1 and v=@volumes. */
struct engine_call *engine_container_remove(
	struct engine *e, const char *id, bool volumes, engine_done_cb *cb, void *arg);
/* POST /networks/{network}/connect; @endpoint borrowed, may be NULL. */
struct engine_call *engine_network_connect(struct engine *e, const char *network,
	const char *container, struct json_object *endpoint, engine_done_cb *cb, void *arg);
/* GET /containers/json?all=1 with label filters ("k=v" or "k"). Of each container: id, name, status
 * (State), labels; the rest is empty. */
typedef void engine_list_cb(
	void *arg, const struct engine_container *c, size_t n, const struct sw_err *err);
struct engine_call *engine_container_list(struct engine *e, const char *const *labels,
	size_t n_labels, engine_list_cb *cb, void *arg);

/* ---- images, networks, volumes */
struct engine_image {
	const char *id;
	const char **repo_digests;
	size_t n_repo_digests;
};
typedef void engine_image_cb(void *arg, const struct engine_image *img, const struct sw_err *err);
struct engine_call *engine_image_inspect(
	struct engine *e, const char *ref, engine_image_cb *cb, void *arg);
/* POST /images/create. @ref is split into name and tag or digest here ("latest" if neither).
 * @auth: X-Registry-Auth verbatim, never logged; NULL or "": none; refused with CR, LF in it.
 * @progress may be NULL; @status is a short line ("Downloading 3/5 layers"). Any error record in
 * the stream makes the call fail with its text. Cancelling stops the engine's pull. */
typedef void engine_progress_cb(void *arg, const char *status);
struct engine_call *engine_image_pull(struct engine *e, const char *ref, const char *auth,
	engine_progress_cb *progress, engine_done_cb *cb, void *arg);
/* Raw JSON of a network or volume. */
typedef void engine_json_cb(void *arg, struct json_object *o, const struct sw_err *err);
struct engine_call *engine_network_inspect(
	struct engine *e, const char *name, engine_json_cb *cb, void *arg);
struct engine_call *engine_network_create(
	struct engine *e, struct json_object *body, engine_id_cb *cb, void *arg);
struct engine_call *engine_network_remove(
	struct engine *e, const char *id, engine_done_cb *cb, void *arg);
struct engine_call *engine_volume_create(
	struct engine *e, struct json_object *body, engine_json_cb *cb, void *arg);

/* ---- streams */
struct engine_event {
	const char *type, *action; /* "container", "die", "health_status: healthy" */
	const char *id;
	int64_t time_ns;
	struct engine_pair *attributes;
	size_t n_attributes;
};
const char *engine_event_attr(const struct engine_event *ev, const char *key);
struct engine_events_handler {
	void (*event)(void *arg, const struct engine_event *ev);
	/* The stream is up: from now on nothing is missed. Called again after every reconnect:
	 * whoever waits for a container inspects it again now. */
	void (*connected)(void *arg);
	/* Lost; reconnection with backoff is under way. */
	void (*lost)(void *arg, const struct sw_err *err);
};
/* The one event stream of the agent; survives engine restarts until cancelled. @filters: JSON
 * object of arrays (borrowed), e.g. {"type":["container"],"label":["k=v"]}. A ping every 10 s
 * proves the engine alive while the stream is silent. */
struct engine_call *engine_events(struct engine *e, struct json_object *filters,
	const struct engine_events_handler *h, void *arg);

struct engine_log_options {
	bool follow, out, err; /* which streams */
	int64_t tail;          /* lines, -1: all */
	int64_t since_ns;      /* 0: all */
	bool tty;              /* the container has one: raw bytes instead of frames */
};
struct engine_log_record {
	int stream; /* 1 stdout, 2 stderr */
	int64_t time_ns;
	struct chain
		*data; /* one line or a part of one (up to 16 KiB), newline included; take it */
	struct engine_pair *attrs;
	size_t n_attrs;
};
/* Return false to pause until engine_logs_resume(). */
typedef bool engine_log_cb(void *arg, struct engine_log_record *rec);
struct engine_call *engine_logs(struct engine *e, const char *id,
	const struct engine_log_options *opt, engine_log_cb *record, engine_done_cb *end,
	void *arg);
void engine_logs_resume(struct engine_call *c);
