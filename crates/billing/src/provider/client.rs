//! The call itself: sends one attempt and returns one verdict. Sends nothing twice, except that a rejected credential
//! is replaced by the next one of the token file where the response table says that nothing was executed. Knows no
//! store, no run and no lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::billing::{EntryState, RepairRow};
use bytes::Bytes;
use chassis::caller::{Token, Tokens};
use chassis::client::{Cause, ClientConfig, Failure, SendBefore};
use chassis::clock::Clock;
use chassis::telemetry::Tracer;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use tokio::time::Instant;

use super::Dialect;
use super::answer::{Reason, RequestFacts, ResponseFacts, Verdict, judge};
use super::decline;
use super::request::{
    self, DEPLOYMENT_ID, EXPECT_LEDGER, IDEMPOTENCY_KEY, LEDGER_ID, LEDGER_SEEN, LEDGER_SEQ, NOT_EXECUTED,
    X_TOKEN,
};
use super::retry_after::retry_after;
use super::trace::Sends;
use crate::invoice::{Attempt, Decline};
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::{AnswerClass, Idempotency};

/// The most credentials that one call tries: the one that worked last, and the next.
pub(super) const CREDENTIALS_MAX: usize = 2;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Settings of the provider.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// URL to which charges are POSTed, unchanged.
    pub endpoint: Uri,
    /// Configured idempotency of the provider.
    pub idempotency: Idempotency,
    /// The dialect of the provider's API.
    pub dialect: Dialect,
    /// The credentials to send, if any.
    pub tokens: Option<Tokens>,
    /// The signed token to send in addition, if any: the first one in its file.
    pub bearer: Option<Tokens>,
    /// The deadline of one request, including the connection.
    pub deadline: Duration,
}

impl ProviderConfig {
    /// How the provider is connected to, besides the defaults: without keys by one connection per call, for a response
    /// that comes late or twice on a kept connection would be taken for the response to the next invoice.
    #[must_use]
    pub fn connections(idempotency: Idempotency, deadline: Duration) -> ClientConfig {
        let reuse = idempotency == Idempotency::Keys;
        ClientConfig { deadline, reuse, ..ClientConfig::default() }
    }
}

/// The conditions under which the provider may execute a request. A provider that does not know them ignores them.
#[derive(Clone, Copy, Debug)]
pub struct Preconditions<'a> {
    /// The deployment id of the store that sends.
    pub deployment: DeploymentId,
    /// The only ledger that may execute the request, if one is remembered.
    pub ledger: Option<&'a str>,
    /// The last row of that ledger that was seen.
    pub seen: Option<i64>,
}

/// Calls the provider. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) http: chassis::client::Client,
    config: Arc<ProviderConfig>,
    /// The line of the token file that worked last.
    pub(super) token: Arc<AtomicUsize>,
    sends: Arc<Sends>,
}

/// Result of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The meaning of the response.
    pub verdict: Verdict,
    /// Whether there was any response.
    pub answered: bool,
    /// The status, if there was a response.
    pub status: Option<u16>,
    /// The ledger that the response named.
    pub ledger: Option<String>,
    /// The ledger's row from which the response was made.
    pub seq: Option<i64>,
    /// How long the provider asks for no requests.
    pub retry_after: Option<Duration>,
    /// Why the provider refused, if it did.
    pub decline: Option<Decline>,
    /// The transport error, for the log.
    pub failure: Option<String>,
}

/// Result of voiding a key at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoidOutcome {
    /// The key is voided: it is not charged and never will be.
    Voided,
    /// The key was refused earlier, for this reason: it is not charged and never will be.
    Refused(Decline),
    /// The key is charged.
    Charged,
    /// The state of the key is unknown, for this reason.
    Unknown(String),
}

impl Client {
    /// A client that uses these connections.
    #[must_use]
    pub fn new(http: chassis::client::Client, config: ProviderConfig) -> Self {
        Self { http, config: Arc::new(config), token: Arc::default(), sends: Arc::default() }
    }

    /// The tracer that records the spans of its calls.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        self.http.tracer()
    }

    /// Configured idempotency of the provider.
    #[must_use]
    pub fn idempotency(&self) -> Idempotency {
        self.config.idempotency
    }

    /// The longest duration of one [`Self::charge`].
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.config.deadline * u32::try_from(CREDENTIALS_MAX).unwrap_or(u32::MAX)
    }

    /// Sends an attempt. No byte of it leaves from `send_before` on, even if this process was paused: others may have
    /// decided on the attempt by then.
    pub async fn charge(
        &self,
        attempt: &Attempt,
        preconditions: Preconditions<'_>,
        send_before: Instant,
    ) -> Answer {
        let body = Bytes::from(request::body(attempt, self.config.dialect));
        let first = self.token.load(Ordering::Relaxed);
        let deliver = async |nth| {
            let uri = self.config.endpoint.clone();
            let mut request = self.request(uri, &attempt.key, preconditions, body.clone(), first + nth);
            request.extensions_mut().insert(SendBefore(send_before));
            let traced = self.sends.traced(self.tracer(), attempt, nth);
            let is_traced = traced.as_ref().is_some_and(|traced| traced.context.is_sampled());
            if let Some(traced) = traced {
                request.extensions_mut().insert(traced);
            }
            let (answer, was_sent) = match self.http.send(request).await {
                Ok(response) => (self.classify(attempt, preconditions.ledger, &response), true),
                Err(failure) => (transport_error(&failure), matches!(failure, Failure::Unknown(_))),
            };
            if is_traced && was_sent {
                self.sends.ended(attempt, nth, answer.verdict);
            }
            answer
        };
        let mut answer = deliver(0).await;
        for nth in 1..self.credentials() {
            if !answer.verdict.allows_another_credential() {
                break;
            }
            answer = deliver(nth).await;
            if answer.answered && !answer.verdict.allows_another_credential() {
                self.prefer_credential(first, first + nth);
            }
        }
        answer
    }

    /// Remembers which credential worked; of several calls that find one at once, the first decides.
    fn prefer_credential(&self, was: usize, now: usize) {
        if self.token.compare_exchange(was, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!("the provider rejected the current token and accepted the next one of the file");
        }
    }

    fn classify(&self, attempt: &Attempt, ledger: Option<&str>, response: &Response<Bytes>) -> Answer {
        let headers = response.headers();
        let request = RequestFacts {
            key: attempt.key.as_str(),
            reference: attempt.reference.as_str(),
            idempotency: self.config.idempotency,
            ledger,
            dialect: self.config.dialect,
        };
        let facts = ResponseFacts {
            status: response.status().as_u16(),
            content_type: only(headers, &header::CONTENT_TYPE),
            body: response.body(),
            key: only(headers, &IDEMPOTENCY_KEY),
            ledger: only(headers, &LEDGER_ID),
            not_executed: only(headers, &NOT_EXECUTED).is_some_and(|mark| mark.eq_ignore_ascii_case("true")),
        };
        let verdict = judge(&request, &facts);
        // Only in a response with a key: without it, nothing shows whose answer the header belongs to.
        let refused = verdict.class == AnswerClass::Refused && facts.key.is_some();
        Answer {
            verdict,
            decline: refused.then(|| declined(headers, request.key)),
            answered: true,
            status: Some(facts.status),
            ledger: facts.ledger.map(ToOwned::to_owned),
            seq: only(headers, &LEDGER_SEQ).and_then(|seq| seq.parse().ok()).filter(|seq| *seq >= 1),
            retry_after: only(headers, &header::RETRY_AFTER).and_then(|value| {
                let date = only(headers, &header::DATE);
                retry_after(response.status().as_u16(), value, date, Clock::system().now())
            }),
            failure: None,
        }
    }

    /// Asks the provider to make sure that this key is never charged.
    pub async fn void(&self, key: &Key, preconditions: Preconditions<'_>) -> VoidOutcome {
        let Some(uri) = self.beside(&format!("/v1/ledger/{key}/void")) else {
            return VoidOutcome::Unknown("the endpoint is no URL".into());
        };
        let first = self.token.load(Ordering::Relaxed);
        let mut outcome = VoidOutcome::Unknown("the provider was not asked".into());
        for nth in 0..self.credentials() {
            let request = self.request(uri.clone(), key, preconditions, Bytes::new(), first + nth);
            let response = match self.http.send(request).await {
                Ok(response) => response,
                Err(failure) => return VoidOutcome::Unknown(describe(&failure)),
            };
            outcome = judge_void(key, preconditions.ledger, &response);
            if response.status() != http::StatusCode::FORBIDDEN {
                break;
            }
        }
        outcome
    }

    fn request(
        &self,
        uri: Uri,
        key: &Key,
        preconditions: Preconditions<'_>,
        body: Bytes,
        token: usize,
    ) -> Request<Bytes> {
        let mut request = self.post(uri, body, token);
        let headers = request.headers_mut();
        insert(headers, IDEMPOTENCY_KEY, key.as_str());
        insert(headers, DEPLOYMENT_ID, &preconditions.deployment.0.to_string());
        if let Some(ledger) = preconditions.ledger {
            insert(headers, EXPECT_LEDGER, ledger);
        }
        if let Some(seen) = preconditions.seen {
            headers.insert(LEDGER_SEEN, HeaderValue::from(seen));
        }
        request
    }

    /// The URI of another path on the provider's host.
    pub(super) fn beside(&self, path: &str) -> Option<Uri> {
        let mut parts = self.config.endpoint.clone().into_parts();
        parts.path_and_query = path.parse().ok();
        Uri::from_parts(parts).ok()
    }

    /// A request with our credentials and no conditions.
    pub(super) fn post(&self, uri: Uri, body: Bytes, token: usize) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::ACCEPT, JSON);
        let tokens = self.tokens();
        if !tokens.is_empty() {
            insert(headers, X_TOKEN, tokens[token % tokens.len()].secret.expose());
        }
        if let Some(signed) = self.config.bearer.as_ref().and_then(|tokens| tokens.current().first().cloned())
        {
            insert(headers, header::AUTHORIZATION, &format!("Bearer {}", signed.secret.expose()));
        }
        request
    }

    /// Maximum number of credentials that one call tries.
    pub(super) fn credentials(&self) -> usize {
        self.tokens().len().clamp(1, CREDENTIALS_MAX)
    }

    fn tokens(&self) -> Arc<[Token]> {
        self.config.tokens.as_ref().map_or_else(|| Arc::new([]) as Arc<[Token]>, Tokens::current)
    }
}

/// A header that occurs exactly once. A repeated or unreadable header counts as wrong.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().unwrap_or("?");
    Some(if values.next().is_some() { "?" } else { first })
}

/// Omits a text that no header can hold: the provider then refuses, and nothing is charged.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::from_bytes(text.as_bytes()) {
        Ok(mut value) => {
            value.set_sensitive([X_TOKEN, request::OPERATOR_TOKEN, header::AUTHORIZATION].contains(&name));
            headers.insert(name, value);
        }
        Err(_) => {
            tracing::error!(header = name.as_str(), "a value is not allowed in a header and was left out")
        }
    }
}

/// Why a request was refused. A header that is missing, repeated or malformed gives no reason: such a decline restricts
/// no further attempt.
fn declined(headers: &HeaderMap, key: &str) -> Decline {
    let said = only(headers, &request::DECLINE).and_then(decline::parse);
    if said.is_none() && headers.contains_key(&request::DECLINE) {
        tracing::warn!(attempt.key = key, "the header Decline cannot be read: the decline is unknown");
    }
    said.unwrap_or_default()
}

fn transport_error(failure: &Failure) -> Answer {
    let (class, reason) = match failure {
        Failure::NotSent(Cause::SendLate) => (AnswerClass::NotSent, Reason::SendLate),
        Failure::NotSent(_) => (AnswerClass::NotSent, Reason::NotConnected),
        Failure::Unknown(_) => (AnswerClass::InDoubt, Reason::NoAnswer),
    };
    let failure = Some(describe(failure));
    Answer {
        verdict: Verdict { class, reason },
        answered: false,
        status: None,
        ledger: None,
        seq: None,
        retry_after: None,
        decline: None,
        failure,
    }
}

pub(super) fn describe(failure: &Failure) -> String {
    format!("{failure}: {}", failure.cause())
}

fn judge_void(key: &Key, ledger: Option<&str>, response: &Response<Bytes>) -> VoidOutcome {
    let named = only(response.headers(), &LEDGER_ID);
    if ledger.is_some() && named != ledger {
        return VoidOutcome::Unknown("the answer comes from another ledger".into());
    }
    let row = serde_json::from_slice::<RepairRow>(response.body()).ok();
    let row = row.filter(|row| row.key.as_deref() == Some(key.as_str()));
    match (response.status().as_u16(), row) {
        (200, Some(RepairRow { state: EntryState::Voided, .. })) => VoidOutcome::Voided,
        (200, Some(RepairRow { state: EntryState::Refused, decline_class, decline_code, .. })) => {
            VoidOutcome::Refused(decline::of_row(decline_class.as_deref(), decline_code.as_deref()))
        }
        (409, _) => VoidOutcome::Charged,
        (status, _) => VoidOutcome::Unknown(format!("it answered {status}")),
    }
}
