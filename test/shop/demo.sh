#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The demo: a small shop of three unmodified services in three languages and their database, breadcrumb on
# just these, and gentle traffic. Prints the traces as they come, then the agent's summary, which must have
# a span for each end of every request and statement. Leaves nothing running, also when it is interrupted. Called by `make demo`, which builds bin/breadcrumb first.

set -euo pipefail
# Each job gets a process group of its own, so that an interrupt reaches this script first.
set -m

cd "$(dirname "$0")/../.."
seconds=${DEMO_SECONDS:-15}
rate=${DEMO_RATE:-2}
agent=bin/breadcrumb

fail() {
	echo "demo: $*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || fail "reading what crosses the kernel's sockets takes root: sudo make demo"
[ -x "$agent" ] || fail "$agent is missing: make build"
for tool in go node python3 setpriv; do
	command -v "$tool" >/dev/null || fail "$tool is not installed"
done
postgres=$(compgen -G "/usr/lib/postgresql/*/bin/postgres" | sort -V | tail -n 1) || fail "postgresql is not installed"

work=$(mktemp -d)
chmod 755 "$work" # the database, which refuses to run as root, has its folder in it
jobs=() # process groups, in the order of their start
agent_pid= reader_pid=

stop() { # PID SIGNAL: ends a job that may have ended by itself, and waits for it
	kill -s "$2" -- "-$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}

cleanup() {
	trap '' INT TERM HUP
	[ -z "$agent_pid" ] || stop "$agent_pid" INT
	[ -z "$reader_pid" ] || wait "$reader_pid" 2>/dev/null || true
	# The last first: a database waits for those that are connected.
	for ((i = ${#jobs[@]} - 1; i >= 0; i--)); do
		stop "${jobs[i]}" TERM
	done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

next_port=8080
free_port() {
	while taken "$next_port"; do
		next_port=$((next_port + 1))
	done
	port=$next_port
	next_port=$((next_port + 1))
}

start() { # PORT COMMAND...: starts a service and waits until it accepts connections
	local port=$1 pid
	shift
	"$@" >"$work/$port.log" 2>&1 &
	pid=$!
	jobs+=("$pid")
	until taken "$port"; do
		kill -0 "$pid" 2>/dev/null || fail "$1 does not start: $(tail -n 3 "$work/$port.log")"
		sleep 0.05
	done
}

# database PORT: starts PostgreSQL with an empty database, as a user who owns nothing else.
database() {
	local as=(setpriv --reuid 65534 --regid 65534 --clear-groups) data=$work/database
	install -d -o 65534 -g 65534 -m 700 "$data"
	"${as[@]}" "${postgres%/*}/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale C --no-sync >"$work/initdb.log" 2>&1 ||
		fail "initdb: $(tail -n 3 "$work/initdb.log")"
	start "$1" "${as[@]}" "$postgres" -D "$data" -p "$1" -k "" -h 127.0.0.1 -c fsync=off -c shared_buffers=16MB
	# It accepts connections before it answers.
	until "${postgres%/*}/pg_isready" -q -h 127.0.0.1 -p "$1"; do
		sleep 0.05
	done
}

go build -C test/shop/orders -o "$work/orders" .
go build -o "$work/drive" ./test/shop/drive

free_port && export STOCK_PORT=$port
free_port && export ORDERS_PORT=$port
free_port && export GATEWAY_PORT=$port
free_port && database_port=$port
export DATABASE="postgres://postgres@127.0.0.1:$database_port/postgres?sslmode=disable"
database "$database_port"
start "$STOCK_PORT" python3 test/shop/stock/stock.py
start "$ORDERS_PORT" "$work/orders"
start "$GATEWAY_PORT" node test/shop/gateway/gateway.js

selected=()
for job in "${jobs[@]}"; do
	selected+=(--pid "$job")
done
cat <<END
A shop of three services that know nothing of tracing, and their database:
  gateway   Node        127.0.0.1:$GATEWAY_PORT  GET /checkout/<id> asks orders twice
  orders    Go          127.0.0.1:$ORDERS_PORT  POST /orders/<id> asks stock twice at once, POST /pay/<id> asks once; keeps orders in postgres
  stock     Python      127.0.0.1:$STOCK_PORT
  postgres  PostgreSQL  127.0.0.1:$database_port

$agent run ${selected[*]} --output tree

END

# The agent's log passes through here, so that the traffic starts when the agent is ready for it.
mkfifo "$work/log"
while IFS= read -r line; do
	case $line in
	ledger\ *) # the summary once more, for scripts
		printf '%s\n' "$line" >"$work/ledger"
		continue
		;;
	*tracing*) : >"$work/ready" ;;
	esac
	printf '%s\n' "$line"
done <"$work/log" >&2 &
reader_pid=$!
"$agent" run "${selected[@]}" --output tree 2>"$work/log" &
agent_pid=$!
until [ -e "$work/ready" ]; do
	kill -0 "$agent_pid" 2>/dev/null || fail "the agent has ended"
	sleep 0.05
done

# In the background, because a trap waits for what runs in the foreground.
"$work/drive" -addr "127.0.0.1:$GATEWAY_PORT" -rate "$rate" -for "${seconds}s" >"$work/spans" &
jobs+=($!)
wait $!

kill -s INT -- "-$agent_pid"
status=0
wait "$agent_pid" || status=$?
agent_pid=
wait "$reader_pid" || true
reader_pid=
[ "$status" = 0 ] || fail "the agent ended with status $status"
exported=$(sed -n 's/.*"total":{[^}]*"exported":\([0-9]*\).*/\1/p' "$work/ledger")
[ "$exported" = "$(cat "$work/spans")" ] || fail "$(cat "$work/spans") spans were to be made, and $exported were"

cat <<END

$exported spans: one for each end of every request and statement of these checkouts.

That was the demo. On programs of your own, with a collector that listens for OTLP over gRPC:

  sudo bin/breadcrumb run --port 8080 --otlp-endpoint http://localhost:4317

and "sudo bin/breadcrumb ps" lists what runs here.
END
