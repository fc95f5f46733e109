/* Log lines of one subscription: one PublishLogs stream. Whatever way it ends, the manager counts
 * this node as done; a reader hangs as long as a subscription was not named at least once,
 * so even a publisher that sends nothing names it. */
#include "session_priv.h"
#include <string.h>
#include <swarm/grpc.h>
#include <swarm/mem.h>

/* Far below what managers take in one message (GRPC_MAX_SEND); lines are up to 16 KiB. */
#define BATCH_BYTES (64u << 10)

struct log_publisher {
	struct grpc_call *call;
	char *subscription_id;
	bool named;
	void (*writable)(void *arg);
	void (*ended)(void *arg, const struct sw_err *err);
	void *arg;
};

static bool on_response(void *arg, const ProtobufCMessage *m)
{
	(void)arg;
	(void)m; /* empty, and not always there */
	return true;
}

static void publisher_free(struct log_publisher *p)
{
	free(p->subscription_id);
	free(p);
}

static void on_end(void *arg, const struct sw_err *err)
{
	struct log_publisher *p = arg;
	void (*ended)(void *, const struct sw_err *) = p->ended;
	void *ended_arg = p->arg;

	publisher_free(p);
	ended(ended_arg, err);
}

static void on_writable(void *arg)
{
	struct log_publisher *p = arg;

	if (p->writable)
		p->writable(p->arg);
}

struct log_publisher *log_publisher_new(struct h2_conn *c, const char *subscription_id,
	void (*writable)(void *arg), void (*ended)(void *arg, const struct sw_err *err), void *arg)
{
	static const struct grpc_stream_events events = {
		.message = on_response, .end = on_end, .writable = on_writable};
	struct log_publisher *p = xcalloc(1, sizeof(*p));

	p->subscription_id = xstrdup(subscription_id);
	p->writable = writable;
	p->ended = ended;
	p->arg = arg;
	p->call = grpc_client_stream(c, "/docker.swarmkit.v1.LogBroker/PublishLogs",
		&pb__publish_logs_response__descriptor, &events, p);
	return p;
}

static bool send_some(struct log_publisher *p, Pb__LogMessage **msgs, size_t n)
{
	Pb__PublishLogsMessage m = PB__PUBLISH_LOGS_MESSAGE__INIT;

	m.subscription_id = p->subscription_id;
	m.messages = msgs;
	m.n_messages = n;
	p->named = true;
	return grpc_send(p->call, &m.base);
}

bool log_publisher_send(struct log_publisher *p, Pb__LogMessage **msgs, size_t n)
{
	size_t from = 0, bytes = 0;
	bool room = true;

	for (size_t i = 0; i < n; i++) {
		if (bytes && bytes + msgs[i]->data.len > BATCH_BYTES) {
			room = send_some(p, msgs + from, i - from);
			from = i;
			bytes = 0;
		}
		bytes += msgs[i]->data.len;
	}
	if (n > from || !p->named)
		room = send_some(p, msgs + from, n - from);
	return room;
}

void log_publisher_finish(struct log_publisher *p)
{
	if (!p->named)
		send_some(p, NULL, 0);
	grpc_finish(p->call);
}

void log_publisher_cancel(struct log_publisher *p)
{
	if (!p)
		return;
	grpc_cancel(p->call);
	publisher_free(p);
}
