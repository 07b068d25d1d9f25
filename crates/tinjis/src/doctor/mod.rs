//! `doctor`: whether an environment on Kubernetes is as closed as it should be, tried and not read. Makes pods for
//! it, takes them back, and exits 0 when all is as expected, 1 when something is open, 2 when nobody can tell.

mod clean;
mod expect;
mod facts;
mod judge;
mod kube;
mod observe;
mod paths;
mod plan;
mod pods;
pub(crate) mod probe;
mod rbac;
mod report;
mod task;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use chassis::clock::Random;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::output;
use crate::progress::Progress;
use clean::clean;
pub(crate) use expect::Expectations;
use facts::Facts;
use judge::{Judgement, Verdict, judge};
use kube::Kube;
use observe::Ground;
use plan::{Trial, plan, stations};
use pods::Kit;

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) expectations: Expectations,
    pub(crate) image: String,
    pub(crate) kubectl: String,
    pub(crate) junit: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) evictions: bool,
}

/// Expectations from a file, all mistakes in one message.
pub(crate) fn expectations(path: &std::path::Path) -> Result<Expectations, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Expectations::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The `doctor` command.
pub(crate) async fn command(mut options: Options) -> anyhow::Result<u8> {
    if !options.evictions {
        options.expectations.evictions.clear();
    }
    let begun = Instant::now();
    let progress = Progress::spinner("doctor");
    progress.step("asking the API server");
    let kube = Kube::open(&options.kubectl).await?;
    kube.get("/version").await.context("no cluster answers (KUBECONFIG)")?;
    let namespaces = options.expectations.namespaces();
    let namespaces: Vec<&str> = namespaces.into_iter().chain(source_namespaces(&options)).collect();
    clean(&kube, &namespaces).await.context("what an earlier doctor left")?;
    let run = format!("{:06x}", Random::system().below(1 << 24));
    let kit = Kit { run: run.clone(), image: options.image.clone() };
    let ground = Ground { kube: &kube, kit, namespace: format!("tinjis-doctor-{run}") };
    let examined = tokio::select! {
        examined = examine(&ground, &options, &progress) => examined,
        stopped = stopped() => stopped.and_then(|()| bail!("stopped")),
    };
    let why = if examined.is_ok() { "" } else { "it cannot go on: " };
    progress.step(format_args!("{why}taking its pods back"));
    let cleaned = clean(&kube, &namespaces).await.context("taking the doctor's own pods back");
    drop(progress);
    let (judgement, facts) = match examined {
        Ok(examined) => examined,
        Err(error) => {
            // Both are told; the first is why it ends.
            let _told = cleaned.inspect_err(crate::output::error);
            return Err(error);
        }
    };
    report(&judgement, &facts, &options, begun.elapsed())?;
    cleaned?;
    Ok(match judgement.verdict {
        Verdict::Green => 0,
        Verdict::Red => 1,
        Verdict::CannotTell => 2,
    })
}

/// Ctrl-C, the end of a Job, a terminal that is closed: what was made is taken back all the same.
async fn stopped() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

fn source_namespaces(options: &Options) -> impl Iterator<Item = &str> {
    options.expectations.sources.iter().map(|source| source.namespace.as_str())
}

async fn examine(
    ground: &Ground<'_>,
    options: &Options,
    progress: &Progress,
) -> anyhow::Result<(Judgement, Facts)> {
    let expectations = &options.expectations;
    let mut facts = Facts::look(ground.kube, expectations).await?;
    progress.step("starting two listeners of its own");
    facts.listeners = ground.prepare().await?;
    ground.make_namespaces(expectations, &facts).await?;
    let stations = stations(expectations, &facts, &ground.namespace);
    let trials = plan(expectations, &facts, &stations, &ground.kit.unplaced());
    progress.step(format_args!("{} trials from {} places", trials.len(), stations.len()));
    let mut seen = ground.probes(expectations, &facts, &stations, &trials, progress).await;
    progress.step("asking as each team and each account");
    seen.extend(ground.asks(&trials).await);
    // Last, and without the probes: those have the labels that a disruption budget counts.
    let namespaces: Vec<&str> = expectations.namespaces().into_iter().collect();
    if !expectations.evictions.is_empty() {
        progress.step("evicting pods");
        clean(ground.kube, &namespaces).await?;
        seen.extend(ground.evictions(&trials, &facts).await);
    }
    let mut judgement = judge(trials, &seen);
    name_grants(ground, &mut judgement).await?;
    Ok((judgement, facts))
}

/// Whoever may what he should not, by which Role.
async fn name_grants(ground: &Ground<'_>, judgement: &mut Judgement) -> anyhow::Result<()> {
    let red = judgement.rows.iter().filter(|row| row.verdict == Verdict::Red);
    let red: Vec<Trial> = red.map(|row| row.trial.clone()).collect();
    let grants = ground.grants(red.iter()).await?;
    for row in &mut judgement.rows {
        if let Some(grant) = grants.get(&row.trial.id) {
            row.reason = format!("{}: {grant}", row.reason);
        }
    }
    Ok(())
}

fn report(judgement: &Judgement, facts: &Facts, options: &Options, took: Duration) -> anyhow::Result<()> {
    let environment = &options.expectations.environment;
    let families: Vec<&str> = facts.families().into_iter().collect();
    output::result(report::table(judgement, environment, &families.join(" and "), took).trim_end());
    let mut files = Vec::new();
    if let Some(path) = &options.junit {
        files.push((path, report::junit(judgement, environment)));
    }
    if let Some(path) = &options.json {
        files.push((path, format!("{:#}\n", report::json(judgement, environment, &families, took))));
    }
    for (path, text) in files {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
