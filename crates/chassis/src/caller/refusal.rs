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
    /// Every proof is needed, and there was no certificate.
    NoCertificate,
    /// The certificate's name is not on the allow-list.
    CertificateUnknown,
    /// Every proof is needed, and there was no static token.
    NoToken,
    /// No line of the token file is this token.
    TokenUnknown,
    /// Every proof is needed, and there was no signed token.
    NoJwt,
    /// The bearer text is no signed token, or too long.
    JwtMalformed,
    /// The token's algorithm is not accepted, or is not the one of its key.
    JwtAlgorithm,
    /// The key that the token names is unknown.
    JwtUnknownKey,
    /// The signature is not that of the key that the token names.
    JwtSignature,
    /// The token has another issuer.
    JwtIssuer,
    /// The token has another audience.
    JwtAudience,
    /// The token's subject is not accepted.
    JwtSubject,
    /// The token has expired.
    JwtExpired,
    /// The token is not valid yet.
    JwtNotYetValid,
    /// Two proofs map to different accounts.
    AccountsDiffer,
    /// The credentials are valid, but the account has exceeded its rate limit.
    RateLimited,
    /// A web page of another site sent the request.
    Origin,
    /// The request came to loopback under a name that is not loopback's, as after DNS rebinding.
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
    /// All refusals.
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

    /// The refusal's label in `caller_refusals_total`.
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
    /// Registers the metrics in a service's registry; called once per service.
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
