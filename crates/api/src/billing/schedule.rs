//! The schedule, its runs by date, and runs that an operator requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Text;

/// The state of the schedule, and the dates that wait for an operator.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScheduleStatus {
    /// Whether the schedule runs: on or off.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub schedule: Text,
    /// ask, each or latest.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub catch_up: Text,
    /// Version of the time zone data.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub zone_data: Text,
    pub next_on: Option<String>,
    pub next_charge_at: Option<String>,
    /// The earliest attempt of a scheduled invoice that is due or will be.
    #[serde(default)]
    pub next_attempt_at: Option<String>,
    /// The time of the store's clock.
    #[serde(default)]
    pub now: String,
    pub waiting: Vec<ScheduleRun>,
}

/// A row of `schedule_runs`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScheduleRun {
    pub period_on: String,
    /// waiting, running or finished.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: Text,
    /// Why the date waits for an operator.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<Text>,
    /// Number of invoices that were still to be made at the latest decision about the date.
    pub planned_count: i64,
    /// Decimal text by currency.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub planned_sums: BTreeMap<Text, String>,
    #[serde(default)]
    pub invoices: i64,
    #[serde(default)]
    pub skipped: i64,
    #[serde(default)]
    pub late_seconds: i64,
    #[serde(default)]
    pub zone_data: String,
    pub confirmed_by: Option<String>,
    #[serde(default)]
    pub created_at: String,
    #[serde(default)]
    pub updated_at: String,
}

/// A run that an operator requests.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRunRequest {
    /// The last due date, or `today`.
    pub until: String,
    /// ask, each or latest; billing's setting when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<String>,
    /// Whether to continue with dates whose sums are above the cap.
    #[serde(default)]
    pub over_cap: bool,
    pub reason: String,
    pub actor: String,
}

/// The result of a requested run.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScheduleRunResult {
    #[serde(default)]
    pub until: String,
    pub invoices: i64,
    pub skipped: i64,
    /// Whether to send the request again: a call makes a bounded number of invoices.
    pub more: bool,
    pub waiting: Vec<WaitingDate>,
    /// Result of the charging, once no more invoices are to be made: `started`, `nothing-due`, `run-unfinished` or
    /// `stopped`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub charging: Option<Text>,
    /// The run that charges, or the unfinished run that must end first.
    pub run_id: Option<i64>,
}

/// A date that waits for an operator.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitingDate {
    pub period_on: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: Text,
}
