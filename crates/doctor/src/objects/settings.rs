//! Settings of the workloads: settings that weaken a service, differences from the expectations, and allowed callers by
//! certificate. Knows names of settings and no code of a service. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::finding::{Finding, Severity};
use super::snapshot::{Kind, Object, Snapshot, items, texts};
use super::workloads::deployed;
use crate::expectations::Expectations;

pub(crate) const WEAK_SETTING: &str = "weak-setting";
pub(crate) const CALLER_NAMES: &str = "caller-names";

const ALLOWED_CLIENTS: &str = "TLS_ALLOWED_CLIENTS";

/// A setting, the values that weaken the service, and their effect.
struct Weak {
    name: &'static str,
    is_weak: fn(&str) -> bool,
    meaning: &'static str,
}

const WEAK: [Weak; 7] = [
    Weak { name: "SUCCESS_RATE", is_weak: is_zero, meaning: "no charge succeeds" },
    Weak { name: "FAULTS", is_weak: |value| !value.is_empty(), meaning: "a fault script runs" },
    Weak {
        name: "RUN_TIME_FAULTS",
        is_weak: |value| value == "on",
        meaning: "operators can set faults and rates",
    },
    Weak { name: "TEST_AMOUNTS", is_weak: is_true, meaning: "amounts decide by themselves" },
    Weak { name: "ALLOW_ANONYMOUS", is_weak: is_true, meaning: "callers need no authentication" },
    Weak { name: "ANONYMOUS_READS", is_weak: is_true, meaning: "readers need no token" },
    Weak {
        name: "CALLER_PROOF",
        is_weak: |value| value == "any",
        meaning: "one of several proofs is enough",
    },
];

fn is_zero(value: &str) -> bool {
    value.trim_matches(['0', '.', ' ']).is_empty() && value.contains('0')
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true") || value == "1"
}

/// The source of a setting.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Value(String),
    /// A key of a Secret, whose value is not read.
    Hidden(String),
}

/// The effective value of a setting: a flag overrides the environment.
fn setting(workload: &Object, name: &str, snapshot: &Snapshot) -> Option<Source> {
    let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
    let containers: Vec<&Value> = items(&workload.pod_spec()["containers"]).collect();
    let by_flag = containers.iter().find_map(|container| {
        let words: Vec<&str> = texts(&container["command"]).chain(texts(&container["args"])).collect();
        words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(flag.as_str())? {
            "" => {
                let next = words.get(at + 1).filter(|next| !next.starts_with('-'));
                Some(next.map_or("true", |next| next).to_owned())
            }
            rest => rest.strip_prefix('=').map(str::to_owned),
        })
    });
    if let Some(value) = by_flag {
        return Some(Source::Value(value));
    }
    let namespace = workload.namespace();
    let mut found = None;
    for container in containers {
        for source in items(&container["envFrom"]) {
            found = of_config_map(&source["configMapRef"]["name"], name, namespace, snapshot).or(found);
        }
        for variable in items(&container["env"]).filter(|variable| variable["name"] == name) {
            let from = &variable["valueFrom"];
            let map = &from["configMapKeyRef"];
            let key = map["key"].as_str().unwrap_or_default();
            found = match from["secretKeyRef"]["name"].as_str() {
                Some(secret) => Some(Source::Hidden(secret.to_owned())),
                None if map.is_object() => of_config_map(&map["name"], key, namespace, snapshot),
                None => Some(Source::Value(variable["value"].as_str().unwrap_or_default().to_owned())),
            };
        }
    }
    found
}

fn of_config_map(map: &Value, key: &str, namespace: &str, snapshot: &Snapshot) -> Option<Source> {
    let map = snapshot.find(Kind::ConfigMap, namespace, map.as_str()?)?;
    map["data"][key].as_str().map(|value| Source::Value(value.to_owned()))
}

pub(crate) fn weak(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for workload in deployed(expectations, snapshot) {
        let listed = expectations.settings.iter().filter(|listed| listed.workload == workload.expected.name);
        let listed: Vec<_> = listed.collect();
        for rule in &WEAK {
            let judged = listed.iter().any(|listed| listed.name == rule.name);
            let value = setting(workload.object, rule.name, snapshot).filter(|_| !judged);
            let problem = match value {
                Some(Source::Value(value)) if (rule.is_weak)(&value) => {
                    format!("{}={value}: {}", rule.name, rule.meaning)
                }
                Some(Source::Hidden(secret)) => {
                    format!("{} comes from Secret {secret}, whose value is not read", rule.name)
                }
                _ => continue,
            };
            findings.push(weakness(workload.object, problem, rule.name));
        }
        for expected in listed {
            let value = match setting(workload.object, &expected.name, snapshot) {
                Some(Source::Value(value)) => value,
                Some(Source::Hidden(secret)) => format!("(in Secret {secret})"),
                None => String::new(),
            };
            if value != expected.value {
                let problem = format!("{} is {value:?}, expected is {:?}", expected.name, expected.value);
                findings.push(weakness(workload.object, problem, &expected.name));
            }
        }
    }
    findings
}

fn weakness(object: &Object, problem: String, name: &str) -> Finding {
    let remedy = format!("correct {name} in the workload's values, or list it as a [[setting]]");
    Finding::new(object, WEAK_SETTING, Severity::High, problem, remedy)
}

/// Compares the SAN allow-list with the names of the file, and checks that a call with two required proofs finds both
/// configured.
pub(crate) fn caller_names(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for workload in deployed(expectations, snapshot) {
        let calls = expectations.calls.iter().filter(|call| call.to == workload.expected.name);
        let calls: Vec<_> = calls.collect();
        let names = calls.iter().filter_map(|call| call.name.as_deref());
        let names = names.chain(workload.expected.clients.iter().map(String::as_str));
        let names: BTreeSet<&str> = names.collect();
        let certificate = calls.iter().any(|call| call.certificate);
        let mut add = |problem: String, remedy: &str| {
            findings.push(Finding::new(workload.object, CALLER_NAMES, Severity::High, problem, remedy));
        };
        let listed = setting(workload.object, ALLOWED_CLIENTS, snapshot);
        match &listed {
            Some(Source::Value(value)) if !names.is_empty() => {
                let actual: BTreeSet<&str> = names_of(value).collect();
                for name in actual.difference(&names) {
                    add(
                        format!("TLS_ALLOWED_CLIENTS accepts {name}, which the expectations do not list"),
                        "remove the name from tls.allowedClients, or list it in the workload's `clients`",
                    );
                }
                if certificate && actual.is_empty() {
                    add("TLS_ALLOWED_CLIENTS is empty".to_owned(), "list the callers in tls.allowedClients");
                }
            }
            None if certificate => {
                add("TLS_ALLOWED_CLIENTS is not set".to_owned(), "list the callers in tls.allowedClients");
            }
            _ => {}
        }
        if certificate && setting(workload.object, "TLS_CLIENT_CA", snapshot).is_none() {
            add(
                "TLS_CLIENT_CA is not set: mutual TLS is off".to_owned(),
                "set tls.enabled and its client CA",
            );
        }
        let both = calls.iter().any(|call| call.certificate && call.token);
        if both && setting(workload.object, "CALLER_PROOF", snapshot).is_none() {
            add(
                "CALLER_PROOF is not set: one of certificate and token is enough".to_owned(),
                "set CALLER_PROOF to all",
            );
        }
    }
    findings
}

/// The readable settings that weaken a service: workload, name and value.
pub(crate) fn weak_values(expectations: &Expectations, snapshot: &Snapshot) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for workload in deployed(expectations, snapshot) {
        for rule in &WEAK {
            match setting(workload.object, rule.name, snapshot) {
                Some(Source::Value(value)) if (rule.is_weak)(&value) => {
                    found.push((workload.expected.name.clone(), rule.name.to_owned(), value));
                }
                _ => {}
            }
        }
    }
    found
}

/// The names of TLS_ALLOWED_CLIENTS, without accounts.
pub(crate) fn allowed_clients(workload: &Object, snapshot: &Snapshot) -> Vec<String> {
    match setting(workload, ALLOWED_CLIENTS, snapshot) {
        Some(Source::Value(value)) => names_of(&value).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn names_of(value: &str) -> impl Iterator<Item = &str> {
    let names = value.split(',').map(|entry| entry.split('=').next().unwrap_or(entry).trim());
    names.filter(|name| !name.is_empty())
}
