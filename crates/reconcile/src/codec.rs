//! Invoices, attempts and ledger rows as short records, each of which can be read again exactly as it was. Pure; knows
//! neither files nor the comparison.

use crate::facts::{AttemptFact, AttemptState, InvoiceFact, InvoiceState, LedgerRow, PaidBy, RowState};
use crate::key::{self, KeyBytes};

const INVOICE_STATES: [InvoiceState; 5] = [
    InvoiceState::Pending,
    InvoiceState::Charging,
    InvoiceState::Paid,
    InvoiceState::Attention,
    InvoiceState::Cancelled,
];
const PAID_BY: [Option<PaidBy>; 4] =
    [None, Some(PaidBy::Charge), Some(PaidBy::Import), Some(PaidBy::Resolve)];
const ATTEMPT_STATES: [AttemptState; 6] = [
    AttemptState::Intent,
    AttemptState::Charged,
    AttemptState::Refused,
    AttemptState::Rejected,
    AttemptState::InDoubt,
    AttemptState::Voided,
];
const ROW_STATES: [RowState; 3] = [RowState::Charged, RowState::Refused, RowState::Voided];

/// How a key is written: absent, as its bytes, or as text where its bytes would not restore the same text.
const NO_KEY: u8 = 0;
const KEY_BYTES: u8 = 1;
const KEY_TEXT: u8 = 2;

/// Writes one record.
#[derive(Debug, Default)]
pub(crate) struct Record(Vec<u8>);

impl Record {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn invoice(&mut self, fact: &InvoiceFact) {
        self.0.clear();
        self.signed(fact.id);
        self.text(&fact.reference);
        self.signed(fact.customer_id);
        self.text(&fact.currency);
        self.signed(fact.amount_minor);
        self.0.push(fact.exponent);
        self.place(&INVOICE_STATES, &fact.state);
        self.place(&PAID_BY, &fact.paid_by);
    }

    pub(crate) fn attempt(&mut self, fact: &AttemptFact) {
        self.0.clear();
        self.signed(fact.invoice_id);
        self.key(Some(&fact.key));
        self.place(&ATTEMPT_STATES, &fact.state);
        self.unsigned(fact.number.into());
        self.signed(fact.customer_id);
        self.text(&fact.currency);
        self.signed(fact.amount_minor);
        self.0.push(fact.exponent);
        self.signed(fact.sends);
    }

    /// Writes a ledger row; `place` is its position in the ledger's list.
    pub(crate) fn row(&mut self, place: u64, row: &LedgerRow) {
        self.0.clear();
        self.unsigned(place);
        self.key(row.key.as_deref());
        self.optional(row.reference.as_deref(), Self::text);
        self.signed(row.seq);
        self.optional(row.customer_id, Self::signed);
        self.optional(row.currency.as_deref(), Self::text);
        self.optional(row.amount_minor, Self::signed);
        self.0.push(row.exponent);
        self.place(&ROW_STATES, &row.state);
    }

    /// Writes seven bits per byte, the lowest first.
    fn unsigned(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    /// Writes a number with the sign in the lowest bit, so that small negative numbers are short too.
    fn signed(&mut self, value: i64) {
        self.unsigned((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
    }

    fn text(&mut self, text: &str) {
        self.unsigned(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.0.push(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn place<T: PartialEq>(&mut self, of: &[T], value: &T) {
        let place = of.iter().position(|one| one == value).and_then(|place| u8::try_from(place).ok());
        self.0.push(place.expect("each state has its place"));
    }

    fn key(&mut self, key: Option<&str>) {
        // A key in capitals has the same bytes, but findings show the original text.
        match (key, key.and_then(key::parse)) {
            (None, _) => self.0.push(NO_KEY),
            (Some(text), Some(bytes)) if key::text(&bytes) == text => {
                self.0.push(KEY_BYTES);
                self.0.extend_from_slice(&bytes);
            }
            (Some(text), _) => {
                self.0.push(KEY_TEXT);
                self.text(text);
            }
        }
    }
}

/// A key as it was written.
#[derive(Clone, Copy, Debug)]
enum KeyField<'a> {
    Bytes(KeyBytes),
    Text(&'a str),
}

impl KeyField<'_> {
    fn bytes(self) -> Option<KeyBytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Text(text) => key::parse(text),
        }
    }

    fn into_text(self) -> String {
        match self {
            Self::Bytes(bytes) => key::text(&bytes),
            Self::Text(text) => text.to_owned(),
        }
    }
}

/// The fields by which an invoice is looked up.
#[derive(Debug)]
pub(crate) struct InvoiceHead<'a> {
    pub(crate) id: i64,
    pub(crate) reference: &'a str,
}

/// The fields by which an attempt is looked up.
#[derive(Debug)]
pub(crate) struct AttemptHead {
    pub(crate) invoice_id: i64,
    pub(crate) key: Option<KeyBytes>,
    pub(crate) is_open: bool,
}

/// The fields by which a row is looked up.
#[derive(Debug)]
pub(crate) struct RowHead<'a> {
    pub(crate) place: u64,
    pub(crate) key: Option<KeyBytes>,
    pub(crate) reference: Option<&'a str>,
}

/// Reads one record; each method returns `None` where the record is damaged.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn invoice_head(mut self) -> Option<InvoiceHead<'a>> {
        Some(InvoiceHead { id: self.signed()?, reference: self.text()? })
    }

    pub(crate) fn attempt_head(mut self) -> Option<AttemptHead> {
        let invoice_id = self.signed()?;
        let key = self.key()??.bytes();
        Some(AttemptHead { invoice_id, key, is_open: self.place(&ATTEMPT_STATES)?.is_open() })
    }

    pub(crate) fn row_head(mut self) -> Option<RowHead<'a>> {
        let place = self.unsigned()?;
        let key = self.key()?.and_then(KeyField::bytes);
        Some(RowHead { place, key, reference: self.optional(Self::text)? })
    }

    pub(crate) fn invoice(mut self) -> Option<InvoiceFact> {
        Some(InvoiceFact {
            id: self.signed()?,
            reference: self.text()?.to_owned(),
            customer_id: self.signed()?,
            currency: self.text()?.to_owned(),
            amount_minor: self.signed()?,
            exponent: self.byte()?,
            state: self.place(&INVOICE_STATES)?,
            paid_by: self.place(&PAID_BY)?,
        })
    }

    pub(crate) fn attempt(mut self) -> Option<AttemptFact> {
        let (invoice_id, key) = (self.signed()?, self.key()??.into_text());
        Some(AttemptFact {
            invoice_id,
            key,
            state: self.place(&ATTEMPT_STATES)?,
            number: self.unsigned()?.try_into().ok()?,
            customer_id: self.signed()?,
            currency: self.text()?.to_owned(),
            amount_minor: self.signed()?,
            exponent: self.byte()?,
            sends: self.signed()?,
        })
    }

    pub(crate) fn row(mut self) -> Option<LedgerRow> {
        let _place = self.unsigned()?;
        let key = self.key()?.map(KeyField::into_text);
        Some(LedgerRow {
            key,
            reference: self.optional(Self::text)?.map(str::to_owned),
            seq: self.signed()?,
            customer_id: self.optional(Self::signed)?,
            currency: self.optional(Self::text)?.map(str::to_owned),
            amount_minor: self.optional(Self::signed)?,
            exponent: self.byte()?,
            state: self.place(&ROW_STATES)?,
        })
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.unsigned()?).ok()?;
        str::from_utf8(self.bytes(length)?).ok()
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.byte()? == 0 { Some(None) } else { read(self).map(Some) }
    }

    fn place<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(usize::from(self.byte()?)).copied()
    }

    fn key(&mut self) -> Option<Option<KeyField<'a>>> {
        match self.byte()? {
            NO_KEY => Some(None),
            KEY_BYTES => Some(Some(KeyField::Bytes(self.bytes(size_of::<KeyBytes>())?.try_into().ok()?))),
            KEY_TEXT => Some(Some(KeyField::Text(self.text()?))),
            _ => None,
        }
    }
}
