//! Runs of a billing by its `/v1`: starting one, and waiting for its end. Knows no process.

use std::time::Duration;

use serde_json::Value;

use crate::http;
use crate::wait::{pause, wait_for};

/// How often a run's progress is asked for.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(10);

/// Starts or joins a run by `POST /v1/runs` of the billing at this address, and answers the run's URL.
///
/// # Panics
/// When it is refused.
#[must_use]
#[track_caller]
pub fn start(billing_url: &str) -> String {
    let answer = http::call("POST", &format!("{billing_url}/v1/runs"), &[], b"");
    assert_eq!(answer.status, 202, "a run starts: {}", answer.text());
    let location = answer.header("location").expect("a started run has a Location");
    format!("{billing_url}{location}")
}

/// Waits until the run is finished and answers its last progress.
///
/// # Panics
/// When that takes too long.
#[must_use]
#[track_caller]
pub fn wait(run_url: &str, within: Duration) -> Value {
    wait_asking(run_url, PROGRESS_EVERY, within)
}

/// As [`wait`], for a benchmark on PostgreSQL: each question costs the database two statements.
///
/// # Panics
/// When that takes too long.
#[must_use]
#[track_caller]
pub fn wait_asking(run_url: &str, every: Duration, within: Duration) -> Value {
    wait_for("a run to finish", within, || {
        let run = http::get(run_url).json();
        if run["state"] == "finished" {
            return Some(run);
        }
        pause(every);
        None
    })
}
