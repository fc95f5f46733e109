#!/bin/bash
# "docker service logs" of a real manager for a node of ours: every option, both streams, terminals,
# long lines, 100 MB through bounded memory, readers that leave or stall, an engine that restarts.
# The truth is "docker logs" on the worker's engine; w2, a worker of dockerd's own, shows what people
# are used to.
. "$(dirname "$0")/lib.sh"
W1_ENGINE_ARGS=--live-restore
lab_swarm logs
lab_host w2 10.213.0.3
engine_start w2
engine_import w2

create() { # NAME [OPTION...] -- COMMAND: a task of one life on w1 (or on ON)
	local name=$1 opts=()
	shift
	while [ "$1" != -- ]; do opts+=("$1") && shift; done
	shift
	mgr service create --name "$name" --detach --no-resolve-image --network host --restart-condition none \
		--constraint "node.hostname==${ON:-w1}" "${opts[@]}" $LAB_IMAGE sh -c "$*" >/dev/null || fail "service create $name"
}
ended() { mgr service ps --format '{{.CurrentState}}' "$1" | grep -qiE '^(complete|failed)'; }
container() { docker_on "${2:-w1}" ps -aq --filter "label=com.docker.swarm.service.name=$1"; }
shows() { timeout 120 "$DOCKER" -H "unix://$(engine_sock mgr)" service logs --raw "$@"; }
# reader FILE OPTION...: a following reader in the background; its id is READER
reader() {
	local f=$1
	shift
	"$DOCKER" -H "unix://$(engine_sock mgr)" service logs --raw "$@" >"$LAB/$f" 2>"$LAB/$f.err" 9>&- &
	READER=$!
	disown
}
lines_are() { [ "$(wc -l <"$LAB/$1")" = "$2" ]; }
lines_reach() { [ "$(wc -l <"$LAB/$1")" -ge "$2" ]; }
agent_lines() { grep -c -- "$1" "$LAB/log/agent-w1.log"; }
same() { cmp "$LAB/$1" "$LAB/$2" || fail "$3: $(head -c 300 "$LAB/$1") ... instead of $(head -c 300 "$LAB/$2")"; }
# all_the_same SERVICE OPTION...: manager and engine show the same bytes, per stream
all_the_same() {
	local s=$1
	shift
	shows "$@" "$s" >"$LAB/m.out" 2>"$LAB/m.err" || fail "service logs $* $s"
	docker_on w1 logs "$@" "$(container "$s")" >"$LAB/e.out" 2>"$LAB/e.err"
	same m.out e.out "stdout of $s $*"
	same m.err e.err "stderr of $s $*"
}

say "both streams, every option, like the engine itself"
create mix --log-driver json-file --log-opt labels=shelf --log-opt env=COLOUR --container-label shelf=top --env "COLOUR=dark red" -- \
	'for i in 1 2 3 4 5 6 7 8; do echo out $i; echo err $i >&2; done; echo; printf tail; sleep 100000'
wait_for 120 "1/1 mix" service_has mix 1
wait_for 60 "all of mix" eval '[ "$(docker_on w1 logs "$(container mix)" 2>&1 | tail -c 4)" = tail ] || docker_on w1 logs "$(container mix)" 2>&1 | grep -q "out 8"'
all_the_same mix
[ "$(wc -l <"$LAB/m.err")" = 8 ] || fail "not 8 lines on stderr"
all_the_same mix --timestamps
third=$(sed -n '3s/ .*//p' "$LAB/m.out")
for n in 0 1 5 100; do
	# the engine counts both streams together: compare what is left
	all_the_same mix --tail $n
done
all_the_same mix --timestamps --since "$third"
grep -q "out 3" "$LAB/m.out" || fail "--since does not show the line of that very time"
! grep -q "out 2" "$LAB/m.out" || fail "--since shows an earlier line"
shows --details mix 2>/dev/null | head -1 | grep -qE '^COLOUR=dark\+red,com.docker.swarm.node.id=.*,shelf=top out 1$' ||
	fail "details: $(shows --details mix 2>/dev/null | head -1)"
task=$(mgr service ps -q --no-trunc mix)
mgr service logs --no-trunc mix 2>/dev/null | grep -qF "mix.1.$task@w1 " || fail "no task id with --no-trunc"
[ "$(shows "$task" 2>/dev/null | wc -l)" -ge 9 ] || fail "logs of a task by its id"

say "terminals, long lines, a last line without its end"
create tty --tty -- 'echo one; echo two >&2; busybox head -c 40000 /dev/zero | busybox tr "\0" x; echo; echo end'
create long -- 'busybox head -c 32768 /dev/zero | busybox tr "\0" a; echo; busybox head -c 1048576 /dev/zero | busybox tr "\0" b; echo;
	busybox head -c 16384 /dev/zero | busybox tr "\0" c; echo; printf tail'
create silent -- 'exit 0'
create none --log-driver none -- 'echo lost'
for s in tty long silent none; do wait_for 120 "the end of $s" ended $s; done
all_the_same long
[ "$(wc -c <"$LAB/m.out")" = $((32769 + 1048577 + 16385 + 4)) ] || fail "long lines lost bytes"
shows tty >"$LAB/m.out" || fail "logs of a terminal"
docker_on w1 logs "$(container tty)" >"$LAB/e.out"
same m.out e.out "a terminal's lines"
[ -z "$(shows silent 2>&1)" ] || fail "a task without output shows something"
[ -z "$(shows none 2>/dev/null)" ] || fail "driver none shows something"
mgr service create --name elsewhere --detach --no-resolve-image --constraint node.hostname==nowhere $LAB_IMAGE true >/dev/null
[ -z "$(shows elsewhere)" ] || fail "a service without tasks shows something"
wait_for 30 "the refusal of driver none in our log" agent_logged w1 'does not support reading'

say "follow: from before the start, past the end, only what is new"
mgr service create --name later --detach --no-resolve-image --network host --restart-condition none --replicas 0 \
	--constraint node.hostname==w1 $LAB_IMAGE sh -c 'echo first; sleep 1; echo second >&2; sleep 1; echo third' >/dev/null
reader later.out --follow later
later=$READER
mgr service scale --detach later=1 >/dev/null
wait_for 120 "the end of later" ended later
wait_for 60 "both lines of later" lines_are later.out 2
wait_for 60 "the line of later on stderr" lines_are later.out.err 1
mgr service scale --detach later=2 >/dev/null
wait_for 120 "both lines of another task" lines_are later.out 4
end_pid $later INT
create tick -- 'i=0; while :; do i=$((i+1)); echo $i; busybox usleep 20000; done'
wait_for 120 "1/1 tick" service_has tick 1
reader new.out --follow --tail 0 tick
new=$READER
wait_for 60 "new lines of tick" lines_reach new.out 20
end_pid $new INT
[ "$(head -1 "$LAB/new.out")" -gt 1 ] || fail "--tail 0 shows old lines"
awk 'NR > 1 && $1 != last + 1 { exit 1 } { last = $1 }' "$LAB/new.out" || fail "--tail 0 --follow has gaps"

say "the engine restarts while readers follow"
reader tick.out --follow --timestamps tick
tick=$READER
reader tick5.out --follow --tail 5 tick
tick5=$READER
wait_for 60 "lines of tick" lines_reach tick.out 20
for how in stop kill; do
	engine_$how w1
	n=$(wc -l <"$LAB/tick.out")
	engine_start w1
	wait_for 120 "more lines of tick after the engine's $how" lines_reach tick.out $((n + 50))
done
docker_on w1 kill "$(container tick)" >/dev/null
wait_for 60 "the end of tick" ended tick
docker_on w1 logs --timestamps "$(container tick)" >"$LAB/e.out"
wait_for 60 "all lines of tick" lines_are tick.out "$(wc -l <"$LAB/e.out")"
same tick.out e.out "lines across restarts"
end_pid $tick INT
end_pid $tick5 INT
tail -n "$(wc -l <"$LAB/tick5.out")" "$LAB/e.out" | cut -d' ' -f2 >"$LAB/e5.out"
same tick5.out e5.out "lines across restarts with --tail 5"

say "100 MB: one reader to the end, one leaves, one stalls"
create flood -- 'busybox awk "BEGIN { for (i = 1; i <= 100000; i++) printf \"%07d %0991d\\n\", i, 0 }"; sleep 100000'
wait_for 120 "1/1 flood" service_has flood 1
hwm() { awk '/VmHWM/ { print $2 }' "/proc/$(agent_pid w1)/status"; }
echo 5 >"/proc/$(agent_pid w1)/clear_refs" # the high water mark starts anew
rest=$(hwm)
reader whole.out --follow flood
whole=$READER
reader left.out --follow flood
left=$READER
reader stalled.out --follow flood
stalled=$READER
wait_for 60 "first lines" lines_reach stalled.out 1
kill -STOP $stalled
wait_for 120 "some lines" lines_reach left.out 2000
end_pid $left KILL
t=$(date +%s%N)
wait_for 300 "100000 lines" lines_are whole.out 100000
say "the agent's high water mark: $(hwm) KiB, at rest $rest KiB; $((($(date +%s%N) - t) / 1000000)) ms"
[ "$(hwm)" -lt $((rest + 24576)) ] || fail "100 MB of output cost $(($(hwm) - rest)) KiB of memory"
kill -CONT $stalled
wait_for 300 "100000 lines for the one that stalled" lines_are stalled.out 100000
for f in whole stalled; do
	awk '$1 + 0 != NR || length != 999 { exit 1 }' "$LAB/$f.out" || fail "$f: lines are lost, doubled or broken"
done
end_pid $whole INT
end_pid $stalled INT
all_over() { [ "$(agent_lines 'log subscription opened')" = "$(agent_lines 'log subscription over')" ]; }
wait_for 60 "the end of every subscription" all_over

say "after the agent's restart the history is there"
agent_kill w1
agent_start w1
wait_for 60 "w1 Ready" node_is w1 Ready
wait_for 30 "a first answer of the new agent" shows mix
all_the_same mix --timestamps

say "what a worker of dockerd shows for the same services"
docker_on w2 swarm join --token "$(cat "$LAB/worker-token")" 10.213.0.1:2377 >/dev/null
wait_for 60 "w2 Ready" eval '[ "$(mgr node ls --format "{{.Status}}" | grep -c Ready)" = 3 ]'
# in an order that two pipes keep
both='for i in 1 2 3; do echo out $i; busybox usleep 100000; echo err $i >&2; busybox usleep 100000; done; busybox head -c 40000 /dev/zero | busybox tr "\0" x; echo; printf tail'
w2=$(docker_on w2 info -f '{{.Name}}')
w2id=$(docker_on w2 info -f '{{.Swarm.NodeID}}')
mgr node update --label-add peer=yes "$w2id" >/dev/null
create ours --log-driver json-file --log-opt env=COLOUR --env "COLOUR=dark red" -- "$both"
mgr service create --name theirs --detach --no-resolve-image --network host --restart-condition none \
	--constraint node.labels.peer==yes --log-driver json-file --log-opt env=COLOUR --env "COLOUR=dark red" $LAB_IMAGE sh -c "$both" >/dev/null
for s in ours theirs; do wait_for 120 "the end of $s" ended $s; done
for o in "" "--details" "--tail 3" "--tail 1"; do
	# shellcheck disable=SC2086
	for s in ours theirs; do
		shows $o $s 2>"$LAB/$s.err" >"$LAB/$s.out"
		sed -i -E 's/com\.docker\.swarm\.[a-z.]*=[^, ]*,?//g' "$LAB/$s.out" "$LAB/$s.err"
	done
	same ours.out theirs.out "stdout with $o"
	same ours.err theirs.err "stderr with $o"
done
agent_stop w1
[ "$AGENT_CODE" = 0 ] || fail "the agent ended with $AGENT_CODE"
say "done"
