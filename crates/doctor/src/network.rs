//! Network checks: which vantage point reaches which port, inbound and outbound. Pure; opens no connection.

use std::collections::BTreeSet;

use crate::checks::{Action, Check, Topic, VantagePoint};
use crate::expectations::{APISERVER, Expectations, OUTSIDER, split};
use crate::inventory::{DeployedWorkload, Inventory};
use crate::task::{Observation, Outcome, ProbeAction};

/// The port of the listener pods.
pub(crate) const LISTENER_PORT: u16 = 8099;
const API_SERVER_PORT: u16 = 443;
/// A name that every cluster resolves.
const KNOWN_NAME: &str = "kubernetes.default.svc";

fn connect(vantage_point: &str, host: &str, port: u16) -> Action {
    Action::Probe {
        vantage_point: vantage_point.to_owned(),
        action: ProbeAction::Connect { host: host.to_owned(), port },
    }
}

/// Checks on two listener pods of the doctor, one of them closed by a policy of the doctor.
pub(crate) fn enforcement_checks(inventory: &Inventory) -> Vec<Check> {
    let mut checks = Vec::new();
    for (open, closed) in inventory.listeners.open.iter().zip(&inventory.listeners.closed) {
        let target = format!("the doctor's open pod {}", host_port(open, LISTENER_PORT));
        let hint = "pods cannot reach each other, or the listener pods did not start";
        let allowed = Check::new(
            Topic::Enforcement,
            OUTSIDER,
            &target,
            true,
            hint,
            connect(OUTSIDER, open, LISTENER_PORT),
        );
        let target = format!("the doctor's closed pod {}", host_port(closed, LISTENER_PORT));
        let hint = "a policy of the doctor's own has no effect";
        let refused = Check::new(
            Topic::Enforcement,
            OUTSIDER,
            &target,
            false,
            hint,
            connect(OUTSIDER, closed, LISTENER_PORT),
        );
        let positive_control = allowed.id.clone();
        checks.extend([allowed, refused.with_positive_control(positive_control)]);
    }
    checks
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Checks from every vantage point to every port of a workload, by the addresses of its pod and its Services.
pub(crate) fn ingress_checks(
    expectations: &Expectations,
    inventory: &Inventory,
    vantage_points: &[VantagePoint],
    to: &DeployedWorkload,
) -> Vec<Check> {
    let mut endpoints = Vec::new();
    if let Some((_, ips)) = &to.pod {
        for port in &to.ports {
            endpoints.extend(ips.iter().map(|ip| (format!("{} pod", to.name), ip, *port, *port)));
        }
    }
    for service in &to.services {
        let name = format!("service {}", service.name);
        endpoints.extend(service.addresses.iter().map(|ip| (name.clone(), ip, service.port, service.target)));
    }
    let mut checks = Vec::new();
    for (name, host, port, target_port) in endpoints {
        let target = format!("{name} {}", host_port(host, port));
        let mut positive_control = vantage_points
            .iter()
            .find(|vantage_point| expectations.is_open(&vantage_point.name, &to.name, target_port))
            .map(|vantage_point| {
                Check::new(Topic::Network, &vantage_point.name, &target, true, "", connect("", host, port)).id
            });
        if positive_control.is_none() && to.readiness_port == Some(target_port) {
            let kubelet = kubelet_check(to, &target);
            positive_control = Some(kubelet.id.clone());
            checks.push(kubelet);
        }
        for vantage_point in vantage_points {
            let expect_allowed = expectations.is_open(&vantage_point.name, &to.name, target_port);
            let from = vantage_point.workload.as_deref().and_then(|name| inventory.workload(name));
            // Unrestricted pods may call this port, so the caller's own egress policy is at fault.
            let is_egress = !expect_allowed && expectations.is_open(OUTSIDER, &to.name, target_port);
            let hint = match is_egress {
                true => egress_hint(inventory, vantage_point),
                false => ingress_hint(inventory, from, to, expect_allowed),
            };
            let action = connect(&vantage_point.name, host, port);
            let mut check =
                Check::new(Topic::Network, &vantage_point.name, &target, expect_allowed, hint, action);
            check.target_is_ready = to.pod.is_some();
            checks.push(if expect_allowed {
                check
            } else {
                check.with_positive_control(positive_control.clone())
            });
        }
    }
    checks
}

/// The positive control of a port without permitted callers: the pod is Ready, so the kubelet reached it.
fn kubelet_check(to: &DeployedWorkload, target: &str) -> Check {
    let mut check = Check::new(
        Topic::Network,
        "kubelet",
        target,
        true,
        "",
        Action::Observed(Observation::new("", Outcome::Allowed, "")),
    );
    let pod = to.pod.as_ref().map_or("", |(name, _)| name.as_str());
    check.action = Action::Observed(Observation::new(
        &check.id,
        Outcome::Allowed,
        format_args!("{pod} is Ready, probed on this port"),
    ));
    check
}

fn ingress_hint(
    inventory: &Inventory,
    from: Option<&DeployedWorkload>,
    to: &DeployedWorkload,
    expect_allowed: bool,
) -> String {
    let both = [from, Some(to)].into_iter().flatten();
    let missing: BTreeSet<String> = both.filter_map(|end| inventory.missing_policy(end)).collect();
    if !missing.is_empty() {
        return Vec::from_iter(missing).join(", ");
    }
    let policies = inventory.policies_of(&to.namespace, &to.template["metadata"]["labels"], "Ingress");
    match (policies.as_slice(), expect_allowed) {
        ([], false) => {
            format!("no NetworkPolicy in namespace {} selects {} for ingress", to.namespace, to.name)
        }
        (policies, false) => format!("{} allows it", policies.join(", ")),
        (policies, true) => {
            let policies = if policies.is_empty() { "no policy".to_owned() } else { policies.join(", ") };
            format!("{} is not ready, or {policies} of namespace {} blocks it", to.name, to.namespace)
        }
    }
}

/// Checks from each workload (and each neighbour, where namespaces deny by default) to targets that it does not need.
/// The positive control is the outsider, which no policy restricts.
pub(crate) fn egress_checks(
    expectations: &Expectations,
    inventory: &Inventory,
    vantage_points: &[VantagePoint],
) -> Vec<Check> {
    let mut endpoints: Vec<(String, String, u16, &str)> = Vec::new();
    let open = inventory.listeners.open.iter();
    endpoints.extend(open.map(|ip| ("another namespace".to_owned(), ip.clone(), LISTENER_PORT, "")));
    let api = inventory.api_server.iter();
    endpoints.extend(api.map(|ip| ("the API server".to_owned(), ip.clone(), API_SERVER_PORT, APISERVER)));
    let more = expectations.denied_addresses.iter().filter_map(|address| split(address));
    endpoints.extend(more.map(|(host, port)| ("denied address".to_owned(), host.to_owned(), port, "")));
    let restricted = vantage_points.iter().filter(|vantage_point| match &vantage_point.workload {
        Some(name) => !expectations.has_open_egress(name),
        None => expectations.default_deny && vantage_point.is_neighbour(),
    });
    let restricted: Vec<&VantagePoint> = restricted.collect();
    let mut checks = Vec::new();
    for (label, host, port, name) in endpoints {
        let target = format!("{label} {}", host_port(&host, port));
        let hint = "unreachable even from a pod without a policy";
        let action = connect(OUTSIDER, &host, port);
        let outsider = Check::new(Topic::Egress, OUTSIDER, &target, true, hint, action);
        for vantage_point in &restricted {
            let expect_allowed = !name.is_empty() && expectations.is_open(&vantage_point.name, name, port);
            let action = connect(&vantage_point.name, &host, port);
            let hint = egress_hint(inventory, vantage_point);
            let check = Check::new(Topic::Egress, &vantage_point.name, &target, expect_allowed, hint, action);
            checks.push(check.with_positive_control(outsider.id.clone()));
        }
        checks.push(outsider);
    }
    let resolve = |vantage_point: &str| Action::Probe {
        vantage_point: vantage_point.to_owned(),
        action: ProbeAction::Resolve { name: KNOWN_NAME.to_owned() },
    };
    let hint = "no pod can resolve names";
    let outsider = Check::new(Topic::Egress, OUTSIDER, "DNS", true, hint, resolve(OUTSIDER));
    for deployed in &inventory.workloads {
        let missing = inventory.missing_policy(deployed);
        let hint = missing.unwrap_or_else(|| match deployed.dns {
            true => "its policy must allow DNS, by UDP and TCP".to_owned(),
            false => "its policy allows DNS".to_owned(),
        });
        let action = resolve(&deployed.name);
        let check = Check::new(Topic::Egress, &deployed.name, "DNS", deployed.dns, hint, action);
        checks.push(check.with_positive_control(outsider.id.clone()));
    }
    checks.push(outsider);
    checks
}

fn egress_hint(inventory: &Inventory, vantage_point: &VantagePoint) -> String {
    let deployed = vantage_point.workload.as_deref().and_then(|name| inventory.workload(name));
    if let Some(missing) = deployed.and_then(|deployed| inventory.missing_policy(deployed)) {
        return missing;
    }
    let policies =
        inventory.policies_of(&vantage_point.namespace, &serde_json::json!(vantage_point.labels), "Egress");
    match policies.as_slice() {
        [] if vantage_point.workload.is_none() => format!(
            "namespace {} has no NetworkPolicy that denies by default: {} is unrestricted",
            vantage_point.namespace, vantage_point.name
        ),
        [] => {
            format!(
                "no NetworkPolicy in namespace {} selects {} for egress",
                vantage_point.namespace, vantage_point.name
            )
        }
        policies => format!("{} allows it", policies.join(", ")),
    }
}
