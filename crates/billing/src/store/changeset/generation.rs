//! Decides the invoices for the due periods of a batch of subscriptions, and the next period of each subscription.
//! Pure; knows no SQL.

use jiff::civil::Date;

use crate::invoice::{BadReference, Reference};
use crate::schedule::Holidays;
use crate::schedule::calendar::periods;
use crate::subscription::{NextPeriod, Subscription};

/// An invoice to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueInvoice {
    pub reference: Reference,
    /// The position of its subscription in the batch.
    pub place: usize,
    pub amount_minor: i64,
    /// The instant of the due date, before any holiday's shift, in milliseconds since the Unix epoch.
    pub due_at: i64,
    /// The time from which it may be charged.
    pub charge_at: i64,
}

/// The result of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Generation {
    pub invoices: Vec<DueInvoice>,
    /// The subscriptions after the batch, in its order.
    pub advanced: Vec<Subscription>,
    /// The number of skipped periods.
    pub skipped: i64,
}

/// Why a subscription of a store cannot be invoiced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSubscription {
    /// The row says that the subscription is due, but it is not.
    #[error("subscription {0} is not due on {1}")]
    NotDue(String, Date),
    /// No price covers the date.
    #[error("subscription {0} has no price on {1}")]
    NoPrice(String, Date),
    /// The reference is too long for an appended date.
    #[error("subscription {0}: {1}")]
    Reference(String, BadReference),
}

/// Decides a batch of subscriptions whose next period is due on `on`. A period is skipped if the subscription's next
/// period is due too and its date is at most `latest_until`. A period after `latest_until` is not invoiced now, so that
/// it replaces none; without `latest_until` no period is skipped.
///
/// # Errors
/// When a subscription's row is wrong.
pub fn plan(
    batch: &[Subscription],
    on: Date,
    now_ms: i64,
    latest_until: Option<Date>,
    holidays: &Holidays,
) -> Result<Generation, BadSubscription> {
    let mut generation = Generation::default();
    for (place, subscription) in batch.iter().enumerate() {
        let name = || subscription.reference.as_str().to_owned();
        let following = NextPeriod::after(&subscription.terms, holidays, on);
        let is_skipped = latest_until
            .is_some_and(|until| following.is_some_and(|next| next.charge_at <= now_ms && next.on <= until));
        if is_skipped {
            generation.skipped += 1;
        } else {
            let period = periods(&subscription.terms, holidays, on, on).next();
            let period = period.ok_or_else(|| BadSubscription::NotDue(name(), on))?;
            let reference = subscription.invoice_reference(on);
            generation.invoices.push(DueInvoice {
                reference: reference.map_err(|error| BadSubscription::Reference(name(), error))?,
                place,
                amount_minor: subscription
                    .prices
                    .on(on)
                    .ok_or_else(|| BadSubscription::NoPrice(name(), on))?,
                due_at: period.instant.unix_ms(),
                charge_at: period.charge_instant.unix_ms(),
            });
        }
        generation.advanced.push(subscription.advanced(on, !is_skipped, holidays));
    }
    Ok(generation)
}
