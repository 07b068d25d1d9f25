//! The trials of the network: who reaches which port of whom, and who gets out. Pure; connects to nothing.

use std::collections::BTreeSet;

use super::expect::{APISERVER, Expectations, STRANGER, split};
use super::facts::{Facts, Found};
use super::plan::{Action, Station, Topic, Trial};
use super::task::{Result as Got, Seen, What};

/// The port of the doctor's own listeners.
pub(super) const LISTENER_PORT: u16 = 8099;
const API_SERVER_PORT: u16 = 443;
/// A name that every cluster has.
const KNOWN_NAME: &str = "kubernetes.default.svc";

fn connect(station: &str, host: &str, port: u16) -> Action {
    Action::Probe { station: station.to_owned(), what: What::Connect { host: host.to_owned(), port } }
}

/// Two listeners of the doctor's own, of which a policy of its own closes one.
pub(super) fn control(facts: &Facts) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (open, closed) in facts.listeners.open.iter().zip(&facts.listeners.closed) {
        let what = format!("the doctor's open pod {}", shown(open, LISTENER_PORT));
        let look_at = "pods cannot reach each other, or the doctor's pods did not start";
        let free = Trial::new(
            Topic::Control,
            STRANGER,
            &what,
            true,
            look_at,
            connect(STRANGER, open, LISTENER_PORT),
        );
        let what = format!("the doctor's closed pod {}", shown(closed, LISTENER_PORT));
        let look_at = "a policy of the doctor's own has no effect";
        let shut = Trial::new(
            Topic::Control,
            STRANGER,
            &what,
            false,
            look_at,
            connect(STRANGER, closed, LISTENER_PORT),
        );
        let twin = free.id.clone();
        trials.extend([free, shut.beside(twin)]);
    }
    trials
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// From everybody to every port of a workload, by its pod's addresses and its Services'.
pub(super) fn ingress(
    expectations: &Expectations,
    facts: &Facts,
    stations: &[Station],
    to: &Found,
) -> Vec<Trial> {
    let mut doors = Vec::new();
    if let Some((_, ips)) = &to.pod {
        for port in &to.ports {
            doors.extend(ips.iter().map(|ip| (format!("{} pod", to.name), ip, *port, *port)));
        }
    }
    for service in &to.services {
        let name = format!("service {}", service.name);
        doors.extend(service.addresses.iter().map(|ip| (name.clone(), ip, service.port, service.target)));
    }
    let mut trials = Vec::new();
    for (what, host, port, target) in doors {
        let what = format!("{what} {}", shown(host, port));
        let mut twin = stations
            .iter()
            .find(|station| expectations.is_open(&station.name, &to.name, target))
            .map(|station| {
                Trial::new(Topic::Network, &station.name, &what, true, "", connect("", host, port)).id
            });
        if twin.is_none() && to.asked == Some(target) {
            let kubelet = kubelet(to, &what);
            twin = Some(kubelet.id.clone());
            trials.push(kubelet);
        }
        for station in stations {
            let hope = expectations.is_open(&station.name, &to.name, target);
            let from = station.workload.as_deref().and_then(|name| facts.workload(name));
            // Whoever is free may call: so it was its own bound that did not hold.
            let bound = !hope && expectations.is_open(STRANGER, &to.name, target);
            let look_at = match bound {
                true => egress_of(facts, station),
                false => ingress_of(facts, from, to, hope),
            };
            let action = connect(&station.name, host, port);
            let mut trial = Trial::new(Topic::Network, &station.name, &what, hope, look_at, action);
            trial.is_up = to.pod.is_some();
            trials.push(if hope { trial } else { trial.beside(twin.clone()) });
        }
    }
    trials
}

/// Nobody may call this port; that it is open at all, the kubelet knows, since the pod is ready.
fn kubelet(to: &Found, what: &str) -> Trial {
    let mut trial =
        Trial::new(Topic::Network, "kubelet", what, true, "", Action::Known(Seen::new("", Got::Passed, "")));
    let pod = to.pod.as_ref().map_or("", |(name, _)| name.as_str());
    trial.action =
        Action::Known(Seen::new(&trial.id, Got::Passed, format_args!("{pod} is Ready by this port")));
    trial
}

fn ingress_of(facts: &Facts, from: Option<&Found>, to: &Found, hope: bool) -> String {
    let ends = [from, Some(to)].into_iter().flatten();
    let missing: BTreeSet<String> = ends.filter_map(|end| facts.missing_policy(end)).collect();
    if !missing.is_empty() {
        return Vec::from_iter(missing).join(", ");
    }
    let policies = facts.policies_of(&to.namespace, &to.template["metadata"]["labels"], "Ingress");
    match (policies.as_slice(), hope) {
        ([], false) => format!("no NetworkPolicy in namespace {} guards {}", to.namespace, to.name),
        (policies, false) => format!("{} lets it in", policies.join(", ")),
        (policies, true) => {
            let policies = if policies.is_empty() { "no policy".to_owned() } else { policies.join(", ") };
            format!("{} is not up, or {policies} of namespace {} keeps it out", to.name, to.namespace)
        }
    }
}

/// From each workload to where it has no business; the stranger, who is free, is the twin. Neighbours too, where a
/// namespace denies by default.
pub(super) fn egress(expectations: &Expectations, facts: &Facts, stations: &[Station]) -> Vec<Trial> {
    let mut doors: Vec<(String, String, u16, &str)> = Vec::new();
    let open = facts.listeners.open.iter();
    doors.extend(open.map(|ip| ("another namespace".to_owned(), ip.clone(), LISTENER_PORT, "")));
    let api = facts.api_server.iter();
    doors.extend(api.map(|ip| ("the API server".to_owned(), ip.clone(), API_SERVER_PORT, APISERVER)));
    let more = expectations.elsewhere.iter().filter_map(|address| split(address));
    doors.extend(more.map(|(host, port)| ("elsewhere".to_owned(), host.to_owned(), port, "")));
    let bounded = stations.iter().filter(|station| match &station.workload {
        Some(_) => true,
        None => expectations.default_deny && station.is_neighbour(),
    });
    let bounded: Vec<&Station> = bounded.collect();
    let mut trials = Vec::new();
    for (what, host, port, name) in doors {
        let what = format!("{what} {}", shown(&host, port));
        let look_at = "not even a pod without a policy reaches it";
        let action = connect(STRANGER, &host, port);
        let free = Trial::new(Topic::Egress, STRANGER, &what, true, look_at, action);
        for station in &bounded {
            let hope = !name.is_empty() && expectations.is_open(&station.name, name, port);
            let action = connect(&station.name, &host, port);
            let look_at = egress_of(facts, station);
            let trial = Trial::new(Topic::Egress, &station.name, &what, hope, look_at, action);
            trials.push(trial.beside(free.id.clone()));
        }
        trials.push(free);
    }
    let resolve = |station: &str| Action::Probe {
        station: station.to_owned(),
        what: What::Resolve { name: KNOWN_NAME.to_owned() },
    };
    let look_at = "nobody can ask for names";
    let free = Trial::new(Topic::Egress, STRANGER, "names", true, look_at, resolve(STRANGER));
    for found in &facts.workloads {
        let missing = facts.missing_policy(found);
        let look_at = missing.unwrap_or_else(|| match found.names {
            true => "its policy must let it ask for names, by UDP and TCP".to_owned(),
            false => "its policy lets it ask for names".to_owned(),
        });
        let action = resolve(&found.name);
        let trial = Trial::new(Topic::Egress, &found.name, "names", found.names, look_at, action);
        trials.push(trial.beside(free.id.clone()));
    }
    trials.push(free);
    trials
}

fn egress_of(facts: &Facts, station: &Station) -> String {
    let found = station.workload.as_deref().and_then(|name| facts.workload(name));
    if let Some(missing) = found.and_then(|found| facts.missing_policy(found)) {
        return missing;
    }
    let policies = facts.policies_of(&station.namespace, &serde_json::json!(station.labels), "Egress");
    match policies.as_slice() {
        [] if station.workload.is_none() => format!(
            "namespace {} has no NetworkPolicy that denies to all: {} is free to call",
            station.namespace, station.name
        ),
        [] => {
            format!("no NetworkPolicy in namespace {} bounds what {} calls", station.namespace, station.name)
        }
        policies => format!("{} lets it out", policies.join(", ")),
    }
}
