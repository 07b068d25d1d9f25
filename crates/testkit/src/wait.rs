//! Waits for a condition with a deadline, and reads the sizes that make a proof small or full. Knows no service.

use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is checked.
const POLL: Duration = Duration::from_millis(2);

/// Polls until the condition holds; the panic at the deadline names the condition.
///
/// # Panics
/// When the deadline passes.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "waited {within:?} without success for: {what}");
        pause(POLL);
    }
}

/// Polls until there is a value; the panic at the deadline names the condition.
///
/// # Panics
/// When the deadline passes.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < within, "waited {within:?} without success for: {what}");
        pause(POLL);
    }
}

/// The result of a call, and its duration.
pub fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = call();
    (result, start.elapsed())
}

/// Sleeps between two checks of a condition, or for a random time in a proof; never replaces a condition.
pub fn pause(length: Duration) {
    let until = Instant::now() + length;
    // A parked thread may wake early, so the clock decides.
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// The size of a proof: the variable's number, or this default.
///
/// # Panics
/// When the variable is no number.
#[must_use]
#[track_caller]
pub fn size(variable: &str, or_else: usize) -> usize {
    match std::env::var_os(variable).filter(|text| !text.is_empty()) {
        None => or_else,
        Some(text) => match text.to_str().and_then(|text| text.replace('_', "").parse().ok()) {
            Some(number) => number,
            None => panic!("{variable} must be a number, not {}", text.display()),
        },
    }
}

/// Random numbers that a seed repeats, for times and choices of a proof.
#[derive(Clone, Debug)]
pub struct SeededRng(u64);

impl SeededRng {
    /// Numbers from the seed in the variable `SEED`, else from the process id.
    #[must_use]
    pub fn random() -> Self {
        let or_else = usize::try_from(std::process::id()).unwrap_or_default();
        Self(u64::try_from(size("SEED", or_else)).unwrap_or_default())
    }

    /// Numbers from this seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The value of `SEED` that repeats the numbers from here on.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0
    }

    /// A number from 0 to `below` - 1; 0 when `below` is 0. The step is SplitMix64.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).checked_rem(below).unwrap_or_default()
    }
}
