//! The kinds of rows that a file can hold: the columns of each kind, and which columns are special. Every reader and
//! every setting works for each kind. Knows no file and no row.

use std::fmt;

use billing::{import_row, subscription};

/// A kind of rows.
pub(crate) struct Target {
    /// The plural name of the rows, for messages.
    pub(crate) name: &'static str,
    /// Our names of the columns; the reference is the first.
    pub(crate) fields: &'static [&'static str],
    /// Columns that a CSV file must have.
    required: &'static [&'static str],
    pub(crate) currency: usize,
    pub(crate) amount: usize,
    /// The column that says what is paid.
    pub(crate) status: Option<usize>,
    /// The column that is no text, and so cannot be in a CSV file.
    pub(crate) json: Option<usize>,
    /// Columns that are never a JSON number.
    texts: &'static [&'static str],
    /// Whether a file may be written in part, and known rows be changed (--skip-bad, --update).
    pub(crate) is_partial: bool,
}

pub(crate) static INVOICES: Target = Target {
    name: "invoices",
    fields: &import_row::FIELDS,
    required: &["reference", "customer_id", "currency", "amount"],
    currency: 2,
    amount: 3,
    status: Some(4),
    json: None,
    texts: &["currency"],
    is_partial: true,
};

/// Subscriptions. Billing reports which further columns a row needs.
pub(crate) static SUBSCRIPTIONS: Target = Target {
    name: "subscriptions",
    fields: &subscription::FIELDS,
    required: &["reference", "currency", "amount", "starts_on"],
    currency: 3,
    amount: 4,
    status: None,
    json: Some(5),
    texts: &["currency", "zone", "at", "starts_on", "ends_on", "holidays", "state"],
    is_partial: false,
};

impl Target {
    pub(crate) fn is_required(&self, field: usize) -> bool {
        self.required.contains(&self.fields[field])
    }

    pub(crate) fn may_be_number(&self, field: usize) -> bool {
        !self.texts.contains(&self.fields[field])
    }

    /// The columns that a CSV file may have, for a message.
    pub(crate) fn columns(&self) -> String {
        let columns = self.fields.iter().enumerate().filter(|(field, _)| self.json != Some(*field));
        columns.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }
}

impl Default for &Target {
    fn default() -> Self {
        &INVOICES
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_special_columns_are_those_of_their_names() {
        for target in [&INVOICES, &SUBSCRIPTIONS] {
            let at = |name: &str| target.fields.iter().position(|field| *field == name);
            assert_eq!(at("reference"), Some(0));
            assert_eq!((at("currency"), at("amount")), (Some(target.currency), Some(target.amount)));
            assert_eq!((at("status"), at("prices")), (target.status, target.json));
            assert!(target.required.iter().chain(target.texts).all(|name| at(name).is_some()), "{target:?}");
        }
    }
}
