/* The test manager's dispatcher as far as nodes go: sessions, heartbeats, what operators do. */
#include <stdio.h>
#include <string.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include "tm_priv.h"

struct tnode *tm_find_node(const struct testmanager *m, const char *id)
{
	struct tnode *n;

	LIST_FOREACH(n, &m->nodes, entry)
	if (strcmp(n->id, id) == 0)
		return n;
	return NULL;
}

static void deny(struct h2s_stream *st, const char *why)
{
	sw_auto_free char *text = xasprintf("Permission denied: unauthorized peer role: rpc error: "
					    "code = PermissionDenied desc = %s",
		why);

	h2s_end(st, DENIED, text);
}

struct tnode *tm_caller(struct tmgr *mgr, struct h2s_stream *st)
{
	const char *cn = h2s_peer(st, "CN"), *ou = h2s_peer(st, "OU"), *o = h2s_peer(st, "O");
	struct tnode *n;
	char text[160];

	if (!cn || !ou || !o) {
		deny(st, "no client certificates in request");
		return NULL;
	}
	if (strcmp(ou, "swarm-worker") != 0 && strcmp(ou, "swarm-manager") != 0) {
		deny(st, "Permission denied: remote certificate not part of OUs: [swarm-worker "
			 "swarm-manager]");
		return NULL;
	}
	n = tm_find_node(mgr->m, cn);
	if (n && n->removed) {
		snprintf(text, sizeof(text), "Permission denied: node %s was removed from swarm",
			cn);
		deny(st, text);
		return NULL;
	}
	if (strcmp(o, mgr->m->cluster_id) != 0) {
		snprintf(text, sizeof(text),
			"Permission denied: remote certificate not part of organization: %s",
			mgr->m->cluster_id);
		deny(st, text);
		return NULL;
	}
	if (!n)
		h2s_end(st, UNKNOWN, "node not found");
	return n;
}

struct tnode *tm_session_caller(struct tmgr *mgr, struct h2s_stream *st, const char *session_id)
{
	struct tnode *n = tm_caller(mgr, st);

	if (!n)
		return NULL;
	if (!n->ready) {
		h2s_end(st, NOT_FOUND, "node not registered");
		return NULL;
	}
	if (strcmp(n->session_id, session_id) != 0) {
		h2s_end(st, INVALID, "session invalid");
		return NULL;
	}
	return n;
}

struct tstream *tm_stream_add(
	struct tmgr *mgr, struct tnode *n, enum tm_method method, struct h2s_stream *st)
{
	struct tstream *s = xcalloc(1, sizeof(*s));

	*s = (struct tstream){.method = method, .st = st, .node = n, .manager = mgr->no};
	LIST_INSERT_HEAD(&n->streams, s, entry);
	h2s_set_user(st, s);
	return s;
}

void tm_streams_end(struct tnode *n, int method, int code, const char *text)
{
	struct tstream *s, *next;

	for (s = LIST_FIRST(&n->streams); s; s = next) {
		next = LIST_NEXT(s, entry);
		if (method < 0 || (int)s->method == method)
			h2s_end(s->st, code, text);
	}
}

/* ---- session messages */

static void send_session(struct testmanager *m, struct tstream *st)
{
	struct tnode *n = st->node;
	Pb__SessionMessage msg = PB__SESSION_MESSAGE__INIT;
	Pb__Node node = PB__NODE__INIT;
	Pb__Meta meta = PB__META__INIT;
	Pb__Version version = PB__VERSION__INIT;
	Pb__NodeSpec spec = PB__NODE_SPEC__INIT;
	Pb__Annotations ann = PB__ANNOTATIONS__INIT;
	Pb__StringPair label = PB__STRING_PAIR__INIT, *labels = &label;
	Pb__NodeStatus status = PB__NODE_STATUS__INIT;
	Pb__Certificate cert = PB__CERTIFICATE__INIT;
	Pb__IssuanceStatus issuance = PB__ISSUANCE_STATUS__INIT;
	Pb__WeightedPeer wp[TM_MANAGERS_MAX], *wps[TM_MANAGERS_MAX];
	Pb__Peer peer[TM_MANAGERS_MAX];
	Pb__EncryptionKey key[3], *keys[3];
	static const uint8_t key_bytes[16] = "0123456789abcdef";
	const char *root = m->wrong_root ? m->wrong_root : tm_root(m);
	size_t n_peers = 0;

	version.index = ++n->version;
	meta.version = &version;
	if (n->label_key) {
		label.key = n->label_key;
		label.value = n->label_value;
		ann.labels = &labels;
		ann.n_labels = 1;
	}
	spec.annotations = &ann;
	spec.desired_role = (Pb__NodeRole)n->desired_role;
	spec.membership = PB__NODE_SPEC__MEMBERSHIP__ACCEPTED;
	spec.availability = (Pb__NodeSpec__Availability)n->availability;
	status.state = n->ready ? PB__NODE_STATUS__STATE__READY : PB__NODE_STATUS__STATE__DOWN;
	status.addr = (char *)"127.0.0.1";
	issuance.state = (Pb__IssuanceStatus__State)n->cert_state;
	cert.role = (Pb__NodeRole)n->role;
	cert.csr = (ProtobufCBinaryData){n->csr ? strlen(n->csr) : 0, (uint8_t *)n->csr};
	cert.certificate = (ProtobufCBinaryData){n->cert ? strlen(n->cert) : 0, (uint8_t *)n->cert};
	cert.status = &issuance;
	cert.cn = n->id;
	node.id = n->id;
	node.meta = &meta;
	node.spec = &spec;
	node.description = n->desc;
	node.status = &status;
	node.certificate = &cert;
	node.role = (Pb__NodeRole)n->role;
	msg.session_id = n->session_id;
	msg.node = &node;
	for (size_t i = 0;
		i < (m->list_given ? m->n_listed : m->n_mgr) && n_peers < TM_MANAGERS_MAX; i++) {
		size_t k = n_peers++;

		pb__weighted_peer__init(&wp[k]);
		pb__peer__init(&peer[k]);
		peer[k].node_id = m->list_given ? (char *)"other" : m->mgr[i].id;
		peer[k].addr = m->list_given ? m->listed[i] : (char *)h2server_addr(m->mgr[i].srv);
		for (unsigned g = 0; m->list_given && g < m->n_mgr; g++)
			if (strcmp(h2server_addr(m->mgr[g].srv), m->listed[i]) == 0)
				peer[k].node_id = m->mgr[g].id;
		wp[k].peer = &peer[k];
		wp[k].weight = 10;
		wps[k] = &wp[k];
	}
	msg.managers = wps;
	msg.n_managers = n_peers;
	if (m->lamport) {
		for (unsigned i = 0; i < 3; i++) {
			pb__encryption_key__init(&key[i]);
			key[i].subsystem = (char *)"networking:gossip";
			key[i].key = (ProtobufCBinaryData){16, (uint8_t *)key_bytes};
			key[i].lamport_time = m->lamport + i;
			keys[i] = &key[i];
		}
		msg.network_bootstrap_keys = keys;
		msg.n_network_bootstrap_keys = 3;
	}
	msg.rootca = (ProtobufCBinaryData){strlen(root), (uint8_t *)root};
	tm_send(st->st, &msg.base);
}

void tm_session_to(struct testmanager *m, struct tstream *s)
{
	send_session(m, s);
}

void tm_node_push(struct tnode *n)
{
	struct tstream *s;

	LIST_FOREACH(s, &n->streams, entry)
	if (s->method == TM_SESSION)
		send_session(n->m, s);
}

void tm_push_session(struct testmanager *m)
{
	struct tnode *n;

	LIST_FOREACH(n, &m->nodes, entry)
	tm_node_push(n);
}

/* ---- registration */

static void node_down(struct tnode *n)
{
	n->ready = false;
	sw_timer_stop(&n->grace);
	tm_reconcile(n->m);
}

static void on_grace(void *arg)
{
	struct tnode *n = arg;

	node_down(n);
	tm_streams_end(n, TM_SESSION, NOT_FOUND, "node not registered");
}

static void beat(struct tnode *n)
{
	if (!n->grace.loop)
		sw_timer_init(&n->grace, n->m->loop, on_grace, n);
	sw_timer_arm(&n->grace, 3 * n->m->heartbeat_ns);
}

static void session(struct tmgr *mgr, struct h2s_stream *st, const Pb__SessionRequest *req)
{
	struct testmanager *m = mgr->m;
	struct tnode *n = tm_caller(mgr, st);

	if (!n)
		return;
	n->sessions++;
	if (!n->ready || strcmp(n->session_id, req->session_id) != 0) {
		/* the registration before dies */
		tm_streams_end(n, TM_SESSION, INVALID, "session invalid");
		tm_new_id(n->session_id);
		n->registrations++;
	}
	n->ready = true;
	if (req->description) {
		api_free(n->desc);
		n->desc = (Pb__NodeDescription *)api_dup(&req->description->base);
	}
	snprintf(n->addr, sizeof(n->addr), "127.0.0.1");
	beat(n);
	send_session(m, tm_stream_add(mgr, n, TM_SESSION, st));
	tm_reconcile(m);
}

void tm_on_session(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	Pb__SessionRequest *req =
		(Pb__SessionRequest *)api_unpack(&pb__session_request__descriptor, msg, len, NULL);

	if (req)
		session(mgr, st, req);
	else
		h2s_end(st, 13, "grpc: error unmarshalling request");
	api_free(req);
}

void tm_on_heartbeat(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	Pb__HeartbeatRequest *req = (Pb__HeartbeatRequest *)api_unpack(
		&pb__heartbeat_request__descriptor, msg, len, NULL);
	struct tnode *n = req ? tm_session_caller(mgr, st, req->session_id) : NULL;
	Pb__HeartbeatResponse r = PB__HEARTBEAT_RESPONSE__INIT;
	Pb__Duration d = PB__DURATION__INIT;

	api_free(req);
	if (!n)
		return;
	n->heartbeats++;
	beat(n);
	d.seconds = (int64_t)(mgr->m->heartbeat_ns / SW_NS_PER_S);
	d.nanos = (int32_t)(mgr->m->heartbeat_ns % SW_NS_PER_S);
	r.period = &d;
	tm_reply(st, &r.base);
}

/* ---- looking */

static void view(const struct tnode *n, struct tm_node *out)
{
	*out = (struct tm_node){
		.id = n->id,
		.hostname = n->desc ? n->desc->hostname : "",
		.session_id = n->session_id,
		.addr = n->addr,
		.role = n->role,
		.ready = n->ready,
		.removed = n->removed,
		.cert_state = n->cert_state,
		.description = n->desc,
		.registrations = n->registrations,
		.sessions = n->sessions,
		.heartbeats = n->heartbeats,
	};
}

size_t tm_nodes(const struct testmanager *m, struct tm_node *out, size_t max)
{
	struct tnode *n;
	size_t i = 0;

	LIST_FOREACH(n, &m->nodes, entry)
	if (i < max)
		view(n, &out[i++]);
	return i;
}

bool tm_node(const struct testmanager *m, const char *id_or_hostname, struct tm_node *ret)
{
	struct tnode *n;

	LIST_FOREACH(n, &m->nodes, entry)
	if (strcmp(n->id, id_or_hostname) == 0 ||
		(n->desc && strcmp(n->desc->hostname, id_or_hostname) == 0)) {
		view(n, ret);
		return true;
	}
	return false;
}

static bool is_key_of(const char *cert, const ProtobufCBinaryData *spki)
{
	BIO *b = BIO_new_mem_buf(cert, -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
	unsigned char *der = NULL;
	int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
	bool same = len > 0 && (size_t)len == spki->len && memcmp(der, spki->data, spki->len) == 0;

	OPENSSL_free(der);
	X509_free(x);
	BIO_free(b);
	return same;
}

bool tm_root_reported(const struct testmanager *m)
{
	struct tnode *n;

	/* the old issuer's key is in the old bundle; the new one's certificate is the cross one */
	LIST_FOREACH(n, &m->nodes, entry)
	{
		const Pb__NodeTLSInfo *t = n->desc ? n->desc->tls_info : NULL;

		if (n->removed)
			continue;
		if (!t || !is_key_of(testca_pem(m->next_ca), &t->cert_issuer_public_key))
			return false;
	}
	return true;
}

/* ---- what operators do */

void tm_node_remove(struct testmanager *m, const char *id)
{
	struct tnode *n = tm_find_node(m, id);

	if (!n)
		return;
	n->removed = true;
	n->ready = false;
	sw_timer_stop(&n->grace);
	tm_tasks_of_node_gone(m, n);
	tm_reconcile(m);
}

void tm_node_desired_role(struct testmanager *m, const char *id, int role)
{
	struct tnode *n = tm_find_node(m, id);

	if (!n)
		return;
	n->desired_role = n->role = role;
	tm_node_push(n);
}

void tm_node_label(struct testmanager *m, const char *id, const char *key, const char *value)
{
	struct tnode *n = tm_find_node(m, id);

	if (!n)
		return;
	free(n->label_key);
	free(n->label_value);
	n->label_key = xstrdup(key);
	n->label_value = xstrdup(value);
	tm_node_push(n);
}

void tm_node_rotate(struct testmanager *m, const char *id)
{
	struct tnode *n = tm_find_node(m, id);

	if (!n)
		return;
	n->cert_state = PB__ISSUANCE_STATUS__STATE__ROTATE;
	tm_node_push(n);
}

void tm_node_forget_session(struct testmanager *m, const char *id)
{
	struct tnode *n = tm_find_node(m, id);

	if (!n)
		return;
	node_down(n);
	tm_streams_end(n, TM_SESSION, NOT_FOUND, "node not registered");
}

void tm_session_invalid(struct testmanager *m, const char *id)
{
	struct tnode *n = tm_find_node(m, id);

	if (n)
		tm_new_id(n->session_id);
}

void tm_list_managers(struct testmanager *m, const char *const *addrs, size_t n)
{
	for (size_t i = 0; i < m->n_listed; i++)
		free(m->listed[i]);
	free(take(m->listed));
	m->n_listed = 0;
	m->list_given = addrs != NULL;
	if (addrs) {
		m->listed = xcalloc(n + 1, sizeof(*m->listed));
		for (size_t i = 0; i < n; i++)
			m->listed[i] = xstrdup(addrs[i]);
		m->n_listed = n;
	}
	tm_push_session(m);
}

void tm_network_keys(struct testmanager *m, uint64_t first_lamport)
{
	m->lamport = first_lamport;
	tm_push_session(m);
}
