//! Compares the objects of the cluster with the expectations, by name: a table of rules over one snapshot. Reads and
//! changes nothing; tests by requests are in `checks`.

pub(crate) mod admission;
pub(crate) mod availability;
pub(crate) mod bindings;
mod endpoints;
pub(crate) mod finding;
mod issuers;
pub(crate) mod policies;
pub(crate) mod reach;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod workloads;

use crate::checks::Topic;
use crate::expectations::Expectations;
use finding::Finding;
use snapshot::{Kind, Snapshot};

/// A group of rules that one function evaluates.
pub(crate) struct Comparison {
    pub(crate) topic: Topic,
    /// The rules that the findings name.
    pub(crate) rules: &'static [Rule],
    /// The compared kinds: without one of them the comparison is inconclusive.
    pub(crate) reads: &'static [Kind],
    examine: fn(&Expectations, &Snapshot) -> Vec<Finding>,
}

/// A rule: its name, and what it requires.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: &'static str,
    pub(crate) requires: &'static str,
}

const fn rule(id: &'static str, requires: &'static str) -> Rule {
    Rule { id, requires }
}

/// The result of a comparison.
pub(crate) struct Compared {
    pub(crate) comparison: &'static Comparison,
    /// Number of compared objects.
    pub(crate) objects: usize,
    /// Why the comparison is inconclusive, if it is.
    pub(crate) unreadable: Option<String>,
    pub(crate) findings: Vec<Finding>,
    /// Findings that the expectations accept, each with its reason.
    pub(crate) accepted: Vec<(Finding, String)>,
}

pub(crate) static COMPARISONS: [Comparison; 14] = [
    Comparison {
        topic: Topic::Bindings,
        rules: &[rule(
            bindings::UNLISTED_SUBJECT,
            "no subject that the file does not list has a right of weight in the namespaces",
        )],
        reads: &[Kind::Role, Kind::RoleBinding, Kind::ClusterRole, Kind::ClusterRoleBinding],
        examine: bindings::unlisted_subjects,
    },
    Comparison {
        topic: Topic::Bindings,
        rules: &[rule(
            bindings::TEAM_PERMISSION,
            "the Roles of each team grant what it may, and nothing forbidden",
        )],
        reads: &[Kind::Role, Kind::RoleBinding, Kind::ClusterRole, Kind::ClusterRoleBinding],
        examine: bindings::team_permissions,
    },
    Comparison {
        topic: Topic::Policies,
        rules: &[
            rule(
                policies::ANY_ADDRESS,
                "no NetworkPolicy allows every address, or a block that is not listed",
            ),
            rule(policies::UNEXPECTED_CALLER, "each peer of a NetworkPolicy is a caller of a listed path"),
            rule(policies::OPEN_EGRESS, "no NetworkPolicy opens destinations outside of the cluster"),
        ],
        reads: &[Kind::NetworkPolicy, Kind::Namespace, Kind::Deployment, Kind::StatefulSet],
        examine: policies::open_rules,
    },
    Comparison {
        topic: Topic::Policies,
        rules: &[rule(
            policies::MISSING_POLICY,
            "each workload has a NetworkPolicy, and each namespace denies by default",
        )],
        reads: &[Kind::NetworkPolicy, Kind::Deployment, Kind::StatefulSet],
        examine: policies::missing,
    },
    Comparison {
        topic: Topic::Endpoints,
        rules: &[rule(
            endpoints::FOREIGN_ENDPOINT,
            "each endpoint of a Service is a pod of its listed workload",
        )],
        reads: &[
            Kind::Service,
            Kind::EndpointSlice,
            Kind::Pod,
            Kind::ReplicaSet,
            Kind::Deployment,
            Kind::StatefulSet,
        ],
        examine: endpoints::foreign_endpoints,
    },
    Comparison {
        topic: Topic::Endpoints,
        rules: &[rule(endpoints::UNLISTED_WORKLOAD, "the workloads of the namespaces are the listed ones")],
        reads: &[Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet],
        examine: endpoints::workloads,
    },
    Comparison {
        topic: Topic::Endpoints,
        rules: &[rule(
            endpoints::HOST_NETWORK,
            "no pod outside of the platform's namespaces uses the node's network",
        )],
        reads: &[Kind::Pod],
        examine: endpoints::host_network,
    },
    Comparison {
        topic: Topic::Endpoints,
        rules: &[rule(
            endpoints::EXPOSED_SERVICE,
            "no Service has externalIPs or an unlisted port on the nodes",
        )],
        reads: &[Kind::Service, Kind::Deployment, Kind::StatefulSet],
        examine: endpoints::exposed_services,
    },
    Comparison {
        topic: Topic::Settings,
        rules: &[rule(
            settings::WEAK_SETTING,
            "no setting weakens a service, and listed settings have their value",
        )],
        reads: &[Kind::Deployment, Kind::StatefulSet, Kind::ConfigMap],
        examine: settings::weak,
    },
    Comparison {
        topic: Topic::Settings,
        rules: &[rule(settings::CALLER_NAMES, "TLS_ALLOWED_CLIENTS holds the listed names only")],
        reads: &[Kind::Deployment, Kind::StatefulSet, Kind::ConfigMap],
        examine: settings::caller_names,
    },
    Comparison {
        topic: Topic::Disruption,
        rules: &[
            rule(availability::PINNED_AUTOSCALER, "autoscalers keep two pods or more of `evictions`"),
            rule(
                availability::TOO_FEW_REPLICAS,
                "workloads of `evictions` without autoscaler have two replicas",
            ),
            rule(availability::NO_BUDGET, "a PodDisruptionBudget permits one eviction at a time"),
        ],
        reads: &[
            Kind::HorizontalPodAutoscaler,
            Kind::PodDisruptionBudget,
            Kind::Deployment,
            Kind::StatefulSet,
        ],
        examine: availability::examine,
    },
    Comparison {
        topic: Topic::Admission,
        rules: &[
            rule(
                admission::AUDIT_ONLY,
                "admission policies of the file exist, are bound with Deny and fail closed",
            ),
            rule(admission::POD_SECURITY, "namespaces enforce Pod Security restricted"),
            rule(
                admission::FOREIGN_IMAGE,
                "images, image volumes and permitted images are of listed registries",
            ),
        ],
        reads: &[
            Kind::ValidatingAdmissionPolicy,
            Kind::ValidatingAdmissionPolicyBinding,
            Kind::Namespace,
            Kind::Pod,
            Kind::Deployment,
            Kind::StatefulSet,
            Kind::DaemonSet,
        ],
        examine: |expectations, snapshot| {
            let mut findings = admission::policy_findings(expectations, snapshot);
            findings.extend(admission::pod_security(expectations, snapshot));
            findings.extend(admission::images(expectations, snapshot));
            findings
        },
    },
    Comparison {
        topic: Topic::Issuers,
        rules: &[
            rule(issuers::OPEN_ISSUER, "no other subject obtains a caller's name from its issuer"),
            rule(issuers::COPIED_NAME, "no Certificate of another namespace carries a caller's name"),
        ],
        reads: &[
            Kind::ClusterIssuer,
            Kind::Certificate,
            Kind::Role,
            Kind::RoleBinding,
            Kind::ClusterRole,
            Kind::ClusterRoleBinding,
        ],
        examine: |expectations, snapshot| {
            let mut findings = issuers::open_issuers(expectations, snapshot);
            findings.extend(issuers::copied_names(expectations, snapshot));
            findings
        },
    },
    Comparison {
        topic: Topic::Routes,
        rules: &[rule(routes::WIDE_ROUTE, "Ingresses and HTTPRoutes lead to listed paths of listed hosts")],
        reads: &[Kind::Ingress, Kind::HttpRoute, Kind::Service, Kind::Deployment, Kind::StatefulSet],
        examine: routes::examine,
    },
];

/// Whether a rule of this name exists.
pub(crate) fn is_rule(id: &str) -> bool {
    COMPARISONS.iter().any(|comparison| comparison.rules.iter().any(|rule| rule.id == id))
}

/// Runs every comparison. Accepted findings are listed separately. A kind that could not be read makes its rules
/// inconclusive; findings about other objects still count.
pub(crate) fn compare(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Compared> {
    let run = |comparison: &'static Comparison| {
        let unreadable = comparison.reads.iter().filter_map(|kind| snapshot.unreadable(*kind)).next();
        let (mut findings, mut accepted) = (Vec::new(), Vec::new());
        for finding in (comparison.examine)(expectations, snapshot) {
            match expectations.acceptance(finding.rule, &finding.object.to_string()) {
                Some(reason) => accepted.push((finding, reason.to_owned())),
                None => findings.push(finding),
            }
        }
        let objects = comparison.reads.iter().map(|kind| snapshot.of(*kind).len()).sum();
        Compared { comparison, objects, unreadable: unreadable.map(str::to_owned), findings, accepted }
    };
    COMPARISONS.iter().map(run).collect()
}
