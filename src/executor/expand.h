/* expand.h - the templates of a task. Needs no loop. */
#pragma once
#include <stddef.h>
#include <swarm/api.h>
#include <swarm/template.h>

struct sw_err;
struct file_ref;
struct rundir_file;

/* What is known of the node; every text may be NULL. */
struct expand_node {
	char *hostname, *os, *arch;
};
void expand_node_set(struct expand_node *n, const Pb__NodeDescription *desc); /* copies */
void expand_node_done(struct expand_node *n);

/* Whether anything in env, hostname or mounts is a template. */
bool expand_wanted(const Pb__Task *t);
/* A copy of @t with these expanded. SW_REJECTED names the place, but never the value of an env. */
int expand_task(const Pb__Task *t, const struct expand_node *n, Pb__Task **ret, struct sw_err *err);

/* @templating of a secret or config; NULL: as it is. 0, or SW_REJECTED. */
int expand_check_driver(const Pb__Driver *templating, struct sw_err *err);
/* The payload of file @i of @n, expanded; what it refers to is taken raw. Any thread. @ret is for
 * the caller to wipe and free. */
int expand_payload(const Pb__Task *t, const struct expand_node *node, const struct file_ref *refs,
	const struct rundir_file *files, size_t n, size_t i, char **ret, size_t *len,
	struct sw_err *err);
