/* h2.h - one HTTP/2 client connection: nghttp2 over OpenSSL over a libuv TCP stream.
 * Loop thread. Bytes in and out travel in chains. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/chain.h>
#include <swarm/err.h>

struct sw_loop;
struct tls_creds;
struct h2_conn;
struct h2_stream;

struct h2_conn_events {
	/* TCP, TLS and the preface are done: requests flow. Streams opened earlier were queued. */
	void (*ready)(void *arg);
	/* The connection takes no new streams any more (GOAWAY), the open ones may finish. */
	void (*goaway)(void *arg, uint32_t error_code);
	/* The connection is gone and every stream's closed() has been called. @err says why:
	 * SW_REJECTED in domain SW_E_TLS (X509_V_ERR_*) when the peer could not be verified, else
	 * SW_TEMPORARY (in domain SW_E_TLS, code 1000 + TLS alert, when it does not accept our
	 * certificate). NULL after h2_conn_close(). Comes exactly once, from the loop; the conn is
	 * freed when it returns. */
	void (*closed)(void *arg, const struct sw_err *err);
};

/* Connects to @addr ("host:port", "[v6]:port"; names are resolved on the pool). Dial, TLS and
 * preface together get @timeout_ns. References @creds. Never fails before the loop runs except for
 * a malformed address (SW_REJECTED). */
int h2_conn_new(struct h2_conn **ret, struct sw_loop *l, const char *addr, struct tls_creds *creds,
	uint64_t timeout_ns, const struct h2_conn_events *ev, void *arg, struct sw_err *err);
/* Starts the end: streams get closed() with SW_CANCELLED, then closed(NULL). Idempotent. */
void h2_conn_close(struct h2_conn *c);
struct sw_loop *h2_conn_loop(const struct h2_conn *c);
/* The TLS session's facts for the log: protocol, cipher, whether ALPN was answered. */
struct h2_conn_info {
	const char *tls_version, *cipher;
	bool alpn;
	unsigned n_streams;
};
void h2_conn_info(const struct h2_conn *c, struct h2_conn_info *ret);

struct h2_header {
	const char *name, *value; /* lower case names */
};

struct h2_stream_events {
	/* A header block: @trailers false for the response head. Borrowed during the call.
	 * @end: nothing follows. */
	void (*headers)(void *arg, const struct h2_header *h, size_t n, bool trailers, bool end);
	/* Body bytes: take what you want out of @data (what is left is dropped). The window opens
	 * again only by h2_stream_consumed(): that is the back-pressure. @end comes with an empty
	 * chain of its own. */
	void (*data)(void *arg, struct chain *data, bool end);
	/* The send side has room again after h2_stream_send() left more than the limit queued. */
	void (*writable)(void *arg);
	/* The stream is over, once, last call. @err: NULL if the peer ended the stream normally
	 * (also when we had not finished sending). @error_code: of the reset, 0 if there was none
	 * (normal end, connection lost). The handle is dead when it returns. */
	void (*closed)(void *arg, uint32_t error_code, const struct sw_err *err);
};

/* POST to @path with the extra headers @h. @body NULL: the body follows by h2_stream_send(); else
 * its bytes are taken and end the request (END_STREAM always travels on a DATA frame: managers hang
 * on a HEADERS frame that ends the stream). The path and headers are copied. NULL only when
 * the connection is closing or going away. */
struct h2_stream *h2_stream_open(struct h2_conn *c, const char *path, const struct h2_header *h,
	size_t n, struct chain *body, const struct h2_stream_events *ev, void *arg);
/* Queues all of @data (emptied) and, with @end, the half-close. Returns false when more than 64 KiB
 * wait: hold on until writable(). After the peer ended the stream this does nothing. */
bool h2_stream_send(struct h2_stream *s, struct chain *data, bool end);
/* Gives @n received bytes back to the peer's window. */
void h2_stream_consumed(struct h2_stream *s, size_t n);
/* RST_STREAM CANCEL and silence: no callback comes any more, the handle is dead. NULL is fine. */
void h2_stream_cancel(struct h2_stream *s);
