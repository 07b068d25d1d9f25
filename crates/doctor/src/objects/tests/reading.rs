//! A complete read-only run against a server of the test, which answers lists of objects and records every request.
//! Needs no cluster and no kubectl: a script replaces it.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::evaluate::Verdict;
use crate::{Examination, Format, Options, examine, propose};

/// The server's objects, and its recorded requests: method and path with query.
struct Api {
    snapshot: Snapshot,
    /// Paths that the server refuses.
    forbidden: Vec<&'static str>,
    requests: Mutex<Vec<String>>,
}

impl Api {
    /// An answer with one object per page, so that the reader must follow `continue`.
    fn answer(&self, target: &str) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path == "/version" {
            return (200, json!({"gitVersion": "v1.35.0"}));
        }
        if self.forbidden.contains(&path) {
            return (403, json!({"message": "no right to list it"}));
        }
        let words: Vec<&str> = path.rsplit('/').collect();
        let namespace = words.get(2).filter(|word| **word == "namespaces").map(|_| words[1]);
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == words[0]);
        let Some(kind) = kind.filter(|kind| *kind != Kind::HttpRoute) else {
            return (404, json!({"message": "unknown"}));
        };
        let all = self.snapshot.of(kind).iter();
        let here = all.filter(|object| namespace.is_none_or(|name| object.namespace() == name));
        let values: Vec<&Value> = here.map(|object| &object.value).collect();
        let at = query.split("continue=").nth(1).and_then(|at| at.parse().ok()).unwrap_or(0_usize);
        let more = if at + 1 < values.len() { (at + 1).to_string() } else { String::new() };
        let page: Vec<&&Value> = values.iter().skip(at).take(1).collect();
        (200, json!({"items": page, "metadata": {"continue": more}}))
    }

    async fn serve(self: Arc<Self>, mut stream: UnixStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let line = head.lines().next().unwrap_or_default();
        let impersonates = head.to_lowercase().contains("impersonate");
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let note = if impersonates { " impersonates" } else { "" };
        self.requests.lock().unwrap().push(format!("{method} {target}{note}"));
        let (status, body) = self.answer(target);
        let body = body.to_string();
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
        stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await
    }
}

/// Starts the server, and writes a script that acts as `kubectl proxy` in front of it; returns the command.
fn start(folder: &std::path::Path, api: Arc<Api>) -> String {
    let (socket, script) = (folder.join("server"), folder.join("kubectl"));
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(Arc::clone(&api).serve(stream));
        }
    });
    let link = "for word; do case $word in --unix-socket=*) ln -s \"$0.server\" \"${word#*=}\";; esac; done";
    std::fs::write(&script, format!("#!/bin/sh\n{link}\nexec sleep 600\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&socket, folder.join("kubectl.server")).unwrap();
    script.display().to_string()
}

async fn run(snapshot: Snapshot, forbidden: Vec<&'static str>) -> (Examination, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let api = Arc::new(Api { snapshot, forbidden, requests: Mutex::default() });
    let kubectl = start(folder.path(), Arc::clone(&api));
    let options = Options {
        expectations: expectations(),
        image: String::new(),
        kubectl,
        evictions: true,
        read_only: true,
    };
    let examination = examine(options, &|_| {}).await.unwrap();
    let requests = api.requests.lock().unwrap().clone();
    (examination, requests)
}

#[tokio::test]
async fn a_read_only_run_sends_get_requests_only_and_reads_every_page() {
    let (examination, requests) = run(sound(), Vec::new()).await;
    let other: Vec<&String> = requests
        .iter()
        .filter(|request| !request.starts_with("GET ") || request.contains("impersonates"))
        .collect();
    assert_eq!(other, [""; 0], "a request that is no GET, or impersonates");
    assert!(!requests.iter().any(|request| request.contains("/secrets")), "it reads no Secret");
    assert_eq!(examination.report.verdict(), Verdict::Green, "{}", examination.report.text(Format::Table));
    examination.cleanup.unwrap();
}

/// Tests one hole per rule.
#[tokio::test]
async fn a_hole_is_red_through_the_whole_run() {
    let mut rules = BTreeSet::new();
    for (name, rule, snapshot) in holes::planted_by_rule() {
        if rules.insert(rule) {
            let (examination, _) = run(snapshot, Vec::new()).await;
            let text = examination.report.text(Format::Table);
            assert_eq!(examination.report.verdict(), Verdict::Red, "{name}: {text}");
            assert!(text.contains(rule), "{name}: {text}");
        }
    }
    assert!(rules.len() > 20, "{rules:?}");
}

#[tokio::test]
async fn a_refused_list_is_inconclusive_and_named() {
    let refused = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let (examination, _) = run(sound(), vec![refused]).await;
    let text = examination.report.text(Format::Table);
    assert_eq!(examination.report.verdict(), Verdict::CannotTell, "{text}");
    assert!(text.contains(&format!("GET {refused}: 403 no right to list it")), "{text}");
}

#[tokio::test]
async fn a_proposal_is_read_the_same_way() {
    let folder = tempfile::tempdir().unwrap();
    let api = Arc::new(Api { snapshot: sound(), forbidden: Vec::new(), requests: Mutex::default() });
    let kubectl = start(folder.path(), Arc::clone(&api));
    let text = propose(&kubectl, &["payments".to_owned()]).await.unwrap();
    assert!(Expectations::parse(&text).is_ok(), "{text}");
    assert!(api.requests.lock().unwrap().iter().all(|request| request.starts_with("GET ")));
}
