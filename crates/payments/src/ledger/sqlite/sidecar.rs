//! The sidecar file beside a SQLite ledger: it has the last start, and a position that the ledger has reached. A crash
//! leaves the old file or the new one. Decides nothing and opens no database.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chassis::crash_point;
use tokio::sync::watch;
use uuid::Uuid;

use crate::ledger::incarnation::{Incarnation, Sidecar, Stage};

/// The first line; another version is another file format.
const HEADER: &str = "tinjis ledger sidecar 1\n";
const LAST_SEQ: &str = "last-seq ";
/// Number of digits of the last position, which is fixed, so that the position is overwritten in place.
const DIGITS: usize = 20;
/// Maximum size of a sidecar, which has some 120 bytes.
const BYTES_MAX: u64 = 1024;
/// Interval between two notes of the last position: a compromise of their cost and the rows that a copy may lack
/// unnoticed.
const NOTE_EVERY: Duration = Duration::from_millis(50);

/// Path of the sidecar of a database.
pub(super) fn path_of(database: &Path) -> PathBuf {
    beside(database, ".incarnation")
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(end);
    name.into()
}

/// The contents of the file; `None` if there is no file, an error text if its contents are invalid.
///
/// # Errors
/// When the file cannot be read at all.
pub(super) fn read(path: &Path) -> io::Result<Option<Result<Sidecar, String>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(data) if data.len() > BYTES_MAX => return Ok(Some(Err(format!("it has {} bytes", data.len())))),
        Ok(_) => {}
    }
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(parse(&text).ok_or_else(|| format!("{:?} is no sidecar", path.display().to_string()))))
}

fn parse(text: &str) -> Option<Sidecar> {
    let mut lines = text.strip_prefix(HEADER)?.lines();
    let mut value = |name: &str| lines.next()?.strip_prefix(name);
    let last_seq = value(LAST_SEQ)?.parse().ok()?;
    let id = Uuid::parse_str(value("id ")?).ok()?;
    let start = value("start ")?.parse().ok()?;
    let word = value("stage ")?;
    let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == word)?;
    Some(Sidecar { incarnation: Incarnation { id, start }, stage, last_seq })
}

fn render(sidecar: &Sidecar) -> String {
    let Sidecar { incarnation: Incarnation { id, start }, stage, last_seq } = sidecar;
    let stage = stage.as_str();
    format!("{HEADER}{LAST_SEQ}{last_seq:0DIGITS$}\nid {id}\nstart {start}\nstage {stage}\n")
}

/// Replaces the file; when this returns, the new one is on disk under its name.
///
/// # Errors
/// When the file cannot be written: then either the old file is there or the new one.
pub(super) fn write(path: &Path, sidecar: &Sidecar) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut file = created(&new)?;
    file.write_all(render(sidecar).as_bytes())?;
    file.sync_all()?;
    drop(file);
    crash_point!("sidecar-written");
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Until the folder is on disk too, a power cut may restore the old file under this name.
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    crash_point!("sidecar-renamed");
    Ok(())
}

fn created(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Notes the last position while the ledger serves, shortly after each row is durable and before any copy can be
/// restored; this detects a copy from the same start.
#[derive(Debug)]
pub(super) struct Notes(watch::Sender<i64>);

impl Notes {
    /// Opens the file that [`write`] left; needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn open(path: &Path, last_seq: i64) -> io::Result<Self> {
        let file = Arc::new(OpenOptions::new().write(true).open(path)?);
        let (newest, noted) = watch::channel(last_seq);
        tokio::spawn(follow(noted, file));
        Ok(Self(newest))
    }

    /// Records that this row is durable.
    pub(super) fn record_durable(&self, seq: i64) {
        self.0.send_if_modified(|newest| {
            let is_newer = seq > *newest;
            *newest = seq.max(*newest);
            is_newer
        });
    }
}

async fn follow(mut newest: watch::Receiver<i64>, file: Arc<File>) {
    let mut is_failing = false;
    while newest.changed().await.is_ok() {
        let seq = *newest.borrow_and_update();
        let file = Arc::clone(&file);
        let noted = tokio::task::spawn_blocking(move || write_position(&file, seq)).await;
        let error = match noted {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => return,
        };
        if let Some(error) = error
            && !std::mem::replace(&mut is_failing, true)
        {
            tracing::warn!(%error, "the sidecar file cannot be written, so a restored copy may go unnoticed");
        }
        tokio::time::sleep(NOTE_EVERY).await;
    }
}

/// Writes the position without a sync: after a power cut the file has an older position, which the ledger has too.
fn write_position(file: &File, seq: i64) -> io::Result<()> {
    let digits = format!("{seq:0DIGITS$}");
    let at = u64::try_from(HEADER.len() + LAST_SEQ.len()).expect("a line is short");
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, digits.as_bytes(), at);
    #[cfg(not(unix))]
    {
        use std::io::Seek;
        let mut file = file;
        file.seek(io::SeekFrom::Start(at))?;
        file.write_all(digits.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Sidecar {
        let incarnation = Incarnation { id: Uuid::from_u128(8213), start: 12 };
        Sidecar { incarnation, stage: Stage::Pending, last_seq: 99 }
    }

    #[test]
    fn a_sidecar_is_read_as_it_was_written_and_notes_change_its_position_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(&folder.path().join("payments.db"));
        assert_eq!(read(&path).unwrap(), None);
        for stage in Stage::ALL {
            let sidecar = Sidecar { stage, ..some() };
            write(&path, &sidecar).unwrap();
            assert_eq!(read(&path).unwrap(), Some(Ok(sidecar)));
        }
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for last_seq in [100, i64::MAX, 7] {
            write_position(&file, last_seq).unwrap();
            let noted = Sidecar { stage: Stage::Confirmed, last_seq, ..some() };
            assert_eq!(read(&path).unwrap(), Some(Ok(noted)));
        }
    }

    #[test]
    fn what_is_no_sidecar_is_reported_from_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let long = "x".repeat(5000);
        let sound = render(&some());
        let cut = &sound[..sound.len() - 5];
        for text in ["", "tinjis ledger sidecar 2\n", cut, &sound.replace("pending", "done"), &long] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(&path).unwrap(), Some(Err(_))), "{text:?}");
        }
    }
}
