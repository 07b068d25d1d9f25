# shellcheck shell=bash disable=SC2154
# The alerts' part of e2e.sh, which sources it: billing and payments under the cluster's Prometheus, with the chart's
# rules and a copy of them in which time runs faster. After quiet minutes a fault fires each rule of the copy, which
# then resolves. All metrics are real: those of the services, and those of kube-state-metrics about the nightly job, if
# its image is there (make images-more MORE=kube-state-metrics).
#
# QUIET_MINUTES: duration of the part without a fault, by default 10. PROMETHEUS_URL: by default a port-forward to the
# Service monitoring/prometheus.

# Maximum seconds until an alert fires, and until it resolves.
fire_max=${ALERT_SECONDS_MAX:-240}
declare -A fired_after=() resolved_after=() alert_cause=()

# Installs both services on PostgreSQL over mutual TLS, one pod each; payments accept faults from an operator.
alerts_installed() {
  local name
  local -a image_load=() helm
  read -ra helm <<<"${HELM:-helm}"
  # shellcheck disable=SC1091
  . deploy/scripts/image-load.sh
  if [[ ${image_load[0]} != none ]]; then
    for name in billing payments tinjis; do "${image_load[@]}" "$IMAGES/$name.tar" >/dev/null; done
  fi
  k --namespace payments create secret generic operator-token --from-literal=token="$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >/dev/null
  cat >"$out/payments.values.yaml" <<'YAML'
production: false
env: {OPERATOR_TOKEN_FILE: /var/run/tinjis/operator-token/token, SUCCESS_RATE: "1"}
secretFiles:
  - {name: payments-token, secret: payments-token, mountPath: /var/run/tinjis/payments-token}
  - {name: operator-token, secret: operator-token, mountPath: /var/run/tinjis/operator-token}
YAML
  echo 'monitoring: {alerts: {enabled: true}}' >"$out/antaeus.values.yaml"
  for name in payments antaeus; do
    "${helm[@]}" install "$name" deploy/chart --namespace "$name" --values "deploy/envs/base/$name.values.yaml" \
      --values "$out/$name.values.yaml" --set "image.tag=$tag,replicas=1,autoscaling.enabled=false,disruptionBudget.maxUnavailable=null" \
      --set serviceMonitor.enabled=true,serviceMonitor.interval=5s --wait --timeout 180s >/dev/null ||
      red "helm does not install $name: $(k --namespace "$name" get pods,events)"
  done
  if [[ -r $IMAGES/kube-state-metrics.tar && ${image_load[0]} != none ]]; then
    "${image_load[@]}" "$IMAGES/kube-state-metrics.tar" >/dev/null
    state_metrics | k apply --filename - >/dev/null
    k --namespace monitoring rollout status deployment/kube-state-metrics --timeout=60s >/dev/null || red 'kube-state-metrics does not start'
  fi
  k --namespace antaeus get prometheusrule antaeus-alerts --output json | jq --from-file deploy/scripts/e2e-alerts.jq |
    k apply --filename - >/dev/null
}

# Prints what kube-state-metrics needs to report the jobs of one namespace.
state_metrics() {
  cat <<'YAML'
apiVersion: v1
kind: ServiceAccount
metadata: {name: kube-state-metrics, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: kube-state-metrics, namespace: antaeus}
rules: [{apiGroups: [batch], resources: [jobs, cronjobs], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kube-state-metrics, namespace: antaeus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kube-state-metrics}
subjects: [{kind: ServiceAccount, name: kube-state-metrics, namespace: monitoring}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kube-state-metrics, namespace: monitoring}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: kube-state-metrics}}
  template:
    metadata: {labels: {app.kubernetes.io/name: kube-state-metrics}}
    spec:
      serviceAccountName: kube-state-metrics
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: kube-state-metrics
          image: kube-state-metrics:v2.15.0
          imagePullPolicy: IfNotPresent
          args: ["--resources=jobs,cronjobs", --namespaces=antaeus]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /metrics, port: http}}
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-state-metrics, namespace: monitoring, labels: {app.kubernetes.io/name: kube-state-metrics}}
spec:
  selector: {app.kubernetes.io/name: kube-state-metrics}
  ports: [{name: http, port: 8080}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: kube-state-metrics, namespace: monitoring}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: kube-state-metrics}}
  endpoints: [{port: http, interval: 5s, honorLabels: true}]
YAML
}

alerts_destroyed() {
  local -a helm
  state_metrics | k delete --ignore-not-found --filename - >/dev/null
  read -ra helm <<<"${HELM:-helm}"
  k --namespace antaeus delete prometheusrule antaeus-alerts-scaled --ignore-not-found
  for name in antaeus payments; do "${helm[@]}" uninstall "$name" --namespace "$name" --ignore-not-found --wait; done
}

prometheus() { curl --silent --show-error --fail --max-time 10 --get "$prometheus_url/api/v1/$1" "${@:2}"; }

# firing TIMES [SINCE]: prints the alerts of the copy (`scaled`) or of the shipped rules (`null`) that fire now and
# began after SINCE, one name per line.
firing() {
  prometheus alerts | jq --raw-output --arg times "$1" --arg since "${2:-}" '.data.alerts[] | select(.state == "firing" and (.labels.alertname | startswith("Tinjis")))
    | select((.labels.times | tostring) == $times and .activeAt >= $since) | .labels.alertname + (.labels.burn // "" | sub("^(?=.)"; " "))' | sort -u
}

# rules_loaded: checks that Prometheus evaluates both copies without an error and scrapes both services.
rules_loaded() {
  local wanted healthy targets deadline=$((SECONDS + 120))
  wanted=$(k --namespace antaeus get prometheusrules --output json | jq '[.items[].spec.groups[].rules[]] | length')
  while :; do
    healthy=$(prometheus rules | jq '[.data.groups[].rules[] | select(.name | startswith("Tinjis")) | select(.health == "ok")] | length')
    targets=$(prometheus query --data-urlencode 'query=count(count by (job) (up{job=~"(antaeus|payments)-metrics"} == 1))' | jq --raw-output '.data.result[0].value[1] // "0"')
    if [[ $healthy == "$wanted" && $targets == 2 ]]; then break; fi
    ((SECONDS < deadline)) || red "of $wanted rules Prometheus evaluates $healthy well, and it scrapes $targets of 2 services"
    read -rt 2 <> <(:) || true
  done
  verdict "Prometheus evaluates $wanted rules, half of them with scaled times, and scrapes both services"
}

# quiet: after a run that charged everything, no alert of the copy may fire, and no shipped alert may begin. A shipped
# alert may still fire because of an earlier run on the same Prometheus, because shipped ranges are hours long.
quiet() {
  local minutes=${QUIET_MINUTES:-10} until seen since
  bring 20
  charge
  all_paid 30
  read -rt 30 <> <(:) || true # by then the start is outside of every range of the copy but the longest
  until=$((SECONDS + minutes * 60)) since=$(date --utc +%FT%TZ)
  while ((SECONDS < until)); do
    seen=$(firing scaled && firing null "$since")
    [[ -z $seen ]] || red "without a fault these fire: $seen"
    read -rt 5 <> <(:) || true
  done
  verdict "no alert fired in $minutes quiet minutes, neither as shipped nor with scaled times"
}

# operator ARG...: runs a command of tinjis against billing, as an operator.
operator() {
  forward antaeus antaeus 8000
  "$TINJIS" "$@" --billing "http://127.0.0.1:$port" --operator-token-file "$out/alerts.token" >"$out/operator" 2>&1 || red "tinjis $1: $(tail -n 5 "$out/operator")"
  backward
}

# billing PATH [CURL-ARG...]: calls billing's API, as an operator.
billing() {
  forward antaeus antaeus 8000
  curl --silent --show-error --fail --max-time 10 --header "@$out/alerts.header" "http://127.0.0.1:$port$1" "${@:2}"
  backward
}

# backward: ends the latest port-forward.
backward() {
  kill "${forwards[-1]}" 2>/dev/null || true
  unset 'forwards[-1]'
}

# charge: starts a run, and does not wait for its end.
charge() { billing /v1/runs --request POST >/dev/null; }

# all_paid SECONDS: waits until no invoice is unpaid.
all_paid() {
  local counts deadline=$((SECONDS + $1))
  while :; do
    counts=$(billing /v1/deployment | jq --compact-output .counts)
    if jq --exit-status '.pending + .charging + .attention == 0' <<<"$counts" >/dev/null; then return; fi
    ((SECONDS < deadline)) || red "not all invoices are paid: $counts"
    read -rt 1 <> <(:) || true
  done
}

# provider METHOD PATH [CURL-ARG...]: calls payments' API, with billing's certificate and token and an operator's token.
provider() {
  forward payments payments 9000
  curl --silent --show-error --fail --max-time 10 --request "$1" --header "@$out/provider.header" --resolve "payments.payments.svc:$port:127.0.0.1" \
    --cacert "$out/provider.ca" --cert "$out/provider.crt" --key "$out/provider.key" "https://payments.payments.svc:$port$2" "${@:3}" >/dev/null
  backward
}
disturb() { provider PUT /v1/faults --header 'Content-Type: application/toml' --data-binary "$1"; }
undisturbed() { provider DELETE /v1/faults; }

secret_value() { k --namespace "$1" get secret "$2" --output "jsonpath={.data.$3}" | base64 --decode; }

credentials() {
  local file
  (
    umask 077
    secret_value antaeus operator-token token >"$out/alerts.token"
    printf 'Authorization: Bearer %s\n' "$(<"$out/alerts.token")" >"$out/alerts.header"
    printf 'X-Token: %s\nOperator-Token: %s\n' "$(secret_value antaeus payments-token token)" "$(secret_value payments operator-token token)" >"$out/provider.header"
    secret_value antaeus payments-ca 'ca\.crt' >"$out/provider.ca"
    for file in crt key; do secret_value antaeus antaeus-client-tls "tls\.$file" >"$out/provider.$file"; done
  )
}

sql_as_owner() {
  # shellcheck disable=SC2016
  k --namespace databases exec postgres-0 -- sh -c 'PGPASSWORD=$POSTGRES_PASSWORD exec psql --host /tmp --username postgres --no-psqlrc --quiet --dbname invoices "$@"' sh "$@"
}

# For each fault, break_NAME plants it and mend_NAME removes it.

# A CA bundle without a certificate. No controller overwrites it: prerequisites.sh has copied it.
break_reload() {
  k --namespace payments get secret antaeus-ca --output 'jsonpath={.data.ca\.crt}' >"$out/ca.base64"
  k --namespace payments patch secret antaeus-ca --type=merge --patch '{"data":{"ca.crt":"bm8gY2VydGlmaWNhdGUK"}}' >/dev/null
}
mend_reload() {
  k --namespace payments patch secret antaeus-ca --type=merge --patch "{\"data\":{\"ca.crt\":\"$(<"$out/ca.base64")\"}}" >/dev/null
}

break_certificate() { certificate_lasts 1h 20m; }
mend_certificate() { certificate_lasts 2160h 720h; }
certificate_lasts() {
  k --namespace antaeus patch certificate antaeus-client-tls --type=merge --patch "{\"spec\":{\"duration\":\"$1\",\"renewBefore\":\"$2\"}}" >/dev/null
}

# The provider rejects an invoice as invalid.
break_rejected() {
  disturb $'[[rule]]\nfault = "status"\nstatus = 400\nbody = "{\\"error\\":\\"Invalid Request\\"}"\ncontent_type = "application/json"\n'
  bring 1
  charge
}
mend_rejected() {
  undisturbed
  operator resolve --reason-is rejected --decision not-charged --why 'the provider was wrong' --actor e2e
  charge
  all_paid 60
}

# An operator has stopped charging, so that an invoice waits. A subscription was due more than a day ago, for which the
# schedule waits for an operator.
break_stopped() {
  operator stop --why 'a rehearsal' --actor e2e
  bring 1
  printf 'reference,customer_id,currency,amount,starts_on,at\nE2E-T,8,EUR,9.90,%s,00:00\n' "$(date --utc --date '3 days ago' +%F)" >"$out/subscriptions.csv"
  operator subscriptions import "$out/subscriptions.csv"
  invoices=$((invoices + 1))
}
mend_stopped() {
  operator start --why 'the rehearsal is over' --actor e2e
  charge
  operator schedule run --until "$(date --utc +%F)" --actor e2e
}

# Every charge is executed and its response lost.
break_lost() {
  disturb $'[[rule]]\nfault = "reply-lost"\ntimes = 100000\n'
  bring 20
  charge
}
mend_lost() { undisturbed; }

# Another session locks the journal during charges.
break_locked() {
  disturb $'[[rule]]\nfault = "latency"\nlatency_ms = 4000\n'
  bring 20
  charge
  sql_as_owner --command 'BEGIN; LOCK TABLE attempts IN EXCLUSIVE MODE; SELECT pg_sleep(600)' >"$out/lock" 2>&1 &
}
mend_locked() {
  sql_as_owner --command "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE attempts%'" >/dev/null
  undisturbed
}

break_durability() { sql_as_owner --command 'ALTER SYSTEM SET fsync = off' --command 'SELECT pg_reload_conf()' >/dev/null; }
mend_durability() { sql_as_owner --command 'ALTER SYSTEM RESET fsync' --command 'SELECT pg_reload_conf()' >/dev/null; }

# The database is stopped while a client reads.
break_database() {
  k --namespace databases scale statefulset postgres --replicas=0 >/dev/null
  forward antaeus antaeus 8000
  "$TINJIS" load --url "http://127.0.0.1:$port/v1/invoices?limit=1" --operator-token-file "$out/alerts.token" --requests 1 --seconds 300 \
    --in-flight 8 --rest-ms 200 >"$out/load" 2>&1 &
  reader=$!
}
mend_database() {
  kill "$reader" 2>/dev/null || true
  wait "$reader" || true
  backward
  k --namespace databases scale statefulset postgres --replicas=1 >/dev/null
}

# An operator decides before the provider has answered, and the provider's answer contradicts the decision.
break_contradiction() {
  local id key
  provider PUT /v1/rates --header 'Content-Type: application/json' --data-binary '{"success":0}'
  disturb $'[[rule]]\nfault = "latency"\nlatency_ms = 8000\n'
  bring 1
  charge
  for _ in {1..20}; do
    id=$(billing '/v1/invoices?state=CHARGING&limit=1' | jq --raw-output 'first(.items[]).id // empty') || true
    if [[ -n $id ]]; then break; fi
  done
  key=$(billing "/v1/attempts?after=$id.0&limit=1" | jq --raw-output 'first(.items[]).key')
  operator resolve "$key" --decision charged --why 'as an operator thinks' --actor e2e
}
mend_contradiction() {
  undisturbed
  provider DELETE /v1/rates
  operator resolve --reason-is contradiction --decision charged --why 'the books of e2e' --actor e2e
}

# The nightly job fails, because of a flag that verify does not know. Then a job succeeds.
break_verify() { verify_now '["--no-such-flag"]' failed; }
mend_verify() { verify_now '[]' complete; }
# verify_now MORE-ARGS CONDITION: runs a job of the CronJob, with a name as its controller gives, until it has this
# condition.
verify_now() {
  local name
  name=antaeus-verify-$(date +%s)
  k --namespace antaeus create job "$name" --from=cronjob/antaeus-verify --dry-run=client --output json |
    jq --argjson more "$1" '.spec.backoffLimit = 0 | .spec.template.spec.containers[0].args += $more' | k apply --filename - >/dev/null
  k --namespace antaeus wait --for="condition=$2" --timeout=120s "job/$name" >/dev/null || red "the job $name is not $2"
}

# trial FAULTS ALERT|CAUSE...: plants the faults, waits for each alert, removes the faults, and waits until no alert
# fires.
trial() {
  local faults=$1 pair name seen began names=()
  shift
  seen=$(firing scaled)
  for pair; do
    name=${pair%%|*}
    [[ $'\n'$seen$'\n' != *$'\n'"$name"$'\n'* ]] || red "$name fires before its fault"
    alert_cause[$name]=${pair#*|}
    names+=("$name")
  done
  began=$SECONDS
  for name in $faults; do "break_$name"; done
  await fired_after "$began" "${names[@]}"
  began=$SECONDS
  for name in $faults; do "mend_$name"; done
  await resolved_after "$began" "${names[@]}"
  for name in "${names[@]}"; do
    verdict "$name: fired after ${fired_after[$name]} s, resolved after ${resolved_after[$name]} s (${alert_cause[$name]})"
  done
}

# await TIMES BEGAN ALERT...: waits until each alert fires, or until none fires; stores the seconds of each in the table
# TIMES.
await() {
  local -n times=$1
  local kind=$1 began=$2 seen name left fires took
  shift 2
  while :; do
    left=
    seen=$(firing scaled) || red 'Prometheus does not answer'
    for name; do
      if [[ -n ${times[$name]:-} ]]; then continue; fi
      fires=no
      if [[ $'\n'$seen$'\n' == *$'\n'"$name"$'\n'* ]]; then fires=yes; fi
      if [[ $kind == fired_after && $fires == yes || $kind == resolved_after && $fires == no ]]; then
        took=$((SECONDS - began))
        times["$name"]=$took
      else
        left+=" $name"
      fi
    done
    if [[ -z $left ]]; then return; fi
    ((SECONDS - began < fire_max)) || red "after $fire_max s, $kind lacks:$left"
    read -rt 2 <> <(:) || true
  done
}

of_alerts() {
  local name prometheus_url=${PROMETHEUS_URL:-}
  if [[ -z $prometheus_url ]]; then
    forward monitoring prometheus 9090
    prometheus_url=http://127.0.0.1:$port
  fi
  looked_at antaeus antaeus 8001
  looked_at payments payments 9001
  credentials
  rules_loaded
  invoices=0
  quiet
  trial 'certificate reload rejected' 'TinjisCertificateExpiring|a certificate that lasts an hour' \
    'TinjisReloadFailing|a CA bundle without a certificate' 'TinjisAttentionOld|the provider calls an invoice invalid'
  trial stopped 'TinjisRunMissed|an invoice waits while charging is stopped' 'TinjisScheduleLate|a due date waits for an operator'
  all_paid 60
  trial lost 'TinjisBreakerOpen|the provider charges and answers nothing' 'TinjisInDoubtOld|the provider charges and answers nothing'
  all_paid 120
  trial locked 'TinjisRunStuck|another session locks the journal during a run'
  all_paid 60
  trial durability 'TinjisDatabaseNotDurable|PostgreSQL runs with fsync off'
  trial database 'TinjisErrorBudgetBurn fast|the database is away while a client reads' \
    'TinjisErrorBudgetBurn slow|the database is away while a client reads'
  all_paid 60
  judge
  if (($(prometheus query --data-urlencode 'query=count(kube_cronjob_created{namespace="antaeus"})' | jq '.data.result | length'))); then
    trial verify 'TinjisVerifyFailed|the nightly job ends with an error'
  fi
  trial contradiction 'TinjisSettleConflict|a decision, and another answer of the provider'
  alert_table
}

alert_table() {
  local name missing
  printf '\n| alert | fired by | fires after | resolves after |\n| --- | --- | --- | --- |\n'
  missing=$(k --namespace antaeus get prometheusrule antaeus-alerts-scaled --output json |
    jq --raw-output '.spec.groups[].rules[] | .alert + (.labels.burn // "" | sub("^(?=.)"; " "))' | while read -r name; do
    if [[ -z ${fired_after[$name]:-} ]]; then echo "$name"; fi
  done)
  for name in "${!fired_after[@]}"; do
    printf '| %s | %s | %s s | %s s |\n' "$name" "${alert_cause[$name]}" "${fired_after[$name]}" "${resolved_after[$name]}"
  done | sort
  case $missing in
    '') ;;
    TinjisVerifyFailed) not_run 'TinjisVerifyFailed asks kube-state-metrics, which is not on this cluster: make alerts tests its rule' ;;
    *) red "not fired: $missing" ;;
  esac
}
