//! A consistent copy of a SQLite database while another process serves it: written under another name, checked, synced,
//! and only then renamed to its own. Never overwrites; knows no table of any service.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::configured;

/// Faults that the check of a copy lists.
const FAULTS_MAX: usize = 10;

/// Why a backup failed; nothing is left under its name.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file of this name exists already.
    #[error("{0} exists, and a backup overwrites nothing: give another name, or move it away")]
    Exists(PathBuf),
    /// There is nothing to copy.
    #[error("there is no database {0}")]
    NoDatabase(PathBuf),
    /// The copy could not be written or named.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// SQLite could not read the database or write the copy.
    #[error("cannot copy {path}")]
    Copy {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The copy could be opened, but is damaged.
    #[error("the copy of {path} is not sound, so it was removed: {what}")]
    Unsound {
        /// The database.
        path: PathBuf,
        /// The damage.
        what: String,
    },
}

/// Copies `database` to `to`, as it is at one moment; the process that serves it continues. `look` gets the copy: it
/// may mark the copy, and returns what is missing in it.
///
/// # Errors
/// Why the backup failed.
pub fn back_up<T>(
    database: &Path,
    to: &Path,
    look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, BackupError> {
    if !database.is_file() {
        return Err(BackupError::NoDatabase(database.to_owned()));
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let partial = Partial::create(to)?;
    let failed = |source| BackupError::Copy { path: database.to_owned(), source };
    copy(database, &partial.0).map_err(failed)?;
    let found = check(database, &partial.0, look)?;
    partial.finish(to)?;
    Ok(found)
}

/// The unfinished copy, under a name of its own; deleted when dropped.
struct Partial(PathBuf);

impl Partial {
    /// Creates an empty file that only its owner can read: the copy holds the same data as the database.
    fn create(to: &Path) -> Result<Self, BackupError> {
        let mut name = OsString::from(to);
        name.push(format!(".{}.partial", std::process::id()));
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(_) => Ok(Self(path)),
            Err(source) => Err(BackupError::Write { path, source }),
        }
    }

    fn finish(self, to: &Path) -> Result<(), BackupError> {
        let failed = |source| BackupError::Write { path: to.to_owned(), source };
        File::open(&self.0).and_then(|file| file.sync_all()).map_err(failed)?;
        match fs::hard_link(&self.0, to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists(to.to_owned()));
            }
            // A file system without hard links: a writer of the same name between these two calls is not noticed.
            Err(_) if fs::symlink_metadata(to).is_err() => fs::rename(&self.0, to).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        }
        // The temporary name is removed before the folder is synced.
        drop(self);
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // A renamed file is gone already.
        let _gone = fs::remove_file(&self.0);
    }
}

/// Copies by SQLite itself, from one snapshot with the write-ahead log; the copy needs no log.
fn copy(database: &Path, to: &Path) -> rusqlite::Result<()> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let source = configured(Connection::open_with_flags(database, flags)?)?;
    let name = to.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(to.to_owned()))?;
    source.execute("VACUUM INTO ?1", [name]).map(drop)
}

fn check<T>(
    database: &Path,
    copy: &Path,
    look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, BackupError> {
    let unsound = |what: String| BackupError::Unsound { path: database.to_owned(), what };
    let told = |error: rusqlite::Error| unsound(error.to_string());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(copy, flags).and_then(configured).map_err(told)?;
    let found = look(&connection).map_err(told)?;
    let faults = find_faults(&connection).map_err(told)?;
    if !faults.is_empty() {
        return Err(unsound(faults.join("; ")));
    }
    connection.close().map_err(|(_, error)| told(error))?;
    Ok(found)
}

fn find_faults(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FAULTS_MAX})"))?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut faults = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    faults.retain(|fault| fault != "ok");
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    for table in rows.take(FAULTS_MAX) {
        faults.push(format!("a row of {} refers to one that is not there", table?));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::params;

    fn database(folder: &Path) -> (PathBuf, Connection) {
        let path = folder.join("some.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, x TEXT)").unwrap();
        for n in 0..500 {
            connection.execute("INSERT INTO t VALUES (?1, ?2)", params![n, "x".repeat(100)]).unwrap();
        }
        (path, connection)
    }

    fn rows(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_of_an_open_database_holds_what_is_only_in_its_log_and_one_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, writer) = database(folder.path());
        let backups = tempfile::tempdir().unwrap();
        let to = backups.path().join("copy.db");
        writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1000, 'not committed')").unwrap();
        assert_eq!(back_up(&path, &to, rows).unwrap(), 500);
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(names(backups.path()), ["copy.db"]);
        assert_eq!(rows(&Connection::open(&to).unwrap()).unwrap(), 500);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_backup_overwrites_nothing_and_leaves_nothing_when_it_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _writer) = database(folder.path());
        let backups = tempfile::tempdir().unwrap();
        let to = backups.path().join("copy.db");
        let missing = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM other", [], |row| row.get::<_, i64>(0))
        };
        let error = back_up(&path, &to, missing).unwrap_err();
        assert!(matches!(error, BackupError::Unsound { .. }), "{error}");
        assert_eq!(names(backups.path()), [""; 0]);
        fs::write(&to, "kept").unwrap();
        assert!(matches!(back_up(&path, &to, rows), Err(BackupError::Exists(_))));
        assert_eq!(fs::read_to_string(&to).unwrap(), "kept");
        let nothing = back_up(&folder.path().join("none.db"), &backups.path().join("none.db"), rows);
        assert!(matches!(nothing, Err(BackupError::NoDatabase(_))));
        assert_eq!(names(backups.path()), ["copy.db"]);
    }

    #[test]
    fn a_damaged_database_gives_no_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (path, writer) = database(folder.path());
        writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(writer);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xAA);
        fs::write(&path, bytes).unwrap();
        let backups = tempfile::tempdir().unwrap();
        back_up(&path, &backups.path().join("copy.db"), rows).unwrap_err();
        assert_eq!(names(backups.path()), [""; 0]);
    }
}
