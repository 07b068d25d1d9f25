//! Three legs of the demo: the legacy pay call once, the naive biller, and the same invoices with Tinjis. Each measures
//! and returns numbers; the parent prints and judges them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use super::pki::Pki;
use super::process::{self, Service, sleep_between_polls, wait_for};
use super::seeded::World;
use crate::deployments::INVOICES;
use crate::http::Api;
use crate::import::Sender;
use crate::pay::Run;
use crate::progress::Progress;
use crate::verify::{Billing, ReadProgress, Report, verify};

/// Share of charges that succeed in the legs with faults: high, so that a few rounds pay all.
const SUCCESS_RATE: &str = "0.9";

/// Maximum number of runs until all invoices must be PAID.
const ROUNDS_MAX: u32 = 40;

/// Timeout of each wait in a leg.
pub(super) const WITHIN: Duration = Duration::from_secs(120);

/// The results of the first leg.
#[derive(Debug)]
pub(super) struct PaidOnce {
    pub(super) invoices: usize,
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) answer: bool,
}

#[derive(Deserialize)]
struct OldInvoice {
    status: String,
}

/// Starts billing with the legacy data, and makes one pay call over the legacy route.
pub(super) async fn pay_once(dir: &Path, world: &World, pki: Option<&Pki>) -> anyhow::Result<PaidOnce> {
    let seed = world.seed.to_string();
    let payments = Service::start("payments", dir, pki, &[("--seed", seed)]).await?;
    let demo = ("--demo", "antaeus".to_owned());
    let billing = start_billing(dir, world, &payments, pki, Some(demo)).await?;
    let api = billing.api()?;
    let (invoices, before) = count_paid(&api).await?;
    let answer = api.post("/rest/v1/invoices/pay", "application/json", Bytes::new()).await?;
    let (_, after) = count_paid(&api).await?;
    Ok(PaidOnce { invoices, before, after, answer })
}

async fn count_paid(billing: &Api) -> anyhow::Result<(usize, usize)> {
    let invoices: Vec<OldInvoice> = billing.get("/rest/v1/invoices").await?;
    let paid = invoices.iter().filter(|invoice| invoice.status == "PAID").count();
    Ok((invoices.len(), paid))
}

pub(super) async fn start_billing(
    dir: &Path,
    world: &World,
    payments: &Service,
    pki: Option<&Pki>,
    more: Option<(&str, String)>,
) -> anyhow::Result<Service> {
    let mut settings = vec![
        ("--payment-provider-endpoint", payments.url()),
        ("--payment-provider-idempotency", "keys".to_owned()),
        ("--deployment-id", world.deployment_id.to_string()),
    ];
    settings.extend(more);
    settings.extend(pki.map(Pki::provider_settings).into_iter().flatten());
    Service::start("billing", dir, pki, &settings).await
}

async fn start_faulty_payments(
    dir: &Path,
    world: &World,
    pki: Option<&Pki>,
    forget_key: bool,
) -> anyhow::Result<Service> {
    let script = dir.join("faults.toml");
    fs::write(&script, world.faults(forget_key))?;
    let settings = [("--faults", script.display().to_string()), ("--success-rate", SUCCESS_RATE.to_owned())];
    Service::start("payments", dir, pki, &settings).await
}

/// The number of answers that the provider has held back so far.
async fn count_held(payments: &Api) -> anyhow::Result<u32> {
    const METRIC: &str = "payments_faults_total{fault=\"hold\"} ";
    let metrics = payments.text("/metrics").await?;
    let value = metrics.lines().find_map(|line| line.strip_prefix(METRIC));
    value.map_or(Ok(0), |value| value.parse()).context("a counter is a whole number")
}

/// The naive biller: killed at each held answer and started again, until it considers all invoices paid.
pub(super) async fn naive(
    dir: &Path,
    world: &World,
    pki: Option<&Pki>,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let payments = start_faulty_payments(dir, world, pki, false).await?;
    let (invoices, paid, log) = (dir.join("invoices.ndjson"), dir.join("paid.ndjson"), dir.join("naive.log"));
    let bodies: String = world.bodies().map(|body| body + "\n").collect();
    fs::write(&invoices, bodies)?;
    let start = || process::naive([&invoices, &paid, &log], &payments.url(), pki);
    let mut biller = start()?;
    let admin = payments.admin_api();
    for kill in 1..=world.kills {
        wait_for("an answer to be held back", WITHIN, async || {
            if let Some(status) = biller.ended()? {
                bail!("the naive biller ended early: {status}");
            }
            Ok((count_held(&admin).await? >= kill).then_some(()))
        })
        .await?;
        biller.kill()?;
        progress.step(format_args!("without keys: kill {kill} of {}", world.kills));
        biller = start()?;
    }
    let status = wait_for("the naive biller to end", WITHIN, async || biller.ended()).await?;
    if !status.success() {
        bail!("the naive biller failed: {status}");
    }
    let marked = fs::read_to_string(&paid).context("the naive biller marked nothing")?;
    verify(&Billing::List(world.naive_invoices(&marked)), payments.api()?, &ReadProgress::silent()).await
}

/// The services and the report of the leg with Tinjis.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) billing: Service,
    pub(super) payments: Service,
    pub(super) report: Report,
    pub(super) kills: u32,
    /// Whether all certificates were changed during the run.
    pub(super) certificates_changed: bool,
}

/// Charges the same invoices with the same faults through our billing, with kills during the run, until all are PAID.
pub(super) async fn tinjis(
    dir: &Path,
    world: &World,
    pki: Option<&Pki>,
    forget_key: bool,
    progress: &Progress,
) -> anyhow::Result<Kept> {
    let payments = start_faulty_payments(dir, world, pki, forget_key).await?;
    let mut billing = start_billing(dir, world, &payments, pki, None).await?;
    let mut sender = Sender::new(billing.api()?, &INVOICES, false, false);
    for row in &world.invoices {
        sender.row(row).await?;
    }
    sender.flush().await?;
    let created = sender.counts.created;
    if created != world.invoices.len() as u64 {
        bail!("{created} of {} invoices were imported: {:?}", world.invoices.len(), sender.faults);
    }
    let mut so_far = SoFar { kills: 0, certificates_changed: false };
    let mut all_paid = false;
    for round in 1..=ROUNDS_MAX {
        progress.step(format_args!("with Tinjis: round {round}"));
        all_paid = one_round(&mut billing, &payments, world, pki, &mut so_far, progress).await?;
        if all_paid {
            break;
        }
    }
    if !all_paid {
        bail!("not all invoices are PAID after {ROUNDS_MAX} runs");
    }
    progress.step("with Tinjis: verify");
    let report = verify(&Billing::Service(billing.api()?), payments.api()?, &ReadProgress::silent()).await?;
    let SoFar { kills, certificates_changed } = so_far;
    Ok(Kept { billing, payments, report, kills, certificates_changed })
}

/// Counts of this leg so far.
struct SoFar {
    kills: u32,
    certificates_changed: bool,
}

/// Replaces all certificates during the run and waits until both services have loaded them. Billing loads its server
/// certificate and its client certificate separately.
async fn change_certificates(pki: &Pki, billing: &Service, payments: &Service) -> anyhow::Result<()> {
    pki.change()?;
    payments.wait_for_reloads(1).await?;
    billing.wait_for_reloads(2).await
}

/// Drives one run to its end, with kills; returns whether all invoices are PAID.
async fn one_round(
    billing: &mut Service,
    payments: &Service,
    world: &World,
    pki: Option<&Pki>,
    so_far: &mut SoFar,
    progress: &Progress,
) -> anyhow::Result<bool> {
    let admin = payments.admin_api();
    let api = billing.api()?;
    let mut run = Run::start(&api).await?;
    let deadline = Instant::now() + WITHIN;
    while !run.is_finished() {
        if Instant::now() >= deadline {
            bail!("a run did not end within {} s", WITHIN.as_secs());
        }
        let is_held = so_far.kills < world.kills && count_held(&admin).await? > so_far.kills;
        if let Some(pki) = pki
            && !so_far.certificates_changed
            && (is_held || world.kills == 0)
        {
            progress.step("with Tinjis: all certificates change");
            change_certificates(pki, billing, payments).await?;
            so_far.certificates_changed = true;
        }
        if is_held {
            so_far.kills += 1;
            progress.step(format_args!("with Tinjis: kill {} of {}", so_far.kills, world.kills));
            billing.kill_and_restart().await?;
            // This joins the run that the kill interrupted.
            run = Run::start(&api).await?;
        }
        sleep_between_polls().await;
        run = run.refetch(&api).await?;
    }
    Ok(run.0.all_paid)
}
