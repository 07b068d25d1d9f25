//! A blocking HTTP client over TLS with any client certificate, and a small server of one page. Shares no configuration
//! with the code under test.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::certs::{Authority, Pair};
use crate::http::{Connection, TIMEOUT};

/// A connection over TLS.
pub type Secured = Connection<StreamOwned<ClientConnection, TcpStream>>;

/// The trusted CA and the certificate of a client.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<ClientConfig>);

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    certificates.collect::<Result<_, _>>().expect("a test's certificates can be read")
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a test's key can be read")
}

impl Dialer {
    /// A client that trusts this CA, with this certificate if there is one.
    ///
    /// # Panics
    /// When the material is invalid.
    #[must_use]
    pub fn new(trusted: &str, shows: Option<&Pair>) -> Self {
        Self::of(&[&TLS13], trusted, shows)
    }

    /// The same client with TLS 1.2 only.
    ///
    /// # Panics
    /// When the material is invalid.
    #[must_use]
    pub fn of_1_2(trusted: &str, shows: Option<&Pair>) -> Self {
        Self::of(&[&TLS12], trusted, shows)
    }

    fn of(versions: &[&'static SupportedProtocolVersion], trusted: &str, shows: Option<&Pair>) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in chain(trusted) {
            roots.add(authority).expect("a test's authority is one");
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the provider speaks them")
            .with_root_certificates(roots);
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(chain(&pair.certificate), key(&pair.key))
                .expect("a test's pair fits"),
        };
        Self(Arc::new(config))
    }

    /// The same client with a full handshake for each connection.
    #[must_use]
    pub fn never_resuming(self) -> Self {
        let mut config = (*self.0).clone();
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    /// The first bytes of a handshake.
    ///
    /// # Panics
    /// Never: a vector takes them.
    #[must_use]
    pub fn client_hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").expect("a sound name");
        let mut session = ClientConnection::new(self.0.clone(), name).expect("a session can begin");
        let mut hello = Vec::new();
        session.write_tls(&mut hello).expect("a vector takes it");
        hello
    }

    /// Connects and begins the handshake, which ends with the first call.
    pub fn open(&self, address: SocketAddr, name: &str) -> io::Result<Secured> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.set_write_timeout(Some(TIMEOUT))?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        Ok(Connection::over(StreamOwned::new(session, tcp), &address.to_string()))
    }
}

/// A page over https on a free port of 127.0.0.1, for `localhost`. It can be replaced, and the server made unreachable.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The page; without one each connection is closed at once.
    text: Option<String>,
    served: usize,
    bearer: Option<String>,
}

impl Page {
    /// Serves this text until the process ends.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn serve(authority: &Authority, text: String) -> Self {
        let pair = authority.server("localhost");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider speaks them")
            .with_no_client_auth()
            .with_single_cert(chain(&pair.certificate), key(&pair.key))
            .expect("a test's pair fits");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port has an address");
        let state = Arc::new(Mutex::new(State { text: Some(text), served: 0, bearer: None }));
        let (config, shared) = (Arc::new(config), state.clone());
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, shared) = (config.clone(), shared.clone());
                // A broken connection is a matter of the other side.
                std::thread::spawn(move || answer(config, tcp, &shared));
            }
        });
        Self { address, state }
    }

    /// The URL `https://localhost:port/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    /// Replaces the text; `None` makes the server unreachable.
    pub fn set(&self, text: Option<String>) {
        self.locked().text = text;
    }

    /// How often the page was read.
    #[must_use]
    pub fn served(&self) -> usize {
        self.locked().served
    }

    /// The `Authorization` header of the last reader.
    #[must_use]
    pub fn last_bearer(&self) -> Option<String> {
        self.locked().bearer.clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(config: Arc<ServerConfig>, tcp: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let Some(text) = state.lock().unwrap_or_else(PoisonError::into_inner).text.clone() else { return Ok(()) };
    tcp.set_read_timeout(Some(TIMEOUT))?;
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(session, tcp));
    let (mut line, mut bearer) = (String::new(), None);
    while stream.read_line(&mut line)? > 2 {
        if line.to_ascii_lowercase().starts_with("authorization:") {
            bearer = line.split_once(':').map(|(_, value)| value.trim().to_owned());
        }
        line.clear();
    }
    {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.served += 1;
        state.bearer = bearer;
    }
    let length = text.len();
    write!(
        stream.get_mut(),
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )?;
    stream.get_mut().flush()?;
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush()
}
