#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static _Atomic int max_level = LOG_L_INFO;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static log_sink *sink_fn;
static void *sink_arg;

static const struct {
	const char *name;
	enum log_level level;
} names[] = {
	{"err", LOG_L_ERR},
	{"error", LOG_L_ERR},
	{"warning", LOG_L_WARNING},
	{"warn", LOG_L_WARNING},
	{"notice", LOG_L_NOTICE},
	{"info", LOG_L_INFO},
	{"debug", LOG_L_DEBUG},
};

int log_level_parse(const char *name)
{
	for (size_t i = 0; i < SW_ARRAY_LEN(names); i++)
		if (sw_streq(name, names[i].name))
			return names[i].level;
	return -1;
}

const char *log_level_name(enum log_level level)
{
	for (size_t i = 0; i < SW_ARRAY_LEN(names); i++)
		if (names[i].level == level)
			return names[i].name;
	return "?";
}

bool log_enabled(enum log_level level)
{
	return (int)level <= max_level;
}

void log_set_level(enum log_level level)
{
	max_level = (int)level;
}

enum log_level log_get_level(void)
{
	return (enum log_level)max_level;
}

void log_set_sink(log_sink *sink, void *arg)
{
	pthread_mutex_lock(&lock);
	sink_fn = sink;
	sink_arg = arg;
	pthread_mutex_unlock(&lock);
}

static bool is_plain(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f)
			return false;
	}
	return true;
}

/* Control characters never reach a terminal or the journal, not those of Unicode either (U+0080 to
 * U+009F, one of which starts an escape sequence). Other UTF-8, valid or not, passes: a reader of
 * the log decides what to show. */
static void put_quoted(FILE *f, const char *s)
{
	if (!s)
		s = "";
	if (is_plain(s)) {
		fputs(s, f);
		return;
	}
	putc('"', f);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			fprintf(f, "\\%c", c);
		else if (c == '\n')
			fputs("\\n", f);
		else if (c < ' ' || c == 0x7f)
			fprintf(f, "\\x%02x", c);
		else if (c == 0xc2 && ((unsigned char)s[1] & 0xe0) == 0x80)
			fprintf(f, "\\u%04x", (unsigned char)*++s);
		else
			putc(c, f);
	}
	putc('"', f);
}

static void put_fields(FILE *f, const struct log_field *fields)
{
	for (; fields->kind != LOG_K_END; fields++) {
		switch (fields->kind) {
		case LOG_K_STR:
			fprintf(f, " %s=", fields->key);
			put_quoted(f, fields->v.s);
			break;
		case LOG_K_INT:
			fprintf(f, " %s=%lld", fields->key, (long long)fields->v.i);
			break;
		case LOG_K_UINT:
			fprintf(f, " %s=%llu", fields->key, (unsigned long long)fields->v.u);
			break;
		case LOG_K_BOOL:
			fprintf(f, " %s=%s", fields->key, fields->v.i ? "true" : "false");
			break;
		case LOG_K_ERR:
			if (!fields->v.e || fields->v.e->cls == SW_OK)
				break;
			fprintf(f, " %s=", fields->key);
			put_quoted(f, fields->v.e->msg);
			fprintf(f, " class=%s", sw_errclass_name(fields->v.e->cls));
			break;
		case LOG_K_END:
			break;
		}
	}
}

/* One field of the journal's native protocol: "KEY=value\n", or with a 64-bit little-endian length
 * where the value has a newline (systemd.io/JOURNAL_NATIVE_PROTOCOL). */
static void put_journal(FILE *f, const char *key, const char *value)
{
	if (!strchr(value, '\n')) {
		fprintf(f, "%s=%s\n", key, value);
		return;
	}
	uint64_t len = strlen(value);

	fprintf(f, "%s\n", key);
	for (int i = 0; i < 8; i++)
		putc((int)(len >> (8 * i)) & 0xff, f);
	fwrite(value, 1, len, f);
	putc('\n', f);
}

/* A socket for the journal, if our stderr is the stream that JOURNAL_STREAM ("dev:inode") names;
 * else -1. Not connected: a journald that restarts makes a new socket at the same place. */
static int journal_socket(void)
{
	static int fd = -1;
	static bool tried; /* under the log's lock */
	const char *env = getenv("JOURNAL_STREAM");
	struct stat st;
	char want[64];

	if (tried)
		return fd;
	tried = true;
	if (!env || fstat(STDERR_FILENO, &st) < 0)
		return -1;
	snprintf(want, sizeof(want), "%llu:%llu", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino);
	if (strcmp(env, want) == 0)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd;
}

/* False when the journal did not take it (not there, full, a line larger than a datagram may be):
 * stderr, which is the journal's other door, gets the line then. */
static bool journal_send(int fd, const char *buf, size_t len)
{
	static const struct sockaddr_un sa = {
		.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};

	return sendto(fd, buf, len, MSG_NOSIGNAL, (const struct sockaddr *)&sa, sizeof(sa)) ==
	       (ssize_t)len;
}

static bool to_journal(
	enum log_level level, const char *line, const char *msg, const struct log_field *fields)
{
	int fd = journal_socket();
	char *buf = NULL;
	size_t len = 0;
	FILE *f;
	bool ok;

	if (fd < 0)
		return false;
	f = open_memstream(&buf, &len);
	if (!f)
		return false;
	put_journal(f, "MESSAGE", line);
	fprintf(f, "PRIORITY=%d\nSYSLOG_IDENTIFIER=swarm-agentd\n", (int)level);
	put_journal(f, "SWARM_EVENT", msg);
	for (; fields->kind != LOG_K_END; fields++) {
		char key[64] = "SWARM_", value[32];
		size_t n = strlen(key);

		for (const char *k = fields->key; *k && n < sizeof(key) - 1; k++)
			key[n++] = (char)toupper((unsigned char)*k);
		key[n] = '\0';
		switch (fields->kind) {
		case LOG_K_STR:
			put_journal(f, key, fields->v.s ? fields->v.s : "");
			break;
		case LOG_K_ERR:
			if (fields->v.e && fields->v.e->cls != SW_OK)
				put_journal(f, key, fields->v.e->msg);
			break;
		case LOG_K_UINT:
			snprintf(value, sizeof(value), "%llu", (unsigned long long)fields->v.u);
			put_journal(f, key, value);
			break;
		case LOG_K_BOOL:
			put_journal(f, key, fields->v.i ? "true" : "false");
			break;
		default:
			snprintf(value, sizeof(value), "%lld", (long long)fields->v.i);
			put_journal(f, key, value);
			break;
		}
	}
	ok = fclose(f) == 0 && journal_send(fd, buf, len);
	free(buf);
	return ok;
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
	char *line = NULL;
	size_t len = 0;
	int saved = errno; /* logging between a call and the look at its errno is fine */
	FILE *f = open_memstream(&line, &len);

	if (!f)
		goto out;
	fprintf(f, "<%d>", (int)level);
	fputs(msg, f);
	put_fields(f, fields);
	if (fclose(f) != 0)
		goto out;

	pthread_mutex_lock(&lock);
	if (sink_fn) {
		sink_fn(sink_arg, level, line + 3);
	} else if (!to_journal(level, line + 3, msg, fields)) {
		line[len] = '\n'; /* in place of the terminator: one write, lines do not mix */
		(void)sw_write_all(
			STDERR_FILENO, line, len + 1); /* nobody listens: nothing better to do */
	}
	pthread_mutex_unlock(&lock);
out:
	free(line);
	errno = saved;
}
