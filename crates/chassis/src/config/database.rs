//! Database settings: a SQLite file, or PostgreSQL with its CA bundle and the size of the pool.
//! Must not know what is stored in it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::problems::Problems;
use super::values::{CommonDefaults, non_empty};
use crate::clock::{Clock, VirtualClock};
use crate::postgres::{CONNECTIONS_LEAST, CONNECTIONS_LIMIT, CONNECTIONS_MAX, PostgresSettings};
use crate::tls::Source;

const URL: &str = "--database-url (DATABASE_URL)";
const CA: &str = "--database-ca (DATABASE_CA)";
const CONNECTIONS: &str = "--database-connections-max (DATABASE_CONNECTIONS_MAX)";
const VIRTUAL_CLOCK: &str = "--virtual-clock (VIRTUAL_CLOCK)";

/// The database.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A SQLite file.
    Sqlite(SqliteUrl),
    /// A PostgreSQL database.
    Postgres(Box<PostgresSettings>),
}

/// A SQLite file, and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteUrl {
    /// Its path.
    pub path: PathBuf,
    /// As `mode` in the URL says.
    pub mode: SqliteMode,
}

/// What may be done with a SQLite file; the words and their meaning are those of SQLite's URI file names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SqliteMode {
    /// `ro`: it is only read, and must exist.
    ReadOnly,
    /// `rw`: it must exist.
    ReadWrite,
    /// `rwc`, or nothing: it is made if it is missing.
    #[default]
    ReadWriteCreate,
}

impl SqliteUrl {
    /// The file for a service that writes. Before it is opened, so that a mistyped path makes no empty store.
    ///
    /// # Errors
    /// When it must exist and does not.
    pub fn existing(&self) -> Result<&Path, String> {
        let path = self.path.display();
        match self.mode {
            SqliteMode::ReadWriteCreate => Ok(&self.path),
            _ if self.path.exists() => Ok(&self.path),
            _ => {
                Err(format!("{path} does not exist, and mode=ro and mode=rw make no file: correct the path"))
            }
        }
    }
}

impl DatabaseUrl {
    /// Records a mistake if a command that writes is given a file that may only be read.
    pub fn check_writable(&self, problems: &mut Problems) {
        if matches!(self, Self::Sqlite(SqliteUrl { mode: SqliteMode::ReadOnly, .. })) {
            problems.add(URL, "says mode=ro, but this command writes: say mode=rw, or leave mode out");
        }
    }

    /// The file of which a copy is a backup.
    ///
    /// # Errors
    /// What to use instead where it is in PostgreSQL. It names no tables: such a list lacked those of later versions.
    pub fn file_to_back_up(&self) -> Result<&Path, &'static str> {
        match self {
            Self::Sqlite(file) => Ok(&file.path),
            Self::Postgres(_) => {
                Err("the database is in PostgreSQL, which has backups of its own: point-in-time \
                recovery or pg_basebackup of the whole cluster, or pg_dump of the whole database, never of single tables; \
                see docs/how-to/backup.md. Nothing was written")
            }
        }
    }
}

/// Without user, password or parameters: all may be secrets.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.path.display()),
            Self::Postgres(settings) => settings.fmt(f),
        }
    }
}

/// Flags and variables of the database, as text.
#[derive(Clone, Default, clap::Args)]
pub(super) struct DatabaseArgs {
    /// Database: sqlite:PATH, optionally with ?mode=ro, rw or rwc, or postgres://USER:PASSWORD@HOST/NAME?sslmode=verify-full
    #[arg(long, env = "DATABASE_URL", value_name = "URL", help_heading = "Data")]
    pub(super) database_url: Option<String>,
    /// CA bundle (PEM) for PostgreSQL's certificate. Reloaded on change [default: the system's]
    #[arg(long, env = "DATABASE_CA", value_name = "FILE", help_heading = "Data")]
    pub(super) database_ca: Option<String>,
    /// Maximum number of PostgreSQL connections of this process, from 2 to 500 [default: 12]
    #[arg(long, env = "DATABASE_CONNECTIONS_MAX", value_name = "NUMBER", help_heading = "Data")]
    pub(super) database_connections_max: Option<String>,
    /// File of the clock of a simulation, for a database that was created with one and for no other [default: off]
    #[arg(long, env = "VIRTUAL_CLOCK", value_name = "FILE", help_heading = "Data")]
    pub(super) virtual_clock: Option<String>,
}

impl DatabaseArgs {
    /// The clock of the database's rows; `None` when a mistake was recorded.
    pub(super) fn resolve_clock(&self, problems: &mut Problems) -> Option<Clock> {
        let Some(path) = non_empty(&self.virtual_clock) else { return Some(Clock::system()) };
        let clock = VirtualClock::open(Path::new(path)).map_err(|error| format!("{path}: {error}"));
        problems.check(VIRTUAL_CLOCK, clock).map(Clock::shared)
    }

    /// Checks the settings and the file that they name; `None` when a mistake was recorded.
    pub(super) fn resolve(&self, defaults: &CommonDefaults, problems: &mut Problems) -> Option<DatabaseUrl> {
        let url = non_empty(&self.database_url).unwrap_or(defaults.database_url);
        let connections_max = non_empty(&self.database_connections_max).map(connections_max).transpose();
        let connections_max = problems.check(CONNECTIONS, connections_max);
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            for (setting, value) in [(CA, &self.database_ca), (CONNECTIONS, &self.database_connections_max)] {
                if non_empty(value).is_some() {
                    problems.add(setting, "is given, but the data lies in no PostgreSQL");
                }
            }
            return problems.check(URL, file(url)).map(DatabaseUrl::Sqlite);
        }
        let connections_max = connections_max?.unwrap_or(CONNECTIONS_MAX);
        let ca = non_empty(&self.database_ca).map(|path| Source { setting: CA, path: path.into() });
        let settings = PostgresSettings::parse(url, ca, connections_max, defaults.service);
        let settings = problems.check(URL, settings)?;
        let mistakes = settings.tls().map(|files| files.check(&Clock::system())).unwrap_or_default();
        for mistake in &mistakes {
            problems.add(mistake.setting, &mistake.what);
        }
        mistakes.is_empty().then(|| DatabaseUrl::Postgres(Box::new(settings)))
    }
}

fn file(url: &str) -> Result<SqliteUrl, String> {
    let rest = url.strip_prefix("sqlite:").ok_or("is neither sqlite:PATH nor postgres://…")?;
    if rest.contains('#') {
        return Err(format!("\"{url}\" has a fragment (#), which no SQLite URL has here: leave it out"));
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let mode = match query {
        None => SqliteMode::default(),
        Some("mode=ro") => SqliteMode::ReadOnly,
        Some("mode=rw") => SqliteMode::ReadWrite,
        Some("mode=rwc") => SqliteMode::ReadWriteCreate,
        Some(query) => {
            return Err(format!(
                "\"?{query}\" is not understood: mode=ro, mode=rw and mode=rwc are, one of them"
            ));
        }
    };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path == ":memory:" {
        return Err("sqlite: needs the path of a file".to_owned());
    }
    Ok(SqliteUrl { path: path.into(), mode })
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
            virtual_clock: None,
        };
        let mut problems = Problems::new();
        let found = args.resolve(&DEFAULTS, &mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(found.unwrap())
    }

    #[test]
    fn the_data_lies_in_a_file_or_in_postgres() {
        let file = |path: &str| {
            Ok(DatabaseUrl::Sqlite(SqliteUrl { path: path.into(), mode: SqliteMode::ReadWriteCreate }))
        };
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
    fn a_mode_is_understood_as_sqlite_does_and_every_other_query_or_fragment_is_a_mistake() {
        for (query, mode) in [
            ("?mode=ro", SqliteMode::ReadOnly),
            ("?mode=rw", SqliteMode::ReadWrite),
            ("?mode=rwc", SqliteMode::ReadWriteCreate),
        ] {
            let wanted = DatabaseUrl::Sqlite(SqliteUrl { path: "q.db".into(), mode });
            assert_eq!(resolve(&format!("sqlite:q.db{query}"), "", ""), Ok(wanted), "{query}");
        }
        for wrong in
            ["?", "?mode=", "?mode=memory", "?mode=rwc&cache=shared", "?cache=shared", "#", "?mode=rw#x"]
        {
            assert!(resolve(&format!("sqlite:q.db{wrong}"), "", "").is_err(), "{wrong}");
        }
        assert!(resolve("sqlite:?mode=rw", "", "").unwrap_err().contains("path of a file"));
    }

    #[test]
    fn a_file_that_must_exist_is_not_made_and_one_for_reading_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let url = |mode| SqliteUrl { path: folder.path().join("q.db"), mode };
        assert!(url(SqliteMode::ReadWriteCreate).existing().is_ok());
        for mode in [SqliteMode::ReadOnly, SqliteMode::ReadWrite] {
            assert!(url(mode).existing().unwrap_err().contains("does not exist"));
        }
        std::fs::write(folder.path().join("q.db"), "").unwrap();
        assert!(url(SqliteMode::ReadWrite).existing().is_ok());
        for (mode, mistakes) in [(SqliteMode::ReadOnly, true), (SqliteMode::ReadWrite, false)] {
            let mut problems = Problems::new();
            DatabaseUrl::Sqlite(url(mode)).check_writable(&mut problems);
            assert_eq!(problems.finish().is_err(), mistakes, "{mode:?}");
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
