//! A network path of one node that can be cut: then no byte passes, and neither side notices. Bytes in transit arrive
//! once the path is open again, as TCP resends them. Knows no protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::free_address;
use crate::wait::pause;

/// Maximum number of bytes of one read.
const PIECE_BYTES: usize = 64 * 1024;
/// How often a cut path is checked.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A forwarding listener. Dropping it ends the listener; open connections continue.
#[derive(Debug)]
pub(super) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    behind: SocketAddr,
    is_cut: AtomicBool,
    is_over: AtomicBool,
}

impl Gate {
    /// A gate on a free port to this address; the owner cuts several gates of one node together.
    #[track_caller]
    pub(super) fn to(behind: SocketAddr) -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).expect("a free port can be listened on");
        let shared =
            Arc::new(Shared { behind, is_cut: AtomicBool::new(false), is_over: AtomicBool::new(false) });
        let guard = Arc::clone(&shared);
        std::thread::spawn(move || run_listener(&guard, &listener));
        Self { address, shared }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set_cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.set_cut(false);
        // This wakes the listener, which may have ended already.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Waits while the path is cut.
    fn pass(&self) {
        while self.is_cut.load(Ordering::SeqCst) {
            pause(LOOK_AGAIN);
        }
    }
}

fn run_listener(shared: &Arc<Shared>, listener: &TcpListener) {
    while let Ok((client, _)) = listener.accept() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || carry(&shared, client));
    }
}

fn carry(shared: &Arc<Shared>, client: TcpStream) {
    shared.pass();
    // A stopped server refuses connections, so the gate does too.
    let Ok(server) = TcpStream::connect(shared.behind) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    let up = Arc::clone(shared);
    std::thread::spawn(move || pump(&up, &client_too, &server_too));
    pump(shared, &server, &client);
}

fn pump(shared: &Shared, mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(length) = from.read(&mut buffer) {
        shared.pass();
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    shared.pass();
    for end in [from, to] {
        // The connection may be closed already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_path_is_silent_and_delivers_what_was_under_way_when_it_is_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate::to(listener.local_addr().unwrap());
        let mut client = TcpStream::connect(gate.address()).unwrap();
        client.write_all(b"a").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        gate.set_cut(true);
        client.write_all(b"b").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        server.read_exact(&mut byte).unwrap_err();
        // A new connection is accepted, as by a host whose packets are lost later, and gets no answer.
        let mut late = TcpStream::connect(gate.address()).unwrap();
        late.write_all(b"c").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener.accept().unwrap_err();
        gate.set_cut(false);
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        server.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
        listener.set_nonblocking(false).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"c");
    }
}
