//! Tests of SQLite's store alone: plans of the hot statements, the deployment, hand-typed statements, kills.

use std::time::Duration;

use rusqlite::params;
use tempfile::TempDir;

use super::*;
use crate::invoice::{CustomerId, Reference};
use crate::money::{Currency, Money};
use crate::protocol::transition::Outcome;
use crate::store::InvoiceReads;

const LEASE: Duration = Duration::from_secs(15);

async fn open(folder: &TempDir) -> SqliteStore {
    let path = folder.path().join("billing.db");
    SqliteStore::open(&path, None, Clock::system(), &Random::seeded(8213)).await.unwrap()
}

fn row(number: usize) -> ImportRow {
    ImportRow {
        reference: Reference::new(format!("I{number}")).unwrap(),
        customer_id: CustomerId(1),
        money: Money { amount_minor: 1215, currency: Currency::EUR },
        paid: false,
    }
}

async fn import(store: &SqliteStore, count: usize) {
    let all: Vec<_> = (1..=count).map(row).collect();
    for batch in all.chunks(BATCH_MAX) {
        let imported = store.import(batch, ImportMode::default()).await.unwrap();
        assert!(imported.iter().all(|one| *one == Imported::Created));
    }
}

fn settlement(attempt: &Attempt, outcome: Outcome) -> Settlement {
    Settlement::of(attempt, outcome, Duration::ZERO, None)
}

#[tokio::test]
async fn an_invoice_is_imported_claimed_and_settled() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    import(&store, 3).await;
    let (run, joined) = store.open_run(LEASE).await.unwrap();
    assert!(!joined);
    let claimed = store.claim_in_turn(run.id, InvoiceId(0), 2, LEASE).await.unwrap().attempts;
    assert_eq!(claimed.len(), 2);
    let settlements = [settlement(&claimed[0], Outcome::Charged), settlement(&claimed[1], Outcome::Refused)];
    assert_eq!(store.settle(Some(run.id), &settlements).await.unwrap(), [Settled::Applied, Settled::Applied]);
    let counts = store.counts().await.unwrap();
    assert_eq!(counts, Counts { pending: 2, charging: 0, paid: 1, attention: 0, cancelled: 0 });
    let counters = store.run(run.id).await.unwrap().unwrap().counters;
    assert_eq!((counters.total, counters.attempted, counters.paid, counters.refused), (3, 2, 1, 1));
    let rest = store.claim_in_turn(run.id, InvoiceId(0), 10, LEASE).await.unwrap().attempts;
    assert_eq!(rest.iter().map(|attempt| attempt.invoice_id).collect::<Vec<_>>(), [InvoiceId(3)]);
}

#[tokio::test]
async fn a_deployment_keeps_its_id_and_refuses_another() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("billing.db");
    let own = DeploymentId(Uuid::from_u128(7));
    let reopen = async |given| SqliteStore::open(&path, given, Clock::system(), &Random::system()).await;
    assert_eq!(reopen(Some(own)).await.unwrap().deployment().await.unwrap(), own);
    assert_eq!(reopen(None).await.unwrap().deployment().await.unwrap(), own);
    let other = reopen(Some(DeploymentId(Uuid::from_u128(8)))).await.unwrap_err();
    assert!(matches!(other, OpenError::OtherDeployment(_)), "{other}");
}

/// Lines of EXPLAIN QUERY PLAN.
async fn plan_of(store: &SqliteStore, sql: &'static str) -> Vec<String> {
    let job = move |connection: &Connection| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let parameters = vec![1_i64; statement.parameter_count()];
        let lines = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))?;
        lines.collect()
    };
    store.database.read(job).await.unwrap()
}

#[tokio::test]
async fn no_hot_statement_scans_or_sorts() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let claims = [claims::CANDIDATES, claims::SCHEDULED, claims::LAST_ATTEMPT, claims::DUE, claims::NEXT_DUE];
    let keys = [keys::UNSETTLED_WITH_KEY, keys::OF_INVOICE_WITH_KEY];
    let facts = [transaction::FIND, transaction::OPEN_OR_CHARGED, dunning::LADDER_FACTS_SQL];
    let gate = [
        dunning::INSTRUMENT_SQL,
        dunning::DECLINED_AT_SQL,
        dunning::HARD_DECLINED_AT_SQL,
        transaction::SET_ATTEMPT,
    ];
    for sql in claims.into_iter().chain(keys).chain(facts).chain(gate) {
        let plan = plan_of(&store, sql).await;
        let slow = |line: &String| line.contains("SCAN") || line.contains("TEMP B-TREE");
        assert!(!plan.is_empty() && !plan.iter().any(slow), "{sql}: {plan:?}");
    }
    let open = plan_of(&store, dunning::OPEN_ATTEMPTS_SQL).await;
    let others =
        |line: &String| !line.contains("SCAN a USING INDEX attempts_open") && !line.contains("SEARCH");
    assert!(!open.is_empty() && !open.iter().any(others), "only what is open is scanned: {open:?}");
}

#[tokio::test]
async fn counts_are_those_of_counting_even_after_statements_typed_by_hand() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    import(&store, 10).await;
    let by_hand = "UPDATE invoices SET state = 'ATTENTION', attention_reason = 'rejected' WHERE id <= 4;
         UPDATE invoices SET state = 'PAID', paid_by = 'import', attention_reason = NULL WHERE id <= 1;
         DELETE FROM invoices WHERE id > 8;";
    Connection::open(folder.path().join("billing.db")).unwrap().execute_batch(by_hand).unwrap();
    let expected = Counts { pending: 4, charging: 0, paid: 1, attention: 3, cancelled: 0 };
    assert_eq!(store.counts().await.unwrap(), expected);
    let recounted = "SELECT count(*) FROM invoice_counts AS c
         WHERE invoices <> (SELECT count(*) FROM invoices AS i WHERE i.state = c.state)";
    let wrong = store
        .database
        .read(move |connection| connection.query_row(recounted, [], |row| row.get::<_, i64>(0)));
    assert_eq!(wrong.await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_open_or_charged_attempt_of_an_invoice_is_refused_by_the_file_itself() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    import(&store, 1).await;
    let (run, _) = store.open_run(LEASE).await.unwrap();
    let claimed = store.claim_in_turn(run.id, InvoiceId(0), 1, LEASE).await.unwrap().attempts;
    let second = |key: &'static str| {
        move |connection: &Connection| {
            connection.execute(
                "INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
             lease_until, created_at, settled_at)
             SELECT ?1, invoice_id, number + 1, customer_id, currency, amount_minor, state,
                 sends, run_id, lease_until, created_at, settled_at FROM attempts",
                params![key],
            )
        }
    };
    for state in ["open", "charged"] {
        let error = store.write(second("0123456789abcdef0123456789abcdef")).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{state}: {error}");
        store.settle(None, &[settlement(&claimed[0], Outcome::Charged)]).await.unwrap();
    }
}

#[tokio::test]
async fn words_that_no_type_has_are_corruption_and_no_default() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    import(&store, 1).await;
    let by_hand = "UPDATE invoices SET currency = 'XXX'";
    store.write(move |connection| connection.execute_batch(by_hand)).await.unwrap();
    assert!(matches!(store.invoice(InvoiceId(1)).await, Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn a_run_that_goes_on_passes_what_it_refused_in_bounded_steps() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    import(&store, 12_000).await;
    let (run, _) = store.open_run(LEASE).await.unwrap();
    let refused = "INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends,
         run_id, lease_until, created_at, settled_at)
         SELECT printf('%032x', id), id, 1, 1, 'EUR', 1215, 'REFUSED', 1, 1, 0, 0, 0 FROM invoices WHERE id < 12000";
    store.write(move |connection| connection.execute_batch(refused)).await.unwrap();
    let claimed = store.claim_in_turn(run.id, InvoiceId(0), 100, LEASE).await.unwrap().attempts;
    assert_eq!(claimed.iter().map(|attempt| attempt.invoice_id).collect::<Vec<_>>(), [InvoiceId(12_000)]);
    assert!(store.claim_in_turn(run.id, InvoiceId(0), 100, LEASE).await.unwrap().attempts.is_empty());
}

/// A file of the previous version, with one invoice whose former attempt was refused and decided.
fn of_the_version_before(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    for step in &migrations::SQLITE[..16] {
        connection.execute_batch(step.sql).unwrap();
    }
    let rows = "INSERT INTO customers (id, currency) VALUES (1, 'EUR');
         INSERT INTO invoices (id, reference, customer_id, currency, amount_minor, state, paid_by, created_at, updated_at)
         VALUES (1, 'I1', 1, 'EUR', 1215, 'PAID', 'charge', 0, 0);
         INSERT INTO runs (id, state, started_at, lease_until) VALUES (1, 'running', 0, 0);
         INSERT INTO attempts VALUES ('b', 1, 2, 1, 'EUR', 1215, 'CHARGED', 1, 1, 0, 0, 86400000, NULL, NULL, 1),
             ('a', 1, 1, 1, 'EUR', 1215, 'REFUSED', 2, 1, 0, 0, 5, 'soft', 'code', 1);
         INSERT INTO resolutions VALUES (7, 'a', 0, 'seen', 'ann', 3, 'IN_DOUBT', 'REFUSED', 'ATTENTION', 'PENDING')";
    connection.execute_batch(rows).unwrap();
    connection
}

fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

#[test]
fn attempts_are_stored_by_invoice_with_every_column_index_and_trigger() {
    const ATTEMPTS: &str =
        "SELECT concat_ws('|', key, invoice_id, number, customer_id, currency, amount_minor, state,
         sends, run_id, lease_until, created_at, settled_at, decline_class, decline_code, key_scheme)
         FROM attempts ORDER BY invoice_id, number";
    const OBJECTS: &str =
        "SELECT name FROM sqlite_schema WHERE tbl_name = 'attempts' AND sql IS NOT NULL ORDER BY name";
    let folder = TempDir::new().unwrap();
    let connection = of_the_version_before(&folder.path().join("billing.db"));
    let (before, mut objects) = (texts(&connection, ATTEMPTS), texts(&connection, OBJECTS));
    connection.execute_batch(&format!("BEGIN; {}; COMMIT", migrations::SQLITE[16].sql)).unwrap();
    assert_eq!(texts(&connection, ATTEMPTS), before);
    objects.push("attempts_keys".to_owned());
    objects.sort();
    assert_eq!(texts(&connection, OBJECTS), objects);
    let decided =
        "SELECT concat_ws('|', id, key, charged, reason, actor, created_at, attempt_from, attempt_to,
         invoice_from, invoice_to, invoice_id) FROM resolutions";
    let expected = "7|a|0|seen|ann|3|IN_DOUBT|REFUSED|ATTENTION|PENDING|1";
    assert_eq!(texts(&connection, decided), [expected]);
    // The previous version records decisions without an invoice; the next start adds the invoice.
    connection.execute_batch("UPDATE resolutions SET invoice_id = NULL").unwrap();
    keys::name_invoices(&connection).unwrap();
    assert_eq!(texts(&connection, decided), [expected]);
    let sums = "SELECT CAST(charges AS TEXT) FROM charged_days";
    assert_eq!(texts(&connection, sums), ["1"], "counted once");
    connection.execute_batch("DELETE FROM attempts WHERE key = 'b'").unwrap();
    assert_eq!(texts(&connection, sums), ["0"], "the trigger is there");
    assert_eq!(texts(&connection, "SELECT \"table\" FROM pragma_foreign_key_check"), ["0"; 0]);
}
