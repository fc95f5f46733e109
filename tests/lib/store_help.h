/* store_help.h - what the store's tests share. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/store.h>

struct sh {
	char dir[256], path[300];
	struct sw_loop *loop;
	struct store *store;
};

/* A new folder and a loop; the store is not open yet. */
void sh_init(struct sh *h);
/* Closes what is open, checks that the loop is clean, removes the folder. */
void sh_done(struct sh *h);
int sh_open(struct sh *h, struct sw_err *err);
void sh_close(struct sh *h);
/* Commits and waits; the result. */
struct sw_err sh_commit(struct sh *h, struct store_batch *b);
void sh_must_commit(struct sh *h, struct store_batch *b);
/* A complete task row and a status; strings are constants. */
struct store_task sh_task(const char *id);
struct store_status sh_status(int state, int64_t at_ns);
void sh_put(struct sh *h, const char *id);
void sh_put_status(struct sh *h, const char *id, int state, int64_t at_ns, const char *cause);
/* All rows of @sql by a connection of its own, as the sqlite3 tool prints them: a|b\nc|d. An error
 * is returned as "error: ...". Static buffer. */
const char *sh_sql(const char *path, const char *sql);
const char *sh_sql_mode(const char *path, const char *sql, int open_flags);
void sh_rm_rf(const char *dir);
/* Whole file; caller frees. */
char *sh_slurp(const char *path, size_t *ret_len);
void sh_write(const char *path, const void *p, size_t n);

/* Collects log lines; the text of all so far. */
void sh_log_begin(void);
const char *sh_log_end(void);
