//! The steps of each transaction that changes attempts or invoices, once for every database: load facts, decide by
//! `changeset`, apply. Databases bring the primitives. Knows no SQL.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::time::Duration;

use chassis::crash_point;

use super::changeset::control::{self as rules, CustomerControl, CustomerFacts};
use super::changeset::dunning::{self, HeldBack, LadderFacts, Postponed, hold_back};
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

/// An open transaction. What it loads stays as it is until the transaction ends; each change checks how many rows it
/// changed.
pub(super) trait Transaction {
    /// What the database fails with.
    type Error;

    /// Where those of these attempts are that are stored.
    fn locate(&self, wanted: &[Wanted<'_>])
    -> impl Future<Output = Result<Vec<Located>, Self::Error>> + Send;

    /// Facts for those of these attempts that have these keys, and for the invoices with these references.
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

    /// Times of this attempt's sends, read after its facts.
    fn load_send_times(
        &self,
        located: &Located,
    ) -> impl Future<Output = Result<Option<SendTimes>, Self::Error>> + Send;

    /// Customers and amounts of these attempts.
    fn load_customers_and_amounts(
        &self,
        located: &[Located],
    ) -> impl Future<Output = Result<HashMap<Key, CustomersAndAmounts>, Self::Error>> + Send;

    /// Customers and invoices that the rows name.
    fn load_known(
        &self,
        rows: &[ImportRow],
        for_update: bool,
    ) -> impl Future<Output = Result<KnownRows, Self::Error>> + Send;

    /// The order of a run, with what is left of its limits, which no other transaction changes until this one ends;
    /// `None` when it is finished.
    fn load_order(&self, run: RunId) -> impl Future<Output = Result<Option<ClaimOrder>, Self::Error>> + Send;

    /// What is left of a run's limits.
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

    /// Inserts first sends and sets their times; answers those that the unique indexes accept.
    fn insert_attempts(
        &self,
        attempts: Vec<Attempt>,
    ) -> impl Future<Output = Result<Vec<Attempt>, Self::Error>> + Send;

    /// Instruments of these candidates' customers, where the network is known. No other claim counts their attempts until this
    /// transaction ends.
    fn load_instruments(
        &self,
        customers: &BTreeSet<CustomerId>,
        now_ms: i64,
    ) -> impl Future<Output = Result<HashMap<CustomerId, InstrumentHistory>, Self::Error>> + Send;

    /// Ladders of those invoices that are PENDING.
    fn load_ladders(
        &self,
        invoices: &BTreeSet<InvoiceId>,
    ) -> impl Future<Output = Result<BTreeMap<InvoiceId, LadderFacts>, Self::Error>> + Send;

    /// Sets flag and date of PENDING invoices.
    fn postpone(&self, postponed: &[Postponed]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Leases open attempts that are due, oldest lease first; an unreadable one is leased and left out.
    fn lease_due(&self, limit: usize) -> impl Future<Output = Result<Vec<Attempt>, Self::Error>> + Send;

    /// What an operator's action on the invoice with this reference meets, beside its facts: its number and its hold.
    fn load_hold(
        &self,
        reference: &Reference,
    ) -> impl Future<Output = Result<Option<(InvoiceId, bool)>, Self::Error>> + Send;

    /// No claim goes on beside this transaction once this has returned.
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

    /// Those of the customer's invoices that `rows::IS_RETRIED` says.
    fn load_retried(
        &self,
        customer: CustomerId,
    ) -> impl Future<Output = Result<BTreeSet<InvoiceId>, Self::Error>> + Send;

    fn set_network(
        &self,
        customer: CustomerId,
        network: Network,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Stops or starts all charging; answers whether it was not so before. No claim goes on beside a stop.
    fn set_halt(
        &self,
        halts: bool,
        note: &OperatorNote,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Appends an audit row.
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

    /// Remembers how far a ledger goes, never less than before. After every other counter.
    fn see(&self, seen: &LedgerSeen) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn apply(&self, changes: &Changeset) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn apply_import(&self, plan: &ImportPlan<'_>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Which invoices a run claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingClaim {
    pub(super) deployment: DeploymentId,
    pub(super) run: RunId,
    pub(super) after: InvoiceId,
    pub(super) limit: usize,
    /// Invoices that one transaction looks at.
    pub(super) window: usize,
}

/// What a run claims now.
#[derive(Clone, Debug)]
pub(super) struct ClaimOrder {
    pub(super) filter: RunFilter,
    pub(super) limits: RunLimits,
    /// In milliseconds since the Unix epoch.
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

/// What one transaction claimed.
#[derive(Clone, Debug, Default)]
pub(super) struct Claimed {
    pub(super) attempts: Vec<Attempt>,
    /// Where to go on when nothing was claimed; `None` when nothing is left.
    pub(super) continue_after: Option<InvoiceId>,
    /// As in [`ClaimedPending`].
    pub(super) waiting_from: Option<InvoiceId>,
}

/// After a window in which nothing could be claimed, such as many invoices of a customer with an open attempt, the next
/// one is so many times as wide: a claim of one invoice must not pass them one by one.
const WINDOW_GROWTH: usize = 4;

impl PendingClaim {
    pub(super) fn new(deployment: DeploymentId, run: RunId, after: InvoiceId, limit: usize) -> Self {
        let limit = limit.min(BATCH_MAX);
        Self { deployment, run, after, limit, window: limit }
    }

    /// Claims, a transaction at a time, until one has claimed something or nothing is left.
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

/// What may be claimed of the next window, and what is held back.
async fn examine<T: Transaction>(
    tx: &T,
    claim: &PendingClaim,
    order: &mut ClaimOrder,
) -> Result<(Candidates, HeldBack), T::Error> {
    let mut candidates = tx.load_candidates(claim, order).await?;
    let customers = candidates.invoices.iter().map(|invoice| invoice.customer_id).collect();
    let instruments = tx.load_instruments(&customers, order.now_ms).await?;
    let held_back =
        hold_back(&mut candidates.invoices, instruments, &mut order.limits, claim.limit, order.now_ms);
    Ok((candidates, held_back))
}

/// Whether the run may claim one of the candidates, now or once an attempt that is under way is settled. Changes nothing.
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

/// However an invoice becomes PENDING, its flag and its date follow from its attempts; and anew when its customer's network
/// or instrument changes.
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
        // One that belongs to another customer now, or back to the former one, or is no longer in ATTENTION.
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
    // The facts are locked first: a hold that was read before could be another's by now.
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

/// One invoice whose rows are wrong must not hold back the others.
pub(super) fn log_unclaimable(invoice: InvoiceId, error: &(dyn Error + 'static)) {
    tracing::error!(
        invoice.id = invoice.0,
        error,
        "this invoice cannot be claimed: an operator must fix its rows"
    );
}
