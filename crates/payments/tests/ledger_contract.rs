//! What every ledger promises, held against a model that is too simple to be wrong. A further backend joins by
//! one more function that opens it; knows no SQL.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use chassis::clock::{Clock, Random};
use payments::keys::{Fingerprint, Key, Known, judge};
use payments::ledger::sqlite::SqliteLedger;
use payments::ledger::{Entry, Ledger, Recorded, Row, Seq, State};
use proptest::prelude::*;

type Opened = Pin<Box<dyn Future<Output = Arc<dyn Ledger>>>>;

/// Opens the ledger that lies at a place, again and again.
type Open = fn(&Path) -> Opened;

fn sqlite(dir: &Path) -> Opened {
    let path = dir.join("payments.db");
    Box::pin(async move {
        let clock = Clock::simulated(1_700_000_000_000);
        let ledger = SqliteLedger::open(&path, clock, Random::seeded(8213)).await;
        Arc::new(ledger.expect("a ledger in a fresh folder")) as Arc<dyn Ledger>
    })
}

/// One step of a story.
#[derive(Clone, Debug)]
enum Step {
    Record { key: Option<u8>, account: u8, data: u8, charged: bool },
    Void { key: u8, account: u8 },
    Reopen,
}

const ACCOUNTS: [&str; 2] = ["antaeus", "other"];

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![1 => Just(None), 3 => (0_u8..4).prop_map(Some)];
    prop_oneof![
        10 => (key, 0_u8..2, 0_u8..2, any::<bool>())
            .prop_map(|(key, account, data, charged)| Step::Record { key, account, data, charged }),
        2 => (0_u8..4, 0_u8..2).prop_map(|(key, account)| Step::Void { key, account }),
        1 => Just(Step::Reopen),
    ]
}

fn key_named(key: u8) -> Key {
    Key::parse(&format!("key-{key}")).expect("a key")
}

fn entry(key: Option<u8>, account: u8, data: u8, charged: bool) -> Arc<Entry> {
    Arc::new(Entry {
        key: key.map(key_named),
        account: ACCOUNTS[usize::from(account)].to_owned(),
        fingerprint: Fingerprint::new(1, "EUR", i64::from(data)),
        reference: Some(format!("I{data}")),
        customer_id: 1,
        currency: "EUR".to_owned(),
        amount_minor: i64::from(data),
        state: if charged { State::Charged } else { State::Refused },
        route: "/",
    })
}

/// Every row in order; nothing else to go wrong.
#[derive(Default)]
struct Model(Vec<Row>);

impl Model {
    fn of(&self, key: &Key) -> Option<&Row> {
        self.0.iter().find(|row| row.key.as_ref() == Some(key))
    }

    fn push(&mut self, entry: &Entry) -> Seq {
        let seq = Seq(i64::try_from(self.0.len()).unwrap() + 1);
        self.0.push(Row {
            seq,
            key: entry.key.clone(),
            account: entry.account.clone(),
            fingerprint: entry.fingerprint.clone(),
            reference: entry.reference.clone(),
            customer_id: entry.customer_id,
            currency: entry.currency.clone(),
            amount_minor: entry.amount_minor,
            state: entry.state,
            route: entry.route.to_owned(),
            created_at_ms: 0,
        });
        seq
    }

    fn void(&mut self, key: &Key, account: &str) -> Row {
        if self.of(key).is_none() {
            self.push(&Entry {
                key: Some(key.clone()),
                account: account.to_owned(),
                fingerprint: Fingerprint::from_store(String::new()),
                reference: None,
                customer_id: 0,
                currency: String::new(),
                amount_minor: 0,
                state: State::Voided,
                route: "/v1/ledger/{key}/void",
            });
        }
        self.of(key).expect("it was just put there").clone()
    }
}

/// A row without its time, which the model does not keep.
fn timeless(row: Row) -> Row {
    assert!(row.created_at_ms >= 1_700_000_000_000, "{row:?}");
    Row { created_at_ms: 0, ..row }
}

async fn apply(ledger: &Arc<dyn Ledger>, model: &mut Model, step: &Step) {
    match *step {
        Step::Record { key, account, data, charged } => {
            let entry = entry(key, account, data, charged);
            let known = entry.key.as_ref().and_then(|key| model.of(key)).cloned();
            match (ledger.record(&entry).await.unwrap(), known) {
                (Recorded::New(seq), None) => assert_eq!(seq, model.push(&entry)),
                (Recorded::Known(row), Some(known)) => assert_eq!(timeless(row), known),
                other => panic!("{step:?}: {other:?}"),
            }
        }
        Step::Void { key, account } => {
            let (key, account) = (key_named(key), ACCOUNTS[usize::from(account)]);
            let row = timeless(ledger.void(account, &key).await.unwrap());
            assert_eq!(row, model.void(&key, account));
        }
        Step::Reopen => {}
    }
}

async fn assert_same(ledger: &Arc<dyn Ledger>, model: &Model) {
    for account in ACCOUNTS {
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map_or(Seq(0), |row: &Row| row.seq);
            let page = ledger.page(account, after, 3).await.unwrap();
            assert!(page.rows.len() <= 3 && (!page.more || page.rows.len() == 3), "{page:?}");
            rows.extend(page.rows.into_iter().map(timeless));
            if !page.more {
                break;
            }
        }
        let expected: Vec<Row> = model.0.iter().filter(|row| row.account == account).cloned().collect();
        assert_eq!(rows, expected);
    }
    for key in (0..4).map(key_named) {
        assert_eq!(ledger.row(&key).await.unwrap().map(timeless), model.of(&key).cloned());
    }
}

fn holds_for(open: Open, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path()).await;
        let id = ledger.id().await.unwrap();
        let mut model = Model::default();
        for step in steps {
            apply(&ledger, &mut model, step).await;
            if matches!(step, Step::Reopen) {
                drop(ledger);
                ledger = open(dir.path()).await;
                assert_eq!(ledger.id().await.unwrap(), id);
            }
        }
        assert_same(&ledger, &model).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_ledger_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        holds_for(sqlite, &steps);
    }

    /// The rules of replay, reuse, void and account, for any row and any request with its key.
    #[test]
    fn a_known_key_never_executes_again(
        account in 0_u8..2, other in 0_u8..2, data in 0_u8..2, another in 0_u8..2, state in 0_usize..3,
    ) {
        let mut model = Model::default();
        let first = Entry { state: State::ALL[state], ..(*entry(Some(0), account, data, true)).clone() };
        model.push(&first);
        let verdict = judge(&model.0[0], &entry(Some(0), other, another, true));
        let expected = match () {
            () if account != other => Known::Foreign,
            () if first.state == State::Voided => Known::Voided,
            () if data != another => Known::Reused,
            () => Known::Replay,
        };
        prop_assert_eq!(verdict, expected);
    }
}

async fn race(open: Open) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path()).await;
    for round in 0..20 {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let ledger = Arc::clone(&ledger);
                tokio::spawn(async move {
                    if racer == 7 {
                        let row = ledger.void(ACCOUNTS[0], &key_named(round)).await.unwrap();
                        (row.seq, row.state)
                    } else {
                        match ledger.record(&entry(Some(round), 0, 0, racer % 2 == 0)).await.unwrap() {
                            Recorded::New(seq) => {
                                (seq, if racer % 2 == 0 { State::Charged } else { State::Refused })
                            }
                            Recorded::Known(row) => (row.seq, row.state),
                        }
                    }
                })
            })
            .collect();
        let mut seen = Vec::new();
        for racer in racers {
            seen.push(racer.await.unwrap());
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    }
    assert_eq!(ledger.page(ACCOUNTS[0], Seq(0), 1000).await.unwrap().rows.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_races_for_a_key_sees_one_row() {
    race(sqlite).await;
}

#[tokio::test]
async fn a_new_name_is_another_one_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = sqlite(dir.path()).await;
    let before = ledger.id().await.unwrap();
    let after = ledger.renew_id().await.unwrap();
    assert_ne!(before, after);
    drop(ledger);
    assert_eq!(sqlite(dir.path()).await.id().await.unwrap(), after);
}
