# quickstart-pretend.sh - the show without engines: the project's own test manager (a real Swarm
# protocol over TLS, a small orchestrator behind it) and test engine (the Engine API over a unix
# socket, containers that are only pretended). Sourced by contrib/quickstart.
# shellcheck shell=bash
pretend_dir=""
pretend_pids=""
# shellcheck disable=SC2317
pretend_exit() {
	local code=$?
	trap - EXIT INT TERM
	[ $code = 0 ] || tail -n 40 "$pretend_dir"/*.log
	# shellcheck disable=SC2086
	[ -z "$pretend_pids" ] || kill $pretend_pids 2>/dev/null
	wait
	umount "$pretend_dir/run" 2>/dev/null # the agent's tmpfs, where it could mount one
	rm -rf "$pretend_dir"
	exit $code
}
on_pretence() {
	local d
	pretend_dir=$(mktemp -d)
	d=$pretend_dir
	trap pretend_exit EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	say "test manager and test engine instead of Docker's; containers are only pretended"
	"$build/tests/swarm-testengine" --socket "$d/engine.sock" --image lab:1 >"$d/engine.log" 2>&1 &
	pretend_pids="$!"
	"$build/tests/swarm-testmanager" "$d" web 3 lab:1 sleep infinity >"$d/manager.log" 2>&1 &
	local manager=$!
	pretend_pids="$pretend_pids $manager"
	wait_for 30 "the test manager" test -s "$d/token"
	wait_for 30 "the test engine" test -S "$d/engine.sock"
	chmod 600 "$d/token"
	"$SWARM_AGENTD" --config /dev/null --state-dir "$d/state" --run-dir "$d/run" --engine "unix://$d/engine.sock" --join-addr "$(cat "$d/addr")" \
		--join-token-file "$d/token" --hostname w1 --pull-policy missing --log-level info >"$d/agent.log" 2>&1 &
	local agent=$!
	pretend_pids="$pretend_pids $agent"
	node_ready() { grep -q 'w1 .*Ready' "$d/nodes"; }
	wait_for 60 "w1 Ready" node_ready
	running() { [ "$(awk '$3 == "RUNNING" && $4 == "RUNNING"' "$d/tasks" | wc -l)" = 3 ]; }
	wait_for 60 "3/3 web" running
	say "nodes and tasks, as the manager sees them"
	show "cat nodes" cat "$d/nodes"
	show "cat tasks" cat "$d/tasks"
	if command -v sqlite3 >/dev/null; then
		show "sqlite3 -box DIR/agent.db '$states'" sqlite3 -readonly -box "$d/state/agent.db" "$states"
		[ "$(sqlite3 -readonly "$d/state/agent.db" "select count(*) from tasks_now where state = 'RUNNING'")" = 3 ] ||
			fail "the store does not show 3 running tasks"
	else
		say "sqlite3 is not installed; the store is $d/state/agent.db"
	fi
	wait_for_ctrl_c
	say "removing the service"
	kill -USR1 $manager
	gone() { ! grep -q ' web\.' "$d/tasks"; }
	wait_for 60 "no task left" gone
	kill -TERM $agent
	wait $agent || fail "swarm-agentd ended with $?"
}
