/* Every place where memory or the socket can fail, made to fail in turn: a scenario with all three
 * call shapes runs again and again, each time with the next call of one function failing, until it
 * runs to its end without. Whatever fails, every call and the connection end exactly once and
 * nothing is left over. */
#include "h2pair.h"
#include "test.h"
#include <errno.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/chain.h>
#include <swarm/grpc.h>
#include <swarm/h2.h>
#include <swarm/mem.h>
#include <uv.h>

/* --- the functions that fail (linked with --wrap) ------------------------------------------------
 */

static unsigned countdown; /* 0: nothing fails */
static bool hit;

static bool fails_now(void)
{
	if (countdown == 0 || --countdown > 0)
		return false;
	hit = true;
	return true;
}

static const char *target;

static bool fails(const char *name)
{
	return strcmp(name, target) == 0 && fails_now();
}

struct sw_block *__real_block_new(size_t size);
struct sw_block *__wrap_block_new(size_t size);
struct sw_block *__wrap_block_new(size_t size)
{
	return fails("block_new") ? NULL : __real_block_new(size);
}

int __real_chain_append(struct chain *c, const void *p, size_t len);
int __wrap_chain_append(struct chain *c, const void *p, size_t len);
int __wrap_chain_append(struct chain *c, const void *p, size_t len)
{
	return fails("chain_append") ? -ENOMEM : __real_chain_append(c, p, len);
}

int __real_uv_try_write(uv_stream_t *h, const uv_buf_t bufs[], unsigned n);
int __wrap_uv_try_write(uv_stream_t *h, const uv_buf_t bufs[], unsigned n);
int __wrap_uv_try_write(uv_stream_t *h, const uv_buf_t bufs[], unsigned n)
{
	if (fails("uv_try_write"))
		return UV_EPIPE;
	if (strcmp(target, "uv_write") == 0)
		return UV_EAGAIN; /* so that everything goes through uv_write() */
	if (fails("one byte"))
		return __real_uv_try_write(h, &(uv_buf_t){bufs[0].base, 1}, 1);
	return __real_uv_try_write(h, bufs, n);
}

int __real_uv_write(
	uv_write_t *r, uv_stream_t *h, const uv_buf_t bufs[], unsigned n, uv_write_cb cb);
int __wrap_uv_write(
	uv_write_t *r, uv_stream_t *h, const uv_buf_t bufs[], unsigned n, uv_write_cb cb);
int __wrap_uv_write(
	uv_write_t *r, uv_stream_t *h, const uv_buf_t bufs[], unsigned n, uv_write_cb cb)
{
	/* the server's writes fail too: then the connection is lost */
	return fails("uv_write") ? UV_ENOBUFS : __real_uv_write(r, h, bufs, n, cb);
}

int __real_uv_tcp_connect(
	uv_connect_t *r, uv_tcp_t *h, const struct sockaddr *sa, uv_connect_cb cb);
int __wrap_uv_tcp_connect(
	uv_connect_t *r, uv_tcp_t *h, const struct sockaddr *sa, uv_connect_cb cb);
int __wrap_uv_tcp_connect(uv_connect_t *r, uv_tcp_t *h, const struct sockaddr *sa, uv_connect_cb cb)
{
	return fails("uv_tcp_connect") ? UV_EMFILE : __real_uv_tcp_connect(r, h, sa, cb);
}

/* --- the scenario --------------------------------------------------------------------------------
 */

struct tally {
	unsigned unary, down, up, ok;
};

static void on_answer(void *arg, const ProtobufCMessage *m, const struct sw_err *err)
{
	struct tally *t = arg;

	t->unary++;
	t->ok += err == NULL;
	assert_true((m != NULL) == (err == NULL));
	if (err)
		assert_int_equal(err->domain, SW_E_GRPC);
}

static bool on_message(void *arg, const ProtobufCMessage *m)
{
	(void)arg;
	(void)m;
	return true;
}

static void on_down_end(void *arg, const struct sw_err *err)
{
	struct tally *t = arg;

	t->down++;
	t->ok += err == NULL;
}

static void on_up_end(void *arg, const struct sw_err *err)
{
	struct tally *t = arg;

	t->up++;
	t->ok += err == NULL;
}

static void serve_end(void *arg, struct h2s_stream *st)
{
	(void)arg;
	h2s_reply(st, "", 0);
}

static void serve_big(void *arg, struct h2s_stream *st)
{
	Pb__SecretSpec spec = PB__SECRET_SPEC__INIT;
	size_t len;
	uint8_t *p, *data = xcalloc(1, 400000);

	(void)arg;
	spec.data.data = data;
	spec.data.len = 400000; /* above the size that goes to the pool */
	p = api_pack(&spec.base, &len);
	h2s_send(st, p, len);
	h2s_reply(st, p, len);
	free(p);
	free(data);
}

static bool all_ended(void *arg)
{
	const struct tally *t = arg;

	return t->unary + t->down + t->up == 3;
}

static void run_once(struct env *e)
{
	static const struct grpc_stream_events down = {.message = on_message, .end = on_down_end},
					       up = {.message = on_message, .end = on_up_end};
	struct tally t = {0};
	Pb__SecretSpec req = PB__SECRET_SPEC__INIT;
	struct grpc_call *call;
	uint8_t *data = xcalloc(1, 100000);

	req.data.data = data;
	req.data.len = 100000;
	dial_to(e, h2server_addr(e->srv), GUARD_MS);
	grpc_unary(e->cl.c, "/unary", &req.base, &pb__publish_logs_response__descriptor, 0,
		on_answer, &t);
	grpc_server_stream(e->cl.c, "/big", &req.base, &pb__secret_spec__descriptor, &down, &t);
	call = grpc_client_stream(
		e->cl.c, "/unary", &pb__publish_logs_response__descriptor, &up, &t);
	grpc_send(call, &req.base);
	grpc_send(call, &req.base);
	grpc_finish(call);
	assert_int_equal(t.unary + t.down + t.up, 0);
	loop_until_fn(e->l, all_ended, &t, GUARD_MS);
	assert_int_equal(t.unary, 1);
	assert_int_equal(t.down, 1);
	assert_int_equal(t.up, 1);
	if (!hit) {
		assert_int_equal(t.ok, 3);
	}
	h2_conn_close(e->cl.c);
	loop_until(e->l, &e->cl.closed, GUARD_MS);
	loop_until_fn(e->l, no_streams, e->srv, GUARD_MS);
	assert_int_equal(block_count(), e->blocks);
	free(data);
}

static void fail_each(struct env *e, const char *what, unsigned at_least)
{
	struct h2s_handler serve = {.end = serve_end}, big = {.end = serve_big};
	unsigned n = 0;

	server(e);
	h2server_handle(e->srv, "/big", &big, NULL);
	h2server_handle(e->srv, NULL, &serve, NULL);
	do {
		target = what;
		hit = false;
		countdown = ++n;
		run_once(e);
		countdown = 0;
	} while (hit && n < 400);
	target = "";
	/* the scenario did reach that function */
	assert_true(n > at_least);
}

static void memory_for_blocks(void **state)
{
	fail_each(*state, "block_new", 3);
}

static void memory_for_copies(void **state)
{
	fail_each(*state, "chain_append", 10);
}

static void writing_at_once(void **state)
{
	fail_each(*state, "uv_try_write", 3);
}

static void writing_later(void **state)
{
	fail_each(*state, "uv_write", 3);
}

static void writing_a_part(void **state)
{
	fail_each(*state, "one byte", 3);
}

static void connecting(void **state)
{
	fail_each(*state, "uv_tcp_connect", 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(memory_for_blocks),
		T(memory_for_copies),
		T(writing_at_once),
		T(writing_later),
		T(writing_a_part),
		T(connecting),
	};

	target = "";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
