/* localnet.h - node-local networks that tasks need, made on this engine and counted by task
 *. Loop thread. */
#pragma once
#include <stdbool.h>
#include <swarm/api.h>
#include <sys/queue.h>

struct steps;
struct ctl;

struct localnet {
	char *name, *swarm_id;
	bool from_config;
	char *made; /* its id here, if this process made it */
	unsigned refs;
	LIST_ENTRY(localnet) link;
};
LIST_HEAD(localnets, localnet);

/* A controller counts for each such network of its task from its birth until the removal of its
 * container or its own end, whichever is first: a container that was created but not started holds
 * nothing in the engine, and the network would be taken from under it. */
void ctl_hold_networks(struct ctl *c);
void ctl_release_networks(struct ctl *c);
/* Steps: makes those that are not there, removes those that no other task needs. Before either
 * comes the turn: one task at a time on the node. An engine that gets two creates at once makes two
 * networks of one name, whatever it was asked to check (20.10), or gives both the same addresses.
 */
void ctl_start_net_turn(struct steps *s);
void ctl_cancel_net_turn(struct steps *s);
void ctl_make_networks(struct steps *s);
void ctl_remove_networks(struct steps *s);
