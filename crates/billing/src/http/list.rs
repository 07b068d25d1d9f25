//! Whole tables as one JSON array, a page at a time, so that memory does not grow with the table.
//! Knows no route and no SQL: a list takes functions that fetch a page and write a row.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use http::header;

use super::error::log_failure;
use crate::store::{self, Store};

/// Rows of one page; a table with fewer is sent whole, with its length.
const PAGE_ROWS: usize = 500;

/// Fetches the rows after an id, in order, at most the given number.
type Fetch<T> = for<'a> fn(&'a dyn Store, i64, usize) -> BoxFuture<'a, store::Result<Vec<T>>>;

/// Describes the list of one table.
pub(super) struct List<T> {
    /// Content type of the array.
    pub(super) content_type: &'static str,
    /// Fetches one page.
    pub(super) fetch: Fetch<T>,
    /// Whether a row is part of the list.
    pub(super) is_shown: fn(&T) -> bool,
    /// The id that the next page starts after.
    pub(super) id: fn(&T) -> i64,
    /// Appends one row as JSON.
    pub(super) write: fn(&mut String, &T),
}

/// The part of a list that is not sent yet.
struct RemainingPages<T> {
    store: Arc<dyn Store>,
    list: List<T>,
    after: i64,
    /// Whether a row was written, so that the next row needs a comma.
    has_begun: bool,
}

impl<T: Send + 'static> List<T> {
    /// Sends the whole table. A failure of the first page is returned to the caller. A later failure closes the
    /// connection, so that a list cut short never looks complete.
    pub(super) async fn answer(self, store: Arc<dyn Store>) -> store::Result<Response> {
        let rows = (self.fetch)(store.as_ref(), i64::MIN, PAGE_ROWS).await?;
        let mut text = String::from("[");
        let has_begun = self.append(&mut text, &rows, false);
        let headers = [(header::CONTENT_TYPE, self.content_type)];
        let body = match rows.last() {
            Some(last) if rows.len() >= PAGE_ROWS => {
                let after = (self.id)(last);
                drop(rows);
                let rest = RemainingPages { store, list: self, after, has_begun };
                let first = stream::iter([Ok(Bytes::from(text))]);
                Body::from_stream(first.chain(stream::try_unfold(Some(rest), next_chunk)))
            }
            _ => {
                text.push(']');
                Body::from(text)
            }
        };
        Ok((headers, body).into_response())
    }

    /// Appends rows; returns whether any row is written by now.
    fn append(&self, text: &mut String, rows: &[T], mut has_begun: bool) -> bool {
        for row in rows.iter().filter(|row| (self.is_shown)(row)) {
            if has_begun {
                text.push(',');
            }
            has_begun = true;
            (self.write)(text, row);
        }
        has_begun
    }
}

async fn next_chunk<T: Send + 'static>(
    rest: Option<RemainingPages<T>>,
) -> store::Result<Option<(Bytes, Option<RemainingPages<T>>)>> {
    let Some(mut rest) = rest else { return Ok(None) };
    let fetched = (rest.list.fetch)(rest.store.as_ref(), rest.after, PAGE_ROWS).await;
    let rows = fetched.inspect_err(log_failure)?;
    let Some(last) = rows.last() else { return Ok(Some((Bytes::from_static(b"]"), None))) };
    rest.after = (rest.list.id)(last);
    let mut text = String::new();
    rest.has_begun = rest.list.append(&mut text, &rows, rest.has_begun);
    if rows.len() >= PAGE_ROWS {
        return Ok(Some((Bytes::from(text), Some(rest))));
    }
    text.push(']');
    Ok(Some((Bytes::from(text), None)))
}
