//! Expectations and observations become verdicts in one pure function. A refusal counts only when its positive control
//! was allowed: a target that refuses every request proves nothing. Knows no cluster.

use std::collections::BTreeMap;

use crate::checks::{Check, Topic};
use crate::task::{Observation, Outcome};

/// The verdict of one check or of a whole run, ordered by severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As expected.
    Green,
    /// Neither confirmed nor disproved.
    CannotTell,
    /// Open instead of closed, or closed instead of open.
    Red,
}

#[derive(Clone, Debug)]
pub(crate) struct CheckResult {
    pub(crate) check: Check,
    pub(crate) verdict: Verdict,
    /// The observed response, connection or error, as text.
    pub(crate) evidence: String,
    /// The probable cause; empty when green.
    pub(crate) reason: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Evaluation {
    pub(crate) results: Vec<CheckResult>,
    pub(crate) verdict: Verdict,
    /// Whether the CNI enforces policies, tested on the doctor's own pods; `None` when inconclusive.
    pub(crate) cni_enforces: Option<bool>,
}

/// The reason when a policy of the doctor's own has no effect.
pub(crate) const CNI_NOT_ENFORCING: &str = "your CNI does not enforce NetworkPolicy";

/// Evaluates every check. A check without an observation is inconclusive.
pub(crate) fn evaluate(checks: Vec<Check>, observations: &BTreeMap<String, Observation>) -> Evaluation {
    let outcome = |id: &str| observations.get(id).map_or(Outcome::Unknown, |seen| seen.outcome);
    let enforcement = checks.iter().find(|check| check.topic == Topic::Enforcement && !check.expect_allowed);
    let cni_enforces = enforcement.and_then(|check| {
        let control = check.positive_control.as_deref().map_or(Outcome::Unknown, outcome);
        match (outcome(&check.id), control) {
            (Outcome::Allowed, _) => Some(false),
            (Outcome::Refused, Outcome::Allowed) => Some(true),
            _ => None,
        }
    });
    let results: Vec<CheckResult> = checks
        .into_iter()
        .map(|check| {
            let control = check.positive_control.as_deref().map(outcome);
            let (verdict, mut reason) = verdict_of(&check, outcome(&check.id), control);
            if verdict == Verdict::Red && check.is_network() && cni_enforces == Some(false) {
                reason = format!("{CNI_NOT_ENFORCING}; {reason}");
            }
            let evidence = observations.get(&check.id).map_or("not observed", |seen| seen.evidence.as_str());
            CheckResult { evidence: evidence.to_owned(), check, verdict, reason }
        })
        .collect();
    let verdict = results.iter().map(|result| result.verdict).max().unwrap_or(Verdict::CannotTell);
    Evaluation { results, verdict, cni_enforces }
}

fn verdict_of(check: &Check, observed: Outcome, control: Option<Outcome>) -> (Verdict, String) {
    match (check.expect_allowed, observed, control) {
        (true, Outcome::Allowed, _) => (Verdict::Green, String::new()),
        // The target is ready, so that only the path to it can be at fault.
        (true, Outcome::Refused, _) if check.target_is_ready => {
            (Verdict::Red, format!("blocked: {}", check.hint))
        }
        (true, ..) => (Verdict::CannotTell, format!("should be allowed and fails: {}", check.hint)),
        (false, Outcome::Allowed, _) => (Verdict::Red, check.hint.clone()),
        (false, Outcome::Refused, Some(Outcome::Allowed)) => (Verdict::Green, String::new()),
        (false, Outcome::Refused, _) => (
            Verdict::CannotTell,
            format!(
                "refused, but its positive control failed too: {}",
                check.positive_control.as_deref().unwrap_or("none defined")
            ),
        ),
        (false, Outcome::Unknown, _) => {
            (Verdict::CannotTell, "neither refused nor allowed: inconclusive".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Action;

    fn check(id: &str, topic: Topic, expect_allowed: bool, positive_control: Option<&str>) -> Check {
        Check {
            id: id.to_owned(),
            topic,
            subject: "a".to_owned(),
            target: "b".to_owned(),
            expect_allowed,
            positive_control: positive_control.map(str::to_owned),
            hint: "networkpolicy two/p".to_owned(),
            target_is_ready: false,
            action: Action::Observed(Observation::new(id, Outcome::Unknown, "")),
        }
    }

    /// The verdicts of an allowed and a forbidden check of this topic with these outcomes.
    fn pair(topic: Topic, allowed: Outcome, forbidden: Outcome) -> (Verdict, Verdict, Evaluation) {
        let checks = vec![check("yes", topic, true, None), check("no", topic, false, Some("yes"))];
        let seen = [
            Observation::new("yes", allowed, "observation"),
            Observation::new("no", forbidden, "observation"),
        ];
        let observation = seen.into_iter().map(|observation| (observation.id.clone(), observation)).collect();
        let evaluation = evaluate(checks, &observation);
        (evaluation.results[0].verdict, evaluation.results[1].verdict, evaluation)
    }

    #[test]
    fn a_refusal_is_green_when_its_positive_control_is_allowed() {
        let (yes, no, whole) = pair(Topic::Network, Outcome::Allowed, Outcome::Refused);
        assert_eq!((yes, no, whole.verdict), (Verdict::Green, Verdict::Green, Verdict::Green));
    }

    #[test]
    fn an_allowed_request_that_should_be_refused_is_red_with_its_hint() {
        for control in [Outcome::Allowed, Outcome::Refused, Outcome::Unknown] {
            let (_, no, whole) = pair(Topic::Network, control, Outcome::Allowed);
            assert_eq!((no, whole.verdict), (Verdict::Red, Verdict::Red));
            assert_eq!(whole.results[1].reason, "networkpolicy two/p");
        }
    }

    #[test]
    fn a_refusal_is_inconclusive_when_its_positive_control_fails() {
        for control in [Outcome::Refused, Outcome::Unknown] {
            let (yes, no, whole) = pair(Topic::Network, control, Outcome::Refused);
            assert_eq!((yes, no), (Verdict::CannotTell, Verdict::CannotTell));
            assert_eq!(whole.verdict, Verdict::CannotTell);
        }
        let (_, no, _) = pair(Topic::Network, Outcome::Allowed, Outcome::Unknown);
        assert_eq!(no, Verdict::CannotTell, "neither refused nor allowed");
    }

    #[test]
    fn a_blocked_path_to_a_ready_target_is_red() {
        for (target_is_ready, observed, wanted) in [
            (true, Outcome::Refused, Verdict::Red),
            (false, Outcome::Refused, Verdict::CannotTell),
            (true, Outcome::Unknown, Verdict::CannotTell),
        ] {
            let check = Check { target_is_ready, ..check("yes", Topic::Network, true, None) };
            let observation = BTreeMap::from([("yes".to_owned(), Observation::new("yes", observed, ""))]);
            assert_eq!(evaluate(vec![check], &observation).verdict, wanted);
        }
    }

    #[test]
    fn a_refusal_without_a_positive_control_is_inconclusive() {
        let observation = BTreeMap::from([("no".to_owned(), Observation::new("no", Outcome::Refused, ""))]);
        let evaluation = evaluate(vec![check("no", Topic::Rbac, false, None)], &observation);
        assert_eq!(evaluation.verdict, Verdict::CannotTell);
    }

    #[test]
    fn an_unobserved_check_is_inconclusive_and_so_is_a_run_without_checks() {
        let evaluation = evaluate(vec![check("yes", Topic::Rbac, true, None)], &BTreeMap::new());
        assert_eq!(evaluation.verdict, Verdict::CannotTell);
        assert_eq!(evaluate(Vec::new(), &BTreeMap::new()).verdict, Verdict::CannotTell);
    }

    #[test]
    fn a_network_that_ignores_the_doctors_own_policy_does_not_enforce_policies() {
        let (_, _, whole) = pair(Topic::Enforcement, Outcome::Allowed, Outcome::Allowed);
        assert_eq!((whole.cni_enforces, whole.verdict), (Some(false), Verdict::Red));
        assert!(whole.results[1].reason.starts_with(CNI_NOT_ENFORCING), "{}", whole.results[1].reason);
        let (_, _, whole) = pair(Topic::Enforcement, Outcome::Allowed, Outcome::Refused);
        assert_eq!((whole.cni_enforces, whole.verdict), (Some(true), Verdict::Green));
        let (_, _, whole) = pair(Topic::Enforcement, Outcome::Refused, Outcome::Refused);
        assert_eq!((whole.cni_enforces, whole.verdict), (None, Verdict::CannotTell));
    }
}
