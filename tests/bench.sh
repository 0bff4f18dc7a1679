#!/usr/bin/env bash
# Runs `portolan bench` on three Docker hosts of its own, prints the table, and writes it between the marks of docs/benchmarks.md.
#
#   bench.sh BINARY [arguments of portolan bench]
#
# With arguments it measures something else than what that page shows, so the page stays as it is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?the portolan binary}")
shift
work=$(mktemp -d "${TMPDIR:-/tmp}/portolan-bench-XXXXXX")
trap '"$here/hosts/hosts.sh" down "$work" >/dev/null 2>&1; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
"$here/hosts/hosts.sh" up "$work" 3
. "$work/env"
flags=()
for host in h1 h2 h3; do flags+=(--host "$host=$work/$host/docker.sock@/run/netns/$PREFIX$host"); done
"$binary" bench --listen "$BRIDGE_IP" "${flags[@]}" --image nginx:1.27 "$@" | tee "$work/table"
[ $# = 0 ] || exit 0
page=$here/../docs/benchmarks.md
awk -v table="$work/table" '
  /<!-- to here -->/ { inside = 0 }
  !inside { print }
  /<!-- written by make bench, from here -->/ { inside = 1; print ""; while ((getline line < table) > 0) print line; print "" }
' "$page" >"$work/page"
cat "$work/page" >"$page"
echo "written to docs/benchmarks.md" >&2
