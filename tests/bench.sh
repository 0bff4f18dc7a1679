#!/usr/bin/env bash
# Runs `portolan bench` on three Docker hosts of its own and prints the table of docs/benchmarks.md.
#
#   bench.sh BINARY [arguments of portolan bench]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?the portolan binary}")
shift
work=$(mktemp -d "${TMPDIR:-/tmp}/portolan-bench-XXXXXX")
trap '"$here/hosts/hosts.sh" down "$work" >/dev/null 2>&1; rm -rf "$work"' EXIT
"$here/hosts/hosts.sh" up "$work" 3
. "$work/env"
flags=()
for host in h1 h2 h3; do flags+=(--host "$host=$work/$host/docker.sock@/run/netns/$PREFIX$host"); done
"$binary" bench --listen "$BRIDGE_IP" "${flags[@]}" --image nginx:1.27 "$@"
