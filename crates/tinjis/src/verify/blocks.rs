//! Storage for the data of a verification: the first blocks in memory, all others in one temporary file. The file has
//! no name, so that it disappears however the process ends. Knows nothing of the content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use reconcile::{BLOCK_BYTES, BlockId, BlockStore, MemoryBlocks};

use crate::output::note;

/// Blocks of 8 KiB that stay in memory: 16 MiB, enough for about 60,000 invoices, which then need no file.
const IN_MEMORY: usize = 2048;

/// Marks the number of a block in the file. Other blocks are in memory.
const IN_FILE: u32 = 1 << 31;

/// Why a block could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    #[error(
        "the temporary file in {folder} cannot be written: {error}; it needs about 200 bytes for each invoice: free space \
         there, or set TMPDIR to another folder"
    )]
    NotWritten { folder: String, error: io::Error },
    #[error("the temporary file in {folder} cannot be read: {error}; set TMPDIR to another folder")]
    NotRead { folder: String, error: io::Error },
}

/// Blocks of one verification.
#[derive(Debug)]
pub(super) struct Blocks {
    memory: MemoryBlocks,
    in_memory_max: usize,
    open: fn() -> io::Result<File>,
    file: Option<File>,
    written: u32,
    free: Vec<u32>,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self::with(IN_MEMORY, tempfile::tempfile)
    }

    fn with(in_memory_max: usize, open: fn() -> io::Result<File>) -> Self {
        let memory = MemoryBlocks::default();
        Self { memory, in_memory_max, open, file: None, written: 0, free: Vec::new() }
    }

    /// Opens the file. Without it all blocks stay in memory: a container may have no writable folder.
    fn open_file(&mut self) {
        match (self.open)() {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                self.in_memory_max = usize::MAX;
                note(format_args!(
                    "no temporary file can be made in {}: {error}; everything is kept in memory, about 200 bytes for each \
                     invoice. Set TMPDIR to a folder that can be written",
                    folder()
                ));
            }
        }
    }
}

fn folder() -> String {
    std::env::temp_dir().display().to_string()
}

fn offset(number: u32) -> u64 {
    u64::from(number) * BLOCK_BYTES as u64
}

impl BlockStore for Blocks {
    type Error = BlockError;

    fn write(&mut self, block: &[u8]) -> Result<BlockId, BlockError> {
        if self.memory.used() >= self.in_memory_max && self.file.is_none() {
            self.open_file();
        }
        let Some(file) = self.file.as_ref().filter(|_| self.memory.used() >= self.in_memory_max) else {
            let Ok(id) = self.memory.write(block);
            return Ok(id);
        };
        let number = self.free.pop().unwrap_or(self.written);
        let failed = |error| BlockError::NotWritten { folder: folder(), error };
        if number >= IN_FILE {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        file.write_all_at(block, offset(number)).map_err(failed)?;
        self.written = self.written.max(number + 1);
        Ok(BlockId(number | IN_FILE))
    }

    fn read(&mut self, id: BlockId, to: &mut Vec<u8>) -> Result<(), BlockError> {
        let Some(file) = self.file.as_ref().filter(|_| id.0 & IN_FILE != 0) else {
            let Ok(()) = self.memory.read(id, to);
            return Ok(());
        };
        let from = to.len();
        to.resize(from + BLOCK_BYTES, 0);
        file.read_exact_at(&mut to[from..], offset(id.0 & !IN_FILE))
            .map_err(|error| BlockError::NotRead { folder: folder(), error })
    }

    fn free(&mut self, id: BlockId) {
        if id.0 & IN_FILE == 0 {
            self.memory.free(id);
        } else {
            self.free.push(id.0 & !IN_FILE);
        }
    }
}

#[cfg(test)]
mod tests {
    use reconcile::{LedgerContext, PartitionedInvoices, Reconciliation};
    use serde_json::json;

    use super::*;

    fn block(with: u8) -> Vec<u8> {
        vec![with; BLOCK_BYTES]
    }

    fn read(blocks: &mut Blocks, id: BlockId) -> u8 {
        let mut bytes = vec![9];
        blocks.read(id, &mut bytes).unwrap();
        assert_eq!(bytes[1..], block(bytes[1]), "the whole block comes after what was there");
        bytes[1]
    }

    #[test]
    fn blocks_beyond_the_first_are_in_the_file_and_its_room_is_used_again() {
        let mut blocks = Blocks::with(2, tempfile::tempfile);
        let ids: Vec<BlockId> = (0..5).map(|with| blocks.write(&block(with)).unwrap()).collect();
        assert_eq!(ids.iter().filter(|id| id.0 & IN_FILE != 0).count(), 3);
        assert_eq!(ids.iter().map(|id| read(&mut blocks, *id)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        blocks.free(ids[3]);
        blocks.free(ids[1]);
        let (in_memory, in_file) = (blocks.write(&block(6)).unwrap(), blocks.write(&block(7)).unwrap());
        assert_eq!((in_memory, in_file), (ids[1], ids[3]));
        assert_eq!([1, 3, 4].map(|at| read(&mut blocks, ids[at])), [6, 7, 4]);
        let length = blocks.file.as_ref().unwrap().metadata().unwrap().len();
        assert_eq!(length, 3 * BLOCK_BYTES as u64);
    }

    #[test]
    fn without_a_file_all_blocks_stay_in_memory() {
        let mut blocks = Blocks::with(1, || Err(io::ErrorKind::ReadOnlyFilesystem.into()));
        let ids: Vec<BlockId> = (0..4).map(|with| blocks.write(&block(with)).unwrap()).collect();
        assert_eq!(ids.iter().map(|id| read(&mut blocks, *id)).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(blocks.file.is_none());
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_folder_and_what_to_do() {
        let mut blocks = Blocks::with(1, || File::options().read(true).write(true).open("/dev/full"));
        blocks.write(&block(0)).unwrap();
        let error = blocks.write(&block(1)).unwrap_err().to_string();
        let folder = folder();
        assert!(
            error.contains(&folder) && error.contains("No space left") && error.contains("TMPDIR"),
            "{error}"
        );
    }

    /// Compares invoices, each with its charge, with one block in memory and the others in this file.
    fn compared(count: i64, open: fn() -> io::Result<File>) -> anyhow::Result<Reconciliation> {
        // Spreads the keys like hashes.
        let key = |id: i64| format!("{:016x}{id:016x}", id.wrapping_mul(0x1E37_79B9_7F4A_7C15));
        let mut invoices = PartitionedInvoices::new(Blocks::with(1, open));
        let fact = |id: i64| {
            json!({
                "id": id, "seq": id, "reference": format!("I{id}"), "invoice_id": id, "number": 1, "key": key(id),
                "customer_id": 1, "currency": "EUR", "amount_minor": 990,
            })
        };
        let with = |id: i64, state: &str| {
            let mut fact = fact(id);
            fact["state"] = state.into();
            fact
        };
        for id in 1..=count {
            invoices.add(&serde_json::from_value(with(id, "PAID"))?)?;
        }
        let mut attempts = invoices.into_attempts(None);
        for id in 1..=count {
            attempts.add(&serde_json::from_value(with(id, "CHARGED"))?)?;
        }
        let mut ledger = attempts.into_ledger(LedgerContext::default())?;
        for id in 1..=count {
            ledger.add(&serde_json::from_value(with(id, "CHARGED"))?)?;
        }
        Ok(ledger.into_partitions(0)?.finish(false)?)
    }

    #[test]
    fn facts_in_the_file_are_compared_and_a_full_disk_gives_no_verdict() {
        const MANY: i64 = 20_000;
        let result = compared(MANY, tempfile::tempfile).unwrap();
        assert!(result.is_ok(), "{result:?}");
        assert_eq!((result.confirmed, result.paid), (MANY.unsigned_abs(), MANY.unsigned_abs()));
        let full = compared(MANY, || File::options().read(true).write(true).open("/dev/full"));
        assert!(full.unwrap_err().to_string().contains("No space left"));
    }
}
