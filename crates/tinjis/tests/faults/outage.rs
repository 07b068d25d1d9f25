//! Outages of all calls for a while: no name, no connection, a stalled connection, a clock that jumps. Each takes a
//! fifth of the time, and is counted where it takes effect: by billing's own hits, or as a clock jump in a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use testkit::proxy::ListenerState;
use testkit::wait::pause;

use crate::site::Site;

/// An outage takes a fifth of the time.
const BAD: Duration = Duration::from_millis(400);
const GOOD: Duration = Duration::from_millis(1600);
/// How often the test checks whether an outage has taken effect.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Clock jumps, as when an operator sets the clock.
const JUMPS_MS: [i64; 2] = [3_600_000, -3_600_000];
/// The host name of the machine itself.
const NAME: &str = "localhost";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    NoName,
    Refused,
    ConnectTimeout,
    ClockJump,
}

impl Outage {
    pub(crate) const ALL: [Self; 4] = [Self::NoName, Self::Refused, Self::ConnectTimeout, Self::ClockJump];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoName => "dns-failure",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::ClockJump => "clock-jump",
        }
    }

    /// The point in billing's client at which the outage takes effect.
    fn point(self) -> Option<&'static str> {
        match self {
            Self::NoName => Some("client-no-name"),
            Self::Refused => Some("client-refused"),
            Self::ConnectTimeout => Some("client-connect-late"),
            Self::ClockJump => None,
        }
    }
}

/// The files that control billing's environment.
pub(crate) struct Trials {
    pub(crate) names: PathBuf,
    pub(crate) clock: PathBuf,
    pub(crate) hits: PathBuf,
    jumps: AtomicU64,
}

impl Trials {
    pub(crate) fn within(folder: &Path) -> Self {
        let (names, clock, hits) = (folder.join("names"), folder.join("clock"), folder.join("hits"));
        Self { names, clock, hits, jumps: AtomicU64::new(0) }
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let hits = fs::read_to_string(&self.hits).unwrap_or_default();
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for line in hits.lines() {
            if let Some(outage) = Outage::ALL.into_iter().find(|outage| outage.point() == Some(line)) {
                *counts.entry(outage.as_str()).or_default() += 1;
            }
        }
        counts.insert(Outage::ClockJump.as_str(), self.jumps.load(Ordering::SeqCst));
        counts
    }
}

/// Starts or ends an outage.
pub(crate) fn set(site: &Site, outage: Outage, bad: bool, turn: usize) {
    match (outage, bad) {
        (Outage::NoName, true) => {
            fs::write(&site.trials.names, NAME).expect("a file of a test can be changed")
        }
        (Outage::NoName, false) => {
            fs::remove_file(&site.trials.names).expect("a file of a test can be changed")
        }
        (Outage::Refused, true) => site.proxy.set_listener(ListenerState::Refusing),
        (Outage::ConnectTimeout, true) => site.proxy.set_listener(ListenerState::Stalling),
        (Outage::Refused | Outage::ConnectTimeout, false) => site.proxy.set_listener(ListenerState::Open),
        (Outage::ClockJump, bad) => {
            let ahead = if bad { JUMPS_MS[turn % JUMPS_MS.len()] } else { 0 };
            fs::write(&site.trials.clock, ahead.to_string()).expect("a file of a test can be changed");
            site.trials.jumps.fetch_add(1, Ordering::SeqCst);
        }
    }
    site.proxy.hang_up_idle();
}

/// Repeats the outages in turn, each for a fifth of the time, while `goes_on`. The first outage has been started
/// already, and lasts until it takes effect: a slow machine may need longer for a call.
pub(crate) fn cycle(
    site: &Site,
    outages: &[Outage],
    goes_on: impl Fn() -> bool,
    has_struck: impl Fn() -> bool,
) {
    let mut turn = 0;
    while goes_on() && !outages.is_empty() {
        let outage = outages[turn % outages.len()];
        if turn > 0 {
            set(site, outage, true, turn / outages.len());
        }
        pause(BAD);
        while turn == 0 && goes_on() && !has_struck() {
            pause(LOOK_AGAIN);
        }
        set(site, outage, false, turn);
        turn += 1;
        if goes_on() {
            pause(GOOD);
        }
    }
}
