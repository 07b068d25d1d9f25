//! The pinger's settings. Must not know how pings are sent.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use chassis::client::http_url;
use chassis::clock::Clock;
use chassis::config::{Problems, with_defaults};
use chassis::tls::ClientFiles;
use http::Uri;
use http::uri::Scheme;

use super::file::Settings;
use super::{Common, CommonArgs, read, source};

const URL: &str = "ponger.url";
const CERTIFICATE: &str = "ponger.clientCert";
const KEY: &str = "ponger.clientKey";

/// Maximum pause; pauses are drawn from zero to this, as in earlier versions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time limit of one ping, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Upper limit of the interval, and of the timeout.
const LONGEST: Duration = Duration::from_secs(3600);

/// The pinger: pings the ponger until it is stopped
#[derive(Debug, clap::Parser)]
#[command(name = "pinger", version, mut_args = |arg| with_defaults(arg, &[("service_name", "pinger")]))]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct PingerConfig {
    /// Settings of both programs.
    pub common: Common,
    /// The target and the interval.
    pub target: Target,
}

/// Where pings are sent, and how often.
#[derive(Clone, Debug)]
pub struct Target {
    /// URL of a ping.
    pub url: Uri,
    /// The CA bundle and the pinger's certificate, for https.
    pub tls: Option<ClientFiles>,
    /// Whether certificates are named although the URL begins with http.
    pub leaves_tls_unused: bool,
    /// Maximum pause; pauses are uniform from zero to this.
    pub interval: Duration,
    /// Time limit of one ping.
    pub timeout: Duration,
}

impl PingerConfig {
    /// Reads argv (program name first), the environment and the file.
    ///
    /// # Errors
    /// The code to exit with, after help, version or all mistakes were printed.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        let (common, target) = read(args, |args: Args| args.common, resolve)?;
        Ok(Self { common, target })
    }
}

fn resolve(settings: &mut Settings, problems: &mut Problems) -> Option<Target> {
    let url = match settings.text(URL, problems) {
        Some(text) => problems.check(URL, ping_url(&text)),
        None => {
            problems.add(URL, "is missing");
            None
        }
    };
    let trusted = source(settings, "ponger.acceptCert", problems);
    let certificate = source(settings, CERTIFICATE, problems);
    let key = source(settings, KEY, problems);
    let interval = duration(settings, "ponger.interval", INTERVAL, problems);
    let timeout = duration(settings, "ponger.timeout", TIMEOUT, problems);
    for (setting, is_missing, other) in [
        (CERTIFICATE, certificate.is_none() && key.is_some(), KEY),
        (KEY, key.is_none() && certificate.is_some(), CERTIFICATE),
    ] {
        if is_missing {
            problems.add(setting, format!("is missing, and {other} is given"));
            return None;
        }
    }
    let names_tls = trusted.is_some() || certificate.is_some();
    let files = ClientFiles { trusted, system_too: true, identity: certificate.zip(key) };
    let mistakes = files.check(&Clock::system());
    mistakes.iter().for_each(|mistake| problems.add(&mistake.setting, &mistake.what));
    if !mistakes.is_empty() {
        return None;
    }
    let url = url?;
    let is_tls = url.scheme() == Some(&Scheme::HTTPS);
    let (tls, leaves_tls_unused) = (is_tls.then_some(files), names_tls && !is_tls);
    Some(Target { url, tls, leaves_tls_unused, interval: interval?, timeout: timeout? })
}

/// `{url}/ping`, whether the URL ends in a slash or not.
fn ping_url(text: &str) -> Result<Uri, String> {
    let text = text.trim_end_matches('/');
    match http_url(text, "https://pong:8080")?.query() {
        None => format!("{text}/ping").parse().map_err(|_| format!("{text:?} is no URL")),
        Some(_) => Err("must be a plain URL, without query".to_owned()),
    }
}

/// Milliseconds, or a text such as `250ms` or `2s`.
fn duration(
    settings: &mut Settings,
    key: &'static str,
    otherwise: Duration,
    problems: &mut Problems,
) -> Option<Duration> {
    let Some(text) = settings.text(key, problems) else { return Some(otherwise) };
    let parsed = match text.parse() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) => humantime::parse_duration(&text).ok(),
    };
    let parsed = parsed.filter(|duration| *duration <= LONGEST);
    problems
        .check(key, parsed.ok_or_else(|| format!("\"{text}\" is no time up to an hour, as 1000 or 1s is")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_of_the_url_makes_no_difference() {
        for url in ["https://pong:8080", "https://pong:8080/", "https://pong:8080//"] {
            assert_eq!(ping_url(url).unwrap(), "https://pong:8080/ping");
        }
        for wrong in [
            "pong:8080",
            "https://pong:99999",
            "https://pong:0",
            "ftp://pong",
            "https://",
            "https://a@pong",
            "https://pong?a=b",
            "https://pong#a",
            "",
        ] {
            assert!(ping_url(wrong).is_err(), "{wrong}");
        }
    }
}
