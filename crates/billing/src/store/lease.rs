//! Detects leases that a wrong clock made: one rule for both stores, in numbers for their SQL. Knows no row.
//!
//! A wall clock that is ahead for a moment makes leases that end hours later, and no process would send those attempts
//! until then. No lease is longer than [`LONGEST`], so a lease that ends later is due now.

use std::time::Duration;

/// The longest lease of an attempt or a run, and the longest pause between two sends.
pub const LONGEST: Duration = Duration::from_millis(LONGEST_MS.unsigned_abs());
const LONGEST_MS: i64 = 60_000;
/// How far a clock may step back (NTP: less than a second) before leases made earlier count as wrong. A held lease that
/// is wrongly due costs a second send under the same key.
const STEP_BACK_MAX_MS: i64 = 10_000;

/// How far ahead of now a lease may end, in milliseconds; a lease that ends later is due.
pub(super) const AHEAD_MAX_MS: i64 = LONGEST_MS + STEP_BACK_MAX_MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lease_and_pause_of_the_engine_is_within_the_longest() {
        for lease in [crate::charge::LEASE, crate::charge::RUN_LEASE, crate::charge::RETRY_AFTER_MAX] {
            assert!(lease <= LONGEST, "{lease:?}");
        }
    }
}
