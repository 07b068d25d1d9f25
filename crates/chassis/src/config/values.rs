//! The settings that every service has, from raw text to real types.
//! Must not know which service it is: defaults come in as values.

use std::fmt;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::database::{DatabaseArgs, DatabaseUrl};
use super::problems::Problems;
use super::tls::TlsArgs;
use super::traces::Traces;
use crate::caller::Accounts;
use crate::clock::Clock;
use crate::server::CONNECTIONS_PER_PEER;
use crate::telemetry::{LogConfig, LogFormat, LogLevel};
use crate::tls::ServerFiles;

/// As many as there are ports of one address.
const CONNECTIONS_PER_PEER_MAX: usize = 65536;

/// A secret text: no log, error or `Debug` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Strips one pair of literal quotes, which some compose files leave around a value.
#[must_use]
pub fn unquote(text: &str) -> &str {
    let stripped = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    stripped('"').or_else(|| stripped('\'')).unwrap_or(text)
}

/// Bytes of a token in a file, where callers from elsewhere could try others.
const TOKEN_BYTES_MIN: usize = 16;

/// A switch: true, 1 or yes; false, 0 or no.
///
/// # Errors
/// When it is another text.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

/// A switch, as in `--schedule off`.
///
/// # Errors
/// When it is neither `on` nor `off`.
pub fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("\"{text}\" is neither on nor off")),
    }
}

/// Where the tokens that callers present (and that billing sends) come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    pub(crate) origin: TokenOrigin,
    /// Bytes that each token needs; 0 for tokens that we send, which the other side judges.
    pub(crate) bytes_min: usize,
}

/// What holds the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// One token, given as the variable of old.
    Value(Secret),
    /// A file with one token a line, read again when it changes.
    File(PathBuf),
}

impl TokenSource {
    /// One token of any length.
    #[must_use]
    pub fn value(secret: Secret) -> Self {
        Self { origin: TokenOrigin::Value(secret), bytes_min: 0 }
    }

    /// A file of tokens of any length.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { origin: TokenOrigin::File(path.into()), bytes_min: 0 }
    }

    /// As what callers of this listener present: off loopback a token in a file must not be short.
    #[must_use]
    pub fn accepted_on(self, listener: SocketAddr) -> Self {
        let bytes_min = if is_loopback(listener) { 0 } else { TOKEN_BYTES_MIN };
        Self { bytes_min, ..self }
    }
}

/// Whether only programs of this machine reach a listener.
#[must_use]
pub fn is_loopback(listener: SocketAddr) -> bool {
    listener.ip().to_canonical().is_loopback()
}

/// The setting of the file, as mistakes name it.
pub(super) const TOKEN_FILE_SETTING: &str = "--payments-api-token-file (PAYMENTS_API_TOKEN_FILE)";

/// Flags and variables of every service, as text; [`CommonArgs::resolve`] checks them.
#[derive(Clone, Default, clap::Args)]
pub struct CommonArgs {
    /// Address of the business port
    #[arg(long, env = "LISTEN", value_name = "ADDRESS:PORT", help_heading = "Addresses")]
    pub listen: Option<String>,
    /// Address of the admin port: /livez, /readyz, /metrics, /log-level
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS:PORT", help_heading = "Addresses")]
    pub admin_listen: Option<String>,
    /// Connections of one peer address once the business port has no place left: a peer with more loses its oldest first,
    /// from 1 to 65536 [default: 64]
    #[arg(long, env = "CONNECTIONS_PER_PEER", value_name = "NUMBER", help_heading = "Addresses")]
    pub connections_per_peer: Option<String>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Log format: json or text [default: json; text on a terminal]
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", help_heading = "Logs")]
    pub log_format: Option<String>,
    /// Log level: off, error, warn, info, debug or trace, also per module, as info,chassis=debug [default: info]
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", help_heading = "Logs")]
    pub log_level: Option<String>,
    /// Name of this workload in logs and metrics
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME", help_heading = "Logs")]
    pub service_name: Option<String>,
    /// Token that billing sends and payments accepts. Prefer the file
    #[arg(long, env = "PAYMENTS_API_TOKEN", value_name = "TOKEN", help_heading = "Callers")]
    pub payments_api_token: Option<String>,
    /// File with one TOKEN or TOKEN ACCOUNT per line and # comments, reloaded on change; tokens that payments accepts off
    /// loopback need 16 bytes
    #[arg(long, env = "PAYMENTS_API_TOKEN_FILE", value_name = "FILE", help_heading = "Callers")]
    pub payments_api_token_file: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Holds a token and perhaps a database password, so it shows nothing.
impl fmt::Debug for CommonArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonArgs").finish_non_exhaustive()
    }
}

/// Defaults of a service.
#[derive(Clone, Copy, Debug)]
pub struct CommonDefaults {
    /// Name of the service: `service.name` unless the workload overrides it.
    pub service: &'static str,
    /// Business address.
    pub listen: &'static str,
    /// Admin address.
    pub admin_listen: &'static str,
    /// Database URL.
    pub database_url: &'static str,
}

impl CommonDefaults {
    /// Writes these defaults into a command's help: call it from `#[command(mut_args = …)]` of the service's arguments.
    #[must_use]
    pub fn describe(&self, arg: clap::Arg) -> clap::Arg {
        let default = match arg.get_id().as_str() {
            "listen" => self.listen,
            "admin_listen" => self.admin_listen,
            "database_url" => self.database_url,
            "service_name" => self.service,
            _ => return arg,
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.help(format!("{help} [default: {default}]"))
    }
}

/// Checked settings of every service.
#[derive(Clone, Debug)]
pub struct Common {
    /// Business address.
    pub listen: SocketAddr,
    /// Admin address.
    pub admin_listen: SocketAddr,
    /// See [`crate::server::Limits::connections_per_peer`].
    pub connections_per_peer: usize,
    /// The database.
    pub database_url: DatabaseUrl,
    /// The clock of the database's rows, and of what is due by it; logs and certificates go by the machine's.
    pub clock: Clock,
    /// Log format, level and service name.
    pub log: LogConfig,
    /// Where traces go, if anywhere.
    pub traces: Traces,
    /// Tokens, if any are configured.
    pub tokens: Option<TokenSource>,
    /// Server certificate and client rules of the business port, if TLS is on.
    pub tls: Option<ServerFiles>,
    /// The accounts of the SAN allow-list.
    pub certificates: Option<Accounts>,
}

impl CommonArgs {
    /// Checks every setting and records each mistake; `None` when there was one.
    pub fn resolve(&self, defaults: &CommonDefaults, problems: &mut Problems) -> Option<Common> {
        let listen =
            address(problems, "--listen (LISTEN)", non_empty(&self.listen).unwrap_or(defaults.listen));
        let admin_listen = address(
            problems,
            "--admin-listen (ADMIN_LISTEN)",
            non_empty(&self.admin_listen).unwrap_or(defaults.admin_listen),
        );
        let connections_per_peer = problems.check(
            "--connections-per-peer (CONNECTIONS_PER_PEER)",
            per_peer(non_empty(&self.connections_per_peer)),
        );
        let database_url = self.database.resolve(defaults, problems);
        let clock = self.database.resolve_clock(problems);
        let log = self.resolve_log(defaults, problems);
        let tokens = self.resolve_tokens(problems);
        let tls = self.tls.resolve(problems);
        let (tls, certificates) = tls.ok()?.unzip();
        let log = log?;
        let traces = Traces::of_environment((&log.service, log.service == defaults.service));
        let common = Common {
            listen: listen?,
            admin_listen: admin_listen?,
            connections_per_peer: connections_per_peer?,
            database_url: database_url?,
            clock: clock?,
            log,
            traces,
            tokens: tokens.ok()?,
            tls,
            certificates: certificates.flatten(),
        };
        if common.listen == common.admin_listen && common.listen.port() != 0 {
            problems.add(
                "--admin-listen (ADMIN_LISTEN)",
                "is the address of --listen; each needs a port of its own",
            );
            return None;
        }
        Some(common)
    }

    fn resolve_log(&self, defaults: &CommonDefaults, problems: &mut Problems) -> Option<LogConfig> {
        let terminal = std::io::stdout().is_terminal();
        let format = match non_empty(&self.log_format) {
            Some(text) => problems.check("--log-format (LOG_FORMAT)", text.parse()),
            None => Some(if terminal { LogFormat::Text } else { LogFormat::Json }),
        };
        let level = non_empty(&self.log_level).unwrap_or("info");
        let level = problems.check("--log-level (LOG_LEVEL)", level.parse::<LogLevel>());
        let service = non_empty(&self.service_name).unwrap_or(defaults.service).to_owned();
        Some(LogConfig { format: format?, level: level?, service })
    }

    /// `Err` when a mistake was recorded.
    fn resolve_tokens(&self, problems: &mut Problems) -> Result<Option<TokenSource>, ()> {
        let value = non_empty(&self.payments_api_token).map(unquote).filter(|token| !token.is_empty());
        let source = match (value, non_empty(&self.payments_api_token_file)) {
            (Some(_), Some(_)) => {
                problems.add(
                    TOKEN_FILE_SETTING,
                    "--payments-api-token (PAYMENTS_API_TOKEN) is given too; give one of the two",
                );
                return Err(());
            }
            (Some(token), None) => TokenSource::value(Secret::new(token)),
            (None, Some(path)) => TokenSource::file(path),
            (None, None) => return Ok(None),
        };
        match crate::caller::Tokens::read(&source) {
            Ok(_) => Ok(Some(source)),
            Err(error) => {
                problems.add(
                    if value.is_some() {
                        "--payments-api-token (PAYMENTS_API_TOKEN)"
                    } else {
                        TOKEN_FILE_SETTING
                    },
                    error,
                );
                Err(())
            }
        }
    }
}

/// A file of tokens, which must be of use now: those that callers of this listener present, or with `None` those that we
/// send.
pub fn token_file(
    path: Option<&str>,
    setting: &str,
    listener: Option<SocketAddr>,
    problems: &mut Problems,
) -> Option<TokenSource> {
    let source = TokenSource::file(path.filter(|path| !path.is_empty())?);
    let source = listener.map_or(source.clone(), |listener| source.accepted_on(listener));
    problems.check(setting, crate::caller::Tokens::read(&source))?;
    Some(source)
}

/// An empty text counts as not given.
pub fn non_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn address(problems: &mut Problems, setting: &str, text: &str) -> Option<SocketAddr> {
    let parsed = text
        .parse()
        .map_err(|_| format!("\"{text}\" is no address and port, as 127.0.0.1:8000 or [::]:8000 is"));
    problems.check(setting, parsed)
}

fn per_peer(text: Option<&str>) -> Result<usize, String> {
    let Some(text) = text else { return Ok(CONNECTIONS_PER_PEER) };
    let number = text.parse().ok().filter(|number| (1..=CONNECTIONS_PER_PEER_MAX).contains(number));
    number
        .ok_or_else(|| format!("is {text:?}; a whole number from 1 to {CONNECTIONS_PER_PEER_MAX} is allowed"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::config::{SqliteMode, SqliteUrl};

    const DEFAULTS: CommonDefaults = CommonDefaults {
        service: "billing",
        listen: "127.0.0.1:8000",
        admin_listen: "127.0.0.1:8001",
        database_url: "sqlite:./billing.db",
    };

    #[derive(Parser)]
    #[command(name = "billing", mut_args(|arg| DEFAULTS.describe(arg)))]
    struct Args {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn resolve(change: impl FnOnce(&mut CommonArgs)) -> Result<Common, String> {
        let (mut args, mut problems) = (CommonArgs::default(), Problems::new());
        change(&mut args);
        let common = args.resolve(&DEFAULTS, &mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(common.unwrap())
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn nothing_set_is_the_defaults_and_empty_is_nothing() {
        for empty in [None, text("")] {
            let common = resolve(|args| {
                args.listen = empty.clone();
                args.database.database_url = empty.clone();
                args.log_level = empty.clone();
                args.payments_api_token = empty.clone();
                args.payments_api_token_file = empty.clone();
            });
            let common = common.unwrap();
            assert_eq!(common.listen, "127.0.0.1:8000".parse().unwrap());
            assert_eq!(common.admin_listen, "127.0.0.1:8001".parse().unwrap());
            let file = SqliteUrl { path: "./billing.db".into(), mode: SqliteMode::ReadWriteCreate };
            assert_eq!(common.database_url, DatabaseUrl::Sqlite(file));
            assert_eq!(
                (common.log.level.to_string().as_str(), common.log.service.as_str()),
                ("info", "billing")
            );
            assert_eq!(common.tokens, None);
        }
    }

    #[test]
    fn every_bad_value_is_named_with_its_flag_and_its_variable() {
        let message = resolve(|args| {
            args.listen = text("8000");
            args.admin_listen = text("localhost");
            args.database.database_url = text("mysql://x");
            args.log_format = text("xml");
            args.log_level = text("loud");
            args.payments_api_token_file = text("/nowhere/tokens");
        });
        let message = message.unwrap_err();
        assert!(message.starts_with("6 mistakes"), "{message}");
        for setting in [
            "--listen (LISTEN): \"8000\"",
            "--admin-listen (ADMIN_LISTEN)",
            "--database-url (DATABASE_URL)",
            "--log-format (LOG_FORMAT)",
            "--log-level (LOG_LEVEL): \"loud\" is none of off,",
            "--payments-api-token-file (PAYMENTS_API_TOKEN_FILE): /nowhere/tokens cannot be read",
        ] {
            assert!(message.contains(setting), "{setting} in {message}");
        }
    }

    #[test]
    fn one_address_for_both_ports_is_a_mistake() {
        let message = resolve(|args| args.admin_listen = text("127.0.0.1:8000")).unwrap_err();
        assert!(message.contains("a port of its own"), "{message}");
    }

    #[test]
    fn two_free_ports_on_one_address_are_none() {
        let common = resolve(|args| {
            args.listen = text("127.0.0.1:0");
            args.admin_listen = text("127.0.0.1:0");
        });
        assert!(common.is_ok());
    }

    #[test]
    fn a_token_and_a_token_file_together_are_a_mistake() {
        let message = resolve(|args| {
            args.payments_api_token = text("TestToken");
            args.payments_api_token_file = text("/dev/null");
        });
        assert!(message.unwrap_err().contains("give one of the two"));
    }

    #[test]
    fn quotes_that_a_compose_file_left_are_stripped_once() {
        let common = resolve(|args| args.payments_api_token = text("\"TestToken\"")).unwrap();
        assert_eq!(common.tokens, Some(TokenSource::value(Secret::new("TestToken"))));
        for (given, stripped) in
            [("'a'", "a"), ("\"'a'\"", "'a'"), ("\"a", "\"a"), ("\"", "\""), ("\"\"", "")]
        {
            assert_eq!(unquote(given), stripped, "{given}");
        }
    }

    #[test]
    fn no_debug_output_shows_a_secret() {
        let url = "postgres://biller:pa%40ss@db:5432/billing?password=other";
        let common = resolve(|args| {
            args.database.database_url = text(url);
            args.payments_api_token = text("TestToken");
        });
        let shown = format!("{:?}", common.unwrap());
        assert!(shown.contains("postgres://db:5432/billing"), "{shown}");
        for secret in ["pa%40ss", "pa@ss", "biller", "other", "TestToken"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }

    #[test]
    fn help_groups_the_settings_and_shows_the_defaults_of_the_service() {
        let help = Args::command().term_width(200).render_long_help().to_string();
        for part in ["Addresses:", "Data:", "Logs:", "Callers:", "[env: LISTEN", "[default: 127.0.0.1:8000]"]
        {
            assert!(help.contains(part), "{part} in {help}");
        }
        assert!(Args::try_parse_from(["billing", "--listen", "x"]).unwrap().common.listen.is_some());
    }
}
