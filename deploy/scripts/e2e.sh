#!/usr/bin/env bash
# Tests every environment on a real cluster, from installation to deletion: installs it, tests it from outside, updates
# it and deletes pods under load, judges it, and deletes it without leftovers. Each verdict is a line; the first red one
# ends the run.
#
#   e2e.sh ENV...
set -euo pipefail

cd "$(dirname "$0")/../.."
read -ra kubectl <<<"${KUBECTL:-kubectl}"
k() { "${kubectl[@]}" "$@"; }
command -v jq >/dev/null || {
  echo 'e2e: there is no jq here, and it reads what the cluster says' >&2
  exit 1
}
tag=$(<"$IMAGES/tag")
out=${OUT:?}
mkdir -p "$out"
requests_min=1000
ready_max=${READY_MAX:-3} # seconds; a busy machine needs more, and says nothing about it
verdicts=0

verdict() {
  verdicts=$((verdicts + 1))
  printf '✔ %s\n' "$*"
}
red() {
  printf '✘ %s\n' "$*" >&2
  exit 1
}
# not_run TEXT: prints that a test is skipped, now and again at the end.
left_out=()
not_run() {
  printf 'NOT RUN: %s\n' "$*"
  left_out+=("$*")
}
step() { printf '\n== %s (%d s)\n' "$*" $SECONDS; }

# everything: lists all objects of the cluster, except kinds that come and go by themselves, and objects of other users,
# which E2E_OTHERS (a pattern of kind, namespace and name) excludes.
everything() {
  k api-resources --verbs=list,delete --output name | grep -vE '^(events|leases|endpoints|endpointslices|componentstatuses|podmetrics|nodemetrics|certificaterequests|ciliumendpoints)(\.|$)' |
    while read -r kind; do k get "$kind" --all-namespaces --no-headers --output custom-columns=N:.metadata.namespace,A:.metadata.name 2>/dev/null | awk -v kind="$kind" '{ print kind, $1, $2 }'; done |
    grep -vE '^(pods|replicasets\.apps|serviceaccounts|configmaps|controllerrevisions.*) kube-system ' |
    grep -vE "${E2E_OTHERS:-^$}" | sort
}

# pods NAMESPACE NAME: prints name and UID of each pod of a workload that is not being deleted.
pods() {
  k --namespace "$1" get pods --selector "app.kubernetes.io/name=$2,app.kubernetes.io/instance=$2" --output json |
    jq --raw-output '.items[] | select(.metadata.deletionTimestamp == null) | "\(.metadata.name) \(.metadata.uid)"' | sort
}

# metrics NAMESPACE POD PORT: prints the metrics of a pod.
metrics() { k get --raw "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics"; }

# looked_at NAMESPACE NAME ADMIN: checks that each pod has the revision under test, and was ready soon after its start.
looked_at() {
  local pod seconds count=0 revision=${tag#*-}
  revision=${revision%-*}
  while read -r pod _; do
    # Not `grep -q`: it ends before it has read everything, and the writer would then fail.
    metrics "$1" "$pod" "$3" | grep "^build_info{.*revision=\"$revision\"" >/dev/null || red "$pod is not of revision $revision"
    seconds=$(k --namespace "$1" get pod "$pod" --output json | jq '
      (.status.conditions[] | select(.type == "Ready") | .lastTransitionTime | fromdate)
      - (.status.containerStatuses[0].state.running.startedAt | fromdate)')
    ((seconds <= ready_max)) || red "$pod took $seconds s from its start until it was ready"
    printf '  %s, revision %s, ready after %s s\n' "$pod" "$revision" "$seconds"
    count=$((count + 1))
  done < <(pods "$1" "$2")
  ((count)) || red "$2 has no pod"
  verdict "$2: every pod reports the revision under test and was ready within $ready_max s"
}

# way NAMESPACE OF PORT: allows this test's own pods in the namespace to call a workload, and to resolve its names.
way() {
  k --namespace "$1" apply --filename - >/dev/null <<YAML
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: e2e-way-in}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: $2, app.kubernetes.io/instance: $2}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {tinjis/e2e: client}}}], ports: [{port: $3, protocol: TCP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: e2e-way-out}
spec:
  podSelector: {matchLabels: {tinjis/e2e: client}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app.kubernetes.io/name: $2, app.kubernetes.io/instance: $2}}}]
    - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
      ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
YAML
}

# load NAMESPACE OF PORT PATH SECONDS [ARG...]: starts a client pod in the background that calls a workload's Service.
# If SECRET is set, the client sends a token of this Secret: TOKEN has its flag and its key. REST_MS and IN_FLIGHT set
# the rate. CONNECTIONS is --fresh, or empty for kept connections.
load() {
  local namespace=$1 of=$2 port=$3 url=http://${SERVICE:-$2}:$3$4 seconds=$5 args token=${TOKEN:---operator-token-file=token}
  shift 5
  if [[ -n ${SECRET:-} ]]; then set -- "$@" "${token%%=*}" "/var/run/tinjis/operator-token/${token#*=}"; fi
  if [[ -n ${CONNECTIONS---fresh} ]]; then set -- "$@" --fresh; fi
  args=$(printf '"%s", ' run load --url "$url" --requests "$requests_min" --seconds "$seconds" --rest-ms "${REST_MS:-50}" --in-flight "${IN_FLIGHT:-4}" "$@")
  way "$namespace" "$of" "$port"
  k --namespace "$namespace" apply --filename - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: e2e-load, labels: {tinjis/e2e: client}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: load
      image: tinjis/tinjis:$tag
      imagePullPolicy: IfNotPresent
      args: [${args%, }]
      resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: "1", memory: 128Mi}}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
${SECRET:+      volumeMounts: [{name: operator-token, mountPath: /var/run/tinjis/operator-token, readOnly: true\}]
  volumes: [{name: operator-token, secret: {secretName: $SECRET, defaultMode: 0444\}\}]}
YAML
  k --namespace "$namespace" wait --for=condition=Ready pod/e2e-load --timeout=60s >/dev/null
}

# load_over NAMESPACE SECONDS: waits until the client has ended, successfully or not.
load_over() {
  local deadline=$((SECONDS + $2)) phase
  while ((SECONDS < deadline)); do
    phase=$(k --namespace "$1" get pod e2e-load --output 'jsonpath={.status.phase}') || true
    if [[ $phase == Succeeded || $phase == Failed ]]; then return; fi
    read -rt 0.5 <> <(:) || true
  done
  red "the client pod is still $phase after $2 s"
}

# load_ends NAMESPACE WHAT: waits for the end of the client; no request may have failed.
load_ends() {
  load_over "$1" 180
  load_said "$1" "$2"
}

load_said() {
  local reply
  reply=$(k --namespace "$1" logs e2e-load | tail -n 1)
  printf '  %s\n' "$reply"
  jq --exit-status ".failed == 0 and .requests >= $requests_min" <<<"$reply" >/dev/null || red "$2: requests failed"
  k --namespace "$1" delete pod e2e-load >/dev/null
  k --namespace "$1" delete networkpolicy e2e-way-in e2e-way-out >/dev/null
  verdict "$2: 0 of $(jq .requests <<<"$reply") requests failed"
}

# load_stops NAMESPACE WHAT: ends the client now, by the kubelet's SIGTERM; it must still be running. The pod is not
# deleted yet, because its last output would be lost.
load_stops() {
  k --namespace "$1" get pod e2e-load --output 'jsonpath={.status.phase}' | grep Running >/dev/null ||
    red "$2: the load ended before what it was to see: $(k --namespace "$1" logs e2e-load | tail -n 1)"
  k --namespace "$1" patch pod e2e-load --type=merge --patch '{"spec":{"activeDeadlineSeconds":1}}' >/dev/null
  load_over "$1" 60
  load_said "$1" "$2"
}

# rolled NAMESPACE NAME: makes a rolling update, then deletes a pod; afterwards every pod is a new one.
rolled() {
  local before after pod
  before=$(pods "$1" "$2")
  k --namespace "$1" rollout restart "deployment/$2"
  whole_again "$1" "$2"
  pod=$(pods "$1" "$2" | head -n 1 | cut -d' ' -f1)
  k --namespace "$1" delete pod "$pod" --wait=false
  whole_again "$1" "$2"
  after=$(pods "$1" "$2")
  printf '  before:\n%s\n  after:\n%s\n' "$before" "$after" | sed 's/^\([^ ]\)/    \1/'
  [[ -z $(comm -12 <(cut -d' ' -f2 <<<"$before" | sort) <(cut -d' ' -f2 <<<"$after" | sort)) ]] || red "$2: a pod outlived its rollout"
}

# whole_again NAMESPACE NAME: waits for the end of a rollout, long enough for six pods of the autoscaler, one by one.
whole_again() {
  k --namespace "$1" rollout status "deployment/$2" --timeout=300s >/dev/null ||
    red "$2 does not become whole: $(k --namespace "$1" get pods --selector "app.kubernetes.io/name=$2" --no-headers)"
}

# evicted NAMESPACE NAME: checks that the budget allows one of two concurrent evictions.
evicted() {
  local pod reply got=()
  k --namespace "$1" rollout status "deployment/$2" --timeout=120s >/dev/null
  for pod in $(pods "$1" "$2" | cut -d' ' -f1 | head -n 2); do
    reply=$(k create --raw "/api/v1/namespaces/$1/pods/$pod/eviction" --filename - 2>&1 <<JSON || true
{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"$pod","namespace":"$1"}}
JSON
    )
    case $reply in
      *'"Success"'*) got+=(allowed) ;;
      *'disruption budget'*) got+=(refused) ;;
      *) got+=("$reply") ;;
    esac
  done
  [[ ${got[*]} == 'allowed refused' ]] || red "$2: evictions were ${got[*]}"
  k --namespace "$1" rollout status "deployment/$2" --timeout=120s >/dev/null
  verdict "$2: of two evictions one was allowed, and one refused by the budget"
}

# forward NAMESPACE SERVICE PORT: starts a port-forward in the background; sets `port`.
forwards=()
forward() {
  # The file of an earlier port-forward could be read before the new one has opened it.
  rm -f "$out/forward.$2"
  "${kubectl[@]}" --namespace "$1" port-forward "service/$2" ":$3" >"$out/forward.$2" 2>&1 &
  forwards+=($!)
  for _ in {1..100}; do
    port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$out/forward.$2" 2>/dev/null) || true
    if [[ -n $port ]]; then return; fi
    read -rt 0.2 <> <(:) || true
  done
  red "no port-forward to $2: $(<"$out/forward.$2")"
}

# legacy_api BILLING-URL PAYMENTS-URL MODULE...: runs the legacy API tests against the deployed services.
legacy_api() {
  local billing=$1 payments=$2
  shift 2
  if ! command -v cargo >/dev/null; then
    not_run 'the wire contract, for there is no cargo here'
    return
  fi
  BILLING_URL=$billing PAYMENTS_URL=$payments cargo test --locked --package tinjis --test legacy_api -- "${@/%/::}" >"$out/legacy_api" 2>&1 ||
    red "the wire contract: $(grep -vE '^test .* ok$' "$out/legacy_api" | tail -n 60)"
  verdict "the wire contract of $*, asked from outside: $(sed -n 's/^test result: ok\. \([0-9]* passed\).*/\1/p' "$out/legacy_api")"
}

of_tinjis() {
  local billing
  looked_at payments antaeus 8001
  looked_at payments payments 9001
  isolated tinjis
  SERVICE=antaeus-service load payments antaeus 8000 /rest/v1/invoices 1
  load_ends payments 'a client pod asks Antaeus for its invoices'
  forward payments antaeus-service 8000
  billing=$port
  forward payments payments-service 9000
  legacy_api "http://127.0.0.1:$billing" "http://127.0.0.1:$port" antaeus payments
  ./k8s-tests.sh >"$out/k8s-tests"
  grep -F "port-forward to antaeus, http://127.0.0.1:$billing" "$out/k8s-tests" >/dev/null || red "k8s-tests.sh did not use the running port-forward on $billing: $(<"$out/k8s-tests")"
  verdict 'k8s-tests.sh uses a running port-forward, whatever its local port'
  make reset ENV=tinjis >/dev/null
  make test ENV=tinjis | grep 'Invoices PAID=2 & PENDING=8' >/dev/null || red 'reset did not bring the first invoices back'
  verdict 'reset: two PAID and eight PENDING again'
  paused payments antaeus antaeus-test-service /rest/health
}

of_ping-pong() {
  local pod failed
  looked_at ping-pong ponger 2112
  looked_at ping-pong pinger 2112
  rolled ping-pong ponger
  pod=$(pods ping-pong pinger | cut -d' ' -f1)
  failed=$(metrics ping-pong "$pod" 2112 | awk '/^ping_requests_total\{/ && !/success/ { sum += $NF } END { print sum + 0 }')
  ((failed == 0)) || red "$failed pings failed while every ponger was replaced"
  verdict "no ping failed while every ponger was replaced, $(metrics ping-pong "$pod" 2112 | awk '/^ping_requests_total\{.*success/ { print $NF }') went well"
  evicted ping-pong ponger
  # The doctor comes last: otherwise the eviction test and the doctor could disturb each other by the budget.
  isolated ping-pong
}

of_invoice-app() {
  local billing payments
  looked_at invoice-app invoice-app 8001
  looked_at invoice-app payment-provider 9001
  isolated invoice-app
  load invoice-app invoice-app 8081 /invoices 45
  rolled invoice-app invoice-app
  rolled invoice-app payment-provider
  load_ends invoice-app 'both services are replaced, and pods deleted'
  evicted invoice-app invoice-app
  balanced
  drained invoice-app invoice-app 8081 /invoices payment-provider
  forward invoice-app invoice-app 8081
  billing=$port
  forward invoice-app payment-provider 8082
  payments=$port
  legacy_api "http://127.0.0.1:$billing" '' invoice_app
  "$TINJIS" verify --json --billing "http://127.0.0.1:$billing" --payments "http://127.0.0.1:$payments" --payments-api-token TestToken |
    tee "$out/verify.json" | jq --exit-status '.verdict == "ok" and .charges == 3' >/dev/null || red "verify: $(<"$out/verify.json")"
  verdict 'verify: three invoices, three charges'
}

# shellcheck disable=SC1091
. deploy/scripts/e2e-production.sh
# shellcheck disable=SC1091
. deploy/scripts/e2e-doctor.sh
# shellcheck disable=SC1091
. deploy/scripts/e2e-alerts.sh
# shellcheck disable=SC1091
. deploy/scripts/e2e-figures.sh

cordoned= # a node that accepts no pods at the moment
end() {
  local status=$?
  if [[ -n $cordoned ]]; then k uncordon "$cordoned" >/dev/null || true; fi
  if ((${#forwards[@]})); then kill "${forwards[@]}" 2>/dev/null || true; fi
  ((status == 0)) || printf '\ne2e: RED after %d s\n' $SECONDS >&2
}
trap end EXIT

# prepared ENV: installs what the environment expects of its cluster; fails where that is not possible.
prepared() {
  case $1 in
    staging | production | alerts) make prerequisites ;;
  esac
}

# installed ENV, destroyed ENV: run the commands that users run.
installed() {
  case $1 in
    tinjis)
      ./k8s-check.sh >/dev/null
      ./k8s-deploy.sh
      ./k8s-test.sh
      ./k8s-tests.sh
      ;;
    # Without the variable this command would create a cluster.
    ping-pong) KUBECONFIG=${KUBECONFIG:-$HOME/.kube/config} make run-local-kube-with-ping-pong-app ;;
    invoice-app)
      ./deploy.sh
      ./test.sh
      ;;
    alerts) alerts_installed ;;
    *) make deploy "ENV=$1" ;;
  esac
}

destroyed() {
  case $1 in
    tinjis) ./k8s-destroy.sh ;;
    alerts) alerts_destroyed ;;
    *) make destroy "ENV=$1" ;;
  esac
}

# gone ENV: deletes the environment, and checks that nothing is left.
gone() {
  local left deadline=$((SECONDS + 60))
  destroyed "$1" >/dev/null
  case $1 in
    staging | production | alerts) make prerequisites-gone >/dev/null ;;
  esac
  while :; do
    everything >"$out/after"
    left=$(comm -13 "$out/before" "$out/after")
    if [[ -z $left ]]; then break; fi
    ((SECONDS < deadline)) || red "$1 left behind: $left"
    read -rt 1 <> <(:) || true
  done
  verdict "$1 is gone, and left nothing behind: $(wc -l <"$out/after") objects as before"
}

# challenged: runs the one command for the whole challenge, from nothing to all paid and to nothing again, within a time
# limit.
challenged() {
  ./run-challenge.sh | tee "$out/challenge"
  verdict "run-challenge.sh, $(grep 'from nothing' "$out/challenge")"
  gone tinjis
}

printf 'images %s on %s\n' "$tag" "$(k version --output json 2>/dev/null | jq --raw-output '.serverVersion.gitVersion')"
for env in "$@"; do
  step "$env"
  if [[ $env == staging || $env == production || $env == alerts ]] && ! k get customresourcedefinition clusterissuers.cert-manager.io >/dev/null 2>&1; then
    not_run "$env asks cert-manager for certificates, and this cluster has none"
    continue
  fi
  if [[ $env == alerts ]] && ! k get customresourcedefinition prometheusrules.monitoring.coreos.com >/dev/null 2>&1; then
    red 'the alerts need the Prometheus operator on the cluster'
  fi
  everything >"$out/before"
  prepared "$env"
  installed "$env"
  "of_$env"
  if ((${#forwards[@]})); then kill "${forwards[@]}" 2>/dev/null || true; fi
  forwards=()
  gone "$env"
  if [[ $env == tinjis ]]; then challenged; fi
done
printf '\ne2e: green, %d verdicts in %d s\n' "$verdicts" $SECONDS
for what in "${left_out[@]}"; do printf 'e2e: NOT RUN: %s\n' "$what"; done
