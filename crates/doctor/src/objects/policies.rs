//! NetworkPolicies: every caller that a policy accepts must be a caller of the expectations, every destination outside
//! of the cluster must be listed, and default denies must exist. Pure; opens no connection.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::finding::{Finding, ObjectRef, Severity};
use super::snapshot::{Kind, Object, Snapshot, items, texts};
use super::workloads::{Deployed, deployed};
use crate::expectations::{ANY_SOURCE, Direction, Expectations, NEIGHBOUR_PREFIX};
use crate::inventory::selects;

pub(crate) const ANY_ADDRESS: &str = "any-address";
pub(crate) const UNEXPECTED_CALLER: &str = "unexpected-caller";
pub(crate) const OPEN_EGRESS: &str = "open-egress";
pub(crate) const MISSING_POLICY: &str = "missing-policy";

/// The port of DNS, which a rule may open to every destination.
const DNS_PORT: u16 = 53;

/// A rule of a policy, with the policy's object and direction.
struct Rule<'a> {
    policy: &'a Object,
    rule: &'a Value,
    direction: Direction,
}

impl<'a> Rule<'a> {
    /// The rule's peers. Without peers it has no `from` or `to`, and so accepts every address.
    fn peers(&self) -> Vec<&'a Value> {
        let field = if self.direction == Direction::In { "from" } else { "to" };
        items(&self.rule[field]).collect()
    }

    /// The declared ports of a workload that the rule opens.
    fn opened(&self, workload: Deployed<'_>) -> Vec<u16> {
        let declared = workload.ports().into_iter();
        declared.filter(|port| opens(self.rule, *port)).map(|(_, number)| number).collect()
    }

    /// The rule's ports by number; empty when it opens all.
    fn numbers(&self) -> Vec<u16> {
        items(&self.rule["ports"])
            .filter_map(|entry| entry["port"].as_u64().and_then(|number| u16::try_from(number).ok()))
            .collect()
    }
}

/// Whether a rule opens a port, given by name and number. A rule without ports opens all.
pub(crate) fn opens(rule: &Value, (name, number): (&str, u16)) -> bool {
    let mut ports = items(&rule["ports"]).peekable();
    ports.peek().is_none()
        || ports.any(|entry| {
            let (first, last) = (&entry["port"], entry["endPort"].as_u64());
            match first.as_u64() {
                Some(from) => (from..=last.unwrap_or(from)).contains(&u64::from(number)),
                None => first.is_null() || first.as_str() == Some(name),
            }
        })
}

fn rules(policy: &Object) -> Vec<Rule<'_>> {
    let of =
        |field, direction| items(&policy["spec"][field]).map(move |rule| Rule { policy, rule, direction });
    of("ingress", Direction::In).chain(of("egress", Direction::Out)).collect()
}

/// All policies of the environment's namespaces.
fn policies<'a>(expectations: &'a Expectations, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Object> {
    let namespaces = expectations.namespaces();
    snapshot.of(Kind::NetworkPolicy).iter().filter(move |policy| namespaces.contains(policy.namespace()))
}

pub(crate) fn open_rules(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let workloads: Vec<Deployed<'_>> = deployed(expectations, snapshot).collect();
    let mut findings = Vec::new();
    for policy in policies(expectations, snapshot) {
        let selector = &policy["spec"]["podSelector"];
        let selected = workloads.iter().copied();
        let selected = selected.filter(|workload| workload.is_selected(policy.namespace(), selector));
        let selected: Vec<Deployed<'_>> = selected.collect();
        for rule in rules(policy) {
            match rule.direction {
                Direction::In => findings.extend(ingress(&rule, &selected, expectations, snapshot)),
                Direction::Out => findings.extend(egress(&rule, &selected, expectations)),
            }
        }
    }
    findings
}

/// For each selected workload, the peers whose pods are no callers of a port that the rule opens.
fn ingress(
    rule: &Rule<'_>,
    selected: &[Deployed<'_>],
    expectations: &Expectations,
    snapshot: &Snapshot,
) -> Vec<Finding> {
    let peers = rule.peers();
    let mut findings = Vec::new();
    for workload in selected {
        let name = &workload.expected.name;
        let closed = |port: &u16| !is_path(expectations, ANY_SOURCE, name, *port);
        let ports: Vec<u16> = rule.opened(*workload).into_iter().filter(closed).collect();
        if ports.is_empty() {
            continue;
        }
        if peers.is_empty() {
            findings
                .push(any_address(rule.policy, &format!("every address to {name} {}", format_ports(&ports))));
        }
        for peer in &peers {
            findings.extend(peer_finding(rule, peer, *workload, &ports, expectations, snapshot));
        }
    }
    // The policy selects pods that are not of a listed workload, such as a Job's.
    if selected.is_empty() {
        let wide = peers.is_empty() || peers.iter().any(|peer| is_internet(peer["ipBlock"]["cidr"].as_str()));
        if wide {
            findings.push(any_address(rule.policy, "every address to the pods that it selects"));
        }
    }
    findings
}

fn any_address(policy: &Object, what: &str) -> Finding {
    Finding::new(
        policy,
        ANY_ADDRESS,
        Severity::High,
        format!("it allows {what}"),
        format!("name the callers in `from` by namespace and labels, or list a [[path]] from {ANY_SOURCE}"),
    )
}

fn peer_finding(
    rule: &Rule<'_>,
    peer: &Value,
    workload: Deployed<'_>,
    ports: &[u16],
    expectations: &Expectations,
    snapshot: &Snapshot,
) -> Option<Finding> {
    let name = &workload.expected.name;
    if let Some(cidr) = peer["ipBlock"]["cidr"].as_str() {
        let open: Vec<u16> = ports
            .iter()
            .copied()
            .filter(|port| !is_listed(expectations, Some(name), Direction::In, cidr, &[*port]))
            .collect();
        let severity = if is_internet(Some(cidr)) { Severity::High } else { Severity::Medium };
        return (!open.is_empty()).then(|| {
            Finding::new(
                rule.policy,
                ANY_ADDRESS,
                severity,
                format!("it allows addresses of {cidr} to {name} {}", format_ports(&open)),
                format!("remove the ipBlock, or list it as an [[address]] of {name}"),
            )
        });
    }
    let open = |port: &u16| {
        let unlisted = unlisted_namespaces(rule.policy, peer, name, *port, expectations, snapshot);
        (!unlisted.is_empty()).then_some((*port, unlisted))
    };
    let open: Vec<(u16, BTreeSet<String>)> = ports.iter().filter_map(open).collect();
    let ports: Vec<u16> = open.iter().map(|(port, _)| *port).collect();
    let namespaces: BTreeSet<String> = open.into_iter().flat_map(|(_, unlisted)| unlisted).collect();
    let first = namespaces.iter().next()?;
    let more = match namespaces.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more namespaces"),
    };
    Some(Finding::new(
        rule.policy,
        UNEXPECTED_CALLER,
        Severity::High,
        format!(
            "it allows pods {} of {first}{more} to {name} {}",
            labels(&peer["podSelector"]),
            format_ports(&ports)
        ),
        format!(
            "narrow its selectors to the callers of {name}, or list the caller as a [[source]] with a [[path]]"
        ),
    ))
}

/// The existing namespaces that a peer selects without an expected caller of the port there. A caller counts if the
/// peer selects its labels; for a peer without labels, which selects all pods, only if it has none.
fn unlisted_namespaces(
    policy: &Object,
    peer: &Value,
    to: &str,
    port: u16,
    expectations: &Expectations,
    snapshot: &Snapshot,
) -> BTreeSet<String> {
    let selected = snapshot.of(Kind::Namespace).iter().filter(|namespace| match &peer["namespaceSelector"] {
        Value::Null => namespace.name() == policy.namespace(),
        selector => selects(selector, namespace.labels()),
    });
    let callers = callers(expectations, snapshot, to, port);
    let pods = &peer["podSelector"];
    let any_pod = is_empty_selector(pods);
    let unlisted = selected.filter(|namespace| {
        !callers.iter().any(|(within, labels)| {
            let labelled = labels.as_object().is_some_and(|labels| !labels.is_empty());
            within == namespace.name() && selects(pods, labels) && !(any_pod && labelled)
        })
    });
    unlisted.map(|namespace| namespace.name().to_owned()).collect()
}

/// Namespace and labels of each expected caller of a port.
fn callers(expectations: &Expectations, snapshot: &Snapshot, to: &str, port: u16) -> Vec<(String, Value)> {
    let sources = expectations.sources.iter();
    let sources = sources.map(|source| (source.name.clone(), source.namespace.clone(), json!(source.labels)));
    let workloads = deployed(expectations, snapshot).map(|workload| {
        let Deployed { expected, .. } = workload;
        (expected.name.clone(), expected.namespace.clone(), workload.labels().clone())
    });
    let neighbours = expectations
        .namespaces()
        .into_iter()
        .map(|namespace| (format!("{NEIGHBOUR_PREFIX}{namespace}"), namespace.to_owned(), json!({})));
    let all = sources.chain(workloads).chain(neighbours);
    all.filter(|(name, ..)| is_path(expectations, name, to, port))
        .map(|(_, namespace, labels)| (namespace, labels))
        .collect()
}

fn is_path(expectations: &Expectations, from: &str, to: &str, port: u16) -> bool {
    expectations.paths.iter().any(|path| path.from == from && path.to == to && path.port == port)
}

/// Destinations outside of the cluster and rules without destination.
fn egress(rule: &Rule<'_>, selected: &[Deployed<'_>], expectations: &Expectations) -> Vec<Finding> {
    let (peers, ports) = (rule.peers(), rule.numbers());
    if peers.is_empty() && !ports.is_empty() && ports.iter().all(|port| *port == DNS_PORT) {
        return Vec::new();
    }
    let names: Vec<Option<&str>> = match selected {
        [] => vec![None],
        selected => {
            let limited = selected.iter().filter(|workload| !workload.expected.open_egress);
            limited.map(|workload| Some(workload.expected.name.as_str())).collect()
        }
    };
    let blocks = peers.iter().filter_map(|peer| peer["ipBlock"]["cidr"].as_str());
    let blocks = blocks.chain(peers.is_empty().then_some("0.0.0.0/0"));
    let mut findings = Vec::new();
    for cidr in blocks {
        for name in &names {
            if is_listed(expectations, *name, Direction::Out, cidr, &ports) {
                continue;
            }
            let what = if peers.is_empty() { "every destination" } else { cidr };
            let ports = if ports.is_empty() { "every port".to_owned() } else { format_ports(&ports) };
            let who = name.unwrap_or("the pods that it selects");
            findings.push(Finding::new(
                rule.policy,
                OPEN_EGRESS,
                if is_internet(Some(cidr)) { Severity::High } else { Severity::Medium },
                format!("it allows {who} to connect to {what}, {ports}"),
                "name the destination in `to`, or list it as an [[address]] with direction \"out\"",
            ));
        }
    }
    let all = peers.iter().any(|peer| {
        peer["namespaceSelector"].is_object()
            && is_empty_selector(&peer["namespaceSelector"])
            && is_empty_selector(&peer["podSelector"])
    });
    if all && !names.is_empty() && !ports.iter().all(|port| *port == DNS_PORT) {
        findings.push(Finding::new(
            rule.policy,
            OPEN_EGRESS,
            Severity::Medium,
            "it allows connections to every pod of every namespace",
            "select the destination by namespace and labels",
        ));
    }
    findings
}

fn is_listed(
    expectations: &Expectations,
    workload: Option<&str>,
    direction: Direction,
    cidr: &str,
    ports: &[u16],
) -> bool {
    expectations.addresses.iter().any(|address| {
        Some(address.workload.as_str()) == workload
            && address.direction == direction
            && address.cidr == cidr
            && (address.ports.is_empty()
                || !ports.is_empty() && ports.iter().all(|port| address.ports.contains(port)))
    })
}

/// Whether a block contains a large part of the Internet: two blocks of half its size open as much as one.
fn is_internet(cidr: Option<&str>) -> bool {
    let Some((address, length)) = cidr.and_then(|cidr| cidr.split_once('/')) else { return false };
    let longest = match address.parse() {
        Ok(IpAddr::V4(_)) => 7,
        Ok(IpAddr::V6(_)) => 15,
        Err(_) => return true,
    };
    length.parse::<u8>().map_or(true, |length| length <= longest)
}

pub(crate) fn is_empty_selector(selector: &Value) -> bool {
    let empty = |field: &str| match &selector[field] {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    empty("matchLabels") && empty("matchExpressions")
}

/// A selector as text, such as `{"app":"x"}`.
fn labels(selector: &Value) -> String {
    match is_empty_selector(selector) {
        true => "with any labels".to_owned(),
        false => selector.to_string(),
    }
}

fn format_ports(ports: &[u16]) -> String {
    let texts: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("port {}", texts.join(", "))
}

/// Findings about missing objects: workloads that no policy selects, named policies that do not exist, and default
/// denies.
pub(crate) fn missing(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for workload in deployed(expectations, snapshot) {
        let expected = workload.expected;
        let named = expected.policy.as_deref();
        if let Some(name) =
            named.filter(|name| snapshot.find(Kind::NetworkPolicy, &expected.namespace, name).is_none())
        {
            findings.push(Finding::of(
                ObjectRef::new(Kind::NetworkPolicy, &expected.namespace, name),
                MISSING_POLICY,
                Severity::High,
                format!("it does not exist, and is the policy of {}", expected.name),
                "apply the environment again",
            ));
        }
        let kinds = if expected.open_egress { &["Ingress"][..] } else { &["Ingress", "Egress"] };
        for kind in kinds {
            let guarded = snapshot.within(Kind::NetworkPolicy, &expected.namespace).any(|policy| {
                has_type(policy, kind)
                    && workload.is_selected(policy.namespace(), &policy["spec"]["podSelector"])
            });
            if !guarded {
                findings.push(Finding::new(
                    workload.object,
                    MISSING_POLICY,
                    Severity::High,
                    format!("no NetworkPolicy selects its pods for {}", kind.to_lowercase()),
                    "add a NetworkPolicy that names its callers and destinations",
                ));
            }
        }
    }
    let open =
        expectations.namespaces().into_iter().filter(|namespace| !denies_by_default(snapshot, namespace));
    findings.extend(open.filter(|_| expectations.default_deny).map(|namespace| {
        Finding::of(
            ObjectRef::new(Kind::Namespace, "", namespace),
            MISSING_POLICY,
            Severity::High,
            "no NetworkPolicy denies all ingress and egress by default",
            "add one with an empty podSelector, both policyTypes and no rule",
        )
    }));
    findings
}

/// Whether the policy has this type, with Kubernetes' defaults: always Ingress, and Egress when there are egress rules.
pub(crate) fn has_type(policy: &Object, kind: &str) -> bool {
    let types = &policy["spec"]["policyTypes"];
    match types.is_array() {
        true => texts(types).any(|listed| listed == kind),
        false => kind == "Ingress" || items(&policy["spec"]["egress"]).next().is_some(),
    }
}

/// Whether a policy denies all ingress and egress of pods that no other policy selects.
pub(crate) fn denies_by_default(snapshot: &Snapshot, namespace: &str) -> bool {
    snapshot.within(Kind::NetworkPolicy, namespace).any(|policy| {
        let spec = &policy["spec"];
        let opens = items(&spec["ingress"]).chain(items(&spec["egress"])).next().is_some();
        is_empty_selector(&spec["podSelector"])
            && has_type(policy, "Ingress")
            && has_type(policy, "Egress")
            && !opens
    })
}

/// The address blocks that policies of the expected workloads name: workload, direction and block.
pub(crate) fn blocks(
    expectations: &Expectations,
    snapshot: &Snapshot,
) -> BTreeSet<(String, &'static str, String)> {
    let mut found = BTreeSet::new();
    for workload in deployed(expectations, snapshot) {
        let here = snapshot.within(Kind::NetworkPolicy, &workload.expected.namespace);
        let selecting =
            here.filter(|policy| workload.is_selected(policy.namespace(), &policy["spec"]["podSelector"]));
        for rule in selecting.flat_map(rules) {
            let direction = if rule.direction == Direction::In { "in" } else { "out" };
            let blocks = rule.peers().into_iter().filter_map(|peer| peer["ipBlock"]["cidr"].as_str());
            found.extend(blocks.map(|cidr| (workload.expected.name.clone(), direction, cidr.to_owned())));
        }
    }
    found
}
