//! Overrides for tests in builds with debug assertions: scaled durations, unresolvable names, and the offset of the
//! wall clock. A release binary contains none of this. Must not know the tests or the durations.
//!
//! `TINJIS_TRIAL_TEMPO=30`: deadlines, leases and pauses are divided by 30. `TINJIS_TRIAL_NAMES=FILE`:
//! names in the file do not resolve. `TINJIS_TRIAL_CLOCK=FILE`: milliseconds by which the wall clock is ahead.

use std::time::Duration;

/// Divides a deadline, lease or pause by the test tempo; unchanged in release builds.
#[must_use]
pub fn scaled(duration: Duration) -> Duration {
    #[cfg(debug_assertions)]
    let duration = duration / overrides::tempo();
    duration
}

#[cfg(debug_assertions)]
pub(crate) use overrides::wall_ms;

#[cfg(debug_assertions)]
pub(crate) use overrides::is_nameless;

#[cfg(debug_assertions)]
mod overrides {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::OnceLock;

    /// The environment's overrides, read once.
    struct TestOverrides {
        tempo: u32,
        names: Option<PathBuf>,
        clock: Option<PathBuf>,
    }

    static TRIAL: OnceLock<TestOverrides> = OnceLock::new();

    pub(super) fn tempo() -> u32 {
        active().tempo
    }

    pub(crate) fn is_nameless(host: &str) -> bool {
        let names = active().names.as_ref().and_then(|path| fs::read_to_string(path).ok());
        names.is_some_and(|names| names.lines().any(|name| name == host))
    }

    pub(crate) fn wall_ms(now_ms: i64) -> i64 {
        let ahead = active().clock.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let ahead = ahead.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
        now_ms.saturating_add(ahead)
    }

    fn active() -> &'static TestOverrides {
        TRIAL.get_or_init(|| {
            let text = |name| std::env::var_os(name).filter(|value| !value.is_empty());
            let tempo = text("TINJIS_TRIAL_TEMPO").map_or(1, |value| {
                let tempo = value.to_str().and_then(|text| text.parse().ok()).filter(|tempo| *tempo > 0);
                tempo.expect("TINJIS_TRIAL_TEMPO is a number from 1 on")
            });
            let path = |name| text(name).map(PathBuf::from);
            TestOverrides { tempo, names: path("TINJIS_TRIAL_NAMES"), clock: path("TINJIS_TRIAL_CLOCK") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_overrides_nothing_changes() {
        assert_eq!(scaled(Duration::from_secs(60)), Duration::from_secs(60));
        #[cfg(debug_assertions)]
        assert!(!is_nameless("localhost") && wall_ms(7) == 7);
    }
}
