//! A provider without keys: nothing is sent twice, and attempts that may have been sent need manual resolution.

use billing::invoice::{AttemptState, AttentionReason, InvoiceState};

use crate::provider::{Provider, Reply};
use crate::support::{EngineFixture, Plan, until};

#[tokio::test]
async fn a_lost_reply_needs_an_operator_and_is_never_repeated() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        2 => Reply::charged().lost(),
        _ => Reply::charged().without_echo(),
    })
    .await;
    let fixture = EngineFixture::with(3).await;
    let billing = fixture.open(&provider.url, Plan::none()).await;
    billing.pay().await;
    billing.pay().await;
    assert_eq!(provider.invoices(), [1, 2, 3]);
    let invoice = fixture.invoice(2).await;
    assert_eq!(invoice.attention_reason, Some(AttentionReason::InDoubtWithoutKeys));
    assert_eq!(fixture.count(InvoiceState::Paid).await, 2);
}

#[tokio::test]
async fn what_a_crash_left_open_needs_an_operator_unsent() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = EngineFixture::with(5).await;
    fixture.crash_after_claim(3).await;
    let _billing = fixture.open(&provider.url, Plan::none()).await;
    until("the others are paid", async || fixture.count(InvoiceState::Paid).await == 2).await;
    assert_eq!(fixture.count(InvoiceState::Attention).await, 3);
    assert_eq!(provider.invoices(), [4, 5]);
}

#[tokio::test]
async fn no_more_is_claimed_than_is_sent_at_once() {
    let provider = Provider::start(|_| Reply::charged().held()).await;
    let fixture = EngineFixture::with(100).await;
    let billing = fixture.open(&provider.url, Plan::none().in_flight_max(4)).await;
    let started = billing.engine.pay().await.unwrap();
    // The first call is made alone; the window grows after its response.
    until("the first is sent", async || provider.deliveries().len() == 1).await;
    assert_eq!(fixture.attempts().await.len(), 1);
    provider.now(|_| Reply::charged());
    provider.release();
    billing.engine.wait(started.run, crate::support::LONG).await.unwrap();
    assert_eq!(fixture.count(InvoiceState::Paid).await, 100);
    assert!(provider.under_way_max() <= 4);
}

#[tokio::test]
async fn a_provider_that_was_not_reached_took_nothing() {
    let fixture = EngineFixture::with(2).await;
    let billing = fixture.open("http://127.0.0.1:1/", Plan::none()).await;
    let (_, waited) = billing.pay().await;
    assert!(!waited.reached);
    assert_eq!(fixture.count(InvoiceState::Attention).await, 0);
    for attempt in fixture.attempts().await {
        assert_eq!((attempt.state, attempt.sends), (AttemptState::Intent, 0));
    }
    let provider = Provider::start(|_| Reply::charged()).await;
    billing.stop().await;
    let billing = fixture.open(&provider.url, Plan::none()).await;
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 2);
}

#[tokio::test]
async fn what_a_crash_left_open_outside_a_run_needs_an_operator_from_the_start_on_without_a_provider() {
    let fixture = EngineFixture::with(5).await;
    let claimed = fixture.crash_after_claim(4).await;
    fixture.spoil("UPDATE attempts SET sends = 0 WHERE invoice_id > 2");
    fixture.store.finish_run(claimed[0].run_id, 0).await.unwrap();
    let _billing = fixture.open("http://127.0.0.1:1/", Plan::none()).await;
    for id in [1, 2] {
        let reason = fixture.invoice(id).await.attention_reason;
        assert_eq!(reason, Some(AttentionReason::InDoubtWithoutKeys));
    }
    assert_eq!(fixture.count(InvoiceState::Charging).await, 2);
    for attempt in &fixture.attempts().await[2..] {
        assert_eq!((attempt.state, attempt.sends), (AttemptState::Intent, 0));
    }
}
