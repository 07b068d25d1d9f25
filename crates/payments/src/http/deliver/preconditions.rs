//! The conditions that a caller may set for the ledger, and the ledger for a caller's deployment, checked before
//! anything is executed. An unmet condition is a 412 with the header `Not-Executed`. Knows no route and no body.

use axum::response::{IntoResponse, Response};
use chassis::caller::Account;
use chassis::problem::{FieldError, Problem};
use chassis::server::NOT_EXECUTED;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use uuid::Uuid;

use super::super::App;
use super::unavailable_response;
use crate::deployments::{DeploymentId, Unknown};
use crate::ledger::Seq;

const EXPECT_LEDGER: HeaderName = HeaderName::from_static("expect-ledger");
/// Header with the last row that the caller has seen.
const LEDGER_SEEN: HeaderName = HeaderName::from_static("ledger-seen");
/// Header with the deployment of billing that sends the request.
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
    parse_single_header(headers, &LEDGER_SEEN, seq, "is no position of a ledger: a whole number from 1")
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

/// Refuses a deployment that is not known under the account. A caller that names no deployment is not checked here:
/// foreign clients and earlier versions of billing name none. For such a caller the ledger refuses a key that another
/// account charged.
pub(in crate::http) async fn check_deployment(
    app: &App,
    headers: &HeaderMap,
    account: &Account,
) -> Result<Option<DeploymentId>, Response> {
    let id = |text: &str| Uuid::parse_str(text).ok().map(DeploymentId);
    let deployment = parse_single_header(headers, &DEPLOYMENT_ID, id, "is no uuid")
        .map_err(IntoResponse::into_response)?;
    let Some(deployment) = deployment else { return Ok(None) };
    match app.0.deployments.admit(account, deployment).await {
        Ok(Ok(())) => Ok(Some(deployment)),
        Ok(Err(why)) => Err(unknown_deployment_response(deployment, why)),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "ledger operation failed");
            Err(([(NOT_EXECUTED, "true")], unavailable_response()).into_response())
        }
    }
}

fn unknown_deployment_response(deployment: DeploymentId, why: Unknown) -> Response {
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

/// A refusal before anything was executed, marked as such.
pub(in crate::http) fn not_executed(problem: Problem) -> Response {
    ([(NOT_EXECUTED, "true")], problem).into_response()
}

/// Reads a header that may occur once; `None` if it is absent.
fn parse_single_header<T>(
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
