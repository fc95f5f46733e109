/* The peer of the tests: nghttp2's server side under OpenSSL's memory BIOs. Plain and simple
 * buffers, on purpose nothing of what it tests. */
#include "h2server.h"
#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <sys/queue.h>
#include <uv.h>

#define MAX_HEADERS 64
#define WRITE_HIGH  (1u << 20)
#define FLOOD_BATCH 512u
#define OUT_BLOCK   65536u

struct buf {
	uint8_t *p;
	size_t len, off, cap; /* bytes are [off, len) */
};

struct h2s_stream {
	TAILQ_ENTRY(h2s_stream) link;
	struct h2s_conn *c;
	int32_t id;
	uint64_t serial;
	char *name[MAX_HEADERS], *value[MAX_HEADERS];
	size_t n_headers;
	char *path;
	const struct route *route;
	struct buf in, out;
	char **trailers; /* name, value, ... */
	size_t n_trailers;
	bool opened, head_sent, finished, end_on_data, waiting, client_ended, closed;
	void *user;
};

struct h2s_conn {
	TAILQ_ENTRY(h2s_conn) link;
	struct h2server *s;
	uv_tcp_t tcp;
	uv_idle_t idle;
	struct h2s_config cfg; /* only the switches */
	SSL *ssl;
	BIO *rbio, *wbio;
	nghttp2_session *ng;
	TAILQ_HEAD(, h2s_stream) streams;
	struct buf raw; /* plaintext of ours between nghttp2's frames */
	unsigned pings_left, settings_left;
	bool handshaken, got_preface, paused, want_eof, closing, dead;
	int n_handles;
	char *cn, *ou, *o;
};

struct route {
	TAILQ_ENTRY(route) link;
	char *path;
	struct h2s_handler h;
	void *arg;
};

struct h2server {
	struct sw_loop *l;
	uv_tcp_t *listener;
	struct h2s_config cfg;
	SSL_CTX *ctx;
	TAILQ_HEAD(, h2s_conn) conns;
	TAILQ_HEAD(, route) routes;
	struct h2server_stats stats;
	unsigned port;
	char host[64], addr[80];
	uint64_t serial;
	bool closing, *done;
};

struct write_req {
	uv_write_t req;
	struct h2s_conn *c;
	uint8_t data[];
};

static void conn_kick(struct h2s_conn *c);
static void conn_close(struct h2s_conn *c, bool reset);

/* --- small things ------------------------------------------------------------------------------
 */

static void buf_add(struct buf *b, const void *p, size_t n)
{
	if (b->off == b->len)
		b->off = b->len = 0;
	if (b->off > (1u << 20) && b->off > b->len / 2) {
		memmove(b->p, b->p + b->off, b->len - b->off);
		b->len -= b->off;
		b->off = 0;
	}
	if (b->cap - b->len < n) {
		b->cap = b->cap * 2 > b->len + n ? b->cap * 2 : b->len + n + 256;
		b->p = xrealloc(b->p, b->cap, 1);
	}
	memcpy(b->p + b->len, p, n);
	b->len += n;
}

static size_t buf_left(const struct buf *b)
{
	return b->len - b->off;
}

static void buf_done(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}

static void trailers_free(struct h2s_stream *st)
{
	for (size_t i = 0; i < st->n_trailers; i++)
		free(st->trailers[i]);
	free(st->trailers);
	st->trailers = NULL;
	st->n_trailers = 0;
}

static void stream_free(struct h2s_stream *st)
{
	TAILQ_REMOVE(&st->c->streams, st, link);
	st->c->s->stats.streams--;
	for (size_t i = 0; i < st->n_headers; i++) {
		free(st->name[i]);
		free(st->value[i]);
	}
	trailers_free(st);
	buf_done(&st->in);
	buf_done(&st->out);
	free(st->path);
	free(st);
}

static void stream_closed(struct h2s_stream *st, uint32_t code)
{
	st->closed = true;
	if (st->opened && st->route && st->route->h.closed)
		st->route->h.closed(st->route->arg, st, code);
	stream_free(st);
}

/* --- nghttp2 callbacks -------------------------------------------------------------------------
 */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2s_conn *c = user;
	struct h2s_stream *st;

	if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	st = xcalloc(1, sizeof(*st));
	st->c = c;
	st->id = f->hd.stream_id;
	st->serial = ++c->s->serial;
	TAILQ_INSERT_TAIL(&c->streams, st, link);
	c->s->stats.streams++;
	c->s->stats.streams_total++;
	nghttp2_session_set_stream_user_data(ng, st->id, st);
	return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nlen,
	const uint8_t *value, size_t vlen, uint8_t flags, void *user)
{
	struct h2s_stream *st = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);

	(void)flags;
	(void)user;
	if (!st || st->n_headers == MAX_HEADERS)
		return 0;
	st->name[st->n_headers] = xstrndup((const char *)name, nlen);
	st->value[st->n_headers++] = xstrndup((const char *)value, vlen);
	return 0;
}

static const struct route *route_for(struct h2server *s, const char *path)
{
	struct route *r;
	const struct route *other = NULL;

	TAILQ_FOREACH (r, &s->routes, link) {
		if (!r->path)
			other = r;
		else if (sw_streq(r->path, path))
			return r;
	}
	return other;
}

static void stream_open(struct h2s_stream *st)
{
	struct h2server *s = st->c->s;
	const char *path = h2s_header(st, ":path");

	st->opened = true;
	st->path = xstrdup(path ? path : "");
	st->route = route_for(s, st->path);
	if (!st->route)
		h2s_end(st, 12, "unknown method");
	else if (st->route->h.open)
		st->route->h.open(st->route->arg, st);
}

static void stream_ended(struct h2s_stream *st)
{
	st->client_ended = true;
	if (st->route && st->route->h.end)
		st->route->h.end(st->route->arg, st);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2s_conn *c = user;
	struct h2s_stream *st = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
	struct h2server_stats *stats = &c->s->stats;

	switch (f->hd.type) {
	case NGHTTP2_SETTINGS:
		c->got_preface = true;
		break;
	case NGHTTP2_PING:
		if (f->hd.flags & NGHTTP2_FLAG_ACK)
			stats->ping_acks++;
		else
			stats->pings++;
		break;
	case NGHTTP2_RST_STREAM:
		stats->resets++;
		break;
	case NGHTTP2_HEADERS:
		if (!st)
			break;
		if (f->hd.flags & NGHTTP2_FLAG_END_STREAM)
			stats->end_on_headers++;
		if (!st->opened)
			stream_open(st);
		if (f->hd.flags & NGHTTP2_FLAG_END_STREAM)
			stream_ended(st);
		break;
	case NGHTTP2_DATA:
		if (st && f->hd.flags & NGHTTP2_FLAG_END_STREAM)
			stream_ended(st);
		break;
	default:
		break;
	}
	return 0;
}

static int on_data(
	nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t len, void *user)
{
	struct h2s_stream *st = nghttp2_session_get_stream_user_data(ng, id);
	struct h2s_conn *c = user;

	(void)flags;
	c->s->stats.bytes_in += len;
	if (!st)
		return 0;
	buf_add(&st->in, p, len);
	while (buf_left(&st->in) >= 5) {
		const uint8_t *q = st->in.p + st->in.off;
		size_t n = (size_t)q[1] << 24 | (size_t)q[2] << 16 | (size_t)q[3] << 8 | q[4];

		if (buf_left(&st->in) - 5 < n)
			break;
		if (st->route && st->route->h.message)
			st->route->h.message(st->route->arg, st, q + 5, n);
		st->in.off += 5 + n;
	}
	return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
	struct h2s_stream *st = nghttp2_session_get_stream_user_data(ng, id);

	(void)user;
	if (st)
		stream_closed(st, code);
	return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2s_conn *c = user;
	struct h2s_stream *st = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);

	/* what Go's server does when a handler returns before the client has half-closed */
	if (st && (f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) &&
		f->hd.flags & NGHTTP2_FLAG_END_STREAM && !st->client_ended &&
		!c->cfg.no_half_close_reset)
		nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_NO_ERROR);
	return 0;
}

/* --- answering ---------------------------------------------------------------------------------
 */

static nghttp2_nv nv_of(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
		strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static size_t nv_of_trailers(const struct h2s_stream *st, nghttp2_nv **ret)
{
	size_t n = st->n_trailers / 2;
	nghttp2_nv *nv = xcalloc(n + 1, sizeof(*nv));

	for (size_t i = 0; i < n; i++)
		nv[i] = nv_of(st->trailers[2 * i], st->trailers[2 * i + 1]);
	*ret = nv;
	return n;
}

static ssize_t on_read(nghttp2_session *ng, int32_t id, uint8_t *p, size_t room, uint32_t *flags,
	nghttp2_data_source *src, void *user)
{
	struct h2s_stream *st = src->ptr;
	struct h2s_conn *c = user;
	size_t n = buf_left(&st->out) < room ? buf_left(&st->out) : room;

	memcpy(p, st->out.p + st->out.off, n);
	st->out.off += n;
	c->s->stats.bytes_out += n;
	if (buf_left(&st->out) == 0 && st->finished) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (!st->end_on_data) {
			nghttp2_nv *nv;
			size_t k = nv_of_trailers(st, &nv);

			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			nghttp2_submit_trailer(ng, id, nv, k);
			free(nv);
		}
		return (ssize_t)n;
	}
	if (n == 0) {
		st->waiting = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)n;
}

static void stream_resume(struct h2s_stream *st)
{
	if (st->waiting) {
		st->waiting = false;
		nghttp2_session_resume_data(st->c->ng, st->id);
	}
	conn_kick(st->c);
}

void h2s_send_head(struct h2s_stream *st, const char *http_status, const char *content_type)
{
	nghttp2_nv nv[2];
	size_t n = 0;
	nghttp2_data_provider prd = {.source.ptr = st, .read_callback = on_read};

	if (st->head_sent || st->closed || st->c->dead)
		return;
	st->head_sent = true;
	nv[n++] = nv_of(":status", http_status ? http_status : "200");
	if (content_type)
		nv[n++] = nv_of("content-type", content_type);
	nghttp2_submit_response(st->c->ng, st->id, nv, n, &prd);
	conn_kick(st->c);
}

void h2s_send_raw(struct h2s_stream *st, const void *bytes, size_t len)
{
	if (st->closed || st->finished || st->c->dead)
		return;
	h2s_send_head(st, "200", "application/grpc");
	buf_add(&st->out, bytes, len);
	stream_resume(st);
}

void h2s_send(struct h2s_stream *st, const void *msg, size_t len)
{
	const uint8_t prefix[5] = {
		0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};

	h2s_send_raw(st, prefix, sizeof(prefix));
	h2s_send_raw(st, msg, len);
}

void h2s_end_with(struct h2s_stream *st, const char *const *nv)
{
	size_t n = 0;

	if (st->finished || st->closed || st->c->dead)
		return;
	while (nv[n])
		n++;
	st->finished = true;
	st->trailers = xcalloc(n + 1, sizeof(*st->trailers));
	for (; st->n_trailers < n; st->n_trailers++)
		st->trailers[st->n_trailers] = xstrdup(nv[st->n_trailers]);
	if (!st->head_sent) {
		nghttp2_nv *out;
		size_t k = nv_of_trailers(st, &out);

		st->head_sent = true;
		nghttp2_submit_response(st->c->ng, st->id, out, k, NULL);
		free(out);
	}
	stream_resume(st);
}

void h2s_end(struct h2s_stream *st, int status, const char *message)
{
	char code[16], *text = NULL;
	const char *nv[9];
	size_t n = 0;

	snprintf(code, sizeof(code), "%d", status);
	if (message) {
		char *q = text = xcalloc(3 * strlen(message) + 1, 1);

		for (const char *p = message; *p; p++) {
			unsigned char ch = (unsigned char)*p;

			if (ch < 0x20 || ch > 0x7e || ch == '%')
				q += sprintf(q, "%%%02X", ch);
			else
				*q++ = (char)ch;
		}
	}
	if (!st->head_sent) {
		nv[n++] = ":status";
		nv[n++] = "200";
		nv[n++] = "content-type";
		nv[n++] = "application/grpc";
	}
	nv[n++] = "grpc-status";
	nv[n++] = code;
	if (text) {
		nv[n++] = "grpc-message";
		nv[n++] = text;
	}
	nv[n] = NULL;
	h2s_end_with(st, nv);
	free(text);
}

void h2s_reply(struct h2s_stream *st, const void *msg, size_t len)
{
	h2s_send(st, msg, len);
	h2s_end(st, 0, NULL);
}

void h2s_end_no_status(struct h2s_stream *st)
{
	h2s_end_with(st, st->head_sent ? (const char *const[]){"x-nothing", "here", NULL}
				       : (const char *const[]){":status", "200", "content-type",
						 "application/grpc", NULL});
}

void h2s_end_data(struct h2s_stream *st)
{
	h2s_send_head(st, "200", "application/grpc");
	st->end_on_data = true;
	st->finished = true;
	stream_resume(st);
}

void h2s_reset(struct h2s_stream *st, uint32_t code)
{
	if (st->closed || st->c->dead)
		return;
	nghttp2_submit_rst_stream(st->c->ng, NGHTTP2_FLAG_NONE, st->id, code);
	conn_kick(st->c);
}

const char *h2s_path(const struct h2s_stream *st)
{
	return st->path;
}

const char *h2s_header(const struct h2s_stream *st, const char *name)
{
	for (size_t i = 0; i < st->n_headers; i++)
		if (strcmp(st->name[i], name) == 0)
			return st->value[i];
	return NULL;
}

const char *h2s_peer(const struct h2s_stream *st, const char *what)
{
	const struct h2s_conn *c = st->c;

	return sw_streq(what, "CN") ? c->cn : sw_streq(what, "OU") ? c->ou : c->o;
}

struct h2s_conn *h2s_conn_of(struct h2s_stream *st)
{
	return st->c;
}

struct h2server *h2s_server_of(struct h2s_stream *st)
{
	return st->c->s;
}

void h2s_set_user(struct h2s_stream *st, void *user)
{
	st->user = user;
}

void *h2s_user(const struct h2s_stream *st)
{
	return st->user;
}

size_t h2s_queued(const struct h2s_stream *st)
{
	return buf_left(&st->out);
}

uint64_t h2s_serial(const struct h2s_stream *st)
{
	return st->serial;
}

/* --- the connection ----------------------------------------------------------------------------
 */

static void server_maybe_done(struct h2server *s)
{
	struct route *r;

	if (!s->closing || s->listener || !TAILQ_EMPTY(&s->conns))
		return;
	while ((r = TAILQ_FIRST(&s->routes))) {
		TAILQ_REMOVE(&s->routes, r, link);
		free(r->path);
		free(r);
	}
	SSL_CTX_free(s->ctx);
	if (s->done)
		*s->done = true;
	free(s);
}

static void on_handle_closed(uv_handle_t *h)
{
	struct h2s_conn *c = h->data;
	struct h2server *s = c->s;
	struct h2s_stream *st;

	if (--c->n_handles > 0)
		return;
	while ((st = TAILQ_FIRST(&c->streams)))
		stream_closed(st, H2S_CONN_LOST);
	nghttp2_session_del(c->ng);
	SSL_free(c->ssl);
	buf_done(&c->raw);
	free(c->cn);
	free(c->ou);
	free(c->o);
	TAILQ_REMOVE(&s->conns, c, link);
	s->stats.conns--;
	free(c);
	server_maybe_done(s);
}

static void conn_close(struct h2s_conn *c, bool reset)
{
	if (c->dead)
		return;
	c->dead = true;
	if (!reset || uv_tcp_close_reset(&c->tcp, (uv_close_cb)on_handle_closed) < 0)
		uv_close((uv_handle_t *)&c->tcp, on_handle_closed);
	uv_close((uv_handle_t *)&c->idle, on_handle_closed);
}

static void on_written(uv_write_t *req, int status)
{
	struct write_req *w = (struct write_req *)req;
	struct h2s_conn *c = w->c;

	free(w);
	if (c->dead)
		return;
	if (status < 0)
		conn_close(c, false);
	else
		conn_kick(c);
}

static void flush_net(struct h2s_conn *c)
{
	size_t n;

	while (!c->dead && (n = BIO_ctrl_pending(c->wbio)) > 0) {
		struct write_req *w;
		uv_buf_t b;

		n = n < OUT_BLOCK ? n : OUT_BLOCK;
		w = xcalloc(1, sizeof(*w) + n);
		w->c = c;
		b = uv_buf_init((char *)w->data, (unsigned)BIO_read(c->wbio, w->data, (int)n));
		if (uv_write(&w->req, (uv_stream_t *)&c->tcp, &b, 1, on_written) < 0) {
			free(w);
			conn_close(c, false);
		}
	}
}

static void plain_out(struct h2s_conn *c, const uint8_t *p, size_t n)
{
	size_t step = c->cfg.split_bytes ? 1 : 16384;

	for (size_t off = 0; off < n && !c->dead; off += step)
		if (SSL_write(c->ssl, p + off, (int)(n - off < step ? n - off : step)) <= 0)
			conn_close(c, false);
}

static void flood(struct h2s_conn *c)
{
	static const uint8_t ping[17] = {0, 0, 8, 6, 0, 0, 0, 0, 0, 'p', 'i', 'n', 'g'};
	static const uint8_t settings[9] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
	unsigned i;

	for (i = 0; c->got_preface && i < FLOOD_BATCH && c->pings_left; i++, c->pings_left--)
		buf_add(&c->raw, ping, sizeof(ping));
	for (i = 0; c->got_preface && i < FLOOD_BATCH && c->settings_left; i++, c->settings_left--)
		buf_add(&c->raw, settings, sizeof(settings));
}

static void conn_pump(struct h2s_conn *c)
{
	while (!c->dead && c->handshaken) {
		const uint8_t *p;
		ssize_t n;

		if (uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp) > WRITE_HIGH)
			break; /* on_written() goes on */
		/* instead of the preface: nothing, or rubbish */
		n = c->cfg.close_after_tls || c->cfg.garbage_after_tls
			    ? 0
			    : nghttp2_session_mem_send(c->ng, &p);
		if (n < 0) {
			conn_close(c, false);
		} else if (n > 0) {
			plain_out(c, p, (size_t)n);
		} else {
			flood(c);
			if (buf_left(&c->raw) == 0)
				break;
			plain_out(c, c->raw.p + c->raw.off, buf_left(&c->raw));
			c->raw.off = c->raw.len;
		}
		if (!c->dead && BIO_ctrl_pending(c->wbio) >= OUT_BLOCK)
			flush_net(c);
	}
	flush_net(c);
	if (c->dead)
		return;
	if (c->handshaken && !nghttp2_session_want_read(c->ng) &&
		!nghttp2_session_want_write(c->ng))
		c->want_eof = true;
	if (c->want_eof && !c->closing) {
		c->closing = true;
		SSL_shutdown(c->ssl);
		flush_net(c);
	}
	if (!c->dead && c->closing && uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp) == 0)
		conn_close(c, false);
}

static void on_idle(uv_idle_t *h)
{
	uv_idle_stop(h);
	conn_pump(h->data);
}

static void conn_kick(struct h2s_conn *c)
{
	if (!c->dead)
		uv_idle_start(&c->idle, on_idle);
}

static char *peer_part(X509_NAME *n, int nid)
{
	char text[256];

	return X509_NAME_get_text_by_NID(n, nid, text, sizeof(text)) > 0 ? xstrdup(text) : NULL;
}

static void session_new(struct h2s_conn *c)
{
	nghttp2_session_callbacks *cb;
	nghttp2_option *opt;
	nghttp2_settings_entry iv[3];
	size_t n = 0;

	nghttp2_session_callbacks_new(&cb);
	nghttp2_option_new(&opt);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_option_set_no_auto_window_update(opt, c->cfg.hold_windows);
	nghttp2_option_set_max_send_header_block_length(opt, 16u << 20);
	nghttp2_session_server_new2(&c->ng, cb, c, opt);
	nghttp2_option_del(opt);
	nghttp2_session_callbacks_del(cb);
	iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 16384};
	if (c->cfg.stream_window)
		iv[n++] = (nghttp2_settings_entry){
			NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->cfg.stream_window};
	if (c->cfg.max_streams)
		iv[n++] = (nghttp2_settings_entry){
			NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->cfg.max_streams};
	nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, iv, n);
}

static void handshake(struct h2s_conn *c)
{
	int r = SSL_do_handshake(c->ssl);
	X509 *peer;

	if (r != 1) {
		if (SSL_get_error(c->ssl, r) != SSL_ERROR_WANT_READ) {
			c->s->stats.handshake_errors++;
			flush_net(c); /* the alert */
			c->closing = true;
			conn_pump(c);
		}
		ERR_clear_error();
		return;
	}
	c->handshaken = true;
	c->s->stats.handshakes++;
	if (SSL_session_reused(c->ssl))
		c->s->stats.resumed++;
	peer = SSL_get0_peer_certificate(c->ssl);
	if (peer) {
		X509_NAME *n = X509_get_subject_name(peer);

		c->cn = peer_part(n, NID_commonName);
		c->ou = peer_part(n, NID_organizationalUnitName);
		c->o = peer_part(n, NID_organizationName);
	}
	if (c->cfg.close_after_tls) {
		flush_net(c);
		c->closing = true;
		conn_pump(c);
	} else if (c->cfg.garbage_after_tls) {
		h2s_conn_garbage(c);
	}
}

static void conn_read(struct h2s_conn *c)
{
	uint8_t plain[16384];

	if (!c->handshaken)
		handshake(c);
	while (!c->dead && c->handshaken && !c->closing) {
		int n = SSL_read(c->ssl, plain, sizeof(plain));

		if (n <= 0) {
			int e = SSL_get_error(c->ssl, n);

			ERR_clear_error();
			if (e != SSL_ERROR_WANT_READ)
				conn_close(c, false);
			break;
		}
		if (nghttp2_session_mem_recv(c->ng, plain, (size_t)n) < 0)
			conn_close(c, false);
		if (!c->dead && c->cfg.never_read && c->got_preface)
			uv_read_stop((uv_stream_t *)&c->tcp);
	}
	if (!c->dead)
		conn_kick(c);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *b)
{
	static char room[65536]; /* used up before the next read */

	(void)h;
	(void)hint;
	*b = uv_buf_init(room, sizeof(room));
}

static void on_net_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct h2s_conn *c = h->data;

	if (c->dead)
		return;
	if (n < 0) {
		conn_close(c, false);
	} else if (n > 0) {
		BIO_write(c->rbio, b->base, (int)n);
		conn_read(c);
	}
}

static void on_connection(uv_stream_t *h, int status)
{
	struct h2server *s = h->data;
	struct h2s_conn *c;

	if (status < 0)
		return;
	c = xcalloc(1, sizeof(*c));
	c->s = s;
	c->cfg = s->cfg;
	c->pings_left = s->cfg.ping_flood;
	c->settings_left = s->cfg.settings_flood;
	TAILQ_INIT(&c->streams);
	TAILQ_INSERT_TAIL(&s->conns, c, link);
	s->stats.conns++;
	s->stats.accepted++;
	uv_tcp_init(sw_loop_uv(s->l), &c->tcp);
	uv_idle_init(sw_loop_uv(s->l), &c->idle);
	c->n_handles = 2;
	c->tcp.data = c->idle.data = c;
	c->ssl = SSL_new(s->ctx);
	c->rbio = BIO_new(BIO_s_mem());
	c->wbio = BIO_new(BIO_s_mem());
	SSL_set_bio(c->ssl, c->rbio, c->wbio);
	SSL_set_accept_state(c->ssl);
	session_new(c);
	if (uv_accept(h, (uv_stream_t *)&c->tcp) < 0) {
		conn_close(c, false);
		return;
	}
	uv_tcp_nodelay(&c->tcp, 1);
	if (!c->cfg.accept_nothing)
		uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_net_read);
}

void h2s_conn_drop(struct h2s_conn *c)
{
	conn_close(c, true);
}

void h2s_conn_eof(struct h2s_conn *c)
{
	c->want_eof = true;
	conn_kick(c);
}

void h2s_conn_garbage(struct h2s_conn *c)
{
	static const char text[] =
		"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n\xff\xff\xff";

	buf_add(&c->raw, text, sizeof(text) - 1);
	conn_kick(c);
}

void h2s_conn_goaway(struct h2s_conn *c, uint32_t code, const char *debug)
{
	if (c->dead)
		return;
	nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE,
		nghttp2_session_get_last_proc_stream_id(c->ng), code, (const uint8_t *)debug,
		debug ? strlen(debug) : 0);
	conn_kick(c);
}

void h2s_conn_pause(struct h2s_conn *c, bool paused)
{
	if (c->dead || c->paused == paused)
		return;
	c->paused = paused;
	if (paused)
		uv_read_stop((uv_stream_t *)&c->tcp);
	else
		uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_net_read);
}

void h2s_conn_ping(struct h2s_conn *c)
{
	if (c->dead)
		return;
	/* what Go sends to measure the bandwidth */
	nghttp2_submit_ping(c->ng, NGHTTP2_FLAG_NONE, (const uint8_t *)"\2\4\20\20\11\16\7\7");
	conn_kick(c);
}

/* --- the server --------------------------------------------------------------------------------
 */

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen,
	const unsigned char *in, unsigned inlen, void *arg)
{
	const struct h2server *s = arg;

	(void)ssl;
	if (s->cfg.alpn == H2S_ALPN_H2)
		for (unsigned i = 0; i < inlen && i + in[i] < inlen; i += in[i] + 1u)
			if (in[i] == 2 && memcmp(in + i + 1, "h2", 2) == 0) {
				*out = in + i + 1;
				*outlen = 2;
				return SSL_TLSEXT_ERR_OK;
			}
	return SSL_TLSEXT_ERR_NOACK;
}

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "h2server: %s: ", what);
	ERR_print_errors_fp(stderr);
	abort();
}

static SSL_CTX *context_new(struct h2server *s, const struct h2s_config *cfg)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	BIO *b = BIO_new_mem_buf(cfg->cert_pem, -1), *k = BIO_new_mem_buf(cfg->key_pem, -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(k, NULL, NULL, NULL);

	must(SSL_CTX_use_certificate(ctx, x), "certificate");
	must(SSL_CTX_use_PrivateKey(ctx, key), "key");
	X509_free(x);
	EVP_PKEY_free(key);
	while ((x = PEM_read_bio_X509(b, NULL, NULL, NULL)))
		must((int)SSL_CTX_add0_chain_cert(ctx, x), "chain");
	ERR_clear_error();
	BIO_free(b);
	BIO_free(k);
	SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"h2server", 8);
	SSL_CTX_set_alpn_select_cb(ctx, on_alpn, s);
	SSL_CTX_set_min_proto_version(ctx, cfg->tls11_only ? TLS1_1_VERSION : TLS1_2_VERSION);
	if (cfg->tls11_only)
		must(SSL_CTX_set_cipher_list(ctx, "ALL:@SECLEVEL=0"), "ciphers");
	if (cfg->tls11_only || cfg->tls12_only)
		SSL_CTX_set_max_proto_version(
			ctx, cfg->tls11_only ? TLS1_1_VERSION : TLS1_2_VERSION);
	if (cfg->client_ca_pem) {
		X509_STORE *store = SSL_CTX_get_cert_store(ctx);

		b = BIO_new_mem_buf(cfg->client_ca_pem, -1);
		while ((x = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
			must(X509_STORE_add_cert(store, x), "client CA");
			X509_free(x);
		}
		ERR_clear_error();
		BIO_free(b);
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	}
	return ctx;
}

void h2server_configure(struct h2server *s, const struct h2s_config *cfg)
{
	SSL_CTX *ctx = context_new(s, cfg);

	SSL_CTX_free(s->ctx);
	s->ctx = ctx;
	s->cfg = *cfg;
	/* the texts live in ctx now */
	s->cfg.cert_pem = s->cfg.key_pem = s->cfg.client_ca_pem = s->cfg.listen = NULL;
}

static void on_listener_closed(uv_handle_t *h)
{
	struct h2server *s = h->data;

	free(h);
	if (s) {
		s->listener = NULL;
		server_maybe_done(s);
	}
}

void h2server_listen(struct h2server *s, bool on)
{
	struct sockaddr_in sa;
	int len = sizeof(sa);

	if (on == (s->listener != NULL))
		return;
	if (!on) {
		/* forgotten at once, so that it can be opened again at once */
		s->listener->data = NULL;
		uv_close((uv_handle_t *)s->listener, on_listener_closed);
		s->listener = NULL;
		return;
	}
	s->listener = xcalloc(1, sizeof(*s->listener));
	uv_tcp_init(sw_loop_uv(s->l), s->listener);
	s->listener->data = s;
	must(uv_ip4_addr(s->host, (int)s->port, &sa) == 0, "address to listen on");
	must(uv_tcp_bind(s->listener, (struct sockaddr *)&sa, 0) == 0, "bind");
	must(uv_listen((uv_stream_t *)s->listener, 128, on_connection) == 0, "listen");
	uv_tcp_getsockname(s->listener, (struct sockaddr *)&sa, &len);
	s->port = ntohs(sa.sin_port);
	snprintf(s->addr, sizeof(s->addr), "%s:%u", s->host, s->port);
}

int h2server_new(struct h2server **ret, struct sw_loop *l, const struct h2s_config *cfg)
{
	struct h2server *s = xcalloc(1, sizeof(*s));

	s->l = l;
	snprintf(s->host, sizeof(s->host), "%s", cfg->listen ? cfg->listen : "127.0.0.1");
	if (strchr(s->host, ':')) {
		s->port = (unsigned)atoi(strchr(s->host, ':') + 1);
		*strchr(s->host, ':') = 0;
	}
	TAILQ_INIT(&s->conns);
	TAILQ_INIT(&s->routes);
	h2server_configure(s, cfg);
	h2server_listen(s, true);
	*ret = s;
	return 0;
}

void h2server_close(struct h2server *s, bool *done)
{
	if (!s) {
		if (done)
			*done = true;
		return;
	}
	s->closing = true;
	s->done = done;
	h2server_drop_all(s);
	if (s->listener) {
		uv_close((uv_handle_t *)s->listener, on_listener_closed);
		return;
	}
	if (TAILQ_EMPTY(&s->conns)) /* nothing left that could call us back */
		server_maybe_done(s);
}

unsigned h2server_port(const struct h2server *s)
{
	return s->port;
}

const char *h2server_addr(const struct h2server *s)
{
	return s->addr;
}

void h2server_drop_all(struct h2server *s)
{
	struct h2s_conn *c;

	TAILQ_FOREACH (c, &s->conns, link)
		conn_close(c, true);
}

void h2server_goaway_all(struct h2server *s, uint32_t code, const char *debug)
{
	struct h2s_conn *c;

	TAILQ_FOREACH (c, &s->conns, link)
		h2s_conn_goaway(c, code, debug);
}

const struct h2server_stats *h2server_stats(const struct h2server *s)
{
	return &s->stats;
}

void h2server_handle(struct h2server *s, const char *path, const struct h2s_handler *h, void *arg)
{
	struct route *r;

	TAILQ_FOREACH (r, &s->routes, link)
		if (sw_streq(r->path, path))
			break;
	if (!r) {
		r = xcalloc(1, sizeof(*r));
		r->path = xstrdup(path);
		TAILQ_INSERT_TAIL(&s->routes, r, link);
	}
	r->h = *h;
	r->arg = arg;
}

void h2server_forget_handlers(struct h2server *s)
{
	struct route *r;

	TAILQ_FOREACH (r, &s->routes, link)
		r->h = (struct h2s_handler){0};
}
