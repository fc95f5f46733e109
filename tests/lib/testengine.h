/* testengine.h - a Docker Engine for tests: HTTP/1.1 over a unix socket, on the loop of the test.
 *
 * Enough of the Engine API to run the executor and the agent against it: _ping, version, info,
 * plugins, containers, images, networks, volumes, events, logs. Containers "live": they run until
 * stopped, or as their command line says (see below). Faults can be put before every endpoint.
 *
 * Link with LIBS sw_testengine. Everything is loop-thread only, timers are sw_timers (a fake clock
 * moves the containers too). Functions that take an id accept id, unique id prefix or name.
 *
 * What a container does is read from its Entrypoint + Cmd, joined with spaces:
 *   exit N           ends with N at once (or after the sleeps before it)
 *   sleep N          N seconds (fractions and the suffixes ms, s, m, h are fine; "infinity": for
 * ever) after Xms        as sleep: "exit 3 after 200ms" echo TEXT        a stdout line (up to ';'
 * or the end); "echo TEXT >&2": stderr ignore-term      SIGTERM does nothing: stop takes the whole
 * grace period, exit code 137 term-exit N      SIGTERM ends it with N (default 143) healthy-after
 * X, unhealthy-after X   health turns so after that time (needs a health check) not-found,
 * not-executable, bad-user  start fails as the engine says it: exit code 127, 126, 128 oom ends
 * with 137 and OOMKilled true, false      exit 0, exit 1 Without exit, sleep, echo, true, false it
 * runs until it is stopped. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sw_err;
struct sw_loop;
struct json_object;
struct testengine;

struct testengine_config {
	const char *socket_path;
	const char *api_version; /* NULL: "1.41" */
	const char *server;      /* Server header, NULL: "Docker/20.10.24 (linux)" */
	const char *hostname;    /* info.Name, NULL: "testengine" */
	bool podman;             /* podman's headers and texts where they differ */
};
/* Listens. An image "bb:1" is there from the start; "docker.io/library/..." can be pulled once
 * testengine_registry_add() knows it. */
int testengine_new(struct testengine **ret, struct sw_loop *l, const struct testengine_config *cfg,
	struct sw_err *err);
/* Drops all connections, frees; @closed (may be NULL) from the loop. */
void testengine_close(struct testengine *te, void (*closed)(void *arg), void *arg);
/* "unix:///path", as engine_config.host takes it. */
const char *testengine_host(const struct testengine *te);

/* ---- what is there */
void testengine_image_add(struct testengine *te, const char *ref);
void testengine_image_remove(struct testengine *te, const char *ref);
/* Can be pulled from now on; the pull takes @pull_ns. With @stream_error the pull ends with that
 * error record inside the 200 stream. */
void testengine_registry_add(
	struct testengine *te, const char *ref, uint64_t pull_ns, const char *stream_error);
/* Its pulls want this X-Registry-Auth; any other one, or none, is unauthorized. */
void testengine_registry_auth(struct testengine *te, const char *ref, const char *header);
/* bridge, host and none are there from the start. */
void testengine_network_add(struct testengine *te, const char *name, const char *driver);
/* /info as JSON, borrowed: change what the test needs. */
struct json_object *testengine_info(struct testengine *te);
/* Array that GET /plugins answers; NULL (as set by default): []. Taken. */
void testengine_plugins_set(struct testengine *te, struct json_object *plugins);
void testengine_version_set(struct testengine *te, const char *api_version, const char *server);

/* ---- looking */
struct testengine_container {
	const char *id, *name, *status; /* "created" "running" "paused" "exited" ... */
	bool running;
	int exit_code;
	struct json_object *body; /* what create was given */
	unsigned n_starts;
};
size_t testengine_n_containers(const struct testengine *te);
size_t testengine_n_running(const struct testengine *te);
/* @i-th in order of creation; false past the end. Borrowed until something changes. */
bool testengine_container_at(struct testengine *te, size_t i, struct testengine_container *ret);
bool testengine_container_find(
	struct testengine *te, const char *id, struct testengine_container *ret);
/* Requests so far whose "METHOD /path?query" (without version prefix) matches the fnmatch(3)
 * pattern, e.g. "POST /containers/create*". */
size_t testengine_n_requests(const struct testengine *te, const char *pattern);
/* As sent, with version prefix: the @i-th request, NULL past the end (the last 4096 are kept). */
const char *testengine_request_at(const struct testengine *te, size_t i);
size_t testengine_n_connections(const struct testengine *te); /* open now */
size_t testengine_n_event_streams(const struct testengine *te);
/* Longest stop "t=" seen etc. is in the requests; the last X-Registry-Auth, NULL if none. */
const char *testengine_last_auth(const struct testengine *te);

/* ---- doing */
/* Ends a running container by itself, with the events. */
void testengine_container_exit(struct testengine *te, const char *id, int code, bool oom);
void testengine_container_health(struct testengine *te, const char *id, const char *status);
void testengine_container_pause(struct testengine *te, const char *id, bool paused);
/* docker rm -f from outside. */
void testengine_container_remove(struct testengine *te, const char *id);
/* A container as someone else made it: @body as for create; started if @start. Returns its id. */
const char *testengine_container_make(
	struct testengine *te, const char *name, struct json_object *body, bool start);
void testengine_log(
	struct testengine *te, const char *id, int stream, const char *text, size_t len);
/* Raw bytes onto every open event stream. */
void testengine_event_raw(struct testengine *te, const char *bytes, size_t len);
/* Any event: @attrs borrowed object of strings, may be NULL. */
void testengine_event(struct testengine *te, const char *type, const char *action, const char *id,
	struct json_object *attrs);
/* The next @n events with this action (prefix) are not sent to anybody. */
void testengine_drop_events(struct testengine *te, const char *action, unsigned n);
/* Stops listening and drops all connections (streams without their last chunk). With
 * @keep_containers (live-restore) they run on; else they die with 137 without events. The socket
 * file goes away unless @hard, as after SIGKILL. */
void testengine_stop(struct testengine *te, bool keep_containers, bool hard);
/* Listens again; the event ring is empty. */
int testengine_start(struct testengine *te, struct sw_err *err);
/* Drops all open connections, nothing else. */
void testengine_drop_connections(struct testengine *te);

/* ---- faults */
enum testengine_cut {
	TE_CUT_NONE = 0,
	TE_CUT_BEFORE,     /* close instead of executing */
	TE_CUT_AFTER_EXEC, /* execute, then close without an answer */
	TE_CUT_HEAD,       /* close after the headers */
	TE_CUT_BODY,       /* close after @body_bytes bytes of the body */
	TE_CUT_STALL,      /* executed, never answered, connection stays */
	TE_CUT_STALL_BODY, /* as STALL, after the headers and @body_bytes bytes */
	TE_CUT_GARBAGE,    /* @body instead of any HTTP */
};
struct testengine_fault {
	const char *match;        /* fnmatch(3) on "METHOD /path?query" without version prefix */
	unsigned skip;            /* so many matching requests pass first */
	unsigned times;           /* then so many are hit; 0: all from then on */
	uint64_t delay_ns;        /* before it is executed */
	uint64_t delay_answer_ns; /* between executing and answering */
	int status;               /* != 0: not executed, this status with @body */
	const char *body;         /* NULL with status: {"message":"injected"} */
	size_t body_len;          /* 0: strlen(body) */
	const char *content_type; /* NULL: application/json */
	const char *headers;      /* further header lines, each ending in \r\n */
	enum testengine_cut cut;
	size_t body_bytes;
	size_t split; /* write the answer in pieces of so many bytes, each in a chunk of its own if
			 chunked */
};
/* Copied. The first matching fault that is not used up applies. */
void testengine_fault_add(struct testengine *te, const struct testengine_fault *f);
void testengine_fault_clear(struct testengine *te);
