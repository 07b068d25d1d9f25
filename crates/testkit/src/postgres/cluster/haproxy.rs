//! HAProxy in front of the nodes of a cluster, as in Patroni's documentation: connections go to the node whose REST API
//! reports that it is the primary, and end when it no longer is. Knows no database.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;

use super::super::process_guard::{ProcessGuard, unprivileged};
use crate::process::free_address;

/// The path of Debian's package.
pub(super) const PROGRAM: &str = "/usr/sbin/haproxy";

/// A running HAProxy; ends when dropped.
#[derive(Debug)]
pub(super) struct Haproxy {
    address: SocketAddr,
    guard: Option<ProcessGuard>,
}

impl Haproxy {
    /// Starts HAProxy in front of nodes, each with the address of its PostgreSQL and that of its REST API.
    #[track_caller]
    pub(super) fn start(nodes: &[(SocketAddr, SocketAddr)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tinjis-haproxy-")
            .tempdir()
            .expect("a folder can be made")
            .keep();
        let (address, user) = (free_address(), unprivileged());
        let mut settings = format!(
            "defaults\n  mode tcp\n  retries 2\n  timeout client 30m\n  timeout connect 4s\n  timeout server 30m\n  \
             timeout check 2s\nlisten primary\n  bind {address}\n  option httpchk OPTIONS /primary\n  \
             http-check expect status 200\n  \
             default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n"
        );
        for (nth, (postgres, rest)) in nodes.iter().enumerate() {
            settings
                .push_str(&format!("  server n{nth} {postgres} maxconn 200 check port {}\n", rest.port()));
        }
        fs::write(dir.join("haproxy.cfg"), settings).expect("settings can be written");
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let args = ["-db", "-f", "haproxy.cfg"];
        let guard = ProcessGuard::start(&dir, user, Path::new(PROGRAM), "KILL", args);
        Self { address, guard: Some(guard) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.remove();
        }
    }
}
