//! Tests of PostgreSQL's store alone: several processes at once, guards, counts of statements typed by hand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use billing::invoice::{Attempt, CustomerId, Decline, DeclineClass, InvoiceId, InvoiceState, Network};
use billing::protocol::transition::{Outcome, Settlement};
use billing::run_order::{RunFilter, RunOrder};
use billing::store::control::{Controlled, CustomerAction, OperatorNote};
use billing::store::{BATCH_MAX, Counts, Imported, OpenedRun, Settled, Store, StoreError};
use chassis::postgres::{PoolClass, Tx};
use testkit::postgres::{Cut, CutPlan, Cutter};
use testkit::wait::wait_until;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, LEASE, PLAIN, PostgresFixture, UPDATE, claimed, imported, row, run};

const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";

fn settlement(attempt: &Attempt, outcome: Outcome) -> Settlement {
    Settlement::of(attempt, outcome, Duration::ZERO, None)
}

/// Acts as one of several processes in one run: claims and settles until nothing is left, and refuses some.
async fn work(store: Arc<dyn Store>, nth: usize) -> Vec<Attempt> {
    let run = store.open_run(LEASE).await.unwrap().0;
    let (mut after, mut mine) = (InvoiceId(0), Vec::new());
    loop {
        let claimed = store.claim_in_turn(run.id, after, 7 + nth, LEASE).await.unwrap().attempts;
        let Some(last) = claimed.last() else { return mine };
        after = last.invoice_id;
        // Settled in another order than claimed, as responses arrive.
        let outcome = |attempt: &Attempt| match attempt.invoice_id.0 % 5 {
            0 => Outcome::Refused,
            _ => Outcome::Charged,
        };
        let settlements: Vec<_> =
            claimed.iter().rev().map(|attempt| settlement(attempt, outcome(attempt))).collect();
        store.settle(Some(run.id), &settlements).await.unwrap();
        mine.extend(claimed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_claim_each_invoice_once_and_never_wait_for_each_other_in_a_ring() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let first = fixture.open().await;
    imported(&*first, 1_000).await;
    let run = run(&*first).await;
    let mut tasks = JoinSet::new();
    for nth in 0..6 {
        tasks.spawn(work(fixture.open().await, nth));
    }
    // The same file is imported again meanwhile, in another order.
    let again: Vec<_> = (1..=1_000).rev().map(|number| row(&format!("I{number}"), 1215)).collect();
    first.import(&again, UPDATE).await.unwrap();
    let all: Vec<Attempt> = tasks.join_all().await.into_iter().flatten().collect();
    let keys: BTreeSet<_> = all.iter().map(|attempt| &attempt.key).collect();
    // An invoice that an import locked at that moment is claimed at the end of a run.
    let rest = work(fixture.open().await, 100).await;
    assert_eq!((keys.len(), all.len() + rest.len()), (all.len(), 1_000));
    assert_eq!(first.counts().await.unwrap(), Counts { pending: 200, paid: 800, ..Counts::default() });
    let counters = first.run(run.id).await.unwrap().unwrap().counters;
    assert_eq!((counters.attempted, counters.paid, counters.refused), (1_000, 800, 200));
    assert_eq!(fixture.database.ask(DEADLOCKS), 0);
}

/// Like [`work`], for customer 1 alone, whose card gets a hard decline at the invoice with this number. Records its
/// claims in `claims`.
async fn work_in_turn(store: Arc<dyn Store>, open: impl Fn() -> i64, claims: Arc<Mutex<Vec<i64>>>) {
    let run = store.open_run(LEASE).await.unwrap().0;
    let mut after = InvoiceId(0);
    loop {
        let claimed = store.claim_in_turn(run.id, after, 20, LEASE).await.unwrap();
        let Some(attempt) = claimed.attempts.first() else {
            // Another attempt of the customer is open, and will be settled.
            let Some(InvoiceId(first)) = claimed.waiting_from else { return };
            after = InvoiceId(first - 1);
            tokio::task::yield_now().await;
            continue;
        };
        assert_eq!((claimed.attempts.len(), open()), (1, 1), "attempts of the customer that are open");
        claims.lock().unwrap().push(attempt.invoice_id.0);
        let is_stolen = attempt.invoice_id.0 == STOLEN_AT;
        let decline = is_stolen.then_some(Decline { class: DeclineClass::Hard, code: None });
        let outcome = if is_stolen { Outcome::Refused } else { Outcome::Charged };
        let settlement = Settlement { decline, ..settlement(attempt, outcome) };
        assert_eq!(store.settle(Some(run.id), &[settlement]).await.unwrap(), [Settled::Applied]);
        after = InvoiceId(0);
    }
}

const STOLEN_AT: i64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_have_one_attempt_of_a_customer_open_and_none_after_a_hard_decline() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let fixture = Arc::new(fixture);
    let first = fixture.open().await;
    imported(&*first, 100).await;
    fixture.database.run("UPDATE customers SET network = 'sepa'");
    let (mut tasks, claims) = (JoinSet::new(), Arc::<Mutex<Vec<i64>>>::default());
    for _ in 0..5 {
        let (store, fixture) = (fixture.open().await, Arc::clone(&fixture));
        let open = move || {
            fixture.database.ask("SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')")
        };
        tasks.spawn(work_in_turn(store, open, Arc::clone(&claims)));
    }
    tasks.join_all().await;
    let claims = claims.lock().unwrap().clone();
    assert_eq!(claims.last(), Some(&STOLEN_AT), "the last of {claims:?}");
    assert_eq!(claims.iter().collect::<BTreeSet<_>>().len(), claims.len());
    assert_eq!(fixture.database.ask("SELECT count(*) FROM attempts"), i64::try_from(claims.len()).unwrap());
    assert_eq!(fixture.database.ask(DEADLOCKS), 0);
}

/// Another process's claim locks all invoices that it examines, and claims one of them.
#[tokio::test]
async fn a_run_knows_of_turns_that_are_left_also_while_another_claim_holds_them() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let (store, database) = (&store, &fixture.connect());
    let left = async || store.has_claimable_left(run.id).await.unwrap();
    let beside_another = async || {
        let look = |tx: Tx| async move {
            tx.query("SELECT 1 FROM invoices FOR UPDATE", &[]).await?;
            let claimed = store.claim_in_turn(run.id, InvoiceId(0), 9, LEASE).await.unwrap();
            assert_eq!(
                (claimed.attempts.len(), claimed.waiting_from),
                (0, None),
                "it passes over locked rows"
            );
            Ok(store.has_claimable_left(run.id).await.unwrap())
        };
        database.transaction(PoolClass::Claim, look).await.unwrap()
    };
    assert!(!beside_another().await && !left().await, "without a network nothing waits for its turn");
    fixture.database.run("UPDATE customers SET network = 'visa'");
    assert!(beside_another().await && left().await);
    let claimed = store.claim_in_turn(run.id, InvoiceId(0), 9, LEASE).await.unwrap().attempts;
    assert_eq!(claimed.len(), 1);
    assert!(beside_another().await && left().await, "the others' turns come");
    let hard = Some(Decline { class: DeclineClass::Hard, code: None });
    let refused = Settlement { decline: hard, ..settlement(&claimed[0], Outcome::Refused) };
    store.settle(Some(run.id), &[refused]).await.unwrap();
    assert!(!beside_another().await && !left().await);
    assert!(store.finish_run(run.id, run.joins).await.unwrap());
    fixture.database.run("UPDATE attempts SET decline_class = NULL");
    assert!(!left().await, "a finished run claims nothing");
}

/// A settlement under way decides by the former instrument; the change of the instrument overrides its decision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_instrument_frees_what_a_settlement_leaves_that_goes_on() {
    const WAITING: &str = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE NOT l.granted AND a.datname = current_database()";
    let Some(fixture) = PostgresFixture::new().await else { return };
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    claimed(&*store, &run, 1).await;
    let (fixture, store) = (&fixture, &store);
    let settle = |tx: Tx| async move {
        let refused =
            "UPDATE attempts SET state = 'REFUSED', decline_class = 'hard', settled_at = 1 RETURNING 1";
        tx.query(refused, &[]).await?;
        tx.query("UPDATE invoices SET state = 'PENDING', dunning = 'hard' RETURNING 1", &[]).await?;
        let store = Arc::clone(store);
        let change = tokio::spawn(async move {
            let note = OperatorNote { reason: "new card".to_owned(), actor: "kim".to_owned() };
            store.control_customer(CustomerId(1), CustomerAction::InstrumentChanged, &note).await.unwrap()
        });
        let is_waiting = || fixture.database.ask(WAITING) > 0;
        wait_until("the change waits for the settlement", Duration::from_secs(10), is_waiting);
        Ok(change)
    };
    let change = fixture.connect().transaction(PoolClass::Claim, settle).await.unwrap();
    assert_eq!(change.await.unwrap(), Controlled::Applied);
    assert_eq!(store.invoice(InvoiceId(1)).await.unwrap().unwrap().dunning, None);
}

/// A settlement changes its invoices and checks that their customer exists; an operator's action locks both.
#[test]
fn operators_actions_on_a_customer_and_settlements_never_wait_for_each_other_in_a_ring() {
    const ROUNDS: usize = 20;
    let Some(fixture) = alone(PostgresFixture::new()) else { return };
    let changed = alone(act_and_settle(&fixture, ROUNDS));
    assert!(changed >= ROUNDS * 2, "an instrument can change at any time");
    assert_eq!(fixture.database.ask(DEADLOCKS), 0);
}

/// Returns the number of actions that changed something.
async fn act_and_settle(fixture: &PostgresFixture, rounds: usize) -> usize {
    let store = fixture.open().await;
    imported(&*store, 200).await;
    let other = fixture.open().await;
    let acting = tokio::spawn(async move {
        let mut applied = 0;
        for round in 0..rounds * 4 {
            let action = match round % 4 {
                0 => CustomerAction::SetNetwork(Network::Sepa),
                2 => CustomerAction::SetNetwork(Network::None),
                _ => CustomerAction::InstrumentChanged,
            };
            let note = OperatorNote { reason: "new card".to_owned(), actor: "kim".to_owned() };
            let done = other.control_customer(CustomerId(1), action, &note).await.unwrap();
            applied += usize::from(done == Controlled::Applied);
        }
        applied
    });
    while !acting.is_finished() {
        let run = run(&*store).await;
        let claimed = store.claim_in_turn(run.id, InvoiceId(0), 200, LEASE).await.unwrap().attempts;
        let soft = |attempt: &Attempt| Settlement {
            decline: Some(Decline { class: DeclineClass::Soft, code: None }),
            ..settlement(attempt, Outcome::Refused)
        };
        for some in claimed.chunks(20) {
            store.settle(None, &some.iter().map(soft).collect::<Vec<_>>()).await.unwrap();
        }
        assert!(store.finish_run(run.id, run.joins).await.unwrap());
    }
    acting.await.unwrap()
}

/// Claims everything and has all of it refused: each invoice is PENDING again, with an attempt. Returns their number.
async fn work_refused(store: &dyn Store) -> usize {
    let run = run(store).await;
    let (mut after, mut count) = (InvoiceId(0), 0);
    loop {
        let claimed = store.claim_in_turn(run.id, after, BATCH_MAX, LEASE).await.unwrap().attempts;
        let Some(last) = claimed.last() else { return count };
        (after, count) = (last.invoice_id, count + claimed.len());
        let refused: Vec<_> = claimed.iter().map(|attempt| settlement(attempt, Outcome::Refused)).collect();
        store.settle(Some(run.id), &refused).await.unwrap();
    }
}

/// Rows of invoices and attempts that statements have read so far. A server counts a connection's reads when the
/// connection is closed.
fn rows_read(fixture: &PostgresFixture) -> i64 {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    wait_until("connections to close", LEASE, || fixture.database.ask(others) == 0);
    fixture.database.ask(
        "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables
         WHERE relname IN ('invoices', 'attempts')",
    )
}

/// Runs the work on connections that are closed at the end.
fn alone<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_batch_reads_its_own_rows_and_not_all_that_wait() {
    const WAITING: usize = 5_000;
    const BATCH: usize = 100;
    /// A dozen statements read each row of a batch, including reference checks.
    const READ_MAX: i64 = 20 * BATCH as i64;
    let Some(fixture) = alone(PostgresFixture::new()) else { return };
    alone(async { imported(&*fixture.open().await, WAITING).await });
    let before = rows_read(&fixture);
    let mut read = Vec::new();
    for round in 1..=2 {
        alone(async {
            let store = fixture.open().await;
            let run = run(&*store).await;
            let attempts = claimed(&*store, &run, BATCH).await;
            let charged: Vec<_> =
                attempts.iter().map(|attempt| settlement(attempt, Outcome::Charged)).collect();
            store.settle(Some(run.id), &charged).await.unwrap();
        });
        read.push(rows_read(&fixture) - before - read.iter().sum::<i64>());
        assert!(read[round - 1] <= READ_MAX, "rows read by batches of {BATCH}: {read:?}");
    }
    assert!(read[0] > BATCH as i64, "the server counts: {read:?}");
}

#[test]
fn an_import_reads_its_own_rows_and_not_all_that_are_stored() {
    const STORED: usize = 5_000;
    const BATCH: usize = 100;
    const READ_MAX: i64 = 5 * BATCH as i64;
    let Some(fixture) = alone(PostgresFixture::new()) else { return };
    alone(async { imported(&*fixture.open().await, STORED).await });
    let before = rows_read(&fixture);
    alone(async {
        let known: Vec<_> = (1..=BATCH).map(|number| row(&format!("I{number}"), 1215)).collect();
        let answers = fixture.open().await.import(&known, PLAIN).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Imported::Unchanged), "{answers:?}");
    });
    let read = rows_read(&fixture) - before;
    assert!((BATCH as i64..=READ_MAX).contains(&read), "rows read by an import of {BATCH}: {read}");
}

#[test]
fn a_page_reads_its_own_rows_and_not_all_that_wait_or_came_before() {
    const WAITING: usize = 5_000;
    const PAGE: usize = 100;
    /// An attempt is read with its invoice.
    const READ_MAX: i64 = 3 * PAGE as i64;
    let Some(fixture) = alone(PostgresFixture::new()) else { return };
    alone(async {
        let store = fixture.open().await;
        imported(&*store, WAITING).await;
        assert_eq!(work_refused(&*store).await, WAITING);
    });
    let before = rows_read(&fixture);
    let pending = alone(async {
        fixture.open().await.invoices(Some(InvoiceState::Pending), InvoiceId(0), PAGE).await.unwrap()
    });
    let of_pending = rows_read(&fixture) - before;
    let last = InvoiceId(i64::try_from(WAITING - PAGE).unwrap());
    let attempts = alone(async { fixture.open().await.attempts((last, 1), PAGE).await.unwrap() });
    let of_attempts = rows_read(&fixture) - before - of_pending;
    assert_eq!((pending.len(), attempts.len()), (PAGE, PAGE));
    for read in [of_pending, of_attempts] {
        assert!((PAGE as i64..=READ_MAX).contains(&read), "rows read: {of_pending} and {of_attempts}");
    }
}

/// Invoices that wait for `pay`, then some of a subscription, then one of another customer, as imports and the schedule
/// leave them, before the server has gathered statistics.
const MANY: usize = 200_000;
const SCHEDULED: usize = 100;
const FILL: &str = "
    INSERT INTO customers (id, currency) VALUES (1, 'EUR'), (2, 'EUR');
    INSERT INTO invoices (reference, customer_id, currency, amount_minor, state, created_at, updated_at)
        SELECT 'I' || n, 1, 'EUR', 1215, 'PENDING', 0, 0 FROM generate_series(1, 200000) AS n;
    INSERT INTO invoices (reference, customer_id, currency, amount_minor, state, created_at, updated_at, due_at,
            next_attempt_at, subscription_id)
        SELECT 'S' || n || '@2023-10-31', 1, 'EUR', 990, 'PENDING', 0, 0, 5, 5, 1 FROM generate_series(1, 100) AS n;
    INSERT INTO invoices (reference, customer_id, currency, amount_minor, state, created_at, updated_at)
        VALUES ('LAST', 2, 'EUR', 1215, 'PENDING', 0, 0)";

/// Makes the claims of one run until nothing is left: references, then the rows read and the number of transactions.
fn all_claimed(fixture: &PostgresFixture, filter: RunFilter) -> (Vec<String>, i64, i64) {
    const COMMITS: &str = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let before = (rows_read(fixture), fixture.database.ask(COMMITS));
    let references = alone(async {
        let store = fixture.open().await;
        let order = RunOrder { filter, ..RunOrder::default() };
        let OpenedRun::Started(run) = store.open_ordered_run(&order, LEASE).await.unwrap() else { panic!() };
        let (mut after, mut references) = (InvoiceId(0), Vec::new());
        loop {
            let claimed = store.claim_in_turn(run.id, after, 50, LEASE).await.unwrap().attempts;
            let Some(last) = claimed.last() else { break };
            after = last.invoice_id;
            let refused: Vec<_> =
                claimed.iter().map(|attempt| settlement(attempt, Outcome::Refused)).collect();
            store.settle(Some(run.id), &refused).await.unwrap();
            references.extend(claimed.into_iter().map(|attempt| attempt.reference.as_str().to_owned()));
        }
        assert!(store.finish_run(run.id, 0).await.unwrap());
        references
    });
    (references, rows_read(fixture) - before.0, fixture.database.ask(COMMITS) - before.1)
}

#[test]
fn a_scheduled_run_reads_its_own_rows_and_not_all_that_wait() {
    /// Like the limit of a batch: a dozen statements read each row, including reference checks.
    const READ_MAX: i64 = 25 * SCHEDULED as i64;
    let Some(fixture) = alone(PostgresFixture::new()) else { return };
    fixture.database.run(FILL);
    for is_analyzed in [false, true] {
        if is_analyzed {
            fixture.database.run("UPDATE invoices SET next_attempt_at = 5 WHERE due_at = 5; ANALYZE");
        }
        let (references, read, _) = all_claimed(&fixture, RunOrder::scheduled().filter);
        assert_eq!(references.len(), SCHEDULED, "analyzed: {is_analyzed}");
        assert!((SCHEDULED as i64..=READ_MAX).contains(&read), "rows read: {read}, analyzed: {is_analyzed}");
    }
}

#[test]
fn a_run_of_some_invoices_passes_the_others_in_few_transactions() {
    /// A transaction passes 2,000 PENDING invoices. The database also counts the store's checks, every few seconds,
    /// whether it can write. With a claim's worth of invoices in each transaction there would be thousands.
    const COMMITS_MAX: i64 = 10 * (MANY / 2_000) as i64;
    const READ_MAX: i64 = 3 * MANY as i64;
    let Some(fixture) = alone(PostgresFixture::new()) else { return };
    fixture.database.run(FILL);
    let some = RunFilter::default;
    for (filter, count) in [
        (RunFilter { customer_id: Some(2), ..some() }, 1),
        (RunFilter { reference_prefix: Some("LA".to_owned()), ..some() }, 1),
        (RunFilter { due_before: Some(6), ..some() }, SCHEDULED),
        (RunFilter { reference_prefix: Some("s".to_owned()), ..some() }, 0),
    ] {
        let (references, read, commits) = all_claimed(&fixture, filter.clone());
        assert_eq!(references.len(), count, "{filter:?}");
        assert!(read <= READ_MAX && commits <= COMMITS_MAX, "{filter:?}: {read} rows, {commits} commits");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_imports_of_the_same_rows_in_another_order_make_each_invoice_once() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let there: Vec<_> = (1..=500).map(|number| row(&format!("I{number}"), 1215)).collect();
    let back: Vec<_> = there.iter().rev().cloned().collect();
    let (one, other) = (fixture.open().await, fixture.open().await);
    let (one, other) = tokio::join!(one.import(&there, PLAIN), other.import(&back, PLAIN));
    let made = one.unwrap().into_iter().chain(other.unwrap());
    assert_eq!(made.filter(|row| *row == Imported::Created).count(), 500);
    assert_eq!(fixture.database.ask("SELECT count(*) FROM invoices"), 500);
    assert_eq!(fixture.database.ask(DEADLOCKS), 0);
}

#[tokio::test]
async fn counts_are_those_of_counting_even_after_statements_typed_by_hand() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let store = fixture.open().await;
    imported(&*store, 10).await;
    fixture.database.run(
        "UPDATE invoices SET state = 'ATTENTION', attention_reason = 'rejected' WHERE id <= 4;
         UPDATE invoices SET state = 'PAID', paid_by = 'import', attention_reason = NULL WHERE id <= 1;
         DELETE FROM invoices WHERE id > 8",
    );
    let expected = Counts { pending: 4, charging: 0, paid: 1, attention: 3, cancelled: 0 };
    assert_eq!(store.counts().await.unwrap(), expected);
}

#[tokio::test]
async fn a_second_open_or_charged_attempt_of_an_invoice_is_refused_by_the_database_itself() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let first = claimed(&*store, &run, 1).await.remove(0);
    let second =
        "INSERT INTO attempts SELECT '0123456789abcdef0123456789abcdef', invoice_id, number + 1, customer_id,
         currency, amount_minor, state, sends, run_id, lease_until, created_at, settled_at FROM attempts";
    let refused = || testkit::postgres::DatabaseClient::to(fixture.database.url()).rows(second).unwrap_err();
    assert!(refused().contains("attempts_open"));
    store.settle(None, &[settlement(&first, Outcome::Charged)]).await.unwrap();
    assert!(refused().contains("attempts_charged"));
}

#[tokio::test]
async fn a_corrupt_invoice_is_skipped_and_delays_no_other() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    claimed(&*store, &run, 1).await;
    // An invoice that is PENDING beside an open attempt, and an unknown currency.
    fixture.database.run(
        "UPDATE invoices SET state = 'PENDING' WHERE id = 1; UPDATE invoices SET currency = 'XXX' WHERE id = 2;
         UPDATE attempts SET run_id = 99",
    );
    let rest = store.claim_in_turn(run.id, InvoiceId(0), 9, LEASE).await.unwrap().attempts;
    assert_eq!(rest.iter().map(|attempt| attempt.invoice_id.0).collect::<Vec<_>>(), [3]);
    assert!(matches!(store.invoice(InvoiceId(2)).await, Err(StoreError::Corrupt(_))));
}

/// A small failover: the server may have committed or not, and the client cannot tell.
#[tokio::test]
async fn a_claim_whose_commit_was_not_answered_is_read_back_by_key_and_a_settlement_is_repeated() {
    // The store also commits to check whether it can write.
    const COMMIT: &[&str] = &["COMMIT\0"];
    const CLAIM: &str = "INSERT INTO attempts";
    const SETTLE: &str = "UPDATE attempts AS a";
    let Some(fixture) = PostgresFixture::new().await else { return };
    let cutter = Cutter::before(fixture.database.url());
    let through = cutter.url(fixture.database.url());
    let fixture = fixture.through(&through);
    let store = fixture.open().await;
    imported(&*store, 10).await;
    let run = run(&*store).await;

    cutter.follow(CutPlan::cut_next_once(COMMIT, &[Cut::Answer]).after(CLAIM));
    let claimed = claimed(&*store, &run, 4).await;
    cutter.follow(CutPlan::cut_next_once(COMMIT, &[Cut::Request]).after(CLAIM));
    store.claim_in_turn(run.id, InvoiceId(4), 4, LEASE).await.unwrap_err();
    assert_eq!(
        fixture.database.ask("SELECT count(*) FROM attempts"),
        4,
        "a commit that never came took nothing"
    );

    let settlements: Vec<_> = claimed.iter().map(|attempt| settlement(attempt, Outcome::Charged)).collect();
    for cuts in [&[Cut::Request] as &'static [Cut], &[Cut::Answer]] {
        cutter.follow(CutPlan::cut_next_once(COMMIT, cuts).after(SETTLE));
        store.settle(Some(run.id), &settlements).await.unwrap_err();
    }
    assert_eq!(store.settle(Some(run.id), &settlements).await.unwrap(), [const { Settled::Same }; 4]);
    assert_eq!(cutter.cuts(), 4);
    assert_eq!(store.counts().await.unwrap(), Counts { pending: 6, paid: 4, ..Counts::default() });
    let counters = store.run(run.id).await.unwrap().unwrap().counters;
    assert_eq!((counters.attempted, counters.paid), (4, 4), "counted once");
}
