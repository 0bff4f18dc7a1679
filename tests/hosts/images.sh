#!/usr/bin/env bash
# Builds the images that the examples and tests name, from Debian packages, and pushes them to a registry. No Docker is needed for that:
# an image is a tar of layers with a little JSON.
#
#   images.sh DIR REGISTRY
#
# busybox:1.36            a shell and small tools
# nginx:1.27, nginx:1.28  the web server; the two differ in a label and in their default page
# redis:7                 the cache
# curl:8                  a shell and curl, which knows TLS
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
dir=${1:?directory}/images
registry=${2:?registry}
rm -rf "$dir"
mkdir -p "$dir"

# image NAME TAG ROOT CONFIG: packs ROOT as one layer and pushes it as NAME:TAG.
image() {
  local name=$1 tag=$2 root=$3 config=$4 work=$dir/$1-$2 layer
  mkdir -p "$work"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" -cf "$work/layer.tar" .
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  jq -n --arg layer "sha256:$layer" --argjson config "$config" \
    '{architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z", config: $config, rootfs: {type: "layers", diff_ids: [$layer]},
      history: [{created: "1970-01-01T00:00:00Z"}]}' >"$work/config.json"
  jq -n --arg tag "$name:$tag" '[{Config: "config.json", RepoTags: [$tag], Layers: ["layer.tar"]}]' >"$work/manifest.json"
  tar -C "$work" -cf "$dir/$name-$tag.tar" manifest.json config.json layer.tar
  skopeo --insecure-policy copy -q --dest-tls-verify=false "docker-archive:$dir/$name-$tag.tar" "docker://$registry/library/$name:$tag"
  rm -rf "$work"
}

# Copies a program and the shared libraries that it names into a root.
with_libraries() {
  local root=$1 program=$2 file
  install -D "$program" "$root$program"
  ldd "$program" | grep -o '/[^ ]*' | while read -r file; do
    install -D "$(readlink -f "$file")" "$root$file"
  done
}

root=$dir/busybox
mkdir -p "$root/bin" "$root/tmp" "$root/etc"
chmod 1777 "$root/tmp"
cp /bin/busybox "$root/bin/busybox"
for tool in $(/bin/busybox --list); do
  [ "$tool" = busybox ] || ln -s busybox "$root/bin/$tool"
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
image busybox 1.36 "$root" '{"Env": ["PATH=/bin"], "Cmd": ["sh"]}'

for tag in 1.27 1.28; do
  root=$dir/nginx
  rm -rf "$root"
  cp -a "$dir/busybox" "$root"
  mkdir -p "$root"/var/log/nginx "$root"/var/lib/nginx "$root"/run "$root"/etc/nginx/conf.d "$root"/usr/share/nginx/html
  with_libraries "$root" "$(command -v nginx)"
  cp /etc/nginx/mime.types "$root/etc/nginx/"
  ln -sf /dev/stdout "$root/var/log/nginx/access.log"
  ln -sf /dev/stderr "$root/var/log/nginx/error.log"
  printf '<!doctype html><title>nginx %s</title><h1>nginx %s</h1>\n' "$tag" "$tag" >"$root/usr/share/nginx/html/index.html"
  cat >"$root/etc/nginx/nginx.conf" <<'CONF'
user nobody nogroup;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;
events { worker_connections 512; }
http {
  include mime.types;
  access_log /dev/stdout;
  include conf.d/*.conf;
}
CONF
  cat >"$root/etc/nginx/conf.d/default.conf" <<'CONF'
server {
  listen 80 default_server;
  location / { root /usr/share/nginx/html; }
}
CONF
  image nginx "$tag" "$root" '{"Env": ["PATH=/bin:/usr/sbin"], "Cmd": ["'"$(command -v nginx)"'", "-g", "daemon off;"],
    "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT", "Labels": {"version": "'$tag'"}}'
done

# NAME TAG PROGRAM CONFIG: busybox and one program of this machine.
program() {
  local root=$dir/$1 file
  rm -rf "$root"
  cp -a "$dir/busybox" "$root"
  file=$(readlink -f "$(command -v "$3")")
  with_libraries "$root" "$file"
  ln -sf "$file" "$root/bin/$3"
  image "$1" "$2" "$root" "$4"
}
program redis 7 redis-server '{"Env": ["PATH=/bin"], "Cmd": ["redis-server", "--save", "", "--protected-mode", "no"], "ExposedPorts": {"6379/tcp": {}}}'
program curl 8 curl '{"Env": ["PATH=/bin"], "Cmd": ["sh"]}'

rm -rf "$dir"
