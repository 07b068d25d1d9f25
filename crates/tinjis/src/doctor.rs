//! `tinjis doctor` and `tinjis run probe`: prints and writes what the isolation tester reports. The exit code is 0 for
//! green, 1 for red, 2 when inconclusive or when a report could not be delivered. Knows no check.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use chassis::config::{Problems, read_regular_text};
use doctor::{Expectations, Format, Report, Verdict};

use crate::http::{Api, BaseUrl, encode_segment};
use crate::output;
use crate::progress::Progress;
use crate::reach::TlsArgs;

const KUBECTL_DEFAULT: &str = "kubectl";

/// The longest expectations file.
const EXPECTATIONS_BYTES_MAX: u64 = 1024 * 1024;

/// Media type of Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct DoctorArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Expectations file (TOML), such as deploy/envs/production/doctor.toml
    #[arg(required = true)]
    expectations: Option<PathBuf>,
    /// Image of this program for the probe pods
    #[arg(long, env = "DOCTOR_IMAGE", value_name = "IMAGE")]
    image: Option<String>,
    /// kubectl command, flags allowed; unused in a pod with a ServiceAccount [default: kubectl]
    #[arg(long, env = "KUBECTL", value_name = "PROGRAM")]
    kubectl: Option<String>,
    /// What to print: table, json, junit, sarif, openreports or prometheus
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "table")]
    format: Format,
    /// Write a JUnit report to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a JSON report to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Push the metrics of the run to the Prometheus Pushgateway at this URL, as job tinjis-doctor of the environment
    #[arg(long, env = "DOCTOR_PUSH_METRICS", value_name = "URL")]
    push_metrics: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Skip the evictions that test disruption budgets
    #[arg(long)]
    no_evictions: bool,
    /// Only read: compare the objects of the cluster with the expectations; create, change and impersonate nothing
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print an expectations file for namespaces, from the objects that are there; reads only
    Init {
        /// Namespaces of the environment
        #[arg(required = true, value_name = "NAMESPACE")]
        namespaces: Vec<String>,
        /// kubectl command, flags allowed; unused in a pod with a ServiceAccount [default: kubectl]
        #[arg(long, env = "KUBECTL", value_name = "PROGRAM")]
        kubectl: Option<String>,
    },
}

fn kubectl_or_default(kubectl: Option<String>) -> String {
    kubectl.filter(|name| !name.is_empty()).unwrap_or_else(|| KUBECTL_DEFAULT.to_owned())
}

impl DoctorArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<DoctorCommand> {
        if let Some(Action::Init { namespaces, kubectl }) = self.action {
            return Some(DoctorCommand::Init { kubectl: kubectl_or_default(kubectl), namespaces });
        }
        let expectations =
            problems.check("EXPECTATIONS", read_expectations(&self.expectations.unwrap_or_default()));
        let image = self.image.filter(|image| !image.is_empty());
        if image.is_none() && !self.read_only {
            problems
                .add("--image (DOCTOR_IMAGE)", "is required: the image of the probe pods, or --read-only");
        }
        let gateway = self.push_metrics.filter(|url| !url.is_empty());
        let gateway = gateway.map(|url| problems.check("--push-metrics", url.parse::<BaseUrl>()));
        let gateway = match gateway {
            Some(base) => {
                let base = base?;
                self.tls.check_needed([&base], problems);
                Some(self.tls.api(base, problems)?)
            }
            None => {
                self.tls.check_not_given_without("--push-metrics (DOCTOR_PUSH_METRICS)", problems);
                None
            }
        };
        let checks = doctor::Options {
            expectations: expectations?,
            image: if self.read_only { image.unwrap_or_default() } else { image? },
            kubectl: kubectl_or_default(self.kubectl),
            evictions: !self.no_evictions,
            read_only: self.read_only,
        };
        Some(DoctorCommand::Check {
            checks: Box::new(checks),
            format: self.format,
            junit: self.junit,
            json: self.json,
            gateway: gateway.map(Box::new),
        })
    }
}

#[derive(Debug)]
pub(crate) enum DoctorCommand {
    Check {
        checks: Box<doctor::Options>,
        format: Format,
        junit: Option<PathBuf>,
        json: Option<PathBuf>,
        /// Pushgateway of Prometheus.
        gateway: Option<Box<Api>>,
    },
    Init {
        kubectl: String,
        namespaces: Vec<String>,
    },
}

/// Reads an expectations file; one message holds all errors.
pub(crate) fn read_expectations(path: &Path) -> Result<Expectations, String> {
    let text = read_regular_text(path, EXPECTATIONS_BYTES_MAX)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Expectations::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) async fn command(options: DoctorCommand) -> anyhow::Result<u8> {
    let (checks, format, junit, json, gateway) = match options {
        DoctorCommand::Check { checks, format, junit, json, gateway } => {
            (checks, format, junit, json, gateway)
        }
        DoctorCommand::Init { kubectl, namespaces } => {
            let text = doctor::propose(&kubectl, &namespaces).await?;
            text.trim_end().lines().for_each(output::result);
            return Ok(0);
        }
    };
    let progress = Progress::spinner("doctor");
    let examined = doctor::examine(*checks, &|step| progress.step(step)).await;
    drop(progress);
    let examination = examined?;
    let report = &examination.report;
    report.text(format).trim_end().lines().for_each(output::result);
    let written = write_reports(report, junit.as_deref(), json.as_deref());
    let pushed = match gateway {
        Some(gateway) => push(&gateway, report).await,
        None => Ok(()),
    };
    examination.cleanup?;
    written?;
    pushed?;
    Ok(match report.verdict() {
        Verdict::Green => 0,
        Verdict::Red => 1,
        Verdict::CannotTell => crate::FAILED,
    })
}

fn write_reports(report: &Report, junit: Option<&Path>, json: Option<&Path>) -> anyhow::Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    junit.map(|path| write(path, report.text(Format::Junit))).transpose()?;
    json.map(|path| write(path, report.text(Format::Json))).transpose()?;
    Ok(())
}

/// Replaces the metrics that the previous run of this environment has pushed.
async fn push(gateway: &Api, report: &Report) -> anyhow::Result<()> {
    let path = format!("/metrics/job/tinjis-doctor/environment/{}", encode_segment(report.environment()));
    let text = report.text(Format::Prometheus);
    gateway.push(&path, METRICS, text.into()).await.context("pushing metrics")
}

/// Runs the probe program, in the doctor's pods.
pub(crate) fn probe(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    doctor::probe::run(args, |line| output::result(line)).unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::from(crate::FAILED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/envs/production/doctor.toml");

    fn options(words: &[&str]) -> Option<DoctorCommand> {
        let words = ["tinjis", "doctor"].iter().chain(words).map(OsString::from);
        match parse(words) {
            Ok(Command::Doctor(options)) => Some(*options),
            _ => None,
        }
    }

    #[test]
    fn probes_need_an_image_and_a_read_only_run_needs_none() {
        for (words, wanted) in [
            (&[FILE, "--image", "tinjis/tinjis:1"][..], Some(false)),
            (&[FILE, "--image="], None),
            (&[FILE, "--read-only"], Some(true)),
            (&["--read-only"], None),
        ] {
            let read_only = match options(words) {
                Some(DoctorCommand::Check { checks, .. }) => Some(checks.read_only),
                _ => None,
            };
            assert_eq!(read_only, wanted, "{words:?}");
        }
    }

    #[test]
    fn a_proposal_is_for_one_namespace_or_more() {
        let namespaces = |words: &[&str]| match options(words) {
            Some(DoctorCommand::Init { namespaces, .. }) => Some(namespaces),
            _ => None,
        };
        assert_eq!(namespaces(&["init", "a", "b"]), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(namespaces(&["init"]), None);
        assert_eq!(namespaces(&["init", "a", "--read-only"]), None);
    }
}
