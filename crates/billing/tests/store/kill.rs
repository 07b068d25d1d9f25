//! SIGKILL in the middle of the store's work: acknowledged work is stored afterwards, and no work is stored in part.
//! The child process is this same test binary, started with an environment variable.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use billing::invoice::{AttemptState, InvoiceId, InvoiceState};
use billing::protocol::key::Key;
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::sqlite::SqliteStore;
use billing::store::{Counts, Store};
use chassis::clock::{Clock, Random};
use tempfile::TempDir;

use crate::fixture::{LEASE, imported, run};

const CHILD: &str = "STORE_TEST_CHILD";
/// More invoices than four children can claim before they are killed: their output fills a pipe after about 800.
const INVOICES: usize = 5_000;
const BATCH: usize = 20;

async fn open(path: &Path) -> Box<dyn Store> {
    Box::new(SqliteStore::open(path, None, Clock::system(), &Random::system()).await.unwrap())
}

fn child(path: &Path, crash: &str) -> Child {
    let hits = path.with_extension("hits");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_child_that_is_killed", "--nocapture"])
        .env(CHILD, path)
        .env("TINJIS_CRASH", crash)
        .env("TINJIS_CRASH_HITS", hits)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Does nothing except in the child process, where it claims and settles, and prints each key after the store's answer.
#[tokio::test]
async fn the_child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&path)).await;
    let run = run(&*store).await;
    let mut after = InvoiceId(0);
    loop {
        let claimed = store.claim_in_turn(run.id, after, BATCH, LEASE).await.unwrap().attempts;
        let Some(last) = claimed.last() else { break };
        after = last.invoice_id;
        skip_notice("claimed", claimed.iter().map(|attempt| &attempt.key));
        let settle = |attempt| Settlement::of(attempt, Outcome::Charged, LEASE, None);
        let settlements: Vec<_> = claimed.iter().map(settle).collect();
        store.settle(Some(run.id), &settlements).await.unwrap();
        skip_notice("settled", claimed.iter().map(|attempt| &attempt.key));
    }
    panic!("this process was not killed");
}

fn skip_notice<'a>(word: &str, keys: impl Iterator<Item = &'a Key>) {
    let mut out = std::io::stdout().lock();
    for key in keys {
        writeln!(out, "{word} {key}").unwrap();
    }
    out.flush().unwrap();
}

/// The output of the child until it died; kills the child after this many keys, if it does not die by itself.
fn listen(mut child: Child, keys_max: usize) -> Vec<(String, Key)> {
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((word @ ("claimed" | "settled"), key)) = line.split_once(' ') {
            // A line cut short by the kill does not count as printed.
            said.extend(Key::parse(key).map(|key| (word.to_owned(), key)));
        }
        if said.len() >= keys_max {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    said
}

/// Checks that all printed work is stored, and other work only in whole jobs.
async fn check(path: &Path, said: &[(String, Key)]) -> Counts {
    let store = open(path).await;
    for (word, key) in said {
        let attempt = store.attempt(key).await.unwrap().expect("what was answered is on disk");
        assert!(word == "claimed" || attempt.state == AttemptState::Charged, "{word} {attempt:?}");
    }
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.charging + counts.paid) % BATCH as i64, 0);
    assert_eq!(counts.paid % BATCH as i64, 0);
    assert_eq!(counts.charging.unsigned_abs(), store.recover().await.unwrap());
    let listed = store.invoices(Some(InvoiceState::Charging), InvoiceId(0), 1000).await.unwrap();
    assert_eq!(listed.len() as i64, counts.charging);
    let counters = store.unfinished_run().await.unwrap().unwrap().counters;
    assert_eq!((counters.attempted, counters.paid), (counts.charging + counts.paid, counts.paid));
    counts
}

#[tokio::test]
async fn what_was_answered_survives_a_kill_at_any_moment() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("billing.db");
    imported(&*open(&path).await, INVOICES).await;
    let mut before = Counts::default();
    for keys_max in [1, 37, 150, 400] {
        let said = listen(child(&path, ""), keys_max);
        assert!(!said.is_empty());
        let counts = check(&path, &said).await;
        assert!(counts.charging + counts.paid > before.charging + before.paid, "the child did something");
        before = counts;
    }
}

#[tokio::test]
async fn a_kill_inside_a_claim_or_a_settlement_leaves_nothing_of_it() {
    for (crash, claimed, settled) in [("K1:1", 0, 0), ("K1:3", 2, 2), ("K8:1", 1, 0), ("K8:4", 4, 3)] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("billing.db");
        imported(&*open(&path).await, 10 * BATCH).await;
        let said = listen(child(&path, crash), usize::MAX);
        let counts = check(&path, &said).await;
        let jobs = |rows: i64| rows / BATCH as i64;
        assert_eq!((jobs(counts.charging + counts.paid), jobs(counts.paid)), (claimed, settled), "{crash}");
        let hits = std::fs::read_to_string(path.with_extension("hits")).unwrap();
        let (point, nth) = crash.split_once(':').unwrap();
        assert_eq!(hits.lines().filter(|line| *line == point).count().to_string(), nth);
    }
}
