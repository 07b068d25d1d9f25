//! Runs the trials: probes from pods, requests to the API server, evictions; and takes everything back. What was seen
//! is written down, and judged elsewhere.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::expect::{Expectations, Issuer};
use super::facts::{Facts, Found, Listeners, is_ready, selects, text};
use super::kube::{As, Kube};
use super::plan::{Action, Station, Trial};
use super::pods::{self, Kit, MARK};
use super::rbac::grants;
use super::task::{Result as Got, Seen, Task};
use crate::progress::Progress;

/// Until a pod must have started, or ended.
const POD_WITHIN: Duration = Duration::from_secs(90);
/// Until the pods of a workload must be whole again after an eviction.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// What a pod waits for in vain: another image, another name. Not a first pull that failed, which is tried again.
const IN_VAIN: [&str; 4] =
    ["ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What was seen, by the id of the trial.
pub(super) type AllSeen = BTreeMap<String, Seen>;

/// The doctor's own ground in the cluster.
pub(super) struct Ground<'a> {
    pub(super) kube: &'a Kube,
    pub(super) kit: Kit,
    pub(super) namespace: String,
}

impl Ground<'_> {
    /// A namespace with two listeners, of which a policy closes one.
    pub(super) async fn prepare(&self) -> anyhow::Result<Listeners> {
        let Self { kube, kit, namespace } = self;
        kube.create("/api/v1/namespaces", &pods::namespace(namespace, &kit.run)).await?;
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
        kube.create(&path, &kit.closing_policy("closed", namespace)).await?;
        self.wait_for_default_account(namespace).await?;
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        for name in ["open", "closed"] {
            kube.create(&path, &kit.listener(name, namespace)).await?;
        }
        let open = self.pod(namespace, "open", is_ready).await?;
        let closed = self.pod(namespace, "closed", is_ready).await?;
        let ips = |pod: &Value| {
            let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
            ips.map(|ip| text(&ip["ip"])).collect()
        };
        Ok(Listeners { open: ips(&open), closed: ips(&closed) })
    }

    /// Namespaces of sources that are not installed here, for as long as the doctor looks: policies choose them by
    /// name, so that a probe in them is as good as the source itself.
    pub(super) async fn make_namespaces(
        &self,
        expectations: &Expectations,
        facts: &Facts,
    ) -> anyhow::Result<()> {
        let names: BTreeSet<&String> = expectations.sources.iter().map(|source| &source.namespace).collect();
        for name in names.into_iter().filter(|name| !facts.namespaces.contains_key(*name)) {
            self.kube.create("/api/v1/namespaces", &pods::namespace(name, &self.kit.run)).await?;
            self.wait_for_default_account(name).await?;
        }
        Ok(())
    }

    /// Pods of a namespace without its default account are refused, and it comes a moment later.
    async fn wait_for_default_account(&self, namespace: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let deadline = Instant::now() + POD_WITHIN;
        while let Err(error) = self.kube.get(&path).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until a pod is as wanted, or cannot become so.
    async fn pod(&self, namespace: &str, name: &str, wanted: fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begun = Instant::now();
        let deadline = begun + POD_WITHIN;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        loop {
            let pod = self.kube.get(&path).await?;
            if wanted(&pod) {
                return Ok(pod);
            }
            if waits_in_vain(&pod) || Instant::now() > deadline {
                let why = self.why(namespace, name, &pod).await;
                let (phase, after) = (text(&pod["status"]["phase"]), begun.elapsed().as_secs());
                bail!("pod {namespace}/{name} is {phase} after {after} s: {why}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Why a pod is not what it should be: the cluster's last words about it.
    async fn why(&self, namespace: &str, name: &str, pod: &Value) -> String {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let mut words = vec![text(&waiting["reason"]), text(&waiting["message"])];
        let events =
            format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3D{name}");
        let events = self.kube.list(&events).await.unwrap_or_default();
        words.extend(events.last().map(|event| text(&event["message"])));
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }

    /// What probes in their places see.
    pub(super) async fn probes(
        &self,
        expectations: &Expectations,
        facts: &Facts,
        stations: &[Station],
        trials: &[Trial],
        progress: &Progress,
    ) -> AllSeen {
        let mut tasks: BTreeMap<&str, Vec<Task>> = BTreeMap::new();
        for trial in trials {
            if let Action::Probe { station, what } = &trial.action {
                let task = Task { id: trial.id.clone(), hope: trial.hope, what: what.clone() };
                tasks.entry(station).or_default().push(task);
            }
        }
        let (of, spoken) = (tasks.len(), Cell::new(0_usize));
        let runs = stations.iter().filter_map(|station| {
            let tasks = tasks.get(station.name.as_str())?;
            let found = station.workload.as_deref().and_then(|name| facts.workload(name));
            let call = expectations.calls.iter().find(|call| call.from == station.name);
            let probe = self.probe(station, found, tasks, call.and_then(|call| call.issuer.as_ref()));
            let spoken = &spoken;
            Some(async move {
                let seen = probe.await;
                spoken.set(spoken.get() + 1);
                progress.step(format_args!("{} of {of} places tried: {}", spoken.get(), station.name));
                seen
            })
        });
        let seen = join_all(runs).await.into_iter().flatten();
        seen.map(|seen| (seen.id.clone(), seen)).collect()
    }

    /// One probe. Whatever keeps it from speaking is what is seen of all its trials.
    async fn probe(
        &self,
        station: &Station,
        found: Option<&Found>,
        tasks: &[Task],
        issuer: Option<&Issuer>,
    ) -> Vec<Seen> {
        match self.probe_or_fail(station, found, tasks, issuer).await {
            Ok(seen) => seen,
            Err(error) => tasks
                .iter()
                .map(|task| Seen::new(&task.id, Got::Unknown, format_args!("{error:#}")))
                .collect(),
        }
    }

    async fn probe_or_fail(
        &self,
        station: &Station,
        found: Option<&Found>,
        tasks: &[Task],
        issuer: Option<&Issuer>,
    ) -> anyhow::Result<Vec<Seen>> {
        let certificate = match issuer {
            Some(issuer) => Some(self.other_name(&station.namespace, issuer).await?),
            None => None,
        };
        let tasks: Vec<&Task> = tasks.iter().collect();
        let pod = self.kit.probe(station, found, &tasks, certificate.as_deref());
        let path = format!("/api/v1/namespaces/{}/pods", station.namespace);
        self.kube.create(&path, &pod).await?;
        let name = self.kit.name_of(&station.name);
        let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        self.pod(&station.namespace, &name, over).await?;
        let log = self.kube.text(&format!("{path}/{name}/log")).await?;
        let seen: Vec<Seen> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if seen.is_empty() {
            bail!("the probe said: {}", log.trim());
        }
        Ok(seen)
    }

    /// A certificate by the callers' authority for a name that nobody lets in; the name of its Secret.
    async fn other_name(&self, namespace: &str, issuer: &Issuer) -> anyhow::Result<String> {
        let name = self.kit.name_of("other-name");
        let certificate = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": name, "namespace": namespace, "labels": {MARK: self.kit.run}},
            "spec": {
                "secretName": name,
                "dnsNames": ["stranger.invalid"],
                "usages": ["client auth"],
                "duration": "1h",
                "renewBefore": "20m",
                "privateKey": {"algorithm": "ECDSA"},
                "issuerRef": {"name": issuer.name, "kind": issuer.kind},
                "secretTemplate": {"labels": {MARK: self.kit.run}},
            },
        });
        let path = format!("/apis/cert-manager.io/v1/namespaces/{namespace}/certificates");
        self.kube.create(&path, &certificate).await?;
        let deadline = Instant::now() + POD_WITHIN;
        let secret = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        while self.kube.get(&secret).await.is_err() {
            if Instant::now() > deadline {
                bail!("{} {} signed no certificate", issuer.kind, issuer.name);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(name)
    }

    /// What the API server says to requests and to pods.
    pub(super) async fn asks(&self, trials: &[Trial]) -> AllSeen {
        let mut all = AllSeen::new();
        for trial in trials {
            let seen = match &trial.action {
                Action::Ask { who, method, path, body, .. } => {
                    self.ask(&trial.id, who, method, path, body.as_ref()).await
                }
                Action::Submit { namespace, pod } => self.submit(&trial.id, namespace, pod).await,
                Action::Known(seen) => Ok(seen.clone()),
                Action::Probe { .. } | Action::Evict { .. } => continue,
            };
            let seen =
                seen.unwrap_or_else(|error| Seen::new(&trial.id, Got::Unknown, format_args!("{error:#}")));
            all.insert(trial.id.clone(), seen);
        }
        all
    }

    async fn ask(
        &self,
        id: &str,
        who: &As,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Seen> {
        let answer = self.kube.call(who, method.clone(), path, body).await?;
        let result = permission(answer.status, answer.message());
        let said = if result == Got::Passed { "" } else { answer.message() };
        Ok(Seen::new(id, result, format_args!("{} {said}", answer.status)))
    }

    async fn submit(&self, id: &str, namespace: &str, pod: &Value) -> anyhow::Result<Seen> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let answer = self.kube.call(&As::Doctor, Method::POST, &path, Some(pod)).await?;
        if answer.is_success() {
            self.kube
                .delete(&format!("{path}/{}?gracePeriodSeconds=0", text(&pod["metadata"]["name"])))
                .await?;
            return Ok(Seen::new(id, Got::Passed, format_args!("{} accepted", answer.status)));
        }
        let result = if answer.status == 403 || answer.status == 422 { Got::Refused } else { Got::Unknown };
        Ok(Seen::new(id, result, format_args!("{} {}", answer.status, answer.message())))
    }

    /// Evicts one pod of each workload, at once another, and waits until all are back.
    pub(super) async fn evictions(&self, trials: &[Trial], facts: &Facts) -> AllSeen {
        let mut all = AllSeen::new();
        for trial in trials {
            let Action::Evict { workload, second: false } = &trial.action else { continue };
            let second = trials.iter().find(|other| {
                matches!(&other.action, Action::Evict { workload: other, second: true } if other == workload)
            });
            let ids: Vec<&str> =
                [Some(trial), second].into_iter().flatten().map(|trial| trial.id.as_str()).collect();
            let seen = match facts.workload(workload) {
                Some(found) => self.evict(found, &ids).await,
                None => Ok(Vec::new()),
            };
            let seen = seen.unwrap_or_else(|error| {
                ids.iter().map(|id| Seen::new(id, Got::Unknown, format_args!("{error:#}"))).collect()
            });
            all.extend(seen.into_iter().map(|seen| (seen.id.clone(), seen)));
        }
        all
    }

    async fn evict(&self, found: &Found, ids: &[&str]) -> anyhow::Result<Vec<Seen>> {
        let ready = self.whole(found).await?;
        let mut seen = Vec::new();
        for (id, pod) in ids.iter().zip(&ready) {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", found.namespace);
            let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": pod, "namespace": found.namespace}});
            let answer = self.kube.call(&As::Doctor, Method::POST, &path, Some(&body)).await?;
            let result = match answer.status {
                200..=299 => Got::Passed,
                429 => Got::Refused,
                _ => Got::Unknown,
            };
            seen.push(Seen::new(id, result, format_args!("{pod}: {} {}", answer.status, answer.message())));
        }
        self.whole(found).await.context("after an eviction")?;
        Ok(seen)
    }

    /// The ready pods of a workload, once all of them are.
    async fn whole(&self, found: &Found) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + WHOLE_WITHIN;
        loop {
            let pods = self.kube.list(&format!("/api/v1/namespaces/{}/pods", found.namespace)).await?;
            let mine = pods.iter().filter(|pod| {
                let labels = &pod["metadata"]["labels"];
                selects(&found.selector, labels) && labels[MARK].is_null()
            });
            let ready: Vec<String> =
                mine.filter(|pod| is_ready(pod)).map(|pod| text(&pod["metadata"]["name"])).collect();
            if u64::try_from(ready.len()).unwrap_or(0) >= found.replicas {
                return Ok(ready);
            }
            if Instant::now() > deadline {
                bail!("{} of {} pods of {} are ready", ready.len(), found.replicas, found.name);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// What grants each deed that should not be granted, by the id of its trial.
    pub(super) async fn grants<'t>(
        &self,
        trials: impl Iterator<Item = &'t Trial>,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let with_kind = async |plural: &str, kind: &str| {
            let mut objects = self.kube.list(&format!("{RBAC}/{plural}")).await?;
            objects.iter_mut().for_each(|object| object["kind"] = json!(kind));
            anyhow::Ok(objects)
        };
        let mut named = BTreeMap::new();
        let mut objects = None;
        for trial in trials {
            let Action::Ask { who, deed, name, namespace, .. } = &trial.action else { continue };
            if objects.is_none() {
                let mut roles = with_kind("roles", "Role").await?;
                roles.extend(with_kind("clusterroles", "ClusterRole").await?);
                let bindings = with_kind("rolebindings", "RoleBinding").await?;
                objects =
                    Some((roles, bindings, with_kind("clusterrolebindings", "ClusterRoleBinding").await?));
            }
            let Some((roles, bindings, everywhere)) = &objects else { continue };
            let here = bindings.iter().filter(|binding| binding["metadata"]["namespace"] == **namespace);
            let bindings: Vec<Value> = here.chain(everywhere).cloned().collect();
            let granted = grants(deed, name.as_deref(), who, &bindings, roles);
            if !granted.is_empty() {
                named.insert(trial.id.clone(), granted.join(", "));
            }
        }
        Ok(named)
    }
}

fn waits_in_vain(pod: &Value) -> bool {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    IN_VAIN.iter().any(|reason| waiting["reason"] == *reason)
}

/// What the API server's answer says of the right to ask so.
fn permission(status: u16, message: &str) -> Got {
    match status {
        // The doctor itself may not speak for others: nothing is learnt about them.
        403 if message.contains("cannot impersonate") => Got::Unknown,
        // So authorization speaks; admission, which comes later, has other words.
        403 if message.contains(" cannot ") => Got::Refused,
        200..=299 | 404 | 409 | 422 => Got::Passed,
        _ => Got::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_given_up_for_an_image_that_does_not_come_and_not_for_a_slow_start() {
        let waits = |reason: &str| {
            let states = json!([{"state": {"waiting": {"reason": reason}}}]);
            waits_in_vain(&json!({"status": {"containerStatuses": states}}))
        };
        assert!(waits("ImagePullBackOff") && waits("InvalidImageName"));
        assert!(!waits("ContainerCreating") && !waits("ErrImagePull"));
        assert!(!waits_in_vain(&json!({"status": {"phase": "Pending"}})));
    }

    #[test]
    fn only_authorizations_own_words_are_a_refusal() {
        for (status, message, wanted) in [
            (403, "secrets is forbidden: User \"u\" cannot get resource \"secrets\"", Got::Refused),
            (403, "users \"u\" is forbidden: User \"me\" cannot impersonate resource", Got::Unknown),
            (403, "denied by the admission policy", Got::Unknown),
            (404, "deployments.apps \"x\" not found", Got::Passed),
            (200, "", Got::Passed),
            (429, "slow down", Got::Unknown),
            (500, "", Got::Unknown),
        ] {
            assert_eq!(permission(status, message), wanted, "{status} {message}");
        }
    }
}
