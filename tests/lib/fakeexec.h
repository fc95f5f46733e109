/* fakeexec.h - an executor without an engine: containers are records, every operation does what a
 * script says, and every break of the controller contract is counted. The containers
 * outlive their controllers, so that restarts of the agent can be tested. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/controller.h>
#include <swarm/executor.h>
#include <swarm/loop.h>

struct fakeexec;

enum fake_op { F_PREPARE, F_START, F_WAIT, F_SHUTDOWN, F_REMOVE, F_N_OPS };

/* How one operation ends. */
struct fake_script {
	enum sw_errclass cls; /* SW_OK: does its thing */
	const char *text;
	bool has_exit;
	int exit_code;
	uint64_t delay_ns;
	bool hang;                /* until cancelled */
	uint64_t cancel_delay_ns; /* how long a cancellation takes */
	bool deaf;                /* a cancellation changes nothing: it ends as it would */
};

struct fakeexec *fakeexec_new(struct sw_loop *l);
/* NULL is fine. Outstanding answers come first. */
void fakeexec_free(struct fakeexec *x);
struct executor *fakeexec_executor(struct fakeexec *x);

/* The next operation of this kind (@task NULL: of any task) ends like that; scripts queue up. */
void fakeexec_script(
	struct fakeexec *x, const char *task, enum fake_op op, const struct fake_script *s);
/* All of this kind that have no script of their own; NULL: as usual. */
void fakeexec_default(struct fakeexec *x, enum fake_op op, const struct fake_script *s);
/* The next @n controller() calls for the task fail. */
void fakeexec_refuse(
	struct fakeexec *x, const char *task, unsigned n, enum sw_errclass cls, const char *text);
/* The operation that runs tells what it is busy with. */
void fakeexec_progress(struct fakeexec *x, const char *task, const char *text);
/* The container exits. */
void fakeexec_exit(struct fakeexec *x, const char *task, int exit_code);
/* Somebody else removes it. */
void fakeexec_lose_container(struct fakeexec *x, const char *task);
/* A container that carries our label and belongs to nobody. */
void fakeexec_add_orphan(
	struct fakeexec *x, const char *container_id, const char *name, const char *task_id);
bool fakeexec_has_container(struct fakeexec *x, const char *container_id);

enum fake_container { FC_NONE, FC_CREATED, FC_RUNNING, FC_EXITED };
struct fake_record {
	char calls[2048]; /* "controller prepare start wait ..." */
	unsigned n[F_N_OPS], n_controllers, n_updates, n_cancels, n_closes, n_containers;
	enum fake_container container;
	char container_id[80];
	int last_desired; /* as the controller was told */
	bool had_secret;  /* when prepare ran (tasks that ask for one) */
};
/* Never NULL. */
const struct fake_record *fakeexec_record(struct fakeexec *x, const char *task);
/* Breaks of the contract: two operations at once, use after close, second container ... */
unsigned fakeexec_violations(struct fakeexec *x);
const char *fakeexec_violation(struct fakeexec *x); /* the first one */
size_t fakeexec_open_controllers(struct fakeexec *x);
size_t fakeexec_busy(struct fakeexec *x);
size_t fakeexec_containers(struct fakeexec *x);

/* describe() answers: NULL fails; @hold keeps the answer until the next call with @hold false. */
void fakeexec_describe(struct fakeexec *x, const char *hostname, bool hold);
unsigned fakeexec_described(struct fakeexec *x);
unsigned fakeexec_configured(struct fakeexec *x);
unsigned fakeexec_key_calls(struct fakeexec *x);
void fakeexec_refuse_keys(struct fakeexec *x, unsigned n);
/* Log lines of a task: sent to every open stream; false: the receiver asked to pause (it must not
 * be called before it resumed). */
bool fakeexec_log_line(struct fakeexec *x, const char *task, const char *text);
void fakeexec_log_end(struct fakeexec *x, const char *task);
size_t fakeexec_log_streams(struct fakeexec *x, const char *task);
bool fakeexec_log_paused(struct fakeexec *x, const char *task);
