#!/bin/bash
# Idle in the swarm for 60 s: less than 0.2 s of processor time.
. "$(dirname "$0")/lib.sh"
AGENT_LOG_LEVEL=info
lab_swarm idle
mgr service create --name web --detach --no-resolve-image --constraint node.hostname==w1 --network host --replicas 5 \
	$LAB_IMAGE sleep 100000 >/dev/null
wait_for 120 "5/5 web" service_has web 5
before=$(agent_ticks w1)
sleep 60
ticks=$(($(agent_ticks w1) - before))
say "$((ticks * 1000 / $(getconf CLK_TCK))) ms of processor time in 60 s"
awk '/^(Rss|Pss):/ { print "-- " $0 }' "/proc/$(agent_pid w1)/smaps_rollup"
[ $((ticks * 1000 / $(getconf CLK_TCK))) -lt 200 ] || fail "more than 200 ms"
node_is w1 Ready || fail "the node is not Ready any more"
mgr service rm web >/dev/null
wait_for 120 "nothing left of web" all_containers_are w1 web 0
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
