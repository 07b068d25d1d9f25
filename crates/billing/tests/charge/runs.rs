//! Runs that end badly or are joined late: no run is stuck or finished too early, and no invoice is missed.

use std::sync::Arc;

use billing::invoice::{InvoiceState, RunId, RunState};

use crate::faulty::{Fault, Faulty};
use crate::provider::{Provider, Reply};
use crate::support::{EngineFixture, LONG, Plan, until};

async fn faulty(invoices: usize) -> (EngineFixture, Arc<Faulty>) {
    let mut fixture = EngineFixture::with(invoices).await;
    let faulty = Faulty::over(&fixture.store);
    fixture.store = faulty.clone();
    (fixture, faulty)
}

async fn state(fixture: &EngineFixture, run: RunId) -> RunState {
    fixture.store.run(run).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_run_whose_driver_panics_is_taken_up_again() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, faulty) = faulty(3).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    faulty.spoil("claim_in_turn", Fault::PanicsOnce);
    let started = billing.engine.pay().await.unwrap();
    assert!(!billing.engine.wait(started.run, LONG).await.unwrap().finished);
    assert_eq!(faulty.hits(), 1);
    fixture.spoil("UPDATE runs SET lease_until = 0");
    assert!(billing.engine.pay().await.unwrap().joined);
    until("the run is finished", async || state(&fixture, started.run).await == RunState::Finished).await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 3);
}

#[tokio::test]
async fn an_outcome_is_kept_until_the_store_takes_it() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, faulty) = faulty(1).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    faulty.spoil("settle_and_see", Fault::Fails);
    let started = billing.engine.pay().await.unwrap();
    until("the store refuses the outcome again and again", async || faulty.asked("settle_and_see") > 1).await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 0);
    faulty.repair();
    assert!(billing.engine.wait(started.run, LONG).await.unwrap().finished);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 1);
    assert_eq!(provider.deliveries().len(), 1);
}

#[tokio::test]
async fn a_run_is_not_finished_when_the_store_fails_until_the_service_drains() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, faulty) = faulty(1).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    faulty.spoil("next_open_in", Fault::Fails);
    let started = billing.engine.pay().await.unwrap();
    until("the invoice is paid", async || fixture.count(InvoiceState::Paid).await == 1).await;
    let before = faulty.hits();
    until("the driver looks ahead", async || faulty.hits() > before).await;
    billing.stop().await;
    assert_eq!(state(&fixture, started.run).await, RunState::Running);
}

#[tokio::test]
async fn a_run_that_waits_for_doubt_takes_the_invoices_that_came_before_a_caller_joined() {
    let in_flight = r#"{"type":"urn:tinjis:problem:key-in-flight"}"#;
    let provider = Provider::start(move |delivery| match delivery.invoice {
        1 => Reply::new(409, in_flight).problem(),
        _ => Reply::charged(),
    })
    .await;
    let fixture = EngineFixture::with(2).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    let started = billing.engine.pay().await.unwrap();
    until("only doubt is left", async || provider.deliveries().len() > 3).await;
    fixture.import(&["I3".to_owned()]).await;
    let joined = billing.engine.pay().await.unwrap();
    assert!(joined.joined && joined.run == started.run);
    until("the new one is paid", async || fixture.invoice(3).await.state == InvoiceState::Paid).await;
    assert_eq!(fixture.attempts().await[2].run_id, started.run);
}

#[tokio::test]
async fn a_caller_that_comes_while_a_run_is_being_finished_makes_it_look_again() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (fixture, faulty) = faulty(1).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    faulty.spoil("finish_run", Fault::Waits);
    let first = billing.engine.pay().await.unwrap();
    until("it is being finished", async || faulty.hits() == 1).await;
    fixture.import(&["I2".to_owned()]).await;
    let engine = billing.engine.clone();
    let second = tokio::spawn(async move { engine.pay().await.unwrap() });
    until("the second has asked", async || faulty.asked("open_run") == 2).await;
    faulty.repair();
    let second = second.await.unwrap();
    assert!(billing.engine.wait(second.run, LONG).await.unwrap().finished);
    assert!(second.joined && second.run == first.run);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 2);
}

#[tokio::test]
async fn a_caller_that_joins_a_run_which_gives_up_does_not_keep_it_going() {
    let provider = Provider::start(|_| Reply::new(404, "no")).await;
    let (fixture, faulty) = faulty(1).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    let started = billing.engine.pay().await.unwrap();
    until("it is probing", async || provider.deliveries().len() > 1).await;
    assert!(billing.engine.pay().await.unwrap().joined);
    assert!(billing.engine.wait(started.run, LONG).await.unwrap().finished);
    assert_eq!(faulty.asked("finish_run"), 1);
}
