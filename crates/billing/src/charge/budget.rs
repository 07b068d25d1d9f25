//! The retry budget: a token bucket that first sends fill and resends empty, so that resends stay a fraction of
//! the work however many attempts are in doubt. Knows no attempt and no clock: the time is a parameter.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The cost of one resend, in thousandths of a token.
const RESEND: u64 = 1000;
/// Credit of one first send: half a resend, so that one call in three may be a resend.
const FIRST_SEND: u64 = 500;
/// Credit per second without first sends: 50 resends.
const REFILL_PER_SECOND: u64 = 50 * RESEND;
/// The highest balance. An engine begins with it, so that open attempts are resent at once after a crash.
const CAPACITY: u64 = 1000 * RESEND;

/// The bucket, shared by all runs of an engine.
#[derive(Debug)]
pub struct Budget {
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    saved: u64,
    at: Instant,
}

impl Budget {
    /// A full bucket.
    #[must_use]
    pub fn full(now: Instant) -> Self {
        Self { level: Mutex::new(Level { saved: CAPACITY, at: now }) }
    }

    /// Adds the credit of first sends.
    pub fn first_sends(&self, count: usize) {
        let paid = FIRST_SEND.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
        let mut level = self.lock();
        level.saved = level.saved.saturating_add(paid).min(CAPACITY);
    }

    /// Takes the credit for up to `wanted` resends; returns the granted number.
    pub fn take(&self, wanted: usize, now: Instant) -> usize {
        let mut level = self.lock();
        let passed_ms =
            u64::try_from(now.saturating_duration_since(level.at).as_millis()).unwrap_or(u64::MAX);
        let refill = passed_ms.saturating_mul(REFILL_PER_SECOND) / 1000;
        if refill > 0 {
            level.at = now;
            level.saved = level.saved.saturating_add(refill).min(CAPACITY);
        }
        let affordable = usize::try_from(level.saved / RESEND).unwrap_or(usize::MAX).min(wanted);
        level.saved -= RESEND * u64::try_from(affordable).unwrap_or(0);
        affordable
    }

    /// Returns unused permits.
    pub fn give_back(&self, count: usize) {
        let unused = RESEND.saturating_mul(u64::try_from(count).unwrap_or(0));
        let mut level = self.lock();
        level.saved = level.saved.saturating_add(unused).min(CAPACITY);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Level> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn resends_are_a_fraction_of_first_sends_once_the_savings_are_spent() {
        let budget = Budget::full(Instant::now());
        assert_eq!(budget.take(5000, Instant::now()), 1000);
        assert_eq!(budget.take(1, Instant::now()), 0);
        budget.first_sends(100);
        assert_eq!(budget.take(5000, Instant::now()), 50);
        budget.give_back(10);
        assert_eq!(budget.take(5000, Instant::now()), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn time_refills_it_up_to_its_capacity() {
        let budget = Budget::full(Instant::now());
        assert_eq!(budget.take(1000, Instant::now()), 1000);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(budget.take(1000, Instant::now()), 100);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(budget.take(usize::MAX, Instant::now()), 1000);
    }
}
