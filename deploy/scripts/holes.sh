#!/usr/bin/env bash
# Plants isolation holes one by one on a deployed production; `tinjis doctor --read-only` must name the rule and the
# object of each. Positive control: it is green before the first hole and after the last. Each hole is reverted before
# its verdict. Holes that admission closes are tested by dry runs, each with a positive control that is accepted. Needs
# jq, and the rights of an administrator.
#
#   holes.sh [HOLE...]      these only, by name
#
# KUBECTL: the client. TINJIS: the program. OUT: the folder for reports. PEERS=1: also shows the findings of other tools
# (peers.sh).
set -euo pipefail

cd "$(dirname "$0")/../.."
read -ra kubectl <<<"${KUBECTL:-kubectl}"
out=${OUT:?}
lab=tinjis-holes
declare -a wanted=("$@")
# The file has a line per hole: `added` runs in the subshell of its pipe, where a variable would be lost.
results=$out/holes.results
seconds=$out/holes.seconds
rm -rf "$out/peers"
: >"$results"
: >"$seconds"
k() { "${kubectl[@]}" "$@"; }
# Provides `program`, `kept` and `doctor_seconds_max`.
# shellcheck disable=SC1091
. deploy/scripts/e2e-doctor.sh

# examine NAME: writes the doctor's report to a file; sets `code`.
examine() {
  if [[ -n ${PEERS:-} && $1 != after ]]; then OUT=$out deploy/scripts/peers.sh keep "$1"; fi
  local began=$SECONDS
  code=0
  "${program[@]}" doctor deploy/envs/production/doctor.toml --read-only --json "$out/holes.json" >"$out/holes.txt" 2>&1 || code=$?
  echo "$((SECONDS - began))" >>"$seconds"
}

green() {
  examine "${1%% *}"
  [[ $code == 0 ]] && return
  printf '✘ production %s: exit %s\n' "$1" "$code" >&2
  grep -v '^ok' "$out/holes.txt" | tail -n 30 >&2
  exit 1
}

# judge NAME RULE OBJECT
judge() {
  local reported
  reported=$(jq -r --arg rule "$2" --arg who "$3" \
    '[.trials[] | select(.verdict == "red" and .rule == $rule and .who == $who)][0].evidence // empty' "$out/holes.json")
  if [[ $code == 1 && -n $reported ]]; then
    echo found >>"$results"
    printf '✔ %-24s %-18s %s: %s\n' "$1" "$2" "$3" "$reported"
  else
    echo missed >>"$results"
    printf '✘ %-24s not found as %s of %s (exit %s)\n' "$1" "$2" "$3" "$code"
  fi
}

skipped() { ((${#wanted[@]} > 0)) && [[ ! " ${wanted[*]} " == *" $1 "* ]]; }

# refused NAME POLICY WRITE: checks by dry runs that the policy makes the API server refuse the output of `WRITE bad`
# and accept the output of `WRITE good`.
refused() {
  local reply
  if skipped "$1"; then return; fi
  : >"$out/control"
  reply=$("$3" bad 2>&1 >/dev/null) && reply='it was accepted'
  if [[ $reply == *"ValidatingAdmissionPolicy '$2'"* ]] && "$3" good >/dev/null 2>"$out/control"; then
    echo found >>"$results"
    printf '✔ %-24s %-18s %s\n' "$1" refused "${reply##*denied request: }"
  else
    echo missed >>"$results"
    printf '✘ %-24s not refused by %s: %s; positive control: %s\n' "$1" "$2" "$reply" "$(<"$out/control")"
  fi
}

# added NAME RULE OBJECT: plants a hole with the objects on standard input.
added() {
  local manifest=$out/hole.yaml
  # Text that begins with a brace would be parsed as JSON.
  { echo --- && cat; } >"$manifest"
  if skipped "$1"; then return; fi
  k create --filename "$manifest" >/dev/null
  examine "$1"
  k delete --ignore-not-found --filename "$manifest" >/dev/null
  judge "$1" "$2" "$3"
}

# changed NAME RULE OBJECT KIND NAMESPACE OBJECT-NAME JSON-PATCH
changed() {
  if skipped "$1"; then return; fi
  kept "$4" "$5" "$6" >"$out/kept.json"
  k --namespace "$5" patch "$4" "$6" --type=json --patch "$7" >/dev/null
  examine "$1"
  # The patch replaces the version that it reads; a controller may write in between.
  for _ in {1..5}; do
    if k --namespace "$5" replace --filename "$out/kept.json" >/dev/null; then break; fi
  done
  judge "$1" "$2" "$3"
}

# deleted NAME RULE OBJECT KIND NAMESPACE OBJECT-NAME
deleted() {
  if skipped "$1"; then return; fi
  kept "$4" "$5" "$6" >"$out/kept.json"
  k --namespace "$5" delete "$4" "$6" >/dev/null
  examine "$1"
  k --namespace "$5" create --filename "$out/kept.json" >/dev/null
  judge "$1" "$2" "$3"
}

# binding KIND/ROLE SUBJECT: prints a RoleBinding `hole` in payments.
binding() {
  printf '{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: hole, namespace: payments}, '
  printf 'roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: %s}, subjects: [%s]}\n' "${1%/*}" "${1#*/}" "$2"
}
subject() { printf '{apiGroup: rbac.authorization.k8s.io, kind: %s, name: %s}' "$1" "$2"; }
# role API-GROUP RESOURCE VERB: prints a Role `hole` in payments.
role() {
  printf '{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: hole, namespace: payments}, '
  printf 'rules: [{apiGroups: ["%s"], resources: [%s], verbs: [%s]}]}\n---\n' "$1" "$2" "$3"
}
# policy DIRECTION RULE: prints a NetworkPolicy `hole` for the pods of payments.
policy() {
  printf '{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: hole, namespace: payments}, spec: '
  printf '{podSelector: {matchLabels: {app.kubernetes.io/name: payments}}, policyTypes: [%s], %s: [%s]}}\n' "${1^}" "$1" "$2"
}
# in_lab KIND SPEC: prints an object; text that begins with a brace would be parsed as JSON.
in_lab() { printf -- '---\n{apiVersion: v1, kind: %s, metadata: {name: hole, namespace: %s}, spec: %s}\n' "$1" "$lab" "$2"; }
# setting NAME VALUE: prints a patch that adds a variable of payments at the end, where it overrides earlier ones.
setting() {
  printf '[{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "%s", "value": "%s"}}]' "$1" "$2"
}

away() { k delete namespace "$lab" --ignore-not-found --wait=false >/dev/null; }
trap away EXIT

rights() {
  local hole='RoleBinding payments/hole'
  binding ClusterRole/edit "$(subject User mallory)" | added edit-for-a-user unlisted-subject "$hole"
  binding ClusterRole/edit "$(subject Group contractors)" | added edit-for-a-group unlisted-subject "$hole"
  binding ClusterRole/edit "$(subject Group team-antaeus)" | added edit-for-the-other-team unlisted-subject "$hole"
  { role '' secrets get && binding Role/hole '{kind: ServiceAccount, name: default, namespace: default}'; } |
    added secrets-for-default unlisted-subject "$hole"
  { role '' serviceaccounts/token create && binding Role/hole "$(subject Group team-antaeus)"; } |
    added tokens-for-the-other-team unlisted-subject "$hole"
  { role '' pods/exec create && binding Role/hole "$(subject Group system:authenticated)"; } |
    added exec-for-all-users unlisted-subject "$hole"
}

network() {
  local hole='NetworkPolicy payments/hole'
  policy ingress '{ports: [{port: 9000}]}' | added every-address any-address "$hole"
  policy ingress '{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}], ports: [{port: 9000}]}' |
    added all-but-pods any-address "$hole"
  policy ingress '{from: [{ipBlock: {cidr: 10.199.0.2/32}}], ports: [{port: 9001}]}' | added admin-from-the-node any-address "$hole"
  policy ingress '{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: antaeus}}}]}' |
    added labels-from-everywhere unexpected-caller "$hole"
  policy egress '{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}' | added egress-to-the-internet open-egress "$hole"
  deleted policy-deleted missing-policy 'NetworkPolicy payments/payments' networkpolicy payments payments
  deleted default-deny-deleted missing-policy 'Namespace payments' networkpolicy payments default-deny
}

running() {
  k --namespace payments get deployment payments --output json |
    jq '{apiVersion, kind, metadata: {name: "plain", namespace: "payments"},
      spec: {replicas: 1, selector: .spec.selector, template: .spec.template}}' |
    added second-deployment unlisted-workload 'Deployment payments/plain'
  printf '%s\n' '{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{addresses: [10.9.9.9]}],
    metadata: {name: hole, namespace: payments, labels: {kubernetes.io/service-name: payments}}, ports: [{port: 9000}]}' |
    added foreign-endpoint foreign-endpoint 'Service payments/payments'
  in_lab Pod '{hostNetwork: true, containers: [{name: c, image: tinjis/tinjis:0.1.0}]}' |
    added host-network host-network "Pod $lab/hole"
  if ! skipped external-ips; then
    # Admission refuses this Service; one that is older than the policy would still exist.
    local kind=validatingadmissionpolicybinding name=tinjis-external-ips service='{externalIPs: [10.96.0.200], ports: [{port: 80}]}'
    kept "$kind" '' "$name" >"$out/binding.json"
    k delete "$kind" "$name" >/dev/null
    for _ in {1..50}; do
      if in_lab Service "$service" | k create --dry-run=server --filename - >/dev/null 2>&1; then break; fi
      read -rt 0.2 <> <(:) || true
    done
    in_lab Service "$service" | added external-ips exposed-service "Service $lab/hole"
    k create --filename "$out/binding.json" >/dev/null
  fi
}

services() {
  local payments='Deployment payments/payments' what='deployment payments payments'
  # shellcheck disable=SC2086
  {
    changed success-rate-zero weak-setting "$payments" $what "$(setting SUCCESS_RATE 0)"
    changed fault-script weak-setting "$payments" $what "$(setting FAULTS /faults.toml)"
    changed anonymous weak-setting "$payments" $what "$(setting ALLOW_ANONYMOUS true)"
    changed one-proof weak-setting "$payments" $what "$(setting CALLER_PROOF any)"
    changed callers-of-our-own-ca weak-setting "$payments" $what "$(setting TLS_CLIENT_CA /var/run/tinjis/tls/ca.crt)"
    changed one-more-name caller-names "$payments" $what \
      "$(setting TLS_ALLOWED_CLIENTS spiffe://tinjis/ns/antaeus/sa/antaeus,spiffe://tinjis/ns/lab/sa/mallory)"
  }
  changed autoscaler-pinned pinned-autoscaler 'HorizontalPodAutoscaler payments/payments' hpa payments payments \
    '[{"op": "replace", "path": "/spec/minReplicas", "value": 1}, {"op": "replace", "path": "/spec/maxReplicas", "value": 1}]'
  deleted budget-deleted no-budget "$payments" poddisruptionbudget payments payments
  changed route-to-all wide-route 'Ingress antaeus/antaeus' ingress antaeus antaeus \
    '[{"op": "replace", "path": "/spec/rules/0/http/paths/0/path", "value": "/"}]'
}

# image FIELD good|bad: submits a pod of payments, or changes one; the field names an image of the namespace or a
# foreign one.
image() {
  local image pod filter base='{apiVersion: "v1", kind: "Pod", metadata: {name: "hole", namespace: "payments"}, spec: .spec.template.spec}'
  image=$(k --namespace payments get deployment payments --output 'jsonpath={.spec.template.spec.containers[0].image}')
  if [[ $2 == bad ]]; then image=registry.example/payments:1; fi
  # shellcheck disable=SC2016 # jq's variable
  case $1 in
    container) filter="$base | .spec.containers[0].image = \$image" ;;
    init) filter="$base | .spec.initContainers = [.spec.containers[0] | {name: \"hole\", image: \$image, resources, securityContext}]" ;;
    volume) filter="$base | .spec.volumes += [{name: \"hole\", image: {reference: \$image}}]" ;;
    job) filter='{apiVersion: "batch/v1", kind: "Job", metadata: {name: "hole", namespace: "payments"}, spec: {template: {spec:
      (.spec.template.spec | .restartPolicy = "Never" | .containers[0].image = $image)}}}' ;;
    ephemeral)
      pod=$(k --namespace payments get pods --selector app.kubernetes.io/name=payments --output 'jsonpath={.items[0].metadata.name}')
      k --namespace payments patch pod "$pod" --subresource=ephemeralcontainers --dry-run=server --patch \
        '{"spec": {"ephemeralContainers": [{"name": "hole", "image": "'"$image"'", "securityContext":
          {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}'
      return
      ;;
  esac
  k --namespace payments get deployment payments --output json | jq --arg image "$image" "$filter" |
    k create --dry-run=server --filename -
}
image_of_a_container() { image container "$@"; }
image_of_an_init_container() { image init "$@"; }
image_of_an_ephemeral_container() { image ephemeral "$@"; }
image_of_a_volume() { image volume "$@"; }
image_of_a_template() { image job "$@"; }
external_ip() {
  local addresses='externalIPs: [10.96.0.200], '
  if [[ $1 == good ]]; then addresses=; fi
  in_lab Service "{${addresses}ports: [{port: 80}]}" | k create --dry-run=server --filename -
}

admission() {
  refused image-of-a-container tinjis-images image_of_a_container
  refused image-of-an-init-container tinjis-images image_of_an_init_container
  refused image-of-an-ephemeral tinjis-images image_of_an_ephemeral_container
  refused image-of-a-volume tinjis-images image_of_a_volume
  refused image-of-a-template tinjis-images image_of_a_template
  refused external-ip tinjis-external-ips external_ip
  deleted services-unguarded audit-only 'ValidatingAdmissionPolicy tinjis-external-ips' validatingadmissionpolicybinding '' \
    tinjis-external-ips
  changed admission-on-audit audit-only 'ValidatingAdmissionPolicyBinding tinjis-images' validatingadmissionpolicybinding '' \
    tinjis-images '[{"op": "replace", "path": "/spec/validationActions", "value": ["Audit"]}]'
  changed label-removed pod-security-label 'Namespace payments' namespace '' payments \
    '[{"op": "remove", "path": "/metadata/labels/pod-security.kubernetes.io~1enforce"}]'
  changed foreign-registry foreign-image 'Namespace payments' namespace '' payments \
    '[{"op": "replace", "path": "/metadata/annotations/tinjis~1images", "value": "tinjis/payments,registry.example/payments"}]'
  { role cert-manager.io certificates create && binding Role/hole "$(subject User mallory)"; } | sed 's/namespace: payments/namespace: antaeus/' |
    added issuer-for-mallory unlisted-subject 'RoleBinding antaeus/hole'
  changed issuer-of-the-cluster open-issuer 'Certificate antaeus/antaeus-client-tls' certificate antaeus antaeus-client-tls \
    '[{"op": "replace", "path": "/spec/issuerRef", "value": {"name": "hole", "kind": "ClusterIssuer"}}]'
  printf '{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: hole, namespace: %s}, spec: %s}\n' "$lab" \
    '{secretName: hole, issuerRef: {name: tinjis, kind: Issuer}, uris: ["spiffe://tinjis/ns/antaeus/sa/antaeus"]}' |
    added copied-name copied-name "Certificate $lab/hole"
}

# This precedes the check of the sound state, so that no tool reports the namespace as a hole.
k create namespace "$lab" >/dev/null
green 'before the first hole'
rights
network
running
services
admission
green 'after the last hole'
if [[ -n ${PEERS:-} ]]; then OUT=$out deploy/scripts/peers.sh table; fi
printf '%s of %s holes found; production is green before and after\n' "$(grep -c found "$results")" "$(wc -l <"$results")"
slowest=$(sort -n "$seconds" | tail -n 1)
printf 'the slowest of %s doctor runs took %s s\n' "$(wc -l <"$seconds")" "$slowest"
if ((slowest > doctor_seconds_max)); then exit 1; fi
if grep -q missed "$results"; then exit 1; fi
