#!/usr/bin/env bash
# Tests a deployed environment from outside, as its users do: health, invoices, a pay call, and the changes that it
# makes.
#
#   test.sh ENV
#
# The access: a running port-forward, else the Ingress, else the NodePort, else a port-forward of its own.
set -euo pipefail

cd "$(dirname "$0")/.."
env=${1:-}
read -ra kubectl <<<"${KUBECTL:-kubectl}"
k() { "${kubectl[@]}" "$@"; }
body=$(mktemp)
forward=
end() {
  rm -f "$body"
  if [[ -n $forward ]]; then kill "$forward" 2>/dev/null || true; fi
}
trap end EXIT

say() { printf '► %s\n' "$*"; }
good() { printf ' ✔ %s\n' "$*"; }
bad() {
  printf ' ✘ %s\n' "$*" >&2
  exit 1
}

# answers WANTED-STATUS CURL-ARGS...: checks the status of a call; the body goes to $body.
answers() {
  local wanted=$1 status
  shift
  status=$(curl --silent --show-error --max-time 40 --output "$body" --write-out '%{http_code}' "$@") || status=unreachable
  [[ $status == "$wanted" ]] || bad "$* answered [$status], not [$wanted]: $(head -c 300 "$body")"
}
reachable() { curl --silent --fail --max-time 3 --output /dev/null "$@"; }

# forwarded NAME PORT: prints the local ports of running port-forwards whose command line contains NAME: first as typed
# (LOCAL:PORT or PORT), then as the process listens, which also finds the port of `:PORT`.
forwarded() {
  local pid words word
  while read -r pid words; do
    [[ $words == *"$1"* ]] || continue
    for word in $words; do
      case $word in
        "$2") echo "$2" ;;
        [0-9]*":$2") echo "${word%:*}" ;;
      esac
    done
    if command -v ss >/dev/null; then
      ss -Hltnp | awk -v pid="pid=$pid," 'index($0, pid) { sub(/.*:/, "", $4); print $4 }'
    elif command -v lsof >/dev/null; then
      lsof -nP -a -p "$pid" -iTCP -sTCP:LISTEN -Fn | sed -n 's/^n.*:\([0-9]*\)$/\1/p'
    fi
  done < <(pgrep -f -a port-forward || true) | awk '!seen[$0]++'
}

# find_way NAMESPACE SERVICE PORT HEALTH NAME [INGRESS]: sets `base` and `host`. NAME is the beginning of the pods'
# names.
find_way() {
  local namespace=$1 service=$2 port=$3 health=$4 name=$5 ingress=${6:-} address node named
  host=()
  while read -r address; do
    base=http://127.0.0.1:$address
    if reachable "$base$health"; then
      good "port-forward to $name, $base"
      return
    fi
  done < <(forwarded "$name" "$port")
  if [[ -n $ingress ]] && k --namespace "$namespace" get ingress "$ingress" >/dev/null 2>&1; then
    # Reads the host from the manifest, which users edit. Without a host every host is served.
    named=$(k --namespace "$namespace" get ingress "$ingress" --output 'jsonpath={.spec.rules[0].host}')
    if [[ -n $named ]]; then host=(--header "Host: $named"); fi
    for address in $named $(k --namespace "$namespace" get ingress "$ingress" --output 'jsonpath={.status.loadBalancer.ingress[*].ip}') \
      $(k get nodes --output 'jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}'); do
      base=http://$address
      if reachable "${host[@]}" "$base$health"; then
        good "Ingress: $ingress on host ${named:-*}, $base"
        return
      fi
    done
    host=()
  fi
  node=$(k --namespace "$namespace" get services --output 'jsonpath={range .items[?(@.spec.type=="NodePort")]}{.spec.ports[0].nodePort}{"\n"}{end}' | head -n 1)
  for address in $(k get nodes --output 'jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}') 127.0.0.1; do
    base=http://$address:$node
    if [[ -n $node ]] && reachable "$base$health"; then
      good "NodePort $node, $base"
      return
    fi
  done
  "${kubectl[@]}" --namespace "$namespace" port-forward "service/$service" ":$port" >"$body" 2>&1 &
  forward=$!
  for _ in {1..50}; do
    base=http://127.0.0.1:$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$body")
    if [[ $base != *: ]] && reachable "$base$health"; then
      good "a port-forward of this test's own, $base"
      return
    fi
    read -rt 0.2 <> <(:) || true
  done
  bad "no answer from $service: no port-forward, no Ingress, no NodePort, and our own port-forward fails: $(<"$body")"
}

show() {
  say "Testing $base$1 ..."
  answers 200 "${host[@]}" "$base$1"
  printf '  ---\n  %s\n  ---\n' "$(<"$body")"
}

wait_ready() {
  say "Waiting up to ${TIMEOUT:-120}s for $env to be ready..."
  scripts/cluster.sh wait "$env" | sed 's/^/  /'
}

# count TEXT: prints how often the text is in the body.
count() { { grep -oF -- "$1" "$body" || true; } | wc -l; }

distribution() {
  answers 200 "${host[@]}" "$base/rest/v1/invoices"
  paid=$(count '"status":"PAID"')
  pending=$(count '"status":"PENDING"')
  printf '  Invoices PAID=%d & PENDING=%d\n' "$paid" "$pending"
}

of_tinjis() {
  local before name
  say 'Starting tests'
  wait_ready
  for name in antaeus payments; do
    printf '  %s\n' "$(k --namespace payments get pods --selector "app=$name" --output \
      'jsonpath={.items[0].metadata.name} using {.items[0].spec.containers[0].image} is available on port {.items[0].spec.containers[0].ports[0].containerPort}')"
  done
  say 'Testing accessibility...'
  find_way payments antaeus-service 8000 /rest/health antaeus antaeus-ingress
  for path in /rest/health /rest/v1/Customers /rest/v1/Customers/1 /rest/v1/invoices /rest/v1/invoices/1; do show "$path"; done
  say 'Testing Payments: Show distribution of INVOICE_STATUS'
  distribution
  before=$paid
  say 'Testing Payments: Making a payment call'
  answers 200 "${host[@]}" -X POST "$base/rest/v1/invoices/pay"
  case $(<"$body") in
    true) good 'Returned true, all invoices are paid' ;;
    false) good 'Returned false, not all invoices paid successfully' ;;
    *) bad "the pay call returned $(<"$body")" ;;
  esac
  distribution
  ((paid >= before)) || bad "$before invoices were PAID, and now $paid are"
  ((before == paid + pending || paid > before)) || say 'Every charge was refused this time; the provider does so'
}

of_invoice-app() {
  local first unpaid
  wait_ready
  find_way invoice-app invoice-app 8081 /healthz invoice-app
  show /invoices
  unpaid=$(count '"IsPaid":false')
  say "$unpaid of 3 invoices are unpaid; paying"
  ((unpaid == 3)) || say 'they were paid before; make reset ENV=invoice-app starts afresh'
  answers 200 -X POST "$base/invoices/pay"
  answers 200 "$base/invoices"
  first=$(<"$body")
  (($(count '"IsPaid":true') == 3)) || bad "not all three are paid: $first"
  for _ in {1..100}; do
    answers 200 --no-keepalive --header 'Connection: close' "$base/invoices"
    [[ $(<"$body") == "$first" ]] || bad "replicas disagree: $(<"$body") and $first"
  done
  good 'SUCCESS: all invoices are paid, and 100 new connections to three replicas agree'
}

of_ping-pong() {
  wait_ready
  for _ in {1..50}; do
    if k --namespace ping-pong logs deployment/pinger --tail 20 >"$body" 2>&1 && grep -q 'Got pong' "$body"; then
      k --namespace ping-pong logs deployment/ponger --all-pods --tail 1 2>/dev/null | tail -n 3 || true
      tail -n 2 "$body"
      good 'the pinger gets its pongs, over mutual TLS'
      return
    fi
    read -rt 0.2 <> <(:) || true
  done
  bad "the pinger gets no pong: $(tail -n 5 "$body")"
}

declare -F "of_$env" >/dev/null || bad "what to look at in \"$env\" is not written here; of staging and production make doctor ENV=… and make e2e tell"
"of_$env"
echo '✔ All Tests Done'
