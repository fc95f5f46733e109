/* uio.h - how bytes move: struct uio and the uiomove family, after FreeBSD's uio(9).
 * Any thread; a uio belongs to one thread at a time. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum uio_rw { UIO_READ, UIO_WRITE };

/* Where the iovecs point to. */
enum uio_seg {
	UIO_USERSPACE, /* memory that may fault (a mapping of a file that shrinks), or memory of
			* process uio_td: a bad address is EFAULT, never a crash */
	UIO_SYSSPACE,  /* plain memory of ours: copied without a check */
	UIO_NOCOPY,    /* no memory at all: only the accounting advances */
};

#define UIO_TD_SELF ((pid_t)0)

/* The iovecs are one concatenated region, consumed from the front: iov, iovcnt, offset and resid
 * advance, and the caller's iovec array is modified (base and len of the current piece). An
 * exhausted iovec stays in front with length 0 until the next move skips it. */
struct uio {
	struct iovec *uio_iov;
	int uio_iovcnt;
	off_t uio_offset;  /* position in the object, advances with every byte */
	ssize_t uio_resid; /* bytes left to move, >= 0 */
	enum uio_seg uio_segflg;
	enum uio_rw uio_rw; /* UIO_READ: buffer -> uio; UIO_WRITE: uio -> buffer */
	pid_t uio_td;       /* owner of UIO_USERSPACE memory; UIO_TD_SELF: this process */
};

/* Moves min(@n, resid) bytes between @buf and the uio. 0, or a positive errno, as uio(9) returns
 * it. EFAULT: UIO_USERSPACE memory could not be reached (a bad address, a mapping beyond its file,
 * a process that is gone or not ours to touch). A piece that faults changes nothing of itself
 * (bytes of it may have been copied but are not accounted); pieces before it stay accounted, so the
 * uio is consistent and may be used on. UIO_SYSSPACE cannot fail.
 * @n larger than resid is no error: compare resid before and after for the count. A uio that runs
 * out of iovecs while resid is not zero is malformed: EFAULT. EINVAL, and nothing moved: a negative
 * resid or uio_td, a direction or segment that is none, an offset that would overflow. */
int uiomove(void *buf, size_t n, struct uio *uio);
/* As uiomove(), but never waits for a page of UIO_USERSPACE memory: a piece with a page that is not
 * in the page table when its turn comes gives EFAULT. That includes pages never touched and pages
 * that the page cache has but nobody mapped yet: as in the original, any fault is one too many.
 * The check and the copy are two calls: a page that the kernel takes away between them is waited
 * for. mlock(2) the memory where that matters. Without a readable /proc our own memory is judged by
 * mincore(2) (which knows the page cache, not the page table), that of others is EFAULT. */
int uiomove_nofault(void *buf, size_t n, struct uio *uio);
/* Moves between the uio and the object that @buf, @buflen holds, from uio_offset to the end of the
 * object or of resid, whichever comes first. At or past the end it moves nothing and returns 0.
 * EINVAL if uio_offset or resid is negative; otherwise as uiomove(). */
int uiomove_frombuf(void *buf, size_t buflen, struct uio *uio);
/* Moves from @src's region into @dst's (src UIO_WRITE, dst UIO_READ), min(n, both resids), one
 * copy. Both must be UIO_SYSSPACE or UIO_NOCOPY (which takes from or gives to nowhere): EINVAL
 * otherwise. */
int uiomove_uio(struct uio *src, struct uio *dst, size_t n);

/* A uio over @iovcnt iovecs of our own memory; resid is their sum. EINVAL (positive) if the sum
 * overflows ssize_t or iovcnt is out of 0..UIO_MAXIOV; @uio is untouched then. */
int uio_init_sys(struct uio *uio, struct iovec *iov, int iovcnt, enum uio_rw rw);
/* Advances without copying: min(n, resid); returns how many. */
size_t uio_advance(struct uio *uio, size_t n);
