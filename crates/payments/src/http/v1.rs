//! The ledger for callers: a page, one key, and a key's tombstone. A caller sees its own account only. Executes no
//! charge; fields are named as the columns.

use std::time::{Duration, SystemTime};

use api::payments::{LedgerPage, LedgerRow};
use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use chassis::caller::Account;
use chassis::problem::{FieldError, Problem};
use chassis::query;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::App;
use super::deliver::{
    LEDGER_SEQ, bad_key_problem, behind, check_deployment, check_ledger, key_foreign_response, not_executed,
    not_serving_response, read_seen, unavailable_response,
};
use crate::keys::Key;
use crate::ledger::{Found, LedgerError, PAGE_MAX, Row, Seq, State as RowState, Void, Voided};

/// Number of rows of a page when the request has no limit.
const LIMIT_DEFAULT: usize = 100;

fn to_ledger_row(row: &Row) -> LedgerRow {
    let created_at = SystemTime::UNIX_EPOCH + Duration::from_millis(row.created_at_ms.unsigned_abs());
    let decline = row.decline.as_ref();
    LedgerRow {
        seq: row.seq.0,
        key: row.key.as_ref().map(|key| key.as_str().to_owned()),
        account: row.account.clone(),
        fingerprint: row.fingerprint.as_str().to_owned(),
        reference: row.reference.clone(),
        customer_id: row.customer_id,
        currency: row.currency.clone(),
        amount_minor: row.amount.units,
        exponent: row.amount.exponent,
        state: row.state.as_str().into(),
        decline_class: decline.map(|decline| decline.class.as_str().into()),
        decline_code: decline.map(|decline| decline.code.to_string()),
        route: row.route.to_string(),
        created_at: humantime::format_rfc3339_millis(created_at).to_string(),
    }
}

/// `GET /v1/openapi.json`: the API as a document for programs; without credentials.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::OPENAPI).into_response()
}

/// `GET /v1/ledger?after=&limit=`
pub(super) async fn page(
    State(app): State<App>,
    Extension(account): Extension<Account>,
    RawQuery(query): RawQuery,
) -> Response {
    let (after, limit) = match read_query(query.as_deref().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let page = match app.0.ledger.page(account.as_str(), after, limit).await {
        Ok(page) => page,
        Err(error) => return failure_response(&error),
    };
    let next = page.rows.last().map(|row| row.seq.0).filter(|_| page.more);
    let items = page.rows.iter().map(to_ledger_row).collect();
    Json(LedgerPage { ledger_id: app.0.ledger_id.to_string(), items, next }).into_response()
}

/// `GET /v1/ledger/{key}`
pub(super) async fn row(
    State(app): State<App>,
    Extension(account): Extension<Account>,
    Path(key): Path<String>,
) -> Response {
    let Some(key) = Key::parse(&key) else { return bad_key_problem("key").into_response() };
    match app.0.ledger.look_up(account.as_str(), &key).await {
        Ok(Found::Row(row)) => Json(to_ledger_row(&row)).into_response(),
        Ok(Found::Foreign) => key_foreign_response(),
        Ok(Found::Absent) => {
            Problem::new(StatusCode::NOT_FOUND).detail("the ledger has no such key").into_response()
        }
        Err(error) => failure_response(&error),
    }
}

/// `POST /v1/ledger/{key}/void`: after 200 the key is not charged and never will be. Returns the row of the key:
/// VOIDED, or REFUSED as before. A tombstone in another ledger than the caller expects, or under another account than
/// that of its charge, would prevent nothing.
pub(super) async fn void(
    State(app): State<App>,
    Extension(account): Extension<Account>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(mismatch) = check_ledger(&app, &headers) {
        return not_executed(mismatch);
    }
    let seen = match read_seen(&headers) {
        Ok(seen) => seen,
        Err(problem) => return problem.into_response(),
    };
    let Some(key) = Key::parse(&key) else { return bad_key_problem("key").into_response() };
    let deployment = match check_deployment(&app, &headers, &account).await {
        Ok(deployment) => deployment,
        Err(refusal) => return refusal,
    };
    match app.0.ledger.void(&Void { account: account.as_str().to_owned(), key, deployment, seen }).await {
        Ok(Voided::Behind) => behind(),
        Ok(Voided::Foreign) => key_foreign_response(),
        Ok(Voided::Row(row)) if row.state == RowState::Charged => {
            Problem::new(StatusCode::CONFLICT).detail("the key was charged").into_response()
        }
        Ok(Voided::Row(row)) => {
            ([(LEDGER_SEQ, HeaderValue::from(row.seq.0))], Json(to_ledger_row(&row))).into_response()
        }
        Err(error) => failure_response(&error),
    }
}

pub(super) fn failure_response(error: &LedgerError) -> Response {
    if matches!(error, LedgerError::NotServing(_)) {
        return not_serving_response();
    }
    tracing::error!(error = error as &dyn std::error::Error, "ledger operation failed");
    unavailable_response()
}

fn read_query(query: &str) -> Result<(Seq, usize), Problem> {
    let (mut after, mut limit, mut errors) = (None, None, Vec::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let known = match &*name {
            "after" => &mut after,
            "limit" => &mut limit,
            _ => {
                errors.push(query::unknown_parameter(&name));
                continue;
            }
        };
        if known.replace(value).is_some() {
            errors.push(FieldError::new(name, "is given more than once"));
        }
    }
    // The page begins with the very first row: even a row with an invalid number must not be hidden from a verifier.
    let after = after.map_or(Some(i64::MIN), |text| text.parse().ok());
    let limit = limit
        .map_or(Some(LIMIT_DEFAULT), |text| text.parse().ok().filter(|rows| (1..=PAGE_MAX).contains(rows)));
    errors.extend(after.is_none().then(|| FieldError::new("after", "is no cursor of this list")));
    errors.extend(limit.is_none().then(|| FieldError::new("limit", format!("is not from 1 to {PAGE_MAX}"))));
    match (after, limit) {
        (Some(after), Some(limit)) if errors.is_empty() => Ok((Seq(after), limit)),
        _ => Err(Problem::validation(errors)),
    }
}

#[cfg(test)]
mod tests {
    use api::payments::{
        LEDGER_PAGE_JSON_BYTES_MAX, LEDGER_PAGE_MAX, LEDGER_ROW_JSON_BYTES_MAX, LEDGER_TEXT_BYTES_MAX,
    };

    use super::*;

    #[test]
    fn a_page_has_100_rows_from_the_start_unless_asked_otherwise() {
        assert_eq!(read_query(""), Ok((Seq(i64::MIN), 100)));
        assert_eq!(read_query("limit=7&after=12"), Ok((Seq(12), 7)));
        assert_eq!(read_query("after=-12"), Ok((Seq(-12), 100)), "a row's own number is always a cursor");
    }

    #[test]
    fn each_mistake_in_a_query_is_named() {
        for (query, faults) in [
            ("after=1.5", &["after"][..]),
            ("limit=0", &["limit"]),
            ("limit=1001&after=x", &["after", "limit"]),
            ("limit=", &["limit"]),
            ("limit=7&limit=7", &["limit"]),
            ("limit=7&after=12&other=x", &["other"]),
            ("Limit=7&offset=1", &["Limit", "offset"]),
        ] {
            let errors = read_query(query).unwrap_err().errors;
            let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(named, faults, "{query}");
        }
    }

    /// The row with the longest JSON that a route accepts.
    fn longest_row() -> LedgerRow {
        let escaped = "\u{1}".repeat(LEDGER_TEXT_BYTES_MAX);
        LedgerRow {
            seq: i64::MIN,
            key: Some("\\".repeat(Key::LEN_MAX)),
            account: "a".repeat(1024),
            fingerprint: "f".repeat(64),
            reference: Some(escaped.clone()),
            customer_id: i64::MIN,
            currency: escaped,
            amount_minor: i64::MIN,
            exponent: u8::MAX,
            state: "CHARGED".into(),
            decline_class: Some("unknown".into()),
            decline_code: Some("c".repeat(64)),
            route: "/v1/ledger/{key}/void".to_owned(),
            created_at: "2026-11-29T12:00:00.000Z".to_owned(),
        }
    }

    #[test]
    fn the_longest_page_fits_the_bytes_that_clients_take() {
        let row = longest_row();
        let bytes = |page: &LedgerPage| serde_json::to_vec(page).expect("texts make JSON").len();
        assert!(serde_json::to_vec(&row).expect("texts make JSON").len() <= LEDGER_ROW_JSON_BYTES_MAX);
        let ledger_id = "00000000-0000-4000-8000-000000000001".to_owned();
        let page = LedgerPage { ledger_id, items: vec![row; LEDGER_PAGE_MAX], next: Some(i64::MIN) };
        assert!(bytes(&page) <= LEDGER_PAGE_JSON_BYTES_MAX);
        // This is more than the server accepts for other bodies, which is why one route has a limit of its own.
        assert!(bytes(&page) > 4 * 1024 * 1024);
    }
}
