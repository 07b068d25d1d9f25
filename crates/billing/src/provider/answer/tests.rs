//! The responses of every known provider, row by row, and responses that almost match a row.

use AnswerClass::{Charged, EndpointWrong, InDoubt, Invalid, KeyReused, NotSent, Refused, Unkeyed, Voided};

use super::*;

const KEY: &str = "bca1897f57e947286a9d2dcb4be588f1";
const WRONG: AnswerClass = EndpointWrong { not_executed: true };
const WRONG_MAYBE_EXECUTED: AnswerClass = EndpointWrong { not_executed: false };
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const HTML: &str = "text/html; charset=utf-8";

/// The headers that the provider sends besides status and body; `Keyed` is our own service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    Keyed,
    NotExecuted,
}
use Mark::{Keyed, NotExecuted};

fn verdict(status: u16, content_type: &str, body: &str, mark: Mark) -> Verdict {
    let request = RequestFacts {
        key: KEY,
        reference: "I1",
        idempotency: Idempotency::Keys,
        ledger: Some("ledger"),
        dialect: Dialect::Default,
    };
    let response = ResponseFacts {
        status,
        content_type: Some(content_type),
        body: body.as_bytes(),
        key: Some(KEY),
        ledger: Some("ledger"),
        not_executed: mark == NotExecuted,
    };
    judge(&request, &response)
}

type Case = (u16, &'static str, &'static str, Mark, AnswerClass, &'static str);

/// The response table, row by row. Columns: status, content type, body, mark; class, reason.
#[rustfmt::skip]
const TABLE: &[Case] = &[
    // Problems of our own ledger.
    (410, PROBLEM, r#"{"type":"urn:tinjis:problem:key-voided"}"#, Keyed, Voided, "key-voided"),
    (422, PROBLEM, r#"{"type":"urn:tinjis:problem:key-reused"}"#, Keyed, KeyReused, "key-reused"),
    (409, PROBLEM, r#"{"type":"urn:tinjis:problem:key-in-flight"}"#, Keyed, InDoubt, "key-in-flight"),
    (409, PROBLEM, r#"{"type":"urn:tinjis:problem:reference-charged","key":null}"#, Keyed, KeyReused, "reference-charged"),
    (403, PROBLEM, r#"{"type":"urn:tinjis:problem:key-foreign"}"#, Keyed, WRONG, "key-foreign"),
    (412, PROBLEM, r#"{"type":"urn:tinjis:problem:ledger-mismatch"}"#, Keyed, WRONG, "ledger-mismatch"),
    (412, PROBLEM, r#"{"type":"urn:tinjis:problem:deployment-unknown"}"#, NotExecuted, WRONG, "deployment-unknown"),
    (412, PROBLEM, r#"{"type":"urn:tinjis:problem:ledger-behind"}"#, NotExecuted, WRONG, "ledger-behind"),
    (400, PROBLEM, r#"{"type":"urn:tinjis:problem:validation"}"#, Keyed, Invalid, "validation"),
    (422, PROBLEM, r#"{"type":"urn:tinjis:problem:validation"}"#, Keyed, Invalid, "validation"),
    (410, PROBLEM, r#"{"type":"urn:tinjis:problem:key-voided","result":false}"#, Keyed, InDoubt, "contradictory"),
    (410, PROBLEM, r#"{"type":"urn:tinjis:problem:key-voided","result":true}"#, Keyed, InDoubt, "contradictory"),
    (410, JSON, r#"{"type":"urn:tinjis:problem:key-voided"}"#, Keyed, InDoubt, "other-status"),
    (422, PROBLEM, r#"{"type":"urn:tinjis:problem:key-voided"}"#, Keyed, InDoubt, "other-status"),
    (500, PROBLEM, r#"{"type":"urn:tinjis:problem:key-voided"}"#, Keyed, InDoubt, "unavailable"),
    (200, PROBLEM, r#"{"type":"urn:tinjis:problem:key-voided"}"#, Keyed, InDoubt, "other-status"),
    (422, PROBLEM, r#"{"type":"about:blank"}"#, Keyed, InDoubt, "other-status"),
    (403, PROBLEM, r#"{"type":"about:blank"}"#, Keyed, WRONG, "credentials"),
    // Charged.
    (200, JSON, r#"{"result":true}"#, Keyed, Charged, "result-true"),
    (200, JSON, r#"{"result":"true"}"#, Keyed, Charged, "result-true"),
    (200, JSON, r#"{"result":"TRUE"}"#, Keyed, Charged, "result-true"),
    (200, JSON, r#"{"Result":"True","more":{"result":false}}"#, Keyed, Charged, "result-true"),
    (200, "text/plain", r#"{"result":"true"}"#, Keyed, Charged, "result-true"),
    (201, JSON, r#"{"id":"0123456789abcdef0123","result":true}"#, Keyed, Charged, "result-true"),
    (200, JSON, r#"{"id":"I1"}"#, Keyed, Charged, "id-echoed"),
    (200, JSON, r#"{"id":"I1","error":null}"#, Keyed, Charged, "id-echoed"),
    (200, JSON, r#"{"result":true,"error":""}"#, Keyed, Charged, "result-true"),
    // Refused.
    (200, JSON, r#"{"result":false}"#, Keyed, Refused, "result-false"),
    (200, JSON, r#"{"result":"False"}"#, Keyed, Refused, "result-false"),
    (201, JSON, r#"{"result":false}"#, Keyed, Refused, "result-false"),
    (402, JSON, r#"{"result":false}"#, Keyed, Refused, "result-false"),
    (422, JSON, r#"{"result":false,"message":"cannot process payment"}"#, Keyed, Refused, "result-false"),
    (402, JSON, r#"{"id":"I1","error":"refused"}"#, Keyed, Refused, "payment-refused"),
    // Invalid.
    (400, JSON, r#"{"error":"Invalid Request","result":"false"}"#, Keyed, Invalid, "validation"),
    (400, JSON, r#"{"error":"Invalid Request. Missing or faulty fields","result":"false"}"#, Keyed, Invalid, "validation"),
    (400, "text/plain", r#"{"error":"Invalid Request","result":"false"}"#, Keyed, Invalid, "validation"),
    (400, JSON, r#"{"result":false,"message":"missing parameter"}"#, Keyed, Invalid, "validation"),
    (400, JSON, r#"{"result":false,"message":"invalid value"}"#, Keyed, Invalid, "validation"),
    (400, JSON, r#"{"error":"failed to process payment request parameters"}"#, Keyed, Invalid, "validation"),
    (400, JSON, r#"{"error":"could not retrieve payment id"}"#, Keyed, Invalid, "validation"),
    (422, JSON, r#"{"error":"invalid value"}"#, Keyed, Invalid, "validation"),
    // The endpoint is wrong.
    (401, JSON, r#"{"error":"who are you"}"#, Keyed, WRONG, "credentials"),
    (403, "text/plain", "Forbidden\n", Keyed, WRONG, "credentials"),
    (403, JSON, r#"{"result":false}"#, Keyed, WRONG, "credentials"),
    (404, JSON, "\"not found\"", Keyed, WRONG, "no-such-route"),
    (404, HTML, "<html>", Keyed, WRONG, "no-such-route"),
    (405, JSON, "", Keyed, WRONG, "no-such-route"),
    (412, JSON, "", Keyed, WRONG, "no-such-route"),
    (400, HTML, "<html>", Keyed, WRONG_MAYBE_EXECUTED, "text-page"),
    (402, "text/plain", "pay me", Keyed, WRONG_MAYBE_EXECUTED, "text-page"),
    (413, HTML, "<html>", Keyed, WRONG_MAYBE_EXECUTED, "text-page"),
    // Not executed.
    (429, PROBLEM, r#"{"type":"about:blank"}"#, NotExecuted, NotSent, "marked-not-executed"),
    (503, JSON, "", NotExecuted, NotSent, "marked-not-executed"),
    (503, JSON, r#"{"result":true}"#, NotExecuted, InDoubt, "contradictory"),
    (500, JSON, "", NotExecuted, InDoubt, "unavailable"),
    // In doubt.
    (429, JSON, "", Keyed, InDoubt, "unavailable"),
    (429, HTML, "<html>", Keyed, InDoubt, "unavailable"),
    (503, JSON, r#"{"result":false}"#, Keyed, InDoubt, "unavailable"),
    (500, JSON, r#"{"result":false}"#, Keyed, InDoubt, "unavailable"),
    (502, HTML, "<html>", Keyed, InDoubt, "unavailable"),
    (408, HTML, "<html>", Keyed, InDoubt, "unavailable"),
    (409, JSON, r#"{"result":false}"#, Keyed, InDoubt, "other-status"),
    (409, HTML, "<html>", Keyed, InDoubt, "other-status"),
    (301, HTML, "", Keyed, InDoubt, "redirect"),
    (307, JSON, r#"{"result":false}"#, Keyed, InDoubt, "redirect"),
    (304, JSON, "", Keyed, InDoubt, "redirect"),
    (202, JSON, r#"{"result":true}"#, Keyed, InDoubt, "contradictory"),
    (204, JSON, "", Keyed, InDoubt, "other-status"),
    (402, JSON, "{}", Keyed, InDoubt, "other-status"),
    (402, JSON, r#"{"id":"I1"}"#, Keyed, InDoubt, "other-status"),
    (402, JSON, r#"{"id":"I2","error":"refused"}"#, Keyed, InDoubt, "other-id"),
    (402, JSON, r#"{"result":true}"#, Keyed, InDoubt, "contradictory"),
    (400, JSON, r#"{"result":true}"#, Keyed, InDoubt, "contradictory"),
    (400, JSON, r#"{"result":"true","error":"Invalid Request"}"#, Keyed, InDoubt, "contradictory"),
    (400, JSON, r#"{"result":false}"#, Keyed, InDoubt, "other-status"),
    (400, JSON, r#"{"error":"the bank is closed"}"#, Keyed, InDoubt, "other-status"),
    (400, JSON, "", Keyed, InDoubt, "unreadable"),
    (404, JSON, r#"{"result":true}"#, Keyed, InDoubt, "contradictory"),
    (418, JSON, "{}", Keyed, InDoubt, "other-status"),
    // Ambiguous bodies.
    (200, JSON, "", Keyed, InDoubt, "unreadable"),
    (200, JSON, "{}", Keyed, InDoubt, "unreadable"),
    (200, JSON, "true", Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"[{"result":true}]"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":true"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":true}{"result":true}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":true,"result":true}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":true,"Result":false}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":1}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":"yes"}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":null,"id":"I1"}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"result":true,"error":"or not"}"#, Keyed, InDoubt, "contradictory"),
    (200, JSON, r#"{"id":"I2"}"#, Keyed, InDoubt, "other-id"),
    (200, JSON, r#"{"id":"I1","id":"I1"}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"id":"I1","error":"refused"}"#, Keyed, InDoubt, "unreadable"),
    (200, JSON, r#"{"id":1}"#, Keyed, InDoubt, "unreadable"),
    (201, JSON, r#"{"id":"I1"}"#, Keyed, InDoubt, "unreadable"),
    (200, HTML, "<html>", Keyed, InDoubt, "unreadable"),
    (422, JSON, r#"{"result":"no"}"#, Keyed, InDoubt, "unreadable"),
];

#[test]
fn every_row_of_the_table_holds() {
    for &(status, content_type, body, mark, class, reason) in TABLE {
        let found = verdict(status, content_type, body, mark);
        assert_eq!((found.class, found.reason.as_str()), (class, reason), "{status} {content_type} {body}");
    }
}

/// The rows that differ without keys: the status alone proves nothing. Columns: status, content type, body; class,
/// reason.
#[rustfmt::skip]
const WITHOUT_KEYS: &[(u16, &str, &str, AnswerClass, &str)] = &[
    // Exactly these bytes: one known payment service sends them before it executes anything.
    (403, "text/plain", "Forbidden", WRONG, "credentials"),
    (403, "text/plain", "Forbidden\n", WRONG, "credentials"),
    (403, "text/plain; charset=utf-8", "Forbidden\n", WRONG, "credentials"),
    // Responses that almost match the row above.
    (403, "text/plain", "Forbidden\n\n", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, "text/plain", "Forbidden\r\n", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, "text/plain", "Forbidden ", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, "text/plain", "forbidden", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, "text/plain", "403 Forbidden\n", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, "text/plain", "", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, HTML, "Forbidden\n", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, JSON, "Forbidden\n", WRONG_MAYBE_EXECUTED, "credentials"),
    (401, "text/plain", "Forbidden\n", WRONG_MAYBE_EXECUTED, "credentials"),
    (404, "text/plain", "Forbidden\n", WRONG_MAYBE_EXECUTED, "no-such-route"),
    // Other statuses that a gateway may send in place of a response.
    (401, HTML, "<html>", WRONG_MAYBE_EXECUTED, "credentials"),
    (401, JSON, r#"{"error":"who are you"}"#, WRONG_MAYBE_EXECUTED, "credentials"),
    (403, HTML, "<html>", WRONG_MAYBE_EXECUTED, "credentials"),
    (403, JSON, r#"{"result":false}"#, WRONG_MAYBE_EXECUTED, "credentials"),
    (404, JSON, "\"not found\"", WRONG_MAYBE_EXECUTED, "no-such-route"),
    (404, HTML, "<html>", WRONG_MAYBE_EXECUTED, "no-such-route"),
    (405, JSON, "", WRONG_MAYBE_EXECUTED, "no-such-route"),
    (412, JSON, "", WRONG_MAYBE_EXECUTED, "no-such-route"),
    (402, "text/plain", "pay me", WRONG_MAYBE_EXECUTED, "text-page"),
    (413, HTML, "<html>", WRONG_MAYBE_EXECUTED, "text-page"),
    // In doubt as with keys.
    (200, HTML, "<html>", InDoubt, "unreadable"),
    (301, HTML, "", InDoubt, "redirect"),
    (429, HTML, "<html>", InDoubt, "unavailable"),
    (500, HTML, "<html>", InDoubt, "unavailable"),
    (503, JSON, "", InDoubt, "unavailable"),
    // Definite as with keys.
    (200, JSON, r#"{"result":"true"}"#, Charged, "result-true"),
    (422, JSON, r#"{"result":false}"#, Refused, "result-false"),
    (400, JSON, r#"{"error":"Invalid Request","result":"false"}"#, Invalid, "validation"),
];

#[test]
fn without_keys_only_a_response_known_to_precede_execution_is_believed() {
    use crate::invoice::{AttemptState, AttentionReason};
    use crate::protocol::transition::{Outcome, Sent, on_answer};
    let none = Idempotency::None;
    for &(status, content_type, body, class, reason) in WITHOUT_KEYS {
        let request = RequestFacts {
            key: KEY,
            reference: "I1",
            idempotency: none,
            ledger: None,
            dialect: Dialect::Default,
        };
        let (content_type, bytes) = (Some(content_type), body.as_bytes());
        let response =
            ResponseFacts { status, content_type, body: bytes, key: None, ledger: None, not_executed: false };
        let found = judge(&request, &response);
        let what = format!("{status} {content_type:?} {body:?}");
        assert_eq!((found.class, found.reason.as_str()), (class, reason), "{what}");
        assert_eq!(found.allows_another_credential(), class == WRONG, "{what}");
        let outcome = on_answer(none, Sent { state: AttemptState::Intent, sends: 1 }, class);
        let expected = match class {
            Charged => Outcome::Charged,
            Refused => Outcome::Refused,
            Invalid => Outcome::Rejected,
            class if class == WRONG => Outcome::NotSent,
            _ => Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys)),
        };
        assert_eq!(outcome, expected, "{what}");
    }
}

#[test]
fn without_keys_our_own_mark_of_what_was_not_executed_is_believed() {
    for (status, class) in [(429, NotSent), (503, NotSent), (500, InDoubt), (404, WRONG_MAYBE_EXECUTED)] {
        let request = RequestFacts {
            key: KEY,
            reference: "I1",
            idempotency: Idempotency::None,
            ledger: None,
            dialect: Dialect::Default,
        };
        let response = ResponseFacts {
            status,
            content_type: Some(JSON),
            body: b"",
            key: None,
            ledger: None,
            not_executed: true,
        };
        assert_eq!(judge(&request, &response).class, class, "{status}");
    }
}

#[test]
fn only_a_status_blind_dialect_lets_the_result_count_whatever_the_status() {
    let judged = |dialect, status, body: &str| {
        let request =
            RequestFacts { key: KEY, reference: "I1", idempotency: Idempotency::None, ledger: None, dialect };
        let (content_type, body) = (Some(JSON), body.as_bytes());
        let response =
            ResponseFacts { status, content_type, body, key: None, ledger: None, not_executed: false };
        judge(&request, &response).class
    };
    for (status, body, blind) in [
        (400, r#"{"result":"true"}"#, Charged),
        (400, r#"{"result":"false"}"#, Refused),
        (404, r#"{"result":"true"}"#, Charged),
        (400, r#"{"error":"Invalid Request","result":"false"}"#, Invalid),
        (500, r#"{"result":"true"}"#, InDoubt),
        (302, r#"{"result":"true"}"#, InDoubt),
    ] {
        assert_eq!(judged(Dialect::StatusBlind, status, body), blind, "{status} {body}");
        assert!(!matches!(judged(Dialect::Default, status, body), Charged | Refused), "{status} {body}");
    }
}

#[test]
fn a_deeply_nested_body_or_a_huge_number_breaks_nothing() {
    let nest = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let beside = format!(r#"{{"x":{nest},"result":true}}"#);
    assert_eq!(verdict(200, JSON, &beside, Keyed).class, Charged);
    assert_eq!(verdict(200, JSON, &format!(r#"{{"result":{nest}}}"#), Keyed).class, InDoubt);
    assert_eq!(verdict(200, JSON, r#"{"result":1e999}"#, Keyed).class, InDoubt);
}

const CHARGED: &str = r#"{"result":true}"#;
const REFUSED: &str = r#"{"result":false}"#;
const INVALID: &str = r#"{"error":"Invalid Request"}"#;

fn from(idempotency: Idempotency, status: u16, body: &str, key: Option<&str>) -> (AnswerClass, Reason) {
    let request =
        RequestFacts { key: KEY, reference: "I1", idempotency, ledger: None, dialect: Dialect::Default };
    let body = body.as_bytes();
    let response =
        ResponseFacts { status, content_type: Some(JSON), body, key, ledger: None, not_executed: false };
    let Verdict { class, reason } = judge(&request, &response);
    (class, reason)
}

#[test]
fn with_keys_a_definite_answer_shows_its_key() {
    let keys = Idempotency::Keys;
    let quoted = format!("\"{KEY}\"");
    assert_eq!(from(keys, 200, CHARGED, Some(&quoted)), (Charged, Reason::ResultTrue));
    assert_eq!(from(keys, 200, CHARGED, None), (Unkeyed, Reason::NoEcho));
    assert_eq!(from(keys, 200, REFUSED, None), (Unkeyed, Reason::NoEcho));
    assert_eq!(from(keys, 400, INVALID, None), (WRONG_MAYBE_EXECUTED, Reason::NoEcho));
    assert_eq!(from(keys, 200, CHARGED, Some("other")), (WRONG_MAYBE_EXECUTED, Reason::OtherEcho));
    assert_eq!(from(keys, 503, "", None), (InDoubt, Reason::Unavailable));
}

#[test]
fn without_keys_no_echo_is_asked_for_but_a_wrong_one_is_doubt() {
    let none = Idempotency::None;
    assert_eq!(from(none, 200, CHARGED, None), (Charged, Reason::ResultTrue));
    assert_eq!(from(none, 200, REFUSED, Some(KEY)), (Refused, Reason::ResultFalse));
    assert_eq!(from(none, 200, CHARGED, Some("other")), (WRONG_MAYBE_EXECUTED, Reason::OtherEcho));
}

#[test]
fn another_ledger_says_nothing_definite() {
    let ask = |idempotency, before, now| {
        let request = RequestFacts {
            key: KEY,
            reference: "I1",
            idempotency,
            ledger: before,
            dialect: Dialect::Default,
        };
        let body = REFUSED.as_bytes();
        let key = Some(KEY);
        let response =
            ResponseFacts { status: 200, content_type: None, body, key, ledger: now, not_executed: false };
        judge(&request, &response).reason
    };
    let (none, keys) = (Idempotency::None, Idempotency::Keys);
    assert_eq!(ask(keys, None, Some("a")), Reason::ResultFalse);
    assert_eq!(ask(keys, Some("a"), Some("a")), Reason::ResultFalse);
    assert_eq!(ask(keys, Some("a"), Some("b")), Reason::OtherLedger);
    assert_eq!(ask(none, Some("a"), Some("b")), Reason::OtherLedger);
    assert_eq!(ask(keys, Some("a"), None), Reason::NoLedger);
    assert_eq!(ask(none, Some("a"), None), Reason::ResultFalse);
}
