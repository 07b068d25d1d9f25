//! A disk that a simulation owns: one database in memory, which outlives the processes that use it, runs every job on
//! its caller's task, and can lose the last commit. Knows no job's meaning.
//!
//! The last commit is kept as an open savepoint: the next commit releases the savepoint, and the loss of a commit rolls
//! it back.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::{Migration, migrate};
use super::{SqliteError, configured};
use crate::clock::{Clock, Random};

/// Maximum time that a write waits for its turn, and that its caller then waits for the answer; each is drawn
/// separately.
const LATENCY_MAX: Duration = Duration::from_millis(4);

/// The database of a simulation. Clones share it.
#[derive(Clone)]
pub struct Disk(Arc<Inner>);

struct Inner {
    connection: Mutex<Connection>,
    random: Random,
    /// Share of writes that fail, in percent.
    failing: AtomicU64,
}

/// How a write fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteFault {
    /// Nothing is written.
    BeforeCommit,
    /// The commit succeeds and its caller gets an error.
    AfterCommit,
}

impl Disk {
    /// A fresh database with this schema; `random` draws how long each write takes, in simulated time.
    ///
    /// # Errors
    /// When a migration fails.
    pub fn new(migrations: &[Migration], clock: &Clock, random: Random) -> Result<Self, SqliteError> {
        let mut connection = Connection::open_in_memory().and_then(configured).map_err(SqliteError::Job)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(SqliteError::Job)?;
        migrate::apply(&mut connection, migrations, clock)?;
        connection.execute_batch("BEGIN; SAVEPOINT last").map_err(SqliteError::Job)?;
        let (connection, failing) = (Mutex::new(connection), AtomicU64::new(0));
        Ok(Self(Arc::new(Inner { connection, random, failing })))
    }

    /// Undoes the last commit, although it was reported as durable, like a power failure on a disk that ignores fsync.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn lose_last_commit(&self) -> Result<(), SqliteError> {
        self.with(|connection| connection.execute_batch("ROLLBACK TO last")).map_err(SqliteError::Job)
    }

    /// Makes this percentage of writes fail from now on: every second of them only after its commit.
    pub fn fail_writes(&self, percent: u64) {
        self.0.failing.store(percent, Relaxed);
    }

    /// Reads the database from outside the simulation, at once.
    ///
    /// # Errors
    /// The job's own error.
    pub fn inspect<T>(&self, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.with(job)
    }

    /// Runs a job as [`super::Sqlite::write`] does. A caller that is gone undoes nothing, unless the whole process is
    /// gone.
    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let disk = self.clone();
        let task = async move {
            tokio::time::sleep(disk.0.random.jitter(LATENCY_MAX)).await;
            let fault = disk.draw_fault();
            if fault == Some(WriteFault::BeforeCommit) {
                return Err(SqliteError::Closed);
            }
            let written = disk.with(|connection| commit(connection, job));
            tokio::time::sleep(disk.0.random.jitter(LATENCY_MAX)).await;
            match fault {
                Some(_) => Err(SqliteError::Closed),
                None => written.map_err(SqliteError::Job),
            }
        };
        tokio::spawn(task).await.map_err(|_| SqliteError::Closed)?
    }

    /// Runs a job as [`super::Sqlite::read`] does.
    pub(super) async fn read<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T>,
    {
        tokio::time::sleep(self.0.random.jitter(LATENCY_MAX)).await;
        self.with(job).map_err(SqliteError::Job)
    }

    fn draw_fault(&self) -> Option<WriteFault> {
        let draw = self.0.random.below(200);
        let is_failing = draw / 2 < self.0.failing.load(Relaxed);
        is_failing.then_some(if draw.is_multiple_of(2) {
            WriteFault::BeforeCommit
        } else {
            WriteFault::AfterCommit
        })
    }

    fn with<T>(&self, job: impl FnOnce(&Connection) -> T) -> T {
        job(&self.0.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes the previous commit permanent, then runs the job as the last commit, which a simulated crash may still lose. A
/// failed job leaves no commit to lose.
fn commit<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("RELEASE last; SAVEPOINT last")?;
    let done = job(connection);
    if done.is_err() {
        connection.execute_batch("ROLLBACK TO last")?;
    }
    done
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}
