#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store_help.h"
#include <sqlite3.h>
#include <swarm/log.h>

void sh_init(struct sh *h)
{
	const char *tmp = getenv("TMPDIR");

	memset(h, 0, sizeof(*h));
	snprintf(h->dir, sizeof(h->dir), "%s/swarm-store-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(h->dir));
	snprintf(h->path, sizeof(h->path), "%s/agent.db", h->dir);
	assert_int_equal(sw_loop_new(&h->loop, NULL), 0);
}

int sh_open(struct sh *h, struct sw_err *err)
{
	return store_open(&h->store, h->loop, h->path, err);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

void sh_close(struct sh *h)
{
	bool closed = false;

	if (!h->store)
		return;
	store_close(h->store, on_closed, &closed);
	assert_false(closed);
	while (!closed)
		sw_loop_once(h->loop, true);
	h->store = NULL;
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void sh_rm_rf(const char *dir)
{
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

void sh_done(struct sh *h)
{
	sh_close(h);
	assert_int_equal(sw_loop_free(h->loop), 0);
	sh_rm_rf(h->dir);
}

struct result {
	bool done;
	struct sw_err err;
};

static void on_commit(void *arg, const struct sw_err *err)
{
	struct result *r = arg;

	r->done = true;
	sw_err_copy(&r->err, err);
}

struct sw_err sh_commit(struct sh *h, struct store_batch *b)
{
	struct result r = {false, SW_ERR_NONE};

	store_commit(h->store, b, on_commit, &r);
	assert_false(r.done); /* never from inside */
	while (!r.done)
		sw_loop_once(h->loop, true);
	return r.err;
}

void sh_must_commit(struct sh *h, struct store_batch *b)
{
	struct sw_err err = sh_commit(h, b);

	if (err.cls != SW_OK)
		fail_msg("commit: %s", err.msg);
}

struct store_task sh_task(const char *id)
{
	return (struct store_task){
		.task_id = id,
		.data = "task\0bytes",
		.data_len = 10,
		.phase = STORE_ASSIGNED,
		.desired_state = 512,
		.service_id = "svc1",
		.service_name = "web",
		.name = "web.1",
		.image = "bb:1",
		.runtime = "container",
		.node_id = "node1",
		.slot = 1,
		.spec_version = 11,
	};
}

struct store_status sh_status(int state, int64_t at_ns)
{
	return (struct store_status){
		.data = "status",
		.data_len = 6,
		.state = state,
		.message = "msg",
		.err = "",
		.at_ns = at_ns,
	};
}

void sh_put(struct sh *h, const char *id)
{
	struct store_batch *b = store_batch_new();
	struct store_task t = sh_task(id);

	store_batch_task(b, &t);
	sh_must_commit(h, b);
}

void sh_put_status(struct sh *h, const char *id, int state, int64_t at_ns, const char *cause)
{
	struct store_batch *b = store_batch_new();
	struct store_status st = sh_status(state, at_ns);

	store_batch_status(b, id, &st, cause);
	sh_must_commit(h, b);
}

const char *sh_sql_mode(const char *path, const char *sql, int open_flags)
{
	static char out[65536];
	sqlite3 *db = NULL;
	sqlite3_stmt *st = NULL;
	size_t n = 0;
	int rc;

	out[0] = '\0';
	rc = sqlite3_open_v2(path, &db, open_flags, NULL);
	while (rc == SQLITE_OK && *sql) {
		rc = sqlite3_prepare_v2(db, sql, -1, &st, &sql);
		while (rc == SQLITE_OK && st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
			for (int i = 0; i < sqlite3_column_count(st); i++) {
				const char *s = (const char *)sqlite3_column_text(st, i);

				n += (size_t)snprintf(
					out + n, sizeof(out) - n, "%s%s", i ? "|" : "", s ? s : "");
				assert_true(n < sizeof(out));
			}
			n += (size_t)snprintf(out + n, sizeof(out) - n, "\n");
			assert_true(n < sizeof(out));
			rc = SQLITE_OK;
		}
		sqlite3_finalize(st);
		st = NULL;
		if (rc == SQLITE_DONE)
			rc = SQLITE_OK;
	}
	if (rc != SQLITE_OK)
		snprintf(out, sizeof(out), "error: %s", sqlite3_errmsg(db));
	else if (n)
		out[n - 1] = '\0';
	sqlite3_close(db);
	return out;
}

const char *sh_sql(const char *path, const char *sql)
{
	return sh_sql_mode(path, sql, SQLITE_OPEN_READONLY);
}

char *sh_slurp(const char *path, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *p;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	p = malloc((size_t)st.st_size + 1);
	assert_non_null(p);
	assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
	p[st.st_size] = '\0';
	close(fd);
	*ret_len = (size_t)st.st_size;
	return p;
}

void sh_write(const char *path, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	close(fd);
}

static char log_text[65536];

static void on_line(void *arg, enum log_level level, const char *line)
{
	size_t n = strlen(log_text);

	(void)arg;
	(void)level;
	snprintf(log_text + n, sizeof(log_text) - n, "%s\n", line);
}

void sh_log_begin(void)
{
	log_text[0] = '\0';
	log_set_sink(on_line, NULL);
}

const char *sh_log_end(void)
{
	log_set_sink(NULL, NULL);
	return log_text;
}
