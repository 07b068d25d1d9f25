//! Runs of a billing through its `/v1`: starts one, and waits for its end. Knows no process.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::http;
use crate::wait::pause;

/// How often a run's progress is read.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(10);

/// Starts or joins a run by `POST /v1/runs` of the billing at this address; returns the run's URL.
///
/// # Panics
/// When billing refuses.
#[must_use]
#[track_caller]
pub fn start(billing_url: &str) -> String {
    let answer = http::call("POST", &format!("{billing_url}/v1/runs"), &[], b"");
    assert_eq!(answer.status, 202, "a run starts: {}", answer.text());
    let location = answer.header("location").expect("a started run has a Location");
    format!("{billing_url}{location}")
}

/// Waits until the run is finished and returns its last progress. `within` limits the time in which no invoice is
/// settled: how long a run takes depends on the machine.
///
/// # Panics
/// If no invoice is settled for that long.
#[must_use]
#[track_caller]
pub fn wait(run_url: &str, within: Duration) -> Value {
    wait_asking(run_url, PROGRESS_EVERY, within)
}

/// As [`wait`], for a benchmark on PostgreSQL: each request costs the database two statements.
///
/// # Panics
/// If no invoice is settled for that long.
#[must_use]
#[track_caller]
pub fn wait_asking(run_url: &str, every: Duration, within: Duration) -> Value {
    let (mut seen, mut changed) = (None, Instant::now());
    loop {
        let run = http::get(run_url).json();
        if run["state"] == "finished" {
            return run;
        }
        // The count of a problem grows as well while nothing is settled.
        let settled = ["paid", "refused", "rejected"].map(|counter| run[counter].as_i64());
        if Some(settled) != seen {
            (seen, changed) = (Some(settled), Instant::now());
        }
        assert!(changed.elapsed() < within, "no progress of {run_url} within {within:?}: {run}");
        pause(every);
    }
}
