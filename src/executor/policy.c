#include "policy.h"
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/executor.h>
#include <swarm/mem.h>

struct words {
	char **v;
	size_t n;
};

struct policy {
	bool privileged;
	uint64_t max_shm_size;
	struct words devices, cgroup_rules, security_opts, gpus, ipc, pid;
};

/* ---- forms */

bool policy_is_path(const char *s)
{
	if (*s != '/')
		return false;
	while (*s) {
		size_t len = strcspn(++s, "/");

		if (!len || (len == 1 && *s == '.') || (len == 2 && strncmp(s, "..", 2) == 0))
			return false;
		s += len;
	}
	return true;
}

bool policy_is_perms(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > 3 || strspn(s, "rwm") != n)
		return false;
	for (const char *p = s; *p; p++)
		if (strchr(p + 1, *p))
			return false;
	return true;
}

/* A number or '*' at *@s, which moves behind it. */
static bool number_or_any(const char **s)
{
	const char *p = *s;

	if (*p == '*')
		p++;
	else
		while (isdigit((unsigned char)*p))
			p++;
	if (p == *s || p - *s > 10)
		return false;
	*s = p;
	return true;
}

bool policy_is_cgroup_rule(const char *s)
{
	if (!*s || !strchr("abc", *s) || s[1] != ' ')
		return false;
	s += 2;
	if (!number_or_any(&s) || *s++ != ':' || !number_or_any(&s) || *s++ != ' ')
		return false;
	return policy_is_perms(s);
}

bool policy_is_ipc(const char *s)
{
	return sw_streq(s, "none") || sw_streq(s, "private") || sw_streq(s, "shareable") ||
	       sw_streq(s, "host");
}

/* ---- questions */

static bool matches(const struct words *w, const char *text, int flags)
{
	for (size_t i = 0; i < w->n; i++)
		if (fnmatch(w->v[i], text, flags) == 0)
			return true;
	return false;
}

static bool has(const struct words *w, const char *text)
{
	for (size_t i = 0; i < w->n; i++)
		if (sw_streq(w->v[i], text))
			return true;
	return false;
}

bool policy_privileged(const struct policy *p)
{
	return p && p->privileged;
}

uint64_t policy_shm_size(const struct policy *p)
{
	return p ? p->max_shm_size : 0;
}

static bool perms_within(const char *perms, const char *allowed)
{
	return strspn(perms, allowed) == strlen(perms);
}

bool policy_device(const struct policy *p, const char *path, const char *perms)
{
	for (size_t i = 0; p && i < p->devices.n; i++) {
		const char *pattern = p->devices.v[i], *colon = strchr(pattern, ':');
		sw_auto_free char *glob =
			xstrndup(pattern, colon ? (size_t)(colon - pattern) : strlen(pattern));

		/* a '*' ends at a '/': "/dev/dri/" and not what lies deeper */
		if (fnmatch(glob, path, FNM_PATHNAME) == 0 &&
			perms_within(perms, colon ? colon + 1 : "rwm"))
			return true;
	}
	return false;
}

bool policy_security_opt(const struct policy *p, const char *opt)
{
	return p && matches(&p->security_opts, opt, 0);
}

/* The field at *@s up to @end, with *@s behind it: equal, or anything is allowed. */
static bool field_within(const char **rule, const char **allowed, char end)
{
	size_t r = (size_t)(strchr(*rule, end) - *rule);
	size_t a = (size_t)(strchr(*allowed, end) - *allowed);
	bool ok = (a == 1 && **allowed == '*') || (a == r && strncmp(*rule, *allowed, r) == 0);

	*rule += r + 1;
	*allowed += a + 1;
	return ok;
}

static bool rule_within(const char *rule, const char *allowed)
{
	if (*allowed != 'a' && *allowed != *rule)
		return false;
	rule += 2;
	allowed += 2;
	return field_within(&rule, &allowed, ':') && field_within(&rule, &allowed, ' ') &&
	       perms_within(rule, allowed);
}

bool policy_cgroup_rule(const struct policy *p, const char *rule)
{
	if (!p || !policy_is_cgroup_rule(rule))
		return false;
	for (size_t i = 0; i < p->cgroup_rules.n; i++)
		if (rule_within(rule, p->cgroup_rules.v[i]))
			return true;
	return false;
}

bool policy_gpu_any(const struct policy *p)
{
	return p && has(&p->gpus, "all");
}

bool policy_gpu(const struct policy *p, const char *id, bool assigned)
{
	if (!p)
		return false;
	return policy_gpu_any(p) || (assigned && has(&p->gpus, "assigned")) ||
	       matches(&p->gpus, id, 0);
}

bool policy_ipc(const struct policy *p, const char *mode)
{
	return p && has(&p->ipc, mode);
}

bool policy_pid(const struct policy *p, const char *mode)
{
	return p && has(&p->pid, mode);
}

/* ---- life */

static bool is_device(const char *s)
{
	const char *colon = strchr(s, ':');
	sw_auto_free char *path = xstrndup(s, colon ? (size_t)(colon - s) : strlen(s));

	return policy_is_path(path) && (!colon || policy_is_perms(colon + 1));
}

static bool is_text(const char *s)
{
	return *s != '\0' && !sw_streq(s, "no");
}

static bool is_pid(const char *s)
{
	return sw_streq(s, "host");
}

static int copy(struct words *w, const struct docker_words *from, const char *key,
	bool (*possible)(const char *), const char *want, struct sw_err *err)
{
	if (from->n == 1 && sw_streq(from->v[0], "no"))
		return 0;
	w->v = xcalloc(from->n + 1, sizeof(*w->v));
	for (size_t i = 0; i < from->n; i++) {
		if (!possible(from->v[i]))
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"%s: \"%s\" is not possible; use %s, or \"no\" alone", key,
				from->v[i], want);
		w->v[w->n++] = xstrdup(from->v[i]);
	}
	return 0;
}

int policy_new(struct policy **ret, const struct docker_policy *cfg, struct sw_err *err)
{
	struct policy *p = xcalloc(1, sizeof(*p));
	int r;

	p->privileged = cfg->privileged;
	p->max_shm_size = cfg->max_shm_size;
	if ((r = copy(&p->devices, &cfg->devices, "allow-devices", is_device,
		     "/dev/PATTERN or /dev/PATTERN:PERMS with PERMS of r, w, m", err)) ||
		(r = copy(&p->cgroup_rules, &cfg->cgroup_rules, "allow-device-cgroup-rules",
			 policy_is_cgroup_rule, "\"TYPE MAJOR:MINOR PERMS\", as \"c 189:* rwm\"",
			 err)) ||
		(r = copy(&p->security_opts, &cfg->security_opts, "allow-security-opt", is_text,
			 "patterns of options, as \"apparmor=*\"", err)) ||
		(r = copy(&p->gpus, &cfg->gpus, "allow-gpus", is_text,
			 "\"all\", \"assigned\" or patterns of device ids", err)) ||
		(r = copy(&p->ipc, &cfg->ipc, "allow-ipc", policy_is_ipc,
			 "none, private, shareable, host", err)) ||
		(r = copy(&p->pid, &cfg->pid, "allow-pid", is_pid, "host", err))) {
		policy_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

static void words_free(struct words *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->v[i]);
	free(w->v);
}

void policy_free(struct policy *p)
{
	if (!p)
		return;
	words_free(&p->devices);
	words_free(&p->cgroup_rules);
	words_free(&p->security_opts);
	words_free(&p->gpus);
	words_free(&p->ipc);
	words_free(&p->pid);
	free(p);
}
