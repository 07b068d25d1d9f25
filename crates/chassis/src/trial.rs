//! What a proof may bend in builds with debug assertions: how fast time is short, which names resolve, and what the
//! wall clock shows. Nothing of it is in a release binary. Must not know which proof, or which durations.
//!
//! `TINJIS_TRIAL_TEMPO=30`: deadlines, leases and pauses are a thirtieth of what they are. `TINJIS_TRIAL_NAMES=FILE`:
//! names that stand in the file have no address. `TINJIS_TRIAL_CLOCK=FILE`: milliseconds that the wall clock is ahead.

use std::time::Duration;

/// A deadline, lease or pause as it is to be in this process: as it stands, unless a trial shortens it.
#[must_use]
pub fn paced(duration: Duration) -> Duration {
    #[cfg(debug_assertions)]
    let duration = duration / bent::tempo();
    duration
}

/// The wall clock as this process is to see it.
#[cfg(debug_assertions)]
pub(crate) use bent::wall_ms;

/// Whether a name is to have no address.
#[cfg(debug_assertions)]
pub(crate) use bent::is_nameless;

#[cfg(debug_assertions)]
mod bent {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::OnceLock;

    /// What the environment asked for, read once.
    struct Trial {
        tempo: u32,
        names: Option<PathBuf>,
        clock: Option<PathBuf>,
    }

    static TRIAL: OnceLock<Trial> = OnceLock::new();

    pub(super) fn tempo() -> u32 {
        trial().tempo
    }

    pub(crate) fn is_nameless(host: &str) -> bool {
        let names = trial().names.as_ref().and_then(|path| fs::read_to_string(path).ok());
        names.is_some_and(|names| names.lines().any(|name| name == host))
    }

    pub(crate) fn wall_ms(now_ms: i64) -> i64 {
        let ahead = trial().clock.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let ahead = ahead.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
        now_ms.saturating_add(ahead)
    }

    fn trial() -> &'static Trial {
        TRIAL.get_or_init(|| {
            let text = |name| std::env::var_os(name).filter(|value| !value.is_empty());
            let tempo = text("TINJIS_TRIAL_TEMPO").map_or(1, |value| {
                let tempo = value.to_str().and_then(|text| text.parse().ok()).filter(|tempo| *tempo > 0);
                tempo.expect("TINJIS_TRIAL_TEMPO is a number from 1 on")
            });
            let path = |name| text(name).map(PathBuf::from);
            Trial { tempo, names: path("TINJIS_TRIAL_NAMES"), clock: path("TINJIS_TRIAL_CLOCK") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_trial_nothing_is_bent() {
        assert_eq!(paced(Duration::from_secs(60)), Duration::from_secs(60));
        #[cfg(debug_assertions)]
        assert!(!is_nameless("localhost") && wall_ms(7) == 7);
    }
}
