#include "h2pair.h"
#include "test.h"
#include <stdlib.h>
#include <swarm/chain.h>
#include <swarm/h2.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/tls.h>

static void on_ready(void *arg)
{
	((struct client *)arg)->ready = true;
}

static void on_goaway(void *arg, uint32_t code)
{
	(void)code;
	((struct client *)arg)->goaway = true;
}

static void on_conn_closed(void *arg, const struct sw_err *err)
{
	struct client *cl = arg;

	assert_false(cl->closed);
	cl->closed = true;
	cl->failed = err != NULL;
	cl->c = NULL;
	sw_err_copy(&cl->err, err);
}

const struct h2_conn_events conn_events = {on_ready, on_goaway, on_conn_closed};

int setup(void **state)
{
	struct env *e = xcalloc(1, sizeof(*e));
	struct sw_err err;

	e->blocks = block_count();
	assert_int_equal(sw_loop_new(&e->l, &err), 0);
	e->ca = testca_new(NULL);
	e->cert = testca_manager(e->ca, "cluster", "m1", &e->key);
	e->wcert = testca_worker(e->ca, "cluster", "w1", &e->wkey);
	e->cfg = (struct h2s_config){
		.cert_pem = e->cert, .key_pem = e->key, .client_ca_pem = testca_pem(e->ca)};
	*state = e;
	return 0;
}

void server(struct env *e)
{
	h2server_new(&e->srv, e->l, &e->cfg);
}

struct tls_creds *creds_of(const char *roots, const char *cert, const char *key, const char *name)
{
	struct tls_creds *c = NULL;
	struct sw_err err;
	struct tls_config cfg = {roots, cert, key, name};

	if (tls_creds_new(&c, &cfg, &err) < 0)
		fail_msg("%s", err.msg);
	return c;
}

void dial_to(struct env *e, const char *addr, unsigned ms)
{
	struct sw_err err;

	if (!e->creds)
		e->creds = creds_of(testca_pem(e->ca), e->wcert, e->wkey, "swarm-manager");
	e->cl = (struct client){0};
	if (h2_conn_new(&e->cl.c, e->l, addr, e->creds, sw_ms(ms), &conn_events, &e->cl, &err) < 0)
		fail_msg("%s", err.msg);
}

void dial_up(struct env *e)
{
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	loop_until(e->l, &e->cl.ready, GUARD_MS);
}

void hang_up(struct env *e)
{
	h2_conn_close(e->cl.c);
	assert_false(e->cl.closed);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	assert_false(e->cl.failed);
}

int teardown(void **state)
{
	struct env *e = *state;
	bool done = false;

	if (e->srv)
		h2server_forget_handlers(e->srv);
	if (e->cl.c) {
		h2_conn_close(e->cl.c);
		loop_until(e->l, &e->cl.closed, GUARD_MS);
	}
	if (e->srv) {
		assert_int_equal(h2server_stats(e->srv)->resumed, 0);
		assert_int_equal(h2server_stats(e->srv)->end_on_headers, 0);
	}
	h2server_close(e->srv, &done);
	loop_until(e->l, &done, GUARD_MS);
	tls_creds_unref(e->creds);
	testca_free(e->ca);
	free(e->cert);
	free(e->key);
	free(e->wcert);
	free(e->wkey);
	assert_int_equal(sw_loop_free(e->l), 0);
	assert_int_equal(block_count(), e->blocks);
	free(e);
	return 0;
}

bool no_streams(void *srv)
{
	return h2server_stats(srv)->streams == 0;
}
