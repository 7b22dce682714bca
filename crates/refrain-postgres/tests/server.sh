#!/bin/sh
# Starts a PostgreSQL of its own in a temporary directory, and stops and removes it when standard input
# ends: `server.sh BIN PORT [SETTING=VALUE...]`. As root it runs as the user postgres, because PostgreSQL
# does not run as root.
#
# Prints `done` once the server has started, and after each order, a line of standard input:
#   crash                  kills the server, by SIGKILL
#   start                  starts it again
#   standby PORT PRIMARY   starts a standby on PORT, which follows the server through port PRIMARY
#   promote                promotes the standby
set -eu
bin=$1
port=$2
if [ "$(id -u)" -eq 0 ]; then
    exec runuser -u postgres -- "$0" "$@"
fi
shift 2
# A package that is not the system's brings its libraries along.
if [ -e "$bin/../lib/libpq.so.5" ]; then
    export LD_LIBRARY_PATH="$bin/../lib"
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/refrain-postgres.XXXXXX")
trap 'rm -rf "$dir"' EXIT

control() {
    server=$1
    shift
    "$bin/pg_ctl" -s -D "$dir/$server" -l "$dir/$server.log" "$@"
}

# With all its processes: one that has work goes on for a while without the others.
crash() {
    # shellcheck disable=SC2046 # one word a process
    kill -KILL "$1" $(pgrep -P "$1")
}

# After a crash the old server's processes may still be on their way out.
start() {
    tries=100
    until control "$1" -o "-p $2 -k '$dir' -c listen_addresses=127.0.0.1" start 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ]
        sleep 0.1
    done
}

# The server is shut down for its copy, which needs no other program then.
start_standby() {
    control data -m fast stop
    cp -a "$dir/data" "$dir/standby"
    echo "primary_conninfo = 'host=127.0.0.1 port=$2 user=refrain sslmode=disable'" >>"$dir/standby/postgresql.conf"
    : >"$dir/standby/standby.signal"
    start data "$port"
    start standby "$1"
}

"$bin/initdb" -D "$dir/data" -U refrain -A trust --no-sync >"$dir/initdb.log"
for setting in "$@"; do
    echo "$setting" >>"$dir/data/postgresql.conf"
done
start data "$port"
echo "done"
while read -r order arguments; do
    case $order in
        crash) crash "$(head -n 1 "$dir/data/postmaster.pid")" ;;
        start) start data "$port" ;;
        standby) start_standby ${arguments} ;;
        promote) control standby promote ;;
    esac
    echo "done"
done
for server in data standby; do
    control "$server" -m immediate stop 2>/dev/null || :
done
