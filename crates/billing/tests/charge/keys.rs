//! A provider with keys: attempts in doubt are resent under the same key, and no others.

use std::collections::BTreeSet;

use billing::charge::breaker::PROBES_MAX;
use billing::invoice::{AttemptState, AttentionReason, InvoiceState};
use billing::store::{LedgerAcceptance, LedgerSeen};

use crate::provider::{LEDGER, Provider, Reply};
use crate::support::{Billing, EngineFixture, Plan, until};

async fn fixture(invoices: usize, provider: &Provider) -> (EngineFixture, Billing) {
    let fixture = EngineFixture::with(invoices).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    (fixture, billing)
}

#[tokio::test]
async fn every_invoice_is_charged_once() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, billing) = fixture(1000, &provider).await;
    let (run, _) = billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 1000);
    let keys: BTreeSet<String> = provider.deliveries().into_iter().map(|delivery| delivery.key).collect();
    assert_eq!((keys.len(), provider.deliveries().len()), (1000, 1000));
    let counters = fixture.counters(run).await;
    assert_eq!((counters.total, counters.attempted, counters.paid), (1000, 1000, 1000));
    assert_eq!(billing.metric("billing_attempts_total{outcome=\"charged\"}"), 1000);
    assert!(provider.under_way_max() <= 8, "{}", provider.under_way_max());
}

#[tokio::test]
async fn a_lost_reply_is_retried_with_the_same_key_and_the_same_body() {
    let provider = Provider::start(|delivery| match delivery.nth {
        1 => Reply::charged().lost(),
        _ => Reply::charged(),
    })
    .await;
    let (fixture, billing) = fixture(2, &provider).await;
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 2);
    let deliveries = provider.deliveries();
    assert_eq!(deliveries.len(), 4);
    for delivery in deliveries.iter().filter(|delivery| delivery.nth == 2) {
        let first = deliveries.iter().find(|first| first.key == delivery.key).unwrap();
        assert_eq!(first.body, delivery.body);
    }
    assert_eq!(fixture.attempts().await.iter().map(|attempt| attempt.sends).collect::<Vec<_>>(), [2, 2]);
}

#[tokio::test]
async fn a_run_tries_a_refused_invoice_once_and_the_next_run_takes_a_new_key() {
    let provider = Provider::start(|_| Reply::refused()).await;
    let (fixture, billing) = fixture(3, &provider).await;
    let (run, waited) = billing.pay().await;
    assert!(waited.reached);
    assert_eq!(provider.invoices(), [1, 2, 3]);
    assert_eq!(fixture.counters(run).await.refused, 3);
    assert_eq!(fixture.count(InvoiceState::Pending).await, 3);
    provider.now(|_| Reply::charged());
    billing.pay().await;
    let keys: BTreeSet<String> = provider.deliveries().into_iter().map(|delivery| delivery.key).collect();
    assert_eq!((provider.invoices().len(), keys.len()), (6, 6));
    assert_eq!(fixture.count(InvoiceState::Paid).await, 3);
}

#[tokio::test]
async fn what_a_crash_left_open_is_resent_under_its_own_key() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = EngineFixture::with(5).await;
    let claimed = fixture.crash_after_claim(3).await;
    let _billing = fixture.open(&provider.url, Plan::keys()).await;
    until("all are paid", async || fixture.count(InvoiceState::Paid).await == 5).await;
    let sent: BTreeSet<String> = provider.deliveries().into_iter().map(|delivery| delivery.key).collect();
    assert!(claimed.iter().all(|attempt| sent.contains(attempt.key.as_str())));
    assert_eq!((sent.len(), provider.deliveries().len()), (5, 5));
}

#[tokio::test]
async fn doubt_that_outlives_its_run_is_settled_by_the_supervisor() {
    let provider = Provider::start(|_| Reply::new(409, "")).await;
    let fixture = EngineFixture::with(1).await;
    let attempts = fixture.crash_after_claim(1).await;
    fixture.store.finish_run(attempts[0].run_id, 0).await.unwrap();
    let _billing = fixture.open(&provider.url, Plan::keys()).await;
    until("it was asked about", async || !provider.deliveries().is_empty()).await;
    provider.now(|_| Reply::charged());
    until("it is paid", async || fixture.count(InvoiceState::Paid).await == 1).await;
    assert!(provider.deliveries().iter().all(|delivery| delivery.key == attempts[0].key.as_str()));
}

#[tokio::test]
async fn a_provider_that_shows_no_key_is_called_once_and_never_again() {
    let provider = Provider::start(|_| Reply::charged().without_echo()).await;
    let (fixture, billing) = fixture(100, &provider).await;
    let (_, waited) = billing.pay().await;
    assert!(waited.reached);
    assert_eq!(provider.deliveries().len(), 1);
    let invoice = fixture.invoice(1).await;
    assert_eq!(invoice.state, InvoiceState::Attention);
    assert_eq!(invoice.attention_reason, Some(AttentionReason::InDoubtWithoutKeys));
    assert_eq!(fixture.states().await[0], AttemptState::InDoubt);
    assert_eq!(billing.metric("billing_breaker_open"), 1);
    let (_, waited) = billing.pay().await;
    assert!(waited.reached, "it was reached, and is left alone for what it answered");
    assert_eq!(provider.deliveries().len(), 1);
}

#[tokio::test]
async fn the_first_ledger_is_remembered_and_only_it_is_believed() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, billing) = fixture(1, &provider).await;
    billing.pay().await;
    assert_eq!(fixture.store.ledger_id().await.unwrap().as_deref(), Some(LEDGER));
    assert_eq!(provider.deliveries()[0].expect_ledger, None);
    fixture.import(&["I2".to_owned()]).await;
    provider.now(|_| Reply::refused().of_ledger("another"));
    billing.pay().await;
    assert_eq!(provider.deliveries()[1].expect_ledger.as_deref(), Some(LEDGER));
    assert_eq!(fixture.states().await, [AttemptState::Charged, AttemptState::InDoubt]);
    assert_eq!(billing.metric("billing_breaker_open"), 1);
}

#[tokio::test]
async fn the_last_row_that_was_seen_goes_with_each_request_and_survives_a_restart() {
    let provider =
        Provider::start(|delivery| Reply::charged().with_row(u32::try_from(delivery.invoice).unwrap() * 10))
            .await;
    let (fixture, billing) = fixture(1, &provider).await;
    billing.pay().await;
    let deployment = fixture.store.deployment().await.unwrap().0.to_string();
    let first = &provider.deliveries()[0];
    assert_eq!(
        (first.ledger_seen.as_deref(), first.deployment.as_deref()),
        (None, Some(deployment.as_str()))
    );
    let seen = fixture.store.ledger_seen().await.unwrap();
    assert_eq!(seen, Some(LedgerSeen { ledger_id: LEDGER.to_owned(), seq: 10 }));
    // Rows of another ledger, and lower rows of this one, change nothing.
    fixture.import(&["I2".to_owned(), "I3".to_owned()]).await;
    provider.now(|delivery| match delivery.invoice {
        2 => Reply::charged().with_row(4),
        _ => Reply::charged().with_row(99).of_ledger("another"),
    });
    billing.pay().await;
    let again = fixture.open(&provider.url, Plan::keys()).await;
    again.pay().await;
    let later = provider.deliveries().split_off(1);
    assert!(later.iter().all(|delivery| delivery.ledger_seen.as_deref() == Some("10")), "{later:?}");
    // A newly accepted ledger starts without a last row.
    let acceptance = LedgerAcceptance {
        ledger_id: "another".to_owned(),
        reason: "restored".to_owned(),
        actor: "ops".to_owned(),
    };
    again.engine.accept_ledger(&acceptance).await.unwrap();
    assert_eq!(fixture.store.ledger_seen().await.unwrap().map(|seen| seen.seq), Some(0));
    again.pay().await;
    assert_eq!(provider.deliveries().last().unwrap().ledger_seen, None);
}

#[tokio::test]
async fn a_412_of_our_payment_service_takes_the_send_back_and_is_shown_with_the_run() {
    for reason in ["deployment-unknown", "ledger-behind", "ledger-mismatch"] {
        for plan in [Plan::keys(), Plan::none()] {
            let body = format!(r#"{{"type":"urn:tinjis:problem:{reason}"}}"#);
            let provider = Provider::start(move |_| Reply::new(412, &body).problem().not_executed()).await;
            let fixture = EngineFixture::with(20).await;
            let billing = fixture.open(&provider.url, plan).await;
            let (run, _) = billing.pay().await;
            assert!(fixture.states().await.iter().all(|state| *state == AttemptState::Intent));
            assert_eq!(fixture.count(InvoiceState::Attention).await, 0);
            let stored = fixture.store.run(run).await.unwrap().unwrap().problem.unwrap();
            assert_eq!((stored.reason.as_str(), stored.status), (reason, Some(412)));
            // The first call and the probes of the run, each with a single invoice.
            assert_eq!(stored.count, i64::from(PROBES_MAX) + 1);
        }
    }
}

#[tokio::test]
async fn a_key_known_with_other_data_needs_an_operator() {
    let problem = r#"{"type":"urn:tinjis:problem:key-reused"}"#;
    let provider = Provider::start(move |_| Reply::new(422, problem).problem()).await;
    let (fixture, billing) = fixture(1, &provider).await;
    billing.pay().await;
    assert_eq!(fixture.invoice(1).await.attention_reason, Some(AttentionReason::KeyReused));
    billing.pay().await;
    assert_eq!(provider.deliveries().len(), 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_nothing() {
    let provider = Provider::start(|_| Reply::charged().held()).await;
    let (fixture, billing) = fixture(3, &provider).await;
    let engine = billing.engine.clone();
    let call = tokio::spawn(async move { engine.pay().await });
    until("a charge is under way", async || !provider.deliveries().is_empty()).await;
    call.abort();
    provider.release();
    until("all are paid", async || fixture.count(InvoiceState::Paid).await == 3).await;
    assert_eq!(provider.invoices(), [1, 2, 3]);
}

#[tokio::test]
async fn two_callers_share_one_run() {
    let provider = Provider::start(|_| Reply::charged().held()).await;
    let (fixture, billing) = fixture(8, &provider).await;
    let (one, two) = tokio::join!(billing.engine.pay(), billing.engine.pay());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.run, two.run);
    assert!(one.joined != two.joined);
    provider.release();
    billing.pay().await;
    assert_eq!(provider.invoices(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 8);
}
