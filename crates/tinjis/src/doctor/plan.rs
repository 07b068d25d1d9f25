//! From expectations and facts to trials: everything that is to be tried, each refusal with its allowed twin. Pure;
//! runs nothing.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use super::expect::{CallRule, DOUBLE, Expectations, NEIGHBOUR, OTHERS_FORBIDDEN, OWN_FORBIDDEN, STRANGER};
use super::facts::Facts;
use super::kube::As;
use super::paths;
use super::rbac::Deed;
use super::task::{Call, Fault, Seen, What};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// On pods of the doctor's own: whether policies are enforced at all.
    Control,
    Network,
    Egress,
    Callers,
    Rbac,
    Secrets,
    PodSecurity,
    Images,
    Disruption,
}

impl Topic {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Network => "network",
            Self::Egress => "egress",
            Self::Callers => "callers",
            Self::Rbac => "rbac",
            Self::Secrets => "secrets",
            Self::PodSecurity => "pod-security",
            Self::Images => "images",
            Self::Disruption => "disruption",
        }
    }
}

/// One thing to try.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) id: String,
    pub(super) topic: Topic,
    pub(super) who: String,
    pub(super) what: String,
    /// Whether it should get through.
    pub(super) hope: bool,
    /// The trial beside which a refusal is believed.
    pub(super) twin: Option<String>,
    /// What to look at when it is not as it should be.
    pub(super) look_at: String,
    /// Whether it is known that who is called is there, so that a refusal can only come from the way.
    pub(super) is_up: bool,
    pub(super) action: Action,
}

/// How it is tried.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// From the pod in this place.
    Probe { station: String, what: What },
    /// A request to the API server.
    Ask {
        who: As,
        method: Method,
        path: String,
        body: Option<Value>,
        deed: Deed,
        name: Option<String>,
        namespace: String,
    },
    /// A pod that is given to the API server, and taken back if it is accepted.
    Submit { namespace: String, pod: Value },
    /// An eviction: of the first pod of a workload, or of the second right after it.
    Evict { workload: String, second: bool },
    /// Known already.
    Known(Seen),
}

/// Where a probe stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Station {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    /// The workload in whose place it stands.
    pub(super) workload: Option<String>,
}

impl Station {
    /// A pod that nobody knows, within a namespace of the environment.
    pub(super) fn is_neighbour(&self) -> bool {
        self.workload.is_none() && self.name.starts_with(NEIGHBOUR)
    }
}

impl Trial {
    pub(super) fn new(
        topic: Topic,
        who: &str,
        what: &str,
        hope: bool,
        look_at: impl Into<String>,
        action: Action,
    ) -> Self {
        Self {
            id: format!("{}: {who} -> {what}", topic.name()),
            topic,
            who: who.to_owned(),
            what: what.to_owned(),
            hope,
            twin: None,
            look_at: look_at.into(),
            is_up: false,
            action,
        }
    }

    pub(super) fn beside(mut self, twin: impl Into<Option<String>>) -> Self {
        self.twin = twin.into();
        self
    }

    /// Whether a policy of the network decides it.
    pub(super) fn is_network(&self) -> bool {
        matches!(self.topic, Topic::Control | Topic::Network | Topic::Egress)
    }
}

/// Where probes are to stand: in the place of each workload and each source, as a neighbour without labels in each
/// namespace, as a stranger, and as a double of whoever may call, with all of its labels and in the stranger's place.
pub(super) fn stations(expectations: &Expectations, facts: &Facts, own: &str) -> Vec<Station> {
    let station = |name: String, namespace: &str, labels, workload| Station {
        name,
        namespace: namespace.to_owned(),
        labels,
        workload,
    };
    let mut all = Vec::new();
    for found in &facts.workloads {
        let labels = found.template["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        all.push(station(found.name.clone(), &found.namespace, labels.collect(), Some(found.name.clone())));
    }
    let sources = expectations.sources.iter();
    all.extend(
        sources.map(|source| station(source.name.clone(), &source.namespace, source.labels.clone(), None)),
    );
    let neighbours = expectations.namespaces();
    all.extend(
        neighbours
            .iter()
            .map(|namespace| station(format!("{NEIGHBOUR}{namespace}"), namespace, BTreeMap::new(), None)),
    );
    all.push(station(STRANGER.to_owned(), own, BTreeMap::new(), None));
    let callers = all.iter().filter(|caller| {
        !caller.labels.is_empty() && expectations.paths.iter().any(|path| path.from == caller.name)
    });
    let doubles: Vec<Station> = callers
        .map(|caller| station(format!("{DOUBLE}{}", caller.name), own, caller.labels.clone(), None))
        .collect();
    all.extend(doubles);
    all
}

/// Everything.
pub(super) fn plan(
    expectations: &Expectations,
    facts: &Facts,
    stations: &[Station],
    pod: &Value,
) -> Vec<Trial> {
    let mut trials = paths::control(facts);
    for found in &facts.workloads {
        trials.extend(paths::ingress(expectations, facts, stations, found));
    }
    trials.extend(paths::egress(expectations, facts, stations));
    for rule in &expectations.calls {
        trials.extend(calls(rule, facts));
    }
    trials.extend(teams(expectations, facts));
    trials.extend(secrets(expectations, facts));
    trials.extend(super::pods::security(expectations, facts, pod));
    trials.extend(super::pods::images(expectations, pod));
    for workload in &expectations.evictions {
        trials.extend(evictions(workload, facts));
    }
    trials
}

/// A right call, and calls that each have one thing wrong.
fn calls(rule: &CallRule, facts: &Facts) -> Vec<Trial> {
    let (from, to) = (&rule.from, &rule.to);
    let address = facts.workload(to).and_then(|found| found.services.first()?.addresses.first().cloned());
    let trial = |fault: Fault, what: String, look_at: String| {
        let address = address.clone().filter(|_| fault == Fault::ServerName);
        let call = Call { path: rule.path.clone(), fault, name: rule.name.clone(), address };
        let action = Action::Probe { station: from.clone(), what: What::Call(call) };
        Trial::new(Topic::Callers, from, &what, fault == Fault::None, look_at, action)
    };
    let right = trial(
        Fault::None,
        format!("{to} {} as it should", rule.path),
        format!("{to} does not serve {from}, whose certificate and token are its own"),
    );
    let twin = right.id.clone();
    let mut trials = vec![right];
    let mut wrong = |fault, what: &str, look_at: &str| {
        let trial = trial(fault, format!("{to} {what}"), format!("{to} {look_at}"));
        trials.push(trial.beside(twin.clone()));
    };
    if rule.certificate {
        wrong(
            Fault::NoCertificate,
            "without a certificate",
            "serves callers without a certificate: mutual TLS is off (TLS_CLIENT_CA, tls.allowedClients)",
        );
        wrong(
            Fault::OtherAuthority,
            "with a certificate of another authority",
            "takes certificates of any authority (TLS_CLIENT_CA)",
        );
        if rule.issuer.is_some() {
            wrong(
                Fault::OtherName,
                "with a certificate for another name",
                "takes any name that its authority signed (TLS_ALLOWED_CLIENTS)",
            );
        }
        wrong(Fault::Plain, "without TLS", "answers plain HTTP: TLS is off (TLS_CERT, tls.enabled)");
        wrong(
            Fault::ServerAuthority,
            "trusting another authority",
            "passes for a server of another authority: its caller does not look (PROVIDER_CA)",
        );
        wrong(
            Fault::ServerName,
            "under an address that its certificate lacks",
            "passes under any name: its caller does not look",
        );
    }
    if rule.token {
        let look_at = "serves callers without the right token (PAYMENTS_API_TOKEN_FILE, ALLOW_ANONYMOUS)";
        wrong(Fault::WrongToken, "with a wrong token", look_at);
        wrong(Fault::NoToken, "without a token", look_at);
    }
    trials
}

fn ask(who: &As, deed: Deed, namespace: &str, name: Option<&str>) -> Action {
    let (method, path, body) = deed.request(namespace, name);
    let (who, name, namespace) = (who.clone(), name.map(str::to_owned), namespace.to_owned());
    Action::Ask { who, method, path, body, deed, name, namespace }
}

/// Each team in its namespace and in the others'.
fn teams(expectations: &Expectations, facts: &Facts) -> Vec<Trial> {
    let mut trials = Vec::new();
    for team in &expectations.teams {
        let who = As::Team(team.group.clone());
        let trial = |words: &str, namespace: &str, hope: bool| {
            let deed = Deed::parse(words)?;
            let name = facts.objects.get(&(namespace.to_owned(), deed.resource.plural)).map(String::as_str);
            let what = format!("{words} in {namespace}");
            let look_at = match hope {
                true => format!("a Role in {namespace} should grant it to group {}", team.group),
                false => format!("group {} may {what}", team.group),
            };
            let action = ask(&who, deed, namespace, name);
            Some(Trial::new(Topic::Rbac, &team.group, &what, hope, look_at, action))
        };
        let may = team.may.iter().filter_map(|words| trial(words, &team.namespace, true));
        let may: Vec<Trial> = may.collect();
        let twin = may.first().map(|trial| trial.id.clone());
        trials.extend(may);
        let own = OWN_FORBIDDEN.into_iter().chain(team.may_not.iter().map(String::as_str));
        let own = own.filter(|words| !team.may.iter().any(|may| may == words));
        let own = own.filter_map(|words| trial(words, &team.namespace, false));
        let others = expectations.namespaces();
        let others = others.into_iter().filter(|namespace| *namespace != team.namespace);
        let others =
            others.flat_map(|namespace| OTHERS_FORBIDDEN.into_iter().map(move |words| (namespace, words)));
        let others = others.filter_map(|(namespace, words)| trial(words, namespace, false));
        trials.extend(own.chain(others).map(|trial| trial.beside(twin.clone())));
    }
    trials
}

/// Every Secret, by every account of a workload and every namespace's default one; teams are asked too. The doctor
/// itself is the twin: the Secret is there to be read.
fn secrets(expectations: &Expectations, facts: &Facts) -> Vec<Trial> {
    let mut readers: Vec<As> = expectations.teams.iter().map(|team| As::Team(team.group.clone())).collect();
    let accounts = facts.workloads.iter().map(|found| (found.namespace.as_str(), found.account.as_str()));
    let defaults = expectations.namespaces();
    let defaults = defaults.iter().map(|namespace| (*namespace, "default"));
    let accounts: std::collections::BTreeSet<_> = accounts.chain(defaults).collect();
    readers.extend(accounts.into_iter().map(|(space, name)| As::Account(space.to_owned(), name.to_owned())));
    let mut trials = Vec::new();
    for (namespace, name) in &facts.secrets {
        let Some(deed) = Deed::parse("get secrets") else { continue };
        let what = format!("secret {namespace}/{name}");
        let own = ask(&As::Doctor, deed.clone(), namespace, Some(name));
        let doctor =
            Trial::new(Topic::Secrets, "the doctor", &what, true, "it went away, or the doctor may not", own);
        for who in &readers {
            let hope = expectations.teams.iter().any(|team| {
                *who == As::Team(team.group.clone())
                    && team.namespace == *namespace
                    && team.may.iter().any(|may| may == "get secrets")
            });
            let look_at = format!("{who} reads {what}");
            let action = ask(who, deed.clone(), namespace, Some(name));
            let trial = Trial::new(Topic::Secrets, &who.to_string(), &what, hope, look_at, action);
            trials.push(trial.beside(doctor.id.clone()));
        }
        trials.push(doctor);
    }
    trials
}

/// One pod may go, the next one not before it is replaced.
fn evictions(workload: &str, facts: &Facts) -> Vec<Trial> {
    let namespace = facts.workload(workload).map_or("", |found| found.namespace.as_str());
    let trial = |what: &str, second: bool, look_at: String| {
        let action = Action::Evict { workload: workload.to_owned(), second };
        Trial::new(Topic::Disruption, "an eviction", &format!("{workload}: {what}"), !second, look_at, action)
    };
    let look_at = format!("poddisruptionbudget in {namespace} blocks every drain, or too few pods are ready");
    let first = trial("one pod", false, look_at);
    let look_at =
        format!("no poddisruptionbudget in {namespace} holds {workload}, or it lets two go at once");
    let second = trial("another at once", true, look_at).beside(first.id.clone());
    vec![first, second]
}

/// For the words of a report.
pub(super) fn expected(trial: &Trial) -> &'static str {
    if trial.hope { "allowed" } else { "refused" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Found, Listeners, Service};
    use serde_json::json;
    use std::collections::BTreeSet;

    fn found(name: &str, ports: [u16; 2]) -> Found {
        Found {
            name: name.to_owned(),
            namespace: name.to_owned(),
            account: name.to_owned(),
            replicas: 3,
            template: json!({"metadata": {"labels": {"app": name}}}),
            selector: Value::Null,
            ports: ports.to_vec(),
            asked: Some(ports[1]),
            pod: Some((format!("{name}-1"), vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()])),
            services: vec![Service {
                name: name.to_owned(),
                addresses: vec!["10.96.0.1".to_owned(), "fd96::1".to_owned()],
                port: 80,
                target: ports[0],
            }],
            names: true,
            policy: Some(name.to_owned()),
        }
    }

    /// All of production's expectations, on two workloads with both address families.
    fn planned() -> Vec<Trial> {
        let text = include_str!("../../../../deploy/envs/production/doctor.toml");
        let expectations = Expectations::parse(text).unwrap();
        let facts = Facts {
            workloads: vec![found("antaeus", [8000, 8001]), found("payments", [9000, 9001])],
            secrets: vec![("payments".to_owned(), "payments-token".to_owned())],
            api_server: vec!["10.96.0.1".to_owned()],
            listeners: Listeners { open: vec!["10.0.0.8".to_owned()], closed: vec!["10.0.0.9".to_owned()] },
            ..Facts::default()
        };
        let stations = stations(&expectations, &facts, "own");
        plan(&expectations, &facts, &stations, &json!({"metadata": {}, "spec": {"containers": [{}]}}))
    }

    #[test]
    fn every_refusal_has_an_allowed_twin_that_is_tried_too() {
        let trials = planned();
        let allowed: BTreeSet<&str> =
            trials.iter().filter(|trial| trial.hope).map(|trial| trial.id.as_str()).collect();
        let refusals: Vec<&Trial> = trials.iter().filter(|trial| !trial.hope).collect();
        assert!(refusals.len() > 60, "{}", refusals.len());
        for trial in refusals {
            assert!(trial.twin.as_deref().is_some_and(|twin| allowed.contains(twin)), "{trial:?}");
            assert!(!trial.look_at.is_empty(), "{trial:?}");
        }
    }

    #[test]
    fn every_topic_is_planned_and_no_two_trials_have_one_name() {
        let trials = planned();
        let topics: BTreeSet<Topic> = trials.iter().map(|trial| trial.topic).collect();
        assert_eq!(topics.len(), 9, "{topics:?}");
        let ids: BTreeSet<&str> = trials.iter().map(|trial| trial.id.as_str()).collect();
        assert_eq!(ids.len(), trials.len());
    }

    #[test]
    fn both_address_families_are_tried_and_only_named_paths_are_open() {
        let trials = planned();
        let hope = |who: &str, what: &str| {
            let found = trials.iter().find(|trial| trial.who == who && trial.what == what);
            found.unwrap_or_else(|| panic!("{who} -> {what}")).hope
        };
        for host in ["10.0.0.1:9000", "[fd00::1]:9000"] {
            let what = format!("payments pod {host}");
            assert!(hope("antaeus", &what));
            for who in [
                "payments",
                "stranger",
                "neighbour.antaeus",
                "neighbour.payments",
                "prometheus",
                "double.antaeus",
            ] {
                assert!(!hope(who, &what), "{who}");
            }
        }
        assert!(hope("antaeus", "service payments [fd96::1]:80"), "by the port behind it");
        assert!(hope("prometheus", "payments pod 10.0.0.1:9001"));
        assert!(!hope("antaeus", "the API server 10.96.0.1:443"));
    }
}
