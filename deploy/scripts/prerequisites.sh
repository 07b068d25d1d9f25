#!/usr/bin/env bash
# Installs what staging and production expect of their cluster, on a cluster of your own: a small database, the Secrets
# and a CA for each namespace. Existing objects are left alone. Needs cert-manager.
#
#   prerequisites.sh            creates the objects
#   prerequisites.sh remove     deletes them
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
k get customresourcedefinition issuers.cert-manager.io >/dev/null 2>&1 || {
  echo 'prerequisites: cert-manager is not on this cluster; production asks it for certificates' >&2
  exit 2
}

if [[ ${1:-} == remove ]]; then
  k delete --ignore-not-found --filename envs/base/issuer.yaml
  k delete namespace databases --ignore-not-found
  for namespace in antaeus payments; do
    k --namespace "$namespace" delete secret tinjis-ca antaeus-ca payments-ca --ignore-not-found
    # A namespace with an environment in it is deleted together with that environment.
    k delete namespace --field-selector "metadata.name=$namespace" --selector '!tinjis/environment,tinjis/made-by=prerequisites'
  done
  exit
fi

# secret NAMESPACE NAME KEY VALUE
secret() {
  k --namespace "$1" get secret "$2" >/dev/null 2>&1 || k --namespace "$1" create secret generic "$2" --from-literal="$3=$4"
}
# url NAMESPACE NAME: prints the URL of a database in a Secret.
url() { k --namespace "$1" get secret "$2" --output 'jsonpath={.data.DATABASE_URL}' 2>/dev/null | base64 --decode; }
# database NAMESPACE ROLE DATABASE: creates two roles, and a Secret with the URL of each.
database() {
  local name role password
  # A Secret with the superuser's URL was made by an earlier version.
  if [[ $(url "$1" database) == postgres://postgres:* ]]; then k --namespace "$1" delete secret database; fi
  secret "$1" database DATABASE_URL "postgres://$2:$(random)@postgres.databases.svc/$3"
  secret "$1" database-migrate DATABASE_URL "postgres://$2_migrate:$(random)@postgres.databases.svc/$3"
  # shellcheck disable=SC2016 # the pod's variable
  {
    printf '\\set database %s\n' "$3"
    for name in service:database owner:database-migrate; do
      role=$(url "$1" "${name#*:}")
      role=${role#postgres://} role=${role%@*}
      password=${role#*:} role=${role%%:*}
      printf '\\set %s %s\n\\set %s_password %s\n' "${name%:*}" "$role" "${name%:*}" "$password"
    done
    cat scripts/database-roles.sql
  } |
    k --namespace databases exec --stdin statefulset/postgres -- \
      sh -c 'PGPASSWORD=$POSTGRES_PASSWORD exec psql --no-psqlrc --quiet --host=127.0.0.1 --username=postgres'
}
# trust NAMESPACE BY: copies the certificate of a namespace's CA to another namespace.
trust() {
  local ca
  k --namespace "$1" wait --for=condition=Ready certificate/tinjis-ca issuer/tinjis --timeout=60s
  ca=$(k --namespace "$1" get secret tinjis-ca --output 'jsonpath={.data.tls\.crt}' | base64 --decode)
  secret "$2" "$1-ca" ca.crt "$ca"
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
k apply --filename envs/base/issuer.yaml
password=$(k --namespace databases get secret postgres --output 'jsonpath={.data.POSTGRES_PASSWORD}' 2>/dev/null | base64 --decode || true)
sed "s/POSTGRES_PASSWORD: development$/POSTGRES_PASSWORD: ${password:-$(random)}/" envs/base/postgres.yaml | k apply --filename -
k --namespace databases rollout status statefulset/postgres --timeout="${TIMEOUT:-120}s"
database antaeus billing invoices
database payments payments payments
token=$(k --namespace antaeus get secret payments-token --output 'jsonpath={.data.token}' 2>/dev/null | base64 --decode || true)
token=${token:-$(random)}
secret antaeus payments-token token "$token"
secret antaeus verify-token token "$(random)"
verify=$(k --namespace antaeus get secret verify-token --output 'jsonpath={.data.token}' | base64 --decode)
secret payments payments-token token "$token"$'\n'"$verify"
secret antaeus operator-token token "$(random)"
secret antaeus reader-token token "$(random)"
trust antaeus payments
trust payments antaeus
