//! `demo`: both services as real processes, with charged invoices, killed processes, lost answers, and a checker that
//! can fail. Prints its measurements; every figure with `double` and `lost` follows from the seed alone. Must not know
//! how a service works inside.

mod args;
mod legs;
mod naive;
mod pki;
pub(crate) mod process;
mod quarter;
mod seeded;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context;
use chassis::clock::Random;
use reconcile::FindingKind;
use tokio::signal::unix::{SignalKind, signal};

use legs::{Kept, PaidOnce};
use pki::Pki;
use quarter::Quarter;
use seeded::{LOST_PERCENT, World};

pub(crate) use args::{DemoCommand, Sub};

use crate::output::{self, grouped};
use crate::progress::Progress;
use crate::verify::{Report, VerifyVerdict};

/// Invoices that the legs with faults charge.
const INVOICES_DEFAULT: u64 = 1000;
const INVOICES: RangeInclusive<u64> = 20..=100_000;

/// How often a process is killed in each leg with faults.
const KILLS: u32 = 3;

/// The default file for the picture.
const PLOT_DEFAULT: &str = "tinjis-demo.svg";

/// Maximum random seed: short, so that it can be typed.
const SEED_MAX: u64 = 10_000;

/// Width of the first column of the result.
const WIDTH: usize = 38;

/// Exit code when a line of the result is wrong.
const WRONG: u8 = 1;

/// The checked options of the demo.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: Option<u64>,
    pub(crate) invoices: u64,
    pub(crate) kill: bool,
    pub(crate) mtls: bool,
    pub(crate) keep: bool,
    /// The file for the picture.
    pub(crate) plot: PathBuf,
    pub(crate) forget_key: bool,
}

/// Runs the `demo` command, or the process that it starts as its control group.
pub(crate) async fn command(what: DemoCommand) -> anyhow::Result<u8> {
    match what {
        DemoCommand::Demo(options) => demo(options).await,
        DemoCommand::NaiveBiller(args) => {
            naive::bill(&args.invoices, &args.paid, &args.provider, args.pki.as_deref()).await
        }
    }
}

async fn demo(options: Options) -> anyhow::Result<u8> {
    let seed = options.seed.unwrap_or_else(|| Random::system().below(SEED_MAX));
    let world = World::new(seed, options.invoices, if options.kill { KILLS } else { 0 });
    let dir = tempfile::Builder::new().prefix("tinjis-demo-").tempdir().context("a folder for the demo")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // However the demo ends, the children end with the future that holds them.
    let done = tokio::select! {
        done = show(&options, &world, dir.path()) => done,
        _ = hangup.recv() => anyhow::bail!("the terminal is gone; all processes of the demo are ended"),
        _ = terminate.recv() => anyhow::bail!("ended by a signal; all processes of the demo are ended"),
        _ = interrupt.recv() => anyhow::bail!("ended by Ctrl-C; all processes of the demo are ended"),
    };
    match done {
        Ok((code, kept, quarter)) => {
            if options.keep {
                keep_running(kept, quarter, dir.keep());
            }
            Ok(code)
        }
        Err(error) => {
            process::log_tails(dir.path()).iter().for_each(output::note);
            Err(error)
        }
    }
}

async fn show(options: &Options, world: &World, dir: &Path) -> anyhow::Result<(u8, Kept, Quarter)> {
    let progress = Progress::spinner("demo");
    let leg = |name: &str| -> anyhow::Result<std::path::PathBuf> {
        let dir = dir.join(name);
        std::fs::create_dir(&dir)?;
        Ok(dir)
    };
    let pki = if options.mtls { Some(Pki::make(leg("pki")?)?) } else { None };
    let pki = pki.as_ref();
    progress.step("10 invoices, pay once");
    let once = legs::pay_once(&leg("once")?, world, pki).await.context("in the step \"pay once\"")?;
    progress.result(once_line(&once));
    progress.result(heading(options));

    // Both legs run at the same time, each with a provider of its own: both mostly wait for a disk.
    let (naive_dir, tinjis_dir) = (leg("naive")?, leg("tinjis")?);
    let (naive, kept) = tokio::join!(
        legs::naive(&naive_dir, world, pki, &progress),
        legs::tinjis(&tinjis_dir, world, pki, options.forget_key, &progress)
    );
    let naive = naive.context("in the step \"a retry loop without keys\"")?;
    progress.result(naive_line(&naive));
    let kept = kept.context("in the step \"the same with Tinjis\"")?;
    progress.result(report_line("  the same with Tinjis", &kept.report));
    let quarter = quarter::quarter(&leg("quarter")?, world, pki, &progress).await;
    let quarter = quarter.context("in the step \"a quarter of subscriptions\"")?;
    quarter_lines(&quarter).into_iter().for_each(|line| progress.result(line));
    std::fs::write(&options.plot, quarter.chart().to_string()).with_context(|| {
        format!("the picture cannot be written to {}: say --plot FILE.svg", options.plot.display())
    })?;
    progress.result(format!("{:WIDTH$}{}", "  picture", options.plot.display()));
    progress.result(again_line(options, world.seed));

    let mut complaints = complaints(&naive, &kept, world);
    if options.mtls && !kept.certificates_changed {
        complaints.push("the certificates did not change in mid-run".to_owned());
    }
    complaints.extend(quarter_complaints(&quarter));
    complaints.iter().for_each(|line| progress.note(line));
    Ok((if complaints.is_empty() { 0 } else { WRONG }, kept, quarter))
}

/// Reasons why the demo fails although it ran.
fn complaints(naive: &Report, kept: &Kept, world: &World) -> Vec<String> {
    let mut complaints = Vec::new();
    if naive.result.count(FindingKind::Double) == 0 {
        complaints.push("the naive biller charged no customer twice: too few invoices to show it".to_owned());
    }
    if kept.kills != world.kills {
        complaints.push(format!("only {} of {} kills took place", kept.kills, world.kills));
    }
    let result = &kept.report.result;
    let all = world.invoices.len() as u64;
    let is_whole = result.invoices == all && result.paid == all && result.in_doubt == 0;
    if kept.report.verdict != VerifyVerdict::Ok || !is_whole {
        complaints.push("Tinjis failed its own check:".to_owned());
        complaints.extend(kept.report.lines());
    }
    complaints
}

fn quarter_complaints(quarter: &Quarter) -> Vec<String> {
    let mut complaints = Vec::new();
    if !quarter.is_whole() {
        complaints.push(format!("not every period was invoiced and tried once: {:?}", quarter.months));
    }
    if quarter.report.verdict != VerifyVerdict::Ok || quarter.report.result.invoices != quarter.invoiced() {
        complaints.push("the quarter failed its check:".to_owned());
        complaints.extend(quarter.report.lines());
    }
    complaints
}

fn quarter_lines(quarter: &Quarter) -> Vec<String> {
    let months = quarter.months.iter().map(|month| {
        let head = format!("  {}", month.name);
        let (invoiced, charged) =
            (format!("invoiced {}", month.invoiced), format!("charged {}", month.charged));
        format!("{head:WIDTH$}{invoiced:12} {charged:12} declined {}", month.declined)
    });
    let count = quarter::SUBSCRIPTIONS;
    let head = format!(
        "{count} subscriptions, January to March 2025: the periods are past, the schedule makes each of them now"
    );
    let verified = report_line("  each period once", &quarter.report);
    std::iter::once(head).chain(months).chain([verified]).collect()
}

fn once_line(once: &PaidOnce) -> String {
    let PaidOnce { invoices, before, after, answer } = once;
    let head = format!("{invoices} invoices, pay once");
    format!("{head:WIDTH$}{before} → {after} PAID   answer {answer}   (the provider refuses about half)")
}

fn heading(options: &Options) -> String {
    let invoices = grouped(options.invoices);
    let kills = if options.kill { format!(", {KILLS} kills by SIGKILL") } else { String::new() };
    let mtls = if options.mtls { ", mutual TLS, certificates changed in mid-run" } else { "" };
    format!("{invoices} invoices{kills}, {LOST_PERCENT} % of answers lost{mtls}")
}

fn naive_line(report: &Report) -> String {
    print_figures("  a retry loop without keys", report).trim_end().to_owned()
}

fn report_line(head: &str, report: &Report) -> String {
    let figures = print_figures(head, report);
    let in_doubt = format!("in doubt {}", grouped(report.result.in_doubt));
    let invoices = grouped(report.result.invoices);
    let verified = match report.verdict {
        VerifyVerdict::Ok => format!("verified: {invoices} invoices against the ledger"),
        VerifyVerdict::Wrong => format!("WRONG: {invoices} invoices against the ledger"),
        VerifyVerdict::Unknown => "not verified".to_owned(),
    };
    format!("{figures}{in_doubt:15}{verified}")
}

fn print_figures(head: &str, report: &Report) -> String {
    let double = format!("double {}", grouped(report.result.count(FindingKind::Double)));
    let lost = format!("lost {}", grouped(report.result.count(FindingKind::Lost)));
    format!("{head:WIDTH$}{double:12} {lost:8} ")
}

fn again_line(options: &Options, seed: u64) -> String {
    let mut command = format!("tinjis demo --seed {seed}");
    if options.invoices != INVOICES_DEFAULT {
        command.push_str(&format!(" --invoices {}", options.invoices));
    }
    if !options.kill {
        command.push_str(" --no-kill");
    }
    if options.mtls {
        command.push_str(" --mtls");
    }
    if options.plot != Path::new(PLOT_DEFAULT) {
        command.push_str(&format!(" --plot {}", options.plot.display()));
    }
    format!("seed {seed}; again: {command}")
}

/// Keeps the services of the last two legs running, and prints how to call and how to end them.
fn keep_running(mut kept: Kept, mut quarter: Quarter, dir: PathBuf) {
    for service in [&mut kept.billing, &mut kept.payments, &mut quarter.billing, &mut quarter.payments] {
        service.detach();
    }
    let (billing, payments) = (kept.billing.url(), kept.payments.url());
    let curl = kept.billing.curl_tls_args();
    let mut lines = vec![
        String::new(),
        format!("billing  {billing}   (process {}, data and logs in {})", kept.billing.id(), dir.display()),
        format!("payments {payments}   (process {})", kept.payments.id()),
        format!("  curl {curl}{billing}/rest/v1/invoices/1"),
        format!("  curl {curl}-X POST {billing}/rest/v1/invoices/pay"),
        format!("  curl {curl}'{billing}/v1/attempts?limit=3'"),
        format!("  curl {curl}'{payments}/v1/ledger?limit=3'"),
    ];
    let shown = curl.replace("--cacert", "--ca");
    lines.push(format!("  tinjis verify {shown}--billing {billing} --payments {payments}"));
    let (billing, payments) = (quarter.billing.url(), quarter.payments.url());
    lines.push(format!("the quarter: billing {billing}, payments {payments}"));
    lines.push(format!("  curl {curl}'{billing}/v1/invoices?limit=3'"));
    let ids = [&kept.billing, &kept.payments, &quarter.billing, &quarter.payments];
    let ids = ids.map(|service| service.id().to_string()).join(" ");
    lines.push(format!("to end them: kill {ids}; rm -r {}", dir.display()));
    lines.iter().for_each(output::result);
}
