//! `verify`: reads billing and the provider's ledger, and says whether anyone was charged twice or forgotten.
//! Must not know how either side stores anything; the judging itself is one pure function.

mod again;
mod books;
pub(crate) mod facts;
pub(crate) mod judge;
pub(crate) mod repair;
mod report;
mod source;
mod watch;

use facts::InvoiceFact;
use judge::{Attempts, Invoices};
use report::Verdict;
use source::{BillingApi, LedgerApi};

pub(crate) use judge::Kind;
pub(crate) use report::{Report, Verdict as VerifyVerdict};
pub(crate) use watch::Watch;

use crate::http::{Api, CallError};
use crate::output;

/// The side of who bills.
#[derive(Clone, Debug)]
pub(crate) enum Billing {
    /// Our service; may be at work.
    Service(Api),
    /// Somebody's own list, at rest and without a journal.
    List(Vec<InvoiceFact>),
}

/// The `verify` command.
pub(crate) async fn command(billing: Api, payments: Api, json: bool) -> anyhow::Result<u8> {
    let watch = Watch::shown("verifying");
    let report = verify(&Billing::Service(billing), payments, &watch).await;
    // The bar goes before the result comes.
    drop(watch);
    if json {
        // Whoever reads JSON gets some, also when nobody could look; why not is for people.
        output::result(report.as_ref().map_or_else(|_| Report::unknown().json(), Report::json));
    } else {
        report.iter().flat_map(Report::lines).for_each(output::result);
    }
    Ok(report?.verdict.code())
}

/// Reads both sides, judges, and looks at each finding again.
pub(crate) async fn verify(billing: &Billing, payments: Api, watch: &Watch) -> Result<Report, CallError> {
    let ledger = LedgerApi(payments);
    let (known, mut rows) = match billing {
        Billing::Service(api) => {
            let settled = ledger.last_seq().await?;
            let (known, attempts) = read_service(&BillingApi(api.clone()), settled, watch).await?;
            (Some(known), attempts.end(settled))
        }
        Billing::List(list) => (None, read_list(list).end(i64::MAX)),
    };
    let deployment = known.as_ref().and_then(source::Deployment::uuid);
    let mut ledger_id = None;
    let mut after = None;
    loop {
        let page = ledger.rows(after.as_ref()).await?;
        page.items.iter().for_each(|row| rows.row(row));
        watch.page("the ledger", page.items.len());
        ledger_id = page.ledger_id.or(ledger_id);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut run = false;
    let mut unseen = 0;
    let judgement = match billing {
        Billing::List(_) => rows.judgement(run),
        Billing::Service(api) => {
            let billing = BillingApi(api.clone());
            run = billing.deployment().await?.unfinished_run.is_some();
            let mut judgement = rows.judgement(run);
            unseen = again::look_again(&billing, &ledger, &mut judgement, deployment, watch).await?;
            judgement
        }
    };
    let mut report = Report {
        verdict: if judgement.is_right() { Verdict::Ok } else { Verdict::Wrong },
        deployment_id: known.as_ref().map(|known| known.deployment_id.clone()),
        ledger_id,
        run,
        judgement,
        remarks: Vec::new(),
    };
    if report.judgement.foreign > 0 {
        let text = format!("{} rows of the ledger are of other deployments", report.judgement.foreign);
        report.remarks.push(text);
    }
    doubts(&mut report, known.and_then(|known| known.ledger_id), unseen);
    Ok(report)
}

/// What makes a verdict worth less than it looks.
fn doubts(report: &mut Report, settled_with: Option<String>, unseen: u64) {
    if unseen > 0 && report.judgement.findings.is_empty() {
        report.verdict = Verdict::Unknown;
        let text = "too much changed while it was read to look at everything again: verify once no run is unfinished";
        report.remarks.push(text.to_owned());
    }
    if let (Some(expected), Some(found)) = (settled_with, &report.ledger_id)
        && expected != *found
    {
        let text = format!("billing settled with ledger {expected}, and this is ledger {found}");
        report.remarks.push(text);
        if report.verdict == Verdict::Ok {
            report.verdict = Verdict::Unknown;
        }
    }
}

/// `rows`: about so many has the ledger; nearly as many attempts has billing.
async fn read_service(
    billing: &BillingApi,
    rows: i64,
    watch: &Watch,
) -> Result<(source::Deployment, Attempts), CallError> {
    let rows = u64::try_from(rows).unwrap_or_default();
    let known = billing.deployment().await?;
    watch.to_come(known.counts.all() + 2 * rows);
    let room = usize::try_from(known.counts.all()).unwrap_or_default();
    let mut invoices = Invoices::with_room(room);
    let mut after = None;
    loop {
        let page = billing.invoices(after.as_ref()).await?;
        page.items.iter().for_each(|invoice| invoices.invoice(invoice));
        watch.page("invoices", page.items.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut attempts = invoices.end(known.uuid());
    loop {
        let page = billing.attempts(after.as_ref()).await?;
        page.items.iter().for_each(|attempt| attempts.attempt(attempt));
        watch.page("attempts", page.items.len());
        after = page.next;
        if after.is_none() {
            watch.to_come(rows);
            return Ok((known, attempts));
        }
    }
}

fn read_list(list: &[InvoiceFact]) -> Attempts {
    let mut invoices = Invoices::with_room(list.len());
    list.iter().for_each(|invoice| invoices.invoice(invoice));
    invoices.end(None)
}
