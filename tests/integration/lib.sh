# lib.sh - a private swarm on one machine: network namespaces as hosts, one dockerd in each, our
# agent beside it. Sourced by the integration tests, by contrib/quickstart and by the bench.
# Nothing of the machine's own engine, networks or iptables is touched: everything lives in a folder
# (LAB), in network namespaces named after it, and in one cgroup. Processes are ended by their ids.
#
#   lab_init NAME; lab_host mgr 10.213.0.1; lab_host w1 10.213.0.2
#   engine_start mgr; engine_start w1; swarm_init mgr; agent_start w1 ...
#   docker_on mgr node ls; wait_for 30 "node Ready" node_is w1 Ready
#
# shellcheck shell=bash

LAB_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB_IMAGE=lab:1
CGROUP=/sys/fs/cgroup

say() { printf '%s\n' "-- $*"; }
fail() {
	printf '%s\n' "FAIL: $*" >&2
	exit 1
}
skip() {
	printf '%s\n' "SKIPPED: $*"
	exit 77
}

# ---- what the machine must offer; says why not and returns 1
lab_possible() {
	local t
	[ "$(id -u)" = 0 ] || { echo "not root: engines and network namespaces need it"; return 1; }
	for t in dockerd docker ip nsenter busybox tar sqlite3; do
		command -v $t >/dev/null || { echo "$t is not installed"; return 1; }
	done
	[ -w $CGROUP ] || { echo "$CGROUP is not writable: no engine can run here"; return 1; }
	if ! ip netns add "lab-probe-$$" 2>/dev/null; then
		echo "no network namespaces here (bare container without CAP_SYS_ADMIN?)"
		return 1
	fi
	ip -n "lab-probe-$$" link add probe0 type veth peer name probe1 2>/dev/null || t=noveth
	ip netns del "lab-probe-$$"
	[ "$t" != noveth ] || { echo "no veth interfaces here: the kernel or the container forbids them"; return 1; }
	return 0
}

# The whole truth: boots an engine and a container. Prints why not.
lab_engine_possible() (
	LAB_LOG_LINES=0
	lab_init probe
	lab_host p 10.213.0.1
	engine_start p
	engine_import p
	docker_on p run --rm --network host $LAB_IMAGE true 2>"$LAB/why" || skip "no container starts here: $(tail -n 1 "$LAB/why")"
)

# ---- life of a lab
# The tag holds a checksum of the tree's path: two trees can be tested at the same time.
lab_init() {
	LAB_TAG=$1-$(printf '%s' "$LAB_TOP" | cksum | cut -d' ' -f1 | tail -c 5)
	LAB=${TMPDIR:-/tmp}/swarm-lab-$LAB_TAG
	local why
	why=$(lab_possible) || skip "$why"
	mkdir -p "$LAB.lock.d"
	exec 9>"$LAB.lock.d/lock"
	flock -w 5 9 || fail "another run uses $LAB"
	lab_sweep
	mkdir -p "$LAB/log"
	: >"$LAB/agent.conf" # and not what the machine has in /etc
	export DOCKER_CONFIG=$LAB/docker-config
	unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH DOCKER_API_VERSION
	ip netns add "$(lab_ns switch)"
	ip -n "$(lab_ns switch)" link add br0 type bridge
	ip -n "$(lab_ns switch)" link set br0 up
	trap lab_exit EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

lab_ns() { echo "lab-$LAB_TAG-$1"; }

# Pids whose command line names a file of this lab: dockerd, containerd, shims, agents.
lab_pids() {
	local p
	for p in /proc/[0-9]*; do
		[ "${p#/proc/}" != $$ ] || continue
		if tr '\0' '\n' 2>/dev/null <"$p/cmdline" | grep -qF -- "$LAB/"; then
			echo "${p#/proc/}"
		fi
	done
}

lab_cgroups() { find $CGROUP -maxdepth 2 -type d -name "lab-$LAB_TAG" 2>/dev/null; }

# Ends and removes all that carries this lab's name, from this run or a killed earlier one.
lab_sweep() {
	local pids cg m ns
	pids=$(lab_pids)
	# shellcheck disable=SC2086
	[ -z "$pids" ] || kill -9 $pids 2>/dev/null
	for cg in $(lab_cgroups); do
		pids=$(find "$cg" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
		# shellcheck disable=SC2086
		[ -z "$pids" ] || kill -9 $pids 2>/dev/null
		wait_quiet 10 cgroup_is_empty "$cg"
		find "$cg" -depth -type d -exec rmdir {} + 2>/dev/null
	done
	if [ -d "$LAB" ]; then
		wait_quiet 10 no_lab_pids
		# newest first: overlay mounts sit on top of others
		while read -r m; do umount -l "$m" 2>/dev/null; done < <(
			awk -v d="$LAB/" 'index($2, d) == 1 { print $2 }' /proc/mounts | tac)
		rm -rf "$LAB"
	fi
	for ns in $(ip netns list 2>/dev/null | awk '{print $1}' | grep "^lab-$LAB_TAG-"); do
		ip netns del "$ns"
	done
}

cgroup_is_empty() { [ -z "$(find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null)" ]; }
no_lab_pids() { [ -z "$(lab_pids)" ]; }

lab_exit() {
	local code=$? f
	trap - EXIT INT TERM
	if [ $code != 0 ] && [ $code != 77 ] && [ -d "$LAB/log" ]; then
		for f in "$LAB"/log/*.log; do
			[ -s "$f" ] || continue
			echo "==== ${f##*/} (last lines)"
			tail -n "${LAB_LOG_LINES:-60}" "$f"
		done
		if [ -n "${LAB_KEEP_LOGS:-}" ]; then
			rm -rf "$LAB_KEEP_LOGS/$LAB_TAG" && mkdir -p "$LAB_KEEP_LOGS" && cp -r "$LAB/log" "$LAB_KEEP_LOGS/$LAB_TAG"
		fi
	fi
	lab_sweep
	rm -rf "$LAB.lock.d"
	exit $code
}

# ---- waiting: wait_for SECONDS WHAT COMMAND...; the deadline is generous, the condition decides
wait_quiet() {
	local end=$((SECONDS + $1))
	shift
	while ! "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}
wait_for() {
	local seconds=$1 what=$2
	shift 2
	wait_quiet "$seconds" "$@" && return 0
	[ -z "${MGR:-}" ] || docker_on "$MGR" service ls 2>&1 | head -20
	[ -z "${MGR:-}" ] || docker_on "$MGR" node ls 2>&1 | head -20
	fail "waited $seconds s for: $what"
}

# ---- hosts
lab_host() {
	local h=$1 ip=$2 ns sw
	ns=$(lab_ns "$h")
	sw=$(lab_ns switch)
	mkdir -p "$LAB/$h"
	echo "$ip" >"$LAB/$h/ip"
	ip netns add "$ns"
	ip -n "$ns" link set lo up
	ip -n "$sw" link add "p-$h" type veth peer name eth0 netns "$ns"
	ip -n "$sw" link set "p-$h" master br0 up
	ip -n "$ns" addr add "$ip/24" dev eth0
	ip -n "$ns" link set eth0 up
}
host_ip() { cat "$LAB/$1/ip"; }
# nsenter and not "ip netns exec", which hides the cgroup mounts from dockerd
on_host() {
	local h=$1
	shift
	nsenter --net="/run/netns/$(lab_ns "$h")" "$@"
}
# The same in place of the (sub)shell, so that "$!" is the program's own id.
exec_on_host() {
	local h=$1
	shift
	exec nsenter --net="/run/netns/$(lab_ns "$h")" "$@"
}
host_cut() { ip -n "$(lab_ns switch)" link set "p-$1" down; }
host_uncut() { ip -n "$(lab_ns switch)" link set "p-$1" up; }
# One direction only: HOST hears nothing of FROM; or it loses every fourth packet. host_hears ends both.
host_filter() {
	local h=$1
	shift
	on_host "$h" iptables -w -N LAB 2>/dev/null && on_host "$h" iptables -w -I INPUT -j LAB
	on_host "$h" iptables -w -A LAB "$@"
}
host_deaf() { host_filter "$1" -s "$(host_ip "$2")" -j DROP; }
host_lossy() { host_filter "$1" -i eth0 -m statistic --mode random --probability 0.25 -j DROP; }
host_hears() { on_host "$1" iptables -w -F LAB 2>/dev/null || true; }

# ---- engines
engine_sock() { echo "$LAB/$1/docker.sock"; }
engine_launch() {
	local h=$1
	shift
	# shellcheck disable=SC2086
	exec_on_host "$h" ${ENGINE_WRAP:-} dockerd --data-root "$LAB/$h/data" --exec-root "$LAB/$h/exec" --pidfile "$LAB/$h/docker.pid" \
		-H "unix://$(engine_sock "$h")" --cgroup-parent "/lab-$LAB_TAG" \
		--exec-opt native.cgroupdriver=cgroupfs "$@" >>"$LAB/log/dockerd-$h.log" 2>&1 9>&- &
	echo $! >"$LAB/$h/dockerd.pid"
	disown
}
# ENGINE_WRAP may hold a command to run it under. Later starts repeat the options of the first one.
engine_start() {
	local h=$1
	shift
	[ $# = 0 ] && [ -f "$LAB/$h/dockerd.args" ] && set -- $(cat "$LAB/$h/dockerd.args")
	echo "$*" >"$LAB/$h/dockerd.args"
	engine_launch "$h" "$@"
	pick_docker_cli "$h"
	wait_quiet 60 docker_on "$h" version && return 0
	tail -n 15 "$LAB/log/dockerd-$h.log"
	skip "dockerd does not start here: $(tail -n 1 "$LAB/log/dockerd-$h.log")"
}
engine_pid() { cat "$LAB/$1/dockerd.pid"; }
end_pid() { # PID SIGNAL: and wait until it is gone
	kill "-$2" "$1" 2>/dev/null || return 0
	wait_quiet 60 pid_gone "$1" || fail "process $1 does not end"
}
pid_gone() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
engine_stop() { end_pid "$(engine_pid "$1")" TERM; }
# dockerd alone: its containerd dies with it, the shims and containers live on
engine_kill() {
	end_pid "$(engine_pid "$1")" KILL
	rm -f "$LAB/$1/docker.pid" "$LAB/$1/exec/containerd/containerd.pid"
}
# A newer command line client may come first in PATH and refuse an old engine; Debian's own stands in.
pick_docker_cli() {
	local c
	[ -z "${DOCKER:-}" ] || return 0
	for c in "$(command -v docker)" /usr/bin/docker; do
		if wait_quiet 60 test -S "$(engine_sock "$1")" && wait_quiet 20 "$c" -H "unix://$(engine_sock "$1")" version; then
			DOCKER=$c
			return 0
		fi
	done
	DOCKER=docker
}
docker_on() {
	local h=$1
	shift
	"$DOCKER" -H "unix://$LAB/$h/docker.sock" "$@"
}
# An image without a registry: busybox and what it is linked with.
lab_rootfs() {
	local r=$LAB/rootfs lib a
	[ -d "$r" ] && return 0
	mkdir -p "$r/bin" "$r/tmp" "$r/etc" "$r/www"
	cp "$(command -v busybox)" "$r/bin/busybox"
	for lib in $(ldd "$r/bin/busybox" 2>/dev/null | grep -o '/[^ ]*'); do
		mkdir -p "$r$(dirname "$lib")"
		cp -L "$lib" "$r$lib"
	done
	for a in sh sleep cat echo true false httpd nc id hostname ls ps env kill trap printf; do
		ln -sf busybox "$r/bin/$a"
	done
	echo 'root:x:0:0:root:/:/bin/sh' >"$r/etc/passwd"
	echo hello >"$r/www/index.html"
}
engine_import() {
	local h=$1 tag=${2:-$LAB_IMAGE}
	lab_rootfs
	tar -C "$LAB/rootfs" -c . | docker_on "$h" import - "$tag" >/dev/null
}

# ---- the swarm
swarm_init() {
	MGR=$1
	docker_on "$MGR" swarm init --advertise-addr "$(host_ip "$MGR")" >/dev/null
	# before anybody registers: a node keeps the period it was last told
	[ -z "${LAB_HEARTBEAT:-}" ] || docker_on "$MGR" swarm update --dispatcher-heartbeat "$LAB_HEARTBEAT" >/dev/null
	docker_on "$MGR" swarm join-token -q worker >"$LAB/worker-token"
	docker_on "$MGR" swarm join-token -q manager >"$LAB/manager-token"
	chmod 600 "$LAB/worker-token" "$LAB/manager-token"
	docker_on "$MGR" node update --availability drain "$(docker_on "$MGR" info -f '{{.Swarm.NodeID}}')" >/dev/null
}
mgr() { docker_on "$MGR" "$@"; }
node_is() { [ "$(mgr node ls --filter "name=$1" --format '{{.Status}}')" = "$2" ]; }
# Tasks of a service in a state: tasks_in SVC running
tasks_in() { mgr service ps --no-trunc --filter desired-state=running --format '{{.CurrentState}}' "$1" | grep -ci "^$2"; }
service_has() { [ "$(tasks_in "$1" running)" = "$2" ]; }
containers_on() { docker_on "$1" ps -q --filter "label=com.docker.swarm.service.name=$2" | wc -l; }
all_containers_on() { docker_on "$1" ps -aq --filter "label=com.docker.swarm.service.name=$2" | wc -l; }
containers_are() { [ "$(containers_on "$1" "$2")" = "$3" ]; }
all_containers_are() { [ "$(all_containers_on "$1" "$2")" = "$3" ]; }
# Running containers of a service are @3 and each belongs to another task.
no_doubles() {
	[ -z "$(docker_on "$1" ps -a --filter "label=com.docker.swarm.service.name=$2" \
		--format '{{.Label "com.docker.swarm.task.id"}}' | sort | uniq -d)" ]
}

# ---- the agent
AGENTD=${SWARM_AGENTD:-$LAB_TOP/build/release/src/cli/swarm-agentd}
# agent_start HOST [OPTION...]: joins with the worker token unless options say otherwise. AGENT_WRAP
# may hold a command to run it under (valgrind).
agent_start() {
	local h=$1
	shift
	if [ $# -gt 0 ] || [ ! -f "$LAB/$h/agent.args" ]; then
		printf '%s\n' "$@" >"$LAB/$h/agent.args"
	fi
	local -a args
	mapfile -t args <"$LAB/$h/agent.args"
	[ -n "${args[0]}" ] || args=()
	[[ " ${args[*]} " == *" --join-addr "* ]] || args+=(--join-addr "$(host_ip "$MGR"):2377")
	[[ " ${args[*]} " == *" --join-token"* ]] || args+=(--join-token-file "$LAB/worker-token")
	# shellcheck disable=SC2086
	exec_on_host "$h" ${AGENT_WRAP:-} "$AGENTD" --config "$LAB/agent.conf" --state-dir "$LAB/$h/state" --run-dir "${AGENT_RUN_DIR:-$LAB/$h/run}" \
		--engine "unix://$(engine_sock "$h")" \
		--hostname "$h" --pull-policy missing --log-level "${AGENT_LOG_LEVEL:-debug}" "${args[@]}" \
		>>"$LAB/log/agent-$h.log" 2>&1 9>&- &
	AGENT_PID=$!
	echo $AGENT_PID >"$LAB/$h/agent.pid"
}
agent_pid() { cat "$LAB/$1/agent.pid"; }
agent_kill() {
	kill -9 "$(agent_pid "$1")"
	wait "$(agent_pid "$1")" 2>/dev/null
}
# Ends it gracefully; its exit code is AGENT_CODE.
agent_stop() {
	kill -TERM "$(agent_pid "$1")" 2>/dev/null
	agent_wait "$1" 60
}
# Waits for its own end.
agent_wait() {
	local p
	p=$(agent_pid "$1")
	wait_quiet "${2:-60}" pid_gone "$p" || fail "the agent on $1 does not end"
	wait "$p"
	AGENT_CODE=$?
}
agent_logged() { grep -qE -- "$2" "$LAB/log/agent-$1.log"; }
agent_sql() { sqlite3 -readonly "$LAB/$1/state/agent.db" "$2"; }
# CPU time used so far, in clock ticks (1/100 s): utime + stime
agent_ticks() { sed 's/.*) //' "/proc/$(agent_pid "$1")/stat" | awk '{ print $12 + $13 }'; }

# Two hosts, two engines, a manager, a joined worker "w1" (options for the agent may follow).
lab_swarm() {
	lab_init "$1"
	shift
	lab_host mgr 10.213.0.1
	lab_host w1 10.213.0.2
	engine_launch mgr
	engine_start w1 ${W1_ENGINE_ARGS:-}
	wait_quiet 60 docker_on mgr version || skip "dockerd does not start here"
	engine_import w1
	swarm_init mgr
	agent_start w1 "$@"
	wait_for 60 "w1 Ready" node_is w1 Ready
}
