//! What a transaction on subscriptions needs of a database: statements by text, and the few places in which the SQL of
//! two databases differs. Knows no table's rules.

use super::super::reads::Value;
use super::super::rows::FromRow;

/// How a database spells what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Sql {
    Sqlite,
    Postgres,
}

/// A column of records: its name, and its type in PostgreSQL.
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

    /// `$1`, a JSON array of objects, as rows of `u`.
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

    /// Behind a `SELECT` whose rows of `s` are changed by the same transaction.
    pub(in crate::store) fn lock(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "FOR UPDATE OF s",
        }
    }

    /// The same, without those that another transaction changes.
    pub(in crate::store) fn lock_free_ones(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "FOR UPDATE OF s SKIP LOCKED",
        }
    }
}

/// A transaction that takes statements by text, with parameters `$1`, `$2` and so on in the order of their first use.
pub(in crate::store) trait Statements {
    /// What the database fails with.
    type Error;

    const SQL: Sql;

    fn now_ms(&self) -> impl Future<Output = Result<i64, Self::Error>> + Send;

    fn rows<T: FromRow>(
        &self,
        sql: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Vec<T>, Self::Error>> + Send;

    /// How many rows it changed.
    fn change(
        &self,
        sql: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// PENDING invoices were inserted, which triggers may count by themselves.
    fn count_pending(&self, inserted: i64) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Rows break an invariant.
    fn corrupt(&self, problem: String) -> Self::Error;

    /// Another transaction wrote the same rows: the whole begins anew.
    fn conflict(&self) -> Self::Error;
}
