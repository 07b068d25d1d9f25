#!/usr/bin/env bash
# Runs each image as strictly as a cluster would: read-only, as a non-root user, without capabilities or new privileges.
# A service must become healthy by its own HEALTHCHECK; a command must print its version. Ends the containers that it
# started.
#
#   images-check.sh TAG
set -euo pipefail

tag=$1
work=$(mktemp -d)
started=()
end() {
  for id in "${started[@]}"; do docker rm --force --volumes "$id" >/dev/null; done
  rm -rf "$work"
}
trap end EXIT

strict=(--read-only --user 65532 --cap-drop ALL --security-opt no-new-privileges)

cat >"$work/ponger.yaml" <<'YAML'
service:
  port: 8080
YAML
cat >"$work/pinger.yaml" <<'YAML'
ponger:
  url: http://127.0.0.1:8080
metrics:
  port: 2112
YAML
cat >"$work/subscriptions.ndjson" <<'JSON'
{"reference":"S1","customer_id":1,"currency":"EUR","amount":"9.90","starts_on":"2024-01-31"}
JSON
chmod -R a+rX "$work"

# service NAME DOCKER-ARGS...: starts a service and waits until its own health check succeeds.
service() {
  local name=$1 id health
  shift
  id=$(docker run --detach "${strict[@]}" "$@" "tinjis/$name:$tag")
  started+=("$id")
  for _ in {1..100}; do
    health=$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$id")
    case $health in
      'running healthy')
        printf '%-10s healthy, uid %s\n' "$name" "$(docker inspect --format '{{.Config.User}}' "$id")"
        return
        ;;
      exited*) break ;;
    esac
    read -rt 0.2 <> <(:) || true
  done
  echo "images-check: $name is $health" >&2
  docker logs "$id" >&2
  exit 1
}

service billing --volume /data
service payments --volume /data --env PAYMENTS_API_TOKEN=TestToken
# Only images contain this build of SQLite: it must have the features that statements need. Runs without a token, so on
# loopback.
service billing --volume /data --env LISTEN=127.0.0.1:8000
docker run --rm "${strict[@]}" --network "container:${started[-1]}" --volume "$work/subscriptions.ndjson:/subscriptions.ndjson:ro" \
  "tinjis/tinjis:$tag" subscriptions import /subscriptions.ndjson >/dev/null
printf '%-10s imports a subscription\n' billing
service ponger --volume "$work/ponger.yaml:/config.yaml:ro"
service pinger --volume "$work/pinger.yaml:/config.yaml:ro"
printf '%-10s %s\n' tinjis "$(docker run --rm "${strict[@]}" "tinjis/tinjis:$tag" --version)"
# A namespace may run the command line, but must not thereby be able to run the other team's service.
reply=$(docker run --rm "${strict[@]}" "tinjis/tinjis:$tag" run payments 2>&1) || true
[[ $reply == *'no service is in this program'* ]] || {
  echo "images-check: tinjis runs a service: $reply" >&2
  exit 1
}
printf '%-10s runs no service\n' tinjis
