//! A fresh PostgreSQL database for a test, on a server of the test's own or on a given one; it is dropped with its
//! value. Where there is no server, the test is skipped with a notice, except in CI. Knows no service's code.

pub mod cluster;
mod cutter;
mod pooler;
mod process_guard;
mod server;
mod sql;

use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::ledger::Verdict;
use crate::requirements::leave_out;

pub use cutter::{Cut, Cutter, Plan as CutPlan};
pub use pooler::Pooler;
pub use server::Server;
pub use sql::DatabaseClient;

/// An existing server, as `postgres://USER:PASSWORD@HOST/NAME`: the user may create databases.
const GIVEN: &str = "TINJIS_TEST_DATABASE_URL";
/// With the value `hidden`, tests behave as on a machine without PostgreSQL.
const SEEN: &str = "TINJIS_TEST_POSTGRES";

/// A database of one test, which is dropped with this value.
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    admin_url: String,
    server: Option<Arc<Server>>,
}

impl Database {
    /// Creates a database on the given server, else on one that this process's tests share. Returns `None` where there
    /// is neither: then `what` was skipped with a notice.
    ///
    /// # Panics
    /// When there is no server in CI, or it cannot be used.
    #[must_use]
    #[track_caller]
    pub fn fresh(what: &str) -> Option<Self> {
        if let Some(admin_url) = server_from_environment() {
            return Some(Self::on(&admin_url, None));
        }
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = match shared.upgrade() {
            Some(server) => server,
            None => Arc::new(Server::start(what)?),
        };
        *shared = Arc::downgrade(&server);
        Some(Self::of(&server))
    }

    #[must_use]
    #[track_caller]
    pub fn of(server: &Arc<Server>) -> Self {
        Self::on(&server.url("postgres"), Some(Arc::clone(server)))
    }

    #[track_caller]
    fn on(admin_url: &str, server: Option<Arc<Server>>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        DatabaseClient::to(admin_url).run(&format!("CREATE DATABASE {name}"));
        let url = with_database(admin_url, &name);
        Self { url, name, admin_url: admin_url.to_owned(), server }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server, if the tests have started it: it may be killed and started again.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        self.server.as_deref()
    }

    /// The single number that a query returns.
    ///
    /// # Panics
    /// When the query fails.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, query: &str) -> i64 {
        DatabaseClient::to(&self.url).ask(query)
    }

    /// Runs statements, separated by semicolons.
    ///
    /// # Panics
    /// When a statement fails.
    #[track_caller]
    pub fn run(&self, statements: &str) {
        DatabaseClient::to(&self.url).run(statements);
    }

    /// Compares the tables of both services in this one database.
    ///
    /// # Panics
    /// When a table cannot be read.
    #[must_use]
    #[track_caller]
    pub fn judge(&self) -> Verdict {
        judge(&self.url)
    }
}

/// Compares the tables of both services in the database at this URL.
///
/// # Panics
/// When a table cannot be read.
#[must_use]
#[track_caller]
pub fn judge(url: &str) -> Verdict {
    let ask = |query| DatabaseClient::to(url).ask(query);
    Verdict {
        invoices: ask("SELECT count(*) FROM invoices"),
        paid: ask("SELECT count(*) FROM invoices WHERE state = 'PAID'"),
        charges: ask("SELECT count(*) FROM ledger WHERE state = 'CHARGED'"),
        double: ask("SELECT count(*) FROM (SELECT reference FROM ledger WHERE state = 'CHARGED'
             GROUP BY reference HAVING count(*) > 1) doubles"),
        lost: ask("SELECT count(DISTINCT l.reference) FROM ledger l
             LEFT JOIN invoices i ON i.reference = l.reference AND i.state = 'PAID'
             WHERE l.state = 'CHARGED' AND i.id IS NULL"),
        unbacked: ask("SELECT count(*) FROM invoices i WHERE i.state = 'PAID' AND i.paid_by = 'charge'
             AND i.reference NOT IN (SELECT reference FROM ledger
                 WHERE state = 'CHARGED' AND reference IS NOT NULL)"),
        open: ask("SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')"),
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that the tests have started is removed as a whole, and may have ended by now.
        if self.server.is_none() {
            DatabaseClient::to(&self.admin_url).run(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// Whether tests must behave as on a machine without PostgreSQL.
fn is_hidden() -> bool {
    std::env::var_os(SEEN).is_some_and(|value| value == "hidden")
}

/// Reports that `what` is not tested without a server, the reason, and the remedy.
#[track_caller]
fn without_a_server(what: &str, why: impl Display) {
    leave_out(what, format_args!("{why}; install PostgreSQL or set {GIVEN}"));
}

fn server_from_environment() -> Option<String> {
    if is_hidden() {
        return None;
    }
    let url = std::env::var_os(GIVEN)?.into_string().ok()?;
    (!url.is_empty()).then_some(url)
}

fn with_database(url: &str, name: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, ""), |(place, query)| (place, query));
    let base = place.rsplit_once('/').map_or(place, |(base, _)| base);
    let question = if query.is_empty() { "" } else { "?" };
    format!("{base}/{name}{question}{query}")
}

/// Host and port of a URL.
fn place_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

/// User and password of a URL; empty where it has none.
fn who_of(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let who = rest.rsplit_once('@').map_or("", |(who, _)| who);
    who.split_once(':').unwrap_or((who, ""))
}

/// The URL of the same database at another address.
fn with_place(url: &str, place: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (who, rest) = rest.rsplit_once('@').map_or(("", rest), |(who, rest)| (who, rest));
    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
    let at = if who.is_empty() { "" } else { "@" };
    format!("{scheme}://{who}{at}{place}{path}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::requirements::CI;

    #[test]
    fn another_database_of_the_same_server() {
        assert_eq!(with_database("postgres://u:p@h:5432/postgres", "t"), "postgres://u:p@h:5432/t");
        assert_eq!(
            with_database("postgres://u@h/a?sslmode=disable", "t"),
            "postgres://u@h/t?sslmode=disable"
        );
        assert_eq!(who_of("postgres://u:p@h:5432/a"), ("u", "p"));
        assert_eq!(who_of("postgres://h/a"), ("", ""));
        assert_eq!(place_of("postgres://u:p@h:5432/a?sslmode=disable"), "h:5432");
        assert_eq!(with_place("postgres://u:p@h:5432/a?b=c", "i:6"), "postgres://u:p@i:6/a?b=c");
    }

    #[test]
    fn what_a_killed_server_had_committed_is_there_when_it_is_back() {
        let Some(server) = Server::start("a server that is killed") else { return };
        let server = Arc::new(server);
        let database = Database::of(&server);
        database.run("CREATE TABLE kept (n bigint); INSERT INTO kept SELECT generate_series(1, 1000)");
        server.kill();
        assert!(DatabaseClient::try_to(database.url()).is_err(), "a killed server answers no client");
        server.start_again();
        assert_eq!(database.ask("SELECT count(*) FROM kept"), 1000);
        let pid = server.pid();
        drop(database);
        drop(server);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the server ends with its owner");
    }

    #[test]
    fn two_tests_have_two_databases_on_one_server() {
        let Some(one) = Database::fresh("two databases") else { return };
        let Some(other) = Database::fresh("two databases") else { return };
        one.run("CREATE TABLE mine (n bigint)");
        other.run("CREATE TABLE mine (n bigint)");
        assert_ne!(one.url(), other.url());
    }

    /// Runs the test above in a process of its own that behaves as on a machine without PostgreSQL.
    fn without_postgres(ci: &str) -> (bool, String, String) {
        let this = std::env::current_exe().expect("a test has a program");
        let output = Command::new(this)
            .args(["--exact", "postgres::tests::two_tests_have_two_databases_on_one_server"])
            .env(SEEN, "hidden")
            .env(CI, ci)
            .output()
            .expect("it can be started");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    #[test]
    fn where_there_is_no_postgres_a_test_says_past_the_capture_what_it_leaves_out_and_passes() {
        let (passed, said, loudly) = without_postgres("");
        assert!(passed && said.contains("1 passed"), "{said} {loudly}");
        assert!(loudly.contains("LEFT OUT: two databases: no PostgreSQL server"), "{loudly}");
        assert!(loudly.contains("install PostgreSQL or set TINJIS_TEST_DATABASE_URL"), "{loudly}");
    }

    #[test]
    fn in_ci_a_test_without_postgres_fails() {
        let (passed, said, _) = without_postgres("true");
        assert!(!passed && said.contains("two databases: must not be left out in CI"), "{said}");
    }
}
