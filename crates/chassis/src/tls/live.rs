//! Material that changes while it is used: looked at by content, built whole, then published; what is bad leaves the
//! old in force. Must not know what is built.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::material::{Mistake, Mistakes, Source};
use super::metrics::TlsMetrics;
use crate::clock::Clock;

/// How often the files are looked at. A change of a Kubernetes secret takes up to a minute to arrive anyway.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often one look reads the files again when they changed under it.
const READS_MAX: usize = 3;

/// Something that is built from files.
pub(super) trait Material: Send + Sync + 'static {
    type Config: Send + Sync + 'static;

    /// The files, in the order in which [`Self::build`] takes their contents.
    fn sources(&self) -> Vec<&Source>;

    fn build(&self, contents: &[Vec<u8>], clock: &Clock) -> Result<Built<Self::Config>, Vec<Mistake>>;
}

pub(super) struct Built<C> {
    pub(super) config: C,
    /// Of which role, and when the first of its certificates expires, in seconds since 1970.
    pub(super) expiries: Vec<(&'static str, i64)>,
}

/// What is in force, and the how-manieth it is.
#[derive(Debug)]
pub(super) struct Published<C> {
    pub(super) config: C,
    pub(super) generation: u64,
}

/// What a look at the files found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// What is in force already.
    Same,
    /// New material, in force from now on.
    Published,
    /// Nothing that can be used; what was in force stays.
    Bad,
}

pub(super) struct Live<M: Material>(Arc<Inner<M>>);

struct Inner<M: Material> {
    material: M,
    clock: Clock,
    metrics: TlsMetrics,
    current: RwLock<Arc<Published<M::Config>>>,
    seen: Mutex<Seen>,
}

struct Seen {
    published: Fingerprint,
    /// What was logged as bad last.
    bad: Option<Fingerprint>,
}

type Fingerprint = [u8; 32];
type Contents = Result<Vec<Vec<u8>>, Vec<Mistake>>;

impl<M: Material> Live<M> {
    /// Builds what the files hold now and looks after them from then on.
    pub(super) fn open(material: M, clock: Clock, metrics: TlsMetrics) -> Result<Self, Mistakes> {
        let live = Self::once(material, clock, metrics)?;
        tokio::spawn(watch(Arc::downgrade(&live.0)));
        Ok(live)
    }

    /// Builds what the files hold now, and leaves it at that.
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

    /// Looks at the files now.
    pub(super) fn look(&self) -> Looked {
        self.0.look()
    }
}

impl<M: Material> Clone for Live<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Material> fmt::Debug for Live<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("generation", &self.current().generation).finish()
    }
}

impl<M: Material> Inner<M> {
    fn look(&self) -> Looked {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if read(&self.material).is_ok_and(|contents| fingerprint(&Ok(contents)) == seen.published) {
            seen.bad = None;
            return Looked::Same;
        }
        match read_and_build(&self.material, &self.clock) {
            (found, Ok(_)) if found == seen.published => Looked::Same,
            (found, Ok(built)) => {
                *seen = Seen { published: found, bad: None };
                self.publish(built);
                Looked::Published
            }
            (found, Err(mistakes)) => {
                if seen.bad != Some(found) {
                    seen.bad = Some(found);
                    self.metrics.reloaded(false);
                    let error = Mistakes(mistakes);
                    tracing::error!(%error, "TLS material is of no use; what was in force stays");
                }
                Looked::Bad
            }
        }
    }

    fn publish(&self, built: Built<M::Config>) {
        self.metrics.expiries(&built.expiries);
        self.metrics.reloaded(true);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let generation = current.generation + 1;
        *current = Arc::new(Published { config: built.config, generation });
        tracing::info!(generation, "TLS material has changed and is in force");
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

/// Files are exchanged one after the other, or all at once between two reads: what is bad is looked at again, and
/// only believed when it stands still.
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

/// Looks at the files until nobody uses them any more.
async fn watch<M: Material>(inner: Weak<Inner<M>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        // Files may lie on a slow disk. A look that panicked says so in the log by itself.
        let _looked = tokio::task::spawn_blocking(move || inner.look()).await;
    }
}

/// Builds once and throws away: what settings are checked with.
pub(super) fn check(material: &impl Material, clock: &Clock) -> Vec<Mistake> {
    read_and_build(material, clock).1.err().unwrap_or_default()
}
