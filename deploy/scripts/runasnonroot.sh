#!/usr/bin/env bash
# Reproduces the bug of docs/explanation/the-runasnonroot-bug.md on a real cluster, with an image that runs as root: the
# cause, the wrong fix and the right one. Deletes everything afterwards.
#
#   runasnonroot.sh
set -euo pipefail

read -ra kubectl <<<"${KUBECTL:-kubectl}"
declare -a image_load=()
# shellcheck disable=SC1091
. "$(dirname "${BASH_SOURCE[0]}")/image-load.sh"
namespace=runasnonroot-bug
image=tinjis/as-root:1
k() { "${kubectl[@]}" --namespace "$namespace" "$@"; }
work=$(mktemp -d)
end() {
  "${kubectl[@]}" delete namespace "$namespace" --ignore-not-found >/dev/null
  rm -rf "$work"
}
trap end EXIT

printf 'FROM tinjis/payments:%s\nUSER 0\n' "$VERSION" |
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$image" - >/dev/null 2>&1
docker save --output "$work/as-root.tar" "$image"
"${image_load[@]}" "$work/as-root.tar" >/dev/null
"${kubectl[@]}" create namespace "$namespace" >/dev/null

# with SECURITY-CONTEXT: deploys the pods with this security context.
with() {
  k apply --filename - >/dev/null <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: {name: payment-provider}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: payment-provider}}
  template:
    metadata: {labels: {app: payment-provider}}
    spec:
      securityContext: $1
      automountServiceAccountToken: false
      containers:
        - name: payments
          image: $image
          imagePullPolicy: Never
          env:
            - {name: DATABASE_URL, value: "sqlite:/data/payments.db"}
            - {name: PAYMENTS_API_TOKEN, value: TestToken}
          readinessProbe: {httpGet: {path: /readyz, port: 9001}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
YAML
}

# until WANTED JSONPATH: waits at most 60 s until the pods have this value.
until_pods_say() {
  local reply
  for _ in {1..300}; do
    reply=$(k get pods --output "jsonpath=$2")
    if [[ $reply == *"$1"* ]]; then
      printf '  %s\n' "$reply"
      return
    fi
    read -rt 0.2 <> <(:) || true
  done
  printf 'the pods say "%s", not "%s"\n' "$reply" "$1" >&2
  exit 1
}

echo 'The bug: runAsNonRoot is demanded, and the image runs as root'
with '{runAsNonRoot: true}'
until_pods_say CreateContainerConfigError '{.items[0].status.containerStatuses[0].state.waiting.reason}'
until_pods_say 'image will run as root' '{.items[0].status.containerStatuses[0].state.waiting.message}'

echo 'The wrong fix: the demand goes, and root runs'
with '{}'
k rollout status deployment/payment-provider --timeout=60s | sed 's/^/  /'
"${kubectl[@]}" label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null 2>&1
refused=$(k run refused --image "$image" --dry-run=server 2>&1 || true)
[[ $refused == *'runAsNonRoot != true'* ]] || {
  echo "a namespace that is held to \"restricted\" took it: $refused" >&2
  exit 1
}
printf '  a namespace that is held to "restricted" refuses it: runAsNonRoot != true\n'
"${kubectl[@]}" label namespace "$namespace" pod-security.kubernetes.io/enforce- >/dev/null

echo 'The right fix: the demand stays, and a user is named (better still: in the image)'
with '{runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}'
k rollout status deployment/payment-provider --timeout=60s | sed 's/^/  /'
echo 'reproduced'
