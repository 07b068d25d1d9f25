//! The meaning of responses: the whole response table, as one pure function of status, headers and body. "Where do we
//! decide what a 503 means?" Here. Knows no HTTP library, no store and no clock.
//!
//! The rule behind the rows: only a response with exactly one meaning is definite. Every other response leaves the
//! attempt in doubt, until a later send of the same key or an operator settles it, never a guess.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::dialect::Dialect;
use crate::protocol::transition::{AnswerClass, Idempotency};

#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The `Idempotency-Key` that was sent.
    pub key: &'a str,
    /// The `id` in the body that was sent.
    pub reference: &'a str,
    /// Configured idempotency of the provider.
    pub idempotency: Idempotency,
    /// The ledger that this store has settled with before.
    pub ledger: Option<&'a str>,
    /// The dialect of the provider's API.
    pub dialect: Dialect,
}

#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts<'a> {
    pub status: u16,
    pub content_type: Option<&'a str>,
    /// The whole body of the response.
    pub body: &'a [u8],
    /// `Idempotency-Key` of the response.
    pub key: Option<&'a str>,
    /// `Ledger-Id` of the response.
    pub ledger: Option<&'a str>,
    /// Whether the response has `Not-Executed: true`.
    pub not_executed: bool,
}

/// A class, and the row of the table that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub class: AnswerClass,
    /// The row of the table that gave the class.
    pub reason: Reason,
}

impl Verdict {
    /// Whether the next credential may be tried: this one was rejected, and nothing was executed.
    #[must_use]
    pub fn allows_another_credential(self) -> bool {
        self.reason == Reason::Credentials && self.class == WRONG
    }

    /// Whether the fault may be this one item's (such as an unknown customer) as well as the endpoint's.
    #[must_use]
    pub fn is_about_item_or_endpoint(self, status: Option<u16>) -> bool {
        use Reason::{Credentials, KeyForeign, NoSuchRoute, OtherStatus, TextPage, Unreadable};
        let is_client_error = status
            .is_some_and(|status| (400..500).contains(&status) && !TRY_AGAIN_STATUSES.contains(&status));
        is_client_error
            && matches!(
                self.reason,
                Credentials | KeyForeign | NoSuchRoute | OtherStatus | TextPage | Unreadable
            )
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// The row of the table that a response matched; for logs and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every row.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The row's stable name in logs.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

        }

        impl std::str::FromStr for Reason {
            type Err = crate::invoice::UnknownValue;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(crate::invoice::UnknownValue)
            }
        }
    };
}

reasons! {
    /// `result` is true.
    ResultTrue = "result-true",
    /// The `id` that was sent came back, without `result`.
    IdEchoed = "id-echoed",
    /// `result` is false.
    ResultFalse = "result-false",
    /// 402 with the `id` that was sent and an error.
    PaymentRefused = "payment-refused",
    /// A known validation message.
    Validation = "validation",
    /// Our ledger holds a tombstone for the key.
    KeyVoided = "key-voided",
    /// Our ledger knows the key with other data.
    KeyReused = "key-reused",
    /// Our ledger is executing the key at this moment.
    KeyInFlight = "key-in-flight",
    /// Our ledger has charged the reference under another key, and charges each reference once.
    ReferenceCharged = "reference-charged",
    /// The key belongs to another account in our ledger.
    KeyForeign = "key-foreign",
    /// Our ledger is not the one that was expected.
    LedgerMismatch = "ledger-mismatch",
    /// Our payment service does not know this store's deployment under the account.
    DeploymentUnknown = "deployment-unknown",
    /// Our ledger lacks a row that this store has seen.
    LedgerBehind = "ledger-behind",
    /// 429 or 503 with the not-executed mark.
    MarkedNotExecuted = "marked-not-executed",
    /// 401 or 403.
    Credentials = "credentials",
    /// 404, 405 or 412.
    NoSuchRoute = "no-such-route",
    /// An HTML or text page instead of a JSON response.
    TextPage = "text-page",
    /// 3xx: never followed.
    Redirect = "redirect",
    /// 5xx, 429 or 408 without a mark.
    Unavailable = "unavailable",
    /// Another status, or a body without a known field.
    OtherStatus = "other-status",
    /// Not JSON, a field twice or of a wrong type, or none that matters.
    Unreadable = "unreadable",
    /// The parts of the answer contradict each other.
    Contradictory = "contradictory",
    /// The response has another `id` than was sent.
    OtherId = "other-id",
    /// A definite response without the key, although the provider is configured to support keys.
    NoEcho = "no-echo",
    /// A response for another key.
    OtherEcho = "other-echo",
    /// A definite answer from another ledger than before.
    OtherLedger = "other-ledger",
    /// A definite answer that names no ledger, though one was named before.
    NoLedger = "no-ledger",
    /// No connection, or no connection on which a byte could be written.
    NotConnected = "not-connected",
    /// The time to send ended before a byte left.
    SendLate = "send-late",
    /// Bytes left and no readable response came in time.
    NoAnswer = "no-answer",
    /// A key that was to be voided is neither voided nor settled.
    NotVoided = "not-voided",
}

/// Statuses that mean that nothing was executed, and that the endpoint or the credentials are wrong. With keys this is
/// accepted, because the key is sent again. Without keys it is not: a gateway may replace a response with such a status
/// after the charge was executed.
const NOT_EXECUTED_STATUSES: [u16; 5] = [401, 403, 404, 405, 412];

/// Statuses that do not point to a fault of the item: the same request may succeed a moment later.
const TRY_AGAIN_STATUSES: [u16; 4] = [408, 409, 425, 429];

/// The body of the one such response that is accepted without keys: the known payment service answers 403 with it, as
/// plain text, before it reads the request's body.
const FORBIDDEN: &[u8] = b"Forbidden";

/// Prefix of the problem types of our own payment service.
const PROBLEM_PREFIX: &str = "urn:tinjis:problem:";

/// Prefixes of the validation messages of every known provider, in lower case.
const VALIDATION_PREFIXES: [&str; 5] = [
    "invalid request",
    "invalid value",
    "missing parameter",
    "failed to process payment request parameters",
    "could not retrieve payment ",
];

/// The meaning of a response.
#[must_use]
pub fn judge(request: &RequestFacts<'_>, response: &ResponseFacts<'_>) -> Verdict {
    let (class, reason) = classify_content(request, response);
    let (class, reason) = check_sender(request, response, class).unwrap_or((class, reason));
    Verdict { class, reason }
}

type Row = (AnswerClass, Reason);

const WRONG: AnswerClass = AnswerClass::EndpointWrong { not_executed: true };
const WRONG_MAYBE_EXECUTED: AnswerClass = AnswerClass::EndpointWrong { not_executed: false };

/// The class by status and body, before the sender is checked.
fn classify_content(request: &RequestFacts<'_>, response: &ResponseFacts<'_>) -> Row {
    // UTF-8 is checked first: an ignored string could otherwise hold invalid bytes (RFC 8259 section 8.1).
    let text = std::str::from_utf8(response.body).ok();
    let fields = text.and_then(|text| serde_json::from_str::<Fields>(text).ok());
    let says_charged = fields.as_ref().is_some_and(|fields| fields.result == Field::Is(true));
    match response.status {
        200 | 201 if !response.is_problem() => classify_success(request, response.status, fields.as_ref()),
        200..=299 | 400..=499
            if request.dialect == Dialect::StatusBlind
                && fields.as_ref().is_some_and(Fields::is_bare_result) =>
        {
            if says_charged {
                (AnswerClass::Charged, Reason::ResultTrue)
            } else {
                (AnswerClass::Refused, Reason::ResultFalse)
            }
        }
        _ if says_charged => (AnswerClass::InDoubt, Reason::Contradictory),
        429 | 503 if response.not_executed => (AnswerClass::NotSent, Reason::MarkedNotExecuted),
        300..=399 => (AnswerClass::InDoubt, Reason::Redirect),
        408 | 429 | 500..=599 => (AnswerClass::InDoubt, Reason::Unavailable),
        400..=499 => {
            let problem = fields
                .as_ref()
                .filter(|_| response.is_problem())
                .and_then(|f| classify_problem(response.status, f));
            problem.unwrap_or_else(|| classify_client_error(request, response, fields.as_ref()))
        }
        _ => (AnswerClass::InDoubt, Reason::OtherStatus),
    }
}

/// The row for a 200 or 201.
fn classify_success(request: &RequestFacts<'_>, status: u16, fields: Option<&Fields>) -> Row {
    let Some(fields) = fields else { return (AnswerClass::InDoubt, Reason::Unreadable) };
    match (&fields.result, &fields.id) {
        (Field::Is(true), _) if fields.error != Field::Absent => {
            (AnswerClass::InDoubt, Reason::Contradictory)
        }
        (Field::Is(true), _) => (AnswerClass::Charged, Reason::ResultTrue),
        (Field::Is(false), _) => (AnswerClass::Refused, Reason::ResultFalse),
        (Field::Absent, Field::Is(id)) if id != request.reference => (AnswerClass::InDoubt, Reason::OtherId),
        (Field::Absent, Field::Is(_)) if status == 200 && fields.error == Field::Absent => {
            (AnswerClass::Charged, Reason::IdEchoed)
        }
        _ => (AnswerClass::InDoubt, Reason::Unreadable),
    }
}

/// The row for a problem of our own payment service; `None` if its type is unknown.
fn classify_problem(status: u16, fields: &Fields) -> Option<Row> {
    let Field::Is(name) = &fields.problem else { return None };
    if fields.result != Field::Absent {
        return Some((AnswerClass::InDoubt, Reason::Contradictory));
    }
    match (name.strip_prefix(PROBLEM_PREFIX)?, status) {
        ("key-voided", 410) => Some((AnswerClass::Voided, Reason::KeyVoided)),
        ("key-reused", 422) => Some((AnswerClass::KeyReused, Reason::KeyReused)),
        ("key-in-flight", 409) => Some((AnswerClass::InDoubt, Reason::KeyInFlight)),
        // A resend would change nothing: an operator must find out whose charge that was.
        ("reference-charged", 409) => Some((AnswerClass::KeyReused, Reason::ReferenceCharged)),
        ("key-foreign", 403) => Some((WRONG, Reason::KeyForeign)),
        ("ledger-mismatch", 412) => Some((WRONG, Reason::LedgerMismatch)),
        ("deployment-unknown", 412) => Some((WRONG, Reason::DeploymentUnknown)),
        ("ledger-behind", 412) => Some((WRONG, Reason::LedgerBehind)),
        ("validation", 400 | 422) => Some((AnswerClass::Invalid, Reason::Validation)),
        _ => None,
    }
}

/// The row for a 4xx other than 408 and 429.
fn classify_client_error(
    request: &RequestFacts<'_>,
    response: &ResponseFacts<'_>,
    fields: Option<&Fields>,
) -> Row {
    let status = response.status;
    if NOT_EXECUTED_STATUSES.contains(&status) {
        let reason = if matches!(status, 401 | 403) { Reason::Credentials } else { Reason::NoSuchRoute };
        let believed = request.idempotency == Idempotency::Keys || response.is_decided_before_execution();
        return (if believed { WRONG } else { WRONG_MAYBE_EXECUTED }, reason);
    }
    let Some(fields) = fields else {
        return match status {
            409 => (AnswerClass::InDoubt, Reason::OtherStatus),
            _ if response.is_text() => (WRONG_MAYBE_EXECUTED, Reason::TextPage),
            _ => (AnswerClass::InDoubt, Reason::Unreadable),
        };
    };
    match (status, &fields.result, &fields.id) {
        (_, Field::Unclear, _) => (AnswerClass::InDoubt, Reason::Unreadable),
        (402 | 422, Field::Is(false), _) => (AnswerClass::Refused, Reason::ResultFalse),
        (402, Field::Absent, Field::Is(id)) if id != request.reference => {
            (AnswerClass::InDoubt, Reason::OtherId)
        }
        (402, Field::Absent, Field::Is(_)) if matches!(fields.error, Field::Is(_)) => {
            (AnswerClass::Refused, Reason::PaymentRefused)
        }
        (400 | 422, _, _) if fields.has_validation_error() => (AnswerClass::Invalid, Reason::Validation),
        _ => (AnswerClass::InDoubt, Reason::OtherStatus),
    }
}

/// Checks the sender of a definite response; `Some` replaces its class.
fn check_sender(request: &RequestFacts<'_>, response: &ResponseFacts<'_>, class: AnswerClass) -> Option<Row> {
    let executed = matches!(class, AnswerClass::Charged | AnswerClass::Refused);
    let definite = matches!(class, AnswerClass::Voided | AnswerClass::KeyReused | AnswerClass::Invalid);
    if !executed && !definite {
        return None;
    }
    match response.key.map(unquote) {
        Some(echo) if echo != request.key => return Some((WRONG_MAYBE_EXECUTED, Reason::OtherEcho)),
        None if request.idempotency == Idempotency::Keys => {
            let class = if executed { AnswerClass::Unkeyed } else { WRONG_MAYBE_EXECUTED };
            return Some((class, Reason::NoEcho));
        }
        _ => {}
    }
    match (request.ledger, response.ledger) {
        (Some(before), Some(now)) if before != now => Some((WRONG_MAYBE_EXECUTED, Reason::OtherLedger)),
        (Some(_), None) if request.idempotency == Idempotency::Keys => {
            Some((WRONG_MAYBE_EXECUTED, Reason::NoLedger))
        }
        _ => None,
    }
}

/// A key without the quotes that the header's draft standard puts around it.
fn unquote(key: &str) -> &str {
    key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key)
}

impl ResponseFacts<'_> {
    fn media_type(&self) -> String {
        let whole = self.content_type.unwrap_or_default();
        whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Whether it is exactly the known payment service's response to a wrong or missing token.
    fn is_decided_before_execution(&self) -> bool {
        let body = self.body.strip_suffix(b"\n").unwrap_or(self.body);
        self.status == 403 && self.media_type() == "text/plain" && body == FORBIDDEN
    }

    fn is_problem(&self) -> bool {
        self.media_type() == "application/problem+json"
    }

    fn is_text(&self) -> bool {
        let media_type = self.media_type();
        media_type.starts_with("text/") || media_type == "application/xhtml+xml"
    }
}

/// A field that the table uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Field<T> {
    /// Missing; for message texts also null or empty.
    #[default]
    Absent,
    /// Present once, with a value of the right type.
    Is(T),
    /// Present twice, or with an unreadable value.
    Unclear,
}

impl<T> Field<T> {
    fn set(&mut self, value: Option<T>) {
        *self = match (&self, value) {
            (Self::Absent, Some(value)) => Self::Is(value),
            _ => Self::Unclear,
        };
    }
}

/// The fields of a JSON object that the table uses, their names in any case.
#[derive(Debug, Default)]
struct Fields {
    result: Field<bool>,
    id: Field<String>,
    error: Field<String>,
    message: Field<String>,
    problem: Field<String>,
}

impl Fields {
    /// A readable `result` without an error message or a problem type.
    fn is_bare_result(&self) -> bool {
        matches!(self.result, Field::Is(_))
            && [&self.error, &self.message, &self.problem].into_iter().all(|field| *field == Field::Absent)
    }

    fn has_validation_error(&self) -> bool {
        [&self.error, &self.message].into_iter().any(|field| {
            let Field::Is(text) = field else { return false };
            let text = text.to_ascii_lowercase();
            VALIDATION_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        })
    }

    fn set(&mut self, name: &str, value: Value) {
        match name {
            "result" => self.result.set(to_bool(&value)),
            "id" => self.id.set(to_text(value)),
            _ if value.is_null() || value == "" => {}
            "error" => self.error.set(to_text(value)),
            "message" => self.message.set(to_text(value)),
            _ => self.problem.set(to_text(value)),
        }
    }
}

fn to_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(word) if word.eq_ignore_ascii_case("true") => Some(true),
        Value::String(word) if word.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn to_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<String>()? {
                    let name = name.to_ascii_lowercase();
                    if ["result", "id", "error", "message", "type"].contains(&name.as_str()) {
                        fields.set(&name, map.next_value().map_err(de::Error::custom)?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests;
