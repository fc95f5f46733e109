/* files.h - the secrets and configs of a task as files in its container. Pure. */
#pragma once
#include "spec.h"
#include <stdint.h>

#define FILES_MAX 1000 /* per task */

struct file_ref {
	bool secret;           /* or a config */
	const char *id, *name; /* of the object; borrowed from the spec */
	const char *asked;     /* the target as the spec has it: what templates look up */
	char *target;          /* where it shows in the container: absolute and clean */
	uint32_t uid, gid, mode;
};

/* Those that become files, in the order of the spec, secrets first; @n of them. References without
 * a file (configs that carry something for the runtime) are left out. SW_REJECTED names what
 * cannot be: a target that leaves its folder or is taken, an owner that is no number. */
int files_list(const Pb__ContainerSpec *c, struct file_ref **ret, size_t *n, struct sw_err *err);
void files_free(struct file_ref *f, size_t n);
/* Whether the task needs any file. */
bool files_wanted(const Pb__ContainerSpec *c);
size_t files_count(const Pb__ContainerSpec *c);
