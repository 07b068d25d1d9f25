//! A sound layout of two teams, and one hole at a time planted in its objects: each is found under its rule, names its
//! object, and is the only finding. No cluster.

pub(crate) mod holes;
mod reading;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::snapshot::{Kind, Snapshot};
use super::{COMPARISONS, compare};
use crate::expectations::Expectations;

const BILLING: &str = "spiffe://tinjis/ns/antaeus/sa/antaeus";

const EXPECTATIONS: &str = r#"
    environment = "two teams"
    default_deny = true
    evictions = ["payments"]
    registries = ["tinjis"]
    admission = ["validatingadmissionpolicy/external-ips"]
    platform = ["kube-system", "cert-manager"]
    [[workload]]
    name = "antaeus"
    namespace = "antaeus"
    policy = "antaeus"
    [[workload]]
    name = "payments"
    namespace = "payments"
    policy = "payments"
    clients = ["spiffe://tinjis/ns/antaeus/sa/antaeus-verify"]
    [[source]]
    name = "prometheus"
    namespace = "monitoring"
    labels = {}
    [[path]]
    from = "antaeus"
    to = "payments"
    port = 9000
    [[path]]
    from = "prometheus"
    to = "payments"
    port = 9001
    [[call]]
    from = "antaeus"
    to = "payments"
    path = "/v1/ledger"
    certificate = true
    token = true
    name = "spiffe://tinjis/ns/antaeus/sa/antaeus"
    issuer = { name = "tinjis" }
    [[team]]
    group = "team-payments"
    namespace = "payments"
    may = ["patch deployments", "get pods"]
    [[image]]
    namespace = "payments"
    allowed = "tinjis/payments:1"
    forbidden = "tinjis/billing:1"
    by = "validatingadmissionpolicy/images"
    [[route]]
    to = "antaeus"
    hosts = ["antaeus.example.com"]
    paths = ["/v1/invoices"]
"#;

fn expectations() -> Expectations {
    Expectations::parse(EXPECTATIONS).unwrap()
}

fn metadata(namespace: &str, name: &str) -> Value {
    match namespace {
        "" => json!({"name": name}),
        namespace => json!({"name": name, "namespace": namespace}),
    }
}

fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {
        "kubernetes.io/metadata.name": name, "pod-security.kubernetes.io/enforce": "restricted"},
        "annotations": {"tinjis/images": "tinjis/payments,docker.io/tinjis/tinjis"}}})
}

fn deployment(namespace: &str, name: &str, env: &[(&str, &str)]) -> Value {
    let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({"metadata": metadata(namespace, name), "spec": {"replicas": 3, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{
            "name": name, "image": format!("tinjis/{name}:1"), "env": env,
            "ports": [{"name": "business", "containerPort": 9000}, {"name": "admin", "containerPort": 9001}]}]}}}})
}

fn owned_pod(namespace: &str, deployment: &str) -> (Value, Value) {
    let set = format!("{deployment}-1");
    let owner = |kind: &str, name: &str| json!([{"kind": kind, "name": name}]);
    let mut pod = metadata(namespace, &format!("{set}-a"));
    pod["ownerReferences"] = owner("ReplicaSet", &set);
    pod["labels"] = json!({"app": "payments"});
    let mut set = metadata(namespace, &set);
    set["ownerReferences"] = owner("Deployment", deployment);
    let image = format!("tinjis/{deployment}:1");
    (
        json!({"metadata": pod, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": image}]}}),
        json!({"metadata": set}),
    )
}

fn slice(pod: &str) -> Value {
    let mut about = metadata("payments", "payments-x");
    about["labels"] = json!({"kubernetes.io/service-name": "payments"});
    json!({"metadata": about, "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": pod}}]})
}

fn policy(namespace: &str, name: &str, ingress: Value, egress: Value) -> Value {
    json!({"metadata": metadata(namespace, name), "spec": {"podSelector": {"matchLabels": {"app": name}},
        "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}})
}

fn default_deny(namespace: &str) -> Value {
    json!({"metadata": metadata(namespace, "default-deny"),
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}})
}

fn in_namespace(name: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": name}})
}

fn role(kind: Kind, namespace: &str, name: &str, rules: Value) -> (Kind, Value) {
    (kind, json!({"metadata": metadata(namespace, name), "rules": rules}))
}

fn binding(kind: Kind, namespace: &str, name: &str, role: (&str, &str), subject: Value) -> (Kind, Value) {
    let value = json!({"metadata": metadata(namespace, name), "roleRef": {"kind": role.0, "name": role.1},
        "subjects": [subject]});
    (kind, value)
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "name": name})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "name": name})
}

fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
}

/// The rules of a role: groups, and space-separated resources and verbs.
fn rules(groups: &[&str], resources: &str, verbs: &str) -> Value {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    json!([{"apiGroups": groups, "resources": words(resources), "verbs": words(verbs)}])
}

/// The payments side of the sound layout.
fn payments_objects() -> Vec<(Kind, Value)> {
    let allowed = format!("{BILLING},spiffe://tinjis/ns/antaeus/sa/antaeus-verify=billing");
    let env = [
        ("SUCCESS_RATE", "0.5"),
        ("RUN_TIME_FAULTS", "off"),
        ("CALLER_PROOF", "all"),
        ("TLS_CLIENT_CA", "/ca.crt"),
        ("TLS_ALLOWED_CLIENTS", allowed.as_str()),
    ];
    let (pod, set) = owned_pod("payments", "payments");
    let ingress = json!([
        {"from": [{"namespaceSelector": in_namespace("antaeus"), "podSelector": {"matchLabels": {"app": "antaeus"}}}],
            "ports": [{"port": 9000}]},
        {"from": [{"namespaceSelector": in_namespace("monitoring")}], "ports": [{"port": "admin"}]},
    ]);
    let service = json!({"metadata": metadata("payments", "payments"), "spec": {"type": "ClusterIP",
        "selector": {"app": "payments"}, "ports": [{"port": 9000, "targetPort": "business"}]}});
    let autoscaler = json!({"metadata": metadata("payments", "payments"), "spec": {"minReplicas": 3, "maxReplicas": 6,
        "scaleTargetRef": {"kind": "Deployment", "name": "payments"}}});
    let budget = json!({"metadata": metadata("payments", "payments"),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "payments"}}}});
    vec![
        (Kind::Namespace, namespace("payments")),
        (Kind::Deployment, deployment("payments", "payments", &env)),
        (Kind::ReplicaSet, set),
        (Kind::Pod, pod),
        (Kind::EndpointSlice, slice("payments-1-a")),
        (Kind::Service, service),
        (Kind::NetworkPolicy, default_deny("payments")),
        (Kind::NetworkPolicy, policy("payments", "payments", ingress, json!([]))),
        (Kind::HorizontalPodAutoscaler, autoscaler),
        (Kind::PodDisruptionBudget, budget),
        (
            Kind::ValidatingAdmissionPolicy,
            json!({"metadata": {"name": "images"}, "spec": {"failurePolicy": "Fail"}}),
        ),
        (
            Kind::ValidatingAdmissionPolicyBinding,
            json!({"metadata": {"name": "images"}, "spec": {"policyName": "images", "validationActions": ["Deny"]}}),
        ),
        (
            Kind::ValidatingAdmissionPolicy,
            json!({"metadata": {"name": "external-ips"}, "spec": {"failurePolicy": "Fail"}}),
        ),
        (
            Kind::ValidatingAdmissionPolicyBinding,
            json!({"metadata": {"name": "external-ips"},
                "spec": {"policyName": "external-ips", "validationActions": ["Deny"]}}),
        ),
        role(Kind::Role, "payments", "team", rules(&["apps", ""], "deployments pods", "get patch")),
        binding(Kind::RoleBinding, "payments", "team", ("Role", "team"), group("team-payments")),
    ]
}

pub(crate) fn sound() -> Snapshot {
    let dns = json!([{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
        {"to": [{"namespaceSelector": in_namespace("payments"), "podSelector": {"matchLabels": {"app": "payments"}}}],
            "ports": [{"port": 9000}]}]);
    let ingress = json!({"metadata": metadata("antaeus", "antaeus"), "spec": {"rules": [{
        "host": "antaeus.example.com", "http": {"paths": [{"path": "/v1/invoices", "pathType": "Prefix",
            "backend": {"service": {"name": "antaeus"}}}]}}]}});
    let certificate = json!({"metadata": metadata("antaeus", "client"), "spec": {"uris": [BILLING],
        "issuerRef": {"kind": "ClusterIssuer", "name": "tinjis"}}});
    let service = json!({"metadata": metadata("antaeus", "antaeus"), "spec": {"type": "ClusterIP",
        "selector": {"app": "antaeus"}, "ports": [{"port": 8000, "targetPort": 9000}]}});
    let edit = rules(&["", "apps"], "secrets pods/exec deployments", "get create patch");
    let mut objects = payments_objects();
    objects.extend([
        (Kind::Namespace, namespace("antaeus")),
        (Kind::Namespace, json!({"metadata": {"name": "monitoring", "labels": {"kubernetes.io/metadata.name": "monitoring"}}})),
        (Kind::Namespace, json!({"metadata": {"name": "lab", "labels": {"kubernetes.io/metadata.name": "lab"}}})),
        (Kind::Deployment, deployment("antaeus", "antaeus", &[])),
        (Kind::Service, service),
        (Kind::NetworkPolicy, default_deny("antaeus")),
        (Kind::NetworkPolicy, policy("antaeus", "antaeus", json!([]), dns)),
        (Kind::ClusterIssuer, json!({"metadata": {"name": "tinjis"}, "spec": {"ca": {}}})),
        (Kind::Certificate, certificate),
        (Kind::Ingress, ingress),
        role(Kind::ClusterRole, "", "edit", edit),
        role(Kind::ClusterRole, "", "issue", rules(&["cert-manager.io"], "certificates", "create")),
        role(Kind::ClusterRole, "", "cluster-admin", rules(&["*"], "*", "*")),
        role(Kind::ClusterRole, "", "view", rules(&["", "apps"], "pods deployments services", "get list watch")),
        binding(Kind::ClusterRoleBinding, "", "admins", ("ClusterRole", "cluster-admin"), group("system:masters")),
        binding(Kind::ClusterRoleBinding, "", "ca", ("ClusterRole", "edit"), account("cert-manager", "cert-manager")),
    ]);
    let mut snapshot = Snapshot::default();
    for (kind, value) in objects {
        snapshot.add(kind, vec![value]);
    }
    snapshot
}

/// Rule and object of each finding.
fn findings(expectations: &Expectations, snapshot: &Snapshot) -> BTreeSet<(String, String)> {
    let all = compare(expectations, snapshot).into_iter().flat_map(|compared| compared.findings);
    all.map(|finding| (finding.rule.to_owned(), finding.object.to_string())).collect()
}

/// A hole: its name, the change that plants it, and the rule and object of its finding.
type Hole = (&'static str, fn(&mut Snapshot), &'static str, &'static str);

fn assert_found(holes: &[Hole]) {
    for (name, plant, rule, object) in holes {
        let mut snapshot = sound();
        plant(&mut snapshot);
        let found = findings(&expectations(), &snapshot);
        let wanted = ((*rule).to_owned(), (*object).to_owned());
        assert_eq!(found, BTreeSet::from([wanted]), "{name}");
    }
}

fn change(snapshot: &mut Snapshot, kind: Kind, name: &str, pointer: &str, value: Value) {
    let object = snapshot.objects_mut(kind).iter_mut().find(|object| object.name() == name).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.value.pointer_mut(parent).unwrap()[key] = value;
}

fn remove(snapshot: &mut Snapshot, kind: Kind, name: &str) {
    snapshot.objects_mut(kind).retain(|object| object.name() != name);
}

fn add(snapshot: &mut Snapshot, (kind, value): (Kind, Value)) {
    snapshot.add(kind, vec![value]);
}

fn set_env(snapshot: &mut Snapshot, name: &str, value: Value) {
    let kind = Kind::Deployment;
    let payments = snapshot.objects_mut(kind).iter_mut().find(|object| object.name() == "payments").unwrap();
    let env =
        payments.value.pointer_mut("/spec/template/spec/containers/0/env").unwrap().as_array_mut().unwrap();
    env.retain(|variable| variable["name"] != name);
    if !value.is_null() {
        env.push(json!({"name": name, "value": value}));
    }
}

/// A further policy for the pods of payments with one rule.
fn add_ingress(snapshot: &mut Snapshot, rule: Value) {
    let mut hole = policy("payments", "payments", json!([rule]), json!([]));
    hole["metadata"]["name"] = json!("hole");
    snapshot.add(Kind::NetworkPolicy, vec![hole]);
}

fn add_egress(snapshot: &mut Snapshot, rule: Value) {
    let mut hole = policy("payments", "payments", json!([]), json!([rule]));
    hole["metadata"]["name"] = json!("hole");
    snapshot.add(Kind::NetworkPolicy, vec![hole]);
}

#[test]
fn an_accepted_finding_is_kept_apart_and_only_under_its_rule_and_object() {
    let mut snapshot = sound();
    add(
        &mut snapshot,
        binding(Kind::RoleBinding, "payments", "hole", ("ClusterRole", "edit"), user("mallory")),
    );
    let with = |rule: &str, object: &str| {
        let text =
            format!("{EXPECTATIONS}\n[[accept]]\nrule = {rule:?}\nobject = {object:?}\nwhy = \"until May\"");
        let compared = compare(&Expectations::parse(&text).unwrap(), &snapshot);
        let count = |list: fn(&super::Compared) -> usize| compared.iter().map(list).sum::<usize>();
        (count(|compared| compared.findings.len()), count(|compared| compared.accepted.len()))
    };
    assert_eq!(with("unlisted-subject", "RoleBinding payments/hole"), (0, 1));
    assert_eq!(with("unlisted-subject", "RoleBinding payments/other"), (1, 0));
    assert_eq!(with("host-network", "RoleBinding payments/hole"), (1, 0));
}

#[test]
fn a_kind_that_cannot_be_read_makes_its_rules_inconclusive() {
    let mut snapshot = sound();
    snapshot.refuse(Kind::ClusterRole, "GET /clusterroles: 403 forbidden");
    for compared in compare(&expectations(), &snapshot) {
        let reads = compared.comparison.reads.contains(&Kind::ClusterRole);
        assert_eq!(compared.unreadable.is_some(), reads, "{:?}", compared.comparison.rules);
    }
}

#[test]
fn every_rule_has_one_name_and_one_group() {
    let rules: Vec<&str> = COMPARISONS.iter().flat_map(|group| group.rules).map(|rule| rule.id).collect();
    assert_eq!(rules.len(), rules.iter().collect::<BTreeSet<_>>().len());
}

#[test]
fn wrong_lists_are_reported_in_one_message() {
    let bad = format!(
        "{EXPECTATIONS}\n[[subject]]\nkind = \"ServiceAccount\"\nname = \"x\"\nmay = [\"fly\"]\n\
         [[accept]]\nrule = \"no-rule\"\nobject = \"Pod a/b\"\nwhy = \" \"\n\
         [[setting]]\nworkload = \"nothing\"\nname = \"A\"\nvalue = \"\""
    );
    let message = Expectations::parse(&bad).unwrap_err();
    for part in ["needs a namespace", "fly", "no-rule", "`why` is empty", "setting of \"nothing\""] {
        assert!(message.contains(part), "{message}");
    }
}
