//! Runs that end badly, or are joined late: none is stuck, none is finished too early, none misses an invoice.

use std::sync::Arc;

use billing::invoice::{InvoiceState, RunId, RunState};

use crate::faulty::{Fault, Faulty};
use crate::provider::{Provider, Reply};
use crate::support::{House, LONG, Plan, until};

async fn faulty(invoices: usize) -> (House, Arc<Faulty>) {
    let mut house = House::with(invoices).await;
    let faulty = Faulty::over(&house.store);
    house.store = faulty.clone();
    (house, faulty)
}

async fn state(house: &House, run: RunId) -> RunState {
    house.store.run(run).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_run_whose_driver_panics_is_taken_up_again() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (house, faulty) = faulty(3).await;
    let billing = house.open(&provider.url, Plan::keys()).await;
    faulty.spoil("claim_pending", Fault::PanicsOnce);
    let started = billing.engine.pay().await.unwrap();
    assert!(!billing.engine.wait(started.run, LONG).await.unwrap().finished);
    assert_eq!(faulty.hits(), 1);
    house.spoil("UPDATE runs SET lease_until = 0");
    assert!(billing.engine.pay().await.unwrap().joined);
    until("the run is finished", async || state(&house, started.run).await == RunState::Finished).await;
    assert_eq!(house.count(InvoiceState::Paid).await, 3);
}

#[tokio::test]
async fn a_run_is_not_finished_when_the_store_fails_until_the_service_drains() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let (house, faulty) = faulty(1).await;
    let billing = house.open(&provider.url, Plan::keys()).await;
    faulty.spoil("next_open_in", Fault::Fails);
    let started = billing.engine.pay().await.unwrap();
    until("the invoice is paid", async || house.count(InvoiceState::Paid).await == 1).await;
    let before = faulty.hits();
    until("the driver looks ahead", async || faulty.hits() > before).await;
    billing.stop().await;
    assert_eq!(state(&house, started.run).await, RunState::Running);
}
