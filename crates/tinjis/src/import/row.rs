//! One row of an import: from a source's texts to billing's types, or every mistake in it. Billing's own rules say what
//! is allowed; this module knows what other tools do to values. Pure: knows no format, no other rows, no server.

use std::borrow::Cow;
use std::fmt;

use api::billing::ImportRow;
use billing::customer::CustomerName;
use billing::import_row;
use billing::invoice::{CustomerId, Reference};
use billing::money::{Amount, Currency};
use chassis::currency::EXPONENT_OF_HUNDREDTHS;

use super::amount;
use super::seen::Data;
use super::settings::{Dialect, Meaning};
use crate::deployments::{INVOICES, Kind};

/// Where a row stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Line number, counted from 1, the header included.
    pub(crate) line: u64,
    /// Index in a JSON array, where lines may not identify a row: counted from 0.
    pub(crate) index: Option<u64>,
}

impl Place {
    /// What no other row of the file has: several elements of an array may stand on one line.
    pub(crate) fn at(self) -> u64 {
        self.index.unwrap_or(self.line)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            // Of an element of which only the index was kept.
            Self { line: 0, index: Some(index) } => write!(f, "index {index}"),
            Self { line, index: Some(index) } => write!(f, "line {line}, index {index}"),
            Self { line, index: None } => write!(f, "line {line}"),
        }
    }
}

/// A mistake in a row, or in the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: u64,
    pub(crate) index: Option<u64>,
    /// The row's reference, if it is known.
    pub(crate) reference: Option<String>,
    /// The column's name; `row` for the row as a whole.
    pub(crate) column: Cow<'static, str>,
    /// What is wrong and what is allowed.
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(line: u64, column: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { line, index: None, reference: None, column: column.into(), reason: reason.into() }
    }

    /// A fault of a row as a whole.
    pub(crate) fn row(line: u64, reason: impl Into<String>) -> Self {
        Self::new(line, "row", reason)
    }

    pub(crate) fn place(&self) -> Place {
        Place { line: self.line, index: self.index }
    }

    /// The same with the column as its file has it.
    pub(crate) fn of_file(mut self, dialect: &Dialect) -> Self {
        if let Some(field) = dialect.target.fields.iter().position(|field| *field == self.column) {
            self.column = column(field, dialect);
        }
        self
    }

    /// The same in a row that is known better.
    pub(crate) fn at(mut self, index: Option<u64>, reference: Option<String>) -> Self {
        self.index = index.or(self.index);
        self.reference = reference.or(self.reference);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place())?;
        if let Some(reference) = &self.reference {
            write!(f, ", reference {}", quote_value(reference))?;
        }
        write!(f, ", column {}: {}", self.column, self.reason)
    }
}

/// A row of one kind that is right by itself, as far as its file shows.
pub(crate) trait FileRow: Sized {
    const KIND: &'static Kind;

    fn judge(place: Place, values: &[Value<'_>], dialect: &Dialect) -> Judged<Self>;

    fn place(&self) -> Place;

    fn reference(&self) -> &Reference;

    /// What another row of this reference has to agree with; `None` where billing will refuse the row.
    fn data(&self) -> Option<Data>;

    /// A line of the body that billing takes.
    fn json(&self) -> Vec<u8>;
}

/// An invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) line: u64,
    pub(crate) index: Option<u64>,
    pub(crate) reference: Reference,
    pub(crate) customer_id: i32,
    pub(crate) currency: Currency,
    pub(crate) amount: Amount,
    pub(crate) paid: bool,
}

impl Row {
    /// As billing takes it.
    pub(crate) fn wire(&self) -> ImportRow {
        ImportRow {
            reference: self.reference.as_str().to_owned(),
            customer_id: self.customer_id,
            currency: self.currency.to_string(),
            amount: self.amount.to_string(),
            status: if self.paid { "PAID" } else { "PENDING" }.into(),
        }
    }
}

impl FileRow for Row {
    const KIND: &'static Kind = &INVOICES;

    fn judge(place: Place, values: &[Value<'_>], dialect: &Dialect) -> Judged {
        validate_invoice(place, values, dialect)
    }

    fn place(&self) -> Place {
        Place { line: self.line, index: self.index }
    }

    fn reference(&self) -> &Reference {
        &self.reference
    }

    fn data(&self) -> Option<Data> {
        let Self { customer_id, currency, amount, paid, .. } = self;
        let everything = format!("{customer_id} {currency} {} {paid}", amount.minor());
        let customer = CustomerName::Id(CustomerId((*customer_id).into()));
        Some(Data { customer, currency: *currency, everything })
    }

    fn json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(&self.wire()).expect("a checked row is always JSON");
        json.push(b'\n');
        json
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged<R = Row> {
    Good(R),
    /// Left out by its status.
    Skipped,
    Bad {
        faults: Vec<Fault>,
        /// The row's reference, if it is valid.
        reference: Option<Reference>,
    },
}

/// One value from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    /// The digits of a JSON number, which contains no separators of the dialect.
    Number(Cow<'a, str>),
    /// The value is absent.
    Missing,
    /// The value is present, but not as text, with the reason.
    Bad(&'static str),
    /// JSON of the one column that is no text.
    Json(Cow<'a, str>),
}

/// The values of a row, by the columns of its target.
pub(crate) type Values<'a> = Vec<Value<'a>>;

/// Checks an invoice; finds every mistake in it.
pub(crate) fn validate_invoice(place: Place, values: &[Value<'_>], dialect: &Dialect) -> Judged {
    let values: &[Value<'_>; 5] = values.try_into().expect("a row has the columns of an invoice");
    let [reference, customer_id, currency, amount, status] = values;
    let status = parse_status(status, dialect);
    if status == Ok(Meaning::Skip) {
        return Judged::Skipped;
    }
    let shown_reference = text_of(reference);
    let mut faults = Vec::new();
    let mut fault = |field: usize, reason: String| {
        let column = column(field, dialect);
        faults.push(Fault::new(place.line, column, reason).at(place.index, shown_reference.clone()));
    };
    let reference = parse_reference(reference, dialect).map_err(|why| fault(0, why)).ok();
    let customer_id = parse_customer_id(customer_id).map_err(|why| fault(1, why)).ok();
    let currency = parse_currency(currency, dialect).map_err(|why| fault(2, why)).ok();
    let amount = parse_amount(amount, dialect, currency).map_err(|why| fault(3, why)).ok().flatten();
    let paid = status.map(|meaning| meaning == Meaning::Paid).map_err(|why| fault(4, why)).ok();
    match (reference, customer_id, currency, amount, paid) {
        (Some(reference), Some(customer_id), Some(currency), Some(amount), Some(paid)) => {
            let Place { line, index } = place;
            Judged::Good(Row { line, index, reference, customer_id, currency, amount, paid })
        }
        (reference, ..) => Judged::Bad { faults, reference },
    }
}

/// The text by which a message names the row.
pub(crate) fn text_of(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Text(text) | Value::Number(text) if !text.is_empty() => Some(text.to_string()),
        _ => None,
    }
}

/// Our name of the column, with the name in the file if that differs.
pub(crate) fn column(field: usize, dialect: &Dialect) -> Cow<'static, str> {
    let name = dialect.target.fields[field];
    match dialect.source(field) {
        Some(source) if dialect.is_mapped(field) => Cow::Owned(format!("{name} ({})", quote_value(source))),
        _ => Cow::Borrowed(name),
    }
}

fn require_text<'a>(value: &'a Value<'_>) -> Result<&'a str, String> {
    match value {
        Value::Text(text) if text.is_empty() => Err("is empty".to_owned()),
        Value::Text(text) | Value::Number(text) => Ok(text),
        Value::Missing => Err("is missing".to_owned()),
        Value::Bad(why) => Err((*why).to_owned()),
        Value::Json(_) => Err("must be text".to_owned()),
    }
}

pub(crate) fn parse_reference(value: &Value<'_>, dialect: &Dialect) -> Result<Reference, String> {
    if let Value::Number(digits) = value {
        // Only a mapped field may be a number, because other tools number their invoices; a fraction or an exponent is
        // never a reference.
        let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
        if !(dialect.is_mapped(0) && is_whole) {
            return Err(format!(
                "must be text: write {:?} in quotes, or map the field by --map",
                digits.as_ref()
            ));
        }
    }
    let text = require_text(value)?;
    check_spreadsheet_error(text)?;
    if is_shortened_number(text) {
        return Err(format!(
            "{} is a number that a spreadsheet has shortened: format the column as text and export again",
            quote_value(text)
        ));
    }
    import_row::parse_reference(text)
}

/// Whether the text is a shortened number, such as `1.23457E+11`, `1,23E+11`, `-1.5E-05` or `1.23E15`. A name may look
/// like `1E5`.
fn is_shortened_number(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once(['E', 'e']) else { return false };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let decimals = mantissa.split_once(['.', ',']);
    let (whole, behind) = decimals.unwrap_or((mantissa, "0"));
    let signed = exponent.strip_prefix(['+', '-']);
    (signed.is_some() || decimals.is_some())
        && is_digits(signed.unwrap_or(exponent))
        && is_digits(whole)
        && is_digits(behind)
}

/// Refuses what a spreadsheet exports in place of a value: rows would share it as if it were a name.
pub(crate) fn check_spreadsheet_error(text: &str) -> Result<(), String> {
    let why = "stands for an error of a spreadsheet: correct it there and export again";
    if is_spreadsheet_error(text) { Err(format!("{} {why}", quote_value(text))) } else { Ok(()) }
}

/// `#NAME?`, `#DIV/0!`, `#N/A` and its German form `#NV`, `Err:502`, and the marks of a column that is too narrow.
fn is_spreadsheet_error(text: &str) -> bool {
    let code = text.strip_prefix("Err:").is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(name) = text.strip_prefix('#') else { return code };
    let is_word =
        |word: &str| word.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'/' | b'0' | b'_'));
    matches!(name, "N/A" | "NV")
        || name.strip_suffix(['!', '?']).is_some_and(is_word)
        || !name.is_empty() && name.bytes().all(|byte| byte == b'#')
}

fn parse_customer_id(value: &Value<'_>) -> Result<i32, String> {
    let text = require_text(value)?;
    import_row::parse_customer_id(text).map_err(|why| format!("{why}, not {}", quote_value(text)))
}

pub(crate) fn parse_currency(value: &Value<'_>, dialect: &Dialect) -> Result<Currency, String> {
    if let (Value::Missing, Some(currency)) = (value, dialect.currency) {
        return Ok(currency);
    }
    let text = require_text(value)?;
    // Tools that write `eur` do so in a column of their own, which was mapped.
    let upper =
        if dialect.is_mapped(dialect.target.currency) { text.to_ascii_uppercase() } else { text.to_owned() };
    let currency =
        import_row::parse_currency(&upper).map_err(|why| format!("{why}, not {}", quote_value(text)))?;
    match dialect.currency {
        Some(only) if only != currency => {
            Err(format!("is {currency}, and --currency says {only} of every row"))
        }
        _ => Ok(currency),
    }
}

/// Parses an amount. `None` for a valid amount of some currency, when the row's currency is unknown.
pub(crate) fn parse_amount(
    value: &Value<'_>,
    dialect: &Dialect,
    currency: Option<Currency>,
) -> Result<Option<Amount>, String> {
    let text = require_text(value)?;
    let refused = |why: String| format!("{why}, not {}", quote_value(text));
    let exponent = currency.map_or(EXPONENT_OF_HUNDREDTHS, Currency::exponent);
    let plain = match value {
        Value::Number(_) if !dialect.minor_units => Cow::Borrowed(text),
        _ => amount::to_decimal_text(text, dialect, exponent)
            .map_err(|why| format!("{} {why}", quote_value(text)))?,
    };
    match currency {
        Some(currency) => import_row::parse_amount(&plain, currency).map(Some).map_err(refused),
        None => Amount::check(&plain).map(|()| None).map_err(|why| refused(why.to_string())),
    }
}

/// No value is PENDING only in the column of our own format: in another tool's it may stand for what is paid.
fn parse_status(value: &Value<'_>, dialect: &Dialect) -> Result<Meaning, String> {
    const SAY: &str = "say what that means by --status, as =PENDING, =PAID or =SKIP";
    let text = match value {
        Value::Missing => "",
        Value::Bad(why) => return Err((*why).to_owned()),
        Value::Text(text) | Value::Number(text) | Value::Json(text) => text.as_ref(),
    };
    let status = dialect.target.status.and_then(|field| Some((dialect.source(field)?, field)));
    let Some((source, field)) = status else { return Ok(Meaning::Pending) };
    if let Some(statuses) = &dialect.statuses {
        let known = || statuses.keys().map(|name| quote_value(name)).collect::<Vec<_>>().join(", ");
        return statuses.get(text).copied().ok_or_else(|| match text {
            "" => format!("is missing or empty, which --status ({}) does not name: {SAY}", known()),
            _ => format!(
                "{} is none of the statuses of --status ({}): say what it means",
                quote_value(text),
                known()
            ),
        });
    }
    match text {
        "" if source == dialect.target.fields[field] => return Ok(Meaning::Pending),
        "" => return Err(format!("is missing or empty: {SAY}")),
        _ => {}
    }
    let paid = import_row::parse_status(text);
    paid.map(|paid| if paid { Meaning::Paid } else { Meaning::Pending }).map_err(|why| {
        format!("{why}, not {}; --status says what a tool's own words mean", quote_value(text))
    })
}

/// Why a valid reference is suspicious: it looks like a spreadsheet's version of another text.
pub(crate) fn suspicion(reference: &str) -> Option<&'static str> {
    match reference.as_bytes() {
        [b'=' | b'@', ..] => return Some("begins like a formula of a spreadsheet"),
        [b'+' | b'-', rest @ ..] if rest.first().is_some_and(u8::is_ascii_digit) => {
            return Some("begins like a formula of a spreadsheet");
        }
        _ => {}
    }
    if ["TRUE", "FALSE", "WAHR", "FALSCH"].contains(&reference) {
        return Some("is what spreadsheets make of the words true and false");
    }
    is_date(reference).then_some("looks like a date, which spreadsheets make of names like 1-2")
}

fn is_date(text: &str) -> bool {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let parts: Vec<&str> = text.split(['-', '/', '.', ' ']).collect();
    let is_number =
        |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_month = |part: &str| MONTHS.contains(&part.to_ascii_lowercase().as_str());
    match parts.as_slice() {
        [first, second] => is_month(first) && is_number(second) || is_number(first) && is_month(second),
        [first, second, third] => {
            let small =
                |part: &str, max: u32| part.parse().is_ok_and(|number: u32| (1..=max).contains(&number));
            let is_ordered = first.len() == 4 && small(second, 12) && small(third, 31)
                || third.len() >= 2 && small(first, 31) && small(second, 31);
            is_number(first) && is_number(third) && (is_month(second) || is_number(second) && is_ordered)
        }
        _ => false,
    }
}

/// A value for a message: quoted, escaped and cut.
pub(crate) fn quote_value(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::super::settings::dialect;
    use super::*;

    const PLACE: Place = Place { line: 7, index: None };

    fn values<'a>(texts: [&'a str; 5]) -> Values<'a> {
        texts.map(|text| Value::Text(Cow::Borrowed(text))).to_vec()
    }

    fn good(values: &Values<'_>, profile: &str) -> Row {
        match validate_invoice(PLACE, values, &dialect(profile)) {
            Judged::Good(row) => row,
            other => panic!("{other:?}"),
        }
    }

    fn faults(values: &Values<'_>, profile: &str) -> Vec<Fault> {
        match validate_invoice(PLACE, values, &dialect(profile)) {
            Judged::Bad { faults, .. } => faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_row_is_sent_in_billings_json() {
        let row = good(&values(["I1", "1", "EUR", "12.15", "PAID"]), "");
        let json = serde_json::to_string(&row.wire()).unwrap();
        assert_eq!(
            json,
            r#"{"reference":"I1","customer_id":1,"currency":"EUR","amount":"12.15","status":"PAID"}"#
        );
    }

    #[test]
    fn without_a_status_an_invoice_is_pending() {
        let mut row_values = values(["I1", "1", "EUR", "186", ""]);
        assert!(!good(&row_values, "").paid);
        row_values[4] = Value::Missing;
        assert!(!good(&row_values, "").paid);
    }

    #[test]
    fn every_mistake_of_a_row_is_reported_with_its_place_and_column() {
        let faults = faults(&values([" I1", "0", "eur", "1,5", "paid"]), "");
        let columns: Vec<_> = faults.iter().map(|fault| fault.column.as_ref()).collect();
        assert_eq!(columns, import_row::FIELDS);
        assert!(
            faults[1].to_string().starts_with("line 7, reference \" I1\", column customer_id: "),
            "{faults:?}"
        );
        let mut bad = values(["A", "0", "EUR", "1", ""]);
        bad[0] = Value::Missing;
        let place = Place { line: 1, index: Some(4) };
        let Judged::Bad { faults, .. } = validate_invoice(place, &bad, &Dialect::default()) else { panic!() };
        assert_eq!(faults[0].to_string(), "line 1, index 4, column reference: is missing");
    }

    #[test]
    fn numbers_that_only_look_like_numbers_are_refused() {
        for customer in ["+1", "-1", "1.0", "1e3", " 1", "2147483648", "٣"] {
            faults(&values(["I1", customer, "EUR", "1", ""]), "");
        }
        for amount in [
            "1,50",
            "1.500",
            "-1",
            "1,000.00",
            "NaN",
            "inf",
            "0x10",
            " 1",
            "£1",
            "1e400",
            ".5",
            "5.",
            "+5",
            "012.15",
            "９.００",
        ] {
            faults(&values(["I1", "1", "EUR", amount, ""]), "");
        }
    }

    #[test]
    fn a_reference_that_a_spreadsheet_has_shortened_is_refused() {
        for reference in
            ["1.23457E+11", "1,23E+11", "2E+05", "1.23E15", "1.23457E-05", "5E-05", "-1.23E+11", "-1.5E3"]
        {
            let faults = faults(&values([reference, "1", "EUR", "1", ""]), "");
            assert!(faults[0].reason.contains("spreadsheet"), "{reference}: {faults:?}");
        }
        for reference in ["1E5", "-1E5", "E+11", "SE+11", "1.2.3E+4", "12E"] {
            good(&values([reference, "1", "EUR", "1", ""]), "");
        }
    }

    #[test]
    fn an_error_of_a_spreadsheet_is_no_reference() {
        for reference in
            ["########", "##", "#NAME?", "#N/A", "#NV", "#REF!", "#DIV/0!", "#VALUE!", "#BEZUG!", "Err:502"]
        {
            let faults = faults(&values([reference, "1", "EUR", "1", ""]), "");
            assert!(faults[0].reason.contains("error of a spreadsheet"), "{reference}: {faults:?}");
        }
        for reference in ["#1001", "#A-1", "#", "#NEW", "Err", "Err:x", "A#"] {
            good(&values([reference, "1", "EUR", "1", ""]), "");
        }
    }

    #[test]
    fn no_status_is_pending_only_in_a_column_of_our_own() {
        let missing = |status: Value<'static>| {
            let mut row = values(["I1", "1", "EUR", "1", ""]);
            row[4] = status;
            row
        };
        for none in [Value::Missing, Value::Text(Cow::Borrowed(""))] {
            let row = missing(none);
            for profile in [
                "map = { status = 'state' }",
                "status = { paid = 'PAID' }",
                "map = { status = 'state' }\nstatus = { paid = 'PAID' }",
            ] {
                let faults = faults(&row, profile);
                assert!(faults[0].reason.contains("as =PENDING, =PAID or =SKIP"), "{profile}: {faults:?}");
            }
            let meaning = "map = { status = 'state' }\nstatus = { '' = 'PAID' }";
            assert!(good(&row, meaning).paid);
            for profile in ["", "map = { status = 'status' }", "map = { status = '' }"] {
                assert!(!good(&row, profile).paid, "{profile}");
            }
        }
    }

    #[test]
    fn statuses_mean_what_was_said_and_nothing_else() {
        let profile = "status = { open = 'PENDING', paid = 'PAID', void = 'SKIP' }";
        let row = |status| values(["I1", "1", "EUR", "1", status]);
        assert!(good(&row("paid"), profile).paid && !good(&row("open"), profile).paid);
        assert_eq!(validate_invoice(PLACE, &row("void"), &dialect(profile)), Judged::Skipped);
        for status in ["PAID", "", "Paid"] {
            assert!(faults(&row(status), profile)[0].reason.contains("\"open\", \"paid\", \"void\""));
        }
        assert!(faults(&row("paid"), "")[0].reason.contains("--status"));
    }

    #[test]
    fn one_currency_may_be_named_for_every_row() {
        let mut row = values(["I1", "1", "", "1", ""]);
        row[2] = Value::Missing;
        assert_eq!(good(&row, "currency = 'SEK'").currency, Currency::SEK);
        assert!(
            faults(&values(["I1", "1", "EUR", "1", ""]), "currency = 'SEK'")[0].reason.contains("--currency")
        );
        assert_eq!(
            good(&values(["I1", "1", "eur", "1", ""]), "map = { currency = 'x' }").currency,
            Currency::EUR
        );
    }

    #[test]
    fn numbers_of_json_have_no_separators_of_people() {
        let mut row = values(["I1", "1", "EUR", "", ""]);
        row[3] = Value::Number(Cow::Borrowed("12.15"));
        assert_eq!(good(&row, "decimal-comma = true").amount.minor(), 1215);
        row[3] = Value::Number(Cow::Borrowed("1215"));
        assert_eq!(good(&row, "minor-units = true").amount.minor(), 1215);
        row[3] = Value::Number(Cow::Borrowed("1e2"));
        assert!(faults(&row, "")[0].reason.contains("exponent"));
        row[3] = Value::Number(Cow::Borrowed("1"));
        row[0] = Value::Number(Cow::Borrowed("12345"));
        assert!(faults(&row, "")[0].reason.contains("must be text"));
        assert_eq!(good(&row, "map = { reference = 'number' }").reference.as_str(), "12345");
    }

    #[test]
    fn what_spreadsheets_make_of_names_is_suspected() {
        for reference in ["02-Jan", "Jan-26", "2026-11-28", "28.11.2026", "1/2/26", "2-Jan-2026"] {
            assert!(suspicion(reference).unwrap().contains("date"), "{reference}");
        }
        for reference in ["TRUE", "FALSCH"] {
            assert!(suspicion(reference).unwrap().contains("true and false"), "{reference}");
        }
        for reference in ["=1+1", "@SUM(A1)", "+1-2", "-5"] {
            assert!(suspicion(reference).unwrap().contains("formula"), "{reference}");
        }
        for reference in ["INV-1", "2026-0001", "RE-2026-11", "1-2", "A/1/2", "123456", "2026-13-45", "-x"] {
            assert_eq!(suspicion(reference), None, "{reference}");
        }
    }
}
