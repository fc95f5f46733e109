/* tm_priv.h - what the parts of the test manager share. */
#pragma once
#include "h2server.h"
#include "testca.h"
#include "testmanager.h"
#include <swarm/api.h>
#include <swarm/err.h>
#include <swarm/loop.h>
#include <swarm/mem.h>
#include <sys/queue.h>

#define TM_MANAGERS_MAX 8
#define TM_REPORTS_MAX  4096

enum {
	OK = 0,
	UNKNOWN = 2,
	INVALID = 3,
	NOT_FOUND = 5,
	DENIED = 7,
	ABORTED = 10,
	UNIMPLEMENTED = 12
};

struct tmgr { /* one manager address */
	struct testmanager *m;
	unsigned no;
	struct h2server *srv;
	char id[26];
	bool silent, stopped, done;
};

/* A long stream (Session, Assignments, ListenSubscriptions) of a node. */
struct tstream {
	LIST_ENTRY(tstream) entry;
	enum tm_method method;
	struct h2s_stream *st;
	struct tnode *node;
	unsigned manager;
	unsigned seq; /* assignments: the last results_in */
	bool gap;     /* the next INCREMENTAL is wrong */
};

/* A PublishLogs stream. */
struct tpub {
	LIST_ENTRY(tpub) entry;
	struct h2s_stream *st;
	struct tsub *sub;
};

struct tnode {
	LIST_ENTRY(tnode) entry;
	struct testmanager *m;
	char id[26];
	char session_id[26];
	char addr[64];
	int role, desired_role, cert_state;
	int availability;
	char *csr, *cert, *issue_err;
	uint64_t version;
	bool ready, removed;
	Pb__NodeDescription *desc;
	char *label_key, *label_value;
	unsigned registrations, sessions, heartbeats;
	struct sw_timer grace;
	LIST_HEAD(, tstream) streams;
	/* changes that the streams have not been told yet */
	Pb__AssignmentChange **changes;
	size_t n_changes;
};

struct tdep { /* a secret or config on a node */
	LIST_ENTRY(tdep) entry;
	struct tnode *node;
	Pb__Secret *secret;
	Pb__Config *config;
};

struct ttask {
	TAILQ_ENTRY(ttask) entry;
	Pb__Task *pb;
	Pb__TaskStatus *status; /* last accepted report */
	struct tservice *service;
	unsigned spec_version;
	bool told; /* the node has it */
};

struct tservice {
	TAILQ_ENTRY(tservice) entry;
	struct testmanager *m;
	char id[26];
	char *name;
	Pb__TaskSpec *spec;
	unsigned spec_version, replicas;
	uint64_t restart_delay_ns;
	bool no_restart, removed;
	struct sw_timer restart;
};

struct tsub {
	LIST_ENTRY(tsub) entry;
	char id[26];
	char *service_id, *task_id, *node_id;
	bool follow, closed;
	int64_t tail;
	struct tm_logs stats;
	char *text;
	size_t len;
	char last_error[256];
};

struct tfault {
	struct tm_fault_spec spec;
	char text[256];
};

struct tdelay { /* a call whose handling waits */
	LIST_ENTRY(tdelay) entry;
	struct testmanager *m;
	struct tmgr *mgr;
	enum tm_method method;
	struct h2s_stream *st;
	uint8_t *msg;
	size_t len;
	struct sw_timer timer;
};

struct testmanager {
	struct sw_loop *loop;
	bool orchestrate, closing;
	uint64_t heartbeat_ns;
	char cluster_id[26];
	struct tmgr mgr[TM_MANAGERS_MAX];
	unsigned n_mgr;
	/* CA */
	struct testca *ca, *next_ca, *old_ca;
	char *cross; /* next_ca certified by ca */
	char *tokens[2];
	char *wrong_root;
	unsigned foreign_csr, pending, issue_fails;
	long not_before_s, not_after_s;
	bool fips;
	/* faults */
	struct tfault faults[TM_N_METHODS];
	unsigned calls[TM_N_METHODS];
	LIST_HEAD(, tdelay) delays;
	bool gap, incremental_first, batch;
	/* state */
	LIST_HEAD(, tnode) nodes;
	LIST_HEAD(, tdep) deps;
	TAILQ_HEAD(, ttask) tasks;
	TAILQ_HEAD(, tservice) services;
	LIST_HEAD(, tsub) subs;
	LIST_HEAD(, tpub) pubs;
	char **listed; /* session messages list these instead of the managers */
	size_t n_listed;
	bool list_given;
	uint64_t lamport;
	struct tm_report *reports; /* ring */
	size_t n_reports;
	unsigned report_faults, listen_overlaps;
	uv_timer_t closer;
	bool *done;
};

void tm_new_id(char id[26]);
void tm_send(struct h2s_stream *st, const ProtobufCMessage *m);
void tm_reply(struct h2s_stream *st, const ProtobufCMessage *m);
struct tnode *tm_find_node(const struct testmanager *m, const char *id);
/* The node that calls, or NULL after the call was refused as managers do. */
struct tnode *tm_caller(struct tmgr *mgr, struct h2s_stream *st);
/* The caller with a live registration of that id, or NULL after the refusal. */
struct tnode *tm_session_caller(struct tmgr *mgr, struct h2s_stream *st, const char *session_id);
struct tstream *tm_stream_add(
	struct tmgr *mgr, struct tnode *n, enum tm_method method, struct h2s_stream *st);
void tm_streams_end(struct tnode *n, int method /* -1: all */, int code, const char *text);

/* One message of a call, after the faults had their way. */
typedef void tm_handle(struct tmgr *mgr, struct h2s_stream *st, const uint8_t *msg, size_t len);
tm_handle tm_on_root, tm_on_issue, tm_on_cert_status, tm_on_session, tm_on_heartbeat,
	tm_on_update_status, tm_on_assignments, tm_on_listen, tm_on_publish;
void tm_publish_end(struct testmanager *m, struct h2s_stream *st);    /* half-closed */
void tm_publish_closed(struct testmanager *m, struct h2s_stream *st); /* gone */

void tm_configure(struct tmgr *mgr); /* certificate and faults of its server, after a change */
bool tm_root_reported(const struct testmanager *m); /* every node knows the new issuer */
void tm_session_to(struct testmanager *m, struct tstream *s);
void tm_node_push(struct tnode *n); /* a session message to its streams */
/* Tasks. */
struct ttask *tm_task_new(struct testmanager *m, const Pb__Task *t);
struct ttask *tm_find_task(const struct testmanager *m, const char *id);
void tm_task_change(struct testmanager *m, struct ttask *t, bool remove);
void tm_flush(struct testmanager *m);
void tm_tasks_of_node_gone(struct testmanager *m, struct tnode *n);
void tm_reconcile(struct testmanager *m);
void tm_service_free(struct tservice *s);
void tm_task_free(struct testmanager *m, struct ttask *t);
void tm_sub_free(struct tsub *s);
void tm_changes_free(struct tnode *n);
