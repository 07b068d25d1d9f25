//! Which leases are a wrong clock's: one rule for both stores, in numbers that they put into their SQL. Knows no row.
//!
//! A wall clock that is ahead for a moment leaves leases that end hours later, and no process would send those attempts
//! again until then. No lease is longer than [`LONGEST`], so that one that ends later than that is due now.

use std::time::Duration;

/// The longest that an attempt, a run or a pause between two sends is leased for.
pub const LONGEST: Duration = Duration::from_millis(LONGEST_MS.unsigned_abs());
const LONGEST_MS: i64 = 60_000;
/// How far a clock may step back (NTP does so by less than a second) before what was leased under it is taken for wrong:
/// a lease that is called due although it is held costs a second send under the same key.
const STEP_BACK_MAX_MS: i64 = 10_000;

/// How far ahead of now a lease may end, in milliseconds; one that ends later is due.
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
