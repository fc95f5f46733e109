/* The protocol is a datagram of KEY=VALUE lines to the socket that NOTIFY_SOCKET names, a path or,
 * with '@' in front, an abstract name (sd_notify(3)): too little to link a library for. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <swarm/mem.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "notify.h"

int notify_send(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	sw_auto_close int fd = -1;
	size_t len;

	if (sw_str_empty(path))
		return 0;
	len = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof(sa.sun_path))
		return -EINVAL;
	memcpy(sa.sun_path, path, len);
	if (path[0] == '@')
		sa.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		return -errno;
	return 1;
}

int notify_status(const char *fmt, ...)
{
	static char last[512]; /* one service manager per process */
	char line[sizeof(last)] = "STATUS=";
	size_t n = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	for (char *p = line; *p; p++)
		if (*p == '\n' || *p == '\r')
			*p = ' ';
	if (strcmp(line, last) == 0)
		return 0;
	memcpy(last, line, sizeof(last));
	return notify_send(line);
}

uint64_t notify_watchdog_us(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

	if (sw_str_empty(usec) || strspn(usec, "0123456789") != strlen(usec))
		return 0;
	if (!sw_str_empty(pid) && strtoull(pid, NULL, 10) != (unsigned long long)getpid())
		return 0;
	return strtoull(usec, NULL, 10);
}
