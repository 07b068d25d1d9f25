//! The pods of the doctor's own, as manifests: probes that stand in somebody's place, listeners, and those that must
//! be refused. Pure; submits nothing.

use serde_json::{Map, Value, json};

use super::expect::Expectations;
use super::facts::{Facts, Found};
use super::paths::LISTENER_PORT;
use super::plan::{Action, Station, Topic, Trial};
use super::task::Task;

/// Marks everything of the doctor's, with the run as value.
pub(super) const MARK: &str = "tinjis.io/doctor";
/// A pod that hangs is ended by the cluster after this.
const POD_SECONDS_MAX: u32 = 120;
/// Settings of a workload that its probe takes over.
const SETTINGS: [&str; 6] = [
    "PAYMENT_PROVIDER_ENDPOINT",
    "PROVIDER_CA",
    "PROVIDER_CERT",
    "PROVIDER_KEY",
    "PAYMENTS_API_TOKEN",
    "PAYMENTS_API_TOKEN_FILE",
];
/// Volumes of a workload that its probe takes over: what it knows, and no data.
const KNOWLEDGE: [&str; 4] = ["secret", "configMap", "projected", "downwardAPI"];
/// Where the probe finds a certificate with another name, and may write.
const OTHER_NAME: &str = "/doctor/other-name";
const SCRATCH: &str = "/doctor/scratch";
/// No port of any probe: one that is never ready gets no traffic of the Service whose labels it has.
const NOBODY_LISTENS: u16 = 1;

/// What all pods of one run have in common.
#[derive(Clone, Debug)]
pub(super) struct Kit {
    pub(super) run: String,
    pub(super) image: String,
}

impl Kit {
    /// A pod that keeps every rule of Pod Security's `restricted` and asks for little.
    pub(super) fn pod(&self, name: &str, namespace: &str, args: Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {MARK: self.run}},
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

    /// A listener of the doctor's own.
    pub(super) fn listener(&self, name: &str, namespace: &str) -> Value {
        let args = json!(["run", "probe", "--listen", LISTENER_PORT.to_string()]);
        let mut pod = self.pod(name, namespace, args);
        pod["metadata"]["labels"]["listener"] = json!(name);
        let asked = json!({"tcpSocket": {"port": LISTENER_PORT}, "periodSeconds": 1});
        pod["spec"]["containers"][0]["readinessProbe"] = asked;
        pod
    }

    /// A policy that closes a listener to everybody.
    pub(super) fn closing_policy(&self, listener: &str, namespace: &str) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": listener, "namespace": namespace, "labels": {MARK: self.run}},
            "spec": {
                "podSelector": {"matchLabels": {"listener": listener}},
                "policyTypes": ["Ingress"],
            },
        })
    }

    /// A probe that stands there, with the settings, certificates and tokens of the workload in whose place it is.
    pub(super) fn probe(
        &self,
        station: &Station,
        found: Option<&Found>,
        tasks: &[&Task],
        other_name: Option<&str>,
    ) -> Value {
        let tasks = serde_json::to_string(tasks).unwrap_or_default();
        let mut args = vec![json!("run"), json!("probe"), json!("--tasks"), json!(tasks)];
        args.extend([json!("--scratch"), json!(SCRATCH)]);
        let mut volumes = vec![json!({"name": "doctor-scratch", "emptyDir": {"sizeLimit": "1Mi"}})];
        let mut mounts = vec![json!({"name": "doctor-scratch", "mountPath": SCRATCH})];
        if let Some(secret) = other_name {
            volumes.push(json!({"name": "doctor-other-name", "secret": {"secretName": secret}}));
            mounts.push(json!({"name": "doctor-other-name", "mountPath": OTHER_NAME, "readOnly": true}));
            args.push(json!("--other-name"));
            args.extend(["tls.crt", "tls.key"].map(|file| json!(format!("{OTHER_NAME}/{file}"))));
        }
        let name = self.name_of(&station.name);
        let mut pod = self.pod(&name, &station.namespace, Value::Array(args));
        let theirs = station.labels.iter().filter(|(key, _)| *key != "pod-template-hash");
        for (key, value) in theirs {
            pod["metadata"]["labels"][key] = json!(value);
        }
        let container = &mut pod["spec"]["containers"][0];
        container["readinessProbe"] = json!({"tcpSocket": {"port": NOBODY_LISTENS}, "periodSeconds": 10});
        if let Some(found) = found {
            let template = &found.template["spec"];
            let theirs = &template["containers"][0];
            container["env"] =
                chosen(&theirs["env"], |setting| SETTINGS.iter().any(|name| setting["name"] == *name));
            container["envFrom"] = theirs["envFrom"].clone();
            let known =
                chosen(&template["volumes"], |volume| KNOWLEDGE.iter().any(|kind| !volume[*kind].is_null()));
            let names: Vec<Value> =
                known.as_array().into_iter().flatten().map(|volume| volume["name"].clone()).collect();
            let mounted = chosen(&theirs["volumeMounts"], |mount| names.contains(&mount["name"]));
            volumes.extend(known.as_array().cloned().unwrap_or_default());
            mounts.extend(mounted.as_array().cloned().unwrap_or_default());
            pod["spec"]["serviceAccountName"] = json!(found.account);
            pod["spec"]["imagePullSecrets"] = template["imagePullSecrets"].clone();
        }
        pod["spec"]["containers"][0]["volumeMounts"] = Value::Array(mounts);
        pod["spec"]["volumes"] = Value::Array(volumes);
        pod
    }

    /// A pod's name for this run.
    pub(super) fn name_of(&self, station: &str) -> String {
        format!("tinjis-doctor-{}-{}", self.run, station.replace('.', "-"))
    }

    /// A pod that is meant to be accepted or refused, and never to run: no node has that name.
    pub(super) fn unplaced(&self) -> Value {
        let mut pod = self.pod("", "", json!(["run", "probe", "--listen", LISTENER_PORT.to_string()]));
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "tinjis-doctor-nowhere"});
        pod
    }
}

fn chosen(list: &Value, choose: impl Fn(&Value) -> bool) -> Value {
    list.as_array().into_iter().flatten().filter(|item| choose(item)).cloned().collect()
}

/// A change to a pod that breaks a rule.
type Offence = fn(&mut Value);

/// What Pod Security must refuse: a change to a pod, and what it is called.
fn offences() -> [(&'static str, Offence); 5] {
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

fn submit(topic: Topic, pod: &Value, namespace: &str, what: &str, hope: bool, look_at: String) -> Trial {
    let mut pod = pod.clone();
    let slug: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug = slug.trim_matches('-').to_ascii_lowercase();
    pod["metadata"]["name"] =
        json!(format!("tinjis-doctor-{}", slug.get(..40).unwrap_or(&slug).trim_matches('-')));
    pod["metadata"]["namespace"] = json!(namespace);
    let action = Action::Submit { namespace: namespace.to_owned(), pod };
    Trial {
        id: format!("{}: {namespace} <- {what}", topic.name()),
        topic,
        who: format!("namespace {namespace}"),
        what: what.to_owned(),
        hope,
        twin: None,
        look_at,
        is_up: false,
        action,
    }
}

/// In each namespace a pod that keeps the rules, and beside it pods that break one.
pub(super) fn security(expectations: &Expectations, facts: &Facts, pod: &Value) -> Vec<Trial> {
    let all = expectations.namespaces().into_iter().map(str::to_owned).collect();
    let namespaces: Vec<String> = expectations.restricted.clone().unwrap_or(all);
    let mut trials = Vec::new();
    for namespace in namespaces {
        let labels = facts.namespaces.get(&namespace).unwrap_or(&Value::Null);
        let level = labels["pod-security.kubernetes.io/enforce"].as_str().unwrap_or("not set");
        let label = format!("pod-security.kubernetes.io/enforce of namespace {namespace} is {level}");
        let look_at = format!("namespace {namespace} takes no pod at all: quota, or another admission");
        let topic = Topic::PodSecurity;
        let good = submit(topic, pod, &namespace, "a pod that keeps the rules", true, look_at);
        for (what, offend) in offences() {
            let mut bad = pod.clone();
            offend(&mut bad);
            let trial = submit(topic, &bad, &namespace, &format!("a pod {what}"), false, label.clone());
            trials.push(Trial { twin: Some(good.id.clone()), ..trial });
        }
        trials.push(good);
    }
    trials
}

/// Images that a namespace takes and refuses.
pub(super) fn images(expectations: &Expectations, pod: &Value) -> Vec<Trial> {
    let mut trials = Vec::new();
    for rule in &expectations.images {
        let with = |image: &str, hope, look_at| {
            let mut pod = pod.clone();
            pod["spec"]["containers"][0]["image"] = json!(image);
            submit(Topic::Images, &pod, &rule.namespace, &format!("image {image}"), hope, look_at)
        };
        let good = with(&rule.allowed, true, format!("{} refuses too much", rule.by));
        let bad = with(&rule.forbidden, false, format!("{} lets it in", rule.by));
        trials.push(Trial { twin: Some(good.id.clone()), ..bad });
        trials.push(good);
    }
    trials
}

/// The doctor's own namespace.
pub(super) fn namespace(name: &str, run: &str) -> Value {
    let mut labels = Map::new();
    labels.insert(MARK.to_owned(), json!(run));
    labels.insert("pod-security.kubernetes.io/enforce".to_owned(), json!("restricted"));
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn kit() -> Kit {
        Kit { run: "ab12".to_owned(), image: "tinjis/tinjis:x".to_owned() }
    }

    #[test]
    fn a_probe_stands_in_its_workloads_place_and_takes_no_traffic_and_no_data() {
        let template = json!({"spec": {"containers": [{
            "env": [{"name": "PROVIDER_CA", "value": "/tls/ca.crt"}, {"name": "DATABASE_URL", "value": "x"}],
            "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "tls", "secret": {"secretName": "s"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]}});
        let found = Found {
            name: "antaeus".into(),
            namespace: "one".into(),
            account: "antaeus".into(),
            replicas: 1,
            template,
            selector: Value::Null,
            ports: Vec::new(),
            asked: None,
            pod: None,
            services: Vec::new(),
            names: true,
            policy: None,
        };
        let labels = BTreeMap::from([
            ("app".to_owned(), "antaeus".to_owned()),
            ("pod-template-hash".to_owned(), "h".to_owned()),
        ]);
        let station = Station {
            name: "antaeus".into(),
            namespace: "one".into(),
            labels,
            workload: Some("antaeus".into()),
        };
        let pod = kit().probe(&station, Some(&found), &[], None);
        let labels = &pod["metadata"]["labels"];
        assert_eq!((&labels["app"], &labels[MARK]), (&json!("antaeus"), &json!("ab12")));
        assert!(labels["pod-template-hash"].is_null(), "its ReplicaSet would adopt it");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["readinessProbe"]["tcpSocket"]["port"], NOBODY_LISTENS);
        assert_eq!(container["env"].as_array().unwrap().len(), 1, "no other setting");
        let text = pod.to_string();
        assert!(text.contains("/tls") && !text.contains("persistentVolumeClaim") && !text.contains("/data"));
        assert_eq!(pod["spec"]["serviceAccountName"], "antaeus");
    }

    #[test]
    fn each_offence_changes_the_pod() {
        let good = kit().unplaced();
        for (what, offend) in offences() {
            let mut bad = good.clone();
            offend(&mut bad);
            assert_ne!(bad, good, "{what}");
        }
    }
}
