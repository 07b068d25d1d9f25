#!/usr/bin/env bash
# The doctor on production: green without changes, red by name for each path that is opened, and `cannot tell` when a
# positive control fails. Each change is reverted before the next one and before the verdict.
#
#   e2e-doctor.sh       tests production as deployed; e2e.sh sources it instead and calls `doctored`, and `isolated` for
#                       every other environment; holes.sh sources it for shared functions
#
# KUBECTL: the client. TINJIS: the program. IMAGE: the image of the probes. OUT: the folder for reports.
# shellcheck disable=SC2154

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  cd "$(dirname "$0")/../.."
  read -ra kubectl <<<"${KUBECTL:-kubectl}"
  k() { "${kubectl[@]}" "$@"; }
  verdict() { printf '✔ %s\n' "$*"; }
  red() {
    printf '✘ %s\n' "$*" >&2
    exit 1
  }
  out=${OUT:?}
fi

read -ra program <<<"${TINJIS:?}"
doctor_image() { echo "${IMAGE:-tinjis/tinjis:$tag}"; }

# Maximum seconds of one run of the doctor.
doctor_seconds_max=60

# doctor_of ENV [ARG...]: runs the doctor on an environment, with its output in a file; sets `code`.
doctor_of() {
  local env=$1
  shift
  code=0
  "${program[@]}" doctor "deploy/envs/$env/doctor.toml" --image "$(doctor_image)" "$@" >"$out/doctor" 2>&1 || code=$?
}
doctor() { doctor_of production "$@"; }

# isolated ENV: runs the doctor on an environment as installed, without evictions, which e2e tests itself.
isolated() {
  local began=$SECONDS
  doctor_of "$1" --no-evictions
  ((SECONDS - began <= doctor_seconds_max)) || red "the doctor took $((SECONDS - began)) s for $1"
  says 0 "$1: green" "$1 as it stands"
}

# says EXIT TEXT WHAT: checks the exit code and a text in the doctor's output.
says() {
  if [[ $code != "$1" ]] || ! grep -qF "$2" "$out/doctor"; then
    red "the doctor, $3: exit $code, and not \"$2\": $(grep -vE '^(ok|doctor:)' "$out/doctor" | tail -n 40)"
  fi
  verdict "the doctor, $3: exit $code, $(grep -F "$2" "$out/doctor" | tail -n 1)"
}

# with WHAT EXIT TEXT: breaks WHAT, runs doctor, reverts WHAT, then checks doctor's output.
with() {
  "break_$1"
  doctor --no-evictions
  "revert_$1"
  says "$2" "$3" "with $4"
}

whole() {
  local name
  for name in payments antaeus; do k --namespace "$name" rollout status "deployment/$name" --timeout=120s >/dev/null; done
}

# kept KIND NAMESPACE NAME: prints an object in a form from which it can be created again.
kept() {
  k --namespace "$2" get "$1" "$3" --output json |
    jq 'del(.metadata.uid, .metadata.resourceVersion, .metadata.creationTimestamp, .metadata.generation, .metadata.managedFields, .status)'
}

break_policy() {
  kept networkpolicy payments payments >"$out/policy.json"
  k --namespace payments delete networkpolicy payments >/dev/null
}
revert_policy() { k --namespace payments create --filename "$out/policy.json" >/dev/null; }

# The policy that denies everything is deleted too: without it payments is not closed but open.
break_policies() {
  kept networkpolicy payments default-deny >"$out/default-deny.json"
  k --namespace payments delete networkpolicy default-deny >/dev/null
  break_policy
}
revert_policies() {
  revert_policy
  k --namespace payments create --filename "$out/default-deny.json" >/dev/null
}

# widened RESOURCE VERB: adds one rule to the team of payments.
widened() {
  kept role payments team >"$out/role.json"
  k --namespace payments patch role team --type=json --patch \
    '[{"op": "add", "path": "/rules/-", "value": {"apiGroups": [""], "resources": ["'"$1"'"], "verbs": ["'"$2"'"]}}]' >/dev/null
}
break_role() { widened secrets get; }
revert_role() { k --namespace payments replace --filename "$out/role.json" >/dev/null; }
break_exec() { widened pods/exec create; }
revert_exec() { revert_role; }

# Allows any pod with the label antaeus, in any namespace.
break_hole() {
  k --namespace payments create --filename - >/dev/null <<'YAML'
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: e2e-hole}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: payments}}
  policyTypes: [Ingress]
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: antaeus}}}]}]
YAML
}
revert_hole() { k --namespace payments delete networkpolicy e2e-hole >/dev/null; }

break_binding() { k --namespace payments create rolebinding e2e-widened --role=team --group=team-antaeus >/dev/null; }
revert_binding() { k --namespace payments delete rolebinding e2e-widened >/dev/null; }

break_mtls() {
  k --namespace payments set env deployment/payments TLS_CLIENT_CA- TLS_ALLOWED_CLIENTS- >/dev/null
  whole
}
revert_mtls() {
  k --namespace payments rollout undo deployment/payments >/dev/null
  whole
}

# Gives antaeus a token that payments does not know: every caller is rejected, so a rejection proves nothing.
break_positive_control() {
  (umask 077 && kept secret antaeus payments-token >"$out/token.json")
  k --namespace antaeus patch secret payments-token --type=merge --patch '{"stringData": {"token": "not-the-token-of-payments"}}' >/dev/null
}
revert_positive_control() {
  k --namespace antaeus replace --filename "$out/token.json" >/dev/null
  rm "$out/token.json"
}

# Sends Ctrl-C in the middle to the whole process group, as a terminal does: no object of the doctor may stay.
interrupted() {
  local doctor left status=0
  # The output of an earlier run must not be mistaken for the output of this one.
  : >"$out/doctor"
  # With job control the doctor is in a process group of its own, as on a terminal, and does not ignore Ctrl-C.
  set -m
  "${program[@]}" doctor deploy/envs/production/doctor.toml --image "$(doctor_image)" --no-evictions >"$out/doctor" 2>&1 &
  set +m
  doctor=$!
  for _ in {1..600}; do
    if grep -q 'checks from' "$out/doctor"; then break; fi
    read -rt 0.2 <> <(:) || true
  done
  [[ -n $(k get pods --all-namespaces --selector tinjis.io/doctor --output name) ]] || red "the doctor made no pod: $(<"$out/doctor")"
  kill -INT -- "-$doctor"
  wait "$doctor" || status=$?
  left=$(k get pods,secrets,namespaces --all-namespaces --selector tinjis.io/doctor --output name)
  [[ $status == 2 && -z $left ]] || red "the doctor, interrupted: exit $status, and it left \"$left\": $(<"$out/doctor")"
  verdict 'the doctor, interrupted: exit 2, and nothing of it is left'
}

# Starts the CronJob's first run by hand: it succeeds when green, and fails once without a repeat when red. Runs without
# a Pushgateway, which no environment installs.
nightly() {
  local namespace=tinjis-doctor-nightly ended=yes had
  had=$(k get --ignore-not-found --output name --filename deploy/doctor/read-only.yaml)
  nightly_manifests() {
    sed "s|tinjis/tinjis:[0-9.]*$|$(doctor_image)|; /DOCTOR_PUSH_METRICS/d; s|^\( *\)env:$|\1env: []|" deploy/doctor/cronjob.yaml
  }
  k apply --filename deploy/doctor/read-only.yaml >/dev/null
  nightly_manifests | k apply --filename - >/dev/null
  k --namespace "$namespace" create configmap doctor --from-file=doctor.toml=deploy/envs/production/doctor.toml >/dev/null
  k --namespace "$namespace" create job green --from=cronjob/doctor >/dev/null
  k --namespace "$namespace" wait --for=condition=Complete job/green --timeout=120s >/dev/null || ended=
  break_policy
  if [[ $ended ]]; then
    k --namespace "$namespace" create job red --from=cronjob/doctor >/dev/null
    k --namespace "$namespace" wait --for=condition=Failed job/red --timeout=120s >/dev/null || ended=
  fi
  revert_policy
  k --namespace "$namespace" logs --selector app.kubernetes.io/name=doctor --tail=-1 >"$out/doctor" 2>&1 || true
  code=$(k --namespace "$namespace" get pods --selector job-name=red \
    --output 'jsonpath={.items[*].status.containerStatuses[0].state.terminated.exitCode}')
  nightly_manifests | k delete --wait --filename - >/dev/null
  [[ $had ]] || k delete --filename deploy/doctor/read-only.yaml >/dev/null
  [[ $ended ]] || red "the nightly doctor did not end: $(<"$out/doctor")"
  # Several pods would give several exit codes.
  says 1 'look at: NetworkPolicy payments/payments' 'every night, a NetworkPolicy deleted'
}

doctored() {
  whole
  doctor --junit "$out/doctor.xml" --json "$out/doctor.json"
  says 0 'production: green' 'production as it stands, evictions too'
  cp "$out/doctor" "$out/doctor.green"
  with policy 1 'look at: blocked: networkpolicy payments/payments does not exist' 'its NetworkPolicy deleted'
  with policies 1 'look at: networkpolicy payments/payments does not exist' 'each NetworkPolicy of payments deleted'
  with hole 1 'networkpolicy payments/e2e-hole' 'a policy that accepts a caller'"'"'s labels from everywhere'
  with role 1 'Role payments/team by RoleBinding payments/team' 'the Role of the team widened'
  with exec 1 'group team-payments may create pods/exec in payments: Role payments/team' 'a team that may execute in pods'
  with binding 1 'Role payments/team by RoleBinding payments/e2e-widened' 'the Role given to the other team'
  with mtls 1 'look at: payments serves callers without a certificate: mutual TLS is off' 'mutual TLS off'
  with positive_control 2 'production: cannot tell' 'a token that payments rejects'
  interrupted
  nightly
  doctor --no-evictions
  says 0 'production: green' 'all put right again'
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then doctored; fi
