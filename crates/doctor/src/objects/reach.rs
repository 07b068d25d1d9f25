//! The connections that NetworkPolicies allow between pods, by Kubernetes' rules: a pod that no policy of a direction
//! selects is open in that direction, and rules are combined. For proposals; judges nothing and sends nothing.

use serde_json::{Map, Value, json};

use super::policies::{has_type, is_empty_selector, opens};
use super::snapshot::{Kind, Object, Snapshot, items};
use crate::inventory::selects;

const DNS_PORT: u16 = 53;

/// A declared port of a workload: name and number.
pub(crate) type Port<'a> = (&'a str, u16);

/// The namespace and labels of a pod, by which policies select it.
#[derive(Clone, Copy)]
pub(crate) struct Pod<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: &'a Value,
}

impl<'a> Pod<'a> {
    /// The pods of a workload.
    pub(crate) fn of(workload: &'a Object) -> Self {
        Self { namespace: workload.namespace(), labels: &workload["spec"]["template"]["metadata"]["labels"] }
    }
}

/// The policies of this direction that select the pod.
fn selecting<'a>(snapshot: &'a Snapshot, pod: Pod<'a>, kind: &'a str) -> impl Iterator<Item = &'a Object> {
    snapshot
        .within(Kind::NetworkPolicy, pod.namespace)
        .filter(move |policy| has_type(policy, kind) && selects(&policy["spec"]["podSelector"], pod.labels))
}

fn rules<'a>(
    snapshot: &'a Snapshot,
    pod: Pod<'a>,
    kind: &'a str,
    field: &'a str,
) -> impl Iterator<Item = (&'a Object, &'a Value)> {
    selecting(snapshot, pod, kind)
        .flat_map(move |policy| items(&policy["spec"][field]).map(move |rule| (policy, rule)))
}

/// Whether a selector matches a namespace. A namespace that does not exist has the label that Kubernetes gives every
/// namespace.
fn selects_namespace(snapshot: &Snapshot, selector: &Value, name: &str) -> bool {
    match snapshot.find(Kind::Namespace, "", name) {
        Some(namespace) => selects(selector, namespace.labels()),
        None => selects(selector, &json!({"kubernetes.io/metadata.name": name})),
    }
}

fn peer_selects(snapshot: &Snapshot, policy: &Object, peer: &Value, pod: Pod<'_>) -> bool {
    let namespace = match &peer["namespaceSelector"] {
        Value::Null => policy.namespace() == pod.namespace,
        selector => selects_namespace(snapshot, selector, pod.namespace),
    };
    peer["ipBlock"].is_null() && namespace && selects(&peer["podSelector"], pod.labels)
}

fn allows(snapshot: &Snapshot, (of, to): (Pod<'_>, Pod<'_>), port: Port<'_>, ingress: bool) -> bool {
    let (kind, field, peers) = match ingress {
        true => ("Ingress", "ingress", "from"),
        false => ("Egress", "egress", "to"),
    };
    if selecting(snapshot, of, kind).next().is_none() {
        return true;
    }
    rules(snapshot, of, kind, field).any(|(policy, rule)| {
        let mut listed = items(&rule[peers]).peekable();
        opens(rule, port)
            && (listed.peek().is_none() || listed.any(|peer| peer_selects(snapshot, policy, peer, to)))
    })
}

/// Whether the policies of the workload accept the caller on a port.
pub(crate) fn accepts(snapshot: &Snapshot, workload: &Object, caller: Pod<'_>, port: Port<'_>) -> bool {
    allows(snapshot, (Pod::of(workload), caller), port, true)
}

/// Whether the policies of the caller allow it to connect to the workload.
pub(crate) fn may_connect(snapshot: &Snapshot, caller: Pod<'_>, workload: &Object, port: Port<'_>) -> bool {
    allows(snapshot, (caller, Pod::of(workload)), port, false)
}

/// Whether no policy limits the destinations of the pod.
pub(crate) fn has_open_egress(snapshot: &Snapshot, pod: Pod<'_>) -> bool {
    let open = |rule: &Value| items(&rule["to"]).next().is_none() && items(&rule["ports"]).next().is_none();
    selecting(snapshot, pod, "Egress").next().is_none()
        || rules(snapshot, pod, "Egress", "egress").any(|(_, rule)| open(rule))
}

pub(crate) fn may_use_dns(snapshot: &Snapshot, pod: Pod<'_>) -> bool {
    has_open_egress(snapshot, pod)
        || rules(snapshot, pod, "Egress", "egress").any(|(_, rule)| opens(rule, ("dns", DNS_PORT)))
}

/// The policy for the workload's pods alone, if there is one.
pub(crate) fn own_policy<'a>(snapshot: &'a Snapshot, pod: Pod<'a>) -> Option<&'a str> {
    let all = snapshot.within(Kind::NetworkPolicy, pod.namespace);
    let own = all.filter(|policy| {
        let selector = &policy["spec"]["podSelector"];
        !is_empty_selector(selector) && selects(selector, pod.labels)
    });
    own.map(Object::name).next()
}

/// Namespace and labels of the pods that rules for a port accept by selectors, for existing namespaces.
pub(crate) fn sources(snapshot: &Snapshot, workload: &Object, port: Port<'_>) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let opening =
        rules(snapshot, Pod::of(workload), "Ingress", "ingress").filter(|(_, rule)| opens(rule, port));
    for (policy, rule) in opening {
        for peer in items(&rule["from"]).filter(|peer| peer["ipBlock"].is_null()) {
            let namespaces = snapshot.of(Kind::Namespace).iter().map(Object::name);
            let selected = namespaces.filter(|name| match &peer["namespaceSelector"] {
                Value::Null => *name == policy.namespace(),
                selector => selects_namespace(snapshot, selector, name),
            });
            let labels = example(&peer["podSelector"]);
            found.extend(selected.map(|name| (name.to_owned(), labels.clone())));
        }
    }
    found
}

/// Labels that the selector matches.
fn example(selector: &Value) -> Value {
    let mut labels = selector["matchLabels"].as_object().cloned().unwrap_or_else(Map::new);
    for expression in items(&selector["matchExpressions"]) {
        let key = expression["key"].as_str().unwrap_or_default().to_owned();
        match expression["operator"].as_str() {
            Some("In") => drop(labels.insert(key, expression["values"][0].clone())),
            Some("Exists") => drop(labels.insert(key, Value::from("any"))),
            _ => {}
        }
    }
    Value::Object(labels)
}
