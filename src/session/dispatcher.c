/* Keeps one registration alive, for ever.
 *
 *   idle --start--> waiting --delay--> session --ended--> waiting ...
 *                                         |  `--> checking the root (managers cannot be verified)
 *                                         v
 *                                  over (removed, or no attempt makes sense)
 *
 * Happy path: a manager is drawn, a session registers, everything it brings goes up by events.
 * Failures: the manager's weight goes down, the delay grows: min(100 ms + 2b, 8 s), uniform in [0,
 * b); reset by the first heartbeat that is answered. A description that changed ends a session too,
 * but without delay and under the same session id. Close: ends the session, waits for its
 * connection. */
#include "identity_priv.h"
#include "session_priv.h"
#include <errno.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/grpc.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/tls.h>
#include <sys/queue.h>

#define OBSERVATION        10
#define RATE_LIMIT_MIN_NS  sw_s(2)
#define DENIED_MIN_NS      sw_s(5)
#define LOG_EVERY_NS       sw_s(60)
#define NOT_FOUND_SESSIONS 3 /* in a row, then the node is taken for removed */
#define TLS_FAILURES       2 /* in a row, then the root is checked */
#define KEYS_MAX           64

/* A status call without a session: answered from the loop. */
struct orphan {
	LIST_ENTRY(orphan) entry;
	struct sw_timer timer;
	dispatcher_update_cb *cb;
	void *arg;
};

struct dispatcher {
	struct sw_loop *loop;
	struct remotes *remotes;
	struct identity *identity;
	bool join_addr_given;
	struct dispatcher_events ev;
	void *arg;

	Pb__NodeDescription *desc; /* without tls_info */
	Pb__NodeDescription *sent; /* as the session that runs carries it */
	struct session *session;
	char *peer_id, *peer_addr; /* of the session */
	char *id;                  /* last session id, for the next registration */
	struct sw_timer timer;     /* the next attempt */
	struct sw_backoff backoff;
	bool ever_registered, registered, rebuild, over, closing;
	bool checking_root; /* and nothing else until it is done */
	bool busy;          /* an assignments message is outstanding */
	unsigned not_found, tls_failures;

	Pb__Node *node; /* last one handed up */
	int desired_role;
	uint64_t lamport[KEYS_MAX]; /* of the keys handed up */
	size_t n_lamport;
	LIST_HEAD(, orphan) orphans;

	struct dispatcher_stats stats;
	char last_error[SW_ERR_MSG_MAX];
	uint64_t error_logged_ns;

	void (*closed)(void *arg);
	void *closed_arg;
};

static void maybe_closed(struct dispatcher *d);

/* ---- the description */

/* @desc as it goes out; borrows from @d and the identity. */
static Pb__NodeDescription stamped(const struct dispatcher *d, Pb__NodeTLSInfo *tls)
{
	Pb__NodeDescription desc = *d->desc;

	pb__node_tlsinfo__init(tls);
	identity_tls_info(d->identity, tls);
	desc.tls_info = tls;
	desc.fips = false;
	return desc;
}

/* Ends the session if what it told the manager is not true any more. */
static void check_description(struct dispatcher *d)
{
	Pb__NodeTLSInfo tls;
	Pb__NodeDescription desc;

	if (!d->registered || !d->session || d->rebuild)
		return; /* looked at again on registration */
	desc = stamped(d, &tls);
	if (api_equal(&desc.base, &d->sent->base))
		return;
	log_info("node description changed, registering again", KS("session", d->id));
	d->rebuild = true;
	session_end(d->session);
}

/* ---- session messages */

static void take_managers(struct dispatcher *d, const Pb__SessionMessage *m)
{
	size_t n, usable = 0;
	struct remote *old;

	for (size_t i = 0; i < m->n_managers; i++) {
		const Pb__Peer *p = m->managers[i]->peer;
		int64_t w = m->managers[i]->weight;

		if (!p || !*p->addr)
			continue;
		usable++;
		remotes_observe(d->remotes, p->node_id, p->addr,
			w > 256    ? 256
			: w < -256 ? -256
				   : (int)w);
	}
	if (!usable) /* never forget everybody: there would be no way back */
		return;
	/* whoever is not in the list goes; the text outlives the removals only as a copy */
	n = remotes_count(d->remotes);
	old = xcalloc(n, sizeof(*old));
	n = remotes_list(d->remotes, old, n);
	for (size_t i = 0; i < n; i++) {
		bool listed = false;

		for (size_t k = 0; !listed && k < m->n_managers; k++) {
			const Pb__Peer *p = m->managers[k]->peer;

			listed = p && strcmp(p->addr, old[i].addr) == 0 &&
				 strcmp(p->node_id, old[i].node_id) == 0;
		}
		old[i].node_id = listed ? NULL : xstrdup(old[i].node_id);
		old[i].addr = listed ? NULL : xstrdup(old[i].addr);
	}
	for (size_t i = 0; i < n; i++)
		if (old[i].addr) {
			remotes_remove(d->remotes, old[i].node_id, old[i].addr);
			free((char *)old[i].node_id);
			free((char *)old[i].addr);
		}
	free(old);
}

static void take_role(struct dispatcher *d, const Pb__Node *node)
{
	int role = node->spec ? (int)node->spec->desired_role : PB__NODE_ROLE__WORKER;

	if (role == d->desired_role) /* only changes count */
		return;
	d->desired_role = role;
	if (role == PB__NODE_ROLE__MANAGER)
		log_warning("this node is to become a manager, which this program cannot be; it "
			    "stays a "
			    "worker: demote it again with \"docker node demote\"",
			KS("node", node->id));
	else
		identity_expect_worker(d->identity);
}

static void take_node(struct dispatcher *d, const Pb__Node *node)
{
	if (!node || (d->node && api_node_equal(node, d->node)))
		return;
	api_free(d->node);
	d->node = (Pb__Node *)api_dup(&node->base);
	take_role(d, node);
	if (node->certificate && node->certificate->status &&
		node->certificate->status->state == PB__ISSUANCE_STATUS__STATE__ROTATE)
		identity_renew(d->identity, "asked by the manager");
	if (d->ev.node)
		d->ev.node(d->arg, node);
}

static bool key_known(const struct dispatcher *d, uint64_t lamport)
{
	for (size_t i = 0; i < d->n_lamport; i++)
		if (d->lamport[i] == lamport)
			return true;
	return false;
}

static void take_keys(struct dispatcher *d, const Pb__SessionMessage *m)
{
	size_t n = m->n_network_bootstrap_keys;
	bool fresh = false;

	for (size_t i = 0; i < n; i++)
		fresh |= !key_known(d, m->network_bootstrap_keys[i]->lamport_time);
	if (!fresh)
		return;
	d->n_lamport = n < KEYS_MAX ? n : KEYS_MAX;
	for (size_t i = 0; i < d->n_lamport; i++)
		d->lamport[i] = m->network_bootstrap_keys[i]->lamport_time;
	if (d->ev.keys)
		d->ev.keys(d->arg, m->network_bootstrap_keys, n);
}

static void on_registered(struct dispatcher *d)
{
	free(d->id);
	d->id = xstrdup(session_id(d->session));
	d->registered = d->ever_registered = true;
	d->not_found = d->tls_failures = 0;
	d->stats.sessions++;
	log_notice("registered", KS("manager", d->peer_addr), KS("session", d->id));
	d->ev.registered(d->arg, d->id, d->peer_addr);
}

/* A handler may close the dispatcher: every step looks. */
static void on_message(void *arg, const Pb__SessionMessage *m)
{
	struct dispatcher *d = arg;
	bool first = !d->registered;

	take_managers(d, m);
	if (!d->closing)
		take_node(d, m->node);
	if (!d->closing && m->rootca.len)
		identity_set_root(d->identity, m->rootca.data, m->rootca.len);
	if (!d->closing)
		take_keys(d, m);
	if (first && !d->closing)
		on_registered(d);
	if (!d->closing)
		check_description(d);
}

static void on_heartbeat(void *arg)
{
	struct dispatcher *d = arg;

	d->stats.heartbeats++;
	sw_backoff_reset(&d->backoff);
	d->error_logged_ns = 0;
}

static void on_assignments(void *arg, Pb__AssignmentsMessage *m)
{
	struct dispatcher *d = arg;

	d->busy = true;
	d->ev.assignments(d->arg, m);
}

static void on_subscription(void *arg, const Pb__SubscriptionMessage *m)
{
	struct dispatcher *d = arg;

	if (d->ev.subscription)
		d->ev.subscription(d->arg, m);
}

/* ---- attempts and their ends */

static void on_ended(void *arg, const struct sw_err *err);

static void note_error(struct dispatcher *d, const struct sw_err *err)
{
	uint64_t now = sw_now(d->loop);
	bool same = strcmp(d->last_error, err->msg) == 0;

	snprintf(d->last_error, sizeof(d->last_error), "%s", err->msg);
	d->stats.failures++;
	if (same && d->error_logged_ns && now - d->error_logged_ns < LOG_EVERY_NS)
		return;
	d->error_logged_ns = now ? now : 1;
	log_warning("no session with a manager, trying again",
		KS("manager", d->peer_addr ? d->peer_addr : ""), KERR(err));
}

static void try_later(struct dispatcher *d, uint64_t at_least_ns)
{
	uint64_t delay;

	sw_backoff_fail(&d->backoff);
	delay = sw_backoff_delay(&d->backoff);
	sw_timer_arm(&d->timer, delay > at_least_ns ? delay : at_least_ns);
}

static void attempt(struct dispatcher *d)
{
	static const struct session_events events = {.message = on_message,
		.heartbeat = on_heartbeat,
		.assignments = on_assignments,
		.subscription = on_subscription,
		.ended = on_ended};
	struct session_config cfg = {.loop = d->loop, .session_id = d->id ? d->id : ""};
	struct remote r;
	struct sw_err err = SW_ERR_NONE;
	Pb__NodeTLSInfo tls;
	Pb__NodeDescription desc;

	free(take(d->peer_id));
	free(take(d->peer_addr));
	if (remotes_select(d->remotes, NULL, &r, &err) < 0) {
		note_error(d, &err);
		try_later(d, 0);
		return;
	}
	d->peer_id = xstrdup(r.node_id);
	d->peer_addr = xstrdup(r.addr);
	desc = stamped(d, &tls);
	api_free(d->sent);
	d->sent = (Pb__NodeDescription *)api_dup(&desc.base);
	cfg.addr = d->peer_addr;
	cfg.creds = identity_creds(d->identity);
	cfg.description = d->sent;
	cfg.hold_assignments = d->busy;
	d->session = session_new(&cfg, &events, d);
	tls_creds_unref(cfg.creds);
}

static void on_timer(void *arg)
{
	struct dispatcher *d = arg;

	if (!d->closing && !d->over && !d->session)
		attempt(d);
}

static bool is_grpc(const struct sw_err *err, int code)
{
	return err->domain == SW_E_GRPC && err->code == code;
}

static bool unverified(const struct sw_err *err)
{
	return err->domain == SW_E_TLS && err->cls != SW_TEMPORARY;
}

static void removed(struct dispatcher *d, const struct sw_err *err)
{
	d->over = true;
	log_warning("no further attempt to register; only a new join with a token brings it back",
		KS("node", identity_node_id(d->identity)), KERR(err));
	d->ev.removed(d->arg, err);
}

static void give_up(struct dispatcher *d, const struct sw_err *err)
{
	d->over = true;
	log_err("the managers at the join address cannot be verified with this node's root "
		"certificate",
		KERR(err));
	d->ev.failed(d->arg, err);
}

/* Managers that cannot be verified: before the first registration at a given join address that is
 * final, unless a root rotation ended while we were away; later other managers are tried too. */
static void on_unverified(struct dispatcher *d)
{
	d->tls_failures++;
	if (!d->ever_registered && d->join_addr_given) {
		d->checking_root = true;
		identity_check_root(d->identity);
		return;
	}
	if (d->tls_failures % TLS_FAILURES == 0)
		identity_check_root(d->identity);
	try_later(d, 0);
}

static void on_root_checked(void *arg, bool changed)
{
	struct dispatcher *d = arg;
	struct sw_err err;

	if (!d->checking_root || d->closing)
		return;
	d->checking_root = false;
	if (changed) {
		sw_timer_arm(&d->timer, 0);
		return;
	}
	if (d->tls_failures < remotes_count(d->remotes)) {
		/* perhaps only this address is stale: each known manager gets its chance */
		try_later(d, 0);
		return;
	}
	sw_err_set(&err, SW_FATAL, -EKEYREJECTED, "%s", d->last_error);
	give_up(d, &err);
}

static void on_failure(struct dispatcher *d, const struct sw_err *err)
{
	bool text_removed = strstr(err->msg, "was removed from swarm") != NULL;

	note_error(d, err);
	/* a follower forwards the call, and the leader only misses the node */
	if (is_grpc(err, GRPC_UNKNOWN) && strstr(err->msg, "node not found"))
		d->not_found++;
	else if (!is_grpc(err, GRPC_UNAVAILABLE))
		d->not_found = 0;
	if ((is_grpc(err, GRPC_PERMISSION_DENIED) && text_removed) ||
		d->not_found >= NOT_FOUND_SESSIONS)
		removed(d, err);
	else if (unverified(err))
		on_unverified(d);
	else if (is_grpc(err, GRPC_UNAVAILABLE) && strstr(err->msg, "exceeded rate limit"))
		try_later(d, RATE_LIMIT_MIN_NS);
	else if (is_grpc(err, GRPC_PERMISSION_DENIED)) { /* certificate or cluster do not fit */
		identity_check_root(d->identity);
		try_later(d, DENIED_MIN_NS);
	} else
		try_later(d, 0);
}

static void on_ended(void *arg, const struct sw_err *err)
{
	struct dispatcher *d = arg;
	bool was_registered = d->registered;

	d->session = NULL;
	d->registered = d->rebuild = false;
	/* every end counts against the manager, exactly once; its next message makes up for it */
	remotes_observe_if_exists(d->remotes, d->peer_id, d->peer_addr, -OBSERVATION);
	if (d->closing) {
		maybe_closed(d);
		return;
	}
	if (was_registered)
		d->ev.lost(d->arg, err);
	if (d->closing) /* by the event; nothing was left to wait for but this */
		return;
	if (err)
		on_failure(d, err);
	else
		sw_timer_arm(&d->timer, 0);
}

/* ---- the door */

static void on_identity_changed(void *arg)
{
	check_description(arg);
}

int dispatcher_new(struct dispatcher **ret, const struct dispatcher_config *cfg,
	const struct dispatcher_events *ev, void *arg, struct sw_err *err)
{
	static const struct identity_listener listener = {
		.changed = on_identity_changed, .root_checked = on_root_checked};
	struct dispatcher *d;

	if (!cfg->loop || !cfg->remotes || !cfg->identity)
		return sw_err_set(err, SW_FATAL, -EINVAL, "dispatcher without %s",
			!cfg->loop      ? "loop"
			: !cfg->remotes ? "remotes"
					: "identity");
	if (!ev->registered || !ev->assignments || !ev->lost || !ev->removed || !ev->failed)
		return sw_err_set(
			err, SW_FATAL, -EINVAL, "dispatcher without an event handler it needs");
	d = xcalloc(1, sizeof(*d));
	d->loop = cfg->loop;
	d->remotes = cfg->remotes;
	d->identity = cfg->identity;
	d->join_addr_given = cfg->join_addr_given;
	d->ev = *ev;
	d->arg = arg;
	d->backoff = (struct sw_backoff){.base_ns = sw_ms(100), .factor = 2, .max_ns = sw_s(8)};
	d->desired_role = strcmp(identity_role(cfg->identity), "swarm-manager") == 0
				  ? PB__NODE_ROLE__MANAGER
				  : PB__NODE_ROLE__WORKER;
	sw_timer_init(&d->timer, d->loop, on_timer, d);
	identity_listen(d->identity, &listener, d);
	*ret = d;
	return 0;
}

static void keep_description(struct dispatcher *d, const Pb__NodeDescription *desc)
{
	Pb__NodeDescription bare = *desc;

	bare.tls_info = NULL;
	api_free(d->desc);
	d->desc = (Pb__NodeDescription *)api_dup(&bare.base);
}

void dispatcher_start(struct dispatcher *d, const Pb__NodeDescription *desc)
{
	bool started = d->desc != NULL;

	keep_description(d, desc);
	if (started)
		check_description(d);
	else if (!d->closing)
		sw_timer_arm(&d->timer, 0);
}

void dispatcher_describe(struct dispatcher *d, const Pb__NodeDescription *desc)
{
	if (!d->desc)
		return; /* not started */
	keep_description(d, desc);
	check_description(d);
}

void dispatcher_assignments_done(struct dispatcher *d)
{
	if (!d->busy)
		return;
	d->busy = false;
	if (d->session)
		session_assignments_done(d->session);
}

bool dispatcher_registered(const struct dispatcher *d)
{
	return d->registered && d->session && session_registered(d->session);
}

static void orphan_end(struct orphan *o)
{
	dispatcher_update_cb *cb = o->cb;
	void *arg = o->arg;
	struct sw_err err;

	sw_err_set(&err, SW_TEMPORARY, -ENOTCONN, "no session with a manager");
	sw_timer_stop(&o->timer);
	LIST_REMOVE(o, entry);
	free(o);
	cb(arg, &err);
}

static void on_orphan(void *arg)
{
	orphan_end(arg);
}

void dispatcher_update_status(struct dispatcher *d,
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate **updates, size_t n, dispatcher_update_cb *cb,
	void *arg)
{
	struct orphan *o;

	if (dispatcher_registered(d)) {
		session_update_status(d->session, updates, n, cb, arg);
		return;
	}
	o = xcalloc(1, sizeof(*o));
	o->cb = cb;
	o->arg = arg;
	sw_timer_init(&o->timer, d->loop, on_orphan, o);
	sw_timer_arm(&o->timer, 0);
	LIST_INSERT_HEAD(&d->orphans, o, entry);
}

struct log_publisher *dispatcher_publish_logs(struct dispatcher *d, const char *subscription_id,
	void (*writable)(void *arg), void (*ended)(void *arg, const struct sw_err *err), void *arg)
{
	if (!dispatcher_registered(d))
		return NULL;
	return log_publisher_new(session_conn(d->session), subscription_id, writable, ended, arg);
}

void dispatcher_stats(const struct dispatcher *d, struct dispatcher_stats *ret)
{
	bool on = dispatcher_registered(d);

	*ret = d->stats;
	ret->manager_addr = on ? d->peer_addr : "";
	ret->session_id = on ? d->id : "";
	ret->last_error = d->last_error;
}

static void on_gone(void *arg)
{
	struct dispatcher *d = arg;
	void (*closed)(void *) = d->closed;
	void *closed_arg = d->closed_arg;

	while (!LIST_EMPTY(&d->orphans))
		orphan_end(LIST_FIRST(&d->orphans));
	sw_timer_stop(&d->timer);
	sw_wipe(d->lamport, sizeof(d->lamport));
	api_free(d->desc);
	api_free(d->sent);
	api_free(d->node);
	free(d->peer_id);
	free(d->peer_addr);
	free(d->id);
	free(d);
	if (closed)
		closed(closed_arg);
}

/* What must be gone: the session. */
static void maybe_closed(struct dispatcher *d)
{
	if (!d->closing || d->session)
		return;
	sw_timer_init(&d->timer, d->loop, on_gone, d);
	sw_timer_arm(&d->timer, 0);
}

void dispatcher_close(struct dispatcher *d, void (*closed)(void *arg), void *arg)
{
	if (d->closing)
		return;
	d->closing = true;
	d->closed = closed;
	d->closed_arg = arg;
	sw_timer_stop(&d->timer);
	identity_listen(d->identity, NULL, NULL);
	if (d->session)
		session_end(d->session);
	maybe_closed(d);
}
