//! Declines: the provider's reason for a refusal is recorded with the attempt, and counted by class.

use billing::charge::StartedRun;
use billing::invoice::{AttemptState, Decline, DeclineClass, DeclineCode, Dunning, InvoiceState};
use billing::protocol::key::Key;
use billing::protocol::transition::Outcome;
use billing::provider::answer::Reason;
use billing::run_order::{RunFilter, RunOrder};
use billing::store::{LedgerFact, Repaired};

use crate::provider::{Provider, Reply};
use crate::support::{EngineFixture, LONG, Plan, until};

#[tokio::test]
async fn a_refusal_is_recorded_and_counted_with_the_reason_that_the_provider_gives() {
    let provider = Provider::start(|delivery| match delivery.invoice {
        1 => Reply::refused().because("class=soft; code=insufficient_funds"),
        2 => Reply::refused().because("class=maybe; code=a"),
        3 => Reply::refused(),
        // Not a refusal, so the header means nothing.
        _ => Reply::charged().because("class=hard; code=stolen_card"),
    })
    .await;
    let fixture = EngineFixture::with(4).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    billing.pay().await;
    let attempts = fixture.attempts().await;
    let declines: Vec<_> = attempts.iter().map(|attempt| attempt.decline.clone()).collect();
    let soft = Decline { class: DeclineClass::Soft, code: DeclineCode::new("insufficient_funds") };
    assert_eq!(declines, [Some(soft), Some(Decline::default()), Some(Decline::default()), None]);
    assert_eq!(attempts[3].state, AttemptState::Charged);
    let counted = |class: &str| billing.metric(&format!("billing_declines_total{{class=\"{class}\"}}"));
    assert_eq!(["hard", "fix", "soft", "unknown"].map(counted), [0, 0, 1, 2]);
}

#[tokio::test]
async fn without_keys_the_reason_is_not_believed() {
    let provider =
        Provider::start(|_| Reply::refused().without_echo().because("class=hard; code=stolen_card")).await;
    let fixture = EngineFixture::with(1).await;
    let billing = fixture.open(&provider.url, Plan::none()).await;
    billing.pay().await;
    let attempts = fixture.attempts().await;
    assert_eq!(attempts[0].state, AttemptState::Refused);
    assert_eq!(attempts[0].decline, Some(Decline::default()));
}

#[tokio::test]
async fn the_legacy_pay_call_ignores_the_day_of_a_soft_decline_and_never_repeats_a_hard_one() {
    let provider = Provider::start(|delivery| match (delivery.invoice, delivery.nth) {
        (1, _) => Reply::refused().because("class=soft; code=insufficient_funds"),
        (2, _) => Reply::refused().because("class=hard; code=stolen_card"),
        (3, _) => Reply::refused().because("class=fix; code=expired_card"),
        _ => Reply::refused(),
    })
    .await;
    let fixture = EngineFixture::with(4).await;
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    for _ in 0..3 {
        billing.pay().await;
    }
    let order = RunOrder { filter: RunFilter::keeping_days(), ..RunOrder::default() };
    let StartedRun::Started(started) = billing.engine.begin_run(order).await.unwrap() else { panic!("busy") };
    assert!(billing.engine.wait(started.run, LONG).await.unwrap().finished);
    let sent =
        |invoice: u64| provider.deliveries().iter().filter(|delivery| delivery.invoice == invoice).count();
    assert_eq!([1, 2, 3, 4].map(sent), [3, 1, 1, 4], "an unknown decline is tried by every run");
    assert_eq!(fixture.invoice(2).await.dunning, Some(Dunning::Hard));
    assert_eq!(fixture.invoice(3).await.dunning, Some(Dunning::Fix));
    assert_eq!(fixture.count(InvoiceState::Pending).await, 4, "flags are no states");
}

#[tokio::test]
async fn an_attempt_that_a_repair_forbids_is_voided_and_while_that_fails_the_run_says_so() {
    let provider = Provider::start(|_| Reply::charged()).await;
    let fixture = EngineFixture::with(2).await;
    let claimed = fixture.crash_after_claim(1).await.remove(0);
    let declined = LedgerFact {
        key: Key::new(fixture.store.deployment().await.unwrap(), &claimed.reference, 2),
        reference: Some(claimed.reference),
        customer_id: Some(claimed.customer_id),
        money: Some(claimed.money),
        outcome: Outcome::Refused,
        decline: Some(Decline { class: DeclineClass::Hard, code: None }),
    };
    assert_eq!(fixture.store.repair(&[declined]).await.unwrap(), [Repaired::Adopted]);
    let billing = fixture.open(&provider.url, Plan::keys()).await;
    let run = billing.engine.pay().await.unwrap().run;
    let paid = async || fixture.count(InvoiceState::Paid).await == 1;
    until("the other invoice is charged", paid).await;
    let problem = || billing.engine.last_problem(run).map(|problem| problem.reason);
    until("a void has failed", async || problem() == Some(Reason::NotVoided)).await;
    provider.voids(claimed.key.as_str(), 200);
    assert!(billing.engine.wait(run, LONG).await.unwrap().finished);
    let stored = fixture.store.run(run).await.unwrap().unwrap().problem;
    assert_eq!(stored.map(|problem| problem.reason).as_deref(), Some("not-voided"));
    let states = [AttemptState::Voided, AttemptState::Refused, AttemptState::Charged];
    assert_eq!(fixture.states().await, states, "it was never sent: {:?}", provider.deliveries());
    assert_eq!(fixture.invoice(1).await.dunning, Some(Dunning::Hard));
}
