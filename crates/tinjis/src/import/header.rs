//! A CSV file's header: which column holds which field, by name or by the user's map. Pure: knows no row.

use unicode_normalization::UnicodeNormalization;

use super::row::{Fault, quote_value};
use super::settings::Dialect;

/// Maximum number of names in a message.
const LISTED_MAX: usize = 30;

/// The columns of a file.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    /// For each column of the target, its index in a record.
    pub(crate) places: Vec<Option<usize>>,
    pub(crate) width: usize,
    /// Columns that are ignored.
    pub(crate) ignored: Vec<String>,
}

/// Finds the columns. Without `--ignore-unknown-columns` every name must be known. With it, a column that may say what
/// is paid is still an error: ignoring a `status` would charge what is paid.
pub(crate) fn find_columns(line: u64, names: &[String], dialect: &Dialect) -> Result<Columns, Fault> {
    let folded: Vec<String> = names.iter().map(|name| fold(name)).collect();
    let fields = dialect.target.fields.len();
    let mut columns = Columns { width: names.len(), places: vec![None; fields], ignored: Vec::new() };
    let mut mistakes = Vec::new();
    for (at, name) in folded.iter().enumerate() {
        let field = (0..fields)
            .filter(|field| dialect.target.json != Some(*field))
            .find(|field| dialect.source(*field).is_some_and(|source| fold(source) == *name));
        match field {
            Some(field) if columns.places[field].is_some() => mistakes
                .push(format!("{} stands twice: remove one, or rename it and use --map", names[at].trim())),
            Some(field) => columns.places[field] = Some(at),
            None if dialect.ignore_unknown_columns => columns.ignored.push(names[at].trim().to_owned()),
            None if name.is_empty() => mistakes.push(format!("column {} has no name", at + 1)),
            None => mistakes.push(format!("{} is no column", quote_value(&names[at]))),
        }
    }
    mistakes.extend((0..fields).filter_map(|field| check_column(field, &columns, dialect)));
    mistakes.extend(unread_status(&columns, dialect));
    if mistakes.is_empty() {
        return Ok(columns);
    }
    let more = mistakes.len().saturating_sub(LISTED_MAX);
    mistakes.truncate(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let needed = dialect.target.columns();
    let hint = hint(names, dialect);
    Err(Fault::new(line, "header", format!("{}{more}; the columns are {needed}{hint}", mistakes.join(", "))))
}

fn check_column(field: usize, columns: &Columns, dialect: &Dialect) -> Option<String> {
    let target = dialect.target;
    let is_given = field == target.currency && dialect.currency.is_some();
    if columns.places[field].is_some() || is_given && !dialect.is_mapped(field) {
        return None;
    }
    match dialect.source(field) {
        Some(source) if dialect.is_mapped(field) => {
            Some(format!("{} is missing, which --map names as {}", quote_value(source), target.fields[field]))
        }
        None if target.is_required(field) && !is_given => {
            Some(format!("{} is needed, and --map gives it no source", target.fields[field]))
        }
        Some(name) if target.is_required(field) => Some(format!("{name} is missing")),
        Some(name) if dialect.has_meanings(field) => {
            Some(format!("{name} is missing, and --status says what its values mean"))
        }
        _ => None,
    }
}

/// The error for an ignored column that may say what is paid.
fn unread_status(columns: &Columns, dialect: &Dialect) -> Option<String> {
    let status = dialect.target.status?;
    let is_decided = columns.places[status].is_some() || dialect.source(status).is_none();
    let name = columns.ignored.iter().find(|name| !is_decided && may_be_status(name))?;
    Some(must_be_decided(name))
}

/// What to do about an ignored column or field that may say what is paid.
pub(crate) fn must_be_decided(name: &str) -> String {
    format!(
        "{} may tell what is paid: give --map status={name}, or --map status= if every row is to be charged",
        quote_value(name)
    )
}

/// Parts of names that may tell what is paid, in the languages that `--explain` knows; the likeliest first. What is
/// not listed here is passed over, and what is paid is charged.
const STATUS_PARTS: [&str; 25] = [
    "status",
    "statut",
    "paid",
    "settle",
    "bezahlt",
    "gezahlt",
    "beglichen",
    "ausgeglichen",
    "betalt",
    "betald",
    "pay\u{e9}",
    "r\u{e9}gl\u{e9}",
    "sold\u{e9}",
    "acquitt\u{e9}",
    "pagad",
    "cobrad",
    "liquidad",
    "paymentdate",
    "dateofpayment",
    "paymentreceived",
    "zahlungsdatum",
    "zahlungseingang",
    "datedepaiement",
    "fechadepago",
    "betalningsdatum",
];

/// Names that addresses have too: they count alone, or beside a word for what is paid.
const STATES: [&str; 8] =
    ["state", "zustand", "tilstand", "tillst\u{e5}nd", "\u{e9}tat", "etat", "estado", "paye"];
const BESIDE_STATES: [&str; 9] =
    ["payment", "invoice", "order", "document", "zahlung", "rechnung", "faktura", "paiement", "pago"];

/// How likely a column's name is one for the status, also misspelt: the lower the likelier. `None` for other names.
pub(crate) fn status_rank(name: &str) -> Option<usize> {
    let name: String =
        letters_and_digits(name).chars().filter(|character| character.is_alphabetic()).collect();
    let mut letters: Vec<char> = name.chars().collect();
    letters.sort_unstable();
    let is_misspelt = letters.iter().collect::<String>() == "assttu";
    let is_state = |state: &&str| {
        let beside = name.strip_prefix(*state).or_else(|| name.strip_suffix(*state));
        beside
            .is_some_and(|beside| beside.is_empty() || BESIDE_STATES.iter().any(|word| beside.contains(word)))
    };
    let is_first = is_misspelt || STATES.iter().any(is_state);
    if is_first { Some(0) } else { STATUS_PARTS.iter().position(|part| name.contains(part)) }
}

/// Whether a column's name may be one for the status.
pub(crate) fn may_be_status(name: &str) -> bool {
    status_rank(name).is_some()
}

fn hint(names: &[String], dialect: &Dialect) -> &'static str {
    let only = names.first().map(String::as_str).filter(|_| names.len() == 1).unwrap_or_default();
    let is_strict = !dialect.ignore_unknown_columns;
    match only {
        _ if only.contains(';') => " (fields are separated by commas, or give --delimiter ';')",
        _ if only.contains('\t') => " (fields are separated by commas, or give --delimiter tab)",
        _ if names.len() == 1 => " (fields are separated by commas, or as --delimiter says)",
        _ if is_strict => {
            "; --map names other columns, --ignore-unknown-columns passes the rest over, --explain proposes both"
        }
        _ => "; --map names other columns, --explain proposes it",
    }
}

/// The form in which names are compared: lower case, without spaces around, letters with marks in NFC.
pub(crate) fn fold(name: &str) -> String {
    name.trim().nfc().flat_map(char::to_lowercase).collect()
}

/// The letters and digits of a name: tools write `isPaid`, `is_paid` and `Is paid`.
pub(crate) fn letters_and_digits(name: &str) -> String {
    fold(name).chars().filter(|character| character.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::settings::dialect;
    use super::*;

    fn found(header: &str, profile: &str) -> Result<Vec<Option<usize>>, String> {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        find_columns(1, &names, &dialect(profile)).map(|columns| columns.places).map_err(|fault| fault.reason)
    }

    #[test]
    fn mapped_columns_are_found_in_any_case_and_order() {
        let profile = "map = { reference = 'Rechnung', amount = 'BETRAG', customer_id = 'Kunde' }";
        let places = found("kunde,Betrag , rechnung,currency", profile).unwrap();
        assert_eq!(places, [Some(2), Some(0), Some(3), Some(1), None]);
    }

    #[test]
    fn unknown_columns_are_errors_unless_they_are_to_be_passed_over() {
        let header = "reference,customer_id,currency,amount,Notes,";
        let why = found(header, "").unwrap_err();
        for part in ["\"Notes\" is no column", "column 6 has no name", "--ignore-unknown-columns"] {
            assert!(why.contains(part), "{why}");
        }
        assert!(found(header, "ignore-unknown-columns = true").is_ok());
        assert!(found("reference,customer_id,currency,amount,x,x", "ignore-unknown-columns = true").is_ok());
    }

    #[test]
    fn a_column_that_may_tell_what_is_paid_is_not_passed_over() {
        let names = "Financial Status,stauts,State,paid,isPaid,paidAt,paid_on,Date Paid,Amount Paid,settled,Settled At,\
            paymentState,Bezahlt am,Statut,\u{c9}tat,Betald,estado,Estado de pago,Pagada";
        for name in names.split(',') {
            let header = format!("reference,customer_id,currency,amount,{name}");
            let why = found(&header, "ignore-unknown-columns = true").unwrap_err();
            assert!(why.contains("--map status="), "{why}");
            assert!(found(&header, "ignore-unknown-columns = true\nmap = { status = '' }").is_ok());
            let mapped = format!("ignore-unknown-columns = true\nmap = {{ status = '{name}' }}");
            assert_eq!(found(&header, &mapped).unwrap()[4], Some(4));
        }
    }

    #[test]
    fn addresses_and_recipients_are_passed_over() {
        for name in ["Billing State", "State/Province", "Statement", "Estate", "Payee", "Payment Method"] {
            let header = format!("reference,customer_id,currency,amount,{name}");
            assert!(found(&header, "ignore-unknown-columns = true").is_ok(), "{name}");
        }
    }

    #[test]
    fn a_name_is_found_however_its_marks_are_written() {
        let header = "reference,customer_id,Wa\u{308}hrung,amount";
        let places = found(header, "map = { currency = 'W\u{e4}hrung' }").unwrap();
        assert_eq!(places[2], Some(2));
    }

    #[test]
    fn statuses_that_have_meanings_need_their_column() {
        let header = "reference,customer_id,currency,amount";
        let why = found(header, "status = { open = 'PENDING' }").unwrap_err();
        assert!(why.contains("status is missing, and --status says"), "{why}");
        assert!(found(header, "status = { open = 'PENDING' }\nmap = { status = '' }").is_ok());
    }

    #[test]
    fn a_source_that_is_missing_or_stands_twice_is_reported() {
        let why = found("reference,customer_id,currency,x", "map = { amount = 'Total' }").unwrap_err();
        assert!(why.contains("\"Total\" is missing") && why.contains("\"x\" is no column"), "{why}");
        assert!(
            found("reference,customer_id,currency,amount,amount", "").unwrap_err().contains("stands twice")
        );
        assert!(found("reference,customer_id,amount", "currency = 'EUR'").is_ok());
        assert!(found("reference;customer_id", "").unwrap_err().contains("--delimiter ';'"));
    }
}
