//! How a replica classifies responses: those of our payment service on each of its routes, and those of proxies, load
//! shedders and closed ports. The production table judges each of them once. Knows no state; the caller passes the
//! provider's reply.

use billing::invoice::Reference;
use billing::protocol::key::{DeploymentId, Key};
use billing::protocol::transition::{AnswerClass, Idempotency};
use billing::provider::Dialect;
use billing::provider::answer::{RequestFacts, ResponseFacts, judge};
use uuid::Uuid;

use crate::protocol::{Expects, Keeps, Protocol};

/// The provider's reply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderReply {
    Charged,
    Refused,
    Invalid,
    KeyVoided,
    KeyReused,
    KeyInFlight,
    KeyForeign,
    LedgerMismatch,
    DeploymentUnknown,
    LedgerBehind,
}

impl ProviderReply {
    const ALL: [Self; 10] = [
        Self::Charged,
        Self::Refused,
        Self::Invalid,
        Self::KeyVoided,
        Self::KeyReused,
        Self::KeyInFlight,
        Self::KeyForeign,
        Self::LedgerMismatch,
        Self::DeploymentUnknown,
        Self::LedgerBehind,
    ];
}

/// A response that a replica may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Classified {
    /// The response's class in the production table.
    pub(crate) class: AnswerClass,
    /// The text for a trace.
    pub(crate) shown: &'static str,
}

/// The key in an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Ours,
    None,
    Other,
}

struct Answer {
    status: u16,
    content_type: &'static str,
    body: &'static str,
    echo: Echo,
    not_executed: bool,
    shown: &'static str,
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const HTML: &str = "text/html";

const fn json(status: u16, body: &'static str, shown: &'static str) -> Answer {
    Answer { status, content_type: JSON, body, echo: Echo::Ours, not_executed: false, shown }
}

const fn problem(status: u16, body: &'static str, shown: &'static str) -> Answer {
    Answer { content_type: PROBLEM, ..json(status, body, shown) }
}

/// A response from another sender than our payment service.
const fn foreign(status: u16, content_type: &'static str, body: &'static str, shown: &'static str) -> Answer {
    Answer { content_type, echo: Echo::None, ..json(status, body, shown) }
}

/// The responses of our payment service for each reply, one for each route that has one.
#[rustfmt::skip]
const GENUINE: &[(ProviderReply, Answer)] = &[
    (ProviderReply::Charged, json(200, r#"{"result":"true"}"#, "200 result true")),
    (ProviderReply::Charged, json(201, r#"{"id":"0123456789abcdef0123","result":true}"#, "201 result true")),
    (ProviderReply::Charged, json(200, r#"{"id":"I1"}"#, "200 with the id")),
    (ProviderReply::Refused, json(200, r#"{"result":"false"}"#, "200 result false")),
    (ProviderReply::Refused, json(422, r#"{"result":false,"message":"cannot process payment"}"#, "422 result false")),
    (ProviderReply::Refused, json(402, r#"{"id":"I1","error":"payment was refused"}"#, "402 with the id and an error")),
    (ProviderReply::Invalid, json(400, r#"{"error":"Invalid Request. Missing or faulty fields","result":"false"}"#, "400 Invalid Request")),
    (ProviderReply::Invalid, json(400, r#"{"result":false,"message":"invalid value"}"#, "400 invalid value")),
    (ProviderReply::Invalid, json(400, r#"{"error":"could not retrieve payment value"}"#, "400 could not retrieve")),
    (ProviderReply::Invalid, problem(400, r#"{"type":"urn:tinjis:problem:validation"}"#, "400 validation")),
    (ProviderReply::KeyVoided, problem(410, r#"{"type":"urn:tinjis:problem:key-voided"}"#, "410 key-voided")),
    (ProviderReply::KeyReused, problem(422, r#"{"type":"urn:tinjis:problem:key-reused"}"#, "422 key-reused")),
    (ProviderReply::KeyInFlight, problem(409, r#"{"type":"urn:tinjis:problem:key-in-flight"}"#, "409 key-in-flight")),
    (ProviderReply::KeyForeign, problem(403, r#"{"type":"urn:tinjis:problem:key-foreign"}"#, "403 key-foreign")),
    (ProviderReply::LedgerMismatch, problem(412, r#"{"type":"urn:tinjis:problem:ledger-mismatch"}"#, "412 ledger-mismatch")),
    (ProviderReply::DeploymentUnknown, problem(412, r#"{"type":"urn:tinjis:problem:deployment-unknown"}"#, "412 deployment-unknown")),
    (ProviderReply::LedgerBehind, problem(412, r#"{"type":"urn:tinjis:problem:ledger-behind"}"#, "412 ledger-behind")),
];

/// Responses that may replace the answer after the request was executed.
#[rustfmt::skip]
const SPOILT: &[Answer] = &[
    foreign(500, PROBLEM, r#"{"type":"about:blank"}"#, "500"),
    foreign(502, HTML, "<html>", "502 page"),
    foreign(503, HTML, "<html>", "503 without a mark"),
    foreign(504, HTML, "<html>", "504 page"),
    foreign(408, HTML, "", "408"),
    foreign(301, HTML, "", "301"),
    foreign(400, HTML, "<html>", "400 page"),
    foreign(409, HTML, "<html>", "409 page"),
    json(200, r#"{"result":"tr"#, "200 cut off"),
    json(200, "", "200 empty"),
    json(200, r#"{"result":true,"result":false}"#, "200 that says both"),
    json(200, r#"{"id":"I2"}"#, "200 with another id"),
    json(202, r#"{"result":true}"#, "202 result true"),
    json(400, r#"{"result":true}"#, "400 result true"),
    Answer { echo: Echo::Other, ..json(200, r#"{"result":"true"}"#, "the answer to another request") },
    Answer { echo: Echo::Other, ..json(200, r#"{"result":"false"}"#, "the refusal of another request") },
];

/// The answer without its key, which was lost on the way. A provider without keys never sends one.
#[rustfmt::skip]
const ROBBED: &[Answer] = &[
    foreign(200, JSON, r#"{"result":"true"}"#, "the answer without its key"),
];

/// Responses that may arrive although nothing was executed.
#[rustfmt::skip]
const NOT_TAKEN: &[Answer] = &[
    Answer { not_executed: true, ..foreign(503, JSON, "", "503 marked as not executed") },
    Answer { not_executed: true, ..foreign(429, PROBLEM, r#"{"type":"about:blank"}"#, "429 marked as not executed") },
    foreign(503, HTML, "<html>", "503 without a mark"),
    foreign(500, PROBLEM, r#"{"type":"about:blank"}"#, "500"),
    foreign(401, JSON, r#"{"error":"who are you"}"#, "401"),
    foreign(403, "text/plain", "Forbidden\n", "403 Forbidden"),
    foreign(404, JSON, "\"not found\"", "404"),
    foreign(405, JSON, "", "405"),
    foreign(413, HTML, "<html>", "413 page"),
    foreign(307, HTML, "", "307"),
];

/// The client's class of a refused connection: see `transport_error` in billing's client.
pub(crate) const NOT_CONNECTED: Classified =
    Classified { class: AnswerClass::NotSent, shown: "connection refused" };
/// The client's class of a transport error after bytes had left.
pub(crate) const NO_ANSWER: Classified = Classified { class: AnswerClass::InDoubt, shown: "no answer" };

/// Number of expected ledgers of a replica: none, the first, the second.
const EXPECTED: usize = 3;
/// Number of ledgers that the provider may have.
const LEDGERS: usize = 2;

/// All possible responses, classified: one for each class of the production table.
pub(crate) struct Answers {
    genuine: [[[Vec<Classified>; LEDGERS]; EXPECTED]; ProviderReply::ALL.len()],
    corrupted: [[Vec<Classified>; LEDGERS]; EXPECTED],
    not_taken: [[Vec<Classified>; LEDGERS]; EXPECTED],
}

impl Answers {
    /// Classifies all responses.
    pub(crate) fn new(protocol: &Protocol) -> Self {
        let genuine = |reply| GENUINE.iter().filter(move |(of, _)| *of == reply).map(|(_, answer)| answer);
        let robbed = if protocol.keeps == Keeps::Nothing { &[] } else { ROBBED };
        Self {
            genuine: ProviderReply::ALL
                .map(|reply| table(|asked, named| words(protocol, genuine(reply), asked, named))),
            corrupted: table(|asked, named| words(protocol, SPOILT.iter().chain(robbed), asked, named)),
            not_taken: table(|asked, named| {
                let mut heard = words(protocol, NOT_TAKEN.iter(), asked, named);
                push(&mut heard, NOT_CONNECTED);
                heard
            }),
        }
    }

    /// Classes when the provider's response arrives.
    pub(crate) fn genuine(&self, reply: ProviderReply, expects: Option<u8>, ledger: u8) -> &[Classified] {
        let at = ProviderReply::ALL.iter().position(|one| *one == reply).expect("all words are known");
        &self.genuine[at][row(expects)][usize::from(ledger)]
    }

    /// Classes when another response takes its place.
    pub(crate) fn corrupted(&self, expects: Option<u8>, ledger: u8) -> &[Classified] {
        &self.corrupted[row(expects)][usize::from(ledger)]
    }

    /// Classes when the provider was never reached.
    pub(crate) fn not_taken(&self, expects: Option<u8>, ledger: u8) -> &[Classified] {
        &self.not_taken[row(expects)][usize::from(ledger)]
    }
}

fn row(expects: Option<u8>) -> usize {
    expects.map_or(0, |ledger| usize::from(ledger) + 1)
}

fn table(make: impl Fn(Option<usize>, usize) -> Vec<Classified>) -> [[Vec<Classified>; LEDGERS]; EXPECTED] {
    std::array::from_fn(|expects| std::array::from_fn(|ledger| make(expects.checked_sub(1), ledger)))
}

const LEDGER_IDS: [&str; LEDGERS] =
    ["6c5e5e3c-8a4c-4b6e-9f0e-2f6f0d1c7a01", "6c5e5e3c-8a4c-4b6e-9f0e-2f6f0d1c7a02"];

fn words<'a>(
    protocol: &Protocol,
    answers: impl Iterator<Item = &'a Answer>,
    asked: Option<usize>,
    named: usize,
) -> Vec<Classified> {
    let mut words = Vec::new();
    for answer in answers {
        push(&mut words, Classified { class: class(protocol, answer, asked, named), shown: answer.shown });
    }
    words
}

/// Keeps the first response of each class: the others lead to the same worlds.
fn push(words: &mut Vec<Classified>, word: Classified) {
    if words.iter().all(|known| known.class != word.class) {
        words.push(word);
    }
}

fn class(protocol: &Protocol, answer: &Answer, asked: Option<usize>, named: usize) -> AnswerClass {
    if protocol.trusts_503 && answer.status == 503 {
        return AnswerClass::NotSent;
    }
    let (ours, other) = (key(1), key(2));
    let keeps = protocol.keeps != Keeps::Nothing;
    let looks = protocol.expects != Expects::Nothing;
    let asked = RequestFacts {
        key: ours.as_str(),
        reference: "I1",
        idempotency: protocol.idempotency,
        ledger: asked.filter(|_| looks).map(|ledger| LEDGER_IDS[ledger]),
        dialect: Dialect::Default,
    };
    let from_us = answer.echo != Echo::None;
    let heard = ResponseFacts {
        status: answer.status,
        content_type: Some(answer.content_type),
        body: answer.body.as_bytes(),
        key: match answer.echo {
            Echo::Ours => keeps.then_some(ours.as_str()),
            Echo::Other => Some(other.as_str()),
            Echo::None => None,
        },
        ledger: (keeps && from_us).then_some(LEDGER_IDS[named]),
        not_executed: answer.not_executed,
    };
    judge(&asked, &heard).class
}

fn key(number: u32) -> Key {
    let reference = Reference::new("I1").expect("I1 is a reference");
    Key::new(DeploymentId(Uuid::nil()), &reference, number)
}

/// Whether a replica learns the ledger's id from an answer of this class: from a definite answer, see `is_definite` in
/// the engine.
pub(crate) fn names_ledger(idempotency: Idempotency, class: AnswerClass) -> bool {
    use AnswerClass::{Charged, Invalid, KeyReused, Refused, Voided};
    idempotency == Idempotency::Keys && matches!(class, Charged | Refused | Voided | Invalid | KeyReused)
}

/// Whether an answer of this class names a row of the ledger, because the answer comes from that row.
pub(crate) fn names_row(class: AnswerClass) -> bool {
    use AnswerClass::{Charged, KeyReused, Refused, Voided};
    matches!(class, Charged | Refused | Voided | KeyReused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{KEYS, NO_KEYS};

    #[test]
    fn each_answer_of_our_payment_service_means_one_thing_on_all_its_wires() {
        let answers = Answers::new(&KEYS);
        for reply in ProviderReply::ALL {
            for expects in [None, Some(0)] {
                let heard = answers.genuine(reply, expects, 0);
                assert_eq!(heard.len(), 1, "{reply:?} means {heard:?}");
            }
        }
        assert_eq!(answers.genuine(ProviderReply::Charged, Some(0), 0)[0].class, AnswerClass::Charged);
        assert_eq!(answers.genuine(ProviderReply::Refused, None, 0)[0].class, AnswerClass::Refused);
    }

    #[test]
    fn nothing_that_takes_an_answers_place_is_definite() {
        for protocol in [KEYS, NO_KEYS] {
            let answers = Answers::new(&protocol);
            let instead = answers.corrupted(Some(0), 0).iter().chain(answers.not_taken(None, 0));
            for word in instead {
                let definite = matches!(
                    word.class,
                    AnswerClass::Charged
                        | AnswerClass::Refused
                        | AnswerClass::Voided
                        | AnswerClass::Invalid
                        | AnswerClass::KeyReused
                );
                assert!(!definite, "{word:?}");
            }
        }
    }

    #[test]
    fn nothing_heard_after_an_execution_claims_that_there_was_none() {
        for protocol in [KEYS, NO_KEYS] {
            for word in Answers::new(&protocol).corrupted(Some(0), 0) {
                let not_executed = AnswerClass::EndpointWrong { not_executed: true };
                assert!(word.class != AnswerClass::NotSent && word.class != not_executed, "{word:?}");
            }
        }
    }
}
