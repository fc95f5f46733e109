/* The executor's small parts: the gate, and what an engine's error means at which step. */
#include "test.h"

#include "executor/fault.h"
#include "executor/gate.h"
#include <errno.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/mem.h>

/* ---- gate */

struct visitor {
	struct gate_ticket t;
	char name;
};
static char entered[32];

static void on_entered(void *arg)
{
	struct visitor *v = arg;

	entered[strlen(entered)] = v->name;
}

static void test_gate(void **state)
{
	struct visitor v[5] = {
		{.name = 'a'}, {.name = 'b'}, {.name = 'c'}, {.name = 'd'}, {.name = 'e'}};
	struct sw_loop *loop;
	struct gate g;

	(void)state;
	assert_int_equal(sw_loop_new(&loop, NULL), 0);
	memset(entered, 0, sizeof(entered));
	gate_init(&g, loop, 2);
	for (int i = 0; i < 5; i++)
		gate_enter(&g, &v[i].t, on_entered, &v[i]);
	assert_string_equal(entered, ""); /* never inside the call */
	sw_loop_run(loop);
	assert_string_equal(entered, "ab");
	gate_leave(&v[2].t); /* gives up waiting */
	gate_leave(&v[0].t);
	gate_leave(&v[0].t); /* twice is once */
	sw_loop_run(loop);
	assert_string_equal(entered, "abd");
	gate_enter(&g, &v[0].t, on_entered, &v[0]); /* behind those that wait */
	gate_leave(&v[1].t);
	sw_loop_run(loop);
	assert_string_equal(entered, "abde");
	gate_leave(&v[3].t);
	gate_leave(&v[4].t);
	sw_loop_run(loop);
	assert_string_equal(entered, "abdea");
	gate_leave(&v[0].t);
	assert_int_equal(g.free, 2);
	gate_done(&g);
	assert_int_equal(sw_loop_free(loop), 0);
}

/* ---- fault */

static void test_classes(void **state)
{
	static const struct {
		int http; /* 0: no answer */
		const char *text;
		enum sw_errclass read, prepare, start, stop;
	} cases[] = {
		{0, "connection refused", SW_TEMPORARY, SW_TEMPORARY, SW_TEMPORARY, SW_TEMPORARY},
		{400, "invalid mount config", SW_FATAL, SW_REJECTED, SW_FATAL, SW_FATAL},
		{403, "no", SW_FATAL, SW_REJECTED, SW_FATAL, SW_FATAL},
		{404, "No such container: x", SW_FATAL, SW_REJECTED, SW_FATAL, SW_FATAL},
		{500, "port is already allocated", SW_TEMPORARY, SW_REJECTED, SW_FATAL,
			SW_TEMPORARY},
		{500, "rpc error: code = Unavailable desc = x", SW_TEMPORARY, SW_TEMPORARY,
			SW_TEMPORARY, SW_TEMPORARY},
		{500, "dial unix /run/containerd/containerd.sock: no such file", SW_TEMPORARY,
			SW_TEMPORARY, SW_TEMPORARY, SW_TEMPORARY},
		{501, "unsupported", SW_TEMPORARY, SW_REJECTED, SW_FATAL, SW_TEMPORARY},
		{502, "proxy", SW_TEMPORARY, SW_TEMPORARY, SW_TEMPORARY, SW_TEMPORARY},
		{504, "proxy", SW_TEMPORARY, SW_TEMPORARY, SW_TEMPORARY, SW_TEMPORARY},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		for (int step = FAULT_READ; step <= FAULT_REMOVE; step++) {
			const enum sw_errclass want[] = {[FAULT_READ] = cases[i].read,
				[FAULT_PREPARE] = cases[i].prepare,
				[FAULT_START] = cases[i].start,
				[FAULT_STOP] = cases[i].stop,
				[FAULT_REMOVE] = SW_TEMPORARY};
			struct sw_err e;

			if (cases[i].http) /* the engine room's own class does not matter */
				sw_err_setd(&e, SW_REJECTED, SW_E_HTTP, cases[i].http, "%s",
					cases[i].text);
			else
				sw_err_set(&e, SW_TEMPORARY, -ECONNREFUSED, "%s", cases[i].text);
			fault_classify(&e, (enum fault_step)step);
			if (e.cls != want[step])
				fail_msg("%d %s at step %d: %s", cases[i].http, cases[i].text, step,
					sw_errclass_name(e.cls));
		}
	}
	fault_classify(&(struct sw_err){.cls = SW_OK}, FAULT_REMOVE);
}

static void test_pull_retry(void **state)
{
	static const struct {
		int http;
		const char *text;
		bool again;
	} cases[] = {
		{500, "Get \"http://r/v2/\": dial tcp 1.2.3.4:80: connect: connection refused",
			true},
		{500, "Get \"https://r/v2/\": dial tcp: lookup r: no such host", true},
		{500, "net/http: TLS handshake timeout", true},
		{500, "received unexpected HTTP status: 503 Service Unavailable", true},
		{200, "toomanyrequests: You have reached your pull rate limit", true},
		{500, "unauthorized: authentication required", false},
		{500, "no basic auth credentials", false},
		{404, "manifest for r:1 not found: manifest unknown: manifest unknown", false},
		{404, "pull access denied for x", false},
		{400, "invalid reference format", false},
		{500, "no matching manifest for linux/amd64", false},
		{200, "filesystem layer verification failed for digest sha256:1", false},
		{500, "something else", false},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		struct sw_err e;

		sw_err_setd(&e, SW_REJECTED, SW_E_HTTP, cases[i].http, "%s", cases[i].text);
		if (fault_pull_retry(&e) != cases[i].again)
			fail_msg("%s", cases[i].text);
	}
}

static void test_texts(void **state)
{
	struct sw_err e;

	(void)state;
	sw_err_setd(&e, SW_REJECTED, SW_E_HTTP, 404, "No such image: x");
	assert_true(fault_no_image(&e));
	assert_true(fault_http(&e, 404));
	assert_false(fault_name_taken(&e));
	sw_err_setd(&e, SW_REJECTED, SW_E_HTTP, 500, "that name is already in use");
	assert_true(fault_name_taken(&e)); /* podman */
	sw_err_set(&e, SW_TEMPORARY, -404, "x");
	assert_false(fault_http(&e, 404));
	assert_false(fault_http(NULL, 404));
	assert_false(fault_text(NULL, "x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gate),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_pull_retry),
		cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
