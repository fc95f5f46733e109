/* grpc.h - gRPC calls on an HTTP/2 connection: unary, server-streaming, client-streaming.
 * Loop thread. Facts: gRPC's PROTOCOL-HTTP2.md; what managers do was seen on Docker 20.10. */
#pragma once
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>

struct h2_conn;
struct grpc_call;

enum grpc_code {
	GRPC_OK,
	GRPC_CANCELLED,
	GRPC_UNKNOWN,
	GRPC_INVALID_ARGUMENT,
	GRPC_DEADLINE_EXCEEDED,
	GRPC_NOT_FOUND,
	GRPC_ALREADY_EXISTS,
	GRPC_PERMISSION_DENIED,
	GRPC_RESOURCE_EXHAUSTED,
	GRPC_FAILED_PRECONDITION,
	GRPC_ABORTED,
	GRPC_OUT_OF_RANGE,
	GRPC_UNIMPLEMENTED,
	GRPC_INTERNAL,
	GRPC_UNAVAILABLE,
	GRPC_DATA_LOSS,
	GRPC_UNAUTHENTICATED,
};
const char *grpc_code_name(int code);

#define GRPC_MAX_SEND    (4u << 20)   /* managers refuse more (grpc-go's default) */
#define GRPC_MAX_RECEIVE (512u << 20) /* one message: COMPLETE carries everything in one */

/* How a call ended. OK: @err is NULL. Else @err has domain SW_E_GRPC, the code, the manager's text
 * as message, and class: UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED, UNKNOWN, INTERNAL,
 * RESOURCE_EXHAUSTED, CANCELLED by the peer -> SW_TEMPORARY; the rest SW_REJECTED. A lost
 * connection is UNAVAILABLE; after h2_conn_close() it is CANCELLED of class SW_CANCELLED, told
 * before the connection's closed(). */

/* @resp: borrowed; NULL when @err is set. Comes exactly once, unless cancelled. */
typedef void grpc_unary_cb(void *arg, const ProtobufCMessage *resp, const struct sw_err *err);
/* @timeout_ns 0: none; it is sent as grpc-timeout too. NULL never: a call that cannot start ends
 * through @cb. The request is packed before this returns. A request above GRPC_MAX_SEND ends with
 * RESOURCE_EXHAUSTED without being sent. */
struct grpc_call *grpc_unary(struct h2_conn *c, const char *path, const ProtobufCMessage *req,
	const ProtobufCMessageDescriptor *resp_type, uint64_t timeout_ns, grpc_unary_cb *cb,
	void *arg);

struct grpc_stream_events {
	/* One message, borrowed. Return false to stop reading until grpc_resume(): the peer's
	 * window closes, and end() waits too, so that nothing overtakes. */
	bool (*message)(void *arg, const ProtobufCMessage *m);
	/* The stream ended; @err NULL for status 0. Last call; the handle is dead. */
	void (*end)(void *arg, const struct sw_err *err);
	/* Client streams: room to send again. May be NULL. */
	void (*writable)(void *arg);
};
struct grpc_call *grpc_server_stream(struct h2_conn *c, const char *path,
	const ProtobufCMessage *req, const ProtobufCMessageDescriptor *msg_type,
	const struct grpc_stream_events *ev, void *arg);
void grpc_resume(struct grpc_call *call);

/* Client stream: the answer, if there is one, comes by message(), then end(). The server may end
 * the call at any moment: later sends are dropped. Status 0 without a message is a legal end. */
struct grpc_call *grpc_client_stream(struct h2_conn *c, const char *path,
	const ProtobufCMessageDescriptor *resp_type, const struct grpc_stream_events *ev,
	void *arg);
/* Returns false when the caller should wait for writable(). */
bool grpc_send(struct grpc_call *call, const ProtobufCMessage *m);
void grpc_finish(struct grpc_call *call); /* half-close */

/* Inside message() only: the message that is being delivered becomes the caller's, to be freed with
 * api_free() (as a whole, or what is left of it). NULL when it was taken already. */
ProtobufCMessage *grpc_take(struct grpc_call *call);

/* Resets the stream; silence afterwards, the handle is dead. NULL is fine. */
void grpc_cancel(struct grpc_call *call);
