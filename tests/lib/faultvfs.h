/* faultvfs.h - a sqlite VFS over the system's that counts writes, syncs, truncations and deletions
 * and lets the n-th go wrong. Becomes the default VFS of the process: meant for a forked child. */
#pragma once
#include <stdbool.h>

enum fault {
	FAULT_NONE,  /* only counts */
	FAULT_IOERR, /* the n-th fails: I/O error */
	FAULT_FULL,  /* the n-th fails: disk full; a sync fails as I/O error */
	FAULT_KILL,  /* the process ends before the n-th, as by kill -9 */
	FAULT_TORN,  /* the same, but the first half of the n-th write is done */
	FAULT_POWER, /* the same, and what was not synced is lost again */
	FAULT_MIXED, /* the same, but of what was not synced every write is lost or kept by chance
		      */
};
#define FAULT_EXIT 99 /* exit code of FAULT_KILL..FAULT_MIXED */

/* @n from 1; @times: so many in a row fail (FAULT_IOERR, FAULT_FULL). */
void faultvfs_install(enum fault what, int n, int times, unsigned seed);
/* Operations counted so far. */
int faultvfs_count(void);
