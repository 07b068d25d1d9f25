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
