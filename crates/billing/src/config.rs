//! Settings of the billing service: parses flags and variables into typed values and reports every mistake in one
//! message. Opens nothing but the files that settings name.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use ::http::Uri;
use ::http::uri::{PathAndQuery, Scheme};
use chassis::client::http_url;
use chassis::config::{
    Common, CommonArgs, CommonDefaults, Problems, Setting, TokenSource, checked, client_tls, load,
    no_client_tls, parse_path, token_file, unquote,
};
use chassis::tls::ClientFiles;
use uuid::Uuid;

use crate::demo_data::Demo;
use crate::protocol::key::DeploymentId;
use crate::protocol::transition::Idempotency;
use crate::provider::Dialect;
use crate::scheduler::ScheduleSettings;

pub mod access;
pub mod schedule;

/// Default listen addresses.
pub const DEFAULTS: CommonDefaults = CommonDefaults {
    service: "billing",
    listen: "127.0.0.1:8000",
    admin_listen: "127.0.0.1:8001",
    database_url: "sqlite:./billing.db",
};

/// Default provider endpoint.
const ENDPOINT: &str = "http://localhost:9000";
/// Default number of calls in flight.
const IN_FLIGHT_MAX: &str = "64";
/// Upper limit of the setting: each call needs a connection.
const IN_FLIGHT_LIMIT: usize = 1024;
/// Path that is appended when a URL from one of the invoice-app's variables has none.
const INVOICE_APP_PATH: &str = "/payments/pay";
/// The invoice-app's variables: one for a whole URL, one for the base URL of a ConfigMap.
const INVOICE_APP_VARIABLES: [&str; 2] = ["PAYMENT_PROVIDER_URL", "payment-provider-url"];

/// The billing service: charges every invoice exactly once
#[derive(Debug, clap::Parser)]
#[command(name = "billing", version, mut_args = |arg| DEFAULTS.declare(arg))]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Demo invoices for an empty store: none, antaeus or invoice-app
    #[arg(long, env = "DEMO", value_name = "DEMO", help_heading = "Data", default_value = "none",
          value_parser = checked(str::parse::<Demo>))]
    demo: Setting<Demo>,
    /// UUID from which the idempotency keys are derived. Set it only to rebuild a lost store [default: the store's own]
    #[arg(long, env = "DEPLOYMENT_ID", value_name = "UUID", help_heading = "Data",
          value_parser = checked(parse_deployment_id))]
    deployment_id: Setting<DeploymentId>,
    /// URL to which charges are POSTed, used unchanged. PAYMENT_PROVIDER_URL and payment-provider-url are accepted too
    /// and get /payments/pay when they have no path [default: http://localhost:9000]
    #[arg(long, env = "PAYMENT_PROVIDER_ENDPOINT", value_name = "URL", help_heading = "Provider",
          value_parser = checked(parse_endpoint_url))]
    payment_provider_endpoint: Setting<Uri>,
    /// keys: the provider executes each Idempotency-Key once and echoes it. none: no charge is ever sent twice
    #[arg(long, env = "PAYMENT_PROVIDER_IDEMPOTENCY", value_name = "NONE|KEYS", help_heading = "Provider",
          default_value = "none", value_parser = checked(parse_idempotency))]
    payment_provider_idempotency: Setting<Idempotency>,
    /// What the provider's API differs in: original is sent the currency as an empty object; of status-blind the result
    /// counts with any 2xx or 4xx status
    #[arg(long, env = "DIALECT", value_name = "DIALECT", help_heading = "Provider", default_value = "default",
          value_parser = checked(str::parse::<Dialect>))]
    dialect: Setting<Dialect>,
    /// Charges in flight at the same time, from 1 to 1024
    #[arg(long, env = "IN_FLIGHT_MAX", value_name = "NUMBER", help_heading = "Provider", default_value = IN_FLIGHT_MAX,
          value_parser = checked(parse_in_flight_max))]
    in_flight_max: Setting<NonZeroUsize>,
    /// CA bundle (PEM) for the provider's certificate, or that certificate itself. Reloaded on change
    #[arg(long, env = "PROVIDER_CA", value_name = "FILE", help_heading = "Provider",
          value_parser = checked(parse_path))]
    provider_ca: Setting<PathBuf>,
    /// Client certificate (PEM) for calls to the provider. Reloaded on change [default: none]
    #[arg(long, env = "PROVIDER_CERT", value_name = "FILE", help_heading = "Provider",
          value_parser = checked(parse_path))]
    provider_cert: Setting<PathBuf>,
    /// Private key (PEM) of the client certificate. Reloaded on change
    #[arg(long, env = "PROVIDER_KEY", value_name = "FILE", help_heading = "Provider",
          value_parser = checked(parse_path))]
    provider_key: Setting<PathBuf>,
    /// File with a signed bearer token, for example a ServiceAccount token, sent to the provider. Reloaded on
    /// change [default: none]
    #[arg(long, env = "PROVIDER_TOKEN_FILE", value_name = "FILE", help_heading = "Provider",
          value_parser = checked(parse_path))]
    provider_token_file: Setting<PathBuf>,
    #[command(flatten)]
    access: access::AccessArgs,
    #[command(flatten)]
    schedule: schedule::ScheduleArgs,
    /// Command to run [default: serve]
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Sub {
    /// Migrate the database schema, then exit
    Migrate,
    /// Check whether the running service is ready: exit code 0 or 1
    Healthcheck,
    /// Tell the payment service once that this store's deployment may charge under our account. Only for a new billing:
    /// a store that was restored or replaced makes new keys for what was charged before. Takes payments' operator token
    /// from --operator-token-file, if payments asks for one
    DeclareDeployment {
        /// Why this deployment may charge; kept by the payment service
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// Who says so; kept by the payment service
        #[arg(long, value_name = "NAME")]
        actor: String,
    },
    /// Copy a SQLite database to a new file while the service runs, and check the copy
    Backup {
        /// The file to write; must not exist
        file: PathBuf,
    },
}

/// The command that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve until the shutdown.
    Serve,
    /// Bring the schema up to date.
    Migrate,
    /// Ask the running service whether it is ready.
    Healthcheck,
    /// Tell the payment service that this deployment may charge.
    DeclareDeployment {
        /// Why the deployment may charge.
        why: String,
        /// The operator who declares it.
        actor: String,
    },
    /// Copy the database to this file.
    Backup(PathBuf),
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    pub common: Common,
    pub command: Command,
    /// Demo invoices for an empty store.
    pub demo: Demo,
    /// The deployment id that the store must have, if one is given.
    pub deployment: Option<DeploymentId>,
    /// URL to which charges are POSTed, used unchanged.
    pub endpoint: Uri,
    /// CA bundle and client certificate for a provider over TLS.
    pub provider_tls: Option<ClientFiles>,
    /// The signed token sent to the provider, if any.
    pub provider_token: Option<TokenSource>,
    /// Whether the provider supports idempotency keys.
    pub idempotency: Idempotency,
    /// How the provider's API differs from the default.
    pub dialect: Dialect,
    /// The maximum number of calls in flight.
    pub in_flight_max: NonZeroUsize,
    /// The access rules for callers.
    pub access: access::CheckedAccess,
    /// Settings of the schedule.
    pub schedule: ScheduleSettings,
}

impl Config {
    /// Reads argv (program name first) and the environment.
    ///
    /// # Errors
    /// The exit code, after help, version or all mistakes were printed.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        // clap cannot bind several variables to one flag, so the invoice-app's variables are read here.
        let variables = INVOICE_APP_VARIABLES.map(std::env::var_os);
        load(args, |args: Args, problems| args.resolve(variables, problems))
    }
}

impl Args {
    fn resolve(self, invoice_app: [Option<OsString>; 2], problems: &mut Problems) -> Option<Config> {
        let command = resolve_command(self.command.as_ref(), problems);
        let common = self.common.resolve(&DEFAULTS, problems);
        if let (Some(common), Command::Serve | Command::Migrate) = (&common, &command) {
            self.common.database.check_writable(&common.database_url, problems);
        }
        let demo = self.demo.value(problems);
        let deployment = self.deployment_id.optional(problems);
        let endpoint = resolve_endpoint(&self.payment_provider_endpoint, invoice_app, problems);
        let provider_tls = endpoint.as_ref().map(|endpoint| self.provider_tls(endpoint, problems));
        let provider_token = token_file(&self.provider_token_file, None, problems);
        let idempotency = self.payment_provider_idempotency.value(problems);
        let dialect = self.dialect.value(problems);
        let in_flight_max = self.in_flight_max.value(problems);
        let access = self.access.resolve(common.as_ref(), &command, problems);
        let schedule = self.schedule.resolve(problems);
        Some(Config {
            common: common?,
            command,
            demo: demo?,
            deployment: deployment?,
            endpoint: endpoint?,
            provider_tls: provider_tls?.ok()?,
            provider_token,
            idempotency: idempotency?,
            dialect: dialect?,
            in_flight_max: in_flight_max?,
            access: access?,
            schedule: schedule?,
        })
    }
}

fn resolve_command(said: Option<&Sub>, problems: &mut Problems) -> Command {
    match said {
        None => Command::Serve,
        Some(Sub::Migrate) => Command::Migrate,
        Some(Sub::Healthcheck) => Command::Healthcheck,
        Some(Sub::Backup { file }) => Command::Backup(file.clone()),
        Some(Sub::DeclareDeployment { why, actor }) => {
            for (flag, text) in [("--why", why), ("--actor", actor)] {
                if text.trim().is_empty() {
                    problems.add(flag, "is empty: the payment service keeps it beside the deployment");
                }
            }
            Command::DeclareDeployment { why: why.clone(), actor: actor.clone() }
        }
    }
}

/// Marks that a mistake was recorded.
struct InvalidConfig;

impl Args {
    /// TLS settings of the provider; a mistake without an https endpoint.
    fn provider_tls(
        &self,
        endpoint: &Uri,
        problems: &mut Problems,
    ) -> Result<Option<ClientFiles>, InvalidConfig> {
        let files @ [ca, cert, key] = [&self.provider_ca, &self.provider_cert, &self.provider_key];
        if endpoint.scheme() == Some(&Scheme::HTTPS) {
            return client_tls(ca, cert, key, problems).map(Some).ok_or(InvalidConfig);
        }
        if no_client_tls(files, endpoint, problems) { Ok(None) } else { Err(InvalidConfig) }
    }
}

fn parse_deployment_id(text: &str) -> Result<DeploymentId, String> {
    let uuid = Uuid::try_parse(text);
    uuid.map(DeploymentId)
        .map_err(|_| format!("\"{text}\" is no uuid, as 00000000-0000-4000-8000-000000000001 is"))
}

fn parse_idempotency(text: &str) -> Result<Idempotency, String> {
    match text {
        "none" => Ok(Idempotency::None),
        "keys" => Ok(Idempotency::Keys),
        _ => Err(format!("\"{text}\" is neither none nor keys")),
    }
}

fn parse_in_flight_max(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse::<NonZeroUsize>().ok().filter(|number| number.get() <= IN_FLIGHT_LIMIT);
    number.ok_or_else(|| format!("\"{text}\" is no whole number from 1 to {IN_FLIGHT_LIMIT}"))
}

/// The endpoint from three sources of one setting; all given sources must agree.
fn resolve_endpoint(
    whole: &Setting<Uri>,
    invoice_app: [Option<OsString>; 2],
    problems: &mut Problems,
) -> Option<Uri> {
    let mut given = Vec::new();
    if whole.is_given() {
        given.push((whole.name(), whole.value(problems)));
    }
    for (name, value) in INVOICE_APP_VARIABLES.into_iter().zip(invoice_app) {
        let Some(text) = value.filter(|value| !value.is_empty()) else { continue };
        let text = text.into_string().map_err(|_| "is not UTF-8".to_owned());
        let url = text.and_then(|text| parse_endpoint_url(&text)).map(with_invoice_app_path);
        given.push((name, problems.check(name, url)));
    }
    let mut found: Option<(&str, Uri)> = None;
    let mut is_sound = true;
    for (setting, url) in given {
        let Some(url) = url else {
            is_sound = false;
            continue;
        };
        match &found {
            Some((first, other)) if *other != url => {
                problems.add(setting, format!("differs from {first}; give one of the two"));
                is_sound = false;
            }
            Some(_) => {}
            None => found = Some((setting, url)),
        }
    }
    let url = found.map_or_else(|| Uri::from_static(ENDPOINT), |(_, url)| url);
    is_sound.then_some(url)
}

fn parse_endpoint_url(text: &str) -> Result<Uri, String> {
    http_url(unquote(text), ENDPOINT)
}

fn with_invoice_app_path(url: Uri) -> Uri {
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return url;
    }
    let mut parts = url.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(INVOICE_APP_PATH));
    Uri::from_parts(parts).expect("a URL stays one with another path")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn resolve_with(words: &[&str], url: Option<&str>, hyphens: Option<&str>) -> Result<Config, String> {
        let mut problems = Problems::new();
        let args =
            Args::try_parse_from(["billing"].iter().chain(words)).map_err(|error| error.to_string())?;
        let config = args.resolve([url, hyphens].map(|value| value.map(OsString::from)), &mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(config.unwrap())
    }

    pub(super) fn resolve(words: &[&str]) -> Result<Config, String> {
        resolve_with(words, None, None)
    }

    fn endpoint_of(flag: Option<&str>, url: Option<&str>, hyphens: Option<&str>) -> Result<String, String> {
        let words: Vec<&str> =
            flag.into_iter().flat_map(|url| ["--payment-provider-endpoint", url]).collect();
        resolve_with(&words, url, hyphens).map(|config| config.endpoint.to_string())
    }

    #[test]
    fn by_default_it_listens_on_loopback_and_charges_no_demo() {
        let config = resolve(&[]).unwrap();
        assert_eq!(config.command, Command::Serve);
        assert_eq!(config.common.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.common.admin_listen.to_string(), "127.0.0.1:8001");
        assert_eq!(config.endpoint, "http://localhost:9000");
        assert_eq!(config.idempotency, Idempotency::None);
        assert_eq!(config.demo, Demo::None);
        assert_eq!(config.in_flight_max.get(), 64);
        assert_eq!(config.deployment, None);
    }

    #[test]
    fn the_endpoint_is_used_as_it_stands() {
        for url in ["http://payments:3000/payments", "http://payments:3000/payments/", "http://a/?b=c"] {
            assert_eq!(endpoint_of(Some(url), None, None).as_deref(), Ok(url));
        }
        assert_eq!(
            endpoint_of(Some("\"http://payments:9000/\""), None, None).unwrap(),
            "http://payments:9000/"
        );
    }

    #[test]
    fn only_the_variables_of_the_invoice_app_get_its_path() {
        let pay = "http://payment-provider:8082/payments/pay";
        for base in ["http://payment-provider:8082", "http://payment-provider:8082/", pay] {
            assert_eq!(endpoint_of(None, Some(base), None).as_deref(), Ok(pay));
            assert_eq!(endpoint_of(None, None, Some(base)).as_deref(), Ok(pay));
        }
        assert_eq!(endpoint_of(None, Some("http://a/charge"), None).as_deref(), Ok("http://a/charge"));
        assert_eq!(endpoint_of(Some("http://a"), None, None).as_deref(), Ok("http://a/"));
    }

    #[test]
    fn sources_that_differ_are_a_mistake() {
        let pay = "http://provider:8082/payments/pay";
        assert_eq!(endpoint_of(Some(pay), Some(pay), Some("http://provider:8082")).as_deref(), Ok(pay));
        assert_eq!(endpoint_of(None, Some(""), Some("")).as_deref(), Ok("http://localhost:9000/"));
        for (flag, url, hyphens) in [
            (Some("http://provider:8082"), Some("http://provider:8082"), None),
            (Some("http://a"), None, Some("http://b")),
            (None, Some("http://a"), Some("http://b")),
        ] {
            let mistake = endpoint_of(flag, url, hyphens).unwrap_err();
            assert!(mistake.contains("differs from"), "{mistake}");
        }
    }

    #[test]
    fn what_is_no_plain_url_is_a_mistake() {
        let no_ports = ["http://a:0", "http://a:99999", "https://[::1]:65536/charge"];
        let no_urls = ["localhost:9000", "payments", "/payments", "http://", "ftp://a", "http:/a"];
        for url in no_urls.into_iter().chain(no_ports) {
            let mistake = endpoint_of(Some(url), None, None).unwrap_err();
            assert!(
                mistake.contains("--payment-provider-endpoint (PAYMENT_PROVIDER_ENDPOINT)"),
                "{url}: {mistake}"
            );
        }
        assert!(endpoint_of(Some("http://a/b@c"), None, None).is_ok());
        let mistake = endpoint_of(Some("http://a/#frag"), None, None).unwrap_err();
        assert!(mistake.contains("must not have a fragment"), "{mistake}");
        let mistake = endpoint_of(None, None, Some("http://user:password@a")).unwrap_err();
        assert!(mistake.contains("payment-provider-url") && !mistake.contains("password"), "{mistake}");
    }

    #[test]
    fn a_provider_over_https_needs_a_ca_bundle_and_one_over_plain_http_takes_none() {
        let https = ["--payment-provider-endpoint", "https://payments:9000"];
        let mistakes = resolve(&https).unwrap_err();
        assert!(mistakes.contains("--provider-ca (PROVIDER_CA): is missing"), "{mistakes}");
        let paths = [
            ["--provider-ca", "/nowhere/ca"],
            ["--provider-cert", "/nowhere/c"],
            ["--provider-key", "/nowhere/k"],
        ];
        let mistakes = resolve(&[&https[..], &paths.concat()].concat()).unwrap_err();
        assert!(mistakes.starts_with("3 mistakes"), "{mistakes}");
        let mistakes = resolve(&paths.concat()).unwrap_err();
        assert!(mistakes.starts_with("3 mistakes") && mistakes.contains("not called over TLS"), "{mistakes}");
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let words = [
            ["--demo", "all"],
            ["--deployment-id", "1"],
            ["--payment-provider-endpoint", "localhost"],
            ["--payment-provider-idempotency", "maybe"],
            ["--in-flight-max", "0"],
            ["--operator-token-file", "/nowhere/at-all"],
            ["--listen", "8000"],
            ["--database-url", "mysql://a"],
        ];
        let mistakes = resolve(&words.concat()).unwrap_err();
        for [setting, _] in words {
            assert!(mistakes.contains(setting), "{setting} is not in {mistakes}");
        }
        assert!(mistakes.starts_with("8 mistakes"), "{mistakes}");
    }

    #[test]
    fn what_is_said_is_taken() {
        let uuid = "00000000-0000-4000-8000-000000000001";
        let words = [
            ["--demo", "invoice-app"],
            ["--deployment-id", uuid],
            ["--payment-provider-idempotency", "keys"],
            ["--in-flight-max", "1"],
        ];
        let config = resolve(&words.concat()).unwrap();
        assert_eq!(config.demo, Demo::InvoiceApp);
        assert_eq!(config.deployment, Some(DeploymentId(Uuid::parse_str(uuid).unwrap())));
        assert_eq!(config.idempotency, Idempotency::Keys);
        assert_eq!(config.in_flight_max.get(), 1);
        assert_eq!(resolve(&["migrate"]).unwrap().command, Command::Migrate);
        assert_eq!(resolve(&["healthcheck"]).unwrap().command, Command::Healthcheck);
    }
}
