#!/usr/bin/env bash
# Builds billing and payments of the previous version and puts them into a folder, for `make upgrade`. Does nothing if
# the folder has these programs. The build is separate, because cargo would mistake one revision's crate for the
# other's.
#
#   previous.sh FOLDER REVISION
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
revision=$2
cd "$(dirname "$0")/../.."

# none WHY: records that there is no previous version here, so that the tests of an upgrade can report why they are
# skipped.
none() {
  rm -f "$folder/revision"
  printf '%s\n' "$*" >"$folder/none"
  printf 'the previous version is NOT built: %s\n' "$*" >&2
  exit
}

rm -f "$folder/none"
shallow=$(git rev-parse --is-shallow-repository 2>/dev/null) || none 'this is no checkout of a repository'
if [[ $shallow == true ]]; then
  git fetch --quiet --unshallow --tags || none 'this checkout has no history, and it could not be fetched'
fi
revision=$(git rev-parse --verify --quiet "$revision^{commit}") ||
  none "this checkout has no revision $2: say PREVIOUS=REVISION"
if [[ -f $folder/revision && $(<"$folder/revision") == "$revision" ]]; then exit; fi

copy=$(mktemp -d "$folder/copy.XXXXXX")
trap 'rm -rf "$copy"' EXIT
git clone --quiet --shared --no-checkout . "$copy"
git -C "$copy" checkout --quiet --detach "$revision"
printf 'the previous version is %s\n' "$(git log -1 --format='%h %s' "$revision")"
export CARGO_TARGET_DIR=$copy/target CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
(cd "$copy" && cargo build --locked --package billing --package payments)
cp "$copy/target/debug/billing" "$copy/target/debug/payments" "$folder"
printf '%s\n' "$revision" >"$folder/revision"
