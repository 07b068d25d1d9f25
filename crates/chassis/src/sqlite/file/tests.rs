//! Tests of what callers rely on, each named by a sentence.

use std::sync::mpsc as std_mpsc;

use rusqlite::params;
use tempfile::TempDir;

use super::*;

static SCHEMA: [Migration; 1] = [Migration {
    name: "first",
    sql: "CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
          CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE,
              parent INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED) STRICT;",
    breaks_older: false,
}];

fn open(folder: &TempDir) -> File {
    File::open(&folder.path().join("test.db"), &SCHEMA, &Clock::system()).unwrap()
}

fn insert(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT INTO note (text) VALUES (?1)")?.execute([text]).map(drop)
}

async fn texts(database: &File) -> Vec<String> {
    let all = database.read(|connection| {
        let mut statement = connection.prepare_cached("SELECT text FROM note ORDER BY id")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    });
    all.await.unwrap()
}

/// Holds the writer inside a job until the sender sends or is dropped, so that later jobs queue up behind it.
async fn hold(database: &Arc<File>) -> std_mpsc::Sender<()> {
    let (release, held) = std_mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let database = Arc::clone(database);
    tokio::spawn(async move {
        let job = move |_: &Connection| {
            let _ = entered.send(());
            let _ = held.recv();
            Ok(())
        };
        database.write(job).await
    });
    inside.await.unwrap();
    release
}

async fn queued(database: &File, jobs: usize) {
    let sender = database.jobs.as_ref().unwrap();
    while QUEUE_MAX - sender.capacity() < jobs {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_job_that_would_begin_too_late_is_not_begun_and_those_behind_it_are() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(&folder));
    let release = hold(&database).await;
    let insert_within = |text: &'static str, within| {
        let database = Arc::clone(&database);
        tokio::spawn(async move {
            database.write_within(within, move |connection| insert(connection, text)).await
        })
    };
    let late = insert_within("late", Duration::ZERO);
    queued(&database, 1).await;
    let early = insert_within("early", Duration::from_secs(3600));
    queued(&database, 2).await;
    release.send(()).unwrap();
    assert!(matches!(late.await.unwrap(), Err(SqliteError::Late)));
    early.await.unwrap().unwrap();
    assert_eq!(texts(&database).await, ["early"]);
}

/// `FULL` is 2, `EXTRA` is 3.
async fn flushes(database: &File) -> (i64, String) {
    let pragma = |connection: &Connection| {
        let level = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        let journal = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        Ok((level, journal))
    };
    database.write(pragma).await.unwrap()
}

#[tokio::test]
async fn commits_are_flushed_whatever_another_connection_has_set() {
    let folder = TempDir::new().unwrap();
    drop(open(&folder));
    let other = Connection::open(folder.path().join("test.db")).unwrap();
    other.pragma_update(None, "journal_mode", "DELETE").unwrap();
    other.pragma_update(None, "synchronous", "OFF").unwrap();
    insert(&other, "unflushed").unwrap();
    drop(other);
    let database = open(&folder);
    assert_eq!(flushes(&database).await, (2, "wal".to_owned()), "set at the opening");
    let other = Connection::open(folder.path().join("test.db")).unwrap();
    other.pragma_update(None, "synchronous", "OFF").unwrap();
    insert(&other, "unflushed too").unwrap();
    database.write(|connection| insert(connection, "flushed")).await.unwrap();
    assert_eq!(flushes(&database).await, (2, "wal".to_owned()), "while it is open");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_reopening() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    database.write(|connection| insert(connection, "kept")).await.unwrap();
    assert_eq!(texts(&database).await, ["kept"]);
    drop(database);
    assert_eq!(texts(&open(&folder)).await, ["kept"]);
}

#[tokio::test]
async fn a_failing_job_undoes_itself_and_no_other_of_its_commit() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(&folder));
    let release = hold(&database).await;
    let jobs: Vec<_> = ["a", "b", "a", "c"]
        .into_iter()
        .map(|text| {
            let database = Arc::clone(&database);
            tokio::spawn(async move {
                let job = move |connection: &Connection| {
                    insert(connection, &format!("first of {text} {}", connection.last_insert_rowid()))?;
                    insert(connection, text)
                };
                database.write(job).await
            })
        })
        .collect();
    queued(&database, jobs.len()).await;
    drop(release);
    let mut failed = 0;
    for job in jobs {
        match job.await.unwrap() {
            Ok(()) => {}
            Err(SqliteError::Job(_)) => failed += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(failed, 1);
    let texts = texts(&database).await;
    assert_eq!(texts.len(), 6, "{texts:?}");
}

#[tokio::test]
async fn a_failing_first_job_undoes_itself_and_the_others_of_its_commit_stay() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(&folder));
    database.write(|connection| insert(connection, "known")).await.unwrap();
    let release = hold(&database).await;
    let twice = tokio::spawn({
        let database = Arc::clone(&database);
        let job = |connection: &Connection| {
            insert(connection, "undone")?;
            insert(connection, "known")
        };
        async move { database.write(job).await }
    });
    queued(&database, 1).await;
    let other = tokio::spawn({
        let database = Arc::clone(&database);
        async move { database.write(|connection| insert(connection, "other")).await }
    });
    queued(&database, 2).await;
    // This is longer than the time in which a commit takes further jobs: both come into the next commit, the failing
    // one first.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(release);
    assert!(matches!(twice.await.unwrap(), Err(SqliteError::Job(_))));
    other.await.unwrap().unwrap();
    assert_eq!(texts(&database).await, ["known", "other"]);
}

#[tokio::test]
async fn a_failing_statement_undoes_itself_and_a_panic_after_one_fails_its_commit() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    database.write_one_statement(|connection| insert(connection, "known")).await.unwrap();
    let again = database.write_one_statement(|connection| insert(connection, "known")).await;
    assert!(matches!(again, Err(SqliteError::Job(_))));
    let job = |connection: &Connection| -> rusqlite::Result<()> {
        insert(connection, "undone")?;
        panic!("a broken invariant");
    };
    assert!(matches!(database.write_one_statement(job).await, Err(SqliteError::Commit(_))));
    database.write_one_statement(|connection| insert(connection, "after")).await.unwrap();
    assert_eq!(texts(&database).await, ["known", "after"]);
}

#[tokio::test]
async fn a_failed_commit_fails_every_job_of_it_and_not_the_next() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(&folder));
    let release = hold(&database).await;
    let good = tokio::spawn({
        let database = Arc::clone(&database);
        async move { database.write(|connection| insert(connection, "lost with the other")).await }
    });
    queued(&database, 1).await;
    let orphan = tokio::spawn({
        let database = Arc::clone(&database);
        let sql = "INSERT INTO note (text, parent) VALUES ('orphan', 404)";
        async move { database.write(move |connection| connection.execute(sql, [])).await }
    });
    queued(&database, 2).await;
    drop(release);
    assert!(matches!(good.await.unwrap(), Err(SqliteError::Commit(_))));
    assert!(matches!(orphan.await.unwrap(), Err(SqliteError::Commit(_))));
    database.write(|connection| insert(connection, "after")).await.unwrap();
    assert_eq!(texts(&database).await, ["after"]);
}

#[tokio::test]
async fn a_full_disk_is_an_error_to_the_callers_and_the_writer_lives_on() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    let limit = |pages: u32| {
        move |connection: &Connection| {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, u32>(0))
        }
    };
    database.write(|connection| insert(connection, "before")).await.unwrap();
    database.write(limit(1)).await.unwrap();
    let large = |connection: &Connection| insert(connection, &"x".repeat(1 << 20));
    let error = database.write(large).await.unwrap_err();
    assert!(matches!(error, SqliteError::Job(_)), "{error:?}");
    database.write(limit(u32::MAX - 1)).await.unwrap();
    database.write(|connection| insert(connection, "after")).await.unwrap();
    assert_eq!(texts(&database).await, ["before", "after"]);
}

#[tokio::test]
async fn a_database_is_not_writable_from_a_failed_commit_to_the_next_that_succeeds() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    let is_writable = database.is_writable();
    assert_eq!(is_writable(), Ok(()));
    let orphan = "INSERT INTO note (text, parent) VALUES ('orphan', 404)";
    let orphan = database.write(move |connection| connection.execute(orphan, [])).await;
    assert!(matches!(orphan, Err(SqliteError::Commit(_))));
    assert!(is_writable().is_err());
    // The check alone must notice it: this process is the only writer.
    let again = async {
        while is_writable().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("it is tried again");
    drop(database);
}

#[tokio::test]
async fn a_panicking_job_is_undone_and_the_writer_lives_on() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder);
    let job = |connection: &Connection| -> rusqlite::Result<()> {
        insert(connection, "undone")?;
        panic!("a broken invariant");
    };
    assert!(matches!(database.write(job).await, Err(SqliteError::Closed)));
    database.write(|connection| insert(connection, "after")).await.unwrap();
    assert_eq!(texts(&database).await, ["after"]);
}

#[tokio::test]
async fn dropping_finishes_what_was_queued() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(&folder));
    let release = hold(&database).await;
    let sender = database.jobs.clone().unwrap();
    for number in 0..1000 {
        let (reply, _gone) = oneshot::channel();
        let job = move |connection: &Connection| insert(connection, &number.to_string());
        sender.try_send(Box::new(writer::Task::new(job, reply))).ok().unwrap();
    }
    drop((sender, release));
    while Arc::strong_count(&database) > 1 {
        tokio::task::yield_now().await;
    }
    drop(Arc::into_inner(database).unwrap());
    assert_eq!(texts(&open(&folder)).await.len(), 1000);
}

#[cfg(unix)]
#[tokio::test]
async fn another_name_of_the_file_is_no_way_around_its_lock() {
    let folder = TempDir::new().unwrap();
    let (alias, hard_link_path) = (folder.path().join("alias.db"), folder.path().join("hard-link.db"));
    let first = open(&folder);
    std::os::unix::fs::symlink(&first.path, &alias).unwrap();
    let error = File::open(&alias, &SCHEMA, &Clock::system()).unwrap_err();
    assert!(error.to_string().contains("is in use"), "{error}");
    std::fs::hard_link(&first.path, &hard_link_path).unwrap();
    drop(first);
    let error = File::open(&hard_link_path, &SCHEMA, &Clock::system()).unwrap_err();
    assert!(error.to_string().contains("hard link"), "{error}");
}

#[tokio::test]
async fn a_second_holder_of_the_file_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder);
    let error = File::open(&first.path, &SCHEMA, &Clock::system()).unwrap_err();
    assert!(error.to_string().contains("is in use: another process holds"), "{error}");
    drop(first);
    open(&folder);
}

#[tokio::test]
async fn a_read_sees_one_moment_and_cannot_write() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(&folder));
    let (go_on, wait) = std_mpsc::channel::<()>();
    let (entered, inside) = oneshot::channel();
    let reading = tokio::spawn({
        let database = Arc::clone(&database);
        async move {
            let count = |connection: &Connection| {
                connection.query_row("SELECT count(*) FROM note", [], |row| row.get::<_, i64>(0))
            };
            let job = move |connection: &Connection| {
                let before = count(connection)?;
                let _ = entered.send(());
                let _ = wait.recv();
                Ok((before, count(connection)?))
            };
            database.read(job).await
        }
    });
    inside.await.unwrap();
    database.write(|connection| insert(connection, "meanwhile")).await.unwrap();
    go_on.send(()).unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), (0, 0));
    assert!(database.read(|connection| insert(connection, "no")).await.is_err());
    assert_eq!(texts(&database).await, ["meanwhile"]);
}

#[tokio::test]
async fn reads_that_take_long_hold_up_no_short_one() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(open(&folder));
    let (release, held) = std_mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (entered, mut inside) = mpsc::channel(READERS_MAX);
    let long = (0..READERS_MAX + 5).map(|_| {
        let (database, held, entered) = (Arc::clone(&database), Arc::clone(&held), entered.clone());
        tokio::spawn(async move {
            let job = move |_: &Connection| {
                let _ = entered.try_send(());
                let _ = held.lock().unwrap().recv();
                Ok(())
            };
            database.read(job).await
        })
    });
    let long: Vec<_> = long.collect();
    for _ in 0..READERS_MAX {
        inside.recv().await.unwrap();
    }
    let one = |connection: &Connection| connection.query_row("SELECT 1", [], |row| row.get::<_, i64>(0));
    let short = tokio::time::timeout(Duration::from_secs(20), database.read_short(one)).await;
    assert_eq!(short.expect("it waits for no long one").unwrap(), 1);
    drop(release);
    for long in long {
        long.await.unwrap().unwrap();
    }
}

fn reopened_with(folder: &TempDir, migrations: &'static [Migration]) -> Result<File, SqliteError> {
    File::open(&folder.path().join("test.db"), migrations, &Clock::system())
}

async fn add_step(database: &File, breaks_older: bool) {
    let add = move |connection: &Connection| {
        let sql = "INSERT INTO migrations VALUES (2, 'of a later program', ?1, 0)";
        connection.execute(sql, params![breaks_older])
    };
    database.write(add).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_only_if_it_says_so() {
    let folder = TempDir::new().unwrap();
    add_step(&open(&folder), false).await;
    let database = reopened_with(&folder, &SCHEMA).unwrap();
    let version = "SELECT max(version) FROM migrations";
    let version =
        database.read(move |connection| connection.query_row(version, [], |row| row.get::<_, u32>(0)));
    assert_eq!(version.await.unwrap(), 2);
    database
        .write(|connection| connection.execute("DELETE FROM migrations WHERE version = 2", []))
        .await
        .unwrap();
    add_step(&database, true).await;
    drop(database);
    let error = reopened_with(&folder, &SCHEMA).unwrap_err();
    assert!(error.to_string().contains("newer program"), "{error}");
}

#[tokio::test]
async fn a_schema_of_another_service_is_refused_and_a_failing_step_leaves_nothing() {
    static OTHER: [Migration; 1] = [Migration { name: "other", sql: "", breaks_older: false }];
    static BROKEN: [Migration; 2] = [
        Migration { name: "first", sql: SCHEMA[0].sql, breaks_older: false },
        Migration { name: "broken", sql: "CREATE TABLE half (id INTEGER); SELECT no", breaks_older: false },
    ];
    let folder = TempDir::new().unwrap();
    drop(open(&folder));
    let error = reopened_with(&folder, &OTHER).unwrap_err();
    assert!(error.to_string().contains("not the same service?"), "{error}");
    assert!(reopened_with(&folder, &BROKEN).is_err());
    let half = "SELECT count(*) FROM sqlite_schema WHERE name = 'half'";
    let database = open(&folder);
    let count = database.read(move |connection| connection.query_row(half, [], |row| row.get::<_, i64>(0)));
    assert_eq!(count.await.unwrap(), 0);
}
