//! Group commit: concurrent entries become one statement, and one fsync of the database. After a lost response, rows
//! are found by key and write id. Knows the ledger's columns; decides nothing about a charge.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chassis::clock::Random;
use chassis::postgres::{NOW_MS, Param, PgError, PoolClass, Postgres, Type, get};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::placement::{Gate, Look, Placement};
use super::rows::{BY_KEYS, CHARGED_REFERENCES, read_row, read_write_id};
use super::to_ledger_error;
use crate::keys::{FingerprintVersion, Key};
use crate::ledger::{Entry, LedgerError, LedgerId, Recorded, Result, Row, Seq};

/// Maximum number of entries in one statement.
const BATCH_MAX: usize = 512;
/// Maximum number of concurrent statements: while one is written to disk, the next is collected.
const WRITERS: usize = 3;
/// Capacity of the queue; further callers wait.
const QUEUE_MAX: usize = 4096;
/// Maximum number of rewrites of keyed entries after a lost response.
const TRIES_MAX: u32 = 3;
/// Id of an advisory lock. Writers share it while they draw positions, and a page waits for them, so that it never
/// skips a row that becomes visible later.
const GATE: i64 = 0x7469_6e6a_6973;

/// Number of the first parameter after those of the columns.
const FIRST_OF_GATE: usize = 18;

/// Queues entries and returns the result of each.
#[derive(Debug)]
pub(super) struct BatchWriter {
    queue: mpsc::Sender<Waiting>,
    random: Random,
}

/// An entry with an id of its own, which is the same in each try. An equal row under the key that another request wrote
/// has another id. A collision of the 64 random bits would do harm only under the same key.
#[derive(Clone)]
struct Write {
    entry: Arc<Entry>,
    id: i64,
}

struct Waiting {
    write: Write,
    reply: oneshot::Sender<Result<Recorded>>,
}

/// Writes batches into one ledger, as long as the ledger keeps its id and its place.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) database: Postgres,
    pub(super) id: LedgerId,
    pub(super) placement: Arc<Placement>,
}

impl BatchWriter {
    /// A writer with tasks that end after it is dropped, once the queued entries are written.
    pub(super) fn new(writer: Writer, random: Random) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..WRITERS {
            tokio::spawn(write_all(writer.clone(), Arc::clone(&waiting)));
        }
        Self { queue, random }
    }

    pub(super) async fn record(&self, entry: Arc<Entry>) -> Result<Recorded> {
        let (reply, answer) = oneshot::channel();
        let ended = || LedgerError::Unavailable("the ledger's writers have ended".into());
        let write = Write { entry, id: self.random.u64().cast_signed() };
        self.queue.send(Waiting { write, reply }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

async fn write_all(writer: Writer, waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    loop {
        let mut batch = Vec::new();
        if waiting.lock().await.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        let (writes, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.write, waiting.reply)).unzip();
        let results = writer.write(&writes).await;
        for (reply, result) in replies.into_iter().zip(results) {
            // A caller that left does not change what was recorded.
            let _left = reply.send(result);
        }
    }
}

impl Writer {
    /// Writes a batch; returns one result per entry, in order.
    async fn write(&self, writes: &[Write]) -> Vec<Result<Recorded>> {
        match self.insert(writes).await {
            Ok(Some(recorded)) => recorded.into_iter().map(Ok).collect(),
            Ok(None) => self.retry_after_placement_check(writes).await,
            Err(PgError::InDoubt(source)) => self.find_again(writes, source).await,
            // An entry that the database cannot store must not make the others fail.
            Err(PgError::Refused(_) | PgError::Constraint { .. }) if writes.len() > 1 => {
                let mut results = Vec::with_capacity(writes.len());
                for write in writes {
                    results.push(Box::pin(self.write(std::slice::from_ref(write))).await.remove(0));
                }
                results
            }
            Err(PgError::NotDurable) => {
                writes.iter().map(|_| Err(to_ledger_error(PgError::NotDurable))).collect()
            }
            Err(error) => errors_for_all(&error, writes.len()),
        }
    }

    /// Writes again after a statement that executed nothing, because the ledger has another id or place than this
    /// process knew.
    async fn retry_after_placement_check(&self, writes: &[Write]) -> Vec<Result<Recorded>> {
        for _ in 0..TRIES_MAX {
            let why = match self.placement.check_place().await {
                Ok(Look::Serving) => match self.insert(writes).await {
                    Ok(Some(recorded)) => return recorded.into_iter().map(Ok).collect(),
                    Ok(None) => continue,
                    Err(PgError::InDoubt(source)) => return self.find_again(writes, source).await,
                    Err(error) => return errors_for_all(&error, writes.len()),
                },
                Ok(Look::NotServing(why)) => why,
                Ok(Look::IdChanged) => "the ledger has another id than when this process started".to_owned(),
                Err(error) => return errors_for_all(&error, writes.len()),
            };
            return writes.iter().map(|_| Err(LedgerError::NotServing(why.clone()))).collect();
        }
        errors_for_all(&PgError::Unavailable("the ledger keeps moving".into()), writes.len())
    }

    /// Recovers from a lost response. A keyed entry is written again, which finds its own row if there is one. Without
    /// a key the outcome stays unknown.
    async fn find_again(&self, writes: &[Write], source: chassis::postgres::Source) -> Vec<Result<Recorded>> {
        let keyed: Vec<Write> = writes.iter().filter(|write| write.entry.key.is_some()).cloned().collect();
        let mut error = PgError::InDoubt(source);
        let mut found = None;
        for _ in 0..TRIES_MAX {
            if keyed.is_empty() {
                break;
            }
            match self.insert(&keyed).await {
                Ok(Some(recorded)) => {
                    found = Some(recorded.into_iter());
                    break;
                }
                // The server that may have kept the entry cannot be asked here: the outcome stays unknown.
                Ok(None) => match self.placement.check_place().await {
                    Ok(Look::Serving) => {}
                    Ok(Look::NotServing(_) | Look::IdChanged) => break,
                    Err(other) => error = other,
                },
                Err(other) => error = other,
            }
        }
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let again = write.entry.key.as_ref().and_then(|_| found.as_mut()?.next());
            results.push(again.ok_or_else(|| to_uncertain_error(&error)));
        }
        results
    }

    /// Inserts all entries by one statement, and reads the rows of keys that were known. `None`: nothing was executed,
    /// because the ledger has another id or place.
    async fn insert(&self, writes: &[Write]) -> std::result::Result<Option<Vec<Recorded>>, PgError> {
        let statement = Statement::of(self.id, writes, self.placement.gate(FIRST_OF_GATE));
        let rows = statement.run(&self.database).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        if rows.len() != writes.len() {
            let found = format!("{} entries became {} rows", writes.len(), rows.len());
            return Err(PgError::Corrupt(found));
        }
        let mut drawn = Vec::with_capacity(rows.len());
        for row in &rows {
            drawn.push((Seq(get(row, 0)?), get::<bool>(row, 1)?, get::<bool>(row, 2)?));
        }
        let missed = writes.iter().zip(&drawn).filter(|(_, (_, is_new, is_behind))| !is_new && !is_behind);
        let missed: HashSet<(&str, &str)> = missed
            .filter_map(|(Write { entry, .. }, _)| {
                Some((entry.account.as_str(), entry.key.as_ref()?.as_str()))
            })
            .collect();
        let known = self.known(&missed).await?;
        let charged = self.charged_references(writes, &missed, &known).await?;
        let recorded = writes.iter().zip(drawn).map(|(Write { entry, id }, (seq, is_new, is_behind))| {
            if is_behind {
                return Recorded::Behind;
            }
            if is_new {
                return Recorded::New(seq);
            }
            let key = entry.key.as_ref();
            match key.and_then(|key| known.get(&(entry.account.clone(), key.clone()))) {
                // This row is from a try whose response was lost.
                Some((row, Some(written))) if written == id => return Recorded::New(row.seq),
                Some((row, _)) => return Recorded::Known(row.clone()),
                None => {}
            }
            // The account has no row and the entry was not inserted: another account has the key.
            let first = entry.reference.as_ref().filter(|_| entry.is_once);
            let first = first.and_then(|reference| charged.get(&(entry.account.clone(), reference.clone())));
            first.cloned().map_or(Recorded::Foreign, Recorded::ReferenceCharged)
        });
        Ok(Some(recorded.collect()))
    }

    /// The first charges of the references of entries that were not recorded and have no row of their own.
    async fn charged_references(
        &self,
        writes: &[Write],
        missed: &HashSet<(&str, &str)>,
        known: &HashMap<(String, Key), (Row, Option<i64>)>,
    ) -> std::result::Result<HashMap<(String, String), Row>, PgError> {
        let blocked = writes.iter().filter_map(|Write { entry, .. }| {
            let key = entry.key.as_ref().filter(|_| entry.is_once)?;
            let is_blocked = missed.contains(&(entry.account.as_str(), key.as_str()))
                && !known.contains_key(&(entry.account.clone(), key.clone()));
            Some((entry.account.as_str(), entry.reference.as_deref()?)).filter(|_| is_blocked)
        });
        let (accounts, references): (Vec<&str>, Vec<&str>) = blocked.unzip();
        if accounts.is_empty() {
            return Ok(HashMap::new());
        }
        let asked = [(&accounts as _, Type::TEXT_ARRAY), (&references as _, Type::TEXT_ARRAY)];
        let rows = self.database.read(PoolClass::Record, CHARGED_REFERENCES, &asked).await?;
        let mut charged = HashMap::new();
        for row in rows.iter().map(read_row) {
            let row = row?;
            let reference = row.reference.clone().unwrap_or_default();
            charged.entry((row.account.clone(), reference)).or_insert(row);
        }
        Ok(charged)
    }

    /// The rows of these accounts and keys, each with the id of the write that inserted it.
    async fn known(
        &self,
        missed: &HashSet<(&str, &str)>,
    ) -> std::result::Result<HashMap<(String, Key), (Row, Option<i64>)>, PgError> {
        if missed.is_empty() {
            return Ok(HashMap::new());
        }
        let (accounts, keys): (Vec<&str>, Vec<&str>) = missed.iter().copied().unzip();
        let asked = [(&keys as _, Type::TEXT_ARRAY), (&accounts as _, Type::TEXT_ARRAY)];
        // A statement of its own: it sees rows that other processes committed while the first one waited for them.
        let rows = self.database.read(PoolClass::Record, BY_KEYS, &asked).await?;
        let rows = rows.iter().map(|row| {
            let (row, write_id) = (read_row(row)?, read_write_id(row)?);
            let key = row.key.clone().ok_or_else(|| PgError::Corrupt("a row without its key".to_owned()))?;
            Ok(((row.account.clone(), key), (row, write_id)))
        });
        rows.collect()
    }
}

/// Whether another account charged the key, and the caller may be the same client: see [`Recorded::Foreign`]. It is
/// looked up for each entry by the index: for a join, the planner might read the whole ledger.
const CHARGED_ELSEWHERE: &str = "( \
    SELECT other.seq FROM ledger AS other WHERE other.key = given.key AND other.account <> given.account \
      AND other.state = 'CHARGED' AND (given.deployment IS NULL OR EXISTS ( \
        SELECT 1 FROM ledger_deployments AS theirs \
        WHERE theirs.account = other.account AND theirs.deployment_id = given.deployment)) LIMIT 1 \
    ) IS NOT NULL AS is_charged_elsewhere";

/// Whether the account was charged for the reference under another key. The unique index `ledger_only_charge` excludes
/// charges at the same moment.
const CHARGED_REFERENCE: &str = "CASE WHEN given.once THEN ( \
    SELECT charged.seq FROM ledger AS charged WHERE charged.account = given.account \
      AND charged.reference = given.reference AND charged.state = 'CHARGED' \
      AND charged.key IS DISTINCT FROM given.key LIMIT 1 \
    ) IS NOT NULL ELSE false END AS is_charged_reference";

/// The columns of a batch. The insert has no conflict target: the key is unique in its account, and in an older ledger
/// over all accounts. An entry is not inserted if its key is known, or is earlier in the batch.
struct Statement<'a> {
    ledger_id: String,
    gate: Option<Gate>,
    keys: Vec<Option<&'a str>>,
    accounts: Vec<&'a str>,
    fingerprints: Vec<&'a str>,
    references: Vec<Option<&'a str>>,
    customers: Vec<i64>,
    currencies: Vec<&'a str>,
    amounts: Vec<i64>,
    states: Vec<&'a str>,
    routes: Vec<&'a str>,
    seen: Vec<Option<i64>>,
    deployments: Vec<Option<String>>,
    exponents: Vec<i16>,
    decline_classes: Vec<Option<&'static str>>,
    decline_codes: Vec<Option<&'a str>>,
    once: Vec<bool>,
    write_ids: Vec<i64>,
}

impl<'a> Statement<'a> {
    fn of(id: LedgerId, writes: &'a [Write], gate: Option<Gate>) -> Self {
        let all = || writes.iter().map(|write| &write.entry);
        let declines = || all().map(|entry| entry.decline.as_ref());
        Self {
            ledger_id: id.to_string(),
            gate,
            keys: all().map(|entry| entry.key.as_ref().map(Key::as_str)).collect(),
            accounts: all().map(|entry| entry.account.as_str()).collect(),
            fingerprints: all().map(|entry| entry.fingerprint.as_str()).collect(),
            references: all().map(|entry| entry.reference.as_deref()).collect(),
            customers: all().map(|entry| entry.customer_id).collect(),
            currencies: all().map(|entry| entry.currency.as_str()).collect(),
            amounts: all().map(|entry| entry.amount.units).collect(),
            states: all().map(|entry| entry.state.as_str()).collect(),
            routes: all().map(|entry| entry.route).collect(),
            seen: all().map(|entry| entry.seen.map(|seq| seq.0)).collect(),
            deployments: all().map(|entry| entry.deployment.map(|id| id.0.to_string())).collect(),
            exponents: all().map(|entry| entry.amount.exponent.into()).collect(),
            decline_classes: declines().map(|decline| Some(decline?.class.as_str())).collect(),
            decline_codes: declines().map(|decline| Some(&*decline?.code)).collect(),
            once: all().map(|entry| entry.is_once).collect(),
            write_ids: writes.iter().map(|write| write.id).collect(),
        }
    }

    async fn run(&self, database: &Postgres) -> std::result::Result<Vec<chassis::postgres::Row>, PgError> {
        let condition = self.gate.as_ref().map_or("", |gate| &gate.condition);
        let present = FingerprintVersion::CURRENT.number();
        let sql = format!(
            "WITH gate AS MATERIALIZED ( \
               SELECT pg_advisory_xact_lock_shared({GATE}) FROM ledger_meta WHERE ledger_id = $1{condition} \
             ), lacking AS MATERIALIZED ( \
               SELECT seen FROM (SELECT DISTINCT seen FROM unnest($11) AS callers (seen)) AS seen_by_callers \
               WHERE seen IS NOT NULL AND (SELECT l.seq FROM ledger AS l WHERE l.seq = seen) IS NULL \
             ), input AS MATERIALIZED ( \
               SELECT nextval('ledger_positions') AS seq, given.*, \
                 coalesce(given.seen IN (SELECT seen FROM lacking), false) AS is_behind, {CHARGED_ELSEWHERE}, {CHARGED_REFERENCE} FROM gate, \
                 unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) WITH ORDINALITY AS given \
                 (key, account, fingerprint, reference, customer_id, currency, amount_minor, state, route, seen, \
                  deployment, exponent, decline_class, decline_code, once, write_id, place) \
             ), inserted AS ( \
               INSERT INTO ledger (seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, \
                 state, route, created_at, fingerprint_version, exponent, decline_class, decline_code, \
                 is_only_charge, write_id) \
               SELECT seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, state, route, \
                 {NOW_MS}, {present}, exponent, decline_class, decline_code, CASE WHEN once AND state = 'CHARGED' THEN true END, \
                 write_id \
               FROM input WHERE NOT is_behind AND NOT is_charged_elsewhere AND NOT is_charged_reference ORDER BY place \
               ON CONFLICT DO NOTHING RETURNING seq \
             ) SELECT input.seq, inserted.seq IS NOT NULL, is_behind FROM input LEFT JOIN inserted USING (seq) ORDER BY place"
        );
        let mut params: Vec<Param<'_>> = vec![
            (&self.ledger_id, Type::TEXT),
            (&self.keys, Type::TEXT_ARRAY),
            (&self.accounts, Type::TEXT_ARRAY),
            (&self.fingerprints, Type::TEXT_ARRAY),
            (&self.references, Type::TEXT_ARRAY),
            (&self.customers, Type::INT8_ARRAY),
            (&self.currencies, Type::TEXT_ARRAY),
            (&self.amounts, Type::INT8_ARRAY),
            (&self.states, Type::TEXT_ARRAY),
            (&self.routes, Type::TEXT_ARRAY),
            (&self.seen, Type::INT8_ARRAY),
            (&self.deployments, Type::TEXT_ARRAY),
            (&self.exponents, Type::INT2_ARRAY),
            (&self.decline_classes, Type::TEXT_ARRAY),
            (&self.decline_codes, Type::TEXT_ARRAY),
            (&self.once, Type::BOOL_ARRAY),
            (&self.write_ids, Type::INT8_ARRAY),
        ];
        if let Some(Gate { place, .. }) = &self.gate {
            params.push((&place.system_identifier, Type::TEXT));
            params.push((&place.timeline, Type::INT8));
            params.push((&place.table, Type::INT8));
        }
        #[cfg(debug_assertions)]
        if chassis::crash::is_planned("P2") {
            // The statement is a transaction of its own. To die within it, the test needs a transaction around it.
            let (sql, params) = (sql.as_str(), params.as_slice());
            return database
                .transaction(PoolClass::Record, |tx| async move {
                    let rows = tx.query(sql, params).await?;
                    chassis::crash_point!("P2");
                    Ok(rows)
                })
                .await;
        }
        database.write(PoolClass::Record, &sql, &params).await
    }
}

/// The last position up to which every row is visible now or never will be. It is one statement, since a process that
/// stops between two would block all writers. The sequence is read in the row of the lock, that is once the lock is
/// held.
pub(super) async fn read_settled_position(database: &Postgres) -> std::result::Result<i64, PgError> {
    let sql = format!(
        "WITH gate AS MATERIALIZED (SELECT 1 AS held, pg_advisory_xact_lock({GATE})) \
         SELECT (SELECT last_value FROM ledger_positions WHERE gate.held = 1) FROM gate"
    );
    let rows = database.read(PoolClass::Claim, &sql, &[]).await?;
    match rows.as_slice() {
        [row] => get(row, 0),
        rows => Err(PgError::Corrupt(format!("ledger_positions has {} rows", rows.len()))),
    }
}

fn errors_for_all(error: &PgError, count: usize) -> Vec<Result<Recorded>> {
    (0..count).map(|_| Err(to_uncertain_error(error))).collect()
}

/// The error for one of several callers. It never says that nothing was recorded: it may be the error of a later try.
fn to_uncertain_error(error: &PgError) -> LedgerError {
    match error {
        PgError::Corrupt(what) => LedgerError::Corrupt(what.clone()),
        other => to_ledger_error(PgError::Unavailable(chassis::error_chain(other).into())),
    }
}
