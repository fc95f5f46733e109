#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/uio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <test.h>
#include <unistd.h>

static size_t page;

static struct uio make(struct iovec *iov, int n, enum uio_seg seg, enum uio_rw rw)
{
	struct uio uio = {.uio_iov = iov, .uio_iovcnt = n, .uio_segflg = seg, .uio_rw = rw};

	for (int i = 0; i < n; i++)
		uio.uio_resid += (ssize_t)iov[i].iov_len;
	return uio;
}

static void *map_anon(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	/* a huge page would bring in what was not touched; fails where there are none */
	(void)madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

/* @len bytes of a file that is @size long. */
static uint8_t *map_file(size_t size, size_t len)
{
	int fd = memfd_create("uio", MFD_CLOEXEC);
	uint8_t *p;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	close(fd);
	return p;
}

/* --- SYSSPACE --------------------------------------------------------------------------------- */

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
	assert_ptr_equal(uio.uio_iov, iov);
	assert_int_equal(iov[0].iov_len, 0);
	assert_ptr_equal(iov[0].iov_base, a + 3);
	assert_int_equal(uiomove(in + 3, 0, &uio), 0);
	assert_int_equal(uio.uio_iovcnt, 3);
	/* more than there is room */
	assert_int_equal(uiomove(in + 3, 100, &uio), 0);
	assert_int_equal(uio.uio_resid, 0);
	assert_int_equal(uio.uio_offset, 108);
	assert_int_equal(uio.uio_iovcnt, 1);
	assert_ptr_equal(uio.uio_iov, iov + 2);
	assert_memory_equal(a, "012", 3);
	assert_memory_equal(b, "34567", 5);
	/* nothing left: no error */
	assert_int_equal(uiomove(in, 1, &uio), 0);
	assert_int_equal(uio.uio_offset, 108);
}

static void write_gathers(void **state)
{
	char a[] = "abc", b[] = "defg", out[8] = "-------";
	struct iovec iov[] = {{NULL, 0}, {a, 3}, {NULL, 0}, {NULL, 0}, {b, 4}, {NULL, 0}};
	struct uio uio;

	(void)state;
	assert_int_equal(uio_init_sys(&uio, iov, 6, UIO_WRITE), 0);
	assert_int_equal(uiomove(out, 5, &uio), 0);
	assert_string_equal(out, "abcde--");
	assert_int_equal(uio.uio_resid, 2);
	assert_int_equal(uiomove(out, sizeof(out), &uio), 0);
	assert_string_equal(out, "fgcde--");
	assert_int_equal(uio.uio_resid, 0);
	assert_int_equal(uio.uio_offset, 7);
}

static void resid_limits_the_move(void **state)
{
	char a[] = "abcdef", out[7] = "------";
	struct iovec iov[] = {{a, 6}};
	struct uio uio = make(iov, 1, UIO_SYSSPACE, UIO_WRITE);

	(void)state;
	uio.uio_resid = 2;
	assert_int_equal(uiomove(out, 6, &uio), 0);
	assert_string_equal(out, "ab----");
	assert_int_equal(uio.uio_resid, 0);
	assert_int_equal(iov[0].iov_len, 4);
}

static void overlapping_memory(void **state)
{
	char a[] = "0123456789";
	struct iovec iov[] = {{a + 2, 8}};
	struct uio uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);

	(void)state;
	assert_int_equal(uiomove(a, 8, &uio), 0);
	assert_string_equal(a, "0101234567");
}

/* By field: what lies between the fields is nobody's. */
static bool same(const struct uio *a, const struct uio *b)
{
	return a->uio_iov == b->uio_iov && a->uio_iovcnt == b->uio_iovcnt &&
	       a->uio_offset == b->uio_offset && a->uio_resid == b->uio_resid &&
	       a->uio_segflg == b->uio_segflg && a->uio_rw == b->uio_rw && a->uio_td == b->uio_td;
}

static void malformed(void **state)
{
	char a[4] = "", in[16] = "0123456789";
	struct iovec iov[] = {{a, 4}};
	struct uio uio = make(iov, 1, UIO_SYSSPACE, UIO_READ), was;

	(void)state;
	/* resid promises more than the iovecs hold: what was there is moved and accounted */
	uio.uio_resid = 6;
	assert_int_equal(uiomove(in, 6, &uio), EFAULT);
	assert_memory_equal(a, "0123", 4);
	assert_int_equal(uio.uio_resid, 2);
	assert_int_equal(uio.uio_offset, 4);
	assert_int_equal(uiomove(in, 1, &uio), EFAULT);

	iov[0] = (struct iovec){a, 4};
	uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);
	uio.uio_iovcnt = -1;
	assert_int_equal(uiomove(in, 1, &uio), EFAULT);

#define REFUSED(field, value)                                                                      \
	do {                                                                                       \
		uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);                                        \
		uio.field = value;                                                                 \
		was = uio;                                                                         \
		memset(a, '-', 4);                                                                 \
		assert_int_equal(uiomove(in, 4, &uio), EINVAL);                                    \
		assert_int_equal(uiomove_nofault(in, 4, &uio), EINVAL);                            \
		assert_int_equal(uio_advance(&uio, 4), 0);                                         \
		assert_memory_equal(a, "----", 4);                                                 \
		assert_true(same(&uio, &was));                                                     \
		assert_int_equal(iov[0].iov_len, 4);                                               \
	} while (0)
	REFUSED(uio_resid, -1);
	REFUSED(uio_resid, -SSIZE_MAX - 1);
	REFUSED(uio_rw, (enum uio_rw)7);
	REFUSED(uio_segflg, (enum uio_seg)7);
	REFUSED(uio_td, -2);
	REFUSED(uio_offset, INT64_MAX - 3);
#undef REFUSED
	/* the last offset there is */
	uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);
	uio.uio_offset = INT64_MAX - 4;
	assert_int_equal(uiomove(in, 4, &uio), 0);
	assert_true(uio.uio_offset == INT64_MAX);
	/* uio(9) does not judge offsets below 0 */
	iov[0] = (struct iovec){a, 4};
	uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);
	uio.uio_offset = -2;
	assert_int_equal(uiomove(in, 4, &uio), 0);
	assert_int_equal(uio.uio_offset, 2);
}

static void init_checks_the_sum(void **state)
{
	static struct iovec iov[UIO_MAXIOV + 1];
	struct uio uio = {.uio_resid = 77};

	(void)state;
	assert_int_equal(uio_init_sys(&uio, iov, -1, UIO_READ), EINVAL);
	assert_int_equal(uio_init_sys(&uio, iov, UIO_MAXIOV + 1, UIO_READ), EINVAL);
	iov[0].iov_len = SSIZE_MAX;
	iov[1].iov_len = 1;
	assert_int_equal(uio_init_sys(&uio, iov, 2, UIO_READ), EINVAL);
	iov[1].iov_len = SIZE_MAX;
	assert_int_equal(uio_init_sys(&uio, iov, 2, UIO_READ), EINVAL);
	assert_int_equal(uio_init_sys(&uio, iov + 1, 1, UIO_READ), EINVAL);
	assert_int_equal(uio.uio_resid, 77);
	assert_int_equal(uio_init_sys(&uio, iov, 1, UIO_READ), 0);
	assert_true(uio.uio_resid == SSIZE_MAX);
	assert_int_equal(uio_init_sys(&uio, NULL, 0, UIO_WRITE), 0);
	assert_int_equal(uio.uio_resid, 0);
	assert_int_equal(uiomove(NULL, 5, &uio), 0);
	iov[0].iov_len = iov[1].iov_len = 0;
	assert_int_equal(uio_init_sys(&uio, iov, UIO_MAXIOV, UIO_READ), 0);
	assert_int_equal(uiomove(NULL, 5, &uio), 0);
}

static void nocopy_only_accounts(void **state)
{
	char in[] = "0123456789";
	struct iovec iov[] = {{NULL, 4}, {(void *)16, 4}, {NULL, SIZE_MAX / 4}};
	struct uio uio = make(iov, 3, UIO_NOCOPY, UIO_READ);
	ssize_t resid = uio.uio_resid;

	(void)state;
	assert_int_equal(uiomove(in, 6, &uio), 0);
	assert_int_equal(uio.uio_offset, 6);
	assert_true(uio.uio_resid == resid - 6);
	assert_ptr_equal(iov[1].iov_base, (void *)18);
	assert_int_equal(iov[1].iov_len, 2);
	assert_int_equal(uiomove_nofault(NULL, 2, &uio), 0);
	uio.uio_rw = UIO_WRITE;
	assert_int_equal(uiomove(NULL, SIZE_MAX, &uio), 0);
	assert_int_equal(uio.uio_resid, 0);
	assert_true(uio.uio_offset == resid);
	assert_string_equal(in, "0123456789");
}

static void advance(void **state)
{
	char a[4] = "abc", b[4] = "def";
	struct iovec iov[] = {{a, 3}, {NULL, 0}, {b, 3}};
	struct uio uio = make(iov, 3, UIO_SYSSPACE, UIO_WRITE);
	char out[3] = "";

	(void)state;
	assert_int_equal(uio_advance(&uio, 0), 0);
	assert_int_equal(uio_advance(&uio, 4), 4);
	assert_int_equal(uio.uio_offset, 4);
	assert_int_equal(uiomove(out, 2, &uio), 0);
	assert_memory_equal(out, "ef", 2);
	assert_int_equal(uio_advance(&uio, 4), 0);
	/* ends where the iovecs end */
	iov[2] = (struct iovec){b, 3};
	uio = make(iov + 2, 1, UIO_SYSSPACE, UIO_WRITE);
	uio.uio_resid = 10;
	assert_int_equal(uio_advance(&uio, 10), 3);
	assert_int_equal(uio.uio_resid, 7);
}

static void frombuf(void **state)
{
	char object[] = "0123456789", a[4] = "---";
	struct iovec iov[] = {{a, 3}};
	struct uio uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);

	(void)state;
	uio.uio_offset = 4;
	assert_int_equal(uiomove_frombuf(object, 10, &uio), 0);
	assert_string_equal(a, "456");
	assert_int_equal(uio.uio_offset, 7);
	/* the end of the object */
	iov[0] = (struct iovec){a, 3};
	uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);
	uio.uio_offset = 8;
	assert_int_equal(uiomove_frombuf(object, 10, &uio), 0);
	assert_string_equal(a, "896");
	assert_int_equal(uio.uio_resid, 1);
	assert_int_equal(uio.uio_offset, 10);
	/* at the end and past it */
	assert_int_equal(uiomove_frombuf(object, 10, &uio), 0);
	assert_int_equal(uio.uio_resid, 1);
	uio.uio_offset = INT64_MAX;
	assert_int_equal(uiomove_frombuf(object, 10, &uio), 0);
	uio.uio_offset = 0;
	assert_int_equal(uiomove_frombuf(object, 0, &uio), 0);
	assert_int_equal(uio.uio_resid, 1);
	uio.uio_offset = -1;
	assert_int_equal(uiomove_frombuf(object, 10, &uio), EINVAL);
	uio.uio_offset = 20; /* a negative resid is one wherever the offset is */
	uio.uio_resid = -1;
	assert_int_equal(uiomove_frombuf(object, 10, &uio), EINVAL);
	/* into the object */
	iov[0] = (struct iovec){a, 3};
	uio = make(iov, 1, UIO_SYSSPACE, UIO_WRITE);
	uio.uio_offset = 1;
	assert_int_equal(uiomove_frombuf(object, 10, &uio), 0);
	assert_string_equal(object, "0896456789");
}

static void uio_to_uio(void **state)
{
	char a[] = "abc", b[] = "defg", x[2], y[4], z[6] = "-----";
	struct iovec from[] = {{a, 3}, {NULL, 0}, {b, 4}};
	struct iovec to[] = {{x, 2}, {y, 4}, {NULL, 0}, {z, 5}};
	struct uio src = make(from, 3, UIO_SYSSPACE, UIO_WRITE);
	struct uio dst = make(to, 4, UIO_SYSSPACE, UIO_READ);

	(void)state;
	assert_int_equal(uiomove_uio(&src, &dst, 3), 0);
	assert_int_equal(src.uio_resid, 4);
	assert_int_equal(dst.uio_resid, 8);
	assert_int_equal(uiomove_uio(&src, &dst, SIZE_MAX), 0);
	assert_memory_equal(x, "ab", 2);
	assert_memory_equal(y, "cdef", 4);
	assert_string_equal(z, "g----");
	assert_int_equal(src.uio_resid, 0);
	assert_int_equal(src.uio_offset, 7);
	assert_int_equal(dst.uio_resid, 4);
	assert_int_equal(dst.uio_offset, 7);

	/* to and from nowhere */
	from[0] = (struct iovec){a, 3};
	to[0] = (struct iovec){NULL, 2};
	src = make(from, 1, UIO_SYSSPACE, UIO_WRITE);
	dst = make(to, 1, UIO_NOCOPY, UIO_READ);
	assert_int_equal(uiomove_uio(&src, &dst, 9), 0);
	assert_int_equal(src.uio_resid, 1);
	from[0] = (struct iovec){NULL, 3};
	to[0] = (struct iovec){z, 3};
	src = make(from, 1, UIO_NOCOPY, UIO_WRITE);
	dst = make(to, 1, UIO_SYSSPACE, UIO_READ);
	assert_int_equal(uiomove_uio(&src, &dst, 9), 0);
	assert_string_equal(z, "g----");

	/* directions and segments */
	dst = make(to, 1, UIO_SYSSPACE, UIO_READ);
	src = make(from, 1, UIO_SYSSPACE, UIO_READ);
	assert_int_equal(uiomove_uio(&src, &dst, 1), EINVAL);
	src = make(from, 1, UIO_USERSPACE, UIO_WRITE);
	assert_int_equal(uiomove_uio(&src, &dst, 1), EINVAL);
	src = make(from, 1, UIO_SYSSPACE, UIO_WRITE);
	dst = make(to, 1, UIO_SYSSPACE, UIO_WRITE);
	assert_int_equal(uiomove_uio(&src, &dst, 1), EINVAL);
	dst = make(to, 1, UIO_SYSSPACE, UIO_READ);
	dst.uio_resid = -1;
	assert_int_equal(uiomove_uio(&src, &dst, 1), EINVAL);
	/* malformed on one side */
	from[0] = (struct iovec){a, 2};
	to[0] = (struct iovec){z, 3};
	src = make(from, 1, UIO_SYSSPACE, UIO_WRITE);
	dst = make(to, 1, UIO_SYSSPACE, UIO_READ);
	src.uio_resid = 3;
	assert_int_equal(uiomove_uio(&src, &dst, 3), EFAULT);
	assert_int_equal(src.uio_resid, 1);
	assert_int_equal(dst.uio_resid, 1);
}

/* Random iovecs and lengths against a flat copy, for every kind of memory. */
static void random_moves(void **state)
{
	static uint8_t mem[4096], flat[4096], buf[8192];
	uint32_t seed = 7;

	(void)state;
#define RND(n) ((seed = seed * 1664525u + 1013904223u), (seed >> 16) % (n))
	for (int round = 0; round < 2000; round++) {
		enum uio_seg seg = round % 2 ? UIO_SYSSPACE : UIO_USERSPACE;
		enum uio_rw rw = round / 2 % 2 ? UIO_READ : UIO_WRITE;
		struct iovec iov[8];
		struct uio uio;
		size_t at = 0, total = 0, done = 0;

		for (int i = 0; i < 8; i++) {
			size_t len = RND(3) ? RND(500) : 0;

			iov[i] = (struct iovec){mem + at, len};
			at += len;
		}
		total = at;
		for (size_t i = 0; i < sizeof(mem); i++)
			mem[i] = (uint8_t)RND(256);
		memcpy(flat, mem, sizeof(mem));
		uio = make(iov, 8, seg, rw);
		while (uio.uio_resid > 0) {
			size_t n = RND(900), want = n < total - done ? n : total - done;

			for (size_t i = 0; i < n; i++)
				buf[i] = (uint8_t)RND(256);
			assert_int_equal(uiomove(buf, n, &uio), 0);
			if (rw == UIO_READ)
				memcpy(flat + done, buf, want);
			else
				assert_memory_equal(flat + done, buf, want);
			done += want;
			assert_int_equal(uio.uio_offset, done);
			assert_int_equal(uio.uio_resid, total - done);
		}
		assert_memory_equal(mem, flat, sizeof(mem));
	}
}

/* --- USERSPACE of our own --------------------------------------------------------------------- */

/* Three pages, the last one as @bad makes it: moves both ways fault there, and only there. */
static void faulting(uint8_t *mem, const char *what)
{
	static uint8_t buf[3 * 65536];
	static const enum uio_rw both[] = {UIO_READ, UIO_WRITE};

	print_message("  %s\n", what);
	for (int k = 0; k < 2; k++) {
		struct iovec iov[] = {
			{mem, page}, {NULL, 0}, {mem + page, page}, {mem + 2 * page, 10}, {mem, 1}};
		struct uio uio = make(iov, 5, UIO_USERSPACE, both[k]);
		uint8_t *m = mem;

		/* pieces before the bad one are accounted, the bad one is not */
		memset(buf, 'x', sizeof(buf));
		assert_int_equal(uiomove(buf, 3 * page, &uio), EFAULT);
		assert_int_equal(uio.uio_offset, 2 * page);
		assert_int_equal(uio.uio_resid, 11);
		assert_int_equal(uio.uio_iov->iov_len, 10);
		assert_ptr_equal(uio.uio_iov->iov_base, mem + 2 * page);
		assert_int_equal(uiomove(buf, 1, &uio), EFAULT);
		assert_int_equal(uio.uio_resid, 11);
		/* and the uio may be used on: past the bad piece */
		uio.uio_iov++;
		uio.uio_iovcnt--;
		uio.uio_resid = 1;
		assert_int_equal(uiomove(buf, 5, &uio), 0);
		assert_int_equal(uio.uio_resid, 0);

		/* a piece that begins well and ends badly changes nothing of itself */
		iov[0] = (struct iovec){mem + page, page + 1};
		uio = make(iov, 1, UIO_USERSPACE, both[k]);
		assert_int_equal(uiomove(buf, SIZE_MAX, &uio), EFAULT);
		assert_int_equal(uio.uio_resid, page + 1);
		assert_int_equal(uio.uio_offset, 0);
		assert_ptr_equal(iov[0].iov_base, mem + page);
		assert_int_equal(uiomove_nofault(buf, SIZE_MAX, &uio), EFAULT);
		assert_int_equal(uio.uio_resid, page + 1);
		/* the good part of it can still be asked for */
		m[page] = 'm';
		assert_int_equal(uiomove(buf, page, &uio), 0);
		assert_int_equal(uio.uio_resid, 1);
		assert_int_equal(
			both[k] == UIO_READ ? m[page] : buf[0], both[k] == UIO_READ ? 'x' : 'm');
	}
}

static void bad_addresses(void **state)
{
	uint8_t *mem = map_anon(3 * page);
	char b = 0;
	uintptr_t bad[] = {0, 1, 4096, UINTPTR_MAX, UINTPTR_MAX / 2, (uintptr_t)1 << 63};

	(void)state;
	assert_int_equal(mprotect(mem + 2 * page, page, PROT_NONE), 0);
	faulting(mem, "a page without access");
	assert_int_equal(munmap(mem + 2 * page, page), 0);
	faulting(mem, "a page that is not mapped");
	munmap(mem, 2 * page);

	mem = map_file(2 * page, 3 * page);
	faulting(mem, "a page beyond the end of its file"); /* touching it would be SIGBUS */
	munmap(mem, 3 * page);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct iovec iov[] = {{(void *)bad[i], 1}};
		struct uio uio = make(iov, 1, UIO_USERSPACE, UIO_READ);

		assert_int_equal(uiomove(&b, 1, &uio), EFAULT);
		assert_int_equal(uiomove_nofault(&b, 1, &uio), EFAULT);
		uio.uio_rw = UIO_WRITE;
		assert_int_equal(uiomove(&b, 1, &uio), EFAULT);
		assert_int_equal(uio.uio_resid, 1);
	}
}

static void read_only_memory_is_not_written(void **state)
{
	uint8_t *mem = map_anon(page);
	struct iovec iov[] = {{mem, 3}};
	struct uio uio = make(iov, 1, UIO_USERSPACE, UIO_READ);
	char buf[] = "xyz";

	(void)state;
	memcpy(mem, "abc", 3);
	assert_int_equal(mprotect(mem, page, PROT_READ), 0);
	assert_int_equal(uiomove(buf, 3, &uio), EFAULT);
	assert_memory_equal(mem, "abc", 3);
	assert_int_equal(uiomove_nofault(buf, 3, &uio), EFAULT);
	uio.uio_rw = UIO_WRITE;
	assert_int_equal(uiomove(buf, 3, &uio), 0);
	assert_string_equal(buf, "abc");
	munmap(mem, page);
}

static void large_piece(void **state)
{
	size_t len = ((size_t)5 << 20) + 13;
	uint8_t *a = map_anon(len), *b = map_anon(len);
	struct iovec iov[] = {{a, len}};
	struct uio uio = make(iov, 1, UIO_USERSPACE, UIO_READ);

	(void)state;
	for (size_t i = 0; i < len; i++)
		b[i] = (uint8_t)(i * 31 + i / 4096);
	uio.uio_td = getpid(); /* is us as well */
	assert_int_equal(uiomove(b, len, &uio), 0);
	assert_int_equal(uio.uio_resid, 0);
	assert_int_equal(memcmp(a, b, len), 0);
	memset(b, 0, len);
	iov[0] = (struct iovec){a, len};
	uio = make(iov, 1, UIO_USERSPACE, UIO_WRITE);
	assert_int_equal(uiomove(b, len, &uio), 0);
	assert_int_equal(memcmp(a, b, len), 0);
	munmap(a, len);
	munmap(b, len);
}

/* --- nofault ---------------------------------------------------------------------------------- */

static void expect_nofault(uint8_t *mem, int want)
{
	uint8_t buf[64];
	struct iovec iov[] = {{mem, 1}, {mem + page - 1, 2}};
	struct uio uio = make(iov, 2, UIO_USERSPACE, UIO_WRITE);

	/* the second piece reaches into the second page */
	assert_int_equal(uiomove_nofault(buf, 3, &uio), want);
	assert_int_equal(uio.uio_offset, want ? 1 : 3);
}

static void nofault(void **state)
{
	uint8_t *mem = map_anon(600 * page), c = 'c';
	struct iovec iov[] = {{mem, 600 * page}};
	struct uio uio;
	uint8_t *buf = calloc(600, page);

	(void)state;
	assert_non_null(buf);
	mem[0] = 'a';
	expect_nofault(mem, EFAULT); /* never touched */
	mem[page] = 'b';
	expect_nofault(mem, 0);
	assert_int_equal(madvise(mem + page, page, MADV_DONTNEED), 0);
	expect_nofault(mem, EFAULT);

	/* more pages than are asked for at once; the last one is missing */
	memset(mem, 'x', 599 * page);
	uio = make(iov, 1, UIO_USERSPACE, UIO_WRITE);
	assert_int_equal(uiomove_nofault(buf, 600 * page, &uio), EFAULT);
	assert_int_equal(uio.uio_resid, 600 * page);
	mem[599 * page] = 'y';
	assert_int_equal(uiomove_nofault(buf, 600 * page, &uio), 0);
	assert_int_equal(memcmp(buf, mem, 600 * page), 0);
	munmap(mem, 600 * page);

	/* a file: mapped and not touched, touched, given up */
	mem = map_file(2 * page, 2 * page);
	iov[0] = (struct iovec){mem, 1};
	uio = make(iov, 1, UIO_USERSPACE, UIO_WRITE);
	assert_int_equal(uiomove_nofault(&c, 1, &uio), EFAULT);
	mem[0] = mem[page] = 'f';
	expect_nofault(mem, 0);
	assert_int_equal(madvise(mem, 2 * page, MADV_DONTNEED), 0);
	iov[0] = (struct iovec){mem, 1};
	uio = make(iov, 1, UIO_USERSPACE, UIO_READ);
	assert_int_equal(uiomove_nofault(&c, 1, &uio), EFAULT);
	assert_int_equal(uiomove(&c, 1, &uio), 0); /* may wait */
	assert_int_equal(mem[0], 'c');
	munmap(mem, 2 * page);

	/* memory of our own is not asked about */
	mem = map_anon(page);
	iov[0] = (struct iovec){mem, 1};
	uio = make(iov, 1, UIO_SYSSPACE, UIO_READ);
	assert_int_equal(uiomove_nofault(&c, 1, &uio), 0);
	munmap(mem, page);
	free(buf);
}

/* --- where the kernel refuses ----------------------------------------------------------------- */

/* From here on system call @nr fails with @err. */
static void refuse(int nr, int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) < 0)
		_exit(77);
}

/* Runs the named group in a child that refuses system calls; the child's failures are its exit
 * status. */
static void in_child(void (*prepare)(void), const struct CMUnitTest *tests, size_t n)
{
	pid_t pid;
	int status = 0;

	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prepare();
		_exit(_cmocka_run_group_tests("refused", tests, n, NULL, NULL) != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) /* no seccomp here: nothing to be learned */
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void no_vm_eperm(void)
{
	char probe;
	struct iovec iov = {&probe, 1};

	refuse(SYS_process_vm_readv, EPERM);
	refuse(SYS_process_vm_writev, EPERM);
	if (process_vm_readv(getpid(), &iov, 1, &iov, 1, 0) != -1 || errno != EPERM)
		_exit(77);
}

static void no_vm_enosys(void)
{
	refuse(SYS_process_vm_readv, ENOSYS);
	refuse(SYS_process_vm_writev, ENOSYS);
}

static void no_proc(void)
{
	refuse(SYS_openat, EACCES);
	if (open("/proc/self/pagemap", O_RDONLY) != -1 || errno != EACCES)
		_exit(77);
}

static void copies_without_process_vm(void **state)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_addresses),
		cmocka_unit_test(read_only_memory_is_not_written),
		cmocka_unit_test(large_piece),
		cmocka_unit_test(random_moves),
		cmocka_unit_test(nofault),
	};

	(void)state;
	in_child(no_vm_eperm, tests, 5);
	in_child(no_vm_enosys, tests, 5);
}

static void nofault_by_mincore(void **state)
{
	uint8_t *mem = map_anon(3 * page);

	(void)state;
	mem[0] = 'a';
	assert_int_equal(madvise(mem + page, page, MADV_DONTNEED), 0);
	expect_nofault(mem, EFAULT);
	mem[page] = 'b';
	expect_nofault(mem, 0);
	assert_int_equal(munmap(mem + page, page), 0);
	expect_nofault(mem, EFAULT);
	munmap(mem, 3 * page);
}

static void nofault_without_proc(void **state)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(nofault_by_mincore)};

	(void)state;
	in_child(no_proc, tests, 1);
}

/* --- memory of another process ---------------------------------------------------------------- */

struct other {
	pid_t pid;
	int to, from; /* pipes */
	uint8_t *mem; /* two pages there: the first touched, the second not */
};

static void other_start(struct other *o)
{
	int in[2], out[2];
	char c = 0;

	o->mem = map_anon(2 * page);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	fflush(stdout);
	o->pid = fork();
	assert_true(o->pid >= 0);
	if (o->pid == 0) {
		close(in[1]);
		memcpy(o->mem, "theirs", 7);
		if (write(out[1], "r", 1) != 1 || read(in[0], &c, 1) != 1)
			_exit(2);
		_exit(memcmp(o->mem, "ours!!", 7) == 0 ? 0 : 1);
	}
	close(in[0]);
	close(out[1]);
	o->to = in[1];
	o->from = out[0];
	assert_int_equal(read(o->from, &c, 1), 1);
}

static int other_end(struct other *o)
{
	int status = 0;

	assert_int_equal(write(o->to, "e", 1), 1);
	assert_int_equal(waitpid(o->pid, &status, 0), o->pid);
	close(o->to);
	close(o->from);
	munmap(o->mem, 2 * page);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void another_process(void **state)
{
	struct other o;
	char buf[16] = "", ours[] = "ours!!";
	struct iovec iov[2];
	struct uio uio;

	(void)state;
	other_start(&o);
	iov[0] = (struct iovec){o.mem, 4};
	iov[1] = (struct iovec){o.mem + 4, 3};
	uio = make(iov, 2, UIO_USERSPACE, UIO_WRITE);
	uio.uio_td = o.pid;
	assert_int_equal(uiomove(buf, sizeof(buf), &uio), 0);
	assert_string_equal(buf, "theirs");
	assert_int_equal(uio.uio_offset, 7);
	assert_string_equal((char *)o.mem, ""); /* ours is another page */

	iov[0] = (struct iovec){o.mem, 7};
	uio = make(iov, 1, UIO_USERSPACE, UIO_READ);
	uio.uio_td = o.pid;
	assert_int_equal(uiomove_nofault(ours, 7, &uio), 0);
	/* its second page was never touched there, whatever it is here */
	o.mem[page] = 'x';
	iov[0] = (struct iovec){o.mem + page, 1};
	uio = make(iov, 1, UIO_USERSPACE, UIO_READ);
	uio.uio_td = o.pid;
	assert_int_equal(uiomove_nofault(buf, 1, &uio), EFAULT);
	iov[0] = (struct iovec){(void *)16, 1};
	assert_int_equal(uiomove(buf, 1, &uio), EFAULT);
	assert_int_equal(other_end(&o), 0);

	/* gone */
	iov[0] = (struct iovec){buf, 1};
	uio = make(iov, 1, UIO_USERSPACE, UIO_READ);
	uio.uio_td = o.pid;
	assert_int_equal(uiomove(buf, 1, &uio), EFAULT);
	assert_int_equal(uiomove_nofault(buf, 1, &uio), EFAULT);
	assert_int_equal(uio.uio_resid, 1);
}

/* A process we may not touch: EFAULT, and no second way around it. */
static void a_process_that_is_not_ours(void **state)
{
	struct iovec iov[1];
	struct uio uio;
	pid_t parent = getpid(), pid;
	static char target[] = "root's";
	int status = 0;

	(void)state;
	if (geteuid() != 0)
		skip();
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char c = 0;

		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(3);
		iov[0] = (struct iovec){target, 1};
		uio = make(iov, 1, UIO_USERSPACE, UIO_WRITE);
		uio.uio_td = parent;
		_exit(uiomove(&c, 1, &uio) == EFAULT && uiomove_nofault(&c, 1, &uio) == EFAULT &&
					uio.uio_resid == 1 && c == 0
				? 0
				: 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(partial_moves),
		cmocka_unit_test(write_gathers),
		cmocka_unit_test(resid_limits_the_move),
		cmocka_unit_test(overlapping_memory),
		cmocka_unit_test(malformed),
		cmocka_unit_test(init_checks_the_sum),
		cmocka_unit_test(nocopy_only_accounts),
		cmocka_unit_test(advance),
		cmocka_unit_test(frombuf),
		cmocka_unit_test(uio_to_uio),
		cmocka_unit_test(random_moves),
		cmocka_unit_test(bad_addresses),
		cmocka_unit_test(read_only_memory_is_not_written),
		cmocka_unit_test(large_piece),
		cmocka_unit_test(nofault),
		cmocka_unit_test(copies_without_process_vm),
		cmocka_unit_test(nofault_without_proc),
		cmocka_unit_test(another_process),
		cmocka_unit_test(a_process_that_is_not_ours),
	};

	page = (size_t)sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests_name("uio", tests, NULL, NULL);
}
