//! The matching in little memory, as a grace hash join: facts are written into partitions so that all facts that can
//! match are in the same one. Then [`matching`](crate::matching) compares one partition after the other. Attempts
//! follow the id of their invoice. A ledger row goes to the partition of its key's attempt, else to that of its
//! reference's invoice, as the matching would find them. Decides nothing about the facts, and knows no file.

use std::collections::HashMap;
use std::mem;

use uuid::Uuid;

use crate::codec::{Fields, Record};
use crate::currencies::Currencies;
use crate::facts::{AttemptFact, InvoiceFact, LedgerRow, RowState};
use crate::findings::Reconciliation;
use crate::index::indexed_reference;
use crate::key::{self, KeyBytes};
use crate::matching::{InvoicePhase, LedgerContext};
use crate::spool::{BlockStore, SpoolError, Stream};
use crate::totals::Totals;

/// Number of partitions. A million invoices are 16,000 in each, and each stream being written holds one block per
/// partition.
pub(crate) const PARTITIONS: u8 = 64;

/// One stream for each partition.
#[derive(Debug)]
pub(crate) struct Streams(Vec<Stream>);

impl Default for Streams {
    fn default() -> Self {
        Self((0..PARTITIONS).map(|_| Stream::default()).collect())
    }
}

impl Streams {
    pub(crate) fn of(&mut self, partition: u8) -> &mut Stream {
        &mut self.0[usize::from(partition)]
    }
}

/// The partition of a number; ids are consecutive, so that partitions get equally many.
fn by_number(number: i64) -> u8 {
    u8::try_from(number.rem_euclid(PARTITIONS.into())).unwrap_or(0)
}

/// The partition of a key, in the order of keys. A key is a hash, so that partitions get equally many.
fn by_key(key: &KeyBytes) -> u8 {
    key[0] / (u8::MAX / PARTITIONS + 1)
}

/// The partition of a reference, by FNV-1a.
pub(crate) fn by_reference(reference: &[u8]) -> u8 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    by_number((reference.iter().fold(0xcbf2_9ce4_8422_2325, mix) >> 32).cast_signed())
}

/// Billing's facts, by partition.
#[derive(Debug)]
struct Journal<S> {
    store: S,
    /// Numbers of currencies for all partitions, in the same order as in one comparison of everything.
    currencies: Currencies,
    invoices: Streams,
    attempts: Streams,
    record: Record,
}

/// The first phase: invoices are added.
#[derive(Debug)]
pub struct PartitionedInvoices<S>(Journal<S>);

/// The second phase: attempts are added.
#[derive(Debug)]
pub struct PartitionedAttempts<S> {
    journal: Journal<S>,
    deployment: Option<Uuid>,
}

/// The third phase: ledger rows are added.
#[derive(Debug)]
pub struct PartitionedLedger<S> {
    journal: Journal<S>,
    deployment: Option<Uuid>,
    context: LedgerContext,
    /// Keys of attempts, partitioned by key.
    keys: Streams,
    rows_by_key: Streams,
    rows_by_reference: Streams,
    /// Rows, partitioned by their invoice.
    rows: Streams,
    rows_added: u64,
}

/// The last phase: all facts are in their partitions.
#[derive(Debug)]
pub struct Partitioned<S> {
    journal: Journal<S>,
    deployment: Option<Uuid>,
    context: LedgerContext,
    rows: Streams,
    open_keys_not_in_ledger: Vec<String>,
    has_more_open_keys: bool,
    taken: Vec<String>,
}

impl<S: BlockStore> PartitionedInvoices<S> {
    /// Starts with an empty store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self(Journal {
            store,
            currencies: Currencies::default(),
            invoices: Streams::default(),
            attempts: Streams::default(),
            record: Record::default(),
        })
    }

    /// Adds one invoice.
    ///
    /// # Errors
    /// The store has failed.
    pub fn add(&mut self, fact: &InvoiceFact) -> Result<(), SpoolError<S::Error>> {
        let journal = &mut self.0;
        journal.currencies.number_with(&fact.currency, fact.exponent);
        journal.record.invoice(fact);
        let stream = journal.invoices.of(by_number(fact.id));
        Ok(stream.push(&mut journal.store, journal.record.bytes())?)
    }

    /// Ends the phase. Billing's keys are derived from `deployment`; without a deployment no keys are checked.
    #[must_use]
    pub fn into_attempts(self, deployment: Option<Uuid>) -> PartitionedAttempts<S> {
        PartitionedAttempts { journal: self.0, deployment }
    }
}

impl<S: BlockStore> PartitionedAttempts<S> {
    /// Adds one attempt.
    ///
    /// # Errors
    /// The store has failed.
    pub fn add(&mut self, fact: &AttemptFact) -> Result<(), SpoolError<S::Error>> {
        let journal = &mut self.journal;
        journal.currencies.number_with(&fact.currency, fact.exponent);
        journal.record.attempt(fact);
        let stream = journal.attempts.of(by_number(fact.invoice_id));
        Ok(stream.push(&mut journal.store, journal.record.bytes())?)
    }

    /// Ends the phase.
    ///
    /// # Errors
    /// The store has failed.
    pub fn into_ledger(
        mut self,
        context: LedgerContext,
    ) -> Result<PartitionedLedger<S>, SpoolError<S::Error>> {
        let keys = self.journal.keys()?;
        let Self { journal, deployment } = self;
        Ok(PartitionedLedger {
            journal,
            deployment,
            context,
            keys,
            rows_by_key: Streams::default(),
            rows_by_reference: Streams::default(),
            rows: Streams::default(),
            rows_added: 0,
        })
    }
}

/// An attempt of a known invoice in the directory of keys.
struct KeyEntry {
    key: KeyBytes,
    /// The partition of the attempt's invoice.
    partition: u8,
    is_open: bool,
    in_ledger: bool,
}

impl KeyEntry {
    fn write(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.key);
        bytes[16..].copy_from_slice(&[self.partition, self.is_open.into()]);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let [partition, is_open] = *rest else { return None };
        (partition < PARTITIONS).then_some(Self {
            key: *key,
            partition,
            is_open: is_open != 0,
            in_ledger: false,
        })
    }
}

impl<S: BlockStore> Journal<S> {
    /// Builds the directory of keys: those of attempts whose invoice is known.
    fn keys(&mut self) -> Result<Streams, SpoolError<S::Error>> {
        let mut keys = Streams::default();
        for partition in 0..PARTITIONS {
            let stream = self.invoices.of(partition);
            let mut ids = Vec::with_capacity(stream.records);
            let mut records = stream.read();
            while let Some(record) = records.next(&mut self.store)? {
                ids.push(Fields(record).invoice_head().ok_or(SpoolError::Damaged)?.id);
            }
            ids.sort_unstable();
            let mut records = self.attempts.of(partition).read();
            while let Some(record) = records.next(&mut self.store)? {
                let head = Fields(record).attempt_head().ok_or(SpoolError::Damaged)?;
                let Some(key) = head.key.filter(|_| ids.binary_search(&head.invoice_id).is_ok()) else {
                    continue;
                };
                let entry = KeyEntry { key, partition, is_open: head.is_open, in_ledger: false };
                keys.of(by_key(&key)).push(&mut self.store, &entry.write())?;
            }
        }
        Ok(keys)
    }

    /// Builds the directory of references, each with the number of its invoice's partition.
    fn references(&mut self) -> Result<Streams, SpoolError<S::Error>> {
        let mut references = Streams::default();
        let mut entry = Vec::new();
        for partition in 0..PARTITIONS {
            let mut records = self.invoices.of(partition).read();
            while let Some(record) = records.next(&mut self.store)? {
                let head = Fields(record).invoice_head().ok_or(SpoolError::Damaged)?;
                let reference = indexed_reference(head.reference);
                entry.clear();
                entry.push(partition);
                entry.extend_from_slice(reference);
                references.of(by_reference(reference)).push(&mut self.store, &entry)?;
            }
        }
        Ok(references)
    }
}

impl<S: BlockStore> PartitionedLedger<S> {
    /// Adds one row.
    ///
    /// # Errors
    /// The store has failed.
    pub fn add(&mut self, row: &LedgerRow) -> Result<(), SpoolError<S::Error>> {
        if row.state == RowState::Charged {
            // Numbered in the same order as by one comparison while it sums charges.
            self.journal.currencies.number(row.currency.as_deref().unwrap_or_default());
        }
        let mut record = mem::take(&mut self.journal.record);
        record.row(self.rows_added, row);
        self.rows_added += 1;
        match row.key.as_deref().and_then(key::parse) {
            Some(key) => self.rows_by_key.of(by_key(&key)).push(&mut self.journal.store, record.bytes())?,
            None => self.without_key(record.bytes())?,
        }
        self.journal.record = record;
        Ok(())
    }

    /// Stores a row whose key belongs to no attempt. A row without a reference matches nothing in any partition.
    fn without_key(&mut self, record: &[u8]) -> Result<(), SpoolError<S::Error>> {
        let head = Fields(record).row_head().ok_or(SpoolError::Damaged)?;
        let stream = match head.reference {
            Some(reference) => self.rows_by_reference.of(by_reference(reference.as_bytes())),
            None => self.rows.of(by_number(head.place.cast_signed())),
        };
        Ok(stream.push(&mut self.journal.store, record)?)
    }

    /// Ends the phase. For each of at most `open_keys_max` open attempts without a row, a caller can ask the ledger
    /// whether another account holds its key.
    ///
    /// # Errors
    /// The store has failed.
    pub fn into_partitions(mut self, open_keys_max: usize) -> Result<Partitioned<S>, SpoolError<S::Error>> {
        let mut missing = Vec::new();
        let mut has_more_open_keys = false;
        for partition in 0..PARTITIONS {
            for entry in self.follow_keys(partition)? {
                let is_missing = entry.is_open && !entry.in_ledger;
                has_more_open_keys |= is_missing && missing.len() == open_keys_max;
                if is_missing && missing.len() < open_keys_max {
                    missing.push(key::text(&entry.key));
                }
            }
        }
        if self.rows_by_reference.0.iter().any(|stream| stream.records > 0) {
            let mut references = self.journal.references()?;
            for partition in 0..PARTITIONS {
                self.follow_references(references.of(partition), partition)?;
            }
        }
        let Self { journal, deployment, context, rows, .. } = self;
        Ok(Partitioned {
            journal,
            deployment,
            context,
            rows,
            open_keys_not_in_ledger: missing,
            has_more_open_keys,
            taken: Vec::new(),
        })
    }

    /// Moves rows to the partition of the attempt that has their key; returns the keys of this part, in their order.
    fn follow_keys(&mut self, partition: u8) -> Result<Vec<KeyEntry>, SpoolError<S::Error>> {
        let mut stream = mem::take(self.keys.of(partition));
        let mut entries = Vec::with_capacity(stream.records);
        let mut records = stream.take();
        while let Some(record) = records.next(&mut self.journal.store)? {
            entries.push(KeyEntry::read(record).ok_or(SpoolError::Damaged)?);
        }
        entries.sort_by_key(|entry| entry.key);
        let mut records = self.rows_by_key.of(partition).take();
        while let Some(record) = records.next(&mut self.journal.store)? {
            let key = Fields(record).row_head().ok_or(SpoolError::Damaged)?.key;
            let key = key.ok_or(SpoolError::Damaged)?;
            match entries.binary_search_by_key(&key, |entry| entry.key) {
                Ok(at) => {
                    entries[at].in_ledger = true;
                    self.rows.of(entries[at].partition).push(&mut self.journal.store, record)?;
                }
                Err(_) => self.without_key(record)?,
            }
        }
        Ok(entries)
    }

    /// Moves rows to the partition of the invoice that they name.
    fn follow_references(
        &mut self,
        references: &mut Stream,
        partition: u8,
    ) -> Result<(), SpoolError<S::Error>> {
        let mut entries: HashMap<Box<[u8]>, u8> = HashMap::with_capacity(references.records);
        let mut records = references.take();
        while let Some(record) = records.next(&mut self.journal.store)? {
            let (of, reference) = record.split_first().ok_or(SpoolError::Damaged)?;
            entries.entry(reference.into()).or_insert(*of);
        }
        let mut records = self.rows_by_reference.of(partition).take();
        while let Some(record) = records.next(&mut self.journal.store)? {
            let head = Fields(record).row_head().ok_or(SpoolError::Damaged)?;
            let found = head.reference.and_then(|reference| entries.get(reference.as_bytes()));
            // A row of no invoice matches nothing in any partition.
            let to = found.copied().unwrap_or_else(|| by_number(head.place.cast_signed()));
            self.rows.of(to).push(&mut self.journal.store, record)?;
        }
        Ok(())
    }
}

impl<S: BlockStore> Partitioned<S> {
    /// Keys of open attempts for which the ledger has shown no row, and whether there are more.
    #[must_use]
    pub fn open_keys_not_in_ledger(&self) -> (&[String], bool) {
        (&self.open_keys_not_in_ledger, self.has_more_open_keys)
    }

    /// Records that the ledger holds this key for another account.
    pub fn key_taken(&mut self, text: &str) {
        self.taken.push(text.to_owned());
    }

    /// Compares the partitions one after the other. While a run is unfinished, open attempts are no fault.
    ///
    /// # Errors
    /// The store has failed.
    pub fn finish(mut self, run_is_unfinished: bool) -> Result<Reconciliation, SpoolError<S::Error>> {
        let mut totals = Totals::of(self.journal.currencies.clone());
        for partition in 0..PARTITIONS {
            totals.add(self.compare(partition, run_is_unfinished)?);
        }
        Ok(totals.into_reconciliation())
    }

    fn compare(&mut self, partition: u8, run_is_unfinished: bool) -> Result<Totals, SpoolError<S::Error>> {
        let Journal { store, currencies, invoices, attempts, .. } = &mut self.journal;
        let stream = invoices.of(partition);
        let mut phase = InvoicePhase::with_currencies(stream.records, currencies.clone());
        let mut records = stream.take();
        while let Some(record) = records.next(store)? {
            phase.add(&Fields(record).invoice().ok_or(SpoolError::Damaged)?);
        }
        let mut phase = phase.into_attempts(self.deployment);
        let mut records = attempts.of(partition).take();
        while let Some(record) = records.next(store)? {
            phase.add(&Fields(record).attempt().ok_or(SpoolError::Damaged)?);
        }
        let mut phase = phase.into_ledger(mem::take(&mut self.context));
        let rows = Rows::load(self.rows.of(partition), store)?;
        for record in rows.in_order() {
            phase.add(&Fields(record).row().ok_or(SpoolError::Damaged)?);
        }
        self.taken.iter().for_each(|key| phase.key_taken(key));
        let (totals, context) = phase.into_totals(run_is_unfinished);
        self.context = context;
        Ok(totals)
    }
}

/// The rows of one partition, which come from several streams.
struct Rows {
    bytes: Vec<u8>,
    /// For each row its place in the ledger's list, and the start and end of its record.
    records: Vec<(u64, usize, usize)>,
}

impl Rows {
    fn load<S: BlockStore>(stream: &mut Stream, store: &mut S) -> Result<Self, SpoolError<S::Error>> {
        let mut rows = Self { bytes: Vec::new(), records: Vec::with_capacity(stream.records) };
        let mut records = stream.take();
        while let Some(record) = records.next(store)? {
            let place = Fields(record).row_head().ok_or(SpoolError::Damaged)?.place;
            let start = rows.bytes.len();
            rows.bytes.extend_from_slice(record);
            rows.records.push((place, start, rows.bytes.len()));
        }
        rows.records.sort_unstable();
        Ok(rows)
    }

    /// The rows in the ledger's order, in which findings name them.
    fn in_order(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().map(|(_, start, end)| &self.bytes[*start..*end])
    }
}
