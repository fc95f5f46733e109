/* regauth.c - one look-up: read and parse the file on the pool, ask the helper it names (a program
 * in PATH, without a shell), and fall back to what the file itself holds.
 *
 *   read --no helper--> answer from the file
 *     '--helper--> spawn, server to its stdin, stdout until its end --> answer
 *                        '-- too slow, too much: killed, an error; its process is awaited anyway
 *
 * Nothing of what a helper prints is ever logged but the words of its failure. */
#include "regauth.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <sys/queue.h>

#define FILE_LIMIT   (1024 * 1024)
#define HELPER_LIMIT sw_s(10)
#define OUTPUT_LIMIT (64 * 1024)

struct helper;
struct regauth {
	struct sw_loop *loop;
	char *dir;
	TAILQ_HEAD(, helper) helpers; /* whose handles are open */
	struct sw_timer closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

struct job { /* of the pool */
	struct regauth_call *call;
	char *path, *host;
	struct regconf conf;
	struct sw_err err;
};

struct regauth_call {
	struct regauth *ra;
	struct sw_work *work;
	struct helper *helper;
	char *server, *header; /* of the file */
	regauth_cb *cb;
	void *arg;
};

struct helper {
	struct regauth *ra;
	struct regauth_call *call; /* NULL: nobody waits any more */
	char *name, *line;
	uv_process_t proc;
	uv_pipe_t in, out;
	uv_write_t req;
	uv_shutdown_t bye;
	struct sw_timer deadline;
	bool spawned, exited, ended; /* ended: nothing more comes on stdout */
	bool pipes_closed;
	unsigned n_handles;
	int64_t code;
	size_t len;
	struct sw_err err;
	TAILQ_ENTRY(helper) link;
	char text[OUTPUT_LIMIT + 1];
};

static void answer(struct regauth_call *c, const char *header, const struct sw_err *err)
{
	c->cb(c->arg, header, err && err->cls ? err : NULL);
	sw_wipe_str(c->header);
	free(c->server);
	free(c);
}

/* ---- helper */

static void on_handle_closed(uv_handle_t *h)
{
	struct helper *p = h->data;
	struct regauth *ra = p->ra;

	if (--p->n_handles)
		return;
	TAILQ_REMOVE(&ra->helpers, p, link);
	sw_wipe(p->text, sizeof(p->text));
	free(p->name);
	free(p->line);
	free(p);
	if (ra->closed && TAILQ_EMPTY(&ra->helpers))
		sw_timer_arm(&ra->closing, 0);
}

static void close_pipes(struct helper *p)
{
	if (p->pipes_closed)
		return;
	p->pipes_closed = true;
	uv_close((uv_handle_t *)&p->in, on_handle_closed);
	uv_close((uv_handle_t *)&p->out, on_handle_closed);
}

static void helper_kill(struct helper *p)
{
	sw_timer_stop(&p->deadline);
	p->ended = true;
	close_pipes(p);
	if (p->spawned && !p->exited)
		kill(-p->proc.pid, SIGKILL); /* a session of its own: its children go too */
}

static void helper_done(struct helper *p)
{
	struct regauth_call *c = take(p->call);
	char *header = NULL;

	sw_timer_stop(&p->deadline);
	close_pipes(p);
	if (!c)
		return;
	c->helper = NULL;
	if (!p->err.cls)
		regconf_helper(&header, (int)p->code, p->text, p->len, c->server, &p->err);
	if (p->err.cls)
		sw_err_wrap(&p->err, "docker-credential-%s", p->name);
	if (p->err.cls && c->header)
		log_warning("credential helper failed, config.json itself is used", KERR(&p->err));
	/* a helper that fails or knows nothing does not make the file's own entry void */
	answer(c, header ? header : c->header, header || c->header ? NULL : &p->err);
	sw_wipe_str(header);
}

static void helper_look(struct helper *p)
{
	if (p->exited && p->ended)
		helper_done(p);
}

static void on_exit_code(uv_process_t *proc, int64_t code, int sig)
{
	struct helper *p = proc->data;

	p->exited = true;
	p->code = sig ? 128 + sig : code;
	uv_close((uv_handle_t *)proc, on_handle_closed);
	helper_look(p);
}

static void fail(struct helper *p, int code, const char *text)
{
	if (!p->err.cls)
		sw_err_set(&p->err, SW_TEMPORARY, code, "%s", text);
	helper_kill(p);
	if (p->exited)
		helper_done(p);
}

static void on_deadline(void *arg)
{
	fail(arg, -ETIMEDOUT, "no answer within 10 s");
}

static void on_room(uv_handle_t *h, size_t want, uv_buf_t *buf)
{
	struct helper *p = h->data;

	(void)want;
	*buf = uv_buf_init(p->text + p->len, (unsigned)(OUTPUT_LIMIT - p->len));
}

static void on_text(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct helper *p = s->data;

	(void)buf;
	if (n > 0) {
		p->len += (size_t)n;
		p->text[p->len] = '\0';
	} else if (n == UV_ENOBUFS) {
		fail(p, -E2BIG, "its answer is too long");
	} else if (n < 0) {
		p->ended = true;
		helper_look(p);
	}
}

static void on_written(uv_write_t *req, int status)
{
	(void)req;
	(void)status; /* one that does not read says so with its exit code */
}

static void on_bye(uv_shutdown_t *req, int status)
{
	(void)req;
	(void)status;
}

static int helper_spawn(struct helper *p, struct sw_err *err)
{
	sw_auto_free char *program = xasprintf("docker-credential-%s", p->name);
	char *args[] = {program, (char[]){"get"}, NULL};
	uv_stdio_container_t io[3] = {
		{.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&p->in},
		{.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&p->out},
		{.flags = UV_IGNORE},
	};
	uv_process_options_t o = {
		.exit_cb = on_exit_code,
		.file = program,
		.args = args,
		.flags = UV_PROCESS_DETACHED, /* a session of its own: see helper_kill() */
		.stdio = io,
		.stdio_count = 3,
	};
	uv_loop_t *uv = sw_loop_uv(p->ra->loop);
	uv_buf_t buf = uv_buf_init(p->line, (unsigned)strlen(p->line));
	int r;

	uv_pipe_init(uv, &p->in, 0);
	uv_pipe_init(uv, &p->out, 0);
	p->proc.data = p->in.data = p->out.data = p;
	p->n_handles = 3;
	r = uv_spawn(uv, &p->proc, &o);
	if (r < 0) { /* the handle counts as open all the same */
		uv_close((uv_handle_t *)&p->proc, on_handle_closed);
		close_pipes(p);
		return sw_err_set(err, SW_REJECTED, r, "%s: %s", program, uv_strerror(r));
	}
	p->spawned = true;
	uv_read_start((uv_stream_t *)&p->out, on_room, on_text);
	uv_write(&p->req, (uv_stream_t *)&p->in, &buf, 1, on_written);
	uv_shutdown(&p->bye, (uv_stream_t *)&p->in, on_bye);
	sw_timer_arm(&p->deadline, HELPER_LIMIT);
	return 0;
}

static void helper_start(struct regauth_call *c, const char *name)
{
	struct helper *p = xcalloc(1, sizeof(*p));
	struct sw_err err;

	p->ra = c->ra;
	p->name = xstrdup(name);
	p->line = xasprintf("%s\n", c->server);
	sw_timer_init(&p->deadline, c->ra->loop, on_deadline, p);
	TAILQ_INSERT_TAIL(&c->ra->helpers, p, link);
	if (helper_spawn(p, &err) < 0) {
		answer(c, c->header, c->header ? NULL : &err);
		return;
	}
	p->call = c;
	c->helper = p;
}

/* ---- the file */

static void job_free(struct job *j)
{
	regconf_done(&j->conf);
	free(j->path);
	free(j->host);
	free(j);
}

static void read_conf(void *arg)
{
	struct job *j = arg;
	sw_auto_close int fd = open(j->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char *text;
	size_t len = 0;
	ssize_t n = 0;

	if (fd < 0) {
		if (errno != ENOENT && errno != ENOTDIR) /* nobody has logged in here */
			sw_err_set(&j->err, SW_REJECTED, -errno, "%s", strerror(errno));
		return;
	}
	text = xcalloc(1, FILE_LIMIT + 1);
	while (len <= FILE_LIMIT && (n = read(fd, text + len, FILE_LIMIT + 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		sw_err_set(&j->err, SW_REJECTED, -errno, "%s", strerror(errno));
	else if (len > FILE_LIMIT)
		sw_err_set(&j->err, SW_REJECTED, -EFBIG, "larger than %d bytes", FILE_LIMIT);
	else
		regconf_parse(&j->conf, text, len, j->host, &j->err);
	sw_wipe(text, len);
	free(text);
}

static void on_read(void *arg, bool dropped)
{
	struct job *j = arg;
	struct regauth_call *c = j->call;

	if (!dropped) {
		c->work = NULL;
		c->server = take(j->conf.server);
		c->header = take(j->conf.header);
		if (j->err.cls)
			sw_err_wrap(&j->err, "%s", j->path);
		if (!j->err.cls && j->conf.helper)
			helper_start(c, j->conf.helper);
		else
			answer(c, c->header, &j->err);
	}
	job_free(j);
}

/* ---- door */

static void on_closing(void *arg)
{
	struct regauth *ra = arg;
	void (*closed)(void *) = ra->closed;
	void *closed_arg = ra->closed_arg;

	free(ra->dir);
	free(ra);
	closed(closed_arg);
}

struct regauth *regauth_new(struct sw_loop *l, const char *dir)
{
	struct regauth *ra = xcalloc(1, sizeof(*ra));

	ra->loop = l;
	ra->dir = xstrdup(dir);
	TAILQ_INIT(&ra->helpers);
	sw_timer_init(&ra->closing, l, on_closing, ra);
	return ra;
}

void regauth_close(struct regauth *ra, void (*closed)(void *arg), void *arg)
{
	struct helper *p;

	ra->closed = closed;
	ra->closed_arg = arg;
	TAILQ_FOREACH (p, &ra->helpers, link)
		helper_kill(p);
	if (TAILQ_EMPTY(&ra->helpers))
		sw_timer_arm(&ra->closing, 0);
}

struct regauth_call *regauth_get(struct regauth *ra, const char *host, regauth_cb *cb, void *arg)
{
	struct regauth_call *c = xcalloc(1, sizeof(*c));
	struct job *j = xcalloc(1, sizeof(*j));

	c->ra = ra;
	c->cb = cb;
	c->arg = arg;
	j->call = c;
	j->path = xasprintf("%s/config.json", ra->dir);
	j->host = xstrdup(host);
	c->work = sw_work(ra->loop, read_conf, on_read, j);
	return c;
}

void regauth_cancel(struct regauth_call *c)
{
	if (!c)
		return;
	sw_work_drop(c->work);
	if (c->helper) {
		c->helper->call = NULL;
		helper_kill(c->helper);
	}
	sw_wipe_str(c->header);
	free(c->server);
	free(c);
}
