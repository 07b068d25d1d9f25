//! TLS settings of server and client: paths in, checked material out, every mistake in the files reported at the start.
//! Must not know the service or the service that it calls.

use super::problems::Problems;
use crate::caller::Accounts;
use crate::clock::Clock;
use crate::tls::{ClientFiles, ClientRules, PeerName, SanAllowList, ServerFiles, Source};

const CERT: &str = "--tls-cert (TLS_CERT)";
const KEY: &str = "--tls-key (TLS_KEY)";
const CLIENT_CA: &str = "--tls-client-ca (TLS_CLIENT_CA)";
const ALLOWED: &str = "--tls-allowed-clients (TLS_ALLOWED_CLIENTS)";

/// Flags and variables of the business port's TLS, as text.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TlsArgs {
    /// Certificate chain (PEM) of the business port; enables TLS. Reloaded on change [default: off]
    #[arg(long, env = "TLS_CERT", value_name = "FILE", help_heading = "TLS")]
    tls_cert: Option<String>,
    /// Private key (PEM) of that certificate. Reloaded on change
    #[arg(long, env = "TLS_KEY", value_name = "FILE", help_heading = "TLS")]
    tls_key: Option<String>,
    /// CA bundle (PEM) for client certificates; enables mutual TLS. Reloaded on change [default: off]
    #[arg(long, env = "TLS_CLIENT_CA", value_name = "FILE", help_heading = "TLS")]
    tls_client_ca: Option<String>,
    /// SAN allow-list of client certificates: exact URIs or DNS names, each with an optional =ACCOUNT, separated by commas
    #[arg(long, env = "TLS_ALLOWED_CLIENTS", value_name = "NAMES", help_heading = "TLS")]
    tls_allowed_clients: Option<String>,
}

impl TlsArgs {
    /// Checks the settings and the files that they name; `Err` when a mistake was recorded.
    pub(super) fn resolve(&self, problems: &mut Problems) -> Result<Option<Secured>, ()> {
        let certificate = source(&self.tls_cert, CERT);
        let key = source(&self.tls_key, KEY);
        let ca = source(&self.tls_client_ca, CLIENT_CA);
        let names = self.tls_allowed_clients.as_deref().filter(|text| !text.is_empty());
        let mut is_sound = true;
        let mut wrong = |setting, what: &str| {
            problems.add(setting, what);
            is_sound = false;
        };
        if key.is_some() && certificate.is_none() {
            wrong(CERT, "is missing, and --tls-key is given");
        }
        if certificate.is_some() && key.is_none() {
            wrong(KEY, "is missing, and --tls-cert is given");
        }
        if ca.is_some() && (certificate.is_none() && key.is_none()) {
            wrong(CERT, "is missing, and --tls-client-ca is given");
        }
        if ca.is_some() && names.is_none() {
            wrong(ALLOWED, "is missing, and --tls-client-ca is given: list the accepted names");
        }
        if names.is_some() && ca.is_none() {
            wrong(CLIENT_CA, "is missing, and --tls-allowed-clients is given");
        }
        let allowed = names.map(allowed).transpose().map_err(|error| wrong(ALLOWED, &error));
        let (allowed, accounts) = allowed.ok().flatten().unzip();
        let clients = ca.zip(allowed).map(|(ca, allowed)| ClientRules {
            ca,
            allowed,
            is_required: true,
            must_name_usage: true,
        });
        let files = certificate.zip(key).map(|(certificate, key)| ServerFiles { certificate, key, clients });
        for mistake in files.iter().flat_map(|files| files.check(&Clock::system())) {
            wrong(mistake.setting, &mistake.what);
        }
        if is_sound { Ok(files.map(|files| (files, accounts))) } else { Err(()) }
    }
}

/// Server certificate and client rules of a port, with the accounts of the accepted names.
type Secured = (ServerFiles, Option<Accounts>);

/// The SAN allow-list and the accounts of its names.
fn allowed(text: &str) -> Result<(SanAllowList, Accounts), String> {
    let accounts = Accounts::parse(text).map_err(|error| error.to_string())?;
    let allowed = SanAllowList::list(accounts.names()).map_err(|error| error.to_string())?;
    let spelled = |name: &str| PeerName::parse(name).ok().map(|name| name.as_str().to_owned());
    Ok((allowed, accounts.spelled(spelled)))
}

/// Checks CA bundle and client certificate of a TLS client, each with its setting; the CA bundle is required. `None` when a
/// mistake was recorded.
pub fn client_tls(
    ca: (&'static str, &Option<String>),
    cert: (&'static str, &Option<String>),
    key: (&'static str, &Option<String>),
    problems: &mut Problems,
) -> Option<ClientFiles> {
    let trusted = source(ca.1, ca.0);
    let (certificate, its_key) = (source(cert.1, cert.0), source(key.1, key.0));
    let mut is_sound = true;
    let mut wrong = |setting, what: &str| {
        problems.add(setting, what);
        is_sound = false;
    };
    if trusted.is_none() {
        wrong(ca.0, "is missing, and the URL begins with https: say whom to trust");
    }
    if certificate.is_some() && its_key.is_none() {
        wrong(key.0, "is missing, and its certificate is given");
    }
    if its_key.is_some() && certificate.is_none() {
        wrong(cert.0, "is missing, and its key is given");
    }
    let files = ClientFiles { trusted, system_too: false, identity: certificate.zip(its_key) };
    for mistake in files.check(&Clock::system()) {
        wrong(mistake.setting, &mistake.what);
    }
    is_sound.then_some(files)
}

fn source(path: &Option<String>, setting: &'static str) -> Option<Source> {
    let path = path.as_deref().filter(|path| !path.is_empty())?;
    Some(Source { setting, path: path.into() })
}
