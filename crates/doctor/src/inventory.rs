//! The deployed state of an environment: workloads with their pods, ports, Services and policies, read from the API
//! server's objects. Only reads; does not know what is allowed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::Value;

use crate::expectations::{
    Expectations, FORBIDDEN_IN_OTHER_NAMESPACES, FORBIDDEN_IN_OWN_NAMESPACE, Kind, Workload,
};
use crate::kube::KubeClient;
use crate::rbac::Permission;

#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) workloads: Vec<DeployedWorkload>,
    /// Labels of the existing namespaces.
    pub(crate) namespaces: BTreeMap<String, Value>,
    /// All NetworkPolicies of the environment's namespaces.
    pub(crate) policies: Vec<Value>,
    /// Namespace and name of each Secret.
    pub(crate) secrets: Vec<(String, String)>,
    /// The name of an existing object by namespace and resource, for requests that must name one.
    pub(crate) objects: BTreeMap<(String, &'static str), String>,
    /// Addresses of the API server's Service.
    pub(crate) api_server: Vec<String>,
    pub(crate) listeners: Listeners,
}

/// Addresses of the doctor's listener pods; a NetworkPolicy of the doctor closes the second pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) open: Vec<String>,
    pub(crate) closed: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct DeployedWorkload {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) replicas: u64,
    /// The pod template, which probes copy.
    pub(crate) template: Value,
    pub(crate) selector: Value,
    pub(crate) ports: Vec<u16>,
    /// The port of the readiness probe.
    pub(crate) readiness_port: Option<u16>,
    /// Name and addresses of a ready pod.
    pub(crate) pod: Option<(String, Vec<String>)>,
    pub(crate) services: Vec<Service>,
    /// Whether the workload may use DNS.
    pub(crate) dns: bool,
    /// The name of the workload's expected NetworkPolicy.
    pub(crate) policy: Option<String>,
}

/// A port of a Service in front of a workload.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) port: u16,
    /// The port of the pods behind the Service.
    pub(crate) target: u16,
}

impl Inventory {
    pub(crate) async fn collect(kube: &KubeClient, expectations: &Expectations) -> anyhow::Result<Self> {
        let mut inventory = Self::default();
        for namespace in kube.list("/api/v1/namespaces").await? {
            let name = text(&namespace["metadata"]["name"]);
            inventory.namespaces.insert(name, namespace["metadata"]["labels"].clone());
        }
        for workload in &expectations.workloads {
            inventory.workloads.push(deployed_workload(kube, workload).await?);
        }
        for namespace in expectations.namespaces() {
            inventory.collect_namespace(kube, expectations, namespace).await?;
        }
        let service = kube.get("/api/v1/namespaces/default/services/kubernetes").await?;
        inventory.api_server = addresses(&service["spec"]["clusterIPs"]);
        Ok(inventory)
    }

    async fn collect_namespace(
        &mut self,
        kube: &KubeClient,
        expectations: &Expectations,
        namespace: &str,
    ) -> anyhow::Result<()> {
        let policies = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
        self.policies.extend(kube.list(&policies).await?);
        for secret in kube.list(&format!("/api/v1/namespaces/{namespace}/secrets")).await? {
            self.secrets.push((namespace.to_owned(), text(&secret["metadata"]["name"])));
        }
        let teams = expectations.teams.iter().flat_map(|team| team.may.iter().chain(&team.may_not));
        let permissions = teams.map(String::as_str);
        let permissions = permissions.chain(FORBIDDEN_IN_OWN_NAMESPACE).chain(FORBIDDEN_IN_OTHER_NAMESPACES);
        let resources: BTreeMap<_, _> = permissions
            .filter_map(Permission::parse)
            .map(|permission| (permission.resource.plural, permission.resource))
            .collect();
        for (plural, resource) in resources {
            let first = kube.list(&format!("{}?limit=1", resource.path(namespace))).await?;
            if let Some(object) = first.first() {
                self.objects.insert((namespace.to_owned(), plural), text(&object["metadata"]["name"]));
            }
        }
        Ok(())
    }

    pub(crate) fn workload(&self, name: &str) -> Option<&DeployedWorkload> {
        self.workloads.iter().find(|deployed| deployed.name == name)
    }

    /// The message for an expected policy that does not exist.
    pub(crate) fn missing_policy(&self, deployed: &DeployedWorkload) -> Option<String> {
        let name = deployed.policy.as_deref()?;
        let is_expected = |policy: &&Value| {
            policy["metadata"]["namespace"] == *deployed.namespace && policy["metadata"]["name"] == *name
        };
        let missing = self.policies.iter().find(is_expected).is_none();
        missing.then(|| format!("networkpolicy {}/{name} does not exist", deployed.namespace))
    }

    /// Names of the policies that select pods with these labels, in this direction.
    pub(crate) fn policies_of(&self, namespace: &str, labels: &Value, direction: &str) -> Vec<String> {
        let here = self.policies.iter().filter(|policy| policy["metadata"]["namespace"] == namespace);
        let of = here.filter(|policy| {
            let types = policy["spec"]["policyTypes"].as_array();
            types.is_some_and(|types| types.iter().any(|kind| kind == direction))
                && selects(&policy["spec"]["podSelector"], labels)
        });
        of.map(|policy| format!("networkpolicy {namespace}/{}", text(&policy["metadata"]["name"]))).collect()
    }

    /// The address families of the pods.
    pub(crate) fn families(&self) -> BTreeSet<&'static str> {
        let pods =
            self.workloads.iter().filter_map(|deployed| deployed.pod.as_ref()).flat_map(|(_, ips)| ips);
        let all = pods.chain(&self.listeners.open);
        all.map(|address| if address.contains(':') { "IPv6" } else { "IPv4" }).collect()
    }
}

async fn deployed_workload(kube: &KubeClient, workload: &Workload) -> anyhow::Result<DeployedWorkload> {
    let Workload { name, namespace, kind, .. } = workload;
    let plural = match kind {
        Kind::Deployment => "deployments",
        Kind::StatefulSet => "statefulsets",
    };
    let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}/{name}");
    let object = kube.get(&path).await.context("the workload of the expectations file is not deployed")?;
    let pods = kube.list(&format!("/api/v1/namespaces/{namespace}/pods")).await?;
    let services = kube.list(&format!("/api/v1/namespaces/{namespace}/services")).await?;
    Ok(assemble(workload, &object, &pods, &services))
}

/// Assembles a workload from its API objects.
fn assemble(workload: &Workload, object: &Value, pods: &[Value], services: &[Value]) -> DeployedWorkload {
    let template = object["spec"]["template"].clone();
    let selector = object["spec"]["selector"].clone();
    let container = &template["spec"]["containers"][0];
    let ports = container["ports"].as_array().into_iter().flatten();
    let ports: Vec<u16> = ports.filter_map(|port| to_port(&port["containerPort"])).collect();
    let probe = &container["readinessProbe"];
    let handler = ["httpGet", "tcpSocket", "grpc"].into_iter().find(|handler| !probe[handler].is_null());
    let readiness_port = handler.and_then(|handler| resolve(&probe[handler]["port"], container));
    let own_pods = pods.iter().filter(|pod| selects(&selector, &pod["metadata"]["labels"]));
    let ready = own_pods.into_iter().find(|pod| is_ready(pod));
    let pod = ready.map(|pod| {
        let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
        (text(&pod["metadata"]["name"]), ips.map(|ip| text(&ip["ip"])).collect())
    });
    let labels = &template["metadata"]["labels"];
    let selecting = services.iter().filter(|service| {
        let chosen = service["spec"]["selector"].as_object();
        chosen.is_some_and(|chosen| {
            !chosen.is_empty() && chosen.iter().all(|(key, value)| labels[key] == *value)
        })
    });
    let services = selecting.flat_map(|service| service_ports(service, container)).collect();
    let account = template["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
    let replicas = object["status"]["replicas"].as_u64().unwrap_or(0);
    let (name, namespace) = (workload.name.clone(), workload.namespace.clone());
    let (dns, policy) = (workload.dns, workload.policy.clone());
    DeployedWorkload {
        name,
        namespace,
        account,
        replicas,
        template,
        selector,
        ports,
        readiness_port,
        pod,
        services,
        dns,
        policy,
    }
}

fn service_ports(service: &Value, container: &Value) -> Vec<Service> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let deployed = ports.filter_map(|entry| {
        let port = to_port(&entry["port"])?;
        let target = resolve(&entry["targetPort"], container).unwrap_or(port);
        let addresses = addresses(&service["spec"]["clusterIPs"]);
        Some(Service { name: text(&service["metadata"]["name"]), addresses, port, target })
    });
    deployed.filter(|service| !service.addresses.is_empty()).collect()
}

/// Resolves a port by number, or by name in the container.
fn resolve(port: &Value, container: &Value) -> Option<u16> {
    to_port(port).or_else(|| {
        let ports = container["ports"].as_array()?;
        to_port(
            &ports.iter().find(|candidate| candidate["name"] == *port && !port.is_null())?["containerPort"],
        )
    })
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Whether a label selector matches these labels. An empty selector matches all.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object();
    let equal = equal.is_none_or(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value));
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    equal
        && expressions.into_iter().all(|expression| {
            let label = &labels[expression["key"].as_str().unwrap_or_default()];
            let values = expression["values"].as_array();
            let listed = values.is_some_and(|values| values.contains(label));
            match expression["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => !label.is_null(),
                _ => label.is_null(),
            }
        })
}

fn to_port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

/// The cluster IPs of a Service, without the `None` of a headless Service.
fn addresses(ips: &Value) -> Vec<String> {
    let ips = ips.as_array().into_iter().flatten().filter_map(Value::as_str);
    ips.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned).collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_workload_is_assembled_from_its_objects() {
        let workload = Workload {
            name: "payments".into(),
            namespace: "two".into(),
            kind: Kind::Deployment,
            dns: true,
            policy: None,
            open_egress: false,
            clients: Vec::new(),
        };
        let labels = json!({"app": "payments"});
        let container = json!({"ports": [{"name": "business", "containerPort": 9000},
            {"name": "admin", "containerPort": 9001}], "readinessProbe": {"httpGet": {"port": "admin"}}});
        let object = json!({"spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [container]}}}});
        let pod = |name: &str, ready: &str| {
            json!({"metadata": {"name": name, "labels": labels}, "status": {
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let service = json!({"metadata": {"name": "payments-service"}, "spec": {"selector": labels,
            "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "targetPort": "business"}]}});
        let headless = json!({"metadata": {"name": "h"}, "spec": {"selector": labels, "clusterIPs": ["None"],
            "ports": [{"port": 9001}]}});
        let deployed =
            assemble(&workload, &object, &[pod("a", "False"), pod("b", "True")], &[service, headless]);
        assert_eq!((deployed.ports, deployed.readiness_port), (vec![9000, 9001], Some(9001)));
        assert_eq!(deployed.pod, Some(("b".into(), vec!["10.0.0.1".into(), "fd00::1".into()])));
        assert_eq!(deployed.services.len(), 1, "a headless Service has no cluster IP");
        assert_eq!((deployed.services[0].port, deployed.services[0].target), (80, 9000));
    }

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let labels = json!({"app": "x", "tier": "back"});
        for (selector, matches) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "x"}}), true),
            (json!({"matchLabels": {"app": "y"}}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}), true),
        ] {
            assert_eq!(selects(&selector, &labels), matches, "{selector}");
        }
    }
}
