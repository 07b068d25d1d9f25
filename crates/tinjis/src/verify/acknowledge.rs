//! `verify --acknowledge` and `--acknowledge-through`: an operator explains charges that belong to no invoice, before
//! verifying. Checks that the rows exist and are such charges; billing keeps the record.

use anyhow::{Context, bail};
use api::billing::AcknowledgementRequest;
use chassis::config::Problems;
use reconcile::RowState;

use super::source::{BillingApi, LedgerApi};
use crate::http::Api;
use crate::output::note;

/// What is acknowledged, and who says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledge {
    rows: Rows,
    reason: String,
    actor: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    One(i64),
    /// From the first row of the ledger on.
    Through(i64),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AcknowledgeArgs {
    /// First record that this ledger row, a charge of no invoice here, is in order; needs --why and --actor
    #[arg(long, value_name = "SEQ")]
    acknowledge: Option<String>,
    /// The same for all such charges up to this ledger row
    #[arg(long, value_name = "SEQ")]
    acknowledge_through: Option<String>,
    /// Why these charges are in order; kept for ever
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Who says so; kept for ever
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

impl AcknowledgeArgs {
    /// `None` when nothing is to be acknowledged, or when a mistake was recorded.
    pub(crate) fn resolve(&self, problems: &mut Problems) -> Option<Acknowledge> {
        const ONE: &str = "--acknowledge";
        const THROUGH: &str = "--acknowledge-through";
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let (reason, actor) = (given(&self.why), given(&self.actor));
        let rows = match (&self.acknowledge, &self.acknowledge_through) {
            (Some(_), Some(_)) => {
                problems.add(THROUGH, format_args!("{ONE} is given too; give one of the two"));
                return None;
            }
            (Some(text), None) => problems.check(ONE, seq(text)).map(Rows::One),
            (None, Some(text)) => problems.check(THROUGH, seq(text)).map(Rows::Through),
            (None, None) => {
                for (setting, text) in [("--why", &reason), ("--actor", &actor)] {
                    if text.is_some() {
                        problems.add(setting, format_args!("needs {ONE} or {THROUGH}"));
                    }
                }
                return None;
            }
        };
        for (setting, text) in [("--why", &reason), ("--actor", &actor)] {
            if text.is_none() {
                problems.add(setting, format_args!("must be given with {ONE} and {THROUGH}"));
            }
        }
        Some(Acknowledge { rows: rows?, reason: reason?, actor: actor? })
    }
}

fn seq(text: &str) -> Result<i64, String> {
    let seq = text.parse().ok().filter(|seq: &i64| *seq >= 1);
    seq.ok_or_else(|| format!("must be the number of a ledger row, from 1, not {text:?}"))
}

/// Records it in billing, or fails without a record.
pub(crate) async fn command(billing: &Api, payments: &Api, what: &Acknowledge) -> anyhow::Result<()> {
    let (billing, ledger) = (BillingApi(billing.clone()), LedgerApi(payments.clone()));
    let ledger_id = ledger.id().await?.context("the ledger does not say which ledger it is")?;
    if let Some(settled) = billing.deployment().await?.ledger_id.filter(|settled| *settled != ledger_id) {
        bail!("billing settles with ledger {settled}, and this is ledger {ledger_id}");
    }
    let (seq_first, seq_last) = match what.rows {
        Rows::One(seq) => {
            check_row(&billing, &ledger, seq).await?;
            (seq, seq)
        }
        Rows::Through(seq) => {
            let last = ledger.last_seq().await?;
            if seq > last {
                bail!(
                    "the last row that the ledger shows this account is {last}: give that or an earlier one"
                );
            }
            (1, seq)
        }
    };
    let Acknowledge { reason, actor, .. } = what.clone();
    billing.acknowledge(&AcknowledgementRequest { ledger_id, seq_first, seq_last, reason, actor }).await?;
    note(format_args!("acknowledged: charges of no invoice in ledger rows {seq_first} to {seq_last}"));
    Ok(())
}

/// Only what `verify` reports as unattributed: everything else is a difference to be resolved, not to be explained.
async fn check_row(billing: &BillingApi, ledger: &LedgerApi, seq: i64) -> anyhow::Result<()> {
    let Some(row) = ledger.row_at(seq).await? else { bail!("the ledger shows this account no row {seq}") };
    if row.state != RowState::Charged {
        bail!("row {seq} is no charge: there is nothing to acknowledge");
    }
    if let Some(reference) = row.reference.filter(|reference| !reference.is_empty())
        && billing.invoice(&reference).await?.is_some()
    {
        bail!("row {seq} names the invoice {reference}: it is compared with it and needs no acknowledgement");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(one: Option<&str>, through: Option<&str>, why: &str, actor: &str) -> (Option<Rows>, String) {
        let mut problems = Problems::new();
        let text = |text: &str| Some(text.to_owned());
        let args = AcknowledgeArgs {
            acknowledge: one.and_then(text),
            acknowledge_through: through.and_then(text),
            why: text(why),
            actor: text(actor),
        };
        let rows = args.resolve(&mut problems).map(|what| what.rows);
        (rows, problems.finish().map_or_else(|problems| problems.to_string(), |()| String::new()))
    }

    #[test]
    fn rows_reason_and_actor_are_needed_together() {
        assert_eq!(resolved(Some("7"), None, "w", "a"), (Some(Rows::One(7)), String::new()));
        assert_eq!(resolved(None, Some("7"), "w", "a"), (Some(Rows::Through(7)), String::new()));
        assert_eq!(resolved(None, None, "", ""), (None, String::new()));
        for (one, through, why, actor, mistakes) in [
            (Some("7"), Some("8"), "w", "a", &["--acknowledge-through:"][..]),
            (Some("7"), None, " ", "", &["--why:", "--actor:"]),
            (Some("0"), None, "w", "a", &["--acknowledge:"]),
            (None, Some("x"), "", "a", &["--acknowledge-through:", "--why:"]),
            (None, None, "w", "", &["--why:"]),
        ] {
            let (rows, problems) = resolved(one, through, why, actor);
            assert_eq!(rows, None, "{problems}");
            assert!(mistakes.iter().all(|mistake| problems.contains(mistake)), "{mistakes:?}: {problems}");
        }
    }
}
