//! A highly available PostgreSQL: three nodes under Patroni, with an etcd, and HAProxy in front of them. A failure
//! takes the leader away, and it returns as a replica. Knows no database in it.

mod gate;
mod haproxy;
mod node;

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use self::haproxy::Haproxy;
use self::node::Node;
use super::process_guard::{ProcessGuard, unprivileged};
use super::server::installed;
use super::sql::DatabaseClient;
use super::without_a_server;
use crate::http;
use crate::process::free_address;
use crate::proof::progress;
use crate::requirements::has;
use crate::wait::{pause, wait_for};

pub use node::Blow;

/// Number of nodes: three, so that two are left when a leader is lost.
const NODES: usize = 3;
/// Maximum time until a cluster is complete, also after the former leader was rewound or copied again.
const WHOLE_WITHIN: Duration = Duration::from_secs(180);
/// Maximum time until an etcd of one member has started.
const ETCD_WITHIN: Duration = Duration::from_secs(60);
/// Maximum time until Patroni has replaced a leader.
const LEADER_WITHIN: Duration = Duration::from_secs(120);
/// How often Patroni is queried.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How standbys replicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A commit is acknowledged when one standby has it, and only that standby is promoted.
    Synchronous,
    /// A commit is acknowledged earlier: a promotion may lose the last commits.
    Asynchronous,
}

impl Mode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synchronous => "synchronous",
            Self::Asynchronous => "asynchronous",
        }
    }
}

/// A running cluster; ends when dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    haproxy: Haproxy,
    mode: Mode,
    etcd: Option<ProcessGuard>,
}

impl Cluster {
    /// Starts a cluster; `None` where one of its programs is not installed, and `what` is reported as skipped.
    ///
    /// # Panics
    /// When a program is not installed in CI, or the cluster does not start.
    #[must_use]
    #[track_caller]
    pub fn start(what: &str, mode: Mode) -> Option<Self> {
        let Some(bin) = installed() else {
            without_a_server(what, "no PostgreSQL server");
            return None;
        };
        if !["patroni", "etcd", haproxy::PROGRAM].iter().all(|program| has(program, what)) {
            return None;
        }
        let (etcd, at) = start_etcd();
        let nodes: Vec<Node> = (0..NODES).map(|nth| Node::start(nth, &bin, at, mode)).collect();
        let addresses: Vec<_> = nodes.iter().map(|node| (node.address(), node.rest_address())).collect();
        let cluster = Self { nodes, haproxy: Haproxy::start(&addresses), mode, etcd: Some(etcd) };
        cluster.wait_whole();
        Some(cluster)
    }

    /// The URL of a database with all nodes.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("postgres://tinjis@{}/{database}?target_session_attrs=read-write", hosts.join(","))
    }

    /// The URL of a database through HAProxy.
    #[must_use]
    pub fn haproxy_url(&self, database: &str) -> String {
        format!("postgres://tinjis@{}/{database}", self.haproxy.address())
    }

    /// The URL of a database on one node, past the gates that can be cut.
    #[must_use]
    pub fn direct_url(&self, node: usize, database: &str) -> String {
        format!("postgres://tinjis@{}/{database}", self.nodes[node].direct())
    }

    /// Creates a database on the leader.
    ///
    /// # Panics
    /// When there is no leader, or the database exists.
    #[track_caller]
    pub fn create(&self, database: &str) {
        let leader = self.leader();
        DatabaseClient::to(&self.direct_url(leader, "postgres")).run(&format!("CREATE DATABASE {database}"));
    }

    /// Waits for a leader.
    ///
    /// # Panics
    /// When no leader is found in time.
    #[must_use]
    #[track_caller]
    pub fn leader(&self) -> usize {
        wait_for("a leader", LEADER_WITHIN, || self.primary_except(None))
    }

    /// Waits for a leader other than this node, which may be stopped; returns the time of its first sight.
    ///
    /// # Panics
    /// When no leader is found in time; the message ends with the logs.
    #[must_use]
    #[track_caller]
    pub fn new_leader(&self, former: usize) -> (usize, Instant) {
        let began = Instant::now();
        loop {
            if let Some(leader) = self.primary_except(Some(former)) {
                return (leader, Instant::now());
            }
            assert!(began.elapsed() < LEADER_WITHIN, "no new leader:\n{}", self.logs());
            pause(LOOK_AGAIN);
        }
    }

    /// The primary among all nodes but one.
    fn primary_except(&self, former: Option<usize>) -> Option<usize> {
        let asked = (0..NODES).filter(|nth| Some(*nth) != former);
        asked.into_iter().find(|nth| {
            self.nodes[*nth].ask("GET", "/primary", b"").is_some_and(|answer| answer.status == 200)
        })
    }

    /// Sets how standbys replicate, and waits until this takes effect.
    ///
    /// # Panics
    /// When Patroni refuses.
    #[track_caller]
    pub fn set_mode(&mut self, mode: Mode) {
        let body = json!({"synchronous_mode": mode == Mode::Synchronous}).to_string();
        let answer = self.nodes[self.leader()].ask("PATCH", "/config", body.as_bytes());
        assert!(answer.is_some_and(|answer| answer.status == 200), "Patroni takes the mode");
        self.mode = mode;
        self.wait_whole();
    }

    /// Waits until every node is on one timeline, and one standby is synchronous if the mode requires it.
    ///
    /// # Panics
    /// When that takes too long; the message ends with the logs.
    #[track_caller]
    pub fn wait_whole(&self) {
        let began = Instant::now();
        while !self.is_whole() {
            assert!(began.elapsed() < WHOLE_WITHIN, "the cluster is not whole:\n{}", self.logs());
            pause(LOOK_AGAIN * 5);
        }
    }

    fn is_whole(&self) -> bool {
        let Some(leader) = self.primary_except(None) else { return false };
        let Some(answer) = self.nodes[leader].ask("GET", "/cluster", b"") else { return false };
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let members = said["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let with_role = |role: &str| members.iter().filter(|member| member["role"] == role).count();
        let runs = |member: &Value| {
            let state = member["state"].as_str().unwrap_or_default();
            matches!(state, "running" | "streaming") && member["timeline"] == members[0]["timeline"]
        };
        members.len() == NODES
            && members.iter().all(runs)
            && with_role("leader") == 1
            && with_role("sync_standby") == usize::from(self.mode == Mode::Synchronous)
            && self.replicas_of(leader) == NODES - 1
    }

    /// The number of replicas in the leader's own view, because Patroni's is up to a second older.
    fn replicas_of(&self, leader: usize) -> usize {
        let sql = DatabaseClient::to(&self.direct_url(leader, "postgres"));
        sql.rows("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'").map_or(0, |rows| rows.len())
    }

    /// Holds back all further commits of the leader from its standbys.
    ///
    /// # Panics
    /// When the node is no leader.
    #[track_caller]
    pub fn hold_replication(&mut self, leader: usize) {
        let sql = DatabaseClient::to(&self.direct_url(leader, "postgres"));
        let rows = sql.rows("SELECT pid FROM pg_stat_replication").expect("the leader answers");
        let senders = rows.into_iter().filter_map(|row| row.into_iter().next()?);
        self.nodes[leader].stop_senders(senders.filter_map(|pid| pid.parse().ok()));
    }

    /// Makes a node fail.
    #[track_caller]
    pub fn strike(&mut self, node: usize, blow: Blow) {
        self.nodes[node].strike(blow);
    }

    /// Ends the failure, after which the node returns by itself.
    pub fn heal(&mut self, node: usize) {
        self.nodes[node].heal();
    }

    /// Each node's view of the cluster, and its log.
    #[must_use]
    pub fn logs(&self) -> String {
        const LINES: usize = 80;
        let tail = |text: String| {
            // Patroni logs every second that there was nothing to do.
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains("no action")).collect();
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        };
        let view = |node: &Node| node.ask("GET", "/cluster", b"").map(|answer| answer.text());
        let said = |node: &Node| format!("{}\n{}", view(node).unwrap_or_default(), tail(node.log()));
        let logs = self.nodes.iter().enumerate().map(|(nth, node)| format!("n{nth}: {}", said(node)));
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Prints the state after a failed proof: which node led on which timeline cannot be read later.
        if std::thread::panicking() {
            progress(&self.logs());
        }
        self.nodes.clear();
        if let Some(guard) = self.etcd.take() {
            guard.remove();
        }
    }
}

/// Starts one etcd, which is enough because it does not fail here.
fn start_etcd() -> (ProcessGuard, SocketAddr) {
    let dir = tempfile::Builder::new().prefix("tinjis-etcd-").tempdir().expect("a folder can be made").keep();
    let (address, peers, user) = (free_address(), free_address(), unprivileged());
    if let Some((uid, gid)) = user {
        chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
    }
    let args = [
        "--data-dir=data".to_owned(),
        "--enable-v2=true".to_owned(),
        format!("--listen-client-urls=http://{address}"),
        format!("--advertise-client-urls=http://{address}"),
        format!("--listen-peer-urls=http://{peers}"),
        format!("--initial-advertise-peer-urls=http://{peers}"),
        format!("--initial-cluster=default=http://{peers}"),
    ];
    let guard = ProcessGuard::start(&dir, user, Path::new("/usr/bin/etcd"), "KILL", args);
    // Until etcd has decided on the version of its cluster it answers `not_decided`, and a Patroni that reads this
    // ends.
    wait_for("an etcd that knows its cluster's version", ETCD_WITHIN, || {
        let answer = http::try_call("GET", &format!("http://{address}/version"), &[], b"").ok()?;
        let said: Value = serde_json::from_slice(&answer.body).ok()?;
        said["etcdcluster"].as_str()?.starts_with(|first: char| first.is_ascii_digit()).then_some(())
    });
    (guard, address)
}
