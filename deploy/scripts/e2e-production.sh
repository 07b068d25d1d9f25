# shellcheck shell=bash disable=SC2154
# Production's part of e2e.sh, which sources it: two namespaces, mutual TLS, and no way in but the Ingress.

invoices=2000

of_production() {
  local token=$out/operator-token
  for name in antaeus payments; do
    k --namespace "$name" wait --for=jsonpath='{.status.readyReplicas}'=3 "deployment/$name" --timeout=90s >/dev/null ||
      red "the autoscaler did not bring $name to three pods"
  done
  verdict 'the autoscaler has brought both services to three pods'
  looked_at antaeus antaeus 8001
  looked_at payments payments 9001

  (umask 077 && k --namespace antaeus get secret operator-token --output 'jsonpath={.data.token}' | base64 --decode >"$token")
  {
    echo reference,customer_id,currency,amount
    for ((i = 1; i <= invoices; i++)); do echo "e2e-$i,$((i % 7 + 1)),EUR,$((i % 900 + 10)).25"; done
  } >"$out/invoices.csv"
  forward antaeus antaeus 8000
  "$TINJIS" import "$out/invoices.csv" --billing "http://127.0.0.1:$port" --operator-token-file "$token"
  rm "$token"

  # Pay calls go on while both services are replaced: none may fail, and none may charge twice.
  load antaeus antaeus 8000 /rest/v1/invoices/pay 45 --post
  renewed payments payments-tls
  renewed antaeus antaeus-client-tls
  rolled payments payments
  rolled antaeus antaeus
  load_ends antaeus 'pay calls while both services are replaced, and pods deleted'
  judge
  evicted payments payments
  evicted antaeus antaeus
  refused_images
  by_ingress
  doctored
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

# by_ingress: from outside, by name, with the certificate of the authority.
by_ingress() {
  local address said
  if ! k get namespace traefik >/dev/null 2>&1; then
    echo 'NOT RUN: the Ingress, for there is no Traefik on this cluster'
    return
  fi
  address=$(k get nodes --output 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  k --namespace antaeus get secret antaeus-ingress-tls --output 'jsonpath={.data.ca\.crt}' | base64 --decode >"$out/ca.crt"
  said=$(curl --silent --show-error --max-time 10 --cacert "$out/ca.crt" --resolve "antaeus.example.com:443:$address" \
    https://antaeus.example.com/rest/health 2>&1 || true)
  [[ $said == '"ok"' ]] || red "the Ingress answered $said"
  verdict 'the Ingress answers by TLS, with the certificate of the authority'
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
