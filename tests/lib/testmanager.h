/* testmanager.h - a Swarm for tests: one cluster state (CA, dispatcher, log broker, a small
 * orchestrator) behind one or several manager addresses on 127.0.0.1, in the test's own process and
 * on its loop, with switches for what can go wrong. Knows nothing of the agent's code but the
 * message structs (api.h). Nothing here calls back into the test except where it says so. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/api.h>

struct sw_loop;
struct h2server;
struct testmanager;

struct tm_config {
	unsigned n_managers;   /* 0: one */
	uint64_t heartbeat_ns; /* period told to nodes, without jitter; 0: 5 s */
	const char *listen;    /* "127.0.0.1:2377" for the first manager; NULL: any port */
	bool orchestrate;      /* services and tasks react to reports by themselves */
};
int testmanager_new(struct testmanager **ret, struct sw_loop *l, const struct tm_config *cfg);
/* Run the loop until *@done (as h2server_close()). */
void testmanager_close(struct testmanager *m, bool *done);

const char *tm_addr(const struct testmanager *m, unsigned manager);  /* "127.0.0.1:port" */
struct h2server *tm_server(struct testmanager *m, unsigned manager); /* its own fault switches */
const char *tm_manager_id(const struct testmanager *m, unsigned manager);
const char *tm_token(const struct testmanager *m, int role); /* PB__NODE_ROLE__WORKER, __MANAGER */
const char *tm_root(const struct testmanager *m);            /* PEM bundle as nodes get it */
const char *tm_cluster_id(const struct testmanager *m);

/* ---- faults. They concern the next @n calls of a method (UINT_MAX: all until tm_heal()). */
enum tm_method {
	TM_ROOT,
	TM_ISSUE,
	TM_CERT_STATUS,
	TM_SESSION,
	TM_HEARTBEAT,
	TM_UPDATE_STATUS,
	TM_ASSIGNMENTS,
	TM_LISTEN,
	TM_PUBLISH,
	TM_N_METHODS
};
enum tm_fault {
	TM_ERROR,      /* ends with @code and @text */
	TM_HANG,       /* never answers; the stream stays open */
	TM_CUT,        /* TCP reset */
	TM_GARBAGE,    /* a message that is no protobuf */
	TM_EOF,        /* status 0 at once (streams) */
	TM_DELAY,      /* answers as usual @delay_ns later */
	TM_LATE_ERROR, /* streams: ends with @code after the first message */
};
struct tm_fault_spec {
	enum tm_fault fault;
	unsigned n;
	int code;
	const char *text; /* copied */
	uint64_t delay_ns;
};
void tm_inject(struct testmanager *m, enum tm_method method, const struct tm_fault_spec *f);
void tm_heal(struct testmanager *m, enum tm_method method);
unsigned tm_calls(const struct testmanager *m, enum tm_method method); /* seen so far */

/* Assignments: what the next message on each open (or the next opened) stream looks like. */
void tm_gap(struct testmanager *m);               /* the next INCREMENTAL's applies_to is wrong */
void tm_incremental_first(struct testmanager *m); /* the next stream starts with an INCREMENTAL */
void tm_complete_again(struct testmanager *m);    /* sends a COMPLETE now, numbering goes on */

/* A manager whose ALPN is silent for connections from now on (trap 1). */
void tm_silent_alpn(struct testmanager *m, unsigned manager, bool on);
/* The certificate that ISSUED answers carry is one of another CSR for the next @n status calls. */
void tm_foreign_csr(struct testmanager *m, unsigned n);
/* The issuance stays PENDING for the next @n status calls (answered at once). */
void tm_pending(struct testmanager *m, unsigned n);
/* The next @n issuances end FAILED. */
void tm_issue_fails(struct testmanager *m, unsigned n);
/* Validity of certificates issued from now on, relative to now; 0, 0: an hour ago to 90 days. */
void tm_validity(struct testmanager *m, long not_before_s, long not_after_s);
/* The prefix "FIPS." for the organisation of certificates from now on. */
void tm_fips(struct testmanager *m, bool on);

/* ---- nodes */
struct tm_node {
	const char *id, *hostname, *session_id, *addr;
	int role;   /* of its certificate record */
	bool ready; /* has a live registration */
	bool removed;
	int cert_state;                         /* PB__ISSUANCE_STATUS__STATE__... */
	const Pb__NodeDescription *description; /* NULL before the first registration */
	unsigned registrations, sessions, heartbeats;
};
size_t tm_nodes(const struct testmanager *m, struct tm_node *out, size_t max); /* borrowed */
bool tm_node(const struct testmanager *m, const char *id_or_hostname, struct tm_node *ret);
void tm_node_remove(struct testmanager *m, const char *id); /* docker node rm --force */
void tm_node_desired_role(struct testmanager *m, const char *id, int role);
void tm_node_label(struct testmanager *m, const char *id, const char *key, const char *value);
void tm_node_rotate(struct testmanager *m, const char *id); /* certificate state ROTATE */
/* The registration is forgotten: streams end with code 5 "node not registered", heartbeats too. */
void tm_node_forget_session(struct testmanager *m, const char *id);
/* Only the session id dies: calls get code 3 "session invalid". */
void tm_session_invalid(struct testmanager *m, const char *id);
/* A manager stops or is demoted: its streams end as real ones do, connections close. */
void tm_manager_stop(struct testmanager *m, unsigned manager);
void tm_manager_start(struct testmanager *m, unsigned manager);
/* What session messages list; @addrs NULL: all managers again. Sent at once. */
void tm_list_managers(struct testmanager *m, const char *const *addrs, size_t n);
void tm_network_keys(struct testmanager *m, uint64_t first_lamport); /* three keys, sent at once */
void tm_push_session(struct testmanager *m); /* repeats the session message */
/* Two-phase root rotation as docker's: begin (new key, cross-signed, nodes get ROTATE), finish (new
 * bundle; refused with false while a node reports the old issuer). */
void tm_root_rotate_begin(struct testmanager *m);
bool tm_root_rotate_finish(struct testmanager *m);
/* A bundle to be sent in session messages that is none of ours; NULL: ours again. */
void tm_wrong_root(struct testmanager *m, const char *pem);

/* ---- tasks, by hand. The objects are copied; changes are sent at once as one INCREMENTAL. */
void tm_task_put(struct testmanager *m, const Pb__Task *t); /* to the node t->node_id */
void tm_task_desired(struct testmanager *m, const char *task_id, int state);
void tm_task_delete(struct testmanager *m, const char *task_id);
void tm_secret_put(struct testmanager *m, const char *node_id, const Pb__Secret *s);
void tm_config_put(struct testmanager *m, const char *node_id, const Pb__Config *c);
/* Collects several of them into one message: begin, puts, end. */
void tm_batch(struct testmanager *m, bool on);
/* Last reported status, borrowed; NULL: none yet. */
const Pb__TaskStatus *tm_status(const struct testmanager *m, const char *task_id);
/* Every report in order of arrival (the last 4096 of all tasks). */
struct tm_report {
	char task_id[65];
	int state;
	char message[128], err[256], container_id[80];
	int exit_code, pid;
};
size_t tm_reports(const struct testmanager *m, const char *task_id /* NULL: all */,
	struct tm_report *out, size_t max);
/* Reports that lowered a task's state, or two calls in flight naming one task: must stay 0. */
unsigned tm_report_faults(const struct testmanager *m);

/* ---- services (with cfg.orchestrate) */
struct tm_service {
	const char *image;
	const char *const *args, *const *env;
	size_t n_args, n_env;
	unsigned replicas;
	const Pb__TaskSpec *spec;  /* instead of image, args, env */
	uint64_t restart_delay_ns; /* after a failed task; 0: 5 s */
	bool no_restart;
};
/* The service id, borrowed; NULL when the name is taken. */
const char *tm_service_create(struct testmanager *m, const char *name, const struct tm_service *s);
bool tm_service_scale(struct testmanager *m, const char *name, unsigned replicas);
bool tm_service_update(struct testmanager *m, const char *name, const struct tm_service *s);
bool tm_service_remove(struct testmanager *m, const char *name);
/* Tasks of @name that are RUNNING with desired RUNNING. */
unsigned tm_service_running(const struct testmanager *m, const char *name);
struct tm_task {
	const char *id, *service, *node_id, *message, *err;
	uint64_t slot;
	int state, desired;
	const Pb__Task *task;
};
size_t tm_tasks(const struct testmanager *m, const char *service /* NULL: all */,
	struct tm_task *out, size_t max);

/* ---- logs */
struct tm_logs {
	unsigned messages, bytes, publishers_ended, publishers_open;
	bool closed_by_node;    /* a publisher ended well */
	const char *last_error; /* why a publisher was refused */
};
/* Opens a subscription for a service, a task or everything of a node (NULL: not selected); its id.
 */
const char *tm_logs_open(struct testmanager *m, const char *service_id, const char *task_id,
	const char *node_id, bool follow, int64_t tail);
void tm_logs_close(struct testmanager *m, const char *subscription_id); /* the reader left */
bool tm_logs(const struct testmanager *m, const char *subscription_id, struct tm_logs *ret);
/* All data received so far, in order of arrival; borrowed. */
const char *tm_logs_text(const struct testmanager *m, const char *subscription_id);
/* ListenSubscriptions streams of one node that overlapped (trap 6): must stay 0. */
unsigned tm_listen_overlaps(const struct testmanager *m);
