/* Secrets and configs: who may see what (agent-cases M). */
#include "agent/deps.h"
#include "fakesource.h"
#include "test.h"
#include <stdlib.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

struct env {
	struct deps *d;
	struct executor_deps get;
	Pb__Task *t1, *t2;
};

static const Pb__Task *task(void *arg, const char *id)
{
	struct env *e = arg;

	return strcmp(id, "t1") == 0 ? e->t1 : strcmp(id, "t2") == 0 ? e->t2 : NULL;
}

static int setup(void **state)
{
	struct env *e = xcalloc(1, sizeof(*e));

	log_set_level(LOG_L_ERR);
	e->d = deps_new(task, e);
	deps_getters(e->d, &e->get);
	e->t1 = fake_task_secret("t1", 512, 192, "s1");
	e->t2 = fake_task_secret("t2", 512, 192, "s2");
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	deps_free(e->d);
	api_free(e->t1);
	api_free(e->t2);
	free(e);
	return 0;
}

static bool apply(struct env *e, Pb__AssignmentsMessage *m)
{
	bool added = deps_apply(e->d, m);

	api_free(m);
	return added;
}

static const char *secret(struct env *e, const char *task_id, const char *id)
{
	static char text[64];
	const Pb__Secret *s = e->get.secret(e->get.arg, task_id, id);

	if (!s)
		return "none";
	snprintf(text, sizeof(text), "%s=%.*s", s->id, (int)s->spec->data.len,
		(const char *)s->spec->data.data);
	return text;
}

static void test_restricted(void **state)
{
	struct env *e = *state;
	Pb__AssignmentsMessage *m = fake_message(true);

	fake_add_secret(m, fake_secret("s1", "one"), false);
	fake_add_secret(m, fake_secret("s2", "two"), false);
	assert_true(apply(e, m));
	assert_string_equal(secret(e, "t1", "s1"), "s1=one");
	assert_string_equal(secret(e, "t1", "s2"), "none");
	assert_string_equal(secret(e, "t2", "s2"), "s2=two");
	assert_string_equal(secret(e, "t3", "s2"), "none");
	assert_null(e->get.config(e->get.arg, "t1", "s1"));
}

static void test_combined_id(void **state)
{
	struct env *e = *state;
	Pb__AssignmentsMessage *m = fake_message(true);

	fake_add_secret(m, fake_secret("s1", "shared"), false);
	fake_add_secret(m, fake_secret("s1.t1", "own"), false);
	apply(e, m);
	assert_string_equal(secret(e, "t1", "s1"), "s1=own"); /* under the plain id */
	assert_string_equal(secret(e, "t1", "s1.t1"), "none");
	m = fake_message(false);
	fake_add_secret(m, fake_secret("s1.t1", ""), true);
	apply(e, m);
	assert_string_equal(secret(e, "t1", "s1"), "s1=shared");
}

static void test_complete_and_incremental(void **state)
{
	struct env *e = *state;
	Pb__AssignmentsMessage *m = fake_message(true);

	fake_add_secret(m, fake_secret("s1", "one"), false);
	fake_add_config(m, fake_config("c1", "conf"), false);
	fake_add_secret(m, fake_secret("s2", "two"), true); /* ignored in a COMPLETE */
	apply(e, m);
	assert_int_equal(deps_count(e->d), 2);
	m = fake_message(false);
	fake_add_secret(m, fake_secret("s1", "new"), false);
	fake_add_secret(m, fake_secret("s1", ""), true); /* removals first */
	fake_add_secret(m, fake_secret("gone", ""), true);
	apply(e, m);
	assert_string_equal(secret(e, "t1", "s1"), "s1=new");
	m = fake_message(true);
	fake_add_secret(m, fake_secret("s2", "two"), false);
	apply(e, m);
	assert_int_equal(deps_count(e->d), 1);
	assert_string_equal(secret(e, "t1", "s1"), "none");
	assert_false(apply(e, fake_message(true)));
	assert_int_equal(deps_count(e->d), 0);
}

static void test_bad_ids(void **state)
{
	struct env *e = *state;
	Pb__AssignmentsMessage *m = fake_message(true);

	fake_add_secret(m, fake_secret("", "x"), false);
	fake_add_secret(m, fake_secret("../x", "x"), false);
	fake_add_secret(m, fake_secret("s1.", "x"), false);
	fake_add_secret(m, fake_secret("s1.a.b", "x"), false);
	fake_add_config(m, fake_config("C1", "x"), false);
	fake_add_secret(m, NULL, false);
	assert_false(apply(e, m));
	assert_int_equal(deps_count(e->d), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_restricted),
		T(test_combined_id),
		T(test_complete_and_incremental),
		T(test_bad_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
