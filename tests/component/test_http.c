/* The HTTP client against a server that refuses, cuts, stalls and sends garbage. */
#include "test.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/http.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <sys/socket.h>

#include "await.h"
#include "testengine.h"

struct env {
	struct sw_loop *loop;
	struct testengine *te;
	struct http *http;
	char *path;
	unsigned closed;
};

static void on_closed(void *arg)
{
	(*(unsigned *)arg)++;
}

static int setup(void **state)
{
	struct env *e = xcalloc(1, sizeof(*e));
	char dir[] = "/tmp/sw-http-XXXXXX";
	struct testengine_config tc = {0};
	struct http_config hc = {.base_url = "http://localhost"};

	assert_non_null(mkdtemp(dir));
	e->path = xasprintf("%s/sock", dir);
	assert_int_equal(sw_loop_new(&e->loop, NULL), 0);
	tc.socket_path = e->path;
	assert_int_equal(testengine_new(&e->te, e->loop, &tc, NULL), 0);
	hc.unix_path = e->path;
	assert_int_equal(http_new(&e->http, e->loop, &hc, NULL), 0);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;
	unsigned want = e->closed + (e->http ? 1 : 0) + (e->te ? 1 : 0);

	http_close(e->http, on_closed, &e->closed);
	testengine_close(e->te, on_closed, &e->closed);
	AWAIT(e->loop, e->closed == want);
	assert_int_equal(sw_loop_free(e->loop), 0);
	assert_int_equal(block_count(), 0);
	unlink(e->path);
	*strrchr(e->path, '/') = '\0';
	rmdir(e->path);
	free(e->path);
	free(e);
	return 0;
}

enum where { NOWHERE, IN_HEAD, IN_DATA, IN_DONE };
struct result {
	struct env *e;
	struct http_call *call;
	int status, n_head, n_data, n_done;
	struct chain body;
	struct sw_err err;
	enum where cancel, close;
	struct http_call *other; /* cancelled in our done() */
	bool pause;
	char server[64];
};

static void at(struct result *r, enum where w)
{
	if (r->cancel == w && w != IN_DONE)
		http_cancel(take(r->call));
	if (r->close == w)
		http_close(take(r->e->http), on_closed, &r->e->closed);
}

static void on_head(void *arg, int status, const struct http_header *h, size_t n)
{
	struct result *r = arg;

	r->n_head++;
	r->status = status;
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(h[i].name, "server") == 0)
			snprintf(r->server, sizeof(r->server), "%s", h[i].value);
	at(r, IN_HEAD);
}

static void on_data(void *arg, struct chain *data)
{
	struct result *r = arg;

	r->n_data++;
	chain_append_chain(&r->body, data);
	if (r->pause)
		http_pause(r->call);
	at(r, IN_DATA);
}

static void on_done(void *arg, int status, const struct sw_err *err)
{
	struct result *r = arg;

	r->n_done++;
	r->call = NULL;
	r->status = status;
	sw_err_copy(&r->err, err);
	if (r->other)
		http_cancel(take(r->other));
	at(r, IN_DONE);
}

static const struct http_events events = {on_head, on_data, on_done};

static void start_req(struct env *e, struct result *r, struct http_request req)
{
	r->e = e;
	if (!req.method)
		req.method = "GET";
	r->call = http_start(e->http, &req, &events, r);
	assert_int_equal(r->n_head + r->n_data + r->n_done, 0);
}

static void start(struct env *e, struct result *r, const char *method, const char *path)
{
	start_req(e, r, (struct http_request){.method = method, .path = path});
}

static void get(struct env *e, struct result *r, const char *path)
{
	start(e, r, "GET", path);
	AWAIT(e->loop, r->n_done);
	assert_int_equal(r->n_done, 1);
}

static void done(struct result *r)
{
	chain_done(&r->body);
}

static char *text(struct result *r)
{
	char *s = xcalloc(1, chain_len(&r->body) + 1);

	chain_peek(&r->body, 0, s, chain_len(&r->body));
	return s;
}

static void rounds(struct env *e, int n)
{
	while (n--)
		sw_loop_once(e->loop, false);
}

static void test_get(void **state)
{
	struct env *e = *state;
	struct result r = {0};
	sw_auto_free char *body = NULL;

	get(e, &r, "/_ping");
	body = text(&r);
	assert_int_equal(r.err.cls, SW_OK);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.n_head, 1);
	assert_string_equal(body, "OK");
	assert_string_equal(r.server, "Docker/20.10.24 (linux)");
	done(&r);
}

static void test_head(void **state)
{
	struct env *e = *state;
	struct result r = {0};

	start(e, &r, "HEAD", "/_ping");
	AWAIT(e->loop, r.n_done);
	assert_int_equal(r.err.cls, SW_OK);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.n_data, 0);
}

static void test_keeps_connection(void **state)
{
	struct env *e = *state;

	for (int i = 0; i < 10; i++) {
		struct result r = {0};

		get(e, &r, "/_ping");
		assert_int_equal(r.status, 200);
		done(&r);
	}
	assert_int_equal(testengine_n_connections(e->te), 1);
	http_drop_idle(e->http);
	AWAIT(e->loop, testengine_n_connections(e->te) == 0);
	for (int i = 0; i < 2; i++) {
		struct result r = {0};

		get(e, &r, "/_ping");
		assert_int_equal(r.status, 200);
		done(&r);
	}
	assert_int_equal(testengine_n_connections(e->te), 1);
}

static void test_drop_idle_spares_paused(void **state)
{
	struct env *e = *state;
	struct result s = {.pause = true}, r = {0};

	start_req(e, &s, (struct http_request){.path = "/events", .stream = true});
	AWAIT(e->loop, testengine_n_event_streams(e->te) == 1);
	testengine_event_raw(e->te, "{}", 2);
	AWAIT(e->loop, s.n_data == 1);
	testengine_event_raw(e->te, "[]", 2);
	get(e, &r, "/_ping");
	done(&r);
	http_drop_idle(e->http);
	AWAIT(e->loop, testengine_n_connections(e->te) == 1);
	rounds(e, 20);
	assert_int_equal(s.n_data, 1);
	assert_int_equal(testengine_n_event_streams(e->te), 1);
	s.pause = false;
	http_resume(s.call);
	assert_int_equal(s.n_data, 1);
	AWAIT(e->loop, s.n_data == 2);
	assert_int_equal(s.n_done, 0);
	http_cancel(s.call);
	done(&s);
}

static void test_cannot_connect(void **state)
{
	struct env *e = *state;
	struct result r = {0}, q = {0};

	testengine_stop(e->te, true, true); /* the socket file stays */
	get(e, &r, "/_ping");
	assert_int_equal(r.err.cls, SW_TEMPORARY);
	assert_int_equal(r.err.domain, SW_E_ERRNO);
	assert_int_equal(r.err.code, -ECONNREFUSED);
	assert_non_null(strstr(r.err.msg, e->path));
	unlink(e->path);
	get(e, &q, "/_ping");
	assert_int_equal(q.err.code, -ENOENT);
	assert_int_equal(q.status, 0);
}

static void test_cuts(void **state)
{
	static const struct {
		enum testengine_cut cut;
		const char *body;
		int code, n_head;
	} cases[] = {{TE_CUT_BEFORE, NULL, -ECONNRESET, 0},
		{TE_CUT_AFTER_EXEC, NULL, -ECONNRESET, 0}, {TE_CUT_HEAD, NULL, -ECONNRESET, 1},
		{TE_CUT_BODY, NULL, -ECONNRESET, 1},
		{TE_CUT_GARBAGE, "\x16\x03\x01 what is this?\r\n\r\n", -EPROTO, 0},
		{TE_CUT_GARBAGE, "HTTP/1.1 ABC\r\n\r\n", -EPROTO, 0},
		{TE_CUT_GARBAGE, "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", 0, 0}};
	struct env *e = *state;

	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		struct testengine_fault f = {.match = "GET /info",
			.cut = cases[i].cut,
			.body = cases[i].body,
			.body_bytes = 5};
		struct result r = {0};

		testengine_fault_add(e->te, &f);
		get(e, &r, "/info");
		assert_int_equal(r.err.cls, SW_TEMPORARY);
		if (cases[i].code) {
			assert_int_equal(r.err.code, cases[i].code);
			assert_int_equal(r.n_head, cases[i].n_head);
		}
		testengine_fault_clear(e->te);
		done(&r);
	}
}

/* What is not idempotent is never sent twice behind our back. */
static void test_post_not_repeated(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "POST *", .cut = TE_CUT_AFTER_EXEC};
	struct result r = {0}, p = {0};

	get(e, &r, "/_ping"); /* leaves a kept connection behind */
	done(&r);
	testengine_fault_add(e->te, &f);
	start(e, &p, "POST", "/networks/create");
	AWAIT(e->loop, p.n_done);
	assert_int_equal(p.err.code, -ECONNRESET);
	assert_int_equal(testengine_n_requests(e->te, "POST *"), 1);
}

static void test_limits(void **state)
{
	struct env *e = *state;
	struct testengine_fault stall = {.match = "GET /info", .cut = TE_CUT_STALL};
	struct testengine_fault part = {
		.match = "GET /version", .cut = TE_CUT_STALL_BODY, .body_bytes = 3};
	struct result r = {0}, q = {0};

	testengine_fault_add(e->te, &stall);
	testengine_fault_add(e->te, &part);
	start_req(e, &r, (struct http_request){.path = "/info", .total_ns = sw_ms(40)});
	AWAIT(e->loop, r.n_done);
	assert_int_equal(r.err.code, -ETIMEDOUT);
	assert_non_null(strstr(r.err.msg, "40 ms"));
	start_req(e, &q, (struct http_request){.path = "/version", .idle_ns = sw_ms(40)});
	AWAIT(e->loop, q.n_done);
	assert_int_equal(q.err.code, -ETIMEDOUT);
	assert_int_equal(q.n_head, 1);
	assert_int_equal(chain_len(&q.body), 3);
	assert_int_equal(q.status, 200);
	done(&q);
}

static void test_refused_arguments(void **state)
{
	struct env *e = *state;
	struct http_header bad = {"X-Registry-Auth", "a\r\nEvil: b"};
	struct result r = {0}, q = {0};
	struct http *h;
	struct sw_err err;
	struct http_config cfg = {.base_url = "ftp://x"};
	char longpath[200];

	start_req(e, &r, (struct http_request){.path = "/info", .headers = &bad, .n_headers = 1});
	AWAIT(e->loop, r.n_done);
	assert_int_equal(r.err.cls, SW_REJECTED);
	start(e, &q, "GET", "/a b");
	AWAIT(e->loop, q.n_done);
	assert_int_equal(q.err.cls, SW_REJECTED);
	assert_int_equal(testengine_n_requests(e->te, "*"), 0);
	assert_int_equal(http_new(&h, e->loop, &cfg, &err), -EINVAL);
	memset(longpath, 'x', sizeof(longpath) - 1);
	longpath[sizeof(longpath) - 1] = '\0';
	cfg = (struct http_config){.base_url = "http://localhost", .unix_path = longpath};
	assert_int_equal(http_new(&h, e->loop, &cfg, &err), -ENAMETOOLONG);
}

static void test_cancel_everywhere(void **state)
{
	struct env *e = *state;

	for (int w = IN_HEAD; w <= IN_DATA; w++) {
		struct result r = {.cancel = (enum where)w};

		start(e, &r, "GET", "/info");
		AWAIT(e->loop, r.call == NULL);
		rounds(e, 20);
		assert_int_equal(r.n_done, 0);
		assert_int_equal(r.n_data, w == IN_DATA);
		done(&r);
	}
	/* at every moment between start and end */
	for (int n = 0; n < 30; n++) {
		struct result r = {0};

		start(e, &r, "GET", "/info");
		rounds(e, n);
		if (!r.n_done) {
			int before = r.n_head + r.n_data;

			http_cancel(r.call);
			rounds(e, 10);
			assert_int_equal(r.n_head + r.n_data + r.n_done, before);
		}
		done(&r);
	}
	/* another one, from done() */
	struct testengine_fault slow = {.match = "GET /version", .cut = TE_CUT_STALL};
	struct result other = {0}, r = {0};

	testengine_fault_add(e->te, &slow);
	start(e, &other, "GET", "/version");
	AWAIT(e->loop, testengine_n_requests(e->te, "GET /version") == 1);
	r.other = other.call;
	get(e, &r, "/_ping");
	rounds(e, 20);
	assert_int_equal(other.n_done, 0);
	done(&r);
	/* the slot is free again and the connection gone */
	AWAIT(e->loop, testengine_n_connections(e->te) <= 1);
}

static void test_close_everywhere(void **state)
{
	struct env *e = *state;

	for (int w = IN_HEAD; w <= IN_DONE; w++) {
		struct result r = {.close = (enum where)w}, other = {0};
		struct http_config hc = {.unix_path = e->path, .base_url = "http://localhost"};
		struct testengine_fault slow = {.match = "GET /version", .cut = TE_CUT_STALL};

		testengine_fault_add(e->te, &slow);
		e->closed = 0;
		start(e, &other, "GET", "/version");
		start(e, &r, "GET", "/info");
		AWAIT(e->loop, e->closed == 1);
		assert_int_equal(other.n_done, 0);
		done(&r);
		testengine_fault_clear(e->te);
		assert_int_equal(http_new(&e->http, e->loop, &hc, NULL), 0);
	}
}

static void test_pool(void **state)
{
	enum { N = 300 };
	struct env *e = *state;
	struct result *r = xcalloc(N, sizeof(*r));
	struct result s[3] = {{0}};
	size_t most = 0;
	int n;

	for (int i = 0; i < 3; i++)
		start_req(e, &s[i], (struct http_request){.path = "/events", .stream = true});
	for (int i = 0; i < N; i++)
		start(e, &r[i], "GET", "/info");
	do {
		sw_loop_once(e->loop, true);
		if (testengine_n_connections(e->te) > most)
			most = testengine_n_connections(e->te);
		n = 0;
		for (int i = 0; i < N; i++)
			n += r[i].n_done;
	} while (n < N);
	for (int i = 0; i < N; i++) {
		assert_int_equal(r[i].status, 200);
		done(&r[i]);
	}
	assert_true(most <= 8 + 3);
	assert_int_equal(testengine_n_event_streams(e->te), 3);
	for (int i = 0; i < 3; i++)
		http_cancel(s[i].call);
	AWAIT(e->loop, testengine_n_event_streams(e->te) == 0);
	free(r);
}

/* A paused call takes at most what curl had read already; all of it comes, once, in order. */
static void test_pause(void **state)
{
	enum { SIZE = 8 << 20 };
	struct env *e = *state;
	char *big = xcalloc(1, SIZE);
	struct testengine_fault f = {
		.match = "GET /big", .status = 200, .body = big, .body_len = SIZE};
	struct result r = {.pause = true};
	size_t off = 0;

	for (size_t i = 0; i < SIZE; i++)
		big[i] = (char)(i * 2654435761u >> 13);
	testengine_fault_add(e->te, &f);
	start(e, &r, "GET", "/big");
	for (int n = 0; !r.n_done; n++) {
		int before = r.n_data;
		size_t len;

		AWAIT(e->loop, r.n_data > before || r.n_done);
		if (n < 50) {
			rounds(e, 10);
			assert_int_equal(r.n_data, before + 1); /* nothing while paused */
			assert_true(chain_len(&r.body) <= 64 << 10);
		}
		while ((len = chain_len(&r.body))) {
			char buf[4096];
			size_t k = chain_peek(&r.body, 0, buf, sizeof(buf));

			assert_memory_equal(buf, big + off, k);
			chain_drain(&r.body, k);
			off += k;
		}
		if (r.call)
			http_resume(r.call);
	}
	assert_int_equal(off, SIZE);
	assert_int_equal(r.err.cls, SW_OK);
	free(big);
}

/* Chunks that were in curl's buffer when the pause came, and the end of the body behind them. */
static void test_pause_chunks(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "GET /events", .split = 3};
	struct result r = {.pause = true};
	sw_auto_free char *body = NULL;

	testengine_fault_add(e->te, &f);
	start_req(e, &r, (struct http_request){.path = "/events", .stream = true});
	AWAIT(e->loop, testengine_n_event_streams(e->te) == 1);
	testengine_event_raw(e->te, "abcdefghijklmnopqrstuvwxyz", 26);
	testengine_stop(e->te, true, false);
	AWAIT(e->loop, r.n_data == 1);
	rounds(e, 20);
	assert_int_equal(chain_len(&r.body), 3);
	assert_int_equal(r.n_done, 0);
	r.pause = false;
	http_resume(r.call);
	AWAIT(e->loop, r.n_done);
	body = text(&r);
	assert_string_equal(body, "abcdefghijklmnopqrstuvwxyz");
	assert_int_equal(r.err.code, -ECONNRESET); /* no last chunk: not complete */
	done(&r);
}

static void test_pause_stops_idle_limit(void **state)
{
	struct env *e = *state;
	struct result r = {.pause = true};
	struct sw_timer t;
	bool late = false;

	start_req(e, &r,
		(struct http_request){.path = "/events", .stream = true, .idle_ns = sw_ms(30)});
	AWAIT(e->loop, testengine_n_event_streams(e->te) == 1);
	testengine_event_raw(e->te, "{}", 2);
	AWAIT(e->loop, r.n_data == 1);
	sw_timer_init(&t, e->loop, await_late, &late);
	sw_timer_arm(&t, sw_ms(100));
	AWAIT(e->loop, late);
	assert_int_equal(r.n_done, 0);
	r.pause = false;
	http_resume(r.call);
	AWAIT(e->loop, r.n_done);
	assert_int_equal(r.err.code, -ETIMEDOUT);
	done(&r);
}

static void test_one_byte_chunks_share_blocks(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "GET /events", .split = 1};
	struct result r = {0};
	char bytes[2000];

	memset(bytes, 'x', sizeof(bytes));
	testengine_fault_add(e->te, &f);
	start_req(e, &r, (struct http_request){.path = "/events", .stream = true});
	AWAIT(e->loop, testengine_n_event_streams(e->te) == 1);
	testengine_event_raw(e->te, bytes, sizeof(bytes));
	AWAIT(e->loop, chain_len(&r.body) == sizeof(bytes));
	assert_true(block_count() <= 2);
	http_cancel(r.call);
	done(&r);
}

static void test_upload(void **state)
{
	struct env *e = *state;
	struct json_object *o = json_object_new_object(), *labels = json_object_new_object();
	struct http_header type = {"Content-Type", "application/json"};
	struct testengine_container c;
	struct result r = {0};
	struct chain body = {0};
	char *value = xcalloc(1, 1 << 20);
	const char *json, *got;

	memset(value, 'v', (1 << 20) - 1);
	json_object_object_add(labels, "big", json_object_new_string(value));
	json_object_object_add(o, "Labels", labels);
	json_object_object_add(o, "Image", json_object_new_string("bb:1"));
	json = json_object_to_json_string(o);
	for (size_t i = 0, n = strlen(json); i < n; i += 1000) {
		size_t avail, k = n - i < 1000 ? n - i : 1000;
		uint8_t *p = chain_reserve(&body, k, &avail);

		memcpy(p, json + i, k);
		chain_commit(&body, k);
	}
	start_req(e, &r,
		(struct http_request){.method = "POST",
			.path = "/containers/create?name=up",
			.headers = &type,
			.n_headers = 1,
			.body = &body});
	assert_int_equal(chain_len(&body), 0); /* taken */
	AWAIT(e->loop, r.n_done);
	assert_int_equal(r.status, 201);
	assert_true(testengine_container_find(e->te, "up", &c));
	json_object_object_get_ex(c.body, "Labels", &labels);
	json_object_object_get_ex(labels, "big", &labels);
	got = json_object_get_string(labels);
	assert_string_equal(got, value);
	json_object_put(o);
	free(value);
	done(&r);
}

/* ---- the bytes on the wire: a server that only listens */

struct wire {
	char got[4096];
	size_t len;
	uv_pipe_t server, conn;
	const char *answer;
	unsigned n_closed;
};

static void wire_alloc(uv_handle_t *u, size_t hint, uv_buf_t *buf)
{
	struct wire *w = u->data;

	(void)hint;
	*buf = uv_buf_init(w->got + w->len, (unsigned)(sizeof(w->got) - 1 - w->len));
}

static void wire_read(uv_stream_t *u, ssize_t n, const uv_buf_t *buf)
{
	struct wire *w = u->data;
	uv_buf_t out = uv_buf_init((char *)w->answer, (unsigned)strlen(w->answer));

	(void)buf;
	if (n <= 0)
		return;
	w->len += (size_t)n;
	w->got[w->len] = '\0';
	if (strstr(w->got, "\r\n\r\n"))
		assert_int_equal(uv_try_write(u, &out, 1), strlen(w->answer));
}

static void wire_conn(uv_stream_t *u, int status)
{
	struct wire *w = u->data;

	assert_int_equal(status, 0);
	uv_pipe_init(u->loop, &w->conn, 0);
	w->conn.data = w;
	uv_accept(u, (uv_stream_t *)&w->conn);
	uv_read_start((uv_stream_t *)&w->conn, wire_alloc, wire_read);
}

static void wire_closed(uv_handle_t *u)
{
	((struct wire *)u->data)->n_closed++;
}

static void test_wire(void **state)
{
	static const struct {
		const char *method, *answer;
		int status;
		bool post;
	} cases[] = {
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, false},
		{"POST", "HTTP/1.1 204 No Content\r\n\r\n", 204, true},
		{"DELETE", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204,
			false},
		{"POST",
			"HTTP/1.1 301 Moved\r\nLocation: http://localhost/other\r\nContent-Length: "
			"0"
			"\r\n\r\n",
			301, true},
	};
	struct env *e = *state;

	setenv("http_proxy", "http://127.0.0.1:1", 1);
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		sw_auto_free char *path = xasprintf("%s-wire", e->path);
		struct wire w = {.answer = cases[i].answer};
		struct http_config hc = {.unix_path = path, .base_url = "http://localhost/base/"};
		struct http *h, *keep = e->http;
		struct result r = {0};

		uv_pipe_init(sw_loop_uv(e->loop), &w.server, 0);
		w.server.data = &w;
		assert_int_equal(uv_pipe_bind(&w.server, path), 0);
		assert_int_equal(uv_listen((uv_stream_t *)&w.server, 5, wire_conn), 0);
		assert_int_equal(http_new(&h, e->loop, &hc, NULL), 0);
		e->http = h;
		start(e, &r, cases[i].method, "/x/../y?q=%20");
		AWAIT(e->loop, r.n_done);
		assert_int_equal(r.err.cls, SW_OK);
		assert_int_equal(r.status, cases[i].status);
		assert_int_equal(r.n_head, 1);
		assert_non_null(strstr(w.got, " /base/x/../y?q=%20 HTTP/1.1\r\n"));
		assert_non_null(strstr(w.got, "Host: localhost\r\n"));
		assert_null(strcasestr(w.got, "Expect"));
		assert_null(strcasestr(w.got, "Content-Type"));
		assert_null(strcasestr(w.got, "Accept-Encoding"));
		if (cases[i].post)
			assert_non_null(strstr(w.got, "Content-Length: 0\r\n"));
		else
			assert_null(strcasestr(w.got, "Content-Length"));
		assert_null(strstr(strstr(w.got, "\r\n\r\n") + 4, "HTTP")); /* one request only */
		e->http = keep;
		e->closed = 0;
		http_close(h, on_closed, &e->closed);
		uv_close((uv_handle_t *)&w.conn, wire_closed);
		uv_close((uv_handle_t *)&w.server, wire_closed);
		AWAIT(e->loop, e->closed == 1 && w.n_closed == 2);
		done(&r);
	}
	unsetenv("http_proxy");
}

static void test_too_many_headers(void **state)
{
	struct env *e = *state;
	char *many = xcalloc(1, 200 * 16), *p = many;
	struct testengine_fault f = {.match = "GET /info", .headers = many};
	struct result r = {0};

	for (int i = 0; i < 200; i++)
		p += sprintf(p, "X-%d: y\r\n", i);
	testengine_fault_add(e->te, &f);
	free(many);
	get(e, &r, "/info");
	assert_int_equal(r.err.cls, SW_TEMPORARY);
	assert_int_equal(r.err.code, -E2BIG);
	done(&r);
}

/* TCP instead of a unix socket: name resolution on its own thread, cancelled while it runs. */
static void test_tcp(void **state)
{
	struct env *e = *state;
	struct http_config hc = {.base_url = "http://localhost:1"};
	struct http *h, *keep = e->http;
	struct result r = {0}, q = {0};

	assert_int_equal(http_new(&h, e->loop, &hc, NULL), 0);
	e->http = h;
	get(e, &r, "/_ping");
	assert_int_equal(r.err.cls, SW_TEMPORARY);
	assert_int_equal(r.err.code, -ECONNREFUSED);
	start(e, &q, "GET", "/_ping");
	rounds(e, 1);
	e->http = keep;
	e->closed = 0;
	http_close(h, on_closed, &e->closed);
	AWAIT(e->loop, e->closed == 1);
	assert_int_equal(q.n_done, 0);
}

static void test_escape(void **state)
{
	sw_auto_free char *a = http_escape("a b/\xc3\xbc~", false);
	sw_auto_free char *b = http_escape("a/b:1", true);
	sw_auto_free char *c = http_escape("", false);

	(void)state;
	assert_string_equal(a, "a%20b%2F%C3%BC~");
	assert_string_equal(b, "a/b%3A1");
	assert_string_equal(c, "");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_get),
		T(test_head),
		T(test_keeps_connection),
		T(test_drop_idle_spares_paused),
		T(test_cannot_connect),
		T(test_cuts),
		T(test_post_not_repeated),
		T(test_limits),
		T(test_refused_arguments),
		T(test_cancel_everywhere),
		T(test_close_everywhere),
		T(test_pool),
		T(test_pause),
		T(test_pause_chunks),
		T(test_pause_stops_idle_limit),
		T(test_one_byte_chunks_share_blocks),
		T(test_upload),
		T(test_wire),
		T(test_too_many_headers),
		T(test_tcp),
		cmocka_unit_test(test_escape),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
