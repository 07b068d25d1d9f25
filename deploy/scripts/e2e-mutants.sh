#!/usr/bin/env bash
# Tests that e2e notices faults: each fault is planted into a copy of this tree, and must turn e2e red by its intended
# verdict. Objects that a red run leaves on the cluster are deleted.
#
#   e2e-mutants.sh     the variables are those of e2e.sh
set -euo pipefail

cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=${OUT:?}/mutants.log
missed=0

# mutant WHAT ENV WORDS FILE SED: plants a fault, runs e2e, and judges it; WORDS is a pattern for the text of the red
# verdict.
mutant() {
  local what=$1 env=$2 words=$3 file=$4 began=$SECONDS status=0
  rm -rf "$work/tree"
  mkdir "$work/tree"
  git ls-files -z | tar --null --files-from=- --create --file=- | tar --extract --file=- --directory="$work/tree"
  sed --in-place --regexp-extended "$5" "$work/tree/$file"
  if cmp --silent "$file" "$work/tree/$file"; then
    printf '✘ %s: nothing was planted in %s\n' "$what" "$file" >&2
    exit 1
  fi
  OUT=$OUT/mutant "$work/tree/deploy/scripts/e2e.sh" "$env" >"$log" 2>&1 || status=$?
  make destroy "ENV=$env" >/dev/null
  if ((status)) && grep -E "✘ $words" "$log" >"$work/reply"; then
    printf '✔ %s: red after %d s, %.120s\n' "$what" $((SECONDS - began)) "$(<"$work/reply")"
  else
    printf '✘ %s: exit %d, and not "%s": %s\n' "$what" "$status" "$words" "$(tail -n 5 "$log")" >&2
    missed=1
  fi
}

mutant 'no disruption budget' ping-pong 'ponger: evictions were allowed allowed' \
  deploy/envs/ping-pong/rendered.yaml 's/^(  maxUnavailable:) 1$/\1 3/'
mutant 'a namespace that stays' ping-pong 'ping-pong left behind: ' \
  deploy/scripts/cluster.sh 's/^  kinds Namespace \| delete$/  :/'
mutant 'pods that stop before every proxy has left them' invoice-app 'both services are replaced, and pods deleted' \
  deploy/envs/invoice-app/rendered.yaml '/^ *lifecycle:$/d; /^ *preStop:$/d; /^ *sleep: \{seconds: 5\}$/d'
mutant 'a Service on a port of every node' ping-pong 'the doctor, ping-pong as it stands: exit 1' \
  deploy/envs/ping-pong/rendered.yaml 's/^  type: ClusterIP$/  type: NodePort/'
mutant 'a program that is ready late' ping-pong 'ponger-[^ ]+ took [0-9]+ s from its start until it was ready' \
  deploy/envs/ping-pong/rendered.yaml 's/^( *)readinessProbe:$/&\n\1  initialDelaySeconds: 45/'
mutant 'a database open to every namespace' invoice-app 'the doctor, invoice-app as it stands: exit 1' \
  deploy/envs/invoice-app/rendered.yaml 's|^        - podSelector:$|        - namespaceSelector: {}\n          podSelector:|'
mutant 'a namespace that takes any pod' tinjis 'the doctor, tinjis as it stands: exit 1' \
  deploy/envs/tinjis/rendered.yaml '/pod-security.kubernetes.io\/enforce: restricted/d'
if ((missed)); then exit 1; fi
