//! JSON calls to one service: its address, its token if it requires one, and answers as types. Knows no route; one call
//! is one request, and nothing is retried here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use api::problem::{FieldError, Problem};
use bytes::Bytes;
use chassis::client::{Client, ClientConfig, Failure, http_url};
use chassis::config::Secret;
use chassis::tls::TlsConnect;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use serde::de::DeserializeOwned;

/// Timeout of one call; a batch of an import may wait for a busy disk.
const DEADLINE: Duration = Duration::from_secs(60);

/// Maximum size of an answer. The pages below fit, each with the longest items that a service may hold.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Items of a page: the maximum of the services.
pub(crate) const PAGE: usize = 1000;

/// Items of a page whose items have a reason and an actor.
pub(crate) const AUDIT_PAGE: usize = 500;

/// Items of a page of subscriptions, which may have many prices.
pub(crate) const SUBSCRIPTIONS_PAGE: usize = 100;

/// The address of a service: `http://host:port`, optionally with a path before its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl(String);

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/');
        match http_url(text, "http://127.0.0.1:8000")?.query() {
            None => Ok(Self(text.to_owned())),
            Some(_) => Err(format!("must have nothing after the path, not {text:?}")),
        }
    }
}

impl BaseUrl {
    /// Whether the service is called over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The address of a service on this machine over TLS, by the name in its certificate.
    pub(crate) fn secure(host: &str, port: u16) -> Self {
        Self(format!("https://{host}:{port}"))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call has no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer.
    #[error("{url} is not reachable: {}", .failure.cause())]
    NotReachable {
        url: String,
        /// The cause; part of the message above, so that it is not repeated as a source.
        failure: Failure,
    },
    /// An error response.
    #[error("{url} answered {status}{detail}")]
    Refused {
        url: String,
        /// The status code, such as 403.
        status: StatusCode,
        /// The problem's type, or empty.
        problem: String,
        /// The problem's message.
        detail: String,
    },
    /// An answer in another form than the route promises: from another service, or another version.
    #[error("{url} did not answer as this version of the service does: {why}")]
    Strange {
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
}

/// The text that an operator reads after the status: the message, then each wrong field.
fn words(problem: &Problem) -> String {
    let text = if problem.detail.is_empty() { &*problem.title } else { &problem.detail };
    let fields = problem.errors.iter().map(|FieldError { field, message }| format!("{field} {message}"));
    // A detail that already contains a field's message is enough.
    let fields = fields.filter(|words| !words.split_once(' ').is_some_and(|(_, said)| text.contains(said)));
    let parts: Vec<String> =
        Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().chain(fields).collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join("; ")) }
}

/// The header in which a service expects its token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheme {
    /// Billing's writing routes: `Authorization: Bearer`.
    Bearer,
    /// The payment service: `X-Token`.
    XToken,
}

fn limits() -> ClientConfig {
    ClientConfig { deadline: DEADLINE, body_bytes_max: BODY_BYTES_MAX, ..ClientConfig::default() }
}

/// A client of one service.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    base: BaseUrl,
    token: Option<(HeaderName, HeaderValue)>,
}

impl Api {
    pub(crate) fn new(base: BaseUrl) -> Self {
        Self { client: Client::new(limits()), base, token: None }
    }

    /// A client of a service over TLS.
    pub(crate) fn over_tls(base: BaseUrl, connect: TlsConnect) -> Self {
        Self { client: Client::with_connect(limits(), connect), base, token: None }
    }

    /// Sends this token with each call.
    pub(crate) fn with_token(mut self, scheme: Scheme, token: &Secret) -> anyhow::Result<Self> {
        let (name, text) = match scheme {
            Scheme::Bearer => (header::AUTHORIZATION, format!("Bearer {}", token.expose())),
            Scheme::XToken => (HeaderName::from_static("x-token"), token.expose().to_owned()),
        };
        let mut value =
            HeaderValue::try_from(text).map_err(|_| anyhow::anyhow!("a token must be visible ASCII"))?;
        value.set_sensitive(true);
        self.token = Some((name, value));
        Ok(self)
    }

    pub(crate) fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// GET of something that must exist.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let answer = self.call(Method::GET, path, None, Bytes::new()).await?;
        self.read(path, &answer)
    }

    /// GET of something that may not exist.
    pub(crate) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, CallError> {
        match self.call(Method::GET, path, None, Bytes::new()).await {
            Ok(answer) => self.read(path, &answer).map(Some),
            Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// GET of text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, CallError> {
        let answer = self.call(Method::GET, path, None, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// POST of a body of this media type.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        media_type: &'static str,
        body: Bytes,
    ) -> Result<T, CallError> {
        let answer = self.call(Method::POST, path, Some(media_type), body).await?;
        self.read(path, &answer)
    }

    /// PUT of a body of this media type, where only the status of the answer matters.
    pub(crate) async fn push(
        &self,
        path: &str,
        media_type: &'static str,
        body: Bytes,
    ) -> Result<(), CallError> {
        self.call(Method::PUT, path, Some(media_type), body).await.map(drop)
    }

    /// PUT of a body of this media type.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        media_type: &'static str,
        body: Bytes,
    ) -> Result<T, CallError> {
        let answer = self.call(Method::PUT, path, Some(media_type), body).await?;
        self.read(path, &answer)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        media_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let url = self.url(path);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        if let Some((name, value)) = &self.token {
            request = request.header(name, value);
        }
        let strange = |why: String| CallError::Strange { url: url.clone(), why };
        let request = request.body(body).map_err(|error| strange(error.to_string()))?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|failure| CallError::NotReachable { url: url.clone(), failure })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let problem: Problem = serde_json::from_slice(answer.body()).unwrap_or_default();
        let detail = words(&problem);
        Err(CallError::Refused { url, status, problem: problem.type_.into_owned(), detail })
    }

    fn read<T: DeserializeOwned>(&self, path: &str, answer: &Bytes) -> Result<T, CallError> {
        let strange =
            |error: serde_json::Error| CallError::Strange { url: self.url(path), why: error.to_string() };
        serde_json::from_slice(answer).map_err(strange)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Encodes a text as one segment of a path.
pub(crate) fn encode_segment(text: &str) -> String {
    use fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            path.push(char::from(byte));
        } else {
            // A dot is encoded too: a segment of dots only would be resolved away.
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use api::billing::{Page, Price, REASON_BYTES_MAX, Resolution, Subscription};
    use api::payments::LEDGER_PAGE_JSON_BYTES_MAX;
    use billing::money::AMOUNT_MINOR_MAX;
    use billing::reference::Reference;
    use billing::schedule::prices::PRICES_MAX;
    use serde::Serialize;

    use super::*;

    fn page_bytes<T: Serialize + Clone>(item: &T, items: usize) -> usize {
        let page =
            Page { items: vec![item.clone(); items], next: Some("9223372036854775807.1000".to_owned()) };
        serde_json::to_vec(&page).expect("texts make JSON").len()
    }

    /// The texts have the maximum number of bytes. JSON writes each byte as two, or as six where control characters are
    /// accepted.
    #[test]
    fn pages_of_the_longest_items_fit_the_largest_answer() {
        const { assert!(LEDGER_PAGE_JSON_BYTES_MAX <= BODY_BYTES_MAX) };
        let reference = "\"".repeat(Reference::LEN_MAX);
        let reason = "\u{1}".repeat(REASON_BYTES_MAX);
        let time = "2026-11-29T12:00:00.000Z".to_owned();
        let resolution = Resolution {
            id: i64::MAX,
            key: "0".repeat(32),
            reference: reference.clone(),
            decision: "not_charged".into(),
            attempt_from: Some("IN_DOUBT".into()),
            attempt_to: Some("REJECTED".into()),
            invoice_from: Some("CANCELLED".into()),
            invoice_to: Some("CANCELLED".into()),
            reason: reason.clone(),
            actor: reason,
            created_at: time.clone(),
        };
        assert!(page_bytes(&resolution, AUDIT_PAGE) <= BODY_BYTES_MAX);
        let price = Price { from: "2026-11-29".to_owned(), amount: format!("{AMOUNT_MINOR_MAX}.000") };
        let subscription = Subscription {
            reference: reference.clone(),
            customer_id: i64::MAX,
            customer_reference: Some(reference),
            currency: "EUR".into(),
            prices: vec![price; PRICES_MAX],
            anchor_day: 31,
            every_months: 12,
            zone: "America/Argentina/ComodRivadavia".into(),
            at: "06:00:00".to_owned(),
            starts_on: "2026-11-29".to_owned(),
            ends_on: Some("2026-11-29".to_owned()),
            holidays: "previous".into(),
            state: "paused".into(),
            next_on: Some("2026-11-29".to_owned()),
            next_charge_at: Some(time.clone()),
            last_on: Some("2026-11-29".to_owned()),
            created_at: time.clone(),
            updated_at: time,
        };
        assert!(page_bytes(&subscription, SUBSCRIPTIONS_PAGE) <= BODY_BYTES_MAX);
        // Full pages of these lists would not fit, so they are read in shorter pages.
        assert!(page_bytes(&resolution, PAGE) > BODY_BYTES_MAX);
        assert!(page_bytes(&subscription, PAGE) > BODY_BYTES_MAX);
    }

    #[test]
    fn a_base_url_has_a_scheme_and_a_host() {
        for (text, kept) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://billing/", "http://billing"),
            ("https://billing/", "https://billing"),
            ("http://proxy/billing//", "http://proxy/billing"),
            ("http://proxy/a@b", "http://proxy/a@b"),
        ] {
            assert_eq!(text.parse::<BaseUrl>().unwrap().to_string(), kept);
        }
        for text in ["", "127.0.0.1:8000", "localhost:8000", "http://u:p@x", "ftp://x", "http://x?y", "/x"]
            .into_iter()
            .chain([
                "http://x:0",
                "http://x:99999",
                "https://[::1]:65536",
                "http://x:+80",
                "http://x#y",
                "http://x/#",
            ])
        {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn who_is_not_reachable_is_reported_once() {
        let api = Api::new("http://127.0.0.1:9".parse().unwrap());
        let error = anyhow::Error::from(api.text("/x").await.unwrap_err());
        let said = format!("{error:#}");
        assert_eq!(said.matches("cannot connect").count(), 1, "{said}");
        assert_eq!(said.matches("refused").count(), 1, "{said}");
    }

    #[test]
    fn a_problem_is_reported_with_every_field_that_was_wrong() {
        let words = |json: &str| words(&serde_json::from_str(json).unwrap());
        let fields = r#"{"title":"The request is not valid","errors":[{"field":"reason","message":"must have 1 to 1000 bytes"},
            {"field":"actor","message":"is missing"}]}"#;
        assert_eq!(
            words(fields),
            ": The request is not valid; reason must have 1 to 1000 bytes; actor is missing"
        );
        let repeated = r#"{"title":"T","detail":"no: unknown field `x`","errors":[{"field":"x","message":"unknown field `x`"}]}"#;
        assert_eq!(words(repeated), ": no: unknown field `x`");
        assert_eq!(words(r#"{"title":"Forbidden"}"#), ": Forbidden");
        assert_eq!(words("{}"), "");
    }

    #[test]
    fn any_reference_is_one_segment() {
        assert_eq!(encode_segment("I-1_a~"), "I-1_a~");
        assert_eq!(encode_segment("../a b/ä%"), "%2E%2E%2Fa%20b%2F%C3%A4%25");
    }
}
