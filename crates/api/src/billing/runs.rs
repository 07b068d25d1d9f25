//! Runs, and the state of a billing deployment as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Text;
use crate::unique::unique;

/// A run: its limits, its progress, and what kept it from charging.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub id: i64,
    pub state: RunState,
    /// Whether the request joined a run that was under way.
    #[serde(default)]
    pub joined: bool,
    #[serde(default)]
    pub started_at: String,
    pub finished_at: Option<String>,
    /// The program that began the run.
    pub begun_by: Option<String>,
    pub total: i64,
    #[serde(default)]
    pub attempted: i64,
    pub paid: i64,
    pub refused: i64,
    pub rejected: i64,
    pub in_doubt: i64,
    #[serde(default)]
    pub not_sent: i64,
    /// Whether no invoice in the store is unpaid.
    pub all_paid: bool,
    pub last_problem: Option<RunProblem>,
    /// Whether the schedule began the run.
    #[serde(default)]
    pub scheduled: bool,
    pub customer_id: Option<i64>,
    pub reference_prefix: Option<String>,
    pub due_before: Option<String>,
    /// Number of invoices that the run's limit still allows.
    pub count_left: Option<i64>,
    /// Amounts that the run's limits still allow, by currency.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub amounts_left: Option<BTreeMap<Text, String>>,
    pub reason: Option<String>,
}

/// Whether a run continues.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Running,
    Finished,
}

/// The last call whose response, or transport error, said nothing about an invoice.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunProblem {
    pub reason: String,
    /// Status of the provider's response, if there was one.
    pub status: Option<i64>,
    /// Number of calls with this problem.
    pub count: i64,
    /// What to do about it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub hint: Text,
}

/// Which invoices a run charges, and how much at most. Without a body, a run charges all.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunRequest {
    /// Shows what would be claimed, and starts nothing.
    pub dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_count: Option<i64>,
    /// Decimal text by currency.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "unique")]
    pub max_amount: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_prefix: Option<String>,
    /// A date such as 2026-12-01.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a run would claim now.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunDryRun {
    /// Always true.
    pub dry_run: bool,
    pub count: i64,
    /// Decimal text by currency.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub sums: BTreeMap<Text, String>,
}

/// A deployment of billing: its store, the ledger that it settles with, and its invoices by state.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Deployment {
    #[serde(default)]
    pub deployment_id: String,
    /// Id of the ledger; null before the first keyed response.
    pub ledger_id: Option<String>,
    pub unfinished_run: Option<i64>,
    /// The last call whose response, or transport error, said nothing about an invoice: of this process, or else of the
    /// latest run.
    pub last_problem: Option<RunProblem>,
    /// Number of CHARGING invoices of which no request counts as sent.
    #[serde(default)]
    pub charging_unsent: i64,
    pub counts: Counts,
}

/// Invoices by state.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub pending: i64,
    pub charging: i64,
    #[serde(default)]
    pub paid: i64,
    pub attention: i64,
    #[serde(default)]
    pub cancelled: i64,
}
