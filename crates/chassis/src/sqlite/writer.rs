//! The writer thread: takes queued jobs, runs each in a savepoint, commits, and only then responds.
//! Knows no job's meaning.
//!
//! A savepoint is expensive: SQLite copies each page that is changed in it, which with random keys is a page or more
//! per row. A job that can be undone without a savepoint therefore has none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ffi};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::SqliteError;
use super::health::Health;
use crate::presence::Presence;

/// Maximum number of jobs in one commit.
const BATCH_MAX: usize = 512;

/// A commit takes no further job after this long, so that one caller's large job does not delay another caller's
/// answer.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);

/// One queued job, with its caller's type hidden.
pub(super) trait Job: Send {
    /// Runs the job, once; `false` when it failed and its writes must be undone.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Whether the job writes by one statement, which SQLite itself undoes when it fails.
    fn is_one_statement(&self) -> bool;
    /// Responds to the caller after the commit; `failure` is the error of a commit that failed.
    fn answer(self: Box<Self>, failure: Option<&Arc<rusqlite::Error>>);
}

/// A job, its result once it ran, and the sender for its caller.
pub(super) struct Task<T, F> {
    job: Option<F>,
    one_statement: bool,
    /// The time after which it is too late to begin.
    begin_by: Option<Instant>,
    /// The caller, who must still be there when the job begins.
    caller: Presence,
    is_late: bool,
    result: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, SqliteError>>,
}

impl<T, F> Task<T, F> {
    pub(super) fn new(job: F, reply: oneshot::Sender<Result<T, SqliteError>>) -> Self {
        Self {
            job: Some(job),
            one_statement: false,
            begin_by: None,
            caller: Presence::default(),
            is_late: false,
            result: None,
            reply,
        }
    }

    /// A job that must begin by this time, for the caller of this task.
    pub(super) fn begin_by(
        job: F,
        begin_by: Instant,
        reply: oneshot::Sender<Result<T, SqliteError>>,
    ) -> Self {
        Self { begin_by: Some(begin_by), caller: Presence::of_this_task(), ..Self::new(job, reply) }
    }

    pub(super) fn one_statement(job: F, reply: oneshot::Sender<Result<T, SqliteError>>) -> Self {
        Self { one_statement: true, ..Self::new(job, reply) }
    }
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(job) = self.job.take() else { return false };
        if self.begin_by.is_some_and(|by| Instant::now() >= by) || !self.caller.may_begin() {
            self.is_late = true;
            return false;
        }
        self.result = Some(job(connection));
        matches!(self.result, Some(Ok(_)))
    }

    fn is_one_statement(&self) -> bool {
        self.one_statement
    }

    fn answer(self: Box<Self>, failure: Option<&Arc<rusqlite::Error>>) {
        let answer = match (failure, self.result) {
            _ if self.is_late => Err(SqliteError::Late),
            (_, Some(Err(error))) => Err(SqliteError::Job(error)),
            (None, Some(Ok(value))) => Ok(value),
            (Some(error), _) => Err(SqliteError::Commit(Arc::clone(error))),
            (None, None) => Err(SqliteError::Closed),
        };
        // A caller that stopped waiting does not matter: its job is done in any case.
        let _ = self.reply.send(answer);
    }
}

/// Serves the queue until every sender is gone and the queue is empty.
pub(super) fn run(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Job>>, health: &Health) {
    let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(BATCH_MAX);
    while let Some(first) = queue.blocking_recv() {
        let failure = commit_batch(connection, first, &mut queue, &mut batch).err().map(Arc::new);
        health.record_commit(failure.is_some());
        if let Some(error) = &failure {
            tracing::error!(%error, jobs = batch.len(), "a commit failed");
            // SQLite may have ended the transaction itself; then this fails and changes nothing.
            let _ = connection.execute_batch("ROLLBACK");
        }
        for job in batch.drain(..) {
            job.answer(failure.as_ref());
        }
    }
}

/// Runs jobs in one transaction and commits it. Fills `batch` with the jobs that ran, even if the commit fails.
fn commit_batch(
    connection: &Connection,
    first: Box<dyn Job>,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    batch: &mut Vec<Box<dyn Job>>,
) -> rusqlite::Result<()> {
    let began = Instant::now();
    let mut has_yielded = false;
    batch.push(first);
    execute(connection, "BEGIN IMMEDIATE")?;
    loop {
        let is_first = batch.len() == 1;
        if let Some(job) = batch.last_mut() {
            match job.is_one_statement() {
                true => run_statement(connection, job.as_mut())?,
                false if is_first => run_first(connection, job.as_mut())?,
                false => run_in_savepoint(connection, job.as_mut())?,
            }
        }
        if batch.len() >= BATCH_MAX || began.elapsed() >= BATCH_TIME_MAX {
            break;
        }
        match queue.try_recv().or_else(|_| after_others(&mut has_yielded, queue)) {
            Ok(job) => batch.push(job),
            Err(_) => break,
        }
    }
    execute(connection, "COMMIT")
}

/// Takes the next job. At the first call of a batch it first yields to other threads that wait for this CPU. If all
/// CPUs are busy, these include callers that are about to queue a job, and their jobs join this commit. If no thread
/// waits, the yield returns at once.
fn after_others(
    has_yielded: &mut bool,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
) -> Result<Box<dyn Job>, TryRecvError> {
    if std::mem::replace(has_yielded, true) {
        return Err(TryRecvError::Empty);
    }
    std::thread::yield_now();
    queue.try_recv()
}

/// Result of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ran {
    Well,
    Badly,
    Panicked,
}

fn run_job(connection: &Connection, job: &mut dyn Job) -> rusqlite::Result<Ran> {
    let ran = catch_unwind(AssertUnwindSafe(|| job.run(connection)));
    if connection.is_autocommit() {
        return Err(transaction_lost());
    }
    if ran.is_err() {
        tracing::error!("a database job panicked and was rolled back");
    }
    Ok(match ran {
        Ok(true) => Ran::Well,
        Ok(false) => Ran::Badly,
        Err(_) => Ran::Panicked,
    })
}

/// Runs a job that is one statement. After a panic its writes are unknown, so that the whole commit is abandoned.
fn run_statement(connection: &Connection, job: &mut dyn Job) -> rusqlite::Result<()> {
    match run_job(connection, job)? {
        Ran::Well | Ran::Badly => Ok(()),
        Ran::Panicked => Err(transaction_lost()),
    }
}

/// Runs the first job of a transaction: nothing else is in it yet, so that it can be rolled back as a whole.
fn run_first(connection: &Connection, job: &mut dyn Job) -> rusqlite::Result<()> {
    if run_job(connection, job)? == Ran::Well {
        return Ok(());
    }
    execute(connection, "ROLLBACK")?;
    execute(connection, "BEGIN IMMEDIATE")
}

fn run_in_savepoint(connection: &Connection, job: &mut dyn Job) -> rusqlite::Result<()> {
    execute(connection, "SAVEPOINT job")?;
    if run_job(connection, job)? != Ran::Well {
        execute(connection, "ROLLBACK TO job")?;
    }
    execute(connection, "RELEASE job")
}

/// The error after SQLite has rolled the whole transaction back, earlier jobs included, as it does on a full disk or
/// I/O errors.
fn transaction_lost() -> rusqlite::Error {
    let what = "another write of the same commit failed and took the transaction with it";
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK), Some(what.to_owned()))
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
