/* tasks.h - tasks for tests, in memory that the test need not free. */
#pragma once
#include <string.h>
#include <swarm/api.h>
#include <swarm/mem.h>

struct test_task {
	Pb__Task t;
	Pb__TaskSpec spec;
	Pb__ContainerSpec c;
	Pb__Annotations service, annotations;
	Pb__ResourceRequirements res;
	Pb__Resources limits;
	Pb__Duration grace;
	Pb__Endpoint endpoint;
};

/* Service "web", slot 1, node "node1", image "bb:1". */
static inline void test_task_init(struct test_task *x, const char *id)
{
	pb__task__init(&x->t);
	pb__task_spec__init(&x->spec);
	pb__container_spec__init(&x->c);
	pb__annotations__init(&x->service);
	pb__annotations__init(&x->annotations);
	pb__resource_requirements__init(&x->res);
	pb__resources__init(&x->limits);
	pb__duration__init(&x->grace);
	pb__endpoint__init(&x->endpoint);
	x->t.id = (char *)id;
	x->t.node_id = (char *)"node1";
	x->t.service_id = (char *)"service1";
	x->t.slot = 1;
	x->service.name = (char *)"web";
	x->t.service_annotations = &x->service;
	x->t.spec = &x->spec;
	x->spec.runtime_case = PB__TASK_SPEC__RUNTIME_CONTAINER;
	x->spec.container = &x->c;
	x->c.image = (char *)"bb:1";
}

static inline void test_task_grace(struct test_task *x, double seconds)
{
	x->grace.seconds = (int64_t)seconds;
	x->grace.nanos = (int32_t)((seconds - (double)x->grace.seconds) * 1e9);
	x->c.stop_grace_period = &x->grace;
}

/* A copy that the executor may share. */
static inline struct api_task *test_task_make(struct test_task *x)
{
	return api_task_new((Pb__Task *)(void *)api_dup(&x->t.base));
}

#define TEST_STRS(field, n_field, ...)                                                             \
	do {                                                                                       \
		static char *strs_[] = {__VA_ARGS__};                                              \
		(field) = strs_;                                                                   \
		(n_field) = SW_ARRAY_LEN(strs_);                                                   \
	} while (0)
#define TEST_PTRS(field, n_field, type, ...)                                                       \
	do {                                                                                       \
		type *ptrs_[] = {__VA_ARGS__};                                                     \
		(field) = xmemdup_keep(ptrs_, sizeof(ptrs_));                                      \
		(n_field) = SW_ARRAY_LEN(ptrs_);                                                   \
	} while (0)

/* Kept reachable until the end of the program, so that it is no leak. */
static inline void *xmemdup_keep(const void *p, size_t n)
{
	struct kept {
		struct kept *next;
		max_align_t data[];
	};
	static struct kept *all;
	struct kept *k = xcalloc(1, sizeof(*k) + n);

	k->next = all;
	all = k;
	memcpy(k->data, p, n);
	return k->data;
}

/* References as "docker service create" makes them, without an owner: 0:0. */
static inline Pb__FileTarget *test_file(
	const char *target, unsigned uid, unsigned gid, unsigned mode)
{
	Pb__FileTarget f = PB__FILE_TARGET__INIT;
	char *u = xasprintf("%u", uid), *g = xasprintf("%u", gid);

	f.name = (char *)target;
	f.uid = xmemdup_keep(u, strlen(u) + 1);
	f.gid = xmemdup_keep(g, strlen(g) + 1);
	f.mode = mode;
	free(u);
	free(g);
	return xmemdup_keep(&f, sizeof(f));
}

/* Adds a secret (or config) named NAME with id ID. */
static inline void test_secret(
	struct test_task *x, const char *id, const char *name, Pb__FileTarget *f)
{
	Pb__SecretReference r = PB__SECRET_REFERENCE__INIT;
	Pb__SecretReference *all[16], *kept;

	r.secret_id = (char *)id;
	r.secret_name = (char *)name;
	r.target_case =
		f ? PB__SECRET_REFERENCE__TARGET_FILE : PB__SECRET_REFERENCE__TARGET__NOT_SET;
	r.file = f;
	kept = xmemdup_keep(&r, sizeof(r));
	if (x->c.n_secrets)
		memcpy(all, x->c.secrets, x->c.n_secrets * sizeof(void *));
	all[x->c.n_secrets++] = kept;
	x->c.secrets = xmemdup_keep(all, x->c.n_secrets * sizeof(void *));
}

static inline void test_config(
	struct test_task *x, const char *id, const char *name, Pb__FileTarget *f)
{
	Pb__ConfigReference r = PB__CONFIG_REFERENCE__INIT;
	Pb__ConfigReference *all[16], *kept;
	static Pb__RuntimeTarget runtime = PB__RUNTIME_TARGET__INIT;

	r.config_id = (char *)id;
	r.config_name = (char *)name;
	r.target_case =
		f ? PB__CONFIG_REFERENCE__TARGET_FILE : PB__CONFIG_REFERENCE__TARGET_RUNTIME;
	if (f)
		r.file = f;
	else
		r.runtime = &runtime;
	kept = xmemdup_keep(&r, sizeof(r));
	if (x->c.n_configs)
		memcpy(all, x->c.configs, x->c.n_configs * sizeof(void *));
	all[x->c.n_configs++] = kept;
	x->c.configs = xmemdup_keep(all, x->c.n_configs * sizeof(void *));
}

static inline Pb__StringPair *test_pair(const char *key, const char *value)
{
	Pb__StringPair p = PB__STRING_PAIR__INIT;

	p.key = (char *)key;
	p.value = (char *)value;
	return xmemdup_keep(&p, sizeof(p));
}
