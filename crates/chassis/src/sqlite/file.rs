//! One SQLite file behind one writer thread: jobs of many callers share one durable commit, and reads use a small pool
//! of connections. Knows no job's meaning.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::health::Health;
use super::{Migration, migrate};
use super::{SqliteError, configured, place, writer};
use crate::clock::Clock;

/// Capacity of the writer's queue; further callers wait.
pub const QUEUE_MAX: usize = 4096;

/// Read-only connections for any read, each two file descriptors: with 1,000 clients descriptors are scarce.
pub const READERS_MAX: usize = 2;

/// Read-only connections that only short reads may use, so that lists for many clients delay no count.
const SHORT_READERS_MAX: usize = 1;

/// Pages of the write-ahead log before it is copied into the database: 16 MiB, so that many commits with random keys
/// change a page before it is written and synced a second time.
const WAL_PAGES: u32 = 4096;
const WAL_BYTES_KEPT: u32 = 64 << 20;
/// Negative: kibibytes instead of pages.
const WRITER_CACHE_KIB: i32 = -16_384;
const READER_CACHE_KIB: i32 = -2_048;

/// A database in a file. Dropping it waits until the writer has finished the queue.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Box<dyn writer::Job>>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    short_readers: Arc<Readers>,
    health: Arc<Health>,
    _lock: place::Lock,
}

#[derive(Debug)]
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl File {
    pub(super) fn open(
        path: &Path,
        migrations: &'static [Migration],
        clock: &Clock,
    ) -> Result<Self, SqliteError> {
        let path = &place::real(path)?;
        place::refuse_network(path)?;
        let lock = place::Lock::take(path)?;
        let failed = |source| SqliteError::Open { path: path.to_owned(), source };
        let mut connection = open_writer(path).map_err(failed)?;
        migrate::apply(&mut connection, migrations, clock)?;

        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let health = Arc::new(Health::default());
        let watched = Arc::clone(&health);
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let writer = std::thread::Builder::new()
            .name(format!("sql-{file_name}"))
            .spawn(move || writer::run(&connection, queue, &watched))
            .map_err(|error| SqliteError::Place(format!("cannot start the database's thread: {error}")))?;
        // Opened now, so that the server counts its descriptors when it asks how many connections it can afford.
        let short_readers = Readers::new(path, SHORT_READERS_MAX);
        short_readers.put(open_reader(path).map_err(failed)?);
        Ok(Self {
            path: path.to_owned(),
            jobs: Some(jobs),
            writer: Some(writer),
            readers: Arc::new(Readers::new(path, READERS_MAX)),
            short_readers: Arc::new(short_readers),
            health,
            _lock: lock,
        })
    }

    pub(super) fn is_writable(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let jobs = self.jobs.as_ref().map(mpsc::Sender::downgrade);
        let health = Arc::clone(&self.health);
        move || health.check(jobs.as_ref().and_then(mpsc::WeakSender::upgrade).as_ref())
    }

    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(writer::Task::new(job, reply)), answer).await
    }

    pub(super) async fn write_within<T, F>(&self, within: Duration, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let begin_by = Instant::now() + within;
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(writer::Task::begin_by(job, begin_by, reply)), answer).await
    }

    pub(super) async fn write_one_statement<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(writer::Task::one_statement(job, reply)), answer).await
    }

    async fn queue<T>(
        &self,
        task: Box<dyn writer::Job>,
        answer: oneshot::Receiver<Result<T, SqliteError>>,
    ) -> Result<T, SqliteError> {
        let jobs = self.jobs.as_ref().ok_or(SqliteError::Closed)?;
        jobs.send(task).await.map_err(|_| SqliteError::Closed)?;
        answer.await.map_err(|_| SqliteError::Closed)?
    }

    pub(super) async fn read<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = self.readers.permit().await?;
        Self::read_with(Arc::clone(&self.readers), permit, job).await
    }

    pub(super) async fn read_short<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let free = [&self.short_readers, &self.readers]
            .into_iter()
            .find_map(|readers| Some((readers, Arc::clone(&readers.permits).try_acquire_owned().ok()?)));
        let (readers, permit) = match free {
            Some(free) => free,
            None => (&self.short_readers, self.short_readers.permit().await?),
        };
        Self::read_with(Arc::clone(readers), permit, job).await
    }

    async fn read_with<T, F>(
        readers: Arc<Readers>,
        permit: OwnedSemaphorePermit,
        job: F,
    ) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = readers.take()?;
            let snapshot = connection.unchecked_transaction().map_err(SqliteError::Job)?;
            let answer = job(&snapshot).map_err(SqliteError::Job);
            drop(snapshot);
            readers.put(connection);
            answer
        });
        reading.await.map_err(|_| SqliteError::Closed)?
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.readers.close();
        self.short_readers.close();
        self.jobs = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the writer thread of the database panicked");
        }
    }
}

impl Readers {
    fn new(path: &Path, max: usize) -> Self {
        let permits = Arc::new(Semaphore::new(max));
        Self { path: path.to_owned(), idle: Mutex::new(Vec::new()), permits }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, SqliteError> {
        Arc::clone(&self.permits).acquire_owned().await.map_err(|_| SqliteError::Closed)
    }

    fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self) -> Result<Connection, SqliteError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => open_reader(&self.path)
                .map_err(|source| SqliteError::Open { path: self.path.clone(), source }),
        }
    }

    fn put(&self, connection: Connection) {
        if !self.permits.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = configured(Connection::open_with_flags(path, flags)?)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = configured(Connection::open_with_flags(path, flags)?)?;
    connection.pragma_update(None, "cache_size", READER_CACHE_KIB)?;
    Ok(connection)
}

#[cfg(test)]
mod tests;
