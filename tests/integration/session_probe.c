/* session_probe STATE_DIR ADDR TOKEN|-: joins and registers as a node without an engine, and says
 * on stdout what happens. Ends on SIGTERM (0), when joining fails for good (3) or when the node was
 * removed (5). Every task is reported REJECTED, every log subscription answered with nothing. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/session.h>

static struct sw_loop *loop;
static struct remotes *remotes;
static struct identity *identity;
static struct dispatcher *dispatcher;
static uv_signal_t term;
static int code;
static bool ending;

static void say(const char *what, const char *text)
{
	printf("%s %s\n", what, text);
	fflush(stdout);
}

static void on_identity_closed(void *arg)
{
	(void)arg;
	uv_close((uv_handle_t *)&term, NULL);
}

static void on_dispatcher_closed(void *arg)
{
	(void)arg;
	identity_close(identity, on_identity_closed, NULL);
}

static void end(int with)
{
	if (ending)
		return;
	ending = true;
	code = with;
	if (dispatcher)
		dispatcher_close(dispatcher, on_dispatcher_closed, NULL);
	else
		on_dispatcher_closed(NULL);
}

static void on_term(uv_signal_t *s, int signum)
{
	(void)s;
	(void)signum;
	end(0);
}

static void on_registered(void *arg, const char *session_id, const char *addr)
{
	(void)arg;
	(void)session_id;
	say("registered", addr);
}

static void on_node(void *arg, const Pb__Node *n)
{
	(void)arg;
	say("node", n->spec && n->spec->annotations ? n->id : "");
}

static void on_keys(void *arg, Pb__EncryptionKey **keys, size_t n)
{
	char text[32];

	(void)arg;
	(void)keys;
	snprintf(text, sizeof(text), "%zu", n);
	say("keys", text);
}

static void on_updated(void *arg, const struct sw_err *err)
{
	(void)arg;
	say("reported", err ? err->msg : "");
}

static void reject(const char *task_id)
{
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate u =
		PB__UPDATE_TASK_STATUS_REQUEST__TASK_STATUS_UPDATE__INIT;
	Pb__UpdateTaskStatusRequest__TaskStatusUpdate *us = &u;
	Pb__TaskStatus s = PB__TASK_STATUS__INIT;
	Pb__Timestamp now = PB__TIMESTAMP__INIT;

	api_time_set(&now, (int64_t)sw_wall_ns());
	s.timestamp = &now;
	s.state = PB__TASK_STATE__REJECTED;
	s.message = (char *)"rejected";
	s.err = (char *)"this node runs nothing";
	u.task_id = (char *)task_id;
	u.status = &s;
	dispatcher_update_status(dispatcher, &us, 1, on_updated, NULL);
}

static void on_assignments(void *arg, Pb__AssignmentsMessage *m)
{
	char text[128];

	(void)arg;
	snprintf(text, sizeof(text), "%s %zu",
		m->type == PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE ? "complete" : "incremental",
		m->n_changes);
	say("assignments", text);
	for (size_t i = 0; i < m->n_changes; i++)
		if (m->changes[i]->action == PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__UPDATE &&
			m->changes[i]->assignment &&
			m->changes[i]->assignment->item_case == PB__ASSIGNMENT__ITEM_TASK)
			reject(m->changes[i]->assignment->task->id);
	api_free(m);
	dispatcher_assignments_done(dispatcher);
}

static void on_published(void *arg, const struct sw_err *err)
{
	(void)arg;
	say("published", err ? err->msg : "");
}

static void on_subscription(void *arg, const Pb__SubscriptionMessage *m)
{
	struct log_publisher *p;

	(void)arg;
	say("subscription", m->close ? "close" : "open");
	if (m->close)
		return;
	p = dispatcher_publish_logs(dispatcher, m->id, NULL, on_published, NULL);
	if (p)
		log_publisher_finish(p);
}

static void on_lost(void *arg, const struct sw_err *err)
{
	(void)arg;
	say("lost", err ? err->msg : "on purpose");
}

static void on_removed(void *arg, const struct sw_err *err)
{
	(void)arg;
	say("removed", err->msg);
	end(5);
}

static void on_failed(void *arg, const struct sw_err *err)
{
	(void)arg;
	say("failed", err->msg);
	end(3);
}

static void on_ready(void *arg)
{
	static const struct dispatcher_events ev = {on_registered, on_node, on_keys, on_assignments,
		on_subscription, on_lost, on_removed, on_failed};
	struct dispatcher_config cfg = {loop, remotes, identity, true};
	Pb__NodeDescription d = PB__NODE_DESCRIPTION__INIT;
	Pb__Platform p = PB__PLATFORM__INIT;
	Pb__Resources r = PB__RESOURCES__INIT;
	Pb__EngineDescription e = PB__ENGINE_DESCRIPTION__INIT;

	(void)arg;
	say("ready", identity_node_id(identity));
	p.architecture = (char *)"x86_64";
	p.os = (char *)"linux";
	r.nano_cpus = 1000000000;
	r.memory_bytes = 1 << 30;
	e.engine_version = (char *)"none";
	d.hostname = (char *)"probe";
	d.platform = &p;
	d.resources = &r;
	d.engine = &e;
	if (dispatcher_new(&dispatcher, &cfg, &ev, NULL, NULL) < 0)
		abort();
	dispatcher_start(dispatcher, &d);
}

static void on_changed(void *arg)
{
	(void)arg;
	say("changed", identity_role(identity));
}

int main(int argc, char **argv)
{
	static const struct identity_events ev = {on_ready, on_changed, on_failed};
	struct identity_config cfg = {0};
	struct sw_err err = SW_ERR_NONE;

	if (argc != 4) {
		fprintf(stderr, "usage: %s STATE_DIR ADDR TOKEN|-\n", argv[0]);
		return 2;
	}
	if (sw_loop_new(&loop, &err) < 0)
		return 1;
	remotes = remotes_new();
	remotes_observe(remotes, "", argv[2], 10);
	cfg = (struct identity_config){
		.loop = loop,
		.remotes = remotes,
		.state_dir = argv[1],
		.join_token = strcmp(argv[3], "-") == 0 ? NULL : argv[3],
	};
	if (identity_new(&identity, &cfg, &ev, NULL, &err) < 0) {
		say("failed", err.msg);
		return 2;
	}
	uv_signal_init(sw_loop_uv(loop), &term);
	uv_signal_start(&term, on_term, SIGTERM);
	identity_start(identity);
	sw_loop_run(loop);
	remotes_free(remotes);
	if (sw_loop_free(loop) < 0) {
		fprintf(stderr, "handles left open\n");
		return 1;
	}
	return code;
}
