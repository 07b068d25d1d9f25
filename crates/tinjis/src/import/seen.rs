//! What one file says twice: references that stand in it more than once, customers with two currencies.
//! 24 bytes a row, so that a million rows take 24 MB; keeps digests, no texts. Knows no format and no server.

use sha2::{Digest, Sha256};

use super::row::{Fault, Row};

/// The most rows of one file; at 24 bytes a row.
pub(crate) const ROWS_MAX: usize = 20_000_000;

/// A row's trace. 96 bits of a reference's SHA-256 are the reference; 29 bits of the data's suffice, because a
/// difference that they miss is found by billing at the second row.
#[derive(Clone, Copy, Debug)]
struct Trace {
    reference_high: u64,
    reference_low: u32,
    customer_id: u32,
    line: u32,
    /// Three bits of currency below 29 of everything.
    data: u32,
}

const CURRENCY_BITS: u32 = 0b111;

/// Everything read so far.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<Trace>);

/// What the whole file showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Repeats {
    /// Lines of rows that say again what an earlier row said, in order.
    pub(crate) same: Vec<u64>,
    /// Rows that contradict an earlier row, by line.
    pub(crate) faults: Vec<Fault>,
}

impl Repeats {
    /// How many rows contradict an earlier one.
    pub(crate) fn contradicting(&self) -> u64 {
        self.faults.chunk_by(|a, b| a.line == b.line).count() as u64
    }

    /// Lines of all repeats and contradictions, in order.
    pub(crate) fn lines(&self) -> Vec<u64> {
        let mut lines: Vec<u64> =
            self.same.iter().copied().chain(self.faults.iter().map(|fault| fault.line)).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }
}

impl Seen {
    /// Remembers a row; `false` when the file has more rows or lines than can be told apart.
    pub(crate) fn add(&mut self, row: &Row) -> bool {
        let Ok(line) = u32::try_from(row.line) else { return false };
        let digest = Sha256::digest(row.reference.as_str().as_bytes());
        let currency = billing::money::Currency::KNOWN.iter().position(|known| *known == row.currency);
        let mut data = Sha256::new();
        data.update(row.customer_id.to_be_bytes());
        data.update(row.amount.minor().to_be_bytes());
        data.update([u8::from(row.paid)]);
        data.update(row.currency.code());
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
        self.0.push(Trace {
            reference_high: number(&digest[..8]),
            reference_low: low(number(&digest[8..12])),
            customer_id: row.customer_id.unsigned_abs(),
            line,
            data: low(number(&data.finalize()[..4])) & !CURRENCY_BITS
                | u32::try_from(currency.unwrap_or_default()).unwrap_or_default(),
        });
        self.0.len() < ROWS_MAX
    }

    /// Compares all rows with each other.
    pub(crate) fn repeats(mut self) -> Repeats {
        let mut repeats = Repeats::default();
        self.0.sort_unstable_by_key(|row| (row.reference_high, row.reference_low, row.line));
        let same_reference =
            |a: &Trace, b: &Trace| (a.reference_high, a.reference_low) == (b.reference_high, b.reference_low);
        for rows in self.0.chunk_by(same_reference) {
            for row in &rows[1..] {
                if row.data == rows[0].data {
                    repeats.same.push(row.line.into());
                } else {
                    let reason = format!("stands in line {} with other data", rows[0].line);
                    repeats.faults.push(Fault::new(row.line.into(), "reference", reason));
                }
            }
        }
        self.0.sort_unstable_by_key(|row| (row.customer_id, row.line));
        for rows in self.0.chunk_by(|a, b| a.customer_id == b.customer_id) {
            let currency = rows[0].data & CURRENCY_BITS;
            for row in rows.iter().filter(|row| row.data & CURRENCY_BITS != currency) {
                let reason = format!("differs from line {}, and a customer has one currency", rows[0].line);
                repeats.faults.push(Fault::new(row.line.into(), "currency", reason));
            }
        }
        repeats.faults.sort_by_key(|fault| fault.line);
        repeats.same.sort_unstable();
        repeats
    }
}

#[cfg(test)]
mod tests {
    use billing::invoice::Reference;
    use billing::money::Currency;

    use super::*;

    fn row(line: u64, reference: &str, customer_id: i32, currency: Currency, amount: &str) -> Row {
        Row {
            line,
            reference: Reference::new(reference).unwrap(),
            customer_id,
            currency,
            amount: amount.parse().unwrap(),
            paid: false,
        }
    }

    #[test]
    fn repeats_are_told_from_contradictions() {
        let mut seen = Seen::default();
        for row in [
            row(2, "I1", 1, Currency::Eur, "1.00"),
            row(3, "I2", 1, Currency::Eur, "1.00"),
            row(4, "I1", 1, Currency::Eur, "1"),
            row(5, "I2", 1, Currency::Eur, "1.01"),
            row(6, "I3", 1, Currency::Usd, "1.00"),
            row(7, "I4", 2, Currency::Usd, "1.00"),
        ] {
            assert!(seen.add(&row));
        }
        let repeats = seen.repeats();
        assert_eq!(repeats.same, [4]);
        assert_eq!((repeats.contradicting(), repeats.lines()), (2, vec![4, 5, 6]));
        let told: Vec<_> = repeats.faults.iter().map(|fault| (fault.line, fault.column.as_ref())).collect();
        assert_eq!(told, [(5, "reference"), (6, "currency")]);
        assert!(repeats.faults[0].reason.contains("line 3"), "{repeats:?}");
    }

    #[test]
    fn a_row_costs_24_bytes() {
        assert_eq!(size_of::<Trace>(), 24);
    }
}
