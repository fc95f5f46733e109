/* Weights and selection of managers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <swarm/backoff.h>
#include <swarm/session.h>

/* A reproducible generator: the statistics below hold for this sequence. */
static uint64_t next_random(void *arg)
{
	uint64_t *x = arg, z;

	z = (*x += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t seed;

static int setup(void **state)
{
	seed = 42;
	sw_random_source(next_random, &seed);
	*state = remotes_new();
	return 0;
}

static int teardown(void **state)
{
	remotes_free(*state);
	sw_random_source(NULL, NULL);
	return 0;
}

static int weight(struct remotes *r, const char *addr)
{
	struct remote l[8];
	size_t n = remotes_list(r, l, 8);

	for (size_t i = 0; i < n; i++)
		if (strcmp(l[i].addr, addr) == 0)
			return l[i].weight;
	fail_msg("%s unknown", addr);
	return 0;
}

static void follow(struct remotes *r, const int *observations, const int *expect, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		remotes_observe(r, "n", "a:1", observations[i]);
		assert_int_equal(weight(r, "a:1"), expect[i]);
	}
}

static void weights_converge(void **state) /* 55 */
{
	follow(*state, (int[]){10, 10, 10, 10, 10}, (int[]){5, 8, 9, 10, 10}, 5);
	follow(*state, (int[]){-10, -10, -10, -10, -10, -10}, (int[]){0, -5, -7, -8, -9, -9}, 6);
}

static void weights_alternate(void **state)
{
	remotes_add(*state, "n", "a:1", 10);
	follow(*state, (int[]){-10, 10, -10, 10, -10, 10, -10, 10},
		(int[]){0, 5, -2, 4, -3, 4, -3, 4}, 8);
	remotes_add(*state, "n", "a:1", 8);
	follow(*state, (int[]){-10}, (int[]){-1}, 1);
}

static void weights_are_clipped(void **state) /* 57 */
{
	struct remotes *r = *state;
	struct remote got;

	for (int i = 0; i < 20; i++) {
		remotes_observe(r, "n", "a:1", INT32_MAX);
		remotes_observe(r, "n", "b:1", INT32_MIN);
	}
	assert_int_equal(weight(r, "a:1"), 256);
	assert_true(weight(r, "b:1") >= -256 && weight(r, "b:1") <= -255);
	assert_int_equal(remotes_select(r, "a:1", &got, NULL), 0);
	assert_string_equal(got.addr, "b:1");
}

static void nobody_to_select(void **state) /* 54 */
{
	struct remotes *r = *state;
	struct remote got;
	struct sw_err err = SW_ERR_NONE;

	assert_int_equal(remotes_select(r, NULL, &got, &err), -2 /* ENOENT */);
	assert_string_equal(err.msg, "no remote hosts provided");
	assert_int_equal(err.cls, SW_TEMPORARY);
	remotes_observe(r, "n1", "a:1", 10);
	assert_true(remotes_select(r, "a:1", &got, &err) < 0);
	assert_true(remotes_select(r, "n1", &got, &err) < 0);
	assert_int_equal(remotes_select(r, "other", &got, &err), 0);
	remotes_observe(r, "n2", "b:1", 10);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(remotes_select(r, "n1", &got, &err), 0);
		assert_string_equal(got.node_id, "n2");
	}
}

static void pair_is_the_key(void **state) /* 60, 61 */
{
	struct remotes *r = *state;

	remotes_observe(r, "", "a:1", 10);
	remotes_observe(r, "n1", "a:1", 10);
	assert_int_equal(remotes_count(r), 2);
	remotes_remove(r, "n2", "a:1");
	assert_int_equal(remotes_count(r), 2);
	remotes_remove(r, "", "a:1");
	assert_int_equal(remotes_count(r), 1);
	remotes_observe_if_exists(r, "", "a:1", -10);
	assert_int_equal(remotes_count(r), 1);
	remotes_observe(r, "n3", "", 10); /* no address: not usable */
	assert_int_equal(remotes_count(r), 1);
}

struct tally {
	int a, b, c;
};

static struct tally draw(struct remotes *r, int n, int observation)
{
	struct tally t = {0};
	struct remote got;

	for (int i = 0; i < n; i++) {
		assert_int_equal(remotes_select(r, NULL, &got, NULL), 0);
		t.a += got.addr[0] == 'a';
		t.b += got.addr[0] == 'b';
		t.c += got.addr[0] == 'c';
		if (observation)
			remotes_observe(r, got.node_id, got.addr, observation);
	}
	return t;
}

static void three(struct remotes *r, int w)
{
	remotes_add(r, "n1", "a:1", w);
	remotes_add(r, "n2", "b:1", w);
	remotes_add(r, "n3", "c:1", w);
}

static void zero_weights_are_uniform(void **state) /* 56 */
{
	struct tally t;

	three(*state, 0);
	t = draw(*state, 1000, 0);
	assert_true(t.a > 250 && t.b > 250 && t.c > 250);
	remotes_observe(*state, "n1", "a:1", 10);
	t = draw(*state, 1000, 0);
	assert_true(t.a > 990);
}

static void one_failure_weighs_heavily(void **state) /* 58 */
{
	struct tally t;

	three(*state, 8);
	remotes_observe(*state, "n1", "a:1", -10);
	t = draw(*state, 100000, 0);
	assert_true(t.a < 100);
	assert_true(t.b > 48000 && t.c > 48000);
}

static void even_weights_balance(void **state) /* 59 */
{
	struct tally t;

	three(*state, 10);
	t = draw(*state, 1000, 10);
	assert_true(t.a > 266 && t.a < 400 && t.b > 266 && t.b < 400 && t.c > 266 && t.c < 400);
	remotes_observe(*state, "n2", "b:1", -10);
	t = draw(*state, 1000, 10);
	assert_true(t.b <= 3);
}

static void count_change(void *arg)
{
	++*(int *)arg;
}

static void changes_are_told(void **state) /* 62, the store's part is elsewhere */
{
	struct remotes *r = *state;
	int n = 0;

	remotes_on_change(r, count_change, &n);
	remotes_observe(r, "n", "a:1", 10);
	assert_int_equal(n, 1);
	for (int i = 0; i < 4; i++)
		remotes_observe(r, "n", "a:1", 10);
	assert_int_equal(n, 4); /* 8, 9, 10, then it stays at 10 */
	remotes_observe_if_exists(r, "x", "a:1", 10);
	assert_int_equal(n, 4);
	remotes_remove(r, "n", "a:1");
	assert_int_equal(n, 5);
}

static void a_flood_is_limited(void **state)
{
	char addr[32];

	for (int i = 0; i < 1000; i++) {
		snprintf(addr, sizeof(addr), "10.0.%d.%d:2377", i / 256, i % 256);
		remotes_observe(*state, "n", addr, 10);
	}
	assert_int_equal(remotes_count(*state), 256);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(weights_converge),
		T(weights_alternate),
		T(weights_are_clipped),
		T(nobody_to_select),
		T(pair_is_the_key),
		T(zero_weights_are_uniform),
		T(one_failure_weighs_heavily),
		T(even_weights_balance),
		T(changes_are_told),
		T(a_flood_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
