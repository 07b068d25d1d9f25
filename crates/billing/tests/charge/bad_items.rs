//! One item that the provider does not accept stops no other item, and needs an operator only while others succeed.

use std::sync::atomic::{AtomicUsize, Ordering};

use billing::charge::suspects::FIRST_FAILURES_MAX;
use billing::charge::{ResolveError, ResolveOutcome};
use billing::invoice::{AttemptState, AttentionReason, InvoiceState};
use billing::store::Resolution;

use crate::provider::{Provider, Reply};
use crate::support::{Billing, EngineFixture, Plan};

const INVOICES: u64 = 60;
const NO_SUCH_CUSTOMER: &str = r#"{"error":"no such customer"}"#;

/// Makes at most four pay calls at a provider that rejects these invoices and charges all others.
async fn paid_but_for(bad: &'static [u64], reply: Reply, plan: Plan) -> (EngineFixture, Billing, Provider) {
    let provider = Provider::start(move |delivery| match bad.contains(&delivery.invoice) {
        true => reply.clone(),
        false => Reply::charged(),
    })
    .await;
    let fixture = EngineFixture::with(usize::try_from(INVOICES).unwrap()).await;
    let billing = fixture.open(&provider.url, plan).await;
    for _ in 0..4 {
        billing.pay().await;
    }
    let paid = i64::try_from(INVOICES).unwrap() - i64::try_from(bad.len()).unwrap();
    assert_eq!(fixture.count(InvoiceState::Paid).await, paid, "each other invoice is paid");
    let sent = provider.invoices();
    for good in (1..=INVOICES).filter(|invoice| !bad.contains(invoice)) {
        assert_eq!(sent.iter().filter(|invoice| **invoice == good).count(), 1, "{good} is sent once");
    }
    (fixture, billing, provider)
}

async fn need_an_operator(fixture: &EngineFixture, bad: &[u64], reason: AttentionReason) {
    for &id in bad {
        let invoice = fixture.invoice(i64::try_from(id).unwrap()).await;
        assert_eq!(
            (invoice.state, invoice.attention_reason),
            (InvoiceState::Attention, Some(reason)),
            "{id}"
        );
    }
    let open = fixture.attempts().await.into_iter().filter(|attempt| attempt.state.is_open());
    assert_eq!(open.count(), bad.len(), "a next attempt needs an operator's decision first");
}

macro_rules! bad_items {
    ($($name:ident: $bad:expr, $status:literal, $body:expr, $plan:expr, $reason:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            const BAD: &[u64] = &$bad;
            let (fixture, _billing, _provider) = paid_but_for(BAD, Reply::new($status, $body), $plan).await;
            need_an_operator(&fixture, BAD, AttentionReason::$reason).await;
        }
    )*};
}

bad_items! {
    the_first_is_unknown: [1], 404, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    the_first_two_are_unknown: [1, 2], 404, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    the_first_three_are_unknown: [1, 2, 3], 404, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    one_in_the_middle_is_unknown: [30], 404, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    three_in_the_middle_are_unknown: [28, 29, 30], 404, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    four_here_and_there_are_unknown: [2, 20, 35, 50], 404, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    the_last_three_are_unknown: [58, 59, 60], 404, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    the_first_three_are_unknown_without_keys: [1, 2, 3], 404, NO_SUCH_CUSTOMER, Plan::none(), InDoubtWithoutKeys;
    the_first_three_are_forbidden: [1, 2, 3], 403, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    the_first_three_are_gone: [1, 2, 3], 410, NO_SUCH_CUSTOMER, Plan::keys(), NotAccepted;
    three_answered_by_a_page: [1, 30, 60], 404, "<html>", Plan::keys(), NotAccepted;
    three_of_an_unknown_status: [1, 30, 60], 451, "", Plan::keys(), NotAccepted;
    ten_in_a_row_one_call_at_a_time:
        [21, 22, 23, 24, 25, 26, 27, 28, 29, 30], 404, NO_SUCH_CUSTOMER, Plan::keys().in_flight_max(1), NotAccepted;
}

#[tokio::test]
async fn what_another_process_left_open_is_tried_behind_what_was_not_sent() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        1..=3 => Reply::new(404, NO_SUCH_CUSTOMER),
        _ => Reply::charged(),
    })
    .await;
    let fixture = EngineFixture::with(60).await;
    fixture.crash_after_claim(3).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 57);
}

#[tokio::test]
async fn an_outage_in_mid_run_sends_no_invoice_to_an_operator_and_all_are_paid_after_it() {
    let calls = AtomicUsize::new(0);
    let provider = Provider::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0..30 => Reply::charged(),
        _ => Reply::new(404, "no"),
    })
    .await;
    let fixture = EngineFixture::with(500).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    for _ in 0..4 {
        billing.pay().await;
    }
    assert_eq!(fixture.count(InvoiceState::Attention).await, 0);
    assert!(provider.deliveries().len() < 100, "{} calls", provider.deliveries().len());
    provider.now(|_| Reply::charged());
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 500);
}

#[tokio::test]
async fn an_outage_that_meets_the_last_invoices_sends_at_most_five_to_an_operator() {
    let calls = AtomicUsize::new(0);
    let provider = Provider::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0..54 => Reply::charged(),
        _ => Reply::new(403, "no"),
    })
    .await;
    let fixture = EngineFixture::with(60).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    for _ in 0..4 {
        billing.pay().await;
    }
    assert!(fixture.count(InvoiceState::Attention).await <= i64::from(FIRST_FAILURES_MAX));
}

#[tokio::test]
async fn an_invoice_that_was_not_accepted_is_charged_again_only_after_its_key_is_voided() {
    let (fixture, billing, provider) =
        paid_but_for(&[7, 8], Reply::new(404, NO_SUCH_CUSTOMER), Plan::keys()).await;
    provider.now(|_| Reply::charged());
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Attention).await, 2, "only an operator's decision ends it");
    let open: Vec<_> =
        fixture.attempts().await.into_iter().filter(|attempt| attempt.state.is_open()).collect();
    let decide = async |at: usize| {
        let key = open[at].key.clone();
        let (reason, actor) = ("the customer exists now".to_owned(), "ann".to_owned());
        billing.engine.resolve(Resolution { key, charged: false, reason, actor }).await
    };
    assert!(matches!(decide(0).await, Err(ResolveError::NotVoided(_))));
    provider.voids(open[0].key.as_str(), 200);
    provider.voids(open[1].key.as_str(), 409);
    assert!(matches!(decide(0).await, Ok(ResolveOutcome::Applied)));
    assert!(matches!(decide(1).await, Err(ResolveError::ChargedThere)));
    billing.pay().await;
    assert_eq!(fixture.count(InvoiceState::Paid).await, 59);
    let of_seven: Vec<_> =
        fixture.attempts().await.into_iter().filter(|attempt| attempt.invoice_id.0 == 7).collect();
    let states: Vec<_> = of_seven.iter().map(|attempt| attempt.state).collect();
    assert_eq!(states, [AttemptState::Voided, AttemptState::Charged]);
}
