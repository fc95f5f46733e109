/* An engine behind TCP and TLS with client certificates, as DOCKER_CERT_PATH means it. */
#include "test.h"

#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>
#include <swarm/engine.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "await.h"
#include "testca.h"

static char dir[] = "/tmp/sw-tls-XXXXXX";
static struct testca *ca, *other;
static uv_thread_t thread;
static int listener, port;
static SSL_CTX *ctx;

static const char answer[] =
	"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/x\r\nContent-Length: 2\r\n"
	"Connection: close\r\n\r\nOK";

/* One connection after the other until the listener is shut down. */
static void serve(void *arg)
{
	int fd;

	(void)arg;
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		SSL *s = SSL_new(ctx);
		char buf[4096];
		int n, len = 0;

		SSL_set_fd(s, fd);
		if (SSL_accept(s) == 1) {
			while (len < (int)sizeof(buf) - 1 &&
				(n = SSL_read(s, buf + len, (int)sizeof(buf) - 1 - len)) > 0) {
				len += n;
				buf[len] = '\0';
				if (strstr(buf, "\r\n\r\n")) {
					/* HEAD has no body */
					int out = (int)sizeof(answer) - 1 -
						  (strncmp(buf, "HEAD", 4) == 0 ? 2 : 0);

					SSL_write(s, answer, out);
					SSL_shutdown(s);
					break;
				}
			}
		}
		SSL_free(s);
		close(fd);
	}
	ERR_clear_error();
}

static void put(const char *sub, const char *file, const char *text)
{
	sw_auto_free char *path = xasprintf("%s/%s/%s", dir, sub, file);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void client(const char *sub, struct testca *trust, struct testca *issuer)
{
	sw_auto_free char *path = xasprintf("%s/%s", dir, sub), *key = NULL, *cert = NULL;

	assert_int_equal(mkdir(path, 0700), 0);
	cert = testca_issue(issuer, &(struct testca_leaf){.cn = "client"}, &key);
	put(sub, "ca.pem", testca_pem(trust));
	put(sub, "cert.pem", cert);
	put(sub, "key.pem", key);
}

static void use_pem(const char *cert_pem, const char *key_pem)
{
	BIO *b = BIO_new_mem_buf(cert_pem, -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
	EVP_PKEY *k;

	BIO_free(b);
	b = BIO_new_mem_buf(key_pem, -1);
	k = PEM_read_bio_PrivateKey(b, NULL, NULL, NULL);
	BIO_free(b);
	assert_int_equal(SSL_CTX_use_certificate(ctx, x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, k), 1);
	X509_free(x);
	EVP_PKEY_free(k);
	b = BIO_new_mem_buf(testca_pem(ca), -1);
	x = PEM_read_bio_X509(b, NULL, NULL, NULL);
	BIO_free(b);
	X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x);
	X509_free(x);
}

static void no_log(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

static int setup(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	sw_auto_free char *key = NULL, *cert = NULL;

	(void)state;
	(void)signal(SIGPIPE, SIG_IGN);
	log_set_sink(no_log, NULL);
	assert_non_null(mkdtemp(dir));
	ca = testca_new("engine-ca");
	other = testca_new("other-ca");
	cert = testca_issue(ca, &(struct testca_leaf){.cn = "engine", .san = {"localhost"}}, &key);
	ctx = SSL_CTX_new(TLS_server_method());
	use_pem(cert, key);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 16), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	port = ntohs(a.sin_port);
	client("good", ca, ca);
	client("distrusts", other, ca);
	client("unknown", ca, other);
	uv_thread_create(&thread, serve, NULL);
	return 0;
}

static int teardown(void **state)
{
	static const char *const sub[] = {"good", "distrusts", "unknown"}, *const file[] = {
										   "ca.pem",
										   "cert.pem",
										   "key.pem"};

	(void)state;
	shutdown(listener, SHUT_RDWR);
	uv_thread_join(&thread);
	close(listener);
	SSL_CTX_free(ctx);
	testca_free(ca);
	testca_free(other);
	for (size_t i = 0; i < 3; i++) {
		sw_auto_free char *d = xasprintf("%s/%s", dir, sub[i]);

		for (size_t k = 0; k < 3; k++) {
			sw_auto_free char *f = xasprintf("%s/%s", d, file[k]);

			unlink(f);
		}
		rmdir(d);
	}
	rmdir(dir);
	return 0;
}

struct got {
	int n;
	struct sw_err err;
};

static void on_done(void *arg, const struct sw_err *err)
{
	struct got *g = arg;

	g->n++;
	sw_err_copy(&g->err, err);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

/* The error of a call that also negotiates. */
static struct sw_err call(const char *host, const char *sub, bool verify)
{
	sw_auto_free char *addr = xasprintf("tcp://%s:%d", host, port);
	sw_auto_free char *path = xasprintf("%s/%s", dir, sub);
	struct engine_config cfg = {.host = addr, .cert_path = path, .tls_verify = verify};
	struct sw_loop *loop;
	struct engine *e;
	struct got g = {0};
	bool closed = false;

	assert_int_equal(sw_loop_new(&loop, NULL), 0);
	assert_int_equal(engine_new(&e, loop, &cfg, NULL), 0);
	engine_container_start(e, "x", on_done, &g);
	AWAIT(loop, g.n);
	engine_close(e, on_closed, &closed);
	AWAIT(loop, closed);
	assert_int_equal(sw_loop_free(loop), 0);
	return g.err;
}

static void test_tls(void **state)
{
	struct sw_err err;

	(void)state;
	err = call("localhost", "good", true);
	if (err.cls != SW_OK)
		fail_msg("%s", err.msg);
	/* another name than the certificate's */
	err = call("127.0.0.1", "good", true);
	assert_int_equal(err.domain, SW_E_TLS);
	assert_int_equal(err.cls, SW_TEMPORARY);
	/* an issuer we do not know */
	err = call("localhost", "distrusts", true);
	assert_int_equal(err.domain, SW_E_TLS);
	assert_non_null(strstr(err.msg, "https://localhost"));
	/* not verified, because somebody said so */
	err = call("127.0.0.1", "distrusts", false);
	assert_int_equal(err.cls, SW_OK);
	/* the engine does not know us */
	err = call("localhost", "unknown", true);
	assert_int_equal(err.cls, SW_TEMPORARY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_tls, setup, teardown)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
