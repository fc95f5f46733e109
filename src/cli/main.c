/* The process: options, limits, secrets kept out of dumps; then the daemon. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <uv.h>

#include "config.h"
#include "daemon.h"

struct args {
	int argc;
	char **argv;
};

/* SIGHUP: everything is read again so that mistakes show, and the log level is taken. */
static int reload_level(void *arg)
{
	struct args *a = arg;
	struct config c;
	struct sw_err err = SW_ERR_NONE;
	int level = -1;

	if (config_load(&c, a->argc, a->argv, NULL, &err) < 0)
		log_err("configuration not read again, the old one stays", KERR(&err));
	else
		level = log_level_parse(c.log_level);
	config_done(&c);
	return level;
}

static void raise_nofile(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
			log_warning("open file limit stays", KS("why", strerror(errno)));
	}
}

static void harden(void)
{
	struct rlimit none = {0, 0};

	umask(077);
	signal(SIGPIPE, SIG_IGN);
	raise_nofile();
	/* Keys, tokens and secrets are in memory: no core, no ptrace by the same user. */
	setrlimit(RLIMIT_CORE, &none);
#if !defined(__SANITIZE_ADDRESS__) &&                                                              \
	!defined(__SANITIZE_THREAD__) /* their leak check ptraces itself */
	prctl(PR_SET_DUMPABLE, 0);
#endif
}

int main(int argc, char **argv)
{
	struct args args = {argc, argv};
	struct config c;
	struct sw_err err = SW_ERR_NONE;
	enum exit_code r;

	/* Warnings of config_load() are logged before the level is known. */
	if (config_load(&c, argc, argv, NULL, &err) < 0) {
		fprintf(stderr, "swarm-agentd: %s\n", err.msg);
		config_done(&c);
		return EXIT_CONFIG;
	}
	if (c.help || c.version) {
		if (c.help)
			config_usage(stdout);
		else
			puts("swarm-agentd " SWARM_VERSION);
		config_done(&c);
		return fflush(stdout) == 0 ? EXIT_OK : EXIT_TROUBLE;
	}
	log_set_level((enum log_level)log_level_parse(c.log_level));
	harden();
	r = daemon_run(&c, reload_level, &args);
	config_done(&c);
	/* Joins the pool's threads while OpenSSL can still free what it keeps for each of them. */
	uv_library_shutdown();
	return (int)r;
}
