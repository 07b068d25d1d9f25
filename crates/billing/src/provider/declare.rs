//! Declares this store's deployment at the payment service, once, by an operator's decision. Charges nothing and reads
//! no store.

use std::sync::atomic::Ordering;

use api::payments::DeclareRequest;
use bytes::Bytes;
use chassis::caller::Token;
use http::StatusCode;

use super::client::{Client, describe, insert};
use super::request::OPERATOR_TOKEN;
use crate::protocol::key::DeploymentId;

/// The most bytes of a refusal that are shown.
const SHOWN_BYTES_MAX: usize = 500;

/// Result of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclareOutcome {
    /// The payment service knows the deployment now, or did already.
    Known,
    /// The payment service rejected the declaration, for this reason.
    Refused(String),
}

impl Client {
    /// Declares the deployment under the account of our credentials, with an operator's token if one is needed.
    pub async fn declare(
        &self,
        deployment: DeploymentId,
        why: &str,
        actor: &str,
        operator: Option<&Token>,
    ) -> DeclareOutcome {
        let (deployment_id, why, actor) = (deployment.0.to_string(), why.to_owned(), actor.to_owned());
        let body = DeclareRequest { deployment_id, why, actor };
        let body = Bytes::from(serde_json::to_vec(&body).expect("texts make JSON"));
        let Some(uri) = self.beside("/v1/deployments") else {
            return DeclareOutcome::Refused("the endpoint is no URL".to_owned());
        };
        let first = self.token.load(Ordering::Relaxed);
        let mut said = DeclareOutcome::Refused("it was not asked".to_owned());
        for nth in 0..self.credentials() {
            let mut request = self.post(uri.clone(), body.clone(), first + nth);
            if let Some(token) = operator {
                insert(request.headers_mut(), OPERATOR_TOKEN, token.secret.expose());
            }
            let response = match self.http.send(request).await {
                Ok(response) => response,
                Err(failure) => return DeclareOutcome::Refused(describe(&failure)),
            };
            said = match response.status() {
                StatusCode::OK | StatusCode::CREATED => return DeclareOutcome::Known,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => DeclareOutcome::Refused(
                    "it has no list of deployments: it is an earlier version, or another provider, and checks none"
                        .to_owned(),
                ),
                status => {
                    let shown = &response.body()[..response.body().len().min(SHOWN_BYTES_MAX)];
                    DeclareOutcome::Refused(format!("{status}: {}", String::from_utf8_lossy(shown).trim()))
                }
            };
            if response.status() != StatusCode::FORBIDDEN {
                break;
            }
        }
        said
    }
}
