#!/usr/bin/env bash
# Renders environments: of each, its base and every release of the chart, in the order in which they are applied, to
# rendered.yaml. The same with Helm 3 and 4. Asks no cluster.
#
#   render.sh ENV...
set -euo pipefail

cd "$(dirname "$0")/.."
helm=${HELM:-helm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# documents RANK: splits standard input into files that sort in the order of being applied. Namespaces first, then
# policies, so that no pod ever runs without them; then what else the base has; then release by release.
documents() {
  awk -v rank="$1" -v out="$work/docs" '
    function place(  kind, order) {
      kind = doc; sub(/^(.*\n)?kind: */, "", kind); sub(/\n.*/, "", kind)
      sub(/\n+$/, "\n", doc)
      if (doc !~ /(^|\n)kind: /) return
      if (doc ~ /helm\.sh\/hook: test/) return
      if (kind == "Namespace") order = "0-0"
      else if (kind == "NetworkPolicy") order = "1-" rank
      else order = "2-" rank "-" ((kind in at) ? at[kind] : 90)
      count++
      printf "---\n%s", doc > sprintf("%s/%s-%s-%03d.yaml", out, order, rank, count)
      close(sprintf("%s/%s-%s-%03d.yaml", out, order, rank, count))
    }
    BEGIN {
      n = split("ServiceAccount PersistentVolumeClaim Certificate ConfigMap Job Deployment Service Ingress", kinds, " ")
      for (i = 1; i <= n; i++) at[kinds[i]] = 10 + i
    }
    /^---/ { place(); doc = ""; next }
    /^# Source: / { next }
    { sub(/[ \t]+$/, ""); if ($0 != "" || doc != "") doc = doc $0 "\n" }
    END { place() }'
}

render() {
  local env=$1 rank=10 release namespace
  rm -rf "$work/docs"
  mkdir "$work/docs"
  documents 00 <"envs/$env/base.yaml"
  while read -r release namespace; do
    case $release in
      '#'* | '') ;;
      @*) sed "s/namespace: databases$/namespace: $namespace/" "envs/base/${release#@}.yaml" | documents "$rank" ;;
      *)
        "$helm" template "$release" chart --namespace "$namespace" --values "envs/$env/$release.values.yaml" |
          documents "$rank"
        ;;
    esac
    rank=$((rank + 1))
  done <"envs/$env/releases"
  {
    printf '# Rendered by make render from the base, the chart and the values beside this; not edited by hand.\n'
    cat "$work"/docs/*.yaml | sed -e '/./,$!d' | cat -s
  } >"envs/$env/rendered.yaml"
}

for env in "$@"; do render "$env"; done
