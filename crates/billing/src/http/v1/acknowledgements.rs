//! `/v1/ledger/acknowledgements`: ledger rows that belong to no invoice and that an operator has explained. They are
//! kept for ever, and `tinjis verify` no longer reports these rows. Knows no ledger: the caller must check whether a
//! row exists.

use api::billing::{Acknowledgement, AcknowledgementRequest};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use http::{StatusCode, Uri};
use uuid::Uuid;

use super::attempts::validate_reason_and_actor;
use super::body;
use super::page::{Params, format_timestamp, json_response, page};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::store::{LedgerAcknowledgement, LedgerAcknowledgementRow};

fn to_acknowledgement(row: &LedgerAcknowledgementRow) -> Acknowledgement {
    let LedgerAcknowledgement { ledger_id, seq_first, seq_last, reason, actor } = row.acknowledgement.clone();
    let created_at = format_timestamp(row.created_at);
    Acknowledgement { id: row.id, ledger_id, seq_first, seq_last, reason, actor, created_at }
}

/// `GET /v1/ledger/acknowledgements?after=&limit=`
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let rows = state.store.ledger_acknowledgements(after, limit).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &page(&rows, limit, to_acknowledgement, |row| row.id.to_string())))
}

/// `POST /v1/ledger/acknowledgements`
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let acknowledgement = parse_acknowledgement(&body::bytes(body)?)?;
    let recorded = state.store.acknowledge(&acknowledgement).await.map_err(|error| problem_of(&error))?;
    tracing::warn!(
        ledger.id = acknowledgement.ledger_id,
        ledger.seq_first = acknowledgement.seq_first,
        ledger.seq_last = acknowledgement.seq_last,
        actor = acknowledgement.actor,
        "an operator acknowledged ledger rows that belong to no invoice"
    );
    Ok(json_response(StatusCode::CREATED, &to_acknowledgement(&recorded)))
}

fn parse_acknowledgement(body: &[u8]) -> Result<LedgerAcknowledgement, Problem> {
    let AcknowledgementRequest { ledger_id, seq_first, seq_last, reason, actor } =
        body::read(body, r#"{"ledger_id","seq_first","seq_last","reason","actor"}"#)?;
    let ledger_id = Uuid::parse_str(&ledger_id).ok();
    let mut errors = Vec::new();
    if ledger_id.is_none() {
        errors.push(FieldError::new("ledger_id", "must be a UUID"));
    }
    if seq_first < 1 {
        errors.push(FieldError::new("seq_first", "must be at least 1"));
    }
    if seq_last < seq_first {
        errors.push(FieldError::new("seq_last", "must be at least seq_first"));
    }
    match ledger_id {
        Some(ledger_id) if errors.is_empty() => {
            validate_reason_and_actor(&reason, &actor)?;
            let ledger_id = ledger_id.to_string();
            Ok(LedgerAcknowledgement { ledger_id, seq_first, seq_last, reason, actor })
        }
        _ => Err(Problem::validation(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_a_ledger_rows_or_a_reason_is_refused_by_field() {
        type Change = fn(&mut serde_json::Value);
        let body = |change: Change| {
            let mut body = serde_json::json!({
                "ledger_id": "00000000-0000-4000-8000-000000000001", "seq_first": 1, "seq_last": 1,
                "reason": "a test charge", "actor": "ann"
            });
            change(&mut body);
            parse_acknowledgement(body.to_string().as_bytes())
        };
        assert!(body(|_| ()).is_ok());
        let cases: [(Change, &[&str]); 5] = [
            (|body| body["ledger_id"] = "x".into(), &["ledger_id"]),
            (|body| body["seq_first"] = 0.into(), &["seq_first"]),
            (|body| body["seq_first"] = 2.into(), &["seq_last"]),
            (|body| body["reason"] = " ".into(), &["reason"]),
            (|body| body["more"] = 1.into(), &["more"]),
        ];
        for (change, fields) in cases {
            let errors = body(change).unwrap_err().errors;
            assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), fields);
        }
    }
}
