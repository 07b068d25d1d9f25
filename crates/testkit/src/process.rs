//! One service as one process: it can be started, waited for, measured, killed by its id, and started again on the same
//! ports and store. Knows the settings that every service has, and no service.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::http;
use crate::wait::{pause, wait_for};

/// Maximum time until a service is ready, or its test fails.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Maximum time from SIGTERM until a service has stopped, or its test fails.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// How often a start is tried with other ports, in case another process has taken one.
const STARTS_MAX: usize = 5;
/// `USER_HZ`: 100 in the interface of every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// The command line and environment of a service, the same for each start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Program and first arguments, such as `tinjis run billing` or the path of the thin binary.
    pub program: Vec<OsString>,
    /// Flags after the first arguments; they override the variables.
    pub flags: Vec<String>,
    /// The whole environment, except `PATH` and the variables that the test kit sets: addresses, store, log format.
    pub env: BTreeMap<String, String>,
    /// The soft and hard limit of `ulimit -n`.
    pub nofile: Option<u64>,
    /// The folder for the store and the log.
    pub dir: PathBuf,
    /// The name of the store and the log in the folder.
    pub name: &'static str,
}

impl Spec {
    /// A spec for this program, with only the settings of the test kit.
    #[must_use]
    pub fn new(program: Vec<OsString>, name: &'static str, dir: impl Into<PathBuf>) -> Self {
        Self { program, flags: Vec::new(), env: BTreeMap::new(), nofile: None, dir: dir.into(), name }
    }
}

/// A process, which SIGKILL ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    listen: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Process {
    /// Starts a process on free ports of 127.0.0.1 and waits until it is ready.
    ///
    /// # Panics
    /// When the process does not become ready; the message ends with its log.
    #[must_use]
    #[track_caller]
    pub fn start(spec: Spec) -> Self {
        for _ in 0..STARTS_MAX {
            let mut process = Self::new(spec.clone());
            process.spawn();
            if process.wait_ready().is_ok() {
                return process;
            }
        }
        let log = fs::read_to_string(spec.dir.join(format!("{}.log", spec.name))).unwrap_or_default();
        panic!("{} did not become ready in {STARTS_MAX} starts:\n{log}", spec.name);
    }

    /// A process with free ports of 127.0.0.1, not started yet.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { listen: free_address(), admin: free_address(), child: None, spec }
    }

    /// Sets a variable for the next starts; an empty one counts as unset.
    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.spec.env.insert(name.to_owned(), value.into());
    }

    /// Spawns the process and does not wait for anything.
    ///
    /// # Panics
    /// When the process runs already or cannot be spawned.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.spec.name);
        self.child = Some(self.run(&[]));
    }

    /// Runs a subcommand, such as `migrate`, with the same settings until it ends.
    ///
    /// # Panics
    /// When the subcommand fails; the message ends with its log.
    #[track_caller]
    pub fn run_to_end(&self, subcommand: &str) {
        let status = self.try_run(subcommand);
        assert!(status.success(), "{} {subcommand}: {status}:\n{}", self.spec.name, self.log());
    }

    /// As [`Self::run_to_end`]; returns the exit status.
    #[track_caller]
    pub fn try_run(&self, subcommand: &str) -> ExitStatus {
        self.try_run_words(&[subcommand])
    }

    /// As [`Self::try_run`], for a subcommand with further arguments.
    #[track_caller]
    pub fn try_run_words(&self, words: &[&str]) -> ExitStatus {
        self.run(words).wait().expect("a child can be waited for")
    }

    #[track_caller]
    fn run(&self, subcommand: &[&str]) -> Child {
        let log =
            File::options().create(true).append(true).open(self.log_path()).expect("a log can be written");
        let mut command = match self.spec.nofile {
            None => Command::new(&self.spec.program[0]),
            Some(limit) => {
                let mut shell = Command::new("/bin/sh");
                // `exec` keeps the process id, so that a signal reaches the service and not the shell.
                shell
                    .arg("-c")
                    .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""))
                    .arg(&self.spec.program[0]);
                shell
            }
        };
        let child = command
            .args(&self.spec.program[1..])
            .args(&self.spec.flags)
            .args(subcommand)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("LISTEN", self.listen.to_string())
            .env("ADMIN_LISTEN", self.admin.to_string())
            .env("DATABASE_URL", format!("sqlite:{}", self.db().display()))
            .env("LOG_FORMAT", "json")
            .envs(&self.spec.env)
            .current_dir(&self.spec.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log can be shared"))
            .stderr(log)
            .spawn();
        child.expect("the program can be started")
    }

    /// Starts the process again after a kill or a stop, on the same ports and store, and waits until it is ready.
    ///
    /// # Panics
    /// When the process does not become ready; the message ends with its log.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn();
        if let Err(why) = self.wait_ready() {
            panic!("{} {why}:\n{}", self.spec.name, self.log());
        }
    }

    /// As [`Self::start_again`]; the error is the exit status of a process that ended before it was ready.
    ///
    /// # Panics
    /// When the process neither becomes ready nor ends.
    #[track_caller]
    pub fn try_start(&mut self) -> Result<(), ExitStatus> {
        self.spawn();
        let url = format!("{}/readyz", self.admin_url());
        let ended = wait_for("a service to be ready, or to end", READY_WITHIN, || {
            if http::try_call("GET", &url, &[], b"").is_ok_and(|answer| answer.status == 200) {
                return Some(None);
            }
            self.ended().map(Some)
        });
        match ended {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                Err(status)
            }
        }
    }

    /// Whether the process was started and its end was not noticed yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn wait_ready(&mut self) -> Result<(), &'static str> {
        let url = format!("{}/readyz", self.admin_url());
        let child = self.child.as_mut().ok_or("was not started")?;
        let ready = wait_for("a service to be ready", READY_WITHIN, || {
            if http::try_call("GET", &url, &[], b"").is_ok_and(|answer| answer.status == 200) {
                return Some(true);
            }
            child.try_wait().ok().flatten().map(|_| false)
        });
        if ready {
            return Ok(());
        }
        self.child = None;
        Err("ended before it was ready")
    }

    /// Sends SIGKILL, by the process id, and waits until the process has ended. Does nothing when it is not running.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM, by the process id, waits until the process has ended, and returns its exit status.
    ///
    /// # Panics
    /// When the process is not running, or does not end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("only a running service can be stopped");
        rustix::process::kill_process(Pid::from_child(child), Signal::TERM).expect("it can be signalled");
        let status = wait_for("a service to stop", STOPPED_WITHIN, || child.try_wait().ok().flatten());
        self.child = None;
        status
    }

    /// Sends SIGHUP, as a closed terminal does; returns the exit status.
    ///
    /// # Panics
    /// When the process is not running, or does not end.
    #[track_caller]
    pub fn hang_up(&mut self) -> ExitStatus {
        self.signal(Signal::HUP);
        let child = self.child.as_mut().expect("only a running service can be signalled");
        let status = wait_for("a service to stop", STOPPED_WITHIN, || child.try_wait().ok().flatten());
        self.child = None;
        status
    }

    /// Sends SIGSTOP: the process pauses until [`Self::go_on`].
    ///
    /// # Panics
    /// When the process is not running.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT.
    ///
    /// # Panics
    /// When the process is not running.
    #[track_caller]
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("only a running service can be signalled");
        rustix::process::kill_process(Pid::from_child(child), signal).expect("it can be signalled");
    }

    /// The exit status, if the process has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Starts the process again if it has ended by itself, as Kubernetes does; returns whether it had, and does not
    /// wait.
    #[track_caller]
    pub fn restart_if_ended(&mut self) -> bool {
        let has_ended = self.ended().is_some();
        if has_ended {
            self.child = None;
            self.spawn();
        }
        has_ended
    }

    /// The process id.
    ///
    /// # Panics
    /// When the process is not running.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("only a running service has an id").id()
    }

    /// The business URL, `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The admin URL, `http://127.0.0.1:port`.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// Status and text of the readiness probe; status 0 without a response.
    #[must_use]
    pub fn readiness(&self) -> (u16, String) {
        http::try_call("GET", &format!("{}/readyz", self.admin_url()), &[], b"")
            .map_or((0, String::new()), |answer| (answer.status, answer.text()))
    }

    /// The business address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The file of the SQLite store.
    #[must_use]
    pub fn db(&self) -> PathBuf {
        self.spec.dir.join(format!("{}.db", self.spec.name))
    }

    /// The whole log, over all starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The sum of a metric over the series whose name and labels contain all of `parts`; 0 without a series.
    ///
    /// # Panics
    /// When the metrics cannot be read.
    #[must_use]
    #[track_caller]
    pub fn metric(&self, parts: &[&str]) -> i64 {
        let page = http::get(&format!("{}/metrics", self.admin_url())).text();
        let series = page
            .lines()
            .filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
        series
            .filter_map(|line| line.rsplit(' ').next())
            .map(|value| value.split('.').next().unwrap_or(value).parse().unwrap_or(0))
            .sum()
    }

    /// Processor time so far, user and system, in milliseconds.
    #[must_use]
    pub fn cpu_ms(&self) -> u64 {
        cpu_ms(self.pid())
    }

    /// Resident memory now, in KiB.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        status_kib(self.pid(), "VmRSS:")
    }

    /// Maximum resident memory so far, in KiB.
    #[must_use]
    pub fn rss_peak_kib(&self) -> u64 {
        status_kib(self.pid(), "VmHWM:")
    }

    /// Number of open file descriptors.
    #[must_use]
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    fn log_path(&self) -> PathBuf {
        self.spec.dir.join(format!("{}.log", self.spec.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Processor time of a process, in milliseconds; 0 when it has ended.
#[must_use]
pub fn cpu_ms(pid: u32) -> u64 {
    ticks(pid, 2) * 1000 / TICKS_PER_SECOND
}

/// Sum of the first `fields` of: utime, stime, and both for waited-for children. 0 when the process has ended.
fn ticks(pid: u32, fields: usize) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may contain spaces; the fields after it begin with number 3, so utime (14) is 11 further.
    let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(fields);
    times.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Processor time of a process, its running children and the ended children of all of these, in milliseconds.
#[must_use]
pub fn family_cpu_ms(parent: u32) -> u64 {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let ticks: u64 = std::iter::once(parent).chain(children).map(|pid| ticks(pid, 4)).sum();
    ticks * 1000 / TICKS_PER_SECOND
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Raises this process's own file limit to its maximum, for tests with a thousand connections; returns the limit.
pub fn raise_own_nofile() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If the limit cannot be raised, a connection will fail.
    let _ = setrlimit(Resource::Nofile, limit);
    limit.maximum.unwrap_or(u64::MAX)
}

/// An unused address below the ephemeral ports, which the kernel gives to outgoing connections and to binds without a
/// port. So it stays free until a program listens there. Each address is used once in this process.
///
/// # Panics
/// Never: a port has 16 bits.
#[must_use]
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    /// Coprime to `COUNT`, so that all ports come up, and large, so that two processes rarely choose the same.
    const STRIDE: u32 = 7919;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(37));
        let port = FIRST + step.wrapping_mul(STRIDE) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port has 16 bits")));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
        pause(Duration::from_millis(1));
    }
}

/// The arguments with which the `tinjis` program runs this service.
#[must_use]
pub fn run_by(tinjis: impl AsRef<Path>, service: &str) -> Vec<OsString> {
    vec![tinjis.as_ref().as_os_str().to_owned(), "run".into(), service.into()]
}
