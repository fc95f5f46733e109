/* The test manager's log broker. */
#include <stdio.h>
#include <string.h>

#include "tm_priv.h"

static bool concerns(const struct testmanager *m, const struct tsub *s, const struct tnode *n)
{
	struct ttask *t;

	if (s->node_id)
		return strcmp(s->node_id, n->id) == 0;
	if (s->follow)
		return true;
	TAILQ_FOREACH (t, &m->tasks, entry)
		if (strcmp(t->pb->node_id, n->id) == 0 &&
			((s->task_id && strcmp(t->pb->id, s->task_id) == 0) ||
				(s->service_id && strcmp(t->pb->service_id, s->service_id) == 0)))
			return true;
	return false;
}

static void send_sub(struct tstream *st, const struct tsub *s, bool close)
{
	Pb__SubscriptionMessage m = PB__SUBSCRIPTION_MESSAGE__INIT;
	Pb__LogSelector sel = PB__LOG_SELECTOR__INIT;
	Pb__LogSubscriptionOptions opt = PB__LOG_SUBSCRIPTION_OPTIONS__INIT;
	Pb__LogStream streams[] = {
		PB__LOG_STREAM__LOG_STREAM_STDOUT, PB__LOG_STREAM__LOG_STREAM_STDERR};
	char *service = s->service_id, *task = s->task_id, *node = s->node_id;

	m.id = (char *)s->id;
	sel.service_ids = &service;
	sel.n_service_ids = service != NULL;
	sel.task_ids = &task;
	sel.n_task_ids = task != NULL;
	sel.node_ids = &node;
	sel.n_node_ids = node != NULL;
	m.selector = &sel;
	opt.streams = streams;
	opt.n_streams = 2;
	opt.follow = s->follow;
	opt.tail = s->tail;
	m.options = &opt;
	m.close = close;
	tm_send(st->st, &m.base);
}

static void tell(struct testmanager *m, const struct tsub *s, bool close)
{
	struct tnode *n;
	struct tstream *st;

	LIST_FOREACH(n, &m->nodes, entry)
	LIST_FOREACH(st, &n->streams, entry)
	if (st->method == TM_LISTEN && concerns(m, s, n))
		send_sub(st, s, close);
}

void tm_on_listen(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	struct testmanager *m = mgr->m;
	struct tnode *n = tm_caller(mgr, st);
	struct tstream *s, *o;
	struct tsub *sub;

	(void)msg;
	(void)len;
	if (!n)
		return;
	LIST_FOREACH(o, &n->streams, entry)
	if (o->method == TM_LISTEN)
		m->listen_overlaps++;
	s = tm_stream_add(mgr, n, TM_LISTEN, st);
	LIST_FOREACH(sub, &m->subs, entry)
	if (!sub->closed && concerns(m, sub, n))
		send_sub(s, sub, false);
}

unsigned tm_listen_overlaps(const struct testmanager *m)
{
	return m->listen_overlaps;
}

static struct tsub *find_sub(const struct testmanager *m, const char *id)
{
	struct tsub *s;

	LIST_FOREACH(s, &m->subs, entry)
	if (strcmp(s->id, id) == 0)
		return s;
	return NULL;
}

static void refuse(struct tsub *s, struct h2s_stream *st, int code, const char *text)
{
	if (s) {
		snprintf(s->last_error, sizeof(s->last_error), "%s", text);
		s->stats.last_error = s->last_error;
	}
	h2s_end(st, code, text);
}

static void take_lines(struct tsub *s, const Pb__PublishLogsMessage *p)
{
	for (size_t i = 0; i < p->n_messages; i++) {
		const ProtobufCBinaryData *d = &p->messages[i]->data;

		s->stats.messages++;
		s->stats.bytes += (unsigned)d->len;
		s->text = xrealloc(s->text, s->len + d->len + 1, 1);
		memcpy(s->text + s->len, d->data, d->len);
		s->len += d->len;
		s->text[s->len] = 0;
	}
}

static void publish(struct tmgr *mgr, struct h2s_stream *st, const Pb__PublishLogsMessage *p)
{
	struct testmanager *m = mgr->m;
	struct tpub *pub = h2s_user(st);
	const char *cn = h2s_peer(st, "CN");
	struct tsub *s;
	char text[160];

	if (!pub && !tm_caller(mgr, st))
		return;
	if (!*p->subscription_id) {
		refuse(NULL, st, INVALID, "missing subscription ID");
		return;
	}
	s = find_sub(m, p->subscription_id);
	if (!s || (!pub && s->closed)) {
		refuse(s, st, NOT_FOUND, "unknown subscription ID");
		return;
	}
	if (pub && pub->sub != s) {
		refuse(s, st, INVALID, "different subscription IDs in the same session");
		return;
	}
	for (size_t i = 0; i < p->n_messages; i++) {
		const Pb__LogContext *c = p->messages[i]->context;

		if (!c || !cn || strcmp(c->node_id, cn) != 0) {
			snprintf(text, sizeof(text), "invalid NodeID: expected=%s;received=%s",
				cn ? cn : "", c ? c->node_id : "");
			refuse(s, st, DENIED, text);
			return;
		}
	}
	if (!pub) {
		pub = xcalloc(1, sizeof(*pub));
		pub->st = st;
		pub->sub = s;
		LIST_INSERT_HEAD(&m->pubs, pub, entry);
		h2s_set_user(st, pub);
		s->stats.publishers_open++;
	}
	take_lines(s, p);
	if (p->close) { /* status 0 without a message */
		s->stats.closed_by_node = true;
		h2s_end(st, OK, NULL);
	}
}

void tm_on_publish(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len)
{
	Pb__PublishLogsMessage *p = (Pb__PublishLogsMessage *)api_unpack(
		&pb__publish_logs_message__descriptor, msg, len, NULL);

	if (p)
		publish(mgr, st, p);
	else
		h2s_end(st, 13, "grpc: error unmarshalling request");
	api_free(p);
}

void tm_publish_end(struct testmanager *m, struct h2s_stream *st)
{
	struct tpub *pub = h2s_user(st);
	Pb__PublishLogsResponse r = PB__PUBLISH_LOGS_RESPONSE__INIT;

	(void)m;
	if (pub)
		pub->sub->stats.closed_by_node = true;
	tm_reply(st, &r.base);
}

void tm_publish_closed(struct testmanager *m, struct h2s_stream *st)
{
	struct tpub *pub = h2s_user(st);

	(void)m;
	if (!pub)
		return;
	h2s_set_user(st, NULL);
	if (pub->sub) {
		pub->sub->stats.publishers_open--;
		pub->sub->stats.publishers_ended++;
	}
	LIST_REMOVE(pub, entry);
	free(pub);
}

const char *tm_logs_open(struct testmanager *m, const char *service_id, const char *task_id,
	const char *node_id, bool follow, int64_t tail)
{
	struct tsub *s = xcalloc(1, sizeof(*s));

	tm_new_id(s->id);
	s->service_id = xstrdup(service_id);
	s->task_id = xstrdup(task_id);
	s->node_id = xstrdup(node_id);
	s->follow = follow;
	s->tail = tail;
	LIST_INSERT_HEAD(&m->subs, s, entry);
	tell(m, s, false);
	return s->id;
}

void tm_logs_close(struct testmanager *m, const char *subscription_id)
{
	struct tsub *s = find_sub(m, subscription_id);

	if (!s || s->closed)
		return;
	s->closed = true;
	tell(m, s, true);
}

bool tm_logs(const struct testmanager *m, const char *subscription_id, struct tm_logs *ret)
{
	struct tsub *s = find_sub(m, subscription_id);

	if (s)
		*ret = s->stats;
	return s != NULL;
}

const char *tm_logs_text(const struct testmanager *m, const char *subscription_id)
{
	struct tsub *s = find_sub(m, subscription_id);

	return s && s->text ? s->text : "";
}

void tm_sub_free(struct tsub *s)
{
	LIST_REMOVE(s, entry);
	free(s->service_id);
	free(s->task_id);
	free(s->node_id);
	free(s->text);
	free(s);
}
