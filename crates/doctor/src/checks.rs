//! Expectations and the inventory become checks, each expected refusal with its positive control. Pure; runs nothing.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use crate::expectations::{
    CallRule, Expectations, FORBIDDEN_IN_OTHER_NAMESPACES, FORBIDDEN_IN_OWN_NAMESPACE, IMPOSTOR_PREFIX,
    NEIGHBOUR_PREFIX, OUTSIDER,
};
use crate::inventory::Inventory;
use crate::kube::Identity;
use crate::network;
use crate::rbac::Permission;
use crate::task::{CallFault, Observation, ProbeAction, ProviderCall};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Tests on pods of the doctor's own: whether the CNI enforces policies at all.
    Enforcement,
    Network,
    Egress,
    Callers,
    Rbac,
    Secrets,
    PodSecurity,
    Images,
    Disruption,
    // Comparisons of objects.
    Bindings,
    Policies,
    Endpoints,
    Settings,
    Admission,
    Issuers,
    Routes,
}

impl Topic {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Enforcement => "control",
            Self::Network => "network",
            Self::Egress => "egress",
            Self::Callers => "callers",
            Self::Rbac => "rbac",
            Self::Secrets => "secrets",
            Self::PodSecurity => "pod-security",
            Self::Images => "images",
            Self::Disruption => "disruption",
            Self::Bindings => "bindings",
            Self::Policies => "policies",
            Self::Endpoints => "endpoints",
            Self::Settings => "settings",
            Self::Admission => "admission",
            Self::Issuers => "issuers",
            Self::Routes => "routes",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) id: String,
    pub(crate) topic: Topic,
    /// The acting workload, pod or identity.
    pub(crate) subject: String,
    /// The address, object or permission that is tested.
    pub(crate) target: String,
    pub(crate) expect_allowed: bool,
    /// The id of the similar check that must be allowed for a refusal of this one to count.
    pub(crate) positive_control: Option<String>,
    /// The probable cause of an unexpected outcome.
    pub(crate) hint: String,
    /// Whether the target is known to be ready, so that a refusal can only come from the path to it.
    pub(crate) target_is_ready: bool,
    pub(crate) action: Action,
}

/// How a check is carried out.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Probe {
        vantage_point: String,
        action: ProbeAction,
    },
    /// A request to the API server.
    ApiRequest {
        identity: Identity,
        method: Method,
        path: String,
        body: Option<Value>,
        permission: Permission,
        name: Option<String>,
        namespace: String,
    },
    /// Submits a pod to the API server, and deletes it if it is accepted.
    CreatePod {
        namespace: String,
        pod: Value,
    },
    /// Adds an ephemeral container to a running pod, as a dry run, because it could not be removed again.
    Debug {
        namespace: String,
        pod: String,
        body: Value,
    },
    /// Evicts the first pod of a workload, or the second right after it.
    Evict {
        workload: String,
        second: bool,
    },
    /// The outcome is already known from the inventory.
    Observed(Observation),
}

/// The place of a probe: its namespace and labels, which policies select by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VantagePoint {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The workload whose pod the probe copies.
    pub(crate) workload: Option<String>,
}

impl VantagePoint {
    /// Whether this is an unlabelled pod in a namespace of the environment.
    pub(crate) fn is_neighbour(&self) -> bool {
        self.workload.is_none() && self.name.starts_with(NEIGHBOUR_PREFIX)
    }
}

impl Check {
    pub(crate) fn new(
        topic: Topic,
        subject: &str,
        target: &str,
        expect_allowed: bool,
        hint: impl Into<String>,
        action: Action,
    ) -> Self {
        Self {
            id: format!("{}: {subject} -> {target}", topic.as_str()),
            topic,
            subject: subject.to_owned(),
            target: target.to_owned(),
            expect_allowed,
            positive_control: None,
            hint: hint.into(),
            target_is_ready: false,
            action,
        }
    }

    pub(crate) fn with_positive_control(mut self, positive_control: impl Into<Option<String>>) -> Self {
        self.positive_control = positive_control.into();
        self
    }

    /// Whether a NetworkPolicy decides the outcome.
    pub(crate) fn is_network(&self) -> bool {
        matches!(self.topic, Topic::Enforcement | Topic::Network | Topic::Egress)
    }

    pub(crate) fn expected(&self) -> &'static str {
        if self.expect_allowed { "allowed" } else { "refused" }
    }
}

/// The places of probes:
/// - in place of each workload and each source;
/// - as a neighbour, without labels, in each namespace of the environment;
/// - as an outsider, in a namespace of the doctor's own;
/// - as an impostor of each permitted caller: with all of its labels, in the outsider's namespace.
pub(crate) fn vantage_points(
    expectations: &Expectations,
    inventory: &Inventory,
    own: &str,
) -> Vec<VantagePoint> {
    let vantage_point = |name: String, namespace: &str, labels, workload| VantagePoint {
        name,
        namespace: namespace.to_owned(),
        labels,
        workload,
    };
    let mut all = Vec::new();
    for deployed in &inventory.workloads {
        let labels = deployed.template["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        all.push(vantage_point(
            deployed.name.clone(),
            &deployed.namespace,
            labels.collect(),
            Some(deployed.name.clone()),
        ));
    }
    let sources = expectations.sources.iter();
    all.extend(
        sources
            .map(|source| vantage_point(source.name.clone(), &source.namespace, source.labels.clone(), None)),
    );
    let neighbours = expectations.namespaces();
    all.extend(neighbours.iter().map(|namespace| {
        vantage_point(format!("{NEIGHBOUR_PREFIX}{namespace}"), namespace, BTreeMap::new(), None)
    }));
    all.push(vantage_point(OUTSIDER.to_owned(), own, BTreeMap::new(), None));
    let callers = all.iter().filter(|caller| {
        !caller.labels.is_empty() && expectations.paths.iter().any(|path| path.from == caller.name)
    });
    let impostors: Vec<VantagePoint> = callers
        .map(|caller| {
            vantage_point(format!("{IMPOSTOR_PREFIX}{}", caller.name), own, caller.labels.clone(), None)
        })
        .collect();
    all.extend(impostors);
    all
}

/// All checks of an environment.
pub(crate) fn plan_checks(
    expectations: &Expectations,
    inventory: &Inventory,
    vantage_points: &[VantagePoint],
    pod: &Value,
) -> Vec<Check> {
    let mut checks = network::enforcement_checks(inventory);
    for deployed in &inventory.workloads {
        checks.extend(network::ingress_checks(expectations, inventory, vantage_points, deployed));
    }
    checks.extend(network::egress_checks(expectations, inventory, vantage_points));
    for rule in &expectations.calls {
        checks.extend(call_checks(rule, inventory));
    }
    checks.extend(team_checks(expectations, inventory));
    checks.extend(secret_checks(expectations, inventory));
    checks.extend(crate::pods::pod_security_checks(expectations, inventory, pod));
    checks.extend(crate::pods::image_checks(expectations, inventory, pod));
    for workload in &expectations.evictions {
        checks.extend(eviction_checks(workload, inventory));
    }
    checks
}

/// A valid call, and calls with one fault each.
fn call_checks(rule: &CallRule, inventory: &Inventory) -> Vec<Check> {
    let (from, to) = (&rule.from, &rule.to);
    let address =
        inventory.workload(to).and_then(|deployed| deployed.services.first()?.addresses.first().cloned());
    let check = |fault: CallFault, target: String, hint: String| {
        let address = address.clone().filter(|_| fault == CallFault::WrongServerName);
        let call = ProviderCall { path: rule.path.clone(), fault, name: rule.name.clone(), address };
        let action = Action::Probe { vantage_point: from.clone(), action: ProbeAction::Call(call) };
        Check::new(Topic::Callers, from, &target, fault == CallFault::None, hint, action)
    };
    let valid = check(
        CallFault::None,
        format!("{to} {} valid", rule.path),
        format!("{to} rejects {from} with its own certificate and token"),
    );
    let positive_control = valid.id.clone();
    let mut checks = vec![valid];
    let mut faulty = |fault, target: &str, hint: &str| {
        let check = check(fault, format!("{to} {target}"), format!("{to} {hint}"));
        checks.push(check.with_positive_control(positive_control.clone()));
    };
    if rule.certificate {
        faulty(
            CallFault::NoCertificate,
            "without a certificate",
            "serves callers without a certificate: mutual TLS is off (TLS_CLIENT_CA, tls.allowedClients)",
        );
        faulty(
            CallFault::OtherCa,
            "with a certificate of another CA",
            "accepts certificates of any CA (TLS_CLIENT_CA)",
        );
        if rule.issuer.is_some() {
            faulty(
                CallFault::OtherSan,
                "with a certificate for another name",
                "accepts any SAN that its CA signed (TLS_ALLOWED_CLIENTS)",
            );
        }
        faulty(CallFault::PlainHttp, "without TLS", "answers plain HTTP: TLS is off (TLS_CERT, tls.enabled)");
        faulty(
            CallFault::UntrustedServerCa,
            "when the caller trusts another CA",
            "is accepted with a certificate of an untrusted CA: the caller does not verify it (PROVIDER_CA)",
        );
        faulty(
            CallFault::WrongServerName,
            "by an address that its certificate lacks",
            "is accepted under any name: the caller does not verify the server name",
        );
    }
    if rule.token {
        let hint = "serves callers without a valid token (PAYMENTS_API_TOKEN_FILE, ALLOW_ANONYMOUS)";
        faulty(CallFault::WrongToken, "with a wrong token", hint);
        faulty(CallFault::NoToken, "without a token", hint);
    }
    checks
}

fn api_request(identity: &Identity, permission: Permission, namespace: &str, name: Option<&str>) -> Action {
    let (method, path, body) = permission.request(namespace, name);
    let (identity, name, namespace) = (identity.clone(), name.map(str::to_owned), namespace.to_owned());
    Action::ApiRequest { identity, method, path, body, permission, name, namespace }
}

/// Checks each team in its own namespace and in all other namespaces.
fn team_checks(expectations: &Expectations, inventory: &Inventory) -> Vec<Check> {
    let mut checks = Vec::new();
    for team in &expectations.teams {
        let identity = Identity::Group(team.group.clone());
        let check = |text: &str, namespace: &str, expect_allowed: bool| {
            let permission = Permission::parse(text)?;
            let name = inventory
                .objects
                .get(&(namespace.to_owned(), permission.resource.plural))
                .map(String::as_str);
            let target = format!("{text} in {namespace}");
            let hint = match expect_allowed {
                true => format!("a Role in {namespace} should grant it to group {}", team.group),
                false => format!("group {} may {target}", team.group),
            };
            let action = api_request(&identity, permission, namespace, name);
            Some(Check::new(Topic::Rbac, &team.group, &target, expect_allowed, hint, action))
        };
        let may = team.may.iter().filter_map(|text| check(text, &team.namespace, true));
        let may: Vec<Check> = may.collect();
        let positive_control = may.first().map(|check| check.id.clone());
        checks.extend(may);
        let own = FORBIDDEN_IN_OWN_NAMESPACE.into_iter().chain(team.may_not.iter().map(String::as_str));
        let own = own.filter(|text| !team.may.iter().any(|may| may == text));
        let own = own.filter_map(|text| check(text, &team.namespace, false));
        let others = expectations.namespaces();
        let others = others.into_iter().filter(|namespace| *namespace != team.namespace);
        let others = others.flat_map(|namespace| {
            FORBIDDEN_IN_OTHER_NAMESPACES.into_iter().map(move |text| (namespace, text))
        });
        let others = others.filter_map(|(namespace, text)| check(text, namespace, false));
        checks.extend(own.chain(others).map(|check| check.with_positive_control(positive_control.clone())));
    }
    checks
}

/// Every Secret, read as every team, every workload's ServiceAccount and every namespace's default one. The positive
/// control is the doctor itself: the Secret exists and can be read.
fn secret_checks(expectations: &Expectations, inventory: &Inventory) -> Vec<Check> {
    let mut readers: Vec<Identity> =
        expectations.teams.iter().map(|team| Identity::Group(team.group.clone())).collect();
    let accounts =
        inventory.workloads.iter().map(|deployed| (deployed.namespace.as_str(), deployed.account.as_str()));
    let defaults = expectations.namespaces();
    let defaults = defaults.iter().map(|namespace| (*namespace, "default"));
    let accounts: std::collections::BTreeSet<_> = accounts.chain(defaults).collect();
    readers.extend(
        accounts.into_iter().map(|(space, name)| Identity::ServiceAccount(space.to_owned(), name.to_owned())),
    );
    let mut checks = Vec::new();
    for (namespace, name) in &inventory.secrets {
        let Some(permission) = Permission::parse("get secrets") else { continue };
        let target = format!("secret {namespace}/{name}");
        let own = api_request(&Identity::Doctor, permission.clone(), namespace, Some(name));
        let doctor = Check::new(
            Topic::Secrets,
            "the doctor",
            &target,
            true,
            "it was deleted, or the doctor lacks the right",
            own,
        );
        for identity in &readers {
            let expect_allowed = expectations.teams.iter().any(|team| {
                *identity == Identity::Group(team.group.clone())
                    && team.namespace == *namespace
                    && team.may.iter().any(|may| may == "get secrets")
            });
            let hint = format!("{identity} reads {target}");
            let action = api_request(identity, permission.clone(), namespace, Some(name));
            let check =
                Check::new(Topic::Secrets, &identity.to_string(), &target, expect_allowed, hint, action);
            checks.push(check.with_positive_control(doctor.id.clone()));
        }
        checks.push(doctor);
    }
    checks
}

/// One eviction is allowed, the next one only after the first pod is replaced.
fn eviction_checks(workload: &str, inventory: &Inventory) -> Vec<Check> {
    let namespace = inventory.workload(workload).map_or("", |deployed| deployed.namespace.as_str());
    let check = |target: &str, second: bool, hint: String| {
        let action = Action::Evict { workload: workload.to_owned(), second };
        Check::new(Topic::Disruption, "an eviction", &format!("{workload}: {target}"), !second, hint, action)
    };
    let hint = format!("poddisruptionbudget in {namespace} blocks every drain, or too few pods are ready");
    let first = check("one pod", false, hint);
    let hint = format!(
        "no poddisruptionbudget in {namespace} covers {workload}, or it permits two evictions at once"
    );
    let second = check("another at once", true, hint).with_positive_control(first.id.clone());
    vec![first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{DeployedWorkload, Listeners, Service};
    use serde_json::json;
    use std::collections::BTreeSet;

    fn deployed(name: &str, ports: [u16; 2]) -> DeployedWorkload {
        DeployedWorkload {
            name: name.to_owned(),
            namespace: name.to_owned(),
            account: name.to_owned(),
            replicas: 3,
            template: json!({"metadata": {"labels": {"app": name}}}),
            selector: Value::Null,
            ports: ports.to_vec(),
            readiness_port: Some(ports[1]),
            pod: Some((format!("{name}-1"), vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()])),
            services: vec![Service {
                name: name.to_owned(),
                addresses: vec!["10.96.0.1".to_owned(), "fd96::1".to_owned()],
                port: 80,
                target: ports[0],
            }],
            dns: true,
            policy: Some(name.to_owned()),
        }
    }

    /// The checks of production's expectations, for two workloads with both address families.
    fn planned() -> Vec<Check> {
        let text = include_str!("../../../deploy/envs/production/doctor.toml");
        let expectations = Expectations::parse(text).unwrap();
        let inventory = Inventory {
            workloads: vec![deployed("antaeus", [8000, 8001]), deployed("payments", [9000, 9001])],
            secrets: vec![("payments".to_owned(), "payments-token".to_owned())],
            api_server: vec!["10.96.0.1".to_owned()],
            listeners: Listeners { open: vec!["10.0.0.8".to_owned()], closed: vec!["10.0.0.9".to_owned()] },
            ..Inventory::default()
        };
        let vantage_points = vantage_points(&expectations, &inventory, "own");
        plan_checks(
            &expectations,
            &inventory,
            &vantage_points,
            &json!({"metadata": {}, "spec": {"containers": [{}]}}),
        )
    }

    #[test]
    fn every_refusal_has_a_positive_control_among_the_checks() {
        let checks = planned();
        let allowed: BTreeSet<&str> =
            checks.iter().filter(|check| check.expect_allowed).map(|check| check.id.as_str()).collect();
        let refusals: Vec<&Check> = checks.iter().filter(|check| !check.expect_allowed).collect();
        assert!(refusals.len() > 60, "{}", refusals.len());
        for check in refusals {
            assert!(
                check
                    .positive_control
                    .as_deref()
                    .is_some_and(|positive_control| allowed.contains(positive_control)),
                "{check:?}"
            );
            assert!(!check.hint.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn every_topic_is_planned_and_check_ids_are_unique() {
        let checks = planned();
        let topics: BTreeSet<Topic> = checks.iter().map(|check| check.topic).collect();
        assert_eq!(topics.len(), 9, "{topics:?}");
        let ids: BTreeSet<&str> = checks.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(ids.len(), checks.len());
    }

    #[test]
    fn both_address_families_are_checked_and_only_listed_paths_are_open() {
        let checks = planned();
        let expect_allowed = |subject: &str, target: &str| {
            let deployed = checks.iter().find(|check| check.subject == subject && check.target == target);
            deployed.unwrap_or_else(|| panic!("{subject} -> {target}")).expect_allowed
        };
        for host in ["10.0.0.1:9000", "[fd00::1]:9000"] {
            let target = format!("payments pod {host}");
            assert!(expect_allowed("antaeus", &target));
            for subject in [
                "payments",
                "stranger",
                "neighbour.antaeus",
                "neighbour.payments",
                "prometheus",
                "double.antaeus",
            ] {
                assert!(!expect_allowed(subject, &target), "{subject}");
            }
        }
        assert!(
            expect_allowed("antaeus", "service payments [fd96::1]:80"),
            "by the port of the pods behind it"
        );
        assert!(expect_allowed("prometheus", "payments pod 10.0.0.1:9001"));
        assert!(!expect_allowed("antaeus", "the API server 10.96.0.1:443"));
    }
}
