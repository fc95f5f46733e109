/* secrets.c - jobs of the run directory, in the order in which they were asked for.
 *
 *   queue --its turn: payloads are copied--> pool --> done on the loop, copies wiped --> next
 *
 * Payloads live here for the time of one job only. They are the manager's to send again: nothing of
 * them is kept, and a task whose files went away (somebody emptied the directory, the machine was
 * started anew) gets them once more before its container starts. */
#include "secrets.h"
#include "ctl.h"
#include "expand.h"
#include "files.h"
#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>

enum kind { WRITE, ENSURE, DROP, REMOVE, LIST };

struct secrets_job {
	TAILQ_ENTRY(secrets_job) link;
	struct secrets *s;
	enum kind kind;
	struct ctl *ctl; /* WRITE, ENSURE: until its turn */
	secrets_cb *cb;
	void *arg;

	/* what the pool works on */
	struct rundir *dir;
	struct rundir_owner owner;
	char *task;
	struct rundir_file *files; /* data: ours, raw */
	struct rundir_file *made;  /* expanded: the same, or data of its own */
	size_t n_files, n_expected;
	bool *templates; /* by file */
	struct file_ref *refs;
	size_t n_refs;
	struct api_task *spec; /* what refs borrow from */
	struct expand_node node;
	struct sw_err err;
	bool missing; /* ENSURE: files are to be made */
	char **names; /* LIST */
	size_t n_names;
};

static void next(struct secrets *s);

static void files_wipe(struct secrets_job *j)
{
	for (size_t i = 0; i < j->n_files; i++) {
		if (j->made[i].data && j->made[i].data != j->files[i].data) {
			sw_wipe((void *)j->made[i].data, j->made[i].len);
			free((void *)j->made[i].data);
		}
		sw_wipe((void *)j->files[i].data, j->files[i].len);
		free((void *)j->files[i].data);
	}
	free(j->files);
	free(j->made);
	free(j->templates);
	files_free(j->refs, j->n_refs);
	api_task_unref(j->spec);
	expand_node_done(&j->node);
	j->files = j->made = NULL;
	j->templates = NULL;
	j->refs = NULL;
	j->spec = NULL;
	j->n_files = j->n_refs = 0;
}

static void job_free(struct secrets_job *j)
{
	files_wipe(j);
	for (size_t i = 0; i < j->n_names; i++)
		free(j->names[i]);
	free(j->names);
	free(j->task);
	free(j);
}

/* ---- payloads */

static int add_payload(struct secrets_job *j, const struct file_ref *f,
	const ProtobufCBinaryData *data, struct sw_err *err)
{
	struct rundir_file *file = &j->files[j->n_files];
	void *copy = malloc(data->len + 1); /* a peer chose the length */

	if (!copy)
		return sw_err_set(err, SW_TEMPORARY, -ENOMEM, "%s \"%s\": no memory for %zu bytes",
			f->secret ? "secret" : "config", f->name, data->len);
	if (data->len)
		memcpy(copy, data->data, data->len);
	*file = (struct rundir_file){
		.uid = f->uid, .gid = f->gid, .mode = f->mode, .data = copy, .len = data->len};
	j->n_files++;
	return 0;
}

static int payload_of(const struct executor_deps *deps, const char *task, const struct file_ref *f,
	const ProtobufCBinaryData **data, const Pb__Driver **templating)
{
	if (f->secret) {
		const Pb__Secret *s = deps->secret ? deps->secret(deps->arg, task, f->id) : NULL;

		if (!s || !s->spec)
			return -ENOENT;
		*data = &s->spec->data;
		*templating = s->spec->templating;
	} else {
		const Pb__Config *c = deps->config ? deps->config(deps->arg, task, f->id) : NULL;

		if (!c || !c->spec)
			return -ENOENT;
		*data = &c->spec->data;
		*templating = c->spec->templating;
	}
	return 0;
}

static int collect_file(struct secrets_job *j, size_t i, struct sw_err *err)
{
	const struct file_ref *f = &j->refs[i];
	const char *what = f->secret ? "secret" : "config";
	const ProtobufCBinaryData *data;
	const Pb__Driver *templating;

	if (payload_of(&j->s->d->deps, j->task, f, &data, &templating) < 0)
		return sw_err_set(err, SW_TEMPORARY, -EAGAIN,
			"dependency not ready: %s \"%s\" has not arrived", what, f->name);
	if (expand_check_driver(templating, err) < 0)
		return sw_err_wrap(err, "%s \"%s\"", what, f->name);
	j->templates[i] = templating != NULL;
	return add_payload(j, f, data, err);
}

/* Copies all that the pool needs. */
static int collect(struct secrets_job *j, struct sw_err *err)
{
	const struct expand_node *node = &j->s->d->node_texts;
	int r;

	j->spec = api_task_ref(j->ctl->task);
	r = files_list(spec_container(j->spec->pb), &j->refs, &j->n_refs, err);
	if (r == 0) {
		j->files = xcalloc(j->n_refs + 1, sizeof(*j->files));
		j->made = xcalloc(j->n_refs + 1, sizeof(*j->made));
		j->templates = xcalloc(j->n_refs + 1, sizeof(*j->templates));
		j->node = (struct expand_node){
			xstrdup(node->hostname), xstrdup(node->os), xstrdup(node->arch)};
	}
	for (size_t i = 0; i < j->n_refs && !r; i++)
		r = collect_file(j, i, err);
	if (r < 0)
		files_wipe(j);
	return r;
}

/* ---- the pool's part */

/* Templates see the raw payloads of the others. */
static int make_files(struct secrets_job *j)
{
	int r = 0;

	for (size_t i = 0; i < j->n_files && !r; i++) {
		char *text = NULL;
		size_t len = 0;

		j->made[i] = j->files[i];
		if (!j->templates[i])
			continue;
		r = expand_payload(j->spec->pb, &j->node, j->refs, j->files, j->n_files, i, &text,
			&len, &j->err);
		if (r == 0) {
			j->made[i].data = text;
			j->made[i].len = len;
		}
	}
	return r;
}

static void work(void *arg)
{
	struct secrets_job *j = arg;

	if (rundir_open(j->dir, &j->err) < 0)
		return;
	switch (j->kind) {
	case ENSURE:
		j->missing = !rundir_has(j->dir, j->task, j->n_expected);
		break;
	case WRITE:
		if (make_files(j) == 0)
			rundir_write(j->dir, j->task, &j->owner, j->made, j->n_files, &j->err);
		break;
	case DROP:
	case REMOVE:
		rundir_drop(j->dir, j->task, j->kind == REMOVE, &j->err);
		break;
	case LIST:
		rundir_list(j->dir, &j->names, &j->n_names, &j->err);
		break;
	}
}

/* ---- the loop's part */

static void sweep_listed(struct secrets_job *j)
{
	const struct executor_deps *deps = &j->s->d->deps;

	for (size_t i = 0; deps->knows_task && i < j->n_names; i++) {
		if (deps->knows_task(deps->arg, j->names[i]))
			continue;
		log_notice("files of a task that is gone are removed", KS("task", j->names[i]));
		secrets_remove(j->s, j->names[i], NULL, NULL);
	}
}

static void complain(struct secrets *s, const struct sw_err *err)
{
	if (err->cls && !s->complained)
		log_warning(
			"secrets and configs cannot be handed out, other tasks can run", KERR(err));
	s->complained = err->cls != SW_OK;
}

static void finish(struct secrets_job *j)
{
	struct secrets *s = j->s;
	struct docker *d = s->d;

	s->running = NULL;
	if (j->kind == LIST) {
		complain(s, &j->err);
		sweep_listed(j);
	} else if (j->err.cls == SW_TEMPORARY && !j->cb && (j->kind == DROP || j->kind == REMOVE)) {
		log_warning("files of a task stay behind, the next start removes them",
			KS("task", j->task), KERR(&j->err));
	}
	/* a directory that cannot be used holds nothing of ours, and one that another agent uses is
	 * not ours to clean */
	if (j->kind == REMOVE && (j->err.cls == SW_REJECTED || j->err.code == -EBUSY))
		j->err = SW_ERR_NONE;
	if (j->cb)
		j->cb(j->arg, j->err.cls ? &j->err : NULL);
	job_free(j);
	next(s);
	docker_maybe_closed(d);
}

static void on_worked(void *arg, bool dropped)
{
	struct secrets_job *j = arg;

	(void)dropped; /* nobody does */
	if (j->kind == ENSURE && !j->err.cls && j->missing && j->cb) {
		j->kind = WRITE;
		if (collect(j, &j->err) == 0) {
			sw_work(j->s->d->loop, work, on_worked, j);
			return;
		}
	}
	finish(j);
}

static void skip(void *arg)
{
	(void)arg;
}

static void next(struct secrets *s)
{
	struct secrets_job *j = TAILQ_FIRST(&s->queue);
	bool skipped;

	if (s->running || !j)
		return;
	TAILQ_REMOVE(&s->queue, j, link);
	s->running = j;
	j->owner = s->owner;
	skipped = (j->kind == WRITE || j->kind == ENSURE) && !j->cb;
	if (!skipped && j->kind == WRITE)
		skipped = collect(j, &j->err) < 0;
	/* through the pool also when there is nothing to do: the result never comes from inside
	 * the call that asked for it */
	sw_work(s->d->loop, skipped ? skip : work, on_worked, j);
}

static struct secrets_job *job_new(
	struct secrets *s, enum kind kind, const char *task, secrets_cb *cb, void *arg)
{
	struct secrets_job *j = xcalloc(1, sizeof(*j));

	j->s = s;
	j->kind = kind;
	j->task = xstrdup(task);
	j->dir = s->dir;
	j->cb = cb;
	j->arg = arg;
	TAILQ_INSERT_TAIL(&s->queue, j, link);
	return j;
}

struct secrets_job *secrets_write(struct secrets *s, struct ctl *c, secrets_cb *cb, void *arg)
{
	struct secrets_job *j = job_new(s, WRITE, c->task_id, cb, arg);

	j->ctl = c;
	next(s);
	return j;
}

struct secrets_job *secrets_ensure(struct secrets *s, struct ctl *c, secrets_cb *cb, void *arg)
{
	struct secrets_job *j = job_new(s, ENSURE, c->task_id, cb, arg);
	const Pb__ContainerSpec *spec = spec_container(c->task->pb);

	j->ctl = c;
	j->n_expected = files_count(spec);
	next(s);
	return j;
}

void secrets_drop(struct secrets *s, const char *task_id)
{
	if (!s->dir)
		return;
	job_new(s, DROP, task_id, NULL, NULL);
	next(s);
}

struct secrets_job *secrets_remove(
	struct secrets *s, const char *task_id, secrets_cb *cb, void *arg)
{
	struct secrets_job *j = job_new(s, REMOVE, task_id, cb, arg);

	next(s);
	return j;
}

void secrets_sweep(struct secrets *s)
{
	if (!s->dir)
		return;
	job_new(s, LIST, NULL, NULL, NULL);
	next(s);
}

void secrets_forget(struct secrets_job *j)
{
	if (!j)
		return;
	j->cb = NULL;
	j->ctl = NULL;
}

/* ---- the engine */

/* With user namespaces the engine's root is another user: the last part of its data root says
 * which ("/var/lib/docker/231072.231072"). */
static void owner_of_root(const char *root_dir, struct rundir_owner *o)
{
	const char *base = strrchr(root_dir, '/');
	unsigned long uid, gid;
	char *end;

	if (!base || !isdigit((unsigned char)base[1]))
		return;
	uid = strtoul(base + 1, &end, 10);
	if (*end != '.' || !isdigit((unsigned char)end[1]))
		return;
	gid = strtoul(end + 1, &end, 10);
	if (*end || uid > INT_MAX || gid > INT_MAX)
		return;
	o->uid = (uint32_t)uid;
	o->gid = (uint32_t)gid;
}

void secrets_engine(struct secrets *s, const struct engine_info *info)
{
	struct json_object *options = NULL, *root = NULL;

	s->owner = (struct rundir_owner){0};
	s->owner_known = true;
	json_object_object_get_ex(info->json, "SecurityOptions", &options);
	json_object_object_get_ex(info->json, "DockerRootDir", &root);
	if (!json_object_is_type(options, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(options); i++) {
		const char *o = json_object_get_string(json_object_array_get_idx(options, i));

		if (sw_streq(o, "name=userns") && json_object_is_type(root, json_type_string))
			owner_of_root(json_object_get_string(root), &s->owner);
		else if (sw_streq(o, "name=selinux"))
			s->owner.selinux = true;
	}
}

/* ---- life */

void secrets_init(struct secrets *s, struct docker *d, const char *run_dir)
{
	s->d = d;
	s->dir = run_dir ? rundir_new(run_dir, NULL) : NULL;
	TAILQ_INIT(&s->queue);
}

bool secrets_idle(const struct secrets *s)
{
	return !s->running;
}

void secrets_done(struct secrets *s)
{
	rundir_free(take(s->dir));
}
