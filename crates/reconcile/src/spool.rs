//! Streams of records in blocks that a caller keeps outside of memory, so that many streams need little of it. Writes
//! and reads whole records in order; knows neither their contents nor where blocks are kept.

use std::convert::Infallible;
use std::fmt;
use std::vec;

/// Bytes of a block. Each stream being written holds about one in memory.
pub const BLOCK_BYTES: usize = 8 * 1024;

/// The id of a block in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(pub u32);

/// Keeps blocks of [`BLOCK_BYTES`].
pub trait BlockStore {
    /// The error when a block cannot be written or read.
    type Error;

    /// Stores a block.
    ///
    /// # Errors
    /// There is no space, or the block cannot be written.
    fn write(&mut self, block: &[u8]) -> Result<BlockId, Self::Error>;

    /// Reads a block and appends it to `to`.
    ///
    /// # Errors
    /// The block cannot be read.
    fn read(&mut self, id: BlockId, to: &mut Vec<u8>) -> Result<(), Self::Error>;

    /// Frees a block that will not be read again, so that its space can be used.
    fn free(&mut self, id: BlockId);
}

/// The error when a stream cannot be written or read.
#[derive(Debug, PartialEq, Eq)]
pub enum SpoolError<E> {
    /// The store has failed.
    Store(E),
    /// A block differs from what was written.
    Damaged,
}

impl<E: fmt::Display> fmt::Display for SpoolError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Damaged => f.write_str("what was kept outside of memory is damaged: verify again"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for SpoolError<E> {}

impl<E> From<E> for SpoolError<E> {
    fn from(error: E) -> Self {
        Self::Store(error)
    }
}

/// Blocks in memory.
#[derive(Debug, Default)]
pub struct MemoryBlocks {
    blocks: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl MemoryBlocks {
    /// Number of blocks in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.blocks.len() - self.free.len()
    }
}

impl BlockStore for MemoryBlocks {
    type Error = Infallible;

    fn write(&mut self, block: &[u8]) -> Result<BlockId, Self::Error> {
        let id = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Vec::new());
            u32::try_from(self.blocks.len() - 1).expect("so many blocks do not fit into memory")
        });
        self.blocks[id as usize] = block.to_vec();
        Ok(BlockId(id))
    }

    fn read(&mut self, id: BlockId, to: &mut Vec<u8>) -> Result<(), Self::Error> {
        to.extend_from_slice(&self.blocks[id.0 as usize]);
        Ok(())
    }

    fn free(&mut self, id: BlockId) {
        self.blocks[id.0 as usize] = Vec::new();
        self.free.push(id.0);
    }
}

/// A stream of records in the order of their arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    blocks: Vec<BlockId>,
    /// The bytes that do not fill a block yet.
    tail: Vec<u8>,
    pub(crate) records: usize,
}

impl Stream {
    pub(crate) fn push<S: BlockStore>(&mut self, store: &mut S, record: &[u8]) -> Result<(), S::Error> {
        let length = u32::try_from(record.len()).expect("a record is shorter than 4 GiB");
        self.tail.extend_from_slice(&length.to_le_bytes());
        self.tail.extend_from_slice(record);
        let mut written = 0;
        while self.tail.len() - written >= BLOCK_BYTES {
            self.blocks.push(store.write(&self.tail[written..written + BLOCK_BYTES])?);
            written += BLOCK_BYTES;
        }
        self.tail.drain(..written);
        self.records += 1;
        Ok(())
    }

    /// Reads all records once and frees their space.
    pub(crate) fn take(&mut self) -> Records {
        let Self { blocks, tail, .. } = std::mem::take(self);
        Records { blocks: blocks.into_iter(), tail, is_last: true, buffer: Vec::new(), at: 0 }
    }

    /// Reads all records and keeps them.
    pub(crate) fn read(&self) -> Records {
        Records { is_last: false, ..self.clone().take() }
    }
}

/// The records of a stream.
#[derive(Debug)]
pub(crate) struct Records {
    blocks: vec::IntoIter<BlockId>,
    tail: Vec<u8>,
    is_last: bool,
    buffer: Vec<u8>,
    at: usize,
}

impl Records {
    /// The next record, or `None` after the last.
    pub(crate) fn next<S: BlockStore>(
        &mut self,
        store: &mut S,
    ) -> Result<Option<&[u8]>, SpoolError<S::Error>> {
        loop {
            if let Some(length) = self.complete() {
                let start = self.at + size_of::<u32>();
                self.at = start + length;
                return Ok(Some(&self.buffer[start..self.at]));
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            if let Some(id) = self.blocks.next() {
                store.read(id, &mut self.buffer)?;
                if self.is_last {
                    store.free(id);
                }
            } else if self.tail.is_empty() {
                return if self.buffer.is_empty() { Ok(None) } else { Err(SpoolError::Damaged) };
            } else {
                self.buffer.append(&mut self.tail);
            }
        }
    }

    /// The length of the next record, if all of it is in the buffer.
    fn complete(&self) -> Option<usize> {
        let rest = self.buffer.get(self.at..)?;
        let (length, record) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        (record.len() >= length).then_some(length)
    }
}
