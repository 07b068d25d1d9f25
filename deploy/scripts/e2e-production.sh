# shellcheck shell=bash disable=SC2154
# Production's part of e2e.sh, which sources it: two namespaces, mutual TLS, and no way in but the Ingress.

# At a time, so many that a pay run has work to do through the whole of what follows.
batch=1000

of_production() {
  local name
  for name in antaeus payments; do
    k --namespace "$name" wait --for=jsonpath='{.status.readyReplicas}'=3 "deployment/$name" --timeout=90s >/dev/null ||
      red "the autoscaler did not bring $name to three pods"
  done
  verdict 'the autoscaler has brought both services to three pods'
  looked_at antaeus antaeus 8001
  looked_at payments payments 9001

  # Pay calls go on while all that may change does: none may fail, and none may charge twice.
  invoices=0
  load antaeus antaeus 8000 /rest/v1/invoices/pay 45 --post
  bring
  renewed payments payments-tls
  renewed antaeus antaeus-client-tls
  bring
  rolled payments payments
  bring
  rolled antaeus antaeus
  load_ends antaeus 'pay calls while certificates and both services are replaced, and pods deleted'
  judge
  evicted payments payments
  evicted antaeus antaeus
  refused_images
  by_ingress antaeus.example.com
  scraped
  doctored
}

# Staging is production under another name, on a cluster of its own; here it stands up, pays, and is judged.
of_staging() {
  looked_at antaeus antaeus 8001
  looked_at payments payments 9001
  invoices=0
  bring
  load antaeus antaeus 8000 /rest/v1/invoices/pay 5 --post
  load_ends antaeus 'pay calls in staging'
  judge
  by_ingress antaeus.staging.example.com
}

# bring: more invoices, by an operator's token, over a port-forward to whichever pod is there.
bring() {
  local token=$out/operator-token i
  (umask 077 && k --namespace antaeus get secret operator-token --output 'jsonpath={.data.token}' | base64 --decode >"$token")
  {
    echo reference,customer_id,currency,amount
    for ((i = invoices + 1; i <= invoices + batch; i++)); do echo "e2e-$i,$((i % 7 + 1)),EUR,$((i % 900 + 10)).25"; done
  } >"$out/invoices.csv"
  invoices=$((invoices + batch))
  : >"$out/import"
  # A port-forward ends with its pod, or when a connection breaks; what was written then stays, and is not written twice.
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

# renewed NAMESPACE NAME: cert-manager makes the certificate anew, as it does when its time comes.
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

# by_ingress HOST: from outside, by name, with the certificate of the authority.
by_ingress() {
  local address said
  if ! k get namespace traefik >/dev/null 2>&1; then
    echo 'NOT RUN: the Ingress, for there is no Traefik on this cluster'
    return
  fi
  address=$(k get nodes --output 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  k --namespace antaeus get secret antaeus-ingress-tls --output 'jsonpath={.data.ca\.crt}' | base64 --decode >"$out/ca.crt"
  said=$(curl --silent --show-error --max-time 10 --cacert "$out/ca.crt" --resolve "$1:443:$address" \
    "https://$1/rest/health" 2>&1 || true)
  [[ $said == '"ok"' ]] || red "the Ingress answered $said"
  verdict 'the Ingress answers by TLS, with the certificate of the authority'
}

# scraped: the cluster's Prometheus, if it has one, gets the figures of every pod of both services.
scraped() {
  local said
  if ! k --namespace monitoring get service prometheus >/dev/null 2>&1; then
    echo 'NOT RUN: scraping, for there is no Prometheus on this cluster'
    return
  fi
  forward monitoring prometheus 9090
  for _ in {1..60}; do
    said=$(curl --silent --max-time 10 --get "http://127.0.0.1:$port/api/v1/query" \
      --data-urlencode 'query=count by (namespace) (up{namespace=~"antaeus|payments"} == 1)' |
      jq --compact-output '[.data.result[] | {(.metric.namespace): .value[1]}] | add' || true)
    if jq --exit-status '(.antaeus | tonumber) >= 3 and (.payments | tonumber) >= 3' <<<"$said" >/dev/null 2>&1; then
      verdict "Prometheus scrapes every pod: $said"
      return
    fi
    read -rt 1 <> <(:) || true
  done
  red "Prometheus scrapes only $said"
}

# judge: verify, from a pod with billing's own certificate, which may reach billing for as long.
judge() {
  way antaeus antaeus 8000
  k --namespace antaeus apply --filename - >/dev/null <<YAML
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: e2e-way-to-payments}
spec:
  podSelector: {matchLabels: {tinjis/e2e: client}}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: payments}}}], ports: [{port: 9000, protocol: TCP}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: e2e-verify, labels: {tinjis/e2e: client, app.kubernetes.io/name: antaeus}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: verify
      image: tinjis/tinjis:$tag
      imagePullPolicy: IfNotPresent
      args: [verify, --json, "--billing=http://antaeus:8000", "--payments=https://payments.payments.svc:9000",
        --payments-api-token-file=/token/token, --ca=/tls/ca.crt, --cert=/tls/tls.crt, --key=/tls/tls.key]
      resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: "1", memory: 128Mi}}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}, {name: token, mountPath: /token, readOnly: true}]
  volumes:
    - {name: tls, secret: {secretName: antaeus-client-tls}}
    - {name: token, secret: {secretName: payments-token}}
YAML
  k --namespace antaeus wait --for=jsonpath='{.status.phase}'=Succeeded pod/e2e-verify --timeout=60s >/dev/null || true
  k --namespace antaeus logs e2e-verify | tail -n 1 >"$out/verify.json"
  k --namespace antaeus delete pod e2e-verify >/dev/null
  k --namespace antaeus delete networkpolicy e2e-way-in e2e-way-out e2e-way-to-payments >/dev/null
  jq --exit-status --argjson invoices "$invoices" '.verdict == "ok" and .charges == $invoices' "$out/verify.json" >/dev/null ||
    red "verify: $(<"$out/verify.json")"
  verdict "verify, over mutual TLS: $invoices invoices, $invoices charges, none double, none lost"
}

# refused_images: each team's namespace takes its own programs only, and none without a version.
refused_images() {
  local said
  said=$(k --namespace antaeus set image deployment/antaeus "billing=tinjis/payments:$VERSION" --dry-run=server 2>&1 || true)
  [[ $said == *'only images of this namespace'* ]] || red "antaeus took the image of payments: $said"
  said=$(k --namespace payments set image deployment/payments payments=tinjis/payments:latest --dry-run=server 2>&1 || true)
  [[ $said == *'latest moves'* ]] || red "payments took latest: $said"
  k --namespace payments set image deployment/payments "payments=tinjis/payments:$VERSION" --dry-run=server >/dev/null ||
    red 'payments do not take their own image'
  verdict 'admission takes the own image with a version, and refuses the other team'"'"'s, and latest'
}
