#!/bin/bash
# What went wrong with a task stands in "docker service ps", in the manager's and the store's words.
. "$(dirname "$0")/lib.sh"
lab_swarm errors

make() { # NAME OPTION... -- what to run; one attempt
	local name=$1
	shift
	mgr service create --name "$name" --detach --no-resolve-image --constraint node.hostname==w1 \
		--restart-condition none "$@" >/dev/null || fail "service create $name"
}
state_of() { mgr service ps --no-trunc --format '{{.CurrentState}}|{{.Error}}' "$1" | head -1; }
shows() { state_of "$1" | grep -qE -- "$2"; }
expect() { # NAME REGEX
	wait_quiet 90 shows "$1" "$2" || fail "$1 does not show $2 but: $(state_of "$1")"
	say "$1: $(state_of "$1")"
}

make noimage nosuch/image:1 sleep 1
make exit3 $LAB_IMAGE sh -c 'exit 3'
make nobind --mount type=bind,source=/nosuch/source,target=/b $LAB_IMAGE sleep 1
make nocommand $LAB_IMAGE /nosuch/command
make ok $LAB_IMAGE true
echo s3cret | mgr secret create lab-secret - >/dev/null
make secret --secret source=lab-secret,target=/t --mount type=tmpfs,target=/t $LAB_IMAGE sleep 1
make npipe --mount 'type=npipe,source=\\.\pipe\lab,target=\\.\pipe\lab' $LAB_IMAGE sleep 1
make relative --mount type=tmpfs,target=/t $LAB_IMAGE sh -c 'exit 0'

expect noimage '^Rejected.*\|.*pull image nosuch/image:1: '
expect exit3 '^Failed.*\|.*task: non-zero exit \(3\)'
expect nobind '^Rejected.*\|.*bind.*/nosuch/source'
expect nocommand '^(Failed|Rejected).*\|.*/nosuch/command'
expect ok '^Complete.*\|$'
expect relative '^Complete.*\|$'
expect npipe '^Rejected.*\|.*lab".*named pipes'
expect secret '^Rejected.*\|.*secret.*taken by a mount'

say "the exit code is in the manager's task and in the store"
id=$(mgr service ps -q --no-trunc exit3 | head -1)
[ "$(mgr inspect --type task -f '{{.Status.ContainerStatus.ExitCode}}' "$id")" = 3 ] || fail "exit code at the manager"
[ "$(agent_sql w1 "select exit_code from tasks_now where task_id = '$id'")" = 3 ] || fail "exit code in the store"
agent_sql w1 "select state, message, err, exit_code from tasks_now"

say "an overlay network keeps the task pending, the scheduler knows"
mgr network create -d overlay lab-overlay >/dev/null
make overlay --network lab-overlay $LAB_IMAGE sleep 1
expect overlay '^Pending.*\|.*no suitable node'

say "a service that fails is restarted by the manager, the old containers are kept as told"
mgr service create --name flaky --detach --no-resolve-image --constraint node.hostname==w1 --restart-delay 200ms \
	--restart-max-attempts 2 $LAB_IMAGE sh -c 'exit 7' >/dev/null
three_failures() { [ "$(mgr service ps --format '{{.CurrentState}}' flaky | grep -c '^Failed')" = 3 ]; }
wait_for 90 "three attempts" three_failures

for s in noimage exit3 nobind nocommand ok npipe secret relative overlay flaky; do mgr service rm $s >/dev/null; done
empty() { [ -z "$(docker_on w1 ps -aq)" ]; }
wait_for 60 "no container left" empty
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
