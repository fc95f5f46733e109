/* config.h - the daemon's options: one table for command line, environment, file and --help. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <swarm/err.h>

#define CONFIG_DEFAULT_FILE "/etc/swarm-agentd/swarm-agentd.conf"
#define CONFIG_JOIN_PORT    "2377" /* what "docker swarm join HOST" means */
#define CONFIG_TOKEN_MAX    1024

/* Process exit codes; the table in swarm-agentd(8) and --help. */
enum exit_code {
	EXIT_OK = 0,
	EXIT_TROUBLE = 1,      /* anything unexpected; worth a restart */
	EXIT_CONFIG = 2,       /* usage, environment or configuration file */
	EXIT_JOIN_REFUSED = 3, /* token, digest, role or credentials: the swarm will not have us */
	EXIT_STATE = 4,        /* state directory or store unusable */
	EXIT_REMOVED = 5,      /* this node was removed from the swarm */
};

/* Weakest first: a stronger source replaces the value of a weaker one, lists as a whole. */
enum config_source { CONFIG_UNSET, CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENV, CONFIG_ARG };

struct config_list {
	char **v;
	size_t n;
};
struct config {
	char *state_dir, *run_dir, *engine, *engine_cert_path, *engine_api_version;
	char *docker_config;
	char *join_token, *join_token_file; /* join_token: secret, wiped by config_done() */
	char *hostname, *log_level, *availability, *pull_policy;
	struct config_list join_addr; /* "HOST:PORT" each, port filled in */
	/* what services may ask for, and what the node offers */
	struct config_list allow_devices, allow_cgroup_rules, allow_security_opt, allow_gpus,
		allow_ipc, allow_pid, generic_resources;
	bool allow_privileged;
	uint64_t allow_shm_size, orphan_grace_s;
	char *ingress;
	bool engine_tls_verify, drain_on_exit;
	uint64_t drain_timeout_s, reserve_memory;
	char *file; /* what was read, NULL: none */
	bool help, version;
	unsigned char source[64]; /* enum config_source by place in the table */
};

/* Reads everything: file named by --config or SWARM_AGENTD_CONFIG (must exist) or the default one
 * (may be missing), then environment, then command line. @argv's copy of a join token is
 * overwritten with '*', and so is the environment's (it is unset too). 0, or -EINVAL with
 * SW_REJECTED naming place, key, value and what is allowed. With --help or --version nothing else
 * is read. @c is filled in any case: config_done() it. @default_file NULL: CONFIG_DEFAULT_FILE
 * (tests pass their own). */
int config_load(
	struct config *c, int argc, char **argv, const char *default_file, struct sw_err *err);
void config_done(struct config *c);

/* Puts join_token in place from join_token_file if that is what is configured; one trailing newline
 * is cut. Warns in the log when others may read the file. -ENOENT (SW_REJECTED) when the file is
 * not there: harmless for a node that has joined already. */
int config_read_token(struct config *c, struct sw_err *err);

void config_usage(FILE *f);
/* Where the value of option @name comes from. */
enum config_source config_source_of(const struct config *c, const char *name);
