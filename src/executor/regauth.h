/* regauth.h - the node's own registry credentials, as "docker login" leaves them: config.json with
 * "auths", "credHelpers" and "credsStore". The file is read anew for each answer, on the pool: a
 * login takes effect at once. Loop thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <swarm/err.h>

struct sw_loop;
struct regauth;
struct regauth_call;

/* @dir holds config.json; need not exist (yet). Copied. */
struct regauth *regauth_new(struct sw_loop *l, const char *dir);
/* No call may be open. Kills the helpers that still run, frees, then calls @closed from the loop.
 */
void regauth_close(struct regauth *ra, void (*closed)(void *arg), void *arg);

/* @header: value of X-Registry-Auth, borrowed; NULL: there are no credentials for that registry, or
 * @err says why they could not be had. */
typedef void regauth_cb(void *arg, const char *header, const struct sw_err *err);
/* @host as in references: "docker.io", "reg.example:5000". The call frees itself after @cb. */
struct regauth_call *regauth_get(struct regauth *ra, const char *host, regauth_cb *cb, void *arg);
/* NULL is fine. A helper that runs is killed. */
void regauth_cancel(struct regauth_call *c);

/* ---- pure parts, regconf.c */
struct regconf {
	char *helper; /* ask docker-credential-<helper> first; NULL: none */
	char *server; /* what it is asked for */
	char *header; /* what the file itself holds; NULL: nothing. Secret */
};
void regconf_done(struct regconf *r);
/* What a config.json says about @host. 0, or SW_REJECTED naming the field. */
int regconf_parse(
	struct regconf *ret, const char *text, size_t len, const char *host, struct sw_err *err);
/* What a helper printed, as header, malloc'd; *ret NULL: it has no credentials. @code: its exit
 * code. The error never repeats what it printed to "get" with code 0. */
int regconf_helper(
	char **ret, int code, const char *text, size_t len, const char *server, struct sw_err *err);
