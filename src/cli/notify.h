/* notify.h - what a service manager wants to hear (sd_notify(3)), without libsystemd. */
#pragma once
#include <stdint.h>

/* Sends @text ("READY=1\nSTATUS=...") to NOTIFY_SOCKET. Returns 1 if sent, 0 if nobody asked for
 * it, or -errno. Never blocks. */
int notify_send(const char *text);
/* "STATUS=" and the formatted line; newlines become blanks. Sent only when it differs from the
 * last. */
int notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Microseconds within which WATCHDOG=1 is expected, 0: not wanted (sd_watchdog_enabled(3)). */
uint64_t notify_watchdog_us(void);
