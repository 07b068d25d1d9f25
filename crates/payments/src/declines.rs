//! Why a charge is refused: each decline code with its class, and the source where a scheme defines it.
//! Pure; knows no ledger, no wire format and no rate.

use std::borrow::Cow;
use std::fmt;

/// What a client may do after a decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeclineClass {
    /// The charge must never be repeated with this instrument.
    Hard,
    /// The charge may be repeated once the payment data are corrected or the customer has acted.
    Fix,
    /// The charge may be repeated later, within the network's limits.
    Soft,
    /// The reason is not known.
    Unknown,
}

impl DeclineClass {
    pub const ALL: [Self; 4] = [Self::Hard, Self::Fix, Self::Soft, Self::Unknown];

    /// The class's name in headers, SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Fix => "fix",
            Self::Soft => "soft",
            Self::Unknown => "unknown",
        }
    }

    /// The class with this name. A later version may write classes that this version does not know; they count as
    /// unknown.
    #[must_use]
    pub fn from_store(text: &str) -> Self {
        Self::ALL.into_iter().find(|class| class.as_str() == text).unwrap_or(Self::Unknown)
    }
}

/// The reason of one refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decline {
    /// The class of the code.
    pub class: DeclineClass,
    /// The code; one of [`CODES`] unless another version wrote it.
    pub code: Cow<'static, str>,
}

impl Decline {
    /// The decline of a refusal without a reason: drawn by the success rate alone, or recorded by an earlier version.
    pub const GENERIC: Self = Self { class: DeclineClass::Unknown, code: Cow::Borrowed("generic_decline") };

    /// The decline with this code, if it is one of [`CODES`].
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let row = CODES.iter().find(|row| row.code == code)?;
        Some(Self { class: row.class, code: Cow::Borrowed(row.code) })
    }

    /// The decline as a ledger stores it; `None` for rows without a reason.
    #[must_use]
    pub fn from_store(class: Option<&str>, code: Option<String>) -> Option<Self> {
        Some(Self { class: DeclineClass::from_store(class?), code: Cow::Owned(code?) })
    }
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "class={}; code={}", self.class.as_str(), self.code)
    }
}

/// One decline code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code in headers, rates and scripts.
    pub code: &'static str,
    pub class: DeclineClass,
    /// The scheme's own code and rule.
    pub source: &'static str,
}

const fn row(code: &'static str, class: DeclineClass, source: &'static str) -> Code {
    Code { code, class, source }
}

/// Every decline code. A card's codes are response codes of ISO 8583, field 39; their class follows Visa's decline categories:
/// 1 (never approved) is hard, 2 (not at this time) soft, 3 (not with these details) fix. A direct debit's are those of
/// ISO 20022 (ExternalStatusReason1Code).
pub const CODES: [Code; 24] = [
    row("insufficient_funds", DeclineClass::Soft, "response code 51, Visa category 2; ISO 20022 AM04"),
    row("withdrawal_limit_exceeded", DeclineClass::Soft, "response codes 61 and 65, Visa category 2"),
    row("suspected_fraud", DeclineClass::Soft, "response code 59, Visa category 2"),
    row("issuer_unavailable", DeclineClass::Soft, "response code 91, Visa category 2"),
    row("processing_error", DeclineClass::Soft, "response code 96, Visa category 2"),
    row("reenter_transaction", DeclineClass::Soft, "response code 19, Visa category 2"),
    row("expired_card", DeclineClass::Fix, "response code 54, Visa category 3"),
    row("invalid_account_number", DeclineClass::Fix, "response code 14, Visa category 3; ISO 20022 AC01"),
    row("incorrect_cvc", DeclineClass::Fix, "response code N7, Visa category 3"),
    row("authentication_required", DeclineClass::Fix, "response code 1A, Visa category 3"),
    row("no_mandate", DeclineClass::Fix, "ISO 20022 MD01"),
    row("lost_card", DeclineClass::Hard, "response code 41, Visa category 1"),
    row("stolen_card", DeclineClass::Hard, "response code 43, Visa category 1"),
    row("pickup_card", DeclineClass::Hard, "response codes 04 and 07, Visa category 1"),
    row("account_closed", DeclineClass::Hard, "response code 46, Visa category 1; ISO 20022 AC04"),
    row("account_blocked", DeclineClass::Hard, "ISO 20022 AC06"),
    row("no_such_issuer", DeclineClass::Hard, "response code 15, Visa category 1"),
    row("invalid_transaction", DeclineClass::Hard, "response code 12, Visa category 1"),
    row("transaction_not_permitted", DeclineClass::Hard, "response code 57, Visa category 1; ISO 20022 AG01"),
    row("stop_payment", DeclineClass::Hard, "response codes R0, R1 and R3, Visa category 1; ISO 20022 MS02"),
    row("account_holder_deceased", DeclineClass::Hard, "ISO 20022 MD07"),
    row("do_not_honor", DeclineClass::Unknown, "response code 05: the issuer gives no reason"),
    row("reason_not_specified", DeclineClass::Unknown, "ISO 20022 MS03"),
    row(
        "generic_decline",
        DeclineClass::Unknown,
        "none: drawn by the success rate, or recorded without a reason",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_code_stands_there_once_and_fits_a_header() {
        let codes: HashSet<_> = CODES.iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), CODES.len());
        for row in CODES {
            assert!(row.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", row.code);
        }
        assert_eq!(Decline::from_code("generic_decline"), Some(Decline::GENERIC));
        assert_eq!(Decline::from_code("stolen_cart"), None);
    }

    #[test]
    fn a_decline_reads_as_its_header() {
        let header = |code| Decline::from_code(code).unwrap().to_string();
        assert_eq!(header("stolen_card"), "class=hard; code=stolen_card");
        assert_eq!(header("insufficient_funds"), "class=soft; code=insufficient_funds");
        assert_eq!(header("expired_card"), "class=fix; code=expired_card");
    }

    #[test]
    fn a_class_of_a_later_version_is_unknown() {
        let stored = Decline::from_store(Some("later"), Some("new_code".to_owned())).unwrap();
        assert_eq!(stored.to_string(), "class=unknown; code=new_code");
        assert_eq!(Decline::from_store(None, None), None);
    }
}
