#!/usr/bin/env bash
# Renders environments to rendered.yaml: the base and every release of the chart, in the order in which they are
# applied. Staging and production share envs/base. Helm 3 and 4 give the same result. Needs no cluster. CHART is another
# form of the chart, such as its package.
#
#   render.sh ENV...
set -euo pipefail

cd "$(dirname "$0")/.."
helm=${HELM:-helm}
chart=${CHART:-chart}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# documents RANK: splits standard input into files that sort in the order of their application. Namespaces come first,
# then policies, so that no pod ever runs without them; then the rest of the base; then release by release.
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

# manifests_of ENV SHARED RELEASE NAMESPACE: renders one release of the chart. Settings of an environment on the shared
# base are in its RELEASE.values.json: JSON, because a linter that renders each YAML file of values alone would reject
# an incomplete one.
manifests_of() {
  local values=(--values "envs/$2/$3.values.yaml")
  if [[ $2 != "$1" ]]; then
    values+=(--set-string "labels.tinjis/environment=$1")
    if [[ -r envs/$1/$3.values.json ]]; then values+=(--values "envs/$1/$3.values.json"); fi
  fi
  "$helm" template "$3" "$chart" --namespace "$4" "${values[@]}"
}

# Renders an environment. Without a base.yaml of its own it uses envs/base, which has everything but the values that
# differ.
render() {
  local env=$1 shared=$1 base=envs/$1/base.yaml rank=10 release namespace
  if [[ ! -r $base ]]; then shared=base base=envs/base/base.yaml.in; fi
  rm -rf "$work/docs"
  mkdir "$work/docs"
  sed "s|ENVIRONMENT$|$env|" "$base" | documents 00
  while read -r release namespace; do
    case $release in
      '#'* | '') ;;
      @*)
        sed -e "s/namespace: databases$/namespace: $namespace/" -e '/ # databases only$/d' "envs/base/${release#@}.yaml" |
          documents "$rank"
        ;;
      *) manifests_of "$env" "$shared" "$release" "$namespace" | documents "$rank" ;;
    esac
    rank=$((rank + 1))
  done <"envs/$shared/releases"
  {
    printf '# Rendered by make render from the base, the chart and the values; not edited by hand.\n'
    cat "$work"/docs/*.yaml | sed -e '/./,$!d' | cat -s
  } >"envs/$env/rendered.yaml"
  if [[ $shared != "$env" ]]; then
    {
      printf '# Rendered by make render from ../base/doctor.toml.in; not edited by hand.\n'
      sed "s|\"ENVIRONMENT\"$|\"$env\"|" envs/base/doctor.toml.in
    } >"envs/$env/doctor.toml"
  fi
}

# Prints the parts of the production environment for the Flux example: the base with the example's registry, and the
# values of each release as a ConfigMap.
flux_base() {
  printf '# Rendered by make render from envs/base and the values of production; not edited by hand.\n'
  sed -e "s|ENVIRONMENT$|production|" -e '/^ *tinjis\/images: /s|\([ ,]\)tinjis/|\1registry.example.com/tinjis/|g' \
    -e '/^  name: default-deny$/{n;a\  annotations: {kube-score/ignore: networkpolicy-targets-pod} # Helm brings the pods' -e '}' envs/base/base.yaml.in
  while read -r release namespace; do
    case $release in '#'* | '' | @*) continue ;; esac
    printf -- '---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s-values\n  namespace: %s\ndata:\n' "$release" "$namespace"
    printf '  values.yaml: |\n'
    sed -e 's/^/    /' -e 's/ *$//' "envs/base/$release.values.yaml"
    printf '  production.yaml: |\n    labels: {tinjis/environment: production}\n    image: {registry: registry.example.com}\n'
    if [[ -r envs/production/$release.values.json ]]; then printf '  environment.yaml: |\n' && sed 's/^/    /' "envs/production/$release.values.json"; fi
  done <envs/base/releases
}

for env in "$@"; do render "$env"; done
if [[ " $* " == *" production "* ]]; then flux_base >examples/flux-base.yaml; fi
