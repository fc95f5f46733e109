/* The option table: precedence, lists, refusals with their place, and the token's secrecy. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cli/config.h"

struct fixture {
	struct config c;
	struct sw_err err;
	char dir[64], conf[96], token[96];
	char log[1024];
};

static void on_log(void *arg, enum log_level level, const char *line)
{
	struct fixture *f = arg;

	(void)level;
	snprintf(f->log + strlen(f->log), sizeof(f->log) - strlen(f->log), "%s\n", line);
}

static const char *const env_names[] = {"SWARM_AGENTD_STATE_DIR", "SWARM_AGENTD_JOIN_ADDR",
	"SWARM_AGENTD_LOG_LEVEL", "SWARM_AGENTD_JOIN_TOKEN", "SWARM_AGENTD_CONFIG",
	"SWARM_AGENTD_STATEDIR", "SWARM_AGENTD_HELP", "SWARM_AGENTD_DRAIN_ON_EXIT", "DOCKER_HOST",
	"DOCKER_CERT_PATH", "DOCKER_API_VERSION"};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	for (size_t i = 0; i < SW_ARRAY_LEN(env_names); i++)
		unsetenv(env_names[i]);
	snprintf(f->dir, sizeof(f->dir), "/tmp/test-config-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->conf, sizeof(f->conf), "%s/conf", f->dir);
	snprintf(f->token, sizeof(f->token), "%s/token", f->dir);
	log_set_sink(on_log, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	config_done(&f->c);
	log_set_sink(NULL, NULL);
	unlink(f->conf);
	unlink(f->token);
	rmdir(f->dir);
	free(f);
	return 0;
}

static void put(const char *path, mode_t mode, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), (ssize_t)len);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void put_conf(struct fixture *f, const char *text)
{
	put(f->conf, 0600, text, strlen(text));
}

/* Arguments end with NULL; the vector is writable, as main()'s is. */
static int load(struct fixture *f, ...)
{
	char store[16][256];
	char *argv[17] = {store[0]};
	int argc = 1;
	const char *a;
	va_list ap;

	snprintf(store[0], sizeof(store[0]), "swarm-agentd");
	va_start(ap, f);
	while ((a = va_arg(ap, const char *))) {
		snprintf(store[argc], sizeof(store[argc]), "%s", a);
		argv[argc] = store[argc];
		argc++;
	}
	va_end(ap);
	config_done(&f->c);
	sw_err_copy(&f->err, NULL);
	return config_load(&f->c, argc, argv, f->conf, &f->err);
}

static void refused(struct fixture *f, int r, const char *part)
{
	assert_int_equal(r, -EINVAL);
	assert_int_equal(f->err.cls, SW_REJECTED);
	if (!strstr(f->err.msg, part))
		fail_msg("\"%s\" is not in \"%s\"", part, f->err.msg);
}

static void test_defaults(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->c.state_dir, "/var/lib/swarm-agentd");
	assert_string_equal(f->c.engine, "unix:///var/run/docker.sock");
	assert_string_equal(f->c.availability, "active");
	assert_string_equal(f->c.pull_policy, "always");
	assert_string_equal(f->c.log_level, "info");
	assert_int_equal(f->c.join_addr.n, 0);
	assert_false(f->c.drain_on_exit);
	assert_true(f->c.engine_tls_verify);
	assert_int_equal(f->c.drain_timeout_s, 60);
	assert_null(f->c.file);
	assert_null(f->c.join_token);
	assert_int_equal(config_source_of(&f->c, "state-dir"), CONFIG_DEFAULT);
	assert_int_equal(config_source_of(&f->c, "join-addr"), CONFIG_UNSET);
}

static void test_precedence(void **state)
{
	struct fixture *f = *state;

	put_conf(f,
		"state-dir = /file\nrun-dir = /r/x//\nlog-level = debug\nhostname = from-file\n");
	setenv("SWARM_AGENTD_STATE_DIR", "/env", 1);
	setenv("SWARM_AGENTD_LOG_LEVEL", "warning", 1);
	assert_int_equal(load(f, "--state-dir", "/arg", NULL), 0);
	assert_string_equal(f->c.state_dir, "/arg");
	assert_string_equal(f->c.log_level, "warning");
	assert_string_equal(f->c.hostname, "from-file");
	assert_string_equal(f->c.run_dir, "/r/x");
	assert_string_equal(f->c.file, f->conf);
	assert_int_equal(config_source_of(&f->c, "state-dir"), CONFIG_ARG);
	assert_int_equal(config_source_of(&f->c, "log-level"), CONFIG_ENV);
	assert_int_equal(config_source_of(&f->c, "hostname"), CONFIG_FILE);
}

static void test_docker_host_is_only_a_default(void **state)
{
	struct fixture *f = *state;

	setenv("DOCKER_HOST", "tcp://engine:2375", 1);
	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->c.engine, "tcp://engine:2375");
	assert_int_equal(load(f, "--engine=unix:///x.sock", NULL), 0);
	assert_string_equal(f->c.engine, "unix:///x.sock");
	setenv("DOCKER_HOST", "nonsense", 1);
	refused(f, load(f, NULL), "environment: DOCKER_HOST");
}

static void test_list_is_replaced_as_a_whole(void **state)
{
	struct fixture *f = *state;

	put_conf(f, "join-addr = a:1\njoin-addr = b\n");
	assert_int_equal(load(f, NULL), 0);
	assert_int_equal(f->c.join_addr.n, 2);
	assert_string_equal(f->c.join_addr.v[0], "a:1");
	assert_string_equal(f->c.join_addr.v[1], "b:2377");

	setenv("SWARM_AGENTD_JOIN_ADDR", "c:3, d:4 [::1]", 1);
	assert_int_equal(load(f, NULL), 0);
	assert_int_equal(f->c.join_addr.n, 3);
	assert_string_equal(f->c.join_addr.v[2], "[::1]:2377");

	assert_int_equal(load(f, "--join-addr", "e:5", "--join-addr=[fe80::1]:6", NULL), 0);
	assert_int_equal(f->c.join_addr.n, 2);
	assert_string_equal(f->c.join_addr.v[0], "e:5");
	assert_string_equal(f->c.join_addr.v[1], "[fe80::1]:6");
}

static void test_bad_values_name_place_key_value_and_choice(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *line, *want;
	} bad[] = {
		{"log-level = loud",
			"log-level: \"loud\" is not allowed; use err|warning|notice|info|debug"},
		{"availability = ", "availability: \"\" is not allowed"},
		{"pull-policy = |", "pull-policy: \"|\""},
		{"pull-policy = alway", "pull-policy: \"alway\""},
		{"join-addr = host:0", "join-addr: \"host:0\""},
		{"join-addr = host:65536", "join-addr: \"host:65536\""},
		{"join-addr = host:+1", "join-addr: \"host:+1\""},
		{"join-addr = ::1:2377", "IPv6 as [ADDR]:PORT"},
		{"join-addr = http://h:1", "join-addr: \"http://h:1\""},
		{"join-addr = ", "join-addr: \"\""},
		{"run-dir = run", "run-dir: \"run\""},
		{"run-dir = //", "run-dir: \"//\""},
		{"run-dir = /run/../x", "run-dir: \"/run/../x\""},
		{"run-dir = /run/..", "run-dir: \"/run/..\""},
		{"hostname = a b", "hostname: \"a b\""},
		{"engine = /var/run/docker.sock",
			"engine: \"/var/run/docker.sock\" is not allowed; use unix://"},
		{"engine-api-version = 1.", "engine-api-version: \"1.\""},
		{"drain-on-exit = maybe", "drain-on-exit: \"maybe\" is not allowed; use yes or no"},
		{"drain-timeout = 1h", "drain-timeout: \"1h\""},
		{"drain-timeout = 99999999999999999999999", "drain-timeout"},
		{"reserve-memory = 9223372036854775807g", "reserve-memory"},
		{"reserve-memory = -1", "reserve-memory: \"-1\""},
		{"state-dirr = /x", "unknown key \"state-dirr\""},
		{"help = yes", "unknown key \"help\""},
		{"config = /x", "unknown key \"config\""},
		{"just words", "no \"=\" in \"just words\""},
		{"= x", "unknown key \"\""},
	};

	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		char text[256], place[128];

		snprintf(text, sizeof(text), "# comment\n\n  %s\n", bad[i].line);
		snprintf(place, sizeof(place), "%s:3: ", f->conf);
		put_conf(f, text);
		refused(f, load(f, NULL), bad[i].want);
		assert_non_null(strstr(f->err.msg, place));
	}
}

static void test_file_syntax(void **state)
{
	struct fixture *f = *state;

	put_conf(f,
		"\t; comment\r\nstate-dir=/a#b\r\n  hostname\t = \"n1\"  \nreserve-memory = 2G\n"
		"drain-on-exit = ON\n"
		"log-level = DEBUG");
	refused(f, load(f, NULL), "drain-on-exit");
	put_conf(f,
		"\t; comment\r\nstate-dir=/a#b\r\n  hostname\t = \"n1\"  \nreserve-memory = 2G\n"
		"drain-on-exit = on\n"
		"log-level = DEBUG");
	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->c.state_dir, "/a#b");
	assert_string_equal(f->c.hostname, "n1");
	assert_string_equal(f->c.log_level, "debug");
	assert_true(f->c.drain_on_exit);
	assert_true(f->c.reserve_memory == 2ull << 30);
	put(f->conf, 0600, "hostname = a\0b\n", 15);
	refused(f, load(f, NULL), "NUL byte");
}

static void test_lists_with_blanks(void **state)
{
	struct fixture *f = *state;

	put_conf(f,
		"allow-devices = /dev/fuse ,/dev/dri/*\nallow-device-cgroup-rules = c 189:* rwm, b "
		"1:1 r\n");
	assert_int_equal(load(f, NULL), 0);
	assert_int_equal(f->c.allow_devices.n, 2);
	assert_string_equal(f->c.allow_devices.v[0], "/dev/fuse");
	assert_string_equal(f->c.allow_devices.v[1], "/dev/dri/*");
	assert_int_equal(f->c.allow_cgroup_rules.n, 2);
	assert_string_equal(f->c.allow_cgroup_rules.v[0], "c 189:* rwm");
	assert_int_equal(f->c.allow_gpus.n, 1); /* the default */
	assert_string_equal(f->c.allow_gpus.v[0], "no");
	assert_string_equal(f->c.ingress, "reject");
	assert_int_equal(f->c.orphan_grace_s, 300);
	assert_int_equal(load(f, "--allow-devices", "", "--orphan-grace=5", NULL), 0);
	assert_int_equal(f->c.allow_devices.n, 0);
	assert_int_equal(f->c.orphan_grace_s, 5);
	refused(f, load(f, "--allow-devices", "/dev/a,,/dev/b", NULL),
		"separated by single commas");
	refused(f, load(f, "--orphan-grace", "0", NULL), "from 1 to 86400");
	refused(f, load(f, "--ingress", "mesh", NULL), "reject|host-port");
}

static void test_file_must_exist_only_if_named(void **state)
{
	struct fixture *f = *state;
	char missing[128];

	snprintf(missing, sizeof(missing), "%s/none", f->dir);
	assert_int_equal(load(f, NULL), 0);
	assert_int_equal(load(f, "--config", missing, NULL), -ENOENT);
	assert_non_null(strstr(f->err.msg, missing));
	setenv("SWARM_AGENTD_CONFIG", missing, 1);
	assert_int_equal(load(f, NULL), -ENOENT);
	put_conf(f, "hostname = named\n");
	setenv("SWARM_AGENTD_CONFIG", f->conf, 1);
	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->c.hostname, "named");
	assert_int_equal(load(f, "--config", f->dir, NULL), -EISDIR);
}

static void test_command_line(void **state)
{
	struct fixture *f = *state;

	refused(f, load(f, "--nope", NULL), "unknown option \"--nope\"");
	refused(f, load(f, "--nope=1", NULL), "unknown option \"--nope\"");
	refused(f, load(f, "--state", "/x", NULL), "unknown option \"--state\"");
	refused(f, load(f, "state-dir", NULL), "unexpected \"state-dir\"");
	refused(f, load(f, "--", NULL), "unexpected \"--\"");
	refused(f, load(f, "--hostname", NULL), "--hostname needs NAME");
	refused(f, load(f, "--help=yes", NULL), "takes no value");
	refused(f, load(f, "--log-level", "x", NULL), "command line: log-level: \"x\"");
	assert_int_equal(load(f, "--drain-on-exit", NULL), 0);
	assert_true(f->c.drain_on_exit);
	assert_int_equal(load(f, "--drain-on-exit=no", NULL), 0);
	assert_false(f->c.drain_on_exit);
	put_conf(f, "broken\n"); /* --help and --version work whatever the file says */
	assert_int_equal(load(f, "-h", NULL), 0);
	assert_true(f->c.help);
	assert_int_equal(load(f, "--version", NULL), 0);
	assert_true(f->c.version);
}

static void test_misspelt_variable_is_refused(void **state)
{
	struct fixture *f = *state;

	setenv("SWARM_AGENTD_STATEDIR", "/x", 1);
	refused(f, load(f, NULL), "unknown variable \"SWARM_AGENTD_STATEDIR\"");
	unsetenv("SWARM_AGENTD_STATEDIR");
	setenv("SWARM_AGENTD_HELP", "1", 1);
	refused(f, load(f, NULL), "SWARM_AGENTD_HELP");
}

static void test_token_is_hidden(void **state)
{
	struct fixture *f = *state;
	char a0[] = "swarm-agentd", a1[] = "--join-token=SWMTKN-1-abc-def", a2[] = "--join-token",
	     a3[] = "SWMTKN-1-ghi-jkl";
	char *argv[] = {a0, a1, a2, a3, NULL};

	assert_int_equal(config_load(&f->c, 4, argv, f->conf, &f->err), 0);
	assert_string_equal(f->c.join_token, "SWMTKN-1-ghi-jkl");
	assert_string_equal(a1, "--join-token=****************");
	assert_string_equal(a3, "****************");
	config_done(&f->c);

	setenv("SWARM_AGENTD_JOIN_TOKEN", "SWMTKN-1-env", 1);
	const char *in_env = getenv("SWARM_AGENTD_JOIN_TOKEN");

	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->c.join_token, "SWMTKN-1-env");
	assert_string_equal(in_env, "************");
	assert_null(getenv("SWARM_AGENTD_JOIN_TOKEN"));

	refused(f, load(f, "--join-token", "two words", NULL), "join-token");
	assert_null(strstr(f->err.msg, "two words"));

	put_conf(f, "join-token = SWMTKN-1-open\n");
	chmod(f->conf, 0644);
	assert_int_equal(load(f, NULL), 0);
	assert_non_null(strstr(f->log, "readable by everybody"));
	assert_null(strstr(f->log, "SWMTKN-1-open"));
}

static void test_stronger_of_token_and_token_file(void **state)
{
	struct fixture *f = *state;

	put_conf(f, "join-token-file = /etc/token\n");
	assert_int_equal(load(f, "--join-token", "T", NULL), 0);
	assert_string_equal(f->c.join_token, "T");
	assert_null(f->c.join_token_file);
	put_conf(f, "join-token = T\n");
	assert_int_equal(load(f, "--join-token-file", "/etc/token", NULL), 0);
	assert_null(f->c.join_token);
	assert_string_equal(f->c.join_token_file, "/etc/token");
	refused(f, load(f, "--join-token-file", "/etc/token", "--join-token", "T", NULL),
		"use one");
}

static void test_token_file(void **state)
{
	struct fixture *f = *state;
	char long_token[CONFIG_TOKEN_MAX + 16];
	static const struct {
		const char *text;
		size_t len;
		const char *token; /* NULL: refused */
	} cases[] = {
		{"SWMTKN-1-a-b\n", 13, "SWMTKN-1-a-b"},
		{"SWMTKN-1-a-b", 12, "SWMTKN-1-a-b"},
		{"SWMTKN-1-a-b\r\n", 14, "SWMTKN-1-a-b"},
		{"", 0, NULL},
		{"\n", 1, NULL},
		{"a\nb\n", 4, NULL},
		{"a b\n", 4, NULL},
		{"a\0b\n", 4, NULL},
	};

	assert_int_equal(load(f, "--join-token-file", f->token, NULL), 0);
	assert_int_equal(config_read_token(&f->c, &f->err), -ENOENT);
	assert_non_null(strstr(f->err.msg, f->token));
	for (size_t i = 0; i < SW_ARRAY_LEN(cases); i++) {
		put(f->token, 0600, cases[i].text, cases[i].len);
		if (cases[i].token) {
			assert_int_equal(config_read_token(&f->c, &f->err), 0);
			assert_string_equal(f->c.join_token, cases[i].token);
		} else {
			assert_int_equal(config_read_token(&f->c, &f->err), -EINVAL);
			assert_non_null(strstr(f->err.msg, "not one line with a join token"));
		}
	}
	assert_string_equal(f->log, "");
	memset(long_token, 'a', sizeof(long_token));
	put(f->token, 0600, long_token, sizeof(long_token));
	assert_int_equal(config_read_token(&f->c, &f->err), -EFBIG);
	put(f->token, 0644, "SWMTKN-1-a-b\n", 13);
	assert_int_equal(config_read_token(&f->c, &f->err), 0);
	assert_non_null(strstr(f->log, "readable by everybody"));
}

/* What the parser must survive is anything; what it must never do is accept a key it does not know.
 */
static void test_random_files(void **state)
{
	struct fixture *f = *state;
	static const char alphabet[] = "state-dir=\n \t#\"[]:,x1|%\r;";
	uint32_t seed = 1;

	for (int round = 0; round < 2000; round++) {
		char text[96];
		size_t len = 0;

		for (; len < sizeof(text); len++) {
			seed = seed * 1664525u + 1013904223u;
			text[len] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
		}
		put(f->conf, 0600, text, len);
		if (load(f, NULL) < 0)
			assert_true(f->err.msg[0] != '\0');
	}
}

static void test_usage_lists_every_option(void **state)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	config_usage(out);
	fclose(out);
	static const char *const must[] = {"--state-dir DIR", "--engine URL",
		"--join-addr HOST:PORT", "--join-token-file FILE", "--join-token TOKEN",
		"--hostname NAME", "--log-level LEVEL", "--drain-on-exit", "--availability STATE",
		"--pull-policy WHEN", "--config FILE", "--help", "--version", "Exit codes"};
	for (size_t i = 0; i < SW_ARRAY_LEN(must); i++)
		if (!strstr(text, must[i]))
			fail_msg("%s is not in --help", must[i]);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(test_defaults),
		T(test_precedence),
		T(test_docker_host_is_only_a_default),
		T(test_list_is_replaced_as_a_whole),
		T(test_bad_values_name_place_key_value_and_choice),
		T(test_file_syntax),
		T(test_lists_with_blanks),
		T(test_file_must_exist_only_if_named),
		T(test_command_line),
		T(test_misspelt_variable_is_refused),
		T(test_token_is_hidden),
		T(test_stronger_of_token_and_token_file),
		T(test_token_file),
		T(test_random_files),
		T(test_usage_lists_every_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
