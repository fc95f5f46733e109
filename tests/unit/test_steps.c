#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/mem.h>
#include <swarm/steps.h>
#include <test.h>

/* An operation that writes down what happens to it. "A" step A started, "a" its cancel ran, "."
 * the end. Steps end when the test says so, or at once where auto_end. */
struct op {
	struct steps steps;
	char trace[64];
	bool auto_end;
	int n_ends;
	bool failed;
	struct sw_err err;
	void (*in_a)(struct op *op);
	void (*at_end)(struct op *op);
};

enum { A, B, C, UNDO_B, UNDO_A, N_STEPS };

static struct sw_loop *loop;
static struct op op;

static void note(struct op *o, char c)
{
	size_t n = strlen(o->trace);

	assert_true(n + 1 < sizeof(o->trace));
	o->trace[n] = c;
	o->trace[n + 1] = '\0';
}

static void start(struct steps *s, char c)
{
	struct op *o = steps_arg(s);

	note(o, c);
	if (o->auto_end)
		steps_done(s, NULL);
}

static void start_a(struct steps *s)
{
	struct op *o = steps_arg(s);

	start(s, 'A');
	if (o->in_a)
		o->in_a(o);
}

static void start_b(struct steps *s)
{
	start(s, 'B');
}

static void start_c(struct steps *s)
{
	start(s, 'C');
}

static void start_undo_b(struct steps *s)
{
	start(s, 'y');
}

static void start_undo_a(struct steps *s)
{
	start(s, 'x');
}

static void cancel_a(struct steps *s)
{
	note(steps_arg(s), 'a');
}

static const struct step table[N_STEPS] = {
	[A] = {"a", start_a, B, STEP_END, cancel_a},
	[B] = {"b", start_b, C, UNDO_A, NULL},
	[C] = {"c", start_c, STEP_END, UNDO_B, NULL},
	[UNDO_B] = {"undo b", start_undo_b, UNDO_A, UNDO_A, NULL},
	[UNDO_A] = {"undo a", start_undo_a, STEP_END, STEP_END, NULL},
};

static void on_end(void *arg, const struct sw_err *err)
{
	struct op *o = arg;

	assert_false(steps_running(&o->steps));
	note(o, '.');
	o->n_ends++;
	o->failed = err != NULL;
	sw_err_copy(&o->err, err);
	if (o->at_end)
		o->at_end(o);
}

static int setup(void **state)
{
	(void)state;
	if (sw_loop_new(&loop, NULL) < 0)
		return -1;
	sw_fake_clock(loop, 0);
	memset(&op, 0, sizeof(op));
	steps_init(&op.steps, loop, "op", "id", table, &op);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return sw_loop_free(loop);
}

static void turn(void)
{
	sw_fake_advance(loop, 0);
}

static void done(int code)
{
	struct sw_err err = SW_ERR_NONE;
	size_t before = strlen(op.trace);

	if (code)
		sw_err_set(&err, SW_REJECTED, code, "failed %d", code);
	steps_done(&op.steps, code ? &err : NULL);
	assert_int_equal(strlen(op.trace), before); /* nothing happens inside the call */
	turn();
}

static void all_well(void **state)
{
	(void)state;
	steps_run(&op.steps, A, 0, on_end);
	assert_true(steps_running(&op.steps));
	assert_string_equal(op.trace, "");
	turn();
	assert_string_equal(op.trace, "A");
	done(0);
	done(0);
	assert_string_equal(op.trace, "ABC");
	done(0);
	assert_string_equal(op.trace, "ABC.");
	assert_false(op.failed);
	assert_false(steps_running(&op.steps));
	/* and again, all of it at once */
	op.auto_end = true;
	steps_run(&op.steps, A, 0, on_end);
	assert_string_equal(op.trace, "ABC.");
	turn();
	assert_string_equal(op.trace, "ABC.ABC.");
	assert_int_equal(op.n_ends, 2);
}

static void the_first_error_counts(void **state)
{
	(void)state;
	steps_run(&op.steps, A, 0, on_end);
	turn();
	done(0);
	done(0);
	done(-E2BIG);
	assert_string_equal(op.trace, "ABCy");
	done(-EIO); /* undo fails as well: goes on, and changes nothing */
	assert_string_equal(op.trace, "ABCyx");
	done(0);
	assert_string_equal(op.trace, "ABCyx.");
	assert_int_equal(op.err.code, -E2BIG);
	assert_int_equal(op.err.cls, SW_REJECTED);
	assert_string_equal(op.err.msg, "failed -7");
	/* no trace of it in the next run */
	op.auto_end = true;
	steps_run(&op.steps, A, 0, on_end);
	turn();
	assert_false(op.failed);
}

static void jumps(void **state)
{
	(void)state;
	steps_run(&op.steps, A, 0, on_end);
	turn();
	steps_jump(&op.steps, C);
	assert_string_equal(op.trace, "A");
	turn();
	assert_string_equal(op.trace, "AC");
	steps_jump(&op.steps, STEP_END);
	turn();
	assert_string_equal(op.trace, "AC.");
	assert_false(op.failed);
	steps_run(&op.steps, STEP_END, 0, on_end); /* nothing to do is a result too */
	assert_int_equal(op.n_ends, 1);
	turn();
	assert_int_equal(op.n_ends, 2);
}

static void cancel_stops_the_step(void **state)
{
	(void)state;
	steps_cancel(&op.steps); /* not running */
	steps_run(&op.steps, A, 0, on_end);
	turn();
	steps_cancel(&op.steps);
	steps_cancel(&op.steps);
	assert_string_equal(op.trace, "Aa"); /* stopped now, ended by the loop */
	turn();
	assert_string_equal(op.trace, "Aa.");
	assert_int_equal(op.err.cls, SW_CANCELLED);
	assert_int_equal(op.err.code, -ECANCELED);
	turn();
	assert_int_equal(op.n_ends, 1);
}

static void cancel_waits_for_the_step(void **state)
{
	(void)state;
	steps_run(&op.steps, B, 0, on_end);
	turn();
	steps_cancel(&op.steps);
	turn();
	assert_string_equal(op.trace, "B"); /* it cannot be interrupted */
	done(0);
	/* b went well, c is not begun, what c's failure would undo is undone */
	assert_string_equal(op.trace, "By");
	steps_cancel(&op.steps);
	done(0);
	done(0);
	assert_string_equal(op.trace, "Byx.");
	assert_int_equal(op.err.cls, SW_CANCELLED);
}

static void cancelled_step_that_fails(void **state)
{
	(void)state;
	steps_run(&op.steps, B, 0, on_end);
	turn();
	steps_cancel(&op.steps);
	done(-EIO);
	done(0);
	assert_string_equal(op.trace, "Bx.");
	assert_int_equal(op.err.cls, SW_CANCELLED);
}

static void cancel_of_the_last_step(void **state)
{
	(void)state;
	steps_run(&op.steps, C, 0, on_end);
	turn();
	steps_cancel(&op.steps);
	done(0); /* all of it is done: to call that cancelled would be a lie */
	assert_string_equal(op.trace, "C.");
	assert_false(op.failed);
}

static void cancel_while_undoing(void **state)
{
	(void)state;
	steps_run(&op.steps, C, 0, on_end);
	turn();
	done(-E2BIG);
	steps_cancel(&op.steps);
	done(0);
	done(0);
	assert_string_equal(op.trace, "Cyx.");
	assert_int_equal(op.err.code, -E2BIG);
}

static void cancel_before_the_first_step(void **state)
{
	(void)state;
	steps_run(&op.steps, A, 0, on_end);
	steps_cancel(&op.steps);
	assert_string_equal(op.trace, "");
	turn();
	assert_string_equal(op.trace, ".");
	assert_int_equal(op.err.cls, SW_CANCELLED);
}

static void cancel_self(struct op *o)
{
	steps_cancel(&o->steps);
}

static void cancel_inside_start(void **state)
{
	(void)state;
	op.in_a = cancel_self;
	steps_run(&op.steps, A, 0, on_end);
	turn();
	assert_string_equal(op.trace, "Aa.");
	assert_int_equal(op.n_ends, 1);
	/* when the step had ended already, it has nothing to cancel */
	op.trace[0] = '\0';
	op.auto_end = true;
	steps_run(&op.steps, A, 0, on_end);
	turn();
	assert_string_equal(op.trace, "Ax.");
	assert_int_equal(op.err.cls, SW_CANCELLED);
}

static void deadline(void **state)
{
	(void)state;
	steps_run(&op.steps, A, sw_ms(10), on_end);
	turn();
	sw_fake_advance(loop, sw_ms(10) - 1);
	assert_string_equal(op.trace, "A");
	sw_fake_advance(loop, 1);
	assert_string_equal(op.trace, "Aa.");
	assert_int_equal(op.err.cls, SW_TEMPORARY);
	assert_int_equal(op.err.code, -ETIMEDOUT);
	assert_string_equal(op.err.msg, "op: timed out in step a");

	/* a step that cannot be interrupted ends first */
	op.trace[0] = '\0';
	steps_run(&op.steps, B, sw_ms(10), on_end);
	sw_fake_advance(loop, sw_ms(20));
	assert_string_equal(op.trace, "B");
	done(-E2BIG); /* and its own error says more than "timed out" */
	sw_fake_advance(loop, sw_s(1));
	assert_string_equal(op.trace, "Bx");
	done(0);
	assert_int_equal(op.err.code, -E2BIG);

	/* a deadline of one run is none of the next */
	op.trace[0] = '\0';
	op.auto_end = true;
	steps_run(&op.steps, A, sw_ms(10), on_end);
	turn();
	assert_false(op.failed);
	op.auto_end = false;
	steps_run(&op.steps, A, 0, on_end);
	sw_fake_advance(loop, sw_s(1));
	assert_string_equal(op.trace, "ABC.A");
	steps_kill(&op.steps);
}

static void kill_is_silent(void **state)
{
	(void)state;
	steps_kill(&op.steps);
	steps_run(&op.steps, A, sw_ms(10), on_end);
	steps_kill(&op.steps); /* before the first step */
	steps_run(&op.steps, A, sw_ms(10), on_end);
	turn();
	steps_kill(&op.steps);
	assert_string_equal(op.trace, "Aa");
	assert_false(steps_running(&op.steps));
	sw_fake_advance(loop, sw_s(1));
	assert_string_equal(op.trace, "Aa");
	assert_int_equal(op.n_ends, 0);
	/* between two steps */
	steps_run(&op.steps, A, 0, on_end);
	turn();
	steps_done(&op.steps, NULL);
	steps_kill(&op.steps);
	sw_fake_advance(loop, sw_s(1));
	assert_string_equal(op.trace, "AaA");
	/* it can be used again */
	op.auto_end = true;
	steps_run(&op.steps, A, 0, on_end);
	turn();
	assert_string_equal(op.trace, "AaAABC.");
	assert_false(op.failed);
}

static void run_again(struct op *o)
{
	o->at_end = NULL;
	o->auto_end = true;
	steps_run(&o->steps, A, 0, on_end);
	/* the error is still the one of the run that ended */
	assert_int_equal(o->err.code, -E2BIG);
}

static void running_again_from_the_end(void **state)
{
	(void)state;
	op.at_end = run_again;
	steps_run(&op.steps, A, 0, on_end);
	turn();
	done(-E2BIG);
	assert_string_equal(op.trace, "A.ABC.");
	assert_int_equal(op.n_ends, 2);
	assert_false(op.failed);
}

static char freed_msg[SW_ERR_MSG_MAX];

static void free_in_end(void *arg, const struct sw_err *err)
{
	struct op *o = arg;

	free(o);
	snprintf(freed_msg, sizeof(freed_msg), "%s", err->msg); /* valid during the call */
}

static void freeing_from_the_end(void **state)
{
	struct op *o = xcalloc(1, sizeof(*o));

	(void)state;
	steps_init(&o->steps, loop, "op", NULL, table, o);
	steps_run(&o->steps, A, sw_ms(1), free_in_end);
	sw_fake_advance(loop, sw_ms(2));
	assert_string_equal(freed_msg, "op: timed out in step a");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(all_well),
		T(the_first_error_counts),
		T(jumps),
		T(cancel_stops_the_step),
		T(cancel_waits_for_the_step),
		T(cancelled_step_that_fails),
		T(cancel_of_the_last_step),
		T(cancel_while_undoing),
		T(cancel_before_the_first_step),
		T(cancel_inside_start),
		T(deadline),
		T(kill_is_silent),
		T(running_again_from_the_end),
		T(freeing_from_the_end),
	};

	return cmocka_run_group_tests_name("steps", tests, NULL, NULL);
}
