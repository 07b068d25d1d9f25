//! Failures of a provider or a store: the breaker, the budget, the lease, and outcomes that are never lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use billing::charge::breaker::{INVALID_TO_OPEN, PROBES_MAX};
use billing::invoice::{AttemptState, InvoiceState};
use billing::protocol::transition::AnswerClass;
use billing::provider::Preconditions;
use billing::provider::answer::Reason;
use chassis::caller::Tokens;
use chassis::config::TokenSource;
use tokio::time::Instant;

use crate::provider::{Provider, Reply};
use crate::support::{EngineFixture, LONG, Plan, until};

#[tokio::test]
async fn a_wrong_endpoint_is_not_the_invoices_fault() {
    let provider = Provider::start(|_| Reply::new(404, "no")).await;
    let fixture = EngineFixture::with(500).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    let (run, waited) = billing.pay().await;
    assert!(waited.reached);
    assert_eq!(provider.deliveries().len(), 1 + usize::try_from(PROBES_MAX).unwrap());
    assert_eq!(fixture.count(InvoiceState::Attention).await, 0);
    assert!(fixture.states().await.iter().all(|state| *state == AttemptState::Intent));
    assert_eq!(fixture.counters(run).await.paid, 0);
    assert_eq!(billing.metric("billing_breaker_open"), 1);
    provider.now(|_| Reply::charged());
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 500);
    assert_eq!(billing.metric("billing_breaker_open"), 0);
}

#[tokio::test]
async fn many_bad_invoices_in_a_row_are_one_bad_client() {
    let provider = Provider::start(|_| Reply::new(400, r#"{"error":"Invalid Request"}"#)).await;
    let fixture = EngineFixture::with(500).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    let rejected = i64::from(INVALID_TO_OPEN + PROBES_MAX);
    assert_eq!(fixture.count(InvoiceState::Attention).await, rejected);
    assert_eq!(fixture.attempts().await.iter().filter(|a| a.state == AttemptState::Rejected).count(), 23);
}

#[tokio::test]
async fn a_call_marked_as_not_executed_counts_as_not_sent() {
    let provider = Provider::start(|delivery| match delivery.nth {
        1 => Reply::new(503, "").not_executed(),
        _ => Reply::charged(),
    })
    .await;
    let fixture = EngineFixture::with(2).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 2);
    assert!(fixture.attempts().await.iter().all(|attempt| attempt.sends == 1));
}

#[tokio::test]
async fn a_rate_limiter_gets_one_call_until_its_retry_after_is_over_and_then_all_are_paid() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = times.clone();
    let provider = Provider::start(move |_| {
        let mut times = seen.lock().unwrap();
        times.push(Instant::now());
        let is_limited = times[0].elapsed() < Duration::from_secs(2);
        if is_limited { Reply::new(429, "{}").retry_after(2) } else { Reply::charged() }
    })
    .await;
    let fixture = EngineFixture::with(46).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 46);
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 47, "one call was limited, and each invoice has its own");
    assert!(times[1] - times[0] >= Duration::from_secs(2), "{:?}", times[1] - times[0]);
}

#[tokio::test]
async fn the_next_line_of_the_token_file_is_tried_when_one_is_refused() {
    let provider = Provider::start(|delivery| match delivery.token.as_deref() {
        Some("new") => Reply::charged(),
        _ => Reply::new(403, "Forbidden\n"),
    })
    .await;
    let fixture = EngineFixture::with(20).await;
    let file = fixture.folder.path().join("tokens");
    std::fs::write(&file, "old\nnew\n").unwrap();
    let tokens = Tokens::new(TokenSource::file(file)).unwrap();
    let plan = Plan { tokens: Some(tokens), ..Plan::keys() };
    let billing = fixture.open(&provider.url, plan).await;
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 20);
    let refused = provider.deliveries().iter().filter(|d| d.token.as_deref() == Some("old")).count();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn nothing_is_sent_that_could_outlive_its_lease() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = EngineFixture::with(3).await;
    let plan = Plan { lease: Duration::from_secs(1), ..Plan::keys() };
    let billing = fixture.open(&provider.url, plan).await;
    let started = billing.engine.pay().await.unwrap();
    until("claims were given back", async || fixture.counters(started.run).await.not_sent > 0).await;
    assert_eq!(provider.deliveries().len(), 0);
    billing.stop().await;
    assert!(fixture.attempts().await.iter().all(|attempt| attempt.sends == 0));
}

#[tokio::test]
async fn nothing_is_sent_once_the_time_to_send_is_over() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = EngineFixture::with(1).await;
    let attempt = fixture.crash_after_claim(1).await.remove(0);
    let deployment = fixture.store.deployment().await.unwrap();
    let client = EngineFixture::client(&provider.url, &Plan::none());
    let preconditions = Preconditions { deployment, ledger: None, seen: None };
    let answer = client.charge(&attempt, preconditions, Instant::now()).await;
    assert_eq!((answer.verdict.class, answer.verdict.reason), (AnswerClass::NotSent, Reason::SendLate));
    assert_eq!(provider.deliveries().len(), 0);
    let answer = client.charge(&attempt, preconditions, Instant::now() + LONG).await;
    assert_eq!((answer.verdict.class, provider.deliveries().len()), (AnswerClass::Charged, 1));
}

#[tokio::test]
async fn a_corrupt_row_is_skipped_and_the_others_are_charged() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = EngineFixture::with(10).await;
    fixture.crash_after_claim(2).await;
    fixture.spoil(
        "UPDATE attempts SET currency = 'XXX' WHERE invoice_id = 1;
         UPDATE invoices SET currency = 'XXX' WHERE id = 4;
         INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
             lease_until, created_at, settled_at)
             SELECT printf('%032x', 7), 7, 1, customer_id, currency, amount_minor, state, sends, run_id,
             lease_until, created_at, settled_at FROM attempts WHERE invoice_id = 2",
    );
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    let started = billing.engine.pay().await.unwrap();
    assert!(billing.engine.wait(started.run, LONG).await.unwrap().finished);
    assert_eq!(provider.invoices(), [2, 3, 5, 6, 8, 9, 10]);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 7);
    fixture.spoil("UPDATE invoices SET currency = 'EUR' WHERE id = 4");
    billing.pay().await;
    assert_eq!(fixture.invoice(4).await.state, InvoiceState::Paid);
}
