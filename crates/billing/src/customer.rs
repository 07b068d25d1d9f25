//! How a source names a customer: by its own number, or by a reference for which billing assigns a number. Pure; must
//! not know a store.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::import_row;
use crate::invoice::{CustomerId, Reference};
use crate::subscription::Mistake;

/// The customer's name at the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CustomerName {
    /// The source's own number, which the provider gets.
    Id(CustomerId),
    /// The source's own text.
    Reference(Reference),
}

impl CustomerName {
    /// Reads the two fields, exactly one of which is given.
    ///
    /// # Errors
    /// The field at fault, and what is allowed.
    pub fn read(id: Option<&str>, reference: Option<&str>) -> Result<Self, Mistake> {
        match (id, reference) {
            (Some(id), None) => import_row::parse_customer_id(id)
                .map(|id| Self::Id(CustomerId(id.into())))
                .map_err(|problem| ("customer_id", problem)),
            (None, Some(text)) => {
                let wrong = |problem: String| ("customer_reference", problem);
                let reference = import_row::parse_reference(text).map_err(wrong)?;
                // Two spellings of one name would be two customers.
                match reference.nfc_if_other() {
                    Some(_) => Err(wrong("must be in Unicode normal form C".to_owned())),
                    None => Ok(Self::Reference(reference)),
                }
            }
            (Some(_), Some(_)) => Err((
                "customer_reference",
                "must not be given beside customer_id; give one of the two".to_owned(),
            )),
            (None, None) => Err(("customer_id", "is missing; give it or customer_reference".to_owned())),
        }
    }

    /// The name of the field that holds the value.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Id(_) => "customer_id",
            Self::Reference(_) => "customer_reference",
        }
    }
}

impl fmt::Display for CustomerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(CustomerId(id)) => id.fmt(f),
            Self::Reference(reference) => reference.as_str().fmt(f),
        }
    }
}

/// The numbers that a reference may get, tried in this order. With a million customers all of them are taken once in
/// 10^12 cases.
pub const NUMBERS: usize = 4;

/// The least number that billing assigns: the upper half of the positive 32-bit integers that existing clients read.
const NUMBER_MIN: u32 = 1 << 30;

/// Derives the numbers from the reference alone, so that a customer gets the same number after a restore and in another
/// order of rows. The provider compares this number on a resend, because it is part of the charge.
#[must_use]
pub fn numbers(reference: &Reference) -> [CustomerId; NUMBERS] {
    let digest = Sha256::digest(reference.as_str().as_bytes());
    let (parts, _) = digest.as_slice().as_chunks::<4>();
    std::array::from_fn(|at| {
        let part = u32::from_be_bytes(parts[at]);
        CustomerId(i64::from(NUMBER_MIN | (part >> 2)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        Reference::new(text).expect("a reference")
    }

    #[test]
    fn the_numbers_of_a_reference_never_change() {
        // The first four words of `printf acme | sha256sum`.
        let expected = [1_619_709_163, 1_643_139_624, 1_753_388_777, 1_935_126_314].map(CustomerId);
        assert_eq!(numbers(&reference("acme")), expected);
    }

    #[test]
    fn exactly_one_name_of_a_customer_is_given_and_a_mistake_names_its_field() {
        let read = |id, reference| CustomerName::read(id, reference);
        assert_eq!(read(Some("7"), None), Ok(CustomerName::Id(CustomerId(7))));
        assert_eq!(read(None, Some("acme")), Ok(CustomerName::Reference(reference("acme"))));
        for (id, name, field) in [
            (None, None, "customer_id"),
            (Some("0"), None, "customer_id"),
            (Some("7"), Some("acme"), "customer_reference"),
            (None, Some(""), "customer_reference"),
            (None, Some("cafe\u{301}"), "customer_reference"),
        ] {
            assert_eq!(read(id, name).expect_err("not one good name").0, field, "{id:?} {name:?}");
        }
    }
}
