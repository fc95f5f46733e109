/* The connection: a socket, TLS on it, nghttp2 on top.
 *
 *   dialling -> handshake -> preface -> ready --> ending -> closed()
 *       |           |           |         |          ^
 *       +-----------+-----------+---------+----------+  error, timeout, EOF, h2_conn_close()
 *
 * Bytes in:  socket -> net_buf -> SSL -> block `plain` -> nghttp2, which points into the block:
 *            bodies go up as slices of it.
 * Bytes out: nghttp2's frames and the streams' chains are gathered into one TLS record's worth of
 *            plaintext, encrypted into the chain `out`, written from there.
 *
 * Everything that wants to send calls conn_kick(); conn_work() then runs once, from the loop, so
 * that what is asked for inside callbacks never re-enters nghttp2. Nothing is freed before the last
 * handle's close callback. ALPN is offered, but its answer does not matter: a manager that renewed
 * its certificate stops answering and still speaks HTTP/2. */
#include "conn_priv.h"
#include "dial.h"
#include "tls_priv.h"
#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <swarm/mem.h>
#include <swarm/tls.h>

static void conn_work(struct h2_conn *c);
static void conn_end(struct h2_conn *c);

/* --- the BIO between SSL and the chains --------------------------------------------------------
 */

static BIO_METHOD *bio_method;

static int bio_read(BIO *b, char *p, int len)
{
	struct h2_conn *c = BIO_get_data(b);
	size_t n = c->net_in_len < (size_t)len ? c->net_in_len : (size_t)len;

	BIO_clear_retry_flags(b);
	if (n == 0) {
		BIO_set_retry_read(b);
		return -1;
	}
	memcpy(p, c->net_in, n);
	c->net_in += n;
	c->net_in_len -= n;
	return (int)n;
}

static int bio_write(BIO *b, const char *p, int len)
{
	struct h2_conn *c = BIO_get_data(b);

	BIO_clear_retry_flags(b);
	return len >= 0 && chain_append(&c->out, p, (size_t)len) == 0 ? len : -1;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	(void)b;
	(void)num;
	(void)ptr;
	return cmd == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *b)
{
	BIO_set_init(b, 1);
	return 1;
}

static void bio_method_init(void)
{
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "h2 connection");
	if (!bio_method)
		return;
	BIO_meth_set_create(bio_method, bio_create);
	BIO_meth_set_read(bio_method, bio_read);
	BIO_meth_set_write(bio_method, bio_write);
	BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

static BIO *bio_new(struct h2_conn *c)
{
	static uv_once_t once = UV_ONCE_INIT; /* two loops in two threads are allowed */
	BIO *b;

	uv_once(&once, bio_method_init);
	b = bio_method ? BIO_new(bio_method) : NULL;
	if (b)
		BIO_set_data(b, c);
	return b;
}

/* --- failures ----------------------------------------------------------------------------------
 */

void conn_fail(struct h2_conn *c, const struct sw_err *err)
{
	if (c->ending || c->want_close)
		return;
	sw_err_copy(&c->err, err);
	conn_end(c);
}

static void fail(struct h2_conn *c, int code, const char *why)
{
	struct sw_err err;

	if (c->goaway)
		sw_err_set(&err, SW_TEMPORARY, code, "%s: %s, after it said GOAWAY %u (%s)",
			c->addr, why, c->goaway_code,
			c->goaway_text[0] ? c->goaway_text : "no reason given");
	else
		sw_err_set(&err, SW_TEMPORARY, code, "%s: %s", c->addr, why);
	conn_fail(c, &err);
}

/* TLS alerts about certificates: reasons SSL_AD_REASON_OFFSET + 42..46, 48, 49 and 116. */
static bool is_cert_alert(int reason)
{
	int alert = reason - SSL_AD_REASON_OFFSET;

	return (alert >= 42 && alert <= 46) || alert == 48 || alert == 49 || alert == 116;
}

static void fail_tls(struct h2_conn *c, const char *when)
{
	unsigned long e = ERR_get_error();
	int reason = e ? ERR_GET_REASON(e) : 0;
	const char *text = e ? ERR_reason_error_string(e) : NULL;
	long verify = SSL_get_verify_result(c->ssl);
	struct sw_err err;

	ERR_clear_error();
	if (!c->handshaken && tls_creds_verifies(c->creds) && verify != X509_V_OK)
		sw_err_setd(&err, SW_REJECTED, SW_E_TLS, (int)verify,
			"%s: its certificate cannot be verified (as \"%s\"): %s", c->addr,
			tls_creds_name(c->creds), X509_verify_cert_error_string(verify));
	else if (is_cert_alert(reason))
		/* another manager may know our issuer already */
		sw_err_setd(&err, SW_TEMPORARY, SW_E_TLS, reason,
			"%s: it does not accept our certificate: %s", c->addr, text ? text : "?");
	else
		sw_err_set(&err, SW_TEMPORARY, -EPROTO, "%s: TLS %s: %s", c->addr, when,
			text ? text : "broken");
	conn_fail(c, &err);
}

static void fail_eof(struct h2_conn *c, int code)
{
	if (!c->handshaken)
		fail(c, code, "connection lost during the TLS handshake");
	else if (!c->ready && tls_creds_has_cert(c->creds))
		/* in TLS 1.3 the client is done before the server has looked at its certificate */
		fail(c, code,
			"connection lost right after the TLS handshake; maybe it does not accept "
			"our "
			"certificate");
	else
		fail(c, code, code == -ECONNRESET ? "connection reset" : "connection closed");
}

/* nghttp2 wants nothing any more: a GOAWAY went in one of the directions. */
static void fail_over(struct h2_conn *c)
{
	char why[192];

	if (!c->broken[0]) {
		fail(c, -ECONNRESET, "HTTP/2 session over");
		return;
	}
	snprintf(why, sizeof(why), "%s: %s",
		c->ready ? "it breaks HTTP/2" : "it does not speak HTTP/2", c->broken);
	fail(c, -EPROTO, why);
}

/* --- bytes out ---------------------------------------------------------------------------------
 */

static bool put_record(struct h2_conn *c)
{
	if (c->rec_len == 0)
		return true;
	ERR_clear_error();
	if (SSL_write(c->ssl, c->rec, (int)c->rec_len) != (int)c->rec_len)
		return false;
	c->rec_len = 0;
	return true;
}

bool conn_put(struct h2_conn *c, const uint8_t *p, size_t n)
{
	while (n > 0) {
		size_t room = H2_REC_SIZE - c->rec_len, step = n < room ? n : room;

		memcpy(c->rec + c->rec_len, p, step);
		c->rec_len += step;
		p += step;
		n -= step;
		if (c->rec_len == H2_REC_SIZE && !put_record(c))
			return false;
	}
	return true;
}

bool conn_put_chain(struct h2_conn *c, struct chain *src, size_t n)
{
	while (n > 0) {
		size_t room = H2_REC_SIZE - c->rec_len, step = n < room ? n : room;
		struct iovec iov = {c->rec + c->rec_len, step};
		struct uio uio;

		if (uio_init_sys(&uio, &iov, 1, UIO_READ) != 0 ||
			chain_uiomove(src, step, &uio) != 0 || uio.uio_resid != 0)
			return false;
		c->rec_len += step;
		n -= step;
		if (c->rec_len == H2_REC_SIZE && !put_record(c))
			return false;
	}
	return true;
}

static void on_written(uv_write_t *req, int status)
{
	struct h2_conn *c = req->data;

	c->write_busy = false;
	chain_done(&c->writing);
	if (c->ending)
		return;
	if (status < 0)
		fail(c, status, uv_strerror(status));
	else
		conn_work(c);
}

/* As much as the socket takes at once; the rest goes to libuv, which comes back. */
static void flush(struct h2_conn *c)
{
	while (!c->write_busy && !c->ending && chain_len(&c->out) > 0) {
		struct iovec iov[64];
		size_t bytes;
		int n = chain_iov(&c->out, iov, 64, &bytes);
		/* uv_buf_t is an iovec on unix, by libuv's own promise */
		int r = uv_try_write((uv_stream_t *)c->tcp, (uv_buf_t *)iov, (unsigned)n);

		if (r > 0) {
			chain_drain(&c->out, (size_t)r);
			if ((size_t)r == bytes)
				continue;
		} else if (r < 0 && r != UV_EAGAIN) {
			fail(c, r, uv_strerror(r));
			return;
		}
		(void)chain_iov(&c->out, iov, 64, &bytes);
		chain_move(&c->writing, &c->out, bytes);
		n = chain_iov(&c->writing, iov, 64, &bytes);
		c->write.data = c;
		r = uv_write(
			&c->write, (uv_stream_t *)c->tcp, (uv_buf_t *)iov, (unsigned)n, on_written);
		if (r < 0)
			fail(c, r, uv_strerror(r));
		else
			c->write_busy = true;
	}
}

/* Frames into records, until nothing is left to say or too much waits for the socket. */
static void fill(struct h2_conn *c)
{
	while (!c->ending && c->handshaken && !conn_is_full(c)) {
		const uint8_t *p;
		ssize_t n = nghttp2_session_mem_send(c->ng, &p);

		if (n < 0) {
			fail(c, -EPROTO, nghttp2_strerror((int)n));
			return;
		}
		if (n == 0)
			break;
		if (!conn_put(c, p, (size_t)n)) {
			fail_tls(c, "write");
			return;
		}
	}
	if (!c->ending && c->handshaken && !put_record(c))
		fail_tls(c, "write");
}

/* The level-triggered heart: whatever can be sent is sent. */
static void conn_work(struct h2_conn *c)
{
	bool was_full;

	if (c->in_work || c->ending)
		return;
	c->in_work = true;
	do {
		fill(c);
		was_full = conn_is_full(c);
		if (!c->ending)
			flush(c);
	} while (was_full && !c->write_busy && !c->ending);
	if (!c->ending && !c->want_close && c->handshaken && !nghttp2_session_want_read(c->ng) &&
		!nghttp2_session_want_write(c->ng))
		fail_over(c);
	if (!c->ending)
		h2_streams_writable(c);
	c->in_work = false;
}

static void on_idle(uv_idle_t *h)
{
	struct h2_conn *c = h->data;

	uv_idle_stop(h);
	if (c->want_close && !c->ending) {
		/* a polite goodbye, as far as the socket takes it at once */
		if (c->handshaken) {
			nghttp2_session_terminate_session(c->ng, NGHTTP2_NO_ERROR);
			fill(c);
			if (!c->ending) {
				SSL_shutdown(c->ssl);
				ERR_clear_error();
				flush(c);
			}
		}
		conn_end(c);
		return;
	}
	conn_work(c);
}

void conn_kick(struct h2_conn *c)
{
	if (!c->ending)
		uv_idle_start(&c->idle, on_idle);
}

/* --- bytes in ----------------------------------------------------------------------------------
 */

static bool plain_room(struct h2_conn *c)
{
	if (c->plain && block_size(c->plain) - c->plain_used >= H2_REC_SIZE / 4)
		return true;
	block_unref(c->plain);
	c->plain_used = 0;
	c->plain = block_new(H2_NET_SIZE);
	return c->plain != NULL;
}

static void handshake(struct h2_conn *c)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(c->ssl);
	if (r == 1) {
		c->handshaken = true;
		return;
	}
	if (SSL_get_error(c->ssl, r) == SSL_ERROR_WANT_READ)
		return;
	flush(c); /* the alert says to the peer what we say to the log */
	fail_tls(c, "handshake");
}

static void decrypt(struct h2_conn *c)
{
	while (!c->ending && c->handshaken) {
		uint8_t *p;
		ssize_t used;
		int n;

		if (!plain_room(c)) {
			fail(c, -ENOMEM, "out of memory");
			return;
		}
		p = block_data(c->plain) + c->plain_used;
		ERR_clear_error();
		n = SSL_read(c->ssl, p, (int)(block_size(c->plain) - c->plain_used));
		if (n <= 0) {
			int e = SSL_get_error(c->ssl, n);

			if (e == SSL_ERROR_ZERO_RETURN)
				fail_eof(c, -EPIPE);
			else if (e != SSL_ERROR_WANT_READ)
				fail_tls(c, "read");
			return;
		}
		c->plain_kept = false;
		used = nghttp2_session_mem_recv(c->ng, p, (size_t)n);
		if (c->plain_kept)
			c->plain_used += (size_t)n;
		if (used < 0) {
			snprintf(c->broken, sizeof(c->broken), "%s", nghttp2_strerror((int)used));
			fail_over(c);
			return;
		}
		/* acknowledgements go out as they come up: a peer's burst stays below nghttp2's
		 * limit as long as the peer reads */
		if (!c->ending)
			fill(c);
	}
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *b)
{
	struct h2_conn *c = h->data;

	(void)hint;
	*b = uv_buf_init((char *)c->net_buf, H2_NET_SIZE);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct h2_conn *c = h->data;

	if (c->ending || c->want_close)
		return;
	if (n < 0) {
		fail_eof(c, n == UV_EOF ? -EPIPE : (int)n);
		return;
	}
	c->net_in = (const uint8_t *)b->base;
	c->net_in_len = (size_t)n;
	if (!c->handshaken)
		handshake(c);
	decrypt(c);
	c->net_in_len = 0;
	conn_work(c);
}

/* --- life --------------------------------------------------------------------------------------
 */

static void conn_free(struct h2_conn *c)
{
	nghttp2_session_del(c->ng);
	SSL_free(c->ssl);
	tls_creds_unref(c->creds);
	chain_done(&c->out);
	chain_done(&c->writing);
	block_unref(c->plain);
	free(c->net_buf);
	free(c->rec);
	free(c->head);
	free(c->tcp);
	free(c->addr);
	free(c);
}

static void on_closed(uv_handle_t *h)
{
	struct h2_conn *c = h->data;
	struct sw_err cancelled;

	if (--c->n_handles > 0)
		return;
	sw_err_set(&cancelled, SW_CANCELLED, -ECANCELED, "%s: the connection was closed", c->addr);
	h2_streams_end(c, c->want_close ? &cancelled : &c->err);
	if (c->ev.closed)
		c->ev.closed(c->arg, c->want_close ? NULL : &c->err);
	conn_free(c);
}

static void conn_end(struct h2_conn *c)
{
	if (c->ending)
		return;
	c->ending = true;
	sw_timer_stop(&c->deadline);
	dial_cancel(c->dial);
	c->dial = NULL;
	if (c->tcp)
		uv_close((uv_handle_t *)c->tcp, on_closed);
	uv_close((uv_handle_t *)&c->idle, on_closed);
}

static void on_deadline(void *arg)
{
	struct h2_conn *c = arg;

	fail(c, -ETIMEDOUT,
		c->handshaken ? "no HTTP/2 settings in time" : "the TLS handshake took too long");
}

void conn_ready(struct h2_conn *c)
{
	if (c->ready)
		return;
	c->ready = true;
	sw_timer_stop(&c->deadline);
	if (!c->want_close && !c->ending && c->ev.ready)
		c->ev.ready(c->arg);
}

static void on_dialled(void *arg, uv_tcp_t *tcp, const struct sw_err *err)
{
	struct h2_conn *c = arg;
	BIO *bio;

	c->dial = NULL;
	if (err) {
		conn_fail(c, err);
		return;
	}
	c->tcp = tcp;
	c->tcp->data = c;
	c->n_handles++;
	uv_tcp_nodelay(tcp, 1);
	uv_tcp_keepalive(tcp, 1, 60);
	bio = bio_new(c);
	if (!bio) {
		fail(c, -ENOMEM, "out of memory");
		return;
	}
	SSL_set_bio(c->ssl, bio, bio);
	sw_timer_arm_at(&c->deadline, c->deadline_at);
	uv_read_start((uv_stream_t *)tcp, on_alloc, on_read);
	handshake(c);
	conn_work(c);
}

int h2_conn_new(struct h2_conn **ret, struct sw_loop *l, const char *addr, struct tls_creds *creds,
	uint64_t timeout_ns, const struct h2_conn_events *ev, void *arg, struct sw_err *err)
{
	struct h2_conn *c = xcalloc(1, sizeof(*c));
	int r = 0;

	c->loop = l;
	c->addr = xstrdup(addr);
	c->creds = tls_creds_ref(creds);
	c->ev = *ev;
	c->arg = arg;
	c->net_buf = xcalloc(1, H2_NET_SIZE);
	c->rec = xcalloc(1, H2_REC_SIZE);
	TAILQ_INIT(&c->streams);
	sw_timer_init(&c->deadline, l, on_deadline, c);
	if (__builtin_add_overflow(sw_now(l), timeout_ns, &c->deadline_at))
		c->deadline_at = UINT64_MAX;
	c->ssl = tls_creds_ssl(creds, err);
	if (!c->ssl)
		r = -ENOMEM;
	if (r == 0)
		r = h2_session_new(c, err);
	if (r == 0)
		r = dial_new(&c->dial, l, addr, timeout_ns, on_dialled, c, err);
	if (r < 0) {
		conn_free(c);
		return r;
	}
	uv_idle_init(sw_loop_uv(l), &c->idle);
	c->idle.data = c;
	c->n_handles = 1;
	*ret = c;
	return 0;
}

void h2_conn_close(struct h2_conn *c)
{
	if (!c || c->want_close || c->ending)
		return;
	c->want_close = true;
	sw_timer_stop(&c->deadline);
	conn_kick(c);
}

struct sw_loop *h2_conn_loop(const struct h2_conn *c)
{
	return c->loop;
}

void h2_conn_info(const struct h2_conn *c, struct h2_conn_info *ret)
{
	const unsigned char *alpn = NULL;
	unsigned len = 0;

	SSL_get0_alpn_selected(c->ssl, &alpn, &len);
	*ret = (struct h2_conn_info){
		.tls_version = c->handshaken ? SSL_get_version(c->ssl) : "none",
		.cipher = c->handshaken ? SSL_get_cipher_name(c->ssl) : "none",
		.alpn = len > 0,
		.n_streams = c->n_streams,
	};
}
