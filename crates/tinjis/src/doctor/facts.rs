//! What runs in the environment: workloads with their pods, ports, Services and policies, read from the API server's
//! objects. Reads only; knows nothing of what is allowed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::Value;

use super::expect::{Expectations, Kind, Workload};
use super::kube::Kube;
use super::rbac::Deed;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) workloads: Vec<Found>,
    /// Namespaces that exist, with their labels.
    pub(super) namespaces: BTreeMap<String, Value>,
    /// Every NetworkPolicy of the environment's namespaces.
    pub(super) policies: Vec<Value>,
    /// Names of all Secrets, by namespace.
    pub(super) secrets: Vec<(String, String)>,
    /// One object of a namespace and a resource, for requests that need a real one.
    pub(super) objects: BTreeMap<(String, &'static str), String>,
    /// Addresses of the API server's Service.
    pub(super) api_server: Vec<String>,
    /// Addresses of the doctor's own listeners: one that all may reach, one that its own policy closes.
    pub(super) listeners: Listeners,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    pub(super) open: Vec<String>,
    pub(super) closed: Vec<String>,
}

/// One workload.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) replicas: u64,
    /// The pod template, from which a pod in its place is made.
    pub(super) template: Value,
    pub(super) selector: Value,
    pub(super) ports: Vec<u16>,
    /// The port that the kubelet asks for readiness.
    pub(super) asked: Option<u16>,
    /// A pod that is ready, with its addresses.
    pub(super) pod: Option<(String, Vec<String>)>,
    pub(super) services: Vec<Service>,
    /// Whether it may ask for names.
    pub(super) names: bool,
    /// Name of the policy that it should have.
    pub(super) policy: Option<String>,
}

/// A port of a Service in front of a workload.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    pub(super) port: u16,
    /// The port of the pods behind it.
    pub(super) target: u16,
}

impl Facts {
    pub(super) async fn look(kube: &Kube, expectations: &Expectations) -> anyhow::Result<Self> {
        let mut facts = Self::default();
        for namespace in kube.list("/api/v1/namespaces").await? {
            let name = text(&namespace["metadata"]["name"]);
            facts.namespaces.insert(name, namespace["metadata"]["labels"].clone());
        }
        for workload in &expectations.workloads {
            facts.workloads.push(found(kube, workload).await?);
        }
        for namespace in expectations.namespaces() {
            facts.look_into(kube, expectations, namespace).await?;
        }
        let service = kube.get("/api/v1/namespaces/default/services/kubernetes").await?;
        facts.api_server = addresses(&service["spec"]["clusterIPs"]);
        Ok(facts)
    }

    async fn look_into(
        &mut self,
        kube: &Kube,
        expectations: &Expectations,
        namespace: &str,
    ) -> anyhow::Result<()> {
        let policies = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
        self.policies.extend(kube.list(&policies).await?);
        for secret in kube.list(&format!("/api/v1/namespaces/{namespace}/secrets")).await? {
            self.secrets.push((namespace.to_owned(), text(&secret["metadata"]["name"])));
        }
        let teams = expectations.teams.iter().flat_map(|team| team.may.iter().chain(&team.may_not));
        let words = teams.map(String::as_str);
        let words = words.chain(super::expect::OWN_FORBIDDEN).chain(super::expect::OTHERS_FORBIDDEN);
        let resources: BTreeMap<_, _> =
            words.filter_map(Deed::parse).map(|deed| (deed.resource.plural, deed.resource)).collect();
        for (plural, resource) in resources {
            let first = kube.list(&format!("{}?limit=1", resource.path(namespace))).await?;
            if let Some(object) = first.first() {
                self.objects.insert((namespace.to_owned(), plural), text(&object["metadata"]["name"]));
            }
        }
        Ok(())
    }

    pub(super) fn workload(&self, name: &str) -> Option<&Found> {
        self.workloads.iter().find(|found| found.name == name)
    }

    /// The policy that a workload should have and that is not there.
    pub(super) fn missing_policy(&self, found: &Found) -> Option<String> {
        let name = found.policy.as_deref()?;
        let is_it = |policy: &&Value| {
            policy["metadata"]["namespace"] == *found.namespace && policy["metadata"]["name"] == *name
        };
        let missing = self.policies.iter().find(is_it).is_none();
        missing.then(|| format!("networkpolicy {}/{name} is not there", found.namespace))
    }

    /// Names of the policies that select pods with these labels, in this direction.
    pub(super) fn policies_of(&self, namespace: &str, labels: &Value, direction: &str) -> Vec<String> {
        let here = self.policies.iter().filter(|policy| policy["metadata"]["namespace"] == namespace);
        let of = here.filter(|policy| {
            let types = policy["spec"]["policyTypes"].as_array();
            types.is_some_and(|types| types.iter().any(|kind| kind == direction))
                && selects(&policy["spec"]["podSelector"], labels)
        });
        of.map(|policy| format!("networkpolicy {namespace}/{}", text(&policy["metadata"]["name"]))).collect()
    }

    /// Which address families there are.
    pub(super) fn families(&self) -> BTreeSet<&'static str> {
        let pods = self.workloads.iter().filter_map(|found| found.pod.as_ref()).flat_map(|(_, ips)| ips);
        let all = pods.chain(&self.listeners.open);
        all.map(|address| if address.contains(':') { "IPv6" } else { "IPv4" }).collect()
    }
}

async fn found(kube: &Kube, workload: &Workload) -> anyhow::Result<Found> {
    let Workload { name, namespace, kind, .. } = workload;
    let plural = match kind {
        Kind::Deployment => "deployments",
        Kind::StatefulSet => "statefulsets",
    };
    let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}/{name}");
    let object = kube.get(&path).await.context("not deployed, or not as its file says")?;
    let pods = kube.list(&format!("/api/v1/namespaces/{namespace}/pods")).await?;
    let services = kube.list(&format!("/api/v1/namespaces/{namespace}/services")).await?;
    Ok(read(workload, &object, &pods, &services))
}

/// Puts a workload together from its objects.
fn read(workload: &Workload, object: &Value, pods: &[Value], services: &[Value]) -> Found {
    let template = object["spec"]["template"].clone();
    let selector = object["spec"]["selector"].clone();
    let container = &template["spec"]["containers"][0];
    let ports = container["ports"].as_array().into_iter().flatten();
    let ports: Vec<u16> = ports.filter_map(|port| number(&port["containerPort"])).collect();
    let probe = &container["readinessProbe"];
    let handler = ["httpGet", "tcpSocket", "grpc"].into_iter().find(|handler| !probe[handler].is_null());
    let asked = handler.and_then(|handler| resolve(&probe[handler]["port"], container));
    let mine = pods.iter().filter(|pod| selects(&selector, &pod["metadata"]["labels"]));
    let ready = mine.into_iter().find(|pod| is_ready(pod));
    let pod = ready.map(|pod| {
        let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
        (text(&pod["metadata"]["name"]), ips.map(|ip| text(&ip["ip"])).collect())
    });
    let labels = &template["metadata"]["labels"];
    let in_front = services.iter().filter(|service| {
        let chosen = service["spec"]["selector"].as_object();
        chosen.is_some_and(|chosen| {
            !chosen.is_empty() && chosen.iter().all(|(key, value)| labels[key] == *value)
        })
    });
    let services = in_front.flat_map(|service| service_ports(service, container)).collect();
    let account = template["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
    let replicas = object["status"]["replicas"].as_u64().unwrap_or(0);
    let (name, namespace) = (workload.name.clone(), workload.namespace.clone());
    let (names, policy) = (workload.names, workload.policy.clone());
    Found {
        name,
        namespace,
        account,
        replicas,
        template,
        selector,
        ports,
        asked,
        pod,
        services,
        names,
        policy,
    }
}

fn service_ports(service: &Value, container: &Value) -> Vec<Service> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports.filter_map(|entry| {
        let port = number(&entry["port"])?;
        let target = resolve(&entry["targetPort"], container).unwrap_or(port);
        let addresses = addresses(&service["spec"]["clusterIPs"]);
        Some(Service { name: text(&service["metadata"]["name"]), addresses, port, target })
    });
    found.filter(|service| !service.addresses.is_empty()).collect()
}

/// A port by its number or by its name in the container.
fn resolve(port: &Value, container: &Value) -> Option<u16> {
    number(port).or_else(|| {
        let ports = container["ports"].as_array()?;
        number(
            &ports.iter().find(|candidate| candidate["name"] == *port && !port.is_null())?["containerPort"],
        )
    })
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Whether a label selector chooses pods with these labels. An empty one chooses all.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
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

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

/// Without `None`, as a headless Service has it.
fn addresses(ips: &Value) -> Vec<String> {
    let ips = ips.as_array().into_iter().flatten().filter_map(Value::as_str);
    ips.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned).collect()
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_workload_is_put_together_from_its_objects() {
        let workload = Workload {
            name: "payments".into(),
            namespace: "two".into(),
            kind: Kind::Deployment,
            names: true,
            policy: None,
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
        let found = read(&workload, &object, &[pod("a", "False"), pod("b", "True")], &[service, headless]);
        assert_eq!((found.ports, found.asked), (vec![9000, 9001], Some(9001)));
        assert_eq!(found.pod, Some(("b".into(), vec!["10.0.0.1".into(), "fd00::1".into()])));
        assert_eq!(found.services.len(), 1, "a headless Service has no address of its own");
        assert_eq!((found.services[0].port, found.services[0].target), (80, 9000));
    }

    #[test]
    fn selectors_choose_as_kubernetes_does() {
        let labels = json!({"app": "x", "tier": "back"});
        for (selector, chosen) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "x"}}), true),
            (json!({"matchLabels": {"app": "y"}}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}), true),
        ] {
            assert_eq!(selects(&selector, &labels), chosen, "{selector}");
        }
    }
}
