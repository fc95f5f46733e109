/* policy.h - what the operator of this node allows services to ask for beyond what dockerd's
 * workers give. Nothing by default. Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct docker_policy;
struct policy;
struct sw_err;

/* Copies @cfg. SW_REJECTED names the configuration's key, the entry and what is possible. */
int policy_new(struct policy **ret, const struct docker_policy *cfg, struct sw_err *err);
void policy_free(struct policy *p);

/* A NULL policy allows nothing. */
bool policy_privileged(const struct policy *p);
uint64_t policy_shm_size(const struct policy *p); /* the most, 0: none */
/* @perms: some of "rwm". */
bool policy_device(const struct policy *p, const char *path, const char *perms);
bool policy_security_opt(const struct policy *p, const char *opt);
bool policy_cgroup_rule(const struct policy *p, const char *rule);
/* Any GPU, of the engine's choice; one by its id; one that the scheduler assigned. */
bool policy_gpu_any(const struct policy *p);
bool policy_gpu(const struct policy *p, const char *id, bool assigned);
bool policy_ipc(const struct policy *p, const char *mode);
bool policy_pid(const struct policy *p, const char *mode);

/* ---- forms, for both sides of the comparison */

/* An absolute path that says what it means: no "//", "." or ".." in it, no '/' at its end. */
bool policy_is_path(const char *s);
/* One to three different letters of "rwm". */
bool policy_is_perms(const char *s);
/* "c 189:* rwm", as the engine wants it. */
bool policy_is_cgroup_rule(const char *s);
bool policy_is_ipc(const char *s);
