//! Time and randomness as values, so that a simulation can advance the time and a seed can replay the randomness. The
//! only module that may ask the system for time or randomness. Must not know what they are used for.

mod virtual_clock;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use tokio::time::Instant;
use uuid::{Builder, Uuid};

pub use virtual_clock::VirtualClock;

/// Wall-clock time. Cheap to clone; clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { start_ms: i64, origin: Instant },
    Elsewhere { start_ms: i64, elapsed: fn() -> Duration },
    Virtual(Arc<VirtualClock>),
}

impl Clock {
    /// The machine's own clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Starts at `start_ms` (milliseconds since 1970) and advances with tokio's time, also when tokio's time is paused.
    #[must_use]
    pub fn simulated(start_ms: i64) -> Self {
        Self(Source::Simulated { start_ms, origin: Instant::now() })
    }

    /// Starts at `start_ms` and advances by `elapsed`: for a simulation in which each host has its own time.
    #[must_use]
    pub fn with_elapsed(start_ms: i64, elapsed: fn() -> Duration) -> Self {
        Self(Source::Elsewhere { start_ms, elapsed })
    }

    /// A virtual clock that other processes share, for stores that are marked for it.
    #[must_use]
    pub fn shared(clock: VirtualClock) -> Self {
        Self(Source::Virtual(Arc::new(clock)))
    }

    /// The shared virtual clock, if this clock is one.
    #[must_use]
    pub fn as_virtual(&self) -> Option<&VirtualClock> {
        match &self.0 {
            Source::Virtual(clock) => Some(clock),
            Source::System | Source::Simulated { .. } | Source::Elsewhere { .. } => None,
        }
    }

    /// Milliseconds since 1970, UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => {
                let since = system_time().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let now_ms = whole_ms(since);
                #[cfg(debug_assertions)]
                let now_ms = crate::test_overrides::wall_ms(now_ms);
                now_ms
            }
            Source::Simulated { start_ms, origin } => start_ms.saturating_add(whole_ms(origin.elapsed())),
            Source::Elsewhere { start_ms, elapsed } => start_ms.saturating_add(whole_ms(elapsed())),
            Source::Virtual(clock) => clock.now_ms(),
        }
    }

    /// Nanoseconds since 1970 by the machine's own clock: for times in traces, which are compared with those of other
    /// programs.
    #[must_use]
    pub fn wall_ns() -> u64 {
        let since = system_time().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The current time for formatting: whole milliseconds, never before 1970.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.now_ms()).unwrap_or(0))
    }
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Randomness. Cheap to clone; clones of a seeded source draw from the same sequence.
#[derive(Clone, Debug)]
pub struct Random(Draw);

#[derive(Clone, Debug)]
enum Draw {
    System,
    Seeded(Arc<Mutex<Xoshiro256PlusPlus>>),
}

impl Random {
    /// The thread's generator, seeded by the system: unpredictable.
    #[must_use]
    pub fn system() -> Self {
        Self(Draw::System)
    }

    /// The same seed draws the same numbers, on every machine and with every later release of the generator.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Draw::Seeded(Arc::new(Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed)))))
    }

    /// 64 random bits.
    #[must_use]
    pub fn u64(&self) -> u64 {
        self.draw(|rng| rng.next_u64())
    }

    /// Uniform in `0..n`; 0 when `n` is 0.
    #[must_use]
    pub fn below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.draw(|rng| rng.random_range(0..n)) }
    }

    /// A random (version 4) UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        Builder::from_u128(self.u128())
            .with_version(uuid::Version::Random)
            .with_variant(uuid::Variant::RFC4122)
            .into_uuid()
    }

    /// Uniform in `0..max`: full jitter. Zero when `max` is zero.
    #[must_use]
    pub fn jitter(&self, max: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(max.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// 128 random bits.
    #[must_use]
    pub fn u128(&self) -> u128 {
        self.draw(|rng| (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64()))
    }

    fn draw<T>(&self, take: impl FnOnce(&mut dyn Rng) -> T) -> T {
        match &self.0 {
            Draw::System => take(&mut thread_rng()),
            Draw::Seeded(rng) => take(&mut *rng.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks for the system's randomness")]
fn thread_rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_goes_as_paused_time_goes() {
        let clock = Clock::simulated(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        tokio::time::advance(Duration::from_millis(2_345)).await;
        assert_eq!(clock.now_ms(), 3_345);
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_millis(3_345));
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(Clock::system().now_ms() > 1_577_836_800_000);
    }

    #[test]
    fn the_same_seed_draws_the_same_numbers_and_another_seed_others() {
        let draw = |seed| {
            let random = Random::seeded(seed);
            (random.u64(), random.below(1_000_000_007), random.uuid(), random.jitter(Duration::from_secs(9)))
        };
        assert_eq!(draw(8213), draw(8213));
        assert_ne!(draw(8213), draw(8214));
    }

    #[test]
    fn a_clone_goes_on_in_the_same_sequence() {
        let (one, alone) = (Random::seeded(5), Random::seeded(5));
        let two = one.clone();
        assert_eq!([one.u64(), two.u64()], [alone.u64(), alone.u64()]);
    }

    #[test]
    fn below_covers_its_whole_range_and_nothing_else() {
        let random = Random::seeded(1);
        let mut seen = [false; 5];
        for _ in 0..500 {
            seen[usize::try_from(random.below(5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn jitter_stays_below_its_maximum() {
        let random = Random::seeded(2);
        let max = Duration::from_millis(3);
        assert!((0..500).all(|_| random.jitter(max) < max));
        assert_eq!(random.jitter(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_uuid_is_of_version_4_and_never_twice_the_same() {
        let random = Random::system();
        let uuid = random.uuid();
        assert_eq!(uuid.get_version_num(), 4);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_ne!(uuid, random.uuid());
    }
}
