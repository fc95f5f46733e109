/* One transfer: its easy handle, its body in and out, its limits, its callbacks. */
#include <errno.h>
#include <string.h>
#include <swarm/mem.h>

#include "http-internal.h"

#define MAX_HEADERS      128
#define MAX_HEADER_BYTES (64u << 10)
#define BLOCK_BYTES      (16u << 10)
#define UNIX_CONNECT     sw_s(2)
#define TCP_CONNECT      sw_s(10)
#define KEEPALIVE_S      30L

static void fail(struct http_call *c, int code, const char *what)
{
	if (c->err.cls == SW_OK)
		sw_err_set(&c->err, SW_TEMPORARY, code, "%s", what);
}

/* ---- receiving */

static void forget_head(struct http_call *c)
{
	for (size_t i = 0; i < c->n_head; i++)
		free((char *)c->head[i].name);
	c->n_head = 0;
	c->head_bytes = 0;
}

static bool add_header(struct http_call *c, const char *p, size_t len)
{
	const char *colon = memchr(p, ':', len);
	char *copy, *value;

	if (!colon)
		return true; /* not for us */
	c->head_bytes += len;
	if (c->n_head >= MAX_HEADERS || c->head_bytes > MAX_HEADER_BYTES) {
		fail(c, -E2BIG, "response has too many headers");
		return false;
	}
	copy = xstrndup(p, len);
	copy[colon - p] = '\0';
	for (value = copy + (colon - p) + 1; *value == ' ' || *value == '\t'; value++)
		;
	len = strlen(value);
	while (len && strchr(" \t\r\n", value[len - 1]))
		value[--len] = '\0';
	if (!c->head)
		c->head = xcalloc(MAX_HEADERS, sizeof(*c->head));
	c->head[c->n_head++] = (struct http_header){copy, value};
	return true;
}

/* One line at a time, ending in CRLF or LF; the empty line ends a head, and 1xx heads come before
 * the one that counts. Trailers of a chunked body come here too. */
static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	size_t len = size * n;
	long status = 0;

	if (c->state != HTTP_RUNNING)
		return 0;
	c->last_rx_ns = sw_now(c->http->loop);
	if (c->head_done)
		return len;
	if (len > 5 && strncmp(p, "HTTP/", 5) == 0) {
		forget_head(c);
		return len;
	}
	if (p[0] != '\r' && p[0] != '\n')
		return add_header(c, p, len) ? len : 0;
	curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 100 && status < 200)
		return len;
	c->head_done = true;
	c->status = (int)status;
	if (c->ev.head)
		c->ev.head(c->arg, c->status, c->head, c->n_head);
	return c->state == HTTP_RUNNING ? len : 0;
}

/* The one copy: from curl's buffer into our block. A block is shared by the pieces that arrive one
 * after the other, so a body in chunks of one byte does not cost a block for each. */
static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	size_t len = size * n, done = 0;

	if (c->state != HTTP_RUNNING)
		return 0;
	if (c->paused) {
		c->curl_paused = true;
		sw_timer_stop(&c->limit);
		http_call_arm(c);
		return CURL_WRITEFUNC_PAUSE; /* curl keeps these bytes and stops reading */
	}
	c->last_rx_ns = sw_now(c->http->loop);
	while (done < len) {
		size_t room;
		struct iovec iov;
		struct uio uio;

		if (!c->block || c->block_used == block_size(c->block)) {
			block_unref(c->block);
			c->block = block_new(BLOCK_BYTES);
			c->block_used = 0;
			if (!c->block) {
				fail(c, -ENOMEM, "no memory for the response");
				return 0;
			}
		}
		room = block_size(c->block) - c->block_used;
		if (room > len - done)
			room = len - done;
		iov = (struct iovec){p + done, room};
		uio_init_sys(&uio, &iov, 1, UIO_WRITE);
		uiomove(block_data(c->block) + c->block_used, room, &uio);
		chain_append_block(&c->rx, c->block, c->block_used, room);
		c->block_used += room;
		done += room;
	}
	if (c->ev.data)
		c->ev.data(c->arg, &c->rx);
	chain_done(&c->rx);
	return c->state == HTTP_RUNNING ? len : 0;
}

/* ---- sending */

static size_t on_read(char *p, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	size_t len = size * n, before = chain_len(&c->left);
	struct iovec iov = {p, len};
	struct uio uio;

	uio_init_sys(&uio, &iov, 1, UIO_READ);
	if (chain_uiomove(&c->left, len, &uio) != 0)
		return CURL_READFUNC_ABORT;
	return before - chain_len(&c->left);
}

/* curl starts over when a kept connection turns out to be dead. */
static int on_seek(void *arg, curl_off_t off, int origin)
{
	struct http_call *c = arg;

	if (origin != SEEK_SET || off < 0 || (size_t)off > chain_len(&c->body))
		return CURL_SEEKFUNC_CANTSEEK;
	chain_done(&c->left);
	chain_share(&c->left, &c->body, (size_t)off, chain_len(&c->body) - (size_t)off);
	return CURL_SEEKFUNC_OK;
}

/* ---- limits */

static uint64_t due(const struct http_call *c)
{
	uint64_t at = UINT64_MAX;

	if (c->total_ns)
		at = c->started_ns + c->total_ns;
	/* nothing can arrive while nobody wants it */
	if (c->idle_ns && !c->paused && c->last_rx_ns + c->idle_ns < at)
		at = c->last_rx_ns + c->idle_ns;
	return at;
}

static void on_limit(void *arg)
{
	struct http_call *c = arg;
	uint64_t now = sw_now(c->http->loop);

	if (due(c) > now) { /* bytes came meanwhile */
		http_call_arm(c);
		return;
	}
	c->state = HTTP_FAILED;
	if (c->total_ns && c->started_ns + c->total_ns <= now)
		sw_err_set(&c->err, SW_TEMPORARY, -ETIMEDOUT, "no complete answer within %llu ms",
			(unsigned long long)(c->total_ns / SW_NS_PER_MS));
	else
		sw_err_set(&c->err, SW_TEMPORARY, -ETIMEDOUT, "nothing received for %llu ms",
			(unsigned long long)(c->idle_ns / SW_NS_PER_MS));
	http_poke(c->http);
}

void http_call_arm(struct http_call *c)
{
	uint64_t at = due(c);

	if (at == UINT64_MAX)
		sw_timer_stop(&c->limit);
	else
		sw_timer_arm_at(&c->limit, at);
}

/* ---- the easy handle */

static void set_method(struct http_call *c)
{
	bool post = strcmp(c->method, "POST") == 0;
	size_t len = chain_len(&c->body);

	if (strcmp(c->method, "HEAD") == 0) {
		curl_easy_setopt(c->easy, CURLOPT_NOBODY, 1L);
		return;
	}
	if (strcmp(c->method, "GET") == 0 && !len)
		return;
	if (post || len) {
		curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
		if (len) {
			on_seek(c, 0, SEEK_SET);
			curl_easy_setopt(c->easy, CURLOPT_READFUNCTION, on_read);
			curl_easy_setopt(c->easy, CURLOPT_READDATA, c);
			curl_easy_setopt(c->easy, CURLOPT_SEEKFUNCTION, on_seek);
			curl_easy_setopt(c->easy, CURLOPT_SEEKDATA, c);
		} else {
			curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, "");
		}
	}
	if (!post)
		curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, c->method);
}

int http_call_setup(struct http_call *c, struct sw_err *err)
{
	struct http *h = c->http;
	uint64_t connect = c->connect_ns;
	CURL *e = c->easy = curl_easy_init();

	if (!e)
		return sw_err_set(err, SW_TEMPORARY, -ENOMEM, "no curl handle");
	if (!connect)
		connect = h->unix_path ? UNIX_CONNECT : TCP_CONNECT;
	curl_easy_setopt(e, CURLOPT_PRIVATE, c);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->curl_err);
	curl_easy_setopt(e, CURLOPT_URL, c->url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(e, CURLOPT_NETRC, CURL_NETRC_IGNORED);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* a cancel does not wait for the resolver */
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect / SW_NS_PER_MS));
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
	http_sockets(h, e);
	if (h->unix_path) {
		curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, h->unix_path);
	} else {
		curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
		curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
		curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_S);
	}
	if (h->ca_file)
		curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
	if (h->cert_file)
		curl_easy_setopt(e, CURLOPT_SSLCERT, h->cert_file);
	if (h->key_file)
		curl_easy_setopt(e, CURLOPT_SSLKEY, h->key_file);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
	if (h->insecure) {
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	set_method(c);
	/* A request on a kept connection that the peer is just closing is sent again by curl. What
	 * is not idempotent must not be executed twice behind our back, so it never uses one. */
	if (c->stream || strcmp(c->method, "POST") == 0)
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
	if (c->stream)
		curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
	return 0;
}

static int os_code(CURL *e, int otherwise)
{
	long os = 0;

	curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &os);
	return os > 0 ? -(int)os : otherwise;
}

void http_call_classify(struct http_call *c, CURLcode code, struct sw_err *err)
{
	const char *text = c->curl_err[0] ? c->curl_err : curl_easy_strerror(code);
	const char *where = c->http->unix_path ? c->http->unix_path : c->http->base_url;
	int n;

	if (c->err.cls != SW_OK) { /* one of our callbacks refused, and said why */
		*err = c->err;
		return;
	}
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		n = os_code(c->easy, -ECONNREFUSED);
		sw_err_set(err, SW_TEMPORARY, n, "cannot connect to %s: %s", where, strerror(-n));
		return;
	case CURLE_COULDNT_RESOLVE_HOST:
		sw_err_set(err, SW_TEMPORARY, -EHOSTUNREACH, "cannot resolve %s: %s", where, text);
		return;
	case CURLE_OPERATION_TIMEDOUT:
		sw_err_set(err, SW_TEMPORARY, -ETIMEDOUT, "cannot connect to %s: timeout", where);
		return;
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_GOT_NOTHING:
		sw_err_set(err, SW_TEMPORARY, -ECONNRESET, "connection lost%s: %s",
			c->head_done ? " within the answer" : " before the answer", text);
		return;
	case CURLE_OUT_OF_MEMORY:
		sw_err_set(err, SW_TEMPORARY, -ENOMEM, "%s", text);
		return;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CIPHER:
		sw_err_setd(err, SW_TEMPORARY, SW_E_TLS, (int)code, "TLS with %s: %s", where, text);
		return;
	default:
		sw_err_set(err, SW_TEMPORARY, -EPROTO, "%s", text);
	}
}

void http_call_report(struct http_call *c, const struct sw_err *err)
{
	if (c->ev.done)
		c->ev.done(c->arg, c->status, err);
}

void http_call_free(struct http_call *c)
{
	sw_timer_stop(&c->limit);
	if (c->easy)
		curl_easy_cleanup(c->easy);
	curl_slist_free_all(c->headers);
	forget_head(c);
	free(c->head);
	block_unref(c->block);
	chain_done(&c->rx);
	chain_done(&c->left);
	chain_done(&c->body);
	free(c->url);
	free(c->method);
	free(c);
}

/* ---- door */

static void add_line(struct http_call *c, const char *name, const char *value)
{
	/* "Name;" is curl's way to send a header with an empty value */
	sw_auto_free char *line =
		*value ? xasprintf("%s: %s", name, value) : xasprintf("%s;", name);
	struct curl_slist *l = curl_slist_append(c->headers, line);

	if (!l)
		abort(); /* a few bytes of our own: as xcalloc() */
	c->headers = l;
}

struct http_call *http_start(
	struct http *h, const struct http_request *req, const struct http_events *ev, void *arg)
{
	struct http_call *c = xcalloc(1, sizeof(*c));
	static const char *const none[] = {"Expect:", "Accept-Encoding:", "Content-Type:"};
	bool typed = false;

	c->http = h;
	c->fd = CURL_SOCKET_BAD;
	c->ev = *ev;
	c->arg = arg;
	c->stream = req->stream;
	c->method = xstrdup(req->method);
	c->url = xasprintf("%s%s", h->base_url, req->path);
	c->connect_ns = req->connect_ns;
	c->total_ns = req->total_ns;
	c->idle_ns = req->idle_ns;
	sw_timer_init(&c->limit, h->loop, on_limit, c);
	chain_init(&c->body);
	if (req->body)
		chain_append_chain(&c->body, req->body);
	for (size_t i = 0; i < req->n_headers; i++) {
		const struct http_header *hd = &req->headers[i];

		if (strpbrk(hd->name, "\r\n:") || strpbrk(hd->value, "\r\n")) {
			c->state = HTTP_FAILED;
			sw_err_set(&c->err, SW_REJECTED, -EINVAL,
				"header \"%.64s\" contains a line break", hd->name);
			break;
		}
		typed |= strcasecmp(hd->name, "Content-Type") == 0;
		add_line(c, hd->name, hd->value);
	}
	for (size_t i = 0; i < SW_ARRAY_LEN(none) - (typed ? 1 : 0); i++) {
		struct curl_slist *l = curl_slist_append(c->headers, none[i]);

		if (!l)
			abort();
		c->headers = l;
	}
	if (strpbrk(req->path, " \r\n\t") || req->path[0] != '/') {
		c->state = HTTP_FAILED;
		sw_err_set(
			&c->err, SW_REJECTED, -EINVAL, "path \"%.128s\" is not encoded", req->path);
	}
	TAILQ_INSERT_TAIL(&h->calls, c, link);
	http_poke(h);
	return c;
}

void http_pause(struct http_call *c)
{
	c->paused = true;
}

void http_resume(struct http_call *c)
{
	if (!c->paused)
		return;
	c->paused = false;
	c->last_rx_ns = sw_now(c->http->loop);
	if (c->state == HTTP_RUNNING)
		http_call_arm(c);
	http_poke(c->http); /* if curl holds bytes, they come from the loop */
}

void http_cancel(struct http_call *c)
{
	if (!c)
		return;
	c->state = HTTP_GONE;
	sw_timer_stop(&c->limit);
	http_poke(c->http);
}
