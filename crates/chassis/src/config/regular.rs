//! Opens and reads files that a setting names, so that none blocks the program or fills its memory.
//! Must not know what a file holds.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file to read it: opening a pipe, or reading a device, could block for ever.
///
/// # Errors
/// When it cannot be opened, or is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Reads a regular file whole. Its size is found by reading: the metadata of some files, such as those in `/proc`,
/// says 0, and a file may grow.
///
/// # Errors
/// When it cannot be read; of kind [`io::ErrorKind::FileTooLarge`] when it has more than `bytes_max` bytes.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let why = format!("larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// As [`read_regular`], as text.
///
/// # Errors
/// As [`read_regular`], and when it is not UTF-8.
pub fn read_regular_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read_regular(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_nothing_else_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_regular_text(&path, 5).unwrap(), "12345");
        let error = read_regular(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "larger than 4 bytes");
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_regular_text(&path, 5).unwrap_err().to_string(), "not UTF-8");

        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [fifo.as_path(), dir.path(), Path::new("/dev/zero")] {
            let why = read_regular(path, 5).unwrap_err().to_string();
            assert_eq!(why, "not a regular file", "{}", path.display());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_whose_metadata_says_that_it_is_empty_is_read_up_to_the_limit() {
        let error = read_regular(Path::new("/proc/self/status"), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
