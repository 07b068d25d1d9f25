//! One state of the whole world: billing's store, its replicas, the network, the provider, an operator, the faults so
//! far. Plain data; knows no step. Packed into a few words, since a search holds millions of states.

use billing::invoice::{AttemptState, AttentionReason, InvoiceState, PaidBy};
use billing::protocol::transition::AnswerClass;

use crate::codec::{Codec, Reader, Writer};

/// Maximum number of invoices in a search.
pub(crate) const INVOICES_MAX: usize = 2;
/// Maximum number of replicas in a search.
pub(crate) const REPLICAS_MAX: usize = 3;
/// Maximum number of attempts of an invoice: a second one exists only when the first is not charged.
pub(crate) const ATTEMPTS_MAX: usize = 2;
/// Maximum number of keys for an invoice's requests; the sound rule needs one for each attempt.
pub(crate) const KEYS_MAX: usize = 4;
/// Maximum count of sends. It stands for this number or more, and is never reduced again.
pub(crate) const SENDS_MAX: u8 = 3;
/// Maximum count of an invoice's charges.
const CHARGES_MAX: u8 = 3;

/// Number of bits in a set of copies: see [`Request::place`].
pub(crate) const PLACES: u8 = 48;

/// Number of words of a packed world.
pub(crate) const WORDS: usize = 7;

/// A world in packed form.
pub(crate) type Packed = [u64; WORDS];

/// The processes that may claim an open attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// No process until the lease ends.
    Held,
    /// Any process.
    Due,
    /// No lease: an operator decides.
    Never,
}

/// An attempt in the store. Its number follows from its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) state: AttemptState,
    pub(crate) sends: u8,
    pub(crate) lease: Lease,
    pub(crate) key: u8,
    pub(crate) amount: u8,
}

/// An invoice in the store. `amount` is 0 for the first amount and 1 for the edited one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invoice {
    pub(crate) state: InvoiceState,
    pub(crate) paid_by: Option<PaidBy>,
    pub(crate) reason: Option<AttentionReason>,
    pub(crate) amount: u8,
    pub(crate) attempts: [Option<Attempt>; ATTEMPTS_MAX],
}

/// Billing's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) invoices: [Invoice; INVOICES_MAX],
    /// The provider's ledger with which the store has settled.
    pub(crate) ledger: Option<u8>,
    /// Whether any row of that ledger was seen: a ledger is set back to its beginning, so that any row shows it.
    pub(crate) seen: bool,
    /// The store's deployment; 1 after the id was lost. Its keys are derived from it.
    pub(crate) deployment: u8,
}

/// An attempt, as a replica claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) invoice: u8,
    pub(crate) attempt: u8,
    pub(crate) in_doubt: bool,
    pub(crate) sends: u8,
    pub(crate) key: u8,
    pub(crate) amount: u8,
}

/// The headers of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) credential: u8,
    pub(crate) expects: Option<u8>,
    /// Whether the request names a row that was seen.
    pub(crate) seen: bool,
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) invoice: u8,
    pub(crate) key: u8,
    pub(crate) amount: u8,
    pub(crate) head: Head,
}

/// The result of a replica's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResult {
    /// An answer or a transport error, by its class.
    Answer(AnswerClass),
    /// The request was not sent.
    Unsent,
    /// The request must not be sent.
    NotAllowed,
}

/// The progress of a replica's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Idle,
    Claimed(Job),
    Waiting(Job, Head),
    Completed(Job, CallResult),
}

/// One billing process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) call: Call,
    /// The ledger that the replica expects; read from the store at start.
    pub(crate) ledger: Option<u8>,
    /// Whether the replica has seen a row of that ledger; read from the store at start.
    pub(crate) seen: bool,
}

/// The provider's decision on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Charged,
    Refused,
    Voided,
}

/// A row of the provider's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) decision: Decision,
    pub(crate) amount: u8,
    pub(crate) credential: u8,
}

/// The payment service, and the bank behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    pub(crate) rows: [[Option<Row>; KEYS_MAX]; INVOICES_MAX],
    /// How often the customer was charged, independent of the ledger.
    pub(crate) charges: [u8; INVOICES_MAX],
    /// The current ledger; 1 after it was replaced.
    pub(crate) ledger: u8,
    /// Whether the ledger was set back to its beginning.
    pub(crate) set_back: bool,
    /// The deployment that the provider has recorded for billing's account.
    pub(crate) deployment: Option<u8>,
    /// The current credential of billing.
    pub(crate) credential: u8,
    /// Whether the provider calls the first amount of an invoice invalid.
    pub(crate) invalid: [bool; INVOICES_MAX],
}

/// The whole world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) store: Store,
    /// The store before its newest commit.
    pub(crate) before: Store,
    pub(crate) backup: Option<Store>,
    pub(crate) replicas: [Replica; REPLICAS_MAX],
    /// Late copies of requests, as sets: see [`Request::place`].
    pub(crate) copies: [u64; INVOICES_MAX],
    pub(crate) provider: Provider,
    /// The invoice and attempt that an operator is about to resolve as not charged.
    pub(crate) operator: Option<(u8, u8)>,
    /// Number of random keys drawn so far.
    pub(crate) drawn: [u8; INVOICES_MAX],
    pub(crate) faults: u8,
    /// Whether the store was set back: by a restore, or by a lost commit.
    pub(crate) went_back: bool,
    pub(crate) conflict: bool,
}

impl Invoice {
    const NEW: Self = Self {
        state: InvoiceState::Pending,
        paid_by: None,
        reason: None,
        amount: 0,
        attempts: [None; ATTEMPTS_MAX],
    };

    /// The existing attempts, with their indexes.
    pub(crate) fn known(&self) -> impl Iterator<Item = (usize, &Attempt)> {
        self.attempts.iter().enumerate().filter_map(|(at, attempt)| Some((at, attempt.as_ref()?)))
    }

    /// Whether any attempt meets this condition.
    pub(crate) fn any(&self, is: impl Fn(&Attempt) -> bool) -> bool {
        self.known().any(|(_, attempt)| is(attempt))
    }
}

impl Store {
    pub(crate) const NEW: Self =
        Self { invoices: [Invoice::NEW; INVOICES_MAX], ledger: None, seen: false, deployment: 0 };
}

impl Request {
    /// The deployment of the request, from its key; random keys belong to the first deployment.
    pub(crate) fn deployment(&self) -> u8 {
        u8::from(usize::from(self.key) >= ATTEMPTS_MAX)
    }

    /// The request's bit in a set of copies.
    pub(crate) fn place(&self) -> u64 {
        let expects = self.head.expects.map_or(0, |ledger| ledger + 1);
        1 << (self.key | self.amount << 2 | self.head.credential << 3 | expects << 4)
    }

    /// The copy of this bit. The bit does not record whether the request names a row: a ledger is set back only when no
    /// copy is in flight, and a later sender has seen a row.
    pub(crate) fn at(invoice: u8, place: u8) -> Self {
        let expects = (place >> 4).checked_sub(1);
        let head = Head { credential: place >> 3 & 1, expects, seen: true };
        Self { invoice, key: place & 3, amount: place >> 2 & 1, head }
    }
}

impl Job {
    /// The request for this attempt.
    pub(crate) fn request(self, head: Head) -> Request {
        Request { invoice: self.invoice, key: self.key, amount: self.amount, head }
    }
}

impl Call {
    /// The claimed attempt of the call.
    pub(crate) fn job(self) -> Option<Job> {
        match self {
            Self::Idle => None,
            Self::Claimed(job) | Self::Waiting(job, _) | Self::Completed(job, _) => Some(job),
        }
    }
}

impl Provider {
    const NEW: Self = Self {
        rows: [[None; KEYS_MAX]; INVOICES_MAX],
        charges: [0; INVOICES_MAX],
        ledger: 0,
        set_back: false,
        deployment: None,
        credential: 0,
        invalid: [false; INVOICES_MAX],
    };

    /// Charges the customer.
    pub(crate) fn charge(&mut self, invoice: u8) {
        let charges = &mut self.charges[usize::from(invoice)];
        *charges = CHARGES_MAX.min(*charges + 1);
    }
}

impl World {
    /// The initial world, before any attempt.
    pub(crate) const NEW: Self = Self {
        store: Store::NEW,
        before: Store::NEW,
        backup: None,
        replicas: [Replica { call: Call::Idle, ledger: None, seen: false }; REPLICAS_MAX],
        copies: [0; INVOICES_MAX],
        provider: Provider::NEW,
        operator: None,
        drawn: [0; INVOICES_MAX],
        faults: 0,
        went_back: false,
        conflict: false,
    };

    pub(crate) fn pack(mut self) -> Packed {
        let mut writer = Writer::default();
        self.visit(&mut writer);
        writer.words
    }

    pub(crate) fn unpack(words: &Packed) -> Self {
        let mut world = Self::NEW;
        world.visit(&mut Reader::new(words));
        world
    }

    fn visit(&mut self, codec: &mut impl Codec) {
        self.store.visit(codec);
        self.before.visit(codec);
        codec.option(&mut self.backup, Store::NEW, Store::visit);
        for replica in &mut self.replicas {
            replica.visit(codec);
        }
        for copies in &mut self.copies {
            codec.word(copies);
        }
        self.provider.visit(codec);
        codec.option(&mut self.operator, (0, 0), |(invoice, attempt), codec| {
            codec.bits(invoice, 1);
            codec.bits(attempt, 1);
        });
        for drawn in &mut self.drawn {
            codec.bits(drawn, 3);
        }
        codec.bits(&mut self.faults, 4);
        codec.flag(&mut self.went_back);
        codec.flag(&mut self.conflict);
    }
}

const NO_ATTEMPT: Attempt =
    Attempt { state: AttemptState::Intent, sends: 0, lease: Lease::Held, key: 0, amount: 0 };
const LEASES: [Lease; 3] = [Lease::Held, Lease::Due, Lease::Never];
const DECISIONS: [Decision; 3] = [Decision::Charged, Decision::Refused, Decision::Voided];
const NO_JOB: Job = Job { invoice: 0, attempt: 0, in_doubt: false, sends: 0, key: 0, amount: 0 };
const NO_HEAD: Head = Head { credential: 0, expects: None, seen: false };

impl Store {
    fn visit(&mut self, codec: &mut impl Codec) {
        for invoice in &mut self.invoices {
            invoice.visit(codec);
        }
        ledger(&mut self.ledger, codec);
        codec.flag(&mut self.seen);
        codec.bits(&mut self.deployment, 1);
    }
}

impl Invoice {
    fn visit(&mut self, codec: &mut impl Codec) {
        codec.one_of(&mut self.state, InvoiceState::ALL);
        codec.option(&mut self.paid_by, PaidBy::Charge, |by, codec| codec.one_of(by, PaidBy::ALL));
        codec.option(&mut self.reason, AttentionReason::Rejected, |reason, codec| {
            codec.one_of(reason, AttentionReason::ALL);
        });
        codec.bits(&mut self.amount, 1);
        for attempt in &mut self.attempts {
            codec.option(attempt, NO_ATTEMPT, |attempt, codec| {
                codec.one_of(&mut attempt.state, AttemptState::ALL);
                codec.bits(&mut attempt.sends, 2);
                codec.one_of(&mut attempt.lease, &LEASES);
                codec.bits(&mut attempt.key, 2);
                codec.bits(&mut attempt.amount, 1);
            });
        }
    }
}

impl Replica {
    fn visit(&mut self, codec: &mut impl Codec) {
        ledger(&mut self.ledger, codec);
        codec.flag(&mut self.seen);
        let mut phase = match self.call {
            Call::Idle => 0,
            Call::Claimed(_) => 1,
            Call::Waiting(..) => 2,
            Call::Completed(..) => 3,
        };
        codec.bits(&mut phase, 2);
        if phase == 0 {
            self.call = Call::Idle;
            return;
        }
        let mut job = self.call.job().unwrap_or(NO_JOB);
        job.visit(codec);
        self.call = match phase {
            1 => Call::Claimed(job),
            2 => {
                let mut head = if let Call::Waiting(_, head) = self.call { head } else { NO_HEAD };
                codec.bits(&mut head.credential, 1);
                ledger(&mut head.expects, codec);
                codec.flag(&mut head.seen);
                Call::Waiting(job, head)
            }
            _ => {
                let mut result =
                    if let Call::Completed(_, result) = self.call { result } else { CallResult::Unsent };
                result.visit(codec);
                Call::Completed(job, result)
            }
        };
    }
}

impl Job {
    fn visit(&mut self, codec: &mut impl Codec) {
        codec.bits(&mut self.invoice, 1);
        codec.bits(&mut self.attempt, 1);
        codec.flag(&mut self.in_doubt);
        codec.bits(&mut self.sends, 2);
        codec.bits(&mut self.key, 2);
        codec.bits(&mut self.amount, 1);
    }
}

impl CallResult {
    fn visit(&mut self, codec: &mut impl Codec) {
        let mut kind = match self {
            Self::Answer(_) => 0,
            Self::Unsent => 1,
            Self::NotAllowed => 2,
        };
        codec.bits(&mut kind, 2);
        let mut class = if let Self::Answer(class) = *self { class } else { AnswerClass::InDoubt };
        if kind == 0 {
            codec.one_of(&mut class, AnswerClass::ALL);
        }
        *self = match kind {
            0 => Self::Answer(class),
            1 => Self::Unsent,
            _ => Self::NotAllowed,
        };
    }
}

impl Provider {
    fn visit(&mut self, codec: &mut impl Codec) {
        let row = Row { decision: Decision::Charged, amount: 0, credential: 0 };
        for slot in self.rows.iter_mut().flatten() {
            codec.option(slot, row, |row, codec| {
                codec.one_of(&mut row.decision, &DECISIONS);
                codec.bits(&mut row.amount, 1);
                codec.bits(&mut row.credential, 1);
            });
        }
        for charges in &mut self.charges {
            codec.bits(charges, 2);
        }
        codec.bits(&mut self.ledger, 1);
        codec.flag(&mut self.set_back);
        codec.option(&mut self.deployment, 0, |deployment, codec| codec.bits(deployment, 1));
        codec.bits(&mut self.credential, 1);
        for invalid in &mut self.invalid {
            codec.flag(invalid);
        }
    }
}

fn ledger(ledger: &mut Option<u8>, codec: &mut impl Codec) {
    codec.option(ledger, 0, |ledger, codec| codec.bits(ledger, 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_world_is_unpacked_unchanged() {
        let job = Job { invoice: 1, attempt: 1, in_doubt: true, sends: 3, key: 3, amount: 1 };
        let head = Head { credential: 1, expects: Some(1), seen: true };
        let mut world = World::NEW;
        let attempt =
            Attempt { state: AttemptState::Voided, sends: 3, lease: Lease::Never, key: 3, amount: 1 };
        world.store.invoices[1] = Invoice {
            state: InvoiceState::Attention,
            paid_by: Some(PaidBy::Resolve),
            reason: Some(AttentionReason::ChargedLate),
            amount: 1,
            attempts: [Some(attempt); ATTEMPTS_MAX],
        };
        (world.store.ledger, world.store.seen, world.store.deployment) = (Some(1), true, 1);
        (world.provider.set_back, world.provider.deployment) = (true, Some(1));
        world.before = world.store;
        world.backup = Some(world.store);
        world.replicas[0].call = Call::Waiting(job, head);
        world.replicas[1].call = Call::Completed(job, CallResult::Answer(AnswerClass::NotSent));
        world.replicas[2].call = Call::Claimed(job);
        world.copies[1] = job.request(head).place();
        world.provider.rows[1][3] = Some(Row { decision: Decision::Voided, amount: 1, credential: 1 });
        world.provider.charge(1);
        world.operator = Some((1, 1));
        (world.faults, world.went_back, world.conflict) = (9, true, true);
        assert_eq!(World::unpack(&world.pack()), world);
    }

    #[test]
    fn each_request_has_a_place_of_its_own() {
        for place in 0..PLACES {
            assert_eq!(Request::at(0, place).place(), 1 << place);
        }
    }
}
