/* What uio and chains cost, each as a ratio to the plain call they stand for, measured in the same
 * run and in turns, so that a busy machine slows both down:
 *
 *   bench_uio           a table after some seconds
 *   bench_uio --quick   one short round of everything: does it still run?
 *
 * The best round counts. Nothing is asserted about times. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/chain.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BIG = 1 << 20, SEND = 128 * 1024 };

static uint8_t *src, *dst;
static int pair[2];
static uint64_t round_ns = 40000000;
static int n_rounds = 7;

typedef void bench_fn(size_t size, size_t n);

static void fail(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static uint64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The compiler must believe that @p is looked at. */
static void used(void *p)
{
	__asm__ volatile("" : : "r"(p) : "memory");
}

/* --- moves ------------------------------------------------------------------------------------ */

static void do_memcpy(size_t size, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		memcpy(dst, src, size);
		used(dst);
	}
}

static void move_as(enum uio_seg seg, size_t size, size_t n, size_t pieces, bool wait)
{
	struct iovec iov[64];

	for (size_t i = 0; i < n; i++) {
		struct uio uio = {.uio_iov = iov,
			.uio_iovcnt = (int)pieces,
			.uio_resid = (ssize_t)size,
			.uio_segflg = seg,
			.uio_rw = UIO_READ};
		size_t at = 0;

		for (size_t k = 0; k < pieces; k++) {
			size_t len = k + 1 < pieces ? size / pieces : size - at;

			iov[k] = (struct iovec){dst + at, len};
			at += len;
		}
		if (wait ? uiomove(src, size, &uio) : uiomove_nofault(src, size, &uio))
			fail("uiomove");
		used(dst);
	}
}

static void do_sys(size_t size, size_t n)
{
	move_as(UIO_SYSSPACE, size, n, 1, true);
}

static void do_sys_16(size_t size, size_t n)
{
	move_as(UIO_SYSSPACE, size, n, 16, true);
}

static void do_user(size_t size, size_t n)
{
	move_as(UIO_USERSPACE, size, n, 1, true);
}

static void do_nofault(size_t size, size_t n)
{
	move_as(UIO_USERSPACE, size, n, 1, false);
}

/* --- chains ----------------------------------------------------------------------------------- */

static void do_append_drain(size_t size, size_t n)
{
	struct chain c = {0};

	for (size_t i = 0; i < n; i++) {
		if (chain_append(&c, src, size) < 0)
			fail("chain_append");
		if (c.len >= BIG)
			chain_drain(&c, BIG / 2);
	}
	chain_done(&c);
}

/* What a hand-written ring would do: one copy in. */
static void do_copy_in(size_t size, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		if (at + size > BIG)
			at = 0;
		memcpy(dst + at, src, size);
		used(dst + at);
		at += size;
	}
}

static void do_reserve(size_t size, size_t n)
{
	struct chain c = {0};

	for (size_t i = 0; i < n; i++) {
		size_t avail, left = size;

		while (left > 0) {
			uint8_t *p = chain_reserve(&c, 1, &avail);
			size_t k = left < avail ? left : avail;

			if (!p)
				fail("chain_reserve");
			memcpy(p, src, k);
			chain_commit(&c, k);
			left -= k;
		}
		if (c.len >= BIG)
			chain_drain(&c, BIG / 2);
	}
	chain_done(&c);
}

static void do_share(size_t size, size_t n)
{
	struct chain c = {0}, d = {0};

	if (chain_append(&c, src, size) < 0)
		fail("chain_append");
	for (size_t i = 0; i < n; i++) {
		chain_share(&d, &c, 0, size);
		chain_done(&d);
	}
	chain_done(&c);
}

static void do_move(size_t size, size_t n)
{
	struct chain c = {0}, d = {0};

	if (chain_append(&c, src, size) < 0)
		fail("chain_append");
	for (size_t i = 0; i < n; i++) {
		(void)chain_move(&d, &c, size / 2);
		chain_append_chain(&d, &c);
		chain_append_chain(&c, &d);
	}
	chain_done(&c);
}

/* --- socketpair: gather and send SEND bytes, read them again ---------------------------------- */

static void receive(size_t n)
{
	while (n > 0) {
		ssize_t k = read(pair[1], dst, n);

		if (k <= 0)
			fail("read");
		n -= (size_t)k;
	}
}

static void do_writev(size_t size, size_t n)
{
	struct iovec iov[64];
	size_t pieces = SEND / size;

	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < pieces; k++)
			iov[k] = (struct iovec){src + k * size, size};
		if (writev(pair[0], iov, (int)pieces) != SEND)
			fail("writev");
		receive(SEND);
	}
}

/* The same bytes as a chain of slices that are shared for each send, as a retransmit would. */
static void do_chain_writev(size_t size, size_t n)
{
	struct sw_block *b = block_wrap(src, BIG, NULL, NULL);
	struct chain c = {0}, out = {0};
	struct iovec iov[64];
	size_t bytes;

	if (!b)
		fail("block_wrap");
	/* every other piece from behind, so that slices do not join */
	for (size_t k = 0; k < SEND / size; k++)
		chain_append_block(&c, b, k % 2 ? BIG / 2 + k * size : k * size, size);
	for (size_t i = 0; i < n; i++) {
		chain_share(&out, &c, 0, SEND);
		if (writev(pair[0], iov, chain_iov(&out, iov, 64, &bytes)) != SEND || bytes != SEND)
			fail("writev");
		chain_drain(&out, SEND);
		receive(SEND);
	}
	chain_done(&c);
	block_unref(b);
}

/* ---------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *base_name;
	bench_fn *fn, *base;
	size_t size;
} table[] = {
	{"uiomove sys", "memcpy", do_sys, do_memcpy, 16},
	{"uiomove sys", "memcpy", do_sys, do_memcpy, 256},
	{"uiomove sys", "memcpy", do_sys, do_memcpy, 4096},
	{"uiomove sys", "memcpy", do_sys, do_memcpy, 65536},
	{"uiomove sys", "memcpy", do_sys, do_memcpy, BIG},
	{"uiomove sys, 16 pieces", "memcpy", do_sys_16, do_memcpy, 4096},
	{"uiomove sys, 16 pieces", "memcpy", do_sys_16, do_memcpy, 65536},
	{"uiomove user", "memcpy", do_user, do_memcpy, 256},
	{"uiomove user", "memcpy", do_user, do_memcpy, 4096},
	{"uiomove user", "memcpy", do_user, do_memcpy, 65536},
	{"uiomove user", "memcpy", do_user, do_memcpy, BIG},
	{"uiomove_nofault user", "memcpy", do_nofault, do_memcpy, 4096},
	{"uiomove_nofault user", "memcpy", do_nofault, do_memcpy, BIG},
	{"chain append+drain", "memcpy", do_append_drain, do_copy_in, 16},
	{"chain append+drain", "memcpy", do_append_drain, do_copy_in, 256},
	{"chain append+drain", "memcpy", do_append_drain, do_copy_in, 4096},
	{"chain append+drain", "memcpy", do_append_drain, do_copy_in, 65536},
	{"chain reserve+drain", "memcpy", do_reserve, do_copy_in, 1500},
	{"chain reserve+drain", "memcpy", do_reserve, do_copy_in, 65536},
	{"chain share+done", "memcpy", do_share, do_memcpy, 256},
	{"chain share+done", "memcpy", do_share, do_memcpy, 65536},
	{"chain split+join", "memcpy", do_move, do_memcpy, 4096},
	{"chain writev, socketpair", "writev", do_chain_writev, do_writev, SEND / 64},
	{"chain writev, socketpair", "writev", do_chain_writev, do_writev, SEND / 8},
};

static double one_round(bench_fn *fn, size_t size, size_t n)
{
	uint64_t start = now();

	fn(size, n);
	return (double)(now() - start) / (double)n;
}

/* How often @fn runs in about a round. */
static size_t calibrate(bench_fn *fn, size_t size)
{
	size_t n = 1;

	for (;;) {
		uint64_t start = now(), took;

		fn(size, n);
		took = now() - start;
		if (took >= round_ns / 8)
			return 1 + (size_t)((double)n * (double)round_ns / (double)took);
		n *= 2;
	}
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--quick") == 0) {
		round_ns = 100000;
		n_rounds = 1;
	} else if (argc > 1) {
		fprintf(stderr, "usage: %s [--quick]\n", argv[0]);
		return EXIT_FAILURE;
	}
	src = malloc(BIG);
	dst = malloc(BIG);
	if (!src || !dst || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		fail("setup");
	for (int i = 0; i < 2; i++) {
		int size = 4 * SEND;

		(void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		(void)setsockopt(pair[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	}
	memset(src, 'x', BIG);
	memset(dst, 'y', BIG);
	printf("%-26s %8s %12s %10s %14s %8s\n", "what", "bytes", "ns", "GB/s", "plain ns",
		"ratio");
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		size_t size = table[i].size, n, n_base;
		double best = 1e300, best_base = 1e300;
		char plain[40];

		n = calibrate(table[i].fn, size);
		n_base = calibrate(table[i].base, size);
		for (int r = 0; r < n_rounds; r++) {
			double t = one_round(table[i].fn, size, n);
			double b = one_round(table[i].base, size, n_base);

			best = t < best ? t : best;
			best_base = b < best_base ? b : best_base;
		}
		snprintf(plain, sizeof(plain), "%s %.0f", table[i].base_name, best_base);
		if (table[i].base == do_writev)
			size = SEND;
		printf("%-26s %8zu %12.1f %10.2f %14s %8.2f\n", table[i].name, table[i].size, best,
			(double)size / best, plain, best / best_base);
	}
	close(pair[0]);
	close(pair[1]);
	free(src);
	free(dst);
	if (block_count() != 0) {
		fprintf(stderr, "%zu blocks left\n", block_count());
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
