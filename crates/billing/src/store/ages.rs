//! Ages for monitoring: how long things have waited and when runs were made, read by one statement that both databases
//! understand. Knows no clock; the times are the store's.

/// Times in milliseconds since the Unix epoch; `None` where there is no such row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// The import time of the first PENDING invoice.
    pub oldest_pending_at: Option<i64>,
    /// The creation time of the oldest attempt that is IN_DOUBT.
    pub oldest_in_doubt_at: Option<i64>,
    /// The start time of the last run.
    pub run_started_at: Option<i64>,
    /// The end time of the last run that no problem kept from charging.
    pub run_succeeded_at: Option<i64>,
    /// The number of invoices that are not tried again by themselves.
    pub overdue: i64,
}

/// Invoices and runs are searched by id, which is the order of their creation, because no column of times is indexed.
/// Attempts have no such order, but few are open, and an index has them. The run of a repair has no `begun_by` and does
/// not count.
pub(super) const AGES: &str = "SELECT
    (SELECT created_at FROM invoices WHERE state = 'PENDING' AND state <> 'PAID' ORDER BY id LIMIT 1),
    (SELECT MIN(created_at) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT') AND state = 'IN_DOUBT'),
    (SELECT started_at FROM runs WHERE begun_by IS NOT NULL ORDER BY id DESC LIMIT 1),
    (SELECT finished_at FROM runs WHERE state = 'finished' AND problem IS NULL AND begun_by IS NOT NULL
        ORDER BY id DESC LIMIT 1),
    (SELECT count(*) FROM invoices WHERE dunning IS NOT NULL AND dunning <> 'waiting')";
