#!/usr/bin/env bash
# What staging and production expect of their cluster, for a cluster of one's own: a small database, the Secrets and
# an authority. What is there already is left alone. Needs cert-manager.
#
#   prerequisites.sh            make them
#   prerequisites.sh remove     take them away
set -euo pipefail

cd "$(dirname "$0")/.."
read -ra kubectl <<<"${KUBECTL:-kubectl}"
declare -a image_load=()
# shellcheck disable=SC1091
. scripts/image-load.sh
k() { "${kubectl[@]}" "$@"; }

reply=$(k version --request-timeout=10s 2>&1) || {
  echo "prerequisites: no cluster answers: $(tail -n 1 <<<"$reply")" >&2
  exit 2
}
k get customresourcedefinition clusterissuers.cert-manager.io >/dev/null 2>&1 || {
  echo 'prerequisites: cert-manager is not on this cluster; production asks it for certificates' >&2
  exit 2
}

if [[ ${1:-} == remove ]]; then
  k delete --ignore-not-found --filename envs/base/issuer.yaml
  k --namespace cert-manager delete secret tinjis-authority --ignore-not-found
  k delete namespace databases --ignore-not-found
  for namespace in antaeus payments; do
    # With an environment in it, it goes with that.
    k delete namespace --field-selector "metadata.name=$namespace" --selector '!tinjis/environment,tinjis/made-by=prerequisites'
  done
  exit
fi

# secret NAMESPACE NAME KEY VALUE
secret() {
  k --namespace "$1" get secret "$2" >/dev/null 2>&1 || k --namespace "$1" create secret generic "$2" --from-literal="$3=$4"
}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

if [[ ${image_load[0]} != none && -r $IMAGES/postgres.tar ]]; then "${image_load[@]}" "$IMAGES/postgres.tar" >/dev/null; fi
for namespace in databases antaeus payments; do
  k get namespace "$namespace" >/dev/null 2>&1 || {
    k create --save-config namespace "$namespace"
    k label namespace "$namespace" tinjis/made-by=prerequisites >/dev/null
  }
done
k label namespace databases --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null
k apply --filename envs/base/postgres.yaml --filename envs/base/issuer.yaml
password=$(k --namespace databases get secret postgres --output 'jsonpath={.data.POSTGRES_PASSWORD}' | base64 --decode)
secret antaeus database DATABASE_URL "postgres://postgres:$password@postgres.databases.svc/invoices"
secret payments database DATABASE_URL "postgres://postgres:$password@postgres.databases.svc/payments"
token=$(k --namespace antaeus get secret payments-token --output 'jsonpath={.data.token}' 2>/dev/null | base64 --decode || true)
token=${token:-$(random)}
secret antaeus payments-token token "$token"
secret antaeus verify-token token "$(random)"
verify=$(k --namespace antaeus get secret verify-token --output 'jsonpath={.data.token}' | base64 --decode)
secret payments payments-token token "$token"$'\n'"$verify"
secret antaeus operator-token token "$(random)"
secret antaeus reader-token token "$(random)"
k --namespace databases rollout status statefulset/postgres --timeout="${TIMEOUT:-120}s"
k wait --for=condition=Ready clusterissuer/tinjis --timeout=60s
