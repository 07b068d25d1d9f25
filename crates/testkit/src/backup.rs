//! A backup of billing's store, taken during a run and restored as an operator does, on each database. Knows the
//! programs of PostgreSQL and the names of payments' tables; judges nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rusqlite::Connection;

use crate::{Database, Services};

/// A backup, by the kind of database.
#[derive(Debug)]
pub enum Backup {
    /// A copy of the SQLite file.
    File(PathBuf),
    /// The output of `pg_dump` for billing's tables, and the database's URL; a ledger in the same database is left
    /// alone.
    Dump(PathBuf, String),
}

/// Payments' tables, which do not belong to billing's backup.
const LEDGER: [&str; 3] = ["public.ledger", "public.ledger_meta", "public.ledger_positions"];

impl Backup {
    /// Takes a backup while the service runs.
    ///
    /// # Panics
    /// When the backup cannot be made.
    #[must_use]
    #[track_caller]
    pub fn take(services: &Services, database: Option<&Database>) -> Self {
        let Some(database) = database else {
            let to = services.dir().join("backup.db");
            let store = Connection::open(services.billing.db()).expect("a store can be opened");
            let name = to.to_str().expect("a test's path is UTF-8");
            store.execute("VACUUM INTO ?1", [name]).expect("a store can be copied");
            return Self::File(to);
        };
        let to = services.dir().join("backup.sql");
        let mut dump = Command::new("pg_dump");
        dump.args(["--clean", "--if-exists", "--no-owner", "--table=public.*", "--dbname", database.url()]);
        dump.args(LEDGER.map(|table| format!("--exclude-table={table}"))).arg("--file").arg(&to);
        succeed(&mut dump);
        Self::Dump(to, database.url().to_owned())
    }

    /// Replaces the lost store by the backup; billing must not run.
    ///
    /// # Panics
    /// When the store cannot be written.
    #[track_caller]
    pub fn restore(&self, services: &Services) {
        match self {
            Self::File(file) => {
                let db = services.billing.db();
                for end in ["-wal", "-shm"] {
                    let mut beside = db.as_os_str().to_owned();
                    beside.push(end);
                    let _none = fs::remove_file(beside);
                }
                fs::copy(file, db).expect("a backup can be put back");
            }
            Self::Dump(file, url) => {
                let mut psql = Command::new("psql");
                psql.args(["--quiet", "--no-psqlrc", "--single-transaction", "--set=ON_ERROR_STOP=1"]);
                succeed(psql.args(["--dbname", url, "--file"]).arg(file));
            }
        }
    }
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().expect("the programs of PostgreSQL are there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
