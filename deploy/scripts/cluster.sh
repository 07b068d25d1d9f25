#!/usr/bin/env bash
# Deploys an environment to the cluster of KUBECONFIG, waits for it with its progress on screen, and deletes it on
# request.
#
#   cluster.sh check|deploy|wait|reset|destroy ENV
#
# KUBECTL: the client. IMAGE_LOAD: the command that loads image tars onto the nodes, by default chosen from the current
# context (image-load.sh); `none` where nodes pull, from REGISTRY if that is set. IMAGES: the folder of those tars.
# VERSION: the tag in rendered.yaml. REVISION: the revision of this tree. TIMEOUT: maximum seconds until an object is
# up.
set -euo pipefail

cd "$(dirname "$0")/.."
verb=$1 env=${2:-}
read -ra kubectl <<<"${KUBECTL:-kubectl}"
declare -a image_load=()
# shellcheck disable=SC1091
. scripts/image-load.sh
rendered=envs/$env/rendered.yaml
timeout=${TIMEOUT:-120}

die() {
  printf '%s\n' "$*" >&2
  exit 1
}
[[ -r $rendered ]] || die "There is no environment \"$env\"; there are:$(cd envs && printf ' %s' */rendered.yaml | sed 's|/rendered.yaml||g')"

k() { "${kubectl[@]}" "$@"; }

# Checks that the client and the cluster are there, before any command needs them.
look_around() {
  local reply
  command -v "${kubectl[0]}" >/dev/null || die "There is no ${kubectl[0]} here; KUBECTL names another client."
  reply=$(k version --request-timeout=10s 2>&1) ||
    die "No cluster answers where ${KUBECONFIG:-the current context of ~/.kube/config} points; docs/how-to/clusters.md says how to get one. $(tail -n 1 <<<"$reply")"
  if [[ $verb == deploy || $verb == reset ]] && ! command -v "${image_load[0]}" >/dev/null && [[ ${image_load[0]} != none ]]; then
    die "There is no ${image_load[0]} here to bring images to the nodes; IMAGE_LOAD names the command for your cluster: docs/how-to/clusters.md"
  fi
}

# kinds REGEX, without REGEX: select the environment's objects of these kinds, or all others.
kinds() { select_kinds 1 "$1"; }
without() { select_kinds 0 "$1"; }
select_kinds() {
  awk -v wanted="$1" -v kinds="^($2)$" '
    function place(  kind) {
      kind = doc; sub(/^(.*\n)?kind: */, "", kind); sub(/\n.*/, "", kind)
      if (doc ~ /(^|\n)kind: / && (kind ~ kinds) == wanted) printf "---\n%s", doc
    }
    /^---/ { place(); doc = ""; next }
    { doc = doc $0 "\n" }
    END { place() }' < <(manifests)
}

# Prints the rendered file with the tag of the loaded images, or with the registry that nodes pull from.
manifests() {
  sed -e "s|\(image: tinjis/[a-z]*\):$VERSION\$|\1:$tag|" \
    -e "s|image: tinjis/|image: $registry/|" -e "/^ *tinjis\/images: /s|\([ ,]\)tinjis/|\1$registry/|g" "$rendered"
}

tag=$VERSION
if [[ ${image_load[0]} != none && -r ${IMAGES:-}/tag ]]; then tag=$(<"$IMAGES/tag"); fi

registry=tinjis
if [[ ${image_load[0]} == none && -n ${REGISTRY:-} ]]; then registry=$REGISTRY; fi

namespaces() { awk '/^kind: Namespace/ { wanted = 1 } wanted && /^  name:/ { print $2; wanted = 0 }' "$rendered"; }

load_images() {
  local name tar tars=()
  if [[ ${image_load[0]} == none ]]; then return; fi
  while read -r name; do
    tar=$IMAGES/$(basename "${name%:*}").tar
    if [[ -r $tar ]]; then tars+=("$tar"); else echo "The nodes pull $name: there is no $tar"; fi
  done < <(sed -n 's/^ *image: *//p' "$rendered" | sort -u)
  # The image for tests, probes and the nightly job.
  if [[ -r $IMAGES/tinjis.tar && " ${tars[*]} " != *" $IMAGES/tinjis.tar "* ]]; then tars+=("$IMAGES/tinjis.tar"); fi
  for tar in "${tars[@]}"; do
    "${image_load[@]}" "$tar" >/dev/null || die "${image_load[*]} $tar failed. IMAGE_LOAD names the command for your cluster: docs/how-to/clusters.md"
  done
  echo "${#tars[@]} images loaded, $tag"
  if [[ -n ${REVISION:-} && $tag != *"-$REVISION-"* ]]; then
    echo "These images are of another revision than this tree, which is $REVISION; make images makes them anew."
  fi
}

# Environments share namespace names, and a cluster may hold only one of them: this prevents deleting another environment's data.
not_taken() {
  local namespace whose
  for namespace in $(namespaces); do
    whose=$(k get namespace "$namespace" --ignore-not-found --output 'jsonpath={.metadata.labels.tinjis/environment}')
    if [[ -n $whose && $whose != "$env" ]]; then
      die "On this cluster the namespace $namespace is of $whose; to $verb $env here would harm it. Use another cluster, or make destroy ENV=$whose first."
    fi
  done
}

# Certificates for pinger and ponger, made by the user's openssl unless others are there.
make_certificates() {
  if [[ $env != ping-pong ]] || k --namespace ping-pong get secret ponger-tls pinger-tls >/dev/null 2>&1; then return; fi
  local work name
  work=$(mktemp -d)
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj '/CN=ping-pong' \
    -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
  for name in ponger:pong pinger:pinger; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=${name#*:}" \
      -keyout "$work/tls.key" -out "$work/tls.csr" 2>/dev/null
    openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
      -extfile <(printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${name#*:}") -out "$work/tls.crt" 2>/dev/null
    k --namespace ping-pong delete secret "${name%:*}-tls" --ignore-not-found >/dev/null # a single one has an old CA
    k --namespace ping-pong create secret generic "${name%:*}-tls" \
      --from-file="$work/tls.crt" --from-file="$work/tls.key" --from-file="$work/ca.crt"
  done
  rm -rf "$work"
}

# Explains why an object is not up: prints the pods that are not ready, their events, and the end of their logs.
explain() {
  local namespace=$1 pod
  echo "--- pods of $namespace" >&2
  k --namespace "$namespace" get pods --output wide >&2 || true
  k --namespace "$namespace" get pods --no-headers | awk '{ split($2, ready, "/"); if (ready[1] != ready[2] && $3 != "Completed") print $1 }' |
    while read -r pod; do
      echo "--- events of $pod" >&2
      k --namespace "$namespace" get events --field-selector "involvedObject.name=$pod" --sort-by=.lastTimestamp \
        --output 'custom-columns=REASON:.reason,MESSAGE:.message' --no-headers | tail -n 10 >&2
      echo "--- log of $pod" >&2
      k --namespace "$namespace" logs --all-containers --tail 20 "$pod" >&2 || true
      k --namespace "$namespace" logs --all-containers --tail 20 --previous "$pod" 2>/dev/null >&2 || true
    done
  echo "--- what else $namespace complains about" >&2
  k --namespace "$namespace" get events --field-selector type=Warning --sort-by=.lastTimestamp \
    --output 'custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message' --no-headers | tail -n 8 >&2
}

# wait_for KIND: waits until all of the environment's objects of this kind are up.
wait_for() {
  local objects namespace name
  objects=$(kinds "$1")
  if [[ -z $objects ]]; then return; fi
  k get --filename - --no-headers --output custom-columns=S:.metadata.namespace,N:.metadata.name <<<"$objects" |
    while read -r namespace name; do
      if [[ $1 == Job ]]; then
        echo "Waiting for $namespace/$name"
        k --namespace "$namespace" wait --for=condition=complete --timeout="${timeout}s" "$1/$name" </dev/null
      else
        k --namespace "$namespace" rollout status --timeout="${timeout}s" "$1/$name" </dev/null
      fi || {
        explain "$namespace"
        die "$env is not up: $namespace/$name, see above"
      }
    done
}

wait_for_all() { for kind in StatefulSet Deployment; do wait_for "$kind"; done; }

check() { manifests | k apply --dry-run=client --filename -; }

deploy() {
  load_images
  if grep -q '^kind: Job' "$rendered"; then
    # The schema is migrated first; then pods of the new version start.
    without 'Job|Deployment' | k apply --filename -
    wait_for StatefulSet
    kinds Job | k delete --ignore-not-found --filename - >/dev/null
    kinds Job | k apply --filename -
    wait_for Job
    kinds Deployment | k apply --filename -
    wait_for Deployment
  elif [[ $env == ping-pong ]]; then
    without Deployment | k apply --filename -
    make_certificates
    kinds Deployment | k apply --filename -
    wait_for Deployment
  else
    manifests | k apply --filename -
    wait_for_all
  fi
  for namespace in $(namespaces); do k --namespace "$namespace" get pods; done
  echo "$env is up"
}

# delete: deletes the objects on standard input; does nothing without any.
delete() {
  local objects
  objects=$(cat)
  if [[ -n $objects ]]; then k delete --ignore-not-found --timeout="${timeout}s" --filename - <<<"$objects"; fi
}

destroy() {
  local kind last='Deployment|StatefulSet|Job|Service|Secret|ConfigMap|PersistentVolumeClaim|NetworkPolicy'
  for kind in Deployment 'StatefulSet|Job' Service 'Secret|ConfigMap|PersistentVolumeClaim' NetworkPolicy; do
    kinds "$kind" | delete
  done
  without "Namespace|$last" | delete
  kinds Namespace | delete
}

# Deletes the data and the workloads that use it, and deploys again; other objects stay.
reset() {
  local namespace
  case $env in
    staging | production) die "The data of $env are in a database of their own, and no pod of it may go with them: reset is for the other environments." ;;
  esac
  for namespace in $(namespaces); do
    k --namespace "$namespace" delete deployment,statefulset,job --all
    k --namespace "$namespace" delete persistentvolumeclaim --all --timeout="${timeout}s"
  done
  deploy
}

look_around
case $verb in deploy | reset | destroy) not_taken ;; esac
case $verb in
  check | deploy | reset | destroy) "$verb" ;;
  wait) wait_for_all ;;
  *) die "$verb: check, deploy, wait, reset or destroy" ;;
esac
