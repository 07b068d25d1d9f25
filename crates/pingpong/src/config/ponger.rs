//! The ponger's settings. Must not know how pings are answered.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use chassis::clock::Clock;
use chassis::config::{Problems, with_defaults};
use chassis::tls::{ClientRules, SanAllowList, ServerFiles};

use super::file::Settings;
use super::{Common, CommonArgs, address, port, read, source};

const CERTIFICATE: &str = "service.tlsCertificate";
const KEY: &str = "service.tlsPrivateKey";
const CLIENT_CA: &str = "service.clientCA";
const ALLOWED: &str = "service.allowedClients";
const PROTOCOL: &str = "service.protocol";

/// The ponger: answers every ping with a pong
#[derive(Debug, clap::Parser)]
#[command(name = "ponger", version, mut_args = |arg| with_defaults(arg, &[("service_name", "ponger")]))]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct PongerConfig {
    /// Settings of both programs.
    pub common: Common,
    /// Address on which pings are accepted.
    pub listen: SocketAddr,
    /// Server certificate and client rules; without them, plain HTTP.
    pub tls: Option<ServerFiles>,
    /// Whether certificates are named although the protocol is http.
    pub leaves_tls_unused: bool,
}

impl PongerConfig {
    /// Reads argv (program name first), the environment and the file.
    ///
    /// # Errors
    /// The code to exit with, after help, version or all mistakes were printed.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        let (common, service) = read(args, |args: Args| args.common, resolve)?;
        let (listen, tls, leaves_tls_unused) = service;
        Ok(Self { common, listen, tls, leaves_tls_unused })
    }
}

type Service = (SocketAddr, Option<ServerFiles>, bool);

fn resolve(settings: &mut Settings, problems: &mut Problems) -> Option<Service> {
    let configured = settings.text("service.port", problems);
    let port = match configured {
        Some(text) => problems.check("service.port", port(&text)),
        None => {
            problems.add("service.port", "is missing");
            None
        }
    };
    let ip = address(settings, "service.address", problems);
    let protocol = settings.text(PROTOCOL, problems).map(|text| text.to_ascii_lowercase());
    let certificate = source(settings, CERTIFICATE, problems);
    let key = source(settings, KEY, problems);
    let names_tls = certificate.is_some() || key.is_some();
    let wants_tls = match protocol.as_deref() {
        None => names_tls,
        Some("https") => true,
        Some("http") => false,
        Some(other) => {
            problems.add(PROTOCOL, format!("\"{other}\" is neither https nor http"));
            return None;
        }
    };
    let clients = clients(settings, problems)?;
    if !wants_tls {
        if clients.is_some() {
            problems
                .add(CLIENT_CA, "is given, but pings come over plain HTTP, which has no client certificates");
            return None;
        }
        return Some((SocketAddr::new(ip?, port?), None, names_tls));
    }
    for (setting, is_missing) in [(CERTIFICATE, certificate.is_none()), (KEY, key.is_none())] {
        if is_missing {
            problems.add(setting, "is missing, and TLS is wanted");
        }
    }
    let files = ServerFiles { certificate: certificate?, key: key?, clients };
    let mistakes = files.check(&Clock::system());
    mistakes.iter().for_each(|mistake| problems.add(&mistake.setting, &mistake.what));
    if !mistakes.is_empty() {
        return None;
    }
    Some((SocketAddr::new(ip?, port?), Some(files), false))
}

/// The SAN allow-list: with a CA and no list, every client with a certificate of that CA. `None` when a mistake was
/// recorded.
fn clients(settings: &mut Settings, problems: &mut Problems) -> Option<Option<ClientRules>> {
    let ca = source(settings, CLIENT_CA, problems);
    let names = settings.list(ALLOWED);
    let allowed = match &names {
        None => Some(SanAllowList::OfAuthority),
        Some(names) => problems.check(ALLOWED, SanAllowList::list(names.iter().map(String::as_str))),
    };
    match ca {
        Some(ca) => {
            let (is_required, must_name_usage) = (true, false);
            Some(Some(ClientRules { ca, allowed: allowed?, is_required, must_name_usage }))
        }
        None if names.is_some() => {
            problems.add(CLIENT_CA, "is missing, and service.allowedClients is given");
            None
        }
        None => Some(None),
    }
}
