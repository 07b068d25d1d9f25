//! Which deployments of billing may charge under an account: the rule, pure, over what the ledger knows.
//! A deployment that lost its id makes new keys for what it has charged already, and the ledger is the last to notice.
//! Knows no SQL and no HTTP.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::keys::{Key, hex};

pub mod guard;

/// Names one store of billing: what its keys are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeploymentId(pub Uuid);

/// Deployments that one account may have: each is a decision of an operator, so that more are a mistake.
pub const DEPLOYMENTS_MAX: usize = 100;

/// Rows of the account that are read from either end of the ledger to find one that a deployment can have made.
pub const SCAN_ROWS_MAX: usize = 10_000;
/// How many of these keyed rows are compared from either end.
pub const COMPARE_ROWS_MAX: usize = 500;
/// Attempt numbers that are tried for each row: first attempts are most of any ledger.
pub const ATTEMPT_NUMBERS_MAX: u32 = 16;

/// How the ledger came to know a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// It was the first under an account without keyed charges.
    First,
    /// The ledger is older than its list of deployments, and holds a row under a key of this one.
    Adopted,
    /// An operator declared it.
    Declared,
}

impl How {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::First, Self::Adopted, Self::Declared];

    /// Its name in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Adopted => "adopted",
            Self::Declared => "declared",
        }
    }

    /// The way of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|how| how.as_str() == text)
    }
}

/// What an operator declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Under which account.
    pub account: String,
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Why the operator is sure.
    pub why: String,
    /// Who.
    pub actor: String,
}

/// A deployment as the ledger keeps it; rows are never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRow {
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Under which account.
    pub account: String,
    /// How it became known.
    pub how: How,
    /// Why, if an operator declared it.
    pub why: Option<String>,
    /// Who declared it.
    pub actor: Option<String>,
    /// When, in ms since the epoch.
    pub created_at_ms: i64,
}

/// What became of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclareOutcome {
    /// It is a row now.
    New(DeploymentRow),
    /// The account had it already; nothing changed.
    Known(DeploymentRow),
    /// The account has [`DEPLOYMENTS_MAX`] already.
    TooMany,
}

/// What the ledger knows when a deployment shows itself under an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The account has this deployment.
    pub is_known: bool,
    /// Another account has it, and has CHARGED rows under keys. Without any, it only claims the deployment, and nothing can
    /// be charged again.
    pub is_elsewhere: bool,
    /// The account has another one.
    pub has_others: bool,
    /// The account has charged, or was refused, under a key.
    pub has_keyed_rows: bool,
    /// One of these keys is this deployment's.
    pub has_own_row: bool,
}

/// Why a deployment may not charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The account knows another one.
    OtherDeployment,
    /// Another account has it.
    OtherAccount,
    /// The account has keyed charges, and none of those that were compared is this deployment's.
    OtherKeys,
}

/// What follows from the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may charge.
    Known,
    /// It may charge once it is recorded like this.
    Record(How),
    /// It may not, until an operator declares it.
    Refused(Unknown),
}

/// The rule.
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

/// Whether a row with this key and reference can have been made by the deployment.
#[must_use]
pub fn is_key_of(deployment: DeploymentId, key: &Key, reference: &str) -> bool {
    (1..=ATTEMPT_NUMBERS_MAX).any(|number| derived(deployment, reference, number) == key.as_str())
}

/// The key as billing publishes it, derived here anew: this crate knows none of billing's code.
fn derived(deployment: DeploymentId, reference: &str, number: u32) -> String {
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
        let at = |number| Key::parse(&derived(deployment, "I1", number)).unwrap();
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
