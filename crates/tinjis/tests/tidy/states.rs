//! docs/reference/states.md: the meaning of each response of the provider, and its effect on an attempt and its
//! invoice, from billing's own functions. Gives examples; decides nothing.

use billing::invoice::{AttemptState, AttentionReason, InvoiceState};
use billing::protocol::transition::{AnswerClass, Idempotency, Outcome, Sent, on_answer};
use billing::provider::Dialect;
use billing::provider::answer::{Reason, RequestFacts, ResponseFacts, judge};

use crate::pages::current;
use crate::tree::none;

const PAGE: &str = "docs/reference/states.md";
const KEY: &str = "bca1897f57e947286a9d2dcb4be588f1";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const HTML: &str = "text/html";

/// The headers of a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    /// The key that was sent, and the ledger id that was seen before.
    Key,
    /// The same headers, and `Not-Executed: true`.
    NotExecuted,
    NoKey,
    AnotherKey,
    AnotherLedger,
    NoLedger,
}

impl With {
    fn as_str(self) -> &'static str {
        match self {
            Self::Key => "our key",
            Self::NotExecuted => "our key, `Not-Executed: true`",
            Self::NoKey => "no key",
            Self::AnotherKey => "another key",
            Self::AnotherLedger => "our key, another `Ledger-Id`",
            Self::NoLedger => "our key, no `Ledger-Id`",
        }
    }
}

/// One response for each reason, and a second one where a similar response means something else.
const RESPONSES: &[(u16, &str, &str, With)] = &[
    (200, JSON, r#"{"result":true}"#, With::Key),
    (200, JSON, r#"{"id":"I1"}"#, With::Key),
    (200, JSON, r#"{"result":false}"#, With::Key),
    (402, JSON, r#"{"id":"I1","error":"refused"}"#, With::Key),
    (400, JSON, r#"{"error":"Invalid Request"}"#, With::Key),
    (410, PROBLEM, r#"{"type":"urn:tinjis:problem:key-voided"}"#, With::Key),
    (422, PROBLEM, r#"{"type":"urn:tinjis:problem:key-reused"}"#, With::Key),
    (409, PROBLEM, r#"{"type":"urn:tinjis:problem:key-in-flight"}"#, With::Key),
    (409, PROBLEM, r#"{"type":"urn:tinjis:problem:reference-charged"}"#, With::Key),
    (403, PROBLEM, r#"{"type":"urn:tinjis:problem:key-foreign"}"#, With::Key),
    (412, PROBLEM, r#"{"type":"urn:tinjis:problem:ledger-mismatch"}"#, With::Key),
    (412, PROBLEM, r#"{"type":"urn:tinjis:problem:deployment-unknown"}"#, With::NotExecuted),
    (412, PROBLEM, r#"{"type":"urn:tinjis:problem:ledger-behind"}"#, With::NotExecuted),
    (429, JSON, "", With::NotExecuted),
    (503, JSON, "", With::NotExecuted),
    (429, JSON, "", With::Key),
    (503, JSON, "", With::Key),
    (500, JSON, r#"{"result":false}"#, With::Key),
    (401, JSON, "{}", With::Key),
    (403, "text/plain", "Forbidden", With::Key),
    (404, HTML, "<html>", With::Key),
    (400, HTML, "<html>", With::Key),
    (301, HTML, "", With::Key),
    (418, JSON, "{}", With::Key),
    (200, JSON, r#"{"result":tr"#, With::Key),
    (200, JSON, r#"{"result":true,"result":false}"#, With::Key),
    (402, JSON, r#"{"result":true}"#, With::Key),
    (200, JSON, r#"{"id":"I2"}"#, With::Key),
    (200, JSON, r#"{"result":true}"#, With::NoKey),
    (200, JSON, r#"{"result":true}"#, With::AnotherKey),
    (200, JSON, r#"{"result":true}"#, With::AnotherLedger),
    (200, JSON, r#"{"result":true}"#, With::NoLedger),
];

/// Calls without a response, with the client's class for them.
const NO_RESPONSE: [(Reason, AnswerClass, &str); 4] = [
    (Reason::NotConnected, AnswerClass::NotSent, "no connection, and no byte was written"),
    (Reason::SendLate, AnswerClass::NotSent, "the time to send was over before a byte was written"),
    (Reason::NoAnswer, AnswerClass::InDoubt, "bytes were written, and no readable response came in time"),
    (
        Reason::NotVoided,
        AnswerClass::InDoubt,
        "the key was to be voided, and no answer says that it is, or how it was settled",
    ),
];

fn class_of((status, content_type, body, with): (u16, &str, &str, With)) -> (AnswerClass, Reason) {
    let request = RequestFacts {
        key: KEY,
        reference: "I1",
        idempotency: Idempotency::Keys,
        ledger: Some("ours"),
        dialect: Dialect::Default,
    };
    let key = match with {
        With::NoKey => None,
        With::AnotherKey => Some("another"),
        _ => Some(KEY),
    };
    let ledger = match with {
        With::NoLedger => None,
        With::AnotherLedger => Some("another"),
        _ => Some("ours"),
    };
    let not_executed = with == With::NotExecuted;
    let content_type = Some(content_type);
    let verdict = judge(
        &request,
        &ResponseFacts { status, content_type, body: body.as_bytes(), key, ledger, not_executed },
    );
    (verdict.class, verdict.reason)
}

/// The name of a class on these pages.
fn name(class: AnswerClass) -> &'static str {
    match class {
        AnswerClass::Charged => "charged",
        AnswerClass::Refused => "refused",
        AnswerClass::Invalid => "invalid",
        AnswerClass::Voided => "voided",
        AnswerClass::KeyReused => "key reused",
        AnswerClass::EndpointWrong { not_executed: true } => "endpoint wrong, not executed",
        AnswerClass::EndpointWrong { not_executed: false } => "endpoint wrong",
        AnswerClass::Unkeyed => "unkeyed",
        AnswerClass::InDoubt => "in doubt",
        AnswerClass::NotSent => "not sent",
    }
}

/// The states after an outcome: of the attempt, then of the invoice, with the reason where an operator is needed.
fn states(outcome: Outcome) -> String {
    let attempt = outcome.attempt().map_or("as before", AttemptState::as_str);
    let reason = outcome.attention().map_or(String::new(), |reason| format!(" (`{}`)", reason.as_str()));
    format!("{attempt}, {}{reason}", outcome.invoice().as_str())
}

fn invoice_state(state: InvoiceState) -> &'static str {
    match state {
        InvoiceState::Pending => {
            "nothing is under way; a run attempts it, unless a hold or a decline keeps it back"
        }
        InvoiceState::Charging => "one attempt is open",
        InvoiceState::Paid => "charged, imported as paid, or resolved as charged",
        InvoiceState::Attention => "an operator must decide; `attention_reason` says why",
        InvoiceState::Cancelled => {
            "cancelled by an operator; only a late charge ends it (ATTENTION); the legacy APIs do not show it"
        }
    }
}

fn attempt_state(state: AttemptState) -> &'static str {
    match state {
        AttemptState::Intent => "open: it is in the journal, and its request may have left",
        AttemptState::InDoubt => "open: a request left, and no definite response came",
        AttemptState::Charged => "final: the provider charged this key",
        AttemptState::Refused => "final: the provider refused this key; not charged",
        AttemptState::Rejected => "final: the provider called the first request invalid; not charged",
        AttemptState::Voided => "final: the provider will never charge this key",
    }
}

fn page() -> String {
    let mut lines = vec!["## Invoices\n".to_owned(), "| state | meaning |\n| --- | --- |".to_owned()];
    let row = |state: &str, text: &str| format!("| {state} | {text} |");
    lines.extend(InvoiceState::ALL.iter().map(|state| row(state.as_str(), invoice_state(*state))));
    lines.push("\n## Attempts\n\n| state | meaning |\n| --- | --- |".to_owned());
    lines.extend(AttemptState::ALL.iter().map(|state| row(state.as_str(), attempt_state(*state))));
    lines.push("\n## Responses\n".to_owned());
    lines.push(
        "| status | body | comes with | reason in logs | class |\n| --- | --- | --- | --- | --- |".to_owned(),
    );
    for &(status, content_type, body, with) in RESPONSES {
        let (class, reason) = class_of((status, content_type, body, with));
        let body = if body.is_empty() { "empty".to_owned() } else { format!("`{body}`") };
        lines.push(format!(
            "| {status} | {body} | {} | `{}` | {} |",
            with.as_str(),
            reason.as_str(),
            name(class)
        ));
    }
    for (reason, class, text) in NO_RESPONSE {
        lines.push(format!("| – | {text} | – | `{}` | {} |", reason.as_str(), name(class)));
    }
    lines.push("\n## Outcomes\n".to_owned());
    lines.push(
        "| class | first send, keys | resend, keys | first send, no keys |\n| --- | --- | --- | --- |"
            .to_owned(),
    );
    let first = Sent { state: AttemptState::Intent, sends: 1 };
    let resend = Sent { state: AttemptState::InDoubt, sends: 2 };
    for &class in AnswerClass::ALL {
        let of = |idempotency, sent| states(on_answer(idempotency, sent, class));
        lines.push(format!(
            "| {} | {} | {} | {} |",
            name(class),
            of(Idempotency::Keys, first),
            of(Idempotency::Keys, resend),
            of(Idempotency::None, first)
        ));
    }
    lines.push("\n## Why an operator is needed\n".to_owned());
    let reasons = AttentionReason::ALL.iter().map(|reason| format!("`{}`", reason.as_str()));
    lines.push(format!(
        "`attention_reason` is one of {}. [Runbook](../how-to/runbook.md) says what to do about each.",
        reasons.collect::<Vec<_>>().join(", ")
    ));
    lines.join("\n")
}

#[test]
fn the_page_of_states_is_what_billing_decides() {
    current(PAGE, &page());
}

#[test]
fn every_reason_of_a_response_has_an_example() {
    let shown: Vec<Reason> = RESPONSES.iter().map(|response| class_of(*response).1).collect();
    let is_shown = |reason: &Reason| shown.contains(reason) || NO_RESPONSE.iter().any(|row| row.0 == *reason);
    let missing = Reason::ALL.iter().filter(|reason| !is_shown(reason));
    none(
        "a reason without an example",
        &missing.map(|reason| reason.as_str().to_owned()).collect::<Vec<_>>(),
    );
}
