//! A comparison in partitions gives the same result as one comparison of everything: the same counts, sums and
//! findings, each with the same keys and rows in the same order.

use proptest::prelude::*;

use super::*;
use crate::codec::{Fields, Record};
use crate::partitioned::{Partitioned, PartitionedInvoices};
use crate::spool::{BLOCK_BYTES, BlockId, BlockStore, MemoryBlocks, SpoolError};

/// The inputs of a verification besides the data set.
#[derive(Clone, Debug, Default)]
struct Setting {
    context: LedgerContext,
    deployment: Option<Uuid>,
    /// Number of open keys without a row that belong to another account.
    taken: usize,
}

const OPEN_KEYS_MAX: usize = 3;

/// The result, and the open keys without a row in the ledger.
type Result = (Reconciliation, (Vec<String>, bool));

fn at_once(world: &World, setting: &Setting) -> Result {
    let mut phase = InvoicePhase::default();
    world.invoices.iter().for_each(|invoice| phase.add(invoice));
    let mut phase = phase.into_attempts(setting.deployment);
    world.attempts.iter().for_each(|attempt| phase.add(attempt));
    let mut phase = phase.into_ledger(setting.context.clone());
    world.rows.iter().for_each(|row| phase.add(row));
    let open = phase.open_keys_not_in_ledger(OPEN_KEYS_MAX);
    open.0.iter().take(setting.taken).for_each(|key| phase.key_taken(key));
    (phase.finish(world.run), open)
}

fn routed<S: BlockStore>(
    world: &World,
    setting: &Setting,
    store: S,
) -> std::result::Result<Partitioned<S>, SpoolError<S::Error>> {
    let mut invoices = PartitionedInvoices::new(store);
    world.invoices.iter().try_for_each(|invoice| invoices.add(invoice))?;
    let mut attempts = invoices.into_attempts(setting.deployment);
    world.attempts.iter().try_for_each(|attempt| attempts.add(attempt))?;
    let mut ledger = attempts.into_ledger(setting.context.clone())?;
    world.rows.iter().try_for_each(|row| ledger.add(row))?;
    ledger.into_partitions(OPEN_KEYS_MAX)
}

fn in_partitions(world: &World, setting: &Setting) -> Result {
    let mut all = routed(world, setting, MemoryBlocks::default()).unwrap();
    let (keys, has_more) = all.open_keys_not_in_ledger();
    let open = (keys.to_vec(), has_more);
    open.0.iter().take(setting.taken).for_each(|key| all.key_taken(key));
    (all.finish(world.run).unwrap(), open)
}

#[test]
fn each_way_to_be_wrong_is_found_in_partitions_as_at_once() {
    let setting = Setting { context: settled(i64::MAX), ..Setting::default() };
    for (what, spoil, kinds) in SPOILED {
        let mut world = World::matched();
        spoil(&mut world);
        let result = in_partitions(&world, &setting);
        let found: Vec<FindingKind> = result.0.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(found, *kinds, "{what}");
        assert_eq!(result, at_once(&world, &setting), "{what}");
    }
}

const DEPLOYMENT: Uuid = Uuid::from_bytes([7; 16]);

/// Keys of all partitions; some have another format, some are in capitals.
fn key_text(number: u32, of: i64, attempt: u32) -> String {
    match number {
        0 => "no key".to_owned(),
        1 => key::text(&[0xAB; 16]).to_uppercase(),
        _ if number.is_multiple_of(2) => key::text(&key::derive(DEPLOYMENT, attempt, &format!("I{of}"))),
        _ => key::text(&key::derive(Uuid::nil(), number, "another")),
    }
}

fn ids() -> impl Strategy<Value = i64> {
    prop_oneof![1..8_i64, 64..68_i64]
}

fn invoices() -> impl Strategy<Value = Vec<InvoiceFact>> {
    use InvoiceState as I;
    let states = prop::sample::select(vec![I::Pending, I::Charging, I::Paid, I::Attention, I::Cancelled]);
    let paid_by =
        prop::sample::select(vec![None, Some(PaidBy::Charge), Some(PaidBy::Import), Some(PaidBy::Resolve)]);
    let terms = (prop::sample::select(vec!["EUR", "JPY"]), 0..4_u8, 1214..1217_i64);
    prop::collection::btree_map(ids(), (states, paid_by, terms), 0..9).prop_map(|all| {
        let of = |(id, (state, paid_by, (currency, exponent, amount_minor)))| {
            let currency = String::from(currency);
            InvoiceFact { paid_by, currency, exponent, amount_minor, ..invoice(id, state) }
        };
        all.into_iter().map(of).collect()
    })
}

fn attempts() -> impl Strategy<Value = Vec<AttemptFact>> {
    use AttemptState as A;
    let states =
        prop::sample::select(vec![A::Intent, A::Charged, A::Refused, A::Rejected, A::InDoubt, A::Voided]);
    // Each key has one attempt, as billing's own index requires.
    let one = (ids(), states, 0..3_i64, 1214..1216_i64, 1..3_u32);
    prop::collection::btree_map(0..14_u32, one, 0..14).prop_map(|all| {
        let of = |(key_number, (id, state, sends, amount_minor, number))| {
            let key = key_text(key_number, id, number);
            AttemptFact { key, number, sends, amount_minor, ..attempt(id, 0, state) }
        };
        let mut all: Vec<AttemptFact> = all.into_iter().map(of).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        all.sort_by_key(|attempt| (attempt.invoice_id, attempt.number));
        all
    })
}

fn rows() -> impl Strategy<Value = Vec<LedgerRow>> {
    let states = prop_oneof![
        3 => Just(RowState::Charged),
        1 => Just(RowState::Refused),
        1 => Just(RowState::Voided)
    ];
    let key = (prop::option::weighted(0.8, 0..14_u32), ids(), 1..3_u32);
    let terms = (
        prop::option::weighted(0.9, 0..2_i64),
        prop::option::weighted(0.9, prop::sample::select(vec!["EUR", "JPY", "XXX"])),
        prop::option::weighted(0.9, 1214..1217_i64),
        0..4_u8,
    );
    let one = (key, prop::option::weighted(0.9, ids()), any::<bool>(), terms, states);
    prop::collection::vec(one, 0..16).prop_map(|all| {
        let of = |(seq, (key, named, is_keys, terms, state))| {
            let ((key_number, of, number), named): ((Option<u32>, i64, u32), Option<i64>) = (key, named);
            let (customer_id, currency, amount_minor, exponent): (_, Option<&str>, _, _) = terms;
            // Mostly the reference of the key, so that many rows match.
            let reference = named.map(|named| format!("I{}", if is_keys { of } else { named }));
            LedgerRow {
                key: key_number.map(|key_number| key_text(key_number, of, number)),
                reference,
                customer_id,
                currency: currency.map(str::to_owned),
                amount_minor,
                exponent,
                ..row(seq, None, of, state)
            }
        };
        (-1..).zip(all).map(of).collect()
    })
}

fn settings() -> impl Strategy<Value = Setting> {
    let last = prop_oneof![2 => Just(i64::MAX), 1 => 0..12_i64];
    (last, prop::option::of(1..12_i64), prop::option::of(ids()), any::<bool>(), 0..3_usize).prop_map(
        |(last, row, lost, has_deployment, taken)| {
            let ledger_id = || "L".to_owned();
            let rows =
                row.map(|seq| Acknowledgement { ledger_id: ledger_id(), seq_first: seq, seq_last: seq + 2 });
            let lost = lost
                .map(|id| UnbackedAcknowledgement { ledger_id: ledger_id(), reference: format!("I{id}") });
            let context = LedgerContext {
                last_seq_before_billing: last,
                acknowledged: AcknowledgedRows::of_ledger(rows, Some("L")),
                acknowledged_unbacked: AcknowledgedUnbacked::of_ledger(lost, Some("L")),
            };
            Setting { context, deployment: has_deployment.then_some(DEPLOYMENT), taken }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn partitions_give_what_one_comparison_gives(
        invoices in invoices(), attempts in attempts(), rows in rows(), run in any::<bool>(), setting in settings(),
    ) {
        let world = World { invoices, attempts, rows, run };
        prop_assert_eq!(in_partitions(&world, &setting), at_once(&world, &setting));
    }

    #[test]
    fn a_fact_is_read_as_it_was_written(
        invoices in invoices(), attempts in attempts(), rows in rows(), id in any::<i64>(), place in any::<u64>(),
    ) {
        let mut record = Record::default();
        for mut fact in invoices {
            (fact.id, fact.amount_minor) = (id, id.wrapping_mul(3));
            record.invoice(&fact);
            let read = Fields(record.bytes()).invoice().unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{fact:?}"));
        }
        for mut fact in attempts {
            (fact.sends, fact.number) = (id, u32::MAX);
            record.attempt(&fact);
            let read = Fields(record.bytes()).attempt().unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{fact:?}"));
        }
        for mut row in rows {
            row.seq = id;
            record.row(place, &row);
            let read = Fields(record.bytes()).row().unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{row:?}"));
            let cut = &record.bytes()[..record.bytes().len() - 1];
            prop_assert!(Fields(cut).row().is_none(), "a record that is cut is no row");
        }
    }
}

/// Many invoices in order, so that each stream fills blocks.
fn many(count: i64) -> World {
    let key = |id| key::text(&key::derive(DEPLOYMENT, 1, &format!("I{id}")));
    World {
        invoices: (1..=count).map(|id| invoice(id, InvoiceState::Paid)).collect(),
        attempts: (1..=count)
            .map(|id| AttemptFact { key: key(id), ..attempt(id, 0, AttemptState::Charged) })
            .collect(),
        rows: (1..=count)
            .map(|id| LedgerRow { key: Some(key(id)), ..row(id, None, id, RowState::Charged) })
            .collect(),
        run: false,
    }
}

/// Blocks in memory that are counted, and that fail from a given number on.
#[derive(Default)]
struct Counted {
    memory: MemoryBlocks,
    most: usize,
    fails_at: Option<usize>,
    damaged: bool,
}

impl BlockStore for &mut Counted {
    type Error = &'static str;

    fn write(&mut self, block: &[u8]) -> std::result::Result<BlockId, Self::Error> {
        assert_eq!(block.len(), BLOCK_BYTES);
        if self.fails_at.is_some_and(|at| self.memory.used() >= at) {
            return Err("full");
        }
        let Ok(id) = self.memory.write(block);
        self.most = self.most.max(self.memory.used());
        Ok(id)
    }

    fn read(&mut self, id: BlockId, to: &mut Vec<u8>) -> std::result::Result<(), Self::Error> {
        let Ok(()) = self.memory.read(id, to);
        if self.damaged {
            to.iter_mut().for_each(|byte| *byte = 0xFF);
        }
        Ok(())
    }

    fn free(&mut self, id: BlockId) {
        self.memory.free(id);
    }
}

#[test]
fn many_facts_go_through_blocks_of_which_none_stays() {
    let setting = Setting { context: settled(i64::MAX), deployment: Some(DEPLOYMENT), ..Setting::default() };
    let mut world = many(30_000);
    // Without keys, the first row finds its invoice by reference, and the second matches nothing.
    world.rows[100].key = None;
    world.rows[200] = LedgerRow { reference: None, key: None, ..world.rows[200].clone() };
    let mut store = Counted::default();
    let result = routed(&world, &setting, &mut store).and_then(|all| all.finish(false));
    assert_eq!(result.unwrap(), at_once(&world, &setting).0);
    assert!(store.most > 300, "{} blocks", store.most);
    assert!(store.most * BLOCK_BYTES < 30_000 * 200, "{} blocks", store.most);
    assert_eq!(store.memory.used(), 0);
}

#[test]
fn a_store_that_fails_or_returns_other_bytes_gives_no_verdict() {
    let setting = Setting { context: settled(i64::MAX), ..Setting::default() };
    let world = many(30_000);
    for at in [0, 50, 300] {
        let mut store = Counted { fails_at: Some(at), ..Counted::default() };
        let result = routed(&world, &setting, &mut store).map(|_| ());
        assert_eq!(result, Err(SpoolError::Store("full")), "at block {at}");
    }
    let mut store = Counted { damaged: true, ..Counted::default() };
    assert_eq!(routed(&world, &setting, &mut store).map(|_| ()), Err(SpoolError::Damaged));
}
