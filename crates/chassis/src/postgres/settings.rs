//! The database URL: fully checked, with the meaning of `sslmode` made explicit. Opens nothing but the CA bundle. Knows
//! no table and no service.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::tls::{ClientFiles, Source};

/// Default time limit for connecting to one server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a caller waits for a free connection, all tries together: legacy clients give up after 5 s.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);
/// Time limit of one statement, waiting for locks included; then the statement is cancelled and its connection
/// discarded.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time of silence after which the kernel asks whether the server is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Time after which the kernel gives up on unacknowledged bytes: after a failover the old server sends no reset.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Default number of connections of one process.
pub const CONNECTIONS_MAX: usize = 12;
/// Upper limit of the setting.
pub const CONNECTIONS_LIMIT: usize = 500;
/// The minimum: one connection for each class of pool.
pub const CONNECTIONS_LEAST: usize = 2;

/// A checked database URL.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    pub(super) config: Config,
    pub(super) tls: Option<ClientFiles>,
    pub(super) connections_max: usize,
    pub(super) acquire_timeout: Duration,
    pub(super) statement_timeout: Duration,
    pub(super) shown: String,
}

impl PostgresSettings {
    /// Reads `postgres://USER:PASSWORD@HOST/NAME?sslmode=…`. Over TLS the server's name and chain are always verified,
    /// against `ca` if given, else against this system's trusted CAs.
    ///
    /// # Errors
    /// The mistake in the URL; never shows the URL.
    pub fn parse(
        url: &str,
        ca: Option<Source>,
        connections_max: usize,
        service: &str,
    ) -> Result<Self, String> {
        let (url, mode) = without_sslmode(url);
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("cannot be read: {error} {reason}")
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host".to_owned());
        }
        if config.get_user().is_none() {
            return Err("names no user".to_owned());
        }
        if config.get_dbname().is_none() {
            return Err("names no database".to_owned());
        }
        if config.get_options().is_some() {
            return Err("has options, which a pooler between us and the server would refuse".to_owned());
        }
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let wants_tls = wants_tls(mode.as_deref(), ca.is_some())?;
        if wants_tls && is_local {
            return Err("asks for TLS on a socket of this machine".to_owned());
        }
        if !wants_tls && ca.is_some() {
            return Err("says sslmode=disable, and --database-ca (DATABASE_CA) is given".to_owned());
        }
        config.ssl_mode(if wants_tls { SslMode::Require } else { SslMode::Disable });
        fill_defaults(&mut config, service);
        let tls = wants_tls.then(|| ClientFiles { system_too: ca.is_none(), trusted: ca, identity: None });
        let shown = show(&config);
        Ok(Self {
            config,
            tls,
            connections_max,
            acquire_timeout: ACQUIRE_TIMEOUT,
            statement_timeout: STATEMENT_TIMEOUT,
            shown,
        })
    }

    /// The same settings with other limits than [`ACQUIRE_TIMEOUT`] and [`STATEMENT_TIMEOUT`].
    #[must_use]
    pub fn limited(self, acquire_timeout: Duration, statement_timeout: Duration) -> Self {
        Self { acquire_timeout, statement_timeout, ..self }
    }

    /// TLS settings, if TLS is on.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientFiles> {
        self.tls.as_ref()
    }
}

/// Host and database name only: user, password and parameters may all be secrets.
impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn show(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let named = config.get_hosts().iter().enumerate().map(|(index, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(index)),
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts: Vec<String> = named.collect();
    format!("postgres://{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

/// Parameters that libpq knows and our library does not.
fn without_sslmode(url: &str) -> (String, Option<String>) {
    let Some((place, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mode = query.split('&').find_map(|pair| pair.strip_prefix("sslmode="));
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("sslmode=")).collect();
    let question = if rest.is_empty() { "" } else { "?" };
    (format!("{place}{question}{}", rest.join("&")), mode.map(ToOwned::to_owned))
}

fn wants_tls(mode: Option<&str>, has_ca: bool) -> Result<bool, String> {
    match mode {
        None => Ok(has_ca),
        Some("disable") => Ok(false),
        Some("require" | "verify-ca" | "verify-full") => Ok(true),
        Some(other) => Err(format!(
            "says sslmode={other}, which anybody on the way could turn into none: say disable, or verify-full"
        )),
    }
}

fn fill_defaults(config: &mut Config, service: &str) {
    if config.get_application_name().is_none() {
        config.application_name(service);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED_MAX);
    }
    config.keepalives_idle(KEEPALIVE_IDLE);
    // With several hosts, the connection must be to the one that takes writes.
    if config.get_hosts().len().max(config.get_hostaddrs().len()) > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresSettings, String> {
        PostgresSettings::parse(url, None, CONNECTIONS_MAX, "billing")
    }

    fn ca() -> Option<Source> {
        Some(Source { setting: "--database-ca (DATABASE_CA)".into(), path: "/nowhere".into() })
    }

    #[test]
    fn tls_is_verified_or_not_spoken() {
        assert!(parse("postgres://u:p@h/d").unwrap().tls.is_none());
        assert!(parse("postgres://u:p@h/d?sslmode=disable").unwrap().tls.is_none());
        for mode in ["require", "verify-ca", "verify-full"] {
            let tls = parse(&format!("postgres://u:p@h/d?connect_timeout=2&sslmode={mode}")).unwrap().tls;
            assert!(tls.unwrap().system_too, "{mode}");
        }
        for mode in ["prefer", "allow", "no-verify"] {
            assert!(parse(&format!("postgres://u@h/d?sslmode={mode}")).unwrap_err().contains(mode));
        }
        let own = PostgresSettings::parse("postgres://u@h/d", ca(), 2, "x").unwrap().tls.unwrap();
        assert!(!own.system_too && own.trusted.is_some());
        assert!(PostgresSettings::parse("postgres://u@h/d?sslmode=disable", ca(), 2, "x").is_err());
    }

    #[test]
    fn what_is_missing_or_would_not_pass_a_pooler_is_named() {
        for (url, part) in [
            ("postgres://u:p@/d", "no host"),
            ("postgres://h/d", "no user"),
            ("postgres://u@h", "no database"),
            ("postgres://u@h/d?options=-csearch_path%3Dx", "pooler"),
            ("postgres://u@h/d?colour=red", "colour"),
            ("postgres://u@h:port/d", "cannot be read"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn no_output_shows_a_secret() {
        let url = "postgres://biller:pa%40ss@db:5432/billing?application_name=hidden";
        let shown = format!("{:?}", parse(url).unwrap());
        assert_eq!(shown, "postgres://db:5432/billing");
        let several = parse("postgres://u:p@a:1,b:2/d").unwrap();
        assert_eq!(format!("{several:?}"), "postgres://a:1,b:2/d");
        assert_eq!(several.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
}
