//! What a verification of several deployments remembers of each: which references it has, which it has charged, and
//! whether the table names that deployment for them. Judges nothing by itself.

use reconcile::{AcrossDeployments, InvoiceFact, LedgerRow, RowState, SharedReferences};

use super::blocks::Blocks;
use crate::deployments::{Table, nfc};
use crate::output::grouped;

/// References of all deployments so far.
#[derive(Debug)]
pub(super) struct Across<'t> {
    table: &'t Table,
    references: AcrossDeployments<Blocks>,
    elsewhere: u64,
    first_elsewhere: Option<String>,
}

/// Records the references of one deployment while it is read.
#[derive(Debug)]
pub(super) struct Observer<'a, 't> {
    across: &'a mut Across<'t>,
    /// The deployment's index in the table.
    place: u8,
}

impl<'t> Across<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        let references = AcrossDeployments::new(Blocks::new());
        Self { table, references, elsewhere: 0, first_elsewhere: None }
    }

    pub(super) fn observer(&mut self, place: usize) -> Observer<'_, 't> {
        Observer { across: self, place: u8::try_from(place).expect("a table has few deployments") }
    }

    /// The shared references, and a remark on invoices for which the table names another deployment.
    pub(super) fn finish(self) -> anyhow::Result<(SharedReferences, Option<String>)> {
        let remark = self.first_elsewhere.map(|first| {
            format!(
                "invoices in a deployment that the table does not send them to: {}, for example {first}; they stay there",
                grouped(self.elsewhere)
            )
        });
        Ok((self.references.finish()?, remark))
    }
}

impl Observer<'_, '_> {
    pub(super) fn invoice(&mut self, fact: &InvoiceFact) -> anyhow::Result<()> {
        let Across { table, references, elsewhere, first_elsewhere } = &mut *self.across;
        if table.place(&fact.reference) != usize::from(self.place) {
            *elsewhere += 1;
            first_elsewhere.get_or_insert_with(|| fact.reference.clone());
        }
        Ok(references.invoice(self.place, &nfc(&fact.reference), fact.state)?)
    }

    pub(super) fn row(&mut self, row: &LedgerRow) -> anyhow::Result<()> {
        match row.reference.as_deref().filter(|_| row.state == RowState::Charged) {
            Some(reference) => Ok(self.across.references.charge(self.place, &nfc(reference))?),
            None => Ok(()),
        }
    }
}
