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

static inline Pb__StringPair *test_pair(const char *key, const char *value)
{
	Pb__StringPair p = PB__STRING_PAIR__INIT;

	p.key = (char *)key;
	p.value = (char *)value;
	return xmemdup_keep(&p, sizeof(p));
}
