#include <chain_model.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/chain.h>
#include <test.h>

static void assert_chain(const struct chain *c, const char *want)
{
	size_t len = strlen(want);
	char buf[256];

	assert_int_equal(chain_len(c), len);
	assert_int_equal(chain_peek(c, 0, buf, sizeof(buf)), len);
	assert_memory_equal(buf, want, len);
}

static int no_block_left(void **state)
{
	(void)state;
	return block_count() == 0 ? 0 : -1;
}

static int n_iov(const struct chain *c)
{
	struct iovec iov[64];

	return chain_iov(c, iov, 64, NULL);
}

static void empty(void **state)
{
	struct chain c = {0}, d = {0};
	struct iovec iov[2];
	size_t bytes = 7;
	char b;

	(void)state;
	assert_int_equal(chain_iov(&c, iov, 2, &bytes), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(chain_peek(&c, 0, &b, 1), 0);
	assert_int_equal(chain_find(&c, 0, 'x'), -1);
	assert_non_null(chain_pullup(&c, 0));
	assert_null(chain_pullup(&c, 1));
	assert_int_equal(chain_move(&d, &c, 10), 0);
	chain_append_chain(&d, &c);
	chain_share(&d, &c, 0, 10);
	chain_share(&d, &c, SIZE_MAX, SIZE_MAX);
	chain_drain(&c, SIZE_MAX);
	assert_int_equal(chain_append(&c, NULL, 0), 0);
	chain_append_static(&c, NULL, 0);
	assert_null(c.first);
	assert_null(d.first);
	chain_done(&c);
	chain_done(NULL);
	block_unref(NULL);
}

static void append_fills_the_last_block(void **state)
{
	struct chain c = {0};

	(void)state;
	for (int i = 0; i < 500; i++)
		assert_int_equal(chain_append(&c, "ab", 2), 0);
	assert_int_equal(chain_len(&c), 1000);
	assert_int_equal(n_iov(&c), 1);
	assert_int_equal(block_count(), 1);
	chain_drain(&c, 999);
	assert_chain(&c, "b");
	chain_done(&c);
}

/* Small appends to a long chain: the number of blocks grows with the bytes, not with the calls. */
static void append_is_not_one_block_per_call(void **state)
{
	struct chain c = {0};

	(void)state;
	for (int i = 0; i < 100000; i++)
		assert_int_equal(chain_append(&c, "0123456789", 10), 0);
	assert_int_equal(chain_len(&c), 1000000);
	assert_true(block_count() <= 7 + 1000000 / 65536 + 1);
	chain_done(&c);
}

static void append_too_much_appends_nothing(void **state)
{
	struct chain c = {0};

	(void)state;
	assert_int_equal(chain_append(&c, "abc", 3), 0);
	assert_int_equal(chain_append(&c, "abc", SIZE_MAX), -ENOMEM);
	assert_int_equal(chain_append(&c, "abc", SSIZE_MAX), -ENOMEM);
	assert_chain(&c, "abc");
	assert_null(block_new(SIZE_MAX));
	assert_null(block_new(SIZE_MAX - 8));
	chain_done(&c);
}

/* The linker sends malloc() of the code under test here. */
static bool memory_is_gone;
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return memory_is_gone ? NULL : __real_malloc(size);
}

static void without_memory(void **state)
{
	static uint8_t big[200000];
	struct chain c = {0};
	size_t avail = 5;

	(void)state;
	assert_int_equal(chain_append(&c, "abc", 3), 0);
	chain_append_static(&c, big, sizeof(big));
	memory_is_gone = true;
	assert_int_equal(chain_append(&c, big, sizeof(big)), -ENOMEM);
	assert_null(chain_reserve(&c, sizeof(big), &avail));
	assert_null(chain_pullup(&c, sizeof(big)));
	assert_null(block_new(100000));
	assert_null(block_wrap(big, 1, NULL, NULL));
	memory_is_gone = false;
	/* nothing happened */
	assert_int_equal(chain_len(&c), 3 + sizeof(big));
	assert_int_equal(block_count(), 1);
	assert_memory_equal(chain_pullup(&c, 5), "abc\0\0", 5);
	chain_drain(&c, SIZE_MAX);
	/* not even the part that would have fitted */
	assert_int_equal(chain_append(&c, "abc", 3), 0);
	memory_is_gone = true;
	assert_int_equal(chain_append(&c, big, sizeof(big)), -ENOMEM);
	assert_int_equal(chain_append(&c, "d", 1), 0);
	memory_is_gone = false;
	assert_chain(&c, "abcd");
	chain_done(&c);
}

static void move_splits_without_copying(void **state)
{
	struct chain c = {0}, d = {0};
	struct iovec before, after[2];

	(void)state;
	assert_int_equal(chain_append(&c, "hello world", 11), 0);
	assert_int_equal(chain_iov(&c, &before, 1, NULL), 1);
	assert_int_equal(chain_move(&d, &c, 5), 5);
	assert_chain(&d, "hello");
	assert_chain(&c, " world");
	assert_int_equal(chain_iov(&d, after, 2, NULL), 1);
	assert_ptr_equal(after[0].iov_base, before.iov_base);
	assert_int_equal(chain_iov(&c, after, 2, NULL), 1);
	assert_ptr_equal(after[0].iov_base, (char *)before.iov_base + 5);
	assert_int_equal(block_count(), 1);
	/* the front half must not grow into the second one */
	assert_int_equal(chain_append(&d, "!", 1), 0);
	assert_chain(&d, "hello!");
	assert_chain(&c, " world");
	/* the second half may still use the room behind it */
	assert_int_equal(chain_append(&c, "!", 1), 0);
	assert_int_equal(n_iov(&c), 1);
	assert_chain(&c, " world!");
	assert_int_equal(chain_move(&d, &c, 100), 7);
	assert_null(c.first);
	assert_chain(&d, "hello! world!");
	chain_done(&d);
}

static void halves_grow_together_again(void **state)
{
	struct chain c = {0}, d = {0};

	(void)state;
	assert_int_equal(chain_append(&c, "hello world", 11), 0);
	assert_int_equal(chain_move(&d, &c, 5), 5);
	chain_append_chain(&d, &c);
	assert_chain(&d, "hello world");
	assert_int_equal(n_iov(&d), 1);
	assert_int_equal(chain_append(&d, "!", 1), 0);
	assert_int_equal(n_iov(&d), 1);
	assert_chain(&d, "hello world!");
	chain_done(&d);
}

static void share_keeps_the_block(void **state)
{
	struct chain c = {0}, d = {0};

	(void)state;
	assert_int_equal(chain_append(&c, "abcdef", 6), 0);
	chain_append_static(&c, "STATIC", 6);
	chain_share(&d, &c, 4, 4);
	assert_chain(&d, "efST");
	chain_share(&d, &c, 11, 100);
	assert_chain(&d, "efSTC");
	assert_int_equal(block_count(), 1);
	chain_done(&c);
	assert_int_equal(block_count(), 1);
	assert_chain(&d, "efSTC");
	chain_share(&d, &d, 1, 3); /* with itself */
	assert_chain(&d, "efSTCfST");
	chain_done(&d);
}

static void only_one_chain_grows_into_a_block(void **state)
{
	struct chain c = {0}, d = {0};

	(void)state;
	assert_int_equal(chain_append(&c, "abc", 3), 0);
	chain_share(&d, &c, 0, 3);
	assert_int_equal(chain_append(&d, "D", 1), 0);
	assert_int_equal(chain_append(&c, "C", 1), 0);
	assert_chain(&c, "abcC");
	assert_chain(&d, "abcD");
	chain_done(&c);
	assert_int_equal(chain_append(&d, "E", 1), 0);
	assert_chain(&d, "abcDE");
	chain_done(&d);
}

static void reserve_and_commit(void **state)
{
	struct chain c = {0};
	size_t avail = 0, again = 0;
	uint8_t *p, *q;

	(void)state;
	p = chain_reserve(&c, 0, &avail);
	assert_non_null(p);
	assert_true(avail >= 16384);
	assert_int_equal(chain_len(&c), 0);
	/* nothing came: the same room again */
	chain_commit(&c, 0);
	q = chain_reserve(&c, 100, &again);
	assert_ptr_equal(p, q);
	assert_int_equal(avail, again);
	memcpy(p, "data", 4);
	chain_commit(&c, 4);
	assert_chain(&c, "data");
	q = chain_reserve(&c, 1, &again);
	assert_ptr_equal(q, p + 4);
	assert_int_equal(again, avail - 4);
	/* an unused reservation gives way */
	chain_append_static(&c, "!", 1);
	assert_chain(&c, "data!");
	assert_int_equal(n_iov(&c), 2);
	p = chain_reserve(&c, 1000000, &avail);
	assert_non_null(p);
	assert_true(avail >= 1000000);
	chain_append_static(&c, "?", 1);
	assert_int_equal(block_count(), 1);
	assert_chain(&c, "data!?");
	chain_done(&c);
	p = chain_reserve(&c, 1, &avail);
	assert_non_null(p);
	chain_done(&c);
	assert_null(chain_reserve(&c, SIZE_MAX, &avail));
}

/* What takes the place of an unused reservation keeps the room behind it. */
static void room_moves_along(void **state)
{
	struct chain c = {0}, d = {0};
	size_t avail;

	(void)state;
	assert_non_null(chain_reserve(&c, 1, &avail));
	assert_int_equal(chain_append(&d, "ab", 2), 0);
	chain_append_chain(&c, &d);
	assert_int_equal(block_count(), 1);
	assert_int_equal(chain_append(&c, "cd", 2), 0);
	assert_chain(&c, "abcd");
	assert_int_equal(n_iov(&c), 1);
	assert_int_equal(block_count(), 1);
	chain_done(&c);
	/* an append that does not fit fills the reservation first */
	assert_non_null(chain_reserve(&c, 1, &avail));
	{
		char *big = calloc(1, avail + 1);

		assert_non_null(big);
		assert_int_equal(chain_append(&c, big, avail + 1), 0);
		assert_int_equal(chain_len(&c), avail + 1);
		assert_int_equal(n_iov(&c), 2);
		assert_int_equal(block_count(), 2);
		free(big);
	}
	chain_done(&c);
}

/* A peer that sends single bytes must not make us hold a block for each of them. */
static void reserve_does_not_multiply_memory(void **state)
{
	static const size_t wants[] = {1, 4096, 16384, 65536};
	struct chain c = {0};

	(void)state;
	for (size_t w = 0; w < 4; w++) {
		size_t avail, n = 300000;

		for (size_t i = 0; i < n; i++) {
			uint8_t *p = chain_reserve(&c, wants[w], &avail);

			assert_non_null(p);
			*p = (uint8_t)i;
			chain_commit(&c, 1);
		}
		assert_true(block_count() <= 2 + n / 8192);
		assert_true((size_t)n_iov(&c) == block_count());
		chain_done(&c);
	}
}

static int n_released;
static void on_release(void *arg)
{
	assert_ptr_equal(arg, &n_released);
	n_released++;
}

static void wrapped_memory_is_released_once(void **state)
{
	static uint8_t mem[] = "foreign memory";
	struct sw_block *b = block_wrap(mem, sizeof(mem) - 1, on_release, &n_released);
	struct chain c = {0}, d = {0};

	(void)state;
	assert_non_null(b);
	assert_ptr_equal(block_data(b), mem);
	assert_int_equal(block_size(b), sizeof(mem) - 1);
	chain_append_block(&c, b, 0, 7);
	chain_append_block(&c, b, 8, 6);
	chain_append_block(&c, block_ref(b), 7, 0);
	block_unref(b);
	block_unref(b);
	assert_chain(&c, "foreignmemory");
	/* memory that is not ours is never written to */
	assert_int_equal(chain_append(&c, "+", 1), 0);
	assert_string_equal((char *)mem, "foreign memory");
	chain_share(&d, &c, 0, 3);
	chain_done(&c);
	assert_int_equal(n_released, 0);
	chain_done(&d);
	assert_int_equal(n_released, 1);
}

static void pullup(void **state)
{
	struct chain c = {0};
	struct iovec iov[4];
	const uint8_t *p;

	(void)state;
	chain_append_static(&c, "ab", 2);
	chain_append_static(&c, "cd", 2);
	chain_append_static(&c, "ef", 2);
	assert_int_equal(chain_iov(&c, iov, 4, NULL), 3);
	assert_ptr_equal(chain_pullup(&c, 2), iov[0].iov_base); /* as it is */
	p = chain_pullup(&c, 3);
	assert_memory_equal(p, "abc", 3);
	assert_chain(&c, "abcdef");
	assert_int_equal(n_iov(&c), 3);
	p = chain_pullup(&c, 6);
	assert_memory_equal(p, "abcdef", 6);
	assert_int_equal(n_iov(&c), 1);
	assert_null(chain_pullup(&c, 7));
	assert_chain(&c, "abcdef");
	chain_append_static(&c, "g", 1);
	assert_chain(&c, "abcdefg");
	chain_done(&c);
}

static void find(void **state)
{
	struct chain c = {0};

	(void)state;
	chain_append_static(&c, "ab\n", 3);
	chain_append_static(&c, "c\n", 2);
	assert_int_equal(chain_find(&c, 0, '\n'), 2);
	assert_int_equal(chain_find(&c, 2, '\n'), 2);
	assert_int_equal(chain_find(&c, 3, '\n'), 4);
	assert_int_equal(chain_find(&c, 5, '\n'), -1);
	assert_int_equal(chain_find(&c, SIZE_MAX, '\n'), -1);
	assert_int_equal(chain_find(&c, 0, 'x'), -1);
	assert_int_equal(chain_find(&c, 0, 'a'), 0);
	chain_done(&c);
}

static void uiomove_drains_what_it_moved(void **state)
{
	struct chain c = {0};
	char a[3], b[4];
	struct iovec iov[] = {{a, sizeof(a)}, {b, sizeof(b)}};
	struct uio uio;

	(void)state;
	chain_append_static(&c, "01234", 5);
	chain_append_static(&c, "56789", 5);
	assert_int_equal(uio_init_sys(&uio, iov, 2, UIO_READ), 0);
	assert_int_equal(chain_uiomove(&c, 6, &uio), 0);
	assert_chain(&c, "6789");
	assert_int_equal(uio.uio_resid, 1);
	assert_int_equal(chain_uiomove(&c, SIZE_MAX, &uio), 0);
	assert_chain(&c, "789");
	assert_int_equal(uio.uio_resid, 0);
	assert_memory_equal(a, "012", 3);
	assert_memory_equal(b, "3456", 4);
	/* a uio that promises more than it has */
	iov[0] = (struct iovec){a, 1};
	assert_int_equal(uio_init_sys(&uio, iov, 1, UIO_READ), 0);
	uio.uio_resid = 3;
	assert_int_equal(chain_uiomove(&c, 3, &uio), EFAULT);
	assert_chain(&c, "89");
	uio.uio_rw = UIO_WRITE;
	assert_int_equal(chain_uiomove(&c, 3, &uio), EINVAL);
	chain_done(&c);
}

static void iov_is_limited(void **state)
{
	struct chain c = {0};
	struct iovec iov[2];
	size_t bytes = 0;

	(void)state;
	chain_append_static(&c, "ab", 2);
	chain_append_static(&c, "c", 1);
	chain_append_static(&c, "defg", 4);
	assert_int_equal(chain_iov(&c, iov, 2, &bytes), 2);
	assert_int_equal(bytes, 3);
	assert_int_equal(chain_iov(&c, iov, 0, &bytes), 0);
	assert_int_equal(bytes, 0);
	chain_done(&c);
}

/* Random programs against flat buffers; the seed is fixed, so a failure is found again. */
static void random_programs(void **state)
{
	uint8_t program[4096];
	uint32_t seed = 20240229;

	(void)state;
	for (int round = 0; round < 50; round++) {
		for (size_t i = 0; i < sizeof(program); i++) {
			seed = seed * 1664525u + 1013904223u;
			program[i] = (uint8_t)(seed >> 24);
		}
		chain_model_run(program, sizeof(program));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(empty, no_block_left),
		cmocka_unit_test_teardown(append_fills_the_last_block, no_block_left),
		cmocka_unit_test_teardown(append_is_not_one_block_per_call, no_block_left),
		cmocka_unit_test_teardown(append_too_much_appends_nothing, no_block_left),
		cmocka_unit_test_teardown(without_memory, no_block_left),
		cmocka_unit_test_teardown(move_splits_without_copying, no_block_left),
		cmocka_unit_test_teardown(halves_grow_together_again, no_block_left),
		cmocka_unit_test_teardown(share_keeps_the_block, no_block_left),
		cmocka_unit_test_teardown(only_one_chain_grows_into_a_block, no_block_left),
		cmocka_unit_test_teardown(reserve_and_commit, no_block_left),
		cmocka_unit_test_teardown(room_moves_along, no_block_left),
		cmocka_unit_test_teardown(reserve_does_not_multiply_memory, no_block_left),
		cmocka_unit_test_teardown(wrapped_memory_is_released_once, no_block_left),
		cmocka_unit_test_teardown(pullup, no_block_left),
		cmocka_unit_test_teardown(find, no_block_left),
		cmocka_unit_test_teardown(uiomove_drains_what_it_moved, no_block_left),
		cmocka_unit_test_teardown(iov_is_limited, no_block_left),
		cmocka_unit_test_teardown(random_programs, no_block_left),
	};

	return cmocka_run_group_tests_name("chain", tests, NULL, NULL);
}
