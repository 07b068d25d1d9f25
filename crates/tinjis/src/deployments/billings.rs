//! The target of an imported row: the deployment that has its reference already, else the one that the table names.
//! Knows two import routes and two look-up routes; knows no file and writes nothing.

use anyhow::bail;
use api::billing::ImportReport;
use billing::reference::Reference;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::de::IgnoredAny;

use super::bucket::subscription_of;
use super::table::Table;
use crate::http::{Api, CallError, encode_segment};
use crate::verify::BillingApi;

/// Maximum number of concurrent look-ups at one deployment.
const CONCURRENT_MAX: usize = 16;

/// What rows become: the route that imports them, and the one that shows one of them.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) import: &'static str,
    item: &'static str,
}

pub(crate) static INVOICES: Kind = Kind { import: "/v1/imports", item: "/v1/invoices" };
pub(crate) static SUBSCRIPTIONS: Kind =
    Kind { import: "/v1/subscriptions/imports", item: "/v1/subscriptions" };

/// A row in billing's import format.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) reference: Reference,
    /// The row as JSON, with its line break.
    pub(crate) json: Vec<u8>,
}

/// The billings that rows may go to.
#[derive(Clone, Debug)]
pub(crate) struct Billings {
    /// One API per deployment, in the order of the table.
    pub(crate) apis: Vec<Api>,
    /// `None` for a single billing.
    table: Option<Table>,
}

impl Billings {
    pub(crate) fn one(api: Api) -> Self {
        Self { apis: vec![api], table: None }
    }

    /// The billings of a table, one for each entry.
    pub(crate) fn of(table: Table, apis: Vec<Api>) -> Self {
        Self { apis, table: Some(table) }
    }

    /// Fails unless each billing answers with the deployment id in the table.
    pub(crate) async fn check_ids(&self) -> anyhow::Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let found = ids(&self.apis).await;
        let wrong = wrong_ids(table, &found);
        if !wrong.is_empty() {
            bail!("{}: correct the table; nothing was sent", wrong.join("; "));
        }
        found.into_iter().try_for_each(|found| found.map(drop)).map_err(|error| {
            anyhow::Error::from(error).context("nothing was sent: all deployments must be asked")
        })
    }

    /// For each row, the index of its billing. A deployment that has a reference keeps it, even if the table names
    /// another: a second invoice of a reference would be charged a second time.
    pub(crate) async fn places(&self, kind: &Kind, rows: &[Line]) -> Result<Vec<usize>, CallError> {
        let Some(table) = &self.table else { return Ok(vec![0; rows.len()]) };
        let by_table: Vec<usize> = rows.iter().map(|row| table.place(row.reference.as_str())).collect();
        let mut places = by_table.clone();
        for (place, api) in self.apis.iter().enumerate() {
            let others: Vec<usize> = (0..rows.len()).filter(|row| by_table[*row] != place).collect();
            let lines: Vec<&Line> = others.iter().map(|row| &rows[*row]).collect();
            for (row, is_known) in others.iter().zip(has_references(api, kind, &lines).await?) {
                if is_known {
                    places[*row] = place;
                }
            }
        }
        Ok(places)
    }
}

/// The deployment id of each billing, or the error of the call.
pub(crate) async fn ids(apis: &[Api]) -> Vec<Result<String, CallError>> {
    let ids = apis.iter().map(async |api| Ok(BillingApi(api.clone()).deployment().await?.deployment_id));
    stream::iter(ids).buffered(CONCURRENT_MAX).collect().await
}

/// Differences between the table and the billings that answered.
pub(crate) fn wrong_ids(table: &Table, found: &[Result<String, CallError>]) -> Vec<String> {
    let wrong = table.entries.iter().zip(found).filter_map(|(entry, found)| {
        let found = found.as_ref().ok()?;
        let is_right = found.parse() == Ok(entry.id);
        (!is_right).then(|| format!("{} is deployment {found}, and {} in the table", entry.billing, entry.id))
    });
    wrong.collect()
}

/// For each row, whether this billing has its reference.
async fn has_references(api: &Api, kind: &Kind, rows: &[&Line]) -> Result<Vec<bool>, CallError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let body: Vec<u8> = rows.iter().flat_map(|row| &row.json).copied().collect();
    let path = format!("{}?dry_run=true", kind.import);
    let report: ImportReport = api.post(&path, "application/x-ndjson", Bytes::from(body)).await?;
    let all = rows.len() as u64;
    let of_all = if report.unchanged == all {
        Some(true)
    } else {
        // Some rows may be known with other data, which billing refuses.
        (report.created == all).then_some(false)
    };
    let lookups = rows.iter().map(async |row| {
        let has = async |path: &str, reference: &str| -> Result<bool, CallError> {
            Ok(api.find::<IgnoredAny>(&format!("{path}/{}", encode_segment(reference))).await?.is_some())
        };
        let is_known = match of_all {
            Some(of_all) => of_all,
            None => has(kind.item, row.reference.as_str()).await?,
        };
        // The schedule of that subscription will make this invoice.
        match subscription_of(row.reference.as_str()).filter(|_| !is_known) {
            Some(subscription) => has(SUBSCRIPTIONS.item, subscription).await,
            None => Ok(is_known),
        }
    });
    stream::iter(lookups).buffered(CONCURRENT_MAX).try_collect().await
}
