# shellcheck shell=bash
# The doctor's part of e2e.sh, which sources it: green as production stands, red for each thing that is opened, by
# its name. It sets tag and out, too.
# shellcheck disable=SC2154

# doctor_says EXIT WORDS WHAT: what the doctor must say of production now.
doctor_says() {
  local code=0
  "$TINJIS" doctor deploy/envs/production/doctor.toml --image "tinjis/tinjis:$tag" --no-evictions \
    --junit "$out/doctor.xml" --json "$out/doctor.json" >"$out/doctor" 2>&1 || code=$?
  if [[ $code != "$1" ]] || ! grep -qF "$2" "$out/doctor"; then
    red "the doctor, $3: exit $code, and not \"$2\": $(grep -vE '^(ok|doctor:)' "$out/doctor" | tail -n 40)"
  fi
  verdict "the doctor, $3: exit $code, \"$2\""
}

doctored() {
  doctor_says 0 'production: green' 'production as it stands'

  k --namespace payments get networkpolicy payments --output json |
    jq '{apiVersion, kind, metadata: {name: .metadata.name, labels: .metadata.labels, annotations: .metadata.annotations}, spec}' >"$out/policy.json"
  k --namespace payments delete networkpolicy payments >/dev/null
  doctor_says 1 'networkpolicy payments/payments is not there' 'with a NetworkPolicy deleted'
  k --namespace payments create --filename "$out/policy.json" >/dev/null

  k --namespace payments create rolebinding e2e-widened --role=team --group=team-antaeus >/dev/null
  doctor_says 1 'RoleBinding payments/e2e-widened' 'with a Role given to the other team'
  k --namespace payments delete rolebinding e2e-widened >/dev/null

  k --namespace payments set env deployment/payments TLS_CLIENT_CA- TLS_ALLOWED_CLIENTS- >/dev/null
  k --namespace payments rollout status deployment/payments --timeout=120s >/dev/null
  doctor_says 1 'mutual TLS is off' 'with mutual TLS off'
  k --namespace payments rollout undo deployment/payments >/dev/null
  k --namespace payments rollout status deployment/payments --timeout=120s >/dev/null

  doctor_says 0 'production: green' 'all put right again'
}
