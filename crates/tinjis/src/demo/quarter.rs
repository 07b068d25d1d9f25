//! The last part of the demo: the schedule of a real billing invoices and charges a quarter of a year of subscriptions,
//! month by month. The clock is not moved: all periods are in the past, and the schedule makes each month when an
//! operator asks for it. Measures and returns numbers; the parent prints and judges them.

use billing::plot::{BarChart, Group};
use std::path::Path;

use anyhow::{Context, bail};
use api::billing::{ChangeRequest, ImportReport, Invoice, Page, ScheduleRunRequest, ScheduleRunResult};
use bytes::Bytes;
use serde_json::{Value, json};

use super::legs::{WITHIN, start_billing};
use super::pki::Pki;
use super::process::{Service, wait_for};
use super::seeded::World;
use crate::http::{Api, encode_segment};
use crate::pay::Run;
use crate::progress::Progress;
use crate::verify::{Billing, ReadProgress, Report, verify};

/// One subscription of each kind, three times.
pub(super) const SUBSCRIPTIONS: u64 = 54;
const ANCHORS: [u64; 3] = [29, 30, 31];
const ZONES: [&str; 2] = ["Europe/Copenhagen", "America/New_York"];
/// Prices with two, no and three decimals.
const PRICES: [(&str, &str); 3] = [("EUR", "9.90"), ("JPY", "1290"), ("KWD", "2.750")];
const STARTS_ON: &str = "2025-01-01";

/// The subscription that is paused for February, and the one whose price rises in March.
const PAUSED: &str = "S-01";
const DEARER: &str = "S-02";

/// Reason and actor that billing records for the demo's changes.
const REASON: &str = "the demo";
const ACTOR: &str = "tinjis demo";

/// Share of charges that succeed.
const SUCCESS_RATE: &str = "0.9";

/// Months of the year 2025, with the last due date of each.
const MONTHS: [(&str, &str); 3] =
    [("January", "2025-01-31"), ("February", "2025-02-28"), ("March", "2025-03-31")];

/// Counts of one month, as billing shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Month {
    pub(super) name: &'static str,
    pub(super) invoiced: u64,
    pub(super) charged: u64,
    /// Invoices that the provider declined; PENDING until a `pay` tries them again.
    pub(super) declined: u64,
}

/// Services and counts of the quarter.
#[derive(Debug)]
pub(super) struct Quarter {
    pub(super) billing: Service,
    pub(super) payments: Service,
    pub(super) months: Vec<Month>,
    pub(super) report: Report,
}

/// Starts both services and lets the schedule process three months.
pub(super) async fn quarter(
    dir: &Path,
    world: &World,
    pki: Option<&Pki>,
    progress: &Progress,
) -> anyhow::Result<Quarter> {
    let settings = [("--seed", world.seed.to_string()), ("--success-rate", SUCCESS_RATE.to_owned())];
    let payments = Service::start("payments", dir, pki, &settings).await?;
    let off = ("--schedule", "off".to_owned());
    let billing = start_billing(dir, world, &payments, pki, Some(off)).await?;
    let api = billing.api()?;
    import(&api).await?;
    for (name, last) in MONTHS {
        progress.step(format_args!("a quarter of subscriptions: {name}"));
        match name {
            "February" => change(&api, PAUSED, "pause", ChangeRequest::default()).await?,
            "March" => {
                let march =
                    || ChangeRequest { from: Some("2025-03-01".to_owned()), ..ChangeRequest::default() };
                change(&api, PAUSED, "resume", march()).await?;
                let price = ChangeRequest { amount: Some("12.90".to_owned()), ..march() };
                change(&api, DEARER, "change-price", price).await?;
            }
            _ => {}
        }
        run_schedule(&api, last).await?;
    }
    let months = months(&api).await?;
    let report = verify(&Billing::Service(api), payments.api()?, &ReadProgress::silent()).await?;
    Ok(Quarter { billing, payments, months, report })
}

/// The rows of the subscriptions: each anchor in each zone in each currency.
fn rows() -> String {
    let row = |nth: u64| {
        let pick = |nth: u64, count: usize| usize::try_from(nth).unwrap_or(0) % count;
        let (currency, amount) = PRICES[pick((nth - 1) / 6, PRICES.len())];
        let row = json!({
            "reference": format!("S-{nth:02}"), "customer_id": nth, "currency": currency, "amount": amount,
            "anchor_day": ANCHORS[pick(nth - 1, ANCHORS.len())],
            "zone": ZONES[pick((nth - 1) / 3, ZONES.len())], "starts_on": STARTS_ON,
        });
        format!("{row}\n")
    };
    (1..=SUBSCRIPTIONS).map(row).collect()
}

async fn import(billing: &Api) -> anyhow::Result<()> {
    let body = Bytes::from(rows());
    let answer: ImportReport =
        billing.post("/v1/subscriptions/imports?dry_run=false", "application/x-ndjson", body).await?;
    if answer.created != SUBSCRIPTIONS {
        bail!("{} of {SUBSCRIPTIONS} subscriptions were created", answer.created);
    }
    Ok(())
}

async fn change(billing: &Api, reference: &str, change: &str, fields: ChangeRequest) -> anyhow::Result<()> {
    let body = ChangeRequest { reason: REASON.to_owned(), actor: ACTOR.to_owned(), ..fields };
    let path = format!("/v1/subscriptions/{}/{change}", encode_segment(reference));
    let _: Value = billing.post(&path, "application/json", Bytes::from(serde_json::to_vec(&body)?)).await?;
    Ok(())
}

/// Does the same as `tinjis schedule run --until DATE --catch-up each`, and waits until its charges have ended.
async fn run_schedule(billing: &Api, until: &str) -> anyhow::Result<()> {
    let request = ScheduleRunRequest {
        until: until.to_owned(),
        catch_up: Some("each".to_owned()),
        over_cap: false,
        reason: REASON.to_owned(),
        actor: ACTOR.to_owned(),
    };
    loop {
        let body = Bytes::from(serde_json::to_vec(&request)?);
        let made: ScheduleRunResult = billing.post("/v1/schedule/runs", "application/json", body).await?;
        if !made.waiting.is_empty() {
            bail!("dates up to {until} wait for an operator: {:?}", made.waiting);
        }
        if let Some(run) = made.run_id {
            wait_for("a schedule run to end", WITHIN, async || {
                let run: Run = billing.get(&format!("/v1/runs/{run}")).await?;
                Ok(run.is_finished().then_some(()))
            })
            .await?;
        }
        if !made.more {
            return Ok(());
        }
    }
}

/// Counts the invoices that `/v1` shows: the reference of an invoice contains the due date of its period.
async fn months(billing: &Api) -> anyhow::Result<Vec<Month>> {
    let page: Page<Invoice> = billing.get("/v1/invoices?limit=1000").await?;
    let mut months = MONTHS.map(|(name, _)| Month { name, ..Month::default() });
    for Invoice { reference, state, .. } in page.items {
        let (_, due_on) = reference.rsplit_once('@').context("an invoice that no period has")?;
        let at = MONTHS.iter().position(|(_, last)| last[..7] == due_on[..7]).context("another month")?;
        let month = &mut months[at];
        month.invoiced += 1;
        match &*state {
            "PAID" => month.charged += 1,
            "PENDING" => month.declined += 1,
            _ => bail!("{reference} is {state}"),
        }
    }
    Ok(months.to_vec())
}

impl Quarter {
    pub(super) fn invoiced(&self) -> u64 {
        self.months.iter().map(|month| month.invoiced).sum()
    }

    /// Whether each subscription has one period a month, and the paused subscription one less.
    pub(super) fn is_whole(&self) -> bool {
        let invoiced: Vec<u64> = self.months.iter().map(|month| month.invoiced).collect();
        invoiced == [SUBSCRIPTIONS, SUBSCRIPTIONS - 1, SUBSCRIPTIONS]
            && self.months.iter().all(|month| month.charged + month.declined == month.invoiced)
    }

    pub(super) fn chart(&self) -> BarChart {
        let group = |month: &Month| Group {
            label: format!("{} 2025", month.name),
            values: vec![month.invoiced, month.charged, month.declined],
        };
        BarChart {
            title: "Invoices of subscriptions, by month of their due date".to_owned(),
            subtitle: format!(
                "{SUBSCRIPTIONS} subscriptions; anchor days 29, 30 and 31; two zones; EUR, JPY and KWD; one paused in February"
            ),
            series: ["invoiced", "charged", "declined"].map(str::to_owned).to_vec(),
            groups: self.months.iter().map(group).collect(),
        }
    }
}
