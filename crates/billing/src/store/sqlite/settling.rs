//! Settlements and resolutions in SQLite: reads what stands, asks `store::plan`, writes, and checks each row count.

use chassis::crash_point;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::counts::Moves;
use super::{later, rows};
use crate::invoice::{AttemptState, AttentionReason, InvoiceState, PaidBy, RunId};
use crate::protocol::key::Key;
use crate::protocol::transition::Settlement;
use crate::store::plan::{self, AttemptContext, Counted, InvoicePlan, LEASE_NEVER, Others, Plan};
use crate::store::{LedgerSeen, Resolution, Resolved, Settled};

pub(super) fn settle(
    connection: &Connection,
    run: Option<RunId>,
    settlements: &[Settlement],
    now: i64,
) -> rusqlite::Result<Vec<Settled>> {
    let mut book = Book::open(connection)?;
    let mut tally = Tally::default();
    let mut settled = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        settled.push(settle_one(&mut book, settlement, true, now, &mut tally)?);
    }
    tally.record(connection, run)?;
    crash_point!("K8");
    Ok(settled)
}

/// How far a ledger goes; never less than before.
pub(super) fn see(connection: &Connection, seen: &LedgerSeen) -> rusqlite::Result<()> {
    let sql = "INSERT INTO ledger_seen (ledger_id, seq) VALUES (?1, ?2)
         ON CONFLICT (ledger_id) DO UPDATE SET seq = max(seq, excluded.seq)";
    connection.prepare_cached(sql)?.execute(params![seen.ledger_id, seen.seq]).map(drop)
}

/// `has_same_terms`: as in [`plan::repair`]; `true` for the response to the attempt's own request.
pub(super) fn settle_one(
    book: &mut Book<'_>,
    settlement: &Settlement,
    has_same_terms: bool,
    now: i64,
    tally: &mut Tally,
) -> rusqlite::Result<Settled> {
    let Some(found) = book.find(&settlement.key)? else { return Ok(Settled::Unknown) };
    let plan = plan::repair(found.standing, settlement.outcome, has_same_terms);
    let state = plan.attempt.unwrap_or(found.standing.attempt);
    if state.is_open() && found.standing.attempt.is_open() {
        let again_at = later(now, settlement.again_in);
        keep_open(book.connection, &found, state, &plan, again_at)?;
    } else if let Some(state) = plan.attempt {
        book.close(&found, state, now)?;
    }
    if let Some(invoice) = plan.invoice {
        book.set_invoice(&found, invoice, now)?;
        tally.moves.change(found.standing.invoice, invoice.state, 1);
    }
    tally.counted.add(&plan, settlement.outcome);
    count_doubt(book.connection, &found, plan.attempt)?;
    Ok(plan.settled)
}

/// An attempt as it stands, with what is needed to write it.
struct Found {
    rowid: i64,
    invoice: i64,
    run: i64,
    standing: AttemptContext,
}

/// One job's statements, prepared once.
pub(super) struct Book<'c> {
    connection: &'c Connection,
    find: CachedStatement<'c>,
    close: CachedStatement<'c>,
    set_invoice: CachedStatement<'c>,
}

pub(super) const FIND: &str = "SELECT a.rowid, a.invoice_id, a.run_id, a.state, i.state
     FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id WHERE a.key = ?1";

const CLOSE: &str = "UPDATE attempts SET state = ?2, settled_at = ?3 WHERE rowid = ?1 AND state = ?4";

pub(super) const SET_INVOICE: &str =
    "UPDATE invoices SET state = ?2, paid_by = ?3, attention_reason = ?4, updated_at = ?5
     WHERE id = ?1 AND state = ?6";

impl<'c> Book<'c> {
    pub(super) fn open(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            find: connection.prepare_cached(FIND)?,
            close: connection.prepare_cached(CLOSE)?,
            set_invoice: connection.prepare_cached(SET_INVOICE)?,
        })
    }

    fn find(&mut self, key: &Key) -> rusqlite::Result<Option<Found>> {
        let found = self.find.query_row([key.as_str()], |row| {
            let standing = AttemptContext {
                attempt: rows::word(row, 3, |text| text.parse::<AttemptState>().ok())?,
                invoice: rows::word(row, 4, |text| text.parse::<InvoiceState>().ok())?,
                others: Others::default(),
            };
            Ok(Found { rowid: row.get(0)?, invoice: row.get(1)?, run: row.get(2)?, standing })
        });
        let Some(mut found) = found.optional()? else { return Ok(None) };
        if AttemptContext::needs_others(found.standing.attempt, found.standing.invoice) {
            found.standing.others = others(self.connection, &found)?;
        }
        Ok(Some(found))
    }

    /// From the very state that was read: open, or, for a late charge, the final one that it corrects.
    fn close(&mut self, found: &Found, state: AttemptState, now: i64) -> rusqlite::Result<()> {
        let from = found.standing.attempt.as_str();
        let changed = self.close.execute(params![found.rowid, state.as_str(), now, from])?;
        rows::one_row(changed, "an attempt that is settled stands as it was read")
    }

    fn set_invoice(&mut self, found: &Found, invoice: InvoicePlan, now: i64) -> rusqlite::Result<()> {
        let changed = self.set_invoice.execute(params![
            found.invoice,
            invoice.state.as_str(),
            invoice.paid_by.map(PaidBy::as_str),
            invoice.attention.map(AttentionReason::as_str),
            now,
            found.standing.invoice.as_str(),
        ])?;
        rows::one_row(changed, "an invoice that is settled stands as it was read")
    }
}

fn others(connection: &Connection, found: &Found) -> rusqlite::Result<Others> {
    others_of(connection, found.invoice, found.rowid)
}

/// Attempts of an invoice other than this one.
pub(super) fn others_of(connection: &Connection, invoice: i64, rowid: i64) -> rusqlite::Result<Others> {
    let open =
        "SELECT 1 FROM attempts WHERE invoice_id = ?1 AND state IN ('INTENT', 'IN_DOUBT') AND rowid <> ?2";
    let charged = "SELECT 1 FROM attempts WHERE invoice_id = ?1 AND state = 'CHARGED' AND rowid <> ?2";
    let exists = |sql| connection.prepare_cached(sql).and_then(|mut query| query.exists([invoice, rowid]));
    Ok(Others { open: exists(open)?, charged: exists(charged)? })
}

fn keep_open(
    connection: &Connection,
    found: &Found,
    state: AttemptState,
    plan: &Plan,
    again_at: i64,
) -> rusqlite::Result<()> {
    let lease_until = if plan.parks(found.standing) { LEASE_NEVER } else { again_at };
    let sql = "UPDATE attempts SET state = ?2, sends = max(sends - ?3, 0), lease_until = ?4
         WHERE rowid = ?1 AND state IN ('INTENT', 'IN_DOUBT')";
    let changed = connection.prepare_cached(sql)?.execute(params![
        found.rowid,
        state.as_str(),
        plan.unsend,
        lease_until
    ])?;
    rows::one_row(changed, "an attempt that is kept open is open")
}

/// What a batch adds to the counters of the run that settles it, and to the counts of invoices.
#[derive(Default)]
pub(super) struct Tally {
    counted: Counted,
    pub(super) moves: Moves,
}

impl Tally {
    pub(super) fn record(self, connection: &Connection, run: Option<RunId>) -> rusqlite::Result<()> {
        self.moves.record(connection)?;
        let Some(run) = run else { return Ok(()) };
        let sql = "UPDATE runs SET paid = paid + ?2, refused = refused + ?3, rejected = rejected + ?4,
             not_sent = not_sent + ?5 WHERE id = ?1";
        let changed = connection.prepare_cached(sql)?.execute([
            run.0,
            self.counted.paid,
            self.counted.refused,
            self.counted.rejected,
            self.counted.not_sent,
        ])?;
        rows::one_row(changed, "settlements belong to a run")
    }
}

/// Doubt is counted at the run that made the attempt, whoever settles it.
fn count_doubt(connection: &Connection, found: &Found, next: Option<AttemptState>) -> rusqlite::Result<()> {
    let more = plan::doubt(next.unwrap_or(found.standing.attempt)) - plan::doubt(found.standing.attempt);
    if more == 0 {
        return Ok(());
    }
    let sql = "UPDATE runs SET in_doubt = in_doubt + ?2 WHERE id = ?1";
    let changed = connection.prepare_cached(sql)?.execute([found.run, more])?;
    rows::one_row(changed, "an attempt belongs to a run")
}

pub(super) fn resolve(
    connection: &Connection,
    resolution: &Resolution,
    now: i64,
) -> rusqlite::Result<Resolved> {
    let mut book = Book::open(connection)?;
    let Some(found) = book.find(&resolution.key)? else { return Ok(Resolved::Unknown) };
    let (state, invoice) = match plan::resolve(found.standing, resolution.charged) {
        Ok(plan) => plan,
        Err(answer) => return Ok(answer),
    };
    if let Some(state) = state {
        book.close(&found, state, now)?;
    }
    book.set_invoice(&found, invoice, now)?;
    let mut moves = Moves::default();
    moves.change(found.standing.invoice, invoice.state, 1);
    moves.record(connection)?;
    count_doubt(connection, &found, state)?;
    let sql = "INSERT INTO resolutions (key, charged, reason, actor, created_at, attempt_from, attempt_to,
         invoice_from, invoice_to) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    connection.prepare_cached(sql)?.execute(params![
        resolution.key.as_str(),
        resolution.charged,
        resolution.reason,
        resolution.actor,
        now,
        found.standing.attempt.as_str(),
        state.unwrap_or(found.standing.attempt).as_str(),
        found.standing.invoice.as_str(),
        invoice.state.as_str(),
    ])?;
    Ok(Resolved::Applied)
}
