//! The flag that names a deployment table, and the services in the table. Opens the table and token files.

use std::path::Path;

use chassis::config::{Problems, TokenSource, non_empty};

use super::billings::Billings;
use super::table::{Entry, Table};
use crate::cli::{BillingArgs, with_credentials};
use crate::http::{Api, Scheme};

const FLAG: &str = "--deployments";

#[derive(Debug, clap::Args)]
pub(crate) struct DeploymentsArgs {
    /// Deployment table (TOML): several deployments that share the customers, instead of --billing and --payments
    #[arg(long, value_name = "FILE", conflicts_with = "billing")]
    deployments: Option<String>,
}

/// Both services of each deployment, in the order of the table.
#[derive(Debug)]
pub(crate) struct Pairs {
    pub(crate) table: Table,
    pub(crate) billings: Vec<Api>,
    pub(crate) payments: Vec<Api>,
}

impl DeploymentsArgs {
    pub(crate) fn is_given(&self) -> bool {
        non_empty(&self.deployments).is_some()
    }

    fn table(&self, problems: &mut Problems) -> Option<Table> {
        problems.check(FLAG, Table::read(Path::new(non_empty(&self.deployments)?)))
    }

    /// The billings of the table, or the single billing of the flags; `None` when a mistake was recorded.
    pub(crate) fn billings(&self, flags: &BillingArgs, problems: &mut Problems) -> Option<Billings> {
        if !self.is_given() {
            return flags.resolve(problems).map(Billings::one);
        }
        let table = self.table(problems)?;
        flags.tls().check_needed(table.entries.iter().map(|entry| &entry.billing), problems);
        let apis = billings(&table, flags, problems)?;
        Some(Billings::of(table, apis))
    }

    /// Both services of each deployment; `None` when a mistake was recorded. `token` is for payment services without a
    /// token of their own in the table.
    pub(crate) fn pairs(
        &self,
        flags: &BillingArgs,
        (setting, token): (&'static str, Option<TokenSource>),
        problems: &mut Problems,
    ) -> Option<Pairs> {
        let table = self.table(problems)?;
        let bases = table.entries.iter().flat_map(|entry| [&entry.billing, &entry.payments]);
        flags.tls().check_needed(bases, problems);
        let billings = billings(&table, flags, problems);
        let api = |entry: &Entry| {
            let own = entry.payments_token_file.clone().map(|path| (FLAG, Some(TokenSource::file(path))));
            let (setting, token) = own.unwrap_or_else(|| (setting, token.clone()));
            let api = flags.tls().api(entry.payments.clone(), problems);
            with_credentials(problems, setting, api, Scheme::XToken, token)
        };
        let payments: Option<Vec<Api>> = table.entries.iter().map(api).collect();
        Some(Pairs { billings: billings?, payments: payments?, table })
    }
}

fn billings(table: &Table, flags: &BillingArgs, problems: &mut Problems) -> Option<Vec<Api>> {
    let api = |entry: &Entry| {
        let own = entry.billing_token_file.clone().map(|path| (FLAG, path));
        flags.at(entry.billing.clone(), own, problems)
    };
    table.entries.iter().map(api).collect()
}
