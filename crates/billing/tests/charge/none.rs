//! Without keys: nothing is sent twice, and what may have been sent waits for a person.

use billing::invoice::{AttemptState, AttentionReason, InvoiceState};

use crate::provider::{Provider, Reply};
use crate::support::{House, Plan, until};

#[tokio::test]
async fn a_lost_reply_waits_for_a_person_and_is_never_repeated() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        2 => Reply::charged().lost(),
        _ => Reply::charged().without_echo(),
    })
    .await;
    let house = House::with(3).await;
    let billing = house.open(&provider.url, Plan::none()).await;
    billing.pay().await;
    billing.pay().await;
    assert_eq!(provider.invoices(), [1, 2, 3]);
    let invoice = house.invoice(2).await;
    assert_eq!(invoice.attention_reason, Some(AttentionReason::InDoubtWithoutKeys));
    assert_eq!(house.count(InvoiceState::Paid).await, 2);
}

#[tokio::test]
async fn what_a_crash_left_open_waits_for_a_person_unsent() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let house = House::with(5).await;
    house.crash_after_claim(3).await;
    let _billing = house.open(&provider.url, Plan::none()).await;
    until("the others are paid", async || house.count(InvoiceState::Paid).await == 2).await;
    assert_eq!(house.count(InvoiceState::Attention).await, 3);
    assert_eq!(provider.invoices(), [4, 5]);
}

#[tokio::test]
async fn no_more_is_claimed_than_is_sent_at_once() {
    let provider = Provider::start(|_| Reply::charged().held()).await;
    let house = House::with(100).await;
    let billing = house.open(&provider.url, Plan::none().in_flight_max(4)).await;
    let started = billing.engine.pay().await.unwrap();
    // The first call goes alone; the window opens with its answer.
    until("the first is sent", async || provider.deliveries().len() == 1).await;
    assert_eq!(house.attempts().await.len(), 1);
    provider.now(|_| Reply::charged());
    provider.release();
    billing.engine.wait(started.run, crate::support::LONG).await.unwrap();
    assert_eq!(house.count(InvoiceState::Paid).await, 100);
    assert!(provider.under_way_max() <= 4);
}

#[tokio::test]
async fn a_provider_that_was_not_reached_took_nothing() {
    let house = House::with(2).await;
    let billing = house.open("http://127.0.0.1:1/", Plan::none()).await;
    let (_, waited) = billing.pay().await;
    assert!(!waited.reached);
    assert_eq!(house.count(InvoiceState::Attention).await, 0);
    for attempt in house.attempts().await {
        assert_eq!((attempt.state, attempt.sends), (AttemptState::Intent, 0));
    }
    let provider = Provider::start(|_| Reply::charged()).await;
    billing.stop().await;
    let billing = house.open(&provider.url, Plan::none()).await;
    billing.pay().await;
    assert_eq!(house.count(InvoiceState::Paid).await, 2);
}

#[tokio::test]
async fn what_a_crash_left_open_outside_a_run_waits_for_a_person_from_the_start_on_without_a_provider() {
    let house = House::with(5).await;
    let claimed = house.crash_after_claim(4).await;
    house.spoil("UPDATE attempts SET sends = 0 WHERE invoice_id > 2");
    house.store.finish_run(claimed[0].run_id, 0).await.unwrap();
    let _billing = house.open("http://127.0.0.1:1/", Plan::none()).await;
    for id in [1, 2] {
        let reason = house.invoice(id).await.attention_reason;
        assert_eq!(reason, Some(AttentionReason::InDoubtWithoutKeys));
    }
    assert_eq!(house.count(InvoiceState::Charging).await, 2);
    for attempt in &house.attempts().await[2..] {
        assert_eq!((attempt.state, attempt.sends), (AttemptState::Intent, 0));
    }
}
