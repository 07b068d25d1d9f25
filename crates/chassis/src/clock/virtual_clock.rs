//! A virtual clock that several processes share by a file with its distance from the machine's clock. It runs at the
//! machine's rate, and its owner moves it ahead in jumps. Knows neither its readers nor what is due when.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{system_time, whole_ms};
use crate::config::open_regular;

/// Digits of a number in the file, with its sign.
const DIGITS: usize = 20;
/// The file holds the number twice: a reader during a write sees two different numbers.
const BYTES: usize = 2 * (DIGITS + 1);
/// How often a reader of a half-written file reads again before it uses the last known number.
const READS_MAX: usize = 100;

/// The shared file, open.
#[derive(Debug)]
pub struct VirtualClock {
    file: File,
    /// The last number read.
    known_ahead_ms: AtomicI64,
    /// The latest time that was returned: time never goes back, whatever the machine's clock does.
    latest_ms: AtomicI64,
}

impl VirtualClock {
    /// Creates the file, which must not exist; the clock shows `start_ms`, milliseconds since 1970, and runs on from
    /// there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, start_ms: i64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let clock = Self::of(file, start_ms.saturating_sub(machine_ms()));
        clock.write(clock.known_ahead_ms.load(Ordering::Relaxed))?;
        Ok(clock)
    }

    /// Opens the file to read it.
    ///
    /// # Errors
    /// When the file cannot be read, or is no clock.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        for _ in 0..READS_MAX {
            if let Some(ahead_ms) = read(&file)? {
                return Ok(Self::of(file, ahead_ms));
            }
        }
        Err(io::Error::other("is no virtual clock"))
    }

    fn of(file: File, ahead_ms: i64) -> Self {
        Self { file, known_ahead_ms: AtomicI64::new(ahead_ms), latest_ms: AtomicI64::new(i64::MIN) }
    }

    /// Moves the clock ahead to this time, never back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn move_to(&self, to_ms: i64) -> io::Result<()> {
        let ahead_ms = self.ahead_ms().max(to_ms.saturating_sub(machine_ms()));
        self.write(ahead_ms)?;
        self.known_ahead_ms.store(ahead_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Milliseconds by which the clock is ahead of the machine's clock.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        for _ in 0..READS_MAX {
            match read(&self.file) {
                Ok(Some(ahead_ms)) => {
                    self.known_ahead_ms.store(ahead_ms, Ordering::Relaxed);
                    return ahead_ms;
                }
                Ok(None) => {}
                Err(_) => break,
            }
        }
        self.known_ahead_ms.load(Ordering::Relaxed)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        let now_ms = machine_ms().saturating_add(self.ahead_ms());
        self.latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }

    fn write(&self, ahead_ms: i64) -> io::Result<()> {
        let text = format!("{ahead_ms:+0DIGITS$}\n{ahead_ms:+0DIGITS$}\n");
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

/// The number in the file. `None`: a write is half done, or the file is no clock.
fn read(file: &File) -> io::Result<Option<i64>> {
    let mut bytes = [0; BYTES];
    if file.read_at(&mut bytes, 0)? != BYTES {
        return Ok(None);
    }
    let (first, second) = bytes.split_at(BYTES / 2);
    let text = std::str::from_utf8(first).ok().filter(|_| first == second);
    Ok(text.and_then(|text| text.trim_end().parse().ok()))
}

fn machine_ms() -> i64 {
    let since = system_time().duration_since(std::time::UNIX_EPOCH);
    whole_ms(since.unwrap_or(std::time::Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_move_and_time_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let owner = VirtualClock::create(&path, 1_000_000).unwrap();
        let reader = VirtualClock::open(&path).unwrap();
        let first = reader.now_ms();
        assert!((1_000_000..1_060_000).contains(&first), "{first}");
        owner.move_to(5_000_000).unwrap();
        let second = reader.now_ms();
        assert!((5_000_000..5_060_000).contains(&second), "{second}");
        owner.move_to(2_000_000).unwrap();
        assert!(reader.now_ms() >= second && owner.now_ms() >= second);
        assert!(VirtualClock::create(&path, 0).is_err(), "a clock is made once");
    }

    #[test]
    fn a_half_written_file_is_read_as_before_and_another_file_is_no_clock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let owner = VirtualClock::create(&path, 1_000_000).unwrap();
        let before = owner.ahead_ms();
        owner.file.write_all_at(b"+1", 0).unwrap();
        assert_eq!(owner.ahead_ms(), before);
        let other = folder.path().join("other");
        std::fs::write(&other, "1234\n").unwrap();
        assert!(VirtualClock::open(&other).unwrap_err().to_string().contains("no virtual clock"));
    }
}
