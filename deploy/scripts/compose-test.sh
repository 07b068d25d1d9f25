#!/usr/bin/env bash
# Runs the commands of docker-compose users and checks the results: first the plain `up`, then each profile. Removes
# everything that it started, volumes too.
#
#   compose-test.sh [PROFILE...]     plain is the first; all when none is named
set -euo pipefail

cd "$(dirname "$0")/../.."
export COMPOSE_PROJECT_NAME=tinjis-test
compose=(docker-compose)
docker-compose version >/dev/null 2>&1 || compose=(docker compose)

down() { "${compose[@]}" --profile invoice-app --profile ping-pong --profile metrics down --volumes --remove-orphans >/dev/null 2>&1; }
fail() {
  printf 'compose-test: %s\n' "$*" >&2
  "${compose[@]}" logs --tail 20 >&2 || true
  exit 1
}
trap down EXIT

# until_answers WANTED COMMAND...: waits at most 30 s until the command's output matches.
until_answers() {
  local wanted=$1 got
  shift
  for _ in {1..150}; do
    got=$("$@" 2>&1) || true
    if [[ $got =~ $wanted ]]; then
      printf '  %-44s %.100s\n' "$wanted" "$got"
      return
    fi
    read -rt 0.2 <> <(:) || true
  done
  fail "wanted $wanted of $*; got: $got"
}
get() { curl --silent --show-error --max-time 10 "$@"; }
status() { get --output /dev/null --write-out '%{http_code}' "$@"; }

plain() {
  local charge='{"customer_id":1,"currency":"USD", "value":1.25}' billing=http://127.0.0.1:8000 payments=http://127.0.0.1:9000
  "${compose[@]}" up --detach >/dev/null 2>&1 || fail 'up'
  until_answers '^"ok"$' get "$billing/rest/health"
  until_answers '^\{"result":"(true|false)"\}$' get -X POST "$payments/" -H 'X-Token: TestToken' -H 'Content-Type: application/json' -d "$charge"
  until_answers '^403$' status -X POST "$payments/" -H 'Content-Type: application/json' -d "$charge"
  until_answers '^\[\{"id":1,"currency":"USD"\},\{"id":2,"currency":"DKK"\}\]$' get "$billing/rest/v1/Customers"
  until_answers '^\{"id":1,"currency":"USD"\}$' get "$billing/rest/v1/Customers/1"
  until_answers '"status":"PAID"\}$' get "$billing/rest/v1/invoices/1"
  until_answers '"id":10,.*"status":"PENDING"' get "$billing/rest/v1/invoices"
  until_answers '^(true|false)$' get -X POST "$billing/rest/v1/invoices/pay"
  until_answers '^true$' get -X POST "$billing/rest/v1/invoices/pay"
  for line in 'Authenticated user antaeus' 'Unauthenticated user' '"customer_id":1,"currency":"USD", "value":1.25'; do
    "${compose[@]}" logs payments 2>&1 | grep -F "$line" >/dev/null || fail "payments does not log: $line"
  done
}

invoice-app() {
  "${compose[@]}" --profile invoice-app up --detach >/dev/null 2>&1 || fail 'up --profile invoice-app'
  for port in 8081 8082 8083; do until_answers '"InvoiceId":"I1"' get "http://127.0.0.1:$port/invoices"; done
  until_answers '^\{\}$' get -X POST http://127.0.0.1:8081/invoices/pay
  for port in 8081 8082 8083; do
    until_answers '^\[[^[]*\]$' get "http://127.0.0.1:$port/invoices"
    if [[ $(get "http://127.0.0.1:$port/invoices") != *'"IsPaid":true'*'"IsPaid":true'*'"IsPaid":true'* ]]; then
      fail "the replica on $port has unpaid invoices"
    fi
  done
}

ping-pong() {
  "${compose[@]}" --profile ping-pong up --detach ponger pinger >/dev/null 2>&1 || fail 'up --profile ping-pong'
  until_answers '^pong$' get http://127.0.0.1:8080/ping
  until_answers 'Got pong' "${compose[@]}" logs pinger
}

metrics() {
  "${compose[@]}" --profile metrics up --detach >/dev/null 2>&1 || fail 'up --profile metrics'
  for job in billing payments; do
    until_answers "\"job\":\"$job\".*\"value\":\\[[0-9.]*,\"1\"\\]" get "http://127.0.0.1:9090/api/v1/query?query=up%7Bjob=%22$job%22%7D"
  done
}

profiles=("$@")
((${#profiles[@]})) || profiles=(plain invoice-app ping-pong metrics)
for profile in "${profiles[@]}"; do
  printf '%s\n' "$profile"
  "$profile"
  down
done
