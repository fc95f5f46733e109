/* daemon.h - the rooms wired together: one node, from the store's opening to its closing. */
#pragma once
#include "config.h"

/* Runs until a signal or a permanent failure. @cfg: after config_load(), borrowed; its token is
 * wiped as soon as it was handed on. @reload: gives the log level anew, for SIGHUP; -1 keeps the
 * old one. */
enum exit_code daemon_run(struct config *cfg, int (*reload)(void *arg), void *arg);
