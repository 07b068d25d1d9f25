//! The request to the provider: one body that every known provider reads, and the names of its headers. Pure; knows no
//! connection and no answer.

use http::HeaderName;
use serde::Serialize;

use super::Dialect;
use crate::invoice::Attempt;
use crate::money::Amount;

/// In a request and its response: the key of the charge.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// In a response: the ledger that sent it.
pub(super) const LEDGER_ID: HeaderName = HeaderName::from_static("ledger-id");
/// In a request: the only ledger that may execute the request.
pub(super) const EXPECT_LEDGER: HeaderName = HeaderName::from_static("expect-ledger");
/// In a keyed response: the row of the ledger from which it was made.
pub(super) const LEDGER_SEQ: HeaderName = HeaderName::from_static("ledger-seq");
/// In a request: the last row that was seen. A ledger without that row has lost rows and executes nothing.
pub(super) const LEDGER_SEEN: HeaderName = HeaderName::from_static("ledger-seen");
/// In a request: the store's deployment id. A store that lost its id makes other keys, and is refused.
pub(super) const DEPLOYMENT_ID: HeaderName = HeaderName::from_static("deployment-id");
/// In a declaration: an operator's credential.
pub(super) const OPERATOR_TOKEN: HeaderName = HeaderName::from_static("operator-token");
/// In a response: `true` when nothing was executed.
pub(super) const NOT_EXECUTED: HeaderName = HeaderName::from_static("not-executed");
/// In a refusal: the reason.
pub(super) const DECLINE: HeaderName = HeaderName::from_static("decline");
/// In a request: the credential.
pub(super) const X_TOKEN: HeaderName = HeaderName::from_static("x-token");

/// One body for every known provider: each ignores unknown fields.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    invoice_id: i64,
    customer_id: i64,
    currency: Currency<'a>,
    value: Amount,
}

/// Text, or the empty object to which the original's JSON library serialized its enumeration.
#[derive(Serialize)]
#[serde(untagged)]
enum Currency<'a> {
    Code(&'a str),
    Object {},
}

/// The body of a charge, the same for every send of an attempt.
pub(super) fn body(attempt: &Attempt, dialect: Dialect) -> Vec<u8> {
    let code = attempt.money.currency.code();
    let body = Body {
        id: attempt.reference.as_str(),
        invoice_id: attempt.invoice_id.0,
        customer_id: attempt.customer_id.0,
        currency: if dialect == Dialect::Original { Currency::Object {} } else { Currency::Code(code) },
        value: attempt.money.amount(),
    };
    serde_json::to_vec(&body).expect("texts and numbers make JSON")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::invoice::{AttemptState, CustomerId, InvoiceId, Reference, RunId};
    use crate::money::{Currency, Money};
    use crate::protocol::key::{DeploymentId, Key};

    fn attempt(reference: &str, amount_minor: i64) -> Attempt {
        let reference = Reference::new(reference).unwrap();
        Attempt {
            key: Key::new(DeploymentId(Uuid::nil()), &reference, 1),
            invoice_id: InvoiceId(7),
            reference,
            number: 1,
            customer_id: CustomerId(3),
            money: Money { amount_minor, currency: Currency::EUR },
            state: AttemptState::Intent,
            sends: 1,
            run_id: RunId(1),
            lease_until: 0,
            created_at: 0,
            settled_at: None,
            decline: None,
        }
    }

    fn text(attempt: &Attempt) -> String {
        String::from_utf8(body(attempt, Dialect::Default)).unwrap()
    }

    #[test]
    fn the_body_is_what_every_known_provider_reads() {
        let expected = r#"{"id":"I1","invoice_id":7,"customer_id":3,"currency":"EUR","value":12.15}"#;
        assert_eq!(text(&attempt("I1", 1215)), expected);
    }

    #[test]
    fn the_original_dialect_sends_the_currency_as_an_empty_object() {
        let body = String::from_utf8(body(&attempt("I1", 30199), Dialect::Original)).unwrap();
        assert!(body.ends_with(r#""currency":{},"value":301.99}"#), "{body}");
    }

    #[test]
    fn amounts_keep_every_digit() {
        for (minor, value) in [(14_540, "145.40"), (5, "0.05"), (999_999_999_999_999, "9999999999999.99")] {
            let body = text(&attempt("I1", minor));
            assert!(body.ends_with(&format!(r#""value":{value}}}"#)), "{body}");
        }
    }

    #[test]
    fn a_reference_cannot_break_out_of_its_field() {
        let body = text(&attempt(r#"a","value":0,"b":""#, 100));
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["id"], r#"a","value":0,"b":""#);
        assert_eq!(read.as_object().unwrap().len(), 5);
    }
}
