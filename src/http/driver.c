/* The libcurl multi on the loop: sockets, timer, and the one place where transfers enter and leave.
 *
 * curl must not be re-entered from its own callbacks, and our users start, cancel and close from
 * theirs. So every door function only notes what it wants and calls http_poke(); settle() does it
 * once curl is off the stack:
 *
 *   http_start  -> PENDING -> settle: into the multi -> RUNNING -> curl says done -> report, free
 *   http_cancel -> GONE    -> settle: out of the multi, free
 *   own limit   -> FAILED  -> settle: out of the multi, report, free
 *   http_resume -> settle: curl_easy_pause(), which calls back with what curl held
 *   http_close  -> closing -> all calls GONE, multi cleaned up, last poll handle closed -> closed()
 *
 * Sockets are opened and closed by us on curl's behalf, so http_drop_idle() can shut down those
 * that no transfer uses: curl notices before it would use them again. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "http-internal.h"

static void settle(struct http *h);

/* ---- sockets */

static struct http_sock *find_sock(struct http *h, curl_socket_t fd)
{
	struct http_sock *s;

	TAILQ_FOREACH (s, &h->socks, link)
		if (s->fd == fd)
			return s;
	return NULL;
}

static void on_poll_closed(uv_handle_t *u)
{
	struct http *h = u->data;

	free(u);
	h->n_polls--;
	http_poke(h);
}

static void unwatch(struct http_sock *s)
{
	if (!s->poll)
		return;
	s->poll->data = s->http;
	uv_poll_stop(s->poll);
	uv_close((uv_handle_t *)s->poll, on_poll_closed);
	s->poll = NULL;
}

static void forget(struct http_sock *s)
{
	unwatch(s);
	TAILQ_REMOVE(&s->http->socks, s, link);
	free(s);
}

/* Every socket has an inode number of its own, a file descriptor is soon another one's. */
static ino_t inode(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static struct http_sock *remember(struct http *h, curl_socket_t fd, bool foreign)
{
	struct http_sock *s = find_sock(h, fd);

	/* libcurl 7.88 closes a socket whose connect() fails at once without asking us: the entry
	 * is stale, the number is used again. */
	if (s)
		forget(s);
	s = xcalloc(1, sizeof(*s));
	s->http = h;
	s->fd = fd;
	s->ino = inode(fd);
	s->foreign = foreign;
	TAILQ_INSERT_TAIL(&h->socks, s, link);
	return s;
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	curl_socket_t fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);

	(void)purpose;
	if (fd < 0)
		return CURL_SOCKET_BAD;
	remember(arg, fd, false);
	return fd;
}

static int close_socket(void *arg, curl_socket_t fd)
{
	struct http_sock *s = find_sock(arg, fd);

	if (s)
		forget(s);
	return close(fd);
}

static void action(struct http *h, curl_socket_t fd, int events)
{
	int running;

	h->depth++;
	curl_multi_socket_action(h->multi, fd, events, &running);
	h->depth--;
	settle(h);
}

static void on_poll(uv_poll_t *u, int status, int events)
{
	struct http_sock *s = u->data;
	int ev = 0;

	if (status < 0)
		ev = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		ev |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		ev |= CURL_CSELECT_OUT;
	action(s->http, s->fd, ev);
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
	struct http *h = arg;
	struct http_sock *s = find_sock(h, fd);
	struct http_call *c = NULL;
	int r, events = 0;

	(void)sockp;
	if (what == CURL_POLL_REMOVE) {
		if (s && s->foreign)
			forget(s);
		else if (s)
			unwatch(s);
		return 0;
	}
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &c);
	if (c)
		c->fd = fd;
	if (!s) /* the resolver's wake-up pipe: not opened through us */
		s = remember(h, fd, true);
	if (!s->poll) {
		uv_poll_t *poll = xcalloc(1, sizeof(*poll));

		r = uv_poll_init_socket(sw_loop_uv(h->loop), poll, fd);
		if (r < 0) {
			/* An error here would make curl give up the whole multi. So this transfer
			 * runs into its limits. */
			log_err("http: cannot watch socket", KS("error", uv_strerror(r)));
			free(poll);
			return 0;
		}
		s->poll = poll;
		poll->data = s;
		h->n_polls++;
	}
	if (what & CURL_POLL_IN)
		events |= UV_READABLE;
	if (what & CURL_POLL_OUT)
		events |= UV_WRITABLE;
	r = uv_poll_start(s->poll, events, on_poll);
	assert(r == 0);
	(void)r;
	return 0;
}

void http_sockets(struct http *h, CURL *e)
{
	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, h);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, h);
}

/* ---- time */

static int on_curl_timeout(CURLM *multi, long ms, void *arg)
{
	struct http *h = arg;

	(void)multi;
	if (ms < 0)
		sw_timer_stop(&h->timer);
	else
		sw_timer_arm(&h->timer, sw_ms((uint64_t)ms));
	return 0;
}

static void on_curl_timer(void *arg)
{
	action(arg, CURL_SOCKET_TIMEOUT, 0);
}

void http_poke(struct http *h)
{
	if (!sw_timer_armed(&h->kick))
		sw_timer_arm(&h->kick, 0);
}

/* ---- transfers in and out */

static void take_out(struct http_call *c)
{
	struct http *h = c->http;

	sw_timer_stop(&c->limit);
	if (!c->in_multi)
		return;
	c->in_multi = false;
	if (!c->stream)
		h->n_unary--;
	h->depth++;
	curl_multi_remove_handle(h->multi, c->easy);
	h->depth--;
}

static void drop(struct http_call *c)
{
	take_out(c);
	TAILQ_REMOVE(&c->http->calls, c, link);
	http_call_free(c);
}

static void finish(struct http_call *c, const struct sw_err *err)
{
	take_out(c);
	c->state = HTTP_GONE; /* a cancel from inside done() finds nothing to do */
	http_call_report(c, err);
	TAILQ_REMOVE(&c->http->calls, c, link);
	http_call_free(c);
}

static bool put_in(struct http_call *c)
{
	struct http *h = c->http;
	struct sw_err err = SW_ERR_NONE;

	if (!c->stream && h->n_unary >= h->max_connections)
		return false;
	if (http_call_setup(c, &err) < 0) {
		c->state = HTTP_FAILED;
		c->err = err;
		return true;
	}
	c->state = HTTP_RUNNING;
	c->in_multi = true;
	if (!c->stream)
		h->n_unary++;
	c->started_ns = c->last_rx_ns = sw_now(h->loop);
	http_call_arm(c);
	h->depth++;
	curl_multi_add_handle(h->multi, c->easy);
	h->depth--;
	return true;
}

/* One pass over the calls; true if something changed. Callbacks run in here, so after any of them
 * the pass is over: the list may be another one. */
static bool settle_one(struct http *h)
{
	struct http_call *c;
	struct sw_err err;
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(h->multi, &left))) {
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &c);
		if (c->state != HTTP_RUNNING)
			continue;
		err = SW_ERR_NONE;
		if (code != CURLE_OK)
			http_call_classify(c, code, &err);
		finish(c, code == CURLE_OK ? NULL : &err);
		return true;
	}
	TAILQ_FOREACH (c, &h->calls, link) {
		if (c->state == HTTP_GONE) {
			drop(c);
			return true;
		}
		if (c->state == HTTP_FAILED) {
			err = c->err;
			finish(c, &err);
			return true;
		}
		if (c->state == HTTP_RUNNING && c->curl_paused && !c->paused) {
			c->curl_paused = false;
			c->last_rx_ns = sw_now(h->loop);
			http_call_arm(c);
			h->depth++;
			curl_easy_pause(c->easy, CURLPAUSE_CONT);
			h->depth--;
			return true;
		}
	}
	return false;
}

static bool start_pending(struct http *h)
{
	struct http_call *c;
	bool any = false;

	TAILQ_FOREACH (c, &h->calls, link)
		if (c->state == HTTP_PENDING && put_in(c))
			any = true;
	return any;
}

static void drop_idle(struct http *h)
{
	struct http_call *c;
	struct http_sock *s;

	h->drop_idle = false;
	TAILQ_FOREACH (s, &h->socks, link) {
		bool used = s->poll || s->foreign;

		TAILQ_FOREACH (c, &h->calls, link) /* a paused one is not watched, but not idle */
			if (c->in_multi && c->fd == s->fd)
				used = true;
		if (!used && inode(s->fd) == s->ino)
			shutdown(s->fd, SHUT_RDWR);
	}
}

static void settle(struct http *h)
{
	if (h->depth || h->settling || h->closing)
		return;
	h->settling = true;
	for (;;) {
		while (!h->closing && settle_one(h))
			;
		if (h->closing)
			break;
		if (h->drop_idle)
			drop_idle(h);
		if (!start_pending(h))
			break;
	}
	h->settling = false;
}

static void on_kick(void *arg)
{
	struct http *h = arg;
	struct http_call *c;

	if (!h->closing) {
		settle(h);
		return;
	}
	while ((c = TAILQ_FIRST(&h->calls)))
		drop(c);
	if (h->multi) {
		/* closes the kept connections, which comes back as close_socket() */
		h->depth++;
		curl_multi_cleanup(take(h->multi));
		h->depth--;
		sw_timer_stop(&h->timer);
	}
	if (h->n_polls)
		return; /* on_poll_closed() pokes again */
	while (!TAILQ_EMPTY(&h->socks))
		forget(TAILQ_FIRST(&h->socks));
	if (h->closed)
		h->closed(h->closed_arg);
	free(h->unix_path);
	free(h->base_url);
	free(h->ca_file);
	free(h->cert_file);
	free(h->key_file);
	free(h);
}

/* ---- door */

int http_new(
	struct http **ret, struct sw_loop *l, const struct http_config *cfg, struct sw_err *err)
{
	struct http *h;
	size_t n;

	if (!cfg->base_url || (!sw_starts_with(cfg->base_url, "http://") &&
				      !sw_starts_with(cfg->base_url, "https://")))
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"http: base URL \"%s\" must begin with http:// or https://",
			cfg->base_url ? cfg->base_url : "");
	if (cfg->unix_path && strlen(cfg->unix_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return sw_err_set(err, SW_REJECTED, -ENAMETOOLONG,
			"http: socket path \"%s\" is longer than %zu bytes: use a shorter one",
			cfg->unix_path, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return sw_err_set(err, SW_FATAL, -ENOMEM, "http: libcurl does not initialise");
	h = xcalloc(1, sizeof(*h));
	h->multi = curl_multi_init();
	if (!h->multi) {
		free(h);
		return sw_err_set(err, SW_FATAL, -ENOMEM, "http: no curl multi handle");
	}
	h->loop = l;
	h->unix_path = xstrdup(cfg->unix_path);
	h->base_url = xstrdup(cfg->base_url);
	n = strlen(h->base_url);
	while (n && h->base_url[n - 1] == '/')
		h->base_url[--n] = '\0';
	h->ca_file = xstrdup(cfg->ca_file);
	h->cert_file = xstrdup(cfg->cert_file);
	h->key_file = xstrdup(cfg->key_file);
	h->insecure = cfg->insecure;
	h->max_connections = cfg->max_connections ? cfg->max_connections : 8;
	TAILQ_INIT(&h->calls);
	TAILQ_INIT(&h->socks);
	sw_timer_init(&h->timer, l, on_curl_timer, h);
	sw_timer_init(&h->kick, l, on_kick, h);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_curl_timeout);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)h->max_connections);
	*ret = h;
	return 0;
}

void http_close(struct http *h, void (*closed)(void *arg), void *arg)
{
	struct http_call *c;

	if (!h)
		return;
	h->closing = true;
	h->closed = closed;
	h->closed_arg = arg;
	TAILQ_FOREACH (c, &h->calls, link)
		http_cancel(c);
	http_poke(h);
}

void http_drop_idle(struct http *h)
{
	h->drop_idle = true;
	http_poke(h);
}
