#include <captured.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <swarm/api.h>
#include <swarm/err.h>
#include <swarm/mem.h>
#include <test.h>

/* A tree of descriptors without a cycle: what a peer may nest is bounded by the types. */
static unsigned depth(const ProtobufCMessageDescriptor *d, unsigned above)
{
	unsigned deepest = 0;

	assert_true(above < 20);
	for (unsigned i = 0; i < d->n_fields; i++) {
		unsigned below;

		if (d->fields[i].type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		below = depth(d->fields[i].descriptor, above + 1);
		deepest = below > deepest ? below : deepest;
	}
	return deepest + 1;
}

static void no_message_contains_itself(void **state)
{
	(void)state;
	assert_int_equal(depth(&pb__assignments_message__descriptor, 0), 10);
	assert_true(depth(&pb__session_message__descriptor, 0) < 10);
}

static void *unpack_hex(const ProtobufCMessageDescriptor *d, const char *hex)
{
	struct sw_err err = SW_ERR_NONE;
	size_t len;
	uint8_t *p = captured_bytes(hex, &len);
	ProtobufCMessage *m;

	assert_non_null(p);
	m = api_unpack(d, p, len, &err);
	free(p);
	assert_non_null(m);
	assert_int_equal(err.cls, SW_OK);
	return m;
}

/* Packed again it is the same size, and the same bytes where no map has more than one entry. */
static void assert_packs_as(const void *m, const char *hex)
{
	size_t len, len2;
	uint8_t *p = captured_bytes(hex, &len), *q = api_pack(m, &len2);

	assert_int_equal(len, len2);
	assert_memory_equal(p, q, len);
	free(p);
	free(q);
}

/* --- captured messages ------------------------------------------------------------------------ */

static void captured_complete(void **state)
{
	Pb__AssignmentsMessage *m =
		unpack_hex(&pb__assignments_message__descriptor, CAPTURED_COMPLETE);

	(void)state;
	assert_int_equal(m->type, PB__ASSIGNMENTS_MESSAGE__TYPE__COMPLETE);
	assert_string_equal(m->applies_to, "");
	assert_string_equal(m->results_in, "1");
	assert_int_equal(m->n_changes, 0);
	api_free(m);
}

static void check_secret(const Pb__AssignmentChange *c)
{
	const Pb__Secret *s;

	assert_int_equal(c->action, PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__UPDATE);
	assert_int_equal(c->assignment->item_case, PB__ASSIGNMENT__ITEM_SECRET);
	s = c->assignment->secret;
	assert_string_equal(s->id, "ifzpke3pwdpq0bfoarrbeqdes");
	assert_true(s->meta->version->index == 247);
	assert_string_equal(s->spec->annotations->name, "db-pass");
	assert_int_equal(s->spec->data.len, 7);
	assert_memory_equal(s->spec->data.data, "hunter2", 7);
	assert_false(s->internal);
}

static void check_config(const Pb__AssignmentChange *c)
{
	const Pb__Config *s;

	assert_int_equal(c->assignment->item_case, PB__ASSIGNMENT__ITEM_CONFIG);
	s = c->assignment->config;
	assert_string_equal(s->id, "oj36dxuyjfl603bgc6zc56j3i");
	assert_true(s->meta->version->index == 248);
	assert_string_equal(s->spec->annotations->name, "site.conf");
	assert_int_equal(s->spec->data.len, 8);
	assert_memory_equal(s->spec->data.data, "port=80\n", 8);
}

static void check_container(const Pb__ContainerSpec *c)
{
	assert_string_equal(c->image, "busybox:1.36");
	assert_int_equal(c->n_command, 0);
	assert_int_equal(c->n_args, 2);
	assert_string_equal(c->args[0], "httpd");
	assert_string_equal(c->args[1], "-f");
	assert_int_equal(c->n_env, 1);
	assert_string_equal(c->env[0], "A=b");
	assert_true(api_duration_ns(c->stop_grace_period) == 7000000000);
	assert_int_equal(c->n_secrets, 1);
	assert_string_equal(c->secrets[0]->secret_id, "ifzpke3pwdpq0bfoarrbeqdes");
	assert_string_equal(c->secrets[0]->secret_name, "db-pass");
	assert_int_equal(c->secrets[0]->target_case, PB__SECRET_REFERENCE__TARGET_FILE);
	assert_string_equal(c->secrets[0]->file->name, "db");
	assert_string_equal(c->secrets[0]->file->uid, "0");
	assert_string_equal(c->secrets[0]->file->gid, "0");
	assert_int_equal(c->secrets[0]->file->mode, 0400);
	assert_int_equal(c->n_configs, 1);
	assert_string_equal(c->configs[0]->config_id, "oj36dxuyjfl603bgc6zc56j3i");
	assert_string_equal(c->configs[0]->config_name, "site.conf");
	assert_int_equal(c->configs[0]->target_case, PB__CONFIG_REFERENCE__TARGET_FILE);
	assert_string_equal(c->configs[0]->file->name, "/etc/site.conf");
	assert_int_equal(c->configs[0]->file->mode, 0444);
	assert_non_null(c->dns_config);
	assert_int_equal(c->dns_config->n_nameservers, 0);
	assert_non_null(c->init); /* present and empty: false, not "the engine's default" */
	assert_false(c->init->value);
	assert_null(c->healthcheck);
	assert_string_equal(c->hostname, "");
}

static void check_networks(const Pb__Task *t)
{
	const Pb__NetworkAttachment *n = t->networks[1];

	assert_int_equal(t->n_networks, 2);
	assert_string_equal(t->networks[0]->network->id, "u6lal106k7jqqiakx13xn6q19");
	assert_string_equal(t->networks[0]->network->spec->annotations->name, "ingress");
	assert_true(t->networks[0]->network->spec->ingress);
	assert_string_equal(t->networks[0]->addresses[0], "10.0.0.10/24");
	assert_string_equal(n->network->id, "te98g78iskcrdunf559sy8q6d");
	assert_string_equal(n->network->spec->annotations->name, "front");
	assert_string_equal(n->network->spec->driver_config->name, "overlay");
	assert_string_equal(n->network->driver_state->name, "overlay");
	assert_string_equal(
		api_map_get(n->network->driver_state->options, n->network->driver_state->n_options,
			"com.docker.network.driver.overlay.vxlanid_list"),
		"4098");
	assert_null(api_map_get(n->network->driver_state->options,
		n->network->driver_state->n_options, "com.docker"));
	assert_string_equal(n->network->ipam->driver->name, "default");
	assert_int_equal(n->network->ipam->n_configs, 1);
	assert_int_equal(n->network->ipam->configs[0]->family, 4);
	assert_string_equal(n->network->ipam->configs[0]->subnet, "10.0.2.0/24");
	assert_string_equal(n->network->ipam->configs[0]->gateway, "10.0.2.1");
	assert_int_equal(n->n_addresses, 1);
	assert_string_equal(n->addresses[0], "10.0.2.3/24");
	assert_int_equal(n->n_aliases, 1);
	assert_string_equal(n->aliases[0], "www");
}

static void check_task(const Pb__AssignmentChange *c)
{
	const Pb__Task *t;
	char *name;

	assert_int_equal(c->assignment->item_case, PB__ASSIGNMENT__ITEM_TASK);
	t = c->assignment->task;
	assert_string_equal(t->id, "yog8uu2t753d39ntdl9bg8p0d");
	assert_true(api_id_valid(t->id));
	assert_true(t->meta->version->index == 255);
	assert_int_equal(t->spec->runtime_case, PB__TASK_SPEC__RUNTIME_CONTAINER);
	check_container(t->spec->container);
	assert_true(t->spec->resources->limits->memory_bytes == 64 << 20);
	assert_non_null(t->spec->resources->reservations);
	assert_int_equal(t->spec->placement->n_constraints, 1);
	assert_string_equal(
		t->spec->placement->constraints[0], "node.id==2bglq0k9zp2fyiq1wa8k5c60u");
	assert_int_equal(t->spec->n_networks, 1);
	assert_string_equal(t->spec->networks[0]->target, "te98g78iskcrdunf559sy8q6d");
	assert_string_equal(t->spec->networks[0]->aliases[0], "www");
	assert_string_equal(t->service_id, "7fiv809336qjt4dmlyy47gs1g");
	assert_true(t->slot == 1);
	assert_string_equal(t->node_id, "2bglq0k9zp2fyiq1wa8k5c60u");
	assert_string_equal(t->annotations->name, "");
	assert_string_equal(t->service_annotations->name, "web");
	assert_int_equal(t->status->state, PB__TASK_STATE__ASSIGNED);
	assert_string_equal(t->status->message, "scheduler assigned task to node");
	assert_true(api_time_ns(t->status->timestamp) == 1795435225460663371);
	assert_int_equal(t->desired_state, PB__TASK_STATE__RUNNING);
	assert_string_equal(api_state_name((int)t->desired_state), "RUNNING");
	check_networks(t);
	assert_int_equal(t->endpoint->spec->n_ports, 1);
	assert_int_equal(t->endpoint->n_ports, 1);
	assert_int_equal(t->endpoint->ports[0]->target_port, 80);
	assert_int_equal(t->endpoint->ports[0]->published_port, 8080);
	assert_int_equal(t->endpoint->n_virtual_ips, 2);
	assert_string_equal(t->endpoint->virtual_ips[0]->network_id, "u6lal106k7jqqiakx13xn6q19");
	assert_string_equal(t->endpoint->virtual_ips[0]->addr, "10.0.0.9/24");
	assert_string_equal(t->endpoint->virtual_ips[1]->addr, "10.0.2.2/24");
	name = api_task_name(t);
	assert_string_equal(name, "web.1.yog8uu2t753d39ntdl9bg8p0d");
	free(name);
	assert_int_equal(t->base.n_unknown_fields, 0);
}

static void captured_incremental(void **state)
{
	Pb__AssignmentsMessage *m =
		unpack_hex(&pb__assignments_message__descriptor, CAPTURED_INCREMENTAL);

	(void)state;
	assert_int_equal(m->type, PB__ASSIGNMENTS_MESSAGE__TYPE__INCREMENTAL);
	assert_string_equal(m->applies_to, "1");
	assert_string_equal(m->results_in, "2");
	assert_int_equal(m->n_changes, 3);
	check_secret(m->changes[0]);
	check_config(m->changes[1]);
	check_task(m->changes[2]);
	api_free(m);
}

static void captured_remove(void **state)
{
	Pb__AssignmentsMessage *m =
		unpack_hex(&pb__assignments_message__descriptor, CAPTURED_REMOVE);

	(void)state;
	assert_string_equal(m->applies_to, "4");
	assert_string_equal(m->results_in, "5");
	assert_int_equal(m->n_changes, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(
			m->changes[i]->action, PB__ASSIGNMENT_CHANGE__ASSIGNMENT_ACTION__REMOVE);
	assert_int_equal(m->changes[0]->assignment->item_case, PB__ASSIGNMENT__ITEM_TASK);
	assert_string_equal(m->changes[0]->assignment->task->id, "yog8uu2t753d39ntdl9bg8p0d");
	assert_int_equal(m->changes[1]->assignment->item_case, PB__ASSIGNMENT__ITEM_SECRET);
	assert_string_equal(m->changes[1]->assignment->secret->id, "ifzpke3pwdpq0bfoarrbeqdes");
	assert_int_equal(m->changes[1]->assignment->secret->spec->data.len, 0);
	assert_int_equal(m->changes[2]->assignment->item_case, PB__ASSIGNMENT__ITEM_CONFIG);
	assert_string_equal(m->changes[2]->assignment->config->id, "oj36dxuyjfl603bgc6zc56j3i");
	api_free(m);
}

static void captured_status(void **state)
{
	Pb__UpdateTaskStatusRequest *m =
		unpack_hex(&pb__update_task_status_request__descriptor, CAPTURED_STATUS);
	const Pb__TaskStatus *s;

	(void)state;
	assert_string_equal(m->session_id, "969k6kwnjue4se9cr8s9tsrh9");
	assert_int_equal(m->n_updates, 1);
	assert_string_equal(m->updates[0]->task_id, "yog8uu2t753d39ntdl9bg8p0d");
	s = m->updates[0]->status;
	assert_true(api_time_ns(s->timestamp) == 1795435225777515888);
	assert_int_equal(s->state, PB__TASK_STATE__RUNNING);
	assert_string_equal(s->message, "started");
	assert_string_equal(s->err, "");
	assert_int_equal(s->runtime_status_case, PB__TASK_STATUS__RUNTIME_STATUS_CONTAINER);
	assert_int_equal(strlen(s->container->container_id), 64);
	assert_int_equal(s->container->pid, 4242);
	assert_packs_as(m, CAPTURED_STATUS); /* as Go writes it */
	api_free(m);
}

static void captured_logs(void **state)
{
	Pb__SubscriptionMessage *m =
		unpack_hex(&pb__subscription_message__descriptor, CAPTURED_SUBSCRIPTION);
	Pb__PublishLogsMessage *p =
		unpack_hex(&pb__publish_logs_message__descriptor, CAPTURED_PUBLISH);

	(void)state;
	assert_string_equal(m->id, "p4j9oz8niuxcwb9dp3r2hos5f");
	assert_int_equal(m->selector->n_service_ids, 1);
	assert_string_equal(m->selector->service_ids[0], "7fiv809336qjt4dmlyy47gs1g");
	assert_int_equal(m->options->n_streams, 2);
	assert_int_equal(m->options->streams[0], PB__LOG_STREAM__LOG_STREAM_STDOUT);
	assert_int_equal(m->options->streams[1], PB__LOG_STREAM__LOG_STREAM_STDERR);
	assert_true(m->options->tail == -11);
	assert_false(m->options->follow);
	assert_false(m->close);
	assert_packs_as(m, CAPTURED_SUBSCRIPTION);
	assert_int_equal(p->n_messages, 1);
	assert_string_equal(p->messages[0]->context->task_id, "yog8uu2t753d39ntdl9bg8p0d");
	assert_int_equal(p->messages[0]->stream, PB__LOG_STREAM__LOG_STREAM_STDOUT);
	assert_int_equal(p->messages[0]->data.len, 10);
	assert_memory_equal(p->messages[0]->data.data, "GET / 200\n", 10);
	assert_packs_as(p, CAPTURED_PUBLISH);
	api_free(m);
	api_free(p);
	/* the same streams packed, as a peer may send them too */
	m = unpack_hex(&pb__subscription_message__descriptor, "1a040a020102");
	assert_int_equal(m->options->n_streams, 2);
	assert_int_equal(m->options->streams[1], PB__LOG_STREAM__LOG_STREAM_STDERR);
	api_free(m);
}

/* --- pack, unpack ----------------------------------------------------------------------------- */

static void unknown_fields_survive(void **state)
{
	/* id "t1"; fields 500 (varint) and 501 (bytes) that no version has; in meta as well */
	static const char hex[] = "0a027431"
				  "120aa01f07aa1f047768617a"
				  "a01f2a"
				  "aa1f03616263";
	Pb__Task *t = unpack_hex(&pb__task__descriptor, hex);
	Pb__Task *copy, *plain = unpack_hex(&pb__task__descriptor, "0a0274311200");

	(void)state;
	assert_string_equal(t->id, "t1");
	assert_int_equal(t->base.n_unknown_fields, 2);
	assert_int_equal(t->meta->base.n_unknown_fields, 2);
	assert_packs_as(t, hex);
	copy = (Pb__Task *)api_dup(&t->base);
	assert_packs_as(copy, hex);
	assert_true(api_equal(&t->base, &copy->base));
	assert_true(api_task_equal(t, copy));
	assert_false(api_equal(&t->base, &plain->base));
	assert_false(api_task_equal(t, plain));
	copy->base.unknown_fields[1].data[2] ^= 1;
	assert_false(api_equal(&t->base, &copy->base));
	api_free(t);
	api_free(copy);
	api_free(plain);
	/* an enum value and a oneof arm of the future are no error */
	t = unpack_hex(&pb__task__descriptor, "50e807"); /* desired_state 1000 */
	assert_int_equal(t->desired_state, 1000);
	assert_string_equal(api_state_name(1000), "?");
	api_free(t);
}

static void bad_bytes(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {
		{"\x0a", 1}, /* a tag alone */
		{"\x0a\x05"
		 "abc",
			5},                      /* shorter than it says */
		{"\x0a\xff\xff\xff\xff\x0f", 6}, /* 4 GiB */
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11}, {"\x00\x00", 2}, /* field 0 */
		{"\x85\x00"
		 "abcd",
			6}, /* the same, spelled in two bytes */
		{"\x12\x06\x85\x00"
		 "abcd",
			8},              /* and inside */
		{"\x0b\x0c", 2},         /* a group */
		{"\x12\x02\x0a\x05", 4}, /* inside a submessage */
	};
	struct sw_err err;
	size_t len = 0;
	uint8_t *p;
	ProtobufCMessage *m;

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(bad); i++) {
		err = SW_ERR_NONE;
		assert_null(api_unpack(&pb__task__descriptor, bad[i].bytes, bad[i].len, &err));
		assert_int_equal(err.cls, SW_REJECTED);
		assert_int_equal(err.code, -EBADMSG);
		assert_non_null(strstr(err.msg, "Task"));
	}
	assert_null(api_unpack(&pb__task__descriptor, "\x0a", 1, NULL));
	/* nothing is a message: all of it absent */
	m = api_unpack(&pb__task__descriptor, NULL, 0, NULL);
	assert_non_null(m);
	p = api_pack(m, &len);
	assert_non_null(p);
	assert_int_equal(len, 0);
	free(p);
	api_free(m);
	api_free(NULL);
}

/* A length that needs a hundred times its size in memory is refused, however it is made up. */
static void memory_is_bounded(void **state)
{
	size_t n = 200000, len = 2 * n;
	uint8_t *p = malloc(len);
	struct sw_err err = SW_ERR_NONE;
	Pb__Task *t;

	(void)state;
	assert_non_null(p);
	for (size_t i = 0; i < n; i++) {
		p[2 * i] = 11 << 3 | 2; /* networks {} */
		p[2 * i + 1] = 0;
	}
	assert_null(api_unpack(&pb__task__descriptor, p, len, &err));
	assert_int_equal(err.cls, SW_REJECTED);
	assert_int_equal(err.code, -E2BIG);
	/* a few of them are nothing special */
	t = (Pb__Task *)api_unpack(&pb__task__descriptor, p, 2000, &err);
	assert_non_null(t);
	assert_int_equal(t->n_networks, 1000);
	api_free(t);
	free(p);
}

/* --- equality --------------------------------------------------------------------------------- */

static Pb__StringPair *pair(const char *k, const char *v)
{
	Pb__StringPair *p = xcalloc(1, sizeof(*p));

	pb__string_pair__init(p);
	p->key = xstrdup(k);
	p->value = xstrdup(v);
	return p;
}

/* Annotations with labels of "k=v k=v ...". */
static Pb__Annotations *labels(const char *text)
{
	Pb__Annotations *a = xcalloc(1, sizeof(*a));
	char *copy = xstrdup(text), *save = NULL;

	pb__annotations__init(a);
	for (char *s = strtok_r(copy, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		char *eq = strchr(s, '=');

		*eq = '\0';
		a->labels = xrealloc(a->labels, a->n_labels + 1, sizeof(*a->labels));
		a->labels[a->n_labels++] = pair(s, eq + 1);
	}
	free(copy);
	return a;
}

static void maps_in_any_order(void **state)
{
	static const struct {
		const char *a, *b;
		bool equal;
	} table[] = {
		{"", "", true},
		{"a=1", "a=1", true},
		{"a=1 b=2 c=3", "c=3 a=1 b=2", true},
		{"a=1 b=2 c=3", "a=1 c=3 b=2", true},
		{"a=1 b=2", "a=1", false},
		{"a=1 b=2", "a=2 b=1", false},
		{"a=1 b=2", "a=1 c=2", false},
		{"a=1", "", false},
		{"a= b=", "b= a=", true},
		/* keys that are there twice: as many times, with the same values */
		{"a=1 a=1 b=1", "a=1 b=1 b=1", false},
		{"a=1 a=2", "a=2 a=1", true},
		{"a=1 a=1", "a=1 a=2", false},
		{"a=1 a=2", "a=1 a=1", false},
	};

	(void)state;
	for (size_t i = 0; i < SW_ARRAY_LEN(table); i++) {
		Pb__Annotations *a = labels(table[i].a), *b = labels(table[i].b);

		assert_int_equal(api_equal(&a->base, &b->base), table[i].equal);
		assert_int_equal(api_equal(&b->base, &a->base), table[i].equal);
		api_free(a);
		api_free(b);
	}
}

/* Two million comparisons would be no matter, two hundred thousand million would never end. */
static void large_maps(void **state)
{
	enum { N = 300000 };
	Pb__Annotations *a = xcalloc(1, sizeof(*a)), *b = xcalloc(1, sizeof(*b));
	char k[16];

	(void)state;
	pb__annotations__init(a);
	pb__annotations__init(b);
	a->labels = xcalloc(N, sizeof(*a->labels));
	b->labels = xcalloc(N, sizeof(*b->labels));
	a->n_labels = b->n_labels = N;
	for (int i = 0; i < N; i++) {
		snprintf(k, sizeof(k), "%d", i);
		a->labels[i] = pair(k, "v");
		b->labels[N - 1 - i] = pair(k, "v");
	}
	assert_true(api_equal(&a->base, &b->base));
	b->labels[7]->value[0] = 'w';
	assert_false(api_equal(&a->base, &b->base));
	api_free(a);
	api_free(b);
}

static void lists_and_oneofs(void **state)
{
	Pb__Task *a, *b;

	(void)state;
	/* spec.container.args "x" "y" against "y" "x" */
	a = unpack_hex(&pb__task__descriptor, "1a080a06220178220179");
	b = unpack_hex(&pb__task__descriptor, "1a080a06220179220178");
	assert_string_equal(a->spec->container->args[0], "x");
	assert_false(api_equal(&a->base, &b->base));
	assert_true(api_equal(&a->base, &a->base));
	api_free(b);
	/* one less */
	b = unpack_hex(&pb__task__descriptor, "1a050a03220178");
	assert_false(api_equal(&a->base, &b->base));
	api_free(b);
	/* another arm */
	b = unpack_hex(&pb__task__descriptor, "1a024200");
	assert_int_not_equal(b->spec->runtime_case, a->spec->runtime_case);
	assert_false(api_equal(&a->base, &b->base));
	api_free(a);
	/* absent is not present and empty */
	a = unpack_hex(&pb__task__descriptor, "1a00");
	assert_false(api_equal(&a->base, &b->base));
	api_free(b);
	b = unpack_hex(&pb__task__descriptor, "");
	assert_false(api_equal(&a->base, &b->base));
	assert_false(api_equal(&b->base, &a->base));
	/* other types, and none */
	assert_false(api_equal(&a->base, NULL));
	assert_false(api_equal(NULL, &a->base));
	assert_true(api_equal(NULL, NULL));
	api_free(a);
	a = unpack_hex(&pb__version__descriptor, "");
	assert_false(api_equal((ProtobufCMessage *)a, &b->base));
	api_free(a);
	api_free(b);
}

static void functional_equality(void **state)
{
	Pb__AssignmentsMessage *m =
		unpack_hex(&pb__assignments_message__descriptor, CAPTURED_INCREMENTAL);
	Pb__Task *t = m->changes[2]->assignment->task, *copy = (Pb__Task *)api_dup(&t->base);
	Pb__Node *n = unpack_hex(&pb__node__descriptor, "0a016e"), *o;

	(void)state;
	assert_true(api_task_equal(t, copy));
	copy->status->state = PB__TASK_STATE__FAILED;
	copy->meta->version->index++;
	assert_true(api_task_equal(t, copy));
	assert_false(api_equal(&t->base, &copy->base));
	pb__task_status__free_unpacked(copy->status, NULL);
	copy->status = NULL;
	assert_true(api_task_equal(t, copy));
	copy->desired_state = PB__TASK_STATE__SHUTDOWN;
	assert_false(api_task_equal(t, copy));
	copy->desired_state = t->desired_state;
	/* status and meta are blind at the top only */
	copy->networks[0]->network->meta->version->index++;
	assert_false(api_task_equal(t, copy));
	api_free(copy);
	api_free(m);

	o = (Pb__Node *)api_dup(&n->base);
	o->status = xcalloc(1, sizeof(*o->status));
	pb__node_status__init(o->status);
	assert_true(api_node_equal(n, o));
	o->role = PB__NODE_ROLE__MANAGER;
	assert_false(api_node_equal(n, o));
	api_free(n);
	api_free(o);
}

/* --- names, ids, times ------------------------------------------------------------------------ */

static void task_names(void **state)
{
	Pb__Task t = PB__TASK__INIT;
	Pb__Annotations own = PB__ANNOTATIONS__INIT, service = PB__ANNOTATIONS__INIT;
	char tid[] = "tid", nid[] = "nid", web[] = "web", given[] = "given", *s;

	(void)state;
	t.id = tid;
	t.node_id = nid;
	service.name = web;
	t.slot = 3;
	s = api_task_name(&t);
	assert_string_equal(s, ".3.tid");
	free(s);
	t.service_annotations = &service;
	s = api_task_name(&t);
	assert_string_equal(s, "web.3.tid");
	free(s);
	t.slot = 0; /* a global service */
	s = api_task_name(&t);
	assert_string_equal(s, "web.nid.tid");
	free(s);
	t.slot = UINT64_MAX;
	s = api_task_name(&t);
	assert_string_equal(s, "web.18446744073709551615.tid");
	free(s);
	t.annotations = &own;
	s = api_task_name(&t);
	assert_string_equal(s, "web.18446744073709551615.tid");
	free(s);
	own.name = given;
	s = api_task_name(&t);
	assert_string_equal(s, "given");
	free(s);
}

static void ids(void **state)
{
	char id[66];

	(void)state;
	assert_true(api_id_valid("yog8uu2t753d39ntdl9bg8p0d"));
	assert_true(api_id_valid("0"));
	assert_false(api_id_valid(NULL));
	assert_false(api_id_valid(""));
	assert_false(api_id_valid("../etc"));
	assert_false(api_id_valid("a/b"));
	assert_false(api_id_valid("A"));
	assert_false(api_id_valid("a b"));
	assert_false(api_id_valid("a\n"));
	assert_false(api_id_valid("\xc3\xa4"));
	memset(id, 'z', sizeof(id));
	id[64] = '\0';
	assert_true(api_id_valid(id));
	id[64] = 'z';
	id[65] = '\0';
	assert_false(api_id_valid(id));
}

static int64_t time_of(int64_t s, int32_t ns)
{
	Pb__Timestamp t = PB__TIMESTAMP__INIT;

	t.seconds = s;
	t.nanos = ns;
	return api_time_ns(&t);
}

static uint64_t duration_of(int64_t s, int32_t ns)
{
	Pb__Duration d = PB__DURATION__INIT;

	d.seconds = s;
	d.nanos = ns;
	return api_duration_ns(&d);
}

static void times(void **state)
{
	static const int64_t there_and_back[] = {0, 1, -1, 999999999, 1000000000, -1000000000,
		-1000000001, INT64_MAX, INT64_MIN + 1};
	Pb__Timestamp t = PB__TIMESTAMP__INIT;

	(void)state;
	assert_true(api_time_ns(NULL) == 0);
	assert_true(time_of(1795435225, 460663371) == 1795435225460663371);
	assert_true(time_of(-1, 5) == -999999995);
	assert_true(time_of(-62135596800, 0) == 0); /* Go's zero time */
	assert_true(time_of(INT64_MIN, INT32_MIN) == 0);
	assert_true(time_of(9223372036, 854775807) == INT64_MAX);
	assert_true(time_of(9223372036, 854775808) == INT64_MAX);
	assert_true(time_of(INT64_MAX, INT32_MAX) == INT64_MAX);
	for (size_t i = 0; i < SW_ARRAY_LEN(there_and_back); i++) {
		int64_t ns = there_and_back[i];

		api_time_set(&t, ns);
		assert_true(t.nanos >= 0 && t.nanos < 1000000000); /* as protobuf wants it */
		if (ns >= INT64_MIN + 1000000000)
			assert_true(api_time_ns(&t) == ns);
	}

	assert_true(api_duration_ns(NULL) == 0);
	assert_true(duration_of(7, 5) == 7000000005);
	assert_true(duration_of(7, -5) == 6999999995);
	assert_true(duration_of(0, -5) == 0);
	assert_true(duration_of(-7, 0) == 0);
	assert_true(duration_of(INT64_MIN, INT32_MIN) == 0);
	assert_true(duration_of(INT64_MAX, 0) == INT64_MAX);
	assert_true(duration_of(9223372036, 999999999) == INT64_MAX);
}

static void states_and_tasks(void **state)
{
	Pb__Task *pb = unpack_hex(&pb__task__descriptor, "0a027431");
	struct api_task *t = api_task_new(pb);

	(void)state;
	assert_string_equal(api_state_name(PB__TASK_STATE__NEW), "NEW");
	assert_string_equal(api_state_name(PB__TASK_STATE__ORPHANED), "ORPHANED");
	assert_string_equal(api_state_name(-1), "?");
	assert_false(api_state_final(PB__TASK_STATE__RUNNING));
	assert_true(api_state_final(PB__TASK_STATE__COMPLETE));
	assert_true(api_state_final(PB__TASK_STATE__REJECTED));
	assert_ptr_equal(api_task_ref(t), t);
	api_task_unref(t);
	assert_string_equal(t->pb->id, "t1");
	api_task_unref(t);
	api_task_unref(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_message_contains_itself),
		cmocka_unit_test(captured_complete),
		cmocka_unit_test(captured_incremental),
		cmocka_unit_test(captured_remove),
		cmocka_unit_test(captured_status),
		cmocka_unit_test(captured_logs),
		cmocka_unit_test(unknown_fields_survive),
		cmocka_unit_test(bad_bytes),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(maps_in_any_order),
		cmocka_unit_test(large_maps),
		cmocka_unit_test(lists_and_oneofs),
		cmocka_unit_test(functional_equality),
		cmocka_unit_test(task_names),
		cmocka_unit_test(ids),
		cmocka_unit_test(times),
		cmocka_unit_test(states_and_tasks),
	};

	return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
