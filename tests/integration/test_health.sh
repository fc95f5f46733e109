#!/bin/bash
# Health checks on a real engine: a task is RUNNING when it is healthy and not before, an unhealthy one
# fails with what its probe said, and NONE is no health check.
. "$(dirname "$0")/lib.sh"
lab_swarm health

make() { # NAME OPTION... -- one attempt
	local name=$1
	shift
	mgr service create --name "$name" --detach --no-resolve-image --constraint node.hostname==w1 \
		--restart-condition none "$@" >/dev/null || fail "service create $name"
}
state_of() { mgr service ps --no-trunc --format '{{.CurrentState}}|{{.Error}}' "$1" | head -1; }
shows() { state_of "$1" | grep -qE -- "$2"; }
expect() { # NAME REGEX
	wait_quiet 60 shows "$1" "$2" || fail "$1 does not show $2 but: $(state_of "$1")"
	say "$1: $(state_of "$1")"
}
container() { docker_on w1 ps -aq --no-trunc --filter "label=com.docker.swarm.service.name=$1"; }
runs() { [ "$(docker_on w1 inspect -f '{{.State.Running}}' "$(container "$1")")" = true ]; }
probes() { [ "$(docker_on w1 inspect -f '{{len .State.Health.Log}}' "$(container "$1")")" -ge "$2" ]; }

CHECK=(--health-cmd 'cat /ok' --health-interval 500ms --health-timeout 5s)
make late "${CHECK[@]}" --health-start-period 300s --health-retries 1 $LAB_IMAGE sleep 600
make never --health-cmd 'echo no; echo luck; exit 1' --health-interval 500ms --health-retries 2 \
	--stop-grace-period 1s $LAB_IMAGE sh -c 'trap "exit 5" TERM; while :; do sleep 0.1; done'
make later "${CHECK[@]}" --health-retries 2 --stop-grace-period 1s $LAB_IMAGE sh -c 'echo yes >/ok; exec sleep 600'
make slow --health-cmd 'sleep 60' --health-interval 500ms --health-timeout 1s --health-retries 1 \
	--stop-grace-period 1s $LAB_IMAGE sleep 600
tar -C "$LAB/rootfs" -c . | docker_on w1 import \
	--change 'HEALTHCHECK --interval=500ms --retries=1 CMD false' - checked:1 >/dev/null || fail import
make none --no-healthcheck checked:1 sleep 600
make image --stop-grace-period 1s checked:1 sleep 600

say "failures within the start period do not count, the task waits"
wait_for 60 "late's container" runs late
wait_for 60 "three probes" probes late 3
shows late '^Starting' || fail "late is not starting: $(state_of late)"
[ "$(docker_on w1 inspect -f '{{.State.Health.Status}}' "$(container late)")" = starting ] || fail "late's health"
docker_on w1 exec "$(container late)" sh -c 'echo fine >/ok' || fail exec
expect late '^Running.*\|$'

say "never healthy, and what the probe said"
expect never '^Failed.*\|.*task: non-zero exit \(5\): dockerexec: unhealthy container: no luck'
expect slow '^Failed.*\|.*task: non-zero exit \(137\): dockerexec: unhealthy container: .*(timeout|exceeded)'
expect image '^Failed.*\|.*dockerexec: unhealthy container'

say "healthy at first"
expect later '^Running.*\|$'
docker_on w1 exec "$(container later)" busybox rm /ok || fail exec
expect later '^Failed.*\|.*task: non-zero exit \(137\): dockerexec: unhealthy container: cat: .*/ok.*No such file'

say "NONE overrides the image"
expect none '^Running.*\|$'
[ "$(docker_on w1 inspect -f '{{.State.Health}}' "$(container none)")" = '<nil>' ] || fail "none has a health check"

say "an agent that restarts while a task waits for its health goes on waiting"
make again "${CHECK[@]}" --health-start-period 300s --health-retries 1 $LAB_IMAGE sleep 600
wait_for 60 "again's container" runs again
agent_kill w1
agent_start w1
wait_for 60 "w1 Ready" node_is w1 Ready
wait_for 60 "more probes" probes again 3
shows again '^Starting' || fail "again is not starting: $(state_of again)"
docker_on w1 exec "$(container again)" sh -c 'echo fine >/ok' || fail exec
expect again '^Running.*\|$'
shows late '^Running' && shows none '^Running' || fail "a running task was lost"
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
