//! Repeats in one file: references that appear more than once, references that look the same to a reader, customers
//! with two currencies. 32 bytes a row, so that a million rows take 32 MB; stores digests, no texts. Knows no format
//! and no server.

use billing::invoice::Reference;
use sha2::{Digest, Sha256};

use super::row::{Fault, Row};

/// Maximum number of rows in one file, at 32 bytes a row.
pub(crate) const ROWS_MAX: usize = 20_000_000;

/// Findings of one kind that are kept as text; all are counted.
pub(crate) const LISTED_MAX: usize = 100;

/// The digests of a row: 96 bits of a SHA-256 of the reference's NFC form, 64 of its skeleton, and 24 of the data. 24
/// suffice, because billing finds a difference that they miss at the second row.
#[derive(Clone, Copy, Debug)]
struct Trace {
    reference: [u32; 3],
    skeleton: [u32; 2],
    /// 0 for a wrong row.
    customer_id: u32,
    line: u32,
    /// The currency's number in the lowest byte, and 24 bits of the data's digest above it.
    data: u32,
}

const CURRENCY_BITS: u32 = 0xff;

/// `data` of a row that is wrong by itself: equal to no other row's data.
const WRONG: u32 = u32::MAX;

/// Digests of all rows read so far.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<Trace>);

/// Repeats, contradictions and look-alikes of the whole file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Repeats {
    /// Number of rows that repeat an earlier row with the same data.
    pub(crate) same: u64,
    /// The first repeats.
    pub(crate) repeated: Vec<Fault>,
    /// Number of rows that are valid by themselves and contradicted by another row, the first of each name included.
    pub(crate) contradicting: u64,
    /// The first contradictions.
    pub(crate) faults: Vec<Fault>,
    /// Number of rows whose reference is hard to distinguish from an earlier one.
    pub(crate) alike: u64,
    /// The first look-alikes.
    pub(crate) look_alikes: Vec<Fault>,
    /// Lines of all repeats and contradictions, in order; these rows are not sent.
    pub(crate) skipped: Vec<u32>,
}

fn digest<const N: usize>(text: &str) -> [u32; N] {
    let digest = Sha256::digest(text.as_bytes());
    let mut words = digest.chunks_exact(4);
    [(); N].map(|()| words.next().map_or(0, number))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

impl Seen {
    /// Remembers a row; `false` when the file has too many rows or lines.
    pub(crate) fn add(&mut self, row: &Row) -> bool {
        let mut data = Sha256::new();
        data.update(row.customer_id.to_be_bytes());
        data.update(row.amount.minor().to_be_bytes());
        data.update([u8::from(row.paid)]);
        data.update(row.currency.code());
        let data = number(&data.finalize()) & !CURRENCY_BITS | u32::from(row.currency.number());
        self.push(&row.reference, row.line, row.customer_id.unsigned_abs(), data)
    }

    /// Remembers the reference of a wrong row: another row of that name may be the wrong one.
    pub(crate) fn add_wrong(&mut self, reference: &Reference, line: u64) -> bool {
        self.push(reference, line, 0, WRONG)
    }

    fn push(&mut self, reference: &Reference, line: u64, customer_id: u32, data: u32) -> bool {
        let Ok(line) = u32::try_from(line) else { return false };
        let (reference, skeleton) = (digest(reference.nfc()), digest(&reference.skeleton()));
        self.0.push(Trace { reference, skeleton, customer_id, line, data });
        self.0.len() < ROWS_MAX
    }

    /// Compares all rows of the file.
    pub(crate) fn repeats(mut self) -> Repeats {
        let mut repeats = Repeats::default();
        self.0.sort_unstable_by_key(|row| (row.skeleton, row.reference, row.line));
        for rows in self.0.chunk_by(|a, b| a.skeleton == b.skeleton) {
            repeats.compare_names(rows);
        }
        repeats.skipped.sort_unstable();
        let settled = repeats.skipped.len();
        self.0.retain(|row| row.data != WRONG);
        self.0.sort_unstable_by_key(|row| (row.customer_id, row.line));
        for rows in self.0.chunk_by(|a, b| a.customer_id == b.customer_id) {
            repeats.compare_currencies(rows, settled);
        }
        repeats.skipped.sort_unstable();
        repeats.skipped.dedup();
        for findings in [&mut repeats.faults, &mut repeats.repeated, &mut repeats.look_alikes] {
            findings.sort_by_key(|fault| fault.line);
        }
        repeats
    }
}

impl Repeats {
    /// Compares rows of one skeleton, ordered by name and line.
    fn compare_names(&mut self, rows: &[Trace]) {
        let first = rows.iter().map(|row| row.line).min().unwrap_or_default();
        for same_name in rows.chunk_by(|a, b| a.reference == b.reference) {
            let [row, more @ ..] = same_name else { continue };
            if row.line != first {
                self.alike += 1;
                let reason = format!(
                    "differs from that of line {first} only by case, compatibility form, spaces or dashes"
                );
                list(&mut self.look_alikes, row.line, "reference", reason);
            }
            let differs = more.iter().any(|other| other.data != row.data || other.data == WRONG);
            for (at, repeat) in same_name.iter().enumerate() {
                let other = if at == 0 { more.first() } else { Some(row) };
                let Some(other) = other else { continue };
                if differs {
                    self.contradict(repeat, other);
                } else if at > 0 {
                    self.same += 1;
                    self.skipped.push(repeat.line);
                    list(
                        &mut self.repeated,
                        repeat.line,
                        "reference",
                        format!("repeats line {}", other.line),
                    );
                }
            }
        }
    }

    /// Records a contradiction. It is unknown which of two rows is right, so neither is sent.
    fn contradict(&mut self, row: &Trace, other: &Trace) {
        if row.data == WRONG {
            return;
        }
        self.contradicting += 1;
        self.skipped.push(row.line);
        list(
            &mut self.faults,
            row.line,
            "reference",
            format!("stands in line {} with other data", other.line),
        );
    }

    /// Compares rows of one customer, ordered by line; the first `settled` skipped lines are counted already.
    fn compare_currencies(&mut self, rows: &[Trace], settled: usize) {
        let currency = rows[0].data & CURRENCY_BITS;
        for row in rows.iter().filter(|row| row.data & CURRENCY_BITS != currency) {
            self.contradicting += u64::from(self.skipped[..settled].binary_search(&row.line).is_err());
            self.skipped.push(row.line);
            let reason = format!("differs from line {}, and a customer has one currency", rows[0].line);
            list(&mut self.faults, row.line, "currency", reason);
        }
    }
}

fn list(findings: &mut Vec<Fault>, line: u32, column: &'static str, reason: String) {
    if findings.len() < LISTED_MAX {
        findings.push(Fault::new(line.into(), column, reason));
    }
}

#[cfg(test)]
mod tests {
    use billing::money::{Amount, Currency};

    use super::*;

    fn row(line: u64, reference: &str, customer_id: i32, currency: Currency, amount: &str) -> Row {
        Row {
            line,
            index: None,
            reference: Reference::new(reference).unwrap(),
            customer_id,
            currency,
            amount: Amount::parse(amount, currency).unwrap(),
            paid: false,
        }
    }

    fn seen(rows: &[Row]) -> Repeats {
        let mut seen = Seen::default();
        assert!(rows.iter().all(|row| seen.add(row)));
        seen.repeats()
    }

    fn told(faults: &[Fault]) -> Vec<(u64, &str)> {
        faults.iter().map(|fault| (fault.line, fault.column.as_ref())).collect()
    }

    #[test]
    fn repeats_are_reported_from_contradictions_and_of_those_no_row_is_sent() {
        let repeats = seen(&[
            row(2, "I1", 1, Currency::EUR, "1.00"),
            row(3, "I2", 1, Currency::EUR, "1.00"),
            row(4, "I1", 1, Currency::EUR, "1"),
            row(5, "I2", 1, Currency::EUR, "1.01"),
            row(6, "I3", 1, Currency::USD, "1.00"),
            row(7, "I4", 2, Currency::USD, "1.00"),
        ]);
        assert_eq!((repeats.same, told(&repeats.repeated)), (1, vec![(4, "reference")]));
        assert_eq!((repeats.contradicting, repeats.skipped.as_slice()), (3, &[3, 4, 5, 6][..]));
        assert_eq!(told(&repeats.faults), [(3, "reference"), (5, "reference"), (6, "currency")]);
        assert!(repeats.faults[0].reason.contains("line 5") && repeats.faults[1].reason.contains("line 3"));
    }

    #[test]
    fn the_name_of_a_wrong_row_makes_its_other_rows_doubtful() {
        let mut seen = Seen::default();
        seen.add(&row(2, "I1", 1, Currency::EUR, "1"));
        seen.add_wrong(&Reference::new("I1").unwrap(), 3);
        seen.add_wrong(&Reference::new("I2").unwrap(), 4);
        let repeats = seen.repeats();
        assert_eq!(
            (repeats.contradicting, repeats.skipped, told(&repeats.faults)),
            (1, vec![2], vec![(2, "reference")])
        );
    }

    #[test]
    fn names_are_compared_by_nfc_and_look_alikes_are_reported() {
        let repeats = seen(&[
            row(2, "caf\u{e9}", 1, Currency::EUR, "1"),
            row(3, "cafe\u{301}", 1, Currency::EUR, "1"),
            row(4, "Caf\u{e9}", 1, Currency::EUR, "1"),
            row(5, "INV 1", 1, Currency::EUR, "1"),
            row(6, "inv1", 1, Currency::EUR, "2"),
            row(7, "other", 1, Currency::EUR, "2"),
        ]);
        assert_eq!((repeats.same, repeats.contradicting), (1, 0));
        assert_eq!(
            (repeats.alike, told(&repeats.look_alikes)),
            (2, vec![(4, "reference"), (6, "reference")])
        );
        assert!(repeats.look_alikes[1].reason.contains("line 5"), "{repeats:?}");
    }

    #[test]
    fn findings_are_listed_to_a_limit_and_all_are_counted() {
        let rows: Vec<Row> = (1..=500).map(|line| row(line, "I1", 1, Currency::EUR, "1")).collect();
        let repeats = seen(&rows);
        assert_eq!((repeats.same, repeats.repeated.len(), repeats.skipped.len()), (499, LISTED_MAX, 499));
    }

    #[test]
    fn each_currency_differs_from_each_other() {
        for one in Currency::all() {
            for other in Currency::all().filter(|other| *other > one) {
                let repeats = seen(&[row(1, "a", 1, one, "1"), row(2, "b", 1, other, "1")]);
                assert_eq!(told(&repeats.faults), [(2, "currency")], "{one} {other}");
            }
        }
    }

    #[test]
    fn a_row_costs_32_bytes() {
        assert_eq!(size_of::<Trace>(), 32);
    }
}
