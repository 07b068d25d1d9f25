//! What is sent to the provider: one body that every known provider reads, and its headers' names.
//! Pure; knows no connection.

/// Header: the key of the charge, in request and answer.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Header of an answer: the ledger that gave it.
pub const LEDGER_ID: &str = "ledger-id";
/// Header of a request: the only ledger that may execute it.
pub const EXPECT_LEDGER: &str = "expect-ledger";
/// Header of an answer: `true` when nothing was executed.
pub const NOT_EXECUTED: &str = "not-executed";
/// Header of a request: the old static credential.
pub const X_TOKEN: &str = "x-token";
