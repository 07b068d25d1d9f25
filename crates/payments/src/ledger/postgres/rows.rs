//! Columns to rows, and the statements that read them. Writes nothing.

use chassis::postgres::{PgError, Row as SqlRow, get};

use crate::amount::Minor;
use crate::declines::Decline;
use crate::keys::{Fingerprint, FingerprintVersion, Key};
use crate::ledger::{Row, Seq, State};

/// The rows of some keys under some accounts, in any order, each with the id of its write.
pub(super) const BY_KEYS: &str = "SELECT seq, key, account, fingerprint, reference, customer_id, currency, \
    amount_minor, state, route, created_at, fingerprint_version, exponent, decline_class, decline_code, write_id \
    FROM ledger WHERE key = ANY($1) AND account = ANY($2)";

/// The charges of some references under some accounts, oldest first.
pub(super) const CHARGED_REFERENCES: &str = "SELECT seq, key, account, fingerprint, reference, customer_id, currency, \
    amount_minor, state, route, created_at, fingerprint_version, exponent, decline_class, decline_code \
    FROM ledger WHERE account = ANY($1) AND reference = ANY($2) AND state = 'CHARGED' ORDER BY seq";

/// Whether a row of another account blocks a key: only while keys are unique over all accounts.
pub(super) const IS_BLOCKED: &str = "SELECT 1 FROM ledger WHERE key = $1 AND EXISTS ( \
    SELECT 1 FROM pg_constraint WHERE conname = 'ledger_key_key' AND conrelid = 'ledger'::regclass)";

/// Rows after a position, up to another.
pub(super) const PAGE: &str = "SELECT seq, key, account, fingerprint, reference, customer_id, currency, \
    amount_minor, state, route, created_at, fingerprint_version, exponent, decline_class, decline_code \
    FROM ledger WHERE seq > $1 AND seq <= $2 AND account = $3 \
    ORDER BY seq LIMIT $4";

pub(super) fn read_row(row: &SqlRow) -> Result<Row, PgError> {
    let state: &str = get(row, 8)?;
    let version: i16 = get(row, 11)?;
    let exponent: i16 = get(row, 12)?;
    let exponent = u8::try_from(exponent).map_err(|_| PgError::Corrupt(format!("exponent {exponent}")))?;
    let key: Option<&str> = get(row, 1)?;
    let key = key.map(|text| Key::parse(text).ok_or_else(|| PgError::Corrupt(format!("key {text:?}"))));
    Ok(Row {
        seq: Seq(get(row, 0)?),
        key: key.transpose()?,
        account: get(row, 2)?,
        fingerprint: Fingerprint::from_store(get(row, 3)?),
        fingerprint_version: FingerprintVersion::of_number(version)
            .ok_or_else(|| PgError::Corrupt(format!("fingerprint_version {version}")))?,
        reference: get(row, 4)?,
        customer_id: get(row, 5)?,
        currency: get(row, 6)?,
        amount: Minor { units: get(row, 7)?, exponent },
        state: state.parse::<State>().ok().ok_or_else(|| PgError::Corrupt(format!("state {state:?}")))?,
        decline: Decline::from_store(get(row, 13)?, get(row, 14)?),
        route: get(row, 9)?,
        created_at_ms: get(row, 10)?,
    })
}

/// The write id from [`BY_KEYS`]; `None` for rows of earlier versions.
pub(super) fn read_write_id(row: &SqlRow) -> Result<Option<i64>, PgError> {
    get(row, 15)
}
