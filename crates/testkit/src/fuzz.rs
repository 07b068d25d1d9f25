//! Runs a target with nearly valid inputs: entries of a small corpus with edits, chosen by a seed. An input that breaks
//! the target is shrunk and printed. Counts executions. Knows no target.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wait::{SeededRng, size, timed};

/// Default duration of a run, which only repeats known findings.
const MOMENT_MS: usize = 200;
/// Number of inputs between two checks of the clock.
const BATCH: usize = 64;
/// A run of at least this length must reach this minimum of executions.
const LONG: Duration = Duration::from_secs(60);
const EXECUTIONS_MIN: u64 = 100_000;
/// Number of random bytes that determine one input.
const CHOICES: usize = 96;
/// Maximum number of smaller inputs that are tried after a failure.
const SHRINKS_MAX: usize = 4000;
/// Maximum length of an input after all edits.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of edits of one input.
const EDITS_MAX: usize = 8;
/// Texts that an edit may insert: parts of many formats, and numbers at limits.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b";",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e400",
    b"1.005",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"0.1e-9",
    b"-----BEGIN CERTIFICATE-----",
    b"-----END CERTIFICATE-----",
    b"-----BEGIN PRIVATE KEY-----",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!binary ",
    b"=",
    b".",
    b"..",
    b"eyJ",
    b"EUR",
    b"\xef\xbb\xbf",
];

/// A folder in memory, if possible, for a target that writes.
///
/// # Panics
/// When no folder can be made.
#[must_use]
pub fn quick_folder() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    let folder = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    folder.expect("a folder can be made")
}

/// The entries that inputs are made from.
#[derive(Debug)]
pub struct Corpus {
    name: &'static str,
    entries: Vec<Vec<u8>>,
    executions: AtomicU64,
}

impl Corpus {
    /// A corpus of every file in this folder.
    ///
    /// # Panics
    /// When there is no file.
    #[must_use]
    #[track_caller]
    pub fn read(name: &'static str, folder: impl AsRef<Path>) -> Self {
        let files =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.as_ref().display()));
        let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        files.sort();
        let entries: Vec<Vec<u8>> =
            files.iter().map(|file| fs::read(file).expect("a file of the corpus can be read")).collect();
        Self::of(name, entries)
    }

    /// A corpus of these entries.
    ///
    /// # Panics
    /// When there is no entry.
    #[must_use]
    #[track_caller]
    pub fn of(name: &'static str, entries: Vec<Vec<u8>>) -> Self {
        assert!(!entries.is_empty(), "{name}: the corpus is empty");
        Self { name, entries, executions: AtomicU64::new(0) }
    }

    /// Runs the target with each entry unchanged, then with edited entries for `FUZZ_MS`, and prints the number of
    /// executions. `SEED` repeats a run. Without `FUZZ_MS` the short run uses a fixed seed, so that a red test is
    /// caused by the change under test.
    ///
    /// # Panics
    /// When the target panics; the message contains the smallest input that was found.
    pub fn run(&self, target: impl Fn(&[u8])) {
        let time = size("FUZZ_MS", MOMENT_MS);
        let rng = if time == MOMENT_MS { SeededRng::seeded(1) } else { SeededRng::random() };
        self.run_for(Duration::from_millis(u64::try_from(time).expect("a short time")), rng, target);
    }

    #[expect(clippy::print_stdout, reason = "a proof tells what it did")]
    fn run_for(&self, time: Duration, mut rng: SeededRng, target: impl Fn(&[u8])) {
        for entry in &self.entries {
            target(entry);
        }
        let (seed, mut spent) = (rng.seed(), Duration::ZERO);
        while spent < time {
            let batch = || (0..BATCH).for_each(|_| self.once(&mut rng, seed, &target));
            spent += timed(batch).1;
        }
        assert!(
            time < LONG || self.executions() >= EXECUTIONS_MIN,
            "{}: {} executions",
            self.name,
            self.executions()
        );
        println!("  {:32} {:>9} executions in {time:?}, seed {seed}", self.name, self.executions());
    }

    fn once(&self, rng: &mut SeededRng, seed: u64, target: &impl Fn(&[u8])) {
        let choices: Vec<u8> = (0..CHOICES / 8).flat_map(|_| rng.below(u64::MAX).to_le_bytes()).collect();
        let input = self.edited(&choices);
        self.executions.fetch_add(1, Ordering::Relaxed);
        let breaks = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
        if breaks(&input) {
            let small = shrunk(input, &breaks);
            panic!("{}: broken by \"{}\" (SEED={seed})", self.name, small.escape_ascii());
        }
    }

    /// Number of executions with an edited entry.
    #[must_use]
    pub fn executions(&self) -> u64 {
        self.executions.load(Ordering::Relaxed)
    }

    /// The edited entry that these bytes determine. Any bytes give some input, so that every choice can be tried.
    fn edited(&self, choices: &[u8]) -> Vec<u8> {
        let mut choices = Choices(choices);
        let mut input = self.entries[choices.below(self.entries.len())].clone();
        for _ in 0..=choices.below(EDITS_MAX) {
            let at = choices.below(input.len() + 1);
            let end = (at + choices.below(32)).min(input.len());
            match choices.below(7) {
                0 if at < input.len() => input[at] ^= 1 << choices.below(8),
                1 if at < input.len() => input[at] = choices.byte(),
                2 => drop(input.drain(at..end)),
                3 => insert(&mut input, at, WORDS[choices.below(WORDS.len())]),
                4 => {
                    let again = input[at..end].to_vec();
                    insert(&mut input, at, &again.repeat(choices.below(64)));
                }
                5 => {
                    let other = &self.entries[choices.below(self.entries.len())];
                    let from = choices.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                _ => insert(&mut input, at, choices.take(8)),
            }
            input.truncate(INPUT_BYTES_MAX);
        }
        input
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    drop(input.splice(at..at, bytes.iter().copied()));
}

/// Removes parts of the input in ever smaller pieces while it still breaks the target.
fn shrunk(mut input: Vec<u8>, breaks: &impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut piece, mut looks) = (input.len() / 2, 0);
    while piece > 0 && looks < SHRINKS_MAX {
        let mut at = 0;
        while at + piece <= input.len() && looks < SHRINKS_MAX {
            let mut smaller = input.clone();
            drop(smaller.drain(at..at + piece));
            looks += 1;
            if breaks(&smaller) { input = smaller } else { at += piece }
        }
        piece /= 2;
    }
    input
}

/// Bytes that are consumed; afterwards zeros.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        let two = usize::from(self.byte()) << 8 | usize::from(self.byte());
        if limit == 0 { 0 } else { two % limit }
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND_WITHIN: Duration = Duration::from_secs(60);

    fn json(input: &[u8]) -> Option<serde_json::Value> {
        serde_json::from_slice(input).ok()
    }

    /// Plants a mistake that only a negative amount reveals: a reader that assumes a positive amount.
    #[test]
    fn a_planted_panic_is_found() {
        let corpus = Corpus::of("planted", vec![br#"{"customer_id":1,"value":1.25}"#.to_vec()]);
        let planted = |input: &[u8]| {
            let value = json(input).and_then(|json| json["value"].as_f64());
            assert!(value.is_none_or(|value| value >= 0.0), "an amount below zero");
        };
        let found = catch_unwind(|| corpus.run_for(FOUND_WITHIN, SeededRng::seeded(8213), planted))
            .expect_err("it is found");
        let said = found.downcast_ref::<String>().expect("a panic with a message");
        assert!(said.contains("value\\\":-"), "made small and shown: {said}");
        assert!(said.len() < 100, "made small and shown: {said}");
    }

    #[test]
    fn inputs_are_nearly_right_and_many_are_right() {
        let corpus = Corpus::of("bodies", vec![br#"{"customer_id":1,"value":1.25}"#.to_vec()]);
        let (right, all) = (AtomicU64::new(0), AtomicU64::new(0));
        corpus.run(|input| {
            all.fetch_add(1, Ordering::Relaxed);
            right.fetch_add(u64::from(json(input).is_some()), Ordering::Relaxed);
        });
        let (right, all) = (right.into_inner(), all.into_inner());
        assert!(right * 100 > all && right < all, "{right} of {all} are JSON");
    }
}
