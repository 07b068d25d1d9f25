#!/usr/bin/env bash
# Prints the size of the shipped crates: lines without tests, files, long functions, import circles and exact duplicates.
# Needs bash, find and any awk. It only measures: the limits are tests in crates/tinjis/tests/tidy.
# Reads rustfmt's layout (an item ends with a brace at its own indentation), so it must not be run on unformatted code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Crates that were split off count like the crate that they came from. Proofs (model, sim, testkit) are not shipped.
crates=(api billing chassis doctor payments pingpong reconcile tinjis)
function_lines_max=70
duplicate_lines_min=8
# The directory whose modules must not import each other in a circle.
acyclic=crates/billing/src/charge/

files() {
  local crate
  for crate in "${crates[@]}"; do
    [[ -d crates/$crate ]] || continue
    find "crates/$crate" \( -name tests -o -name benches -o -name examples \) -prune -o \
      -type f \( -name '*.rs' -o -name '*.sql' \) ! -name tests.rs -print
  done | LC_ALL=C sort
}

mapfile -t sources < <(files)
LC_ALL=C awk -v function_max="$function_lines_max" -v duplicate_min="$duplicate_lines_min" -v acyclic="$acyclic" '
function indent_of(line) { match(line, /^ */); return RLENGTH }

# Adds the modules that one flat import path names.
function add_path(path,    parts, n, i, at, base, first, found) {
  gsub(/[ \t]/, "", path)
  sub(/as[A-Z_].*$/, "", path)
  n = split(path, parts, "::")
  first = parts[1]
  i = 2
  if (first == "crate") base = crate_root
  else if (first == "self") base = module
  else if (first == "super") {
    base = module
    sub(/::[^:]*$/, "", base)
    while (parts[i] == "super") { sub(/::[^:]*$/, "", base); i++ }
  } else { base = module; i = 1 }
  # When all modules are known, the longest prefix that is a module is looked up.
  at = base
  for (; i <= n; i++) at = at "::" parts[i]
  edge_from[++edges] = module
  edge_to[edges] = at
  edge_is_local[edges] = (first != "crate" && first != "super" && first != "self")
}

# Expands `a::{b, c::{d, e}}` into flat paths.
function expand(prefix, tree,    depth, i, c, item, open) {
  depth = 0; item = ""
  for (i = 1; i <= length(tree); i++) {
    c = substr(tree, i, 1)
    if (c == "{") depth++
    if (c == "}") depth--
    if (c == "," && depth == 0) { expand_one(prefix, item); item = "" } else item = item c
  }
  expand_one(prefix, item)
}
function expand_one(prefix, item,    open) {
  gsub(/^[ \t]+|[ \t]+$/, "", item)
  if (item == "") return
  open = index(item, "{")
  if (open == 0) add_path(prefix item)
  else expand(prefix substr(item, 1, open - 1), substr(item, open + 1, length(item) - open - 1))
}

function begin_file(    path, n, parts) {
  split(FILENAME, parts, "/")
  crate = parts[2]
  files[crate]++; files_all++
  path = FILENAME
  sub(/^crates\/[^\/]*\/src\//, "", path)
  is_sql = path ~ /\.sql$/
  sub(/\.rs$/, "", path)
  sub(/\/mod$/, "", path)
  gsub("/", "::", path)
  crate_root = crate
  module = (path == "lib" || path == "main") ? crate : crate "::" path
  if (path == "main") module = crate "::main"
  if (!is_sql) { is_module[module] = 1; file_of[module] = FILENAME; crate_of[module] = crate }
  skipping = 0; after_cfg_test = 0; in_function = 0; import = ""; kept = 0
}

# Keeps a line that can be part of a duplicate.
function keep_line(line) {
  gsub(/[ \t]+/, " ", line)
  sub(/^ /, "", line)
  if (line !~ /[A-Za-z0-9]/) return
  total++
  text[total] = line; file_at[total] = FILENAME; line_at[total] = FNR
}

FNR == 1 { begin_file() }

{ line = $0; sub(/[ \t\r]+$/, "", line) }

# Skips tests inside a file: the attribute and the item under it.
skipping { if (line == skip_end) skipping = 0; next }
after_cfg_test {
  if (line ~ /^ *#\[/) next
  after_cfg_test = 0
  if (line !~ /;$/) { skipping = 1; skip_end = sprintf("%" indent_of(line) "s}", "") }
  next
}
!is_sql && line ~ /^ *#\[cfg\(test\)\]$/ { after_cfg_test = 1; next }

line == "" { if (in_function) function_lines++; next }
(!is_sql && line ~ /^ *\/\//) || (is_sql && line ~ /^ *--/) {
  comments[crate]++; comments_all++
  if (in_function) function_lines++
  next
}
{ code[crate]++; code_all++ }
is_sql { keep_line(line); next }

# Measures functions.
in_function {
  function_lines++
  if (line == function_end) {
    in_function = 0
    if (function_lines > function_max) long[++longs] = sprintf("%s:%d %s: %d lines", FILENAME, function_line, function_name, function_lines)
  }
}
!in_function && line ~ /^ *(pub(\([a-z: ]+\))? )?(const )?(async )?(unsafe )?fn [a-z_0-9]+/ && line !~ /[;}]$/ {
  in_function = 1; function_lines = 1; function_line = FNR
  function_end = sprintf("%" indent_of(line) "s}", "")
  function_name = line; sub(/^.*fn /, "", function_name); sub(/[^a-z_0-9].*$/, "", function_name)
}
# A declaration without a body ends with a semicolon at its own indentation.
in_function && line ~ /^ *\).*;$/ && indent_of(line) == length(function_end) - 1 { in_function = 0 }

# Collects imports. A re-export gives names and is no dependence of its module.
import != "" || line ~ /^ *use / || line ~ /^ *pub(\([a-z: ]+\))? use / || line ~ /^ *(pub(\([a-z: ]+\))? )?mod [a-z_0-9]+;/ {
  import = import " " line
  if (line ~ /;$/) {
    if (import ~ /^ *use /) {
      sub(/^ *use /, "", import); sub(/;$/, "", import)
      expand("", import)
    }
    import = ""
  }
  next
}
{
  # Collects paths in code: `crate::a::b`, `super::a`, and `child::name` of a module of this one.
  rest = line
  sub(/ \/\/ .*$/, "", rest)
  gsub(/"([^"\\]|\\.)*"/, "\"\"", rest)
  while (match(rest, /[a-z_][a-z_0-9]*(::[A-Za-z_0-9]+)+/)) {
    found = substr(rest, RSTART, RLENGTH)
    before = RSTART > 1 ? substr(rest, RSTART - 1, 1) : ""
    rest = substr(rest, RSTART + RLENGTH)
    if (before !~ /[A-Za-z0-9_:]/) add_path(found)
  }
  keep_line(line)
}

function longest_module(path, from, is_local,    parent) {
  while (path != "" && !(path in is_module)) {
    if (path !~ /::/) return ""
    sub(/::[^:]*$/, "", path)
  }
  # A bare path that only resolves to the module that names it is another crate or a local type.
  return path
}

# Groups of modules that reach each other, restricted to those whose file begins with `below`.
function circles(below, print_them,    m, n, i, j, k, name, reach, at, count, group, seen) {
  n = 0
  for (m in is_module) if (index(file_of[m], below) == 1) { name[++n] = m; at[m] = n }
  for (i = 1; i <= edges; i++) {
    if (resolved[i] == "" || resolved[i] == edge_from[i]) continue
    if ((edge_from[i] in at) && (resolved[i] in at)) reach[at[edge_from[i]], at[resolved[i]]] = 1
  }
  for (k = 1; k <= n; k++) for (i = 1; i <= n; i++) if ((i, k) in reach) for (j = 1; j <= n; j++) if ((k, j) in reach) reach[i, j] = 1
  count = 0
  for (i = 1; i <= n; i++) {
    if (seen[i]) continue
    group = ""; k = 0
    for (j = 1; j <= n; j++) if (j == i || (((i, j) in reach) && ((j, i) in reach))) { group = group " " name[j]; k++; seen[j] = 1 }
    if (k > 1) { count++; largest = k > largest ? k : largest; if (print_them) print "  " k " modules:" group }
  }
  return count
}

END {
  for (i = 1; i <= edges; i++) resolved[i] = longest_module(edge_to[i])
  printf "%-12s %6s %8s %9s\n", "crate", "files", "code", "comments"
  n = split("api billing chassis doctor payments pingpong reconcile tinjis", order, " ")
  for (i = 1; i <= n; i++) if (order[i] in files) printf "%-12s %6d %8d %9d\n", order[i], files[order[i]], code[order[i]], comments[order[i]]
  printf "%-12s %6d %8d %9d\n", "all", files_all, code_all, comments_all
  printf "\nfunctions over %d lines: %d\n", function_max, longs
  for (i = 1; i <= longs; i++) print "  " long[i]

  printf "\nimport circles in %s: %d\n", acyclic, circles(acyclic, 0)
  circles(acyclic, 1)
  for (i = 1; i <= n; i++) if (order[i] in files) {
    printf "import circles in crates/%s: %d\n", order[i], circles("crates/" order[i] "/", 0)
    circles("crates/" order[i] "/", 1)
  }

  # Each repeated run of lines is reported once, at its full length.
  for (i = 1; i + duplicate_min - 1 <= total; i++) {
    if (file_at[i] != file_at[i + duplicate_min - 1]) continue
    key = ""
    for (k = 0; k < duplicate_min; k++) key = key "\n" text[i + k]
    if (i > covered && (key in first) && !(file_at[first[key]] == file_at[i] && first[key] + duplicate_min > i)) {
      j = first[key]
      for (k = duplicate_min; text[i + k] == text[j + k] && file_at[i + k] == file_at[i] && file_at[j + k] == file_at[j] && !(file_at[i] == file_at[j] && j + k >= i); k++) ;
      duplicates++; duplicate_lines += k
      told[duplicates] = sprintf("%d lines: %s:%d-%d and %s:%d-%d", k, file_at[j], line_at[j], line_at[j + k - 1], file_at[i], line_at[i], line_at[i + k - 1])
      covered = i + k - 1
    }
    if (!(key in first)) first[key] = i
  }
  printf "\nexact duplicates of %d lines or more: %d, of %d lines together\n", duplicate_min, duplicates, duplicate_lines
  for (i = 1; i <= duplicates; i++) print "  " told[i]
}
' "${sources[@]}"
