//! What operators stop and resume: holds, cancellations and the halt, for every kind of store.

use std::sync::Arc;
use std::time::Duration;

use billing::invoice::{CustomerId, InvoiceId, InvoiceState, Reference, Run};
use billing::protocol::transition::Outcome;
use billing::store::control::{Controlled, CustomerAction, InvoiceAction, OperatorNote};
use billing::store::{Imported, Settled, Store};

use crate::fixture::{Fixture, LEASE, PLAIN, UPDATE, claimed, imported, reference, row, run, settle};

cases! {
    a_held_invoice_is_not_claimed_until_it_is_released,
    invoices_of_a_held_customer_are_not_claimed_until_the_release,
    a_hold_and_a_cancellation_are_refused_while_an_attempt_is_open,
    a_cancelled_invoice_is_final_is_counted_and_is_never_claimed,
    a_late_charge_of_a_cancelled_invoice_needs_an_operator,
    while_charging_is_stopped_nothing_is_claimed_and_open_attempts_settle,
    each_action_that_changed_something_is_recorded_and_no_other,
}

fn note() -> OperatorNote {
    OperatorNote { reason: "a dispute".to_owned(), actor: "kim".to_owned() }
}

async fn act(store: &dyn Store, name: &str, action: InvoiceAction) -> Controlled {
    store.control_invoice(&reference(name), action, &note()).await.unwrap()
}

/// The invoices that a new claim of the run gets.
async fn claimable(store: &dyn Store, run: &Run) -> Vec<i64> {
    let claimed = store.claim_in_turn(run.id, InvoiceId(0), 10, LEASE).await.unwrap().attempts;
    claimed.iter().map(|attempt| attempt.invoice_id.0).collect()
}

async fn state(store: &dyn Store, id: i64) -> InvoiceState {
    store.invoice(InvoiceId(id)).await.unwrap().unwrap().state
}

async fn a_held_invoice_is_not_claimed_until_it_is_released(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    assert_eq!(act(&*store, "I2", InvoiceAction::Hold).await, Controlled::Applied);
    assert_eq!(act(&*store, "I2", InvoiceAction::Hold).await, Controlled::Unchanged);
    assert!(store.invoice(InvoiceId(2)).await.unwrap().unwrap().held);
    let run = run(&*store).await;
    assert_eq!(claimable(&*store, &run).await, [1, 3]);
    assert!(!store.counts().await.unwrap().all_paid(), "it is still to be paid");
    assert_eq!(act(&*store, "I2", InvoiceAction::Release).await, Controlled::Applied);
    assert_eq!(act(&*store, "I2", InvoiceAction::Release).await, Controlled::Unchanged);
    assert_eq!(claimable(&*store, &run).await, [2]);
    assert_eq!(act(&*store, "I9", InvoiceAction::Hold).await, Controlled::Unknown);
}

async fn invoices_of_a_held_customer_are_not_claimed_until_the_release(fixture: impl Fixture) {
    let store = fixture.open().await;
    let mut other = row("I2", 1215);
    other.customer_id = CustomerId(2);
    let rows = [row("I1", 1215), other, row("I3", 1215)];
    let imported = store.import(&rows, PLAIN).await.unwrap();
    assert!(imported.iter().all(|one| *one == Imported::Created), "{imported:?}");
    let act = async |id, action| store.control_customer(CustomerId(id), action, &note()).await.unwrap();
    assert_eq!(act(1, CustomerAction::Hold).await, Controlled::Applied);
    assert_eq!(act(1, CustomerAction::Hold).await, Controlled::Unchanged);
    let held =
        async |customer| store.customer_status(CustomerId(customer)).await.unwrap().map(|status| status.held);
    assert_eq!([held(1).await, held(2).await, held(3).await], [Some(true), Some(false), None]);
    let run = run(&*store).await;
    assert_eq!(claimable(&*store, &run).await, [2]);
    assert_eq!(act(2, CustomerAction::Hold).await, Controlled::AttemptOpen);
    assert_eq!(act(1, CustomerAction::Release).await, Controlled::Applied);
    assert_eq!(claimable(&*store, &run).await, [1, 3]);
    assert_eq!(act(3, CustomerAction::Hold).await, Controlled::Unknown);
}

async fn a_hold_and_a_cancellation_are_refused_while_an_attempt_is_open(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    for outcome in [Outcome::InDoubt(None), Outcome::Refused] {
        for action in [InvoiceAction::Hold, InvoiceAction::Cancel] {
            assert_eq!(act(&*store, "I1", action).await, Controlled::AttemptOpen);
        }
        settle(&*store, Some(&run), &attempt.key, outcome).await;
    }
    assert_eq!(state(&*store, 1).await, InvoiceState::Pending);
    assert_eq!(act(&*store, "I1", InvoiceAction::Hold).await, Controlled::Applied);
    assert_eq!(act(&*store, "I1", InvoiceAction::Cancel).await, Controlled::Applied);
}

async fn a_cancelled_invoice_is_final_is_counted_and_is_never_claimed(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    assert_eq!(act(&*store, "I1", InvoiceAction::Cancel).await, Controlled::Applied);
    assert_eq!(act(&*store, "I1", InvoiceAction::Cancel).await, Controlled::Unchanged);
    let cancelled = Controlled::Final(InvoiceState::Cancelled);
    assert_eq!(act(&*store, "I1", InvoiceAction::Hold).await, cancelled);
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.pending, counts.cancelled), (1, 1));
    assert_eq!(store.invoices(Some(InvoiceState::Cancelled), InvoiceId(0), 10).await.unwrap().len(), 1);
    // The source sends the invoice again, unchanged and with other data.
    assert_eq!(store.import(&[row("I1", 1215)], UPDATE).await.unwrap(), [Imported::Unchanged]);
    assert_eq!(store.import(&[row("I1", 99)], UPDATE).await.unwrap(), [Imported::Locked]);
    let run = run(&*store).await;
    assert_eq!(run.counters.total, 1);
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    assert_eq!(attempt.invoice_id, InvoiceId(2));
    settle(&*store, Some(&run), &attempt.key, Outcome::Charged).await;
    assert!(store.counts().await.unwrap().all_paid(), "what is cancelled is not to be paid");
    assert_eq!(act(&*store, "I2", InvoiceAction::Cancel).await, Controlled::Final(InvoiceState::Paid));
    drop(store);
    assert_eq!(state(&*fixture.open().await, 1).await, InvoiceState::Cancelled);
}

async fn a_late_charge_of_a_cancelled_invoice_needs_an_operator(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    settle(&*store, Some(&run), &attempt.key, Outcome::Refused).await;
    assert_eq!(act(&*store, "I1", InvoiceAction::Cancel).await, Controlled::Applied);
    let late = settle(&*store, None, &attempt.key, Outcome::Charged).await;
    assert!(matches!(late, Settled::Conflict(_)), "{late:?}");
    assert_eq!(state(&*store, 1).await, InvoiceState::Attention);
    assert_eq!(act(&*store, "I1", InvoiceAction::Cancel).await, Controlled::Charged);
}

async fn while_charging_is_stopped_nothing_is_claimed_and_open_attempts_settle(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    assert_eq!(store.halt().await.unwrap(), None);
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    assert!(store.stop_charging(&note()).await.unwrap());
    let again = OperatorNote { reason: "another".to_owned(), actor: "robin".to_owned() };
    assert!(!store.stop_charging(&again).await.unwrap(), "it is stopped already");
    let halt = store.halt().await.unwrap().unwrap();
    assert_eq!((halt.note, halt.since), (note(), fixture.now_ms()), "the first stop stands");
    assert!(claimable(&*store, &run).await.is_empty());
    fixture.pass(LEASE + Duration::from_millis(1)).await;
    let resent = store.claim_open(Some(run.id), 10, LEASE).await.unwrap();
    assert_eq!(resent.iter().map(|open| &open.key).collect::<Vec<_>>(), [&attempt.key]);
    assert_eq!(settle(&*store, Some(&run), &attempt.key, Outcome::Charged).await, Settled::Applied);
    // Every process that opens the store later is stopped as well.
    drop(store);
    let store = fixture.open().await;
    assert!(claimable(&*store, &run).await.is_empty());
    assert!(store.start_charging(&note()).await.unwrap());
    assert!(!store.start_charging(&note()).await.unwrap());
    assert_eq!(store.halt().await.unwrap(), None);
    assert_eq!(claimable(&*store, &run).await, [2, 3]);
}

async fn each_action_that_changed_something_is_recorded_and_no_other(fixture: impl Fixture) {
    let store: Arc<dyn Store> = fixture.open().await;
    imported(&*store, 1).await;
    for action in [InvoiceAction::Hold, InvoiceAction::Hold, InvoiceAction::Release, InvoiceAction::Cancel] {
        act(&*store, "I1", action).await;
    }
    let unknown: Reference = reference("I9");
    store.control_invoice(&unknown, InvoiceAction::Hold, &note()).await.unwrap();
    for action in [CustomerAction::Hold, CustomerAction::Release, CustomerAction::Release] {
        store.control_customer(CustomerId(1), action, &note()).await.unwrap();
    }
    store.stop_charging(&note()).await.unwrap();
    store.stop_charging(&note()).await.unwrap();
    store.start_charging(&note()).await.unwrap();
    let expected = [
        ("invoice-hold", "I1"),
        ("invoice-release", "I1"),
        ("invoice-cancel", "I1"),
        ("customer-hold", "1"),
        ("customer-release", "1"),
        ("charging-stop", "charging"),
        ("charging-start", "charging"),
    ];
    // Both kinds of database reject the statement unless exactly these rows exist.
    for (at, (action, subject)) in expected.iter().enumerate() {
        fixture.by_hand(&format!(
            "INSERT INTO halt (one, reason, actor, created_at) SELECT CASE WHEN count(*) = 1 THEN 1 ELSE 2 END,
                 'x', 'x', 0 FROM operator_actions
             WHERE id = {} AND action = '{action}' AND subject = '{subject}' AND reason = 'a dispute'
                 AND actor = 'kim';
             DELETE FROM halt;",
            at + 1
        ));
    }
    fixture.by_hand(&format!(
        "INSERT INTO halt (one, reason, actor, created_at)
             SELECT CASE WHEN count(*) = {} THEN 1 ELSE 2 END, 'x', 'x', 0 FROM operator_actions;",
        expected.len()
    ));
}
