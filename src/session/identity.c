/* Who this node is: loads or gets credentials once, then keeps them fresh.
 *
 *   new --start--> loading --usable--------------------> ready --+--> renewing --> ready ...
 *                     |  nothing there                     ^     `--> checking the root
 *                     `--------------> joining --issued---'      (one at a time)
 *                                       |  ^ temporary trouble: backoff
 *                                       v
 *                  failed (for good) <--'
 *
 * Happy path: files_load() on the pool, ready(). Or a certop in mode join, whose results become
 * ours. Failures: temporary ones are retried for ever, the rest ends in failed(). Close: stops the
 * operation, waits for its connection.
 * Renewal: at a random point between 50 and 80 % of the certificate's life, computed from the wall
 * clock anew at least every hour, or 500 ms after somebody asked (swarmkit ca/renewer.go). */
#include "certop.h"
#include "files.h"
#include "identity_priv.h"
#include "renewal.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/tls.h>
#include <time.h>

#define FORCED_PAUSE_NS sw_ms(500) /* lets the CA settle the role */
#define LOG_EVERY_NS    sw_s(60)

enum state { NEW, LOADING, JOINING, READY, FAILED };

struct identity {
	struct sw_loop *loop;
	struct remotes *remotes;
	char *state_dir, *token;
	struct identity_events ev;
	void *arg;
	struct identity_listener listener;
	void *listener_arg;

	enum state state;
	struct sw_work *load;
	struct certop op;
	enum certop_mode op_mode;
	struct sw_timer timer; /* next join attempt or renewal */
	struct sw_backoff join_backoff;

	char *root, *cert, *key;
	struct pki_subject subject;
	struct tls_issuer issuer;
	struct tls_creds *creds;

	int64_t renew_at_s; /* wall clock; 0: not chosen */
	uint64_t due_ns;    /* of a forced renewal or another attempt; 0: none */
	unsigned renew_failures;
	bool forced, expect_worker, check_root;

	char trouble[SW_ERR_MSG_MAX + 64];
	uint64_t trouble_logged_ns;
	struct root_save *saving; /* the last one started */

	bool closing, op_gone;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void rearm(struct identity *id);
static void maybe_closed(struct identity *id);

/* ---- trouble: text for people, logged at most once a minute */

static void set_trouble(struct identity *id, const char *what, const struct sw_err *err)
{
	uint64_t now = sw_now(id->loop);

	snprintf(id->trouble, sizeof(id->trouble), "%s: %s", what, err->msg);
	if (id->trouble_logged_ns && now - id->trouble_logged_ns < LOG_EVERY_NS)
		return;
	id->trouble_logged_ns = now ? now : 1;
	log_warning("no progress with the node's certificate, trying again", KS("what", what),
		KERR(err));
}

static void clear_trouble(struct identity *id)
{
	id->trouble[0] = 0;
	id->trouble_logged_ns = 0;
}

static void fail(struct identity *id, const struct sw_err *err)
{
	id->state = FAILED;
	snprintf(id->trouble, sizeof(id->trouble), "%s", err->msg);
	id->ev.failed(id->arg, err);
}

/* ---- credentials */

static int make_creds(struct identity *id, struct sw_err *err)
{
	struct tls_config tls = {
		.roots_pem = id->root,
		.cert_pem = id->cert,
		.key_pem = id->key,
		.name = "swarm-manager",
	};
	struct tls_creds *creds = NULL;
	struct tls_issuer issuer = {0};
	int r = tls_creds_new(&creds, &tls, err);

	if (r >= 0 && (r = tls_chain_issuer(id->root, id->cert, &issuer, err)) < 0)
		tls_creds_unref(creds);
	if (r < 0)
		return r;
	tls_creds_unref(id->creds);
	tls_issuer_done(&id->issuer);
	id->creds = creds;
	id->issuer = issuer;
	return 0;
}

static void choose_renewal(struct identity *id)
{
	id->renew_at_s = renewal_time(id->subject.not_before_s, id->subject.not_after_s);
}

/* Takes a pair that has been verified. */
static int adopt_pair(struct identity *id, char *cert, char *key, struct sw_err *err)
{
	struct pki_subject s;
	int r = pki_subject(cert, &s, err);

	if (r < 0) {
		free(cert);
		sw_wipe_str(key);
		return r;
	}
	free(id->cert);
	sw_wipe_str(id->key);
	id->cert = cert;
	id->key = key;
	if (id->subject.node_id) { /* the same, and lent out until we are closed */
		free(s.node_id);
		free(s.cluster_id);
		s.node_id = id->subject.node_id;
		s.cluster_id = id->subject.cluster_id;
		free(id->subject.role);
	}
	id->subject = s;
	choose_renewal(id);
	return make_creds(id, err);
}

static void become_ready(struct identity *id)
{
	sw_wipe_str(take(id->token));
	clear_trouble(id);
	id->state = READY;
	log_notice("credentials ready", KS("node", id->subject.node_id),
		KS("role", id->subject.role), KS("cluster", id->subject.cluster_id));
	rearm(id);
	id->ev.ready(id->arg);
}

static void tell_changed(struct identity *id)
{
	if (id->listener.changed)
		id->listener.changed(id->listener_arg);
	if (!id->closing && id->ev.changed)
		id->ev.changed(id->arg);
}

/* ---- loading */

struct load_job {
	struct identity *id;
	char *state_dir;
	struct node_files files;
	struct sw_err err;
};

static void load_job_free(struct load_job *j)
{
	node_files_done(&j->files);
	free(j->state_dir);
	free(j);
}

static void refuse_pair(struct load_job *j, const struct pki_subject *s, const char *what)
{
	char not_before[32], not_after[32];
	time_t a = (time_t)s->not_before_s, b = (time_t)s->not_after_s;
	struct tm tm;

	strftime(not_before, sizeof(not_before), "%FT%TZ", gmtime_r(&a, &tm));
	strftime(not_after, sizeof(not_after), "%FT%TZ", gmtime_r(&b, &tm));
	sw_err_wrap(&j->err,
		"error while loading TLS certificate in %s/certificates/swarm-node.crt (node %s, "
		"valid %s to "
		"%s): %s",
		j->state_dir, s->node_id, not_before, not_after, what);
}

static void load_run(void *arg)
{
	struct load_job *j = arg;
	struct pki_subject s;

	if (files_load(j->state_dir, &j->files, &j->err) < 0 || !j->files.cert)
		return;
	if (pki_subject(j->files.cert, &s, &j->err) < 0) {
		sw_err_wrap(&j->err,
			"error while loading TLS certificate in %s/certificates/swarm-node.crt",
			j->state_dir);
		return;
	}
	if (sw_starts_with(s.cluster_id, "FIPS."))
		sw_err_set(&j->err, SW_FATAL, -EPERM,
			"node is not FIPS-enabled but cluster requires FIPS");
	else if (j->files.root && tls_verify_chain(j->files.root, j->files.cert, 0, &j->err) < 0)
		refuse_pair(j, &s,
			s.not_after_s < (int64_t)time(NULL)
				? "it has expired; empty the folder and join again with a token "
				  "(as a new "
				  "node)"
				: "it does not fit swarm-root-ca.crt");
	pki_subject_done(&s);
}

/* What joining needs, before any connection is made. */
static int check_join(struct identity *id, struct sw_err *err)
{
	struct join_token t;

	if (!id->token)
		return sw_err_set(err, SW_REJECTED, -ENOENT,
			"no usable credentials in %s/certificates and no join token: give one with "
			"--join-token or --join-token-file",
			id->state_dir);
	if (remotes_count(id->remotes) == 0)
		return sw_err_set(err, SW_REJECTED, -ENOENT,
			"no usable credentials in %s/certificates and no manager to ask: give one "
			"with "
			"--join-addr",
			id->state_dir);
	if (join_token_parse(id->token, &t, err) < 0)
		return -EINVAL;
	if (t.fips)
		return sw_err_set(err, SW_FATAL, -EPERM,
			"node is not FIPS-enabled but cluster requires FIPS");
	return 0;
}

static void join(struct identity *id)
{
	struct sw_err err = SW_ERR_NONE;

	if (check_join(id, &err) < 0) {
		fail(id, &err);
		return;
	}
	id->state = JOINING;
	log_notice("joining", KU("managers", remotes_count(id->remotes)));
	rearm(id);
}

static void loaded(struct identity *id, struct load_job *j)
{
	struct sw_err err = SW_ERR_NONE;

	if (j->err.cls) {
		fail(id, &j->err);
		return;
	}
	id->root = take(j->files.root);
	if (j->files.cert && id->root) {
		if (adopt_pair(id, take(j->files.cert), take(j->files.key), &err) < 0)
			fail(id, &err);
		else
			become_ready(id);
		return;
	}
	/* a pair without a root: judged when the root is there */
	id->cert = take(j->files.cert);
	id->key = take(j->files.key);
	join(id);
}

static void on_loaded(void *arg, bool dropped)
{
	struct load_job *j = arg;

	struct identity *id = j->id;

	(void)dropped; /* never: who closes waits for it */
	id->load = NULL;
	if (!id->closing)
		loaded(id, j);
	load_job_free(j);
	maybe_closed(id);
}

void identity_start(struct identity *id)
{
	struct load_job *j = xcalloc(1, sizeof(*j));

	id->state = LOADING;
	j->id = id;
	j->state_dir = xstrdup(id->state_dir);
	id->load = sw_work(id->loop, load_run, on_loaded, j);
}

/* ---- operations */

static void run(struct identity *id, enum certop_mode mode, steps_end_cb *end)
{
	id->op_mode = mode;
	id->op.remotes = id->remotes;
	id->op.state_dir = id->state_dir;
	id->op.token = id->token;
	id->op.root = id->root;
	id->op.cert = id->cert;
	id->op.key = id->key;
	id->op.node_id = id->subject.node_id;
	id->op.cluster_id = id->subject.cluster_id;
	certop_run(&id->op, mode, end, id);
}

static void take_root(struct identity *id)
{
	if (!id->op.out.root)
		return;
	free(id->root);
	id->root = take(id->op.out.root);
}

static void on_joined(void *arg, const struct sw_err *end_err)
{
	struct identity *id = arg;
	struct sw_err err = SW_ERR_NONE;

	sw_err_copy(&err, end_err);
	take_root(id);
	if (!err.cls && id->op.out.cert)
		adopt_pair(id, take(id->op.out.cert), take(id->op.out.key), &err);
	else if (!err.cls) /* the pair on disk belongs to the root that was fetched */
		adopt_pair(id, take(id->cert), take(id->key), &err);
	if (!err.cls) {
		become_ready(id);
		return;
	}
	if (err.cls != SW_TEMPORARY) {
		fail(id, &err);
		return;
	}
	set_trouble(id, "joining the swarm", &err);
	sw_backoff_fail(&id->join_backoff);
	id->due_ns = sw_now(id->loop) + sw_backoff_delay(&id->join_backoff);
	rearm(id);
}

static void renewal_failed(struct identity *id, const struct sw_err *err)
{
	id->renew_failures++;
	id->due_ns = sw_now(id->loop) + renewal_delay(id->renew_failures);
	if (sw_wall_ns() / SW_NS_PER_S > (uint64_t)id->subject.not_after_s) {
		struct sw_err e = *err;

		sw_err_wrap(&e,
			"the node's certificate has expired, so managers accept it no longer; if "
			"this does "
			"not pass, empty %s/certificates and join again with a token (as a new "
			"node)",
			id->state_dir);
		set_trouble(id, "renewing the certificate", &e);
		return;
	}
	set_trouble(id, "renewing the certificate", err);
}

static void on_renewed(void *arg, const struct sw_err *end_err)
{
	struct identity *id = arg;
	struct sw_err err = SW_ERR_NONE;
	bool fresh = id->op.out.cert != NULL, new_root = id->op.out.root != NULL;

	sw_err_copy(&err, end_err);
	take_root(id);
	if (!err.cls && fresh)
		adopt_pair(id, take(id->op.out.cert), take(id->op.out.key), &err);
	else if (new_root)
		make_creds(id, &err);
	if (!err.cls && id->expect_worker && strcmp(id->subject.role, "swarm-worker") != 0)
		sw_err_set(&err, SW_TEMPORARY, -EAGAIN, "the new certificate has still role %s",
			id->subject.role);
	if (err.cls) {
		renewal_failed(id, &err);
	} else {
		log_notice("certificate renewed", KS("node", id->subject.node_id),
			KS("role", id->subject.role), KI("not_after", id->subject.not_after_s));
		id->renew_failures = 0;
		id->expect_worker = false;
		clear_trouble(id);
		/* a certificate whose window has passed already must not be renewed in a circle */
		if (id->renew_at_s <= (int64_t)(sw_wall_ns() / SW_NS_PER_S))
			id->renew_at_s = (int64_t)(sw_wall_ns() / SW_NS_PER_S) + 60;
	}
	rearm(id);
	if (fresh || new_root)
		tell_changed(id);
}

static void on_root_checked(void *arg, const struct sw_err *err)
{
	struct identity *id = arg;
	struct sw_err e = SW_ERR_NONE;
	bool changed = id->op.out.root && strcmp(id->op.out.root, id->root) != 0;

	id->check_root = false;
	if (err)
		set_trouble(id, "checking the swarm's root certificate", err);
	take_root(id);
	if (changed && make_creds(id, &e) < 0)
		set_trouble(id, "taking the swarm's root certificate", &e);
	if (changed) {
		log_notice("the swarm has a new root certificate, and ours belongs to it");
		identity_renew(id, "new root certificate");
		tell_changed(id);
	}
	if (!id->closing && id->listener.root_checked)
		id->listener.root_checked(id->listener_arg, changed);
	rearm(id);
}

/* Starts what is due, if nothing runs. */
static void on_timer(void *arg)
{
	struct identity *id = arg;
	int64_t wall = (int64_t)(sw_wall_ns() / SW_NS_PER_S);
	bool due = id->due_ns && sw_now(id->loop) >= id->due_ns;

	if (id->closing || certop_running(&id->op))
		return;
	if (id->state == JOINING) {
		id->due_ns = 0;
		run(id, CERTOP_JOIN, on_joined);
	} else if (id->state == READY && id->check_root) {
		run(id, CERTOP_ROOT, on_root_checked);
	} else if (id->state == READY && (due || (!id->due_ns && wall >= id->renew_at_s))) {
		/* who asks while it runs means another one */
		id->forced = false;
		id->due_ns = 0;
		run(id, CERTOP_RENEW, on_renewed);
	} else {
		rearm(id);
	}
}

static void rearm(struct identity *id)
{
	int64_t left = id->renew_at_s - (int64_t)(sw_wall_ns() / SW_NS_PER_S);

	sw_timer_stop(&id->timer);
	if (id->closing || certop_running(&id->op))
		return;
	if (id->state == READY && id->check_root)
		sw_timer_arm(&id->timer, 0);
	else if (id->state == JOINING || (id->state == READY && id->due_ns))
		sw_timer_arm_at(&id->timer, id->due_ns);
	else if (id->state == READY) /* at most an hour in one piece: wall clocks jump */
		sw_timer_arm(&id->timer, left <= 0     ? 0
					 : left > 3600 ? sw_s(3600)
						       : sw_s((uint64_t)left));
}

/* ---- asked for by managers */

void identity_renew(struct identity *id, const char *why)
{
	if (id->state != READY || id->closing)
		return;
	if (id->forced && id->due_ns)
		return; /* one covers all */
	log_info("certificate renewal requested", KS("why", why));
	id->forced = true;
	id->due_ns = sw_now(id->loop) + FORCED_PAUSE_NS;
	rearm(id);
}

void identity_expect_worker(struct identity *id)
{
	id->expect_worker = strcmp(id->subject.role, "swarm-worker") != 0;
	identity_renew(id, "role change");
}

void identity_check_root(struct identity *id)
{
	if (id->state != READY || id->closing)
		return;
	id->check_root = true;
	rearm(id);
}

struct root_save {
	struct identity *id;
	char *state_dir, *pem;
	struct root_save *again; /* a newer one came meanwhile */
	struct sw_err err;
};

static void root_save_run(void *arg)
{
	struct root_save *j = arg;

	files_save_root(j->state_dir, j->pem, strlen(j->pem), &j->err);
}

static void root_save_free(struct root_save *j)
{
	free(j->state_dir);
	free(j->pem);
	free(j);
}

static void on_root_written(void *arg, bool dropped);

static void root_save_start(struct identity *id, struct root_save *j)
{
	id->saving = j;
	sw_work(id->loop, root_save_run, on_root_written, j);
}

static void on_root_written(void *arg, bool dropped)
{
	struct root_save *j = arg, *again = j->again;
	struct identity *id = j->id;

	if (j->err.cls)
		log_err("the swarm's new root certificate could not be stored, it is used all the "
			"same",
			KERR(&j->err));
	(void)dropped;
	root_save_free(j);
	id->saving = NULL;
	if (again) /* in order, so that the newest one stays */
		root_save_start(id, again);
	else if (!id->closing)
		tell_changed(id);
	maybe_closed(id);
}

static void save_root(struct identity *id)
{
	struct root_save *j = xcalloc(1, sizeof(*j));

	j->id = id;
	j->state_dir = xstrdup(id->state_dir);
	j->pem = xstrdup(id->root);
	if (!id->saving) {
		root_save_start(id, j);
		return;
	}
	if (id->saving->again)
		root_save_free(id->saving->again);
	id->saving->again = j;
}

void identity_set_root(struct identity *id, const void *pem, size_t len)
{
	struct sw_err err = SW_ERR_NONE;
	char *root, *old;

	if (id->state != READY || id->closing || !len ||
		(len == strlen(id->root) && memcmp(pem, id->root, len) == 0))
		return;
	if (pki_check_roots(pem, len, &err) < 0) {
		log_err("the root certificate that a manager sends is refused, the old one stays",
			KERR(&err));
		return;
	}
	root = xstrndup(pem, len);
	if (tls_verify_chain(root, id->cert, 0, &err) < 0) {
		log_err("our certificate does not belong to the root certificate that a manager "
			"sends, the "
			"old one stays",
			KERR(&err));
		free(root);
		return;
	}
	old = id->root;
	id->root = root;
	if (make_creds(id, &err) < 0) {
		log_err("the new root certificate cannot be used, the old one stays", KERR(&err));
		id->root = old;
		free(root);
		return;
	}
	/* a running operation borrows the old text: it starts over with the new one */
	if (certop_running(&id->op) && id->op.root == old)
		id->op.root = id->root;
	free(old);
	log_notice("the swarm has a new root certificate");
	save_root(id);
}

/* ---- the rest of the door */

static int availability(const char *name, Pb__NodeSpec__Availability *ret, struct sw_err *err)
{
	static const struct {
		const char *name;
		Pb__NodeSpec__Availability value;
	} known[] = {
		{"active", PB__NODE_SPEC__AVAILABILITY__ACTIVE},
		{"pause", PB__NODE_SPEC__AVAILABILITY__PAUSE},
		{"drain", PB__NODE_SPEC__AVAILABILITY__DRAIN},
	};

	*ret = PB__NODE_SPEC__AVAILABILITY__ACTIVE;
	if (!name)
		return 0;
	for (size_t i = 0; i < SW_ARRAY_LEN(known); i++)
		if (strcmp(name, known[i].name) == 0) {
			*ret = known[i].value;
			return 0;
		}
	return sw_err_set(err, SW_REJECTED, -EINVAL,
		"availability \"%s\": expected active, pause or drain", name);
}

int identity_new(struct identity **ret, const struct identity_config *cfg,
	const struct identity_events *ev, void *arg, struct sw_err *err)
{
	Pb__NodeSpec__Availability a;
	struct identity *id;
	int r = availability(cfg->availability, &a, err);

	if (r < 0)
		return r;
	if (sw_str_empty(cfg->state_dir))
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "no state directory: give one with --state-dir");
	id = xcalloc(1, sizeof(*id));
	id->loop = cfg->loop;
	id->remotes = cfg->remotes;
	id->state_dir = xstrdup(cfg->state_dir);
	id->token = xstrdup(cfg->join_token);
	id->ev = *ev;
	id->arg = arg;
	id->join_backoff = (struct sw_backoff){.base_ns = sw_s(1), .factor = 2, .max_ns = sw_s(30)};
	certop_init(&id->op, id->loop);
	id->op.availability = a;
	sw_timer_init(&id->timer, id->loop, on_timer, id);
	*ret = id;
	return 0;
}

/* What identity_close() waits for: the operation, and whatever the pool reads or writes. */
static void maybe_closed(struct identity *id)
{
	void (*closed)(void *) = id->closed;
	void *closed_arg = id->closed_arg;

	if (!id->closing || !id->op_gone || id->load || id->saving)
		return;
	sw_timer_stop(&id->timer);
	tls_creds_unref(id->creds);
	tls_issuer_done(&id->issuer);
	pki_subject_done(&id->subject);
	free(id->root);
	free(id->cert);
	sw_wipe_str(id->key);
	sw_wipe_str(id->token);
	free(id->state_dir);
	free(id);
	if (closed)
		closed(closed_arg);
}

static void on_op_gone(void *arg)
{
	struct identity *id = arg;

	id->op_gone = true;
	maybe_closed(id);
}

void identity_close(struct identity *id, void (*closed)(void *arg), void *arg)
{
	if (id->closing)
		return;
	id->closing = true;
	id->closed = closed;
	id->closed_arg = arg;
	sw_timer_stop(&id->timer);
	certop_done(&id->op, on_op_gone, id);
}

const char *identity_node_id(const struct identity *id)
{
	return id->subject.node_id;
}

const char *identity_cluster_id(const struct identity *id)
{
	return id->subject.cluster_id;
}

const char *identity_role(const struct identity *id)
{
	return id->subject.role;
}

struct tls_creds *identity_creds(struct identity *id)
{
	return tls_creds_ref(id->creds);
}

void identity_tls_info(const struct identity *id, Pb__NodeTLSInfo *ret)
{
	ret->trust_root = (ProtobufCBinaryData){strlen(id->root), (uint8_t *)id->root};
	ret->cert_issuer_subject =
		(ProtobufCBinaryData){id->issuer.subject_len, id->issuer.subject};
	ret->cert_issuer_public_key =
		(ProtobufCBinaryData){id->issuer.public_key_len, id->issuer.public_key};
}

void identity_listen(struct identity *id, const struct identity_listener *l, void *arg)
{
	id->listener = l ? *l : (struct identity_listener){0};
	id->listener_arg = arg;
}

const char *identity_trouble(const struct identity *id)
{
	return id->trouble;
}
