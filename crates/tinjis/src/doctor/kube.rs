//! Calls to the API server, as ourselves or as somebody else: JSON in and out. From a laptop through `kubectl proxy`
//! on a socket in a private folder, in a pod with the ServiceAccount's token. Knows no check.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use chassis::client::{Client, ClientConfig, Connect, Stream};
use chassis::clock::Clock;
use chassis::tls::{ClientFiles, Source, TlsConnect};
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, header};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// For one call.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest answer: the list of all pods of a namespace.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Until `kubectl proxy` must listen; it may have to ask a cloud for a token.
const PROXY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Where the kubelet puts what a pod needs to call the API server.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const IN_CLUSTER: &str = "https://kubernetes.default.svc";

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// The doctor.
    Doctor,
    /// A member of this group and of no other.
    Team(String),
    /// A ServiceAccount: namespace and name.
    Account(String, String),
}

/// What the API server said.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Its own words about a failure.
    pub(super) fn message(&self) -> &str {
        self.body["message"].as_str().or(self.body.as_str()).unwrap_or_default().trim()
    }
}

pub(super) struct Kube {
    client: Client,
    base: &'static str,
    token: Option<HeaderValue>,
    _proxy: Option<Proxy>,
}

impl Kube {
    /// With the ServiceAccount where there is one, else by the kubeconfig that `kubectl` takes.
    pub(super) async fn open(kubectl: &str) -> anyhow::Result<Self> {
        let config =
            ClientConfig { deadline: DEADLINE, body_bytes_max: BODY_BYTES_MAX, ..ClientConfig::default() };
        if let Ok(token) = std::fs::read_to_string(Path::new(ACCOUNT).join("token")) {
            let ca = Source { setting: "ServiceAccount", path: Path::new(ACCOUNT).join("ca.crt") };
            let files = ClientFiles { trusted: Some(ca), system_too: false, identity: None };
            let client = Client::with_connect(config, TlsConnect::once(files, Clock::system())?);
            let mut token = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
            token.set_sensitive(true);
            return Ok(Self { client, base: IN_CLUSTER, token: Some(token), _proxy: None });
        }
        let proxy = Proxy::start(kubectl).await?;
        let client = Client::with_connect(config, Socket(proxy.socket.clone()));
        Ok(Self { client, base: "http://localhost", token: None, _proxy: Some(proxy) })
    }

    /// One call; whatever the status, the answer is an answer.
    pub(super) async fn call(
        &self,
        who: &As,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let (status, bytes) = self.send(who, method, path, body).await?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, body })
    }

    /// Text, such as a log.
    pub(super) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let (status, bytes) = self.send(&As::Doctor, Method::GET, path, None).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status != 200 {
            bail!("GET {path}: {status} {text}");
        }
        Ok(text)
    }

    async fn send(
        &self,
        who: &As,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Bytes)> {
        let media_type =
            if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut request = Request::builder().method(&method).uri(format!("{}{path}", self.base));
        request = request.header(header::CONTENT_TYPE, media_type);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        for (name, value) in who.headers() {
            request = request.header(name, value);
        }
        let sent = self.client.send(request.body(Bytes::from(bytes))?).await;
        let answer = sent
            .map_err(|failure| anyhow::anyhow!("{}", failure.cause()))
            .with_context(|| format!("{method} {path}"))?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    /// Something that must be there.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.call(&As::Doctor, Method::GET, path, None).await?;
        if !answer.is_success() {
            bail!("GET {path}: {} {}", answer.status, answer.message());
        }
        Ok(answer.body)
    }

    /// The items of a list; none where the kind is unknown to this cluster.
    pub(super) async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.call(&As::Doctor, Method::GET, path, None).await?;
        match answer.status {
            200 => Ok(answer.body["items"].as_array().cloned().unwrap_or_default()),
            404 => Ok(Vec::new()),
            status => bail!("GET {path}: {status} {}", answer.message()),
        }
    }

    pub(super) async fn create(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.call(&As::Doctor, Method::POST, path, Some(body)).await?;
        if !answer.is_success() {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            bail!("cannot create {name} in {path}: {} {}", answer.status, answer.message());
        }
        Ok(answer.body)
    }

    /// Away with it; already away is fine.
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.call(&As::Doctor, Method::DELETE, path, None).await?;
        if !answer.is_success() && answer.status != 404 {
            bail!("DELETE {path}: {} {}", answer.status, answer.message());
        }
        Ok(())
    }
}

impl As {
    fn headers(&self) -> Vec<(&'static str, String)> {
        const USER: &str = "impersonate-user";
        const GROUP: &str = "impersonate-group";
        match self {
            Self::Doctor => Vec::new(),
            Self::Team(group) => vec![
                (USER, "tinjis-doctor-visitor".to_owned()),
                (GROUP, group.clone()),
                (GROUP, "system:authenticated".to_owned()),
            ],
            Self::Account(namespace, name) => vec![
                (USER, format!("system:serviceaccount:{namespace}:{name}")),
                (GROUP, "system:serviceaccounts".to_owned()),
                (GROUP, format!("system:serviceaccounts:{namespace}")),
                (GROUP, "system:authenticated".to_owned()),
            ],
        }
    }

    /// The groups of it, as RBAC sees them.
    pub(super) fn groups(&self) -> Vec<String> {
        self.headers()
            .into_iter()
            .filter(|(name, _)| *name == "impersonate-group")
            .map(|(_, group)| group)
            .collect()
    }
}

impl std::fmt::Display for As {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Doctor => f.write_str("the doctor"),
            Self::Team(group) => write!(f, "group {group}"),
            Self::Account(namespace, name) => write!(f, "account {namespace}/{name}"),
        }
    }
}

/// `kubectl proxy`, which ends with us. It knows every way in that a kubeconfig can name.
struct Proxy {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Proxy {
    async fn start(kubectl: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a private folder")?;
        let socket = folder.path().join("api");
        // Perhaps with flags, as in `kubectl --context mine`.
        let mut words = kubectl.split_whitespace();
        let child = Command::new(words.next().unwrap_or("kubectl"))
            .args(words)
            .arg("proxy")
            .arg(format!("--unix-socket={}", socket.display()))
            // By itself it answers 403 to `exec`, in the API server's place; no path is empty.
            .arg("--reject-paths=^$")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ctrl-C goes to the whole group of a terminal; the proxy is needed until all is taken back.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {kubectl} (KUBECTL)"))?;
        let mut proxy = Self { child, socket, _folder: folder };
        let deadline = Instant::now() + PROXY_WITHIN;
        while UnixStream::connect(&proxy.socket).await.is_err() {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("{kubectl} proxy ended with {status}: is KUBECONFIG right?");
            }
            if Instant::now() > deadline {
                bail!("{kubectl} proxy does not listen after {} s", PROXY_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Connections to one socket, whatever the host.
struct Socket(PathBuf);

impl Connect for Socket {
    fn connect<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
        _deadline: Instant,
    ) -> BoxFuture<'a, std::io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(UnixStream::connect(&self.0).await?) as Box<dyn Stream>) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The process group, as the kernel shows it.
    fn group(stat: &str) -> String {
        stat.split(' ').nth(4).unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn the_proxy_does_not_hear_a_ctrl_c_of_the_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let (script, stat) = (folder.path().join("kubectl"), folder.path().join("stat"));
        std::fs::write(&script, format!("cat /proc/$$/stat > {}", stat.display())).unwrap();
        let started = Proxy::start(&format!("sh {}", script.display())).await;
        assert!(started.is_err(), "this one ends and never listens");
        let theirs = group(&std::fs::read_to_string(&stat).unwrap());
        let ours = group(&std::fs::read_to_string("/proc/self/stat").unwrap());
        assert!(!theirs.is_empty() && theirs != ours, "{theirs}");
    }
}
