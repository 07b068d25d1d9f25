# From `cargo metadata` to CycloneDX 1.6: every crate that the program $program links, normal and build dependencies,
# none of tests. Knows no registry.
def purl: "pkg:cargo/\(.name)@\(.version)";
. as $all
| ($all.packages | map({key: .id, value: .}) | from_entries) as $package
| ($all.resolve.nodes | map({key: .id, value: [.deps[] | select(any(.dep_kinds[]; .kind != "dev")) | .pkg]}) | from_entries) as $deps
| ($all.packages[] | select(.name == $program and .source == null)) as $root
| def reached($seen; $next): if ($next | length) == 0 then $seen
    else ($next - $seen | unique) as $new
    | reached($seen + $new; [$new[] | $deps[.][]?] | unique | . - ($seen + $new)) end;
(reached([]; [$root.id]) | unique - [$root.id]) as $parts
| {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {component: {type: "application", "bom-ref": ($root | purl), name: $root.name, version: $root.version, purl: ($root | purl)}},
    components: [
      $parts[] | $package[.] | {type: "library", "bom-ref": purl, name, version, purl: purl}
      + (if .license then {licenses: [{expression: (.license | gsub("/"; " OR "))}]} else {} end)
      + (if .description then {description: (.description | gsub("\\s+"; " "))} else {} end)
    ] | sort_by(.["bom-ref"]),
    dependencies: [
      ($root.id, $parts[]) as $id | {ref: ($package[$id] | purl), dependsOn: [$deps[$id][]? | $package[.] | purl] | unique}
    ] | sort_by(.ref)
  }
