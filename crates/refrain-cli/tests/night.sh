#!/usr/bin/env bash
# Three in the morning: each trouble, solved by commands alone. The directory that this runs in has the
# stores (placed, stuck, held, damaged, clock, full) and the file `api-key`; REFRAIN is the command.
set -euo pipefail

say() { printf '== %s\n' "$*"; }
refrain() { "$REFRAIN" "$@"; }
fail() { printf 'not so: %s\n' "$*" >&2; exit 1; }

# Runs a command that ends with this code, and keeps what it says in the file `said`.
ends_with() {
    local expected=$1 code=0
    shift
    refrain "$@" >said 2>&1 || code=$?
    [ "$code" -eq "$expected" ] || fail "refrain $* ended with $code: $(cat said)"
}

says() { grep -qF -- "$1" said || fail "\"$1\" in: $(cat said)"; }

say "was call X placed?"
ends_with 0 --store placed get call-1 --api-key-file api-key
says 'HTTP 201 Created'
ends_with 3 --store placed get call-8 --api-key-file api-key
says 'is unknown in scope'

say "a key is stuck"
ends_with 0 --store stuck interrupted
says 'payment-9'
ends_with 0 --store stuck resolve payment-9 --api-key-file api-key --release --yes --why 'the bank has none'
ends_with 0 --store stuck interrupted
grep -q 'payment-9' said && fail "it is still interrupted"
ends_with 0 --store stuck audit --key payment-9
says 'the bank has none'

say "the store is open elsewhere"
ends_with 4 --store held status
holder=$(sed -n 's/.*is open in process \([0-9]*\).*/\1/p' said)
[ -n "$holder" ] || fail "the process is named: $(cat said)"
kill -9 "$holder"
# The system gives the lock back once the process is gone.
until refrain --store held status >said 2>&1; do
    grep -qF 'is open in' said || fail "$(cat said)"
done
says 'health       ok'

say "a record is damaged"
ends_with 5 --store damaged verify
says 'damaged key  call-2'
ends_with 0 --store damaged forget call-2 --api-key-file api-key --erase --yes --why 'it was not placed'
ends_with 0 --store damaged verify
says 'everything that the store keeps is whole'

say "the clock is wrong"
touch -d '+10 days' clock/LOCK # as if it had been right until now, and were ten days behind
ends_with 1 --store clock doctor
says "before the store's last write; set the clock"
touch -d 'now' clock/LOCK # the clock is set
refrain --store clock doctor >said 2>&1 || true
grep -E '^(FAIL|WARN)  clock' said && fail "the clock is right"

if ! unshare -rm true 2>/dev/null; then
    say "the disk is full: left out, because no small disk can be made here"
    exit 0
fi
say "the disk is full"
export -f say refrain fail ends_with says
unshare -rm bash -euo pipefail -c '
    mkdir disk
    mount -t tmpfs -o size=8m tmpfs disk
    cp -R full disk/store
    chown -R 0:0 disk/store
    dd if=/dev/zero of=disk/others bs=4k 2>/dev/null && fail "the disk is larger than that"
    ends_with 1 --store disk/store status
    says "on a full disk"
    ends_with 1 --store disk/store doctor
    says "free space   0 B; free some space"
    rm disk/others
    ends_with 0 --store disk/store reap --yes
    ends_with 0 --store disk/store get call-1 --api-key-file api-key
    says "HTTP 201 Created"
'
