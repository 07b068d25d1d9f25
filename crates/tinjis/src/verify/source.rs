//! Where the judge's facts come from: the services' lists, page by page, or a file that somebody else read.
//! Knows routes and cursors; judges nothing.

use std::fmt;

use serde::Deserialize;
use uuid::Uuid;

use super::facts::{AttemptFact, InvoiceFact, LedgerRow};
use crate::http::{Api, CallError, segment};

/// Items of a page: the most that the services give.
pub(super) const PAGE: usize = 1000;

/// The most attempts of one invoice that are looked at again.
const ATTEMPTS_MAX: usize = 100;

/// What billing says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Deployment {
    /// Which store.
    pub(crate) deployment_id: String,
    /// Which ledger it settles with; `None` before the first keyed answer.
    pub(crate) ledger_id: Option<String>,
    /// How its invoices stand.
    pub(crate) counts: Counts,
    /// The unfinished run.
    pub(crate) unfinished_run: Option<i64>,
}

impl Deployment {
    /// What its keys are made of.
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        self.deployment_id.parse().ok()
    }
}

/// Invoices by state.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Counts {
    pub(crate) pending: u64,
    pub(crate) charging: u64,
    pub(crate) paid: u64,
    pub(crate) attention: u64,
}

impl Counts {
    pub(crate) fn all(&self) -> u64 {
        self.pending + self.charging + self.paid + self.attention
    }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<Cursor>,
    /// Only the ledger's pages have it.
    #[serde(default)]
    pub(crate) ledger_id: Option<String>,
}

/// Where the next page starts; text or a number, as the service likes.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cursor {
    /// Such as `17.2`.
    Text(String),
    /// Such as 17.
    Number(i64),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Billing over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct BillingApi(pub(crate) Api);

impl BillingApi {
    pub(crate) async fn deployment(&self) -> Result<Deployment, CallError> {
        self.0.get("/v1/deployment").await
    }

    pub(crate) async fn invoices(&self, after: Option<&Cursor>) -> Result<Page<InvoiceFact>, CallError> {
        self.0.get(&page("/v1/invoices", after, PAGE)).await
    }

    pub(crate) async fn attempts(&self, after: Option<&Cursor>) -> Result<Page<AttemptFact>, CallError> {
        self.0.get(&page("/v1/attempts", after, PAGE)).await
    }

    pub(crate) async fn invoice(&self, reference: &str) -> Result<Option<InvoiceFact>, CallError> {
        self.0.find(&format!("/v1/invoices/{}", segment(reference))).await
    }

    /// The journal of one invoice: the list's cursor is `invoice.number`.
    pub(crate) async fn attempts_of(&self, invoice_id: i64) -> Result<Vec<AttemptFact>, CallError> {
        let path = page("/v1/attempts", Some(&Cursor::Text(format!("{invoice_id}.0"))), ATTEMPTS_MAX);
        let mut page: Page<AttemptFact> = self.0.get(&path).await?;
        page.items.retain(|attempt| attempt.invoice_id == invoice_id);
        Ok(page.items)
    }
}

/// The provider's ledger over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct LedgerApi(pub(crate) Api);

impl LedgerApi {
    pub(crate) async fn rows(&self, after: Option<&Cursor>) -> Result<Page<LedgerRow>, CallError> {
        self.0.get(&page("/v1/ledger", after, PAGE)).await
    }

    /// The last place of the ledger, or one shortly behind it; by halving, because the list only goes forward.
    pub(crate) async fn last_seq(&self) -> Result<i64, CallError> {
        let is_behind_all = async |seq: i64| {
            let path = page("/v1/ledger", Some(&Cursor::Number(seq)), 1);
            let page: Page<LedgerRow> = self.0.get(&path).await?;
            Ok::<_, CallError>(page.items.is_empty())
        };
        let mut high = 1;
        while !is_behind_all(high).await? {
            high = high.saturating_mul(2);
        }
        let mut low = high / 2;
        while low < high {
            let middle = low + (high - low) / 2;
            if is_behind_all(middle).await? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(high)
    }

    pub(crate) async fn row(&self, key: &str) -> Result<Option<LedgerRow>, CallError> {
        self.0.find(&format!("/v1/ledger/{}", segment(key))).await
    }

    /// The row at a place: the list's cursor is the place before it.
    pub(crate) async fn row_at(&self, seq: i64) -> Result<Option<LedgerRow>, CallError> {
        let path = page("/v1/ledger", Some(&Cursor::Number(seq - 1)), 1);
        let page: Page<LedgerRow> = self.0.get(&path).await?;
        Ok(page.items.into_iter().find(|row| row.seq == seq))
    }
}

pub(super) fn page(list: &str, after: Option<&Cursor>, limit: usize) -> String {
    let after = after.map(|cursor| format!("&after={}", segment(&cursor.to_string()))).unwrap_or_default();
    format!("{list}?limit={limit}{after}")
}
