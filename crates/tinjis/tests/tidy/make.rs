//! The targets of the Makefile: documents name only existing targets, each has a help text and a group in `make help`,
//! and the targets of the replaced systems exist. Runs make and scripts with stand-ins for the programs that they call;
//! needs no cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::tree::{file, files, none, root};

/// Targets that users of the replaced systems know.
const TYPED: [&str; 8] = [
    "build-pinger",
    "build-ponger",
    "create-k3d-cluster",
    "delete-local-kube-cluster",
    "deploy",
    "reset",
    "run-local-kube-with-ping-pong-app",
    "test",
];

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = file("Makefile").text;
    let has = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let mut findings = Vec::new();
    let mut documents = files("docs", &[".md"]);
    documents
        .extend(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", ".ci/run"].map(file));
    for document in documents {
        let path = document.path.as_str();
        for (number, line) in document.text.lines().enumerate() {
            for (at, _) in line.match_indices("make ") {
                let opened = line[..at].chars().next_back();
                let target: String = line[at + 5..]
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
                    .collect();
                let is_command = opened == Some('`') || (path == ".ci/run" && opened == Some(' '));
                if is_command && !target.is_empty() && !has(&target) {
                    findings.push(format!("{path}:{}: make {target}", number + 1));
                }
            }
        }
    }
    none("a document names a command that is not there", &findings);
}

#[test]
fn every_make_target_says_what_it_does() {
    let makefile = file("Makefile").text;
    let phony = makefile.lines().filter_map(|line| line.strip_prefix(".PHONY: "));
    let silent = phony.filter(|target| {
        !makefile.lines().any(|line| line.starts_with(&format!("{target}:")) && line.contains(" ## "))
    });
    none("a target without a word in `make help`", &silent.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn every_make_target_stands_in_a_group_and_those_that_users_type_stand_first() {
    let makefile = file("Makefile").text;
    let targets = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(".PHONY: ").map(str::to_owned)).collect()
    };
    let mut groups = makefile.split("\n##@ ").map(targets);
    assert_eq!(groups.next(), Some(vec!["help".to_owned()]), "targets before the first group");
    let mut first = groups.next().expect("there are groups");
    first.sort();
    assert_eq!(first, TYPED);
    assert!(groups.all(|group| !group.is_empty()), "a group without a target");
}

/// Creates a program that appends its arguments to the log next to it, and then runs `does`.
fn stand_in(folder: &Path, name: &str, does: &str) {
    let path = folder.join(name);
    let text = format!("#!/bin/sh\necho \"{name} $*\" >>\"{}/log\"\n{does}\n", folder.display());
    fs::write(&path, text).expect("a stand-in can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
}

/// Runs a command in the repository with the stand-ins first in PATH; returns the calls of the stand-ins.
fn calls(folder: &Path, program: &str, words: &[&str], kubeconfig: Option<&str>) -> String {
    let _none_yet = fs::remove_file(folder.join("log"));
    // The shell gets the PATH of this test.
    let mut command = Command::new("sh");
    command.args(["-c", "PATH=\"$0:$PATH\" exec \"$@\""]).arg(folder).arg(program).args(words);
    command.current_dir(root());
    for variable in ["KUBECONFIG", "KUBECTL", "IMAGE_LOAD", "MAKEFLAGS", "MAKELEVEL"] {
        command.env_remove(variable);
    }
    let output = command.envs(kubeconfig.map(|file| ("KUBECONFIG", file))).output().expect("it starts");
    assert!(output.status.success(), "{words:?}: {output:?}");
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

#[test]
fn a_local_cluster_is_created_unless_there_is_one_or_kubeconfig_names_another() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let create = &["create-k3d-cluster"];
    stand_in(folder.path(), "k3d", "[ \"$2\" != get ]");
    let made = calls(folder.path(), "make", create, None);
    assert_eq!(made, "k3d cluster get cluster\nk3d cluster create cluster\n");
    assert_eq!(calls(folder.path(), "make", create, Some("/elsewhere")), "");
    stand_in(folder.path(), "k3d", "");
    let merged = calls(folder.path(), "make", create, None);
    assert!(merged.contains("k3d kubeconfig merge cluster") && !merged.contains("create"), "{merged}");
}

#[test]
fn images_go_to_a_cluster_by_the_tool_that_made_it() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let script = "kubectl=(kubectl); . deploy/scripts/image-load.sh; echo \"${image_load[*]}\" >\"$0\"";
    for (context, expected) in [
        ("k3d-cluster", "k3d image import --cluster cluster\n"),
        ("kind-kind", "kind load image-archive --name kind\n"),
        ("minikube", "minikube image load\n"),
    ] {
        stand_in(folder.path(), "kubectl", &format!("echo {context}"));
        let out = folder.path().join("out");
        calls(folder.path(), "bash", &["-c", script, out.to_str().expect("a path is text")], None);
        assert_eq!(fs::read_to_string(out).expect("it was written"), expected, "{context}");
    }
}

#[test]
fn the_deployed_service_is_asked_by_the_host_that_an_edited_ingress_names() {
    let manifest = file("manifests/antaeus-ingress.yaml").text;
    assert!(manifest.contains("  labels:\n    app: antaeus\n"), "users select it by its label: {manifest}");
    let folder = tempfile::tempdir().expect("a folder can be made");
    stand_in(folder.path(), "pgrep", "exit 1");
    stand_in(
        folder.path(),
        "kubectl",
        "case \"$*\" in *ingress*rules*) echo billing.example ;; *ingress*status*) echo 192.0.2.7 ;; esac",
    );
    let only_its_host =
        "case \"$*\" in *\"Host: billing.example http://192.0.2.7/\"*) exit 0 ;; esac; exit 7";
    stand_in(folder.path(), "curl", only_its_host);
    let script = "
        eval \"$(sed -n '/^reachable()/p; /^forwarded()/,/^}/p; /^find_way()/,/^}/p' deploy/scripts/test.sh)\"
        k() { kubectl \"$@\"; }
        good() { echo \"$*\" >\"$0\"; }
        bad() { echo \"$*\" >\"$0\"; exit 1; }
        find_way payments antaeus-service 8000 /rest/health antaeus antaeus-ingress";
    let out = folder.path().join("out");
    calls(folder.path(), "bash", &["-c", script, out.to_str().expect("a path is text")], None);
    let way = fs::read_to_string(out).expect("it was written");
    assert_eq!(way, "Ingress: antaeus-ingress on host billing.example, http://192.0.2.7\n");
}

/// Parts that `make dist` may leave out of SQLite, with the SQL that needs them. Only the images are built this way: no
/// other test would see a statement fail.
const LEFT_OUT: [(&str, &[&str]); 4] = [
    ("-DSQLITE_OMIT_JSON", &["json_each(", "json_extract(", "json_array(", "json_group_array("]),
    ("-USQLITE_ENABLE_FTS5", &["USING fts5", "USING fts4"]),
    ("-USQLITE_ENABLE_RTREE", &["USING rtree"]),
    ("-DSQLITE_OMIT_LOAD_EXTENSION", &["load_extension("]),
];

#[test]
fn images_leave_nothing_out_of_sqlite_that_a_statement_needs() {
    let makefile = file("Makefile").text;
    let code = ["crates/billing/src", "crates/payments/src", "crates/chassis/src"]
        .into_iter()
        .flat_map(|folder| files(folder, &[".rs", ".sql"]));
    let mut findings = Vec::new();
    for source in code {
        for (flag, needed) in LEFT_OUT {
            for sql in needed.iter().filter(|sql| makefile.contains(flag) && source.text.contains(**sql)) {
                findings.push(format!("{}: `{sql}` needs what {flag} leaves out", source.path));
            }
        }
    }
    none("statements that images cannot run", &findings);
}
