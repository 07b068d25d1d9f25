//! The objects of a cluster by kind, as read once. The only place that reads them for the comparison; it lists and
//! changes nothing. Does not know what is allowed.

use std::collections::BTreeMap;
use std::ops::Index;

use http::Method;
use serde_json::Value;

use super::finding::ObjectRef;
use crate::kube::{Identity, KubeClient};

/// Objects per page: a complete list of all pods of a large cluster would exceed the maximum size of a response.
const PAGE: usize = 500;
/// Maximum number of pages of one kind.
const PAGES_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Certificate,
    ClusterIssuer,
    ClusterRole,
    ClusterRoleBinding,
    ConfigMap,
    DaemonSet,
    Deployment,
    EndpointSlice,
    HorizontalPodAutoscaler,
    HttpRoute,
    Ingress,
    Issuer,
    Namespace,
    NetworkPolicy,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    Role,
    RoleBinding,
    Service,
    StatefulSet,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
}

/// The namespaces in which the objects of a kind are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All namespaces: an object elsewhere may open this environment.
    Everywhere,
    /// The namespaces of the environment.
    Environment,
}

impl Kind {
    pub(crate) const ALL: [Self; 23] = [
        Self::Certificate,
        Self::ClusterIssuer,
        Self::ClusterRole,
        Self::ClusterRoleBinding,
        Self::ConfigMap,
        Self::DaemonSet,
        Self::Deployment,
        Self::EndpointSlice,
        Self::HorizontalPodAutoscaler,
        Self::HttpRoute,
        Self::Ingress,
        Self::Issuer,
        Self::Namespace,
        Self::NetworkPolicy,
        Self::Pod,
        Self::PodDisruptionBudget,
        Self::ReplicaSet,
        Self::Role,
        Self::RoleBinding,
        Self::Service,
        Self::StatefulSet,
        Self::ValidatingAdmissionPolicy,
        Self::ValidatingAdmissionPolicyBinding,
    ];

    /// Kind, group with version, plural, and scope.
    fn row(self) -> (&'static str, &'static str, &'static str, Scope) {
        use Scope::{Environment, Everywhere};
        const RBAC: &str = "rbac.authorization.k8s.io/v1";
        const ADMISSION: &str = "admissionregistration.k8s.io/v1";
        const CERTIFICATES: &str = "cert-manager.io/v1";
        match self {
            Self::Certificate => ("Certificate", CERTIFICATES, "certificates", Everywhere),
            Self::ClusterIssuer => ("ClusterIssuer", CERTIFICATES, "clusterissuers", Everywhere),
            Self::ClusterRole => ("ClusterRole", RBAC, "clusterroles", Everywhere),
            Self::ClusterRoleBinding => ("ClusterRoleBinding", RBAC, "clusterrolebindings", Everywhere),
            Self::ConfigMap => ("ConfigMap", "v1", "configmaps", Environment),
            Self::DaemonSet => ("DaemonSet", "apps/v1", "daemonsets", Environment),
            Self::Deployment => ("Deployment", "apps/v1", "deployments", Environment),
            Self::EndpointSlice => ("EndpointSlice", "discovery.k8s.io/v1", "endpointslices", Environment),
            Self::HorizontalPodAutoscaler => {
                ("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers", Environment)
            }
            Self::HttpRoute => ("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes", Environment),
            Self::Ingress => ("Ingress", "networking.k8s.io/v1", "ingresses", Environment),
            Self::Issuer => ("Issuer", CERTIFICATES, "issuers", Environment),
            Self::Namespace => ("Namespace", "v1", "namespaces", Everywhere),
            Self::NetworkPolicy => ("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", Environment),
            Self::Pod => ("Pod", "v1", "pods", Everywhere),
            Self::PodDisruptionBudget => {
                ("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", Environment)
            }
            Self::ReplicaSet => ("ReplicaSet", "apps/v1", "replicasets", Environment),
            Self::Role => ("Role", RBAC, "roles", Everywhere),
            Self::RoleBinding => ("RoleBinding", RBAC, "rolebindings", Everywhere),
            Self::Service => ("Service", "v1", "services", Everywhere),
            Self::StatefulSet => ("StatefulSet", "apps/v1", "statefulsets", Environment),
            Self::ValidatingAdmissionPolicy => {
                ("ValidatingAdmissionPolicy", ADMISSION, "validatingadmissionpolicies", Everywhere)
            }
            Self::ValidatingAdmissionPolicyBinding => (
                "ValidatingAdmissionPolicyBinding",
                ADMISSION,
                "validatingadmissionpolicybindings",
                Everywhere,
            ),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.row().0
    }

    pub(crate) fn api_version(self) -> &'static str {
        self.row().1
    }

    #[cfg(test)]
    pub(crate) fn plural(self) -> &'static str {
        self.row().2
    }

    fn paths(self, namespaces: &[&str]) -> Vec<String> {
        let (_, version, plural, scope) = self.row();
        let root = if version.contains('/') { "apis" } else { "api" };
        match scope {
            Scope::Everywhere => vec![format!("/{root}/{version}/{plural}")],
            Scope::Environment => {
                let of = |namespace| format!("/{root}/{version}/namespaces/{namespace}/{plural}");
                namespaces.iter().map(of).collect()
            }
        }
    }
}

/// One object, as the API server returned it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) value: Value,
}

impl Object {
    /// An object with its kind: the items of a list carry none, but RBAC's references compare it.
    pub(crate) fn new(kind: Kind, mut value: Value) -> Self {
        value["kind"] = Value::from(kind.name());
        Self { kind, value }
    }

    pub(crate) fn name(&self) -> &str {
        self["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace; empty for an object without one.
    pub(crate) fn namespace(&self) -> &str {
        self["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    pub(crate) fn labels(&self) -> &Value {
        &self["metadata"]["labels"]
    }

    pub(crate) fn reference(&self) -> ObjectRef {
        ObjectRef::new(self.kind, self.namespace(), self.name())
    }

    /// The spec of a pod, or of a workload's template.
    pub(crate) fn pod_spec(&self) -> &Value {
        if self.kind == Kind::Pod { &self["spec"] } else { &self["spec"]["template"]["spec"] }
    }
}

impl Index<&str> for Object {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.value[field]
    }
}

/// The elements of a list; none when the field is absent.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The texts of a list.
pub(crate) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    objects: BTreeMap<Kind, Vec<Object>>,
    /// Kinds that could not be read, with the reason.
    unreadable: BTreeMap<Kind, String>,
}

impl Snapshot {
    /// Lists every kind. A kind that cannot be read is recorded, so that its rules are inconclusive and not green.
    pub(crate) async fn read(kube: &KubeClient, namespaces: &[&str]) -> anyhow::Result<Self> {
        let mut snapshot = Self::default();
        for kind in Kind::ALL {
            for path in kind.paths(namespaces) {
                match read_pages(kube, &path).await? {
                    Ok(values) => snapshot.add(kind, values),
                    Err(reason) => {
                        snapshot.unreadable.insert(kind, reason);
                    }
                }
            }
        }
        Ok(snapshot)
    }

    pub(crate) fn add(&mut self, kind: Kind, values: Vec<Value>) {
        let objects = values.into_iter().map(|value| Object::new(kind, value));
        self.objects.entry(kind).or_default().extend(objects);
    }

    pub(crate) fn of(&self, kind: Kind) -> &[Object] {
        self.objects.get(&kind).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn within<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
        self.of(kind).iter().filter(move |object| object.namespace() == namespace)
    }

    pub(crate) fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.of(kind).iter().find(|object| object.namespace() == namespace && object.name() == name)
    }

    pub(crate) fn unreadable(&self, kind: Kind) -> Option<&str> {
        self.unreadable.get(&kind).map(String::as_str)
    }

    #[cfg(test)]
    pub(crate) fn objects_mut(&mut self, kind: Kind) -> &mut Vec<Object> {
        self.objects.entry(kind).or_default()
    }

    #[cfg(test)]
    pub(crate) fn refuse(&mut self, kind: Kind, reason: &str) {
        self.objects.remove(&kind);
        self.unreadable.insert(kind, reason.to_owned());
    }
}

/// All pages of a list; empty for a kind that the cluster does not know. The inner error is the API server's refusal.
async fn read_pages(kube: &KubeClient, path: &str) -> anyhow::Result<Result<Vec<Value>, String>> {
    let (mut values, mut next) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let page = format!("{path}?limit={PAGE}{next}");
        let mut response = kube.call(&Identity::Doctor, Method::GET, &page, None).await?;
        match response.status {
            200 => {}
            404 => return Ok(Ok(values)),
            status => return Ok(Err(format!("GET {path}: {status} {}", response.message()))),
        }
        if let Some(page) = response.body["items"].as_array_mut() {
            values.append(page);
        }
        match response.body["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = format!("&continue={token}"),
            _ => return Ok(Ok(values)),
        }
    }
    Ok(Err(format!("GET {path}: more than {} objects", PAGE * PAGES_MAX)))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The verbs of each group and resource in a manifest with lists in brackets.
    fn rights(manifest: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
        let list = |line: &str, field: &str| {
            let inner = line.trim().trim_start_matches("- ").strip_prefix(field)?.trim();
            let inner = inner.strip_prefix('[')?.split(']').next()?;
            Some(inner.split(", ").map(|item| item.trim_matches('"').to_owned()).collect::<Vec<_>>())
        };
        let (mut groups, mut resources) = (Vec::new(), Vec::new());
        let mut rights: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for line in manifest.lines() {
            groups = list(line, "apiGroups:").unwrap_or(groups);
            resources = list(line, "resources:").unwrap_or(resources);
            for verb in list(line, "verbs:").unwrap_or_default() {
                for group in &groups {
                    for resource in &resources {
                        rights.entry((group.clone(), resource.clone())).or_default().insert(verb.clone());
                    }
                }
            }
        }
        rights
    }

    fn read() -> BTreeSet<(String, String)> {
        let group = |kind: Kind| kind.api_version().split_once('/').map_or("", |(group, _)| group).to_owned();
        Kind::ALL.iter().map(|kind| (group(*kind), kind.plural().to_owned())).collect()
    }

    #[test]
    fn the_read_only_role_lists_what_is_read_and_grants_no_other_right() {
        let rights = rights(include_str!("../../../../deploy/doctor/read-only.yaml"));
        assert_eq!(rights.keys().cloned().collect::<BTreeSet<_>>(), read());
        for (resource, verbs) in &rights {
            assert_eq!(verbs.iter().collect::<Vec<_>>(), ["get", "list"], "{resource:?}");
        }
    }

    #[test]
    fn the_job_may_list_what_is_read() {
        let rights = rights(include_str!("../../../../deploy/doctor/job.yaml"));
        for resource in read() {
            assert!(rights.get(&resource).is_some_and(|verbs| verbs.contains("list")), "{resource:?}");
        }
    }
}
