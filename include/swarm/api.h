/* api.h - SwarmKit's objects as C structs (generated from src/api/swarmkit.proto by protobuf-c),
 * and what everybody needs to know about them. They are the model of the whole agent: the same
 * Pb__Task travels from the wire to the executor.
 *
 * Rules of protobuf-c to remember: strings are never NULL (absent = ""), absent submessages are
 * NULL, unknown fields are kept in base.unknown_fields and packed again. Any thread, as long as
 * one thread at a time writes to an object. */
#pragma once
#include "swarmkit.pb-c.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sw_err;

/* Unpacks a message of type @desc from @data. NULL with @err set (SW_REJECTED) if the bytes are no
 * such message (-EBADMSG) or would need far more memory than their length allows for (-E2BIG). */
ProtobufCMessage *api_unpack(
	const ProtobufCMessageDescriptor *desc, const void *data, size_t len, struct sw_err *err);
/* malloc'd bytes of @m, *@len of them; never NULL (an empty message gives an allocation too). */
uint8_t *api_pack(const ProtobufCMessage *m, size_t *len);
/* Deep copy, unknown fields included. */
ProtobufCMessage *api_dup(const ProtobufCMessage *m);
void api_free(void *m); /* any unpacked message; NULL is fine */

/* Equal in meaning: fields compared by descriptor, repeated StringPair (maps) in any order,
 * missing and empty lists equal; unknown fields count. Bytes must not be compared: managers
 * encode maps in random order. */
bool api_equal(const ProtobufCMessage *a, const ProtobufCMessage *b);
/* As api_equal(), blind for status and meta: the functional part. */
bool api_task_equal(const Pb__Task *a, const Pb__Task *b);
bool api_node_equal(const Pb__Node *a, const Pb__Node *b);

/* "RUNNING"; "?" for numbers that are no state. */
const char *api_state_name(int state);
static inline bool api_state_final(int state)
{
	return state >= PB__TASK_STATE__COMPLETE;
}

/* The task's name, which is the container's too: annotations.name, else "service.slot.id" with
 * the node id in place of slot 0 (swarmkit api/naming). malloc'd. */
char *api_task_name(const Pb__Task *t);
/* Value of @key in a map, or NULL. */
const char *api_map_get(Pb__StringPair **map, size_t n, const char *key);

/* ns since 1970 <-> Timestamp. NULL is 0, and so is a time before what ns can hold (1677): Go's
 * zero time, the year 1, means "never". Times after 2262 give INT64_MAX. Durations in ns,
 * saturating; negative and NULL ones give 0. */
int64_t api_time_ns(const Pb__Timestamp *t);
void api_time_set(Pb__Timestamp *t, int64_t ns); /* @t initialised by the caller */
uint64_t api_duration_ns(const Pb__Duration *d);

/* An id as Swarm makes them: 1..64 characters of [0-9a-z]. Whatever becomes part of a path or a
 * container name is checked with this first. */
bool api_id_valid(const char *id);

/* A task that several owners share, never changed after it was made. */
struct api_task {
	unsigned refs;      /* loop thread */
	const Pb__Task *pb; /* with the manager's status */
};
/* Takes @pb. */
struct api_task *api_task_new(Pb__Task *pb);
struct api_task *api_task_ref(struct api_task *t);
void api_task_unref(struct api_task *t); /* NULL is fine */
