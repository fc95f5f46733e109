/* memstore.h - store.h in memory, for tests that decide when a commit ends and how: link
 * memstore.c and the real store stays in its archive. Commits end one loop round later. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/loop.h>
#include <swarm/store.h>

struct store *memstore_new(struct sw_loop *l);
void memstore_free(struct store *s);
/* The next @n commits fail with @cls. */
void memstore_fail(struct store *s, unsigned n, enum sw_errclass cls);
/* Commits wait until released; each release lets what is queued go. */
void memstore_hold(struct store *s, bool hold);
/* kill -9: what is not committed is lost, nothing is taken any more, until thaw. */
void memstore_freeze(struct store *s);
void memstore_thaw(struct store *s);

struct memrow {
	enum store_phase phase;
	int desired_state;
	bool has_status;
	int state;
	int64_t at_ns, acked_at_ns;
	const char *message, *err, *container_id;
	bool has_exit_code;
	int exit_code;
	unsigned n_statuses; /* ever written */
	const void *data;
	size_t data_len;
};
/* NULL: no such row; valid until the next commit. */
const struct memrow *memstore_row(struct store *s, const char *task_id);
size_t memstore_count(struct store *s);
unsigned memstore_commits(struct store *s);
/* Statuses that were lower than the stored one (a bug of the agent). */
unsigned memstore_lower(struct store *s);
const char *memstore_node_state(struct store *s);
/* Stored bytes with a flaw, as a broken disk leaves them. */
void memstore_corrupt(struct store *s, const char *task_id);
