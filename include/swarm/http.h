/* http.h - HTTP/1.1 client calls: the one libcurl multi (socket action) on the loop.
 * Loop thread. Nothing here knows what is transported. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/chain.h>
#include <swarm/err.h>

struct sw_loop;
struct http;
struct http_call;

struct http_config {
	const char *unix_path; /* socket path, or NULL for TCP */
	const char *base_url;  /* "http://localhost" with unix_path; "https://host:2376/base" */
	const char *ca_file, *cert_file, *key_file; /* TLS; NULL: none */
	bool insecure;            /* do not verify the server: only by an explicit option */
	unsigned max_connections; /* unary pool; streams come on top; 0: 8 */
};
/* Copies @cfg, borrows @l. */
int http_new(
	struct http **ret, struct sw_loop *l, const struct http_config *cfg, struct sw_err *err);
/* Cancels what runs (silently), frees, then calls @closed from the loop. */
void http_close(struct http *h, void (*closed)(void *arg), void *arg);
/* Drops every idle connection: the peer was restarted. */
void http_drop_idle(struct http *h);

struct http_header {
	const char *name, *value;
};

struct http_request {
	const char *method; /* "GET" ... */
	const char *path;   /* with query, already encoded, starts with '/' */
	const struct http_header *headers;
	size_t n_headers;
	struct chain *body;  /* taken; NULL: none (a POST then sends Content-Length: 0) */
	uint64_t connect_ns; /* 0: 2 s unix, 10 s TCP */
	uint64_t total_ns;   /* 0: no limit */
	uint64_t idle_ns;    /* fail after so long without a received byte; 0: no limit */
	bool stream;         /* long-lived: a connection of its own, outside the unary pool */
};

struct http_events {
	/* Status line and headers are there. Borrowed. May be NULL. */
	void (*head)(void *arg, int status, const struct http_header *h, size_t n);
	/* Body bytes. Take them out of @data; what is left is dropped. */
	void (*data)(void *arg, struct chain *data);
	/* Over, once, last call. @err NULL: the response is complete, whatever its status. Else
	 * SW_TEMPORARY: connection refused, lost, cut in the body, timeout. @status 0 if none came.
	 */
	void (*done)(void *arg, int status, const struct sw_err *err);
};
/* Never calls back from inside. Redirects are not followed, proxies and netrc not used. */
struct http_call *http_start(
	struct http *h, const struct http_request *req, const struct http_events *ev, void *arg);
/* Back-pressure: no data() until resumed; what the peer sends waits in its socket. */
void http_pause(struct http_call *c);
void http_resume(struct http_call *c);
/* Silence afterwards, connection closed. NULL is fine. Allowed inside callbacks. */
void http_cancel(struct http_call *c);

/* Percent-encodes one path segment (@slashes: '/' stays) or query value; malloc'd. */
char *http_escape(const char *s, bool slashes);
