#!/usr/bin/env bash
# Builds billing and payments of the previous version and puts them into a folder, for `make upgrade`. That version is
# REVISION, or the last tag, or, if no step of a schema was added since that tag, the commit before the newest step:
# so a migration always lies between. Builds in CARGO_TARGET_DIR, where most of what both need is built already.
#
#   previous.sh FOLDER [REVISION]
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
revision=${2:-}
cd "$(dirname "$0")/../.."
out=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)

if [[ -z $revision ]]; then
  step=$(git log -1 --format=%H -S'Migration {' -- crates/billing/src/store crates/payments/src/ledger)
  if [[ -z $step ]]; then
    echo "no commit here adds a step to a schema: is the history whole? Or say PREVIOUS=REVISION" >&2
    exit 2
  fi
  tag=$(git describe --tags --abbrev=0 2>/dev/null || true)
  if [[ -n $tag ]] && ! git merge-base --is-ancestor "$step" "$tag"; then
    revision=$tag
  else
    revision=$step^
  fi
fi
revision=$(git rev-parse --verify "$revision^{commit}")
if [[ -f $folder/revision && $(<"$folder/revision") == "$revision" ]]; then exit; fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git clone --quiet --shared --no-checkout . "$copy"
git -C "$copy" checkout --quiet --detach "$revision"
printf 'the previous version is %s\n' "$(git log -1 --format='%h %s' "$revision")"
(cd "$copy" && CARGO_TARGET_DIR=$out cargo build --locked --package billing --package payments)
cp "$out/debug/billing" "$out/debug/payments" "$folder"
printf '%s\n' "$revision" >"$folder/revision"
