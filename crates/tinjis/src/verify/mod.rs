//! `verify`: reads billing and the provider's ledger, and reports whether a customer was charged twice or an invoice
//! was forgotten. Reads and reports; the library `reconcile` compares. Must not know how either side stores its data.

pub(crate) mod acknowledge;
mod across;
pub(crate) mod all;
mod blocks;
mod progress;
mod recheck;
pub(crate) mod repair;
mod report;
mod source;

use acknowledge::Acknowledged;
use across::Observer;
use blocks::Blocks;
use futures_util::{StreamExt, TryStreamExt, stream};
use recheck::{CONCURRENT_MAX, Recheck};
use reconcile::{
    InvoiceFact, InvoicePhase, LedgerContext, LedgerRow, Partitioned, PartitionedAttempts,
    PartitionedInvoices,
};
use report::Verdict;
use source::{Deployment, KeyLookup, LedgerApi};

pub(crate) use progress::ReadProgress;
pub(crate) use report::{Report, Verdict as VerifyVerdict};
pub(crate) use source::BillingApi;

use crate::http::{Api, CallError};
use crate::output::{self, grouped};

/// Maximum number of open attempts whose key is looked up in the ledger, because its list shows no row for them.
const KEYS_ASKED_MAX: usize = 10_000;

/// The source of invoices and attempts.
#[derive(Clone, Debug)]
pub(crate) enum Billing {
    /// Our service; a run may be unfinished.
    Service(Api),
    /// A list from another system that does not change and has no journal.
    List(Vec<InvoiceFact>),
}

pub(crate) async fn command(billing: Api, payments: Api, json: bool) -> anyhow::Result<u8> {
    let progress = ReadProgress::visible("verifying");
    let report = verify(&Billing::Service(billing), payments, &progress).await;
    // The progress bar ends before the result is printed.
    drop(progress);
    if json {
        // A reader of JSON gets an object even when a side could not be read; the reason is on standard error.
        output::result(report.as_ref().map_or_else(|_| Report::unknown().json(), Report::json));
    } else {
        report.iter().flat_map(Report::lines).for_each(output::result);
    }
    Ok(report?.verdict.code())
}

/// Reads both sides, compares them, and checks each finding again.
pub(crate) async fn verify(
    billing: &Billing,
    payments: Api,
    progress: &ReadProgress,
) -> anyhow::Result<Report> {
    let ledger = LedgerApi(payments);
    match billing {
        Billing::Service(api) => verify_service(&BillingApi(api.clone()), &ledger, progress, None).await,
        Billing::List(list) => verify_list(list, &ledger, progress).await,
    }
}

async fn verify_service(
    billing: &BillingApi,
    ledger: &LedgerApi,
    progress: &ReadProgress,
    mut observer: Option<Observer<'_, '_>>,
) -> anyhow::Result<Report> {
    let ledger_id = ledger.id().await?;
    let last_seq_before_billing = ledger.last_seq().await?;
    let (before, attempts) =
        read_billing(billing, last_seq_before_billing, progress, observer.as_mut()).await?;
    let acknowledged = Acknowledged::read(billing, ledger_id.as_deref()).await?;
    let mut rows = attempts.into_ledger(acknowledged.context(last_seq_before_billing))?;
    let add = |row: &LedgerRow| {
        observer.as_mut().map_or(Ok(()), |observer| observer.row(row))?;
        Ok(rows.add(row)?)
    };
    let is_one_ledger = read_ledger(ledger, ledger_id.as_ref(), add, progress).await?;
    let mut all = rows.into_partitions(KEYS_ASKED_MAX)?;
    let all_keys_asked = ask_for_open_keys(ledger, &mut all).await?;
    // Read last: billing stores the ledger id before it trusts its first response.
    let deployment = billing.deployment().await?;
    let run_is_unfinished = deployment.unfinished_run.is_some();
    let mut result = all.finish(run_is_unfinished)?;
    let recheck = Recheck { billing, ledger, deployment: before.uuid(), acknowledged: &acknowledged };
    let unchecked = recheck.run(&mut result, progress).await?;
    let proof = Proof {
        ledger_id: ledger_id.as_deref(),
        settled_with: deployment.ledger_id.as_deref(),
        has_charged: result.confirmed > 0,
        is_one_ledger,
        all_keys_asked: all_keys_asked || run_is_unfinished,
        unchecked,
    };
    let (verdict, mut remarks) = proof.verdict(result.is_ok(), !result.findings.is_empty());
    if result.foreign > 0 {
        remarks.push(format!("{} rows of the ledger are of other deployments", grouped(result.foreign)));
    }
    Ok(Report {
        verdict,
        deployment_id: Some(deployment.deployment_id),
        ledger_id,
        run: run_is_unfinished,
        result,
        remarks,
    })
}

async fn verify_list(
    list: &[InvoiceFact],
    ledger: &LedgerApi,
    progress: &ReadProgress,
) -> anyhow::Result<Report> {
    let mut phase = InvoicePhase::with_capacity(list.len());
    list.iter().for_each(|invoice| phase.add(invoice));
    let context = LedgerContext { last_seq_before_billing: i64::MAX, ..LedgerContext::default() };
    let mut phase = phase.into_attempts(None).into_ledger(context);
    let ledger_id = ledger.id().await?;
    let add = |row: &LedgerRow| {
        phase.add(row);
        Ok(())
    };
    read_ledger(ledger, ledger_id.as_ref(), add, progress).await?;
    let result = phase.finish(false);
    let verdict = if result.is_ok() { Verdict::Ok } else { Verdict::Wrong };
    Ok(Report { verdict, deployment_id: None, ledger_id, run: false, result, remarks: Vec::new() })
}

/// Facts that decide whether a verdict is proven, besides the findings.
struct Proof<'a> {
    ledger_id: Option<&'a str>,
    /// The ledger id that billing has stored.
    settled_with: Option<&'a str>,
    /// Whether billing has charges that this ledger confirms.
    has_charged: bool,
    /// Whether each page named the same ledger.
    is_one_ledger: bool,
    /// Whether each open attempt without a row was looked up by its key.
    all_keys_asked: bool,
    /// Number of findings that are counted but were not checked again.
    unchecked: u64,
}

impl Proof<'_> {
    /// The verdict, and why it is not `ok`. A wrong result stays wrong; an unproven result is not `ok`.
    fn verdict(&self, is_ok: bool, has_named_findings: bool) -> (Verdict, Vec<String>) {
        let mut reasons = Vec::new();
        match (self.settled_with, self.ledger_id) {
            (_, None) => reasons.push("the ledger does not say which ledger it is".to_owned()),
            (Some(expected), Some(found)) if expected != found => {
                reasons.push(format!("billing settled with ledger {expected}, and this is ledger {found}"));
            }
            (None, Some(found)) if self.has_charged => reasons.push(format!(
                "billing has charged and does not remember the ledger it settled with: if {found} is the one, \
                 tinjis resolve --accept-ledger {found}"
            )),
            _ => {}
        }
        if !self.is_one_ledger {
            reasons.push("the ledger was replaced while it was read: verify again".to_owned());
        }
        if !self.all_keys_asked {
            let max = grouped(KEYS_ASKED_MAX as i64);
            reasons
                .push(format!("more than {max} open attempts have no row in the ledger: `tinjis pay` first"));
        }
        if self.unchecked > 0 && !has_named_findings {
            reasons.push(
                "too much changed while it was read to check every finding again: verify once no run is unfinished"
                    .to_owned(),
            );
            return (Verdict::Unknown, reasons);
        }
        let verdict = match (is_ok, reasons.is_empty()) {
            (false, _) => Verdict::Wrong,
            (true, true) => Verdict::Ok,
            (true, false) => Verdict::Unknown,
        };
        (verdict, reasons)
    }
}

/// `rows`: approximate number of rows in the ledger; billing has nearly as many attempts.
async fn read_billing(
    billing: &BillingApi,
    rows: i64,
    progress: &ReadProgress,
    mut observer: Option<&mut Observer<'_, '_>>,
) -> anyhow::Result<(Deployment, PartitionedAttempts<Blocks>)> {
    let rows = u64::try_from(rows).unwrap_or_default();
    let deployment = billing.deployment().await?;
    progress.expect(deployment.counts.total() + 2 * rows);
    let mut invoices = PartitionedInvoices::new(Blocks::new());
    billing
        .invoices(|page| {
            progress.page("invoices", page.len());
            page.iter().try_for_each(|invoice| {
                observer.as_mut().map_or(Ok(()), |observer| observer.invoice(invoice))?;
                anyhow::Ok(invoices.add(invoice)?)
            })
        })
        .await?;
    let mut attempts = invoices.into_attempts(deployment.uuid());
    billing
        .attempts(|page| {
            progress.page("attempts", page.len());
            page.iter().try_for_each(|attempt| anyhow::Ok(attempts.add(attempt)?))
        })
        .await?;
    progress.expect(rows);
    Ok((deployment, attempts))
}

/// Returns whether each page named the ledger that was read first.
async fn read_ledger(
    ledger: &LedgerApi,
    ledger_id: Option<&String>,
    mut add: impl FnMut(&LedgerRow) -> anyhow::Result<()>,
    progress: &ReadProgress,
) -> anyhow::Result<bool> {
    let mut is_one_ledger = true;
    ledger
        .rows(|page| {
            is_one_ledger &= page.ledger_id.as_ref() == ledger_id;
            progress.page("the ledger", page.items.len());
            page.items.iter().try_for_each(&mut add)
        })
        .await?;
    Ok(is_one_ledger)
}

/// Looks up each open attempt that the ledger's list does not show: the list shows this account's rows only, and a key
/// of another account blocks the attempt for ever. Returns whether all were looked up.
async fn ask_for_open_keys(ledger: &LedgerApi, all: &mut Partitioned<Blocks>) -> Result<bool, CallError> {
    let (keys, has_more) = all.open_keys_not_in_ledger();
    let asked = keys.iter().map(|key| async move {
        let is_taken = matches!(ledger.by_key(key).await?, KeyLookup::OtherAccount);
        Ok::<_, CallError>(is_taken.then(|| key.clone()))
    });
    let taken: Vec<Option<String>> = stream::iter(asked).buffered(CONCURRENT_MAX).try_collect().await?;
    taken.iter().flatten().for_each(|key| all.key_taken(key));
    Ok(!has_more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stays_wrong_and_what_is_not_proven_is_unknown() {
        let proven = || Proof {
            ledger_id: Some("L"),
            settled_with: Some("L"),
            has_charged: true,
            is_one_ledger: true,
            all_keys_asked: true,
            unchecked: 0,
        };
        let unproven: [fn(&mut Proof<'_>); 5] = [
            |proof| proof.ledger_id = None,
            |proof| proof.settled_with = None,
            |proof| proof.settled_with = Some("another"),
            |proof| proof.is_one_ledger = false,
            |proof| proof.all_keys_asked = false,
        ];
        assert_eq!(proven().verdict(true, false), (Verdict::Ok, Vec::new()));
        assert_eq!(proven().verdict(false, true).0, Verdict::Wrong);
        for change in unproven {
            let mut proof = proven();
            change(&mut proof);
            let (verdict, reasons) = proof.verdict(true, false);
            assert_eq!((verdict, reasons.len()), (Verdict::Unknown, 1), "{reasons:?}");
            assert_eq!(proof.verdict(false, true).0, Verdict::Wrong);
        }
        let new = Proof { settled_with: None, has_charged: false, ..proven() };
        assert_eq!(new.verdict(true, false), (Verdict::Ok, Vec::new()), "nothing was charged yet");
        let unchecked = Proof { unchecked: 1, ..proven() };
        assert_eq!(unchecked.verdict(false, false).0, Verdict::Unknown);
        assert_eq!(unchecked.verdict(false, true).0, Verdict::Wrong);
    }
}
