//! Steps of the environment: late copies, the disk, backups, the provider's ledger, and operators. Modelled: an
//! operator's "not charged", as in the engine's `resolve`. It needs a void first, or, without keys, a check that no
//! request can be alive. The decision follows, with any step in between.

use billing::invoice::{AttemptState, InvoiceState};
use billing::protocol::transition::Idempotency;

use crate::faults::Fault;
use crate::machine::{Machine, Nature, Next, Step, restart};
use crate::protocol::{Keeps, Leases, Protocol};
use crate::provider;
use crate::store::{self, index};
use crate::world::{Call, Decision, Head, Invoice, KEYS_MAX, PLACES, Request, Store, World};

impl Machine {
    /// Late requests arrive, or are lost.
    pub(crate) fn copies(&self, world: &World, out: &mut Vec<Next>) {
        for invoice in 0..self.bounds.invoices {
            if world.copies[invoice] == 0 {
                continue;
            }
            for place in (0..PLACES).filter(|place| world.copies[invoice] >> place & 1 == 1) {
                let request = Request::at(index(invoice), place);
                let without = |mut next: World| {
                    next.copies[invoice] &= !request.place();
                    next
                };
                for (_, after) in provider::deliver(&self.protocol, &world.provider, &request) {
                    let mut next = without(*world);
                    next.provider = after;
                    out.push(Next { step: Step::Arrive(request), nature: Nature::Regular, world: next });
                }
                if let Some(next) = self.fault(world, Fault::CopyLost) {
                    let nature = Nature::Fault(Fault::CopyLost);
                    out.push(Next { step: Step::DropCopy(request), nature, world: without(next) });
                }
            }
        }
    }

    /// Steps of the disk, the backup and the provider.
    pub(crate) fn environment(&self, world: &World, out: &mut Vec<Next>) {
        self.disk(world, out);
        self.lose_id(world, out);
        self.ledger(world, out);
        for invoice in 0..self.bounds.invoices {
            self.push_edits(world, invoice, out);
        }
        if world.provider.credential == 0 {
            if let Some(mut next) = self.fault(world, Fault::Credential) {
                next.provider.credential = 1;
                let nature = Nature::Fault(Fault::Credential);
                out.push(Next { step: Step::ChangeCredential, nature, world: next });
            }
        } else {
            let mut next = *world;
            next.provider.credential = 0;
            out.push(Next { step: Step::MendCredential, nature: Nature::Regular, world: next });
        }
    }

    fn disk(&self, world: &World, out: &mut Vec<Next>) {
        if world.before != world.store
            && self.bounds.faults.has(Fault::CommitLost)
            && let Some(mut next) = self.fault(world, Fault::CommitLost)
        {
            next.store = next.before;
            next.went_back = true;
            // A store inside the process loses a commit only when the whole machine fails.
            if self.protocol.leases == Leases::EndByRecovery {
                self.restart_all(&mut next);
            }
            let nature = Nature::Fault(Fault::CommitLost);
            out.push(Next { step: Step::LoseCommit, nature, world: next });
        }
        let Some(mut next) = self.fault(world, Fault::Restore) else { return };
        match next.backup {
            None if !next.went_back => {
                let next = World { backup: Some(world.store), ..*world };
                out.push(Next { step: Step::BackUp, nature: Nature::Choice, world: next });
            }
            Some(backup)
                if backup != next.store
                    && (self.protocol.edits_unrepaired || keeps_edits(world, &backup)) =>
            {
                next.store = backup;
                next.before = backup;
                next.backup = None;
                next.went_back = true;
                next.operator = None;
                self.restart_all(&mut next);
                let nature = Nature::Fault(Fault::Restore);
                out.push(Next { step: Step::Restore, nature, world: next });
            }
            _ => {}
        }
    }

    /// Starts billing on an empty store: a copy without its log, another file, an empty database. The invoices are
    /// imported again.
    fn lose_id(&self, world: &World, out: &mut Vec<Next>) {
        if world.store.deployment == 1 || !keeps_edits(world, &Store::NEW) {
            return;
        }
        let Some(mut next) = self.fault(world, Fault::IdLost) else { return };
        next.store = Store { deployment: 1, ..Store::NEW };
        (next.before, next.went_back, next.operator) = (next.store, true, None);
        self.restart_all(&mut next);
        let nature = Nature::Fault(Fault::IdLost);
        out.push(Next { step: Step::LoseId, nature, world: next });
    }

    fn restart_all(&self, next: &mut World) {
        for at in 0..self.bounds.replicas {
            restart(next, at);
        }
        if self.protocol.leases == Leases::EndByRecovery {
            store::recover(&mut next.store);
            next.before = next.store;
        }
    }

    fn ledger(&self, world: &World, out: &mut Vec<Next>) {
        if world.provider.ledger == 0
            && (self.protocol.replaced_early || all_expect_a_ledger(world, self.bounds.replicas))
            && let Some(mut next) = self.fault(world, Fault::LedgerReplaced)
        {
            next.provider.ledger = 1;
            next.provider.rows = World::NEW.provider.rows;
            let nature = Nature::Fault(Fault::LedgerReplaced);
            out.push(Next { step: Step::ReplaceLedger, nature, world: next });
        }
        if !world.provider.set_back
            && world.provider.rows != World::NEW.provider.rows
            && (self.protocol.set_back_early || all_have_seen_a_row(world))
            && let Some(mut next) = self.fault(world, Fault::LedgerSetBack)
        {
            next.provider.set_back = true;
            next.provider.rows = World::NEW.provider.rows;
            // Replicas reload the store within seconds, long before a ledger is restored.
            if !self.protocol.set_back_early {
                let seen = next.store.seen;
                next.replicas.iter_mut().take(self.bounds.replicas).for_each(|replica| replica.seen |= seen);
            }
            let nature = Nature::Fault(Fault::LedgerSetBack);
            out.push(Next { step: Step::SetLedgerBack, nature, world: next });
        }
        for (invoice, rows) in world.provider.rows.iter().enumerate() {
            for key in (0..KEYS_MAX).filter(|key| rows[*key].is_some()) {
                if let Some(mut next) = self.fault(world, Fault::KeyForgotten) {
                    next.provider.rows[invoice][key] = None;
                    let nature = Nature::Fault(Fault::KeyForgotten);
                    out.push(Next { step: Step::ForgetKey(invoice, key), nature, world: next });
                }
            }
        }
    }

    fn push_edits(&self, world: &World, invoice: usize, out: &mut Vec<Next>) {
        let row = &world.store.invoices[invoice];
        if store::may_edit(row)
            && (!world.went_back || self.protocol.edits_unrepaired)
            && let Some(mut next) = self.fault(world, Fault::Edited)
        {
            self.committing(&mut next);
            store::edit(&mut next.store.invoices[invoice]);
            let nature = Nature::Fault(Fault::Edited);
            out.push(Next { step: Step::Edit(invoice), nature, world: next });
        }
        if row.amount == 0
            && row.any(|attempt| attempt.state.is_open())
            && let Some(mut next) = self.fault(world, Fault::EditedByHand)
        {
            self.committing(&mut next);
            next.store.invoices[invoice].amount = 1;
            let nature = Nature::Fault(Fault::EditedByHand);
            out.push(Next { step: Step::Edit(invoice), nature, world: next });
        }
    }

    /// Operator decisions on open attempts, and on final ones whose invoice needs manual resolution.
    pub(crate) fn people(&self, world: &World, out: &mut Vec<Next>) {
        if let Some((invoice, attempt)) = world.operator {
            let mut next = *world;
            next.operator = None;
            self.committing(&mut next);
            store::resolve(&mut next.store.invoices[usize::from(invoice)], usize::from(attempt), false);
            let step = Step::SayNotCharged(invoice, attempt);
            out.push(Next { step, nature: Nature::Regular, world: next });
        }
        for invoice in 0..self.bounds.invoices {
            for (at, attempt) in world.store.invoices[invoice].known() {
                let waits = is_parked(world, index(invoice));
                if !attempt.state.is_open() && !waits {
                    continue;
                }
                let expects = world.store.ledger;
                let head = Head { credential: world.provider.credential, expects, seen: world.store.seen };
                let (key, amount) = (attempt.key, attempt.amount);
                let request = Request { invoice: index(invoice), key, amount, head };
                self.decide(world, at, &request, out);
                if is_charged(world, &request) {
                    self.declare_charged(world, invoice, at, out);
                }
            }
        }
    }

    /// An operator checks that an attempt is not charged.
    fn decide(&self, world: &World, at: usize, request: &Request, out: &mut Vec<Next>) {
        if world.operator.is_some() {
            return;
        }
        let Some(mut next) = self.fault(world, Fault::DeclaredNotCharged) else { return };
        let state = world.store.invoices[usize::from(request.invoice)].attempts[at].map(|one| one.state);
        let sure = match (self.protocol.believes_at_once, self.protocol.idempotency) {
            // A final attempt needs no check: the decision concerns its invoice.
            _ if !state.is_some_and(AttemptState::is_open) => true,
            (true, _) => !is_charged(world, request),
            (false, Idempotency::Keys) => {
                provider::void(&self.protocol, &mut next.provider, request) == Some(true)
            }
            (false, Idempotency::None) => {
                let parked = self.protocol.believes_unparked || is_parked(world, request.invoice);
                parked && !is_charged(world, request) && !is_alive(world, at, request)
            }
        };
        if sure {
            next.operator = Some((request.invoice, index(at)));
            let nature = Nature::Fault(Fault::DeclaredNotCharged);
            out.push(Next { step: Step::Decide(usize::from(request.invoice), at), nature, world: next });
        }
    }

    fn declare_charged(&self, world: &World, invoice: usize, at: usize, out: &mut Vec<Next>) {
        let Some(mut next) = self.fault(world, Fault::DeclaredCharged) else { return };
        self.committing(&mut next);
        store::resolve(&mut next.store.invoices[invoice], at, true);
        let nature = Nature::Fault(Fault::DeclaredCharged);
        out.push(Next { step: Step::SayCharged(invoice, at), nature, world: next });
    }
}

/// Whether no amount was edited after the backup.
fn keeps_edits(world: &World, backup: &Store) -> bool {
    let amounts = |store: &Store| store.invoices.map(|invoice| invoice.amount);
    amounts(&world.store) == amounts(backup)
}

fn is_charged(world: &World, request: &Request) -> bool {
    provider::row(&world.provider, request).is_some_and(|row| row.decision == Decision::Charged)
}

/// Whether an invoice needs manual resolution, so that no attempt of it is claimed meanwhile.
fn is_parked(world: &World, invoice: u8) -> bool {
    world.store.invoices[usize::from(invoice)].state == InvoiceState::Attention
}

/// Whether a request for this attempt is in flight, or is about to be sent.
fn is_alive(world: &World, at: usize, request: &Request) -> bool {
    let ours = |job: crate::world::Job| (job.invoice, job.attempt) == (request.invoice, index(at));
    let sending = world.replicas.iter().any(|replica| match replica.call {
        Call::Claimed(job) | Call::Waiting(job, _) => ours(job),
        Call::Idle | Call::Completed(..) => false,
    });
    let copies = world.copies[usize::from(request.invoice)];
    let under_way = (0..PLACES)
        .any(|place| copies >> place & 1 == 1 && Request::at(request.invoice, place).key == request.key);
    sending || under_way
}

/// Whether every request that is alive or can still be made names the ledger that its sender expects.
fn all_expect_a_ledger(world: &World, replicas: usize) -> bool {
    let stores = [Some(world.store), Some(world.before), world.backup];
    let replicas = world.replicas.iter().take(replicas).all(|replica| {
        let names = !matches!(replica.call, Call::Waiting(_, head) if head.expects.is_none());
        names && replica.ledger.is_some()
    });
    let copies = (0_u8..).zip(world.copies).all(|(invoice, copies)| {
        (0..PLACES)
            .all(|place| copies >> place & 1 == 0 || Request::at(invoice, place).head.expects.is_some())
    });
    stores.iter().flatten().all(|store| store.ledger.is_some()) && replicas && copies
}

/// Whether every store, and every request in flight, names a row that was seen.
fn all_have_seen_a_row(world: &World) -> bool {
    let stores = [Some(world.store), Some(world.before), world.backup];
    let waiting = world.replicas.iter().all(|replica| match replica.call {
        Call::Waiting(_, head) => head.seen,
        Call::Idle | Call::Claimed(_) | Call::Completed(..) => true,
    });
    stores.iter().flatten().all(|store| store.seen)
        && waiting
        && world.copies.iter().all(|copies| *copies == 0)
}

/// Whether an invoice waits for an event that no step here causes: a ledger that an operator must accept, or a key of
/// another account.
pub(crate) fn waits_outside(protocol: &Protocol, world: &World, at: usize, invoice: &Invoice) -> bool {
    let foreign = |key: u8| {
        let row = world.provider.rows[at][usize::from(key)];
        let shown = world.provider.credential;
        protocol.keeps == Keeps::KeysOfTwoAccounts && row.is_some_and(|row| row.credential != shown)
    };
    let unknown = world.provider.deployment.is_some_and(|known| known != world.store.deployment);
    world.provider.ledger == 1
        || world.provider.set_back
        || unknown
        || invoice.any(|attempt| attempt.state.is_open() && foreign(attempt.key))
}
