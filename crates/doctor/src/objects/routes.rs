//! Ingresses and HTTPRoutes: hosts, paths and allowed sources of each route to an expected workload. Pure; sends no
//! request.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::finding::{Finding, Severity};
use super::snapshot::{Kind, Object, Snapshot, items, texts};
use super::workloads::{Deployed, deployed};
use crate::expectations::Expectations;

pub(crate) const WIDE_ROUTE: &str = "wide-route";

/// Annotations that limit the sources of an Ingress, by controller.
const SOURCES: [&str; 3] = [
    "nginx.ingress.kubernetes.io/whitelist-source-range",
    "nginx.ingress.kubernetes.io/allowlist-source-range",
    "haproxy.org/allow-list",
];

/// One entry of a route: its host and paths, and the Service behind it.
struct Entry {
    host: String,
    path: String,
    exact: bool,
    service: String,
}

pub(crate) fn examine(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let namespaces = expectations.namespaces();
    let workloads: Vec<Deployed<'_>> = deployed(expectations, snapshot).collect();
    let mut findings = Vec::new();
    let routes = snapshot.of(Kind::Ingress).iter().chain(snapshot.of(Kind::HttpRoute));
    for route in routes.filter(|route| namespaces.contains(route.namespace())) {
        for entry in entries(route) {
            let service = snapshot.find(Kind::Service, route.namespace(), &entry.service);
            let workload =
                service.and_then(|service| workloads.iter().find(|workload| workload.is_behind(service)));
            let to = workload.map_or("", |workload| workload.expected.name.as_str());
            findings.extend(check_entry(expectations, route, &entry, to));
        }
        let annotations = &route["metadata"]["annotations"];
        for name in SOURCES {
            let ranges = annotations[name].as_str().unwrap_or_default();
            if ranges.split(',').any(|range| matches!(range.trim(), "0.0.0.0/0" | "::/0")) {
                findings.push(finding(
                    route,
                    format!("{name} allows every address"),
                    "name the networks of the callers",
                ));
            }
        }
    }
    findings
}

fn finding(route: &Object, problem: String, remedy: &str) -> Finding {
    Finding::new(route, WIDE_ROUTE, Severity::High, problem, remedy)
}

fn check_entry(expectations: &Expectations, route: &Object, entry: &Entry, to: &str) -> Option<Finding> {
    let listed: Vec<_> = expectations.routes.iter().filter(|listed| listed.to == to).collect();
    let (path, host) = (&entry.path, &entry.host);
    let everywhere = if host.is_empty() { "every host".to_owned() } else { host.clone() };
    if listed.is_empty() {
        let whole = path == "/" && !entry.exact;
        return (whole || host.is_empty()).then(|| {
            finding(
                route,
                format!("it routes {path} of {everywhere} to {}", entry.service),
                "route single paths of one host, or list them as a [[route]]",
            )
        });
    }
    let allowed = listed.iter().any(|listed| {
        let host_is_listed = listed.hosts.is_empty() || listed.hosts.contains(host);
        host_is_listed && listed.paths.contains(path)
    });
    (!allowed).then(|| {
        finding(
            route,
            format!("it routes {path} of {everywhere} to {to}, which the expectations do not list"),
            "remove the path, or list it in the workload's [[route]]",
        )
    })
}

/// The existing routes to each expected workload: its name, hosts and paths.
pub(crate) fn existing(
    expectations: &Expectations,
    snapshot: &Snapshot,
) -> Vec<(String, BTreeSet<String>, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    let workloads: Vec<Deployed<'_>> = deployed(expectations, snapshot).collect();
    for route in snapshot.of(Kind::Ingress).iter().chain(snapshot.of(Kind::HttpRoute)) {
        for entry in entries(route) {
            let service = snapshot.find(Kind::Service, route.namespace(), &entry.service);
            let to =
                service.and_then(|service| workloads.iter().find(|workload| workload.is_behind(service)));
            if let Some(to) = to {
                let (hosts, paths) = found.entry(to.expected.name.clone()).or_default();
                hosts.insert(entry.host);
                paths.insert(entry.path);
            }
        }
    }
    found.into_iter().map(|(to, (hosts, paths))| (to, hosts, paths)).collect()
}

fn entries(route: &Object) -> Vec<Entry> {
    match route.kind {
        Kind::Ingress => ingress(&route["spec"]),
        _ => http_route(&route["spec"]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ingress(spec: &Value) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(service) = spec["defaultBackend"]["service"]["name"].as_str() {
        entries.push(Entry {
            host: String::new(),
            path: "/".to_owned(),
            exact: false,
            service: service.to_owned(),
        });
    }
    for rule in items(&spec["rules"]) {
        for path in items(&rule["http"]["paths"]) {
            entries.push(Entry {
                host: text(&rule["host"]),
                path: path["path"].as_str().unwrap_or("/").to_owned(),
                exact: path["pathType"] == "Exact",
                service: text(&path["backend"]["service"]["name"]),
            });
        }
    }
    entries
}

fn http_route(spec: &Value) -> Vec<Entry> {
    let hosts: Vec<&str> = texts(&spec["hostnames"]).collect();
    let hosts = if hosts.is_empty() { vec![""] } else { hosts };
    let mut entries = Vec::new();
    for rule in items(&spec["rules"]) {
        let matches: Vec<&Value> = items(&rule["matches"]).collect();
        let paths: Vec<(String, bool)> = match matches.is_empty() {
            true => vec![("/".to_owned(), false)],
            false => matches
                .iter()
                .map(|matching| {
                    let path = &matching["path"];
                    (path["value"].as_str().unwrap_or("/").to_owned(), path["type"] == "Exact")
                })
                .collect(),
        };
        for service in items(&rule["backendRefs"]).map(|backend| text(&backend["name"])) {
            for host in &hosts {
                entries.extend(paths.iter().map(|(path, exact)| Entry {
                    host: (*host).to_owned(),
                    path: path.clone(),
                    exact: *exact,
                    service: service.clone(),
                }));
            }
        }
    }
    entries
}
