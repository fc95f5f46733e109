/* mounts.c - mounts of a task. Two engine generations differ: what an old
 * one would ignore without a word is translated to its older form or refused. */
#include "spec.h"
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <unistd.h>

#define TMPFS_OPTIONS_MAX 64

static const char *const propagation[] = {
	[PB__MOUNT__BIND_OPTIONS__PROPAGATION__RPRIVATE] = "rprivate",
	[PB__MOUNT__BIND_OPTIONS__PROPAGATION__PRIVATE] = "private",
	[PB__MOUNT__BIND_OPTIONS__PROPAGATION__RSHARED] = "rshared",
	[PB__MOUNT__BIND_OPTIONS__PROPAGATION__SHARED] = "shared",
	[PB__MOUNT__BIND_OPTIONS__PROPAGATION__RSLAVE] = "rslave",
	[PB__MOUNT__BIND_OPTIONS__PROPAGATION__SLAVE] = "slave",
};

static bool api_below(const struct spec_env *env, int minor)
{
	return env->api && env->api < minor;
}

static int needs_api(struct sw_err *err, const Pb__Mount *m, const char *field, const char *api,
	const struct spec_env *env)
{
	return sw_err_set(err, SW_REJECTED, -ENOTSUP,
		"mount \"%s\": %s needs engine API %s, this engine has 1.%d", m->target, field, api,
		env->api);
}

/* The options are JSON text: [["exec"],["uid","5"]]. A new object, NULL if it is something else. */
static struct json_object *tmpfs_options(const char *text)
{
	struct json_tokener *tok = json_tokener_new_ex(4);
	struct json_object *o = json_tokener_parse_ex(tok, text, -1);
	bool ok = json_tokener_get_error(tok) == json_tokener_success &&
		  json_object_is_type(o, json_type_array) &&
		  json_object_array_length(o) <= TMPFS_OPTIONS_MAX;

	for (size_t i = 0; ok && i < json_object_array_length(o); i++) {
		struct json_object *e = json_object_array_get_idx(o, i);
		size_t n =
			json_object_is_type(e, json_type_array) ? json_object_array_length(e) : 0;

		ok = n == 1 || n == 2;
		for (size_t k = 0; ok && k < n; k++) {
			struct json_object *w = json_object_array_get_idx(e, k);

			ok = json_object_is_type(w, json_type_string) &&
			     !strchr(json_object_get_string(w), ',');
		}
	}
	json_tokener_free(tok);
	if (!ok) {
		json_object_put(o);
		return NULL;
	}
	return o;
}

/* ---- checks */

static int check_bind(const Pb__Mount *m, const struct spec_env *env, struct sw_err *err)
{
	const Pb__Mount__BindOptions *b = m->bind_options;

	if (*m->source != '/')
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"invalid bind mount source, must be an absolute path: %s", m->source);
	/* podman would make the folder at start (seen on 4.3); Docker refuses, in these words */
	if (env->podman && !env->remote && !(b && b->createmountpoint) &&
		!strstr(m->source, "{{") && /* not expanded yet: checked again when it is */
		access(m->source, F_OK) < 0 && errno == ENOENT)
		return sw_err_set(err, SW_REJECTED, -ENOENT,
			"invalid mount config for type \"bind\": bind source path does not exist: "
			"%s",
			m->source);
	if (!b)
		return 0;
	if ((size_t)b->propagation >= SW_ARRAY_LEN(propagation))
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"mount \"%s\": unknown bind propagation %d", m->target,
			(int)b->propagation);
	if (b->readonlyforcerecursive && api_below(env, 44))
		return needs_api(err, m, "readonlyforcerecursive", "1.44", env);
	/* below 1.42 the directory is made through HostConfig.Binds, "SRC:DST:OPTIONS" */
	if (b->createmountpoint && api_below(env, 42)) {
		if (b->nonrecursive)
			return needs_api(err, m, "createmountpoint with nonrecursive", "1.42", env);
		if (strchr(m->source, ':') || strchr(m->target, ':'))
			return needs_api(
				err, m, "createmountpoint of a path with a colon", "1.42", env);
	}
	return 0;
}

static int check_tmpfs(const Pb__Mount *m, struct sw_err *err)
{
	struct json_object *o;

	if (*m->source)
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "invalid tmpfs source, source must be empty");
	if (m->tmpfs_options && *m->tmpfs_options->options) {
		if (!(o = tmpfs_options(m->tmpfs_options->options)))
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"mount \"%s\": tmpfs options are no list of [\"name\"] or "
				"[\"name\",\"value\"]: %.200s",
				m->target, m->tmpfs_options->options);
		json_object_put(o);
	}
	return 0;
}

static int check_mount(const Pb__Mount *m, const struct spec_env *env, struct sw_err *err)
{
	if (*m->target != '/' && m->type != PB__MOUNT__TYPE__NPIPE)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"invalid mount target, must be an absolute path: %s", m->target);
	switch (m->type) {
	case PB__MOUNT__TYPE__BIND:
		return check_bind(m, env, err);
	case PB__MOUNT__TYPE__VOLUME:
		if (*m->source == '/')
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"invalid volume mount source, must not be an absolute path: %s",
				m->source);
		if (m->volume_options && *m->volume_options->subpath && api_below(env, 45))
			return needs_api(err, m, "volume subpath", "1.45", env);
		return 0;
	case PB__MOUNT__TYPE__TMPFS:
		return check_tmpfs(m, err);
	case PB__MOUNT__TYPE__NPIPE:
		if (!*m->source)
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"invalid npipe source, source must not be empty");
		return sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"mount \"%s\": named pipes are for Windows nodes", m->target);
	case PB__MOUNT__TYPE__CLUSTER:
		return sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"cluster volume \"%s\": this node runs no CSI plugin", m->source);
	default:
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "invalid mount type: %d", (int)m->type);
	}
}

int spec_mounts_check(const Pb__ContainerSpec *c, const struct spec_env *env, struct sw_err *err)
{
	int r = 0;

	for (size_t i = 0; i < c->n_mounts && !r; i++)
		r = check_mount(c->mounts[i], env, err);
	return r;
}

/* ---- into HostConfig */

static void put_true(struct json_object *o, const char *key, bool on)
{
	if (on)
		json_object_object_add(o, key, json_object_new_boolean(1));
}

static struct json_object *bind_options(const Pb__Mount__BindOptions *b, const struct spec_env *env)
{
	struct json_object *o = json_object_new_object();

	spec_put_str(o, "Propagation", propagation[b->propagation]);
	put_true(o, "NonRecursive", b->nonrecursive);
	put_true(o, "CreateMountpoint", b->createmountpoint);
	/* before 1.44 read-only binds never are recursive */
	put_true(o, "ReadOnlyNonRecursive", b->readonlynonrecursive && env->api >= 44);
	put_true(o, "ReadOnlyForceRecursive", b->readonlyforcerecursive);
	return o;
}

static struct json_object *volume_options(const Pb__Mount__VolumeOptions *v)
{
	struct json_object *o = json_object_new_object(), *d;

	put_true(o, "NoCopy", v->nocopy);
	if (v->n_labels)
		json_object_object_add(o, "Labels", spec_map(v->labels, v->n_labels));
	spec_put_str(o, "Subpath", v->subpath);
	if (v->driver_config) {
		d = json_object_new_object();
		spec_put_str(d, "Name", v->driver_config->name);
		if (v->driver_config->n_options)
			json_object_object_add(d, "Options",
				spec_map(v->driver_config->options, v->driver_config->n_options));
		json_object_object_add(o, "DriverConfig", d);
	}
	return o;
}

/* "ro,exec,uid=5,size=1048576,mode=1770" as HostConfig.Tmpfs wants it: API below 1.46 drops
 * TmpfsOptions.Options without a word. */
static char *tmpfs_line(const Pb__Mount *m, struct json_object *options)
{
	char *s = xstrdup(m->readonly ? ",ro" : ""), *more;

	for (size_t i = 0; i < json_object_array_length(options); i++) {
		struct json_object *e = json_object_array_get_idx(options, i);
		const char *k = json_object_get_string(json_object_array_get_idx(e, 0));
		bool pair = json_object_array_length(e) == 2;

		more = xasprintf("%s,%s%s%s", s, k, pair ? "=" : "",
			pair ? json_object_get_string(json_object_array_get_idx(e, 1)) : "");
		free(s);
		s = more;
	}
	if (m->tmpfs_options->size_bytes > 0) {
		more = xasprintf("%s,size=%" PRId64, s, m->tmpfs_options->size_bytes);
		free(s);
		s = more;
	}
	if (m->tmpfs_options->mode) {
		more = xasprintf("%s,mode=%o", s, m->tmpfs_options->mode);
		free(s);
		s = more;
	}
	more = xstrdup(*s ? s + 1 : s);
	free(s);
	return more;
}

static struct json_object *tmpfs_options_object(const Pb__Mount__TmpfsOptions *t)
{
	struct json_object *o = json_object_new_object();

	if (t->size_bytes)
		json_object_object_add(o, "SizeBytes", json_object_new_int64(t->size_bytes));
	if (t->mode)
		json_object_object_add(o, "Mode", json_object_new_int64(t->mode));
	if (*t->options)
		json_object_object_add(o, "Options", tmpfs_options(t->options));
	return o;
}

/* True: @m is in @host in the form that old engines understand. */
static bool add_old_form(const Pb__Mount *m, const struct spec_env *env, struct json_object *host)
{
	if (m->type == PB__MOUNT__TYPE__BIND && m->bind_options &&
		m->bind_options->createmountpoint && env->api < 42) {
		sw_auto_free char *s = xasprintf("%s:%s:%s%s", m->source, m->target,
			m->readonly ? "ro," : "", propagation[m->bind_options->propagation]);

		json_object_array_add(spec_list(host, "Binds"), json_object_new_string(s));
		return true;
	}
	if (m->type == PB__MOUNT__TYPE__TMPFS && m->tmpfs_options && *m->tmpfs_options->options &&
		env->api < 46) {
		struct json_object *options = tmpfs_options(m->tmpfs_options->options), *map = NULL;
		sw_auto_free char *s = tmpfs_line(m, options);

		if (!json_object_object_get_ex(host, "Tmpfs", &map)) {
			map = json_object_new_object();
			json_object_object_add(host, "Tmpfs", map);
		}
		json_object_object_add(map, m->target, json_object_new_string(s));
		json_object_put(options);
		return true;
	}
	return false;
}

static const char *type_name(Pb__Mount__Type type)
{
	switch (type) {
	case PB__MOUNT__TYPE__BIND:
		return "bind";
	case PB__MOUNT__TYPE__VOLUME:
		return "volume";
	default: /* the checks let nothing else through */
		return "tmpfs";
	}
}

static struct json_object *mount_object(const Pb__Mount *m, const struct spec_env *env)
{
	struct json_object *o = json_object_new_object();

	spec_put_str(o, "Type", type_name(m->type));
	spec_put_str(o, "Source", m->source);
	spec_put_str(o, "Target", m->target);
	put_true(o, "ReadOnly", m->readonly);
	/* from 1.42 on the engine refuses options of another type */
	if (m->type == PB__MOUNT__TYPE__BIND && m->bind_options)
		json_object_object_add(o, "BindOptions", bind_options(m->bind_options, env));
	if (m->type == PB__MOUNT__TYPE__VOLUME && m->volume_options)
		json_object_object_add(o, "VolumeOptions", volume_options(m->volume_options));
	if (m->type == PB__MOUNT__TYPE__TMPFS && m->tmpfs_options)
		json_object_object_add(o, "TmpfsOptions", tmpfs_options_object(m->tmpfs_options));
	return o;
}

int spec_mounts_add(const Pb__ContainerSpec *c, const struct spec_env *env,
	struct json_object *host, struct sw_err *err)
{
	int r = spec_mounts_check(c, env, err);

	for (size_t i = 0; i < c->n_mounts && !r; i++)
		if (!add_old_form(c->mounts[i], env, host))
			json_object_array_add(
				spec_list(host, "Mounts"), mount_object(c->mounts[i], env));
	return r;
}

/* A driver of its own means: made before the container, or the engine would take the default. */
struct json_object *spec_volume_body(const Pb__Task *t, size_t i)
{
	const Pb__Mount *m = spec_container(t)->mounts[i];
	const Pb__Mount__VolumeOptions *v = m->volume_options;
	struct json_object *o;

	if (m->type != PB__MOUNT__TYPE__VOLUME || !v || !v->driver_config || !*m->source)
		return NULL;
	o = json_object_new_object();
	spec_put_str(o, "Name", m->source);
	spec_put_str(o, "Driver", v->driver_config->name);
	if (v->driver_config->n_options)
		json_object_object_add(o, "DriverOpts",
			spec_map(v->driver_config->options, v->driver_config->n_options));
	if (v->n_labels)
		json_object_object_add(o, "Labels", spec_map(v->labels, v->n_labels));
	return o;
}
