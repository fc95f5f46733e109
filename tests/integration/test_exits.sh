#!/bin/bash
# test_exits.sh TASKS: tasks that end within 0 to 5 ms of their start, each with an exit code of its
# own, while the engine (with live-restore) is stopped and killed and started again. Every exit code
# reaches the manager exactly as the engine has it.
. "$(dirname "$0")/lib.sh"
tasks=${1:-200}
W1_ENGINE_ARGS=--live-restore
lab_swarm exits
# each takes the first code that is still free
mkdir "$LAB/codes"
mgr service create --name codes --detach --no-resolve-image --network host --restart-condition none --replicas "$tasks" \
	--constraint node.hostname==w1 --mount "type=bind,source=$LAB/codes,target=/codes" $LAB_IMAGE \
	sh -c 'i=1; until busybox mkdir /codes/$i 2>/codes/err; do i=$((i+1)); done; busybox usleep $((i % 6 * 1000)); exit $i' >/dev/null || fail "service create"
exited() { docker_on w1 ps -aq --filter status=exited --filter label=com.docker.swarm.service.name=codes | wc -l; }
exited_are() { [ "$(exited)" -ge "$1" ]; }
for ((i = 1; i <= 4; i++)); do
	wait_for 180 "some ends" exited_are $((tasks * i / 6))
	if [ $((i % 2)) = 1 ]; then engine_stop w1; else engine_kill w1; fi
	engine_start w1
	say "engine restart $i with $(exited) ends"
done
task_states() { # TASK STATE CODE, a line for each
	mgr service ps -q --no-trunc codes | xargs -r "$DOCKER" -H "unix://$(engine_sock mgr)" inspect --type task \
		-f '{{.ID}} {{.Status.State}} {{with .Status.ContainerStatus}}{{.ExitCode}}{{end}} {{.Status.Err}}' | sort
}
all_ended() { [ "$(task_states | grep -cE ' (complete|failed|rejected)')" = "$tasks" ]; }
wait_for 300 "$tasks ends" all_ended
task_states >"$LAB/log/manager.log"
docker_on w1 ps -aq | xargs -r "$DOCKER" -H "unix://$(engine_sock w1)" inspect \
	-f '{{.State.Status}} {{index .Config.Labels "com.docker.swarm.task.id"}} failed {{.State.ExitCode}}' | sort -k2 >"$LAB/log/engine.log"
# An engine that is stopped in the middle of a start forgets that container (seen on Docker 20.10:
# "already exists" at the next try). Such a task failed, and nobody knows a code.
sed -n 's/^created \([^ ]*\).*/\1/p' "$LAB/log/engine.log" >"$LAB/forgotten"
say "$(wc -l <"$LAB/forgotten") starts forgotten by the engine"
[ "$(wc -l <"$LAB/forgotten")" -le $((tasks / 5)) ] || fail "the engine forgot too many starts to tell anything"
while read -r task; do
	grep "^$task failed .*starting container failed" "$LAB/log/manager.log" >/dev/null || fail "$task was never started: $(grep "^$task" "$LAB/log/manager.log")"
done <"$LAB/forgotten"
grep -vFf "$LAB/forgotten" "$LAB/log/manager.log" | cut -d' ' -f1-3 >"$LAB/seen"
sed -n 's/^exited //p' "$LAB/log/engine.log" >"$LAB/right"
diff "$LAB/right" "$LAB/seen" || fail "not every exit code arrived as it was"
# the engine's own words for "lost" are 128 and 255
doubled=$(cut -d' ' -f3 "$LAB/seen" | sort | uniq -d | grep -vxE '128|255')
[ -z "$doubled" ] || fail "codes that arrived twice:" $doubled
! grep -q ' 0$' "$LAB/seen" || fail "a code became 0"
[ "$(docker_on w1 ps -aq | wc -l)" = "$tasks" ] || fail "$(docker_on w1 ps -aq | wc -l) containers of $tasks tasks"
mgr service rm codes >/dev/null
wait_for 300 "nothing left of codes" all_containers_are w1 codes 0
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
