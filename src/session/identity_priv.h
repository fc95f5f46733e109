/* identity_priv.h - what the dispatcher wants from the identity beyond its door. Loop thread.
 * Private to the session room. */
#pragma once
#include <swarm/session.h>

struct identity_listener {
	void (*changed)(void *arg);                    /* as identity_events.changed */
	void (*root_checked)(void *arg, bool changed); /* answers identity_check_root() */
};
/* One listener (the dispatcher); NULL: none any more. Called before the owner's event. */
void identity_listen(struct identity *id, const struct identity_listener *l, void *arg);
/* Managers could not be verified: perhaps a root rotation ended while we were away. Fetches the
 * root and takes it if our own certificate belongs to it (then renews too). */
void identity_check_root(struct identity *id);
/* The role that the next certificates should have; renewals go on until they do. */
void identity_expect_worker(struct identity *id);
