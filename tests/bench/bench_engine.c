/* Requests per second over a unix socket: curl's blocking easy interface as the measure, then the
 * http room and the engine client on top of it, one after the other and eight at once. The server
 * (the test engine, on a thread of its own) costs the same in all of them. */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/err.h>
#include <swarm/http.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

#include "testengine.h"

static char *sock;

/* ---- server */

static struct {
	uv_thread_t thread;
	uv_async_t stop;
	uv_sem_t ready;
	struct testengine *te;
} server;

static void on_stop(uv_async_t *a)
{
	testengine_close(server.te, NULL, NULL);
	uv_close((uv_handle_t *)a, NULL);
}

static void serve(void *arg)
{
	struct testengine_config cfg = {.socket_path = sock};
	struct sw_loop *l;
	struct sw_err err;

	(void)arg;
	if (sw_loop_new(&l, &err) < 0 || testengine_new(&server.te, l, &cfg, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err.msg);
		exit(1);
	}
	uv_async_init(sw_loop_uv(l), &server.stop, on_stop);
	uv_sem_post(&server.ready);
	sw_loop_run(l);
	sw_loop_free(l);
}

/* ---- clients */

struct run {
	struct sw_loop *loop;
	struct http *http;
	struct engine *e;
	unsigned left, flying, at_once;
	bool closed;
};

static void next(struct run *r);

static void finished(struct run *r)
{
	r->flying--;
	next(r);
}

static void on_done(void *arg, int status, const struct sw_err *err)
{
	if (err || status != 200)
		abort();
	finished(arg);
}

static void on_networks(void *arg, struct json_object *o, const struct sw_err *err)
{
	if (err || !o)
		abort();
	finished(arg);
}

static void next(struct run *r)
{
	static const struct http_events ev = {.done = on_done};
	static const struct http_request req = {
		.method = "GET", .path = "/v1.41/networks/bridge", .total_ns = sw_s(30)};

	while (r->left && r->flying < r->at_once) {
		r->left--;
		r->flying++;
		if (r->http)
			http_start(r->http, &req, &ev, r);
		else
			engine_network_inspect(r->e, "bridge", on_networks, r);
	}
}

static void on_closed(void *arg)
{
	((struct run *)arg)->closed = true;
}

static double run(bool engine, unsigned n, unsigned at_once)
{
	sw_auto_free char *host = xasprintf("unix://%s", sock);
	struct http_config hc = {.unix_path = sock, .base_url = "http://localhost"};
	struct engine_config ec = {.host = host};
	struct run r = {.left = n, .at_once = at_once};
	uint64_t start;
	double s;

	if (sw_loop_new(&r.loop, NULL) < 0 || (engine ? engine_new(&r.e, r.loop, &ec, NULL)
						      : http_new(&r.http, r.loop, &hc, NULL)) < 0)
		abort();
	start = uv_hrtime();
	next(&r);
	while (r.left || r.flying)
		sw_loop_once(r.loop, true);
	s = (double)(uv_hrtime() - start) / 1e9;
	http_close(r.http, on_closed, &r);
	engine_close(r.e, on_closed, &r);
	while (!r.closed)
		sw_loop_once(r.loop, true);
	if (sw_loop_free(r.loop) < 0)
		abort();
	return n / s;
}

static size_t sink(char *p, size_t size, size_t n, void *arg)
{
	(void)p;
	(void)arg;
	return size * n;
}

static double easy(unsigned n)
{
	CURL *c = curl_easy_init();
	uint64_t start = uv_hrtime();

	curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, sock);
	curl_easy_setopt(c, CURLOPT_URL, "http://localhost/v1.41/networks/bridge");
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, sink);
	for (unsigned i = 0; i < n; i++)
		if (curl_easy_perform(c) != CURLE_OK)
			abort();
	curl_easy_cleanup(c);
	return n / ((double)(uv_hrtime() - start) / 1e9);
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 && strcmp(argv[1], "--quick") == 0 ? 300 : 20000;
	char dir[] = "/tmp/sw-bench-XXXXXX";
	double base;

	if (!mkdtemp(dir))
		return 1;
	sock = xasprintf("%s/sock", dir);
	uv_sem_init(&server.ready, 0);
	uv_thread_create(&server.thread, serve, NULL);
	uv_sem_wait(&server.ready);
	base = easy(n);
	printf("%-28s %8.0f/s\n", "curl easy, blocking", base);
	for (unsigned i = 0; i < 4; i++) {
		double v = run(i & 1, n, i < 2 ? 1 : 8);

		printf("%-7s %-20s %8.0f/s  %.2f\n", i & 1 ? "engine" : "http",
			i < 2 ? "one after the other" : "eight at once", v, v / base);
	}
	uv_async_send(&server.stop);
	uv_thread_join(&server.thread);
	uv_sem_destroy(&server.ready);
	unlink(sock);
	rmdir(dir);
	free(sock);
	return 0;
}
