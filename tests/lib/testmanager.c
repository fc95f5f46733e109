/* The test manager's frame: addresses, routing of calls through the faults, the certificate
 * authority. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/sha.h>

#include "tm_priv.h"

static const struct {
	const char *path;
	tm_handle *handle;
} methods[TM_N_METHODS] = {
	[TM_ROOT] = {"/docker.swarmkit.v1.CA/GetRootCACertificate", tm_on_root},
	[TM_ISSUE] = {"/docker.swarmkit.v1.NodeCA/IssueNodeCertificate", tm_on_issue},
	[TM_CERT_STATUS] = {"/docker.swarmkit.v1.NodeCA/NodeCertificateStatus", tm_on_cert_status},
	[TM_SESSION] = {"/docker.swarmkit.v1.Dispatcher/Session", tm_on_session},
	[TM_HEARTBEAT] = {"/docker.swarmkit.v1.Dispatcher/Heartbeat", tm_on_heartbeat},
	[TM_UPDATE_STATUS] = {"/docker.swarmkit.v1.Dispatcher/UpdateTaskStatus",
		tm_on_update_status},
	[TM_ASSIGNMENTS] = {"/docker.swarmkit.v1.Dispatcher/Assignments", tm_on_assignments},
	[TM_LISTEN] = {"/docker.swarmkit.v1.LogBroker/ListenSubscriptions", tm_on_listen},
	[TM_PUBLISH] = {"/docker.swarmkit.v1.LogBroker/PublishLogs", tm_on_publish},
};

void tm_new_id(char id[26])
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	unsigned char r[25];

	if (getrandom(r, sizeof(r), 0) != sizeof(r))
		abort();
	for (int i = 0; i < 25; i++)
		id[i] = digits[r[i] % 36];
	id[25] = 0;
}

void tm_send(struct h2s_stream *st, const ProtobufCMessage *m)
{
	size_t len;
	uint8_t *data = api_pack(m, &len);

	h2s_send(st, data, len);
	free(data);
}

void tm_reply(struct h2s_stream *st, const ProtobufCMessage *m)
{
	tm_send(st, m);
	h2s_end(st, OK, NULL);
}

/* ---- routing */

static int method_of(const struct h2s_stream *st)
{
	for (int i = 0; i < TM_N_METHODS; i++)
		if (strcmp(h2s_path(st), methods[i].path) == 0)
			return i;
	abort();
}

static void delay_free(struct tdelay *d)
{
	sw_timer_stop(&d->timer);
	LIST_REMOVE(d, entry);
	free(d->msg);
	free(d);
}

static void on_delay(void *arg)
{
	struct tdelay *d = arg;

	methods[d->method].handle(d->mgr, d->st, d->msg, d->len);
	delay_free(d);
}

static void delay(struct tmgr *mgr, enum tm_method method, struct h2s_stream *st,
	const uint8_t *msg, size_t len, uint64_t ns)
{
	struct tdelay *d = xcalloc(1, sizeof(*d));
	struct tdelay *o;

	LIST_FOREACH(o, &mgr->m->delays, entry) /* at most one status call at a time */
	if (method == TM_UPDATE_STATUS && o->method == method)
		mgr->m->report_faults++;
	*d = (struct tdelay){.m = mgr->m, .mgr = mgr, .method = method, .st = st, .len = len};
	d->msg = xcalloc(len + 1, 1);
	memcpy(d->msg, msg, len);
	sw_timer_init(&d->timer, mgr->m->loop, on_delay, d);
	sw_timer_arm(&d->timer, ns);
	LIST_INSERT_HEAD(&mgr->m->delays, d, entry);
}

static void on_message(void *arg, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	struct tmgr *mgr = arg;
	struct testmanager *m = mgr->m;
	enum tm_method method = (enum tm_method)method_of(st);
	struct tfault *f = &m->faults[method];

	if (m->closing)
		return;
	if (method == TM_PUBLISH && h2s_user(st)) { /* not the first one of its stream */
		methods[method].handle(mgr, st, msg, len);
		return;
	}
	m->calls[method]++;
	if (!f->spec.n) {
		methods[method].handle(mgr, st, msg, len);
		return;
	}
	if (f->spec.n != UINT32_MAX)
		f->spec.n--;
	switch (f->spec.fault) {
	case TM_ERROR:
		h2s_end(st, f->spec.code, f->text);
		break;
	case TM_HANG:
		break;
	case TM_CUT:
		h2s_conn_drop(h2s_conn_of(st));
		break;
	case TM_GARBAGE:
		h2s_send(st, "\xff\xff\xff\xff", 4);
		if (method < TM_SESSION || method == TM_HEARTBEAT || method == TM_UPDATE_STATUS)
			h2s_end(st, OK, NULL);
		break;
	case TM_EOF:
		h2s_end(st, OK, NULL);
		break;
	case TM_DELAY:
		delay(mgr, method, st, msg, len, f->spec.delay_ns);
		break;
	case TM_LATE_ERROR:
		methods[method].handle(mgr, st, msg, len);
		h2s_end(st, f->spec.code, f->text);
		break;
	}
}

static void on_end(void *arg, struct h2s_stream *st)
{
	struct tmgr *mgr = arg;

	if (method_of(st) == TM_PUBLISH && !mgr->m->closing)
		tm_publish_end(mgr->m, st);
}

static void on_closed(void *arg, struct h2s_stream *st, uint32_t code)
{
	struct testmanager *m = ((struct tmgr *)arg)->m;
	struct tdelay *d, *tmp;
	int method = method_of(st);

	(void)code;
	for (d = LIST_FIRST(&m->delays); d; d = tmp) {
		tmp = LIST_NEXT(d, entry);
		if (d->st == st)
			delay_free(d);
	}
	if (method == TM_PUBLISH) {
		tm_publish_closed(m, st);
	} else if (h2s_user(st)) {
		struct tstream *s = h2s_user(st);

		LIST_REMOVE(s, entry);
		free(s);
	}
}

void tm_inject(struct testmanager *m, enum tm_method method, const struct tm_fault_spec *f)
{
	m->faults[method].spec = *f;
	snprintf(m->faults[method].text, sizeof(m->faults[method].text), "%s",
		f->text ? f->text : "");
}

void tm_heal(struct testmanager *m, enum tm_method method)
{
	m->faults[method].spec.n = 0;
}

unsigned tm_calls(const struct testmanager *m, enum tm_method method)
{
	return m->calls[method];
}

/* ---- managers */

static char *chain(struct testmanager *m, const char *cn, char **key)
{
	struct testca *ca = m->next_ca ? m->next_ca : m->ca;
	char *leaf = testca_manager(ca, m->cluster_id, cn, key), *all;

	if (!m->next_ca)
		return leaf;
	all = testca_concat(leaf, m->cross);
	free(leaf);
	return all;
}

void tm_configure(struct tmgr *mgr)
{
	struct testmanager *m = mgr->m;
	char *key, *cert = chain(m, mgr->id, &key), *trust;
	struct h2s_config cfg = {.cert_pem = cert, .key_pem = key};

	/* both roots of a rotation: certificates of either issuer are good */
	trust = m->next_ca ? testca_concat(testca_pem(m->ca), testca_pem(m->next_ca))
			   : xstrdup(testca_pem(m->ca));
	cfg.client_ca_pem = trust;
	cfg.alpn = mgr->silent ? H2S_ALPN_SILENT : H2S_ALPN_H2;
	h2server_configure(mgr->srv, &cfg);
	free(cert);
	free(key);
	free(trust);
}

static int start_manager(struct testmanager *m, unsigned no, const char *listen)
{
	struct tmgr *mgr = &m->mgr[no];
	struct h2s_handler h = {.message = on_message, .end = on_end, .closed = on_closed};
	char *key, *cert;
	struct h2s_config cfg = {.client_ca_pem = testca_pem(m->ca), .listen = listen};
	int r;

	mgr->m = m;
	mgr->no = no;
	tm_new_id(mgr->id);
	cert = chain(m, mgr->id, &key);
	cfg.cert_pem = cert;
	cfg.key_pem = key;
	r = h2server_new(&mgr->srv, m->loop, &cfg);
	free(cert);
	free(key);
	if (r < 0)
		return r;
	for (int i = 0; i < TM_N_METHODS; i++)
		h2server_handle(mgr->srv, methods[i].path, &h, mgr);
	m->n_mgr = no + 1;
	return 0;
}

void tm_silent_alpn(struct testmanager *m, unsigned manager, bool on)
{
	m->mgr[manager].silent = on;
	tm_configure(&m->mgr[manager]);
}

void tm_manager_stop(struct testmanager *m, unsigned manager)
{
	struct tnode *n;
	struct tstream *s, *next;
	static const struct {
		int code;
		const char *text;
	} ends[TM_N_METHODS] = {
		[TM_SESSION] = {ABORTED, "node must disconnect"},
		[TM_ASSIGNMENTS] = {UNKNOWN, "context canceled"},
		[TM_LISTEN] = {OK, NULL},
	};

	h2server_listen(m->mgr[manager].srv, false);
	m->mgr[manager].stopped = true;
	LIST_FOREACH(n, &m->nodes, entry)
	for (s = LIST_FIRST(&n->streams); s; s = next) {
		next = LIST_NEXT(s, entry);
		if (s->manager == manager)
			h2s_end(s->st, ends[s->method].code, ends[s->method].text);
	}
	/* real ones close the connection then; the client does so too */
}

void tm_manager_start(struct testmanager *m, unsigned manager)
{
	m->mgr[manager].stopped = false;
	h2server_listen(m->mgr[manager].srv, true);
}

const char *tm_addr(const struct testmanager *m, unsigned manager)
{
	return h2server_addr(m->mgr[manager].srv);
}

struct h2server *tm_server(struct testmanager *m, unsigned manager)
{
	return m->mgr[manager].srv;
}

const char *tm_manager_id(const struct testmanager *m, unsigned manager)
{
	return m->mgr[manager].id;
}

const char *tm_cluster_id(const struct testmanager *m)
{
	return m->cluster_id;
}

/* ---- the CA */

/* Big-endian number of @n bytes in base 36, exactly @chars digits. */
static void base36(const uint8_t *in, size_t n, char *out, int chars)
{
	uint8_t num[32];

	memcpy(num, in, n);
	out[chars] = 0;
	for (int i = chars - 1; i >= 0; i--) {
		unsigned rest = 0;

		for (size_t b = 0; b < n; b++) {
			unsigned v = rest << 8 | num[b];

			num[b] = (uint8_t)(v / 36);
			rest = v % 36;
		}
		out[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[rest];
	}
}

static void make_tokens(struct testmanager *m)
{
	uint8_t digest[32], secret[16];
	char d[51], s[26];
	const char *root = tm_root(m);

	SHA256((const uint8_t *)root, strlen(root), digest);
	base36(digest, 32, d, 50);
	for (int role = 0; role < 2; role++) {
		if (getrandom(secret, sizeof(secret), 0) != sizeof(secret))
			abort();
		base36(secret, 16, s, 25);
		free(m->tokens[role]);
		m->tokens[role] = xasprintf("SWMTKN-1-%s-%s", d, s);
	}
}

const char *tm_root(const struct testmanager *m)
{
	return testca_pem(m->ca);
}

const char *tm_token(const struct testmanager *m, int role)
{
	return m->tokens[role];
}

void tm_on_root(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	Pb__GetRootCACertificateResponse r = PB__GET_ROOT_CACERTIFICATE_RESPONSE__INIT;
	const char *root = mgr->m->wrong_root ? mgr->m->wrong_root : tm_root(mgr->m);

	(void)msg;
	(void)len;
	r.certificate.data = (uint8_t *)root;
	r.certificate.len = strlen(root);
	tm_reply(st, &r.base);
}

static void sign(struct testmanager *m, struct tnode *n)
{
	struct testca *ca = m->next_ca ? m->next_ca : m->ca;
	const char *role = n->role == PB__NODE_ROLE__MANAGER ? "swarm-manager" : "swarm-worker";
	char org[40];
	struct testca_leaf leaf = {
		.o = org,
		.ou = role,
		.cn = n->id,
		.san = {role, n->id, n->role == PB__NODE_ROLE__MANAGER ? "swarm-ca" : NULL},
		.not_before_s = m->not_before_s,
		.not_after_s = m->not_after_s,
	};
	char *cert;

	snprintf(org, sizeof(org), "%s%s", m->fips ? "FIPS." : "", m->cluster_id);
	free(take(n->issue_err));
	cert = m->issue_fails ? NULL : testca_sign_csr(ca, n->csr, &leaf);
	if (m->issue_fails)
		m->issue_fails--;
	if (!cert) {
		n->cert_state = PB__ISSUANCE_STATUS__STATE__FAILED;
		n->issue_err = xstrdup("failed to sign node certificate: "
				       "{\"code\":9002,\"message\":\"CSR Decode failed\"}");
		return;
	}
	free(n->cert);
	n->cert = m->next_ca ? testca_concat(cert, m->cross) : xstrdup(cert);
	free(cert);
	n->cert_state = PB__ISSUANCE_STATUS__STATE__ISSUED;
}

static void issue_reply(struct h2s_stream *st, struct tnode *n)
{
	Pb__IssueNodeCertificateResponse r = PB__ISSUE_NODE_CERTIFICATE_RESPONSE__INIT;

	r.node_id = n->id;
	r.node_membership = PB__NODE_SPEC__MEMBERSHIP__ACCEPTED;
	tm_reply(st, &r.base);
}

static void take_csr(
	struct testmanager *m, struct tnode *n, const Pb__IssueNodeCertificateRequest *req)
{
	free(n->csr);
	n->csr = xstrndup((char *)req->csr.data, req->csr.len);
	n->version++;
	sign(m, n);
}

/* New nodes and renewals. */
static void issue(
	struct tmgr *mgr, struct h2s_stream *st, const Pb__IssueNodeCertificateRequest *req)
{
	static const char denied[] = "A valid join token is necessary to join this cluster";
	struct testmanager *m = mgr->m;
	const char *cn = h2s_peer(st, "CN");
	struct tnode *n = cn ? tm_find_node(m, cn) : NULL;
	int role = -1;

	if (!req->csr.len) {
		h2s_end(st, INVALID, "InvalidArgument");
		return;
	}
	if (n && !n->removed) {
		take_csr(m, n, req);
		issue_reply(st, n);
		tm_node_push(n);
		return;
	}
	for (int i = 0; i < 2; i++)
		if (strcmp(req->token, m->tokens[i]) == 0)
			role = i;
	if (role < 0) {
		h2s_end(st, INVALID, denied);
		return;
	}
	n = xcalloc(1, sizeof(*n));
	n->m = m;
	tm_new_id(n->id);
	n->role = n->desired_role = role;
	n->availability = (int)req->availability;
	LIST_INIT(&n->streams);
	LIST_INSERT_HEAD(&m->nodes, n, entry);
	take_csr(m, n, req);
	issue_reply(st, n);
}

void tm_on_issue(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	Pb__IssueNodeCertificateRequest *req = (Pb__IssueNodeCertificateRequest *)api_unpack(
		&pb__issue_node_certificate_request__descriptor, msg, len, NULL);

	if (req)
		issue(mgr, st, req);
	else
		h2s_end(st, 13, "grpc: error unmarshalling request");
	api_free(req);
}

static void status_reply(struct testmanager *m, struct h2s_stream *st, struct tnode *n)
{
	Pb__NodeCertificateStatusResponse r = PB__NODE_CERTIFICATE_STATUS_RESPONSE__INIT;
	Pb__Certificate c = PB__CERTIFICATE__INIT;
	Pb__IssuanceStatus s = PB__ISSUANCE_STATUS__INIT;
	static char other[] = "-----BEGIN CERTIFICATE REQUEST-----\n";

	s.state = (Pb__IssuanceStatus__State)n->cert_state;
	s.err = n->issue_err ? n->issue_err : (char *)"";
	c.role = (Pb__NodeRole)n->role;
	c.csr = (ProtobufCBinaryData){strlen(n->csr), (uint8_t *)n->csr};
	c.certificate = (ProtobufCBinaryData){n->cert ? strlen(n->cert) : 0, (uint8_t *)n->cert};
	c.cn = n->id;
	if (m->foreign_csr) {
		m->foreign_csr--;
		c.csr = (ProtobufCBinaryData){strlen(other), (uint8_t *)other};
	}
	if (m->pending) {
		m->pending--;
		s.state = PB__ISSUANCE_STATUS__STATE__PENDING;
		c.certificate.len = 0;
	}
	c.status = &s;
	r.status = &s;
	r.certificate = &c;
	tm_reply(st, &r.base);
}

void tm_on_cert_status(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	Pb__NodeCertificateStatusRequest *req = (Pb__NodeCertificateStatusRequest *)api_unpack(
		&pb__node_certificate_status_request__descriptor, msg, len, NULL);
	struct tnode *n = req ? tm_find_node(mgr->m, req->node_id) : NULL;

	if (n)
		status_reply(mgr->m, st, n);
	else
		h2s_end(st, NOT_FOUND, "NotFound");
	api_free(req);
}

void tm_foreign_csr(struct testmanager *m, unsigned n)
{
	m->foreign_csr = n;
}

void tm_pending(struct testmanager *m, unsigned n)
{
	m->pending = n;
}

void tm_issue_fails(struct testmanager *m, unsigned n)
{
	m->issue_fails = n;
}

void tm_validity(struct testmanager *m, long not_before_s, long not_after_s)
{
	m->not_before_s = not_before_s;
	m->not_after_s = not_after_s;
}

void tm_fips(struct testmanager *m, bool on)
{
	m->fips = on;
}

void tm_wrong_root(struct testmanager *m, const char *pem)
{
	free(m->wrong_root);
	m->wrong_root = xstrdup(pem);
}

void tm_root_rotate_begin(struct testmanager *m)
{
	struct tnode *n;

	assert(!m->next_ca);
	m->next_ca = testca_new(NULL);
	m->cross = testca_cross(m->next_ca, m->ca);
	for (unsigned i = 0; i < m->n_mgr; i++)
		tm_configure(&m->mgr[i]);
	LIST_FOREACH(n, &m->nodes, entry)
	if (!n->removed)
		tm_node_rotate(m, n->id);
}

bool tm_root_rotate_finish(struct testmanager *m)
{
	if (!m->next_ca || !tm_root_reported(m))
		return false;
	testca_free(m->old_ca);
	m->old_ca = m->ca;
	m->ca = take(m->next_ca);
	free(take(m->cross));
	make_tokens(m);
	for (unsigned i = 0; i < m->n_mgr; i++)
		tm_configure(&m->mgr[i]);
	tm_push_session(m);
	return true;
}

/* ---- life */

int testmanager_new(struct testmanager **ret, struct sw_loop *l, const struct tm_config *cfg)
{
	struct testmanager *m = xcalloc(1, sizeof(*m));
	unsigned n = cfg->n_managers ? cfg->n_managers : 1;

	assert(n <= TM_MANAGERS_MAX);
	m->loop = l;
	m->orchestrate = cfg->orchestrate;
	m->heartbeat_ns = cfg->heartbeat_ns ? cfg->heartbeat_ns : sw_s(5);
	LIST_INIT(&m->nodes);
	LIST_INIT(&m->deps);
	TAILQ_INIT(&m->tasks);
	TAILQ_INIT(&m->services);
	LIST_INIT(&m->subs);
	LIST_INIT(&m->pubs);
	LIST_INIT(&m->delays);
	m->reports = xcalloc(TM_REPORTS_MAX, sizeof(*m->reports));
	tm_new_id(m->cluster_id);
	m->ca = testca_new(NULL);
	make_tokens(m);
	for (unsigned i = 0; i < n; i++) {
		int r = start_manager(m, i, i == 0 ? cfg->listen : NULL);

		if (r < 0) {
			testmanager_close(m, NULL);
			return r;
		}
	}
	*ret = m;
	return 0;
}

static void node_free(struct tnode *n)
{
	sw_timer_stop(&n->grace);
	tm_changes_free(n);
	LIST_REMOVE(n, entry);
	free(n->csr);
	free(n->cert);
	free(n->issue_err);
	free(n->label_key);
	free(n->label_value);
	api_free(n->desc);
	free(n);
}

static void on_closer_closed(uv_handle_t *h)
{
	struct testmanager *m = h->data;
	bool *done = m->done;

	while (!TAILQ_EMPTY(&m->tasks))
		tm_task_free(m, TAILQ_FIRST(&m->tasks));
	while (!TAILQ_EMPTY(&m->services))
		tm_service_free(TAILQ_FIRST(&m->services));
	while (!LIST_EMPTY(&m->subs))
		tm_sub_free(LIST_FIRST(&m->subs));
	while (!LIST_EMPTY(&m->deps)) {
		struct tdep *d = LIST_FIRST(&m->deps);

		LIST_REMOVE(d, entry);
		api_free(d->secret);
		api_free(d->config);
		free(d);
	}
	while (!LIST_EMPTY(&m->nodes))
		node_free(LIST_FIRST(&m->nodes));
	for (size_t i = 0; i < m->n_listed; i++)
		free(m->listed[i]);
	free(m->listed);
	testca_free(m->ca);
	testca_free(m->next_ca);
	testca_free(m->old_ca);
	free(m->cross);
	free(m->tokens[0]);
	free(m->tokens[1]);
	free(m->wrong_root);
	free(m->reports);
	free(m);
	if (done)
		*done = true;
}

static void on_closer(uv_timer_t *t)
{
	struct testmanager *m = t->data;

	for (unsigned i = 0; i < m->n_mgr; i++)
		if (!m->mgr[i].done)
			return;
	uv_close((uv_handle_t *)t, on_closer_closed);
}

void testmanager_close(struct testmanager *m, bool *done)
{
	struct tdelay *d;

	m->closing = true;
	m->done = done;
	while ((d = LIST_FIRST(&m->delays)))
		delay_free(d);
	/* servers tell by a flag, so somebody has to look: in real time, whatever clock the test
	 * has */
	uv_timer_init(sw_loop_uv(m->loop), &m->closer);
	m->closer.data = m;
	uv_timer_start(&m->closer, on_closer, 1, 1);
	for (unsigned i = 0; i < m->n_mgr; i++)
		h2server_close(m->mgr[i].srv, &m->mgr[i].done);
}
