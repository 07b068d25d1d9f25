//! From what was expected and what was seen to verdicts. One pure function: a refusal is believed only beside its
//! allowed twin, for a door that nobody can pass proves nothing. Knows no cluster.

use std::collections::BTreeMap;

use super::plan::{Topic, Trial};
use super::task::{Result as Got, Seen};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Green,
    CannotTell,
    Red,
}

/// One trial with its verdict and why.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) trial: Trial,
    pub(super) verdict: Verdict,
    /// What was seen, in words.
    pub(super) evidence: String,
    /// For what is not green: what to look at.
    pub(super) reason: String,
}

/// Everything, and what it comes to.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    pub(super) rows: Vec<Judged>,
    pub(super) verdict: Verdict,
    /// By pods of the doctor's own, apart from the environment; `None` when they could not tell.
    pub(super) cni_enforces: Option<bool>,
}

/// What is said when a policy of the doctor's own has no effect.
pub(super) const NOT_ENFORCED: &str = "your CNI does not enforce NetworkPolicy";

/// Judges every trial. Seen is by id; a trial that nobody saw cannot be told.
pub(super) fn judge(trials: Vec<Trial>, seen: &BTreeMap<String, Seen>) -> Judgement {
    let result = |id: &str| seen.get(id).map_or(Got::Unknown, |seen| seen.result);
    let control = trials.iter().find(|trial| trial.topic == Topic::Control && !trial.hope);
    let cni_enforces = control.and_then(|trial| {
        let twin = trial.twin.as_deref().map_or(Got::Unknown, result);
        match (result(&trial.id), twin) {
            (Got::Passed, _) => Some(false),
            (Got::Refused, Got::Passed) => Some(true),
            _ => None,
        }
    });
    let rows: Vec<Judged> = trials
        .into_iter()
        .map(|trial| {
            let twin = trial.twin.as_deref().map(result);
            let (verdict, mut reason) = one(&trial, result(&trial.id), twin);
            if verdict == Verdict::Red && trial.is_network() && cni_enforces == Some(false) {
                reason = format!("{NOT_ENFORCED}; {reason}");
            }
            let evidence = seen.get(&trial.id).map_or("nothing was seen", |seen| seen.evidence.as_str());
            Judged { evidence: evidence.to_owned(), trial, verdict, reason }
        })
        .collect();
    let verdict = rows.iter().map(|row| row.verdict).max().unwrap_or(Verdict::CannotTell);
    Judgement { rows, verdict, cni_enforces }
}

fn one(trial: &Trial, got: Got, twin: Option<Got>) -> (Verdict, String) {
    match (trial.hope, got, twin) {
        (true, Got::Passed, _) => (Verdict::Green, String::new()),
        // Not the service is down, the way to it is: that is known, and it is wrong.
        (true, Got::Refused, _) if trial.is_up => (Verdict::Red, format!("shut: {}", trial.look_at)),
        (true, ..) => (Verdict::CannotTell, format!("should work and does not: {}", trial.look_at)),
        (false, Got::Passed, _) => (Verdict::Red, trial.look_at.clone()),
        (false, Got::Refused, Some(Got::Passed)) => (Verdict::Green, String::new()),
        (false, Got::Refused, _) => (
            Verdict::CannotTell,
            format!(
                "refused, but so is its allowed twin: {}",
                trial.twin.as_deref().unwrap_or("there is none")
            ),
        ),
        (false, Got::Unknown, _) => {
            (Verdict::CannotTell, "neither refused nor let through; nothing is known".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::plan::Action;

    fn trial(id: &str, topic: Topic, hope: bool, twin: Option<&str>) -> Trial {
        Trial {
            id: id.to_owned(),
            topic,
            who: "a".to_owned(),
            what: "b".to_owned(),
            hope,
            twin: twin.map(str::to_owned),
            look_at: "networkpolicy two/p".to_owned(),
            is_up: false,
            action: Action::Known(Seen::new(id, Got::Unknown, "")),
        }
    }

    /// The verdicts of an allowed and a forbidden trial of a topic, seen so.
    fn pair(topic: Topic, allowed: Got, forbidden: Got) -> (Verdict, Verdict, Judgement) {
        let trials = vec![trial("yes", topic, true, None), trial("no", topic, false, Some("yes"))];
        let seen = [Seen::new("yes", allowed, "seen"), Seen::new("no", forbidden, "seen")];
        let seen = seen.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        let judgement = judge(trials, &seen);
        (judgement.rows[0].verdict, judgement.rows[1].verdict, judgement)
    }

    #[test]
    fn a_refusal_beside_an_allowed_twin_is_green() {
        let (yes, no, whole) = pair(Topic::Network, Got::Passed, Got::Refused);
        assert_eq!((yes, no, whole.verdict), (Verdict::Green, Verdict::Green, Verdict::Green));
    }

    #[test]
    fn what_should_be_refused_and_gets_through_is_red_and_names_what_to_look_at() {
        for twin in [Got::Passed, Got::Refused, Got::Unknown] {
            let (_, no, whole) = pair(Topic::Network, twin, Got::Passed);
            assert_eq!((no, whole.verdict), (Verdict::Red, Verdict::Red));
            assert_eq!(whole.rows[1].reason, "networkpolicy two/p");
        }
    }

    #[test]
    fn when_the_allowed_twin_fails_too_nobody_can_tell() {
        for twin in [Got::Refused, Got::Unknown] {
            let (yes, no, whole) = pair(Topic::Network, twin, Got::Refused);
            assert_eq!((yes, no), (Verdict::CannotTell, Verdict::CannotTell));
            assert_eq!(whole.verdict, Verdict::CannotTell);
        }
        let (_, no, _) = pair(Topic::Network, Got::Passed, Got::Unknown);
        assert_eq!(no, Verdict::CannotTell, "not refused, and not let through either");
    }

    #[test]
    fn a_way_that_should_be_open_to_what_is_up_is_red_when_it_is_shut() {
        for (is_up, got, wanted) in [
            (true, Got::Refused, Verdict::Red),
            (false, Got::Refused, Verdict::CannotTell),
            (true, Got::Unknown, Verdict::CannotTell),
        ] {
            let trial = Trial { is_up, ..trial("yes", Topic::Network, true, None) };
            let seen = BTreeMap::from([("yes".to_owned(), Seen::new("yes", got, ""))]);
            assert_eq!(judge(vec![trial], &seen).verdict, wanted);
        }
    }

    #[test]
    fn a_refusal_without_a_twin_proves_nothing() {
        let seen = BTreeMap::from([("no".to_owned(), Seen::new("no", Got::Refused, ""))]);
        let judgement = judge(vec![trial("no", Topic::Rbac, false, None)], &seen);
        assert_eq!(judgement.verdict, Verdict::CannotTell);
    }

    #[test]
    fn a_trial_that_nobody_saw_is_not_green_and_neither_is_no_trial_at_all() {
        let judgement = judge(vec![trial("yes", Topic::Rbac, true, None)], &BTreeMap::new());
        assert_eq!(judgement.verdict, Verdict::CannotTell);
        assert_eq!(judge(Vec::new(), &BTreeMap::new()).verdict, Verdict::CannotTell);
    }

    #[test]
    fn a_network_that_ignores_the_doctors_own_policy_is_said_to_enforce_none() {
        let (_, _, whole) = pair(Topic::Control, Got::Passed, Got::Passed);
        assert_eq!((whole.cni_enforces, whole.verdict), (Some(false), Verdict::Red));
        assert!(whole.rows[1].reason.starts_with(NOT_ENFORCED), "{}", whole.rows[1].reason);
        let (_, _, whole) = pair(Topic::Control, Got::Passed, Got::Refused);
        assert_eq!((whole.cni_enforces, whole.verdict), (Some(true), Verdict::Green));
        let (_, _, whole) = pair(Topic::Control, Got::Refused, Got::Refused);
        assert_eq!((whole.cni_enforces, whole.verdict), (None, Verdict::CannotTell));
    }
}
