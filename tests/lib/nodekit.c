#include "nodekit.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>
#include <sys/stat.h>
#include <unistd.h>

#include "h2server.h"
#include "test.h"

#define GUARD_MS 20000

/* ---- waiting */

static void on_guard(uv_timer_t *t)
{
	*(bool *)t->data = true;
}

static uv_timer_t guard;
static bool guard_fired, guard_on;

void nk_guard_start(struct nodekit *k)
{
	if (!guard_on) {
		uv_timer_init(sw_loop_uv(k->loop), &guard);
		guard.data = &guard_fired;
		guard_on = true;
	}
	guard_fired = false;
	uv_timer_start(&guard, on_guard, GUARD_MS, 0);
}

void nk_once(struct nodekit *k, const char *what)
{
	if (guard_fired)
		fail_msg("waited in vain for: %s", what);
	if (k->step_ns)
		sw_fake_advance(k->loop, k->step_ns);
	sw_loop_once(k->loop, true);
}

static uv_timer_t tick;

static void on_tick(uv_timer_t *t)
{
	(void)t; /* only so that the loop comes round */
}

void nk_fake_clock(struct nodekit *k, uint64_t step_ns)
{
	sw_fake_clock(k->loop, sw_now(k->loop));
	k->step_ns = step_ns;
	uv_timer_init(sw_loop_uv(k->loop), &tick);
	uv_timer_start(&tick, on_tick, 1, 1);
}

void nk_wait(struct nodekit *k, const unsigned *n, unsigned at_least)
{
	NK_UNTIL(k, *n >= at_least);
}

void nk_wait_flag(struct nodekit *k, const bool *flag)
{
	NK_UNTIL(k, *flag);
}

void nk_wait_calls(struct nodekit *k, enum tm_method method, unsigned at_least)
{
	NK_UNTIL(k, tm_calls(k->tm, method) >= at_least);
}

/* ---- setting up */

void nk_setup(struct nodekit *k, const struct nk_config *cfg)
{
	struct tm_config tm = {
		.n_managers = cfg->n_managers,
		.heartbeat_ns = cfg->heartbeat_ns ? cfg->heartbeat_ns : sw_ms(200),
		.orchestrate = cfg->orchestrate,
	};

	memset(k, 0, sizeof(*k));
	guard_on = false;
	k->auto_done = true;
	assert_int_equal(sw_loop_new(&k->loop, NULL), 0);
	assert_int_equal(testmanager_new(&k->tm, k->loop, &tm), 0);
	strcpy(k->dir, "/tmp/swarm-test-XXXXXX");
	assert_non_null(mkdtemp(k->dir));
	k->remotes = remotes_new();
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

void nk_identity_close(struct nodekit *k)
{
	bool closed = false;

	if (!k->identity)
		return;
	identity_close(take(k->identity), set_flag, &closed);
	nk_wait_flag(k, &closed);
}

void nk_dispatcher_close(struct nodekit *k)
{
	bool closed = false;

	if (!k->dispatcher)
		return;
	dispatcher_close(take(k->dispatcher), set_flag, &closed);
	nk_wait_flag(k, &closed);
}

static void remove_dir(const char *dir)
{
	static const char *const names[] = {"certificates/swarm-root-ca.crt",
		"certificates/swarm-node.crt", "certificates/swarm-node.key",
		"certificates/.swarm-node.crt", "certificates", ""};

	for (size_t i = 0; i < SW_ARRAY_LEN(names); i++) {
		sw_auto_free char *p = xasprintf("%s/%s", dir, names[i]);

		if (remove(p) < 0 && errno == ENOTEMPTY)
			fail_msg("unexpected files below %s", p);
	}
}

static void forget_messages(struct nodekit *k)
{
	for (unsigned i = 0; i < k->n_messages; i++)
		api_free(k->messages[i]);
	k->n_messages = k->n_done = 0;
}

void nk_teardown(struct nodekit *k)
{
	bool closed = false;

	nk_dispatcher_close(k);
	nk_identity_close(k);
	if (k->tm) {
		testmanager_close(take(k->tm), &closed);
		nk_wait_flag(k, &closed);
	}
	if (k->step_ns)
		uv_close((uv_handle_t *)&tick, NULL);
	if (guard_on)
		uv_close((uv_handle_t *)&guard, NULL);
	guard_on = false;
	remotes_free(k->remotes);
	forget_messages(k);
	api_free(k->desc);
	remove_dir(k->dir);
	assert_int_equal(sw_loop_free(k->loop), 0);
}

/* ---- identity */

static void on_ready(void *arg)
{
	struct nodekit *k = arg;

	assert_false(k->ready);
	k->ready = true;
}

static void on_changed(void *arg)
{
	((struct nodekit *)arg)->changed++;
}

static void on_id_failed(void *arg, const struct sw_err *err)
{
	struct nodekit *k = arg;

	assert_false(k->id_failed);
	k->id_failed = true;
	k->id_err = *err;
}

void nk_identity(struct nodekit *k, int manager, const char *token)
{
	struct identity_config cfg = {
		.loop = k->loop,
		.remotes = k->remotes,
		.state_dir = k->dir,
		.join_token = token,
	};
	struct identity_events ev = {on_ready, on_changed, on_id_failed};

	remotes_observe(k->remotes, "",
		manager < 0 ? "127.0.0.1:1" : tm_addr(k->tm, (unsigned)manager), 10);
	k->ready = k->id_failed = false;
	assert_int_equal(identity_new(&k->identity, &cfg, &ev, k, NULL), 0);
	identity_start(k->identity);
	assert_false(k->ready || k->id_failed);
}

void nk_join(struct nodekit *k)
{
	nk_identity(k, 0, tm_token(k->tm, PB__NODE_ROLE__WORKER));
	NK_UNTIL(k, k->ready || k->id_failed);
	if (k->id_failed)
		fail_msg("join: %s", k->id_err.msg);
}

/* ---- dispatcher */

static void note(struct nodekit *k, char c)
{
	size_t n = strlen(k->order);

	if (n + 1 < sizeof(k->order))
		k->order[n] = c;
}

static void on_registered(void *arg, const char *session_id, const char *manager_addr)
{
	struct nodekit *k = arg;

	assert_true(*manager_addr);
	k->registered++;
	snprintf(k->session_id, sizeof(k->session_id), "%s", session_id);
	note(k, 'r');
}

static void on_node(void *arg, const Pb__Node *node)
{
	struct nodekit *k = arg;

	assert_string_equal(node->id, identity_node_id(k->identity));
	k->nodes++;
	note(k, 'n');
}

static void on_keys(void *arg, Pb__EncryptionKey **keys, size_t n)
{
	struct nodekit *k = arg;

	k->keys++;
	k->key_lamport = n ? keys[0]->lamport_time : 0;
	note(k, 'k');
}

static void on_assignments(void *arg, Pb__AssignmentsMessage *m)
{
	struct nodekit *k = arg;

	assert_int_equal(k->n_messages, k->n_done); /* never one before the last is done */
	assert_true(k->n_messages < NK_LOG_MAX);
	k->messages[k->n_messages++] = m;
	note(k, 'a');
	if (k->auto_done) {
		k->n_done++;
		dispatcher_assignments_done(k->dispatcher);
	}
}

static void on_subscription(void *arg, const Pb__SubscriptionMessage *m)
{
	struct nodekit *k = arg;

	k->subscriptions++;
	snprintf(k->subscription, sizeof(k->subscription), "%s", m->id);
	k->subscription_close = m->close;
}

static void on_lost(void *arg, const struct sw_err *err)
{
	struct nodekit *k = arg;

	k->lost++;
	k->have_lost_err = err != NULL;
	sw_err_copy(&k->lost_err, err);
	note(k, 'l');
}

static void on_removed(void *arg, const struct sw_err *err)
{
	struct nodekit *k = arg;

	k->removed = true;
	k->n_removed++;
	k->end_err = *err;
}

static void on_failed(void *arg, const struct sw_err *err)
{
	struct nodekit *k = arg;

	k->failed = true;
	k->n_failed++;
	k->end_err = *err;
}

void nk_dispatch(struct nodekit *k, bool join_addr_given)
{
	struct dispatcher_config cfg = {k->loop, k->remotes, k->identity, join_addr_given};
	struct dispatcher_events ev = {
		.registered = on_registered,
		.node = on_node,
		.keys = on_keys,
		.assignments = on_assignments,
		.subscription = on_subscription,
		.lost = on_lost,
		.removed = on_removed,
		.failed = on_failed,
	};
	Pb__NodeDescription d = PB__NODE_DESCRIPTION__INIT;
	Pb__Platform p = PB__PLATFORM__INIT;

	d.hostname = (char *)"worker-1";
	p.os = (char *)"linux";
	p.architecture = (char *)"x86_64";
	d.platform = &p;
	api_free(k->desc);
	k->desc = (Pb__NodeDescription *)api_dup(&d.base);
	assert_int_equal(dispatcher_new(&k->dispatcher, &cfg, &ev, k, NULL), 0);
	dispatcher_start(k->dispatcher, k->desc);
}

void nk_up(struct nodekit *k)
{
	nk_join(k);
	nk_dispatch(k, true);
	NK_UNTIL(k, k->registered == 1 && k->n_messages >= 1);
}

/* ---- looking */

char *nk_file(const struct nodekit *k, const char *name)
{
	sw_auto_free char *p = xasprintf("%s/%s", k->dir, name);
	char *text = xcalloc(1, 65536);
	FILE *f = fopen(p, "r");

	if (!f) {
		free(text);
		return NULL;
	}
	text[fread(text, 1, 65535, f)] = 0;
	(void)fclose(f);
	return text;
}

void nk_put_file(const struct nodekit *k, const char *name, const char *text, unsigned mode)
{
	sw_auto_free char *dir = xasprintf("%s/certificates", k->dir);
	sw_auto_free char *p = xasprintf("%s/%s", k->dir, name);
	FILE *f;

	(void)mkdir(dir, 0755);
	f = fopen(p, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	(void)fclose(f);
	assert_int_equal(chmod(p, mode), 0);
}

struct tm_node nk_node(const struct nodekit *k)
{
	struct tm_node n[2];

	assert_int_equal(tm_nodes(k->tm, n, 2), 1);
	return n[0];
}

void nk_task(struct nodekit *k, const char *id)
{
	Pb__Task t = PB__TASK__INIT;
	Pb__TaskSpec spec = PB__TASK_SPEC__INIT;
	Pb__TaskStatus status = PB__TASK_STATUS__INIT;

	t.id = (char *)id;
	t.node_id = (char *)identity_node_id(k->identity);
	t.spec = &spec;
	status.state = PB__TASK_STATE__ASSIGNED;
	t.status = &status;
	t.desired_state = PB__TASK_STATE__RUNNING;
	tm_task_put(k->tm, &t);
}
