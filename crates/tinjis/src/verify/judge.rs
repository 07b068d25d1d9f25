//! The judge: billing's invoices and attempts on one side, the provider's ledger on the other, and what is wrong
//! between them. Pure: no I/O, no clock; knows no wire and prints nothing.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use uuid::Uuid;

use super::books::{Books, Data, Sent, Slot, key_bytes, key_of, key_text};
use super::facts::{AttemptFact, AttemptState, InvoiceFact, LedgerRow, RowState};

/// The most findings that are kept with their names; all are counted.
pub(crate) const SUSPECTS_MAX: usize = 10_000;

/// The most places in the ledger that one finding names.
const SEQS_MAX: usize = 16;

/// The ledger's customer of a request by a route that names none.
const UNSAID: i64 = 0;

/// Attempts of an invoice that billing has forgotten are looked for up to this number.
const OWN_NUMBERS_MAX: u32 = 100;

/// What can be wrong with a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Two or more CHARGED rows, or one of ours for an invoice that was imported as PAID.
    Double,
    /// CHARGED, and the invoice neither PAID nor open.
    Lost,
    /// The ledger or the attempt has another amount.
    Amount,
    /// The ledger or the attempt has another currency.
    Currency,
    /// The ledger or the attempt has another customer.
    Customer,
    /// PAID by charge without a CHARGED row, or without the one its journal names.
    Unbacked,
    /// A row under a key that its reference's journal does not have, or an attempt under a key that is not its own.
    UnknownKey,
    /// A request may have left, nobody knows what became of it, and no run is asking.
    InDoubt,
}

impl Kind {
    fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// One reference that is wrong in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// Empty for a row that names none.
    pub(crate) reference: String,
    /// Keys to look it up by, of the journal and of the ledger.
    pub(crate) keys: Vec<String>,
    /// Its places in the ledger.
    pub(crate) seqs: Vec<i64>,
}

/// One currency's totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Of invoices PAID otherwise than by import.
    pub(crate) paid_minor: i128,
    /// Of CHARGED rows.
    pub(crate) charged_minor: i128,
}

/// What both sides say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) invoices: u64,
    pub(crate) paid: u64,
    pub(crate) imported_paid: u64,
    /// CHARGED rows.
    pub(crate) charges: u64,
    /// Of these without a key.
    pub(crate) unkeyed: u64,
    /// Rows of other deployments under the same account; in no other figure.
    pub(crate) foreign: u64,
    /// Invoices with an open attempt.
    pub(crate) open: u64,
    /// Invoices of which nobody knows whether they were charged.
    pub(crate) in_doubt: u64,
    pub(crate) sums: BTreeMap<String, Sum>,
    /// References wrong in each way.
    pub(crate) counts: BTreeMap<Kind, u64>,
    /// Those of the counts that have names here; at most [`SUSPECTS_MAX`].
    pub(crate) findings: Vec<Finding>,
}

impl Judgement {
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    pub(crate) fn findings_total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_right(&self) -> bool {
        self.findings_total() == 0
    }
}

/// Judges two streams: billing's (invoices, then attempts) and the ledger's. `run` tells that a run is unfinished,
/// so that what is open is no fault; of `deployment` are the keys.
pub(crate) fn judge(
    invoices: impl IntoIterator<Item = InvoiceFact>,
    attempts: impl IntoIterator<Item = AttemptFact>,
    rows: impl IntoIterator<Item = LedgerRow>,
    run: bool,
    deployment: Option<Uuid>,
) -> Judgement {
    let mut reading = Invoices::default();
    invoices.into_iter().for_each(|invoice| reading.invoice(&invoice));
    let mut reading = reading.end(deployment);
    attempts.into_iter().for_each(|attempt| reading.attempt(&attempt));
    let mut reading = reading.end(i64::MAX);
    rows.into_iter().for_each(|row| reading.row(&row));
    reading.judgement(run)
}

/// The judge while invoices come in.
#[derive(Debug, Default)]
pub(crate) struct Invoices(Case);

/// The judge while attempts come in.
#[derive(Debug)]
pub(crate) struct Attempts {
    case: Case,
    deployment: Option<Uuid>,
}

/// The judge while ledger rows come in.
#[derive(Debug)]
pub(crate) struct Rows {
    case: Case,
    settled: i64,
    deployment: Option<Uuid>,
    foreign: u64,
}

impl Invoices {
    /// Makes room for this many.
    pub(crate) fn with_room(invoices: usize) -> Self {
        Self(Case { books: Books::with_room(invoices), ..Case::default() })
    }

    pub(crate) fn invoice(&mut self, fact: &InvoiceFact) {
        self.0.books.invoice(fact);
    }

    /// `deployment` is what the keys are made of; without one, nobody made keys.
    pub(crate) fn end(mut self, deployment: Option<Uuid>) -> Attempts {
        self.0.books.index_invoices();
        Attempts { case: self.0, deployment }
    }
}

impl Attempts {
    pub(crate) fn attempt(&mut self, fact: &AttemptFact) {
        let case = &mut self.case;
        let Some((slot, data)) = case.books.attempt(fact) else { return };
        let trace = Trace { key: Some(&fact.key), seq: None };
        if let Some(deployment) = self.deployment {
            let own = key_of(deployment, fact.number, &case.books.reference(slot));
            if key_bytes(&fact.key) != Some(own) {
                case.find(Subject::Invoice(slot), Kind::UnknownKey, trace);
            }
        }
        // While it is open or charged, its invoice must not be edited.
        if fact.state.is_open() || fact.state == AttemptState::Charged {
            let invoice = case.books.entry(slot).data();
            case.compare(Subject::Invoice(slot), invoice, data, trace);
        }
    }

    /// `settled` is the last place of the ledger before billing was read: what stands behind it may be newer than
    /// what billing said, so it backs a payment and makes a double, but does not accuse billing of not knowing it.
    pub(crate) fn end(mut self, settled: i64) -> Rows {
        self.case.books.index_attempts();
        Rows { case: self.case, settled, deployment: self.deployment, foreign: 0 }
    }
}

impl Rows {
    pub(crate) fn row(&mut self, row: &LedgerRow) {
        if self.is_foreign(row) {
            self.foreign += 1;
            return;
        }
        let case = &mut self.case;
        let is_settled = row.seq <= self.settled;
        let charged = row.state == RowState::Charged;
        if charged {
            case.charges += 1;
            case.unkeyed += u64::from(row.key.is_none());
            let code = row.currency.as_deref().unwrap_or_default();
            let currency = case.books.currency(code);
            *case.charged.entry(currency).or_default() += i128::from(row.amount_minor.unwrap_or_default());
        }
        let trace = Trace { key: row.key.as_deref(), seq: Some(row.seq) };
        let by_name = || row.reference.as_deref().and_then(|name| case.books.by_reference(name));
        let slot = match row.key.as_deref() {
            None => by_name(),
            Some(key) => match key_bytes(key).and_then(|bytes| case.books.by_key(&bytes)) {
                Some(Sent { slot, data, is_charged }) => {
                    // A tombstone has no data of its own.
                    if row.state != RowState::Voided {
                        case.compare_row(slot, data, row, trace);
                        let own = case.books.reference(slot);
                        if row.reference.as_ref().is_some_and(|named| *named != own) {
                            case.find(Subject::Invoice(slot), Kind::UnknownKey, trace);
                        }
                    }
                    if charged {
                        case.books.entry_mut(slot).mark_keyed(is_charged);
                    }
                    Some(slot)
                }
                None => {
                    let slot = by_name();
                    if row.state != RowState::Voided && is_settled {
                        let name = row.reference.clone().unwrap_or_default();
                        case.find(Subject::of(slot, name, row.seq), Kind::UnknownKey, trace);
                    }
                    slot
                }
            },
        };
        if let Some(slot) = slot.filter(|_| charged) {
            case.charge(slot, row.seq);
            if is_settled {
                case.books.entry_mut(slot).mark_settled();
            }
            let invoice = case.books.entry(slot).data();
            case.compare_row(slot, invoice, row, trace);
        }
    }

    /// Whether it is another deployment's: it names no invoice of ours, and its key is none that we would have made for
    /// that name. A row that names one of ours is judged whoever made its key, for it may be a second charge.
    fn is_foreign(&self, row: &LedgerRow) -> bool {
        let books = &self.case.books;
        let (Some(deployment), Some(name)) = (self.deployment, row.reference.as_deref()) else {
            return false;
        };
        let Some(key) = row.key.as_deref().and_then(key_bytes) else { return false };
        books.by_key(&key).is_none()
            && books.by_reference(name).is_none()
            && (1..=OWN_NUMBERS_MAX).all(|number| key_of(deployment, number, name) != key)
    }

    /// The end of both streams.
    pub(crate) fn judgement(self, run: bool) -> Judgement {
        Judgement { foreign: self.foreign, ..self.case.judgement(run) }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Invoice(Slot),
    /// A row that names no invoice of billing.
    Row {
        seq: i64,
        reference: String,
    },
}

impl Subject {
    fn of(slot: Option<Slot>, reference: String, seq: i64) -> Self {
        slot.map_or(Self::Row { seq, reference }, Self::Invoice)
    }
}

/// Where a finding was met.
#[derive(Clone, Copy)]
struct Trace<'a> {
    key: Option<&'a str>,
    seq: Option<i64>,
}

#[derive(Debug, Default)]
struct Case {
    books: Books,
    charges: u64,
    unkeyed: u64,
    charged: BTreeMap<u8, i128>,
    counts: BTreeMap<Kind, u64>,
    suspects: BTreeMap<(Kind, Subject), Finding>,
    /// Second and later CHARGED rows.
    more: HashMap<Slot, Vec<i64>>,
}

impl Case {
    fn charge(&mut self, slot: Slot, seq: i64) {
        let entry = self.books.entry_mut(slot);
        entry.charges = entry.charges.saturating_add(1);
        if entry.charges == 1 {
            entry.first_seq = seq;
        } else if self.more.len() < SUSPECTS_MAX || self.more.contains_key(&slot) {
            let seqs = self.more.entry(slot).or_default();
            if seqs.len() < SEQS_MAX {
                seqs.push(seq);
            }
        }
    }

    /// Holds a row against what was asked for. What the row does not say is no mismatch.
    fn compare_row(&mut self, slot: Slot, asked: Data, row: &LedgerRow, trace: Trace<'_>) {
        let currency = row.currency.as_deref().map_or(asked.currency, |code| self.books.currency(code));
        let done = Data {
            customer_id: row.customer_id.filter(|id| *id != UNSAID).unwrap_or(asked.customer_id),
            amount_minor: row.amount_minor.unwrap_or(asked.amount_minor),
            currency,
        };
        self.compare(Subject::Invoice(slot), asked, done, trace);
    }

    fn compare(&mut self, subject: Subject, asked: Data, done: Data, trace: Trace<'_>) {
        if asked == done {
            return;
        }
        for (kind, differs) in [
            (Kind::Amount, asked.amount_minor != done.amount_minor),
            (Kind::Currency, asked.currency != done.currency),
            (Kind::Customer, asked.customer_id != done.customer_id),
        ] {
            if differs {
                self.find(subject.clone(), kind, trace);
            }
        }
    }

    /// Counts a finding once for each reference, and keeps its name while there is room.
    fn find(&mut self, subject: Subject, kind: Kind, trace: Trace<'_>) {
        let is_new = match &subject {
            Subject::Row { .. } => true,
            Subject::Invoice(slot) => {
                let entry = self.books.entry_mut(*slot);
                let is_new = entry.found & kind.bit() == 0;
                entry.found |= kind.bit();
                is_new
            }
        };
        *self.counts.entry(kind).or_default() += u64::from(is_new);
        let room = self.suspects.len() < SUSPECTS_MAX;
        let reference = match &subject {
            Subject::Row { reference, .. } => reference.clone(),
            Subject::Invoice(slot) => self.books.reference(*slot),
        };
        let place = (kind, subject);
        if !room && !self.suspects.contains_key(&place) {
            return;
        }
        let new = Finding { kind, reference, keys: Vec::new(), seqs: Vec::new() };
        let finding = self.suspects.entry(place).or_insert(new);
        if let Some(key) = trace.key {
            add(&mut finding.keys, key.to_owned());
        }
        if let Some(seq) = trace.seq {
            add(&mut finding.seqs, seq);
        }
    }

    fn judgement(mut self, run: bool) -> Judgement {
        let mut judgement =
            Judgement { charges: self.charges, unkeyed: self.unkeyed, ..Judgement::default() };
        for slot in self.books.slots() {
            self.judge_invoice(slot, run, &mut judgement);
        }
        for (currency, charged) in &self.charged {
            let code = self.books.currency_code(*currency).to_owned();
            judgement.sums.entry(code).or_default().charged_minor += charged;
        }
        self.name_keys();
        judgement.counts = self.counts;
        judgement.findings = self.suspects.into_values().collect();
        judgement
    }

    fn judge_invoice(&mut self, slot: Slot, run: bool, judgement: &mut Judgement) {
        let entry = self.books.entry(slot);
        let in_doubt = if run { entry.is_in_doubt() } else { entry.is_unknown() };
        judgement.invoices += 1;
        judgement.paid += u64::from(entry.is_paid());
        judgement.imported_paid += u64::from(entry.is_paid_by_import());
        judgement.open += u64::from(entry.is_open());
        judgement.in_doubt += u64::from(in_doubt);
        if entry.is_paid() && !entry.is_paid_by_import() {
            let data = entry.data();
            let code = self.books.currency_code(data.currency).to_owned();
            judgement.sums.entry(code).or_default().paid_minor += i128::from(data.amount_minor);
        }
        let wrong = [
            (Kind::Double, entry.is_paid_twice()),
            (Kind::Lost, entry.is_settled() && !entry.is_paid() && !entry.is_open()),
            (Kind::Unbacked, entry.is_paid_by_charge() && !entry.is_backed()),
            (Kind::InDoubt, in_doubt && !run),
        ];
        let first_seq = (entry.charges > 0).then_some(entry.first_seq);
        for (kind, _) in wrong.into_iter().filter(|(_, is_wrong)| *is_wrong) {
            self.find(Subject::Invoice(slot), kind, Trace { key: None, seq: first_seq });
        }
    }

    /// Gives each finding the keys of its invoice's journal and the places of its further charges.
    fn name_keys(&mut self) {
        let mut wanted: HashMap<Slot, Vec<String>> = HashMap::new();
        for (_, subject) in self.suspects.keys() {
            if let Subject::Invoice(slot) = subject {
                wanted.entry(*slot).or_default();
            }
        }
        for (slot, key) in self.books.keys() {
            if let Some(keys) = wanted.get_mut(&slot) {
                keys.push(key_text(key));
            }
        }
        for ((kind, subject), finding) in &mut self.suspects {
            let Subject::Invoice(slot) = subject else { continue };
            for key in wanted.get(slot).into_iter().flatten() {
                add(&mut finding.keys, key.clone());
            }
            if *kind == Kind::Double {
                for seq in self.more.get(slot).into_iter().flatten() {
                    add(&mut finding.seqs, *seq);
                }
            }
        }
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if list.len() < SEQS_MAX && !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests;
