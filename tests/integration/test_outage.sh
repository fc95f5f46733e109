#!/bin/bash
# Manager engine restarted, manager cut off for 60 s, worker engine killed and restarted, with and
# without live-restore: afterwards the wanted number runs, none doubled, and the agent never ended.
. "$(dirname "$0")/lib.sh"
CUT_SECONDS=${CUT_SECONDS:-60}
W1_ENGINE_ARGS=--live-restore lab_swarm outage
pid=$(agent_pid w1)
mgr service create --name web --detach --no-resolve-image --constraint node.hostname==w1 --network host --replicas 8 \
	--stop-grace-period 1s --restart-delay 200ms $LAB_IMAGE sleep 100000 >/dev/null
wait_for 120 "8/8 web" service_has web 8
ids() { docker_on w1 ps -q --no-trunc --filter label=com.docker.swarm.service.name=web | sort; }
settled() { service_has web 8 && containers_are w1 web 8 && no_doubles w1 web; }
alive() { [ "$(agent_pid w1)" = "$pid" ] && ! pid_gone "$pid" || fail "the agent ended"; }
before=$(ids)

say "manager engine killed and restarted: nothing happens to the containers"
engine_kill mgr
[ "$(ids)" = "$before" ] || fail "containers changed while the manager was away"
engine_start mgr
wait_for 120 "w1 Ready again" node_is w1 Ready
wait_for 120 "8/8 web" settled
alive
[ "$(ids)" = "$before" ] || fail "containers were replaced by a short restart of the manager"

say "worker engine killed and restarted, live-restore: the same containers"
engine_kill w1
engine_start w1
wait_for 120 "8/8 web" settled
alive
[ "$(ids)" = "$before" ] || fail "containers were replaced although they lived on"
mgr service scale --detach web=9 >/dev/null
nine() { service_has web 9 && containers_are w1 web 9; }
wait_for 120 "9/9 web" nine
mgr service scale --detach web=8 >/dev/null
wait_for 120 "8/8 web" settled

say "a container that ends while the engine is away is noticed"
victim=$(docker_on w1 ps -q --no-trunc --filter label=com.docker.swarm.service.name=web | head -1)
victim_pid=$(docker_on w1 inspect -f '{{.State.Pid}}' "$victim")
task=$(docker_on w1 inspect -f '{{index .Config.Labels "com.docker.swarm.task.id"}}' "$victim")
engine_kill w1
kill -9 "$victim_pid"
engine_start w1
task_failed() { [ "$(agent_sql w1 "select state from tasks_now where task_id = '$task'")" = FAILED ]; }
wait_for 120 "task $task FAILED" task_failed
wait_for 120 "8/8 web" settled
alive

say "manager cut off for $CUT_SECONDS s"
host_cut mgr
agent_cut() { agent_logged w1 'session|lost'; }
wait_for 60 "the agent notices" agent_cut
sleep "$CUT_SECONDS"
containers_are w1 web 8 || fail "containers ended while the manager was away"
host_uncut mgr
wait_for 120 "w1 Ready again" node_is w1 Ready
wait_for 180 "8/8 web" settled
alive

say "worker engine killed and restarted without live-restore: its containers end, new ones run"
engine_stop w1
echo >"$LAB/w1/dockerd.args"
engine_launch w1
wait_quiet 60 docker_on w1 version || fail "dockerd does not come back"
wait_for 180 "8/8 web" settled
engine_kill w1
engine_launch w1
wait_quiet 60 docker_on w1 version || fail "dockerd does not come back"
wait_for 180 "8/8 web" settled
alive

mgr service rm web >/dev/null
wait_for 120 "nothing left of web" all_containers_are w1 web 0
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
