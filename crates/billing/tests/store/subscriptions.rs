//! The store's contract for subscriptions, for their schedule and for runs that claim some invoices, for every kind of
//! store.

use std::time::Duration;

use billing::customer::{CustomerName, numbers};
use billing::invoice::{CustomerId, Invoice, InvoiceId, InvoiceState, Run};
use billing::money::Currency;
use billing::protocol::transition::Outcome;
use billing::run_order::{RunFilter, RunLimits, RunOrder};
use billing::schedule::calendar::{DATE_MAX, periods};
use billing::schedule::run::{ScheduleRunState, Sum};
use billing::schedule::{Holidays, Price, zone_data_version};
use billing::store::subscriptions::{
    GenerateBatch, ScheduleDecision, SubscriptionChange, SubscriptionChanged, SubscriptionImported,
};
use billing::store::{OpenedRun, Store};
use billing::subscription::{Change, NewSubscription, RawFields, Subscription, SubscriptionState};
use jiff::civil::{Date, date};

use crate::fixture::{Fixture, LEASE, PLAIN, imported, reference, row, settle};

cases! {
    a_subscription_is_imported_once,
    a_price_that_an_operator_set_is_not_what_a_file_is_compared_with,
    a_customer_named_by_a_reference_is_made_once_and_is_no_other,
    each_due_period_is_invoiced_once_and_as_the_calendar_says,
    only_the_latest_due_period_is_invoiced_if_so_asked,
    an_operators_change_decides_about_the_next_periods_and_is_kept,
    a_reference_that_another_invoice_has_is_left_as_it_is,
    a_schedule_run_is_one_row_for_each_date,
    a_scheduled_run_claims_each_invoice_of_a_subscription_once_and_no_other,
    the_schedule_begins_no_run_for_what_waits_for_its_turn,
    limits_of_a_run_hold_over_its_claims,
    a_run_of_some_invoices_is_joined_only_by_the_same,
    an_invoice_may_be_cancelled_by_the_schema,
}

const FIELDS: RawFields<'static> = RawFields {
    reference: Some("S1"),
    customer_id: Some("1"),
    customer_reference: None,
    currency: Some("EUR"),
    amount: Some("9.90"),
    prices: None,
    anchor_day: Some("31"),
    every_months: None,
    zone: Some("Europe/Copenhagen"),
    at: None,
    starts_on: Some("2023-01-31"),
    ends_on: None,
    holidays: None,
};

fn subscription(change: impl FnOnce(&mut RawFields<'static>)) -> NewSubscription {
    let mut fields = FIELDS;
    change(&mut fields);
    NewSubscription::read(&fields, &Holidays::default()).unwrap()
}

async fn created(store: &dyn Store, new: &NewSubscription) {
    let answers = store.import_subscriptions(std::slice::from_ref(new), false).await.unwrap();
    assert_eq!(answers, [SubscriptionImported::Created]);
}

async fn stored(store: &dyn Store, name: &str) -> Subscription {
    store.subscription(&reference(name)).await.unwrap().unwrap()
}

async fn changed(store: &dyn Store, name: &str, change: Change) -> SubscriptionChanged {
    let change = SubscriptionChange { change, reason: "asked".to_owned(), actor: "ann".to_owned() };
    store.change_subscription(&reference(name), &change, &Holidays::default()).await.unwrap()
}

/// Invoices everything that is due, date by date; returns the dates on which something was invoiced or skipped.
async fn generated(store: &dyn Store, latest_until: Option<Date>) -> Vec<Date> {
    let (mut after, mut dates) = (None, Vec::new());
    while let Some(due) = store.next_due_date(after).await.unwrap() {
        after = Some(due.on);
        let batch = GenerateBatch { on: due.on, limit: 2, latest_until, holidays: &Holidays::default() };
        let mut taken = 0;
        loop {
            let generated = store.generate(&batch).await.unwrap();
            taken += generated.taken;
            if generated.taken == 0 {
                break;
            }
        }
        if taken == 0 {
            break;
        }
        dates.push(due.on);
    }
    dates
}

async fn invoices(store: &dyn Store) -> Vec<Invoice> {
    store.invoices(None, InvoiceId(i64::MIN), 1000).await.unwrap()
}

async fn references(store: &dyn Store) -> Vec<String> {
    invoices(store).await.iter().map(|invoice| invoice.reference.as_str().to_owned()).collect()
}

async fn a_subscription_is_imported_once(fixture: impl Fixture) {
    let store = fixture.open().await;
    let (first, other) = (subscription(|_| ()), subscription(|fields| fields.amount = Some("1")));
    let foreign = subscription(|fields| (fields.reference, fields.currency) = (Some("S2"), Some("USD")));
    let batch = [first.clone(), first.clone(), other.clone(), foreign];
    let expected = [
        SubscriptionImported::Created,
        SubscriptionImported::Unchanged,
        SubscriptionImported::Differs,
        SubscriptionImported::CurrencyMismatch(Currency::EUR),
    ];
    assert_eq!(store.import_subscriptions(&batch, true).await.unwrap(), expected);
    assert!(store.subscriptions(None, 0, 10).await.unwrap().is_empty(), "a dry run");
    assert_eq!(store.import_subscriptions(&batch, false).await.unwrap(), expected);
    let again = store.import_subscriptions(&[first.clone(), other], false).await.unwrap();
    assert_eq!(again, [SubscriptionImported::Unchanged, SubscriptionImported::Differs]);
    drop(store);
    let store = fixture.open().await;
    let known = stored(&*store, "S1").await;
    assert_eq!((&known.terms, &known.prices, known.next), (&first.terms, &first.prices, first.next));
    assert_eq!((known.state, known.last_on), (SubscriptionState::Active, None));
    assert_eq!(known.created_at, fixture.now_ms());
    assert_eq!(store.customer(CustomerId(1)).await.unwrap().unwrap().currency, Currency::EUR);
    assert!(store.subscriptions(Some(SubscriptionState::Paused), 0, 10).await.unwrap().is_empty());
    assert_eq!(store.subscriptions(Some(SubscriptionState::Active), 0, 10).await.unwrap(), [known]);
}

async fn a_price_that_an_operator_set_is_not_what_a_file_is_compared_with(fixture: impl Fixture) {
    let store = fixture.open().await;
    let (first, other) = (subscription(|_| ()), subscription(|fields| fields.amount = Some("1")));
    let named = |name| subscription(|fields| fields.reference = Some(name));
    let batch = [first.clone(), named("S2")];
    let created = [SubscriptionImported::Created; 2];
    assert_eq!(store.import_subscriptions(&batch, false).await.unwrap(), created);
    let known = [other.clone(), first.clone()];
    let expected = [SubscriptionImported::Differs, SubscriptionImported::Unchanged];
    assert_eq!(store.import_subscriptions(&known, false).await.unwrap(), expected);
    for amount_minor in [1100, 1290] {
        let price = Price { from: date(2023, 1, 31), amount_minor };
        assert!(matches!(
            changed(&*store, "S1", Change::Price(price)).await,
            SubscriptionChanged::Applied(_)
        ));
    }
    assert_eq!(
        store.import_subscriptions(&batch, false).await.unwrap(),
        [SubscriptionImported::Unchanged; 2]
    );
    assert_eq!(stored(&*store, "S1").await.prices.on(date(2023, 1, 31)), Some(1290), "the operator's stays");
    let dated = subscription(|fields| {
        (fields.amount, fields.prices) = (None, Some(vec![("2023-01-31", "9.90"), ("2023-03-01", "1.00")]));
    });
    let second = subscription(|fields| (fields.reference, fields.amount) = (Some("S2"), Some("1")));
    let differs = store.import_subscriptions(&[dated, second], false).await.unwrap();
    assert_eq!(
        differs,
        [SubscriptionImported::Differs; 2],
        "a date that is not known, and a price that no operator set"
    );
}

async fn a_customer_named_by_a_reference_is_made_once_and_is_no_other(fixture: impl Fixture) {
    let store = fixture.open().await;
    let named = |name: &'static str, customer: &'static str, currency: &'static str| {
        subscription(|fields| {
            (fields.reference, fields.customer_id) = (Some(name), None);
            (fields.customer_reference, fields.currency) = (Some(customer), Some(currency));
        })
    };
    let acme = numbers(&reference("acme"));
    // A customer of another source that existed before the reference was known: its number is not given again.
    let foreign = NewSubscription { customer: CustomerName::Id(acme[0]), ..subscription(|_| ()) };
    created(&*store, &foreign).await;
    let batch = [named("S2", "acme", "EUR"), named("S3", "acme", "EUR"), named("S4", "other", "USD")];
    let made = [SubscriptionImported::Created; 3];
    assert_eq!(store.import_subscriptions(&batch, true).await.unwrap(), made);
    assert_eq!(store.import_subscriptions(&batch, false).await.unwrap(), made);
    assert_eq!(
        store.import_subscriptions(&batch, false).await.unwrap(),
        [SubscriptionImported::Unchanged; 3]
    );
    let others = [
        named("S2", "other", "USD"),
        named("S5", "acme", "USD"),
        subscription(|fields| fields.reference = Some("S2")),
    ];
    let expected = [
        SubscriptionImported::Differs,
        SubscriptionImported::CurrencyMismatch(Currency::EUR),
        SubscriptionImported::Differs,
    ];
    assert_eq!(store.import_subscriptions(&others, false).await.unwrap(), expected);
    drop(store);
    let store = fixture.open().await;
    for (name, customer, id) in [
        ("S1", None, acme[0]),
        ("S2", Some("acme"), acme[1]),
        ("S3", Some("acme"), acme[1]),
        ("S4", Some("other"), numbers(&reference("other"))[0]),
    ] {
        let known = stored(&*store, name).await;
        let shown = known.customer_reference.as_ref().map(|reference| reference.as_str());
        assert_eq!((shown, known.customer_id), (customer, id), "{name}");
    }
    assert_eq!(store.customers(CustomerId(i64::MIN), 10).await.unwrap().len(), 3);
}

async fn each_due_period_is_invoiced_once_and_as_the_calendar_says(fixture: impl Fixture) {
    let store = fixture.open().await;
    let zones = [("S1", "Europe/Copenhagen"), ("S2", "Pacific/Apia"), ("S3", "America/New_York")];
    for (name, zone) in zones {
        let new = subscription(|fields| (fields.reference, fields.zone) = (Some(name), Some(zone)));
        created(&*store, &new).await;
    }
    let price = Price { from: date(2023, 4, 30), amount_minor: 1290 };
    assert!(matches!(changed(&*store, "S2", Change::Price(price)).await, SubscriptionChanged::Applied(_)));
    let dates = generated(&*store, None).await;
    assert_eq!(dates.len(), 10, "January to October: {dates:?}");
    assert!(dates.is_sorted());
    let mut expected = Vec::new();
    for (name, _) in zones {
        let subscription = stored(&*store, name).await;
        assert_eq!(subscription.next.unwrap().on, date(2023, 11, 30));
        assert_eq!(subscription.last_on, Some(date(2023, 10, 31)));
        let none = Holidays::default();
        for period in periods(&subscription.terms, &none, date(2023, 1, 1), DATE_MAX).take(10) {
            let amount = subscription.prices.on(period.on).unwrap();
            let (due, charge) = (period.instant.unix_ms(), period.charge_instant.unix_ms());
            expected.push((format!("{name}@{}", period.on), amount, due, charge));
        }
    }
    expected.sort();
    let made = invoices(&*store).await;
    let mut rows: Vec<_> = made
        .iter()
        .map(|invoice| {
            let amount = invoice.money.amount_minor;
            (
                invoice.reference.as_str().to_owned(),
                amount,
                invoice.due_at.unwrap(),
                invoice.next_attempt_at.unwrap(),
            )
        })
        .collect();
    rows.sort();
    assert_eq!(rows, expected);
    assert_eq!(rows.iter().filter(|(_, amount, ..)| *amount == 1290).count(), 7, "S2 from April on");
    assert_eq!(store.counts().await.unwrap().pending, 30);
    assert!(generated(&*store, None).await.is_empty(), "again");
    assert_eq!(invoices(&*store).await.len(), 30);
    let month_later = Duration::from_secs(17 * 24 * 60 * 60);
    fixture.pass(month_later).await;
    assert_eq!(generated(&*store, None).await, [date(2023, 11, 30)]);
    assert_eq!(invoices(&*store).await.len(), 33);
}

async fn only_the_latest_due_period_is_invoiced_if_so_asked(fixture: impl Fixture) {
    let store = fixture.open().await;
    created(&*store, &subscription(|_| ())).await;
    generated(&*store, Some(Date::MAX)).await;
    assert_eq!(references(&*store).await, ["S1@2023-10-31"]);
    assert_eq!(stored(&*store, "S1").await.next.unwrap().on, date(2023, 11, 30));
    // A later period that is not requested now replaces no earlier one.
    created(&*store, &subscription(|fields| fields.reference = Some("S2"))).await;
    generated(&*store, Some(date(2023, 9, 30))).await;
    assert_eq!(references(&*store).await, ["S1@2023-10-31", "S2@2023-09-30", "S2@2023-10-31"]);
}

async fn an_operators_change_decides_about_the_next_periods_and_is_kept(fixture: impl Fixture) {
    let store = fixture.open().await;
    created(&*store, &subscription(|fields| fields.starts_on = Some("2023-09-30"))).await;
    assert!(matches!(changed(&*store, "S1", Change::Pause).await, SubscriptionChanged::Applied(_)));
    assert!(generated(&*store, None).await.is_empty(), "a paused one has no periods");
    let SubscriptionChanged::Refused(field, _) = changed(&*store, "S1", Change::Pause).await else {
        panic!("it is paused already");
    };
    assert_eq!(field, "state");
    let resume = Change::Resume { from: Some(date(2023, 10, 1)) };
    assert!(matches!(changed(&*store, "S1", resume).await, SubscriptionChanged::Applied(_)));
    generated(&*store, None).await;
    assert_eq!(references(&*store).await, ["S1@2023-10-31"], "September was in the pause");
    let early = Change::End { on: Some(date(2023, 10, 30)) };
    assert!(matches!(changed(&*store, "S1", early).await, SubscriptionChanged::Refused("ends_on", _)));
    assert!(matches!(
        changed(&*store, "S1", Change::End { on: None }).await,
        SubscriptionChanged::Applied(_)
    ));
    fixture.pass(Duration::from_secs(40 * 24 * 60 * 60)).await;
    assert!(generated(&*store, None).await.is_empty(), "an ended one has no periods");
    assert_eq!(changed(&*store, "S9", Change::Pause).await, SubscriptionChanged::Unknown);
    let actions = store.subscription_actions(&reference("S1"), 0, 10).await.unwrap();
    let kept: Vec<_> = actions.iter().map(|row| (&*row.action, row.detail.as_deref(), &*row.actor)).collect();
    let expected = [
        ("subscription-pause", None, "ann"),
        ("subscription-resume", Some("2023-10-01"), "ann"),
        ("subscription-end", None, "ann"),
    ];
    assert_eq!(kept, expected);
    assert!(actions.iter().all(|row| row.reason == "asked" && row.subject == "S1"));
}

async fn a_reference_that_another_invoice_has_is_left_as_it_is(fixture: impl Fixture) {
    let store = fixture.open().await;
    let rows = [row("S1@2023-09-30", 990), row("S1@2023-10-31", 991)];
    store.import(&rows, PLAIN).await.unwrap();
    created(&*store, &subscription(|fields| fields.starts_on = Some("2023-08-31"))).await;
    let mut skipped = 0;
    for on in [date(2023, 8, 31), date(2023, 9, 30), date(2023, 10, 31)] {
        let none = Holidays::default();
        let batch = GenerateBatch { on, limit: 10, latest_until: None, holidays: &none };
        skipped += store.generate(&batch).await.unwrap().skipped;
    }
    assert_eq!(skipped, 1, "the one with another amount");
    assert_eq!(references(&*store).await, ["S1@2023-09-30", "S1@2023-10-31", "S1@2023-08-31"]);
    assert_eq!(invoices(&*store).await[1].money.amount_minor, 991);
    assert_eq!(store.counts().await.unwrap().pending, 3);
}

async fn a_schedule_run_is_one_row_for_each_date(fixture: impl Fixture) {
    let store = fixture.open().await;
    for name in ["S1", "S2"] {
        created(&*store, &subscription(|fields| fields.reference = Some(name))).await;
    }
    let on = date(2023, 1, 31);
    let left = store.left_on(on).await.unwrap();
    assert_eq!(left[&Currency::EUR], Sum { count: 2, amount_minor: 1980 });
    let decision = |state, confirmed_by| ScheduleDecision {
        on,
        state,
        reason: None,
        planned: left.clone(),
        confirmed_by,
    };
    store.put_schedule_run(&decision(ScheduleRunState::Running, Some("ann".to_owned()))).await.unwrap();
    let none = Holidays::default();
    let batch = GenerateBatch { on, limit: 10, latest_until: None, holidays: &none };
    assert_eq!(store.generate(&batch).await.unwrap().invoices, 2);
    store.put_schedule_run(&decision(ScheduleRunState::Finished, None)).await.unwrap();
    let runs = store.schedule_runs(None, None, 10).await.unwrap();
    let [run] = runs.as_slice() else { panic!("one row, not {runs:?}") };
    assert_eq!((run.period_on, run.state, run.invoices), (on, ScheduleRunState::Finished, 2));
    assert_eq!((run.confirmed_by.as_deref(), &*run.zone_data), (Some("ann"), zone_data_version()));
    assert_eq!(run.planned, left);
    let due_ms = invoices(&*store).await[0].next_attempt_at.unwrap();
    assert_eq!(run.late_ms, fixture.now_ms() - due_ms);
    assert!(store.schedule_runs(Some(ScheduleRunState::Waiting), None, 10).await.unwrap().is_empty());
    assert!(store.schedule_runs(None, Some(on), 10).await.unwrap().is_empty());
}

async fn opened(store: &dyn Store, order: &RunOrder) -> Run {
    match store.open_ordered_run(order, LEASE).await.unwrap() {
        OpenedRun::Started(run) => run,
        other => panic!("not started: {other:?}"),
    }
}

async fn a_scheduled_run_claims_each_invoice_of_a_subscription_once_and_no_other(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    assert_eq!(store.next_attempt_at().await.unwrap(), None);
    created(&*store, &subscription(|fields| fields.starts_on = Some("2023-10-31"))).await;
    generated(&*store, None).await;
    assert!(store.next_attempt_at().await.unwrap().unwrap() <= store.now_ms().await.unwrap());
    let run = opened(&*store, &RunOrder::scheduled()).await;
    assert!(run.order.filter.scheduled);
    let claimed = store.claim_in_turn(run.id, InvoiceId(0), 10, LEASE).await.unwrap().attempts;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].reference.as_str(), "S1@2023-10-31");
    settle(&*store, Some(&run), &claimed[0].key, Outcome::Refused).await;
    assert_eq!(store.next_attempt_at().await.unwrap(), None, "a declined one waits for a run of all");
    assert!(store.finish_run(run.id, 0).await.unwrap());
    let run = opened(&*store, &RunOrder::scheduled()).await;
    assert!(store.claim_in_turn(run.id, InvoiceId(0), 10, LEASE).await.unwrap().attempts.is_empty());
    assert!(store.finish_run(run.id, 0).await.unwrap());
    let run = opened(&*store, &RunOrder::default()).await;
    assert_eq!(
        store.claim_in_turn(run.id, InvoiceId(0), 10, LEASE).await.unwrap().attempts.len(),
        4,
        "all that is due"
    );
}

async fn the_schedule_begins_no_run_for_what_waits_for_its_turn(fixture: impl Fixture) {
    let store = fixture.open().await;
    for name in ["S1", "S2"] {
        let new = subscription(|fields| {
            (fields.reference, fields.starts_on) = (Some(name), Some("2023-10-31"));
        });
        created(&*store, &new).await;
    }
    generated(&*store, None).await;
    fixture.by_hand("UPDATE customers SET network = 'visa'");
    let run = opened(&*store, &RunOrder::scheduled()).await;
    for _ in 0..2 {
        assert!(store.next_attempt_at().await.unwrap().is_some());
        let claimed = store.claim_in_turn(run.id, InvoiceId(0), 10, LEASE).await.unwrap().attempts;
        assert_eq!(claimed.len(), 1);
        settle(&*store, Some(&run), &claimed[0].key, Outcome::InDoubt(None)).await;
        assert_eq!(store.next_attempt_at().await.unwrap(), None);
        settle(&*store, Some(&run), &claimed[0].key, Outcome::Charged).await;
    }
    assert_eq!(store.counts().await.unwrap().paid, 2);
}

async fn limits_of_a_run_hold_over_its_claims(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 6).await;
    let limits = RunLimits { count: Some(4), amounts: Some([(Currency::EUR, 3 * 1215)].into()) };
    let filter = RunFilter { reference_prefix: Some("I".to_owned()), ..RunFilter::default() };
    let order = RunOrder { filter, limits, reason: Some("a trial".to_owned()) };
    let run = opened(&*store, &order).await;
    assert_eq!(run.order, order);
    let first = store.claim_in_turn(run.id, InvoiceId(0), 2, LEASE).await.unwrap().attempts;
    let rest = store.claim_in_turn(run.id, first[1].invoice_id, 10, LEASE).await.unwrap().attempts;
    assert_eq!((first.len(), rest.len()), (2, 1), "three fit the amount");
    assert!(store.claim_in_turn(run.id, rest[0].invoice_id, 10, LEASE).await.unwrap().attempts.is_empty());
    let left = store.run(run.id).await.unwrap().unwrap().order.limits;
    assert_eq!(left, RunLimits { count: Some(1), amounts: Some([(Currency::EUR, 0)].into()) });
    let listed = store.runs(billing::invoice::RunId(0), 10).await.unwrap();
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [run.id]);
}

async fn a_run_of_some_invoices_is_joined_only_by_the_same(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let scheduled = RunOrder::scheduled();
    let run = opened(&*store, &scheduled).await;
    let again = store.open_ordered_run(&scheduled, LEASE).await.unwrap();
    assert!(matches!(again, OpenedRun::Joined(joined) if joined.id == run.id));
    let all = RunOrder::default();
    assert_eq!(store.open_ordered_run(&all, LEASE).await.unwrap(), OpenedRun::Busy(run.id));
    assert!(store.finish_run(run.id, 1).await.unwrap());
    let run = opened(&*store, &all).await;
    let joined = store.open_ordered_run(&scheduled, LEASE).await.unwrap();
    assert!(
        matches!(joined, OpenedRun::Joined(joined) if joined.id == run.id),
        "a run of all charges these too"
    );
    let limited = RunOrder { limits: RunLimits { count: Some(1), amounts: None }, ..all };
    assert_eq!(store.open_ordered_run(&limited, LEASE).await.unwrap(), OpenedRun::Busy(run.id));
}

async fn an_invoice_may_be_cancelled_by_the_schema(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    fixture.by_hand("UPDATE invoices SET state = 'CANCELLED' WHERE reference = 'I1'");
    let pending = store.invoices(Some(InvoiceState::Pending), InvoiceId(0), 10).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(store.counts().await.unwrap().pending, 1);
}
