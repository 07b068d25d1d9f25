//! The periods of a subscription, the instant at which each is due, and its price. Pure: must not know a store, HTTP or
//! the present time; a caller asks about a range of dates.

pub mod calendar;
pub mod holidays;
pub mod prices;
pub mod run;
pub mod zone;

pub use calendar::{AnchorDay, EveryMonths, HolidayRule, Notes, Period, Terms, first_due, periods};
pub use holidays::{BadHolidays, Holidays};
pub use prices::{Price, Prices};
pub use zone::{LocalInstant, Zone, zone_data_version};

/// The error for an invalid field of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidField {
    /// The field's name in `/v1/subscriptions` and in files.
    pub field: &'static str,
    /// The problem and what is allowed, as a text that follows the field's name.
    pub problem: String,
}

impl InvalidField {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}
