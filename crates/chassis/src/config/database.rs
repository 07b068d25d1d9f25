//! The settings of the database: a SQLite file, or PostgreSQL with whom to trust and how many connections to hold.
//! Must not know what is kept in it.

use std::fmt;
use std::path::PathBuf;

use super::problems::Problems;
use super::values::{CommonDefaults, given};
use crate::clock::Clock;
use crate::postgres::{CONNECTIONS_LEAST, CONNECTIONS_LIMIT, CONNECTIONS_MAX, PostgresSettings};
use crate::tls::Source;

const URL: &str = "--database-url (DATABASE_URL)";
const CA: &str = "--database-ca (DATABASE_CA)";
const CONNECTIONS: &str = "--database-connections-max (DATABASE_CONNECTIONS_MAX)";

/// Where the data lies.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PostgresSettings>),
}

/// Without user, password or parameters: all may be secrets.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(settings) => settings.fmt(f),
        }
    }
}

/// Flags and variables of the database, as text.
#[derive(Clone, Default, clap::Args)]
pub(super) struct DatabaseArgs {
    /// Where the data lies: sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME?sslmode=verify-full
    #[arg(long, env = "DATABASE_URL", value_name = "URL", help_heading = "Data")]
    pub(super) database_url: Option<String>,
    /// Authorities in PEM that PostgreSQL is trusted by, over TLS; read again when it changes [default: this system's]
    #[arg(long, env = "DATABASE_CA", value_name = "FILE", help_heading = "Data")]
    pub(super) database_ca: Option<String>,
    /// Connections of this process to PostgreSQL, from 2 to 500 [default: 12]
    #[arg(long, env = "DATABASE_CONNECTIONS_MAX", value_name = "NUMBER", help_heading = "Data")]
    pub(super) database_connections_max: Option<String>,
}

impl DatabaseArgs {
    /// Checks the settings and the file that they name; `None` when a mistake was recorded.
    pub(super) fn resolve(&self, defaults: &CommonDefaults, problems: &mut Problems) -> Option<DatabaseUrl> {
        let url = given(&self.database_url).unwrap_or(defaults.database_url);
        let connections_max = given(&self.database_connections_max).map(connections_max).transpose();
        let connections_max = problems.take(CONNECTIONS, connections_max);
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            for (setting, value) in [(CA, &self.database_ca), (CONNECTIONS, &self.database_connections_max)] {
                if given(value).is_some() {
                    problems.add(setting, "is given, but the data lies in no PostgreSQL");
                }
            }
            return problems.take(URL, file(url)).map(DatabaseUrl::Sqlite);
        }
        let connections_max = connections_max?.unwrap_or(CONNECTIONS_MAX);
        let ca = given(&self.database_ca).map(|path| Source { setting: CA, path: path.into() });
        let settings = PostgresSettings::parse(url, ca, connections_max, defaults.service);
        let settings = problems.take(URL, settings)?;
        let mistakes = settings.tls().map(|files| files.check(&Clock::system())).unwrap_or_default();
        for mistake in &mistakes {
            problems.add(mistake.setting, &mistake.what);
        }
        mistakes.is_empty().then(|| DatabaseUrl::Postgres(Box::new(settings)))
    }
}

fn file(url: &str) -> Result<PathBuf, String> {
    let rest = url.strip_prefix("sqlite:").ok_or("is neither sqlite:PATH nor postgres://…")?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path == ":memory:" {
        return Err("sqlite: needs the path of a file".to_owned());
    }
    Ok(path.into())
}

fn connections_max(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (CONNECTIONS_LEAST..=CONNECTIONS_LIMIT).contains(number));
    number.ok_or_else(|| format!("\"{text}\" is no number from {CONNECTIONS_LEAST} to {CONNECTIONS_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: CommonDefaults = CommonDefaults {
        service: "billing",
        listen: "",
        admin_listen: "",
        database_url: "sqlite:./billing.db",
    };

    fn resolve(url: &str, ca: &str, connections: &str) -> Result<DatabaseUrl, String> {
        let text = |text: &str| Some(text.to_owned());
        let args = DatabaseArgs {
            database_url: text(url),
            database_ca: text(ca),
            database_connections_max: text(connections),
        };
        let mut problems = Problems::new();
        let found = args.resolve(&DEFAULTS, &mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(found.unwrap())
    }

    #[test]
    fn the_data_lies_in_a_file_or_in_postgres() {
        let file = |path: &str| Ok(DatabaseUrl::Sqlite(path.into()));
        assert_eq!(resolve("", "", ""), file("./billing.db"));
        assert_eq!(resolve("sqlite:/data/billing.db", "", ""), file("/data/billing.db"));
        assert_eq!(resolve("sqlite:///data/billing.db", "", ""), file("/data/billing.db"));
        let postgres = resolve("postgresql://biller:pass@host/billing", "", "20");
        assert!(matches!(postgres, Ok(DatabaseUrl::Postgres(_))), "{postgres:?}");
        for wrong in ["billing.db", "sqlite:", "sqlite::memory:", "mysql://host", "postgres://host"] {
            assert!(resolve(wrong, "", "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_of_postgres_without_it_are_mistakes() {
        assert!(resolve("", "/ca.pem", "").unwrap_err().contains("no PostgreSQL"));
        assert!(resolve("", "", "5").unwrap_err().contains("no PostgreSQL"));
    }

    #[test]
    fn a_number_of_connections_and_a_file_of_authorities_are_checked() {
        for wrong in ["1", "501", "many"] {
            assert!(resolve("postgres://u@h/d", "", wrong).unwrap_err().contains("from 2 to 500"), "{wrong}");
        }
        let message = resolve("postgres://u@h/d", "/nowhere/ca.pem", "").unwrap_err();
        assert!(message.contains("--database-ca (DATABASE_CA): /nowhere/ca.pem"), "{message}");
    }
}
