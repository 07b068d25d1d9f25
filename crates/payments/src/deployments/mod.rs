//! Which deployments of billing may charge under an account: the rule as a pure function of the ledger's facts. A
//! deployment that lost its id makes new keys for invoices that it has charged already, and only the ledger can still
//! notice. Knows no SQL and no HTTP.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::keys::{Key, hex};

pub mod guard;

/// The id of one store of billing, from which its keys are derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeploymentId(pub Uuid);

/// Maximum number of deployments of one account. An operator decides on each, so that more of them are a mistake.
pub const DEPLOYMENTS_MAX: usize = 100;

/// Number of the account's rows that are read from either end of the ledger to find a row of the deployment.
pub const SCAN_ROWS_MAX: usize = 10_000;
/// Number of the keyed rows among them that are compared, from either end.
pub const COMPARE_ROWS_MAX: usize = 500;
/// Attempt numbers that are tried for each row: most rows of a ledger are first attempts.
pub const ATTEMPT_NUMBERS_MAX: u32 = 16;

/// How the ledger learned of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// The deployment was the first under an account without keyed charges.
    First,
    /// The ledger is older than its list of deployments, and holds a row under a key of this deployment.
    Adopted,
    /// An operator declared the deployment.
    Declared,
}

impl How {
    pub const ALL: [Self; 3] = [Self::First, Self::Adopted, Self::Declared];

    /// The value's name in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Adopted => "adopted",
            Self::Declared => "declared",
        }
    }

    /// The value with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|how| how.as_str() == text)
    }
}

/// An operator's declaration of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The account that it is declared for.
    pub account: String,
    /// The declared deployment.
    pub deployment: DeploymentId,
    /// Why the operator is sure.
    pub why: String,
    /// The operator's name.
    pub actor: String,
}

/// A deployment as the ledger stores it; rows are never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRow {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The account that it may charge under.
    pub account: String,
    /// How the deployment became known.
    pub how: How,
    /// The operator's reason, if it was declared.
    pub why: Option<String>,
    /// The operator's name, if it was declared.
    pub actor: Option<String>,
    /// Time of the record, in ms since the epoch.
    pub created_at_ms: i64,
}

/// The result of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclareOutcome {
    /// The deployment was recorded, as this row.
    New(DeploymentRow),
    /// The account had the deployment already; nothing changed.
    Known(DeploymentRow),
    /// The account has [`DEPLOYMENTS_MAX`] deployments already.
    TooMany,
}

/// The ledger's facts about a deployment under an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The account has this deployment.
    pub is_known: bool,
    /// Another account has the deployment, and has CHARGED rows under keys. Without such rows it only claims the
    /// deployment, and nothing can be charged again.
    pub is_elsewhere: bool,
    /// The account has another deployment.
    pub has_others: bool,
    /// The account has keyed rows, charged or refused.
    pub has_keyed_rows: bool,
    /// One of these keys is derived from this deployment's id.
    pub has_own_row: bool,
}

/// Why a deployment may not charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The account knows another deployment.
    OtherDeployment,
    /// Another account has the deployment.
    OtherAccount,
    /// The account has keyed charges, and none of the compared keys is this deployment's.
    OtherKeys,
}

/// Whether a deployment may charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The deployment may charge.
    Known,
    /// The deployment may charge once it is recorded with this value.
    Record(How),
    /// The deployment may not charge until an operator declares it.
    Refused(Unknown),
}

/// Decides from the facts whether a deployment may charge.
#[must_use]
pub fn admit(facts: Facts) -> Admission {
    match facts {
        Facts { is_known: true, .. } => Admission::Known,
        Facts { is_elsewhere: true, .. } => Admission::Refused(Unknown::OtherAccount),
        Facts { has_others: true, .. } => Admission::Refused(Unknown::OtherDeployment),
        Facts { has_keyed_rows: false, .. } => Admission::Record(How::First),
        Facts { has_own_row: true, .. } => Admission::Record(How::Adopted),
        _ => Admission::Refused(Unknown::OtherKeys),
    }
}

/// Whether the deployment can have made a row with this key and reference.
#[must_use]
pub fn is_key_of(deployment: DeploymentId, key: &Key, reference: &str) -> bool {
    (1..=ATTEMPT_NUMBERS_MAX).any(|number| derive_key(deployment, reference, number) == key.as_str())
}

/// The key as billing documents it, derived here again: this crate shares no code with billing.
fn derive_key(deployment: DeploymentId, reference: &str, number: u32) -> String {
    const BYTES: usize = 16;
    let mut hash = Sha256::new();
    hash.update(deployment.0.as_bytes());
    hash.update(number.to_be_bytes());
    hash.update(reference.as_bytes());
    hex(&hash.finalize()[..BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Facts = Facts {
        is_known: false,
        is_elsewhere: false,
        has_others: false,
        has_keyed_rows: false,
        has_own_row: false,
    };

    #[test]
    fn the_published_vector_is_a_key_of_its_deployment_up_to_the_last_number() {
        let deployment = DeploymentId(Uuid::parse_str("00000000-0000-4000-8000-000000000001").unwrap());
        let key = Key::parse("bca1897f57e947286a9d2dcb4be588f1").unwrap();
        assert!(is_key_of(deployment, &key, "I1"));
        assert!(!is_key_of(deployment, &key, "I2"));
        assert!(!is_key_of(DeploymentId(Uuid::nil()), &key, "I1"));
        let at = |number| Key::parse(&derive_key(deployment, "I1", number)).unwrap();
        assert!(is_key_of(deployment, &at(ATTEMPT_NUMBERS_MAX), "I1"));
        assert!(!is_key_of(deployment, &at(ATTEMPT_NUMBERS_MAX + 1), "I1"));
    }

    #[test]
    fn each_case_of_the_rule() {
        let rows = Facts { has_keyed_rows: true, ..FRESH };
        let cases = [
            (FRESH, Admission::Record(How::First)),
            (rows, Admission::Refused(Unknown::OtherKeys)),
            (Facts { has_own_row: true, ..rows }, Admission::Record(How::Adopted)),
            (Facts { has_others: true, ..FRESH }, Admission::Refused(Unknown::OtherDeployment)),
            (
                Facts { has_others: true, has_own_row: true, ..rows },
                Admission::Refused(Unknown::OtherDeployment),
            ),
            (Facts { is_elsewhere: true, ..FRESH }, Admission::Refused(Unknown::OtherAccount)),
            (
                Facts { is_elsewhere: true, has_own_row: true, ..rows },
                Admission::Refused(Unknown::OtherAccount),
            ),
            (Facts { is_known: true, is_elsewhere: true, has_others: true, ..rows }, Admission::Known),
        ];
        for (facts, admission) in cases {
            assert_eq!(admit(facts), admission, "{facts:?}");
        }
    }
}
