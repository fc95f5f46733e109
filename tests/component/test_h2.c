/* Connections and streams against the test server: dialling, TLS, HTTP/2, flow control, ends. */
#include "h2pair.h"
#include "h2server.h"
#include "looptest.h"
#include "test.h"
#include "testca.h"
#include <errno.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <swarm/chain.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/tls.h>
#include <sys/socket.h>

/* --- streams of the client ----------------------------------------------------------------------
 */

struct req {
	struct h2_stream *s;
	struct chain body;
	unsigned n_heads, n_trailers, n_writable;
	bool hold; /* gives nothing back to the window */
	bool done, failed;
	uint32_t code;
	char status[8], grpc_status[8];
	struct sw_err err;
	size_t total;
	void (*on_head)(struct req *r);
	void *arg;
};

static void on_headers(void *arg, const struct h2_header *h, size_t n, bool trailers, bool end)
{
	struct req *r = arg;

	(void)end;
	for (size_t i = 0; i < n; i++) {
		if (sw_streq(h[i].name, ":status"))
			snprintf(r->status, sizeof(r->status), "%s", h[i].value);
		if (sw_streq(h[i].name, "grpc-status"))
			snprintf(r->grpc_status, sizeof(r->grpc_status), "%s", h[i].value);
	}
	if (trailers)
		r->n_trailers++;
	else
		r->n_heads++;
	if (r->on_head)
		r->on_head(r);
}

static void on_data(void *arg, struct chain *data, bool end)
{
	struct req *r = arg;

	(void)end;
	r->total += chain_len(data);
	if (r->hold)
		chain_append_chain(&r->body, data);
	else
		h2_stream_consumed(r->s, chain_len(data));
}

static void on_writable(void *arg)
{
	((struct req *)arg)->n_writable++;
}

static void on_closed(void *arg, uint32_t code, const struct sw_err *err)
{
	struct req *r = arg;

	assert_false(r->done);
	r->done = true;
	r->failed = err != NULL;
	r->code = code;
	r->s = NULL;
	sw_err_copy(&r->err, err);
}

static const struct h2_stream_events stream_events = {on_headers, on_data, on_writable, on_closed};

static void request_n(struct env *e, struct req *r, const char *path, size_t body)
{
	struct chain c = {0};
	struct h2_header h[] = {{"content-type", "application/grpc"}, {"te", "trailers"}};
	uint8_t prefix[5] = {0, (uint8_t)(body >> 24), (uint8_t)(body >> 16), (uint8_t)(body >> 8),
		(uint8_t)body};
	char *bytes = xcalloc(1, body + 1);

	assert_int_equal(chain_append(&c, prefix, 5), 0);
	assert_int_equal(chain_append(&c, bytes, body), 0);
	free(bytes);
	r->s = h2_stream_open(e->cl.c, path, h, 2, &c, &stream_events, r);
	assert_non_null(r->s);
	assert_int_equal(chain_len(&c), 0);
}

static void request(struct env *e, struct req *r, const char *path)
{
	request_n(e, r, path, 3);
}

static void request_open(struct env *e, struct req *r, const char *path)
{
	struct h2_header h[] = {{"content-type", "application/grpc"}, {"te", "trailers"}};

	r->s = h2_stream_open(e->cl.c, path, h, 2, NULL, &stream_events, r);
	assert_non_null(r->s);
}

/* --- handlers of the server ---------------------------------------------------------------------
 */

static void echo_message(void *arg, struct h2s_stream *st, const uint8_t *m, size_t n)
{
	(void)arg;
	h2s_send(st, m, n);
}

static void echo_end(void *arg, struct h2s_stream *st)
{
	(void)arg;
	h2s_end(st, 0, NULL);
}

static const struct h2s_handler echo = {.message = echo_message, .end = echo_end};

static void count_closed(void *arg, struct h2s_stream *st, uint32_t code)
{
	(void)st;
	(void)code;
	++*(unsigned *)arg;
}

/* answers with as many bytes as its argument says, then status 0 */
static void big_end(void *arg, struct h2s_stream *st)
{
	size_t n = *(size_t *)arg;
	uint8_t *p = xcalloc(1, n);

	h2s_send_raw(st, p, n);
	h2s_end(st, 0, NULL);
	free(p);
}

/* --- dialling -----------------------------------------------------------------------------------
 */

static void malformed_address_is_refused_at_once(void **state)
{
	struct env *e = *state;
	static const char *const bad[] = {"", ":", "host", "host:", "host:0", "host:65536",
		"host:12x", ":2377", "::1:2377", "[::1:2377", "[]:2377", "a b:2377", "host:-1",
		"[::1]", "host:99999999999999999999999", "http://host:2377"};

	e->creds = creds_of(testca_pem(e->ca), NULL, NULL, "swarm-manager");
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		struct h2_conn *c = NULL;
		struct sw_err err = SW_ERR_NONE;

		if (h2_conn_new(&c, e->l, bad[i], e->creds, sw_s(1), &conn_events, NULL, &err) >= 0)
			fail_msg("\"%s\" was taken for an address", bad[i]);
		assert_null(c);
		assert_true(sw_err_is(&err, SW_REJECTED));
		assert_non_null(strstr(err.msg, "address"));
	}
}

static void names_and_numbers_are_dialled(void **state)
{
	struct env *e = *state;
	char addr[64];

	server(e);
	snprintf(addr, sizeof(addr), "localhost:%u", h2server_port(e->srv));
	dial_to(e, addr, GUARD_MS);
	assert_false(e->cl.ready);
	loop_until(e->l, &e->cl.ready, GUARD_MS);
	hang_up(e);
	dial_up(e);
	hang_up(e);
}

static void closed_port_is_an_error_from_the_loop(void **state)
{
	struct env *e = *state;

	server(e);
	h2server_listen(e->srv, false);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	assert_false(e->cl.closed);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
	assert_int_equal(e->cl.err.code, -ECONNREFUSED);
	assert_non_null(strstr(e->cl.err.msg, h2server_addr(e->srv)));
}

/* A listener whose queue is full drops SYNs: what a host that is gone looks like. */
static void black_hole_ends_with_the_timeout(void **state)
{
	struct env *e = *state;
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fill[8];
	char addr[32];

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	for (size_t i = 0; i < SW_ARRAY_LEN(fill); i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(fill[i], (struct sockaddr *)&sa, sizeof(sa));
	}
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", ntohs(sa.sin_port));
	dial_to(e, addr, 150);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
	assert_int_equal(e->cl.err.code, -ETIMEDOUT);
	/* closing while it still dials is silent about errors */
	dial_to(e, addr, GUARD_MS);
	loop_for(e->l, 10);
	hang_up(e);
	for (size_t i = 0; i < SW_ARRAY_LEN(fill); i++)
		close(fill[i]);
	close(fd);
}

static void silent_peer_ends_with_the_timeout(void **state)
{
	struct env *e = *state;

	e->cfg.accept_nothing = true;
	server(e);
	dial_to(e, h2server_addr(e->srv), 150);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_int_equal(e->cl.err.code, -ETIMEDOUT);
	assert_non_null(strstr(e->cl.err.msg, "handshake"));
}

static void close_at_every_moment_is_clean(void **state)
{
	struct env *e = *state;

	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	for (int rounds = 0; rounds < 30; rounds++) {
		struct req r = {0};

		dial_to(e, h2server_addr(e->srv), GUARD_MS);
		request(e, &r, "/x");
		for (int i = 0; i < rounds && !r.done; i++)
			sw_loop_once(e->l, true);
		if (r.done) {
			assert_false(r.failed);
		}
		hang_up(e);
		assert_true(r.done);
		if (r.failed) {
			assert_true(sw_err_is(&r.err, SW_CANCELLED));
		}
	}
}

/* --- TLS ----------------------------------------------------------------------------------------
 */

/* Trap 1: a manager that swapped its certificate in-process answers no ALPN. */
static void manager_without_alpn_is_served(void **state)
{
	struct env *e = *state;
	struct req r[3] = {{0}};
	struct h2_conn_info info;

	e->cfg.alpn = H2S_ALPN_SILENT;
	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	h2_conn_info(e->cl.c, &info);
	assert_false(info.alpn);
	/* one after the other: the second is the one that breaks elsewhere */
	for (size_t i = 0; i < SW_ARRAY_LEN(r); i++) {
		request(e, &r[i], "/x");
		loop_until(e->l, &r[i].done, GUARD_MS);
		assert_false(r[i].failed);
		assert_string_equal(r[i].grpc_status, "0");
	}
}

static void alpn_is_offered(void **state)
{
	struct env *e = *state;
	struct h2_conn_info info;

	server(e);
	dial_up(e);
	h2_conn_info(e->cl.c, &info);
	assert_true(info.alpn);
	assert_string_equal(info.tls_version, "TLSv1.3");
	assert_int_equal(info.n_streams, 0);
}

/* Trap 2. */
static void cross_signed_manager_is_accepted(void **state)
{
	struct env *e = *state;
	struct testca *new_ca = testca_new(NULL);
	char *key, *leaf = testca_manager(new_ca, "cluster", "m1", &key);
	char *cross = testca_cross(new_ca, e->ca), *chain = testca_concat(leaf, cross);
	struct req r = {0};

	e->cfg.cert_pem = chain;
	e->cfg.key_pem = key;
	e->cfg.alpn = H2S_ALPN_SILENT; /* they come together */
	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	request(e, &r, "/x");
	loop_until(e->l, &r.done, GUARD_MS);
	assert_false(r.failed);
	testca_free(new_ca);
	free(key);
	free(leaf);
	free(cross);
	free(chain);
}

/* Trap 3, on a live connection; and what identity arrives. */
static void docker_key_file_works(void **state)
{
	struct env *e = *state;
	const char *eol = strchr(e->wkey, '\n') + 1;
	char *docker = xasprintf("%.*skek-version: 0\n\n%s", (int)(eol - e->wkey), e->wkey, eol);

	server(e);
	e->creds = creds_of(testca_pem(e->ca), e->wcert, docker, "swarm-manager");
	dial_up(e);
	free(docker);
}

/* Trap 4: with both TLS versions every connection is a full handshake. The server offers tickets.
 */
static void sessions_are_never_resumed(void **state)
{
	struct env *e = *state;

	server(e);
	for (int i = 0; i < 6; i++) {
		struct req r = {0};

		if (i == 3) {
			e->cfg.tls12_only = true;
			h2server_configure(e->srv, &e->cfg);
		}
		dial_up(e);
		request(e, &r, "/x"); /* tickets come after the handshake: let them arrive */
		loop_until(e->l, &r.done, GUARD_MS);
		hang_up(e);
	}
	assert_int_equal(h2server_stats(e->srv)->handshakes, 6);
	assert_int_equal(h2server_stats(e->srv)->resumed, 0);
}

static void expect_refusal(struct env *e, int code)
{
	server(e);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_false(e->cl.ready);
	assert_true(sw_err_is(&e->cl.err, SW_REJECTED));
	assert_int_equal(e->cl.err.domain, SW_E_TLS);
	assert_int_equal(e->cl.err.code, code);
}

static void stranger_is_refused(void **state)
{
	struct env *e = *state;
	struct testca *other = testca_new(NULL);

	e->creds = creds_of(testca_pem(other), NULL, NULL, "swarm-manager");
	expect_refusal(e, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
	testca_free(other);
}

static void wrong_name_is_refused(void **state)
{
	struct env *e = *state;
	char *key, *cert = testca_worker(e->ca, "cluster", "w2", &key);

	e->cfg.cert_pem = cert; /* a worker that plays manager */
	e->cfg.key_pem = key;
	expect_refusal(e, X509_V_ERR_HOSTNAME_MISMATCH);
	free(cert);
	free(key);
}

/* The name in the subject does not count: any node's CN could be called so. */
static void name_in_the_subject_does_not_count(void **state)
{
	struct env *e = *state;
	char *key, *cert = testca_issue(e->ca,
			   &(struct testca_leaf){
				   .o = "c", .ou = "swarm-worker", .cn = "swarm-manager"},
			   &key);

	e->cfg.cert_pem = cert;
	e->cfg.key_pem = key;
	expect_refusal(e, X509_V_ERR_HOSTNAME_MISMATCH);
	free(cert);
	free(key);
}

static void expired_manager_is_refused(void **state)
{
	struct env *e = *state;
	char *key, *cert = testca_issue(e->ca,
			   &(struct testca_leaf){.cn = "m1",
				   .san = {"swarm-manager"},
				   .not_before_s = -7200,
				   .not_after_s = -60},
			   &key);

	e->cfg.cert_pem = cert;
	e->cfg.key_pem = key;
	expect_refusal(e, X509_V_ERR_CERT_HAS_EXPIRED);
	free(cert);
	free(key);
}

static void old_tls_is_refused(void **state)
{
	struct env *e = *state;

	e->cfg.tls11_only = true;
	server(e);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
	assert_non_null(strstr(e->cl.err.msg, "TLS handshake"));
}

/* The first call of a join verifies nothing. */
static void nothing_is_verified_without_roots(void **state)
{
	struct env *e = *state;

	server(e);
	e->creds = creds_of(NULL, NULL, NULL, "swarm-ca");
	dial_up(e);
}

/* With TLS 1.3 our side of the handshake is over before the server looks at our certificate. */
static void rejected_client_certificate_says_so(void **state)
{
	struct env *e = *state;
	struct testca *other = testca_new(NULL);
	char *key, *cert = testca_worker(other, "cluster", "w1", &key);

	server(e);
	e->creds = creds_of(testca_pem(e->ca), cert, key, "swarm-manager");
	for (int tls12 = 0; tls12 <= 1; tls12++) {
		struct req r = {0};

		e->cfg.tls12_only = tls12;
		h2server_configure(e->srv, &e->cfg);
		dial_to(e, h2server_addr(e->srv), GUARD_MS);
		request(e, &r, "/x"); /* opened early: it must end as well */
		loop_until(e->l, &e->cl.closed, GUARD_MS);
		assert_false(e->cl.ready);
		assert_true(r.done && r.failed);
		assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
		assert_non_null(strstr(e->cl.err.msg, "accept our certificate"));
	}
	testca_free(other);
	free(cert);
	free(key);
}

static void bare_end_after_the_handshake_is_explained(void **state)
{
	struct env *e = *state;

	e->cfg.close_after_tls = true;
	server(e);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
	assert_non_null(strstr(e->cl.err.msg, "accept our certificate"));
}

/* --- HTTP/2 -------------------------------------------------------------------------------------
 */

static void other_protocols_are_named(void **state)
{
	struct env *e = *state;

	e->cfg.garbage_after_tls = true;
	server(e);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
	assert_false(e->cl.ready);
}

static void lost_connection_ends_its_streams(void **state)
{
	struct env *e = *state;
	struct req r = {0};
	unsigned n = 0;
	struct h2s_handler h = {.closed = count_closed};

	server(e);
	h2server_handle(e->srv, NULL, &h, &n);
	dial_up(e);
	request_open(e, &r, "/x");
	h2_stream_send(r.s, &(struct chain){0}, true);
	while (h2server_stats(e->srv)->streams == 0)
		sw_loop_once(e->l, true);
	h2server_drop_all(e->srv);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(r.done && r.failed);
	assert_true(sw_err_is(&r.err, SW_TEMPORARY));
	assert_true(e->cl.failed);
}

static void garbage_open(void *arg, struct h2s_stream *st)
{
	(void)arg;
	h2s_send(st, "x", 1);
	h2s_conn_garbage(h2s_conn_of(st));
}

static void frames_that_are_none_end_the_connection(void **state)
{
	struct env *e = *state;
	struct req r = {0};
	struct h2s_handler h = {.open = garbage_open};

	server(e);
	h2server_handle(e->srv, NULL, &h, NULL);
	dial_up(e);
	request(e, &r, "/x");
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(r.done && r.failed);
	assert_non_null(strstr(e->cl.err.msg, "HTTP/2"));
}

static void bytes_may_come_one_by_one(void **state)
{
	struct env *e = *state;
	struct req r = {0};
	size_t n = 3000;
	struct h2s_handler h = {.end = big_end};

	e->cfg.split_bytes = true;
	server(e);
	h2server_handle(e->srv, NULL, &h, &n);
	dial_up(e);
	request(e, &r, "/x");
	loop_until(e->l, &r.done, GUARD_MS);
	assert_false(r.failed);
	assert_int_equal(r.total, n);
	assert_int_equal(r.n_heads, 1);
	assert_int_equal(r.n_trailers, 1);
}

static void many_streams_share_a_connection(void **state)
{
	struct env *e = *state;
	enum { N = 200 };
	struct req *r = xcalloc(N, sizeof(*r));

	e->cfg.max_streams = 50; /* the rest waits its turn */
	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	for (int i = 0; i < N; i++)
		request_n(e, &r[i], "/x", (size_t)i * 97);
	for (int i = 0; i < N; i++) {
		loop_until(e->l, &r[i].done, GUARD_MS);
		assert_false(r[i].failed);
		assert_int_equal(r[i].total, (size_t)i * 97 + 5);
		assert_string_equal(r[i].grpc_status, "0");
	}
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	assert_int_equal(h2server_stats(e->srv)->streams_total, N);
	assert_int_equal(h2server_stats(e->srv)->accepted, 1);
	assert_int_equal(h2server_stats(e->srv)->resets, 0);
	free(r);
}

static bool saw_ack(void *arg)
{
	return h2server_stats(arg)->ping_acks >= 1;
}

static void ping_open(void *arg, struct h2s_stream *st)
{
	(void)arg;
	h2s_conn_ping(h2s_conn_of(st));
}

static void pings_are_answered_and_never_sent(void **state)
{
	struct env *e = *state;
	struct req r = {0};
	struct h2s_handler h = {.open = ping_open};

	server(e);
	h2server_handle(e->srv, NULL, &h, NULL);
	dial_up(e);
	request(e, &r, "/x");
	loop_until_fn(e->l, saw_ack, e->srv, GUARD_MS);
	assert_int_equal(h2server_stats(e->srv)->pings, 0);
	h2_stream_cancel(r.s);
}

static bool all_acks(void *arg)
{
	return h2server_stats(arg)->ping_acks >= 20000;
}

static void burst_of_pings_is_survived(void **state)
{
	struct env *e = *state;
	struct req r = {0};

	e->cfg.ping_flood = 20000;
	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	loop_until_fn(e->l, all_acks, e->srv, GUARD_MS);
	request(e, &r, "/x");
	loop_until(e->l, &r.done, GUARD_MS);
	assert_false(r.failed);
}

/* A peer that floods and does not read what we answer is dropped: acknowledgements do not pile up.
 */
static void flood_without_reading_ends_the_connection(void **state)
{
	struct env *e = *state;

	e->cfg.ping_flood = 4000000;
	e->cfg.never_read = true;
	server(e);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
	assert_non_null(strstr(e->cl.err.msg, "HTTP/2"));
}

static void flood_of_settings_ends_it_too(void **state)
{
	struct env *e = *state;

	e->cfg.settings_flood = 4000000;
	e->cfg.never_read = true;
	server(e);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(sw_err_is(&e->cl.err, SW_TEMPORARY));
	assert_non_null(strstr(e->cl.err.msg, "HTTP/2"));
}

static void goaway_open(void *arg, struct h2s_stream *st)
{
	(void)arg;
	h2s_conn_goaway(h2s_conn_of(st), 11, "too_many_pings");
}

static void goaway_lets_open_streams_finish(void **state)
{
	struct env *e = *state;
	struct req r = {0}, later = {0};
	struct h2s_handler h = {.open = goaway_open, .message = echo_message};

	server(e);
	h2server_handle(e->srv, NULL, &h, NULL);
	h2server_handle(e->srv, "/echo", &echo, NULL);
	dial_up(e);
	request_open(e, &r, "/x");
	loop_until(e->l, &e->cl.goaway, GUARD_MS);
	assert_false(r.done);
	assert_null(h2_stream_open(e->cl.c, "/x", NULL, 0, NULL, &stream_events, &later));
	assert_false(later.done);
	/* the server ends it by closing: the reason is told */
	h2server_drop_all(e->srv);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_true(r.failed);
	assert_non_null(strstr(e->cl.err.msg, "too_many_pings"));
}

static void reset_open(void *arg, struct h2s_stream *st)
{
	h2s_reset(st, *(uint32_t *)arg);
}

static void resets_carry_their_code(void **state)
{
	struct env *e = *state;
	uint32_t code;
	struct h2s_handler h = {.open = reset_open};

	server(e);
	h2server_handle(e->srv, NULL, &h, &code);
	dial_up(e);
	for (code = 1; code <= 13; code++) {
		struct req r = {0};

		request(e, &r, "/x");
		loop_until(e->l, &r.done, GUARD_MS);
		assert_true(r.failed);
		assert_int_equal(r.code, code);
	}
	assert_false(e->cl.closed);
}

static void early_end(void *arg, struct h2s_stream *st, const uint8_t *m, size_t n)
{
	(void)arg;
	h2s_reply(st, m, n);
}

/* Trap 10: the server finishes while we still send. Trailers, then RST_STREAM NO_ERROR. */
static void server_may_end_first(void **state)
{
	struct env *e = *state;
	struct h2s_handler h = {.message = early_end};

	server(e);
	h2server_handle(e->srv, "/early", &h, NULL);
	h2server_handle(e->srv, NULL, &echo, NULL);
	for (int quiet = 0; quiet <= 1; quiet++) {
		struct req r = {0}, other = {0}, after = {0};
		struct chain c = {0};

		e->cfg.no_half_close_reset = quiet;
		h2server_configure(e->srv, &e->cfg);
		dial_up(e);
		request_open(e, &other, "/other");
		request_open(e, &r, "/early");
		assert_int_equal(chain_append(&c, "\0\0\0\0\1x", 6), 0);
		h2_stream_send(r.s, &c, false);
		loop_until(e->l, &r.done, GUARD_MS);
		assert_false(r.failed);
		assert_string_equal(r.grpc_status, "0");
		/* the connection and its other streams live on */
		request(e, &after, "/x");
		loop_until(e->l, &after.done, GUARD_MS);
		assert_false(after.failed);
		assert_int_equal(chain_append(&c, "\0\0\0\0\1y", 6), 0);
		h2_stream_send(other.s, &c, true);
		loop_until(e->l, &other.done, GUARD_MS);
		assert_false(other.failed);
		assert_int_equal(other.total, 6);
		loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
		hang_up(e);
	}
}

/* A body that stands before a closed window, and the server ends: trailers arrive all the same. */
static void server_may_end_while_we_are_blocked(void **state)
{
	struct env *e = *state;
	struct req r = {0};
	struct h2s_handler h = {.open = echo_end};

	e->cfg.hold_windows = true;
	server(e);
	h2server_handle(e->srv, NULL, &h, NULL);
	dial_up(e);
	request_n(e, &r, "/x", 1u << 20);
	loop_until(e->l, &r.done, GUARD_MS);
	assert_false(r.failed);
	assert_string_equal(r.grpc_status, "0");
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
}

static void headers_end(void *arg, struct h2s_stream *st)
{
	size_t n = *(size_t *)arg;
	char *big = xcalloc(1, n + 1);

	memset(big, 'a', n);
	h2s_end_with(st, (const char *const[]){":status", "200", "content-type", "application/grpc",
				 "grpc-message", big, "grpc-status", "3", NULL});
	free(big);
}

static void header_blocks_are_limited(void **state)
{
	struct env *e = *state;
	struct req r = {0}, ok = {0};
	size_t n = 50000;
	struct h2s_handler h = {.end = headers_end};

	server(e);
	h2server_handle(e->srv, NULL, &h, &n);
	dial_up(e);
	request(e, &ok, "/x");
	loop_until(e->l, &ok.done, GUARD_MS);
	assert_false(ok.failed);
	n = 70000; /* several CONTINUATION frames */
	request(e, &r, "/x");
	while (!r.done && !e->cl.closed)
		sw_loop_once(e->l, true);
	assert_true(r.done && r.failed);
}

static void many_end(void *arg, struct h2s_stream *st)
{
	const char *nv[2 * 200 + 5];
	size_t n = 0;

	(void)arg;
	nv[n++] = ":status";
	nv[n++] = "200";
	for (int i = 0; i < 200; i++) {
		nv[n++] = "x-more";
		nv[n++] = "1";
	}
	nv[n] = NULL;
	h2s_end_with(st, nv);
}

static void number_of_headers_is_limited(void **state)
{
	struct env *e = *state;
	struct req r = {0}, ok = {0};
	struct h2s_handler h = {.end = many_end};

	server(e);
	h2server_handle(e->srv, "/many", &h, NULL);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	request(e, &r, "/many");
	loop_until(e->l, &r.done, GUARD_MS);
	assert_true(r.failed);
	assert_non_null(strstr(r.err.msg, "headers"));
	request(e, &ok, "/x"); /* only that stream was reset */
	loop_until(e->l, &ok.done, GUARD_MS);
	assert_false(ok.failed);
}

/* --- flow control -------------------------------------------------------------------------------
 */

static void large_bodies_both_ways(void **state)
{
	struct env *e = *state;
	struct req r = {0}, up = {0};
	size_t n = 64u << 20;
	struct h2s_handler h = {.end = big_end};

	server(e);
	h2server_handle(e->srv, "/big", &h, &n);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	request(e, &r, "/big");
	loop_until(e->l, &r.done, GUARD_MS);
	assert_false(r.failed);
	assert_int_equal(r.total, n);
	request_n(e, &up, "/echo", 8u << 20);
	loop_until(e->l, &up.done, GUARD_MS);
	assert_false(up.failed);
	assert_int_equal(up.total, (8u << 20) + 5);
}

struct pair {
	struct req *r;
	size_t at_least;
};

static bool got_bytes(void *arg)
{
	struct pair *p = arg;

	return p->r->total >= p->at_least;
}

static void paused_consumer_stops_its_stream_only(void **state)
{
	struct env *e = *state;
	struct req slow = {.hold = true}, other[20] = {{0}};
	size_t n = 8u << 20, before;
	struct h2s_handler h = {.end = big_end};

	server(e);
	h2server_handle(e->srv, "/big", &h, &n);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	request(e, &slow, "/big");
	loop_until_fn(e->l, got_bytes, &(struct pair){&slow, 1u << 20}, GUARD_MS);
	/* the window is full: nothing more comes, whatever else flows */
	for (size_t i = 0; i < SW_ARRAY_LEN(other); i++) {
		request_n(e, &other[i], "/x", 100000);
		loop_until(e->l, &other[i].done, GUARD_MS);
		assert_false(other[i].failed);
	}
	assert_int_equal(slow.total, 1u << 20);
	assert_int_equal(chain_len(&slow.body), 1u << 20);
	/* half a window given back brings as much again */
	before = slow.total;
	chain_drain(&slow.body, 1u << 19);
	h2_stream_consumed(slow.s, 1u << 19);
	loop_until_fn(e->l, got_bytes, &(struct pair){&slow, before + (1u << 19)}, GUARD_MS);
	slow.hold = false;
	h2_stream_consumed(slow.s, chain_len(&slow.body));
	chain_done(&slow.body);
	loop_until(e->l, &slow.done, GUARD_MS);
	assert_false(slow.failed);
	assert_int_equal(slow.total, n);
}

/* What was received for a stream that is cancelled goes back to the connection's window: more than
 * the whole window passes through cancelled streams here. */
static void cancelled_streams_give_their_window_back(void **state)
{
	struct env *e = *state;
	size_t n = 2u << 20;
	struct h2s_handler h = {.end = big_end};
	struct req last = {0};

	server(e);
	h2server_handle(e->srv, NULL, &h, &n);
	dial_up(e);
	for (int i = 0; i < 80; i++) {
		struct req r = {.hold = true};

		request(e, &r, "/big");
		loop_until_fn(e->l, got_bytes, &(struct pair){&r, 1u << 20}, GUARD_MS);
		if (i % 2) {
			h2_stream_cancel(r.s);
		} else { /* cancelled with data on the way */
			h2_stream_consumed(r.s, 1u << 20);
			h2_stream_cancel(r.s);
		}
		chain_done(&r.body);
		assert_false(r.done);
	}
	request(e, &last, "/big");
	loop_until(e->l, &last.done, GUARD_MS);
	assert_false(last.failed);
	assert_int_equal(last.total, n);
}

static void sender_is_told_to_wait(void **state)
{
	struct env *e = *state;
	struct req r = {0};
	struct chain c = {0};
	static const char zeros[100000];
	uint8_t prefix[5] = {0, 0, 0x1e, 0x84, 0x80}; /* 2,000,000 */
	bool go = false;
	size_t sent = 0;

	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	request_open(e, &r, "/x");
	assert_int_equal(chain_append(&c, prefix, 5), 0);
	assert_true(h2_stream_send(r.s, &c, false));
	while (sent < 2000000) {
		unsigned before = r.n_writable;

		assert_int_equal(chain_append(&c, zeros, sizeof(zeros)), 0);
		sent += sizeof(zeros);
		go = h2_stream_send(r.s, &c, sent == 2000000);
		assert_false(go); /* 100,000 are above the limit */
		assert_int_equal(r.n_writable, before);
		while (sent < 2000000 && r.n_writable == before)
			sw_loop_once(e->l, true);
	}
	loop_until(e->l, &r.done, GUARD_MS);
	assert_false(r.failed);
	assert_int_equal(r.total, 2000005);
}

static void tiny_windows_are_enough(void **state)
{
	struct env *e = *state;
	struct req r = {0};

	e->cfg.stream_window = 10;
	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	request_n(e, &r, "/x", 2000);
	loop_until(e->l, &r.done, GUARD_MS);
	assert_false(r.failed);
	assert_int_equal(r.total, 2005);
}

/* --- cancel -------------------------------------------------------------------------------------
 */

static void cancel_in_head(struct req *r)
{
	h2_stream_cancel(r->s);
	r->s = NULL;
}

static void cancel_is_silence_at_any_moment(void **state)
{
	struct env *e = *state;
	struct req ok = {0};
	struct req a = {0}, b = {0}, c = {.on_head = cancel_in_head};
	unsigned n_closed = 0;
	struct h2s_handler h = {.closed = count_closed, .message = echo_message};

	server(e);
	h2server_handle(e->srv, "/hold", &h, &n_closed);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	request(e, &a, "/hold");
	h2_stream_cancel(a.s); /* before there is a connection */
	loop_until(e->l, &e->cl.ready, GUARD_MS);
	request(e, &a, "/hold");
	h2_stream_cancel(a.s); /* before it is sent */
	request(e, &b, "/hold");
	loop_until_fn(e->l, got_bytes, &(struct pair){&b, 1}, GUARD_MS);
	h2_stream_cancel(b.s);   /* in the middle */
	request(e, &c, "/hold"); /* inside a callback */
	while (c.n_heads == 0)
		sw_loop_once(e->l, true);
	request(e, &ok, "/x");
	loop_until(e->l, &ok.done, GUARD_MS);
	assert_false(ok.failed);
	assert_int_equal(c.n_heads, 1);
	assert_int_equal(a.n_heads + a.n_trailers, 0);
	assert_false(a.done || b.done || c.done);
	assert_int_equal(n_closed, h2server_stats(e->srv)->resets);
	assert_in_range(n_closed, 2, 4);
	h2_stream_cancel(NULL);
}

static void close_in_head(struct req *r)
{
	h2_conn_close(r->arg);
	h2_conn_close(r->arg);
}

static void connection_may_be_closed_in_a_callback(void **state)
{
	struct env *e = *state;
	struct req r = {.on_head = close_in_head}, other = {0};

	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	r.arg = e->cl.c;
	request_open(e, &other, "/x");
	request(e, &r, "/x");
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_false(e->cl.failed);
	assert_true(r.done && sw_err_is(&r.err, SW_CANCELLED));
	assert_true(other.done && sw_err_is(&other.err, SW_CANCELLED));
	assert_int_equal(r.total, 0); /* silence after the close */
}

static void open_in_head(struct req *r)
{
	struct env *e = r->arg;
	static struct req again;

	r->on_head = NULL;
	again = (struct req){0};
	request(e, &again, "/x");
	h2_stream_cancel(again.s);
	again = (struct req){0};
	request(e, &again, "/x");
	r->arg = &again;
}

static void streams_may_be_opened_in_a_callback(void **state)
{
	struct env *e = *state;
	struct req r = {.on_head = open_in_head, .arg = e}, *again;

	server(e);
	h2server_handle(e->srv, NULL, &echo, NULL);
	dial_up(e);
	request(e, &r, "/x");
	loop_until(e->l, &r.done, GUARD_MS);
	again = r.arg;
	loop_until(e->l, &again->done, GUARD_MS);
	assert_false(again->failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(malformed_address_is_refused_at_once),
		T(names_and_numbers_are_dialled),
		T(closed_port_is_an_error_from_the_loop),
		T(black_hole_ends_with_the_timeout),
		T(silent_peer_ends_with_the_timeout),
		T(close_at_every_moment_is_clean),
		T(manager_without_alpn_is_served),
		T(alpn_is_offered),
		T(cross_signed_manager_is_accepted),
		T(docker_key_file_works),
		T(sessions_are_never_resumed),
		T(stranger_is_refused),
		T(wrong_name_is_refused),
		T(name_in_the_subject_does_not_count),
		T(expired_manager_is_refused),
		T(old_tls_is_refused),
		T(nothing_is_verified_without_roots),
		T(rejected_client_certificate_says_so),
		T(bare_end_after_the_handshake_is_explained),
		T(other_protocols_are_named),
		T(lost_connection_ends_its_streams),
		T(frames_that_are_none_end_the_connection),
		T(bytes_may_come_one_by_one),
		T(many_streams_share_a_connection),
		T(pings_are_answered_and_never_sent),
		T(burst_of_pings_is_survived),
		T(flood_without_reading_ends_the_connection),
		T(flood_of_settings_ends_it_too),
		T(goaway_lets_open_streams_finish),
		T(resets_carry_their_code),
		T(server_may_end_first),
		T(server_may_end_while_we_are_blocked),
		T(header_blocks_are_limited),
		T(number_of_headers_is_limited),
		T(large_bodies_both_ways),
		T(paused_consumer_stops_its_stream_only),
		T(cancelled_streams_give_their_window_back),
		T(sender_is_told_to_wait),
		T(tiny_windows_are_enough),
		T(cancel_is_silence_at_any_moment),
		T(connection_may_be_closed_in_a_callback),
		T(streams_may_be_opened_in_a_callback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
