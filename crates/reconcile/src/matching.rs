//! The matching: billing's invoices and attempts are indexed, the ledger's rows are matched to them by key, else by
//! reference, and each disagreement becomes a finding. Each stream is read once, in this order. Pure: no I/O, no clock;
//! must not know where the streams come from.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::acknowledged::{AcknowledgedRows, AcknowledgedUnbacked};
use crate::amounts;
use crate::currencies::Currencies;
use crate::facts::{AttemptFact, AttemptState, InvoiceFact, LedgerRow, RowState, hundredths};
use crate::findings::{Finding, FindingKind, LISTED_MAX, NAMED_FINDINGS_MAX, Reconciliation};
use crate::index::{BillingIndex, InvoiceSlot, KeyMatch, Terms};
use crate::key;
use crate::totals::{Place, Sums, Totals};

/// The customer that the ledger records for a route that names none.
const UNNAMED_CUSTOMER: i64 = 0;

/// Highest attempt number for which a row's key is recognised as billing's own. A row beyond it is not excused: CHARGED
/// without an invoice is a finding, independent of who made its key.
const OWN_NUMBERS_MAX: u32 = 100;

/// Facts about the ledger besides its rows.
#[derive(Clone, Debug, Default)]
pub struct LedgerContext {
    /// The last row of the ledger before billing was read. A later row may be newer than billing's lists: it backs a
    /// payment and counts for a double charge, but billing need not know it.
    pub last_seq_before_billing: i64,
    /// Rows that operators have acknowledged.
    pub acknowledged: AcknowledgedRows,
    /// Invoices whose charge the ledger has lost, as operators have acknowledged.
    pub acknowledged_unbacked: AcknowledgedUnbacked,
}

/// The first phase: invoices are added.
#[derive(Debug, Default)]
pub struct InvoicePhase(Matcher);

/// The second phase: attempts are added.
#[derive(Debug)]
pub struct AttemptPhase {
    matcher: Matcher,
    deployment: Option<Uuid>,
}

/// The third phase: ledger rows are added.
#[derive(Debug)]
pub struct LedgerPhase {
    matcher: Matcher,
    context: LedgerContext,
    deployment: Option<Uuid>,
    acknowledged: u64,
    foreign: u64,
}

impl InvoicePhase {
    /// The first phase, with memory reserved for this many invoices.
    #[must_use]
    pub fn with_capacity(invoices: usize) -> Self {
        Self::with_currencies(invoices, Currencies::default())
    }

    /// The first phase, where currencies have their numbers and decimals already.
    pub(crate) fn with_currencies(invoices: usize, currencies: Currencies) -> Self {
        Self(Matcher { index: BillingIndex::with_capacity(invoices, currencies), ..Matcher::default() })
    }

    /// Adds one invoice.
    pub fn add(&mut self, fact: &InvoiceFact) {
        self.0.index.invoice(fact);
    }

    /// Ends the phase. Billing's keys are derived from `deployment`; without a deployment no keys are checked.
    #[must_use]
    pub fn into_attempts(mut self, deployment: Option<Uuid>) -> AttemptPhase {
        self.0.index.finish_invoices();
        AttemptPhase { matcher: self.0, deployment }
    }
}

impl AttemptPhase {
    /// Adds one attempt.
    pub fn add(&mut self, fact: &AttemptFact) {
        let matcher = &mut self.matcher;
        matcher.resent += u64::try_from(fact.sends.saturating_sub(1)).unwrap_or(0);
        let Some((slot, terms)) = matcher.index.attempt(fact) else { return };
        let evidence = Evidence { key: Some(&fact.key), seq: None };
        if let Some(deployment) = self.deployment {
            let own = key::derive(deployment, fact.number, &matcher.index.reference(slot));
            if key::parse(&fact.key) != Some(own) {
                matcher.record(Subject::Invoice(slot), FindingKind::UnknownKey, evidence);
            }
        }
        // While an attempt is open or charged, edits of its invoice are refused.
        if fact.state.is_open() || fact.state == AttemptState::Charged {
            let invoice = matcher.index.entry(slot).terms();
            matcher.compare(slot, invoice, terms, evidence);
        }
    }

    /// Ends the phase.
    #[must_use]
    pub fn into_ledger(mut self, context: LedgerContext) -> LedgerPhase {
        self.matcher.index.finish_attempts();
        let Self { matcher, deployment } = self;
        LedgerPhase { matcher, context, deployment, acknowledged: 0, foreign: 0 }
    }
}

/// The owner of a row without an invoice.
enum Owner {
    /// Billing: the key belongs to the row's reference, and billing has lost that invoice.
    Billing,
    /// Another deployment: the key has billing's format, but another derivation.
    OtherDeployment,
    /// Unknown: the row has no reference, or no key, or a key of another format.
    Unknown,
}

impl LedgerPhase {
    /// Adds one row.
    pub fn add(&mut self, row: &LedgerRow) {
        let evidence = Evidence { key: row.key.as_deref(), seq: Some(row.seq) };
        let found = row.key.as_deref().and_then(key::parse).and_then(|key| self.matcher.index.by_key(&key));
        let named = row.reference.as_deref().and_then(|name| self.matcher.index.by_reference(name));
        if row.seq < 1 {
            let slot = found.map(|found| found.slot).or(named);
            self.matcher.record(Subject::of(slot, row), FindingKind::InvalidSeq, evidence);
        }
        if row.state == RowState::Charged {
            self.matcher.count_charge(row);
        }
        let slot = match (&found, named) {
            (Some(found), _) => {
                self.matcher.match_key(found, row, evidence);
                found.slot
            }
            (None, Some(slot)) => {
                if row.key.is_some() && row.state != RowState::Voided && self.is_before_billing(row) {
                    self.matcher.record(Subject::Invoice(slot), FindingKind::UnknownKey, evidence);
                }
                slot
            }
            (None, None) => return self.without_invoice(row, evidence),
        };
        if row.state == RowState::Charged {
            self.matcher.charge(slot, row.seq);
            if self.is_before_billing(row) {
                self.matcher.index.entry_mut(slot).mark_settled();
            }
            let invoice = self.matcher.index.entry(slot).terms();
            self.matcher.compare_row(slot, invoice, row, evidence);
        }
    }

    fn is_before_billing(&self, row: &LedgerRow) -> bool {
        row.seq <= self.context.last_seq_before_billing
    }

    /// Records a row that has neither a key of an attempt nor the reference of an invoice.
    fn without_invoice(&mut self, row: &LedgerRow, evidence: Evidence<'_>) {
        let kind = match (row.state, self.owner(row)) {
            (RowState::Charged | RowState::Refused, Owner::Billing) => FindingKind::UnknownKey,
            (RowState::Charged, _) if self.context.acknowledged.contains(row.seq) => {
                self.acknowledged += 1;
                return;
            }
            (RowState::Charged, _) => FindingKind::Unattributed,
            (RowState::Refused, Owner::Unknown) if row.key.is_some() => FindingKind::UnknownKey,
            (_, Owner::OtherDeployment) => {
                self.foreign += 1;
                return;
            }
            // Refusals without a key and tombstones: the row has no charge and no key of billing's.
            (RowState::Refused | RowState::Voided, _) => return,
        };
        if self.is_before_billing(row) {
            self.matcher.record(Subject::of(None, row), kind, evidence);
        }
    }

    fn owner(&self, row: &LedgerRow) -> Owner {
        let (Some(deployment), Some(name)) = (self.deployment, row.reference.as_deref()) else {
            return Owner::Unknown;
        };
        let Some(key) = row.key.as_deref().and_then(key::parse) else { return Owner::Unknown };
        let is_own = (1..=OWN_NUMBERS_MAX).any(|number| key::derive(deployment, number, name) == key);
        if is_own { Owner::Billing } else { Owner::OtherDeployment }
    }

    /// Keys of open attempts for which the ledger has shown no row, at most `limit`; and whether there are more. For
    /// each key a caller can ask the ledger whether another account holds it.
    #[must_use]
    pub fn open_keys_not_in_ledger(&self, limit: usize) -> (Vec<String>, bool) {
        let mut missing = self.matcher.index.open_keys_not_in_ledger();
        let keys = missing.by_ref().take(limit).map(key::text).collect();
        (keys, missing.next().is_some())
    }

    /// Records that the ledger holds this key for another account.
    pub fn key_taken(&mut self, text: &str) {
        if let Some(found) = key::parse(text).and_then(|key| self.matcher.index.by_key(&key)) {
            let evidence = Evidence { key: Some(text), seq: None };
            self.matcher.record(Subject::Invoice(found.slot), FindingKind::KeyTaken, evidence);
        }
    }

    /// Ends the comparison. While a run is unfinished, open attempts are no fault.
    #[must_use]
    pub fn finish(self, run_is_unfinished: bool) -> Reconciliation {
        self.into_totals(run_is_unfinished).0.into_reconciliation()
    }

    /// Ends the comparison as parts that can be added up. Also returns the context.
    pub(crate) fn into_totals(self, run_is_unfinished: bool) -> (Totals, LedgerContext) {
        let mut totals = self.matcher.finish(run_is_unfinished, &self.context.acknowledged_unbacked);
        (totals.result.acknowledged, totals.result.foreign) = (self.acknowledged, self.foreign);
        (totals, self.context)
    }
}

/// The subject of a finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Invoice(InvoiceSlot),
    /// A row that belongs to no invoice of billing.
    Row {
        seq: i64,
        reference: String,
    },
}

impl Subject {
    fn of(slot: Option<InvoiceSlot>, row: &LedgerRow) -> Self {
        let reference = || row.reference.clone().unwrap_or_default();
        slot.map_or_else(|| Self::Row { seq: row.seq, reference: reference() }, Self::Invoice)
    }
}

/// The key and the row in which a finding was detected.
#[derive(Clone, Copy)]
struct Evidence<'a> {
    key: Option<&'a str>,
    seq: Option<i64>,
}

/// The value for an amount that is no whole number of its currency's minor units: no invoice has it.
const NO_AMOUNT: i64 = i64::MIN;

#[derive(Debug, Default)]
struct Matcher {
    index: BillingIndex,
    charges: u64,
    unkeyed: u64,
    confirmed: u64,
    resent: u64,
    sums: BTreeMap<u8, Sums>,
    counts: BTreeMap<FindingKind, u64>,
    named: BTreeMap<(FindingKind, Subject), Finding>,
    /// Second and later CHARGED rows.
    further_charges: HashMap<InvoiceSlot, Vec<i64>>,
}

impl Matcher {
    fn count_charge(&mut self, row: &LedgerRow) {
        self.charges += 1;
        self.unkeyed += u64::from(row.key.is_none());
        let currency = self.index.currencies.number(row.currency.as_deref().unwrap_or_default());
        let sums = self.sums.entry(currency).or_default();
        sums.charged += amounts::to_scaled(row.amount_minor.unwrap_or_default(), row.exponent);
        sums.row_exponent = sums.row_exponent.max(row.exponent);
    }

    /// Matches a row with the attempt of its key.
    fn match_key(&mut self, found: &KeyMatch, row: &LedgerRow, evidence: Evidence<'_>) {
        let slot = found.slot;
        self.index.mark_in_ledger(found);
        // A tombstone has no reference and no terms of its own.
        if row.state != RowState::Voided {
            self.compare_row(slot, found.terms, row, evidence);
            // Billing sends the reference with each key, so a row without one was changed.
            if row.reference.as_deref() != Some(&*self.index.reference(slot)) {
                self.record(Subject::Invoice(slot), FindingKind::UnknownKey, evidence);
            }
        }
        if row.state == RowState::Charged {
            self.confirmed += u64::from(found.is_charged);
            self.index.entry_mut(slot).mark_keyed(found.is_charged);
        }
    }

    fn charge(&mut self, slot: InvoiceSlot, seq: i64) {
        let entry = self.index.entry_mut(slot);
        entry.charges = entry.charges.saturating_add(1);
        if entry.charges == 1 {
            entry.first_seq = seq;
        } else if self.further_charges.len() < NAMED_FINDINGS_MAX || self.further_charges.contains_key(&slot)
        {
            let seqs = self.further_charges.entry(slot).or_default();
            if seqs.len() < LISTED_MAX {
                seqs.push(seq);
            }
        }
    }

    /// Compares a row with the terms of the request. Values that the row lacks are no mismatch.
    fn compare_row(&mut self, slot: InvoiceSlot, asked: Terms, row: &LedgerRow, evidence: Evidence<'_>) {
        let currency =
            row.currency.as_deref().map_or(asked.currency, |code| self.index.currencies.number(code));
        let done = Terms {
            customer_id: row.customer_id.filter(|id| *id != UNNAMED_CUSTOMER).unwrap_or(asked.customer_id),
            amount_minor: row.amount_minor.map_or(asked.amount_minor, |minor| {
                let exponent = self.index.currencies.exponent(asked.currency).unwrap_or(row.exponent);
                amounts::rescale(minor, row.exponent, exponent).unwrap_or(NO_AMOUNT)
            }),
            currency,
        };
        self.compare(slot, asked, done, evidence);
    }

    fn compare(&mut self, slot: InvoiceSlot, asked: Terms, done: Terms, evidence: Evidence<'_>) {
        if asked == done {
            return;
        }
        for (kind, differs) in [
            (FindingKind::Amount, asked.amount_minor != done.amount_minor),
            (FindingKind::Currency, asked.currency != done.currency),
            (FindingKind::Customer, asked.customer_id != done.customer_id),
        ] {
            if differs {
                self.record(Subject::Invoice(slot), kind, evidence);
            }
        }
    }

    /// Counts a finding once for each reference, and keeps it by name while there is room.
    fn record(&mut self, subject: Subject, kind: FindingKind, evidence: Evidence<'_>) {
        let is_new = match &subject {
            Subject::Row { .. } => true,
            Subject::Invoice(slot) => {
                let entry = self.index.entry_mut(*slot);
                let is_new = entry.found & kind.bit() == 0;
                entry.found |= kind.bit();
                is_new
            }
        };
        *self.counts.entry(kind).or_default() += u64::from(is_new);
        let has_room = self.named.len() < NAMED_FINDINGS_MAX;
        let reference = match &subject {
            Subject::Row { reference, .. } => reference.clone(),
            Subject::Invoice(slot) => self.index.reference(*slot),
        };
        let place = (kind, subject);
        if !has_room && !self.named.contains_key(&place) {
            return;
        }
        let new = Finding { kind, reference, keys: Vec::new(), seqs: Vec::new() };
        let finding = self.named.entry(place).or_insert(new);
        if let Some(key) = evidence.key {
            list(&mut finding.keys, key.to_owned());
        }
        if let Some(seq) = evidence.seq {
            list(&mut finding.seqs, seq);
        }
    }

    fn finish(mut self, run_is_unfinished: bool, lost: &AcknowledgedUnbacked) -> Totals {
        let mut result = Reconciliation {
            charges: self.charges,
            unkeyed: self.unkeyed,
            confirmed: self.confirmed,
            resent: self.resent,
            ..Reconciliation::default()
        };
        for slot in self.index.slots() {
            self.finish_invoice(slot, run_is_unfinished, lost, &mut result);
        }
        self.list_keys();
        result.counts = self.counts;
        let place = |subject| match subject {
            Subject::Invoice(slot) => Place::Invoice { id: self.index.entry(slot).id(), slot },
            Subject::Row { seq, reference } => Place::Row { seq, reference },
        };
        let named =
            self.named.into_iter().map(|((kind, of), finding)| ((kind, place(of)), finding)).collect();
        Totals { result, sums: self.sums, named, currencies: self.index.currencies }
    }

    fn finish_invoice(
        &mut self,
        slot: InvoiceSlot,
        run_is_unfinished: bool,
        lost: &AcknowledgedUnbacked,
        result: &mut Reconciliation,
    ) {
        let entry = self.index.entry(slot);
        let in_doubt = if run_is_unfinished { entry.is_in_doubt() } else { entry.is_unknown() };
        result.invoices += 1;
        result.paid += u64::from(entry.is_paid());
        result.imported_paid += u64::from(entry.is_paid_by_import());
        result.open += u64::from(entry.is_open());
        result.in_doubt += u64::from(in_doubt);
        if entry.is_paid() && !entry.is_paid_by_import() {
            let terms = entry.terms();
            let exponent = self.index.currencies.exponent(terms.currency).unwrap_or_else(hundredths);
            self.sums.entry(terms.currency).or_default().paid +=
                amounts::to_scaled(terms.amount_minor, exponent);
        }
        let is_unbacked = entry.is_paid_by_charge() && !entry.is_backed();
        // A charge under another key, or without a key, is not a lost charge.
        let is_lost = is_unbacked && entry.charges == 0;
        let is_acknowledged = is_lost && lost.contains(&self.index.reference(slot));
        result.acknowledged_unbacked += u64::from(is_acknowledged);
        let wrong = [
            (FindingKind::Double, entry.is_paid_twice()),
            (FindingKind::Lost, entry.is_settled() && !entry.is_paid() && !entry.is_open()),
            (FindingKind::Unbacked, is_unbacked && !is_acknowledged),
            (FindingKind::InDoubt, in_doubt && !run_is_unfinished),
        ];
        let first_seq = (entry.charges > 0).then_some(entry.first_seq);
        for (kind, _) in wrong.into_iter().filter(|(_, is_wrong)| *is_wrong) {
            self.record(Subject::Invoice(slot), kind, Evidence { key: None, seq: first_seq });
        }
    }

    /// Gives each finding the keys of its invoice's journal and the rows of its further charges.
    fn list_keys(&mut self) {
        let mut wanted: HashMap<InvoiceSlot, Vec<String>> = HashMap::new();
        for (_, subject) in self.named.keys() {
            if let Subject::Invoice(slot) = subject {
                wanted.entry(*slot).or_default();
            }
        }
        for (slot, key) in self.index.keys() {
            if let Some(keys) = wanted.get_mut(&slot) {
                keys.push(key::text(key));
            }
        }
        for ((kind, subject), finding) in &mut self.named {
            let Subject::Invoice(slot) = subject else { continue };
            for key in wanted.get(slot).into_iter().flatten() {
                list(&mut finding.keys, key.clone());
            }
            if *kind == FindingKind::Double {
                for seq in self.further_charges.get(slot).into_iter().flatten() {
                    list(&mut finding.seqs, *seq);
                }
            }
        }
    }
}

fn list<T: PartialEq>(items: &mut Vec<T>, item: T) {
    if items.len() < LISTED_MAX && !items.contains(&item) {
        items.push(item);
    }
}

#[cfg(test)]
mod tests;
