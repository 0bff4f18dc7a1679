#!/usr/bin/env bash
# Several Docker hosts on one machine: each is a network namespace with a dockerd of its own, joined by a bridge on which a registry
# listens. Everything that is started is recorded in DIR and ended by pid. Needs root.
#
#   hosts.sh up DIR COUNT          bridge, registry, images, and hosts h1 … hCOUNT
#   hosts.sh down DIR              ends and removes all of it
#   hosts.sh power-off DIR HOST    kills the host's dockerd, containerd, shims and containers, and pulls its cable
#   hosts.sh power-on DIR HOST     puts the cable back and starts its dockerd again
#   hosts.sh cut DIR HOST          pulls the cable only
#   hosts.sh mend DIR HOST         puts it back
#   hosts.sh kill-docker DIR HOST  kill -9 of dockerd only (containers live on), then starts it again
#   hosts.sh registry DIR off|on   takes the registry away, or brings it back
#   hosts.sh run DIR HOST CMD …    runs a command in the host's network
#   hosts.sh env DIR               prints shell variables: BRIDGE_IP, REGISTRY, PREFIX
#
# The network is 10.77.K.0/24 with the first K that is free, and names carry the prefix pK, so that two runs do not meet.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)

verb=${1:?verb}
dir=${2:?directory}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
[ -f "$dir/env" ] && . "$dir/env"

fail() { echo "error: $*" >&2; exit 1; }

# Ends a process by its pid file, and waits until it is gone.
end() {
  local pid
  [ -f "$1" ] || return 0
  pid=$(cat "$1")
  rm -f "$1"
  kill "-${2:-TERM}" "$pid" 2>/dev/null || return 0
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

await() { # await SECONDS WHAT COMMAND…
  local seconds=$1 what=$2
  shift 2
  for _ in $(seq $((seconds * 10))); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  fail "$what did not come up within $seconds s"
}

ping_docker() { curl -fsS --max-time 2 --unix-socket "$dir/$1/docker.sock" http://docker/_ping; }

start_registry() {
  cat >"$dir/registry.yml" <<YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $dir/registry}, delete: {enabled: true}}
http: {addr: "$BRIDGE_IP:5000"}
YAML
  docker-registry serve "$dir/registry.yml" >>"$dir/registry.log" 2>&1 </dev/null &
  echo $! >"$dir/registry.pid"
  await 10 "the registry" curl -fsS "http://$BRIDGE_IP:5000/v2/"
}

start_docker() {
  local host=$1 number=${1#h}
  # Not `ip netns exec`: it mounts /sys anew, which hides the cgroups from dockerd.
  # Containers outlive their daemon (live-restore), as an operator would set it on a production host.
  nsenter --net="/run/netns/$PREFIX$host" unshare --uts sh -c "hostname $host; exec dockerd \
    --data-root '$dir/$host/data' --exec-root '$dir/$host/exec' -H 'unix://$dir/$host/docker.sock' --pidfile '$dir/$host/docker.pid' \
    --live-restore --bip 10.201.$((K * 8 + number)).1/24 --log-level warn \
    --registry-mirror http://$BRIDGE_IP:5000 --insecure-registry $BRIDGE_IP:5000" >>"$dir/$host/docker.log" 2>&1 </dev/null &
  echo $! >"$dir/$host/dockerd.pid"
  await 25 "dockerd on $host" ping_docker "$host"
}

# Every process of a host but our own agents: containerd, its shims and the containers under them.
host_pids() {
  local host=$1 pid
  for pid in $(pgrep -f -- "$dir/$host/exec" || true); do
    echo "$pid"
    pgrep -P "$pid" || true
  done
}

kill_host() {
  local host=$1 pid
  [ -f "$dir/$host/dockerd.pid" ] && kill -KILL "$(cat "$dir/$host/dockerd.pid")" 2>/dev/null || true
  for pid in $(host_pids "$host"); do kill -KILL "$pid" 2>/dev/null || true; done
  for _ in $(seq 50); do
    [ -z "$(host_pids "$host")" ] && break
    sleep 0.1
  done
  rm -f "$dir/$host/docker.pid" "$dir/$host/dockerd.pid" "$dir/$host/exec/containerd/containerd.pid"
}

case $verb in
up)
  count=${3:?how many hosts}
  [ "$(id -u)" = 0 ] || fail "network namespaces and dockerd need root"
  for K in $(seq 0 30); do
    ip link show "p${K}br" >/dev/null 2>&1 || break
  done
  PREFIX=p$K
  BRIDGE_IP=10.77.$K.254
  REGISTRY=$BRIDGE_IP:5000
  COUNT=$count
  printf 'K=%s\nPREFIX=%s\nBRIDGE_IP=%s\nREGISTRY=%s\nCOUNT=%s\n' "$K" "$PREFIX" "$BRIDGE_IP" "$REGISTRY" "$COUNT" >"$dir/env"
  ip link add "${PREFIX}br" type bridge
  ip addr add "$BRIDGE_IP/24" dev "${PREFIX}br"
  ip link set "${PREFIX}br" up
  # Where this machine runs a dockerd of its own, forwarding is closed, and bridged traffic passes it.
  iptables -I FORWARD -i "${PREFIX}br" -j ACCEPT
  iptables -I FORWARD -o "${PREFIX}br" -j ACCEPT
  start_registry
  "$here/images.sh" "$dir" "$REGISTRY"
  for number in $(seq "$count"); do
    host=h$number
    mkdir -p "$dir/$host"
    ip netns add "$PREFIX$host"
    ip link add "$PREFIX$host" type veth peer name eth0 netns "$PREFIX$host"
    ip link set "$PREFIX$host" master "${PREFIX}br" up
    ip -n "$PREFIX$host" addr add "10.77.$K.$number/24" dev eth0
    ip -n "$PREFIX$host" link set eth0 up
    ip -n "$PREFIX$host" link set lo up
    # There is no way out, and that is said at once: with a route to nowhere, dockerd would wait 10 s for a name server at each pull.
    ip -n "$PREFIX$host" route add unreachable default
    start_docker "$host"
  done
  ;;
down)
  [ -n "${PREFIX:-}" ] || exit 0
  for number in $(seq "$COUNT"); do
    host=h$number
    for pid in "$dir/$host"/*.agent.pid; do [ -f "$pid" ] && end "$pid"; done
    kill_host "$host"
    ip link del "$PREFIX$host" 2>/dev/null || true
    ip netns del "$PREFIX$host" 2>/dev/null || true
    # Mounts of containers that were killed with their host.
    grep -o "$dir/$host/[^ ]*" /proc/mounts | sort -r | while read -r mount; do umount -l "$mount" 2>/dev/null || true; done
  done
  end "$dir/registry.pid"
  iptables -D FORWARD -i "${PREFIX}br" -j ACCEPT 2>/dev/null || true
  iptables -D FORWARD -o "${PREFIX}br" -j ACCEPT 2>/dev/null || true
  ip link del "${PREFIX}br" 2>/dev/null || true
  rm -rf "$dir/h"[0-9]* "$dir/registry" "$dir/env" 2>/dev/null || true
  ;;
power-off)
  host=${3:?host}
  for pid in "$dir/$host"/*.agent.pid; do [ -f "$pid" ] && end "$pid" KILL; done
  kill_host "$host"
  ip link set "$PREFIX$host" down
  ;;
power-on)
  host=${3:?host}
  ip link set "$PREFIX$host" up
  start_docker "$host"
  ;;
cut) ip link set "$PREFIX${3:?host}" down ;;
mend) ip link set "$PREFIX${3:?host}" up ;;
kill-docker)
  host=${3:?host}
  end "$dir/$host/dockerd.pid" KILL
  rm -f "$dir/$host/docker.pid"
  # Its containerd needs a moment to notice; a dockerd that starts before that trusts a dying one and gives up.
  for _ in $(seq 100); do
    pgrep -f -- "$dir/$host/exec/containerd/containerd.toml" >/dev/null || break
    sleep 0.1
  done
  start_docker "$host"
  ;;
registry)
  case ${3:?off or on} in
  off) end "$dir/registry.pid" ;;
  on) start_registry ;;
  esac
  ;;
run)
  host=${3:?host}
  shift 3
  exec nsenter --net="/run/netns/$PREFIX$host" "$@"
  ;;
env) cat "$dir/env" ;;
*) fail "no such verb: $verb" ;;
esac
