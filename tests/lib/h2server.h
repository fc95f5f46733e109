/* h2server.h - a gRPC server for tests: HTTP/2 (nghttp2) over TLS on 127.0.0.1, on the loop of the
 * test, with switches for everything that can go wrong. It shares no code with the client it tests.
 *
 * Handlers are called from the loop, never inside an h2s_ function. A stream stays valid until its
 * handler's closed() returned. All h2s_ functions may be called from handlers and from outside. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sw_loop;
struct h2server;
struct h2s_conn;
struct h2s_stream;

/* silent: as a manager that renewed its certificate in-process */
enum h2s_alpn { H2S_ALPN_H2, H2S_ALPN_SILENT };

/* Everything is copied. Zero: the behaviour of a healthy manager. */
struct h2s_config {
	const char *cert_pem, *key_pem; /* chain, leaf first */
	const char *client_ca_pem;      /* client certificates are asked for (not demanded) and must
					 * verify against this; NULL: not asked for */
	const char *listen;             /* "127.0.0.1:2377"; NULL: 127.0.0.1 and any port. Looked
					 * at by h2server_new() only */
	enum h2s_alpn alpn;
	bool tls11_only;
	bool tls12_only;
	bool accept_nothing;      /* TCP is accepted, nothing is read: the handshake hangs */
	bool close_after_tls;     /* bare EOF right after the handshake */
	bool garbage_after_tls;   /* bytes that are no HTTP/2 */
	bool never_read;          /* after the handshake and the preface nothing is read any more */
	bool split_bytes;         /* every byte of plaintext in a TLS record of its own */
	unsigned ping_flood;      /* so many PINGs after the preface */
	unsigned settings_flood;  /* so many SETTINGS after the preface */
	bool no_half_close_reset; /* an early end is not followed by RST_STREAM NO_ERROR */
	uint32_t stream_window;   /* SETTINGS_INITIAL_WINDOW_SIZE; 0: 65535 */
	uint32_t max_streams;     /* SETTINGS_MAX_CONCURRENT_STREAMS; 0: not sent */
	bool hold_windows;        /* request bytes are not given back: the client runs dry */
};

int h2server_new(struct h2server **ret, struct sw_loop *l, const struct h2s_config *cfg);
/* Closes listener and connections; handlers get closed() for what was open, from the loop. Run the
 * loop until *done is true (NULL: just run it dry); then it is freed. */
void h2server_close(struct h2server *s, bool *done);
unsigned h2server_port(const struct h2server *s);
const char *h2server_addr(const struct h2server *s); /* "127.0.0.1:port" */
/* New settings for connections from now on (a manager renewed its certificate...). */
void h2server_configure(struct h2server *s, const struct h2s_config *cfg);
/* Stops listening / listens again on the same port (a manager that is down). */
void h2server_listen(struct h2server *s, bool on);
/* Drops every connection: TCP reset, no goodbye. */
void h2server_drop_all(struct h2server *s);
/* GOAWAY on every connection; open streams go on. */
void h2server_goaway_all(struct h2server *s, uint32_t code, const char *debug);

struct h2server_stats {
	unsigned accepted;   /* TCP connections */
	unsigned handshakes; /* finished ones */
	unsigned resumed;    /* of them: resumed sessions (trap 4; must stay 0) */
	unsigned handshake_errors;
	unsigned conns, streams; /* open now */
	unsigned streams_total;
	unsigned pings, ping_acks; /* received */
	unsigned end_on_headers; /* requests whose HEADERS frame carried END_STREAM (must stay 0) */
	unsigned resets;         /* RST_STREAM received */
	uint64_t bytes_in, bytes_out; /* DATA payload */
};
const struct h2server_stats *h2server_stats(const struct h2server *s);

#define H2S_CONN_LOST UINT32_MAX

struct h2s_handler {
	/* The request head came. May answer at once. May be NULL. */
	void (*open)(void *arg, struct h2s_stream *st);
	/* One message, without its prefix; borrowed. May be NULL. */
	void (*message)(void *arg, struct h2s_stream *st, const uint8_t *msg, size_t len);
	/* The client half-closed. May be NULL. */
	void (*end)(void *arg, struct h2s_stream *st);
	/* The stream is gone. @code: HTTP/2 error code, 8 for a client's cancel; H2S_CONN_LOST when
	 * the connection went. May be NULL. */
	void (*closed)(void *arg, struct h2s_stream *st, uint32_t code);
};
/* Who serves @path; NULL: everything else. Without any: status 12. Copied. */
void h2server_handle(struct h2server *s, const char *path, const struct h2s_handler *h, void *arg);

/* No handler is called any more: for a test whose variables go before the server does. */
void h2server_forget_handlers(struct h2server *s);

/* About a stream. */
const char *h2s_path(const struct h2s_stream *st);
const char *h2s_header(const struct h2s_stream *st, const char *name); /* NULL: absent */
/* From the client's certificate: "CN", "OU", "O"; NULL without one. */
const char *h2s_peer(const struct h2s_stream *st, const char *what);
struct h2s_conn *h2s_conn_of(struct h2s_stream *st);
struct h2server *h2s_server_of(struct h2s_stream *st);
void h2s_set_user(struct h2s_stream *st, void *user);
void *h2s_user(const struct h2s_stream *st);
size_t h2s_queued(const struct h2s_stream *st);   /* bytes not sent yet */
uint64_t h2s_serial(const struct h2s_stream *st); /* counts up over the server's life */

/* Answering. The response head goes out with the first message, as managers do. */
void h2s_send(struct h2s_stream *st, const void *msg, size_t len);
/* The status, as trailers, or as trailers-only if no message went before. @message is
 * percent-encoded here; NULL: no grpc-message. */
void h2s_end(struct h2s_stream *st, int status, const char *message);
/* h2s_send() + h2s_end(0). */
void h2s_reply(struct h2s_stream *st, const void *msg, size_t len);

/* Faults on one stream. */
void h2s_send_raw(struct h2s_stream *st, const void *bytes, size_t len); /* DATA without prefix */
void h2s_send_head(struct h2s_stream *st, const char *http_status, const char *content_type);
/* Trailers with exactly these headers (name, value, name, value, ..., NULL); as the response head,
 * ended, if nothing was sent yet (then add :status). */
void h2s_end_with(struct h2s_stream *st, const char *const *nv);
void h2s_end_no_status(struct h2s_stream *st); /* ends without a grpc-status */
void h2s_end_data(struct h2s_stream *st);      /* END_STREAM on an empty DATA frame, no trailers */
void h2s_reset(struct h2s_stream *st, uint32_t code);
/* On its connection. */
void h2s_conn_drop(struct h2s_conn *c);    /* TCP reset */
void h2s_conn_eof(struct h2s_conn *c);     /* what is queued goes out, then close_notify and FIN */
void h2s_conn_garbage(struct h2s_conn *c); /* bytes that are no HTTP/2 */
void h2s_conn_goaway(struct h2s_conn *c, uint32_t code, const char *debug);
void h2s_conn_pause(struct h2s_conn *c, bool paused); /* stops reading the socket */
void h2s_conn_ping(struct h2s_conn *c);
