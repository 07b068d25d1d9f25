//! The proofs: each a command with its sizes, small for every change and full for a release. Prints only the rows of
//! the proofs; other output goes to a log for each. Knows no proof's code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::print_progress;
use crate::run::{cargo, tail};
use crate::table::{Row, print, take};

/// The size of each proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    /// The small size, without the proofs that `cargo test` has just run at this size, as in CI.
    BeyondTests,
    Full,
}

type Variables = &'static [(&'static str, &'static str)];

/// A proof, or several in one program.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// The arguments after `cargo`, in the profile of tests and of the whole workspace, so that nothing is built a
    /// second time.
    args: &'static [&'static str],
    small: Variables,
    full: Variables,
    /// Whether the full size is worth a release build.
    is_heavy: bool,
    /// The table row of a part that writes no row itself.
    plain: Option<&'static str>,
}

const fn test(name: &'static str, args: &'static [&'static str], small: Variables, full: Variables) -> Part {
    Part { name, args, small, full, is_heavy: false, plain: None }
}

/// Makes a proof fail where PostgreSQL or strace is missing; a test of the workspace is skipped there.
pub(crate) const NOTHING_LEFT_OUT: (&str, &str) = ("CI", "true");

/// The parts in the order of the table. Where most of the time is waiting, several tests run at the same time.
static PARTS: [Part; 23] = [
    test(
        "model",
        &["test", "--workspace", "--bin", "model", "--", "--nocapture", "the_protocol"],
        &[("MODEL_SIZE", "full")],
        &[("MODEL_SIZE", "full")],
    ),
    Part {
        name: "simulation",
        args: &["test", "--workspace", "--test", "simulation", "--", "no_customer"],
        small: &[("SIM_SEEDS", "40")],
        full: &[("SIM_SEEDS", "2000")],
        is_heavy: true,
        plain: None,
    },
    Part {
        name: "store contract",
        args: &["test", "--workspace", "--test", "store"],
        small: &[],
        full: &[("STORE_WALKS", "200")],
        is_heavy: false,
        plain: Some("every walk agrees with the model of a store"),
    },
    Part {
        name: "charging",
        args: &["test", "--workspace", "--test", "charge"],
        small: &[],
        full: &[],
        is_heavy: false,
        plain: Some("one invoice that fails stops no other, and an outage parks at most five"),
    },
    Part {
        name: "routes of billing",
        args: &["test", "--workspace", "--test", "routes"],
        small: &[],
        full: &[],
        is_heavy: false,
        plain: Some("nothing begins for a caller that has left"),
    },
    Part {
        name: "identity",
        args: &["test", "--workspace", "--test", "identity"],
        small: &[],
        full: &[],
        is_heavy: false,
        plain: Some("a lost store and a ledger set back charge nothing"),
    },
    Part {
        name: "calendar",
        args: &["test", "--workspace", "--test", "calendar"],
        small: &[("CALENDAR_SUBSCRIPTIONS", "3000")],
        full: &[("CALENDAR_SUBSCRIPTIONS", "100000")],
        is_heavy: true,
        plain: Some("the calendar of subscriptions agrees with a second one over every zone"),
    },
    Part {
        name: "schedule",
        args: &[
            "test",
            "--workspace",
            "--test",
            "schedule",
            "--",
            "--test-threads",
            "3",
            "--skip",
            "previewed",
            "--skip",
            "memory",
        ],
        small: &[],
        full: &[],
        is_heavy: false,
        plain: Some("each due period is invoiced and charged once"),
    },
    test(
        "kill matrix",
        &["test", "--workspace", "--test", "kill_points", "--", "--test-threads", "3"],
        &[("KILL_HITS", "3")],
        &[("KILL_HITS", "3"), ("RECOVERIES", "20")],
    ),
    test(
        "fault matrix",
        &["test", "--workspace", "--test", "faults", "--", "--test-threads", "3"],
        &[("FAULT_INVOICES", "1000")],
        &[("FAULT_INVOICES", "10000")],
    ),
    test(
        "no keys",
        &["test", "--workspace", "--test", "resolve", "--", "without_keys"],
        &[],
        &[("RESOLVE_INVOICES", "1000")],
    ),
    test("without keys", &["test", "--workspace", "--test", "without_keys"], &[], &[]),
    test(
        "pauses",
        &["test", "--workspace", "--test", "paused_past_leases", "--", "--test-threads", "2"],
        &[("PAUSES", "5")],
        &[("PAUSES", "50")],
    ),
    test(
        "replicas",
        &["test", "--workspace", "--test", "replicas", "--", "--test-threads", "1"],
        &[],
        &[("REPLICAS_INVOICES", "20000"), ("RESTART_INVOICES", "20000"), ("RESTARTS", "3")],
    ),
    test(
        "rolling restart",
        &["test", "--workspace", "--test", "rolling", "--", "--test-threads", "1"],
        &[],
        &[("ROLLING_INVOICES", "5000"), ("ROLLING_ROUNDS", "5")],
    ),
    test(
        "commits without an answer",
        &["test", "--workspace", "--test", "lost_commits"],
        &[],
        &[("LOST_COMMITS_INVOICES", "20000")],
    ),
    test(
        "failover",
        &["test", "--workspace", "--test", "failover"],
        &[("FAILOVERS", "3")],
        &[("FAILOVERS", "50")],
    ),
    test(
        "upgrade",
        &["test", "--workspace", "--test", "upgrade", "--", "--test-threads", "2"],
        &[],
        &[("UPGRADE_INVOICES", "10000")],
    ),
    test(
        "durability order",
        &["test", "--workspace", "--test", "durability", "--", "--test-threads", "1"],
        &[],
        &[("ORDER_INVOICES", "500")],
    ),
    test(
        "durable commits",
        &["test", "--workspace", "--test", "commit_settings", "--", "--test-threads", "1"],
        &[],
        &[("COMMIT_SETTINGS_INVOICES", "5000")],
    ),
    Part {
        name: "previews",
        args: &["test", "--workspace", "--test", "schedule", "--", "--test-threads", "1", "previewed"],
        small: &[],
        full: &[("SCHEDULE_SUBSCRIPTIONS", "100000"), ("SCHEDULE_MONTHS", "24")],
        is_heavy: true,
        plain: None,
    },
    Part {
        name: "months",
        args: &["test", "--workspace", "--test", "simulate", "--", "--test-threads", "2"],
        small: &[("SIMULATE_SUBSCRIPTIONS", "1000"), ("SIMULATE_MONTHS", "3")],
        full: &[("SIMULATE_SUBSCRIPTIONS", "20000"), ("SIMULATE_MONTHS", "3")],
        is_heavy: true,
        plain: None,
    },
    test(
        "restore drill",
        &["test", "--workspace", "--test", "restore", "--", "--test-threads", "1"],
        &[("DRILL_INVOICES", "5000")],
        &[("DRILL_INVOICES", "20000")],
    ),
];

/// Runs the parts whose names match and prints the table; `false` when one fails.
pub(crate) fn prove(size: Size, only: &str) -> io::Result<bool> {
    let (folder, began) = (out()?, Instant::now());
    let mut rows = Vec::new();
    let mut all_right = true;
    let _old = take(&folder)?;
    let parts: Vec<&Part> =
        PARTS.iter().filter(|part| part.name.contains(only) && part.is_wanted(size)).collect();
    if parts.is_empty() {
        return Err(io::Error::other(format!("no proof is called {only}")));
    }
    for (at, part) in parts.iter().enumerate() {
        print_progress(&format!("-- {} of {}: {}", at + 1, parts.len(), part.name));
        if let Some(why) = part.cannot_be_tried() {
            print_progress(&format!("   NOT tried: {}", why.trim()));
            continue;
        }
        let (of_part, is_right) = run(part, size == Size::Full, &folder)?;
        for row in &of_part {
            let Row { what, how_many, double, lost, took } = row;
            print_progress(&format!(
                "   {what}: {how_many}; double {double}, lost {lost}; {}",
                seconds(*took)
            ));
        }
        all_right &= is_right;
        rows.extend(of_part);
    }
    let verdict = if all_right { "green" } else { "RED" };
    print_progress(&format!(
        "\n{}\n{verdict} in {}, building included",
        print(&rows),
        seconds(began.elapsed())
    ));
    Ok(all_right)
}

impl Part {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        PARTS.iter().find(|part| part.name == name)
    }

    /// The integration test of the part; `None` for a part that runs the tests of a program.
    #[cfg(test)]
    pub(crate) fn integration_test(&self) -> Option<&'static str> {
        let at = self.args.iter().position(|word| *word == "--test")?;
        self.args.get(at + 1).copied()
    }

    fn is_wanted(&self, size: Size) -> bool {
        size != Size::BeyondTests || !self.small.is_empty()
    }

    /// Why there is no previous version here, as the build script has written.
    fn cannot_be_tried(&self) -> Option<String> {
        let folder = std::env::var_os("UPGRADE_PREVIOUS").filter(|_| self.name == "upgrade")?;
        fs::read_to_string(Path::new(&folder).join("none")).ok()
    }

    /// The arguments after `cargo`.
    pub(crate) fn command(&self, is_full: bool) -> Vec<&'static str> {
        let (command, rest) = self.args.split_first().expect("a part has a command");
        let profile: &[&str] = if is_full && self.is_heavy { &["--release"] } else { &[] };
        [&[*command, "--locked"], profile, rest].concat()
    }
}

fn run(part: &Part, is_full: bool, folder: &Path) -> io::Result<(Vec<Row>, bool)> {
    let args = part.command(is_full);
    let log = folder.join(format!("{}.log", part.name.replace(' ', "-")));
    let out = folder.to_str().ok_or_else(|| io::Error::other("the folder's name is no text"))?;
    let mut variables = vec![("PROVE_OUT", out), NOTHING_LEFT_OUT];
    variables.extend(if is_full { part.full } else { part.small });
    let ended = cargo(Path::new("."), &args, &variables, &log)?;
    let mut rows = take(folder)?;
    if let Some(plain) = part.plain.filter(|_| ended.is_ok && rows.is_empty()) {
        rows.push(Row::passed(part.name, plain, ended.took));
    }
    if !ended.is_ok || rows.is_empty() {
        print_progress(&format!("   RED; the end of {}:\n{}", log.display(), tail(&log)));
        rows.push(Row::failed(part.name, ended.took));
    }
    let is_right = ended.is_ok && rows.iter().all(Row::is_right);
    Ok((rows, is_right))
}

/// The folder for result lines and logs: `PROVE_OUT`, which make sets.
pub(crate) fn out() -> io::Result<PathBuf> {
    let folder = std::env::var_os("PROVE_OUT").map_or_else(|| PathBuf::from("target/proofs"), PathBuf::from);
    fs::create_dir_all(&folder)?;
    fs::canonicalize(folder)
}

/// A duration for messages, in seconds.
pub(crate) fn seconds(took: Duration) -> String {
    format!("{}.{} s", took.as_secs(), took.subsec_millis() / 100)
}
