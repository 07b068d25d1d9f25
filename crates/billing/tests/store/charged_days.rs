//! Sums charged by UTC day, and the list of a customer's invoices, on each kind of store.

use std::time::Duration;

use billing::invoice::{Attempt, CustomerId, Invoice, InvoiceId};
use billing::money::{Currency, Money};
use billing::protocol::key::Key;
use billing::protocol::transition::{Conflict, Outcome, Settlement};
use billing::store::charged_days::{ChargedDay, DAY_MS};
use billing::store::{ImportRow, LedgerFact, Repaired, Resolution, Resolved, Settled, Store};

use crate::fixture::{
    DEPLOYMENT, Fixture, PLAIN, PostgresFixture, START_MS, SqliteFixture, claimed, imported, row, run, settle,
};

cases_and_pooled! {
    charges_are_summed_by_the_utc_day_of_their_settlement_and_by_currency,
    whoever_finds_out_that_it_was_charged_its_day_has_it_once,
    statements_typed_by_hand_are_summed_as_well,
    a_sum_that_is_too_large_keeps_no_settlement_from_being_recorded,
    invoices_of_a_customer_are_listed_newest_first_in_pages,
}

const TODAY: i64 = START_MS / DAY_MS;

fn day(day: i64, currency: Currency, charges: i64, amount_minor: i64) -> ChargedDay {
    ChargedDay { day, charges, money: Money { amount_minor, currency } }
}

fn of_customer(name: &str, customer: i64, currency: Currency, amount_minor: i64) -> ImportRow {
    let money = Money { amount_minor, currency };
    ImportRow { customer_id: CustomerId(customer), money, ..row(name, 0) }
}

async fn charge_all(store: &dyn Store, attempts: &[Attempt]) {
    let settlement = |attempt: &Attempt| Settlement::of(attempt, Outcome::Charged, Duration::ZERO, None);
    let settlements: Vec<_> = attempts.iter().map(settlement).collect();
    let settled = store.settle(None, &settlements).await.unwrap();
    assert!(settled.iter().all(|one| *one == Settled::Applied), "{settled:?}");
}

async fn charges_are_summed_by_the_utc_day_of_their_settlement_and_by_currency(fixture: impl Fixture) {
    let store = fixture.open().await;
    assert!(store.charged_days(0, 10).await.unwrap().is_empty());
    let rows = [
        of_customer("A", 1, Currency::EUR, 100),
        of_customer("B", 1, Currency::EUR, 250),
        of_customer("C", 2, Currency::SEK, 7),
        of_customer("D", 1, Currency::EUR, 1_000),
        of_customer("E", 1, Currency::EUR, 5_000),
    ];
    store.import(&rows, PLAIN).await.unwrap();
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 5).await;
    charge_all(&*store, &attempts[..3]).await;
    settle(&*store, Some(&run), &attempts[4].key, Outcome::Refused).await;
    let today = [day(TODAY, Currency::SEK, 1, 7), day(TODAY, Currency::EUR, 2, 350)];
    assert_eq!(store.charged_days(0, 10).await.unwrap(), today);
    // The last millisecond of the day, then the next one.
    let left_ms = (DAY_MS - 1 - START_MS % DAY_MS).unsigned_abs();
    fixture.pass(Duration::from_millis(left_ms)).await;
    assert_eq!(settle(&*store, None, &attempts[0].key, Outcome::Charged).await, Settled::Same);
    assert_eq!(store.charged_days(0, 10).await.unwrap(), today);
    fixture.pass(Duration::from_millis(1)).await;
    charge_all(&*store, &attempts[3..4]).await;
    let tomorrow = day(TODAY + 1, Currency::EUR, 1, 1_000);
    assert_eq!(store.charged_days(0, 10).await.unwrap(), [tomorrow, today[0], today[1]]);
    assert_eq!(store.charged_days(TODAY + 1, 10).await.unwrap(), [tomorrow]);
    assert_eq!(store.charged_days(0, 2).await.unwrap(), [tomorrow, today[0]]);
    assert!(store.charged_days(TODAY + 2, 10).await.unwrap().is_empty());
}

async fn whoever_finds_out_that_it_was_charged_its_day_has_it_once(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 2).await;
    settle(&*store, Some(&run), &attempts[0].key, Outcome::InDoubt(None)).await;
    let (reason, actor) = ("asked the bank".to_owned(), "an operator".to_owned());
    let resolution = Resolution { key: attempts[0].key.clone(), charged: true, reason, actor };
    assert_eq!(store.resolve(&resolution).await.unwrap(), Resolved::Applied);
    settle(&*store, Some(&run), &attempts[1].key, Outcome::Refused).await;
    let late = settle(&*store, None, &attempts[1].key, Outcome::Charged).await;
    assert_eq!(late, Settled::Conflict(Conflict::ChargedLate));
    let unknown = row("I3", 0).reference;
    let fact = LedgerFact {
        key: Key::new(DEPLOYMENT, &unknown, 1),
        reference: Some(unknown),
        customer_id: Some(CustomerId(1)),
        money: Some(Money { amount_minor: 1215, currency: Currency::EUR }),
        outcome: Outcome::Charged,
        decline: None,
    };
    let three = [day(TODAY, Currency::EUR, 3, 3 * 1215)];
    for repaired in [Repaired::Adopted, Repaired::Known] {
        assert_eq!(store.repair(std::slice::from_ref(&fact)).await.unwrap(), [repaired]);
        assert_eq!(store.charged_days(0, 10).await.unwrap(), three);
    }
}

async fn statements_typed_by_hand_are_summed_as_well(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 4).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 4).await;
    charge_all(&*store, &attempts[..2]).await;
    fixture.by_hand("UPDATE attempts SET state = 'CHARGED', settled_at = 86400000 WHERE state = 'INTENT'");
    let old = day(1, Currency::EUR, 2, 2 * 1215);
    assert_eq!(store.charged_days(0, 10).await.unwrap(), [day(TODAY, Currency::EUR, 2, 2 * 1215), old]);
    let key = &attempts[0].key;
    fixture
        .by_hand(&format!("UPDATE attempts SET amount_minor = 1000, currency = 'SEK' WHERE key = '{key}'"));
    let today = [day(TODAY, Currency::SEK, 1, 1000), day(TODAY, Currency::EUR, 1, 1215)];
    assert_eq!(store.charged_days(2, 10).await.unwrap(), today);
    fixture.by_hand("UPDATE attempts SET state = 'VOIDED' WHERE settled_at = 86400000");
    fixture.by_hand(&format!("DELETE FROM attempts WHERE key = '{key}'"));
    assert_eq!(store.charged_days(0, 10).await.unwrap(), [today[1]]);
    drop(store);
    assert_eq!(fixture.open().await.charged_days(0, 10).await.unwrap(), [today[1]]);
}

async fn a_sum_that_is_too_large_keeps_no_settlement_from_being_recorded(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 3).await;
    fixture.by_hand(&format!("UPDATE attempts SET amount_minor = {}", i64::MAX));
    charge_all(&*store, &attempts[..2]).await;
    charge_all(&*store, &attempts[2..]).await;
    let days = store.charged_days(0, 10).await.unwrap();
    assert_eq!((days.len(), days[0].charges), (1, 3));
    assert!(days[0].money.amount_minor >= i64::MAX / 16, "{days:?}");
}

async fn invoices_of_a_customer_are_listed_newest_first_in_pages(fixture: impl Fixture) {
    let store = fixture.open().await;
    let customer = |number: i64| if number % 2 == 0 { 8 } else { 7 };
    let rows: Vec<_> = (1..=9)
        .map(|number| of_customer(&format!("I{number}"), customer(number), Currency::EUR, 1))
        .collect();
    store.import(&rows, PLAIN).await.unwrap();
    let page = async |customer, before| {
        let found = store.invoices_of_customer(CustomerId(customer), InvoiceId(before), 2).await.unwrap();
        found.iter().map(|invoice: &Invoice| invoice.id.0).collect::<Vec<_>>()
    };
    assert_eq!(page(7, i64::MAX).await, [9, 7]);
    assert_eq!(page(7, 7).await, [5, 3]);
    assert_eq!(page(7, 3).await, [1]);
    assert!(page(7, 1).await.is_empty() && page(9, i64::MAX).await.is_empty());
    assert_eq!(page(8, i64::MAX).await, [8, 6]);
}

#[tokio::test(start_paused = true)]
async fn what_a_version_without_the_sums_charged_is_counted_at_the_next_start() {
    let fixture = SqliteFixture::new();
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    charge_all(&*store, &claimed(&*store, &run, 3).await).await;
    drop(store);
    // The state that the previous version leaves: its triggers are off, and its writer does not know the table.
    for lost in ["DELETE FROM charged_days", "UPDATE charged_days SET charges = 1, amount_minor = 1215"] {
        fixture.by_hand(lost);
        let store = fixture.open().await;
        assert_eq!(store.charged_days(0, 10).await.unwrap(), [day(TODAY, Currency::EUR, 3, 3 * 1215)]);
    }
}

#[tokio::test]
async fn what_was_charged_before_the_sums_came_is_in_them() {
    let Some(fixture) = PostgresFixture::new().await else { return };
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 3).await;
    charge_all(&*store, &attempts[..2]).await;
    fixture
        .database
        .run("DROP TABLE charged_days; DROP FUNCTION add_charged_days CASCADE; DROP FUNCTION charged_amount");
    fixture.database.run(include_str!("../../src/store/migrations/postgres/0014_charged_days.sql"));
    assert_eq!(store.charged_days(0, 10).await.unwrap(), [day(TODAY, Currency::EUR, 2, 2 * 1215)]);
    charge_all(&*store, &attempts[2..]).await;
    assert_eq!(store.charged_days(0, 10).await.unwrap(), [day(TODAY, Currency::EUR, 3, 3 * 1215)]);
}
