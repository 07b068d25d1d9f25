//! The JWKS, fetched from the API server and cached: fetched again when a token names an unknown key,
//! and kept while the server is unavailable. Must not know what is signed, nor who is rejected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use prometheus::{IntCounterVec, IntGauge};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::keyset::KeySet;
use super::tokens::Tokens;
use crate::client::{Client, ClientConfig};
use crate::clock::Clock;
use crate::config::TokenSource;
use crate::telemetry::Metrics;
use crate::tls::{ClientFiles, Mistakes, Source, TlsConnect, TlsMetrics};

/// Minimum time between two fetches because of unknown keys.
pub const REFETCH_EVERY: Duration = Duration::from_secs(30);

/// A key that was removed from the set is rejected after this time at the latest.
pub const REFRESH_EVERY: Duration = Duration::from_secs(300);

/// Time limit of one fetch, and of a call that waits for a fetch.
const FETCH_WITHIN: Duration = Duration::from_secs(5);

/// Maximum number of bytes of a key set.
const SET_BYTES_MAX: usize = 256 * 1024;

/// The source of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// URL of the key set, over https.
    pub url: Uri,
    /// A directory with `ca.crt` and an optional `token`, as a pod has it.
    pub credentials: PathBuf,
}

impl KeySource {
    /// TLS material of the connection.
    #[must_use]
    pub fn files(&self, setting: &str) -> ClientFiles {
        let trusted = Source { setting: setting.into(), path: self.credentials.join("ca.crt") };
        ClientFiles { trusted: Some(trusted), system_too: false, identity: None }
    }
}

/// The keys that are known now, and their refresher. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    known: watch::Receiver<Known>,
    wanted: Arc<Notify>,
}

/// Result of the last fetch.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) set: Arc<KeySet>,
    /// Increases with each fetched set.
    pub(super) generation: u64,
    /// Earliest time at which an unknown key causes another fetch.
    look_again: Instant,
}

/// Fetches in a loop. Ends when the keys are no longer in use.
struct KeySetRefresher {
    client: Client,
    source: KeySource,
    known: watch::Sender<Known>,
    wanted: Arc<Notify>,
    fetches: IntCounterVec,
    keys: IntGauge,
    is_in_trouble: bool,
}

impl Keys {
    /// Begins to fetch and waits for nothing. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When a file is invalid.
    pub(super) fn open(
        source: KeySource,
        clock: Clock,
        tls: &TlsMetrics,
        metrics: &Metrics,
    ) -> Result<Self, Mistakes> {
        let connect = TlsConnect::open(source.files("the set of keys"), clock, tls)?;
        let limits = ClientConfig {
            deadline: FETCH_WITHIN,
            body_bytes_max: SET_BYTES_MAX,
            pool_max: 1,
            ..ClientConfig::default()
        };
        let nothing = Known { set: Arc::default(), generation: 0, look_again: Instant::now() };
        let (sender, known) = watch::channel(nothing);
        let wanted = Arc::new(Notify::new());
        let refresher = KeySetRefresher {
            client: Client::with_connect(limits, connect),
            source,
            known: sender,
            wanted: wanted.clone(),
            fetches: metrics.counters("jwks_fetches_total", "Fetches of the JWKS by result", &["result"]),
            keys: metrics.gauge("jwks_keys", "Keys in the JWKS"),
            is_in_trouble: false,
        };
        for result in ["ok", "bad"] {
            refresher.fetches.with_label_values(&[result]).inc_by(0);
        }
        tokio::spawn(refresher.run_refresh_loop());
        Ok(Self { known, wanted })
    }

    /// The known keys, with the key of this id among them. An unknown id causes a fetch, if the last such fetch is long
    /// enough ago.
    pub(super) async fn with(&self, kid: &str) -> Option<Known> {
        let mut known = self.known.clone();
        let now = known.borrow_and_update().clone();
        if now.set.find(kid).is_some() {
            return Some(now);
        }
        if Instant::now() < now.look_again {
            return None;
        }
        self.wanted.notify_one();
        // When the fetch takes too long or the refresher has ended, the cached keys decide.
        let _late = tokio::time::timeout(FETCH_WITHIN, known.changed()).await;
        let now = known.borrow().clone();
        now.set.find(kid).is_some().then_some(now)
    }

    pub(super) fn generation(&self) -> u64 {
        self.known.borrow().generation
    }
}

impl KeySetRefresher {
    async fn run_refresh_loop(mut self) {
        self.refresh(None).await;
        loop {
            let next = if self.known.borrow().set.is_empty() { REFETCH_EVERY } else { REFRESH_EVERY };
            let asked = tokio::select! {
                () = tokio::time::sleep(next) => None,
                () = self.wanted.notified() => Some(Instant::now()),
                () = self.known.closed() => return,
            };
            // A caller that waited for another fetch uses its result.
            if asked.is_none_or(|at| at >= self.known.borrow().look_again) {
                self.refresh(asked).await;
            }
        }
    }

    /// Fetches and publishes the key set. The cached keys stay when the fetch fails.
    async fn refresh(&mut self, asked: Option<Instant>) {
        let fetched = self.fetch().await;
        let result = if fetched.is_ok() { "ok" } else { "bad" };
        self.fetches.with_label_values(&[result]).inc();
        self.log_fetch(&fetched);
        self.known.send_modify(|known| {
            if let Some(at) = asked {
                known.look_again = at + REFETCH_EVERY;
            }
            if let Ok(set) = fetched {
                known.set = Arc::new(set);
                known.generation += 1;
            }
        });
    }

    fn log_fetch(&mut self, fetched: &anyhow::Result<KeySet>) {
        match fetched {
            Ok(set) => {
                tracing::info!(keys = set.len(), "fetched the JWKS");
                self.keys.set(i64::try_from(set.len()).unwrap_or(i64::MAX));
            }
            Err(error) if !self.is_in_trouble => {
                let error = format!("{error:#}");
                let url = &self.source.url;
                tracing::error!(error, %url, "fetching the JWKS failed, the previous keys stay valid");
            }
            Err(_) => {}
        }
        self.is_in_trouble = fetched.is_err();
    }

    async fn fetch(&self) -> anyhow::Result<KeySet> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.source.url.clone();
        let token = self.source.credentials.join("token");
        if token.is_file() {
            let tokens = Tokens::read(&TokenSource::file(token))?;
            let own = tokens.first().map(|token| token.secret.expose()).unwrap_or_default();
            let mut bearer = HeaderValue::try_from(format!("Bearer {own}"))?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let response = self.client.send(request).await?;
        let status = response.status().as_u16();
        anyhow::ensure!(status == 200, "it answered {status}");
        Ok(KeySet::read(response.body())?)
    }
}
