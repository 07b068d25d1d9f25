//! Billing's side of a verification, packed: one entry for each invoice and each attempt, found by reference, id or
//! key. Stores and finds; decides nothing and reads no source.
//!
//! Memory: 48 bytes, 4 of index and the reference's own length for an invoice, 24 bytes for an attempt; vectors double
//! as they grow. A million invoices with one attempt each stay under `BYTES_PER_INVOICE_MAX` each. `partitioned`
//! indexes them in parts, one after the other.

use std::collections::HashMap;

use crate::currencies::Currencies;
use crate::facts::{AttemptFact, AttemptState, InvoiceFact, InvoiceState, PaidBy};
use crate::key::{self, KeyBytes};

/// Maximum memory of an invoice with one attempt, with a reference of 20 bytes and growing vectors.
#[cfg(test)]
pub(crate) const BYTES_PER_INVOICE_MAX: usize = 256;

/// The position of an invoice's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InvoiceSlot(u32);

/// Customer, amount and currency; the currency as its number in the index's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) customer_id: i64,
    pub(crate) amount_minor: i64,
    pub(crate) currency: u8,
}

#[derive(Debug)]
pub(crate) struct InvoiceEntry {
    id: i64,
    customer_id: i64,
    amount_minor: i64,
    /// The first CHARGED row that names the invoice.
    pub(crate) first_seq: i64,
    text_start: u32,
    text_len: u16,
    /// The kinds of finding already recorded, one bit each.
    pub(crate) found: u16,
    /// Number of CHARGED rows that name the invoice.
    pub(crate) charges: u16,
    /// The number of the state, and the bits below.
    state: u16,
    currency: u8,
}

const PENDING: u16 = 0;
const CHARGING: u16 = 1;
const ATTENTION: u16 = 2;
const PAID_BY_CHARGE: u16 = 3;
const PAID_BY_IMPORT: u16 = 4;
const PAID_BY_RESOLVE: u16 = 5;
const STATE: u16 = 0b0000_0111;
/// Bit: a CHARGED row of the invoice was in the ledger before billing was read.
const SETTLED: u16 = 1 << 3;
/// Bit: an attempt is open.
const OPEN: u16 = 1 << 4;
/// Bit: an attempt is in doubt.
const IN_DOUBT: u16 = 1 << 5;
/// Bit: a request for an open attempt may have been sent.
const SENT: u16 = 1 << 8;
/// Bit: a CHARGED row has the key of a CHARGED attempt.
const KEYED: u16 = 1 << 7;
/// Bit: the invoice has attempts.
const JOURNALED: u16 = 1 << 9;
/// Bit: a CHARGED row has a key of the invoice's journal, in any state of that attempt.
const OURS: u16 = 1 << 10;

impl InvoiceEntry {
    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms { customer_id: self.customer_id, amount_minor: self.amount_minor, currency: self.currency }
    }

    pub(crate) fn is_paid(&self) -> bool {
        matches!(self.state & STATE, PAID_BY_CHARGE | PAID_BY_IMPORT | PAID_BY_RESOLVE)
    }

    pub(crate) fn is_paid_by_charge(&self) -> bool {
        self.state & STATE == PAID_BY_CHARGE
    }

    pub(crate) fn is_paid_by_import(&self) -> bool {
        self.state & STATE == PAID_BY_IMPORT
    }

    /// Whether an attempt is open.
    pub(crate) fn is_open(&self) -> bool {
        self.state & OPEN != 0
    }

    /// Whether an attempt is IN_DOUBT.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.state & IN_DOUBT != 0
    }

    /// Whether billing does not know if the invoice was charged, unless a run is unfinished. CHARGING without an open
    /// attempt is such a case: something is missing from the journal. So is an open attempt beside a CHARGED row, even
    /// if the journal says that no request was sent: the ledger contradicts it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_in_doubt()
            || self.state & SENT != 0
            || (self.state & STATE == CHARGING && !self.is_open())
            || (self.is_open() && self.is_settled())
    }

    /// Whether CHARGED rows back the invoice: by the key of a CHARGED attempt, or by any row if it has no attempts.
    pub(crate) fn is_backed(&self) -> bool {
        self.charges > 0 && (self.state & JOURNALED == 0 || self.state & KEYED != 0)
    }

    /// Whether the customer paid twice: two charges, or one of billing's for an invoice that was paid elsewhere. A
    /// charge without a key may be the same payment that was imported.
    pub(crate) fn is_paid_twice(&self) -> bool {
        self.charges >= 2 || (self.is_paid_by_import() && self.state & OURS != 0)
    }

    /// Whether a CHARGED row of the invoice was in the ledger before billing was read, so that billing must know it.
    pub(crate) fn is_settled(&self) -> bool {
        self.state & SETTLED != 0
    }

    /// Records that a CHARGED row has the key of an attempt.
    pub(crate) fn mark_keyed(&mut self, attempt_is_charged: bool) {
        self.state |= if attempt_is_charged { OURS | KEYED } else { OURS };
    }

    pub(crate) fn mark_settled(&mut self) {
        self.state |= SETTLED;
    }
}

/// One attempt; its terms are its invoice's unless [`BillingIndex::edited_terms`] has them.
#[derive(Clone, Copy, Debug)]
struct AttemptEntry {
    key: KeyBytes,
    slot: u32,
    is_charged: bool,
    is_open: bool,
    /// Whether the ledger has a row under its key.
    in_ledger: bool,
}

/// The attempt of a key: its invoice, its terms, and whether it is CHARGED.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyMatch {
    pub(crate) slot: InvoiceSlot,
    pub(crate) terms: Terms,
    pub(crate) is_charged: bool,
    at: usize,
}

/// The slot of an attempt without a known invoice.
const NO_INVOICE: u32 = u32::MAX;

/// The bytes of a reference that are indexed.
pub(crate) fn indexed_reference(reference: &str) -> &[u8] {
    let bytes = reference.as_bytes();
    &bytes[..bytes.len().min(usize::from(u16::MAX))]
}

/// Billing's side of the comparison. First all invoices are added, then all attempts; then it is searched.
#[derive(Debug, Default)]
pub(crate) struct BillingIndex {
    entries: Vec<InvoiceEntry>,
    texts: Vec<u8>,
    by_reference: Vec<u32>,
    attempts: Vec<AttemptEntry>,
    /// Terms of attempts that differ from those of the invoice, because the invoice was edited later.
    edited_terms: HashMap<KeyBytes, Terms>,
    pub(crate) currencies: Currencies,
}

impl BillingIndex {
    /// Reserves memory for this many invoices with one attempt each.
    pub(crate) fn with_capacity(invoices: usize, currencies: Currencies) -> Self {
        let mut index = Self { currencies, ..Self::default() };
        index.entries.reserve_exact(invoices);
        index.attempts.reserve_exact(invoices);
        index
    }

    /// Adds one invoice. A reference of over 65,535 bytes or 4 GiB of references in all are cut; billing has no such
    /// references.
    pub(crate) fn invoice(&mut self, fact: &InvoiceFact) {
        let state = match (fact.state, fact.paid_by) {
            // These invoices need no charge: a CHARGED row of one is a lost charge.
            (InvoiceState::Pending | InvoiceState::Cancelled, _) => PENDING,
            (InvoiceState::Charging, _) => CHARGING,
            (InvoiceState::Attention, _) => ATTENTION,
            (InvoiceState::Paid, Some(PaidBy::Import)) => PAID_BY_IMPORT,
            (InvoiceState::Paid, Some(PaidBy::Resolve)) => PAID_BY_RESOLVE,
            // If the list has no `paid_by`, a charge must back the invoice.
            (InvoiceState::Paid, Some(PaidBy::Charge) | None) => PAID_BY_CHARGE,
        };
        let text = indexed_reference(&fact.reference);
        let entry = InvoiceEntry {
            id: fact.id,
            customer_id: fact.customer_id,
            amount_minor: fact.amount_minor,
            first_seq: 0,
            text_start: u32::try_from(self.texts.len()).unwrap_or(u32::MAX),
            text_len: u16::try_from(text.len()).unwrap_or(u16::MAX),
            found: 0,
            charges: 0,
            currency: self.currencies.number_with(&fact.currency, fact.exponent),
            state,
        };
        self.texts.extend_from_slice(text);
        self.entries.push(entry);
    }

    /// Sorts the invoices; called once, after the last.
    pub(crate) fn finish_invoices(&mut self) {
        self.entries.sort_unstable_by_key(|entry| entry.id);
        let mut order: Vec<u32> =
            (0..self.entries.len()).filter_map(|slot| u32::try_from(slot).ok()).collect();
        order.sort_unstable_by(|a, b| self.text(*a).cmp(self.text(*b)));
        self.by_reference = order;
    }

    /// Adds one attempt; returns its invoice and its terms if the invoice is known.
    pub(crate) fn attempt(&mut self, fact: &AttemptFact) -> Option<(InvoiceSlot, Terms)> {
        let terms = Terms {
            customer_id: fact.customer_id,
            amount_minor: fact.amount_minor,
            currency: self.currencies.number_with(&fact.currency, fact.exponent),
        };
        let found = self.entries.binary_search_by_key(&fact.invoice_id, |entry| entry.id);
        let slot = found.ok().and_then(|slot| u32::try_from(slot).ok()).unwrap_or(NO_INVOICE);
        let key = key::parse(&fact.key);
        if let Some(key) = key {
            let (is_charged, is_open) = (fact.state == AttemptState::Charged, fact.state.is_open());
            self.attempts.push(AttemptEntry { key, slot, is_charged, is_open, in_ledger: false });
        }
        let entry = found.ok().map(|at| &mut self.entries[at])?;
        let marks = match fact.state {
            AttemptState::Intent if fact.sends > 0 => OPEN | SENT,
            AttemptState::Intent => OPEN,
            AttemptState::InDoubt => OPEN | SENT | IN_DOUBT,
            AttemptState::Charged | AttemptState::Refused | AttemptState::Rejected | AttemptState::Voided => {
                0
            }
        };
        entry.state |= JOURNALED | marks;
        if let Some(key) = key.filter(|_| entry.terms() != terms) {
            self.edited_terms.insert(key, terms);
        }
        Some((InvoiceSlot(slot), terms))
    }

    /// Sorts the attempts; called once, after the last.
    pub(crate) fn finish_attempts(&mut self) {
        self.attempts.sort_unstable_by_key(|attempt| attempt.key);
    }

    /// The attempt of a key, with its invoice and terms.
    pub(crate) fn by_key(&self, key: &KeyBytes) -> Option<KeyMatch> {
        let at = self.attempts.binary_search_by_key(key, |attempt| attempt.key).ok()?;
        let AttemptEntry { slot, is_charged, .. } = self.attempts[at];
        let entry = self.entries.get(slot as usize)?;
        let terms = self.edited_terms.get(key).copied().unwrap_or_else(|| entry.terms());
        Some(KeyMatch { slot: InvoiceSlot(slot), terms, is_charged, at })
    }

    /// Records that the ledger has a row under this key.
    pub(crate) fn mark_in_ledger(&mut self, found: &KeyMatch) {
        self.attempts[found.at].in_ledger = true;
    }

    /// Keys of open attempts of known invoices for which the ledger has shown no row.
    pub(crate) fn open_keys_not_in_ledger(&self) -> impl Iterator<Item = &KeyBytes> {
        let is_missing =
            |attempt: &&AttemptEntry| attempt.is_open && !attempt.in_ledger && attempt.slot != NO_INVOICE;
        self.attempts.iter().filter(is_missing).map(|attempt| &attempt.key)
    }

    /// The invoice with this reference.
    pub(crate) fn by_reference(&self, reference: &str) -> Option<InvoiceSlot> {
        let at =
            self.by_reference.binary_search_by(|slot| self.text(*slot).cmp(reference.as_bytes())).ok()?;
        Some(InvoiceSlot(self.by_reference[at]))
    }

    pub(crate) fn entry(&self, slot: InvoiceSlot) -> &InvoiceEntry {
        &self.entries[slot.0 as usize]
    }

    pub(crate) fn entry_mut(&mut self, slot: InvoiceSlot) -> &mut InvoiceEntry {
        &mut self.entries[slot.0 as usize]
    }

    /// The slots of all invoices.
    pub(crate) fn slots(&self) -> impl Iterator<Item = InvoiceSlot> + use<> {
        (0..u32::try_from(self.entries.len()).unwrap_or(u32::MAX)).map(InvoiceSlot)
    }

    /// Every key with its invoice, in one pass.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (InvoiceSlot, &KeyBytes)> {
        self.attempts.iter().map(|attempt| (InvoiceSlot(attempt.slot), &attempt.key))
    }

    pub(crate) fn reference(&self, slot: InvoiceSlot) -> String {
        String::from_utf8_lossy(self.text(slot.0)).into_owned()
    }

    fn text(&self, slot: u32) -> &[u8] {
        let entry = &self.entries[slot as usize];
        let start = entry.text_start as usize;
        self.texts.get(start..start + usize::from(entry.text_len)).unwrap_or_default()
    }

    /// Bytes of memory in use.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<InvoiceEntry>()
            + self.texts.capacity()
            + self.by_reference.capacity() * size_of::<u32>()
            + self.attempts.capacity() * size_of::<AttemptEntry>()
    }
}
