//! Checks whether a deployment may charge, from memory once it is known, so that a charge does not cost a read of the
//! list. Decides nothing itself: the ledger applies the rule. Knows no HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::caller::Account;
use tokio::time::Instant;

use super::{Admission, Declaration, DeclareOutcome, DeploymentId, Unknown};
use crate::ledger::{Ledger, Result};

/// Maximum number of remembered pairs of account and deployment; beyond it all are read again.
const REMEMBERED_MAX: usize = 1024;
/// How long a refusal is answered from memory: another replica may receive the declaration meanwhile.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Asks the ledger about deployments, and remembers the answers.
pub struct Guard {
    ledger: Arc<dyn Ledger>,
    remembered: Mutex<HashMap<DeploymentId, Vec<(Account, Remembered)>>>,
}

#[derive(Clone, Copy)]
enum Remembered {
    /// Kept for ever, since rows of the list are never removed.
    Known,
    Refused(Unknown, Instant),
}

impl Guard {
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, remembered: Mutex::default() }
    }

    /// Whether the deployment may charge under the account; the deployment is recorded if the rule says so.
    ///
    /// # Errors
    /// When the ledger fails: then nothing may be executed.
    pub async fn admit(
        &self,
        account: &Account,
        deployment: DeploymentId,
    ) -> Result<std::result::Result<(), Unknown>> {
        match self.remembered(account, deployment) {
            Some(Remembered::Known) => return Ok(Ok(())),
            Some(Remembered::Refused(why, until)) if Instant::now() < until => return Ok(Err(why)),
            _ => {}
        }
        let admission = self.ledger.admit_deployment(account.as_str(), deployment).await?;
        let (remembered, answer) = match admission {
            Admission::Known => (Remembered::Known, Ok(())),
            Admission::Record(how) => {
                tracing::warn!(
                    deployment.id = %deployment.0,
                    account = account.as_str(),
                    how = how.as_str(),
                    "a deployment of billing charges under this account from now on"
                );
                (Remembered::Known, Ok(()))
            }
            Admission::Refused(why) => {
                tracing::warn!(
                    deployment.id = %deployment.0,
                    account = account.as_str(),
                    why = ?why,
                    "a deployment of billing is not known under this account, nothing is executed"
                );
                (Remembered::Refused(why, Instant::now() + REFUSED_FOR), Err(why))
            }
        };
        self.remember(account, deployment, remembered);
        Ok(answer)
    }

    /// Records an operator's declaration.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn declare(&self, account: &Account, declaration: &Declaration) -> Result<DeclareOutcome> {
        let declared = self.ledger.declare_deployment(declaration).await?;
        if !matches!(declared, DeclareOutcome::TooMany) {
            self.remember(account, declaration.deployment, Remembered::Known);
        }
        Ok(declared)
    }

    fn remembered(&self, account: &Account, deployment: DeploymentId) -> Option<Remembered> {
        let remembered = self.lock();
        let of_deployment = remembered.get(&deployment)?;
        of_deployment.iter().find(|(known, _)| known == account).map(|(_, remembered)| *remembered)
    }

    fn remember(&self, account: &Account, deployment: DeploymentId, what: Remembered) {
        let mut remembered = self.lock();
        if remembered.values().map(Vec::len).sum::<usize>() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let of_deployment = remembered.entry(deployment).or_default();
        of_deployment.retain(|(known, _)| known != account);
        of_deployment.push((account.clone(), what));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeploymentId, Vec<(Account, Remembered)>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
