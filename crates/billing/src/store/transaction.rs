//! The steps of each transaction that changes attempts or invoices, once for every database: load facts, decide by
//! `changeset`, apply. Each database implements the primitives. Knows no SQL.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::time::Duration;

use chassis::crash_point;

use super::changeset::control::{self as rules, CustomerControl, CustomerFacts};
use super::changeset::dunning::{self, HeldBack, LadderFacts, Postponed, retain_allowed};
use super::changeset::import::{self, ImportPlan, KnownRows};
use super::changeset::{
    self, Changeset, CustomersAndAmounts, LoadedFacts, Owner, RepairFacts, ResolutionAudit, SendTimes,
};
use crate::invoice::{Attempt, AttemptState, CustomerId, Dunning, InvoiceId, Network, Reference, RunId};
use crate::money::Money;
use crate::protocol::dunning::InstrumentHistory;
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::Settlement;
use crate::run_order::{RunFilter, RunLimits};
use crate::store::control::{CHARGING, Controlled, CustomerAction, InvoiceAction, OperatorNote, START, STOP};
use crate::store::located::{Located, Wanted};
use crate::store::{
    BATCH_MAX, ClaimedPending, Evidence, ImportMode, ImportRow, Imported, LedgerFact, LedgerSeen, Repaired,
    Resolution, Resolved, Settled,
};

/// An open transaction. The rows that it loads do not change until it ends; each write checks the number of changed
/// rows.
pub(super) trait Transaction {
    /// The error of the database.
    type Error;

    /// The rows of those attempts that are stored.
    fn locate(&self, wanted: &[Wanted<'_>])
    -> impl Future<Output = Result<Vec<Located>, Self::Error>> + Send;

    /// Facts of the attempts with these keys, and of the invoices with these references.
    fn load_facts(
        &self,
        located: &[Located],
        references: &[&Reference],
    ) -> impl Future<Output = Result<LoadedFacts, Self::Error>> + Send;

    /// The invoices with these references, by their text.
    fn load_owners(
        &self,
        references: &[&Reference],
    ) -> impl Future<Output = Result<HashMap<String, Owner>, Self::Error>> + Send;

    /// The times of this attempt's sends, read after its facts.
    fn load_send_times(
        &self,
        located: &Located,
    ) -> impl Future<Output = Result<Option<SendTimes>, Self::Error>> + Send;

    fn load_customers_and_amounts(
        &self,
        located: &[Located],
    ) -> impl Future<Output = Result<HashMap<Key, CustomersAndAmounts>, Self::Error>> + Send;

    /// The customers and invoices that the rows name.
    fn load_known(
        &self,
        rows: &[ImportRow],
        for_update: bool,
    ) -> impl Future<Output = Result<KnownRows, Self::Error>> + Send;

    /// The order of a run, with the rest of its limits, which no other transaction changes until this one ends; `None`
    /// when the run is finished.
    fn load_order(&self, run: RunId) -> impl Future<Output = Result<Option<ClaimOrder>, Self::Error>> + Send;

    fn save_limits(
        &self,
        run: RunId,
        limits: &RunLimits,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// PENDING invoices after `claim.after`, by id, at most `claim.window`, that the run has not attempted yet and that
    /// its filter admits.
    fn load_candidates(
        &self,
        claim: &PendingClaim,
        order: &ClaimOrder,
    ) -> impl Future<Output = Result<Candidates, Self::Error>> + Send;

    /// Inserts first sends and sets their times; returns those that the unique indexes accept.
    fn insert_attempts(
        &self,
        attempts: Vec<Attempt>,
    ) -> impl Future<Output = Result<Vec<Attempt>, Self::Error>> + Send;

    /// Instruments of those candidates' customers whose network is known. No other claim counts their attempts until
    /// this transaction ends.
    fn load_instruments(
        &self,
        customers: &BTreeSet<CustomerId>,
        now_ms: i64,
    ) -> impl Future<Output = Result<HashMap<CustomerId, InstrumentHistory>, Self::Error>> + Send;

    /// Ladders of those of the invoices that are PENDING.
    fn load_ladders(
        &self,
        invoices: &BTreeSet<InvoiceId>,
    ) -> impl Future<Output = Result<BTreeMap<InvoiceId, LadderFacts>, Self::Error>> + Send;

    /// Sets the flag and the date of PENDING invoices.
    fn postpone(&self, postponed: &[Postponed]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Leases due open attempts, oldest lease first; an unreadable one is leased and left out.
    fn lease_due(&self, limit: usize) -> impl Future<Output = Result<Vec<Attempt>, Self::Error>> + Send;

    /// The number and the hold of the invoice with this reference, for an operator's action.
    fn load_hold(
        &self,
        reference: &Reference,
    ) -> impl Future<Output = Result<Option<(InvoiceId, bool)>, Self::Error>> + Send;

    /// The customer; no claim runs at the same time as this transaction once this has returned.
    fn load_customer(
        &self,
        customer: CustomerId,
    ) -> impl Future<Output = Result<Option<CustomerFacts>, Self::Error>> + Send;

    fn hold_invoice(
        &self,
        invoice: InvoiceId,
        held: bool,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn hold_customer(
        &self,
        customer: CustomerId,
        held: bool,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn change_instrument(&self, customer: CustomerId)
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The customer's invoices that satisfy `rows::IS_RETRIED`.
    fn load_retried(
        &self,
        customer: CustomerId,
    ) -> impl Future<Output = Result<BTreeSet<InvoiceId>, Self::Error>> + Send;

    fn set_network(
        &self,
        customer: CustomerId,
        network: Network,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Stops or starts all charging; returns whether this changed anything. No claim runs at the same time as a stop.
    fn set_halt(
        &self,
        halts: bool,
        note: &OperatorNote,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    fn record_action(
        &self,
        action: &str,
        subject: &str,
        note: &OperatorNote,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn insert_audit(
        &self,
        resolution: &Resolution,
        invoice: InvoiceId,
        audit: ResolutionAudit,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Remembers the last row seen of a ledger, which never decreases. Called after every other counter.
    fn see(&self, seen: &LedgerSeen) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn apply(&self, changes: &Changeset) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn apply_import(&self, plan: &ImportPlan<'_>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// The parameters of a run's claim of PENDING invoices.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingClaim {
    pub(super) deployment: DeploymentId,
    pub(super) run: RunId,
    pub(super) after: InvoiceId,
    pub(super) limit: usize,
    /// The most invoices that one transaction examines.
    pub(super) window: usize,
}

/// The order of a run and the present time.
#[derive(Clone, Debug)]
pub(super) struct ClaimOrder {
    pub(super) filter: RunFilter,
    pub(super) limits: RunLimits,
    /// The present time, in milliseconds since the Unix epoch.
    pub(super) now_ms: i64,
}

/// A PENDING invoice and the number of its next attempt.
pub(super) struct Candidate {
    pub(super) id: InvoiceId,
    pub(super) reference: Reference,
    pub(super) customer_id: CustomerId,
    pub(super) money: Money,
    pub(super) number: u32,
    pub(super) next_attempt_at: Option<i64>,
    pub(super) dunning: Option<Dunning>,
}

/// PENDING invoices that can be claimed.
pub(super) struct Candidates {
    pub(super) invoices: Vec<Candidate>,
    /// The last invoice that was examined, unless none is left after it.
    pub(super) examined: Option<InvoiceId>,
}

/// The result of one claiming transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Claimed {
    pub(super) attempts: Vec<Attempt>,
    /// The invoice after which to continue when nothing was claimed; `None` when nothing is left.
    pub(super) continue_after: Option<InvoiceId>,
    /// The same as in [`ClaimedPending`].
    pub(super) waiting_from: Option<InvoiceId>,
}

/// The factor by which the window grows after one in which nothing could be claimed, such as many invoices of a
/// customer with an open attempt. Otherwise a claim of one invoice would examine them one by one.
const WINDOW_GROWTH: usize = 4;

impl PendingClaim {
    pub(super) fn new(deployment: DeploymentId, run: RunId, after: InvoiceId, limit: usize) -> Self {
        let limit = limit.min(BATCH_MAX);
        Self { deployment, run, after, limit, window: limit }
    }

    /// Claims, one transaction at a time, until something is claimed or nothing is left.
    pub(super) async fn repeat<F, Fut, E>(mut self, claim: F) -> Result<ClaimedPending, E>
    where
        F: Fn(Self) -> Fut + Send,
        Fut: Future<Output = Result<Claimed, E>> + Send,
    {
        let mut waiting_from = None;
        loop {
            let claimed = claim(self).await?;
            waiting_from = waiting_from.or(claimed.waiting_from);
            let Some(examined) = claimed.continue_after else {
                return Ok(ClaimedPending { attempts: claimed.attempts, waiting_from });
            };
            self.after = examined;
            self.window = (self.window * WINDOW_GROWTH).min(BATCH_MAX);
        }
    }
}

pub(super) async fn claim_pending<T: Transaction>(tx: &T, claim: PendingClaim) -> Result<Claimed, T::Error> {
    let Some(mut order) = tx.load_order(claim.run).await? else { return Ok(Claimed::default()) };
    if order.limits.is_used_up() {
        return Ok(Claimed::default());
    }
    let (Candidates { invoices, examined }, HeldBack { postponed, waiting_from }) =
        examine(tx, &claim, &mut order).await?;
    if !order.limits.is_unlimited() {
        tx.save_limits(claim.run, &order.limits).await?;
    }
    let attempts = invoices.into_iter().map(|invoice| first_send(invoice, &claim)).collect();
    let attempts = tx.insert_attempts(attempts).await?;
    tx.apply(&changeset::claim(claim.run, &attempts)).await?;
    tx.postpone(&postponed).await?;
    crash_point!("K1");
    let continue_after = examined.filter(|_| attempts.is_empty());
    Ok(Claimed { attempts, continue_after, waiting_from })
}

/// The claimable candidates of the next window, and those that are held back.
async fn examine<T: Transaction>(
    tx: &T,
    claim: &PendingClaim,
    order: &mut ClaimOrder,
) -> Result<(Candidates, HeldBack), T::Error> {
    let mut candidates = tx.load_candidates(claim, order).await?;
    let customers = candidates.invoices.iter().map(|invoice| invoice.customer_id).collect();
    let instruments = tx.load_instruments(&customers, order.now_ms).await?;
    let held_back =
        retain_allowed(&mut candidates.invoices, instruments, &mut order.limits, claim.limit, order.now_ms);
    Ok((candidates, held_back))
}

/// Whether the run may claim one of the candidates, now or once an attempt under way is settled. Changes nothing.
pub(super) async fn has_claimable_left<T: Transaction>(
    tx: &T,
    mut claim: PendingClaim,
) -> Result<bool, T::Error> {
    let Some(mut order) = tx.load_order(claim.run).await? else { return Ok(false) };
    while !order.limits.is_used_up() {
        let (Candidates { invoices, examined }, held_back) = examine(tx, &claim, &mut order).await?;
        if !invoices.is_empty() || held_back.waiting_from.is_some() {
            return Ok(true);
        }
        let Some(examined) = examined else { break };
        claim.after = examined;
    }
    Ok(false)
}

fn first_send(invoice: Candidate, claim: &PendingClaim) -> Attempt {
    Attempt {
        key: Key::new(claim.deployment, &invoice.reference, invoice.number),
        invoice_id: invoice.id,
        reference: invoice.reference,
        number: invoice.number,
        customer_id: invoice.customer_id,
        money: invoice.money,
        state: AttemptState::Intent,
        sends: 1,
        run_id: claim.run,
        lease_until: 0,
        created_at: 0,
        settled_at: None,
        decline: None,
    }
}

pub(super) async fn claim_open<T: Transaction>(
    tx: &T,
    run: Option<RunId>,
    limit: usize,
) -> Result<Claimed, T::Error> {
    let attempts = tx.lease_due(limit).await?;
    tx.apply(&changeset::resend(run, attempts.len())).await?;
    crash_point!("K1");
    Ok(Claimed { attempts, ..Claimed::default() })
}

pub(super) async fn settle<T: Transaction>(
    tx: &T,
    run: Option<RunId>,
    settlements: &[Settlement],
    seen: Option<&LedgerSeen>,
) -> Result<Vec<Settled>, T::Error> {
    let located = settlements.iter().map(Located::from);
    let facts = tx.load_facts(&located.collect::<Vec<_>>(), &[]).await?;
    let (changes, settled) = changeset::settle(facts, run, settlements);
    apply_and_plan(tx, &changes).await?;
    if let Some(seen) = seen {
        tx.see(seen).await?;
    }
    crash_point!("K8");
    Ok(settled)
}

async fn apply_and_plan<T: Transaction>(tx: &T, changes: &Changeset) -> Result<(), T::Error> {
    tx.apply(changes).await?;
    plan_retries(tx, dunning::to_plan(changes)).await
}

/// Derives flag and date of PENDING invoices from their attempts: whenever an invoice becomes PENDING, and when its
/// customer's network or instrument changes.
async fn plan_retries<T: Transaction>(tx: &T, invoices: BTreeSet<InvoiceId>) -> Result<(), T::Error> {
    if invoices.is_empty() {
        return Ok(());
    }
    let ladders = tx.load_ladders(&invoices).await?;
    tx.postpone(&dunning::plan(&ladders)).await
}

pub(super) async fn resolve<T: Transaction>(
    tx: &T,
    resolution: &Resolution,
    evidence: &Evidence,
) -> Result<Resolved, T::Error> {
    let wanted = Wanted { key: &resolution.key, reference: None };
    let Some(located) = tx.locate(&[wanted]).await?.pop() else { return Ok(Resolved::Unknown) };
    let facts = tx.load_facts(std::slice::from_ref(&located), &[]).await?;
    let refusal = match evidence {
        Evidence::Quiet(quiet_for) if !resolution.charged => {
            let times = tx.load_send_times(&located).await?;
            match changeset::alive_for(&facts, &resolution.key, times, *quiet_for) {
                Duration::ZERO => None,
                left => return Ok(Resolved::TooEarly(left)),
            }
        }
        Evidence::Voided | Evidence::Quiet(_) => None,
        Evidence::Refused(decline) => Some(decline),
    };
    match changeset::resolve(facts, &resolution.key, resolution.charged, refusal) {
        Ok((changes, audit)) => {
            apply_and_plan(tx, &changes).await?;
            tx.insert_audit(resolution, located.invoice, audit).await?;
            Ok(Resolved::Applied)
        }
        Err(unchanged) => Ok(unchanged),
    }
}

pub(super) async fn repair<T: Transaction>(
    tx: &T,
    deployment: DeploymentId,
    rows: &[LedgerFact],
) -> Result<Vec<Repaired>, T::Error> {
    let wanted: Vec<Wanted<'_>> = rows.iter().map(Wanted::from).collect();
    let references: Vec<&Reference> = rows.iter().filter_map(|row| row.reference.as_ref()).collect();
    let located = tx.locate(&wanted).await?;
    let facts = tx.load_facts(&located, &references).await?;
    let met = RepairFacts {
        owners: tx.load_owners(&references).await?,
        amounts: tx.load_customers_and_amounts(&located).await?,
    };
    let (changes, repaired) = changeset::repair(facts, met, deployment, rows);
    apply_and_plan(tx, &changes).await?;
    Ok(repaired)
}

pub(super) async fn import<T: Transaction>(
    tx: &T,
    rows: &[ImportRow],
    mode: ImportMode,
) -> Result<Vec<Imported>, T::Error> {
    let known = tx.load_known(rows, mode.update && !mode.dry_run).await?;
    let plan = import::plan(rows, known, mode);
    if !mode.dry_run {
        tx.apply_import(&plan).await?;
        // Invoices that now belong to another customer, possibly a former one, or that left ATTENTION.
        plan_retries(tx, plan.updated.iter().map(|(id, _)| *id).collect()).await?;
    }
    Ok(plan.answers)
}

pub(super) async fn control_invoice<T: Transaction>(
    tx: &T,
    reference: &Reference,
    action: InvoiceAction,
    note: &OperatorNote,
) -> Result<Controlled, T::Error> {
    // The facts are locked first: a hold that was read earlier could have changed.
    let facts = tx.load_facts(&[], &[reference]).await?;
    let Some((id, held)) = tx.load_hold(reference).await? else { return Ok(Controlled::Unknown) };
    let control = match rules::invoice(&facts, id, held, action) {
        Ok(control) => control,
        Err(unchanged) => return Ok(unchanged),
    };
    tx.apply(&control.changes).await?;
    if let Some(held) = control.held {
        tx.hold_invoice(id, held).await?;
    }
    tx.record_action(action.as_str(), reference.as_str(), note).await?;
    Ok(Controlled::Applied)
}

pub(super) async fn control_customer<T: Transaction>(
    tx: &T,
    customer: CustomerId,
    action: CustomerAction,
    note: &OperatorNote,
) -> Result<Controlled, T::Error> {
    let facts = tx.load_customer(customer).await?;
    match rules::customer(facts, action) {
        Err(unchanged) => Ok(unchanged),
        Ok(control) => {
            match control {
                CustomerControl::Held(held) => tx.hold_customer(customer, held).await?,
                CustomerControl::InstrumentChanged => {
                    tx.change_instrument(customer).await?;
                    plan_retries(tx, tx.load_retried(customer).await?).await?;
                }
                CustomerControl::Network(network) => {
                    tx.set_network(customer, network).await?;
                    plan_retries(tx, tx.load_retried(customer).await?).await?;
                }
            }
            tx.record_action(action.as_str(), &customer.0.to_string(), note).await?;
            Ok(Controlled::Applied)
        }
    }
}

pub(super) async fn set_halt<T: Transaction>(
    tx: &T,
    halts: bool,
    note: &OperatorNote,
) -> Result<bool, T::Error> {
    let changed = tx.set_halt(halts, note).await?;
    if changed {
        tx.record_action(if halts { STOP } else { START }, CHARGING, note).await?;
    }
    Ok(changed)
}

/// Logs an invoice with corrupt rows, which must not block the others.
pub(super) fn log_unclaimable(invoice: InvoiceId, error: &(dyn Error + 'static)) {
    tracing::error!(
        invoice.id = invoice.0,
        error,
        "this invoice cannot be claimed: an operator must fix its rows"
    );
}
