//! The deployments that may charge under the caller's account: a list, and an operator's declaration of one more.
//! Executes no charge; fields are named as the columns.

use std::time::{Duration, SystemTime};

use api::payments::{DeclareRequest, Deployment, DeploymentList};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use chassis::caller::{Account, Presented};
use chassis::problem::{FieldError, Problem};
use http::{HeaderMap, HeaderName, StatusCode};
use uuid::Uuid;

use super::App;
use super::v1::failure_response;
use crate::deployments::{DEPLOYMENTS_MAX, Declaration, DeclareOutcome, DeploymentId, DeploymentRow};

/// Header with an operator's token beside the credentials of the account.
const OPERATOR_TOKEN: HeaderName = HeaderName::from_static("operator-token");

/// The longest `why` or `actor`, in bytes.
const TEXT_LEN_MAX: usize = 500;

const TITLE: &str = "Declaring a deployment needs an operator token";

fn to_deployment(row: &DeploymentRow) -> Deployment {
    let created_at = SystemTime::UNIX_EPOCH + Duration::from_millis(row.created_at_ms.unsigned_abs());
    Deployment {
        deployment_id: row.deployment.0.to_string(),
        account: row.account.clone(),
        how: row.how.as_str().into(),
        why: row.why.clone(),
        actor: row.actor.clone(),
        created_at: humantime::format_rfc3339_millis(created_at).to_string(),
    }
}

/// `GET /v1/deployments`: all deployments of the account, which are few.
pub(super) async fn list(State(app): State<App>, Extension(account): Extension<Account>) -> Response {
    match app.0.ledger.deployments(account.as_str()).await {
        Ok(rows) => Json(DeploymentList { items: rows.iter().map(to_deployment).collect(), next: None })
            .into_response(),
        Err(error) => failure_response(&error),
    }
}

/// `POST /v1/deployments`: 201 and the new row, or 200 and the row that was known already.
pub(super) async fn declare(
    State(app): State<App>,
    Extension(account): Extension<Account>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = check_operator(&app, &headers, TITLE).await {
        return refusal.into_response();
    }
    let declaration = match read(&account, &body) {
        Ok(declaration) => declaration,
        Err(problem) => return problem.into_response(),
    };
    match app.0.deployments.declare(&account, &declaration).await {
        Ok(DeclareOutcome::New(row)) => {
            tracing::warn!(
                deployment.id = %row.deployment.0,
                account = row.account,
                why = row.why,
                actor = row.actor,
                "an operator declared a deployment of billing"
            );
            (StatusCode::CREATED, Json(to_deployment(&row))).into_response()
        }
        Ok(DeclareOutcome::Known(row)) => Json(to_deployment(&row)).into_response(),
        Ok(DeclareOutcome::TooMany) => {
            let detail = format!("the account has {DEPLOYMENTS_MAX} deployments, which is the most");
            Problem::new(StatusCode::CONFLICT).detail(detail).into_response()
        }
        Err(error) => failure_response(&error),
    }
}

/// Requires an operator's token, where operators have tokens: the account's own credentials do not suffice.
pub(super) async fn check_operator(
    app: &App,
    headers: &HeaderMap,
    title: &'static str,
) -> Result<(), Problem> {
    let Some(operators) = &app.0.operators else { return Ok(()) };
    let mut tokens = headers.get_all(OPERATOR_TOKEN).iter();
    let token = tokens.next().and_then(|value| value.to_str().ok()).filter(|_| tokens.next().is_none());
    match operators.admit(&Presented { token, ..Presented::default() }).await {
        Ok(_) => Ok(()),
        Err((why, _)) => {
            tracing::warn!(reason = why.label(), "a request without an operator token was refused");
            let detail = "send one line of payments' --operator-token-file in the header Operator-Token";
            Err(Problem::named(StatusCode::FORBIDDEN, "operator-token", title).detail(detail))
        }
    }
}

fn read(account: &Account, body: &[u8]) -> Result<Declaration, Problem> {
    let body: DeclareRequest = serde_json::from_slice(body).map_err(|error| {
        Problem::validation(vec![FieldError::new("body", format!("is not as expected: {error}"))])
    })?;
    let deployment = Uuid::parse_str(&body.deployment_id).ok();
    let is_text = |text: &str| {
        !text.trim().is_empty() && text.len() <= TEXT_LEN_MAX && !text.chars().any(char::is_control)
    };
    let mut errors = Vec::new();
    errors.extend(deployment.is_none().then(|| FieldError::new("deployment_id", "is no uuid")));
    for (field, text) in [("why", &body.why), ("actor", &body.actor)] {
        let rule = format!("is not one line of 1 to {TEXT_LEN_MAX} bytes");
        errors.extend((!is_text(text)).then(|| FieldError::new(field, rule)));
    }
    match deployment {
        Some(deployment) if errors.is_empty() => Ok(Declaration {
            account: account.as_str().to_owned(),
            deployment: DeploymentId(deployment),
            why: body.why,
            actor: body.actor,
        }),
        _ => Err(Problem::validation(errors)),
    }
}
