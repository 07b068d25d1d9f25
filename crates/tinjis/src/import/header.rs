//! A CSV file's header: which column holds which field, by name or by the user's map. Pure: knows no row.

use super::row::{Fault, shown};
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
pub(crate) fn columns(line: u64, names: &[String], dialect: &Dialect) -> Result<Columns, Fault> {
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
            None => mistakes.push(format!("{} is no column", shown(&names[at]))),
        }
    }
    mistakes.extend((0..fields).filter_map(|field| missing(field, &columns, dialect)));
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

fn missing(field: usize, columns: &Columns, dialect: &Dialect) -> Option<String> {
    let target = dialect.target;
    let is_given = field == target.currency && dialect.currency.is_some();
    if columns.places[field].is_some() || is_given && !dialect.is_mapped(field) {
        return None;
    }
    match dialect.source(field) {
        Some(source) if dialect.is_mapped(field) => {
            Some(format!("{} is missing, which --map names as {}", shown(source), target.fields[field]))
        }
        None if target.is_required(field) && !is_given => {
            Some(format!("{} is needed, and --map gives it no source", target.fields[field]))
        }
        Some(name) if target.is_required(field) => Some(format!("{name} is missing")),
        _ => None,
    }
}

/// The error for an ignored column that may say what is paid.
fn unread_status(columns: &Columns, dialect: &Dialect) -> Option<String> {
    let status = dialect.target.status?;
    let is_decided = columns.places[status].is_some() || dialect.source(status).is_none();
    let name = columns.ignored.iter().find(|name| !is_decided && may_be_status(name))?;
    Some(format!(
        "{} may tell what is paid: give --map status={name}, or --map status= if every row is to be charged",
        shown(name)
    ))
}

/// Whether a column's name may mean the status, also misspelt.
pub(crate) fn may_be_status(name: &str) -> bool {
    let name = fold(name);
    let mut letters: Vec<char> = name.chars().collect();
    letters.sort_unstable();
    let is_misspelt = letters.iter().collect::<String>() == "assttu";
    name.contains("status")
        || is_misspelt
        || ["state", "paid", "is_paid", "paid_at", "paid at"].contains(&name.as_str())
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

/// The form in which names are compared: lower case, without spaces around.
pub(crate) fn fold(name: &str) -> String {
    name.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::settings::dialect;
    use super::*;

    fn found(header: &str, profile: &str) -> Result<Vec<Option<usize>>, String> {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        columns(1, &names, &dialect(profile)).map(|columns| columns.places).map_err(|fault| fault.reason)
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
        for name in ["Financial Status", "stauts", "State", "paid"] {
            let header = format!("reference,customer_id,currency,amount,{name}");
            let why = found(&header, "ignore-unknown-columns = true").unwrap_err();
            assert!(why.contains("--map status="), "{why}");
            assert!(found(&header, "ignore-unknown-columns = true\nmap = { status = '' }").is_ok());
            let mapped = format!("ignore-unknown-columns = true\nmap = {{ status = '{name}' }}");
            assert_eq!(found(&header, &mapped).unwrap()[4], Some(4));
        }
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
