#!/bin/bash
# Secrets and configs of real services: files with the right mode and owner, in memory only, gone with
# the task, whatever dies.
. "$(dirname "$0")/lib.sh"
lab_init secrets
lab_host mgr 10.213.0.1
lab_host w1 10.213.0.2
engine_start mgr
engine_start w1
engine_import w1
swarm_init mgr
agent_start w1
wait_for 60 "w1 Ready" node_is w1 Ready

PAYLOAD=hidden-$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
RUN=$LAB/w1/run
on_w1=(--detach --no-resolve-image --constraint node.hostname==w1 --network host --stop-grace-period 1s)
container_of() { docker_on w1 ps -q --filter "label=com.docker.swarm.service.name=$1" | head -1; }
inside() { docker_on w1 exec "$c" "$@"; }
is() { # WHAT GOT WANT
	[ "$2" = "$3" ] || fail "$1: \"$2\", want \"$3\""
}
some_files() { [ -n "$(files_left)" ]; }
files_left() { find "$RUN/tasks" -mindepth 1 2>/dev/null; }
nothing_left() { [ -z "$(files_left)" ]; }
nowhere() { # the payload is nowhere but in the run directory
	grep -rqaF "$PAYLOAD" "$RUN" || [ -n "$1" ] || fail "the payload is not even where it should be"
	! grep -rlaF "$PAYLOAD" "$LAB/w1/data" "$LAB/w1/state" "$LAB/w1/exec/containerd" "$LAB/log" ||
		fail "the payload is on a disk"
	! docker_on w1 inspect $(docker_on w1 ps -aq) 2>/dev/null | grep -qF "$PAYLOAD" || fail "inspect shows the payload"
}

printf '%s-one' "$PAYLOAD" | mgr secret create one - >/dev/null
printf '%s-two' "$PAYLOAD" | mgr secret create two - >/dev/null
printf '%s-conf' "$PAYLOAD" | mgr config create conf - >/dev/null

say "modes, owners, places"
mgr service create --name sec "${on_w1[@]}" \
	--secret source=one,target=mys,mode=0400,uid=5,gid=6 --secret source=two,target=sub/s2 \
	--secret source=one,target=/abs/x,mode=0444 \
	--config source=conf,target=c2,mode=0440,gid=7 --config source=conf,target=/etc/app/app.conf \
	$LAB_IMAGE sleep 100000 >/dev/null || fail "service create"
wait_for 90 "1/1 sec" service_has sec 1
c=$(container_of sec)
is /run/secrets/mys "$(inside busybox stat -c '%a %u:%g' /run/secrets/mys) $(inside cat /run/secrets/mys)" "400 5:6 $PAYLOAD-one"
is sub/s2 "$(inside busybox stat -c '%a %u:%g' /run/secrets/sub/s2) $(inside cat /run/secrets/sub/s2)" "444 0:0 $PAYLOAD-two"
is /abs/x "$(inside busybox stat -c '%a %u:%g' /abs/x) $(inside cat /abs/x)" "444 0:0 $PAYLOAD-one"
is /c2 "$(inside busybox stat -c '%a %u:%g' /c2) $(inside cat /c2)" "440 0:7 $PAYLOAD-conf"
is app.conf "$(inside cat /etc/app/app.conf)" "$PAYLOAD-conf"
inside sh -c 'echo x >/run/secrets/mys' 2>/dev/null && fail "a secret can be written to"
inside sh -c 'echo x >/c2' 2>/dev/null && fail "a config can be written to"
is "the folder" "$(stat -c '%a %u' "$RUN/tasks/"*)" "700 0"
is "the file system" "$(stat -f -c %T "$RUN/tasks")" tmpfs
nowhere

say "a read-only root with a tmpfs on /run"
mgr service create --name ro "${on_w1[@]}" --read-only --mount type=tmpfs,target=/run --secret one $LAB_IMAGE sleep 100000 >/dev/null
wait_for 90 "1/1 ro" service_has ro 1
c=$(container_of ro)
is "the secret" "$(inside cat /run/secrets/one)" "$PAYLOAD-one"

say "templates in env, hostname, mounts, configs and secrets"
printf 'host={{.Node.Hostname}} slot={{.Task.Slot}} env={{env "WHO"}} secret={{secret "one"}} {{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}' |
	mgr config create --template-driver golang tconf - >/dev/null || fail "config create"
printf '%s {{.Service.Name}}' "$PAYLOAD" | mgr secret create --template-driver golang tsecret - >/dev/null || fail "secret create"
mgr service create --name tmpl "${on_w1[@]}" --replicas 2 --secret one --secret tsecret --config source=tconf,target=/t.conf \
	--hostname '{{.Service.Name}}-{{.Task.Slot}}' --env 'WHO={{.Task.Name}}@{{.Node.Hostname}}' --label b=2 --label a=1 \
	--mount 'type=volume,source=vol-{{.Task.Slot}},target=/v' $LAB_IMAGE sleep 100000 >/dev/null || fail "service create"
wait_for 90 "2/2 tmpl" service_has tmpl 2
for slot in 1 2; do
	c=$(docker_on w1 ps -q --filter name="^tmpl\\.$slot\\.")
	name=$(docker_on w1 inspect -f '{{slice .Name 1}}' "$c")
	is hostname "$(docker_on w1 inspect -f '{{.Config.Hostname}}' "$c")" "tmpl-$slot"
	is env "$(inside sh -c 'echo "$WHO"')" "$name@w1"
	is volume "$(docker_on w1 inspect -f '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}}{{end}}{{end}}' "$c")" "vol-$slot"
	is config "$(inside cat /t.conf)" "host=w1 slot=$slot env=$name@w1 secret=$PAYLOAD-one a=1;b=2;"
	is secret "$(inside cat /run/secrets/tsecret)" "$PAYLOAD tmpl"
done
nowhere
mgr service rm tmpl >/dev/null
wait_for 60 "no container" all_containers_are w1 tmpl 0

say "refused by name"
bad() { # NAME TARGET
	mgr service create --name "$1" "${on_w1[@]}" --restart-condition none --secret "source=one,target=$2" \
		--mount type=tmpfs,target=/taken $LAB_IMAGE sleep 1 >/dev/null || fail "service create $1"
}
says() { mgr service ps --no-trunc --format '{{.CurrentState}}|{{.Error}}' "$1" | grep -qE -- "^Rejected.*$2"; }
bad escape ../../etc/passwd
bad taken /taken
wait_for 60 "the refusal of a way out" says escape 'target "../../etc/passwd" is not possible'
wait_for 60 "the refusal of a second thing there" says taken 'target "/taken" is taken by a mount'
mgr service rm escape taken >/dev/null

say "kill -9: the container goes on, so do its files; a stray folder is swept"
agent_kill w1
mkdir -p "$RUN/tasks/0stray000000000000000000a"
echo "$PAYLOAD" >"$RUN/tasks/0stray000000000000000000a/0"
before=$(container_of sec)
agent_start w1
gone() { [ ! -e "$RUN/tasks/0stray000000000000000000a" ]; }
wait_for 60 "the stray folder gone" gone
wait_for 60 "w1 Ready" node_is w1 Ready
c=$(container_of sec)
is "the container" "$c" "$before"
is "the secret" "$(inside cat /run/secrets/mys)" "$PAYLOAD-one"
is "folders" "$(ls "$RUN/tasks" | wc -l)" 2
nowhere

say "removed: nothing is left; also when the agent was away meanwhile"
mgr service rm ro >/dev/null
one_left() { [ "$(ls "$RUN/tasks" | wc -l)" = 1 ]; }
wait_for 60 "the folder of ro gone" one_left
agent_kill w1
mgr service rm sec >/dev/null
agent_start w1
wait_for 90 "nothing in the run directory" nothing_left
wait_for 60 "no container" all_containers_are w1 sec 0

say "kill -9 in the middle of many starts"
for i in 1 2 3; do
	mgr service create --name many$i "${on_w1[@]}" --replicas 6 --secret one --config conf $LAB_IMAGE sleep 100000 >/dev/null
	wait_quiet 30 some_files
	sleep "0.$((i * 2))"
	agent_kill w1
	agent_start w1
	wait_for 120 "6/6 many$i" service_has many$i 6
	no_doubles w1 many$i || fail "two containers of one task"
	is "folders" "$(ls "$RUN/tasks" | wc -l)" 6
	nowhere
	mgr service rm many$i >/dev/null
	wait_for 90 "nothing in the run directory" nothing_left
	wait_for 90 "no container" all_containers_are w1 many$i 0
done
nowhere done

if [ "$(stat -f -c %T "$LAB")" != tmpfs ] && command -v setpriv >/dev/null; then
	say "no tmpfs and no right to mount one: such tasks are refused, others run"
	agent_stop w1
	AGENT_RUN_DIR=$LAB/w1/disk AGENT_WRAP="setpriv --bounding-set -sys_admin" agent_start w1
	wait_for 60 "w1 Ready" node_is w1 Ready
	wait_for 30 "the warning" agent_logged w1 'secrets and configs cannot be handed out.*--run-dir'
	mgr service create --name nomem "${on_w1[@]}" --restart-condition none --secret one $LAB_IMAGE sleep 1 >/dev/null
	mgr service create --name plain "${on_w1[@]}" $LAB_IMAGE sleep 100000 >/dev/null
	wait_for 60 "the refusal" says nomem 'is not on a tmpfs.*--run-dir'
	wait_for 60 "1/1 plain" service_has plain 1
	[ -z "$(find "$LAB/w1/disk" -type f)" ] || fail "something was written to the disk"
	mgr service rm nomem plain >/dev/null
	wait_for 60 "no container" all_containers_are w1 plain 0
	wait_for 60 "no container" all_containers_are w1 nomem 0
fi
nowhere done
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
