//! A proxy in front of a PostgreSQL server that cuts connections by a plan: after a statement was done and before its
//! response arrives, or before the statement reaches the server. A client that commits sees a failover like this. Knows
//! the wire format as far as necessary; no statement's meaning.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{place_of, with_place};

/// Maximum number of bytes of one read: a client's message arrives whole, unless it is longer.
const PIECE_BYTES: usize = 256 * 1024;
/// ReadyForQuery, its length, and the status of a session without a transaction.
const IDLE: &[u8] = b"Z\0\0\0\x05I";

/// The moment at which a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// After the server has executed the message, before its answer arrives.
    Answer,
    /// Before the server gets the message.
    Request,
}

/// Selects the client messages whose connections are cut.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Messages with one of these texts. A plain statement ends with a zero, as in `COMMIT\0`.
    pub with: &'static [&'static str],
    /// Only messages after this text on the same connection: a client may also commit for other reasons, such as a test
    /// of whether it still can.
    pub after: &'static str,
    /// One message of this many is cut.
    pub every: usize,
    /// The kinds of cut, in rotation.
    pub cuts: &'static [Cut],
    /// Maximum number of cuts.
    pub times: usize,
}

impl Plan {
    /// Cuts the next matching message, once.
    #[must_use]
    pub const fn cut_next_once(with: &'static [&'static str], cuts: &'static [Cut]) -> Self {
        Self { with, after: "", every: 1, cuts, times: 1 }
    }

    /// The same plan, for a transaction that has sent this text.
    #[must_use]
    pub const fn after(self, text: &'static str) -> Self {
        Self { after: text, ..self }
    }
}

/// A forwarding listener. Dropping it ends the listener; open connections continue.
#[derive(Debug)]
pub struct Cutter {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    behind: SocketAddr,
    plan: Mutex<Option<Plan>>,
    /// Number of messages that the plan has selected.
    seen: AtomicUsize,
    planned: AtomicUsize,
    done: AtomicUsize,
    is_over: AtomicBool,
}

impl Cutter {
    /// A cutter in front of the server at this URL; cuts nothing until it has a plan.
    ///
    /// # Panics
    /// When the URL contains no address, or no port is free.
    #[must_use]
    #[track_caller]
    pub fn before(url: &str) -> Self {
        let mut places = place_of(url).to_socket_addrs().expect("a server's address");
        let behind = places.next().expect("a server has an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            behind,
            plan: Mutex::new(None),
            seen: AtomicUsize::new(0),
            planned: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let guard = Arc::clone(&shared);
        std::thread::spawn(move || run_listener(&guard, &listener));
        Self { address, shared }
    }

    /// The URL of a database through the cutter.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        with_place(url, &self.address.to_string())
    }

    /// Follows this plan from now on.
    pub fn follow(&self, plan: Plan) {
        self.shared.seen.store(0, Ordering::SeqCst);
        self.shared.planned.store(0, Ordering::SeqCst);
        *self.shared.plan() = Some(plan);
    }

    /// Number of connections that were cut so far.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // This wakes the listener, which may have ended already.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Option<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether and how a piece of a client's data is cut; `is_awaited` records whether the transaction has sent the
    /// plan's text.
    fn fate(&self, piece: &[u8], is_awaited: &mut bool) -> Option<Cut> {
        let plan = (*self.plan())?;
        let holds =
            |text: &str| text.is_empty() || piece.windows(text.len()).any(|part| part == text.as_bytes());
        *is_awaited |= holds(plan.after);
        if !plan.with.iter().any(|text| holds(text)) || !std::mem::take(is_awaited) {
            return None;
        }
        let nth = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        if !nth.is_multiple_of(plan.every) {
            return None;
        }
        let turn = self.planned.fetch_add(1, Ordering::SeqCst);
        (turn < plan.times).then(|| plan.cuts[turn % plan.cuts.len()])
    }

    fn cut(&self, ends: &[&TcpStream]) {
        self.done.fetch_add(1, Ordering::SeqCst);
        hang_up(ends);
    }
}

fn run_listener(shared: &Arc<Shared>, listener: &TcpListener) {
    while let Ok((client, _)) = listener.accept() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        // A stopped server refuses connections, so the cutter does too.
        let Ok(server) = TcpStream::connect(shared.behind) else { continue };
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
        let loses_answer = Arc::new(AtomicBool::new(false));
        let (up, lost) = (Arc::clone(shared), Arc::clone(&loses_answer));
        std::thread::spawn(move || carry_up(&up, &client_too, &server_too, &lost));
        let down = Arc::clone(shared);
        std::thread::spawn(move || carry_down(&down, &server, &client, &loses_answer));
    }
}

fn carry_up(shared: &Shared, mut client: &TcpStream, mut server: &TcpStream, loses_answer: &AtomicBool) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut is_awaited = false;
    while let Some(piece) = read(&mut client, &mut buffer) {
        match shared.fate(piece, &mut is_awaited) {
            Some(Cut::Request) => return shared.cut(&[client, server]),
            Some(Cut::Answer) => loses_answer.store(true, Ordering::SeqCst),
            None => {}
        }
        if server.write_all(piece).is_err() {
            break;
        }
    }
    hang_up(&[client, server]);
}

/// Forwards answers, and cuts the connection where one must be lost. Clients send BEGIN, a statement and COMMIT at once
/// and await all three answers. So all data after the selected message belongs to it, and the server has executed it
/// when it is in no transaction any more.
fn carry_down(shared: &Shared, mut server: &TcpStream, mut client: &TcpStream, loses_answer: &AtomicBool) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut last = Vec::new();
    while let Some(piece) = read(&mut server, &mut buffer) {
        if loses_answer.load(Ordering::SeqCst) {
            last.extend_from_slice(piece);
            last.drain(..last.len().saturating_sub(IDLE.len()));
            if last == IDLE {
                return shared.cut(&[client, server]);
            }
        } else if client.write_all(piece).is_err() {
            break;
        }
    }
    hang_up(&[client, server]);
}

fn read<'a>(from: &mut impl Read, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match from.read(buffer) {
        Ok(0) | Err(_) => None,
        Ok(length) => Some(&buffer[..length]),
    }
}

fn hang_up(ends: &[&TcpStream]) {
    for end in ends {
        // The connection may be closed already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Database, DatabaseClient};

    #[test]
    fn what_the_server_did_is_kept_and_what_never_came_is_not() {
        const CUTS: [(i64, &[Cut]); 2] = [(2, &[Cut::Answer]), (3, &[Cut::Request])];
        let Some(database) = Database::fresh("connections cut before PostgreSQL") else { return };
        database.run("CREATE TABLE kept (n bigint)");
        let cutter = Cutter::before(database.url());
        let sql = DatabaseClient::to(&cutter.url(database.url()));
        sql.run("INSERT INTO kept VALUES (1)");
        for (n, cut) in CUTS {
            cutter.follow(Plan::cut_next_once(&["INSERT INTO"], cut));
            sql.rows(&format!("INSERT INTO kept VALUES ({n})")).unwrap_err();
        }
        cutter.follow(Plan::cut_next_once(&["COMMIT"], &[Cut::Request]).after("INSERT INTO"));
        sql.run("BEGIN; SELECT 1; COMMIT");
        sql.rows("BEGIN; INSERT INTO kept VALUES (8); COMMIT").unwrap_err();
        sql.run("INSERT INTO kept VALUES (4)");
        assert_eq!(cutter.cuts(), 3);
        assert_eq!(database.ask("SELECT sum(n)::bigint FROM kept"), 1 + 2 + 4);
    }
}
