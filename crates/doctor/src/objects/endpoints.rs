//! Running pods and their Services: pods behind a Service that do not belong to its workload, workloads that the
//! expectations do not list, pods on the node's network, and Services with addresses outside of the cluster. Pure.

use super::finding::{Finding, Severity};
use super::snapshot::{Kind, Object, Snapshot, items, texts};
use super::workloads::{Deployed, LASTING, deployed, kind_of};
use crate::expectations::{ANY_SOURCE, Expectations};

pub(crate) const FOREIGN_ENDPOINT: &str = "foreign-endpoint";
pub(crate) const UNLISTED_WORKLOAD: &str = "unlisted-workload";
pub(crate) const HOST_NETWORK: &str = "host-network";
pub(crate) const EXPOSED_SERVICE: &str = "exposed-service";

/// The label that names an EndpointSlice's Service.
const SERVICE_OF: &str = "kubernetes.io/service-name";

pub(crate) fn foreign_endpoints(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let workloads: Vec<Deployed<'_>> = deployed(expectations, snapshot).collect();
    let namespaces = expectations.namespaces();
    let mut findings = Vec::new();
    let services = snapshot.of(Kind::Service).iter();
    for service in services.filter(|service| namespaces.contains(service.namespace())) {
        let behind: Vec<Deployed<'_>> =
            workloads.iter().copied().filter(|workload| workload.is_behind(service)).collect();
        let slices = snapshot.within(Kind::EndpointSlice, service.namespace());
        let slices = slices.filter(|slice| slice.labels()[SERVICE_OF] == *service.name());
        for endpoint in slices.flat_map(|slice| items(&slice["endpoints"])) {
            let target = &endpoint["targetRef"];
            let name = target["name"].as_str().filter(|_| target["kind"] == "Pod");
            let pod = name.and_then(|name| snapshot.find(Kind::Pod, service.namespace(), name));
            let problem = match (name, pod) {
                (None, _) => {
                    let address = texts(&endpoint["addresses"]).next().unwrap_or("an address");
                    Some(format!("it routes to {address}, which is no pod"))
                }
                // The pod disappeared between the two lists.
                (Some(_), None) => None,
                (Some(name), Some(pod)) if !behind.iter().any(|workload| workload.owns(pod, snapshot)) => {
                    Some(format!("it routes to pod {name} of {}", owner(pod, snapshot)))
                }
                _ => None,
            };
            findings.extend(problem.map(|problem| foreign(service, &behind, &problem)));
        }
    }
    findings
}

fn foreign(service: &Object, behind: &[Deployed<'_>], problem: &str) -> Finding {
    let expected: Vec<&str> = behind.iter().map(|workload| workload.expected.name.as_str()).collect();
    let expected = if expected.is_empty() { "no listed workload".to_owned() } else { expected.join(", ") };
    Finding::new(
        service,
        FOREIGN_ENDPOINT,
        Severity::High,
        format!("{problem}; expected is {expected}"),
        "remove the Service's labels from the other pods, or list their workload",
    )
}

/// The object that created a pod, as `Deployment payments-2`.
fn owner(pod: &Object, snapshot: &Snapshot) -> String {
    let first = |object: &Object| {
        let owner = items(&object["metadata"]["ownerReferences"]).next()?;
        Some((owner["kind"].as_str()?.to_owned(), owner["name"].as_str()?.to_owned()))
    };
    match first(pod) {
        None => "no workload".to_owned(),
        Some((kind, name)) if kind == "ReplicaSet" => {
            let set = snapshot.find(Kind::ReplicaSet, pod.namespace(), &name);
            let (kind, name) = set.and_then(first).unwrap_or((kind, name));
            format!("{kind} {name}")
        }
        Some((kind, name)) => format!("{kind} {name}"),
    }
}

pub(crate) fn workloads(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let namespaces = expectations.namespaces();
    let lasting = LASTING.iter().flat_map(|kind| snapshot.of(*kind));
    let unlisted = lasting.filter(|object| namespaces.contains(object.namespace())).filter(|object| {
        !expectations.workloads.iter().any(|workload| {
            kind_of(workload) == object.kind
                && workload.namespace == object.namespace()
                && workload.name == object.name()
        })
    });
    let unlisted = unlisted.map(|object| {
        Finding::new(
            object,
            UNLISTED_WORKLOAD,
            Severity::Medium,
            "the expectations do not list it",
            "delete it, or list it as a [[workload]]",
        )
    });
    let missing = expectations
        .workloads
        .iter()
        .filter(|workload| snapshot.find(kind_of(workload), &workload.namespace, &workload.name).is_none());
    let missing = missing.map(|workload| {
        Finding::of(
            super::finding::ObjectRef::new(kind_of(workload), &workload.namespace, &workload.name),
            UNLISTED_WORKLOAD,
            Severity::Medium,
            "the expectations list it, and it does not exist",
            "deploy it, or remove it from the expectations",
        )
    });
    unlisted.chain(missing).collect()
}

/// Pods on the node's network, to which no NetworkPolicy applies in any namespace.
pub(crate) fn host_network(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let namespaces = expectations.namespaces();
    let pods = snapshot.of(Kind::Pod).iter();
    let open = pods.filter(|pod| {
        pod["spec"]["hostNetwork"] == true
            && !expectations.platform.iter().any(|namespace| namespace == pod.namespace())
    });
    open.map(|pod| {
        let here = namespaces.contains(pod.namespace());
        Finding::new(
            pod,
            HOST_NETWORK,
            if here { Severity::Critical } else { Severity::High },
            format!("it runs on the network of node {}, where no NetworkPolicy applies to it",
                pod["spec"]["nodeName"].as_str().unwrap_or("(none yet)")),
            "remove hostNetwork and enforce Pod Security in its namespace, or list the namespace in `platform`",
        )
    })
    .collect()
}

/// Services with externalIPs, which capture traffic of the whole cluster for an address; NodePorts and load balancers,
/// which are reachable from outside.
pub(crate) fn exposed_services(expectations: &Expectations, snapshot: &Snapshot) -> Vec<Finding> {
    let namespaces = expectations.namespaces();
    let workloads: Vec<Deployed<'_>> = deployed(expectations, snapshot).collect();
    let mut findings = Vec::new();
    for service in snapshot.of(Kind::Service) {
        let spec = &service["spec"];
        let external: Vec<&str> = texts(&spec["externalIPs"]).collect();
        let platform = expectations.platform.iter().any(|namespace| namespace == service.namespace());
        if !external.is_empty() && !platform {
            findings.push(Finding::new(
                service,
                EXPOSED_SERVICE,
                Severity::High,
                format!("its externalIPs take the cluster's traffic for {}", external.join(", ")),
                "remove externalIPs, and refuse the field by an admission policy",
            ));
        }
        let outside = matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"));
        if outside && namespaces.contains(service.namespace()) {
            findings.extend(unlisted_exposure(expectations, service, &workloads));
        }
    }
    findings
}

fn unlisted_exposure(
    expectations: &Expectations,
    service: &Object,
    workloads: &[Deployed<'_>],
) -> Option<Finding> {
    let behind = workloads.iter().filter(|workload| workload.is_behind(service));
    let open = |workload: &Deployed<'_>, target: u16| {
        expectations
            .paths
            .iter()
            .any(|path| path.from == ANY_SOURCE && path.to == workload.expected.name && path.port == target)
    };
    let targets = |workload: &Deployed<'_>| -> Vec<u16> {
        let ports = workload.ports();
        let resolve = |entry: &serde_json::Value| {
            let target = if entry["targetPort"].is_null() { &entry["port"] } else { &entry["targetPort"] };
            let named = ports.iter().find(|(name, _)| Some(*name) == target.as_str()).map(|(_, port)| *port);
            named.or_else(|| u16::try_from(target.as_u64()?).ok())
        };
        items(&service["spec"]["ports"]).filter_map(resolve).collect()
    };
    let behind: Vec<&Deployed<'_>> = behind.collect();
    let listed = !behind.is_empty()
        && behind.iter().all(|workload| targets(workload).into_iter().all(|target| open(workload, target)));
    let kind = service["spec"]["type"].as_str().unwrap_or_default();
    (!listed).then(|| {
        Finding::new(
            service,
            EXPOSED_SERVICE,
            Severity::High,
            format!("its type {kind} opens a port to callers outside of the cluster"),
            format!("use ClusterIP, or list a [[path]] from {ANY_SOURCE} to each of its ports"),
        )
    })
}
