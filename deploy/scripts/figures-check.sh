#!/usr/bin/env bash
# figures-check.sh FIGURES_TOML [TODAY]: red when a recorded figure is older than 30 days. Needs GNU date and awk.
set -euo pipefail

data=$1
oldest=$(date --utc --date="${2:-today} 30 days ago" +%F)
awk -v oldest="$oldest" -F '"' '
  /^id = / { id = $2 }
  /^date = / { measured++; if ($2 < oldest) { print id ": measured on " $2 ", more than 30 days ago" >"/dev/stderr"; old++ } }
  /^\[\[figure\]\]/ { all++ }
  END {
    printf "%d figures: %d measured, %d of them too old, %d not measured yet\n", all, measured, old, all - measured
    if (!measured) print "no figure has a date" >"/dev/stderr"
    exit (old > 0 || !measured)
  }' "$data"
