//! The settings that every service has, from raw text to real types.
//! Must not know which service it is: defaults come in as values.

use std::fmt;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::database::{DatabaseArgs, DatabaseUrl};
use super::problems::Problems;
use super::setting::{Setting, checked, parse_path, parse_text, with_defaults};
use super::tls::TlsArgs;
use super::traces::Traces;
use crate::caller::Accounts;
use crate::clock::Clock;
use crate::telemetry::{LogConfig, LogFormat, LogLevel};
use crate::tls::ServerFiles;

/// The number of ports of one address.
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

/// Minimum number of bytes of a token in a file, where remote callers could try to guess it.
const TOKEN_BYTES_MIN: usize = 16;

/// A switch: true, 1 or yes; false, 0 or no.
///
/// # Errors
/// When it is another text.
pub fn parse_bool(text: &str) -> Result<bool, String> {
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
pub fn parse_on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("\"{text}\" is neither on nor off")),
    }
}

/// The source of the tokens that callers present, or that billing sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    pub(crate) origin: TokenOrigin,
    /// Bytes that each token needs; 0 for tokens that we send, which the other side judges.
    pub(crate) bytes_min: usize,
}

/// What holds the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// One token, given by the legacy variable.
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

    /// The same source, for tokens that callers of this listener present: off loopback a token in a file must not be
    /// short.
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

/// Flags and variables of every service; [`CommonArgs::resolve`] checks them.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// Address of the business port
    #[arg(long, env = "LISTEN", value_name = "ADDRESS:PORT", help_heading = "Addresses",
          value_parser = checked(parse_address))]
    listen: Setting<SocketAddr>,
    /// Address of the admin port: /livez, /readyz, /metrics, /log-level
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS:PORT", help_heading = "Addresses",
          value_parser = checked(parse_address))]
    admin_listen: Setting<SocketAddr>,
    /// Connections of one peer address once the business port has no place left: a peer with more loses its oldest first,
    /// from 1 to 65536
    #[arg(long, env = "CONNECTIONS_PER_PEER", value_name = "NUMBER", help_heading = "Addresses", default_value = "64",
          value_parser = checked(parse_per_peer))]
    connections_per_peer: Setting<usize>,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Token that billing sends and payments accepts. Prefer the file
    #[arg(long, env = "PAYMENTS_API_TOKEN", value_name = "TOKEN", help_heading = "Callers",
          value_parser = checked(parse_secret))]
    pub payments_api_token: Setting<Secret>,
    /// File with one TOKEN or TOKEN ACCOUNT per line and # comments, reloaded on change; tokens that payments accepts off
    /// loopback need 16 bytes
    #[arg(long, env = "PAYMENTS_API_TOKEN_FILE", value_name = "FILE", help_heading = "Callers",
          value_parser = checked(parse_path))]
    pub(super) payments_api_token_file: Setting<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Flags and variables of the logs of every program.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Log format: json or text [default: json; text on a terminal]
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", help_heading = "Logs", value_parser = checked(str::parse::<LogFormat>))]
    log_format: Setting<LogFormat>,
    /// Log level: off, error, warn, info, debug or trace, also per module, as info,chassis=debug
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", help_heading = "Logs", default_value = "info",
          value_parser = checked(str::parse::<LogLevel>))]
    log_level: Setting<LogLevel>,
    /// Name of this workload in logs and metrics
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME", help_heading = "Logs",
          value_parser = checked(parse_text))]
    service_name: Setting<String>,
}

impl LogArgs {
    /// `None` when a mistake was recorded.
    pub fn resolve(&self, problems: &mut Problems) -> Option<LogConfig> {
        let by_terminal = || if std::io::stdout().is_terminal() { LogFormat::Text } else { LogFormat::Json };
        let format = self.log_format.optional(problems);
        let level = self.log_level.value(problems);
        let service = self.service_name.value(problems);
        Some(LogConfig { format: format?.unwrap_or_else(by_terminal), level: level?, service: service? })
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
    /// Gives a flag the default of this service: call it from `#[command(mut_args = …)]` of the service's arguments.
    #[must_use]
    pub fn declare(&self, arg: clap::Arg) -> clap::Arg {
        let defaults = [
            ("listen", self.listen),
            ("admin_listen", self.admin_listen),
            ("database_url", self.database_url),
            ("service_name", self.service),
        ];
        with_defaults(arg, &defaults)
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
    /// The clock of the database's rows and due times; logs and certificates use the machine's clock.
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
        let listen = self.listen.value(problems);
        let admin_listen = self.admin_listen.value(problems);
        let connections_per_peer = self.connections_per_peer.value(problems);
        let database_url = self.database.resolve(defaults.service, problems);
        let clock = self.database.resolve_clock(problems);
        let log = self.log.resolve(problems);
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
            let admin = self.admin_listen.name();
            problems.add(admin, "is the address of --listen; each needs a port of its own");
            return None;
        }
        Some(common)
    }

    /// `Err` when a mistake was recorded.
    fn resolve_tokens(&self, problems: &mut Problems) -> Result<Option<TokenSource>, ()> {
        let value = self.payments_api_token.optional(problems).ok_or(())?;
        let value = value.filter(|token| !token.expose().is_empty());
        let file = self.payments_api_token_file.optional(problems).ok_or(())?;
        let (setting, source) = match (value, file) {
            (Some(_), Some(_)) => {
                let other = self.payments_api_token.name();
                let what = format!("{other} is given too; give one of the two");
                problems.add(self.payments_api_token_file.name(), what);
                return Err(());
            }
            (Some(token), None) => (self.payments_api_token.name(), TokenSource::value(token)),
            (None, Some(path)) => (self.payments_api_token_file.name(), TokenSource::file(path)),
            (None, None) => return Ok(None),
        };
        problems.check(setting, crate::caller::Tokens::read(&source)).map(|_| Some(source)).ok_or(())
    }
}

/// Checks that a token file is usable now. Its tokens are those that callers of this listener present or, with `None`,
/// those that we send.
pub fn token_file(
    file: &Setting<PathBuf>,
    listener: Option<SocketAddr>,
    problems: &mut Problems,
) -> Option<TokenSource> {
    let source = file.and_then(|path| {
        let source = TokenSource::file(path);
        let source = listener.map_or(source.clone(), |listener| source.accepted_on(listener));
        crate::caller::Tokens::read(&source).map(|_| source)
    });
    source.optional(problems)?
}

/// An empty text counts as not given.
pub fn non_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn parse_secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(unquote(text)))
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no address and port, as 127.0.0.1:8000 or [::]:8000 is"))
}

fn parse_per_peer(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=CONNECTIONS_PER_PEER_MAX).contains(number));
    number
        .ok_or_else(|| format!("is {text:?}; a whole number from 1 to {CONNECTIONS_PER_PEER_MAX} is allowed"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::config::{SqliteMode, SqliteUrl};
    use crate::server::Limits;

    const DEFAULTS: CommonDefaults = CommonDefaults {
        service: "billing",
        listen: "127.0.0.1:8000",
        admin_listen: "127.0.0.1:8001",
        database_url: "sqlite:./billing.db",
    };

    #[derive(Parser)]
    #[command(name = "billing", mut_args = |arg| DEFAULTS.declare(arg))]
    struct Args {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn resolve(words: &[&str]) -> Result<Common, String> {
        let args =
            Args::try_parse_from(["billing"].iter().chain(words)).map_err(|error| error.to_string())?;
        let mut problems = Problems::new();
        let common = args.common.resolve(&DEFAULTS, &mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(common.unwrap())
    }

    #[test]
    fn nothing_set_is_the_defaults_and_empty_is_nothing() {
        let empty = [
            ["--listen", ""],
            ["--database-url", ""],
            ["--log-level", ""],
            ["--payments-api-token", ""],
            ["--payments-api-token-file", ""],
        ];
        for words in [&[][..], &empty.concat()] {
            let common = resolve(words).unwrap();
            assert_eq!(common.listen, "127.0.0.1:8000".parse().unwrap());
            assert_eq!(common.admin_listen, "127.0.0.1:8001".parse().unwrap());
            let file = SqliteUrl { path: "./billing.db".into(), mode: SqliteMode::ReadWriteCreate };
            assert_eq!(common.database_url, DatabaseUrl::Sqlite(file));
            assert_eq!(
                (common.log.level.to_string().as_str(), common.log.service.as_str()),
                ("info", "billing")
            );
            assert_eq!(
                (common.tokens, common.connections_per_peer),
                (None, Limits::default().connections_per_peer)
            );
        }
    }

    #[test]
    fn every_bad_value_is_named_with_its_flag_and_its_variable() {
        let words = [
            ["--listen", "8000"],
            ["--admin-listen", "localhost"],
            ["--database-url", "mysql://x"],
            ["--log-format", "xml"],
            ["--log-level", "loud"],
            ["--payments-api-token-file", "/nowhere/tokens"],
        ];
        let message = resolve(&words.concat()).unwrap_err();
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
        let message = resolve(&["--admin-listen", "127.0.0.1:8000"]).unwrap_err();
        assert!(message.contains("a port of its own"), "{message}");
    }

    #[test]
    fn two_free_ports_on_one_address_are_none() {
        assert!(resolve(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).is_ok());
    }

    #[test]
    fn a_token_and_a_token_file_together_are_a_mistake() {
        let message =
            resolve(&["--payments-api-token", "TestToken", "--payments-api-token-file", "/dev/null"]);
        assert!(message.unwrap_err().contains("give one of the two"));
    }

    #[test]
    fn quotes_that_a_compose_file_left_are_stripped_once() {
        let common = resolve(&["--payments-api-token", "\"TestToken\""]).unwrap();
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
        let common = resolve(&["--database-url", url, "--payments-api-token", "TestToken"]);
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
    }
}
