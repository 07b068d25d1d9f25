//! A crash point in a real process: this test binary runs itself again and checks how that process ends. Must not know
//! how the points are counted inside.
#![cfg(debug_assertions)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// Passes the points of [`a_crash_point_that_is_not_configured_does_nothing`], in this order.
fn come_by() {
    for _ in 0..3 {
        chassis::crash_point!("before-send");
        chassis::crash_point!("after-send");
    }
}

#[test]
fn a_crash_point_that_is_not_configured_does_nothing() {
    come_by();
}

/// Runs the test above in a process of its own; returns how it ended and which points it hit.
fn victim(plan: &str) -> (ExitStatus, Vec<String>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let hits = dir.path().join("hits");
    let status = Command::new(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", "a_crash_point_that_is_not_configured_does_nothing"])
        .env("TINJIS_CRASH", plan)
        .env("TINJIS_CRASH_HITS", &hits)
        .output()
        .expect("this test runs itself")
        .status;
    let hits = std::fs::read_to_string(hits).expect("the points were hit");
    (status, hits.lines().map(str::to_owned).collect())
}

#[test]
fn a_process_dies_by_sigkill_at_the_nth_hit_and_the_hits_are_written_before() {
    let (status, hits) = victim("after-send:2");
    assert_eq!(status.signal(), Some(9));
    assert_eq!(hits, ["before-send", "after-send", "before-send", "after-send"]);
}

#[test]
fn a_point_that_is_never_reached_kills_no_process() {
    let (status, hits) = victim("after-send:4");
    assert!(status.success());
    assert_eq!(hits.len(), 6);
}
