//! SIGTERM in the middle of a run: calls in flight are finished, and claimed attempts that were not sent are given
//! back.

use billing::invoice::{AttemptState, InvoiceState, RunId, RunState};
use billing::store::sqlite::SCAN_MAX;

use crate::provider::{Provider, Reply};
use crate::support::{EngineFixture, Plan, until};

#[tokio::test]
async fn a_drain_finishes_calls_gives_back_the_rest_and_the_next_process_goes_on() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        1 => Reply::charged(),
        _ => Reply::charged().held(),
    })
    .await;
    let fixture = EngineFixture::with(700).await;
    let billing = fixture.open(&provider.url, Plan::keys().in_flight_max(4)).await;
    let started = billing.engine.pay().await.unwrap();
    until("four calls are under way", async || provider.deliveries().len() == 5).await;
    billing.shutdown.trigger();
    provider.release();
    billing.stop().await;

    let sent = provider.deliveries().len();
    assert!(sent < 20, "{sent} were sent, though it drained");
    assert_eq!(usize::try_from(fixture.count(InvoiceState::Paid).await).unwrap(), sent);
    for attempt in fixture.attempts().await {
        let expected = if attempt.state == AttemptState::Charged { 1 } else { 0 };
        assert_eq!(attempt.sends, expected, "{attempt:?}");
    }
    assert_eq!(fixture.store.run(started.run).await.unwrap().unwrap().state, RunState::Running);

    let _next = fixture.open(&provider.url, Plan::keys()).await;
    until("all are paid", async || fixture.count(InvoiceState::Paid).await == 700).await;
    assert_eq!(provider.deliveries().len(), 700);
}

#[tokio::test]
async fn a_waiting_caller_is_released_by_a_drain() {
    let provider = Provider::start(|_| Reply::charged().held()).await;
    let fixture = EngineFixture::with(2).await;
    let billing = fixture.open(&provider.url, Plan::none()).await;
    let started = billing.engine.pay().await.unwrap();
    until("a call is under way", async || !provider.deliveries().is_empty()).await;
    let engine = billing.engine.clone();
    let waiting = tokio::spawn(async move { engine.wait(started.run, crate::support::LONG).await.unwrap() });
    billing.shutdown.trigger();
    provider.release();
    billing.stop().await;
    assert!(!waiting.await.unwrap().finished);
}

#[tokio::test]
async fn an_adopted_run_goes_on_beyond_what_one_claim_looks_at() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = EngineFixture::with(1).await;
    fixture.crash_after_claim(1).await;
    let (refused, all) = (SCAN_MAX - 100, SCAN_MAX + 400);
    fixture.spoil(&format!(
        "WITH RECURSIVE number(n) AS (VALUES (2) UNION ALL SELECT n + 1 FROM number WHERE n < {all})
         INSERT INTO invoices (id, reference, customer_id, currency, amount_minor, state, created_at, updated_at)
             SELECT n, 'I' || n, 1, 'EUR', 1215, 'PENDING', 0, 0 FROM number;
         INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
             lease_until, created_at, settled_at)
             SELECT printf('%032x', id), id, 1, 1, 'EUR', 1215, 'REFUSED', 1, 1, 0, 0, 0
         FROM invoices WHERE id BETWEEN 2 AND {refused}"
    ));
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, all - refused + 1);
    assert_eq!(fixture.store.run(RunId(2)).await.unwrap(), None);
}
