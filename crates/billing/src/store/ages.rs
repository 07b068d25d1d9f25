//! How long things have waited and when runs were made: what monitoring asks of a store, in one statement that both
//! databases understand. Knows no clock; the moments are the store's.

/// Moments in milliseconds since the Unix epoch; `None` where there is no such row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// When the PENDING invoice that came first was imported.
    pub oldest_pending_at: Option<i64>,
    /// When the oldest attempt that is IN_DOUBT was made.
    pub oldest_in_doubt_at: Option<i64>,
    /// When the last run began.
    pub run_started_at: Option<i64>,
    /// When the last run ended that nothing kept from charging.
    pub run_succeeded_at: Option<i64>,
    /// How many invoices are not tried again by themselves.
    pub overdue: i64,
}

/// Invoices and runs by the order of ids, which is the order of coming: no column of times is indexed. Attempts have no
/// such order; the open ones, which have an index, are few. A repair's run has no `begun_by` and does not count.
pub(super) const AGES: &str = "SELECT
    (SELECT created_at FROM invoices WHERE state = 'PENDING' AND state <> 'PAID' ORDER BY id LIMIT 1),
    (SELECT MIN(created_at) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT') AND state = 'IN_DOUBT'),
    (SELECT started_at FROM runs WHERE begun_by IS NOT NULL ORDER BY id DESC LIMIT 1),
    (SELECT finished_at FROM runs WHERE state = 'finished' AND problem IS NULL AND begun_by IS NOT NULL
        ORDER BY id DESC LIMIT 1),
    (SELECT count(*) FROM invoices WHERE dunning IS NOT NULL AND dunning <> 'waiting')";
