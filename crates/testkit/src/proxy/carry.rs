//! One connection of a caller through the proxy: each request is forwarded to the provider, or treated as the plan
//! says. A fault is counted when it takes effect, not when it is drawn. Knows no service.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fault::Fault;
use super::http_io::{Head, Request, answer, await_end, reset, write};
use super::{Line, Shared};
use crate::http::{Answer, Connection};
use crate::wait::pause;

/// Length of an oversized body, longer than any that a caller reads.
const OVERSIZED_BYTES: usize = 256 * 1024;
/// A page as a hotel's network sends it.
const FOREIGN: &str = "<!doctype html><title>Welcome</title><p>Please log in to use this network.</p>";
/// Statuses of proxies that cannot continue, in rotation.
const ERRORS: [u16; 3] = [500, 502, 504];
/// Statuses of redirects, in rotation.
const REDIRECTS: [u16; 3] = [302, 307, 308];

/// The further use of the connection.
enum Next {
    Keep,
    /// The next request gets a reset.
    Race,
    Close,
}

/// One request in progress.
struct Call<'a> {
    shared: &'a Arc<Shared>,
    stream: &'a TcpStream,
    request: Request,
    key: String,
    nth: u64,
}

/// Serves a caller's connection to its end.
pub(super) fn serve(shared: &Arc<Shared>, stream: &TcpStream, line: &Line) {
    let mut races = false;
    while let Some(head) = Head::peek(stream) {
        line.busy.store(true, Ordering::SeqCst);
        if races {
            shared.count(Fault::KeepAliveRace);
            return reset(stream);
        }
        let next = forward_one(shared, stream, head).unwrap_or(Next::Close);
        races = matches!(next, Next::Race);
        line.busy.store(false, Ordering::SeqCst);
        if matches!(next, Next::Close) || shared.is_shut() {
            return;
        }
    }
}

fn forward_one(shared: &Arc<Shared>, stream: &TcpStream, head: Head) -> io::Result<Next> {
    let plan = shared.plan();
    if head.path().starts_with("/v1/") {
        let request = Request::take(stream, head)?;
        let reply = match plan.hides_ledger {
            true => answer(404, &[("content-type", "application/json")], r#"{"error":"no such route"}"#),
            false => forward(shared, &request, false)?,
        };
        write(stream, &reply)?;
        return Ok(Next::Keep);
    }
    let key = head.header("idempotency-key").unwrap_or_default();
    let (nth, fault) = shared.draw(&plan, &key);
    if fault == Some(Fault::ResetInRequest) {
        shared.count(Fault::ResetInRequest);
        reset(stream);
        return Ok(Next::Close);
    }
    let request = Request::take(stream, head)?;
    if let Some(reference) = request.reference() {
        shared.note_latest(reference, &key);
    }
    let call = Call { shared, stream, request, key, nth };
    let reply = match fault {
        Some(fault) if !fault.is_forwarded() => None,
        _ => Some(forward(shared, &call.request, plan.strips_keys)?),
    };
    match fault {
        None => {
            let reply = reply.expect("what meets no fault is forwarded");
            write(stream, &reply)?;
            shared.remember(&call.key, reply);
            Ok(Next::Keep)
        }
        Some(fault) => call.apply_fault(fault, reply, plan.strips_keys),
    }
}

fn forward(shared: &Shared, request: &Request, strips_key: bool) -> io::Result<Answer> {
    let mut provider = Connection::open(&shared.upstream()?.to_string())?;
    provider.write(&request.bytes(strips_key))?;
    let answer = provider.answer(false)?;
    shared.note_executed(request, &answer);
    Ok(answer)
}

impl Call<'_> {
    fn apply_fault(self, fault: Fault, reply: Option<Answer>, strips_key: bool) -> io::Result<Next> {
        let Self { shared, stream, .. } = self;
        let turn = usize::try_from(shared.turn()).unwrap_or_default();
        let html = [("content-type", "text/html")];
        let error = |status| answer(status, &html, format!("<h1>{status}</h1>"));
        let marked = |status| answer(status, &[("not-executed", "true"), ("retry-after", "1")], "");
        let bad = match (fault, reply) {
            (Fault::ErrorAfter | Fault::ErrorBefore, _) => error(ERRORS[turn % ERRORS.len()]),
            (Fault::TooMany, _) => error(429),
            (Fault::Unavailable, _) => error(503),
            (Fault::TooManyMarked, _) => marked(429),
            (Fault::UnavailableMarked, _) => marked(503),
            (Fault::Redirect, _) => {
                let elsewhere = format!("http://{}/", shared.upstream()?);
                answer(REDIRECTS[turn % REDIRECTS.len()], &[("location", &elsewhere)], "")
            }
            (Fault::ForeignBody, _) => answer(200, &html, FOREIGN),
            (Fault::OversizedBody, Some(reply)) => Answer { body: vec![b' '; OVERSIZED_BYTES], ..reply },
            (Fault::BrokenBody, Some(mut reply)) => {
                reply.body.truncate(reply.body.len() / 2);
                Answer { status: 200, ..reply }
            }
            (Fault::OtherAnswer, Some(reply)) => match shared.answer_to_another(&self.key) {
                Some(other) => other,
                // The first answer of all: no earlier answer can replace it, so it is not changed.
                None => return write(stream, &reply).map(|()| Next::Keep),
            },
            (Fault::KeepAliveRace, Some(reply)) => return write(stream, &reply).map(|()| Next::Race),
            (fault, reply) => return Ok(self.lose(fault, reply, strips_key)),
        };
        shared.count(fault);
        // The caller does not read an oversized answer to its end.
        let _hung_up = write(stream, &bad);
        Ok(Next::Keep)
    }

    /// Carries out the faults without an answer in time.
    fn lose(self, fault: Fault, reply: Option<Answer>, strips_key: bool) -> Next {
        let Self { shared, stream, .. } = self;
        match (fault, reply) {
            (Fault::LostAnswer, _) => shared.count(fault),
            (Fault::BlackHole, _) => {
                await_end(stream);
                shared.count(fault);
            }
            (Fault::LateAnswer, Some(reply)) => {
                pause(shared.pace.late());
                shared.count(fault);
                let _hung_up = write(stream, &reply);
            }
            (Fault::Repeated, Some(reply)) => {
                let again = forward(shared, &self.request, strips_key);
                if again.is_ok() {
                    shared.count(fault);
                }
                return write(stream, &reply).map_or(Next::Close, |()| Next::Keep);
            }
            (Fault::Delayed, _) => {
                self.delay(strips_key);
                await_end(stream);
            }
            (fault, _) => unreachable!("{} has an answer of its own", fault.as_str()),
        }
        Next::Close
    }

    /// Forwards the request later, long after its caller has given up.
    fn delay(&self, strips_key: bool) {
        let (shared, request) = (Arc::clone(self.shared), self.request.clone());
        let (key, nth) = (self.key.clone(), self.nth);
        shared.on_the_way.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            pause(shared.pace.delay);
            // A provider without keys gets no resend: there it is enough that the caller has given up.
            let is_overtaken = strips_key || shared.is_overtaken(&key, nth, request.reference().as_deref());
            if forward(&shared, &request, strips_key).is_ok() && is_overtaken {
                shared.count(Fault::Delayed);
            }
            shared.on_the_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Times of the proxy, which depend on the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The timeout after which a caller gives up.
    pub call_timeout: Duration,
    /// The time until a delayed request arrives: many call timeouts.
    pub delay: Duration,
}

impl Pace {
    fn late(self) -> Duration {
        self.call_timeout + self.call_timeout / 4
    }
}
