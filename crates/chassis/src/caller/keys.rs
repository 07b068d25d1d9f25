//! The keys that sign tokens, fetched from the API server and kept: new ones are looked for when a token names one,
//! old ones stay while the server is away. Must not know what is signed, nor who is refused.

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

/// A key that nobody knows makes us look for it so often, at most.
pub const REFETCH_EVERY: Duration = Duration::from_secs(30);

/// A key that was taken out of the set is refused after this, at the latest.
pub const REFRESH_EVERY: Duration = Duration::from_secs(300);

/// For one fetch, and for a call that waits for one.
const FETCH_WITHIN: Duration = Duration::from_secs(5);

/// Of a set.
const SET_BYTES_MAX: usize = 256 * 1024;

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// Of the set, over https.
    pub url: Uri,
    /// A folder with `ca.crt`, whom to trust, and perhaps `token`, which is shown: as a pod has it.
    pub credentials: PathBuf,
}

impl KeySource {
    /// What the connection is made with.
    #[must_use]
    pub fn files(&self, setting: &'static str) -> ClientFiles {
        let trusted = Source { setting, path: self.credentials.join("ca.crt") };
        ClientFiles { trusted: Some(trusted), system_too: false, identity: None }
    }
}

/// The keys that are known now. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    known: watch::Receiver<Known>,
    wanted: Arc<Notify>,
}

/// What the last fetch left.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) set: Arc<KeySet>,
    /// Grows with each set that is fetched.
    pub(super) generation: u64,
    /// When an unknown key may make us look again.
    look_again: Instant,
}

/// Fetches. Ends when nobody needs the keys any more.
struct Keeper {
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
    /// When something is wrong with the files.
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
        let keeper = Keeper {
            client: Client::with_connect(limits, connect),
            source,
            known: sender,
            wanted: wanted.clone(),
            fetches: metrics.counters("jwks_fetches_total", "Fetches of the set of keys", &["result"]),
            keys: metrics.gauge("jwks_keys", "Keys that tokens may be signed with"),
            is_in_trouble: false,
        };
        for result in ["ok", "bad"] {
            keeper.fetches.with_label_values(&[result]).inc_by(0);
        }
        tokio::spawn(keeper.keep());
        Ok(Self { known, wanted })
    }

    /// What is known, with the key of this id in it; looked for anew when it is not known, if that is its turn.
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
        // When it takes too long, or there is no keeper any more, what is known is known.
        let _late = tokio::time::timeout(FETCH_WITHIN, known.changed()).await;
        let now = known.borrow().clone();
        now.set.find(kid).is_some().then_some(now)
    }

    pub(super) fn generation(&self) -> u64 {
        self.known.borrow().generation
    }
}

impl Keeper {
    async fn keep(mut self) {
        self.look(None).await;
        loop {
            let next = if self.known.borrow().set.is_empty() { REFETCH_EVERY } else { REFRESH_EVERY };
            let asked = tokio::select! {
                () = tokio::time::sleep(next) => None,
                () = self.wanted.notified() => Some(Instant::now()),
                () = self.known.closed() => return,
            };
            // Whoever asked while another fetch was under way has its answer.
            if asked.is_none_or(|at| at >= self.known.borrow().look_again) {
                self.look(asked).await;
            }
        }
    }

    /// Fetches and publishes; what is known stays when that fails.
    async fn look(&mut self, asked: Option<Instant>) {
        let fetched = self.fetch().await;
        let result = if fetched.is_ok() { "ok" } else { "bad" };
        self.fetches.with_label_values(&[result]).inc();
        self.tell(&fetched);
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

    fn tell(&mut self, fetched: &anyhow::Result<KeySet>) {
        match fetched {
            Ok(set) => {
                tracing::info!(keys = set.len(), "The set of keys was fetched");
                self.keys.set(i64::try_from(set.len()).unwrap_or(i64::MAX));
            }
            Err(error) if !self.is_in_trouble => {
                let error = format!("{error:#}");
                let url = &self.source.url;
                tracing::error!(error, %url, "The set of keys cannot be had; the keys known before stay valid");
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
            let tokens = Tokens::read(&TokenSource::File(token))?;
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
