//! Which periods a subscription has, at which instant each is due, and at which price. Pure: must not know a store,
//! HTTP or the present time; a caller asks about a range of dates.

pub mod calendar;
pub mod holidays;
pub mod prices;
pub mod run;
pub mod zone;

pub use calendar::{AnchorDay, EveryMonths, HolidayRule, Notes, Period, Terms, first_due, periods};
pub use holidays::{BadHolidays, Holidays};
pub use prices::{Price, Prices};
pub use zone::{LocalInstant, Zone, zone_data_version};

/// A field of a subscription that cannot be taken: which, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidField {
    /// The field's name in `/v1/subscriptions` and in files.
    pub field: &'static str,
    /// What is wrong with it, to be read after the field's name.
    pub problem: String,
}

impl InvalidField {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}
