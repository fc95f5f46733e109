/* template.h - the templates of a task: text with {{actions}} in env, hostname, mounts, secrets and
 * configs. An evaluator of our own for the part of Go's text/template that Swarm's services use;
 * what is outside of it is refused by name. Any thread; no state is kept between calls.
 *
 * A template comes from a manager and is not trusted: the text and the result are at most 1 MiB,
 * the nesting (blocks, parentheses, {{template}}) at most 100, an expansion takes at most 10^6
 * steps and 32 MiB. Nothing of a payload stays behind in freed memory, and nothing of one gets into
 * an error. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct sw_err;

#define TEMPLATE_TEXT_MAX  (1024u * 1024) /* bytes of a template */
#define TEMPLATE_OUT_MAX   (1024u * 1024) /* bytes of a result, or of any text on the way to it */
#define TEMPLATE_DEPTH_MAX 100
#define TEMPLATE_STEPS_MAX 1000000

struct template_label {
	const char *key, *value; /* NULL is "" */
};

enum template_fn { TEMPLATE_SECRET, TEMPLATE_CONFIG, TEMPLATE_ENV };

/* A value for {{secret NAME}}, {{config NAME}} or {{env NAME}}. @name is the file target among the
 * task's references, or the variable (a name with a NUL byte in it is unknown without asking). 0
 * with @ret and @ret_len (borrowed until template_expand() returns; taken as they are, not expanded
 * again), -ENOENT for "there is none" (the text is made here: a name may itself come from a
 * payload), any other -errno with @err set, whose class is kept. The message of that @err must not
 * hold @name or payload bytes either. */
typedef int template_lookup_cb(void *arg, enum template_fn fn, const char *name, const char **ret,
	size_t *ret_len, struct sw_err *err);

/* All borrowed for the call; every text may be NULL, which is "". */
struct template_data {
	const char *service_id, *service_name;
	const struct template_label
		*labels; /* of the service, in any order; of equal keys the last */
	size_t n_labels;
	const char *node_id, *node_hostname, *node_os, *node_arch;
	const char *task_id, *task_name,
		*task_slot; /* slot: decimal, or the node's id for slot 0 */

	/* The payload functions exist only with @lookup: leave it NULL for env, hostname and
	 * mounts. */
	template_lookup_cb *lookup;
	void *lookup_arg;
	/* The template itself is a secret's payload: errors then show of its text only positions,
	 * names the language knows, and the literal arguments of the payload functions. */
	bool secret_text;
	/* Out, may be NULL: whether {{secret}} was called; then the result has to be kept like a
	 * secret. Set on failure too. */
	bool *sensitive;
};

/* Expands @len bytes of @text. 0 with @ret (caller frees; sw_wipe() it first if it is sensitive),
 * which ends in a NUL that @ret_len does not count; the result may hold NUL bytes of its own. Or
 * -errno with
 * @err set and nothing returned: SW_REJECTED for a template that cannot work, SW_TEMPORARY for want
 * of memory, or what @lookup said. */
int template_expand(const char *text, size_t len, const struct template_data *d, char **ret,
	size_t *ret_len, struct sw_err *err);

/* For texts that become C strings (env, hostname, mounts): refuses a result with a NUL byte. */
int template_expand_str(
	const char *text, const struct template_data *d, char **ret, struct sw_err *err);
