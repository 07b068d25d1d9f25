//! The demo's children: this same binary as a service or as the naive biller, each ended by its process id in every
//! case. Knows that services have two ports, a database and a log, and nothing about their work.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use chassis::clock::Random;
use tokio::time::Instant;

use super::pki::{HOST, Pki};
use crate::http::{Api, BaseUrl};

/// How long a child may take to become ready, or to end.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How often a condition is checked.
const POLL: Duration = Duration::from_millis(4);

/// Lines of a child's log that are printed after a failure.
const TAIL_LINES: usize = 15;

/// Ports to choose from: below the ephemeral ports, so that no outgoing connection takes one while
/// its service is being restarted.
const PORT_FIRST: u16 = 12_000;
const PORTS: u16 = 18_000;

/// Polls until there is a value; the error at the deadline names the condition.
pub(crate) async fn wait_for<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}, which did not happen", within.as_secs());
        }
        sleep_between_polls().await;
    }
}

/// Sleeps between two checks of a condition.
pub(crate) async fn sleep_between_polls() {
    tokio::time::sleep(POLL).await;
}

/// This program's own file, even if a newer build has replaced it since.
fn own_program() -> anyhow::Result<PathBuf> {
    const RUNNING: &str = "/proc/self/exe";
    if Path::new(RUNNING).exists() {
        return Ok(RUNNING.into());
    }
    std::env::current_exe().context("this program's own file is not known")
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    log: PathBuf,
    detached: bool,
}

impl Running {
    /// Starts this binary with these arguments and without this process's settings. The child has a process group of
    /// its own, so that Ctrl-C reaches the demo alone.
    fn start(words: &[OsString], log: &Path) -> anyhow::Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let err: File = out.try_clone()?;
        let child = Command::new(own_program()?)
            .arg0("tinjis")
            .args(words)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .context("a child process could not be started")?;
        Ok(Self { child, log: log.to_owned(), detached: false })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the child has ended.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends SIGKILL, and waits until the child has ended.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.detached {
            // The child may have ended already.
            let _ = self.kill();
        }
    }
}

/// One of our services as a child.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    words: Vec<OsString>,
    listen: SocketAddr,
    admin: SocketAddr,
    running: Running,
    pki: Option<Pki>,
}

impl Service {
    /// Starts `tinjis run NAME` with its data and log in `dir`, and waits until it is ready.
    pub(crate) async fn start(
        name: &'static str,
        dir: &Path,
        pki: Option<&Pki>,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let [listen, admin] = free_addresses();
        let mut words = service_args(name, dir, settings);
        let mut set = |flag: &str, value: &str| words.extend([flag.into(), value.into()]);
        set("--listen", &listen.to_string());
        set("--admin-listen", &admin.to_string());
        pki.map(Pki::server_settings).iter().flatten().for_each(|(flag, value)| set(flag, value));
        let running = Running::start(&words, &dir.join(format!("{name}.log")))?;
        let mut service = Self { name, words, listen, admin, running, pki: pki.cloned() };
        service.ready().await?;
        Ok(service)
    }

    /// Brings the schema of a service's database up to date.
    pub(crate) async fn migrate(
        name: &'static str,
        dir: &Path,
        settings: &[(&str, String)],
    ) -> anyhow::Result<()> {
        let mut words = service_args(name, dir, settings);
        words.push("migrate".into());
        let mut running = Running::start(&words, &dir.join(format!("{name}.log")))?;
        let status = wait_for("a migration to end", READY_WITHIN, async || running.ended()).await?;
        if !status.success() {
            bail!("{name} could not migrate its database: {status}");
        }
        Ok(())
    }

    /// Kills the service by SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.running.kill()
    }

    /// Starts a killed service again with the same ports and data.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.running = Running::start(&self.words, &self.running.log)?;
        self.ready().await
    }

    /// Kills the service by SIGKILL and starts it again with the same ports and data.
    pub(crate) async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.restart().await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let admin = self.admin_api();
        let name = self.name;
        let running = &mut self.running;
        wait_for(&format!("{name} to be ready"), READY_WITHIN, async || {
            if let Some(status) = running.ended()? {
                bail!("{name} ended by itself: {status}");
            }
            Ok(admin.text("/readyz").await.ok())
        })
        .await?;
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        match &self.pki {
            None => format!("http://{}", self.listen),
            Some(_) => BaseUrl::secure(HOST, self.listen.port()).to_string(),
        }
    }

    pub(crate) fn api(&self) -> anyhow::Result<Api> {
        Ok(match &self.pki {
            None => api(self.listen),
            Some(pki) => Api::over_tls(BaseUrl::secure(HOST, self.listen.port()), pki.connect()?),
        })
    }

    /// Waits until the service has loaded changed TLS files this many times.
    pub(super) async fn wait_for_reloads(&self, times: i64) -> anyhow::Result<()> {
        const METRIC: &str = "tls_reloads_total{result=\"ok\"} ";
        let admin = self.admin_api();
        wait_for(&format!("{} to take new certificates", self.name), READY_WITHIN, async || {
            let metrics = admin.text("/metrics").await?;
            let taken = metrics.lines().find_map(|line| line.strip_prefix(METRIC));
            Ok(taken.and_then(|taken| taken.parse::<i64>().ok()).filter(|taken| *taken >= times))
        })
        .await
        .map(|_| ())
    }

    pub(crate) fn admin_api(&self) -> Api {
        api(self.admin)
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// The TLS arguments of curl, or nothing without `--mtls`.
    pub(super) fn curl_tls_args(&self) -> String {
        self.pki.as_ref().map(Pki::curl_tls_args).unwrap_or_default()
    }

    /// Keeps the service running after the demo ends.
    pub(super) fn detach(&mut self) {
        self.running.detached = true;
    }
}

/// The arguments of a service. Its database is in `dir`, unless a setting names another.
fn service_args(name: &str, dir: &Path, settings: &[(&str, String)]) -> Vec<OsString> {
    const DATABASE: &str = "--database-url";
    let mut words: Vec<OsString> = vec!["run".into(), name.into()];
    let mut set = |flag: &str, value: &str| words.extend([flag.into(), value.into()]);
    if !settings.iter().any(|(flag, _)| *flag == DATABASE) {
        set(DATABASE, &format!("sqlite:{}", dir.join(format!("{name}.db")).display()));
    }
    set("--log-format", "text");
    settings.iter().for_each(|(flag, value)| set(flag, value));
    words
}

fn api(address: SocketAddr) -> Api {
    let base: BaseUrl = format!("http://{address}").parse().expect("an address makes a URL");
    Api::new(base)
}

/// Starts the naive biller as a child.
pub(super) fn naive(
    [invoices, paid, log]: [&Path; 3],
    provider: &str,
    pki: Option<&Pki>,
) -> anyhow::Result<Running> {
    let mut words: Vec<OsString> = vec![
        "naive-biller".into(),
        "--invoices".into(),
        invoices.into(),
        "--paid".into(),
        paid.into(),
        "--provider".into(),
        provider.into(),
    ];
    if let Some(pki) = pki {
        words.extend(["--pki".into(), pki.folder().into()]);
    }
    Running::start(&words, log)
}

/// Unused loopback addresses.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let random = Random::system();
    // All ports stay bound until all are found, so that they differ.
    let held: [TcpListener; N] = std::array::from_fn(|_| {
        loop {
            let step = u16::try_from(random.below(PORTS.into())).unwrap_or_default();
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", PORT_FIRST + step)) {
                return listener;
            }
        }
    });
    held.map(|listener| listener.local_addr().expect("a bound socket has an address"))
}

/// The last lines of every log in a folder and its subfolders.
pub(crate) fn log_tails(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            lines.extend(log_tails(&path));
        } else if path.extension().is_some_and(|ending| ending == "log") {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let all: Vec<&str> = text.lines().collect();
            lines.push(format!("--- the end of {}", path.display()));
            lines.extend(all[all.len().saturating_sub(TAIL_LINES)..].iter().map(ToString::to_string));
        }
    }
    lines
}
