#include "fakeexec.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>
#include <uthash.h>
#include <utlist.h>

struct script {
	struct script *next;
	enum fake_op op;
	struct fake_script s;
};

struct ftask {
	UT_hash_handle hh;
	char id[68], name[80];
	struct fake_record rec;
	struct script *scripts;
	unsigned refuse;
	enum sw_errclass refuse_cls;
	const char *refuse_text;
	int exit_code;
	struct fctl *ctl; /* open one */
};

struct orphan {
	struct orphan *next;
	char id[80], name[128], task[80];
};

struct controller_logs {
	struct controller_logs *prev, *next;
	struct fctl *c;
	bool (*msg)(void *arg, Pb__LogMessage *m);
	void (*end)(void *arg, const struct sw_err *err);
	void *arg;
	bool paused;
};

struct fctl {
	struct controller base;
	struct fakeexec *x;
	struct ftask *t;
	struct api_task *pb;
	bool busy, cancelled;
	enum fake_op op;
	struct fake_script s;
	controller_cb *cb;
	void *arg;
	struct sw_timer timer;
	struct controller_logs *logs;
};

struct call { /* an answer of the executor that is on its way */
	struct call *prev, *next;
	struct fakeexec *x;
	struct sw_timer timer;
	executor_describe_cb *describe;
	executor_list_cb *list;
	executor_done_cb *done;
	void *arg;
	bool held;
	char container_id[80];
};

struct fakeexec {
	struct executor base;
	struct sw_loop *loop;
	struct ftask *tasks;
	struct ftask any; /* scripts for whoever comes next */
	bool has_default[F_N_OPS];
	struct fake_script defaults[F_N_OPS];
	struct executor_deps deps;
	struct orphan *orphans;
	struct call *calls;
	size_t open, busy;
	unsigned violations, described, configured, key_calls, refuse_keys, serial;
	char violation[256], hostname[64];
	bool hold_describe;
};

static const char *const op_names[] = {"prepare", "start", "wait", "shutdown", "remove"};

static void violated(struct fakeexec *x, const char *what, const char *task)
{
	if (!x->violations++)
		snprintf(x->violation, sizeof(x->violation), "%s: task %s", what, task);
}

static struct fakeexec *of(struct executor *x)
{
	return sw_container_of(x, struct fakeexec, base);
}

static struct fctl *ctl(struct controller *c)
{
	return sw_container_of(c, struct fctl, base);
}

static struct ftask *ftask(struct fakeexec *x, const char *id)
{
	struct ftask *t;

	if (!id)
		return &x->any;
	HASH_FIND_STR(x->tasks, id, t);
	if (!t) {
		t = xcalloc(1, sizeof(*t));
		snprintf(t->id, sizeof(t->id), "%s", id);
		snprintf(t->name, sizeof(t->name), "web.1.%s", id);
		HASH_ADD_STR(x->tasks, id, t);
	}
	return t;
}

static void note(struct ftask *t, const char *what)
{
	size_t len = strlen(t->rec.calls);

	snprintf(t->rec.calls + len, sizeof(t->rec.calls) - len, "%s%s", len ? " " : "", what);
}

/* ---- operations */

static bool take_script(struct ftask *t, enum fake_op op, struct fake_script *ret)
{
	struct script *s;

	LL_FOREACH (t->scripts, s)
		if (s->op == op) {
			*ret = s->s;
			LL_DELETE(t->scripts, s);
			free(s);
			return true;
		}
	return false;
}

/* What the operation does to the container; the outcome if the script has no other. */
static void act(struct fctl *c, struct controller_result *r)
{
	struct fake_record *rec = &c->t->rec;

	switch (c->op) {
	case F_PREPARE:
		if (rec->container != FC_NONE) {
			r->already = true;
		} else {
			rec->container = FC_CREATED;
			rec->n_containers++;
			snprintf(rec->container_id, sizeof(rec->container_id), "c-%s-%u", c->t->id,
				rec->n_containers);
		}
		break;
	case F_START:
		if (rec->container == FC_NONE)
			sw_err_set(&r->err, SW_FATAL, -ENOENT, "no such container");
		else if (rec->container == FC_CREATED)
			rec->container = FC_RUNNING;
		else
			r->already = true;
		break;
	case F_WAIT:
		if (rec->container == FC_NONE) {
			sw_err_set(&r->err, SW_FATAL, -ENOENT, "no such container");
		} else {
			r->has_exit = true;
			r->exit_code = c->t->exit_code;
			if (r->exit_code)
				sw_err_set(&r->err, SW_FATAL, -EIO, "task: non-zero exit (%d)",
					r->exit_code);
		}
		break;
	case F_SHUTDOWN:
		if (rec->container == FC_RUNNING) {
			rec->container = FC_EXITED;
			c->t->exit_code = 143;
			r->has_exit = true;
			r->exit_code = 143;
		}
		break;
	case F_REMOVE:
		rec->container = FC_NONE;
		break;
	default:
		break;
	}
}

static void finish(struct fctl *c, bool cancelled)
{
	struct controller_result r = {.err = SW_ERR_NONE};
	controller_cb *cb = c->cb;
	void *arg = c->arg;
	char cid[80];

	c->busy = c->cancelled = false;
	c->x->busy--;
	sw_timer_stop(&c->timer);
	if (cancelled)
		sw_err_set(&r.err, SW_CANCELLED, -ECANCELED, "cancelled");
	else if (c->s.cls != SW_OK)
		sw_err_set(&r.err, c->s.cls, -EIO, "%s", c->s.text ? c->s.text : "scripted");
	else
		act(c, &r);
	if (c->s.has_exit && !cancelled) {
		r.has_exit = true;
		r.exit_code = c->s.exit_code;
	}
	if (c->t->rec.container != FC_NONE) {
		snprintf(cid, sizeof(cid), "%s", c->t->rec.container_id);
		r.container_id = cid;
		r.pid = c->t->rec.container == FC_RUNNING ? 4711 : 0;
	}
	cb(arg, &r);
}

static void on_timer(void *arg)
{
	struct fctl *c = arg;

	finish(c, c->cancelled && !c->s.deaf);
}

static void begin(struct controller *base, enum fake_op op, controller_cb *cb, void *arg)
{
	struct fctl *c = ctl(base);
	bool scripted;

	if (c->busy)
		violated(c->x, "two operations at once", c->t->id);
	if (c->t->ctl != c)
		violated(c->x, "operation on a closed controller", c->t->id);
	c->busy = true;
	c->x->busy++;
	c->op = op;
	c->cb = cb;
	c->arg = arg;
	c->cancelled = false;
	c->s = (struct fake_script){0};
	c->t->rec.n[op]++;
	note(c->t, op_names[op]);
	if (op == F_PREPARE && c->pb->pb->spec && c->pb->pb->spec->container &&
		c->pb->pb->spec->container->n_secrets)
		c->t->rec.had_secret =
			c->x->deps.secret(c->x->deps.arg, c->t->id,
				c->pb->pb->spec->container->secrets[0]->secret_id) != NULL;
	scripted = take_script(c->t, op, &c->s) || take_script(&c->x->any, op, &c->s);
	if (!scripted && c->x->has_default[op]) {
		c->s = c->x->defaults[op];
		scripted = true;
	}
	if (c->s.hang)
		return;
	/* a wait ends with its container */
	if (op == F_WAIT && c->s.cls == SW_OK && !c->s.has_exit &&
		c->t->rec.container == FC_RUNNING)
		return;
	sw_timer_arm(&c->timer, c->s.delay_ns);
}

static void op_prepare(struct controller *c, controller_cb *cb, void *arg)
{
	begin(c, F_PREPARE, cb, arg);
}

static void op_start(struct controller *c, controller_cb *cb, void *arg)
{
	begin(c, F_START, cb, arg);
}

static void op_wait(struct controller *c, controller_cb *cb, void *arg)
{
	begin(c, F_WAIT, cb, arg);
}

static void op_shutdown(struct controller *c, controller_cb *cb, void *arg)
{
	begin(c, F_SHUTDOWN, cb, arg);
}

static void op_remove(struct controller *c, controller_cb *cb, void *arg)
{
	begin(c, F_REMOVE, cb, arg);
}

static int op_update(struct controller *base, struct api_task *t, struct sw_err *err)
{
	struct fctl *c = ctl(base);

	(void)err;
	if (c->busy)
		violated(c->x, "update during an operation", c->t->id);
	c->t->rec.n_updates++;
	c->t->rec.last_desired = t->pb->desired_state;
	note(c->t, "update");
	api_task_unref(c->pb);
	c->pb = api_task_ref(t);
	return 0;
}

static void op_cancel(struct controller *base)
{
	struct fctl *c = ctl(base);

	if (!c->busy) {
		violated(c->x, "cancel without an operation", c->t->id);
		return;
	}
	if (c->cancelled)
		violated(c->x, "cancelled twice", c->t->id);
	c->t->rec.n_cancels++;
	c->cancelled = true;
	if (!sw_timer_armed(&c->timer))
		c->s.deaf = false; /* it would never end */
	if (!c->s.deaf)
		sw_timer_arm(&c->timer, c->s.cancel_delay_ns);
}

static void op_close(struct controller *base)
{
	struct fctl *c = ctl(base);

	if (c->busy)
		violated(c->x, "closed during an operation", c->t->id);
	if (c->logs)
		violated(c->x, "closed with open log streams", c->t->id);
	c->t->rec.n_closes++;
	note(c->t, "close");
	if (c->t->ctl == c)
		c->t->ctl = NULL;
	sw_timer_stop(&c->timer);
	c->x->open--;
	api_task_unref(c->pb);
	free(c);
}

/* ---- logs */

static struct controller_logs *op_logs(struct controller *base,
	const Pb__LogSubscriptionOptions *opt, bool (*msg)(void *arg, Pb__LogMessage *m),
	void (*end)(void *arg, const struct sw_err *err), void *arg)
{
	struct fctl *c = ctl(base);
	struct controller_logs *l = xcalloc(1, sizeof(*l));

	(void)opt;
	l->c = c;
	l->msg = msg;
	l->end = end;
	l->arg = arg;
	DL_APPEND(c->logs, l);
	return l;
}

static void op_logs_resume(struct controller_logs *l)
{
	l->paused = false;
}

static void op_logs_cancel(struct controller_logs *l)
{
	DL_DELETE(l->c->logs, l);
	free(l);
}

bool fakeexec_log_line(struct fakeexec *x, const char *task, const char *text)
{
	struct ftask *t = ftask(x, task);
	struct controller_logs *l, *next;
	bool more = true;

	if (!t->ctl)
		return true;
	DL_FOREACH_SAFE (t->ctl->logs, l, next) {
		Pb__LogMessage m = PB__LOG_MESSAGE__INIT;

		if (l->paused) {
			violated(x, "line for a paused stream", task);
			continue;
		}
		m.stream = PB__LOG_STREAM__LOG_STREAM_STDOUT;
		m.data.data = (uint8_t *)(uintptr_t)text;
		m.data.len = strlen(text);
		l->paused = !l->msg(l->arg, &m);
		more &= !l->paused;
	}
	return more;
}

void fakeexec_log_end(struct fakeexec *x, const char *task)
{
	struct ftask *t = ftask(x, task);

	while (t->ctl && t->ctl->logs) {
		struct controller_logs *l = t->ctl->logs;

		DL_DELETE(t->ctl->logs, l);
		l->end(l->arg, NULL);
		free(l);
	}
}

size_t fakeexec_log_streams(struct fakeexec *x, const char *task)
{
	struct ftask *t = ftask(x, task);
	struct controller_logs *l;
	size_t n = 0;

	if (t->ctl)
		DL_COUNT(t->ctl->logs, l, n);
	return n;
}

bool fakeexec_log_paused(struct fakeexec *x, const char *task)
{
	struct ftask *t = ftask(x, task);

	return t->ctl && t->ctl->logs && t->ctl->logs->paused;
}

/* ---- the executor */

static const struct controller_ops controller_ops = {
	.update = op_update,
	.prepare = op_prepare,
	.start = op_start,
	.wait = op_wait,
	.shutdown = op_shutdown,
	.remove = op_remove,
	.cancel = op_cancel,
	.logs = op_logs,
	.logs_resume = op_logs_resume,
	.logs_cancel = op_logs_cancel,
	.close = op_close,
};

static int x_controller(
	struct executor *base, struct api_task *pb, struct controller **ret, struct sw_err *err)
{
	struct fakeexec *x = of(base);
	struct ftask *t = ftask(x, pb->pb->id);
	struct fctl *c;

	note(t, "controller");
	t->rec.n_controllers++;
	if (t->refuse) {
		t->refuse--;
		return sw_err_set(err, t->refuse_cls, -EINVAL, "%s", t->refuse_text);
	}
	if (t->ctl)
		violated(x, "second controller", t->id);
	c = xcalloc(1, sizeof(*c));
	c->base.ops = &controller_ops;
	c->x = x;
	c->t = t;
	c->pb = api_task_ref(pb);
	sw_timer_init(&c->timer, x->loop, on_timer, c);
	t->ctl = c;
	t->rec.last_desired = pb->pb->desired_state;
	x->open++;
	*ret = &c->base;
	return 0;
}

static void answer(void *arg)
{
	struct call *call = arg;
	struct fakeexec *x = call->x;
	struct sw_err err = SW_ERR_NONE;

	DL_DELETE(x->calls, call);
	if (call->describe) {
		Pb__NodeDescription d = PB__NODE_DESCRIPTION__INIT;

		d.hostname = x->hostname;
		if (x->hostname[0]) {
			call->describe(call->arg, &d, NULL);
		} else {
			sw_err_set(&err, SW_TEMPORARY, -ECONNREFUSED, "engine: not there");
			call->describe(call->arg, NULL, &err);
		}
	} else if (call->list) {
		struct executor_found *f = xcalloc(1 + HASH_COUNT(x->tasks), sizeof(*f));
		struct ftask *t, *next;
		struct orphan *o;
		size_t n = 0, n_orphans;

		LL_COUNT(x->orphans, o, n_orphans);
		f = xrealloc(f, 1 + HASH_COUNT(x->tasks) + n_orphans, sizeof(*f));
		HASH_ITER (hh, x->tasks, t, next)
			if (t->rec.container != FC_NONE)
				f[n++] =
					(struct executor_found){.container_id = t->rec.container_id,
						.name = t->name,
						.task_id = t->id,
						.status = "",
						.running = t->rec.container == FC_RUNNING};
		LL_FOREACH (x->orphans, o)
			f[n++] = (struct executor_found){.container_id = o->id,
				.name = o->name,
				.task_id = o->task,
				.status = ""};
		call->list(call->arg, f, n, NULL);
		free(f);
	} else {
		struct orphan *o, *next;
		struct ftask *t, *tnext;

		LL_FOREACH_SAFE(x->orphans, o, next)
		if (strcmp(o->id, call->container_id) == 0) {
			LL_DELETE(x->orphans, o);
			free(o);
		}
		HASH_ITER (hh, x->tasks, t, tnext)
			if (strcmp(t->rec.container_id, call->container_id) == 0)
				t->rec.container = FC_NONE;
		call->done(call->arg, NULL);
	}
	free(call);
}

static struct call *call_new(struct fakeexec *x, void *arg)
{
	struct call *call = xcalloc(1, sizeof(*call));

	call->x = x;
	call->arg = arg;
	sw_timer_init(&call->timer, x->loop, answer, call);
	DL_APPEND(x->calls, call);
	return call;
}

static void x_describe(struct executor *base, executor_describe_cb *cb, void *arg)
{
	struct fakeexec *x = of(base);
	struct call *call = call_new(x, arg);

	x->described++;
	call->describe = cb;
	if (x->hold_describe)
		call->held = true;
	else
		sw_timer_arm(&call->timer, 0);
}

static void x_configure(struct executor *base, const Pb__Node *node)
{
	(void)node;
	of(base)->configured++;
}

static int x_keys(struct executor *base, Pb__EncryptionKey **keys, size_t n, struct sw_err *err)
{
	struct fakeexec *x = of(base);

	(void)keys;
	(void)n;
	x->key_calls++;
	if (x->refuse_keys) {
		x->refuse_keys--;
		return sw_err_set(err, SW_TEMPORARY, -EAGAIN, "keys refused");
	}
	return 0;
}

static void x_set_node(struct executor *base, const char *node_id, const char *cluster_id)
{
	(void)base;
	(void)node_id;
	(void)cluster_id;
}

static void x_set_deps(struct executor *base, const struct executor_deps *deps)
{
	of(base)->deps = *deps;
}

static void x_list(struct executor *base, executor_list_cb *cb, void *arg)
{
	struct call *call = call_new(of(base), arg);

	call->list = cb;
	sw_timer_arm(&call->timer, 0);
}

static void x_remove_orphan(
	struct executor *base, const char *container_id, executor_done_cb *cb, void *arg)
{
	struct call *call = call_new(of(base), arg);

	call->done = cb;
	snprintf(call->container_id, sizeof(call->container_id), "%s", container_id);
	sw_timer_arm(&call->timer, 0);
}

struct fakeexec *fakeexec_new(struct sw_loop *l)
{
	static const struct executor_ops ops = {
		.describe = x_describe,
		.configure = x_configure,
		.controller = x_controller,
		.set_network_bootstrap_keys = x_keys,
		.set_node = x_set_node,
		.set_deps = x_set_deps,
		.list = x_list,
		.remove_orphan = x_remove_orphan,
	};
	struct fakeexec *x = xcalloc(1, sizeof(*x));

	x->base.ops = &ops;
	x->loop = l;
	snprintf(x->hostname, sizeof(x->hostname), "fake");
	return x;
}

static void scripts_free(struct ftask *t)
{
	struct script *s, *next;

	LL_FOREACH_SAFE(t->scripts, s, next)
	free(s);
	t->scripts = NULL;
}

void fakeexec_free(struct fakeexec *x)
{
	struct ftask *t, *next;
	struct orphan *o, *onext;
	struct call *c, *cnext;

	if (!x)
		return;
	DL_FOREACH_SAFE (x->calls, c, cnext) {
		sw_timer_stop(&c->timer);
		answer(c); /* as the door says: outstanding answers come before the end */
	}
	HASH_ITER (hh, x->tasks, t, next) {
		HASH_DEL(x->tasks, t);
		scripts_free(t);
		free(t);
	}
	scripts_free(&x->any);
	LL_FOREACH_SAFE(x->orphans, o, onext)
	free(o);
	free(x);
}

struct executor *fakeexec_executor(struct fakeexec *x)
{
	return &x->base;
}

void fakeexec_script(
	struct fakeexec *x, const char *task, enum fake_op op, const struct fake_script *s)
{
	struct ftask *t = ftask(x, task);
	struct script *q = xcalloc(1, sizeof(*q));

	q->op = op;
	q->s = *s;
	LL_APPEND(t->scripts, q);
}

void fakeexec_default(struct fakeexec *x, enum fake_op op, const struct fake_script *s)
{
	x->has_default[op] = s != NULL;
	if (s)
		x->defaults[op] = *s;
}

void fakeexec_refuse(
	struct fakeexec *x, const char *task, unsigned n, enum sw_errclass cls, const char *text)
{
	struct ftask *t = ftask(x, task);

	t->refuse = n;
	t->refuse_cls = cls;
	t->refuse_text = text;
}

void fakeexec_progress(struct fakeexec *x, const char *task, const char *text)
{
	struct ftask *t = ftask(x, task);

	/* as a controller does: while it works and nobody has cancelled it */
	if (t->ctl && t->ctl->busy && !t->ctl->cancelled && t->ctl->base.progress)
		t->ctl->base.progress(t->ctl->base.progress_arg, text);
}

void fakeexec_exit(struct fakeexec *x, const char *task, int exit_code)
{
	struct ftask *t = ftask(x, task);

	if (t->rec.container != FC_RUNNING)
		return;
	t->rec.container = FC_EXITED;
	t->exit_code = exit_code;
	if (t->ctl && t->ctl->busy && t->ctl->op == F_WAIT && !sw_timer_armed(&t->ctl->timer))
		sw_timer_arm(&t->ctl->timer, 0);
}

void fakeexec_lose_container(struct fakeexec *x, const char *task)
{
	ftask(x, task)->rec.container = FC_NONE;
}

void fakeexec_add_orphan(
	struct fakeexec *x, const char *container_id, const char *name, const char *task_id)
{
	struct orphan *o = xcalloc(1, sizeof(*o));

	snprintf(o->id, sizeof(o->id), "%s", container_id);
	snprintf(o->name, sizeof(o->name), "%s", name);
	snprintf(o->task, sizeof(o->task), "%s", task_id);
	LL_PREPEND(x->orphans, o);
}

bool fakeexec_has_container(struct fakeexec *x, const char *container_id)
{
	struct orphan *o;

	LL_FOREACH (x->orphans, o)
		if (strcmp(o->id, container_id) == 0)
			return true;
	return false;
}

const struct fake_record *fakeexec_record(struct fakeexec *x, const char *task)
{
	return &ftask(x, task)->rec;
}

unsigned fakeexec_violations(struct fakeexec *x)
{
	return x->violations;
}

const char *fakeexec_violation(struct fakeexec *x)
{
	return x->violation;
}

size_t fakeexec_open_controllers(struct fakeexec *x)
{
	return x->open;
}

size_t fakeexec_busy(struct fakeexec *x)
{
	return x->busy;
}

size_t fakeexec_containers(struct fakeexec *x)
{
	struct ftask *t, *next;
	size_t n = 0;

	HASH_ITER (hh, x->tasks, t, next)
		n += t->rec.container != FC_NONE;
	return n;
}

void fakeexec_describe(struct fakeexec *x, const char *hostname, bool hold)
{
	struct call *c;

	snprintf(x->hostname, sizeof(x->hostname), "%s", hostname ? hostname : "");
	x->hold_describe = hold;
	if (hold)
		return;
	DL_FOREACH (x->calls, c)
		if (c->held) {
			c->held = false;
			sw_timer_arm(&c->timer, 0);
		}
}

unsigned fakeexec_described(struct fakeexec *x)
{
	return x->described;
}

unsigned fakeexec_configured(struct fakeexec *x)
{
	return x->configured;
}

unsigned fakeexec_key_calls(struct fakeexec *x)
{
	return x->key_calls;
}

void fakeexec_refuse_keys(struct fakeexec *x, unsigned n)
{
	x->refuse_keys = n;
}
