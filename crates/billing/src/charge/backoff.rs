//! The pause before a resend: full jitter over a doubling ceiling. Pure except for the random source.

use std::time::Duration;

use chassis::clock::Random;
use chassis::test_overrides::scaled;

/// Ceiling of the first pause.
const FIRST: Duration = Duration::from_millis(200);
/// Ceiling of every later pause: short enough that attempts in doubt settle soon after the fault ends.
const LONGEST: Duration = Duration::from_secs(10);

/// The ceiling of the pause after this number of sends.
fn ceiling(sends: u32) -> Duration {
    FIRST.saturating_mul(1 << sends.saturating_sub(1).min(16)).min(LONGEST)
}

/// The pause after this number of sends.
#[must_use]
pub fn pause(random: &Random, sends: u32) -> Duration {
    random.jitter(scaled(ceiling(sends)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_limit() {
        let ceilings: Vec<u128> = (0..9).map(|sends| ceiling(sends).as_millis()).collect();
        assert_eq!(ceilings, [200, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(ceiling(u32::MAX), LONGEST);
    }

    #[test]
    fn pauses_spread_over_the_whole_range() {
        let random = Random::seeded(7);
        let pauses: Vec<Duration> = (0..200).map(|_| pause(&random, 3)).collect();
        assert!(pauses.iter().all(|&pause| pause <= ceiling(3)));
        assert!(pauses.iter().any(|&pause| pause < ceiling(3) / 8), "none near zero");
        assert!(pauses.iter().any(|&pause| pause > ceiling(3) * 7 / 8), "none near the ceiling");
    }
}
