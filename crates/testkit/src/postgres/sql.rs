//! A plain connection to PostgreSQL for direct queries: blocking, on a thread of its own, so that any test can use it.
//! Knows no table.

use std::fmt;

use tokio_postgres::{Error, NoTls, SimpleQueryMessage};

/// Queries one database; each call uses a connection of its own.
#[derive(Clone, Debug)]
pub struct DatabaseClient {
    url: String,
}

impl DatabaseClient {
    /// The database at this URL; does not connect yet.
    #[must_use]
    pub fn to(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    /// The database at this URL, after a test query.
    ///
    /// # Errors
    /// When the database does not answer, with the reason.
    pub fn try_to(url: &str) -> Result<Self, String> {
        let sql = Self::to(url);
        sql.rows("SELECT 1").map(|_| sql)
    }

    /// Runs statements, separated by semicolons.
    ///
    /// # Panics
    /// When a statement fails.
    #[track_caller]
    pub fn run(&self, statements: &str) {
        if let Err(error) = self.rows(statements) {
            panic!("{statements}: {error}");
        }
    }

    /// The single number that a query returns.
    ///
    /// # Panics
    /// When the query fails or returns no number.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, query: &str) -> i64 {
        let rows = match self.rows(query) {
            Ok(rows) => rows,
            Err(error) => panic!("{query}: {error}"),
        };
        let first = rows.first().and_then(|row| row.first()).cloned().flatten();
        match first.as_deref().map(str::parse) {
            Some(Ok(number)) => number,
            _ => panic!("{query}: gives no number, but {first:?}"),
        }
    }

    /// Every row of the result, as text.
    ///
    /// # Errors
    /// The server's error, or the transport's.
    pub fn rows(&self, statements: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let (url, statements) = (self.url.clone(), statements.to_owned());
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime can be made")
                .block_on(ask(&url, &statements))
                .map_err(|error| server_error(&error))
        });
        asked.join().unwrap_or_else(|_| Err("the asking thread died".to_owned()))
    }
}

async fn ask(url: &str, statements: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let mut rows = Vec::new();
    for message in client.simple_query(statements).await? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|column| row.get(column).map(ToOwned::to_owned)).collect());
        }
    }
    Ok(rows)
}

fn server_error(error: &Error) -> String {
    let said: Option<&dyn fmt::Display> = error.as_db_error().map(|said| said as &dyn fmt::Display);
    said.map_or_else(|| error.to_string(), ToString::to_string)
}
