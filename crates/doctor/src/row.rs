//! One line of a report: a check that ran, or a rule about objects. All formats read only rows, so that checks and
//! rules reach each format in the same way. Formats nothing.

use std::collections::BTreeSet;

use crate::checks::Topic;
use crate::evaluate::{CheckResult, Verdict};
use crate::objects::finding::{Finding, ObjectRef, Severity};
use crate::objects::{Compared, Rule};

/// The subject of rules that no object breaks.
const ALL_OBJECTS: &str = "all objects";

#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// An id that stays the same in each run.
    pub(crate) id: String,
    pub(crate) topic: Topic,
    /// The rule of the row; for a check, its topic.
    pub(crate) rule: &'static str,
    /// What the rule requires; empty for a check.
    pub(crate) requires: &'static str,
    pub(crate) subject: String,
    pub(crate) target: String,
    pub(crate) expected: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) evidence: String,
    /// The probable cause of a check's outcome, or the remedy of a finding; empty when green.
    pub(crate) reason: String,
    pub(crate) positive_control: Option<String>,
    /// How the positive control differs from the check: by its subject, or by its target.
    pub(crate) control_label: Option<String>,
    pub(crate) object: Option<ObjectRef>,
    pub(crate) severity: Option<Severity>,
}

impl Row {
    /// The rows of all checks, in their order.
    pub(crate) fn of_checks(results: &[CheckResult]) -> Vec<Self> {
        results.iter().map(|result| Self::of_check(result, results)).collect()
    }

    fn of_check(result: &CheckResult, all: &[CheckResult]) -> Self {
        let check = &result.check;
        let control = all.iter().find(|other| Some(&other.check.id) == check.positive_control.as_ref());
        let label = control.map(|control| {
            let same = control.check.subject == check.subject;
            if same { control.check.target.clone() } else { control.check.subject.clone() }
        });
        Self {
            id: check.id.clone(),
            topic: check.topic,
            rule: check.topic.as_str(),
            requires: "",
            subject: check.subject.clone(),
            target: check.target.clone(),
            expected: check.expected(),
            verdict: result.verdict,
            evidence: result.evidence.trim().to_owned(),
            reason: result.reason.clone(),
            positive_control: check.positive_control.clone(),
            control_label: label.filter(|_| !check.expect_allowed),
            object: None,
            severity: (result.verdict == Verdict::Red).then_some(Severity::High),
        }
    }

    /// Rows of one comparison: each finding is red, each accepted finding is green, and a rule without findings has one
    /// green row.
    pub(crate) fn of_comparison(compared: &Compared) -> Vec<Self> {
        let comparison = compared.comparison;
        let rule_of = |id: &str| comparison.rules.iter().find(|rule| rule.id == id);
        let found = compared.findings.iter().map(|finding| (finding, None));
        let accepted = compared.accepted.iter().map(|(finding, why)| (finding, Some(why.as_str())));
        let all = found.chain(accepted);
        let mut rows: Vec<Self> = all
            .filter_map(|(finding, why)| {
                // No finding is lost, even if the comparison does not list its rule.
                let rule = rule_of(finding.rule).or(comparison.rules.first())?;
                Some(Self::of_finding(comparison.topic, rule, finding, why))
            })
            .collect();
        let broken: BTreeSet<&str> = compared.findings.iter().map(|finding| finding.rule).collect();
        for rule in comparison.rules {
            let (verdict, evidence, reason) = match &compared.unreadable {
                Some(reason) => (Verdict::CannotTell, reason.clone(), unreadable_hint().to_owned()),
                None if broken.contains(rule.id) => continue,
                None => (
                    Verdict::Green,
                    format!("{} ({} objects)", rule.requires, compared.objects),
                    String::new(),
                ),
            };
            rows.push(Self::of_rule(comparison.topic, rule, verdict, evidence, reason));
        }
        rows
    }

    fn of_finding(topic: Topic, rule: &Rule, finding: &Finding, accepted: Option<&str>) -> Self {
        let object = finding.object.to_string();
        let problem = &finding.problem;
        let (verdict, evidence, reason) = match accepted {
            None => (Verdict::Red, problem.clone(), format!("{object}: {}", finding.remedy)),
            Some(why) => (Verdict::Green, format!("accepted ({why}): {problem}"), String::new()),
        };
        Self {
            id: format!("{}: {}: {object}: {problem}", topic.as_str(), finding.rule),
            subject: object,
            object: Some(finding.object.clone()),
            severity: Some(finding.severity),
            ..Self::of_rule(topic, rule, verdict, evidence, reason)
        }
    }

    /// Row of a rule as a whole.
    fn of_rule(topic: Topic, rule: &Rule, verdict: Verdict, evidence: String, reason: String) -> Self {
        Self {
            id: format!("{}: {}", topic.as_str(), rule.id),
            topic,
            rule: rule.id,
            requires: rule.requires,
            subject: ALL_OBJECTS.to_owned(),
            target: rule.id.to_owned(),
            expected: "met",
            verdict,
            evidence,
            reason,
            positive_control: None,
            control_label: None,
            object: None,
            severity: None,
        }
    }

    /// The meaning of the row in one sentence, without its outcome.
    pub(crate) fn statement(&self) -> String {
        let Self { subject, target, expected, .. } = self;
        match self.requires {
            "" => format!("{subject} -> {target}, should be {expected}"),
            _ => format!("{subject}: rule {target}"),
        }
    }
}

fn unreadable_hint() -> &'static str {
    "grant the doctor the right to list it (deploy/doctor/read-only.yaml)"
}
