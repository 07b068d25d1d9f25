//! Why callers were rejected, and how often. The reason goes to metrics and the log, never to the caller.
//! Knows no credential.

use prometheus::IntCounterVec;

use crate::server::CrossSite;
use crate::telemetry::Metrics;

/// Why a caller was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No credentials.
    NoCredential,
    /// Each proof is needed, and there was no certificate.
    NoCertificate,
    /// Its name is not on the allow-list.
    CertificateUnknown,
    /// Each proof is needed, and there was no static token.
    NoToken,
    /// No line of the file is this token.
    TokenUnknown,
    /// Each proof is needed, and there was no signed token.
    NoJwt,
    /// It is no signed token, or too long.
    JwtMalformed,
    /// Its algorithm is not accepted, or is not the one of its key.
    JwtAlgorithm,
    /// The key that it names is unknown.
    JwtUnknownKey,
    /// The signature is not that of the key that it names.
    JwtSignature,
    /// It has another issuer.
    JwtIssuer,
    /// It has another audience.
    JwtAudience,
    /// Its subject is not accepted.
    JwtSubject,
    /// It is too old.
    JwtExpired,
    /// It is too young.
    JwtNotYetValid,
    /// Two proofs, and each for another account.
    AccountsDiffer,
    /// Sound, but more calls than one account may make.
    RateLimited,
    /// A web page of another site sent it.
    Origin,
    /// It came to loopback under a name that is none of loopback's, as after DNS rebinding.
    Host,
    /// No credential is configured, and the listener is not on loopback.
    Closed,
}

impl From<CrossSite> for Refusal {
    fn from(why: CrossSite) -> Self {
        match why {
            CrossSite::Origin | CrossSite::FetchSite => Self::Origin,
            CrossSite::Host => Self::Host,
        }
    }
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::NoCredential,
        Self::NoCertificate,
        Self::CertificateUnknown,
        Self::NoToken,
        Self::TokenUnknown,
        Self::NoJwt,
        Self::JwtMalformed,
        Self::JwtAlgorithm,
        Self::JwtUnknownKey,
        Self::JwtSignature,
        Self::JwtIssuer,
        Self::JwtAudience,
        Self::JwtSubject,
        Self::JwtExpired,
        Self::JwtNotYetValid,
        Self::AccountsDiffer,
        Self::RateLimited,
        Self::Origin,
        Self::Host,
        Self::Closed,
    ];

    /// Its label in `caller_refusals_total`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::NoCertificate => "certificate_missing",
            Self::CertificateUnknown => "certificate_unknown",
            Self::NoToken => "token_missing",
            Self::TokenUnknown => "token_unknown",
            Self::NoJwt => "jwt_missing",
            Self::JwtMalformed => "jwt_malformed",
            Self::JwtAlgorithm => "jwt_algorithm",
            Self::JwtUnknownKey => "jwt_unknown_key",
            Self::JwtSignature => "jwt_signature",
            Self::JwtIssuer => "jwt_issuer",
            Self::JwtAudience => "jwt_audience",
            Self::JwtSubject => "jwt_subject",
            Self::JwtExpired => "jwt_expired",
            Self::JwtNotYetValid => "jwt_not_yet_valid",
            Self::AccountsDiffer => "accounts_differ",
            Self::RateLimited => "rate_limited",
            Self::Origin => "origin",
            Self::Host => "host",
            Self::Closed => "closed",
        }
    }
}

/// Rejected callers by reason. Clones share the metrics.
#[derive(Clone, Debug)]
pub struct CallerMetrics(IntCounterVec);

impl CallerMetrics {
    /// Shows them in a service's metrics; to be made once a service.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let refusals = metrics.counters(
            "caller_refusals_total",
            "Requests rejected by authentication or rate limit, by reason",
            &["reason"],
        );
        for refusal in Refusal::ALL {
            refusals.with_label_values(&[refusal.label()]).inc_by(0);
        }
        Self(refusals)
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.0.with_label_values(&[refusal.label()]).inc();
    }
}
