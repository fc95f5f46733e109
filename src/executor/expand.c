/* expand.c - where a task may hold templates, and what they see. Env, hostname and mounts are
 * expanded when the controller is made, on a copy: the task itself stays as the manager sent it.
 * Payloads are expanded when their files are made. */
#include "expand.h"
#include "files.h"
#include "rundir.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

/* ---- what a template sees */

struct context {
	struct template_data data;
	struct template_label *labels;
	char *name, slot[24];
};

static void context_init(struct context *c, const Pb__Task *t, const struct expand_node *n)
{
	const Pb__Annotations *s = t->service_annotations;

	memset(c, 0, sizeof(*c));
	c->name = api_task_name(t);
	if (t->slot)
		snprintf(c->slot, sizeof(c->slot), "%" PRIu64, (uint64_t)t->slot);
	c->labels = xcalloc((s ? s->n_labels : 0) + 1, sizeof(*c->labels));
	for (size_t i = 0; s && i < s->n_labels; i++)
		c->labels[i] = (struct template_label){s->labels[i]->key, s->labels[i]->value};
	c->data = (struct template_data){
		.service_id = t->service_id,
		.service_name = s ? s->name : NULL,
		.labels = c->labels,
		.n_labels = s ? s->n_labels : 0,
		.node_id = t->node_id,
		.node_hostname = n->hostname,
		.node_os = n->os,
		.node_arch = n->arch,
		.task_id = t->id,
		.task_name = c->name,
		.task_slot = t->slot ? c->slot : t->node_id,
	};
}

static void context_done(struct context *c)
{
	free(c->labels);
	free(c->name);
}

void expand_node_done(struct expand_node *n)
{
	free(n->hostname);
	free(n->os);
	free(n->arch);
	*n = (struct expand_node){0};
}

void expand_node_set(struct expand_node *n, const Pb__NodeDescription *desc)
{
	struct expand_node fresh = {
		.hostname = xstrdup(desc->hostname ? desc->hostname : ""),
		.os = xstrdup(desc->platform ? desc->platform->os : ""),
		.arch = xstrdup(desc->platform ? desc->platform->architecture : ""),
	};

	expand_node_done(n);
	*n = fresh;
}

/* ---- env, hostname, mounts */

static bool is_template(const char *s)
{
	return strstr(s, "{{") != NULL;
}

/* Calls @fn for every text of a mount that may be a template, until one says no. */
static int each_mount_text(const Pb__Mount *m,
	int (*fn)(void *arg, const char *what, char **text, struct sw_err *err), void *arg,
	struct sw_err *err)
{
	Pb__Mount *w = (Pb__Mount *)m;
	Pb__Mount__VolumeOptions *v = w->volume_options;
	Pb__Driver *d = v ? v->driver_config : NULL;
	int r = fn(arg, "mount source", &w->source, err);

	if (!r)
		r = fn(arg, "mount target", &w->target, err);
	for (size_t k = 0; v && k < v->n_labels && !r; k++)
		r = fn(arg, "volume label", &v->labels[k]->value, err);
	for (size_t k = 0; d && k < d->n_options && !r; k++)
		r = fn(arg, "volume driver option", &d->options[k]->value, err);
	return r;
}

static int look(void *arg, const char *what, char **text, struct sw_err *err)
{
	(void)arg;
	(void)what;
	(void)err;
	return is_template(*text);
}

bool expand_wanted(const Pb__Task *t)
{
	const Pb__ContainerSpec *c = spec_container(t);

	if (!c)
		return false;
	for (size_t i = 0; i < c->n_env; i++) {
		const char *eq = strchr(c->env[i], '=');

		if (eq && is_template(eq + 1))
			return true;
	}
	if (is_template(c->hostname))
		return true;
	for (size_t i = 0; i < c->n_mounts; i++)
		if (each_mount_text(c->mounts[i], look, NULL, NULL))
			return true;
	return false;
}

/* Takes @fresh. */
static void replace(char **text, char *fresh)
{
	/* protobuf-c's own empty string is not ours to free */
	if (*text != protobuf_c_empty_string)
		free(*text);
	*text = fresh;
}

static int expand_env(char **entry, const struct template_data *d, struct sw_err *err)
{
	char *eq = strchr(*entry, '='), *value;
	size_t name = eq ? (size_t)(eq - *entry) : 0;
	int r;

	if (!eq || !is_template(eq + 1))
		return 0;
	r = template_expand_str(eq + 1, d, &value, err);
	if (r < 0) {
		/* the name only: the value may be somebody's password */
		(void)sw_err_wrap(
			err, "expanding env failed: expanding env \"%.*s\"", (int)name, *entry);
		return r;
	}
	replace(entry, xasprintf("%.*s=%s", (int)name, *entry, value));
	sw_wipe_str(value);
	return 0;
}

static int expand_mount_text(void *arg, const char *what, char **text, struct sw_err *err)
{
	char *fresh;
	int r;

	if (!is_template(*text))
		return 0;
	r = template_expand_str(*text, arg, &fresh, err);
	if (r < 0) {
		(void)sw_err_wrap(
			err, "expanding mounts failed: expanding %s \"%.200s\"", what, *text);
		return r;
	}
	replace(text, fresh);
	return 0;
}

static int expand_container(Pb__ContainerSpec *c, struct template_data *d, struct sw_err *err)
{
	char *fresh;
	int r = 0;

	for (size_t i = 0; i < c->n_env && !r; i++)
		r = expand_env(&c->env[i], d, err);
	if (!r && is_template(c->hostname)) {
		r = template_expand_str(c->hostname, d, &fresh, err);
		if (r < 0)
			(void)sw_err_wrap(err, "expanding hostname failed");
		else
			replace(&c->hostname, fresh);
	}
	for (size_t i = 0; i < c->n_mounts && !r; i++)
		r = each_mount_text(c->mounts[i], expand_mount_text, d, err);
	return r;
}

int expand_task(const Pb__Task *t, const struct expand_node *n, Pb__Task **ret, struct sw_err *err)
{
	Pb__Task *copy = (Pb__Task *)(void *)api_dup(&t->base);
	struct context c;
	int r;

	context_init(&c, t, n);
	r = expand_container(copy->spec->container, &c.data, err);
	context_done(&c);
	if (r < 0)
		api_free(copy);
	else
		*ret = copy;
	return r;
}

/* ---- payloads */

struct lookup {
	const Pb__ContainerSpec *spec;
	const struct file_ref *refs;
	const struct rundir_file *files;
	size_t n;
};

static int find_env(const Pb__ContainerSpec *c, const char *name, const char **ret, size_t *ret_len)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < c->n_env; i++)
		if (strncmp(c->env[i], name, len) == 0 && c->env[i][len] == '=') {
			*ret = c->env[i] + len + 1;
			*ret_len = strlen(*ret);
			return 0;
		}
	*ret = "";
	*ret_len = 0;
	return 0;
}

static int on_lookup(void *arg, enum template_fn fn, const char *name, const char **ret,
	size_t *ret_len, struct sw_err *err)
{
	const struct lookup *l = arg;

	(void)err;
	if (fn == TEMPLATE_ENV)
		return find_env(l->spec, name, ret, ret_len);
	for (size_t i = 0; i < l->n; i++)
		if (l->refs[i].secret == (fn == TEMPLATE_SECRET) &&
			strcmp(l->refs[i].asked, name) == 0) {
			*ret = l->files[i].data;
			*ret_len = l->files[i].len;
			return 0;
		}
	return -ENOENT;
}

int expand_check_driver(const Pb__Driver *templating, struct sw_err *err)
{
	if (!templating || strcmp(templating->name, "golang") == 0)
		return 0;
	return sw_err_set(err, SW_REJECTED, -ENOTSUP,
		"unrecognized template type \"%s\", only golang is known", templating->name);
}

int expand_payload(const Pb__Task *t, const struct expand_node *node, const struct file_ref *refs,
	const struct rundir_file *files, size_t n, size_t i, char **ret, size_t *len,
	struct sw_err *err)
{
	struct lookup l = {spec_container(t), refs, files, n};
	struct context c;
	int r;

	context_init(&c, t, node);
	c.data.lookup = on_lookup;
	c.data.lookup_arg = &l;
	c.data.secret_text = refs[i].secret;
	r = template_expand(files[i].data, files[i].len, &c.data, ret, len, err);
	context_done(&c);
	if (r < 0)
		(void)sw_err_wrap(err, "failed to expand templated %s %s",
			refs[i].secret ? "secret" : "config", refs[i].id);
	return r;
}
