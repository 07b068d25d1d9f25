//! A finished run as a table for people, JUnit for CI and JSON for programs. Formats text; decides nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::checks::Topic;
use crate::evaluate::{CNI_NOT_ENFORCING, Evaluation, Verdict};
use crate::objects::Compared;
use crate::objects::finding::{ObjectRef, Severity};
use crate::row::Row;

/// Maximum characters of evidence in the table; JSON has all of it.
const EVIDENCE_CHARS: usize = 100;

/// The results of a run.
#[derive(Debug)]
pub struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) verdict: Verdict,
    /// Whether the CNI enforces policies; `None` when inconclusive, or when no check ran.
    pub(crate) cni_enforces: Option<bool>,
    pub(crate) environment: String,
    /// Address families of the pods; empty when no check ran.
    pub(crate) families: Vec<&'static str>,
    pub(crate) elapsed: Duration,
}

impl Verdict {
    fn label(self) -> &'static str {
        match self {
            Self::Green => "ok",
            Self::CannotTell => "?",
            Self::Red => "RED",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::CannotTell => "cannot tell",
            Self::Red => "red",
        }
    }
}

impl Report {
    /// A report with the worst verdict of its rows; without rows the verdict is inconclusive.
    pub(crate) fn new(
        environment: String,
        compared: &[Compared],
        evaluation: Option<&Evaluation>,
        families: Vec<&'static str>,
        elapsed: Duration,
    ) -> Self {
        let mut rows: Vec<Row> = compared.iter().flat_map(Row::of_comparison).collect();
        rows.extend(evaluation.map(|evaluation| Row::of_checks(&evaluation.results)).unwrap_or_default());
        let tried = evaluation.map(|evaluation| evaluation.verdict);
        let verdict = rows.iter().map(|row| row.verdict).chain(tried).max().unwrap_or(Verdict::CannotTell);
        let cni_enforces = evaluation.and_then(|evaluation| evaluation.cni_enforces);
        Self { rows, verdict, cni_enforces, environment, families, elapsed }
    }

    /// The environment's name in the expectations.
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// The worst verdict of all checks.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn results(&self, verdict: Verdict) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.verdict == verdict)
    }

    /// One line per check, then the checks that are not green, their causes, and a summary.
    pub fn table(&self) -> String {
        let rows = &self.rows;
        let width =
            |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
        let (subject, target) = (width(|row| &row.subject), width(|row| &row.target));
        let mut text = String::new();
        for row in rows {
            let one_line = row.evidence.replace('\n', " ");
            let evidence: String = one_line.chars().take(EVIDENCE_CHARS).collect();
            let control = row.control_label.as_ref();
            let control = control.map_or(String::new(), |label| format!("; control: {label}"));
            let _ = writeln!(
                text,
                "{:<3}  {:<12}  {:<subject$}  {:<target$}  {}  {evidence}{control}",
                row.verdict.label(),
                row.topic.as_str(),
                row.subject,
                row.target,
                row.expected,
            );
        }
        for row in self.results(Verdict::CannotTell).chain(self.results(Verdict::Red)) {
            let _ = write!(
                text,
                "\n{} {}: {}: {}\n     {}",
                row.verdict.label(),
                row.topic.as_str(),
                row.statement(),
                row.evidence,
                row.reason
            );
        }
        text.push_str(&self.causes());
        let over = match self.families.as_slice() {
            [] => " of objects".to_owned(),
            families => format!(" over {}", families.join(" and ")),
        };
        let _ = write!(
            text,
            "\n{}: {}; {} checks{over} in {} s: {} green, {} cannot tell, {} red\n",
            self.environment,
            self.verdict().as_str(),
            rows.len(),
            self.elapsed.as_secs(),
            self.results(Verdict::Green).count(),
            self.results(Verdict::CannotTell).count(),
            self.results(Verdict::Red).count(),
        );
        if self.cni_enforces == Some(false) {
            let _ = writeln!(text, "{CNI_NOT_ENFORCING}");
        }
        text
    }

    /// Each cause once, the most frequent first: one missing policy shows in many checks.
    fn causes(&self) -> String {
        let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
        for result in self.results(Verdict::Red) {
            *causes.entry(&result.reason).or_default() += 1;
        }
        let mut causes: Vec<_> = causes.into_iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let lines = causes.into_iter().map(|(cause, count)| format!("\nlook at: {cause} ({count})"));
        let text: String = lines.collect();
        if text.is_empty() { text } else { format!("\n{text}") }
    }

    /// Everything, for programs. The keys `trials` and `twin` are kept for existing readers.
    pub fn json(&self) -> Value {
        let results = self.rows.iter().map(|row| {
            let mut value = json!({
                "id": row.id, "topic": row.topic.as_str(), "who": row.subject, "what": row.target,
                "expected": row.expected, "verdict": row.verdict.as_str(), "evidence": row.evidence,
                "reason": row.reason, "twin": row.positive_control, "rule": row.rule,
            });
            if let Some(object) = &row.object {
                value["object"] = object_reference(object);
                value["severity"] = json!(row.severity.map(Severity::as_str));
            }
            value
        });
        json!({
            "environment": self.environment,
            "verdict": self.verdict().as_str(),
            "cni_enforces_network_policy": self.cni_enforces,
            "address_families": self.families,
            "seconds": self.elapsed.as_secs(),
            "trials": results.collect::<Vec<_>>(),
        })
    }

    /// One suite per topic. An inconclusive check is an error, a red one a failure.
    pub fn junit(&self) -> String {
        let mut suites: BTreeMap<Topic, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            suites.entry(row.topic).or_default().push(row);
        }
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for (topic, rows) in suites {
            let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
            let _ = writeln!(
                xml,
                "  <testsuite name=\"doctor.{}.{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"0\" time=\"0\">",
                xml_escape(&self.environment),
                topic.as_str(),
                rows.len(),
                count(Verdict::Red),
                count(Verdict::CannotTell)
            );
            for row in rows {
                write_test_case(&mut xml, row);
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

/// An object as Kubernetes refers to it.
pub(crate) fn object_reference(object: &ObjectRef) -> Value {
    let mut value =
        json!({"apiVersion": object.kind.api_version(), "kind": object.kind.name(), "name": object.name});
    if !object.namespace.is_empty() {
        value["namespace"] = json!(object.namespace);
    }
    value
}

fn write_test_case(xml: &mut String, row: &Row) {
    let name = match row.requires {
        "" => format!("{} -> {} is {}", row.subject, row.target, row.expected),
        _ => row.statement(),
    };
    let (name, reason, evidence) = (xml_escape(&name), xml_escape(&row.reason), xml_escape(&row.evidence));
    let body = match row.verdict {
        Verdict::Green => format!("<system-out>{evidence}</system-out>"),
        Verdict::Red => format!("<failure type=\"red\" message=\"{reason}\">{evidence}</failure>"),
        Verdict::CannotTell => format!("<error type=\"cannot-tell\" message=\"{reason}\">{evidence}</error>"),
    };
    let _ = writeln!(
        xml,
        "    <testcase classname=\"{}\" name=\"{name}\" time=\"0\">{body}</testcase>",
        row.topic.as_str()
    );
}

/// Control characters are dropped: no XML document may contain them.
fn xml_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            character if character.is_control() => {}
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checks::{Action, Check};
    use crate::evaluate::CheckResult;
    use crate::objects::COMPARISONS;
    use crate::objects::finding::Finding;
    use crate::objects::snapshot::Kind;
    use crate::task::{Observation, Outcome};

    pub(crate) fn report(elapsed: Duration) -> Report {
        let result = |verdict, subject: &str, reason: &str| CheckResult {
            check: Check {
                id: format!("network: {subject} -> b"),
                topic: Topic::Network,
                subject: subject.to_owned(),
                target: "b <9000>".to_owned(),
                expect_allowed: subject == "caller",
                positive_control: Some("network: caller -> b".to_owned()),
                hint: String::new(),
                target_is_ready: false,
                action: Action::Observed(Observation::new("", Outcome::Allowed, "")),
            },
            verdict,
            evidence: "no \"answer\" in 3 s".to_owned(),
            reason: reason.to_owned(),
        };
        let results = vec![
            result(Verdict::Green, "caller", ""),
            result(Verdict::CannotTell, "a", "the control fails"),
            result(Verdict::Red, "c", "no NetworkPolicy guards b"),
        ];
        let evaluation = Evaluation { results, verdict: Verdict::Red, cni_enforces: Some(false) };
        Report::new("production".to_owned(), &[], Some(&evaluation), vec!["IPv4"], elapsed)
    }

    /// A report of bindings only: a finding, an accepted finding, a rule without findings, and a rule that could not be
    /// compared.
    pub(crate) fn report_of_objects() -> Report {
        let finding = |name: &str| Finding {
            object: ObjectRef::new(Kind::RoleBinding, "payments", name),
            rule: "unlisted-subject",
            problem: "User <mallory> may read secrets".to_owned(),
            remedy: "remove it".to_owned(),
            severity: Severity::Critical,
        };
        let compared = |at: usize, unreadable: Option<&str>| Compared {
            comparison: &COMPARISONS[at],
            objects: 7,
            unreadable: unreadable.map(str::to_owned),
            findings: Vec::new(),
            accepted: Vec::new(),
        };
        let mut broken = compared(0, None);
        broken.findings.push(finding("hole"));
        broken.accepted.push((finding("known"), "until May".to_owned()));
        let all = [broken, compared(1, None), compared(3, Some("GET /networkpolicies: 403"))];
        Report::new("production".to_owned(), &all, None, Vec::new(), Duration::ZERO)
    }

    #[test]
    fn a_finding_names_its_object_and_its_remedy_in_the_table() {
        let report = report_of_objects();
        let text = report.table();
        for part in [
            "RED  bindings      RoleBinding payments/hole   unlisted-subject  met  User <mallory> may read secrets",
            "ok   bindings      RoleBinding payments/known  unlisted-subject  met  accepted (until May): User",
            "look at: RoleBinding payments/hole: remove it (1)",
            "?    policies      all objects                 missing-policy    met  GET /networkpolicies: 403",
            "production: red; 4 checks of objects in 0 s: 2 green, 1 cannot tell, 1 red",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(report.verdict(), Verdict::Red);
    }

    #[test]
    fn a_finding_names_its_object_in_json_and_junit() {
        let value = report_of_objects().json();
        let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "namespace": "payments", "name": "hole"});
        assert_eq!(value["trials"][0]["object"], object);
        assert_eq!(
            (&value["trials"][0]["severity"], &value["trials"][0]["rule"]),
            (&json!("critical"), &json!("unlisted-subject"))
        );
        let xml = report_of_objects().junit();
        let case = "name=\"RoleBinding payments/hole: rule unlisted-subject\" time=\"0\"><failure type=\"red\" \
            message=\"RoleBinding payments/hole: remove it\">User &lt;mallory&gt; may read secrets";
        assert!(xml.contains(case), "{xml}");
    }

    #[test]
    fn the_table_ends_with_the_failures_and_their_causes() {
        let text = report(Duration::from_secs(7)).table();
        let wanted = [
            "no NetworkPolicy guards b",
            "3 checks over IPv4 in 7 s: 1 green, 1 cannot tell, 1 red",
            CNI_NOT_ENFORCING,
        ];
        for part in wanted {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_table_names_the_positive_control_of_a_refusal() {
        let text = report(Duration::ZERO).table();
        let lines: Vec<&str> = text.lines().take(3).collect();
        assert!(
            lines[1].ends_with("s; control: caller") && lines[2].ends_with("s; control: caller"),
            "{text}"
        );
        assert!(lines[0].ends_with("in 3 s"), "an allowed request needs none: {text}");
    }

    #[test]
    fn junit_counts_failures_and_errors_and_is_escaped() {
        let xml = report(Duration::ZERO).junit();
        assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"1\""), "{xml}");
        assert!(xml.contains("b &lt;9000&gt;") && xml.contains("&quot;answer&quot;"), "{xml}");
    }

    #[test]
    fn json_holds_everything() {
        let value = report(Duration::from_secs(7)).json();
        assert_eq!(value["trials"].as_array().unwrap().len(), 3);
        assert_eq!(
            (&value["verdict"], &value["cni_enforces_network_policy"]),
            (&json!("red"), &json!(false))
        );
    }
}
