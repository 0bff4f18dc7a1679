#!/usr/bin/env bash
# Every test, with Docker hosts for those that need them. Ends with one line that counts them all; a test that could not run is named.
set -uo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/portolan-test-XXXXXX")
trap 'tests/hosts/hosts.sh down "$work/hosts" >/dev/null 2>&1; rm -rf "$work"' EXIT
export PORTOLAN_TEST_SKIPS=$work/skips
: >"$PORTOLAN_TEST_SKIPS"

if [ "$(id -u)" = 0 ]; then
  tests/hosts/hosts.sh up "$work/hosts" 3 || exit 1
  export PORTOLAN_TEST_HOSTS=$work/hosts
  export PORTOLAN_DOCKER_SOCK=$work/hosts/h1/docker.sock
  PORTOLAN_TEST_REGISTRY=$(sed -n 's/^REGISTRY=//p' "$work/hosts/env")
  export PORTOLAN_TEST_REGISTRY
fi

failed=0
{
  cargo test --locked --lib --bins || failed=1
  cargo test --locked --doc || failed=1
  cargo test --locked --test main || failed=1
  exit $failed
} 2>&1 | tee "$work/log"
failed=${PIPESTATUS[0]}

skipped=$(grep -c . "$PORTOLAN_TEST_SKIPS")
cat "$PORTOLAN_TEST_SKIPS"
# A skipped test returned early, so its runner counted it as passed.
passed=$(($(grep '^test result' "$work/log" | grep -oE '[0-9]+ passed' | awk '{n += $1} END {print n + 0}') - skipped))
broken=$(grep '^test result' "$work/log" | grep -oE '[0-9]+ failed' | awk '{n += $1} END {print n + 0}')
echo "$passed passed, $broken failed, $skipped skipped"
exit "$failed"
