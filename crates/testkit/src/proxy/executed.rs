//! The list of charges that a provider has executed, according to its answers; no failover of a database loses it.
//! Knows the answer to a charge.

use serde_json::Value;
use tokio::time::Instant;

use super::http_io::Request;
use super::{Shared, lock};
use crate::http::Answer;

/// A charge that this delivery executed, not an earlier one with the same key.
#[derive(Clone, Debug)]
pub struct Execution {
    pub key: String,
    /// The body of the request.
    pub charge: Value,
}

impl Execution {
    /// Reference of the invoice.
    #[must_use]
    pub fn reference(&self) -> &str {
        self.charge["id"].as_str().unwrap_or_default()
    }
}

impl Shared {
    pub(super) fn note_executed(&self, request: &Request, answer: &Answer) {
        if !is_charged(answer) {
            return;
        }
        lock(&self.charged_at).push(Instant::now());
        if !is_execution(answer) {
            return;
        }
        let key = request.head.header("idempotency-key").unwrap_or_default();
        let charge = serde_json::from_slice(&request.body).unwrap_or_default();
        lock(&self.executed).push(Execution { key, charge });
    }
}

fn is_charged(answer: &Answer) -> bool {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    matches!(answer.status, 200 | 201) && (said["result"] == true || said["result"] == "true")
}

fn is_execution(answer: &Answer) -> bool {
    is_charged(answer) && answer.header("idempotency-replayed").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http_io::answer;

    #[test]
    fn a_charge_counts_when_it_is_executed_and_not_when_it_is_answered_again() {
        let yes = r#"{"result":"true"}"#;
        assert!(is_execution(&answer(200, &[], yes)));
        assert!(is_execution(&answer(201, &[], r#"{"result":true}"#)));
        assert!(!is_execution(&answer(200, &[("idempotency-replayed", "true")], yes)));
        assert!(!is_execution(&answer(200, &[], r#"{"result":"false"}"#)));
        assert!(!is_execution(&answer(503, &[], yes)));
    }
}
