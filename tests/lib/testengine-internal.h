/* testengine-internal.h - testengine.c (containers and endpoints) and testengine_http.c
 * (connections, faults). */
#pragma once
#include <json-c/json.h>
#include <swarm/loop.h>
#include <sys/queue.h>

#include "testengine.h"

struct te_conn;
struct te_ctr;

struct te_fault {
	struct testengine_fault f; /* strings owned */
	unsigned seen, hit;
	TAILQ_ENTRY(te_fault) link;
};
TAILQ_HEAD(te_faults, te_fault);
TAILQ_HEAD(te_conns, te_conn);

enum te_wait {
	TE_W_NONE,
	TE_W_EVENTS,
	TE_W_LOGS, /* follows ->ctr_id */
	TE_W_STOP, /* 204 once ->ctr_id is not running */
	TE_W_EXIT, /* POST wait */
	TE_W_PULL,
};

struct te_conn {
	struct testengine *te;
	TAILQ_ENTRY(te_conn) link;
	uv_pipe_t pipe;
	bool closing, busy, chunked, ended, head_only;
	char *in;
	size_t in_len, in_cap;
	char *out;
	size_t out_len, out_cap;
	bool writing, hold;       /* hold: delay_answer runs */
	bool stalled;             /* nothing more is sent */
	size_t head_left;         /* bytes of the head still in out */
	size_t body_left;         /* SIZE_MAX: no cut */
	bool cut_head, cut_stall; /* what to do at the cut */
	struct sw_timer delay, pace;

	/* the request */
	char *method, *target, *path, *query, *body, *auth;
	size_t body_len;
	struct testengine_fault fault; /* strings borrowed */

	/* what the connection waits for */
	enum te_wait wait;
	char ctr_id[65];
	struct json_object *filters;
	int64_t since_ns;
	bool log_out, log_err, log_stamps, log_details;
	struct sw_timer timer; /* pull */
	char *pull_ref, *pull_error;
	uint64_t pull_rest_ns; /* the second half of it */
};

struct testengine {
	struct sw_loop *loop;
	char *path, *api_version, *server, *hostname;
	bool podman, closing;
	uv_pipe_t *listener;
	unsigned n_handles;
	void (*closed)(void *arg);
	void *closed_arg;
	struct te_conns conns;
	struct te_faults faults;
	char **requests;
	size_t n_requests;
	char *last_auth;
	struct sw_timer end;

	struct te_ctr **ctrs;
	size_t n_ctrs;
	uint64_t next_id;
	int64_t last_ns;
	struct json_object *info, *plugins, *images, *registry, *networks, *volumes;
	struct {
		struct json_object *ev[256];
		size_t n; /* ever */
	} ring;
	struct {
		char *action;
		unsigned n;
	} drop;
};

#define TE_MAX_REQUESTS 65536

/* testengine_http.c */
int te_listen(struct testengine *te, struct sw_err *err);
void te_unlisten(struct testengine *te, bool keep_file);
void te_conn_close(struct te_conn *c);
void te_reply(struct te_conn *c, int status, const char *type, const char *body, size_t len);
void te_reply_json(struct te_conn *c, int status, struct json_object *o); /* takes @o */
void te_reply_msg(struct te_conn *c, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void te_stream_begin(struct te_conn *c, int status, const char *type);
void te_stream_write(struct te_conn *c, const void *p, size_t len);
void te_stream_end(struct te_conn *c);
/* Query parameter, decoded, malloc'd; NULL if absent. */
char *te_query(const struct te_conn *c, const char *key);
bool te_query_bool(const struct te_conn *c, const char *key);
void te_maybe_closed(struct testengine *te);

/* testengine.c */
void te_dispatch(struct te_conn *c);
/* The peer is gone or the connection is closed by us. */
void te_conn_gone(struct te_conn *c);
