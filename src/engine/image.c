/* Images: references, inspect, pull. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <swarm/log.h>
#include <swarm/mem.h>
#include <uthash.h>

#include "engine-internal.h"

#define LOOK_LIMIT sw_s(30)
#define PULL_IDLE  sw_s(300)
#define MAX_LAYERS 1000
#define MAX_STATUS 128

/* ---- references */

int engine_ref_split(const char *ref, char **name, char **tag, struct sw_err *err)
{
	const char *at, *slash, *colon, *end;

	if (sw_str_empty(ref))
		return sw_err_set(err, SW_REJECTED, -EINVAL, "image reference is empty");
	at = strchr(ref, '@');
	end = at ? at : ref + strlen(ref);
	slash = memrchr(ref, '/', (size_t)(end - ref));
	colon = memchr(slash ? slash : ref, ':', (size_t)(end - (slash ? slash : ref)));
	if (ref == end || colon == ref || (colon && colon + 1 == end) || (at && !at[1]) ||
		(slash && slash + 1 == end) || (slash && colon == slash + 1))
		return sw_err_set(
			err, SW_REJECTED, -EINVAL, "image reference \"%s\" is malformed", ref);
	*name = xstrndup(ref, (size_t)((colon ? colon : end) - ref));
	if (at)
		*tag = xstrdup(at + 1);
	else if (colon)
		*tag = xstrdup(colon + 1);
	else
		*tag = xstrdup("latest"); /* without a tag the engine pulls all of them */
	return 0;
}

/* ---- inspect */

static void finish_image(
	union unary_cb cb, void *arg, int status, struct json_object *o, const struct sw_err *err)
{
	struct engine_image img = {.id = js_str(o, "Id")};

	(void)status;
	if (err) {
		cb.image(arg, NULL, err);
		return;
	}
	img.repo_digests = js_strings(js_arr(o, "RepoDigests"), &img.n_repo_digests);
	cb.image(arg, &img, NULL);
	free(img.repo_digests);
}

struct engine_call *engine_image_inspect(
	struct engine *e, const char *ref, engine_image_cb *cb, void *arg)
{
	sw_auto_free char *esc = http_escape(ref ? ref : "", true);
	struct exchange_spec s = {
		.method = "GET", .path = xasprintf("/images/%s/json", esc), .total_ns = LOOK_LIMIT};
	struct sw_err early;

	return unary_start(e, &s, true, finish_image, (union unary_cb){.image = cb}, arg,
		engine_check_name("image inspect", ref, &early));
}

/* ---- pull: one record after the other says what a layer does */

enum layer_state { WAITING, FETCHED, READY };
struct layer {
	UT_hash_handle hh;
	enum layer_state state;
	char id[];
};

struct pull {
	struct engine_call c;
	struct exchange *x;
	struct jsplit split;
	struct layer *layers;
	size_t n[READY + 1];
	char status[MAX_STATUS];
	struct sw_err err; /* the first error record */
	engine_progress_cb *progress;
	engine_done_cb *done;
	void *arg;
	bool *gone; /* set where somebody on the stack wants to know */
};

static void pull_free(struct pull *p)
{
	struct layer *l, *tmp;

	HASH_ITER (hh, p->layers, l, tmp) {
		HASH_DEL(p->layers, l);
		free(l);
	}
	if (p->gone)
		*p->gone = true;
	engine_call_del(&p->c);
	exchange_cancel(p->x);
	jsplit_done(&p->split);
	free(p);
}

static void pull_cancel(struct engine_call *c)
{
	pull_free(sw_container_of(c, struct pull, c));
}

static void pull_end(struct pull *p, const struct sw_err *err)
{
	engine_done_cb *done = p->done;
	void *arg = p->arg;

	pull_free(p);
	done(arg, err);
}

static void layer_is(struct pull *p, const char *id, const char *status)
{
	static const struct {
		const char *text;
		enum layer_state state;
	} table[] = {{"Pulling fs layer", WAITING}, {"Waiting", WAITING}, {"Downloading", WAITING},
		{"Verifying Checksum", FETCHED}, {"Download complete", FETCHED},
		{"Extracting", FETCHED}, {"Pull complete", READY}, {"Already exists", READY}};
	struct layer *l;
	size_t k = 0;

	while (k < SW_ARRAY_LEN(table) && strcmp(table[k].text, status) != 0)
		k++;
	if (!*id || k == SW_ARRAY_LEN(table))
		return;
	HASH_FIND_STR(p->layers, id, l);
	if (!l) {
		if (HASH_COUNT(p->layers) >= MAX_LAYERS)
			return; /* only the progress line suffers */
		l = xcalloc(1, sizeof(*l) + strlen(id) + 1);
		memcpy(l->id, id, strlen(id) + 1);
		HASH_ADD_STR(p->layers, id, l);
	} else {
		p->n[l->state]--;
	}
	l->state = table[k].state;
	p->n[l->state]++;
}

static void summary(const struct pull *p, char out[MAX_STATUS])
{
	size_t all = HASH_COUNT(p->layers);

	if (!all)
		snprintf(out, MAX_STATUS, "Pulling");
	else if (p->n[WAITING])
		snprintf(out, MAX_STATUS, "Downloading %zu/%zu layers", all - p->n[WAITING], all);
	else if (p->n[FETCHED])
		snprintf(out, MAX_STATUS, "Extracting %zu/%zu layers", p->n[READY], all);
	else
		snprintf(out, MAX_STATUS, "Pulled %zu layers", all);
}

static void record_error(struct pull *p, const char *text)
{
	char clean[SW_ERR_MSG_MAX];

	if (p->err.cls != SW_OK)
		return;
	engine_clean_text(clean, sizeof(clean), text, strlen(text));
	/* the engine had said 200 already; it would have been a 500 */
	sw_err_setd(&p->err, engine_error_class(500, clean), SW_E_HTTP, 500, "%s", clean);
}

static bool on_record(void *arg, const char *text, size_t len)
{
	struct pull *p = arg;
	struct json_object *o = NULL;
	char status[MAX_STATUS];
	const char *msg;
	bool gone = false;

	if (json_parse_text(text, len, &o, NULL) < 0)
		return true; /* it only tells about progress */
	msg = js_str(js_obj(o, "errorDetail"), "message");
	if (!*msg)
		msg = js_str(o, "error");
	if (*msg)
		record_error(p, msg);
	layer_is(p, js_str(o, "id"), js_str(o, "status"));
	json_object_put(o);
	summary(p, status);
	if (p->progress && strcmp(p->status, status) != 0) {
		memcpy(p->status, status, sizeof(status));
		p->gone = &gone;
		p->progress(p->arg, status);
		if (gone)
			return false;
		p->gone = NULL;
	}
	return true;
}

static void pull_data(void *arg, struct chain *data)
{
	struct pull *p = arg;
	struct sw_err err;

	if (jsplit_feed_chain(&p->split, data, on_record, p, &err) < 0)
		pull_end(p, &err);
}

static void pull_done(void *arg, int status, struct chain *body, const struct sw_err *err)
{
	struct pull *p = arg;
	struct sw_err own;

	(void)status;
	(void)body;
	p->x = NULL;
	if (p->err.cls != SW_OK) {
		own = p->err;
		err = &own;
	} else if (!err && jsplit_partial(&p->split)) {
		sw_err_set(&own, SW_TEMPORARY, -EPROTO, "the engine's pull ended within a record");
		err = &own;
	}
	pull_end(p, err);
}

struct engine_call *engine_image_pull(struct engine *e, const char *ref, const char *auth,
	engine_progress_cb *progress, engine_done_cb *done, void *arg)
{
	static const struct exchange_handler h = {.data = pull_data, .done = pull_done};
	struct exchange_spec s = {
		.method = "POST", .auth = auth, .idle_ns = PULL_IDLE, .stream = true};
	sw_auto_free char *name = NULL, *tag = NULL, *name_esc = NULL, *tag_esc = NULL;
	struct sw_err early;
	struct pull *p;

	if (engine_ref_split(ref, &name, &tag, &early) < 0)
		return engine_fail_later(e, &early, done, arg);
	if (auth && strpbrk(auth, "\r\n")) {
		sw_err_set(
			&early, SW_REJECTED, -EINVAL, "registry credentials contain a line break");
		return engine_fail_later(e, &early, done, arg);
	}
	name_esc = http_escape(name, false);
	tag_esc = http_escape(tag, false);
	s.path = xasprintf("/images/create?fromImage=%s&tag=%s", name_esc, tag_esc);
	p = xcalloc(1, sizeof(*p));
	p->progress = progress;
	p->done = done;
	p->arg = arg;
	engine_call_add(e, &p->c, pull_cancel);
	p->x = exchange_start(e, &s, &h, p);
	return &p->c;
}
