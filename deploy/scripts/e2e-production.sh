# shellcheck shell=bash disable=SC2154
# Production's part of e2e.sh, which sources it: two namespaces, mutual TLS, and no access except by the Ingress.

# Number of invoices of one import, so that a pay run lasts through all of the following steps.
batch=1000

# scaled: checks that a Deployment begins with one pod, and that this pod is up.
scaled() {
  local name
  for name in antaeus payments; do
    k --namespace "$name" wait --for=jsonpath='{.status.readyReplicas}'=3 "deployment/$name" --timeout=90s >/dev/null ||
      red "the autoscaler did not bring $name to three pods"
  done
  verdict 'the autoscaler has brought both services to three pods'
}

# grown: checks that under load the autoscaler adds pods, by the CPU that it reads.
grown() {
  local reply
  if ! k get --raw /apis/metrics.k8s.io/v1beta1 >/dev/null 2>&1; then
    not_run 'scaling under load, for this cluster measures no CPU'
    return
  fi
  for _ in {1..120}; do
    reply=$(k --namespace antaeus get horizontalpodautoscaler antaeus --output json |
      jq --raw-output '"\(.status.currentReplicas) pods, CPU at \(.status.currentMetrics[0].resource.current.averageUtilization) % of what they ask for"')
    if ((${reply%% *} > 3)); then
      verdict "under load the HorizontalPodAutoscaler scaled antaeus from three pods to $reply"
      return
    fi
    read -rt 1 <> <(:) || true
  done
  red "the HorizontalPodAutoscaler did not scale up under load: $reply"
}

of_production() {
  scaled
  looked_at antaeus antaeus 8001
  looked_at payments payments 9001

  # Runs are started during all changes: no call may fail, and no invoice may be charged twice. The legacy routes are
  # off.
  invoices=0
  SECRET=operator-token load antaeus antaeus 8000 /v1/runs 900 --post
  bring $batch
  renewed payments payments-tls
  renewed antaeus antaeus-client-tls
  token_changed
  bring $batch
  rolled payments payments
  bring $batch
  grown
  rolled antaeus antaeus
  load_stops antaeus 'starts of runs while certificates, the token and both services are replaced, and pods deleted'
  judge
  evicted payments payments
  evicted antaeus antaeus
  refused_images
  roles antaeus invoices invoices payments
  roles payments payments ledger invoices
  by_ingress antaeus.example.com
  scraped
  doctored
}

# Staging is production under another name, on a cluster of its own; here it is installed, pays, and is judged.
of_staging() {
  scaled
  looked_at antaeus antaeus 8001
  looked_at payments payments 9001
  isolated staging
  invoices=0
  bring $batch
  SECRET=operator-token load antaeus antaeus 8000 /v1/runs 5 --post
  load_ends antaeus 'starts of runs in staging'
  judge
  left_alone staging
  by_ingress antaeus.staging.example.com
  scraped
  quota antaeus
}

# bring COUNT: imports this many more invoices, by an operator's token, over a port-forward to any pod.
bring() {
  local token=$out/operator-token i
  (umask 077 && k --namespace antaeus get secret operator-token --output 'jsonpath={.data.token}' | base64 --decode >"$token")
  {
    echo reference,customer_id,currency,amount
    for ((i = invoices + 1; i <= invoices + $1; i++)); do echo "e2e-$i,$((i % 7 + 1)),EUR,$((i % 900 + 10)).25"; done
  } >"$out/invoices.csv"
  invoices=$((invoices + $1))
  : >"$out/import"
  # A port-forward ends with its pod, or when a connection breaks; rows that were written before stay, and are not
  # written twice.
  for i in {1..5}; do
    forward antaeus antaeus 8000
    "$TINJIS" import "$out/invoices.csv" --billing "http://127.0.0.1:$port" --operator-token-file "$token" >>"$out/import" 2>&1 && i=in
    kill "${forwards[-1]}" 2>/dev/null || true
    unset 'forwards[-1]'
    if [[ $i == in ]]; then break; fi
  done
  rm "$token"
  [[ $i == in ]] || red "import: $(tail -n 5 "$out/import")"
}

# renewed NAMESPACE NAME: makes cert-manager renew the certificate, as it does before its end.
renewed() {
  local before after
  before=$(k --namespace "$1" get secret "$2" --output 'jsonpath={.data.tls\.crt}' | sha256sum)
  k --namespace "$1" patch certificate "$2" --subresource=status --type=merge --patch \
    '{"status":{"conditions":[{"type":"Issuing","status":"True","reason":"ManuallyTriggered","message":"e2e"}]}}' >/dev/null
  for _ in {1..150}; do
    after=$(k --namespace "$1" get secret "$2" --output 'jsonpath={.data.tls\.crt}' | sha256sum)
    if [[ $after != "$before" ]]; then
      verdict "$2 was renewed under load"
      return
    fi
    read -rt 0.2 <> <(:) || true
  done
  red "$2 was not renewed"
}

# by_ingress HOST: calls the Ingress from outside, by its name, and verifies its certificate with the CA.
by_ingress() {
  local address reply
  if ! k get namespace traefik >/dev/null 2>&1; then
    not_run 'the Ingress by TLS, for there is no Traefik on this cluster'
    return
  fi
  address=$(k get nodes --output 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  k --namespace antaeus get secret antaeus-ingress-tls --output 'jsonpath={.data.ca\.crt}' | base64 --decode >"$out/ca.crt"
  for _ in {1..30}; do
    reply=$(curl --silent --show-error --max-time 10 --cacert "$out/ca.crt" --resolve "$1:443:$address" \
      "https://$1/rest/health" 2>&1 || true)
    if [[ $reply == '"ok"' ]]; then
      verdict "the Ingress answers by TLS at https://$1, with the certificate of the authority"
      return
    fi
    read -rt 1 <> <(:) || true
  done
  red "the Ingress answered $reply"
}

# up_in_prometheus: prints namespace and pod of each target in Prometheus, with 1 if it answers and 0 if not.
up_in_prometheus() {
  curl --silent --max-time 10 --get "http://127.0.0.1:$port/api/v1/query" --data-urlencode 'query=up{namespace=~"antaeus|payments"}' |
    jq --raw-output '.data.result[] | "\(.metric.namespace) \(.metric.pod) \(.value[1])"' | sort -u
}

# scraped: checks that the cluster's Prometheus, if there is one, scrapes every pod of both services.
scraped() {
  local wanted reply
  if ! k --namespace monitoring get service prometheus >/dev/null 2>&1; then
    not_run 'scraping, for there is no Prometheus on this cluster'
    return
  fi
  forward monitoring prometheus 9090
  for _ in {1..60}; do
    wanted=$(for name in antaeus payments; do pods "$name" "$name" | awk -v name="$name" '{ print name, $1, 1 }'; done | sort)
    reply=$(up_in_prometheus || true)
    if [[ $reply == "$wanted" ]]; then
      awk '{ print "  up:", $1, $2 }' <<<"$reply"
      verdict "every target of Prometheus is up: $(wc -l <<<"$reply") pods of both services"
      return
    fi
    read -rt 1 <> <(:) || true
  done
  red "Prometheus should have up: $wanted; and has: $reply"
}

# lines NAMESPACE LINE...: replaces the Secret with tokens of payments' callers.
lines() {
  local namespace=$1
  shift
  k --namespace "$namespace" create secret generic payments-token --from-literal=token="$(printf '%s\n' "$@")" \
    --dry-run=client --output json | k --namespace "$namespace" replace --filename - >/dev/null
}

# older NAMESPACE SINCE: prints the pods that ran before SINCE; a newer pod has started with the current tokens.
older() {
  k --namespace "$1" get pods --selector "app.kubernetes.io/name=$1,app.kubernetes.io/instance=$1" --output json |
    jq --raw-output --arg since "$2" '.items[] | select(.metadata.deletionTimestamp == null)
      | select((.status.containerStatuses[0].state.running.startedAt // "9") <= $since) | .metadata.name'
}

# taken NAMESPACE SINCE: waits until each pod has reloaded the tokens that the kubelet has updated. A pod checks them
# when it uses them, so invoices keep it busy. Each import is small, because a node keeps only a limited log.
taken() {
  local pod left
  while :; do
    left=
    for pod in $(older "$1" "$2"); do
      k --namespace "$1" logs "$pod" --since-time "$2" 2>/dev/null | grep 'reloaded the token file' >/dev/null || left="$left $pod"
    done
    if [[ -z $left ]]; then break; fi
    ((SECONDS < deadline)) || red "after $((SECONDS - began)) s these have not read their tokens again:$left"
    bring 40
  done
}

# refusals: prints how many calls payments have refused so far.
refusals() {
  local pod
  for pod in $(pods payments payments | cut -d' ' -f1); do metrics payments "$pod" 9001 || true; done |
    awk '/^caller_refusals_total\{/ { sum += $NF } END { print sum + 0 }'
}

# token_changed: replaces Secrets under load, in the order of docs/how-to/callers.md; no call of billing may be refused.
token_changed() {
  local old new verify since began deadline before after step took=()
  before=$(refusals)
  old=$(k --namespace antaeus get secret payments-token --output 'jsonpath={.data.token}' | base64 --decode | head -n 1)
  verify=$(k --namespace antaeus get secret verify-token --output 'jsonpath={.data.token}' | base64 --decode)
  new=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
  for step in both new end; do
    began=$SECONDS deadline=$((SECONDS + 180)) since=$(date --utc +%FT%TZ)
    case $step in
      both) lines payments "$old" "$new" "$verify" ;;
      new) lines antaeus "$new" ;;
      end) lines payments "$new" "$verify" ;;
    esac
    case $step in new) taken antaeus "$since" ;; *) taken payments "$since" ;; esac
    took+=("$((SECONDS - began))")
  done
  after=$(refusals)
  ((after <= before)) || red "payments refused $((after - before)) calls while the token changed"
  verdict "the token was changed under load by replacing Secrets: every pod took each step (${took[*]} s), and no call was refused"
}

# judge: runs the nightly verification now, with its own certificate, token and network access to both services.
judge() {
  k --namespace antaeus create job e2e-verify --from=cronjob/antaeus-verify >/dev/null
  k --namespace antaeus wait --for=condition=complete job/e2e-verify --timeout=90s >/dev/null || true
  k --namespace antaeus logs job/e2e-verify | tail -n 1 >"$out/verify.json"
  jq --exit-status --argjson invoices "$invoices" '.verdict == "ok" and .charges == $invoices' "$out/verify.json" >/dev/null ||
    red "verify: $(<"$out/verify.json")"
  k --namespace antaeus delete job e2e-verify >/dev/null
  verdict "verify, as the nightly job does it: $invoices invoices, $invoices charges, none double, none lost"
}

# left_alone ENV: checks that no command of another environment installs over, deletes or resets this one.
left_alone() {
  local before gone command reply
  before=$(for name in antaeus payments; do pods "$name" "$name"; done | sort)
  for command in ./k8s-deploy.sh ./k8s-destroy.sh ./run-challenge.sh; do
    if reply=$("$command" 2>&1); then red "$command was accepted in $1: $reply"; fi
    [[ $reply == *"the namespace payments is of $1"* ]] || red "$command does not say why it is rejected in $1: $reply"
  done
  if reply=$(make reset "ENV=$1" 2>&1); then red "reset of $1: $reply"; fi
  # The autoscaler may have added pods.
  gone=$(comm -23 <(echo "$before") <(for name in antaeus payments; do pods "$name" "$name"; done | sort))
  [[ -z $gone ]] || red "of $1 went: $gone"
  verdict "$1 is left alone by the first environment's commands and by reset"
}

# sql_as_role NAMESPACE SECRET DATABASE STATEMENT: runs a statement as the role in the Secret's URL, and rolls it back.
sql_as_role() {
  local url
  url=$(k --namespace "$1" get secret "$2" --output 'jsonpath={.data.DATABASE_URL}' | base64 --decode)
  k --namespace databases exec statefulset/postgres -- psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 \
    --dbname="${url%@*}@127.0.0.1/$3" --command="BEGIN; $4; ROLLBACK" 2>&1
}

# roles NAMESPACE DATABASE TABLE OTHER: checks that the service's role only reads and writes rows of its own database,
# and that the migrating role changes the schema.
roles() {
  local namespace=$1 database=$2 table=$3 other=$4 role statement reply refused=0
  reply=$(sql_as_role "$namespace" database "$database" "SELECT count(*) >= 0 FROM $table") || true
  [[ $reply == t ]] || red "the role of $namespace does not read $table: $reply"
  for statement in 'CREATE TABLE hole ()' "ALTER TABLE $table ADD hole integer" "DROP TABLE $table" "TRUNCATE $table" \
    "CREATE INDEX ON $table ((1))" 'CREATE SCHEMA hole' 'CREATE TEMPORARY TABLE hole ()' 'CREATE ROLE hole' \
    "COPY (SELECT 1) TO PROGRAM 'true'"; do
    reply=$(sql_as_role "$namespace" database "$database" "$statement") && red "the role of $namespace may: $statement"
    [[ $reply =~ permission\ denied|must\ be\ owner|must\ be\ superuser ]] || red "$statement of $namespace: $reply"
    refused=$((refused + 1))
  done
  for role in database database-migrate; do
    reply=$(sql_as_role "$namespace" "$role" "$other" 'SELECT 1') && red "$role of $namespace connects to the database $other"
    [[ $reply == *'permission denied for database'* ]] || red "$role of $namespace at the database $other: $reply"
  done
  reply=$(sql_as_role "$namespace" database-migrate "$database" "CREATE TABLE hole (); ALTER TABLE $table ADD hole integer") ||
    red "the role that migrates in $namespace does not: $reply"
  verdict "the database role of $namespace reads $table, is refused $refused statements, and does not connect to $other; the one that migrates changes the schema"
}

# refused_images: checks that each team's namespace accepts only its own programs, and none without a version.
refused_images() {
  local reply
  reply=$(k --namespace antaeus set image deployment/antaeus "billing=tinjis/payments:$VERSION" --dry-run=server 2>&1 || true)
  [[ $reply == *'only images of this namespace'* ]] || red "antaeus took the image of payments: $reply"
  reply=$(k --namespace payments set image deployment/payments payments=tinjis/payments:latest --dry-run=server 2>&1 || true)
  [[ $reply == *'latest moves'* ]] || red "payments took latest: $reply"
  k --namespace payments set image deployment/payments "payments=tinjis/payments:$VERSION" --dry-run=server >/dev/null ||
    red 'payments do not take their own image'
  verdict 'admission takes the own image with a version, and refuses the other team'"'"'s, and latest'
}
