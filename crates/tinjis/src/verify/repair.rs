//! `verify --repair`: walks the provider's ledger from its first row and tells billing each page, before judging.
//! Knows the two routes; what a row changes is billing's to decide.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::source::{Cursor, LedgerApi, PAGE, page};
use super::watch::Watch;
use crate::http::{Api, CallError};
use crate::output::{grouped, note};

/// What is read of a page that is passed on as it came.
#[derive(Deserialize)]
struct Passed {
    next: Option<Cursor>,
}

/// Rows by what became of them.
#[derive(Default, Deserialize)]
struct Counts {
    known: u64,
    settled: u64,
    adopted: u64,
    conflicts: u64,
    unknown: u64,
}

/// Tells on standard error what was done: the verdict is the result.
pub(crate) async fn command(billing: &Api, payments: &Api) -> Result<(), CallError> {
    let mut done = Counts::default();
    let mut after = None;
    let watch = Watch::shown("repairing");
    watch.to_come(u64::try_from(LedgerApi(payments.clone()).last_seq().await?).unwrap_or_default());
    loop {
        let rows: Box<RawValue> = payments.get(&page("/v1/ledger", after.as_ref(), PAGE)).await?;
        let body = Bytes::copy_from_slice(rows.get().as_bytes());
        let counts: Counts = billing.post("/v1/repairs", "application/json", body).await?;
        done.known += counts.known;
        done.settled += counts.settled;
        done.adopted += counts.adopted;
        done.conflicts += counts.conflicts;
        done.unknown += counts.unknown;
        watch.page("the ledger", PAGE);
        after = serde_json::from_str::<Passed>(rows.get()).ok().and_then(|passed| passed.next);
        if after.is_none() {
            break;
        }
    }
    drop(watch);
    note(format_args!(
        "repaired: {} rows stood so already, {} settled what was open, {} had been forgotten, {} call a person, {} are \
         not of this deployment or name no invoice here",
        grouped(done.known),
        grouped(done.settled),
        grouped(done.adopted),
        grouped(done.conflicts),
        grouped(done.unknown),
    ));
    Ok(())
}
