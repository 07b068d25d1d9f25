//! Reloading of TLS material: compared by content, built completely, then published; after invalid material the
//! previous one stays in force. Must not know what is built.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::material::{Mistake, Mistakes, Source};
use super::metrics::TlsMetrics;
use crate::clock::Clock;

/// Interval of checking the files. A change of a Kubernetes Secret takes up to a minute to arrive anyway.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Maximum number of reads in one check when the files change meanwhile.
const READS_MAX: usize = 3;

/// A configuration that is built from files.
pub(super) trait Material: Send + Sync + 'static {
    type Config: Send + Sync + 'static;

    /// The files, in the order in which [`Self::build`] needs their contents.
    fn sources(&self) -> Vec<&Source>;

    fn build(&self, contents: &[Vec<u8>], clock: &Clock) -> Result<Built<Self::Config>, Vec<Mistake>>;
}

pub(super) struct Built<C> {
    pub(super) config: C,
    /// Roles of certificates, and when the first one of each role expires, in seconds since 1970.
    pub(super) expiries: Vec<(&'static str, i64)>,
}

/// The material in force and its generation.
#[derive(Debug)]
pub(super) struct Published<C> {
    pub(super) config: C,
    pub(super) generation: u64,
}

/// Result of a check of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Unchanged; with the fingerprint of the material in force.
    Same,
    /// New material, which is in force from now on.
    Published,
    /// Invalid; the previous material stays in force.
    Bad,
}

pub(super) struct Reloadable<M: Material>(Arc<Inner<M>>);

struct Inner<M: Material> {
    material: M,
    clock: Clock,
    metrics: TlsMetrics,
    current: RwLock<Arc<Published<M::Config>>>,
    seen: Mutex<Seen>,
}

struct Seen {
    published: Fingerprint,
    /// Fingerprint of the last material that was logged as invalid.
    bad: Option<Fingerprint>,
}

type Fingerprint = [u8; 32];
type Contents = Result<Vec<Vec<u8>>, Vec<Mistake>>;

impl<M: Material> Reloadable<M> {
    /// Builds the configuration and watches its files.
    pub(super) fn open(material: M, clock: Clock, metrics: TlsMetrics) -> Result<Self, Mistakes> {
        let live = Self::once(material, clock, metrics)?;
        tokio::spawn(run_reload_loop(Arc::downgrade(&live.0)));
        Ok(live)
    }

    /// Builds the configuration once.
    pub(super) fn once(material: M, clock: Clock, metrics: TlsMetrics) -> Result<Self, Mistakes> {
        let (published, built) = read_and_build(&material, &clock);
        let built = built.map_err(Mistakes)?;
        metrics.expiries(&built.expiries);
        let current = RwLock::new(Arc::new(Published { config: built.config, generation: 0 }));
        let seen = Mutex::new(Seen { published, bad: None });
        Ok(Self(Arc::new(Inner { material, clock, metrics, current, seen })))
    }

    pub(super) fn current(&self) -> Arc<Published<M::Config>> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Checks the files now.
    pub(super) fn reload_if_changed(&self) -> ReloadOutcome {
        self.0.reload_if_changed()
    }
}

impl<M: Material> Clone for Reloadable<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Material> fmt::Debug for Reloadable<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("generation", &self.current().generation).finish()
    }
}

impl<M: Material> Inner<M> {
    fn reload_if_changed(&self) -> ReloadOutcome {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if read(&self.material).is_ok_and(|contents| fingerprint(&Ok(contents)) == seen.published) {
            self.repaired(&mut seen);
            return ReloadOutcome::Same;
        }
        match read_and_build(&self.material, &self.clock) {
            (found, Ok(_)) if found == seen.published => ReloadOutcome::Same,
            (found, Ok(built)) => {
                self.repaired(&mut seen);
                seen.published = found;
                self.publish(built);
                ReloadOutcome::Published
            }
            (found, Err(mistakes)) => {
                if seen.bad != Some(found) {
                    if seen.bad.replace(found).is_none() {
                        self.metrics.failing(true);
                    }
                    self.metrics.reloaded(false);
                    let error = Mistakes(mistakes);
                    tracing::error!(%error, "reloading the TLS material failed, the previous material stays in force");
                }
                ReloadOutcome::Bad
            }
        }
    }

    fn repaired(&self, seen: &mut Seen) {
        if seen.bad.take().is_some() {
            self.metrics.failing(false);
        }
    }

    fn publish(&self, built: Built<M::Config>) {
        self.metrics.expiries(&built.expiries);
        self.metrics.reloaded(true);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let generation = current.generation + 1;
        *current = Arc::new(Published { config: built.config, generation });
        tracing::info!(generation, "reloaded the TLS material");
    }
}

fn read(material: &impl Material) -> Contents {
    let (mut contents, mut mistakes) = (Vec::new(), Vec::new());
    for source in material.sources() {
        match source.read() {
            Ok(bytes) => contents.push(bytes),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(contents) } else { Err(mistakes) }
}

fn fingerprint(contents: &Contents) -> Fingerprint {
    let mut hash = Sha256::new();
    match contents {
        Ok(files) => files.iter().for_each(|bytes| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }),
        Err(mistakes) => mistakes.iter().for_each(|mistake| hash.update(mistake.to_string())),
    }
    hash.finalize().into()
}

/// Files may be replaced one after the other, or all at once between two reads. Invalid material is therefore read
/// again, and only rejected when it no longer changes.
fn read_and_build<M: Material>(
    material: &M,
    clock: &Clock,
) -> (Fingerprint, Result<Built<M::Config>, Vec<Mistake>>) {
    let mut contents = read(material);
    for _ in 1..READS_MAX {
        let found = fingerprint(&contents);
        let mistakes = match contents.and_then(|contents| material.build(&contents, clock)) {
            Ok(built) => return (found, Ok(built)),
            Err(mistakes) => mistakes,
        };
        contents = read(material);
        if fingerprint(&contents) == found {
            return (found, Err(mistakes));
        }
    }
    (fingerprint(&contents), contents.and_then(|contents| material.build(&contents, clock)))
}

/// Watches the files while the configuration is in use.
async fn run_reload_loop<M: Material>(inner: Weak<Inner<M>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        // The files may be on a slow disk. A check that panicked is logged by the panic hook.
        let _looked = tokio::task::spawn_blocking(move || inner.reload_if_changed()).await;
    }
}

/// Builds and discards the configuration, to validate the settings.
pub(super) fn check(material: &impl Material, clock: &Clock) -> Vec<Mistake> {
    read_and_build(material, clock).1.err().unwrap_or_default()
}
