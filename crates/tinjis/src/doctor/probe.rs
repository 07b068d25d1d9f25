//! `tinjis run probe`: what runs in the doctor's pods. Tries what it is told from where it stands, and prints a line
//! of JSON for each; or listens, to be tried. Knows no Kubernetes, and judges nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use chassis::client::{Client, ClientConfig, port};
use chassis::clock::Clock;
use chassis::config::{Problems, load};
use chassis::tls::{ClientFiles, Source, TlsConnect};
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::task::{Call, Fault, Result as Got, Seen, Task, What};
use crate::output;

/// For one try of a connection, a name or a whole call: refused packets are dropped, so this is what a refusal costs.
const TRY: Duration = Duration::from_secs(3);
/// Tries until it is as hoped, and the rest between two.
const TRIES: u32 = 3;
const REST: Duration = Duration::from_secs(1);
/// Words of an answer that are shown.
const SAID_CHARS: usize = 60;
/// Sent where a wrong token is to be refused.
const WRONG_TOKEN: &str = "tinjis-doctor-has-no-token";

const FAILED: u8 = 2;

/// Tries what --tasks says and prints a line of JSON for each; with --listen takes connections instead.
#[derive(Debug, clap::Parser)]
#[command(name = "tinjis run probe")]
struct Args {
    /// What to try, in JSON
    #[arg(long, value_name = "JSON")]
    tasks: Option<String>,
    /// Take connections on this port, say nothing, close them
    #[arg(long, value_name = "PORT")]
    listen: Option<u16>,
    /// Folder for certificates of its own
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    scratch: PathBuf,
    /// Certificate and key, PEM, by the right authority and for a name that is not let in
    #[arg(long, value_name = "FILE", num_args = 2)]
    other_name: Vec<PathBuf>,
    /// As billing is told: where its provider is
    #[arg(long, env = "PAYMENT_PROVIDER_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// As billing is told: whom to trust
    #[arg(long, env = "PROVIDER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// As billing is told: what to show
    #[arg(long, env = "PROVIDER_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// As billing is told: its key
    #[arg(long, env = "PROVIDER_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// As billing is told: the token
    #[arg(long, env = "PAYMENTS_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// As billing is told: the token's file
    #[arg(long, env = "PAYMENTS_API_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The whole subcommand, from its words on.
pub(crate) fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).map(|runtime| {
        runtime.block_on(async {
            match load(words, |args: Args, problems| args.checked(problems)) {
                Err(code) => Ok(code),
                Ok((args, tasks)) => args.act(tasks).await.map(|()| ExitCode::SUCCESS),
            }
        })
    });
    ended.and_then(|ended| ended).unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::from(FAILED)
    })
}

impl Args {
    fn checked(self, problems: &mut Problems) -> Option<(Self, Vec<Task>)> {
        let tasks = match (&self.tasks, self.listen) {
            (None, None) => {
                problems.add("--tasks", "or --listen must be given");
                return None;
            }
            (None, Some(_)) => Vec::new(),
            (Some(tasks), _) => problems.take("--tasks", serde_json::from_str(tasks))?,
        };
        Some((self, tasks))
    }

    async fn act(&self, tasks: Vec<Task>) -> anyhow::Result<()> {
        if let Some(port) = self.listen {
            return listen(port).await;
        }
        let seen = join_all(tasks.iter().map(|task| self.persist(task))).await;
        for seen in seen {
            output::result(serde_json::to_string(&seen)?);
        }
        Ok(())
    }

    async fn persist(&self, task: &Task) -> Seen {
        let wanted = if task.hope { Got::Passed } else { Got::Refused };
        let mut tries = 1;
        loop {
            let (result, evidence) = self.attempt(&task.what).await;
            if result == wanted || tries == TRIES {
                let again = if tries > 1 { format!(" (try {tries})") } else { String::new() };
                return Seen::new(&task.id, result, format_args!("{evidence}{again}"));
            }
            tries += 1;
            sleep(REST).await;
        }
    }

    async fn attempt(&self, what: &What) -> (Got, String) {
        match what {
            What::Connect { host, port } => connect(host, *port).await,
            What::Resolve { name } => resolve(name).await,
            What::Call(call) => {
                self.call(call).await.unwrap_or_else(|error| (Got::Unknown, format!("{error:#}")))
            }
        }
    }

    /// A connection first, for a path that is closed says nothing of certificates and tokens; then the call.
    async fn call(&self, call: &Call) -> anyhow::Result<(Got, String)> {
        let endpoint: Uri = self.endpoint.as_deref().unwrap_or_default().parse()?;
        let authority = endpoint.authority().context("PAYMENT_PROVIDER_ENDPOINT is not set in this pod")?;
        let is_secure = endpoint.scheme_str() == Some("https");
        let port = port(authority).map_err(anyhow::Error::msg)?.unwrap_or(if is_secure { 443 } else { 80 });
        let host = match &call.address {
            Some(address) => address.as_str(),
            None => authority.host(),
        };
        let (reached, how) = connect(host, port).await;
        if reached != Got::Passed {
            return Ok((Got::Unknown, format!("no connection to {host}:{port}: {how}")));
        }
        let is_plain = !is_secure || call.fault == Fault::Plain;
        let scheme = if is_plain { "http" } else { "https" };
        let mut request = Request::get(format!("{scheme}://{host}:{port}{}", call.path));
        if let Some(token) = self.token_for(call.fault)? {
            let mut value = HeaderValue::try_from(token).context("the token")?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static("x-token"), value);
        }
        let config = ClientConfig { deadline: TRY, ..ClientConfig::default() };
        let client = match is_plain {
            true => Client::new(config),
            false => Client::with_connect(config, TlsConnect::once(self.files(call)?, Clock::system())?),
        };
        Ok(match client.send(request.body(Bytes::new())?).await {
            Ok(answer) => (class(answer.status(), call.fault), said(&answer)),
            // It was connected before, so this is the other side's word, or our own about its certificate.
            Err(failure) => (Got::Refused, told(failure.cause())),
        })
    }

    fn token_for(&self, fault: Fault) -> anyhow::Result<Option<String>> {
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
            Fault::NoToken => None,
            Fault::WrongToken => Some(WRONG_TOKEN.to_owned()),
            _ => token,
        })
    }

    fn files(&self, call: &Call) -> anyhow::Result<ClientFiles> {
        let fault = call.fault;
        let source = |setting: &'static str, path: &Path| Source { setting, path: path.to_owned() };
        let ca = self.ca.as_deref().context("PROVIDER_CA is not set in this pod")?;
        let own = self.cert.as_deref().zip(self.key.as_deref());
        let other = match fault {
            Fault::OtherAuthority | Fault::ServerAuthority => Some(self.stranger(call)?),
            _ => None,
        };
        let identity = match (fault, &other, self.other_name.as_slice()) {
            (Fault::NoCertificate, ..) => None,
            (Fault::OtherAuthority, Some((cert, key)), _) => Some((cert.as_path(), key.as_path())),
            (Fault::OtherName, _, [cert, key]) => Some((cert.as_path(), key.as_path())),
            (Fault::OtherName, ..) => anyhow::bail!("no certificate with another name was given"),
            _ => own,
        };
        let trusted = match (fault, &other) {
            (Fault::ServerAuthority, Some((cert, _))) => cert,
            _ => ca,
        };
        Ok(ClientFiles {
            trusted: Some(source("PROVIDER_CA", trusted)),
            system_too: false,
            identity: identity
                .map(|(cert, key)| (source("PROVIDER_CERT", cert), source("PROVIDER_KEY", key))),
        })
    }

    /// A certificate that signed itself, for the very name of the right one: only its authority is wrong.
    fn stranger(&self, call: &Call) -> anyhow::Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match call.name.as_deref().unwrap_or("stranger.invalid") {
            uri if uri.contains("://") => SanType::URI(uri.try_into()?),
            dns => SanType::DnsName(dns.try_into()?),
        }];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.self_signed(&key)?;
        let paths = (self.scratch.join("stranger.pem"), self.scratch.join("stranger.key"));
        // Tasks run side by side; the first pair is everybody's.
        if !paths.1.exists() {
            std::fs::write(&paths.0, cert.pem())?;
            std::fs::write(&paths.1, key.serialize_pem())?;
        }
        Ok(paths)
    }
}

/// A refusal in its own words; what is served to us is nobody's business in a report.
fn said(answer: &Response<Bytes>) -> String {
    let status = answer.status();
    if status.is_success() {
        return format!("{} and {} bytes", status.as_u16(), answer.body().len());
    }
    let words: String = String::from_utf8_lossy(answer.body()).chars().take(SAID_CHARS).collect();
    format!("{} {}", status.as_u16(), words.trim())
}

/// An error with those beneath it that say more.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(error) = beneath {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        beneath = error.source();
    }
    text
}

/// What an answer says of permission.
fn class(status: StatusCode, fault: Fault) -> Got {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Got::Refused,
        // So a proxy with TLS says that it wants TLS.
        StatusCode::BAD_REQUEST if fault == Fault::Plain => Got::Refused,
        status if status.is_success() => Got::Passed,
        _ => Got::Unknown,
    }
}

async fn connect(host: &str, port: u16) -> (Got, String) {
    match timeout(TRY, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            (Got::Passed, format!("connected to {peer}"))
        }
        Ok(Err(error)) => (Got::Refused, error.to_string()),
        Err(_) => (Got::Refused, format!("no answer in {} s", TRY.as_secs())),
    }
}

async fn resolve(name: &str) -> (Got, String) {
    match timeout(TRY, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            (Got::Passed, format!("{name} is {}", addresses.join(", ")))
        }
        Ok(Err(error)) => (Got::Refused, error.to_string()),
        Err(_) => (Got::Refused, format!("no answer in {} s", TRY.as_secs())),
    }
}

/// Takes connections in every address family until it is killed.
async fn listen(port: u16) -> anyhow::Result<()> {
    let everywhere = match TcpListener::bind(("::", port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await?,
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            taken = everywhere.accept() => drop(taken?),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_passes_where_somebody_listens_and_is_refused_where_nobody_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(connect("127.0.0.1", port).await.0, Got::Passed);
        drop(listener);
        assert_eq!(connect("127.0.0.1", port).await.0, Got::Refused);
    }

    #[test]
    fn a_token_that_is_refused_is_no_trouble_of_the_server() {
        assert_eq!(class(StatusCode::FORBIDDEN, Fault::NoToken), Got::Refused);
        assert_eq!(class(StatusCode::OK, Fault::NoToken), Got::Passed);
        assert_eq!(class(StatusCode::SERVICE_UNAVAILABLE, Fault::NoToken), Got::Unknown);
        assert_eq!(class(StatusCode::BAD_REQUEST, Fault::NoToken), Got::Unknown);
    }
}
