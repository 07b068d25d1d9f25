//! What one file says twice: references that stand in it more than once, those that people cannot tell apart, customers
//! with two currencies. 32 bytes a row, so that a million rows take 32 MB, and about as much for each customer that is
//! named by a reference; keeps digests, no texts. Knows no format and no server.

use std::collections::HashMap;

use billing::customer::CustomerName;
use billing::invoice::{CustomerId, Reference};
use billing::money::Currency;
use sha2::{Digest, Sha256};

use super::row::{Fault, FileRow, Place};

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
    /// The id, or for a customer named by a reference a number above all ids; 0 of a row that is wrong.
    customer: u32,
    /// The line, or in a JSON array the index.
    at: u32,
    /// The currency's number in the lowest byte, below 24 bits of everything.
    data: u32,
}

const CURRENCY_BITS: u32 = 0xff;

/// `data` of a row that is wrong by itself: equal to no other row's data.
const WRONG: u32 = u32::MAX;

/// What rows of one reference, or of one customer, are compared by.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) customer: CustomerName,
    pub(crate) currency: Currency,
    /// The same text in each row that says the same.
    pub(crate) everything: String,
}

/// Everything read so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    rows: Vec<Trace>,
    is_array: bool,
    /// Numbers of the customers that are named by a reference, in the order of the file.
    customers: HashMap<[u32; 3], u32>,
}

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
    /// Lines or indexes of all repeats and contradictions, in order: they are not sent.
    pub(crate) skipped: Vec<u32>,
    is_array: bool,
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
    pub(crate) fn add(&mut self, row: &impl FileRow) -> bool {
        let (reference, place) = (row.reference(), row.place());
        let Some(Data { customer, currency, everything }) = row.data() else {
            return self.add_wrong(reference, place);
        };
        let [data] = digest(&everything);
        let customer = self.customer(&customer);
        self.push(reference, place, customer, data & !CURRENCY_BITS | u32::from(currency.number()))
    }

    fn customer(&mut self, name: &CustomerName) -> u32 {
        match name {
            CustomerName::Id(CustomerId(id)) => u32::try_from(*id).unwrap_or_default(),
            CustomerName::Reference(reference) => {
                // Ids end at `i32::MAX`, and there are fewer rows than numbers above it.
                let next = u32::MAX - u32::try_from(self.customers.len()).unwrap_or_default();
                *self.customers.entry(digest(reference.nfc())).or_insert(next)
            }
        }
    }

    /// Remembers the reference of a row that is wrong: another row of that name may be the wrong one.
    pub(crate) fn add_wrong(&mut self, reference: &Reference, place: Place) -> bool {
        self.push(reference, place, 0, WRONG)
    }

    fn push(&mut self, reference: &Reference, place: Place, customer: u32, data: u32) -> bool {
        let Ok(at) = u32::try_from(place.at()) else { return false };
        self.is_array = place.index.is_some();
        let (reference, skeleton) = (digest(reference.nfc()), digest(&reference.skeleton()));
        self.rows.push(Trace { reference, skeleton, customer, at, data });
        self.rows.len() < ROWS_MAX
    }

    /// Compares all rows of the file.
    pub(crate) fn repeats(mut self) -> Repeats {
        let mut repeats = Repeats { is_array: self.is_array, ..Repeats::default() };
        self.rows.sort_unstable_by_key(|row| (row.skeleton, row.reference, row.at));
        for rows in self.rows.chunk_by(|a, b| a.skeleton == b.skeleton) {
            repeats.compare_names(rows);
        }
        repeats.skipped.sort_unstable();
        let settled = repeats.skipped.len();
        self.rows.retain(|row| row.data != WRONG);
        self.rows.sort_unstable_by_key(|row| (row.customer, row.at));
        for rows in self.rows.chunk_by(|a, b| a.customer == b.customer) {
            repeats.compare_currencies(rows, settled);
        }
        repeats.skipped.sort_unstable();
        repeats.skipped.dedup();
        for findings in [&mut repeats.faults, &mut repeats.repeated, &mut repeats.look_alikes] {
            findings.sort_by_key(|fault| fault.place().at());
        }
        repeats
    }
}

impl Repeats {
    fn place(&self, at: u32) -> Place {
        let at = at.into();
        if self.is_array { Place { line: 0, index: Some(at) } } else { Place { line: at, index: None } }
    }

    /// Rows of one skeleton, by name and place.
    fn compare_names(&mut self, rows: &[Trace]) {
        let first = rows.iter().map(|row| row.at).min().unwrap_or_default();
        for same_name in rows.chunk_by(|a, b| a.reference == b.reference) {
            let [row, more @ ..] = same_name else { continue };
            if row.at != first {
                self.alike += 1;
                let place = self.place(row.at);
                let reason = format!(
                    "differs from that of {} only by case, compatibility form, spaces or dashes",
                    self.place(first)
                );
                list(&mut self.look_alikes, place, "reference", reason);
            }
            let differs = more.iter().any(|other| other.data != row.data || other.data == WRONG);
            for (at, repeat) in same_name.iter().enumerate() {
                let other = if at == 0 { more.first() } else { Some(row) };
                let Some(other) = other else { continue };
                if differs {
                    self.contradict(repeat, other);
                } else if at > 0 {
                    self.same += 1;
                    self.skipped.push(repeat.at);
                    let (place, other) = (self.place(repeat.at), self.place(other.at));
                    list(&mut self.repeated, place, "reference", format!("repeats {other}"));
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
        self.skipped.push(row.at);
        let (place, other) = (self.place(row.at), self.place(other.at));
        list(&mut self.faults, place, "reference", format!("stands in {other} with other data"));
    }

    /// Rows of one customer, by place; the first `settled` of the skipped ones are counted already.
    fn compare_currencies(&mut self, rows: &[Trace], settled: usize) {
        let currency = rows[0].data & CURRENCY_BITS;
        for row in rows.iter().filter(|row| row.data & CURRENCY_BITS != currency) {
            self.contradicting += u64::from(self.skipped[..settled].binary_search(&row.at).is_err());
            self.skipped.push(row.at);
            let (place, first) = (self.place(row.at), self.place(rows[0].at));
            let reason = format!("differs from {first}, and a customer has one currency");
            list(&mut self.faults, place, "currency", reason);
        }
    }
}

fn list(findings: &mut Vec<Fault>, place: Place, column: &'static str, reason: String) {
    if findings.len() < LISTED_MAX {
        findings.push(Fault::new(place.line, column, reason).at(place.index, None));
    }
}

#[cfg(test)]
mod tests {
    use billing::money::{Amount, Currency};

    use super::super::row::Row;
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
        for (reference, line) in [("I1", 3), ("I2", 4)] {
            seen.add_wrong(&Reference::new(reference).unwrap(), Place { line, index: None });
        }
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
    fn elements_of_an_array_on_one_line_are_told_apart() {
        let element =
            |index, reference| Row { index: Some(index), ..row(1, reference, 1, Currency::EUR, "1") };
        let repeats = seen(&[element(0, "I1"), element(1, "I2"), element(2, "I1"), element(3, "i2")]);
        assert_eq!((repeats.same, repeats.skipped), (1, vec![2]));
        assert_eq!(repeats.repeated[0].to_string(), "index 2, column reference: repeats index 0");
        assert!(
            repeats.look_alikes[0]
                .to_string()
                .starts_with("index 3, column reference: differs from that of index 1")
        );
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
