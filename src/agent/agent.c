/* The run loop: source, executor, store and the rooms of the agent wired together. Policy only, the
 * work is next door.
 *
 *   happy path   describe -> source started -> registered -> assignments -> tasks at work ->
 * statuses no engine    describe is tried again with backoff; without a description nobody
 * registers lost         statuses wait, log subscriptions end; another registration follows by
 * itself stop         no new work, operations end, journal and reporter empty (or time is up),
 * source closed, done leave        all tasks dropped, gone (or time is up), then as stop */
#include "logs.h"
#include "orphans.h"
#include "reporter.h"
#include "worker.h"
#include <errno.h>
#include <string.h>
#include <swarm/agent.h>
#include <swarm/backoff.h>
#include <swarm/executor.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/source.h>
#include <swarm/store.h>

#define DESCRIBE_PERIOD sw_s(20)
#define ORPHAN_GRACE    sw_s(300)
#define NODE_RETRY      sw_s(10) /* configure and keys that the executor refused */

/* A question to the executor; the answer may come when nobody asks any more. */
struct ask {
	struct agent *a;
};

enum phase { NEW, RUNNING, LEAVING, STOPPING, CLOSING, DONE };

struct agent {
	struct agent_config cfg;
	char *node_id, *cluster_id, *role;
	struct agent_events ev;
	void *arg;
	struct source *src;
	struct worker *worker;
	struct reporter *reporter;
	struct logs *logs;
	struct orphans *orphans;
	enum phase phase;
	bool registered, was_ready, ended;

	Pb__NodeDescription *desc;
	struct ask *asking;
	bool ask_again, started_source;
	struct sw_timer describe_timer;
	struct sw_backoff describe_backoff;

	Pb__EncryptionKey **keys; /* refused ones, for another try; secret */
	size_t n_keys;
	struct sw_timer keys_timer;

	struct sw_timer end_timer;
	uint64_t flush_ns;
	bool hurried;
	void (*stopped)(void *arg);
	void (*left)(void *arg, const struct sw_err *err);
	void *end_arg;
	struct sw_err left_err;
};

static void maybe_stopped(struct agent *a);

/* ---- the node's description */

static void describe(struct agent *a);

static void on_described(void *arg, const Pb__NodeDescription *desc, const struct sw_err *err)
{
	struct ask *ask = arg;
	struct agent *a = ask->a;

	free(ask);
	if (!a)
		return;
	a->asking = NULL;
	if (a->phase != RUNNING)
		return;
	if (desc) {
		api_free(a->desc);
		a->desc = (Pb__NodeDescription *)(void *)api_dup(&desc->base);
		sw_backoff_reset(&a->describe_backoff);
		if (a->started_source) {
			a->src->ops->describe(a->src, a->desc);
		} else {
			a->started_source = true;
			a->src->ops->start(a->src, a->desc);
		}
	} else if (!a->desc) {
		/* a node without resources would be marked Ready and given work */
		if (!a->describe_backoff.bound_ns)
			log_warning("node not described, not registering until it is", KERR(err));
		sw_backoff_fail(&a->describe_backoff);
		sw_timer_arm(
			&a->describe_timer, sw_ms(50) + sw_backoff_delay(&a->describe_backoff));
		return;
	} else {
		log_debug("node not described, keeping the last description", KERR(err));
	}
	if (a->ask_again)
		sw_timer_arm(&a->describe_timer, 0);
}

/* One at a time, however long the engine takes. */
static void describe(struct agent *a)
{
	struct executor *x = a->cfg.executor;

	if (a->asking) {
		a->ask_again = true;
		return;
	}
	a->ask_again = false;
	a->asking = xcalloc(1, sizeof(*a->asking));
	a->asking->a = a;
	sw_timer_arm(&a->describe_timer, a->cfg.describe_period_ns);
	x->ops->describe(x, on_described, a->asking);
}

static void on_describe_timer(void *arg)
{
	struct agent *a = arg;

	if (a->asking) /* still the last one: an engine in trouble is not asked twice */
		sw_timer_arm(&a->describe_timer, a->cfg.describe_period_ns);
	else
		describe(a);
}

static void on_executor_changed(void *arg)
{
	struct agent *a = arg;

	if (a->phase != RUNNING)
		return;
	describe(a);
	worker_retry(a->worker);
	orphans_look(a->orphans);
}

void agent_identity_changed(struct agent *a)
{
	/* the engine is not asked: what changed is ours */
	if (a->phase == RUNNING && a->started_source)
		a->src->ops->describe(a->src, a->desc);
}

/* ---- events of the source */

static void on_node_stored(void *arg, const struct sw_err *err)
{
	(void)arg;
	if (err)
		log_warning("node row not stored, the next change writes it again", KERR(err));
}

static void store_node(struct agent *a, const struct store_node *n)
{
	struct store_batch *b = store_batch_new();

	store_batch_node(b, n);
	store_commit(a->cfg.store, b, on_node_stored, NULL);
}

static void report_task(void *arg, struct task *t)
{
	struct agent *a = arg;

	if (t->durable)
		reporter_put(a->reporter, t->id, t->durable);
}

static void on_registered(void *arg, const char *session_id, const char *manager_addr)
{
	struct agent *a = arg;

	a->registered = true;
	log_debug("source registered", KS("manager", manager_addr), KS("session", session_id));
	store_node(a, &(struct store_node){.session_state = "registered"});
	if (!a->was_ready) {
		a->was_ready = true;
		if (a->ev.ready)
			a->ev.ready(a->arg);
	}
	worker_each(a->worker, report_task, a);
	reporter_registered(a->reporter, true);
}

static void on_lost(void *arg, const struct sw_err *err)
{
	struct agent *a = arg;

	if (a->registered)
		log_info("registration lost, tasks go on", KERR(err));
	a->registered = false;
	reporter_registered(a->reporter, false);
	logs_lost(a->logs);
	store_node(a, &(struct store_node){.session_state = "lost"});
}

static const char *availability_name(const Pb__Node *n)
{
	if (!n->spec)
		return "";
	switch (n->spec->availability) {
	case PB__NODE_SPEC__AVAILABILITY__ACTIVE:
		return "active";
	case PB__NODE_SPEC__AVAILABILITY__PAUSE:
		return "pause";
	case PB__NODE_SPEC__AVAILABILITY__DRAIN:
		return "drain";
	default:
		return "?";
	}
}

static void on_node(void *arg, const Pb__Node *node)
{
	struct agent *a = arg;
	size_t len;
	sw_auto_free uint8_t *data = api_pack(&node->base, &len);

	a->cfg.executor->ops->configure(a->cfg.executor, node);
	store_node(a, &(struct store_node){.node_id = a->node_id,
			      .cluster_id = a->cluster_id,
			      .role = a->role,
			      .state = "joined",
			      .hostname = node->description ? node->description->hostname : NULL,
			      .availability = availability_name(node),
			      .object = data,
			      .object_len = len});
}

static void drop_keys(struct agent *a)
{
	for (size_t i = 0; i < a->n_keys; i++) {
		sw_wipe(a->keys[i]->key.data, a->keys[i]->key.len);
		api_free(a->keys[i]);
	}
	free(take(a->keys));
	a->n_keys = 0;
	sw_timer_stop(&a->keys_timer);
}

static bool set_keys(struct agent *a, Pb__EncryptionKey **keys, size_t n)
{
	struct sw_err err = SW_ERR_NONE;

	if (a->cfg.executor->ops->set_network_bootstrap_keys(a->cfg.executor, keys, n, &err) >= 0)
		return true;
	log_warning("network keys not taken, trying again", KERR(&err));
	return false;
}

static void on_keys(void *arg, Pb__EncryptionKey **keys, size_t n)
{
	struct agent *a = arg;

	drop_keys(a);
	if (set_keys(a, keys, n))
		return;
	a->keys = xcalloc(n, sizeof(*a->keys));
	for (; a->n_keys < n; a->n_keys++)
		a->keys[a->n_keys] = (Pb__EncryptionKey *)(void *)api_dup(&keys[a->n_keys]->base);
	sw_timer_arm(&a->keys_timer, NODE_RETRY);
}

static void on_keys_timer(void *arg)
{
	struct agent *a = arg;

	if (set_keys(a, a->keys, a->n_keys))
		drop_keys(a);
	else
		sw_timer_arm(&a->keys_timer, NODE_RETRY);
}

static void on_assignments(void *arg, Pb__AssignmentsMessage *m)
{
	struct agent *a = arg;

	if (a->phase == RUNNING && !a->ended) {
		worker_apply(a->worker, m, 1);
		return;
	}
	deps_wipe_message(m);
	api_free(m);
	a->src->ops->assignments_done(a->src);
}

static void on_subscription(void *arg, const Pb__SubscriptionMessage *m)
{
	struct agent *a = arg;

	if (a->phase == RUNNING)
		logs_subscription(a->logs, m);
}

static void on_removed_from_swarm(void *arg, const struct sw_err *err)
{
	struct agent *a = arg;

	log_debug("removed from the swarm, no more work is accepted", KERR(err));
	a->ended = true;
	store_node(a, &(struct store_node){.state = "removed", .session_state = "removed"});
	if (a->ev.failed)
		a->ev.failed(a->arg, err, true);
}

static void on_source_failed(void *arg, const struct sw_err *err)
{
	struct agent *a = arg;

	a->ended = true;
	if (a->ev.failed)
		a->ev.failed(a->arg, err, false);
}

static const struct source_events source_events = {
	.registered = on_registered,
	.node = on_node,
	.keys = on_keys,
	.assignments = on_assignments,
	.subscription = on_subscription,
	.lost = on_lost,
	.removed = on_removed_from_swarm,
	.failed = on_source_failed,
};

/* ---- events of the worker and the reporter */

static void on_durable(void *arg, struct task *t, struct status *s)
{
	struct agent *a = arg;

	reporter_put(a->reporter, t->id, s);
}

static void on_dropped(void *arg, struct task *t)
{
	struct agent *a = arg;

	reporter_forget(a->reporter, t->id);
}

static void on_opened(void *arg, struct task *t)
{
	struct agent *a = arg;

	logs_task_opened(a->logs, t);
}

static void on_closing(void *arg, struct task *t)
{
	struct agent *a = arg;

	logs_task_closing(a->logs, t);
}

static void on_applied(void *arg, uint64_t token, bool complete)
{
	struct agent *a = arg;

	(void)token;
	a->src->ops->assignments_done(a->src);
	if (complete)
		orphans_complete(a->orphans);
}

static void on_progress(void *arg)
{
	maybe_stopped(arg);
}

static void on_leftover(void *arg)
{
	struct agent *a = arg;

	orphans_look(a->orphans);
}

static const struct worker_events worker_events = {
	.durable = on_durable,
	.dropped = on_dropped,
	.opened = on_opened,
	.closing = on_closing,
	.applied = on_applied,
	.progress = on_progress,
	.leftover = on_leftover,
};

static void on_acked(void *arg, const char *task_id, const struct status *s)
{
	struct agent *a = arg;

	journal_acked(worker_journal(a->worker), task_id, s->at_ns);
}

static const struct reporter_events reporter_events = {.acked = on_acked, .idle = on_progress};

static char *task_name(void *arg, const char *task_id)
{
	struct agent *a = arg;
	const struct task *t = worker_find(a->worker, task_id);

	return t ? api_task_name(t->pb->pb) : NULL;
}

/* ---- life */

static void on_end_timer(void *arg);

int agent_new(struct agent **ret, const struct agent_config *cfg, const struct agent_events *ev,
	void *arg, struct sw_err *err)
{
	struct agent *a;
	int r;

	if (!cfg->loop || !cfg->store || !cfg->executor || !cfg->source)
		return sw_err_set(err, SW_FATAL, -EINVAL, "agent: %s is missing",
			!cfg->loop       ? "loop"
			: !cfg->store    ? "store"
			: !cfg->executor ? "executor"
					 : "source");
	if (!api_id_valid(cfg->node_id))
		return sw_err_set(err, SW_FATAL, -EINVAL, "agent: node id \"%s\" is no id",
			cfg->node_id ? cfg->node_id : "");
	a = xcalloc(1, sizeof(*a));
	r = cfg->source->ops->open(cfg->source, &source_events, a, err);
	if (r < 0) {
		free(a);
		return r;
	}
	a->cfg = *cfg;
	a->src = cfg->source;
	a->node_id = xstrdup(cfg->node_id);
	a->cluster_id = xstrdup(cfg->cluster_id ? cfg->cluster_id : "");
	a->role = xstrdup(cfg->role ? cfg->role : "");
	a->cfg.node_id = a->node_id;
	if (!a->cfg.describe_period_ns)
		a->cfg.describe_period_ns = DESCRIBE_PERIOD;
	if (!a->cfg.orphan_grace_ns)
		a->cfg.orphan_grace_ns = ORPHAN_GRACE;
	a->ev = ev ? *ev : (struct agent_events){0};
	a->arg = arg;
	a->describe_backoff =
		(struct sw_backoff){.base_ns = sw_ms(100), .factor = 2, .max_ns = sw_s(8)};
	sw_timer_init(&a->describe_timer, cfg->loop, on_describe_timer, a);
	sw_timer_init(&a->keys_timer, cfg->loop, on_keys_timer, a);
	sw_timer_init(&a->end_timer, cfg->loop, on_end_timer, a);
	a->worker = worker_new(&(struct worker_config){.loop = cfg->loop,
				       .store = cfg->store,
				       .executor = cfg->executor,
				       .node_id = a->node_id},
		&worker_events, a);
	a->reporter = reporter_new(cfg->loop, a->src, &reporter_events, a);
	a->logs = logs_new(cfg->loop, a->src, a->worker, a->node_id);
	a->orphans = orphans_new(&(struct orphans_config){.loop = cfg->loop,
		.executor = cfg->executor,
		.grace_ns = a->cfg.orphan_grace_ns,
		.task_name = task_name,
		.arg = a});
	*ret = a;
	return 0;
}

int agent_start(struct agent *a, struct sw_err *err)
{
	struct executor *x = a->cfg.executor;
	int r;

	if (a->phase != NEW)
		return sw_err_set(err, SW_FATAL, -EALREADY, "agent: already started");
	x->ops->set_node(x, a->node_id, a->cluster_id);
	x->changed = on_executor_changed;
	x->changed_arg = a;
	r = worker_load(a->worker, err);
	if (r < 0)
		return r;
	if (x->ops->sweep)
		x->ops->sweep(x);
	a->phase = RUNNING;
	store_node(a, &(struct store_node){.node_id = a->node_id,
			      .cluster_id = a->cluster_id,
			      .role = a->role,
			      .state = "joined",
			      .session_state = "starting"});
	describe(a);
	return 0;
}

/* ---- end */

static void on_source_closed(void *arg)
{
	struct agent *a = arg;

	a->src = NULL;
	a->phase = DONE;
	sw_timer_arm(&a->end_timer, 0); /* done() from the loop, after everybody returned */
}

static void close_source(struct agent *a)
{
	a->phase = CLOSING;
	sw_timer_stop(&a->end_timer);
	sw_timer_stop(&a->describe_timer);
	sw_timer_stop(&a->keys_timer);
	logs_lost(a->logs);
	reporter_registered(a->reporter, false);
	a->registered = false;
	a->src->ops->close(a->src, on_source_closed, a);
}

/* The list of what must be over. */
static void maybe_stopped(struct agent *a)
{
	struct worker_stats st;

	if (a->phase == LEAVING) {
		worker_stats(a->worker, &st);
		if (st.tasks + st.removing == 0)
			sw_timer_arm(&a->end_timer, 0);
		return;
	}
	if (a->phase != STOPPING || !worker_quiet(a->worker))
		return;
	if (a->hurried || (worker_durable(a->worker) &&
				  (!a->registered || reporter_pending(a->reporter) == 0)))
		close_source(a);
}

static void stop(struct agent *a, uint64_t flush_ns)
{
	a->phase = STOPPING;
	if (a->cfg.executor->changed_arg == a)
		a->cfg.executor->changed = NULL;
	logs_lost(a->logs);
	worker_stop(a->worker);
	sw_timer_arm(&a->end_timer, flush_ns);
	maybe_stopped(a);
}

static void on_end_timer(void *arg)
{
	struct agent *a = arg;
	struct worker_stats st;

	switch (a->phase) {
	case LEAVING:
		worker_stats(a->worker, &st);
		if (st.tasks + st.removing == 0)
			store_node(
				a, &(struct store_node){.state = "left", .session_state = "left"});
		else
			sw_err_set(&a->left_err, SW_TEMPORARY, -ETIMEDOUT,
				"%zu tasks still have containers", st.tasks + st.removing);
		stop(a, a->flush_ns);
		break;
	case STOPPING:
		/* time is up: what still runs is cancelled and awaited, nothing else is */
		a->hurried = true;
		worker_hurry(a->worker);
		maybe_stopped(a);
		break;
	case DONE:
		if (a->left)
			a->left(a->end_arg, a->left_err.cls ? &a->left_err : NULL);
		else if (a->stopped)
			a->stopped(a->end_arg);
		break;
	default:
		break;
	}
}

void agent_stop(struct agent *a, uint64_t flush_ns, void (*done)(void *arg), void *arg)
{
	a->stopped = done;
	a->end_arg = arg;
	stop(a, flush_ns);
}

void agent_leave(struct agent *a, uint64_t limit_ns,
	void (*done)(void *arg, const struct sw_err *err), void *arg)
{
	a->left = done;
	a->end_arg = arg;
	a->flush_ns = sw_s(1);
	if (a->phase != RUNNING) {
		stop(a, a->flush_ns);
		return;
	}
	a->phase = LEAVING;
	worker_drop_all(a->worker);
	sw_timer_arm(&a->end_timer, limit_ns);
	maybe_stopped(a);
}

void agent_free(struct agent *a)
{
	if (!a)
		return;
	if (a->asking)
		a->asking->a = NULL;
	sw_timer_stop(&a->describe_timer);
	sw_timer_stop(&a->end_timer);
	drop_keys(a);
	worker_free(a->worker); /* closes controllers, which the others want to hear of */
	orphans_free(a->orphans);
	logs_free(a->logs);
	reporter_free(a->reporter);
	api_free(a->desc);
	free(a->node_id);
	free(a->cluster_id);
	free(a->role);
	free(a);
}

void agent_stats(const struct agent *a, struct agent_stats *ret)
{
	struct worker_stats w;
	struct source_stats s = {.manager_addr = ""};

	worker_stats(a->worker, &w);
	if (a->src)
		a->src->ops->stats(a->src, &s);
	*ret = (struct agent_stats){
		.tasks = w.tasks,
		.running = w.running,
		.removing = w.removing,
		.pending_reports = reporter_pending(a->reporter),
		.registered = a->registered,
		.store_trouble = worker_trouble(a->worker),
		.manager_addr = s.manager_addr,
	};
}
