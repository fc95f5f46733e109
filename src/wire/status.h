/* status.h - how a gRPC call can end, as numbers and texts. Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <swarm/err.h>

/* grpc-status. UNKNOWN for what is no code. */
int grpc_status_parse(const char *s);
/* For answers without a grpc-status. */
int grpc_code_from_http(int status);
int grpc_code_from_reset(uint32_t h2_error);
enum sw_errclass grpc_code_class(int code);
/* grpc-message: %XX decoded, leniently (what is no escape stays); control characters become
 * spaces, so that the text fits a log line and a column; cut to @room with a final 0. */
void grpc_message_decode(char *dst, size_t room, const char *src);
/* The largest unit that loses nothing in at most 8 digits, rounded up: "5S", "1500m". @dst has
 * room for 16. */
void grpc_timeout_format(char *dst, uint64_t timeout_ns);
/* "application/grpc", alone or followed by + or ;. */
bool grpc_content_type_ok(const char *s);
