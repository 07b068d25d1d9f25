//! Settings of the ping pair: a file with keys in any case, checked as a whole before anything is opened.
//! Must not know what is served; opens nothing but the files that it names.

mod file;
mod pinger;
mod ponger;
mod yaml;

pub use pinger::{PingerConfig, Target};
pub use ponger::PongerConfig;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use chassis::config::{LogArgs, Problems, Setting, checked, load, parse_path};
use chassis::service;
use chassis::telemetry::LogConfig;
use chassis::tls::Source;
use tokio::net::TcpListener;

use file::Settings;

/// Default address of probes and metrics.
const METRICS_PORT: u16 = 2112;
const METRICS_ENDPOINT: &str = "/metrics";

/// Arguments of both programs.
#[derive(Clone, Debug, clap::Args)]
struct CommonArgs {
    /// Configuration file: YAML, or JSON if its name ends in .json
    #[arg(short = 'c', long = "config", env = "CONFIG", value_name = "FILE", default_value = "config.yaml",
          value_parser = checked(parse_path))]
    config: Setting<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
    /// What to do; default: serve
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Sub {
    /// Check whether the running program is ready: exit code 0 or 1
    Healthcheck,
}

/// Settings of both programs.
#[derive(Clone, Debug)]
pub struct Common {
    /// Settings of the log.
    pub log: LogConfig,
    /// Address of probes and metrics.
    pub metrics: MetricsConfig,
    /// Unknown keys of the file; logged once.
    pub unread: Vec<String>,
    /// Whether the program only checks the running one.
    pub is_healthcheck: bool,
}

/// Address of probes and metrics.
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    pub address: SocketAddr,
    /// Path of the metrics, in addition to `/metrics`.
    pub endpoint: String,
    /// Whether the port is configured. The default port may be replaced when it is in use.
    pub is_configured: bool,
    /// Whether the file has this block. A pinger without it listens on no port.
    pub is_present: bool,
}

impl Common {
    /// Logs unknown keys.
    pub(crate) fn warn_about_unread(&self) {
        if !self.unread.is_empty() {
            tracing::warn!(keys = self.unread.join(", "), "the configuration has unknown keys");
        }
    }
}

impl MetricsConfig {
    /// Binds the port. A default port that is in use does not prevent the start.
    pub(crate) fn bind(&self) -> anyhow::Result<TcpListener> {
        let bound = service::bind(self.address);
        if self.is_configured || bound.is_ok() {
            return bound;
        }
        let listener = service::bind(SocketAddr::new(self.address.ip(), 0))?;
        let address = listener.local_addr()?;
        tracing::warn!(%address, "the default metrics port is taken, using a free one");
        Ok(listener)
    }
}

/// Reads the command line and the file that it names.
fn read<A: clap::Parser, C>(
    args: impl IntoIterator<Item = OsString>,
    common: impl FnOnce(A) -> CommonArgs,
    resolve: impl FnOnce(&mut Settings, &mut Problems) -> Option<C>,
) -> Result<(Common, C), ExitCode> {
    load(args, |args: A, problems| {
        let args = common(args);
        let log = args.log.resolve(problems);
        let file = args.config.value(problems)?;
        let mut settings = problems.check(args.config.name(), Settings::read(&file))?;
        let config = resolve(&mut settings, problems);
        let metrics = metrics(&mut settings, problems);
        let is_healthcheck = matches!(args.command, Some(Sub::Healthcheck));
        let common = Common { log: log?, metrics: metrics?, unread: settings.left(), is_healthcheck };
        Some((common, config?))
    })
}

fn metrics(settings: &mut Settings, problems: &mut Problems) -> Option<MetricsConfig> {
    let is_present = settings.has_block("metrics");
    let text = settings.text("metrics.port", problems);
    let is_configured = text.is_some();
    let port = text.map_or(Some(METRICS_PORT), |text| problems.check("metrics.port", port(&text)));
    let ip = address(settings, "metrics.address", problems);
    let endpoint = settings.text("metrics.endpoint", problems);
    let endpoint = endpoint.unwrap_or_else(|| METRICS_ENDPOINT.to_owned());
    let is_path = endpoint.starts_with('/')
        && endpoint.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c));
    if !is_path {
        problems.add("metrics.endpoint", format!("\"{endpoint}\" is no plain path, as /metrics is"));
        return None;
    }
    Some(MetricsConfig { address: SocketAddr::new(ip?, port?), endpoint, is_configured, is_present })
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no port, from 0 to 65535"))
}

/// Reads an address; the default is all addresses.
fn address(settings: &mut Settings, key: &'static str, problems: &mut Problems) -> Option<IpAddr> {
    let Some(text) = settings.text(key, problems) else { return Some(Ipv4Addr::UNSPECIFIED.into()) };
    problems.check(key, text.parse().map_err(|_| format!("\"{text}\" is no IP address")))
}

fn source(settings: &mut Settings, key: &'static str, problems: &mut Problems) -> Option<Source> {
    Some(Source { setting: key.into(), path: settings.text(key, problems)?.into() })
}
