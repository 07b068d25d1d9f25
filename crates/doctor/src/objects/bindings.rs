//! Roles and bindings: rights of weight in the namespaces for subjects that the expectations do not name, and the
//! permissions of each team as the Roles grant them. Pure; sends no request.

use std::collections::BTreeSet;
use std::fmt::{Display, Formatter};

use serde_json::{Value, json};

use super::finding::{Finding, ObjectRef, Severity};
use super::snapshot::{Kind, Object, Snapshot, items, texts};
use crate::expectations::{
    Expectations, FORBIDDEN_IN_OTHER_NAMESPACES, FORBIDDEN_IN_OWN_NAMESPACE, Subject, SubjectKind, Team,
};
use crate::kube::Identity;
use crate::rbac::{Permission, grants};

pub(crate) const UNLISTED_SUBJECT: &str = "unlisted-subject";
pub(crate) const TEAM_PERMISSION: &str = "team-permission";

/// Every right over every resource.
const EVERYTHING: &str = "everything";
/// Rights that each team has in its own namespace, because it ships its service.
const OF_A_TEAM: [&str; 3] = ["change workloads", "change services", "forward ports"];
/// Groups of callers that no administrator chooses, despite their prefix.
const BROAD_GROUPS: [&str; 3] = ["system:authenticated", "system:unauthenticated", "system:serviceaccounts"];
/// Prefixes of the subjects of Kubernetes itself and of kubeadm.
const BUILT_IN: [&str; 2] = ["system:", "kubeadm:"];

/// A right of weight: its name, and what grants it.
struct Weight {
    name: &'static str,
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];
const REMOVE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

const fn weight(
    name: &'static str,
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Weight {
    Weight { name, groups, resources, verbs }
}

static WEIGHTS: [Weight; 15] = [
    weight("read secrets", &[""], &["secrets"], READ),
    weight("change secrets", &[""], &["secrets"], WRITE),
    weight("execute in pods", &[""], &["pods/exec", "pods/attach"], &["create", "get"]),
    weight("execute in pods", &[""], &["pods/ephemeralcontainers"], WRITE),
    weight("forward ports", &[""], &["pods/portforward", "pods/proxy", "services/proxy"], &["create", "get"]),
    weight("create tokens", &[""], &["serviceaccounts/token"], &["create"]),
    weight(
        "impersonate",
        &["", "authentication.k8s.io"],
        &["users", "groups", "serviceaccounts"],
        &["impersonate"],
    ),
    weight(
        "change workloads",
        &["", "apps", "batch"],
        &["pods", "deployments", "statefulsets", "daemonsets", "replicasets", "jobs", "cronjobs"],
        WRITE,
    ),
    weight(
        "change services",
        &["", "discovery.k8s.io", "networking.k8s.io", "gateway.networking.k8s.io"],
        &["services", "endpoints", "endpointslices", "ingresses", "httproutes"],
        WRITE,
    ),
    weight("change policies", &["networking.k8s.io"], &["networkpolicies"], REMOVE),
    weight(
        "change rights",
        &["rbac.authorization.k8s.io"],
        &["roles", "rolebindings", "clusterroles", "clusterrolebindings"],
        &["create", "update", "patch", "escalate", "bind"],
    ),
    weight("issue certificates", &["cert-manager.io"], &["certificates", "certificaterequests"], WRITE),
    weight("change namespaces", &[""], &["namespaces"], &["update", "patch", "delete"]),
    weight(
        "change admission",
        &["admissionregistration.k8s.io"],
        &[
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
            "mutatingwebhookconfigurations",
        ],
        REMOVE,
    ),
    weight("reach the kubelet", &[""], &["nodes/proxy"], &["get", "create"]),
];

/// The names of all rights, for the expectations file's own check.
pub(crate) fn weight_names() -> BTreeSet<&'static str> {
    WEIGHTS.iter().map(|weight| weight.name).chain([EVERYTHING]).collect()
}

/// Whether a rule's list has one of these, or all by `*`; `pods/*` and `*/exec` count too.
fn overlaps(list: &Value, wanted: &[&str]) -> bool {
    texts(list).any(|item| {
        wanted.iter().any(|wanted| match item.split_once('/') {
            _ if item == "*" || item == *wanted => true,
            Some((parent, "*")) => wanted.split_once('/').is_some_and(|(of, _)| of == parent),
            Some(("*", sub)) => wanted.split_once('/').is_some_and(|(_, of)| of == sub),
            _ => false,
        })
    })
}

/// The rights of weight that a role's rules grant. A rule for named objects counts, too.
pub(crate) fn weights(rules: &Value) -> BTreeSet<&'static str> {
    let all = |list: &Value| texts(list).any(|item| item == "*");
    let mut found = BTreeSet::new();
    for rule in items(rules) {
        if all(&rule["apiGroups"]) && all(&rule["resources"]) && all(&rule["verbs"]) {
            return BTreeSet::from([EVERYTHING]);
        }
        let granted = WEIGHTS.iter().filter(|weight| {
            overlaps(&rule["apiGroups"], weight.groups)
                && overlaps(&rule["resources"], weight.resources)
                && overlaps(&rule["verbs"], weight.verbs)
        });
        found.extend(granted.map(|weight| weight.name));
    }
    found
}

/// The subject that holds the rights of a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) kind: SubjectKind,
    /// Namespace of a ServiceAccount; otherwise empty.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Display for Holder {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace.as_str() {
            "" => write!(f, "{} {name}", kind.as_str()),
            namespace => write!(f, "{} {namespace}/{name}", kind.as_str()),
        }
    }
}

/// The subjects of a binding. A user with the name of a ServiceAccount is that ServiceAccount.
pub(crate) fn subjects(binding: &Object) -> Vec<Holder> {
    let of = |subject: &Value| {
        let name = subject["name"].as_str()?;
        let namespace = subject["namespace"].as_str().unwrap_or_default();
        let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let (kind, namespace, name) = match (subject["kind"].as_str()?, account) {
            ("ServiceAccount", _) => (SubjectKind::ServiceAccount, namespace, name),
            ("User", Some((namespace, name))) => (SubjectKind::ServiceAccount, namespace, name),
            ("Group", _) => (SubjectKind::Group, "", name),
            _ => (SubjectKind::User, "", name),
        };
        Some(Holder { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    };
    items(&binding["subjects"]).filter_map(of).collect()
}

/// Whether the subject belongs to Kubernetes or to a namespace of the platform.
pub(crate) fn is_platform(expectations: &Expectations, holder: &Holder) -> bool {
    is_of_platform(&expectations.platform, holder)
}

pub(crate) fn is_of_platform(platform: &[String], holder: &Holder) -> bool {
    let Holder { kind, namespace, name } = holder;
    match kind {
        SubjectKind::ServiceAccount => platform.contains(namespace),
        SubjectKind::User => {
            name != "system:anonymous" && BUILT_IN.iter().any(|prefix| name.starts_with(prefix))
        }
        SubjectKind::Group => !is_broad(name) && BUILT_IN.iter().any(|prefix| name.starts_with(prefix)),
    }
}

fn is_broad(group: &str) -> bool {
    BROAD_GROUPS.contains(&group) || group.starts_with("system:serviceaccounts:")
}

/// The rules of the role that a binding refers to.
pub(crate) fn rules_of<'a>(binding: &Object, snapshot: &'a Snapshot) -> Option<&'a Value> {
    let name = binding["roleRef"]["name"].as_str()?;
    let role = match binding["roleRef"]["kind"].as_str()? {
        "Role" => snapshot.find(Kind::Role, binding.namespace(), name),
        _ => snapshot.find(Kind::ClusterRole, "", name),
    };
    role.map(|role| &role["rules"])
}

/// Bindings that give rights in these namespaces; an empty namespace stands for all.
fn bindings<'a>(snapshot: &'a Snapshot, namespaces: &'a BTreeSet<&str>) -> impl Iterator<Item = &'a Object> {
    let here = snapshot.of(Kind::RoleBinding).iter();
    let here = here.filter(|binding| namespaces.contains(binding.namespace()));
    here.chain(snapshot.of(Kind::ClusterRoleBinding))
}

pub(crate) fn unlisted_subjects(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let namespaces = expectations.namespaces();
    let mut findings = Vec::new();
    for binding in bindings(snapshot, &namespaces) {
        let Some(rules) = rules_of(binding, snapshot) else { continue };
        let granted = weights(rules);
        for subject in subjects(binding) {
            if is_platform(expectations, &subject) {
                continue;
            }
            let allowed = permitted(expectations, &subject, binding.namespace());
            if allowed.contains(EVERYTHING) {
                continue;
            }
            let excess: Vec<&str> =
                granted.iter().copied().filter(|right| !allowed.contains(right)).collect();
            if !excess.is_empty() {
                findings.push(unlisted(binding, &subject, &excess));
            }
        }
    }
    findings
}

fn unlisted(binding: &Object, who: &Holder, excess: &[&str]) -> Finding {
    let Holder { kind, name, .. } = who;
    let critical = excess.iter().any(|right| [EVERYTHING, "change rights", "impersonate"].contains(right));
    let broad = *kind == SubjectKind::Group && is_broad(name) || name == "system:anonymous";
    let severity = if critical || broad { Severity::Critical } else { Severity::High };
    let role = format!(
        "{} {}",
        binding["roleRef"]["kind"].as_str().unwrap_or_default(),
        binding["roleRef"]["name"].as_str().unwrap_or_default()
    );
    let rights = excess.join(", ");
    let scope = if binding.namespace().is_empty() { " in every namespace" } else { "" };
    Finding::new(
        binding,
        UNLISTED_SUBJECT,
        severity,
        format!("{who} may {rights}{scope} by {role}, which the expectations do not list"),
        format!("remove {who} from it, or list it as a [[subject]] that may {excess:?}"),
    )
}

/// The rights that the expectations give a subject in a namespace; an empty namespace means all of them.
pub(crate) fn permitted(
    expectations: &Expectations,
    holder: &Holder,
    namespace: &str,
) -> BTreeSet<&'static str> {
    let Holder { kind, namespace: subject_namespace, name } = holder;
    let names = weight_names();
    let listed = expectations.subjects.iter().filter(|subject| {
        let Subject { namespace: of, within, .. } = subject;
        subject.kind == *kind
            && subject.name == *name
            && (*kind != SubjectKind::ServiceAccount || of.as_deref() == Some(subject_namespace))
            && (within.is_empty() || within.iter().any(|within| within == namespace))
    });
    let mut rights = BTreeSet::new();
    for subject in listed {
        if subject.may.is_empty() {
            return BTreeSet::from([EVERYTHING]);
        }
        rights.extend(names.iter().filter(|known| subject.may.iter().any(|may| may == *known)));
    }
    let teams = expectations
        .teams
        .iter()
        .filter(|team| *kind == SubjectKind::Group && team.group == *name && team.namespace == namespace);
    for team in teams {
        rights.extend(OF_A_TEAM);
        rights.extend(team.may.iter().filter_map(|text| weight_of(text)).flatten());
    }
    rights
}

/// The rights of weight behind a team's permission, such as `get secrets`.
fn weight_of(text: &str) -> Option<BTreeSet<&'static str>> {
    let permission = Permission::parse(text)?;
    let (verb, resource) = text.split_once(' ')?;
    Some(weights(&json!([
        {"apiGroups": [permission.resource.group], "resources": [resource], "verbs": [verb]}
    ])))
}

/// Compares the permissions that each team's Roles grant with those that it may have; sends no request as the team.
pub(crate) fn team_permissions(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for team in &expectations.teams {
        let identity = Identity::Group(team.group.clone());
        let granted = |text: &str, namespace: &str| granted(snapshot, &identity, text, namespace);
        for text in team.may.iter().filter(|text| granted(text, &team.namespace).is_empty()) {
            findings.push(missing(team, text));
        }
        let own = FORBIDDEN_IN_OWN_NAMESPACE.into_iter().chain(team.may_not.iter().map(String::as_str));
        let own = own.filter(|text| !team.may.iter().any(|may| may == text));
        let own = own.map(|text| (team.namespace.as_str(), text));
        let others = expectations.namespaces();
        let others = others.into_iter().filter(|namespace| *namespace != team.namespace);
        let others = others.flat_map(|namespace| {
            FORBIDDEN_IN_OTHER_NAMESPACES.into_iter().map(move |text| (namespace, text))
        });
        for (namespace, text) in own.chain(others) {
            let by = granted(text, namespace);
            if let Some(binding) = by.first() {
                findings.push(Finding::new(
                    binding,
                    TEAM_PERMISSION,
                    Severity::High,
                    format!("group {} may {text} in {namespace}", team.group),
                    "remove the rule from the role, or add the permission to the team's `may`",
                ));
            }
        }
    }
    findings
}

fn missing(team: &Team, text: &str) -> Finding {
    Finding::of(
        ObjectRef::new(Kind::Namespace, "", &team.namespace),
        TEAM_PERMISSION,
        Severity::Medium,
        format!("no Role grants group {} {text:?}", team.group),
        "add the rule to the team's Role, or remove the permission from its `may`",
    )
}

/// The bindings that grant the permission to the identity in the namespace.
fn granted<'a>(snapshot: &'a Snapshot, identity: &Identity, text: &str, namespace: &str) -> Vec<&'a Object> {
    let Some(permission) = Permission::parse(text) else { return Vec::new() };
    let roles = snapshot.within(Kind::Role, namespace).chain(snapshot.of(Kind::ClusterRole));
    let roles: Vec<Value> = roles.map(|role| role.value.clone()).collect();
    let here = snapshot.of(Kind::RoleBinding).iter().filter(|binding| binding.namespace() == namespace);
    let all = here.chain(snapshot.of(Kind::ClusterRoleBinding));
    all.filter(|binding| {
        !grants(&permission, None, identity, std::slice::from_ref(&binding.value), &roles).is_empty()
    })
    .collect()
}
