#!/bin/bash
# test_kill.sh KILLS REPLICAS: kill -9 of the agent at random moments while a service grows. In the end
# the right number runs, no container was doubled or lost, and those that ran were adopted. With
# AGENT_VALGRIND set the agent runs under valgrind, and its last life must be clean.
. "$(dirname "$0")/lib.sh"
kills=${1:-20} replicas=${2:-30}
if [ -n "${AGENT_VALGRIND:-}" ]; then
	command -v valgrind >/dev/null || skip "valgrind is not installed"
	# a start alone can take longer than the three heartbeats after which the manager gives the node up and
	# replaces its tasks: that is not what this test is about
	LAB_HEARTBEAT=20s
	AGENT_WRAP="valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,indirect"
fi
lab_swarm "kill$kills"
mgr service create --name web --detach --no-resolve-image --constraint node.hostname==w1 --network host --replicas 0 \
	--stop-grace-period 1s --restart-condition any $LAB_IMAGE sleep 100000 >/dev/null
mgr service create --name steady --detach --no-resolve-image --constraint node.hostname==w1 --network host --replicas 3 \
	$LAB_IMAGE sleep 100000 >/dev/null
mgr service create --name codes --detach --no-resolve-image --constraint node.hostname==w1 --network host --replicas 3 \
	--restart-condition none $LAB_IMAGE sh -c 'sleep 2; exit 4' >/dev/null
wait_for 120 "3/3 steady" service_has steady 3
ids_of() { docker_on w1 ps -q --no-trunc --filter "label=com.docker.swarm.service.name=$1" | sort; }
steady=$(ids_of steady)

for ((i = 1; i <= kills; i++)); do
	mgr service scale --detach "web=$((replicas * i / kills))" >/dev/null
	# 0 to 0.9 s: somewhere between joining, loading, creating and starting
	sleep "0.$((RANDOM % 10))"
	agent_kill w1
	no_doubles w1 web || fail "two containers of one task after kill $i"
	agent_start w1
done
say "$kills kills"
wait_for 120 "w1 Ready" node_is w1 Ready
wait_for 240 "$replicas/$replicas web" service_has web "$replicas"
wait_for 60 "$replicas containers" containers_are w1 web "$replicas"
no_doubles w1 web || fail "two containers of one task"
no_doubles w1 steady || fail "two containers of one task"
[ "$(ids_of steady)" = "$steady" ] || fail "steady's containers were not adopted"
say "no status lost: each of the three ends of 'codes' is known with its code"
codes() { [ "$(mgr service ps -q --no-trunc codes | xargs -r -n1 "$DOCKER" -H "unix://$(engine_sock mgr)" inspect --type task -f '{{.Status.State}} {{.Status.ContainerStatus.ExitCode}}' | grep -c '^failed 4$')" = 3 ]; }
wait_for 120 "three times exit code 4" codes

say "manager, engine and store agree"
mgr service ps --no-trunc -q --filter desired-state=running web | sort >"$LAB/a"
docker_on w1 ps --filter label=com.docker.swarm.service.name=web --format '{{.Label "com.docker.swarm.task.id"}}' | sort >"$LAB/b"
diff "$LAB/a" "$LAB/b" || fail "manager and engine differ"
same_in_store() {
	agent_sql w1 "select task_id from tasks_now where state = 'RUNNING' and service = 'web' order by 1" >"$LAB/c"
	diff "$LAB/a" "$LAB/c"
}
wait_for 30 "the store to agree" same_in_store

mgr service rm web steady codes >/dev/null
for s in web steady codes; do wait_for 180 "nothing left of $s" all_containers_are w1 $s 0; done
[ -z "$(docker_on w1 ps -aq)" ] || fail "a container is left behind"
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
if grep -qE 'ERROR: (Address|Leak)Sanitizer|runtime error:|^==[0-9]+== .*(Invalid|uninitialised|definitely lost)' "$LAB/log/agent-w1.log"; then
	fail "memory errors, see the log"
fi
say "done"
