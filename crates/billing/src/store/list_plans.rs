//! Tests that each list of the console and of `/v1` reads about as many rows as it returns, on large stores. A list
//! whose index is gone must fail. `LIST_ROWS` is the number of invoices: small in `cargo test`, a million by `make
//! lists`.

use std::marker::PhantomData;
use std::sync::Mutex;

use chassis::clock::{Clock, Random};
use chassis::postgres::{Param, PoolClass, Postgres, PostgresSettings, get};
use rusqlite::{Connection, StatementStatus, params_from_iter};
use testkit::Database;

use super::charged_days::DAY_MS;
use super::operator_reads::ActedOn;
use super::postgres::{PostgresStore, SCHEMA, boxed, params_of};
use super::reads::{Reader, Value};
use super::rows::{FromRow, UNSENT};
use super::sqlite::SqliteStore;
use super::subscriptions::statements::Sql;
use super::*;
use crate::schedule::run::ScheduleRunState;
use crate::subscription::SubscriptionState;

/// The rows of a list in these tests.
const LIMIT: usize = 50;
/// The most rows that such a list may read: its rows, those joined to them, and some that a filter leaves out.
const ROWS_READ_MAX: u64 = 1_000;
/// The most instructions of SQLite's virtual machine for such a list.
const STEPS_MAX: i32 = 30_000;
/// Far more rows than a list may read, so that a full scan is detected.
const ROWS_LEAST: usize = 20_000;
/// The day of the newest settlement.
const DAY_LAST: i64 = 20_000;

/// The indexes, each of which some list needs.
const INDEXES: [&str; 8] = [
    "invoices_unpaid",
    "invoices_dunning",
    "invoices_of_customer",
    "invoices_reference_nfc",
    "invoices_scheduled",
    "attempts_refused",
    "operator_actions_of",
    "subscriptions_due",
];

/// A query of the store: for a page of a list, or for a few rows by another access path.
struct StoreQuery {
    sql: String,
    params: Vec<Value>,
    is_page: bool,
}

/// A reader that reads nothing, and records the store's queries.
struct Recorded<S> {
    asked: Mutex<Option<StoreQuery>>,
    of: PhantomData<fn() -> S>,
}

impl<S: Reader> Reader for Recorded<S> {
    const BY_UNPAID_INDEX: &'static str = S::BY_UNPAID_INDEX;
    const BY_KEY: &'static [&'static str] = S::BY_KEY;
    const MATCHES: &'static str = S::MATCHES;
    const SQL: Sql = S::SQL;

    async fn page<T: FromRow>(&self, sql: String, params: Vec<Value>) -> Result<Vec<T>> {
        *self.asked.lock().unwrap() = Some(StoreQuery { sql, params, is_page: true });
        Ok(Vec::new())
    }

    async fn stored_among(&self, texts: Vec<String>) -> Result<Vec<String>> {
        Ok(texts)
    }

    async fn row<T: FromRow>(&self, sql: String, params: Vec<Value>) -> Result<Option<T>> {
        *self.asked.lock().unwrap() = Some(StoreQuery { sql, params, is_page: false });
        Ok(None)
    }
}

/// Every list, from its beginning or from the middle.
async fn lists<S: Reader>(runs: String, rows: i64) -> Vec<(String, StoreQuery)> {
    let store = Recorded::<S> { asked: Mutex::new(None), of: PhantomData };
    let few = |sql: String, params| StoreQuery { sql, params, is_page: false };
    let mut all = vec![
        ("runs".to_owned(), few(runs, vec![Value::Integer(rows / 2), Value::Integer(50)])),
        ("attempts not sent".to_owned(), few(UNSENT.to_owned(), Vec::new())),
    ];
    macro_rules! take {
        ($($name:expr => $call:expr),* $(,)?) => {
            $(
                $call.await.map(drop).unwrap();
                let asked = store.asked.lock().unwrap().take().expect("a list asks once");
                all.push((format!("{}", $name), asked));
            )*
        };
    }
    let middle = InvoiceId(rows / 2);
    let one = Reference::new(format!("I{}", rows / 2)).unwrap();
    take! {
        "customers" => store.customers(CustomerId(rows / 20), LIMIT),
        "invoices" => store.invoices(None, middle, LIMIT),
        "an invoice" => store.invoice_by_reference(&one),
        "attempts" => store.attempts((middle, 1), LIMIT),
        "actions on a customer" => store.last_actions(ActedOn::Customer, "7", LIMIT),
        "actions on an invoice" => store.last_actions(ActedOn::Invoice, "I7", LIMIT),
        "declined invoices" => store.declined_invoices(CustomerId(7), LIMIT),
        "declined invoices of many" => store.declined_invoices(CustomerId(1), LIMIT),
        "declines" => store.last_declines(CustomerId(7), LIMIT),
        "declines of many" => store.last_declines(CustomerId(1), LIMIT),
        "invoices of a customer" => store.invoices_of_customer(CustomerId(7), InvoiceId(i64::MAX), LIMIT),
        "invoices of a customer with many" => store.invoices_of_customer(CustomerId(1), middle, LIMIT),
        "charged days" => store.charged_days(DAY_LAST - 29, BATCH_MAX),
        "subscriptions" => store.subscriptions(None, rows / 20, LIMIT),
        "paused subscriptions" => store.subscriptions(Some(SubscriptionState::Paused), rows / 20, LIMIT),
        "a subscription" => store.subscription(&one),
        "actions on a subscription" => store.subscription_actions(&one, 0, LIMIT),
        "the next due date" => store.next_due_date(None),
        "the next attempt" => store.next_attempt_at(),
        "due dates" => store.schedule_runs(None, None, LIMIT),
        "waiting due dates" => store.schedule_runs(Some(ScheduleRunState::Waiting), None, LIMIT),
        "resolutions" => store.resolutions(rows / 2, LIMIT),
        "explained ledger rows" => store.ledger_acknowledgements(rows / 2, LIMIT),
        "lost ledger rows" => store.unbacked_acknowledgements(rows / 2, LIMIT),
    }
    for state in InvoiceState::ALL {
        take! { format!("{state} invoices") => store.invoices(Some(*state), middle, LIMIT) }
    }
    all
}

/// Customer 1 has half of the invoices. Each other customer has ten, older customers older ones. Most are PAID, some
/// wait after a decline, and a few are in each other state. `n` is a table of numbers from 1, and `key` makes a key of
/// one.
fn filling(n: &str, key: &str, rows: usize) -> String {
    let at = format!("{DAY_MS} * ({DAY_LAST} - i % 1000) + i");
    let customer = "CASE WHEN i % 2 = 0 THEN 1 ELSE 2 + i / 20 END";
    format!(
        "INSERT INTO customers (id, currency) SELECT i, 'EUR' FROM {n} WHERE i <= {rows} / 10 + 1;
         INSERT INTO runs (id, state, started_at, finished_at, lease_until) SELECT i, 'finished', 0, 1, 0 FROM {n};
         INSERT INTO invoices (id, reference, customer_id, currency, amount_minor, state, paid_by, attention_reason,
             created_at, updated_at, due_at, next_attempt_at, dunning)
         SELECT i, CASE WHEN i % 100 = 10 THEN 'é' || i ELSE 'I' || i END, {customer}, 'EUR', 1215, s.state,
             CASE s.state WHEN 'PAID' THEN 'charge' END, CASE s.state WHEN 'ATTENTION' THEN 'rejected' END, 0, 0,
             CASE WHEN s.state = 'PENDING' THEN i END, CASE WHEN s.state = 'PENDING' THEN i END,
             CASE WHEN s.state = 'PENDING' THEN 'waiting' END
         FROM (SELECT i, CASE WHEN i % 10 = 1 OR i % 20000 = 6 THEN 'PENDING' WHEN i % 500 = 2 THEN 'CHARGING'
             WHEN i % 500 = 3 THEN 'ATTENTION' WHEN i % 500 = 4 THEN 'CANCELLED' ELSE 'PAID' END AS state FROM {n}) AS s;
         INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
             lease_until, created_at, settled_at)
         SELECT {key}, i, 1, {customer}, 'EUR', 1215, CASE WHEN i % 500 < 5 THEN 'REFUSED' ELSE 'CHARGED' END, 1, i, 0,
             {at}, {at} FROM {n};
         INSERT INTO resolutions (id, key, charged, reason, actor, created_at, invoice_id)
         SELECT i, {key}, '1', 'seen', 'ann', 0, i FROM {n};
         INSERT INTO ledger_acknowledgements SELECT i, 'L', i, i, 'seen', 'ann', 0 FROM {n};
         INSERT INTO unbacked_acknowledgements SELECT i, 'L', i, 'seen', 'ann', 0 FROM {n};
         INSERT INTO operator_actions (action, subject, reason, actor, created_at)
         SELECT 'invoice-hold', 'I' || i, 'seen', 'ann', 0 FROM {n};
         INSERT INTO subscriptions (id, reference, customer_id, currency, anchor_day, every_months, zone, at, starts_on,
             holidays, state, next_on, next_at, created_at, updated_at)
         SELECT i, 'S' || i, 1 + i / 10, 'EUR', 1, 1, 'UTC', '09:00', '2020-01-01', 'charge',
             CASE WHEN i % 5 = 0 THEN 'paused' ELSE 'active' END, '2030-01-01', i, 0, 0 FROM {n};
         INSERT INTO prices SELECT i, '2020-01-01', 100 FROM {n};
         INSERT INTO schedule_runs (schedule, period_on, state, planned, zone_data, created_at, updated_at)
         SELECT 'subscriptions', 'D' || i, 'finished', '{{}}', '', 0, 0 FROM {n} WHERE i <= 300;"
    )
}

/// The lists that read too much, and how they were executed.
type Slow = Vec<(String, String)>;

fn names(slow: &Slow) -> Vec<&str> {
    slow.iter().map(|(name, _)| name.as_str()).collect()
}

fn rows() -> usize {
    testkit::size("LIST_ROWS", ROWS_LEAST).max(ROWS_LEAST)
}

/// The number of instructions of a statement, or why it failed.
fn steps_of(connection: &Connection, sql: &str, params: Vec<Value>) -> std::result::Result<i32, String> {
    let mut statement = connection.prepare(sql).map_err(|error| error.to_string())?;
    let mut answer = statement.query(params_from_iter(params)).map_err(|error| error.to_string())?;
    while answer.next().map_err(|error| error.to_string())?.is_some() {}
    drop(answer);
    match statement.get_status(StatementStatus::VmStep) {
        steps if steps <= STEPS_MAX => Ok(steps),
        steps => Err(format!("{steps} instructions: {sql}")),
    }
}

async fn slow_in_sqlite(connection: &Connection) -> Slow {
    let asked = lists::<SqliteStore>(sqlite::runs::list_sql(), i64::try_from(rows()).unwrap()).await;
    let slow = asked.into_iter().filter_map(|(name, asked)| {
        let why = steps_of(connection, &asked.sql, asked.params).err()?;
        Some((name, why))
    });
    slow.collect()
}

#[tokio::test]
async fn each_list_of_sqlite_reads_what_it_returns_and_one_without_its_index_does_not() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("billing.db");
    drop(SqliteStore::open(&path, None, Clock::system(), &Random::seeded(8213)).await.unwrap());
    let connection = Connection::open(&path).unwrap();
    let numbers = format!(
        "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n)",
        rows()
    );
    let fill = filling(&numbers, "printf('%032d', i)", rows());
    connection.execute_batch(&format!("PRAGMA synchronous = OFF; BEGIN; {fill} COMMIT;")).unwrap();
    assert_eq!(slow_in_sqlite(&connection).await, Slow::new());
    for index in INDEXES {
        connection.execute_batch(&format!("BEGIN; DROP INDEX {index};")).unwrap();
        let slow = slow_in_sqlite(&connection).await;
        connection.execute_batch("ROLLBACK").unwrap();
        assert!(!slow.is_empty(), "no list needs {index}");
        println!("without {index}: {:?}", names(&slow));
    }
    assert_eq!(slow_in_sqlite(&connection).await, Slow::new());
}

/// The rows that the nodes of a plan returned and left out, from the text of EXPLAIN ANALYZE.
fn rows_read(plan: &[String]) -> u64 {
    let number = |line: &str, name: &str| -> Option<u64> {
        let text = line.split_once(name)?.1;
        text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut loops = 1;
    let mut read = 0;
    for line in plan {
        if let Some(rows) = number(line, "actual rows=") {
            loops = number(line, "loops=").unwrap_or(1);
            read += rows * loops;
        }
        for left_out in
            ["Rows Removed by Filter: ", "Rows Removed by Join Filter: ", "Rows Removed by Index Recheck: "]
        {
            read += number(line, left_out).unwrap_or(0) * loops;
        }
    }
    read
}

async fn slow_in_postgres(database: &Postgres) -> Slow {
    let mut slow = Slow::new();
    let asked = lists::<PostgresStore>(postgres::runs::list_sql(), i64::try_from(rows()).unwrap()).await;
    for (name, StoreQuery { sql, params, is_page }) in asked {
        let boxed: Vec<_> = params.into_iter().map(boxed).collect();
        let params: Vec<Param<'_>> = params_of(&boxed);
        let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}");
        let found = match is_page {
            true => database.page(PoolClass::Claim, &explain, &params).await.unwrap(),
            false => database.read(PoolClass::Record, &explain, &params).await.unwrap(),
        };
        let plan: Vec<String> = found.iter().map(|row| get(row, 0).unwrap()).collect();
        if rows_read(&plan) > ROWS_READ_MAX {
            slow.push((name, plan.join("\n")));
        }
    }
    slow
}

#[tokio::test]
async fn each_list_of_postgresql_reads_what_it_returns_and_one_without_its_index_does_not() {
    let Some(fresh) = Database::fresh("plans of the lists") else { return };
    let settings = PostgresSettings::parse(fresh.url(), None, 4, "billing").unwrap();
    let database = Postgres::open(&settings, SCHEMA, None, Random::system()).unwrap();
    database.migrate().await.unwrap();
    let numbers = format!("(SELECT generate_series(1, {}::bigint) AS i) AS n", rows());
    fresh.run(&filling(&numbers, "lpad(i::text, 32, '0')", rows()));
    // Without statistics, as after a large import; then with the planner's statistics.
    for statistics in ["SELECT 1", "VACUUM (ANALYZE)"] {
        fresh.run(statistics);
        assert_eq!(slow_in_postgres(&database).await, Slow::new(), "after {statistics}");
    }
    let valid = |index: &str, is_valid: bool| {
        fresh.run(&format!(
            "UPDATE pg_index SET indisvalid = {is_valid} WHERE indexrelid = '{index}'::regclass"
        ));
    };
    for index in INDEXES {
        valid(index, false);
        let slow = slow_in_postgres(&database).await;
        valid(index, true);
        assert!(!slow.is_empty(), "no list needs {index}");
        println!("without {index}: {:?}", names(&slow));
    }
    assert_eq!(slow_in_postgres(&database).await, Slow::new());
}

#[test]
fn rows_of_a_plan_are_those_of_all_its_loops_with_those_that_it_left_out() {
    let plan = [
        "Limit (actual rows=50 loops=1)",
        "  ->  Index Scan using a on b (actual rows=2 loops=25)",
        "        Rows Removed by Filter: 3",
        "Planning Time: 0.1 ms",
    ];
    assert_eq!(rows_read(&plan.map(str::to_owned)), 50 + 50 + 75);
}
