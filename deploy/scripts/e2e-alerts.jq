# A copy of the chart's PrometheusRule, as the cluster has it, in which time runs faster. An hour is a minute: each `for`, range
# and offset is a sixtieth, but a `for` at least 15 s and a range at least 20 s: three and four scrapes. Thresholds that are
# times have their own table. certificateExpiringSeconds stays two weeks: cert-manager issues certificates of an hour.

{runMissedSeconds: 60, inDoubtOldSeconds: 30, scheduleLateSeconds: 60} as $thresholds
| def seconds: capture("^(?<number>[0-9]+)(?<unit>[smhd])$")
    | (.number | tonumber) * {s: 1, m: 60, h: 3600, d: 86400}[.unit];
  def scaled($least): "\([(seconds / 60 | floor), $least] | max)s";
  def faster:
    gsub("\\[(?<range>[0-9]+[smhd])\\]"; "[\(.range | scaled(20))]")
    | gsub("offset (?<range>[0-9]+[smhd])"; "offset \(.range | scaled(20))")
    | gsub("(?<number>[0-9]+) # (?<name>[A-Za-z]+)"; "\($thresholds[.name] // .number) # \(.name)");
{
  apiVersion,
  kind,
  metadata: {name: "\(.metadata.name)-scaled", namespace: .metadata.namespace, labels: .metadata.labels},
  spec: (.spec | .groups[] |= (
    .name += "-scaled"
    | .rules[] |= (.labels.times = "scaled" | if .for then .for |= scaled(15) else . end | .expr |= faster)
  ))
}
