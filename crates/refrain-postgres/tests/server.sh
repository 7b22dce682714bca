#!/bin/sh
# Starts a PostgreSQL of its own in a temporary directory, and stops and removes it when standard input
# ends: `server.sh BIN PORT [SETTING=VALUE...]`. As root it runs as the user postgres, because PostgreSQL
# does not run as root.
set -eu
bin=$1
port=$2
if [ "$(id -u)" -eq 0 ]; then
    exec runuser -u postgres -- "$0" "$@"
fi
shift 2
dir=$(mktemp -d "${TMPDIR:-/tmp}/refrain-postgres.XXXXXX")
trap 'rm -rf "$dir"' EXIT
"$bin/initdb" -D "$dir/data" -U refrain -A trust --no-sync >"$dir/initdb.log"
for setting in "$@"; do
    echo "$setting" >>"$dir/data/postgresql.conf"
done
"$bin/postgres" -D "$dir/data" -p "$port" -k "$dir" -c listen_addresses=127.0.0.1 >"$dir/log" 2>&1 </dev/null &
server=$!
while read -r _; do :; done
kill -INT "$server" 2>/dev/null || :
wait "$server" || :
