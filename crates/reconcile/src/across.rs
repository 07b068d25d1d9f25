//! Findings that need several deployments: a reference that two of them have, or that two ledgers have charged.
//! References are joined in partitions, in as little memory as a comparison of one deployment. Knows no key and no
//! amount.

use crate::facts::InvoiceState;
use crate::findings::{FindingKind, NAMED_FINDINGS_MAX};
use crate::index::indexed_reference;
use crate::partitioned::{PARTITIONS, Streams, by_reference};
use crate::spool::{BlockStore, SpoolError, Stream};

/// References of all deployments. Callers give them in the form in which they are compared.
#[derive(Debug)]
pub struct AcrossDeployments<S> {
    store: S,
    references: Streams,
    record: Vec<u8>,
}

/// A reference that several deployments have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedReference {
    /// `Duplicate` or `Double`.
    pub kind: FindingKind,
    pub reference: String,
    /// The deployments by the caller's numbers, each once.
    pub deployments: Vec<u8>,
}

/// The findings across deployments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedReferences {
    /// References with an invoice in several deployments.
    pub duplicate: u64,
    /// References that several ledgers have charged.
    pub double: u64,
    /// The named ones of them; at most [`NAMED_FINDINGS_MAX`].
    pub named: Vec<SharedReference>,
}

/// Kind of fact: a deployment has an invoice of the reference.
const INVOICE: u8 = 0;
/// Kind of fact: a deployment's ledger has charged the reference.
const CHARGE: u8 = 1;

impl<S: BlockStore> AcrossDeployments<S> {
    /// Starts with an empty store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store, references: Streams::default(), record: Vec::new() }
    }

    /// Adds an invoice. A CANCELLED one does not count, because no run charges it. After a late charge it is in
    /// ATTENTION, and counts.
    ///
    /// # Errors
    /// The store has failed.
    pub fn invoice(
        &mut self,
        deployment: u8,
        reference: &str,
        state: InvoiceState,
    ) -> Result<(), SpoolError<S::Error>> {
        match state {
            InvoiceState::Cancelled => Ok(()),
            _ => self.add(INVOICE, deployment, reference),
        }
    }

    /// Adds a CHARGED row.
    ///
    /// # Errors
    /// The store has failed.
    pub fn charge(&mut self, deployment: u8, reference: &str) -> Result<(), SpoolError<S::Error>> {
        if reference.is_empty() { Ok(()) } else { self.add(CHARGE, deployment, reference) }
    }

    fn add(&mut self, what: u8, deployment: u8, reference: &str) -> Result<(), SpoolError<S::Error>> {
        let reference = indexed_reference(reference);
        self.record.clear();
        self.record.extend_from_slice(&[what, deployment]);
        self.record.extend_from_slice(reference);
        let stream = self.references.of(by_reference(reference));
        Ok(stream.push(&mut self.store, &self.record)?)
    }

    /// Joins the partitions one after the other.
    ///
    /// # Errors
    /// The store has failed.
    pub fn finish(mut self) -> Result<SharedReferences, SpoolError<S::Error>> {
        let mut shared = SharedReferences::default();
        for partition in 0..PARTITIONS {
            let all = Partition::load(self.references.of(partition), &mut self.store)?;
            shared.add(&all)?;
        }
        shared.named.sort_by(|a, b| (a.kind, &a.reference).cmp(&(b.kind, &b.reference)));
        Ok(shared)
    }
}

/// Reference, kind of fact, and number of the deployment.
type Fact<'a> = (&'a [u8], u8, u8);

/// One partition in memory: its records, and where each begins and ends.
#[derive(Default)]
struct Partition {
    bytes: Vec<u8>,
    records: Vec<(usize, usize)>,
}

impl Partition {
    fn load<S: BlockStore>(stream: &mut Stream, store: &mut S) -> Result<Self, SpoolError<S::Error>> {
        let mut all = Self { bytes: Vec::new(), records: Vec::with_capacity(stream.records) };
        let mut records = stream.take();
        while let Some(record) = records.next(store)? {
            let start = all.bytes.len();
            all.bytes.extend_from_slice(record);
            all.records.push((start, all.bytes.len()));
        }
        Ok(all)
    }

    /// The facts in order, each once.
    fn in_order<E>(&self) -> Result<Vec<Fact<'_>>, SpoolError<E>> {
        let mut all = Vec::with_capacity(self.records.len());
        for (start, end) in &self.records {
            let ([what, deployment], reference) =
                self.bytes[*start..*end].split_first_chunk().ok_or(SpoolError::Damaged)?;
            all.push((reference, *what, *deployment));
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

impl SharedReferences {
    fn add<E>(&mut self, partition: &Partition) -> Result<(), SpoolError<E>> {
        let all = partition.in_order()?;
        for same in all.chunk_by(|one, next| (one.0, one.1) == (next.0, next.1)) {
            let [(reference, what, _), _, ..] = same else { continue };
            let (kind, count) = match *what {
                INVOICE => (FindingKind::Duplicate, &mut self.duplicate),
                _ => (FindingKind::Double, &mut self.double),
            };
            *count += 1;
            if self.named.len() < NAMED_FINDINGS_MAX {
                let reference = String::from_utf8_lossy(reference).into_owned();
                let deployments = same.iter().map(|(_, _, deployment)| *deployment).collect();
                self.named.push(SharedReference { kind, reference, deployments });
            }
        }
        Ok(())
    }

    /// Whether no reference is shared.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.duplicate + self.double == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::MemoryBlocks;

    const OPEN: InvoiceState = InvoiceState::Pending;

    fn across() -> AcrossDeployments<MemoryBlocks> {
        let mut across = AcrossDeployments::new(MemoryBlocks::default());
        for number in 0..5000_u16 {
            let (deployment, reference) = (number.to_le_bytes()[0] % 4, format!("I{number}"));
            across.invoice(deployment, &reference, OPEN).unwrap();
            across.charge(deployment, &reference).unwrap();
            across.charge(deployment, &reference).unwrap();
        }
        across
    }

    fn named(kind: FindingKind, reference: &str, deployments: &[u8]) -> SharedReference {
        SharedReference { kind, reference: reference.to_owned(), deployments: deployments.to_vec() }
    }

    #[test]
    fn references_of_one_deployment_are_not_shared_however_often_it_has_charged_them() {
        let shared = across().finish().unwrap();
        assert_eq!(shared, SharedReferences::default());
        assert!(shared.is_ok());
    }

    #[test]
    fn a_reference_of_two_deployments_is_a_duplicate_and_a_double_once_both_have_charged_it() {
        let mut across = across();
        across.invoice(2, "I4", OPEN).unwrap();
        across.invoice(1, "I4", OPEN).unwrap();
        across.charge(3, "I8").unwrap();
        across.charge(3, "").unwrap();
        across.charge(2, "").unwrap();
        let shared = across.finish().unwrap();
        assert!(!shared.is_ok());
        assert_eq!((shared.duplicate, shared.double), (1, 1));
        let expected =
            [named(FindingKind::Double, "I8", &[0, 3]), named(FindingKind::Duplicate, "I4", &[0, 1, 2])];
        assert_eq!(shared.named, expected);
    }

    #[test]
    fn a_cancelled_invoice_is_no_duplicate_and_its_charge_is_a_double() {
        let mut across = across();
        across.invoice(1, "I4", InvoiceState::Cancelled).unwrap();
        across.charge(1, "I4").unwrap();
        let shared = across.finish().unwrap();
        assert_eq!(shared.named, [named(FindingKind::Double, "I4", &[0, 1])]);
    }
}
