//! Billing's side of a verification, packed: one record an invoice, one an attempt, found by reference, number or key.
//! Holds and finds; judges nothing and reads from nowhere.
//!
//! Memory: 48 bytes, 4 of index and the reference's own length for an invoice, 24 bytes for an attempt; vectors
//! double as they grow. A million invoices with one attempt each stay under `BYTES_PER_INVOICE_MAX` each.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::facts::{AttemptFact, AttemptState, InvoiceFact, InvoiceState, PaidBy};

/// What an invoice with one attempt may cost at most, with a reference of 20 bytes and growing vectors.
#[cfg(test)]
pub(crate) const BYTES_PER_INVOICE_MAX: usize = 256;

/// The most currency codes told apart; billing knows five, old clients of the ledger may send any text.
const CURRENCIES_MAX: usize = 64;

/// What all codes beyond [`CURRENCIES_MAX`] are summed under.
const OTHER: &str = "other";

/// A key's 16 bytes.
pub(crate) type KeyBytes = [u8; 16];

/// Numbers an invoice's record here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

/// The bytes of a key of ours; `None` when the text is no such key.
pub(crate) fn key_bytes(text: &str) -> Option<KeyBytes> {
    let digits = text.as_bytes();
    let mut bytes = KeyBytes::default();
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(bytes)
}

/// A key as text.
pub(crate) fn key_text(bytes: &KeyBytes) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key that an attempt must have; worked out here anew, because a judge takes nobody's word for it.
pub(crate) fn key_of(deployment: Uuid, number: u32, reference: &str) -> KeyBytes {
    let hash =
        Sha256::new().chain_update(deployment).chain_update(number.to_be_bytes()).chain_update(reference);
    let mut bytes = KeyBytes::default();
    bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, digest)| *byte = digest);
    bytes
}

/// Who pays how much of what, with the currency as a number of this verification's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) customer_id: i64,
    pub(crate) amount_minor: i64,
    pub(crate) currency: u8,
}

/// One invoice.
#[derive(Debug)]
pub(crate) struct Entry {
    id: i64,
    customer_id: i64,
    amount_minor: i64,
    /// The first CHARGED row that names it.
    pub(crate) first_seq: i64,
    text_start: u32,
    text_len: u16,
    /// Kinds found already, one bit each.
    pub(crate) found: u16,
    /// CHARGED rows that name it.
    pub(crate) charges: u16,
    /// The state's number, and marks.
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
/// A CHARGED row of it stood in the ledger before billing was read.
const SETTLED: u16 = 1 << 3;
/// An attempt is open.
const OPEN: u16 = 1 << 4;
/// An attempt is in doubt.
const IN_DOUBT: u16 = 1 << 5;
/// A request for an open attempt may have left.
const SENT: u16 = 1 << 8;
/// A CHARGED row has the key of an attempt that is CHARGED.
const KEYED: u16 = 1 << 7;
/// It has attempts.
const JOURNALED: u16 = 1 << 9;
/// A CHARGED row has a key of its journal, whatever the journal says of it.
const OURS: u16 = 1 << 10;

impl Entry {
    pub(crate) fn data(&self) -> Data {
        Data { customer_id: self.customer_id, amount_minor: self.amount_minor, currency: self.currency }
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

    /// Whether nobody knows if it was charged, once no run is at work. CHARGING without an open attempt is such a
    /// case too: something is missing from the journal.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_in_doubt() || self.state & SENT != 0 || (self.state & STATE == CHARGING && !self.is_open())
    }

    /// Whether CHARGED rows back it: by the key of a CHARGED attempt, unless it has no journal at all.
    pub(crate) fn is_backed(&self) -> bool {
        self.charges > 0 && (self.state & JOURNALED == 0 || self.state & KEYED != 0)
    }

    /// Whether money moved twice for it: two charges, or one of ours for what was paid elsewhere. A charge without a
    /// key may be the very payment that was imported.
    pub(crate) fn is_paid_twice(&self) -> bool {
        self.charges >= 2 || (self.is_paid_by_import() && self.state & OURS != 0)
    }

    /// Whether a CHARGED row of it is so old that billing must know.
    pub(crate) fn is_settled(&self) -> bool {
        self.state & SETTLED != 0
    }

    /// A CHARGED row has the key of an attempt.
    pub(crate) fn mark_keyed(&mut self, attempt_is_charged: bool) {
        self.state |= if attempt_is_charged { OURS | KEYED } else { OURS };
    }

    pub(crate) fn mark_settled(&mut self) {
        self.state |= SETTLED;
    }
}

/// One attempt; its data are its invoice's unless [`Books::other`] has them.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: KeyBytes,
    slot: u32,
    is_charged: bool,
}

/// What a key stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) slot: Slot,
    pub(crate) data: Data,
    pub(crate) is_charged: bool,
}

/// An attempt that names no invoice.
const NO_SLOT: u32 = u32::MAX;

/// Billing's side. First all invoices, then all attempts, then questions.
#[derive(Debug, Default)]
pub(crate) struct Books {
    entries: Vec<Entry>,
    texts: Vec<u8>,
    by_reference: Vec<u32>,
    attempts: Vec<Known>,
    /// Data of attempts that differ from their invoice's, which was edited since.
    other: HashMap<KeyBytes, Data>,
    currencies: Vec<String>,
}

impl Books {
    /// Makes room for this many invoices, so that nothing need grow.
    pub(crate) fn with_room(invoices: usize) -> Self {
        let mut books = Self::default();
        books.entries.reserve_exact(invoices);
        books.attempts.reserve_exact(invoices);
        books
    }

    /// Takes one invoice. A reference of over 65,535 bytes or 4 GiB of references in all are cut; billing has none.
    pub(crate) fn invoice(&mut self, fact: &InvoiceFact) {
        let state = match (fact.state, fact.paid_by) {
            (InvoiceState::Pending, _) => PENDING,
            (InvoiceState::Charging, _) => CHARGING,
            (InvoiceState::Attention, _) => ATTENTION,
            (InvoiceState::Paid, Some(PaidBy::Import)) => PAID_BY_IMPORT,
            (InvoiceState::Paid, Some(PaidBy::Resolve)) => PAID_BY_RESOLVE,
            // Without a word on how, it must be backed.
            (InvoiceState::Paid, Some(PaidBy::Charge) | None) => PAID_BY_CHARGE,
        };
        let text_len = u16::try_from(fact.reference.len()).unwrap_or(u16::MAX);
        let entry = Entry {
            id: fact.id,
            customer_id: fact.customer_id,
            amount_minor: fact.amount_minor,
            first_seq: 0,
            text_start: u32::try_from(self.texts.len()).unwrap_or(u32::MAX),
            text_len,
            found: 0,
            charges: 0,
            currency: self.currency(&fact.currency),
            state,
        };
        self.texts.extend_from_slice(&fact.reference.as_bytes()[..usize::from(text_len)]);
        self.entries.push(entry);
    }

    /// All invoices are here.
    pub(crate) fn index_invoices(&mut self) {
        self.entries.sort_unstable_by_key(|entry| entry.id);
        let mut order: Vec<u32> =
            (0..self.entries.len()).filter_map(|slot| u32::try_from(slot).ok()).collect();
        order.sort_unstable_by(|a, b| self.text(*a).cmp(self.text(*b)));
        self.by_reference = order;
    }

    /// Takes one attempt; answers its invoice and its data if both are known.
    pub(crate) fn attempt(&mut self, fact: &AttemptFact) -> Option<(Slot, Data)> {
        let data = Data {
            customer_id: fact.customer_id,
            amount_minor: fact.amount_minor,
            currency: self.currency(&fact.currency),
        };
        let found = self.entries.binary_search_by_key(&fact.invoice_id, |entry| entry.id);
        let slot = found.ok().and_then(|slot| u32::try_from(slot).ok()).unwrap_or(NO_SLOT);
        let key = key_bytes(&fact.key)?;
        let is_charged = fact.state == AttemptState::Charged;
        self.attempts.push(Known { key, slot, is_charged });
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
        if entry.data() != data {
            self.other.insert(key, data);
        }
        Some((Slot(slot), data))
    }

    /// All attempts are here.
    pub(crate) fn index_attempts(&mut self) {
        self.attempts.sort_unstable_by_key(|known| known.key);
    }

    /// The invoice and the data that a key stands for.
    pub(crate) fn by_key(&self, key: &KeyBytes) -> Option<Sent> {
        let at = self.attempts.binary_search_by_key(key, |known| known.key).ok()?;
        let Known { slot, is_charged, .. } = self.attempts[at];
        let entry = self.entries.get(slot as usize)?;
        let data = self.other.get(key).copied().unwrap_or_else(|| entry.data());
        Some(Sent { slot: Slot(slot), data, is_charged })
    }

    /// The invoice with this reference.
    pub(crate) fn by_reference(&self, reference: &str) -> Option<Slot> {
        let at =
            self.by_reference.binary_search_by(|slot| self.text(*slot).cmp(reference.as_bytes())).ok()?;
        Some(Slot(self.by_reference[at]))
    }

    pub(crate) fn entry(&self, slot: Slot) -> &Entry {
        &self.entries[slot.0 as usize]
    }

    pub(crate) fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot.0 as usize]
    }

    /// Every invoice.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..u32::try_from(self.entries.len()).unwrap_or(u32::MAX)).map(Slot)
    }

    /// Every key with its invoice, in one pass.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Slot, &KeyBytes)> {
        self.attempts.iter().map(|known| (Slot(known.slot), &known.key))
    }

    pub(crate) fn reference(&self, slot: Slot) -> String {
        String::from_utf8_lossy(self.text(slot.0)).into_owned()
    }

    /// The number of a currency code here.
    pub(crate) fn currency(&mut self, code: &str) -> u8 {
        let known = self.currencies.iter().position(|known| known == code);
        let at = known.unwrap_or_else(|| {
            if self.currencies.len() < CURRENCIES_MAX {
                self.currencies
                    .push(if self.currencies.len() + 1 < CURRENCIES_MAX { code } else { OTHER }.to_owned());
            }
            self.currencies.len() - 1
        });
        u8::try_from(at).unwrap_or(u8::MAX)
    }

    /// The code of a number.
    pub(crate) fn currency_code(&self, currency: u8) -> &str {
        self.currencies.get(usize::from(currency)).map_or(OTHER, String::as_str)
    }

    fn text(&self, slot: u32) -> &[u8] {
        let entry = &self.entries[slot as usize];
        let start = entry.text_start as usize;
        self.texts.get(start..start + usize::from(entry.text_len)).unwrap_or_default()
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.texts.capacity()
            + self.by_reference.capacity() * size_of::<u32>()
            + self.attempts.capacity() * size_of::<Known>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_holds() {
        let deployment = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        assert_eq!(key_text(&key_of(deployment, 1, "I1")), "bca1897f57e947286a9d2dcb4be588f1");
    }
}
