//! `verify --repair`: sends the provider's ledger to billing, page by page from its first row, before verifying.
//! Knows the two routes; what a row changes is billing's to decide.

use api::billing::RepairReport;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::progress::ReadProgress;
use super::source::{Cursor, LedgerApi, page};
use crate::http::{Api, CallError, PAGE};
use crate::output::{grouped, note};

/// The fields that are read of a page; its bytes are passed on unchanged.
#[derive(Deserialize)]
struct Passed {
    next: Option<Cursor>,
}

/// Prints its counts on standard error: the result of the command is the verdict.
pub(crate) async fn command(billing: &Api, payments: &Api) -> Result<(), CallError> {
    let mut done = RepairReport::default();
    let mut after = None;
    let progress = ReadProgress::visible("repairing");
    progress.expect(u64::try_from(LedgerApi(payments.clone()).last_seq().await?).unwrap_or_default());
    loop {
        let rows: Box<RawValue> = payments.get(&page("/v1/ledger", after.as_ref(), PAGE)).await?;
        let body = Bytes::copy_from_slice(rows.get().as_bytes());
        let counts: RepairReport = billing.post("/v1/repairs", "application/json", body).await?;
        done.known += counts.known;
        done.settled += counts.settled;
        done.adopted += counts.adopted;
        done.conflicts += counts.conflicts;
        done.unknown += counts.unknown;
        progress.page("the ledger", PAGE);
        after = serde_json::from_str::<Passed>(rows.get()).ok().and_then(|passed| passed.next);
        if after.is_none() {
            break;
        }
    }
    drop(progress);
    note(format_args!(
        "repaired: {} rows were known, {} settled an open attempt, {} had been forgotten, {} contradict billing and need a \
         decision, {} are not of this deployment or name no invoice here",
        grouped(done.known),
        grouped(done.settled),
        grouped(done.adopted),
        grouped(done.conflicts),
        grouped(done.unknown),
    ));
    Ok(())
}
