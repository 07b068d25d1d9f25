//! A PostgreSQL server from the installed binaries, on a free port of loopback and a socket, in a folder of its own.
//! Ends with the process that started it, even if that is killed. Knows no database in it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::process_guard::{ProcessGuard, command, unprivileged};
use super::sql::DatabaseClient;
use super::{is_hidden, without_a_server};
use crate::certs::Pair;
use crate::process::{family_cpu_ms, free_address};
use crate::wait::{pause, wait_until};

/// The folder of Debian's packages, with one folder per version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Maximum time until a server accepts connections, also when it must recover first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A running server.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    bin: PathBuf,
    address: SocketAddr,
    settings: Vec<String>,
    user: Option<(u32, u32)>,
    guard: Mutex<Option<ProcessGuard>>,
}

impl Server {
    /// The owner of the databases, who needs no password.
    const ROLE: &str = "tinjis";

    /// Starts a new server; `None` where PostgreSQL is not installed, and `what` is reported as skipped.
    ///
    /// # Panics
    /// When PostgreSQL is not installed in CI, or does not start.
    #[must_use]
    #[track_caller]
    pub fn start(what: &str) -> Option<Self> {
        Self::start_with(what, &[], None)
    }

    /// As [`Self::start`], with settings such as `fsync=off`, which override those of the test kit, and with TLS by
    /// this certificate.
    #[must_use]
    #[track_caller]
    pub fn start_with(what: &str, settings: &[&str], tls: Option<&Pair>) -> Option<Self> {
        let Some(bin) = installed() else {
            without_a_server(what, format_args!("no PostgreSQL server under {DEBIAN} or in PATH"));
            return None;
        };
        let dir =
            tempfile::Builder::new().prefix("tinjis-pg-").tempdir().expect("a folder can be made").keep();
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        if let Some(pair) = tls {
            let (certificate, key) = pair.write(&dir, "server");
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a key can be hidden");
            for path in [&certificate, &key] {
                chown(path, user.map(|(uid, _)| uid), None).expect("root may give a file away");
            }
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", certificate.display()));
            settings.push(format!("ssl_key_file={}", key.display()));
        }
        let server = Self { dir, bin, address: free_address(), settings, user, guard: Mutex::default() };
        server.init();
        server.start_again();
        Some(server)
    }

    /// Starts a hot standby of this server, which replicates asynchronously: another process, with another port and
    /// folder.
    ///
    /// # Panics
    /// When the standby cannot be made or does not start.
    #[must_use]
    #[track_caller]
    pub fn standby(&self) -> Self {
        let dir =
            tempfile::Builder::new().prefix("tinjis-pg-").tempdir().expect("a folder can be made").keep();
        if let Some((uid, gid)) = self.user {
            chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let (bin, settings) = (self.bin.clone(), self.settings.clone());
        let standby =
            Self { dir, bin, address: free_address(), settings, user: self.user, guard: Mutex::default() };
        let copied = command(&self.bin.join("pg_basebackup"), &standby.dir, self.user)
            .args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--dbname"])
            .arg(self.url("postgres"))
            .arg("--pgdata")
            .arg(standby.data())
            .output()
            .expect("pg_basebackup can be started");
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        standby.start_again();
        standby
    }

    /// Makes a standby the primary of a new timeline, as a failover does.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn promote(&self) {
        let promoted = command(&self.bin.join("pg_ctl"), &self.dir, self.user)
            .args(["promote", "--wait", "--pgdata"])
            .arg(self.data())
            .output()
            .expect("pg_ctl can be started");
        assert!(promoted.status.success(), "pg_ctl promote: {}", String::from_utf8_lossy(&promoted.stderr));
    }

    fn init(&self) {
        let made = command(&self.bin.join("initdb"), &self.dir, self.user)
            .args([
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--username",
                Self::ROLE,
                "--pgdata",
            ])
            .arg(self.data())
            .output()
            .expect("initdb can be started");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts the server again on the same data, after [`Self::kill`] or [`Self::stop`], and waits until it accepts
    /// connections.
    ///
    /// # Panics
    /// When the server runs already or does not start.
    #[track_caller]
    pub fn start_again(&self) {
        self.spawn();
        let what = "PostgreSQL to take connections";
        wait_until(what, READY_WITHIN, || {
            if self.has_ended() {
                // Shared memory of a killed server may take a moment to disappear.
                self.spawn();
                pause(Duration::from_millis(50));
            }
            DatabaseClient::try_to(&self.url("postgres")).is_ok()
        });
    }

    fn spawn(&self) {
        let port = format!("port={}", self.address.port());
        let socket = format!("unix_socket_directories={}", self.dir.display());
        let own = [port.as_str(), socket.as_str(), "listen_addresses=127.0.0.1", "max_connections=300"];
        let mut args = vec!["-D".into(), self.data().into_os_string()];
        for setting in own.into_iter().chain(self.settings.iter().map(String::as_str)) {
            args.extend(["-c".into(), setting.into()]);
        }
        let guard = ProcessGuard::start(&self.dir, self.user, &self.bin.join("postgres"), "QUIT", args);
        *self.guard() = Some(guard);
    }

    /// Sends SIGKILL to the postmaster, by its id, and waits until it has ended: unwritten data is lost.
    ///
    /// # Panics
    /// When the server does not run.
    #[track_caller]
    pub fn kill(&self) {
        let pid = Pid::from_raw(self.pid()).expect("a process id is positive");
        rustix::process::kill_process(pid, Signal::KILL).expect("it can be killed");
        self.end();
    }

    /// Stops the server quickly: connections are cut, and committed data is written.
    ///
    /// # Panics
    /// When the server does not run.
    #[track_caller]
    pub fn stop(&self) {
        self.end_by(Signal::INT);
    }

    /// Stops the server as `pg_ctl stop -m immediate` does: nothing more is written, and data in memory is lost.
    ///
    /// # Panics
    /// When the server does not run.
    #[track_caller]
    pub fn stop_at_once(&self) {
        self.end_by(Signal::QUIT);
    }

    #[track_caller]
    fn end_by(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a process id is positive");
        rustix::process::kill_process(pid, signal).expect("it can be signalled");
        let path = self.data().join("postmaster.pid");
        wait_until("PostgreSQL to stop", READY_WITHIN, || !path.exists());
        self.end();
    }

    /// The postmaster's process id.
    ///
    /// # Panics
    /// When the server does not run.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        text.lines().next().and_then(|line| line.parse().ok()).expect("the first line is its id")
    }

    /// Processor time of all processes of the server so far, in milliseconds.
    ///
    /// # Panics
    /// When the server does not run.
    #[must_use]
    #[track_caller]
    pub fn cpu_ms(&self) -> u64 {
        family_cpu_ms(self.pid().unsigned_abs())
    }

    /// The URL of a database, over TCP.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{}@{}/{database}", Self::ROLE, self.address)
    }

    /// The address on which the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder for the server's files, for `pg_dump`, `pg_basebackup` or a certificate.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a program of the same version, such as `pg_dump`.
    #[must_use]
    pub fn tool(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn guard(&self) -> std::sync::MutexGuard<'_, Option<ProcessGuard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.guard().as_mut().is_none_or(ProcessGuard::has_ended)
    }

    fn end(&self) {
        if let Some(guard) = self.guard().take() {
            guard.stop();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(guard) = self.guard().take() {
            guard.remove();
        }
        // The folder is left only if the server was not running.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The folder of the latest server's programs.
pub(super) fn installed() -> Option<PathBuf> {
    if is_hidden() {
        return None;
    }
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| is_server(bin))
        .collect();
    found.sort_unstable();
    let in_path = || std::env::split_paths(&std::env::var_os("PATH")?).find(|bin| is_server(bin));
    found.pop().map(|(_, bin)| bin).or_else(in_path)
}

fn is_server(bin: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| bin.join(program).exists())
}
