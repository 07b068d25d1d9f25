//! Reads the services' SQLite stores directly, by the tables that docs/reference/api.md publishes. Only reads; its
//! counts use none of the code that they judge.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Counts over both stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Invoices in billing's store.
    pub invoices: i64,
    pub paid: i64,
    /// CHARGED rows in the ledger.
    pub charges: i64,
    /// References with two or more CHARGED rows.
    pub double: i64,
    /// CHARGED references whose invoice is not PAID.
    pub lost: i64,
    /// Invoices that are PAID by a charge, without a CHARGED row.
    pub unbacked: i64,
    /// Open attempts.
    pub open: i64,
}

/// Compares both stores on disk.
///
/// # Panics
/// When a store cannot be read.
#[must_use]
#[track_caller]
pub fn judge(billing_db: &Path, payments_db: &Path) -> Verdict {
    let store = open_both(billing_db, payments_db);
    Verdict {
        invoices: number(&store, "SELECT count(*) FROM invoices"),
        paid: number(&store, "SELECT count(*) FROM invoices WHERE state = 'PAID'"),
        charges: number(&store, "SELECT count(*) FROM p.ledger WHERE state = 'CHARGED'"),
        double: number(
            &store,
            "SELECT count(*) FROM (SELECT reference FROM p.ledger WHERE state = 'CHARGED'
             GROUP BY reference HAVING count(*) > 1)",
        ),
        lost: number(
            &store,
            "SELECT count(DISTINCT l.reference) FROM p.ledger l
             LEFT JOIN invoices i ON i.reference = l.reference AND i.state = 'PAID'
             WHERE l.state = 'CHARGED' AND i.id IS NULL",
        ),
        unbacked: number(
            &store,
            "SELECT count(*) FROM invoices i WHERE i.state = 'PAID' AND i.paid_by = 'charge'
             AND i.reference NOT IN (SELECT reference FROM p.ledger
                 WHERE state = 'CHARGED' AND reference IS NOT NULL)",
        ),
        open: number(&store, "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')"),
    }
}

/// Distinct keys of CHARGED ledger rows.
///
/// # Panics
/// When the ledger cannot be read.
#[must_use]
#[track_caller]
pub fn charged_keys(payments_db: &Path) -> i64 {
    number(&open(payments_db), "SELECT count(DISTINCT key) FROM ledger WHERE state = 'CHARGED'")
}

/// The single number that a query returns.
///
/// # Panics
/// When the query fails.
#[must_use]
#[track_caller]
pub fn ask(db: &Path, query: &str) -> i64 {
    number(&open(db), query)
}

/// The texts of a query's first column.
///
/// # Panics
/// When the query fails.
#[must_use]
#[track_caller]
pub fn texts(db: &Path, query: &str) -> Vec<String> {
    let store = open(db);
    let mut statement = store.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let rows = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect);
    rows.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Open attempts of billing whose charge is already in the ledger: without keys they would be charged again.
///
/// # Panics
/// When a store cannot be read.
#[must_use]
#[track_caller]
pub fn charged_and_unsettled(billing_db: &Path, payments_db: &Path) -> i64 {
    let store = open_both(billing_db, payments_db);
    number(
        &store,
        "SELECT count(*) FROM attempts a JOIN p.ledger l ON l.key = a.key
         WHERE a.state IN ('INTENT', 'IN_DOUBT') AND l.state = 'CHARGED'",
    )
}

#[track_caller]
fn open_both(billing_db: &Path, payments_db: &Path) -> Connection {
    let store = open(billing_db);
    store
        .execute("ATTACH DATABASE ?1 AS p", [payments_db.to_str().expect("a test's path is UTF-8")])
        .expect("the ledger can be attached");
    store
}

#[track_caller]
fn open(db: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = Connection::open_with_flags(db, flags).expect("the store can be opened from outside");
    store.busy_timeout(Duration::from_secs(10)).expect("a timeout can be set");
    store.execute_batch("PRAGMA query_only = ON").expect("it can be opened for reading only");
    // Reading after a kill must not change the write-ahead log.
    store.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("it can be left as it is");
    store
}

#[track_caller]
fn number(store: &Connection, query: &str) -> i64 {
    match store.query_row(query, [], |row| row.get(0)) {
        Ok(number) => number,
        Err(error) => panic!("{query}: {error}"),
    }
}
