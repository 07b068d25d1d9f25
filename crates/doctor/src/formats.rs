//! A finished run as SARIF 2.1.0 for code scanners and as a `Report` of openreports.io/v1alpha1 for clusters, and the
//! choice between all formats. Formats values; decides nothing and prints nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::evaluate::Verdict;
use crate::objects::finding::Severity;
use crate::report::{Report, object_reference};
use crate::row::Row;

/// Maximum length of an object name in Kubernetes.
const NAME_CHARS: usize = 63;

/// How a run is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// A JSON object with everything, for programs.
    Json,
    /// JUnit XML, for CI.
    Junit,
    /// SARIF, for code scanners.
    Sarif,
    /// A `Report` object for `kubectl apply`; it contains only the latest state.
    OpenReports,
    /// Gauges in the text format of Prometheus.
    Prometheus,
}

impl Format {
    /// The name on the command line.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "junit" => Ok(Self::Junit),
            "sarif" => Ok(Self::Sarif),
            "openreports" => Ok(Self::OpenReports),
            "prometheus" => Ok(Self::Prometheus),
            _ => Err("use table, json, junit, sarif, openreports or prometheus".to_owned()),
        }
    }
}

impl Report {
    /// The report in a format.
    pub fn text(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Json => format!("{:#}\n", self.json()),
            Format::Junit => self.junit(),
            Format::Sarif => format!("{:#}\n", self.sarif()),
            Format::OpenReports => format!("{:#}\n", self.open_reports()),
            Format::Prometheus => self.metrics(),
        }
    }

    /// One rule per topic of checks and per rule about objects, one result per row. SARIF requires the level `none` for
    /// results that did not fail.
    fn sarif(&self) -> Value {
        let rules: BTreeMap<&str, &str> = self.rows.iter().map(|row| (row.rule, row.requires)).collect();
        let rules = rules.into_iter().map(|(id, requires)| match requires {
            "" => json!({"id": id}),
            requires => json!({"id": id, "shortDescription": {"text": requires}}),
        });
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "tinjis doctor", "version": env!("CARGO_PKG_VERSION"), "rules": rules.collect::<Vec<_>>(),
                }},
                "automationDetails": {"id": format!("tinjis-doctor/{}", self.environment)},
                "results": self.rows.iter().map(sarif_result).collect::<Vec<_>>(),
            }],
        })
    }

    /// A `Report` object with a fixed name, so that each run replaces the one before.
    fn open_reports(&self) -> Value {
        let count = |verdict: Verdict| self.rows.iter().filter(|row| row.verdict == verdict).count();
        json!({
            "apiVersion": "openreports.io/v1alpha1",
            "kind": "Report",
            "metadata": {"name": object_name(&format!("tinjis-doctor-{}", self.environment))},
            "source": "tinjis-doctor",
            "summary": {
                "pass": count(Verdict::Green), "fail": count(Verdict::Red), "warn": 0,
                "error": count(Verdict::CannotTell), "skip": 0,
            },
            "results": self.rows.iter().map(open_reports_result).collect::<Vec<_>>(),
        })
    }
}

fn sarif_result(row: &Row) -> Value {
    let (kind, level) = match (row.verdict, row.severity) {
        (Verdict::Green, _) => ("pass", "none"),
        (Verdict::CannotTell, _) => ("open", "none"),
        (Verdict::Red, Some(Severity::Medium)) => ("fail", "warning"),
        (Verdict::Red, _) => ("fail", "error"),
    };
    let location = match &row.object {
        Some(object) => {
            json!({"name": object.name, "fullyQualifiedName": object.to_string(), "kind": "resource"})
        }
        None => json!({"fullyQualifiedName": row.target, "kind": "resource"}),
    };
    json!({
        "ruleId": row.rule, "kind": kind, "level": level,
        "message": {"text": message(row)},
        "locations": [{"logicalLocations": [location]}],
        "partialFingerprints": {"checkId/v1": row.id},
    })
}

fn open_reports_result(row: &Row) -> Value {
    let outcome = match row.verdict {
        Verdict::Green => "pass",
        Verdict::CannotTell => "error",
        Verdict::Red => "fail",
    };
    let rule = if row.requires.is_empty() { row.id.as_str() } else { row.rule };
    let mut value = json!({
        "source": "tinjis-doctor", "policy": row.topic.as_str(), "rule": rule, "result": outcome,
        "message": message(row),
    });
    if row.verdict == Verdict::Red {
        value["severity"] = json!(row.severity.unwrap_or(Severity::High).as_str());
    }
    if let Some(object) = &row.object {
        value["resources"] = json!([object_reference(object)]);
    }
    value
}

fn message(row: &Row) -> String {
    let mut text = row.statement();
    for part in [&row.evidence, &row.reason] {
        if !part.is_empty() {
            text.push_str(": ");
            text.push_str(part);
        }
    }
    text
}

/// A name that the API server accepts.
fn object_name(text: &str) -> String {
    let allowed = |character: char| match character.to_ascii_lowercase() {
        character @ ('a'..='z' | '0'..='9') => character,
        _ => '-',
    };
    let name: String = text.chars().map(allowed).take(NAME_CHARS).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, report_of_objects};
    use std::time::Duration;

    #[test]
    fn sarif_fails_only_what_is_red_and_names_every_rule_once() {
        let value = report(Duration::ZERO).sarif();
        let run = &value["runs"][0];
        let results = run["results"].as_array().unwrap();
        let pairs: Vec<_> = results.iter().map(|result| (&result["kind"], &result["level"])).collect();
        assert_eq!(
            pairs,
            [
                (&json!("pass"), &json!("none")),
                (&json!("open"), &json!("none")),
                (&json!("fail"), &json!("error")),
            ]
        );
        assert_eq!(run["tool"]["driver"]["rules"], json!([{"id": "network"}]));
        assert!(results.iter().all(|result| result["ruleId"] == "network"), "{value}");
    }

    #[test]
    fn open_reports_count_what_cannot_be_told_as_an_error() {
        let value = report(Duration::ZERO).open_reports();
        let results = value["results"].as_array().unwrap();
        let outcomes: Vec<_> = results.iter().map(|result| &result["result"]).collect();
        assert_eq!(outcomes, ["pass", "error", "fail"]);
        assert_eq!(value["summary"], json!({"pass": 1, "fail": 1, "warn": 0, "error": 1, "skip": 0}));
        assert_eq!(value["metadata"]["name"], "tinjis-doctor-production");
        assert_eq!(object_name("Two Teams/é!"), "two-teams");
    }

    #[test]
    fn a_finding_names_its_object_in_sarif_and_open_reports() {
        let report = report_of_objects();
        let sarif = &report.sarif()["runs"][0];
        let location = &sarif["results"][0]["locations"][0]["logicalLocations"][0];
        assert_eq!(
            *location,
            json!({"name": "hole", "fullyQualifiedName": "RoleBinding payments/hole", "kind": "resource"})
        );
        assert_eq!(sarif["results"][0]["ruleId"], "unlisted-subject");
        let reported = &report.open_reports()["results"][0];
        let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "namespace": "payments", "name": "hole"});
        assert_eq!(reported["resources"], json!([object]));
        assert_eq!(
            (&reported["rule"], &reported["severity"]),
            (&json!("unlisted-subject"), &json!("critical"))
        );
        assert!(reported["message"].as_str().unwrap().contains("remove it"), "{reported}");
    }

    #[test]
    fn every_format_has_a_name_and_others_are_refused() {
        for (name, format) in [
            ("table", Format::Table),
            ("json", Format::Json),
            ("junit", Format::Junit),
            ("sarif", Format::Sarif),
            ("openreports", Format::OpenReports),
        ] {
            assert_eq!(Format::parse(name), Ok(format));
            assert!(!report(Duration::ZERO).text(format).is_empty());
        }
        assert!(Format::parse("yaml").unwrap_err().contains("openreports"));
    }
}
