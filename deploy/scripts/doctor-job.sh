#!/usr/bin/env bash
# Runs the doctor as a Job in the cluster: prints its output, exits with its code, and deletes the Job.
#
#   doctor-job.sh EXPECTATIONS IMAGE
set -euo pipefail

expectations=$1 image=$2
folder=$(dirname "$0")/../doctor
namespace=tinjis-doctors
read -ra kubectl <<<"${KUBECTL:-kubectl}"
k() { "${kubectl[@]}" --namespace "$namespace" "$@"; }
manifests() { sed "s|tinjis/tinjis:[0-9.]*|$image|" "$folder/job.yaml"; }
# Deletes the Job first: an interrupted doctor deletes its pods, and still needs its rights for this.
away() {
  k delete job doctor --ignore-not-found --cascade=foreground --timeout=100s >/dev/null 2>&1 || true
  manifests | k delete --ignore-not-found --wait --filename - >/dev/null 2>&1
}
trap away EXIT

reply=$("${kubectl[@]}" version --request-timeout=10s 2>&1) || {
  echo "doctor-job: no cluster answers: $(tail -n 1 <<<"$reply")" >&2
  exit 2
}
away
k create namespace "$namespace" >/dev/null
k create configmap doctor --from-file="doctor.toml=$expectations" >/dev/null
manifests | k apply --filename - >/dev/null 2>&1
k wait --for=condition=Ready pod --selector app.kubernetes.io/name=doctor --timeout=60s >/dev/null || {
  echo 'doctor-job: its pod does not start:' >&2
  k get events --sort-by=.lastTimestamp --output 'custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message' --no-headers | tail -n 8 >&2
  exit 2
}
k logs --follow job/doctor
k wait --for=jsonpath='{.status.containerStatuses[0].state.terminated.reason}' pod \
  --selector app.kubernetes.io/name=doctor --timeout=60s >/dev/null
code=$(k get pod --selector app.kubernetes.io/name=doctor \
  --output 'jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}')
exit "$code"
