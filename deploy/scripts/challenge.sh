#!/usr/bin/env bash
# The whole challenge: deploys the first environment, calls pay until it answers true, and cleans up.
#
#   challenge.sh            KEEP=1 leaves it deployed
set -euo pipefail

cd "$(dirname "$0")/../.."
read -ra kubectl <<<"${KUBECTL:-kubectl}"
calls_max=60
began=$SECONDS
out=$(mktemp)
forward=
end() {
  if [[ -n $forward ]]; then kill "$forward" 2>/dev/null || true; fi
  rm -f "$out"
  if [[ -z ${KEEP:-} ]]; then make destroy ENV=tinjis; fi
}
trap end EXIT

make deploy ENV=tinjis
"${kubectl[@]}" --namespace payments port-forward service/antaeus-service :8000 >"$out" 2>&1 &
forward=$!
for _ in {1..50}; do
  port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$out")
  if [[ -n $port ]]; then break; fi
  read -rt 0.2 <> <(:) || true
done
answer=
for ((call = 1; call <= calls_max; call++)); do
  answer=$(curl --silent --show-error --fail --max-time 10 -X POST "http://127.0.0.1:$port/rest/v1/invoices/pay")
  printf 'pay, call %d: %s\n' "$call" "$answer"
  if [[ $answer == true ]]; then break; fi
done
curl --silent --fail "http://127.0.0.1:$port/rest/v1/invoices"
echo
[[ $answer == true ]] || {
  echo "after $calls_max calls not all invoices are paid" >&2
  exit 1
}
took=$((SECONDS - began))
printf 'from nothing to all paid: %d s\n' "$took"
((took <= ${CHALLENGE_MAX:-60})) || {
  echo "that is more than ${CHALLENGE_MAX:-60} s (CHALLENGE_MAX)" >&2
  exit 1
}
