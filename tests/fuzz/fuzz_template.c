/* A template from anywhere: the first byte chooses what surrounds it. Beyond not crashing: limits
 * hold, errors are clean text, no payload is in them, and the same input says the same twice. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <swarm/template.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MARK "S3CR3T\xff%Q{{"

static int lookup(void *arg, enum template_fn fn, const char *name, const char **ret,
	size_t *ret_len, struct sw_err *err)
{
	(void)arg;
	if (fn == TEMPLATE_ENV && name[0] == 'e')
		return sw_err_set(err, SW_TEMPORARY, -EAGAIN, "later");
	if (name[0] != 'a')
		return -ENOENT;
	*ret = MARK;
	*ret_len = sizeof(MARK) - 1;
	return 0;
}

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_clean(const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;

		check(c >= ' ' && c != 0x7f && (c & 0xc0) != 0x80);
		for (; more; more--)
			check((*++s & 0xc0) == 0x80);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct template_label labels[] = {
		{"b", "2"}, {"a", "1 <x>"}, {"com.x", ""}, {"b", "two"}, {"\xc3\xa9", "\xff"}};
	bool sensitive = false;
	struct template_data d = {
		.service_id = "sid",
		.service_name = "name",
		.labels = labels,
		.n_labels = SW_ARRAY_LEN(labels),
		.node_id = "nid",
		.node_os = "linux",
		.task_slot = "7",
		.sensitive = &sensitive,
	};
	struct sw_err err[2] = {SW_ERR_NONE, SW_ERR_NONE};
	char *ret[2] = {NULL, NULL}, *text;
	size_t len[2] = {0, 0};
	int r[2];

	if (size == 0)
		return 0;
	if (data[0] & 1)
		d.lookup = lookup;
	d.secret_text = data[0] & 2;
	if (data[0] & 4)
		d.n_labels = 0;
	size--;
	/* exactly as long as it is, for the sanitizer */
	text = xmemdup(data + 1, size);
	if (size == 0) {
		free(text);
		text = NULL;
	}
	for (int i = 0; i < 2; i++)
		r[i] = template_expand(text, size, &d, &ret[i], &len[i], &err[i]);
	check(r[0] == r[1] && len[0] == len[1]);
	if (r[0] == 0) {
		check(ret[0] && len[0] <= TEMPLATE_OUT_MAX && ret[0][len[0]] == '\0');
		check(ret[1] && memcmp(ret[0], ret[1], len[0]) == 0);
	} else {
		check(!ret[0] && err[0].cls != SW_OK && strcmp(err[0].msg, err[1].msg) == 0);
		check_clean(err[0].msg);
		/* the marker is in a message only if the template wrote it there */
		check(!strstr(err[0].msg, "S3CR3T") ||
			(!d.secret_text && text && memmem(text, size, "S3C", 3)));
	}
	check(!sensitive || d.lookup);
	free(ret[0]);
	free(ret[1]);
	free(text);
	return 0;
}
