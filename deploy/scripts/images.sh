#!/usr/bin/env bash
# Packs binaries that were built on this host into images, tags them, writes each as a tar, and prints sizes. Needs a
# Docker daemon, and no registry. Knows nothing of clusters.
#
#   images.sh BINARIES OUT VERSION REVISION
set -euo pipefail

binaries=$1 out=$2 version=$3 revision=$4
programs=(billing payments pinger ponger tinjis)
bytes_max=10000000 # limit of an image's size
dockerfile=$(dirname "$0")/../Dockerfile

docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || {
  echo "images: no Docker daemon answers. Start one (dockerd), or point DOCKER_HOST at one." >&2
  exit 1
}

context=$out/context
rm -rf "$context"
mkdir -p "$context/data"
for program in "${programs[@]}"; do
  ldd "$binaries/$program" 2>&1 | grep -E 'statically linked|not a dynamic executable' >/dev/null || {
    echo "images: $binaries/$program is not static; 'make dist' makes it so" >&2
    exit 1
  }
  cp "$binaries/$program" "$context/"
done

# The tag contains a hash of the binaries, so that other binaries cause a rollout.
content=$(cd "$context" && sha256sum "${programs[@]}" | sha256sum | cut -c1-8)
tag=$version-$revision-$content

too_big=0
for program in "${programs[@]}"; do
  names=("tinjis/$program:$tag" "tinjis/$program:$version")
  case $program in pinger | ponger) names+=("$program:latest") ;; esac # the names that users of the ping pair know
  DOCKER_BUILDKIT=0 docker build --quiet --file "$dockerfile" --target "packed-$program" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" ${SOURCE:+--build-arg "SOURCE=$SOURCE"} \
    "${names[@]/#/--tag=}" "$context" >"$out/build.log" 2>&1 || {
    cat "$out/build.log" >&2
    exit 1
  }
  docker save --output "$out/$program.tar" "${names[@]}"
  bytes=$(docker image inspect --format '{{.Size}}' "${names[0]}")
  printf '%-10s %5.1f MB  %s\n' "$program" "$(awk "BEGIN { print $bytes / 1e6 }")" "${names[*]}"
  if ((bytes >= bytes_max)); then
    printf '%s is not under %d MB\n' "$program" $((bytes_max / 1000000)) >&2
    too_big=1
  fi
done
echo "$tag" >"$out/tag"
if ((too_big)); then exit 1; fi
