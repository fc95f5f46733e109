/* engine-internal.h - shared by the files of the engine room.
 *
 *   engine_call   what a user holds: unary (unary.c), events, pull, logs
 *     exchange    one request and its answer, with version prefix and error class (client.c)
 *       http_call the bytes */
#pragma once
#include <json-c/json.h>
#include <swarm/engine.h>
#include <swarm/http.h>
#include <swarm/loop.h>
#include <sys/queue.h>

#define ENGINE_JSON_DEPTH     64
#define ENGINE_MAX_ANSWER     (32u << 20) /* a list of 10,000 containers is some 20 MiB */
#define ENGINE_MAX_ERROR_BODY (1u << 20)
#define ENGINE_MAX_OBJECT     (1u << 20) /* one object of a stream */

/* ---- address.c */
struct engine_address {
	char *unix_path; /* or NULL */
	char *base_url;
};
int engine_address_parse(
	const char *host, bool tls, struct engine_address *ret, struct sw_err *err);
void engine_address_done(struct engine_address *a);

/* ---- error.c */
/* The error of an answer with @status and the first @n bytes of its body. */
void engine_error(struct sw_err *err, int status, const char *body, size_t n);
enum sw_errclass engine_error_class(int status, const char *text);
/* Valid UTF-8 without control characters, trimmed, at most @max - 1 bytes and NUL into @out. */
void engine_clean_text(char *out, size_t max, const char *s, size_t n);

/* ---- json.c: absent, null and wrong type give "", 0, false, NULL */
const char *js_str(struct json_object *o, const char *key);
int64_t js_int(struct json_object *o, const char *key);
bool js_bool(struct json_object *o, const char *key);
struct json_object *js_obj(struct json_object *o, const char *key);
struct json_object *js_arr(struct json_object *o, const char *key);
size_t js_len(struct json_object *arr); /* NULL: 0 */
/* Element @i if it is a string, else "". */
const char *js_str_at(struct json_object *arr, size_t i);
/* Object of strings as pairs, malloc'd; the texts are borrowed. */
struct engine_pair *js_pairs(struct json_object *o, size_t *n);
const char **js_strings(struct json_object *arr, size_t *n);
/* One JSON value that is all of @c. */
int json_parse_chain(struct chain *c, struct json_object **ret, struct sw_err *err);
int json_parse_text(const char *p, size_t n, struct json_object **ret, struct sw_err *err);
void json_to_chain(struct json_object *o, struct chain *c);

/* ---- jsplit.c: objects out of a stream of bytes */
struct jsplit {
	char *buf; /* the beginning of an object whose end has not come */
	size_t len, room;
	unsigned depth;
	bool in_string, escaped;
};
/* Returns false to stop: @s is not touched afterwards (it may be gone). */
typedef bool jsplit_cb(void *arg, const char *object, size_t len);
/* 0, 1 if @cb stopped, or negative with @err. */
int jsplit_feed(
	struct jsplit *s, const char *p, size_t n, jsplit_cb *cb, void *arg, struct sw_err *err);
int jsplit_feed_chain(
	struct jsplit *s, struct chain *c, jsplit_cb *cb, void *arg, struct sw_err *err);
static inline bool jsplit_partial(const struct jsplit *s)
{
	return s->len > 0;
}
void jsplit_done(struct jsplit *s);

/* ---- image.c */
/* "host:5000/a/b:1@sha256:..." -> name and tag or digest, malloc'd. */
int engine_ref_split(const char *ref, char **name, char **tag, struct sw_err *err);

/* ---- logdemux.c: records out of a log stream */
/* Of a TTY: a line begins, goes on behind a part of 16 KiB, its text is being read. */
enum logdemux_state { LOGDEMUX_PREFIX, LOGDEMUX_MIDDLE, LOGDEMUX_TEXT };
struct logdemux {
	bool tty, details;
	enum logdemux_state state;
	/* of the record being read (TTY) */
	struct engine_log_record rec;
	char *details_text;
	struct chain line;
};
void logdemux_init(struct logdemux *d, bool tty, bool details);
void logdemux_done(struct logdemux *d);
/* Takes the next record out of @in. 1: @rec is there (release it with logdemux_release());
 * 0: more bytes are needed; negative: protocol error, or the engine's own (SW_E_HTTP). @end: no
 * more bytes will come, an unfinished line is a record too. */
int logdemux_next(struct logdemux *d, struct chain *in, bool end, struct engine_log_record *rec,
	struct sw_err *err);
void logdemux_release(struct engine_log_record *rec);
/* RFC 3339; -1 if it is none. */
int64_t engine_time_parse(const char *s, size_t n);

/* ---- client.c */
struct engine_call {
	struct engine *e;
	TAILQ_ENTRY(engine_call) link;
	void (*cancel)(struct engine_call *c); /* frees */
};
void engine_call_add(
	struct engine *e, struct engine_call *c, void (*cancel)(struct engine_call *c));
void engine_call_del(struct engine_call *c);

struct sw_loop *engine_loop(const struct engine *e);

struct exchange;
struct exchange_spec {
	const char *method;
	char *path;         /* taken; without version prefix */
	struct chain *body; /* taken; JSON */
	const char *auth;   /* X-Registry-Auth */
	uint64_t total_ns, idle_ns;
	bool own_connection; /* may take long: not in the pool */
	bool stream;         /* long-lived: dropped when the engine is found dead */
	bool bare;           /* no version prefix, no negotiation: _ping */
};
struct exchange_handler {
	/* 2xx and headers are there. May be NULL. */
	void (*up)(void *arg);
	/* Body of a 2xx answer. NULL: collected for done(). */
	void (*data)(void *arg, struct chain *data);
	/* Last. @err NULL: 2xx or 304, complete. */
	void (*done)(void *arg, int status, struct chain *body, const struct sw_err *err);
};
struct exchange *exchange_start(
	struct engine *e, struct exchange_spec *spec, const struct exchange_handler *h, void *arg);
void exchange_cancel(struct exchange *x); /* silence afterwards; NULL is fine */
void exchange_pause(struct exchange *x);
void exchange_resume(struct exchange *x);
/* Nobody answers: every stream ends with a temporary error, kept connections are dropped. */
void engine_drop_streams(struct engine *e, const struct sw_err *err);

/* ---- unary.c */
union unary_cb {
	engine_info_cb *info;
	engine_plugins_cb *plugins;
	engine_done_cb *done;
	engine_id_cb *id;
	engine_container_cb *container;
	engine_list_cb *list;
	engine_image_cb *image;
	engine_json_cb *json;
};
/* Turns the answer into the user's callback. @o NULL unless the spec asked for JSON; @err set: it
 * failed. May set an error of its own by calling the callback with it. */
typedef void unary_finish(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err);
/* @json: a 2xx answer must be JSON. @early: refused before sending, NULL: not. */
struct engine_call *unary_start(struct engine *e, struct exchange_spec *spec, bool json,
	unary_finish *finish, union unary_cb cb, void *arg, const struct sw_err *early);
void unary_finish_done(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err);
/* Fills @early when @name is empty. Returns @early then, else NULL. */
const struct sw_err *engine_check_name(const char *what, const char *name, struct sw_err *early);
/* A call that fails from the loop: for streams that are refused before sending. */
struct engine_call *engine_fail_later(
	struct engine *e, const struct sw_err *err, engine_done_cb *cb, void *arg);
