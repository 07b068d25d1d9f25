//! Reads SQLite's rows and columns, and binds the parameters of a read. Knows no table.

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql};

use crate::store::reads::Value;
use crate::store::rows::{Columns, FromRow};

impl Columns for Row<'_> {
    type Error = rusqlite::Error;

    fn integer(&self, column: usize) -> rusqlite::Result<i64> {
        self.get(column)
    }

    fn optional_integer(&self, column: usize) -> rusqlite::Result<Option<i64>> {
        self.get(column)
    }

    fn count(&self, column: usize) -> rusqlite::Result<u32> {
        self.get(column)
    }

    fn flag(&self, column: usize) -> rusqlite::Result<bool> {
        self.get(column)
    }

    fn optional_text(&self, column: usize) -> rusqlite::Result<Option<&str>> {
        Ok(self.get_ref(column)?.as_str_or_null()?)
    }

    fn corrupt(column: usize, problem: String) -> rusqlite::Error {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, problem.into())
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Integer(integer) => integer.to_sql(),
            Self::Count(count) => count.to_sql(),
            Self::Text(text) => text.to_sql(),
            Self::OptionalInteger(integer) => integer.to_sql(),
            Self::OptionalText(text) => text.to_sql(),
        }
    }
}

pub(super) fn list<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, read).optional()
}

pub(super) fn read<T: FromRow>(row: &Row<'_>) -> rusqlite::Result<T> {
    T::from_row(row)
}

/// Fails unless a conditional statement changed exactly one row.
pub(super) fn one_row(changed: usize, what: &'static str) -> rusqlite::Result<()> {
    if changed == 1 { Ok(()) } else { Err(Row::corrupt(0, format!("{what}: {changed} rows instead of one"))) }
}
