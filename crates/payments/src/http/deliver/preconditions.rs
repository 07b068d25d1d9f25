//! What a caller may demand of the ledger, and what the ledger demands of a caller's deployment, before anything is
//! executed. Each refusal is a 412 with the not-executed mark. Knows no route and no body.

use axum::response::{IntoResponse, Response};
use chassis::caller::Account;
use chassis::problem::{FieldError, Problem};
use chassis::server::NOT_EXECUTED;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use uuid::Uuid;

use super::super::App;
use super::unavailable;
use crate::deployments::{DeploymentId, Unknown};
use crate::ledger::Seq;

const EXPECT_LEDGER: HeaderName = HeaderName::from_static("expect-ledger");
/// The last row that the caller has seen.
const LEDGER_SEEN: HeaderName = HeaderName::from_static("ledger-seen");
/// The store of billing that sends.
const DEPLOYMENT_ID: HeaderName = HeaderName::from_static("deployment-id");

/// Refuses a caller that expects another ledger.
pub(in crate::http) fn check_ledger(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let is_ours = |value: &HeaderValue| {
        value.to_str().ok().and_then(|text| Uuid::parse_str(text.trim()).ok()) == Some(app.0.ledger_id.0)
    };
    if headers.get_all(EXPECT_LEDGER).iter().all(is_ours) {
        return Ok(());
    }
    Err(Problem::named(
        StatusCode::PRECONDITION_FAILED,
        "ledger-mismatch",
        "This is another ledger than the caller expects; nothing was executed",
    ))
}

/// The row that the caller has seen; the ledger checks it in the step that executes.
pub(in crate::http) fn read_seen(headers: &HeaderMap) -> Result<Option<Seq>, Problem> {
    let seq = |text: &str| text.parse().ok().filter(|seq: &i64| *seq >= 1).map(Seq);
    only(headers, &LEDGER_SEEN, seq, "is no position of a ledger: a whole number from 1")
}

/// The answer of a ledger that lacks a row which the caller has seen.
pub(in crate::http) fn behind() -> Response {
    let problem = Problem::named(
        StatusCode::PRECONDITION_FAILED,
        "ledger-behind",
        "This ledger lacks a row that the caller has seen; nothing was executed",
    );
    let advice = "restore the ledger as it was, or give it a new id with `payments new-ledger-id`";
    not_executed(problem.detail(advice))
}

/// Refuses a deployment that is not known under the account. A caller that names none is not checked here: neither foreign
/// clients nor earlier versions of billing do. The ledger refuses it a key that another account charged.
pub(in crate::http) async fn check_deployment(
    app: &App,
    headers: &HeaderMap,
    account: &Account,
) -> Result<Option<DeploymentId>, Response> {
    let id = |text: &str| Uuid::parse_str(text).ok().map(DeploymentId);
    let deployment = only(headers, &DEPLOYMENT_ID, id, "is no uuid").map_err(IntoResponse::into_response)?;
    let Some(deployment) = deployment else { return Ok(None) };
    match app.0.deployments.admit(account, deployment).await {
        Ok(Ok(())) => Ok(Some(deployment)),
        Ok(Err(why)) => Err(unknown(deployment, why)),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "ledger operation failed");
            Err(([(NOT_EXECUTED, "true")], unavailable()).into_response())
        }
    }
}

fn unknown(deployment: DeploymentId, why: Unknown) -> Response {
    let why = match why {
        Unknown::OtherDeployment => "this account has another deployment",
        Unknown::OtherAccount => "this deployment belongs to another account",
        Unknown::OtherKeys => "this account has charges under keys that are not this deployment's",
    };
    let problem = Problem::named(
        StatusCode::PRECONDITION_FAILED,
        "deployment-unknown",
        "This deployment is not known under the account; nothing was executed",
    );
    not_executed(problem.detail(format!("deployment {}: {why}", deployment.0)))
}

/// A refusal that was decided before anything was executed, with the mark that says so.
pub(in crate::http) fn not_executed(problem: Problem) -> Response {
    ([(NOT_EXECUTED, "true")], problem).into_response()
}

/// A header that stands there once and can be read; `None` if it does not stand there.
fn only<T>(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl FnOnce(&str) -> Option<T>,
    rule: &str,
) -> Result<Option<T>, Problem> {
    let mut given = headers.get_all(name).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let read = value.to_str().ok().and_then(|text| read(text.trim())).filter(|_| given.next().is_none());
    read.map(Some).ok_or_else(|| Problem::validation(vec![FieldError::new(name.as_str(), rule)]))
}
