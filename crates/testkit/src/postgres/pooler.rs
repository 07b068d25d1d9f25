//! pgbouncer in transaction mode in front of a server: it has fewer connections to the server than clients have to it,
//! and no session lasts longer than a transaction. Knows no database in it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process_guard::{ProcessGuard, unprivileged};
use super::sql::DatabaseClient;
use super::{place_of, who_of, with_place};
use crate::process::free_address;
use crate::requirements::leave_out;
use crate::wait::wait_until;

/// The path of Debian's package.
const PROGRAM: &str = "/usr/sbin/pgbouncer";
/// The signal that ends pgbouncer: it has nothing to save, and gentler signals differ between releases.
const END: &str = "KILL";
/// Maximum time until it accepts connections.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running pooler; ends when dropped.
#[derive(Debug)]
pub struct Pooler {
    dir: PathBuf,
    address: SocketAddr,
    guard: Option<ProcessGuard>,
}

impl Pooler {
    /// Starts a pooler in front of the server at this URL, with this many connections to each database. Returns `None`
    /// where pgbouncer is not installed, and reports `what` as skipped.
    ///
    /// # Panics
    /// When pgbouncer is not installed in CI, or does not start.
    #[must_use]
    #[track_caller]
    pub fn start(what: &str, url: &str, connections: usize) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            leave_out(what, format_args!("there is no {PROGRAM}; install pgbouncer"));
            return None;
        }
        let dir =
            tempfile::Builder::new().prefix("tinjis-pool-").tempdir().expect("a folder can be made").keep();
        let (address, user) = (free_address(), unprivileged());
        let (host, port) = place_of(url).rsplit_once(':').unwrap_or((place_of(url), "5432"));
        let (name, password) = who_of(url);
        // pgbouncer rejects an empty value.
        let password = if password.is_empty() { String::new() } else { format!(" password={password}") };
        let settings = format!(
            "[databases]\n* = host={host} port={port} user={name}{password}\n[pgbouncer]\n\
             listen_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = {connections}\nmax_client_conn = 500\n",
            address.ip(),
            address.port(),
        );
        fs::write(dir.join("settings.ini"), settings).expect("settings can be written");
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let guard = ProcessGuard::start(&dir, user, Path::new(PROGRAM), END, [dir.join("settings.ini")]);
        let pooler = Self { dir, address, guard: Some(guard) };
        let through = pooler.before(url);
        wait_until("pgbouncer to take connections", READY_WITHIN, || {
            DatabaseClient::try_to(&through).is_ok()
        });
        Some(pooler)
    }

    /// The URL of a database through the pooler.
    #[must_use]
    pub fn before(&self, url: &str) -> String {
        with_place(url, &self.address.to_string())
    }

    /// The pooler's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.remove();
        }
    }
}
