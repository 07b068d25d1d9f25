# shellcheck shell=bash disable=SC2154,SC2034
# Measures the claims of the pages of docs/explanation/kubernetes about their objects; e2e.sh sources it. Each claim is
# a verdict that can be red, and the pages quote the numbers of the verdicts.

# Longest pause of a single pod: 5 s until SIGTERM, 26 s to finish, and a start.
pause_max=${PAUSE_MAX:-40}

# answered NAMESPACE NAME ADMIN ROUTE: prints how many requests of a route each pod has answered, one pod per line.
answered() {
  local pod
  while read -r pod _; do
    metrics "$1" "$pod" "$3" | awk -v pod="$pod" -v route="route=\"$4\"" '/^http_requests_total\{/ && index($0, route) { sum += $NF } END { print pod, sum + 0 }'
  done < <(pods "$1" "$2")
}

# shares NAMESPACE NAME ADMIN PORT PATH: sets `share` to the numbers of one client's requests that the pods answered,
# largest first, such as `1000 0 0`. The client is that of `load`, with its variables.
shares() {
  local before after
  before=$(answered "$1" "$2" "$3" "${5%%\?*}")
  load "$1" "$2" "$4" "$5" 1
  load_ends "$1" "a client of $2, ${CONNECTIONS:-kept connections} and $IN_FLIGHT in flight"
  after=$(answered "$1" "$2" "$3" "${5%%\?*}")
  share=$(join <(echo "$before") <(echo "$after") | awk '{ print $3 - $2 }' | sort -rn | xargs)
}

# balanced: checks that a Service chooses a pod for each connection, not for each request.
balanced() {
  local share first second third
  local -x SECRET=invoice-app-secrets TOKEN=--payments-api-token-file=PAYMENTS_API_TOKEN REST_MS=0
  CONNECTIONS='' IN_FLIGHT=1 shares invoice-app payment-provider 9001 8082 '/v1/ledger?limit=1'
  read -r first second third <<<"$share"
  ((first >= requests_min && second == 0 && third == 0)) || red "one kept connection did not stay at one pod: $share"
  verdict "one kept connection: three pods answered $share requests"
  CONNECTIONS='' IN_FLIGHT=64 shares invoice-app payment-provider 9001 8082 '/v1/ledger?limit=1'
  read -r first second third <<<"$share"
  ((third > 0)) || red "64 kept connections left a pod without requests: $share"
  verdict "64 kept connections: three pods answered $share requests"
  CONNECTIONS=--fresh IN_FLIGHT=4 shares invoice-app payment-provider 9001 8082 '/v1/ledger?limit=1'
  read -r first second third <<<"$share"
  ((third * 4 > first + second + third)) || red "a connection for each request left a pod with less than a quarter: $share"
  verdict "a connection for each request: three pods answered $share requests"
}

# evict NAMESPACE POD
evict() {
  k create --raw "/api/v1/namespaces/$1/pods/$2/eviction" --filename - <<JSON
{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"$2","namespace":"$1"}}
JSON
}

# tenths MICROSECONDS: prints seconds with one decimal.
tenths() { printf '%d.%d' $(($1 / 1000000)) $(($1 / 100000 % 10)); }

# paused NAMESPACE NAME SERVICE PATH: evicts the only pod, as a drain does, and measures how long a client that calls a
# NodePort every 100 ms gets no answer. The next pod must answer before the deadline.
paused() {
  local address pod now began first='' last='' failed=0 good=0 deadline
  address=$(k get nodes --output 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}'):$(k --namespace "$1" get service "$3" --output 'jsonpath={.spec.ports[0].nodePort}')
  if ! curl --silent --fail --max-time 3 --output /dev/null "http://$address$4"; then
    not_run "the pause of a single pod, for $address does not answer from here"
    return
  fi
  pod=$(pods "$1" "$2" | cut -d' ' -f1)
  k --namespace "$1" get poddisruptionbudgets --output name | grep -F "/$2" && red "$2 has one pod and a budget"
  evict "$1" "$pod" >/dev/null || red "the only pod of $2 could not be evicted"
  began=${EPOCHREALTIME/./} deadline=$((SECONDS + 2 * pause_max))
  # Waits until the next pod answers: 20 answers after the evicted pod is gone.
  while ((good < 20)); do
    now=${EPOCHREALTIME/./}
    if curl --silent --fail --max-time 1 --output /dev/null "http://$address$4"; then
      if [[ -n $first ]] || ! k --namespace "$1" get pod "$pod" >/dev/null 2>&1; then good=$((good + 1)); fi
    else
      first=${first:-$now} last=${EPOCHREALTIME/./} good=0 failed=$((failed + 1))
    fi
    ((SECONDS < deadline)) || red "$2 does not answer $((2 * pause_max)) s after its eviction"
    read -rt 0.1 <> <(:) || true
  done
  if [[ -z $first ]]; then
    verdict "the only pod of $2 was evicted, and no request failed"
    return
  fi
  (((last - first) / 1000000 <= pause_max)) || red "the pause of $2 took $(((last - first) / 1000000)) s"
  verdict "the only pod of $2 was evicted: $(tenths $((first - began))) s later no answer for $(tenths $((last - first))) s, $failed requests failed"
}

# drained NAMESPACE NAME PORT PATH [NAME...]: drains the only node of these workloads while a client calls the first
# workload. The budget lets one pod of each workload go. Its replacement finds no node, so no other pod may go, and the
# drain does not end.
drained() {
  local namespace=$1 of=$2 port=$3 path=$4 node reply name left began
  shift 4
  set -- "$of" "$@"
  if (($(k get nodes --output name | wc -l) != 1)); then
    not_run 'a drain that finds no other node, for there is another one'
    return
  fi
  node=$(k get nodes --output 'jsonpath={.items[0].metadata.name}')
  load "$namespace" "$of" "$port" "$path" 600
  cordoned=$node
  if reply=$(k drain "$node" --pod-selector "app.kubernetes.io/name in ($(tr ' ' , <<<"$*"))" --delete-emptydir-data --ignore-daemonsets --timeout=45s 2>&1); then
    red "a drain of the only node ended, whatever the budget: $reply"
  fi
  [[ $reply == *"would violate the pod's disruption budget"* ]] || red "the drain did not fail by the budget: $reply"
  for name; do
    left=$(k --namespace "$namespace" get deployment "$name" --output json | jq --raw-output '"\(.status.readyReplicas // 0) of \(.spec.replicas)"')
    ((${left%% *} == ${left##* } - 1)) || red "the drain left $left pods of $name"
  done
  began=$SECONDS
  k uncordon "$node" >/dev/null
  cordoned=
  for name; do whole_again "$namespace" "$name"; done
  verdict "a drain of the only node: the budget let one pod of each workload go ($left left) and blocked the rest; $((SECONDS - began)) s after uncordon all were ready"
  load_stops "$namespace" 'calls during the drain'
}

# quota NAMESPACE: checks that pods above the quota are refused, and every NodePort.
quota() {
  local reply hard used deadline=$((SECONDS + 60))
  hard=$(k --namespace "$1" get resourcequota team --output 'jsonpath={.spec.hard.pods}')
  reply=$(k --namespace "$1" create service nodeport e2e-quota --tcp=1 --dry-run=server 2>&1 || true)
  [[ $reply == *'exceeded quota: team'* ]] || red "$1 may have a NodePort: $reply"
  k --namespace "$1" apply --filename - >/dev/null <<YAML
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: e2e-quota}
spec:
  replicas: $((hard + 1))
  selector: {matchLabels: {tinjis/e2e: quota}}
  template:
    metadata: {labels: {tinjis/e2e: quota}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: rest
          image: tinjis/tinjis:$tag
          imagePullPolicy: IfNotPresent
          args: [run, load, --url=http://127.0.0.1:1/, --seconds=600, --rest-ms=5000, --in-flight=1]
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
YAML
  until reply=$(k --namespace "$1" get replicaset e2e-quota --output 'jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}') && [[ -n $reply ]]; do
    ((SECONDS < deadline)) || red "no pod was refused by the quota of $1"
    read -rt 0.5 <> <(:) || true
  done
  [[ $reply == *'exceeded quota: team'* ]] || red "a pod of $1 was refused, but not by the quota: $reply"
  used=$(k --namespace "$1" get resourcequota team --output 'jsonpath={.status.used.pods}')
  k --namespace "$1" delete replicaset e2e-quota --wait >/dev/null
  k --namespace "$1" wait --for=delete pod --selector tinjis/e2e=quota --timeout=90s >/dev/null
  ((used == hard)) || red "the quota of $1 ended at $used pods of $hard"
  verdict "the quota of $1: a ReplicaSet got pods up to $used of $hard and no more ($(grep -o 'exceeded quota.*' <<<"$reply")); a NodePort was refused"
}
