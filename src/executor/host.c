/* host.c - resources, privileges, names and logs of a task: the rest of HostConfig. */
#include "spec.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <swarm/err.h>
#include <swarm/mem.h>

#define ENDPOINT_SYSCTLS "com.docker.network.endpoint.sysctls"

static const char *const isolations[] = {
	[PB__CONTAINER_SPEC__ISOLATION__ISOLATION_DEFAULT] = "default",
	[PB__CONTAINER_SPEC__ISOLATION__ISOLATION_PROCESS] = "process",
	[PB__CONTAINER_SPEC__ISOLATION__ISOLATION_HYPERV] = "hyperv",
};

/* The next word of a line, as "1.2.3.4 name alias": *@s moves behind it. NULL at the end. */
static const char *word(const char **s, size_t *len)
{
	const char *p = *s + strspn(*s, " \t");

	*len = strcspn(p, " \t");
	*s = p + *len;
	return *len ? p : NULL;
}

/* Place of "ethN" in "net.ipv4.conf.eth0.x", or NULL. */
static const char *sysctl_interface(const char *key)
{
	const char *p = key;

	if (!sw_starts_with(key, "net."))
		return NULL;
	for (int dots = 0; dots < 3; dots++) {
		if (!(p = strchr(p, '.')))
			return NULL;
		p++;
	}
	return sw_starts_with(p, "eth") && isdigit((unsigned char)p[3]) ? p : NULL;
}

/* From 1.48 on the engine refuses such sysctls and wants them on the endpoint, whose option it
 * knows since 1.46. */
static bool sysctl_moves(const char *key, const struct spec_env *env)
{
	return env->api >= 46 && sysctl_interface(key);
}

/* ---- checks */

static int check_dns(const Pb__ContainerSpec__DNSConfig *d, struct sw_err *err)
{
	unsigned char addr[sizeof(struct in6_addr)];

	for (size_t i = 0; d && i < d->n_nameservers; i++)
		if (inet_pton(AF_INET, d->nameservers[i], addr) != 1 &&
			inet_pton(AF_INET6, d->nameservers[i], addr) != 1)
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"dns_config.nameservers: \"%s\" is no IP address",
				d->nameservers[i]);
	return 0;
}

static int check_hosts(const Pb__ContainerSpec *c, struct sw_err *err)
{
	for (size_t i = 0; i < c->n_hosts; i++) {
		const char *s = c->hosts[i];
		size_t len;

		if (!word(&s, &len) || !word(&s, &len))
			return sw_err_set(err, SW_REJECTED, -EINVAL,
				"hosts: \"%s\" is not of the form \"IP NAME [ALIAS...]\"",
				c->hosts[i]);
	}
	return 0;
}

static int check_privileges(const Pb__Privileges *p, struct sw_err *err)
{
	if (!p)
		return 0;
	if (p->credential_spec)
		return sw_err_set(
			err, SW_REJECTED, -ENOTSUP, "credential specs are for Windows nodes");
	if (p->seccomp &&
		(unsigned)p->seccomp->mode > PB__PRIVILEGES__SECCOMP_OPTS__SECCOMP_MODE__CUSTOM)
		return sw_err_set(err, SW_REJECTED, -EINVAL, "privileges.seccomp: unknown mode %d",
			(int)p->seccomp->mode);
	if (p->apparmor && (unsigned)p->apparmor->mode >
				   PB__PRIVILEGES__APP_ARMOR_OPTS__APP_ARMOR_MODE__DISABLED)
		return sw_err_set(err, SW_REJECTED, -EINVAL, "privileges.apparmor: unknown mode %d",
			(int)p->apparmor->mode);
	return 0;
}

int spec_host_check(const Pb__Task *t, const struct spec_env *env, struct sw_err *err)
{
	const Pb__ContainerSpec *c = spec_container(t);
	int r;

	if ((size_t)c->isolation >= SW_ARRAY_LEN(isolations))
		return sw_err_set(err, SW_REJECTED, -EINVAL, "isolation: unknown value %d",
			(int)c->isolation);
	for (size_t i = 0; i < c->n_sysctls; i++) {
		const char *key = c->sysctls[i]->key;

		if (sysctl_moves(key, env) && !sw_starts_with(sysctl_interface(key), "eth0."))
			return sw_err_set(err, SW_REJECTED, -ENOTSUP,
				"sysctl \"%s\": only eth0 can be named, the order of other "
				"interfaces is not known",
				key);
	}
	if ((r = check_dns(c->dns_config, err)) || (r = check_hosts(c, err)))
		return r;
	return check_privileges(c->privileges, err);
}

/* ---- into HostConfig */

static void put_int(struct json_object *o, const char *key, int64_t v)
{
	json_object_object_add(o, key, json_object_new_int64(v));
}

static void add_resources(const Pb__Task *t, struct json_object *host)
{
	const Pb__ContainerSpec *c = spec_container(t);
	const Pb__ResourceRequirements *r = t->spec->resources;
	const Pb__Resources *l = r ? r->limits : NULL;

	if (c->pidslimit > 0)
		put_int(host, "PidsLimit", c->pidslimit);
	if (c->n_ulimits) {
		struct json_object *a = json_object_new_array();

		for (size_t i = 0; i < c->n_ulimits; i++) {
			struct json_object *u = json_object_new_object();

			spec_put_str(u, "Name", c->ulimits[i]->name);
			put_int(u, "Soft", c->ulimits[i]->soft);
			put_int(u, "Hard", c->ulimits[i]->hard);
			json_object_array_add(a, u);
		}
		json_object_object_add(host, "Ulimits", a);
	}
	if (!l)
		return; /* then not even the swappiness counts, as in dockerd */
	if (l->memory_bytes > 0) {
		int64_t total;

		put_int(host, "Memory", l->memory_bytes);
		if (r->swap_bytes && r->swap_bytes->value < 0)
			put_int(host, "MemorySwap", -1);
		else if (r->swap_bytes)
			put_int(host, "MemorySwap",
				__builtin_add_overflow(
					l->memory_bytes, r->swap_bytes->value, &total)
					? INT64_MAX
					: total);
	}
	if (r->memory_swappiness)
		put_int(host, "MemorySwappiness", r->memory_swappiness->value);
	if (l->nano_cpus > 0)
		put_int(host, "NanoCpus", l->nano_cpus);
}

static void add_opt(struct json_object *a, const char *prefix, const char *value)
{
	sw_auto_free char *s = NULL;

	if (!*value)
		return;
	s = xasprintf("%s%s", prefix, value);
	json_object_array_add(a, json_object_new_string(s));
}

static void add_security(const Pb__Privileges *p, struct json_object *host)
{
	struct json_object *a = json_object_new_array();

	if (p && p->selinux_context) {
		const Pb__Privileges__SELinuxContext *s = p->selinux_context;

		add_opt(a, "label=", s->disable ? "disable" : "");
		add_opt(a, "label=user:", s->user);
		add_opt(a, "label=role:", s->role);
		add_opt(a, "label=level:", s->level);
		add_opt(a, "label=type:", s->type);
	}
	if (p && p->seccomp) {
		const Pb__Privileges__SeccompOpts *s = p->seccomp;

		if (s->mode == PB__PRIVILEGES__SECCOMP_OPTS__SECCOMP_MODE__UNCONFINED) {
			add_opt(a, "seccomp=", "unconfined");
		} else if (s->mode == PB__PRIVILEGES__SECCOMP_OPTS__SECCOMP_MODE__CUSTOM) {
			sw_auto_free char *profile =
				xstrndup(s->profile.len ? (const char *)s->profile.data : "",
					s->profile.len);
			sw_auto_free char *opt = xasprintf("seccomp=%s", profile);

			json_object_array_add(a, json_object_new_string(opt));
		}
	}
	if (p && p->apparmor &&
		p->apparmor->mode == PB__PRIVILEGES__APP_ARMOR_OPTS__APP_ARMOR_MODE__DISABLED)
		add_opt(a, "apparmor=", "unconfined");
	if (p && p->no_new_privileges)
		add_opt(a, "no-new-privileges=", "true");
	if (json_object_array_length(a))
		json_object_object_add(host, "SecurityOpt", a);
	else
		json_object_put(a);
}

/* "IP NAME ALIAS..." -> NAME:IP, ALIAS:IP... (dockerd drops the aliases). */
static void add_hosts(const Pb__ContainerSpec *c, struct json_object *host)
{
	struct json_object *a;

	if (!c->n_hosts)
		return;
	a = json_object_new_array();
	for (size_t i = 0; i < c->n_hosts; i++) {
		const char *s = c->hosts[i], *ip, *name;
		size_t ip_len, len;

		ip = word(&s, &ip_len);
		while ((name = word(&s, &len))) {
			sw_auto_free char *e =
				xasprintf("%.*s:%.*s", (int)len, name, (int)ip_len, ip);

			json_object_array_add(a, json_object_new_string(e));
		}
	}
	json_object_object_add(host, "ExtraHosts", a);
}

static struct json_object *child(struct json_object *o, const char *key)
{
	struct json_object *c;

	if (!json_object_object_get_ex(o, key, &c)) {
		c = json_object_new_object();
		json_object_object_add(o, key, c);
	}
	return c;
}

/* net.ipv4.conf.eth0.x=v on the first endpoint, as net.ipv4.conf.IFNAME.x=v, before what is there.
 */
static void add_endpoint_sysctls(
	const Pb__Task *t, const struct spec_env *env, struct json_object *body)
{
	const Pb__ContainerSpec *c = spec_container(t);
	/* the engine takes settings under "default" for its default network */
	const char *net = spec_n_networks(t) ? spec_network_name(t, 0) : "default";
	sw_auto_free char *all = xstrdup("");
	struct json_object *opts, *old;
	char *more;

	for (size_t i = 0; i < c->n_sysctls; i++) {
		const char *key = c->sysctls[i]->key;

		if (!sysctl_moves(key, env))
			continue;
		more = xasprintf("%s%s%.*sIFNAME%s=%s", all, *all ? "," : "",
			(int)(sysctl_interface(key) - key), key, sysctl_interface(key) + 4,
			c->sysctls[i]->value);
		free(all);
		all = more;
	}
	if (!*all)
		return;
	opts = child(child(child(child(body, "NetworkingConfig"), "EndpointsConfig"), net),
		"DriverOpts");
	if (json_object_object_get_ex(opts, ENDPOINT_SYSCTLS, &old)) {
		more = xasprintf("%s,%s", all, json_object_get_string(old));
		free(all);
		all = more;
	}
	spec_put_str(opts, ENDPOINT_SYSCTLS, all);
}

static void add_sysctls(const Pb__Task *t, const struct spec_env *env, struct json_object *body,
	struct json_object *host)
{
	const Pb__ContainerSpec *c = spec_container(t);

	for (size_t i = 0; i < c->n_sysctls; i++)
		if (!sysctl_moves(c->sysctls[i]->key, env))
			json_object_object_add(child(host, "Sysctls"), c->sysctls[i]->key,
				json_object_new_string(c->sysctls[i]->value));
	add_endpoint_sysctls(t, env, body);
}

/* Already the task's own or the cluster's default, the manager chose. */
static void add_log_driver(const Pb__Driver *d, struct json_object *host)
{
	struct json_object *o;

	if (!d)
		return;
	o = json_object_new_object();
	json_object_object_add(o, "Type", json_object_new_string(d->name));
	json_object_object_add(o, "Config", spec_map(d->options, d->n_options));
	json_object_object_add(host, "LogConfig", o);
}

void spec_host_add(const Pb__Task *t, const struct spec_env *env, struct json_object *body,
	struct json_object *host)
{
	const Pb__ContainerSpec *c = spec_container(t);

	/* no RestartPolicy: restarting is the orchestrator's business, with a new task */
	spec_put_strs(host, "GroupAdd", c->groups, c->n_groups);
	json_object_object_add(host, "ReadonlyRootfs", json_object_new_boolean(c->read_only));
	if (!env->podman || c->isolation)
		spec_put_str(host, "Isolation", isolations[c->isolation]);
	if (c->init)
		json_object_object_add(host, "Init", json_object_new_boolean(c->init->value));
	spec_put_strs(host, "CapAdd", c->capability_add, c->n_capability_add);
	spec_put_strs(host, "CapDrop", c->capability_drop, c->n_capability_drop);
	if (c->oom_score_adj)
		put_int(host, "OomScoreAdj", c->oom_score_adj);
	if (c->dns_config) {
		const Pb__ContainerSpec__DNSConfig *d = c->dns_config;

		spec_put_strs(host, "Dns", d->nameservers, d->n_nameservers);
		spec_put_strs(host, "DnsSearch", d->search, d->n_search);
		spec_put_strs(host, "DnsOptions", d->options, d->n_options);
	}
	add_sysctls(t, env, body, host);
	add_hosts(c, host);
	add_security(c->privileges, host);
	add_log_driver(t->log_driver, host);
	add_resources(t, host);
}
