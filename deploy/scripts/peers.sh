#!/usr/bin/env bash
# Findings of other tools about the same planted holes, each tool used as its authors intend. Only lines that the tool
# did not print for production before the first hole count. A missing tool is listed with the reason.
#
#   peers.sh keep NAME      while a hole is planted: stores its objects, and the findings of live tools
#   peers.sh table          afterwards: prints a line per hole
#
# KUBECTL: the client. OUT: the folder. CHECKOV, KUBE_SCORE, CYCLONUS, CHAINSAW, NETCHECK: the programs.
set -euo pipefail

cd "$(dirname "$0")/../.."
read -ra kubectl <<<"${KUBECTL:-kubectl}"
out=${OUT:?}/peers
green=before
k() { "${kubectl[@]}" "$@"; }

declare -A programs=([checkov]=${CHECKOV:-checkov} [kube-score]=${KUBE_SCORE:-kube-score} [cyclonus]=${CYCLONUS:-cyclonus}
  [chainsaw]=${CHAINSAW:-chainsaw} [netcheck]=${NETCHECK:-netcheck})
tools=(can-i netcheck chainsaw checkov kube-score cyclonus)
installed() { [[ $1 == can-i ]] || command -v "${programs[$1]}" >/dev/null; }

# Lists the permissions of subjects that should have some, or none: a user of `can-i` does not know which other subjects
# exist.
can_i() {
  local namespace
  for namespace in antaeus payments; do
    for group in team-antaeus team-payments system:authenticated; do
      k auth can-i --list --no-headers --namespace "$namespace" --as someone --as-group "$group" | sed "s|^|$group in $namespace: |"
    done
    for account in antaeus:default payments:default default:default; do
      k auth can-i --list --no-headers --namespace "$namespace" --as "system:serviceaccount:$account" \
        --as-group system:serviceaccounts --as-group system:authenticated | sed "s|^|$account in $namespace: |"
    done
  done | tr -s ' ' | sort
}

# Asserts that each object of the rendered file exists in this form: one assertion per object, because an assertion ends
# at the first difference.
of_chainsaw() {
  local assertions=$1/assertions
  rm -rf "$assertions"
  mkdir "$assertions"
  csplit --quiet --elide-empty-files --suppress-matched --prefix="$assertions/" --suffix-format=%03d.yaml \
    deploy/envs/production/rendered.yaml '/^---$/' '{*}'
  # shellcheck disable=SC2016
  grep --files-with-matches --null --recursive '^kind: ' "$assertions" |
    xargs --null --max-args=1 --max-procs=4 sh -c '"$0" assert --timeout 5s --no-color --file "$1" >"$1.said" 2>&1' "${programs[chainsaw]}" || true
  cat "$assertions"/*.said | grep -E '^[ *-]*(spec|metadata|[a-z].*not found|.*:)' | sort || true
  rm -r "$assertions"
}

# Checks ports that must be closed to this machine; netcheck's operator runs the same assertions from a pod.
of_netcheck() {
  local config=$1/netcheck.json
  for namespace in antaeus payments; do
    k --namespace "$namespace" get pods --selector "app.kubernetes.io/name=$namespace" --output json
  done | jq '[.items[] | select(.metadata.deletionTimestamp == null) | . as $pod | .spec.containers[0].ports[]
    | {name: "\($pod.metadata.namespace) \(.name)", rules: [{type: "tcp", host: $pod.status.podIP, port: .containerPort, timeout: 2, expected: "fail"}]}]
    | unique_by(.name)' | jq --slurp '{assertions: add}' >"$config"
  "${programs[netcheck]}" run --config "$config" 2>/dev/null |
    jq --raw-output '.assertions[] | select(any(.results[]; .data.connected)) | "\(.name) is open to this machine"' | sort || true
}

keep() {
  local folder=$out/$1 namespace
  mkdir -p "$folder"
  for namespace in antaeus payments tinjis-holes; do
    k --namespace "$namespace" get --output json --ignore-not-found \
      deployments,pods,services,networkpolicies,roles,rolebindings,serviceaccounts,horizontalpodautoscalers,poddisruptionbudgets,ingresses
  done | jq --compact-output '.items[]? | select(.metadata.ownerReferences == null) | del(.status, .metadata.managedFields)' |
    sed 's/^/---\n/' >"$folder/objects.yaml"
  can_i >"$folder/can-i"
  if installed chainsaw; then of_chainsaw "$folder" >"$folder/chainsaw"; fi
  if installed netcheck; then of_netcheck "$folder" >"$folder/netcheck"; fi
}

# Runs checkov once for all files, because it starts slowly; prints a line per finding, with its file.
all_of_checkov() {
  "${programs[checkov]}" --directory "$out" --framework kubernetes --output json --compact --quiet --skip-download 2>/dev/null |
    jq --raw-output '.results.failed_checks[]? | "\(.file_path) \(.check_id) \(.check_name): \(.resource)"' >"$out/checkov" || true
}
# Each of the following functions prints the findings of a file, one per line, without their place in the file.
of_checkov() { grep -F "/${1#"$out/"} " "$out/checkov" | cut -d' ' -f2- | sort --unique || true; }
of_kube-score() {
  "${programs[kube-score]}" score --output-format ci "$1" 2>/dev/null | grep -E '^\[(CRITICAL|WARNING)\]' | sort --unique || true
}
of_cyclonus() {
  jq --compact-output --null-input --raw-input 'inputs | select(. != "---") | fromjson | select(.kind == "NetworkPolicy")' "$1" |
    sed 's/^/---\n/' >"$1.policies.yaml"
  "${programs[cyclonus]}" analyze --mode lint --policy-path "$1.policies.yaml" 2>/dev/null | tr -s ' +-' | sort --unique || true
}

table() {
  local name tool folder
  for tool in "${tools[@]}"; do
    installed "$tool" || echo "not run: $tool, for there is no ${programs[$tool]} here"
  done
  if installed checkov; then all_of_checkov; fi
  for folder in "$out"/*/; do
    for tool in checkov kube-score cyclonus; do
      if installed "$tool"; then "of_$tool" "${folder}objects.yaml" >"$folder$tool"; fi
    done
  done
  while read -r name; do
    for tool in "${tools[@]}"; do
      if ! installed "$tool"; then continue; fi
      printf '%-24s %-11s %s\n' "$name" "$tool" "$(comm -13 "$out/$green/$tool" "$out/$name/$tool" | head -n 1 | cut -c1-110)"
    done
  done < <(cd "$out" && for folder in */; do echo "${folder%/}"; done | grep -vx "$green")
  for tool in "${tools[@]}"; do
    if ! installed "$tool"; then continue; fi
    name=0
    for folder in "$out"/*/; do
      if [[ -n $(comm -13 "$out/$green/$tool" "$folder$tool") ]]; then name=$((name + 1)); fi
    done
    echo "$tool: something new at $name of $(($(find "$out" -mindepth 1 -maxdepth 1 -type d | wc -l) - 1)) planted holes"
  done
}

case ${1:-} in
  keep) keep "${2:?}" ;;
  table) table ;;
  *)
    echo 'peers.sh: keep NAME or table' >&2
    exit 64
    ;;
esac
