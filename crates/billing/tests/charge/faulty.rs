//! A real store in which a test makes the next steps of one kind fail, panic or wait. Knows no engine.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use billing::invoice::{
    Attempt, Customer, CustomerId, Invoice, InvoiceId, InvoiceState, Reference, Run, RunId, RunProblem,
};
use billing::protocol::key::{DeploymentId, Key};
use billing::protocol::transition::Settlement;
use billing::run_order::RunOrder;
use billing::schedule::Holidays;
use billing::schedule::run::{ScheduleRun, ScheduleRunState, Sums};
use billing::store::ages::Ages;
use billing::store::charged_days::ChargedDay;
use billing::store::control::{
    ControlStore, Controlled, CustomerAction, CustomerStatus, Halt, InvoiceAction, OperatorNote,
};
use billing::store::operator_reads::{ActedOn, OperatorReads};
use billing::store::subscriptions::{
    DueDate, GenerateBatch, Generated, OperatorAction, ScheduleDecision, SubscriptionChange,
    SubscriptionChanged, SubscriptionImported,
};
use billing::store::{
    AcknowledgementStore, ChargeStore, ClaimedPending, Counts, Evidence, ImportMode, ImportRow, Imported,
    InvoiceReads, LedgerAcceptance, LedgerAcknowledgement, LedgerAcknowledgementRow, LedgerFact, LedgerSeen,
    LedgerStore, OpenedRun, OperatorStore, Repaired, Resolution, ResolutionRow, Resolved, Result, RunStore,
    Settled, Store, StoreError, SubscriptionReads, SubscriptionStore, UnbackedAcknowledgement,
    UnbackedAcknowledgementRow,
};
use billing::subscription::{NewSubscription, Subscription, SubscriptionState};
use jiff::civil::Date;
use tokio::sync::Semaphore;

/// The faults of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store cannot be used.
    Fails,
    /// The next such step panics; later ones do not.
    PanicsOnce,
    /// Such steps wait until [`Faulty::repair`].
    Waits,
}

pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
    shared: bool,
    fault: Mutex<Option<(&'static str, Fault)>>,
    hits: AtomicUsize,
    steps: Mutex<Vec<String>>,
    gate: Semaphore,
}

impl Faulty {
    pub(crate) fn over(inner: &Arc<dyn Store>) -> Arc<Self> {
        Self::new(inner, inner.is_shared())
    }

    /// A store that claims to be shared with other processes.
    pub(crate) fn shared(inner: &Arc<dyn Store>) -> Arc<Self> {
        Self::new(inner, true)
    }

    fn new(inner: &Arc<dyn Store>, shared: bool) -> Arc<Self> {
        let (fault, steps) = (Mutex::default(), Mutex::default());
        let (hits, gate) = (AtomicUsize::new(0), Semaphore::new(0));
        Arc::new(Self { inner: Arc::clone(inner), shared, fault, hits, steps, gate })
    }

    /// The store as another process sees it: without faults.
    pub(crate) fn elsewhere(&self) -> &dyn Store {
        &*self.inner
    }

    /// Makes this step, named by its method, fail in this way from now on.
    pub(crate) fn spoil(&self, step: &'static str, fault: Fault) {
        *self.fault.lock().unwrap() = Some((step, fault));
    }

    /// Removes all faults; waiting steps continue.
    pub(crate) fn repair(&self) {
        *self.fault.lock().unwrap() = None;
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// The number of steps that had a fault.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// The number of calls of this step.
    pub(crate) fn asked(&self, step: &str) -> usize {
        self.steps.lock().unwrap().iter().filter(|asked| *asked == step).count()
    }

    async fn meet(&self, step: &str) -> Result<()> {
        self.steps.lock().unwrap().push(step.to_owned());
        let fault = {
            let mut fault = self.fault.lock().unwrap();
            let due = fault.filter(|(name, _)| *name == step).map(|(_, due)| due);
            if due == Some(Fault::PanicsOnce) {
                *fault = None;
            }
            due
        };
        self.hits.fetch_add(usize::from(fault.is_some()), Ordering::SeqCst);
        match fault {
            None => Ok(()),
            Some(Fault::Fails) => Err(StoreError::Unavailable("told to fail".into())),
            Some(Fault::PanicsOnce) => panic!("told to panic"),
            Some(Fault::Waits) => {
                drop(self.gate.acquire().await.unwrap());
                Ok(())
            }
        }
    }
}

macro_rules! pass_on {
    ($role:ident { $($step:ident($($name:ident: $type:ty),*) -> $answer:ty;)* } $($own:tt)*) => {
        #[async_trait]
        impl $role for Faulty {
            $($own)*

            $(async fn $step(&self, $($name: $type),*) -> Result<$answer> {
                self.meet(stringify!($step)).await?;
                self.inner.$step($($name),*).await
            })*
        }
    };
}

pass_on! {
    InvoiceReads {
        customers(after: CustomerId, limit: usize) -> Vec<Customer>;
        customer(id: CustomerId) -> Option<Customer>;
        invoices(state: Option<InvoiceState>, after: InvoiceId, limit: usize) -> Vec<Invoice>;
        invoice(id: InvoiceId) -> Option<Invoice>;
        invoice_by_reference(reference: &Reference) -> Option<Invoice>;
        stored_among(texts: Vec<String>) -> Vec<String>;
        attempts(after: (InvoiceId, u32), limit: usize) -> Vec<Attempt>;
        attempt(key: &Key) -> Option<Attempt>;
    }
}

pass_on! {
    RunStore {
        counts() -> Counts;
        ages() -> Ages;
        adopt_run(lease: Duration) -> Option<Run>;
        renew_run(run: RunId, lease: Duration) -> bool;
        finish_run(run: RunId, joins: i64) -> bool;
        note_problem(run: RunId, problem: &RunProblem) -> ();
        run(run: RunId) -> Option<Run>;
        runs(after: RunId, limit: usize) -> Vec<Run>;
        unfinished_run() -> Option<Run>;
        latest_run() -> Option<Run>;
        unsent_attempts() -> i64;
    }

    async fn open_ordered_run(&self, order: &RunOrder, lease: Duration) -> Result<OpenedRun> {
        self.meet("open_run").await?;
        self.inner.open_ordered_run(order, lease).await
    }
}

pass_on! {
    SubscriptionReads {
        subscriptions(state: Option<SubscriptionState>, after: i64, limit: usize) -> Vec<Subscription>;
        subscription(reference: &Reference) -> Option<Subscription>;
        subscription_actions(reference: &Reference, after: i64, limit: usize) -> Vec<OperatorAction>;
        next_due_date(after: Option<Date>) -> Option<DueDate>;
        left_on(on: Date) -> Sums;
        schedule_runs(state: Option<ScheduleRunState>, after: Option<Date>, limit: usize) -> Vec<ScheduleRun>;
        next_attempt_at() -> Option<i64>;
    }
}

pass_on! {
    SubscriptionStore {
        now_ms() -> i64;
        import_subscriptions(batch: &[NewSubscription], dry_run: bool) -> Vec<SubscriptionImported>;
        change_subscription(reference: &Reference, change: &SubscriptionChange, holidays: &Holidays)
            -> SubscriptionChanged;
        put_schedule_run(decision: &ScheduleDecision) -> ();
        generate(batch: &GenerateBatch<'_>) -> Generated;
    }
}

pass_on! {
    ChargeStore {
        claim_open(run: Option<RunId>, limit: usize, lease: Duration) -> Vec<Attempt>;
        to_withdraw(attempts: &[Attempt]) -> HashSet<Key>;
        has_claimable_left(run: RunId) -> bool;
        next_open_in() -> Option<Duration>;
        recover() -> u64;
        settle_and_see(run: Option<RunId>, settlements: &[Settlement], seen: Option<&LedgerSeen>) -> Vec<Settled>;
    }

    async fn claim_in_turn(
        &self,
        run: RunId,
        after: InvoiceId,
        limit: usize,
        lease: Duration,
    ) -> Result<ClaimedPending> {
        self.meet("claim_in_turn").await?;
        self.inner.claim_in_turn(run, after, limit, lease).await
    }
}

pass_on! {
    LedgerStore {
        deployment() -> DeploymentId;
        ledger_id() -> Option<String>;
        ledger_seen() -> Option<LedgerSeen>;
        remember_ledger(ledger_id: &str) -> String;
        accept_ledger(acceptance: &LedgerAcceptance) -> Option<String>;
    }
    fn is_shared(&self) -> bool {
        self.shared
    }
}

pass_on! {
    OperatorStore {
        import(rows: &[ImportRow], mode: ImportMode) -> Vec<Imported>;
        resolve_by(resolution: &Resolution, evidence: &Evidence) -> Resolved;
        repair(facts: &[LedgerFact]) -> Vec<Repaired>;
    }
}

pass_on! {
    AcknowledgementStore {
        acknowledge(acknowledgement: &LedgerAcknowledgement) -> LedgerAcknowledgementRow;
        acknowledge_unbacked(acknowledgement: &UnbackedAcknowledgement) -> Option<UnbackedAcknowledgementRow>;
    }
}

pass_on! {
    ControlStore {
        control_invoice(reference: &Reference, action: InvoiceAction, note: &OperatorNote) -> Controlled;
        control_customer(customer: CustomerId, action: CustomerAction, note: &OperatorNote) -> Controlled;
        customer_status(customer: CustomerId) -> Option<CustomerStatus>;
        halt() -> Option<Halt>;
        stop_charging(note: &OperatorNote) -> bool;
        start_charging(note: &OperatorNote) -> bool;
    }
}

pass_on! {
    OperatorReads {
        last_actions(on: ActedOn, subject: &str, limit: usize) -> Vec<OperatorAction>;
        declined_invoices(customer: CustomerId, limit: usize) -> Vec<Invoice>;
        invoices_of_customer(customer: CustomerId, before: InvoiceId, limit: usize) -> Vec<Invoice>;
        charged_days(since: i64, limit: usize) -> Vec<ChargedDay>;
        last_declines(customer: CustomerId, limit: usize) -> Vec<Attempt>;
        resolutions(after: i64, limit: usize) -> Vec<ResolutionRow>;
        ledger_acknowledgements(after: i64, limit: usize) -> Vec<LedgerAcknowledgementRow>;
        unbacked_acknowledgements(after: i64, limit: usize) -> Vec<UnbackedAcknowledgementRow>;
    }
}
