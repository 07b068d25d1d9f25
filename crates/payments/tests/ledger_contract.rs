//! The guarantees of every ledger, compared with a model that is too simple to be wrong. A new backend needs one more
//! function that opens it. Knows no SQL. Guarantees of a single backend are tested at the end.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chassis::clock::{Clock, Random};
use chassis::postgres::{Postgres, PostgresSettings};
use payments::amount::Minor;
use payments::declines::Decline;
use payments::deployments::{
    Admission, DEPLOYMENTS_MAX, Declaration, DeclareOutcome, DeploymentId, How, Unknown,
};
use payments::keys::{Fingerprint, FingerprintVersion, Key, Known, judge_known_key};
use payments::ledger::failover::Failover;
use payments::ledger::postgres::{PostgresLedger, SCHEMA};
use payments::ledger::sqlite::SqliteLedger;
use payments::ledger::{Entry, Found, Ledger, Recorded, Row, Seq, State, Void, Voided};
use proptest::prelude::*;
use testkit::Database;
use testkit::postgres::{Cut, CutPlan, Cutter, Pooler};
use uuid::Uuid;

type Opened<'a> = Pin<Box<dyn Future<Output = Arc<dyn Ledger>> + 'a>>;

/// A place for one ledger, which can be opened repeatedly.
trait Place {
    fn open(&self) -> Opened<'_>;

    /// Runs SQL statements as an operator would.
    fn run(&self, statements: &str);

    /// Changes the ledger into the previous version's form: keys are unique over all accounts. No process has it open.
    fn make_keys_unique_over_all_accounts(&self);

    /// Does the same as `payments keys-per-account`.
    fn make_keys_per_account(&self) -> Pin<Box<dyn Future<Output = ()> + '_>>;

    /// Whether several processes may have the ledger open at once.
    fn is_shared(&self) -> bool;
}

struct InSqlite(tempfile::TempDir);

impl InSqlite {
    fn fresh() -> Self {
        Self(tempfile::tempdir().expect("a fresh folder"))
    }
}

impl Place for InSqlite {
    fn is_shared(&self) -> bool {
        false
    }

    fn run(&self, statements: &str) {
        let file = rusqlite::Connection::open(self.0.path().join("payments.db")).unwrap();
        file.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
        file.execute_batch(statements).unwrap();
    }

    fn make_keys_unique_over_all_accounts(&self) {
        self.run("DROP INDEX ledger_key_of_account; CREATE UNIQUE INDEX of_all ON ledger (key)");
    }

    fn make_keys_per_account(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            let path = self.0.path().join("payments.db");
            let ledger = SqliteLedger::attach(&path, Clock::system(), Random::system()).await.unwrap();
            ledger.make_keys_per_account().await.unwrap();
        })
    }

    fn open(&self) -> Opened<'_> {
        Box::pin(async {
            let clock = Clock::simulated(1_700_000_000_000);
            let ledger =
                SqliteLedger::open(&self.0.path().join("payments.db"), clock, Random::seeded(8213)).await;
            Arc::new(ledger.expect("a ledger in a fresh folder")) as Arc<dyn Ledger>
        })
    }
}

struct InPostgres {
    database: Database,
    /// URL of the database: direct, or through a pooler.
    url: String,
}

impl InPostgres {
    /// A place in a new database; `None` where there is no server, which was reported.
    fn fresh() -> Option<Self> {
        Database::fresh("the ledger's contract on PostgreSQL").map(Self::at)
    }

    fn at(database: Database) -> Self {
        let url = database.url().to_owned();
        Self { database, url }
    }

    fn connect(&self) -> Postgres {
        let settings = PostgresSettings::parse(&self.url, None, 8, "payments").expect("a sound URL");
        Postgres::open(&settings, SCHEMA, None, Random::system()).expect("no files to be wrong")
    }
}

impl Place for InPostgres {
    fn is_shared(&self) -> bool {
        true
    }

    fn run(&self, statements: &str) {
        self.database.run(statements);
    }

    fn make_keys_unique_over_all_accounts(&self) {
        self.run(
            "DROP INDEX ledger_key_of_account; ALTER TABLE ledger ADD CONSTRAINT ledger_key_key UNIQUE (key)",
        );
    }

    fn make_keys_per_account(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            payments::ledger::postgres::make_keys_per_account(&self.connect()).await.unwrap();
        })
    }

    fn open(&self) -> Opened<'_> {
        Box::pin(async {
            let database = self.connect();
            database.migrate().await.expect("a fresh database");
            let ledger = PostgresLedger::open(database, &Random::system(), Failover::Manual).await;
            Arc::new(ledger.expect("a ledger in a fresh database")) as Arc<dyn Ledger>
        })
    }
}

/// One step of a random sequence of calls.
#[derive(Clone, Debug)]
enum Step {
    Record { key: Option<u8>, account: u8, data: u8, charged: bool, from: Option<u8> },
    Void { key: u8, account: u8, from: Option<u8> },
    Reopen,
}

const ACCOUNTS: [&str; 2] = ["antaeus", "other"];

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![1 => Just(None), 3 => (0_u8..4).prop_map(Some)];
    prop_oneof![
        10 => (key, 0_u8..2, 0_u8..2, any::<bool>(), from()).prop_map(|(key, account, data, charged, from)| {
            Step::Record { key, account, data, charged, from }
        }),
        2 => (0_u8..4, 0_u8..2, from()).prop_map(|(key, account, from)| Step::Void { key, account, from }),
        1 => Just(Step::Reopen),
    ]
}

/// The deployment of a caller: [`SHARED`] is known under both accounts, 1 under none.
fn from() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![Just(None), Just(Some(SHARED)), Just(Some(1))]
}

const SHARED: u8 = 0;

fn void_of(key: u8, account: u8, from: Option<u8>) -> Void {
    let account = ACCOUNTS[usize::from(account)].to_owned();
    let deployment = from.map(|number| deployment(u128::from(number)));
    Void { account, key: key_named(key), deployment, seen: None }
}

fn key_named(key: u8) -> Key {
    Key::parse(&format!("key-{key}")).expect("a key")
}

fn entry(key: Option<u8>, account: u8, data: u8, charged: bool) -> Arc<Entry> {
    Arc::new(Entry {
        key: key.map(key_named),
        account: ACCOUNTS[usize::from(account)].to_owned(),
        fingerprint: Fingerprint::new(1, "EUR", Minor::hundredths(data.into())),
        reference: Some(format!("I{data}")),
        customer_id: 1,
        currency: "EUR".to_owned(),
        amount: Minor { units: data.into(), exponent: 2 + data },
        state: if charged { State::Charged } else { State::Refused },
        decline: if charged {
            None
        } else {
            Decline::from_code(["stolen_card", "expired_card"][usize::from(data)])
        },
        route: "/",
        deployment: None,
        seen: None,
        is_once: false,
    })
}

/// A model of the ledger: every row in order, and nothing else.
#[derive(Default)]
struct Model(Vec<Row>);

impl Model {
    fn of(&self, key: &Key, account: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.key.as_ref() == Some(key) && row.account == account)
    }

    /// Whether another account charged the key, and the caller may be the same client.
    fn is_foreign(&self, key: &Key, account: &str, from: Option<u8>) -> bool {
        let charged = |row: &Row| row.key.as_ref() == Some(key) && row.state == State::Charged;
        let elsewhere = self.0.iter().any(|row| charged(row) && row.account != account);
        elsewhere && from.is_none_or(|number| number == SHARED)
    }

    /// Positions grow; some may be left out.
    fn push(&mut self, entry: &Entry, seq: Seq) {
        assert!(self.0.last().is_none_or(|last| last.seq < seq), "{seq:?} after {:?}", self.0.last());
        self.0.push(Row {
            seq,
            key: entry.key.clone(),
            account: entry.account.clone(),
            fingerprint: entry.fingerprint.clone(),
            fingerprint_version: FingerprintVersion::CURRENT,
            reference: entry.reference.clone(),
            customer_id: entry.customer_id,
            currency: entry.currency.clone(),
            amount: entry.amount,
            state: entry.state,
            decline: entry.decline.clone(),
            route: entry.route.to_owned(),
            created_at_ms: 0,
        });
    }

    fn void(&mut self, key: &Key, account: &str, seq: Seq) -> Row {
        if self.of(key, account).is_none() {
            let tombstone = Entry {
                key: Some(key.clone()),
                account: account.to_owned(),
                fingerprint: Fingerprint::from_store(String::new()),
                reference: None,
                customer_id: 0,
                currency: String::new(),
                amount: Minor::hundredths(0),
                state: State::Voided,
                decline: None,
                route: "/v1/ledger/{key}/void",
                deployment: None,
                seen: None,
                is_once: false,
            };
            self.push(&tombstone, seq);
        }
        self.of(key, account).expect("it was just put there").clone()
    }
}

/// A row without its time, which the model does not keep.
fn timeless(row: Row) -> Row {
    assert!(row.created_at_ms >= 1_700_000_000_000, "{row:?}");
    Row { created_at_ms: 0, ..row }
}

async fn apply(ledger: &Arc<dyn Ledger>, model: &mut Model, step: &Step) {
    match *step {
        Step::Record { key, account, data, charged, from } => {
            let deployment = from.map(|number| deployment(u128::from(number)));
            let entry = Arc::new(Entry { deployment, ..(*entry(key, account, data, charged)).clone() });
            let key = entry.key.as_ref();
            let known = key.and_then(|key| model.of(key, &entry.account)).cloned();
            let is_foreign = key.is_some_and(|key| model.is_foreign(key, &entry.account, from));
            match (ledger.record(&entry).await.unwrap(), known) {
                (Recorded::New(seq), None) if !is_foreign => model.push(&entry, seq),
                (Recorded::Known(row), Some(known)) => assert_eq!(timeless(row), known),
                (Recorded::Foreign, None) if is_foreign => {}
                other => panic!("{step:?}: {other:?}"),
            }
        }
        Step::Void { key, account, from } => {
            let void = void_of(key, account, from);
            let is_known = model.of(&void.key, &void.account).is_some();
            match ledger.void(&void).await.unwrap() {
                Voided::Row(row) => {
                    assert!(is_known || !model.is_foreign(&void.key, &void.account, from), "{step:?}");
                    let (row, seq) = (timeless(row.clone()), row.seq);
                    assert_eq!(row, model.void(&void.key, &void.account, seq));
                }
                Voided::Foreign => {
                    assert!(!is_known && model.is_foreign(&void.key, &void.account, from), "{step:?}");
                }
                Voided::Behind => panic!("no request names a highest position seen"),
            }
        }
        Step::Reopen => {}
    }
}

async fn assert_same(ledger: &Arc<dyn Ledger>, model: &Model) {
    for account in ACCOUNTS {
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map_or(Seq(0), |row: &Row| row.seq);
            let page = ledger.page(account, after, 3).await.unwrap();
            assert!(page.rows.len() <= 3 && (!page.more || page.rows.len() == 3), "{page:?}");
            rows.extend(page.rows.into_iter().map(timeless));
            if !page.more {
                break;
            }
        }
        let expected: Vec<Row> = model.0.iter().filter(|row| row.account == account).cloned().collect();
        assert_eq!(rows, expected);
    }
    for (key, account) in (0..4).map(key_named).flat_map(|key| ACCOUNTS.map(|account| (key.clone(), account)))
    {
        let found = match ledger.look_up(account, &key).await.unwrap() {
            Found::Row(row) => Some(timeless(row)),
            Found::Absent => None,
            Found::Foreign => panic!("{key} is blocked"),
        };
        assert_eq!(found, model.of(&key, account).cloned());
    }
}

fn holds_for(place: &dyn Place, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut ledger = place.open().await;
        let id = ledger.id().await.unwrap();
        for account in 0..ACCOUNTS.len() {
            let shared = declaration(account, deployment(u128::from(SHARED)));
            ledger.declare_deployment(&shared).await.unwrap();
        }
        let mut model = Model::default();
        for step in steps {
            apply(&ledger, &mut model, step).await;
            if matches!(step, Step::Reopen) {
                drop(ledger);
                ledger = place.open().await;
                assert_eq!(ledger.id().await.unwrap(), id);
            }
        }
        assert_same(&ledger, &model).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_ledger_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        holds_for(&InSqlite::fresh(), &steps);
    }

    /// The rules of replay, reuse and void, for any row and any request with its key.
    #[test]
    fn a_known_key_never_executes_again(
        data in 0_u8..2, another in 0_u8..2, state in 0_usize..3, same_reference in any::<bool>(), old in any::<bool>(),
    ) {
        let mut model = Model::default();
        let first = Entry { state: State::ALL[state], ..(*entry(Some(0), 0, data, true)).clone() };
        model.push(&first, Seq(1));
        let mut request = (*entry(Some(0), 0, another, true)).clone();
        request.reference = if same_reference { first.reference.clone() } else { Some("I9".to_owned()) };
        if old {
            model.0[0].fingerprint_version = FingerprintVersion::WithoutReference;
        }
        let verdict = judge_known_key(&model.0[0], &request);
        let expected = match () {
            () if first.state == State::Voided => Known::Voided,
            () if data != another || !(same_reference || old) => Known::Reused,
            () => Known::Replay,
        };
        prop_assert_eq!(verdict, expected);
    }
}

/// Runs a race on one or several openings of a ledger: each replica of a service has one.
async fn race(ledgers: &[Arc<dyn Ledger>]) {
    for round in 0..20 {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let ledger = Arc::clone(&ledgers[racer % ledgers.len()]);
                tokio::spawn(async move {
                    if racer == 7 {
                        match ledger.void(&void_of(round, 0, None)).await.unwrap() {
                            Voided::Row(row) => (row.seq, row.state),
                            other => panic!("{other:?}"),
                        }
                    } else {
                        match ledger.record(&entry(Some(round), 0, 0, racer % 2 == 0)).await.unwrap() {
                            Recorded::New(seq) => {
                                (seq, if racer % 2 == 0 { State::Charged } else { State::Refused })
                            }
                            Recorded::Known(row) => (row.seq, row.state),
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let mut seen = Vec::new();
        for racer in racers {
            seen.push(racer.await.unwrap());
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    }
    assert_eq!(ledgers[0].page(ACCOUNTS[0], Seq(0), 1000).await.unwrap().rows.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_races_for_a_key_sees_one_row() {
    race(&[InSqlite::fresh().open().await]).await;
    let Some(place) = InPostgres::fresh() else { return };
    race(&[place.open().await]).await;
}

#[tokio::test]
async fn a_new_name_is_another_one_and_stays() {
    let mut places: Vec<Box<dyn Place>> = vec![Box::new(InSqlite::fresh())];
    places.extend(InPostgres::fresh().map(|place| Box::new(place) as Box<dyn Place>));
    for place in places {
        let ledger = place.open().await;
        let before = ledger.id().await.unwrap();
        let after = ledger.renew_id().await.unwrap();
        assert_ne!(before, after);
        drop(ledger);
        assert_eq!(place.open().await.id().await.unwrap(), after);
    }
}

#[test]
fn a_ledger_in_postgres_does_what_the_model_does() {
    /// Each case has a database of its own, which takes a while.
    const CASES: u32 = 8;
    let Some(_kept) = InPostgres::fresh() else { return };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(CASES));
    let story = proptest::collection::vec(step(), 1..40);
    let done = runner.run(&story, |steps| {
        holds_for(&InPostgres::fresh().expect("there was one before"), &steps);
        Ok(())
    });
    done.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_replicas_that_race_for_a_key_see_one_row() {
    let Some(place) = InPostgres::fresh() else { return };
    race(&[place.open().await, place.open().await, place.open().await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_page_passes_over_a_row_that_becomes_visible_later() {
    const WRITERS: u8 = 8;
    const ROWS: usize = 150;
    let Some(place) = InPostgres::fresh() else { return };
    let ledgers = [place.open().await, place.open().await, place.open().await];
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let ledger = Arc::clone(&ledgers[usize::from(writer) % ledgers.len()]);
            tokio::spawn(async move {
                for _ in 0..ROWS {
                    ledger.record(&entry(None, 0, 0, true)).await.unwrap();
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    let all = ROWS * usize::from(WRITERS);
    while seen.len() < all {
        let is_over = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let after = seen.last().copied().unwrap_or(Seq(0));
        let page = ledgers[0].page(ACCOUNTS[0], after, 1000).await.unwrap();
        seen.extend(page.rows.iter().map(|row| row.seq));
        assert!(seen.len() == all || !is_over, "a reader saw {} of {all} rows", seen.len());
    }
}

#[tokio::test]
async fn a_process_that_took_a_ledger_for_another_writes_nothing_more_and_is_reported() {
    let Some(place) = InPostgres::fresh() else { return };
    let database = place.connect();
    database.migrate().await.unwrap();
    let ledger = PostgresLedger::open(database, &Random::system(), Failover::Manual).await.unwrap();
    ledger.record(&entry(Some(0), 0, 0, true)).await.unwrap();
    payments::ledger::postgres::renew_id(&place.connect(), &Random::system()).await.unwrap();
    ledger.record(&entry(Some(1), 0, 0, true)).await.unwrap_err();
    ledger.id_changed().await;
    assert_eq!(place.database.ask("SELECT count(*) FROM ledger"), 1);
}

#[tokio::test]
async fn an_entry_that_the_database_cannot_hold_takes_no_other_with_it() {
    let Some(place) = InPostgres::fresh() else { return };
    let ledger = place.open().await;
    let bad = Arc::new(Entry { currency: "E\0R".to_owned(), ..(*entry(Some(0), 0, 0, true)).clone() });
    let good: Vec<Arc<Entry>> = (1..40).map(|key| entry(Some(key), 0, 0, true)).collect();
    let all: Vec<_> = std::iter::once(bad).chain(good).collect();
    let recorded = futures_util::future::join_all(all.iter().map(|entry| ledger.record(entry))).await;
    let refused: Vec<bool> = recorded.iter().map(Result::is_err).collect();
    assert!(refused[0] && !refused[1..].contains(&true), "{refused:?}");
}

/// The pooler has dozens of connections to clients and four to the server: in the next transaction another client gets
/// the session state.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_in_transaction_mode_changes_nothing() {
    const BEHIND: usize = 4;
    let Some(mut place) = InPostgres::fresh() else { return };
    let Some(pooler) = Pooler::start("the ledger behind pgbouncer", place.database.url(), BEHIND) else {
        return;
    };
    place.url = pooler.before(place.database.url());
    let ledgers = [place.open().await, place.open().await, place.open().await];
    race(&ledgers).await;
    let others = (20..60_u8).map(|key| {
        let ledger = Arc::clone(&ledgers[usize::from(key) % ledgers.len()]);
        async move { ledger.record(&entry(Some(key), 1, 0, true)).await }
    });
    let recorded = futures_util::future::join_all(others).await;
    assert!(recorded.iter().all(|one| matches!(one, Ok(Recorded::New(_)))), "{recorded:?}\n{}", pooler.log());
    assert_eq!(ledgers[0].page(ACCOUNTS[1], Seq(0), 1000).await.unwrap().rows.len(), 40);
    assert_eq!(place.database.ask("SELECT count(*) FROM ledger"), 60);
}

/// Like a small failover: the server has committed or not, and the caller cannot know.
#[tokio::test]
async fn a_charge_whose_commit_was_not_answered_is_found_again_by_its_key() {
    const INSERT: &[&str] = &["INSERT INTO ledger"];
    let Some(mut place) = InPostgres::fresh() else { return };
    let cutter = Cutter::before(place.database.url());
    place.url = cutter.url(place.database.url());
    let ledger = place.open().await;
    for (key, cuts) in [(0, &[Cut::Answer] as &'static [Cut]), (1, &[Cut::Request])] {
        cutter.follow(CutPlan::cut_next_once(INSERT, cuts));
        let recorded = ledger.record(&entry(Some(key), 0, 0, true)).await;
        assert!(matches!(recorded, Ok(Recorded::New(_))), "{cuts:?}: {recorded:?}");
    }
    assert_eq!((cutter.cuts(), place.database.ask("SELECT count(*) FROM ledger")), (2, 2));

    // Without a key the outcome stays unknown: the call fails, and the entry is not written again.
    for (cuts, kept) in [(&[Cut::Answer] as &'static [Cut], 3), (&[Cut::Request], 3)] {
        cutter.follow(CutPlan::cut_next_once(INSERT, cuts));
        ledger.record(&entry(None, 0, 0, true)).await.unwrap_err();
        assert_eq!(place.database.ask("SELECT count(*) FROM ledger"), kept, "{cuts:?}");
    }
    assert_eq!(cutter.cuts(), 4);
}

/// Two equal requests under one key, at two replicas or at one: the database's response to one is lost, and only the
/// other has a row.
#[tokio::test]
async fn an_equal_row_of_another_request_is_not_taken_for_ones_own_after_a_lost_answer() {
    const INSERT: &[&str] = &["INSERT INTO ledger"];
    let Some(mut place) = InPostgres::fresh() else { return };
    let other = place.open().await;
    let cutter = Cutter::before(place.database.url());
    place.url = cutter.url(place.database.url());
    let ledger = place.open().await;
    let cuts: [&'static [Cut]; 2] = [&[Cut::Request], &[Cut::Answer]];
    for (key, (first, cuts)) in
        (0_u8..).zip([&other, &ledger].into_iter().flat_map(|first| cuts.map(|cuts| (first, cuts))))
    {
        let Recorded::New(seq) = first.record(&entry(Some(key), 0, 0, true)).await.unwrap() else {
            panic!("key {key} is new")
        };
        cutter.follow(CutPlan::cut_next_once(INSERT, cuts));
        let recorded = ledger.record(&entry(Some(key), 0, 0, true)).await.unwrap();
        assert!(matches!(&recorded, Recorded::Known(row) if row.seq == seq), "{cuts:?}: {recorded:?}");
    }
    // An earlier version writes no id.
    other.record(&entry(Some(4), 0, 0, true)).await.unwrap();
    place.run("UPDATE ledger SET write_id = NULL");
    cutter.follow(CutPlan::cut_next_once(INSERT, &[Cut::Answer]));
    let recorded = ledger.record(&entry(Some(4), 0, 0, true)).await.unwrap();
    assert!(matches!(recorded, Recorded::Known(_)), "{recorded:?}");
    assert_eq!((cutter.cuts(), place.database.ask("SELECT count(*) FROM ledger")), (5, 5));
}

#[tokio::test]
async fn a_page_of_a_small_account_does_not_walk_through_the_rows_of_others() {
    let Some(place) = InPostgres::fresh() else { return };
    let ledger = place.open().await;
    place.database.run(
        "INSERT INTO ledger SELECT nextval('ledger_positions'), 'other-' || n, 'other', '', NULL, 1, 'EUR', 1, 'CHARGED', '/', 0
         FROM generate_series(1, 20000) AS n; ANALYZE ledger",
    );
    ledger.record(&entry(Some(0), 0, 0, true)).await.unwrap();
    assert_eq!(ledger.page(ACCOUNTS[0], Seq(0), 10).await.unwrap().rows.len(), 1);
    let plan = "EXPLAIN SELECT * FROM ledger WHERE seq > 0 AND seq <= 99999 AND account = 'antaeus' ORDER BY seq LIMIT 11";
    let plan =
        format!("{:?}", testkit::postgres::DatabaseClient::to(place.database.url()).rows(plan).unwrap());
    assert!(plan.contains("ledger_by_account"), "{plan}");
}

/// Places in both databases, where both are available.
fn places() -> Vec<Box<dyn Place>> {
    let mut places: Vec<Box<dyn Place>> = vec![Box::new(InSqlite::fresh())];
    places.extend(InPostgres::fresh().map(|place| Box::new(place) as Box<dyn Place>));
    places
}

fn deployment(number: u128) -> DeploymentId {
    DeploymentId(Uuid::from_u128(number))
}

fn declaration(account: usize, deployment: DeploymentId) -> Declaration {
    let (why, actor) = ("a second billing".to_owned(), "ops".to_owned());
    Declaration { account: ACCOUNTS[account].to_owned(), deployment, why, actor }
}

async fn admission(ledger: &Arc<dyn Ledger>, account: usize, deployment: DeploymentId) -> Admission {
    ledger.admit_deployment(ACCOUNTS[account], deployment).await.unwrap()
}

#[tokio::test]
async fn a_second_deployment_of_an_account_is_refused_until_it_is_declared() {
    for place in places() {
        let ledger = place.open().await;
        let (first, second) = (deployment(1), deployment(2));
        assert_eq!(admission(&ledger, 0, first).await, Admission::Record(How::First));
        assert_eq!(admission(&ledger, 0, first).await, Admission::Known);
        let refused = Admission::Refused(Unknown::OtherDeployment);
        assert_eq!(admission(&ledger, 0, second).await, refused);
        let DeclareOutcome::New(row) = ledger.declare_deployment(&declaration(0, second)).await.unwrap()
        else {
            panic!("it was not known");
        };
        assert_eq!(
            (row.how, row.why.as_deref(), row.actor.as_deref()),
            (How::Declared, Some("a second billing"), Some("ops"))
        );
        let again = ledger.declare_deployment(&declaration(0, second)).await.unwrap();
        assert_eq!(again, DeclareOutcome::Known(row), "a declaration is taken once");
        drop(ledger);
        let ledger = place.open().await;
        for known in [first, second] {
            assert_eq!(admission(&ledger, 0, known).await, Admission::Known);
        }
        let known = ledger.deployments(ACCOUNTS[0]).await.unwrap();
        let known: Vec<_> = known.iter().map(|row| (row.deployment, row.how)).collect();
        assert_eq!(known, [(first, How::First), (second, How::Declared)]);
        assert!(ledger.deployments(ACCOUNTS[1]).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_deployment_that_charged_under_another_account_is_refused_until_it_is_declared() {
    for place in places() {
        let ledger = place.open().await;
        assert_eq!(admission(&ledger, 0, deployment(1)).await, Admission::Record(How::First));
        ledger.record(&entry(Some(0), 0, 1, true)).await.unwrap();
        let refused = Admission::Refused(Unknown::OtherAccount);
        assert_eq!(admission(&ledger, 1, deployment(1)).await, refused);
        ledger.declare_deployment(&declaration(1, deployment(1))).await.unwrap();
        assert_eq!(admission(&ledger, 1, deployment(1)).await, Admission::Known);
        assert_eq!(admission(&ledger, 0, deployment(1)).await, Admission::Known);
    }
}

#[tokio::test]
async fn an_account_that_claims_a_deployment_and_charges_nothing_keeps_it_from_no_account() {
    for place in places() {
        let ledger = place.open().await;
        assert_eq!(admission(&ledger, 1, deployment(1)).await, Admission::Record(How::First));
        ledger.record(&entry(Some(0), 1, 1, false)).await.unwrap();
        ledger.record(&entry(None, 1, 1, true)).await.unwrap();
        ledger.void(&void_of(1, 1, Some(1))).await.unwrap();
        assert_eq!(admission(&ledger, 0, deployment(1)).await, Admission::Record(How::First));
        assert_eq!(admission(&ledger, 0, deployment(1)).await, Admission::Known);
    }
}

#[tokio::test]
async fn a_ledger_that_is_older_than_its_list_adopts_only_whose_keys_it_holds() {
    // The published vector: deployment 00000000-0000-4000-8000-000000000001, attempt 1 of I1.
    let own = DeploymentId(Uuid::parse_str("00000000-0000-4000-8000-000000000001").unwrap());
    let key = Key::parse("bca1897f57e947286a9d2dcb4be588f1");
    for place in places() {
        let ledger = place.open().await;
        let charged = Entry {
            key: key.clone(),
            reference: Some("I1".to_owned()),
            ..(*entry(None, 0, 1, true)).clone()
        };
        ledger.record(&entry(Some(9), 0, 1, true)).await.unwrap();
        ledger.record(&Arc::new(charged)).await.unwrap();
        let refused = Admission::Refused(Unknown::OtherKeys);
        assert_eq!(admission(&ledger, 0, deployment(7)).await, refused, "a store that lost its id");
        assert_eq!(admission(&ledger, 0, own).await, Admission::Record(How::Adopted));
        assert_eq!(admission(&ledger, 0, deployment(7)).await, Admission::Refused(Unknown::OtherDeployment));
        // Neither charges without keys nor tombstones prove another deployment.
        ledger.record(&entry(None, 1, 1, true)).await.unwrap();
        ledger.void(&void_of(3, 1, None)).await.unwrap();
        assert_eq!(admission(&ledger, 1, deployment(8)).await, Admission::Record(How::First));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_first_deployments_exactly_one_is_recorded() {
    for place in places() {
        let mut ledgers = vec![place.open().await];
        if place.is_shared() {
            ledgers.extend([place.open().await, place.open().await]);
        }
        let racers: Vec<_> = (0..12)
            .map(|racer| {
                let ledger = Arc::clone(&ledgers[racer % ledgers.len()]);
                tokio::spawn(async move { admission(&ledger, 0, deployment(racer as u128)).await })
            })
            .collect();
        let mut recorded = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Admission::Record(How::First) => recorded += 1,
                other => assert_eq!(other, Admission::Refused(Unknown::OtherDeployment)),
            }
        }
        assert_eq!((recorded, ledgers[0].deployments(ACCOUNTS[0]).await.unwrap().len()), (1, 1));
    }
}

#[tokio::test]
async fn an_account_has_a_limit_of_deployments() {
    for place in places() {
        let ledger = place.open().await;
        for number in 0..DEPLOYMENTS_MAX {
            let declared = ledger.declare_deployment(&declaration(0, deployment(number as u128))).await;
            assert!(matches!(declared.unwrap(), DeclareOutcome::New(_)));
        }
        let one_more = ledger.declare_deployment(&declaration(0, deployment(u128::MAX))).await.unwrap();
        assert_eq!(one_more, DeclareOutcome::TooMany);
    }
}

#[tokio::test]
async fn a_ledger_without_the_row_that_a_caller_has_seen_records_nothing() {
    let with = |key, seen| {
        let plain = entry(Some(key), 0, 1, true);
        Arc::new(Entry { seen: Some(Seq(seen)), ..(*plain).clone() })
    };
    for place in places() {
        let ledger = place.open().await;
        let Recorded::New(Seq(first)) = ledger.record(&entry(Some(1), 0, 1, true)).await.unwrap() else {
            panic!("the key is new");
        };
        assert!(matches!(ledger.record(&with(2, first)).await.unwrap(), Recorded::New(_)));
        for key in [2, 3] {
            let recorded = ledger.record(&with(key, first + 1000)).await.unwrap();
            assert_eq!(recorded, Recorded::Behind, "known or not, nothing is answered from such a ledger");
        }
        let void = Void { seen: Some(Seq(first + 1000)), ..void_of(4, 0, None) };
        assert_eq!(
            ledger.void(&void).await.unwrap(),
            Voided::Behind,
            "a tombstone of such a ledger would prove nothing"
        );
        drop(ledger);
        // The next process must read what one process knows from memory.
        let ledger = place.open().await;
        assert!(matches!(ledger.record(&with(5, first)).await.unwrap(), Recorded::New(_)));
        let rows = ledger.page(ACCOUNTS[0], Seq(0), 100).await.unwrap().rows;
        let keys: Vec<_> = rows.iter().filter_map(|row| row.key.clone()).collect();
        assert_eq!(keys, [key_named(1), key_named(2), key_named(5)]);
    }
}

/// The rows stay unchanged, and those of another account no longer block a key.
#[tokio::test]
async fn a_ledger_from_before_blocks_keys_of_other_accounts_until_its_keys_are_per_account() {
    for place in places() {
        let ledger = place.open().await;
        let Voided::Row(squatter) = ledger.void(&void_of(0, 1, None)).await.unwrap() else {
            panic!("a tombstone")
        };
        ledger.record(&entry(Some(1), 0, 1, true)).await.unwrap();
        drop(ledger);
        place.make_keys_unique_over_all_accounts();
        let ledger = place.open().await;
        assert_eq!(ledger.record(&entry(Some(0), 0, 1, true)).await.unwrap(), Recorded::Foreign);
        assert_eq!(ledger.void(&void_of(0, 0, None)).await.unwrap(), Voided::Foreign);
        assert_eq!(ledger.look_up(ACCOUNTS[0], &key_named(0)).await.unwrap(), Found::Foreign);
        let before = ledger.page(ACCOUNTS[0], Seq(0), 100).await.unwrap();
        drop(ledger);
        for _ in 0..2 {
            place.make_keys_per_account().await;
        }
        let ledger = place.open().await;
        assert_eq!(ledger.page(ACCOUNTS[0], Seq(0), 100).await.unwrap(), before);
        assert!(matches!(ledger.record(&entry(Some(0), 0, 1, true)).await.unwrap(), Recorded::New(_)));
        assert!(matches!(ledger.record(&entry(Some(1), 0, 1, true)).await.unwrap(), Recorded::Known(_)));
        assert_eq!(ledger.look_up(ACCOUNTS[1], &key_named(0)).await.unwrap(), Found::Row(squatter));
    }
}

/// The previous version wrote the row, or one before it: the rule of that version applies.
#[tokio::test]
async fn a_row_from_before_is_compared_without_its_reference() {
    for place in places() {
        let ledger = place.open().await;
        ledger.record(&entry(Some(0), 0, 1, true)).await.unwrap();
        let other =
            Arc::new(Entry { reference: Some("I9".to_owned()), ..(*entry(Some(0), 0, 1, true)).clone() });
        for (age, expected) in [(false, Known::Reused), (true, Known::Replay)] {
            if age {
                place.run("UPDATE ledger SET fingerprint_version = 1");
            }
            let Recorded::Known(row) = ledger.record(&other).await.unwrap() else {
                panic!("the key is known")
            };
            assert_eq!(judge_known_key(&row, &other), expected);
        }
    }
}

/// Each caller of one statement gets its own result.
#[tokio::test]
async fn a_caller_that_has_seen_too_much_takes_no_other_with_it() {
    for place in places() {
        let ledger = place.open().await;
        ledger.record(&entry(Some(0), 0, 0, true)).await.unwrap();
        let entries: Vec<_> = (1..60)
            .map(|key| {
                let seen = (key % 3 == 0).then_some(Seq(1_000_000));
                Arc::new(Entry { seen, ..(*entry(Some(key), 0, 0, true)).clone() })
            })
            .collect();
        let recorded = entries.iter().map(|entry| ledger.record(entry));
        let recorded = futures_util::future::join_all(recorded).await;
        for (entry, recorded) in entries.iter().zip(recorded) {
            assert_eq!(matches!(recorded.unwrap(), Recorded::Behind), entry.seen.is_some());
        }
    }
}
