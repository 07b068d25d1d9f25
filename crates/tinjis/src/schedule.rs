//! `schedule`: shows the schedule and the dates that wait, and runs it up to a date. Billing decides and charges; this
//! command repeats its request while periods are left, and follows the run.

use api::billing::{ScheduleRunRequest, ScheduleRunResult, ScheduleStatus, WaitingDate};
use billing::schedule::calendar::parse_date;
use billing::schedule::run::CatchUp;
use bytes::Bytes;
use chassis::config::Problems;
use serde_json::Value;

use crate::cli::{BillingArgs, Command};
use crate::control::check_recorded;
use crate::http::Api;
use crate::output::{grouped, note, result};
use crate::{pay, preview};

/// Exit code when a date, or all charging, waits for an operator, or when something due was not charged.
const WAITS: u8 = 1;

/// Instead of a date: for a job that runs each day.
const TODAY: &str = "today";

/// Who runs it, unless --actor names another.
const ACTOR_DEFAULT: &str = "tinjis schedule run";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Sub {
    /// Show which invoices the schedule will make in a range of due dates, and their sums; writes nothing
    Preview(preview::PreviewArgs),
    /// Show whether the schedule is on, the next due date, and the dates that wait for an operator
    Status(StatusArgs),
    /// Invoice and charge what is due up to a date: exit code 0 done, 1 an operator must act or something was not charged
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    billing: BillingArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    billing: BillingArgs,
    /// Last due date to be invoiced, as 2026-01-31, or today; not later
    #[arg(long, value_name = "DATE")]
    until: String,
    /// Periods missed for more than a day: ask leaves them waiting, each invoices all, latest only the latest of each
    /// subscription
    #[arg(long, value_name = "ask|each|latest", default_value = "each")]
    catch_up: String,
    /// Go on with dates whose sums are above billing's cap
    #[arg(long)]
    over_cap: bool,
    /// Why; kept in billing's log
    #[arg(long, value_name = "TEXT", default_value = "the schedule was run by hand")]
    why: String,
    /// Who says so; kept with the run
    #[arg(long, value_name = "NAME", default_value = ACTOR_DEFAULT)]
    actor: String,
}

/// The requested action.
#[derive(Debug)]
pub(crate) enum ScheduleCommand {
    Preview(preview::PreviewRequest),
    Status { json: bool },
    Run(ScheduleRunRequest),
}

impl Sub {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let (billing, what) = match self {
            Self::Preview(args) => {
                let (billing, what) = args.resolve(problems);
                (billing, ScheduleCommand::Preview(what?))
            }
            Self::Status(args) => {
                (args.billing.resolve(problems), ScheduleCommand::Status { json: args.json })
            }
            Self::Run(args) => {
                let RunArgs { billing, until, catch_up, over_cap, why, actor } = args;
                if until != TODAY {
                    let until = parse_date("", &until).map_err(|bad| format!("{}, or today", bad.problem));
                    problems.check("--until", until);
                }
                let known = catch_up.parse::<CatchUp>().map_err(|_| "must be ask, each or latest");
                problems.check("--catch-up", known);
                check_recorded(problems, &why, &actor);
                let catch_up = Some(catch_up);
                let request = ScheduleRunRequest { until, catch_up, over_cap, reason: why, actor };
                (billing.resolve(problems), ScheduleCommand::Run(request))
            }
        };
        Some(Command::Schedule { billing: billing?, what })
    }
}

pub(crate) async fn command(billing: &Api, what: ScheduleCommand) -> anyhow::Result<u8> {
    match what {
        ScheduleCommand::Preview(what) => preview::command(billing, what).await,
        ScheduleCommand::Status { json } => status(billing, json).await,
        ScheduleCommand::Run(request) => run(billing, &request).await,
    }
}

async fn status(billing: &Api, json: bool) -> anyhow::Result<u8> {
    let shown: Value = billing.get("/v1/schedule").await?;
    if json {
        result(shown);
        return Ok(0);
    }
    let ScheduleStatus { schedule, catch_up, zone_data, next_on, waiting, .. } =
        serde_json::from_value(shown)?;
    let next = next_on.map_or_else(|| "no period is left".to_owned(), |on| format!("next due {on}"));
    result(format_args!("schedule {schedule}, catch-up {catch_up}, {next}, zone data {zone_data}"));
    for date in waiting {
        let sums: Vec<String> =
            date.planned_sums.iter().map(|(currency, sum)| format!("{currency} {sum}")).collect();
        let count = grouped(date.planned_count);
        result(format_args!(
            "{} waits ({}): {count} invoices, {}",
            date.period_on,
            date.reason.unwrap_or_default(),
            sums.join(", ")
        ));
    }
    Ok(0)
}

/// Billing's reason why new invoices are not charged yet: a run of other invoices has to end first.
const RUN_UNFINISHED: &str = "run-unfinished";
const STOPPED: &str = "stopped";

async fn run(billing: &Api, request: &ScheduleRunRequest) -> anyhow::Result<u8> {
    let (mut invoices, mut skipped) = (0, 0);
    let made = loop {
        let body = Bytes::from(serde_json::to_vec(request)?);
        let made: ScheduleRunResult = billing.post("/v1/schedule/runs", "application/json", body).await?;
        invoices += made.invoices;
        skipped += made.skipped;
        if let (Some(RUN_UNFINISHED), Some(run)) = (made.charging.as_deref(), made.run_id) {
            note(format_args!("waiting for the end of run {run}, which charges other invoices"));
            pay::follow_run(billing, run).await?;
        } else if !made.more {
            break made;
        }
    };
    for WaitingDate { period_on, reason } in &made.waiting {
        let how = if reason == "cap" { "--over-cap" } else { "--catch-up each or latest" };
        note(format_args!("{period_on} waits ({reason}): run again with {how}"));
    }
    let is_stopped = made.charging.as_deref() == Some(STOPPED);
    if is_stopped {
        note("charging is stopped: nothing of it is charged before `tinjis start`");
    }
    let is_charged = match made.run_id {
        Some(run_id) => pay::follow_scheduled(billing, run_id).await?,
        None => true,
    };
    result(format_args!("{} invoices made, {} periods skipped", grouped(invoices), grouped(skipped)));
    Ok(if made.waiting.is_empty() && !is_stopped && is_charged { 0 } else { WAITS })
}
