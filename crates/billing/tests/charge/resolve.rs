//! An operator's decision on an attempt in doubt.

use std::time::Duration;

use billing::charge::{REQUEST_LIFE_MAX, ResolveError, ResolveOutcome};
use billing::invoice::{AttemptState, Decline, DeclineClass, DeclineCode, Dunning, InvoiceState, PaidBy};
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::Resolution;
use chassis::clock::Clock;

use crate::provider::{Provider, Reply};
use crate::support::{Billing, EngineFixture, Plan, until};

fn word(fixture: &billing::invoice::Attempt, charged: bool, reason: &str) -> Resolution {
    Resolution { key: fixture.key.clone(), charged, reason: reason.to_owned(), actor: "anna".to_owned() }
}

async fn in_doubt(plan: Plan, provider: &Provider) -> (EngineFixture, Billing, billing::invoice::Attempt) {
    let fixture = EngineFixture::with(1).await;
    let billing = fixture.open(&provider.url, plan).await;
    billing.engine.pay().await.unwrap();
    until("it is in doubt", async || fixture.states().await == [AttemptState::InDoubt]).await;
    let attempt = fixture.attempts().await.remove(0);
    (fixture, billing, attempt)
}

#[tokio::test]
async fn not_charged_is_believed_only_once_the_key_is_void() {
    let provider = Provider::start(|_| Reply::new(409, "")).await;
    let (fixture, billing, attempt) = in_doubt(Plan::keys(), &provider).await;
    let resolve = async || billing.engine.resolve(word(&attempt, false, "seen")).await;
    assert!(matches!(resolve().await, Err(ResolveError::NotVoided(_))));
    provider.voids(attempt.key.as_str(), 409);
    assert!(matches!(resolve().await, Err(ResolveError::ChargedThere)));
    assert_eq!(fixture.states().await, [AttemptState::InDoubt]);
    provider.voids(attempt.key.as_str(), 200);
    assert!(matches!(resolve().await, Ok(ResolveOutcome::Applied)));
    assert_eq!(fixture.states().await[0], AttemptState::Voided);
    assert!(matches!(resolve().await, Ok(ResolveOutcome::Final(AttemptState::Voided))));
}

#[tokio::test]
async fn charged_is_believed_at_once() {
    let provider = Provider::start(|_| Reply::new(409, "")).await;
    let (fixture, billing, attempt) = in_doubt(Plan::none(), &provider).await;
    let outcome = billing.engine.resolve(word(&attempt, true, "")).await.unwrap();
    assert_eq!(outcome, ResolveOutcome::Applied);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 1);
}

#[tokio::test]
async fn without_keys_not_charged_waits_until_no_request_can_be_alive() {
    let provider = Provider::start(|_| Reply::charged().lost()).await;
    let (fixture, billing, attempt) = in_doubt(Plan::none(), &provider).await;
    let resolve = async |reason| billing.engine.resolve(word(&attempt, false, reason)).await;
    assert!(matches!(resolve(" ").await, Err(ResolveError::ReasonMissing)));
    let Err(ResolveError::TooEarly(left)) = resolve("not in the books").await else { panic!("too soon") };
    assert!(left <= REQUEST_LIFE_MAX && left > REQUEST_LIFE_MAX - Duration::from_secs(60), "{left:?}");
    let earlier = i64::try_from(REQUEST_LIFE_MAX.as_millis()).unwrap();
    fixture.spoil(&format!(
        "UPDATE attempts SET created_at = created_at - {earlier}; UPDATE invoices SET updated_at = updated_at - {earlier}"
    ));
    assert!(matches!(resolve("not in the books").await, Ok(ResolveOutcome::Applied)));
    assert_eq!(fixture.states().await, [AttemptState::Voided]);
    assert_eq!(fixture.count(InvoiceState::Pending).await, 1);
}

#[tokio::test]
async fn without_keys_a_process_whose_clock_is_ahead_believes_not_charged_no_earlier() {
    const AHEAD_MS: i64 = 17 * 60 * 1000;
    let provider = Provider::start(|_| Reply::charged().lost()).await;
    let mut fixture = EngineFixture::with(1).await;
    fixture.clock = Clock::simulated(fixture.clock.now_ms() + AHEAD_MS);
    let billing = fixture.open(&provider.url, Plan::none()).await;
    billing.pay().await;
    let attempt = fixture.attempts().await.remove(0);
    let decided = billing.engine.resolve(word(&attempt, false, "not in the books")).await;
    assert!(matches!(decided, Err(ResolveError::TooEarly(_))), "{decided:?}");
    assert_eq!(fixture.count(InvoiceState::Attention).await, 1);
    billing.pay().await;
    assert_eq!(provider.deliveries().len(), 1);
}

#[tokio::test]
async fn a_rejected_invoice_is_tried_again_under_a_new_key_once_an_operator_decides_so() {
    let provider = Provider::start(|_| Reply::new(400, r#"{"error":"Invalid Request"}"#)).await;
    let fixture = EngineFixture::with(1).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    assert_eq!(fixture.states().await, [AttemptState::Rejected]);
    provider.now(|_| Reply::charged());
    let attempt = fixture.attempts().await.remove(0);
    let outcome = billing.engine.resolve(word(&attempt, false, "they know the customer now")).await;
    assert!(matches!(outcome, Ok(ResolveOutcome::Applied)));
    billing.pay().await;
    assert_eq!(fixture.states().await, [AttemptState::Rejected, AttemptState::Charged]);
    assert_eq!(fixture.count(InvoiceState::Paid).await, 1);
}

#[tokio::test]
async fn a_second_charge_is_taken_as_not_charged_once_it_is_paid_back() {
    let provider = Provider::start(|_| Reply::refused()).await;
    let fixture = EngineFixture::with(1).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    provider.now(|_| Reply::new(409, ""));
    billing.engine.pay().await.unwrap();
    let refused_and_in_doubt = [AttemptState::Refused, AttemptState::InDoubt];
    until("the second is in doubt", async || fixture.states().await == refused_and_in_doubt).await;
    let attempts = fixture.attempts().await;
    let late = Settlement::of(&attempts[0], Outcome::Charged, Duration::ZERO, None);
    fixture.store.settle(None, &[late]).await.unwrap();
    provider.voids(attempts[1].key.as_str(), 409);
    let resolve = async |charged, reason| billing.engine.resolve(word(&attempts[1], charged, reason)).await;
    assert!(matches!(resolve(true, "seen").await, Err(ResolveError::OtherCharged)));
    assert!(matches!(resolve(false, " ").await, Err(ResolveError::ReasonMissing)));
    assert!(matches!(resolve(false, "paid back").await, Ok(ResolveOutcome::Applied)));
    assert_eq!(fixture.states().await, [AttemptState::Charged, AttemptState::Voided]);
    assert_eq!(fixture.invoice(1).await.paid_by, Some(PaidBy::Charge));
}

#[tokio::test]
async fn a_decline_that_a_void_finds_restricts_further_attempts() {
    let provider = Provider::start(|_| Reply::refused().lost()).await;
    let fixture = EngineFixture::with(2).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.engine.pay().await.unwrap();
    let in_doubt = [AttemptState::InDoubt; 2];
    until("both are in doubt", async || fixture.states().await == in_doubt).await;
    let attempts = fixture.attempts().await;
    provider.had_refused(attempts[0].key.as_str(), "hard", "stolen_card");
    provider.had_refused(attempts[1].key.as_str(), "a class of tomorrow", "no code");
    for attempt in &attempts {
        let outcome = billing.engine.resolve(word(attempt, false, "seen there")).await;
        assert!(matches!(outcome, Ok(ResolveOutcome::Applied)));
    }
    assert_eq!(fixture.states().await, [AttemptState::Refused; 2]);
    let declines: Vec<_> = fixture.attempts().await.into_iter().map(|attempt| attempt.decline).collect();
    let hard = Decline { class: DeclineClass::Hard, code: DeclineCode::new("stolen_card") };
    assert_eq!(declines, [Some(hard), Some(Decline::default())], "what cannot be read says nothing");
    assert_eq!(fixture.invoice(1).await.dunning, Some(Dunning::Hard));
    assert_eq!(fixture.invoice(2).await.dunning, None);
    provider.now(|_| Reply::charged());
    billing.pay().await;
    // The run of the first attempts has ended by now.
    billing.pay().await;
    assert_eq!(fixture.invoice(1).await.state, InvoiceState::Pending, "never again with this instrument");
    assert_eq!(fixture.invoice(2).await.state, InvoiceState::Paid);
}
