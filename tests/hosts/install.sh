#!/usr/bin/env bash
# Installs what building, testing and demonstrating portolan needs on a Debian machine, and nothing that is there already.
#
#   install.sh build    a C compiler for libgit2, git, and a Rust toolchain
#   install.sh hosts    the above, and what three Docker hosts on one machine need
#   install.sh test     the above, a second, older kubectl and the Python and Node clients under target/tools
set -euo pipefail

want=${1:-build}
packages=()
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || packages+=("$2"); }

need git git
need cc gcc
need make make
if [ "$want" != build ]; then
  need dockerd docker.io
  need iptables iptables # dockerd does not start without it, and docker.io only recommends it
  need docker-registry docker-registry
  need skopeo skopeo
  need ip iproute2
  need nsenter util-linux
  need jq jq
  need curl curl
  need nginx nginx-light
  need redis-server redis-server
  [ -x /bin/busybox ] || packages+=(busybox-static)
  need kubectl kubernetes-client
fi
if [ "$want" = test ]; then
  need python3 python3
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
  need node nodejs
  need npm npm
  need openssl openssl
fi

if [ ${#packages[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || { echo "error: missing ${packages[*]}" >&2; echo "hint: run this as root once, or install them yourself" >&2; exit 1; }
  echo "installing ${packages[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  # Installing a server must not start it: the demo brings its own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get -qq update >/dev/null
  apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && apt-cache show rustup >/dev/null 2>&1; then
    apt-get -qq install -y rustup >/dev/null
    rustup default stable
  else
    echo "error: no Rust toolchain" >&2
    echo "hint: install Rust 1.90 or newer (Debian's rustup package, or rustup itself) and run this again" >&2
    exit 1
  fi
fi

if [ "$want" = test ]; then
  tools=$(cd "$(dirname "$0")/../.." && pwd)/target/tools
  mkdir -p "$tools"
  # Debian's kubectl is years older than what people use today: the other end of what has to work. Not installed, only unpacked.
  if [ ! -x "$tools/kubernetes-client/usr/bin/kubectl" ] && command -v apt-get >/dev/null; then
    apt-cache show kubernetes-client >/dev/null 2>&1 || apt-get -qq update >/dev/null
    deb=$(mktemp -d)
    (cd "$deb" && apt-get -qq download kubernetes-client 2>/dev/null) || true
    for package in "$deb"/*.deb; do
      [ -f "$package" ] && dpkg-deb -x "$package" "$tools/kubernetes-client"
    done
    rm -rf "$deb"
  fi
  # The client libraries, in the newest versions that this machine's Python and Node can run. Without a registry their tests are skipped
  # by name.
  if [ ! -e "$tools/python/.done" ]; then
    python3 -m venv --clear "$tools/python" && "$tools/python/bin/pip" -q --disable-pip-version-check install kubernetes &&
      touch "$tools/python/.done" || echo "the Python client could not be fetched" >&2
  fi
  if [ ! -e "$tools/node/.done" ]; then
    mkdir -p "$tools/node"
    npm --prefix "$tools/node" install --no-fund --no-audit --silent "@kubernetes/client-node@1" && touch "$tools/node/.done" ||
      echo "the Node client could not be fetched" >&2
  fi
fi
