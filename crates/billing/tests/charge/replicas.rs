//! Several engines on one store: they share a run, none ends it while another still needs it, and all use one ledger.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use billing::charge::LEASE;
use billing::invoice::{InvoiceId, InvoiceState, RunState};
use billing::store::LedgerAcceptance;

use crate::faulty::{Fault, Faulty};
use crate::provider::{LEDGER, Provider, Reply};
use crate::support::{EngineFixture, LONG, Plan, until};

async fn shared(invoices: usize) -> (EngineFixture, Arc<Faulty>) {
    let mut fixture = EngineFixture::with(invoices).await;
    let store = Faulty::shared(&fixture.store);
    fixture.store = store.clone();
    (fixture, store)
}

#[tokio::test]
async fn a_run_is_shared_by_who_did_not_start_it_and_each_invoice_is_sent_once() {
    let one = Provider::start(|_| Reply::charged().held()).await;
    let other = Provider::start(|_| Reply::charged()).await;
    let (fixture, _) = shared(3_000).await;
    let first = fixture.open(&one.url, Plan::keys()).await;
    let _second = fixture.open(&other.url, Plan::keys()).await;
    let started = first.engine.pay().await.unwrap();
    until("the second process takes its share", async || !other.deliveries().is_empty()).await;
    one.now(|_| Reply::charged());
    one.release();
    until("the run is finished", async || {
        fixture.store.run(started.run).await.unwrap().unwrap().state == RunState::Finished
    })
    .await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 3_000);
    let sent: Vec<String> =
        [&one, &other].iter().flat_map(|provider| provider.deliveries()).map(|sent| sent.key).collect();
    assert_eq!((sent.len(), sent.iter().collect::<BTreeSet<_>>().len()), (3_000, 3_000));
}

#[tokio::test]
async fn who_joins_elsewhere_makes_a_run_look_again_before_it_ends() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, store) = shared(1).await;
    let first = fixture.open(&provider.url, Plan::keys()).await;
    let second = fixture.open("http://127.0.0.1:1/", Plan::keys()).await;
    store.spoil("finish_run", Fault::Waits);
    let started = first.engine.pay().await.unwrap();
    until("it is being finished", async || store.hits() > 0).await;
    fixture.import(&["I2".to_owned()]).await;
    assert_eq!(second.engine.pay().await.unwrap().run, started.run);
    store.repair();
    assert!(second.engine.wait(started.run, LONG).await.unwrap().finished);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 2);
}

#[tokio::test]
async fn who_cannot_reach_the_provider_does_not_end_a_run_that_another_drives() {
    let provider = Provider::start(|_| Reply::charged().held()).await;
    let (fixture, _) = shared(400).await;
    let first = fixture.open(&provider.url, Plan::keys().in_flight_max(1)).await;
    let second = fixture.open("http://127.0.0.1:1/", Plan::keys()).await;
    let started = first.engine.pay().await.unwrap();
    second.engine.pay().await.unwrap();
    provider.now(|_| Reply::charged());
    provider.release();
    assert!(first.engine.wait(started.run, LONG).await.unwrap().finished);
    let left = fixture.count(InvoiceState::Pending).await;
    assert_eq!((left, fixture.count(InvoiceState::Charging).await), (0, 0));
}

#[tokio::test]
async fn a_ledger_that_an_operator_accepted_elsewhere_is_settled_with() {
    const REPLACED: &str = "22222222-2222-4222-8222-222222222222";
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, _) = shared(1).await;
    let first = fixture.open(&provider.url, Plan::keys()).await;
    let second = fixture.open(&provider.url, Plan::keys()).await;
    first.pay().await;
    until("both know the ledger", async || {
        fixture.store.ledger_id().await.unwrap().as_deref() == Some(LEDGER)
    })
    .await;
    let (ledger_id, reason, actor) = (REPLACED.to_owned(), "restored".to_owned(), "an operator".to_owned());
    second.engine.accept_ledger(&LedgerAcceptance { ledger_id, reason, actor }).await.unwrap();
    provider.now(|delivery| match delivery.expect_ledger.as_deref() {
        Some(REPLACED) => Reply::charged().of_ledger(REPLACED),
        _ => {
            Reply::new(412, r#"{"type":"urn:tinjis:problem:ledger-mismatch"}"#).problem().of_ledger(REPLACED)
        }
    });
    fixture.import(&["I2".to_owned()]).await;
    until("it is paid", async || {
        first.engine.pay().await.unwrap();
        fixture.count(InvoiceState::Paid).await == 2
    })
    .await;
}

#[tokio::test]
async fn what_a_dead_process_held_is_claimed_before_the_run_ends_though_an_attempt_stays_open() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, store) = shared(3).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    // Another process holds the first invoice for longer than a run waits; the second cannot be claimed in the first
    // pass.
    store.spoil("claim_in_turn", Fault::Waits);
    let (run, _) = store.elsewhere().open_run(LEASE).await.unwrap();
    store.elsewhere().claim_in_turn(run.id, InvoiceId(0), 1, LEASE).await.unwrap();
    fixture.spoil("UPDATE invoices SET held = 1 WHERE id = 2");
    store.repair();
    let run = billing.engine.pay().await.unwrap().run;
    until("it has passed", async || fixture.count(InvoiceState::Paid).await == 1).await;
    fixture.spoil("UPDATE invoices SET held = 0 WHERE id = 2");
    assert!(billing.engine.wait(run, LONG).await.unwrap().finished);
    assert_eq!(fixture.invoice(2).await.state, InvoiceState::Paid);
    assert_eq!(fixture.invoice(1).await.state, InvoiceState::Charging);
}

#[tokio::test]
async fn calls_that_are_rejected_again_and_again_keep_no_run_alive_in_any_process() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        1 => Reply::charged(),
        _ => Reply::new(403, ""),
    })
    .await;
    let (fixture, _) = shared(4).await;
    let first = fixture.open(&provider.url, Plan::keys()).await;
    let second = fixture.open(&provider.url, Plan::keys()).await;
    let started = first.engine.pay().await.unwrap();
    assert_eq!(second.engine.pay().await.unwrap().run, started.run);
    // Both engines leave the run ten seconds after the last outcome.
    for billing in [&first, &second] {
        let ends = billing.engine.wait(started.run, Duration::from_secs(3600));
        assert!(tokio::time::timeout(LONG, ends).await.expect("it ends here").unwrap().finished);
    }
    assert_eq!(fixture.count(InvoiceState::Paid).await, 1);
}
