//! One node: PostgreSQL under Patroni, with a gate in each network path to others. It can be killed, stopped and cut
//! off like a machine. Knows no other node.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::Mode;
use super::gate::Gate;
use crate::http;
use crate::postgres::process_guard::{ProcessGuard, unprivileged};
use crate::process::free_address;

/// Runs Patroni; when it ends, PostgreSQL ends at once too, even if it is stopped.
const SCRIPT: &str = r#"
end() {
  trap '' TERM
  kill -KILL "$patroni"
  if read -r postmaster <data/postmaster.pid; then
    kill -KILL "$postmaster" $(cat "/proc/$postmaster/task/$postmaster/children")
  fi
  exit
} 2>/dev/null
patroni patroni.yml & patroni=$!
trap end TERM
echo "$patroni" >patroni.pid
wait "$patroni"
end
"#;

/// The kinds of failure of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL to every process of PostgreSQL.
    Kill,
    /// SIGSTOP to every process of PostgreSQL and to Patroni, like a paused virtual machine.
    Stop,
    /// No packet passes between the node and clients, other nodes and etcd.
    Cut,
}

impl Blow {
    pub const ALL: [Self; 3] = [Self::Kill, Self::Stop, Self::Cut];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Stop => "SIGSTOP",
            Self::Cut => "network cut",
        }
    }
}

/// A running node; ends when dropped.
#[derive(Debug)]
pub(super) struct Node {
    dir: PathBuf,
    /// The address of PostgreSQL past the gates.
    postgres: SocketAddr,
    rest: SocketAddr,
    gates: Gates,
    /// The processes that are stopped.
    stopped: Vec<Pid>,
    guard: Option<ProcessGuard>,
}

#[derive(Debug)]
struct Gates {
    postgres: Gate,
    rest: Gate,
    etcd: Gate,
}

impl Node {
    /// Starts the nth node of a cluster whose state is in this etcd.
    #[track_caller]
    pub(super) fn start(nth: usize, bin: &Path, etcd: SocketAddr, mode: Mode) -> Self {
        let dir = tempfile::Builder::new().prefix("tinjis-node-").tempdir();
        let dir = dir.expect("a folder can be made").keep();
        let (postgres, rest, user) = (free_address(), free_address(), unprivileged());
        let gates = Gates { postgres: Gate::to(postgres), rest: Gate::to(rest), etcd: Gate::to(etcd) };
        let settings = settings(nth, &dir, bin, mode, (postgres, rest), &gates);
        fs::write(dir.join("patroni.yml"), settings).expect("settings can be written");
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let guard = ProcessGuard::start(&dir, user, Path::new("/bin/sh"), "TERM", ["-c", SCRIPT, "node"]);
        Self { dir, postgres, rest, gates, stopped: Vec::new(), guard: Some(guard) }
    }

    /// The address for clients and other nodes.
    pub(super) fn address(&self) -> SocketAddr {
        self.gates.postgres.address()
    }

    /// The address of Patroni's REST API for other nodes.
    pub(super) fn rest_address(&self) -> SocketAddr {
        self.gates.rest.address()
    }

    /// The address of PostgreSQL past the gates.
    pub(super) fn direct(&self) -> SocketAddr {
        self.postgres
    }

    /// An answer of Patroni's REST API, past the gates.
    pub(super) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<http::Answer> {
        http::try_call(method, &format!("http://{}{path}", self.rest), &[], body).ok()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::Kill => {
                for pid in self.server() {
                    // The process may have ended meanwhile.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Blow::Stop => {
                // Parents are stopped first, so that none starts a child unnoticed.
                self.stop(self.patroni());
                let server = self.server();
                server.into_iter().for_each(|pid| self.stop(pid));
                self.server().into_iter().for_each(|pid| self.stop(pid));
            }
            Blow::Cut => self.set_cut(true),
        }
    }

    /// Sends SIGSTOP to the processes that send WAL.
    pub(super) fn stop_senders(&mut self, senders: impl Iterator<Item = i32>) {
        senders.filter_map(Pid::from_raw).for_each(|pid| self.stop(pid));
    }

    /// Ends the failure. After a kill Patroni starts PostgreSQL again by itself.
    pub(super) fn heal(&mut self) {
        for pid in std::mem::take(&mut self.stopped) {
            let _gone = kill_process(pid, Signal::CONT);
        }
        self.set_cut(false);
    }

    fn set_cut(&self, is_cut: bool) {
        for gate in [&self.gates.postgres, &self.gates.rest, &self.gates.etcd] {
            gate.set_cut(is_cut);
        }
    }

    fn stop(&mut self, pid: Pid) {
        if kill_process(pid, Signal::STOP).is_ok() && !self.stopped.contains(&pid) {
            self.stopped.push(pid);
        }
    }

    #[track_caller]
    fn patroni(&self) -> Pid {
        self.pid_in("patroni.pid")
    }

    /// The processes of PostgreSQL: the postmaster, then its children.
    #[track_caller]
    fn server(&self) -> Vec<Pid> {
        let postmaster = self.pid_in("data/postmaster.pid");
        let id = postmaster.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        std::iter::once(postmaster).chain(children).collect()
    }

    #[track_caller]
    fn pid_in(&self, file: &str) -> Pid {
        let text = fs::read_to_string(self.dir.join(file)).expect("the node runs");
        let first = text.lines().next().and_then(|line| Pid::from_raw(line.trim().parse().ok()?));
        first.expect("the first line is a process id")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.heal();
        if let Some(guard) = self.guard.take() {
            guard.remove();
        }
    }
}

/// Patroni's settings. A standby may be promoted however far it is behind. Short times keep proofs short: a leader that
/// is silent for 8 s is replaced. Patroni's defaults are 30, 10 and 10.
///
/// Uses version 2 of etcd's API, where a node sets the leader's key only if it still holds it. With version 3, Patroni
/// before 3.0.3 sets the key unconditionally when its lease has expired
/// (<https://github.com/patroni/patroni/pull/2689>). A former leader that was stopped between two steps then replaces
/// the new leader, whose commits are lost.
fn settings(
    nth: usize,
    dir: &Path,
    bin: &Path,
    mode: Mode,
    (postgres, rest): (SocketAddr, SocketAddr),
    gates: &Gates,
) -> String {
    let (dir, bin) = (dir.display(), bin.display());
    let (to_postgres, to_rest, etcd) = (gates.postgres.address(), gates.rest.address(), gates.etcd.address());
    let synchronous = mode == Mode::Synchronous;
    format!(
        r#"scope: tinjis
name: n{nth}
restapi: {{listen: "{rest}", connect_address: "{to_rest}"}}
etcd: {{hosts: ["{etcd}"], use_proxies: true}}
bootstrap:
  dcs:
    ttl: 8
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 268435456
    master_start_timeout: 0
    synchronous_mode: {synchronous}
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {{wal_log_hints: "on", max_connections: 200, wal_keep_size: 256MB}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}, {{auth: trust}}, no-sync]
  pg_hba: ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
postgresql:
  listen: "{postgres}"
  connect_address: "{to_postgres}"
  data_dir: {dir}/data
  bin_dir: {bin}
  pgpass: {dir}/pgpass
  authentication:
    superuser: {{username: tinjis}}
    replication: {{username: replicator}}
    rewind: {{username: tinjis}}
  parameters: {{unix_socket_directories: "{dir}"}}
"#
    )
}
