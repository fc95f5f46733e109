/* What gRPC costs over loopback, client and server on one thread, next to bare TLS records between
 * two ends on one thread, measured in turns in the same run:
 *
 *   bench_grpc           a table after some seconds
 *   bench_grpc --quick   one short round of everything: does it still run?
 *
 * The best round counts. Nothing is asserted about times. */
#include "complete.h"
#include "h2server.h"
#include "testca.h"
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/grpc.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/tls.h>
#include <sys/socket.h>

static struct sw_loop *loop;
static struct h2_conn *conn;
static bool quick, ready, closed;

static void on_ready(void *arg)
{
	(void)arg;
	ready = true;
}

static void on_closed(void *arg, const struct sw_err *err)
{
	(void)arg;
	if (err) {
		fprintf(stderr, "%s\n", err->msg);
		exit(EXIT_FAILURE);
	}
	closed = true;
}

static const struct h2_conn_events conn_events = {.ready = on_ready, .closed = on_closed};

static double seconds(uint64_t from)
{
	return (double)(uv_hrtime() - from) / 1e9;
}

/* --- unary ---------------------------------------------------------------------------------------
 */

static unsigned left, running;

static void call_one(void);

static void on_answer(void *arg, const ProtobufCMessage *m, const struct sw_err *err)
{
	(void)arg;
	(void)m;
	if (err) {
		fprintf(stderr, "%s\n", err->msg);
		exit(EXIT_FAILURE);
	}
	running--;
	call_one();
}

static void call_one(void)
{
	Pb__HeartbeatRequest req = PB__HEARTBEAT_REQUEST__INIT;

	if (!left)
		return;
	left--;
	running++;
	req.session_id = (char *)(uintptr_t) "x3kq0v1p8t7r5s6u9w2y4z0a1";
	grpc_unary(conn, "/unary", &req.base, &pb__heartbeat_request__descriptor, sw_s(60),
		on_answer, NULL);
}

static double unary(unsigned n, unsigned at_once)
{
	uint64_t from = uv_hrtime();

	left = n;
	while (at_once--)
		call_one();
	while (left || running)
		sw_loop_once(loop, true);
	return n / seconds(from);
}

static void unary_message(void *arg, struct h2s_stream *st, const uint8_t *m, size_t n)
{
	(void)arg;
	h2s_reply(st, m, n);
}

/* --- streams -------------------------------------------------------------------------------------
 */

static size_t msg_size, msg_count, seen;
static uint8_t *msg;
static bool ended;
static struct grpc_call *up;

static bool on_message(void *arg, const ProtobufCMessage *m)
{
	(void)arg;
	(void)m;
	seen++;
	return true;
}

static void on_end(void *arg, const struct sw_err *err)
{
	(void)arg;
	if (err) {
		fprintf(stderr, "%s\n", err->msg);
		exit(EXIT_FAILURE);
	}
	ended = true;
}

static void push_up(void *arg)
{
	Pb__SecretSpec spec = PB__SECRET_SPEC__INIT;

	(void)arg;
	spec.data.data = msg;
	spec.data.len = msg_size;
	while (seen < msg_count) {
		seen++;
		if (!grpc_send(up, &spec.base))
			return;
	}
	grpc_finish(up);
}

static const struct grpc_stream_events flow = {on_message, on_end, NULL};
static const struct grpc_stream_events up_flow = {on_message, on_end, push_up};

static void down_end(void *arg, struct h2s_stream *st)
{
	Pb__SecretSpec spec = PB__SECRET_SPEC__INIT;
	size_t len;
	uint8_t *p;

	(void)arg;
	spec.data.data = msg;
	spec.data.len = msg_size;
	p = api_pack(&spec.base, &len);
	for (size_t i = 0; i < msg_count; i++)
		h2s_send(st, p, len);
	h2s_end(st, 0, NULL);
	free(p);
}

static void up_end(void *arg, struct h2s_stream *st)
{
	(void)arg;
	h2s_reply(st, "", 0);
}

static double stream(bool down, size_t size, size_t total)
{
	Pb__HeartbeatRequest req = PB__HEARTBEAT_REQUEST__INIT;
	uint64_t from;

	msg_size = size;
	msg_count = total / size;
	seen = 0;
	ended = false;
	from = uv_hrtime();
	if (down) {
		grpc_server_stream(
			conn, "/down", &req.base, &pb__secret_spec__descriptor, &flow, NULL);
	} else {
		up = grpc_client_stream(
			conn, "/up", &pb__publish_logs_response__descriptor, &up_flow, NULL);
		push_up(NULL);
	}
	while (!ended)
		sw_loop_once(loop, true);
	return (double)(msg_count * size) / 1e6 / seconds(from);
}

/* --- bare TLS ------------------------------------------------------------------------------------
 */

static double bare_tls(const char *cert, const char *key, size_t total)
{
	SSL_CTX *sctx = SSL_CTX_new(TLS_server_method()), *cctx = SSL_CTX_new(TLS_client_method());
	BIO *b = BIO_new_mem_buf(cert, -1), *k = BIO_new_mem_buf(key, -1), *s2c, *c2s;
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
	EVP_PKEY *pkey = PEM_read_bio_PrivateKey(k, NULL, NULL, NULL);
	SSL *s, *c;
	int fd[2];
	uint64_t from;
	size_t got = 0;
	static char buf[16384];
	int n = 0;

	SSL_CTX_use_certificate(sctx, x);
	SSL_CTX_use_PrivateKey(sctx, pkey);
	s = SSL_new(sctx);
	c = SSL_new(cctx);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) < 0)
		exit(EXIT_FAILURE);
	s2c = BIO_new_socket(fd[0], BIO_CLOSE);
	c2s = BIO_new_socket(fd[1], BIO_CLOSE);
	SSL_set_bio(s, s2c, s2c);
	SSL_set_bio(c, c2s, c2s);
	SSL_set_accept_state(s);
	SSL_set_connect_state(c);
	while (!SSL_is_init_finished(s) || !SSL_is_init_finished(c)) {
		SSL_do_handshake(c);
		SSL_do_handshake(s);
	}
	from = uv_hrtime();
	for (size_t sent = 0; got < total;) {
		while (sent < total && SSL_write(s, buf, sizeof(buf)) > 0)
			sent += sizeof(buf);
		while ((n = SSL_read(c, buf, sizeof(buf))) > 0)
			got += (size_t)n;
	}
	SSL_free(s);
	SSL_free(c);
	SSL_CTX_free(sctx);
	SSL_CTX_free(cctx);
	X509_free(x);
	EVP_PKEY_free(pkey);
	BIO_free(b);
	BIO_free(k);
	return (double)total / 1e6 / seconds(from);
}

/* --- COMPLETE ------------------------------------------------------------------------------------
 */

static void complete(size_t n)
{
	size_t len;
	uint8_t *p = complete_encoded(n, &len);
	uint64_t from = uv_hrtime();
	double t;
	ProtobufCMessage *m = api_unpack(&pb__assignments_message__descriptor, p, len, NULL);

	t = seconds(from);
	from = uv_hrtime();
	api_free(m);
	printf("COMPLETE of %zu tasks: %.1f MB, unpack %.1f ms, free %.1f ms (both on the pool)\n",
		n, (double)len / 1e6, t * 1e3, seconds(from) * 1e3);
	free(p);
}

static double max(double a, double b)
{
	return a > b ? a : b;
}

int main(int argc, char **argv)
{
	struct testca *ca = testca_new(NULL);
	char *key, *cert = testca_manager(ca, "c", "m", &key);
	struct h2server *srv;
	struct tls_creds *creds;
	struct sw_err err;
	size_t mb = 1000000, total;
	bool done = false;
	double one = 0, many = 0, raw = 0, down64k = 0, down1m = 0, down1k = 0, up64k = 0;

	quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
	total = (quick ? 8 : 256) * mb;
	msg = xcalloc(1, 1u << 20);
	if (sw_loop_new(&loop, &err) < 0 ||
		tls_creds_new(&creds,
			&(struct tls_config){testca_pem(ca), NULL, NULL, "swarm-manager"},
			&err) < 0)
		return EXIT_FAILURE;
	h2server_new(&srv, loop, &(struct h2s_config){.cert_pem = cert, .key_pem = key});
	h2server_handle(srv, "/unary", &(struct h2s_handler){.message = unary_message}, NULL);
	h2server_handle(srv, "/down", &(struct h2s_handler){.end = down_end}, NULL);
	h2server_handle(srv, "/up", &(struct h2s_handler){.end = up_end}, NULL);
	if (h2_conn_new(
		    &conn, loop, h2server_addr(srv), creds, sw_s(10), &conn_events, NULL, &err) < 0)
		return EXIT_FAILURE;
	while (!ready)
		sw_loop_once(loop, true);
	for (int round = 0; round < (quick ? 1 : 5); round++) {
		raw = max(raw, bare_tls(cert, key, total));
		down1k = max(down1k, stream(true, 1000, total / 8));
		down64k = max(down64k, stream(true, 65536, total));
		down1m = max(down1m, stream(true, 1u << 20, total));
		up64k = max(up64k, stream(false, 65536, total));
		one = max(one, unary(quick ? 100 : 5000, 1));
		many = max(many, unary(quick ? 100 : 20000, 100));
	}
	printf("unary, one at a time      %8.0f calls/s\n", one);
	printf("unary, 100 at once        %8.0f calls/s\n", many);
	printf("bare TLS records          %8.0f MB/s\n", raw);
	printf("receive, 1 KB messages    %8.0f MB/s  %.2f of bare TLS\n", down1k, down1k / raw);
	printf("receive, 64 KiB messages  %8.0f MB/s  %.2f\n", down64k, down64k / raw);
	printf("receive, 1 MiB messages   %8.0f MB/s  %.2f\n", down1m, down1m / raw);
	printf("send, 64 KiB messages     %8.0f MB/s  %.2f\n", up64k, up64k / raw);
	complete(quick ? 100 : 10000);
	h2_conn_close(conn);
	while (!closed)
		sw_loop_once(loop, true);
	h2server_close(srv, &done);
	while (!done)
		sw_loop_once(loop, true);
	tls_creds_unref(creds);
	testca_free(ca);
	free(cert);
	free(key);
	free(msg);
	return sw_loop_free(loop) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
