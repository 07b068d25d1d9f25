//! The payment service in the model: one delivery, decided by the production rule for known keys. Modelled: a delivery
//! is one durable step, in the order ledger check, deployment check, validation, row that was seen, key, decision.
//! Called: which deployment may charge. Knows no billing.

use payments::amount::Minor;
use payments::deployments::{Admission, Facts, admit};
use payments::keys::{Fingerprint, FingerprintVersion, Key, Known, judge_known_key};
use payments::ledger::{Entry, Row as LedgerRow, Seq, State};

use crate::answers::ProviderReply;
use crate::protocol::{Keeps, KeyRule, Protocol};
use crate::world::{Decision, Provider, Request, Row};

/// Possible results of one delivery: the reply and the provider's next state.
pub(crate) type Execution = (ProviderReply, Provider);

/// Delivers a request; there are two results when the provider is free to charge or to refuse.
pub(crate) fn deliver(protocol: &Protocol, provider: &Provider, request: &Request) -> Vec<Execution> {
    if request.head.expects.is_some_and(|expected| expected != provider.ledger) {
        return vec![(ProviderReply::LedgerMismatch, *provider)];
    }
    let Some(admitted) = admitted(protocol, provider, request) else {
        return vec![(ProviderReply::DeploymentUnknown, *provider)];
    };
    let provider = &admitted;
    if request.amount == 0 && provider.invalid[usize::from(request.invoice)] {
        return vec![(ProviderReply::Invalid, *provider)];
    }
    if is_behind(protocol, provider, request) {
        return vec![(ProviderReply::LedgerBehind, *provider)];
    }
    let known = match (protocol.keeps, row(provider, request)) {
        (Keeps::Nothing, _) | (_, None) => None,
        (Keeps::KeysByCredential, Some(row)) if row.credential != request.head.credential => None,
        (_, known) => known,
    };
    match known {
        Some(row) => vec![(repeat(protocol, row, request), *provider)],
        None => vec![decide(provider, request, true), decide(provider, request, false)],
    }
}

/// The provider after it has accepted the request's deployment; `None` when it refuses the deployment.
fn admitted(protocol: &Protocol, provider: &Provider, request: &Request) -> Option<Provider> {
    let names_one = protocol.keeps != Keeps::Nothing && protocol.keys == KeyRule::Derived;
    if protocol.ignores_deployments || !names_one {
        return Some(*provider);
    }
    let deployment = request.deployment();
    let facts = Facts {
        is_known: provider.deployment == Some(deployment),
        has_others: provider.deployment.is_some_and(|known| known != deployment),
        ..Facts::default()
    };
    match admit(facts) {
        Admission::Known => Some(*provider),
        Admission::Record(_) => Some(Provider { deployment: Some(deployment), ..*provider }),
        Admission::Refused(_) => None,
    }
}

/// Whether the ledger lacks a row that the caller has seen.
fn is_behind(protocol: &Protocol, provider: &Provider, request: &Request) -> bool {
    provider.set_back && request.head.seen && !protocol.ignores_watermark
}

/// The row of the request's key.
pub(crate) fn row(provider: &Provider, request: &Request) -> Option<Row> {
    provider.rows[usize::from(request.invoice)][usize::from(request.key)]
}

fn decide(provider: &Provider, request: &Request, charged: bool) -> Execution {
    let mut provider = *provider;
    let stands = row(&provider, request).is_some_and(|row| row.decision == Decision::Charged);
    let decision = if charged || stands { Decision::Charged } else { Decision::Refused };
    let row = Row { decision, amount: request.amount, credential: request.head.credential };
    provider.rows[usize::from(request.invoice)][usize::from(request.key)] = Some(row);
    if charged {
        provider.charge(request.invoice);
    }
    (if charged { ProviderReply::Charged } else { ProviderReply::Refused }, provider)
}

/// The production rule for one more delivery of a known key.
fn repeat(protocol: &Protocol, row: Row, request: &Request) -> ProviderReply {
    let same_account =
        protocol.keeps != Keeps::KeysOfTwoAccounts || row.credential == request.head.credential;
    // Other ledgers answer in this way, and so does ours where it cannot distinguish the caller from the client that
    // was charged.
    if !same_account {
        return ProviderReply::KeyForeign;
    }
    match known(row.decision, row.amount == request.amount) {
        Known::Voided => ProviderReply::KeyVoided,
        Known::Reused => ProviderReply::KeyReused,
        Known::Replay if row.decision == Decision::Charged => ProviderReply::Charged,
        Known::Replay => ProviderReply::Refused,
    }
}

/// The production rule's answer, read once for each case.
fn known(decision: Decision, same_amount: bool) -> Known {
    static CASES: std::sync::OnceLock<Vec<Known>> = std::sync::OnceLock::new();
    let cases = CASES.get_or_init(|| {
        let decisions = [Decision::Charged, Decision::Refused, Decision::Voided];
        let all = decisions.into_iter().flat_map(|decision| {
            [false, true].map(|amount| {
                let (row, entry) = case(decision, amount);
                judge_known_key(&row, &entry)
            })
        });
        all.collect()
    });
    let at = match decision {
        Decision::Charged => 0,
        Decision::Refused => 1,
        Decision::Voided => 2,
    };
    cases[at * 2 + usize::from(same_amount)]
}

fn case(decision: Decision, same_amount: bool) -> (LedgerRow, Entry) {
    let state = match decision {
        Decision::Charged => State::Charged,
        Decision::Refused => State::Refused,
        Decision::Voided => State::Voided,
    };
    let key = Key::parse("bca1897f57e947286a9d2dcb4be588f1");
    let amount = Minor::hundredths(1215);
    let asked = Fingerprint::new(1, "EUR", amount);
    let entry = Entry {
        key: key.clone(),
        account: "antaeus".to_owned(),
        fingerprint: asked.clone(),
        reference: Some("I1".to_owned()),
        customer_id: 1,
        currency: "EUR".to_owned(),
        amount,
        state: State::Charged,
        decline: None,
        route: "/",
        deployment: None,
        seen: None,
        is_once: false,
    };
    let row = LedgerRow {
        seq: Seq(1),
        key,
        account: "antaeus".to_owned(),
        fingerprint_version: FingerprintVersion::CURRENT,
        fingerprint: if same_amount { asked } else { Fingerprint::new(1, "EUR", Minor::hundredths(1216)) },
        reference: Some("I1".to_owned()),
        customer_id: 1,
        currency: "EUR".to_owned(),
        amount,
        state,
        decline: None,
        route: "/".to_owned(),
        created_at_ms: 0,
    };
    (row, entry)
}

/// A void: `None` when the provider does not execute it, else whether the key is now not charged.
pub(crate) fn void(protocol: &Protocol, provider: &mut Provider, request: &Request) -> Option<bool> {
    if request.head.expects.is_some_and(|expected| expected != provider.ledger) {
        return None;
    }
    if is_behind(protocol, provider, request) {
        return None;
    }
    match row(provider, request) {
        Some(row)
            if protocol.keeps == Keeps::KeysOfTwoAccounts && row.credential != request.head.credential =>
        {
            None
        }
        Some(row) => Some(row.decision != Decision::Charged),
        None => {
            let tombstone = Row {
                decision: Decision::Voided,
                amount: request.amount,
                credential: request.head.credential,
            };
            provider.rows[usize::from(request.invoice)][usize::from(request.key)] = Some(tombstone);
            Some(true)
        }
    }
}
