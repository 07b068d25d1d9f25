//! Database settings: a SQLite file, or PostgreSQL with its CA bundle and the size of the pool.
//! Must not know what is stored in it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::problems::Problems;
use super::setting::{Setting, checked, parse_path, parse_text};
use crate::clock::{Clock, VirtualClock};
use crate::postgres::{CONNECTIONS_LEAST, CONNECTIONS_LIMIT, CONNECTIONS_MAX, PostgresSettings};

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
    pub path: PathBuf,
    /// The `mode` parameter of the URL.
    pub mode: SqliteMode,
}

/// What may be done with a SQLite file; names and meaning are those of SQLite's URI file names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SqliteMode {
    /// `ro`: the file is only read, and must exist.
    ReadOnly,
    /// `rw`: the file must exist.
    ReadWrite,
    /// `rwc`, or no mode: a missing file is created.
    #[default]
    ReadWriteCreate,
}

impl SqliteUrl {
    /// The file for a service that writes. Checked before the file is opened, so that a mistyped path creates no empty
    /// store.
    ///
    /// # Errors
    /// When the file must exist and does not.
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
    /// The file of which a copy is a backup.
    ///
    /// # Errors
    /// For PostgreSQL, the text that says what to use instead. It names no tables: such a list would lack those of
    /// later versions.
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

/// Hides user, password and parameters: all may be secrets.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.path.display()),
            Self::Postgres(settings) => settings.fmt(f),
        }
    }
}

/// Flags and variables of the database.
#[derive(Clone, Debug, clap::Args)]
pub struct DatabaseArgs {
    /// Database: sqlite:PATH, optionally with ?mode=ro, rw or rwc, or postgres://USER:PASSWORD@HOST/NAME?sslmode=verify-full
    #[arg(long, env = "DATABASE_URL", value_name = "URL", help_heading = "Data", value_parser = checked(parse_text))]
    database_url: Setting<String>,
    /// CA bundle (PEM) for PostgreSQL's certificate. Reloaded on change [default: the system's]
    #[arg(long, env = "DATABASE_CA", value_name = "FILE", help_heading = "Data", value_parser = checked(parse_path))]
    database_ca: Setting<PathBuf>,
    /// Maximum number of PostgreSQL connections of this process, from 2 to 500 [default: 12]
    #[arg(long, env = "DATABASE_CONNECTIONS_MAX", value_name = "NUMBER", help_heading = "Data",
          value_parser = checked(parse_connections_max))]
    database_connections_max: Setting<usize>,
    /// File of the clock of a simulation, for a database that was created with one and for no other [default: off]
    #[arg(long, env = "VIRTUAL_CLOCK", value_name = "FILE", help_heading = "Data", value_parser = checked(parse_path))]
    pub virtual_clock: Setting<PathBuf>,
}

impl DatabaseArgs {
    /// Records a mistake if a command that writes is given a file that may only be read.
    pub fn check_writable(&self, url: &DatabaseUrl, problems: &mut Problems) {
        if matches!(url, DatabaseUrl::Sqlite(SqliteUrl { mode: SqliteMode::ReadOnly, .. })) {
            let what = "says mode=ro, but this command writes: say mode=rw, or leave mode out";
            problems.add(self.database_url.name(), what);
        }
    }

    /// The clock of the database's rows; `None` when a mistake was recorded.
    pub(super) fn resolve_clock(&self, problems: &mut Problems) -> Option<Clock> {
        let clock = self.virtual_clock.and_then(|path| {
            let clock = VirtualClock::open(&path).map_err(|error| format!("{}: {error}", path.display()));
            clock.map(Clock::shared)
        });
        Some(clock.optional(problems)?.unwrap_or_else(Clock::system))
    }

    /// Checks the settings and the file that they name; `None` when a mistake was recorded.
    pub(super) fn resolve(&self, service: &str, problems: &mut Problems) -> Option<DatabaseUrl> {
        let url = self.database_url.value(problems)?;
        let connections_max = self.database_connections_max.optional(problems);
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            let (ca, connections) = (&self.database_ca, &self.database_connections_max);
            for (setting, is_given) in
                [(ca.name(), ca.is_given()), (connections.name(), connections.is_given())]
            {
                if is_given {
                    problems.add(setting, "is given, but the data lies in no PostgreSQL");
                }
            }
            return self
                .database_url
                .and_then(|url| parse_sqlite_url(&url))
                .value(problems)
                .map(DatabaseUrl::Sqlite);
        }
        let connections_max = connections_max?.unwrap_or(CONNECTIONS_MAX);
        let settings = PostgresSettings::parse(&url, self.database_ca.source(), connections_max, service);
        let settings = problems.check(self.database_url.name(), settings)?;
        let mistakes = settings.tls().map(|files| files.check(&Clock::system())).unwrap_or_default();
        for mistake in &mistakes {
            problems.add(&mistake.setting, &mistake.what);
        }
        mistakes.is_empty().then(|| DatabaseUrl::Postgres(Box::new(settings)))
    }
}

fn parse_sqlite_url(url: &str) -> Result<SqliteUrl, String> {
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

fn parse_connections_max(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (CONNECTIONS_LEAST..=CONNECTIONS_LIMIT).contains(number));
    number.ok_or_else(|| format!("\"{text}\" is no number from {CONNECTIONS_LEAST} to {CONNECTIONS_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::setting::with_defaults;
    use super::*;

    #[derive(Parser)]
    #[command(mut_args = |arg| with_defaults(arg, &[("database_url", "sqlite:./billing.db")]))]
    struct Args {
        #[command(flatten)]
        database: DatabaseArgs,
    }

    fn args(url: &str, ca: &str, connections: &str) -> DatabaseArgs {
        let words =
            ["test", "--database-url", url, "--database-ca", ca, "--database-connections-max", connections];
        Args::try_parse_from(words).unwrap().database
    }

    fn resolve(url: &str, ca: &str, connections: &str) -> Result<DatabaseUrl, String> {
        let mut problems = Problems::new();
        let found = args(url, ca, connections).resolve("billing", &mut problems);
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
            args("", "", "").check_writable(&DatabaseUrl::Sqlite(url(mode)), &mut problems);
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
