#!/usr/bin/env bash
# Packs foreign programs that run beside ours, for machines without a registry: Debian's PostgreSQL (installed on this
# host) and Prometheus (its package is downloaded), without a base image, under the tags that compose and the
# development environments name. Also kube-state-metrics, built from its Go module for the alerts' part of e2e. Needs a
# Docker daemon.
#
#   images-more.sh OUT postgres|prometheus|kube-state-metrics...
set -euo pipefail

out=$1
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# with_libraries ROOT PROGRAM...: copies programs, and every library that they load, to ROOT.
with_libraries() {
  local root=$1 program library
  shift
  for program in "$@"; do
    install -D "$program" "$root$program"
    ldd "$program" | awk '$3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
      [[ -e $root$library ]] || install -D "$(realpath "$library")" "$root$library"
    done
  done
}

pack() { # pack ROOT NAME FILE
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$2" "$1" >/dev/null 2>&1 || { echo "images-more: $2 does not build" >&2; exit 1; }
  docker save --output "$out/$3.tar" "$2"
  printf '%-24s %5.1f MB\n' "$2" "$(awk "BEGIN { print $(docker image inspect --format '{{.Size}}' "$2") / 1e6 }")"
}

postgres() {
  local root=$work/postgres home=/usr/lib/postgresql/15 share=/usr/share/postgresql/15
  [[ -x $home/bin/postgres ]] || {
    echo "images-more: Debian's postgresql-15 is not installed here" >&2
    exit 1
  }
  with_libraries "$root/rootfs" "$home"/bin/{postgres,initdb,pg_ctl,pg_isready,psql,pg_dump} "$home"/lib/{plpgsql,dict_snowball}.so /bin/dash
  mkdir -p "$root/rootfs"{/etc,"$share",/tmp,/usr/bin,/var/run/postgresql,/docker-entrypoint-initdb.d}
  mkdir -p "$root/data/data"
  chmod 1777 "$root/data/data"
  cp -a "$share/." "$root/rootfs$share/"
  cp -a /usr/share/zoneinfo "$root/rootfs/usr/share/" # the server reads it at start
  ln -s dash "$root/rootfs/bin/sh"
  for program in "$root/rootfs$home"/bin/*; do ln -s "$home/bin/${program##*/}" "$root/rootfs/usr/bin/${program##*/}"; done
  printf 'postgres:x:65532:65532::/var/lib/postgresql:/bin/sh\n' >"$root/rootfs/etc/passwd"
  printf 'postgres:x:65532:\n' >"$root/rootfs/etc/group"
  install -m 755 "$(dirname "$0")/postgres-entrypoint.sh" "$root/rootfs/docker-entrypoint.sh"
  cat >"$root/Dockerfile" <<'DOCKERFILE'
FROM scratch
COPY rootfs /
COPY --chown=65532:65532 data /var/lib/postgresql
ENV PATH=/usr/bin:/bin PGDATA=/var/lib/postgresql/data
USER 65532:65532
EXPOSE 5432
HEALTHCHECK --interval=5s --timeout=3s CMD ["/usr/bin/pg_isready", "--host=127.0.0.1", "--username=postgres"]
ENTRYPOINT ["/bin/sh", "/docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
  pack "$root" postgres:15 postgres
}

prometheus() {
  local root=$work/prometheus
  (cd "$work" && apt-get download -qq prometheus && dpkg-deb --extract prometheus_*.deb prometheus-files)
  install -D "$work/prometheus-files/usr/bin/prometheus" "$work/bin/prometheus"
  with_libraries "$root/rootfs" "$work/bin/prometheus"
  mv "$root/rootfs$work/bin" "$root/rootfs/bin"
  rm -rf "$root/rootfs/tmp"
  mkdir -p "$root/rootfs/etc/prometheus" "$root/data"
  cat >"$root/Dockerfile" <<'DOCKERFILE'
FROM scratch
COPY rootfs /
COPY --chown=65534:65534 data /prometheus
USER 65534:65534
WORKDIR /prometheus
EXPOSE 9090
HEALTHCHECK NONE
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
DOCKERFILE
  pack "$root" prom/prometheus:v2.42.0 prometheus
}

# Includes the time zones, which CronJobs name and no scratch image has.
kube-state-metrics() {
  local root=$work/kube-state-metrics
  mkdir -p "$root"
  (cd "$(dirname "$0")/../kube-state-metrics" && CGO_ENABLED=0 go build -tags timetzdata -trimpath -ldflags='-s -w' -o "$root/kube-state-metrics" k8s.io/kube-state-metrics/v2)
  cat >"$root/Dockerfile" <<'DOCKERFILE'
FROM scratch
COPY kube-state-metrics /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/kube-state-metrics"]
DOCKERFILE
  pack "$root" kube-state-metrics:v2.15.0 kube-state-metrics
}

for wanted in "${@:2}"; do "$wanted"; done
