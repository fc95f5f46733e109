/* The wiring. Up: store, remotes, engine, executor, identity; the agent when the identity is ready.
 *
 *   starting --identity ready--> running --SIGTERM, SIGINT--> stopping --> closed, loop empty
 *       |                           |---removed from swarm--> stopping (tasks are stopped first)
 *       '--permanent failure--------'---permanent failure --> stopping
 *
 * Down is always the same table of steps, also when the way up failed half-way: each step takes
 * what is not there for closed. A second signal ends the process at once, which the store and the
 * engine are made to survive. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <swarm/agent.h>
#include <swarm/engine.h>
#include <swarm/executor.h>
#include <swarm/log.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <swarm/session.h>
#include <swarm/source.h>
#include <swarm/steps.h>
#include <swarm/store.h>
#include <sys/stat.h>

#include "daemon.h"
#include "notify.h"

#define FLUSH_NS         sw_s(5) /* last reports at SIGTERM */
#define STATUS_NS        sw_s(5)
#define JOIN_OBSERVATION 10 /* what swarmkit observes for a join address (node/node.go) */

enum { SIG_TERM, SIG_INT, SIG_HUP, N_SIGNALS };

struct daemon {
	struct config *cfg;
	int (*reload)(void *arg);
	void *reload_arg;
	struct sw_loop *loop;
	struct store *store;
	struct remotes *remotes;
	struct engine *engine;
	struct executor *executor;
	struct identity *identity;
	struct source *source; /* until the agent has taken it */
	struct agent *agent;
	uv_signal_t signals[N_SIGNALS];
	struct sw_timer status, watchdog;
	uint64_t watchdog_ns;
	struct steps down;
	bool stopping, drain, has_status; /* has_status: somebody reads the status line */
	enum exit_code result;
	char cert[PATH_MAX];
};

/* ---- down */

static void start_agent_stop(struct steps *s);
static void start_agent_free(struct steps *s);
static void start_source_close(struct steps *s);
static void start_executor_close(struct steps *s);
static void start_engine_close(struct steps *s);
static void start_identity_close(struct steps *s);
static void start_store_close(struct steps *s);

enum { AGENT_STOP, AGENT_FREE, SOURCE, EXECUTOR, ENGINE, IDENTITY, STORE };
static const struct step down_table[] = {
	/*             name               start                 next        on error */
	[AGENT_STOP] = {"stop agent", start_agent_stop, AGENT_FREE, AGENT_FREE, NULL},
	[AGENT_FREE] = {"free agent", start_agent_free, SOURCE, SOURCE, NULL},
	[SOURCE] = {"close source", start_source_close, EXECUTOR, EXECUTOR, NULL},
	[EXECUTOR] = {"close executor", start_executor_close, ENGINE, ENGINE, NULL},
	[ENGINE] = {"close engine", start_engine_close, IDENTITY, IDENTITY, NULL},
	[IDENTITY] = {"close identity", start_identity_close, STORE, STORE, NULL},
	[STORE] = {"close store", start_store_close, STEP_END, STEP_END, NULL},
};

static void on_closed(void *arg)
{
	struct daemon *d = arg;

	steps_done(&d->down, NULL);
}

static void on_left(void *arg, const struct sw_err *err)
{
	struct daemon *d = arg;

	if (err && err->cls) {
		log_warning("tasks left behind, the next start takes them up", KERR(err));
		if (d->result == EXIT_OK)
			d->result = EXIT_TROUBLE;
	}
	steps_done(&d->down, NULL);
}

static void start_agent_stop(struct steps *s)
{
	struct daemon *d = steps_arg(s);

	if (!d->agent)
		on_closed(d);
	else if (d->drain)
		agent_leave(d->agent, sw_s(d->cfg->drain_timeout_s), on_left, d);
	else
		agent_stop(d->agent, FLUSH_NS, on_closed, d);
}

static void start_agent_free(struct steps *s)
{
	struct daemon *d = steps_arg(s);

	agent_free(take(d->agent));
	on_closed(d);
}

static void start_source_close(struct steps *s)
{
	struct daemon *d = steps_arg(s);
	struct source *src = take(d->source);

	if (src)
		src->ops->close(src, on_closed, d);
	else
		on_closed(d);
}

static void start_executor_close(struct steps *s)
{
	struct daemon *d = steps_arg(s);
	struct executor *x = take(d->executor);

	if (x)
		x->ops->close(x, on_closed, d);
	else
		on_closed(d);
}

static void start_engine_close(struct steps *s)
{
	struct daemon *d = steps_arg(s);

	if (d->engine)
		engine_close(take(d->engine), on_closed, d);
	else
		on_closed(d);
}

static void start_identity_close(struct steps *s)
{
	struct daemon *d = steps_arg(s);

	if (d->identity)
		identity_close(take(d->identity), on_closed, d);
	else
		on_closed(d);
}

static void start_store_close(struct steps *s)
{
	struct daemon *d = steps_arg(s);

	if (d->store)
		store_close(take(d->store), on_closed, d);
	else
		on_closed(d);
}

static void on_down(void *arg, const struct sw_err *err)
{
	struct daemon *d = arg;

	(void)err; /* no step reports one */
	remotes_free(take(d->remotes));
	for (int i = 0; i < N_SIGNALS; i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
}

static void shut_down(struct daemon *d, enum exit_code result)
{
	if (d->stopping)
		return;
	d->stopping = true;
	d->result = result;
	sw_timer_stop(&d->status);
	notify_send("STOPPING=1");
	notify_status("stopping");
	steps_run(&d->down, AGENT_STOP, 0, on_down);
}

/* ---- signals, service manager */

static void on_signal(uv_signal_t *h, int signum)
{
	struct daemon *d = h->data;

	if (signum == SIGHUP) {
		int level = d->reload(d->reload_arg);

		if (level >= 0) {
			log_set_level((enum log_level)level);
			log_notice("log level read again",
				KS("level", log_level_name((enum log_level)level)));
		}
		return;
	}
	if (d->stopping) {
		log_warning("second signal, ending at once", KI("signal", signum));
		signal(signum, SIG_DFL);
		raise(signum);
		return;
	}
	d->drain = d->cfg->drain_on_exit;
	log_notice(d->drain ? "signal, draining and stopping"
			    : "signal, stopping; containers keep running",
		KI("signal", signum));
	shut_down(d, EXIT_OK);
}

static void on_watchdog(void *arg)
{
	struct daemon *d = arg;

	notify_send("WATCHDOG=1");
	sw_timer_arm(&d->watchdog, d->watchdog_ns);
}

static void on_status(void *arg)
{
	struct daemon *d = arg;
	struct agent_stats st = {0};

	if (!d->has_status || d->stopping)
		return;
	if (d->agent) {
		agent_stats(d->agent, &st);
		if (st.registered)
			notify_status("registered with %s, %zu tasks, %zu running", st.manager_addr,
				st.tasks, st.running);
		else
			notify_status("looking for a manager, %zu tasks, %zu running", st.tasks,
				st.running);
	} else {
		const char *trouble = identity_trouble(d->identity);

		notify_status("joining%s%s", *trouble ? ": " : "", trouble);
	}
	sw_timer_arm(&d->status, STATUS_NS);
}

/* ---- up */

static void on_agent_ready(void *arg)
{
	struct daemon *d = arg;

	log_notice("node is registered", KS("node", identity_node_id(d->identity)));
	on_status(d);
}

static void on_agent_failed(void *arg, const struct sw_err *err, bool removed)
{
	struct daemon *d = arg;

	if (removed) {
		log_err("this node was removed from the swarm; its tasks are stopped. Remove the "
			"state "
			"directory to join again",
			KS("state_dir", d->cfg->state_dir), KERR(err));
		d->drain = true; /* no manager will ever ask for their removal */
		shut_down(d, EXIT_REMOVED);
	} else {
		log_err("giving up", KERR(err));
		shut_down(d, EXIT_JOIN_REFUSED);
	}
}

static void on_identity_ready(void *arg)
{
	struct daemon *d = arg;
	static const struct agent_events events = {
		.ready = on_agent_ready, .failed = on_agent_failed};
	struct source_dispatcher_config sc = {
		.loop = d->loop,
		.store = d->store,
		.remotes = d->remotes,
		.identity = d->identity,
		.join_addr_given = d->cfg->join_addr.n > 0,
	};
	struct agent_config ac = {
		.loop = d->loop,
		.store = d->store,
		.executor = d->executor,
		.node_id = identity_node_id(d->identity),
		.cluster_id = identity_cluster_id(d->identity),
		.role = identity_role(d->identity),
		.orphan_grace_ns = sw_s(d->cfg->orphan_grace_s),
	};
	struct sw_err err = SW_ERR_NONE;
	int r;

	if (d->stopping)
		return;
	r = source_dispatcher_new(&d->source, &sc, &err);
	if (r >= 0) {
		ac.source = d->source;
		r = agent_new(&d->agent, &ac, &events, d, &err);
	}
	if (r >= 0) {
		d->source = NULL; /* the agent's now */
		r = agent_start(d->agent, &err);
	}
	if (r < 0) {
		log_err("agent does not start", KERR(&err));
		shut_down(d, err.domain == SW_E_SQLITE ? EXIT_STATE : EXIT_TROUBLE);
		return;
	}
	on_status(d);
}

static void on_identity_changed(void *arg)
{
	struct daemon *d = arg;

	if (d->agent && !d->stopping)
		agent_identity_changed(d->agent);
}

static void on_identity_failed(void *arg, const struct sw_err *err)
{
	struct daemon *d = arg;

	log_err("cannot join the swarm", KERR(err));
	shut_down(d, EXIT_JOIN_REFUSED);
}

/* DIR and its missing parents; only DIR itself is private. */
static int make_state_dir(const char *dir, struct sw_err *err)
{
	sw_auto_free char *path = xstrdup(dir);
	mode_t old = umask(022);
	struct stat st;
	int r = 0;

	for (char *p = path + 1; r == 0 && (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			r = -errno;
	}
	if (r == 0 && mkdir(path, 0700) < 0 && errno != EEXIST)
		r = -errno;
	umask(old);
	if (r == 0 && stat(path, &st) < 0)
		r = -errno;
	if (r == 0 && !S_ISDIR(st.st_mode))
		r = -ENOTDIR;
	if (r < 0)
		return sw_err_set(err, SW_FATAL, r, "state directory %s: %s", dir, strerror(-r));
	return 0;
}

static enum docker_pull_policy pull_policy(const char *name)
{
	return sw_streq(name, "missing") ? DOCKER_PULL_MISSING
	       : sw_streq(name, "never") ? DOCKER_PULL_NEVER
					 : DOCKER_PULL_ALWAYS;
}

static int open_store(struct daemon *d, struct sw_err *err)
{
	char path[PATH_MAX];
	int r = make_state_dir(d->cfg->state_dir, err);

	if (r < 0)
		return r;
	if (snprintf(path, sizeof(path), "%s/agent.db", d->cfg->state_dir) >= (int)sizeof(path) ||
		snprintf(d->cert, sizeof(d->cert), "%s/certificates/swarm-node.crt",
			d->cfg->state_dir) >= (int)sizeof(d->cert))
		return sw_err_set(
			err, SW_FATAL, -ENAMETOOLONG, "state directory: the path is too long");
	r = store_open(&d->store, d->loop, path, err);
	if (r < 0)
		return r;
	d->remotes = remotes_new();
	r = source_managers_load(d->store, d->remotes, err);
	if (r < 0)
		return r;
	/* A stale join address must not erase a good list: they are added. */
	for (size_t i = 0; i < d->cfg->join_addr.n; i++)
		remotes_observe(d->remotes, "", d->cfg->join_addr.v[i], JOIN_OBSERVATION);
	return 0;
}

/* What only a new node needs, checked before anything is tried, so that the message can name it. */
static int check_join(struct daemon *d, struct sw_err *err)
{
	bool joined = access(d->cert, F_OK) == 0;
	int r;

	if (!joined || d->cfg->join_token_file) {
		r = config_read_token(d->cfg, err);
		if (r < 0 && !joined)
			return r;
		if (r < 0)
			log_debug("join token not read, the node has joined already", KERR(err));
	}
	if (!joined && !d->cfg->join_token)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"this node has not joined a swarm (no %s); give --join-token-file and "
			"--join-addr",
			d->cert);
	if (remotes_count(d->remotes) == 0)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"no manager is known; give --join-addr HOST:PORT");
	return 0;
}

static struct docker_words words(const struct config_list *l)
{
	return (struct docker_words){l->v, l->n};
}

static int open_engine(struct daemon *d, struct sw_err *err)
{
	struct engine_config ec = {
		.host = d->cfg->engine,
		.cert_path = d->cfg->engine_cert_path,
		.tls_verify = d->cfg->engine_tls_verify,
		.api_version = d->cfg->engine_api_version,
	};
	struct docker_executor_config xc = {
		.loop = d->loop,
		.hostname = d->cfg->hostname,
		.pull_policy = pull_policy(d->cfg->pull_policy),
		.reserve_memory = (int64_t)d->cfg->reserve_memory,
		.run_dir = d->cfg->run_dir,
		.docker_config = d->cfg->docker_config,
		.ingress = sw_streq(d->cfg->ingress, "host-port") ? DOCKER_INGRESS_HOST_PORT
								  : DOCKER_INGRESS_REJECT,
		.generic_resources = words(&d->cfg->generic_resources),
		.policy =
			{
				.privileged = d->cfg->allow_privileged,
				.max_shm_size = d->cfg->allow_shm_size,
				.devices = words(&d->cfg->allow_devices),
				.cgroup_rules = words(&d->cfg->allow_cgroup_rules),
				.security_opts = words(&d->cfg->allow_security_opt),
				.gpus = words(&d->cfg->allow_gpus),
				.ipc = words(&d->cfg->allow_ipc),
				.pid = words(&d->cfg->allow_pid),
			},
	};
	int r;

	if (ec.cert_path && sw_starts_with(ec.host, "unix:"))
		ec.cert_path = NULL; /* DOCKER_CERT_PATH may be set for another engine */
	r = engine_new(&d->engine, d->loop, &ec, err);
	if (r < 0)
		return r;
	xc.engine = d->engine;
	return docker_executor_new(&d->executor, &xc, err);
}

static int open_identity(struct daemon *d, struct sw_err *err)
{
	static const struct identity_events events = {.ready = on_identity_ready,
		.changed = on_identity_changed,
		.failed = on_identity_failed};
	struct identity_config cfg = {
		.loop = d->loop,
		.remotes = d->remotes,
		.state_dir = d->cfg->state_dir,
		.join_token = d->cfg->join_token,
		.availability = d->cfg->availability,
	};
	int r = identity_new(&d->identity, &cfg, &events, d, err);

	sw_wipe_str(take(d->cfg->join_token));
	return r;
}

/* Returns the exit code of the failure, or EXIT_OK. */
static enum exit_code bring_up(struct daemon *d, struct sw_err *err)
{
	if (open_store(d, err) < 0)
		return EXIT_STATE;
	if (check_join(d, err) < 0 || open_engine(d, err) < 0)
		return EXIT_CONFIG;
	if (open_identity(d, err) < 0)
		return EXIT_JOIN_REFUSED;
	identity_start(d->identity);
	return EXIT_OK;
}

enum exit_code daemon_run(struct config *cfg, int (*reload)(void *arg), void *arg)
{
	static const int signums[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
	struct daemon d = {.cfg = cfg, .reload = reload, .reload_arg = arg};
	struct sw_err err = SW_ERR_NONE;
	enum exit_code r;

	if (sw_loop_new(&d.loop, &err) < 0) {
		log_err("cannot start", KERR(&err));
		return EXIT_TROUBLE;
	}
	for (int i = 0; i < N_SIGNALS; i++) {
		uv_signal_init(sw_loop_uv(d.loop), &d.signals[i]);
		d.signals[i].data = &d;
		uv_signal_start(&d.signals[i], on_signal, signums[i]);
	}
	sw_timer_init(&d.status, d.loop, on_status, &d);
	sw_timer_init(&d.watchdog, d.loop, on_watchdog, &d);
	steps_init(&d.down, d.loop, "shutdown", "", down_table, &d);

	log_notice("swarm-agentd starts", KS("version", SWARM_VERSION),
		KS("state_dir", cfg->state_dir), KS("engine", cfg->engine),
		KS("config", cfg->file ? cfg->file : "none"));
	r = bring_up(&d, &err);
	if (r != EXIT_OK) {
		log_err("cannot start", KERR(&err));
		shut_down(&d, r);
	} else {
		/* Ready means: the store is open and the loop runs. A manager may be away for
		 * hours, and that must not make the service manager kill us. */
		notify_send("READY=1");
		d.watchdog_ns = notify_watchdog_us() * 1000 / 2;
		if (d.watchdog_ns)
			on_watchdog(&d);
		d.has_status = !sw_str_empty(getenv("NOTIFY_SOCKET"));
		on_status(&d);
	}
	sw_loop_run(d.loop);
	sw_timer_stop(&d.watchdog);
	if (sw_loop_free(d.loop) < 0) {
		log_err("a handle was left open at the end; this is a bug");
		return d.result == EXIT_OK ? EXIT_TROUBLE : d.result;
	}
	if (d.result == EXIT_OK)
		log_notice("swarm-agentd ended");
	return d.result;
}
