/* The engine client: version negotiation, and exchanges that ride on it.
 *
 *   UNKNOWN --first exchange--> ASKING (HEAD /_ping, then GET) --> KNOWN --+
 *      ^                          | fails: what waits fails                |
 *      +--------------------------+------- connection lost, other Server --+
 *
 * Exchanges wait while the version is not known. An engine that says our version is too new or too
 * old (it was replaced between two calls) costs one more negotiation and one more try. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#include "engine-internal.h"

#define PING_LIMIT sw_s(5)
#define MAX_WORD   256 /* of a header that we keep */
#define POOL       8

struct version {
	int major, minor;
};
enum negotiation { UNKNOWN, ASKING, KNOWN };

struct exchange {
	struct engine *e;
	TAILQ_ENTRY(exchange) link;
	char *method, *path, *auth;
	struct chain body; /* kept for a second try */
	uint64_t total_ns, idle_ns;
	bool own_connection, stream, bare;
	const struct exchange_handler *h;
	void *arg;

	struct http_call *call; /* NULL: waits for the version */
	bool failing;           /* @err is to be reported */
	bool retried;
	struct sw_err err;
	int status;
	bool good; /* 2xx or 304 */
	char *location;
	struct chain answer;
};

struct engine {
	struct sw_loop *loop;
	struct http *http;
	struct engine_address address;
	TAILQ_HEAD(, engine_call) calls;
	TAILQ_HEAD(, exchange) exchanges;

	enum negotiation state;
	bool pinned, podman, ping_get;
	struct http_call *ping;
	char ping_version[MAX_WORD];
	struct version v;
	char version[16]; /* "1.41", "" before */
	char server[MAX_WORD];
	struct sw_timer fail; /* reports the failing ones */
};

static void exchange_send(struct exchange *x);
static void negotiate(struct engine *e, const char *method);

/* ---- versions */

static const struct version ours_min = {1, 41}, ours_max = {1, 51};

static int compare(struct version a, struct version b)
{
	return a.major != b.major ? a.major - b.major : a.minor - b.minor;
}

static bool version_parse(const char *s, struct version *v)
{
	unsigned long major, minor;
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	major = strtoul(s, &end, 10);
	if (*end != '.' || !isdigit((unsigned char)end[1]))
		return false;
	minor = strtoul(end + 1, &end, 10);
	if (*end || major > 9999 || minor > 9999)
		return false;
	*v = (struct version){(int)major, (int)minor};
	return true;
}

static void set_version(struct engine *e, struct version v)
{
	e->v = v;
	snprintf(e->version, sizeof(e->version), "%d.%d", v.major, v.minor);
	e->state = KNOWN;
}

/* ---- what every answer tells about the engine */

static void forget_version(struct engine *e)
{
	if (e->state == KNOWN && !e->pinned)
		e->state = UNKNOWN;
}

static void note_headers(struct engine *e, const struct http_header *h, size_t n)
{
	const char *server = NULL;
	bool libpod = false;

	for (size_t i = 0; i < n; i++) {
		if (strcasecmp(h[i].name, "Server") == 0)
			server = h[i].value;
		libpod |= strcasecmp(h[i].name, "Libpod-Api-Version") == 0;
	}
	e->podman |= libpod;
	if (!server || strlen(server) >= MAX_WORD || strcmp(e->server, server) == 0)
		return;
	if (*e->server && e->state == KNOWN) {
		log_notice("engine was replaced: negotiating again", KS("was", e->server),
			KS("is", server));
		forget_version(e);
		http_drop_idle(e->http);
	}
	snprintf(e->server, sizeof(e->server), "%s", server);
	e->podman = libpod || sw_starts_with(server, "Libpod/");
}

/* The engine may come back as another one. */
static void note_lost(struct engine *e)
{
	forget_version(e);
	http_drop_idle(e->http);
}

/* ---- negotiation */

static void on_fail(void *arg)
{
	struct engine *e = arg;
	struct exchange *x;

restart: /* a callback may have changed the list */
	TAILQ_FOREACH (x, &e->exchanges, link) {
		if (x->failing) {
			const struct exchange_handler *h = x->h;
			struct sw_err err = x->err;
			void *a = x->arg;
			int status = x->status;

			exchange_cancel(x);
			h->done(a, status, NULL, &err);
			goto restart;
		}
	}
}

static void fail_later(struct exchange *x, const struct sw_err *err)
{
	x->failing = true;
	x->err = *err;
	if (!sw_timer_armed(&x->e->fail))
		sw_timer_arm(&x->e->fail, 0);
}

static void negotiated(struct engine *e, const struct sw_err *err)
{
	struct exchange *x;

	if (err)
		e->state = UNKNOWN;
	TAILQ_FOREACH (x, &e->exchanges, link) {
		if (x->call || x->failing)
			continue;
		if (err)
			fail_later(x, err);
		else
			exchange_send(x);
	}
}

static void on_ping_head(void *arg, int status, const struct http_header *h, size_t n)
{
	struct engine *e = arg;

	(void)status;
	note_headers(e, h, n);
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(h[i].name, "Api-Version") == 0)
			snprintf(e->ping_version, sizeof(e->ping_version), "%s", h[i].value);
}

static void on_ping_done(void *arg, int status, const struct sw_err *http_err)
{
	struct engine *e = arg;
	struct sw_err err = SW_ERR_NONE;
	struct version v = ours_min;

	e->ping = NULL;
	if (!e->ping_get && (http_err ? status != 0 : status != 200 || !*e->ping_version)) {
		negotiate(e, "GET");
		return;
	}
	if (http_err) {
		err = *http_err;
	} else if (status != 200) {
		sw_err_setd(&err, SW_TEMPORARY, SW_E_HTTP, status,
			"the engine answered its ping with status %d", status);
	} else if (*e->ping_version && !version_parse(e->ping_version, &v)) {
		sw_err_set(&err, SW_TEMPORARY, -EPROTO, "the engine says its API version is \"%s\"",
			e->ping_version);
	} else if (compare(v, ours_min) < 0) {
		sw_err_set(&err, SW_TEMPORARY, -EPROTONOSUPPORT,
			"the engine speaks API %s, but at least %s is needed: upgrade the engine",
			e->ping_version, ENGINE_API_MIN);
	} else {
		set_version(e, compare(v, ours_max) > 0 ? ours_max : v);
		log_debug("engine API negotiated", KS("version", e->version),
			KS("engine", e->ping_version), KS("server", e->server));
	}
	negotiated(e, err.cls == SW_OK ? NULL : &err);
}

static void negotiate(struct engine *e, const char *method)
{
	static const struct http_events ev = {.head = on_ping_head, .done = on_ping_done};
	struct http_request req = {
		.method = method, .path = "/_ping", .total_ns = PING_LIMIT, .stream = true};

	e->state = ASKING;
	e->ping_get = strcmp(method, "GET") == 0;
	e->ping_version[0] = '\0';
	e->ping = http_start(e->http, &req, &ev, e);
}

/* ---- exchanges */

static void on_head(void *arg, int status, const struct http_header *h, size_t n)
{
	struct exchange *x = arg;

	x->status = status;
	x->good = (status >= 200 && status < 300) || status == 304;
	note_headers(x->e, h, n);
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(h[i].name, "Location") == 0) {
			free(x->location);
			x->location = xstrndup(h[i].value, MAX_WORD);
		}
	if (x->good && x->h->up)
		x->h->up(x->arg);
}

static void on_data(void *arg, struct chain *data)
{
	struct exchange *x = arg;

	if (x->good && x->h->data) {
		x->h->data(x->arg, data);
		return;
	}
	if (!x->good) { /* of an error only the beginning counts */
		size_t have = chain_len(&x->answer);

		chain_move(&x->answer, data,
			have < ENGINE_MAX_ERROR_BODY ? ENGINE_MAX_ERROR_BODY - have : 0);
		return;
	}
	if (chain_len(&x->answer) + chain_len(data) > ENGINE_MAX_ANSWER) {
		struct sw_err err;

		http_cancel(take(x->call));
		sw_err_set(&err, SW_TEMPORARY, -E2BIG,
			"the engine's answer to %s %s is longer than %u bytes", x->method, x->path,
			ENGINE_MAX_ANSWER);
		fail_later(x, &err);
		return;
	}
	chain_append_chain(&x->answer, data);
}

static bool version_refused(const struct exchange *x, const struct sw_err *err)
{
	return x->status == 400 && strstr(err->msg, "client version") &&
	       (strstr(err->msg, "too new") || strstr(err->msg, "too old"));
}

static void error_of(struct exchange *x, struct sw_err *err)
{
	size_t n = chain_len(&x->answer);
	const uint8_t *p = chain_pullup(&x->answer, n);

	if (x->status >= 300 && x->status < 400)
		sw_err_setd(err, SW_REJECTED, SW_E_HTTP, x->status,
			"the engine redirects %s %s to \"%s\", which is not followed", x->method,
			x->path, x->location ? x->location : "");
	else
		engine_error(err, x->status, p ? (const char *)p : "", p ? n : 0);
}

static void on_done(void *arg, int status, const struct sw_err *http_err)
{
	struct exchange *x = arg;
	struct engine *e = x->e;
	struct sw_err err = SW_ERR_NONE;
	const struct exchange_handler *h = x->h;
	struct chain answer = {0};
	void *a = x->arg;

	x->call = NULL;
	x->status = status;
	if (http_err) {
		err = *http_err;
		if (err.code != -ETIMEDOUT && err.cls == SW_TEMPORARY)
			note_lost(e);
	} else if (!x->good) {
		error_of(x, &err);
		if (version_refused(x, &err) && !x->retried && !x->bare && !e->pinned) {
			x->retried = true;
			chain_done(&x->answer);
			forget_version(e);
			exchange_send(x);
			return;
		}
	}
	chain_append_chain(&answer, &x->answer);
	exchange_cancel(x);
	h->done(a, status, &answer, err.cls == SW_OK ? NULL : &err);
	chain_done(&answer);
}

static void exchange_send(struct exchange *x)
{
	static const struct http_events ev = {on_head, on_data, on_done};
	struct engine *e = x->e;
	struct http_header h[2];
	struct chain body = {0};
	struct http_request req = {.method = x->method,
		.headers = h,
		.total_ns = x->total_ns,
		.idle_ns = x->idle_ns,
		.stream = x->own_connection || x->stream};
	sw_auto_free char *path = NULL;

	if (!x->bare && e->state != KNOWN) {
		if (e->state == UNKNOWN)
			negotiate(e, "HEAD");
		return;
	}
	path = x->bare ? xstrdup(x->path) : xasprintf("/v%s%s", e->version, x->path);
	req.path = path;
	if (chain_len(&x->body)) {
		chain_share(&body, &x->body, 0, chain_len(&x->body));
		req.body = &body;
		h[req.n_headers++] = (struct http_header){"Content-Type", "application/json"};
	}
	if (!sw_str_empty(x->auth))
		h[req.n_headers++] = (struct http_header){"X-Registry-Auth", x->auth};
	x->good = false;
	x->call = http_start(e->http, &req, &ev, x);
}

struct exchange *exchange_start(
	struct engine *e, struct exchange_spec *spec, const struct exchange_handler *h, void *arg)
{
	struct exchange *x = xcalloc(1, sizeof(*x));

	x->e = e;
	x->method = xstrdup(spec->method);
	x->path = take(spec->path);
	x->auth = xstrdup(spec->auth);
	if (spec->body)
		chain_append_chain(&x->body, spec->body);
	x->total_ns = spec->total_ns;
	x->idle_ns = spec->idle_ns;
	x->own_connection = spec->own_connection;
	x->stream = spec->stream;
	x->bare = spec->bare;
	x->h = h;
	x->arg = arg;
	TAILQ_INSERT_TAIL(&e->exchanges, x, link);
	exchange_send(x);
	return x;
}

void exchange_cancel(struct exchange *x)
{
	if (!x)
		return;
	TAILQ_REMOVE(&x->e->exchanges, x, link);
	http_cancel(x->call);
	chain_done(&x->body);
	chain_done(&x->answer);
	free(x->method);
	free(x->path);
	sw_wipe_str(x->auth);
	free(x->location);
	free(x);
}

void exchange_pause(struct exchange *x)
{
	if (x->call)
		http_pause(x->call);
}

void exchange_resume(struct exchange *x)
{
	if (x->call)
		http_resume(x->call);
}

void engine_drop_streams(struct engine *e, const struct sw_err *err)
{
	struct exchange *x;

	TAILQ_FOREACH (x, &e->exchanges, link) {
		if (!x->stream || x->failing || !x->call)
			continue;
		http_cancel(take(x->call));
		fail_later(x, err);
	}
	note_lost(e);
}

/* ---- calls */

void engine_call_add(struct engine *e, struct engine_call *c, void (*cancel)(struct engine_call *c))
{
	c->e = e;
	c->cancel = cancel;
	TAILQ_INSERT_TAIL(&e->calls, c, link);
}

void engine_call_del(struct engine_call *c)
{
	TAILQ_REMOVE(&c->e->calls, c, link);
}

void engine_call_cancel(struct engine_call *c)
{
	if (c)
		c->cancel(c);
}

/* ---- door */

struct sw_loop *engine_loop(const struct engine *e)
{
	return e->loop;
}

const char *engine_api_version(const struct engine *e)
{
	return *e->version ? e->version : NULL;
}

bool engine_api_at_least(const struct engine *e, int major, int minor)
{
	return *e->version && compare(e->v, (struct version){major, minor}) >= 0;
}

bool engine_is_podman(const struct engine *e)
{
	return e->podman;
}

bool engine_is_local(const struct engine *e)
{
	return e->address.unix_path;
}

static int pin_version(struct engine *e, const char *version, struct sw_err *err)
{
	struct version v;

	if (!version_parse(version, &v) || compare(v, ours_min) < 0 || compare(v, ours_max) > 0)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"API version \"%s\" cannot be used: give one from " ENGINE_API_MIN
			" to " ENGINE_API_MAX ", or none",
			version);
	set_version(e, v);
	e->pinned = true;
	return 0;
}

static int open_http(struct engine *e, const struct engine_config *cfg, struct sw_err *err)
{
	struct http_config hc = {.unix_path = e->address.unix_path,
		.base_url = e->address.base_url,
		.max_connections = POOL};
	sw_auto_free char *ca = NULL, *cert = NULL, *key = NULL;

	if (cfg->cert_path && !e->address.unix_path) {
		ca = xasprintf("%s/ca.pem", cfg->cert_path);
		cert = xasprintf("%s/cert.pem", cfg->cert_path);
		key = xasprintf("%s/key.pem", cfg->cert_path);
		for (int i = 0; i < 3; i++) {
			const char *file = i == 0 ? ca : i == 1 ? cert : key;

			if (access(file, R_OK) < 0)
				return sw_err_set(err, SW_REJECTED, -errno,
					"TLS for the engine: %s: %s", file, strerror(errno));
		}
		hc.ca_file = ca;
		hc.cert_file = cert;
		hc.key_file = key;
		hc.insecure = !cfg->tls_verify;
		if (hc.insecure)
			log_warning("the engine's certificate is not verified",
				KS("engine", cfg->host));
	}
	return http_new(&e->http, e->loop, &hc, err);
}

static void engine_free(struct engine *e)
{
	sw_timer_stop(&e->fail);
	engine_address_done(&e->address);
	free(e);
}

int engine_new(
	struct engine **ret, struct sw_loop *l, const struct engine_config *cfg, struct sw_err *err)
{
	struct engine *e = xcalloc(1, sizeof(*e));
	bool tls = cfg->cert_path || cfg->tls_verify;
	int r;

	e->loop = l;
	TAILQ_INIT(&e->calls);
	TAILQ_INIT(&e->exchanges);
	sw_timer_init(&e->fail, l, on_fail, e);
	r = engine_address_parse(cfg->host, tls, &e->address, err);
	if (r == 0 && !sw_str_empty(cfg->api_version))
		r = pin_version(e, cfg->api_version, err);
	if (r == 0)
		r = open_http(e, cfg, err);
	if (r < 0) {
		engine_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

struct closing {
	struct engine *e;
	void (*closed)(void *arg);
	void *arg;
};

static void on_http_closed(void *arg)
{
	struct closing *c = arg;

	engine_free(c->e);
	if (c->closed)
		c->closed(c->arg);
	free(c);
}

void engine_close(struct engine *e, void (*closed)(void *arg), void *arg)
{
	struct engine_call *c;
	struct closing *cl;

	if (!e)
		return;
	while ((c = TAILQ_FIRST(&e->calls)))
		c->cancel(c);
	cl = xcalloc(1, sizeof(*cl));
	*cl = (struct closing){e, closed, arg};
	http_cancel(take(e->ping));
	http_close(take(e->http), on_http_closed, cl);
}
