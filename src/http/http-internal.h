/* http-internal.h - what driver.c (the multi and its sockets) and call.c (one transfer) share. */
#pragma once
#include <curl/curl.h>
#include <swarm/err.h>
#include <swarm/http.h>
#include <swarm/loop.h>
#include <sys/queue.h>
#include <sys/types.h>

/* A file descriptor of curl's: opened in open_socket(), gone in close_socket(). */
struct http_sock {
	struct http *http;
	curl_socket_t fd;
	uv_poll_t *poll; /* NULL: nobody waits for it */
	ino_t ino;       /* tells whether @fd is still this socket */
	bool foreign;    /* curl opened it itself */
	TAILQ_ENTRY(http_sock) link;
};

enum http_state {
	HTTP_PENDING, /* waits for its turn */
	HTTP_RUNNING, /* in the multi */
	HTTP_FAILED,  /* our own limit was hit; the driver takes it out */
	HTTP_GONE,    /* cancelled; no callback any more */
};

struct http_call {
	struct http *http;
	TAILQ_ENTRY(http_call) link;
	enum http_state state;
	bool in_multi, stream;
	bool paused;      /* wished by the caller */
	bool curl_paused; /* curl holds bytes for us */
	CURL *easy;
	curl_socket_t fd; /* the last one it waited for; CURL_SOCKET_BAD: none yet */
	struct http_events ev;
	void *arg;

	char *url, *method;
	struct curl_slist *headers;
	struct chain body, left; /* the whole request body; what is not sent yet (shared) */
	uint64_t connect_ns, total_ns, idle_ns;

	uint64_t started_ns, last_rx_ns;
	struct sw_timer limit;

	int status;
	struct http_header *head; /* of the response */
	size_t n_head, head_bytes;
	bool head_done;
	struct sw_block *block; /* receive memory, filled up to block_used */
	size_t block_used;
	struct chain rx;

	struct sw_err err;
	char curl_err[CURL_ERROR_SIZE];
};
TAILQ_HEAD(http_calls, http_call);
TAILQ_HEAD(http_socks, http_sock);

struct http {
	struct sw_loop *loop;
	CURLM *multi;
	char *unix_path, *base_url, *ca_file, *cert_file, *key_file;
	bool insecure;
	unsigned max_connections, n_unary; /* n_unary: unary calls in the multi */
	struct http_calls calls;
	struct http_socks socks;
	size_t n_polls;        /* handles not yet closed */
	struct sw_timer timer; /* curl's */
	struct sw_timer kick;  /* ours: something is to be settled */
	int depth;             /* > 0: curl is on the stack */
	bool settling, closing, drop_idle;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* driver.c: look at all calls again, from the loop. */
void http_poke(struct http *h);
/* driver.c: sockets of @e are opened and closed through us. */
void http_sockets(struct http *h, CURL *e);

/* call.c */
/* Makes the easy handle. */
int http_call_setup(struct http_call *c, struct sw_err *err);
void http_call_arm(struct http_call *c);
/* Last callback; @err NULL: complete. */
void http_call_report(struct http_call *c, const struct sw_err *err);
void http_call_classify(struct http_call *c, CURLcode code, struct sw_err *err);
void http_call_free(struct http_call *c);
