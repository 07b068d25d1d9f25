//! Authenticates a caller by a certificate's name, a signed token or a static token, by any or all of them as
//! configured, and maps the caller to an account. Must not know any route or status.

mod accounts;
mod bearer;
mod jwt;
mod keys;
mod keyset;
mod proof_cache;
mod rate;
mod refusal;
mod session;
mod token_file;
mod tokens;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use accounts::{Account, Accounts, AccountsError, DEFAULT_ACCOUNT};
pub use bearer::bearer;
pub use jwt::{JwtRules, LEEWAY_SECONDS};
pub use keys::{KeySource, REFETCH_EVERY, REFRESH_EVERY};
pub use rate::RATE_MAX;
pub use refusal::{CallerMetrics, Refusal};
pub use tokens::{Token, TokenError, Tokens};

use crate::clock::Clock;
use crate::config::TokenSource;
use crate::telemetry::Metrics;
use crate::tls::{PeerName, TlsMetrics};
use jwt::Unverified;
use keys::Keys;
use proof_cache::ProofCache;
use rate::Rate;

/// Whether a caller needs any or all of the configured proofs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// One proof is enough; several must map to the same account.
    #[default]
    Any,
    /// Every configured proof is needed, each for the same account.
    All,
}

/// The configured proofs. Unset proofs are neither accepted nor required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerRules {
    /// Whether any or all of the following proofs are needed.
    pub proof: Proof,
    /// Accounts by the names of certificates. The handshake has already verified the name.
    pub certificates: Option<Accounts>,
    /// Rules for signed tokens, and the source of their keys.
    pub jwt: Option<(JwtRules, KeySource)>,
    /// Static tokens.
    pub tokens: Option<TokenSource>,
    /// Rate limit of one account, in requests per second.
    pub rate_max: Option<NonZeroU32>,
}

/// The credentials of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The name that the connection's certificate proved.
    pub name: Option<&'a PeerName>,
    /// A signed token.
    pub bearer: Option<&'a str>,
    /// A static token.
    pub token: Option<&'a str>,
}

/// Authenticates callers. Clones share the state.
#[derive(Clone, Debug)]
pub struct Callers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    proof: Proof,
    certificates: Option<Accounts>,
    jwts: Option<Jwts>,
    tokens: Option<Tokens>,
    rate: Option<Rate>,
    metrics: Option<CallerMetrics>,
}

/// Authenticates signed tokens.
#[derive(Debug)]
struct Jwts {
    rules: JwtRules,
    keys: Keys,
    seen: ProofCache,
    clock: Clock,
}

impl Callers {
    /// Loads the files that the rules name and watches them. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a file is invalid.
    pub fn open(
        rules: CallerRules,
        clock: &Clock,
        tls: &TlsMetrics,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let jwts = rules.jwt.map(|(rules, source)| {
            let keys = Keys::open(source, clock.clone(), tls, metrics)?;
            Ok::<_, anyhow::Error>(Jwts { rules, keys, seen: ProofCache::default(), clock: clock.clone() })
        });
        Ok(Self(Arc::new(Inner {
            proof: rules.proof,
            certificates: rules.certificates,
            jwts: jwts.transpose()?,
            tokens: rules.tokens.map(Tokens::new).transpose()?,
            rate: rules.rate_max.map(Rate::new),
            metrics: Some(CallerMetrics::new(metrics)),
        })))
    }

    /// A set of callers with static tokens alone; without a source every caller is accepted. Refusals are counted if
    /// metrics are given.
    ///
    /// # Errors
    /// When the source cannot be read or holds no token.
    pub fn by_token(source: Option<TokenSource>, metrics: Option<CallerMetrics>) -> Result<Self, TokenError> {
        Ok(Self(Arc::new(Inner {
            proof: Proof::Any,
            certificates: None,
            jwts: None,
            tokens: source.map(Tokens::new).transpose()?,
            rate: None,
            metrics,
        })))
    }

    /// The account of these credentials. Consumes one request of its rate limit.
    ///
    /// # Errors
    /// The refusal, which was counted. For an exceeded rate limit, also the time until the next request is accepted.
    pub async fn admit(&self, presented: &Presented<'_>) -> Result<Account, (Refusal, Option<Duration>)> {
        let account = self.identify(presented).await.map_err(|why| (self.refuse(why), None))?;
        if let Some(rate) = &self.0.rate {
            rate.take(&account).map_err(|wait| (self.refuse(Refusal::RateLimited), Some(wait)))?;
        }
        Ok(account)
    }

    /// True when every caller is accepted because no proof is configured.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let Inner { certificates, jwts, tokens, .. } = &*self.0;
        certificates.is_none() && jwts.is_none() && tokens.is_none()
    }

    /// Counts a refusal that was decided elsewhere.
    pub fn refuse(&self, why: Refusal) -> Refusal {
        if let Some(metrics) = &self.0.metrics {
            metrics.refused(why);
        }
        why
    }

    async fn identify(&self, presented: &Presented<'_>) -> Result<Account, Refusal> {
        if self.is_open() {
            return Ok(Account::default());
        }
        // Every proof is checked, even after another proof has accepted or refused the caller.
        let proofs = [self.by_name(presented), self.by_jwt(presented).await, self.by_static(presented)];
        let proofs = proofs.into_iter().flatten();
        match self.0.proof {
            Proof::All => one_account(proofs.collect::<Result<Vec<_>, _>>()?),
            Proof::Any => account_of_any_proof(proofs.collect()),
        }
    }

    /// The account by the certificate's name; `None` when certificates are not configured as a proof.
    fn by_name(&self, presented: &Presented<'_>) -> Option<Result<Account, Refusal>> {
        let known = self.0.certificates.as_ref()?;
        Some(match presented.name {
            None => Err(Refusal::NoCertificate),
            Some(name) => known.of(name.as_str()).cloned().ok_or(Refusal::CertificateUnknown),
        })
    }

    async fn by_jwt(&self, presented: &Presented<'_>) -> Option<Result<Account, Refusal>> {
        let jwts = self.0.jwts.as_ref()?;
        Some(match presented.bearer {
            None => Err(Refusal::NoJwt),
            Some(token) => jwts.account(token).await,
        })
    }

    fn by_static(&self, presented: &Presented<'_>) -> Option<Result<Account, Refusal>> {
        let tokens = self.0.tokens.as_ref()?;
        Some(match presented.token {
            None => Err(Refusal::NoToken),
            Some(token) => tokens.account(token).ok_or(Refusal::TokenUnknown),
        })
    }
}

/// One proof is enough. Without a proof, a wrong credential is reported rather than a missing one.
fn account_of_any_proof(proofs: Vec<Result<Account, Refusal>>) -> Result<Account, Refusal> {
    let is_absence =
        |why: &Refusal| matches!(why, Refusal::NoCertificate | Refusal::NoJwt | Refusal::NoToken);
    let wrong = proofs.iter().filter_map(|proof| proof.as_ref().err()).find(|why| !is_absence(why));
    let wrong = wrong.copied().unwrap_or(Refusal::NoCredential);
    let proven: Vec<Account> = proofs.into_iter().flatten().collect();
    if proven.is_empty() { Err(wrong) } else { one_account(proven) }
}

/// The one account of all proofs. It must not depend on which proof is checked first.
fn one_account(proven: Vec<Account>) -> Result<Account, Refusal> {
    let mut proven = proven.into_iter();
    let account = proven.next().ok_or(Refusal::NoCredential)?;
    if proven.all(|other| other == account) { Ok(account) } else { Err(Refusal::AccountsDiffer) }
}

impl Jwts {
    async fn account(&self, token: &str) -> Result<Account, Refusal> {
        let now = self.clock.now_ms().div_euclid(1000);
        let hash = proof_cache::hash(token);
        if let Some(proven) = self.seen.find(&hash, self.keys.generation()) {
            return proven.window.check(now).map(|()| proven.account);
        }
        let unverified = Unverified::read(token)?;
        let known = self.keys.with(&unverified.kid).await.ok_or(Refusal::JwtUnknownKey)?;
        let key = known.set.find(&unverified.kid).ok_or(Refusal::JwtUnknownKey)?;
        let proven = unverified.verify(key, &self.rules, now)?;
        self.seen.remember(hash, proven.clone(), known.generation);
        Ok(proven.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_proof_is_enough_and_two_of_two_accounts_are_none() {
        let (shop, other) = (Account::named("shop"), Account::named("other"));
        let any = |proofs: &[Result<Account, Refusal>]| account_of_any_proof(proofs.to_vec());
        assert_eq!(any(&[Err(Refusal::NoCertificate), Ok(shop.clone())]), Ok(shop.clone()));
        assert_eq!(any(&[Ok(shop.clone()), Err(Refusal::TokenUnknown)]), Ok(shop.clone()));
        assert_eq!(any(&[Ok(shop.clone()), Ok(other)]), Err(Refusal::AccountsDiffer));
        assert_eq!(any(&[Ok(shop.clone()), Ok(shop.clone())]), Ok(shop));
    }

    #[test]
    fn what_was_shown_and_is_wrong_is_the_reason_rather_than_what_was_not_shown() {
        let any = |proofs: &[Result<Account, Refusal>]| account_of_any_proof(proofs.to_vec());
        let nothing = [Err(Refusal::NoCertificate), Err(Refusal::NoJwt), Err(Refusal::NoToken)];
        assert_eq!(any(&nothing), Err(Refusal::NoCredential));
        assert_eq!(any(&[Err(Refusal::NoJwt), Err(Refusal::TokenUnknown)]), Err(Refusal::TokenUnknown));
    }

    #[tokio::test]
    async fn where_nothing_is_configured_everybody_is_antaeus() {
        let callers = Callers::by_token(None, None).unwrap();
        assert!(callers.is_open());
        let shown = Presented { token: Some("tokenunspecified"), ..Presented::default() };
        for presented in [Presented::default(), shown] {
            assert_eq!(callers.admit(&presented).await.unwrap().as_str(), DEFAULT_ACCOUNT);
        }
    }
}
