//! Manifests of the doctor's pods: probes that copy a workload, listeners, and pods that must be refused. Pure; sends
//! nothing.

use serde_json::{Map, Value, json};

use crate::checks::{Action, Check, Topic, VantagePoint};
use crate::expectations::Expectations;
use crate::inventory::{DeployedWorkload, Inventory};
use crate::network::LISTENER_PORT;
use crate::task::ProbeTask;

/// The label of every object that the doctor creates; its value is the run.
pub(crate) const LABEL: &str = "tinjis.io/doctor";
/// Lifetime limit of a pod in seconds, after which the cluster kills it.
const POD_SECONDS_MAX: u32 = 120;
/// The environment variables that a probe copies from its workload.
const COPIED_ENV: [&str; 6] = [
    "PAYMENT_PROVIDER_ENDPOINT",
    "PROVIDER_CA",
    "PROVIDER_CERT",
    "PROVIDER_KEY",
    "PAYMENTS_API_TOKEN",
    "PAYMENTS_API_TOKEN_FILE",
];
/// The kinds of volumes that a probe copies from its workload: configuration and credentials, never data.
const COPIED_VOLUME_KINDS: [&str; 4] = ["secret", "configMap", "projected", "downwardAPI"];
/// The mount path of the certificate with another SAN, and the writable folder.
const OTHER_SAN_FOLDER: &str = "/doctor/other-name";
const SCRATCH: &str = "/doctor/scratch";
/// A readiness port on which no probe listens: a pod that is never Ready gets no traffic of the Service that its labels
/// match.
const UNUSED_PORT: u16 = 1;

/// Builds the pods of one run.
#[derive(Clone, Debug)]
pub(crate) struct PodFactory {
    pub(crate) run: String,
    pub(crate) image: String,
}

impl PodFactory {
    /// A pod that meets Pod Security's `restricted` and requests few resources.
    pub(crate) fn pod(&self, name: &str, namespace: &str, args: Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: self.run}},
            "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": POD_SECONDS_MAX,
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "doctor",
                    "image": self.image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": args,
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "16Mi", "ephemeral-storage": "8Mi"},
                        "limits": {"cpu": "200m", "memory": "64Mi", "ephemeral-storage": "16Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "runAsNonRoot": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        })
    }

    /// A listener pod.
    pub(crate) fn listener(&self, name: &str, namespace: &str) -> Value {
        let args = json!(["run", "probe", "--listen", LISTENER_PORT.to_string()]);
        let mut pod = self.pod(name, namespace, args);
        pod["metadata"]["labels"]["listener"] = json!(name);
        let readiness = json!({"tcpSocket": {"port": LISTENER_PORT}, "periodSeconds": 1});
        pod["spec"]["containers"][0]["readinessProbe"] = readiness;
        pod
    }

    /// A NetworkPolicy that refuses all ingress of a listener.
    pub(crate) fn closing_policy(&self, listener: &str, namespace: &str) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": listener, "namespace": namespace, "labels": {LABEL: self.run}},
            "spec": {
                "podSelector": {"matchLabels": {"listener": listener}},
                "policyTypes": ["Ingress"],
            },
        })
    }

    /// A probe pod, with the settings, certificates and tokens of the workload that it copies.
    pub(crate) fn probe(
        &self,
        vantage_point: &VantagePoint,
        deployed: Option<&DeployedWorkload>,
        tasks: &[&ProbeTask],
        other_name: Option<&str>,
    ) -> Value {
        let tasks = serde_json::to_string(tasks).unwrap_or_default();
        let mut args = vec![json!("run"), json!("probe"), json!("--tasks"), json!(tasks)];
        args.extend([json!("--scratch"), json!(SCRATCH)]);
        let mut volumes = vec![json!({"name": "doctor-scratch", "emptyDir": {"sizeLimit": "1Mi"}})];
        let mut mounts = vec![json!({"name": "doctor-scratch", "mountPath": SCRATCH})];
        if let Some(secret) = other_name {
            volumes.push(json!({"name": "doctor-other-name", "secret": {"secretName": secret}}));
            mounts
                .push(json!({"name": "doctor-other-name", "mountPath": OTHER_SAN_FOLDER, "readOnly": true}));
            args.push(json!("--other-name"));
            args.extend(["tls.crt", "tls.key"].map(|file| json!(format!("{OTHER_SAN_FOLDER}/{file}"))));
        }
        let name = self.name_of(&vantage_point.name);
        let mut pod = self.pod(&name, &vantage_point.namespace, Value::Array(args));
        let labels = vantage_point.labels.iter().filter(|(key, _)| *key != "pod-template-hash");
        for (key, value) in labels {
            pod["metadata"]["labels"][key] = json!(value);
        }
        let container = &mut pod["spec"]["containers"][0];
        container["readinessProbe"] = json!({"tcpSocket": {"port": UNUSED_PORT}, "periodSeconds": 10});
        if let Some(deployed) = deployed {
            let template = &deployed.template["spec"];
            let workload = &template["containers"][0];
            container["env"] = filter_array(&workload["env"], |setting| {
                COPIED_ENV.iter().any(|name| setting["name"] == *name)
            });
            container["envFrom"] = workload["envFrom"].clone();
            let copied = filter_array(&template["volumes"], |volume| {
                COPIED_VOLUME_KINDS.iter().any(|kind| !volume[*kind].is_null())
            });
            let names: Vec<Value> =
                copied.as_array().into_iter().flatten().map(|volume| volume["name"].clone()).collect();
            let mounts_of_copied =
                filter_array(&workload["volumeMounts"], |mount| names.contains(&mount["name"]));
            volumes.extend(copied.as_array().cloned().unwrap_or_default());
            mounts.extend(mounts_of_copied.as_array().cloned().unwrap_or_default());
            pod["spec"]["serviceAccountName"] = json!(deployed.account);
            pod["spec"]["imagePullSecrets"] = template["imagePullSecrets"].clone();
        }
        pod["spec"]["containers"][0]["volumeMounts"] = Value::Array(mounts);
        pod["spec"]["volumes"] = Value::Array(volumes);
        pod
    }

    /// The pod's name in this run.
    pub(crate) fn name_of(&self, vantage_point: &str) -> String {
        format!("tinjis-doctor-{}-{}", self.run, vantage_point.replace('.', "-"))
    }

    /// A pod to be accepted or refused, but never to run: its node selector matches no node.
    pub(crate) fn unschedulable_pod(&self) -> Value {
        let mut pod = self.pod("", "", json!(["run", "probe", "--listen", LISTENER_PORT.to_string()]));
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "tinjis-doctor-nowhere"});
        pod
    }
}

fn filter_array(list: &Value, keep: impl Fn(&Value) -> bool) -> Value {
    list.as_array().into_iter().flatten().filter(|item| keep(item)).cloned().collect()
}

/// Changes a valid pod so that it breaks one rule.
type Violation = fn(&mut Value);

/// The violations that Pod Security must refuse, with their names.
fn violations() -> [(&'static str, Violation); 5] {
    [
        ("as-root", |pod| {
            pod["spec"]["securityContext"] =
                json!({"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 0});
            let container = &mut pod["spec"]["containers"][0]["securityContext"];
            container.as_object_mut().map(|security| security.remove("runAsNonRoot"));
        }),
        ("privileged", |pod| {
            let security = &mut pod["spec"]["containers"][0]["securityContext"];
            security["privileged"] = json!(true);
            security["allowPrivilegeEscalation"] = json!(true);
        }),
        ("host-network", |pod| pod["spec"]["hostNetwork"] = json!(true)),
        ("host-path", |pod| {
            pod["spec"]["volumes"] = json!([{"name": "host", "hostPath": {"path": "/"}}]);
        }),
        ("with-all-capabilities", |pod| {
            pod["spec"]["containers"][0]["securityContext"]["capabilities"] = json!({"add": ["ALL"]});
        }),
    ]
}

fn pod_check(
    topic: Topic,
    pod: &Value,
    namespace: &str,
    target: &str,
    expect_allowed: bool,
    hint: String,
) -> Check {
    let mut pod = pod.clone();
    let slug: String = target.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug = slug.trim_matches('-').to_ascii_lowercase();
    pod["metadata"]["name"] =
        json!(format!("tinjis-doctor-{}", slug.get(..40).unwrap_or(&slug).trim_matches('-')));
    pod["metadata"]["namespace"] = json!(namespace);
    let action = Action::CreatePod { namespace: namespace.to_owned(), pod };
    Check {
        id: format!("{}: {namespace} <- {target}", topic.as_str()),
        topic,
        subject: format!("namespace {namespace}"),
        target: target.to_owned(),
        expect_allowed,
        positive_control: None,
        hint,
        target_is_ready: false,
        action,
    }
}

/// In each namespace, a valid pod as positive control, and pods that break one rule each.
pub(crate) fn pod_security_checks(
    expectations: &Expectations,
    inventory: &Inventory,
    pod: &Value,
) -> Vec<Check> {
    let all = expectations.namespaces().into_iter().map(str::to_owned).collect();
    let namespaces: Vec<String> = expectations.restricted.clone().unwrap_or(all);
    let mut checks = Vec::new();
    for namespace in namespaces {
        let labels = inventory.namespaces.get(&namespace).unwrap_or(&Value::Null);
        let level = labels["pod-security.kubernetes.io/enforce"].as_str().unwrap_or("not set");
        let label = format!("pod-security.kubernetes.io/enforce of namespace {namespace} is {level}");
        let hint =
            format!("namespace {namespace} accepts no pod at all: a quota, or another admission plugin");
        let topic = Topic::PodSecurity;
        let valid = pod_check(topic, pod, &namespace, "a valid pod", true, hint);
        for (name, violate) in violations() {
            let mut invalid = pod.clone();
            violate(&mut invalid);
            let check =
                pod_check(topic, &invalid, &namespace, &format!("a pod {name}"), false, label.clone());
            checks.push(Check { positive_control: Some(valid.id.clone()), ..check });
        }
        checks.push(valid);
    }
    checks
}

/// Names an image in one field of a pod.
type ImageField = fn(&mut Value, &str);

/// The fields of a new pod that name an image, each with a description. An ephemeral container is added to a running
/// pod.
fn image_fields() -> [(&'static str, ImageField); 3] {
    [
        ("image", |pod, image| pod["spec"]["containers"][0]["image"] = json!(image)),
        ("init image", |pod, image| pod["spec"]["initContainers"] = json!([second_container(pod, image)])),
        ("image volume", |pod, image| {
            pod["spec"]["volumes"] = json!([{"name": "image", "image": {"reference": image}}]);
        }),
    ]
}

/// A second container with the security context of the first, so that only its image can be at fault.
fn second_container(pod: &Value, image: &str) -> Value {
    let security = &pod["spec"]["containers"][0]["securityContext"];
    json!({"name": "doctor-other", "image": image, "securityContext": security})
}

/// For each rule, an image that must be accepted and one that must be refused, in every field that can name one.
pub(crate) fn image_checks(expectations: &Expectations, inventory: &Inventory, pod: &Value) -> Vec<Check> {
    let mut checks = Vec::new();
    for rule in &expectations.images {
        let namespace = &rule.namespace;
        let refuses_too_much = || format!("{} refuses too much", rule.by);
        let accepts = || format!("{} accepts it", rule.by);
        let mut sound = pod.clone();
        sound["spec"]["containers"][0]["image"] = json!(rule.allowed);
        let target = format!("image {}", rule.allowed);
        let valid = pod_check(Topic::Images, &sound, namespace, &target, true, refuses_too_much());
        for (field, name) in image_fields() {
            let mut invalid = sound.clone();
            name(&mut invalid, &rule.forbidden);
            let target = format!("{field} {}", rule.forbidden);
            let check = pod_check(Topic::Images, &invalid, namespace, &target, false, accepts());
            checks.push(check.with_positive_control(valid.id.clone()));
        }
        checks.push(valid);
        let running = inventory.workloads.iter().filter(|deployed| deployed.namespace == *namespace);
        let Some((running, _)) = running.filter_map(|deployed| deployed.pod.as_ref()).next() else {
            continue;
        };
        let debug = |image: &str, expect_allowed, hint| {
            let container = second_container(pod, image);
            let body = json!({"spec": {"ephemeralContainers": [container]}});
            let action = Action::Debug { namespace: namespace.clone(), pod: running.clone(), body };
            let target = format!("ephemeral image {image}");
            Check {
                id: format!("{}: {namespace} <- {target}", Topic::Images.as_str()),
                ..Check::new(
                    Topic::Images,
                    &format!("namespace {namespace}"),
                    &target,
                    expect_allowed,
                    hint,
                    action,
                )
            }
        };
        let valid = debug(&rule.allowed, true, refuses_too_much());
        let invalid = debug(&rule.forbidden, false, accepts());
        checks.extend([invalid.with_positive_control(valid.id.clone()), valid]);
    }
    checks
}

/// A namespace of the doctor's own.
pub(crate) fn namespace(name: &str, run: &str) -> Value {
    let mut labels = Map::new();
    labels.insert(LABEL.to_owned(), json!(run));
    labels.insert("pod-security.kubernetes.io/enforce".to_owned(), json!("restricted"));
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn factory() -> PodFactory {
        PodFactory { run: "ab12".to_owned(), image: "tinjis/tinjis:x".to_owned() }
    }

    #[test]
    fn a_probe_copies_its_workload_without_traffic_and_data() {
        let template = json!({"spec": {"containers": [{
            "env": [{"name": "PROVIDER_CA", "value": "/tls/ca.crt"}, {"name": "DATABASE_URL", "value": "x"}],
            "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "tls", "secret": {"secretName": "s"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]}});
        let deployed = DeployedWorkload {
            name: "antaeus".into(),
            namespace: "one".into(),
            account: "antaeus".into(),
            replicas: 1,
            template,
            selector: Value::Null,
            ports: Vec::new(),
            readiness_port: None,
            pod: None,
            services: Vec::new(),
            dns: true,
            policy: None,
        };
        let labels = BTreeMap::from([
            ("app".to_owned(), "antaeus".to_owned()),
            ("pod-template-hash".to_owned(), "h".to_owned()),
        ]);
        let vantage_point = VantagePoint {
            name: "antaeus".into(),
            namespace: "one".into(),
            labels,
            workload: Some("antaeus".into()),
        };
        let pod = factory().probe(&vantage_point, Some(&deployed), &[], None);
        let labels = &pod["metadata"]["labels"];
        assert_eq!((&labels["app"], &labels[LABEL]), (&json!("antaeus"), &json!("ab12")));
        assert!(labels["pod-template-hash"].is_null(), "its ReplicaSet would adopt it");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["readinessProbe"]["tcpSocket"]["port"], UNUSED_PORT);
        assert_eq!(container["env"].as_array().unwrap().len(), 1, "no other setting");
        let text = pod.to_string();
        assert!(text.contains("/tls") && !text.contains("persistentVolumeClaim") && !text.contains("/data"));
        assert_eq!(pod["spec"]["serviceAccountName"], "antaeus");
    }

    #[test]
    fn an_image_is_forbidden_in_each_field_that_the_comparison_reads() {
        let valid = factory().unschedulable_pod();
        for (field, name) in image_fields() {
            let mut pod = valid.clone();
            name(&mut pod, "evil/x:1");
            let images = crate::objects::admission::images_of(&pod["spec"]);
            assert!(images.iter().any(|(_, image)| *image == "evil/x:1"), "{field}: {images:?}");
        }
    }

    #[test]
    fn each_violation_changes_the_pod() {
        let valid = factory().unschedulable_pod();
        for (name, violate) in violations() {
            let mut invalid = valid.clone();
            violate(&mut invalid);
            assert_ne!(invalid, valid, "{name}");
        }
    }
}
