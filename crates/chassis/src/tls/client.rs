//! The client's side: connects, verifies the server's name, presents a certificate of its own. TLS 1.2 and 1.3. Must
//! not know HTTP. A connection is open only when the server has accepted our certificate, so that a rejection is never
//! mistaken for a request that may have arrived.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
};
use socket2::SockRef;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::material::{Facts, Mistake, Mistakes, Source, Trusted, build_identity, parse_trust_bundle};
use super::metrics::TlsMetrics;
use super::reload::{Built, Material, ReloadOutcome, Reloadable, check};
use super::{Time, provider};
use crate::client::{Connect, Stream, Tcp};
use crate::clock::Clock;
use crate::telemetry::Telemetry;

/// Paths of system CA bundles; the first that exists is used.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Time limit for the server to accept our certificate. The server confirms by a session ticket; a server that sends
/// none is trusted after this time.
const SETTLE: Duration = Duration::from_millis(250);
/// Maximum plain text in one record: a record arrives whole or cannot be read at all.
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// CA bundle and certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// CA bundle, with old and new CAs during a rotation; or server certificates, which are pinned.
    pub trusted: Option<Source>,
    /// Whether the system's CAs are trusted too.
    pub system_too: bool,
    /// The client's own certificate with its chain, and the key.
    pub identity: Option<(Source, Source)>,
}

impl ClientFiles {
    /// Every mistake in the files as they are now.
    #[must_use]
    pub fn check(&self, clock: &Clock) -> Vec<Mistake> {
        check(self, clock)
    }
}

impl Material for ClientFiles {
    type Config = Arc<ClientConfig>;

    fn sources(&self) -> Vec<&Source> {
        let own = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        own.chain(&self.trusted).collect()
    }

    fn build(&self, contents: &[Vec<u8>], clock: &Clock) -> Result<Built<Self::Config>, Vec<Mistake>> {
        let provider = provider();
        let own = self.identity.as_ref().map(|(certificate, key)| {
            build_identity((certificate, &contents[0]), (key, &contents[1]), &provider, clock)
        });
        let trust = match (&self.trusted, contents.last()) {
            (Some(source), Some(pem)) => {
                parse_trust_bundle(pem).map(Some).map_err(|error| source.mistake(&error))
            }
            _ => Ok(None),
        };
        let (own, trust) = match (own.transpose(), trust) {
            (Ok(own), Ok(trust)) => (own, trust),
            (own, trust) => {
                return Err(own.err().into_iter().flatten().chain(trust.err()).collect());
            }
        };
        let mut expiries = Vec::new();
        expiries.extend(trust.as_ref().map(|trust| ("server_ca", trust.expires)));
        expiries.extend(own.as_ref().map(|own| ("client", own.expires)));
        let config = (|| {
            let verifier = Arc::new(Verifier::new(trust, self.system_too, &provider)?);
            let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
                .dangerous()
                .with_custom_certificate_verifier(verifier);
            Ok::<_, Error>(match own {
                None => builder.with_no_client_auth(),
                Some(own) => builder
                    .with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*own.certified).clone()))),
            })
        })();
        let config = config.map_err(|error| {
            let setting = self.sources().first().map_or("TLS".into(), |source| source.setting.clone());
            vec![Mistake { setting, what: format!("cannot be used: {error}") }]
        })?;
        Ok(Built { config: Arc::new(config), expiries })
    }
}

/// Connects over TLS, with files that may change, for [`crate::client::Client::with_connect`]. Clones share it.
#[derive(Clone, Debug)]
pub struct TlsConnect {
    live: Reloadable<ClientFiles>,
    shows_certificate: bool,
}

impl TlsConnect {
    /// Loads the files and watches them. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a file is invalid.
    pub fn open(files: ClientFiles, clock: Clock, metrics: &TlsMetrics) -> Result<Self, Mistakes> {
        let shows_certificate = files.identity.is_some();
        Ok(Self { live: Reloadable::open(files, clock, metrics.clone())?, shows_certificate })
    }

    /// Loads the files once, without metrics: for a short-lived program.
    ///
    /// # Errors
    /// When a file is invalid.
    pub fn once(files: ClientFiles, clock: Clock) -> Result<Self, Mistakes> {
        let shows_certificate = files.identity.is_some();
        let unseen = TlsMetrics::new(&Telemetry::new("", "", "").metrics);
        Ok(Self { live: Reloadable::once(files, clock, unseen)?, shows_certificate })
    }

    /// Checks the files now, instead of within a few seconds.
    pub fn reload_if_changed(&self) -> ReloadOutcome {
        self.live.reload_if_changed()
    }

    /// The connector with the current material, for a protocol other than HTTP.
    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.live.current().config.clone())
    }
}

impl Connect for TlsConnect {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let tcp = Tcp::dial(host, port, deadline).await?;
            let mut stream = self.connector().connect(name, tcp).await?;
            let version = stream.get_ref().1.protocol_version();
            if self.shows_certificate && version == Some(ProtocolVersion::TLSv1_3) {
                wait_for_server(&mut stream).await?;
            }
            Ok(Box::new(Secured(stream)) as Box<dyn Stream>)
        })
    }

    fn is_tls(&self) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.live.current().generation
    }
}

/// In TLS 1.3 a client finishes before the server has verified its certificate. This waits for data from the server.
async fn wait_for_server(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let word = std::future::poll_fn(|cx| {
        let heard = match Pin::new(&mut *stream).poll_fill_buf(cx) {
            Poll::Ready(Ok([])) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => Some(Ok(())),
            Poll::Ready(Err(error)) => Some(Err(error)),
            Poll::Pending => None,
        };
        match heard {
            Some(result) => Poll::Ready(result),
            None if stream.get_ref().1.tls13_tickets_received() > 0 => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    });
    tokio::time::timeout(SETTLE, word).await.unwrap_or(Ok(()))
}

/// A stream behind TLS.
pub(crate) struct Secured<S>(pub(crate) TlsStream<S>);

impl Stream for Secured<TcpStream> {
    fn is_stale(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(self.0.get_ref().0).peek(&mut byte) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    /// Writes at most one record: when a write fails, the other side has received nothing that it could read.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let piece = &buf[..buf.len().min(RECORD_BYTES_MAX)];
        Pin::new(&mut self.0).poll_write(cx, piece)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Verifies a server: a pinned certificate, or a chain to a trusted CA. Name, time and usage are checked in both cases.
struct Verifier {
    pinned: Vec<CertificateDer<'static>>,
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(trust: Option<Trusted>, system_too: bool, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let (mut roots, pinned) = match trust {
            Some(trust) => (trust.roots, trust.pinned),
            None => (rustls::RootCertStore::empty(), Vec::new()),
        };
        if system_too {
            let system = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
            roots.roots.extend(
                system.and_then(|pem| parse_trust_bundle(&pem).ok()).into_iter().flat_map(|t| t.roots.roots),
            );
        }
        let chains = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?,
            ),
        };
        Ok(Self { pinned, chains, provider: provider.clone() })
    }

    fn verify_pinned(
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let facts = Facts::of(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if seconds > facts.not_after {
            return Err(CertificateError::Expired.into());
        }
        if seconds < facts.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if facts.names_usages && !facts.is_for_servers {
            return Err(CertificateError::InvalidPurpose.into());
        }
        let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        parsed.verify_is_valid_for_subject_name(name).map_err(|_| CertificateError::NotValidForName)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("pinned", &self.pinned.len()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Self::verify_pinned(end_entity, server_name, now);
        }
        match &self.chains {
            Some(chains) => {
                chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
