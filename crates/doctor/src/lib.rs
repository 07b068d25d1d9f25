//! The cluster isolation tester: tests by real connections and requests whether a Kubernetes environment is as closed
//! as its expectations say, and deletes everything that it creates. It knows no code of a service, only names of
//! settings; it prints nothing and writes no report file.

mod checks;
mod cleanup;
mod evaluate;
mod expectations;
mod formats;
mod init;
mod inventory;
mod kube;
mod metrics;
mod network;
mod objects;
mod pods;
pub mod probe;
mod rbac;
mod report;
mod row;
#[cfg(test)]
mod schemas;
mod session;
mod task;

use std::fmt::Arguments;

use anyhow::{Context, anyhow, bail};
use chassis::clock::Random;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use checks::{Check, plan_checks, vantage_points};
use cleanup::clean;
use evaluate::{Evaluation, evaluate};
use inventory::Inventory;
use kube::KubeClient;
use objects::compare;
use objects::snapshot::Snapshot;
use pods::PodFactory;
use session::ClusterSession;

pub use evaluate::Verdict;
pub use expectations::Expectations;
pub use formats::Format;
pub use report::Report;

/// How to run the checks.
#[derive(Debug)]
pub struct Options {
    /// The allowed access; everything else must be closed.
    pub expectations: Expectations,
    /// The container image of the probes; its entry point takes `run probe`. Unused when only reading.
    pub image: String,
    /// The kubectl command, with flags where needed.
    pub kubectl: String,
    /// Whether to test disruption budgets by evicting pods.
    pub evictions: bool,
    /// Whether to compare objects only: nothing is created, changed, deleted or impersonated.
    pub read_only: bool,
}

/// The report, and whether everything that was created has been deleted again.
#[derive(Debug)]
pub struct Examination {
    /// The checks with their verdicts.
    pub report: Report,
    /// The result of the cleanup; the error names the objects that are left.
    pub cleanup: anyhow::Result<()>,
}

/// A function that displays each step.
pub type Progress<'a> = &'a dyn Fn(Arguments<'_>);

/// Compares the objects of the cluster that kubectl (or the pod's ServiceAccount) reaches, and runs all checks in it.
pub async fn examine(mut options: Options, progress: Progress<'_>) -> anyhow::Result<Examination> {
    let started = Instant::now();
    progress(format_args!("connecting to the API server"));
    let kube = KubeClient::open(&options.kubectl).await?;
    kube.get("/version").await.context("the cluster does not answer; check KUBECONFIG")?;
    let environment = options.expectations.environment.clone();
    progress(format_args!("comparing objects with the expectations"));
    let namespaces: Vec<&str> = options.expectations.namespaces().into_iter().collect();
    let snapshot = tokio::select! {
        snapshot = Snapshot::read(&kube, &namespaces) => snapshot?,
        // The owner of the proxy ends it, which a signal's default action would skip.
        stopped = wait_for_stop_signal() => return Err(stopped.err().unwrap_or_else(|| anyhow!("stopped"))),
    };
    let compared = compare(&options.expectations, &snapshot);
    if options.read_only {
        let report = Report::new(environment, &compared, None, Vec::new(), started.elapsed());
        return Ok(Examination { report, cleanup: Ok(()) });
    }
    if !options.evictions {
        options.expectations.evictions.clear();
    }
    let (evaluation, families, cleanup) = try_checks(&kube, &options, progress).await?;
    let report = Report::new(environment, &compared, Some(&evaluation), families, started.elapsed());
    Ok(Examination { report, cleanup })
}

/// Proposes an expectations file for namespaces, from the existing objects. Reads only.
pub async fn propose(kubectl: &str, namespaces: &[String]) -> anyhow::Result<String> {
    let kube = KubeClient::open(kubectl).await?;
    kube.get("/version").await.context("the cluster does not answer; check KUBECONFIG")?;
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let snapshot = Snapshot::read(&kube, &namespaces).await?;
    init::propose(&snapshot, &namespaces).map_err(|error| anyhow!(error))
}

/// Runs the checks, and deletes everything that it created for them.
async fn try_checks(
    kube: &KubeClient,
    options: &Options,
    progress: Progress<'_>,
) -> anyhow::Result<(Evaluation, Vec<&'static str>, anyhow::Result<()>)> {
    let expectations = &options.expectations;
    let sources = expectations.sources.iter().map(|source| source.namespace.as_str());
    let namespaces: Vec<&str> = expectations.namespaces().into_iter().chain(sources).collect();
    clean(kube, &namespaces).await.context("deleting what an interrupted run left")?;
    let run = format!("{:06x}", Random::system().below(1 << 24));
    let factory = PodFactory { run: run.clone(), image: options.image.clone() };
    let session = ClusterSession { kube, factory, namespace: format!("tinjis-doctor-{run}") };
    let examined = tokio::select! {
        examined = run_checks(&session, expectations, progress) => examined,
        stopped = wait_for_stop_signal() => stopped.and_then(|()| bail!("stopped")),
    };
    let reason = if examined.is_ok() { "" } else { "run failed, " };
    progress(format_args!("{reason}deleting probe pods"));
    let cleanup = clean(kube, &namespaces).await.context("deleting probe pods");
    let (evaluation, inventory) = match (examined, &cleanup) {
        (Ok(examined), _) => examined,
        (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(left)) => return Err(anyhow!("{error:#}; {left:#}")),
    };
    Ok((evaluation, inventory.families().into_iter().collect(), cleanup))
}

/// Returns on Ctrl-C, the end of a Job, or a closed terminal: created objects must be deleted then, too.
async fn wait_for_stop_signal() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

async fn run_checks(
    session: &ClusterSession<'_>,
    expectations: &Expectations,
    progress: Progress<'_>,
) -> anyhow::Result<(Evaluation, Inventory)> {
    let mut inventory = Inventory::collect(session.kube, expectations).await?;
    progress(format_args!("starting two listener pods"));
    inventory.listeners = session.start_listeners().await?;
    session.create_source_namespaces(expectations, &inventory).await?;
    let vantage_points = vantage_points(expectations, &inventory, &session.namespace);
    let pod = session.factory.unschedulable_pod();
    let checks = plan_checks(expectations, &inventory, &vantage_points, &pod);
    progress(format_args!("{} checks from {} probe pods", checks.len(), vantage_points.len()));
    let mut observations =
        session.run_probes(expectations, &inventory, &vantage_points, &checks, progress).await;
    progress(format_args!("sending API requests as each group and ServiceAccount"));
    observations.extend(session.run_api_checks(&checks).await);
    // Evictions come last, after the probe pods are deleted: probe pods carry the labels that a disruption budget
    // counts.
    let namespaces: Vec<&str> = expectations.namespaces().into_iter().collect();
    if !expectations.evictions.is_empty() {
        progress(format_args!("evicting pods"));
        clean(session.kube, &namespaces).await?;
        observations.extend(session.run_evictions(&checks, &inventory).await);
    }
    let mut evaluation = evaluate(checks, &observations);
    name_grants(session, &mut evaluation).await?;
    Ok((evaluation, inventory))
}

/// Adds the Role and binding that grant a permission which should be refused.
async fn name_grants(session: &ClusterSession<'_>, evaluation: &mut Evaluation) -> anyhow::Result<()> {
    let red = evaluation.results.iter().filter(|result| result.verdict == Verdict::Red);
    let red: Vec<Check> = red.map(|result| result.check.clone()).collect();
    let grants = session.grants(red.iter()).await?;
    for result in &mut evaluation.results {
        if let Some(grant) = grants.get(&result.check.id) {
            result.reason = format!("{}: {grant}", result.reason);
        }
    }
    Ok(())
}
