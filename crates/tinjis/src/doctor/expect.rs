//! The expectations of one environment, from its TOML file: who there is, and what is allowed. All else is forbidden.
//! Plain data and its checks; knows no cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// As a source of paths: whoever is free to call. Workloads are not, nor are neighbours where a namespace denies by
/// default; each path of theirs is named.
pub(super) const EVERYBODY: &str = "everybody";
/// The doctor's own pods, which no environment knows.
pub(super) const STRANGER: &str = "stranger";
/// Begins the names of neighbours; no workload's name has a dot.
pub(super) const NEIGHBOUR: &str = "neighbour.";
/// Begins the names of doubles.
pub(super) const DOUBLE: &str = "double.";
/// As a target of paths: the API server's Service.
pub(super) const APISERVER: &str = "apiserver";
/// What a team or an account might try in a namespace of its own, beside what it `may`.
pub(super) const OWN_FORBIDDEN: [&str; 7] = [
    "get secrets",
    "create pods/exec",
    "patch pods/ephemeralcontainers",
    "patch networkpolicies",
    "patch roles",
    "patch rolebindings",
    "patch resourcequotas",
];
/// And in those of others.
pub(super) const OTHERS_FORBIDDEN: [&str; 6] = [
    "patch deployments",
    "get pods",
    "delete pods",
    "create pods/exec",
    "get secrets",
    "patch networkpolicies",
];

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectations {
    /// Its name, for reports.
    pub(super) environment: String,
    /// What runs there; paths between all of them are tried.
    #[serde(rename = "workload")]
    pub(super) workloads: Vec<Workload>,
    /// More who may call: pods with such labels in such a namespace.
    #[serde(default, rename = "source")]
    pub(super) sources: Vec<Source>,
    /// Open paths.
    #[serde(default, rename = "path")]
    pub(super) paths: Vec<Path>,
    /// More addresses that no workload may reach: `host:port`.
    #[serde(default)]
    pub(super) elsewhere: Vec<String>,
    /// Calls to a provider, as a workload's own settings make them.
    #[serde(default, rename = "call")]
    pub(super) calls: Vec<CallRule>,
    #[serde(default, rename = "team")]
    pub(super) teams: Vec<Team>,
    /// Images that a namespace must not run.
    #[serde(default, rename = "image")]
    pub(super) images: Vec<ImageRule>,
    /// Namespaces where the forbidden pods are tried; those of the workloads when not given.
    #[serde(default)]
    pub(super) restricted: Option<Vec<String>>,
    /// Whether whoever is not named in a policy of its own must reach nobody from these namespaces.
    #[serde(default)]
    pub(super) default_deny: bool,
    /// Workloads whose disruption budget is tried by evicting two pods at once.
    #[serde(default)]
    pub(super) evictions: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) kind: Kind,
    /// Whether it may ask for names.
    #[serde(default = "yes")]
    pub(super) names: bool,
    /// The NetworkPolicy that guards it and bounds what it calls; missed by its name when it is not there.
    #[serde(default)]
    pub(super) policy: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    #[default]
    Deployment,
    StatefulSet,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    /// A workload, a source, or `everybody`.
    pub(super) from: String,
    /// A workload, or `apiserver`.
    pub(super) to: String,
    /// A port of its pods.
    pub(super) port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallRule {
    /// A workload with the settings of billing.
    pub(super) from: String,
    /// The workload that it calls.
    pub(super) to: String,
    /// A route that asks and changes nothing.
    pub(super) path: String,
    /// Whether a certificate is demanded.
    #[serde(default)]
    pub(super) certificate: bool,
    /// The name in the caller's certificate (URI or DNS), so that one of another authority has it too.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// Whether a token is demanded.
    #[serde(default)]
    pub(super) token: bool,
    /// A cert-manager issuer of the callers' authority, in the caller's namespace, which signs for a stranger.
    #[serde(default)]
    pub(super) issuer: Option<Issuer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    pub(super) name: String,
    #[serde(default = "cluster_issuer")]
    pub(super) kind: String,
}

fn yes() -> bool {
    true
}

fn cluster_issuer() -> String {
    "ClusterIssuer".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Team {
    /// Its group, as RoleBindings name it.
    pub(super) group: String,
    pub(super) namespace: String,
    /// What it may do there: `patch deployments`, `get pods`.
    pub(super) may: Vec<String>,
    /// More that it must not do there.
    #[serde(default)]
    pub(super) may_not: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageRule {
    pub(super) namespace: String,
    /// An image that must be refused there.
    pub(super) forbidden: String,
    /// The twin: one that is taken.
    pub(super) allowed: String,
    /// Such as `validatingadmissionpolicy/images-of-the-team`.
    pub(super) by: String,
}

impl Expectations {
    /// From text; all mistakes in one message.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expectations: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mistakes = expectations.mistakes();
        if mistakes.is_empty() { Ok(expectations) } else { Err(mistakes.join("; ")) }
    }

    fn mistakes(&self) -> Vec<String> {
        let workloads: BTreeSet<&str> =
            self.workloads.iter().map(|workload| workload.name.as_str()).collect();
        let sources = self.sources.iter().map(|source| source.name.as_str());
        let callers: BTreeSet<&str> =
            workloads.iter().copied().chain(sources).chain([EVERYBODY, STRANGER]).collect();
        let mut mistakes = Vec::new();
        if workloads.len() < self.workloads.len() {
            mistakes.push("two workloads have one name".to_owned());
        }
        for path in &self.paths {
            if !callers.contains(path.from.as_str()) {
                mistakes.push(format!("path from {:?}: no workload and no source", path.from));
            }
            if path.to != APISERVER && !workloads.contains(path.to.as_str()) {
                mistakes.push(format!("path to {:?}: no workload", path.to));
            }
        }
        let named = self.calls.iter().flat_map(|call| [&call.from, &call.to]).chain(&self.evictions);
        let unknown = named.filter(|name| !workloads.contains(name.as_str()));
        mistakes.extend(unknown.map(|name| format!("{name:?} is no workload")));
        let words = self.teams.iter().flat_map(|team| team.may.iter().chain(&team.may_not));
        let bad = words.filter(|words| super::rbac::Deed::parse(words).is_none());
        mistakes.extend(bad.map(|words| format!("{words:?} is not a verb and a resource that is known")));
        let bad = self.elsewhere.iter().filter(|address| split(address).is_none());
        mistakes.extend(bad.map(|address| format!("{address:?} is not host:port")));
        mistakes
    }

    /// The namespaces of the environment.
    pub(super) fn namespaces(&self) -> BTreeSet<&str> {
        let of_teams = self.teams.iter().map(|team| team.namespace.as_str());
        self.workloads.iter().map(|workload| workload.namespace.as_str()).chain(of_teams).collect()
    }

    /// Whether this path is meant to be open.
    pub(super) fn is_open(&self, from: &str, to: &str, port: u16) -> bool {
        let same = |path: &&Path| path.to == to && path.port == port;
        let free = self.is_free(from);
        self.paths.iter().filter(same).any(|path| path.from == from || path.from == EVERYBODY && free)
    }

    fn is_free(&self, from: &str) -> bool {
        let bounded = self.default_deny && from.starts_with(NEIGHBOUR);
        !bounded && self.workloads.iter().all(|workload| workload.name != from)
    }
}

/// `host:port`.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        environment = "x"
        elsewhere = ["[fd00::1]:443"]
        [[workload]]
        name = "a"
        namespace = "one"
        [[workload]]
        name = "b"
        namespace = "two"
        [[path]]
        from = "a"
        to = "b"
        port = 9000
    "#;

    #[test]
    fn only_what_is_said_is_open() {
        let expectations = Expectations::parse(GOOD).unwrap();
        assert!(expectations.is_open("a", "b", 9000));
        for (from, to, port) in [("a", "b", 9001), ("b", "a", 9000), ("stranger", "b", 9000)] {
            assert!(!expectations.is_open(from, to, port));
        }
        assert_eq!(expectations.namespaces().into_iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(split("[fd00::1]:443"), Some(("fd00::1", 443)));
    }

    #[test]
    fn the_files_of_the_environments_can_be_read() {
        let files = [
            include_str!("../../../../deploy/envs/invoice-app/doctor.toml"),
            include_str!("../../../../deploy/envs/ping-pong/doctor.toml"),
            include_str!("../../../../deploy/envs/production/doctor.toml"),
            include_str!("../../../../deploy/envs/staging/doctor.toml"),
            include_str!("../../../../deploy/envs/tinjis/doctor.toml"),
        ];
        let workloads = files.map(|text| Expectations::parse(text).map(|read| read.workloads.len()));
        assert_eq!(workloads, [Ok(3), Ok(2), Ok(2), Ok(2), Ok(2)]);
    }

    #[test]
    fn everybody_is_who_is_free_to_call() {
        let open = format!("{GOOD}\n[[path]]\nfrom = \"everybody\"\nto = \"a\"\nport = 8000");
        let mut expectations = Expectations::parse(&open).unwrap();
        for (from, wanted) in [("stranger", true), ("neighbour.one", true), ("b", false)] {
            assert_eq!(expectations.is_open(from, "a", 8000), wanted, "{from}");
        }
        expectations.default_deny = true;
        assert!(!expectations.is_open("neighbour.one", "a", 8000));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let bad = format!(
            "{GOOD}\n[[path]]\nfrom = \"c\"\nto = \"d\"\nport = 1\n[[team]]\ngroup = \"g\"\nnamespace = \"one\"\n\
             may = [\"fly planes\"]"
        );
        let said = Expectations::parse(&bad).unwrap_err();
        for part in ["\"c\"", "\"d\"", "fly planes"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(Expectations::parse("environment = \"x\"\nworkload = []\nnonsense = 1").is_err());
    }
}
