//! TLS settings of server and client: paths in, checked material out, every mistake in the files reported at the start.
//! Must not know the service or the service that it calls.

use std::path::PathBuf;

use super::problems::Problems;
use super::setting::{Setting, checked, parse_path};
use crate::caller::Accounts;
use crate::clock::Clock;
use crate::tls::{ClientFiles, ClientRules, PeerName, SanAllowList, ServerFiles};

/// Flags and variables of the business port's TLS.
#[derive(Clone, Debug, clap::Args)]
pub struct TlsArgs {
    /// Certificate chain (PEM) of the business port; enables TLS. Reloaded on change [default: off]
    #[arg(long, env = "TLS_CERT", value_name = "FILE", help_heading = "TLS", value_parser = checked(parse_path))]
    tls_cert: Setting<PathBuf>,
    /// Private key (PEM) of that certificate. Reloaded on change
    #[arg(long, env = "TLS_KEY", value_name = "FILE", help_heading = "TLS", value_parser = checked(parse_path))]
    tls_key: Setting<PathBuf>,
    /// CA bundle (PEM) for client certificates; enables mutual TLS. Reloaded on change [default: off]
    #[arg(long, env = "TLS_CLIENT_CA", value_name = "FILE", help_heading = "TLS", value_parser = checked(parse_path))]
    tls_client_ca: Setting<PathBuf>,
    /// SAN allow-list of client certificates: exact URIs or DNS names, each with an optional =ACCOUNT, separated by commas
    #[arg(long, env = "TLS_ALLOWED_CLIENTS", value_name = "NAMES", help_heading = "TLS",
          value_parser = checked(parse_allow_list))]
    tls_allowed_clients: Setting<(SanAllowList, Accounts)>,
}

impl TlsArgs {
    /// Checks the settings and the files that they name; `Err` when a mistake was recorded.
    pub(super) fn resolve(&self, problems: &mut Problems) -> Result<Option<Secured>, ()> {
        let (certificate, key) = (self.tls_cert.source(), self.tls_key.source());
        let ca = self.tls_client_ca.source();
        let allowed = self.tls_allowed_clients.optional(problems);
        let names_clients = self.tls_allowed_clients.is_given();
        let mut is_sound = allowed.is_some();
        let mut wrong = |setting: &str, what: &str| {
            problems.add(setting, what);
            is_sound = false;
        };
        if key.is_some() && certificate.is_none() {
            wrong(self.tls_cert.name(), "is missing, and --tls-key is given");
        }
        if certificate.is_some() && key.is_none() {
            wrong(self.tls_key.name(), "is missing, and --tls-cert is given");
        }
        if ca.is_some() && (certificate.is_none() && key.is_none()) {
            wrong(self.tls_cert.name(), "is missing, and --tls-client-ca is given");
        }
        if ca.is_some() && !names_clients {
            let what = "is missing, and --tls-client-ca is given: list the accepted names";
            wrong(self.tls_allowed_clients.name(), what);
        }
        if names_clients && ca.is_none() {
            wrong(self.tls_client_ca.name(), "is missing, and --tls-allowed-clients is given");
        }
        let (allowed, accounts) = allowed.flatten().unzip();
        let clients = ca.zip(allowed).map(|(ca, allowed)| ClientRules {
            ca,
            allowed,
            is_required: true,
            must_name_usage: true,
        });
        let files = certificate.zip(key).map(|(certificate, key)| ServerFiles { certificate, key, clients });
        for mistake in files.iter().flat_map(|files| files.check(&Clock::system())) {
            wrong(&mistake.setting, &mistake.what);
        }
        if is_sound { Ok(files.map(|files| (files, accounts))) } else { Err(()) }
    }
}

/// Server certificate and client rules of a port, with the accounts of the accepted names.
type Secured = (ServerFiles, Option<Accounts>);

/// The SAN allow-list and the accounts of its names.
fn parse_allow_list(text: &str) -> Result<(SanAllowList, Accounts), String> {
    let accounts = Accounts::parse(text).map_err(|error| error.to_string())?;
    let allowed = SanAllowList::list(accounts.names()).map_err(|error| error.to_string())?;
    let spelled = |name: &str| PeerName::parse(name).ok().map(|name| name.as_str().to_owned());
    Ok((allowed, accounts.spelled(spelled)))
}

/// Checks CA bundle and client certificate of a TLS client; the CA bundle is required. `None` when a mistake was recorded.
pub fn client_tls(
    ca: &Setting<PathBuf>,
    cert: &Setting<PathBuf>,
    key: &Setting<PathBuf>,
    problems: &mut Problems,
) -> Option<ClientFiles> {
    let (trusted, certificate, its_key) = (ca.source(), cert.source(), key.source());
    let mut is_sound = true;
    let mut wrong = |setting: &str, what: &str| {
        problems.add(setting, what);
        is_sound = false;
    };
    if trusted.is_none() {
        wrong(ca.name(), "is missing, and the URL begins with https: say whom to trust");
    }
    if certificate.is_some() && its_key.is_none() {
        wrong(key.name(), "is missing, and its certificate is given");
    }
    if its_key.is_some() && certificate.is_none() {
        wrong(cert.name(), "is missing, and its key is given");
    }
    let files = ClientFiles { trusted, system_too: false, identity: certificate.zip(its_key) };
    for mistake in files.check(&Clock::system()) {
        wrong(&mistake.setting, &mistake.what);
    }
    is_sound.then_some(files)
}

/// Refuses the files of a TLS client where nothing is called over TLS: `called` goes out in the clear. Whether none was given.
pub fn no_client_tls(
    files: [&Setting<PathBuf>; 3],
    called: impl std::fmt::Display,
    problems: &mut Problems,
) -> bool {
    let given: Vec<_> = files.into_iter().filter(|setting| setting.is_given()).collect();
    for setting in &given {
        problems
            .add(setting.name(), format_args!("is given, but {called} is not called over TLS; say https://"));
    }
    given.is_empty()
}
