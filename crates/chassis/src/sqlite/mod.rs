//! A SQLite database behind one contract: a write is one durable job, a read sees one moment.
//! Knows no table of any service: jobs and migrations are parameters.

mod backup;
mod disk;
mod file;
mod health;
mod migrate;
mod place;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use self::file::File;
use crate::clock::Clock;

pub use crate::schema::Migration;
pub use backup::{BackupError, back_up};
pub use disk::Disk;
pub use file::{QUEUE_MAX, READERS_MAX};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENTS_CACHED_MAX: usize = 128;

/// Errors of a database.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The file cannot be used; the text has the reason and the remedy.
    #[error("{0}")]
    Place(String),
    /// The schema is not one that this program may use.
    #[error("{0}")]
    Schema(String),
    /// The rows of the database are of the other kind of clock.
    #[error("{0}")]
    Clock(String),
    /// SQLite could not open or prepare the file.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// This job failed and left nothing behind; other jobs of its commit are not affected.
    #[error("the database refused a statement")]
    Job(#[source] rusqlite::Error),
    /// This job was not begun: the jobs before it took too long, or its caller has left.
    #[error("the database was busy for too long, or the caller has left, so this was not begun")]
    Late,
    /// The commit that this job was part of failed and was rolled back.
    #[error("the database could not commit")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The database is closed, or this job panicked and was undone.
    #[error("the database is closed, or the job died")]
    Closed,
}

/// An open database. Dropping it waits until the queue is done.
#[derive(Debug)]
pub struct Sqlite(Backing);

/// The place of a database: a file or a simulation's disk.
#[derive(Debug)]
enum Backing {
    InFile(File),
    OnDisk(Disk),
}

impl Sqlite {
    /// Locks and opens the file (created if missing), brings its schema up to date and starts the writer thread.
    ///
    /// # Errors
    /// When another process holds the file, the file is on a network file system, its schema is an incompatible later
    /// program's, or SQLite cannot use it.
    pub fn open(path: &Path, migrations: &'static [Migration], clock: &Clock) -> Result<Self, SqliteError> {
        File::open(path, migrations, clock).map(Backing::InFile).map(Self)
    }

    /// The database of a simulation.
    #[must_use]
    pub fn on(disk: &Disk) -> Self {
        Self(Backing::OnDisk(disk.clone()))
    }

    /// Whether the last commit succeeded, from memory: for a readiness check. After a failed commit, a check also
    /// queues a write that changes nothing, so that free space is noticed.
    pub fn is_writable(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let look = match &self.0 {
            Backing::InFile(file) => Some(file.is_writable()),
            Backing::OnDisk(_) => None,
        };
        move || look.as_ref().map_or(Ok(()), |look| look())
    }

    /// Runs a job inside a transaction that it may share with other jobs: it must not begin or end a transaction, must
    /// not block, and sees what earlier jobs wrote. `Ok` means that its writes are on disk. A caller that stops waiting
    /// does not undo or cancel its job.
    ///
    /// # Errors
    /// The job's own error (then only this job is undone), or the error of the failed commit.
    pub async fn write<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &self.0 {
            Backing::InFile(file) => file.write(job).await,
            Backing::OnDisk(disk) => disk.write(job).await,
        }
    }

    /// As [`Self::write`], for a job that is not begun later than `within` from now, when its caller has given up, nor
    /// after that caller has left.
    ///
    /// # Errors
    /// As [`Self::write`], and [`SqliteError::Late`].
    pub async fn write_within<T, F>(&self, within: Duration, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &self.0 {
            Backing::InFile(file) => file.write_within(within, job).await,
            Backing::OnDisk(disk) => disk.write(job).await,
        }
    }

    /// As [`Self::write`], for a job that writes by one statement and fails only when that statement does: SQLite
    /// undoes such a statement itself, so that the job needs no savepoint. If it panics, its whole commit fails.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_one_statement<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &self.0 {
            Backing::InFile(file) => file.write_one_statement(job).await,
            Backing::OnDisk(disk) => disk.write(job).await,
        }
    }

    /// Runs a job that only reads, on a thread that may block: all its statements see one moment.
    ///
    /// # Errors
    /// The job's own error.
    pub async fn read<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &self.0 {
            Backing::InFile(file) => file.read(job).await,
            Backing::OnDisk(disk) => disk.read(job).await,
        }
    }

    /// Runs a job as [`Self::read`] does, for a read of a few rows by an index: it has a connection that other reads
    /// never take.
    ///
    /// # Errors
    /// The job's own error.
    pub async fn read_short<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &self.0 {
            Backing::InFile(file) => file.read_short(job).await,
            Backing::OnDisk(disk) => disk.read(job).await,
        }
    }
}

/// Reads a file that another process may be working with: takes no lock of ours, creates and changes nothing.
///
/// # Errors
/// When there is no such file, it cannot be read, or the job's own error.
pub async fn peek<T, F>(path: &Path, job: F) -> Result<T, SqliteError>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let connection = file::open_reader(&path).map_err(|source| SqliteError::Open { path, source })?;
        job(&connection).map_err(SqliteError::Job)
    });
    reading.await.map_err(|_| SqliteError::Closed)?
}

fn configured(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED_MAX);
    // A plan must not depend on bound values: otherwise statements are prepared again whenever the values change.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}
