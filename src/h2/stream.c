/* Streams: nghttp2's callbacks turned into ours.
 *
 * A stream's struct lives as long as nghttp2 knows the stream (on_stream_close) or the connection
 * lives; towards its user it ends earlier: with the peer's END_STREAM, with a reset, or with
 * h2_stream_cancel(). From then on it is `detached` and what still arrives for it is dropped and
 * given back to the connection's window.
 *
 * User callbacks run inside nghttp2_session_mem_recv(), never inside mem_send() (except the
 * closed() of a request that could not be sent). They may open, send, cancel and close: all of that
 * only submits to nghttp2 and kicks the connection. */
#include "conn_priv.h"
#include "tls_priv.h"
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

static struct h2_stream *stream_of(nghttp2_session *ng, int32_t id)
{
	return id > 0 ? nghttp2_session_get_stream_user_data(ng, id) : NULL;
}

/* No callbacks while the connection is on its way out: closed() of the streams comes at its end. */
static bool is_silent(const struct h2_stream *s)
{
	return s->detached || s->c->want_close || s->c->ending;
}

static void give_back_all(struct h2_stream *s)
{
	if (s->unconsumed)
		nghttp2_session_consume_connection(s->c->ng, s->unconsumed);
	s->unconsumed = 0;
}

static void detach(struct h2_stream *s)
{
	if (!s->detached)
		s->c->n_streams--;
	s->detached = true;
	chain_done(&s->sendq);
	give_back_all(s);
}

static void finish(struct h2_stream *s, uint32_t code, const struct sw_err *err)
{
	if (is_silent(s))
		return;
	detach(s);
	if (s->ev.closed)
		s->ev.closed(s->arg, code, err);
}

static void stream_free(struct h2_stream *s)
{
	TAILQ_REMOVE(&s->c->streams, s, link);
	if (!s->detached)
		s->c->n_streams--;
	chain_done(&s->sendq);
	free(s);
}

/* The peer said all it has to say. If we have not, nobody listens any more: end the stream so that
 * it does not linger (what gRPC's own clients send then is a reset with NO_ERROR). */
static void peer_ended(struct h2_stream *s)
{
	s->peer_ended = true;
	if (!s->local_ended)
		nghttp2_submit_rst_stream(s->c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
	finish(s, NGHTTP2_NO_ERROR, NULL);
}

/* --- header blocks -----------------------------------------------------------------------------
 */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2_conn *c = user;

	(void)ng;
	(void)f;
	c->head_len = c->head_n = 0;
	return 0;
}

/* Blocks of different streams never interleave (RFC 9113 4.3), so one buffer does. */
static int on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nlen,
	const uint8_t *value, size_t vlen, uint8_t flags, void *user)
{
	struct h2_conn *c = user;
	struct h2_stream *s = stream_of(ng, f->hd.stream_id);

	(void)flags;
	if (!s || s->detached)
		return 0;
	if (c->head_n == H2_MAX_HEADERS || nlen + vlen + 2 > H2_MAX_HEAD_LEN - c->head_len) {
		s->head_too_big = true;
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets this stream only */
	}
	if (!c->head)
		c->head = xcalloc(1, H2_MAX_HEAD_LEN);
	memcpy(c->head + c->head_len, name, nlen);
	c->head[c->head_len + nlen] = 0;
	c->head_len += nlen + 1;
	memcpy(c->head + c->head_len, value, vlen);
	c->head[c->head_len + vlen] = 0;
	c->head_len += vlen + 1;
	c->head_n++;
	return 0;
}

static void headers_done(struct h2_stream *s, bool end)
{
	struct h2_header h[H2_MAX_HEADERS];
	struct h2_conn *c = s->c;
	const char *p = c->head;
	bool trailers = s->have_head;
	size_t n = c->head_n;

	for (size_t i = 0; i < n; i++) {
		h[i].name = p;
		p += strlen(p) + 1;
		h[i].value = p;
		p += strlen(p) + 1;
		if (strcmp(h[i].name, ":status") == 0 && h[i].value[0] == '1')
			return; /* informational, the real head follows */
	}
	c->head_len = c->head_n = 0;
	s->have_head = true;
	if (s->ev.headers)
		s->ev.headers(s->arg, h, n, trailers, end);
}

/* --- frames ------------------------------------------------------------------------------------
 */

static void on_goaway(struct h2_conn *c, const nghttp2_goaway *f)
{
	size_t n = f->opaque_data_len;

	if (n >= sizeof(c->goaway_text))
		n = sizeof(c->goaway_text) - 1;
	for (size_t i = 0; i < n; i++)
		c->goaway_text[i] = isprint(f->opaque_data[i]) ? (char)f->opaque_data[i] : '.';
	c->goaway_text[n] = 0;
	c->goaway_code = f->error_code;
	c->goaway = true;
	if (!c->goaway_told && !c->want_close && c->ev.goaway) {
		c->goaway_told = true;
		c->ev.goaway(c->arg, f->error_code);
	}
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2_conn *c = user;
	struct h2_stream *s = stream_of(ng, f->hd.stream_id);
	bool end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;

	switch (f->hd.type) {
	case NGHTTP2_SETTINGS:
		if (!(f->hd.flags & NGHTTP2_FLAG_ACK))
			conn_ready(c);
		break;
	case NGHTTP2_GOAWAY:
		on_goaway(c, &f->goaway);
		break;
	case NGHTTP2_RST_STREAM:
		if (s)
			s->peer_reset = true;
		break;
	case NGHTTP2_HEADERS:
		if (!s || is_silent(s))
			break;
		headers_done(s, end);
		if (end && !is_silent(s))
			peer_ended(s);
		break;
	case NGHTTP2_DATA:
		if (!s || is_silent(s) || !end)
			break;
		if (s->ev.data) {
			struct chain none = {0};

			s->ev.data(s->arg, &none, true);
		}
		if (!is_silent(s))
			peer_ended(s);
		break;
	default:
		break;
	}
	return 0;
}

static int on_data(
	nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t len, void *user)
{
	struct h2_conn *c = user;
	struct h2_stream *s = stream_of(ng, id);
	struct chain data = {0};

	(void)flags;
	if (!s || is_silent(s)) {
		nghttp2_session_consume_connection(ng, len);
		return 0;
	}
	s->unconsumed += len;
	if (len < H2_COPY_BELOW) {
		if (chain_append(&data, p, len) < 0)
			return NGHTTP2_ERR_CALLBACK_FAILURE;
	} else {
		chain_append_block(&data, c->plain, (size_t)(p - block_data(c->plain)), len);
		c->plain_kept = true;
	}
	if (s->ev.data)
		s->ev.data(s->arg, &data, false);
	chain_done(&data);
	return 0;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int lib_error, void *user)
{
	struct h2_stream *s = stream_of(ng, f->hd.stream_id);

	(void)user;
	if (s)
		s->lib_error = lib_error;
	return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2_stream *s = stream_of(ng, f->hd.stream_id);
	struct h2_conn *c = user;

	if (f->hd.type == NGHTTP2_GOAWAY && f->goaway.error_code != NGHTTP2_NO_ERROR)
		snprintf(c->broken, sizeof(c->broken), "%s%s%.*s",
			nghttp2_http2_strerror(f->goaway.error_code),
			f->goaway.opaque_data_len ? ", " : "",
			(int)(f->goaway.opaque_data_len < 100 ? f->goaway.opaque_data_len : 100),
			(const char *)f->goaway.opaque_data);
	if (!s)
		return 0;
	if (f->hd.type == NGHTTP2_HEADERS)
		s->head_sent = true;
	if (f->hd.type == NGHTTP2_DATA && f->hd.flags & NGHTTP2_FLAG_END_STREAM)
		s->local_ended = true;
	return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
	struct h2_stream *s = stream_of(ng, id);
	struct h2_conn *c = user;
	struct sw_err err;

	if (!s)
		return 0;
	nghttp2_session_set_stream_user_data(ng, id, NULL);
	give_back_all(s);
	if (s->head_too_big)
		sw_err_set(&err, SW_TEMPORARY, -E2BIG,
			"the peer sent more than %u headers or %u bytes of them", H2_MAX_HEADERS,
			H2_MAX_HEAD_LEN);
	else if (s->lib_error)
		sw_err_set(&err, SW_TEMPORARY, -EPROTO, "the peer's answer breaks HTTP/2: %s",
			nghttp2_strerror(s->lib_error));
	else if (c->goaway && !s->peer_reset) {
		/* never started or not processed: it may be sent again elsewhere */
		code = NGHTTP2_REFUSED_STREAM;
		sw_err_set(&err, SW_TEMPORARY, -ECONNREFUSED,
			"the peer takes no new calls on this connection (GOAWAY %u%s%s)",
			c->goaway_code, c->goaway_text[0] ? ", " : "", c->goaway_text);
	} else
		sw_err_set(&err, SW_TEMPORARY, -ECONNRESET, "the peer reset the stream: %s (%u)",
			nghttp2_http2_strerror(code), code);
	finish(s, code, &err);
	if (!c->want_close && !c->ending)
		stream_free(s);
	/* else h2_streams_end() tells its user */
	return 0;
}

/* --- sending -----------------------------------------------------------------------------------
 */

static ssize_t on_source_read(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t room,
	uint32_t *flags, nghttp2_data_source *src, void *user)
{
	struct h2_stream *s = src->ptr;
	size_t n = chain_len(&s->sendq);

	(void)ng;
	(void)id;
	(void)buf;
	(void)user;
	if (s->detached || (n == 0 && !s->send_end)) {
		s->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	if (n > room)
		n = room;
	else if (s->send_end)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (n > 0)
		*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	return (ssize_t)n;
}

static int on_send_data(nghttp2_session *ng, nghttp2_frame *f, const uint8_t *head, size_t len,
	nghttp2_data_source *src, void *user)
{
	struct h2_stream *s = src->ptr;
	struct h2_conn *c = user;

	(void)ng;
	(void)f; /* no padding: no callback chooses one */
	if (conn_is_full(c))
		return NGHTTP2_ERR_WOULDBLOCK; /* asked again from on_written() */
	/* cancelled between the choice and the sending */
	if (chain_len(&s->sendq) < len)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (!conn_put(c, head, 9) || !conn_put_chain(c, &s->sendq, len))
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	if (s->wait_writable && chain_len(&s->sendq) <= H2_SEND_HIGH / 2)
		c->someone_writable = true;
	return 0;
}

void h2_streams_writable(struct h2_conn *c)
{
	struct h2_stream *s;

	if (!c->someone_writable)
		return;
	c->someone_writable = false;
	/* callbacks may detach streams and open new ones, but frees happen inside nghttp2 only */
	TAILQ_FOREACH (s, &c->streams, link) {
		if (!s->wait_writable || is_silent(s) || chain_len(&s->sendq) > H2_SEND_HIGH / 2)
			continue;
		s->wait_writable = false;
		if (s->ev.writable)
			s->ev.writable(s->arg);
	}
}

/* --- the door ----------------------------------------------------------------------------------
 */

int h2_session_new(struct h2_conn *c, struct sw_err *err)
{
	static const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_MAX_HEAD_LEN},
	};
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *opt = NULL;
	int r = nghttp2_session_callbacks_new(&cb);

	if (r == 0)
		r = nghttp2_option_new(&opt);
	if (r == 0) {
		nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
		nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
		nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
		nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
		nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
		nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
		nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
		nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
		nghttp2_option_set_no_auto_window_update(opt, 1);
		/* nghttp2's own limits on queued acknowledgements (1000) and settings (32) stay */
		r = nghttp2_session_client_new2(&c->ng, cb, c, opt);
	}
	if (r == 0)
		r = nghttp2_submit_settings(
			c->ng, NGHTTP2_FLAG_NONE, settings, SW_ARRAY_LEN(settings));
	if (r == 0)
		r = nghttp2_session_set_local_window_size(
			c->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)H2_CONN_WINDOW);
	nghttp2_option_del(opt);
	nghttp2_session_callbacks_del(cb);
	return r == 0 ? 0
		      : sw_err_set(err, SW_TEMPORARY, -ENOMEM, "HTTP/2: %s", nghttp2_strerror(r));
}

void h2_streams_end(struct h2_conn *c, const struct sw_err *err)
{
	struct h2_stream *s;

	/* one by one from the front: a callback may cancel another stream */
	while ((s = TAILQ_FIRST(&c->streams))) {
		bool tell = !s->detached;

		if (tell) {
			s->detached = true;
			c->n_streams--;
			if (s->ev.closed)
				s->ev.closed(s->arg, NGHTTP2_NO_ERROR, err);
		}
		stream_free(s);
	}
}

static nghttp2_nv nv_of(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
		strlen(value), NGHTTP2_NV_FLAG_NONE};
}

struct h2_stream *h2_stream_open(struct h2_conn *c, const char *path, const struct h2_header *h,
	size_t n, struct chain *body, const struct h2_stream_events *ev, void *arg)
{
	struct h2_stream *s;
	nghttp2_nv *nv;
	nghttp2_data_provider source = {.read_callback = on_source_read};

	if (c->want_close || c->ending || c->goaway)
		return NULL;
	s = xcalloc(1, sizeof(*s));
	s->c = c;
	s->ev = *ev;
	s->arg = arg;
	source.source.ptr = s;
	nv = xcalloc(n + 4, sizeof(*nv));
	nv[0] = nv_of(":method", "POST");
	nv[1] = nv_of(":scheme", "https");
	nv[2] = nv_of(":authority", tls_creds_name(c->creds));
	nv[3] = nv_of(":path", path);
	for (size_t i = 0; i < n; i++)
		nv[4 + i] = nv_of(h[i].name, h[i].value);
	/* with a source END_STREAM never goes on the HEADERS frame */
	s->id = nghttp2_submit_request(c->ng, NULL, nv, n + 4, &source, s);
	free(nv);
	if (s->id < 0) { /* stream ids are used up, or memory is */
		c->goaway = true;
		free(s);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&c->streams, s, link);
	c->n_streams++;
	if (body) {
		chain_append_chain(&s->sendq, body);
		s->send_end = true;
	}
	conn_kick(c);
	return s;
}

bool h2_stream_send(struct h2_stream *s, struct chain *data, bool end)
{
	if (s->detached || s->send_end) {
		chain_done(data);
		return true;
	}
	chain_append_chain(&s->sendq, data);
	s->send_end = end;
	if (s->deferred && (end || chain_len(&s->sendq) > 0)) {
		s->deferred = false;
		nghttp2_session_resume_data(s->c->ng, s->id);
	}
	conn_kick(s->c);
	if (chain_len(&s->sendq) <= H2_SEND_HIGH)
		return true;
	s->wait_writable = true;
	return false;
}

void h2_stream_consumed(struct h2_stream *s, size_t n)
{
	if (n > s->unconsumed)
		n = s->unconsumed;
	if (n == 0 || s->detached || s->c->ending)
		return;
	s->unconsumed -= n;
	nghttp2_session_consume(s->c->ng, s->id, n);
	conn_kick(s->c);
}

void h2_stream_cancel(struct h2_stream *s)
{
	if (!s || s->detached)
		return;
	detach(s);
	if (s->c->ending)
		return;
	nghttp2_submit_rst_stream(s->c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
	conn_kick(s->c);
}
