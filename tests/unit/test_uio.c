#include <errno.h>
#include <string.h>
#include <swarm/uio.h>
#include <test.h>

static void partial_moves(void **state)
{
	char a[3], b[5], in[] = "0123456789";
	struct iovec iov[] = {{a, sizeof(a)}, {NULL, 0}, {b, sizeof(b)}};
	struct uio uio;

	(void)state;
	assert_int_equal(uio_init_sys(&uio, iov, 3, UIO_READ), 0);
	assert_int_equal(uio.uio_resid, 8);
	uio.uio_offset = 100;
	assert_int_equal(uiomove(in, 2, &uio), 0);
	assert_int_equal(uio.uio_resid, 6);
	assert_int_equal(uio.uio_offset, 102);
	assert_int_equal(uio.uio_iovcnt, 3);
	assert_int_equal(uiomove(in + 2, 1, &uio), 0);
	/* exhausted, and still in front */
	assert_int_equal(uio.uio_iovcnt, 3);
	assert_int_equal(iov[0].iov_len, 0);
	assert_ptr_equal(iov[0].iov_base, a + 3);
	assert_int_equal(uiomove(in + 3, 100, &uio), 0);
	assert_int_equal(uio.uio_resid, 0);
	assert_int_equal(uio.uio_offset, 108);
	assert_int_equal(uio.uio_iovcnt, 1);
	assert_memory_equal(a, "012", 3);
	assert_memory_equal(b, "34567", 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(partial_moves),
	};

	return cmocka_run_group_tests_name("uio", tests, NULL, NULL);
}
