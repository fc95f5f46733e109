/*  join:   [fetch root ->] make key -> issue -> poll -> store
 *  renew:  make key -> issue -> poll -> store, which may find the new certificate to be of a root
 *          that we do not know (a rotation ended while we were away): refetch root -> make key ...
 *  root:   refetch root
 * Facts: swarmkit ca/certificates.go; timing and answers as seen on Docker 20.10. */
#include "certop.h"
#include "files.h"
#include <errno.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/grpc.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <swarm/session.h>
#include <swarm/tls.h>

#define SERVICE_ROOT   "/docker.swarmkit.v1.CA/GetRootCACertificate"
#define SERVICE_ISSUE  "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate"
#define SERVICE_STATUS "/docker.swarmkit.v1.NodeCA/NodeCertificateStatus"

#define OBSERVATION 10
/* A renewal whose record somebody else overwrote would be polled for ever. */
#define RENEW_POLLS_MAX 20

enum { ROOT, KEY, ISSUE, POLL, STORE, REROOT };

static void start_root(struct steps *s);
static void start_key(struct steps *s);
static void start_issue(struct steps *s);
static void start_poll(struct steps *s);
static void start_store(struct steps *s);
static void start_reroot(struct steps *s);

static const struct step table[] = {
	/*            name            start         next      on error */
	[ROOT] = {"fetch-root", start_root, KEY, STEP_END},
	[KEY] = {"make-key", start_key, ISSUE, STEP_END},
	[ISSUE] = {"issue", start_issue, POLL, STEP_END},
	[POLL] = {"poll", start_poll, STORE, STEP_END},
	[STORE] = {"store", start_store, STEP_END, STEP_END},
	[REROOT] = {"refetch-root", start_reroot, KEY, STEP_END},
};

/* ---- helpers */

/* What certop_done() waits for: the connection and the pool. */
static void maybe_gone(struct certop *op)
{
	void (*gone)(void *) = op->gone;

	if (!gone || op->call || op->work || sw_timer_armed(&op->poll_timer))
		return;
	op->gone = NULL;
	gone(op->gone_arg);
}

static void on_maybe_gone(void *arg)
{
	maybe_gone(arg);
}

static void on_call_gone(void *arg)
{
	struct certop *op = arg;

	op->call = NULL;
	maybe_gone(op);
}

static void forget_request(struct certop *op)
{
	sw_wipe_str(take(op->pending.key));
	free(take(op->pending.csr));
	free(take(op->pending.node_id));
	free(take(op->pending.cert));
	op->pending.polls = 0;
}

static void forget_results(struct certop *op)
{
	free(take(op->out.root));
	free(take(op->out.cert));
	sw_wipe_str(take(op->out.key));
	op->out.pair_is_good = false;
}

static const char *root_in_force(const struct certop *op)
{
	return op->out.root ? op->out.root : op->root;
}

static int pick_manager(struct certop *op, struct sw_err *err)
{
	struct remote r;
	int rc = remotes_select(op->remotes, NULL, &r, err);

	if (rc < 0)
		return rc;
	free(op->manager_id);
	free(op->manager_addr);
	op->manager_id = xstrdup(r.node_id);
	op->manager_addr = xstrdup(r.addr);
	return 0;
}

static void observe(struct certop *op, bool good)
{
	remotes_observe_if_exists(
		op->remotes, op->manager_id, op->manager_addr, good ? OBSERVATION : -OBSERVATION);
}

static bool is_grpc(const struct sw_err *err, int code)
{
	return err && err->domain == SW_E_GRPC && err->code == code;
}

/* Managers come and go: whatever a call reports is worth another try, except where its caller knows
 * better. */
static void call_failed(struct certop *op, const struct sw_err *err, const char *what)
{
	struct sw_err e = *err;

	e.cls = SW_TEMPORARY;
	sw_err_wrap(&e, "%s at %s", what, op->manager_addr);
	steps_done(&op->steps, &e);
}

/* Managers that we cannot verify: our root may be older than theirs. Once per run. */
static bool reroot(struct certop *op, const struct sw_err *err)
{
	if (op->mode != CERTOP_RENEW || op->rerooted || err->domain != SW_E_TLS ||
		err->cls == SW_TEMPORARY)
		return false;
	op->rerooted = true;
	op->why_reroot = *err;
	steps_jump(&op->steps, REROOT);
	return true;
}

/* malloc'd text of at most PKI_PEM_MAX bytes, or NULL. */
static char *pem_text(const ProtobufCBinaryData *b)
{
	if (!b->len || b->len > PKI_PEM_MAX || memchr(b->data, 0, b->len))
		return NULL;
	return xstrndup((const char *)b->data, b->len);
}

/* Starts a call to the manager, or ends the step. */
static void start_call(struct certop *op, const struct tls_config *tls, const char *path,
	const ProtobufCMessage *req, const ProtobufCMessageDescriptor *resp, ca_call_cb *cb)
{
	struct tls_creds *creds = NULL;
	struct sw_err err = SW_ERR_NONE;

	if (tls_creds_new(&creds, tls, &err) < 0) {
		steps_done(&op->steps, &err);
		return;
	}
	op->call = ca_call(op->loop, op->manager_addr, creds, path, req, resp, cb, op);
	tls_creds_unref(creds);
}

/* ---- fetch-root, refetch-root: nothing about the peer is verified, the answer is judged instead
 */

static void fetch_root(struct certop *op, ca_call_cb *cb)
{
	Pb__GetRootCACertificateRequest req = PB__GET_ROOT_CACERTIFICATE_REQUEST__INIT;
	struct tls_config tls = {.name = "swarm-manager"};
	struct sw_err err = SW_ERR_NONE;

	if (pick_manager(op, &err) < 0) {
		steps_done(&op->steps, &err);
		return;
	}
	start_call(op, &tls, SERVICE_ROOT, &req.base,
		&pb__get_root_cacertificate_response__descriptor, cb);
}

struct root_job {
	struct certop *op;
	char *state_dir, *root, *cert, *key;
	bool check_token, must_fit;
	struct join_token token;
	bool pair_fits;
	struct sw_err err;
};

static void root_job_free(struct root_job *j)
{
	free(j->state_dir);
	free(j->root);
	free(j->cert);
	sw_wipe_str(j->key);
	free(j);
}

static void root_run(void *arg)
{
	struct root_job *j = arg;
	size_t len = strlen(j->root);

	if (j->check_token && join_token_check(&j->token, j->root, len, &j->err) < 0)
		return;
	if (pki_check_roots(j->root, len, &j->err) < 0)
		return;
	j->pair_fits = j->cert && j->key && tls_verify_chain(j->root, j->cert, 0, NULL) >= 0;
	if (j->must_fit && tls_verify_chain(j->root, j->cert, 0, &j->err) < 0) {
		sw_err_wrap(&j->err,
			"our certificate does not belong to the root that the manager offers");
		return;
	}
	if (files_save_root(j->state_dir, j->root, len, &j->err) < 0)
		j->err.cls = SW_TEMPORARY; /* a full disk passes */
}

static void root_job(struct certop *op, const ProtobufCMessage *resp, bool join, sw_work_done *done)
{
	const Pb__GetRootCACertificateResponse *m = (const void *)resp;
	struct root_job *j;
	struct sw_err err = SW_ERR_NONE;
	char *root = pem_text(&m->certificate);

	if (!root) {
		sw_err_set(&err, SW_TEMPORARY, -EBADMSG,
			"%s answers with a root certificate of %zu bytes that is no PEM text",
			op->manager_addr, m->certificate.len);
		observe(op, false);
		steps_done(&op->steps, &err);
		return;
	}
	j = xcalloc(1, sizeof(*j));
	j->op = op;
	j->state_dir = xstrdup(op->state_dir);
	j->root = root;
	j->cert = xstrdup(op->cert);
	j->key = xstrdup(op->key);
	j->must_fit = !join;
	if (join) {
		j->check_token = true;
		/* was parsed before the first connection */
		if (join_token_parse(op->token, &j->token, &err) < 0) {
			root_job_free(j);
			steps_done(&op->steps, &err);
			return;
		}
	}
	op->work = sw_work(op->loop, root_run, done, j);
}

static void on_root_saved(void *arg, bool dropped)
{
	struct root_job *j = arg;
	struct certop *op = j->op;

	(void)dropped; /* never: who closes waits for it */
	op->work = NULL;
	if (op->gone) {
		root_job_free(j);
		maybe_gone(op);
		return;
	}
	if (j->err.cls) {
		observe(op, false);
		sw_err_wrap(&j->err, "root certificate from %s", op->manager_addr);
		steps_done(&op->steps, &j->err);
	} else {
		if (op->mode == CERTOP_JOIN) /* else nothing vouches for who answered */
			observe(op, true);
		free(op->out.root);
		op->out.root = take(j->root);
		op->out.pair_is_good = j->pair_fits;
		if (op->mode == CERTOP_ROOT || (op->mode == CERTOP_JOIN && j->pair_fits))
			steps_jump(&op->steps, STEP_END);
		else
			steps_done(&op->steps, NULL);
	}
	root_job_free(j);
}

static void on_root(void *arg, const ProtobufCMessage *resp, const struct sw_err *err)
{
	struct certop *op = arg;

	op->call = NULL;
	if (err) {
		observe(op, false);
		call_failed(op, err, "fetching the root certificate");
		return;
	}
	root_job(op, resp, op->mode == CERTOP_JOIN, on_root_saved);
}

static void start_root(struct steps *s)
{
	fetch_root(steps_arg(s), on_root);
}

/* ---- make-key */

struct key_job {
	struct certop *op;
	char *key, *csr;
	struct sw_err err;
};

static void key_run(void *arg)
{
	struct key_job *j = arg;

	pki_new_request(&j->key, &j->csr, &j->err);
}

static void on_key(void *arg, bool dropped)
{
	struct key_job *j = arg;
	struct certop *op = j->op;

	(void)dropped;
	op->work = NULL;
	if (op->gone) {
		sw_wipe_str(j->key);
		free(j->csr);
		free(j);
		maybe_gone(op);
		return;
	}
	op->pending.key = j->key;
	op->pending.csr = j->csr;
	steps_done(&op->steps, &j->err);
	free(j);
}

static void start_key(struct steps *s)
{
	struct certop *op = steps_arg(s);
	struct key_job *j;

	if (op->pending.node_id) { /* a request of an earlier run is under way */
		steps_jump(s, POLL);
		return;
	}
	if (op->pending.key) { /* made, but no manager took it yet */
		steps_done(s, NULL);
		return;
	}
	j = xcalloc(1, sizeof(*j));
	j->op = op;
	op->work = sw_work(op->loop, key_run, on_key, j);
}

/* ---- issue */

static void issue_refused(struct certop *op, const struct sw_err *err)
{
	struct sw_err e = SW_ERR_NONE;

	if (op->mode == CERTOP_JOIN && is_grpc(err, GRPC_INVALID_ARGUMENT)) {
		e = *err;
		e.cls = SW_REJECTED;
		sw_err_wrap(&e,
			"the manager at %s does not accept the join token (it was rotated, or is "
			"of "
			"another swarm): get the present one with \"docker swarm join-token "
			"worker\"",
			op->manager_addr);
		steps_done(&op->steps, &e);
		return;
	}
	if (reroot(op, err))
		return;
	observe(op, false);
	call_failed(op, err, "requesting a certificate");
}

static void on_issued(void *arg, const ProtobufCMessage *resp, const struct sw_err *err)
{
	struct certop *op = arg;
	const Pb__IssueNodeCertificateResponse *m = (const void *)resp;

	op->call = NULL;
	if (err) {
		issue_refused(op, err);
		return;
	}
	if (!api_id_valid(m->node_id)) {
		struct sw_err e;

		observe(op, false);
		sw_err_set(&e, SW_TEMPORARY, -EBADMSG, "%s names a node id that is none",
			op->manager_addr);
		steps_done(&op->steps, &e);
		return;
	}
	op->pending.node_id = xstrdup(m->node_id);
	op->pending.polls = 0;
	log_info("certificate requested", KS("node", m->node_id), KS("manager", op->manager_addr));
	steps_done(&op->steps, NULL);
}

static void call_ca(struct certop *op, const char *path, const ProtobufCMessage *req,
	const ProtobufCMessageDescriptor *resp, ca_call_cb *cb)
{
	/* the first certificate is asked for without one, from whoever the root vouches for */
	bool join = op->mode == CERTOP_JOIN;
	struct tls_config tls = {
		.roots_pem = root_in_force(op),
		.cert_pem = join ? NULL : op->cert,
		.key_pem = join ? NULL : op->key,
		.name = join ? "swarm-ca" : "swarm-manager",
	};

	start_call(op, &tls, path, req, resp, cb);
}

static void start_issue(struct steps *s)
{
	struct certop *op = steps_arg(s);
	Pb__IssueNodeCertificateRequest req = PB__ISSUE_NODE_CERTIFICATE_REQUEST__INIT;
	struct sw_err err = SW_ERR_NONE;

	if (pick_manager(op, &err) < 0) {
		steps_done(s, &err);
		return;
	}
	req.csr.data = (uint8_t *)op->pending.csr;
	req.csr.len = strlen(op->pending.csr);
	if (op->mode == CERTOP_JOIN) {
		req.token = (char *)op->token;
		req.availability = op->availability;
	}
	call_ca(op, SERVICE_ISSUE, &req.base, &pb__issue_node_certificate_response__descriptor,
		on_issued);
}

/* ---- poll */

static void poll_again(struct certop *op)
{
	unsigned n = ++op->pending.polls;
	uint64_t bound = n > 5 ? sw_s(30) : sw_s(1) + (sw_s(1) << (n - 1));
	struct sw_err e;

	if (op->mode == CERTOP_RENEW && n > RENEW_POLLS_MAX) {
		forget_request(op);
		sw_err_set(&e, SW_TEMPORARY, -ETIMEDOUT,
			"%s does not issue the certificate asked for", op->manager_addr);
		steps_done(&op->steps, &e);
		return;
	}
	sw_timer_arm(&op->poll_timer, sw_random(bound < sw_s(30) ? bound : sw_s(30)));
}

static void poll_failed(struct certop *op, const struct sw_err *err)
{
	if (is_grpc(err, GRPC_DEADLINE_EXCEEDED)) { /* a long poll, nothing new */
		poll_again(op);
		return;
	}
	if (reroot(op, err))
		return;
	if (is_grpc(err, GRPC_NOT_FOUND)) /* the node object was removed meanwhile: start over */
		forget_request(op);
	observe(op, false);
	call_failed(op, err, "waiting for the certificate");
}

/* Only the answer tells that a token was a manager's: both kinds carry the same digest. */
static void manager_token(struct certop *op)
{
	struct sw_err e;

	sw_err_set(&e, SW_REJECTED, -EPERM,
		"the join token is a manager's, and this program is only a worker: use the one "
		"that "
		"\"docker swarm join-token worker\" prints. The manager has already made node %s "
		"for it, "
		"which will never come up: remove it with \"docker node rm --force %s\"",
		op->pending.node_id, op->pending.node_id);
	forget_request(op);
	steps_done(&op->steps, &e);
}

static void certificate_failed(struct certop *op, const char *why)
{
	struct sw_err e;

	sw_err_set(&e, SW_TEMPORARY, -EIO,
		"the swarm's CA could not issue the certificate of node %s: %s",
		op->pending.node_id, *why ? why : "no reason given");
	forget_request(op); /* another key, another request */
	steps_done(&op->steps, &e);
}

static void on_status(void *arg, const ProtobufCMessage *resp, const struct sw_err *err)
{
	struct certop *op = arg;
	const Pb__NodeCertificateStatusResponse *m = (const void *)resp;
	const Pb__Certificate *c;
	int state;

	op->call = NULL;
	if (err) {
		poll_failed(op, err);
		return;
	}
	c = m->certificate;
	state = m->status ? (int)m->status->state : PB__ISSUANCE_STATUS__STATE__UNKNOWN;
	if (!c || c->csr.len != strlen(op->pending.csr) ||
		memcmp(c->csr.data, op->pending.csr, c->csr.len) != 0) {
		log_debug("certificate record answers another request",
			KS("node", op->pending.node_id));
		poll_again(op);
		return;
	}
	if (op->mode == CERTOP_JOIN && c->role == PB__NODE_ROLE__MANAGER) {
		manager_token(op);
		return;
	}
	switch (state) {
	case PB__ISSUANCE_STATUS__STATE__ISSUED:
	case PB__ISSUANCE_STATUS__STATE__ROTATE:
		break;
	case PB__ISSUANCE_STATUS__STATE__FAILED:
		certificate_failed(op, m->status->err);
		return;
	default:
		poll_again(op);
		return;
	}
	free(op->pending.cert);
	op->pending.cert = pem_text(&c->certificate);
	if (!op->pending.cert) {
		certificate_failed(op, "it is no PEM text");
		return;
	}
	observe(op, true);
	steps_done(&op->steps, NULL);
}

static void poll_now(void *arg)
{
	struct certop *op = arg;
	Pb__NodeCertificateStatusRequest req = PB__NODE_CERTIFICATE_STATUS_REQUEST__INIT;

	req.node_id = op->pending.node_id;
	call_ca(op, SERVICE_STATUS, &req.base, &pb__node_certificate_status_response__descriptor,
		on_status);
}

static void start_poll(struct steps *s)
{
	struct certop *op = steps_arg(s);
	struct sw_err err = SW_ERR_NONE;

	/* a run that goes on with an older request has no manager yet, or one that failed */
	if (!op->manager_addr && pick_manager(op, &err) < 0) {
		steps_done(s, &err);
		return;
	}
	poll_now(op);
}

/* ---- store */

struct store_job {
	struct certop *op;
	char *state_dir, *root, *cert, *key, *node_id, *cluster_id;
	bool first;
	bool unknown_root, is_manager;
	struct sw_err err;
};

static void store_job_free(struct store_job *j)
{
	free(j->state_dir);
	free(j->root);
	free(j->cert);
	sw_wipe_str(j->key);
	free(j->node_id);
	free(j->cluster_id);
	free(j);
}

static void store_run(void *arg)
{
	struct store_job *j = arg;
	struct pki_subject s;

	if (pki_subject(j->cert, &s, &j->err) < 0 || pki_key_matches(j->key, j->cert, &j->err) < 0)
		return;
	if (strcmp(s.node_id, j->node_id) != 0)
		sw_err_set(&j->err, SW_FATAL, -EBADMSG,
			"the certificate is one of node %s, not of %s", s.node_id, j->node_id);
	else if (j->cluster_id && strcmp(s.cluster_id, j->cluster_id) != 0)
		sw_err_set(&j->err, SW_FATAL, -EBADMSG,
			"the certificate is one of cluster %s, not of %s", s.cluster_id,
			j->cluster_id);
	else if (sw_starts_with(s.cluster_id, "FIPS."))
		sw_err_set(&j->err, SW_FATAL, -EPERM,
			"node is not FIPS-enabled but cluster requires FIPS");
	else if (j->first && strcmp(s.role, "swarm-worker") != 0)
		j->is_manager = true;
	else if (tls_verify_chain(j->root, j->cert, 0, &j->err) < 0)
		j->unknown_root = strcmp(s.role, "swarm-worker") == 0;
	else if (files_save_pair(j->state_dir, j->cert, j->key, &j->err) < 0)
		j->err.cls = SW_TEMPORARY; /* a full disk passes; the request is kept */
	pki_subject_done(&s);
}

static void stored(struct certop *op, struct store_job *j)
{
	if (j->is_manager) {
		manager_token(op);
		return;
	}
	if (op->mode == CERTOP_RENEW && j->unknown_root && !op->rerooted) {
		op->rerooted = true;
		op->why_reroot = j->err;
		forget_request(op);
		steps_jump(&op->steps, REROOT);
		return;
	}
	if (j->err.cls) {
		if (j->err.cls != SW_TEMPORARY)
			forget_request(op);
		sw_err_wrap(&j->err, "certificate from %s", op->manager_addr);
		steps_done(&op->steps, &j->err);
		return;
	}
	op->out.cert = take(j->cert);
	op->out.key = take(j->key);
	forget_request(op);
	steps_done(&op->steps, NULL);
}

static void on_stored(void *arg, bool dropped)
{
	struct store_job *j = arg;
	struct certop *op = j->op;

	(void)dropped;
	op->work = NULL;
	if (!op->gone)
		stored(op, j);
	store_job_free(j);
	maybe_gone(op);
}

static void start_store(struct steps *s)
{
	struct certop *op = steps_arg(s);
	struct store_job *j = xcalloc(1, sizeof(*j));

	j->op = op;
	j->state_dir = xstrdup(op->state_dir);
	j->root = xstrdup(root_in_force(op));
	j->cert = xstrdup(op->pending.cert);
	j->key = xstrdup(op->pending.key);
	j->node_id = xstrdup(op->mode == CERTOP_RENEW ? op->node_id : op->pending.node_id);
	j->cluster_id = op->mode == CERTOP_RENEW ? xstrdup(op->cluster_id) : NULL;
	j->first = op->mode == CERTOP_JOIN;
	op->work = sw_work(op->loop, store_run, on_stored, j);
}

/* ---- refetch-root: accepted only if our present certificate belongs to it, which proves that it
 * is the same swarm */

static void on_reroot(void *arg, const ProtobufCMessage *resp, const struct sw_err *err)
{
	struct certop *op = arg;

	op->call = NULL;
	if (err) {
		observe(op, false);
		call_failed(op, err, "fetching the root certificate");
		return;
	}
	root_job(op, resp, false, on_root_saved);
}

static void start_reroot(struct steps *s)
{
	fetch_root(steps_arg(s), on_reroot);
}

/* ---- the door */

static void on_end(void *arg, const struct sw_err *err)
{
	struct certop *op = arg;

	/* the original error stands when no better root was to be had */
	if (err && op->rerooted && op->why_reroot.cls) {
		op->why_reroot.cls = SW_TEMPORARY;
		err = &op->why_reroot;
	}
	op->end(op->end_arg, err);
}

void certop_init(struct certop *op, struct sw_loop *l)
{
	*op = (struct certop){.loop = l};
	sw_timer_init(&op->poll_timer, l, poll_now, op);
	steps_init(&op->steps, l, "certificate", "node", table, op);
}

void certop_run(struct certop *op, enum certop_mode mode, steps_end_cb *end, void *arg)
{
	static const int first[] = {
		[CERTOP_JOIN] = KEY, [CERTOP_RENEW] = KEY, [CERTOP_ROOT] = REROOT};

	op->mode = mode;
	op->end = end;
	op->end_arg = arg;
	op->rerooted = false;
	op->why_reroot = SW_ERR_NONE;
	forget_results(op);
	/* another manager than the one that failed may be asked */
	free(take(op->manager_id));
	free(take(op->manager_addr));
	steps_run(&op->steps, mode == CERTOP_JOIN && !op->root ? ROOT : first[mode], 0, on_end);
}

void certop_done(struct certop *op, void (*gone)(void *arg), void *arg)
{
	steps_kill(&op->steps);
	sw_timer_stop(&op->poll_timer);
	forget_request(op);
	forget_results(op);
	free(take(op->manager_id));
	free(take(op->manager_addr));
	op->gone = gone;
	op->gone_arg = arg;
	/* what the pool writes gets finished: whoever comes next must not meet half of it */
	ca_call_cancel(op->call, on_call_gone, op);
	sw_timer_init(&op->poll_timer, op->loop, on_maybe_gone, op);
	sw_timer_arm(&op->poll_timer, 0);
}

const char *certop_manager(const struct certop *op)
{
	return op->manager_addr ? op->manager_addr : "";
}
