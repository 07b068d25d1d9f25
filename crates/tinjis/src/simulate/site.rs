//! Both real services on a virtual clock, and the steps of that clock. A step goes to the next instant at which
//! something is due, but only after billing has finished what was due before. Knows what billing says is due; judges
//! nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use api::billing::{Deployment, ImportReport, ScheduleStatus};
use bytes::Bytes;
use chassis::clock::VirtualClock;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::judge::NewInstrument;
use super::plan::{AtMs, Event, Plan};
use crate::demo::process::Service;
use crate::http::{Api, encode_segment};

/// Retries within this time are one step: otherwise each decline would cause a step of its own.
const RETRIES_TOGETHER_MS: i64 = 30 * 60 * 1000;
/// Longer than every lease and pause of billing.
const PAST_LEASES_MS: i64 = 61_000;
/// If billing makes no progress for this long although something is due or leased, the clock must advance.
const STUCK_AFTER: Duration = Duration::from_millis(1500);
/// If billing makes no progress for this long although the clock advanced, it is broken.
const BROKEN_AFTER: Duration = Duration::from_secs(120);
/// Approximate number of reads while billing works, so that they do not slow down a long step.
const LOOKS: u32 = 32;
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(4);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Number of subscriptions in one request.
const IMPORT_BATCH: u64 = 5000;

/// The services and the clock of one simulation.
pub(super) struct Site {
    pub(super) payments: Service,
    /// Replicas on one store.
    pub(super) billing: Vec<Service>,
    clock: VirtualClock,
    kills: Vec<i64>,
    pub(super) killed: u64,
    /// Approximate total time with an unfinished run.
    pub(super) charging: Duration,
    /// Maximum memory of any process of the services, in KiB.
    pub(super) memory_peak_kib: u64,
}

/// The state of billing at one read.
enum State {
    /// Nothing is due and nothing is open; holds the next due time, if there is one.
    Quiet(Option<i64>),
    Charging,
    /// Something is due or open, and no run is unfinished.
    Idle,
}

/// Settings that the services start with.
pub(super) struct Settings<'a> {
    pub(super) dir: &'a Path,
    pub(super) database_url: Option<&'a str>,
    pub(super) faults: Option<&'a Path>,
    pub(super) kills: u64,
}

impl Site {
    pub(super) async fn start(plan: &Plan, settings: &Settings<'_>) -> anyhow::Result<Self> {
        let Settings { dir, database_url, faults, kills } = *settings;
        let path = dir.join("clock");
        let clock = VirtualClock::create(&path, plan.month_ms(0)).context("the virtual clock")?;
        let flag = ("--virtual-clock", path.display().to_string());
        let script = faults.map_or_else(|| dir.join("faults.toml"), PathBuf::from);
        if faults.is_none() {
            std::fs::write(&script, plan.faults())?;
        }
        let settings =
            [flag.clone(), ("--seed", plan.seed.to_string()), ("--faults", script.display().to_string())];
        let payments = Service::start("payments", dir, None, &settings).await?;
        let mut settings = vec![
            flag,
            ("--payment-provider-endpoint", payments.url()),
            ("--payment-provider-idempotency", "keys".to_owned()),
            ("--deployment-id", plan.deployment_id().to_string()),
            ("--schedule-catch-up", "each".to_owned()),
            ("--log-level", "warn".to_owned()),
        ];
        let replicas = if database_url.is_some() { 2 } else { 1 };
        if let Some(url) = database_url {
            settings.push(("--database-url", url.to_owned()));
            Service::migrate("billing", dir, &settings).await?;
        }
        let mut billing = Vec::new();
        for _ in 0..replicas {
            billing.push(Service::start("billing", dir, None, &settings).await?);
        }
        let kills = plan.kills(kills).into_iter().rev().collect();
        let (charging, killed, memory_peak_kib) = (Duration::ZERO, 0, 0);
        Ok(Self { payments, billing, clock, kills, killed, charging, memory_peak_kib })
    }

    pub(super) fn billing_api(&self) -> anyhow::Result<Api> {
        self.billing.first().context("billing has a replica")?.api()
    }

    /// Imports the subscriptions and the networks of cards.
    pub(super) async fn fill(&self, plan: &Plan, progress: &dyn Fn(u64)) -> anyhow::Result<()> {
        let api = self.billing_api()?;
        let mut from = 1;
        while from <= plan.subscriptions {
            let to = (from + IMPORT_BATCH - 1).min(plan.subscriptions);
            let body = Bytes::from(plan.rows(from, to));
            let path = "/v1/subscriptions/imports?dry_run=false";
            let report: ImportReport = api.post(path, "application/x-ndjson", body).await?;
            if report.created != to - from + 1 {
                bail!("{} of {} subscriptions were created", report.created, to - from + 1);
            }
            progress(to);
            from = to + 1;
        }
        for (customer, network) in plan.networks() {
            let path = format!("/v1/customers/{customer}/network");
            let _: Value = operate(&api, &path, json!({ "network": network })).await?;
        }
        let rates =
            json!({ "success": 0.91, "declines": { "insufficient_funds": 0.08, "stolen_card": 0.01 } });
        let body = Bytes::from(rates.to_string());
        let _: Value = self.payments.api()?.put("/v1/rates", "application/json", body).await?;
        Ok(())
    }

    /// Advances the clock to this instant in steps; everything due before is then done.
    pub(super) async fn run_until(&mut self, end_ms: i64, seen: &dyn Fn(i64)) -> anyhow::Result<()> {
        loop {
            let next = self.run_until_idle().await?;
            let now = self.clock.now_ms();
            seen(now);
            if now >= end_ms {
                return Ok(());
            }
            self.clock.move_to(next.unwrap_or(end_ms).min(end_ms).max(now + 1))?;
        }
    }

    /// Applies an operator's change or the downtime. Returns when an instrument changed, by the time of the store.
    pub(super) async fn apply(&mut self, event: &Event) -> anyhow::Result<Option<NewInstrument>> {
        match event {
            Event::Change { reference, change, fields } => {
                let path = format!("/v1/subscriptions/{}/{change}", encode_segment(reference));
                let _: Value = operate(&self.billing_api()?, &path, fields.clone()).await?;
                Ok(None)
            }
            Event::NewInstrument { customer } => {
                let path = format!("/v1/customers/{customer}/instrument-changed");
                let changed: Changed = operate(&self.billing_api()?, &path, json!({})).await?;
                Ok(Some(NewInstrument { customer: *customer, from: changed.instrument_changed_at }))
            }
            Event::Away { until_ms } => {
                self.sample_memory();
                self.billing.iter_mut().chain([&mut self.payments]).try_for_each(Service::kill)?;
                self.clock.move_to(*until_ms)?;
                self.payments.restart().await?;
                for billing in &mut self.billing {
                    billing.restart().await?;
                }
                Ok(None)
            }
        }
    }

    /// Waits until billing has done what is due, with kills; returns the next due time.
    async fn run_until_idle(&mut self) -> anyhow::Result<Option<i64>> {
        let (mut before, mut since, mut moved) = (None, Instant::now(), Instant::now());
        let began = Instant::now();
        loop {
            let looked = Instant::now();
            let (schedule, deployment) = self.fetch_state().await?;
            let state = state_of(&schedule, &deployment)?;
            match state {
                State::Quiet(next) => return Ok(next),
                State::Charging => self.kill_if_due().await?,
                State::Idle => {}
            }
            let dues = (schedule.next_charge_at, schedule.next_attempt_at);
            let facts = (dues, deployment.counts, deployment.unfinished_run);
            if before.as_ref() != Some(&facts) {
                (before, since, moved) = (Some(facts), Instant::now(), Instant::now());
            }
            if since.elapsed() >= BROKEN_AFTER {
                bail!("billing has done nothing for {} s: {deployment:?}", BROKEN_AFTER.as_secs());
            }
            // Progress needs the clock: for an orphaned run, an attempt leased by a killed process, or a pause after a
            // run.
            if moved.elapsed() >= STUCK_AFTER
                || matches!(state, State::Idle) && moved.elapsed() >= STUCK_AFTER / 10
            {
                self.clock.move_to(self.clock.now_ms() + PAST_LEASES_MS)?;
                moved = Instant::now();
            }
            tokio::time::sleep((began.elapsed() / LOOKS).clamp(LOOK_AT_MOST_EVERY, LOOK_EVERY)).await;
            if matches!(state, State::Charging) {
                self.charging += looked.elapsed();
            }
        }
    }

    async fn fetch_state(&self) -> anyhow::Result<(ScheduleStatus, Deployment)> {
        let api = self.billing_api()?;
        // The order matters: a run that ends between the two calls leaves nothing due.
        Ok((api.get("/v1/schedule").await?, api.get("/v1/deployment").await?))
    }

    /// Kills the processes in rotation, while a run is unfinished.
    async fn kill_if_due(&mut self) -> anyhow::Result<()> {
        let now = self.clock.now_ms();
        if self.kills.last().is_none_or(|at| *at > now) {
            return Ok(());
        }
        self.kills.pop();
        self.sample_memory();
        let turn = usize::try_from(self.killed).unwrap_or(0) % (self.billing.len() + 1);
        self.killed += 1;
        match self.billing.get_mut(turn) {
            Some(billing) => billing.kill_and_restart().await,
            None => self.payments.kill_and_restart().await,
        }
    }

    /// Samples the memory, before a process ends and at the end.
    pub(super) fn sample_memory(&mut self) {
        let services = self.billing.iter().chain([&self.payments]);
        let peak = services.filter_map(|service| memory_peak_kib_of(service.id())).max();
        self.memory_peak_kib = self.memory_peak_kib.max(peak.unwrap_or(0));
    }
}

fn state_of(schedule: &ScheduleStatus, deployment: &Deployment) -> anyhow::Result<State> {
    if !schedule.waiting.is_empty() {
        bail!("dates wait for an operator: {:?}", schedule.waiting);
    }
    if deployment.unfinished_run.is_some() {
        return Ok(State::Charging);
    }
    let ms = |text: &String| AtMs::try_from(text.clone()).map(|at| at.0);
    let charge = schedule.next_charge_at.as_ref().map(ms).transpose()?;
    let attempt = schedule.next_attempt_at.as_ref().map(ms).transpose()?;
    let now = ms(&schedule.now)?;
    let is_due = [charge, attempt].into_iter().flatten().any(|at| at <= now);
    if is_due || deployment.counts.charging > 0 {
        return Ok(State::Idle);
    }
    let together = |at: i64| (at / RETRIES_TOGETHER_MS + 1) * RETRIES_TOGETHER_MS;
    Ok(State::Quiet([charge, attempt.map(together)].into_iter().flatten().min()))
}

/// The high-water mark of a process, in KiB.
pub(super) fn memory_peak_kib_of(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A customer, as billing shows it.
#[derive(Deserialize)]
struct Changed {
    instrument_changed_at: AtMs,
}

async fn operate<T: DeserializeOwned>(billing: &Api, path: &str, mut fields: Value) -> anyhow::Result<T> {
    fields["reason"] = "the simulation".into();
    fields["actor"] = "tinjis simulate".into();
    Ok(billing.post(path, "application/json", Bytes::from(fields.to_string())).await?)
}
