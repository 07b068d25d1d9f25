//! Each hole of the table is planted alone into the sound layout. Knows no rule's code.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

#[test]
fn a_sound_layout_has_no_finding() {
    for compared in compare(&expectations(), &sound()) {
        assert_eq!(compared.findings, [], "{:?}", compared.comparison.rules);
        assert_eq!(compared.unreadable, None);
        assert!(compared.objects > 0, "{:?} compared nothing", compared.comparison.rules);
    }
}

const HOLE_BINDING: &str = "RoleBinding payments/hole";

const BINDINGS: &[Hole] = &[
    (
        "edit for a user",
        |all| {
            add(all, binding(Kind::RoleBinding, "payments", "hole", ("ClusterRole", "edit"), user("mallory")))
        },
        "unlisted-subject",
        HOLE_BINDING,
    ),
    (
        "edit for a group",
        |all| {
            add(
                all,
                binding(Kind::RoleBinding, "payments", "hole", ("ClusterRole", "edit"), group("contractors")),
            )
        },
        "unlisted-subject",
        HOLE_BINDING,
    ),
    (
        "Services for every authenticated user",
        |all| {
            add(all, role(Kind::Role, "payments", "services", rules(&[""], "services", "update")));
            let subject = group("system:authenticated");
            add(all, binding(Kind::RoleBinding, "payments", "hole", ("Role", "services"), subject));
        },
        "unlisted-subject",
        HOLE_BINDING,
    ),
    (
        "Secrets for default/default",
        |all| {
            add(all, role(Kind::Role, "payments", "reader", rules(&[""], "secrets", "get list")));
            add(
                all,
                binding(
                    Kind::RoleBinding,
                    "payments",
                    "hole",
                    ("Role", "reader"),
                    account("default", "default"),
                ),
            );
        },
        "unlisted-subject",
        HOLE_BINDING,
    ),
    (
        "Secrets for a ServiceAccount under its name as a user",
        |all| {
            add(all, role(Kind::Role, "payments", "reader", rules(&[""], "secrets", "watch")));
            let subject = user("system:serviceaccount:default:default");
            add(all, binding(Kind::RoleBinding, "payments", "hole", ("Role", "reader"), subject));
        },
        "unlisted-subject",
        HOLE_BINDING,
    ),
    (
        "tokens for the other team",
        |all| {
            add(all, role(Kind::Role, "payments", "tokens", rules(&[""], "serviceaccounts/token", "create")));
            add(
                all,
                binding(Kind::RoleBinding, "payments", "hole", ("Role", "tokens"), group("team-antaeus")),
            );
        },
        "unlisted-subject",
        HOLE_BINDING,
    ),
    (
        "pods/exec by a wildcard of subresources",
        |all| {
            add(all, role(Kind::Role, "payments", "exec", rules(&[""], "pods/*", "create")));
            add(all, binding(Kind::RoleBinding, "payments", "hole", ("Role", "exec"), user("mallory")));
        },
        "unlisted-subject",
        HOLE_BINDING,
    ),
    (
        "policies in every namespace",
        |all| {
            add(
                all,
                role(
                    Kind::ClusterRole,
                    "",
                    "net",
                    rules(&["networking.k8s.io"], "networkpolicies", "delete"),
                ),
            );
            add(all, binding(Kind::ClusterRoleBinding, "", "hole", ("ClusterRole", "net"), user("mallory")));
        },
        "unlisted-subject",
        "ClusterRoleBinding hole",
    ),
];

#[test]
fn bindings_of_subjects_that_are_not_listed_are_found() {
    assert_found(BINDINGS);
}

#[test]
fn rights_without_weight_and_listed_subjects_are_no_finding() {
    let mut snapshot = sound();
    add(&mut snapshot, binding(Kind::RoleBinding, "payments", "a", ("ClusterRole", "view"), user("auditor")));
    add(
        &mut snapshot,
        binding(Kind::RoleBinding, "payments", "b", ("Role", "no-such-role"), user("auditor")),
    );
    add(&mut snapshot, binding(Kind::RoleBinding, "lab", "c", ("ClusterRole", "view"), user("auditor")));
    add(&mut snapshot, binding(Kind::RoleBinding, "payments", "d", ("ClusterRole", "edit"), user("oncall")));
    let listed = |more: &str| {
        let text = format!("{EXPECTATIONS}\n[[subject]]\nkind = \"User\"\nname = \"oncall\"\n{more}");
        findings(&Expectations::parse(&text).unwrap(), &snapshot)
    };
    assert_eq!(listed(""), BTreeSet::new());
    assert_eq!(listed("in = [\"antaeus\"]").len(), 1, "another namespace");
    assert!(!listed("may = [\"read secrets\"]").is_empty(), "fewer rights than the binding gives");
}

const TEAMS: &[Hole] = &[
    (
        "a permission that the file forbids",
        |all| {
            add(all, role(Kind::Role, "payments", "quota", rules(&[""], "resourcequotas", "patch")));
            add(
                all,
                binding(Kind::RoleBinding, "payments", "hole", ("Role", "quota"), group("team-payments")),
            );
        },
        "team-permission",
        "RoleBinding payments/hole",
    ),
    (
        "a permission that no Role grants",
        |all| remove(all, Kind::RoleBinding, "team"),
        "team-permission",
        "Namespace payments",
    ),
];

#[test]
fn what_a_team_may_is_read_from_its_roles() {
    assert_found(TEAMS);
}

const HOLE_POLICY: &str = "NetworkPolicy payments/hole";

const POLICIES: &[Hole] = &[
    ("every address", |all| add_ingress(all, json!({"ports": [{"port": 9000}]})), "any-address", HOLE_POLICY),
    ("no ports and no callers", |all| add_ingress(all, json!({})), "any-address", HOLE_POLICY),
    (
        "everything but pods",
        |all| {
            let block = json!({"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]});
            add_ingress(all, json!({"from": [{"ipBlock": block}], "ports": [{"port": 9000}]}));
        },
        "any-address",
        HOLE_POLICY,
    ),
    (
        "half of the Internet",
        |all| add_ingress(all, json!({"from": [{"ipBlock": {"cidr": "128.0.0.0/1"}}]})),
        "any-address",
        HOLE_POLICY,
    ),
    (
        "IPv6",
        |all| add_ingress(all, json!({"from": [{"ipBlock": {"cidr": "::/0"}}]})),
        "any-address",
        HOLE_POLICY,
    ),
    (
        "the node's addresses to the admin port",
        |all| {
            add_ingress(
                all,
                json!({"from": [{"ipBlock": {"cidr": "10.199.0.2/32"}}], "ports": [{"port": 9001}]}),
            )
        },
        "any-address",
        HOLE_POLICY,
    ),
    (
        "a caller's labels from everywhere",
        |all| {
            let peer = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "antaeus"}}});
            add_ingress(all, json!({"from": [peer], "ports": [{"port": 9000}]}));
        },
        "unexpected-caller",
        HOLE_POLICY,
    ),
    (
        "all pods of its own namespace",
        |all| add_ingress(all, json!({"from": [{"podSelector": {}}], "ports": [{"port": 9000}]})),
        "unexpected-caller",
        HOLE_POLICY,
    ),
    (
        "all pods of the caller's namespace",
        |all| {
            let peer = json!({"namespaceSelector": in_namespace("antaeus")});
            add_ingress(all, json!({"from": [peer], "ports": [{"port": 9000}]}));
        },
        "unexpected-caller",
        HOLE_POLICY,
    ),
    (
        "the admin port for a caller, by a range",
        |all| {
            let peer = json!({"namespaceSelector": in_namespace("antaeus"), "podSelector": {"matchLabels": {"app": "antaeus"}}});
            add_ingress(all, json!({"from": [peer], "ports": [{"port": 9000, "endPort": 9100}]}));
        },
        "unexpected-caller",
        HOLE_POLICY,
    ),
    ("egress to every destination", |all| add_egress(all, json!({})), "open-egress", HOLE_POLICY),
    (
        "egress to the Internet",
        |all| add_egress(all, json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]})),
        "open-egress",
        HOLE_POLICY,
    ),
    (
        "egress to all pods",
        |all| add_egress(all, json!({"to": [{"namespaceSelector": {}}], "ports": [{"port": 443}]})),
        "open-egress",
        HOLE_POLICY,
    ),
    (
        "the default deny deleted",
        |all| {
            let policies = all.objects_mut(Kind::NetworkPolicy);
            policies.retain(|policy| policy.namespace() != "antaeus" || policy.name() != "default-deny");
        },
        "missing-policy",
        "Namespace antaeus",
    ),
    (
        "the policy of a workload deleted",
        |all| remove(all, Kind::NetworkPolicy, "payments"),
        "missing-policy",
        "NetworkPolicy payments/payments",
    ),
];

#[test]
fn policies_that_open_more_than_the_listed_paths_are_found() {
    assert_found(POLICIES);
}

#[test]
fn listed_addresses_are_no_finding() {
    let mut snapshot = sound();
    add_egress(&mut snapshot, json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}));
    let listed = |ports: &str| {
        let address = "[[address]]\nworkload = \"payments\"\ndirection = \"out\"\ncidr = \"0.0.0.0/0\"";
        let text = format!("{EXPECTATIONS}\n{address}\nports = {ports}");
        findings(&Expectations::parse(&text).unwrap(), &snapshot).len()
    };
    assert_eq!((listed("[443]"), listed("[]"), listed("[80]")), (0, 0, 1));
}

const RUNNING: &[Hole] = &[
    (
        "a Service that routes to an address",
        |all| {
            let mut manual = slice("payments-1-a");
            manual["endpoints"][0]["targetRef"] = Value::Null;
            snapshot_add(all, Kind::EndpointSlice, manual);
        },
        "foreign-endpoint",
        "Service payments/payments",
    ),
    (
        "a pod with the Service's labels that no workload made",
        |all| {
            let (mut pod, _) = owned_pod("payments", "other");
            pod["metadata"]["ownerReferences"] = json!([]);
            snapshot_add(all, Kind::Pod, pod);
            snapshot_add(all, Kind::EndpointSlice, slice("other-1-a"));
        },
        "foreign-endpoint",
        "Service payments/payments",
    ),
    (
        "a workload that is not listed",
        |all| {
            let mut other = deployment("payments", "other", &[]);
            other["spec"]["template"]["metadata"]["labels"] = json!({});
            snapshot_add(all, Kind::Deployment, other);
        },
        "unlisted-workload",
        "Deployment payments/other",
    ),
    (
        "a pod on the node's network in a third namespace",
        |all| {
            let spec = json!({"hostNetwork": true, "containers": []});
            snapshot_add(all, Kind::Pod, json!({"metadata": metadata("lab", "sniffer"), "spec": spec}));
        },
        "host-network",
        "Pod lab/sniffer",
    ),
    (
        "externalIPs in a third namespace",
        |all| {
            let spec = json!({"externalIPs": ["10.96.0.10"]});
            snapshot_add(all, Kind::Service, json!({"metadata": metadata("lab", "trap"), "spec": spec}));
        },
        "exposed-service",
        "Service lab/trap",
    ),
    (
        "a NodePort",
        |all| change(all, Kind::Service, "payments", "/spec/type", json!("NodePort")),
        "exposed-service",
        "Service payments/payments",
    ),
];

#[test]
fn what_runs_beside_the_listed_workloads_is_found() {
    assert_found(RUNNING);
}

fn snapshot_add(snapshot: &mut Snapshot, kind: Kind, value: Value) {
    snapshot.add(kind, vec![value]);
}

/// The hole is found twice: as a workload that is not listed, and behind the Service.
#[test]
fn a_second_deployment_behind_the_service_is_named_with_its_pods() {
    let mut snapshot = sound();
    let (pod, set) = owned_pod("payments", "plain");
    for (kind, value) in [
        (Kind::Deployment, deployment("payments", "plain", &[])),
        (Kind::ReplicaSet, set),
        (Kind::Pod, pod),
        (Kind::EndpointSlice, slice("plain-1-a")),
    ] {
        snapshot.add(kind, vec![value]);
    }
    let all = compare(&expectations(), &snapshot).into_iter().flat_map(|compared| compared.findings);
    let foreign = all.into_iter().find(|finding| finding.rule == "foreign-endpoint").unwrap();
    assert_eq!(foreign.object.to_string(), "Service payments/payments");
    assert!(foreign.problem.contains("Deployment plain"), "{}", foreign.problem);
    assert!(
        findings(&expectations(), &snapshot)
            .contains(&("unlisted-workload".to_owned(), "Deployment payments/plain".to_owned()))
    );
}

const OF_PAYMENTS: &str = "Deployment payments/payments";

const SETTINGS: &[Hole] = &[
    ("no charge succeeds", |all| set_env(all, "SUCCESS_RATE", json!("0.0")), "weak-setting", OF_PAYMENTS),
    ("a fault script", |all| set_env(all, "FAULTS", json!("/faults.toml")), "weak-setting", OF_PAYMENTS),
    ("faults at run time", |all| set_env(all, "RUN_TIME_FAULTS", json!("on")), "weak-setting", OF_PAYMENTS),
    ("anonymous callers", |all| set_env(all, "ALLOW_ANONYMOUS", json!("true")), "weak-setting", OF_PAYMENTS),
    ("anonymous readers", |all| set_env(all, "ANONYMOUS_READS", json!("TRUE")), "weak-setting", OF_PAYMENTS),
    ("one proof is enough", |all| set_env(all, "CALLER_PROOF", json!("any")), "weak-setting", OF_PAYMENTS),
    (
        "the default of one proof",
        |all| set_env(all, "CALLER_PROOF", Value::Null),
        "caller-names",
        OF_PAYMENTS,
    ),
    ("mutual TLS off", |all| set_env(all, "TLS_CLIENT_CA", Value::Null), "caller-names", OF_PAYMENTS),
    ("no names", |all| set_env(all, "TLS_ALLOWED_CLIENTS", Value::Null), "caller-names", OF_PAYMENTS),
    (
        "one more name",
        |all| {
            set_env(all, "TLS_ALLOWED_CLIENTS", json!(format!("{BILLING},spiffe://tinjis/ns/lab/sa/mallory")))
        },
        "caller-names",
        OF_PAYMENTS,
    ),
    (
        "a flag",
        |all| {
            let args = json!(["--success-rate", "0"]);
            change(all, Kind::Deployment, "payments", "/spec/template/spec/containers/0/args", args);
        },
        "weak-setting",
        OF_PAYMENTS,
    ),
    (
        "a ConfigMap",
        |all| {
            let from = json!([{"configMapRef": {"name": "settings"}}]);
            change(all, Kind::Deployment, "payments", "/spec/template/spec/containers/0/envFrom", from);
            let data = json!({"TEST_AMOUNTS": "true"});
            snapshot_add(
                all,
                Kind::ConfigMap,
                json!({"metadata": metadata("payments", "settings"), "data": data}),
            );
        },
        "weak-setting",
        OF_PAYMENTS,
    ),
    (
        "a value that cannot be read",
        |all| {
            let hidden = json!({"secretKeyRef": {"name": "s", "key": "k"}});
            let env = json!({"name": "FAULTS", "valueFrom": hidden});
            let container = "/spec/template/spec/containers/0/env/0";
            change(all, Kind::Deployment, "antaeus", "/spec/template/spec/containers/0/env", json!([{}]));
            let object =
                all.objects_mut(Kind::Deployment).iter_mut().find(|object| object.name() == "antaeus");
            *object.unwrap().value.pointer_mut(container).unwrap() = env;
        },
        "weak-setting",
        "Deployment antaeus/antaeus",
    ),
];

#[test]
fn settings_that_weaken_a_service_are_found() {
    assert_found(SETTINGS);
}

#[test]
fn a_listed_setting_must_have_its_value() {
    let listed = |value: &str| {
        let setting = "[[setting]]\nworkload = \"payments\"\nname = \"SUCCESS_RATE\"\nvalue";
        let text = format!("{EXPECTATIONS}\n{setting} = {value:?}");
        findings(&Expectations::parse(&text).unwrap(), &sound()).len()
    };
    assert_eq!((listed("0.5"), listed("1"), listed("")), (0, 1, 1));
}

const DISRUPTION: &[Hole] = &[
    (
        "an autoscaler pinned to one",
        |all| {
            change(all, Kind::HorizontalPodAutoscaler, "payments", "/spec/minReplicas", json!(1));
            change(all, Kind::HorizontalPodAutoscaler, "payments", "/spec/maxReplicas", json!(1));
        },
        "pinned-autoscaler",
        "HorizontalPodAutoscaler payments/payments",
    ),
    (
        "no budget",
        |all| remove(all, Kind::PodDisruptionBudget, "payments"),
        "no-budget",
        "Deployment payments/payments",
    ),
    (
        "a budget that permits all",
        |all| change(all, Kind::PodDisruptionBudget, "payments", "/spec/maxUnavailable", json!("100%")),
        "no-budget",
        "PodDisruptionBudget payments/payments",
    ),
    (
        "one replica",
        |all| {
            remove(all, Kind::HorizontalPodAutoscaler, "payments");
            change(all, Kind::Deployment, "payments", "/spec/replicas", json!(1));
        },
        "too-few-replicas",
        "Deployment payments/payments",
    ),
];

#[test]
fn workloads_that_an_eviction_stops_are_found() {
    assert_found(DISRUPTION);
}

const A_POD: &str = "Pod payments/payments-1-a";

const ADMISSION: &[Hole] = &[
    (
        "Audit",
        |all| {
            let kind = Kind::ValidatingAdmissionPolicyBinding;
            change(all, kind, "images", "/spec/validationActions", json!(["Audit", "Warn"]));
        },
        "audit-only",
        "ValidatingAdmissionPolicyBinding images",
    ),
    (
        "another namespace",
        |all| {
            let resources = json!({"namespaceSelector": {"matchLabels": {"none": "x"}}});
            let kind = Kind::ValidatingAdmissionPolicyBinding;
            change(all, kind, "images", "/spec/matchResources", resources);
        },
        "audit-only",
        "ValidatingAdmissionPolicy images",
    ),
    (
        "the policy deleted",
        |all| remove(all, Kind::ValidatingAdmissionPolicy, "images"),
        "audit-only",
        "ValidatingAdmissionPolicy images",
    ),
    (
        "failures are ignored",
        |all| change(all, Kind::ValidatingAdmissionPolicy, "images", "/spec/failurePolicy", json!("Ignore")),
        "audit-only",
        "ValidatingAdmissionPolicy images",
    ),
    (
        "a further policy without a binding",
        |all| remove(all, Kind::ValidatingAdmissionPolicyBinding, "external-ips"),
        "audit-only",
        "ValidatingAdmissionPolicy external-ips",
    ),
    (
        "the label removed",
        |all| {
            let labels = json!({"kubernetes.io/metadata.name": "antaeus"});
            change(all, Kind::Namespace, "antaeus", "/metadata/labels", labels);
        },
        "pod-security-label",
        "Namespace antaeus",
    ),
    (
        "a foreign registry that the namespace permits",
        |all| {
            let images = json!({"tinjis/images": "tinjis/payments,registry.example/tinjis/payments"});
            change(all, Kind::Namespace, "payments", "/metadata/annotations", images);
        },
        "foreign-image",
        "Namespace payments",
    ),
    (
        "an init container",
        |all| {
            let containers = json!([{"name": "i", "image": "registry.example/x:1"}]);
            change(all, Kind::Pod, "payments-1-a", "/spec/initContainers", containers);
        },
        "foreign-image",
        A_POD,
    ),
    (
        "an ephemeral container",
        |all| {
            let containers = json!([{"name": "debug", "image": "busybox"}]);
            change(all, Kind::Pod, "payments-1-a", "/spec/ephemeralContainers", containers);
        },
        "foreign-image",
        A_POD,
    ),
    (
        "an image volume",
        |all| {
            let volumes = json!([{"name": "v", "image": {"reference": "tinjis-evil/x:1"}}]);
            change(all, Kind::Pod, "payments-1-a", "/spec/volumes", volumes);
        },
        "foreign-image",
        A_POD,
    ),
];

#[test]
fn admission_that_refuses_nothing_and_foreign_images_are_found() {
    assert_found(ADMISSION);
}

const ISSUERS: &[Hole] = &[
    (
        "the right to create Certificates in a third namespace",
        |all| add(all, binding(Kind::RoleBinding, "lab", "edit", ("ClusterRole", "issue"), user("mallory"))),
        "open-issuer",
        "ClusterIssuer tinjis",
    ),
    (
        "another issuer of the caller's name",
        |all| change(all, Kind::Certificate, "client", "/spec/issuerRef", json!({"name": "other"})),
        "open-issuer",
        "Certificate antaeus/client",
    ),
    (
        "a Certificate elsewhere",
        |all| {
            let value = json!({"metadata": metadata("lab", "copy"), "spec": {"uris": [BILLING]}});
            snapshot_add(all, Kind::Certificate, value);
        },
        "copied-name",
        "Certificate lab/copy",
    ),
];

#[test]
fn a_callers_name_for_another_subject_is_found() {
    assert_found(ISSUERS);
}

const A_ROUTE: &str = "Ingress antaeus/antaeus";

const ROUTES: &[Hole] = &[
    (
        "another path",
        |all| change(all, Kind::Ingress, "antaeus", "/spec/rules/0/http/paths/0/path", json!("/")),
        "wide-route",
        A_ROUTE,
    ),
    (
        "another host",
        |all| change(all, Kind::Ingress, "antaeus", "/spec/rules/0/host", json!("other.example.com")),
        "wide-route",
        A_ROUTE,
    ),
    (
        "a default backend",
        |all| {
            change(
                all,
                Kind::Ingress,
                "antaeus",
                "/spec/defaultBackend",
                json!({"service": {"name": "antaeus"}}),
            )
        },
        "wide-route",
        A_ROUTE,
    ),
    (
        "all sources",
        |all| {
            let annotations =
                json!({"nginx.ingress.kubernetes.io/whitelist-source-range": "10.0.0.0/8,0.0.0.0/0"});
            change(all, Kind::Ingress, "antaeus", "/metadata/annotations", annotations);
        },
        "wide-route",
        A_ROUTE,
    ),
    (
        "an HTTPRoute without matches to a Service that is not listed",
        |all| {
            let spec =
                json!({"hostnames": ["a.example"], "rules": [{"backendRefs": [{"name": "payments"}]}]});
            snapshot_add(
                all,
                Kind::HttpRoute,
                json!({"metadata": metadata("payments", "all"), "spec": spec}),
            );
        },
        "wide-route",
        "HTTPRoute payments/all",
    ),
];

#[test]
fn routes_that_are_wider_than_listed_are_found() {
    assert_found(ROUTES);
}

/// Every hole planted alone: its name, the rule that finds it, and the objects.
pub(crate) fn planted_by_rule() -> Vec<(&'static str, &'static str, Snapshot)> {
    let all = [BINDINGS, TEAMS, POLICIES, RUNNING, SETTINGS, DISRUPTION, ADMISSION, ISSUERS, ROUTES];
    let planted = all.into_iter().flatten().map(|(name, plant, rule, _)| {
        let mut snapshot = sound();
        plant(&mut snapshot);
        (*name, *rule, snapshot)
    });
    planted.collect()
}

pub(crate) fn planted() -> impl Iterator<Item = (&'static str, Snapshot)> {
    planted_by_rule().into_iter().map(|(name, _, snapshot)| (name, snapshot))
}
