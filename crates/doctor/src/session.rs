//! Carries out the checks in the cluster: probe pods, requests to the API server, evictions. Records observations; does
//! not evaluate them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Progress;
use crate::checks::{Action, Check, VantagePoint};
use crate::expectations::{Expectations, Issuer};
use crate::inventory::{DeployedWorkload, Inventory, Listeners, is_ready, selects, text};
use crate::kube::{Identity, KubeClient};
use crate::pods::{self, LABEL, PodFactory};
use crate::rbac::grants;
use crate::task::{Observation, Outcome, ProbeTask};

/// Maximum time for a pod to start, or to finish.
const POD_TIMEOUT: Duration = Duration::from_secs(90);
/// Maximum time until all pods of a workload are ready again after an eviction.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// Waiting reasons that end in failure. `ErrImagePull`, a first failed pull, is not among them because it is retried.
const FATAL_WAITING_REASONS: [&str; 4] =
    ["ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Observations by the id of the check.
pub(crate) type Observations = BTreeMap<String, Observation>;

/// The connection to the cluster, with the namespace of this run.
pub(crate) struct ClusterSession<'a> {
    pub(crate) kube: &'a KubeClient,
    pub(crate) factory: PodFactory,
    pub(crate) namespace: String,
}

impl ClusterSession<'_> {
    /// Creates the run's namespace with two listener pods, one of them closed by a policy.
    pub(crate) async fn start_listeners(&self) -> anyhow::Result<Listeners> {
        let Self { kube, factory, namespace } = self;
        kube.create("/api/v1/namespaces", &pods::namespace(namespace, &factory.run)).await?;
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
        kube.create(&path, &factory.closing_policy("closed", namespace)).await?;
        self.wait_for_default_account(namespace).await?;
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        for name in ["open", "closed"] {
            kube.create(&path, &factory.listener(name, namespace)).await?;
        }
        let open = self.wait_for_pod(namespace, "open", is_ready).await?;
        let closed = self.wait_for_pod(namespace, "closed", is_ready).await?;
        let ips = |pod: &Value| {
            let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
            ips.map(|ip| text(&ip["ip"])).collect()
        };
        Ok(Listeners { open: ips(&open), closed: ips(&closed) })
    }

    /// Creates the namespaces of sources that are not installed, for the duration of the run: policies select them by
    /// name, so that a probe in them is equivalent to the source.
    pub(crate) async fn create_source_namespaces(
        &self,
        expectations: &Expectations,
        inventory: &Inventory,
    ) -> anyhow::Result<()> {
        let names: BTreeSet<&String> = expectations.sources.iter().map(|source| &source.namespace).collect();
        for name in names.into_iter().filter(|name| !inventory.namespaces.contains_key(*name)) {
            self.kube.create("/api/v1/namespaces", &pods::namespace(name, &self.factory.run)).await?;
            self.wait_for_default_account(name).await?;
        }
        Ok(())
    }

    /// Pods are refused until the controller has created the namespace's default ServiceAccount.
    async fn wait_for_default_account(&self, namespace: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let deadline = Instant::now() + POD_TIMEOUT;
        while let Err(error) = self.kube.get(&path).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until a pod meets the condition; fails at once when it cannot.
    async fn wait_for_pod(
        &self,
        namespace: &str,
        name: &str,
        wanted: fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let started = Instant::now();
        let deadline = started + POD_TIMEOUT;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        loop {
            let pod = self.kube.get(&path).await?;
            if wanted(&pod) {
                return Ok(pod);
            }
            if cannot_start(&pod) || Instant::now() > deadline {
                let reason = self.explain_pod(namespace, name, &pod).await;
                let (phase, after) = (text(&pod["status"]["phase"]), started.elapsed().as_secs());
                bail!("pod {namespace}/{name} is {phase} after {after} s: {reason}");
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The waiting reason and the last event of a pod.
    async fn explain_pod(&self, namespace: &str, name: &str, pod: &Value) -> String {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let mut parts = vec![text(&waiting["reason"]), text(&waiting["message"])];
        let events =
            format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3D{name}");
        let events = self.kube.list(&events).await.unwrap_or_default();
        parts.extend(events.last().map(|event| text(&event["message"])));
        parts.retain(|part| !part.is_empty());
        parts.join(" ")
    }

    /// Runs one probe pod per vantage point, all at once.
    pub(crate) async fn run_probes(
        &self,
        expectations: &Expectations,
        inventory: &Inventory,
        vantage_points: &[VantagePoint],
        checks: &[Check],
        progress: Progress<'_>,
    ) -> Observations {
        let mut tasks: BTreeMap<&str, Vec<ProbeTask>> = BTreeMap::new();
        for check in checks {
            if let Action::Probe { vantage_point, action } = &check.action {
                let (id, expect_allowed) = (check.id.clone(), check.expect_allowed);
                let task = ProbeTask { id, expect_allowed, action: action.clone() };
                tasks.entry(vantage_point).or_default().push(task);
            }
        }
        let (total, finished) = (tasks.len(), Cell::new(0_usize));
        let runs = vantage_points.iter().filter_map(|vantage_point| {
            let tasks = tasks.get(vantage_point.name.as_str())?;
            let deployed = vantage_point.workload.as_deref().and_then(|name| inventory.workload(name));
            let call = expectations.calls.iter().find(|call| call.from == vantage_point.name);
            let probe =
                self.run_probe(vantage_point, deployed, tasks, call.and_then(|call| call.issuer.as_ref()));
            let finished = &finished;
            Some(async move {
                let observations = probe.await;
                finished.set(finished.get() + 1);
                progress(format_args!(
                    "{} of {total} probes finished: {}",
                    finished.get(),
                    vantage_point.name
                ));
                observations
            })
        });
        let observations = join_all(runs).await.into_iter().flatten();
        observations.map(|observation| (observation.id.clone(), observation)).collect()
    }

    /// Runs one probe pod. When it fails, its error is the evidence of all its checks.
    async fn run_probe(
        &self,
        vantage_point: &VantagePoint,
        deployed: Option<&DeployedWorkload>,
        tasks: &[ProbeTask],
        issuer: Option<&Issuer>,
    ) -> Vec<Observation> {
        match self.try_probe(vantage_point, deployed, tasks, issuer).await {
            Ok(observations) => observations,
            Err(error) => tasks
                .iter()
                .map(|task| Observation::new(&task.id, Outcome::Unknown, format_args!("{error:#}")))
                .collect(),
        }
    }

    async fn try_probe(
        &self,
        vantage_point: &VantagePoint,
        deployed: Option<&DeployedWorkload>,
        tasks: &[ProbeTask],
        issuer: Option<&Issuer>,
    ) -> anyhow::Result<Vec<Observation>> {
        let certificate = match issuer {
            Some(issuer) => Some(self.issue_certificate(&vantage_point.namespace, issuer).await?),
            None => None,
        };
        let tasks: Vec<&ProbeTask> = tasks.iter().collect();
        let pod = self.factory.probe(vantage_point, deployed, &tasks, certificate.as_deref());
        let path = format!("/api/v1/namespaces/{}/pods", vantage_point.namespace);
        self.kube.create(&path, &pod).await?;
        let name = self.factory.name_of(&vantage_point.name);
        let finished = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        self.wait_for_pod(&vantage_point.namespace, &name, finished).await?;
        let log = self.kube.text(&format!("{path}/{name}/log")).await?;
        let observations: Vec<Observation> =
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if observations.is_empty() {
            bail!("the probe reported no observation; its log: {}", log.trim());
        }
        Ok(observations)
    }

    /// Requests a certificate of the callers' CA with a SAN that is on no allow-list; returns the name of its Secret.
    async fn issue_certificate(&self, namespace: &str, issuer: &Issuer) -> anyhow::Result<String> {
        let name = self.factory.name_of("other-name");
        let certificate = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: self.factory.run}},
            "spec": {
                "secretName": name,
                "dnsNames": ["stranger.invalid"],
                "usages": ["client auth"],
                "duration": "1h",
                "renewBefore": "20m",
                "privateKey": {"algorithm": "ECDSA"},
                "issuerRef": {"name": issuer.name, "kind": issuer.kind},
                "secretTemplate": {"labels": {LABEL: self.factory.run}},
            },
        });
        let path = format!("/apis/cert-manager.io/v1/namespaces/{namespace}/certificates");
        self.kube.create(&path, &certificate).await?;
        let deadline = Instant::now() + POD_TIMEOUT;
        let secret = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        while self.kube.get(&secret).await.is_err() {
            if Instant::now() > deadline {
                bail!("{} {} issued no certificate in {} s", issuer.kind, issuer.name, POD_TIMEOUT.as_secs());
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(name)
    }

    /// Sends the API requests and submits the pods, one after the other.
    pub(crate) async fn run_api_checks(&self, checks: &[Check]) -> Observations {
        let mut all = Observations::new();
        for check in checks {
            let observation = match &check.action {
                Action::ApiRequest { identity, method, path, body, .. } => {
                    self.send_request(&check.id, identity, method, path, body.as_ref()).await
                }
                Action::CreatePod { namespace, pod } => self.create_pod(&check.id, namespace, pod).await,
                Action::Debug { namespace, pod, body } => self.debug(&check.id, namespace, pod, body).await,
                Action::Observed(observation) => Ok(observation.clone()),
                Action::Probe { .. } | Action::Evict { .. } => continue,
            };
            let observation = observation.unwrap_or_else(|error| {
                Observation::new(&check.id, Outcome::Unknown, format_args!("{error:#}"))
            });
            all.insert(check.id.clone(), observation);
        }
        all
    }

    async fn send_request(
        &self,
        id: &str,
        identity: &Identity,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Observation> {
        let response = self.kube.call(identity, method.clone(), path, body).await?;
        let outcome = authorization_outcome(response.status, response.message());
        let message = if outcome == Outcome::Allowed { "" } else { response.message() };
        Ok(Observation::new(id, outcome, format_args!("{} {message}", response.status)))
    }

    async fn create_pod(&self, id: &str, namespace: &str, pod: &Value) -> anyhow::Result<Observation> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let response = self.kube.call(&Identity::Doctor, Method::POST, &path, Some(pod)).await?;
        if response.is_success() {
            self.kube
                .delete(&format!("{path}/{}?gracePeriodSeconds=0", text(&pod["metadata"]["name"])))
                .await?;
            return Ok(Observation::new(id, Outcome::Allowed, format_args!("{} accepted", response.status)));
        }
        let outcome = admission_outcome(response.status);
        Ok(Observation::new(id, outcome, format_args!("{} {}", response.status, response.message())))
    }

    async fn debug(&self, id: &str, namespace: &str, pod: &str, body: &Value) -> anyhow::Result<Observation> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/ephemeralcontainers?dryRun=All");
        let response = self.kube.call(&Identity::Doctor, Method::PATCH, &path, Some(body)).await?;
        let outcome =
            if response.is_success() { Outcome::Allowed } else { admission_outcome(response.status) };
        Ok(Observation::new(id, outcome, format_args!("{} {}", response.status, response.message())))
    }

    /// Evicts one pod of each workload, immediately another pod, and waits until all are ready again.
    pub(crate) async fn run_evictions(&self, checks: &[Check], inventory: &Inventory) -> Observations {
        let mut all = Observations::new();
        for check in checks {
            let Action::Evict { workload, second: false } = &check.action else { continue };
            let second = checks.iter().find(|other| {
                matches!(&other.action, Action::Evict { workload: other, second: true } if other == workload)
            });
            let ids: Vec<&str> =
                [Some(check), second].into_iter().flatten().map(|check| check.id.as_str()).collect();
            let observations = match inventory.workload(workload) {
                Some(deployed) => self.evict(deployed, &ids).await,
                None => Ok(Vec::new()),
            };
            let observations = observations.unwrap_or_else(|error| {
                ids.iter()
                    .map(|id| Observation::new(id, Outcome::Unknown, format_args!("{error:#}")))
                    .collect()
            });
            all.extend(observations.into_iter().map(|observation| (observation.id.clone(), observation)));
        }
        all
    }

    async fn evict(&self, deployed: &DeployedWorkload, ids: &[&str]) -> anyhow::Result<Vec<Observation>> {
        let ready = self.wait_until_ready(deployed).await?;
        let mut observations = Vec::new();
        for (id, pod) in ids.iter().zip(&ready) {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", deployed.namespace);
            let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": pod, "namespace": deployed.namespace}});
            let response = self.kube.call(&Identity::Doctor, Method::POST, &path, Some(&body)).await?;
            let outcome = match response.status {
                200..=299 => Outcome::Allowed,
                429 => Outcome::Refused,
                _ => Outcome::Unknown,
            };
            observations.push(Observation::new(
                id,
                outcome,
                format_args!("{pod}: {} {}", response.status, response.message()),
            ));
        }
        self.wait_until_ready(deployed).await.context("after an eviction")?;
        Ok(observations)
    }

    /// Waits for all pods of a workload; returns their names.
    async fn wait_until_ready(&self, deployed: &DeployedWorkload) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let pods = self.kube.list(&format!("/api/v1/namespaces/{}/pods", deployed.namespace)).await?;
            let own_pods = pods.iter().filter(|pod| {
                let labels = &pod["metadata"]["labels"];
                selects(&deployed.selector, labels) && labels[LABEL].is_null()
            });
            let ready: Vec<String> =
                own_pods.filter(|pod| is_ready(pod)).map(|pod| text(&pod["metadata"]["name"])).collect();
            if u64::try_from(ready.len()).unwrap_or(0) >= deployed.replicas {
                return Ok(ready);
            }
            if Instant::now() > deadline {
                bail!("{} of {} pods of {} are ready", ready.len(), deployed.replicas, deployed.name);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The Roles and bindings that grant each of these permissions, by the id of its check.
    pub(crate) async fn grants<'t>(
        &self,
        checks: impl Iterator<Item = &'t Check>,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let with_kind = async |plural: &str, kind: &str| {
            let mut objects = self.kube.list(&format!("{RBAC}/{plural}")).await?;
            objects.iter_mut().for_each(|object| object["kind"] = json!(kind));
            anyhow::Ok(objects)
        };
        let mut grants_by_id = BTreeMap::new();
        let mut objects = None;
        for check in checks {
            let Action::ApiRequest { identity, permission, name, namespace, .. } = &check.action else {
                continue;
            };
            if objects.is_none() {
                let mut roles = with_kind("roles", "Role").await?;
                roles.extend(with_kind("clusterroles", "ClusterRole").await?);
                let bindings = with_kind("rolebindings", "RoleBinding").await?;
                objects =
                    Some((roles, bindings, with_kind("clusterrolebindings", "ClusterRoleBinding").await?));
            }
            let Some((roles, bindings, cluster_bindings)) = &objects else { continue };
            let here = bindings.iter().filter(|binding| binding["metadata"]["namespace"] == **namespace);
            let bindings: Vec<Value> = here.chain(cluster_bindings).cloned().collect();
            let granted = grants(permission, name.as_deref(), identity, &bindings, roles);
            if !granted.is_empty() {
                grants_by_id.insert(check.id.clone(), granted.join(", "));
            }
        }
        Ok(grants_by_id)
    }
}

fn cannot_start(pod: &Value) -> bool {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    FATAL_WAITING_REASONS.iter().any(|reason| waiting["reason"] == *reason)
}

/// The outcome of a request that the doctor itself has the right to make, when it was refused.
fn admission_outcome(status: u16) -> Outcome {
    if status == 403 || status == 422 { Outcome::Refused } else { Outcome::Unknown }
}

/// Whether a response means that the request was authorized.
fn authorization_outcome(status: u16, message: &str) -> Outcome {
    match status {
        // The doctor lacks the right to impersonate: inconclusive.
        403 if message.contains("cannot impersonate") => Outcome::Unknown,
        // The wording of RBAC. Admission, which runs later, words its refusals differently.
        403 if message.contains(" cannot ") => Outcome::Refused,
        200..=299 | 404 | 409 | 422 => Outcome::Allowed,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_early_for_an_unavailable_image_but_not_for_a_slow_start() {
        let waits = |reason: &str| {
            let states = json!([{"state": {"waiting": {"reason": reason}}}]);
            cannot_start(&json!({"status": {"containerStatuses": states}}))
        };
        assert!(waits("ImagePullBackOff") && waits("InvalidImageName"));
        assert!(!waits("ContainerCreating") && !waits("ErrImagePull"));
        assert!(!cannot_start(&json!({"status": {"phase": "Pending"}})));
    }

    #[test]
    fn only_a_refusal_by_authorization_counts_as_refused() {
        for (status, message, wanted) in [
            (403, "secrets is forbidden: User \"u\" cannot get resource \"secrets\"", Outcome::Refused),
            (403, "users \"u\" is forbidden: User \"me\" cannot impersonate resource", Outcome::Unknown),
            (403, "denied by the admission policy", Outcome::Unknown),
            (404, "deployments.apps \"x\" not deployed", Outcome::Allowed),
            (200, "", Outcome::Allowed),
            (429, "slow down", Outcome::Unknown),
            (500, "", Outcome::Unknown),
        ] {
            assert_eq!(authorization_outcome(status, message), wanted, "{status} {message}");
        }
    }
}
