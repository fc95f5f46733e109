/* The test engine's containers and endpoints. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <time.h>

#include "testengine-internal.h"

enum op { OP_SLEEP, OP_ECHO, OP_EXIT, OP_FOREVER };
struct step {
	enum op op;
	uint64_t ns;
	int n; /* exit code, or stream */
	char *text;
};
struct record {
	int stream;
	int64_t ns;
	char *text;
	size_t len;
};
struct te_ctr {
	struct testengine *te;
	char id[65], *name;
	struct json_object *body, *networks;
	const char *status, *health;
	bool running, paused, oom, has_health;
	bool ignore_term, plan_oom;
	int term_code, exit_code, start_fail;
	char *error;
	int64_t pid, created_ns, started_ns, finished_ns;
	unsigned n_starts, port_base;
	struct step *steps;
	size_t n_steps, at;
	uint64_t healthy_ns, unhealthy_ns;
	struct sw_timer life, kill, health_timer;
	struct record *log;
	size_t n_log;
};

static void ctr_exit(struct te_ctr *t, int code, bool oom);

/* ---- small JSON helpers */

static const char *jstr(struct json_object *o, const char *key)
{
	struct json_object *v;

	return o && json_object_object_get_ex(o, key, &v) && v ? json_object_get_string(v) : "";
}

static struct json_object *jget(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	return o && json_object_is_type(o, json_type_object) &&
			       json_object_object_get_ex(o, key, &v)
		       ? v
		       : NULL;
}

static void jset(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static void jset_int(struct json_object *o, const char *key, int64_t n)
{
	json_object_object_add(o, key, json_object_new_int64(n));
}

static void jset_bool(struct json_object *o, const char *key, bool b)
{
	json_object_object_add(o, key, json_object_new_boolean(b));
}

static struct json_object *jcopy(struct json_object *o)
{
	struct json_object *ret = NULL;

	if (o)
		json_object_deep_copy(o, &ret, NULL);
	return ret;
}

static size_t jlen(struct json_object *o)
{
	return json_object_is_type(o, json_type_array) ? json_object_array_length(o) : 0;
}

static void stamp(int64_t ns, char *buf, size_t size)
{
	time_t s = (time_t)(ns / 1000000000);
	struct tm tm;
	char date[32];

	if (!ns) {
		snprintf(buf, size, "0001-01-01T00:00:00Z");
		return;
	}
	gmtime_r(&s, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf, size, "%s.%09dZ", date, (int)(ns % 1000000000));
}

static int64_t now_ns(struct testengine *te)
{
	int64_t n = (int64_t)sw_wall_ns();

	te->last_ns = n > te->last_ns ? n : te->last_ns + 1;
	return te->last_ns;
}

static void make_id(struct testengine *te, char id[65])
{
	uint64_t x = 0x9e3779b97f4a7c15ull * ++te->next_id;

	for (int i = 0; i < 4; i++) {
		x ^= x >> 31;
		x *= 0xbf58476d1ce4e5b9ull;
		x ^= x >> 27;
		snprintf(id + 16 * i, 17, "%016" PRIx64, x);
	}
}

/* ---- events */

static bool listed(struct json_object *filters, const char *key, const char *value, bool prefix)
{
	struct json_object *a = jget(filters, key);

	if (!jlen(a))
		return true;
	for (size_t i = 0; i < jlen(a); i++) {
		const char *want = json_object_get_string(json_object_array_get_idx(a, i));

		if (strcmp(want, value) == 0 ||
			(prefix && strncmp(want, value, strlen(want)) == 0 &&
				value[strlen(want)] == ':'))
			return true;
	}
	return false;
}

static bool labels_match(struct json_object *filters, struct json_object *labels)
{
	struct json_object *a = jget(filters, "label");

	for (size_t i = 0; i < jlen(a); i++) {
		const char *want = json_object_get_string(json_object_array_get_idx(a, i));
		const char *eq = strchr(want, '=');
		sw_auto_free char *key = eq ? xstrndup(want, (size_t)(eq - want)) : xstrdup(want);
		struct json_object *v;

		if (!labels || !json_object_object_get_ex(labels, key, &v))
			return false;
		if (eq && strcmp(json_object_get_string(v), eq + 1) != 0)
			return false;
	}
	return true;
}

static bool event_wanted(struct te_conn *c, struct json_object *ev)
{
	struct json_object *actor = jget(ev, "Actor");

	return listed(c->filters, "type", jstr(ev, "Type"), false) &&
	       listed(c->filters, "event", jstr(ev, "Action"), true) &&
	       (listed(c->filters, "container", jstr(actor, "ID"), false)) &&
	       labels_match(c->filters, jget(actor, "Attributes"));
}

static void event_send(struct te_conn *c, struct json_object *ev)
{
	sw_auto_free char *line = NULL;

	if (!event_wanted(c, ev))
		return;
	line = xasprintf("%s\n", json_object_to_json_string_ext(ev, 0));
	te_stream_write(c, line, strlen(line));
}

/* Every receiver may lose its connection while it is served (a cut), so nobody walks the list. */
static void each_conn(struct testengine *te, enum te_wait wait,
	void (*fn)(struct te_conn *c, void *arg), void *arg)
{
	struct te_conn *c, **all;
	size_t n = 0, i = 0;

	TAILQ_FOREACH (c, &te->conns, link)
		n += c->wait == wait;
	all = xcalloc(n + 1, sizeof(struct te_conn *));
	TAILQ_FOREACH (c, &te->conns, link)
		if (c->wait == wait)
			all[i++] = c;
	for (i = 0; i < n; i++) /* closed ones stay allocated until the loop runs */
		if (!all[i]->closing)
			fn(all[i], arg);
	free(all);
}

static void event_one(struct te_conn *c, void *arg)
{
	event_send(c, arg);
}

static void emit(struct testengine *te, const char *type, const char *action, const char *id,
	const char *from, struct json_object *attrs)
{
	struct json_object *ev = json_object_new_object(), *actor = json_object_new_object();
	int64_t ns = now_ns(te);
	size_t slot;

	if (te->drop.n && strncmp(action, te->drop.action, strlen(te->drop.action)) == 0) {
		te->drop.n--;
		json_object_put(ev);
		json_object_put(actor);
		json_object_put(attrs);
		return;
	}
	if (strcmp(type, "container") == 0) {
		jset(ev, "status", action);
		jset(ev, "id", id);
		jset(ev, "from", from);
	}
	jset(ev, "Type", type);
	jset(ev, "Action", action);
	jset(actor, "ID", id);
	json_object_object_add(actor, "Attributes", attrs ? attrs : json_object_new_object());
	json_object_object_add(ev, "Actor", actor);
	jset(ev, "scope", "local");
	jset_int(ev, "time", ns / 1000000000);
	jset_int(ev, "timeNano", ns);
	slot = te->ring.n++ % SW_ARRAY_LEN(te->ring.ev);
	json_object_put(te->ring.ev[slot]);
	te->ring.ev[slot] = ev;
	json_object_get(ev);
	each_conn(te, TE_W_EVENTS, event_one, ev);
	json_object_put(ev);
}

static struct json_object *ctr_attrs(struct te_ctr *t)
{
	struct json_object *attrs = jcopy(jget(t->body, "Labels"));

	if (!attrs)
		attrs = json_object_new_object();
	jset(attrs, "image", jstr(t->body, "Image"));
	jset(attrs, "name", t->name);
	return attrs;
}

static void ctr_event(struct te_ctr *t, const char *action, const char *key, const char *value)
{
	struct json_object *attrs = ctr_attrs(t);

	if (key)
		jset(attrs, key, value);
	emit(t->te, "container", action, t->id, jstr(t->body, "Image"), attrs);
}

/* ---- what a command line does */

static uint64_t duration(const char *s)
{
	char *end;
	double v = strtod(s, &end);

	if (strncmp(s, "inf", 3) == 0)
		return UINT64_MAX;
	if (strncmp(end, "ms", 2) == 0)
		v /= 1000;
	else if (*end == 'm')
		v *= 60;
	else if (*end == 'h')
		v *= 3600;
	else if (*end == 'd')
		v *= 86400;
	return (uint64_t)(v * 1e9);
}

static void step_add(struct te_ctr *t, struct step s)
{
	t->steps = xrealloc(t->steps, t->n_steps + 1, sizeof(s));
	t->steps[t->n_steps++] = s;
}

static void plan_echo(struct te_ctr *t, const char *p)
{
	size_t n = strcspn(p, ";");
	char *text = xstrndup(p, n), *to_err = strstr(text, ">&2");
	size_t len;

	if (to_err)
		*to_err = '\0';
	len = strlen(text);
	while (len && text[len - 1] == ' ')
		text[--len] = '\0';
	text = xrealloc(text, len + 2, 1);
	memcpy(text + len, "\n", 2);
	step_add(t, (struct step){OP_ECHO, 0, to_err ? 2 : 1, text});
}

static char *command_line(struct te_ctr *t)
{
	static const char *const keys[] = {"Entrypoint", "Cmd"};
	char *all = xstrdup("");

	for (size_t k = 0; k < 2; k++) {
		struct json_object *a = jget(t->body, keys[k]);

		for (size_t i = 0; i < jlen(a); i++) {
			char *more = xasprintf("%s%s%s", all, *all ? " " : "",
				json_object_get_string(json_object_array_get_idx(a, i)));

			free(all);
			all = more;
		}
	}
	return all;
}

static void plan(struct te_ctr *t)
{
	sw_auto_free char *all = command_line(t);
	int code = 0, n;
	bool ends = false, forever = false;
	char *trap = strstr(all, "trap ");

	t->term_code = 143;
	if (trap) { /* trap 'exit N' TERM, trap '' TERM */
		char *end = strchr(trap, ';');

		if (sscanf(trap, "trap 'exit %d'", &n) == 1 ||
			sscanf(trap, "trap \"exit %d", &n) == 1)
			t->term_code = n;
		else
			t->ignore_term = true;
		memset(trap, ' ', end ? (size_t)(end - trap) : strlen(trap));
	}
	for (char *p = all; *p; p++) {
		size_t len;
		char word[64];
		const char *arg;

		if (isspace((unsigned char)*p) || strchr(";'\"", *p))
			continue;
		len = strcspn(p, " ;'\"\n");
		snprintf(word, sizeof(word), "%.*s", (int)len, p);
		arg = p + len + strspn(p + len, " ");
		if (strcmp(word, "exit") == 0) {
			code = atoi(arg);
			ends = true;
		} else if (strcmp(word, "true") == 0) {
			ends = true;
		} else if (strcmp(word, "false") == 0) {
			code = 1;
			ends = true;
		} else if (strcmp(word, "sleep") == 0 || strcmp(word, "after") == 0) {
			uint64_t ns = duration(arg);

			if (ns == UINT64_MAX)
				forever = true;
			else
				step_add(t, (struct step){OP_SLEEP, ns, 0, NULL});
			ends = true;
		} else if (strcmp(word, "echo") == 0) {
			plan_echo(t, arg);
			ends = true;
			len += strcspn(p + len, ";");
		} else if (strcmp(word, "while") == 0) {
			forever = true;
		} else if (strcmp(word, "ignore-term") == 0) {
			t->ignore_term = true;
		} else if (strcmp(word, "term-exit") == 0) {
			t->term_code = atoi(arg);
		} else if (strcmp(word, "healthy-after") == 0) {
			t->healthy_ns = duration(arg) + 1;
		} else if (strcmp(word, "unhealthy-after") == 0) {
			t->unhealthy_ns = duration(arg) + 1;
		} else if (strcmp(word, "not-found") == 0) {
			t->start_fail = 127;
		} else if (strcmp(word, "not-executable") == 0) {
			t->start_fail = 126;
		} else if (strcmp(word, "bad-user") == 0) {
			t->start_fail = 128;
		} else if (strcmp(word, "oom") == 0) {
			t->plan_oom = true;
			ends = true;
			code = 137;
		}
		p += len - 1;
	}
	if (forever || !ends)
		step_add(t, (struct step){OP_FOREVER, 0, 0, NULL});
	else
		step_add(t, (struct step){OP_EXIT, 0, code, NULL});
}

/* ---- logs */

static void record_send(struct te_conn *c, const struct te_ctr *t, const struct record *r)
{
	bool tty = json_object_get_boolean(jget(t->body, "Tty"));
	sw_auto_free char *frame = NULL;
	char ts[64] = "", head[80];
	size_t len;

	if (r->ns < c->since_ns || !(tty || (r->stream == 1 ? c->log_out : c->log_err)))
		return;
	if (c->log_stamps) {
		stamp(r->ns, ts, sizeof(ts) - 1);
		strcat(ts, " ");
	}
	snprintf(head, sizeof(head), "%s%s", ts, c->log_details && !c->te->podman ? " " : "");
	len = strlen(head) + r->len;
	frame = xcalloc(1, 8 + len + 2);
	frame[0] = (char)r->stream;
	frame[4] = (char)(len >> 24);
	frame[5] = (char)(len >> 16);
	frame[6] = (char)(len >> 8);
	frame[7] = (char)len;
	memcpy(frame + 8, head, strlen(head));
	memcpy(frame + 8 + strlen(head), r->text, r->len);
	if (tty && r->len && r->text[r->len - 1] == '\n') {
		memcpy(frame + 8 + len - 1, "\r\n", 2);
		len++;
	}
	te_stream_write(c, frame + (tty ? 8 : 0), len + (tty ? 0 : 8));
}

struct one_record {
	struct te_ctr *t;
	const struct record *r;
};

static void record_follow(struct te_conn *c, void *arg)
{
	struct one_record *o = arg;

	if (strcmp(c->ctr_id, o->t->id) == 0)
		record_send(c, o->t, o->r);
}

/* Lines over 16 KiB come in pieces, as the json-file driver makes them. */
static void ctr_log(struct te_ctr *t, int stream, const char *text, size_t len)
{
	int64_t ns = now_ns(t->te);

	while (len) {
		const char *nl = memchr(text, '\n', len);
		size_t n = nl ? (size_t)(nl - text) + 1 : len;
		struct record *r;
		struct one_record o;

		if (n > 16384)
			n = 16384;
		if ((t->n_log & (t->n_log - 1)) == 0) /* doubles at the powers of two */
			t->log = xrealloc(t->log, t->n_log ? 2 * t->n_log : 1, sizeof(*t->log));
		r = &t->log[t->n_log++];
		*r = (struct record){stream, ns, xmemdup(text, n), n};
		o = (struct one_record){t, r};
		each_conn(t->te, TE_W_LOGS, record_follow, &o);
		text += n;
		len -= n;
	}
}

/* ---- life of a container */

static bool port_taken(struct te_ctr *t, const char *port)
{
	for (size_t i = 0; i < t->te->n_ctrs; i++) {
		struct te_ctr *o = t->te->ctrs[i];
		struct json_object *b;

		b = jget(jget(o->body, "HostConfig"), "PortBindings");
		if (o == t || !o->running || !b)
			continue;
		json_object_object_foreach(b, key, list)
		{
			(void)key;
			for (size_t k = 0; k < jlen(list); k++)
				if (strcmp(jstr(json_object_array_get_idx(list, k), "HostPort"),
					    port) == 0)
					return true;
		}
	}
	return false;
}

static const char *taken_port(struct te_ctr *t)
{
	struct json_object *b = jget(jget(t->body, "HostConfig"), "PortBindings");

	if (!b)
		return NULL;
	json_object_object_foreach(b, key, list)
	{
		(void)key;
		for (size_t k = 0; k < jlen(list); k++) {
			const char *p = jstr(json_object_array_get_idx(list, k), "HostPort");

			if (*p && strcmp(p, "0") != 0 && port_taken(t, p))
				return p;
		}
	}
	return NULL;
}

static void ctr_set_health(struct te_ctr *t, const char *health)
{
	sw_auto_free char *action = xasprintf("health_status: %s", health);

	t->health = strcmp(health, "healthy") == 0     ? "healthy"
		    : strcmp(health, "unhealthy") == 0 ? "unhealthy"
						       : "starting";
	ctr_event(t, action, NULL, NULL);
}

static void on_health(void *arg)
{
	struct te_ctr *t = arg;

	if (!t->running)
		return;
	if (t->healthy_ns && strcmp(t->health, "starting") == 0) {
		ctr_set_health(t, "healthy");
		if (t->unhealthy_ns > t->healthy_ns)
			sw_timer_arm(&t->health_timer, t->unhealthy_ns - t->healthy_ns);
	} else if (t->unhealthy_ns) {
		ctr_set_health(t, "unhealthy");
	}
}

static void on_life(void *arg)
{
	struct te_ctr *t = arg;

	while (t->running && t->at < t->n_steps) {
		struct step *s = &t->steps[t->at++];

		switch (s->op) {
		case OP_SLEEP:
			sw_timer_arm(&t->life, s->ns);
			return;
		case OP_ECHO:
			ctr_log(t, s->n, s->text, strlen(s->text));
			break;
		case OP_EXIT:
			if (t->plan_oom)
				ctr_event(t, "oom", NULL, NULL);
			ctr_exit(t, s->n, t->plan_oom);
			return;
		case OP_FOREVER:
			return;
		}
	}
}

static void on_kill(void *arg)
{
	struct te_ctr *t = arg;

	ctr_event(t, "kill", "signal", "9");
	ctr_exit(t, 137, false);
}

static void waiter_done(struct te_conn *c, void *arg)
{
	struct te_ctr *t = arg;

	if (strcmp(c->ctr_id, t->id) != 0)
		return;
	if (c->wait == TE_W_STOP) {
		c->wait = TE_W_NONE;
		te_reply(c, 204, NULL, "", 0);
	} else if (c->wait == TE_W_LOGS) {
		te_stream_end(c);
	} else if (c->wait == TE_W_EXIT) {
		char body[64];

		snprintf(body, sizeof(body), "{\"Error\":null,\"StatusCode\":%d}\n", t->exit_code);
		te_stream_write(c, body, strlen(body));
		te_stream_end(c);
	}
}

static void wake_waiters(struct te_ctr *t)
{
	each_conn(t->te, TE_W_STOP, waiter_done, t);
	each_conn(t->te, TE_W_LOGS, waiter_done, t);
	each_conn(t->te, TE_W_EXIT, waiter_done, t);
}

static void ctr_end(struct te_ctr *t, int code, bool oom)
{
	sw_timer_stop(&t->life);
	sw_timer_stop(&t->kill);
	sw_timer_stop(&t->health_timer);
	t->running = t->paused = false;
	t->status = "exited";
	t->exit_code = code;
	t->oom = oom;
	t->pid = 0;
	t->finished_ns = now_ns(t->te);
}

static bool stop_wanted(struct te_ctr *t)
{
	struct te_conn *c;

	TAILQ_FOREACH (c, &t->te->conns, link)
		if (c->wait == TE_W_STOP && strcmp(c->ctr_id, t->id) == 0)
			return true;
	return false;
}

static void ctr_exit(struct te_ctr *t, int code, bool oom)
{
	bool stop = stop_wanted(t);
	char text[16];

	if (!t->running)
		return;
	ctr_end(t, code, oom);
	snprintf(text, sizeof(text), "%d", code);
	ctr_event(t, "die", "exitCode", text);
	if (stop)
		ctr_event(t, "stop", NULL, NULL);
	wake_waiters(t);
}

static void ctr_started(struct te_ctr *t)
{
	t->running = true;
	t->status = "running";
	t->exit_code = 0;
	t->oom = false;
	t->pid = 100000 + (int64_t)t->te->next_id++;
	t->started_ns = now_ns(t->te);
	t->finished_ns = 0;
	t->n_starts++;
	t->at = 0;
	t->health = "starting";
	ctr_event(t, "start", NULL, NULL);
	if (t->has_health && (t->healthy_ns || t->unhealthy_ns))
		sw_timer_arm(&t->health_timer, t->healthy_ns ? t->healthy_ns : t->unhealthy_ns);
	sw_timer_arm(&t->life, 0);
}

static void ctr_free(struct te_ctr *t)
{
	sw_timer_stop(&t->life);
	sw_timer_stop(&t->kill);
	sw_timer_stop(&t->health_timer);
	for (size_t i = 0; i < t->n_steps; i++)
		free(t->steps[i].text);
	for (size_t i = 0; i < t->n_log; i++)
		free(t->log[i].text);
	free(t->steps);
	free(t->log);
	free(t->name);
	free(t->error);
	json_object_put(t->body);
	json_object_put(t->networks);
	free(t);
}

static void ctr_remove(struct te_ctr *t)
{
	struct testengine *te = t->te;

	if (t->running) {
		ctr_event(t, "kill", "signal", "9");
		ctr_exit(t, 137, false);
	}
	ctr_event(t, "destroy", NULL, NULL);
	for (size_t i = 0; i < te->n_ctrs; i++)
		if (te->ctrs[i] == t) {
			memmove(te->ctrs + i, te->ctrs + i + 1,
				(te->n_ctrs - i - 1) * sizeof(*te->ctrs));
			te->n_ctrs--;
			break;
		}
	wake_waiters(t);
	ctr_free(t);
}

static struct te_ctr *ctr_find(struct testengine *te, const char *id)
{
	struct te_ctr *found = NULL;

	if (*id == '/')
		id++;
	for (size_t i = 0; i < te->n_ctrs; i++)
		if (strcmp(te->ctrs[i]->id, id) == 0 || strcmp(te->ctrs[i]->name, id) == 0)
			return te->ctrs[i];
	for (size_t i = 0; *id && i < te->n_ctrs; i++)
		if (strncmp(te->ctrs[i]->id, id, strlen(id)) == 0) {
			if (found)
				return NULL;
			found = te->ctrs[i];
		}
	return found;
}

static struct te_ctr *ctr_new(struct testengine *te, const char *name, struct json_object *body)
{
	struct te_ctr *t = xcalloc(1, sizeof(*t));
	struct json_object *test;

	t->te = te;
	make_id(te, t->id);
	t->name = name && *name ? xstrdup(name) : xasprintf("quiet_%" PRIu64, te->next_id);
	t->body = json_object_get(body);
	t->networks = jcopy(jget(jget(body, "NetworkingConfig"), "EndpointsConfig"));
	if (!t->networks)
		t->networks = json_object_new_object();
	t->status = "created";
	t->health = "starting";
	t->created_ns = now_ns(te);
	test = jget(jget(body, "Healthcheck"), "Test");
	t->has_health =
		jlen(test) &&
		strcmp(json_object_get_string(json_object_array_get_idx(test, 0)), "NONE") != 0;
	t->port_base = 32768 + (unsigned)(te->next_id % 20000);
	sw_timer_init(&t->life, te->loop, on_life, t);
	sw_timer_init(&t->kill, te->loop, on_kill, t);
	sw_timer_init(&t->health_timer, te->loop, on_health, t);
	plan(t);
	te->ctrs = xrealloc(te->ctrs, te->n_ctrs + 1, sizeof(struct te_ctr *));
	te->ctrs[te->n_ctrs++] = t;
	ctr_event(t, "create", NULL, NULL);
	return t;
}

/* ---- images */

/* docker.io/library/x -> x, and a tag where nothing stands */
static char *image_norm(const char *ref)
{
	const char *slash, *at;

	if (sw_starts_with(ref, "docker.io/"))
		ref += strlen("docker.io/");
	if (sw_starts_with(ref, "library/"))
		ref += strlen("library/");
	slash = strrchr(ref, '/');
	at = strchr(ref, '@');
	if (at) { /* name:tag@digest is name@digest */
		const char *colon = strchr(slash ? slash : ref, ':');

		if (colon && colon < at)
			return xasprintf("%.*s%s", (int)(colon - ref), ref, at);
		return xstrdup(ref);
	}
	if (!strchr(slash ? slash : ref, ':') && !sw_starts_with(ref, "sha256:"))
		return xasprintf("%s:latest", ref);
	return xstrdup(ref);
}

static void image_id(const char *norm, char id[80])
{
	uint64_t x = 0xcbf29ce484222325ull;
	int n = snprintf(id, 80, "sha256:");

	for (const char *p = norm; *p; p++)
		x = (x ^ (unsigned char)*p) * 0x100000001b3ull;
	for (int i = 0; i < 4; i++) {
		x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
		n += snprintf(id + n, 80 - (size_t)n, "%016" PRIx64, x);
	}
}

static const char *image_find(struct testengine *te, const char *ref)
{
	sw_auto_free char *norm = image_norm(ref);

	json_object_object_foreach(te->images, key, val)
	{
		char id[80];

		(void)val;
		image_id(key, id);
		if (strcmp(key, norm) == 0 || strcmp(id, ref) == 0)
			return key;
	}
	return NULL;
}

void testengine_image_add(struct testengine *te, const char *ref)
{
	sw_auto_free char *norm = image_norm(ref);

	json_object_object_add(te->images, norm, json_object_new_boolean(true));
}

void testengine_image_remove(struct testengine *te, const char *ref)
{
	const char *key = image_find(te, ref);

	if (key) {
		sw_auto_free char *copy = xstrdup(key);

		json_object_object_del(te->images, copy);
	}
}

void testengine_registry_add(
	struct testengine *te, const char *ref, uint64_t pull_ns, const char *stream_error)
{
	sw_auto_free char *norm = image_norm(ref);
	struct json_object *o = json_object_new_object();

	jset_int(o, "ns", (int64_t)pull_ns);
	if (stream_error)
		jset(o, "error", stream_error);
	json_object_object_add(te->registry, norm, o);
}

void testengine_registry_auth(struct testengine *te, const char *ref, const char *header)
{
	sw_auto_free char *norm = image_norm(ref);

	jset(jget(te->registry, norm), "auth", header);
}

static void pull_line(struct te_conn *c, const char *id, const char *status)
{
	sw_auto_free char *line =
		id ? xasprintf("{\"status\":\"%s\",\"progressDetail\":{},\"id\":\"%s\"}\r\n",
			     status, id)
		   : xasprintf("{\"status\":\"%s\"}\r\n", status);

	te_stream_write(c, line, strlen(line));
}

static void on_pulled(void *arg)
{
	struct te_conn *c = arg;
	sw_auto_free char *text = NULL;

	if (c->pull_rest_ns) {
		pull_line(c, "bbbbbbbbbbbb", "Download complete");
		sw_timer_arm(&c->timer, c->pull_rest_ns);
		c->pull_rest_ns = 0;
		return;
	}
	if (c->pull_error) {
		struct json_object *o = json_object_new_object(), *d = json_object_new_object();

		jset(d, "message", c->pull_error);
		json_object_object_add(o, "errorDetail", d);
		jset(o, "error", c->pull_error);
		text = xasprintf("%s\r\n", json_object_to_json_string_ext(o, 0));
		json_object_put(o);
		te_stream_write(c, text, strlen(text));
	} else {
		testengine_image_add(c->te, c->pull_ref);
		pull_line(c, "aaaaaaaaaaaa", "Download complete");
		pull_line(c, "aaaaaaaaaaaa", "Pull complete");
		pull_line(c, "bbbbbbbbbbbb", "Pull complete");
		text = xasprintf("Status: Downloaded newer image for %s", c->pull_ref);
		pull_line(c, NULL, text);
	}
	te_stream_end(c);
}

static void do_pull(struct te_conn *c)
{
	struct testengine *te = c->te;
	sw_auto_free char *name = te_query(c, "fromImage"), *tag = te_query(c, "tag");
	sw_auto_free char *ref = NULL, *norm = NULL, *text = NULL;
	struct json_object *entry;
	uint64_t ns;

	if (sw_str_empty(name)) {
		te_reply_msg(c, 400, "invalid reference format");
		return;
	}
	ref = tag ? xasprintf("%s%s%s", name, strchr(tag, ':') ? "@" : ":", tag) : xstrdup(name);
	norm = image_norm(ref);
	entry = jget(te->registry, norm);
	if (!entry) {
		te_reply_msg(c, 404,
			"pull access denied for %s, repository does not exist or may require "
			"'docker "
			"login': denied: requested access to the resource is denied",
			name);
		return;
	}
	if (jget(entry, "auth") && !sw_streq(jstr(entry, "auth"), c->auth)) {
		te_reply_msg(c, 500,
			"Head \"https://%s/manifests/1\": unauthorized: authentication required",
			name);
		return;
	}
	c->wait = TE_W_PULL;
	c->pull_ref = xstrdup(ref);
	c->pull_error = jget(entry, "error") ? xstrdup(jstr(entry, "error")) : NULL;
	sw_timer_init(&c->timer, te->loop, on_pulled, c);
	ns = (uint64_t)json_object_get_int64(jget(entry, "ns"));
	c->pull_rest_ns = ns / 2;
	sw_timer_arm(&c->timer, ns - ns / 2);
	te_stream_begin(c, 200, "application/json");
	text = xasprintf("Pulling from %s", name);
	pull_line(c, tag ? tag : "latest", text);
	pull_line(c, "aaaaaaaaaaaa", "Pulling fs layer");
	pull_line(c, "bbbbbbbbbbbb", "Pulling fs layer");
	pull_line(c, "aaaaaaaaaaaa", "Downloading");
}

static void do_image_inspect(struct te_conn *c, const char *ref)
{
	const char *key = image_find(c->te, ref);
	struct json_object *o, *tags, *digests;
	sw_auto_free char *digest = NULL;
	char id[80];

	if (!key) {
		te_reply_msg(c, 404, "No such image: %s", ref);
		return;
	}
	o = json_object_new_object();
	tags = json_object_new_array();
	digests = json_object_new_array();
	image_id(key, id);
	jset(o, "Id", id);
	if (strchr(key, '@')) {
		digest = xstrdup(key);
	} else {
		json_object_array_add(tags, json_object_new_string(key));
		digest = xasprintf("%.*s@%s", (int)strcspn(key, ":"), key, id);
	}
	json_object_array_add(digests, json_object_new_string(digest));
	json_object_object_add(o, "RepoTags", tags);
	json_object_object_add(o, "RepoDigests", digests);
	te_reply_json(c, 200, o);
}

/* ---- containers: endpoints */

static const char *missing_bind(struct json_object *body)
{
	struct json_object *mounts = jget(jget(body, "HostConfig"), "Mounts");

	for (size_t i = 0; i < jlen(mounts); i++) {
		struct json_object *m = json_object_array_get_idx(mounts, i);

		if (strcmp(jstr(m, "Type"), "bind") == 0 && access(jstr(m, "Source"), F_OK) != 0)
			return jstr(m, "Source");
	}
	return NULL;
}

static void do_create(struct te_conn *c)
{
	struct testengine *te = c->te;
	struct json_object *body = json_tokener_parse(c->body), *o;
	sw_auto_free char *name = te_query(c, "name");
	const char *bind;
	struct te_ctr *t;

	if (!json_object_is_type(body, json_type_object)) {
		te_reply_msg(c, 400, "invalid JSON");
	} else if (!*jstr(body, "Image")) {
		te_reply_msg(c, 400, "config cannot be empty in order to create a container");
	} else if ((bind = missing_bind(body)) && !te->podman) {
		te_reply_msg(c, 400,
			"invalid mount config for type \"bind\": bind source path does not exist: "
			"%s",
			bind);
	} else if (!image_find(te, jstr(body, "Image"))) {
		te_reply_msg(c, 404, "No such image: %s", jstr(body, "Image"));
	} else if (name && (t = ctr_find(te, name)) && strcmp(t->name, name) == 0) {
		if (te->podman)
			te_reply_msg(c, 500,
				"creating container storage: the container name \"%s\" is already "
				"in "
				"use by %s. You have to remove that container to be able to reuse "
				"that name: that name is already in use",
				name, t->id);
		else
			te_reply_msg(c, 409,
				"Conflict. The container name \"/%s\" is already in use by "
				"container "
				"\"%s\". You have to remove (or rename) that container to be able "
				"to "
				"reuse that name.",
				name, t->id);
	} else {
		t = ctr_new(te, name, body);
		o = json_object_new_object();
		jset(o, "Id", t->id);
		json_object_object_add(o, "Warnings", json_object_new_array());
		te_reply_json(c, 201, o);
	}
	json_object_put(body);
}

static struct json_object *ports_json(struct te_ctr *t)
{
	struct json_object *b = jget(jget(t->body, "HostConfig"), "PortBindings");
	struct json_object *o = json_object_new_object();
	unsigned k = 0;

	if (!b || !t->running)
		return o;
	json_object_object_foreach(b, key, list)
	{
		struct json_object *out = json_object_new_array();

		for (size_t i = 0; i < jlen(list); i++) {
			const char *want = jstr(json_object_array_get_idx(list, i), "HostPort");
			char port[16];

			if (*want && strcmp(want, "0") != 0)
				snprintf(port, sizeof(port), "%s", want);
			else
				snprintf(port, sizeof(port), "%u", t->port_base + k++);
			for (int v6 = 0; v6 < 2; v6++) { /* dual stack: every port twice */
				struct json_object *one = json_object_new_object();

				jset(one, "HostIp", v6 ? "::" : "0.0.0.0");
				jset(one, "HostPort", port);
				json_object_array_add(out, one);
			}
		}
		json_object_object_add(o, key, out);
	}
	return o;
}

/* The same as a listing has it: [{"PrivatePort","PublicPort","Type"}]. */
static struct json_object *listed_ports(struct te_ctr *t)
{
	struct json_object *map = ports_json(t), *out = json_object_new_array();

	json_object_object_foreach(map, key, list)
	{
		for (size_t i = 0; i < jlen(list); i++) {
			struct json_object *one = json_object_new_object();
			const char *port = jstr(json_object_array_get_idx(list, i), "HostPort");

			jset_int(one, "PrivatePort", strtol(key, NULL, 10));
			jset_int(one, "PublicPort", strtol(port, NULL, 10));
			jset(one, "Type", strchr(key, '/') ? strchr(key, '/') + 1 : "tcp");
			json_object_array_add(out, one);
		}
	}
	json_object_put(map);
	return out;
}

static struct json_object *health_json(struct te_ctr *t)
{
	struct json_object *o = json_object_new_object(), *log = json_object_new_array();

	jset(o, "Status", t->health);
	jset_int(o, "FailingStreak", strcmp(t->health, "unhealthy") == 0 ? 3 : 0);
	if (strcmp(t->health, "unhealthy") == 0) {
		struct json_object *one = json_object_new_object();

		jset_int(one, "ExitCode", 1);
		jset(one, "Output", "probe says no\n");
		json_object_array_add(log, one);
	}
	json_object_object_add(o, "Log", log);
	return o;
}

static struct json_object *inspect_json(struct te_ctr *t)
{
	struct json_object *o = json_object_new_object(), *s = json_object_new_object();
	struct json_object *cfg = jcopy(t->body), *net = json_object_new_object();
	sw_auto_free char *name = xasprintf("/%s", t->name);
	char ts[64];

	jset(o, "Id", t->id);
	stamp(t->created_ns, ts, sizeof(ts));
	jset(o, "Created", ts);
	jset(s, "Status", t->paused ? "paused" : t->status);
	jset_bool(s, "Running", t->running);
	jset_bool(s, "Paused", t->paused);
	jset_bool(s, "Restarting", false);
	jset_bool(s, "OOMKilled", t->oom);
	jset_bool(s, "Dead", false);
	jset_int(s, "Pid", t->pid);
	jset_int(s, "ExitCode", t->exit_code);
	jset(s, "Error", t->error ? t->error : "");
	stamp(t->started_ns, ts, sizeof(ts));
	jset(s, "StartedAt", ts);
	stamp(t->finished_ns, ts, sizeof(ts));
	jset(s, "FinishedAt", ts);
	if (t->has_health && t->n_starts)
		json_object_object_add(s, "Health", health_json(t));
	json_object_object_add(o, "State", s);
	jset(o, "Image", jstr(t->body, "Image"));
	jset(o, "Name", name);
	json_object_object_add(o, "HostConfig", jcopy(jget(t->body, "HostConfig")));
	json_object_object_del(cfg, "HostConfig");
	json_object_object_del(cfg, "NetworkingConfig");
	json_object_object_add(o, "Config", cfg);
	json_object_object_add(net, "Ports", ports_json(t));
	json_object_object_add(net, "Networks", jcopy(t->networks));
	json_object_object_add(o, "NetworkSettings", net);
	json_object_object_add(o, "Mounts", json_object_new_array());
	return o;
}

static void do_list(struct te_conn *c)
{
	sw_auto_free char *text = te_query(c, "filters");
	struct json_object *filters = text ? json_tokener_parse(text) : NULL;
	struct json_object *out = json_object_new_array();
	bool all = te_query_bool(c, "all");

	for (size_t i = c->te->n_ctrs; i-- > 0;) { /* newest first, as the engine does it */
		struct te_ctr *t = c->te->ctrs[i];
		sw_auto_free char *name = xasprintf("/%s", t->name);
		struct json_object *o, *names, *labels = jget(t->body, "Labels");

		if ((!all && !t->running) || !labels_match(filters, labels) ||
			!listed(filters, "name", t->name, false) ||
			!listed(filters, "id", t->id, false) ||
			!listed(filters, "status", t->status, false))
			continue;
		o = json_object_new_object();
		names = json_object_new_array();
		json_object_array_add(names, json_object_new_string(name));
		jset(o, "Id", t->id);
		json_object_object_add(o, "Names", names);
		jset(o, "Image", jstr(t->body, "Image"));
		json_object_object_add(o, "Labels", jcopy(labels));
		jset(o, "State", t->paused ? "paused" : t->status);
		jset(o, "Status", t->running ? "Up 1 second" : "Exited");
		json_object_object_add(o, "Ports", listed_ports(t));
		jset_int(o, "Created", t->created_ns / 1000000000);
		json_object_array_add(out, o);
	}
	json_object_put(filters);
	te_reply_json(c, 200, out);
}

static bool network_known(struct testengine *te, const char *name)
{
	json_object_object_foreach(te->networks, key, o)
	{
		if (strcmp(key, name) == 0 || strcmp(jstr(o, "Id"), name) == 0)
			return true;
	}
	return false;
}

static const char *missing_network(struct te_ctr *t)
{
	const char *mode = jstr(jget(t->body, "HostConfig"), "NetworkMode");

	if (*mode && strcmp(mode, "default") != 0 && !sw_starts_with(mode, "container:") &&
		!network_known(t->te, mode))
		return mode;
	json_object_object_foreach(t->networks, key, val)
	{
		(void)val;
		if (strcmp(key, "default") != 0 && !network_known(t->te, key))
			return key;
	}
	return NULL;
}

static void do_start(struct te_conn *c, struct te_ctr *t)
{
	static const char *const why[] = {[126 - 126] = "exec: \"x\": permission denied: unknown",
		[127 - 126] = "exec: \"x\": executable file not found in $PATH: unknown",
		[128 - 126] = "unable to find user x: no matching entries in passwd file"};
	const char *bad;

	if (t->running) {
		te_reply(c, 304, NULL, "", 0);
	} else if ((bad = missing_network(t))) {
		te_reply_msg(c, 404, "network %s not found", bad);
	} else if ((bad = taken_port(t))) {
		te_reply_msg(c, 500,
			"driver failed programming external connectivity on endpoint %s: Bind for "
			"0.0.0.0:%s failed: port is already allocated",
			t->name, bad);
	} else if (t->start_fail) {
		free(t->error);
		t->error = xasprintf("OCI runtime create failed: %s", why[t->start_fail - 126]);
		t->exit_code = t->start_fail;
		te_reply_msg(c, t->start_fail == 128 ? 500 : 400, "%s", t->error);
	} else {
		ctr_started(t);
		te_reply(c, 204, NULL, "", 0);
	}
}

static void do_stop(struct te_conn *c, struct te_ctr *t)
{
	sw_auto_free char *secs = te_query(c, "t");
	struct json_object *own = jget(t->body, "StopTimeout");
	int grace = secs ? atoi(secs) : own ? json_object_get_int(own) : 10;

	if (!t->running) {
		te_reply(c, 304, NULL, "", 0);
		return;
	}
	c->wait = TE_W_STOP;
	snprintf(c->ctr_id, sizeof(c->ctr_id), "%s", t->id);
	ctr_event(t, "kill", "signal", "15");
	if (t->ignore_term || t->paused)
		sw_timer_arm(&t->kill, grace < 0 ? sw_s(3600) : sw_s((uint64_t)grace));
	else
		ctr_exit(t, t->term_code, false);
}

static void do_kill(struct te_conn *c, struct te_ctr *t)
{
	sw_auto_free char *sig = te_query(c, "signal");
	bool term = sig && (strcmp(sig, "SIGTERM") == 0 || strcmp(sig, "TERM") == 0);

	if (!t->running) {
		if (c->te->podman)
			te_reply_msg(c, 500,
				"can only kill running containers: container state improper");
		else
			te_reply_msg(c, 409,
				"Cannot kill container: %s: Container %s is not running", t->name,
				t->id);
		return;
	}
	ctr_event(t, "kill", "signal", term ? "15" : "9");
	te_reply(c, 204, NULL, "", 0);
	if (!term)
		ctr_exit(t, 137, false);
	else if (!t->ignore_term)
		ctr_exit(t, t->term_code, false);
}

static void do_remove(struct te_conn *c, struct te_ctr *t)
{
	if (t->running && !te_query_bool(c, "force")) {
		te_reply_msg(c, 409,
			"You cannot remove a running container %s. Stop the container before "
			"attempting removal or force remove",
			t->id);
		return;
	}
	ctr_remove(t);
	te_reply(c, 204, NULL, "", 0);
}

static void do_wait(struct te_conn *c, struct te_ctr *t)
{
	te_stream_begin(c, 200, "application/json");
	snprintf(c->ctr_id, sizeof(c->ctr_id), "%s", t->id);
	c->wait = TE_W_EXIT;
	if (!t->running)
		waiter_done(c, t);
}

static int64_t parse_since(const char *s)
{
	int64_t sec, ns = 0;
	char *end;

	if (!s)
		return 0;
	sec = strtoll(s, &end, 10);
	if (*end == '.') {
		int64_t unit = 100000000;

		for (end++; isdigit((unsigned char)*end); end++, unit /= 10)
			ns += (*end - '0') * unit;
	}
	return sec * 1000000000 + ns;
}

static void do_logs(struct te_conn *c, struct te_ctr *t)
{
	sw_auto_free char *since = te_query(c, "since"), *tail = te_query(c, "tail");
	const char *driver = jstr(jget(jget(t->body, "HostConfig"), "LogConfig"), "Type");
	size_t first = 0;

	c->log_out = te_query_bool(c, "stdout");
	c->log_err = te_query_bool(c, "stderr");
	c->log_stamps = te_query_bool(c, "timestamps");
	c->log_details = te_query_bool(c, "details");
	c->since_ns = parse_since(since);
	if (!c->log_out && !c->log_err) {
		te_reply_msg(c, 400, "Bad parameters: you must choose at least one stream");
		return;
	}
	if (strcmp(driver, "none") == 0) {
		te_reply_msg(c, 501, "configured logging driver does not support reading");
		return;
	}
	te_stream_begin(c, 200, NULL);
	if (tail && isdigit((unsigned char)*tail)) {
		size_t want = strtoul(tail, NULL, 10), lines = 0;

		for (first = t->n_log; first && lines < want; first--)
			lines += 1;
	}
	for (size_t i = first; i < t->n_log && !c->closing; i++)
		record_send(c, t, &t->log[i]);
	if (c->closing)
		return;
	snprintf(c->ctr_id, sizeof(c->ctr_id), "%s", t->id);
	if (te_query_bool(c, "follow") && t->running)
		c->wait = TE_W_LOGS;
	else
		te_stream_end(c);
}

static void do_pause(struct te_conn *c, struct te_ctr *t, bool paused)
{
	if (!t->running) {
		te_reply_msg(c, 409, "Container %s is not running", t->id);
		return;
	}
	testengine_container_pause(c->te, t->id, paused);
	te_reply(c, 204, NULL, "", 0);
}

static void container_endpoint(struct te_conn *c, const char *rest)
{
	size_t n = strcspn(rest, "/");
	const char *what = rest + n;
	sw_auto_free char *raw = xstrndup(rest, n), *id = NULL;
	bool get = strcmp(c->method, "GET") == 0, post = strcmp(c->method, "POST") == 0;
	struct te_ctr *t;
	char *w;

	for (char *p = w = raw; (*w = *p); p++, w++) /* percent-decoded in place */
		if (*p == '%' && isxdigit((unsigned char)p[1]) && isxdigit((unsigned char)p[2])) {
			char hex[3] = {p[1], p[2], 0};

			*w = (char)strtoul(hex, NULL, 16);
			p += 2;
		}
	id = xstrdup(raw);
	t = ctr_find(c->te, id);
	if (!t) {
		te_reply_msg(c, 404,
			c->te->podman
				? "no container with name or ID \"%s\" found: no such container"
				: "No such container: %s",
			id);
		return;
	}
	if (get && strcmp(what, "/json") == 0)
		te_reply_json(c, 200, inspect_json(t));
	else if (get && strcmp(what, "/logs") == 0)
		do_logs(c, t);
	else if (post && strcmp(what, "/start") == 0)
		do_start(c, t);
	else if (post && strcmp(what, "/stop") == 0)
		do_stop(c, t);
	else if (post && strcmp(what, "/kill") == 0)
		do_kill(c, t);
	else if (post && strcmp(what, "/wait") == 0)
		do_wait(c, t);
	else if (post && strcmp(what, "/pause") == 0)
		do_pause(c, t, true);
	else if (post && strcmp(what, "/unpause") == 0)
		do_pause(c, t, false);
	else if (strcmp(c->method, "DELETE") == 0 && !*what)
		do_remove(c, t);
	else
		te_reply_msg(c, 404, "page not found");
}

/* ---- networks, volumes */

void testengine_network_add(struct testengine *te, const char *name, const char *driver)
{
	struct json_object *o = json_object_new_object();
	char id[65];

	make_id(te, id);
	jset(o, "Name", name);
	jset(o, "Id", id);
	jset(o, "Scope", "local");
	jset(o, "Driver", driver);
	json_object_object_add(o, "Labels", json_object_new_object());
	json_object_object_add(te->networks, name, o);
}

static struct json_object *network_find(struct testengine *te, const char *name)
{
	json_object_object_foreach(te->networks, key, o)
	{
		if (strcmp(key, name) == 0 || strcmp(jstr(o, "Id"), name) == 0)
			return o;
	}
	return NULL;
}

static void network_create(struct te_conn *c)
{
	struct json_object *body = json_tokener_parse(c->body), *o, *net;
	const char *name = jstr(body, "Name"), *driver = jstr(body, "Driver");

	if (!*name) {
		te_reply_msg(c, 400, "network name is required");
	} else if (jget(c->te->networks, name)) {
		te_reply_msg(c, 409, "network with name %s already exists", name);
	} else if (strcmp(driver, "overlay") == 0) {
		te_reply_msg(c, 500, "This node is not a swarm manager.");
	} else if (*jstr(jget(body, "ConfigFrom"), "Network") &&
		   !jget(c->te->networks, jstr(jget(body, "ConfigFrom"), "Network"))) {
		te_reply_msg(c, 404, "configuration network \"%s\" does not exist",
			jstr(jget(body, "ConfigFrom"), "Network"));
	} else if (jget(body, "ConfigFrom") && jget(body, "Labels")) {
		te_reply_msg(c, 403,
			"user specified configurations are not supported if the network depends on "
			"a configuration network");
	} else if (*driver && !strstr(" bridge host null macvlan ipvlan ", driver)) {
		te_reply_msg(c, 404, "plugin \"%s\" not found", driver);
	} else {
		testengine_network_add(c->te, name, *driver ? driver : "bridge");
		net = jget(c->te->networks, name);
		if (jget(body, "Labels"))
			json_object_object_add(net, "Labels", jcopy(jget(body, "Labels")));
		if (jget(body, "ConfigFrom"))
			json_object_object_add(net, "ConfigFrom", jcopy(jget(body, "ConfigFrom")));
		o = json_object_new_object();
		jset(o, "Id", jstr(net, "Id"));
		jset(o, "Warning", "");
		te_reply_json(c, 201, o);
	}
	json_object_put(body);
}

static void network_connect(struct te_conn *c, struct json_object *net)
{
	struct json_object *body = json_tokener_parse(c->body), *ep;
	struct te_ctr *t = ctr_find(c->te, jstr(body, "Container"));

	if (!t) {
		te_reply_msg(c, 404, "No such container: %s", jstr(body, "Container"));
	} else if (jget(t->networks, jstr(net, "Name"))) {
		te_reply_msg(c, 403, "endpoint with name %s already exists in network %s", t->name,
			jstr(net, "Name"));
	} else {
		ep = jcopy(jget(body, "EndpointConfig"));
		json_object_object_add(
			t->networks, jstr(net, "Name"), ep ? ep : json_object_new_object());
		te_reply(c, 200, NULL, "", 0);
	}
	json_object_put(body);
}

static bool network_used(struct testengine *te, const char *name)
{
	for (size_t i = 0; i < te->n_ctrs; i++)
		if (te->ctrs[i]->running && jget(te->ctrs[i]->networks, name))
			return true;
	return false;
}

static void network_endpoint(struct te_conn *c, const char *rest)
{
	size_t n = strcspn(rest, "/");
	sw_auto_free char *name = xstrndup(rest, n);
	struct json_object *net = network_find(c->te, name);

	if (!net) {
		te_reply_msg(c, 404, "network %s not found", name);
	} else if (strcmp(c->method, "GET") == 0 && !rest[n]) {
		te_reply_json(c, 200, jcopy(net));
	} else if (strcmp(c->method, "POST") == 0 && strcmp(rest + n, "/connect") == 0) {
		network_connect(c, net);
	} else if (strcmp(c->method, "DELETE") == 0 && !rest[n]) {
		sw_auto_free char *key = xstrdup(jstr(net, "Name"));

		if (network_used(c->te, key)) {
			te_reply_msg(c, 403,
				"error while removing network: network %s id %s has active "
				"endpoints",
				key, jstr(net, "Id"));
			return;
		}
		json_object_object_del(c->te->networks, key);
		te_reply(c, 204, NULL, "", 0);
	} else {
		te_reply_msg(c, 404, "page not found");
	}
}

static void volume_create(struct te_conn *c)
{
	struct json_object *body = json_tokener_parse(c->body), *v;
	const char *name = jstr(body, "Name"), *driver = jstr(body, "Driver");
	sw_auto_free char *mountpoint = NULL;
	char id[65];

	if (!*name) {
		make_id(c->te, id);
		name = id;
	}
	if (*driver && strcmp(driver, "local") != 0) {
		te_reply_msg(c, 404,
			"create %s: error looking up volume plugin %s: plugin \"%s\" not found",
			name, driver, driver);
		json_object_put(body);
		return;
	}
	v = jget(c->te->volumes, name);
	if (!v) {
		v = json_object_new_object();
		mountpoint = xasprintf("/var/lib/docker/volumes/%s/_data", name);
		jset(v, "Name", name);
		jset(v, "Driver", "local");
		jset(v, "Mountpoint", mountpoint);
		jset(v, "Scope", "local");
		json_object_object_add(v, "Labels", jcopy(jget(body, "Labels")));
		json_object_object_add(v, "Options", jcopy(jget(body, "DriverOpts")));
		json_object_object_add(c->te->volumes, name, v);
	}
	te_reply_json(c, 201, jcopy(v));
	json_object_put(body);
}

static void volume_endpoint(struct te_conn *c, const char *name)
{
	struct json_object *v = jget(c->te->volumes, name);

	if (!v) {
		te_reply_msg(c, 404, "get %s: no such volume", name);
	} else if (strcmp(c->method, "GET") == 0) {
		te_reply_json(c, 200, jcopy(v));
	} else if (strcmp(c->method, "DELETE") == 0) {
		json_object_object_del(c->te->volumes, name);
		te_reply(c, 204, NULL, "", 0);
	} else {
		te_reply_msg(c, 404, "page not found");
	}
}

/* ---- node, events, routes */

static void do_events(struct te_conn *c)
{
	sw_auto_free char *text = te_query(c, "filters"), *since = te_query(c, "since");
	struct testengine *te = c->te;
	size_t n = SW_ARRAY_LEN(te->ring.ev);

	c->filters = text ? json_tokener_parse(text) : NULL;
	c->since_ns = parse_since(since);
	te_stream_begin(c, 200, "application/json");
	c->wait = TE_W_EVENTS;
	for (size_t i = te->ring.n > n ? te->ring.n - n : 0; since && i < te->ring.n; i++) {
		struct json_object *ev = te->ring.ev[i % n];

		if (c->closing)
			return;
		if (json_object_get_int64(jget(ev, "timeNano")) >= c->since_ns)
			event_send(c, ev);
	}
}

static int version_number(const char *v)
{
	int major = 0, minor = 0;

	sscanf(v, "%d.%d", &major, &minor);
	return major * 1000 + minor;
}

static bool version_refused(struct te_conn *c)
{
	struct testengine *te = c->te;
	char v[32];

	if (sscanf(c->target, "/v%31[0-9.]/", v) != 1 || te->podman || !te->api_version[0])
		return false;
	if (version_number(v) > version_number(te->api_version)) {
		te_reply_msg(c, 400,
			"client version %s is too new. Maximum supported API version is %s", v,
			te->api_version);
		return true;
	}
	if (version_number(v) < 1012) {
		te_reply_msg(c, 400,
			"client version %s is too old. Minimum supported API version is 1.12, "
			"please "
			"upgrade your client to a newer version",
			v);
		return true;
	}
	return false;
}

static bool is(const struct te_conn *c, const char *method, const char *path)
{
	return strcmp(c->method, method) == 0 && strcmp(c->path, path) == 0;
}

static void refresh_info(struct testengine *te)
{
	jset_int(te->info, "Containers", (int64_t)te->n_ctrs);
	jset_int(te->info, "ContainersRunning", (int64_t)testengine_n_running(te));
}

void te_dispatch(struct te_conn *c)
{
	struct testengine *te = c->te;
	struct json_object *o;

	if (version_refused(c))
		return;
	if (strcmp(c->path, "/_ping") == 0) {
		te_reply(c, 200, "text/plain; charset=utf-8", "OK", 2);
	} else if (is(c, "GET", "/info")) {
		refresh_info(te);
		te_reply_json(c, 200, jcopy(te->info));
	} else if (is(c, "GET", "/version")) {
		o = json_object_new_object();
		jset(o, "Version", jstr(te->info, "ServerVersion"));
		jset(o, "ApiVersion", te->api_version);
		te_reply_json(c, 200, o);
	} else if (is(c, "GET", "/plugins") && !te->podman) {
		te_reply_json(c, 200, te->plugins ? jcopy(te->plugins) : json_object_new_array());
	} else if (is(c, "POST", "/containers/create")) {
		do_create(c);
	} else if (is(c, "GET", "/containers/json")) {
		do_list(c);
	} else if (sw_starts_with(c->path, "/containers/")) {
		container_endpoint(c, c->path + strlen("/containers/"));
	} else if (is(c, "POST", "/images/create")) {
		do_pull(c);
	} else if (sw_starts_with(c->path, "/images/") && strlen(c->path) > 13 &&
		   strcmp(c->path + strlen(c->path) - 5, "/json") == 0) {
		sw_auto_free char *raw =
			xstrndup(c->path + 8, strlen(c->path) - 8 - strlen("/json"));
		char *w = raw;

		for (char *p = raw; (*w = *p); p++, w++)
			if (*p == '%' && isxdigit((unsigned char)p[1]) &&
				isxdigit((unsigned char)p[2])) {
				char hex[3] = {p[1], p[2], 0};

				*w = (char)strtoul(hex, NULL, 16);
				p += 2;
			}
		do_image_inspect(c, raw);
	} else if (is(c, "POST", "/networks/create")) {
		network_create(c);
	} else if (sw_starts_with(c->path, "/networks/")) {
		network_endpoint(c, c->path + strlen("/networks/"));
	} else if (is(c, "POST", "/volumes/create")) {
		volume_create(c);
	} else if (sw_starts_with(c->path, "/volumes/")) {
		volume_endpoint(c, c->path + strlen("/volumes/"));
	} else if (is(c, "GET", "/events")) {
		do_events(c);
	} else {
		te_reply_msg(c, 404, "page not found");
	}
}

void te_conn_gone(struct te_conn *c)
{
	c->wait = TE_W_NONE; /* a pull stops with its connection */
}

/* ---- door */

static void on_end(void *arg)
{
	struct testengine *te = arg;

	for (size_t i = 0; i < te->n_ctrs; i++)
		ctr_free(te->ctrs[i]);
	for (size_t i = 0; i < te->n_requests; i++)
		free(te->requests[i]);
	for (size_t i = 0; i < SW_ARRAY_LEN(te->ring.ev); i++)
		json_object_put(te->ring.ev[i]);
	testengine_fault_clear(te);
	json_object_put(te->info);
	json_object_put(te->plugins);
	json_object_put(te->images);
	json_object_put(te->registry);
	json_object_put(te->networks);
	json_object_put(te->volumes);
	if (te->closed)
		te->closed(te->closed_arg);
	free(te->ctrs);
	free(te->requests);
	free(te->last_auth);
	free(te->drop.action);
	free(te->path);
	free(te->api_version);
	free(te->server);
	free(te->hostname);
	free(te);
}

static struct json_object *info_new(const struct testengine *te)
{
	struct json_object *o = json_tokener_parse(
		"{\"ID\":\"TEST:ENGI\",\"NCPU\":4,\"MemTotal\":8589934592,\"OSType\":\"linux\","
		"\"ServerVersion\":\"20.10.24\",\"Labels\":[\"zone=test\"],"
		"\"LiveRestoreEnabled\":false,\"GenericResources\":null,"
		"\"Plugins\":{\"Volume\":[\"local\"],\"Network\":[\"bridge\",\"host\",\"ipvlan\","
		"\"macvlan\",\"null\",\"overlay\"],\"Authorization\":null,"
		"\"Log\":[\"json-file\",\"local\",\"syslog\"]},"
		"\"Swarm\":{\"NodeID\":\"\",\"LocalNodeState\":\"inactive\"}}");

	jset(o, "Name", te->hostname);
	jset(o, "Architecture", te->podman ? "amd64" : "x86_64");
	return o;
}

int testengine_new(struct testengine **ret, struct sw_loop *l, const struct testengine_config *cfg,
	struct sw_err *err)
{
	struct testengine *te = xcalloc(1, sizeof(*te));
	int r;

	signal(SIGPIPE, SIG_IGN); /* clients that vanish are the point of it */
	te->loop = l;
	te->path = xstrdup(cfg->socket_path);
	te->podman = cfg->podman;
	te->api_version = xstrdup(cfg->api_version ? cfg->api_version : "1.41");
	te->server = xstrdup(cfg->server   ? cfg->server
			     : cfg->podman ? "Libpod/4.3.1 (linux)"
					   : "Docker/20.10.24 (linux)");
	te->hostname = xstrdup(cfg->hostname ? cfg->hostname : "testengine");
	TAILQ_INIT(&te->conns);
	TAILQ_INIT(&te->faults);
	sw_timer_init(&te->end, l, on_end, te);
	te->info = info_new(te);
	te->images = json_object_new_object();
	te->registry = json_object_new_object();
	te->networks = json_object_new_object();
	te->volumes = json_object_new_object();
	testengine_network_add(te, "bridge", "bridge");
	testengine_network_add(te, "host", "host");
	testengine_network_add(te, "none", "null");
	testengine_image_add(te, "bb:1");
	r = te_listen(te, err);
	if (r < 0) {
		testengine_close(te, NULL, NULL);
		return r;
	}
	*ret = te;
	return 0;
}

void testengine_close(struct testengine *te, void (*closed)(void *arg), void *arg)
{
	if (!te)
		return;
	te->closing = true;
	te->closed = closed;
	te->closed_arg = arg;
	te_unlisten(te, false);
	for (size_t i = 0; i < te->n_ctrs; i++) {
		sw_timer_stop(&te->ctrs[i]->life);
		sw_timer_stop(&te->ctrs[i]->kill);
		sw_timer_stop(&te->ctrs[i]->health_timer);
	}
	te_maybe_closed(te);
}

const char *testengine_host(const struct testengine *te)
{
	static __thread char host[256];

	snprintf(host, sizeof(host), "unix://%s", te->path);
	return host;
}

struct json_object *testengine_info(struct testengine *te)
{
	return te->info;
}

void testengine_plugins_set(struct testengine *te, struct json_object *plugins)
{
	json_object_put(te->plugins);
	te->plugins = plugins;
}

void testengine_version_set(struct testengine *te, const char *api_version, const char *server)
{
	free(te->api_version);
	te->api_version = xstrdup(api_version);
	if (server) {
		free(te->server);
		te->server = xstrdup(server);
	}
}

size_t testengine_n_containers(const struct testengine *te)
{
	return te->n_ctrs;
}

size_t testengine_n_running(const struct testengine *te)
{
	size_t n = 0;

	for (size_t i = 0; i < te->n_ctrs; i++)
		n += te->ctrs[i]->running;
	return n;
}

static void view(const struct te_ctr *t, struct testengine_container *ret)
{
	*ret = (struct testengine_container){.id = t->id,
		.name = t->name,
		.status = t->paused ? "paused" : t->status,
		.running = t->running,
		.exit_code = t->exit_code,
		.body = t->body,
		.n_starts = t->n_starts};
}

bool testengine_container_at(struct testengine *te, size_t i, struct testengine_container *ret)
{
	if (i >= te->n_ctrs)
		return false;
	view(te->ctrs[i], ret);
	return true;
}

bool testengine_container_find(
	struct testengine *te, const char *id, struct testengine_container *ret)
{
	struct te_ctr *t = ctr_find(te, id);

	if (t)
		view(t, ret);
	return t;
}

void testengine_container_exit(struct testengine *te, const char *id, int code, bool oom)
{
	struct te_ctr *t = ctr_find(te, id);

	if (!t)
		return;
	if (oom)
		ctr_event(t, "oom", NULL, NULL);
	ctr_exit(t, code, oom);
}

void testengine_container_health(struct testengine *te, const char *id, const char *status)
{
	struct te_ctr *t = ctr_find(te, id);

	if (t)
		ctr_set_health(t, status);
}

void testengine_container_pause(struct testengine *te, const char *id, bool paused)
{
	struct te_ctr *t = ctr_find(te, id);

	if (!t || !t->running || t->paused == paused)
		return;
	t->paused = paused;
	ctr_event(t, paused ? "pause" : "unpause", NULL, NULL);
}

void testengine_container_remove(struct testengine *te, const char *id)
{
	struct te_ctr *t = ctr_find(te, id);

	if (t)
		ctr_remove(t);
}

const char *testengine_container_make(
	struct testengine *te, const char *name, struct json_object *body, bool start)
{
	struct te_ctr *t = ctr_new(te, name, body);

	if (start)
		ctr_started(t);
	return t->id;
}

void testengine_log(struct testengine *te, const char *id, int stream, const char *text, size_t len)
{
	struct te_ctr *t = ctr_find(te, id);

	if (t)
		ctr_log(t, stream, text, len);
}

struct raw {
	const char *p;
	size_t len;
};

static void raw_one(struct te_conn *c, void *arg)
{
	struct raw *r = arg;

	te_stream_write(c, r->p, r->len);
}

void testengine_event_raw(struct testengine *te, const char *bytes, size_t len)
{
	struct raw r = {bytes, len};

	each_conn(te, TE_W_EVENTS, raw_one, &r);
}

void testengine_event(struct testengine *te, const char *type, const char *action, const char *id,
	struct json_object *attrs)
{
	emit(te, type, action, id, "", jcopy(attrs));
}

void testengine_drop_events(struct testengine *te, const char *action, unsigned n)
{
	free(te->drop.action);
	te->drop.action = xstrdup(action);
	te->drop.n = n;
}

void testengine_stop(struct testengine *te, bool keep_containers, bool hard)
{
	te_unlisten(te, hard);
	for (size_t i = 0; !keep_containers && i < te->n_ctrs; i++)
		if (te->ctrs[i]->running)
			ctr_end(te->ctrs[i], 137, false);
	for (size_t i = 0; i < SW_ARRAY_LEN(te->ring.ev); i++)
		json_object_put(take(te->ring.ev[i]));
	te->ring.n = 0;
}

int testengine_start(struct testengine *te, struct sw_err *err)
{
	return te_listen(te, err);
}
