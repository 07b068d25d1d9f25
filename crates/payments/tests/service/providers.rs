//! One payment service on each store, for tests whose behaviour must be the same on both. Knows no route's meaning.

use std::time::Duration;

use tempfile::TempDir;
use testkit::http::try_call;
use testkit::{Answer, Database, Process};

use crate::replicas::replica;
use crate::site::{GOOD, Settings, Site};

/// A running service and its store.
pub(crate) struct Provider {
    pub(crate) process: Process,
    dir: TempDir,
    database: Option<Database>,
}

/// Runs a test on SQLite, and on PostgreSQL where it is installed; otherwise a message says that this part is skipped.
pub(crate) fn on_each_store(flags: &[&str], test: impl Fn(Provider)) {
    test(Provider::on_sqlite(flags));
    let Some(database) = Database::fresh("a payment service on PostgreSQL") else { return };
    let (mut process, dir) = replica(&database, flags);
    process.run_to_end("migrate");
    process.start_again();
    test(Provider { process, dir, database: Some(database) });
}

impl Provider {
    fn on_sqlite(flags: &[&str]) -> Self {
        let Site { process, dir } = Settings::default().all_flags(flags).start();
        Self { process, dir, database: None }
    }

    /// A call with a body.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_call(method, path, headers, body).expect("an answer")
    }

    pub(crate) fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        try_call(method, &format!("{}{path}", self.process.url()), headers, body.as_bytes())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "")
    }

    /// A valid charge under this key.
    #[track_caller]
    pub(crate) fn charge(&self, key: &str) -> Answer {
        self.call("POST", "/", &[("Idempotency-Key", key)], GOOD)
    }

    /// Runs SQL statements as an operator would.
    pub(crate) fn run(&self, statements: &str) {
        if let Some(database) = &self.database {
            return database.run(statements);
        }
        let file = rusqlite::Connection::open(self.dir.path().join("payments.db")).expect("the file");
        file.busy_timeout(Duration::from_secs(60)).expect("a timeout");
        file.execute_batch(statements).expect("sound statements");
    }
}
