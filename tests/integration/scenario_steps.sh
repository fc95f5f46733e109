# scenario_steps.sh - the verbs of a plan and how the four truths are collected; see scenarios.sh.
# shellcheck shell=bash

STEP_LIMIT=120   # s, for one command to come through
SETTLE_QUIET=90  # s, without any change: what is wrong then stays wrong
SETTLE_LIMIT=600 # s, of endless change
SETTLE_NUDGE=30  # s, see nudge()

declare -A W_KIND W_REPLICAS W_VERSION W_IMAGE W_CODE
VIOLENT=0 NUDGES=0 AGENT_LOG_AT=0

# A disagreement or something worse: everything that is known about it, and out.
disagree() {
	printf '%s\n' "" "DISAGREEMENT: $*" "scenario: ${SCENARIO:-?}; again with: $REPLAY" "plan:"
	sed 's/^/    /' "$LAB/plan" 2>/dev/null
	views
	exit 1
}

views() {
	local f
	[ -s "$LAB/truth/wrong" ] || compare
	echo "==== wanted: name|kind|replicas|version|image|code|violent"
	cat "$LAB/truth/wanted.txt"
	echo "==== manager: nodes, services, tasks"
	timeout 20 "$DOCKER" -H "unix://$(engine_sock mgr)" node ls 2>&1
	truth_sql "SELECT * FROM sv; SELECT '';
		SELECT svc, slot, id, state, desired, code, substr(cid, 1, 12) AS container, message, err FROM m ORDER BY 1, 2, 3"
	echo "==== store"
	truth_sql "SELECT svc, id, phase, state, desired, acked, code, substr(cid, 1, 12) AS container, message, err
		FROM s ORDER BY 1, 2"
	echo "==== engine"
	truth_sql "SELECT name, substr(cid, 1, 12) AS container, status, code, image, cmd FROM e ORDER BY 1"
	echo "==== the tasks in question: store's history and the agent's log"
	for f in $(cut -d'|' -f2 "$LAB/truth/wrong" | tr -d ' ' | grep -E '^[a-z0-9]{25}$' | sort -u | head -3); do
		agent_sql w1 "SELECT at, state, desired, message, err, exit_code, container, cause FROM task_history
			WHERE task_id = '$f'" 2>&1 | tail -20
		grep -F "$f" "$LAB/log/agent-w1.log" | tail -40
	done
}

# ---- the four truths
truth_sql() { # SQL after everything is loaded
	(
		cd "$LAB/truth" || exit 1
		{
			echo ".bail on"
			echo "ATTACH 'file:$LAB/w1/state/agent.db?mode=ro' AS a;"
			[ -z "${1:-}" ] && cat "$LAB_TOP/tests/integration/truths.sql"
			[ -z "${1:-}" ] || sed '/^\.mode list/,$d' "$LAB_TOP/tests/integration/truths.sql"
			[ -z "${1:-}" ] || printf '.mode box\n%s;\n' "$1"
		} | sqlite3 :memory: 2>&1
	)
}
api_get() { curl -sf -m 20 --unix-socket "$(engine_sock "$1")" "http://engine/v1.41$2"; }
collect() {
	local t=$LAB/truth ids s
	for s in "${!W_KIND[@]}"; do
		echo "$s|${W_KIND[$s]}|${W_REPLICAS[$s]}|${W_VERSION[$s]}|${W_IMAGE[$s]}|${W_CODE[$s]}|$VIOLENT"
	done | sort >"$t/wanted.txt"
	api_get mgr /services >"$t/services.json" || { echo "the manager does not answer"; return 1; }
	api_get mgr /nodes >"$t/nodes.json" || { echo "the manager does not answer"; return 1; }
	api_get mgr /tasks >"$t/tasks.json" || { echo "the manager does not answer"; return 1; }
	ids=$(timeout 30 "$DOCKER" -H "unix://$(engine_sock w1)" ps -aq --no-trunc --filter label=com.docker.swarm.task.id) ||
		{ echo "the engine does not answer"; return 1; }
	echo '[]' >"$t/containers.json"
	if [ -n "$ids" ]; then
		# shellcheck disable=SC2086
		timeout 60 "$DOCKER" -H "unix://$(engine_sock w1)" inspect $ids >"$t/containers.json" 2>/dev/null ||
			{ echo "a container went while it was looked at"; return 1; }
	fi
}
compare() {
	collect >"$LAB/truth/wrong" || return 1
	truth_sql >"$LAB/truth/wrong"
	# never right, not even for a moment
	! grep -q '^two containers of one task' "$LAB/truth/wrong" || disagree "$(grep '^two containers' "$LAB/truth/wrong")"
	[ ! -s "$LAB/truth/wrong" ]
}

# A manager forgets a task that waits for a node if the service was changed in a way that does not replace it (a
# new number of replicas) while no node was Ready: moby/moby#53722. The task stays PENDING although the
# node is Ready, until its service is updated by force. That is not what is tested here, so it is done, once, and
# said. If the tasks still stay, it is the node that does not offer what they need.
nudge() {
	local s waiting
	waiting=$(sed -n 's/^not settled | [a-z0-9]* | \([^ ]*\) PENDING.RUNNING$/\1/p' "$LAB/truth/wrong" | sort -u)
	[ -n "$waiting" ] || return 0
	for s in $waiting; do
		NUDGES=$((NUDGES + 1))
		say "$SCENARIO: the manager forgot waiting tasks of $s: updated by force"
		try_mgr service update --detach --no-resolve-image --force "$s"
	done
}

# Waits until all four agree twice in a row. Slow is not wrong: the time counts from the last change.
settle() {
	local what=$1 start=$SECONDS changed=$SECONDS good=0 last="" now nudged=""
	while :; do
		alive "$what"
		if compare; then
			good=$((good + 1))
			[ $good -lt 2 ] || return 0
		else
			good=0
			# times of the day in texts would look like progress
			now=$(cat "$LAB/truth/wrong" "$LAB/truth/tasks.json" 2>/dev/null | sed 's/"UpdatedAt":"[^"]*"//g' | cksum)
			if [ "$now" != "$last" ]; then
				last=$now
				changed=$SECONDS
			fi
			if [ -z "$nudged" ] && [ $((SECONDS - changed)) -ge "$SETTLE_NUDGE" ]; then
				nudged=1
				nudge
			fi
			[ $((SECONDS - changed)) -lt "$SETTLE_QUIET" ] ||
				disagree "$what: nothing changed for $SETTLE_QUIET s, and still:
$(head -30 "$LAB/truth/wrong")"
			[ $((SECONDS - start)) -lt "$SETTLE_LIMIT" ] ||
				disagree "$what: did not come to rest in $SETTLE_LIMIT s, the last:
$(head -30 "$LAB/truth/wrong")"
		fi
		sleep 0.3
	done
}

alive() { ! pid_gone "$(agent_pid w1)" || disagree "$1: the agent ended by itself"; }

# ---- services
try_mgr() { # until it comes through; what it prints the last time counts
	local end=$((SECONDS + STEP_LIMIT))
	until timeout 20 "$DOCKER" -H "unix://$(engine_sock mgr)" "$@" >"$LAB/out" 2>&1; do
		! grep -q "already in use\|name conflicts" "$LAB/out" || return 0 # the answer to an earlier try was lost
		! grep -q "service .* not found" "$LAB/out" || [ "$1 $2" != "service rm" ] || return 0
		[ $SECONDS -lt $end ] || fail "docker $*: $(cat "$LAB/out")"
		sleep 0.5
	done
}

do_create() { # NAME KIND REPLICAS NETWORK CODE SECONDS
	local name=$1 kind=$2 replicas=$3 net=$4 code=$5 secs=$6
	local -a opt=(--restart-delay 200ms --restart-condition any) args
	W_KIND[$name]=$kind W_REPLICAS[$name]=$replicas W_VERSION[$name]=1 W_IMAGE[$name]=$LAB_IMAGE W_CODE[$name]=""
	case $kind in
	once) opt=(--restart-condition none) ;;
	fails) opt=(--restart-condition any --restart-max-attempts 1 --restart-delay 200ms) ;;
	healthy) opt+=(--health-cmd true --health-interval 1s --health-retries 5 --health-timeout 20s) ;;
	late) opt+=(--health-cmd "test -f /tmp/ok" --health-interval 1s --health-retries 60 --health-timeout 20s) ;;
	sick) opt=(--restart-condition any --restart-max-attempts 1 --restart-delay 200ms --health-cmd false
		--health-interval 1s --health-retries 2 --health-timeout 20s) ;;
	nobind) opt=(--restart-condition none --mount "type=bind,source=/nosuch/source,target=/b") ;;
	esac
	args=(life "$kind" 1)
	if [ "$kind" = once ] || [ "$kind" = fails ]; then
		args+=("$code" "$secs")
		W_CODE[$name]=$code
	fi
	try_mgr service create --name "$name" --detach --no-resolve-image --constraint node.hostname==w1 --network "$net" \
		--replicas "$replicas" --stop-grace-period 2s --update-failure-action continue --update-monitor 100ms \
		"${opt[@]}" "$LAB_IMAGE" "${args[@]}"
}
do_scale() {
	W_REPLICAS[$1]=$2
	try_mgr service scale --detach "$1=$2"
}
do_update() { # NAME VERSION ORDER PARALLELISM
	W_VERSION[$1]=$2
	W_IMAGE[$1]=lab:$((($2 - 1) % 2 + 1))
	try_mgr service update --detach --no-resolve-image --update-order "$3" --update-parallelism "$4" \
		--image "${W_IMAGE[$1]}" --args "life ${W_KIND[$1]} $2" "$1"
}
do_rm() {
	unset "W_KIND[$1]" "W_REPLICAS[$1]" "W_VERSION[$1]" "W_IMAGE[$1]" "W_CODE[$1]"
	try_mgr service rm "$1"
}
do_avail() { try_mgr node update --availability "$1" "$(agent_node)"; }
agent_node() { docker_on mgr node ls --filter name=w1 -q; }

# ---- the agent
do_agent_kill() { # TENTHS away
	agent_kill w1 2>/dev/null
	pause "$1"
	agent_again
}
do_agent_storm() { # TIMES TENTHS between
	local i
	for ((i = 0; i < $1; i++)); do
		do_agent_kill 0
		pause "$2"
	done
}
agent_again() {
	AGENT_LOG_AT=$(stat -c %s "$LAB/log/agent-w1.log")
	agent_start w1
}
do_agent_term() {
	local up
	# before it has said that, the signal is not its own yet
	up=$(tail -c "+$((AGENT_LOG_AT + 1))" "$LAB/log/agent-w1.log" | grep -c 'swarm-agentd starts')
	kill -TERM "$(agent_pid w1)"
	wait_quiet "$STEP_LIMIT" pid_gone "$(agent_pid w1)" || disagree "the agent does not end on SIGTERM"
	wait "$(agent_pid w1)"
	AGENT_CODE=$?
	[ $AGENT_CODE = 0 ] || { [ "$up" = 0 ] && [ $AGENT_CODE = 143 ]; } ||
		disagree "the agent ended with $AGENT_CODE on SIGTERM"
	pause "$1"
	agent_again
}
do_agent_freeze() { kill -STOP "$(agent_pid w1)"; }
do_agent_thaw() { kill -CONT "$(agent_pid w1)"; }

# ---- engines
pause() { sleep "$(($1 / 10)).$(($1 % 10))"; }
engine_again() { # HOST [live]
	if [ "${2:-}" = live ]; then engine_launch "$1" --live-restore; else engine_launch "$1"; fi
	wait_quiet "$STEP_LIMIT" docker_on "$1" version || fail "dockerd on $1 does not come back: $(tail -n 3 "$LAB/log/dockerd-$1.log")"
}
do_engine_kill() { # live|dead TENTHS
	VIOLENT=1
	engine_kill w1
	pause "$2"
	engine_again w1 "$1"
}
do_engine_restart() {
	VIOLENT=1
	engine_stop w1
	pause "$2"
	engine_again w1 "$1"
}
do_engine_freeze() { kill -STOP "$(engine_pid w1)"; }
do_engine_thaw() { kill -CONT "$(engine_pid w1)"; }
do_mgr_kill() { # TENTHS
	engine_kill mgr
	pause "$1"
	engine_again mgr
}
do_mgr_restart() {
	engine_stop mgr
	pause "$1"
	engine_again mgr
}
do_mgr_freeze() {
	kill -STOP "$(engine_pid mgr)"
	pause "$1"
	kill -CONT "$(engine_pid mgr)"
}

# ---- what somebody does behind the agent's back: the N-th container by name
nth_container() {
	local -a c
	mapfile -t c < <(timeout 20 "$DOCKER" -H "unix://$(engine_sock w1)" ps --format '{{.Names}}' \
		--filter label=com.docker.swarm.task.id | sort)
	VICTIM=""
	[ ${#c[@]} = 0 ] || VICTIM=${c[$(($1 % ${#c[@]}))]}
}
do_die() {
	VIOLENT=1
	nth_container "$1"
	[ -z "$VICTIM" ] || timeout 20 "$DOCKER" -H "unix://$(engine_sock w1)" kill "$VICTIM" >/dev/null 2>&1
}
do_gone() {
	VIOLENT=1
	nth_container "$1"
	[ -z "$VICTIM" ] || timeout 20 "$DOCKER" -H "unix://$(engine_sock w1)" rm -f "$VICTIM" >/dev/null 2>&1
}

# ---- network and disk
do_cut() { # both | in: the worker hears nothing | out: nobody hears the worker | lossy
	case $1 in
	both) host_cut w1 ;;
	in) host_deaf w1 mgr ;;
	out) host_deaf mgr w1 ;;
	lossy) host_lossy w1 ;;
	esac
}
do_uncut() {
	host_uncut w1
	host_hears w1
	host_hears mgr
}
do_full() {
	# all but nothing, whatever the file system keeps for itself
	dd if=/dev/zero of="$LAB/w1/state/filler" bs=4k 2>/dev/null
	return 0
}
do_unfull() { rm -f "$LAB/w1/state/filler"; }

do_wait() { pause "$1"; }
do_settle() { settle "in the middle"; }

end_disturbances() {
	do_uncut
	do_unfull
	do_agent_thaw
	do_engine_thaw
}
