//! Server-side TLS: its certificate, the verification of clients, and the reasons of rejections. TLS 1.3 only. Must not
//! know HTTP, and does not decide what a caller may do.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, ServerConfig, ServerConnection, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, OtherError,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::material::{Facts, Mistake, Mistakes, Source, build_identity, parse_trust_bundle};
use super::metrics::{Refusal, TlsMetrics};
use super::name::{NameError, PeerName, SanAllowList};
use super::reload::{Built, Material, ReloadOutcome, Reloadable, check};
use super::{Time, provider};
use crate::clock::Clock;

/// The first byte of every TLS connection.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Certificate and client rules of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The server's certificate chain, the leaf first.
    pub certificate: Source,
    /// The key of the certificate.
    pub key: Source,
    /// Client rules; without them, every client is accepted.
    pub clients: Option<ClientRules>,
}

/// Rules for client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRules {
    /// CA bundle, with old and new CAs during a rotation.
    pub ca: Source,
    /// The SAN allow-list.
    pub allowed: SanAllowList,
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
    /// Whether a certificate that names no usage at all is refused, like one that names only other usages.
    pub must_name_usage: bool,
}

impl ServerFiles {
    /// Every mistake in the files as they are now.
    #[must_use]
    pub fn check(&self, clock: &Clock) -> Vec<Mistake> {
        check(self, clock)
    }
}

pub(super) struct ServerSide {
    config: Arc<ServerConfig>,
    verifier: Option<Arc<ClientVerifier>>,
}

impl Material for ServerFiles {
    type Config = ServerSide;

    fn sources(&self) -> Vec<&Source> {
        let ca = self.clients.as_ref().map(|clients| &clients.ca);
        [&self.certificate, &self.key].into_iter().chain(ca).collect()
    }

    fn build(&self, contents: &[Vec<u8>], clock: &Clock) -> Result<Built<ServerSide>, Vec<Mistake>> {
        let provider = provider();
        let own =
            build_identity((&self.certificate, &contents[0]), (&self.key, &contents[1]), &provider, clock);
        let verifier =
            self.clients.as_ref().map(|rules| ClientVerifier::with_expiry(rules, &contents[2], &provider));
        let (own, verifier) = match (own, verifier.transpose()) {
            (Ok(own), Ok(verifier)) => (own, verifier),
            (own, verifier) => {
                return Err(own.err().into_iter().flatten().chain(verifier.err()).collect());
            }
        };
        let unusable = |error: &dyn fmt::Display| {
            vec![Mistake {
                setting: self.certificate.setting.clone(),
                what: format!("cannot be used: {error}"),
            }]
        };
        let mut expiries = vec![("server", own.expires)];
        let builder = ServerConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?;
        let (builder, verifier) = match verifier {
            None => (builder.with_no_client_auth(), None),
            Some((verifier, expires)) => {
                expiries.push(("client_ca", expires));
                let verifier = Arc::new(verifier);
                (builder.with_client_cert_verifier(verifier.clone()), Some(verifier))
            }
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(SingleCertAndKey::from((*own.certified).clone())));
        // The ticketer belongs to this configuration alone, so that no ticket outlives a change of trusted CAs.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| unusable(&error))?;
        Ok(Built { config: ServerSide { config: Arc::new(config), verifier }, expiries })
    }
}

/// TLS of a listener, with files that may change. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    live: Reloadable<ServerFiles>,
    metrics: TlsMetrics,
}

impl ServerTls {
    /// Loads the files and watches them. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a file is invalid.
    pub fn open(files: ServerFiles, clock: Clock, metrics: &TlsMetrics) -> Result<Self, Mistakes> {
        Ok(Self { live: Reloadable::open(files, clock, metrics.clone())?, metrics: metrics.clone() })
    }

    /// Checks the files now, instead of within a few seconds.
    pub fn reload_if_changed(&self) -> ReloadOutcome {
        self.live.reload_if_changed()
    }

    /// Performs the handshake: returns the stream and the name of the client's certificate. `None` when it failed; the
    /// failure was counted, unless the peer just disconnected.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> Option<(TlsStream<TcpStream>, Option<PeerName>)> {
        let mut first = [0];
        match tcp.peek(&mut first).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if first[0] != HANDSHAKE_RECORD => {
                self.refuse(Refusal::Plaintext, &"it does not begin as TLS does");
                return None;
            }
            Ok(_) => {}
        }
        match self.live.current().config.handshake(tcp).await {
            Ok((stream, name)) => {
                self.metrics.record_accepted(is_resumed(stream.get_ref().1));
                Some((stream, name))
            }
            Err((why, error)) => {
                self.refuse(why, &error);
                None
            }
        }
    }

    /// Counts a handshake that is refused here.
    pub(crate) fn refuse(&self, why: Refusal, error: &dyn fmt::Display) {
        self.metrics.refused(why);
        tracing::debug!(reason = why.label(), %error, "rejected a TLS connection");
    }
}

/// The reason of a failed handshake and its error.
type HandshakeError = (Refusal, Box<dyn fmt::Display + Send>);

impl ServerSide {
    /// The certificate of a resumed session is verified like a new one, before the server sends anything: a client that
    /// has received data from the server has been accepted.
    async fn handshake(
        &self,
        tcp: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<PeerName>), HandshakeError> {
        let refused = |error: Error| -> HandshakeError { (reason_of(&error), Box::new(error)) };
        let broken = |error: io::Error| -> HandshakeError { (reason(&error), Box::new(error)) };
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await.map_err(broken)?;
        let mut resumed = None;
        let accept = hello.into_stream_with(self.config.clone(), |session| {
            if is_resumed(session) {
                resumed = Some(self.peer_name(session));
            }
        });
        let resumed = resumed.transpose().map_err(refused)?;
        let stream = accept.await.map_err(broken)?;
        match resumed {
            Some(name) => Ok((stream, name)),
            None => {
                let name = self.peer_name(stream.get_ref().1).map_err(refused)?;
                Ok((stream, name))
            }
        }
    }

    fn peer_name(&self, session: &ServerConnection) -> Result<Option<PeerName>, Error> {
        let Some(verifier) = &self.verifier else { return Ok(None) };
        let Some((leaf, between)) = session.peer_certificates().and_then(<[_]>::split_first) else {
            return Ok(None);
        };
        if is_resumed(session) {
            let now = self.config.time_provider.current_time().ok_or(Error::FailedToGetCurrentTime)?;
            verifier.verify_client_cert(leaf, between, now)?;
        }
        verifier.admit(leaf).map(Some)
    }
}

fn is_resumed(session: &ServerConnection) -> bool {
    session.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// Verifies a client's certificate: a chain to a trusted CA, one name on the allow-list, client usage.
#[derive(Debug)]
struct ClientVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    allowed: SanAllowList,
    is_required: bool,
    must_name_usage: bool,
}

impl ClientVerifier {
    fn with_expiry(
        rules: &ClientRules,
        ca: &[u8],
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Self, i64), Mistake> {
        let trusted = parse_trust_bundle(ca).map_err(|error| rules.ca.mistake(&error))?;
        let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted.roots), provider.clone());
        let chains = chains.build().map_err(|_| Mistake {
            setting: rules.ca.setting.clone(),
            what: format!("{} holds no certificate of an authority", rules.ca.path.display()),
        })?;
        let verifier = Self {
            chains,
            allowed: rules.allowed.clone(),
            is_required: rules.is_required,
            must_name_usage: rules.must_name_usage,
        };
        Ok((verifier, trusted.expires))
    }

    fn admit(&self, leaf: &CertificateDer<'_>) -> Result<PeerName, Error> {
        let facts = Facts::of(leaf).map_err(|_| CertificateError::BadEncoding)?;
        if !facts.is_for_clients && (facts.names_usages || self.must_name_usage) {
            return Err(to_refusal_error(Refusal::WrongUsage));
        }
        let name = PeerName::of(leaf).map_err(|error| match error {
            NameError::Several(_) => to_refusal_error(Refusal::SeveralNames),
            _ => to_refusal_error(Refusal::WrongName),
        })?;
        if self.allowed.admits(&name) { Ok(name) } else { Err(to_refusal_error(Refusal::WrongName)) }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        self.admit(end_entity).map(|_| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// A refusal of this verifier, passed through the TLS library.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.label())]
struct Refused(Refusal);

fn to_refusal_error(why: Refusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(why)))))
}

fn reason(error: &io::Error) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.map_or(Refusal::Other, reason_of)
}

fn reason_of(error: &Error) -> Refusal {
    use CertificateError as Certificate;
    let certificate = match error {
        Error::NoCertificatesPresented => return Refusal::NoCertificate,
        Error::InvalidCertificate(certificate) => certificate,
        _ => return Refusal::Other,
    };
    match certificate {
        Certificate::UnknownIssuer | Certificate::BadSignature => Refusal::UnknownCa,
        Certificate::Expired | Certificate::ExpiredContext { .. } => Refusal::Expired,
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => Refusal::NotYetValid,
        Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => Refusal::WrongUsage,
        Certificate::Other(other) => {
            other.0.downcast_ref::<Refused>().map_or(Refusal::Other, |refused| refused.0)
        }
        _ => Refusal::Other,
    }
}
