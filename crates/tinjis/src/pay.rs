//! `pay`: starts a run or joins the unfinished one, and follows it until it ends. Charges nothing itself; the run
//! continues after this command.

use std::time::Duration;

use api::billing::{self, Counts, Deployment, RunProblem};
use bytes::Bytes;
use indicatif::HumanDuration;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use crate::control;
use crate::http::{Api, CallError};
use crate::output::{self, grouped};
use crate::progress::Progress;

/// How often progress is read.
const EVERY: Duration = Duration::from_millis(200);

/// How long billing may be unreachable during a run, for example for a restart.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// The problem type of a run that cannot begin yet.
const RUN_UNFINISHED: &str = "urn:tinjis:problem:run-unfinished";

const TEMPLATE: &str = "[{bar:30}] {pos}/{len}  {msg}";

/// Exit codes.
const ALL_PAID: u8 = 0;
const NOT_ALL_PAID: u8 = 1;

/// A run, as billing shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Run(pub(crate) billing::Run);

fn shown_problem(problem: &RunProblem) -> String {
    let RunProblem { reason, status, count, hint } = problem;
    let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
    let calls = if *count == 1 { "call" } else { "calls" };
    format!("{} {calls} met {reason}{status}: {hint}", grouped(*count))
}

impl Run {
    /// Starts a run or joins the unfinished one. An unfinished run that claims other invoices, as the schedule's does,
    /// has to end first.
    pub(crate) async fn start(billing: &Api) -> Result<Self, CallError> {
        let mut is_told = false;
        loop {
            match billing.post("/v1/runs", "application/json", Bytes::new()).await {
                Err(CallError::Refused { problem, detail, .. }) if problem == RUN_UNFINISHED => {
                    if !std::mem::replace(&mut is_told, true) {
                        output::note(format_args!("waiting{detail}"));
                    }
                    tokio::time::sleep(EVERY).await;
                }
                started => return started,
            }
        }
    }

    /// Reads the current state of the run.
    pub(crate) async fn look(&self, billing: &Api) -> Result<Self, CallError> {
        billing.get(&format!("/v1/runs/{}", self.0.id)).await
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.state == billing::RunState::Finished
    }

    /// Invoices with a result in this run.
    pub(crate) fn done(&self) -> u64 {
        let done = self.0.paid + self.0.refused + self.0.rejected;
        u64::try_from(done).unwrap_or_default()
    }

    /// Invoices that this run has claimed.
    fn total(&self) -> u64 {
        u64::try_from(self.0.total).unwrap_or_default()
    }

    fn display(&self) -> String {
        let mut words = format!("paid {}, refused {}", grouped(self.0.paid), grouped(self.0.refused));
        // Without keys an attempt in doubt needs manual resolution at once: a printed zero would hide this.
        for (count, what) in [(self.0.rejected, "rejected"), (self.0.in_doubt, "in doubt")] {
            if count > 0 {
                words.push_str(&format!(", {what} {}", grouped(count)));
            }
        }
        words
    }
}

/// The rate of a run since this command follows it; a joined run began earlier.
#[derive(Debug)]
struct Pace {
    since: Instant,
    from: u64,
}

impl Pace {
    /// The current rate, counts and remaining time.
    fn display(&self, run: &Run) -> String {
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let done = run.done().saturating_sub(self.from);
        let rate = done.saturating_mul(1000) / elapsed_ms;
        let left = run.total().saturating_sub(run.done());
        let time_left = match left.saturating_mul(elapsed_ms).checked_div(done) {
            Some(ms) => format!("{} left", HumanDuration(Duration::from_millis(ms))),
            None => String::new(),
        };
        // For a run without progress, the reason.
        let problem = match &run.0.last_problem {
            Some(problem) if problem.count > 0 && done == 0 => format!("  last problem: {}", problem.reason),
            _ => String::new(),
        };
        format!("{}/s  {}  {time_left}{problem}", grouped(rate), run.display())
    }
}

pub(crate) async fn command(billing: &Api) -> anyhow::Result<u8> {
    // Registered before the run starts, so that every Ctrl-C is answered with the message that the run goes on.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let run = tokio::select! {
        started = Run::start(billing) => started?,
        _ = interrupt.recv() => {
            output::note("no run was started");
            return Ok(NOT_ALL_PAID);
        }
    };
    let verb = if run.0.joined { "joined" } else { "started" };
    output::note(format_args!("{verb} run {} on {}", run.0.id, billing.base()));
    let watched = tokio::select! {
        watched = watch(billing, run) => Some(watched?),
        _ = interrupt.recv() => None,
    };
    let Some(run) = watched else {
        output::note("the run goes on in billing; `tinjis pay` joins it again");
        return Ok(NOT_ALL_PAID);
    };
    output::result(format_args!("run {}: {}", run.0.id, run.display()));
    if run.0.all_paid {
        output::result("all invoices are PAID");
        return Ok(ALL_PAID);
    }
    // A stop is printed first: nothing that is left is charged until the stop ends.
    let charging = control::charging(billing).await?;
    charging.as_ref().and_then(control::stopped).iter().for_each(output::result);
    // The run's own counts no longer contain attempts that it gave up.
    let left: Deployment = billing.get("/v1/deployment").await?;
    advice(&run, &left).iter().for_each(output::result);
    Ok(NOT_ALL_PAID)
}

/// Follows a run that was started elsewhere, and prints its result.
pub(crate) async fn follow(billing: &Api, id: i64) -> Result<(), CallError> {
    let run: Run = billing.get(&format!("/v1/runs/{id}")).await?;
    let run = watch(billing, run).await?;
    output::result(format_args!("run {}: {}", run.0.id, run.display()));
    Ok(())
}

/// Reads the run until it is finished.
async fn watch(billing: &Api, mut run: Run) -> Result<Run, CallError> {
    let progress = Progress::bar("paying", run.total(), TEMPLATE);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Instant::now();
    let pace = Pace { since: seen, from: run.done() };
    while !run.is_finished() {
        progress.total(run.total().max(run.done()));
        progress.at(run.done(), pace.display(&run));
        ticks.tick().await;
        match run.look(billing).await {
            Ok(now) => {
                run = now;
                seen = Instant::now();
            }
            Err(CallError::NotReachable { .. }) if seen.elapsed() < AWAY_MAX => {
                progress.at(run.done(), "billing is away; the run goes on when it is back");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(run)
}

/// Next steps for invoices that are not PAID.
fn advice(run: &Run, left: &Deployment) -> Vec<String> {
    let Counts { pending, charging, attention, .. } = left.counts;
    let unsent = left.charging_unsent.min(charging);
    let mut lines = Vec::new();
    let refused = run.0.refused.min(pending);
    if refused > 0 {
        let refused = grouped(refused);
        lines
            .push(format!("{refused} were refused and are PENDING again: `tinjis pay` tries each once more"));
    }
    if pending > refused {
        let left = grouped(pending - refused);
        lines.push(format!("{left} are PENDING, not charged: see billing's log, then `tinjis pay` again"));
    }
    if unsent > 0 {
        let unsent = grouped(unsent);
        lines.push(format!(
            "{unsent} are CHARGING, not charged: nothing was executed; billing tries them again"
        ));
    }
    if charging > unsent {
        let in_doubt = grouped(charging - unsent);
        lines.push(format!(
            "{in_doubt} are CHARGING, in doubt: billing resends them; see /v1/invoices?state=CHARGING"
        ));
    }
    if attention > 0 {
        let attention = grouped(attention);
        lines.push(format!(
            "{attention} need manual resolution: see `tinjis resolve` and /v1/invoices?state=ATTENTION"
        ));
    }
    // A stop is not a problem of a call, and is printed already. A problem that is over has left no uncharged invoice
    // behind.
    let problem = run.0.last_problem.as_ref().or(left.last_problem.as_ref());
    if let Some(problem) = problem.filter(|met| met.count > 0 && (pending > refused || charging > 0)) {
        lines.push(shown_problem(problem));
    }
    if lines.is_empty() {
        lines.push("all invoices are PAID by now".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_stands_still_says_why() {
        let run = |paid: u64| -> Run {
            let text = format!(
                r#"{{"id":1,"state":"running","total":2,"paid":{paid},"refused":0,"rejected":0,"in_doubt":0,"all_paid":false,
                "last_problem":{{"reason":"credentials","status":403,"count":4,"hint":"check X"}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let pace = Pace { since: Instant::now(), from: 0 };
        assert!(pace.display(&run(0)).ends_with("last problem: credentials"));
        assert!(!pace.display(&run(1)).contains("problem"));
    }

    #[test]
    fn what_kept_a_run_from_charging_is_said_with_what_to_do_while_something_is_not_charged() {
        let run: Run = serde_json::from_str(
            r#"{"id":1,"state":"finished","total":2,"paid":1,"refused":1,"rejected":0,"in_doubt":0,"all_paid":false,
                "last_problem":{"reason":"deployment-unknown","status":412,"count":4,"hint":"run X"}}"#,
        )
        .unwrap();
        let said = |pending, charging| advice(&run, &left([pending, charging, 0], charging)).pop().unwrap();
        let problem = "4 calls met deployment-unknown (412): run X";
        assert_eq!(said(2, 0), problem);
        assert_eq!(said(1, 1), problem);
        assert!(said(1, 0).starts_with("1 were refused"));
    }

    fn left([pending, charging, attention]: [i64; 3], charging_unsent: i64) -> Deployment {
        let counts = Counts { pending, charging, attention, ..Counts::default() };
        Deployment { counts, charging_unsent, ..Deployment::default() }
    }

    #[test]
    fn only_what_was_sent_is_called_in_doubt() {
        let run: Run = serde_json::from_str(
            r#"{"id":1,"state":"finished","total":9,"paid":5,"refused":0,"rejected":0,"in_doubt":1,"all_paid":false}"#,
        )
        .unwrap();
        let lines = advice(&run, &left([0, 4, 0], 4));
        assert_eq!(lines, ["4 are CHARGING, not charged: nothing was executed; billing tries them again"]);
        let lines = advice(&run, &left([0, 4, 0], 3));
        assert!(lines[0].starts_with("3 are CHARGING, not charged"), "{lines:?}");
        assert!(lines[1].starts_with("1 are CHARGING, in doubt"), "{lines:?}");
    }

    #[test]
    fn a_problem_that_this_run_did_not_meet_is_the_deployment_s() {
        let run: Run = serde_json::from_str(
            r#"{"id":1,"state":"finished","total":9,"paid":5,"refused":0,"rejected":0,"in_doubt":0,"all_paid":false}"#,
        )
        .unwrap();
        let problem =
            RunProblem { reason: "credentials".into(), status: Some(403), count: 7, hint: "look".into() };
        let left = Deployment { last_problem: Some(problem), ..left([0, 4, 0], 4) };
        assert_eq!(advice(&run, &left).pop().unwrap(), "7 calls met credentials (403): look");
    }

    #[test]
    fn a_finished_run_tells_what_to_do_next_about_what_is_left() {
        let mut run: Run = serde_json::from_str(
            r#"{"id":1,"state":"finished","joined":false,"total":9,"attempted":9,"paid":5,"refused":3,"rejected":1,
                "in_doubt":0,"not_sent":0,"all_paid":false,"started_at":"","finished_at":null}"#,
        )
        .unwrap();
        assert!(run.is_finished());
        let said: [(i64, [i64; 3], &[&str]); 6] = [
            (3, [3, 0, 0], &["3 were refused"]),
            (3, [4, 0, 0], &["3 were refused", "1 are PENDING"]),
            (3, [1, 0, 0], &["1 were refused"]),
            (0, [0, 2, 0], &["2 are CHARGING"]),
            (0, [0, 0, 55], &["55 need manual resolution"]),
            (0, [0, 0, 0], &["all invoices are PAID by now"]),
        ];
        for (refused, counts, beginnings) in said {
            run.0.refused = refused;
            let lines = advice(&run, &left(counts, 0));
            assert_eq!(lines.len(), beginnings.len(), "{lines:?}");
            for (line, beginning) in lines.iter().zip(beginnings) {
                assert!(line.starts_with(beginning), "{lines:?}");
            }
        }
    }
}
