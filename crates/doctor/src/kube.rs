//! A client of the Kubernetes API server, with impersonation. Outside a cluster it uses `kubectl proxy` on a Unix socket
//! in a private folder, in a pod the ServiceAccount's token. Knows no check.

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

/// Timeout of one request.
const DEADLINE: Duration = Duration::from_secs(30);
/// Maximum size of a response; the largest is the list of all pods of a namespace.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Maximum time until `kubectl proxy` listens; it may have to fetch a token from a cloud provider.
const PROXY_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Where the kubelet mounts the ServiceAccount's token and CA.
const SERVICE_ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const IN_CLUSTER: &str = "https://kubernetes.default.svc";

/// The identity that a request impersonates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// No impersonation.
    Doctor,
    /// A member of this group and of no other.
    Group(String),
    /// A ServiceAccount: namespace and name.
    ServiceAccount(String, String),
}

#[derive(Clone, Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl ApiResponse {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The API server's error message.
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().or(self.body.as_str()).unwrap_or_default().trim()
    }
}

pub(crate) struct KubeClient {
    client: Client,
    base: &'static str,
    token: Option<HeaderValue>,
    _proxy: Option<KubectlProxy>,
}

impl KubeClient {
    /// Connects with the ServiceAccount's token in a pod, else with kubectl's kubeconfig.
    pub(crate) async fn open(kubectl: &str) -> anyhow::Result<Self> {
        let config =
            ClientConfig { deadline: DEADLINE, body_bytes_max: BODY_BYTES_MAX, ..ClientConfig::default() };
        if let Ok(token) = std::fs::read_to_string(Path::new(SERVICE_ACCOUNT_FOLDER).join("token")) {
            let ca = Source {
                setting: "ServiceAccount".into(),
                path: Path::new(SERVICE_ACCOUNT_FOLDER).join("ca.crt"),
            };
            let files = ClientFiles { trusted: Some(ca), system_too: false, identity: None };
            let client = Client::with_connect(config, TlsConnect::once(files, Clock::system())?);
            let mut token = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
            token.set_sensitive(true);
            return Ok(Self { client, base: IN_CLUSTER, token: Some(token), _proxy: None });
        }
        let proxy = KubectlProxy::start(kubectl).await?;
        let client = Client::with_connect(config, UnixConnector(proxy.socket.clone()));
        Ok(Self { client, base: "http://localhost", token: None, _proxy: Some(proxy) })
    }

    /// Sends one request. Every HTTP status is a response, not an error.
    pub(crate) async fn call(
        &self,
        identity: &Identity,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<ApiResponse> {
        let (status, bytes) = self.send(identity, method, path, body).await?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(ApiResponse { status, body })
    }

    /// Reads a text resource, such as a log.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let (status, bytes) = self.send(&Identity::Doctor, Method::GET, path, None).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status != 200 {
            bail!("GET {path}: {status} {text}");
        }
        Ok(text)
    }

    async fn send(
        &self,
        identity: &Identity,
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
        for (name, value) in identity.headers() {
            request = request.header(name, value);
        }
        let sent = self.client.send(request.body(Bytes::from(bytes))?).await;
        let response = sent
            .map_err(|failure| anyhow::anyhow!("{}", failure.cause()))
            .with_context(|| format!("{method} {path}"))?;
        Ok((response.status().as_u16(), response.into_body()))
    }

    /// Reads an object that must exist.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.call(&Identity::Doctor, Method::GET, path, None).await?;
        if !response.is_success() {
            bail!("GET {path}: {} {}", response.status, response.message());
        }
        Ok(response.body)
    }

    /// Lists objects; empty when the cluster does not know the kind.
    pub(crate) async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let response = self.call(&Identity::Doctor, Method::GET, path, None).await?;
        match response.status {
            200 => Ok(response.body["items"].as_array().cloned().unwrap_or_default()),
            404 => Ok(Vec::new()),
            status => bail!("GET {path}: {status} {}", response.message()),
        }
    }

    pub(crate) async fn create(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let response = self.call(&Identity::Doctor, Method::POST, path, Some(body)).await?;
        if !response.is_success() {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            bail!("cannot create {name} in {path}: {} {}", response.status, response.message());
        }
        Ok(response.body)
    }

    /// Deletes an object or a collection; a missing object is no error.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let response = self.call(&Identity::Doctor, Method::DELETE, path, None).await?;
        if !response.is_success() && response.status != 404 {
            bail!("DELETE {path}: {} {}", response.status, response.message());
        }
        Ok(())
    }
}

impl Identity {
    fn headers(&self) -> Vec<(&'static str, String)> {
        const USER: &str = "impersonate-user";
        const GROUP: &str = "impersonate-group";
        match self {
            Self::Doctor => Vec::new(),
            Self::Group(group) => vec![
                (USER, "tinjis-doctor-visitor".to_owned()),
                (GROUP, group.clone()),
                (GROUP, "system:authenticated".to_owned()),
            ],
            Self::ServiceAccount(namespace, name) => vec![
                (USER, format!("system:serviceaccount:{namespace}:{name}")),
                (GROUP, "system:serviceaccounts".to_owned()),
                (GROUP, format!("system:serviceaccounts:{namespace}")),
                (GROUP, "system:authenticated".to_owned()),
            ],
        }
    }

    /// The identity's groups, for matching RoleBindings.
    pub(crate) fn groups(&self) -> Vec<String> {
        self.headers()
            .into_iter()
            .filter(|(name, _)| *name == "impersonate-group")
            .map(|(_, group)| group)
            .collect()
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Doctor => f.write_str("the doctor"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::ServiceAccount(namespace, name) => write!(f, "account {namespace}/{name}"),
        }
    }
}

/// A `kubectl proxy` child process, which supports every kind of credentials that a kubeconfig can name.
struct KubectlProxy {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl KubectlProxy {
    async fn start(kubectl: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a private folder")?;
        let socket = folder.path().join("api");
        // The command may contain flags, as in `kubectl --context mine`.
        let mut command = kubectl.split_whitespace();
        let child = Command::new(command.next().unwrap_or("kubectl"))
            .args(command)
            .arg("proxy")
            .arg(format!("--unix-socket={}", socket.display()))
            // The proxy's default rejects `exec` with a 403 of its own; this pattern matches no path.
            .arg("--reject-paths=^$")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ctrl-C in a terminal goes to the whole process group, but cleanup still needs the proxy.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {kubectl} (KUBECTL)"))?;
        let mut proxy = Self { child, socket, _folder: folder };
        let deadline = Instant::now() + PROXY_TIMEOUT;
        while UnixStream::connect(&proxy.socket).await.is_err() {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("{kubectl} proxy exited with {status}; check KUBECONFIG");
            }
            if Instant::now() > deadline {
                bail!("{kubectl} proxy is not listening after {} s", PROXY_TIMEOUT.as_secs());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(proxy)
    }
}

impl Drop for KubectlProxy {
    fn drop(&mut self) {
        // The proxy may have exited already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Connects to one Unix socket, for every host.
struct UnixConnector(PathBuf);

impl Connect for UnixConnector {
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

    /// The process group in `/proc/PID/stat`.
    fn process_group(stat: &str) -> String {
        stat.split(' ').nth(4).unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn the_proxy_runs_in_its_own_process_group_and_survives_ctrl_c() {
        let folder = tempfile::tempdir().unwrap();
        let (script, stat) = (folder.path().join("kubectl"), folder.path().join("stat"));
        std::fs::write(&script, format!("cat /proc/$$/stat > {}", stat.display())).unwrap();
        let started = KubectlProxy::start(&format!("sh {}", script.display())).await;
        assert!(started.is_err(), "it exits without listening");
        let theirs = process_group(&std::fs::read_to_string(&stat).unwrap());
        let ours = process_group(&std::fs::read_to_string("/proc/self/stat").unwrap());
        assert!(!theirs.is_empty() && theirs != ours, "{theirs}");
    }
}
