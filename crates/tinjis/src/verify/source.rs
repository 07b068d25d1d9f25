//! The source of a verification's facts: the lists of both services, read page by page to the end. Knows routes,
//! cursors and the order that each list promises; judges nothing.

use std::fmt;

use api::billing::{AcknowledgementRequest, UnbackedAcknowledgementRequest};
use http::StatusCode;
use reconcile::{Acknowledgement, AttemptFact, InvoiceFact, LedgerRow, UnbackedAcknowledgement};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::{AUDIT_PAGE, Api, CallError, PAGE, encode_segment};

/// Billing's description of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Deployment {
    pub(crate) deployment_id: String,
    /// The ledger that billing settles with; `None` before the first keyed response.
    pub(crate) ledger_id: Option<String>,
    /// Invoices by state.
    pub(crate) counts: Counts,
    pub(crate) unfinished_run: Option<i64>,
}

impl Deployment {
    /// The id from which keys are derived.
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
    pub(crate) fn total(&self) -> u64 {
        self.pending + self.charging + self.paid + self.attention
    }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<Cursor>,
    /// The ledger's id; only pages of the ledger have it.
    #[serde(default)]
    pub(crate) ledger_id: Option<String>,
}

/// The start of the next page: text or a number, depending on the service.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cursor {
    /// For example `17.2`.
    Text(String),
    /// For example 17.
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

/// Items of a page of one invoice's attempts: mostly one is there, and the page after it is other invoices'.
const ATTEMPTS_OF_INVOICE: usize = 8;

/// A list, and the position that grows with each of its items.
struct List<T> {
    path: &'static str,
    position: fn(&T) -> (i64, i64),
}

const INVOICES: List<InvoiceFact> = List { path: "/v1/invoices", position: |invoice| (invoice.id, 0) };
const ATTEMPTS: List<AttemptFact> =
    List { path: "/v1/attempts", position: |attempt| (attempt.invoice_id, attempt.number.into()) };
const LEDGER: List<LedgerRow> = List { path: "/v1/ledger", position: |row| (row.seq, 0) };
const ACKNOWLEDGEMENTS: &str = "/v1/ledger/acknowledgements";
const UNBACKED_ACKNOWLEDGEMENTS: &str = "/v1/ledger/unbacked-acknowledgements";

/// Reads a list from a cursor until `each` has enough. A list whose positions do not increase may be incomplete, and
/// could be endless: that is an error, never a verdict.
async fn read<T: DeserializeOwned, E: From<CallError>>(
    api: &Api,
    list: &List<T>,
    from: Option<Cursor>,
    page_size: usize,
    mut each: impl FnMut(Page<T>) -> Result<bool, E>,
) -> Result<(), E> {
    let mut after = from;
    let mut last = None;
    loop {
        let mut page: Page<T> = api.get(&page(list.path, after.as_ref(), page_size)).await?;
        for item in &page.items {
            let position = (list.position)(item);
            if last.is_some_and(|last| position <= last) {
                let why = format!("its items are out of order: {position:?} comes after {last:?}");
                return Err(invalid_response(api, list.path, why).into());
            }
            last = Some(position);
        }
        after = page.next.take();
        if after.is_some() && page.items.is_empty() {
            return Err(invalid_response(api, list.path, "an empty page has a successor".to_owned()).into());
        }
        if !each(page)? || after.is_none() {
            return Ok(());
        }
    }
}

fn invalid_response(api: &Api, path: &str, why: String) -> CallError {
    CallError::Strange { url: format!("{}{path}", api.base()), why }
}

/// Billing over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct BillingApi(pub(crate) Api);

impl BillingApi {
    pub(crate) async fn deployment(&self) -> Result<Deployment, CallError> {
        self.0.get("/v1/deployment").await
    }

    pub(crate) async fn invoices<E: From<CallError>>(
        &self,
        mut each: impl FnMut(&[InvoiceFact]) -> Result<(), E>,
    ) -> Result<(), E> {
        read(&self.0, &INVOICES, None, PAGE, |page| each(&page.items).map(|()| true)).await
    }

    pub(crate) async fn attempts<E: From<CallError>>(
        &self,
        mut each: impl FnMut(&[AttemptFact]) -> Result<(), E>,
    ) -> Result<(), E> {
        read(&self.0, &ATTEMPTS, None, PAGE, |page| each(&page.items).map(|()| true)).await
    }

    pub(crate) async fn invoice(&self, reference: &str) -> Result<Option<InvoiceFact>, CallError> {
        self.0.find(&format!("/v1/invoices/{}", encode_segment(reference))).await
    }

    /// The whole journal of one invoice: the list's cursor is `invoice.number`.
    pub(crate) async fn attempts_of(&self, invoice_id: i64) -> Result<Vec<AttemptFact>, CallError> {
        let mut attempts = Vec::new();
        let from = Some(Cursor::Text(format!("{invoice_id}.0")));
        read(&self.0, &ATTEMPTS, from, ATTEMPTS_OF_INVOICE, |page| {
            let before = attempts.len() + page.items.len();
            attempts.extend(page.items.into_iter().filter(|attempt| attempt.invoice_id == invoice_id));
            Ok::<_, CallError>(attempts.len() == before)
        })
        .await?;
        Ok(attempts)
    }

    /// Ledger rows that operators have acknowledged. A billing of an older version has none.
    pub(crate) async fn acknowledgements(&self) -> Result<Vec<Acknowledgement>, CallError> {
        self.records(ACKNOWLEDGEMENTS).await
    }

    /// Invoices whose charge a ledger has lost, as operators have acknowledged. A billing of an older version has none.
    pub(crate) async fn unbacked_acknowledgements(&self) -> Result<Vec<UnbackedAcknowledgement>, CallError> {
        self.records(UNBACKED_ACKNOWLEDGEMENTS).await
    }

    /// A list of operators' records; empty where billing does not have the route.
    async fn records<T: DeserializeOwned>(&self, list: &str) -> Result<Vec<T>, CallError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let path = page(list, after.as_ref(), AUDIT_PAGE);
            let Some(page) = self.0.find::<Page<T>>(&path).await? else { return Ok(all) };
            let is_empty = page.items.is_empty();
            all.extend(page.items);
            after = page.next;
            if after.is_none() || is_empty {
                return Ok(all);
            }
        }
    }

    pub(super) async fn acknowledge(&self, request: &AcknowledgementRequest) -> Result<(), CallError> {
        self.record(ACKNOWLEDGEMENTS, request).await
    }

    pub(super) async fn acknowledge_unbacked(
        &self,
        request: &UnbackedAcknowledgementRequest,
    ) -> Result<(), CallError> {
        self.record(UNBACKED_ACKNOWLEDGEMENTS, request).await
    }

    async fn record(&self, list: &str, request: &impl Serialize) -> Result<(), CallError> {
        let body = serde_json::to_vec(request).expect("texts and numbers make JSON");
        let _recorded: serde_json::Value = self.0.post(list, "application/json", body.into()).await?;
        Ok(())
    }
}

/// The ledger's answer for a key.
#[derive(Debug)]
pub(crate) enum KeyLookup {
    Row(LedgerRow),
    Absent,
    /// The row belongs to another account, so its content is not shown.
    OtherAccount,
}

/// The provider's ledger over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct LedgerApi(pub(crate) Api);

impl LedgerApi {
    /// The id of the ledger.
    pub(crate) async fn id(&self) -> Result<Option<String>, CallError> {
        let page: Page<LedgerRow> = self.0.get(&page(LEDGER.path, None, 1)).await?;
        Ok(page.ledger_id)
    }

    pub(crate) async fn rows<E: From<CallError>>(
        &self,
        mut each: impl FnMut(&Page<LedgerRow>) -> Result<(), E>,
    ) -> Result<(), E> {
        read(&self.0, &LEDGER, None, PAGE, |page| each(&page).map(|()| true)).await
    }

    /// The last row of the ledger, or one shortly before it; found by bisection, because the list can only be read
    /// forward.
    pub(crate) async fn last_seq(&self) -> Result<i64, CallError> {
        let is_behind_all = async |seq: i64| {
            let path = page(LEDGER.path, Some(&Cursor::Number(seq)), 1);
            let page: Page<LedgerRow> = self.0.get(&path).await?;
            Ok::<_, CallError>(page.items.is_empty())
        };
        let mut high = 1_i64;
        while high < i64::MAX && !is_behind_all(high).await? {
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

    /// The row under a key. `Absent` also for a text that is no valid key.
    pub(crate) async fn by_key(&self, key: &str) -> Result<KeyLookup, CallError> {
        const OTHER_ACCOUNT: &str = "urn:tinjis:problem:key-foreign";
        match self.0.get(&format!("{}/{}", LEDGER.path, encode_segment(key))).await {
            Ok(row) => Ok(KeyLookup::Row(row)),
            Err(CallError::Refused { status: StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST, .. }) => {
                Ok(KeyLookup::Absent)
            }
            Err(CallError::Refused { problem, .. }) if problem == OTHER_ACCOUNT => {
                Ok(KeyLookup::OtherAccount)
            }
            Err(error) => Err(error),
        }
    }

    /// The row with this number: the list's cursor is the number before it.
    pub(crate) async fn row_at(&self, seq: i64) -> Result<Option<LedgerRow>, CallError> {
        let path = page(LEDGER.path, Some(&Cursor::Number(seq.saturating_sub(1))), 1);
        let page: Page<LedgerRow> = self.0.get(&path).await?;
        Ok(page.items.into_iter().find(|row| row.seq == seq))
    }
}

pub(super) fn page(list: &str, after: Option<&Cursor>, limit: usize) -> String {
    let after =
        after.map(|cursor| format!("&after={}", encode_segment(&cursor.to_string()))).unwrap_or_default();
    format!("{list}?limit={limit}{after}")
}
