/* Events and logs: torn apart, glued together, cut, silent, hostile, too fast. */
#include "test.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

#include "await.h"
#include "testengine.h"

struct env {
	struct sw_loop *loop;
	struct testengine *te;
	struct engine *e;
	char *path;
	unsigned closed;
};

static void on_closed(void *arg)
{
	(*(unsigned *)arg)++;
}

static void no_log(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

static struct env *env_new(bool podman)
{
	struct env *e = xcalloc(1, sizeof(*e));
	char dir[] = "/tmp/sw-streams-XXXXXX";
	struct testengine_config tc = {.podman = podman};
	struct engine_config ec = {0};

	log_set_sink(no_log, NULL);
	assert_non_null(mkdtemp(dir));
	e->path = xasprintf("%s/sock", dir);
	assert_int_equal(sw_loop_new(&e->loop, NULL), 0);
	tc.socket_path = e->path;
	assert_int_equal(testengine_new(&e->te, e->loop, &tc, NULL), 0);
	ec.host = testengine_host(e->te);
	assert_int_equal(engine_new(&e->e, e->loop, &ec, NULL), 0);
	return e;
}

static int setup(void **state)
{
	*state = env_new(false);
	return 0;
}

static int setup_podman(void **state)
{
	*state = env_new(true);
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;
	unsigned want = (e->e ? 1 : 0) + (e->te ? 1 : 0);

	e->closed = 0;
	engine_close(e->e, on_closed, &e->closed);
	testengine_close(e->te, on_closed, &e->closed);
	AWAIT(e->loop, e->closed == want);
	assert_int_equal(sw_loop_free(e->loop), 0);
	assert_int_equal(block_count(), 0);
	log_set_sink(NULL, NULL);
	unlink(e->path);
	*strrchr(e->path, '/') = '\0';
	assert_int_equal(rmdir(e->path), 0);
	free(e->path);
	free(e);
	return 0;
}

static void rounds(struct env *e, int n)
{
	while (n--)
		sw_loop_once(e->loop, false);
}

/* ---- events */

struct heard {
	struct env *e;
	struct engine_call *c;
	char all[65536]; /* "action id attr;" */
	int n, n_connected, n_lost;
	struct sw_err err;
	int cancel_at; /* in the n-th event */
	bool cancel_connected, cancel_lost, close;
};

static void on_event(void *arg, const struct engine_event *ev)
{
	struct heard *h = arg;
	const char *name = engine_event_attr(ev, "name");
	size_t len = strlen(h->all);

	assert_true(h->n_connected > 0);
	snprintf(h->all + len, sizeof(h->all) - len, "%s %.4s %s;", ev->action, ev->id,
		name ? name : "");
	if (++h->n == h->cancel_at) {
		if (h->close)
			engine_close(take(h->e->e), on_closed, &h->e->closed);
		else
			engine_call_cancel(h->c);
	}
}

static void on_connected(void *arg)
{
	struct heard *h = arg;

	h->n_connected++;
	if (h->cancel_connected)
		engine_call_cancel(h->c);
}

static void on_lost(void *arg, const struct sw_err *err)
{
	struct heard *h = arg;

	h->n_lost++;
	sw_err_copy(&h->err, err);
	if (h->cancel_lost)
		engine_call_cancel(h->c);
}

static const struct engine_events_handler handler = {on_event, on_connected, on_lost};

static void listen_with(struct env *e, struct heard *h, const char *filters)
{
	struct json_object *f = filters ? json_tokener_parse(filters) : NULL;

	h->e = e;
	h->c = engine_events(e->e, f, &handler, h);
	json_object_put(f);
	assert_int_equal(h->n_connected + h->n_lost, 0);
}

static void listen_up(struct env *e, struct heard *h)
{
	int before = h->n_connected;

	listen_with(e, h, NULL);
	AWAIT(e->loop, h->n_connected > before);
}

#define EV(action, id, t)                                                                          \
	"{\"Type\":\"container\",\"Action\":\"" action "\",\"Actor\":{\"ID\":\"" id                \
	"\",\"Attributes\":{\"name\":\"n{}\\\"\\\\\"}},\"timeNano\":" t "}"

static void test_splitting(void **state) /* X06 */
{
	static const char two[] = EV("start", "aaaa", "1") EV("die", "aaaa", "2");
	static const char *const streams[] = {two,
		EV("start", "aaaa", "1") "\n" EV("die", "aaaa", "2") "\n",
		"\r\n" EV("start", "aaaa", "1") "\r\n" EV("die", "aaaa", "2") "\r\n",
		"\x1e" EV("start", "aaaa", "1") "\n\x1e" EV("die", "aaaa", "2") "\n"};

	for (size_t split = 0; split <= 3; split++) {
		struct env *e = env_new(false);
		struct testengine_fault f = {.match = "GET /events*", .split = split};
		struct heard *h = xcalloc(1, sizeof(*h));

		testengine_fault_add(e->te, &f);
		for (size_t i = 0; i < SW_ARRAY_LEN(streams); i++) {
			memset(h, 0, sizeof(*h));
			listen_up(e, h);
			testengine_event_raw(e->te, streams[i], strlen(streams[i]));
			AWAIT(e->loop, h->n == 2);
			assert_string_equal(h->all, "start aaaa n{}\"\\;die aaaa n{}\"\\;");
			assert_int_equal(h->n_lost, 0);
			engine_call_cancel(h->c);
			AWAIT(e->loop, testengine_n_event_streams(e->te) == 0);
		}
		free(h);
		teardown((void **)&e);
	}
	(void)state;
}

static void test_filters(void **state)
{
	struct env *e = *state;
	struct heard *h = xcalloc(1, sizeof(*h));
	struct json_object *body = json_tokener_parse(
		"{\"Image\":\"bb:1\",\"Labels\":{\"k\":\"v\"},\"Cmd\":[\"exit\",\"3\"]}");

	listen_with(e, h,
		"{\"type\":[\"container\"],\"label\":[\"k=v\"],"
		"\"event\":[\"start\",\"die\",\"health_status\"]}");
	AWAIT(e->loop, h->n_connected);
	testengine_container_make(e->te, "one", body, true);
	AWAIT(e->loop, h->n == 2);
	testengine_container_health(e->te, "one", "healthy");
	AWAIT(e->loop, h->n == 3);
	assert_non_null(strstr(h->all, "health_status: healthy"));
	assert_int_equal(testengine_n_requests(e->te, "GET /events?filters=*since*"), 0);
	json_object_put(body);
	free(h);
}

/* A short drop: what happened meanwhile comes, what was there already does not come twice. */
static void test_since(void **state)
{
	struct env *e = *state;
	struct heard *h = xcalloc(1, sizeof(*h));

	listen_up(e, h);
	testengine_event(e->te, "container", "start", "aaaa", NULL);
	testengine_event(e->te, "container", "die", "aaaa", NULL);
	AWAIT(e->loop, h->n == 2);
	testengine_drop_connections(e->te);
	testengine_event(e->te, "container", "start", "bbbb", NULL);
	testengine_event(e->te, "container", "die", "bbbb", NULL);
	AWAIT(e->loop, h->n_connected == 2 && h->n >= 4);
	testengine_event(e->te, "container", "start", "cccc", NULL);
	AWAIT(e->loop, strstr(h->all, "cccc"));
	assert_string_equal(h->all, "start aaaa ;die aaaa ;start bbbb ;die bbbb ;start cccc ;");
	assert_int_equal(h->n_lost, 1);
	assert_int_equal(h->err.cls, SW_TEMPORARY);
	assert_int_equal(
		testengine_n_requests(e->te, "GET /events?filters=*&since=*.?????????"), 1);
	free(h);
}

static void test_same_nanosecond(void **state)
{
	static const char stream[] = EV("start", "aaaa", "5") EV("start", "bbbb", "5")
		EV("start", "aaaa", "5") EV("die", "aaaa", "5") EV("start", "aaaa", "4");
	struct env *e = *state;
	struct heard *h = xcalloc(1, sizeof(*h));

	listen_up(e, h);
	testengine_event_raw(e->te, stream, strlen(stream));
	AWAIT(e->loop, h->n == 4);
	rounds(e, 10);
	assert_int_equal(h->n, 4);
	free(h);
}

static void test_restart(void **state) /* X07 */
{
	struct env *e = *state;
	struct heard *h = xcalloc(1, sizeof(*h));

	listen_up(e, h);
	testengine_stop(e->te, true, false);
	AWAIT(e->loop, h->n_lost == 1);
	rounds(e, 10);
	testengine_version_set(e->te, "1.44", "Docker/25.0.0 (linux)");
	assert_int_equal(testengine_start(e->te, NULL), 0);
	AWAIT(e->loop, h->n_connected == 2);
	assert_string_equal(engine_api_version(e->e), "1.44");
	assert_int_equal(h->n_lost, 1);
	testengine_event(e->te, "container", "die", "aaaa", NULL);
	AWAIT(e->loop, h->n == 1);
	free(h);
}

static void test_never_up(void **state)
{
	struct env *e = *state;
	struct testengine_fault f = {.match = "GET /events*", .status = 500, .times = 3};
	struct heard *h = xcalloc(1, sizeof(*h));

	testengine_fault_add(e->te, &f);
	listen_with(e, h, NULL);
	AWAIT(e->loop, h->n_connected == 1);
	assert_int_equal(h->n_lost, 1); /* told once, tried four times */
	assert_int_equal(h->err.code, 500);
	assert_int_equal(testengine_n_requests(e->te, "GET /events*"), 4);
	free(h);
}

static void test_hostile_events(void **state)
{
	enum { BIG = 3 << 20 };
	struct env *e = *state;
	struct heard *h = xcalloc(1, sizeof(*h));
	char *big = xcalloc(1, BIG);
	static const char odd[] = "{\"Type\":5,\"Action\":[],\"Actor\":7}{}{\"Type\":\"container\"}"
				  "{\"a\":nonsense}" EV("die", "aaaa", "9223372036854775807");
	static const char *const bad[] = {"garbage", "]", "}}}}"};

	listen_up(e, h);
	testengine_event_raw(e->te, odd, strlen(odd));
	AWAIT(e->loop, h->n == 1); /* what is well-formed around it is heard */
	assert_int_equal(h->n_lost, 0);
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		int up = h->n_connected;

		testengine_event_raw(e->te, bad[i], strlen(bad[i]));
		AWAIT(e->loop, h->n_lost == up);
		AWAIT(e->loop, h->n_connected == up + 1);
		assert_int_equal(h->err.code, -EPROTO);
	}
	memset(big, 'x', BIG);
	memcpy(big, "{\"a\":\"", 6);
	testengine_event_raw(e->te, big, BIG);
	AWAIT(e->loop, h->err.code == -E2BIG);
	free(big);
	free(h);
}

static void test_silence(void **state)
{
	struct env *e = *state;
	struct testengine_fault dead = {.match = "* /_ping", .cut = TE_CUT_STALL, .skip = 1};
	struct heard *h = xcalloc(1, sizeof(*h));

	sw_fake_clock(e->loop, sw_s(1000));
	testengine_fault_add(e->te, &dead);
	listen_with(e, h, NULL);
	for (int i = 0; i < 200 && !h->n_connected; i++)
		sw_fake_advance(e->loop, sw_ms(1));
	assert_int_equal(h->n_connected, 1);
	/* noise keeps the ping away */
	for (int i = 0; i < 6; i++) {
		testengine_event(e->te, "container", "start", "aaaa", NULL);
		for (int k = 0; k < 500; k++)
			sw_fake_advance(e->loop, sw_ms(10));
	}
	assert_int_equal(h->n, 6);
	assert_int_equal(testengine_n_requests(e->te, "GET /_ping"), 0);
	/* silence: three pings that nobody answers end the stream */
	for (int i = 0; i < 10000 && !h->n_lost; i++)
		sw_fake_advance(e->loop, sw_ms(10));
	assert_int_equal(h->n_lost, 1);
	assert_int_equal(testengine_n_requests(e->te, "GET /_ping"), 3);
	assert_non_null(strstr(h->err.msg, "3 pings"));
	testengine_fault_clear(e->te);
	for (int i = 0; i < 10000 && h->n_connected < 2; i++)
		sw_fake_advance(e->loop, sw_ms(10));
	assert_int_equal(h->n_connected, 2);
	/* alive and silent: it stays */
	for (int i = 0; i < 10000; i++)
		sw_fake_advance(e->loop, sw_ms(10));
	assert_int_equal(h->n_lost, 1);
	assert_true(testengine_n_requests(e->te, "GET /_ping") >= 3 + 8);
	engine_close(take(e->e), on_closed, &e->closed);
	testengine_close(take(e->te), on_closed, &e->closed);
	for (int i = 0; i < 100 && e->closed < 2; i++)
		sw_fake_advance(e->loop, sw_ms(1));
	assert_int_equal(e->closed, 2);
	free(h);
}

static void test_events_cancel(void **state)
{
	static const char three[] = EV("a", "aaaa", "1") EV("b", "aaaa", "2") EV("c", "aaaa", "3");
	struct env *e = *state;

	for (int split = 0; split < 2; split++) {
		struct testengine_fault f = {.match = "GET /events*", .split = (size_t)split};
		struct heard *h = xcalloc(1, sizeof(*h));

		testengine_fault_add(e->te, &f);
		h->cancel_at = 2;
		listen_up(e, h);
		testengine_event_raw(e->te, three, strlen(three));
		AWAIT(e->loop, testengine_n_event_streams(e->te) == 0);
		assert_int_equal(h->n, 2);
		testengine_fault_clear(e->te);
		free(h);
	}
	{
		struct heard a = {.cancel_connected = true}, b = {.cancel_lost = true};

		listen_with(e, &a, NULL);
		AWAIT(e->loop, a.n_connected == 1);
		AWAIT(e->loop, testengine_n_event_streams(e->te) == 0);
		listen_up(e, &b);
		testengine_drop_connections(e->te);
		AWAIT(e->loop, b.n_lost == 1);
		rounds(e, 20);
		assert_int_equal(b.n_connected, 1);
	}
	{
		struct heard *h = xcalloc(1, sizeof(*h));

		h->cancel_at = 1;
		h->close = true;
		listen_up(e, h);
		testengine_event_raw(e->te, three, strlen(three));
		AWAIT(e->loop, e->closed == 1);
		assert_int_equal(h->n, 1);
		free(h);
	}
}

static void test_podman_events(void **state)
{
	struct env *e = *state;
	struct heard *h = xcalloc(1, sizeof(*h)), q = {0};

	listen_up(e, h); /* finds out that it is podman */
	testengine_event(e->te, "container", "remove", "aaaa", NULL);
	AWAIT(e->loop, h->n == 1);
	assert_string_equal(h->all, "destroy aaaa ;");
	engine_call_cancel(h->c);
	listen_with(e, &q, "{\"type\":[\"container\"],\"event\":[\"die\"]}");
	AWAIT(e->loop, q.n_connected == 1);
	assert_int_equal(testengine_n_requests(e->te,
				 "GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D"),
		1);
	free(h);
}

/* ---- logs */

struct reader {
	struct env *e;
	struct engine_call *c;
	struct chain text; /* "1:" or "2:" before each record */
	int n, n_end, n_parts;
	size_t bytes;
	struct sw_err err;
	int64_t last_ns;
	int stop_every; /* pause after so many records */
	int cancel_at;
	char attrs[256];
};

static void put(struct chain *c, const char *s)
{
	size_t avail;
	uint8_t *p = chain_reserve(c, strlen(s), &avail);

	memcpy(p, s, strlen(s));
	chain_commit(c, strlen(s));
}

static bool on_record(void *arg, struct engine_log_record *rec)
{
	struct reader *r = arg;

	r->n++;
	r->bytes += chain_len(rec->data);
	assert_true(chain_len(rec->data) <= 16384);
	assert_true(rec->time_ns >= r->last_ns);
	r->last_ns = rec->time_ns;
	for (size_t i = 0; i < rec->n_attrs; i++)
		snprintf(r->attrs + strlen(r->attrs), sizeof(r->attrs) - strlen(r->attrs), "%s=%s;",
			rec->attrs[i].key, rec->attrs[i].value);
	if (r->bytes < 1 << 20) {
		put(&r->text, rec->stream == 2 ? "2:" : "1:");
		chain_append_chain(&r->text, rec->data);
	}
	if (r->n == r->cancel_at)
		engine_call_cancel(r->c);
	return !(r->stop_every && r->n % r->stop_every == 0);
}

static void on_end(void *arg, const struct sw_err *err)
{
	struct reader *r = arg;

	r->n_end++;
	sw_err_copy(&r->err, err);
}

static void read_log(struct env *e, struct reader *r, const char *id, struct engine_log_options opt)
{
	if (!opt.out && !opt.err)
		opt.out = opt.err = true;
	r->e = e;
	r->c = engine_logs(e->e, id, &opt, on_record, on_end, r);
	assert_int_equal(r->n + r->n_end, 0);
}

static void assert_text(struct reader *r, const char *want)
{
	char *s = xcalloc(1, chain_len(&r->text) + 1);

	chain_peek(&r->text, 0, s, chain_len(&r->text));
	assert_string_equal(s, want);
	free(s);
}

static void done(struct reader *r)
{
	chain_done(&r->text);
}

static void make(struct env *e, const char *name, const char *cmd, bool tty, bool start)
{
	sw_auto_free char *text = xasprintf(
		"{\"Image\":\"bb:1\",\"Cmd\":[\"%s\"],\"Tty\":%s}", cmd, tty ? "true" : "false");
	struct json_object *body = json_tokener_parse(text);

	testengine_container_make(e->te, name, body, start);
	json_object_put(body);
}

static void negotiated_ping(void *arg, const struct engine_info *i, const struct sw_err *err)
{
	(void)i;
	assert_null(err);
	*(bool *)arg = true;
}

static void test_logs(void **state) /* X90, X91, X94 */
{
	struct env *e = *state;

	for (size_t split = 0; split < 3; split++) {
		struct testengine_fault f = {.match = "GET /containers/*/logs*", .split = split};
		struct engine_log_options all = {.tail = -1}, tail = {.tail = 1},
					  only = {.tail = -1, .err = true},
					  follow = {.tail = -1, .follow = true};
		sw_auto_free char *name = xasprintf("c%zu", split);
		struct reader r = {0}, t = {0}, o = {0}, w = {0};

		testengine_fault_add(e->te, &f);
		make(e, name, "x", false, true);
		testengine_log(e->te, name, 1, "one\ntwo\n", 8);
		testengine_log(e->te, name, 2, "err\n", 4);
		testengine_log(e->te, name, 1, "tail", 4);
		read_log(e, &r, name, all);
		AWAIT(e->loop, r.n_end);
		assert_int_equal(r.err.cls, SW_OK);
		assert_text(&r, "1:one\n1:two\n2:err\n1:tail");
		read_log(e, &t, name, tail);
		AWAIT(e->loop, t.n_end);
		assert_text(&t, "1:tail");
		read_log(e, &o, name, only);
		AWAIT(e->loop, o.n_end);
		assert_text(&o, "2:err\n");
		read_log(e, &w, name, follow);
		AWAIT(e->loop, w.n == 4);
		testengine_log(e->te, name, 1, "live\n", 5);
		AWAIT(e->loop, w.n == 5);
		assert_int_equal(w.n_end, 0);
		testengine_container_exit(e->te, name, 0, false);
		AWAIT(e->loop, w.n_end);
		assert_int_equal(w.err.cls, SW_OK);
		done(&r);
		done(&t);
		done(&o);
		done(&w);
		testengine_fault_clear(e->te);
	}
}

static void test_log_details(void **state)
{
	static const char body[] = "\x01\0\0\0\0\0\0\x31"
				   "2026-01-02T03:04:05.000000006Z a+b=c%2Cd,e=,f tx\n"
				   "\x02\0\0\0\0\0\0\x24"
				   "2026-01-02T03:04:05.000000007Z  y z\n";
	struct env *e = *state;
	struct testengine_fault f = {.match = "GET /containers/*/logs*",
		.status = 200,
		.body = body,
		.body_len = sizeof(body) - 1,
		.content_type = "application/vnd.docker.multiplexed-stream"};
	struct reader r = {0};

	testengine_fault_add(e->te, &f);
	read_log(e, &r, "x", (struct engine_log_options){.tail = -1});
	AWAIT(e->loop, r.n_end);
	if (r.err.cls != SW_OK)
		fail_msg("%s", r.err.msg);
	assert_text(&r, "1:tx\n2:y z\n");
	assert_string_equal(r.attrs, "a b=c,d;e=;f=;");
	assert_true(r.last_ns == 1767323045000000007);
	done(&r);
}

static void test_log_errors(void **state) /* X96 */
{
	struct env *e = *state;
	struct json_object *body = json_tokener_parse(
		"{\"Image\":\"bb:1\",\"HostConfig\":{\"LogConfig\":{\"Type\":\"none\"}}}");
	struct engine_log_options neither = {.tail = -1};
	struct engine_call *c;
	struct reader r = {0}, q = {0}, n = {0}, m = {0};

	testengine_container_make(e->te, "mute", body, true);
	json_object_put(body);
	read_log(e, &r, "mute", neither);
	AWAIT(e->loop, r.n_end);
	assert_int_equal(r.err.code, 501);
	read_log(e, &q, "nope", neither);
	AWAIT(e->loop, q.n_end);
	assert_int_equal(q.err.code, 404);
	c = engine_logs(e->e, "mute", &neither, on_record, on_end, &n);
	engine_logs_resume(c); /* harmless */
	AWAIT(e->loop, n.n_end);
	assert_int_equal(n.err.cls, SW_REJECTED);
	read_log(e, &m, "", neither);
	AWAIT(e->loop, m.n_end);
	assert_int_equal(m.err.cls, SW_REJECTED);
}

static void test_log_cut(void **state)
{
	struct env *e = *state;
	struct engine_log_options follow = {.tail = -1, .follow = true};
	struct reader r = {0};

	make(e, "c", "x", false, true);
	testengine_log(e->te, "c", 1, "one\n", 4);
	read_log(e, &r, "c", follow);
	AWAIT(e->loop, r.n == 1);
	testengine_drop_connections(e->te);
	AWAIT(e->loop, r.n_end);
	assert_int_equal(r.err.cls, SW_TEMPORARY);
	assert_int_equal(r.err.code, -ECONNRESET);
	done(&r);
}

static void test_hostile_frames(void **state) /* X99 */
{
#define HEAD "\x01\0\0\0\0\0\0"
	static const struct {
		const char *p;
		size_t n;
		const char *say;
	} cases[] = {
		{"\x01\0\0\0\xff\xff\xff\xff", 8, "longer"},
		{"\x09\0\0\0\0\0\0\x01x", 9, "frame header"},
		{"\x01\0\x01\0\0\0\0\x01x", 9, "frame header"},
		{"\x01\0\0", 3, "within a frame header"},
		{"\x01\0\0\0\0\0\0\x05"
		 "ab",
			10, "within a frame"},
		{"\x01\0\0\0\0\0\0\x04"
		 "abcd",
			12, "time stamp"},
		{"\x01\0\0\0\0\0\0\x00", 8, "time stamp"},
		{"\x03\0\0\0\0\0\0\x18"
		 "Error grabbing logs: EOF\n",
			33, "Error grabbing logs: EOF"},
	};
	struct env *e = *state;

	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		struct testengine_fault f = {.match = "GET /containers/*/logs*",
			.status = 200,
			.body = cases[i].p,
			.body_len = cases[i].n};
		struct reader r = {0};

		testengine_fault_add(e->te, &f);
		read_log(e, &r, "x", (struct engine_log_options){.tail = -1});
		AWAIT(e->loop, r.n_end);
		assert_int_equal(r.n, 0);
		assert_true(r.err.cls != SW_OK);
		if (!strstr(r.err.msg, cases[i].say))
			fail_msg("case %zu: %s", i, r.err.msg);
		testengine_fault_clear(e->te);
		done(&r);
	}
}

static void test_tty(void **state) /* X95 */
{
	struct env *e = *state;

	for (size_t split = 0; split < 3; split++) {
		struct testengine_fault f = {.match = "GET /containers/*/logs*", .split = split};
		sw_auto_free char *name = xasprintf("t%zu", split);
		struct reader r = {0};
		char *lines = xcalloc(1, 40000);

		testengine_fault_add(e->te, &f);
		make(e, name, "x", true, true);
		testengine_log(e->te, name, 1, "one\n", 4);
		memset(lines, 'x', 33000); /* comes in three parts, each with its stamp */
		lines[33000] = '\n';
		testengine_log(e->te, name, 1, lines, 33001);
		testengine_log(e->te, name, 2, "end\n", 4);
		read_log(e, &r, name, (struct engine_log_options){.tail = -1, .tty = true});
		AWAIT(e->loop, r.n_end);
		if (r.err.cls != SW_OK)
			fail_msg("%s", r.err.msg);
		assert_int_equal(r.n, 5);
		assert_int_equal(r.bytes, 5 + 33002 + 5);
		done(&r);
		free(lines);
		testengine_fault_clear(e->te);
	}
}

static void test_podman_logs(void **state)
{
	static const char body[] = "\x01\0\0\0\0\0\0\x19"
				   "2026-01-02T03:04:05Z hey\n";
	struct env *e = *state;
	struct testengine_fault f = {.match = "GET /containers/*/logs*",
		.status = 200,
		.body = body,
		.body_len = sizeof(body) - 1};
	struct reader r = {0};
	bool known = false;

	testengine_fault_add(e->te, &f);
	engine_info(e->e, negotiated_ping, &known);
	AWAIT(e->loop, known);
	read_log(e, &r, "x", (struct engine_log_options){.tail = -1});
	AWAIT(e->loop, r.n_end);
	if (r.err.cls != SW_OK)
		fail_msg("%s", r.err.msg);
	assert_text(&r, "1:hey\n");
	done(&r);
}

/* X98: a slow reader holds the engine back, nothing is lost and little is stored on our side. */
static void test_back_pressure(void **state)
{
	enum { LINES = 20000, LEN = 500 };
	struct env *e = *state;
	struct reader r = {.stop_every = 100};
	char line[LEN];
	size_t blocks = 0;

	make(e, "c", "x", false, true);
	memset(line, 'l', sizeof(line));
	line[LEN - 1] = '\n';
	for (int i = 0; i < LINES; i++)
		testengine_log(e->te, "c", 1, line, LEN);
	read_log(e, &r, "c", (struct engine_log_options){.tail = -1});
	for (int stops = 1; !r.n_end; stops++) {
		AWAIT(e->loop, r.n == stops * 100 || r.n_end);
		if (stops % 20 == 0)
			rounds(e, 20);
		assert_true(r.n <= stops * 100); /* silence while paused */
		chain_done(&r.text);
		if (block_count() > blocks)
			blocks = block_count();
		if (!r.n_end)
			engine_logs_resume(r.c);
	}
	assert_int_equal(r.n, LINES);
	assert_int_equal(r.bytes, (size_t)LINES * LEN);
	assert_int_equal(r.err.cls, SW_OK);
	assert_true(blocks <= 8);
	done(&r);
}

static void test_logs_cancel(void **state)
{
	struct env *e = *state;
	struct reader r = {.cancel_at = 2}, p = {.stop_every = 1};

	make(e, "c", "x", false, true);
	testengine_log(e->te, "c", 1, "1\n2\n3\n", 6);
	read_log(e, &r, "c", (struct engine_log_options){.tail = -1});
	AWAIT(e->loop, r.n == 2);
	rounds(e, 20);
	assert_int_equal(r.n, 2);
	assert_int_equal(r.n_end, 0);
	/* while paused, after resume, before its round */
	read_log(e, &p, "c", (struct engine_log_options){.tail = -1});
	AWAIT(e->loop, p.n == 1);
	engine_logs_resume(p.c);
	engine_call_cancel(p.c);
	rounds(e, 20);
	assert_int_equal(p.n, 1);
	done(&r);
	done(&p);
}

#define T(f)     cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TW(f, s) cmocka_unit_test_setup_teardown(f, s, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_splitting),
		T(test_filters),
		T(test_since),
		T(test_same_nanosecond),
		T(test_restart),
		T(test_never_up),
		T(test_hostile_events),
		T(test_silence),
		T(test_events_cancel),
		TW(test_podman_events, setup_podman),
		T(test_logs),
		T(test_log_details),
		T(test_log_errors),
		T(test_log_cut),
		T(test_hostile_frames),
		T(test_tty),
		TW(test_podman_logs, setup_podman),
		T(test_back_pressure),
		T(test_logs_cancel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
