/* conn_priv.h - what conn.c (bytes) and stream.c (HTTP/2) know of each other. */
#pragma once
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <swarm/chain.h>
#include <swarm/err.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <sys/queue.h>
#include <uv.h>

#define H2_REC_SIZE     16384u       /* plaintext of one TLS record */
#define H2_NET_SIZE     65536u       /* one read from the socket */
#define H2_OUT_HIGH     (256u << 10) /* ciphertext that may wait for the socket */
#define H2_SEND_HIGH    (64u << 10)  /* bytes of one stream that may wait, see h2_stream_send */
#define H2_WINDOW       (1u << 20)   /* one stream's; consumers give back while they collect */
#define H2_CONN_WINDOW  (32u << 20)  /* 32 streams may stand still before all do */
#define H2_MAX_HEADERS  128u         /* in one block */
#define H2_MAX_HEAD_LEN (64u << 10)  /* bytes of one block */
#define H2_COPY_BELOW   1024u        /* smaller pieces are copied: they would pin a block */

struct dial;
struct tls_creds;

struct h2_stream {
	TAILQ_ENTRY(h2_stream) link;
	struct h2_conn *c;
	int32_t id;
	struct h2_stream_events ev;
	void *arg;
	struct chain sendq;
	size_t unconsumed; /* received, not given back to the window */
	bool send_end;     /* nothing is added to sendq any more */
	bool local_ended;  /* END_STREAM is out */
	bool peer_ended;
	bool deferred; /* nghttp2 waits for h2_stream_send() */
	bool head_sent, have_head;
	bool head_too_big;
	bool peer_reset;
	bool wait_writable; /* sender was told to wait */
	bool detached;      /* no callbacks any more: cancelled or closed() was called */
	int lib_error;      /* why nghttp2 reset it */
};

struct h2_conn {
	struct sw_loop *loop;
	struct tls_creds *creds;
	char *addr;
	struct h2_conn_events ev;
	void *arg;

	struct dial *dial;
	struct sw_timer deadline; /* of dial, TLS and preface */
	uint64_t deadline_at;
	uv_tcp_t *tcp;
	uv_idle_t idle; /* runs conn_work() after what runs now */
	int n_handles;

	SSL *ssl;
	const uint8_t *net_in; /* what the socket gave and SSL did not take yet */
	size_t net_in_len;
	uint8_t *net_buf;
	struct sw_block *plain; /* decrypted bytes; slices of it travel up */
	size_t plain_used;
	bool plain_kept; /* somebody took a slice of the last read */
	uint8_t *rec;    /* the next record to encrypt */
	size_t rec_len;
	struct chain out, writing; /* ciphertext: waiting, with libuv */
	uv_write_t write;
	bool write_busy;

	nghttp2_session *ng;
	TAILQ_HEAD(, h2_stream) streams;
	unsigned n_streams; /* with callbacks */
	char *head;         /* the header block that comes in: name 0 value 0 ... */
	size_t head_len, head_n;
	bool in_work, someone_writable;

	bool handshaken, ready, goaway, goaway_told;
	uint32_t goaway_code;
	char goaway_text[128];
	char broken[128];  /* what the peer did wrong, in nghttp2's words */
	bool want_close;   /* h2_conn_close() was called: silence until closed() */
	bool ending;       /* handles are being closed */
	struct sw_err err; /* why, cls 0: asked for */
};

/* conn.c */
void conn_kick(struct h2_conn *c);
/* The end, for @err's reason (copied); closed() follows from the loop. */
void conn_fail(struct h2_conn *c, const struct sw_err *err);
void conn_ready(struct h2_conn *c);
/* Plaintext for the next record; false when the connection is broken. */
bool conn_put(struct h2_conn *c, const uint8_t *p, size_t n);
bool conn_put_chain(struct h2_conn *c, struct chain *src, size_t n);
static inline bool conn_is_full(const struct h2_conn *c)
{
	return chain_len(&c->out) + chain_len(&c->writing) > H2_OUT_HIGH;
}

/* stream.c */
int h2_session_new(struct h2_conn *c, struct sw_err *err);
/* Calls closed() of every stream that has one, and frees them all. */
void h2_streams_end(struct h2_conn *c, const struct sw_err *err);
void h2_streams_writable(struct h2_conn *c);
