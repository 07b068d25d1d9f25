//! TLS material in files: read, parsed and checked, every mistake reported with the setting that names the
//! file. Must not know what is served or called with it, nor when it changes.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::clock::Clock;
use crate::config::read_regular;

/// Maximum bytes of one file; the bundle of a whole system has a quarter of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Maximum number of certificates in one file.
const CERTIFICATES_MAX: usize = 1024;

/// A file of material, and the setting that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The setting as messages show it, flag and variable: `--tls-cert (TLS_CERT)`.
    pub setting: Arc<str>,
    pub path: PathBuf,
}

/// A mistake in one file.
#[derive(Debug)]
pub struct Mistake {
    /// The setting that names the file.
    pub setting: Arc<str>,
    /// The mistake, with the path.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.what)
    }
}

/// All mistakes; at least one.
#[derive(Debug)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

impl std::error::Error for Mistakes {}

#[derive(Debug, thiserror::Error)]
pub(super) enum MaterialError {
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("holds no certificate in PEM")]
    NoCertificate,
    #[error("holds a certificate that cannot be read ({0})")]
    BadCertificate(&'static str),
    #[error("holds no private key in PEM; an encrypted one cannot be used")]
    NoKey,
    #[error("holds a key that cannot be used")]
    BadKey,
    #[error("is not the key of the certificate")]
    OtherKey,
    #[error("expired on {0}")]
    Expired(String),
    #[error("is not valid before {0}")]
    NotYetValid(String),
    #[error("cannot be used: {0}")]
    Refused(String),
}

impl Source {
    /// The contents of the file now.
    pub(super) fn read(&self) -> Result<Vec<u8>, Mistake> {
        read_regular(&self.path, FILE_BYTES_MAX).map_err(|error| {
            self.mistake(&match error.kind() {
                io::ErrorKind::FileTooLarge => MaterialError::TooLarge,
                _ => MaterialError::Unreadable(error),
            })
        })
    }

    pub(super) fn mistake(&self, error: &MaterialError) -> Mistake {
        Mistake { setting: self.setting.clone(), what: format!("{} {error}", self.path.display()) }
    }
}

/// All certificates of a file; each must be readable.
pub(super) fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|_| MaterialError::BadCertificate("bad PEM"))?;
    if found.is_empty() {
        return Err(MaterialError::NoCertificate);
    }
    if found.len() > CERTIFICATES_MAX {
        return Err(MaterialError::TooLarge);
    }
    found.iter().try_for_each(|der| Facts::of(der).map(|_| ()))?;
    Ok(found)
}

/// The properties of a certificate that matter here.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) is_authority: bool,
    /// Whether the certificate names usages at all, and whether it names those of servers and of clients.
    pub(super) names_usages: bool,
    pub(super) is_for_servers: bool,
    pub(super) is_for_clients: bool,
}

impl Facts {
    pub(super) fn of(der: &CertificateDer<'_>) -> Result<Self, MaterialError> {
        let bad = MaterialError::BadCertificate;
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| bad("bad DER"))?;
        if !rest.is_empty() {
            return Err(bad("more after its end"));
        }
        let usage = parsed.extended_key_usage().map_err(|_| bad("its usages"))?.map(|usage| usage.value);
        let constraints = parsed.basic_constraints().map_err(|_| bad("its constraints"))?;
        Ok(Self {
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_authority: constraints.is_some_and(|constraints| constraints.value.ca),
            names_usages: usage.is_some(),
            is_for_servers: usage.is_some_and(|usage| usage.server_auth),
            is_for_clients: usage.is_some_and(|usage| usage.client_auth),
        })
    }

    pub(super) fn check_time(&self, clock: &Clock) -> Result<(), MaterialError> {
        let now = clock.now_ms().div_euclid(1000);
        if now > self.not_after {
            return Err(MaterialError::Expired(date(self.not_after)));
        }
        if now < self.not_before {
            return Err(MaterialError::NotYetValid(date(self.not_before)));
        }
        Ok(())
    }
}

fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// A certificate with its chain and key, which match and are valid now; and the time at which the first certificate
/// expires.
pub(super) struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) expires: i64,
}

/// Combines certificate chain and key.
pub(super) fn build_identity(
    certificate: (&Source, &[u8]),
    key: (&Source, &[u8]),
    provider: &CryptoProvider,
    clock: &Clock,
) -> Result<Identity, Vec<Mistake>> {
    let chain = parse_chain(certificate.1, clock).map_err(|error| certificate.0.mistake(&error));
    let signer = parse_private_key(key.1, provider).map_err(|error| key.0.mistake(&error));
    let ((chain, expires), signer) = match (chain, signer) {
        (Ok(chain), Ok(signer)) => (chain, signer),
        (chain, signer) => return Err(chain.err().into_iter().chain(signer.err()).collect()),
    };
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) => Ok(Identity { certified: Arc::new(certified), expires }),
        Err(rustls::Error::InconsistentKeys(_)) => Err(vec![key.0.mistake(&MaterialError::OtherKey)]),
        Err(error) => Err(vec![certificate.0.mistake(&MaterialError::Refused(error.to_string()))]),
    }
}

fn parse_chain(pem: &[u8], clock: &Clock) -> Result<(Vec<CertificateDer<'static>>, i64), MaterialError> {
    let chain = parse_certificates(pem)?;
    let mut expires = i64::MAX;
    for der in &chain {
        let facts = Facts::of(der)?;
        facts.check_time(clock)?;
        expires = expires.min(facts.not_after);
    }
    Ok((chain, expires))
}

fn parse_private_key(
    pem: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<dyn rustls::sign::SigningKey>, MaterialError> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| MaterialError::NoKey)?;
    provider.key_provider.load_private_key(key).map_err(|_| MaterialError::BadKey)
}

/// Trusted certificates: CAs and pinned ones.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) roots: rustls::RootCertStore,
    pub(super) pinned: Vec<CertificateDer<'static>>,
    /// The time at which the first certificate expires.
    pub(super) expires: i64,
}

/// Reads a bundle. Expired certificates in it are accepted: the bundle stays usable, and only peers that chain to an
/// expired certificate fail.
pub(super) fn parse_trust_bundle(pem: &[u8]) -> Result<Trusted, MaterialError> {
    let pinned = parse_certificates(pem)?;
    let mut roots = rustls::RootCertStore::empty();
    let mut expires = i64::MAX;
    for der in &pinned {
        let facts = Facts::of(der)?;
        expires = expires.min(facts.not_after);
        if facts.is_authority {
            roots.add(der.clone()).map_err(|error| MaterialError::Refused(error.to_string()))?;
        }
    }
    Ok(Trusted { roots, pinned, expires })
}
