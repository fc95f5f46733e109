/* One table row per option: its name on the command line is its key in the file, and, upper case
 * with SWARM_AGENTD_ before it, its environment variable. Sources are applied from the weakest to
 * the strongest; every value goes through set_value(), so a value is checked alike wherever it
 * stands and the message says where that was. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <sys/stat.h>

#include "config.h"

#define ENV_PREFIX    "SWARM_AGENTD_"
#define FILE_MAX_SIZE (64 * 1024)

enum kind {
	K_STR,
	K_LIST,
	K_COMMAS,
	K_BOOL,
	K_CHOICE,
	K_SECONDS,
	K_BYTES,
	K_SECRET,
	K_CONFIG,
	K_FLAG
};

struct option_row {
	const char *name, *arg; /* arg NULL: takes none */
	enum kind kind;
	size_t offset;
	const char *def;      /* NULL: none */
	const char *choices;  /* K_CHOICE: "a|b|c" */
	const char *fallback; /* another environment variable that gives the default */
	int (*check)(const char *value, char **canonical, const char **want);
	const char *help;
};

static int check_path(const char *v, char **canonical, const char **want);
static int check_run_dir(const char *v, char **canonical, const char **want);
static int check_addr(const char *v, char **canonical, const char **want);
static int check_hostname(const char *v, char **canonical, const char **want);
static int check_engine(const char *v, char **canonical, const char **want);
static int check_api_version(const char *v, char **canonical, const char **want);
static int check_grace(const char *v, char **canonical, const char **want);

#define AT(member) offsetof(struct config, member)
static const struct option_row rows[] = {
	{"state-dir", "DIR", K_STR, AT(state_dir), "/var/lib/swarm-agentd", NULL, NULL, check_path,
		"node certificate and store (DIR/agent.db); made with mode 0700"},
	{"run-dir", "DIR", K_STR, AT(run_dir), "/run/swarm-agentd", NULL, NULL, check_run_dir,
		"secrets and configs of running tasks, in memory: a tmpfs is mounted on it if it "
		"is on none"},
	{"engine", "URL", K_STR, AT(engine), "unix:///var/run/docker.sock", NULL, "DOCKER_HOST",
		check_engine, "engine that runs the tasks: unix:///PATH or tcp://HOST:PORT"},
	{"engine-cert-path", "DIR", K_STR, AT(engine_cert_path), NULL, NULL, "DOCKER_CERT_PATH",
		check_path, "TLS to a tcp:// engine: folder with ca.pem, cert.pem, key.pem"},
	{"engine-tls-verify", "yes|no", K_BOOL, AT(engine_tls_verify), "yes", NULL, NULL, NULL,
		"check the engine's certificate against ca.pem"},
	{"engine-api-version", "X.Y", K_STR, AT(engine_api_version), NULL, NULL,
		"DOCKER_API_VERSION", check_api_version,
		"use this Engine API version instead of negotiating one"},
	{"join-addr", "HOST:PORT", K_LIST, AT(join_addr), NULL, NULL, NULL, check_addr,
		"a manager to join through; repeatable; port " CONFIG_JOIN_PORT " if left out"},
	{"join-token-file", "FILE", K_STR, AT(join_token_file), NULL, NULL, NULL, check_path,
		"file with the worker join token; needed for the first start only"},
	{"join-token", "TOKEN", K_SECRET, AT(join_token), NULL, NULL, NULL, NULL,
		"the token itself; prefer the file, a command line is readable by others"},
	{"hostname", "NAME", K_STR, AT(hostname), NULL, NULL, NULL, check_hostname,
		"the node's name in the swarm; default: what the engine says"},
	{"availability", "STATE", K_CHOICE, AT(availability), "active", "active|pause|drain", NULL,
		NULL, "availability that a joining node asks for"},
	{"pull-policy", "WHEN", K_CHOICE, AT(pull_policy), "always", "always|missing|never", NULL,
		NULL,
		"when to pull a task's image; \"always\" falls back to the local one, as dockerd "
		"does"},
	{"docker-config", "DIR", K_STR, AT(docker_config), NULL, NULL, "DOCKER_CONFIG", check_path,
		"folder with config.json: registry credentials for tasks that bring none"},
	{"reserve-memory", "BYTES", K_BYTES, AT(reserve_memory), "0", NULL, NULL, NULL,
		"memory to hide from the scheduler; k, m, g may follow"},
	{"generic-resources", "LIST", K_COMMAS, AT(generic_resources), NULL, NULL, NULL, NULL,
		"KIND=NAME or KIND=NUMBER, separated by commas; instead of the engine's"},
	{"ingress", "HOW", K_CHOICE, AT(ingress), "reject", "reject|host-port", NULL, NULL,
		"services published in ingress mode: refuse, or publish on this node alone"},
	{"orphan-grace", "SECONDS", K_SECONDS, AT(orphan_grace_s), "300", NULL, NULL, check_grace,
		"how long a container of ours may be without a task before it is removed"},
	{"allow-devices", "LIST", K_COMMAS, AT(allow_devices), "no", NULL, NULL, NULL,
		"devices that services may use: PATTERN[:PERMS], as /dev/dri/*"},
	{"allow-device-cgroup-rules", "LIST", K_COMMAS, AT(allow_cgroup_rules), "no", NULL, NULL,
		NULL, "device rules that services may set, as \"c 189:* rwm\""},
	{"allow-privileged", "yes|no", K_BOOL, AT(allow_privileged), "no", NULL, NULL, NULL,
		"let services run privileged containers, which own this node"},
	{"allow-shm-size", "BYTES", K_BYTES, AT(allow_shm_size), "0", NULL, NULL, NULL,
		"how large services may make /dev/shm; k, m, g may follow; 0: not at all"},
	{"allow-security-opt", "LIST", K_COMMAS, AT(allow_security_opt), "no", NULL, NULL, NULL,
		"security options that services may set: patterns, as apparmor=*"},
	{"allow-gpus", "LIST", K_COMMAS, AT(allow_gpus), "no", NULL, NULL, NULL,
		"GPUs that services may use: all, assigned, or patterns of ids"},
	{"allow-ipc", "LIST", K_COMMAS, AT(allow_ipc), "no", NULL, NULL, NULL,
		"IPC modes for services: none, private, shareable, host"},
	{"allow-pid", "LIST", K_COMMAS, AT(allow_pid), "no", NULL, NULL, NULL,
		"process namespaces for services: host"},
	{"log-level", "LEVEL", K_CHOICE, AT(log_level), "info", "err|warning|notice|info|debug",
		NULL, NULL, "how much to log; SIGHUP reads it again"},
	{"drain-on-exit", NULL, K_BOOL, AT(drain_on_exit), "no", NULL, NULL, NULL,
		"on SIGTERM stop and remove all tasks; without it containers keep running"},
	{"drain-timeout", "SECONDS", K_SECONDS, AT(drain_timeout_s), "60", NULL, NULL, NULL,
		"how long a drain may take"},
	{"config", "FILE", K_CONFIG, AT(file), NULL, NULL, NULL, check_path,
		"configuration file; default: " CONFIG_DEFAULT_FILE " if it is there"},
	{"help", NULL, K_FLAG, AT(help), NULL, NULL, NULL, NULL, "print this and exit"},
	{"version", NULL, K_FLAG, AT(version), NULL, NULL, NULL, NULL,
		"print the version and exit"},
};
_Static_assert(SW_ARRAY_LEN(rows) <= sizeof(((struct config *)0)->source), "source[] is too small");

/* Where a value stands, for messages: "FILE:12", "environment", "command line". */
struct place {
	enum config_source source;
	const char *file;
	unsigned line;
};

static const char *place_name(const struct place *p, char *buf, size_t size)
{
	if (p->source == CONFIG_FILE)
		snprintf(buf, size, "%s:%u", p->file, p->line);
	else
		snprintf(buf, size, "%s",
			p->source == CONFIG_ENV   ? "environment"
			: p->source == CONFIG_ARG ? "command line"
						  : "default");
	return buf;
}

static void *member(struct config *c, const struct option_row *o)
{
	return (char *)c + o->offset;
}

static const struct option_row *find_row(const char *name, size_t len)
{
	for (size_t i = 0; i < SW_ARRAY_LEN(rows); i++)
		if (strlen(rows[i].name) == len && strncmp(rows[i].name, name, len) == 0)
			return &rows[i];
	return NULL;
}

enum config_source config_source_of(const struct config *c, const char *name)
{
	const struct option_row *o = find_row(name, strlen(name));

	return o ? (enum config_source)c->source[o - rows] : CONFIG_UNSET;
}

/* "SWARM_AGENTD_JOIN_ADDR" for "join-addr". */
static void env_name(const struct option_row *o, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, ENV_PREFIX);

	for (const char *p = o->name; *p && n + 1 < size; p++)
		buf[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
	buf[n] = '\0';
}

/* ---- values */

static bool is_word(const char *v)
{
	for (; *v; v++)
		if ((unsigned char)*v <= ' ' || *v == 0x7f)
			return false;
	return true;
}

static int check_path(const char *v, char **canonical, const char **want)
{
	(void)canonical;
	*want = "a path";
	return *v && strlen(v) < PATH_MAX ? 0 : -EINVAL;
}

/* The engine mounts what is in it: it has to mean the same in every process. */
static int check_run_dir(const char *v, char **canonical, const char **want)
{
	size_t len = strlen(v);

	*want = "an absolute path without \"..\", and not /";
	while (len > 1 && v[len - 1] == '/')
		len--;
	if (*v != '/' || len < 2 || len > PATH_MAX - 128 || strstr(v, "/../") ||
		(len >= 3 && strncmp(v + len - 3, "/..", 3) == 0))
		return -EINVAL;
	*canonical = xstrndup(v, len);
	return 0;
}

/* HOST, HOST:PORT, [V6], [V6]:PORT; a bare IPv6 address would be ambiguous. */
static int check_addr(const char *v, char **canonical, const char **want)
{
	const char *port = NULL, *end;
	size_t host_len;

	*want = "HOST or HOST:PORT with a port from 1 to 65535; IPv6 as [ADDR]:PORT";
	if (*v == '[') {
		end = strchr(v, ']');
		if (!end || end == v + 1 || (end[1] && end[1] != ':'))
			return -EINVAL;
		host_len = (size_t)(end - v) + 1;
		port = end[1] ? end + 2 : NULL;
	} else {
		end = strchr(v, ':');
		if (end && strchr(end + 1, ':'))
			return -EINVAL;
		host_len = end ? (size_t)(end - v) : strlen(v);
		port = end ? end + 1 : NULL;
	}
	if (host_len == 0 || host_len > 255 || !is_word(v) || strpbrk(v, "/@,"))
		return -EINVAL;
	if (port) {
		unsigned long n = 0;
		size_t len = strlen(port);

		if (len == 0 || len > 5 || strspn(port, "0123456789") != len)
			return -EINVAL;
		n = strtoul(port, NULL, 10);
		if (n == 0 || n > 65535)
			return -EINVAL;
		return 0;
	}
	*canonical = xasprintf("%s:" CONFIG_JOIN_PORT, v);
	return 0;
}

static int check_hostname(const char *v, char **canonical, const char **want)
{
	(void)canonical;
	*want = "1 to 255 characters without blanks";
	return *v && strlen(v) <= 255 && is_word(v) ? 0 : -EINVAL;
}

/* Form only: the engine room knows the schemes and says which ones it takes. */
static int check_engine(const char *v, char **canonical, const char **want)
{
	const char *sep = strstr(v, "://");

	(void)canonical;
	*want = "unix:///PATH or tcp://HOST:PORT";
	return sep && sep != v && sep[3] ? 0 : -EINVAL;
}

static int check_api_version(const char *v, char **canonical, const char **want)
{
	size_t major = strspn(v, "0123456789"), minor;

	(void)canonical;
	*want = "MAJOR.MINOR, e.g. 1.41";
	if (major == 0 || major > 4 || v[major] != '.')
		return -EINVAL;
	minor = strspn(v + major + 1, "0123456789");
	return minor > 0 && minor <= 4 && !v[major + 1 + minor] ? 0 : -EINVAL;
}

static int check_grace(const char *v, char **canonical, const char **want)
{
	(void)canonical;
	*want = "whole seconds, from 1 to 86400";
	return strspn(v, "0") == strlen(v) ? -EINVAL : 0;
}

static int parse_bool(const char *v, bool *ret)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false",
									     "off", "0"};

	for (size_t i = 0; i < SW_ARRAY_LEN(yes); i++) {
		if (sw_streq(v, yes[i]) || sw_streq(v, no[i])) {
			*ret = sw_streq(v, yes[i]);
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_number(const char *v, bool units, uint64_t max, uint64_t *ret)
{
	uint64_t n = 0;
	unsigned shift = 0;

	if (!isdigit((unsigned char)*v))
		return -EINVAL;
	for (; isdigit((unsigned char)*v); v++)
		if (__builtin_mul_overflow(n, 10, &n) ||
			__builtin_add_overflow(n, (uint64_t)(*v - '0'), &n))
			return -EINVAL;
	if (units && *v) {
		const char *p = strchr("kmg", tolower((unsigned char)*v));

		if (!p)
			return -EINVAL;
		shift = *p == 'k' ? 10 : *p == 'm' ? 20 : 30;
		v++;
	}
	if (*v || n > max >> shift)
		return -EINVAL;
	*ret = n << shift;
	return 0;
}

static bool is_choice(const char *choices, const char *v)
{
	size_t len = strlen(v);

	for (const char *p = choices; len && p; p = strchr(p, '|')) {
		if (*p == '|')
			p++;
		if (strncmp(p, v, len) == 0 && (p[len] == '|' || !p[len]))
			return true;
	}
	return false;
}

static void list_clear(struct config_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct config_list){0};
}

static int refuse(const struct option_row *o, const char *value, const char *want,
	const struct place *p, struct sw_err *err)
{
	char where[PATH_MAX + 32];

	if (o->kind == K_SECRET)
		value = "(not shown)";
	return sw_err_set(err, SW_REJECTED, -EINVAL, "%s: %s: \"%s\" is not allowed; use %s",
		place_name(p, where, sizeof(where)), o->name, value, want);
}

/* One checked value of one option from one place. */
static int set_one(struct config *c, const struct option_row *o, const char *value,
	const struct place *p, struct sw_err *err)
{
	sw_auto_free char *canonical = NULL;
	const char *want = NULL;
	char buf[32];

	if (o->check && o->check(value, &canonical, &want) < 0)
		return refuse(o, value, want, p, err);

	switch (o->kind) {
	case K_LIST:
	case K_COMMAS: {
		struct config_list *l = member(c, o);

		l->v = xrealloc(l->v, l->n + 1, sizeof(*l->v));
		l->v[l->n++] = canonical ? take(canonical) : xstrdup(value);
		return 0;
	}
	case K_FLAG:
	case K_BOOL:
		if (parse_bool(value, member(c, o)) < 0)
			return refuse(o, value, "yes or no", p, err);
		return 0;
	case K_SECONDS:
		if (parse_number(value, false, 86400, member(c, o)) < 0)
			return refuse(o, value, "whole seconds, at most 86400", p, err);
		return 0;
	case K_BYTES:
		if (parse_number(value, true, INT64_MAX, member(c, o)) < 0)
			return refuse(o, value, "bytes, or a number followed by k, m or g", p, err);
		return 0;
	case K_CHOICE:
		snprintf(buf, sizeof(buf), "%s", value);
		for (char *q = buf; *q; q++)
			*q = (char)tolower((unsigned char)*q);
		if (!is_choice(o->choices, buf))
			return refuse(o, value, o->choices, p, err);
		value = buf;
		break;
	case K_SECRET:
		if (!value || !*value || !is_word(value) || strlen(value) > CONFIG_TOKEN_MAX)
			return refuse(o, value,
				"a join token as \"docker swarm join-token -q worker\" prints it",
				p, err);
		break;
	case K_STR:
	case K_CONFIG:
		break;
	}

	char **s = member(c, o);

	if (o->kind == K_SECRET)
		sw_wipe_str(*s);
	else
		free(*s);
	*s = canonical ? take(canonical) : xstrdup(value);
	return 0;
}

/* The entries of a list between commas, which may hold blanks; nothing is an empty list. */
static int set_commas(struct config *c, const struct option_row *o, const char *value,
	const struct place *p, struct sw_err *err)
{
	sw_auto_free char *copy = xstrdup(value);
	char *rest = copy, *w;

	if (!value[strspn(value, " \t")])
		return 0;
	while ((w = strsep(&rest, ","))) {
		char *end = w + strlen(w);
		int r;

		w += strspn(w, " \t");
		while (end > w && strchr(" \t", end[-1]))
			*--end = '\0';
		if (!*w)
			return refuse(o, value, "entries separated by single commas", p, err);
		if ((r = set_one(c, o, w, p, err)) < 0)
			return r;
	}
	return 0;
}

/* A list may stand as one value with blanks or commas between its entries. */
static int set_value(struct config *c, const struct option_row *o, const char *value,
	const struct place *p, struct sw_err *err)
{
	unsigned char *source = &c->source[o - rows];

	if ((o->kind == K_LIST || o->kind == K_COMMAS) && *source != p->source)
		list_clear(member(c, o));
	*source = (unsigned char)p->source;
	if (o->kind == K_COMMAS)
		return set_commas(c, o, value, p, err);
	if (o->kind != K_LIST)
		return set_one(c, o, value, p, err);

	sw_auto_free char *copy = xstrdup(value);
	char *save = NULL;
	size_t n = 0;

	for (char *w = strtok_r(copy, ", \t", &save); w; w = strtok_r(NULL, ", \t", &save), n++) {
		int r = set_one(c, o, w, p, err);

		if (r < 0)
			return r;
	}
	return n ? 0 : set_one(c, o, value, p, err); /* lets the check complain about "" */
}

static int unknown(const char *what, const char *key, const struct place *p, struct sw_err *err)
{
	char where[PATH_MAX + 32];

	return sw_err_set(err, SW_REJECTED, -EINVAL,
		"%s: unknown %s \"%s\"; see swarm-agentd --help",
		place_name(p, where, sizeof(where)), what, key);
}

/* ---- sources */

static int load_defaults(struct config *c, struct sw_err *err)
{
	struct place p = {.source = CONFIG_DEFAULT};

	for (size_t i = 0; i < SW_ARRAY_LEN(rows); i++) {
		const struct option_row *o = &rows[i];
		const char *env = o->fallback ? getenv(o->fallback) : NULL;
		int r = 0;

		if (!sw_str_empty(env)) {
			struct sw_err why;

			r = set_value(c, o, env, &p, &why);
			if (r < 0)
				return sw_err_set(err, SW_REJECTED, r, "environment: %s: %s",
					o->fallback, why.msg);
		} else if (o->def) {
			r = set_value(c, o, o->def, &p, err);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* "key = value", blanks trimmed; '#' starts a comment at the beginning of a line only, so that
 * values may hold it; a pair of double quotes around the value is taken off. */
static int parse_line(struct config *c, char *line, const struct place *p, struct sw_err *err)
{
	char *key = line + strspn(line, " \t"), *eq, *value, *end;
	const struct option_row *o;
	char where[PATH_MAX + 32];
	size_t len;

	if (!*key || *key == '#' || *key == ';')
		return 0;
	eq = strchr(key, '=');
	if (!eq)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"%s: no \"=\" in \"%s\"; write KEY = VALUE",
			place_name(p, where, sizeof(where)), key);
	for (end = eq; end > key && strchr(" \t", end[-1]); end--)
		;
	*end = '\0';
	value = eq + 1;
	value += strspn(value, " \t");
	for (end = value + strlen(value); end > value && strchr(" \t\r", end[-1]); end--)
		;
	*end = '\0';
	len = strlen(value);
	if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
		value[len - 1] = '\0';
		value++;
	}
	o = find_row(key, strlen(key));
	if (!o || o->kind == K_FLAG || o->kind == K_CONFIG)
		return unknown("key", key, p, err);
	return set_value(c, o, value, p, err);
}

/* The whole of a small regular file. -ENOENT and the like come with @err set. */
static int read_small(const char *path, size_t max, char **ret, size_t *ret_len, struct stat *st,
	struct sw_err *err)
{
	sw_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char *buf;
	size_t n = 0;

	if (fd < 0 || fstat(fd, st) < 0)
		return sw_err_set(err, SW_REJECTED, -errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st->st_mode))
		return sw_err_set(
			err, SW_REJECTED, -EISDIR, "%s: is a directory, not a file", path);
	buf = xcalloc(1, max + 1);
	while (n <= max) {
		ssize_t r = read(fd, buf + n, max + 1 - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			r = -errno;
			sw_wipe(buf, max + 1);
			free(buf);
			return sw_err_set(
				err, SW_REJECTED, (int)r, "%s: %s", path, strerror((int)-r));
		}
		if (r == 0)
			break;
		n += (size_t)r;
	}
	if (n > max) {
		sw_wipe(buf, max + 1);
		free(buf);
		return sw_err_set(err, SW_REJECTED, -EFBIG, "%s: larger than %zu bytes", path, max);
	}
	*ret = buf;
	*ret_len = n;
	return 0;
}

static void warn_if_readable(const char *path, const struct stat *st, const char *what)
{
	if (S_ISREG(st->st_mode) && (st->st_mode & S_IROTH))
		log_warning("join token is readable by everybody; chmod 0600", KS(what, path));
}

static int load_file(struct config *c, const char *path, bool required, struct sw_err *err)
{
	struct place p = {.source = CONFIG_FILE, .file = path};
	char *text = NULL;
	size_t len = 0;
	struct stat st;
	int r = read_small(path, FILE_MAX_SIZE, &text, &len, &st, err);

	if (r == -ENOENT && !required) {
		sw_err_copy(err, NULL);
		return 0;
	}
	if (r < 0)
		return sw_err_wrap(err, "configuration file");
	if (memchr(text, '\0', len))
		r = sw_err_set(err, SW_REJECTED, -EINVAL,
			"configuration file: %s: holds a NUL byte", path);
	for (char *line = text, *next; r >= 0 && line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		p.line++;
		r = parse_line(c, line, &p, err);
	}
	if (r >= 0 && config_source_of(c, "join-token") == CONFIG_FILE)
		warn_if_readable(path, &st, "config");
	free(c->file);
	c->file = xstrdup(path);
	sw_wipe(text, len); /* may hold a token */
	free(text);
	return r;
}

extern char **environ;

static int load_env(struct config *c, struct sw_err *err)
{
	struct place p = {.source = CONFIG_ENV};
	char name[64];

	for (size_t i = 0; i < SW_ARRAY_LEN(rows); i++) {
		char *v;
		int r;

		if (rows[i].kind == K_FLAG || rows[i].kind == K_CONFIG)
			continue;
		env_name(&rows[i], name, sizeof(name));
		v = getenv(name);
		if (!v)
			continue;
		r = set_value(c, &rows[i], v, &p, err);
		if (rows[i].kind == K_SECRET) { /* /proc/PID/environ shows the original bytes */
			memset(v, '*', strlen(v));
			unsetenv(name);
		}
		if (r < 0)
			return r;
	}
	/* A misspelt variable must not be silently without effect. */
	for (char **e = environ; e && *e; e++) {
		sw_auto_free char *key = NULL;
		bool known = false;

		if (!sw_starts_with(*e, ENV_PREFIX))
			continue;
		key = xstrndup(*e, strcspn(*e, "="));
		for (size_t i = 0; i < SW_ARRAY_LEN(rows) && !known; i++) {
			env_name(&rows[i], name, sizeof(name));
			known = rows[i].kind != K_FLAG && sw_streq(key, name);
		}
		if (!known)
			return unknown("variable", key, &p, err);
	}
	return 0;
}

/* Command line: --name VALUE or --name=VALUE. Calls @use for each in order. */
static int each_arg(int argc, char **argv, struct config *c,
	int (*use)(struct config *c, const struct option_row *o, char *value, struct sw_err *err),
	struct sw_err *err)
{
	struct place p = {.source = CONFIG_ARG};

	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *eq;
		const struct option_row *o;
		char *value = NULL;
		int r;

		if (sw_streq(a, "-h"))
			a = "--help";
		if (sw_streq(a, "-V"))
			a = "--version";
		if (!sw_starts_with(a, "--") || !a[2])
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"command line: unexpected \"%s\"; options begin with --, see "
				"swarm-agentd --help",
				a);
		eq = strchr(a, '=');
		o = find_row(a + 2, eq ? (size_t)(eq - a - 2) : strlen(a + 2));
		if (!o) {
			sw_auto_free char *name = xstrndup(a, eq ? (size_t)(eq - a) : strlen(a));

			return unknown("option", name, &p, err);
		}
		if (eq) {
			value = argv[i] + (eq + 1 - a);
		} else if (o->arg) {
			if (++i >= argc)
				return sw_err_set(err, SW_REJECTED, -EINVAL,
					"command line: --%s needs %s", o->name, o->arg);
			value = argv[i];
		}
		if (eq && o->kind == K_FLAG)
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"command line: --%s takes no value", o->name);
		r = use(c, o, value, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* First pass: what decides how to go on. */
static int use_first(struct config *c, const struct option_row *o, char *value, struct sw_err *err)
{
	struct place p = {.source = CONFIG_ARG};

	if (o->kind == K_FLAG)
		return set_value(c, o, "yes", &p, err);
	if (o->kind == K_CONFIG)
		return set_value(c, o, value, &p, err);
	return 0;
}

static int use_rest(struct config *c, const struct option_row *o, char *value, struct sw_err *err)
{
	struct place p = {.source = CONFIG_ARG};
	int r;

	if (o->kind == K_FLAG || o->kind == K_CONFIG)
		return 0;
	r = set_value(c, o, value ? value : "yes", &p, err);
	if (value && o->kind == K_SECRET) /* /proc/PID/cmdline shows the original bytes */
		memset(value, '*', strlen(value));
	return r;
}

int config_load(
	struct config *c, int argc, char **argv, const char *default_file, struct sw_err *err)
{
	struct place env_place = {.source = CONFIG_ENV};
	sw_auto_free char *file = NULL;
	const char *env_file;
	int r;

	*c = (struct config){0};
	r = each_arg(argc, argv, c, use_first, err);
	if (r < 0 || c->help || c->version)
		return r;
	env_file = getenv(ENV_PREFIX "CONFIG");
	if (!c->file && env_file) {
		r = set_value(c, find_row("config", strlen("config")), env_file, &env_place, err);
		if (r < 0)
			return r;
	}
	file = take(c->file);
	r = load_defaults(c, err);
	if (r >= 0)
		r = load_file(c,
			file           ? file
			: default_file ? default_file
				       : CONFIG_DEFAULT_FILE,
			file != NULL, err);
	if (r >= 0)
		r = load_env(c, err);
	if (r >= 0)
		r = each_arg(argc, argv, c, use_rest, err);
	if (r < 0)
		return r;

	/* The stronger source of the two wins; from one source it is a contradiction. */
	enum config_source inline_src = config_source_of(c, "join-token"),
			   file_src = config_source_of(c, "join-token-file");

	if (inline_src && inline_src == file_src)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"join-token and join-token-file are both given; use one");
	if (inline_src > file_src) {
		free(take(c->join_token_file));
	} else if (file_src > inline_src) {
		sw_wipe_str(take(c->join_token));
	}
	return 0;
}

void config_done(struct config *c)
{
	for (size_t i = 0; i < SW_ARRAY_LEN(rows); i++) {
		switch (rows[i].kind) {
		case K_LIST:
		case K_COMMAS:
			list_clear(member(c, &rows[i]));
			break;
		case K_SECRET:
			sw_wipe_str(*(char **)member(c, &rows[i]));
			break;
		case K_STR:
		case K_CHOICE:
		case K_CONFIG:
			free(*(char **)member(c, &rows[i]));
			break;
		case K_BOOL:
		case K_FLAG:
		case K_SECONDS:
		case K_BYTES:
			break;
		}
	}
	*c = (struct config){0};
}

int config_read_token(struct config *c, struct sw_err *err)
{
	char *text = NULL;
	size_t len = 0;
	struct stat st;
	int r;

	if (!c->join_token_file)
		return 0;
	r = read_small(c->join_token_file, CONFIG_TOKEN_MAX + 2, &text, &len, &st, err);
	if (r < 0 || !text)
		return sw_err_wrap(err, "join token file");
	size_t got = len;

	if (len && text[len - 1] == '\n')
		len--;
	if (len && text[len - 1] == '\r')
		len--;
	text[len] = '\0';
	if (!len || strlen(text) != len || !is_word(text) || len > CONFIG_TOKEN_MAX) {
		r = sw_err_set(err, SW_REJECTED, -EINVAL,
			"join token file: %s: not one line with a join token; write the output of "
			"\"docker swarm "
			"join-token -q worker\" into it",
			c->join_token_file);
	} else {
		warn_if_readable(c->join_token_file, &st, "file");
		sw_wipe_str(c->join_token);
		c->join_token = xstrdup(text);
	}
	sw_wipe(text, got);
	free(text);
	return r;
}

/* ---- help */

void config_usage(FILE *f)
{
	fprintf(f, "Usage: swarm-agentd [OPTION]...\n"
		   "Joins a Docker Swarm as a worker and runs its tasks on a plain Docker "
		   "Engine.\n\n");
	for (size_t i = 0; i < SW_ARRAY_LEN(rows); i++) {
		const struct option_row *o = &rows[i];
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "",
			o->arg ? o->arg : "");
		fprintf(f, "  %-28s %s", left, o->help);
		if (o->choices)
			fprintf(f, " (%s)", o->choices);
		if (o->def)
			fprintf(f, " [%s%s%s]", o->fallback ? o->fallback : "",
				o->fallback ? ", else " : "", o->def);
		else if (o->fallback)
			fprintf(f, " [%s]", o->fallback);
		fputc('\n', f);
	}
	fprintf(f, "\n"
		   "Every option is also an environment variable (SWARM_AGENTD_STATE_DIR) and a "
		   "key of the\n"
		   "configuration file (state-dir = DIR). Command line wins over environment over "
		   "file over\n"
		   "[default].\n\n"
		   "Signals: SIGTERM, SIGINT end gracefully, a second one at once; SIGHUP reads "
		   "log-level again.\n"
		   "Exit codes: 0 ended as asked; 1 trouble; 2 usage or configuration; 3 the swarm "
		   "refuses this\n"
		   "node (token, digest, role, credentials); 4 state directory or store unusable; "
		   "5 removed from\n"
		   "the swarm.\n");
}
