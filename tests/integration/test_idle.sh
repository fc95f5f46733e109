#!/bin/bash
# Idle in the swarm for 60 s: less than 0.2 s of processor time. And what SIGTERM does to containers.
. "$(dirname "$0")/lib.sh"
IDLE_SECONDS=${IDLE_SECONDS:-60}
agent_logged_times() { [ "$(grep -cE -- "$2" "$LAB/log/agent-w1.log")" -ge "$1" ]; }
AGENT_LOG_LEVEL=info
lab_swarm idle
mgr service create --name web --detach --no-resolve-image --constraint node.hostname==w1 --network host --replicas 5 \
	$LAB_IMAGE sleep 100000 >/dev/null
wait_for 120 "5/5 web" service_has web 5
before=$(agent_ticks w1)
sleep "$IDLE_SECONDS"
ticks=$(($(agent_ticks w1) - before))
say "$((ticks * 1000 / $(getconf CLK_TCK))) ms of processor time in $IDLE_SECONDS s"
awk '/^(Rss|Pss):/ { print "-- " $0 }' "/proc/$(agent_pid w1)/smaps_rollup"
[ $((ticks * 1000 / $(getconf CLK_TCK))) -lt 200 ] || fail "more than 200 ms"
node_is w1 Ready || fail "the node is not Ready any more"

say "SIGTERM leaves the containers, --drain-on-exit takes them along"
ids() { docker_on w1 ps -q --no-trunc --filter label=com.docker.swarm.service.name=web | sort; }
ran=$(ids)
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
[ "$(ids)" = "$ran" ] || fail "containers ended with the agent"
agent_start w1 --drain-on-exit
wait_for 60 "registered again" agent_logged_times 2 'node is registered'
wait_for 60 "5/5 web" service_has web 5
[ "$(ids)" = "$ran" ] || fail "containers were not adopted"
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
[ "$(all_containers_on w1 web)" = 0 ] || fail "containers left after the drain"
