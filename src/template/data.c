/* What is behind the dot: five structs, one map, texts. */
#include "tmpl.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>

/* In the order in which Go prints the fields of the original's types. */
static const struct field {
	enum vstruct of;
	enum vkind kind;
	const char *name;
	size_t is; /* V_STRUCT: which; V_STR: where in struct template_data */
} fields[] = {
	{S_ROOT, V_STRUCT, "Service", S_SERVICE},
	{S_ROOT, V_STRUCT, "Node", S_NODE},
	{S_ROOT, V_STRUCT, "Task", S_TASK},
	{S_SERVICE, V_STR, "ID", offsetof(struct template_data, service_id)},
	{S_SERVICE, V_STR, "Name", offsetof(struct template_data, service_name)},
	{S_SERVICE, V_MAP, "Labels", 0},
	{S_NODE, V_STR, "ID", offsetof(struct template_data, node_id)},
	{S_NODE, V_STR, "Hostname", offsetof(struct template_data, node_hostname)},
	{S_NODE, V_STRUCT, "Platform", S_PLATFORM},
	{S_PLATFORM, V_STR, "Architecture", offsetof(struct template_data, node_arch)},
	{S_PLATFORM, V_STR, "OS", offsetof(struct template_data, node_os)},
	{S_TASK, V_STR, "ID", offsetof(struct template_data, task_id)},
	{S_TASK, V_STR, "Name", offsetof(struct template_data, task_name)},
	{S_TASK, V_STR, "Slot", offsetof(struct template_data, task_slot)},
};

static const char *const struct_names[N_STRUCTS] = {
	[S_ROOT] = "the top level (.)",
	[S_SERVICE] = ".Service",
	[S_NODE] = ".Node",
	[S_PLATFORM] = ".Node.Platform",
	[S_TASK] = ".Task",
};

static struct value field_value(const struct tmpl *t, const struct field *f)
{
	if (f->kind == V_STR) {
		const char *const *at =
			(const char *const *)(const void *)((const char *)t->data + f->is);

		return VAL_STR(span_of(*at));
	}
	if (f->kind == V_MAP)
		return (struct value){.kind = V_MAP};
	return VAL_STRUCT((enum vstruct)f->is);
}

bool data_nth(const struct tmpl *t, enum vstruct st, size_t i, struct value *ret)
{
	for (size_t k = 0; k < SW_ARRAY_LEN(fields); k++) {
		if (fields[k].of == st && i-- == 0) {
			*ret = field_value(t, &fields[k]);
			return true;
		}
	}
	return false;
}

bool data_knows(struct span name)
{
	for (size_t k = 0; k < SW_ARRAY_LEN(fields); k++) {
		if (span_eq(name, span_of(fields[k].name)))
			return true;
	}
	return false;
}

static int no_field(struct tmpl *t, enum vstruct st, struct span name)
{
	char list[96], word[128];
	size_t n = 0;

	for (size_t k = 0; k < SW_ARRAY_LEN(fields); k++) {
		if (fields[k].of == st)
			n += (size_t)snprintf(
				list + n, sizeof(list) - n, "%s%s", n ? ", " : "", fields[k].name);
	}
	return tmpl_fail(t, "can't evaluate field %s in %s, which has %s",
		show_word(t, name, word, sizeof(word)), struct_names[st], list);
}

int data_field(struct tmpl *t, const struct value *of, struct span name, struct value *ret)
{
	char word[128];

	switch (of->kind) {
	case V_STRUCT:
		for (size_t k = 0; k < SW_ARRAY_LEN(fields); k++) {
			if (fields[k].of == of->st && span_eq(name, span_of(fields[k].name))) {
				*ret = field_value(t, &fields[k]);
				return 0;
			}
		}
		return no_field(t, of->st, name);
	case V_MAP:
		if (data_labels(t) < 0)
			return tmpl_code(t);
		if (data_label(t, name, ret))
			return tmpl_charge(t, name.n);
		return tmpl_fail(t, "map has no entry for key \"%s\"",
			show_word(t, name, word, sizeof(word)));
	case V_NIL:
		return tmpl_fail(t, "nil data; no entry for key \"%s\"",
			show_word(t, name, word, sizeof(word)));
	case V_BOOL:
	case V_INT:
	case V_BYTE:
	case V_STR:
		break;
	}
	return tmpl_fail(t, "can't evaluate field %s in type %s",
		show_word(t, name, word, sizeof(word)), value_type(t, of));
}

/* --- labels ----------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
	const struct template_label *x = *(const struct template_label *const *)a;
	const struct template_label *y = *(const struct template_label *const *)b;
	int r = strcmp(x->key ? x->key : "", y->key ? y->key : "");

	return r ? r : (x > y) - (x < y); /* elements of one array: what came last stays last */
}

int data_labels(struct tmpl *t)
{
	size_t n = t->data->n_labels, kept = 0;

	if (t->labels || n == 0)
		return 0;
	if (n > LABELS_MAX)
		return sw_err_set(&t->err, SW_REJECTED, -E2BIG, "%zu service labels, limit %d", n,
			LABELS_MAX);
	t->labels = tmpl_alloc(t, n * sizeof(t->labels[0]));
	if (!t->labels)
		return tmpl_code(t);
	for (size_t i = 0; i < n; i++)
		t->labels[i] = &t->data->labels[i];
	qsort(t->labels, n, sizeof(t->labels[0]), by_key);
	for (size_t i = 0; i < n; i++) {
		if (i + 1 < n &&
			span_eq(span_of(t->labels[i]->key), span_of(t->labels[i + 1]->key)))
			continue;
		t->labels[kept++] = t->labels[i];
	}
	t->n_labels = kept;
	return tmpl_charge(t, n * BYTES_PER_STEP);
}

bool data_label(const struct tmpl *t, struct span key, struct value *ret)
{
	size_t from = 0, to = t->n_labels;

	while (from < to) {
		size_t mid = from + (to - from) / 2;
		int r = span_cmp(key, span_of(t->labels[mid]->key));

		if (r == 0) {
			*ret = VAL_STR(span_of(t->labels[mid]->value));
			return true;
		}
		if (r < 0)
			to = mid;
		else
			from = mid + 1;
	}
	return false;
}

/* --- of any value ----------------------------------------------------------------------------- */

/* As Go names them: some of it gets into outputs. */
const char *value_type(const struct tmpl *t, const struct value *v)
{
	static const char *const structs[N_STRUCTS] = {
		[S_ROOT] = "*template.Context",
		[S_SERVICE] = "struct { ID string; Name string; Labels map[string]string }",
		[S_NODE] = "struct { ID string; Hostname string; Platform template.Platform }",
		[S_PLATFORM] = "template.Platform",
		[S_TASK] = "struct { ID string; Name string; Slot string }",
	};
	static const char *const names[] = {
		[V_NIL] = "nil",
		[V_BOOL] = "bool",
		[V_INT] = "int",
		[V_BYTE] = "uint8",
		[V_STR] = "string",
		[V_MAP] = "map[string]string",
	};

	if (v->kind != V_STRUCT)
		return names[v->kind];
	return v->st == S_ROOT && t->data->lookup ? "*template.PayloadContext" : structs[v->st];
}

bool value_truth(struct tmpl *t, const struct value *v)
{
	switch (v->kind) {
	case V_BOOL:
		return v->b;
	case V_INT:
	case V_BYTE:
		return v->i != 0;
	case V_STR:
		return v->s.n > 0;
	case V_MAP:
		return t->data->n_labels > 0;
	case V_STRUCT:
		return true;
	case V_NIL:
		break;
	}
	return false;
}
