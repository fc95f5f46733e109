#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/backoff.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <test.h>
#include <unistd.h>

/* --- err -------------------------------------------------------------------------------------- */

static void err_set_and_wrap(void **state)
{
	struct sw_err err = SW_ERR_NONE, copy;

	(void)state;
	assert_int_equal(sw_err_set(&err, SW_REJECTED, -E2BIG, "%d bytes, limit %d", 9, 8), -E2BIG);
	assert_int_equal(err.cls, SW_REJECTED);
	assert_int_equal(err.domain, SW_E_ERRNO);
	assert_int_equal(err.code, -E2BIG);
	assert_string_equal(err.msg, "9 bytes, limit 8");
	assert_int_equal(sw_err_wrap(&err, "task %s", "x1"), -E2BIG);
	assert_string_equal(err.msg, "task x1: 9 bytes, limit 8");
	assert_int_equal(err.cls, SW_REJECTED);
	assert_true(sw_err_is(&err, SW_REJECTED));
	assert_false(sw_err_is(&err, SW_FATAL));
	assert_false(sw_err_is(NULL, SW_OK));

	/* codes that are no errno come back as one */
	assert_int_equal(sw_err_setd(&err, SW_TEMPORARY, SW_E_HTTP, 503, "busy"), -EIO);
	assert_int_equal(err.domain, SW_E_HTTP);
	assert_int_equal(err.code, 503);
	assert_int_equal(sw_err_wrap(&err, "pull"), -EIO);
	assert_int_equal(err.code, 503);
	assert_string_equal(err.msg, "pull: busy");

	/* without a place for it */
	assert_int_equal(sw_err_set(NULL, SW_FATAL, -ENOENT, "x"), -ENOENT);
	assert_int_equal(sw_err_setd(NULL, SW_FATAL, SW_E_GRPC, 14, "x"), -EIO);
	assert_int_equal(sw_err_wrap(NULL, "x"), -EIO);

	sw_err_copy(&copy, &err);
	assert_string_equal(copy.msg, "pull: busy");
	sw_err_copy(&copy, NULL);
	assert_int_equal(copy.cls, SW_OK);
	assert_string_equal(sw_errclass_name(SW_CANCELLED), "cancelled");
	assert_string_equal(sw_errclass_name((enum sw_errclass)99), "?");
}

static void assert_cut(const struct sw_err *err, size_t len)
{
	assert_int_equal(strlen(err->msg), len);
	assert_string_equal(err->msg + len - 3, "...");
}

static void err_too_long(void **state)
{
	char big[3 * SW_ERR_MSG_MAX];
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	memset(big, 'x', sizeof(big));
	big[SW_ERR_MSG_MAX - 1] = '\0';
	sw_err_set(&err, SW_FATAL, -EIO, "%s", big); /* just fits */
	assert_string_equal(err.msg, big);
	sw_err_wrap(&err, "y");
	assert_cut(&err, SW_ERR_MSG_MAX - 1);
	assert_memory_equal(err.msg, "y: xx", 5);
	big[SW_ERR_MSG_MAX - 1] = 'x';
	big[SW_ERR_MSG_MAX] = '\0';
	sw_err_set(&err, SW_FATAL, -EIO, "%s", big);
	assert_cut(&err, SW_ERR_MSG_MAX - 1);
	sw_err_set(&err, SW_FATAL, -EIO, "cause");
	sw_err_wrap(&err, "%s", big); /* the wrapping alone is too long */
	assert_cut(&err, SW_ERR_MSG_MAX - 1);

	/* never half a character */
	for (size_t shift = 0; shift < 4; shift++) {
		memset(big, 'x', shift);
		for (size_t i = shift; i + 4 < sizeof(big); i += 4)
			memcpy(big + i, "\xf0\x9f\x90\xb3", 4);
		big[sizeof(big) - 8] = '\0';
		sw_err_set(&err, SW_FATAL, -EIO, "%s", big);
		assert_true(strlen(err.msg) >= SW_ERR_MSG_MAX - 4);
		assert_int_equal((strlen(err.msg) - 3 - shift) % 4, 0);
		assert_string_equal(err.msg + strlen(err.msg) - 3, "...");
	}
}

/* --- log -------------------------------------------------------------------------------------- */

static char line[4096];
static enum log_level line_level;
static unsigned n_lines;

static void on_line(void *arg, enum log_level level, const char *text)
{
	assert_ptr_equal(arg, line);
	n_lines++;
	line_level = level;
	snprintf(line, sizeof(line), "%s", text);
}

static void log_format(void **state)
{
	struct sw_err err = SW_ERR_NONE;

	(void)state;
	log_set_sink(on_line, line);
	log_set_level(LOG_L_DEBUG);
	log_info("task started", KS("task", "x1"), KU("took_ms", UINT64_MAX), KI("n", INT64_MIN),
		KB("ok", 5), KB("bad", 0));
	assert_string_equal(line,
		"task started task=x1 took_ms=18446744073709551615 n=-9223372036854775808 ok=true "
		"bad=false");
	assert_int_equal(line_level, LOG_L_INFO);
	log_err("no fields");
	assert_string_equal(line, "no fields");
	assert_int_equal(line_level, LOG_L_ERR);
	log_notice("e", KERR(NULL), KERR(&err), KS("after", "z"));
	assert_string_equal(line, "e after=z");
	sw_err_set(&err, SW_TEMPORARY, -EIO, "cannot \"do\" it");
	log_warning("e", KERR(&err));
	assert_string_equal(line, "e err=\"cannot \\\"do\\\" it\" class=temporary");
	log_set_sink(NULL, NULL);
}

static void log_quoting(void **state)
{
	static const struct {
		const char *in, *out;
	} table[] = {
		{"plain-1.2/3:4", "plain-1.2/3:4"},
		{"", "\"\""},
		{NULL, "\"\""},
		{"two words", "\"two words\""},
		{"a=b", "\"a=b\""},
		{"a\"b", "\"a\\\"b\""},
		{"a\\b", "\"a\\\\b\""},
		{"a\nerr=forged", "\"a\\nerr=forged\""},
		{"a\033[2J\r\x7f", "\"a\\x1b[2J\\x0d\\x7f\""},
		{"\xc3\xa4", "\"\xc3\xa4\""},
		{"\xc2\x9b"
		 "2J",
			"\"\\u009b2J\""},
		{"\xc2\xa0", "\"\xc2\xa0\""},
		{"\xc2", "\"\xc2\""},
		{"\xff", "\"\xff\""},
	};
	char want[64];

	(void)state;
	log_set_sink(on_line, line);
	for (size_t i = 0; i < SW_ARRAY_LEN(table); i++) {
		log_info("m", KS("k", table[i].in));
		snprintf(want, sizeof(want), "m k=%s", table[i].out);
		assert_string_equal(line, want);
	}
	log_set_sink(NULL, NULL);
}

static void log_levels(void **state)
{
	static const char *const names[] = {"err", "warning", "notice", "info", "debug"};
	int evaluated = 0;

	(void)state;
	log_set_sink(on_line, line);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(log_level_parse(names[i]), i + 3);
		assert_string_equal(log_level_name((enum log_level)(i + 3)), names[i]);
		log_set_level((enum log_level)(i + 3));
		assert_int_equal(log_get_level(), i + 3);
		n_lines = 0;
		log_err("m");
		log_warning("m");
		log_notice("m");
		log_info("m");
		log_debug("m");
		assert_int_equal(n_lines, i + 1);
	}
	log_set_level(LOG_L_INFO);
	log_debug("m", KI("n", ++evaluated)); /* what is not printed costs nothing */
	assert_int_equal(evaluated, 0);
	assert_int_equal(log_level_parse("warn"), LOG_L_WARNING);
	assert_int_equal(log_level_parse("error"), LOG_L_ERR);
	assert_int_equal(log_level_parse("INFO"), -1);
	assert_int_equal(log_level_parse(NULL), -1);
	assert_string_equal(log_level_name((enum log_level)42), "?");
	log_set_sink(NULL, NULL);
	log_set_level(LOG_L_INFO);
}

/* Runs @child with its stderr in a pipe; returns what it wrote there, and its exit status. */
static int in_child(void (*child)(void), char *out, size_t size)
{
	int fd[2], status = 0;
	size_t len = 0;
	ssize_t k;
	pid_t pid;

	assert_int_equal(pipe(fd), 0);
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(fd[1], STDERR_FILENO);
		close(fd[0]);
		child();
		_exit(0);
	}
	close(fd[1]);
	while (len < size - 1 && (k = read(fd[0], out + len, size - 1 - len)) > 0)
		len += (size_t)k;
	out[len] = '\0';
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void child_stderr(void)
{
	unsetenv("JOURNAL_STREAM");
	errno = ENOTTY;
	log_info("one", KS("k", "v"));
	if (errno != ENOTTY)
		_exit(1);
	setenv("JOURNAL_STREAM", "1:2", 1); /* somebody else's stderr; looked at only once anyway */
	log_err("two");
}

static void log_to_stderr(void **state)
{
	char out[256];

	(void)state;
	assert_int_equal(in_child(child_stderr, out, sizeof(out)), 0);
	assert_string_equal(out, "<6>one k=v\n<3>two\n");
}

static bool has(const char *buf, size_t len, const char *want, size_t want_len)
{
	return memmem(buf, len, want, want_len) != NULL;
}
#define HAS(s) has(buf, (size_t)len, s, sizeof(s) - 1)

/* A /run of our own with a journal in it that comes, and goes, and comes again. */
static void child_journal(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
	struct sw_err err = SW_ERR_NONE;
	static char buf[8192], big[300000];
	char env[64];
	struct stat st;
	ssize_t len;
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("none", "/run", "tmpfs", 0, NULL) < 0)
		_exit(77);
	mkdir("/run/systemd", 0755);
	mkdir("/run/systemd/journal", 0755);
	fstat(STDERR_FILENO, &st);
	snprintf(env, sizeof(env), "%llu:%llu", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", env, 1);
	log_info("before the journal");
	for (int round = 0; round < 2; round++) {
		fd = socket(AF_UNIX, SOCK_DGRAM, 0);
		if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
			_exit(10);
		sw_err_set(&err, SW_TEMPORARY, -EIO, "oh");
		log_warning("msg here", KS("task_id", "x y"), KS("lines", "a\nb"), KU("big", 1u),
			KI("neg", -1), KB("yes", true), KERR(&err));
		len = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (len <= 0)
			_exit(11);
		if (!HAS("MESSAGE=msg here task_id=\"x y\" lines=\"a\\nb\" big=1 neg=-1 yes=true "
			 "err=oh "
			 "class=temporary\n") ||
			!HAS("PRIORITY=4\n") || !HAS("SYSLOG_IDENTIFIER=swarm-agentd\n") ||
			!HAS("SWARM_EVENT=msg here\n") || !HAS("SWARM_TASK_ID=x y\n") ||
			!HAS("SWARM_BIG=1\n") || !HAS("SWARM_NEG=-1\n") ||
			!HAS("SWARM_YES=true\n") || !HAS("SWARM_ERR=oh\n"))
			_exit(12);
		if (!HAS("\nSWARM_LINES\n\3\0\0\0\0\0\0\0a\nb\n"))
			_exit(13);
		close(fd);
		unlink(sa.sun_path);
		log_info("no journal");
	}
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		_exit(14);
	memset(big, 'b', sizeof(big) - 1);
	log_info("too large for a datagram", KS("v", big));
	_exit(0);
}

static void log_to_journal(void **state)
{
	static char out[400000];
	const char *start = "<6>before the journal\n<6>no journal\n<6>no journal\n"
			    "<6>too large for a datagram v=bbb";
	int status;

	(void)state;
	if (geteuid() != 0)
		skip(); /* a /run of our own needs root */
	status = in_child(child_journal, out, sizeof(out));
	if (status == 77)
		skip();
	assert_int_equal(status, 0);
	assert_memory_equal(out, start, strlen(start));
	assert_true(strlen(out) > 299999);
}

/* --- backoff, random, memory ------------------------------------------------------------------ */

static uint64_t next_random;
static uint64_t fake_random(void *arg)
{
	(void)arg;
	return next_random;
}

static void backoff(void **state)
{
	static const uint64_t bounds[] = {100, 300, 700, 1500, 3100, 6300, 8000, 8000, 8000};
	struct sw_backoff b = {.base_ns = 100000000, .max_ns = 8000000000, .factor = 2};

	(void)state;
	assert_true(sw_backoff_delay(&b) == 0);
	for (size_t i = 0; i < SW_ARRAY_LEN(bounds); i++) {
		assert_true(sw_backoff_fail(&b) == bounds[i] * 1000000);
		for (int k = 0; k < 100; k++)
			assert_true(sw_backoff_delay(&b) < bounds[i] * 1000000);
	}
	sw_random_source(fake_random, NULL);
	next_random = 7999999999;
	assert_true(sw_backoff_delay(&b) == 7999999999);
	next_random = 8000000001;
	assert_true(sw_backoff_delay(&b) == 1);
	next_random = UINT64_MAX; /* a source is never asked twice */
	assert_true(sw_backoff_delay(&b) == UINT64_MAX % 8000000000);
	sw_random_source(NULL, NULL);
	sw_backoff_reset(&b);
	assert_true(sw_backoff_delay(&b) == 0);
	assert_true(sw_backoff_fail(&b) == 100000000);

	/* factors that overflow end at the maximum */
	b = (struct sw_backoff){.base_ns = UINT64_MAX - 5, .max_ns = UINT64_MAX, .factor = 3};
	assert_true(sw_backoff_fail(&b) == UINT64_MAX - 5);
	assert_true(sw_backoff_fail(&b) == UINT64_MAX);
	assert_true(sw_backoff_fail(&b) == UINT64_MAX);
}

static void random_bounds(void **state)
{
	static const uint64_t bounds[] = {
		1, 2, 3, 7, 1000, 1ull << 33, (1ull << 63) + 1, UINT64_MAX};
	unsigned seen = 0;

	(void)state;
	assert_true(sw_random(0) == 0);
	for (size_t i = 0; i < SW_ARRAY_LEN(bounds); i++)
		for (int k = 0; k < 500; k++)
			assert_true(sw_random(bounds[i]) < bounds[i]);
	for (int k = 0; k < 1000; k++)
		seen |= 1u << sw_random(8);
	assert_int_equal(seen, 0xff); /* missing one by chance: (7/8)^1000 */
	for (int k = 0; k < 1000; k++) {
		double d = sw_random_unit();

		assert_true(d >= 0 && d < 1);
	}
	sw_random_source(fake_random, NULL);
	next_random = UINT64_MAX;
	assert_true(sw_random_unit() < 1);
	next_random = 0;
	assert_true(sw_random_unit() == 0);
	sw_random_source(NULL, NULL);
}

static void memory(void **state)
{
	char *s, *t;

	(void)state;
	assert_null(xstrdup(NULL));
	assert_null(xstrndup(NULL, 3));
	s = xstrndup("abcdef", 3);
	assert_string_equal(s, "abc");
	t = take(s);
	assert_null(s);
	free(t);
	s = xasprintf("%d-%s", 7, "x");
	assert_string_equal(s, "7-x");
	sw_wipe_str(s);
	sw_wipe_str(NULL);
	s = xcalloc(0, 0);
	s = xrealloc(s, 3, 4);
	free(s);
	s = xmemdup(NULL, 0);
	assert_non_null(s);
	free(s);
	assert_true(sw_streq(NULL, NULL));
	assert_false(sw_streq("", NULL));
	assert_true(sw_streq("a", "a"));
	assert_true(sw_str_empty(""));
	assert_true(sw_str_empty(NULL));
	assert_true(sw_starts_with("abc", "ab"));
	assert_false(sw_starts_with("a", "ab"));
	assert_false(sw_starts_with(NULL, "ab"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(err_set_and_wrap),
		cmocka_unit_test(err_too_long),
		cmocka_unit_test(log_format),
		cmocka_unit_test(log_quoting),
		cmocka_unit_test(log_levels),
		cmocka_unit_test(log_to_stderr),
		cmocka_unit_test(log_to_journal),
		cmocka_unit_test(backoff),
		cmocka_unit_test(random_bounds),
		cmocka_unit_test(memory),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
