//! Location of a database: not on a network file system, and open in one process at a time.
//! Opens no database.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::SqliteError;

/// How long a held lock is retried: a process that was just killed, or a child between fork and exec, releases it
/// within moments.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Pause between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// The real file of a path, so that all its names have one lock.
///
/// # Errors
/// When the file has other names (hard links).
pub(super) fn real(database: &Path) -> Result<PathBuf, SqliteError> {
    let Ok(real) = fs::canonicalize(database) else { return Ok(database.to_owned()) };
    if is_linked(&real) {
        return Err(SqliteError::Place(format!(
            "{} has another name (a hard link), under which a second process could open it; remove that one",
            database.display()
        )));
    }
    Ok(real)
}

#[cfg(unix)]
fn is_linked(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.nlink() > 1)
}

#[cfg(not(unix))]
fn is_linked(_file: &Path) -> bool {
    false
}

/// The lock file beside the database, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or fails when another process has it.
    pub(super) fn take(database: &Path) -> Result<Self, SqliteError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|error| {
            SqliteError::Place(format!("cannot make the lock file {}: {error}", path.display()))
        })?;
        let start = Instant::now();
        let mut tried = file.try_lock();
        while matches!(tried, Err(TryLockError::WouldBlock)) && start.elapsed() < LOCK_WAIT {
            std::thread::park_timeout(LOCK_AGAIN);
            tried = file.try_lock();
        }
        match tried {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(SqliteError::Place(format!(
                "{} is in use: another process holds {}; stop it, or give this one a database of its own",
                database.display(),
                path.display()
            ))),
            Err(TryLockError::Error(error)) => {
                Err(SqliteError::Place(format!("cannot lock {}: {error}", path.display())))
            }
        }
    }
}

/// Refuses the kinds of file system on which SQLite's locks and syncs do not hold between machines.
pub(super) fn refuse_network(database: &Path) -> Result<(), SqliteError> {
    let folder = match database.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(SqliteError::Place(format!("the folder {} does not exist", folder.display())));
    }
    match network_kind(folder) {
        Some(kind) => Err(SqliteError::Place(format!(
            "{} lies on {kind}, where SQLite's locks and syncs do not hold; use a local disk or PostgreSQL",
            database.display()
        ))),
        None => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn network_kind(folder: &Path) -> Option<&'static str> {
    let stat = rustix::fs::statfs(folder).ok()?;
    // The kernel's type is signed or unsigned, 32 or 64 bits, by architecture; the magic is its low 32 bits.
    kind_of_magic(stat.f_type as i128 & 0xFFFF_FFFF)
}

#[cfg(not(target_os = "linux"))]
fn network_kind(_folder: &Path) -> Option<&'static str> {
    None
}

/// Magics of `statfs(2)`.
#[cfg(target_os = "linux")]
fn kind_of_magic(magic: i128) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517B | 0xFE53_4D42 => Some("SMB"),
        0xFF53_4D42 => Some("CIFS"),
        0x5346_414F | 0x6B41_4653 => Some("AFS"),
        _ => None,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(kind_of_magic(0x6969), Some("NFS"));
        assert_eq!(kind_of_magic(0xFF53_4D42), Some("CIFS"));
        assert_eq!(kind_of_magic(0xEF53), None, "ext4");
        assert_eq!(kind_of_magic(0x6573_5546), None, "FUSE");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = refuse_network(Path::new("/no/such/folder/x.db")).unwrap_err();
        assert_eq!(error.to_string(), "the folder /no/such/folder does not exist");
    }
}
