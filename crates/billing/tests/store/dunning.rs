//! Declines in a store: what is recorded, when a declined invoice is claimed again, and what the limits of networks
//! hold back. The oracle counts by itself, from the attempts in the test.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use billing::invoice::{
    Attempt, AttemptState, AttentionReason, CustomerId, Decline, DeclineClass, DeclineCode, Dunning, Invoice,
    InvoiceId, InvoiceState, Network,
};
use billing::money::{Currency, Money};
use billing::protocol::key::Key;
use billing::protocol::transition::{Outcome, Settlement};
use billing::run_order::{RunFilter, RunLimits, RunOrder};
use billing::store::control::{Controlled, CustomerAction, OperatorNote};
use billing::store::operator_reads::ActedOn;
use billing::store::{
    Evidence, ImportRow, Imported, LedgerFact, OpenedRun, Repaired, Resolution, Resolved, Settled, Store,
};

use crate::fixture::{DEPLOYMENT, Fixture, LEASE, PLAIN, UPDATE, claimed, imported, row, run};

cases! {
    a_refusal_is_stored_with_its_class_and_code,
    what_holds_a_customer_back_is_listed_with_its_limit,
    a_soft_decline_waits_for_its_day_unless_a_legacy_call_asks,
    a_legacy_call_joins_a_run_that_keeps_days_and_widens_it,
    a_ladder_ends_and_a_changed_instrument_begins_it_again,
    a_hard_decline_holds_back_all_invoices_of_an_instrument_whose_network_is_known,
    of_a_customer_whose_network_is_known_one_attempt_is_open_at_a_time,
    a_claim_of_one_invoice_passes_all_that_wait_for_their_turn,
    an_invoice_that_does_not_fit_into_a_run_holds_no_other_back,
    a_limit_is_never_passed,
    a_closed_window_never_shortens_a_ladder,
    an_attempt_that_ends_voided_leaves_the_ladder_as_it_was,
    an_invoice_that_was_in_attention_has_the_flag_of_its_last_decline,
    an_invoice_that_changes_hands_has_the_flag_of_its_customer,
    a_decline_that_only_the_ledger_knew_restricts_as_if_it_had_been_recorded,
    several_declines_that_the_store_had_forgotten_are_counted_on_the_ladder,
    an_older_attempt_that_is_settled_late_changes_no_flag,
    an_invoice_of_the_schedule_whose_first_attempt_is_voided_is_due_again,
    attempts_that_are_open_when_a_network_is_set_are_sent_again_in_turn,
    another_network_or_instrument_plans_all_that_waits_anew,
    open_attempts_that_a_network_allows_no_more_are_to_be_withdrawn,
    random_histories_stay_within_the_limits,
    ten_thousand_old_invoices_lose_nothing_when_networks_are_set,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn decline(class: DeclineClass) -> Option<Decline> {
    Some(Decline { class, code: None })
}

fn legacy() -> RunOrder {
    RunOrder::default()
}

fn on_its_day() -> RunOrder {
    RunOrder { filter: RunFilter::keeping_days(), ..RunOrder::default() }
}

async fn set_network(store: &dyn Store, customer: i64, network: Network) {
    act(store, customer, CustomerAction::SetNetwork(network)).await;
}

async fn act(store: &dyn Store, customer: i64, action: CustomerAction) {
    let note = OperatorNote { reason: "a call".to_owned(), actor: "kim".to_owned() };
    let done = store.control_customer(CustomerId(customer), action, &note).await.unwrap();
    assert_eq!(done, Controlled::Applied, "{action:?}");
}

/// Starts a run with this order and returns all that it claims.
async fn claim(store: &dyn Store, order: &RunOrder) -> Vec<Attempt> {
    let OpenedRun::Started(run) = store.open_ordered_run(order, LEASE).await.unwrap() else {
        panic!("a run is unfinished")
    };
    let mut all: Vec<Attempt> = Vec::new();
    loop {
        let after = all.last().map_or(InvoiceId(0), |attempt| attempt.invoice_id);
        let claimed = store.claim_in_turn(run.id, after, 1000, LEASE).await.unwrap().attempts;
        if claimed.is_empty() {
            break;
        }
        all.extend(claimed);
    }
    assert!(store.finish_run(run.id, run.joins).await.unwrap());
    all
}

fn settlement(attempt: &Attempt, outcome: Outcome, decline: Option<Decline>) -> Settlement {
    Settlement::of(attempt, outcome, Duration::from_secs(3600), decline)
}

async fn settle(store: &dyn Store, attempt: &Attempt, outcome: Outcome, decline: Option<Decline>) {
    let settled = store.settle(None, &[settlement(attempt, outcome, decline)]).await.unwrap();
    assert_eq!(settled, [Settled::Applied]);
}

async fn invoice(store: &dyn Store, id: i64) -> Invoice {
    store.invoice(InvoiceId(id)).await.unwrap().unwrap()
}

fn ids(attempts: &[Attempt]) -> Vec<i64> {
    attempts.iter().map(|attempt| attempt.invoice_id.0).collect()
}

fn of_customer(name: &str, customer: i64) -> ImportRow {
    ImportRow { customer_id: CustomerId(customer), ..row(name, 1215) }
}

async fn a_refusal_is_stored_with_its_class_and_code(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 3).await;
    let soft = Decline { class: DeclineClass::Soft, code: DeclineCode::new("insufficient_funds") };
    let given = [(Outcome::Refused, Some(soft.clone())), (Outcome::Refused, None), (Outcome::Charged, None)];
    let settlement = |(attempt, (outcome, decline)): (&Attempt, _)| {
        Settlement::of(attempt, outcome, Duration::ZERO, decline)
    };
    let settlements: Vec<_> = attempts.iter().zip(given).map(settlement).collect();
    let settled = store.settle(Some(run.id), &settlements).await.unwrap();
    assert!(settled.iter().all(|settled| *settled == Settled::Applied), "{settled:?}");
    let stored = store.attempts((attempts[0].invoice_id, 0), 9).await.unwrap();
    let stored: Vec<_> = stored.into_iter().map(|attempt| attempt.decline).collect();
    assert_eq!(stored, [Some(soft), Some(Decline::default()), None]);
    // A later reason changes nothing.
    let late = Settlement { decline: decline(DeclineClass::Hard), ..settlements[1].clone() };
    assert_eq!(store.settle(None, &[late]).await.unwrap(), [Settled::Same]);
    let kept = store.attempt(&attempts[1].key).await.unwrap().unwrap();
    assert_eq!(kept.decline, Some(Decline::default()));
}

async fn what_holds_a_customer_back_is_listed_with_its_limit(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let customer = CustomerId(1);
    for (attempt, outcome) in
        claimed(&*store, &run, 3).await.iter().zip([Outcome::Refused, Outcome::Refused, Outcome::Charged])
    {
        let soft = if outcome == Outcome::Refused { decline(DeclineClass::Soft) } else { None };
        settle(&*store, attempt, outcome, soft).await;
        fixture.pass(Duration::from_secs(1)).await;
    }
    let declines = async |limit| {
        let found = store.last_declines(customer, limit).await.unwrap();
        found.iter().map(|attempt| attempt.invoice_id.0).collect::<Vec<_>>()
    };
    assert_eq!((declines(9).await, declines(1).await), (vec![2, 1], vec![2]));
    let held_back = store.declined_invoices(customer, 9).await.unwrap();
    assert_eq!(held_back.iter().map(|invoice| invoice.id.0).collect::<Vec<_>>(), [1, 2]);
    assert!(store.declined_invoices(CustomerId(2), 9).await.unwrap().is_empty());
    act(&*store, 1, CustomerAction::Hold).await;
    act(&*store, 1, CustomerAction::Release).await;
    let actions = async |on, subject: &str| {
        let found = store.last_actions(on, subject, 9).await.unwrap();
        found.into_iter().map(|action| action.action).collect::<Vec<_>>()
    };
    assert_eq!(actions(ActedOn::Customer, "1").await, ["customer-release", "customer-hold"]);
    assert!(
        actions(ActedOn::Invoice, "1").await.is_empty(),
        "an invoice may be called as a customer is numbered"
    );
}

async fn a_soft_decline_waits_for_its_day_unless_a_legacy_call_asks(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    for attempt in claim(&*store, &legacy()).await {
        settle(&*store, &attempt, Outcome::Refused, decline(DeclineClass::Soft)).await;
    }
    let waiting = invoice(&*store, 1).await;
    let day_ms = i64::try_from(DAY.as_millis()).unwrap();
    assert_eq!((waiting.state, waiting.dunning), (InvoiceState::Pending, Some(Dunning::Waiting)));
    assert_eq!(waiting.next_attempt_at, Some(fixture.now_ms() + day_ms));
    fixture.pass(DAY - Duration::from_millis(1)).await;
    assert_eq!(ids(&claim(&*store, &on_its_day()).await), [0; 0]);
    fixture.pass(Duration::from_millis(1)).await;
    assert_eq!(ids(&claim(&*store, &RunOrder::scheduled()).await), [0; 0], "the schedule invoiced neither");
    let claimed = claim(&*store, &on_its_day()).await;
    assert_eq!(ids(&claimed), [1, 2]);
    let charging = invoice(&*store, 1).await;
    assert_eq!((charging.dunning, charging.next_attempt_at), (None, None));
    settle(&*store, &claimed[0], Outcome::Refused, decline(DeclineClass::Soft)).await;
    settle(&*store, &claimed[1], Outcome::Refused, None).await;
    assert_eq!(ids(&claim(&*store, &on_its_day()).await), [2], "an unknown decline has no ladder");
    assert_eq!(ids(&claim(&*store, &legacy()).await), [1], "a legacy call ignores the day");
}

async fn a_legacy_call_joins_a_run_that_keeps_days_and_widens_it(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let claimed = claim(&*store, &legacy()).await;
    settle(&*store, &claimed[0], Outcome::Refused, decline(DeclineClass::Soft)).await;
    let OpenedRun::Started(run) = store.open_ordered_run(&on_its_day(), LEASE).await.unwrap() else {
        panic!("a run is unfinished")
    };
    let again = store.open_ordered_run(&on_its_day(), LEASE).await.unwrap();
    assert!(matches!(again, OpenedRun::Joined(joined) if joined.order.filter == RunFilter::keeping_days()));
    assert!(store.claim_in_turn(run.id, InvoiceId(0), 9, LEASE).await.unwrap().attempts.is_empty());
    for less in [
        RunOrder::scheduled(),
        RunOrder { filter: RunFilter { customer_id: Some(1), ..RunFilter::keeping_days() }, ..legacy() },
    ] {
        let joined = store.open_ordered_run(&less, LEASE).await.unwrap();
        let keeps_days = RunFilter::keeping_days();
        assert!(matches!(joined, OpenedRun::Joined(joined) if joined.order.filter == keeps_days), "{less:?}");
    }
    let joined = store.open_ordered_run(&legacy(), LEASE).await.unwrap();
    assert!(
        matches!(joined, OpenedRun::Joined(joined) if joined.id == run.id && joined.order.filter.is_all())
    );
    assert_eq!(store.claim_in_turn(run.id, InvoiceId(0), 9, LEASE).await.unwrap().attempts.len(), 1);
    let later = store.open_ordered_run(&on_its_day(), LEASE).await.unwrap();
    assert!(
        matches!(later, OpenedRun::Joined(joined) if joined.order.filter.is_all()),
        "it claims these too"
    );
}

async fn a_ladder_ends_and_a_changed_instrument_begins_it_again(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    for days in [0, 1, 2, 2, 2] {
        fixture.pass(DAY * days).await;
        let claimed = claim(&*store, &on_its_day()).await;
        assert_eq!(ids(&claimed), [1], "after {days} days");
        settle(&*store, &claimed[0], Outcome::Refused, decline(DeclineClass::Soft)).await;
    }
    let exhausted = invoice(&*store, 1).await;
    assert_eq!((exhausted.dunning, exhausted.next_attempt_at), (Some(Dunning::Exhausted), None));
    assert_eq!(store.ages().await.unwrap().overdue, 1);
    fixture.pass(DAY * 100).await;
    assert_eq!(ids(&claim(&*store, &on_its_day()).await), [0; 0]);
    act(&*store, 1, CustomerAction::InstrumentChanged).await;
    assert_eq!(store.ages().await.unwrap().overdue, 0);
    fixture.pass(Duration::from_millis(1)).await;
    let claimed = claim(&*store, &on_its_day()).await;
    assert_eq!(ids(&claimed), [1]);
    settle(&*store, &claimed[0], Outcome::Refused, decline(DeclineClass::Soft)).await;
    assert_eq!(invoice(&*store, 1).await.dunning, Some(Dunning::Waiting), "the first day of the ladder");
    // A legacy call charged it before its day: flag and date are removed.
    let claimed = claim(&*store, &legacy()).await;
    settle(&*store, &claimed[0], Outcome::Charged, None).await;
    assert_eq!(invoice(&*store, 1).await.dunning, None);
}

async fn a_hard_decline_holds_back_all_invoices_of_an_instrument_whose_network_is_known(
    fixture: impl Fixture,
) {
    let store = fixture.open().await;
    let rows = ["A1", "A2", "B1", "B2"].map(|name| of_customer(name, if name < "B" { 1 } else { 2 }));
    store.import(&rows, PLAIN).await.unwrap();
    set_network(&*store, 1, Network::Visa).await;
    let first = claim(&*store, &legacy()).await;
    assert_eq!(ids(&first), [1, 3, 4]);
    for (attempt, class) in first.iter().zip(["hard", "hard", "unknown"]) {
        settle(&*store, attempt, Outcome::Refused, decline(class.parse().unwrap())).await;
    }
    fixture.pass(DAY * 400).await;
    // Without a network only the declined invoice is not tried again; the others are.
    let other = claim(&*store, &legacy()).await;
    assert_eq!(ids(&other), [4]);
    settle(&*store, &other[0], Outcome::Charged, None).await;
    assert_eq!(invoice(&*store, 2).await.dunning, Some(Dunning::Hard), "it says why");
    act(&*store, 1, CustomerAction::InstrumentChanged).await;
    act(&*store, 2, CustomerAction::InstrumentChanged).await;
    let freed = claim(&*store, &on_its_day()).await;
    assert_eq!(ids(&freed), [1, 3]);
    settle(&*store, &freed[0], Outcome::Charged, None).await;
    assert_eq!(ids(&claim(&*store, &on_its_day()).await), [2]);
}

/// Claims of the unfinished run: the attempts, and the first invoice that waits for another attempt of its customer.
async fn in_turn(store: &dyn Store, limit: usize) -> (Vec<Attempt>, Option<i64>) {
    let run = run(store).await;
    let claimed = store.claim_in_turn(run.id, InvoiceId(0), limit, LEASE).await.unwrap();
    (claimed.attempts, claimed.waiting_from.map(|id| id.0))
}

async fn of_a_customer_whose_network_is_known_one_attempt_is_open_at_a_time(fixture: impl Fixture) {
    let store = fixture.open().await;
    let rows = ["A1", "B1", "A2", "B2", "A3"].map(|name| of_customer(name, if name < "B" { 1 } else { 2 }));
    store.import(&rows, PLAIN).await.unwrap();
    set_network(&*store, 1, Network::Sepa).await;
    let (first, waiting) = in_turn(&*store, 9).await;
    assert_eq!((ids(&first), waiting), (vec![1, 2, 4], Some(3)));
    // Neither a lost response nor the end of a lease decides the outcome.
    settle(&*store, &first[0], Outcome::InDoubt(None), None).await;
    fixture.pass(LEASE * 2).await;
    let (none, waiting) = in_turn(&*store, 9).await;
    assert_eq!((ids(&none), waiting), (vec![], Some(3)));
    settle(&*store, &first[0], Outcome::Charged, None).await;
    let (second, waiting) = in_turn(&*store, 9).await;
    assert_eq!((ids(&second), waiting), (vec![3], Some(5)));
    // No run waits for an attempt that only an operator can settle.
    settle(&*store, &second[0], Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys)), None).await;
    let (none, waiting) = in_turn(&*store, 9).await;
    assert_eq!((ids(&none), waiting), (vec![], None));
    let (key, charged) = (second[0].key.clone(), false);
    let (reason, actor) = ("asked the bank".to_owned(), "kim".to_owned());
    let resolved = store.resolve(&Resolution { key, charged, reason, actor }).await.unwrap();
    assert_eq!(resolved, Resolved::Applied);
    let (third, waiting) = in_turn(&*store, 9).await;
    assert_eq!((ids(&third), waiting), (vec![5], None), "the run has attempted the other");
    settle(&*store, &third[0], Outcome::Refused, decline(DeclineClass::Hard)).await;
    let run = run(&*store).await;
    assert!(store.finish_run(run.id, run.joins).await.unwrap());
    assert_eq!(ids(&claim(&*store, &legacy()).await), [0; 0], "nothing was under way beside it");
    assert_eq!(store.counts().await.unwrap().pending, 2);
}

async fn a_claim_of_one_invoice_passes_all_that_wait_for_their_turn(fixture: impl Fixture) {
    const WAITING: usize = 3_000;
    let store = fixture.open().await;
    imported(&*store, WAITING).await;
    store.import(&[of_customer("LAST", 2)], PLAIN).await.unwrap();
    set_network(&*store, 1, Network::Visa).await;
    for expected in [1, i64::try_from(WAITING).unwrap() + 1] {
        let (claimed, _) = in_turn(&*store, 1).await;
        assert_eq!(ids(&claimed), [expected]);
    }
    assert_eq!(in_turn(&*store, 1).await, (vec![], Some(2)));
}

async fn an_invoice_that_does_not_fit_into_a_run_holds_no_other_back(fixture: impl Fixture) {
    let store = fixture.open().await;
    store.import(&[row("LARGE", 2000), row("SMALL", 900), row("SMALLER", 100)], PLAIN).await.unwrap();
    set_network(&*store, 1, Network::Visa).await;
    let limits = RunLimits { count: None, amounts: Some([(Currency::EUR, 1000)].into()) };
    let OpenedRun::Started(run) =
        store.open_ordered_run(&RunOrder { limits, ..legacy() }, LEASE).await.unwrap()
    else {
        panic!("a run is unfinished")
    };
    let next = async || store.claim_in_turn(run.id, InvoiceId(0), 9, LEASE).await.unwrap();
    let first = next().await;
    assert_eq!((ids(&first.attempts), first.waiting_from), (vec![2], Some(InvoiceId(3))));
    settle(&*store, &first.attempts[0], Outcome::Charged, None).await;
    // Waiting invoices were not subtracted from the limits.
    assert_eq!(ids(&next().await.attempts), [3]);
}

async fn a_limit_is_never_passed(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 25).await;
    set_network(&*store, 1, Network::Visa).await;
    let mut declined = 0;
    // Successful charges do not count for the limits.
    for nth in 0..40 {
        let claimed = claim(&*store, &legacy()).await;
        let Some(attempt) = claimed.first() else { break };
        assert_eq!(claimed.len(), 1);
        let outcome = if nth % 2 == 0 && nth < 8 { Outcome::Charged } else { Outcome::Refused };
        declined += usize::from(outcome == Outcome::Refused);
        settle(&*store, attempt, outcome, None).await;
    }
    assert_eq!((declined, invoice(&*store, 25).await.dunning), (20, Some(Dunning::Waiting)));
    fixture.pass(DAY * 30 - Duration::from_millis(1)).await;
    assert_eq!(ids(&claim(&*store, &legacy()).await), [0; 0]);
    fixture.pass(Duration::from_millis(1)).await;
    assert_eq!(claim(&*store, &legacy()).await.len(), 1);
}

/// An order for invoices with this reference prefix, without regard to days.
fn only(prefix: &str) -> RunOrder {
    let reference_prefix = Some(prefix.to_owned());
    RunOrder { filter: RunFilter { reference_prefix, ..RunFilter::default() }, ..RunOrder::default() }
}

async fn a_closed_window_never_shortens_a_ladder(fixture: impl Fixture) {
    let store = fixture.open().await;
    let rows: Vec<_> =
        (0..10).map(|nth| of_customer(&format!("{}{nth}", if nth == 0 { "A" } else { "B" }), 1)).collect();
    store.import(&rows, PLAIN).await.unwrap();
    set_network(&*store, 1, Network::Mastercard).await;
    for days in [0, 1] {
        fixture.pass(DAY * days).await;
        let claimed = claim(&*store, &only("A")).await;
        settle(&*store, &claimed[0], Outcome::Refused, decline(DeclineClass::Soft)).await;
    }
    let own = invoice(&*store, 1).await.next_attempt_at;
    for _ in 0..9 {
        let claimed = claim(&*store, &only("B")).await;
        settle(&*store, &claimed[0], Outcome::Refused, None).await;
    }
    assert_eq!(ids(&claim(&*store, &legacy()).await), [0; 0], "ten in a day");
    let waiting = invoice(&*store, 1).await;
    assert_eq!((waiting.dunning, waiting.next_attempt_at), (Some(Dunning::Waiting), own), "its day is later");
    let other = invoice(&*store, 2).await;
    assert!(other.dunning == Some(Dunning::Waiting) && other.next_attempt_at < own, "{other:?}");
    fixture.by_hand("UPDATE invoices SET dunning = 'exhausted', next_attempt_at = NULL WHERE id = 1");
    assert_eq!(ids(&claim(&*store, &legacy()).await), [0; 0]);
    let exhausted = invoice(&*store, 1).await;
    assert_eq!((exhausted.dunning, exhausted.next_attempt_at), (Some(Dunning::Exhausted), None));
}

async fn an_attempt_that_ends_voided_leaves_the_ladder_as_it_was(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    for attempt in claim(&*store, &legacy()).await {
        settle(&*store, &attempt, Outcome::Refused, decline(DeclineClass::Soft)).await;
    }
    let day = invoice(&*store, 1).await.next_attempt_at;
    fixture.pass(Duration::from_secs(60)).await;
    let claimed = claim(&*store, &legacy()).await;
    settle(&*store, &claimed[0], Outcome::Voided, None).await;
    let (reason, actor) = ("asked the bank".to_owned(), "kim".to_owned());
    let not_charged = Resolution { key: claimed[1].key.clone(), charged: false, reason, actor };
    assert_eq!(store.resolve(&not_charged).await.unwrap(), Resolved::Applied);
    for id in [1, 2] {
        let waiting = invoice(&*store, id).await;
        assert_eq!((waiting.dunning, waiting.next_attempt_at), (Some(Dunning::Waiting), day), "invoice {id}");
    }
    assert_eq!(ids(&claim(&*store, &on_its_day()).await), [0; 0]);
}

async fn an_invoice_that_was_in_attention_has_the_flag_of_its_last_decline(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let rejected = claim(&*store, &legacy()).await;
    for attempt in &rejected {
        settle(&*store, attempt, Outcome::Rejected, None).await;
    }
    // A repair after a restore: later declines do not end ATTENTION.
    let facts = ["I1", "I2"].map(|name| forgotten(name, 1, 2, DeclineClass::Hard));
    assert_eq!(store.repair(&facts).await.unwrap(), [Repaired::Adopted; 2]);
    assert_eq!(invoice(&*store, 1).await.state, InvoiceState::Attention);
    let (reason, actor) = ("repaired there".to_owned(), "kim".to_owned());
    let not_charged = Resolution { key: rejected[0].key.clone(), charged: false, reason, actor };
    assert_eq!(store.resolve(&not_charged).await.unwrap(), Resolved::Applied);
    let edited = ImportRow { money: Money { amount_minor: 99, currency: Currency::EUR }, ..row("I2", 1215) };
    assert_eq!(store.import(&[edited], UPDATE).await.unwrap(), [Imported::Updated]);
    for id in [1, 2] {
        let declined = invoice(&*store, id).await;
        assert_eq!((declined.state, declined.dunning), (InvoiceState::Pending, Some(Dunning::Hard)));
    }
    assert_eq!(ids(&claim(&*store, &legacy()).await), [0; 0]);
}

async fn an_invoice_that_changes_hands_has_the_flag_of_its_customer(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let claimed = claim(&*store, &legacy()).await;
    settle(&*store, &claimed[0], Outcome::Refused, decline(DeclineClass::Hard)).await;
    for (customer, flag) in [(2, None), (1, Some(Dunning::Hard))] {
        let row = ImportRow { customer_id: CustomerId(customer), ..row("I1", 1215) };
        assert_eq!(store.import(&[row], UPDATE).await.unwrap(), [Imported::Updated]);
        assert_eq!(invoice(&*store, 1).await.dunning, flag, "of customer {customer}");
    }
}

/// The ledger's row of this attempt.
fn ledger_row(attempt: &Attempt, class: DeclineClass) -> LedgerFact {
    LedgerFact {
        key: attempt.key.clone(),
        reference: Some(attempt.reference.clone()),
        customer_id: Some(attempt.customer_id),
        money: Some(attempt.money),
        outcome: Outcome::Refused,
        decline: decline(class),
    }
}

/// A ledger row of an attempt that was never recorded here.
fn forgotten(name: &str, customer: i64, number: u32, class: DeclineClass) -> LedgerFact {
    let ImportRow { reference, money, .. } = of_customer(name, customer);
    LedgerFact {
        key: Key::new(DEPLOYMENT, &reference, number),
        reference: Some(reference),
        customer_id: Some(CustomerId(customer)),
        money: Some(money),
        outcome: Outcome::Refused,
        decline: decline(class),
    }
}

/// Resolves as "not charged" an attempt that the provider says it had refused.
async fn resolve_as_refused(store: &dyn Store, attempt: &Attempt, class: DeclineClass) {
    let (reason, actor) = ("asked the bank".to_owned(), "kim".to_owned());
    let resolution = Resolution { key: attempt.key.clone(), charged: false, reason, actor };
    let evidence = Evidence::Refused(Decline { class, code: None });
    assert_eq!(store.resolve_by(&resolution, &evidence).await.unwrap(), Resolved::Applied);
}

async fn a_decline_that_only_the_ledger_knew_restricts_as_if_it_had_been_recorded(fixture: impl Fixture) {
    use DeclineClass::{Fix, Hard, Soft, Unknown};
    let store = fixture.open().await;
    let classes = [Hard, Fix, Soft, Unknown];
    // Customers 1 to 4: unknown to the store. 5 to 8: open, and settled by the repair. 9 to 12: resolved.
    let names: Vec<String> = (1..=12).map(|nth| format!("I{nth}")).collect();
    let rows: Vec<_> = names.iter().zip(1..).map(|(name, customer)| of_customer(name, customer)).collect();
    store.import(&rows, PLAIN).await.unwrap();
    store.import(&[of_customer("I1 too", 1)], PLAIN).await.unwrap();
    set_network(&*store, 1, Network::Visa).await;
    let unfinished = run(&*store).await;
    let claimed = store.claim_in_turn(unfinished.id, InvoiceId(4), 8, LEASE).await.unwrap().attempts;
    let mut facts: Vec<_> =
        (0..4).map(|at| forgotten(&names[at], rows[at].customer_id.0, 1, classes[at])).collect();
    facts.extend(claimed[..4].iter().zip(classes).map(|(attempt, class)| ledger_row(attempt, class)));
    let became = [[Repaired::Adopted; 4], [Repaired::Settled; 4]].concat();
    assert_eq!(store.repair(&facts).await.unwrap(), became);
    for (attempt, class) in claimed[4..].iter().zip(classes) {
        resolve_as_refused(&*store, attempt, class).await;
    }
    for (id, class) in (1..=12).zip(classes.into_iter().cycle()) {
        let attempt = store.attempts((InvoiceId(id), 0), 1).await.unwrap().remove(0);
        assert_eq!((attempt.invoice_id, attempt.state), (InvoiceId(id), AttemptState::Refused));
        assert_eq!(attempt.decline, decline(class), "invoice {id}");
        let flag = match class {
            Hard => Some(Dunning::Hard),
            Fix => Some(Dunning::Fix),
            Soft => Some(Dunning::Waiting),
            Unknown => None,
        };
        assert_eq!(invoice(&*store, id).await.dunning, flag, "invoice {id}");
    }
    assert!(store.finish_run(unfinished.id, run(&*store).await.joins).await.unwrap());
    let day_ms = i64::try_from(DAY.as_millis()).unwrap();
    assert_eq!(invoice(&*store, 3).await.next_attempt_at, Some(fixture.now_ms() + day_ms));
    // A repeated repair changes nothing.
    assert_eq!(store.repair(&facts).await.unwrap(), [Repaired::Known; 8]);
    assert_eq!(ids(&claim(&*store, &on_its_day()).await), [4, 8, 12]);
    assert_eq!(invoice(&*store, 13).await.dunning, Some(Dunning::Hard), "of the same instrument");
    fixture.pass(DAY).await;
    assert_eq!(ids(&claim(&*store, &on_its_day()).await), [3, 7, 11]);
    assert_eq!(ids(&claim(&*store, &legacy()).await), [0; 0]);
}

async fn open_attempts_that_a_network_allows_no_more_are_to_be_withdrawn(fixture: impl Fixture) {
    let store = fixture.open().await;
    let rows: Vec<_> = (1..=8)
        .flat_map(|customer| [("A", customer), ("B", customer)])
        .map(|(name, customer)| of_customer(&format!("{name}{customer}"), customer))
        .collect();
    store.import(&rows, PLAIN).await.unwrap();
    for customer in 1..=4 {
        set_network(&*store, customer, Network::Visa).await;
    }
    let open = claim(&*store, &only("A")).await;
    assert_eq!(ids(&open), [1, 3, 5, 7, 9, 11, 13, 15]);
    assert!(store.to_withdraw(&open).await.unwrap().is_empty());
    let declines = |customer, count| {
        (1..=count)
            .map(move |number| forgotten(&format!("B{customer}"), customer, number, DeclineClass::Unknown))
    };
    let mut facts = vec![
        forgotten("B1", 1, 1, DeclineClass::Hard),
        forgotten("B2", 2, 1, DeclineClass::Fix),
        forgotten("B5", 5, 1, DeclineClass::Hard),
        // Declines of the invoices themselves.
        forgotten("A6", 6, 2, DeclineClass::Hard),
        forgotten("A7", 7, 2, DeclineClass::Fix),
        forgotten("A8", 8, 2, DeclineClass::Soft),
    ];
    facts.extend(declines(3, 20).chain(declines(4, 19)));
    let repaired = store.repair(&facts).await.unwrap();
    assert!(repaired.iter().all(|became| *became == Repaired::Adopted), "{repaired:?}");
    // A hard decline of a card, and the twentieth decline of a month. Without a known network only a decline of the
    // same invoice.
    let withdrawn = async || store.to_withdraw(&open).await.unwrap();
    let keys = |places: &[usize]| places.iter().map(|&at| open[at].key.clone()).collect::<HashSet<_>>();
    assert_eq!(withdrawn().await, keys(&[0, 2, 5, 6]));
    act(&*store, 1, CustomerAction::InstrumentChanged).await;
    act(&*store, 6, CustomerAction::InstrumentChanged).await;
    assert_eq!(withdrawn().await, keys(&[2, 6]));
}

async fn an_older_attempt_that_is_settled_late_changes_no_flag(fixture: impl Fixture) {
    use DeclineClass::{Hard, Soft, Unknown};
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let older = claim(&*store, &legacy()).await;
    // A restore: later attempts are adopted while older ones are open.
    let facts = [forgotten("I1", 1, 2, Soft), forgotten("I2", 1, 2, Hard), forgotten("I3", 1, 2, Unknown)];
    assert_eq!(store.repair(&facts).await.unwrap(), [Repaired::Adopted; 3]);
    settle(&*store, &older[0], Outcome::Refused, decline(Unknown)).await;
    assert_eq!(store.repair(&[ledger_row(&older[1], Unknown)]).await.unwrap(), [Repaired::Settled]);
    settle(&*store, &older[2], Outcome::Refused, decline(Hard)).await;
    for (id, flag) in [(1, Some(Dunning::Waiting)), (2, Some(Dunning::Hard)), (3, None)] {
        assert_eq!(invoice(&*store, id).await.dunning, flag, "invoice {id}");
    }
    // A later decline without a class removes the effect of the earlier one.
    assert_eq!(store.repair(&[forgotten("I2", 1, 3, Unknown)]).await.unwrap(), [Repaired::Adopted]);
    let freed = invoice(&*store, 2).await;
    assert_eq!((freed.dunning, freed.next_attempt_at), (None, None));
}

fn scheduled() -> RunOrder {
    RunOrder { filter: RunFilter { scheduled: true, ..RunFilter::default() }, ..RunOrder::default() }
}

async fn an_invoice_of_the_schedule_whose_first_attempt_is_voided_is_due_again(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 4).await;
    let due = fixture.now_ms() - 1;
    fixture.by_hand(&format!("UPDATE invoices SET due_at = {due}, next_attempt_at = {due} WHERE id < 4"));
    let first = claim(&*store, &scheduled()).await;
    assert_eq!(ids(&first), [1, 2, 3]);
    settle(&*store, &first[0], Outcome::Voided, None).await;
    let (reason, actor) = ("asked the bank".to_owned(), "kim".to_owned());
    let not_charged = Resolution { key: first[1].key.clone(), charged: false, reason, actor };
    assert_eq!(store.resolve(&not_charged).await.unwrap(), Resolved::Applied);
    // Providers without classes have no ladder: only a run that asks for their declined invoices claims them.
    settle(&*store, &first[2], Outcome::Refused, decline(DeclineClass::Unknown)).await;
    let imported = claim(&*store, &only("I4")).await.pop().unwrap();
    settle(&*store, &imported, Outcome::Voided, None).await;
    for (id, next) in [(1, Some(due)), (2, Some(due)), (3, None), (4, None)] {
        let pending = invoice(&*store, id).await;
        assert_eq!((pending.dunning, pending.next_attempt_at), (None, next), "invoice {id}");
    }
    assert_eq!(ids(&claim(&*store, &scheduled()).await), [1, 2]);
}

async fn attempts_that_are_open_when_a_network_is_set_are_sent_again_in_turn(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 25).await;
    assert_eq!(claim(&*store, &legacy()).await.len(), 25);
    // The same as in a restored store.
    set_network(&*store, 1, Network::Visa).await;
    fixture.pass(LEASE * 2).await;
    for nth in 1..=25 {
        assert_eq!(store.next_open_in().await.unwrap(), Some(Duration::ZERO));
        let due = store.claim_open(None, 100, LEASE).await.unwrap();
        assert_eq!(ids(&due), [nth], "one after the other");
        assert!(store.claim_open(None, 100, LEASE).await.unwrap().is_empty());
        let is_withdrawn = !store.to_withdraw(&due).await.unwrap().is_empty();
        assert_eq!(is_withdrawn, nth > 20, "the limit of twenty");
        let outcome = if is_withdrawn { Outcome::Voided } else { Outcome::Refused };
        settle(&*store, &due[0], outcome, None).await;
    }
}

async fn another_network_or_instrument_plans_all_that_waits_anew(fixture: impl Fixture) {
    let store = fixture.open().await;
    let rows: Vec<_> = (1..=25).map(|nth| of_customer(&format!("I{nth}"), 1)).collect();
    store.import(&rows, PLAIN).await.unwrap();
    set_network(&*store, 1, Network::Visa).await;
    let soft = claim(&*store, &only("I1")).await;
    settle(&*store, &soft[0], Outcome::Refused, decline(DeclineClass::Soft)).await;
    let waits = async |id, days: u32| {
        let waiting = invoice(&*store, id).await;
        let at = fixture.now_ms() + i64::try_from((DAY * days).as_millis()).unwrap();
        assert_eq!((waiting.dunning, waiting.next_attempt_at), (Some(Dunning::Waiting), Some(at)));
    };
    waits(1, 1).await;
    set_network(&*store, 1, Network::Sepa).await;
    waits(1, 5).await;
    set_network(&*store, 1, Network::Visa).await;
    for _ in 0..19 {
        let claimed = claim(&*store, &only("I2")).await;
        settle(&*store, &claimed[0], Outcome::Refused, None).await;
    }
    assert_eq!(ids(&claim(&*store, &only("I3")).await), [0; 0], "twenty in a month");
    assert_eq!(invoice(&*store, 3).await.dunning, Some(Dunning::Waiting));
    set_network(&*store, 1, Network::Sepa).await;
    assert_eq!(invoice(&*store, 3).await.dunning, None, "no limit holds it back");
    let hard = claim(&*store, &only("I3")).await;
    settle(&*store, &hard[0], Outcome::Refused, decline(DeclineClass::Hard)).await;
    assert_eq!(ids(&claim(&*store, &only("I4")).await), [0; 0]);
    assert_eq!(invoice(&*store, 4).await.dunning, Some(Dunning::Hard));
    set_network(&*store, 1, Network::None).await;
    for (id, flag) in [(3, Some(Dunning::Hard)), (4, None)] {
        assert_eq!(
            invoice(&*store, id).await.dunning,
            flag,
            "without a network a hard decline is its invoice's own"
        );
    }
    // Invoices of the schedule: after a decline without a class there is no date, until the instrument changes.
    let due = fixture.now_ms() - 1;
    fixture.by_hand(&format!("UPDATE invoices SET due_at = {due}, next_attempt_at = {due} WHERE id = 5"));
    let unknown = claim(&*store, &scheduled()).await;
    settle(&*store, &unknown[0], Outcome::Refused, None).await;
    assert_eq!(invoice(&*store, 5).await.next_attempt_at, None);
    fixture.pass(Duration::from_secs(1)).await;
    act(&*store, 1, CustomerAction::InstrumentChanged).await;
    for (id, next) in [(1, None), (3, None), (5, Some(due))] {
        let freed = invoice(&*store, id).await;
        assert_eq!((freed.dunning, freed.next_attempt_at), (None, next), "invoice {id}");
    }
    // An invoice that moves to another customer loses the date from its former customer.
    let again = claim(&*store, &scheduled()).await;
    settle(&*store, &again[0], Outcome::Refused, decline(DeclineClass::Soft)).await;
    let moved = ImportRow { customer_id: CustomerId(2), ..row("I5", 1215) };
    assert_eq!(store.import(&[moved], UPDATE).await.unwrap(), [Imported::Updated]);
    assert_eq!(invoice(&*store, 5).await.next_attempt_at, Some(due));
}

async fn several_declines_that_the_store_had_forgotten_are_counted_on_the_ladder(fixture: impl Fixture) {
    use DeclineClass::{Hard, Soft, Unknown};
    let store = fixture.open().await;
    store.import(&["A", "B", "C"].map(|name| of_customer(name, 1)), PLAIN).await.unwrap();
    let mut facts: Vec<_> = (1..=3).map(|number| forgotten("A", 1, number, Soft)).collect();
    // The same as if each had been recorded in order: the last one decides.
    facts.extend([forgotten("B", 1, 1, Hard), forgotten("B", 1, 2, Unknown)]);
    facts.extend([forgotten("C", 1, 1, Hard), forgotten("C", 1, 2, Soft)]);
    assert_eq!(store.repair(&facts).await.unwrap(), [Repaired::Adopted; 7]);
    let waits = async |id, days: u32| {
        let waiting = invoice(&*store, id).await;
        let wait = i64::try_from((DAY * days).as_millis()).unwrap();
        let expected = (Some(Dunning::Waiting), Some(fixture.now_ms() + wait));
        assert_eq!((waiting.dunning, waiting.next_attempt_at), expected, "invoice {id}");
    };
    waits(1, 2).await;
    assert_eq!(invoice(&*store, 2).await.dunning, None);
    waits(3, 1).await;
    let more = [forgotten("A", 1, 4, Soft), forgotten("A", 1, 5, Soft)];
    assert_eq!(store.repair(&more[..1]).await.unwrap(), [Repaired::Adopted]);
    waits(1, 2).await;
    assert_eq!(store.repair(&more[1..]).await.unwrap(), [Repaired::Adopted]);
    assert_eq!(invoice(&*store, 1).await.dunning, Some(Dunning::Exhausted));
}

struct Rng(u64);

impl Rng {
    /// The next number of Splitmix64, below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// An attempt as the oracle saw it.
struct Past {
    attempt: Attempt,
    made_at: i64,
    /// The time of settlement, and the class of a decline.
    settled: Option<(i64, Option<DeclineClass>)>,
}

const NETWORKS: [Network; 4] = [Network::None, Network::Visa, Network::Mastercard, Network::Sepa];
const INVOICES_EACH: i64 = 6;
const HOUR_MS: i64 = 60 * 60 * 1000;

fn network(customer: i64) -> Network {
    NETWORKS[usize::try_from(customer - 1).unwrap()]
}

#[derive(Default)]
struct Oracle {
    past: Vec<Past>,
    changed_at: BTreeMap<i64, i64>,
}

impl Oracle {
    fn of_invoice(&self, id: i64) -> impl Iterator<Item = &Past> {
        self.past.iter().filter(move |past| past.attempt.invoice_id.0 == id)
    }

    /// Whether no attempt of the invoice is open or charged.
    fn is_pending(&self, id: i64) -> bool {
        self.of_invoice(id).all(|past| matches!(past.settled, Some((_, Some(_)))))
    }

    fn changed_at(&self, customer: i64) -> i64 {
        self.changed_at.get(&customer).copied().unwrap_or(i64::MIN)
    }

    /// When the last decline with the same instrument allows another attempt: at once, never, or from a time on.
    fn own_day(&self, customer: i64, id: i64) -> Option<i64> {
        let changed = self.changed_at(customer);
        let last = self.of_invoice(id).last().and_then(|past| past.settled).filter(|(at, _)| *at > changed);
        let Some((at, Some(class))) = last else { return Some(i64::MIN) };
        let soft = |past: &&Past| {
            past.made_at > changed && matches!(past.settled, Some((_, Some(DeclineClass::Soft))))
        };
        let gaps: &[i64] = if network(customer) == Network::Sepa { &[5, 5] } else { &[1, 2, 2, 2] };
        match class {
            DeclineClass::Unknown => Some(i64::MIN),
            DeclineClass::Hard | DeclineClass::Fix => None,
            // Exhausted invoices are for legacy calls only, which ignore days.
            DeclineClass::Soft => {
                // An attempt made before the instrument changed and declined after it counts as the first of its
                // ladder.
                let count = self.of_invoice(id).filter(soft).count().max(1);
                Some(gaps.get(count - 1).map_or(i64::MAX, |days| at + days * 24 * HOUR_MS))
            }
        }
    }

    /// Whether the network allows one more attempt. That attempt may be declined hard, so no other may be under way.
    fn is_allowed(&self, customer: i64, now: i64, claimed: usize) -> bool {
        let of_customer = || self.past.iter().filter(|past| past.attempt.customer_id.0 == customer);
        let changed = self.changed_at(customer);
        let is_hard =
            |past: &Past| matches!(past.settled, Some((at, Some(DeclineClass::Hard))) if at > changed);
        let used = |within_ms: i64| {
            let counts = |past: &&Past| matches!(past.settled, Some((at, Some(_))) if at > now - within_ms);
            of_customer().filter(counts).count()
        };
        match network(customer) {
            Network::None => true,
            _ if claimed > 0 || of_customer().any(|past| past.settled.is_none()) => false,
            _ if of_customer().any(is_hard) => false,
            Network::Visa => used(30 * 24 * HOUR_MS) < 20,
            Network::Mastercard => used(24 * HOUR_MS) < 10 && used(30 * 24 * HOUR_MS) < 35,
            Network::Sepa => true,
        }
    }

    /// Simulates a restore: the store forgets the last decline of an invoice, and gets it back from the ledger. The
    /// decline counts from then on. Returns whether there was one.
    async fn forget_and_repair(&mut self, fixture: &impl Fixture, store: &dyn Store, rng: &mut Rng) -> usize {
        let invoices = i64::try_from(NETWORKS.len()).unwrap() * INVOICES_EACH;
        let id = i64::try_from(rng.below(u64::try_from(invoices).unwrap())).unwrap() + 1;
        if !self.is_pending(id) {
            return 0;
        }
        let last = self.past.iter_mut().rev().find(|past| past.attempt.invoice_id.0 == id);
        let Some(past) = last else { return 0 };
        let Some((_, Some(class))) = past.settled else { return 0 };
        fixture.by_hand(&format!(
            "DELETE FROM resolutions WHERE key = '{0}'; DELETE FROM attempts WHERE key = '{0}';
             UPDATE invoices SET dunning = NULL, next_attempt_at = NULL WHERE id = {id}",
            past.attempt.key
        ));
        assert_eq!(store.repair(&[ledger_row(&past.attempt, class)]).await.unwrap(), [Repaired::Adopted]);
        (past.made_at, past.settled) = (fixture.now_ms(), Some((fixture.now_ms(), Some(class))));
        1
    }

    /// Checks that each claimed attempt was allowed, and that each required one was claimed.
    fn check(&self, claimed: &[Attempt], keeps_days: bool, now: i64) -> usize {
        let claimed = ids(claimed);
        let mut held_back = 0;
        for customer in 1..=i64::try_from(NETWORKS.len()).unwrap() {
            let mut taken = 0;
            for id in (customer - 1) * INVOICES_EACH + 1..=customer * INVOICES_EACH {
                let is_claimed = claimed.contains(&id);
                let day = self.own_day(customer, id);
                let is_due = day.is_some_and(|day| day <= now || !keeps_days);
                let is_allowed = self.is_allowed(customer, now, taken);
                let may = self.is_pending(id) && is_due && is_allowed;
                held_back += usize::from(self.is_pending(id) && is_due && !is_allowed);
                assert!(may || !is_claimed, "invoice {id} of {} is claimed, day {day:?}", network(customer));
                // A run that keeps days waits for the date from a closed gate; that date may be later than necessary.
                let must = may && (!keeps_days || matches!(network(customer), Network::None | Network::Sepa));
                assert!(is_claimed || !must, "invoice {id} of {} is not claimed", network(customer));
                taken += usize::from(is_claimed);
            }
        }
        held_back
    }
}

async fn random_histories_stay_within_the_limits(fixture: impl Fixture) {
    const STEPS: usize = 160;
    let store = fixture.open().await;
    let customers = i64::try_from(NETWORKS.len()).unwrap();
    let rows: Vec<_> = (0..customers * INVOICES_EACH)
        .map(|nth| of_customer(&format!("I{}", nth + 1), nth / INVOICES_EACH + 1))
        .collect();
    assert!(store.import(&rows, PLAIN).await.unwrap().iter().all(|done| *done == Imported::Created));
    for customer in 2..=customers {
        set_network(&*store, customer, network(customer)).await;
    }
    let (mut rng, mut oracle, mut held_back, mut forgotten_and_repaired) =
        (Rng(8213), Oracle::default(), 0, 0);
    for step in 0..STEPS {
        let minutes =
            [1, 30, 24 * 60, 7 * 24 * 60][usize::try_from(rng.below(20)).unwrap().saturating_sub(16)];
        fixture.pass(Duration::from_secs(60 * minutes)).await;
        if rng.below(25) == 0 {
            let customer = i64::try_from(rng.below(4)).unwrap() + 1;
            act(&*store, customer, CustomerAction::InstrumentChanged).await;
            oracle.changed_at.insert(customer, fixture.now_ms());
            fixture.pass(Duration::from_secs(1)).await;
        }
        let keeps_days = rng.below(3) == 0;
        let now = fixture.now_ms();
        let claimed = claim(&*store, &if keeps_days { on_its_day() } else { legacy() }).await;
        held_back += oracle.check(&claimed, keeps_days, now);
        oracle.past.extend(claimed.into_iter().map(|attempt| Past { attempt, made_at: now, settled: None }));
        fixture.pass(Duration::from_secs(1)).await;
        let now = fixture.now_ms();
        let (mut settlements, mut voided) = (Vec::new(), Vec::new());
        for past in oracle.past.iter_mut().filter(|past| past.settled.is_none()) {
            let class = match rng.below(100) {
                // The attempt stays in doubt for now.
                0..10 => continue,
                10 => None,
                11..50 => Some(DeclineClass::Soft),
                50 if step > STEPS / 2 => Some(DeclineClass::Hard),
                51 if step > STEPS / 2 => Some(DeclineClass::Fix),
                _ => Some(DeclineClass::Unknown),
            };
            if rng.below(12) == 0 {
                // A void has no reason: the effect of the last decline stays.
                voided.push(past.attempt.clone());
                continue;
            }
            past.settled = Some((now, class));
            match class {
                // A decline has the same effect in whichever way it becomes known.
                Some(class) if rng.below(5) == 0 => {
                    let repaired = store.repair(&[ledger_row(&past.attempt, class)]).await.unwrap();
                    assert_eq!(repaired, [Repaired::Settled]);
                }
                Some(class) if rng.below(5) == 0 => resolve_as_refused(&*store, &past.attempt, class).await,
                Some(class) => settlements.push(settlement(&past.attempt, Outcome::Refused, decline(class))),
                None => settlements.push(settlement(&past.attempt, Outcome::Charged, None)),
            }
        }
        oracle.past.retain(|past| !voided.contains(&past.attempt));
        settlements.extend(voided.iter().map(|attempt| settlement(attempt, Outcome::Voided, None)));
        let settled = store.settle(None, &settlements).await.unwrap();
        assert!(settled.iter().all(|settled| *settled == Settled::Applied), "{settled:?}");
        if rng.below(8) == 0 {
            fixture.pass(Duration::from_secs(1)).await;
            forgotten_and_repaired += oracle.forget_and_repair(&fixture, &*store, &mut rng).await;
        }
    }
    assert!(forgotten_and_repaired > 5, "few were forgotten: {forgotten_and_repaired}");
    assert!(held_back > 20, "the limits were hardly reached: {held_back}");
    assert!(oracle.past.len() > 200, "few attempts: {}", oracle.past.len());
}

async fn ten_thousand_old_invoices_lose_nothing_when_networks_are_set(fixture: impl Fixture) {
    const INVOICES: i64 = 10_000;
    // This test takes long while simulated time stands still; otherwise writes with a deadline would be late.
    const LONG: Duration = Duration::from_secs(600);
    let store = fixture.open().await;
    let rows: Vec<_> = (1..=INVOICES).map(|nth| of_customer(&format!("I{nth}"), nth)).collect();
    for batch in rows.chunks(1000) {
        fixture.pass(LONG).await;
        store.import(batch, PLAIN).await.unwrap();
    }
    fixture.pass(LONG).await;
    // Each of these was declined before classes were recorded.
    let old = claim(&*store, &legacy()).await;
    let refused = |attempt: &Attempt| Settlement::of(attempt, Outcome::Refused, Duration::ZERO, None);
    for batch in old.chunks(500) {
        let settlements: Vec<_> = batch.iter().map(refused).collect();
        store.settle(None, &settlements).await.unwrap();
    }
    fixture.by_hand(
        "UPDATE attempts SET decline_class = NULL; UPDATE customers SET network = 'visa' WHERE id % 2 = 0",
    );
    assert_eq!(store.ages().await.unwrap().overdue, 0);
    fixture.pass(LONG).await;
    let claimed = claim(&*store, &on_its_day()).await;
    assert_eq!(ids(&claimed), (1..=INVOICES).collect::<Vec<_>>(), "none is lost");
    settle(&*store, &claimed[1], Outcome::Refused, decline(DeclineClass::Soft)).await;
    let first = invoice(&*store, 2).await;
    assert_eq!(first.dunning, Some(Dunning::Waiting), "the first day of its ladder, not the end");
    assert_eq!(store.ages().await.unwrap().overdue, 0, "none is exhausted");
}
