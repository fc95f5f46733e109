/* How statuses are composed. */
#include "agent/status.h"
#include "test.h"
#include <string.h>
#include <swarm/mem.h>
#include <swarm/store.h>

static struct status *make(int state, const char *message, const char *err)
{
	Pb__TaskStatus s = PB__TASK_STATUS__INIT;

	s.state = (Pb__TaskState)state;
	s.message = (char *)(uintptr_t)message;
	s.err = (char *)(uintptr_t)err;
	return status_new((Pb__TaskStatus *)(void *)api_dup(&s.base), 1000);
}

static struct status *step(struct status *prev, enum do_action a, const struct controller_result *r,
	const char *cid, int64_t now)
{
	struct do_result d = do_outcome(a, prev->pb->state, r ? r->err.cls : SW_OK);
	struct status *s = status_next(prev, &d, r ? r->err.msg : NULL, r, cid, now);

	status_unref(prev);
	return s;
}

static void test_timestamp(void **state)
{
	struct status *s = make(192, "", ""), *same;
	struct do_result noop = do_outcome(DO_NOOP, 192, SW_OK);

	(void)state;
	assert_int_equal(s->at_ns, 1000);
	assert_int_equal(api_time_ns(s->pb->timestamp), 1000);
	same = status_next(s, &noop, NULL, NULL, NULL, 5000);
	assert_ptr_equal(same, s); /* nothing changed: the old one, the old time */
	status_unref(same);
	s = step(s, DO_ACCEPTED, NULL, NULL, 5000);
	assert_int_equal(s->at_ns, 5000);
	s = step(s, DO_PREPARING, NULL, NULL, 2000); /* the clock jumped back */
	assert_int_equal(s->at_ns, 5001);
	assert_int_equal(api_time_ns(s->pb->timestamp), 5001);
	status_unref(s);
}

static void test_no_controller(void **state)
{
	struct status *s = make(192, "accepted", ""), *next;
	struct do_result d = do_resolved(PB__TASK_STATE__ACCEPTED, false);

	(void)state;
	next = status_next(s, &d, "no image", NULL, NULL, 2000);
	assert_int_equal(next->pb->state, PB__TASK_STATE__REJECTED);
	assert_string_equal(next->pb->err, "no image");
	assert_int_equal(next->pb->runtime_status_case, 0);
	status_unref(next);
	status_unref(s);
}

static void test_container(void **state)
{
	struct controller_result r = {.container_id = "abc"};
	struct status *s = make(320, "preparing", "");
	Pb__PortConfig port = PB__PORT_CONFIG__INIT, *ports[] = {&port};

	(void)state;
	s = step(s, DO_PREPARE, &r, NULL, 2000);
	assert_int_equal(s->pb->state, 384);
	assert_int_equal(s->pb->runtime_status_case, 0); /* below STARTING nothing is said */
	s = step(s, DO_STARTING, NULL, "abc", 2001);
	assert_string_equal(s->pb->container->container_id, "abc");
	r.pid = 77;
	port.target_port = 80;
	port.published_port = 32768;
	r.ports = ports;
	r.n_ports = 1;
	s = step(s, DO_START, &r, "abc", 2002);
	assert_int_equal(s->pb->container->pid, 77);
	assert_int_equal(s->pb->port_status->ports[0]->published_port, 32768);
	/* a cancelled wait found nothing out: all stays, no exit code appears */
	r = (struct controller_result){
		.err = {.cls = SW_CANCELLED}, .has_exit = true, .exit_code = -1};
	struct status *before = status_ref(s);

	s = step(s, DO_WAIT, &r, "abc", 2003);
	assert_ptr_equal(s, before);
	status_unref(before);
	/* a temporary error is text only */
	r = (struct controller_result){.err = {.cls = SW_TEMPORARY, .msg = "engine away"}};
	s = step(s, DO_WAIT, &r, "abc", 2004);
	assert_int_equal(s->pb->state, 512);
	assert_string_equal(s->pb->message, "started");
	assert_string_equal(s->pb->err, "engine away");
	assert_int_equal(s->pb->container->pid, 77);
	assert_int_equal(s->pb->port_status->n_ports, 1);
	/* the end: code, no pid, no ports */
	r = (struct controller_result){.err = {.cls = SW_FATAL, .msg = "task: non-zero exit (3)"},
		.has_exit = true,
		.exit_code = 3,
		.container_id = "abc"};
	s = step(s, DO_WAIT, &r, "abc", 2005);
	assert_int_equal(s->pb->state, 704);
	assert_string_equal(s->pb->message, "started");
	assert_string_equal(s->pb->err, "task: non-zero exit (3)");
	assert_int_equal(s->pb->container->exit_code, 3);
	assert_int_equal(s->pb->container->pid, 0);
	assert_null(s->pb->port_status);
	status_unref(s);
}

static void test_blank_container(void **state)
{
	struct controller_result r = {.err = {.cls = SW_FATAL, .msg = "no such container"}};
	struct status *s = make(448, "starting", "");

	(void)state;
	s = step(s, DO_START, &r, NULL, 2000);
	assert_int_equal(s->pb->state, 704);
	assert_int_equal(s->pb->runtime_status_case, PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER);
	assert_string_equal(s->pb->container->container_id, "");
	status_unref(s);
}

static void test_success_clears_err(void **state)
{
	struct controller_result r = {.err = {.cls = SW_OK}};
	struct status *s = make(320, "preparing", "pull: timeout");

	(void)state;
	s = step(s, DO_PREPARE, &r, NULL, 2000);
	assert_string_equal(s->pb->message, "prepared");
	assert_string_equal(s->pb->err, "");
	status_unref(s);
}

static void test_text_is_utf8(void **state)
{
	struct controller_result r = {
		.err = {.cls = SW_FATAL, .msg = "bad \xff\xfe and \xc3\xa4 cut \xc3"}};
	struct status *s = make(320, "preparing", "");

	(void)state;
	s = step(s, DO_PREPARE, &r, NULL, 2000);
	assert_string_equal(s->pb->err, "bad ?? and \xc3\xa4 cut ?");
	status_unref(s);
}

static void test_row(void **state)
{
	struct controller_result r = {.container_id = "abc", .pid = 5};
	Pb__PortConfig p1 = PB__PORT_CONFIG__INIT, p2 = PB__PORT_CONFIG__INIT,
		       *ports[] = {&p1, &p2};
	struct status *s = make(448, "starting", "");
	struct store_status row;
	uint8_t *data;
	char *json;

	(void)state;
	p1.target_port = 80;
	p1.published_port = 8080;
	p2.target_port = 53;
	p2.published_port = 53;
	p2.protocol = PB__PORT_CONFIG__PROTOCOL__UDP;
	r.ports = ports;
	r.n_ports = 2;
	s = step(s, DO_START, &r, NULL, 2000);
	status_row(s, &row, &data, &json);
	assert_int_equal(row.state, 512);
	assert_string_equal(row.container_id, "abc");
	assert_int_equal(row.pid, 5);
	assert_false(row.has_exit_code);
	assert_int_equal(row.at_ns, 2000);
	assert_string_equal(row.ports, "[{\"protocol\":\"tcp\",\"target\":80,\"published\":8080},"
				       "{\"protocol\":\"udp\",\"target\":53,\"published\":53}]");
	Pb__TaskStatus *back = (Pb__TaskStatus *)(void *)api_unpack(
		&pb__task_status__descriptor, row.data, row.data_len, NULL);
	assert_true(api_equal(&back->base, &s->pb->base));
	api_free(back);
	free(data);
	free(json);
	status_unref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timestamp),
		cmocka_unit_test(test_no_controller),
		cmocka_unit_test(test_container),
		cmocka_unit_test(test_blank_container),
		cmocka_unit_test(test_success_clears_err),
		cmocka_unit_test(test_text_is_utf8),
		cmocka_unit_test(test_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
