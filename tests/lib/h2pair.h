/* h2pair.h - a client connection and a test server on one loop, for the tests of h2 and wire. */
#pragma once
#include "h2server.h"
#include "looptest.h"
#include "testca.h"
#include <stdbool.h>
#include <stddef.h>
#include <swarm/err.h>

#define GUARD_MS 100000 /* valgrind and a busy machine included */

struct client {
	struct h2_conn *c;
	bool ready, goaway, closed, failed;
	struct sw_err err;
};

struct env {
	struct sw_loop *l;
	struct testca *ca;
	char *cert, *key;      /* the server's */
	char *wcert, *wkey;    /* a worker's */
	struct h2s_config cfg; /* change it before server() */
	struct h2server *srv;
	struct tls_creds *creds; /* the client's; made by dial_to() unless set */
	struct client cl;
	size_t blocks;
};

extern const struct h2_conn_events conn_events; /* their arg: a struct client */

int setup(void **state);
/* Closes everything; checks what must hold after every test: no resumed session, no END_STREAM on
 * HEADERS, no handle and no block left. */
int teardown(void **state);
void server(struct env *e);
struct tls_creds *creds_of(const char *roots, const char *cert, const char *key, const char *name);
void dial_to(struct env *e, const char *addr, unsigned ms);
/* Connects to the server and waits for it. */
void dial_up(struct env *e);
void hang_up(struct env *e);
/* loop_until_fn(l, no_streams, srv) */
bool no_streams(void *srv);

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
