//! A judgement for people (a table), for CI (JUnit) and for programs (JSON). Writes words; decides nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::judge::{Judged, Judgement, NOT_ENFORCED, Verdict};
use super::plan::{Topic, expected};

/// Of an evidence in the table; JSON has all of it.
const EVIDENCE_CHARS: usize = 100;

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Green => "ok",
            Self::CannotTell => "?",
            Self::Red => "RED",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::CannotTell => "cannot tell",
            Self::Red => "red",
        }
    }
}

/// The table, and beneath it what is not as it should be and what it comes to.
pub(super) fn table(judgement: &Judgement, environment: &str, families: &str, took: Duration) -> String {
    let width = |column: fn(&Judged) -> &str| {
        judgement.rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
    };
    let (who, what) = (width(|row| &row.trial.who), width(|row| &row.trial.what));
    let mut text = String::new();
    for row in &judgement.rows {
        let evidence: String = row.evidence.trim().replace('\n', " ").chars().take(EVIDENCE_CHARS).collect();
        let trial = &row.trial;
        let unlike = twin_of(judgement, row).map_or(String::new(), |twin| format!("; unlike {twin}"));
        let _ = writeln!(
            text,
            "{:<3}  {:<12}  {:<who$}  {:<what$}  {}  {evidence}{unlike}",
            row.verdict.word(),
            trial.topic.name(),
            trial.who,
            trial.what,
            expected(trial),
        );
    }
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for row in &judgement.rows {
        *counts.entry(row.verdict).or_default() += 1;
    }
    for verdict in [Verdict::CannotTell, Verdict::Red] {
        for row in judgement.rows.iter().filter(|row| row.verdict == verdict) {
            let trial = &row.trial;
            let _ = write!(
                text,
                "\n{} {}: {} -> {}, should be {}: {}\n     {}",
                row.verdict.word(),
                trial.topic.name(),
                trial.who,
                trial.what,
                expected(trial),
                row.evidence.trim(),
                row.reason
            );
        }
    }
    text.push_str(&causes(judgement));
    let of = |verdict| counts.get(&verdict).copied().unwrap_or(0);
    let _ = write!(
        text,
        "\n{environment}: {}; {} tried over {families} in {} s, {} as it should be, {} not told, {} red\n",
        judgement.verdict.name(),
        judgement.rows.len(),
        took.as_secs(),
        of(Verdict::Green),
        of(Verdict::CannotTell),
        of(Verdict::Red),
    );
    if judgement.cni_enforces == Some(false) {
        let _ = writeln!(text, "{NOT_ENFORCED}");
    }
    text
}

/// The allowed twin of a refusal in a word or two: who it is, or what, where it is the same one.
fn twin_of<'j>(judgement: &'j Judgement, row: &Judged) -> Option<&'j str> {
    let twin = judgement.rows.iter().find(|other| Some(&other.trial.id) == row.trial.twin.as_ref())?;
    let (twin, trial) = (&twin.trial, &row.trial);
    (!trial.hope).then_some(if twin.who == trial.who { &twin.what } else { &twin.who })
}

/// What to look at, each once, the commonest first: one policy that is away shows in many rows.
fn causes(judgement: &Judgement) -> String {
    let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
    for row in judgement.rows.iter().filter(|row| row.verdict == Verdict::Red) {
        *causes.entry(&row.reason).or_default() += 1;
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lines = causes.into_iter().map(|(cause, count)| format!("\nlook at: {cause} ({count})"));
    let text: String = lines.collect();
    if text.is_empty() { text } else { format!("\n{text}") }
}

pub(super) fn json(judgement: &Judgement, environment: &str, families: &[&str], took: Duration) -> Value {
    let rows = judgement.rows.iter().map(|row| {
        let trial = &row.trial;
        json!({
            "id": trial.id, "topic": trial.topic.name(), "who": trial.who, "what": trial.what,
            "expected": expected(trial), "verdict": row.verdict.name(), "evidence": row.evidence.trim(),
            "reason": row.reason, "twin": trial.twin,
        })
    });
    json!({
        "environment": environment,
        "verdict": judgement.verdict.name(),
        "cni_enforces_network_policy": judgement.cni_enforces,
        "address_families": families,
        "seconds": took.as_secs(),
        "trials": rows.collect::<Vec<_>>(),
    })
}

/// A suite a topic. What cannot be told is an error, what is red a failure.
pub(super) fn junit(judgement: &Judgement, environment: &str) -> String {
    let mut suites: BTreeMap<Topic, Vec<&Judged>> = BTreeMap::new();
    for row in &judgement.rows {
        suites.entry(row.trial.topic).or_default().push(row);
    }
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (topic, rows) in suites {
        let of = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
        let _ = writeln!(
            xml,
            "  <testsuite name=\"doctor.{}.{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\">",
            escaped(environment),
            topic.name(),
            rows.len(),
            of(Verdict::Red),
            of(Verdict::CannotTell)
        );
        for row in rows {
            let name =
                escaped(&format!("{} -> {} is {}", row.trial.who, row.trial.what, expected(&row.trial)));
            let (reason, evidence) = (escaped(&row.reason), escaped(row.evidence.trim()));
            let _ = match row.verdict {
                Verdict::Green => writeln!(
                    xml,
                    "    <testcase name=\"{name}\"><system-out>{evidence}</system-out></testcase>"
                ),
                Verdict::Red => writeln!(
                    xml,
                    "    <testcase name=\"{name}\"><failure message=\"{reason}\">{evidence}</failure></testcase>"
                ),
                Verdict::CannotTell => writeln!(
                    xml,
                    "    <testcase name=\"{name}\"><error message=\"{reason}\">{evidence}</error></testcase>"
                ),
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// As XML wants it; control characters are left out, for no XML may hold them.
fn escaped(text: &str) -> String {
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
    use crate::doctor::plan::{Action, Trial};
    use crate::doctor::task::{Result as Got, Seen};

    fn judgement() -> Judgement {
        let row = |verdict, who: &str, reason: &str| Judged {
            trial: Trial {
                id: format!("network: {who} -> b"),
                topic: Topic::Network,
                who: who.to_owned(),
                what: "b <9000>".to_owned(),
                hope: who == "caller",
                twin: Some("network: caller -> b".to_owned()),
                look_at: String::new(),
                is_up: false,
                action: Action::Known(Seen::new("", Got::Passed, "")),
            },
            verdict,
            evidence: "no \"answer\" in 3 s".to_owned(),
            reason: reason.to_owned(),
        };
        let rows = vec![
            row(Verdict::Green, "caller", ""),
            row(Verdict::CannotTell, "a", "the twin fails"),
            row(Verdict::Red, "c", "no NetworkPolicy guards b"),
        ];
        Judgement { rows, verdict: Verdict::Red, cni_enforces: Some(false) }
    }

    #[test]
    fn the_table_ends_with_what_is_wrong_and_what_to_look_at() {
        let text = table(&judgement(), "production", "IPv4", Duration::from_secs(7));
        let wanted =
            ["no NetworkPolicy guards b", "3 tried over IPv4 in 7 s", "1 not told, 1 red", NOT_ENFORCED];
        for part in wanted {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_refusal_stands_beside_its_twin_in_the_table() {
        let text = table(&judgement(), "production", "IPv4", Duration::ZERO);
        let rows: Vec<&str> = text.lines().take(3).collect();
        assert!(rows[1].ends_with("s; unlike caller") && rows[2].ends_with("s; unlike caller"), "{text}");
        assert!(rows[0].ends_with("in 3 s"), "one who is let in needs none: {text}");
    }

    #[test]
    fn junit_counts_failures_and_errors_and_is_escaped() {
        let xml = junit(&judgement(), "production");
        assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"1\""), "{xml}");
        assert!(xml.contains("b &lt;9000&gt;") && xml.contains("&quot;answer&quot;"), "{xml}");
    }

    #[test]
    fn json_holds_everything() {
        let value = json(&judgement(), "production", &["IPv4"], Duration::from_secs(7));
        assert_eq!(value["trials"].as_array().unwrap().len(), 3);
        assert_eq!(
            (&value["verdict"], &value["cni_enforces_network_policy"]),
            (&json!("red"), &json!(false))
        );
    }
}
