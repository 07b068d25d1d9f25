//! The expected workloads as deployed objects: their selector, labels, declared ports and pods. Used by the rules;
//! finds nothing itself.

use serde_json::Value;

use super::snapshot::{Kind, Object, Snapshot, items};
use crate::expectations::{self, Expectations, Workload};
use crate::inventory::selects;

/// An expected workload and its object.
#[derive(Clone, Copy)]
pub(crate) struct Deployed<'a> {
    pub(crate) expected: &'a Workload,
    pub(crate) object: &'a Object,
}

/// Kinds that create long-running pods.
pub(crate) const LASTING: [Kind; 3] = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];

pub(crate) fn kind_of(workload: &Workload) -> Kind {
    match workload.kind {
        expectations::Kind::Deployment => Kind::Deployment,
        expectations::Kind::StatefulSet => Kind::StatefulSet,
    }
}

/// The expected workloads that exist.
pub(crate) fn deployed<'a>(
    expectations: &'a Expectations,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = Deployed<'a>> {
    expectations.workloads.iter().filter_map(|expected| {
        let object = snapshot.find(kind_of(expected), &expected.namespace, &expected.name)?;
        Some(Deployed { expected, object })
    })
}

impl<'a> Deployed<'a> {
    pub(crate) fn labels(self) -> &'a Value {
        &self.object["spec"]["template"]["metadata"]["labels"]
    }

    pub(crate) fn containers(self) -> impl Iterator<Item = &'a Value> {
        items(&self.object.pod_spec()["containers"])
    }

    /// Declared ports: name and number.
    pub(crate) fn ports(self) -> Vec<(&'a str, u16)> {
        let ports = self.containers().flat_map(|container| items(&container["ports"]));
        let numbered = ports.filter_map(|port| {
            let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
            Some((port["name"].as_str().unwrap_or_default(), number))
        });
        numbered.collect()
    }

    pub(crate) fn is_selected(self, namespace: &str, selector: &Value) -> bool {
        self.expected.namespace == namespace && selects(selector, self.labels())
    }

    /// Whether a Service's plain selector selects its pods.
    pub(crate) fn is_behind(self, service: &Object) -> bool {
        let chosen = service["spec"]["selector"].as_object();
        self.expected.namespace == service.namespace()
            && chosen.is_some_and(|chosen| {
                !chosen.is_empty() && chosen.iter().all(|(key, value)| self.labels()[key] == *value)
            })
    }

    /// Whether this workload's own object created the pod; labels alone can be copied.
    pub(crate) fn owns(self, pod: &Object, snapshot: &Snapshot) -> bool {
        let owner = |object: &Object, kind: Kind, name: &str| {
            items(&object["metadata"]["ownerReferences"])
                .any(|owner| owner["kind"] == kind.name() && owner["name"] == *name)
        };
        let (namespace, name) = (self.object.namespace(), self.object.name());
        pod.namespace() == namespace
            && (owner(pod, self.object.kind, name)
                || snapshot.within(Kind::ReplicaSet, namespace).any(|set| {
                    owner(set, Kind::Deployment, name)
                        && self.object.kind == Kind::Deployment
                        && owner(pod, Kind::ReplicaSet, set.name())
                }))
    }
}
