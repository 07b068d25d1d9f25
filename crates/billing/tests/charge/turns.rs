//! Customers whose network is known: their invoices are charged one at a time, so that no other attempt of theirs is
//! under way when a hard decline arrives. A run continues until each invoice was attempted.

use billing::invoice::{InvoiceState, RunState};
use billing::store::Resolution;

use crate::faulty::Faulty;
use crate::provider::{Provider, Reply};
use crate::support::{EngineFixture, LONG, Plan, until};

const KNOWN: &str = "UPDATE customers SET network = 'sepa'";

async fn with_known_network(invoices: usize) -> EngineFixture {
    let fixture = EngineFixture::with(invoices).await;
    fixture.spoil(KNOWN);
    fixture
}

#[tokio::test]
async fn one_run_charges_all_invoices_of_a_card_one_after_the_other() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = with_known_network(30).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    let (run, _) = billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 30);
    assert_eq!((provider.deliveries().len(), provider.under_way_max()), (30, 1));
    assert_eq!(fixture.counters(run).await.attempted, 30);
}

#[tokio::test]
async fn nothing_is_sent_after_a_hard_decline_however_many_are_due() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        3 => Reply::refused().because("class=hard; code=stolen_card"),
        _ => Reply::charged(),
    })
    .await;
    let fixture = with_known_network(30).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    for _ in 0..2 {
        billing.pay().await;
        assert_eq!(provider.invoices(), [1, 2, 3]);
    }
    fixture.spoil(
        "UPDATE customers SET instrument_changed_at = 9999999999999; UPDATE invoices SET dunning = NULL",
    );
    provider.now(|_| Reply::charged());
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 30);
}

#[tokio::test]
async fn a_lost_response_holds_the_others_back_until_it_is_settled_in_the_same_run() {
    let provider = Provider::start(|delivery| match (delivery.invoice, delivery.nth) {
        (2, 1 | 2) => Reply::charged().lost(),
        _ => Reply::charged(),
    })
    .await;
    let fixture = with_known_network(4).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    let sent: Vec<u64> = provider.deliveries().iter().map(|delivery| delivery.invoice).collect();
    assert_eq!(sent, [1, 2, 2, 2, 3, 4]);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 4);
}

#[tokio::test]
async fn without_keys_a_run_ends_and_an_operators_decision_lets_the_next_one_go_on() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        1 => Reply::charged().lost(),
        _ => Reply::charged().without_echo(),
    })
    .await;
    let fixture = with_known_network(3).await;
    let billing = fixture.open(&provider.url, Plan::none()).await;
    for _ in 0..2 {
        billing.pay().await;
        assert_eq!(provider.invoices(), [1]);
    }
    let key = fixture.attempts().await[0].key.clone();
    let (reason, actor) = ("asked the bank".to_owned(), "an operator".to_owned());
    billing.engine.resolve(Resolution { key, charged: true, reason, actor }).await.unwrap();
    billing.pay().await;
    assert_eq!(provider.invoices(), [1, 2, 3]);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 3);
}

#[tokio::test]
async fn replicas_take_turns_and_none_ends_the_run_before_the_last() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        25 => Reply::refused().because("class=hard; code=stolen_card"),
        _ => Reply::charged(),
    })
    .await;
    let mut fixture = with_known_network(24).await;
    fixture.store = Faulty::shared(&fixture.store);
    let first = fixture.open(&provider.url, Plan::keys()).await;
    let second = fixture.open(&provider.url, Plan::keys()).await;
    for (paid, more) in [(24, 30), (24, 0)] {
        let started = first.engine.pay().await.unwrap();
        second.engine.pay().await.unwrap();
        until("the run is finished", async || {
            fixture.store.run(started.run).await.unwrap().unwrap().state == RunState::Finished
        })
        .await;
        assert_eq!(fixture.count(InvoiceState::Paid).await, paid);
        let names: Vec<String> = (25..25 + more).map(|nth| format!("I{nth}")).collect();
        fixture.import(&names).await;
    }
    assert!(
        first
            .engine
            .wait(fixture.store.latest_run().await.unwrap().unwrap().id, LONG)
            .await
            .unwrap()
            .finished
    );
    assert_eq!(provider.invoices(), (1..=25).collect::<Vec<_>>());
    assert_eq!(provider.under_way_max(), 1);
}
