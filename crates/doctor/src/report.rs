//! A finished run as a table for people, JUnit for CI and JSON for programs. Formats text; decides nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::checks::Topic;
use crate::evaluate::{CNI_NOT_ENFORCING, CheckResult, Evaluation, Verdict};

/// Characters of evidence in the table; JSON has all of it.
const EVIDENCE_CHARS: usize = 100;

/// The results of a run.
#[derive(Debug)]
pub struct Report {
    pub(crate) evaluation: Evaluation,
    pub(crate) environment: String,
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
    /// The worst verdict of all checks.
    pub fn verdict(&self) -> Verdict {
        self.evaluation.verdict
    }

    fn results(&self, verdict: Verdict) -> impl Iterator<Item = &CheckResult> {
        self.evaluation.results.iter().filter(move |result| result.verdict == verdict)
    }

    /// One line per check, then the checks that are not green, their causes, and a summary.
    pub fn table(&self) -> String {
        let results = &self.evaluation.results;
        let width = |column: fn(&CheckResult) -> &str| {
            results.iter().map(|result| column(result).chars().count()).max().unwrap_or(0)
        };
        let (subject, target) = (width(|result| &result.check.subject), width(|result| &result.check.target));
        let mut text = String::new();
        for result in results {
            let one_line = result.evidence.trim().replace('\n', " ");
            let evidence: String = one_line.chars().take(EVIDENCE_CHARS).collect();
            let check = &result.check;
            let control =
                self.control_label(result).map_or(String::new(), |label| format!("; control: {label}"));
            let _ = writeln!(
                text,
                "{:<3}  {:<12}  {:<subject$}  {:<target$}  {}  {evidence}{control}",
                result.verdict.label(),
                check.topic.as_str(),
                check.subject,
                check.target,
                check.expected(),
            );
        }
        for result in self.results(Verdict::CannotTell).chain(self.results(Verdict::Red)) {
            let check = &result.check;
            let _ = write!(
                text,
                "\n{} {}: {} -> {}, should be {}: {}\n     {}",
                result.verdict.label(),
                check.topic.as_str(),
                check.subject,
                check.target,
                check.expected(),
                result.evidence.trim(),
                result.reason
            );
        }
        text.push_str(&self.causes());
        let _ = write!(
            text,
            "\n{}: {}; {} checks over {} in {} s: {} green, {} cannot tell, {} red\n",
            self.environment,
            self.verdict().as_str(),
            results.len(),
            self.families.join(" and "),
            self.elapsed.as_secs(),
            self.results(Verdict::Green).count(),
            self.results(Verdict::CannotTell).count(),
            self.results(Verdict::Red).count(),
        );
        if self.evaluation.cni_enforces == Some(false) {
            let _ = writeln!(text, "{CNI_NOT_ENFORCING}");
        }
        text
    }

    /// How the positive control of an expected refusal differs from it: by its subject, or by its target.
    fn control_label(&self, result: &CheckResult) -> Option<&str> {
        let id = result.check.positive_control.as_ref();
        let control = self.evaluation.results.iter().find(|other| Some(&other.check.id) == id)?;
        let (control, check) = (&control.check, &result.check);
        let differs = if control.subject == check.subject { &control.target } else { &control.subject };
        (!check.expect_allowed).then_some(differs)
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
        let results = self.evaluation.results.iter().map(|result| {
            let check = &result.check;
            json!({
                "id": check.id, "topic": check.topic.as_str(), "who": check.subject, "what": check.target,
                "expected": check.expected(), "verdict": result.verdict.as_str(),
                "evidence": result.evidence.trim(), "reason": result.reason, "twin": check.positive_control,
            })
        });
        json!({
            "environment": self.environment,
            "verdict": self.verdict().as_str(),
            "cni_enforces_network_policy": self.evaluation.cni_enforces,
            "address_families": self.families,
            "seconds": self.elapsed.as_secs(),
            "trials": results.collect::<Vec<_>>(),
        })
    }

    /// One suite per topic. An inconclusive check is an error, a red one a failure.
    pub fn junit(&self) -> String {
        let mut suites: BTreeMap<Topic, Vec<&CheckResult>> = BTreeMap::new();
        for result in &self.evaluation.results {
            suites.entry(result.check.topic).or_default().push(result);
        }
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for (topic, results) in suites {
            let count = |verdict| results.iter().filter(|result| result.verdict == verdict).count();
            let _ = writeln!(
                xml,
                "  <testsuite name=\"doctor.{}.{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\">",
                xml_escape(&self.environment),
                topic.as_str(),
                results.len(),
                count(Verdict::Red),
                count(Verdict::CannotTell)
            );
            for result in results {
                write_test_case(&mut xml, result);
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

fn write_test_case(xml: &mut String, result: &CheckResult) {
    let check = &result.check;
    let name = xml_escape(&format!("{} -> {} is {}", check.subject, check.target, check.expected()));
    let (reason, evidence) = (xml_escape(&result.reason), xml_escape(result.evidence.trim()));
    let body = match result.verdict {
        Verdict::Green => format!("<system-out>{evidence}</system-out>"),
        Verdict::Red => format!("<failure message=\"{reason}\">{evidence}</failure>"),
        Verdict::CannotTell => format!("<error message=\"{reason}\">{evidence}</error>"),
    };
    let _ = writeln!(xml, "    <testcase name=\"{name}\">{body}</testcase>");
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
mod tests {
    use super::*;
    use crate::checks::{Action, Check};
    use crate::task::{Observation, Outcome};

    fn report(elapsed: Duration) -> Report {
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
        Report { evaluation, environment: "production".to_owned(), families: vec!["IPv4"], elapsed }
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
