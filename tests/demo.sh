#!/usr/bin/env bash
# The demo: three Docker hosts on this machine, a server and three agents, and the life of a repository on them.
#
#   demo.sh BINARY
#
# KEEP=1 leaves everything running and says how to look around; otherwise everything that was started is ended and removed.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?the portolan binary}")
work=$(mktemp -d "${TMPDIR:-/tmp}/portolan-demo-XXXXXX")
hosts=$work/hosts
mkdir -p "$work/bin"
ln -s "$binary" "$work/bin/portolan"
export PATH=$work/bin:$PATH PORTOLAN_DATA_DIR=$work/server KUBECONFIG=$work/kubeconfig

bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
step() { printf '\n'; bold "── $*"; }
now() { date +%s%N; }
times=()
# lap NAME COMMAND…: runs a command and remembers how long it took.
lap() {
  local name=$1 from to status=0
  shift
  from=$(now)
  "$@" || status=$?
  to=$(now)
  times+=("$(printf '%-58s %7.1f s' "$name" "$(((to - from) / 1000000))e-3")")
  return $status
}

cleanup() {
  local status=$?
  set +e
  if [ $status -ne 0 ]; then
    printf '\nThe demo failed. The last lines of the server and the agents:\n'
    tail -n 25 "$work"/*.log 2>/dev/null
    portolan status 2>/dev/null
  fi
  if [ "${KEEP:-}" = 1 ] && [ $status -eq 0 ]; then return; fi
  for pid in "$work"/*.pid; do
    [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null
  done
  "$here/hosts/hosts.sh" down "$hosts" >/dev/null 2>&1
  rm -rf "$work"
  return $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

agent() { # agent HOST [--token T]
  local host=$1
  shift
  nsenter --net="/run/netns/$PREFIX$host" "$binary" agent --server "https://$BRIDGE_IP:6443" --node-name "$host" --heartbeat 2s --node-lease 8s \
    --docker "$hosts/$host/docker.sock" --data-dir "$work/$host" "$@" >>"$work/$host.log" 2>&1 </dev/null &
  echo $! >"$work/$host.pid"
  disown
}

until_true() { # until_true SECONDS WHAT COMMAND…
  local seconds=$1 what=$2
  shift 2
  for _ in $(seq $((seconds * 5))); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.2
  done
  echo "error: not within $seconds s: $what" >&2
  return 1
}

nodes_ready() { [ "$(kubectl get nodes --no-headers 2>/dev/null | grep -cw Ready)" = "$1" ]; }
push() { git -C "$work/shop" commit -qam "$1" && git -C "$work/shop" push -q origin main; }
head_commit() { git -C "$work/shop" rev-parse HEAD; }

step "Three Docker hosts, a registry, and images from Debian packages"
lap "three Docker hosts and a registry" "$here/hosts/hosts.sh" up "$hosts" 3
. "$hosts/env"

step "A repository with the example manifests, and a server that follows it"
git init -q --bare -b main "$work/shop.git"
git init -q -b main "$work/shop"
git -C "$work/shop" config user.name "Ada"
git -C "$work/shop" config user.email "ada@example.org"
git -C "$work/shop" remote add origin "$work/shop.git"
cp -r "$here/../examples-repo/." "$work/shop"
start_server() {
  "$binary" server --data-dir "$work/server" --listen "$BRIDGE_IP:6443" --repo "$work/shop.git" --revision main --path apps \
    --node-lease 8s --eviction-after 2s >>"$work/server.log" 2>&1 </dev/null &
  echo $! >"$work/server.pid"
  disown
  until_true 20 "the server is ready" curl -fsk "https://$BRIDGE_IP:6443/readyz"
}
lap "server started and ready" start_server
portolan kubeconfig >"$KUBECONFIG"
join() {
  for host in h1 h2 h3; do agent "$host" --token "$(portolan token create 2>/dev/null)"; done
  until_true 30 "three hosts are ready" nodes_ready 3
}
lap "three hosts joined and Ready" join
kubectl get nodes -o wide

step "First push: the shop opens"
git -C "$work/shop" add -A
git -C "$work/shop" commit -qm "The shop opens"
git -C "$work/shop" push -q origin main
lap "first push until everything is healthy and judged good" portolan wait --commit "$(head_commit)" --timeout 120s
kubectl get pods -A -o wide
portolan status

step "A change: two more replicas of a newer web server. First the plan, as a pull request would show it"
sed -i 's/replicas: 3/replicas: 5/; s/nginx:1.27/nginx:1.28/' "$work/shop/apps/shop/web.yaml"
git -C "$work/shop" commit -qam "A newer web server, and more of it"
portolan plan --repo "$work/shop" --path apps --to "$(head_commit)"
git -C "$work/shop" push -q origin main
lap "rolling update of web, one at a time, until judged good" portolan wait --commit "$(head_commit)" --timeout 120s
kubectl rollout status deployment/web -n shop
kubectl get replicasets -n shop

step "A mistake: a field is misspelt. The commit is refused as a whole"
sed -i 's/readinessProbe:/readynessProbe:/' "$work/shop/apps/shop/web.yaml"
push "A typo"
code=0
lap "typo pushed until refused" portolan wait --commit "$(head_commit)" --timeout 60s || code=$?
[ "$code" = 4 ] || { echo "error: expected exit code 4 (rejected), got $code" >&2; exit 1; }
git -C "$work/shop" revert --no-edit HEAD >/dev/null
git -C "$work/shop" push -q origin main

step "A bad image: it does not exist. The release goes back by itself"
sed -i "s|nginx:1.28|$REGISTRY/nginx:1.82|" "$work/shop/apps/shop/web.yaml"
push "An image that nobody built"
code=0
lap "bad image pushed until rolled back" portolan wait --commit "$(head_commit)" --timeout 120s || code=$?
[ "$code" = 3 ] || { echo "error: expected exit code 3 (rolled back), got $code" >&2; exit 1; }
portolan status
portolan history
kubectl get pods -n shop -l app=web

step "git revert: what runs is what git says again, and no container is touched"
before=$(kubectl get pods -n shop -o name | sort)
git -C "$work/shop" revert --no-edit HEAD >/dev/null
git -C "$work/shop" push -q origin main
lap "revert pushed until synced" portolan wait --commit "$(head_commit)" --timeout 60s
[ "$before" = "$(kubectl get pods -n shop -o name | sort)" ] || { echo "error: pods changed" >&2; exit 1; }
echo "the same $(echo "$before" | wc -l) pods run"

step "A host is lost: its pods move"
kubectl get pods -A -o wide | awk 'NR == 1 || / h3 /'
kill -KILL "$(cat "$work/h3.pid")"
rm "$work/h3.pid"
moved() {
  "$here/hosts/hosts.sh" power-off "$hosts" h3
  until_true 90 "every Deployment is complete without h3" all_elsewhere
}
all_elsewhere() {
  kubectl get nodes h3 --no-headers | grep -q NotReady || return 1
  kubectl get deployments -A -o json | jq -e 'all(.items[]; .status.availableReplicas == .spec.replicas)'
}
lap "host killed until its pods run elsewhere" moved
kubectl get nodes
kubectl get deployments -A

step "How long it took"
printf '%s\n' "${times[@]}"

if [ "${KEEP:-}" = 1 ]; then
  cat <<TEXT

It runs on. To look around:

  export PATH=$work/bin:\$PATH PORTOLAN_DATA_DIR=$work/server KUBECONFIG=$work/kubeconfig
  portolan status; portolan history; kubectl get pods -A -o wide
  cd $work/shop            # edit, commit, push

To end it:

  kill \$(cat $work/*.pid); $here/hosts/hosts.sh down $hosts; rm -rf $work
TEXT
fi
