#!/bin/bash
# What the operator decides, on a real engine under a real manager: labels, ingress ports, generic
# resources, orphans; and the causes of failures in "docker service ps".
. "$(dirname "$0")/lib.sh"
COMMON=(--ingress host-port --orphan-grace 2)
# a device that no container has by itself
for DEV in /dev/fuse /dev/loop-control ''; do [ ! -c "$DEV" ] || break; done
[ -n "$DEV" ] || skip "neither /dev/fuse nor /dev/loop-control is here"
lab_swarm policy "${COMMON[@]}" --allow-devices "$DEV:r" --allow-shm-size 32m --allow-ipc shareable \
	--allow-security-opt 'systempaths=*' --generic-resources gpu=A,gpu=B,ssd=5

make() { # NAME OPTION...
	local name=$1
	shift
	mgr service create --name "$name" --detach --no-resolve-image --constraint node.hostname==w1 \
		--restart-condition none --stop-grace-period 1s "$@" >/dev/null || fail "service create $name"
}
states_of() { mgr service ps --no-trunc --format '{{.CurrentState}}|{{.Error}}' "$1"; }
shows() { states_of "$1" | grep -qE -- "$2"; }
expect() { # NAME REGEX
	wait_quiet 60 shows "$1" "$2" || fail "$1 does not show $2 but: $(states_of "$1")"
	say "$1: $(states_of "$1" | grep -E -- "$2" | head -1)"
}
container() { docker_on w1 ps -q --no-trunc --filter "label=com.docker.swarm.service.name=$1"; }
inspect() { docker_on w1 inspect -f "$2" "$(container "$1")"; }
L=io.swarm-agentd

make gadget --container-label "$L.devices=$DEV:/dev/thing:r" --container-label $L.shm-size=16m \
	--container-label $L.ipc=shareable --container-label $L.security-opt=systempaths=unconfined $LAB_IMAGE sleep 600
make root --container-label $L.privileged=true $LAB_IMAGE sleep 600
make big --container-label $L.shm-size=1g $LAB_IMAGE sleep 600
make write --container-label "$L.devices=$DEV" $LAB_IMAGE sleep 600
make odd --container-label $L.colour=blue $LAB_IMAGE sleep 600
# Managers (seen up to 20.10, swarmkit manager/orchestrator/constraintenforcer) reject such tasks whenever
# the node's object changes, as when it gets its address in the ingress network: try again.
make gpus --replicas 2 --generic-resource gpu=1 --restart-condition any --restart-delay 200ms $LAB_IMAGE sleep 600
make web -p 18080:80 $LAB_IMAGE httpd -f -p 80 -h /www
make oom --limit-memory 20m $LAB_IMAGE busybox dd if=/dev/zero of=/dev/null bs=300M count=1
make segv $LAB_IMAGE sh -c 'sh -c "kill -SEGV \$\$"; exit $?'
mgr network create -d overlay backend >/dev/null
make overlay --network backend $LAB_IMAGE sleep 600

say "the node's description"
d=$(mgr node inspect w1 --format '{{json .Description}}')
grep -qF '"Kind":"gpu","Value":"A"' <<<"$d" && grep -qF '"Kind":"gpu","Value":"B"' <<<"$d" &&
	grep -qF '"Kind":"ssd","Value":5' <<<"$d" || fail "generic resources: $d"
grep -qF '{"Type":"Network","Name":"overlay"}' <<<"$d" || fail "no overlay: $d"

say "labels"
expect gadget '^Running.*\|$'
docker_on w1 exec "$(container gadget)" sh -c 'exec 3</dev/thing' || fail "the device cannot be read"
docker_on w1 exec "$(container gadget)" sh -c 'exec 3>/dev/thing' 2>/dev/null && fail "the device can be written to"
[ "$(docker_on w1 exec "$(container gadget)" busybox df -k /dev/shm | awk 'END { print $2 }')" = 16384 ] || fail "shm size"
[ "$(inspect gadget '{{.HostConfig.IpcMode}} {{json .HostConfig.MaskedPaths}}')" = "shareable []" ] || fail "ipc, paths"
[ "$(inspect gadget "{{index .Config.Labels \"$L.shm-size\"}}")" = 16m ] || fail "the label is gone"
expect root "^Rejected.*\|.*label .$L.privileged=true.*allow-privileged = yes"
expect big "^Rejected.*\|.*label .$L.shm-size=1g.*more than 33554432 bytes.*allow-shm-size = 1g"
expect write "^Rejected.*\|.*device $DEV with rwm.*allow-devices = $DEV"
expect odd "^Rejected.*\|.*label .$L.colour"

say "generic resources"
wait_quiet 60 service_has gpus 2 || fail "not two tasks with a GPU each: $(mgr service ps --no-trunc gpus)"
got=$(for c in $(container gpus); do docker_on w1 exec "$c" sh -c 'echo "$DOCKER_RESOURCE_GPU"'; done | sort | tr '\n' ' ')
[ "$got" = "A B " ] || fail "GPUs: $got"
mgr service rm gpus >/dev/null
wait_for 60 "no gpus" all_containers_are w1 gpus 0

say "an ingress port is this node's"
expect web '^Running.*\|$'
answers() {
	on_host mgr timeout 10 bash -c 'exec 3<>/dev/tcp/10.213.0.2/18080 || exit 1
		printf "GET /index.html HTTP/1.0\r\n\r\n" >&3
		cat <&3' 2>/dev/null | grep -qx hello
}
wait_for 20 "an answer on port 18080" answers
task=$(mgr service ps -q --no-trunc web | head -1)
p=$(mgr inspect --type task -f '{{json .Status.PortStatus.Ports}}' "$task")
[ "$p" = '[{"Protocol":"tcp","TargetPort":80,"PublishedPort":18080,"PublishMode":"host"}]' ] || fail "port status: $p"
mgr service scale -d web=2 >/dev/null
expect web "^Failed.*\|.*starting container failed: port 18080/tcp is already in use on this node by task $task of service web"
answers || fail "the first replica does not answer any more"
expect overlay '^Rejected.*\|.*network "backend" \(driver overlay\) cannot be provided on this node'

say "causes"
expect oom '^Failed.*\|.*task: non-zero exit \(137\): OOM killed'
expect segv '^Failed.*\|.*task: non-zero exit \(139\): killed by signal 11 SIGSEGV'

say "orphans are removed after a restart, foreign containers are not"
node=$(mgr node inspect w1 --format '{{.ID}}')
cluster=$(inspect gadget "{{index .Config.Labels \"$L.cluster\"}}")
agent_stop w1
orphan() { # NAME LABEL...
	local name=$1 l
	local -a args=()
	shift
	for l in "$@"; do args+=(--label "$l"); done
	docker_on w1 run -d --name "$name" --stop-timeout 1 "${args[@]}" $LAB_IMAGE sleep 600 >/dev/null || fail "run $name"
}
orphan lost.1.x "com.docker.swarm.node.id=$node" com.docker.swarm.task.id=nosuchtask "$L.cluster=$cluster"
orphan other-cluster "com.docker.swarm.node.id=$node" com.docker.swarm.task.id=nosuchtask2 "$L.cluster=another"
orphan engines-own "com.docker.swarm.node.id=$node" com.docker.swarm.task.id=nosuchtask3
orphan other-node com.docker.swarm.node.id=another com.docker.swarm.task.id=nosuchtask4 "$L.cluster=$cluster"
orphan plain
before=$(docker_on w1 ps -q --no-trunc --filter label=com.docker.swarm.service.id | sort)

# and a stricter operator: what runs goes on
agent_start w1 "${COMMON[@]}"
wait_for 60 "w1 Ready" node_is w1 Ready
no_orphan() { [ -z "$(docker_on w1 ps -aq --filter name=lost.1.x)" ]; }
wait_for 60 "the orphan's end" no_orphan
for c in other-cluster engines-own other-node plain; do
	[ "$(docker_on w1 inspect -f '{{.State.Running}}' $c)" = true ] || fail "$c was touched"
done
[ "$(docker_on w1 ps -q --no-trunc --filter label=com.docker.swarm.service.id | sort)" = "$before" ] || fail "tasks' containers changed"
expect gadget '^Running.*\|$'
make gadget2 --container-label $L.shm-size=16m $LAB_IMAGE sleep 600
expect gadget2 '^Rejected.*\|.*allow-shm-size = 16m'
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
