/* files.c - which files a task's secrets and configs become, and their mounts. Every reference has
 * a file of its own: two references to one secret may differ in mode and owner. */
#include "files.h"
#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

#define ID_MAX 2147483647u /* of users and groups: what every file system and engine takes */

static const char *word(bool secret)
{
	return secret ? "secret" : "config";
}

/* Without "//", "/./" and a slash at the end. NULL: there is a "..", or nothing is left. */
static char *clean_path(const char *path)
{
	char *out = xcalloc(strlen(path) + 2, 1);
	size_t n = 0;

	for (const char *p = path; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 2 && p[0] == '.' && p[1] == '.') {
			free(out);
			return NULL;
		}
		if (len && !(len == 1 && *p == '.')) {
			out[n++] = '/';
			memcpy(out + n, p, len);
			n += len;
		}
		p += len;
		p += *p == '/';
	}
	if (n)
		return out;
	free(out);
	return NULL;
}

static int parse_id(const struct file_ref *f, const char *what, const char *text, uint32_t *ret,
	struct sw_err *err)
{
	size_t len = strlen(text);
	unsigned long v = strtoul(text, NULL, 10);

	if (len == 0 || len > 10 || strspn(text, "0123456789") != len || v > ID_MAX)
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"%s \"%s\": %s \"%s\" is no number from 0 to %u", word(f->secret), f->name,
			what, text, ID_MAX);
	*ret = (uint32_t)v;
	return 0;
}

static int fill(struct file_ref *f, bool secret, const char *id, const char *name,
	const Pb__FileTarget *file, struct sw_err *err)
{
	sw_auto_free char *full = NULL;
	size_t len = strlen(file->name);
	int r;

	f->secret = secret;
	f->id = id;
	f->name = name;
	f->asked = file->name;
	/* also refuses "SECRETID.TASKID": another task's one-time secret is none of ours */
	if (!api_id_valid(id))
		return sw_err_set(err, SW_REJECTED, -EACCES, "task not authorized to access %s %s",
			word(secret), id);
	full = *file->name == '/' ? xstrdup(file->name)
	       : secret           ? xasprintf("/run/secrets/%s", file->name)
				  : xasprintf("/%s", file->name);
	if (!len || file->name[len - 1] == '/' || strlen(full) >= PATH_MAX ||
		!(f->target = clean_path(full)) ||
		(secret && strcmp(f->target, "/run/secrets") == 0))
		return sw_err_set(err, SW_REJECTED, -EINVAL,
			"%s \"%s\": target \"%s\" is not possible; use a file name, or a path "
			"without \"..\"",
			word(secret), name, file->name);
	/* setuid, setgid and sticky are dropped, as the engine does */
	f->mode = file->mode & 0777;
	if ((r = parse_id(f, "uid", file->uid, &f->uid, err)) < 0 ||
		(r = parse_id(f, "gid", file->gid, &f->gid, err)) < 0)
		return r;
	return 0;
}

/* ---- no two things at one place */

struct place {
	const char *path;
	const struct file_ref *file; /* NULL: a mount */
};

/* By path, with '/' before every other character: what lies below a path follows it at once. */
static int by_path(const void *pa, const void *pb)
{
	const unsigned char *a = (const void *)((const struct place *)pa)->path;
	const unsigned char *b = (const void *)((const struct place *)pb)->path;

	for (; *a && *a == *b; a++, b++)
		;
	return (*a == '/' ? 1 : *a ? *a + 1 : 0) - (*b == '/' ? 1 : *b ? *b + 1 : 0);
}

static int check_pair(const struct place *a, const struct place *b, struct sw_err *err)
{
	size_t len = strlen(a->path);
	bool same = strcmp(a->path, b->path) == 0;
	const struct file_ref *f = a->file ? a->file : b->file;

	if (same && f)
		return sw_err_set(err, SW_REJECTED, -EEXIST,
			"%s \"%s\": target \"%s\" is taken by %s; each needs a target of its own",
			word(f->secret), f->name, f->target,
			!a->file || !b->file ? "a mount"
			: b->file->secret    ? "another secret"
					     : "another config");
	if (a->file && strncmp(a->path, b->path, len) == 0 && b->path[len] == '/')
		return sw_err_set(err, SW_REJECTED, -ENOTDIR,
			"%s \"%s\": target \"%s\" is a file, nothing can be put below it (\"%s\")",
			word(a->file->secret), a->file->name, a->path, b->path);
	return 0;
}

static int check_places(
	const Pb__ContainerSpec *c, const struct file_ref *f, size_t n, struct sw_err *err)
{
	struct place *all = xcalloc(n + c->n_mounts, sizeof(*all));
	char **cleaned = xcalloc(c->n_mounts + 1, sizeof(*cleaned));
	size_t k = 0;
	int r = 0;

	for (size_t i = 0; i < n; i++)
		all[k++] = (struct place){f[i].target, &f[i]};
	for (size_t i = 0; i < c->n_mounts; i++)
		/* what is odd there is for the mounts' own check and the engine */
		if ((cleaned[i] = clean_path(c->mounts[i]->target)))
			all[k++] = (struct place){cleaned[i], NULL};
	qsort(all, k, sizeof(*all), by_path);
	for (size_t i = 1; i < k && !r; i++)
		r = check_pair(&all[i - 1], &all[i], err);
	for (size_t i = 0; i < c->n_mounts; i++)
		free(cleaned[i]);
	free(cleaned);
	free(all);
	return r;
}

/* ---- the list */

static const Pb__FileTarget *secret_file(const Pb__SecretReference *s)
{
	return s->target_case == PB__SECRET_REFERENCE__TARGET_FILE ? s->file : NULL;
}

static const Pb__FileTarget *config_file(const Pb__ConfigReference *c)
{
	return c->target_case == PB__CONFIG_REFERENCE__TARGET_FILE ? c->file : NULL;
}

size_t files_count(const Pb__ContainerSpec *c)
{
	size_t n = 0;

	for (size_t i = 0; c && i < c->n_secrets; i++)
		n += secret_file(c->secrets[i]) != NULL;
	for (size_t i = 0; c && i < c->n_configs; i++)
		n += config_file(c->configs[i]) != NULL;
	return n;
}

bool files_wanted(const Pb__ContainerSpec *c)
{
	return files_count(c) > 0;
}

int files_list(const Pb__ContainerSpec *c, struct file_ref **ret, size_t *n, struct sw_err *err)
{
	struct file_ref *f;
	size_t k = 0;
	int r = 0;

	if (c->n_secrets + c->n_configs > FILES_MAX)
		return sw_err_set(err, SW_REJECTED, -E2BIG,
			"%zu secrets and configs, at most %d are possible",
			c->n_secrets + c->n_configs, FILES_MAX);
	f = xcalloc(c->n_secrets + c->n_configs + 1, sizeof(*f));
	for (size_t i = 0; i < c->n_secrets && !r; i++) {
		const Pb__SecretReference *s = c->secrets[i];

		if (secret_file(s))
			r = fill(&f[k++], true, s->secret_id, s->secret_name, s->file, err);
	}
	for (size_t i = 0; i < c->n_configs && !r; i++) {
		const Pb__ConfigReference *s = c->configs[i];

		if (config_file(s))
			r = fill(&f[k++], false, s->config_id, s->config_name, s->file, err);
	}
	if (!r)
		r = check_places(c, f, k, err);
	if (r) {
		files_free(f, k);
		return r;
	}
	*ret = f;
	*n = k;
	return 0;
}

void files_free(struct file_ref *f, size_t n)
{
	for (size_t i = 0; f && i < n; i++)
		free(f[i].target);
	free(f);
}

/* ---- check and mounts */

int spec_files_check(const Pb__ContainerSpec *c, const struct spec_env *env, struct sw_err *err)
{
	struct file_ref *f = NULL;
	size_t n = 0;
	int r;

	if (!files_wanted(c))
		return 0;
	r = files_list(c, &f, &n, err);
	if (r || !n)
		return r;
	if (env->remote)
		r = sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"%s \"%s\": secrets and configs need an engine on this host "
			"(--engine unix:///PATH), this one is remote",
			word(f->secret), f->name);
	else if (!env->run_dir)
		r = sw_err_set(err, SW_REJECTED, -ENOTSUP,
			"%s \"%s\": secrets and configs need a run directory, none is set "
			"(--run-dir)",
			word(f->secret), f->name);
	files_free(f, n);
	return r;
}

int spec_files_add(
	const Pb__Task *t, const struct spec_env *env, struct json_object *host, struct sw_err *err)
{
	const Pb__ContainerSpec *c = spec_container(t);
	struct json_object *mounts = NULL, *m, *o;
	struct file_ref *f = NULL;
	size_t n = 0;
	int r;

	if (!files_wanted(c))
		return 0;
	if ((r = spec_files_check(c, env, err)) < 0 || (r = files_list(c, &f, &n, err)) < 0)
		return r;
	if (!json_object_object_get_ex(host, "Mounts", &mounts)) {
		mounts = json_object_new_array();
		json_object_object_add(host, "Mounts", mounts);
	}
	for (size_t i = 0; i < n; i++) {
		sw_auto_free char *source = xasprintf("%s/tasks/%s/%zu", env->run_dir, t->id, i);

		m = json_object_new_object();
		o = json_object_new_object();
		spec_put_str(m, "Type", "bind");
		spec_put_str(m, "Source", source);
		spec_put_str(m, "Target", f[i].target);
		json_object_object_add(m, "ReadOnly", json_object_new_boolean(1));
		spec_put_str(o, "Propagation", "rprivate");
		json_object_object_add(m, "BindOptions", o);
		json_object_array_add(mounts, m);
	}
	files_free(f, n);
	return 0;
}
