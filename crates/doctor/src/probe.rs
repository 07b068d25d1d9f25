//! `tinjis run probe`, the program of the doctor's pods: carries out its tasks and reports an observation for each, or
//! listens as a target. Knows no Kubernetes; evaluates nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use chassis::client::{Client, ClientConfig, parse_port};
use chassis::clock::Clock;
use chassis::config::{Problems, load};
use chassis::tls::{ClientFiles, Source, TlsConnect};
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::task::{CallFault, Observation, Outcome, ProbeAction, ProbeTask, ProviderCall};

/// Timeout of one connection, DNS query or call. Policies drop packets, so each refusal takes this long.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of attempts until the outcome is as expected, and the delay between two.
const ATTEMPTS_MAX: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Maximum characters of a response body in the evidence.
const BODY_CHARS_MAX: usize = 60;
const WRONG_TOKEN: &str = "tinjis-doctor-has-no-token";

/// Carries out --tasks and prints one JSON line for each; with --listen accepts connections instead
#[derive(Debug, clap::Parser)]
#[command(name = "tinjis run probe")]
struct Args {
    /// The tasks, as a JSON array
    #[arg(long, value_name = "JSON")]
    tasks: Option<String>,
    /// Accept and close connections on this port
    #[arg(long, value_name = "PORT")]
    listen: Option<u16>,
    /// Writable folder for self-signed certificates
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    scratch: PathBuf,
    /// Certificate and key (PEM) of the right CA, with a SAN that is not on the allow-list
    #[arg(long, value_name = "FILE", num_args = 2)]
    other_name: Vec<PathBuf>,
    /// Provider endpoint, from the workload's settings
    #[arg(long, env = "PAYMENT_PROVIDER_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// CA bundle (PEM), from the workload's settings
    #[arg(long, env = "PROVIDER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate (PEM), from the workload's settings
    #[arg(long, env = "PROVIDER_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Key of the client certificate (PEM), from the workload's settings
    #[arg(long, env = "PROVIDER_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Token, from the workload's settings
    #[arg(long, env = "PAYMENTS_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the token, from the workload's settings
    #[arg(long, env = "PAYMENTS_API_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Runs the subcommand; passes each line of its result to `print`. The parser prints errors of usage.
pub fn run(args: impl IntoIterator<Item = OsString>, print: impl Fn(&str)) -> anyhow::Result<ExitCode> {
    match load(args, |args: Args, problems| args.validated(problems)) {
        Err(code) => Ok(code),
        Ok((args, tasks)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(args.execute(tasks, print))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Args {
    fn validated(self, problems: &mut Problems) -> Option<(Self, Vec<ProbeTask>)> {
        let tasks = match (&self.tasks, self.listen) {
            (None, None) => {
                problems.add("--tasks", "or --listen is required");
                return None;
            }
            (None, Some(_)) => Vec::new(),
            (Some(tasks), _) => problems.check("--tasks", serde_json::from_str(tasks))?,
        };
        Some((self, tasks))
    }

    async fn execute(&self, tasks: Vec<ProbeTask>, print: impl Fn(&str)) -> anyhow::Result<()> {
        if let Some(port) = self.listen {
            return listen(port).await;
        }
        for observation in join_all(tasks.iter().map(|task| self.run_task(task))).await {
            print(&serde_json::to_string(&observation)?);
        }
        Ok(())
    }

    async fn run_task(&self, task: &ProbeTask) -> Observation {
        let expected = if task.expect_allowed { Outcome::Allowed } else { Outcome::Refused };
        let mut attempts = 1;
        loop {
            let (outcome, evidence) = self.try_action(&task.action).await;
            if outcome == expected || attempts == ATTEMPTS_MAX {
                let suffix = if attempts > 1 { format!(" (attempt {attempts})") } else { String::new() };
                return Observation::new(&task.id, outcome, format_args!("{evidence}{suffix}"));
            }
            attempts += 1;
            sleep(RETRY_DELAY).await;
        }
    }

    async fn try_action(&self, action: &ProbeAction) -> (Outcome, String) {
        match action {
            ProbeAction::Connect { host, port } => connect(host, *port).await,
            ProbeAction::Resolve { name } => resolve(name).await,
            ProbeAction::Call(call) => {
                self.call(call).await.unwrap_or_else(|error| (Outcome::Unknown, format!("{error:#}")))
            }
        }
    }

    /// Connects first: a blocked path proves nothing about certificates and tokens. Then sends the call.
    async fn call(&self, call: &ProviderCall) -> anyhow::Result<(Outcome, String)> {
        let endpoint: Uri = self.endpoint.as_deref().unwrap_or_default().parse()?;
        let authority = endpoint.authority().context("PAYMENT_PROVIDER_ENDPOINT is not set in this pod")?;
        let is_secure = endpoint.scheme_str() == Some("https");
        let port =
            parse_port(authority).map_err(anyhow::Error::msg)?.unwrap_or(if is_secure { 443 } else { 80 });
        let host = match &call.address {
            Some(address) => address.as_str(),
            None => authority.host(),
        };
        let (reached, evidence) = connect(host, port).await;
        if reached != Outcome::Allowed {
            return Ok((Outcome::Unknown, format!("no connection to {host}:{port}: {evidence}")));
        }
        let is_plain = !is_secure || call.fault == CallFault::PlainHttp;
        let scheme = if is_plain { "http" } else { "https" };
        let mut request = Request::get(format!("{scheme}://{host}:{port}{}", call.path));
        if let Some(token) = self.token_for(call.fault)? {
            let mut value = HeaderValue::try_from(token).context("the token")?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static("x-token"), value);
        }
        let config = ClientConfig { deadline: TIMEOUT, ..ClientConfig::default() };
        let client = match is_plain {
            true => Client::new(config),
            false => Client::with_connect(config, TlsConnect::once(self.files(call)?, Clock::system())?),
        };
        Ok(match client.send(request.body(Bytes::new())?).await {
            Ok(response) => (response_outcome(response.status(), call.fault), describe(&response)),
            // The path is open, so one side refused the other's certificate.
            Err(failure) => (Outcome::Refused, chassis::error_chain(failure.cause())),
        })
    }

    fn token_for(&self, fault: CallFault) -> anyhow::Result<Option<String>> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) if !token.is_empty() => Some(token.clone()),
            (_, Some(path)) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("token {}", path.display()))?;
                text.lines().next().map(|line| line.trim().to_owned())
            }
            _ => None,
        };
        Ok(match fault {
            CallFault::NoToken => None,
            CallFault::WrongToken => Some(WRONG_TOKEN.to_owned()),
            _ => token,
        })
    }

    fn files(&self, call: &ProviderCall) -> anyhow::Result<ClientFiles> {
        let fault = call.fault;
        let source = |setting: &str, path: &Path| Source { setting: setting.into(), path: path.to_owned() };
        let ca = self.ca.as_deref().context("PROVIDER_CA is not set in this pod")?;
        let valid = self.cert.as_deref().zip(self.key.as_deref());
        let other = match fault {
            CallFault::OtherCa | CallFault::UntrustedServerCa => Some(self.self_signed(call)?),
            _ => None,
        };
        let identity = match (fault, &other, self.other_name.as_slice()) {
            (CallFault::NoCertificate, ..) => None,
            (CallFault::OtherCa, Some((cert, key)), _) => Some((cert.as_path(), key.as_path())),
            (CallFault::OtherSan, _, [cert, key]) => Some((cert.as_path(), key.as_path())),
            (CallFault::OtherSan, ..) => {
                anyhow::bail!("no certificate with another SAN was given (--other-name)")
            }
            _ => valid,
        };
        let trusted = match (fault, &other) {
            (CallFault::UntrustedServerCa, Some((cert, _))) => cert,
            _ => ca,
        };
        Ok(ClientFiles {
            trusted: Some(source("PROVIDER_CA", trusted)),
            system_too: false,
            identity: identity
                .map(|(cert, key)| (source("PROVIDER_CERT", cert), source("PROVIDER_KEY", key))),
        })
    }

    /// A self-signed certificate with the SAN of the valid certificate: only its CA is wrong.
    fn self_signed(&self, call: &ProviderCall) -> anyhow::Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match call.name.as_deref().unwrap_or("stranger.invalid") {
            uri if uri.contains("://") => SanType::URI(uri.try_into()?),
            dns => SanType::DnsName(dns.try_into()?),
        }];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.self_signed(&key)?;
        let paths = (self.scratch.join("stranger.pem"), self.scratch.join("stranger.key"));
        // Tasks run concurrently and share the first pair.
        if !paths.1.exists() {
            std::fs::write(&paths.0, cert.pem())?;
            std::fs::write(&paths.1, key.serialize_pem())?;
        }
        Ok(paths)
    }
}

/// The start of a refusal's body, or only the length of a success, because the data does not belong in a report.
fn describe(response: &Response<Bytes>) -> String {
    let status = response.status();
    if status.is_success() {
        return format!("{} with {} bytes", status.as_u16(), response.body().len());
    }
    let excerpt: String = String::from_utf8_lossy(response.body()).chars().take(BODY_CHARS_MAX).collect();
    format!("{} {}", status.as_u16(), excerpt.trim())
}

/// Whether a response grants access.
fn response_outcome(status: StatusCode, fault: CallFault) -> Outcome {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Refused,
        // A TLS proxy answers plain HTTP with this status.
        StatusCode::BAD_REQUEST if fault == CallFault::PlainHttp => Outcome::Refused,
        status if status.is_success() => Outcome::Allowed,
        _ => Outcome::Unknown,
    }
}

async fn connect(host: &str, port: u16) -> (Outcome, String) {
    match timeout(TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            (Outcome::Allowed, format!("connected to {peer}"))
        }
        Ok(Err(error)) => (Outcome::Refused, error.to_string()),
        Err(_) => (Outcome::Refused, format!("no answer in {} s", TIMEOUT.as_secs())),
    }
}

async fn resolve(name: &str) -> (Outcome, String) {
    match timeout(TIMEOUT, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            (Outcome::Allowed, format!("{name} is {}", addresses.join(", ")))
        }
        Ok(Err(error)) => (Outcome::Refused, error.to_string()),
        Err(_) => (Outcome::Refused, format!("no answer in {} s", TIMEOUT.as_secs())),
    }
}

/// Accepts and closes connections of every address family until SIGTERM.
async fn listen(port: u16) -> anyhow::Result<()> {
    let listener = match TcpListener::bind(("::", port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await?,
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => drop(accepted?),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_allowed_with_a_listener_and_refused_without() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(connect("127.0.0.1", port).await.0, Outcome::Allowed);
        drop(listener);
        assert_eq!(connect("127.0.0.1", port).await.0, Outcome::Refused);
    }

    #[test]
    fn a_server_error_is_not_a_refusal() {
        assert_eq!(response_outcome(StatusCode::FORBIDDEN, CallFault::NoToken), Outcome::Refused);
        assert_eq!(response_outcome(StatusCode::OK, CallFault::NoToken), Outcome::Allowed);
        assert_eq!(response_outcome(StatusCode::SERVICE_UNAVAILABLE, CallFault::NoToken), Outcome::Unknown);
        assert_eq!(response_outcome(StatusCode::BAD_REQUEST, CallFault::NoToken), Outcome::Unknown);
    }
}
