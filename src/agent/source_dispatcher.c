/* The dispatcher of session.h as a source, and the managers' list in the store: who can be asked
 * after a restart. */
#include <string.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/session.h>
#include <swarm/source.h>
#include <swarm/store.h>

#define SAVE_DELAY   sw_s(1) /* weights move with every message */
#define MANAGERS_MAX 256

struct dispatcher_source {
	struct source source;
	struct source_dispatcher_config cfg;
	struct source_events ev;
	void *arg;
	struct dispatcher *d;
	struct sw_timer save;
	void (*closed)(void *arg);
	void *closed_arg;
};

static struct dispatcher_source *of(struct source *s)
{
	return sw_container_of(s, struct dispatcher_source, source);
}

/* ---- managers */

static bool is_known(struct remotes *r, const char *node_id, const char *addr)
{
	struct remote list[MANAGERS_MAX];
	size_t n = remotes_list(r, list, MANAGERS_MAX);

	if (n > MANAGERS_MAX)
		n = MANAGERS_MAX;
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].node_id, node_id) == 0 && strcmp(list[i].addr, addr) == 0)
			return true;
	return false;
}

static int load_manager(void *arg, const struct store_manager *m)
{
	struct remotes *r = arg;

	if (remotes_count(r) < MANAGERS_MAX && !sw_str_empty(m->addr) &&
		!is_known(r, m->node_id, m->addr))
		remotes_add(r, m->node_id, m->addr, (int)m->weight);
	return 0;
}

int source_managers_load(struct store *s, struct remotes *r, struct sw_err *err)
{
	return store_load_managers(s, load_manager, r, err);
}

static void on_saved(void *arg, const struct sw_err *err)
{
	(void)arg;
	if (err)
		log_warning(
			"list of managers not stored, the next change writes it again", KERR(err));
}

static void save(void *arg)
{
	struct dispatcher_source *s = arg;
	struct remote list[MANAGERS_MAX];
	struct store_manager rows[MANAGERS_MAX];
	size_t n = remotes_list(s->cfg.remotes, list, MANAGERS_MAX);
	struct store_batch *b;

	if (n > MANAGERS_MAX)
		n = MANAGERS_MAX;
	if (!n)
		return; /* never forget the last way back */
	for (size_t i = 0; i < n; i++)
		rows[i] = (struct store_manager){
			.node_id = list[i].node_id, .addr = list[i].addr, .weight = list[i].weight};
	b = store_batch_new();
	store_batch_managers(b, rows, n);
	store_commit(s->cfg.store, b, on_saved, NULL);
}

static void on_remotes_changed(void *arg)
{
	struct dispatcher_source *s = arg;

	if (!sw_timer_armed(&s->save))
		sw_timer_arm(&s->save, SAVE_DELAY);
}

/* ---- events */

static void on_registered(void *arg, const char *session_id, const char *manager_addr)
{
	struct dispatcher_source *s = arg;

	s->ev.registered(s->arg, session_id, manager_addr);
}

static void on_node(void *arg, const Pb__Node *node)
{
	struct dispatcher_source *s = arg;

	s->ev.node(s->arg, node);
}

static void on_keys(void *arg, Pb__EncryptionKey **keys, size_t n)
{
	struct dispatcher_source *s = arg;

	s->ev.keys(s->arg, keys, n);
}

static void on_assignments(void *arg, Pb__AssignmentsMessage *m)
{
	struct dispatcher_source *s = arg;

	s->ev.assignments(s->arg, m);
}

static void on_subscription(void *arg, const Pb__SubscriptionMessage *m)
{
	struct dispatcher_source *s = arg;

	s->ev.subscription(s->arg, m);
}

static void on_lost(void *arg, const struct sw_err *err)
{
	struct dispatcher_source *s = arg;

	s->ev.lost(s->arg, err);
}

static void on_removed(void *arg, const struct sw_err *err)
{
	struct dispatcher_source *s = arg;

	s->ev.removed(s->arg, err);
}

static void on_failed(void *arg, const struct sw_err *err)
{
	struct dispatcher_source *s = arg;

	s->ev.failed(s->arg, err);
}

/* ---- operations */

static int op_open(
	struct source *src, const struct source_events *ev, void *arg, struct sw_err *err)
{
	static const struct dispatcher_events events = {
		.registered = on_registered,
		.node = on_node,
		.keys = on_keys,
		.assignments = on_assignments,
		.subscription = on_subscription,
		.lost = on_lost,
		.removed = on_removed,
		.failed = on_failed,
	};
	struct dispatcher_source *s = of(src);

	s->ev = *ev;
	s->arg = arg;
	return dispatcher_new(&s->d,
		&(struct dispatcher_config){.loop = s->cfg.loop,
			.remotes = s->cfg.remotes,
			.identity = s->cfg.identity,
			.join_addr_given = s->cfg.join_addr_given},
		&events, s, err);
}

static void op_start(struct source *s, const Pb__NodeDescription *desc)
{
	dispatcher_start(of(s)->d, desc);
}

static void op_describe(struct source *s, const Pb__NodeDescription *desc)
{
	dispatcher_describe(of(s)->d, desc);
}

static void op_assignments_done(struct source *s)
{
	dispatcher_assignments_done(of(s)->d);
}

static void op_update_status(struct source *s,
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate **updates, size_t n, source_update_cb *cb,
	void *arg)
{
	dispatcher_update_status(of(s)->d, updates, n, cb, arg);
}

/* source_logs is another name of log_publisher: nothing to add to it */
static struct log_publisher *publisher(struct source_logs *l)
{
	return (struct log_publisher *)(void *)l;
}

static struct source_logs *op_publish_logs(struct source *s, const char *subscription_id,
	void (*writable)(void *arg), void (*ended)(void *arg, const struct sw_err *err), void *arg)
{
	return (struct source_logs *)(void *)dispatcher_publish_logs(
		of(s)->d, subscription_id, writable, ended, arg);
}

static bool op_logs_send(struct source_logs *l, Pb__LogMessage **msgs, size_t n)
{
	return log_publisher_send(publisher(l), msgs, n);
}

static void op_logs_finish(struct source_logs *l)
{
	log_publisher_finish(publisher(l));
}

static void op_logs_cancel(struct source_logs *l)
{
	log_publisher_cancel(publisher(l));
}

static void op_stats(const struct source *src, struct source_stats *ret)
{
	const struct dispatcher_source *s =
		sw_container_of(src, const struct dispatcher_source, source);
	struct dispatcher_stats d;

	dispatcher_stats(s->d, &d);
	*ret = (struct source_stats){.registered = dispatcher_registered(s->d),
		.manager_addr = d.manager_addr,
		.sessions = d.sessions,
		.failures = d.failures};
}

static void on_dispatcher_closed(void *arg)
{
	struct dispatcher_source *s = arg;
	void (*closed)(void *) = s->closed;
	void *closed_arg = s->closed_arg;

	free(s);
	closed(closed_arg);
}

static void op_close(struct source *src, void (*closed)(void *arg), void *arg)
{
	struct dispatcher_source *s = of(src);

	s->closed = closed;
	s->closed_arg = arg;
	remotes_on_change(s->cfg.remotes, NULL, NULL);
	if (sw_timer_armed(&s->save)) {
		sw_timer_stop(&s->save);
		save(s);
	}
	dispatcher_close(s->d, on_dispatcher_closed, s);
}

int source_dispatcher_new(
	struct source **ret, const struct source_dispatcher_config *cfg, struct sw_err *err)
{
	static const struct source_ops ops = {
		.open = op_open,
		.start = op_start,
		.describe = op_describe,
		.assignments_done = op_assignments_done,
		.update_status = op_update_status,
		.publish_logs = op_publish_logs,
		.logs_send = op_logs_send,
		.logs_finish = op_logs_finish,
		.logs_cancel = op_logs_cancel,
		.stats = op_stats,
		.close = op_close,
	};
	struct dispatcher_source *s;
	int r = source_managers_load(cfg->store, cfg->remotes, err);

	if (r < 0)
		return r;
	s = xcalloc(1, sizeof(*s));
	s->source.ops = &ops;
	s->cfg = *cfg;
	sw_timer_init(&s->save, cfg->loop, save, s);
	remotes_on_change(cfg->remotes, on_remotes_changed, s);
	*ret = &s->source;
	return 0;
}
