//! `simulate`: months of subscriptions on both real services and a virtual clock, with declines, faults and kills; each
//! month is judged by `verify` and by rules of its own. Must not know how a service works inside.

mod args;
mod judge;
mod plan;
mod report;
mod site;

use std::path::{Path, PathBuf};

use anyhow::Context;
use api::billing::{Page, ScheduleRun};
use jiff::civil::Date;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub(crate) use args::SimulateArgs;

use judge::{Counted, Judge, Row};
use plan::{Event, Plan};
use reconcile::FindingKind;
use report::{Month, Summary, chart};
use site::{Settings, Site};

use crate::demo::process::log_tails;
use crate::http::Api;
use crate::output::{self, grouped};
use crate::progress::Progress;
use crate::verify::{Billing, ReadProgress, Report, VerifyVerdict, verify};

const TEMPLATE: &str = "[{bar:30}] {percent} %  {msg}";
/// Items of a page: the maximum of the services.
const PAGE: usize = 1000;

/// The checked options of a simulation.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) months: u64,
    pub(crate) subscriptions: u64,
    pub(crate) seed: u64,
    pub(crate) kills: u64,
    pub(crate) faults: Option<PathBuf>,
    pub(crate) database_url: Option<String>,
    pub(crate) plot: Option<PathBuf>,
    pub(crate) json: bool,
}

pub(crate) async fn command(options: Options) -> anyhow::Result<u8> {
    let dir =
        tempfile::Builder::new().prefix("tinjis-simulate-").tempdir().context("a folder for the stores")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // However the simulation ends, the children end with the future that holds them.
    let done = tokio::select! {
        done = simulate(&options, dir.path()) => done,
        _ = terminate.recv() => anyhow::bail!("ended by a signal; all processes of the simulation are ended"),
        _ = interrupt.recv() => anyhow::bail!("ended by Ctrl-C; all processes of the simulation are ended"),
    };
    if done.is_err() {
        log_tails(dir.path()).iter().for_each(output::note);
    }
    done
}

async fn simulate(options: &Options, dir: &Path) -> anyhow::Result<u8> {
    let began = Instant::now();
    let plan = Plan::new(options.seed, options.subscriptions, options.months)?;
    let progress = Progress::bar("simulating", options.subscriptions, TEMPLATE);
    let settings = Settings {
        dir,
        database_url: options.database_url.as_deref(),
        faults: options.faults.as_deref(),
        kills: options.kills,
    };
    let mut site = Site::start(&plan, &settings).await?;
    site.fill(&plan, &|created| progress.at(created, "importing subscriptions")).await?;
    let start_ms = plan.month_ms(0);
    let seconds_to = |at_ms: i64| u64::try_from((at_ms - start_ms) / 1000).unwrap_or(0);
    progress.total(seconds_to(plan.month_ms(options.months)));
    let mut events: Vec<(i64, Event)> = plan.events();
    events.reverse();
    let mut month_end = MonthEnd::default();
    let mut months = Vec::new();
    for month in 0..options.months {
        let (on, end_ms) = (plan.month_on(month), plan.month_ms(month + 1));
        let seen = |now_ms: i64| progress.at(seconds_to(now_ms), format_args!("the month from {on}"));
        while let Some((at_ms, event)) = events.pop_if(|(at_ms, _)| *at_ms < end_ms) {
            site.run_until(at_ms, &seen).await?;
            if let Some(change) = site.apply(&event).await? {
                month_end.judge.instrument_changed(change);
            }
        }
        site.run_until(end_ms, &seen).await?;
        progress.at(seconds_to(end_ms), format_args!("verifying the month from {on}"));
        let judged = month_end.close(&plan, month, &site).await?;
        progress.result(if options.json { judged.json() } else { judged.line() });
        judged.complaints.iter().for_each(|line| progress.note(line));
        months.push(judged);
    }
    site.sample_memory();
    let summary = Summary::of(&months, &site, began.elapsed());
    drop(progress);
    if let Some(path) = &options.plot {
        std::fs::write(path, chart(&months, options).to_string())
            .with_context(|| format!("the picture cannot be written to {}", path.display()))?;
    }
    if options.json {
        output::result(summary.json());
    } else {
        summary.lines(options).iter().for_each(output::result);
    }
    Ok(summary.verdict.code())
}

/// A page of the ledger's list, with the fields that the judge reads.
#[derive(Deserialize)]
struct LedgerPage {
    items: Vec<Row>,
    next: Option<i64>,
}

/// State from one month's end to the next: the judge, and the positions in the lists.
#[derive(Debug, Default)]
struct MonthEnd {
    judge: Judge,
    last_seq: i64,
    /// Resends in all months so far.
    resent: u64,
}

impl MonthEnd {
    /// Judges a finished month.
    async fn close(&mut self, plan: &Plan, month: u64, site: &Site) -> anyhow::Result<Month> {
        let billing = site.billing_api()?;
        let payments = site.payments.api()?;
        let mut counted = Counted::default();
        let invoiced = invoiced(&billing, plan.month_on(month), plan.month_on(month + 1)).await?;
        // Nothing changes meanwhile: the next month has not begun.
        let (billing, silent) = (Billing::Service(billing), ReadProgress::silent());
        let ((), verified) = tokio::try_join!(
            self.read_ledger(&payments, plan, &mut counted),
            verify(&billing, payments.clone(), &silent)
        )?;
        // `verify` reads the list of attempts, once a month.
        let resent = verified.result.resent.saturating_sub(self.resent);
        self.resent = verified.result.resent;
        let due = plan.due_in(month);
        let Report { ref result, verdict, .. } = verified;
        // A period without an invoice is forgotten; an invoice without a period was made too early.
        let lost = result.count(FindingKind::Lost) + due.saturating_sub(invoiced);
        let early = counted.early + invoiced.saturating_sub(due);
        let double = result.count(FindingKind::Double);
        let named = std::mem::take(&mut self.judge.named);
        let is_wrong = lost + early + double + counted.over_limit > 0;
        let verdict = if is_wrong { VerifyVerdict::Wrong } else { verdict };
        Ok(Month {
            month: plan.month_on(month).strftime("%Y-%m").to_string(),
            due,
            invoiced,
            paid: counted.paid,
            soft: counted.soft,
            hard: counted.hard,
            overdue: result.invoices - result.paid,
            resent,
            double,
            lost,
            early,
            over_limit: counted.over_limit,
            verdict,
            complaints: if verdict == VerifyVerdict::Ok {
                Vec::new()
            } else {
                [verified.lines(), named].concat()
            },
        })
    }

    async fn read_ledger(
        &mut self,
        payments: &Api,
        plan: &Plan,
        counted: &mut Counted,
    ) -> anyhow::Result<()> {
        loop {
            let page: LedgerPage =
                payments.get(&format!("/v1/ledger?limit={PAGE}&after={}", self.last_seq)).await?;
            for row in &page.items {
                anyhow::ensure!(row.seq > self.last_seq, "the ledger's list is out of order at {}", row.seq);
                self.last_seq = row.seq;
                self.judge.row(row, plan, counted);
            }
            if page.next.is_none() {
                return Ok(());
            }
        }
    }
}

/// Number of invoices of periods after one date, up to another.
async fn invoiced(billing: &Api, after: Date, until: Date) -> anyhow::Result<u64> {
    let page: Page<ScheduleRun> =
        billing.get(&format!("/v1/schedule/runs?limit={PAGE}&after={after}")).await?;
    // Text of the form YYYY-MM-DD sorts as dates do.
    let until = until.to_string();
    let invoices = page.items.iter().filter(|run| run.period_on <= until).map(|run| run.invoices);
    Ok(u64::try_from(invoices.sum::<i64>())?)
}

fn counted_words(month: &Month) -> String {
    let figures = [
        ("due", month.due),
        ("invoiced", month.invoiced),
        ("paid", month.paid),
        ("soft", month.soft),
        ("hard", month.hard),
        ("overdue", month.overdue),
        ("resent", month.resent),
        ("double", month.double),
        ("lost", month.lost),
        ("early", month.early),
        ("over limit", month.over_limit),
    ];
    figures.map(|(name, count)| format!("{name} {}", grouped(count))).join("  ")
}
