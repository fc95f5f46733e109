/* One function per label, which checks its value, asks the policy and, with a host to put it into,
 * does so. Lists are separated by commas. */
#include "extras.h"
#include "policy.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

#define WORDS_MAX 64
#define SHOWN     "%.200s" /* of a value in a message */

struct ask {
	const struct extra *x;
	const char *value;
	const Pb__Task *t;
	const struct spec_env *env;
	struct json_object *host; /* NULL: check only */
	struct sw_err *err;
};
struct extra {
	const char *label; /* behind the prefix */
	const char *key;   /* of the configuration */
	const char *want;  /* the values' form */
	int (*apply)(const struct ask *a);
};

/* ---- answers */

static int malformed(const struct ask *a)
{
	return sw_err_set(a->err, SW_REJECTED, -EINVAL,
		"label \"" EXTRAS_PREFIX "%s=" SHOWN "\" is not understood; use %s", a->x->label,
		a->value, a->x->want);
}

/* @what of the value, as @allow would allow it. */
static int forbidden(const struct ask *a, const char *what, const char *allow)
{
	return sw_err_set(a->err, SW_REJECTED, -EPERM,
		"label \"" EXTRAS_PREFIX "%s=" SHOWN "\": " SHOWN
		" is not allowed on this node; its operator can allow it with \"%s = " SHOWN
		"\" in the agent's configuration",
		a->x->label, a->value, what, a->x->key, allow);
}

/* ---- values */

/* The next part between commas without the blanks around it; NULL at the end. *@s starts as the
 * value. malloc'd. */
static char *next_word(const char **s)
{
	const char *p = *s, *end;
	size_t len;

	if (!p)
		return NULL;
	len = strcspn(p, ",");
	*s = p[len] ? p + len + 1 : NULL;
	end = p + len;
	while (p < end && isblank((unsigned char)*p))
		p++;
	while (end > p && isblank((unsigned char)end[-1]))
		end--;
	return xstrndup(p, (size_t)(end - p));
}

/* The words of @value one by one. */
static int each(const struct ask *a, const char *value,
	int (*use)(const struct ask *a, char *word, void *arg), void *arg)
{
	const char *rest = value;
	size_t n = 0;

	for (;;) {
		sw_auto_free char *word = next_word(&rest);
		int r;

		if (!word)
			return 0;
		if (!*word || ++n > WORDS_MAX)
			return malformed(a);
		if ((r = use(a, word, arg)))
			return r;
	}
}

/* Bytes; k, m or g may follow. */
static bool parse_size(const char *s, int64_t *ret)
{
	int64_t n = 0, unit = 1;

	if (!isdigit((unsigned char)*s))
		return false;
	for (; isdigit((unsigned char)*s); s++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *s - '0', &n))
			return false;
	if (*s) {
		static const char units[] = "kmg";
		const char *u = strchr(units, tolower((unsigned char)*s));

		if (!u)
			return false;
		unit <<= 10 * (u - units + 1);
		s++;
	}
	if (*s || n == 0 || __builtin_mul_overflow(n, unit, &n))
		return false;
	*ret = n;
	return true;
}

static void add_string(struct json_object *a, const char *s)
{
	json_object_array_add(a, json_object_new_string(s));
}

/* ---- devices: PATH[:PATH_IN_CONTAINER][:PERMS] */

static int one_device(const struct ask *a, char *word, void *arg)
{
	char *save = NULL, *path = strtok_r(word, ":", &save), *inside = strtok_r(NULL, ":", &save),
	     *perms = strtok_r(NULL, ":", &save);
	struct json_object *o;

	(void)arg;
	if (inside && !perms && *inside != '/') {
		perms = inside;
		inside = NULL;
	}
	if (!path || !policy_is_path(path) || (inside && !policy_is_path(inside)) ||
		(perms && !policy_is_perms(perms)) || strtok_r(NULL, ":", &save))
		return malformed(a);
	if (!perms)
		perms = (char *)"rwm";
	if (!policy_device(a->env->policy, path, perms)) {
		sw_auto_free char *allow = xasprintf("%s%s%s", path,
			sw_streq(perms, "rwm") ? "" : ":", sw_streq(perms, "rwm") ? "" : perms);
		sw_auto_free char *what = xasprintf("device %s with %s", path, perms);

		return forbidden(a, what, allow);
	}
	if (!a->host)
		return 0;
	o = json_object_new_object();
	spec_put_str(o, "PathOnHost", path);
	spec_put_str(o, "PathInContainer", inside ? inside : path);
	spec_put_str(o, "CgroupPermissions", perms);
	json_object_array_add(spec_list(a->host, "Devices"), o);
	return 0;
}

static int devices(const struct ask *a)
{
	return each(a, a->value, one_device, NULL);
}

/* ---- device-cgroup-rules */

static int one_rule(const struct ask *a, char *word, void *arg)
{
	(void)arg;
	if (!policy_is_cgroup_rule(word))
		return malformed(a);
	if (!policy_cgroup_rule(a->env->policy, word))
		return forbidden(a, word, word);
	if (a->host)
		add_string(spec_list(a->host, "DeviceCgroupRules"), word);
	return 0;
}

static int cgroup_rules(const struct ask *a)
{
	return each(a, a->value, one_rule, NULL);
}

/* ---- privileged, shm-size, ipc, pid */

static int privileged(const struct ask *a)
{
	if (sw_streq(a->value, "false"))
		return 0;
	if (!sw_streq(a->value, "true"))
		return malformed(a);
	if (!policy_privileged(a->env->policy))
		return forbidden(a, "a privileged container", "yes");
	if (a->host)
		json_object_object_add(a->host, "Privileged", json_object_new_boolean(1));
	return 0;
}

static int shm_size(const struct ask *a)
{
	uint64_t max = policy_shm_size(a->env->policy);
	int64_t n;

	if (!parse_size(a->value, &n))
		return malformed(a);
	if ((uint64_t)n > max) {
		sw_auto_free char *what = max ? xasprintf("more than %" PRIu64 " bytes", max)
					      : xstrdup("a size of /dev/shm");

		return forbidden(a, what, a->value);
	}
	if (a->host)
		json_object_object_add(a->host, "ShmSize", json_object_new_int64(n));
	return 0;
}

static int ipc(const struct ask *a)
{
	if (!policy_is_ipc(a->value))
		return malformed(a);
	if (!policy_ipc(a->env->policy, a->value))
		return forbidden(a, "this IPC mode", a->value);
	if (a->host)
		spec_put_str(a->host, "IpcMode", a->value);
	return 0;
}

static int pid(const struct ask *a)
{
	if (!sw_streq(a->value, "host"))
		return malformed(a);
	if (!policy_pid(a->env->policy, a->value))
		return forbidden(a, "the node's process namespace", a->value);
	if (a->host)
		spec_put_str(a->host, "PidMode", a->value);
	return 0;
}

/* ---- security-opt */

static int one_security_opt(const struct ask *a, char *word, void *arg)
{
	(void)arg;
	if (!policy_security_opt(a->env->policy, word))
		return forbidden(a, word, word);
	if (!a->host)
		return 0;
	if (sw_streq(word, "systempaths=unconfined")) {
		/* a word of the command line client only, which sends two empty lists */
		json_object_object_add(a->host, "MaskedPaths", json_object_new_array());
		json_object_object_add(a->host, "ReadonlyPaths", json_object_new_array());
	} else {
		add_string(spec_list(a->host, "SecurityOpt"), word);
	}
	return 0;
}

static int security_opt(const struct ask *a)
{
	return each(a, a->value, one_security_opt, NULL);
}

/* ---- gpus */

static bool is_gpu_id(const char *s)
{
	if (!*s || strlen(s) > 128)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-_.:/", *s))
			return false;
	return true;
}

struct gpu_ids {
	struct json_object *ids;
	bool assigned;
};

static int one_gpu(const struct ask *a, char *word, void *arg)
{
	struct gpu_ids *g = arg;

	if (!is_gpu_id(word))
		return malformed(a);
	if (!policy_gpu(a->env->policy, word, g->assigned)) {
		sw_auto_free char *what = xasprintf("GPU %s", word);

		return forbidden(a, what, g->assigned ? "assigned" : word);
	}
	add_string(g->ids, word);
	return 0;
}

/* What the scheduler reserved for this task alone: the one way in which two tasks never share one.
 */
static int assigned_gpus(const struct ask *a, const char *kind, struct gpu_ids *g)
{
	const Pb__Task *t = a->t;
	int r = 0;

	for (size_t i = 0; i < t->n_assigned_generic_resources && !r; i++) {
		const Pb__GenericResource *res = t->assigned_generic_resources[i];

		if (res->resource_case != PB__GENERIC_RESOURCE__RESOURCE_NAMED_RESOURCE_SPEC ||
			!sw_streq(res->named_resource_spec->kind, kind))
			continue;
		sw_auto_free char *id = xstrdup(res->named_resource_spec->value);

		r = one_gpu(a, id, g);
	}
	if (!r && !json_object_array_length(g->ids))
		return sw_err_set(a->err, SW_REJECTED, -ENOENT,
			"label \"" EXTRAS_PREFIX "%s=" SHOWN
			"\": the scheduler assigned no named resource \"" SHOWN
			"\" to this task; reserve some with --generic-resource %s=1",
			a->x->label, a->value, kind, kind);
	return r;
}

/* As "docker run --gpus" sends it. */
static void add_gpus(struct json_object *host, int64_t count, struct json_object *ids)
{
	struct json_object *o = json_object_new_object(), *caps = json_object_new_array(),
			   *all = json_object_new_array();

	spec_put_str(o, "Driver", "");
	if (ids)
		json_object_object_add(o, "DeviceIDs", json_object_get(ids));
	else
		json_object_object_add(o, "Count", json_object_new_int64(count));
	add_string(caps, "gpu");
	json_object_array_add(all, caps);
	json_object_object_add(o, "Capabilities", all);
	json_object_array_add(spec_list(host, "DeviceRequests"), o);
}

static int gpus_by_id(const struct ask *a)
{
	struct gpu_ids g = {.ids = json_object_new_array()};
	int r;

	if (sw_starts_with(a->value, "device=")) {
		r = each(a, a->value + strlen("device="), one_gpu, &g);
	} else if (sw_streq(a->value, "assigned") || sw_starts_with(a->value, "assigned=")) {
		const char *kind = a->value + strlen("assigned");

		g.assigned = true;
		kind = *kind ? kind + 1 : "gpu";
		r = *kind ? assigned_gpus(a, kind, &g) : malformed(a);
	} else {
		r = malformed(a);
	}
	if (!r && a->host)
		add_gpus(a->host, 0, g.ids);
	json_object_put(g.ids);
	return r;
}

static int gpus(const struct ask *a)
{
	size_t digits = strspn(a->value, "0123456789");
	int64_t count = -1;

	if (a->env->podman) /* drops the field without a word */
		return sw_err_set(a->err, SW_REJECTED, -ENOTSUP,
			"label \"" EXTRAS_PREFIX "%s=" SHOWN
			"\": podman's Docker API knows no device requests",
			a->x->label, a->value);
	if (digits && !a->value[digits] && digits <= 4)
		count = strtol(a->value, NULL, 10);
	else if (!sw_streq(a->value, "all"))
		return gpus_by_id(a);
	if (!count)
		return malformed(a);
	if (!policy_gpu_any(a->env->policy))
		return forbidden(a, "a GPU of the engine's choice", "all");
	if (a->host)
		add_gpus(a->host, count, NULL);
	return 0;
}

/* ---- the table */

static const struct extra extras[] = {
	{"devices", "allow-devices", "PATH[:PATH_IN_CONTAINER][:PERMS], separated by commas",
		devices},
	{"device-cgroup-rules", "allow-device-cgroup-rules",
		"\"TYPE MAJOR:MINOR PERMS\" as \"c 189:* rwm\", separated by commas", cgroup_rules},
	{"privileged", "allow-privileged", "true or false", privileged},
	{"shm-size", "allow-shm-size", "bytes, or a number followed by k, m or g", shm_size},
	{"security-opt", "allow-security-opt", "OPTION[=VALUE], separated by commas", security_opt},
	{"gpus", "allow-gpus", "all, a number, device=ID,ID... or assigned[=KIND]", gpus},
	{"ipc", "allow-ipc", "none, private, shareable or host", ipc},
	{"pid", "allow-pid", "host", pid},
};

static const struct extra *find(const char *label)
{
	for (size_t i = 0; i < SW_ARRAY_LEN(extras); i++)
		if (sw_streq(extras[i].label, label))
			return &extras[i];
	return NULL;
}

static int each_label(
	const Pb__Task *t, const struct spec_env *env, struct json_object *host, struct sw_err *err)
{
	const Pb__ContainerSpec *c = spec_container(t);
	int r = 0;

	for (size_t i = 0; i < c->n_labels && !r; i++) {
		const Pb__StringPair *l = c->labels[i];
		const struct extra *x;

		/* what the agent itself puts on its containers, the agent's value wins */
		if (!sw_starts_with(l->key, EXTRAS_PREFIX) || sw_streq(l->key, SPEC_LABEL_CLUSTER))
			continue;
		x = find(l->key + strlen(EXTRAS_PREFIX));
		if (!x)
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"label \"" SHOWN "\": labels that begin with " EXTRAS_PREFIX
				" are reserved and this agent knows none of that name",
				l->key);
		r = x->apply(&(struct ask){x, l->value, t, env, host, err});
	}
	return r;
}

int extras_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err)
{
	return each_label(t, env, NULL, err);
}

void extras_add(const Pb__Task *t, const struct spec_env *env, struct json_object *host)
{
	struct sw_err err;

	(void)each_label(t, env, host, &err); /* was checked */
}
