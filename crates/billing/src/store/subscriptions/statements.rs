//! The database primitives of transactions on subscriptions: statements by text, and the few places in which the SQL of
//! the two databases differs. Knows no table's rules.

use super::super::reads::Value;
use super::super::rows::FromRow;

/// The variants of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Sql {
    Sqlite,
    Postgres,
}

/// A column of JSON records: its name, and its type in PostgreSQL.
pub(in crate::store) type Column = (&'static str, &'static str);

impl Sql {
    /// The prices of `s` as a JSON array of dates and amounts.
    pub(in crate::store) fn prices(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "(SELECT json_group_array(json_array(p.from_on, p.amount_minor)) FROM prices AS p
                 WHERE p.subscription_id = s.id)"
            }
            Self::Postgres => {
                "(SELECT json_agg(json_build_array(p.from_on, p.amount_minor))::text FROM prices AS p
                 WHERE p.subscription_id = s.id)"
            }
        }
    }

    /// A table `u` from `$1`, a JSON array of objects.
    pub(in crate::store) fn records(self, columns: &[Column]) -> String {
        let list = |column: fn(&Column) -> String| columns.iter().map(column).collect::<Vec<_>>().join(", ");
        match self {
            Self::Sqlite => {
                let columns = list(|(name, _)| format!("json_extract(value, '$.{name}') AS {name}"));
                format!("(SELECT {columns} FROM json_each($1)) AS u")
            }
            Self::Postgres => {
                format!(
                    "json_to_recordset($1::json) AS u ({})",
                    list(|(name, kind)| format!("{name} {kind}"))
                )
            }
        }
    }

    /// The end of a `SELECT` whose rows of `s` the same transaction changes.
    pub(in crate::store) fn lock(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "FOR UPDATE OF s",
        }
    }

    /// Like [`Self::lock`], but skips rows that another transaction changes.
    pub(in crate::store) fn lock_free_ones(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "FOR UPDATE OF s SKIP LOCKED",
        }
    }
}

/// A transaction that executes statements by text, with parameters `$1`, `$2` and so on in the order of their first
/// use.
pub(in crate::store) trait Statements {
    /// The error of the database.
    type Error;

    const SQL: Sql;

    fn now_ms(&self) -> impl Future<Output = Result<i64, Self::Error>> + Send;

    fn rows<T: FromRow>(
        &self,
        sql: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Vec<T>, Self::Error>> + Send;

    /// Executes a statement; returns the number of changed rows.
    fn change(
        &self,
        sql: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Counts inserted PENDING invoices, unless triggers count them.
    fn count_pending(&self, inserted: i64) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The error for rows that break an invariant.
    fn corrupt(&self, problem: String) -> Self::Error;

    /// The error when another transaction wrote the same rows: the transaction starts again.
    fn conflict(&self) -> Self::Error;
}
