//! `pay`: starts a run or joins the unfinished one, and follows it until it ends. Charges nothing itself; the run
//! continues after this command.

use std::time::Duration;

use api::billing::{self, Counts, Deployment, RunProblem, ScheduleStatus};
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
    pub(crate) async fn refetch(&self, billing: &Api) -> Result<Self, CallError> {
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

    /// Whether an attempt of it has no answer yet, or one that only an operator can settle. `total` does not tell: it
    /// counts what the run was not to claim, too.
    fn has_open(&self, left: &Deployment) -> bool {
        let billing::Run { attempted, paid, refused, rejected, in_doubt, .. } = self.0;
        attempted > paid + refused && left.counts.charging > 0
            || rejected + in_doubt > 0 && left.counts.attention > 0
    }

    /// Invoices that were open when it began.
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
        watched = poll_until_finished(billing, run) => Some(watched?),
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
    // Before everything else: nothing of what is left is charged until this ends.
    print_if_stopped(billing).await?;
    // Attempts that a run gave up are no longer in its own counts.
    let left: Deployment = billing.get("/v1/deployment").await?;
    advice(&run, &left).iter().for_each(output::result);
    Ok(NOT_ALL_PAID)
}

/// Says that all charging is stopped, if it is.
async fn print_if_stopped(billing: &Api) -> Result<bool, CallError> {
    let stopped = control::fetch_charging(billing).await?.as_ref().and_then(control::stop_notice);
    stopped.iter().for_each(output::result);
    Ok(stopped.is_some())
}

/// Follows a run that was started elsewhere, and shows what came of it.
pub(crate) async fn follow_run(billing: &Api, id: i64) -> Result<Run, CallError> {
    let run: Run = billing.get(&format!("/v1/runs/{id}")).await?;
    let run = poll_until_finished(billing, run).await?;
    output::result(format_args!("run {}: {}", run.0.id, run.display()));
    Ok(run)
}

/// Follows a run of the schedule, and says what to do about invoices that it did not charge; `true` if there are none.
/// A declined invoice has its answer: its ladder says when it is tried again.
pub(crate) async fn follow_scheduled(billing: &Api, id: i64) -> Result<bool, CallError> {
    let run = follow_run(billing, id).await?;
    let is_due = is_due(&billing.get("/v1/schedule").await?);
    let left: Deployment = billing.get("/v1/deployment").await?;
    let is_stopped = print_if_stopped(billing).await?;
    if !is_stopped && !is_due && !run.has_open(&left) {
        return Ok(true);
    }
    scheduled_advice(&run, &left, is_due).iter().for_each(output::result);
    Ok(false)
}

/// Whether an invoice of the schedule is PENDING although its time has come.
fn is_due(schedule: &ScheduleStatus) -> bool {
    schedule.next_attempt_at.as_ref().is_some_and(|at| *at <= schedule.now)
}

/// Reads the run until it is finished.
async fn poll_until_finished(billing: &Api, mut run: Run) -> Result<Run, CallError> {
    let progress = Progress::bar("paying", run.total(), TEMPLATE);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Instant::now();
    let pace = Pace { since: seen, from: run.done() };
    while !run.is_finished() {
        progress.total(run.total().max(run.done()));
        progress.at(run.done(), pace.display(&run));
        ticks.tick().await;
        match run.refetch(billing).await {
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
    let pending = left.counts.pending;
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
    lines.extend(unsettled(run, left, pending > refused));
    if lines.is_empty() {
        lines.push("all invoices are PAID by now".to_owned());
    }
    lines
}

/// The same after a run of the schedule. `tinjis pay` is not advised: it charges imported invoices too.
fn scheduled_advice(run: &Run, left: &Deployment, is_due: bool) -> Vec<String> {
    let due =
        "invoices that are due are PENDING, not charged: see billing's log, then run the schedule again";
    let mut lines: Vec<String> = is_due.then(|| due.to_owned()).into_iter().collect();
    lines.extend(unsettled(run, left, is_due));
    lines
}

/// What is open or needs an operator, and the problem that kept something from being charged.
fn unsettled(run: &Run, left: &Deployment, is_pending: bool) -> Vec<String> {
    let Counts { charging, attention, .. } = left.counts;
    let unsent = left.charging_unsent.min(charging);
    let mut lines = Vec::new();
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
    if let Some(problem) = problem.filter(|met| met.count > 0 && (is_pending || charging > 0)) {
        lines.push(shown_problem(problem));
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
    fn after_a_run_of_the_schedule_imported_invoices_are_not_called_left() {
        let run: Run = serde_json::from_str(
            r#"{"id":1,"state":"finished","total":2,"paid":0,"refused":0,"rejected":0,"in_doubt":0,"all_paid":false,
                "last_problem":{"reason":"not-connected","status":null,"count":3,"hint":"look"}}"#,
        )
        .unwrap();
        let said = |counts, unsent, is_due| scheduled_advice(&run, &left(counts, unsent), is_due);
        assert!(said([7, 0, 0], 0, false).is_empty());
        let lines = said([7, 2, 0], 2, false);
        assert!(lines[0].starts_with("2 are CHARGING, not charged"), "{lines:?}");
        assert_eq!(lines[1..], ["3 calls met not-connected: look"]);
        let lines = said([7, 0, 0], 0, true);
        assert!(lines[0].starts_with("invoices that are due are PENDING, not charged"), "{lines:?}");
        assert_eq!(lines[1..], ["3 calls met not-connected: look"]);
    }

    #[test]
    fn a_run_has_something_open_when_one_of_its_attempts_has_no_answer() {
        let run = |attempted: i64, rejected: i64, in_doubt: i64| -> Run {
            let text = format!(
                r#"{{"id":1,"state":"finished","total":9,"attempted":{attempted},"paid":2,"refused":1,"rejected":{rejected},
                "in_doubt":{in_doubt},"all_paid":false}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        assert!(!run(3, 0, 0).has_open(&left([6, 1, 1], 0)), "others are open, of other runs");
        assert!(!run(4, 0, 0).has_open(&left([6, 0, 0], 0)), "an attempt was sent twice, and has its answer");
        assert!(run(4, 0, 0).has_open(&left([6, 1, 0], 1)));
        assert!(run(4, 1, 0).has_open(&left([0, 0, 1], 0)), "rejected");
        assert!(run(4, 0, 1).has_open(&left([0, 0, 1], 0)), "in doubt without keys");
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
