//! Every possible step from one state. The production functions decide what an answer does to an attempt, and what may
//! be sent. Modelled, as in the engine's driver: claim, send, receive, store the ledger, settle. Each replica has one
//! call at a time, and a pause is any other step in between.

use billing::invoice::{AttemptState, Reference};
use billing::protocol::key::{DeploymentId, Key};
use billing::protocol::transition::{AnswerClass, Outcome, Sent, may_send, on_answer};
use billing::store::Settled;
use uuid::Uuid;

use crate::answers::{Answers, Classified, NO_ANSWER, ProviderReply, names_ledger, names_row};
use crate::faults::Fault;
use crate::protocol::{Bounds, Expects, KeyRule, Leases, OnDoubt, Protocol, SettlesBy};
use crate::provider;
use crate::store::{self, index};
use crate::world::{
    ATTEMPTS_MAX, Call, CallResult, Decision, Head, INVOICES_MAX, Job, KEYS_MAX, Lease, REPLICAS_MAX,
    Replica, Request, World,
};

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// A step that happens without faults, also after faults have stopped.
    Regular,
    /// A step that is no fault, and that may never happen.
    Choice,
    /// A fault or an operator action.
    Fault(Fault),
}

/// One step, with the details for its display.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Claim(usize, Job),
    ClaimAgain(usize, Job),
    Send(usize),
    GiveBack(usize),
    Hear(usize, Classified),
    SendCopy(usize),
    TimeOut(usize),
    Settle(usize, Outcome, Effect),
    Crash(usize),
    EndLease(usize, usize),
    Arrive(Request),
    DropCopy(Request),
    LoseCommit,
    BackUp,
    Restore,
    Decide(usize, usize),
    SayNotCharged(u8, u8),
    SayCharged(usize, usize),
    Edit(usize),
    ChangeCredential,
    MendCredential,
    ReplaceLedger,
    ForgetKey(usize, usize),
    SetLedgerBack,
    LoseId,
}

/// The effect of a settlement, without details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Recorded,
    Same,
    Conflict,
    Unknown,
}

/// A step, its kind, and the world after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) step: Step,
    pub(crate) nature: Nature,
    pub(crate) world: World,
}

/// A protocol within bounds.
pub(crate) struct Machine {
    pub(crate) protocol: Protocol,
    pub(crate) bounds: Bounds,
    answers: Answers,
    /// The keys of the production rule, by invoice, deployment and attempt, each the number of its text.
    derived: [[u8; KEYS_MAX]; INVOICES_MAX],
}

impl Machine {
    /// Creates a machine with the tables for its steps.
    pub(crate) fn new(protocol: Protocol, bounds: Bounds) -> Self {
        let derived = std::array::from_fn(derive);
        Self { protocol, bounds, answers: Answers::new(&protocol), derived }
    }

    /// The initial worlds: with and without a first amount that the provider calls invalid.
    pub(crate) fn roots(&self) -> Vec<World> {
        let mut invalid = World::NEW;
        invalid.provider.invalid[0] = true;
        vec![World::NEW, invalid]
    }

    /// All steps from this world.
    pub(crate) fn steps(&self, world: &World, out: &mut Vec<Next>) {
        out.clear();
        for at in 0..self.bounds.replicas {
            match world.replicas[at].call {
                Call::Idle => self.claim(world, at, out),
                Call::Claimed(job) => self.send(world, at, job, out),
                Call::Waiting(job, head) => self.wait(world, at, job, head, out),
                Call::Completed(job, result) => self.settle(world, at, job, result, out),
            }
            self.crash(world, at, out);
        }
        self.leases(world, out);
        self.copies(world, out);
        self.environment(world, out);
        self.people(world, out);
        // A commit without a change is none: the commit before it can still be lost.
        for next in out.iter_mut().filter(|next| next.world.store == world.store) {
            next.world.before = world.before;
        }
    }

    /// The world after one more fault of this kind, if it may still happen.
    pub(crate) fn fault(&self, world: &World, kind: Fault) -> Option<World> {
        let may = self.bounds.faults.has(kind) && world.faults < self.bounds.faults_max;
        may.then(|| World { faults: world.faults + 1, ..*world })
    }

    /// Saves the store, so that the following change counts as its newest commit.
    pub(crate) fn committing(&self, world: &mut World) {
        if self.bounds.faults.has(Fault::CommitLost) {
            world.before = world.store;
        }
    }

    fn claim(&self, world: &World, at: usize, out: &mut Vec<Next>) {
        for invoice in 0..self.bounds.invoices {
            let mut next = *world;
            self.committing(&mut next);
            let drawn = &mut next.drawn[invoice];
            let first = usize::from(world.store.deployment) * ATTEMPTS_MAX;
            let draw = |number: usize| match self.protocol.keys {
                KeyRule::Derived => Some(self.derived[invoice][first + number]),
                KeyRule::Journaled | KeyRule::PerTry => draw_key(drawn),
            };
            if let Some(job) = store::claim(&mut next.store, invoice, draw) {
                next.replicas[at].call = Call::Claimed(job);
                out.push(Next { step: Step::Claim(at, job), nature: Nature::Regular, world: next });
            }
            for attempt in 0..ATTEMPTS_MAX {
                self.claim_again(world, at, invoice, attempt, out);
            }
        }
    }

    fn claim_again(&self, world: &World, at: usize, invoice: usize, attempt: usize, out: &mut Vec<Next>) {
        let mut next = *world;
        self.committing(&mut next);
        let Some(mut job) = store::claim_again(&mut next.store, invoice, attempt) else { return };
        if self.protocol.keys == KeyRule::PerTry {
            let Some(key) = draw_key(&mut next.drawn[invoice]) else { return };
            job.key = key;
            if let Some(attempt) = &mut next.store.invoices[invoice].attempts[attempt] {
                attempt.key = key;
            }
        }
        if self.protocol.resends_invoice {
            job.amount = next.store.invoices[invoice].amount;
        }
        next.replicas[at].call = Call::Claimed(job);
        out.push(Next { step: Step::ClaimAgain(at, job), nature: Nature::Regular, world: next });
    }

    fn send(&self, world: &World, at: usize, job: Job, out: &mut Vec<Next>) {
        let mut next = *world;
        next.replicas[at].call = match may_send(self.protocol.idempotency, sent(job)) {
            Err(_) => Call::Completed(job, CallResult::NotAllowed),
            Ok(()) => {
                let expects = world.replicas[at].ledger.filter(|_| self.protocol.expects != Expects::Nothing);
                let seen = world.replicas[at].seen;
                Call::Waiting(job, Head { credential: world.provider.credential, expects, seen })
            }
        };
        out.push(Next { step: Step::Send(at), nature: Nature::Regular, world: next });
        if let Some(mut next) = self.fault(world, Fault::GivenBack) {
            next.replicas[at].call = Call::Completed(job, CallResult::Unsent);
            let nature = Nature::Fault(Fault::GivenBack);
            out.push(Next { step: Step::GiveBack(at), nature, world: next });
        }
    }

    fn wait(&self, world: &World, at: usize, job: Job, head: Head, out: &mut Vec<Next>) {
        let request = job.request(head);
        let ledger = world.provider.ledger;
        for (reply, after) in provider::deliver(&self.protocol, &world.provider, &request) {
            let mut next = *world;
            next.provider = after;
            for &word in self.answers.genuine(reply, head.expects, ledger) {
                let names = names_ledger(self.protocol.idempotency, word.class);
                self.receive_answer(next, at, job, word, names.then_some(ledger), Nature::Regular, out);
            }
            let executed = matches!(reply, ProviderReply::Charged | ProviderReply::Refused);
            if !executed {
                continue;
            }
            for &word in self.answers.corrupted(head.expects, ledger) {
                self.misdeliver(&next, at, job, word, Fault::ResponseCorrupted, out);
            }
            self.misdeliver(&next, at, job, NO_ANSWER, Fault::AnswerLost, out);
        }
        for &word in self.answers.not_taken(head.expects, ledger) {
            self.misdeliver(world, at, job, word, Fault::NotTaken, out);
        }
        for &word in self.answers.genuine(ProviderReply::KeyInFlight, head.expects, ledger) {
            self.misdeliver(world, at, job, word, Fault::KeyInFlight, out);
        }
        self.misdeliver(world, at, job, NO_ANSWER, Fault::RequestLost, out);
        self.lose_sender(world, at, job, &request, out);
    }

    /// The request continues without its sender, or is sent twice.
    fn lose_sender(&self, world: &World, at: usize, job: Job, request: &Request, out: &mut Vec<Next>) {
        let copies = |next: &mut World| next.copies[usize::from(request.invoice)] |= request.place();
        if let Some(mut next) = self.fault(world, Fault::RequestDelayed) {
            copies(&mut next);
            next.replicas[at].call = Call::Completed(job, CallResult::Answer(NO_ANSWER.class));
            let nature = Nature::Fault(Fault::RequestDelayed);
            out.push(Next { step: Step::TimeOut(at), nature, world: next });
        }
        if let Some(mut next) = self.fault(world, Fault::RequestDuplicated) {
            copies(&mut next);
            let nature = Nature::Fault(Fault::RequestDuplicated);
            out.push(Next { step: Step::SendCopy(at), nature, world: next });
        }
    }

    fn misdeliver(
        &self,
        world: &World,
        at: usize,
        job: Job,
        word: Classified,
        kind: Fault,
        out: &mut Vec<Next>,
    ) {
        if let Some(next) = self.fault(world, kind) {
            self.receive_answer(next, at, job, word, None, Nature::Fault(kind), out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step, each of another kind")]
    fn receive_answer(
        &self,
        mut next: World,
        at: usize,
        job: Job,
        word: Classified,
        names: Option<u8>,
        nature: Nature,
        out: &mut Vec<Next>,
    ) {
        let mut class = word.class;
        if let (None, Some(named), Expects::Remembered) =
            (next.replicas[at].ledger, names, self.protocol.expects)
        {
            if next.store.ledger.is_none() {
                self.committing(&mut next);
                next.store.ledger = Some(named);
            }
            next.replicas[at].ledger = next.store.ledger;
            if next.store.ledger != Some(named) {
                class = AnswerClass::EndpointWrong { not_executed: false };
            }
        }
        if self.bounds.faults.has(Fault::LedgerSetBack) && names.is_some() && names_row(class) {
            next.replicas[at].seen = true;
        }
        next.replicas[at].call = Call::Completed(job, CallResult::Answer(class));
        let step = Step::Hear(at, Classified { class, ..word });
        out.push(Next { step, nature, world: next });
    }

    fn settle(&self, world: &World, at: usize, job: Job, result: CallResult, out: &mut Vec<Next>) {
        let outcome = self.outcome(world, job, result);
        let mut next = *world;
        let settled = self.record(&mut next, job, outcome);
        // Done in the transaction that settles: see `settle_and_see` of billing's store.
        next.store.seen |= world.replicas[at].seen;
        let step = Step::Settle(at, outcome, settled);
        let after = World { replicas: idle(next.replicas, at), ..next };
        out.push(Next { step, nature: Nature::Regular, world: after });
        // The engine records each outcome again, except "not sent": that would undo another replica's send.
        let again = outcome != Outcome::NotSent || self.protocol.unsends_again;
        if let Some(next) = self.fault(&next, Fault::CommitUnheard).filter(|_| again) {
            out.push(Next { step, nature: Nature::Fault(Fault::CommitUnheard), world: next });
        }
    }

    /// The outcome to record, by the production functions; the broken variants differ here.
    fn outcome(&self, world: &World, job: Job, result: CallResult) -> Outcome {
        let idempotency = self.protocol.idempotency;
        let class = match result {
            CallResult::Unsent => return Outcome::NotSent,
            CallResult::NotAllowed => {
                return may_send(idempotency, sent(job)).expect_err("it was not allowed when it was claimed");
            }
            CallResult::Answer(class) => class,
        };
        let outcome = on_answer(idempotency, sent(job), class);
        let doubt = matches!(outcome, Outcome::InDoubt(_));
        match self.protocol.on_doubt {
            OnDoubt::NewKey if doubt => Outcome::Refused,
            OnDoubt::LookUp if doubt => {
                let head = Head { credential: 0, expects: None, seen: false };
                match provider::row(&world.provider, &job.request(head)).map(|row| row.decision) {
                    Some(Decision::Charged) => Outcome::Charged,
                    Some(Decision::Refused) => Outcome::Refused,
                    Some(Decision::Voided) | None => Outcome::Voided,
                }
            }
            _ => outcome,
        }
    }

    fn record(&self, next: &mut World, job: Job, outcome: Outcome) -> Effect {
        self.committing(next);
        let invoice = &mut next.store.invoices[usize::from(job.invoice)];
        let at = match self.protocol.settles_by {
            SettlesBy::Key => store::find(invoice, job.key),
            SettlesBy::Invoice => {
                let open = invoice.known().find(|(_, attempt)| attempt.state.is_open());
                open.or(invoice.known().last()).map(|(at, _)| at)
            }
        };
        match at.map_or(Settled::Unknown, |at| store::settle(invoice, at, outcome)) {
            Settled::Applied => Effect::Recorded,
            Settled::Same => Effect::Same,
            Settled::Unknown => Effect::Unknown,
            Settled::Conflict(_) => {
                next.conflict = true;
                Effect::Conflict
            }
        }
    }

    fn crash(&self, world: &World, at: usize, out: &mut Vec<Next>) {
        let Some(mut next) = self.fault(world, Fault::Crash) else { return };
        let replica = next.replicas[at];
        let knows = (replica.ledger, replica.seen) == (next.store.ledger, next.store.seen);
        if replica.call == Call::Idle && knows {
            return;
        }
        restart(&mut next, at);
        if self.protocol.leases == Leases::EndByRecovery {
            self.committing(&mut next);
            store::recover(&mut next.store);
        }
        out.push(Next { step: Step::Crash(at), nature: Nature::Fault(Fault::Crash), world: next });
    }

    /// Steps that end leases. The end of a lease by time is no fault once its holder is gone.
    fn leases(&self, world: &World, out: &mut Vec<Next>) {
        if self.protocol.leases != Leases::EndByTime {
            return;
        }
        for invoice in 0..self.bounds.invoices {
            for (at, attempt) in world.store.invoices[invoice].known() {
                if !attempt.state.is_open() || attempt.lease != Lease::Held {
                    continue;
                }
                let held = |job: Job| (job.invoice, job.attempt) == (index(invoice), index(at));
                let held = world.replicas.iter().any(|replica| replica.call.job().is_some_and(held));
                let next = if held { self.fault(world, Fault::LeaseEnds) } else { Some(*world) };
                let Some(mut next) = next else { continue };
                let nature = if held { Nature::Fault(Fault::LeaseEnds) } else { Nature::Regular };
                if let Some(attempt) = &mut next.store.invoices[invoice].attempts[at] {
                    attempt.lease = Lease::Due;
                }
                out.push(Next { step: Step::EndLease(invoice, at), nature, world: next });
            }
        }
    }
}

/// Arguments of the production functions for a claimed attempt.
fn sent(job: Job) -> Sent {
    let state = if job.in_doubt { AttemptState::InDoubt } else { AttemptState::Intent };
    Sent { state, sends: u32::from(job.sends) }
}

/// Restarts a process; a request that it had sent continues.
pub(crate) fn restart(next: &mut World, at: usize) {
    if let Call::Waiting(job, head) = next.replicas[at].call {
        let request = job.request(head);
        next.copies[usize::from(request.invoice)] |= request.place();
    }
    next.replicas[at].call = Call::Idle;
    (next.replicas[at].ledger, next.replicas[at].seen) = (next.store.ledger, next.store.seen);
}

fn idle(mut replicas: [Replica; REPLICAS_MAX], at: usize) -> [Replica; REPLICAS_MAX] {
    replicas[at].call = Call::Idle;
    replicas
}

fn draw_key(drawn: &mut u8) -> Option<u8> {
    let key = *drawn;
    (usize::from(key) < KEYS_MAX).then(|| {
        *drawn += 1;
        key
    })
}

/// The production keys of an invoice's attempts. Equal keys would get one number.
fn derive(invoice: usize) -> [u8; KEYS_MAX] {
    let reference = Reference::new(format!("I{}", invoice + 1)).expect("I1 and I2 are references");
    let key = |at: usize| {
        let deployment = DeploymentId(Uuid::from_u128((at / ATTEMPTS_MAX) as u128));
        Key::new(deployment, &reference, u32::from(index(at % ATTEMPTS_MAX)) + 1)
    };
    let texts: [Key; KEYS_MAX] = std::array::from_fn(key);
    std::array::from_fn(|at| index(texts.iter().position(|key| *key == texts[at]).unwrap_or(at)))
}
