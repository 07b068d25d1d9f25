//! `pay`: starts a run or joins the unfinished one, and follows it until it ends.
//! Charges nothing itself; whoever stops watching stops nothing.

use std::time::Duration;

use bytes::Bytes;
use indicatif::HumanDuration;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use crate::http::{Api, CallError};
use crate::output::{self, grouped};
use crate::progress::Progress;

/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(200);

/// How long billing may be away in mid-run, as for a restart.
const AWAY_MAX: Duration = Duration::from_secs(15);

const TEMPLATE: &str = "[{bar:30}] {pos}/{len}  {msg}";

/// Exit codes.
const ALL_PAID: u8 = 0;
const NOT_ALL_PAID: u8 = 1;

/// A run as billing shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: i64,
    state: RunState,
    #[serde(default)]
    joined: bool,
    total: u64,
    paid: u64,
    refused: u64,
    rejected: u64,
    in_doubt: u64,
    pub(crate) all_paid: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RunState {
    Running,
    Finished,
}

impl Run {
    /// Starts a run or joins the unfinished one.
    pub(crate) async fn start(billing: &Api) -> Result<Self, CallError> {
        billing.post("/v1/runs", "application/json", Bytes::new()).await
    }

    /// The run as it is now.
    pub(crate) async fn look(&self, billing: &Api) -> Result<Self, CallError> {
        billing.get(&format!("/v1/runs/{}", self.id)).await
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state == RunState::Finished
    }

    /// Invoices that this run is done with.
    pub(crate) fn done(&self) -> u64 {
        self.paid + self.refused + self.rejected
    }

    fn words(&self) -> String {
        let [paid, refused, in_doubt] = [self.paid, self.refused, self.in_doubt].map(grouped);
        format!("paid {paid}, refused {refused}, in doubt {in_doubt}")
    }
}

/// How fast a run goes since we watch it; one that was joined has gone on for long.
#[derive(Debug)]
struct Pace {
    since: Instant,
    from: u64,
}

impl Pace {
    /// What there is to say now.
    fn words(&self, run: &Run) -> String {
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let done = run.done().saturating_sub(self.from);
        let rate = done.saturating_mul(1000) / elapsed_ms;
        let left = run.total.saturating_sub(run.done());
        let time_left = match left.saturating_mul(elapsed_ms).checked_div(done) {
            Some(ms) => format!("{} left", HumanDuration(Duration::from_millis(ms))),
            None => String::new(),
        };
        format!("{}/s  {}  {time_left}", grouped(rate), run.words())
    }
}

/// The `pay` command.
pub(crate) async fn command(billing: &Api) -> anyhow::Result<u8> {
    // Before there is a run, so that no Ctrl-C finds nobody who could say that it goes on.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let run = Run::start(billing).await?;
    let verb = if run.joined { "joined" } else { "started" };
    output::note(format_args!("{verb} run {} on {}", run.id, billing.base()));
    let watched = tokio::select! {
        watched = watch(billing, run) => Some(watched?),
        _ = interrupt.recv() => None,
    };
    let Some(run) = watched else {
        output::note("the run goes on in billing; `tinjis pay` joins it again");
        return Ok(NOT_ALL_PAID);
    };
    output::result(format_args!("run {}: {}", run.id, run.words()));
    for line in advice(&run) {
        output::result(line);
    }
    Ok(if run.all_paid { ALL_PAID } else { NOT_ALL_PAID })
}

/// Asks until the run is finished.
async fn watch(billing: &Api, mut run: Run) -> Result<Run, CallError> {
    let progress = Progress::bar("paying", run.total, TEMPLATE);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Instant::now();
    let pace = Pace { since: seen, from: run.done() };
    while !run.is_finished() {
        progress.total(run.total.max(run.done()));
        progress.at(run.done(), pace.words(&run));
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

/// What to do next.
fn advice(run: &Run) -> Vec<String> {
    if run.all_paid {
        return vec!["all invoices are PAID".to_owned()];
    }
    let mut lines = Vec::new();
    if run.refused > 0 {
        let refused = grouped(run.refused);
        lines
            .push(format!("{refused} were refused and are PENDING again: `tinjis pay` tries each once more"));
    }
    if run.in_doubt > 0 {
        let in_doubt = grouped(run.in_doubt);
        lines.push(format!(
            "{in_doubt} are in doubt: with provider keys, billing asks again by itself; without, a person decides"
        ));
    }
    if run.rejected > 0 {
        let rejected = grouped(run.rejected);
        lines.push(format!("{rejected} were rejected as invalid: see /v1/invoices?state=ATTENTION"));
    }
    if lines.is_empty() {
        lines.push("not all invoices are PAID: see /v1/invoices?state=PENDING, and billing's log".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(json: &str) -> Run {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_finished_run_tells_what_to_do_next() {
        let finished = run(
            r#"{"id":1,"state":"finished","joined":false,"total":9,"attempted":9,"paid":5,"refused":3,"rejected":1,
                "in_doubt":0,"not_sent":0,"all_paid":false,"started_at":"","finished_at":null}"#,
        );
        assert!(finished.is_finished());
        let lines = advice(&finished);
        assert!(lines[0].starts_with("3 were refused"), "{lines:?}");
        assert!(lines[1].starts_with("1 were rejected"), "{lines:?}");
    }
}
