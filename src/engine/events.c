/* The event stream.
 *
 *   CONNECTING --head--> UP --dropped, garbage, dead--> WAITING --backoff--> CONNECTING
 *        +----------- refused, error ----------------------^
 *
 * A new stream asks for what happened since the last event it saw; the engine's answer includes
 * that very moment again, so events of the same nanosecond are remembered and dropped the second
 * time. While the stream is silent a ping proves that the engine lives; three
 * dead ones end every stream. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/log.h>
#include <swarm/mem.h>

#include "engine-internal.h"

#define PING_EVERY sw_s(10)
#define MAX_DEAD   3
#define STABLE     sw_s(5) /* up so long: the next loss starts with a short delay again */
#define MAX_SEEN   1024

enum state { CONNECTING, UP, WAITING };

struct events {
	struct engine_call c;
	struct exchange *x;
	struct json_object *filters;
	struct engine_events_handler h;
	void *arg;
	enum state state;
	bool told_lost;
	struct sw_backoff backoff;
	struct sw_timer retry, silence;
	struct engine_call *ping;
	unsigned dead;
	uint64_t up_ns, last_rx_ns;
	struct jsplit split;
	int64_t last_ns; /* of the newest event */
	char **seen;     /* "id action" of the events of that moment */
	size_t n_seen;
	bool *gone;
};

static void connect_stream(void *arg);

static void forget_seen(struct events *v)
{
	for (size_t i = 0; i < v->n_seen; i++)
		free(v->seen[i]);
	v->n_seen = 0;
}

static void events_cancel(struct engine_call *c)
{
	struct events *v = sw_container_of(c, struct events, c);

	if (v->gone)
		*v->gone = true;
	engine_call_del(c);
	exchange_cancel(v->x);
	engine_call_cancel(v->ping);
	sw_timer_stop(&v->retry);
	sw_timer_stop(&v->silence);
	jsplit_done(&v->split);
	forget_seen(v);
	free(v->seen);
	json_object_put(v->filters);
	free(v);
}

/* ---- down */

static void stream_lost(struct events *v, const struct sw_err *err)
{
	uint64_t now = sw_now(engine_loop(v->c.e)), delay;

	if (v->state == UP && now - v->up_ns >= STABLE)
		sw_backoff_reset(&v->backoff);
	exchange_cancel(take(v->x));
	engine_call_cancel(take(v->ping));
	sw_timer_stop(&v->silence);
	v->dead = 0;
	jsplit_done(&v->split);
	v->state = WAITING;
	sw_backoff_fail(&v->backoff);
	delay = sw_backoff_delay(&v->backoff);
	sw_timer_arm(&v->retry, delay);
	log_debug("event stream lost", KERR(err), KU("retry_ms", delay / SW_NS_PER_MS));
	if (v->told_lost)
		return;
	v->told_lost = true;
	if (v->h.lost)
		v->h.lost(v->arg, err); /* last: may cancel us */
}

static void on_ping(void *arg, const struct sw_err *err)
{
	struct events *v = arg;
	struct sw_err dead;

	v->ping = NULL;
	v->dead = err ? v->dead + 1 : 0;
	if (v->dead < MAX_DEAD) {
		sw_timer_arm(&v->silence, PING_EVERY);
		return;
	}
	sw_err_set(&dead, SW_TEMPORARY, -ETIMEDOUT, "the engine did not answer %u pings: %s",
		v->dead, err->msg);
	engine_drop_streams(v->c.e, &dead); /* ours comes back through stream_done() */
}

static void on_silence(void *arg)
{
	struct events *v = arg;
	uint64_t now = sw_now(engine_loop(v->c.e));

	if (now - v->last_rx_ns < PING_EVERY) {
		sw_timer_arm_at(&v->silence, v->last_rx_ns + PING_EVERY);
		return;
	}
	v->ping = engine_ping(v->c.e, on_ping, v);
}

/* ---- up */

static bool seen_before(struct events *v, const struct engine_event *ev)
{
	sw_auto_free char *key = xasprintf("%s %s", ev->id, ev->action);

	if (ev->time_ns > v->last_ns) {
		forget_seen(v);
		v->last_ns = ev->time_ns;
	} else if (ev->time_ns < v->last_ns) {
		return false; /* engines do not sort them strictly */
	}
	for (size_t i = 0; i < v->n_seen; i++)
		if (strcmp(v->seen[i], key) == 0)
			return true;
	if (v->n_seen < MAX_SEEN) {
		v->seen = xrealloc(v->seen, v->n_seen + 1, sizeof(char *));
		v->seen[v->n_seen++] = take(key);
	}
	return false;
}

const char *engine_event_attr(const struct engine_event *ev, const char *key)
{
	for (size_t i = 0; i < ev->n_attributes; i++)
		if (strcmp(ev->attributes[i].key, key) == 0)
			return ev->attributes[i].value;
	return NULL;
}

static bool on_object(void *arg, const char *text, size_t len)
{
	struct events *v = arg;
	struct json_object *o = NULL, *actor;
	struct engine_event ev;
	struct sw_err err;
	bool gone = false;

	if (json_parse_text(text, len, &o, &err) < 0) {
		/* one bad object is no reason to lose the others: the listing every 60 s repairs */
		log_warning("engine event is malformed and ignored", KERR(&err));
		return true;
	}
	actor = js_obj(o, "Actor");
	ev = (struct engine_event){.type = js_str(o, "Type"),
		.action = js_str(o, "Action"),
		.id = js_str(actor, "ID"),
		.time_ns = js_int(o, "timeNano")};
	if (!ev.time_ns && js_int(o, "time") < INT64_MAX / 1000000000)
		ev.time_ns = js_int(o, "time") * 1000000000;
	if (engine_is_podman(v->c.e) && strcmp(ev.action, "remove") == 0)
		ev.action = "destroy";
	if (*ev.type && *ev.action && !seen_before(v, &ev)) {
		ev.attributes = js_pairs(js_obj(actor, "Attributes"), &ev.n_attributes);
		v->gone = &gone;
		v->h.event(v->arg, &ev);
		free(ev.attributes);
	}
	json_object_put(o);
	if (gone)
		return false;
	v->gone = NULL;
	return true;
}

static void stream_up(void *arg)
{
	struct events *v = arg;

	v->state = UP;
	v->told_lost = false;
	v->dead = 0;
	v->up_ns = v->last_rx_ns = sw_now(engine_loop(v->c.e));
	sw_timer_arm(&v->silence, PING_EVERY);
	if (v->h.connected)
		v->h.connected(v->arg); /* last: may cancel us */
}

static void stream_data(void *arg, struct chain *data)
{
	struct events *v = arg;
	struct sw_err err;

	v->last_rx_ns = sw_now(engine_loop(v->c.e));
	if (jsplit_feed_chain(&v->split, data, on_object, v, &err) < 0)
		stream_lost(v, &err);
}

static void stream_done(void *arg, int status, struct chain *body, const struct sw_err *err)
{
	struct events *v = arg;
	struct sw_err end;

	(void)status;
	(void)body;
	v->x = NULL;
	if (!err) {
		sw_err_set(&end, SW_TEMPORARY, -ECONNRESET, "the engine ended the event stream");
		err = &end;
	}
	stream_lost(v, err);
}

static void connect_stream(void *arg)
{
	static const struct exchange_handler h = {stream_up, stream_data, stream_done};
	struct events *v = arg;
	struct exchange_spec s = {.method = "GET", .stream = true};
	sw_auto_free char *filters = NULL, *since = xstrdup("");
	char stamp[64];

	/* podman knows other event names: it would send none of ours */
	if (engine_is_podman(v->c.e))
		json_object_object_del(v->filters, "event");
	filters = http_escape(
		json_object_to_json_string_ext(v->filters, JSON_C_TO_STRING_PLAIN), false);
	if (v->last_ns > 0) {
		snprintf(stamp, sizeof(stamp), "&since=%" PRId64 ".%09" PRId64,
			v->last_ns / 1000000000, v->last_ns % 1000000000);
		free(since);
		since = xstrdup(stamp);
	}
	s.path = xasprintf("/events?filters=%s%s", filters, since);
	v->state = CONNECTING;
	v->last_rx_ns = sw_now(engine_loop(v->c.e));
	sw_timer_arm(&v->silence, PING_EVERY); /* it may accept and never answer */
	v->x = exchange_start(v->c.e, &s, &h, v);
}

struct engine_call *engine_events(struct engine *e, struct json_object *filters,
	const struct engine_events_handler *h, void *arg)
{
	struct events *v = xcalloc(1, sizeof(*v));

	v->h = *h;
	v->arg = arg;
	if (!filters || json_object_deep_copy(filters, &v->filters, NULL) < 0)
		v->filters = json_object_new_object();
	v->backoff = (struct sw_backoff){.base_ns = sw_ms(100), .max_ns = sw_s(5), .factor = 2};
	sw_timer_init(&v->retry, engine_loop(e), connect_stream, v);
	sw_timer_init(&v->silence, engine_loop(e), on_silence, v);
	engine_call_add(e, &v->c, events_cancel);
	connect_stream(v);
	return &v->c;
}
