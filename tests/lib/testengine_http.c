/* The HTTP side of the test engine: requests in, answers and streams out, faults in between. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

#include "testengine-internal.h"

#define MAX_REQUEST (8u << 20)

static void next_request(struct te_conn *c);
static void pump(struct te_conn *c);

/* ---- life of a connection */

static void forget_request(struct te_conn *c)
{
	free(take(c->method));
	free(take(c->target));
	free(take(c->path));
	free(take(c->query));
	free(take(c->body));
	free(take(c->auth));
	free(take(c->pull_ref));
	free(take(c->pull_error));
	json_object_put(take(c->filters));
	c->wait = TE_W_NONE;
	c->ctr_id[0] = '\0';
	c->chunked = c->ended = c->head_only = false;
	sw_timer_stop(&c->timer);
}

void te_maybe_closed(struct testengine *te)
{
	if (te->closing && te->n_handles == 0)
		sw_timer_arm(&te->end, 0);
}

static void on_conn_closed(uv_handle_t *u)
{
	struct te_conn *c = u->data;
	struct testengine *te = c->te;

	forget_request(c);
	free(c->in);
	free(c->out);
	free(c);
	te->n_handles--;
	te_maybe_closed(te);
}

void te_conn_close(struct te_conn *c)
{
	if (c->closing)
		return;
	c->closing = true;
	sw_timer_stop(&c->delay);
	sw_timer_stop(&c->pace);
	sw_timer_stop(&c->timer);
	te_conn_gone(c);
	TAILQ_REMOVE(&c->te->conns, c, link);
	uv_close((uv_handle_t *)&c->pipe, on_conn_closed);
}

/* ---- out */

static void out_add(struct te_conn *c, const void *p, size_t len)
{
	if (c->closing || c->stalled || !len)
		return;
	if (c->out_len + len > c->out_cap) {
		c->out_cap = 2 * (c->out_len + len);
		c->out = xrealloc(c->out, c->out_cap, 1);
	}
	memcpy(c->out + c->out_len, p, len);
	c->out_len += len;
}

struct te_write {
	uv_write_t req;
	struct te_conn *c;
	char data[];
};

static void on_pace(void *arg)
{
	pump(arg);
}

static void on_written(uv_write_t *req, int status)
{
	struct te_write *w = req->data;
	struct te_conn *c = w->c;

	free(w);
	if (c->closing)
		return;
	c->writing = false;
	if (status < 0)
		te_conn_close(c);
	else if (c->fault.split)
		sw_timer_arm(&c->pace, 0); /* let the client read this piece first */
	else
		pump(c);
}

/* Sends what may be sent of the output, up to the cut. */
static void pump(struct te_conn *c)
{
	size_t n = c->out_len;
	struct te_write *w;
	uv_buf_t buf;

	if (c->closing || c->writing || c->hold)
		return;
	if (c->fault.split && n > c->fault.split && !c->chunked)
		n = c->fault.split;
	if (c->head_left && n > c->head_left)
		n = c->head_left;
	if (!c->head_left && c->busy) {
		if (c->cut_head)
			c->body_left = 0;
		if (n > c->body_left)
			n = c->body_left;
		if (c->body_left == 0) {
			if (c->cut_stall)
				c->stalled = true;
			else
				te_conn_close(c);
			return;
		}
	}
	if (!n) {
		if (c->busy && c->ended) {
			c->busy = false;
			forget_request(c);
			next_request(c);
		}
		return;
	}
	w = xcalloc(1, sizeof(*w) + n);
	w->c = c;
	w->req.data = w;
	memcpy(w->data, c->out, n);
	memmove(c->out, c->out + n, c->out_len - n);
	c->out_len -= n;
	if (c->head_left)
		c->head_left -= n;
	else if (c->body_left != SIZE_MAX)
		c->body_left -= n;
	buf = uv_buf_init(w->data, (unsigned)n);
	c->writing = true;
	if (uv_write(&w->req, (uv_stream_t *)&c->pipe, &buf, 1, on_written) < 0) {
		free(w);
		te_conn_close(c);
	}
}

static void on_answer_delay(void *arg)
{
	struct te_conn *c = arg;

	c->hold = false;
	pump(c);
}

static const char *reason(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 201:
		return "Created";
	case 204:
		return "No Content";
	case 304:
		return "Not Modified";
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 409:
		return "Conflict";
	case 500:
		return "Internal Server Error";
	default:
		return "Status";
	}
}

/* The head, and what the fault makes of everything from here on. */
static void begin(struct te_conn *c, int status, const char *type, ssize_t len)
{
	struct testengine *te = c->te;
	sw_auto_free char *length = NULL, *ctype = NULL, *head = NULL;

	if (len < 0)
		length = xstrdup("Transfer-Encoding: chunked\r\n");
	else if (status != 204 && status != 304)
		length = xasprintf("Content-Length: %zd\r\n", len);
	else
		length = xstrdup("");
	ctype = type ? xasprintf("Content-Type: %s\r\n", type) : xstrdup("");
	head = xasprintf("HTTP/1.1 %d %s\r\n%s%s%s%sServer: %s\r\n%s%s%s%s\r\n", status,
		reason(status), te->api_version[0] ? "Api-Version: " : "", te->api_version,
		te->api_version[0] ? "\r\nDocker-Experimental: false\r\n" : "",
		te->podman ? "Libpod-Api-Version: 4.3.1\r\n" : "Ostype: linux\r\n", te->server,
		ctype, length, c->fault.headers ? c->fault.headers : "", "");
	c->chunked = len < 0;
	c->head_left = strlen(head);
	c->body_left = SIZE_MAX;
	c->cut_head = c->cut_stall = false;
	switch (c->fault.cut) {
	case TE_CUT_AFTER_EXEC:
		te_conn_close(c);
		return;
	case TE_CUT_STALL:
		c->stalled = true;
		return;
	case TE_CUT_HEAD:
		c->cut_head = true;
		break;
	case TE_CUT_BODY:
		c->body_left = c->fault.body_bytes;
		break;
	case TE_CUT_STALL_BODY:
		c->body_left = c->fault.body_bytes;
		c->cut_stall = true;
		break;
	default:
		break;
	}
	out_add(c, head, strlen(head));
	if (c->fault.delay_answer_ns) {
		c->hold = true;
		sw_timer_init(&c->delay, te->loop, on_answer_delay, c);
		sw_timer_arm(&c->delay, c->fault.delay_answer_ns);
	}
}

void te_reply(struct te_conn *c, int status, const char *type, const char *body, size_t len)
{
	if (c->closing)
		return;
	begin(c, status, type, (ssize_t)len);
	if (!c->head_only)
		out_add(c, body, len);
	c->ended = true;
	pump(c);
}

void te_reply_json(struct te_conn *c, int status, struct json_object *o)
{
	sw_auto_free char *text = xasprintf("%s\n", json_object_to_json_string_ext(o, 0));

	te_reply(c, status, "application/json", text, strlen(text));
	json_object_put(o);
}

void te_reply_msg(struct te_conn *c, int status, const char *fmt, ...)
{
	struct json_object *o = json_object_new_object();
	sw_auto_free char *msg = NULL;
	va_list ap;

	va_start(ap, fmt);
	msg = xvasprintf(fmt, ap);
	va_end(ap);
	json_object_object_add(o, "message", json_object_new_string(msg));
	if (c->te->podman) {
		json_object_object_add(o, "cause", json_object_new_string(msg));
		json_object_object_add(o, "response", json_object_new_int(status));
	}
	te_reply_json(c, status, o);
}

void te_stream_begin(struct te_conn *c, int status, const char *type)
{
	if (c->closing)
		return;
	begin(c, status, type, -1);
	pump(c);
}

void te_stream_write(struct te_conn *c, const void *p, size_t len)
{
	const char *b = p;
	char size[32];

	while (len && !c->closing) {
		size_t n = c->fault.split && c->fault.split < len ? c->fault.split : len;

		snprintf(size, sizeof(size), "%zx\r\n", n);
		out_add(c, size, strlen(size));
		out_add(c, b, n);
		out_add(c, "\r\n", 2);
		b += n;
		len -= n;
	}
	pump(c);
}

void te_stream_end(struct te_conn *c)
{
	if (c->closing || c->ended)
		return;
	out_add(c, "0\r\n\r\n", 5);
	c->ended = true;
	c->wait = TE_W_NONE;
	pump(c);
}

/* ---- in */

static int hex(char ch)
{
	if (ch >= '0' && ch <= '9')
		return ch - '0';
	if (ch >= 'a' && ch <= 'f')
		return ch - 'a' + 10;
	if (ch >= 'A' && ch <= 'F')
		return ch - 'A' + 10;
	return -1;
}

static char *decode(const char *s, size_t n, bool plus)
{
	char *ret = xcalloc(1, n + 1), *p = ret;

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '%' && i + 2 < n && hex(s[i + 1]) >= 0 && hex(s[i + 2]) >= 0) {
			*p++ = (char)(hex(s[i + 1]) * 16 + hex(s[i + 2]));
			i += 2;
		} else {
			*p++ = plus && s[i] == '+' ? ' ' : s[i];
		}
	}
	return ret;
}

char *te_query(const struct te_conn *c, const char *key)
{
	const char *p = c->query;
	size_t klen = strlen(key);

	while (p && *p) {
		size_t n = strcspn(p, "&");

		if (n > klen && strncmp(p, key, klen) == 0 && p[klen] == '=')
			return decode(p + klen + 1, n - klen - 1, true);
		p += n;
		if (*p == '&')
			p++;
	}
	return NULL;
}

bool te_query_bool(const struct te_conn *c, const char *key)
{
	sw_auto_free char *v = te_query(c, key);

	return v && (strcmp(v, "1") == 0 || strcmp(v, "true") == 0);
}

static void find_fault(struct te_conn *c, const char *what)
{
	struct te_fault *f;

	memset(&c->fault, 0, sizeof(c->fault));
	TAILQ_FOREACH (f, &c->te->faults, link) {
		if (fnmatch(f->f.match, what, 0) != 0)
			continue;
		if (f->f.times && f->hit >= f->f.times)
			continue;
		if (f->seen++ < f->f.skip)
			continue;
		f->hit++;
		c->fault = f->f;
		return;
	}
}

static void execute(void *arg)
{
	struct te_conn *c = arg;
	const struct testengine_fault *f = &c->fault;
	const char *body = f->body ? f->body : "{\"message\":\"injected\"}\n";
	size_t len = f->body_len ? f->body_len : strlen(body);

	if (f->cut == TE_CUT_BEFORE) {
		te_conn_close(c);
	} else if (f->cut == TE_CUT_GARBAGE) {
		c->head_left = len;
		c->body_left = 0;
		c->cut_stall = false;
		out_add(c, body, len);
		pump(c);
	} else if (f->status) {
		te_reply(c, f->status, f->content_type ? f->content_type : "application/json", body,
			len);
	} else {
		te_dispatch(c);
	}
}

/* "/v1.41/x" -> "/x" in c->path (decoded below by the handlers), query apart. */
static void split_target(struct te_conn *c)
{
	const char *p = c->target, *q;
	int major, minor, n = 0;

	if (sscanf(p, "/v%d.%d%n", &major, &minor, &n) == 2 && n && p[n] == '/')
		p += n;
	q = strchr(p, '?');
	c->path = q ? xstrndup(p, (size_t)(q - p)) : xstrdup(p);
	c->query = xstrdup(q ? q + 1 : "");
}

static void got_request(struct te_conn *c)
{
	struct testengine *te = c->te;
	sw_auto_free char *what = NULL;

	split_target(c);
	c->busy = true;
	c->head_only = strcmp(c->method, "HEAD") == 0;
	what = xasprintf("%s %s%s%s", c->method, c->path, *c->query ? "?" : "", c->query);
	if (te->n_requests < TE_MAX_REQUESTS) {
		te->requests = xrealloc(te->requests, te->n_requests + 1, sizeof(char *));
		te->requests[te->n_requests++] = xasprintf("%s %s", c->method, c->target);
	}
	if (c->auth) {
		free(te->last_auth);
		te->last_auth = xstrdup(c->auth);
	}
	find_fault(c, what);
	if (c->fault.delay_ns) {
		sw_timer_init(&c->delay, te->loop, execute, c);
		sw_timer_arm(&c->delay, c->fault.delay_ns);
	} else {
		execute(c);
	}
}

static char *header(const char *head, const char *name)
{
	size_t n = strlen(name);
	const char *p = head;

	while ((p = strstr(p, "\r\n"))) {
		p += 2;
		if (strncasecmp(p, name, n) == 0 && p[n] == ':') {
			p += n + 1;
			p += strspn(p, " ");
			return xstrndup(p, strcspn(p, "\r"));
		}
	}
	return NULL;
}

static void bad_request(struct te_conn *c)
{
	static const char answer[] =
		"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
		"Connection: close\r\nContent-Length: 15\r\n\r\n400 Bad Request";

	c->busy = true;
	c->head_left = sizeof(answer) - 1;
	c->body_left = 0;
	out_add(c, answer, sizeof(answer) - 1);
	pump(c);
}

static void next_request(struct te_conn *c)
{
	char *end, *sp1, *sp2;
	size_t head, body = 0;

	if (c->closing || c->busy || !c->in_len)
		return;
	c->in[c->in_len] = '\0';
	end = strstr(c->in, "\r\n\r\n");
	if (!end) {
		if (c->in_len > 65536)
			te_conn_close(c);
		return;
	}
	head = (size_t)(end - c->in) + 4;
	end[2] = '\0';
	{
		sw_auto_free char *length = header(c->in, "Content-Length");
		sw_auto_free char *host = header(c->in, "Host");
		sw_auto_free char *chunked = header(c->in, "Transfer-Encoding");

		if (length)
			body = strtoul(length, NULL, 10);
		if (body > MAX_REQUEST || chunked || !host || strchr(host, '/')) {
			bad_request(c);
			return;
		}
	}
	if (c->in_len < head + body) {
		end[2] = '\r';
		return;
	}
	c->auth = header(c->in, "X-Registry-Auth");
	{
		sw_auto_free char *type = header(c->in, "Content-Type");

		/* the real one refuses these too */
		if (body && (!type || strcmp(type, "application/json") != 0)) {
			bad_request(c);
			return;
		}
	}
	sp1 = strchr(c->in, ' ');
	sp2 = sp1 ? strchr(sp1 + 1, ' ') : NULL;
	if (!sp2 || sp2 > end) {
		bad_request(c);
		return;
	}
	c->method = xstrndup(c->in, (size_t)(sp1 - c->in));
	c->target = xstrndup(sp1 + 1, (size_t)(sp2 - sp1 - 1));
	c->body = xcalloc(1, body + 1);
	memcpy(c->body, c->in + head, body);
	c->body_len = body;
	memmove(c->in, c->in + head + body, c->in_len - head - body);
	c->in_len -= head + body;
	got_request(c);
}

static void on_alloc(uv_handle_t *u, size_t hint, uv_buf_t *buf)
{
	struct te_conn *c = u->data;

	(void)hint;
	if (c->in_cap - c->in_len < 65537) {
		c->in_cap = c->in_len + 2 * 65537;
		c->in = xrealloc(c->in, c->in_cap, 1);
	}
	*buf = uv_buf_init(c->in + c->in_len, 65536);
}

static void on_read(uv_stream_t *u, ssize_t n, const uv_buf_t *buf)
{
	struct te_conn *c = u->data;

	(void)buf;
	if (n < 0) {
		te_conn_close(c);
		return;
	}
	c->in_len += (size_t)n;
	if (c->in_len > MAX_REQUEST + 65536)
		te_conn_close(c);
	else if (n)
		next_request(c);
}

static void on_connection(uv_stream_t *server, int status)
{
	struct testengine *te = server->data;
	struct te_conn *c;

	if (status < 0)
		return;
	c = xcalloc(1, sizeof(*c));
	c->te = te;
	c->body_left = SIZE_MAX;
	uv_pipe_init(sw_loop_uv(te->loop), &c->pipe, 0);
	c->pipe.data = c;
	te->n_handles++;
	sw_timer_init(&c->pace, te->loop, on_pace, c);
	sw_timer_init(&c->delay, te->loop, execute, c);
	TAILQ_INSERT_TAIL(&te->conns, c, link);
	if (uv_accept(server, (uv_stream_t *)&c->pipe) < 0 ||
		uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read) < 0)
		te_conn_close(c);
}

static void on_listener_closed(uv_handle_t *u)
{
	struct testengine *te = u->data;

	free(u);
	te->n_handles--;
	te_maybe_closed(te);
}

int te_listen(struct testengine *te, struct sw_err *err)
{
	int r;

	unlink(te->path);
	te->listener = xcalloc(1, sizeof(*te->listener));
	uv_pipe_init(sw_loop_uv(te->loop), te->listener, 0);
	te->listener->data = te;
	te->n_handles++;
	r = uv_pipe_bind(te->listener, te->path);
	if (r == 0)
		r = uv_listen((uv_stream_t *)te->listener, 1024, on_connection);
	if (r == 0)
		return 0;
	te_unlisten(te, true);
	return sw_err_set(err, SW_FATAL, r, "listen on %s: %s", te->path, uv_strerror(r));
}

void te_unlisten(struct testengine *te, bool keep_file)
{
	if (te->listener) {
		/* libuv unlinks the path when it closes a bound pipe; a killed engine leaves it */
		sw_auto_free char *aside = xasprintf("%s~", te->path);

		if (keep_file)
			rename(te->path, aside);
		uv_close((uv_handle_t *)take(te->listener), on_listener_closed);
		if (keep_file)
			rename(aside, te->path);
	}
	testengine_drop_connections(te);
}

/* ---- door: faults, requests */

void testengine_drop_connections(struct testengine *te)
{
	struct te_conn *c;

	while ((c = TAILQ_FIRST(&te->conns)))
		te_conn_close(c);
}

void testengine_fault_add(struct testengine *te, const struct testengine_fault *f)
{
	struct te_fault *n = xcalloc(1, sizeof(*n));

	n->f = *f;
	n->f.match = xstrdup(f->match);
	n->f.body_len = f->body ? (f->body_len ? f->body_len : strlen(f->body)) : 0;
	n->f.body = f->body ? xmemdup(f->body, n->f.body_len + (f->body_len ? 0 : 1)) : NULL;
	n->f.content_type = xstrdup(f->content_type);
	n->f.headers = xstrdup(f->headers);
	TAILQ_INSERT_TAIL(&te->faults, n, link);
}

void testengine_fault_clear(struct testengine *te)
{
	struct te_fault *f;
	struct te_conn *c;

	/* what runs keeps its cut, but not the texts */
	TAILQ_FOREACH (c, &te->conns, link) {
		c->fault.body = c->fault.headers = c->fault.content_type = NULL;
		c->fault.body_len = 0;
	}
	while ((f = TAILQ_FIRST(&te->faults))) {
		TAILQ_REMOVE(&te->faults, f, link);
		free((char *)f->f.match);
		free((char *)f->f.body);
		free((char *)f->f.content_type);
		free((char *)f->f.headers);
		free(f);
	}
}

size_t testengine_n_requests(const struct testengine *te, const char *pattern)
{
	size_t n = 0;

	for (size_t i = 0; i < te->n_requests; i++) {
		const char *sp = strchr(te->requests[i], ' '), *path = sp + 1;
		sw_auto_free char *what = NULL;
		int major, minor, skip = 0;

		if (sscanf(path, "/v%d.%d%n", &major, &minor, &skip) == 2 && path[skip] == '/')
			path += skip;
		what = xasprintf("%.*s %s", (int)(sp - te->requests[i]), te->requests[i], path);
		n += fnmatch(pattern, what, 0) == 0;
	}
	return n;
}

const char *testengine_request_at(const struct testengine *te, size_t i)
{
	return i < te->n_requests ? te->requests[i] : NULL;
}

size_t testengine_n_connections(const struct testengine *te)
{
	const struct te_conn *c;
	size_t n = 0;

	TAILQ_FOREACH (c, &te->conns, link)
		n++;
	return n;
}

size_t testengine_n_event_streams(const struct testengine *te)
{
	const struct te_conn *c;
	size_t n = 0;

	TAILQ_FOREACH (c, &te->conns, link)
		n += c->wait == TE_W_EVENTS;
	return n;
}

const char *testengine_last_auth(const struct testengine *te)
{
	return te->last_auth;
}
