//! What the stores alone can do, without any provider: invoices imported, claimed and settled a second, by one caller
//! and by several at once, and what each costs in PostgreSQL's write-ahead log. Judges nothing.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use billing::invoice::{Attempt, CustomerId, InvoiceId, Reference, RunId};
use billing::money::{Currency, Money};
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::postgres::{PostgresStore, SCHEMA};
use billing::store::sqlite::SqliteStore;
use billing::store::{ImportMode, ImportRow, Store};
use chassis::clock::{Clock, Random};
use chassis::postgres::{Postgres, PostgresSettings};
use testkit::postgres::DatabaseClient;
use testkit::{Database, size};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Rows of one import.
const IMPORT: usize = 1000;
/// Attempts of one claim, as the engine claims them.
const CLAIM: usize = 256;
/// Settlements of one step, as the engine records them.
const SETTLE: usize = 512;
/// Longer than this runs.
const LEASE: Duration = Duration::from_secs(3600);

fn main() -> io::Result<()> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let invoices = size("BENCH_STORE_INVOICES", 50_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{invoices} invoices; imports of {IMPORT}, claims of {CLAIM}, settlements of {SETTLE}\n{:<26} {:>10} {:>10} {:>10}",
        "", "imports/s", "claims/s", "settles/s"
    )?;
    runtime.block_on(async {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let path = folder.path().join("billing.db");
        let store = SqliteStore::open(&path, None, Clock::system(), &Random::system()).await;
        let store: Arc<dyn Store> = Arc::new(store.map_err(io::Error::other)?);
        let figures = measure(&store, invoices, 1, None).await;
        writeln!(out, "{:<26} {}", "SQLite, 1 caller", figures.rates())?;
        for callers in [1, 4, 12] {
            let Some(database) = Database::fresh("the store's figures on PostgreSQL") else { return Ok(()) };
            let settings =
                PostgresSettings::parse(database.url(), None, 24, "billing").map_err(io::Error::other)?;
            let postgres =
                Postgres::open(&settings, SCHEMA, None, Random::system()).map_err(io::Error::other)?;
            postgres.migrate().await.map_err(io::Error::other)?;
            let store = PostgresStore::open(postgres, None, Random::system().uuid(), &Clock::system()).await;
            let store: Arc<dyn Store> = Arc::new(store.map_err(io::Error::other)?);
            let wal = DatabaseClient::to(database.url());
            let figures = measure(&store, invoices, callers, Some(&wal)).await;
            writeln!(out, "{:<26} {}", format!("PostgreSQL, {callers} callers"), figures.rates())?;
            writeln!(out, "{:<26} {}", "  WAL bytes an invoice", figures.wal())?;
        }
        Ok(())
    })
}

/// Of one store, by step: import, claim, settle.
struct ChargeMetrics {
    per_second: [u64; 3],
    wal_bytes: [i64; 3],
}

impl ChargeMetrics {
    fn rates(&self) -> String {
        self.per_second.map(|rate| format!("{rate:>10}")).join(" ")
    }

    fn wal(&self) -> String {
        self.wal_bytes.map(|bytes| format!("{bytes:>10}")).join(" ")
    }
}

async fn measure(
    store: &Arc<dyn Store>,
    invoices: usize,
    callers: usize,
    wal: Option<&DatabaseClient>,
) -> ChargeMetrics {
    let written =
        || wal.map_or(0, |wal| wal.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"));
    let mut figures = ChargeMetrics { per_second: [0; 3], wal_bytes: [0; 3] };
    let mut note = |step: usize, began: Instant, before: i64| {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        let count = u64::try_from(invoices).unwrap_or(u64::MAX);
        figures.per_second[step] = count * 1_000_000 / micros;
        figures.wal_bytes[step] = (written() - before) / i64::try_from(invoices).unwrap_or(i64::MAX);
    };
    let (began, before) = (Instant::now(), written());
    import(store, invoices).await;
    note(0, began, before);
    let (run, _) = store.open_run(LEASE).await.expect("a run begins");
    let (began, before) = (Instant::now(), written());
    let claimed = in_parallel(callers, |_| claim(Arc::clone(store), run.id)).await;
    note(1, began, before);
    assert_eq!(claimed.len(), invoices, "each is claimed once");
    let (began, before) = (Instant::now(), written());
    let share = claimed.len().div_ceil(callers);
    in_parallel(callers, |nth| {
        let mine: Vec<Attempt> = claimed.iter().skip(nth * share).take(share).cloned().collect();
        settle(Arc::clone(store), run.id, mine)
    })
    .await;
    note(2, began, before);
    let paid = store.counts().await.expect("counts can be read").paid;
    assert_eq!(usize::try_from(paid).ok(), Some(invoices), "each is paid");
    figures
}

async fn in_parallel<F>(callers: usize, job: impl Fn(usize) -> F) -> Vec<Attempt>
where
    F: Future<Output = Vec<Attempt>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for nth in 0..callers {
        tasks.spawn(job(nth));
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn import(store: &Arc<dyn Store>, invoices: usize) {
    let row = |number: usize| ImportRow {
        reference: Reference::new(format!("B{number}")).expect("a short plain word"),
        customer_id: CustomerId(i64::try_from(number % 100).unwrap_or(0) + 1),
        money: Money { amount_minor: 1215, currency: Currency::EUR },
        paid: false,
    };
    let rows: Vec<ImportRow> = (1..=invoices).map(row).collect();
    for batch in rows.chunks(IMPORT) {
        store.import(batch, ImportMode::default()).await.expect("an import is taken");
    }
}

async fn claim(store: Arc<dyn Store>, run: RunId) -> Vec<Attempt> {
    let mut all = Vec::new();
    let mut after = InvoiceId(0);
    loop {
        let claimed = store.claim_in_turn(run, after, CLAIM, LEASE).await.expect("a claim is made").attempts;
        let Some(last) = claimed.last() else { return all };
        after = last.invoice_id;
        all.extend(claimed);
    }
}

async fn settle(store: Arc<dyn Store>, run: RunId, attempts: Vec<Attempt>) -> Vec<Attempt> {
    for batch in attempts.chunks(SETTLE) {
        let charged = |attempt: &Attempt| Settlement::of(attempt, Outcome::Charged, Duration::ZERO, None);
        let settlements: Vec<Settlement> = batch.iter().map(charged).collect();
        store.settle(Some(run), &settlements).await.expect("outcomes are recorded");
    }
    Vec::new()
}
