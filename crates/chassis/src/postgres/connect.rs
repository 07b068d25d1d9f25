//! One connection over plain TCP, TLS or a Unix socket, with a pause after failed tries that all callers share. Knows
//! no statement. It uses this crate's TLS; the CA bundle may change while connections are open.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use futures_util::future::BoxFuture;
use rustls::pki_types::ServerName;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect as TlsHandshake, TlsStream};
use tokio_postgres::{CancelToken, Client, Config, Socket};
use tokio_rustls::TlsConnector;

use super::error::PgError;
use super::hosts::Hosts;
use crate::clock::Random;
use crate::tls::{Secured, TlsConnect};

/// The first pause after a failed try to connect; it doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest pause: the time for which the database's return may go unnoticed.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time limit for cancelling a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes connections for a pool.
pub(super) struct Connector {
    hosts: Hosts,
    tls: Option<TlsConnect>,
    random: Random,
    pause: Mutex<Backoff>,
}

/// No connection is tried before this time, because the last try failed.
#[derive(Debug, Default)]
struct Backoff {
    length: Duration,
    until: Option<Instant>,
}

impl Connector {
    pub(super) fn new(config: &Config, tls: Option<TlsConnect>, random: Random) -> Self {
        Self { hosts: Hosts::of(config), tls, random, pause: Mutex::default() }
    }

    /// Time until the next try to connect.
    fn paused_for(&self) -> Option<Duration> {
        let pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        pause.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn record_dial(&self, is_there: bool) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there {
            *pause = Backoff::default();
        } else if pause.until.is_none_or(|until| until <= Instant::now()) {
            pause.length = (pause.length * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
            let jittered = pause.length / 2 + self.random.jitter(pause.length / 2);
            pause.until = Some(Instant::now() + jittered);
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = PgError;

    async fn create(&self) -> Result<Connection, PgError> {
        if let Some(left) = self.paused_for() {
            tokio::time::sleep(left).await;
        }
        let dialled = self.hosts.first(|config| open(config, TlsMode(self.tls.clone()))).await;
        self.record_dial(dialled.is_ok());
        dialled.map_err(PgError::from)
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<PgError> {
        if connection.client.is_closed() { Err(RecycleError::message("closed")) } else { Ok(()) }
    }
}

/// An open connection. Dropping it closes it, whatever is under way on it.
pub(super) struct Connection {
    pub(super) client: Client,
    way: TlsMode,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Cancels the current statement over a second connection, so that its locks are released.
    pub(super) fn cancel(&self) {
        let token: CancelToken = self.client.cancel_token();
        let way = self.way.clone();
        tokio::spawn(async move {
            let told = token.cancel_query(way);
            if !matches!(tokio::time::timeout(CANCEL_TIMEOUT, told).await, Ok(Ok(()))) {
                tracing::warn!("cancelling a statement failed");
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Otherwise a statement that hangs would hold the connection for ever.
        self.driver.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

async fn open(config: &Config, way: TlsMode) -> Result<Connection, tokio_postgres::Error> {
    let (client, connection) = config.connect(way.clone()).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
    Ok(Connection { client, way, driver })
}

/// How a connection is secured: with the current TLS material, or not at all, according to `sslmode` too. One type for
/// both cases, since the driver's connection code is compiled for each type.
#[derive(Clone)]
struct TlsMode(Option<TlsConnect>);

/// The TLS handshake of a connection; `None` without TLS.
struct Handshake(Option<(TlsConnector, ServerName<'static>)>);

impl MakeTlsConnect<Socket> for TlsMode {
    type Stream = Secured<Socket>;
    type TlsConnect = Handshake;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, Self::Error> {
        let Some(tls) = &self.0 else { return Ok(Handshake(None)) };
        let name = ServerName::try_from(domain.to_owned())?;
        Ok(Handshake(Some((tls.connector(), name))))
    }
}

impl TlsHandshake<Socket> for Handshake {
    type Stream = Secured<Socket>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured<Socket>>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let (connector, name) =
                self.0.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "TLS is not set up"))?;
            connector.connect(name, stream).await.map(Secured)
        })
    }
}

impl TlsStream for Secured<Socket> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
