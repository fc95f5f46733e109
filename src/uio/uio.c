/* How bytes move. The one loop is move(); what a piece is made of decides copy_piece():
 *
 *   UIO_SYSSPACE   memmove
 *   UIO_NOCOPY     nothing
 *   UIO_USERSPACE  the kernel copies (process_vm_readv(2), process_vm_writev(2)), because only the
 *                  kernel can turn a bad address into EFAULT. For our own memory there is a second
 *                  way, through a pipe, where a seccomp profile or a kernel without
 *                  CONFIG_CROSS_MEMORY_ATTACH refuses the first one. /proc/self/mem would be a
 *                  third, but it writes to read-only pages too.
 *
 * uiomove_nofault() asks the page table (/proc/PID/pagemap) before it copies a piece. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>
#include <swarm/uio.h>
#include <sys/mman.h>

#define OFF_MAX INT64_MAX
_Static_assert(sizeof(off_t) == 8, "OFF_MAX is that of a 64 bit off_t");

/* Pages whose residency is asked for at once. */
enum { PAGE_BATCH = 256 };

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static bool is_self(const struct uio *uio)
{
	return uio->uio_td == UIO_TD_SELF || uio->uio_td == getpid();
}

/* --- may the piece be touched without a fault? ------------------------------------------------ */

/* The page table of @pid: present (bit 63 of an entry) is the question a fault would ask.
 * mincore(2) answers another one: for file mappings it tells about the page cache, and since
 * Linux 5.2 it says "resident" for every page of a file the caller may neither write nor owns. */
static int resident_by_pagemap(pid_t pid, uintptr_t first, size_t n_pages)
{
	uint64_t entry[PAGE_BATCH];
	char path[64];
	int fd, r = 0;

	if (pid == UIO_TD_SELF)
		snprintf(path, sizeof(path), "/proc/self/pagemap");
	else
		snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (n_pages > 0 && r == 0) {
		size_t n = min_size(n_pages, PAGE_BATCH);
		ssize_t got =
			pread(fd, entry, n * sizeof(entry[0]), (off_t)(first * sizeof(entry[0])));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < (ssize_t)(n * sizeof(entry[0]))) {
			/* short: past the end of the address space */
			r = -EFAULT;
			break;
		}
		for (size_t i = 0; i < n; i++) {
			if (!(entry[i] >> 63)) {
				r = -EFAULT;
				break;
			}
		}
		first += n;
		n_pages -= n;
	}
	close(fd);
	return r;
}

/* Without a readable /proc: our own memory only. */
static int resident_by_mincore(uintptr_t first, size_t n_pages, size_t page)
{
	unsigned char vec[PAGE_BATCH];

	while (n_pages > 0) {
		size_t n = min_size(n_pages, PAGE_BATCH);

		/* an address of no object we know; NOLINTNEXTLINE(performance-no-int-to-ptr) */
		if (mincore((void *)(first * page), n * page, vec) < 0) {
			if (errno == EAGAIN)
				continue;
			return -EFAULT; /* ENOMEM: not mapped */
		}
		for (size_t i = 0; i < n; i++) {
			if (!(vec[i] & 1))
				return -EFAULT;
		}
		first += n;
		n_pages -= n;
	}
	return 0;
}

static int check_resident(const struct uio *uio, const void *base, size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uintptr_t at = (uintptr_t)base, first = at / page, end;
	bool self = is_self(uio);
	size_t n_pages;
	int r;

	if (__builtin_add_overflow(at, len - 1, &end))
		return -EFAULT;
	n_pages = end / page - first + 1;
	r = resident_by_pagemap(self ? UIO_TD_SELF : uio->uio_td, first, n_pages);
	if (r < 0 && r != -EFAULT && self)
		r = resident_by_mincore(first, n_pages, page);
	return r;
}

/* --- one piece of memory that may fault ------------------------------------------------------- */

/* read(2) and write(2) check the address they are given, so a pipe of our own makes a copy that
 * gives EFAULT instead of a signal. */
static int copy_by_pipe(uint8_t *buf, uint8_t *base, size_t len, enum uio_rw rw)
{
	uint8_t *from = rw == UIO_READ ? buf : base, *to = rw == UIO_READ ? base : buf;
	int fd[2], r = 0;

	if (pipe2(fd, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	while (len > 0 && r == 0) {
		/* not more than a pipe always takes at once; what was written is read back whole */
		ssize_t put = write(fd[1], from, min_size(len, 65536));
		size_t left;

		if (put <= 0) {
			r = put < 0 ? (errno == EINTR ? 0 : -errno) : -EFAULT;
			continue;
		}
		for (left = (size_t)put; left > 0;) {
			ssize_t got = read(fd[0], to, left);

			if (got < 0 && errno == EINTR)
				continue;
			if (got <= 0) {
				r = got < 0 ? -errno : -EFAULT;
				break;
			}
			to += got;
			left -= (size_t)got;
		}
		from += put;
		len -= (size_t)put;
	}
	close(fd[0]);
	close(fd[1]);
	return r;
}

static int copy_faulting(uint8_t *buf, uint8_t *base, size_t len, const struct uio *uio)
{
	bool self = is_self(uio);
	pid_t pid = self ? getpid() : uio->uio_td;

	while (len > 0) {
		struct iovec local = {buf, len}, remote = {base, len};
		ssize_t k;

		if (uio->uio_rw == UIO_READ)
			k = process_vm_writev(pid, &local, 1, &remote, 1, 0);
		else
			k = process_vm_readv(pid, &local, 1, &remote, 1, 0);
		if (k < 0 && self && (errno == EPERM || errno == ENOSYS))
			return copy_by_pipe(buf, base, len, uio->uio_rw);
		if (k < 0)
			return -errno;
		if (k == 0)
			return -EFAULT;
		buf += k;
		base += k;
		len -= (size_t)k;
	}
	return 0;
}

/* --- the loop --------------------------------------------------------------------------------- */

/* The front iovec that has bytes, NULL when there is none. */
static struct iovec *front(struct uio *uio)
{
	while (uio->uio_iovcnt > 0 && uio->uio_iov->iov_len == 0) {
		uio->uio_iov++;
		uio->uio_iovcnt--;
	}
	return uio->uio_iovcnt > 0 ? uio->uio_iov : NULL;
}

/* @n is not more than the front iovec and resid. A base without memory (UIO_NOCOPY) may be NULL or
 * anything: it is advanced as a number. */
static void account(struct uio *uio, size_t n)
{
	struct iovec *iov = uio->uio_iov;

	/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
	iov->iov_base = (void *)((uintptr_t)iov->iov_base + n);
	iov->iov_len -= n;
	uio->uio_resid -= (ssize_t)n;
	uio->uio_offset += (off_t)n;
}

/* What a uio can be asked to move; 0 or EINVAL. @n is cut to resid. */
static int check(const struct uio *uio, size_t *n)
{
	if (uio->uio_resid < 0 || uio->uio_td < 0)
		return EINVAL;
	if (uio->uio_rw != UIO_READ && uio->uio_rw != UIO_WRITE)
		return EINVAL;
	if (uio->uio_segflg != UIO_SYSSPACE && uio->uio_segflg != UIO_USERSPACE &&
		uio->uio_segflg != UIO_NOCOPY)
		return EINVAL;
	*n = min_size(*n, (size_t)uio->uio_resid);
	if (uio->uio_offset > 0 && *n > (size_t)(OFF_MAX - uio->uio_offset))
		return EINVAL;
	return 0;
}

static int move(uint8_t *buf, size_t n, struct uio *uio, bool nofault)
{
	int r = check(uio, &n);

	if (r)
		return r;
	while (n > 0) {
		struct iovec *iov = front(uio);
		size_t piece;

		if (!iov)
			return EFAULT; /* resid promises more than the iovecs hold */
		piece = min_size(n, iov->iov_len);
		switch (uio->uio_segflg) {
		case UIO_SYSSPACE:
			/* memmove: the regions may overlap, as with bcopy */
			if (uio->uio_rw == UIO_READ)
				memmove(iov->iov_base, buf, piece);
			else
				memmove(buf, iov->iov_base, piece);
			break;
		case UIO_USERSPACE:
			/* whatever the kernel says (EFAULT, ESRCH: the process is gone, EPERM: not
			 * ours to touch), the memory cannot be reached */
			if (nofault && check_resident(uio, iov->iov_base, piece) < 0)
				return EFAULT;
			if (copy_faulting(buf, iov->iov_base, piece, uio) < 0)
				return EFAULT;
			break;
		case UIO_NOCOPY:
			break;
		}
		account(uio, piece);
		if (uio->uio_segflg != UIO_NOCOPY)
			buf += piece;
		n -= piece;
	}
	return 0;
}

int uiomove(void *buf, size_t n, struct uio *uio)
{
	return move(buf, n, uio, false);
}

int uiomove_nofault(void *buf, size_t n, struct uio *uio)
{
	return move(buf, n, uio, true);
}

int uiomove_frombuf(void *buf, size_t buflen, struct uio *uio)
{
	size_t off;

	if (uio->uio_offset < 0 || uio->uio_resid < 0)
		return EINVAL;
	off = (size_t)uio->uio_offset;
	if (off >= buflen)
		return 0;
	return move((uint8_t *)buf + off, buflen - off, uio, false);
}

int uiomove_uio(struct uio *src, struct uio *dst, size_t n)
{
	int r;

	if (src->uio_rw != UIO_WRITE || dst->uio_rw != UIO_READ ||
		src->uio_segflg == UIO_USERSPACE || dst->uio_segflg == UIO_USERSPACE)
		return EINVAL;
	r = check(src, &n);
	if (!r)
		r = check(dst, &n);
	if (r)
		return r;
	while (n > 0) {
		struct iovec *s = front(src), *d = front(dst);
		size_t piece;

		if (!s || !d)
			return EFAULT;
		piece = min_size(n, min_size(s->iov_len, d->iov_len));
		if (src->uio_segflg == UIO_SYSSPACE && dst->uio_segflg == UIO_SYSSPACE)
			memmove(d->iov_base, s->iov_base, piece);
		account(src, piece);
		account(dst, piece);
		n -= piece;
	}
	return 0;
}

int uio_init_sys(struct uio *uio, struct iovec *iov, int iovcnt, enum uio_rw rw)
{
	ssize_t sum = 0;

	if (iovcnt < 0 || iovcnt > UIO_MAXIOV)
		return EINVAL;
	for (int i = 0; i < iovcnt; i++) {
		if (__builtin_add_overflow(sum, iov[i].iov_len, &sum))
			return EINVAL;
	}
	*uio = (struct uio){
		.uio_iov = iov,
		.uio_iovcnt = iovcnt,
		.uio_resid = sum,
		.uio_segflg = UIO_SYSSPACE,
		.uio_rw = rw,
	};
	return 0;
}

size_t uio_advance(struct uio *uio, size_t n)
{
	size_t done = 0;

	if (check(uio, &n))
		return 0;
	while (done < n) {
		struct iovec *iov = front(uio);
		size_t piece;

		if (!iov)
			break;
		piece = min_size(n - done, iov->iov_len);
		account(uio, piece);
		done += piece;
	}
	return done;
}
